//! Functions for verifying signatures and MACs (PKCS #11 v3.2, 5.15).

use super::guard::{guard_operation, guard_session};
use super::{arg, params, unsupported};
use crate::ck::*;

/// Starts a verification (5.15.1); a NULL mechanism cancels the one that is active.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_VerifyInit(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    guard_session("C_VerifyInit", session, |session| {
        // SAFETY: the caller vouches for the mechanism.
        session.verify_init(unsafe { params::optional_call(mechanism) }?, key)
    })
}

/// Verifies in one part (5.15.2), which ends the operation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_Verify(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_len: CK_ULONG,
    signature: CK_BYTE_PTR,
    signature_len: CK_ULONG,
) -> CK_RV {
    guard_operation("C_Verify", session, CKF_VERIFY, |session| {
        // SAFETY: the caller vouches for the data.
        let data = unsafe { arg::bytes(data, data_len) }?;
        // SAFETY: the caller vouches for the signature.
        session.verify(data, unsafe { arg::bytes(signature, signature_len) }?)
    })
}

/// Verifies one part of several (5.15.3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_VerifyUpdate(session: CK_SESSION_HANDLE, part: CK_BYTE_PTR, part_len: CK_ULONG) -> CK_RV {
    guard_operation("C_VerifyUpdate", session, CKF_VERIFY, |session| {
        // SAFETY: the caller vouches for the input.
        session.verify_update(unsafe { arg::bytes(part, part_len) }?)
    })
}

/// Ends a verification of several parts (5.15.4).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_VerifyFinal(
    session: CK_SESSION_HANDLE,
    signature: CK_BYTE_PTR,
    signature_len: CK_ULONG,
) -> CK_RV {
    guard_operation("C_VerifyFinal", session, CKF_VERIFY, |session| {
        // SAFETY: the caller vouches for the signature.
        session.verify_final(unsafe { arg::bytes(signature, signature_len) }?)
    })
}

/// Refuses: no mechanism here verifies with recovery (5.15.5).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_VerifyRecoverInit(
    session: CK_SESSION_HANDLE,
    _mechanism: CK_MECHANISM_PTR,
    _key: CK_OBJECT_HANDLE,
) -> CK_RV {
    guard_session("C_VerifyRecoverInit", session, |_| unsupported())
}

/// Refuses (5.15.6).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_VerifyRecover(
    session: CK_SESSION_HANDLE,
    _signature: CK_BYTE_PTR,
    _signature_len: CK_ULONG,
    _data: CK_BYTE_PTR,
    _data_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_session("C_VerifyRecover", session, |_| unsupported())
}

/// Refuses: no mechanism here needs the signature first (5.15.7).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_VerifySignatureInit(
    session: CK_SESSION_HANDLE,
    _mechanism: CK_MECHANISM_PTR,
    _key: CK_OBJECT_HANDLE,
    _signature: CK_BYTE_PTR,
    _signature_len: CK_ULONG,
) -> CK_RV {
    guard_session("C_VerifySignatureInit", session, |_| unsupported())
}

/// Refuses (5.15.8).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_VerifySignature(
    session: CK_SESSION_HANDLE,
    _data: CK_BYTE_PTR,
    _data_len: CK_ULONG,
) -> CK_RV {
    guard_session("C_VerifySignature", session, |_| unsupported())
}

/// Refuses (5.15.9).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_VerifySignatureUpdate(
    session: CK_SESSION_HANDLE,
    _part: CK_BYTE_PTR,
    _part_len: CK_ULONG,
) -> CK_RV {
    guard_session("C_VerifySignatureUpdate", session, |_| unsupported())
}

/// Refuses (5.15.10).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_VerifySignatureFinal(session: CK_SESSION_HANDLE) -> CK_RV {
    guard_session("C_VerifySignatureFinal", session, |_| unsupported())
}
