//! AES keys (FIPS 197) and their modes: blocks (SP 800-38A), counter, key wrap. GCM is in `aead.rs`, CMAC in `mac.rs`.
//!
//! A key expands its schedules at first use and keeps them, so that starting an operation costs next to nothing.

mod block;
mod ctr;
mod wrap;

use std::ffi::c_uint;
use std::ops::Deref;
use std::ptr;
use std::sync::{Arc, OnceLock};

use aws_lc_sys as sys;

pub use block::BlockCipher;
pub use ctr::Ctr;
pub use wrap::{KeyWrap, Wrapping};

use super::cipher::Direction;
use super::lc::{Owned, check, clear_errors};
use super::locked::{Locked, once};
use super::mac::new_cmac;
use super::memory;
use crate::error::{Error, Kind, Result};
use crate::secret::SecureBytes;

/// The length of an AES block in bytes.
pub const BLOCK: usize = 16;

/// An AES key with all that is derived from it; clones share it.
#[derive(Clone)]
pub struct AesKey(Arc<Counted>);

/// What some clones of a key are counted by, in a cache line of its own: see [`AesKey::apart`].
#[repr(align(64))]
struct Counted(Arc<Schedules>);

impl Deref for Counted {
    type Target = Schedules;

    fn deref(&self) -> &Schedules {
        &self.0
    }
}

struct Schedules {
    raw: SecureBytes,
    encrypt: OnceLock<Locked<sys::AES_KEY>>,
    decrypt: OnceLock<Locked<sys::AES_KEY>>,
    gcm: OnceLock<Locked<sys::EVP_AEAD_CTX>>,
    ecb_encrypt: OnceLock<Owned<sys::EVP_CIPHER_CTX>>,
    ecb_decrypt: OnceLock<Owned<sys::EVP_CIPHER_CTX>>,
    cmac: OnceLock<Owned<sys::CMAC_CTX>>,
}

impl AesKey {
    /// Takes over a key of 16, 24 or 32 bytes.
    ///
    /// # Errors
    /// `KeySizeRange` for any other length.
    pub fn new(raw: SecureBytes) -> Result<Self> {
        if ![16, 24, 32].contains(&raw.len()) {
            return Err(Error::new(Kind::KeySizeRange, "an AES key has 16, 24 or 32 bytes"));
        }
        Ok(Self::counted(Arc::new(Schedules {
            raw,
            encrypt: OnceLock::new(),
            decrypt: OnceLock::new(),
            gcm: OnceLock::new(),
            ecb_encrypt: OnceLock::new(),
            ecb_decrypt: OnceLock::new(),
            cmac: OnceLock::new(),
        })))
    }

    fn counted(schedules: Arc<Schedules>) -> Self {
        Self(Arc::new(Counted(schedules)))
    }

    /// Gives the same key under a count of its own: clones of it meet no clone of this one in a cache line.
    pub fn apart(&self) -> Self {
        Self::counted(self.0.0.clone())
    }

    /// Gives the bytes of the key.
    pub(in crate::crypto) fn raw(&self) -> &[u8] {
        self.0.raw.expose()
    }

    /// Gives the round keys for one direction.
    pub(in crate::crypto) fn schedule(&self, direction: Direction) -> Result<&Locked<sys::AES_KEY>> {
        match direction {
            Direction::Encrypt => once(&self.0.encrypt, || self.expand(sys::AES_set_encrypt_key)),
            Direction::Decrypt => once(&self.0.decrypt, || self.expand(sys::AES_set_decrypt_key)),
        }
    }

    /// Gives the GCM state for tags of 16 bytes.
    pub(in crate::crypto) fn gcm(&self) -> Result<&Locked<sys::EVP_AEAD_CTX>> {
        once(&self.0.gcm, || self.new_gcm(BLOCK))
    }

    /// Makes the GCM state for tags of another length.
    pub(in crate::crypto) fn new_gcm(&self, tag_len: usize) -> Result<Locked<sys::EVP_AEAD_CTX>> {
        let aead = self.sized([sys::EVP_aead_aes_128_gcm, sys::EVP_aead_aes_192_gcm, sys::EVP_aead_aes_256_gcm]);
        // SAFETY: takes no argument and gives a pointer to static data.
        let aead = unsafe { aead() };
        let mut context = Locked::zeroed();
        let (to, key, len) = (context.as_mut_ptr(), self.raw().as_ptr(), self.raw().len());
        // SAFETY: `to` has room for a context, `key` is valid for `len` bytes, and there is no engine.
        let code = unsafe { sys::EVP_AEAD_CTX_init(to, aead, key, len, tag_len, ptr::null_mut()) };
        check(code, Kind::GeneralError)?;
        Ok(context)
    }

