//! Message-based signing functions (PKCS #11 v3.2, 5.14), which the library does not have.

use super::guard::guard_session;
use super::unsupported;
use crate::ck::*;

/// Refuses (5.14.1).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_MessageSignInit(
    session: CK_SESSION_HANDLE,
    _mechanism: CK_MECHANISM_PTR,
    _key: CK_OBJECT_HANDLE,
) -> CK_RV {
    guard_session("C_MessageSignInit", session, |_| unsupported())
}

/// Refuses (5.14.2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_SignMessage(
    session: CK_SESSION_HANDLE,
    _parameter: CK_VOID_PTR,
    _parameter_len: CK_ULONG,
    _data: CK_BYTE_PTR,
    _data_len: CK_ULONG,
    _signature: CK_BYTE_PTR,
    _signature_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_session("C_SignMessage", session, |_| unsupported())
}

/// Refuses (5.14.3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_SignMessageBegin(
    session: CK_SESSION_HANDLE,
    _parameter: CK_VOID_PTR,
    _parameter_len: CK_ULONG,
) -> CK_RV {
    guard_session("C_SignMessageBegin", session, |_| unsupported())
}

/// Refuses (5.14.4).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_SignMessageNext(
    session: CK_SESSION_HANDLE,
    _parameter: CK_VOID_PTR,
    _parameter_len: CK_ULONG,
    _data: CK_BYTE_PTR,
    _data_len: CK_ULONG,
    _signature: CK_BYTE_PTR,
    _signature_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_session("C_SignMessageNext", session, |_| unsupported())
}

/// Refuses (5.14.5).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_MessageSignFinal(session: CK_SESSION_HANDLE) -> CK_RV {
    guard_session("C_MessageSignFinal", session, |_| unsupported())
}
