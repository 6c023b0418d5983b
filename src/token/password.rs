//! Keys with their owner's own password: tries, how they are counted, and what the right one opens.
//!
//! The rules are:
//! - a try is counted in the store before it is made: all processes share the count, and ending one in mid-try evades nothing;
//! - the count is the managed key's and stands with its latest version, whichever version is tried. The right password of that version
//!   clears it; an old version that opens clears nothing, so that an old password which got known buys no tries of the new one;
//! - who comes while other tries are undecided, and would be locked out by them, waits for them: many who give the right password
//!   at the same moment all get in;
//! - what is opened is read in the transaction that counts, so that a password which another process has just set is right at once;
//! - Argon2id runs outside every transaction, and no more of them at once than there are processors;
//! - a wrong try is recorded in the transaction that notes it, as that of a PIN is; a right one before anything is opened by it.

use std::sync::Arc;
use std::time::{Duration, Instant};

mod reseal;
mod tries;

pub use reseal::{KnownKeys, Resealed};
pub(super) use tries::Gate;

use super::deferred::Asked;
use super::login::WRONG_TRY;
use super::object::{Object, latest_version};
use super::operation::of_key;
use super::running;
use super::session::Session;
use super::token::Token;
use super::trail::name_of;
use super::unlocked::Unlocked;
use super::version;
use crate::audit::{Event, User};
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::mechanism::Key;
use crate::seal::{self, PasswordKey, TokenKey, VersionName};
use crate::secret::{SecureBytes, SecurePrivateKey};
use crate::store::{IndexEntry, ObjectRow, Role, Search, Transaction, Uid};
use tries::{Outcome, Tries, Verdict};

/// For how long tries that are under way are waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether they are decided.
const LOOK: Duration = Duration::from_millis(50);

/// Makes the error of a key that only its owner's password opens.
pub(super) fn closed(attributes: &Attributes) -> Error {
    let text = "has a password of its own: C_Login(CKU_CONTEXT_SPECIFIC) gives it for one operation, SR_UnlockKey for the session";
    Error::new(Kind::UserNotLoggedIn, format!("{} {text}", version::name_of(attributes)))
}

/// A try that is counted: what it is made on.
struct Try {
    sealed: SecurePrivateKey,
    uid: Uid,
    attributes: Attributes,
    /// Whether it is the password of the latest version.
    of_latest: bool,
}

/// What the right password opened.
struct Opened {
    key: Arc<PasswordKey>,
    secret: SecurePrivateKey,
}

impl Session {
    /// Unlocks a key for this session, for so many seconds; 0 is until it is locked again. The handle is usable from then on.
    ///
    /// # Errors
    /// `PinIncorrect`, `PinLocked`; `ActionProhibited` for a key without a password of its own; `KeyFunctionNotPermitted` for a
    /// version that is disabled; `KeyHandleInvalid`.
    pub fn unlock(&self, handle: CK_OBJECT_HANDLE, password: &SecureBytes, seconds: u64) -> Result<()> {
        self.catch_up();
        let object = self.token.object(handle).map_err(of_key)?;
        check_has_password(object.attributes())?;
        self.changing(self.event_of("SR_UnlockKey", object.attributes()), |event| {
            // What verifies and decrypts can be unlocked: whether it may sign is asked when it is to.
            self.check_version(object.attributes(), CKA_DECRYPT)?;
            let secret = self.try_password(&object, password, event)?.secret;
            let key = Arc::new(object.parse_secret(&secret)?);
            self.token.note(event)?;
            self.add_unlocked(handle, key, object.login, seconds)
        })
    }

    fn add_unlocked(&self, handle: CK_OBJECT_HANDLE, key: Arc<Key>, login: u64, seconds: u64) -> Result<()> {
        let lease = Arc::new(self.library.lease(seconds));
        self.unlocked.add(handle, Unlocked { key, lease: lease.clone(), login });
        self.library.expect_end(&lease);
        self.check_unlocked_in_time(handle, login)
    }

