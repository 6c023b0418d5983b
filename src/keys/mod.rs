//! Managed keys and keys that live in a KMS: what stands between the token and the providers.
//!
//! A managed key is named by its owner and its asset; it has versions, of which one is active, and rules for its rotation.

mod address;
mod asset;
pub mod backup;
mod managed;
mod remote;
mod rotation;
mod version;

pub use asset::{ASSETS, Asset};
pub use managed::{Generated, ManagedKeys, Name};
pub use remote::CloudKeys;
pub use rotation::{Due, Failed, Report};
pub use version::{State, Version};

#[cfg(test)]
mod tests;
