//! X25519 (RFC 7748).

use aws_lc_sys as sys;

use super::lc::check;
use super::pkey;
use crate::error::{Error, Kind, Result};
use crate::runtime::Pass;
use crate::secret::{SecureBytes, SecurePrivateKey};

/// The length of a scalar, of a public key and of a shared secret in bytes.
pub const LEN: usize = 32;

/// A private key.
pub struct PrivateKey(SecureBytes);

/// A public key. Every 32 bytes are one (RFC 7748, 5).
pub struct PublicKey([u8; LEN]);

impl PrivateKey {
    /// Generates a key.
    ///
    /// # Errors
    /// None; the other families' functions can fail.
    pub fn generate() -> Result<Self> {
        let _pass = Pass::take();
        let (mut scalar, mut public) = (SecureBytes::zeroed(LEN), [0; LEN]);
        // SAFETY: both targets have 32 bytes.
        unsafe { sys::X25519_keypair(public.as_mut_ptr(), scalar.expose_mut().as_mut_ptr()) };
        Ok(Self(scalar))
    }

    /// Makes a key from its scalar of 32 bytes in little-endian.
    ///
    /// # Errors
    /// `AttributeValueInvalid` for another length.
    pub fn from_scalar(scalar: &[u8]) -> Result<Self> {
        if scalar.len() != LEN {
            return Err(Error::new(Kind::AttributeValueInvalid, "an X25519 private key is a scalar of 32 bytes"));
        }
        Ok(Self(SecureBytes::copy_from(scalar)))
    }

    /// Reads the encoding of [`Self::secret`].
    ///
    /// # Errors
    /// As [`Self::from_scalar`].
    pub fn from_secret(secret: &SecurePrivateKey) -> Result<Self> {
        Self::from_scalar(secret.expose())
    }

    /// Reads a PKCS #8 PrivateKeyInfo (RFC 8410).
    ///
    /// # Errors
    /// `WrappedKeyInvalid` for anything else.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self> {
        pkey::raw_private(&pkey::parse_private(der)?, sys::EVP_PKEY_X25519).map(Self)
    }

    /// Encodes the secret: the scalar.
    ///
    /// # Errors
    /// None; the other families' functions can fail.
    pub fn secret(&self) -> Result<SecurePrivateKey> {
        Ok(SecurePrivateKey::new(self.0.clone()))
    }

    /// Encodes the key as PKCS #8 PrivateKeyInfo (RFC 8410).
    ///
    /// # Errors
    /// `GeneralError` when the library below fails.
    pub fn to_pkcs8(&self) -> Result<SecureBytes> {
        let scalar = self.0.expose();
        pkey::marshal_private(&pkey::from_raw(sys::EVP_PKEY_new_raw_private_key, sys::EVP_PKEY_X25519, scalar)?)
    }

    /// Gives the public half.
    ///
    /// # Errors
    /// None; the other families' functions can fail.
    pub fn public(&self) -> Result<PublicKey> {
        let mut public = [0; LEN];
        // SAFETY: both have 32 bytes.
        unsafe { sys::X25519_public_from_private(public.as_mut_ptr(), self.0.expose().as_ptr()) };
        Ok(PublicKey(public))
    }

    /// Agrees on a secret with the owner of a public key.
    ///
    /// # Errors
    /// `PublicKeyInvalid` for another length, and for a key of low order, whose secret would be zero (RFC 7748, 6.1).
    pub fn agree(&self, peer: &[u8]) -> Result<SecureBytes> {
        if peer.len() != LEN {
            return Err(Error::from(Kind::PublicKeyInvalid));
        }
        SecureBytes::try_with(LEN, |out| {
            // SAFETY: all three have 32 bytes.
            let code = unsafe { sys::X25519(out.as_mut_ptr(), self.0.expose().as_ptr(), peer.as_ptr()) };
            check(code, Kind::PublicKeyInvalid)
        })
    }
}

impl PublicKey {
    /// Makes a key from its 32 bytes.
    ///
    /// # Errors
    /// `AttributeValueInvalid` for another length.
    pub fn from_point(point: &[u8]) -> Result<Self> {
        let point = point.try_into();
        point.map(Self).map_err(|_| Error::new(Kind::AttributeValueInvalid, "an X25519 public key has 32 bytes"))
    }

    /// Encodes the key as SubjectPublicKeyInfo (RFC 8410).
    ///
    /// # Errors
    /// `GeneralError` when the library below fails.
    pub fn to_spki(&self) -> Result<Vec<u8>> {
        pkey::marshal_public(&pkey::from_raw(sys::EVP_PKEY_new_raw_public_key, sys::EVP_PKEY_X25519, &self.0)?)
    }

    /// Gives the 32 bytes of the key.
    pub fn point(&self) -> &[u8; LEN] {
        &self.0
    }
}
