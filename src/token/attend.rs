//! What looks after a token in the background while its user is logged in. What it does, `keys/` says.
//!
//! The rules are:
//! - a token is taken up by the first login that finds managed keys on it, or by the first use of one after that: without
//!   managed keys nothing is started;
//! - the session of an attendant stands in no table, so that no call of the application sees, counts or closes it. It acts under
//!   the login of the token, as any session does, and can do nothing once that ends.

use std::sync::Arc;

use super::library::Shared;
use super::running::Running;
use super::session::Session;
use super::token::Token;
use crate::ck::*;
use crate::error::{Kind, Result};
use crate::store::Role;

/// Tells an attendant that the user has logged in again.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// What looks after tokens in the background.
pub trait Attendant: Send + Sync {
    /// Takes up a token whose user is logged in. What comes back is called at each login that follows.
    fn attend(&self, session: Session) -> Wake;

    /// Begins nothing new from now on (C_Finalize).
    fn stop(&self);

    /// Waits for the end of what is under way.
    fn wait(&self);

    /// Tells how it stands, as a JSON object (SR_GetStatus).
    fn status(&self) -> String;
}

impl Shared {
    /// Lets the attendant know of a login.
    pub(super) fn logged_in(self: &Arc<Self>, token: &Arc<Token>) {
        match token.attended.get() {
            _ if token.role() != Some(Role::User) => {}
            Some(wake) => wake(),
            // What cannot be read now is looked at when a managed key is used.
            None if self.has_attendant() && token.has_managed_keys().unwrap_or(false) => self.attend(token),
            None => {}
        }
    }

    /// Lets the attendant know that a managed key is used or was made.
    pub(super) fn uses_managed_key(self: &Arc<Self>, token: &Arc<Token>) {
        if token.attended.get().is_none() && self.has_attendant() {
            self.attend(token);
        }
    }

    fn attend(self: &Arc<Self>, token: &Arc<Token>) {
        if let Some(attendant) = self.attendant.get()
            && token.role() == Some(Role::User)
            && !token.store.read_only()
        {
            token.attended.get_or_init(|| attendant.attend(Session::unseen(self, token)));
        }
    }

    fn has_attendant(&self) -> bool {
        self.attendant.get().is_some()
    }
}

impl Session {
    /// Makes a session that stands in no table.
    pub(super) fn unseen(library: &Arc<Shared>, token: &Arc<Token>) -> Self {
        let (token, library) = (token.clone(), library.clone());
        let (operations, unlocked) = (Running::default(), Arc::default());
        Self { handle: CK_INVALID_HANDLE, lane: 0, token, library, read_write: true, operations, unlocked }
    }

    /// Lets what looks after tokens know that this one has a managed key now.
    pub fn made_managed_key(&self) {
        self.library.uses_managed_key(&self.token);
    }

    /// Tells whether the user is logged in to the token.
    pub fn is_user(&self) -> bool {
        self.token.role() == Some(Role::User)
    }

    /// Tells the label of the token.
    ///
    /// # Errors
    /// As [`Token::row`].
    pub fn label(&self) -> Result<String> {
        Ok(self.token.row()?.label)
    }
}

impl Token {
    /// Tells whether there is an active version of a managed key: one look into the index.
    fn has_managed_keys(&self) -> Result<bool> {
        let active = [(CKA_SR_STATE, Value::Ulong(SR_STATE_ACTIVE)), (CKA_PRIVATE, Value::Bool(true))];
        let search = self.search(&active.into_iter().collect(), &self.view());
        let mut found = false;
        let ended = self.store.search(&self.serial, &search, &mut |_| {
            found = true;
            // The first one tells enough.
            Err(Kind::FunctionCanceled.into())
        });
        match found {
            true => Ok(true),
            false => ended.map(|()| false),
        }
    }
}
