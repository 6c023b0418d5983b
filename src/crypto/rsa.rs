//! RSA with 2048 to 4096 bits (RFC 8017): PKCS #1 v1.5, PSS, OAEP and the bare operation.
//!
//! AWS-LC blinds every private operation, uses the CRT, and checks each result before it gives it out.

use std::ffi::{c_int, c_uint};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_sys as sys;

use super::hash::Hash;
use super::lc::{Owned, check};
use super::{bn, memory, pkey};
use crate::error::{Error, Kind, Result};
use crate::runtime::{self, Pass};
use crate::secret::{SecureBytes, SecurePrivateKey};

/// The smallest modulus in bits.
pub const MIN_BITS: usize = 2048;
/// The largest modulus in bits.
pub const MAX_BITS: usize = 4096;
/// The public exponent that everybody uses: 65537.
pub const DEFAULT_EXPONENT: &[u8] = &[1, 0, 1];

/// A private key.
pub struct PrivateKey {
    key: Owned<sys::EVP_PKEY>,
    /// Whether AWS-LC has made what it makes of the primes at the first private operation.
    used: AtomicBool,
}

/// A public key.
pub struct PublicKey(Owned<sys::EVP_PKEY>);

/// The numbers of a private key, in big-endian (RFC 8017, 3.2).
pub struct Components<'a> {
    /// The modulus n.
    pub modulus: &'a [u8],
    /// The public exponent e.
    pub public_exponent: &'a [u8],
    /// The private exponent d.
    pub private_exponent: &'a SecureBytes,
    /// The first prime p.
    pub prime_1: &'a SecureBytes,
    /// The second prime q.
    pub prime_2: &'a SecureBytes,
    /// d mod (p − 1); computed when absent.
    pub exponent_1: Option<&'a SecureBytes>,
    /// d mod (q − 1); computed when absent.
    pub exponent_2: Option<&'a SecureBytes>,
    /// The inverse of q mod p; computed when absent.
    pub coefficient: Option<&'a SecureBytes>,
}

/// A secret number of a private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// d.
    PrivateExponent,
    /// p.
    Prime1,
    /// q.
    Prime2,
    /// d mod (p − 1).
    Exponent1,
    /// d mod (q − 1).
    Exponent2,
    /// The inverse of q mod p.
    Coefficient,
}

/// How a message representative is padded before the private operation of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignaturePadding {
    /// None: the number itself, with leading zeros (X.509 in PKCS #11).
    None,
    /// PKCS #1 v1.5, block type 1, over the caller's bytes (a DigestInfo, by custom).
    Pkcs1,
    /// PKCS #1 v1.5 over a digest (RFC 8017, 8.2).
    Pkcs1Digest(Hash),
    /// PSS over a digest (RFC 8017, 8.1).
    Pss(Pss),
}

/// The parameters of PSS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pss {
    /// The hash that made the digest.
    pub hash: Hash,
    /// The hash of the mask generation function.
    pub mgf: Hash,
    /// The length of the salt in bytes.
    pub salt_len: usize,
}

impl Pss {
    /// Tells whether the salt fits a modulus of so many bits (RFC 8017, 9.1.1).
    pub fn fits(&self, bits: usize) -> bool {
        let encoded_len = (bits - 1).div_ceil(8);
        self.salt_len.checked_add(self.hash.len() + 2).is_some_and(|need| need <= encoded_len)
    }
}

/// How a message is padded for encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncryptionPadding {
    /// None: the number itself, with leading zeros.
    None,
    /// PKCS #1 v1.5, block type 2 (RFC 8017, 7.2).
    Pkcs1,
    /// OAEP (RFC 8017, 7.1).
    Oaep {
        /// The hash of the label.
        hash: Hash,
        /// The hash of the mask generation function.
        mgf: Hash,
        /// The label.
        label: Vec<u8>,
    },
}

impl EncryptionPadding {
    /// Tells how many bytes a modulus of `len` bytes can take.
    pub fn max_message(&self, len: usize) -> usize {
        let overhead = match self {
            Self::None => 0,
            Self::Pkcs1 => 11,
            Self::Oaep { hash, .. } => 2 * hash.len() + 2,
        };
        len.saturating_sub(overhead)
    }
}

