//! Keys whose private or secret part lives in a KMS: what the families ask of them.
//!
//! The rules are:
//! - the service makes the signature; what comes back is brought to the standard's form and verified before anybody sees it
//!
//! - a length query never asks the service.

use der::asn1::{ObjectIdentifier, OctetStringRef};
use der::{Decode, Sequence};
use subtle::ConstantTimeEq;

use super::key::{Key, KeyType};
use super::mechanism::Params;
use super::signature::{Signer, Verifier};
use crate::ck::Attributes;
use crate::crypto::hash::Hash;
use crate::crypto::rsa::{EncryptionPadding, SignaturePadding};
use crate::error::{Error, Kind, Result};
use crate::secret::SecureBytes;

/// What a service is asked to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteScheme {
    /// ECDSA over a digest.
    Ecdsa,
    /// Ed25519 over a message.
    Ed25519,
    /// RSASSA-PKCS1-v1_5 over a digest by this hash.
    RsaPkcs1(Hash),
    /// RSASSA-PSS over a digest by this hash, with MGF1 by the same hash and a salt of the hash's length.
    RsaPss(Hash),
}

/// What a KMS must be able to do for a mechanism to work with a key that lives there.
#[derive(Debug, Clone, Copy)]
pub enum RemoteUse {
    /// Make such a key, as parameters and public template ask for it.
    Generate(fn(&Params, &Attributes) -> Result<RemoteKind>),
    /// ECDSA.
    Ecdsa,
    /// Ed25519.
    Ed25519,
    /// RSASSA-PKCS1-v1_5 with this hash, or with one that the input names.
    RsaPkcs1(Option<Hash>),
    /// RSASSA-PSS with this hash, or with one that the parameters name.
    RsaPss(Option<Hash>),
    /// RSAES-OAEP.
    RsaOaep,
    /// HMAC with this hash.
    Mac(Hash),
}

/// A kind of key that a KMS is asked to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteKind {
    /// RSA with a modulus of so many bits.
    Rsa(u32),
    /// On NIST P-256.
    P256,
    /// On NIST P-384.
    P384,
    /// On NIST P-521.
    P521,
    /// On secp256k1.
    Secp256k1,
    /// Ed25519.
    Ed25519,
    /// For HMAC, of so many bytes.
    Hmac(u64),
}

/// One key of a service, as `keys/remote.rs` reaches it.
pub trait RemoteService: Send + Sync {
    /// Signs a digest or a message; an ECDSA signature comes as r and s at full width.
    ///
    /// # Errors
    /// `DeviceError` when the service fails; `FunctionNotSupported` for what it does not do with this key.
    fn sign(&self, scheme: RemoteScheme, input: &[u8]) -> Result<Vec<u8>>;

    /// Decrypts with an RSA key.
    ///
    /// # Errors
    /// As [`Self::sign`].
    fn decrypt(&self, padding: &EncryptionPadding, ciphertext: &[u8]) -> Result<SecureBytes>;

    /// Makes an HMAC of a message.
    ///
    /// # Errors
    /// As [`Self::sign`].
    fn mac(&self, hash: Hash, message: &[u8]) -> Result<Vec<u8>>;
}

/// A key that lives in a service: how it is reached, and its public part.
pub struct RemoteKey {
    service: Box<dyn RemoteService>,
    /// `None` for MAC keys.
    public: Option<Key>,
}

impl RemoteKey {
    /// Makes a key of a type from the attributes of its object, which tell the public part.
    ///
    /// # Errors
    /// `AttributeValueInvalid` when they do not.
    pub fn new(key_type: &KeyType, attributes: &Attributes, service: Box<dyn RemoteService>) -> Result<Self> {
        let public = key_type.public_key.map(|parse| parse(attributes)).transpose()?;
        Ok(Self { service, public })
    }

