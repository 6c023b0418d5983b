//! Digests: SHA-1, SHA-2 and SHA-3 (PKCS #11 v3.2, 6.21 to 6.33), and what other families know a hash by.

use super::mechanism::{DigestOperation, Mechanism, Output, StartDigest};
use crate::ck::*;
use crate::crypto::hash::{Hash, HashContext};
use crate::error::{Error, Kind, Result};

/// The rows of the family.
pub static ROWS: [Mechanism; 11] = [
    row(CKM_SHA_1, || start(Hash::Sha1)),
    row(CKM_SHA224, || start(Hash::Sha224)),
    row(CKM_SHA256, || start(Hash::Sha256)),
    row(CKM_SHA384, || start(Hash::Sha384)),
    row(CKM_SHA512, || start(Hash::Sha512)),
    row(CKM_SHA512_224, || start(Hash::Sha512_224)),
    row(CKM_SHA512_256, || start(Hash::Sha512_256)),
    row(CKM_SHA3_224, || start(Hash::Sha3_224)),
    row(CKM_SHA3_256, || start(Hash::Sha3_256)),
    row(CKM_SHA3_384, || start(Hash::Sha3_384)),
    row(CKM_SHA3_512, || start(Hash::Sha3_512)),
];

/// Hashes by their digest mechanism.
const HASHES: &[(CK_MECHANISM_TYPE, Hash)] = &[
    (CKM_SHA_1, Hash::Sha1),
    (CKM_SHA224, Hash::Sha224),
    (CKM_SHA256, Hash::Sha256),
    (CKM_SHA384, Hash::Sha384),
    (CKM_SHA512, Hash::Sha512),
    (CKM_SHA512_224, Hash::Sha512_224),
    (CKM_SHA512_256, Hash::Sha512_256),
    (CKM_SHA3_224, Hash::Sha3_224),
    (CKM_SHA3_256, Hash::Sha3_256),
    (CKM_SHA3_384, Hash::Sha3_384),
    (CKM_SHA3_512, Hash::Sha3_512),
];

/// Hashes by the mask generation function over them; the standard has none for SHA-512/224 and SHA-512/256.
const MGFS: &[(CK_ULONG, Hash)] = &[
    (CKG_MGF1_SHA1, Hash::Sha1),
    (CKG_MGF1_SHA224, Hash::Sha224),
    (CKG_MGF1_SHA256, Hash::Sha256),
    (CKG_MGF1_SHA384, Hash::Sha384),
    (CKG_MGF1_SHA512, Hash::Sha512),
    (CKG_MGF1_SHA3_224, Hash::Sha3_224),
    (CKG_MGF1_SHA3_256, Hash::Sha3_256),
    (CKG_MGF1_SHA3_384, Hash::Sha3_384),
    (CKG_MGF1_SHA3_512, Hash::Sha3_512),
];

/// Finds the hash that a parameter names by its digest mechanism (`CKM_SHA256`).
///
/// # Errors
/// `MechanismParamInvalid` for anything else.
pub fn hash_of(mechanism: CK_MECHANISM_TYPE) -> Result<Hash> {
    find(HASHES, mechanism).ok_or_else(|| {
        Error::new(Kind::MechanismParamInvalid, format!("the parameter names {mechanism:#x}, which is no hash"))
    })
}

/// Finds the hash of a mask generation function (`CKG_MGF1_SHA256`).
///
/// # Errors
/// `MechanismParamInvalid` for anything else.
pub fn mgf_hash(mgf: CK_ULONG) -> Result<Hash> {
    find(MGFS, mgf).ok_or_else(|| {
        Error::new(Kind::MechanismParamInvalid, format!("the mask generation function {mgf:#x} is unknown"))
    })
}

fn find(table: &[(u64, Hash)], id: u64) -> Option<Hash> {
    table.iter().find(|row| row.0 == id).map(|row| row.1)
}

const fn row(id: CK_MECHANISM_TYPE, start: StartDigest) -> Mechanism {
    Mechanism { id, digest: Some(start), ..Mechanism::NONE }
}

fn start(hash: Hash) -> Result<Box<dyn DigestOperation>> {
    Ok(Box::new(HashContext::new(hash)?))
}

impl DigestOperation for HashContext {
    fn output_len(&self) -> usize {
        self.hash().len()
    }

    fn update(&mut self, part: &[u8]) -> Result<()> {
        HashContext::update(self, part)
    }

    fn finish(&mut self) -> Result<Output> {
        Ok(Output::from_slice(&HashContext::finish(self)?))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_row_digests_with_the_hash_of_its_number() {
        assert_eq!(ROWS.len(), HASHES.len());
        for row in &ROWS {
            let hash = hash_of(row.id).unwrap();
            let mut running = row.digest.unwrap()().unwrap();
            assert_eq!(running.output_len(), hash.len());
            assert_eq!(running.digest(b"message").unwrap().as_slice(), hash.digest(b"message").unwrap().as_slice());
            running.update(b"mess").unwrap();
            running.update(b"age").unwrap();
            assert_eq!(running.finish().unwrap().as_slice(), hash.digest(b"message").unwrap().as_slice());
        }
    }

    #[test]
    fn unknown_numbers_are_bad_parameters() {
        assert_eq!(hash_of(CKM_RSA_PKCS).unwrap_err().kind(), Kind::MechanismParamInvalid);
        assert_eq!(mgf_hash(0).unwrap_err().kind(), Kind::MechanismParamInvalid);
        assert_eq!(mgf_hash(CKG_MGF1_SHA384).unwrap(), Hash::Sha384);
    }
}
