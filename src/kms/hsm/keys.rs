//! Keys that live on a device and are used there.
//!
//! The rules are:
//! - a key is named by label and CKA_ID together, so two with the same label are told apart;
//! - the device's list of mechanisms decides what can be done now; [`super::abilities`] what PKCS #11 has a word for;
//! - a key without any use is disabled: that is how an operator switches one off on a device.

use cryptoki::error::Result as Pkcs11Result;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use der::Encode;

use super::super::no_randomness;
use super::super::provider::{KeyState, left_over};
use super::super::remote::{Curve, DecryptScheme, Hash, KeySpec, RemoteKey, SignScheme, Uses};
use super::device::{Connection, ulong};
use super::fault::{Fail, Try, fail};
use super::hash;
use super::master::private;
use super::name::{Class, Name};
use super::public::{self, Parts};
use crate::error::{Error, Kind, KmsFault, Result};
use crate::secret::SecureBytes;

/// The length of a new CKA_ID in bytes.
const ID_LEN: usize = 16;
/// The most characters of a new label.
const LABEL_LEN: usize = 64;
/// 65537.
const EXPONENT: [u8; 3] = [1, 0, 1];

/// Finds a key by full name, label, or id in hexadecimal.
pub fn find(device: &mut Connection, name: &str) -> Try<RemoteKey> {
    let mut found = Vec::new();
    match Name::parse(name) {
        Some(full) => {
            let handle = device.handle(&full)?;
            found.extend(read(device, full.class, handle)?);
        }
        None => {
            found = look(device, &[Attribute::Label(name.as_bytes().to_vec())])?;
            let id = data_encoding::HEXLOWER_PERMISSIVE.decode(name.as_bytes()).ok().filter(|id| !id.is_empty());
            if let (true, Some(id)) = (found.is_empty(), id) {
                found = look(device, &[Attribute::Id(id)])?;
            }
        }
    }
    match (found.len(), found.pop()) {
        (1, Some(key)) => Ok(key),
        (_, None) => Err(Fail::new(
            KmsFault::NotFound,
            format!("the token with serial {} has no key `{}` that can be used", device.serial, name.escape_debug()),
        )),
        (_, Some(key)) => Err(Fail::new(
            KmsFault::Failed,
            format!(
                "the token has more than one key `{}`; name one in full, as `{}`",
                name.escape_debug(),
                key.id.escape_debug()
            ),
        )),
    }
}

/// Lists the keys that can be used.
pub fn list(device: &mut Connection) -> Try<Vec<RemoteKey>> {
    let mut keys = look(device, &[])?;
    keys.retain(|key| key.state == KeyState::Enabled);
    Ok(keys)
}

/// Reads all private and secret keys with some attributes; one that cannot be read or used here is left out.
fn look(device: &Connection, wanted: &[Attribute]) -> Try<Vec<RemoteKey>> {
    let mut keys = Vec::new();
    for (class, object) in [(Class::Private, ObjectClass::PRIVATE_KEY), (Class::Secret, ObjectClass::SECRET_KEY)] {
        for handle in device.find(&[&[Attribute::Class(object)], wanted].concat())? {
            match read(device, class, handle) {
                Ok(key) => keys.extend(key),
                Err(fail) if fail.fault().is_some_and(KmsFault::may_pass) => return Err(fail),
                Err(_) => {}
            }
        }
    }
    Ok(keys)
}

