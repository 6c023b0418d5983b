//! What a backup needs of the hierarchy: a key that vouches for the whole document, and the outer key where the providers of this
//! configuration may be others than those of the source.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::envelope::{Outer, Sealer};
use super::token_key::TokenKey;
use crate::error::Result;

/// Authenticates a document, byte by byte as it is written or read, under a key below the token key that does nothing else.
#[derive(Clone)]
pub struct BackupMac(Hmac<Sha256>);

impl BackupMac {
    /// Starts, with the key of this token.
    pub fn new(key: &TokenKey) -> Self {
        Self(Hmac::new_from_slice(&key.backup_key()[..]).expect("HMAC takes a key of any length"))
    }

    /// Takes the next bytes of the document.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Gives the MAC.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into_bytes().into()
    }

    /// Tells, in constant time, whether this is the MAC.
    pub fn is(self, mac: &[u8; 32]) -> bool {
        self.0.verify_slice(mac).is_ok()
    }
}

/// Tells the id of a token key, which stands in the header of each object and reveals nothing.
pub fn token_key_id(key: &TokenKey) -> [u8; TokenKey::ID_LEN] {
    *key.id()
}

/// Makes the unique id under which an object of one token is put into another one.
pub fn moved_uid(from: &[u8; 16], to: &[u8; 16], uid: &[u8; 16]) -> [u8; 16] {
    let digest = Sha256::new().chain_update(b"strongroom moved object v1").chain_update(from).chain_update(to);
    *digest.chain_update(uid).finalize().first_chunk().expect("SHA-256 has 32 bytes")
}

/// An outer key that was opened, and whether the token's own provider opened it.
pub struct Opened {
    /// The outer key.
    pub outer: Outer,
    /// Whether it needs no other provider.
    pub by_own: bool,
}

impl Sealer {
    /// Opens the outer key of an envelope that may come from elsewhere: by the token's own provider, else by another one of the
    /// configuration. One KMS call, or two.
    ///
    /// # Errors
    /// As [`Sealer::open_outer`].
    pub fn open_outer_from_elsewhere(&self, token: &[u8; 16], envelope: &[u8]) -> Result<Opened> {
        let alone = self.alone();
        match alone.open_outer(token, envelope) {
            Ok(outer) => Ok(Opened { outer, by_own: true }),
            Err(_) => Ok(Opened { outer: self.open_outer(token, envelope)?, by_own: false }),
        }
    }
}
