//! Message authentication: HMAC (RFC 2104, FIPS 198-1) over every hash, and AES-CMAC (SP 800-38B).

use std::ptr;

use aws_lc_sys as sys;
use smallvec::SmallVec;

use super::aes::{AesKey, BLOCK};
use super::hash::{Digest, Hash};
use super::lc::{Owned, check};
use super::locked::Locked;
use super::memory;
use crate::error::{Kind, Result};

/// A running MAC.
pub trait Mac: Send {
    /// Adds data.
    ///
    /// # Errors
    /// `GeneralError` when the library below fails.
    fn update(&mut self, part: &[u8]) -> Result<()>;
    /// Ends and gives the whole MAC. It is then fresh again, ready for the next message under the same key.
    ///
    /// # Errors
    /// As [`Self::update`].
    fn finish(&mut self) -> Result<Digest>;
}

/// An HMAC key, with both pads hashed already.
pub struct HmacKey {
    hash: Hash,
    context: Locked<sys::HMAC_CTX>,
}

impl HmacKey {
    /// Prepares a key of any length.
    ///
    /// # Errors
    /// `GeneralError` when the library below fails.
    pub fn new(hash: Hash, key: &[u8]) -> Result<Self> {
        let mut context = Locked::zeroed();
        let (to, from) = (context.as_mut_ptr(), key.as_ptr().cast());
        // SAFETY: zero bytes are a fresh context; `key` is valid for its length; the hash is static; there is no engine.
        let code = unsafe { sys::HMAC_Init_ex(to, from, key.len(), hash.evp(), ptr::null_mut()) };
        check(code, Kind::GeneralError)?;
        Ok(Self { hash, context })
    }

    /// Tells the hash.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Starts a MAC; the key stays as it is.
    pub fn start(&self) -> Hmac {
        Hmac { hash: self.hash, context: self.context.clone() }
    }
}

/// A running HMAC.
pub struct Hmac {
    hash: Hash,
    context: Locked<sys::HMAC_CTX>,
}

impl Mac for Hmac {
    fn update(&mut self, part: &[u8]) -> Result<()> {
        // SAFETY: the context is initialised and `part` is valid for its length.
        let code = unsafe { sys::HMAC_Update(self.context.as_mut_ptr(), part.as_ptr(), part.len()) };
        check(code, Kind::GeneralError)
    }

    fn finish(&mut self) -> Result<Digest> {
        let mut out = self.hash.room();
        let context = self.context.as_mut_ptr();
        // SAFETY: the context is initialised, `out` has room for its digest, and no length is asked for.
        let code = unsafe { sys::HMAC_Final(context, out.as_mut_ptr(), ptr::null_mut()) };
        check(code, Kind::GeneralError)?;
        // SAFETY: no key and no hash mean: the same again.
        let code = unsafe { sys::HMAC_Init_ex(context, ptr::null(), 0, ptr::null(), ptr::null_mut()) };
        check(code, Kind::GeneralError)?;
        Ok(out)
    }
}

/// A running AES-CMAC.
pub struct Cmac {
    context: Owned<sys::CMAC_CTX>,
}

impl Cmac {
    /// Starts a MAC from the key's prepared state.
    ///
    /// # Errors
    /// `HostMemory` when there is none left.
    pub fn new(key: &AesKey) -> Result<Self> {
        memory::secret(|| {
            let (context, kept) = (new_cmac()?, key.cmac()?);
            // SAFETY: both contexts are valid, and the source is only read.
            check(unsafe { sys::CMAC_CTX_copy(context.as_ptr(), kept.as_ptr()) }, Kind::HostMemory)?;
            Ok(Self { context })
        })
    }
}

impl Mac for Cmac {
    fn update(&mut self, part: &[u8]) -> Result<()> {
        // SAFETY: the context is initialised and `part` is valid for its length.
        check(unsafe { sys::CMAC_Update(self.context.as_ptr(), part.as_ptr(), part.len()) }, Kind::GeneralError)
    }

    fn finish(&mut self) -> Result<Digest> {
        let (mut out, mut len): (Digest, usize) = (SmallVec::from_elem(0, BLOCK), 0);
        // SAFETY: the context is initialised, `out` has room for one block, and `len` is a valid place for its length.
        check(unsafe { sys::CMAC_Final(self.context.as_ptr(), out.as_mut_ptr(), &raw mut len) }, Kind::GeneralError)?;
        // SAFETY: the context is initialised.
        check(unsafe { sys::CMAC_Reset(self.context.as_ptr()) }, Kind::GeneralError)?;
        Ok(out)
    }
}

/// Makes an empty CMAC context.
pub(in crate::crypto) fn new_cmac() -> Result<Owned<sys::CMAC_CTX>> {
    // SAFETY: takes no argument.
    let context = unsafe { sys::CMAC_CTX_new() };
    // SAFETY: the new context is NULL or owned by nobody else.
    unsafe { Owned::new(context) }
}
