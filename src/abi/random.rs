//! Random number generation functions (PKCS #11 v3.2, 5.19).

use super::arg;
use super::guard::guard_session;
use crate::ck::*;
use crate::error::{Error, Kind};

/// Refuses: the generator is the system's and takes no seed from callers (5.19.1).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_SeedRandom(session: CK_SESSION_HANDLE, _seed: CK_BYTE_PTR, _seed_len: CK_ULONG) -> CK_RV {
    guard_session("C_SeedRandom", session, |_| Err(Error::from(Kind::RandomSeedNotSupported)))
}

/// Gives random bytes (5.19.2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GenerateRandom(
    session: CK_SESSION_HANDLE,
    random: CK_BYTE_PTR,
    random_len: CK_ULONG,
) -> CK_RV {
    guard_session("C_GenerateRandom", session, |session| {
        // SAFETY: the caller vouches for the buffer, and there is no input.
        session.random(unsafe { arg::bytes_mut(random, random_len) }?)
    })
}
