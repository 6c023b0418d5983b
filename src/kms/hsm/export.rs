//! Taking out what another token holds, for its migration: every object, and each key that may leave, wrapped.
//!
//! The rules are:
//! - no key leaves in plaintext: the device makes a transport key that lasts as long as the session, wraps it under the RSA key of whoever
//!   asks, and wraps each key under it (RFC 5649), as CKM_RSA_AES_KEY_WRAP does in one step where there is one;
//! - nothing on the token is changed;
//! - a key that does not leave is told with the reason, and does not keep the others from it.

use std::path::PathBuf;
use std::time::Duration;

use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::device::{Connection, Device, Place, ulong};
use super::fault::{Fail, Try, fail};
use super::hash::oaep;
use super::pin::PinSource;
use crate::ck::*;
use crate::error::{Error, KmsFault, Result};
use crate::kms::Hash;
use crate::secret::SecureBytes;

/// How long a token may take to give all of it.
const PATIENCE: Duration = Duration::from_secs(3600);
/// The length of the transport key in bytes.
const TRANSPORT_LEN: u32 = 32;

/// Which token is taken out.
pub struct TokenSource {
    /// The file of its PKCS #11 module.
    pub module: PathBuf,
    /// Its label; without label and serial number, the only one that there is.
    pub label: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its user PIN.
    pub pin: Option<SecureBytes>,
}

/// What a token holds.
pub struct Export {
    /// The transport key, wrapped by RSA-OAEP with SHA-1, the one hash that all devices have.
    pub transport: Vec<u8>,
    /// Its objects.
    pub objects: Vec<Exported>,
}

/// One object.
pub struct Exported {
    /// The attributes that are not secret.
    pub attributes: Attributes,
    /// The key, wrapped under the transport key, or why it does not leave; nothing for an object that is none.
    pub wrapped: Option<Result<Vec<u8>>>,
}

/// Takes out all objects of a token; the modulus and exponent are those of an RSA key whose private half the caller has.
///
/// # Errors
/// A `KmsFault` when the module, the token or the transport key cannot be had.
pub fn export(source: TokenSource, modulus: Vec<u8>, exponent: Vec<u8>) -> Result<Export> {
    let pin = source.pin.map_or(PinSource::Device, PinSource::Given);
    let place = Place { module: source.module, label: source.label, serial: source.serial, slot: None, pin };
    Device::new(place, PATIENCE).run(move |device| take_out(device, &modulus, &exponent))
}

fn take_out(device: &mut Connection, modulus: &[u8], exponent: &[u8]) -> Try<Export> {
    if !device.offers(MechanismType::AES_KEY_WRAP_PAD) {
        let text = "the token does not offer CKM_AES_KEY_WRAP_PAD, without which its keys do not leave it in a form that is read here";
        return Err(Fail::new(KmsFault::Unsupported, text));
    }
    let session = &device.session;
    let to = session.create_object(&public_template(modulus, exponent));
    let to = to.map_err(|error| fail(error, "bring in the public key under which keys leave"))?;
    let made = session.generate_key(&Mechanism::AesKeyGen, &transport_template());
    let made = made.map_err(|error| fail(error, "make a key under which keys leave"))?;
    let transport = session.wrap_key(&oaep(Hash::Sha1), to, made);
    let transport = transport.map_err(|error| fail(error, "wrap the key under which keys leave"))?;
    let mut objects = Vec::new();
    for (class, id, wanted) in CLASSES {
        for handle in device.find(&[Attribute::Class(class)])? {
            objects.push(read(session, made, handle, id, wanted)?);
        }
    }
    for temporary in [to, made] {
        session.destroy_object(temporary).map_err(|error| fail(error, "destroy the key under which keys left"))?;
    }
    Ok(Export { transport, objects })
}

/// Reads one object, and wraps it if it is a private or secret key.
fn read(
    session: &Session,
    by: ObjectHandle,
    handle: ObjectHandle,
    class: u64,
    wanted: &[AttributeType],
) -> Try<Exported> {
    let found = session.get_attributes(handle, &[COMMON, wanted].concat());
    let found = found.map_err(|error| fail(error, "read the attributes of an object"))?;
    let mut attributes: Attributes = found.into_iter().filter_map(known).collect();
    attributes.set(CKA_CLASS, class);
    let wrapped = matches!(class, CKO_PRIVATE_KEY | CKO_SECRET_KEY).then(|| wrap(session, by, handle, &attributes));
    Ok(Exported { attributes, wrapped })
}

fn wrap(session: &Session, by: ObjectHandle, key: ObjectHandle, attributes: &Attributes) -> Result<Vec<u8>> {
    if attributes.bool(CKA_EXTRACTABLE) != Some(true) {
        let text = "its CKA_EXTRACTABLE is false, so its module gives it to nobody, and the files in which SoftHSM2 keeps it are not read \
                    here: make a new key, put its public key wherever the old one is known, and keep the old token until then";
        return Err(Error::kms(KmsFault::Denied, text));
    }
    let wrapped = session.wrap_key(&Mechanism::AesKeyWrapPad, by, key);
    wrapped.map_err(|error| fail(error, "wrap the key").error)
}

/// What is read of every object.
const COMMON: &[AttributeType] =
    &[AttributeType::Label, AttributeType::Id, AttributeType::Private, AttributeType::Subject];
