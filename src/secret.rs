//! Secrets in memory: wiped when dropped, locked and left out of core files as far as the limits allow.
//!
//! The rules are: a secret lives in one of these types from birth to death; none of them shows its content in `Debug`
//! or `Display`; the bytes are reached through `expose` only, so that a search for that word finds every use; where a caller
//! of the library decides the length, `try_zeroed` and `try_copy_from` are used, since running out of memory ends the process
//! in the others.

mod memory;
pub mod source;
mod stack;

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::error::{Error, Kind, Result};

pub use memory::{Block, Pages, PerProcess, Slab, Table, is_forked, process_generation, warn_once};
#[cfg(test)]
pub(crate) use stack::tests::left_below;
pub use stack::wiping_stack;

/// Secret bytes of any length, in locked memory.
pub struct SecureBytes {
    block: memory::Block,
}

impl SecureBytes {
    /// Makes `len` zero bytes, to be filled through [`Self::expose_mut`].
    pub fn zeroed(len: usize) -> Self {
        Self::try_zeroed(len).unwrap_or_else(|_| no_memory(len))
    }

    /// As [`Self::zeroed`], for a length that a caller of the library decides.
    ///
    /// # Errors
    /// `HostMemory` when there is not so much memory.
    pub fn try_zeroed(len: usize) -> Result<Self> {
        memory::Block::try_new(len).map(|block| Self { block }).ok_or_else(|| Error::from(Kind::HostMemory))
    }

    /// Copies bytes in. The caller still owns, and wipes, what it passed.
    pub fn copy_from(bytes: &[u8]) -> Self {
        let mut secret = Self::zeroed(bytes.len());
        secret.expose_mut().copy_from_slice(bytes);
        secret
    }

    /// As [`Self::copy_from`], for a length that a caller of the library decides.
    ///
    /// # Errors
    /// `HostMemory` when there is not so much memory.
    pub fn try_copy_from(bytes: &[u8]) -> Result<Self> {
        let mut secret = Self::try_zeroed(bytes.len())?;
        secret.expose_mut().copy_from_slice(bytes);
        Ok(secret)
    }

    /// Takes a vector over and wipes it.
    pub fn take(mut bytes: Vec<u8>) -> Self {
        let secret = Self::copy_from(&bytes);
        bytes.zeroize();
        secret
    }

    /// Makes `len` bytes with `fill`, which writes into the locked memory itself.
    ///
    /// # Errors
    /// What `fill` answers.
    pub fn try_with<E>(len: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self::zeroed(len);
        fill(secret.expose_mut())?;
        Ok(secret)
    }

    /// Gives the bytes to read.
    pub fn expose(&self) -> &[u8] {
        self.block.as_slice()
    }

    /// Gives the bytes to write.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        self.block.as_mut_slice()
    }

    /// Refuses a secret of the parent in a forked child, where its bytes are gone and zeros stand in their place.
    ///
    /// # Errors
    /// `CryptokiNotInitialized`.
    pub fn check_not_forked(&self) -> Result<()> {
        match self.block.is_of_this_process() {
            true => Ok(()),
            false => Err(Error::new(
                Kind::CryptokiNotInitialized,
                "the secret was made before a fork, which it does not outlive: make or read it anew in this process",
            )),
        }
    }

    /// Tells how many bytes it holds.
    pub fn len(&self) -> usize {
        self.expose().len()
    }

    /// Tells whether it holds no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the first `len` bytes and drops the rest; longer than it is changes nothing.
    pub fn truncated(mut self, len: usize) -> Self {
        if let Some(rest) = self.expose_mut().get_mut(len..) {
            rest.zeroize();
            self.block.truncate(len);
        }
        self
    }
}

/// Ends the process: nothing can be done without these few bytes.
#[cold]
fn no_memory(len: usize) -> SecureBytes {
    match std::alloc::Layout::array::<u8>(len) {
        Ok(layout) => std::alloc::handle_alloc_error(layout),
        Err(_) => panic!("a secret of {len} bytes cannot be"),
    }
}

impl Clone for SecureBytes {
    fn clone(&self) -> Self {
        Self::copy_from(self.expose())
    }
}

