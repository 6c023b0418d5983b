//! Keys that are due, or soon will be: told, and rotated.
//!
//! The rules are:
//! - what is due is found without the write lock and found again under it, so that of several processes one rotates each key;
//! - keys are generated before the transaction. Several share one, since a commit costs more than a rotation: a crash leaves a
//!   whole number of keys rotated;
//! - each key leaves a record of its own in the audit trail;
//! - one key that cannot be rotated does not keep the others from it: a transaction that fails is undone, and each of its keys
//!   gets one of its own; one that cannot be read is told, and the others are looked at.

use std::time::{Duration, Instant};

use super::managed::{ManagedKeys, Name, number_of};
use super::version::{self, is_secret};
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::token::{Change, Effective, Prepared};

/// How many keys share a transaction at most: others who write wait about a fifth of a second for so many.
const BATCH: usize = 256;
/// For how long keys are generated for one transaction: RSA keys take long, and a crash loses them.
const GATHERING: Duration = Duration::from_millis(250);
const SECONDS_A_DAY: u64 = 86_400;
/// The operation, as records name it.
const OPERATION: &str = "SR_RotateDue";

/// Why a version is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It is, or will be, older than its rules want.
    Age,
    /// It has been used nearly as often as its rules allow.
    Uses,
    /// It was made by a clock that was ahead: nobody knows its age.
    Clock,
}

impl Cause {
    /// Names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Uses => "uses",
            Self::Clock => "clock",
        }
    }
}

/// A key whose active version is due, or will be.
#[derive(Debug, Clone)]
pub struct Due {
    /// The key.
    pub name: Name,
    /// The version that is due.
    pub version: u64,
    /// From when on, in seconds since 1970; for one that is due by its uses, when that was seen.
    pub since: u64,
    /// Why.
    pub cause: Cause,
    /// From when on it makes nothing new, if its rules limit its age, in seconds since 1970.
    pub refused_from: Option<u64>,
    /// Whether its rules let it be rotated without being asked for by name.
    pub automatic: bool,
    /// Whether it needs its owner's password to be rotated.
    pub password: bool,
}

impl Due {
    /// Tells in how many days it is due; below 0, or 0 on the first day, when it is so already.
    pub fn days_left(&self, now: u64) -> i64 {
        let days = |seconds: u64| i64::try_from(seconds / SECONDS_A_DAY).unwrap_or(i64::MAX);
        match self.since.checked_sub(now) {
            Some(left) => days(left),
            None => -days(now.saturating_sub(self.since)),
        }
    }

    /// Takes a version from the attributes of its private or secret key, if its rules ever make it due.
    fn of(attributes: &Attributes, policy: Effective, now: u64) -> Result<Option<Self>> {
        let rotation = policy.rotation;
        let (since, cause) = match version::due_at(attributes, rotation, now) {
            Some(at) if version::is_ahead(attributes, now) => (at, Cause::Clock),
            Some(at) if at <= now => (at, Cause::Age),
            _ if version::is_used_up(attributes, rotation) => (now, Cause::Uses),
            Some(at) => (at, Cause::Age),
            None => return Ok(None),
        };
        Ok(Some(Self {
            name: name_of(attributes)?,
            version: version::number(attributes)?,
            since,
            cause,
            refused_from: rotation.end(version::created(attributes)),
            // What its owner's password protects cannot be made anew without it.
            automatic: rotation.auto_rotate && !attributes.is(CKA_SR_PASSWORD),
            password: attributes.is(CKA_SR_PASSWORD),
        }))
    }
}

/// A key that could not be rotated, or read.
#[derive(Debug)]
pub struct Failed {
    /// The key; `None` for one that cannot be read, whose name nobody can tell.
    pub name: Option<Name>,
    /// Why.
    pub error: Error,
}

impl Failed {
    /// Tells what failed, and why.
    pub fn text(&self) -> String {
        let Some(name) = &self.name else { return format!("a key cannot be read: {}", self.error) };
        let (asset, owner) = (name.asset.name, name.owner().escape_debug());
        format!("the {asset} key of {owner} is due and could not be rotated: {}", self.error)
    }
}

/// What became of the keys that were due.
#[derive(Debug, Default)]
pub struct Report {
    /// Keys that this call rotated, each with its new version.
    pub rotated: Vec<(Name, u64)>,
    /// Keys that are due still: their rules want them to be rotated by name, or the limit was reached.
    pub left: Vec<Due>,
    /// Keys that could not be rotated, or read.
    pub failed: Vec<Failed>,
}

/// How the managed keys of a token stand.
#[derive(Debug, Default)]
pub struct Outlook {
    /// How many have an active version.
    pub managed: usize,
    /// Those that are due, the longest first.
    pub due: Vec<Due>,
    /// Those that will be within the days that were asked for, the next first.
    pub soon: Vec<Due>,
    /// Those that cannot be read.
    pub damaged: Vec<Failed>,
}