/// Reads what a key is; `None` for a kind that is not used here.
fn read(device: &Connection, class: Class, handle: ObjectHandle) -> Try<Option<RemoteKey>> {
    let mut wanted = vec![AttributeType::KeyType, AttributeType::Label, AttributeType::Id, AttributeType::Sign];
    wanted.extend(match class {
        Class::Private => &[AttributeType::Decrypt][..],
        Class::Secret => &[AttributeType::ValueLen],
    });
    let found = device.session.get_attributes(handle, &wanted).map_err(|error| fail(error, "read the key"))?;
    let mut name = Name { serial: device.serial.clone(), label: Vec::new(), id: Vec::new(), class };
    let (mut kind, mut sign, mut decrypt, mut len) = (None, false, false, None);
    for attribute in found {
        match attribute {
            Attribute::KeyType(found) => kind = Some(found),
            Attribute::Label(label) => name.label = label,
            Attribute::Id(id) => name.id = id,
            Attribute::Sign(may) => sign = may,
            Attribute::Decrypt(may) => decrypt = may,
            Attribute::ValueLen(found) => len = Some(usize::from(found)),
            _ => {}
        }
    }
    let Some(kind) = kind else { return Ok(None) };
    let (spec, public) = match class {
        Class::Secret => (mac_hash(device, handle, kind, len).map(KeySpec::Hmac), None),
        Class::Private => read_public(device, kind, handle, &name)?,
    };
    let Some(spec) = spec else { return Ok(None) };
    let uses = match spec {
        KeySpec::Hmac(_) => Uses { mac: sign, ..Uses::default() },
        KeySpec::Rsa(_) => Uses { sign, decrypt, mac: false },
        KeySpec::Ec(_) | KeySpec::Ed25519 => Uses { sign, ..Uses::default() },
    };
    let state = if uses == Uses::default() { KeyState::Disabled } else { KeyState::Enabled };
    Ok(Some(RemoteKey { id: name.to_string(), label: name.label(), spec, uses, state, public }))
}

/// Tells for which hash a MAC key is; `None` for one that is for something else.
fn mac_hash(device: &Connection, handle: ObjectHandle, kind: KeyType, len: Option<usize>) -> Option<Hash> {
    match kind {
        KeyType::GENERIC_SECRET => Some(hash::of_generic_key(len)),
        KeyType::SHA_1_HMAC => Some(Hash::Sha1),
        // The crate reads the types for SHA-224, SHA-384 and SHA-512 as this one, so the device is asked which it takes.
        KeyType::SHA256_HMAC => {
            let takes = |hash: &Hash| device.session.sign(&hash::hmac(*hash), handle, b"?").is_ok();
            Some(
                [Hash::Sha256, Hash::Sha384, Hash::Sha512, Hash::Sha224]
                    .into_iter()
                    .find(takes)
                    .unwrap_or(Hash::Sha256),
            )
        }
        _ => None,
    }
}

/// Reads kind and public key of a private key: from itself, from its public half, or from CKA_PUBLIC_KEY_INFO.
fn read_public(
    device: &Connection,
    kind: KeyType,
    handle: ObjectHandle,
    name: &Name,
) -> Try<(Option<KeySpec>, Option<Vec<u8>>)> {
    let wanted: &[AttributeType] = match kind {
        KeyType::RSA => &[AttributeType::Modulus, AttributeType::PublicExponent],
        KeyType::EC | KeyType::EC_EDWARDS => &[AttributeType::EcParams, AttributeType::EcPoint],
        _ => return Ok((None, None)),
    };
    let unread = |error| fail(error, "read the public key");
    let mut parts = Parts::default();
    parts.take(device.session.get_attributes(handle, wanted).map_err(unread)?);
    let spec = |parts: &Parts| match kind {
        KeyType::RSA => parts.rsa(),
        KeyType::EC => parts.ec(),
        _ => parts.edwards(),
    };
    let encode = |parts: &Parts| spec(parts).and_then(|spec| parts.encode(spec));
    if let Some(public) = encode(&parts) {
        return Ok((spec(&parts), Some(public)));
    }
    let class = Attribute::Class(ObjectClass::PUBLIC_KEY);
    let halves = device.find(&[class, Attribute::KeyType(kind), Attribute::Id(name.id.clone())])?;
    for half in halves {
        parts.take(device.session.get_attributes(half, wanted).map_err(unread)?);
        if let Some(public) = encode(&parts) {
            return Ok((spec(&parts), Some(public)));
        }
    }
    let info = device.session.get_attributes(handle, &[AttributeType::PublicKeyInfo]).map_err(unread)?;
    let info = info.into_iter().find_map(|attribute| match attribute {
        Attribute::PublicKeyInfo(info) if !info.is_empty() => Some(info),
        _ => None,
    });
    Ok((spec(&parts), info))
}

