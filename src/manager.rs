//! The Rust face: managed keys for nodes that are written in Rust.
//!
//! A process opens one token ([`KeyManager::init`]); after that, each verb names a key by its owner and asset. What is made here is
//! seen by the C side, by Python and by the command, and the other way round: this is a thin face over [`crate::keys`].
//!
//! The rules are:
//! - what waits for a disk, a KMS or Argon2id runs on a thread of its own, so that no executor of the caller stands still; any
//!   executor will do;
//! - a private key leaves the token here alone, as a [`PrivateKey`] that signs and is wiped when it is dropped. Whoever can call
//!   this function shares the memory of the library; the C side has no way to it;
//! - a forked child opens the token anew, as it does on the C side.

mod asset;
mod backup;
mod instance;
mod password;
mod private_key;
mod providers;
mod rotation;

use std::path::PathBuf;
use std::sync::Arc;

pub use crate::audit::Report as AuditReport;
pub use crate::keys::backup::{ImportOptions, Scope as BackupScope, Secrets as BackupSecrets, read_share_files};
pub use crate::keys::migrate::{Options as MigrationOptions, Summary as Migrated};
pub use crate::seal::EncryptionEngine;
pub use crate::secret::{MasterKey, SecureBytes};
pub use asset::QuoteAsset;
pub use instance::Options;
pub use password::Password;
pub use private_key::PrivateKey;
pub use providers::*;
pub use rotation::{KeyRotationManager, Rotated, RotationPolicy};

use crate::error::Result;
use crate::keys::migrate::import_file;
use crate::keys::{Generated, ManagedKeys, Passwords, State, Version};
use crate::kms::KmsProvider;
use crate::token::MasterKeyChange;
use instance::{Instance, on_thread};

/// What there is to know of a key that was made; the key itself stays where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedKey {
    /// The `CKA_ID` of the managed key, which stays through rotation, in hexadecimal.
    pub id: String,
    /// The version, from 1.
    pub version: u64,
    /// The public key as `SubjectPublicKeyInfo` (RFC 5280) in DER; empty for a secret key.
    pub public_key: Vec<u8>,
    /// The address in the asset's usual form, if it has one.
    pub address: Option<String>,
}

impl From<Generated> for GeneratedKey {
    fn from(made: Generated) -> Self {
        let Generated { version, address } = made;
        let id = data_encoding::HEXLOWER.encode(version.id());
        Self { id, version: version.number, public_key: version.public_key().to_vec(), address }
    }
}

/// The managed keys of the token that this process has open.
#[derive(Debug)]
pub struct KeyManager;

impl KeyManager {
    /// Opens the token `strongroom` of the configured store, or makes it, sealed under a provider. It has no PIN: whoever the
    /// provider serves can open it.
    ///
    /// # Errors
    /// As [`Self::init`].
    pub async fn init_kms_provider(provider: Box<dyn KmsProvider>) -> Result<()> {
        Self::init(Options::new().provider(provider)).await
    }

    /// Opens a token for this process. A second call takes the place of the first.
    ///
    /// # Errors
    /// `ArgumentsBad` for a wrong configuration; `TokenNotPresent` for a token that is not there and cannot be made; the KMS's,
    /// the store's; `PinIncorrect`.
    pub async fn init(options: Options) -> Result<()> {
        on_thread(move || Instance::open(options).map(instance::set)).await
    }

    /// Closes the token: its keys are wiped from memory. Calls that are under way end as they do at C_Finalize.
    pub async fn shutdown() {
        let close = || {
            instance::clear();
            Ok(())
        };
        // There is nothing to answer: what cannot be closed is gone already.
        let _ = on_thread(close).await;
    }

    /// Makes a key, version 1, under its owner's password if one is given.
    ///
    /// # Errors
    /// `ActionProhibited` when there is one of this name; `PinLenRange`, `PinInvalid` for the password; the store's.
    pub async fn generate_key(owner: &str, asset: QuoteAsset, password: impl Into<Password>) -> Result<GeneratedKey> {
        let (name, password) = (asset.key_of(owner)?, password.into());
        with_keys(move |keys| {
            let made = password
                .secret()
                .map_or_else(|| keys.generate(&name), |password| keys.generate_with_password(&name, password));
            Ok(made?.into())
        })
        .await
    }

    /// Takes the private key of the active version out of the token: it signs, and is wiped when it is dropped.
    ///
    /// # Errors
    /// `KeyHandleInvalid` for an unknown key; `PinIncorrect`, `PinLocked` for the password; `KeyFunctionNotPermitted` for a version
    /// that may not sign.
    pub async fn get_private_key(owner: &str, asset: QuoteAsset, password: impl Into<Password>) -> Result<PrivateKey> {
        Self::get_private_key_version(owner, asset, 0, password).await
    }

    /// As [`Self::get_private_key`], of the version with this number; 0 is the active one.
    ///
    /// # Errors
    /// As [`Self::get_private_key`].
    pub async fn get_private_key_version(
        owner: &str,
        asset: QuoteAsset,
        version: u64,
        password: impl Into<Password>,
    ) -> Result<PrivateKey> {
        let (name, password) = (asset.key_of(owner)?, password.into());
        with_keys(move |keys| PrivateKey::take(keys, &name, version, password.secret())).await
    }

    /// Finds a version of a key: 0 is the active one.
    ///
    /// # Errors
    /// `KeyHandleInvalid` for an unknown key or version.
    pub async fn find_key(owner: &str, asset: QuoteAsset, version: u64) -> Result<Version> {
        let name = asset.key_of(owner)?;
        with_keys(move |keys| keys.version(&name, version)).await
    }

