//! Hash functions (FIPS 180-4, FIPS 202).

use std::ffi::c_int;
use std::ptr;

use aws_lc_sys as sys;
use smallvec::SmallVec;

use super::lc::{Owned, check};
use crate::error::{Kind, Result};

/// A digest or MAC, without an allocation.
pub type Digest = SmallVec<[u8; 64]>;

/// A hash function.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hash {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Sha512_224,
    Sha512_256,
    Sha3_224,
    Sha3_256,
    Sha3_384,
    Sha3_512,
}

impl Hash {
    /// Every hash function.
    pub const ALL: &[Hash] = &[
        Hash::Sha1,
        Hash::Sha224,
        Hash::Sha256,
        Hash::Sha384,
        Hash::Sha512,
        Hash::Sha512_224,
        Hash::Sha512_256,
        Hash::Sha3_224,
        Hash::Sha3_256,
        Hash::Sha3_384,
        Hash::Sha3_512,
    ];

    /// Tells the length of the digest in bytes.
    #[allow(clippy::len_without_is_empty)] // no digest is empty
    pub const fn len(self) -> usize {
        match self {
            Hash::Sha1 => 20,
            Hash::Sha224 | Hash::Sha512_224 | Hash::Sha3_224 => 28,
            Hash::Sha256 | Hash::Sha512_256 | Hash::Sha3_256 => 32,
            Hash::Sha384 | Hash::Sha3_384 => 48,
            Hash::Sha512 | Hash::Sha3_512 => 64,
        }
    }

    /// Tells the length of the input block in bytes; for SHA-3 this is the rate.
    pub const fn block_len(self) -> usize {
        match self {
            Hash::Sha1 | Hash::Sha224 | Hash::Sha256 => 64,
            Hash::Sha384 | Hash::Sha512 | Hash::Sha512_224 | Hash::Sha512_256 => 128,
            Hash::Sha3_224 => 144,
            Hash::Sha3_256 => 136,
            Hash::Sha3_384 => 104,
            Hash::Sha3_512 => 72,
        }
    }

    /// Gives AWS-LC's own description of the hash; it is static and never NULL.
    pub(in crate::crypto) fn evp(self) -> *const sys::EVP_MD {
        let find = match self {
            Hash::Sha1 => sys::EVP_sha1,
            Hash::Sha224 => sys::EVP_sha224,
            Hash::Sha256 => sys::EVP_sha256,
            Hash::Sha384 => sys::EVP_sha384,
            Hash::Sha512 => sys::EVP_sha512,
            Hash::Sha512_224 => sys::EVP_sha512_224,
            Hash::Sha512_256 => sys::EVP_sha512_256,
            Hash::Sha3_224 => sys::EVP_sha3_224,
            Hash::Sha3_256 => sys::EVP_sha3_256,
            Hash::Sha3_384 => sys::EVP_sha3_384,
            Hash::Sha3_512 => sys::EVP_sha3_512,
        };
        // SAFETY: takes no argument and gives a pointer to static data.
        unsafe { find() }
    }

    /// Gives the number by which AWS-LC's older functions name the hash (`NID_sha256`).
    pub(in crate::crypto) fn nid(self) -> c_int {
        // SAFETY: `evp` gives a valid static description.
        unsafe { sys::EVP_MD_type(self.evp()) }
    }

    /// Digests data in one part.
    ///
    /// # Errors
    /// `GeneralError` when the library below fails.
    pub fn digest(self, data: &[u8]) -> Result<Digest> {
        let mut out = self.room();
        let (from, to) = (data.as_ptr().cast(), out.as_mut_ptr());
        // SAFETY: `from` is valid for `data.len()` bytes, `to` for the length of this hash; no engine and no length are asked for.
        let code = unsafe { sys::EVP_Digest(from, data.len(), to, ptr::null_mut(), self.evp(), ptr::null_mut()) };
        check(code, Kind::GeneralError)?;
        Ok(out)
    }

    /// Makes room for one digest.
    pub(in crate::crypto) fn room(self) -> Digest {
        SmallVec::from_elem(0, self.len())
    }
}

/// A running hash.
pub struct HashContext {
    hash: Hash,
    context: Owned<sys::EVP_MD_CTX>,
}