impl PrivateKey {
    fn new(key: Owned<sys::EVP_PKEY>) -> Self {
        Self { key, used: AtomicBool::new(false) }
    }

    /// Generates a key.
    ///
    /// # Errors
    /// `AttributeValueInvalid` for a length or exponent that is out of range.
    pub fn generate(bits: usize, exponent: &[u8]) -> Result<Self> {
        let exponent = bn::trim(exponent);
        check_generated(bits, exponent)?;
        memory::secret(|| Self::generate_checked(bits, exponent))
    }

    fn generate_checked(bits: usize, exponent: &[u8]) -> Result<Self> {
        let e = bn::from_bytes(exponent)?;
        let bits = c_int::try_from(bits).map_err(|_| Error::from(Kind::AttributeValueInvalid))?;
        // SAFETY: takes no argument.
        let rsa = unsafe { sys::RSA_new() };
        // SAFETY: the result is new, or NULL, and owned by nobody else.
        let rsa = unsafe { Owned::new(rsa) }?;
        let tries = watch_tries()?;
        let _pass = Pass::take();
        // SAFETY: key, exponent and callback are valid.
        let code = unsafe { sys::RSA_generate_key_ex(rsa.as_ptr(), bits, e.as_ptr(), tries.as_ptr()) };
        check(code, Kind::FunctionFailed)?;
        Ok(Self::new(wrap(&rsa)?))
    }

    /// Makes a key from its numbers, all of which are checked against each other.
    ///
    /// # Errors
    /// `AttributeValueInvalid` when they do not belong together or are out of range.
    pub fn from_components(parts: &Components<'_>) -> Result<Self> {
        memory::secret(|| Self::of_components(parts))
    }

    fn of_components(parts: &Components<'_>) -> Result<Self> {
        let n = bn::from_bytes(parts.modulus)?;
        let e = bn::from_bytes(parts.public_exponent)?;
        let d = bn::from_bytes(parts.private_exponent.expose())?;
        let p = bn::from_bytes(parts.prime_1.expose())?;
        let q = bn::from_bytes(parts.prime_2.expose())?;
        let dp = given_or(parts.exponent_1, || reduced(&d, &p))?;
        let dq = given_or(parts.exponent_2, || reduced(&d, &q))?;
        let qi = given_or(parts.coefficient, || inverse(&q, &p))?;
        let (n, e, d, p, q) = (n.as_ptr(), e.as_ptr(), d.as_ptr(), p.as_ptr(), q.as_ptr());
        // SAFETY: every number is valid and copied.
        let rsa = unsafe { sys::RSA_new_private_key(n, e, d, p, q, dp.as_ptr(), dq.as_ptr(), qi.as_ptr()) };
        // SAFETY: the result is new, or NULL, and owned by nobody else.
        let rsa = unsafe { Owned::new(rsa) };
        let rsa = rsa.map_err(|_| invalid("the numbers of the RSA private key do not belong together"))?;
        check_size(&rsa)?;
        Ok(Self::new(wrap(&rsa)?))
    }

    /// Reads the encoding of [`Self::secret`], and checks the key.
    ///
    /// # Errors
    /// `AttributeValueInvalid` for anything else.
    pub fn from_secret(secret: &SecurePrivateKey) -> Result<Self> {
        memory::secret(|| Self::of_secret(secret))
    }

    fn of_secret(secret: &SecurePrivateKey) -> Result<Self> {
        let der = secret.expose();
        // SAFETY: `der` is valid for its length.
        let rsa = unsafe { sys::RSA_private_key_from_bytes(der.as_ptr(), der.len()) };
        // SAFETY: the result is new, or NULL, and owned by nobody else.
        let rsa = unsafe { Owned::new(rsa) };
        let rsa = rsa.map_err(|_| invalid("the secret is no RSA private key"))?;
        check_size(&rsa)?;
        Ok(Self::new(wrap(&rsa)?))
    }

