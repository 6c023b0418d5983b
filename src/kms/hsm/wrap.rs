//! How a master key on a device wraps a key of 32 bytes.
//!
//! The rules are:
//! - a wrapped key is the number of its algorithm and what the device made, so that a change of settings or of the device's
//!   abilities leaves old blobs readable;
//! - what was wrapped is unwrapped once before anybody relies on it.

use cryptoki::error::{Error as Pkcs11Error, Result as Pkcs11Result, RvError};
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::super::no_randomness;
use super::super::provider::DATA_KEY_LEN;
use super::super::remote::Hash;
use super::device::{Connection, ulong};
use super::fault::{Fail, Try, fail};
use super::hash::oaep;
use super::name::{Class, Name};
use crate::error::{Error, KmsFault};
use crate::secret::SecureBytes;

/// The length of a nonce of AES-GCM in bytes (NIST SP 800-38D, 8.2.2).
const NONCE_LEN: usize = 12;
/// The length of its tag in bits, and in bytes.
const TAG_BITS: u32 = 128;
const TAG_LEN: usize = 16;

/// How a key is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// CKM_AES_GCM by C_Encrypt.
    Gcm,
    /// CKM_AES_KEY_WRAP (RFC 3394) by C_Encrypt where the device takes it so, else by C_WrapKey.
    Kw,
    /// CKM_AES_KEY_WRAP_PAD in the same way.
    KwPad,
    /// CKM_RSA_PKCS_OAEP by C_Encrypt, with this hash for both uses.
    Oaep(Hash),
}

/// What is known of an algorithm.
pub struct Row {
    /// Which it is.
    pub algorithm: Algorithm,
    /// Its number in a blob.
    number: u8,
    /// Its word in the settings.
    pub word: &'static str,
    /// Its name for people.
    name: &'static str,
}

const fn row(algorithm: Algorithm, number: u8, word: &'static str, name: &'static str) -> Row {
    Row { algorithm, number, word, name }
}

/// Every algorithm; the first that fits is taken. AES-GCM is first because it needs no object on the device.
pub static ALGORITHMS: &[Row] = &[
    row(Algorithm::Gcm, 1, "aes-gcm", "CKM_AES_GCM"),
    row(Algorithm::Kw, 2, "aes-kw", "CKM_AES_KEY_WRAP"),
    row(Algorithm::KwPad, 3, "aes-kwp", "CKM_AES_KEY_WRAP_PAD"),
    row(Algorithm::Oaep(Hash::Sha1), 4, "rsa-oaep", "CKM_RSA_PKCS_OAEP with SHA-1"),
    row(Algorithm::Oaep(Hash::Sha256), 5, "rsa-oaep", "CKM_RSA_PKCS_OAEP with SHA-256"),
    row(Algorithm::Oaep(Hash::Sha384), 6, "rsa-oaep", "CKM_RSA_PKCS_OAEP with SHA-384"),
    row(Algorithm::Oaep(Hash::Sha512), 7, "rsa-oaep", "CKM_RSA_PKCS_OAEP with SHA-512"),
];

impl Algorithm {
    /// Names it for people.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    fn row(self) -> &'static Row {
        ALGORITHMS.iter().find(|row| row.algorithm == self).expect("the table has every algorithm")
    }

    /// Tells which mechanism does it.
    pub fn mechanism(self) -> MechanismType {
        match self {
            Self::Gcm => MechanismType::AES_GCM,
            Self::Kw => MechanismType::AES_KEY_WRAP,
            Self::KwPad => MechanismType::AES_KEY_WRAP_PAD,
            Self::Oaep(_) => MechanismType::RSA_PKCS_OAEP,
        }
    }
}

/// Wraps a key of 32 bytes, and unwraps it again: what the device does not give back must not be relied on. The public half of RSA
/// may be another key's, and a device may have replaced the nonce without telling.
pub fn wrap_and_check(device: &mut Connection, name: &Name, algorithm: Algorithm, key: &SecureBytes) -> Try<Vec<u8>> {
    let wrapped = wrap(device, name, algorithm, key)?;
    match unwrap_by(device, name, algorithm, wrapped.get(1..).unwrap_or_default()) {
        Ok(again) if again == *key => Ok(wrapped),
        Err(fail) if fail.lost || fail.fault().is_some_and(KmsFault::may_pass) => Err(fail),
        other => {
            let text = format!(
                "the master key `{name}` does not unwrap what it has just wrapped by {}, so nothing was wrapped; for RSA, is the                  public key of the same label and id its own? Else try another mechanism",
                algorithm.name()
            );
            let error = Error::kms(KmsFault::Failed, text);
            Err(match other {
                Err(fail) => error.caused_by(fail.error).into(),
                Ok(_) => error.into(),
            })
        }
    }
}

