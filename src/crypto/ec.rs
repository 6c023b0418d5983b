//! ECDSA and ECDH on P-256, P-384 and P-521 (FIPS 186-5, SP 800-56A, SEC 1).

use aws_lc_sys as sys;

use super::lc::{Owned, check};
use super::{bn, memory, pkey};
use crate::error::{Error, Kind, Result};
use crate::runtime::Pass;
use crate::secret::{SecureBytes, SecurePrivateKey};

/// A curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Curve {
    /// secp256r1, prime256v1.
    P256,
    /// secp384r1.
    P384,
    /// secp521r1.
    P521,
}

impl Curve {
    /// Every curve.
    pub const ALL: &[Curve] = &[Curve::P256, Curve::P384, Curve::P521];

    /// Tells the length of a coordinate, and of a scalar, in bytes; the two are the same on these curves.
    pub const fn width(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
            Curve::P521 => 66,
        }
    }

    const fn nid(self) -> i32 {
        match self {
            Curve::P256 => sys::NID_X9_62_prime256v1,
            Curve::P384 => sys::NID_secp384r1,
            Curve::P521 => sys::NID_secp521r1,
        }
    }
}

/// A private key.
pub struct PrivateKey {
    curve: Curve,
    key: Owned<sys::EC_KEY>,
}

/// A public key.
pub struct PublicKey {
    curve: Curve,
    key: Owned<sys::EC_KEY>,
}

impl PrivateKey {
    /// Generates a key.
    ///
    /// # Errors
    /// `FunctionFailed` when the library below fails.
    pub fn generate(curve: Curve) -> Result<Self> {
        memory::secret(|| {
            let key = new_key(curve)?;
            let _pass = Pass::take();
            // SAFETY: the key is valid and has its group.
            check(unsafe { sys::EC_KEY_generate_key(key.as_ptr()) }, Kind::FunctionFailed)?;
            Ok(Self { curve, key })
        })
    }

    /// Makes a key from its scalar, with or without leading zeros.
    ///
    /// # Errors
    /// `AttributeValueInvalid` for a scalar that is 0 or not below the order of the curve.
    pub fn from_scalar(curve: Curve, scalar: &[u8]) -> Result<Self> {
        memory::secret(|| Self::of_scalar(curve, scalar))
    }

    fn of_scalar(curve: Curve, scalar: &[u8]) -> Result<Self> {
        let (key, number) = (new_key(curve)?, bn::from_bytes(scalar)?);
        // SAFETY: key and number are valid; the number is copied.
        let code = unsafe { sys::EC_KEY_set_private_key(key.as_ptr(), number.as_ptr()) };
        check(code, Kind::AttributeValueInvalid)
            .map_err(|error| error.context("the private value must be above 0 and below the order of the curve"))?;
        set_public(&key, &number)?;
        Ok(Self { curve, key })
    }

    /// Reads the encoding of [`Self::secret`], at full width.
    ///
    /// # Errors
    /// As [`Self::from_scalar`].
    pub fn from_secret(curve: Curve, secret: &SecurePrivateKey) -> Result<Self> {
        if secret.expose().len() != curve.width() {
            return Err(Error::new(Kind::AttributeValueInvalid, "the secret is no scalar of this curve"));
        }
        Self::from_scalar(curve, secret.expose())
    }