    /// Reads a PKCS #8 PrivateKeyInfo.
    ///
    /// # Errors
    /// `WrappedKeyInvalid` for anything else; `AttributeValueInvalid` for a key of a wrong size.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self> {
        let key = pkey::parse_private(der)?;
        // SAFETY: the key is valid; the result is borrowed from it.
        let rsa = unsafe { sys::EVP_PKEY_get0_RSA(key.as_ptr()) };
        if rsa.is_null() {
            return Err(pkey::wrapped_invalid("holds an RSA key"));
        }
        check_bits(bits_of(&key))?;
        Ok(Self::new(key))
    }

    /// Encodes the secret as PKCS #1 RSAPrivateKey.
    ///
    /// # Errors
    /// `GeneralError` when the library below fails.
    pub fn secret(&self) -> Result<SecurePrivateKey> {
        // SAFETY: `write_secret` hands a valid CBB, and the key is valid.
        pkey::write_secret(|cbb| unsafe { sys::RSA_marshal_private_key(cbb, rsa_of(&self.key)) })
            .map(SecurePrivateKey::new)
    }

    /// Encodes the key as PKCS #8 PrivateKeyInfo.
    ///
    /// # Errors
    /// As [`Self::secret`].
    pub fn to_pkcs8(&self) -> Result<SecureBytes> {
        pkey::marshal_private(&self.key)
    }

    /// Gives the public half.
    ///
    /// # Errors
    /// `HostMemory` when there is none left.
    pub fn public(&self) -> Result<PublicKey> {
        PublicKey::from_components(&modulus_of(&self.key)?, &exponent_of(&self.key)?)
    }

    /// Gives one secret number.
    ///
    /// # Errors
    /// `FunctionFailed` when the library below fails.
    pub fn component(&self, component: Component) -> Result<SecureBytes> {
        let get = match component {
            Component::PrivateExponent => sys::RSA_get0_d,
            Component::Prime1 => sys::RSA_get0_p,
            Component::Prime2 => sys::RSA_get0_q,
            Component::Exponent1 => sys::RSA_get0_dmp1,
            Component::Exponent2 => sys::RSA_get0_dmq1,
            Component::Coefficient => sys::RSA_get0_iqmp,
        };
        // SAFETY: the key is valid; the number is borrowed from it.
        let number = unsafe { get(rsa_of(&self.key)) };
        // SAFETY: every private key here was made with all its numbers.
        unsafe { bn::to_secret(number) }
    }

    /// Tells the length of the modulus in bits.
    pub fn bits(&self) -> usize {
        bits_of(&self.key)
    }

    /// Tells the length of the modulus, and so of a signature, in bytes.
    pub fn signature_len(&self) -> usize {
        self.bits().div_ceil(8)
    }

    /// Signs into `out`, which has exactly [`Self::signature_len`] bytes.
    ///
    /// # Errors
    /// `DataLenRange` for data that the padding does not take; `DataInvalid` for a bare number that is not below the modulus.
    pub fn sign(&self, padding: SignaturePadding, data: &[u8], out: &mut [u8]) -> Result<()> {
        let _pass = Pass::take();
        if out.len() != self.signature_len() {
            return Err(Error::internal("the room for an RSA signature has a wrong length"));
        }
        self.with_key(|| self.sign_padded(padding, data, out))
    }

    fn sign_padded(&self, padding: SignaturePadding, data: &[u8], out: &mut [u8]) -> Result<()> {
        match padding {
            SignaturePadding::None => self.sign_raw(left_padded(data, out.len())?.expose(), sys::RSA_NO_PADDING, out),
            SignaturePadding::Pkcs1 => {
                check_len(data, out.len() - 11)?;
                self.sign_raw(data, sys::RSA_PKCS1_PADDING, out)
            }
            SignaturePadding::Pkcs1Digest(hash) => self.sign_digest(hash, data, out),
            SignaturePadding::Pss(pss) => self.sign_pss(&pss, data, out),
        }
    }

    /// Decrypts.
    ///
    /// # Errors
    /// `EncryptedDataLenRange`, or `EncryptedDataInvalid` for everything else that is wrong with the ciphertext.
    pub fn decrypt(&self, padding: &EncryptionPadding, ciphertext: &[u8]) -> Result<SecureBytes> {
        let _pass = Pass::take();
        if ciphertext.len() != self.signature_len() {
            return Err(Error::from(Kind::EncryptedDataLenRange));
        }
        let mut out = SecureBytes::zeroed(ciphertext.len());
        let len = self.with_key(|| self.decrypt_padded(padding, ciphertext, out.expose_mut()))?;
        Ok(out.truncated(len))
    }

    /// Does a private operation. The first one, which goes well, leaves what AWS-LC keeps for the others: in locked memory.
    fn with_key<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.used.load(Ordering::Relaxed) {
            return work();
        }
        let done = memory::secret(work)?;
        self.used.store(true, Ordering::Relaxed);
        Ok(done)
    }

    fn decrypt_padded(&self, padding: &EncryptionPadding, ciphertext: &[u8], out: &mut [u8]) -> Result<usize> {
        match padding {
            EncryptionPadding::None => self.decrypt_with(sys::RSA_NO_PADDING, ciphertext, out),
            EncryptionPadding::Pkcs1 => self.decrypt_with(sys::RSA_PKCS1_PADDING, ciphertext, out),
            EncryptionPadding::Oaep { hash, mgf, label } => {
                let ctx = oaep_context(&self.key, sys::EVP_PKEY_decrypt_init, *hash, *mgf, label)?;
                run_oaep(&ctx, sys::EVP_PKEY_decrypt, ciphertext, out, Kind::EncryptedDataInvalid)
            }
        }
    }

    fn sign_raw(&self, data: &[u8], padding: c_int, out: &mut [u8]) -> Result<()> {
        let (mut len, room) = (0, out.len());
        let (rsa, from, to) = (rsa_of(&self.key), data.as_ptr(), out.as_mut_ptr());
        // SAFETY: the key is valid, `to` has `room` bytes, `from` is valid for its length.
        let code = unsafe { sys::RSA_sign_raw(rsa, &raw mut len, to, room, from, data.len(), padding) };
        check(code, Kind::DataInvalid)
    }

    fn sign_digest(&self, hash: Hash, digest: &[u8], out: &mut [u8]) -> Result<()> {
        check_digest(hash, digest)?;
        let mut len: c_uint = 0;
        let (rsa, from, to) = (rsa_of(&self.key), digest.as_ptr(), out.as_mut_ptr());
        // SAFETY: the key is valid, `to` has the length of the modulus, `from` is valid for its length.
        let code = unsafe { sys::RSA_sign(hash.nid(), from, digest.len(), to, &raw mut len, rsa) };
        check(code, Kind::FunctionFailed)
    }

    fn sign_pss(&self, pss: &Pss, digest: &[u8], out: &mut [u8]) -> Result<()> {
        check_digest(pss.hash, digest)?;
        let (mut len, salt) = (0, salt_len(pss, self.bits())?);
        let (rsa, from, to, room) = (rsa_of(&self.key), digest.as_ptr(), out.as_mut_ptr(), out.len());
        let (hash, mgf) = (pss.hash.evp(), pss.mgf.evp());
        // SAFETY: the key is valid, `to` has `room` bytes, `from` is valid for its length, the hashes are static.
        let code = unsafe { sys::RSA_sign_pss_mgf1(rsa, &raw mut len, to, room, from, digest.len(), hash, mgf, salt) };
        check(code, Kind::FunctionFailed)
    }

    fn decrypt_with(&self, padding: c_int, ciphertext: &[u8], out: &mut [u8]) -> Result<usize> {
        let mut len = 0;
        let (rsa, from, to, room) = (rsa_of(&self.key), ciphertext.as_ptr(), out.as_mut_ptr(), out.len());
        // SAFETY: the key is valid, `to` has `room` bytes, `from` is valid for its length.
        let code = unsafe { sys::RSA_decrypt(rsa, &raw mut len, to, room, from, ciphertext.len(), padding) };
        check(code, Kind::EncryptedDataInvalid)?;
        Ok(len)
    }
}

