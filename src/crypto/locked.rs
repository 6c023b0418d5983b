//! AWS-LC's flat structures in secret memory: key schedules and MAC states are as secret as the keys that they come from.

use std::marker::PhantomData;
use std::sync::OnceLock;

use aws_lc_sys as sys;

use crate::error::Result;
use crate::secret::SecureBytes;

/// A C structure that is plain data.
///
/// # Safety
/// Zero bytes are a valid value; the structure owns nothing, does not point into itself, needs an alignment of at most
/// 16 bytes, and reading it from several threads at once is fine.
pub unsafe trait Flat {}

// SAFETY: round keys and their number (openssl/aes.h).
unsafe impl Flat for sys::AES_KEY {}
// SAFETY: for AES-GCM, a pointer to a static table, the round keys and the powers of H (cipher/e_aes.c); its cleanup does nothing.
unsafe impl Flat for sys::EVP_AEAD_CTX {}
// SAFETY: "All of the contexts are flat and can simply be zeroed" (hmac/hmac.c); its pointers are to static tables.
unsafe impl Flat for sys::HMAC_CTX {}

/// A flat C structure in secret memory, wiped when dropped.
pub struct Locked<T: Flat> {
    memory: SecureBytes,
    what: PhantomData<fn() -> T>,
}

impl<T: Flat> Locked<T> {
    /// Makes a structure of zero bytes.
    pub fn zeroed() -> Self {
        let memory = SecureBytes::zeroed(size_of::<T>());
        assert!(memory.expose().as_ptr().cast::<T>().is_aligned(), "secret memory comes in blocks aligned to 32 bytes");
        Self { memory, what: PhantomData }
    }

    /// Gives the structure to C functions that read it.
    pub fn as_ptr(&self) -> *const T {
        self.memory.expose().as_ptr().cast()
    }

    /// Gives the structure to C functions that change it.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.memory.expose_mut().as_mut_ptr().cast()
    }
}

impl<T: Flat> Clone for Locked<T> {
    fn clone(&self) -> Self {
        Self { memory: self.memory.clone(), what: PhantomData }
    }
}

/// Makes a value at first use. Threads that come at once may each make one; all get the same.
///
/// # Errors
/// What `make` answers; the next caller tries again.
pub fn once<T>(cell: &OnceLock<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    if let Some(made) = cell.get() {
        return Ok(made);
    }
    let fresh = make()?;
    Ok(cell.get_or_init(|| fresh))
}
