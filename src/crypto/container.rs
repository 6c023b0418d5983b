//! Private keys in files under a password: PKCS #8 `EncryptedPrivateKeyInfo` (RFC 5958, 3) and PKCS #12 (RFC 7292).
//!
//! The rules are:
//! - what comes out is PKCS #8 `PrivateKeyInfo` in locked memory, whatever the container: one way in for all of them;
//! - PBES2 with AES is put together here, in locked memory: AWS-LC knows neither scrypt nor every hash. All else AWS-LC opens, and wipes
//!   what it frees;
//! - a wrong password and damage look the same to most schemes; where they can be told apart, they are.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use aws_lc_sys as sys;
use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Sequence, Tag, Tagged};
use pkcs5::{EncryptionScheme, pbes2};

use super::aes::{AesKey, BlockCipher};
use super::cipher::{CipherOperation, Direction, Written};
use super::hash::Hash;
use super::inout::InOut;
use super::lc::{Owned, clear_errors};
use super::{password, pkey};
use crate::error::{Error, Kind, Result};
use crate::secret::SecureBytes;

// AWS-LC exports these, but aws-lc-sys declares them with all of X.509 only, or not at all.
unsafe extern "C" {
    #[link_name = "aws_lc_0_47_0_PKCS8_parse_encrypted_private_key"]
    fn parse_encrypted(input: *mut sys::CBS, password: *const c_char, password_len: usize) -> *mut sys::EVP_PKEY;
    #[link_name = "aws_lc_0_47_0_PKCS12_get_key_and_certs"]
    fn get_key_and_certs(
        key: *mut *mut sys::EVP_PKEY,
        certificates: *mut c_void,
        input: *mut sys::CBS,
        password: *const c_char,
    ) -> c_int;
    #[link_name = "aws_lc_0_47_0_OPENSSL_sk_new_null"]
    fn stack_new() -> *mut c_void;
    #[link_name = "aws_lc_0_47_0_OPENSSL_sk_num"]
    fn stack_len(stack: *const c_void) -> usize;
    #[link_name = "aws_lc_0_47_0_OPENSSL_sk_value"]
    fn stack_value(stack: *const c_void, index: usize) -> *mut c_void;
    #[link_name = "aws_lc_0_47_0_OPENSSL_sk_pop"]
    fn stack_pop(stack: *mut c_void) -> *mut c_void;
    #[link_name = "aws_lc_0_47_0_OPENSSL_sk_free"]
    fn stack_free(stack: *mut c_void);
    #[link_name = "aws_lc_0_47_0_X509_free"]
    fn x509_free(certificate: *mut c_void);
    #[link_name = "aws_lc_0_47_0_i2d_X509"]
    fn x509_to_der(certificate: *mut c_void, out: *mut *mut u8) -> c_int;
    #[link_name = "aws_lc_0_47_0_X509_alias_get0"]
    fn x509_name(certificate: *const c_void, len: *mut c_int) -> *const u8;
}

/// What a PKCS #12 file holds.
pub struct Opened {
    /// The private key as PKCS #8 `PrivateKeyInfo`, if there is one.
    pub key: Option<SecureBytes>,
    /// The certificates.
    pub certificates: Vec<Certificate>,
}

/// A certificate of a PKCS #12 file.
pub struct Certificate {
    /// X.509 in DER.
    pub der: Vec<u8>,
    /// The name that the file gives it (`friendlyName`).
    pub name: Option<String>,
}

/// `EncryptedPrivateKeyInfo`.
#[derive(Sequence)]
struct Encrypted<'a> {
    algorithm: EncryptionScheme,
    data: &'a OctetStringRef,
}

/// Tells whether bytes look like an `EncryptedPrivateKeyInfo`: a sequence of a sequence and an octet string. A `PrivateKeyInfo` starts
/// with a number.
pub fn is_encrypted_pkcs8(der: &[u8]) -> bool {
    #[derive(Sequence)]
    struct Shape<'a> {
        algorithm: AnyRef<'a>,
        data: &'a OctetStringRef,
    }
    Shape::from_der(der).is_ok_and(|shape| shape.algorithm.tag() == Tag::Sequence && !shape.data.is_empty())
}

