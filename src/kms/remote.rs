//! Keys that live in a KMS and are used there: what a provider can tell of them and do with them.
//!
//! The rules are:
//! - one signature, decryption or MAC is one request; public keys are asked for once and kept by the caller;
//! - a key that is named can be used with the permissions of that key alone: nothing is listed on the way;
//! - results come out in the form of PKCS #11: an ECDSA signature is r and s, each at the full width of the curve's order.

use super::provider::KeyState;
use crate::error::{Error, KmsFault, Result};
use crate::secret::SecureBytes;

/// An elliptic curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Curve {
    /// NIST P-256 (secp256r1).
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
    /// secp256k1.
    Secp256k1,
}

impl Curve {
    /// Tells the width of the curve's order in bytes: half of a signature.
    pub const fn width(self) -> usize {
        match self {
            Self::P256 | Self::Secp256k1 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

/// A hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hash {
    /// SHA-1.
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// What a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeySpec {
    /// RSA with a modulus of so many bits.
    Rsa(u32),
    /// An elliptic-curve key for ECDSA.
    Ec(Curve),
    /// Ed25519.
    Ed25519,
    /// A key for HMAC with this hash.
    Hmac(Hash),
}

/// What a key may do at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Uses {
    /// It signs.
    pub sign: bool,
    /// It decrypts.
    pub decrypt: bool,
    /// It makes and checks MACs.
    pub mac: bool,
}

/// A scheme and its hash, which fix the provider's algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignScheme {
    /// ECDSA over a digest (FIPS 186-5, 6.4).
    Ecdsa(Hash),
    /// Ed25519 over a message (RFC 8032).
    Ed25519,
    /// RSASSA-PKCS1-v1_5 over a digest (RFC 8017, 8.2).
    RsaPkcs1(Hash),
    /// RSASSA-PSS over a digest, MGF1 with the same hash and a salt of the hash's length (RFC 8017, 8.1).
    RsaPss(Hash),
}

/// A scheme of decryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecryptScheme {
    /// RSAES-OAEP with this hash for both uses and no label (RFC 8017, 7.1).
    RsaOaep(Hash),
    /// RSAES-PKCS1-v1_5 (RFC 8017, 7.2).
    RsaPkcs1,
}

/// One key of the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteKey {
    /// The provider's full name of the key and version: what all requests name.
    pub id: String,
    /// A name for people: the alias, or the last part of the name.
    pub label: String,
    /// What it is.
    pub spec: KeySpec,
    /// What it may do.
    pub uses: Uses,
    /// Whether it can be used.
    pub state: KeyState,
    /// The public key as DER `SubjectPublicKeyInfo` (RFC 5280); `None` for MAC keys.
    pub public: Option<Vec<u8>>,
}

/// One combination that a provider offers, for the matrix of what works where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ability {
    /// Makes keys of this kind.
    Generate(KeySpec),
    /// Signs with keys of this kind by this scheme.
    Sign(KeySpec, SignScheme),
    /// Decrypts with keys of this kind by this scheme.
    Decrypt(KeySpec, DecryptScheme),
    /// Makes MACs with keys of this kind.
    Mac(KeySpec),
}

/// The keys that live in a provider.
pub trait RemoteKeys: Send + Sync {
    /// Lists every combination that the provider offers; known beforehand, without a request.
    fn abilities(&self) -> &'static [Ability];

    /// Finds one key by its name: an id, a name within the account, an alias. At most two requests.
    ///
    /// # Errors
    /// Any [`KmsFault`].
    fn find(&self, name: &str) -> Result<RemoteKey>;

    /// Lists the keys of the account that can be used here; those that are disabled or gone are left out, and so is one that
    /// cannot be described.
    ///
    /// # Errors
    /// Any [`KmsFault`]; `Denied` without the permission to list.
    fn list(&self) -> Result<Vec<RemoteKey>>;

    /// Signs: `input` is the digest, or the message for [`SignScheme::Ed25519`]. ECDSA gives r and s at full width.
    ///
    /// # Errors
    /// Any [`KmsFault`]; `Unsupported` for a scheme that the key has not.
    fn sign(&self, key: &RemoteKey, scheme: SignScheme, input: &[u8]) -> Result<Vec<u8>>;

    /// Decrypts.
    ///
    /// # Errors
    /// Any [`KmsFault`]; `Tampered` for a ciphertext that does not decrypt.
    fn decrypt(&self, key: &RemoteKey, scheme: DecryptScheme, ciphertext: &[u8]) -> Result<SecureBytes>;

    /// Makes a MAC over a message.
    ///
    /// # Errors
    /// Any [`KmsFault`].
    fn mac(&self, key: &RemoteKey, message: &[u8]) -> Result<Vec<u8>>;

    /// Makes a key; `label` becomes its name or alias, cleaned of what the provider does not take.
    ///
    /// # Errors
    /// Any [`KmsFault`]; `Unsupported` for a kind that the provider has not; `Throttled` only when no key was made yet, since it
    /// is asked again then.
    fn generate(&self, spec: KeySpec, label: &str) -> Result<RemoteKey>;
}

/// The DER form of an ECDSA signature (RFC 3279, 2.2.3).
#[derive(der::Sequence)]
struct EcdsaSignature {
    r: der::asn1::Uint,
    s: der::asn1::Uint,
}

/// Brings a DER signature to the form of PKCS #11: r and s, each at the full width of the curve.
///
/// # Errors
/// `Failed` when it is no ECDSA signature of this curve.
pub fn fixed_width(curve: Curve, signature: &[u8]) -> Result<Vec<u8>> {
    let wrong = || {
        Error::kms(KmsFault::Failed, "the KMS answered with something that is no ECDSA signature of the key's curve")
    };
    let EcdsaSignature { r, s } = der::Decode::from_der(signature).map_err(|error| wrong().caused_by(error))?;
    let mut fixed = Vec::with_capacity(2 * curve.width());
    for number in [r.as_bytes(), s.as_bytes()] {
        let padding = curve.width().checked_sub(number.len()).ok_or_else(wrong)?;
        fixed.resize(fixed.len() + padding, 0);
        fixed.extend_from_slice(number);
    }
    Ok(fixed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn r27_short_numbers_are_padded_on_the_left() {
        // SEQUENCE { INTEGER 1, INTEGER 0x80 }: s has the leading zero that DER wants.
        let fixed = fixed_width(Curve::P521, &[0x30, 7, 2, 1, 1, 2, 2, 0, 0x80]).unwrap();
        assert_eq!(fixed.len(), 132);
        assert_eq!(
            fixed.iter().enumerate().filter(|(_, byte)| **byte != 0).collect::<Vec<_>>(),
            [(65, &1), (131, &0x80)]
        );
    }

    #[test]
    fn r27_what_is_no_signature_of_the_curve_is_refused() {
        let mut long = vec![0x30, 38, 2, 33, 1];
        long.extend([7; 32]);
        long.extend([2, 1, 1]);
        for bad in [&b""[..], &[0x30, 0], &[0x30, 6, 2, 1, 1, 2, 1, 1, 0], &[7; 64], &long] {
            let error = fixed_width(Curve::P256, bad).unwrap_err();
            assert_eq!(error.kms_fault(), Some(KmsFault::Failed), "{bad:?}");
        }
    }
}
