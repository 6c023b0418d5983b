//! Managed keys and keys that live in a KMS: what stands between the token and the providers.

mod remote;

pub use remote::CloudKeys;