/// Reads the name in a key, and says no to a use that it is known not to have. Without any known use, the device is asked: so it
/// is for one that was disabled, and one of which the caller kept the name alone.
fn usable(key: &RemoteKey, may: bool, what: &str) -> Result<Name> {
    let name = Name::parse(&key.id).ok_or_else(|| {
        Error::kms(KmsFault::NotFound, format!("`{}` is no name of a key on a token", key.id.escape_debug()))
    })?;
    if key.uses != Uses::default() && !may {
        return Err(unsupported(format!("the key `{name}` does not {what}")));
    }
    Ok(name)
}

fn unsupported(text: String) -> Error {
    Error::kms(KmsFault::Unsupported, text)
}

/// Gives the mechanism of a signature and what it is given.
fn signing(key: &RemoteKey, scheme: SignScheme, input: &[u8]) -> Result<(Mechanism<'static>, Vec<u8>)> {
    let (mechanism, hash, prefix) = match (key.spec, scheme) {
        (KeySpec::Ec(_), SignScheme::Ecdsa(hash)) => (Mechanism::Ecdsa, Some(hash), &[][..]),
        (KeySpec::Rsa(_), SignScheme::RsaPkcs1(hash)) => (Mechanism::RsaPkcs, Some(hash), hash::digest_info(hash)),
        (KeySpec::Rsa(_), SignScheme::RsaPss(hash)) => (hash::pss(hash), Some(hash), &[][..]),
        (KeySpec::Ed25519, SignScheme::Ed25519) => {
            (Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)), None, &[][..])
        }
        _ => return Err(unsupported(format!("the key `{}` does not sign by {scheme:?}", key.id.escape_debug()))),
    };
    if let Some(hash) = hash
        && usize::try_from(hash::digest_len(hash)) != Ok(input.len())
    {
        return Err(Error::new(Kind::DataLenRange, format!("{} bytes are no digest of {hash:?}", input.len())));
    }
    let input = match key.spec {
        // All orders here fill whole bytes, or are longer than every digest: the leftmost bits are the leftmost bytes.
        KeySpec::Ec(curve) => input.get(..curve.width()).unwrap_or(input),
        _ => input,
    };
    Ok((mechanism, [prefix, input].concat()))
}

/// Prepares a signature; what it gives is run on the device.
pub fn sign(
    key: &RemoteKey,
    scheme: SignScheme,
    input: &[u8],
) -> Result<impl FnMut(&mut Connection) -> Try<Vec<u8>> + Send + use<>> {
    let name = usable(key, key.uses.sign, "sign")?;
    signing(key, scheme, input)?;
    let (key, input) = (key.clone(), input.to_vec());
    Ok(move |device: &mut Connection| {
        let (mechanism, input) = signing(&key, scheme, &input)?;
        offered(device, mechanism.mechanism_type(), &name)?;
        let handle = device.handle(&name)?;
        let signature = device.session.sign(&mechanism, handle, &input);
        let signature = signature.map_err(|error| fail(error, format!("sign with the key `{name}`")))?;
        match key.spec {
            KeySpec::Ec(curve) => full_width(curve, &signature),
            _ => Ok(signature),
        }
    })
}

/// Brings r and s to full width; some devices shorten both alike.
fn full_width(curve: Curve, signature: &[u8]) -> Try<Vec<u8>> {
    let (r, s) = signature.split_at(signature.len() / 2);
    if r.len() != s.len() || r.is_empty() || r.len() > curve.width() {
        let text = format!("the device answered with {} bytes that are no signature of {curve:?}", signature.len());
        return Err(Fail::new(KmsFault::Failed, text));
    }
    let padding = vec![0; curve.width() - r.len()];
    Ok([&padding, r, &padding, s].concat())
}

