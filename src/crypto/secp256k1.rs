//! ECDSA and ECDH on secp256k1 (SEC 2), with deterministic nonces (RFC 6979) and low-S signatures (BIP 62).

use std::sync::atomic::{AtomicBool, Ordering};

use k256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use k256::ecdsa::{RecoveryId, Signature, SigningKey, VerifyingKey};
use k256::elliptic_curve::sec1::ToSec1Point;
use k256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use k256::{NonZeroScalar, ProjectivePoint, Scalar, SecretKey};

use super::{bn, pkey, random};
use crate::error::{Error, Kind, Result};
use crate::runtime::Pass;
use crate::secret::{SecureBytes, SecurePrivateKey, wiping_stack};

/// The length of a coordinate, and of a scalar, in bytes.
pub const LEN: usize = 32;
/// The length of a signature in bytes.
pub const SIGNATURE_LEN: usize = 64;

/// Lets k256 work out its multiples of the base point, which it does once in a process and under a lock, while no fork goes on: a
/// child that is forked in the midst of it would wait for a thread that it has not got. Every key passes here before it is used.
fn prepare() {
    static PREPARED: AtomicBool = AtomicBool::new(false);
    if !PREPARED.load(Ordering::Acquire) {
        let _pass = Pass::take();
        std::hint::black_box(ProjectivePoint::mul_by_generator(&Scalar::ONE));
        PREPARED.store(true, Ordering::Release);
    }
}

/// A private key, in locked memory.
pub struct PrivateKey(Kept);

/// A public key.
pub struct PublicKey(VerifyingKey);

/// A key of k256 in locked memory. It is plain data, so that wiping the memory is all that there is to drop.
struct Kept(SecureBytes);

impl Kept {
    fn new(key: SigningKey) -> Self {
        const { assert!(align_of::<SigningKey>() <= 16) };
        let mut memory = SecureBytes::zeroed(size_of::<SigningKey>());
        // SAFETY: the memory has the key's size and, as all that holds more than 16 bytes, its alignment.
        unsafe { memory.expose_mut().as_mut_ptr().cast::<SigningKey>().write(key) };
        Self(memory)
    }

    fn key(&self) -> &SigningKey {
        // SAFETY: a key stands there from the beginning, and nothing else is ever written.
        unsafe { &*self.0.expose().as_ptr().cast::<SigningKey>() }
    }
}

impl PrivateKey {
    /// Generates a key with AWS-LC's random generator.
    ///
    /// # Errors
    /// `GeneralError` when the generator fails.
    pub fn generate() -> Result<Self> {
        loop {
            let candidate = random::secure(LEN)?;
            // One candidate in 2^128 is 0 or not below the order.
            if let Ok(key) = Self::from_scalar(candidate.expose()) {
                return Ok(key);
            }
        }
    }

    /// Makes a key from its scalar, with or without leading zeros.
    ///
    /// # Errors
    /// `AttributeValueInvalid` for a scalar that is 0 or not below the order of the curve.
    pub fn from_scalar(scalar: &[u8]) -> Result<Self> {
        let bad = || {
            let text = "the private value must be above 0 and below the order of the curve";
            Error::new(Kind::AttributeValueInvalid, text)
        };
        prepare();
        let trimmed = bn::trim(scalar);
        let zeros = LEN.checked_sub(trimmed.len()).ok_or_else(bad)?;
        let mut padded = SecureBytes::zeroed(LEN);
        padded.expose_mut().iter_mut().skip(zeros).zip(trimmed).for_each(|(to, from)| *to = *from);
        wiping_stack(|| SigningKey::from_slice(padded.expose()).map(Kept::new)).map(Self).map_err(|_| bad())
    }

    /// Reads the encoding of [`Self::secret`], at full width.
    ///
    /// # Errors
    /// As [`Self::from_scalar`].
    pub fn from_secret(secret: &SecurePrivateKey) -> Result<Self> {
        if secret.expose().len() != LEN {
            return Err(Error::new(Kind::AttributeValueInvalid, "the secret is no scalar of this curve"));
        }
        Self::from_scalar(secret.expose())
    }