/// Decrypts an `EncryptedPrivateKeyInfo` to a `PrivateKeyInfo`.
///
/// # Errors
/// `EncryptedDataInvalid` for a wrong password or damage, and for a scheme that is not supported; the text tells them apart.
pub fn decrypt_pkcs8(der: &[u8], password: &SecureBytes) -> Result<SecureBytes> {
    if let Ok(Encrypted { algorithm: EncryptionScheme::Pbes2(scheme), data }) = Encrypted::from_der(der) {
        let plain = decrypt_cbc(derive(&scheme, password)?, scheme.encryption, data.as_bytes())?;
        // One wrong key in 256 leaves what looks like padding.
        return pkey::parse_private(plain.expose()).map(|_| plain).map_err(|_| wrong_password());
    }
    let mut input = sys::cbs_st { data: der.as_ptr(), len: der.len() };
    // SAFETY: `input` covers `der`, and the password is valid for its length.
    let key = unsafe { parse_encrypted(&raw mut input, password.expose().as_ptr().cast(), password.len()) };
    let reasons = reasons();
    // SAFETY: the result is new, or NULL, and owned by nobody else.
    match unsafe { Owned::new(key) } {
        Ok(key) if input.len == 0 => pkey::marshal_private(&key),
        _ => Err(refusal(&reasons)),
    }
}

/// Derives the key of PBES2.
fn derive(scheme: &pbes2::Parameters, password: &SecureBytes) -> Result<SecureBytes> {
    let len = scheme.encryption.key_size();
    if let Some(kdf) = scheme.kdf.scrypt() {
        let factors = [kdf.cost_parameter, kdf.block_size.into(), kdf.parallelization.into()];
        return password::scrypt(password, kdf.salt.as_ref(), factors, len);
    }
    let kdf = scheme.kdf.pbkdf2().ok_or_else(unsupported)?;
    let hash = match kdf.prf {
        pbes2::Pbkdf2Prf::HmacWithSha1 => Hash::Sha1,
        pbes2::Pbkdf2Prf::HmacWithSha224 => Hash::Sha224,
        pbes2::Pbkdf2Prf::HmacWithSha256 => Hash::Sha256,
        pbes2::Pbkdf2Prf::HmacWithSha384 => Hash::Sha384,
        pbes2::Pbkdf2Prf::HmacWithSha512 => Hash::Sha512,
        _ => return Err(unsupported()),
    };
    password::pbkdf2(hash, password, kdf.salt.as_ref(), kdf.iteration_count, len)
}

/// Decrypts with AES-CBC and takes the padding off.
fn decrypt_cbc(key: SecureBytes, by: pbes2::EncryptionScheme, data: &[u8]) -> Result<SecureBytes> {
    let (pbes2::EncryptionScheme::Aes128Cbc { iv }
    | pbes2::EncryptionScheme::Aes192Cbc { iv }
    | pbes2::EncryptionScheme::Aes256Cbc { iv }) = by
    else {
        return Err(unsupported());
    };
    let mut cipher = BlockCipher::cbc(&AesKey::new(key)?, Direction::Decrypt, iv, true);
    let mut plain = SecureBytes::try_zeroed(data.len())?;
    match cipher.single(InOut::from_slices(data, plain.expose_mut())) {
        Ok(Written::Bytes(len)) => Ok(plain.truncated(len)),
        _ => Err(wrong_password()),
    }
}

/// Opens a PKCS #12 file.
///
/// # Errors
/// `EncryptedDataInvalid` for a wrong password, damage, more than one private key, and what is not supported; the text tells them apart.
pub fn open_pkcs12(der: &[u8], password: &SecureBytes) -> Result<Opened> {
    let password = terminated(password)?;
    let certificates = Stack::new()?;
    let mut input = sys::cbs_st { data: der.as_ptr(), len: der.len() };
    let mut key = ptr::null_mut();
    let (stack, with) = (certificates.0, password.expose().as_ptr().cast());
    // SAFETY: the places and the stack are valid, `input` covers `der`, and the password ends with a zero byte.
    let code = unsafe { get_key_and_certs(&raw mut key, stack, &raw mut input, with) };
    let reasons = reasons();
    // SAFETY: the result is new, or NULL, and owned by nobody else.
    let key = unsafe { Owned::new(key) };
    if code != 1 {
        return Err(refusal(&reasons));
    }
    let key = key.ok().map(|key| pkey::marshal_private(&key)).transpose()?;
    Ok(Opened { key, certificates: certificates.read()? })
}

/// Copies a password with a zero byte at its end.
fn terminated(password: &SecureBytes) -> Result<SecureBytes> {
    if password.expose().contains(&0) {
        return Err(Error::new(Kind::DataInvalid, "the password of a PKCS #12 file has no zero byte"));
    }
    let mut copy = SecureBytes::zeroed(password.len() + 1);
    copy.expose_mut().iter_mut().zip(password.expose()).for_each(|(to, from)| *to = *from);
    Ok(copy)
}

/// A stack of certificates that is ours.
struct Stack(*mut c_void);

impl Stack {
    fn new() -> Result<Self> {
        // SAFETY: takes no argument.
        let stack = unsafe { stack_new() };
        if stack.is_null() { Err(Error::from(Kind::HostMemory)) } else { Ok(Self(stack)) }
    }

