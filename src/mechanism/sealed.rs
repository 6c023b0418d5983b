//! Ciphertexts that name the key and the version that made them: Strongroom's own mechanism CKM_SR_SEALED.
//!
//! The rules are:
//! - what stands in clear is authenticated with the rest; `docs/format.md` has it byte by byte;
//! - a version decrypts what it made and nothing else is tried: a version that is not there is an error that names it;
//! - the nonce is random and the key a version's own, whose rotation keeps the number of messages under one key in bounds.

use std::fmt;
use std::sync::Arc;

use super::key::Key;
use super::mechanism::*;
use crate::ck::*;
use crate::crypto::aead::{GcmDecryption, GcmEncryption};
use crate::crypto::{InOut, random};
use crate::error::{Error, Kind, Result};
use crate::secret::SecureBytes;

/// The length of a key's id in a header, in bytes.
pub const KEY_ID_LEN: usize = 16;

/// What a header starts with: magic, format version 1, algorithm 1 (AES-GCM, nonce of 12 bytes, tag of 16).
const START: [u8; 6] = *b"SRCT\x01\x01";
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// Start, key id and version: what is authenticated.
const HEADER_LEN: usize = START.len() + KEY_ID_LEN + 8;
/// What stands before the ciphertext.
const HEAD_LEN: usize = HEADER_LEN + NONCE_LEN;
/// By how much a ciphertext is longer than its plaintext.
const OVERHEAD: usize = HEAD_LEN + TAG_LEN;

/// The versions of one managed key, as the token reaches them.
pub trait KeyVersions: Send + Sync {
    /// Tells the key by a digest of its name.
    fn id(&self) -> &[u8; KEY_ID_LEN];

    /// Tells the version of the handle that the operation began with.
    fn number(&self) -> u64;

    /// Finds the key of a version that may decrypt.
    ///
    /// # Errors
    /// `EncryptedDataInvalid` for a version that is not there; `KeyFunctionNotPermitted` for one that may not.
    fn key(&self, number: u64) -> Result<Arc<Key>>;
}

/// Shares the versions among the copies of a parameter.
#[derive(Clone)]
pub struct Versions(pub Arc<dyn KeyVersions>);

impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Versions({})", self.0.number())
    }
}

impl PartialEq for Versions {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Versions {}

/// The rows of the family.
pub static ROWS: &[Mechanism] = &[Mechanism {
    id: CKM_SR_SEALED,
    key_types: &[CKK_AES],
    key_size: (16, 32),
    params: ParamShape::KeyVersions,
    encrypt: Some(|key, params| Ok(Box::new(Encryption::new(key, versions(params)?.as_ref())?))),
    decrypt: Some(|key, params| Ok(Box::new(Decryption::new(key, versions(params)?)))),
    ..Mechanism::NONE
}];

fn versions(params: &Params) -> Result<&Arc<dyn KeyVersions>> {
    match params {
        Params::KeyVersions(versions) => Ok(&versions.0),
        _ => Err(Error::from(Kind::MechanismParamInvalid)),
    }
}

fn aes(key: &Key) -> Result<&super::aes::AesKey> {
    match key {
        Key::Aes(key) => Ok(key),
        _ => Err(Key::wrong_type()),
    }
}

/// Writes the header of a version's ciphertexts.
fn header(id: &[u8; KEY_ID_LEN], number: u64) -> Vec<u8> {
    [&START[..], id, &number.to_be_bytes()].concat()
}

/// A running encryption.
struct Encryption {
    /// What goes out before the ciphertext; empty once it has.
    head: Vec<u8>,
    cipher: GcmEncryption,
}

impl Encryption {
    fn new(key: &Key, versions: &dyn KeyVersions) -> Result<Self> {
        let mut nonce = [0; NONCE_LEN];
        random::fill(&mut nonce)?;
        let header = header(versions.id(), versions.number());
        let cipher = GcmEncryption::new(aes(key)?, &nonce, &header, TAG_LEN)?;
        Ok(Self { head: [&header[..], &nonce].concat(), cipher })
    }

    /// Runs a step of the cipher on memory of its own, since the head shifts its output against its input.
    fn run(
        &mut self,
        mut data: InOut<'_>,
        more: usize,
        step: fn(&mut GcmEncryption, InOut<'_>) -> Result<Written>,
    ) -> Result<Written> {
        let needed = self.head.len().saturating_add(data.len()).saturating_add(more);
        if data.room() < needed {
            return Ok(Written::Needs(needed));
        }
        let input = data.copy_input()?;
        let mut output = Vec::new();
        output.try_reserve_exact(needed)?;
        output.resize(needed - self.head.len(), 0);
        match step(&mut self.cipher, InOut::from_slices(input.expose(), &mut output))? {
            Written::Bytes(len) if len == output.len() => {}
            _ => return Err(Error::internal("a cipher gave another length than it had said")),
        }
        let fits = data.write(&self.head) && data.write_at(self.head.len(), &output);
        self.head.clear();
        if fits { Ok(Written::Bytes(needed)) } else { Err(Error::internal("an output grew while it was written")) }
    }
}

impl CipherOperation for Encryption {
    fn output_len(&self, step: Step, input: usize) -> usize {
        let head = self.head.len();
        match step {
            Step::Single => input.saturating_add(head).saturating_add(TAG_LEN),
            Step::Update => input.saturating_add(head),
            Step::Final => head.saturating_add(TAG_LEN),
        }
    }

