//! The attributes by which objects are found, and their digests.

use sha2::{Digest, Sha256};

use crate::ck::{self, CK_ATTRIBUTE_TYPE};

/// The length of a digest in bytes.
pub const DIGEST_LEN: usize = 16;

/// What stands in the store's index instead of an attribute's value.
pub type IndexDigest = [u8; DIGEST_LEN];

/// The attributes that have an index, each with its number in the store. Numbers are never reused.
pub const INDEX_FIELDS: [(u8, CK_ATTRIBUTE_TYPE); 8] = [
    (1, ck::CKA_CLASS),
    (2, ck::CKA_KEY_TYPE),
    (3, ck::CKA_LABEL),
    (4, ck::CKA_ID),
    (5, ck::CKA_SUBJECT),
    (6, ck::CKA_APPLICATION),
    (7, ck::CKA_SR_OWNER),
    (8, ck::CKA_SR_STATE),
];

/// The number in the index of the latest version of a managed key, by owner, a zero byte, and asset.
pub const LATEST_VERSION_FIELD: u8 = 9;

/// The number in the index of objects whose secret is under a data key of its own; the value is empty.
pub const DATA_KEY_FIELD: u8 = 10;

/// Tells the number of an attribute in the index, if it has one.
pub fn index_field(attribute: CK_ATTRIBUTE_TYPE) -> Option<u8> {
    INDEX_FIELDS.iter().find(|row| row.1 == attribute).map(|row| row.0)
}

/// Digests an attribute's value for the index of a public object, which is found without login and so has no key.
pub fn public_index_digest(token: &[u8; 16], field: u8, value: &[u8]) -> IndexDigest {
    let digest = Sha256::new().chain_update(b"strongroom public index v1").chain_update(token);
    let digest = digest.chain_update([field]).chain_update(value).finalize();
    *digest.first_chunk().expect("SHA-256 has 32 bytes")
}
