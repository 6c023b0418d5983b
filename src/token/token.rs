//! One token: its row in the store, who is logged in, and the objects that this process has handles of.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use quick_cache::sync::Cache;

use super::attend::Wake;
use super::find::object_name;
use super::handle::Handles;
use super::itself::Closed;
use super::object::Object;
use super::password::Gate;
use super::policy::Profile;
use super::uses::{self, Uses};
use crate::audit::{Event, Line, Signers, Trail};
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::mechanism;
use crate::seal::{self, DataKeyId, DataKeys, Outer, TokenKey};
use crate::secret::SecurePrivateKey;
use crate::store::{ObjectRow, Role, Serial, Store, TokenRow, Transaction, Uid};

/// The profiles that the token meets (PKCS #11 Profiles v3.2).
const PROFILES: [CK_PROFILE_ID; 2] = [CKP_BASELINE_PROVIDER, CKP_EXTENDED_PROVIDER];

/// Who is logged in, and the token key that the PIN opened.
#[derive(Clone)]
pub struct Login {
    /// Which role.
    pub role: Role,
    /// The root of the token's hierarchy.
    pub token_key: Arc<TokenKey>,
    /// The outer key of its envelopes: with it, a PIN is changed without the KMS.
    pub outer: Arc<Outer>,
    /// The data keys of single keys that were opened since.
    pub data_keys: Arc<DataKeys>,
    /// When the token was initialised: another time means another token under the same serial number.
    pub created: u64,
    /// Whether the token has opened by itself: nobody has logged in.
    pub by_itself: bool,
}

impl Login {
    /// Makes a login of what a PIN has opened.
    pub fn new(role: Role, token_key: TokenKey, outer: Outer, created: u64) -> Self {
        let (token_key, outer) = (Arc::new(token_key), Arc::new(outer));
        Self { role, token_key, outer, data_keys: Arc::default(), created, by_itself: false }
    }
}

/// One token in one process.
pub struct Token {
    /// The serial number.
    pub serial: Serial,
    /// The slot it is in.
    pub slot: CK_SLOT_ID,
    pub(super) store: Arc<dyn Store>,
    pub(super) trail: Arc<Trail>,
    pub(super) profile: RwLock<Profile>,
    pub(super) handles: Handles,
    pub(super) login: RwLock<Option<Login>>,
    /// Counts logins and logouts: what a login opened is of no use under another count.
    login_count: AtomicU64,
    /// The store's change count that `handles` are in step with.
    seen_changes: AtomicU64,
    /// How many sessions this process has open; they change under the lock of `login`.
    sessions: AtomicU64,
    /// How many of them are read-only.
    read_only_sessions: AtomicU64,
    /// Held while a PIN is tried: one try at a time in this process.
    pub(super) pin_try: Mutex<()>,
    /// Wrong tries of the SO PIN and the user PIN that the store could not take: this process counts them all the same.
    pub(super) uncounted: [AtomicU32; 2],
    /// Held while the token opens by itself.
    pub(super) opening: Mutex<()>,
    /// Why it does not, if it should.
    pub(super) closed: Mutex<Closed>,
    /// Passed by tries of the passwords of single keys.
    pub(super) gate: Gate,
    /// When a token of keys in a KMS is to be compared with its configuration next, in seconds since 1970.
    pub(super) next_sync: AtomicU64,
    /// What this process has taken of the uses of versions whose uses are limited. One that is forgotten loses what it has.
    pub(super) uses: Cache<Uid, Arc<Uses>>,
    /// What looks after the token in the background, once it does.
    pub(super) attended: OnceLock<Wake>,
}

impl Token {
    /// Takes up the token of a row.
    ///
    /// # Errors
    /// `FunctionFailed` when the random generator fails.
    pub fn new(row: &TokenRow, store: Arc<dyn Store>, profile: Profile, trail: Arc<Trail>) -> Result<Self> {
        Ok(Self {
            serial: row.serial,
            slot: u64::from(row.slot),
            store,
            trail,
            handles: Handles::new(own_objects(row.serial, &profile)?)?,
            profile: RwLock::new(profile),
            login: RwLock::new(None),
            login_count: AtomicU64::new(0),
            seen_changes: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            read_only_sessions: AtomicU64::new(0),
            pin_try: Mutex::new(()),
            uncounted: Default::default(),
            opening: Mutex::new(()),
            closed: Mutex::default(),
            gate: Gate::new(),
            next_sync: AtomicU64::new(0),
            uses: Cache::new(uses::KEPT),
            attended: OnceLock::new(),
        })
    }

