//! Tokens that open by themselves: under the PIN that the configuration gives, or by the KMS alone.
//!
//! The rules are:
//! - such a token opens with a session, or when its user logs in without a PIN, and stays open until C_Finalize, or until the SO logs in,
//!   who takes the place of a login that nobody made;
//! - a PIN that the token has refused is not tried again, and the last try is left to somebody who logs in, so that an outdated
//!   configuration locks nobody out. Sessions are opened all the same: for the SO, and for a user who has the PIN;
//! - whatever else keeps the token from opening (no PIN to be read, no KMS) is an error of C_OpenSession.

use super::login::{PinTries, machine_id};
use super::policy::PinSource;
use super::session::Session;
use super::token::{Login, Token};
use crate::audit::{Event, User};
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::secret::SecureBytes;
use crate::store::{Role, TokenRow};

/// Why a token does not open by itself that should.
#[derive(Default)]
pub struct Closed {
    /// The PIN that was refused, and by which envelope.
    refused: Option<Refused>,
    /// What was logged of it last.
    told: String,
}

struct Refused {
    envelope: Option<Vec<u8>>,
    pin: SecureBytes,
    text: String,
}

impl Session {
    /// Opens a token that opens by itself (C_OpenSession), and tells whether it did. One that refuses the PIN of the configuration stays
    /// closed, which is logged once.
    ///
    /// # Errors
    /// What reading the PIN answers; the KMS's.
    pub(super) fn open_itself(&self) -> Result<bool> {
        let mut event = Event::new("C_OpenSession", self.handle, User::User);
        self.token.recorded(&mut event, |event| match self.token.open_itself(event) {
            Err(error) if matches!(error.kind(), Kind::PinIncorrect | Kind::PinLocked) => {
                self.token.tell_closed(&error);
                Ok(false)
            }
            other => other,
        })
    }
}

impl Token {
    /// Opens a token that opens by itself, for the user, and tells whether it did; it does nothing for another, or one that is open.
    ///
    /// # Errors
    /// As [`Self::log_in`], and what reading the PIN answers.
    pub(super) fn open_itself(&self, event: &Event) -> Result<bool> {
        let source = self.profile().pin_source;
        if !source.opens_itself() || self.role().is_some() {
            return Ok(false);
        }
        let _one_at_a_time = self.opening.lock();
        if self.role().is_some() {
            return Ok(false);
        }
        let row = self.row()?;
        if row.user_envelope.is_none() {
            // Only the SO can log in until it has set the PIN.
            return Ok(false);
        }
        let opened = match source {
            PinSource::Prompt => return Ok(false),
            PinSource::Given(read) => read().and_then(|pin| self.log_in_under_given(&row, &pin, event)),
            PinSource::Machine => self.log_in_as_machine(&row, event),
        };
        match opened {
            Err(error) if matches!(error.kind(), Kind::UserAlreadyLoggedIn | Kind::UserAnotherAlreadyLoggedIn) => {
                Ok(false)
            }
            other => other
                .map(|()| true)
                .map_err(|error| error.context(format!("the token `{}` does not open by itself", row.label))),
        }
    }

    /// Opens the user's envelope under the PIN of the configuration, unless it has refused that before.
    fn log_in_under_given(&self, row: &TokenRow, pin: &SecureBytes, event: &Event) -> Result<()> {
        if let Some(refused) = &self.closed.lock().refused
            && refused.envelope == row.user_envelope
            && refused.pin == *pin
        {
            return Err(Error::new(Kind::PinIncorrect, refused.text.clone()));
        }
        let tries = PinTries { spares_last: true, ..self.pin_tries(Role::User) };
        let opened = self.try_pin_within(row, tries, pin, event).and_then(|(token_key, outer)| {
            self.upgrade(row, Role::User, pin, &token_key, &outer);
            self.enter_recorded(
                event,
                Login { by_itself: true, ..Login::new(Role::User, token_key, outer, row.created) },
            )
        });
        opened.inspect_err(|error| {
            if error.kind() == Kind::PinIncorrect {
                let (envelope, text) = (row.user_envelope.clone(), error.message());
                self.closed.lock().refused = Some(Refused { envelope, pin: pin.clone(), text });
            }
        })
    }

    /// Opens the machine's envelope: one KMS call, and no PIN.
    fn log_in_as_machine(&self, row: &TokenRow, event: &Event) -> Result<()> {
        let (sealer, id) = (self.profile().sealer, machine_id(row));
        let envelope = row.user_envelope.as_ref().ok_or_else(|| Error::from(Kind::UserPinNotInitialized))?;
        let outer = sealer.open_outer(&row.serial, envelope)?;
        let token_key = sealer.open_inner(&id, envelope, &outer)?.open(&SecureBytes::zeroed(0))?;
        self.enter_recorded(event, Login { by_itself: true, ..Login::new(Role::User, token_key, outer, row.created) })
    }

    /// Tells whether somebody must log in to use the token, as its row stands.
    pub(super) fn needs_login(&self, row: &TokenRow) -> bool {
        match self.profile().pin_source {
            PinSource::Prompt => true,
            _ if row.user_envelope.is_none() => true,
            PinSource::Machine => false,
            PinSource::Given(_) => self.role() != Some(Role::User) && self.stays_closed(row),
        }
    }

    /// Tells whether the PIN of the configuration was refused, or is not tried.
    fn stays_closed(&self, row: &TokenRow) -> bool {
        let tries = PinTries { spares_last: true, ..self.pin_tries(Role::User) };
        let refused = |refused: &Refused| refused.envelope == row.user_envelope;
        tries.check(row).is_err() || self.closed.lock().refused.as_ref().is_some_and(refused)
    }

    /// Logs why the token stays closed, once.
    fn tell_closed(&self, error: &Error) {
        let (text, mut closed) = (error.message(), self.closed.lock());
        if closed.told != text {
            log::warn!("{text}. Sessions are opened without a login: bring `pin_source` up to date, or log in");
            closed.told = text;
        }
    }
}
