//! The seal of a secret under its owner's own password, inside the seal of its object.
//!
//! The rules are:
//! - this seal is the inner one: it can be tried only by who has opened the object's own, which needs the KMS and a PIN;
//! - it is bound to owner, asset and version, so that a secret cannot stand in for that of another version or key. It is not bound
//!   to token and object: the outer seal is, and a backup that is restored elsewhere opens with the same password;
//! - versions that were sealed in one change share salt and cost, so that one Argon2id opens all of them; each has a random nonce.

use super::aead::{self, Mismatch, NONCE_LEN, Nonce, TAG_LEN, Tag};
use super::argon2::{Argon2Params, SALT_LEN};
use super::header::{BlobKind, Bytes, Header};
use super::reader::Reader;
use crate::error::{Error, Kind, Result};
use crate::secret::{MasterKey, SecureBytes, SecurePrivateKey};

const KIND: BlobKind = BlobKind::PasswordSealed;
/// The version of the sealing key in the header: a password has no other.
const KEY_VERSION: u32 = 1;

/// Which version of which managed key a secret is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionName<'a> {
    /// The owner, at most 65535 bytes.
    pub owner: &'a [u8],
    /// The asset, likewise.
    pub asset: &'a [u8],
    /// The number of the version.
    pub version: u64,
}

/// What Argon2id made of a password with one salt at one cost: it seals and opens secrets. Wiped when dropped.
#[derive(Debug)]
pub struct PasswordKey {
    cost: Cost,
    master: MasterKey,
}

/// What stands in clear of the key derivation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    params: Argon2Params,
    salt: [u8; SALT_LEN],
}

impl Cost {
    fn derive(self, password: &SecureBytes) -> Result<PasswordKey> {
        let master = self.params.derive(password, &self.salt)?;
        Ok(PasswordKey { cost: self, master })
    }

    fn append_to(&self, bytes: &mut Bytes) {
        for number in [self.params.memory_kib(), self.params.passes(), self.params.lanes()] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.salt);
    }

    /// Encodes header and cost: what a blob starts with.
    fn head(&self) -> Result<Bytes> {
        let mut head = Header { kind: KIND, key_version: KEY_VERSION, key_id: &[] }.encode()?;
        self.append_to(&mut head);
        Ok(head)
    }

    /// Encodes what a seal is bound to.
    fn bound_to(&self, name: &VersionName<'_>) -> Result<Bytes> {
        let mut bound = self.head()?;
        bound.extend_from_slice(&name.version.to_be_bytes());
        for text in [name.owner, name.asset] {
            let len = u16::try_from(text.len()).map_err(|_| Error::arguments_bad("the name of a key is too long"))?;
            bound.extend_from_slice(&len.to_be_bytes());
            bound.extend_from_slice(text);
        }
        Ok(bound)
    }
}

impl PasswordKey {
    /// Derives the key of a new seal, with a random salt: one Argon2id.
    ///
    /// # Errors
    /// `HostMemory` when Argon2id finds too little memory; `DeviceError` without randomness.
    pub fn new(password: &SecureBytes, params: Argon2Params) -> Result<Self> {
        Cost { params, salt: aead::random()? }.derive(password)
    }

    /// Derives the key that opens a sealed secret, if the password is right: one Argon2id.
    ///
    /// # Errors
    /// `HostMemory` as above; `DeviceError` for what is no such seal.
    pub fn of(sealed: &SecurePrivateKey, password: &SecureBytes) -> Result<Self> {
        Sealed::parse(sealed.expose())?.cost.derive(password)
    }

    /// Tells what the key cost.
    pub fn params(&self) -> Argon2Params {
        self.cost.params
    }

    /// Tells whether a sealed secret has this key's salt and cost: then it opens with this key or with another password.
    ///
    /// # Errors
    /// `DeviceError` for what is no such seal.
    pub fn fits(&self, sealed: &SecurePrivateKey) -> Result<bool> {
        Ok(Sealed::parse(sealed.expose())?.cost == self.cost)
    }

    /// Seals a secret.
    ///
    /// # Errors
    /// `DeviceError` without randomness; `HostMemory`.
    pub fn seal(&self, name: &VersionName<'_>, secret: &SecurePrivateKey) -> Result<SecurePrivateKey> {
        let (head, plain, nonce) = (self.cost.head()?, secret.expose(), aead::random::<NONCE_LEN>()?);
        let mut blob = SecureBytes::try_zeroed(head.len() + NONCE_LEN + plain.len() + TAG_LEN)?;
        let parts = split(blob.expose_mut(), head.len(), plain.len());
        let (start, place, out, end) = parts.ok_or_else(|| Error::internal("a seal has another length"))?;
        start.copy_from_slice(&head);
        *place = nonce;
        *end = aead::seal(self.master.expose(), &nonce, &self.cost.bound_to(name)?, plain, out)?;
        Ok(SecurePrivateKey::new(blob))
    }

