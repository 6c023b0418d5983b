//! mechanism

pub mod digest;
mod key;
mod mechanism;

pub use key::{Key, KeyType};
pub use mechanism::*;
