//! Asynchronous functions (PKCS #11 v3.2, 5.21), which the library does not have: no session is asynchronous.

use super::guard::guard_session;
use super::unsupported;
use crate::ck::*;

/// Refuses (5.21.1).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_AsyncComplete(
    session: CK_SESSION_HANDLE,
    _function: CK_UTF8CHAR_PTR,
    _result: CK_ASYNC_DATA_PTR,
) -> CK_RV {
    guard_session("C_AsyncComplete", session, |_| unsupported())
}

/// Refuses (5.21.2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_AsyncGetID(
    session: CK_SESSION_HANDLE,
    _function: CK_UTF8CHAR_PTR,
    _id: CK_ULONG_PTR,
) -> CK_RV {
    guard_session("C_AsyncGetID", session, |_| unsupported())
}

/// Refuses (5.21.3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_AsyncJoin(
    session: CK_SESSION_HANDLE,
    _function: CK_UTF8CHAR_PTR,
    _id: CK_ULONG,
    _data: CK_BYTE_PTR,
    _data_len: CK_ULONG,
) -> CK_RV {
    guard_session("C_AsyncJoin", session, |_| unsupported())
}
