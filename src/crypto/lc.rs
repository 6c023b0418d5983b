//! AWS-LC from Rust: owners that free what C allocated, and return codes that become errors.
//!
//! All use of `aws_lc_sys` is in `crypto/`; this file holds what its algorithms share.
//!
//! AWS-LC's random generator has locks for the whole process, which a fork must not copy while they are taken. So whatever calls a
//! function that may draw holds a [`Pass`](crate::runtime::Pass): key generation, every private RSA operation (blinding), ECDSA
//! signatures, paddings with a salt or a seed, and `RAND_bytes` itself.

use std::ptr::NonNull;

use aws_lc_sys as sys;

use crate::error::{Error, Kind, Result};
use crate::secret::process_generation;

/// A C type that one function frees.
pub trait Free {
    /// Frees the value.
    ///
    /// # Safety
    /// `this` was made by AWS-LC, is owned by the caller, and is not used again.
    unsafe fn free(this: *mut Self);
}

/// Declares how each C type is freed.
macro_rules! free {
    ($($type:ty = $function:ident;)*) => {
        $(impl Free for $type {
            unsafe fn free(this: *mut Self) {
                // SAFETY: as the trait demands.
                unsafe { sys::$function(this) }
            }
        })*
    };
}

free! {
    sys::BIGNUM = BN_clear_free;
    sys::BN_GENCB = BN_GENCB_free;
    sys::ECDSA_SIG = ECDSA_SIG_free;
    sys::EC_KEY = EC_KEY_free;
    sys::EC_POINT = EC_POINT_free;
    sys::EVP_AEAD_CTX = EVP_AEAD_CTX_free;
    sys::EVP_CIPHER_CTX = EVP_CIPHER_CTX_free;
    sys::EVP_MD_CTX = EVP_MD_CTX_free;
    sys::EVP_PKEY = EVP_PKEY_free;
    sys::EVP_PKEY_CTX = EVP_PKEY_CTX_free;
    sys::CMAC_CTX = CMAC_CTX_free;
    sys::HMAC_CTX = HMAC_CTX_free;
    sys::RSA = RSA_free;
}

/// Owns a value that AWS-LC allocated, in the process of this generation. What AWS-LC frees is wiped. A forked child frees nothing
/// that the parent made: what was secret of it is gone there (`memory.rs`).
pub struct Owned<T: Free>(NonNull<T>, u64);

// SAFETY: AWS-LC objects may move between threads; none of those above is bound to one.
unsafe impl<T: Free> Send for Owned<T> {}
// SAFETY: shared references only reach functions that take the object as const or lock inside (RSA, EC_KEY).
unsafe impl<T: Free> Sync for Owned<T> {}

impl<T: Free> Owned<T> {
    /// Takes over what an AWS-LC function allocated.
    ///
    /// # Errors
    /// `HostMemory` for NULL.
    ///
    /// # Safety
    /// `pointer` is NULL or owned by the caller and of no further use to it.
    pub unsafe fn new(pointer: *mut T) -> Result<Self> {
        NonNull::new(pointer).map(|pointer| Self(pointer, process_generation())).ok_or_else(|| {
            clear_errors();
            Error::from(Kind::HostMemory)
        })
    }

    /// Gives the pointer for a call that reads, or that AWS-LC documents as safe to share.
    pub fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }

    /// Gives ownership up, for functions that take it over.
    pub fn into_raw(self) -> *mut T {
        let pointer = self.0.as_ptr();
        std::mem::forget(self);
        pointer
    }
}

impl<T: Free> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.1 == process_generation() {
            // SAFETY: the value is owned and this is its last use.
            unsafe { T::free(self.0.as_ptr()) }
        }
    }
}

/// Turns a return code into an error of this kind; AWS-LC's own queue is left empty.
///
/// # Errors
/// `kind` for any code but 1.
pub fn check(code: std::ffi::c_int, kind: Kind) -> Result<()> {
    if code == 1 {
        return Ok(());
    }
    clear_errors();
    Err(Error::from(kind))
}

/// Empties this thread's error queue: nothing of ours stays for others to find.
pub fn clear_errors() {
    // SAFETY: takes no argument and only touches the thread's queue.
    unsafe { sys::ERR_clear_error() }
}