    fn single(&mut self, data: InOut<'_>) -> Result<Written> {
        self.run(data, TAG_LEN, |cipher, data| cipher.single(data))
    }

    fn update(&mut self, data: InOut<'_>) -> Result<Written> {
        self.run(data, 0, |cipher, data| cipher.update(data))
    }

    fn finish(&mut self, data: InOut<'_>) -> Result<Written> {
        self.run(data, TAG_LEN, |cipher, data| cipher.finish(data))
    }
}

/// A running decryption: it begins when all is there, since the header tells the key.
struct Decryption {
    /// The key that the operation began with, which a login for it alone may have opened.
    own: Arc<Key>,
    versions: Arc<dyn KeyVersions>,
    collected: Vec<u8>,
}

impl Decryption {
    fn new(own: &Arc<Key>, versions: &Arc<dyn KeyVersions>) -> Self {
        Self { own: own.clone(), versions: versions.clone(), collected: Vec::new() }
    }

    fn open(&self, all: &[u8], mut data: InOut<'_>) -> Result<Written> {
        let parts = Parts::of(all)?;
        if parts.id != self.versions.id() {
            return Err(invalid("it was made by another key: its header names another owner or asset"));
        }
        let len = parts.body.len().saturating_sub(TAG_LEN);
        if data.room() < len {
            return Ok(Written::Needs(len));
        }
        let key = match parts.number == self.versions.number() {
            true => self.own.clone(),
            false => self.versions.key(parts.number)?,
        };
        let mut plain = SecureBytes::try_zeroed(len)?;
        let header = header(parts.id, parts.number);
        let mut cipher = GcmDecryption::new(aes(&key)?, parts.nonce, &header, TAG_LEN)?;
        cipher.single(InOut::from_slices(parts.body, plain.expose_mut()))?;
        if data.write(plain.expose()) { Ok(Written::Bytes(len)) } else { Ok(Written::Needs(len)) }
    }
}

impl CipherOperation for Decryption {
    fn output_len(&self, step: Step, input: usize) -> usize {
        match step {
            Step::Single => input.saturating_sub(OVERHEAD),
            Step::Update => 0,
            Step::Final => self.collected.len().saturating_sub(OVERHEAD),
        }
    }

    fn single(&mut self, data: InOut<'_>) -> Result<Written> {
        let mut all = Vec::new();
        data.append_to(&mut all)?;
        self.open(&all, data)
    }

    fn update(&mut self, data: InOut<'_>) -> Result<Written> {
        data.append_to(&mut self.collected)?;
        Ok(Written::Bytes(0))
    }

