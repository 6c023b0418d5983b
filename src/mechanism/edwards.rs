//! Edwards curves: Ed25519, Ed25519ctx and Ed25519ph (PKCS #11 v3.2, 6.3; RFC 8032).

use std::sync::Arc;

use der::asn1::ObjectIdentifier;

use super::curve::{self, Named};
use super::key::{Key, KeyType};
use super::mechanism::*;
use super::remote::{RemoteKind, RemoteUse};
use super::signature::{Signer, Verifier, Whole};
use crate::ck::*;
use crate::crypto::ed::{self, Scheme};
use crate::error::{Error, Kind, Result};
use crate::secret::{SecureBytes, SecurePrivateKey};

/// The longest message in bytes: EdDSA reads it twice, so that it is kept whole.
const LONGEST_MESSAGE: usize = 1 << 30;

static CURVES: &[Named<()>] = &[Named {
    curve: (),
    // RFC 8410, then GnuPG's.
    oids: &[ObjectIdentifier::new_unwrap("1.3.101.112"), ObjectIdentifier::new_unwrap("1.3.6.1.4.1.11591.15.1")],
    names: &["edwards25519", "Ed25519", "id-Ed25519"],
}];

/// The base of every row; the standard counts 255 bits.
const BASE: Mechanism = Mechanism {
    key_types: &[CKK_EC_EDWARDS],
    key_size: (255, 255),
    flags: CKF_EC_F_P | CKF_EC_OID | CKF_EC_CURVENAME | CKF_EC_COMPRESS,
    ..Mechanism::NONE
};

/// The rows of the family.
pub static ROWS: &[Mechanism] = &[
    Mechanism {
        id: CKM_EC_EDWARDS_KEY_PAIR_GEN,
        generate_pair: Some(generate_pair),
        remote: Some(RemoteUse::Generate(|_, template| curve::find(CURVES, template).map(|_| RemoteKind::Ed25519))),
        ..BASE
    },
    Mechanism {
        id: CKM_EDDSA,
        params: ParamShape::OptionalEddsa,
        sign: Some(sign),
        verify: Some(verify),
        remote: Some(RemoteUse::Ed25519),
        ..BASE
    },
];

/// The type `CKK_EC_EDWARDS`.
pub static KEY_TYPES: [KeyType; 1] = [KeyType {
    id: CKK_EC_EDWARDS,
    secret_attributes: &[CKA_VALUE],
    public_attributes: &[CKA_EC_PARAMS, CKA_EC_POINT],
    public_key: Some(|attributes| public_key(attributes).map(Key::Ed25519Public)),
    secret_key: |_, secret| ed::PrivateKey::from_secret(secret).map(Key::Ed25519Private),
    normalize_public,
    import,
    reveal: |_, secret, id| Ok((id == CKA_VALUE).then(|| secret.clone().into_bytes())),
    to_wrapped: |_, secret| ed::PrivateKey::from_secret(secret)?.to_pkcs8(),
    from_wrapped,
    public_key_info: Some(|attributes| public_key(attributes)?.to_spki()),
    from_public_key_info: Some(from_spki),
    remote_kind: Some(|_| Ok(RemoteKind::Ed25519)),
    check_value: None,
    id_source: Some(curve::id_source),
}];

/// A key with one of the schemes.
struct Eddsa {
    key: Arc<Key>,
    scheme: Scheme,
}

impl Signer for Eddsa {
    fn signature_len(&self) -> usize {
        ed::SIGNATURE_LEN
    }

    fn sign(&self, input: &[u8], out: &mut [u8]) -> Result<()> {
        match &*self.key {
            Key::Ed25519Private(key) => key.sign(&self.scheme, input, out),
            Key::Remote(key) => key.sign_ed25519(input, out),
            _ => Err(Key::wrong_type()),
        }
    }
}

impl Verifier for Eddsa {
    fn verify(&self, input: &[u8], signature: &[u8]) -> Result<()> {
        match &*self.key {
            Key::Ed25519Public(key) => key.verify(&self.scheme, input, signature),
            _ => Err(Key::wrong_type()),
        }
    }
}

