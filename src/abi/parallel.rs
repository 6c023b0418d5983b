//! Parallel function management functions (PKCS #11 v3.2, 5.20): kept for old applications, as the standard asks.

use super::guard::guard_session;
use crate::ck::*;
use crate::error::{Error, Kind, Result};

/// Tells that no function runs in parallel (5.20.1).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionStatus(session: CK_SESSION_HANDLE) -> CK_RV {
    guard_session("C_GetFunctionStatus", session, |_| not_parallel())
}

/// Tells that no function runs in parallel (5.20.2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_CancelFunction(session: CK_SESSION_HANDLE) -> CK_RV {
    guard_session("C_CancelFunction", session, |_| not_parallel())
}

fn not_parallel() -> Result<()> {
    Err(Error::from(Kind::FunctionNotParallel))
}