    /// Tells the length of a signature in bytes; 0 for MAC keys.
    pub fn signature_len(&self) -> usize {
        match &self.public {
            Some(Key::RsaPublic(key)) => key.signature_len(),
            Some(Key::EcPublic(key)) => key.signature_len(),
            Some(Key::Secp256k1Public(_)) => crate::crypto::secp256k1::SIGNATURE_LEN,
            Some(Key::Ed25519Public(_)) => crate::crypto::ed::SIGNATURE_LEN,
            _ => 0,
        }
    }

    /// Tells the size of an RSA modulus in bits; 0 for other keys.
    pub fn bits(&self) -> usize {
        if let Some(Key::RsaPublic(key)) = &self.public { key.bits() } else { 0 }
    }

    /// Signs a digest by ECDSA into `out`; on secp256k1 with the lower of both values of s.
    ///
    /// # Errors
    /// As [`RemoteService::sign`]; `DeviceError` for a signature that does not verify.
    pub fn sign_ecdsa(&self, digest: &[u8], out: &mut [u8]) -> Result<()> {
        let mut signature = self.service.sign(RemoteScheme::Ecdsa, digest)?;
        let verified = match &self.public {
            Some(Key::EcPublic(key)) => key.verify(digest, &signature),
            Some(Key::Secp256k1Public(key)) => {
                crate::crypto::secp256k1::normalize(&mut signature).and_then(|()| key.verify(digest, &signature))
            }
            _ => return Err(Key::wrong_type()),
        };
        put(verified, &signature, out)
    }

    /// Signs a message by Ed25519 into `out`.
    ///
    /// # Errors
    /// As [`Self::sign_ecdsa`].
    pub fn sign_ed25519(&self, message: &[u8], out: &mut [u8]) -> Result<()> {
        let Some(Key::Ed25519Public(key)) = &self.public else { return Err(Key::wrong_type()) };
        let signature = self.service.sign(RemoteScheme::Ed25519, message)?;
        put(key.verify(&crate::crypto::ed::Scheme::Pure, message, &signature), &signature, out)
    }

    /// Signs by RSA into `out`.
    ///
    /// # Errors
    /// As [`Self::sign_ecdsa`]; `MechanismParamInvalid` for a padding that no service has.
    pub fn sign_rsa(&self, padding: SignaturePadding, input: &[u8], out: &mut [u8]) -> Result<()> {
        let Some(Key::RsaPublic(key)) = &self.public else { return Err(Key::wrong_type()) };
        let signature = match padding {
            SignaturePadding::Pkcs1Digest(hash) => self.service.sign(RemoteScheme::RsaPkcs1(hash), input)?,
            SignaturePadding::Pkcs1 => {
                let (hash, digest) = read_digest_info(input)?;
                self.service.sign(RemoteScheme::RsaPkcs1(hash), digest)?
            }
            SignaturePadding::Pss(pss) if pss.mgf == pss.hash && pss.salt_len == pss.hash.len() => {
                self.service.sign(RemoteScheme::RsaPss(pss.hash), input)?
            }
            SignaturePadding::Pss(_) | SignaturePadding::None => {
                return Err(Error::new(
                    Kind::MechanismParamInvalid,
                    "a key in a KMS signs by PKCS #1 v1.5, or by PSS with one hash for both uses and a salt of the hash's length",
                ));
            }
        };
        put(key.verify(padding, input, &signature), &signature, out)
    }

    /// Decrypts by RSA.
    ///
    /// # Errors
    /// As [`RemoteService::decrypt`].
    pub fn decrypt(&self, padding: &EncryptionPadding, ciphertext: &[u8]) -> Result<SecureBytes> {
        self.service.decrypt(padding, ciphertext)
    }
}

/// Hands out a signature that verifies.
fn put(verified: Result<()>, signature: &[u8], out: &mut [u8]) -> Result<()> {
    verified.map_err(|error| {
        Error::device("the KMS answered with a signature that does not verify under the key's public key")
            .caused_by(error)
    })?;
    if signature.len() != out.len() {
        return Err(Error::device("the KMS answered with a signature of another length"));
    }
    out.copy_from_slice(signature);
    Ok(())
}