    fn finish(&mut self, data: InOut<'_>) -> Result<Written> {
        self.open(&self.collected, data)
    }
}

/// A ciphertext, taken apart.
struct Parts<'a> {
    id: &'a [u8; KEY_ID_LEN],
    number: u64,
    nonce: &'a [u8; NONCE_LEN],
    /// Ciphertext and tag.
    body: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Takes a ciphertext apart.
    ///
    /// # Errors
    /// `EncryptedDataLenRange` for one that is too short; `EncryptedDataInvalid` that names what was found instead.
    fn of(all: &'a [u8]) -> Result<Self> {
        let short = || Error::new(Kind::EncryptedDataLenRange, "the ciphertext is shorter than its header and tag");
        let (start, rest) = all.split_first_chunk::<{ START.len() }>().ok_or_else(short)?;
        match (start, &START) {
            (found, wanted) if found == wanted => {}
            ([b'S', b'R', b'C', b'T', format, algorithm], _) => {
                return Err(invalid(&format!(
                    "its format {format} or algorithm {algorithm} is unknown to this version of the library"
                )));
            }
            _ => return Err(invalid("it does not start as CKM_SR_SEALED makes it")),
        }
        let (id, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (number, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (nonce, body) = rest.split_first_chunk().ok_or_else(short)?;
        match body.len() < TAG_LEN {
            true => Err(short()),
            false => Ok(Self { id, number: u64::from_be_bytes(*number), nonce, body }),
        }
    }
}

fn invalid(how: &str) -> Error {
    Error::new(Kind::EncryptedDataInvalid, format!("the ciphertext cannot be decrypted: {how}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// Keys whose bytes are their version's number.
    struct Numbered(u64);

    impl KeyVersions for Numbered {
        fn id(&self) -> &[u8; KEY_ID_LEN] {
            b"the key's digest"
        }

        fn number(&self) -> u64 {
            self.0
        }

        fn key(&self, number: u64) -> Result<Arc<Key>> {
            match u8::try_from(number) {
                Ok(byte @ 1..=3) => Ok(Arc::new(key(byte))),
                _ => Err(Error::from(Kind::EncryptedDataInvalid)),
            }
        }
    }

    fn key(byte: u8) -> Key {
        Key::Aes(super::super::aes::AesKey::new(SecureBytes::copy_from(&[byte; 32])).unwrap())
    }

    fn seal(number: u8, plain: &[u8]) -> Vec<u8> {
        let mut running = Encryption::new(&key(number), &Numbered(number.into())).unwrap();
        let mut out = vec![0; running.output_len(Step::Single, plain.len())];
        let len = out.len();
        assert_eq!(running.single(InOut::from_slices(plain, &mut out)).unwrap(), Written::Bytes(len));
        out
    }

    fn decryption(number: u8) -> Decryption {
        let versions: Arc<dyn KeyVersions> = Arc::new(Numbered(number.into()));
        Decryption::new(&Arc::new(key(number)), &versions)
    }

    fn open(sealed: &[u8]) -> Result<Vec<u8>> {
        let mut running = decryption(3);
        let mut out = vec![0; running.output_len(Step::Single, sealed.len())];
        match running.single(InOut::from_slices(sealed, &mut out))? {
            Written::Bytes(len) => Ok(out[..len].to_vec()),
            Written::Needs(needed) => panic!("needs {needed}"),
        }
    }

    #[test]
    fn r32_each_ciphertext_finds_its_version() {
        for number in 1..=3 {
            for plain in [&b""[..], b"a", &[7; 4096]] {
                let sealed = seal(number, plain);
                assert_eq!(sealed.len(), plain.len() + OVERHEAD);
                assert_eq!(open(&sealed).unwrap(), plain);
            }
        }
        assert_ne!(seal(1, b"same"), seal(1, b"same"), "the nonce is random");
        assert_eq!(open(&seal(9, b"unknown")).unwrap_err().kind(), Kind::EncryptedDataInvalid);
    }

    #[test]
    fn the_format_is_the_documented_one() {
        let sealed = seal(2, b"plain");
        assert_eq!(sealed[..30], *b"SRCT\x01\x01the key's digest\0\0\0\0\0\0\0\x02");
        // By another implementation of AES-GCM.
        use aes_gcm::aead::{Aead, KeyInit, Payload};
        let cipher = aes_gcm::Aes256Gcm::new_from_slice(&[2; 32]).unwrap();
        let nonce: [u8; 12] = sealed[30..42].try_into().unwrap();
        let plain = cipher.decrypt(&nonce.into(), Payload { msg: &sealed[42..], aad: &sealed[..30] }).unwrap();
        assert_eq!(plain, b"plain");
    }

    #[test]
    fn r32_every_altered_byte_is_told_and_nothing_else_is_tried() {
        let sealed = seal(1, b"plain");
        for place in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[place] ^= 2;
            let error = open(&altered).expect_err("altered");
            assert_eq!(error.kind(), Kind::EncryptedDataInvalid, "{place}: {error}");
        }
        for len in 0..OVERHEAD {
            assert_eq!(open(&sealed[..len]).expect_err("short").kind(), Kind::EncryptedDataLenRange, "{len}");
        }
        let mut newer = sealed;
        newer[4] = 2;
        assert!(open(&newer).expect_err("newer").message().contains("format 2"));
    }

    #[test]
    fn parts_give_the_same_as_one() {
        let mut running = Encryption::new(&key(1), &Numbered(1)).unwrap();
        let (mut sealed, mut room) = (Vec::new(), [0; 128]);
        for part in [&b"first "[..], b"", b"second"] {
            let needed = running.output_len(Step::Update, part.len());
            let mut small = vec![0; needed.saturating_sub(1)];
            if needed > 0 {
                assert_eq!(running.update(InOut::from_slices(part, &mut small)).unwrap(), Written::Needs(needed));
            }
            let Written::Bytes(len) = running.update(InOut::from_slices(part, &mut room)).unwrap() else { panic!() };
            assert_eq!(len, needed);
            sealed.extend_from_slice(&room[..len]);
        }
        let Written::Bytes(len) = running.finish(InOut::from_slices(&[], &mut room)).unwrap() else { panic!() };
        sealed.extend_from_slice(&room[..len]);
        assert_eq!(open(&sealed).unwrap(), b"first second");
        let mut running = decryption(2);
        for byte in &sealed {
            running.update(InOut::from_slices(&[*byte], &mut [])).unwrap();
        }
        assert_eq!(running.finish(InOut::from_slices(&[], &mut [])).unwrap(), Written::Needs(12));
        let Written::Bytes(len) = running.finish(InOut::from_slices(&[], &mut room)).unwrap() else { panic!() };
        assert_eq!(room[..len], *b"first second");
    }
}
