//! The algorithms of keys that live in Cloud KMS: each version has one, and it fixes key, scheme and hash.

use google_cloud_kms_v1::model::crypto_key::CryptoKeyPurpose;
use google_cloud_kms_v1::model::crypto_key_version::CryptoKeyVersionAlgorithm as Algorithm;

use crate::kms::{Ability, Curve, DecryptScheme, Hash, KeySpec, SignScheme, Uses};
use crate::secret::Table;

/// What a version does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// It signs by this scheme.
    Sign(SignScheme),
    /// It signs whatever block it is given, padded by PKCS #1 v1.5: with a `DigestInfo` of any hash.
    SignRaw,
    /// It decrypts by this scheme.
    Decrypt(DecryptScheme),
    /// It makes MACs.
    Mac,
}

/// One algorithm.
#[derive(Debug)]
pub struct Row {
    /// As the API names it.
    pub algorithm: Algorithm,
    /// The kind of its keys.
    pub spec: KeySpec,
    /// What it does.
    pub does: Does,
}

const fn row(algorithm: Algorithm, spec: KeySpec, does: Does) -> Row {
    Row { algorithm, spec, does }
}

const fn ec(algorithm: Algorithm, curve: Curve, hash: Hash) -> Row {
    row(algorithm, KeySpec::Ec(curve), Does::Sign(SignScheme::Ecdsa(hash)))
}

const fn pkcs1(algorithm: Algorithm, bits: u32, hash: Hash) -> Row {
    row(algorithm, KeySpec::Rsa(bits), Does::Sign(SignScheme::RsaPkcs1(hash)))
}

const fn pss(algorithm: Algorithm, bits: u32, hash: Hash) -> Row {
    row(algorithm, KeySpec::Rsa(bits), Does::Sign(SignScheme::RsaPss(hash)))
}

const fn raw(algorithm: Algorithm, bits: u32) -> Row {
    row(algorithm, KeySpec::Rsa(bits), Does::SignRaw)
}

const fn oaep(algorithm: Algorithm, bits: u32, hash: Hash) -> Row {
    row(algorithm, KeySpec::Rsa(bits), Does::Decrypt(DecryptScheme::RsaOaep(hash)))
}

const fn mac(algorithm: Algorithm, hash: Hash) -> Row {
    row(algorithm, KeySpec::Hmac(hash), Does::Mac)
}

/// Every algorithm of Cloud KMS that this library can use (cloud.google.com/kms/docs/algorithms).
pub static ROWS: &[Row] = &[
    ec(Algorithm::EcSignP256Sha256, Curve::P256, Hash::Sha256),
    ec(Algorithm::EcSignP384Sha384, Curve::P384, Hash::Sha384),
    ec(Algorithm::EcSignSecp256K1Sha256, Curve::Secp256k1, Hash::Sha256),
    row(Algorithm::EcSignEd25519, KeySpec::Ed25519, Does::Sign(SignScheme::Ed25519)),
    pkcs1(Algorithm::RsaSignPkcs12048Sha256, 2048, Hash::Sha256),
    pkcs1(Algorithm::RsaSignPkcs13072Sha256, 3072, Hash::Sha256),
    pkcs1(Algorithm::RsaSignPkcs14096Sha256, 4096, Hash::Sha256),
    pkcs1(Algorithm::RsaSignPkcs14096Sha512, 4096, Hash::Sha512),
    pss(Algorithm::RsaSignPss2048Sha256, 2048, Hash::Sha256),
    pss(Algorithm::RsaSignPss3072Sha256, 3072, Hash::Sha256),
    pss(Algorithm::RsaSignPss4096Sha256, 4096, Hash::Sha256),
    pss(Algorithm::RsaSignPss4096Sha512, 4096, Hash::Sha512),
    raw(Algorithm::RsaSignRawPkcs12048, 2048),
    raw(Algorithm::RsaSignRawPkcs13072, 3072),
    raw(Algorithm::RsaSignRawPkcs14096, 4096),
    oaep(Algorithm::RsaDecryptOaep2048Sha256, 2048, Hash::Sha256),
    oaep(Algorithm::RsaDecryptOaep3072Sha256, 3072, Hash::Sha256),
    oaep(Algorithm::RsaDecryptOaep4096Sha256, 4096, Hash::Sha256),
    oaep(Algorithm::RsaDecryptOaep4096Sha512, 4096, Hash::Sha512),
    oaep(Algorithm::RsaDecryptOaep2048Sha1, 2048, Hash::Sha1),
    oaep(Algorithm::RsaDecryptOaep3072Sha1, 3072, Hash::Sha1),
    oaep(Algorithm::RsaDecryptOaep4096Sha1, 4096, Hash::Sha1),
    mac(Algorithm::HmacSha1, Hash::Sha1),
    mac(Algorithm::HmacSha224, Hash::Sha224),
    mac(Algorithm::HmacSha256, Hash::Sha256),
    mac(Algorithm::HmacSha384, Hash::Sha384),
    mac(Algorithm::HmacSha512, Hash::Sha512),
];