/// Prepares a decryption.
pub fn decrypt(
    key: &RemoteKey,
    scheme: DecryptScheme,
    ciphertext: &[u8],
) -> Result<impl FnMut(&mut Connection) -> Try<SecureBytes> + Send + use<>> {
    let name = usable(key, key.uses.decrypt, "decrypt")?;
    if !matches!(key.spec, KeySpec::Rsa(_)) {
        return Err(unsupported(format!("the key `{name}` does not decrypt")));
    }
    let ciphertext = ciphertext.to_vec();
    Ok(move |device: &mut Connection| {
        let mechanism = match scheme {
            DecryptScheme::RsaOaep(hash) => hash::oaep(hash),
            DecryptScheme::RsaPkcs1 => Mechanism::RsaPkcs,
        };
        offered(device, mechanism.mechanism_type(), &name)?;
        let handle = device.handle(&name)?;
        match device.session.decrypt(&mechanism, handle, &ciphertext) {
            Ok(plain) => Ok(SecureBytes::take(plain)),
            Err(error) => Err(refused(fail(error, format!("decrypt with the key `{name}`")), scheme)),
        }
    })
}

/// Judges a ciphertext that a device refuses with an answer that says nothing: after C_DecryptInit took key and mechanism, the
/// ciphertext is what is left to be wrong.
fn refused(fail: Fail, scheme: DecryptScheme) -> Fail {
    if !fail.vague {
        return fail;
    }
    let text = format!(
        "the ciphertext does not decrypt by {scheme:?}: it is damaged, or was made for another key, or another way"
    );
    Error::kms(KmsFault::Tampered, text).caused_by(fail.error).into()
}

/// Prepares a MAC.
pub fn mac(key: &RemoteKey, message: &[u8]) -> Result<impl FnMut(&mut Connection) -> Try<Vec<u8>> + Send + use<>> {
    let name = usable(key, key.uses.mac, "make MACs")?;
    let KeySpec::Hmac(hash) = key.spec else {
        return Err(unsupported(format!("the key `{name}` does not make MACs")));
    };
    let message = message.to_vec();
    Ok(move |device: &mut Connection| {
        let mechanism = hash::hmac(hash);
        offered(device, mechanism.mechanism_type(), &name)?;
        let handle = device.handle(&name)?;
        device
            .session
            .sign(&mechanism, handle, &message)
            .map_err(|error| fail(error, format!("make a MAC with `{name}`")))
    })
}

/// Says no to a mechanism that the token does not list.
fn offered(device: &Connection, mechanism: MechanismType, name: &Name) -> Try<()> {
    if device.offers(mechanism) {
        return Ok(());
    }
    Err(unsupported(format!("the token does not offer {mechanism}, which the key `{name}` needs")).into())
}

/// Makes a key under a new id.
pub fn generate(device: &mut Connection, spec: KeySpec, label: &str) -> Try<RemoteKey> {
    let mut id = [0; ID_LEN];
    getrandom::fill(&mut id).map_err(no_randomness)?;
    let label: String = label.trim().chars().filter(|letter| !letter.is_control()).take(LABEL_LEN).collect();
    let class = if matches!(spec, KeySpec::Hmac(_)) { Class::Secret } else { Class::Private };
    let name = Name { serial: device.serial.clone(), label: label.into_bytes(), id: id.to_vec(), class };
    offered(device, generator(spec), &name)?;
    let session = device.writable()?;
    let made = match spec {
        KeySpec::Rsa(bits) => make_rsa(&session, bits, &name),
        KeySpec::Ec(curve) => {
            let params = public::curve_params(curve).unwrap_or_default();
            make_curve(&session, &Mechanism::EccKeyPairGen, params, &name)
        }
        KeySpec::Ed25519 => make_ed25519(&session, &name),
        KeySpec::Hmac(hash) => make_mac(&session, hash, &name),
    };
    made.map_err(|error| fail(error, format!("make a key of {spec:?}")).for_good())?;
    let left_over = |fail: Fail| Fail::from(left_over(fail.error, &name));
    let handle = device.handle(&name).map_err(left_over)?;
    read(device, class, handle)
        .map_err(left_over)?
        .ok_or_else(|| Fail::new(KmsFault::Failed, format!("the new key `{name}` cannot be read")))
}

