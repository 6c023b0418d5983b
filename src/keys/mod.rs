//! Managed keys and keys that live in a KMS: what stands between the token and the providers.
//!
//! A managed key is named by its owner and its asset; it has versions, of which one is active, and rules for its rotation.

mod address;
mod asset;
pub mod backup;
mod due;
mod import;
mod managed;
pub mod migrate;
mod password;
mod remote;
mod rotation;
mod scheduler;
mod status;
mod version;

pub use asset::{ASSETS, Asset};
pub use due::{Cause, Due, Failed, Outlook, Report};
pub use import::Placed;
pub use managed::{Generated, ManagedKeys, Name};
pub use password::Passwords;
pub use remote::CloudKeys;
pub use scheduler::Scheduler;
pub use status::status;
pub use version::{State, Version};

#[cfg(test)]
mod tests;
