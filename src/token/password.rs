//! Keys with their owner's own password: tries, how they are counted, and what the right one opens.
//!
//! The rules are:
//! - a try is counted in the store before it is made: all processes share the count, and ending one in mid-try evades nothing;
//! - the count is the managed key's and stands with its latest version, whichever version is tried. The right password of that version
//!   clears it; an old version that opens clears nothing, so that an old password which got known buys no tries of the new one;
//! - who comes while other tries are undecided, and would be locked out by them, waits for them: many who give the right password
//!   at the same moment all get in;
//! - what is opened is read in the transaction that counts, so that a password which another process has just set is right at once;
//! - Argon2id runs outside every transaction, and no more of them at once than there are processors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::deferred::Asked;
use super::login::WRONG_TRY;
use super::object::{Object, latest_version};
use super::operation::of_key;
use super::session::Session;
use super::token::Token;
use super::unlocked::Unlocked;
use super::version;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::mechanism::Key;
use crate::seal::{self, PasswordKey, TokenKey, VersionName};
use crate::secret::{SecureBytes, SecurePrivateKey};
use crate::store::{IndexEntry, ObjectRow, Role, Search, Transaction};

/// For how long tries that are under way are waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether they are decided.
const LOOK: Duration = Duration::from_millis(50);

/// Makes the error of a key that only its owner's password opens.
pub(super) fn closed(attributes: &Attributes) -> Error {
    let text = "has a password of its own: C_Login(CKU_CONTEXT_SPECIFIC) gives it for one operation, SR_UnlockKey for the session";
    Error::new(Kind::UserNotLoggedIn, format!("{} {text}", version::name_of(attributes)))
}

/// Lets as many Argon2id run at once as there are processors: each takes one of them, and memory.
pub(super) struct Gate {
    room: Mutex<usize>,
    left: Condvar,
}

impl Gate {
    pub(super) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { room: Mutex::new(processors), left: Condvar::new() }
    }

    fn pass<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut room = self.room.lock();
        while *room == 0 {
            self.left.wait(&mut room);
        }
        *room -= 1;
        drop(room);
        let done = work();
        *self.room.lock() += 1;
        self.left.notify_one();
        done
    }
}

/// The tries of a password since the last right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Tries {
    begun: u64,
    wrong: u64,
}

/// What may be done about a try.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is counted, and may be made.
    Go,
    /// Others are under way that decide about it.
    Wait,
    /// The key is locked.
    Locked,
}

/// How a try went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The password of the latest version.
    Right,
    /// The password of an older version, or none was tried.
    Other,
    Wrong,
}

impl Tries {
    fn of(attributes: &Attributes) -> Self {
        let number = |id| attributes.ulong(id).unwrap_or(0);
        Self { begun: number(CKA_SR_PASSWORD_TRIES), wrong: number(CKA_SR_PASSWORD_WRONG) }
    }

    fn write_to(self, attributes: &mut Attributes) {
        for (id, number) in [(CKA_SR_PASSWORD_TRIES, self.begun), (CKA_SR_PASSWORD_WRONG, self.wrong)] {
            match number {
                0 => drop(attributes.take(id)),
                _ => drop(attributes.set(id, number)),
            }
        }
    }

    /// Counts a try, if it may be made. `waited` says that nobody is waited for any longer: what is undecided counts as wrong.
    fn begin(&mut self, max: u64, waited: bool) -> Verdict {
        match max {
            0 => {}
            max if self.wrong >= max => return Verdict::Locked,
            max if self.begun >= max && waited => {
                self.wrong = self.begun;
                return Verdict::Locked;
            }
            max if self.begun >= max => return Verdict::Wait,
            _ => {}
        }
        self.begun = self.begun.saturating_add(1);
        Verdict::Go
    }

    /// Notes how a try went.
    fn end(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Right => *self = Self::default(),
            Outcome::Other => self.begun = self.begun.saturating_sub(1).max(self.wrong),
            Outcome::Wrong => {
                self.wrong = self.wrong.saturating_add(1);
                self.begun = self.begun.max(self.wrong);
            }
        }
    }

    fn left(self, max: u64) -> u64 {
        max.saturating_sub(self.begun.max(self.wrong))
    }
}