impl PublicKey {
    /// Makes a key from modulus and public exponent, and checks them.
    ///
    /// # Errors
    /// `AttributeValueInvalid` for a key that is out of range.
    pub fn from_components(modulus: &[u8], exponent: &[u8]) -> Result<Self> {
        let (n, e) = (bn::from_bytes(modulus)?, bn::from_bytes(exponent)?);
        // SAFETY: both numbers are valid and copied.
        let rsa = unsafe { sys::RSA_new_public_key(n.as_ptr(), e.as_ptr()) };
        // SAFETY: the result is new, or NULL, and owned by nobody else.
        let rsa = unsafe { Owned::new(rsa) };
        let rsa = rsa.map_err(|_| invalid("modulus and public exponent are no RSA public key"))?;
        check_size(&rsa)?;
        Ok(Self(wrap(&rsa)?))
    }

    /// Reads a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// `PublicKeyInvalid` for anything else; `AttributeValueInvalid` for a key of a wrong size.
    pub fn from_spki(der: &[u8]) -> Result<Self> {
        let key = pkey::parse_public(der)?;
        // SAFETY: the key is valid; the result is borrowed from it.
        let rsa = unsafe { sys::EVP_PKEY_get0_RSA(key.as_ptr()) };
        if rsa.is_null() {
            return Err(Error::new(Kind::PublicKeyInvalid, "the public key is no RSA key"));
        }
        check_bits(bits_of(&key))?;
        Ok(Self(key))
    }

