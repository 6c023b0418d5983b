//! Montgomery curves: X25519 keys (PKCS #11 v3.2, 6.3; RFC 7748). `CKM_ECDH1_DERIVE` uses them.

use der::asn1::ObjectIdentifier;

use super::curve::{self, Named};
use super::key::{Key, KeyType};
use super::mechanism::*;
use crate::ck::*;
use crate::crypto::x25519;
use crate::error::{Error, Kind, Result};
use crate::secret::{SecureBytes, SecurePrivateKey};

static CURVES: &[Named<()>] = &[Named {
    curve: (),
    // RFC 8410, then GnuPG's.
    oids: &[ObjectIdentifier::new_unwrap("1.3.101.110"), ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3029.1.5.1")],
    names: &["curve25519", "X25519", "id-X25519"],
}];

/// The rows of the family.
pub static ROWS: &[Mechanism] = &[Mechanism {
    id: CKM_EC_MONTGOMERY_KEY_PAIR_GEN,
    key_types: &[CKK_EC_MONTGOMERY],
    key_size: (255, 255),
    flags: CKF_EC_F_P | CKF_EC_OID | CKF_EC_CURVENAME | CKF_EC_COMPRESS,
    generate_pair: Some(generate_pair),
    ..Mechanism::NONE
}];

/// The type `CKK_EC_MONTGOMERY`.
pub static KEY_TYPES: [KeyType; 1] = [KeyType {
    id: CKK_EC_MONTGOMERY,
    secret_attributes: &[CKA_VALUE],
    public_attributes: &[CKA_EC_PARAMS, CKA_EC_POINT],
    // No operation takes a public key of this type; peers come as bytes in the parameters of a derivation.
    public_key: Some(|_| Err(Key::wrong_type())),
    secret_key: |_, secret| x25519::PrivateKey::from_secret(secret).map(Key::X25519Private),
    normalize_public,
    import,
    reveal: |_, secret, id| Ok((id == CKA_VALUE).then(|| secret.clone().into_bytes())),
    to_wrapped: |_, secret| x25519::PrivateKey::from_secret(secret)?.to_pkcs8(),
    from_wrapped,
    public_key_info: Some(|attributes| public_key(attributes)?.to_spki()),
    from_public_key_info: None,
    remote_kind: None,
    check_value: None,
    id_source: Some(curve::id_source),
}];

fn generate_pair(params: &Params, template: &Attributes) -> Result<GeneratedPair> {
    if *params != Params::None {
        return Err(Error::from(Kind::MechanismParamInvalid));
    }
    let params = curve::find(CURVES, template)?.params()?;
    let key = x25519::PrivateKey::generate()?;
    let public = curve::parts(params, key.public()?.point())?;
    Ok(GeneratedPair { secret: key.secret()?, private: public.clone(), public })
}

fn public_key(attributes: &Attributes) -> Result<x25519::PublicKey> {
    curve::find(CURVES, attributes)?;
    x25519::PublicKey::from_point(curve::unframe(attributes.require_bytes(CKA_EC_POINT)?, &[x25519::LEN])?)
}

fn normalize_public(attributes: &mut Attributes) -> Result<()> {
    let key = public_key(attributes)?;
    let params = curve::find(CURVES, attributes)?.params()?;
    attributes.extend(curve::parts(params, key.point())?);
    Ok(())
}

fn import(attributes: &mut Attributes) -> Result<SecurePrivateKey> {
    let scalar = attributes.take_secret(CKA_VALUE);
    let scalar = scalar.ok_or_else(|| Error::new(Kind::TemplateIncomplete, "an X25519 private key needs CKA_VALUE"))?;
    adopt(attributes, &x25519::PrivateKey::from_scalar(scalar.expose())?)
}

fn from_wrapped(attributes: &mut Attributes, bytes: &SecureBytes) -> Result<SecurePrivateKey> {
    let key = x25519::PrivateKey::from_pkcs8(bytes.expose())?;
    if let Some(named) = CURVES.first().filter(|_| !attributes.has(CKA_EC_PARAMS)) {
        attributes.set(CKA_EC_PARAMS, named.params()?);
    }
    adopt(attributes, &key)
}

/// Adds the public parts of a key to its attributes, and gives its secret.
fn adopt(attributes: &mut Attributes, key: &x25519::PrivateKey) -> Result<SecurePrivateKey> {
    let params = curve::find(CURVES, attributes)?.params()?;
    curve::set_parts(attributes, params, key.public()?.point())?;
    key.secret()
}