/// What the rows come to: no second list to keep.
pub static ABILITIES: Table<Vec<Ability>> = Table::new(|| {
    let mut abilities = Vec::new();
    for ability in ROWS.iter().flat_map(Row::abilities) {
        if !abilities.contains(&ability) {
            abilities.push(ability);
        }
    }
    abilities
});

/// The hashes of which a key for raw signatures takes a `DigestInfo`.
const RAW_HASHES: [Hash; 5] = [Hash::Sha1, Hash::Sha224, Hash::Sha256, Hash::Sha384, Hash::Sha512];

impl Row {
    /// Finds the row of an algorithm; `None` for one that this library cannot use.
    pub fn find(algorithm: &Algorithm) -> Option<&'static Row> {
        ROWS.iter().find(|row| row.algorithm == *algorithm)
    }

    /// Names the algorithm as Google does.
    pub fn name(&'static self) -> &'static str {
        self.algorithm.name().unwrap_or("an unnamed algorithm")
    }

    /// Tells what keys of this algorithm may do.
    pub fn uses(&self) -> Uses {
        match self.does {
            Does::Sign(_) | Does::SignRaw => Uses { sign: true, ..Uses::default() },
            Does::Decrypt(_) => Uses { decrypt: true, ..Uses::default() },
            Does::Mac => Uses { mac: true, ..Uses::default() },
        }
    }

    /// Tells the purpose of keys of this algorithm.
    pub fn purpose(&self) -> CryptoKeyPurpose {
        match self.does {
            Does::Sign(_) | Does::SignRaw => CryptoKeyPurpose::AsymmetricSign,
            Does::Decrypt(_) => CryptoKeyPurpose::AsymmetricDecrypt,
            Does::Mac => CryptoKeyPurpose::Mac,
        }
    }

    /// Tells whether it is offered at the protection level HSM alone.
    pub fn is_hsm_only(&self) -> bool {
        self.spec == KeySpec::Ec(Curve::Secp256k1)
    }

    fn abilities(&self) -> Vec<Ability> {
        let mut abilities = vec![Ability::Generate(self.spec)];
        match self.does {
            Does::Sign(scheme) => abilities.push(Ability::Sign(self.spec, scheme)),
            Does::SignRaw => {
                abilities.extend(RAW_HASHES.map(|hash| Ability::Sign(self.spec, SignScheme::RsaPkcs1(hash))));
            }
            Does::Decrypt(scheme) => abilities.push(Ability::Decrypt(self.spec, scheme)),
            Does::Mac => abilities.push(Ability::Mac(self.spec)),
        }
        abilities
    }
}

/// Tells the length of a digest in bytes.
pub const fn digest_len(hash: Hash) -> usize {
    match hash {
        Hash::Sha1 => 20,
        Hash::Sha224 => 28,
        Hash::Sha256 => 32,
        Hash::Sha384 => 48,
        Hash::Sha512 => 64,
    }
}

/// Gives what stands before the digest in a DER `DigestInfo` (RFC 8017, 9.2, note 1).
pub const fn digest_info(hash: Hash) -> &'static [u8] {
    match hash {
        Hash::Sha1 => b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14",
        Hash::Sha224 => b"\x30\x2d\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x04\x05\x00\x04\x1c",
        Hash::Sha256 => b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
        Hash::Sha384 => b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
        Hash::Sha512 => b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
    }
}
