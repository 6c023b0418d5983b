//! Ed25519, Ed25519ctx and Ed25519ph (RFC 8032).

use aws_lc_sys as sys;

use super::lc::check;
use super::pkey;
use crate::error::{Error, Kind, Result};
use crate::runtime::Pass;
use crate::secret::{SecureBytes, SecurePrivateKey};

/// The length of a seed, and of a public key, in bytes.
pub const LEN: usize = 32;
/// The length of a signature in bytes.
pub const SIGNATURE_LEN: usize = 64;

unsafe extern "C" {
    /// AWS-LC exports this check of a point, but aws-lc-sys does not declare it.
    #[link_name = "aws_lc_0_47_0_ED25519_check_public_key"]
    fn check_public_key(key: *const u8) -> std::ffi::c_int;
}

/// One of the three schemes of RFC 8032 over this curve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scheme {
    /// Ed25519.
    Pure,
    /// Ed25519ctx with this context, of 1 to 255 bytes.
    Context(Vec<u8>),
    /// Ed25519ph with this context, of 0 to 255 bytes.
    Prehash(Vec<u8>),
}

/// A private key: the seed, and the public key behind it.
pub struct PrivateKey(SecureBytes);

/// A public key.
pub struct PublicKey([u8; LEN]);

impl PrivateKey {
    /// Generates a key.
    ///
    /// # Errors
    /// None; the other families' functions can fail.
    pub fn generate() -> Result<Self> {
        let _pass = Pass::take();
        let mut both = SecureBytes::zeroed(2 * LEN);
        let mut public = [0; LEN];
        // SAFETY: the targets have 32 and 64 bytes.
        unsafe { sys::ED25519_keypair(public.as_mut_ptr(), both.expose_mut().as_mut_ptr()) };
        Ok(Self(both))
    }

    /// Makes a key from its seed of 32 bytes.
    ///
    /// # Errors
    /// `AttributeValueInvalid` for another length.
    pub fn from_seed(seed: &[u8]) -> Result<Self> {
        if seed.len() != LEN {
            return Err(Error::new(Kind::AttributeValueInvalid, "an Ed25519 private key is a seed of 32 bytes"));
        }
        let mut both = SecureBytes::zeroed(2 * LEN);
        let (mut public, to) = ([0; LEN], both.expose_mut().as_mut_ptr());
        // SAFETY: the seed has 32 bytes, the targets have 32 and 64.
        unsafe { sys::ED25519_keypair_from_seed(public.as_mut_ptr(), to, seed.as_ptr()) };
        Ok(Self(both))
    }

    /// Reads the encoding of [`Self::secret`].
    ///
    /// # Errors
    /// As [`Self::from_seed`].
    pub fn from_secret(secret: &SecurePrivateKey) -> Result<Self> {
        Self::from_seed(secret.expose())
    }