fn sign(key: &Arc<Key>, params: &Params) -> Result<Box<dyn SignOperation>> {
    match &**key {
        Key::Ed25519Private(_) => Ok(Whole::new(Eddsa { key: key.clone(), scheme: scheme(params)? }, LONGEST_MESSAGE)),
        Key::Remote(_) => match scheme(params)? {
            Scheme::Pure => Ok(Whole::new(Eddsa { key: key.clone(), scheme: Scheme::Pure }, LONGEST_MESSAGE)),
            _ => Err(Error::new(Kind::MechanismParamInvalid, "a key in a KMS signs by plain Ed25519 only")),
        },
        _ => Err(Key::wrong_type()),
    }
}

fn verify(key: &Arc<Key>, params: &Params) -> Result<Box<dyn VerifyOperation>> {
    match &**key {
        Key::Ed25519Public(_) => Ok(Whole::new(Eddsa { key: key.clone(), scheme: scheme(params)? }, LONGEST_MESSAGE)),
        _ => Err(Key::wrong_type()),
    }
}

/// Maps the parameter to a scheme. RFC 8032 forbids Ed25519ctx with an empty context, so that is plain Ed25519.
fn scheme(params: &Params) -> Result<Scheme> {
    match params {
        Params::None => Ok(Scheme::Pure),
        Params::Eddsa { context, .. } if context.len() > 255 => {
            Err(Error::new(Kind::MechanismParamInvalid, "an EdDSA context has at most 255 bytes"))
        }
        Params::Eddsa { prehash: true, context } => Ok(Scheme::Prehash(context.clone())),
        Params::Eddsa { context, .. } if context.is_empty() => Ok(Scheme::Pure),
        Params::Eddsa { context, .. } => Ok(Scheme::Context(context.clone())),
        _ => Err(Error::from(Kind::MechanismParamInvalid)),
    }
}

fn generate_pair(params: &Params, template: &Attributes) -> Result<GeneratedPair> {
    if *params != Params::None {
        return Err(Error::from(Kind::MechanismParamInvalid));
    }
    let params = curve::find(CURVES, template)?.params()?;
    let key = ed::PrivateKey::generate()?;
    let public = curve::parts(params, key.public()?.point())?;
    Ok(GeneratedPair { secret: key.secret()?, private: public.clone(), public })
}

fn public_key(attributes: &Attributes) -> Result<ed::PublicKey> {
    curve::find(CURVES, attributes)?;
    ed::PublicKey::from_point(curve::unframe(attributes.require_bytes(CKA_EC_POINT)?, &[ed::LEN])?)
}

fn from_spki(info: &[u8]) -> Result<Attributes> {
    let key = ed::PublicKey::from_spki(info)?;
    let named = CURVES.first().ok_or_else(|| Error::from(Kind::CurveNotSupported))?;
    curve::parts(named.params()?, key.point())
}

fn normalize_public(attributes: &mut Attributes) -> Result<()> {
    let key = public_key(attributes)?;
    let params = curve::find(CURVES, attributes)?.params()?;
    attributes.extend(curve::parts(params, key.point())?);
    Ok(())
}

fn import(attributes: &mut Attributes) -> Result<SecurePrivateKey> {
    let seed = attributes.take_secret(CKA_VALUE);
    let seed = seed.ok_or_else(|| Error::new(Kind::TemplateIncomplete, "an Ed25519 private key needs CKA_VALUE"))?;
    adopt(attributes, &ed::PrivateKey::from_seed(seed.expose())?)
}

fn from_wrapped(attributes: &mut Attributes, bytes: &SecureBytes) -> Result<SecurePrivateKey> {
    let key = ed::PrivateKey::from_pkcs8(bytes.expose())?;
    if let Some(named) = CURVES.first().filter(|_| !attributes.has(CKA_EC_PARAMS)) {
        attributes.set(CKA_EC_PARAMS, named.params()?);
    }
    adopt(attributes, &key)
}

/// Adds the public parts of a key to its attributes, and gives its secret.
fn adopt(attributes: &mut Attributes, key: &ed::PrivateKey) -> Result<SecurePrivateKey> {
    let params = curve::find(CURVES, attributes)?.params()?;
    curve::set_parts(attributes, params, key.public()?.point())?;
    key.secret()
}
