//! Decryption functions (PKCS #11 v3.2, 5.10). Input and output may be the same memory.

use std::ptr::null;

use super::guard::{guard_operation, guard_session};
use super::{arg, params};
use crate::ck::*;

/// Starts a decryption (5.10.1); a NULL mechanism cancels the one that is active.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_DecryptInit(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    guard_session("C_DecryptInit", session, |session| {
        // SAFETY: the caller vouches for the mechanism.
        session.decrypt_init(unsafe { params::optional_call(mechanism) }?, key)
    })
}

/// Decrypts in one part (5.10.2). Ends the operation unless the output did not fit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_Decrypt(
    session: CK_SESSION_HANDLE,
    encrypted: CK_BYTE_PTR,
    encrypted_len: CK_ULONG,
    data: CK_BYTE_PTR,
    data_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_operation("C_Decrypt", session, CKF_DECRYPT, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(data, data_len) }?;
        // SAFETY: the caller vouches for the input, too.
        let data = unsafe { arg::in_out(encrypted, encrypted_len, &out) }?;
        out.reply(session.decrypt(data, out.is_query())?)
    })
}

/// Decrypts one part of several (5.10.3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_DecryptUpdate(
    session: CK_SESSION_HANDLE,
    part: CK_BYTE_PTR,
    part_len: CK_ULONG,
    output: CK_BYTE_PTR,
    output_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_operation("C_DecryptUpdate", session, CKF_DECRYPT, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(output, output_len) }?;
        // SAFETY: the caller vouches for the input, too.
        let data = unsafe { arg::in_out(part, part_len, &out) }?;
        out.reply(session.decrypt_update(data, out.is_query())?)
    })
}

/// Ends a decryption of several parts (5.10.4).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_DecryptFinal(
    session: CK_SESSION_HANDLE,
    output: CK_BYTE_PTR,
    output_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_operation("C_DecryptFinal", session, CKF_DECRYPT, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(output, output_len) }?;
        // SAFETY: there is no input.
        let data = unsafe { arg::in_out(null(), 0, &out) }?;
        out.reply(session.decrypt_final(data, out.is_query())?)
    })
}
