//! Secrets that a Rust program seals under a master key of its own, outside of any token.

use super::aead::{self, Mismatch, NONCE_LEN};
use super::argon2::{Argon2Params, SALT_LEN};
use super::header::{BlobKind, Header};
use super::reader::Reader;
use crate::error::{Error, Kind, Result};
use crate::secret::{MasterKey, SecureBytes};

const KIND: BlobKind = BlobKind::MasterSealed;

impl MasterKey {
    /// Derives a master key from a password with a salt of 32 random bytes: Argon2id with 64 MiB, 3 passes and 4 lanes (RFC 9106, 4).
    ///
    /// # Errors
    /// `HostMemory` when Argon2id finds too little memory.
    pub fn from_password(password: &SecureBytes, salt: &[u8; SALT_LEN]) -> Result<Self> {
        Argon2Params::default().derive(password, salt)
    }
}

/// AES-256-GCM under a master key: header with the number of the key's version, nonce, ciphertext, tag. The header is authenticated.
#[derive(Debug)]
pub struct EncryptionEngine;

impl EncryptionEngine {
    /// Seals a secret. The version is that of the master key, for who keeps several.
    ///
    /// # Errors
    /// `DeviceError` without randomness; `CryptokiNotInitialized` in a forked child, for what was made before the fork.
    pub fn encrypt(secret: &SecureBytes, master: &MasterKey, version: u32) -> Result<Vec<u8>> {
        master.check_not_forked().and(secret.check_not_forked())?;
        let (mut blob, nonce) = (header(version)?, aead::random::<NONCE_LEN>()?);
        let mut ciphertext = vec![0; secret.len()];
        let tag = aead::seal(master.expose(), &nonce, &blob, secret.expose(), &mut ciphertext)?;
        for part in [&nonce[..], &ciphertext, &tag] {
            blob.extend_from_slice(part);
        }
        Ok(blob)
    }

    /// Opens what was sealed.
    ///
    /// # Errors
    /// `EncryptedDataInvalid` under another master key, and for what was altered; `DeviceError` for what is no such blob;
    /// `CryptokiNotInitialized` in a forked child, for a master key that was made before the fork.
    pub fn decrypt(sealed: &[u8], master: &MasterKey) -> Result<SecureBytes> {
        master.check_not_forked()?;
        let mut reader = Reader::new(sealed, KIND.name());
        let header = Header::parse_kind(&mut reader, KIND)?.encode()?;
        let (nonce, tag) = (reader.array()?, reader.array_at_end()?);
        let ciphertext = reader.remaining();
        let mut secret = SecureBytes::try_zeroed(ciphertext.len())?;
        aead::open(master.expose(), nonce, &header, ciphertext, tag, secret.expose_mut()).map_err(|Mismatch| {
            let text = "the secret was sealed under another master key, or was altered";
            Error::new(Kind::EncryptedDataInvalid, text)
        })?;
        Ok(secret)
    }

    /// Tells under which version of the master key a secret was sealed.
    ///
    /// # Errors
    /// `DeviceError` for what is no such blob.
    pub fn version(sealed: &[u8]) -> Result<u32> {
        Ok(Header::parse_kind(&mut Reader::new(sealed, KIND.name()), KIND)?.key_version)
    }
}

fn header(version: u32) -> Result<Vec<u8>> {
    Ok(Header { kind: KIND, key_version: version, key_id: &[] }.encode()?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r07_what_was_made_before_a_fork_is_refused_in_the_child() {
        let (master, sealed) =
            (master(b"pin"), EncryptionEngine::encrypt(&SecureBytes::copy_from(b"x"), &self::master(b"pin"), 1));
        let (sealed, secrets) = (sealed.expect("it is sealed"), [32, 70_000].map(SecureBytes::zeroed));
        let none = SecureBytes::zeroed(0);
        // SAFETY: the child uses what it has inherited and ends with `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let is_refused =
                |error: Option<Error>| error.is_some_and(|error| error.kind() == Kind::CryptokiNotInitialized);
            let refused = is_refused(EncryptionEngine::decrypt(&sealed, &master).err())
                && is_refused(EncryptionEngine::encrypt(&none, &master, 1).err())
                && secrets.iter().all(|secret| is_refused(secret.check_not_forked().err()));
            let own = none.check_not_forked().is_ok()
                && EncryptionEngine::decrypt(&sealed, &self::master(b"pin"))
                    .is_ok_and(|secret| secret.expose() == b"x");
            // SAFETY: ends the child without the parent's exit handlers.
            unsafe { libc::_exit(i32::from(!(refused && own))) };
        }
        let mut status = 0;
        // SAFETY: the pointer lives.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
        assert!(EncryptionEngine::decrypt(&sealed, &master).is_ok());
    }

    fn master(password: &[u8]) -> MasterKey {
        let least = Argon2Params::LEAST;
        least.derive(&SecureBytes::copy_from(password), &[7; SALT_LEN]).expect("there is memory")
    }

    #[test]
    fn what_is_sealed_opens_under_its_master_key_alone() {
        let secret = SecureBytes::copy_from(b"a secret of any length");
        let sealed = EncryptionEngine::encrypt(&secret, &master(b"right"), 3).expect("sealed");
        assert_eq!(EncryptionEngine::version(&sealed).expect("a blob"), 3);
        assert_eq!(EncryptionEngine::decrypt(&sealed, &master(b"right")).expect("opens"), secret);
        let wrong = EncryptionEngine::decrypt(&sealed, &master(b"wrong")).expect_err("another key");
        assert_eq!(wrong.kind(), Kind::EncryptedDataInvalid);
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn every_altered_bit_is_found() {
        let (secret, master) = (SecureBytes::copy_from(&[9; 33]), master(b"right"));
        let sealed = EncryptionEngine::encrypt(&secret, &master, 1).expect("sealed");
        for at in 0..sealed.len() * 8 {
            let mut altered = sealed.clone();
            *altered.get_mut(at / 8).expect("within") ^= 1 << (at % 8);
            assert!(EncryptionEngine::decrypt(&altered, &master).is_err(), "bit {at}");
        }
        for len in 0..sealed.len() {
            let cut = sealed.get(..len).expect("within");
            assert!(EncryptionEngine::decrypt(cut, &master).is_err(), "{len} bytes");
        }
    }
}
