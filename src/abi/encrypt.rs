//! Encryption functions (PKCS #11 v3.2, 5.8). Input and output may be the same memory.

use std::ptr::null;

use super::guard::{guard_operation, guard_session};
use super::{arg, params};
use crate::ck::*;

/// Starts an encryption (5.8.1); a NULL mechanism cancels the one that is active.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_EncryptInit(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    guard_session("C_EncryptInit", session, |session| {
        // SAFETY: the caller vouches for the mechanism.
        session.encrypt_init(unsafe { params::optional_call(mechanism) }?, key)
    })
}

/// Encrypts in one part (5.8.2). Ends the operation unless the output did not fit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_Encrypt(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_len: CK_ULONG,
    encrypted: CK_BYTE_PTR,
    encrypted_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_operation("C_Encrypt", session, CKF_ENCRYPT, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(encrypted, encrypted_len) }?;
        // SAFETY: the caller vouches for the input, too.
        let data = unsafe { arg::in_out(data, data_len, &out) }?;
        out.reply(session.encrypt(data, out.is_query())?)
    })
}

/// Encrypts one part of several (5.8.3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_EncryptUpdate(
    session: CK_SESSION_HANDLE,
    part: CK_BYTE_PTR,
    part_len: CK_ULONG,
    output: CK_BYTE_PTR,
    output_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_operation("C_EncryptUpdate", session, CKF_ENCRYPT, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(output, output_len) }?;
        // SAFETY: the caller vouches for the input, too.
        let data = unsafe { arg::in_out(part, part_len, &out) }?;
        out.reply(session.encrypt_update(data, out.is_query())?)
    })
}

/// Ends an encryption of several parts (5.8.4).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_EncryptFinal(
    session: CK_SESSION_HANDLE,
    output: CK_BYTE_PTR,
    output_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_operation("C_EncryptFinal", session, CKF_ENCRYPT, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(output, output_len) }?;
        // SAFETY: there is no input.
        let data = unsafe { arg::in_out(null(), 0, &out) }?;
        out.reply(session.encrypt_final(data, out.is_query())?)
    })
}
