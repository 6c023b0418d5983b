//! Where an operation with a backup takes place: in a session of a token, or in a library without one.

use std::sync::Arc;

use super::document::Head;
use crate::error::Result;
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

    /// Gives the token key of the session, if it is that of the backup.
    pub(super) fn token_key(&self, head: &Head) -> Result<Option<Arc<TokenKey>>> {
        let Self::Session(session) = self else { return Ok(None) };
        let same = session.serial() == head.serial()?;
        let key = session.token_key().ok().filter(|key| same && token_key_id(key) == head.token.key.0);
        Ok(key)
    }
}