    /// Counts a session that is opened.
    ///
    /// # Errors
    /// `SessionReadWriteSoExists` for a read-only session while the SO is logged in.
    pub(super) fn count_session(&self, read_write: bool) -> Result<()> {
        let login = self.login.write();
        if !read_write && matches!(&*login, Some(login) if login.role == Role::So) {
            return Err(Kind::SessionReadWriteSoExists.into());
        }
        self.sessions.fetch_add(1, Ordering::AcqRel);
        self.read_only_sessions.fetch_add(u64::from(!read_write), Ordering::AcqRel);
        Ok(())
    }

    /// Counts a session that is closed; with the last one the login ends, unless the token opened by itself. Gives the login that ended.
    pub(super) fn discount_session(&self, read_write: bool) -> Option<Login> {
        let mut login = self.login.write();
        self.read_only_sessions.fetch_sub(u64::from(!read_write), Ordering::AcqRel);
        let last = self.sessions.fetch_sub(1, Ordering::AcqRel) == 1;
        // A token that has opened by itself stays open: the next session costs no call of the KMS.
        if !last || login.as_ref().is_none_or(|login| login.by_itself) {
            return None;
        }
        let ended = login.clone();
        self.change_login(&mut login, None);
        drop(login);
        self.handles.remove_private();
        ended
    }

    /// Tells how many sessions are open: all, and read-only ones.
    pub(super) fn session_counts(&self) -> (u64, u64) {
        (self.sessions.load(Ordering::Acquire), self.read_only_sessions.load(Ordering::Acquire))
    }

    /// Reads the token's row as it is now.
    ///
    /// # Errors
    /// `TokenNotRecognized` when it is gone; `DeviceError` when the store fails.
    pub fn row(&self) -> Result<TokenRow> {
        self.store.token(&self.serial)?.ok_or_else(gone)
    }

    /// Takes up how the token is kept from now on: another KMS has another master key.
    ///
    /// # Errors
    /// `FunctionFailed` when the random generator fails.
    pub(super) fn set_profile(&self, profile: Profile) -> Result<()> {
        let mut current = self.profile.write();
        if !Arc::ptr_eq(&current.sealer, &profile.sealer) {
            self.handles.replace_own(own_objects(self.serial, &profile)?)?;
        }
        *current = profile;
        Ok(())
    }

    /// Forgets everything of the token as it was before it was initialised again.
    pub(super) fn start_anew(&self) {
        self.leave_login();
        self.handles.clear();
        self.uses.clear();
        self.uncounted.iter().for_each(|tries| tries.store(0, Ordering::Release));
        self.next_sync.store(0, Ordering::Release);
    }

    /// Gives how the token is kept.
    pub fn profile(&self) -> Profile {
        self.profile.read().clone()
    }

    /// Tells the count under which private objects are usable now.
    pub fn login_count(&self) -> u64 {
        self.login_count.load(Ordering::Acquire)
    }

    /// Tells a stamp under which what was found out about a key holds: other logins and other objects have another one.
    pub(super) fn stamp(&self) -> (u64, u64) {
        (self.login_count(), self.handles.changes())
    }

    /// Tells whether a role may log in now. The SO may while the token is open by itself, since nobody has logged in.
    ///
    /// # Errors
    /// `UserAlreadyLoggedIn`, `UserAnotherAlreadyLoggedIn`; `SessionReadOnlyExists` for the SO.
    pub(super) fn check_may_log_in(&self, role: Role, current: Option<&Login>) -> Result<()> {
        match current {
            Some(login) if login.role == role => Err(Kind::UserAlreadyLoggedIn.into()),
            Some(login) if role != Role::So || !login.by_itself => Err(Kind::UserAnotherAlreadyLoggedIn.into()),
            _ if role == Role::So && self.session_counts().1 > 0 => Err(Kind::SessionReadOnlyExists.into()),
            _ => Ok(()),
        }
    }