    /// Encodes the key as SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// `GeneralError` when the library below fails.
    pub fn to_spki(&self) -> Result<Vec<u8>> {
        pkey::marshal_public(&self.0)
    }

    /// Gives the modulus without leading zeros.
    ///
    /// # Errors
    /// `FunctionFailed` when the library below fails.
    pub fn modulus(&self) -> Result<Vec<u8>> {
        modulus_of(&self.0)
    }

    /// Gives the public exponent without leading zeros.
    ///
    /// # Errors
    /// As [`Self::modulus`].
    pub fn exponent(&self) -> Result<Vec<u8>> {
        exponent_of(&self.0)
    }

    /// Tells the length of the modulus in bits.
    pub fn bits(&self) -> usize {
        bits_of(&self.0)
    }

    /// Tells the length of the modulus, and so of a signature, in bytes.
    pub fn signature_len(&self) -> usize {
        self.bits().div_ceil(8)
    }

    /// Verifies.
    ///
    /// # Errors
    /// `SignatureLenRange`, `SignatureInvalid`; `DataLenRange` for data that the padding does not take.
    pub fn verify(&self, padding: SignaturePadding, data: &[u8], signature: &[u8]) -> Result<()> {
        if signature.len() != self.signature_len() {
            return Err(Error::from(Kind::SignatureLenRange));
        }
        match padding {
            SignaturePadding::None => {
                self.verify_raw(left_padded(data, signature.len())?.expose(), sys::RSA_NO_PADDING, signature)
            }
            SignaturePadding::Pkcs1 => {
                check_len(data, signature.len() - 11)?;
                self.verify_raw(data, sys::RSA_PKCS1_PADDING, signature)
            }
            SignaturePadding::Pkcs1Digest(hash) => self.verify_digest(hash, data, signature),
            SignaturePadding::Pss(pss) => self.verify_pss(&pss, data, signature),
        }
    }

    /// Encrypts.
    ///
    /// # Errors
    /// `DataLenRange` for a message that is too long; `DataInvalid` for a bare number that is not below the modulus.
    pub fn encrypt(&self, padding: &EncryptionPadding, message: &[u8]) -> Result<Vec<u8>> {
        let _pass = Pass::take();
        let mut out = vec![0; self.signature_len()];
        check_len(message, padding.max_message(out.len()))?;
        match padding {
            EncryptionPadding::None => {
                let number = left_padded(message, out.len())?;
                self.encrypt_with(sys::RSA_NO_PADDING, number.expose(), &mut out)
            }
            EncryptionPadding::Pkcs1 => self.encrypt_with(sys::RSA_PKCS1_PADDING, message, &mut out),
            EncryptionPadding::Oaep { hash, mgf, label } => {
                let ctx = oaep_context(&self.0, sys::EVP_PKEY_encrypt_init, *hash, *mgf, label)?;
                run_oaep(&ctx, sys::EVP_PKEY_encrypt, message, &mut out, Kind::DataInvalid)
            }
        }?;
        Ok(out)
    }

    fn verify_raw(&self, data: &[u8], padding: c_int, signature: &[u8]) -> Result<()> {
        let mut recovered = [0; MAX_BITS / 8];
        let (mut len, room) = (0, recovered.len());
        let (rsa, from, to) = (rsa_of(&self.0), signature.as_ptr(), recovered.as_mut_ptr());
        // SAFETY: the key is valid, `to` has `room` bytes, `from` is valid for its length.
        let code = unsafe { sys::RSA_verify_raw(rsa, &raw mut len, to, room, from, signature.len(), padding) };
        check(code, Kind::SignatureInvalid)?;
        if recovered.get(..len) == Some(data) { Ok(()) } else { Err(Error::from(Kind::SignatureInvalid)) }
    }

