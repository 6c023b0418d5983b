//! Managed keys with their owner's own password: made, unlocked, rotated and given another one.
//!
//! The rules are:
//! - a key has a password from its first version on, or from the version that a rotation gives one; it never loses it again;
//! - a rotation seals the new version alone: older versions stay under the password that they had;
//! - a change of the password seals every version anew that the old one opens, in one transaction, and touches nothing below.

use std::sync::Arc;

use super::managed::{Generated, ManagedKeys, Name};
use super::version::Version;
use crate::audit::Event;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::seal::PasswordKey;
use crate::secret::{SecureBytes, SecurePrivateKey};
use crate::token::{Change, Found, KnownKeys, Resealed};

/// The passwords of a rotation.
#[derive(Debug, Default, Clone, Copy)]
pub struct Passwords<'p> {
    /// The password of the latest version; `None` for a key without one.
    pub old: Option<&'p SecureBytes>,
    /// The password of the new version; `None` keeps the old one.
    pub new: Option<&'p SecureBytes>,
}

/// Under what a new version is sealed.
pub(super) struct Under {
    pub(super) key: Arc<PasswordKey>,
    /// The key of the version that it replaces, whose password was given.
    replaces: Option<Arc<PasswordKey>>,
}

impl Under {
    /// Checks that the version which is replaced is under the password still that was given for it.
    pub(super) fn check_replaces(&self, change: &Change<'_>, name: &Name, old: &Found) -> Result<()> {
        match self.replaces.as_ref().map_or(Ok(false), |key| change.is_under(old, key))? {
            true => Ok(()),
            false => {
                let text = format!("another process changed the password of the {name} at the same time; try again");
                Err(Error::new(Kind::FunctionFailed, text))
            }
        }
    }
}

impl ManagedKeys<'_> {
    /// Makes a key under its owner's password: its first version.
    ///
    /// # Errors
    /// `PinLenRange`, `PinInvalid` that state the rules for passwords; as [`Self::generate`].
    pub fn generate_with_password(&self, name: &Name, password: &SecureBytes) -> Result<Generated> {
        self.make(name, Some(&self.session.new_password(password)?))
    }

    /// Tells under what the version after the latest is sealed; tries the old password where there is one.
    pub(super) fn under(
        &self,
        event: &mut Event,
        name: &Name,
        latest: &Version,
        passwords: Passwords<'_>,
    ) -> Result<Option<Under>> {
        let Passwords { old, new } = passwords;
        let seal = || new.map(|new| self.session.new_password(new).map(Arc::new)).transpose();
        match (latest.has_password(), old) {
            (false, Some(_)) => Err(Error::arguments_bad(format!("the {name} has no password: leave the old one out"))),
            (false, None) => Ok(seal()?.map(|key| Under { key, replaces: None })),
            (true, None) => Err(needs_password(name)),
            (true, Some(old)) => {
                let new = seal()?;
                let opened = self.session.check_password_for(event, latest.handle, old)?;
                Ok(Some(Under { key: new.unwrap_or_else(|| opened.clone()), replaces: Some(opened) }))
            }
        }
    }

    /// Unlocks a version for this session, or the active one for 0; for so many seconds, or until it is locked for 0. Gives the handle
    /// of its private or secret key.
    ///
    /// # Errors
    /// `PinIncorrect`, `PinLocked`; `ActionProhibited` for a key without a password; as [`Self::version`].
    pub fn unlock(&self, name: &Name, number: u64, password: &SecureBytes, seconds: u64) -> Result<CK_OBJECT_HANDLE> {
        let version = self.version(name, number)?;
        self.session.unlock(version.handle, password, seconds)?;
        Ok(version.handle)
    }

    /// Takes a version's attributes and secret out of the token, for a Rust program that signs with them itself.
    ///
    /// # Errors
    /// `PinIncorrect`, `PinLocked`; `ArgumentsBad` for a password where the key has none; `KeyFunctionNotPermitted` for a version
    /// that may not sign; as [`Self::version`].
    pub fn take_out(
        &self,
        name: &Name,
        number: u64,
        password: Option<&SecureBytes>,
    ) -> Result<(Attributes, SecurePrivateKey)> {
        let version = self.version(name, number)?;
        if password.is_some() && !version.has_password() {
            return Err(Error::arguments_bad(format!("the {name} has no password: leave it out")));
        }
        self.session.take_out(version.handle, password)
    }

    /// Gives a key another password, and tells how many versions stay under another one than the old.
    ///
    /// # Errors
    /// `PinIncorrect`, `PinLocked` for the old password; `PinLenRange`, `PinInvalid` for the new one; `ActionProhibited` for a key
    /// without a password; `FunctionFailed` when another process changes it at the same time; the store's.
    pub fn change_password(&self, name: &Name, old: &SecureBytes, new: &SecureBytes) -> Result<u64> {
        self.session.check_read_write()?;
        let versions = self.versions(name)?;
        let latest = versions.last().ok_or_else(|| name.missing("version"))?;
        if new.is_empty() {
            return Err(Error::new(
                Kind::PinLenRange,
                "the new password is empty: a key that has a password keeps one",
            ));
        }
        let new = self.session.new_password(new)?;
        let operation = "SR_ChangeKeyPassword";
        let mut known = KnownKeys::of_right(self.session.check_password(operation, latest.handle, old)?);
        for version in versions.iter().filter(|version| version.has_password()) {
            self.session.learn(version.handle, old, &mut known)?;
        }
        let event = self.event(operation, name);
        let Resealed { sealed, left } = self.session.reseal(event, &name.template(), &known, &new, true)?;
        log::info!("{name}: {sealed} versions have a new password, {left} keep another one than the old");
        Ok(left)
    }

    /// Lets a key be tried again that is locked after wrong passwords, as the SO.
    ///
    /// # Errors
    /// `UserNotLoggedIn` unless the SO is; `KeyHandleInvalid`; `ActionProhibited` for a key without a password.
    pub fn reset_tries(&self, name: &Name) -> Result<()> {
        self.reset_tries_with(name, None)
    }

    /// Does the same as the user who is logged in, with the SO's PIN.
    ///
    /// # Errors
    /// As [`Self::reset_tries`]; `PinIncorrect`, `PinLocked` for the PIN.
    pub fn reset_tries_with(&self, name: &Name, so_pin: Option<&SecureBytes>) -> Result<()> {
        self.session.reset_password_tries(&name.template(), so_pin)?;
        log::warn!("{name}: the SO lets its password be tried again");
        Ok(())
    }
}

/// Makes the error of a rotation that lacks the password.
pub(super) fn needs_password(name: &Name) -> Error {
    let text = format!("the {name} has a password of its own, which a rotation needs (old_password of SR_RotateKey)");
    Error::new(Kind::PinIncorrect, text)
}
