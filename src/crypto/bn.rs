//! Big integers as bytes in big-endian, the form in which keys and signatures travel.

use std::ptr;

use aws_lc_sys as sys;

use super::lc::{Owned, check};
use crate::error::{Kind, Result};
use crate::secret::SecureBytes;

/// Reads a big integer; leading zeros do not matter.
///
/// # Errors
/// `HostMemory` when there is none left.
pub(in crate::crypto) fn from_bytes(bytes: &[u8]) -> Result<Owned<sys::BIGNUM>> {
    // SAFETY: `bytes` is valid for its length.
    let new = unsafe { sys::BN_bin2bn(bytes.as_ptr(), bytes.len(), ptr::null_mut()) };
    // SAFETY: the result is new, or NULL, and owned by nobody else.
    unsafe { Owned::new(new) }
}

/// Writes a big integer at full width, with leading zeros.
///
/// # Errors
/// `FunctionFailed` when it does not fit.
///
/// # Safety
/// `number` is a valid big integer.
pub(in crate::crypto) unsafe fn write_padded(number: *const sys::BIGNUM, out: &mut [u8]) -> Result<()> {
    // SAFETY: the caller vouches for `number`; `out` is valid for its length.
    let code = unsafe { sys::BN_bn2bin_padded(out.as_mut_ptr(), out.len(), number) };
    check(code, Kind::FunctionFailed)
}

/// Gives a public big integer as bytes without leading zeros.
///
/// # Errors
/// As [`write_padded`].
///
/// # Safety
/// `number` is a valid big integer.
pub(in crate::crypto) unsafe fn to_vec(number: *const sys::BIGNUM) -> Result<Vec<u8>> {
    // SAFETY: the caller vouches for `number`.
    let mut out = vec![0; unsafe { byte_len(number) }];
    // SAFETY: as above.
    unsafe { write_padded(number, &mut out) }?;
    Ok(out)
}

/// Gives a secret big integer as bytes without leading zeros.
///
/// # Errors
/// As [`write_padded`].
///
/// # Safety
/// `number` is a valid big integer.
pub(in crate::crypto) unsafe fn to_secret(number: *const sys::BIGNUM) -> Result<SecureBytes> {
    // SAFETY: the caller vouches for `number`.
    let len = unsafe { byte_len(number) };
    // SAFETY: as above.
    SecureBytes::try_with(len, |out| unsafe { write_padded(number, out) })
}

/// Tells how many bytes a big integer has.
///
/// # Safety
/// `number` is a valid big integer.
unsafe fn byte_len(number: *const sys::BIGNUM) -> usize {
    // SAFETY: the caller vouches for `number`.
    let len = unsafe { sys::BN_num_bytes(number) };
    usize::try_from(len).expect("a usize is at least as wide as a C int")
}

/// Removes leading zeros from a big integer.
pub(in crate::crypto) fn trim(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}
