//! Public keys: from the attributes of PKCS #11 to DER `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7).

use cryptoki::object::Attribute;
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef, UintRef};
use der::{Decode, Encode, Sequence};

use super::super::remote::{Curve, KeySpec};

/// rsaEncryption (RFC 8017, A.1).
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// id-ecPublicKey (RFC 5480, 2.1.1).
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// id-Ed25519 (RFC 8410, 3).
pub const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// The name by which older devices know Ed25519 (PKCS #11 v3.0, 2.3.5).
pub const ED25519_NAME: &str = "edwards25519";
/// The length of an Ed25519 public key in bytes.
const ED25519_LEN: usize = 32;

/// The curves and their names (RFC 5480, 2.1.1.1; SEC 2, A.2).
const CURVES: [(Curve, ObjectIdentifier); 4] = [
    (Curve::P256, ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7")),
    (Curve::P384, ObjectIdentifier::new_unwrap("1.3.132.0.34")),
    (Curve::P521, ObjectIdentifier::new_unwrap("1.3.132.0.35")),
    (Curve::Secp256k1, ObjectIdentifier::new_unwrap("1.3.132.0.10")),
];

#[derive(Sequence)]
struct AlgorithmIdentifier<'a> {
    algorithm: ObjectIdentifier,
    parameters: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct SubjectPublicKeyInfo<'a> {
    algorithm: AlgorithmIdentifier<'a>,
    key: BitStringRef<'a>,
}

/// `RSAPublicKey` (RFC 8017, A.1.1).
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

/// The attributes that make a public key; those of another type of key are empty.
#[derive(Debug, Default)]
pub struct Parts {
    /// CKA_MODULUS.
    pub modulus: Vec<u8>,
    /// CKA_PUBLIC_EXPONENT.
    pub exponent: Vec<u8>,
    /// CKA_EC_PARAMS.
    pub params: Vec<u8>,
    /// CKA_EC_POINT.
    pub point: Vec<u8>,
}

impl Parts {
    /// Takes over what attributes are of a public key.
    pub fn take(&mut self, attributes: Vec<Attribute>) {
        for attribute in attributes {
            match attribute {
                Attribute::Modulus(bytes) => self.modulus = bytes,
                Attribute::PublicExponent(bytes) => self.exponent = bytes,
                Attribute::EcParams(bytes) => self.params = bytes,
                Attribute::EcPoint(bytes) => self.point = bytes,
                _ => {}
            }
        }
    }

    /// Tells what kind of RSA key it is.
    pub fn rsa(&self) -> Option<KeySpec> {
        let modulus = self.modulus.iter().skip_while(|byte| **byte == 0);
        let first = modulus.clone().next()?;
        let bits = u32::try_from(modulus.count()).ok()?.checked_mul(8)?.checked_sub(first.leading_zeros())?;
        Some(KeySpec::Rsa(bits))
    }

    /// Tells what kind of EC key it is; `None` for a curve that is not offered.
    pub fn ec(&self) -> Option<KeySpec> {
        let named = ObjectIdentifier::from_der(&self.params).ok()?;
        CURVES.iter().find(|(_, oid)| *oid == named).map(|(curve, _)| KeySpec::Ec(*curve))
    }

    /// Tells whether it is Ed25519, by its name or its object identifier.
    pub fn edwards(&self) -> Option<KeySpec> {
        let by_oid = ObjectIdentifier::from_der(&self.params).is_ok_and(|oid| oid == ED25519);
        let by_name =
            der::asn1::PrintableStringRef::from_der(&self.params).is_ok_and(|name| name.as_str() == ED25519_NAME);
        (by_oid || by_name).then_some(KeySpec::Ed25519)
    }