    /// Reads a PKCS #8 PrivateKeyInfo (RFC 8410).
    ///
    /// # Errors
    /// `WrappedKeyInvalid` for anything else.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self> {
        let seed = pkey::raw_private(&pkey::parse_private(der)?, sys::EVP_PKEY_ED25519)?;
        Self::from_seed(seed.expose())
    }

    /// Encodes the secret: the seed of 32 bytes.
    ///
    /// # Errors
    /// None; the other families' functions can fail.
    pub fn secret(&self) -> Result<SecurePrivateKey> {
        Ok(SecurePrivateKey::new(self.0.clone().truncated(LEN)))
    }

    /// Encodes the key as PKCS #8 PrivateKeyInfo (RFC 8410).
    ///
    /// # Errors
    /// `GeneralError` when the library below fails.
    pub fn to_pkcs8(&self) -> Result<SecureBytes> {
        let secret = self.secret()?;
        pkey::marshal_private(&pkey::from_raw(
            sys::EVP_PKEY_new_raw_private_key,
            sys::EVP_PKEY_ED25519,
            secret.expose(),
        )?)
    }

    /// Gives the public half.
    ///
    /// # Errors
    /// None; the other families' functions can fail.
    pub fn public(&self) -> Result<PublicKey> {
        let public = self.0.expose().last_chunk().ok_or_else(|| Error::internal("an Ed25519 key is too short"))?;
        Ok(PublicKey(*public))
    }

    /// Signs a message into `out`, which has 64 bytes.
    ///
    /// # Errors
    /// `FunctionFailed` when the library below fails.
    pub fn sign(&self, scheme: &Scheme, message: &[u8], out: &mut [u8]) -> Result<()> {
        if out.len() != SIGNATURE_LEN {
            return Err(Error::internal("the room for an Ed25519 signature has a wrong length"));
        }
        let (to, from, len, key) = (out.as_mut_ptr(), message.as_ptr(), message.len(), self.0.expose().as_ptr());
        let code = match scheme {
            // SAFETY: the key has 64 bytes, `to` has 64, `from` is valid for its length.
            Scheme::Pure => unsafe { sys::ED25519_sign(to, from, len, key) },
            // SAFETY: as above, and the context is valid for its length.
            Scheme::Context(c) => unsafe { sys::ED25519ctx_sign(to, from, len, key, c.as_ptr(), c.len()) },
            // SAFETY: as above.
            Scheme::Prehash(c) => unsafe { sys::ED25519ph_sign(to, from, len, key, c.as_ptr(), c.len()) },
        };
        check(code, Kind::FunctionFailed)
    }
}

impl PublicKey {
    /// Makes a key from its 32 bytes, which must name a point of the curve.
    ///
    /// # Errors
    /// `AttributeValueInvalid` for anything else.
    pub fn from_point(point: &[u8]) -> Result<Self> {
        let bad = || Error::new(Kind::AttributeValueInvalid, "an Ed25519 public key is 32 bytes that name a point");
        let point: [u8; LEN] = point.try_into().map_err(|_| bad())?;
        // SAFETY: the point has 32 bytes.
        check(unsafe { check_public_key(point.as_ptr()) }, Kind::AttributeValueInvalid).map_err(|_| bad())?;
        Ok(Self(point))
    }

    /// Reads a SubjectPublicKeyInfo (RFC 8410).
    ///
    /// # Errors
    /// `PublicKeyInvalid` for anything else.
    pub fn from_spki(der: &[u8]) -> Result<Self> {
        Self::from_point(&pkey::raw_public(&pkey::parse_public(der)?, sys::EVP_PKEY_ED25519)?)
    }

    /// Encodes the key as SubjectPublicKeyInfo (RFC 8410).
    ///
    /// # Errors
    /// `GeneralError` when the library below fails.
    pub fn to_spki(&self) -> Result<Vec<u8>> {
        pkey::marshal_public(&pkey::from_raw(sys::EVP_PKEY_new_raw_public_key, sys::EVP_PKEY_ED25519, &self.0)?)
    }

    /// Gives the 32 bytes of the key.
    pub fn point(&self) -> &[u8; LEN] {
        &self.0
    }

    /// Verifies.
    ///
    /// # Errors
    /// `SignatureLenRange`, `SignatureInvalid`.
    pub fn verify(&self, scheme: &Scheme, message: &[u8], signature: &[u8]) -> Result<()> {
        if signature.len() != SIGNATURE_LEN {
            return Err(Error::from(Kind::SignatureLenRange));
        }
        let (from, len, sig, key) = (message.as_ptr(), message.len(), signature.as_ptr(), self.0.as_ptr());
        let code = match scheme {
            // SAFETY: the key has 32 bytes, the signature 64, `from` is valid for its length.
            Scheme::Pure => unsafe { sys::ED25519_verify(from, len, sig, key) },
            // SAFETY: as above, and the context is valid for its length.
            Scheme::Context(c) => unsafe { sys::ED25519ctx_verify(from, len, sig, key, c.as_ptr(), c.len()) },
            // SAFETY: as above.
            Scheme::Prehash(c) => unsafe { sys::ED25519ph_verify(from, len, sig, key, c.as_ptr(), c.len()) },
        };
        check(code, Kind::SignatureInvalid)
    }
}
