//! What operations tell the audit trail: the events of sessions, and how they get to it.
//!
//! The rules are:
//! - a change of the store is recorded in its own transaction ([`Token::write`] and the few other places that write);
//! - a use of a key is recorded before it begins, so that one that is refused has not happened;
//! - what fails is recorded when it was refused or went wrong; a call that makes no sense is no operation.

use std::sync::Arc;

use super::object::Object;
use super::operation::{Reply, Room};
use super::session::Session;
use super::token::{Login, Token};
use crate::audit::{Anchor, CopyReport, CopyVerifier, Event, KeyName, Record, Report, Signer, User, Verifier, line};
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::seal::TokenKey;
use crate::store::{AuditRow, Role, Transaction};

/// The most bytes that the report of a verification takes: it tells the first faults only.
const LARGEST_REPORT: usize = 8192;
/// The least room for an export: each line fits in it.
const LARGEST_LINE: usize = 8192;

impl Signer for TokenKey {
    fn id(&self) -> [u8; 8] {
        *self.audit_id()
    }

    fn tag(&self, hash: &[u8; 32]) -> [u8; 32] {
        self.audit_tag(hash)
    }

    fn verify(&self, hash: &[u8; 32], tag: &[u8]) -> bool {
        self.is_audit_tag(hash, tag)
    }
}

/// Takes a token key for a signer.
fn signer_of(key: Option<&Arc<TokenKey>>) -> Option<&dyn Signer> {
    match key {
        Some(key) => Some(&**key),
        None => None,
    }
}

/// Names a role for a record.
pub fn user_of(role: Option<Role>) -> User {
    match role {
        None => User::Nobody,
        Some(Role::So) => User::So,
        Some(Role::User) => User::User,
    }
}

/// Names an object for a record.
pub fn name_of(object: &Object) -> KeyName {
    let version = object.attributes().ulong(CKA_SR_VERSION).and_then(|version| u32::try_from(version).ok());
    KeyName { uid: object.uid, version: version.unwrap_or(0) }
}

/// Names the managed key that an object belongs to.
fn managed_of(object: &Object) -> Option<(String, String)> {
    let text = |id| object.attributes().bytes(id).map(|text| String::from_utf8_lossy(text).into_owned());
    Some((text(CKA_SR_OWNER)?, text(CKA_SR_ASSET)?))
}

/// Tells the errors of calls that make no sense, of which nothing is recorded: nothing was tried.
fn is_malformed(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::ArgumentsBad
            | Kind::AttributeTypeInvalid
            | Kind::AttributeValueInvalid
            | Kind::BufferTooSmall
            | Kind::CryptokiNotInitialized
            | Kind::CurveNotSupported
            | Kind::DataLenRange
            | Kind::FunctionNotSupported
            | Kind::KeyHandleInvalid
            | Kind::KeySizeRange
            | Kind::KeyTypeInconsistent
            | Kind::MechanismInvalid
            | Kind::MechanismParamInvalid
            | Kind::ObjectHandleInvalid
            | Kind::OperationActive
            | Kind::OperationNotInitialized
            | Kind::PublicKeyInvalid
            | Kind::SessionHandleInvalid
            | Kind::TemplateIncomplete
            | Kind::TemplateInconsistent
            | Kind::UnwrappingKeyHandleInvalid
            | Kind::UnwrappingKeySizeRange
            | Kind::UnwrappingKeyTypeInconsistent
            | Kind::UserAlreadyLoggedIn
            | Kind::UserAnotherAlreadyLoggedIn
            | Kind::UserTypeInvalid
            | Kind::WrappingKeyHandleInvalid
            | Kind::WrappingKeySizeRange
            | Kind::WrappingKeyTypeInconsistent
    )
}

impl Token {
    /// Records what changes nothing in the store, signed by who is logged in.
    ///
    /// # Errors
    /// In the mode `required`, `FunctionRejected` when no sink takes it.
    pub(super) fn note(&self, event: &Event) -> Result<()> {
        let login = self.login.read().clone();
        self.record(event, login.as_ref())
    }