    /// Encodes the public key; `None` when the attributes are none of this kind.
    pub fn encode(&self, spec: KeySpec) -> Option<Vec<u8>> {
        match spec {
            KeySpec::Rsa(_) => self.encode_rsa(),
            KeySpec::Ec(curve) => self.encode_ec(curve),
            KeySpec::Ed25519 => {
                let algorithm = AlgorithmIdentifier { algorithm: ED25519, parameters: None };
                info(algorithm, self.bare_point(|point| point.len() == ED25519_LEN)?)
            }
            KeySpec::Hmac(_) => None,
        }
    }

    fn encode_rsa(&self) -> Option<Vec<u8>> {
        let (modulus, exponent) = (UintRef::new(&self.modulus).ok()?, UintRef::new(&self.exponent).ok()?);
        let key = RsaPublicKey { modulus, exponent }.to_der().ok()?;
        info(AlgorithmIdentifier { algorithm: RSA, parameters: Some(AnyRef::NULL) }, &key)
    }

    fn encode_ec(&self, curve: Curve) -> Option<Vec<u8>> {
        // Uncompressed (SEC 1, 2.3.3): 4 and both coordinates. The field of each curve here is as wide as its order.
        let point = self.bare_point(|point| point.len() == 1 + 2 * curve.width() && point.first() == Some(&4))?;
        let parameters = AnyRef::from_der(&self.params).ok()?;
        info(AlgorithmIdentifier { algorithm: EC, parameters: Some(parameters) }, point)
    }

    /// Takes the point out of the OCTET STRING that the standard wants around it and that some devices leave out.
    fn bare_point(&self, right: impl Fn(&[u8]) -> bool) -> Option<&[u8]> {
        if right(&self.point) {
            return Some(&self.point);
        }
        let inner: &OctetStringRef = Decode::from_der(&self.point).ok()?;
        Some(inner.as_bytes()).filter(|point| right(point))
    }
}

/// Encodes a key under its algorithm.
fn info(algorithm: AlgorithmIdentifier<'_>, key: &[u8]) -> Option<Vec<u8>> {
    SubjectPublicKeyInfo { algorithm, key: BitStringRef::from_bytes(key).ok()? }.to_der().ok()
}

/// Gives the CKA_EC_PARAMS of a curve.
pub fn curve_params(curve: Curve) -> Option<Vec<u8>> {
    CURVES.iter().find(|(known, _)| *known == curve)?.1.to_der().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_taken_with_and_without_its_octet_string() {
        let params = curve_params(Curve::P256).unwrap();
        let bare = [&[4][..], &[7; 64]].concat();
        let framed = [&[4, 65][..], &bare].concat();
        let encode = |point: Vec<u8>| {
            Parts { params: params.clone(), point, ..Parts::default() }.encode(KeySpec::Ec(Curve::P256))
        };
        assert_eq!(encode(bare.clone()).unwrap(), encode(framed).unwrap());
        assert!(encode(bare).unwrap().ends_with(&[7; 64]));
        for bad in [vec![], vec![4; 66], [&[3][..], &[7; 64]].concat(), [&[2][..], &[7; 32]].concat()] {
            assert_eq!(encode(bad), None);
        }
    }

    #[test]
    fn ed25519_is_known_by_both_of_its_names() {
        for params in [ED25519.to_der().unwrap(), b"\x13\x0cedwards25519".to_vec()] {
            assert_eq!(Parts { params, ..Parts::default() }.edwards(), Some(KeySpec::Ed25519));
        }
        assert_eq!(Parts { params: b"\x13\x0aedwards448".to_vec(), ..Parts::default() }.edwards(), None);
    }

    #[test]
    fn the_bits_of_a_modulus_are_counted_without_leading_zeros() {
        for (modulus, bits) in [([&[0x80][..], &[0; 255]].concat(), 2048), ([&[0, 1][..], &[0; 256]].concat(), 2049)] {
            assert_eq!(Parts { modulus, ..Parts::default() }.rsa(), Some(KeySpec::Rsa(bits)));
        }
        assert_eq!(Parts::default().rsa(), None);
    }
}