    /// Enters a login, if nothing that has happened since its PIN was tried stands against it.
    ///
    /// # Errors
    /// As [`Self::check_may_log_in`]; `SessionHandleInvalid` when the last session was closed meanwhile.
    pub(super) fn enter_login(&self, login: Login) -> Result<()> {
        let mut current = self.login.write();
        self.check_may_log_in(login.role, current.as_ref())?;
        if self.session_counts().0 == 0 {
            return Err(Error::new(Kind::SessionHandleInvalid, "the last session was closed while it logged in"));
        }
        let replaces = current.is_some();
        self.change_login(&mut current, Some(login));
        drop(current);
        if replaces {
            self.handles.remove_private();
        }
        // What was opened without a login was not verified under the token key.
        self.handles.reread();
        Ok(())
    }

    /// Ends a login, and everything that it opened.
    pub(super) fn leave_login(&self) {
        self.change_login(&mut self.login.write(), None);
        self.handles.remove_private();
    }

    fn change_login(&self, current: &mut Option<Login>, next: Option<Login>) {
        self.login_count.fetch_add(1, Ordering::AcqRel);
        *current = next;
    }

    /// Tells what may be seen and opened right now.
    pub(super) fn view(&self) -> View {
        let login = self.login.read();
        View { login: login.clone(), count: self.login_count(), changes: self.handles.changes() }
    }

    /// Opens a row in a view.
    pub(super) fn open_row(&self, view: &View, row: ObjectRow) -> Result<Object> {
        Object::open(&self.serial, view.token_key(), row, view.count)
    }

    /// Finds the object of a handle; private objects only while the user is logged in.
    ///
    /// # Errors
    /// `ObjectHandleInvalid` for an unknown or stale handle; `DeviceError` when the object is damaged.
    pub fn object(&self, handle: CK_OBJECT_HANDLE) -> Result<Arc<Object>> {
        if let Some(object) = self.handles.opened(handle)
            && (!object.is_private() || object.login == self.login_count())
        {
            return Ok(object);
        }
        self.object_from_store(handle)
    }

    fn object_from_store(&self, handle: CK_OBJECT_HANDLE) -> Result<Arc<Object>> {
        if let Some(own) = self.handles.own(handle) {
            return Ok(own);
        }
        let entry = self.handles.entry(handle).ok_or_else(no_object)?;
        let view = self.view();
        let object = match entry.session {
            Some(_) => self.handles.session_object(handle).ok_or_else(no_object)?,
            None => {
                let Some(row) = self.store.object(&self.serial, &entry.uid)? else {
                    self.handles.remove(handle);
                    return Err(no_object());
                };
                Arc::new(self.open_row(&view, row).map_err(|error| error.context(object_name(&entry.uid)))?)
            }
        };
        if !view.sees(&object) {
            return Err(no_object());
        }
        self.handles.keep(handle, &object, view.changes);
        Ok(object)
    }

    /// Gives the token key of who is logged in.
    ///
    /// # Errors
    /// `UserNotLoggedIn`.
    pub fn token_key(&self) -> Result<Arc<TokenKey>> {
        let login = self.login.read();
        login.as_ref().map(|login| login.token_key.clone()).ok_or_else(|| Error::from(Kind::UserNotLoggedIn))
    }

    /// Opens an object's secret. One that is under its owner's password stays closed: [`super::password`] opens it.
    ///
    /// # Errors
    /// `UserNotLoggedIn` for a key with a password of its own, and as [`Object::stored_secret`]; for a key with a data key of its
    /// own what the KMS answers, which is asked once in a login.
    pub(super) fn secret(&self, object: &Object) -> Result<SecurePrivateKey> {
        if object.has_password() {
            return Err(super::password::closed(object.attributes()));
        }
        let stored = object.stored_secret(&self.serial, self.token_key().ok().as_deref())?;
        self.without_data_key(&object.uid, object.attributes(), stored)
    }