    fn verify_digest(&self, hash: Hash, digest: &[u8], signature: &[u8]) -> Result<()> {
        check_digest(hash, digest)?;
        let (rsa, data, from) = (rsa_of(&self.0), digest.as_ptr(), signature.as_ptr());
        // SAFETY: the key is valid, `data` and `from` are valid for their lengths.
        let code = unsafe { sys::RSA_verify(hash.nid(), data, digest.len(), from, signature.len(), rsa) };
        check(code, Kind::SignatureInvalid)
    }

    fn verify_pss(&self, pss: &Pss, digest: &[u8], signature: &[u8]) -> Result<()> {
        check_digest(pss.hash, digest)?;
        let salt = salt_len(pss, self.bits())?;
        let (rsa, data, from, len) = (rsa_of(&self.0), digest.as_ptr(), signature.as_ptr(), signature.len());
        let (hash, mgf) = (pss.hash.evp(), pss.mgf.evp());
        // SAFETY: the key is valid, `data` and `from` are valid for their lengths, the hashes are static.
        let code = unsafe { sys::RSA_verify_pss_mgf1(rsa, data, digest.len(), hash, mgf, salt, from, len) };
        check(code, Kind::SignatureInvalid)
    }

    fn encrypt_with(&self, padding: c_int, message: &[u8], out: &mut [u8]) -> Result<usize> {
        let mut len = 0;
        let (rsa, from, to, room) = (rsa_of(&self.0), message.as_ptr(), out.as_mut_ptr(), out.len());
        // SAFETY: the key is valid, `to` has `room` bytes, `from` is valid for its length.
        let code = unsafe { sys::RSA_encrypt(rsa, &raw mut len, to, room, from, message.len(), padding) };
        check(code, Kind::DataInvalid)?;
        Ok(len)
    }
}

/// Makes the callback that lets forks through while a key is generated, which may take seconds.
fn watch_tries() -> Result<Owned<sys::BN_GENCB>> {
    // SAFETY: takes no argument.
    let watch = unsafe { sys::BN_GENCB_new() };
    // SAFETY: the result is new, or NULL, and owned by nobody else.
    let watch = unsafe { Owned::new(watch) }?;
    // SAFETY: the callback is valid, and `between_tries` asks for no argument.
    unsafe { sys::BN_GENCB_set(watch.as_ptr(), Some(between_tries), ptr::null_mut()) };
    Ok(watch)
}

/// Called between two candidates for a prime, when AWS-LC holds no lock.
unsafe extern "C" fn between_tries(_event: c_int, _number: c_int, _watch: *mut sys::BN_GENCB) -> c_int {
    runtime::give_way();
    1
}

fn invalid(text: &'static str) -> Error {
    Error::new(Kind::AttributeValueInvalid, text)
}

fn check_generated(bits: usize, exponent: &[u8]) -> Result<()> {
    // AWS-LC rounds other lengths down in silence, and refuses exponents above 32 bits.
    if !(MIN_BITS..=MAX_BITS).contains(&bits) || !bits.is_multiple_of(128) {
        return Err(invalid("an RSA key has 2048 to 4096 bits, a multiple of 128"));
    }
    let odd = exponent.last().is_some_and(|byte| !byte.is_multiple_of(2));
    let large = exponent.len() == 4 || (exponent.len() == 3 && exponent >= DEFAULT_EXPONENT);
    if odd && large { Ok(()) } else { Err(invalid("the public exponent must be odd, from 65537 to 2^32 - 1")) }
}

fn check_size(rsa: &Owned<sys::RSA>) -> Result<()> {
    // SAFETY: the key is valid.
    let bits = unsafe { sys::RSA_bits(rsa.as_ptr()) };
    check_bits(usize::try_from(bits).expect("a usize is at least as wide as a C int"))
}

fn check_bits(bits: usize) -> Result<()> {
    if (MIN_BITS..=MAX_BITS).contains(&bits) { Ok(()) } else { Err(invalid("an RSA key must have 2048 to 4096 bits")) }
}

