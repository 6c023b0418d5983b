//! `SR_*`: managed keys with their owner's own password. Texts and passwords are without a zero byte at the end; lengths are in bytes.

use super::arg;
use super::guard::guard_session;
use super::sr_keys::name;
use crate::ck::{CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG, CK_UTF8CHAR};
use crate::error::{Error, Kind, Result};
use crate::keys::ManagedKeys;
use crate::secret::SecureBytes;

/// Unlocks a managed key that has a password, for this session alone: the version with this number, or the active one for 0. Gives the
/// handle of its private or secret key, which then needs no login of its own, until SR_LockKey, C_Logout, C_CloseSession, or for so
/// many seconds (0: no limit). Wrong passwords count, over all processes, and lock the key after `max_attempts` of the configuration.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_UnlockKey(
    session: CK_SESSION_HANDLE,
    owner: *const CK_UTF8CHAR,
    owner_len: CK_ULONG,
    asset: *const CK_UTF8CHAR,
    asset_len: CK_ULONG,
    version: CK_ULONG,
    password: *const CK_UTF8CHAR,
    password_len: CK_ULONG,
    time_to_live: CK_ULONG,
    key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    guard_session("SR_UnlockKey", session, |session| {
        // SAFETY: the caller vouches for the texts; likewise below.
        let name = unsafe { name(owner, owner_len, asset, asset_len) }?;
        // SAFETY: as above.
        let password = unsafe { needed_password(password, password_len) }?;
        // SAFETY: the caller vouches for the pointer.
        let place = unsafe { arg::place(key) }?;
        place.put(ManagedKeys::of(session).unlock(&name, version, &password, time_to_live)?);
        Ok(())
    })
}

/// Locks a key that this session has unlocked: operations with it end, and it is wiped from memory. A key that is not unlocked stays so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_LockKey(session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> CK_RV {
    guard_session("SR_LockKey", session, |session| session.lock(key))
}

/// Gives a managed key another password. Every version that the old one opens is sealed under the new one, all of them or none; versions
/// that a rotation left under another password keep that. No other process and no open handle is disturbed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_ChangeKeyPassword(
    session: CK_SESSION_HANDLE,
    owner: *const CK_UTF8CHAR,
    owner_len: CK_ULONG,
    asset: *const CK_UTF8CHAR,
    asset_len: CK_ULONG,
    old_password: *const CK_UTF8CHAR,
    old_password_len: CK_ULONG,
    new_password: *const CK_UTF8CHAR,
    new_password_len: CK_ULONG,
) -> CK_RV {
    guard_session("SR_ChangeKeyPassword", session, |session| {
        // SAFETY: the caller vouches for the texts; likewise below.
        let name = unsafe { name(owner, owner_len, asset, asset_len) }?;
        // SAFETY: as above.
        let old = unsafe { needed_password(old_password, old_password_len) }?;
        // SAFETY: as above.
        let new = unsafe { needed_password(new_password, new_password_len) }?;
        ManagedKeys::of(session).change_password(&name, &old, &new).map(drop)
    })
}

/// Lets a managed key be tried again that is locked after wrong passwords. The SO must be logged in; the password stays what it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_ResetKeyTries(
    session: CK_SESSION_HANDLE,
    owner: *const CK_UTF8CHAR,
    owner_len: CK_ULONG,
    asset: *const CK_UTF8CHAR,
    asset_len: CK_ULONG,
) -> CK_RV {
    guard_session("SR_ResetKeyTries", session, |session| {
        // SAFETY: the caller vouches for the texts.
        let name = unsafe { name(owner, owner_len, asset, asset_len) }?;
        ManagedKeys::of(session).reset_tries(&name)
    })
}

/// Copies a password in; NULL and the empty one are none.
///
/// # Errors
/// As [`arg::pin`].
///
/// # Safety
/// As [`arg::pin`].
pub(super) unsafe fn given_password(start: *const u8, len: CK_ULONG) -> Result<Option<SecureBytes>> {
    // SAFETY: as the caller vouches.
    Ok(unsafe { arg::pin(start, len) }?.filter(|password| !password.is_empty()))
}

/// Copies a password in that must be there.
unsafe fn needed_password(start: *const u8, len: CK_ULONG) -> Result<SecureBytes> {
    // SAFETY: as the caller vouches.
    let password = unsafe { given_password(start, len) }?;
    password.ok_or_else(|| Error::new(Kind::ArgumentsBad, "a password must be given, and is NULL or empty"))
}