    /// Opens a sealed secret.
    ///
    /// # Errors
    /// `PinIncorrect` for a wrong password, or the seal of another version; `DeviceError` for what is no such seal.
    pub fn open(&self, name: &VersionName<'_>, sealed: &SecurePrivateKey) -> Result<SecurePrivateKey> {
        let Sealed { cost, nonce, ciphertext, tag } = Sealed::parse(sealed.expose())?;
        let (bound, wrong) = (cost.bound_to(name)?, || Error::from(Kind::PinIncorrect));
        let mut secret = SecureBytes::try_zeroed(ciphertext.len())?;
        let opened = aead::open(self.master.expose(), nonce, &bound, ciphertext, tag, secret.expose_mut());
        opened.map_err(|Mismatch| wrong())?;
        match cost == self.cost {
            true => Ok(SecurePrivateKey::new(secret)),
            false => Err(wrong()),
        }
    }
}

/// The parts of a blob that is written: head, nonce, ciphertext, tag.
type Places<'a> = (&'a mut [u8], &'a mut Nonce, &'a mut [u8], &'a mut Tag);

fn split(blob: &mut [u8], head: usize, len: usize) -> Option<Places<'_>> {
    let (start, rest) = blob.split_at_mut_checked(head)?;
    let (nonce, rest) = rest.split_first_chunk_mut()?;
    let (ciphertext, rest) = rest.split_at_mut_checked(len)?;
    Some((start, nonce, ciphertext, rest.first_chunk_mut()?))
}

/// A sealed secret, taken apart.
struct Sealed<'a> {
    cost: Cost,
    nonce: &'a Nonce,
    ciphertext: &'a [u8],
    tag: &'a Tag,
}

