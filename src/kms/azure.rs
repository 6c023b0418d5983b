//! The `azure` provider: a key of an Azure Key Vault or of a Managed HSM as the master key, and the keys that live there.
//!
//! The rules are:
//! - Key Vault knows no context and no associated data, so a fresh key of 32 bytes is wrapped there, and the secret is sealed
//!   here under it (`blob.rs`): RSA keys wrap with RSA-OAEP-256, AES keys of a Managed HSM with A256KW;
//! - wrapping asks for the key first: the service wraps under a key that is disabled or may not unwrap, and what it gave then
//!   would never open; the version that was asked about is the one that wraps;
//! - the master key's full name is the key identifier with its version, and unwrapping uses exactly that version;
//! - a stored identifier gives the version alone: all requests go to the vault of the configuration and to its key, so that a key which
//!   was restored into another vault still opens what it wrapped, and nobody who can write the store chooses host or key.

mod connect;
mod fault;
mod jwk;
mod keys;
mod vault;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use azure_security_keyvault_keys::models::EncryptionAlgorithm;

use super::blob;
use super::provider::{Context, Description, KeyState, KmsProvider, MasterKeyId, Wrapped, other_key};
use super::remote::RemoteKeys;
use super::{ProviderRow, SettingRow, Settings, Shape};
use crate::error::{Error, KmsFault, Result};
use crate::secret::SecureBytes;
use connect::Options;
use fault::Verb;
use vault::{KeyId, Vault};

/// The type as the configuration and the envelopes name it.
pub const KIND: &str = "azure";

/// The row of the registry.
pub const ROW: ProviderRow =
    ProviderRow { kind: KIND, settings: SETTINGS, remote: true, abilities: || keys::ABILITIES, open };

/// The keys of a `[kms.NAME]` section of this type.
const SETTINGS: &[SettingRow] = &[
    SettingRow::required("vault", Shape::Text, "the address of the vault or managed HSM: https://NAME.vault.azure.net"),
    SettingRow::required("key", Shape::Text, "the name of the key that wraps, without its version"),
    SettingRow::optional(
        "credential",
        Shape::Word(connect::CREDENTIALS),
        "how to log in (default chain: what the environment has, then the machine's identity, then the Azure CLI)",
    ),
    SettingRow::optional("tenant", Shape::Text, "the tenant of the identity (default: AZURE_TENANT_ID)"),
    SettingRow::optional("client_id", Shape::Text, "the client id of the identity (default: AZURE_CLIENT_ID)"),
    SettingRow::optional(
        "client_secret_file",
        Shape::Path,
        "the file of the service principal's secret (default: the secret in AZURE_CLIENT_SECRET)",
    ),
    SettingRow::optional(
        "token_file",
        Shape::Path,
        "the file of the workload's federated token (default: AZURE_FEDERATED_TOKEN_FILE)",
    ),
    SettingRow::optional(
        "authority",
        Shape::Text,
        "the address of the login service (default: AZURE_AUTHORITY_HOST, else https://login.microsoftonline.com)",
    ),
    SettingRow::optional(
        "ca_file",
        Shape::Path,
        "PEM certificates to trust beside the system's: a proxy's, an emulator's",
    ),
    SettingRow::optional(
        "verify_challenge_resource",
        Shape::Flag,
        "false: the vault may ask for a login to another domain than its own, as emulators do (default true)",
    ),
    SettingRow::optional(
        "hsm_keys",
        Shape::Flag,
        "true: keys made here are protected by an HSM, which a premium vault has (default false; a managed HSM has no others)",
    ),
];

/// The length in bytes of a data key under A256KW (RFC 3394); RSA gives 256 bytes and more.
const A256KW_LEN: usize = super::DATA_KEY_LEN + 8;

/// Opens the provider. Nothing is read and nobody is asked yet.
fn open(settings: &Settings) -> Result<Arc<dyn KmsProvider>> {
    let vault = Arc::new(Vault::new(Options::read(settings)?));
    Ok(Arc::new(AzureKeyVault { name: settings.name.clone(), vault }))
}

/// A key of an Azure Key Vault as the master key.
struct AzureKeyVault {
    name: String,
    vault: Arc<Vault>,
}