    /// Lists the versions of a key, the oldest first.
    ///
    /// # Errors
    /// `KeyHandleInvalid` for an unknown key.
    pub async fn list_versions(owner: &str, asset: QuoteAsset) -> Result<Vec<Version>> {
        let name = asset.key_of(owner)?;
        with_keys(move |keys| keys.versions(&name)).await
    }

    /// Gives the address of a version, or of the active one for 0, in the asset's usual form.
    ///
    /// # Errors
    /// `KeyHandleInvalid`; `FunctionNotSupported` for an asset without addresses.
    pub async fn get_address(owner: &str, asset: QuoteAsset, version: u64) -> Result<String> {
        let name = asset.key_of(owner)?;
        with_keys(move |keys| keys.address(&name, version, None)).await
    }

    /// Makes a new version of a key. A key with a password needs it; the new version is sealed under the new one, or under the old
    /// one when none is given.
    ///
    /// # Errors
    /// `KeyHandleInvalid`; `PinIncorrect`, `PinLocked` for the old password; the store's.
    pub async fn rotate_key(
        owner: &str,
        asset: QuoteAsset,
        old_password: impl Into<Password>,
        new_password: impl Into<Password>,
    ) -> Result<GeneratedKey> {
        let (name, old, new) = (asset.key_of(owner)?, old_password.into(), new_password.into());
        with_keys(move |keys| {
            let passwords = Passwords { old: old.secret(), new: new.secret() };
            Ok(keys.rotate_with_passwords(&name, 0, passwords)?.into())
        })
        .await
    }

    /// Seals every version that the old password opens under the new one; nothing below is touched. Tells how many versions keep
    /// another password than the old one.
    ///
    /// # Errors
    /// `PinIncorrect`, `PinLocked` for the old password; `PinLenRange`, `PinInvalid` for the new one.
    pub async fn change_key_password(
        owner: &str,
        asset: QuoteAsset,
        old: impl Into<Password>,
        new: impl Into<Password>,
    ) -> Result<u64> {
        let (name, old, new) = (asset.key_of(owner)?, old.into(), new.into());
        with_keys(move |keys| keys.change_password(&name, old.required()?, new.required()?)).await
    }

    /// Lets a key be tried again that is locked after wrong passwords. That takes the SO PIN of the token ([`Options::so_pin`]).
    ///
    /// # Errors
    /// `PinIncorrect`, `PinLocked` for the SO PIN; `KeyHandleInvalid`; `ActionProhibited` for a key without a password.
    pub async fn reset_key_tries(owner: &str, asset: QuoteAsset, so_pin: SecureBytes) -> Result<()> {
        let name = asset.key_of(owner)?;
        with_keys(move |keys| keys.reset_tries_with(&name, Some(&so_pin))).await
    }

    /// Changes the state of a version.
    ///
    /// # Errors
    /// `KeyHandleInvalid`; `ActionProhibited` for a state that it cannot have.
    pub async fn set_version_state(owner: &str, asset: QuoteAsset, version: u64, state: State) -> Result<()> {
        let name = asset.key_of(owner)?;
        with_keys(move |keys| keys.set_state(&name, version, state)).await
    }

    /// Destroys a version that is not active, for good. The confirmation is [`Version::unique_id`]: whoever names the wrong version
    /// does not have it.
    ///
    /// # Errors
    /// `ActionProhibited` for the active version; `ArgumentsBad` for another confirmation; `KeyHandleInvalid`.
    pub async fn destroy_version(owner: &str, asset: QuoteAsset, version: u64, confirmation: &[u8]) -> Result<()> {
        let (name, confirmation) = (asset.key_of(owner)?, confirmation.to_vec());
        with_keys(move |keys| keys.destroy_version(&name, version, &confirmation)).await
    }

    /// Moves the legacy system's records in, from a file with a JSON object a line; a new file gets a line for each, if one is named.
    ///
    /// # Errors
    /// `DataInvalid` for a file that cannot be read or has no record; `ArgumentsBad` for a report that is there already; the store's.
    /// What keeps a single record from being moved is in the report.
    pub async fn import_legacy_hex(
        source: impl Into<PathBuf>,
        report: Option<PathBuf>,
        options: MigrationOptions,
    ) -> Result<Migrated> {
        let (instance, source) = (Instance::current()?, source.into());
        let import = move || import_file(instance.session(), &source, report.as_deref(), options, &mut |_| {});
        on_thread(import).await
    }

    /// Verifies the token's audit trail from its first record.
    ///
    /// # Errors
    /// `DeviceError` when the store cannot be read. What is wrong with the trail is in the report.
    pub async fn verify_audit() -> Result<AuditReport> {
        let instance = Instance::current()?;
        on_thread(move || instance.session().verify_audit(None)).await
    }

    /// Rotates the master key in the KMS, and wraps the token's outer key under the new version.
    ///
    /// # Errors
    /// The KMS's; `FunctionFailed` when another process changes the envelopes at the same time.
    pub async fn rotate_master_key() -> Result<MasterKeyChange> {
        let instance = Instance::current()?;
        on_thread(move || instance.session().rotate_master_key()).await
    }

    /// Moves the token to another provider of the configuration.
    ///
    /// # Errors
    /// As [`Self::rotate_master_key`]; `ArgumentsBad` for a provider that the configuration does not have.
    pub async fn move_kms(provider: &str) -> Result<MasterKeyChange> {
        let (instance, provider) = (Instance::current()?, provider.to_owned());
        on_thread(move || instance.session().move_kms(&provider)).await
    }
}

/// Runs work with the managed keys on a thread of its own.
async fn with_keys<T: Send + 'static>(work: impl FnOnce(&ManagedKeys<'_>) -> Result<T> + Send + 'static) -> Result<T> {
    let instance: Arc<Instance> = Instance::current()?;
    on_thread(move || work(&ManagedKeys::of(instance.session()))).await
}