impl HashContext {
    /// Starts a hash.
    ///
    /// # Errors
    /// `HostMemory` when there is none left.
    pub fn new(hash: Hash) -> Result<Self> {
        // SAFETY: takes no argument.
        let context = unsafe { sys::EVP_MD_CTX_new() };
        // SAFETY: the new context is NULL or owned by nobody else.
        let context = unsafe { Owned::new(context) }?;
        let mut running = Self { hash, context };
        running.reset()?;
        Ok(running)
    }

    /// Tells which hash runs.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Adds data.
    ///
    /// # Errors
    /// `GeneralError` when the library below fails.
    pub fn update(&mut self, part: &[u8]) -> Result<()> {
        // SAFETY: the context is initialised and `part` is valid for its length.
        let code = unsafe { sys::EVP_DigestUpdate(self.context.as_ptr(), part.as_ptr().cast(), part.len()) };
        check(code, Kind::GeneralError)
    }

    /// Ends and gives the digest. The context is then fresh again, ready for the next message.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub fn finish(&mut self) -> Result<Digest> {
        let mut out = self.hash.room();
        // SAFETY: the context is initialised, `out` has room for its digest, and no length is asked for.
        let code = unsafe { sys::EVP_DigestFinal_ex(self.context.as_ptr(), out.as_mut_ptr(), ptr::null_mut()) };
        check(code, Kind::GeneralError)?;
        self.reset()?;
        Ok(out)
    }

    fn reset(&mut self) -> Result<()> {
        // SAFETY: the context is owned, the hash is static, and no engine is used.
        let code = unsafe { sys::EVP_DigestInit_ex(self.context.as_ptr(), self.hash.evp(), ptr::null_mut()) };
        check(code, Kind::HostMemory)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    /// NIST's examples for the message "abc" (csrc.nist.gov, cryptographic standards and guidelines, example values).
    const ABC: &[(Hash, &str)] = &[
        (Hash::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (Hash::Sha224, "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
        (Hash::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            Hash::Sha384,
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
        ),
        (
            Hash::Sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
        (Hash::Sha512_224, "4634270f707b6a54daae7530460842e20e37ed265ceee9a43e8924aa"),
        (Hash::Sha512_256, "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23"),
        (Hash::Sha3_224, "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf"),
        (Hash::Sha3_256, "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
        (
            Hash::Sha3_384,
            "ec01498288516fc926459f58e2c6ad8df9b473cb0fc08c2596da7cf0e49be4b298d88cea927ac7f539f1edf228376d25",
        ),
        (
            Hash::Sha3_512,
            "b751850b1a57168a5693cd924b6b096e08f621827444f70d884f5d0240d2712e10e116e9192af3c91a7ec57647e3934057340b4cf408d5a56592f8274eec53f0",
        ),
    ];

    #[test]
    fn every_hash_gives_nists_digest() {
        assert_eq!(ABC.len(), Hash::ALL.len());
        for (hash, expected) in ABC {
            let digest = hash.digest(b"abc").unwrap();
            assert_eq!(HEXLOWER.encode(&digest), *expected, "{hash:?}");
            assert_eq!(digest.len(), hash.len());
        }
    }

    #[test]
    fn lengths_are_those_of_the_library() {
        for hash in Hash::ALL {
            // SAFETY: `evp` gives a valid static description.
            assert_eq!(hash.block_len(), unsafe { sys::EVP_MD_block_size(hash.evp()) }, "{hash:?}");
            // SAFETY: as above.
            assert_eq!(hash.len(), unsafe { sys::EVP_MD_size(hash.evp()) }, "{hash:?}");
        }
    }

    #[test]
    fn parts_give_the_digest_of_the_whole_again_and_again() {
        let data: Vec<u8> = (0..1000_u32).map(|i| i as u8).collect();
        for hash in Hash::ALL {
            let mut running = HashContext::new(*hash).unwrap();
            for len in [0, 1, hash.block_len(), 1000] {
                for part in data[..len].chunks(7) {
                    running.update(part).unwrap();
                }
                assert_eq!(running.finish().unwrap(), hash.digest(&data[..len]).unwrap(), "{hash:?}, {len} bytes");
            }
        }
    }
}