impl AzureKeyVault {
    /// Runs work on the vault within the deadline of the settings.
    fn run<T, F>(&self, work: impl FnOnce(Arc<Vault>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.vault.run(work(self.vault.clone()))
    }

    /// Has the service wrap a data key.
    fn wrap_there(&self, data_key: &SecureBytes) -> Result<Wrapped> {
        let data_key = data_key.clone();
        self.run(|vault| async move {
            let master = vault.master_key().await?;
            let algorithm = wrapping_algorithm(&master)?;
            let blob = vault.operate(Verb::Wrap, &master.id, algorithm.as_ref(), data_key.expose()).await?;
            let master_key = MasterKeyId { key: master.id.kid, version: 0 };
            Ok(Wrapped { master_key, blob: blob.expose().to_vec() })
        })
    }

    /// Has the service unwrap a data key with the version that wrapped it.
    fn unwrap_there(&self, master_key: &MasterKeyId, wrapped: &[u8]) -> Result<SecureBytes> {
        let id = KeyId::parse(&master_key.key).ok_or_else(|| {
            let text = format!("the wrapped blob names the master key {master_key}, which is no Azure key identifier");
            Error::kms(KmsFault::Tampered, text)
        })?;
        let own = &self.vault.options.key;
        if !id.name.eq_ignore_ascii_case(own) {
            return Err(other_key(&self.name, master_key, format_args!("`{own}`")));
        }
        // The service takes no algorithm that does not fit the type of the version.
        let algorithm =
            if wrapped.len() == A256KW_LEN { EncryptionAlgorithm::A256Kw } else { EncryptionAlgorithm::RsaOaep256 };
        let wrapped = wrapped.to_vec();
        self.run(|vault| async move { vault.operate(Verb::Unwrap, &id, algorithm.as_ref(), &wrapped).await })
    }
}

/// Finds how a key wraps, and checks that what it wraps can be unwrapped again.
fn wrapping_algorithm(master: &jwk::KeyFacts) -> Result<EncryptionAlgorithm> {
    let refuse = |fault, text: String| Err(Error::kms(fault, format!("the Azure key `{}` {text}", master.id)));
    if master.state != KeyState::Enabled {
        let text = format!("is {}; enable it, or name another in the configuration", master.state.name());
        return refuse(KmsFault::Disabled, text);
    }
    if !(master.may("wrapKey") && master.may("unwrapKey")) {
        let text = "may not both wrap and unwrap; its operations must have wrapKey and unwrapKey".to_owned();
        return refuse(KmsFault::Unsupported, text);
    }
    match master.kind {
        jwk::Kind::Rsa => Ok(EncryptionAlgorithm::RsaOaep256),
        jwk::Kind::Oct => Ok(EncryptionAlgorithm::A256Kw),
        _ => refuse(KmsFault::Unsupported, "is neither an RSA nor an AES key, and no other wraps".to_owned()),
    }
}

impl KmsProvider for AzureKeyVault {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn wrap_key(&self, secret: &SecureBytes, context: &Context<'_>) -> Result<Wrapped> {
        blob::seal(secret, context, |data_key| self.wrap_there(data_key))
    }

    fn unwrap_key(&self, wrapped: &Wrapped, context: &Context<'_>) -> Result<SecureBytes> {
        blob::open(wrapped, context, |data_key| self.unwrap_there(&wrapped.master_key, data_key))
    }

    fn rotate_master_key(&self) -> Result<MasterKeyId> {
        let rotated = self.run(|vault| async move { vault.rotate().await })?;
        Ok(MasterKeyId { key: rotated.id.kid, version: 0 })
    }

    fn describe(&self) -> Result<Description> {
        let master = self.run(|vault| async move { vault.master_key().await })?;
        Ok(Description {
            version: master.id.version.clone(),
            algorithms: master.algorithms(),
            master_key: MasterKeyId { key: master.id.kid, version: 0 },
            state: master.state,
        })
    }

    fn wraps_by_public_key(&self) -> Result<bool> {
        let master = self.run(|vault| async move { vault.master_key().await })?;
        Ok(master.kind == jwk::Kind::Rsa)
    }

    fn remote_keys(&self) -> Option<&dyn RemoteKeys> {
        Some(self)
    }
}