    /// Reads a PKCS #8 PrivateKeyInfo on any of the curves.
    ///
    /// # Errors
    /// `WrappedKeyInvalid` for anything else.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self> {
        let (curve, key) = ec_of(&pkey::parse_private(der)?)
            .ok_or_else(|| pkey::wrapped_invalid("holds a key on P-256, P-384 or P-521"))?;
        Ok(Self { curve, key })
    }

    /// Encodes the secret: the scalar in big-endian at full width.
    ///
    /// # Errors
    /// `FunctionFailed` when the library below fails.
    pub fn secret(&self) -> Result<SecurePrivateKey> {
        // SAFETY: the key is valid; the number is borrowed from it.
        let number = unsafe { sys::EC_KEY_get0_private_key(self.key.as_ptr()) };
        // SAFETY: every private key here was made with its number.
        let scalar = SecureBytes::try_with(self.curve.width(), |out| unsafe { bn::write_padded(number, out) })?;
        Ok(SecurePrivateKey::new(scalar))
    }

    /// Encodes the key as PKCS #8 PrivateKeyInfo, with its public key.
    ///
    /// # Errors
    /// `GeneralError` when the library below fails.
    pub fn to_pkcs8(&self) -> Result<SecureBytes> {
        pkey::marshal_private(&wrap(&self.key)?)
    }

    /// Gives the public half.
    ///
    /// # Errors
    /// `HostMemory` when there is none left.
    pub fn public(&self) -> Result<PublicKey> {
        let key = new_key(self.curve)?;
        // SAFETY: the key is valid; the point is borrowed from it.
        let point = unsafe { sys::EC_KEY_get0_public_key(self.key.as_ptr()) };
        // SAFETY: key and point are valid and on the same curve; the point is copied.
        check(unsafe { sys::EC_KEY_set_public_key(key.as_ptr(), point) }, Kind::GeneralError)?;
        Ok(PublicKey { curve: self.curve, key })
    }

    /// Tells the curve.
    pub fn curve(&self) -> Curve {
        self.curve
    }

    /// Tells the length of a signature in bytes.
    pub fn signature_len(&self) -> usize {
        2 * self.curve.width()
    }

    /// Signs a digest into `out` as r ‖ s, each at full width. Of a longer digest the leftmost bits count (FIPS 186-5, 6.4.1).
    ///
    /// # Errors
    /// `FunctionFailed` when the library below fails.
    pub fn sign(&self, digest: &[u8], out: &mut [u8]) -> Result<()> {
        let _pass = Pass::take();
        // SAFETY: the key is valid, `digest` is valid for its length.
        let signature = unsafe { sys::ECDSA_do_sign(digest.as_ptr(), digest.len(), self.key.as_ptr()) };
        // SAFETY: the result is new, or NULL, and owned by nobody else.
        let signature = unsafe { Owned::new(signature) }?;
        let (r_out, s_out) = halves_mut(self.curve, out)?;
        // SAFETY: the signature is valid; both numbers are borrowed from it.
        let r = unsafe { sys::ECDSA_SIG_get0_r(signature.as_ptr()) };
        // SAFETY: as above.
        let s = unsafe { sys::ECDSA_SIG_get0_s(signature.as_ptr()) };
        // SAFETY: a signature that was made has both numbers.
        unsafe { bn::write_padded(r, r_out) }?;
        // SAFETY: as above.
        unsafe { bn::write_padded(s, s_out) }
    }

    /// Agrees on a secret with the owner of a point (SEC 1, compressed or not): its x-coordinate at full width.
    ///
    /// # Errors
    /// `PublicKeyInvalid` for a point that is not on the curve.
    pub fn agree(&self, peer: &[u8]) -> Result<SecureBytes> {
        let peer = PublicKey::from_point(self.curve, peer).map_err(|_| Error::from(Kind::PublicKeyInvalid))?;
        // SAFETY: the key is valid; the point is borrowed from it.
        let point = unsafe { sys::EC_KEY_get0_public_key(peer.key.as_ptr()) };
        SecureBytes::try_with(self.curve.width(), |out| {
            let (room, to) = (out.len(), out.as_mut_ptr().cast());
            // SAFETY: point and key are valid and on one curve, `to` has `room` bytes; no function derives further.
            let len = unsafe { sys::ECDH_compute_key(to, room, point, self.key.as_ptr(), None) };
            check(i32::from(usize::try_from(len) == Ok(room)), Kind::FunctionFailed)
        })
    }
}

impl PublicKey {
    /// Makes a key from its point (SEC 1, 2.3.4), compressed or not, which must be on the curve and not at infinity.
    ///
    /// # Errors
    /// `AttributeValueInvalid` for any other point.
    pub fn from_point(curve: Curve, point: &[u8]) -> Result<Self> {
        let key = new_key(curve)?;
        // SAFETY: the key is valid; the group is static.
        let group = unsafe { sys::EC_KEY_get0_group(key.as_ptr()) };
        // SAFETY: the group is valid.
        let parsed = unsafe { sys::EC_POINT_new(group) };
        // SAFETY: the result is new, or NULL, and owned by nobody else.
        let parsed = unsafe { Owned::new(parsed) }?;
        let (from, no_scratch) = (point.as_ptr(), std::ptr::null_mut());
        // SAFETY: group and target are valid, `from` is valid for its length.
        let code = unsafe { sys::EC_POINT_oct2point(group, parsed.as_ptr(), from, point.len(), no_scratch) };
        check(code, Kind::AttributeValueInvalid).map_err(|error| error.context("the point is not on the curve"))?;
        // SAFETY: key and point are valid and on one curve; the point is copied.
        let code = unsafe { sys::EC_KEY_set_public_key(key.as_ptr(), parsed.as_ptr()) };
        check(code, Kind::AttributeValueInvalid)?;
        Ok(Self { curve, key })
    }

    /// Reads a SubjectPublicKeyInfo on any of the curves.
    ///
    /// # Errors
    /// `PublicKeyInvalid` for anything else.
    pub fn from_spki(der: &[u8]) -> Result<Self> {
        let (curve, key) = ec_of(&pkey::parse_public(der)?)
            .ok_or_else(|| Error::new(Kind::PublicKeyInvalid, "the public key is not on P-256, P-384 or P-521"))?;
        Ok(Self { curve, key })
    }

