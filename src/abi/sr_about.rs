//! `SR_*`: about the library itself. Texts are UTF-8 without a zero byte at the end and follow the standard's convention
//! for output: NULL asks for the length.

use super::guard::{guard, guard_uninitialized, guard_unrecorded};
use super::{arg, last_error};
use crate::ck::{CK_RV, CK_ULONG, CK_UTF8CHAR};
use crate::keys;
use crate::token::{Reply, Room};

/// How much the status may grow between the call that asks for its length and the one that takes it, in bytes.
const STATUS_GROWTH: usize = 16 * 1024;

/// Tells the version of the library, such as `1.2.3`. Works before C_Initialize.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_GetVersion(version: *mut CK_UTF8CHAR, version_len: *mut CK_ULONG) -> CK_RV {
    guard_uninitialized("SR_GetVersion", || {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(version, version_len) }?;
        out.text(env!("CARGO_PKG_VERSION"))
    })
}

/// Tells in words what the last call of this thread that failed answered, and why; empty when none has. Works at any time.
/// A call that goes well leaves the text alone, and so does this one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_LastError(text: *mut CK_UTF8CHAR, text_len: *mut CK_ULONG) -> CK_RV {
    guard_unrecorded("SR_LastError", || {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(text, text_len) }?;
        last_error::with(|text| out.text(text))
    })
}

/// Tells the state of the library as a JSON object; under `rotation`, also which managed keys are due, of each token whose user is
/// logged in. For that it reads all of them. The length that is told leaves room for what becomes due between two calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_GetStatus(json: *mut CK_UTF8CHAR, json_len: *mut CK_ULONG) -> CK_RV {
    guard("SR_GetStatus", |library| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(json, json_len) }?;
        let status = keys::status(library);
        match out.room() {
            Room::Bytes(room) if room >= status.len() => out.text(&status),
            _ => out.reply(Reply::Needs(status.len().saturating_add(STATUS_GROWTH))),
        }
    })
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::multiple_unsafe_ops_per_block)]
mod tests {
    use super::*;
    use crate::ck::{CKR_BUFFER_TOO_SMALL, CKR_CRYPTOKI_NOT_INITIALIZED, CKR_OK};
    use std::ptr::null_mut;

    type Tell = unsafe extern "C" fn(*mut CK_UTF8CHAR, *mut CK_ULONG) -> CK_RV;

    fn told(tell: Tell) -> String {
        let (mut text, mut len) = ([0; 256], 0);
        // SAFETY: NULL asks for the length; then the buffer has that many bytes.
        unsafe {
            assert_eq!(tell(null_mut(), &raw mut len), CKR_OK);
            assert!(len <= 256);
            assert_eq!(tell(text.as_mut_ptr(), &raw mut len), CKR_OK);
        }
        String::from_utf8_lossy(&text[..usize::try_from(len).expect("a short text")]).into_owned()
    }

    #[test]
    fn the_version_is_the_packages() {
        assert_eq!(told(SR_GetVersion), env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn r73_the_last_error_survives_being_asked_for() {
        let (mut byte, mut len) = ([0], 1);
        // SAFETY: a buffer of one byte.
        unsafe {
            assert_eq!(SR_GetStatus(byte.as_mut_ptr(), &raw mut len), CKR_CRYPTOKI_NOT_INITIALIZED);
            assert_eq!(SR_LastError(byte.as_mut_ptr(), &raw mut len), CKR_BUFFER_TOO_SMALL);
        }
        assert!(told(SR_LastError).starts_with("SR_GetStatus: CKR_CRYPTOKI_NOT_INITIALIZED: "));
    }
}
