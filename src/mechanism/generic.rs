//! Generic and HMAC secrets: bytes of any length (PKCS #11 v3.2, 6.8), and what all secret keys share.

use std::sync::{Arc, OnceLock};

use super::hmac;
use super::key::{Key, KeyType};
use super::mechanism::{GeneratedKey, Mechanism, Params};
use super::remote::{RemoteKind, RemoteUse};
use crate::ck::*;
use crate::crypto::hash::Hash;
use crate::crypto::mac::{Hmac, HmacKey};
use crate::crypto::random;
use crate::error::{Error, Kind, Result};
use crate::secret::{SecureBytes, SecurePrivateKey};

/// The shortest and longest secret in bytes.
pub const SIZES: (u64, u64) = (1, 4096);

/// The rows of the family. Its sizes are in bits, as the standard says.
pub static ROWS: [Mechanism; 1] = [Mechanism {
    id: CKM_GENERIC_SECRET_KEY_GEN,
    key_types: &[CKK_GENERIC_SECRET],
    key_size: (SIZES.0 * 8, SIZES.1 * 8),
    generate: Some(generate),
    remote: Some(RemoteUse::Generate(|_, template| template.require_ulong(CKA_VALUE_LEN).map(RemoteKind::Hmac))),
    ..Mechanism::NONE
}];

/// The key types of the family: the generic secret, and one for each HMAC.
pub static KEY_TYPES: [KeyType; 1 + hmac::KEY_TYPES.len()] = {
    let [sha1, sha224, sha256, sha384, sha512, sha512_224, sha512_256, sha3_224, sha3_256, sha3_384, sha3_512] =
        hmac::KEY_TYPES;
    [
        key_type(CKK_GENERIC_SECRET),
        key_type(sha1),
        key_type(sha224),
        key_type(sha256),
        key_type(sha384),
        key_type(sha512),
        key_type(sha512_224),
        key_type(sha512_256),
        key_type(sha3_224),
        key_type(sha3_256),
        key_type(sha3_384),
        key_type(sha3_512),
    ]
};

/// A generic or HMAC secret, with its HMAC state made at first use.
pub struct GenericKey {
    secret: SecureBytes,
    /// The state for each of [`Hash::ALL`].
    hmac: Box<[OnceLock<HmacKey>; Hash::ALL.len()]>,
}

impl GenericKey {
    /// Takes over a secret.
    ///
    /// # Errors
    /// `KeySizeRange` for an empty or overlong one.
    pub fn new(secret: SecureBytes) -> Result<Self> {
        check_size(secret.len())?;
        Ok(Self { secret, hmac: Default::default() })
    }

    /// Finds the secret in a key.
    ///
    /// # Errors
    /// `KeyTypeInconsistent` for a key of another type.
    pub fn of(key: &Arc<Key>) -> Result<&Self> {
        match key.as_ref() {
            Key::Generic(key) => Ok(key),
            _ => Err(Key::wrong_type()),
        }
    }

    /// Gives the bytes of the secret.
    pub fn expose(&self) -> &[u8] {
        self.secret.expose()
    }

    /// Starts an HMAC.
    ///
    /// # Errors
    /// `GeneralError` when the library below fails.
    pub fn hmac(&self, hash: Hash) -> Result<Hmac> {
        let kept = Hash::ALL.iter().zip(self.hmac.iter()).find_map(|(other, kept)| (*other == hash).then_some(kept));
        let kept = kept.ok_or_else(|| Error::internal("a hash is missing in Hash::ALL"))?;
        if let Some(kept) = kept.get() {
            return Ok(kept.start());
        }
        let fresh = HmacKey::new(hash, self.expose())?;
        Ok(kept.get_or_init(|| fresh).start())
    }
}

const fn key_type(id: CK_KEY_TYPE) -> KeyType {
    secret_key_type(id, parse, import, from_wrapped, |secret| hash_check(secret.expose()))
}

/// The length of a check value in bytes.
pub(super) const CHECK_LEN: usize = 3;

