//! Backups of the open token, as Rust programs make and restore them.

use std::path::PathBuf;

use serde_json::Value;

use super::KeyManager;
use super::instance::{Instance, on_thread};
use crate::error::Result;
use crate::keys::backup::{self, ImportOptions, Place, Recovery, Scope, Secrets, To};
use crate::secret::SecureBytes;

impl KeyManager {
    /// Adds a recovery envelope, which every backup from then on carries: this password of 16 bytes or more opens the token's keys
    /// without its KMS. Shares that were written by [`Self::add_recovery_shares`] are read by [`super::read_share_files`].
    ///
    /// # Errors
    /// `PinLenRange` for a short password; `ActionProhibited` for a name that is taken; `UserNotLoggedIn` for a token that has PINs,
    /// whose SO alone may do it.
    pub async fn add_recovery_password(name: &str, password: SecureBytes) -> Result<()> {
        let (instance, name) = (Instance::current()?, name.to_owned());
        on_thread(move || Recovery::add_password(instance.session(), &name, &password)).await
    }

    /// Adds a recovery envelope that another KMS of the configuration opens, by its name there.
    ///
    /// # Errors
    /// `ArgumentsBad` for a provider that the configuration does not have; the KMS's; as [`Self::add_recovery_password`].
    pub async fn add_recovery_kms(name: &str, provider: &str) -> Result<()> {
        let (instance, name, provider) = (Instance::current()?, name.to_owned(), provider.to_owned());
        on_thread(move || Recovery::add_kms(instance.session(), &name, &provider)).await
    }

    /// Adds a recovery envelope that any `needed` of `count` shares open (Shamir), and writes each share into a file of its own in a
    /// folder, readable by its owner alone.
    ///
    /// # Errors
    /// `ArgumentsBad` unless 2 ≤ `needed` ≤ `count`; `FunctionFailed` when a file cannot be written; as
    /// [`Self::add_recovery_password`].
    pub async fn add_recovery_shares(name: &str, needed: u8, count: u8, folder: impl Into<PathBuf>) -> Result<()> {
        let (instance, name, folder) = (Instance::current()?, name.to_owned(), folder.into());
        on_thread(move || {
            let (session, label) = (instance.session(), instance.session().token_label()?);
            Recovery::add_shares(session, &name, (needed, count), |shares| {
                backup::write_share_files(&folder, &label, shares)
            })
        })
        .await
    }

    /// Lists the recovery envelopes of the token as a JSON array.
    ///
    /// # Errors
    /// `DeviceError` when the store fails.
    pub async fn list_recovery() -> Result<Value> {
        let instance = Instance::current()?;
        on_thread(move || Recovery::list(instance.session())).await
    }

    /// Removes a recovery envelope. Backups that have it keep it.
    ///
    /// # Errors
    /// `ObjectHandleInvalid` when there is none of this name; as [`Self::add_recovery_password`].
    pub async fn remove_recovery(name: &str) -> Result<()> {
        let (instance, name) = (Instance::current()?, name.to_owned());
        on_thread(move || Recovery::remove(instance.session(), &name)).await
    }

    /// Writes a backup of the token, of an owner or of a key to a new file: sealed records, nothing in plaintext. Tells as JSON what
    /// was written.
    ///
    /// # Errors
    /// `KeyHandleInvalid` when there is no such key; `ActionProhibited` for a file that is there; `DeviceMemory` for a full disk; the store's.
    pub async fn export_backup(path: impl Into<PathBuf>, scope: Scope) -> Result<Value> {
        let (instance, path) = (Instance::current()?, path.into());
        on_thread(move || {
            let to = To::File { path, overwrite: false };
            backup::export(instance.session(), &scope, to, &mut |_| {})
        })
        .await
    }

    /// Proves that a backup would restore, without restoring, and tells as JSON what it holds.
    ///
    /// # Errors
    /// `PinIncorrect` for secrets that do not open it; `DataInvalid` for a file that is not as it was written; the KMS's.
    pub async fn verify_backup(path: impl Into<PathBuf>, secrets: Secrets) -> Result<Value> {
        let (instance, path) = (Instance::current()?, path.into());
        on_thread(move || backup::verify(Place::Session(instance.session()), &path, &secrets, &mut |_| {})).await
    }

    /// Restores what a backup has of an owner or a key into the open token, in one transaction; keys of another token are sealed
    /// anew. [`Scope::Token`] is for a backup of this very token. A second time changes nothing. Tells as JSON what became of the
    /// records.
    ///
    /// # Errors
    /// As [`Self::verify_backup`]; `ArgumentsBad` for the whole of another token; `ActionProhibited` when something is there that must not be replaced or removed; the store's.
    pub async fn import_backup(
        path: impl Into<PathBuf>,
        scope: Scope,
        secrets: Secrets,
        options: ImportOptions,
    ) -> Result<Value> {
        let (instance, path) = (Instance::current()?, path.into());
        on_thread(move || {
            let place = Place::Session(instance.session());
            backup::import(place, &path, &scope, &secrets, options, &mut |_| {})
        })
        .await
    }
}
