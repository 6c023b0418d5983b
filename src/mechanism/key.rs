//! Keys ready for use, and what each key type knows of itself: how its secret is parsed, imported, revealed and wrapped.
//!
//! A [`KeyType`] is a static row like a mechanism's; the family's file holds it, `mod.rs` lists it.

use std::sync::Arc;

use super::remote::RemoteKind;
use crate::ck::{Attributes, CK_ATTRIBUTE_TYPE, CK_KEY_TYPE};
use crate::crypto;
use crate::error::{Error, Kind, Result};
use crate::secret::{SecureBytes, SecurePrivateKey};

/// A key parsed for use, kept while its user is logged in. It fills cache lines of its own, for the sake of [`Key::apart`].
#[repr(align(64))]
pub enum Key {
    /// An RSA private key.
    RsaPrivate(crypto::rsa::PrivateKey),
    /// An RSA public key.
    RsaPublic(crypto::rsa::PublicKey),
    /// A private key on a NIST curve.
    EcPrivate(crypto::ec::PrivateKey),
    /// A public key on a NIST curve.
    EcPublic(crypto::ec::PublicKey),
    /// A private key on secp256k1.
    Secp256k1Private(crypto::secp256k1::PrivateKey),
    /// A public key on secp256k1.
    Secp256k1Public(crypto::secp256k1::PublicKey),
    /// An Ed25519 private key.
    Ed25519Private(crypto::ed::PrivateKey),
    /// An Ed25519 public key.
    Ed25519Public(crypto::ed::PublicKey),
    /// An X25519 private key.
    X25519Private(crypto::x25519::PrivateKey),
    /// An AES key, with its key schedules made at first use.
    Aes(super::aes::AesKey),
    /// A generic or HMAC secret.
    Generic(super::generic::GenericKey),
    /// A key that lives in a KMS.
    Remote(Box<super::remote::RemoteKey>),
    /// A KMS master key.
    Master(Box<dyn super::kms::MasterKeyService>),
}

impl Key {
    /// Gives the same key under a count of its own, for a type whose operations are so short that threads which use one key
    /// would mostly wait for the cache line of its count.
    pub fn apart(key: &Arc<Self>) -> Arc<Self> {
        match key.as_ref() {
            Self::Aes(aes) => Arc::new(Self::Aes(aes.apart())),
            _ => key.clone(),
        }
    }

    /// The error of a key of a type that an operation does not take. Rows check types first, so reaching it is rare.
    pub fn wrong_type() -> Error {
        Error::from(Kind::KeyTypeInconsistent)
    }
}

/// Parses a private or secret key.
pub type ParseSecret = fn(&Attributes, &SecurePrivateKey) -> Result<Key>;
/// Encodes a public key as `SubjectPublicKeyInfo`.
pub type PublicKeyInfo = fn(&Attributes) -> Result<Vec<u8>>;
/// Decodes a `SubjectPublicKeyInfo`.
pub type FromPublicKeyInfo = fn(&[u8]) -> Result<Attributes>;
/// Finds the bytes that a `CKA_ID` is made of.
pub type IdSource = fn(&Attributes) -> Option<Vec<u8>>;
/// Reveals one secret attribute.
pub type Reveal = fn(&Attributes, &SecurePrivateKey, CK_ATTRIBUTE_TYPE) -> Result<Option<SecureBytes>>;
/// Encodes a secret for wrapping.
pub type ToWrapped = fn(&Attributes, &SecurePrivateKey) -> Result<SecureBytes>;
/// Decodes what was unwrapped.
pub type FromWrapped = fn(&mut Attributes, &SecureBytes) -> Result<SecurePrivateKey>;
/// Makes a check value.
pub type CheckValue = fn(&SecurePrivateKey) -> Result<Vec<u8>>;

/// What a key type knows of itself.
pub struct KeyType {
    /// The number of the type.
    pub id: CK_KEY_TYPE,
    /// Attributes that hold parts of the secret (`CKA_VALUE`, `CKA_PRIVATE_EXPONENT`, …).
    pub secret_attributes: &'static [CK_ATTRIBUTE_TYPE],
    /// Attributes that belong to keys of this type and hold nothing secret (`CKA_MODULUS`, `CKA_EC_PARAMS`, …). Templates for
    /// either half of a pair may carry each of them.
    pub public_attributes: &'static [CK_ATTRIBUTE_TYPE],
    /// Parses a public key from its attributes; `None` for secret keys.
    pub public_key: Option<fn(&Attributes) -> Result<Key>>,
    /// Parses a private or secret key from its attributes and its secret.
    pub secret_key: ParseSecret,
    /// Checks a public key's template (C_CreateObject) and brings it to its canonical form (`CKA_EC_POINT` as DER, …),
    /// adding what follows from it (`CKA_MODULUS_BITS`). Nothing for secret keys.
    pub normalize_public: fn(&mut Attributes) -> Result<()>,
    /// Takes the secret attributes out of a private or secret key's template, checks them, and adds the public parts that
    /// follow (`CKA_MODULUS`, `CKA_PUBLIC_EXPONENT`, `CKA_EC_POINT`, `CKA_VALUE_LEN`).
    pub import: fn(&mut Attributes) -> Result<SecurePrivateKey>,
    /// Reveals one secret attribute, for keys that are neither sensitive nor unextractable; `None` when it has no such.
    pub reveal: Reveal,
    /// Encodes the secret for wrapping: PKCS #8 `PrivateKeyInfo` (RFC 5958) for private keys, the bytes themselves for secret keys.
    pub to_wrapped: ToWrapped,
    /// Decodes what was unwrapped; gives the secret, and adds the attributes that follow from it.
    pub from_wrapped: FromWrapped,
    /// Encodes the public key as `SubjectPublicKeyInfo` (RFC 5280) from the attributes of either half, for `CKA_PUBLIC_KEY_INFO`;
    /// `None` for secret keys.
    pub public_key_info: Option<PublicKeyInfo>,
    /// Reads a `SubjectPublicKeyInfo`: gives the attributes that both halves carry; `None` for secret keys.
    pub from_public_key_info: Option<FromPublicKeyInfo>,
    /// Tells what a KMS calls such a key, from the attributes of its private or secret half; `None` where no KMS has such.
    pub remote_kind: Option<fn(&Attributes) -> Result<RemoteKind>>,
    /// Makes `CKA_CHECK_VALUE` of a secret key (PKCS #11 v3.2, 4.10.2): the first three bytes of its check; `None` for private keys.
    pub check_value: Option<CheckValue>,
    /// The bytes over which a missing `CKA_ID` is made (SHA-1 of them), from the attributes of either half: the modulus, the
    /// point without its DER frame. `None` for secret keys.
    pub id_source: Option<IdSource>,
}