    /// Gives the CMAC state before any data.
    pub(in crate::crypto) fn cmac(&self) -> Result<&Owned<sys::CMAC_CTX>> {
        once(&self.0.cmac, || memory::secret(|| self.new_cmac_state()))
    }

    /// Makes an ECB context of its own for one operation.
    pub(in crate::crypto) fn ecb(&self, direction: Direction) -> Result<Owned<sys::EVP_CIPHER_CTX>> {
        let kept = match direction {
            Direction::Encrypt => &self.0.ecb_encrypt,
            Direction::Decrypt => &self.0.ecb_decrypt,
        };
        memory::secret(|| {
            let (kept, context) = (once(kept, || self.new_ecb(direction))?, new_context()?);
            // SAFETY: both contexts are valid, and the source is only read.
            check(unsafe { sys::EVP_CIPHER_CTX_copy(context.as_ptr(), kept.as_ptr()) }, Kind::HostMemory)?;
            Ok(context)
        })
    }

    /// Picks by the size of the key.
    pub(in crate::crypto) fn sized<T>(&self, [aes_128, aes_192, aes_256]: [T; 3]) -> T {
        match self.raw().len() {
            16 => aes_128,
            24 => aes_192,
            _ => aes_256,
        }
    }

    fn expand(&self, expand: Expand) -> Result<Locked<sys::AES_KEY>> {
        let mut schedule = Locked::zeroed();
        let bits = self.sized([128, 192, 256]);
        // SAFETY: the key has so many bits, and `schedule` has room for any.
        match unsafe { expand(self.raw().as_ptr(), bits, schedule.as_mut_ptr()) } {
            0 => Ok(schedule),
            _ => {
                clear_errors();
                Err(Error::internal("an AES key could not be expanded"))
            }
        }
    }

    fn new_ecb(&self, direction: Direction) -> Result<Owned<sys::EVP_CIPHER_CTX>> {
        let cipher = self.sized([sys::EVP_aes_128_ecb, sys::EVP_aes_192_ecb, sys::EVP_aes_256_ecb]);
        // SAFETY: takes no argument and gives a pointer to static data.
        let cipher = unsafe { cipher() };
        let (context, key) = (new_context()?, self.raw().as_ptr());
        let encrypt = i32::from(direction == Direction::Encrypt);
        // SAFETY: the context is fresh, the key has the cipher's length, ECB takes no IV, and there is no engine.
        let code =
            unsafe { sys::EVP_CipherInit_ex(context.as_ptr(), cipher, ptr::null_mut(), key, ptr::null(), encrypt) };
        check(code, Kind::GeneralError)?;
        Ok(context)
    }

    fn new_cmac_state(&self) -> Result<Owned<sys::CMAC_CTX>> {
        let cipher = self.sized([sys::EVP_aes_128_cbc, sys::EVP_aes_192_cbc, sys::EVP_aes_256_cbc]);
        // SAFETY: takes no argument and gives a pointer to static data.
        let cipher = unsafe { cipher() };
        let (context, key, len) = (new_cmac()?, self.raw().as_ptr().cast(), self.raw().len());
        // SAFETY: the context is fresh, `key` is valid for `len` bytes, and there is no engine.
        check(unsafe { sys::CMAC_Init(context.as_ptr(), key, len, cipher, ptr::null_mut()) }, Kind::GeneralError)?;
        Ok(context)
    }
}

/// Expands a key of so many bits; answers 0 when it went well.
type Expand = unsafe extern "C" fn(*const u8, c_uint, *mut sys::AES_KEY) -> i32;

/// Makes an empty cipher context.
pub(in crate::crypto) fn new_context() -> Result<Owned<sys::EVP_CIPHER_CTX>> {
    // SAFETY: takes no argument.
    let context = unsafe { sys::EVP_CIPHER_CTX_new() };
    // SAFETY: the new context is NULL or owned by nobody else.
    unsafe { Owned::new(context) }
}
