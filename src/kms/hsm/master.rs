//! The master key on a device: its versions, and how it wraps a key of 32 bytes.
//!
//! The rules are:
//! - all keys with the configured label are versions of the master key; those that rotation made carry their number in CKA_ID,
//!   and one with any other CKA_ID is version 1. The highest wraps; a blob names the one that unwraps it;
//! - a wrapped key is the number of its algorithm and what the device made, so that a change of settings or of the device's
//!   abilities leaves old blobs readable;
//! - a key that the device would hand out in the clear is no master key.

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

/// How the CKA_ID of a key that rotation made begins; its number in four bytes and eight random ones follow.
const ROTATED: [u8; 4] = *b"SRKV";
/// The length of such an id.
const ROTATED_LEN: usize = 16;
/// The length of a nonce of AES-GCM in bytes (NIST SP 800-38D, 8.2.2).
const NONCE_LEN: usize = 12;
/// The length of its tag in bits, and in bytes.
const TAG_BITS: u32 = 128;
const TAG_LEN: usize = 16;
/// The length of a new AES key in bytes.
const AES_LEN: u32 = 32;
/// 65537, as every device takes it.
const EXPONENT: [u8; 3] = [1, 0, 1];

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
struct Row {
    algorithm: Algorithm,
    /// Its number in a blob.
    number: u8,
    /// Its word in the settings.
    word: &'static str,
    /// Its name for people.
    name: &'static str,
}

const fn row(algorithm: Algorithm, number: u8, word: &'static str, name: &'static str) -> Row {
    Row { algorithm, number, word, name }
}

/// Every algorithm; the first that fits is taken. AES-GCM is first because it needs no object on the device.
static ALGORITHMS: &[Row] = &[
    row(Algorithm::Gcm, 1, "aes-gcm", "CKM_AES_GCM"),
    row(Algorithm::Kw, 2, "aes-kw", "CKM_AES_KEY_WRAP"),
    row(Algorithm::KwPad, 3, "aes-kwp", "CKM_AES_KEY_WRAP_PAD"),
    row(Algorithm::Oaep(Hash::Sha1), 4, "rsa-oaep", "CKM_RSA_PKCS_OAEP with SHA-1"),
    row(Algorithm::Oaep(Hash::Sha256), 5, "rsa-oaep", "CKM_RSA_PKCS_OAEP with SHA-256"),
    row(Algorithm::Oaep(Hash::Sha384), 6, "rsa-oaep", "CKM_RSA_PKCS_OAEP with SHA-384"),
    row(Algorithm::Oaep(Hash::Sha512), 7, "rsa-oaep", "CKM_RSA_PKCS_OAEP with SHA-512"),
];

/// Which key, and how it shall wrap.
#[derive(Debug, Clone)]
pub struct Choice {
    /// CKA_LABEL of all versions.
    pub label: Option<String>,
    /// CKA_ID of one key, which has no versions then.
    pub id: Option<Vec<u8>>,
    /// The word of the settings; `auto` takes the first that fits.
    pub mechanism: String,
    /// The hash where RSA wraps.
    pub hash: Hash,
}

/// One version of the master key.
#[derive(Debug, Clone)]
pub struct Master {
    /// Its full name.
    pub name: Name,
    /// Its number.
    pub version: u32,
    /// Whether it is of RSA; of AES otherwise.
    rsa: bool,
    /// Which of encrypt, decrypt, wrap and unwrap it may do.
    uses: Uses,
    /// Whether the device would give it away in the clear.
    readable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Uses {
    encrypt: bool,
    decrypt: bool,
    wrap: bool,
    unwrap: bool,
}

impl Algorithm {
    /// Names it for people.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    fn row(self) -> &'static Row {
        ALGORITHMS.iter().find(|row| row.algorithm == self).expect("the table has every algorithm")
    }

