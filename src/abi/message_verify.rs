//! Message-based verification functions (PKCS #11 v3.2, 5.16), which the library does not have.

use super::guard::guard_session;
use super::unsupported;
use crate::ck::*;

/// Refuses (5.16.1).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_MessageVerifyInit(
    session: CK_SESSION_HANDLE,
    _mechanism: CK_MECHANISM_PTR,
    _key: CK_OBJECT_HANDLE,
) -> CK_RV {
    guard_session("C_MessageVerifyInit", session, |_| unsupported())
}

/// Refuses (5.16.2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_VerifyMessage(
    session: CK_SESSION_HANDLE,
    _parameter: CK_VOID_PTR,
    _parameter_len: CK_ULONG,
    _data: CK_BYTE_PTR,
    _data_len: CK_ULONG,
    _signature: CK_BYTE_PTR,
    _signature_len: CK_ULONG,
) -> CK_RV {
    guard_session("C_VerifyMessage", session, |_| unsupported())
}

/// Refuses (5.16.3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_VerifyMessageBegin(
    session: CK_SESSION_HANDLE,
    _parameter: CK_VOID_PTR,
    _parameter_len: CK_ULONG,
) -> CK_RV {
    guard_session("C_VerifyMessageBegin", session, |_| unsupported())
}

/// Refuses (5.16.4).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_VerifyMessageNext(
    session: CK_SESSION_HANDLE,
    _parameter: CK_VOID_PTR,
    _parameter_len: CK_ULONG,
    _data: CK_BYTE_PTR,
    _data_len: CK_ULONG,
    _signature: CK_BYTE_PTR,
    _signature_len: CK_ULONG,
) -> CK_RV {
    guard_session("C_VerifyMessageNext", session, |_| unsupported())
}

/// Refuses (5.16.5).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_MessageVerifyFinal(session: CK_SESSION_HANDLE) -> CK_RV {
    guard_session("C_MessageVerifyFinal", session, |_| unsupported())
}