/// An HMAC key in a service, with the hash of the mechanism and the length that is asked for.
pub struct RemoteMac {
    key: std::sync::Arc<Key>,
    hash: Hash,
    len: usize,
}

impl RemoteMac {
    /// Makes a MAC of `len` bytes.
    pub fn new(key: std::sync::Arc<Key>, hash: Hash, len: usize) -> Self {
        Self { key, hash, len }
    }

    fn mac(&self, message: &[u8]) -> Result<Vec<u8>> {
        let Key::Remote(key) = &*self.key else { return Err(Key::wrong_type()) };
        let mut mac = key.service.mac(self.hash, message)?;
        if mac.len() != self.hash.len() {
            return Err(Error::device("the KMS answered with a MAC of another length"));
        }
        mac.truncate(self.len);
        Ok(mac)
    }
}

impl Signer for RemoteMac {
    fn signature_len(&self) -> usize {
        self.len
    }

    fn sign(&self, input: &[u8], out: &mut [u8]) -> Result<()> {
        out.copy_from_slice(&self.mac(input)?);
        Ok(())
    }
}

impl Verifier for RemoteMac {
    fn verify(&self, input: &[u8], signature: &[u8]) -> Result<()> {
        if signature.len() != self.len {
            return Err(Error::new(Kind::SignatureLenRange, format!("this MAC has {} bytes", self.len)));
        }
        match bool::from(self.mac(input)?.ct_eq(signature)) {
            true => Ok(()),
            false => Err(Error::from(Kind::SignatureInvalid)),
        }
    }
}

/// `DigestInfo` (RFC 8017, 9.2).
#[derive(Sequence)]
struct DigestInfo<'a> {
    algorithm: Algorithm<'a>,
    digest: &'a OctetStringRef,
}

/// `AlgorithmIdentifier` of a hash: its parameters are NULL, or absent.
#[derive(Sequence)]
struct Algorithm<'a> {
    oid: ObjectIdentifier,
    parameters: Option<der::AnyRef<'a>>,
}

/// The hashes by their object identifiers (RFC 8017, B.1).
const HASHES: &[(ObjectIdentifier, Hash)] = &[
    (ObjectIdentifier::new_unwrap("1.3.14.3.2.26"), Hash::Sha1),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.4"), Hash::Sha224),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"), Hash::Sha256),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"), Hash::Sha384),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"), Hash::Sha512),
];

/// Takes hash and digest out of what callers of CKM_RSA_PKCS sign: no service signs it as it is.
fn read_digest_info(input: &[u8]) -> Result<(Hash, &[u8])> {
    let wrong = || {
        let text = "a key in a KMS signs a DigestInfo of SHA-1 or SHA-2 by CKM_RSA_PKCS, and nothing else";
        Error::new(Kind::DataInvalid, text)
    };
    let DigestInfo { algorithm, digest } = DigestInfo::from_der(input).map_err(|error| wrong().caused_by(error))?;
    let hash = HASHES.iter().find(|row| row.0 == algorithm.oid).map(|row| row.1).ok_or_else(wrong)?;
    let is_null = algorithm.parameters.is_none_or(|parameters| parameters == der::AnyRef::NULL);
    if !is_null || digest.as_bytes().len() != hash.len() {
        return Err(wrong());
    }
    Ok((hash, digest.as_bytes()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_info_is_taken_apart_and_anything_else_refused() {
        let sha256 = data_encoding::HEXLOWER.decode(b"3031300d060960864801650304020105000420").unwrap();
        let info = [&sha256[..], &[7; 32]].concat();
        assert_eq!(read_digest_info(&info).unwrap(), (Hash::Sha256, &[7; 32][..]));
        for bad in [&info[..50], &[7; 32], b"", &[&info[..], &[0]].concat()] {
            assert_eq!(read_digest_info(bad).unwrap_err().kind(), Kind::DataInvalid);
        }
        let mut unknown = info.clone();
        if let Some(byte) = unknown.get_mut(14) {
            *byte = 9;
        }
        assert_eq!(read_digest_info(&unknown).unwrap_err().kind(), Kind::DataInvalid);
    }
}
