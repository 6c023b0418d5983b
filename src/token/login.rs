//! PINs: login, lock-out, and setting and changing them (PKCS #11 v3.2, 5.5.7–5.5.9, 5.6.8–5.6.10).
//!
//! The rules are:
//! - a PIN is right when it opens the envelope; there is nothing else to compare it with;
//! - wrong tries are counted in the store, so that all processes share them and a restart does not forget them; each counts
//!   under the write lock;
//! - a wrong try takes a minimum of time, so that its duration tells nothing;
//! - an envelope is replaced in the same transaction that checks that nobody else has replaced it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::policy::Policy;
use super::token::{Login, Token};
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::seal::{self, EnvelopeId, TokenKey};
use crate::secret::SecureBytes;
use crate::store::{Role, TokenRow};

/// What a wrong try takes at the least.
const WRONG_TRY: Duration = Duration::from_millis(200);

/// Tells the seconds since 1970.
pub fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn now_milliseconds() -> u64 {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
    u64::try_from(millis).unwrap_or(u64::MAX)
}

/// Names the envelope of a role for the seal.
fn envelope_id(row: &TokenRow, role: Role) -> EnvelopeId<'_> {
    let role = match role {
        Role::So => seal::Role::So,
        Role::User => seal::Role::User,
    };
    EnvelopeId { token: row.serial, label: &row.label, role }
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

impl Token {
    /// Logs a role in.
    ///
    /// # Errors
    /// `UserAlreadyLoggedIn`, `UserAnotherAlreadyLoggedIn`, `UserPinNotInitialized`, `PinIncorrect`, `PinLocked`; `DeviceError`
    /// when the envelope is damaged or the KMS does not open it.
    pub fn log_in(&self, role: Role, pin: &SecureBytes) -> Result<()> {
        self.check_not_logged_in(role)?;
        let row = self.row()?;
        let token_key = self.try_pin(&row, role, pin)?;
        self.upgrade(&row, role, pin, &token_key);
        // Another thread may have been faster; the standard's codes hold all the same.
        self.check_not_logged_in(role)?;
        self.set_login(Some(Login { role, token_key: Arc::new(token_key), created: row.created }));
        Ok(())
    }

    fn check_not_logged_in(&self, role: Role) -> Result<()> {
        match self.login.read().as_ref().map(|login| login.role) {
            None => Ok(()),
            Some(found) if found == role => Err(Kind::UserAlreadyLoggedIn.into()),
            Some(_) => Err(Kind::UserAnotherAlreadyLoggedIn.into()),
        }
    }

    /// Tells who is logged in.
    pub fn role(&self) -> Option<Role> {
        self.login.read().as_ref().map(|login| login.role)
    }

    /// Tries a PIN on a role's envelope, and counts a wrong try.
    ///
    /// # Errors
    /// As [`Self::log_in`].
    pub(super) fn try_pin(&self, row: &TokenRow, role: Role, pin: &SecureBytes) -> Result<TokenKey> {
        let max = self.profile().policy.password.max_attempts;
        check_not_locked(row, role, max)?;
        let envelope = match role {
            Role::So => Some(&row.so_envelope),
            Role::User => row.user_envelope.as_ref(),
        };
        let envelope = envelope.ok_or_else(|| Error::from(Kind::UserPinNotInitialized))?;
        let start = Instant::now();
        match self.profile().sealer.open_token_key(&envelope_id(row, role), pin, envelope) {
            Ok(token_key) => {
                self.forget_failures(row, role)?;
                Ok(token_key)
            }
            Err(error) if error.kind() == Kind::PinIncorrect => {
                let counted = self.count_failure(role, max);
                std::thread::sleep(WRONG_TRY.saturating_sub(start.elapsed()));
                Err(counted?)
            }
            Err(error) => Err(error),
        }
    }

    /// Counts a wrong try and makes the error that tells how many are left.
    fn count_failure(&self, role: Role, max: u32) -> Result<Error> {
        if self.store.read_only() {
            return Ok(Kind::PinIncorrect.into());
        }
        let mut count = 0;
        self.store.write(&mut |transaction| {
            let Some(mut row) = transaction.token(&self.serial)? else { return Ok(()) };
            check_not_locked(&row, role, max)?;
            let counter = failures(&mut row, role);
            *counter = counter.saturating_add(1);
            count = *counter;
            row.last_failure = now_milliseconds();
            row.revision += 1;
            transaction.update_token(&row)
        })?;
        let left = max.saturating_sub(count);
        Ok(match max {
            0 => Kind::PinIncorrect.into(),
            _ if left == 0 => {
                Error::new(Kind::PinIncorrect, format!("the PIN is wrong, and is now locked; {}", unlock_hint(role)))
            }
            _ => Error::new(Kind::PinIncorrect, format!("the PIN is wrong; {left} tries are left before it is locked")),
        })
    }

