//! The seal of one object: its attributes, and its secret.
//!
//! The rules are:
//! - token serial, uid and revision are authenticated with everything, so that nothing can be moved or rolled back alone;
//! - a secret is bound to its attributes: with one of them altered, or of another revision, it does not open;
//! - attributes of a public object can be read before login. Anyone can check their checksum, which finds damage; the tag,
//!   which finds an attacker, is checked as soon as the token key is there.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::aead::{self, Mismatch, NONCE_LEN, Nonce, TAG_LEN, Tag};
use super::header::{BlobKind, Bytes, Header};
use super::reader::Reader;
use super::token_key::{Purpose, TokenKey};
use crate::error::{Error, Kind, Result};
use crate::secret::{SecureBytes, SecurePrivateKey};

const DIGEST_LEN: usize = 32;
/// What the checksum of public attributes starts with.
const CHECKSUM_PREFIX: &[u8] = b"strongroom public attributes v1";
/// How often one object may be sealed: with random nonces, a key is good for 2^32 seals (NIST SP 800-38D, 8.3).
const MAX_REVISION: u64 = 0xFFFF_FFFF;

/// Which object, and which of its revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectId {
    /// The serial number of the token.
    pub token: [u8; 16],
    /// The unique id of the object.
    pub uid: [u8; 16],
    /// Counts up from 1 with each change of the object; each revision is sealed once.
    pub revision: u64,
}

/// Attributes that were opened.
#[derive(Debug)]
pub struct OpenedAttributes {
    /// Whether they were encrypted.
    pub private: bool,
    /// The attributes in the encoding of `docs/format.md`.
    pub encoded: Zeroizing<Vec<u8>>,
    /// Whether a tag under the token key vouches for them; without it, the checksum alone does.
    pub verified: bool,
}

/// Seals the attributes of an object: encrypted when it is private, readable with checksum and tag when it is not.
///
/// # Errors
/// `TokenResourceExceeded` when the object has been changed too often; `DeviceError` without randomness.
pub fn seal_attributes(key: &TokenKey, id: &ObjectId, private: bool, encoded: &[u8]) -> Result<Vec<u8>> {
    match private {
        true => encrypt(key, id, Purpose::Attributes, encoded, &[]),
        false => tag_public(key, id, encoded),
    }
}

/// Opens the attributes of an object. Those of a public object open without the key, unverified.
///
/// # Errors
/// `UserNotLoggedIn` for a private object without the key; `DeviceError` when they are damaged or were altered.
pub fn open_attributes(key: Option<&TokenKey>, id: &ObjectId, blob: &[u8]) -> Result<OpenedAttributes> {
    match (is_private(blob)?, key) {
        (false, key) => open_public(key, id, blob),
        (true, None) => Err(Error::from(Kind::UserNotLoggedIn)),
        (true, Some(key)) => {
            let sealed = Sealed::parse(blob, BlobKind::PrivateAttributes)?;
            let mut encoded = Zeroizing::new(room_for(sealed.ciphertext.len())?);
            encoded.resize(sealed.ciphertext.len(), 0);
            sealed.open(key, id, Purpose::Attributes, &[], &mut encoded)?;
            Ok(OpenedAttributes { private: true, encoded, verified: true })
        }
    }
}

/// Tells whether sealed attributes are those of a private object, without opening them.
///
/// # Errors
/// `DeviceError` when the blob is not one of attributes.
pub fn is_private(blob: &[u8]) -> Result<bool> {
    match Header::parse(&mut Reader::new(blob, "an object's attributes"))?.kind {
        BlobKind::PrivateAttributes => Ok(true),
        BlobKind::PublicAttributes => Ok(false),
        other => Err(Error::damaged("an object's attributes").context(format!("found {} instead", other.name()))),
    }
}

