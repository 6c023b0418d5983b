//! What the service tells about a key: a JSON Web Key (RFC 7517, RFC 7518) with attributes, and how it becomes the
//! SubjectPublicKeyInfo (RFC 5280) that all others read.

use azure_core::time::OffsetDateTime;
use azure_security_keyvault_keys::models::{CurveName, JsonWebKey, Key, KeyAttributes, KeyType};
use der::Encode;
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef};
use spki::{AlgorithmIdentifier, SubjectPublicKeyInfo};

use super::keys;
use super::vault::KeyId;
use crate::error::{Error, KmsFault, Result};
use crate::kms::provider::KeyState;
use crate::kms::remote::{Curve, KeySpec, RemoteKey, Uses};

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// What a point that is not compressed starts with (SEC 1, 2.3.3).
const UNCOMPRESSED: u8 = 4;

/// What kind of key it is; whether an HSM protects it makes no difference to its use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// RSA and RSA-HSM.
    Rsa,
    /// EC and EC-HSM.
    Ec,
    /// oct and oct-HSM.
    Oct,
    /// A type of which this library does not know.
    Other,
}

/// What is known of one version of a key.
#[derive(Debug, Clone)]
pub struct KeyFacts {
    /// Its identifier.
    pub id: KeyId,
    /// What kind of key it is.
    pub kind: Kind,
    /// Whether it can be used now.
    pub state: KeyState,
    key: JsonWebKey,
}

impl KeyFacts {
    /// Reads an answer of the service.
    ///
    /// # Errors
    /// `Failed` for an answer without a key identifier.
    pub fn read(answer: Key) -> Result<Self> {
        let key = answer.key.unwrap_or_default();
        let id = key.kid.as_deref().and_then(KeyId::parse);
        let id = id.ok_or_else(|| Error::kms(KmsFault::Failed, "Azure told of a key without a key identifier"))?;
        let kind = match key.kty {
            Some(KeyType::Rsa | KeyType::RsaHsm) => Kind::Rsa,
            Some(KeyType::Ec | KeyType::EcHsm) => Kind::Ec,
            Some(KeyType::Oct | KeyType::OctHsm) => Kind::Oct,
            _ => Kind::Other,
        };
        Ok(Self { id, kind, state: state(answer.attributes.as_ref()), key })
    }

    /// Tells whether the key's own list of operations has this one; a key without a list may do all.
    pub fn may(&self, operation: &str) -> bool {
        self.key.key_ops.as_ref().is_none_or(|all| all.is_empty() || all.iter().any(|one| one == operation))
    }

    /// Names the algorithms of the key as the service does.
    pub fn algorithms(&self) -> Vec<String> {
        let names: &[&str] = match self.kind {
            Kind::Rsa => &["RSA-OAEP-256"],
            Kind::Oct => &["A256KW"],
            Kind::Ec => return self.spec().map(keys::algorithm_names).unwrap_or_default(),
            Kind::Other => &[],
        };
        names.iter().map(|&name| name.to_owned()).collect()
    }

    /// Tells what the key is, if it is one that signs or decrypts.
    pub fn spec(&self) -> Option<KeySpec> {
        match self.kind {
            Kind::Rsa => modulus_bits(self.key.n.as_deref()?).map(KeySpec::Rsa),
            Kind::Ec => curve(self.key.crv.as_ref()?).map(KeySpec::Ec),
            Kind::Oct | Kind::Other => None,
        }
    }

    /// Makes what the token shows of the key.
    ///
    /// # Errors
    /// `Unsupported` for a kind that cannot be used from here; `Failed` for a public key that makes no sense.
    pub fn into_remote(self) -> Result<RemoteKey> {
        let spec = self.spec().ok_or_else(|| {
            let text =
                format!("the Azure key `{}` is of a kind that cannot be used from here; RSA and EC keys can", self.id);
            Error::kms(KmsFault::Unsupported, text)
        })?;
        let public = self.public(spec).map_err(|error| {
            let text = format!("Azure gave a public key of `{}` that makes no sense", self.id);
            Error::kms(KmsFault::Failed, text).caused_by(error)
        })?;
        let uses = Uses { sign: self.may("sign"), decrypt: self.kind == Kind::Rsa && self.may("decrypt"), mac: false };
        Ok(RemoteKey { label: self.id.name, id: self.id.kid, spec, uses, state: self.state, public: Some(public) })
    }

