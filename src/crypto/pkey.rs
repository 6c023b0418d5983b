//! Key encodings that all families share: SubjectPublicKeyInfo (RFC 5280) and PKCS #8 PrivateKeyInfo (RFC 5958).

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;

use aws_lc_sys as sys;

use super::lc::{Owned, check, clear_errors};
use super::memory;
use crate::error::{Error, Kind, Result};
use crate::secret::SecureBytes;

/// Room for any encoded key of this library: an RSA-4096 private key takes fewer than 2400 bytes.
const ROOM: usize = 4096;

/// Reads a public key of any algorithm, which must fill the whole input.
///
/// # Errors
/// `PublicKeyInvalid`.
pub(in crate::crypto) fn parse_public(der: &[u8]) -> Result<Owned<sys::EVP_PKEY>> {
    parse(der, sys::EVP_parse_public_key).ok_or_else(|| {
        Error::new(Kind::PublicKeyInvalid, "the public key is no SubjectPublicKeyInfo that this library can read")
    })
}

/// Reads a private key of any algorithm, which must fill the whole input.
///
/// # Errors
/// `WrappedKeyInvalid`.
pub(in crate::crypto) fn parse_private(der: &[u8]) -> Result<Owned<sys::EVP_PKEY>> {
    memory::secret(|| parse(der, sys::EVP_parse_private_key).ok_or_else(|| wrapped_invalid("this library can read")))
}

/// Makes the error of an unwrapped private key that is not what it should be.
pub(in crate::crypto) fn wrapped_invalid(what: &str) -> Error {
    Error::new(Kind::WrappedKeyInvalid, format!("the unwrapped bytes are no PKCS #8 PrivateKeyInfo that {what}"))
}

/// Writes a public key as SubjectPublicKeyInfo.
///
/// # Errors
/// `GeneralError` when the library below fails.
pub(in crate::crypto) fn marshal_public(key: &Owned<sys::EVP_PKEY>) -> Result<Vec<u8>> {
    let mut out = vec![0; ROOM];
    // SAFETY: `write` hands a valid CBB, and the key is valid.
    let len = write(&mut out, |cbb| unsafe { sys::EVP_marshal_public_key(cbb, key.as_ptr()) })?;
    out.truncate(len);
    Ok(out)
}

/// Writes a private key as PKCS #8 PrivateKeyInfo, straight into locked memory.
///
/// # Errors
/// `GeneralError` when the library below fails.
pub(in crate::crypto) fn marshal_private(key: &Owned<sys::EVP_PKEY>) -> Result<SecureBytes> {
    // SAFETY: `write_secret` hands a valid CBB, and the key is valid.
    write_secret(|cbb| unsafe { sys::EVP_marshal_private_key(cbb, key.as_ptr()) })
}

/// Writes with an AWS-LC marshal function straight into locked memory.
///
/// # Errors
/// `GeneralError` when the library below fails.
pub(in crate::crypto) fn write_secret(marshal: impl FnOnce(*mut sys::CBB) -> c_int) -> Result<SecureBytes> {
    let mut out = SecureBytes::zeroed(ROOM);
    let len = write(out.expose_mut(), marshal)?;
    Ok(out.truncated(len))
}

/// Makes a key from the raw bytes of Ed25519 or X25519 with one of AWS-LC's two constructors.
///
/// # Errors
/// `AttributeValueInvalid` for bytes of a wrong length.
pub(in crate::crypto) fn from_raw(
    make: unsafe extern "C" fn(c_int, *mut sys::ENGINE, *const u8, usize) -> *mut sys::EVP_PKEY,
    algorithm: c_int,
    raw: &[u8],
) -> Result<Owned<sys::EVP_PKEY>> {
    // SAFETY: `make` reads `raw` for its length and uses no engine; its result is owned by nobody else.
    let key = unsafe { make(algorithm, ptr::null_mut(), raw.as_ptr(), raw.len()) };
    // SAFETY: the result is new, or NULL, and owned by nobody else.
    let key = unsafe { Owned::new(key) };
    key.map_err(|_| Error::from(Kind::AttributeValueInvalid))
}

/// Gives the raw 32 bytes of an Ed25519 or X25519 private key.
///
/// # Errors
/// `WrappedKeyInvalid` for a key of another algorithm.
pub(in crate::crypto) fn raw_private(key: &Owned<sys::EVP_PKEY>, algorithm: c_int) -> Result<SecureBytes> {
    // SAFETY: the key is valid.
    if unsafe { sys::EVP_PKEY_id(key.as_ptr()) } != algorithm {
        return Err(wrapped_invalid("holds a key of the template's type"));
    }
    SecureBytes::try_with(32, |out| {
        let mut len = out.len();
        // SAFETY: the key is valid, and `out` has room for `len` bytes.
        let code = unsafe { sys::EVP_PKEY_get_raw_private_key(key.as_ptr(), out.as_mut_ptr(), &raw mut len) };
        check(code, Kind::WrappedKeyInvalid)
    })
}

/// Gives the raw 32 bytes of an Ed25519 or X25519 public key.
///
/// # Errors
/// `PublicKeyInvalid` for a key of another algorithm.
pub(in crate::crypto) fn raw_public(key: &Owned<sys::EVP_PKEY>, algorithm: c_int) -> Result<[u8; 32]> {
    // SAFETY: the key is valid.
    if unsafe { sys::EVP_PKEY_id(key.as_ptr()) } != algorithm {
        return Err(Error::new(Kind::PublicKeyInvalid, "the public key is of another algorithm"));
    }
    let mut out = [0; 32];
    let mut len = out.len();
    // SAFETY: the key is valid, and `out` has room for `len` bytes.
    let code = unsafe { sys::EVP_PKEY_get_raw_public_key(key.as_ptr(), out.as_mut_ptr(), &raw mut len) };
    check(code, Kind::PublicKeyInvalid)?;
    Ok(out)
}

fn parse(der: &[u8], read: unsafe extern "C" fn(*mut sys::CBS) -> *mut sys::EVP_PKEY) -> Option<Owned<sys::EVP_PKEY>> {
    let mut input = sys::cbs_st { data: der.as_ptr(), len: der.len() };
    // SAFETY: `input` covers `der`.
    let key = unsafe { read(&raw mut input) };
    // SAFETY: the result is new, or NULL, and owned by nobody else.
    let key = unsafe { Owned::new(key) };
    clear_errors();
    key.ok().filter(|_| input.len == 0)
}

fn write(room: &mut [u8], marshal: impl FnOnce(*mut sys::CBB) -> c_int) -> Result<usize> {
    let mut cbb = MaybeUninit::<sys::CBB>::zeroed();
    let (mut start, mut len) = (ptr::null_mut(), 0);
    // SAFETY: `room` outlives the builder, which writes nowhere else and allocates nothing.
    let code = unsafe { sys::CBB_init_fixed(cbb.as_mut_ptr(), room.as_mut_ptr(), room.len()) };
    check(code, Kind::GeneralError)?;
    check(marshal(cbb.as_mut_ptr()), Kind::GeneralError)?;
    // SAFETY: the builder is initialised, and both targets are valid.
    let code = unsafe { sys::CBB_finish(cbb.as_mut_ptr(), &raw mut start, &raw mut len) };
    check(code, Kind::GeneralError)?;
    Ok(len)
}