/// Seals the secret of an object, bound to the attributes of the same revision.
///
/// # Errors
/// As [`seal_attributes`].
pub fn seal_secret(
    key: &TokenKey,
    id: &ObjectId,
    encoded_attributes: &[u8],
    secret: &SecurePrivateKey,
) -> Result<Vec<u8>> {
    encrypt(key, id, Purpose::Secret, secret.expose(), &Sha256::digest(encoded_attributes))
}

/// Opens the secret of an object with the attributes that it was sealed with.
///
/// # Errors
/// `DeviceError` when secret or attributes are damaged, were altered, or are of different revisions.
pub fn open_secret(key: &TokenKey, id: &ObjectId, encoded_attributes: &[u8], blob: &[u8]) -> Result<SecurePrivateKey> {
    let sealed = Sealed::parse(blob, BlobKind::Secret)?;
    let bound = Sha256::digest(encoded_attributes);
    let mut secret = SecureBytes::try_zeroed(sealed.ciphertext.len())?;
    sealed.open(key, id, Purpose::Secret, &bound, secret.expose_mut())?;
    Ok(SecurePrivateKey::new(secret))
}

impl ObjectId {
    /// Checks that the object key may be used once more.
    fn check_bound(&self) -> Result<()> {
        if self.revision <= MAX_REVISION {
            return Ok(());
        }
        let text = format!("object {} has been changed 2^32 times; make a new one", self.uid_text());
        Err(Error::new(Kind::TokenResourceExceeded, text))
    }

    /// Appends what is authenticated with every blob of the object.
    fn append_to(&self, data: &mut Bytes) {
        data.extend_from_slice(&self.token);
        data.extend_from_slice(&self.uid);
        data.extend_from_slice(&self.revision.to_be_bytes());
    }

    fn uid_text(&self) -> String {
        HEXLOWER.encode(&self.uid)
    }

    fn damaged(&self, kind: BlobKind) -> Error {
        Error::damaged(format!("{} (object {})", kind.name(), self.uid_text()))
    }
}

/// Tells the kind of blob that an encrypting purpose makes.
fn kind_of(purpose: Purpose) -> BlobKind {
    match purpose {
        Purpose::Attributes => BlobKind::PrivateAttributes,
        Purpose::Secret => BlobKind::Secret,
        Purpose::Tag => BlobKind::PublicAttributes,
    }
}

/// Encodes the header of an object's blob.
fn header(key: &TokenKey, kind: BlobKind) -> Result<Bytes> {
    Header { kind, key_version: TokenKey::VERSION, key_id: key.id() }.encode()
}

/// Encrypts: header, nonce, ciphertext, tag.
fn encrypt(key: &TokenKey, id: &ObjectId, purpose: Purpose, plain: &[u8], bound: &[u8]) -> Result<Vec<u8>> {
    id.check_bound()?;
    let mut aad = header(key, kind_of(purpose))?;
    let nonce: Nonce = aead::random()?;
    let start = aad.len() + NONCE_LEN;
    let mut blob = room_for(start + plain.len() + TAG_LEN)?;
    blob.extend_from_slice(&aad);
    blob.extend_from_slice(&nonce);
    blob.resize(start + plain.len(), 0);
    id.append_to(&mut aad);
    aad.extend_from_slice(bound);
    let (_, out) = blob.split_at_mut(start);
    let tag = aead::seal(&key.object_key(purpose, &id.uid)[..], &nonce, &aad, plain, out)?;
    blob.extend_from_slice(&tag);
    Ok(blob)
}

/// An encrypted blob, taken apart.
struct Sealed<'a> {
    header: Header<'a>,
    nonce: &'a Nonce,
    ciphertext: &'a [u8],
    tag: &'a Tag,
}

impl<'a> Sealed<'a> {
    fn parse(blob: &'a [u8], kind: BlobKind) -> Result<Self> {
        let mut reader = Reader::new(blob, kind.name());
        let header = Header::parse_kind(&mut reader, kind)?;
        let nonce = reader.array()?;
        let tag = reader.array_at_end()?;
        Ok(Self { header, nonce, ciphertext: reader.remaining(), tag })
    }

