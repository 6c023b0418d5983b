//! Rotation: a new version takes the place of the active one.
//!
//! The rules are:
//! - the old version becomes rotated and the new one active in one transaction: a crash leaves the one state or the other;
//! - the transaction itself finds the version that it replaces, so that of several processes with the same intent one rotates,
//!   and the others find nothing to do;
//! - a version is as old as the clock says. One that was set back a little makes it no older than the version that it replaces; one that
//!   was far ahead when that was made does not stay right for ever;
//! - label, id, usages and rules go over to the new version, and its uses are counted from 0;
//! - a key with a password of its own is rotated by who gives that, and reported as due until then.

use super::managed::{Generated, ManagedKeys, Name, number_of, stamp};
use super::password::{Passwords, Under, needs_password};
use super::version::{self, State};
use crate::audit::Event;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::token::{Change, Found, Prepared};

/// What goes over from one version to the next, by each half.
const CARRIED: [CK_ATTRIBUTE_TYPE; 17] = [
    CKA_LABEL,
    CKA_ID,
    CKA_SUBJECT,
    CKA_PRIVATE,
    CKA_ENCRYPT,
    CKA_DECRYPT,
    CKA_SIGN,
    CKA_VERIFY,
    CKA_WRAP,
    CKA_UNWRAP,
    CKA_DERIVE,
    CKA_WRAP_WITH_TRUSTED,
    CKA_MODIFIABLE,
    CKA_SR_ROTATION_INTERVAL,
    CKA_SR_MAX_AGE,
    CKA_SR_MAX_USES,
    CKA_SR_AUTO_ROTATE,
];

impl ManagedKeys<'_> {
    /// Rotates a key, whether it is due or not. `expected` is the version that is to be replaced; 0 is the latest.
    ///
    /// # Errors
    /// `ActionProhibited` when the latest version is another than the expected one: somebody else has rotated; `PinIncorrect` for a
    /// key with a password of its own; `KeyHandleInvalid`; the store's.
    pub fn rotate(&self, name: &Name, expected: u64) -> Result<Generated> {
        self.rotate_with_passwords(name, expected, Passwords::default())
    }

    /// Rotates a key as [`Self::rotate`] does, with the passwords that it needs. A key without a password gets one when a new one is
    /// given alone.
    ///
    /// # Errors
    /// `PinIncorrect`, `PinLocked` for the old password; `PinLenRange`, `PinInvalid` for the new one; `ArgumentsBad` for an old one
    /// where the key has none; as [`Self::rotate`].
    pub fn rotate_with_passwords(&self, name: &Name, expected: u64, passwords: Passwords<'_>) -> Result<Generated> {
        let before = |event: &mut Event| {
            let latest = self.latest(name)?;
            check_expected(name, latest.number, expected)?;
            let under = self.under(event, name, &latest, passwords)?;
            // A password was given for the version that is there now, and for no other.
            let expected = if under.is_some() { latest.number } else { expected };
            Ok((self.prepare(name)?, under, expected))
        };
        let event = self.event("SR_RotateKey", name);
        let (_, made) = self.session.change_after(event, before, |change, (prepared, under, expected)| {
            let old = change.find_latest(&name.template())?;
            check_expected(name, number_of(name, &old)?, expected)?;
            self.replace(change, name, &old, prepared, under.as_ref())
        })?;
        let made = self.made(name, &made)?;
        log::info!(
            "{} key of {}: version {} is active now",
            name.asset.name,
            name.owner().escape_debug(),
            made.version.number
        );
        Ok(made)
    }

    /// Puts a new version in the place of the latest, and tells its number.
    pub(super) fn replace(
        &self,
        change: &mut Change<'_>,
        name: &Name,
        old: &[Found],
        mut prepared: Prepared,
        under: Option<&Under>,
    ) -> Result<u64> {
        for half in old.iter().filter(|half| half.attributes().is(CKA_SR_PASSWORD)) {
            under.ok_or_else(|| needs_password(name))?.check_replaces(change, name, half)?;
        }
        let mut now = self.session.now();
        let mut policy = self.session.rotation_of(&name.template());
        for half in old {
            let mut attributes = half.attributes().clone();
            if !version::is_ahead(&attributes, now) {
                now = now.max(version::created(&attributes));
            }
            policy = self.session.rotation_of(&attributes);
            carry(&attributes, &mut prepared);
            if version::state(&attributes)? == State::Active {
                attributes.set(CKA_SR_STATE, SR_STATE_ROTATED);
            }
            attributes.set(CKA_SR_ROTATED, now);
            attributes.take(CKA_SR_NEXT_ROTATION);
            change.update(half, attributes)?;
        }
        let last = number_of(name, old)?;
        let next = last.checked_add(1).ok_or_else(|| Error::from(Kind::TokenResourceExceeded))?;
        change.tell(format!("version {last} is replaced by {next}"));
        stamp(&mut prepared, name, next, now, policy.rotation);
        under.map_or(Ok(()), |under| prepared.seal_under(&under.key))?;
        change.insert(prepared)?;
        Ok(next)
    }
}

fn check_expected(name: &Name, latest: u64, expected: u64) -> Result<()> {
    if expected == 0 || expected == latest {
        return Ok(());
    }
    let (asset, owner) = (name.asset.name, name.owner().escape_debug());
    let text = format!(
        "the latest version of the {asset} key of {owner} is {latest}, and not {expected}: it was rotated already"
    );
    Err(Error::new(Kind::ActionProhibited, text))
}

/// Copies what stays from a half of the old version to that of the new one.
fn carry(old: &Attributes, prepared: &mut Prepared) {
    let class = old.ulong(CKA_CLASS).unwrap_or(CK_UNAVAILABLE_INFORMATION);
    for id in CARRIED {
        if let Some(value) = old.get(id) {
            prepared.set_of(class, id, value);
        }
    }
}
