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
    /// without its KMS.
    ///
    /// # Errors
    /// `PinLenRange` for a short password; `ActionProhibited` for a name that is taken; `UserNotLoggedIn` for a token that has PINs,
    /// whose SO alone may do it.
    pub async fn add_recovery_password(name: &str, password: SecureBytes) -> Result<()> {
        let (instance, name) = (Instance::current()?, name.to_owned());
        on_thread(move || Recovery::add_password(instance.session(), &name, &password)).await
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