    /// Tells which mechanism does it.
    fn mechanism(self) -> MechanismType {
        match self {
            Self::Gcm => MechanismType::AES_GCM,
            Self::Kw => MechanismType::AES_KEY_WRAP,
            Self::KwPad => MechanismType::AES_KEY_WRAP_PAD,
            Self::Oaep(_) => MechanismType::RSA_PKCS_OAEP,
        }
    }
}

impl Choice {
    /// Finds the version that wraps now.
    pub fn current(&self, device: &mut Connection) -> Try<Master> {
        let all = self.versions(device)?;
        let highest = all.iter().map(|master| master.version).max();
        let mut best: Vec<_> = all.into_iter().filter(|master| Some(master.version) == highest).collect();
        // Two processes may have rotated at once: each takes the same one of the two.
        best.sort_by(|one, other| one.name.id.cmp(&other.name.id));
        let ours = best.first().is_some_and(|master| number(&master.name.id).is_some());
        match (best.len(), best.into_iter().next()) {
            (1, Some(master)) => Ok(master),
            (_, Some(master)) if ours => Ok(master),
            (0, _) | (_, None) => Err(Fail::new(
                KmsFault::NotFound,
                format!("the token with serial {} has no AES key and no RSA private key {self}", device.serial),
            )),
            _ => Err(Fail::new(
                KmsFault::Failed,
                format!("the token has more than one key {self}; name one by key_id, or delete the others"),
            )),
        }
    }

    /// Tells whether there is a master key at all.
    pub fn is_some(&self) -> bool {
        self.label.is_some() || self.id.is_some()
    }

    /// Finds all versions. Where each is, is remembered anew: a device may have given the place of a deleted key to another.
    fn versions(&self, device: &mut Connection) -> Try<Vec<Master>> {
        if !self.is_some() {
            let text = "no master key is named (key or key_id), so nothing can be wrapped here: only keys on the token are used";
            return Err(Fail::new(KmsFault::Unsupported, text));
        }
        let mut wanted = Vec::new();
        wanted.extend(self.label.as_ref().map(|label| Attribute::Label(label.clone().into_bytes())));
        wanted.extend(self.id.as_ref().map(|id| Attribute::Id(id.clone())));
        let mut found = Vec::new();
        for (class, object) in [(Class::Secret, ObjectClass::SECRET_KEY), (Class::Private, ObjectClass::PRIVATE_KEY)] {
            let template = [&[Attribute::Class(object)], wanted.as_slice()].concat();
            for handle in device.find(&template)? {
                if let Some(master) = Master::read(device, class, handle)? {
                    device.remember(master.name.clone(), handle);
                    found.push(master);
                }
            }
        }
        Ok(found)
    }

    /// Tells how a master key wraps on this device.
    pub fn algorithm(&self, device: &Connection, master: &Master) -> Try<Algorithm> {
        if master.uses == Uses::default() {
            let text =
                format!("the master key `{}` is disabled: all its uses are switched off on the token", master.name);
            return Err(Fail::new(KmsFault::Disabled, text));
        }
        if master.readable {
            return Err(Fail::new(
                KmsFault::Failed,
                format!(
                    "the token would give the master key `{}` away in the clear; make one with CKA_SENSITIVE, without \
                     CKA_EXTRACTABLE",
                    master.name
                ),
            ));
        }
        self.candidates(master)
            .find(|algorithm| device.offers(algorithm.mechanism()) && master.permits(device, *algorithm))
            .ok_or_else(|| self.nothing_fits(master))
    }

    /// Lists the algorithms that the settings and the type of the key leave.
    fn candidates(&self, master: &Master) -> impl Iterator<Item = Algorithm> {
        let fitting = ALGORITHMS.iter().filter(|row| {
            let kind = match row.algorithm {
                Algorithm::Oaep(hash) => master.rsa && hash == self.hash,
                _ => !master.rsa,
            };
            kind && (self.mechanism == "auto" || self.mechanism == row.word)
        });
        fitting.map(|row| row.algorithm)
    }