    /// Starts the event of a managed key.
    fn event_of(&self, operation: &'static str, attributes: &Attributes) -> Event {
        let text = |id| String::from_utf8_lossy(attributes.bytes(id).unwrap_or_default()).into_owned();
        self.event(operation).of_managed(&text(CKA_SR_OWNER), &text(CKA_SR_ASSET))
    }

    /// Takes a key back when the session was closed, or its login ended, while it was unlocked.
    fn check_unlocked_in_time(&self, handle: CK_OBJECT_HANDLE, login: u64) -> Result<()> {
        let fault = match self.library.has_session(self.handle) {
            false => Kind::SessionHandleInvalid,
            true if self.token.login_count() != login => Kind::UserNotLoggedIn,
            true => return Ok(()),
        };
        self.unlocked.lock(handle);
        Err(fault.into())
    }

    /// Takes a key's attributes and secret out of the token, which leaves a record. The C side has no way to it.
    ///
    /// # Errors
    /// `UserNotLoggedIn` without the password that a key has; `PinIncorrect`, `PinLocked`; `KeyFunctionNotPermitted` for a key that may
    /// not sign; `KeyHandleInvalid`.
    pub fn take_out(
        &self,
        handle: CK_OBJECT_HANDLE,
        password: Option<&SecureBytes>,
    ) -> Result<(Attributes, SecurePrivateKey)> {
        self.catch_up();
        let object = self.token.object(handle).map_err(of_key)?;
        self.changing(self.event_of("get_private_key", object.attributes()), |event| {
            self.check_version(object.attributes(), CKA_SIGN)?;
            let secret = match password {
                Some(password) => self.try_password(&object, password, event)?.secret,
                None => {
                    event.keys.push(name_of(&object));
                    self.secret_of(&object)?.ok_or_else(|| Error::from(Kind::KeyHandleInvalid))?
                }
            };
            self.token.note(event)?;
            Ok((object.attributes().clone(), secret))
        })
    }

    /// Locks a key that this session has unlocked, and ends the operations with it. One that is not unlocked stays so.
    ///
    /// # Errors
    /// `KeyHandleInvalid`; `ActionProhibited` for a key without a password of its own.
    pub fn lock(&self, handle: CK_OBJECT_HANDLE) -> Result<()> {
        let was_unlocked = self.unlocked.lock(handle);
        self.operations.end(running::UNLOCKED);
        let object = match self.token.object(handle) {
            Ok(object) => object,
            // Its version was destroyed; that it was unlocked is over all the same.
            Err(_) if was_unlocked => return Ok(()),
            Err(error) => return Err(of_key(error)),
        };
        if was_unlocked {
            // It is locked whether or not a sink takes that.
            let _ = self.token.note(&self.event_of("SR_LockKey", object.attributes()).about(name_of(&object)));
        }
        check_has_password(object.attributes())
    }

    /// Opens the key of an operation that waits for its login (C_Login(CKU_CONTEXT_SPECIFIC)).
    pub(super) fn open_for_one_use(&self, asked: Asked, password: &SecureBytes, event: &mut Event) -> Result<Arc<Key>> {
        // Its version may have been disabled since the operation began.
        let (object, limits) = self.permitted_key(asked)?;
        event.managed = self.event_of(event.operation, object.attributes()).managed;
        let secret = self.try_password(&object, password, event)?.secret;
        let key = Arc::new(object.parse_secret(&secret)?);
        self.count_use(&object, asked.usage, limits)?;
        self.token.note(event)?;
        Ok(key)
    }

    /// Tries a password on a version as an operation of its own, and gives what seals under it.
    ///
    /// # Errors
    /// As [`Self::check_password_for`].
    pub fn check_password(
        &self,
        operation: &'static str,
        handle: CK_OBJECT_HANDLE,
        password: &SecureBytes,
    ) -> Result<Arc<PasswordKey>> {
        let object = self.token.object(handle).map_err(of_key)?;
        let event = self.event_of(operation, object.attributes());
        self.changing(event, |event| self.check_password_for(event, handle, password))
    }

