//! Elliptic curves in short Weierstrass form: ECDSA and ECDH on P-256, P-384, P-521 and secp256k1 (PKCS #11 v3.2, 6.3).

use std::sync::Arc;

use der::asn1::ObjectIdentifier;

use super::curve::{self, Named};
use super::key::{Key, KeyType};
use super::mechanism::*;
use super::remote::{RemoteKind, RemoteUse};
use super::signature::{Hashed, Signer, Verifier, Whole};
use crate::ck::*;
use crate::crypto::hash::Hash;
use crate::crypto::{ec, kdf, secp256k1, x25519};
use crate::error::{Error, Kind, Result};
use crate::secret::{SecureBytes, SecurePrivateKey};

/// How much of a multi-part digest is collected; only its leftmost bits count.
const COLLECT: usize = 64 * 1024;
/// The longest secret that is derived, in bytes.
const MAX_DERIVED: usize = 64 * 1024;

/// A curve of this type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    Nist(ec::Curve),
    Secp256k1,
}

impl Curve {
    /// The lengths of a point: uncompressed and compressed.
    fn point_lens(self) -> [usize; 2] {
        let len = match self {
            Curve::Nist(curve) => curve.width(),
            Curve::Secp256k1 => secp256k1::LEN,
        };
        [1 + 2 * len, 1 + len]
    }
}

