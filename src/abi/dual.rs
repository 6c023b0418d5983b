//! Dual-function cryptographic functions (PKCS #11 v3.2, 5.17): two running operations over the same plaintext.
//!
//! The rules are:
//! - the operation that reads the plaintext is asked first whether it is active, so that the cipher does not move on alone;
//! - when the output does not fit, or only its length is asked for, neither operation moves on;
//! - the plaintext is copied before it may be overwritten in place.

use super::arg::{self, Out};
use super::guard::guard_operation;
use crate::ck::*;
use crate::crypto::InOut;
use crate::error::Result;
use crate::token::{Reply, Session};

/// The operation that reads the plaintext: its flag and its update.
type Reader = (CK_FLAGS, fn(&Session, &[u8]) -> Result<()>);

const DIGEST: Reader = (CKF_DIGEST, Session::digest_update);
const SIGN: Reader = (CKF_SIGN, Session::sign_update);
const VERIFY: Reader = (CKF_VERIFY, Session::verify_update);

/// Digests and encrypts one part (5.17.1).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_DigestEncryptUpdate(
    session: CK_SESSION_HANDLE,
    part: CK_BYTE_PTR,
    part_len: CK_ULONG,
    encrypted: CK_BYTE_PTR,
    encrypted_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_operation("C_DigestEncryptUpdate", session, CKF_DIGEST | CKF_ENCRYPT, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(encrypted, encrypted_len) }?;
        // SAFETY: the caller vouches for the input, too.
        encrypt(session, DIGEST, unsafe { arg::in_out(part, part_len, &out) }?, &out)
    })
}

/// Decrypts and digests one part (5.17.2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_DecryptDigestUpdate(
    session: CK_SESSION_HANDLE,
    encrypted: CK_BYTE_PTR,
    encrypted_len: CK_ULONG,
    part: CK_BYTE_PTR,
    part_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_operation("C_DecryptDigestUpdate", session, CKF_DECRYPT | CKF_DIGEST, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(part, part_len) }?;
        // SAFETY: the caller vouches for the input, too.
        decrypt(session, DIGEST, unsafe { arg::in_out(encrypted, encrypted_len, &out) }?, &out)
    })
}

/// Signs and encrypts one part (5.17.3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_SignEncryptUpdate(
    session: CK_SESSION_HANDLE,
    part: CK_BYTE_PTR,
    part_len: CK_ULONG,
    encrypted: CK_BYTE_PTR,
    encrypted_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_operation("C_SignEncryptUpdate", session, CKF_SIGN | CKF_ENCRYPT, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(encrypted, encrypted_len) }?;
        // SAFETY: the caller vouches for the input, too.
        encrypt(session, SIGN, unsafe { arg::in_out(part, part_len, &out) }?, &out)
    })
}

/// Decrypts and verifies one part (5.17.4).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_DecryptVerifyUpdate(
    session: CK_SESSION_HANDLE,
    encrypted: CK_BYTE_PTR,
    encrypted_len: CK_ULONG,
    part: CK_BYTE_PTR,
    part_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_operation("C_DecryptVerifyUpdate", session, CKF_DECRYPT | CKF_VERIFY, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(part, part_len) }?;
        // SAFETY: the caller vouches for the input, too.
        decrypt(session, VERIFY, unsafe { arg::in_out(encrypted, encrypted_len, &out) }?, &out)
    })
}

/// Encrypts a part that `read` also takes.
fn encrypt(session: &Session, (which, read): Reader, data: InOut<'_>, out: &Out) -> Result<()> {
    session.check_takes_parts(which)?;
    let plaintext = data.copy_input()?;
    let reply = session.encrypt_update(data, out.is_query())?;
    let is_done = !matches!(reply, Reply::Needs(_));
    out.reply(reply)?;
    if is_done { read(session, plaintext.expose()) } else { Ok(()) }
}

/// Decrypts a part whose plaintext `read` also takes, once it stands in the caller's buffer.
fn decrypt(session: &Session, (which, read): Reader, data: InOut<'_>, out: &Out) -> Result<()> {
    session.check_takes_parts(which)?;
    let reply = session.decrypt_update(data, out.is_query())?;
    let is_done = !matches!(reply, Reply::Needs(_));
    let len = out.settle(reply)?;
    // SAFETY: so many bytes were just written, and the input is no longer in use.
    if is_done { read(session, unsafe { out.written(len) }) } else { Ok(()) }
}
