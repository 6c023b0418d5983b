//! Sessions and their states (PKCS #11 v3.2, 5.6), and what a session does with objects and PINs.

use std::sync::Arc;

use super::attribute::{self, Origin};
use super::find::Find;
use super::library::Shared;
use super::object::{Answer, Object};
use super::policy::PinSource;
use super::running::Running;
use super::token::Token;
use super::trail::{name_of, user_of};
use super::unlocked::UnlockedKeys;
use super::version;
use crate::audit::Event;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::seal::TokenKey;
use crate::secret::{SecureBytes, SecurePrivateKey};
use crate::store::{Role, Transaction};

/// What C_GetSessionInfo tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionInfo {
    /// The slot.
    pub slot: CK_SLOT_ID,
    /// `CKS_…`.
    pub state: CK_STATE,
    /// `CKF_SERIAL_SESSION`, `CKF_RW_SESSION`.
    pub flags: CK_FLAGS,
}

/// One session, in cache lines of its own.
#[repr(align(64))]
pub struct Session {
    pub(super) handle: CK_SESSION_HANDLE,
    /// Sessions that are opened one after another have different numbers: see [`Object::key`].
    pub(super) lane: usize,
    pub(super) token: Arc<Token>,
    pub(super) library: Arc<Shared>,
    pub(super) read_write: bool,
    pub(super) operations: Running,
    /// The keys with a password that it has unlocked.
    pub(super) unlocked: Arc<UnlockedKeys>,
}

impl Session {
    /// Tells the session's state.
    ///
    /// # Errors
    /// None today; the signature is that of the other calls.
    pub fn info(&self) -> Result<SessionInfo> {
        let state = match (self.token.role(), self.read_write) {
            (Some(Role::So), _) => CKS_RW_SO_FUNCTIONS,
            (Some(Role::User), true) => CKS_RW_USER_FUNCTIONS,
            (Some(Role::User), false) => CKS_RO_USER_FUNCTIONS,
            (None, true) => CKS_RW_PUBLIC_SESSION,
            (None, false) => CKS_RO_PUBLIC_SESSION,
        };
        let flags = CKF_SERIAL_SESSION | if self.read_write { CKF_RW_SESSION } else { 0 };
        Ok(SessionInfo { slot: self.token.slot, state, flags })
    }

    /// Sets the user PIN as the SO (5.5.8).
    ///
    /// # Errors
    /// `SessionReadOnly`, and as [`Token::init_pin`].
    pub fn init_pin(&self, pin: Option<SecureBytes>) -> Result<()> {
        let pin = require_pin(pin)?;
        self.changing(self.event("C_InitPIN"), |event| {
            self.check_read_write()?;
            self.token.init_pin(&pin, event)
        })
    }

    /// Changes the PIN of who is logged in, or the user's when nobody is (5.5.9).
    ///
    /// # Errors
    /// `SessionReadOnly`, and as [`Token::set_pin`].
    pub fn set_pin(&self, old: Option<SecureBytes>, new: Option<SecureBytes>) -> Result<()> {
        let (role, old, new) = (self.token.role().unwrap_or(Role::User), require_pin(old)?, require_pin(new)?);
        self.changing(Event::new("C_SetPIN", self.handle, user_of(Some(role))), |event| {
            self.check_read_write()?;
            self.token.set_pin(role, &old, &new, event)
        })
    }

    /// Logs in (5.6.8). A context-specific login authorises the operation that waits for it.
    ///
    /// # Errors
    /// `UserTypeInvalid`, `SessionReadOnlyExists`, `OperationNotInitialized`, and as [`Token::log_in`].
    pub fn login(&self, user: CK_USER_TYPE, pin: Option<SecureBytes>) -> Result<()> {
        match user {
            CKU_USER => {
                self.log_in(Role::User, pin)?;
                self.library.logged_in(&self.token);
                Ok(())
            }
            CKU_SO => {
                self.log_in(Role::So, pin)?;
                // A token that was open by itself is so no more.
                self.library.end_private_operations(&self.token);
                Ok(())
            }
            CKU_CONTEXT_SPECIFIC => {
                let pin = require_pin(pin)?;
                self.changing(self.event("C_Login"), |event| self.login_for_operation(&pin, event))
            }
            _ => Err(Kind::UserTypeInvalid.into()),
        }
    }

    /// Logs a role in. Whoever is logged in already, or need not log in, needs no PIN to be told so.
    fn log_in(&self, role: Role, pin: Option<SecureBytes>) -> Result<()> {
        let event = Event::new("C_Login", self.handle, user_of(Some(role)));
        self.changing(event, |event| {
            self.token.check_may_log_in(role, self.token.login.read().as_ref())?;
            let by_itself = pin.is_none() || matches!(self.token.profile().pin_source, PinSource::Machine);
            match role == Role::User && by_itself && self.token.open_itself(event)? {
                true => Ok(()),
                false => self.token.log_in(role, &require_pin(pin)?, event),
            }
        })
    }

