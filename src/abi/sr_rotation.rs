//! `SR_*`: rotation of managed keys. Texts are UTF-8 without a zero byte at the end; the user must be logged in.

use super::arg;
use super::guard::guard_session;
use super::sr_keys::name;
use super::sr_password::given_password;
use crate::ck::{CK_BBOOL, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG, CK_UTF8CHAR};
use crate::error::{Error, Result};
use crate::keys::{ManagedKeys, Passwords};
use crate::token::Rotation;

/// Makes a new version of a managed key and gives the handle of its private or secret key. The old version verifies and decrypts for
/// ever. `expected` is the version that is to be replaced: another latest version is CKR_ACTION_PROHIBITED, so that of several
/// callers one rotates; 0 is whichever is the latest. A key with a password needs that as the old one; the new version is under the new
/// one, or under the same when that is NULL and 0, and older versions stay under the passwords that they had. A key without a password
/// takes no old one, and gets one with a new one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_RotateKey(
    session: CK_SESSION_HANDLE,
    owner: *const CK_UTF8CHAR,
    owner_len: CK_ULONG,
    asset: *const CK_UTF8CHAR,
    asset_len: CK_ULONG,
    old_password: *const CK_UTF8CHAR,
    old_password_len: CK_ULONG,
    new_password: *const CK_UTF8CHAR,
    new_password_len: CK_ULONG,
    expected: CK_ULONG,
    key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    guard_session("SR_RotateKey", session, |session| {
        // SAFETY: the caller vouches for the texts.
        let name = unsafe { name(owner, owner_len, asset, asset_len) }?;
        // SAFETY: the caller vouches for the passwords; likewise below.
        let old = unsafe { given_password(old_password, old_password_len) }?;
        // SAFETY: as above.
        let new = unsafe { given_password(new_password, new_password_len) }?;
        // SAFETY: the caller vouches for the pointer.
        let place = unsafe { arg::place(key) }?;
        let passwords = Passwords { old: old.as_ref(), new: new.as_ref() };
        place.put(ManagedKeys::of(session).rotate_with_passwords(&name, expected, passwords)?.version.handle);
        Ok(())
    })
}

/// Rotates the managed keys of the session's token that are due and whose rules allow it, at most so many; 0 is all. Tells how many
/// it rotated, how many are due still (those with a password of their own among them), and how many could not be rotated; the log names
/// those. Any number of processes may do this at once: each key is rotated once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_RotateDue(
    session: CK_SESSION_HANDLE,
    at_most: CK_ULONG,
    rotated: *mut CK_ULONG,
    left: *mut CK_ULONG,
    failed: *mut CK_ULONG,
) -> CK_RV {
    guard_session("SR_RotateDue", session, |session| {
        // SAFETY: the caller vouches for the pointers; likewise below.
        let counts = unsafe { arg::places(rotated, left) }?;
        // SAFETY: as above.
        let failures = unsafe { arg::place(failed) }?;
        let at_most = if at_most == 0 { usize::MAX } else { arg::length(at_most).unwrap_or(usize::MAX) };
        let report = ManagedKeys::of(session).rotate_due(at_most)?;
        counts.put((arg::ulong(report.rotated.len()), arg::ulong(report.left.len())));
        failures.put(arg::ulong(report.failed.len()));
        Ok(())
    })
}

/// Tells the rules by which a managed key is rotated as a JSON object, and under `set_by` where each comes from: the key, its asset, the
/// token, the configuration, or the default. With an empty owner and asset, those of keys of the token that have none of their own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_GetRotationPolicy(
    session: CK_SESSION_HANDLE,
    owner: *const CK_UTF8CHAR,
    owner_len: CK_ULONG,
    asset: *const CK_UTF8CHAR,
    asset_len: CK_ULONG,
    json: *mut CK_UTF8CHAR,
    json_len: *mut CK_ULONG,
) -> CK_RV {
    guard_session("SR_GetRotationPolicy", session, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(json, json_len) }?;
        if owner_len == 0 && asset_len == 0 {
            return out.text(&ManagedKeys::of(session).describe_policy(None)?);
        }
        // SAFETY: the caller vouches for the texts.
        let name = unsafe { name(owner, owner_len, asset, asset_len) }?;
        out.text(&ManagedKeys::of(session).describe_policy(Some(&name))?)
    })
}

/// Gives a managed key rules of its own: after how many days it is due, after how many its active version makes nothing new, after how
/// many signatures, ciphertexts and wrapped keys it does so too (0 is never, for all three), and whether it is rotated by itself when it
/// is due. Rules that contradict each other are CKR_ARGUMENTS_BAD.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_SetRotationPolicy(
    session: CK_SESSION_HANDLE,
    owner: *const CK_UTF8CHAR,
    owner_len: CK_ULONG,
    asset: *const CK_UTF8CHAR,
    asset_len: CK_ULONG,
    rotation_interval_days: CK_ULONG,
    max_key_age_days: CK_ULONG,
    max_key_uses: CK_ULONG,
    auto_rotate: CK_BBOOL,
) -> CK_RV {
    guard_session("SR_SetRotationPolicy", session, |session| {
        // SAFETY: the caller vouches for the texts.
        let name = unsafe { name(owner, owner_len, asset, asset_len) }?;
        let (interval_days, max_age_days, max_uses) = (rotation_interval_days, max_key_age_days, max_key_uses);
        let policy = Rotation { interval_days, max_age_days, max_uses, auto_rotate: flag(auto_rotate)? };
        ManagedKeys::of(session).set_policy(&name, policy)
    })
}

/// Reads a `CK_BBOOL`.
fn flag(value: CK_BBOOL) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::arguments_bad("auto_rotate must be CK_FALSE (0) or CK_TRUE (1)")),
    }
}
