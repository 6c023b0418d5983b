//! Key derivation from a shared secret.

use zeroize::Zeroize;

use super::hash::{Hash, HashContext};
use crate::error::{Error, Kind, Result};
use crate::secret::SecureBytes;

/// Derives `len` bytes from a shared secret (ANSI X9.63; SEC 1, 3.6.1): the digests of `z`, a counter from 1, and `shared_info`.
///
/// # Errors
/// `KeySizeRange` for more than 2³² − 1 digests.
pub fn x963(hash: Hash, z: &[u8], shared_info: &[u8], len: usize) -> Result<SecureBytes> {
    let too_long =
        || Error::new(Kind::KeySizeRange, "the derived key is longer than the key derivation function can give");
    u32::try_from(len.div_ceil(hash.len())).map_err(|_| too_long())?;
    let mut running = HashContext::new(hash)?;
    let mut derived = SecureBytes::zeroed(len);
    for (counter, block) in (1_u32..).zip(derived.expose_mut().chunks_mut(hash.len())) {
        running.update(z)?;
        running.update(&counter.to_be_bytes())?;
        running.update(shared_info)?;
        let mut digest = running.finish()?;
        block.iter_mut().zip(&digest).for_each(|(to, from)| *to = *from);
        digest.zeroize();
    }
    Ok(derived)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    /// NIST CAVP, ansx963_2001.rsp.
    const VECTORS: &[(Hash, &str, &str, &str)] = &[
        (Hash::Sha256, "96c05619d56c328ab95fe84b18264b08725b85e33fd34f08", "", "443024c3dae66b95e6f5670601558f71"),
        (
            Hash::Sha256,
            "22518b10e70f2a3f243810ae3254139efbee04aa57c7af7d",
            "75eef81aa3041e33b80971203d2c0c52",
            "c498af77161cc59f2962b9a713e2b215152d139766ce34a776df11866a69bf2e52a13d9c7c6fc878c50c5ea0bc7b00e0da2447cfd874f6cf92f30d0097111485500c90c3af8b487872d04685d14c8d1dc8d7fa08beb0ce0ababc11f0bd496269142d43525a78e5bc79a17f59676a5706dc54d54d4d1f0bd7e386128ec26afc21",
        ),
    ];

    #[test]
    fn gives_nists_keys() {
        for (hash, z, info, expected) in VECTORS {
            let (z, info) = (HEXLOWER.decode(z.as_bytes()).unwrap(), HEXLOWER.decode(info.as_bytes()).unwrap());
            let derived = x963(*hash, &z, &info, expected.len() / 2).unwrap();
            assert_eq!(HEXLOWER.encode(derived.expose()), *expected);
        }
    }

    #[test]
    fn a_shorter_key_is_the_start_of_a_longer_one() {
        for hash in Hash::ALL {
            let long = x963(*hash, b"z", b"info", 200).unwrap();
            for len in [0, 1, hash.len() - 1, hash.len(), hash.len() + 1, 199] {
                let short = x963(*hash, b"z", b"info", len).unwrap();
                assert_eq!(Some(short.expose()), long.expose().get(..len), "{hash:?}, {len}");
            }
        }
    }
}