    /// Decrypts into `out`, which has the ciphertext's length.
    fn open(&self, key: &TokenKey, id: &ObjectId, purpose: Purpose, bound: &[u8], out: &mut [u8]) -> Result<()> {
        check_key(key, &self.header, id)?;
        let mut aad = self.header.encode()?;
        id.append_to(&mut aad);
        aad.extend_from_slice(bound);
        aead::open(&key.object_key(purpose, &id.uid)[..], self.nonce, &aad, self.ciphertext, self.tag, out)
            .map_err(|Mismatch| id.damaged(self.header.kind))
    }
}

/// Makes a vector with room for an object, whose size the callers of the library decide.
fn room_for(len: usize) -> Result<Vec<u8>> {
    let mut room = Vec::new();
    room.try_reserve_exact(len)?;
    Ok(room)
}

/// Checks that a blob was sealed under this token key.
fn check_key(key: &TokenKey, header: &Header<'_>, id: &ObjectId) -> Result<()> {
    if header.key_version == TokenKey::VERSION && header.key_id == key.id() {
        return Ok(());
    }
    Err(id.damaged(header.kind).context(format!(
        "sealed under token key {} version {}, and this token's is {} version {}",
        HEXLOWER.encode(header.key_id),
        header.key_version,
        HEXLOWER.encode(key.id()),
        TokenKey::VERSION
    )))
}

/// Tags readable attributes: header, nonce, tag, checksum, attributes.
fn tag_public(key: &TokenKey, id: &ObjectId, encoded: &[u8]) -> Result<Vec<u8>> {
    id.check_bound()?;
    let header = header(key, BlobKind::PublicAttributes)?;
    let nonce: Nonce = aead::random()?;
    let aad = public_data(&header, id, encoded);
    let tag = aead::seal(&key.object_key(Purpose::Tag, &id.uid)[..], &nonce, &aad, &[], &mut [])?;
    let checksum = checksum(&aad, &nonce, &tag);
    let mut blob = room_for(header.len() + NONCE_LEN + TAG_LEN + DIGEST_LEN + encoded.len())?;
    for part in [&header[..], &nonce, &tag, &checksum, encoded] {
        blob.extend_from_slice(part);
    }
    Ok(blob)
}

fn open_public(key: Option<&TokenKey>, id: &ObjectId, blob: &[u8]) -> Result<OpenedAttributes> {
    let kind = BlobKind::PublicAttributes;
    let mut reader = Reader::new(blob, kind.name());
    let header = Header::parse_kind(&mut reader, kind)?;
    let (nonce, tag): (&Nonce, &Tag) = (reader.array()?, reader.array()?);
    let stored: &[u8; DIGEST_LEN] = reader.array()?;
    let encoded = reader.remaining();
    let aad = public_data(&header.encode()?, id, encoded);
    if checksum(&aad, nonce, tag) != *stored {
        return Err(id.damaged(kind));
    }
    if let Some(key) = key {
        check_key(key, &header, id)?;
        aead::open(&key.object_key(Purpose::Tag, &id.uid)[..], nonce, &aad, &[], tag, &mut [])
            .map_err(|Mismatch| id.damaged(kind))?;
    }
    let mut copy = Zeroizing::new(room_for(encoded.len())?);
    copy.extend_from_slice(encoded);
    Ok(OpenedAttributes { private: false, encoded: copy, verified: key.is_some() })
}

/// Puts together what tag and checksum of public attributes vouch for; the attributes enter by their digest.
fn public_data(header: &[u8], id: &ObjectId, encoded: &[u8]) -> Bytes {
    let mut data = Bytes::from_slice(header);
    id.append_to(&mut data);
    data.extend_from_slice(&Sha256::digest(encoded));
    data
}

fn checksum(data: &[u8], nonce: &Nonce, tag: &Tag) -> [u8; DIGEST_LEN] {
    let digest = Sha256::new().chain_update(CHECKSUM_PREFIX).chain_update(data).chain_update(nonce).chain_update(tag);
    digest.finalize().into()
}