impl ManagedKeys<'_> {
    /// Tells which keys are due, and which will be within so many days. It reads every active version.
    ///
    /// # Errors
    /// `UserNotLoggedIn`; `DeviceError` when the store fails.
    pub fn outlook(&self, days: u64) -> Result<Outlook> {
        self.outlook_while(days, &|| true)
    }

    /// Does the same as long as it may go on; ends with `FunctionCanceled` when it may not.
    pub(super) fn outlook_while(&self, days: u64, go_on: &dyn Fn() -> bool) -> Result<Outlook> {
        self.session.check_may_be_private(true)?;
        self.look(days, true, go_on)
    }

    /// Tells the same of key pairs without login, from their public halves, which carry the same times.
    ///
    /// # Errors
    /// As [`Self::outlook`].
    pub fn outlook_of_public_halves(&self, days: u64) -> Result<Outlook> {
        self.look(days, false, &|| true)
    }

    /// Looks at every active version that the session sees: at the private and secret keys, or at the public ones.
    fn look(&self, days: u64, private: bool, go_on: &dyn Fn() -> bool) -> Result<Outlook> {
        let (now, rules, mut outlook) = (self.session.now(), self.session.rules(), Outlook::default());
        let until = now.saturating_add(days.saturating_mul(SECONDS_A_DAY));
        let active = [(CKA_SR_STATE, Value::Ulong(SR_STATE_ACTIVE)), (CKA_PRIVATE, Value::Bool(private))];
        let mut damaged = Vec::new();
        let mut look = |attributes: &Attributes| {
            if !go_on() {
                return Err(Kind::FunctionCanceled.into());
            }
            if is_secret(attributes) != private {
                return Ok(());
            }
            outlook.managed += 1;
            match Due::of(attributes, rules.of(attributes), now) {
                Ok(Some(due)) if due.since <= now => outlook.due.push(due),
                Ok(Some(due)) if due.since <= until => outlook.soon.push(due),
                Ok(_) => {}
                Err(error) => outlook.damaged.push(Failed { name: name_of(attributes).ok(), error }),
            }
            Ok(())
        };
        self.session.visit_sound(&active.into_iter().collect(), &mut look, &mut |error| damaged.push(error))?;
        outlook.damaged.extend(damaged.into_iter().map(|error| Failed { name: None, error }));
        outlook.due.sort_by_key(|due| due.since);
        outlook.soon.sort_by_key(|due| due.since);
        Ok(outlook)
    }

    /// Tells when an object's version is due, if it is an active version of a managed key that ever is.
    ///
    /// # Errors
    /// `DeviceError` when it is damaged.
    pub fn due_of(&self, attributes: &Attributes) -> Result<Option<Due>> {
        match attributes.ulong(CKA_SR_STATE) {
            Some(SR_STATE_ACTIVE) => Due::of(attributes, self.session.rotation_of(attributes), self.session.now()),
            _ => Ok(None),
        }
    }

    /// Lists the keys whose active version is due, those that are due longest first.
    ///
    /// # Errors
    /// As [`Self::outlook`].
    pub fn due(&self) -> Result<Vec<Due>> {
        Ok(self.outlook(0)?.due)
    }

    /// Rotates what is due and may be rotated by itself, at most so many keys. Of several processes that do this at the same time,
    /// one rotates each key.
    ///
    /// # Errors
    /// As [`Self::due`]; `SessionReadOnly`. What keeps a single key from its rotation is in the report.
    pub fn rotate_due(&self, at_most: usize) -> Result<Report> {
        let report = self.rotate_while(self.outlook(0)?, at_most, &|| true)?;
        report.failed.iter().for_each(|failed| log::warn!("{}", failed.text()));
        Ok(report)
    }

    /// Rotates those of the due keys that may be rotated by themselves, as long as it may go on.
    pub(super) fn rotate_while(&self, all: Outlook, at_most: usize, go_on: &dyn Fn() -> bool) -> Result<Report> {
        let (automatic, left) = all.due.into_iter().partition(|due| due.automatic);
        let mut report = Report { left, failed: all.damaged, ..Report::default() };
        let mut rest = Vec::into_iter(automatic);
        while !rest.as_slice().is_empty() && report.rotated.len() < at_most && go_on() {
            let most = BATCH.min(at_most - report.rotated.len());
            let ready = self.gather(&mut rest, most, &mut report)?;
            self.rotate_together(ready, &mut report)?;
        }
        report.left.extend(rest);
        Ok(report)
    }

    /// Generates new versions of the next keys, of those that are due still.
    fn gather(
        &self,
        rest: &mut impl Iterator<Item = Due>,
        most: usize,
        report: &mut Report,
    ) -> Result<Vec<(Due, Prepared)>> {
        let (mut ready, start) = (Vec::with_capacity(most), Instant::now());
        while ready.len() < most && start.elapsed() < GATHERING {
            let Some(due) = rest.next() else { break };
            match self.prepare_due(&due) {
                Ok(Some(prepared)) => ready.push((due, prepared)),
                // Another process was faster.
                Ok(None) => {}
                Err(error) => report.fail(due.name, error)?,
            }
        }
        Ok(ready)
    }

    /// Generates a new version of a key, if it is due still.
    fn prepare_due(&self, due: &Due) -> Result<Option<Prepared>> {
        let mut still = false;
        self.session.visit_latest(&due.name.template(), &mut |attributes| {
            still |= is_secret(attributes) && self.is_due(due, attributes)?;
            Ok(())
        })?;
        still.then(|| self.prepare(&due.name)).transpose()
    }

    /// Rotates keys in one transaction; if that fails, each in one of its own.
    fn rotate_together(&self, ready: Vec<(Due, Prepared)>, report: &mut Report) -> Result<()> {
        let dues: Vec<_> = ready.iter().map(|(due, _)| due.clone()).collect();
        match self.replace_due(ready) {
            Ok(rotated) => report.rotated.extend(rotated),
            Err(error) if stops_all(error.kind()) => return Err(error),
            Err(_) => dues.into_iter().try_for_each(|due| self.rotate_alone(due, report))?,
        }
        Ok(())
    }

    fn rotate_alone(&self, due: Due, report: &mut Report) -> Result<()> {
        let prepared = self.prepare_due(&due);
        let rotated = prepared
            .and_then(|prepared| self.replace_due(prepared.map(|made| (due.clone(), made)).into_iter().collect()));
        match rotated {
            Ok(rotated) => report.rotated.extend(rotated),
            Err(error) => report.fail(due.name, error)?,
        }
        Ok(())
    }

    /// Puts new versions in the places of those that are due still, in one transaction; tells the new versions.
    fn replace_due(&self, ready: Vec<(Due, Prepared)>) -> Result<Vec<(Name, u64)>> {
        if ready.is_empty() {
            return Ok(Vec::new());
        }
        let event = match ready.as_slice() {
            [(due, _)] => self.event(OPERATION, &due.name),
            _ => self.session.event(OPERATION),
        };
        let rotated = self.session.change_without_handles(event, |change| {
            let mut rotated = Vec::with_capacity(ready.len());
            for (due, prepared) in ready {
                if let Some(version) = self.replace_if_due(change, &due, prepared)? {
                    rotated.push((due.name, version));
                }
            }
            Ok(rotated)
        })?;
        for (name, version) in &rotated {
            log::info!("{} key of {}: version {version} is active now", name.asset.name, name.owner().escape_debug());
        }
        Ok(rotated)
    }

    /// Puts a new version in the place of one that is due still.
    fn replace_if_due(&self, change: &mut Change<'_>, due: &Due, prepared: Prepared) -> Result<Option<u64>> {
        let old = change.find_latest(&due.name.template())?;
        number_of(&due.name, &old)?;
        let secret = old.iter().find(|half| is_secret(half.attributes()));
        let secret = secret.ok_or_else(|| Error::damaged("a version of a managed key"))?;
        match self.is_due(due, secret.attributes())? {
            true => {
                let next = self.replace(change, &due.name, &old, prepared, None)?;
                let mut event = self.event(OPERATION, &due.name);
                event.detail = format!("version {} is replaced by {next}", due.version);
                change.record(event)?;
                Ok(Some(next))
            }
            false => Ok(None),
        }
    }

    /// Tells whether the version of a private or secret key is the one that was due, and is so still.
    fn is_due(&self, due: &Due, attributes: &Attributes) -> Result<bool> {
        let rotation = self.session.rotation_of(attributes).rotation;
        let is_same = version::number(attributes)? == due.version;
        Ok(is_same && version::is_due(attributes, rotation, self.session.now()))
    }
}

impl Report {
    /// Notes a key that could not be rotated.
    ///
    /// # Errors
    /// The error itself, if it is that of every key.
    fn fail(&mut self, name: Name, error: Error) -> Result<()> {
        if stops_all(error.kind()) {
            return Err(error);
        }
        self.failed.push(Failed { name: Some(name), error });
        Ok(())
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

/// Reads the name of a key from one of its objects.
fn name_of(attributes: &Attributes) -> Result<Name> {
    let text = |id| std::str::from_utf8(attributes.bytes(id).unwrap_or_default()).unwrap_or_default();
    Name::new(text(CKA_SR_OWNER), text(CKA_SR_ASSET))
}