    fn nothing_fits(&self, master: &Master) -> Fail {
        let names: Vec<_> = self.candidates(master).map(Algorithm::name).collect();
        let text = if names.is_empty() {
            format!("the mechanism `{}` does not fit the type of the master key `{}`", self.mechanism, master.name)
        } else {
            format!(
                "the master key `{}` cannot wrap by {}: the token lacks it, or the key lacks CKA_ENCRYPT and CKA_DECRYPT, or \
                 CKA_WRAP and CKA_UNWRAP",
                master.name,
                names.join(" or ")
            )
        };
        Fail::new(KmsFault::Unsupported, text)
    }

    /// Makes a new version: a key of the same kind with the same label.
    pub fn rotate(&self, device: &mut Connection) -> Try<Master> {
        let old = self.current(device)?;
        let Some(label) = self.label.as_ref().filter(|_| self.id.is_none()) else {
            let text =
                "key_id names one key, which has no versions; name the master key by its label (key) to rotate it";
            return Err(Fail::new(KmsFault::Unsupported, text));
        };
        let old = self.current(device)?;
        let version =
            old.version.checked_add(1).ok_or_else(|| Fail::new(KmsFault::Failed, "the versions are used up"))?;
        let name = Name { id: rotated_id(version)?, label: label.clone().into_bytes(), ..old.name.clone() };
        let session = device.writable()?;
        let made = if old.rsa { make_rsa(&session, device, &old, &name) } else { make_aes(&session, &name) };
        made.map_err(|error| fail(error, format!("make the master key `{name}`")).for_good())?;
        Ok(Master { name, version, ..old })
    }
}

impl std::fmt::Display for Choice {
    /// Names the key as the settings do.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let label = self.label.as_ref().map(|label| format!("with the label `{}`", label.escape_debug()));
        let id = self.id.as_ref().map(|id| format!("with the id {}", data_encoding::HEXLOWER.encode(id)));
        f.write_str(&[label, id].into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

/// Makes an AES-256 key that never leaves the device.
fn make_aes(session: &Session, name: &Name) -> Pkcs11Result<()> {
    let template = [
        &private(name)[..],
        &[
            Attribute::ValueLen(ulong(AES_LEN)),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::Wrap(true),
            Attribute::Unwrap(true),
        ],
    ];
    session.generate_key(&Mechanism::AesKeyGen, &template.concat()).map(|_| ())
}

/// Makes an RSA key with a modulus as long as the old one's.
fn make_rsa(session: &Session, device: &mut Connection, old: &Master, name: &Name) -> Pkcs11Result<()> {
    let bits = modulus_bits(device, &old.name).unwrap_or(3072);
    let public = [
        Attribute::Token(true),
        Attribute::Label(name.label.clone()),
        Attribute::Id(name.id.clone()),
        Attribute::ModulusBits(ulong(bits)),
        Attribute::PublicExponent(EXPONENT.to_vec()),
        Attribute::Encrypt(true),
    ];
    let secret = [&private(name)[..], &[Attribute::Decrypt(true)]].concat();
    session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &secret).map(|_| ())
}

/// Tells how long the modulus of an RSA key is.
fn modulus_bits(device: &mut Connection, name: &Name) -> Option<u32> {
    let handle = device.handle(name).ok()?;
    match device.session.get_attributes(handle, &[AttributeType::Modulus]).ok()?.into_iter().next()? {
        Attribute::Modulus(modulus) => u32::try_from(modulus.len()).ok()?.checked_mul(8),
        _ => None,
    }
}

/// Gives the attributes of every key that is made to stay on the device.
pub fn private(name: &Name) -> [Attribute; 6] {
    [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Label(name.label.clone()),
        Attribute::Id(name.id.clone()),
    ]
}

/// Makes the CKA_ID of a version.
fn rotated_id(version: u32) -> Try<Vec<u8>> {
    let mut random = [0; ROTATED_LEN - 8];
    getrandom::fill(&mut random).map_err(no_randomness)?;
    Ok([&ROTATED[..], &version.to_be_bytes(), &random].concat())
}

/// Reads the version out of the CKA_ID of a key that rotation made.
fn number(id: &[u8]) -> Option<u32> {
    let version = id.strip_prefix(&ROTATED).filter(|_| id.len() == ROTATED_LEN)?.first_chunk()?;
    Some(u32::from_be_bytes(*version))
}

impl Master {
    /// Reads what a key is; `None` for one that is neither AES nor RSA.
    fn read(device: &Connection, class: Class, handle: ObjectHandle) -> Try<Option<Self>> {
        let wanted = [
            AttributeType::KeyType,
            AttributeType::Label,
            AttributeType::Id,
            AttributeType::Encrypt,
            AttributeType::Decrypt,
            AttributeType::Wrap,
            AttributeType::Unwrap,
            AttributeType::Sensitive,
            AttributeType::Extractable,
        ];
        let found =
            device.session.get_attributes(handle, &wanted).map_err(|error| fail(error, "read the master key"))?;
        let name = Name { serial: device.serial.clone(), label: Vec::new(), id: Vec::new(), class };
        let mut master = Self { name, version: 1, rsa: false, uses: Uses::default(), readable: false };
        let (mut kind, mut sensitive, mut extractable) = (None, true, false);
        for attribute in found {
            match attribute {
                Attribute::KeyType(found) => kind = Some(found),
                Attribute::Label(label) => master.name.label = label,
                Attribute::Id(id) => master.name.id = id,
                Attribute::Encrypt(may) => master.uses.encrypt = may,
                Attribute::Decrypt(may) => master.uses.decrypt = may,
                Attribute::Wrap(may) => master.uses.wrap = may,
                Attribute::Unwrap(may) => master.uses.unwrap = may,
                Attribute::Sensitive(is) => sensitive = is,
                Attribute::Extractable(is) => extractable = is,
                _ => {}
            }
        }
        master.version = number(&master.name.id).unwrap_or(1);
        master.readable = !sensitive && extractable;
        master.rsa = kind == Some(KeyType::RSA);
        Ok((master.rsa == (class == Class::Private) && (master.rsa || kind == Some(KeyType::AES))).then_some(master))
    }