/// Makes the row of a secret key type, whose one secret attribute is `CKA_VALUE`.
pub(super) const fn secret_key_type(
    id: CK_KEY_TYPE,
    parse: fn(&Attributes, &SecurePrivateKey) -> Result<Key>,
    import: fn(&mut Attributes) -> Result<SecurePrivateKey>,
    from_wrapped: fn(&mut Attributes, &SecureBytes) -> Result<SecurePrivateKey>,
    check_value: fn(&SecurePrivateKey) -> Result<Vec<u8>>,
) -> KeyType {
    KeyType {
        id,
        secret_attributes: &[CKA_VALUE],
        public_attributes: &[CKA_VALUE_LEN],
        public_key: None,
        secret_key: parse,
        normalize_public: |_| Ok(()),
        import,
        reveal,
        to_wrapped: |_, secret| Ok(SecureBytes::copy_from(secret.expose())),
        from_wrapped,
        public_key_info: None,
        from_public_key_info: None,
        remote_kind: Some(|attributes| attributes.require_ulong(CKA_VALUE_LEN).map(RemoteKind::Hmac)),
        check_value: Some(check_value),
        id_source: None,
    }
}

/// Makes the check value of what has no cipher of its own, a secret or a certificate: the start of its SHA-1
/// (PKCS #11 v3.2, 4.6, 4.10.2).
///
/// # Errors
/// `GeneralError` when the library below fails.
pub fn hash_check(bytes: &[u8]) -> Result<Vec<u8>> {
    Ok(Hash::Sha1.digest(bytes)?.iter().take(CHECK_LEN).copied().collect())
}

/// Takes `CKA_VALUE` out of a template, checks its size, and sets `CKA_VALUE_LEN`.
pub(super) fn import_value(template: &mut Attributes, check: fn(usize) -> Result<()>) -> Result<SecurePrivateKey> {
    let value = template
        .take_secret(CKA_VALUE)
        .ok_or_else(|| Error::new(Kind::TemplateIncomplete, "the template needs CKA_VALUE"))?;
    accept(template, value, check)
}

/// Accepts bytes as a secret: checks their size and what the template says of it, and sets `CKA_VALUE_LEN`.
pub(super) fn accept(
    template: &mut Attributes,
    value: SecureBytes,
    check: fn(usize) -> Result<()>,
) -> Result<SecurePrivateKey> {
    check(value.len())?;
    let len = u64::try_from(value.len()).map_err(|_| Error::from(Kind::KeySizeRange))?;
    match template.set(CKA_VALUE_LEN, len) {
        Some(said) if said != Value::Ulong(len) => Err(Error::new(
            Kind::TemplateInconsistent,
            format!("CKA_VALUE_LEN is not the {len} bytes that the key has"),
        )),
        _ => Ok(SecurePrivateKey::new(value)),
    }
}

/// Makes a random secret of the length that the template asks for in `CKA_VALUE_LEN`.
pub(super) fn generate_value(template: &Attributes, check: fn(usize) -> Result<()>) -> Result<GeneratedKey> {
    let asked = template.require_ulong(CKA_VALUE_LEN)?;
    let len = usize::try_from(asked).map_err(|_| Error::from(Kind::KeySizeRange))?;
    check(len)?;
    let mut attributes = Attributes::new();
    attributes.set(CKA_VALUE_LEN, asked);
    Ok(GeneratedKey { secret: SecurePrivateKey::new(random::secure(len)?), attributes })
}

fn generate(_: &Params, template: &Attributes) -> Result<GeneratedKey> {
    generate_value(template, check_size)
}

fn parse(_: &Attributes, secret: &SecurePrivateKey) -> Result<Key> {
    GenericKey::new(SecureBytes::copy_from(secret.expose())).map(Key::Generic)
}

fn import(template: &mut Attributes) -> Result<SecurePrivateKey> {
    import_value(template, check_size)
}

fn from_wrapped(template: &mut Attributes, bytes: &SecureBytes) -> Result<SecurePrivateKey> {
    accept(template, SecureBytes::try_copy_from(bytes.expose())?, check_size)
}

fn reveal(_: &Attributes, secret: &SecurePrivateKey, id: CK_ATTRIBUTE_TYPE) -> Result<Option<SecureBytes>> {
    Ok((id == CKA_VALUE).then(|| SecureBytes::copy_from(secret.expose())))
}

fn check_size(len: usize) -> Result<()> {
    match u64::try_from(len) {
        Ok(len) if (SIZES.0..=SIZES.1).contains(&len) => Ok(()),
        _ => Err(Error::new(Kind::KeySizeRange, format!("a secret has between {} and {} bytes", SIZES.0, SIZES.1))),
    }
}

#[cfg(test)]
mod tests;