    fn login_for_operation(&self, pin: &SecureBytes, event: &mut Event) -> Result<()> {
        let waiting = self.operations.lock().waiting();
        let Some((waiting, asked)) = waiting else {
            return Err(Error::new(Kind::OperationNotInitialized, "no operation of this session waits for a login"));
        };
        event.detail = "for one operation".to_owned();
        if let Some(asked) = asked {
            let key = self.open_for_one_use(asked, pin, event).inspect_err(|error| {
                if error.kind() == Kind::KeyFunctionNotPermitted {
                    self.operations.lock().refuse(waiting);
                }
            })?;
            return self.operations.lock().authorize(waiting, Some(&key));
        }
        self.token.try_pin(&self.token.row()?, Role::User, pin, event)?;
        self.token.note(event)?;
        self.operations.lock().authorize(waiting, None)
    }

    /// Logs out (5.6.10): private handles become invalid, private session objects and operations with private keys end.
    ///
    /// # Errors
    /// `UserNotLoggedIn`.
    pub fn logout(&self) -> Result<()> {
        let ended = self.token.login.read().clone();
        match &ended {
            None => return Err(Kind::UserNotLoggedIn.into()),
            // Nobody logged in to a token that has opened by itself, and the next session would open it again.
            Some(login) if login.by_itself => {
                self.library.lock_keys(&self.token);
                return Ok(());
            }
            Some(_) => {}
        }
        self.token.leave_login();
        self.library.end_private_operations(&self.token);
        if let Some(login) = ended {
            self.token.note_logout(&Event::new("C_Logout", self.handle, user_of(Some(login.role))), &login);
        }
        Ok(())
    }

    /// Creates an object (5.7.1).
    ///
    /// # Errors
    /// The template's, the session's and the store's.
    pub fn create_object(&self, template: Attributes) -> Result<CK_OBJECT_HANDLE> {
        let plaintext = self.token.profile().policy.plaintext;
        self.changing(self.event("C_CreateObject"), |event| {
            let role = self.token.role();
            self.check_can_authenticate(&template)?;
            let (attributes, secret) = attribute::complete(template, None, Origin::Create, plaintext, role)?;
            self.add_object(attributes, secret, event)
        })
    }

    /// Copies an object with some attributes changed (5.7.2).
    ///
    /// # Errors
    /// `ActionProhibited`, and as [`Self::create_object`].
    pub fn copy_object(&self, handle: CK_OBJECT_HANDLE, template: Attributes) -> Result<CK_OBJECT_HANDLE> {
        self.catch_up();
        let object = self.token.object(handle)?;
        self.changing(self.event("C_CopyObject").about(name_of(&object)), |event| {
            if !object.attributes().is(CKA_COPYABLE) {
                return Err(Error::new(Kind::ActionProhibited, "the object is not copyable (CKA_COPYABLE)"));
            }
            let attributes = attribute::copied(object.attributes().clone(), template, self.token.role())?;
            self.add_object(attributes, self.secret_of(&object)?, event)
        })
    }

    /// Destroys an object (5.7.3); the handle is invalid once the store has forgotten it.
    ///
    /// # Errors
    /// `ObjectHandleInvalid`, `ActionProhibited`, `SessionReadOnly`, `UserNotLoggedIn`, and the store's.
    pub fn destroy_object(&self, handle: CK_OBJECT_HANDLE) -> Result<()> {
        self.catch_up();
        let object = self.token.object(handle)?;
        let event = self.event("C_DestroyObject").about(name_of(&object));
        self.changing(event, |event| self.destroy(handle, &object, event))
    }

    fn destroy(&self, handle: CK_OBJECT_HANDLE, object: &Object, event: &Event) -> Result<()> {
        check_destroyable(object.attributes())?;
        if object.is_token_object() {
            self.check_read_write()?;
            let gone = self.token.write(event, &mut |transaction, token_key| {
                // Another process may have changed it since it was opened here.
                check_destroyable(self.current(transaction, token_key, object)?.attributes())?;
                transaction.delete_object(&self.token.serial, &object.uid)
            });
            self.forget_if_gone(handle, gone)?;
        } else {
            self.note_of_session_object(event)?;
        }
        self.token.handles.remove(handle);
        Ok(())
    }

    /// Tells about how many bytes an object takes (5.7.4).
    ///
    /// # Errors
    /// `ObjectHandleInvalid`.
    pub fn object_size(&self, handle: CK_OBJECT_HANDLE) -> Result<u64> {
        self.catch_up();
        self.token.object(handle)?.size()
    }