    /// Encodes the public key as SubjectPublicKeyInfo.
    fn public(&self, spec: KeySpec) -> der::Result<Vec<u8>> {
        let part = |part: &Option<Vec<u8>>| part.clone().ok_or(der::ErrorKind::Failed);
        match spec {
            KeySpec::Ec(curve) => ec_spki(curve, &part(&self.key.x)?, &part(&self.key.y)?),
            _ => rsa_spki(&part(&self.key.n)?, &part(&self.key.e)?),
        }
    }
}

/// Tells whether a key can be used now: it is enabled and within its dates.
fn state(attributes: Option<&KeyAttributes>) -> KeyState {
    let Some(attributes) = attributes else { return KeyState::Enabled };
    let now = OffsetDateTime::now_utc();
    if attributes.enabled == Some(false) {
        KeyState::Disabled
    } else if attributes.expires.is_some_and(|end| end <= now) {
        KeyState::Other("expired".to_owned())
    } else if attributes.not_before.is_some_and(|start| start > now) {
        KeyState::Other("not-yet-valid".to_owned())
    } else {
        KeyState::Enabled
    }
}

/// Tells the length of a modulus in bits.
fn modulus_bits(modulus: &[u8]) -> Option<u32> {
    let start = modulus.iter().position(|&byte| byte != 0)?;
    let (first, rest) = modulus.get(start..)?.split_first()?;
    let rest = u32::try_from(rest.len()).ok()?.checked_mul(8)?;
    rest.checked_add(u8::BITS - first.leading_zeros())
}

fn curve(name: &CurveName) -> Option<Curve> {
    match name {
        CurveName::P256 => Some(Curve::P256),
        CurveName::P384 => Some(Curve::P384),
        CurveName::P521 => Some(Curve::P521),
        CurveName::P256K => Some(Curve::Secp256k1),
        CurveName::UnknownValue(_) => None,
    }
}

/// Names a curve (RFC 5480, 2.1.1.1; SEC 2, A.2.1).
const fn curve_oid(curve: Curve) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(match curve {
        Curve::P256 => "1.2.840.10045.3.1.7",
        Curve::P384 => "1.3.132.0.34",
        Curve::P521 => "1.3.132.0.35",
        Curve::Secp256k1 => "1.3.132.0.10",
    })
}

/// Encodes an EC public key (RFC 5480); each coordinate is brought to the width of the field.
fn ec_spki(curve: Curve, x: &[u8], y: &[u8]) -> der::Result<Vec<u8>> {
    // The fields of these curves are as wide as their orders.
    let width = curve.width();
    let mut point = vec![UNCOMPRESSED];
    for coordinate in [x, y] {
        let padding = width.checked_sub(coordinate.len()).ok_or(der::ErrorKind::Overlength)?;
        point.resize(point.len() + padding, 0);
        point.extend_from_slice(coordinate);
    }
    let oid = curve_oid(curve);
    spki(EC_PUBLIC_KEY, AnyRef::from(&oid), &point)
}

/// Encodes an RSA public key (RFC 8017, A.1.1).
fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> der::Result<Vec<u8>> {
    let key = [UintRef::new(modulus)?, UintRef::new(exponent)?].to_der()?;
    spki(RSA_ENCRYPTION, AnyRef::NULL, &key)
}

fn spki(oid: ObjectIdentifier, parameters: AnyRef<'_>, key: &[u8]) -> der::Result<Vec<u8>> {
    let algorithm = AlgorithmIdentifier { oid, parameters: Some(parameters) };
    SubjectPublicKeyInfo { algorithm, subject_public_key: BitStringRef::from_bytes(key)? }.to_der()
}
