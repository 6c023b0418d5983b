//! AES-256-GCM (NIST SP 800-38D) with random 12-byte nonces, as all of `seal/` uses it.

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{Aes256Gcm, KeyInit};

use crate::error::{Error, Kind, Result};
use crate::secret::wiping_stack;

/// The length of a nonce in bytes.
pub const NONCE_LEN: usize = 12;
/// The length of a tag in bytes.
pub const TAG_LEN: usize = 16;

/// A fresh random nonce.
pub type Nonce = [u8; NONCE_LEN];
/// What authenticates a ciphertext.
pub type Tag = [u8; TAG_LEN];

/// Says that a ciphertext, its tag, or what is authenticated with them is not what was sealed.
#[derive(Debug)]
pub struct Mismatch;

/// Makes random bytes that are not secret: a nonce or a salt.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(no_randomness)?;
    Ok(bytes)
}

/// Makes the error of a system without randomness.
pub fn no_randomness(cause: getrandom::Error) -> Error {
    Error::device("the operating system gives no random bytes").caused_by(cause)
}

/// Encrypts `plain` into `out`, which has the same length; only ciphertext ever stands there.
///
/// # Errors
/// `DataLenRange` for more than 64 GiB.
pub fn seal(key: &[u8], nonce: &Nonce, aad: &[u8], plain: &[u8], out: &mut [u8]) -> Result<Tag> {
    let buffers = InOutBuf::new(plain, out).map_err(|_| Error::internal("seal: the output has another length"))?;
    let tag = cipher(key).encrypt_inout_detached(&(*nonce).into(), aad, buffers);
    tag.map(Into::into).map_err(|_| Error::from(Kind::DataLenRange))
}

/// Decrypts `sealed` into `out`, which has the same length and stays untouched when the tag is wrong. The cipher leaves up to a
/// KiB of the plaintext on the stack, which is wiped.
///
/// # Errors
/// [`Mismatch`] for a wrong key, nonce, tag, ciphertext or associated data.
pub fn open(
    key: &[u8],
    nonce: &Nonce,
    aad: &[u8],
    sealed: &[u8],
    tag: &Tag,
    out: &mut [u8],
) -> std::result::Result<(), Mismatch> {
    let buffers = InOutBuf::new(sealed, out).map_err(|_| Mismatch)?;
    wiping_stack(|| cipher(key).decrypt_inout_detached(&(*nonce).into(), aad, buffers, &(*tag).into()))
        .map_err(|_| Mismatch)
}

/// Expands a key. Both keys and derived tables are wiped when the cipher is dropped.
fn cipher(key: &[u8]) -> Aes256Gcm {
    Aes256Gcm::new_from_slice(key).expect("every key of this module's callers has 32 bytes")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::secret::{SecureBytes, left_below};

    #[inline(never)]
    fn bare_open(key: &[u8], nonce: &Nonce, sealed: &[u8], tag: &Tag, out: &mut [u8]) {
        let buffers = InOutBuf::new(sealed, out).unwrap();
        cipher(key).decrypt_inout_detached(&(*nonce).into(), b"", buffers, &(*tag).into()).unwrap();
    }

    #[test]
    fn r40_what_is_opened_is_not_left_on_the_stack() {
        let flipped = random::<1100>().unwrap();
        let (key, nonce) = (random::<32>().unwrap(), random().unwrap());
        let mut plain = SecureBytes::zeroed(flipped.len());
        plain.expose_mut().iter_mut().zip(flipped).for_each(|(to, byte)| *to = !byte);
        let mut sealed = vec![0; plain.len()];
        let tag = seal(&key, &nonce, b"", plain.expose(), &mut sealed).unwrap();
        let mut out = SecureBytes::zeroed(plain.len());
        bare_open(&key, &nonce, &sealed, &tag, out.expose_mut());
        assert!(left_below(&flipped[..256]), "the search finds what the cipher leaves");
        open(&key, &nonce, b"", &sealed, &tag, out.expose_mut()).unwrap();
        assert!(!left_below(&flipped[..256]) && !left_below(&flipped[768..1024]));
        assert_eq!(out, plain);
    }
}