    /// Tries a password on a version for an operation, and gives what seals under it.
    ///
    /// # Errors
    /// `PinIncorrect`, `PinLocked`; `ActionProhibited` for a key without a password of its own; `KeyHandleInvalid`.
    pub fn check_password_for(
        &self,
        event: &mut Event,
        handle: CK_OBJECT_HANDLE,
        password: &SecureBytes,
    ) -> Result<Arc<PasswordKey>> {
        let object = self.token.object(handle).map_err(of_key)?;
        check_has_password(object.attributes())?;
        let named = event.keys.len();
        let key = self.try_password(&object, password, event)?.key;
        // What a change touches it names itself.
        event.keys.truncate(named);
        Ok(key)
    }

    /// Derives the key of a new seal under a password, which must keep to the rules.
    ///
    /// # Errors
    /// `PinLenRange`, `PinInvalid` that state the rules; `HostMemory`.
    pub fn new_password(&self, password: &SecureBytes) -> Result<PasswordKey> {
        let profile = self.token.profile();
        profile.policy.password.check_named(password, "password")?;
        self.token.gate.pass(|| PasswordKey::new(password, profile.sealer.argon2()))
    }

    /// Tells how many wrong passwords a key takes before it is locked; `None` where it is never locked, or has no password.
    pub fn password_tries_left(&self, latest: &Attributes) -> Option<u64> {
        let max = u64::from(self.token.profile().policy.password.max_attempts);
        (latest.is(CKA_SR_PASSWORD) && max > 0).then(|| Tries::of(latest).left(max))
    }

    /// Lets a key that is locked after wrong passwords be tried again: as the SO, or as the user who has the SO's PIN.
    ///
    /// # Errors
    /// `UserNotLoggedIn` unless the SO is; `PinIncorrect`, `PinLocked`; `SessionReadOnly`; `KeyHandleInvalid`, `ActionProhibited`
    /// without a password.
    pub fn reset_password_tries(&self, name: &Attributes, so_pin: Option<&SecureBytes>) -> Result<()> {
        self.changing(self.event_of("SR_ResetKeyTries", name), |event| {
            self.check_read_write()?;
            if let Some(pin) = so_pin {
                event.user = User::So;
                self.token.try_pin(&self.token.row()?, Role::So, pin, event)?;
            } else if self.token.role() != Some(Role::So) {
                let text = "only the SO lets a locked key be tried again: log in as SO first";
                return Err(Error::new(Kind::UserNotLoggedIn, text));
            }
            self.count(Some(event), name, |latest, tries, _, _| {
                *tries = Tries::default();
                check_has_password(latest.attributes())
            })
        })
    }

    /// Tries a password: counts, opens, and notes how it went.
    fn try_password(&self, object: &Object, password: &SecureBytes, event: &mut Event) -> Result<Opened> {
        let start = Instant::now();
        event.keys.push(name_of(object));
        let attributes = object.attributes();
        let (name, max) = (key_name(attributes), u64::from(self.token.profile().policy.password.max_attempts));
        let Try { sealed, uid, attributes, of_latest } = self.begin_try(&name, object, max)?;
        let sealed = self.token.without_data_key(&uid, &attributes, sealed);
        let opened =
            sealed.and_then(|sealed| self.token.gate.pass(|| open(&sealed, &version_name(&attributes), password)));
        let outcome = match &opened {
            Ok(_) if of_latest => Outcome::Right,
            Err(error) if error.kind() == Kind::PinIncorrect => Outcome::Wrong,
            _ => Outcome::Other,
        };
        if outcome == Outcome::Wrong {
            let wrong = self.end_wrong_try(&name, &attributes, max, event)?;
            std::thread::sleep(WRONG_TRY.saturating_sub(start.elapsed()));
            return Err(wrong);
        }
        self.end_try(&name, outcome)?;
        let Opened { key, secret } = opened?;
        Ok(Opened { key: self.raise_cost(&name, key, password), secret })
    }