    /// Answers for each of some attributes (5.7.5).
    ///
    /// # Errors
    /// `ObjectHandleInvalid`; `DeviceError` when a secret that may be revealed is damaged.
    pub fn attributes(&self, handle: CK_OBJECT_HANDLE, types: &[CK_ATTRIBUTE_TYPE]) -> Result<Vec<Answer>> {
        self.catch_up();
        let object = self.token.object(handle)?;
        let plaintext = self.token.profile().policy.plaintext;
        // Who looks whether the key asks for a login of its own is told how it stands in this session.
        let unlocked = object.has_password() && self.unlocked.find(handle, object.login).is_some();
        let answer = |id: &CK_ATTRIBUTE_TYPE| {
            if unlocked && *id == CKA_ALWAYS_AUTHENTICATE {
                return Ok(Answer::Value(Value::Bool(false)));
            }
            object.answer(*id, plaintext, |row| match self.secret_of(&object)? {
                Some(secret) => (row.reveal)(object.attributes(), &secret, *id),
                None => Ok(None),
            })
        };
        types.iter().map(answer).collect()
    }

    /// Changes attributes of an object (5.7.6).
    ///
    /// # Errors
    /// `ObjectHandleInvalid`, `ActionProhibited`, `AttributeReadOnly`, `SessionReadOnly`, and the store's.
    pub fn set_attributes(&self, handle: CK_OBJECT_HANDLE, template: Attributes) -> Result<()> {
        let object = self.token.object(handle)?;
        let event = self.event("C_SetAttributeValue").about(name_of(&object));
        self.changing(event, |event| self.change_attributes(handle, &object, template, event))
    }

    fn change_attributes(
        &self,
        handle: CK_OBJECT_HANDLE,
        object: &Object,
        template: Attributes,
        event: &Event,
    ) -> Result<()> {
        attribute::check_modifiable(object.attributes())?;
        let role = self.token.role();
        if !object.is_token_object() {
            self.note_of_session_object(event)?;
            return self.token.handles.change_session_object(handle, |current| {
                let attributes = attribute::changed(current.attributes().clone(), template, role)?;
                Ok(current.changed(attributes, self.secret_of(current)?))
            });
        }
        self.check_read_write()?;
        let written = self.token.write(event, &mut |transaction, token_key| {
            let current = self.current(transaction, token_key, object)?;
            let attributes = attribute::changed(current.attributes().clone(), template.clone(), role)?;
            let changed =
                current.changed(attributes, current.stored_secret_if_any(&self.token.serial, Some(token_key))?);
            let row = changed.to_row(&self.token.serial, token_key)?;
            transaction.update_object(&self.token.serial, &row)
        });
        self.forget_if_gone(handle, written)?;
        self.token.handles.forget(&object.uid);
        Ok(())
    }

    /// Opens a token object as it is in the store now.
    fn current(&self, transaction: &mut dyn Transaction, token_key: &TokenKey, object: &Object) -> Result<Object> {
        let row = transaction.object(&self.token.serial, &object.uid)?;
        let row = row.ok_or_else(|| Error::from(Kind::ObjectHandleInvalid))?;
        Object::open(&self.token.serial, Some(token_key), row, object.login)
    }

    /// Forgets the handle of an object that another process has destroyed.
    fn forget_if_gone(&self, handle: CK_OBJECT_HANDLE, result: Result<()>) -> Result<()> {
        result.inspect_err(|error| {
            if error.kind() == Kind::ObjectHandleInvalid {
                self.token.handles.remove(handle);
            }
        })
    }

    /// Starts a find (5.7.7).
    ///
    /// # Errors
    /// `OperationActive`, and as [`Token::find`].
    pub fn find_init(&self, template: Attributes) -> Result<()> {
        self.catch_up();
        // This may ask a KMS.
        self.token.sync_remote_once()?;
        let mut operations = self.operations.lock();
        if operations.find.is_some() {
            return Err(Kind::OperationActive.into());
        }
        operations.find = Some(self.token.find(&template)?);
        Ok(())
    }

    /// Hands out the next handles (5.7.8).
    ///
    /// # Errors
    /// `OperationNotInitialized`.
    pub fn find(&self, max: usize) -> Result<Vec<CK_OBJECT_HANDLE>> {
        self.with_find(|find| find.as_mut().map(|find| find.next(max)))
    }

    /// Ends a find (5.7.9).
    ///
    /// # Errors
    /// `OperationNotInitialized`.
    pub fn find_final(&self) -> Result<()> {
        self.with_find(|find| find.take().map(|_| ()))
    }

    fn with_find<T>(&self, work: impl FnOnce(&mut Option<Find>) -> Option<T>) -> Result<T> {
        work(&mut self.operations.lock().find).ok_or_else(|| Kind::OperationNotInitialized.into())
    }

