//! Where an operation with a backup takes place: in a session of a token, or in a library without one.

use std::sync::Arc;

use super::head::Head;
use crate::audit::{Event, User};
use crate::error::{Error, Result};
use crate::seal::{TokenKey, token_key_id};
use crate::token::{Library, Profile, Session};

/// Where an operation takes place.
#[derive(Clone, Copy)]
pub enum Place<'p> {
    /// No token is open.
    Library(&'p Library),
    /// A session of a token.
    Session(&'p Session),
}

impl Place<'_> {
    /// Gives how the token of a backup is kept here.
    pub(super) fn profile(&self, head: &Head) -> Profile {
        match self {
            Self::Library(library) => library.profile_of(&head.token.label),
            Self::Session(session) => session.profile(),
        }
    }

    /// Starts the audit record of an operation.
    pub(super) fn event(&self, operation: &'static str) -> Event {
        match self {
            Self::Library(_) => Event::new(operation, 0, User::Nobody),
            Self::Session(session) => session.event(operation),
        }
    }

    /// Records what changes nothing, before it is told.
    pub(super) fn note(&self, head: &Head, event: &Event, key: Option<&TokenKey>) -> Result<()> {
        match self {
            Self::Library(library) => library.note(&head.row()?, event, key),
            Self::Session(session) => session.note(event),
        }
    }

    /// Runs work, and records it when it fails.
    pub(super) fn recorded<T>(
        &self,
        head: &Head,
        operation: &'static str,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        work().inspect_err(|error: &Error| {
            // That it failed is what the caller is told, whatever becomes of the record.
            let _ = self.note(head, &self.event(operation).answering(error.rv()), None);
        })
    }

    /// Gives the token key of the session, if it is that of the backup.
    pub(super) fn token_key(&self, head: &Head) -> Result<Option<Arc<TokenKey>>> {
        let Self::Session(session) = self else { return Ok(None) };
        let same = session.serial() == head.serial()?;
        let key = session.token_key().ok().filter(|key| same && token_key_id(key) == head.token.key.0);
        Ok(key)
    }
}