    /// Counts a try; waits while others are undecided that would lock the key.
    fn begin_try(&self, name: &Attributes, object: &Object, max: u64) -> Result<Try> {
        if self.token.store.read_only() {
            return self.begin_uncounted_try(name, object, max);
        }
        let start = Instant::now();
        loop {
            let waited = start.elapsed() >= PATIENCE;
            let (verdict, tried) = self.count(None, name, |latest, tries, transaction, token_key| {
                let tried = match latest.uid == object.uid {
                    true => Try::of(&self.token, latest, true, token_key),
                    false => {
                        let row = transaction.object(&self.token.serial, &object.uid)?;
                        let row = row.ok_or_else(|| Error::from(Kind::KeyHandleInvalid))?;
                        Try::of(&self.token, &self.opened(row, token_key)?, false, token_key)
                    }
                }?;
                Ok((tries.begin(max, waited), tried))
            })?;
            match verdict {
                Verdict::Go => return Ok(tried),
                Verdict::Wait => std::thread::sleep(LOOK),
                Verdict::Locked => return Err(locked(object.attributes(), max)),
            }
        }
    }

    /// Begins a try on a store that can only be read, where nothing can be counted. A key that is locked stays so.
    fn begin_uncounted_try(&self, name: &Attributes, object: &Object, max: u64) -> Result<Try> {
        let (token, token_key) = (&self.token, self.token.token_key()?);
        let mut rows = Vec::new();
        token.store.search(&token.serial, &search_latest(name, &token_key)?, &mut |row| {
            rows.push(row);
            Ok(())
        })?;
        let latest = self.latest_secret(name, rows, &token_key)?;
        match Tries::of(latest.attributes()).begin(max, true) {
            Verdict::Go => Try::of(token, object, latest.uid == object.uid, &token_key),
            _ => Err(locked(object.attributes(), max)),
        }
    }

    /// Notes that a try was no wrong one.
    fn end_try(&self, name: &Attributes, outcome: Outcome) -> Result<()> {
        if self.token.store.read_only() {
            return Ok(());
        }
        self.count(None, name, |_, tries, _, _| {
            tries.end(outcome);
            Ok(())
        })
    }

    /// Notes that a try was wrong, with its record, and makes the error that tells how many are left.
    fn end_wrong_try(&self, name: &Attributes, tried: &Attributes, max: u64, event: &Event) -> Result<Error> {
        if self.token.store.read_only() {
            return Ok(wrong_password(tried, None));
        }
        let (wrong, lines) = self.count(None, name, |_, tries, transaction, _| {
            tries.end(Outcome::Wrong);
            let left = (max > 0).then(|| tries.left(max));
            let wrong = wrong_password(tried, left);
            let lines = self.token.append_wrong_try(transaction, event, &wrong, left == Some(0))?;
            Ok((wrong, lines))
        })?;
        lines.into_iter().for_each(|line| self.token.trail.copy(line));
        Ok(wrong)
    }

    /// Changes the count of a key's tries in one transaction, in which `work` sees the latest version; with the record of an event
    /// where that is the operation itself.
    fn count<T>(
        &self,
        event: Option<&Event>,
        name: &Attributes,
        work: impl FnOnce(&Object, &mut Tries, &mut dyn Transaction, &TokenKey) -> Result<T>,
    ) -> Result<T> {
        let (token, mut work, mut answer, mut changed) = (&self.token, Some(work), None, None);
        let mut change = |transaction: &mut dyn Transaction, token_key: &TokenKey| {
            let work = work.take().ok_or_else(|| Error::internal("a transaction ran twice"))?;
            let rows = transaction.search(&token.serial, &search_latest(name, token_key)?)?;
            let latest = self.latest_secret(name, rows, token_key)?;
            let before = Tries::of(latest.attributes());
            let mut tries = before;
            answer = Some(work(&latest, &mut tries, transaction, token_key)?);
            if tries != before {
                let mut attributes = latest.attributes().clone();
                tries.write_to(&mut attributes);
                let secret = latest.stored_secret_if_any(&token.serial, Some(token_key))?;
                let next = latest.changed(attributes, secret);
                let row = next.to_row(&token.serial, token_key)?;
                transaction.update_object(&token.serial, &row)?;
                changed = Some(next.uid);
            }
            Ok(())
        };
        match event {
            Some(event) => token.write(event, &mut change),
            None => token.write_count(&mut change),
        }?;
        if let Some(uid) = changed {
            token.handles.forget(&uid);
        }
        answer.ok_or_else(|| Error::internal("a transaction did not run"))
    }

