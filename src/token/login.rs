//! PINs: login, lock-out, and setting and changing them (PKCS #11 v3.2, 5.5.7–5.5.9, 5.6.8–5.6.10).
//!
//! The rules are:
//! - a PIN is right when it opens the envelope; there is nothing else to compare it with;
//! - wrong tries are counted in the store, so that all processes share them and a restart does not forget them; each counts
//!   under the write lock;
//! - a wrong try takes a minimum of time, so that its duration tells nothing;
//! - an envelope is replaced in the same transaction that checks that nobody else has replaced it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::master::warn_of_forgery;
use super::policy::{PinSource, Policy};
use super::token::{Login, Token, gone};
use super::trail::user_of;
use crate::audit::{Event, Line, Signers};
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::seal::{self, EnvelopeId, Outer, TokenKey};
use crate::secret::SecureBytes;
use crate::store::{Role, TokenRow, Transaction};

/// What a wrong try takes at the least.
pub(super) const WRONG_TRY: Duration = Duration::from_millis(200);

/// Tells the seconds since 1970.
pub fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn now_milliseconds() -> u64 {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
    u64::try_from(millis).unwrap_or(u64::MAX)
}

/// Names the envelope of a role for the seal.
pub(super) fn envelope_id(row: &TokenRow, role: Role) -> EnvelopeId<'_> {
    let role = match role {
        Role::So => seal::Role::So,
        Role::User => seal::Role::User,
    };
    EnvelopeId { token: row.serial, label: &row.label, role }
}

/// Names the envelope of a token that opens without a PIN; it stands where the user's would.
pub(super) fn machine_id(row: &TokenRow) -> EnvelopeId<'_> {
    EnvelopeId { role: seal::Role::Machine, ..envelope_id(row, Role::User) }
}

/// Tells the wrong tries of a role.
fn failures(row: &mut TokenRow, role: Role) -> &mut u32 {
    match role {
        Role::So => &mut row.so_failures,
        Role::User => &mut row.user_failures,
    }
}

/// Tells the PIN flags of a token (PKCS #11 v3.2, 3.2, CK_TOKEN_INFO flags).
pub fn pin_flags(row: &TokenRow, policy: &Policy) -> CK_FLAGS {
    let flags = |failures: u32, [low, last, locked]: [CK_FLAGS; 3]| match policy.password.max_attempts {
        0 => 0,
        max if failures >= max => locked,
        max if failures + 1 == max => low | last,
        _ if failures > 0 => low,
        _ => 0,
    };
    flags(row.user_failures, [CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED])
        | flags(row.so_failures, [CKF_SO_PIN_COUNT_LOW, CKF_SO_PIN_FINAL_TRY, CKF_SO_PIN_LOCKED])
}

/// The tries of a role's PIN.
#[derive(Clone, Copy)]
pub(super) struct PinTries {
    pub(super) role: Role,
    /// How many wrong ones lock it; 0 never does.
    pub(super) max: u32,
    /// Whether the last one is left to others, once one has failed.
    pub(super) spares_last: bool,
    /// Wrong ones that the store could not count.
    pub(super) uncounted: u32,
}

impl PinTries {
    /// Refuses a try that there is not.
    ///
    /// # Errors
    /// `PinLocked`.
    pub(super) fn check(self, row: &TokenRow) -> Result<()> {
        let (max, failed) = (self.max, failures(&mut row.clone(), self.role).saturating_add(self.uncounted));
        let text = match () {
            () if max == 0 => return Ok(()),
            () if failed >= max => {
                format!("the PIN is locked after {max} wrong tries; {}", unlock_hint(self.role))
            }
            () if self.spares_last && failed > 0 && failed + 1 >= max => {
                "one try of the PIN is left, which is for somebody who logs in".to_owned()
            }
            () => return Ok(()),
        };
        Err(Error::new(Kind::PinLocked, text))
    }
}