/// A try that is counted: what it is made on.
struct Try {
    sealed: SecurePrivateKey,
    attributes: Attributes,
    /// Whether it is the password of the latest version.
    of_latest: bool,
}

/// What the right password opened.
struct Opened {
    key: PasswordKey,
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
        // What verifies and decrypts can be unlocked: whether it may sign is asked when it is to.
        self.check_version(object.attributes(), CKA_DECRYPT)?;
        let secret = self.try_password(&object, password)?.secret;
        let (key, lease) = (Arc::new(object.parse_secret(&secret)?), Arc::new(self.library.lease(seconds)));
        self.unlocked.add(handle, Unlocked { key, lease: lease.clone(), login: object.login });
        self.library.expect_end(&lease);
        self.check_unlocked_in_time(handle, object.login)
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

    /// Takes a key's attributes and secret out of the token. The C side has no way to it.
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
        self.check_version(object.attributes(), CKA_SIGN)?;
        let secret = match password {
            Some(password) => self.try_password(&object, password)?.secret,
            None => self.secret_of(&object)?.ok_or_else(|| Error::from(Kind::KeyHandleInvalid))?,
        };
        Ok((object.attributes().clone(), secret))
    }

    /// Locks a key that this session has unlocked, and ends the operations with it. One that is not unlocked stays so.
    ///
    /// # Errors
    /// `KeyHandleInvalid`; `ActionProhibited` for a key without a password of its own.
    pub fn lock(&self, handle: CK_OBJECT_HANDLE) -> Result<()> {
        if self.unlocked.lock(handle) {
            self.operations.lock().end_unlocked();
            return Ok(());
        }
        check_has_password(self.token.object(handle).map_err(of_key)?.attributes())
    }

    /// Opens the key of an operation that waits for its login (C_Login(CKU_CONTEXT_SPECIFIC)).
    pub(super) fn open_for_one_use(&self, asked: Asked, password: &SecureBytes) -> Result<Arc<Key>> {
        // Its version may have been disabled since the operation began.
        let (object, _) = self.checked_key(asked.handle, asked.usage, asked.row)?;
        let secret = self.try_password(&object, password)?.secret;
        Ok(Arc::new(object.parse_secret(&secret)?))
    }

    /// Tries a password on a version, and gives what seals under it.
    ///
    /// # Errors
    /// `PinIncorrect`, `PinLocked`; `ActionProhibited` for a key without a password of its own; `KeyHandleInvalid`.
    pub fn check_password(&self, handle: CK_OBJECT_HANDLE, password: &SecureBytes) -> Result<PasswordKey> {
        let object = self.token.object(handle).map_err(of_key)?;
        check_has_password(object.attributes())?;
        Ok(self.try_password(&object, password)?.key)
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

    /// Derives the key that opens a version under a password, and tells whether it does. No try is counted.
    ///
    /// # Errors
    /// `KeyHandleInvalid`; `DeviceError` when the version is damaged; `HostMemory`.
    pub fn opens(
        &self,
        handle: CK_OBJECT_HANDLE,
        password: &SecureBytes,
        known: &mut Vec<PasswordKey>,
    ) -> Result<bool> {
        let object = self.token.object(handle).map_err(of_key)?;
        let sealed = object.stored_secret(&self.token.serial, Some(&*self.token.token_key()?))?;
        let name = version_name(object.attributes());
        for key in &*known {
            if key.fits(&sealed)? {
                return Ok(key.open(&name, &sealed).is_ok());
            }
        }
        let key = self.token.gate.pass(|| PasswordKey::of(&sealed, password))?;
        let opens = key.open(&name, &sealed).is_ok();
        known.extend(opens.then_some(key));
        Ok(opens)
    }

    /// Tells how many wrong passwords a key takes before it is locked; `None` where it is never locked, or has no password.
    pub fn password_tries_left(&self, latest: &Attributes) -> Option<u64> {
        let max = u64::from(self.token.profile().policy.password.max_attempts);
        (latest.is(CKA_SR_PASSWORD) && max > 0).then(|| Tries::of(latest).left(max))
    }

    /// Lets a key that is locked after wrong passwords be tried again, as the SO.
    ///
    /// # Errors
    /// `UserNotLoggedIn` unless the SO is; `SessionReadOnly`; `KeyHandleInvalid`, `ActionProhibited` without a password.
    pub fn reset_password_tries(&self, name: &Attributes) -> Result<()> {
        self.check_read_write()?;
        if self.token.role() != Some(Role::So) {
            let text = "only the SO lets a locked key be tried again: log in as SO first";
            return Err(Error::new(Kind::UserNotLoggedIn, text));
        }
        self.count(name, |latest, tries, _, _| {
            *tries = Tries::default();
            check_has_password(latest.attributes())
        })
    }

    /// Tries a password: counts, opens, and notes how it went.
    fn try_password(&self, object: &Object, password: &SecureBytes) -> Result<Opened> {
        let start = Instant::now();
        let attributes = object.attributes();
        let (name, max) = (key_name(attributes), u64::from(self.token.profile().policy.password.max_attempts));
        let Try { sealed, attributes, of_latest } = self.begin_try(&name, object, max)?;
        let opened = self.token.gate.pass(|| open(&sealed, &version_name(&attributes), password));
        let outcome = match &opened {
            Ok(_) if of_latest => Outcome::Right,
            Err(error) if error.kind() == Kind::PinIncorrect => Outcome::Wrong,
            _ => Outcome::Other,
        };
        let left = self.end_try(&name, outcome, max)?;
        if outcome == Outcome::Wrong {
            std::thread::sleep(WRONG_TRY.saturating_sub(start.elapsed()));
            return Err(wrong_password(&attributes, left));
        }
        let mut opened = opened?;
        if let Some(raised) = self.raise_cost(&name, &opened.key, password) {
            opened.key = raised;
        }
        Ok(opened)
    }

    /// Counts a try; waits while others are undecided that would lock the key.
    fn begin_try(&self, name: &Attributes, object: &Object, max: u64) -> Result<Try> {
        if self.token.store.read_only() {
            return self.begin_uncounted_try(name, object, max);
        }
        let start = Instant::now();
        loop {
            let waited = start.elapsed() >= PATIENCE;
            let (verdict, tried) = self.count(name, |latest, tries, transaction, token_key| {
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

    /// Notes how a try went, and tells how many are left.
    fn end_try(&self, name: &Attributes, outcome: Outcome, max: u64) -> Result<Option<u64>> {
        if self.token.store.read_only() {
            return Ok(None);
        }
        let tries = self.count(name, |_, tries, _, _| {
            tries.end(outcome);
            Ok(*tries)
        })?;
        Ok((max > 0).then(|| tries.left(max)))
    }

    /// Changes the count of a key's tries in one transaction, in which `work` sees the latest version.
    fn count<T>(
        &self,
        name: &Attributes,
        work: impl FnOnce(&Object, &mut Tries, &mut dyn Transaction, &TokenKey) -> Result<T>,
    ) -> Result<T> {
        let (token, mut work, mut answer, mut changed) = (&self.token, Some(work), None, None);
        token.write(&mut |transaction, token_key| {
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
                changed = Some(next.stored(row));
            }
            Ok(())
        })?;
        if let Some(object) = changed
            && let Some(handle) = token.handles.known(&object.uid)
        {
            token.handles.keep(handle, Arc::new(object));
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

    /// Seals a key again when the configured cost of Argon2id was raised. It is no reason to refuse the password.
    fn raise_cost(&self, name: &Attributes, key: &PasswordKey, password: &SecureBytes) -> Option<PasswordKey> {
        let params = self.token.profile().sealer.argon2();
        if !params.exceeds(&key.params()) || self.token.store.read_only() {
            return None;
        }
        let raised = self.token.gate.pass(|| PasswordKey::new(password, params)).and_then(|raised| {
            self.reseal(name, std::slice::from_ref(key), &raised, false)?;
            Ok(raised)
        });
        let told = |error: &Error| {
            log::warn!("the Argon2id parameters of the {} could not be upgraded: {error}", version::key_of(name));
        };
        raised.inspect_err(told).ok()
    }

    /// Seals the versions of a key that any of the old keys opens under a new one, in one transaction, and tells how many they were.
    /// `latest` says that the latest version must be among them.
    ///
    /// # Errors
    /// `FunctionFailed` when another process has changed the password of the latest version meanwhile; the store's.
    pub fn reseal(&self, name: &Attributes, old: &[PasswordKey], new: &PasswordKey, latest: bool) -> Result<u64> {
        let (sealed, _) = self.change_anywhere(|change| {
            let (mut sealed, mut of_latest) = (0, false);
            for found in change.find(name)?.iter().filter(|found| found.attributes().is(CKA_SR_PASSWORD)) {
                let (version, stored) = (version_name(found.attributes()), change.stored_secret(found)?);
                let opened = old.iter().find_map(|key| key.open(&version, &stored).ok());
                let Some(secret) = opened else { continue };
                change.update_secret(found, new.seal(&version, &secret)?)?;
                sealed += 1;
                of_latest |= latest_version(found.attributes()).is_some();
            }
            match latest && !of_latest {
                true => Err(changed_meanwhile(name)),
                false => Ok(sealed),
            }
        })?;
        Ok(sealed)
    }
}

impl Try {
    fn of(token: &Token, object: &Object, of_latest: bool, token_key: &TokenKey) -> Result<Self> {
        let sealed = object.stored_secret(&token.serial, Some(token_key))?;
        Ok(Self { sealed, attributes: object.attributes().clone(), of_latest })
    }
}

fn open(sealed: &SecurePrivateKey, name: &VersionName<'_>, password: &SecureBytes) -> Result<Opened> {
    let key = PasswordKey::of(sealed, password)?;
    let secret = key.open(name, sealed)?;
    Ok(Opened { key, secret })
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
const UNLOCK_HINT: &str = "the SO lets it be tried again with SR_ResetKeyTries (strongroom key reset)";

fn changed_meanwhile(name: &Attributes) -> Error {
    let text =
        format!("another process changed the password of the {} at the same time; try again", version::key_of(name));
    Error::new(Kind::FunctionFailed, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_counted_before_they_are_made_and_cleared_by_the_right_one() {
        let mut tries = Tries::default();
        for _ in 0..3 {
            assert_eq!(tries.begin(3, false), Verdict::Go);
        }
        // Three are under way: a fourth waits for them, and at last takes them for wrong.
        assert_eq!((tries.begin(3, false), tries.left(3)), (Verdict::Wait, 0));
        tries.end(Outcome::Wrong);
        assert_eq!(tries, Tries { begun: 3, wrong: 1 });
        // One was no try of this password after all.
        tries.end(Outcome::Other);
        assert_eq!((tries.begin(3, false), tries.begin(3, false)), (Verdict::Go, Verdict::Wait));
        let mut killed = tries;
        assert_eq!((killed.begin(3, true), killed), (Verdict::Locked, Tries { begun: 3, wrong: 3 }));
        assert_eq!(killed.begin(3, false), Verdict::Locked);
        tries.end(Outcome::Right);
        assert_eq!((tries, tries.left(3)), (Tries::default(), 3));
        // What comes late is counted all the same, and an old version's password takes no wrong try back.
        tries.end(Outcome::Wrong);
        tries.end(Outcome::Other);
        assert_eq!(tries, Tries { begun: 1, wrong: 1 });
        // Without a limit nothing locks.
        let mut many = Tries { begun: u64::MAX, wrong: u64::MAX };
        assert_eq!(many.begin(0, false), Verdict::Go);
    }

    #[test]
    fn a_count_of_nothing_leaves_no_trace() {
        let mut attributes = Attributes::new();
        Tries { begun: 2, wrong: 1 }.write_to(&mut attributes);
        assert_eq!(Tries::of(&attributes), Tries { begun: 2, wrong: 1 });
        Tries::default().write_to(&mut attributes);
        assert!(!attributes.has(CKA_SR_PASSWORD_TRIES) && !attributes.has(CKA_SR_PASSWORD_WRONG));
    }

    #[test]
    fn a_gate_lets_so_many_through_at_once() {
        let (gate, inside) = (Gate { room: Mutex::new(2), left: Condvar::new() }, Mutex::new((0, 0)));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    gate.pass(|| {
                        let mut counts = inside.lock();
                        counts.0 += 1;
                        counts.1 = counts.1.max(counts.0);
                        drop(counts);
                        std::thread::yield_now();
                        inside.lock().0 -= 1;
                    });
                });
            }
        });
        assert!(inside.lock().1 <= 2 && *gate.room.lock() == 2);
    }
}