    fn opened(&self, row: ObjectRow, token_key: &TokenKey) -> Result<Object> {
        Object::open(&self.token.serial, Some(token_key), row, self.token.login_count())
    }

    /// Picks the private or secret key of a managed key's latest version from the rows that its name has found.
    fn latest_secret(&self, name: &Attributes, rows: Vec<ObjectRow>, token_key: &TokenKey) -> Result<Object> {
        for row in rows {
            let object = self.opened(row, token_key)?;
            if object.has_secret() && object.matches(name) {
                return Ok(object);
            }
        }
        Err(Error::new(Kind::KeyHandleInvalid, format!("there is no {}", version::key_of(name))))
    }
}

impl Try {
    fn of(token: &Token, object: &Object, of_latest: bool, token_key: &TokenKey) -> Result<Self> {
        let sealed = object.stored_secret(&token.serial, Some(token_key))?;
        Ok(Self { sealed, uid: object.uid, attributes: object.attributes().clone(), of_latest })
    }
}

fn open(sealed: &SecurePrivateKey, name: &VersionName<'_>, password: &SecureBytes) -> Result<Opened> {
    let key = PasswordKey::of(sealed, password)?;
    let secret = key.open(name, sealed)?;
    Ok(Opened { key: Arc::new(key), secret })
}

/// Makes the search for the latest version of a key, whose private or secret half the token key finds for either role.
fn search_latest(name: &Attributes, token_key: &TokenKey) -> Result<Search> {
    let value = latest_version(name).ok_or_else(|| Error::internal("a managed key has no name"))?;
    let field = seal::LATEST_VERSION_FIELD;
    Ok(Search::Any(vec![IndexEntry { field, digest: token_key.index_digest(field, &value) }]))
}

/// Takes owner and asset of a version.
fn key_name(attributes: &Attributes) -> Attributes {
    let text = |id| Some((id, attributes.get(id)?.clone()));
    [CKA_SR_OWNER, CKA_SR_ASSET].into_iter().filter_map(text).collect()
}

/// Names a version for its seal.
pub(super) fn version_name(attributes: &Attributes) -> VersionName<'_> {
    VersionName {
        owner: attributes.bytes(CKA_SR_OWNER).unwrap_or_default(),
        asset: attributes.bytes(CKA_SR_ASSET).unwrap_or_default(),
        version: attributes.ulong(CKA_SR_VERSION).unwrap_or(0),
    }
}

fn check_has_password(attributes: &Attributes) -> Result<()> {
    match attributes.is(CKA_SR_PASSWORD) {
        true => Ok(()),
        false => Err(Error::new(
            Kind::ActionProhibited,
            "the key has no password of its own: the token's login is all that it asks for",
        )),
    }
}

fn wrong_password(attributes: &Attributes, left: Option<u64>) -> Error {
    let rest = match left {
        None => String::new(),
        Some(0) => format!(", and the key is now locked; {UNLOCK_HINT}"),
        Some(left) => format!("; {left} tries are left before it is locked"),
    };
    Error::new(Kind::PinIncorrect, format!("the password of {} is wrong{rest}", version::name_of(attributes)))
}

fn locked(attributes: &Attributes, max: u64) -> Error {
    let name = version::key_of(attributes);
    Error::new(Kind::PinLocked, format!("the {name} is locked after {max} wrong passwords; {UNLOCK_HINT}"))
}

/// How a locked key is unlocked.
const UNLOCK_HINT: &str = "the SO lets it be tried again with SR_ResetKeyTries (strongroom key reset-tries)";
