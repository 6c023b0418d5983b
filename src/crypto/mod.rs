//! Software cryptography: thin, safe faces over AWS-LC and k256. No word of PKCS #11 here.

mod bn;
pub mod ec;
pub mod ed;
pub mod hash;
mod inout;
mod lc;
mod pkey;
pub mod rsa;
pub mod secp256k1;
pub mod x25519;
pub mod x963;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions)]
mod pubkey_vectors;

pub use inout::InOut;
