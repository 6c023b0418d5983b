//! Message-based encryption functions (PKCS #11 v3.2, 5.9), which the library does not have.

use super::guard::guard_session;
use super::unsupported;
use crate::ck::*;

/// Refuses (5.9.1).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_MessageEncryptInit(
    session: CK_SESSION_HANDLE,
    _mechanism: CK_MECHANISM_PTR,
    _key: CK_OBJECT_HANDLE,
) -> CK_RV {
    guard_session("C_MessageEncryptInit", session, |_| unsupported())
}

/// Refuses (5.9.2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_EncryptMessage(
    session: CK_SESSION_HANDLE,
    _parameter: CK_VOID_PTR,
    _parameter_len: CK_ULONG,
    _associated: CK_BYTE_PTR,
    _associated_len: CK_ULONG,
    _plaintext: CK_BYTE_PTR,
    _plaintext_len: CK_ULONG,
    _ciphertext: CK_BYTE_PTR,
    _ciphertext_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_session("C_EncryptMessage", session, |_| unsupported())
}

/// Refuses (5.9.3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_EncryptMessageBegin(
    session: CK_SESSION_HANDLE,
    _parameter: CK_VOID_PTR,
    _parameter_len: CK_ULONG,
    _associated: CK_BYTE_PTR,
    _associated_len: CK_ULONG,
) -> CK_RV {
    guard_session("C_EncryptMessageBegin", session, |_| unsupported())
}

/// Refuses (5.9.4).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_EncryptMessageNext(
    session: CK_SESSION_HANDLE,
    _parameter: CK_VOID_PTR,
    _parameter_len: CK_ULONG,
    _plaintext: CK_BYTE_PTR,
    _plaintext_len: CK_ULONG,
    _ciphertext: CK_BYTE_PTR,
    _ciphertext_len: CK_ULONG_PTR,
    _flags: CK_FLAGS,
) -> CK_RV {
    guard_session("C_EncryptMessageNext", session, |_| unsupported())
}

/// Refuses (5.9.5).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_MessageEncryptFinal(session: CK_SESSION_HANDLE) -> CK_RV {
    guard_session("C_MessageEncryptFinal", session, |_| unsupported())
}
