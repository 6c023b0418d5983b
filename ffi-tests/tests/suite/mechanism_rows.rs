//! How each mechanism is exercised: one row for each that may be advertised.

use ffi_tests::Mechanism;
use ffi_tests::ck::*;

/// The kind of key that a mechanism works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Rsa,
    P256,
    Ed25519,
    X25519,
    Aes,
    Generic,
    None,
}

/// What data a mechanism takes in one part.
#[derive(Debug, Clone, Copy)]
pub enum Data {
    /// Any length.
    Any,
    /// A digest of any length; a longer one than the order is truncated.
    Digest,
    /// Exactly so many bytes.
    Exactly(usize),
    /// At most so many.
    AtMost(usize),
    /// A multiple of 16 bytes.
    Blocks,
    /// A multiple of 8 bytes, at least 16.
    HalfBlocks,
}

impl Data {
    /// Gives data of a length that it takes.
    pub fn sample(self) -> Vec<u8> {
        let len = match self {
            Data::Any => 1000,
            Data::Digest => 32,
            Data::Exactly(len) => len,
            Data::AtMost(len) => len.min(60),
            Data::Blocks => 512,
            Data::HalfBlocks => 40,
        };
        let mut data: Vec<u8> = (0..len).map(|index| index as u8).collect();
        if let Some(first) = data.first_mut() {
            *first = 0; // a raw RSA block is smaller than the modulus
        }
        data
    }

    /// Lengths that the mechanism must refuse.
    pub fn wrong(self) -> Vec<usize> {
        match self {
            Data::Any | Data::Digest => vec![],
            Data::Exactly(len) => vec![len + 1],
            Data::AtMost(len) => vec![len + 1],
            Data::Blocks => vec![15, 17],
            Data::HalfBlocks => vec![15, 20],
        }
    }
}

/// How a mechanism is exercised.
pub struct Row {
    /// The kind of key.
    pub key: Key,
    /// The data that it takes.
    pub data: Data,
    /// Whether the standard gives it several parts (PKCS #11 v3.2, 6).
    pub parts: bool,
    /// Whether the same input gives the same output.
    pub fixed: bool,
    /// Makes it with a good parameter.
    pub make: Box<dyn Fn() -> Mechanism>,
}

fn row(key: Key, data: Data, parts: bool, fixed: bool, make: impl Fn() -> Mechanism + 'static) -> Row {
    Row { key, data, parts, fixed, make: Box::new(make) }
}

/// The hashes: mechanism, mask generation function, length.
pub const HASHES: &[(CK_MECHANISM_TYPE, CK_ULONG, usize)] = &[
    (CKM_SHA_1, CKG_MGF1_SHA1, 20),
    (CKM_SHA224, CKG_MGF1_SHA224, 28),
    (CKM_SHA256, CKG_MGF1_SHA256, 32),
    (CKM_SHA384, CKG_MGF1_SHA384, 48),
    (CKM_SHA512, CKG_MGF1_SHA512, 64),
    (CKM_SHA3_224, CKG_MGF1_SHA3_224, 28),
    (CKM_SHA3_256, CKG_MGF1_SHA3_256, 32),
    (CKM_SHA3_384, CKG_MGF1_SHA3_384, 48),
    (CKM_SHA3_512, CKG_MGF1_SHA3_512, 64),
];

/// A point that is a public key to anybody (SEC 2, 2.4.2).
const P256_GENERATOR: &[u8] = &[
    0x04, 0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2, 0x77, 0x03,
    0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96, 0x4f, 0xe3, 0x42, 0xe2, 0xfe,
    0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16, 0x2b, 0xce, 0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce,
    0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5,
];

