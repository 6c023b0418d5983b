//! Rotation: a new version takes the place of the active one.
//!
//! The rules are:
//! - the old version becomes rotated and the new one active in one transaction: a crash leaves the one state or the other;
//! - the transaction itself finds the version that it replaces, so that of several processes with the same intent one rotates,
//!   and the others find nothing to do;
//! - label, id, usages and rules go over to the new version;
//! - one key that cannot be rotated does not keep the others from it.

use super::managed::{Generated, ManagedKeys, Name, number_of, stamp};
use super::version::{self, State};
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::token::{Change, Found, Prepared};

/// What goes over from one version to the next, by each half.
const CARRIED: [CK_ATTRIBUTE_TYPE; 16] = [
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
    CKA_SR_AUTO_ROTATE,
];

/// A key whose active version is due.
#[derive(Debug, Clone)]
pub struct Due {
    /// The key.
    pub name: Name,
    /// The version that is due.
    pub version: u64,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// Whether its rules let it be rotated without being asked for by name.
    pub automatic: bool,
}

/// A key that could not be rotated.
#[derive(Debug)]
pub struct Failed {
    /// The key.
    pub name: Name,
    /// Why.
    pub error: Error,
}

/// What became of the keys that were due.
#[derive(Debug, Default)]
pub struct Report {
    /// Keys that this call rotated, each with its new version.
    pub rotated: Vec<(Name, u64)>,
    /// Keys that are due still: their rules want them to be rotated by name, or the limit was reached.
    pub left: Vec<Due>,
    /// Keys that could not be rotated.
    pub failed: Vec<Failed>,
}

impl ManagedKeys<'_> {
    /// Rotates a key, whether it is due or not. `expected` is the version that is to be replaced; 0 is the latest.
    ///
    /// # Errors
    /// `ActionProhibited` when the latest version is another than the expected one: somebody else has rotated; `KeyHandleInvalid`;
    /// the store's.
    pub fn rotate(&self, name: &Name, expected: u64) -> Result<Generated> {
        check_expected(name, self.latest(name)?.number, expected)?;
        let prepared = self.prepare(name)?;
        let (_, made) = self.session.change(self.event("SR_RotateKey", name), |change| {
            let old = change.find_latest(&name.template())?;
            check_expected(name, number_of(name, &old)?, expected)?;
            self.replace(change, name, &old, prepared)
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

    /// Rotates a key if the version is still active and due; tells the new version.
    fn rotate_if_due(&self, due: &Due) -> Result<Option<u64>> {
        let name = &due.name;
        // A look before the work: another process may have been faster.
        if self.latest(name)?.number != due.version {
            return Ok(None);
        }
        let prepared = self.prepare(name)?;
        let (rotated, _) = self.session.change(self.event("SR_RotateDue", name), |change| {
            let old = change.find_latest(&name.template())?;
            let (number, now) = (number_of(name, &old)?, self.session.now());
            if number != due.version || !old.iter().all(|half| is_due(half.attributes(), now)) {
                return Ok(None);
            }
            self.replace(change, name, &old, prepared)?;
            Ok(Some(number + 1))
        })?;
        Ok(rotated)
    }

    /// Puts a new version in the place of the latest.
    fn replace(&self, change: &mut Change<'_>, name: &Name, old: &[Found], mut prepared: Prepared) -> Result<()> {
        let mut now = self.session.now();
        let mut policy = self.session.rotation_of(&Attributes::new());
        for half in old {
            let mut attributes = half.attributes().clone();
            // A clock that was set back must not make the new version older than the one that it replaces.
            now = now.max(version::created(&attributes));
            policy = self.session.rotation_of(&attributes);
            carry(&attributes, &mut prepared);
            if version::state(&attributes)? == State::Active {
                attributes.set(CKA_SR_STATE, SR_STATE_ROTATED);
            }
            attributes.set(CKA_SR_ROTATED, now);
            attributes.take(CKA_SR_NEXT_ROTATION);
            change.update(half, attributes)?;
        }
        let next = number_of(name, old)?.checked_add(1).ok_or_else(|| Error::from(Kind::TokenResourceExceeded))?;
        stamp(&mut prepared, name, next, now, policy);
        change.insert(prepared)
    }

    /// Lists the keys whose active version is due, those that are due longest first.
    ///
    /// # Errors
    /// `UserNotLoggedIn`; `DeviceError` when the store fails or a version is damaged.
    pub fn due(&self) -> Result<Vec<Due>> {
        let (now, mut all) = (self.session.now(), Vec::new());
        let active = [(CKA_SR_STATE, Value::Ulong(SR_STATE_ACTIVE))].into_iter().collect();
        self.session.visit(&active, &mut |attributes| {
            if version::is_secret(attributes) && is_due(attributes, now) {
                all.push(Due {
                    name: name_of(attributes)?,
                    version: version::number(attributes)?,
                    since: attributes.ulong(CKA_SR_NEXT_ROTATION).unwrap_or(0),
                    automatic: self.session.rotation_of(attributes).auto_rotate,
                });
            }
            Ok(())
        })?;
        all.sort_by_key(|due| due.since);
        Ok(all)
    }

    /// Rotates what is due and may be rotated by itself, at most so many keys. Of several processes that do this at the same time,
    /// one rotates each key.
    ///
    /// # Errors
    /// As [`Self::due`]; `SessionReadOnly`. What keeps a single key from its rotation is in the report.
    pub fn rotate_due(&self, at_most: usize) -> Result<Report> {
        let mut report = Report::default();
        for due in self.due()? {
            if !due.automatic || report.rotated.len() >= at_most {
                report.left.push(due);
                continue;
            }
            match self.rotate_if_due(&due) {
                Ok(Some(version)) => report.rotated.push((due.name, version)),
                // Another process was faster.
                Ok(None) => {}
                Err(error) if stops_all(error.kind()) => return Err(error),
                Err(error) => {
                    let (asset, owner) = (due.name.asset.name, due.name.owner().escape_debug());
                    log::warn!("the {asset} key of {owner} is due and could not be rotated: {error}");
                    report.failed.push(Failed { name: due.name, error });
                }
            }
        }
        Ok(report)
    }
}

/// Tells whether an error is that of every key, so that it makes no sense to go on.
fn stops_all(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::UserNotLoggedIn
            | Kind::SessionReadOnly
            | Kind::TokenWriteProtected
            | Kind::TokenNotRecognized
            | Kind::DeviceMemory
            | Kind::FunctionNotSupported
    )
}

/// Tells whether a version is active and its time has come.
fn is_due(attributes: &Attributes, now: u64) -> bool {
    attributes.ulong(CKA_SR_STATE) == Some(SR_STATE_ACTIVE)
        && attributes.ulong(CKA_SR_NEXT_ROTATION).is_some_and(|due| now >= due)
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

/// Reads the name of a key from one of its objects.
fn name_of(attributes: &Attributes) -> Result<Name> {
    let text = |id| std::str::from_utf8(attributes.bytes(id).unwrap_or_default()).unwrap_or_default();
    Name::new(text(CKA_SR_OWNER), text(CKA_SR_ASSET))
}