/// Wraps a key of 32 bytes.
fn wrap(device: &mut Connection, name: &Name, algorithm: Algorithm, key: &SecureBytes) -> Try<Vec<u8>> {
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(no_randomness)?;
    let handle = match algorithm {
        Algorithm::Oaep(_) => public_half(device, name)?,
        _ => device.handle(name)?,
    };
    let session = &device.session;
    let wrapped = match algorithm {
        Algorithm::Gcm => encrypt_gcm(session, handle, nonce, key),
        Algorithm::Kw => wrap_kw(device, &Mechanism::AesKeyWrap, handle, key),
        Algorithm::KwPad => wrap_kw(device, &Mechanism::AesKeyWrapPad, handle, key),
        Algorithm::Oaep(hash) => session.encrypt(&oaep(hash), handle, key.expose()),
    };
    let wrapped = wrapped.map_err(|error| fail(error, format!("wrap under the master key `{name}`")))?;
    Ok([&[algorithm.row().number][..], &wrapped].concat())
}

/// Unwraps a key of 32 bytes.
pub fn unwrap(device: &mut Connection, name: &Name, wrapped: &[u8]) -> Try<SecureBytes> {
    let damaged = || Fail::new(KmsFault::Tampered, "the wrapped blob is damaged: it names no algorithm of its key");
    let (number, rest) = wrapped.split_first().ok_or_else(damaged)?;
    let algorithm = ALGORITHMS.iter().find(|row| row.number == *number).ok_or_else(damaged)?.algorithm;
    if matches!(algorithm, Algorithm::Oaep(_)) != (name.class == Class::Private) {
        return Err(damaged());
    }
    if algorithm == Algorithm::Gcm && rest.len() != NONCE_LEN + DATA_KEY_LEN + TAG_LEN {
        return Err(Fail::new(KmsFault::Tampered, "the wrapped blob is damaged: its length is not that of AES-GCM"));
    }
    unwrap_by(device, name, algorithm, rest).map_err(|fail| {
        if !fail.vague || !works(device, name, algorithm) {
            return fail;
        }
        let text = format!("the wrapped blob is damaged or was altered: the master key `{name}` works, and refuses it");
        Error::kms(KmsFault::Tampered, text).caused_by(fail.error).into()
    })
}

/// Unwraps by one algorithm.
fn unwrap_by(device: &mut Connection, name: &Name, algorithm: Algorithm, wrapped: &[u8]) -> Try<SecureBytes> {
    let handle = device.handle(name)?;
    let session = &device.session;
    let key = match algorithm {
        Algorithm::Gcm => decrypt_gcm(session, handle, wrapped),
        Algorithm::Kw => unwrap_kw(device, &Mechanism::AesKeyWrap, handle, wrapped),
        Algorithm::KwPad => unwrap_kw(device, &Mechanism::AesKeyWrapPad, handle, wrapped),
        Algorithm::Oaep(hash) => session.decrypt(&oaep(hash), handle, wrapped),
    };
    key.map(SecureBytes::take).map_err(|error| fail(error, format!("unwrap with the master key `{name}`")))
}

/// Tells whether the device wraps and unwraps a new key: then what it refused was at fault.
fn works(device: &mut Connection, name: &Name, algorithm: Algorithm) -> bool {
    let Ok(key) = SecureBytes::try_with(DATA_KEY_LEN, getrandom::fill) else { return false };
    let Ok(wrapped) = wrap(device, name, algorithm, &key) else { return false };
    let again = unwrap_by(device, name, algorithm, wrapped.get(1..).unwrap_or_default());
    again.is_ok_and(|again| again == key)
}

/// Finds the public half of an RSA key.
fn public_half(device: &Connection, name: &Name) -> Try<ObjectHandle> {
    let class = Attribute::Class(ObjectClass::PUBLIC_KEY);
    let found = device.find(&[class, Attribute::Id(name.id.clone()), Attribute::Label(name.label.clone())])?;
    found.first().copied().ok_or_else(|| {
        let text = format!("the token has no public key beside `{name}`; it must have the same label and id");
        Fail::new(KmsFault::NotFound, text)
    })
}

