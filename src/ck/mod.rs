//! The words and numbers of PKCS #11 v3.2, and every number of our own.
//!
//! This is the one module that names `cryptoki_sys`. Names are the standard's, so no naming lint applies here.

mod attributes;
mod names;
mod vendor;

pub use attributes::{Attributes, MAX_DEPTH, Value, ValueKind, value_kind};
pub use cryptoki_sys::*;
pub use names::{attribute_name, mechanism_name};
pub use vendor::*;

/// A length that cannot be told, or an attribute that is not revealed (PKCS #11 v3.2, 3.4).
pub const CK_UNAVAILABLE_INFORMATION: CK_ULONG = CK_ULONG::MAX;
/// "No limit" for session counts (PKCS #11 v3.2, 3.3).
pub const CK_EFFECTIVELY_INFINITE: CK_ULONG = 0;

/// The library is built for machines on which `CK_ULONG` has 64 bits; conversions rely on it.
const _: () = assert!(size_of::<CK_ULONG>() == size_of::<u64>() && size_of::<usize>() == size_of::<u64>());