fn check_len(data: &[u8], max: usize) -> Result<()> {
    if data.len() <= max { Ok(()) } else { Err(Error::from(Kind::DataLenRange)) }
}

fn check_digest(hash: Hash, digest: &[u8]) -> Result<()> {
    if digest.len() == hash.len() { Ok(()) } else { Err(Error::from(Kind::DataLenRange)) }
}

fn salt_len(pss: &Pss, bits: usize) -> Result<c_int> {
    let bad = || Error::new(Kind::MechanismParamInvalid, "the PSS salt is too long for the key");
    if pss.fits(bits) { c_int::try_from(pss.salt_len).map_err(|_| bad()) } else { Err(bad()) }
}

/// Puts zeros in front of a number, up to the length of the modulus.
fn left_padded(data: &[u8], len: usize) -> Result<SecureBytes> {
    check_len(data, len)?;
    let mut padded = SecureBytes::zeroed(len);
    padded.expose_mut().iter_mut().rev().zip(data.iter().rev()).for_each(|(to, from)| *to = *from);
    Ok(padded)
}

fn wrap(rsa: &Owned<sys::RSA>) -> Result<Owned<sys::EVP_PKEY>> {
    // SAFETY: takes no argument.
    let key = unsafe { sys::EVP_PKEY_new() };
    // SAFETY: the result is new, or NULL, and owned by nobody else.
    let key = unsafe { Owned::new(key) }?;
    // SAFETY: both are valid; the key takes a reference of its own.
    let code = unsafe { sys::EVP_PKEY_set1_RSA(key.as_ptr(), rsa.as_ptr()) };
    check(code, Kind::GeneralError)?;
    Ok(key)
}

fn rsa_of(key: &Owned<sys::EVP_PKEY>) -> *mut sys::RSA {
    // SAFETY: every key of this file holds an RSA key; the result is borrowed from it.
    unsafe { sys::EVP_PKEY_get0_RSA(key.as_ptr()) }
}

fn bits_of(key: &Owned<sys::EVP_PKEY>) -> usize {
    // SAFETY: the key is valid.
    let bits = unsafe { sys::RSA_bits(rsa_of(key)) };
    usize::try_from(bits).expect("a usize is at least as wide as a C int")
}

fn modulus_of(key: &Owned<sys::EVP_PKEY>) -> Result<Vec<u8>> {
    // SAFETY: the key is valid; the number is borrowed from it.
    let number = unsafe { sys::RSA_get0_n(rsa_of(key)) };
    // SAFETY: every key has a modulus.
    unsafe { bn::to_vec(number) }
}

fn exponent_of(key: &Owned<sys::EVP_PKEY>) -> Result<Vec<u8>> {
    // SAFETY: the key is valid; the number is borrowed from it.
    let number = unsafe { sys::RSA_get0_e(rsa_of(key)) };
    // SAFETY: every key here was made with a public exponent.
    unsafe { bn::to_vec(number) }
}

fn given_or(
    given: Option<&SecureBytes>,
    compute: impl FnOnce() -> Result<Owned<sys::BIGNUM>>,
) -> Result<Owned<sys::BIGNUM>> {
    given.map_or_else(compute, |bytes| bn::from_bytes(bytes.expose()))
}

/// Computes d mod (prime − 1).
fn reduced(d: &Owned<sys::BIGNUM>, prime: &Owned<sys::BIGNUM>) -> Result<Owned<sys::BIGNUM>> {
    let (less, out) = (bn::from_bytes(&[])?, bn::from_bytes(&[])?);
    let ctx = Context::new()?;
    // SAFETY: takes no argument and gives a static number.
    let one = unsafe { sys::BN_value_one() };
    // SAFETY: every number is valid.
    check(unsafe { sys::BN_sub(less.as_ptr(), prime.as_ptr(), one) }, Kind::AttributeValueInvalid)?;
    // SAFETY: as above; division by zero is an error of its own.
    let code = unsafe { sys::BN_nnmod(out.as_ptr(), d.as_ptr(), less.as_ptr(), ctx.0) };
    check(code, Kind::AttributeValueInvalid)?;
    Ok(out)
}