/// Encrypts with AES-GCM: gives the nonce, which a device may replace by its own, ciphertext and tag.
fn encrypt_gcm(
    session: &Session,
    handle: ObjectHandle,
    mut nonce: [u8; NONCE_LEN],
    key: &SecureBytes,
) -> Pkcs11Result<Vec<u8>> {
    let params = GcmParams::new(&mut nonce, &[], ulong(TAG_BITS))?;
    let sealed = session.encrypt(&Mechanism::AesGcm(params), handle, key.expose())?;
    Ok([&nonce[..], &sealed].concat())
}

/// Decrypts nonce, ciphertext and tag.
fn decrypt_gcm(session: &Session, handle: ObjectHandle, sealed: &[u8]) -> Pkcs11Result<Vec<u8>> {
    let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).unwrap_or_default();
    let mut nonce = nonce.to_vec();
    let params = GcmParams::new(&mut nonce, &[], ulong(TAG_BITS))?;
    session.decrypt(&Mechanism::AesGcm(params), handle, rest)
}

/// Wraps by a mechanism of key wrapping: as data where device and key permit it, else as an object. Both give the same.
fn wrap_kw(device: &Connection, by: &Mechanism<'_>, handle: ObjectHandle, key: &SecureBytes) -> Pkcs11Result<Vec<u8>> {
    if device.encrypts_by(by.mechanism_type()) {
        let wrapped = device.session.encrypt(by, handle, key.expose());
        if !not_permitted(&wrapped) {
            return wrapped;
        }
    }
    wrap_object(&device.session, by, handle, key)
}

/// Unwraps what [`wrap_kw`] wrapped.
fn unwrap_kw(device: &Connection, by: &Mechanism<'_>, handle: ObjectHandle, wrapped: &[u8]) -> Pkcs11Result<Vec<u8>> {
    if device.encrypts_by(by.mechanism_type()) {
        let key = device.session.decrypt(by, handle, wrapped);
        if !not_permitted(&key) {
            return key;
        }
    }
    unwrap_object(&device.session, by, handle, wrapped)
}

/// Tells whether a key may not encrypt or decrypt; it may still wrap and unwrap.
fn not_permitted<T>(answer: &Pkcs11Result<T>) -> bool {
    matches!(answer, Err(Pkcs11Error::Pkcs11(RvError::KeyFunctionNotPermitted, _)))
}

/// Wraps by C_WrapKey, for which the key is an object of the session for a moment.
fn wrap_object(
    session: &Session,
    mechanism: &Mechanism<'_>,
    handle: ObjectHandle,
    key: &SecureBytes,
) -> Pkcs11Result<Vec<u8>> {
    let mut template = visible().to_vec();
    template.push(Attribute::Value(key.expose().to_vec()));
    let object = session.create_object(&template);
    if let Some(Attribute::Value(value)) = template.pop() {
        drop(SecureBytes::take(value));
    }
    let object = object?;
    let wrapped = session.wrap_key(mechanism, handle, object);
    session.destroy_object(object)?;
    wrapped
}

/// Unwraps by C_UnwrapKey into an object of the session, and reads it. The crate keeps a copy for a moment that it does not wipe,
/// another reason why AES-GCM comes first.
fn unwrap_object(
    session: &Session,
    mechanism: &Mechanism<'_>,
    handle: ObjectHandle,
    wrapped: &[u8],
) -> Pkcs11Result<Vec<u8>> {
    let object = session.unwrap_key(mechanism, handle, wrapped, &visible())?;
    let value = session.get_attributes(object, &[AttributeType::Value]);
    session.destroy_object(object)?;
    match value?.into_iter().next() {
        Some(Attribute::Value(value)) => Ok(value),
        _ => Err(Pkcs11Error::NotSupported),
    }
}

/// Gives the attributes of a key of ours that is an object of the session for a moment.
fn visible() -> [Attribute; 6] {
    [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ]
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_algorithm_has_a_number_of_its_own() {
        for (at, row) in ALGORITHMS.iter().enumerate() {
            assert_eq!(ALGORITHMS.iter().position(|other| other.number == row.number), Some(at));
            assert_eq!(row.algorithm.row().number, row.number);
        }
    }
}
