//! Hashes as PKCS #11 names them in the mechanisms that take one.

use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};

use super::super::remote::Hash;
use super::device::ulong;

/// What is known of a hash.
struct Row {
    hash: Hash,
    /// The length of a digest in bytes.
    len: u32,
    mechanism: MechanismType,
    mgf: PkcsMgfType,
    hmac: fn() -> Mechanism<'static>,
    /// DER of `DigestInfo` up to the digest (RFC 8017, 9.2, note 1).
    digest_info: &'static [u8],
}

/// Every hash.
static HASHES: [Row; 5] = [
    Row {
        hash: Hash::Sha1,
        len: 20,
        mechanism: MechanismType::SHA1,
        mgf: PkcsMgfType::MGF1_SHA1,
        hmac: || Mechanism::Sha1Hmac,
        digest_info: b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14",
    },
    Row {
        hash: Hash::Sha224,
        len: 28,
        mechanism: MechanismType::SHA224,
        mgf: PkcsMgfType::MGF1_SHA224,
        hmac: || Mechanism::Sha224Hmac,
        digest_info: b"\x30\x2d\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x04\x05\x00\x04\x1c",
    },
    Row {
        hash: Hash::Sha256,
        len: 32,
        mechanism: MechanismType::SHA256,
        mgf: PkcsMgfType::MGF1_SHA256,
        hmac: || Mechanism::Sha256Hmac,
        digest_info: b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
    },
    Row {
        hash: Hash::Sha384,
        len: 48,
        mechanism: MechanismType::SHA384,
        mgf: PkcsMgfType::MGF1_SHA384,
        hmac: || Mechanism::Sha384Hmac,
        digest_info: b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
    },
    Row {
        hash: Hash::Sha512,
        len: 64,
        mechanism: MechanismType::SHA512,
        mgf: PkcsMgfType::MGF1_SHA512,
        hmac: || Mechanism::Sha512Hmac,
        digest_info: b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
    },
];

fn row(hash: Hash) -> &'static Row {
    HASHES.iter().find(|row| row.hash == hash).expect("the table has every hash")
}

/// Tells how long a digest is.
pub fn digest_len(hash: Hash) -> u32 {
    row(hash).len
}

/// Gives what stands before a digest in `DigestInfo`.
pub fn digest_info(hash: Hash) -> &'static [u8] {
    row(hash).digest_info
}

/// Makes RSA-OAEP with this hash for both uses and no label.
pub fn oaep(hash: Hash) -> Mechanism<'static> {
    let Row { mechanism, mgf, .. } = row(hash);
    Mechanism::RsaPkcsOaep(PkcsOaepParams::new(*mechanism, *mgf, PkcsOaepSource::empty()))
}

/// Makes RSA-PSS with this hash for both uses and a salt of its length.
pub fn pss(hash: Hash) -> Mechanism<'static> {
    let Row { mechanism, mgf, len, .. } = row(hash);
    Mechanism::RsaPkcsPss(PkcsPssParams { hash_alg: *mechanism, mgf: *mgf, s_len: ulong(*len) })
}

/// Gives HMAC with this hash.
pub fn hmac(hash: Hash) -> Mechanism<'static> {
    (row(hash).hmac)()
}

/// Tells for which hash a generic secret key is: for the one that is as long as the key, and for SHA-256 when none is.
pub fn of_generic_key(len: Option<usize>) -> Hash {
    HASHES.iter().find(|row| len == usize::try_from(row.len).ok()).map_or(Hash::Sha256, |row| row.hash)
}