    /// Encodes the key as SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// `GeneralError` when the library below fails.
    pub fn to_spki(&self) -> Result<Vec<u8>> {
        pkey::marshal_public(&wrap(&self.key)?)
    }

    /// Gives the point, uncompressed.
    ///
    /// # Errors
    /// `FunctionFailed` when the library below fails.
    pub fn point(&self) -> Result<Vec<u8>> {
        let mut out = vec![0; 1 + 2 * self.curve.width()];
        let (to, room, no_scratch) = (out.as_mut_ptr(), out.len(), std::ptr::null_mut());
        let form = sys::point_conversion_form_t::POINT_CONVERSION_UNCOMPRESSED;
        // SAFETY: the key is valid; the group is static.
        let group = unsafe { sys::EC_KEY_get0_group(self.key.as_ptr()) };
        // SAFETY: the key is valid; the point is borrowed from it.
        let point = unsafe { sys::EC_KEY_get0_public_key(self.key.as_ptr()) };
        // SAFETY: group and point are valid, `to` has `room` bytes.
        let len = unsafe { sys::EC_POINT_point2oct(group, point, form, to, room, no_scratch) };
        check(i32::from(len == room), Kind::FunctionFailed)?;
        Ok(out)
    }

    /// Tells the curve.
    pub fn curve(&self) -> Curve {
        self.curve
    }

    /// Tells the length of a signature in bytes.
    pub fn signature_len(&self) -> usize {
        2 * self.curve.width()
    }

    /// Verifies r ‖ s over a digest.
    ///
    /// # Errors
    /// `SignatureLenRange`, `SignatureInvalid`.
    pub fn verify(&self, digest: &[u8], signature: &[u8]) -> Result<()> {
        let (r, s) = halves(self.curve, signature)?;
        let (r, s) = (bn::from_bytes(r)?, bn::from_bytes(s)?);
        // SAFETY: takes no argument.
        let parsed = unsafe { sys::ECDSA_SIG_new() };
        // SAFETY: the result is new, or NULL, and owned by nobody else.
        let parsed = unsafe { Owned::new(parsed) }?;
        // SAFETY: all three are valid; the signature takes both numbers over, which only fails for NULL.
        check(unsafe { sys::ECDSA_SIG_set0(parsed.as_ptr(), r.into_raw(), s.into_raw()) }, Kind::GeneralError)?;
        let (from, key) = (digest.as_ptr(), self.key.as_ptr());
        // SAFETY: key and signature are valid, `from` is valid for its length.
        let code = unsafe { sys::ECDSA_do_verify(from, digest.len(), parsed.as_ptr(), key) };
        check(code, Kind::SignatureInvalid)
    }
}

fn new_key(curve: Curve) -> Result<Owned<sys::EC_KEY>> {
    // SAFETY: takes a number alone.
    let new = unsafe { sys::EC_KEY_new_by_curve_name(curve.nid()) };
    // SAFETY: the result is new, or NULL, and owned by nobody else.
    unsafe { Owned::new(new) }
}

/// Computes the public point of a scalar.
fn set_public(key: &Owned<sys::EC_KEY>, scalar: &Owned<sys::BIGNUM>) -> Result<()> {
    let (none, no_number, no_scratch) = (std::ptr::null(), std::ptr::null(), std::ptr::null_mut());
    // SAFETY: the key is valid; the group is static.
    let group = unsafe { sys::EC_KEY_get0_group(key.as_ptr()) };
    // SAFETY: the group is valid.
    let point = unsafe { sys::EC_POINT_new(group) };
    // SAFETY: the result is new, or NULL, and owned by nobody else.
    let point = unsafe { Owned::new(point) }?;
    let (to, number) = (point.as_ptr(), scalar.as_ptr());
    // SAFETY: group, target and number are valid; the other point and factor are left out together.
    let code = unsafe { sys::EC_POINT_mul(group, to, number, none, no_number, no_scratch) };
    check(code, Kind::FunctionFailed)?;
    // SAFETY: key and point are valid and on one curve; the point is copied.
    check(unsafe { sys::EC_KEY_set_public_key(key.as_ptr(), to) }, Kind::FunctionFailed)
}

fn wrap(ec: &Owned<sys::EC_KEY>) -> Result<Owned<sys::EVP_PKEY>> {
    // SAFETY: takes no argument.
    let key = unsafe { sys::EVP_PKEY_new() };
    // SAFETY: the result is new, or NULL, and owned by nobody else.
    let key = unsafe { Owned::new(key) }?;
    // SAFETY: both are valid; the key takes a reference of its own.
    check(unsafe { sys::EVP_PKEY_set1_EC_KEY(key.as_ptr(), ec.as_ptr()) }, Kind::GeneralError)?;
    Ok(key)
}

