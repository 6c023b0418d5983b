//! Software cryptography: thin, safe faces over AWS-LC and k256. No word of PKCS #11 here.

pub mod hash;
mod inout;
mod lc;

pub use inout::InOut;
