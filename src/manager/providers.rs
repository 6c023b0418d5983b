//! The providers by the names that Rust programs know. Credentials come from the cloud's own chain and variables, as they do for a
//! provider of the configuration, which has more settings; nothing is asked before the first call that needs it.

use std::sync::Arc;

use crate::error::Result;
use crate::kms::{self, KmsProvider, LocalKms, Setting, Settings};

/// Master keys in memory or in a file, for development: [`LocalKms::new`], [`LocalKms::add_master_key`], [`LocalKms::from_file`].
pub type LocalKmsProvider = LocalKms;

/// AWS KMS.
#[cfg(feature = "aws-kms")]
#[derive(Debug)]
pub struct AwsKmsProvider;

#[cfg(feature = "aws-kms")]
impl AwsKmsProvider {
    /// Takes the master key: its id, its ARN, or an alias with `alias/` in front. The region is that of the ARN or of `AWS_REGION`.
    ///
    /// # Errors
    /// `ArgumentsBad` for a name that is none.
    #[allow(clippy::new_ret_no_self)] // every provider is used through the trait
    pub async fn new(key: &str) -> Result<Arc<dyn KmsProvider>> {
        open("aws", [("key", text(key))])
    }
}

/// Azure Key Vault, or a managed HSM.
#[cfg(feature = "azure-kv")]
#[derive(Debug)]
pub struct AzureKeyVaultProvider;

#[cfg(feature = "azure-kv")]
impl AzureKeyVaultProvider {
    /// Takes the address of the vault (`https://NAME.vault.azure.net`) and the name of the key.
    ///
    /// # Errors
    /// `ArgumentsBad` for an address or a name that is none.
    #[allow(clippy::new_ret_no_self)] // as above
    pub async fn new(vault: &str, key: &str) -> Result<Arc<dyn KmsProvider>> {
        open("azure", [("vault", text(vault)), ("key", text(key))])
    }
}

/// Google Cloud KMS.
#[cfg(feature = "google-kms")]
#[derive(Debug)]
pub struct GoogleKmsProvider;

#[cfg(feature = "google-kms")]
impl GoogleKmsProvider {
    /// Takes the full name of the key: `projects/…/locations/…/keyRings/…/cryptoKeys/…`.
    ///
    /// # Errors
    /// `ArgumentsBad` for a name that is none.
    #[allow(clippy::new_ret_no_self)] // as above
    pub async fn new(key: &str) -> Result<Arc<dyn KmsProvider>> {
        open("google", [("key", text(key))])
    }
}

/// Another PKCS #11 module.
#[cfg(feature = "hsm")]
#[derive(Debug)]
pub struct HsmProvider;

#[cfg(feature = "hsm")]
impl HsmProvider {
    /// Takes the module's shared library, the label of the token, the label of the key, and the file that holds the PIN.
    ///
    /// # Errors
    /// `ArgumentsBad` for settings that contradict each other.
    #[allow(clippy::new_ret_no_self)] // as above
    pub async fn new(
        module: &std::path::Path,
        token: &str,
        key: &str,
        pin_file: &std::path::Path,
    ) -> Result<Arc<dyn KmsProvider>> {
        let path = |path: &std::path::Path| Setting::Path(path.to_owned());
        let settings =
            [("module", path(module)), ("token", text(token)), ("key", text(key)), ("pin_file", path(pin_file))];
        open("hsm", settings)
    }
}

#[cfg_attr(
    not(any(feature = "aws-kms", feature = "azure-kv", feature = "google-kms", feature = "hsm")),
    allow(dead_code)
)] // nothing to open
fn text(value: &str) -> Setting {
    Setting::Text(value.to_owned())
}

#[cfg_attr(
    not(any(feature = "aws-kms", feature = "azure-kv", feature = "google-kms", feature = "hsm")),
    allow(dead_code)
)] // nothing to open
fn open<const N: usize>(kind: &str, settings: [(&str, Setting); N]) -> Result<Arc<dyn KmsProvider>> {
    let named = Settings::new(kind, kind);
    kms::open(&settings.into_iter().fold(named, |all, (key, value)| all.with(key, value)))
}
