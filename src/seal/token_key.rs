//! The token key: the root of one token's keys.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::aead::no_randomness;
use super::index::{DIGEST_LEN, IndexDigest};
use crate::error::{Error, Result};
use crate::secret::SecureBytes;

/// The salt of HKDF-Extract.
const SALT: &[u8] = b"strongroom token key v1";
/// What HKDF-Expand derives, by its info; the object key's goes on with purpose and uid.
const INFO_KEY_ID: &[u8] = b"strongroom token key id v1";
const INFO_INDEX: &[u8] = b"strongroom index key v1";
const INFO_AUDIT: &[u8] = b"strongroom audit key v1";
const INFO_OBJECT: &[u8] = b"strongroom object key v1";
const INFO_BACKUP: &[u8] = b"strongroom backup key v1";

/// What an object key seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Encrypts the attributes of a private object.
    Attributes,
    /// Encrypts the secret.
    Secret,
    /// Tags the attributes of a public object.
    Tag,
}

impl Purpose {
    fn code(self) -> u8 {
        match self {
            Purpose::Attributes => 1,
            Purpose::Secret => 2,
            Purpose::Tag => 3,
        }
    }
}

/// 32 random bytes, from which every key below a token is derived. Wiped when dropped.
#[derive(Debug)]
pub struct TokenKey {
    key: SecureBytes,
    /// The pseudorandom key of HKDF.
    prk: SecureBytes,
    index: SecureBytes,
    /// Signs records of the audit trail.
    audit: SecureBytes,
    id: [u8; Self::ID_LEN],
}

impl TokenKey {
    /// The length in bytes.
    pub const LEN: usize = 32;
    /// The length of its id in bytes.
    pub const ID_LEN: usize = 8;
    /// Its version as the headers of sealed objects name it.
    pub const VERSION: u32 = 1;

    /// Makes a new random one.
    ///
    /// # Errors
    /// `DeviceError` when the system has no randomness.
    pub fn generate() -> Result<Self> {
        Self::from_bytes(SecureBytes::try_with(Self::LEN, getrandom::fill).map_err(no_randomness)?)
    }

    /// Takes over the bytes that an envelope held.
    pub(super) fn from_bytes(key: SecureBytes) -> Result<Self> {
        if key.len() != Self::LEN {
            return Err(Error::internal("a token key has another length than 32 bytes"));
        }
        let mut prk = Zeroizing::new([0; 32]);
        let (extracted, _) = Hkdf::<Sha256>::extract(Some(SALT), key.expose());
        prk.copy_from_slice(&Zeroizing::new(<[u8; 32]>::from(extracted))[..]);
        let prk = SecureBytes::copy_from(&prk[..]);
        let index = SecureBytes::copy_from(&expand::<32>(&prk, &[INFO_INDEX])[..]);
        let audit = SecureBytes::copy_from(&expand::<32>(&prk, &[INFO_AUDIT])[..]);
        let id = *expand::<{ Self::ID_LEN }>(&prk, &[INFO_KEY_ID]);
        Ok(Self { key, prk, index, audit, id })
    }

    /// Digests an attribute's value for the index of a private object; `field` is its number in [`super::INDEX_FIELDS`].
    pub fn index_digest(&self, field: u8, value: &[u8]) -> IndexDigest {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.index.expose()).expect("HMAC takes a key of any length");
        mac.update(&[field]);
        mac.update(value);
        let digest = mac.finalize().into_bytes();
        *digest.first_chunk::<DIGEST_LEN>().expect("SHA-256 has 32 bytes")
    }

    /// Tells the id of the key, as a record of the audit trail names who signed it.
    pub fn audit_id(&self) -> &[u8; Self::ID_LEN] {
        &self.id
    }

    /// Signs the hash of a record of the audit trail.
    pub fn audit_tag(&self, hash: &[u8; 32]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.audit.expose()).expect("HMAC takes a key of any length");
        mac.update(hash);
        mac.finalize().into_bytes().into()
    }

    /// Checks such a signature, in constant time for tags of the right length.
    pub fn is_audit_tag(&self, hash: &[u8; 32], tag: &[u8]) -> bool {
        self.audit_tag(hash).as_slice().ct_eq(tag).into()
    }

    /// Gives the bytes to seal into an envelope.
    pub(super) fn expose(&self) -> &[u8] {
        self.key.expose()
    }

    /// Tells its id, which stands in the header of each object and reveals nothing.
    pub(super) fn id(&self) -> &[u8; Self::ID_LEN] {
        &self.id
    }

    /// Derives the key that authenticates backups.
    pub(super) fn backup_key(&self) -> Zeroizing<[u8; 32]> {
        expand(&self.prk, &[INFO_BACKUP])
    }

    /// Derives the key of one object and purpose.
    pub(super) fn object_key(&self, purpose: Purpose, uid: &[u8; 16]) -> Zeroizing<[u8; 32]> {
        expand(&self.prk, &[INFO_OBJECT, &[purpose.code()], uid])
    }
}

/// Runs HKDF-Expand (RFC 5869, 2.3) over the concatenation of `info`.
fn expand<const N: usize>(prk: &SecureBytes, info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    let hkdf = Hkdf::<Sha256>::from_prk(prk.expose()).expect("the pseudorandom key has SHA-256's length");
    let mut out = Zeroizing::new([0; N]);
    hkdf.expand_multi_info(info, &mut out[..]).expect("N is far below 255 times SHA-256's length");
    out
}