impl<'a> Sealed<'a> {
    fn parse(blob: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(blob, KIND.name());
        let header = Header::parse_kind(&mut reader, KIND)?;
        if header.key_version != KEY_VERSION || !header.key_id.is_empty() {
            return Err(Error::damaged(KIND.name()));
        }
        let (memory_kib, passes, lanes) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let params =
            Argon2Params::new(memory_kib, passes, lanes).map_err(|e| Error::damaged(KIND.name()).caused_by(e))?;
        let cost = Cost { params, salt: *reader.array()? };
        let (nonce, tag) = (reader.array()?, reader.array_at_end()?);
        Ok(Self { cost, nonce, ciphertext: reader.remaining(), tag })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const NAME: VersionName<'static> = VersionName { owner: b"alice", asset: b"btc", version: 3 };

    fn text(text: &str) -> SecureBytes {
        SecureBytes::copy_from(text.as_bytes())
    }

    fn secret() -> SecurePrivateKey {
        SecurePrivateKey::new(SecureBytes::copy_from(b"CanaryKey:4Jx8u2MpQ7vZ1sLb9RtYc3"))
    }

    fn key(password: &str) -> PasswordKey {
        PasswordKey::new(&text(password), Argon2Params::LEAST).unwrap()
    }

    #[test]
    fn a_secret_opens_with_its_password_alone() {
        for password in ["correct horse", "", "p\0in", &"x".repeat(4096)] {
            let sealed = key(password).seal(&NAME, &secret()).unwrap();
            assert!(sealed.expose().windows(8).all(|window| secret().expose().windows(8).all(|part| part != window)));
            let right = PasswordKey::of(&sealed, &text(password)).unwrap();
            assert!(right.fits(&sealed).unwrap() && right.open(&NAME, &sealed).unwrap() == secret());
            let wrong = PasswordKey::of(&sealed, &text("another")).unwrap();
            assert!(wrong.fits(&sealed).unwrap());
            assert_eq!(wrong.open(&NAME, &sealed).unwrap_err().kind(), Kind::PinIncorrect);
        }
    }

    #[test]
    fn versions_share_a_key_and_no_nonce() {
        let key = key("correct horse");
        let other = VersionName { version: 4, ..NAME };
        let (first, second) = (key.seal(&NAME, &secret()).unwrap(), key.seal(&other, &secret()).unwrap());
        let nonce = |sealed: &SecurePrivateKey| sealed.expose()[57..69].to_vec();
        assert_ne!(nonce(&first), nonce(&second));
        assert!(key.fits(&second).unwrap() && key.open(&other, &second).unwrap() == secret());
        let elsewhere = PasswordKey::new(&text("correct horse"), Argon2Params::LEAST).unwrap();
        assert!(!elsewhere.fits(&first).unwrap(), "each key has a salt of its own");
        assert_eq!(elsewhere.open(&NAME, &first).unwrap_err().kind(), Kind::PinIncorrect);
    }

    #[test]
    fn a_seal_is_of_one_version_of_one_key() {
        let key = key("correct horse");
        let sealed = key.seal(&NAME, &secret()).unwrap();
        for other in [
            VersionName { owner: b"bob", ..NAME },
            VersionName { asset: b"eth", ..NAME },
            VersionName { version: 2, ..NAME },
            // The same bytes, cut elsewhere.
            VersionName { owner: b"aliceb", asset: b"tc", version: 3 },
        ] {
            assert_eq!(key.open(&other, &sealed).unwrap_err().kind(), Kind::PinIncorrect);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_told() {
        let key = key("correct horse");
        let sealed = key.seal(&NAME, &secret()).unwrap();
        let answer = |bytes: &[u8]| {
            let altered = SecurePrivateKey::new(SecureBytes::copy_from(bytes));
            key.open(&NAME, &altered).map(|_| ()).unwrap_err().kind()
        };
        for byte in 0..sealed.expose().len() {
            for bit in 0..8 {
                let mut altered = sealed.expose().to_vec();
                altered[byte] ^= 1 << bit;
                let kind = answer(&altered);
                assert!(matches!(kind, Kind::PinIncorrect | Kind::DeviceError), "byte {byte}: {kind:?}");
                // The header is checked before anything is computed with what follows it.
                assert!(byte >= 13 || kind == Kind::DeviceError, "byte {byte}: {kind:?}");
            }
            assert!(matches!(answer(&sealed.expose()[..byte]), Kind::DeviceError | Kind::PinIncorrect));
        }
    }

    #[test]
    fn a_cost_out_of_bounds_takes_no_machine_down() {
        let sealed = key("correct horse").seal(&NAME, &secret()).unwrap();
        for place in [13, 17, 21] {
            let mut altered = sealed.expose().to_vec();
            altered[place] = 0xFF;
            let altered = SecurePrivateKey::new(SecureBytes::copy_from(&altered));
            assert_eq!(PasswordKey::of(&altered, &text("x")).unwrap_err().kind(), Kind::DeviceError);
        }
    }

    /// The document's example was made by another library.
    #[test]
    fn the_documents_example_opens() {
        let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/format.md")).unwrap();
        let blob = document.split("| blob | `").nth(1).unwrap().split('`').next().unwrap();
        let blob = SecureBytes::take(data_encoding::HEXLOWER.decode(blob.as_bytes()).unwrap());
        let sealed = SecurePrivateKey::new(blob);
        let key = PasswordKey::of(&sealed, &text("correct horse")).unwrap();
        assert_eq!(key.params(), Argon2Params::new(1024, 2, 3).unwrap());
        assert_eq!(key.open(&NAME, &sealed).unwrap().expose(), [0x5A; 32]);
        let master = format!("| MasterKey | `{}` |", data_encoding::HEXLOWER.encode(key.master.expose()));
        assert!(document.contains(&master));
    }

    /// What `docs/format.md` states, computed from its text with the primitives alone.
    #[test]
    fn the_bytes_are_the_documented_ones() {
        let key = key("correct horse");
        let sealed = key.seal(&NAME, &secret()).unwrap();
        let blob = sealed.expose();
        assert_eq!(blob[..25], *b"SRSB\x01\x06\x04\0\0\0\x01\0\0\0\0\x04\0\0\0\0\x01\0\0\0\x01");
        assert_eq!(blob.len(), 57 + 12 + 32 + 16);
        let mut bound = blob[..57].to_vec();
        bound.extend(b"\0\0\0\0\0\0\0\x03\0\x05alice\0\x03btc");
        let master = Argon2Params::LEAST.derive(&text("correct horse"), blob[25..57].try_into().unwrap()).unwrap();
        let (nonce, tag) = (blob[57..69].try_into().unwrap(), blob[101..].try_into().unwrap());
        let mut opened = [0; 32];
        aead::open(master.expose(), nonce, &bound, &blob[69..101], tag, &mut opened).unwrap();
        assert_eq!(opened, secret().expose());
    }
}
