//! Sealing the versions of a key anew: under another password, or at a higher cost of the same one.

use std::sync::Arc;

use super::version_name;
use crate::audit::Event;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::seal::PasswordKey;
use crate::secret::{SecureBytes, SecurePrivateKey};
use crate::token::object::latest_version;
use crate::token::operation::of_key;
use crate::token::session::Session;
use crate::token::version;

/// What became of the versions of a key whose password changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resealed {
    /// Versions under the new password.
    pub sealed: u64,
    /// Versions that stay under another one than the old.
    pub left: u64,
}

/// What a password was tried with, for each salt and cost once, and whether it opens what has them.
#[derive(Debug)]
pub struct KnownKeys(Vec<(Arc<PasswordKey>, bool)>);

impl KnownKeys {
    /// Starts with a key that opens.
    pub fn of_right(key: Arc<PasswordKey>) -> Self {
        Self(vec![(key, true)])
    }

    /// Finds the key of a sealed secret.
    fn of(&self, sealed: &SecurePrivateKey) -> Result<Option<(&PasswordKey, bool)>> {
        for (key, opens) in &self.0 {
            if key.fits(sealed)? {
                return Ok(Some((key, *opens)));
            }
        }
        Ok(None)
    }
}

impl Session {
    /// Finds out whether a password opens a version, and remembers what it was tried with. No try is counted.
    ///
    /// # Errors
    /// `KeyHandleInvalid`; `DeviceError` when the version is damaged; `HostMemory`.
    pub fn learn(&self, handle: CK_OBJECT_HANDLE, password: &SecureBytes, known: &mut KnownKeys) -> Result<()> {
        let (token, token_key) = (&self.token, self.token.token_key()?);
        let uid = token.object(handle).map_err(of_key)?.uid;
        // As it is now: what is kept of it may be older than a change by another process.
        let row = token.store.object(&token.serial, &uid)?.ok_or_else(|| Error::from(Kind::KeyHandleInvalid))?;
        let object = self.opened(row, &token_key)?;
        let sealed = object.stored_secret(&token.serial, Some(&token_key))?;
        let sealed = token.without_data_key(&uid, object.attributes(), sealed)?;
        if known.of(&sealed)?.is_some() {
            return Ok(());
        }
        let key = token.gate.pass(|| PasswordKey::of(&sealed, password))?;
        let opens = key.open(&version_name(object.attributes()), &sealed).is_ok();
        known.0.push((Arc::new(key), opens));
        Ok(())
    }

    /// Seals a key again when the configured cost of Argon2id was raised. It is no reason to refuse the password.
    pub(super) fn raise_cost(
        &self,
        name: &Attributes,
        key: Arc<PasswordKey>,
        password: &SecureBytes,
    ) -> Arc<PasswordKey> {
        let params = self.token.profile().sealer.argon2();
        if !params.exceeds(&key.params()) || self.token.store.read_only() {
            return key;
        }
        let known = KnownKeys::of_right(key.clone());
        let raised = self.token.gate.pass(|| PasswordKey::new(password, params)).and_then(|raised| {
            self.reseal(self.event_of("upgrade-argon2", name), name, &known, &raised, false)?;
            Ok(Arc::new(raised))
        });
        raised.unwrap_or_else(|error| {
            log::warn!("the Argon2id parameters of the {} could not be upgraded: {error}", version::key_of(name));
            key
        })
    }

    /// Seals the versions of a key that the known keys open under a new one, in one transaction. `all` says that each version must be
    /// known, whether it opens or not, and the latest must open.
    ///
    /// # Errors
    /// `FunctionFailed` when another process has changed the key meanwhile; the store's.
    pub fn reseal(
        &self,
        event: Event,
        name: &Attributes,
        known: &KnownKeys,
        new: &PasswordKey,
        all: bool,
    ) -> Result<Resealed> {
        let (resealed, _) = self.change_anywhere(event, |change| {
            let (mut resealed, mut of_latest) = (Resealed::default(), false);
            for found in change.find(name)?.iter().filter(|found| found.attributes().is(CKA_SR_PASSWORD)) {
                let (version, sealed) = (version_name(found.attributes()), change.sealed_secret(found)?);
                let of_sealed = sealed.as_ref().map_or(Ok(None), |sealed| known.of(sealed));
                match (of_sealed?, &sealed) {
                    (Some((key, true)), Some(sealed)) => {
                        let secret = key.open(&version, sealed)?;
                        change.update_secret(found, new.seal(&version, &secret)?)?;
                        resealed.sealed += 1;
                        of_latest |= latest_version(found.attributes()).is_some();
                    }
                    (None, _) if all => return Err(changed_meanwhile(name)),
                    _ => resealed.left += 1,
                }
            }
            match all && !of_latest {
                true => Err(changed_meanwhile(name)),
                false => Ok(resealed),
            }
        })?;
        Ok(resealed)
    }
}

fn changed_meanwhile(name: &Attributes) -> Error {
    let text =
        format!("another process changed the password of the {} at the same time; try again", version::key_of(name));
    Error::new(Kind::FunctionFailed, text)
}