    /// Reads a PKCS #8 PrivateKeyInfo.
    ///
    /// # Errors
    /// `WrappedKeyInvalid` for anything else.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self> {
        prepare();
        wiping_stack(|| SecretKey::from_pkcs8_der(der).map(|key| Self(Kept::new(SigningKey::from(&key)))))
            .map_err(|_| pkey::wrapped_invalid("holds a key on secp256k1"))
    }

    /// Encodes the secret: the scalar in big-endian at full width.
    ///
    /// # Errors
    /// None; the other families' functions can fail.
    pub fn secret(&self) -> Result<SecurePrivateKey> {
        let mut bytes = self.0.key().to_bytes();
        let secret = SecureBytes::copy_from(&bytes);
        zeroize::Zeroize::zeroize(bytes.as_mut_slice());
        Ok(SecurePrivateKey::new(secret))
    }

    /// Encodes the key as PKCS #8 PrivateKeyInfo, with its public key.
    ///
    /// # Errors
    /// `GeneralError` when the library below fails.
    pub fn to_pkcs8(&self) -> Result<SecureBytes> {
        let key = SecretKey::from(self.scalar());
        let document = key.to_pkcs8_der().map_err(|_| Error::internal("a secp256k1 key has no PKCS #8 encoding"))?;
        Ok(SecureBytes::copy_from(document.as_bytes()))
    }

    /// Gives the public half.
    ///
    /// # Errors
    /// None; the other families' functions can fail.
    pub fn public(&self) -> Result<PublicKey> {
        Ok(PublicKey(*self.0.key().verifying_key()))
    }

    /// Signs a digest into `out` as r ‖ s with a low s. Of a longer digest the leftmost 256 bits count.
    ///
    /// # Errors
    /// `FunctionFailed` when the library below fails.
    pub fn sign(&self, digest: &[u8], out: &mut [u8]) -> Result<()> {
        let signature: Signature =
            self.0.key().sign_prehash(&representative(digest)).map_err(|_| Error::from(Kind::FunctionFailed))?;
        put(&signature, out)
    }

    /// Signs as [`Self::sign`], and gives the number (0 or 1; 2 or 3 with an overflown r) that finds the public key back.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub fn sign_recoverable(&self, digest: &[u8], out: &mut [u8]) -> Result<u8> {
        let (signature, recovery) = self.0.key().sign_prehash_recoverable(&representative(digest));
        put(&signature, out)?;
        Ok(recovery.to_byte())
    }

    /// Agrees on a secret with the owner of a point (SEC 1, compressed or not): its x-coordinate at full width.
    ///
    /// # Errors
    /// `PublicKeyInvalid` for a point that is not on the curve.
    pub fn agree(&self, peer: &[u8]) -> Result<SecureBytes> {
        let peer = k256::PublicKey::from_sec1_bytes(peer).map_err(|_| Error::from(Kind::PublicKeyInvalid))?;
        let shared = k256::ecdh::diffie_hellman(self.scalar(), peer.as_affine());
        Ok(SecureBytes::copy_from(shared.raw_secret_bytes()))
    }

    fn scalar(&self) -> &NonZeroScalar {
        self.0.key().as_nonzero_scalar()
    }
}

/// Brings a signature to the lower of its two values of s (BIP 146), as everything here makes it.
///
/// # Errors
/// `SignatureInvalid` for bytes that are no signature of this curve.
pub fn normalize(signature: &mut [u8]) -> Result<()> {
    let lower = Signature::from_slice(signature).map_err(|_| Error::from(Kind::SignatureInvalid))?.normalize_s();
    signature.copy_from_slice(&lower.to_bytes());
    Ok(())
}

impl PublicKey {
    /// Makes a key from its point (SEC 1, 2.3.4), compressed or not, which must be on the curve and not at infinity.
    ///
    /// # Errors
    /// `AttributeValueInvalid` for any other point.
    pub fn from_point(point: &[u8]) -> Result<Self> {
        prepare();
        let key = VerifyingKey::from_sec1_bytes(point);
        key.map(Self).map_err(|_| Error::new(Kind::AttributeValueInvalid, "the point is not on the curve"))
    }

    /// Reads a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// `PublicKeyInvalid` for anything else.
    pub fn from_spki(der: &[u8]) -> Result<Self> {
        prepare();
        let key = VerifyingKey::from_public_key_der(der);
        key.map(Self).map_err(|_| Error::new(Kind::PublicKeyInvalid, "the public key is not on secp256k1"))
    }

    /// Encodes the key as SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// `GeneralError` when the library below fails.
    pub fn to_spki(&self) -> Result<Vec<u8>> {
        let document = k256::PublicKey::from(&self.0).to_public_key_der();
        document.map(|der| der.into_vec()).map_err(|_| Error::internal("a secp256k1 key has no SubjectPublicKeyInfo"))
    }