impl Token {
    /// Logs a role in.
    ///
    /// # Errors
    /// `UserAlreadyLoggedIn`, `UserAnotherAlreadyLoggedIn`, `UserPinNotInitialized`, `PinIncorrect`, `PinLocked`; `DeviceError`
    /// when the envelope is damaged or the KMS does not open it.
    pub(super) fn log_in(&self, role: Role, pin: &SecureBytes, event: &Event) -> Result<()> {
        self.check_may_log_in(role, self.login.read().as_ref())?;
        let row = self.row()?;
        let (token_key, outer) = self.try_pin(&row, role, pin, event)?;
        self.upgrade(&row, role, pin, &token_key, &outer);
        self.enter_recorded(event, Login::new(role, token_key, outer, row.created))
    }

    /// Records a login and enters it, in this order: one that is refused for want of a record has not happened.
    pub(super) fn enter_recorded(&self, event: &Event, login: Login) -> Result<()> {
        self.record(event, Some(&login))?;
        self.enter_login(login).inspect_err(|_| event.untell())
    }

    /// Tells who is logged in.
    pub fn role(&self) -> Option<Role> {
        self.login.read().as_ref().map(|login| login.role)
    }

    /// Tries a PIN on a role's envelope, and counts a wrong try.
    ///
    /// While no try has failed, the store is only written to when this one does. After that, each try is judged under the write
    /// lock of the store, so that tries at the same moment, in this process or others, count one after the other.
    ///
    /// # Errors
    /// As [`Self::log_in`].
    pub(super) fn try_pin(
        &self,
        row: &TokenRow,
        role: Role,
        pin: &SecureBytes,
        event: &Event,
    ) -> Result<(TokenKey, Outer)> {
        self.try_pin_within(row, self.pin_tries(role), pin, event)
    }

    /// Tells how many tries a role's PIN has.
    pub(super) fn pin_tries(&self, role: Role) -> PinTries {
        let max = self.profile.read().policy.password.max_attempts;
        PinTries { role, max, spares_last: false, uncounted: 0 }
    }

    fn uncounted(&self, role: Role) -> &AtomicU32 {
        let [so, user] = &self.uncounted;
        match role {
            Role::So => so,
            Role::User => user,
        }
    }

    /// Tries a PIN as [`Self::try_pin`] does, within bounds of its own.
    pub(super) fn try_pin_within(
        &self,
        row: &TokenRow,
        tries: PinTries,
        pin: &SecureBytes,
        event: &Event,
    ) -> Result<(TokenKey, Outer)> {
        let _one_at_a_time = self.pin_try.lock();
        let tries = PinTries { uncounted: self.uncounted(tries.role).load(Ordering::Acquire), ..tries };
        let (start, role, profile) = (Instant::now(), tries.role, self.profile());
        if role == Role::User && matches!(profile.pin_source, PinSource::Machine) {
            let text = "the token opens without a PIN (pin_source = \"kms\"): the user has none to give or to change";
            return Err(Error::new(Kind::UserPinNotInitialized, text));
        }
        let envelope = match role {
            Role::So => Some(&row.so_envelope),
            Role::User => row.user_envelope.as_ref(),
        };
        let envelope = envelope.ok_or_else(|| Error::from(Kind::UserPinNotInitialized))?;
        tries.check(row)?;
        // The KMS comes first: no lock of the store is held across it.
        let outer = profile.sealer.open_outer(&row.serial, envelope)?;
        let inner = profile.sealer.open_inner(&envelope_id(row, role), envelope, &outer)?;
        let tried = match self.has_failures(role)? && !self.store.read_only() {
            false => match inner.open(pin) {
                Err(error) if error.kind() == Kind::PinIncorrect => Err(self.count_failure(tries, event)),
                other => other,
            },
            true => self.judge(tries, event, || inner.open(pin)),
        };
        if tried.as_ref().is_err_and(|error| error.kind() == Kind::PinIncorrect) {
            std::thread::sleep(WRONG_TRY.saturating_sub(start.elapsed()));
        }
        let token_key = tried?;
        self.uncounted(role).store(0, Ordering::Release);
        Ok((token_key, outer))
    }

    /// Tells whether a try has failed since the last one that did not.
    fn has_failures(&self, role: Role) -> Result<bool> {
        Ok(*failures(&mut self.row()?, role) > 0)
    }

