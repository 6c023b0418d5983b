//! Signing and MACing functions (PKCS #11 v3.2, 5.13).

use super::guard::{guard_operation, guard_session};
use super::{arg, params, unsupported};
use crate::ck::*;

/// Starts a signature (5.13.1); a NULL mechanism cancels the one that is active.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_SignInit(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    guard_session("C_SignInit", session, |session| {
        // SAFETY: the caller vouches for the mechanism.
        session.sign_init(unsafe { params::optional_call(mechanism) }?, key)
    })
}

/// Signs in one part (5.13.2). Ends the operation unless the output did not fit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_len: CK_ULONG,
    signature: CK_BYTE_PTR,
    signature_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_operation("C_Sign", session, CKF_SIGN, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(signature, signature_len) }?;
        // SAFETY: the caller vouches for the input; it is done with before the output is written.
        let data = unsafe { arg::bytes(data, data_len) }?;
        out.put(|room| session.sign(data, room))
    })
}

/// Signs one part of several (5.13.3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_SignUpdate(session: CK_SESSION_HANDLE, part: CK_BYTE_PTR, part_len: CK_ULONG) -> CK_RV {
    guard_operation("C_SignUpdate", session, CKF_SIGN, |session| {
        // SAFETY: the caller vouches for the input.
        session.sign_update(unsafe { arg::bytes(part, part_len) }?)
    })
}

/// Ends a signature of several parts (5.13.4).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_SignFinal(
    session: CK_SESSION_HANDLE,
    signature: CK_BYTE_PTR,
    signature_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_operation("C_SignFinal", session, CKF_SIGN, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(signature, signature_len) }?;
        out.put(|room| session.sign_final(room))
    })
}

/// Refuses: no mechanism here signs with recovery (5.13.5).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_SignRecoverInit(
    session: CK_SESSION_HANDLE,
    _mechanism: CK_MECHANISM_PTR,
    _key: CK_OBJECT_HANDLE,
) -> CK_RV {
    guard_session("C_SignRecoverInit", session, |_| unsupported())
}

/// Refuses (5.13.6).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_SignRecover(
    session: CK_SESSION_HANDLE,
    _data: CK_BYTE_PTR,
    _data_len: CK_ULONG,
    _signature: CK_BYTE_PTR,
    _signature_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_session("C_SignRecover", session, |_| unsupported())
}