/// Tells by which mechanism keys of a kind are made.
fn generator(spec: KeySpec) -> MechanismType {
    match spec {
        KeySpec::Rsa(_) => MechanismType::RSA_PKCS_KEY_PAIR_GEN,
        KeySpec::Ec(_) => MechanismType::ECC_KEY_PAIR_GEN,
        KeySpec::Ed25519 => MechanismType::ECC_EDWARDS_KEY_PAIR_GEN,
        KeySpec::Hmac(_) => MechanismType::GENERIC_SECRET_KEY_GEN,
    }
}

/// Gives the attributes of every public half.
fn public_template(name: &Name) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Label(name.label.clone()),
        Attribute::Id(name.id.clone()),
        Attribute::Verify(true),
    ]
}

fn make_rsa(session: &Session, bits: u32, name: &Name) -> Pkcs11Result<()> {
    let mut public = public_template(name);
    public.push(Attribute::Encrypt(true));
    public.push(Attribute::ModulusBits(ulong(bits)));
    public.push(Attribute::PublicExponent(EXPONENT.to_vec()));
    let secret = [&private(name)[..], &[Attribute::Sign(true), Attribute::Decrypt(true)]].concat();
    session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &secret).map(|_| ())
}

fn make_curve(session: &Session, mechanism: &Mechanism<'_>, params: Vec<u8>, name: &Name) -> Pkcs11Result<()> {
    let mut public = public_template(name);
    public.push(Attribute::EcParams(params));
    let secret = [&private(name)[..], &[Attribute::Sign(true)]].concat();
    session.generate_key_pair(mechanism, &public, &secret).map(|_| ())
}

/// Makes an Ed25519 key: devices know the curve by its object identifier, by its name, or by either (PKCS #11 v3.0, 2.3.5).
fn make_ed25519(session: &Session, name: &Name) -> Pkcs11Result<()> {
    let by_oid = public::ED25519.to_der().unwrap_or_default();
    let by_name =
        der::asn1::PrintableStringRef::new(public::ED25519_NAME).and_then(|name| name.to_der()).unwrap_or_default();
    make_curve(session, &Mechanism::EccEdwardsKeyPairGen, by_oid, name)
        .or_else(|_| make_curve(session, &Mechanism::EccEdwardsKeyPairGen, by_name, name))
}

fn make_mac(session: &Session, hash: Hash, name: &Name) -> Pkcs11Result<()> {
    let template = [
        &private(name)[..],
        &[
            Attribute::KeyType(KeyType::GENERIC_SECRET),
            Attribute::ValueLen(ulong(hash::digest_len(hash))),
            Attribute::Sign(true),
            Attribute::Verify(true),
        ],
    ];
    session.generate_key(&Mechanism::GenericSecretKeyGen, &template.concat()).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r27_a_signature_with_short_halves_is_padded_to_full_width() {
        let full = full_width(Curve::P256, &[[1; 31], [2; 31]].concat()).expect("a signature");
        assert_eq!(full, [&[0][..], &[1; 31], &[0], &[2; 31]].concat());
        for bad in [&b""[..], &[1; 63], &[1; 66]] {
            let fail = full_width(Curve::P256, bad).expect_err("no signature");
            assert_eq!(fail.fault(), Some(KmsFault::Failed));
        }
    }
}