/// Finds the key on one of the curves in a parsed key, whose point and scalar AWS-LC has checked.
fn ec_of(key: &Owned<sys::EVP_PKEY>) -> Option<(Curve, Owned<sys::EC_KEY>)> {
    // SAFETY: the key is valid; the result is a reference of our own, or NULL for another type.
    let ec = unsafe { sys::EVP_PKEY_get1_EC_KEY(key.as_ptr()) };
    // SAFETY: the result is new, or NULL, and owned by nobody else.
    let ec = unsafe { Owned::new(ec) }.ok()?;
    // RFC 5480, 2.1.1: a curve is named. AWS-LC also reads one that is written out when it equals one that it knows.
    // SAFETY: the key is valid.
    if unsafe { sys::EC_KEY_decoded_from_explicit_params(ec.as_ptr()) } == 1 {
        return None;
    }
    // SAFETY: the key is valid; the group is static.
    let group = unsafe { sys::EC_KEY_get0_group(ec.as_ptr()) };
    // SAFETY: a parsed key has a group.
    let nid = unsafe { sys::EC_GROUP_get_curve_name(group) };
    Curve::ALL.iter().find(|curve| curve.nid() == nid).map(|curve| (*curve, ec))
}

fn halves(curve: Curve, signature: &[u8]) -> Result<(&[u8], &[u8])> {
    let halves = signature.split_at_checked(curve.width()).filter(|(r, s)| r.len() == s.len());
    halves.ok_or_else(|| Error::from(Kind::SignatureLenRange))
}

fn halves_mut(curve: Curve, out: &mut [u8]) -> Result<(&mut [u8], &mut [u8])> {
    let halves = out.split_at_mut_checked(curve.width()).filter(|(r, s)| r.len() == s.len());
    halves.ok_or_else(|| Error::internal("the room for an ECDSA signature has a wrong length"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(in crate::crypto) fn test_verify(nid: i32, point: &[u8], digest: &[u8], signature: &[u8]) -> bool {
    let (r, s) = signature.split_at(signature.len() / 2);
    let (r, s) = (bn::from_bytes(r).unwrap(), bn::from_bytes(s).unwrap());
    // SAFETY: takes a number alone.
    let key = unsafe { sys::EC_KEY_new_by_curve_name(nid) };
    // SAFETY: the result is new, or NULL, and owned by nobody else.
    let key = unsafe { Owned::new(key) }.unwrap();
    // SAFETY: the key is valid; the group is static.
    let group = unsafe { sys::EC_KEY_get0_group(key.as_ptr()) };
    // SAFETY: the group is valid.
    let parsed = unsafe { sys::EC_POINT_new(group) };
    // SAFETY: the result is new, or NULL, and owned by nobody else.
    let parsed = unsafe { Owned::new(parsed) }.unwrap();
    let (from, to, none) = (point.as_ptr(), parsed.as_ptr(), std::ptr::null_mut());
    // SAFETY: group and target are valid, `from` is valid for its length.
    assert_eq!(unsafe { sys::EC_POINT_oct2point(group, to, from, point.len(), none) }, 1);
    // SAFETY: key and point are valid and on one curve.
    assert_eq!(unsafe { sys::EC_KEY_set_public_key(key.as_ptr(), to) }, 1);
    // SAFETY: takes no argument.
    let parsed = unsafe { sys::ECDSA_SIG_new() };
    // SAFETY: the result is new, or NULL, and owned by nobody else.
    let parsed = unsafe { Owned::new(parsed) }.unwrap();
    // SAFETY: all are valid; the signature takes the numbers over.
    assert_eq!(unsafe { sys::ECDSA_SIG_set0(parsed.as_ptr(), r.into_raw(), s.into_raw()) }, 1);
    // SAFETY: key and signature are valid, the digest is valid for its length.
    unsafe { sys::ECDSA_do_verify(digest.as_ptr(), digest.len(), parsed.as_ptr(), key.as_ptr()) == 1 }
}

#[cfg(test)]
impl PrivateKey {
    /// Calls the bare library, for measurements.
    pub(crate) fn bare_sign(&self, digest: &[u8]) {
        // SAFETY: the key is valid, and the digest is valid for its length.
        let signature = unsafe { sys::ECDSA_do_sign(digest.as_ptr(), digest.len(), self.key.as_ptr()) };
        // SAFETY: the signature was just made and is owned by nobody else.
        drop(unsafe { Owned::new(signature) });
    }
}