    fn forget_failures(&self, row: &TokenRow, role: Role) -> Result<()> {
        if *failures(&mut row.clone(), role) == 0 || self.store.read_only() {
            return Ok(());
        }
        self.store.write(&mut |transaction| {
            let Some(mut row) = transaction.token(&self.serial)? else { return Ok(()) };
            *failures(&mut row, role) = 0;
            row.revision += 1;
            transaction.update_token(&row)
        })
    }

    /// Seals the envelope again when the configured Argon2id parameters have changed. It is no reason to refuse a login.
    fn upgrade(&self, row: &TokenRow, role: Role, pin: &SecureBytes, token_key: &TokenKey) {
        let envelope = match role {
            Role::So => &row.so_envelope,
            Role::User => row.user_envelope.as_ref().unwrap_or(&row.so_envelope),
        };
        let wanted = self.profile().sealer.needs_upgrade(envelope).unwrap_or(false) && !self.store.read_only();
        if wanted && let Err(error) = self.seal_for(row, role, pin, token_key, |_| ()) {
            log::warn!("the PIN's Argon2id parameters could not be upgraded: {error}");
        }
    }

    /// Seals the token key for a role under a PIN and stores the envelope, with another change of the row.
    fn seal_for(
        &self,
        row: &TokenRow,
        role: Role,
        pin: &SecureBytes,
        token_key: &TokenKey,
        change: impl Fn(&mut TokenRow),
    ) -> Result<()> {
        let envelope = self.profile().sealer.seal_token_key(&envelope_id(row, role), pin, token_key)?;
        self.store.write(&mut |transaction| {
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
    pub fn init_pin(&self, pin: &SecureBytes) -> Result<()> {
        let token_key = match &*self.login.read() {
            Some(login) if login.role == Role::So => login.token_key.clone(),
            _ => return Err(Error::new(Kind::UserNotLoggedIn, "only the SO sets the user PIN: log in as SO first")),
        };
        self.profile().policy.password.check(pin)?;
        self.seal_for(&self.row()?, Role::User, pin, &token_key, |row| row.user_failures = 0)
    }

    /// Changes the PIN of a role (C_SetPIN).
    ///
    /// # Errors
    /// `PinIncorrect`, `PinLocked` for the old PIN; `PinLenRange`, `PinInvalid` for the new one.
    pub fn set_pin(&self, role: Role, old: &SecureBytes, new: &SecureBytes) -> Result<()> {
        let row = self.row()?;
        let token_key = self.try_pin(&row, role, old)?;
        self.profile().policy.password.check(new)?;
        self.seal_for(&row, role, new, &token_key, |_| ())
    }
}

/// Makes the row of a token that is initialised now, with a token key of its own.
///
/// # Errors
/// `PinLenRange`, `PinInvalid` for the SO PIN; `DeviceError` when the KMS does not wrap the token key.
pub fn new_row(base: TokenRow, profile: &super::policy::Profile, so_pin: &SecureBytes) -> Result<TokenRow> {
    profile.policy.password.check(so_pin)?;
    let token_key = TokenKey::generate()?;
    let so_envelope = profile.sealer.seal_token_key(&envelope_id(&base, Role::So), so_pin, &token_key)?;
    // A later initialisation always has a later time: by it, other processes notice.
    let created = now_seconds().max(base.created + 1);
    Ok(TokenRow {
        so_envelope,
        user_envelope: None,
        so_failures: 0,
        user_failures: 0,
        last_failure: 0,
        created,
        ..base
    })
}

fn check_not_locked(row: &TokenRow, role: Role, max: u32) -> Result<()> {
    match *failures(&mut row.clone(), role) >= max && max > 0 {
        true => Err(Error::new(
            Kind::PinLocked,
            format!("the PIN is locked after {max} wrong tries; {}", unlock_hint(role)),
        )),
        false => Ok(()),
    }
}

fn unlock_hint(role: Role) -> &'static str {
    match role {
        Role::User => "the SO sets a new one with C_InitPIN (pkcs11-tool --init-pin)",
        Role::So => "nobody can unlock the SO PIN; the user PIN still works",
    }
}
