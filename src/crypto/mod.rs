//! Software cryptography: thin, safe faces over AWS-LC and k256. No word of PKCS #11 here.

pub mod aead;
pub mod aes;
mod bn;
mod cipher;
pub mod container;
pub mod ec;
pub mod ed;
pub mod hash;
mod inout;
pub mod kdf;
mod lc;
mod locked;
pub mod mac;
mod memory;
pub mod password;
mod pkey;
pub mod random;
pub mod rsa;
pub mod secp256k1;
pub mod shamir;
pub mod x25519;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions)]
mod pubkey_vectors;
#[cfg(test)]
pub(crate) use pubkey_vectors::aws_lc_verifies_secp256k1;

pub use cipher::{CipherOperation, Direction, Step, Written};
pub use inout::InOut;