    /// Tells whether the key's attributes permit an algorithm. What the public half of RSA may is the public object's.
    fn permits(&self, device: &Connection, algorithm: Algorithm) -> bool {
        let encrypts = self.uses.encrypt && self.uses.decrypt;
        match algorithm {
            Algorithm::Gcm => encrypts,
            Algorithm::Kw | Algorithm::KwPad => {
                (self.uses.wrap && self.uses.unwrap) || (encrypts && device.encrypts_by(algorithm.mechanism()))
            }
            Algorithm::Oaep(_) => self.uses.decrypt,
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
    unwrap_by(device, name, algorithm, rest).or_else(|fail| {
        if !fail.vague || !works(device, name, algorithm) {
            return Err(fail);
        }
        let text = format!("the wrapped blob is damaged or was altered: the master key `{name}` works, and refuses it");
        Err(Error::kms(KmsFault::Tampered, text).caused_by(fail.error).into())
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
    fn the_version_stands_in_the_id_of_a_rotated_key() {
        for version in [1, 2, 258, u32::MAX] {
            assert_eq!(number(&rotated_id(version).expect("randomness")), Some(version));
        }
        for other in
            [&b""[..], b"\x01", b"SRKV", b"SRKV\0\0\0\x02", b"SRKV\0\0\0\x02.........", b"srkv\0\0\0\x02........"]
        {
            assert_eq!(number(other), None);
        }
    }

    #[test]
    fn each_algorithm_has_a_number_of_its_own() {
        for (at, row) in ALGORITHMS.iter().enumerate() {
            assert_eq!(ALGORITHMS.iter().position(|other| other.number == row.number), Some(at));
            assert_eq!(row.algorithm.row().number, row.number);
        }
    }
}
