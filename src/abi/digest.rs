//! Message digesting functions (PKCS #11 v3.2, 5.12).

use super::guard::{guard_operation, guard_session};
use super::{arg, params};
use crate::ck::*;

/// Starts a digest (5.12.1); a NULL mechanism cancels the one that is active.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_DigestInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR) -> CK_RV {
    guard_session("C_DigestInit", session, |session| {
        // SAFETY: the caller vouches for the mechanism.
        session.digest_init(unsafe { params::optional_call(mechanism) }?)
    })
}

/// Digests in one part (5.12.2). Ends the operation unless the output did not fit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_Digest(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_len: CK_ULONG,
    digest: CK_BYTE_PTR,
    digest_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_operation("C_Digest", session, CKF_DIGEST, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(digest, digest_len) }?;
        // SAFETY: the caller vouches for the input; it is done with before the output is written.
        let data = unsafe { arg::bytes(data, data_len) }?;
        out.put(|room| session.digest(data, room))
    })
}

/// Digests one part of several (5.12.3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_DigestUpdate(session: CK_SESSION_HANDLE, part: CK_BYTE_PTR, part_len: CK_ULONG) -> CK_RV {
    guard_operation("C_DigestUpdate", session, CKF_DIGEST, |session| {
        // SAFETY: the caller vouches for the input.
        session.digest_update(unsafe { arg::bytes(part, part_len) }?)
    })
}

/// Digests the value of a secret key (5.12.4).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_DigestKey(session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> CK_RV {
    guard_session("C_DigestKey", session, |session| session.digest_key(key))
}

/// Ends a digest of several parts (5.12.5).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_DigestFinal(
    session: CK_SESSION_HANDLE,
    digest: CK_BYTE_PTR,
    digest_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_operation("C_DigestFinal", session, CKF_DIGEST, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(digest, digest_len) }?;
        out.put(|room| session.digest_final(room))
    })
}
