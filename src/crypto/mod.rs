//! Software cryptography: thin, safe faces over AWS-LC and k256. No word of PKCS #11 here.

pub mod aead;
pub mod aes;
mod cipher;
pub mod hash;
mod inout;
pub mod kdf;
mod lc;
mod locked;
pub mod mac;
pub mod random;

pub use cipher::{CipherOperation, Direction, Step, Written};
pub use inout::InOut;
