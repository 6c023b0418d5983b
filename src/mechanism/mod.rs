//! mechanism

pub mod aes;
pub mod digest;
pub mod generic;
pub mod hmac;
mod key;
mod mac;
mod mechanism;

pub use key::{Key, KeyType};
pub use mechanism::*;