impl Drop for SecureBytes {
    fn drop(&mut self) {
        self.expose_mut().zeroize();
    }
}

impl PartialEq for SecureBytes {
    /// Compares without a branch on the content; the lengths are not secret.
    fn eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl Eq for SecureBytes {}

impl fmt::Debug for SecureBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecureBytes({} bytes)", self.len())
    }
}

/// The 32 bytes that Argon2id derives from a password. It lives only while it is used.
#[derive(Debug)]
pub struct MasterKey(SecureBytes);

impl MasterKey {
    /// The length of a master key in bytes.
    pub const LEN: usize = 32;

    /// Makes a master key with `derive`, which writes its 32 bytes.
    ///
    /// # Errors
    /// What `derive` answers.
    pub fn derive<E>(derive: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        SecureBytes::try_with(Self::LEN, derive).map(Self)
    }

    /// Refuses a key of the parent in a forked child.
    ///
    /// # Errors
    /// `CryptokiNotInitialized`.
    pub fn check_not_forked(&self) -> Result<()> {
        self.0.check_not_forked()
    }

    /// Gives the bytes to read.
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

/// The secret part of a private or secret key: the bytes that are sealed at rest and parsed for use.
///
/// The encoding is the key type's own: PKCS #1 `RSAPrivateKey` (RFC 8017) for RSA, the scalar in big-endian at full width
/// for EC (SEC 1), the 32-byte seed for Ed25519 (RFC 8032), the scalar for X25519 (RFC 7748), the bytes themselves for
/// secret keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SecurePrivateKey(SecureBytes);

impl SecurePrivateKey {
    /// Takes the encoded secret over.
    pub fn new(encoded: SecureBytes) -> Self {
        Self(encoded)
    }

    /// Gives the encoded secret to read.
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }

    /// Refuses a key of the parent in a forked child.
    ///
    /// # Errors
    /// `CryptokiNotInitialized`.
    pub fn check_not_forked(&self) -> Result<()> {
        self.0.check_not_forked()
    }

    /// Gives the encoded secret up as plain secret bytes.
    pub fn into_bytes(self) -> SecureBytes {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r40_debug_never_shows_content() {
        let secret = SecureBytes::copy_from(b"canary-canary");
        let key = SecurePrivateKey::new(secret.clone());
        for text in [format!("{secret:?}"), format!("{key:?}")] {
            assert!(!text.contains("canary") && !text.contains("99"), "{text}");
        }
    }

    #[test]
    fn keeps_bytes_of_any_length() {
        for len in [0, 1, 31, 32, 33, 4096, 4097, 70_000] {
            let bytes: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).expect("below 251")).collect();
            let secret = SecureBytes::copy_from(&bytes);
            assert_eq!(secret.expose(), bytes);
            assert_eq!(secret.clone(), secret);
        }
    }

    #[test]
    fn r40_freed_memory_is_wiped_before_it_is_used_again() {
        let first = SecureBytes::copy_from(&[0xA5; 48]);
        drop(first);
        let again = SecureBytes::zeroed(48);
        assert!(again.expose().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_is_cut_off_is_wiped_and_the_rest_stays() {
        for len in [10, 5000] {
            let cut = SecureBytes::copy_from(&vec![7; len]).truncated(3);
            assert_eq!(cut.expose(), [7; 3]);
            assert_eq!(cut.clone().truncated(9), cut);
        }
    }

    #[test]
    fn r16_a_length_without_memory_is_an_error() {
        let error = SecureBytes::try_zeroed(1 << 60).expect_err("no machine has that much");
        assert_eq!(error.kind(), Kind::HostMemory);
    }

    #[test]
    fn blocks_do_not_overlap() {
        let mut secrets: Vec<_> =
            (0..500_u16).map(|i| SecureBytes::copy_from(&[u8::try_from(i % 256).expect("below 256"); 40])).collect();
        secrets.retain(|secret| secret.expose().first().is_some_and(|byte| byte % 2 == 0));
        secrets.extend((0..500).map(|_| SecureBytes::copy_from(&[1; 40])));
        assert!(secrets.iter().all(|secret| secret.expose().iter().all(|byte| Some(byte) == secret.expose().first())));
    }
}
