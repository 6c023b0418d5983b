//! One token: its row in the store, who is logged in, and the objects that this process has handles of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::find::object_name;
use super::handle::{Handles, TOKEN_ITSELF};
use super::object::Object;
use super::policy::Profile;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::mechanism;
use crate::seal::{self, TokenKey};
use crate::store::{ObjectRow, Role, Serial, Store, TokenRow, Transaction};

/// The profiles that the token meets (PKCS #11 Profiles v3.2).
const PROFILES: [CK_PROFILE_ID; 2] = [CKP_BASELINE_PROVIDER, CKP_EXTENDED_PROVIDER];

/// Who is logged in, and the token key that the PIN opened.
#[derive(Clone)]
pub struct Login {
    /// Which role.
    pub role: Role,
    /// The root of the token's hierarchy.
    pub token_key: Arc<TokenKey>,
    /// When the token was initialised: another time means another token under the same serial number.
    pub created: u64,
}

/// One token in one process.
pub struct Token {
    /// The serial number.
    pub serial: Serial,
    /// The slot it is in.
    pub slot: CK_SLOT_ID,
    pub(super) store: Arc<dyn Store>,
    pub(super) profile: RwLock<Profile>,
    pub(super) handles: Handles,
    pub(super) login: RwLock<Option<Login>>,
    /// Counts logins and logouts: what a login opened is of no use under another count.
    login_count: AtomicU64,
    /// The store's change count that `handles` are in step with.
    seen_changes: AtomicU64,
    /// How many sessions this process has open: all, and read-only ones.
    pub(super) sessions: AtomicU64,
    pub(super) read_only_sessions: AtomicU64,
}

impl Token {
    /// Takes up the token of a row.
    ///
    /// # Errors
    /// `FunctionFailed` when the random generator fails.
    pub fn new(row: &TokenRow, store: Arc<dyn Store>, profile: Profile) -> Result<Self> {
        let token = Self {
            serial: row.serial,
            slot: u64::from(row.slot),
            store,
            profile: RwLock::new(profile),
            handles: Handles::new(),
            login: RwLock::new(None),
            login_count: AtomicU64::new(0),
            seen_changes: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            read_only_sessions: AtomicU64::new(0),
        };
        token.add_own_objects()?;
        Ok(token)
    }

    /// Adds the objects that tell what the token is: its profiles (4.12) and its mechanisms (4.13).
    fn add_own_objects(&self) -> Result<()> {
        let profiles = PROFILES.iter().map(|id| (CKO_PROFILE, CKA_PROFILE_ID, *id));
        let mechanisms = mechanism::all().map(|row| (CKO_MECHANISM, CKA_MECHANISM_TYPE, row.id));
        for (class, id, value) in profiles.chain(mechanisms) {
            let attributes = [(CKA_CLASS, Value::Ulong(class)), (id, Value::Ulong(value))].into_iter().collect();
            let object = Arc::new(Object::new(attributes, None, 0)?);
            self.handles.add_session_object(object, TOKEN_ITSELF)?;
        }
        Ok(())
    }

    /// Reads the token's row as it is now.
    ///
    /// # Errors
    /// `TokenNotRecognized` when it is gone; `DeviceError` when the store fails.
    pub fn row(&self) -> Result<TokenRow> {
        self.store.token(&self.serial)?.ok_or_else(gone)
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

    /// Enters or leaves a login. What the old one opened is dropped.
    pub(super) fn set_login(&self, login: Option<Login>) {
        let mut current = self.login.write();
        self.login_count.fetch_add(1, Ordering::AcqRel);
        *current = login;
        drop(current);
        self.handles.remove_private();
    }

    /// Tells what may be seen and opened right now.
    pub(super) fn view(&self) -> View {
        let login = self.login.read();
        View { login: login.clone(), count: self.login_count() }
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
        self.handles.replace(handle, object.clone());
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

    /// Runs a change of the token's objects in one transaction, after checking that the token is still the one logged in to.
    ///
    /// # Errors
    /// `UserNotLoggedIn`; `TokenNotRecognized` when another process has initialised the token again; what `work` answers.
    pub(super) fn write(&self, work: &mut dyn FnMut(&mut dyn Transaction, &TokenKey) -> Result<()>) -> Result<()> {
        let login = self.login.read().clone().ok_or_else(|| {
            Error::new(
                Kind::UserNotLoggedIn,
                "token objects are sealed under the token key: log in before changing them",
            )
        })?;
        self.store.write(&mut |transaction| match transaction.token(&self.serial)? {
            Some(row) if row.created == login.created => work(transaction, &login.token_key),
            _ => Err(gone()),
        })
    }

    /// Takes note of changes that other processes made, given the store's change count: objects are read again when they are
    /// used next, and a token that was initialised again is logged out.
    pub(super) fn catch_up(&self, changes: u64) {
        // The load keeps the common case free of a write that threads would contend for.
        if self.seen_changes.load(Ordering::Acquire) == changes
            || self.seen_changes.swap(changes, Ordering::AcqRel) == changes
        {
            return;
        }
        self.handles.reread();
        let created = self.login.read().as_ref().map(|login| login.created);
        if let Some(created) = created
            && self.row().is_ok_and(|row| row.created != created)
        {
            log::warn!("the token was initialised again by another process; this one is logged out");
            self.set_login(None);
            self.handles.clear();
        }
    }
}

/// What may be seen and opened at one moment.
pub struct View {
    login: Option<Login>,
    count: u64,
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

fn gone() -> Error {
    Error::new(Kind::TokenNotRecognized, "the token was removed or initialised again by another process; log in again")
}

fn no_object() -> Error {
    Error::from(Kind::ObjectHandleInvalid)
}
