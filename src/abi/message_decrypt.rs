//! Message-based decryption functions (PKCS #11 v3.2, 5.11), which the library does not have.

use super::guard::guard_session;
use super::unsupported;
use crate::ck::*;

/// Refuses (5.11.1).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_MessageDecryptInit(
    session: CK_SESSION_HANDLE,
    _mechanism: CK_MECHANISM_PTR,
    _key: CK_OBJECT_HANDLE,
) -> CK_RV {
    guard_session("C_MessageDecryptInit", session, |_| unsupported())
}

/// Refuses (5.11.2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_DecryptMessage(
    session: CK_SESSION_HANDLE,
    _parameter: CK_VOID_PTR,
    _parameter_len: CK_ULONG,
    _associated: CK_BYTE_PTR,
    _associated_len: CK_ULONG,
    _ciphertext: CK_BYTE_PTR,
    _ciphertext_len: CK_ULONG,
    _plaintext: CK_BYTE_PTR,
    _plaintext_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_session("C_DecryptMessage", session, |_| unsupported())
}

/// Refuses (5.11.3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_DecryptMessageBegin(
    session: CK_SESSION_HANDLE,
    _parameter: CK_VOID_PTR,
    _parameter_len: CK_ULONG,
    _associated: CK_BYTE_PTR,
    _associated_len: CK_ULONG,
) -> CK_RV {
    guard_session("C_DecryptMessageBegin", session, |_| unsupported())
}

/// Refuses (5.11.4).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_DecryptMessageNext(
    session: CK_SESSION_HANDLE,
    _parameter: CK_VOID_PTR,
    _parameter_len: CK_ULONG,
    _ciphertext: CK_BYTE_PTR,
    _ciphertext_len: CK_ULONG,
    _plaintext: CK_BYTE_PTR,
    _plaintext_len: CK_ULONG_PTR,
    _flags: CK_FLAGS,
) -> CK_RV {
    guard_session("C_DecryptMessageNext", session, |_| unsupported())
}

/// Refuses (5.11.5).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_MessageDecryptFinal(session: CK_SESSION_HANDLE) -> CK_RV {
    guard_session("C_MessageDecryptFinal", session, |_| unsupported())
}