/// What is read of a private key.
const PRIVATE: &[AttributeType] = &[
    AttributeType::KeyType,
    AttributeType::Extractable,
    AttributeType::Sign,
    AttributeType::Decrypt,
    AttributeType::Unwrap,
    AttributeType::Derive,
];
/// What is read of a secret key.
const SECRET: &[AttributeType] = &[
    AttributeType::KeyType,
    AttributeType::Extractable,
    AttributeType::Encrypt,
    AttributeType::Decrypt,
    AttributeType::Sign,
    AttributeType::Verify,
    AttributeType::Wrap,
    AttributeType::Unwrap,
    AttributeType::Derive,
];
/// What is read of a public key.
const PUBLIC: &[AttributeType] = &[
    AttributeType::KeyType,
    AttributeType::Modulus,
    AttributeType::PublicExponent,
    AttributeType::EcParams,
    AttributeType::EcPoint,
    AttributeType::Encrypt,
    AttributeType::Verify,
    AttributeType::Wrap,
    AttributeType::Derive,
];
/// What is read of a certificate.
const CERTIFICATE: &[AttributeType] =
    &[AttributeType::CertificateType, AttributeType::Issuer, AttributeType::SerialNumber, AttributeType::Value];
/// What is read of data.
const DATA: &[AttributeType] = &[AttributeType::Application, AttributeType::ObjectId, AttributeType::Value];

/// The classes of objects, in the order in which they are read.
const CLASSES: [(ObjectClass, u64, &[AttributeType]); 5] = [
    (ObjectClass::PUBLIC_KEY, CKO_PUBLIC_KEY, PUBLIC),
    (ObjectClass::PRIVATE_KEY, CKO_PRIVATE_KEY, PRIVATE),
    (ObjectClass::SECRET_KEY, CKO_SECRET_KEY, SECRET),
    (ObjectClass::CERTIFICATE, CKO_CERTIFICATE, CERTIFICATE),
    (ObjectClass::DATA, CKO_DATA, DATA),
];

/// The types of keys that there are here.
const KEY_TYPES: [(KeyType, u64); 6] = [
    (KeyType::RSA, CKK_RSA),
    (KeyType::EC, CKK_EC),
    (KeyType::EC_EDWARDS, CKK_EC_EDWARDS),
    (KeyType::EC_MONTGOMERY, CKK_EC_MONTGOMERY),
    (KeyType::AES, CKK_AES),
    (KeyType::GENERIC_SECRET, CKK_GENERIC_SECRET),
];

/// Takes an attribute over, if it is one that is asked for.
fn known(attribute: Attribute) -> Option<(CK_ATTRIBUTE_TYPE, Value)> {
    let of_type =
        |of: KeyType| KEY_TYPES.iter().find(|row| row.0 == of).map_or(CK_UNAVAILABLE_INFORMATION, |row| row.1);
    Some(match attribute {
        Attribute::Label(bytes) => (CKA_LABEL, bytes.into()),
        Attribute::Id(bytes) => (CKA_ID, bytes.into()),
        Attribute::Subject(bytes) => (CKA_SUBJECT, bytes.into()),
        Attribute::Private(flag) => (CKA_PRIVATE, flag.into()),
        Attribute::KeyType(of) => (CKA_KEY_TYPE, of_type(of).into()),
        Attribute::Extractable(flag) => (CKA_EXTRACTABLE, flag.into()),
        Attribute::Sign(flag) => (CKA_SIGN, flag.into()),
        Attribute::Verify(flag) => (CKA_VERIFY, flag.into()),
        Attribute::Encrypt(flag) => (CKA_ENCRYPT, flag.into()),
        Attribute::Decrypt(flag) => (CKA_DECRYPT, flag.into()),
        Attribute::Wrap(flag) => (CKA_WRAP, flag.into()),
        Attribute::Unwrap(flag) => (CKA_UNWRAP, flag.into()),
        Attribute::Derive(flag) => (CKA_DERIVE, flag.into()),
        Attribute::Modulus(bytes) => (CKA_MODULUS, bytes.into()),
        Attribute::PublicExponent(bytes) => (CKA_PUBLIC_EXPONENT, bytes.into()),
        Attribute::EcParams(bytes) => (CKA_EC_PARAMS, bytes.into()),
        Attribute::EcPoint(bytes) => (CKA_EC_POINT, bytes.into()),
        Attribute::CertificateType(_) => (CKA_CERTIFICATE_TYPE, CKC_X_509.into()),
        Attribute::Issuer(bytes) => (CKA_ISSUER, bytes.into()),
        Attribute::SerialNumber(bytes) => (CKA_SERIAL_NUMBER, bytes.into()),
        Attribute::Value(bytes) => (CKA_VALUE, bytes.into()),
        Attribute::Application(bytes) => (CKA_APPLICATION, bytes.into()),
        Attribute::ObjectId(bytes) => (CKA_OBJECT_ID, bytes.into()),
        _ => return None,
    })
}

fn public_template(modulus: &[u8], exponent: &[u8]) -> [Attribute; 7] {
    [
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(KeyType::RSA),
        Attribute::Token(false),
        Attribute::Private(false),
        Attribute::Wrap(true),
        Attribute::Modulus(modulus.to_vec()),
        Attribute::PublicExponent(exponent.to_vec()),
    ]
}

fn transport_template() -> [Attribute; 6] {
    [
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(true),
        Attribute::Wrap(true),
        Attribute::ValueLen(ulong(TRANSPORT_LEN)),
    ]
}