    /// Records what changes nothing in the store, signed by a login of this very token: one that another process has initialised
    /// again meanwhile has another key.
    ///
    /// # Errors
    /// As [`Self::note`]; `TokenNotRecognized` for the login of another initialisation.
    pub(super) fn record(&self, event: &Event, login: Option<&Login>) -> Result<()> {
        let signer = signer_of(login.map(|login| &login.token_key));
        let check = |transaction: &mut dyn Transaction| match login {
            Some(login) => self.check_same(transaction, login),
            None => Ok(()),
        };
        self.trail.record(&*self.store, &self.serial, event, signer, &check)
    }

    /// Records the use of keys by a session, if uses are recorded, before it happens.
    ///
    /// # Errors
    /// In the mode `required`, `FunctionRejected` when no sink takes it.
    #[inline]
    pub(super) fn note_use(
        &self,
        session: CK_SESSION_HANDLE,
        operation: &'static str,
        mechanism: Option<CK_MECHANISM_TYPE>,
        keys: &[CK_OBJECT_HANDLE],
    ) -> Result<()> {
        match self.trail.records_key_use() {
            false => Ok(()),
            true => self.note(&self.use_of(session, operation, mechanism, keys)),
        }
    }

    #[cold]
    fn use_of(
        &self,
        session: CK_SESSION_HANDLE,
        operation: &'static str,
        mechanism: Option<CK_MECHANISM_TYPE>,
        keys: &[CK_OBJECT_HANDLE],
    ) -> Event {
        let mut event = Event::new(operation, session, user_of(self.role()));
        event.mechanism = mechanism;
        let objects: Vec<_> = keys.iter().filter_map(|key| self.object(*key).ok()).collect();
        event.keys = objects.iter().map(|object| name_of(object)).collect();
        event.managed = objects.first().and_then(|object| managed_of(object));
        event
    }

    /// Records that a login ended. It ends whether or not a sink takes that.
    pub(super) fn note_logout(&self, event: &Event, login: &Login) {
        // What is lost here, the trail has told in the log; a login that cannot end would be worse.
        let _ = self.record(event, Some(login));
    }

    /// Runs an operation, and records it when it fails, unless a record tells of it already, or the store that would take the record
    /// kept the operation waiting for as long as a call may take.
    pub(super) fn recorded<T>(&self, event: &mut Event, work: impl FnOnce(&mut Event) -> Result<T>) -> Result<T> {
        let answer = work(event);
        if let Err(error) = &answer
            && self.trail.is_on()
            && !event.is_told()
            && !error.is_busy()
            && (event.grave || !is_malformed(error.kind()))
        {
            // The operation has failed already; that is what its caller is told.
            let _ = self.note(&event.answering(error.rv()));
        }
        answer
    }
}

impl Session {
    /// Starts an event of this session.
    pub fn event(&self, operation: &'static str) -> Event {
        Event::new(operation, self.handle, user_of(self.token.role()))
    }

    /// Runs an operation that changes something, and records it when it fails; where it goes well, the change is recorded with it.
    pub(super) fn changing<T>(&self, event: Event, work: impl FnOnce(&mut Event) -> Result<T>) -> Result<T> {
        let mut event = event;
        self.token.recorded(&mut event, work)
    }

    /// Runs a use of a key, or the start of one, and records it when it fails.
    #[inline]
    pub(super) fn using<T>(
        &self,
        operation: &'static str,
        mechanism: Option<CK_MECHANISM_TYPE>,
        key: CK_OBJECT_HANDLE,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        work().inspect_err(|error| {
            if self.token.trail.records_key_use() {
                self.note_failed_use(operation, mechanism, key, error);
            }
        })
    }

    #[cold]
    fn note_failed_use(
        &self,
        operation: &'static str,
        mechanism: Option<CK_MECHANISM_TYPE>,
        key: CK_OBJECT_HANDLE,
        error: &Error,
    ) {
        // A record that could not be made is the failure itself.
        if is_malformed(error.kind()) || error.kind() == Kind::FunctionRejected {
            return;
        }
        let event = self.token.use_of(self.handle, operation, mechanism, &[key]);
        let _ = self.token.note(&event.answering(error.rv()));
    }

