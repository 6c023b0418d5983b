//! Strongroom: a PKCS #11 v3.2 module and key-management library whose callers never see a secret.
//!
//! The parts, from the C boundary inwards; `ARCHITECTURE.md` has the picture and who may import whom.

pub mod abi;
pub mod audit;
#[allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals)]
pub mod ck;
pub mod config;
pub mod crypto;
pub mod error;
pub mod keys;
pub mod kms;
pub mod log;
pub mod mechanism;
pub mod runtime;
pub mod seal;
pub mod secret;
pub mod store;
pub mod token;