    /// Gives the point, uncompressed.
    ///
    /// # Errors
    /// None; the other families' functions can fail.
    pub fn point(&self) -> Result<Vec<u8>> {
        Ok(self.0.as_affine().to_sec1_point(false).as_bytes().to_vec())
    }

    /// Verifies r ‖ s over a digest; a high s is as good as a low one.
    ///
    /// # Errors
    /// `SignatureLenRange`, `SignatureInvalid`.
    pub fn verify(&self, digest: &[u8], signature: &[u8]) -> Result<()> {
        if signature.len() != SIGNATURE_LEN {
            return Err(Error::from(Kind::SignatureLenRange));
        }
        let invalid = |_| Error::from(Kind::SignatureInvalid);
        let signature = Signature::from_slice(signature).map_err(invalid)?.normalize_s();
        self.0.verify_prehash(&representative(digest), &signature).map_err(invalid)
    }
}

/// Brings a signature over a digest to its lower s, and finds the number by which it tells this public key, in that form.
///
/// # Errors
/// `SignatureInvalid` when it is none of this key over this digest.
pub fn recovery(key: &PublicKey, digest: &[u8], signature: &mut [u8]) -> Result<u8> {
    normalize(signature)?;
    let signature = Signature::from_slice(signature).map_err(|_| Error::from(Kind::SignatureInvalid))?;
    let digest = representative(digest);
    let tells = |number: &u8| {
        let number = RecoveryId::from_byte(*number)?;
        VerifyingKey::recover_from_prehash(&digest, &signature, number).ok()
    };
    (0..=RecoveryId::MAX).find(|number| tells(number) == Some(key.0)).ok_or_else(|| Kind::SignatureInvalid.into())
}

/// Brings a digest to 32 bytes: the leftmost ones of a longer, zeros in front of a shorter (FIPS 186-5, 6.4.1).
fn representative(digest: &[u8]) -> [u8; LEN] {
    let mut out = [0; LEN];
    let zeros = LEN.saturating_sub(digest.len());
    out.iter_mut().skip(zeros).zip(digest).for_each(|(to, from)| *to = *from);
    out
}

fn put(signature: &Signature, out: &mut [u8]) -> Result<()> {
    let out: &mut [u8; SIGNATURE_LEN] =
        out.try_into().map_err(|_| Error::internal("the room for an ECDSA signature has a wrong length"))?;
    out.copy_from_slice(&signature.to_bytes());
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The same signature with the other of its two values of s.
    fn high(signature: &[u8]) -> Vec<u8> {
        let low = Signature::from_slice(signature).unwrap();
        let (r, s) = low.split_scalars();
        Signature::from_scalars(r.to_bytes(), (-s).to_bytes()).unwrap().to_bytes().to_vec()
    }

    #[test]
    fn r30_a_thousand_keys_are_recovered_from_low_and_high_s() {
        let mut numbers = [0_u32; 4];
        for round in 0_u32..1000 {
            let key = PrivateKey::generate().unwrap();
            let (public, digest) =
                (key.public().unwrap(), super::super::hash::Hash::Sha256.digest(&round.to_be_bytes()).unwrap());
            let mut signature = [0; SIGNATURE_LEN];
            let told = key.sign_recoverable(&digest, &mut signature).unwrap();
            let lower = signature;
            assert_eq!(recovery(&public, &digest, &mut signature).unwrap(), told, "{round}");
            assert_eq!(signature, lower, "a signature of ours has the lower s");
            let mut other = high(&signature);
            assert_ne!(other, signature);
            assert_eq!(recovery(&public, &digest, &mut other).unwrap(), told, "v belongs to the lower s");
            assert_eq!(other, signature);
            *numbers.get_mut(usize::from(told)).unwrap() += 1;
        }
        let [zeros, ones, rest @ ..] = numbers;
        assert!(zeros > 400 && ones > 400 && rest == [0, 0], "{numbers:?}");
    }

    #[test]
    fn r30_a_signature_of_another_key_or_digest_tells_nothing() {
        let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let mut signature = [0; SIGNATURE_LEN];
        key.sign(&[1; 32], &mut signature).unwrap();
        for (public, digest) in [(other.public().unwrap(), [1; 32]), (key.public().unwrap(), [2; 32])] {
            assert_eq!(recovery(&public, &digest, &mut signature).unwrap_err().kind(), Kind::SignatureInvalid);
        }
        assert_eq!(
            recovery(&key.public().unwrap(), &[1; 32], &mut [0; SIGNATURE_LEN]).unwrap_err().kind(),
            Kind::SignatureInvalid
        );
    }
}