    fn read(&self) -> Result<Vec<Certificate>> {
        // SAFETY: the stack is valid.
        let count = unsafe { stack_len(self.0) };
        let mut certificates = Vec::new();
        for index in 0..count {
            // SAFETY: the stack is valid, and the index below its count.
            let certificate = unsafe { stack_value(self.0, index) };
            certificates.push(read_certificate(certificate)?);
        }
        Ok(certificates)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        loop {
            // SAFETY: the stack is valid; an empty one gives NULL.
            let certificate = unsafe { stack_pop(self.0) };
            if certificate.is_null() {
                break;
            }
            // SAFETY: what AWS-LC put on the stack was a certificate with a reference of ours.
            unsafe { x509_free(certificate) }
        }
        // SAFETY: the stack is ours, and this is its last use.
        unsafe { stack_free(self.0) }
    }
}

fn read_certificate(certificate: *mut c_void) -> Result<Certificate> {
    // SAFETY: the certificate is valid; NULL asks for the length.
    let len = unsafe { x509_to_der(certificate, ptr::null_mut()) };
    let mut der = vec![0; usize::try_from(len).map_err(|_| Error::from(Kind::GeneralError))?];
    let mut to = der.as_mut_ptr();
    // SAFETY: the certificate is valid, and `to` has room for what was asked for.
    unsafe { x509_to_der(certificate, &raw mut to) };
    let mut name_len = 0;
    // SAFETY: the certificate is valid; the name is borrowed from it, or NULL.
    let name = unsafe { x509_name(certificate, &raw mut name_len) };
    let name_len = usize::try_from(name_len).unwrap_or(0);
    if name.is_null() || name_len == 0 {
        return Ok(Certificate { der, name: None });
    }
    // SAFETY: the name has so many bytes and outlives this copy.
    let name = unsafe { std::slice::from_raw_parts(name, name_len) };
    Ok(Certificate { der, name: Some(String::from_utf8_lossy(name).into_owned()) })
}

/// Takes the errors of the last call from this thread's queue, each as library and reason.
fn reasons() -> Vec<(i32, i32)> {
    let next = || {
        // SAFETY: takes no argument and only touches the thread's queue.
        let error = unsafe { sys::ERR_get_error() };
        (error != 0).then(|| (sys::ERR_GET_LIB(error), sys::ERR_GET_REASON(error)))
    };
    let reasons = std::iter::from_fn(next).collect();
    clear_errors();
    reasons
}

/// The reasons of AWS-LC's PKCS #8 (`openssl/pkcs8.h`) that are told apart, and the one of its PKCS #12.
const BAD_PKCS12_DATA: i32 = 100;
const BAD_PKCS12_VERSION: i32 = 101;
const MISSING_MAC: i32 = 112;
const MULTIPLE_PRIVATE_KEYS: i32 = 113;
/// Those that say that a scheme is unknown: PKCS8_R_UNKNOWN_… and PKCS8_R_UNSUPPORTED_….
const UNSUPPORTED: [i32; 10] = [119, 120, 121, 122, 123, 125, 126, 127, 128, 130];
const MAC_VERIFY_FAILURE: i32 = 108;

/// Says in words why AWS-LC did not open a container.
fn refusal(reasons: &[(i32, i32)]) -> Error {
    let of_pkcs8 = |reason| reasons.contains(&(sys::ERR_LIB_PKCS8, reason));
    let invalid = |text| Error::new(Kind::EncryptedDataInvalid, text);
    if reasons.contains(&(sys::ERR_LIB_PKCS12, MAC_VERIFY_FAILURE)) {
        return invalid("the password is wrong, or the file was altered");
    }
    if of_pkcs8(MULTIPLE_PRIVATE_KEYS) {
        return invalid(
            "the file holds more than one private key: put each into a file of its own (`keytool -importkeystore -srcalias`)",
        );
    }
    if of_pkcs8(MISSING_MAC) {
        return invalid("the file has no MAC, so nothing tells whether it was altered: make it anew with one");
    }
    if UNSUPPORTED.iter().any(|reason| of_pkcs8(*reason)) {
        return unsupported();
    }
    if of_pkcs8(BAD_PKCS12_DATA) || of_pkcs8(BAD_PKCS12_VERSION) {
        return invalid("the file is no PKCS #12, or is damaged");
    }
    wrong_password()
}

fn wrong_password() -> Error {
    Error::new(Kind::EncryptedDataInvalid, "the password is wrong, or the file is damaged")
}

fn unsupported() -> Error {
    let text = "the file is protected by a scheme that is not supported: write it anew with one that is (`openssl pkcs8 -topk8 \
                -v2 aes-256-cbc`, `openssl pkcs12 -export`)";
    Error::new(Kind::EncryptedDataInvalid, text)
}
