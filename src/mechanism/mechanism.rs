//! What a mechanism is: one static row. Lists, flags, checks and documents all come from the row (PKCS #11 v3.2, 6).
//!
//! The rules are:
//! - a family's file holds its rows and the operations behind them; `mod.rs` holds one line for the family;
//! - nothing else matches on a mechanism type: what others need to know is a field of the row;
//! - an operation is made at Init from the key and the parameters, with everything checked, and then only runs.

use std::sync::Arc;

use smallvec::SmallVec;

use super::key::Key;
use super::remote::RemoteUse;
use super::sealed::Versions;
use crate::ck::{Attributes, CK_KEY_TYPE, CK_MECHANISM_TYPE, CK_ULONG};
pub use crate::crypto::{CipherOperation, Step, Written};
use crate::error::Result;
use crate::secret::{SecureBytes, SecurePrivateKey};

/// A short result, such as a signature or a digest, without an allocation up to RSA-4096.
pub type Output = SmallVec<[u8; 512]>;

/// How a mechanism's parameter looks in C. `abi/params.rs` reads each shape in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamShape {
    /// No parameter.
    None,
    /// An initialisation vector of exactly so many bytes.
    Iv(usize),
    /// An initialisation vector of exactly so many bytes, or no parameter.
    OptionalIv(usize),
    /// `CK_AES_CTR_PARAMS`.
    AesCtr,
    /// `CK_GCM_PARAMS`, with or without `ulIvBits`.
    Gcm,
    /// `CK_RSA_PKCS_PSS_PARAMS`.
    RsaPss,
    /// `CK_RSA_PKCS_OAEP_PARAMS`.
    RsaOaep,
    /// `CK_RSA_AES_KEY_WRAP_PARAMS`.
    RsaAesKeyWrap,
    /// `CK_ECDH1_DERIVE_PARAMS`.
    Ecdh1,
    /// `CK_EDDSA_PARAMS`, or no parameter.
    OptionalEddsa,
    /// `CK_MAC_GENERAL_PARAMS`: a length in bytes.
    MacGeneral,
    /// No parameter in C; the token gives the versions of the managed key instead.
    KeyVersions,
}

/// `CK_RSA_PKCS_OAEP_PARAMS` as a Rust value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RsaOaep {
    /// The hash as a mechanism.
    pub hash: CK_MECHANISM_TYPE,
    /// The mask generation function.
    pub mgf: CK_ULONG,
    /// The label (encoding parameter).
    pub label: Vec<u8>,
}

/// A parameter as a Rust value; short ones need no allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Params {
    /// No parameter.
    None,
    /// An initialisation vector.
    Iv(SmallVec<[u8; 16]>),
    /// `CK_AES_CTR_PARAMS`: how many low bits of the block count (1–128), and the first block.
    AesCtr {
        /// Bits of the counter.
        bits: u64,
        /// The first counter block.
        block: [u8; 16],
    },
    /// `CK_GCM_PARAMS`.
    Gcm {
        /// The initialisation vector.
        iv: SmallVec<[u8; 16]>,
        /// Additional authenticated data.
        aad: SmallVec<[u8; 64]>,
        /// The length of the tag in bits.
        tag_bits: u64,
    },
    /// `CK_RSA_PKCS_PSS_PARAMS`.
    RsaPss {
        /// The hash as a mechanism (`CKM_SHA256`).
        hash: CK_MECHANISM_TYPE,
        /// The mask generation function (`CKG_MGF1_SHA256`).
        mgf: CK_ULONG,
        /// The length of the salt in bytes.
        salt_len: u64,
    },
    /// `CK_RSA_PKCS_OAEP_PARAMS`.
    RsaOaep(RsaOaep),
    /// `CK_RSA_AES_KEY_WRAP_PARAMS`.
    RsaAesKeyWrap {
        /// The length of the temporary AES key in bits.
        aes_bits: u64,
        /// How that key is encrypted.
        oaep: RsaOaep,
    },
    /// `CK_ECDH1_DERIVE_PARAMS`.
    Ecdh1 {
        /// The key derivation function (`CKD_NULL`, …).
        kdf: CK_ULONG,
        /// Shared information.
        shared: Vec<u8>,
        /// The other party's public key: a point, raw or as DER OCTET STRING.
        public: Vec<u8>,
    },
    /// `CK_EDDSA_PARAMS`.
    Eddsa {
        /// Whether the message is hashed first (Ed25519ph).
        prehash: bool,
        /// The context, at most 255 bytes.
        context: Vec<u8>,
    },
    /// `CK_MAC_GENERAL_PARAMS`: a length in bytes.
    MacGeneral(u64),
    /// The versions of the managed key, from the token.
    KeyVersions(Versions),
}

/// A running digest.
pub trait DigestOperation: Send {
    /// Tells the length of the digest in bytes.
    fn output_len(&self) -> usize;
    /// Adds data.
    ///
    /// # Errors
    /// `GeneralError` when the library below fails.
    fn update(&mut self, part: &[u8]) -> Result<()>;
    /// Ends and gives the digest.
    ///
    /// # Errors
    /// As [`Self::update`].
    fn finish(&mut self) -> Result<Output>;
    /// Digests in one part.
    ///
    /// # Errors
    /// As [`Self::update`].
    fn digest(&mut self, data: &[u8]) -> Result<Output> {
        self.update(data)?;
        self.finish()
    }
}