    /// Judges a try and counts it, in one transaction that also takes the record of a wrong one.
    fn judge(&self, tries: PinTries, event: &Event, open: impl Fn() -> Result<TokenKey>) -> Result<TokenKey> {
        let PinTries { role, max, .. } = tries;
        let mut judged = Err(Kind::TokenNotRecognized.into());
        let mut lines = [None, None];
        self.store.write(&mut |transaction| {
            let Some(mut row) = transaction.token(&self.serial)? else { return Ok(()) };
            tries.check(&row)?;
            judged = open();
            let counter = failures(&mut row, role);
            match &judged {
                Ok(_) => *counter = 0,
                Err(error) if error.kind() == Kind::PinIncorrect => {
                    *counter = counter.saturating_add(1);
                    judged = Err(wrong_pin(role, max, *counter));
                    row.last_failure = now_milliseconds();
                }
                Err(_) => return Ok(()),
            }
            row.revision += 1;
            transaction.update_token(&row)?;
            if let Err(error) = &judged {
                let locked = max > 0 && *failures(&mut row, role) >= max;
                lines = self.append_wrong_try(transaction, event, error, locked)?;
            }
            Ok(())
        })?;
        lines.into_iter().for_each(|line| self.trail.copy(line));
        judged
    }

    /// Adds the record of a wrong try, and that of the lock-out when it was the last one.
    pub(super) fn append_wrong_try(
        &self,
        transaction: &mut dyn Transaction,
        event: &Event,
        error: &Error,
        locked: bool,
    ) -> Result<[Option<Line>; 2]> {
        let wrong = self.trail.append(transaction, &self.serial, &event.answering(error.rv()), None)?;
        if wrong.is_some() {
            event.tell();
        }
        let mut lock_out = event.answering(Kind::PinLocked.rv());
        lock_out.operation = "lock-out";
        Ok([wrong, if locked { self.trail.append(transaction, &self.serial, &lock_out, None)? } else { None }])
    }

    /// Counts a wrong try and makes the error that tells how many are left.
    fn count_failure(&self, tries: PinTries, event: &Event) -> Error {
        if self.store.read_only() {
            return Kind::PinIncorrect.into();
        }
        let wrong = || Err(Kind::PinIncorrect.into());
        match self.judge(tries, event, wrong) {
            Err(error) if matches!(error.kind(), Kind::PinIncorrect | Kind::PinLocked) => error,
            Err(error) => {
                self.uncounted(tries.role).fetch_add(1, Ordering::AcqRel);
                Error::new(Kind::PinIncorrect, "the PIN is wrong, and the store could not count the try")
                    .caused_by(error)
            }
            Ok(_) => Error::internal("a wrong PIN was judged to be right"),
        }
    }

    /// Seals the envelope again when the configured Argon2id parameters have changed. It is no reason to refuse a login.
    pub(super) fn upgrade(&self, row: &TokenRow, role: Role, pin: &SecureBytes, token_key: &TokenKey, outer: &Outer) {
        let envelope = match role {
            Role::So => &row.so_envelope,
            Role::User => row.user_envelope.as_ref().unwrap_or(&row.so_envelope),
        };
        let wanted = self.profile().sealer.needs_upgrade(envelope).unwrap_or(false) && !self.store.read_only();
        let event = Event::new("upgrade-argon2", 0, user_of(Some(role)));
        if wanted && let Err(error) = self.seal_for(row, role, pin, (token_key, outer), &event, |_| ()) {
            log::warn!("the PIN's Argon2id parameters could not be upgraded: {error}");
        }
    }

    /// Seals the token key for a role under a PIN and stores the envelope, with another change of the row.
    fn seal_for(
        &self,
        row: &TokenRow,
        role: Role,
        pin: &SecureBytes,
        (token_key, outer): (&TokenKey, &Outer),
        event: &Event,
        change: impl Fn(&mut TokenRow),
    ) -> Result<()> {
        let outer = outer.as_in(&row.so_envelope)?;
        let envelope = self.profile().sealer.seal_token_key(&envelope_id(row, role), pin, token_key, &outer)?;
        self.write_recorded(event, Some(Signers::of(token_key)), &mut |transaction| {
            let now = transaction.token(&self.serial)?;
            let Some(mut now) =
                now.filter(|now| now.so_envelope == row.so_envelope && now.user_envelope == row.user_envelope)
            else {
                return Err(Error::new(
                    Kind::FunctionFailed,
                    "another process changed the token's PINs at the same time; try again",
                ));
            };
            match role {
                Role::So => now.so_envelope = envelope.clone(),
                Role::User => now.user_envelope = Some(envelope.clone()),
            }
            change(&mut now);
            now.revision += 1;
            transaction.update_token(&now)
        })
    }