/// Computes the inverse of q mod p.
fn inverse(q: &Owned<sys::BIGNUM>, p: &Owned<sys::BIGNUM>) -> Result<Owned<sys::BIGNUM>> {
    let ctx = Context::new()?;
    // SAFETY: every number is valid.
    let out = unsafe { sys::BN_mod_inverse(ptr::null_mut(), q.as_ptr(), p.as_ptr(), ctx.0) };
    // SAFETY: the result is new, or NULL, and owned by nobody else.
    let out = unsafe { Owned::new(out) };
    out.map_err(|_| invalid("the primes of the RSA private key are wrong"))
}

/// Scratch space for big-integer work.
struct Context(*mut sys::BN_CTX);

impl Context {
    fn new() -> Result<Self> {
        // SAFETY: takes no argument; the result is owned by nobody else.
        let ctx = unsafe { sys::BN_CTX_new() };
        if ctx.is_null() { Err(Error::from(Kind::HostMemory)) } else { Ok(Self(ctx)) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is owned and this is its last use.
        unsafe { sys::BN_CTX_free(self.0) }
    }
}

fn oaep_context(
    key: &Owned<sys::EVP_PKEY>,
    init: unsafe extern "C" fn(*mut sys::EVP_PKEY_CTX) -> c_int,
    hash: Hash,
    mgf: Hash,
    label: &[u8],
) -> Result<Owned<sys::EVP_PKEY_CTX>> {
    // SAFETY: the key is valid and no engine is used.
    let ctx = unsafe { sys::EVP_PKEY_CTX_new(key.as_ptr(), ptr::null_mut()) };
    // SAFETY: the result is new, or NULL, and owned by nobody else.
    let ctx = unsafe { Owned::new(ctx) }?;
    // SAFETY: the context is valid.
    check(unsafe { init(ctx.as_ptr()) }, Kind::FunctionFailed)?;
    let padding = sys::RSA_PKCS1_OAEP_PADDING;
    // SAFETY: the context is initialised.
    check(unsafe { sys::EVP_PKEY_CTX_set_rsa_padding(ctx.as_ptr(), padding) }, Kind::FunctionFailed)?;
    // SAFETY: as above, and the hash is static.
    check(unsafe { sys::EVP_PKEY_CTX_set_rsa_oaep_md(ctx.as_ptr(), hash.evp()) }, Kind::MechanismParamInvalid)?;
    // SAFETY: as above.
    check(unsafe { sys::EVP_PKEY_CTX_set_rsa_mgf1_md(ctx.as_ptr(), mgf.evp()) }, Kind::MechanismParamInvalid)?;
    if !label.is_empty() {
        set_label(&ctx, label)?;
    }
    Ok(ctx)
}

fn set_label(ctx: &Owned<sys::EVP_PKEY_CTX>, label: &[u8]) -> Result<()> {
    // SAFETY: `label` is valid for its length; the copy is owned by nobody else.
    let copy = unsafe { sys::OPENSSL_memdup(label.as_ptr().cast(), label.len()) };
    if copy.is_null() {
        return Err(Error::from(Kind::HostMemory));
    }
    // SAFETY: the context is initialised and takes the copy over when it answers 1.
    let code = unsafe { sys::EVP_PKEY_CTX_set0_rsa_oaep_label(ctx.as_ptr(), copy.cast(), label.len()) };
    if code != 1 {
        // SAFETY: the copy was not taken over, and this is its last use.
        unsafe { sys::OPENSSL_free(copy) };
    }
    check(code, Kind::MechanismParamInvalid)
}

/// AWS-LC's `EVP_PKEY_encrypt` and `EVP_PKEY_decrypt`.
type OaepStep = unsafe extern "C" fn(*mut sys::EVP_PKEY_CTX, *mut u8, *mut usize, *const u8, usize) -> c_int;

fn run_oaep(
    ctx: &Owned<sys::EVP_PKEY_CTX>,
    step: OaepStep,
    input: &[u8],
    out: &mut [u8],
    failure: Kind,
) -> Result<usize> {
    let mut len = out.len();
    // SAFETY: the context is initialised, `out` has `len` bytes, `input` is valid for its length.
    let code = unsafe { step(ctx.as_ptr(), out.as_mut_ptr(), &raw mut len, input.as_ptr(), input.len()) };
    check(code, failure)?;
    Ok(len)
}
