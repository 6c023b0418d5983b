//! Random bytes from AWS-LC's generator: seeded by the system, one per thread, reseeded after a fork.

use aws_lc_sys as sys;

use super::lc::check;
use crate::error::{Kind, Result};
use crate::runtime::Pass;
use crate::secret::SecureBytes;

/// Fills a buffer with random bytes.
///
/// # Errors
/// `GeneralError` when the generator fails.
pub fn fill(bytes: &mut [u8]) -> Result<()> {
    let _pass = Pass::take();
    // SAFETY: `bytes` is valid for writes of its length.
    check(unsafe { sys::RAND_bytes(bytes.as_mut_ptr(), bytes.len()) }, Kind::GeneralError)
}

/// Makes a random secret of so many bytes.
///
/// # Errors
/// As [`fill`].
pub fn secure(len: usize) -> Result<SecureBytes> {
    SecureBytes::try_with(len, fill)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_fill_their_length() {
        let secrets: Vec<_> = (0..64).map(|_| secure(33).expect("the generator works")).collect();
        for (i, secret) in secrets.iter().enumerate() {
            assert_eq!(secret.len(), 33);
            assert!(secrets.iter().skip(i + 1).all(|other| other != secret));
        }
        let last: std::collections::HashSet<_> = secrets.iter().map(|secret| secret.expose().last()).collect();
        assert!(last.len() > 1, "the last byte is random as well");
    }
}