    /// Sets the user PIN as the SO (C_InitPIN); a locked user PIN is unlocked by it.
    ///
    /// # Errors
    /// `UserNotLoggedIn` unless the SO is; `PinLenRange`, `PinInvalid` by the password rules.
    pub(super) fn init_pin(&self, pin: &SecureBytes, event: &Event) -> Result<()> {
        let login = self.login.read().clone().filter(|login| login.role == Role::So);
        let login = login
            .ok_or_else(|| Error::new(Kind::UserNotLoggedIn, "only the SO sets the user PIN: log in as SO first"))?;
        if matches!(self.profile().pin_source, PinSource::Machine) {
            let text = "the token opens without a PIN (pin_source = \"kms\"); initialise it under another pin_source to have one";
            return Err(Error::new(Kind::FunctionRejected, text));
        }
        self.profile().policy.password.check(pin)?;
        let row = self.row()?;
        if row.created != login.created {
            return Err(gone());
        }
        self.seal_for(&row, Role::User, pin, (&login.token_key, &login.outer), event, |row| row.user_failures = 0)?;
        self.uncounted(Role::User).store(0, Ordering::Release);
        Ok(())
    }

    /// Changes the PIN of a role (C_SetPIN).
    ///
    /// # Errors
    /// `PinIncorrect`, `PinLocked` for the old PIN; `PinLenRange`, `PinInvalid` for the new one.
    pub(super) fn set_pin(&self, role: Role, old: &SecureBytes, new: &SecureBytes, event: &Event) -> Result<()> {
        let row = self.row()?;
        let (token_key, outer) = self.try_pin(&row, role, old, event)?;
        self.profile().policy.password.check(new)?;
        self.seal_for(&row, role, new, (&token_key, &outer), event, |_| ())
    }
}

/// Makes the row of a token that is initialised now, and the token key that is its own.
///
/// # Errors
/// `PinLenRange`, `PinInvalid` for the SO PIN; `DeviceError` when the KMS does not wrap the token key.
pub fn new_row(base: TokenRow, profile: &super::policy::Profile, so_pin: &SecureBytes) -> Result<(TokenRow, TokenKey)> {
    profile.policy.password.check(so_pin)?;
    let (token_key, outer) = (TokenKey::generate()?, profile.sealer.make_outer(&base.serial)?);
    let so_envelope = profile.sealer.seal_token_key(&envelope_id(&base, Role::So), so_pin, &token_key, &outer)?;
    let user_envelope = match profile.pin_source {
        PinSource::Machine => {
            warn_of_forgery(&profile.sealer, &base.label);
            Some(profile.sealer.seal_token_key(&machine_id(&base), &SecureBytes::zeroed(0), &token_key, &outer)?)
        }
        PinSource::Prompt | PinSource::Given(_) => None,
    };
    // A later initialisation always has a later time: by it, other processes notice.
    let created = now_seconds().max(base.created + 1);
    let row =
        TokenRow { so_envelope, user_envelope, so_failures: 0, user_failures: 0, last_failure: 0, created, ..base };
    Ok((row, token_key))
}

fn wrong_pin(role: Role, max: u32, count: u32) -> Error {
    match max.saturating_sub(count) {
        _ if max == 0 => Kind::PinIncorrect.into(),
        0 => Error::new(Kind::PinIncorrect, format!("the PIN is wrong, and is now locked; {}", unlock_hint(role))),
        left => Error::new(Kind::PinIncorrect, format!("the PIN is wrong; {left} tries are left before it is locked")),
    }
}

fn unlock_hint(role: Role) -> &'static str {
    match role {
        Role::User => "the SO sets a new one with C_InitPIN (pkcs11-tool --init-pin)",
        Role::So => "nobody can unlock the SO PIN; the user PIN still works",
    }
}
