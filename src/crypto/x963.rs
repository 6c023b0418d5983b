//! The key derivation function of ANSI X9.63 (SEC 1, 3.6.1).

use zeroize::Zeroize;

use super::hash::{Hash, HashContext};
use crate::error::{Error, Kind, Result};
use crate::secret::SecureBytes;

/// Derives `len` bytes from a shared secret: H(secret ‖ 1 ‖ info) ‖ H(secret ‖ 2 ‖ info) ‖ …
///
/// # Errors
/// `KeySizeRange` beyond 2^32 − 1 blocks; `GeneralError` when the library below fails.
pub fn derive(hash: Hash, secret: &SecureBytes, info: &[u8], len: usize) -> Result<SecureBytes> {
    let mut context = HashContext::new(hash)?;
    SecureBytes::try_with(len, |out| {
        for (counter, block) in (1_u64..).zip(out.chunks_mut(hash.len())) {
            let counter = u32::try_from(counter).map_err(|_| Error::from(Kind::KeySizeRange))?;
            context.update(secret.expose())?;
            context.update(&counter.to_be_bytes())?;
            context.update(info)?;
            let mut digest = context.finish()?;
            block.iter_mut().zip(&digest).for_each(|(to, from)| *to = *from);
            digest.zeroize();
        }
        Ok(())
    })
}