    /// Opens what lies under the data key of an object that has one of its own.
    ///
    /// # Errors
    /// `UserNotLoggedIn`; what the KMS answers; `DeviceError` when it is damaged.
    pub(super) fn without_data_key(
        &self,
        uid: &Uid,
        attributes: &Attributes,
        stored: SecurePrivateKey,
    ) -> Result<SecurePrivateKey> {
        if !attributes.is(CKA_SR_DATA_KEY) {
            return Ok(stored);
        }
        let data_keys = self.data_keys()?;
        data_keys.open(&self.profile().sealer, self.data_key_id(uid), &stored)
    }

    /// Gives the data keys that the login has opened.
    ///
    /// # Errors
    /// `UserNotLoggedIn`.
    pub(super) fn data_keys(&self) -> Result<Arc<DataKeys>> {
        let login = self.login.read();
        login.as_ref().map(|login| login.data_keys.clone()).ok_or_else(|| Error::from(Kind::UserNotLoggedIn))
    }

    /// Names an object for its data key.
    pub(super) fn data_key_id(&self, uid: &Uid) -> DataKeyId {
        DataKeyId { token: self.serial, uid: *uid }
    }

    /// Runs a change of the token's objects in one transaction that also takes its record, after checking that the token is still
    /// the one logged in to.
    ///
    /// # Errors
    /// `UserNotLoggedIn`; `TokenNotRecognized` when another process has initialised the token again; what `work` answers.
    pub(super) fn write(
        &self,
        event: &Event,
        work: &mut dyn FnMut(&mut dyn Transaction, &TokenKey) -> Result<()>,
    ) -> Result<()> {
        let login = self.login_to_change()?;
        self.write_recorded(event, Some(Signers::of(&*login.token_key)), &mut |transaction| {
            self.check_same(transaction, &login)?;
            work(transaction, &login.token_key)
        })
    }

    /// Runs a change as [`Self::write`] does, whose work finds out only under the write lock what its record is to tell, and whether
    /// there is one: it answers whether it has changed anything.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(super) fn write_telling(
        &self,
        event: &mut Event,
        work: &mut dyn FnMut(&mut dyn Transaction, &TokenKey, &mut Event) -> Result<bool>,
    ) -> Result<()> {
        let login = self.login_to_change()?;
        let mut line = None;
        let written = self.store.write(&mut |transaction| {
            self.check_same(transaction, &login)?;
            if work(transaction, &login.token_key, event)? {
                line = self.trail.append(transaction, &self.serial, event, Some(Signers::of(&*login.token_key)))?;
            }
            Ok(())
        });
        self.settle_record(event, written, line)
    }

    /// Runs a change that only keeps count of something, of which the records of what is counted tell.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(super) fn write_count(
        &self,
        work: &mut dyn FnMut(&mut dyn Transaction, &TokenKey) -> Result<()>,
    ) -> Result<()> {
        let login = self.login_to_change()?;
        self.store.write(&mut |transaction| {
            self.check_same(transaction, &login)?;
            work(transaction, &login.token_key)
        })
    }

    /// Gives the login under which objects may change.
    fn login_to_change(&self) -> Result<Login> {
        let login = self.login.read().clone();
        login.ok_or_else(|| {
            let text = "token objects are sealed under the token key: log in before changing them";
            Error::new(Kind::UserNotLoggedIn, text)
        })
    }

    /// Checks that the token is still the one logged in to.
    pub(super) fn check_same(&self, transaction: &mut dyn Transaction, login: &Login) -> Result<()> {
        match transaction.token(&self.serial)? {
            Some(row) if row.created == login.created => Ok(()),
            _ => Err(gone()),
        }
    }

    /// Runs a change in one transaction that also takes its record, and sends copies of that out once it is committed.
    ///
    /// # Errors
    /// What `work` answers; the store's; in the mode `required`, `FunctionRejected` when the record cannot be added.
    pub(super) fn write_recorded(
        &self,
        event: &Event,
        signers: Option<Signers<'_>>,
        work: &mut dyn FnMut(&mut dyn Transaction) -> Result<()>,
    ) -> Result<()> {
        let mut line = None;
        let written = self.store.write(&mut |transaction| {
            work(transaction)?;
            line = self.trail.append(transaction, &self.serial, event, signers)?;
            Ok(())
        });
        self.settle_record(event, written, line)
    }

    /// Sends out the copies of a record that is committed, or notes that there is none.
    fn settle_record(&self, event: &Event, written: Result<()>, line: Option<Line>) -> Result<()> {
        match &written {
            Ok(()) => self.trail.copy(line),
            Err(error) => {
                // The record went with the change: this one failed, and is yet to be told of.
                event.untell();
                if error.kind() == Kind::TokenNotRecognized {
                    self.forget_login();
                }
            }
        }
        written
    }

    /// Takes note of changes that other processes made, given the store's change count: objects are read again when they are
    /// used next, and a token that was initialised again is logged out.
    pub(super) fn catch_up(&self, changes: u64) {
        if self.seen_changes.load(Ordering::Acquire) == changes {
            return;
        }
        self.handles.reread();
        let created = self.login.read().as_ref().map(|login| login.created);
        if let Some(created) = created {
            match self.row() {
                Ok(row) if row.created == created => {}
                // The store cannot be read just now: the next call looks again.
                Err(error) if error.kind() != Kind::TokenNotRecognized => return,
                _ => self.forget_login(),
            }
        }
        self.seen_changes.store(changes, Ordering::Release);
    }

    /// Logs out because another process has initialised the token again.
    fn forget_login(&self) {
        log::warn!("the token was initialised again by another process; this one is logged out");
        self.start_anew();
    }
}