    /// Records the use of keys, if uses are recorded, before it happens.
    ///
    /// # Errors
    /// In the mode `required`, `FunctionRejected` when no sink takes it.
    #[inline]
    pub(super) fn note_use(
        &self,
        operation: &'static str,
        mechanism: Option<CK_MECHANISM_TYPE>,
        keys: &[CK_OBJECT_HANDLE],
    ) -> Result<()> {
        self.token.note_use(self.handle, operation, mechanism, keys)
    }

    /// Verifies the token's trail. Signatures are checked while somebody is logged in; without, the chain alone is.
    ///
    /// # Errors
    /// `DeviceError` when the store cannot be read.
    pub fn verify_audit(&self, anchor: Option<Anchor>) -> Result<Report> {
        let key: Option<Arc<TokenKey>> = self.token.token_key().ok();
        let end = self.token.store.audit_end(&self.token.serial)?;
        let mut verifier = Verifier::new(&self.token.serial, signer_of(key.as_ref()), anchor, end);
        self.token.store.audit(&self.token.serial, 0, &mut |row| {
            verifier.take(&row);
            Ok(())
        })?;
        Ok(verifier.finish())
    }

    /// Holds a copy that a file sink kept against the trail: lines without their ends, of which `lines` gives one after the other.
    ///
    /// # Errors
    /// `DeviceError` when the store cannot be read; what `lines` gives.
    pub fn verify_audit_copy(&self, lines: impl IntoIterator<Item = Result<String>>) -> Result<CopyReport> {
        let mut verifier = CopyVerifier::new(&*self.token.store, &self.token.serial);
        lines.into_iter().try_for_each(|line| verifier.take(&line?))?;
        Ok(verifier.finish())
    }

    /// Verifies, and writes the report as JSON; a size query verifies nothing.
    ///
    /// # Errors
    /// As [`Self::verify_audit`].
    pub fn audit_report(&self, room: Room) -> Result<Reply> {
        match room {
            Room::Bytes(room) if room >= LARGEST_REPORT => {
                Ok(Reply::Wrapped(self.verify_audit(None)?.json().to_string().into_bytes()))
            }
            _ => Ok(Reply::Needs(LARGEST_REPORT)),
        }
    }

    /// Hands each record after a number to `visit`, as a line of JSON, with its number.
    ///
    /// # Errors
    /// `DeviceError` when the store cannot be read, or a record is damaged; what `visit` answers.
    pub fn export_audit(&self, after: u64, visit: &mut dyn FnMut(u64, &str) -> Result<()>) -> Result<()> {
        self.token.store.audit(&self.token.serial, after, &mut |row| visit(row.sequence, &text_of(&row)?))
    }

    /// Writes as many lines after a number as there is room for, and tells the number of the last one; `after` when there are none.
    ///
    /// # Errors
    /// As [`Self::export_audit`].
    pub fn audit_lines(&self, after: u64, room: Room) -> Result<(Reply, u64)> {
        let Room::Bytes(room) = room else { return Ok((Reply::Needs(LARGEST_LINE), after)) };
        if room < LARGEST_LINE {
            return Ok((Reply::Needs(LARGEST_LINE), after));
        }
        let (mut lines, mut last) = (Vec::new(), after);
        let full = self.export_audit(after, &mut |sequence, line| {
            if lines.len().saturating_add(line.len()) >= room {
                return Err(Kind::BufferTooSmall.into());
            }
            lines.extend_from_slice(line.as_bytes());
            lines.push(b'\n');
            last = sequence;
            Ok(())
        });
        match full {
            Err(error) if error.kind() != Kind::BufferTooSmall => Err(error),
            Err(_) if lines.is_empty() => Err(Error::damaged("a record of the audit trail, which is too long,")),
            _ => Ok((Reply::Wrapped(lines), last)),
        }
    }

    /// Tells the number of the last record; 0 when there is none.
    ///
    /// # Errors
    /// `DeviceError` when the store cannot be read.
    pub fn audit_end(&self) -> Result<u64> {
        Ok(self.token.store.audit_last(&self.token.serial)?.map_or(0, |row| row.sequence))
    }
}

/// Writes a stored record as a line.
fn text_of(row: &AuditRow) -> Result<String> {
    let record = Record::decode(&row.record)
        .ok_or_else(|| Error::damaged(format!("record {} of the audit trail", row.sequence)))?;
    Ok(line(&record, &row.hash, &row.tag))
}