    /// Adds an object that is complete, as token or session object.
    pub(super) fn add_object(
        &self,
        attributes: Attributes,
        secret: Option<SecurePrivateKey>,
        event: &mut Event,
    ) -> Result<CK_OBJECT_HANDLE> {
        let handles = self.add_objects([(attributes, secret)], event)?;
        let [handle] = handles;
        Ok(handle)
    }

    /// Adds objects that belong together; the token objects among them in one transaction.
    pub(super) fn add_objects<const N: usize>(
        &self,
        objects: [(Attributes, Option<SecurePrivateKey>); N],
        event: &mut Event,
    ) -> Result<[CK_OBJECT_HANDLE; N]> {
        let (login, seen) = (self.token.login_count(), self.token.handles.changes());
        let mut made = Vec::with_capacity(N);
        for (attributes, secret) in objects {
            let object = Object::new(attributes, secret, login)?;
            self.check_may_add(&object)?;
            made.push(object);
        }
        event.keys.splice(0..0, made.iter().map(name_of));
        let mut rows = Vec::with_capacity(N);
        if !made.iter().any(Object::is_token_object) {
            self.note_of_session_object(event)?;
        } else {
            self.token.write(event, &mut |transaction, token_key| {
                for object in made.iter().filter(|object| object.is_token_object()) {
                    let row = object.to_row(&self.token.serial, token_key)?;
                    transaction.insert_object(&self.token.serial, &row)?;
                    rows.push(row);
                }
                Ok(())
            })?;
        }
        let mut rows = rows.into_iter();
        let mut handles = [0; N];
        let mut in_memory = Vec::with_capacity(N);
        for (object, handle) in made.into_iter().zip(&mut handles) {
            let stored = object.is_token_object();
            *handle = match stored {
                false => self.token.handles.add_session_object(Arc::new(object), self.handle)?,
                true => {
                    let row = rows.next().expect("each token object has a row");
                    self.token.handles.of_token_object(&Arc::new(object.stored(row)), seen)?
                }
            };
            if !stored {
                in_memory.push(*handle);
            }
        }
        self.check_still_there(&in_memory, login)?;
        Ok(handles)
    }

    /// Records what becomes of a session object, which is gone with the session: as the use of a key.
    fn note_of_session_object(&self, event: &Event) -> Result<()> {
        if self.token.trail.records_key_use() { self.token.note(event) } else { Ok(()) }
    }

    /// Takes session objects back when the session was closed, or its login ended, while they were made.
    fn check_still_there(&self, handles: &[CK_OBJECT_HANDLE], login: u64) -> Result<()> {
        let fault = match self.library.has_session(self.handle) {
            false => Kind::SessionHandleInvalid,
            true if self.token.login_count() != login => Kind::UserNotLoggedIn,
            true => return Ok(()),
        };
        handles.iter().for_each(|handle| self.token.handles.remove(*handle));
        match handles {
            [] => Ok(()),
            _ => Err(fault.into()),
        }
    }

    fn check_may_add(&self, object: &Object) -> Result<()> {
        if object.is_token_object() {
            self.check_read_write()?;
        }
        self.check_may_be_private(object.is_private())
    }

    /// Refuses to make a private object unless the user is logged in.
    ///
    /// # Errors
    /// `UserNotLoggedIn`.
    pub fn check_may_be_private(&self, private: bool) -> Result<()> {
        match private && self.token.role() != Some(Role::User) {
            true => {
                Err(Error::new(Kind::UserNotLoggedIn, "a private object (CKA_PRIVATE) needs the user to be logged in"))
            }
            false => Ok(()),
        }
    }

    /// Opens an object's secret, if it has one.
    pub(super) fn secret_of(&self, object: &Object) -> Result<Option<SecurePrivateKey>> {
        object.has_secret().then(|| self.token.secret(object)).transpose()
    }

    /// Refuses a change in a read-only session.
    ///
    /// # Errors
    /// `SessionReadOnly`.
    pub fn check_read_write(&self) -> Result<()> {
        match self.read_write {
            true => Ok(()),
            false => Err(Error::new(Kind::SessionReadOnly, "the session is read-only: open it with CKF_RW_SESSION")),
        }
    }

    /// Takes note of what other processes changed; asks the store about once a second at most.
    pub(super) fn catch_up(&self) {
        self.token.catch_up(self.library.changes());
    }
}

fn require_pin(pin: Option<SecureBytes>) -> Result<SecureBytes> {
    pin.ok_or_else(|| Error::arguments_bad("a PIN must be given: the token has no protected authentication path"))
}

/// Requires that C_DestroyObject may destroy an object.
fn check_destroyable(attributes: &Attributes) -> Result<()> {
    match attributes.is(CKA_DESTROYABLE) {
        true => version::check_destroy(attributes),
        false => Err(Error::new(Kind::ActionProhibited, "the object is not destroyable (CKA_DESTROYABLE)")),
    }
}