/// Makes the objects that tell what the token is: its profiles (4.12), its mechanisms (4.13) and its KMS master key.
fn own_objects(serial: Serial, profile: &Profile) -> Result<Vec<Arc<Object>>> {
    let profiles = PROFILES.iter().map(|id| (CKO_PROFILE, CKA_PROFILE_ID, *id));
    let mechanisms = mechanism::all().map(|row| (CKO_MECHANISM, CKA_MECHANISM_TYPE, row.id));
    let make = |(class, id, value)| {
        let attributes = [(CKA_CLASS, Value::Ulong(class)), (id, Value::Ulong(value))].into_iter().collect();
        Object::new(attributes, None, 0).map(Arc::new)
    };
    let master = super::master::object(serial, profile.sealer.clone()).map(Arc::new);
    profiles.chain(mechanisms).map(make).chain([master]).collect()
}

/// What may be seen and opened at one moment.
pub struct View {
    login: Option<Login>,
    count: u64,
    changes: u64,
}

impl View {
    /// Tells whether the normal user is logged in.
    pub fn is_user(&self) -> bool {
        matches!(&self.login, Some(login) if login.role == Role::User)
    }

    /// Gives the token key of whoever is logged in: public objects are verified with it.
    pub fn token_key(&self) -> Option<&TokenKey> {
        self.login.as_ref().map(|login| login.token_key.as_ref())
    }

    /// Gives the token key if private objects may be seen.
    pub fn private_key(&self) -> Option<&TokenKey> {
        self.token_key().filter(|_| self.is_user())
    }

    /// Tells the token's login count.
    pub fn login_count(&self) -> u64 {
        self.count
    }

    /// Tells the number under which what is read in the view may be kept ([`Handles::changes`]).
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Tells whether an object may be seen.
    pub fn sees(&self, object: &Object) -> bool {
        !object.is_private() || (self.is_user() && object.login == self.count)
    }

    /// Tells, before it is opened, whether a row is out of question.
    ///
    /// # Errors
    /// `DeviceError` when its header is damaged.
    pub fn skips(&self, template: &Attributes, row: &ObjectRow) -> Result<bool> {
        let private = seal::is_private(&row.attributes).map_err(|error| error.context(object_name(&row.uid)))?;
        Ok((private && !self.is_user()) || template.bool(CKA_PRIVATE).is_some_and(|wanted| wanted != private))
    }
}

/// Makes the error of a token that is not the one that was logged in to.
pub(super) fn gone() -> Error {
    Error::new(Kind::TokenNotRecognized, "the token was removed or initialised again by another process; log in again")
}

fn no_object() -> Error {
    Error::from(Kind::ObjectHandleInvalid)
}