/// A running signature or MAC.
pub trait SignOperation: Send {
    /// Tells the length of the signature in bytes, exactly.
    fn output_len(&self) -> usize;
    /// Signs in one part.
    ///
    /// # Errors
    /// `DataLenRange` for data that the mechanism does not take; `FunctionFailed` when the library below fails.
    fn sign(&mut self, data: &[u8]) -> Result<Output>;
    /// Adds data of a multi-part signature.
    ///
    /// # Errors
    /// `FunctionNotSupported`-like kinds are the row's affair: single-part mechanisms collect or refuse with `KeyFunctionNotPermitted`.
    fn update(&mut self, part: &[u8]) -> Result<()>;
    /// Ends a multi-part signature.
    ///
    /// # Errors
    /// As [`Self::sign`].
    fn finish(&mut self) -> Result<Output>;
}

/// A running verification.
pub trait VerifyOperation: Send {
    /// Verifies in one part.
    ///
    /// # Errors
    /// `SignatureInvalid`, `SignatureLenRange`; `DataLenRange` for data that the mechanism does not take.
    fn verify(&mut self, data: &[u8], signature: &[u8]) -> Result<()>;
    /// Adds data of a multi-part verification.
    ///
    /// # Errors
    /// As [`SignOperation::update`].
    fn update(&mut self, part: &[u8]) -> Result<()>;
    /// Ends a multi-part verification.
    ///
    /// # Errors
    /// As [`Self::verify`].
    fn finish(&mut self, signature: &[u8]) -> Result<()>;
}

/// What key generation gives for a secret key.
pub struct GeneratedKey {
    /// The secret.
    pub secret: SecurePrivateKey,
    /// Attributes that the mechanism contributes (`CKA_VALUE_LEN`); class and key type are the row's.
    pub attributes: Attributes,
}

/// What key-pair generation gives.
pub struct GeneratedPair {
    /// The private key's secret.
    pub secret: SecurePrivateKey,
    /// Attributes that the mechanism contributes to the public key (`CKA_MODULUS`, `CKA_EC_POINT`, …).
    pub public: Attributes,
    /// Attributes that the mechanism contributes to the private key, none of them secret (`CKA_MODULUS`, `CKA_EC_PARAMS`, …).
    pub private: Attributes,
}

/// Starts a digest.
pub type StartDigest = fn() -> Result<Box<dyn DigestOperation>>;
/// Starts a signature or MAC.
pub type StartSign = fn(&Arc<Key>, &Params) -> Result<Box<dyn SignOperation>>;
/// Starts a verification.
pub type StartVerify = fn(&Arc<Key>, &Params) -> Result<Box<dyn VerifyOperation>>;
/// Starts an encryption or decryption.
pub type StartCipher = fn(&Arc<Key>, &Params) -> Result<Box<dyn CipherOperation>>;
/// Generates a secret key from the caller's template (`CKA_VALUE_LEN`).
pub type Generate = fn(&Params, &Attributes) -> Result<GeneratedKey>;
/// Generates a key pair from the caller's public template (`CKA_MODULUS_BITS`, `CKA_EC_PARAMS`).
pub type GeneratePair = fn(&Params, &Attributes) -> Result<GeneratedPair>;
/// Wraps the bytes of a key.
pub type Wrap = fn(&Arc<Key>, &Params, &SecureBytes) -> Result<Vec<u8>>;
/// Unwraps to the bytes of a key.
pub type Unwrap = fn(&Arc<Key>, &Params, &[u8]) -> Result<SecureBytes>;
/// Derives bytes; `Some(len)` is what the caller's template asks for (`CKA_VALUE_LEN` or the key type's own length).
pub type Derive = fn(&Arc<Key>, &Params, Option<usize>) -> Result<SecureBytes>;

/// One mechanism, as a static row.
pub struct Mechanism {
    /// The number of the mechanism.
    pub id: CK_MECHANISM_TYPE,
    /// The types of key that it takes or makes; empty where there is no key.
    pub key_types: &'static [CK_KEY_TYPE],
    /// The smallest and largest key, in the unit of the standard for this mechanism (bits or bytes); 0, 0 where there is none.
    pub key_size: (u64, u64),
    /// Flags beyond those that follow from the functions below (`CKF_EC_F_P | CKF_EC_NAMEDCURVE | CKF_EC_UNCOMPRESS`, …).
    pub flags: CK_ULONG,
    /// How its parameter looks.
    pub params: ParamShape,
    /// Digests.
    pub digest: Option<StartDigest>,
    /// Signs or makes a MAC.
    pub sign: Option<StartSign>,
    /// Verifies.
    pub verify: Option<StartVerify>,
    /// Encrypts.
    pub encrypt: Option<StartCipher>,
    /// Decrypts.
    pub decrypt: Option<StartCipher>,
    /// Generates a secret key.
    pub generate: Option<Generate>,
    /// Generates a key pair.
    pub generate_pair: Option<GeneratePair>,
    /// Wraps.
    pub wrap: Option<Wrap>,
    /// Unwraps.
    pub unwrap: Option<Unwrap>,
    /// To a multiple of how many bytes others fill a secret key up with zeros before they wrap it, which nothing in the blob tells; 0
    /// where the blob tells the length.
    pub fills: usize,
    /// Derives.
    pub derive: Option<Derive>,
    /// What a KMS must be able to do for this mechanism to work with keys that live there; `None` where it never does.
    pub remote: Option<RemoteUse>,
}

impl Mechanism {
    /// A row that does nothing yet: the base of every row (`..Mechanism::NONE`).
    pub const NONE: Mechanism = Mechanism {
        id: 0,
        key_types: &[],
        key_size: (0, 0),
        flags: 0,
        params: ParamShape::None,
        digest: None,
        sign: None,
        verify: None,
        encrypt: None,
        decrypt: None,
        generate: None,
        generate_pair: None,
        wrap: None,
        unwrap: None,
        fills: 0,
        derive: None,
        remote: None,
    };
}
