//! Tokens of other PKCS #11 modules, such as SoftHSM2: through their module, never through their files.
//!
//! The rules are:
//! - keys leave wrapped, under a transport key that leaves wrapped under an RSA key made here for this one purpose;
//! - label, id and usages stay; a key becomes a plain object, or the managed key of the owner that its label names;
//! - a public half follows from its private half; of the one on the token only the usages are taken.

use std::sync::Arc;

use super::file::plain_asset;
use super::{Content, Entry, Key, Origin};
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::keys::managed::Name;
pub use crate::kms::TokenSource;
use crate::kms::{self, Export, Exported};
use crate::mechanism::{self, GivenKey, Key as MechanismKey, Params, RsaOaep};
use crate::secret::{SecureBytes, SecurePrivateKey};

/// The size of the RSA key in bits.
const RSA_BITS: u64 = 3072;
/// What a key keeps.
const KEPT: [CK_ATTRIBUTE_TYPE; 10] =
    [CKA_LABEL, CKA_ID, CKA_SUBJECT, CKA_SIGN, CKA_VERIFY, CKA_ENCRYPT, CKA_DECRYPT, CKA_WRAP, CKA_UNWRAP, CKA_DERIVE];

/// Takes out what a token holds. With `managed`, each key becomes the managed key of the owner that its label names.
///
/// # Errors
/// That of the module or the token; what keeps a single key from leaving is in its entry.
pub fn token(source: TokenSource, managed: bool) -> Result<impl Iterator<Item = Result<Entry>>> {
    let (modulus, exponent, private) = rsa_key()?;
    let Export { transport, objects } = kms::export(source, modulus, exponent)?;
    let transport = Transport::open(&private, &transport)?;
    let publics: Vec<_> = objects
        .iter()
        .filter(|object| class(object) == CKO_PUBLIC_KEY)
        .map(|object| object.attributes.clone())
        .collect();
    let paired: Vec<_> = objects
        .iter()
        .filter(|object| class(object) == CKO_PRIVATE_KEY)
        .map(|object| name_of(&object.attributes))
        .collect();
    let lone =
        move |object: &Exported| class(object) != CKO_PUBLIC_KEY || !paired.contains(&name_of(&object.attributes));
    let entries = objects.into_iter().filter(lone).map(move |object| Ok(entry(object, &publics, &transport, managed)));
    Ok(entries)
}

fn class(object: &Exported) -> CK_OBJECT_CLASS {
    object.attributes.ulong(CKA_CLASS).unwrap_or(CK_UNAVAILABLE_INFORMATION)
}

/// What halves of a pair have in common.
fn name_of(attributes: &Attributes) -> (Option<u64>, Vec<u8>, Vec<u8>) {
    let bytes = |id| attributes.bytes(id).unwrap_or_default().to_vec();
    let id = bytes(CKA_ID);
    // Without an id the label has to do.
    let label = if id.is_empty() { bytes(CKA_LABEL) } else { Vec::new() };
    (attributes.ulong(CKA_KEY_TYPE), id, label)
}

fn entry(object: Exported, publics: &[Attributes], transport: &Transport, managed: bool) -> Entry {
    let label = String::from_utf8_lossy(object.attributes.bytes(CKA_LABEL).unwrap_or_default()).into_owned();
    let id = data_encoding::HEXLOWER.encode(object.attributes.bytes(CKA_ID).unwrap_or_default());
    let kind = match class(&object) {
        CKO_PRIVATE_KEY => "private key",
        CKO_SECRET_KEY => "secret key",
        CKO_PUBLIC_KEY => "public key",
        CKO_CERTIFICATE => "certificate",
        _ => "data",
    };
    let mut origin = Origin { source: Some(format!("{kind} \"{label}\", id {id}")), ..Origin::default() };
    let Exported { mut attributes, wrapped } = object;
    let read = match wrapped {
        None => {
            attributes.take(CKA_EXTRACTABLE);
            Ok(Content::Object(attributes))
        }
        Some(wrapped) => wrapped.and_then(|wrapped| {
            let mut key = transport.unwrap(&attributes, &wrapped)?;
            key.kept = kept(&attributes, publics);
            if managed {
                let asset = plain_asset(&key.key)?;
                (origin.owner, origin.asset) = (Some(label.clone()), Some(asset.name));
                key.name = Some(Name::new(&label, asset.name)?);
            }
            Ok(Content::Key(Box::new(key)))
        }),
    };
    Entry { origin, read }
}

