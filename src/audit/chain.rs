//! What joins the records of a token, and what signs them.

use sha2::{Digest, Sha256};

use super::record::SignerId;
use crate::store::Serial;

/// What the start of a chain is made of, before the serial number.
const START: &[u8] = b"strongroom audit chain v1";
/// What a link is made of, before the hash and the tag of the record before and the record.
const LINK: &[u8] = b"strongroom audit record v1";

/// What the end of a chain is made of, before the hash of its record.
const END: &[u8] = b"strongroom audit end v1";

/// The hash of a record and of all before it.
pub type Hash = [u8; 32];

/// Signs records: the token key of who is logged in.
pub trait Signer {
    /// Tells which key it is.
    fn id(&self) -> SignerId;

    /// Signs the hash of a record (HMAC-SHA-256).
    fn tag(&self, hash: &Hash) -> Hash;

    /// Checks a signature, in a time that does not depend on where it is wrong.
    fn verify(&self, hash: &Hash, tag: &[u8]) -> bool;
}

/// Gives what stands before the first record of a token.
pub fn start(token: &Serial) -> Hash {
    Sha256::new().chain_update(START).chain_update(token).finalize().into()
}

/// Chains a record to the hash and the tag that stand before it.
pub fn link(previous: &[u8], tag: &[u8], record: &[u8]) -> Hash {
    let tag_len = [u8::try_from(tag.len()).unwrap_or(u8::MAX)];
    let head = Sha256::new().chain_update(LINK).chain_update(previous).chain_update(tag_len);
    head.chain_update(tag).chain_update(record).finalize().into()
}

/// Tells whether a record with this hash is the end by the signature of this key.
pub fn is_end(hash: &[u8], tag: &[u8], signer: &dyn Signer) -> bool {
    hash.try_into().is_ok_and(|hash: &Hash| signer.verify(&end(hash), tag))
}

/// Gives what is signed of a record that is the end of its trail.
pub fn end(hash: &Hash) -> Hash {
    Sha256::new().chain_update(END).chain_update(hash).finalize().into()
}
