//! The C boundary: every function that `libstrongroom.so` exports, in files by the chapters of PKCS #11 v3.2.
//!
//! The rules are:
//! - the body of an export is one call of [`guard`](guard::guard) or a sister of it; a test reads these files and says so;
//! - pointers become Rust values in [`arg`] (with [`template`] and [`params`] on top of it) and nowhere else;
//! - what the library does not do yet is refused after the usual checks, so that the order of errors stays the same.
//!
//! # Safety
//! All exports ask the same of their caller, as the standard does: each pointer is NULL or valid for as many bytes or
//! entries as the argument beside it says, for the duration of the call, at any alignment, and no other thread writes to
//! that memory meanwhile. Input and output may be the same memory.
#![allow(non_snake_case, clippy::missing_safety_doc, clippy::too_many_arguments)]

mod arg;
pub mod compose;
mod function_list;
mod global;
mod guard;
mod last_error;
mod params;
mod template;

pub mod async_functions;
pub mod decrypt;
pub mod digest;
pub mod dual;
pub mod encrypt;
pub mod general;
pub mod key;
pub mod message_decrypt;
pub mod message_encrypt;
pub mod message_sign;
pub mod message_verify;
pub mod object;
pub mod parallel;
pub mod random;
pub mod session;
pub mod sign;
pub mod slot_token;
pub mod sr_about;
pub mod sr_audit;
pub mod sr_backup;
pub mod sr_keys;
pub mod sr_kms;
pub mod sr_migrate;
pub mod sr_password;
pub mod sr_rotation;
pub mod verify;

use crate::error::{Error, Kind, Result};

/// Refuses a function that the library does not have, once the checks that all functions share are done.
fn unsupported() -> Result<()> {
    Err(Error::from(Kind::FunctionNotSupported))
}

#[cfg(test)]
mod source_tests;