static CURVES: &[Named<Curve>] = &[
    Named {
        curve: Curve::Nist(ec::Curve::P256),
        oids: &[ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7")],
        names: &["secp256r1", "prime256v1", "P-256"],
    },
    Named {
        curve: Curve::Nist(ec::Curve::P384),
        oids: &[ObjectIdentifier::new_unwrap("1.3.132.0.34")],
        names: &["secp384r1", "P-384"],
    },
    Named {
        curve: Curve::Nist(ec::Curve::P521),
        oids: &[ObjectIdentifier::new_unwrap("1.3.132.0.35")],
        names: &["secp521r1", "P-521"],
    },
    Named { curve: Curve::Secp256k1, oids: &[ObjectIdentifier::new_unwrap("1.3.132.0.10")], names: &["secp256k1"] },
];

/// The base of every row.
const BASE: Mechanism = Mechanism {
    key_types: &[CKK_EC],
    key_size: (256, 521),
    flags: CKF_EC_F_P | CKF_EC_OID | CKF_EC_CURVENAME | CKF_EC_UNCOMPRESS,
    ..Mechanism::NONE
};

/// Declares a row that hashes and then signs.
macro_rules! hashed {
    ($id:ident $hash:ident) => {
        Mechanism {
            id: $id,
            sign: Some(|key, params| Ok(Hashed::new(signer(key, params)?, Hash::$hash))),
            verify: Some(|key, params| Ok(Hashed::new(verifier(key, params)?, Hash::$hash))),
            remote: Some(RemoteUse::Ecdsa),
            ..BASE
        }
    };
}

/// The rows of the family.
pub static ROWS: &[Mechanism] = &[
    Mechanism {
        id: CKM_EC_KEY_PAIR_GEN,
        generate_pair: Some(generate_pair),
        remote: Some(RemoteUse::Generate(|_, template| remote_kind(template))),
        ..BASE
    },
    Mechanism {
        id: CKM_ECDSA,
        sign: Some(|key, params| Ok(Whole::new(signer(key, params)?, COLLECT))),
        verify: Some(|key, params| Ok(Whole::new(verifier(key, params)?, COLLECT))),
        remote: Some(RemoteUse::Ecdsa),
        ..BASE
    },
    hashed!(CKM_ECDSA_SHA1 Sha1),
    hashed!(CKM_ECDSA_SHA224 Sha224),
    hashed!(CKM_ECDSA_SHA256 Sha256),
    hashed!(CKM_ECDSA_SHA384 Sha384),
    hashed!(CKM_ECDSA_SHA512 Sha512),
    hashed!(CKM_ECDSA_SHA3_224 Sha3_224),
    hashed!(CKM_ECDSA_SHA3_256 Sha3_256),
    hashed!(CKM_ECDSA_SHA3_384 Sha3_384),
    hashed!(CKM_ECDSA_SHA3_512 Sha3_512),
    Mechanism {
        id: CKM_ECDH1_DERIVE,
        key_types: &[CKK_EC, CKK_EC_MONTGOMERY],
        key_size: (255, 521),
        params: ParamShape::Ecdh1,
        derive: Some(derive),
        ..BASE
    },
    // The cofactor of every curve here is 1, so both derivations are the same.
    Mechanism { id: CKM_ECDH1_COFACTOR_DERIVE, params: ParamShape::Ecdh1, derive: Some(derive), ..BASE },
];

/// The type `CKK_EC`.
pub static KEY_TYPES: [KeyType; 1] = [KeyType {
    id: CKK_EC,
    secret_attributes: &[CKA_VALUE],
    public_attributes: &[CKA_EC_PARAMS, CKA_EC_POINT],
    public_key: Some(|attributes| public_key(attributes).map(Public::into_key)),
    secret_key: |attributes, secret| private_key(attributes, secret).map(Private::into_key),
    normalize_public,
    import,
    reveal: |_, secret, id| Ok((id == CKA_VALUE).then(|| secret.clone().into_bytes())),
    to_wrapped: |attributes, secret| private_key(attributes, secret)?.to_pkcs8(),
    from_wrapped,
    public_key_info: Some(|attributes| public_key(attributes)?.to_spki()),
    from_public_key_info: Some(from_spki),
    remote_kind: Some(remote_kind),
    check_value: None,
    id_source: Some(curve::id_source),
}];

/// A private key on any of the curves.
enum Private {
    Nist(ec::PrivateKey),
    Secp256k1(secp256k1::PrivateKey),
}

impl Private {
    fn generate(curve: Curve) -> Result<Self> {
        match curve {
            Curve::Nist(curve) => ec::PrivateKey::generate(curve).map(Self::Nist),
            Curve::Secp256k1 => secp256k1::PrivateKey::generate().map(Self::Secp256k1),
        }
    }

    fn from_scalar(curve: Curve, scalar: &[u8]) -> Result<Self> {
        match curve {
            Curve::Nist(curve) => ec::PrivateKey::from_scalar(curve, scalar).map(Self::Nist),
            Curve::Secp256k1 => secp256k1::PrivateKey::from_scalar(scalar).map(Self::Secp256k1),
        }
    }

    fn from_secret(curve: Curve, secret: &SecurePrivateKey) -> Result<Self> {
        match curve {
            Curve::Nist(curve) => ec::PrivateKey::from_secret(curve, secret).map(Self::Nist),
            Curve::Secp256k1 => secp256k1::PrivateKey::from_secret(secret).map(Self::Secp256k1),
        }
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self> {
        let nist = ec::PrivateKey::from_pkcs8(der).map(Self::Nist);
        nist.or_else(|_| secp256k1::PrivateKey::from_pkcs8(der).map(Self::Secp256k1)).map_err(|_| {
            let text = "the unwrapped bytes are no PKCS #8 PrivateKeyInfo of a key on P-256, P-384, P-521 or secp256k1";
            Error::new(Kind::WrappedKeyInvalid, text)
        })
    }

    fn curve(&self) -> Curve {
        match self {
            Self::Nist(key) => Curve::Nist(key.curve()),
            Self::Secp256k1(_) => Curve::Secp256k1,
        }
    }

    fn secret(&self) -> Result<SecurePrivateKey> {
        match self {
            Self::Nist(key) => key.secret(),
            Self::Secp256k1(key) => key.secret(),
        }
    }

    fn to_pkcs8(&self) -> Result<SecureBytes> {
        match self {
            Self::Nist(key) => key.to_pkcs8(),
            Self::Secp256k1(key) => key.to_pkcs8(),
        }
    }

    fn point(&self) -> Result<Vec<u8>> {
        match self {
            Self::Nist(key) => key.public()?.point(),
            Self::Secp256k1(key) => key.public()?.point(),
        }
    }

    fn into_key(self) -> Key {
        match self {
            Self::Nist(key) => Key::EcPrivate(key),
            Self::Secp256k1(key) => Key::Secp256k1Private(key),
        }
    }
}

/// A public key on any of the curves.
enum Public {
    Nist(ec::PublicKey),
    Secp256k1(secp256k1::PublicKey),
}

impl Public {
    fn from_point(curve: Curve, point: &[u8]) -> Result<Self> {
        match curve {
            Curve::Nist(curve) => ec::PublicKey::from_point(curve, point).map(Self::Nist),
            Curve::Secp256k1 => secp256k1::PublicKey::from_point(point).map(Self::Secp256k1),
        }
    }

    fn point(&self) -> Result<Vec<u8>> {
        match self {
            Self::Nist(key) => key.point(),
            Self::Secp256k1(key) => key.point(),
        }
    }

    fn to_spki(&self) -> Result<Vec<u8>> {
        match self {
            Self::Nist(key) => key.to_spki(),
            Self::Secp256k1(key) => key.to_spki(),
        }
    }

    fn into_key(self) -> Key {
        match self {
            Self::Nist(key) => Key::EcPublic(key),
            Self::Secp256k1(key) => Key::Secp256k1Public(key),
        }
    }
}

/// ECDSA over a digest.
struct Scheme(Arc<Key>);

impl Signer for Scheme {
    fn signature_len(&self) -> usize {
        match &*self.0 {
            Key::EcPrivate(key) => key.signature_len(),
            Key::Remote(key) => key.signature_len(),
            _ => secp256k1::SIGNATURE_LEN,
        }
    }

    fn sign(&self, input: &[u8], out: &mut [u8]) -> Result<()> {
        check_digest(input)?;
        match &*self.0 {
            Key::EcPrivate(key) => key.sign(input, out),
            Key::Secp256k1Private(key) => key.sign(input, out),
            Key::Remote(key) => key.sign_ecdsa(input, out),
            _ => Err(Key::wrong_type()),
        }
    }
}

impl Verifier for Scheme {
    fn verify(&self, input: &[u8], signature: &[u8]) -> Result<()> {
        check_digest(input)?;
        match &*self.0 {
            Key::EcPublic(key) => key.verify(input, signature),
            Key::Secp256k1Public(key) => key.verify(input, signature),
            _ => Err(Key::wrong_type()),
        }
    }
}

/// The length of a signature with its recovery number, in bytes.
pub const RECOVERABLE_LEN: usize = secp256k1::SIGNATURE_LEN + 1;

/// Signs a digest with a key on secp256k1 as r ‖ s ‖ v: s is the lower one, and v (0 to 3) tells the public key back from that
/// signature, which is tried before it is given out.
///
/// # Errors
/// `KeyTypeInconsistent` for another curve; `FunctionFailed` when the signature does not tell the key.
pub fn sign_recoverable(key: &Key, attributes: &Attributes, digest: &[u8; 32]) -> Result<Output> {
    let (mut out, Public::Secp256k1(public)) = ([0; RECOVERABLE_LEN], public_key(attributes)?) else {
        return Err(Error::new(Kind::KeyTypeInconsistent, "only signatures on secp256k1 tell their public key"));
    };
    let (signature, number) = out.split_at_mut(secp256k1::SIGNATURE_LEN);
    match key {
        Key::Secp256k1Private(key) => key.sign(digest, signature)?,
        Key::Remote(key) => key.sign_ecdsa(digest, signature)?,
        _ => return Err(Key::wrong_type()),
    }
    let found = secp256k1::recovery(&public, digest, signature).map_err(|error| {
        Error::new(Kind::FunctionFailed, "the signature does not tell the key's own public key").caused_by(error)
    })?;
    number.fill(found);
    Ok(Output::from_slice(&out))
}

fn signer(key: &Arc<Key>, params: &Params) -> Result<Scheme> {
    match (&**key, params) {
        (Key::EcPrivate(_) | Key::Secp256k1Private(_) | Key::Remote(_), Params::None) => Ok(Scheme(key.clone())),
        (Key::EcPrivate(_) | Key::Secp256k1Private(_) | Key::Remote(_), _) => {
            Err(Error::from(Kind::MechanismParamInvalid))
        }
        _ => Err(Key::wrong_type()),
    }
}

fn verifier(key: &Arc<Key>, params: &Params) -> Result<Scheme> {
    match (&**key, params) {
        (Key::EcPublic(_) | Key::Secp256k1Public(_), Params::None) => Ok(Scheme(key.clone())),
        (Key::EcPublic(_) | Key::Secp256k1Public(_), _) => Err(Error::from(Kind::MechanismParamInvalid)),
        _ => Err(Key::wrong_type()),
    }
}

/// Refuses an empty digest: anybody can make a signature over the number 0.
fn check_digest(digest: &[u8]) -> Result<()> {
    if digest.is_empty() { Err(Error::new(Kind::DataLenRange, "ECDSA needs a digest, not nothing")) } else { Ok(()) }
}

/// The hashes of the key derivation functions of ANSI X9.63.
const KDFS: &[(CK_ULONG, Hash)] = &[
    (CKD_SHA1_KDF, Hash::Sha1),
    (CKD_SHA224_KDF, Hash::Sha224),
    (CKD_SHA256_KDF, Hash::Sha256),
    (CKD_SHA384_KDF, Hash::Sha384),
    (CKD_SHA512_KDF, Hash::Sha512),
    (CKD_SHA3_224_KDF, Hash::Sha3_224),
    (CKD_SHA3_256_KDF, Hash::Sha3_256),
    (CKD_SHA3_384_KDF, Hash::Sha3_384),
    (CKD_SHA3_512_KDF, Hash::Sha3_512),
];

/// Derives by ECDH or X25519. Without a length it gives the whole secret, or one hash of it.
fn derive(key: &Arc<Key>, params: &Params, len: Option<usize>) -> Result<SecureBytes> {
    let Params::Ecdh1 { kdf, shared, public } = params else {
        return Err(Error::from(Kind::MechanismParamInvalid));
    };
    let secret = agree(key, public)?;
    if *kdf == CKD_NULL {
        if !shared.is_empty() {
            return Err(Error::new(Kind::MechanismParamInvalid, "CKD_NULL takes no shared data"));
        }
        return trailing(secret, len);
    }
    let hash = KDFS.iter().find(|row| row.0 == *kdf).map(|row| row.1);
    let hash = hash.ok_or_else(|| {
        Error::new(Kind::MechanismParamInvalid, format!("the key derivation function {kdf:#x} is not supported"))
    })?;
    let len = len.unwrap_or(hash.len());
    if len > MAX_DERIVED {
        return Err(Error::new(Kind::TemplateInconsistent, "CKA_VALUE_LEN asks for more than 64 KiB"));
    }
    kdf::x963(hash, secret.expose(), shared, len)
}

fn agree(key: &Key, peer: &[u8]) -> Result<SecureBytes> {
    let shared = match key {
        Key::EcPrivate(key) => {
            curve::unframe(peer, &Curve::Nist(key.curve()).point_lens()).and_then(|peer| key.agree(peer))
        }
        Key::Secp256k1Private(key) => {
            curve::unframe(peer, &Curve::Secp256k1.point_lens()).and_then(|peer| key.agree(peer))
        }
        Key::X25519Private(key) => curve::unframe(peer, &[x25519::LEN]).and_then(|peer| key.agree(peer)),
        _ => return Err(Key::wrong_type()),
    };
    shared.map_err(|error| match error.kind() {
        Kind::AttributeValueInvalid | Kind::PublicKeyInvalid => {
            Error::new(Kind::MechanismParamInvalid, "the other party's public key is no point of the key's curve")
        }
        _ => error,
    })
}

/// Shortens a secret to what the template asks for: "the truncation removes bytes from the leading end of the secret value"
/// (PKCS #11 v2.20, 12.3.9, Elliptic curve Diffie-Hellman key derivation; in chapter 6.3 of v3.2).
fn trailing(secret: SecureBytes, len: Option<usize>) -> Result<SecureBytes> {
    let Some(len) = len.filter(|len| *len != secret.len()) else {
        return Ok(secret);
    };
    let start = secret.len().checked_sub(len);
    let kept = start.and_then(|start| secret.expose().get(start..)).ok_or_else(|| {
        Error::new(Kind::TemplateInconsistent, "CKA_VALUE_LEN asks for more bytes than the shared secret has")
    })?;
    Ok(SecureBytes::copy_from(kept))
}

fn generate_pair(params: &Params, template: &Attributes) -> Result<GeneratedPair> {
    if *params != Params::None {
        return Err(Error::from(Kind::MechanismParamInvalid));
    }
    let named = curve::find(CURVES, template)?;
    let key = Private::generate(named.curve)?;
    let public = curve::parts(named.params()?, &key.point()?)?;
    Ok(GeneratedPair { secret: key.secret()?, private: public.clone(), public })
}

fn public_key(attributes: &Attributes) -> Result<Public> {
    let curve = curve::find(CURVES, attributes)?.curve;
    let point = curve::unframe(attributes.require_bytes(CKA_EC_POINT)?, &curve.point_lens())?;
    Public::from_point(curve, point)
}

fn from_spki(info: &[u8]) -> Result<Attributes> {
    let nist = ec::PublicKey::from_spki(info).map(|key| (Curve::Nist(key.curve()), Public::Nist(key)));
    let (curve, key) =
        nist.or_else(|_| secp256k1::PublicKey::from_spki(info).map(|key| (Curve::Secp256k1, Public::Secp256k1(key))))?;
    let named = CURVES.iter().find(|row| row.curve == curve).ok_or_else(|| Error::from(Kind::CurveNotSupported))?;
    curve::parts(named.params()?, &key.point()?)
}

fn remote_kind(template: &Attributes) -> Result<RemoteKind> {
    Ok(match curve::find(CURVES, template)?.curve {
        Curve::Nist(ec::Curve::P256) => RemoteKind::P256,
        Curve::Nist(ec::Curve::P384) => RemoteKind::P384,
        Curve::Nist(ec::Curve::P521) => RemoteKind::P521,
        Curve::Secp256k1 => RemoteKind::Secp256k1,
    })
}

fn private_key(attributes: &Attributes, secret: &SecurePrivateKey) -> Result<Private> {
    Private::from_secret(curve::find(CURVES, attributes)?.curve, secret)
}

fn normalize_public(attributes: &mut Attributes) -> Result<()> {
    let point = public_key(attributes)?.point()?;
    let params = curve::find(CURVES, attributes)?.params()?;
    attributes.extend(curve::parts(params, &point)?);
    Ok(())
}

fn import(attributes: &mut Attributes) -> Result<SecurePrivateKey> {
    let named = curve::find(CURVES, attributes)?;
    let scalar = attributes.take_secret(CKA_VALUE);
    let scalar = scalar.ok_or_else(|| Error::new(Kind::TemplateIncomplete, "an EC private key needs CKA_VALUE"))?;
    let key = Private::from_scalar(named.curve, scalar.expose())?;
    curve::set_parts(attributes, named.params()?, &key.point()?)?;
    key.secret()
}

fn from_wrapped(attributes: &mut Attributes, bytes: &SecureBytes) -> Result<SecurePrivateKey> {
    let key = Private::from_pkcs8(bytes.expose())?;
    let named = CURVES.iter().find(|row| row.curve == key.curve());
    let named = named.ok_or_else(|| Error::internal("a curve is not in the table"))?;
    if attributes.has(CKA_EC_PARAMS) && curve::find(CURVES, attributes)?.curve != named.curve {
        return Err(Error::new(
            Kind::TemplateInconsistent,
            "the unwrapped key is on another curve than the template's",
        ));
    }
    curve::set_parts(attributes, named.params()?, &key.point()?)?;
    key.secret()
}