/// Says how a mechanism is exercised; every advertised one must have its row here.
pub fn row_of(kind: CK_MECHANISM_TYPE) -> Option<Row> {
    use Data::*;
    let pss = |hash| {
        let (hash, mgf, len) = *HASHES.iter().find(|row| row.0 == hash).expect("a hash");
        row(Key::Rsa, Any, true, false, move || Mechanism::pss(kind, hash, mgf, len as CK_ULONG))
    };
    let plain = move |key, data, parts, fixed| row(key, data, parts, fixed, move || Mechanism::new(kind));
    let half = |bytes: CK_ULONG| row(Key::Generic, Any, true, true, move || Mechanism::ulong(kind, bytes));
    Some(match kind {
        CKM_RSA_PKCS_KEY_PAIR_GEN | CKM_RSA_X9_31_KEY_PAIR_GEN => plain(Key::Rsa, Any, false, false),
        CKM_EC_KEY_PAIR_GEN | CKM_EC_KEY_PAIR_GEN_W_EXTRA_BITS => plain(Key::P256, Any, false, false),
        CKM_EC_EDWARDS_KEY_PAIR_GEN => plain(Key::Ed25519, Any, false, false),
        CKM_EC_MONTGOMERY_KEY_PAIR_GEN => plain(Key::X25519, Any, false, false),
        CKM_AES_KEY_GEN => plain(Key::Aes, Any, false, false),
        CKM_GENERIC_SECRET_KEY_GEN
        | CKM_SHA_1_KEY_GEN
        | CKM_SHA224_KEY_GEN
        | CKM_SHA256_KEY_GEN
        | CKM_SHA384_KEY_GEN
        | CKM_SHA512_KEY_GEN
        | CKM_HKDF_KEY_GEN => plain(Key::Generic, Any, false, false),

        CKM_RSA_PKCS => plain(Key::Rsa, AtMost(245), false, false),
        CKM_RSA_X_509 => plain(Key::Rsa, Exactly(256), false, true),
        CKM_RSA_PKCS_OAEP => row(Key::Rsa, AtMost(190), false, false, move || {
            Mechanism::oaep(kind, CKM_SHA256, CKG_MGF1_SHA256, b"label")
        }),
        CKM_RSA_PKCS_PSS => {
            row(Key::Rsa, Exactly(32), false, false, move || Mechanism::pss(kind, CKM_SHA256, CKG_MGF1_SHA256, 32))
        }
        CKM_RSA_AES_KEY_WRAP => {
            row(Key::Rsa, Any, false, false, move || Mechanism::rsa_aes(kind, 256, CKM_SHA256, CKG_MGF1_SHA256))
        }
        CKM_SHA1_RSA_PKCS
        | CKM_SHA224_RSA_PKCS
        | CKM_SHA256_RSA_PKCS
        | CKM_SHA384_RSA_PKCS
        | CKM_SHA512_RSA_PKCS
        | CKM_SHA3_224_RSA_PKCS
        | CKM_SHA3_256_RSA_PKCS
        | CKM_SHA3_384_RSA_PKCS
        | CKM_SHA3_512_RSA_PKCS => plain(Key::Rsa, Any, true, true),
        CKM_SHA1_RSA_PKCS_PSS => pss(CKM_SHA_1),
        CKM_SHA224_RSA_PKCS_PSS => pss(CKM_SHA224),
        CKM_SHA256_RSA_PKCS_PSS => pss(CKM_SHA256),
        CKM_SHA384_RSA_PKCS_PSS => pss(CKM_SHA384),
        CKM_SHA512_RSA_PKCS_PSS => pss(CKM_SHA512),
        CKM_SHA3_224_RSA_PKCS_PSS => pss(CKM_SHA3_224),
        CKM_SHA3_256_RSA_PKCS_PSS => pss(CKM_SHA3_256),
        CKM_SHA3_384_RSA_PKCS_PSS => pss(CKM_SHA3_384),
        CKM_SHA3_512_RSA_PKCS_PSS => pss(CKM_SHA3_512),

        CKM_ECDSA => plain(Key::P256, Digest, false, false),
        CKM_ECDSA_SHA1 | CKM_ECDSA_SHA224 | CKM_ECDSA_SHA256 | CKM_ECDSA_SHA384 | CKM_ECDSA_SHA512
        | CKM_ECDSA_SHA3_224 | CKM_ECDSA_SHA3_256 | CKM_ECDSA_SHA3_384 | CKM_ECDSA_SHA3_512 => {
            plain(Key::P256, Any, true, false)
        }
        CKM_EDDSA => plain(Key::Ed25519, Any, false, true),
        CKM_ECDH1_DERIVE | CKM_ECDH1_COFACTOR_DERIVE => {
            row(Key::P256, Any, false, true, move || Mechanism::ecdh1(kind, CKD_NULL, b"", P256_GENERATOR))
        }
        CKM_HKDF_DERIVE => row(Key::Generic, Any, false, true, move || Mechanism::hkdf(kind, CKM_SHA256, b"info")),

        CKM_AES_ECB => plain(Key::Aes, Blocks, true, true),
        CKM_AES_CBC => row(Key::Aes, Blocks, true, true, move || Mechanism::with(kind, [7; 16])),
        CKM_AES_CBC_PAD => row(Key::Aes, Any, true, true, move || Mechanism::with(kind, [7; 16])),
        CKM_AES_CTR => row(Key::Aes, Any, true, true, move || Mechanism::ctr(kind, 128, [7; 16])),
        CKM_AES_GCM => row(Key::Aes, Any, true, true, move || Mechanism::gcm(kind, &[7; 12], b"aad", 128)),
        CKM_AES_CMAC => plain(Key::Aes, Any, true, true),
        CKM_AES_CMAC_GENERAL => row(Key::Aes, Any, true, true, move || Mechanism::ulong(kind, 8)),
        CKM_AES_KEY_WRAP => plain(Key::Aes, HalfBlocks, false, true),
        CKM_AES_KEY_WRAP_PAD | CKM_AES_KEY_WRAP_KWP | CKM_AES_KEY_WRAP_PKCS7 => plain(Key::Aes, Any, false, true),

        CKM_SHA_1_HMAC | CKM_SHA224_HMAC | CKM_SHA256_HMAC | CKM_SHA384_HMAC | CKM_SHA512_HMAC
        | CKM_SHA512_224_HMAC | CKM_SHA512_256_HMAC | CKM_SHA3_224_HMAC | CKM_SHA3_256_HMAC | CKM_SHA3_384_HMAC
        | CKM_SHA3_512_HMAC => plain(Key::Generic, Any, true, true),
        CKM_SHA_1_HMAC_GENERAL => half(10),
        CKM_SHA224_HMAC_GENERAL | CKM_SHA3_224_HMAC_GENERAL | CKM_SHA512_224_HMAC_GENERAL => half(14),
        CKM_SHA256_HMAC_GENERAL | CKM_SHA3_256_HMAC_GENERAL | CKM_SHA512_256_HMAC_GENERAL => half(16),
        CKM_SHA384_HMAC_GENERAL | CKM_SHA3_384_HMAC_GENERAL => half(24),
        CKM_SHA512_HMAC_GENERAL | CKM_SHA3_512_HMAC_GENERAL => half(32),
        CKM_SHA_1 | CKM_SHA224 | CKM_SHA256 | CKM_SHA384 | CKM_SHA512 | CKM_SHA512_224 | CKM_SHA512_256
        | CKM_SHA3_224 | CKM_SHA3_256 | CKM_SHA3_384 | CKM_SHA3_512 | CKM_MD5 => plain(Key::None, Any, true, true),
        _ => return None,
    })
}