/// Gathers what a key keeps: of a pair, the usages of its public half too.
fn kept(attributes: &Attributes, publics: &[Attributes]) -> Attributes {
    let mut kept = Attributes::new();
    let pair = (attributes.ulong(CKA_CLASS) == Some(CKO_PRIVATE_KEY)).then(|| name_of(attributes));
    let public = pair.and_then(|pair| publics.iter().find(|public| name_of(public) == pair));
    for from in public.into_iter().chain([attributes]) {
        for id in KEPT {
            if let Some(value) = from.get(id) {
                kept.set(id, value.clone());
            }
        }
    }
    kept
}

/// Makes the RSA key under which the transport key leaves: modulus, exponent and the private half.
fn rsa_key() -> Result<(Vec<u8>, Vec<u8>, Arc<MechanismKey>)> {
    let template = [(CKA_MODULUS_BITS, Value::Ulong(RSA_BITS)), (CKA_PUBLIC_EXPONENT, Value::Bytes(vec![1, 0, 1]))]
        .into_iter()
        .collect();
    let generate = mechanism::find(CKM_RSA_PKCS_KEY_PAIR_GEN).and_then(|row| row.generate_pair).ok_or_else(lacking)?;
    let made = generate(&Params::None, &template)?;
    let row = mechanism::key_type(CKK_RSA).ok_or_else(lacking)?;
    let part = |id| made.public.require_bytes(id).map(<[u8]>::to_vec);
    let private = (row.secret_key)(&made.private, &made.secret)?;
    Ok((part(CKA_MODULUS)?, part(CKA_PUBLIC_EXPONENT)?, Arc::new(private)))
}

/// The key under which keys leave.
struct Transport(Arc<MechanismKey>);

impl Transport {
    fn open(private: &Arc<MechanismKey>, wrapped: &[u8]) -> Result<Self> {
        let oaep = Params::RsaOaep(RsaOaep { hash: CKM_SHA_1, mgf: CKG_MGF1_SHA1, label: Vec::new() });
        let unwrap = mechanism::find(CKM_RSA_PKCS_OAEP).and_then(|row| row.unwrap).ok_or_else(lacking)?;
        let key = SecurePrivateKey::new(unwrap(private, &oaep, wrapped)?);
        let row = mechanism::key_type(CKK_AES).ok_or_else(lacking)?;
        Ok(Self(Arc::new((row.secret_key)(&Attributes::new(), &key)?)))
    }

    /// Unwraps a key of the token.
    fn unwrap(&self, attributes: &Attributes, wrapped: &[u8]) -> Result<Key> {
        let unwrap = mechanism::find(CKM_AES_KEY_WRAP_KWP).and_then(|row| row.unwrap).ok_or_else(lacking)?;
        let bytes: SecureBytes = unwrap(&self.0, &Params::None, wrapped)?;
        let key = match attributes.ulong(CKA_CLASS) {
            Some(CKO_PRIVATE_KEY) => GivenKey::of_pkcs8(&without_padding(bytes))?,
            _ => GivenKey::of_value(attributes.require_ulong(CKA_KEY_TYPE)?, Attributes::new(), bytes)
                .map_err(|error| error.context("a secret key of a type that is not kept here"))?,
        };
        Ok(Key::new(key, None))
    }
}

/// Takes off what SoftHSM2 puts behind a private key before it wraps it: zeros up to a multiple of 8 bytes.
fn without_padding(der: SecureBytes) -> SecureBytes {
    let len = match der.expose() {
        [0x30, len @ 0..=0x7F, ..] => 2 + usize::from(*len),
        [0x30, 0x81, len, ..] => 3 + usize::from(*len),
        [0x30, 0x82, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
        all => all.len(),
    };
    match der.expose().get(len..) {
        Some(rest) if rest.len() < 8 && rest.iter().all(|byte| *byte == 0) => der.truncated(len),
        _ => der,
    }
}

fn lacking() -> Error {
    Error::new(Kind::GeneralError, "a mechanism that migration needs is missing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_behind_a_sequence_are_taken_off_and_nothing_else() {
        let cut = |bytes: &[u8]| without_padding(SecureBytes::copy_from(bytes)).expose().to_vec();
        assert_eq!(cut(&[0x30, 1, 0, 0, 0]), [0x30, 1, 0]);
        assert_eq!(cut(&[0x30, 0x81, 1, 7, 0, 0]), [0x30, 0x81, 1, 7]);
        assert_eq!(cut(&[0x30, 0x82, 0, 1, 7, 0]), [0x30, 0x82, 0, 1, 7]);
        for kept in
            [&[0x30, 1, 0, 1][..], &[0x30, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0x30, 9, 0], &[0x04, 1, 0, 0], &[0x30], &[]]
        {
            assert_eq!(cut(kept), kept);
        }
    }
}
