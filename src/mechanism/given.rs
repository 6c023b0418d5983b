//! Keys that come from elsewhere: read from what another system kept, and checked as C_CreateObject checks key material.
//!
//! Nothing of the public half is taken from the source: it follows from the secret.

use super::key::KeyType;
use super::{KEY_TYPES, Key, key_type};
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::secret::{SecureBytes, SecurePrivateKey};

/// A key that was read: its type, the attributes that follow from its secret, and the secret in the type's own encoding.
pub struct GivenKey {
    row: &'static KeyType,
    parts: Attributes,
    secret: SecurePrivateKey,
}

impl GivenKey {
    /// Reads a private key from PKCS #8 `PrivateKeyInfo` (RFC 5958).
    ///
    /// # Errors
    /// `WrappedKeyInvalid` for anything else; `AttributeValueInvalid` for a size that is not supported.
    pub fn of_pkcs8(der: &SecureBytes) -> Result<Self> {
        let mut refused = None;
        for row in KEY_TYPES.iter().copied().flatten().filter(|row| row.public_key.is_some()) {
            let mut parts = Attributes::new();
            match (row.from_wrapped)(&mut parts, der) {
                Ok(secret) => return Ok(Self { row, parts, secret }),
                Err(error) if error.kind() == Kind::WrappedKeyInvalid => {}
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| {
            let text = "it is no PKCS #8 PrivateKeyInfo of a sound key that is supported: RSA, P-256, P-384, P-521 and secp256k1 (as \
                        named curves), Ed25519, X25519";
            Error::new(Kind::WrappedKeyInvalid, text)
        }))
    }

    /// Reads the value of a key of a type: the scalar of a curve, the seed of Ed25519, the bytes of a secret key. `template` has what
    /// else there is to know (`CKA_EC_PARAMS`). The value must have the full length of its kind.
    ///
    /// # Errors
    /// `AttributeValueInvalid`, `KeySizeRange` for a value that is none; `KeyTypeInconsistent` for a type without such a value.
    pub fn of_value(id: CK_KEY_TYPE, mut template: Attributes, value: SecureBytes) -> Result<Self> {
        let row = key_type(id).filter(|row| row.secret_attributes == [CKA_VALUE]).ok_or_else(Key::wrong_type)?;
        let len = value.len();
        template.set(CKA_VALUE, value);
        let secret = (row.import)(&mut template)?;
        match secret.expose().len() {
            full if full == len => Ok(Self { row, parts: template, secret }),
            full => {
                let text = format!("the secret has {len} bytes, and a key of this kind {full}");
                Err(Error::new(Kind::AttributeValueInvalid, text))
            }
        }
    }

    /// Tells the type (`CKK_…`).
    pub fn key_type(&self) -> CK_KEY_TYPE {
        self.row.id
    }

    /// Tells whether it has a public half.
    pub fn is_pair(&self) -> bool {
        self.row.public_key.is_some()
    }

    /// Gives the attributes that follow from the secret, none of them secret: for a pair, what both halves carry.
    pub fn parts(&self) -> &Attributes {
        &self.parts
    }

    /// Gives the attributes of the public half, such as `CKA_MODULUS_BITS`; nothing for a secret key.
    ///
    /// # Errors
    /// `PublicKeyInvalid` when the library below does not read what it wrote.
    pub fn public_parts(&self) -> Result<Attributes> {
        match self.row.from_public_key_info {
            Some(read) => read(&self.public_key_info()?),
            None => Ok(Attributes::new()),
        }
    }

    /// Gives the public key as `SubjectPublicKeyInfo`; empty for a secret key.
    ///
    /// # Errors
    /// `GeneralError` when the library below fails.
    pub fn public_key_info(&self) -> Result<Vec<u8>> {
        self.row.public_key_info.map_or(Ok(Vec::new()), |encode| encode(&self.parts))
    }

    /// Gives the secret up.
    pub fn into_secret(self) -> SecurePrivateKey {
        self.secret
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    /// The curve of a template, as DER of its object identifier.
    fn on(curve: &str) -> Attributes {
        [(CKA_EC_PARAMS, Value::Bytes(HEXLOWER.decode(curve.as_bytes()).unwrap()))].into_iter().collect()
    }

    const SECP256K1: &str = "06052b8104000a";
    const P256: &str = "06082a8648ce3d030107";
    const ED25519: &str = "06032b6570";
    /// The order of secp256k1 (SEC 2, 2.4.1).
    const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

    fn value(hex: &str) -> SecureBytes {
        SecureBytes::take(HEXLOWER.decode(hex.as_bytes()).unwrap())
    }

    #[test]
    fn the_public_half_follows_from_the_value() {
        // SEC 2, 2.4.1: the private key 1 has the generator as its public key.
        let one = format!("{:064x}", 1);
        let key = GivenKey::of_value(CKK_EC, on(SECP256K1), value(&one)).unwrap();
        assert!(key.is_pair() && key.key_type() == CKK_EC);
        let point = HEXLOWER.encode(key.public_parts().unwrap().bytes(CKA_EC_POINT).unwrap());
        assert!(point.starts_with("04410479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"), "{point}");
        // RFC 8032, 7.1, test 1.
        let seed = value("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let key = GivenKey::of_value(CKK_EC_EDWARDS, on(ED25519), seed).unwrap();
        let point = HEXLOWER.encode(key.parts().bytes(CKA_EC_POINT).unwrap());
        assert_eq!(point, "0420d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let key = GivenKey::of_value(CKK_AES, Attributes::new(), SecureBytes::zeroed(32)).unwrap();
        assert!(!key.is_pair() && key.public_key_info().unwrap().is_empty());
        assert_eq!(key.parts().ulong(CKA_VALUE_LEN), Some(32));
    }

    #[test]
    fn a_value_of_the_wrong_size_or_range_is_refused() {
        let zero = "0".repeat(64);
        for (curve, bad) in [
            (SECP256K1, zero.as_str()),
            (SECP256K1, ORDER),
            (SECP256K1, "01"),
            (SECP256K1, ""),
            (SECP256K1, &"ff".repeat(32)),
            (SECP256K1, &format!("00{:064x}", 1)),
            (P256, &zero),
            (P256, "01"),
            (P256, &"ff".repeat(32)),
        ] {
            let error = GivenKey::of_value(CKK_EC, on(curve), value(bad)).err().unwrap();
            assert_eq!(error.kind(), Kind::AttributeValueInvalid, "{bad}: {error}");
        }
        assert!(GivenKey::of_value(CKK_EC_EDWARDS, on(ED25519), SecureBytes::zeroed(31)).is_err());
        assert!(GivenKey::of_value(CKK_AES, Attributes::new(), SecureBytes::zeroed(31)).is_err());
        assert!(GivenKey::of_value(CKK_RSA, Attributes::new(), SecureBytes::zeroed(256)).is_err());
    }

    #[test]
    fn pkcs8_is_read_by_the_type_that_it_has() {
        for row in KEY_TYPES.iter().copied().flatten().filter(|row| row.public_key.is_some()) {
            let (curve, value_len) = match row.id {
                CKK_EC_EDWARDS => (ED25519, 32),
                CKK_EC_MONTGOMERY => ("06032b656e", 32),
                CKK_EC => (P256, 32),
                _ => continue,
            };
            let mut seed = SecureBytes::zeroed(value_len);
            seed.expose_mut().fill(0x40);
            let key = GivenKey::of_value(row.id, on(curve), seed).unwrap();
            let der = (row.to_wrapped)(&key.parts, &key.secret).unwrap();
            let again = GivenKey::of_pkcs8(&der).unwrap();
            assert_eq!((again.key_type(), again.parts()), (row.id, key.parts()));
            assert!(again.into_secret() == key.secret);
            for cut in [0, 1, der.len() / 2, der.len() - 1] {
                assert!(GivenKey::of_pkcs8(&der.clone().truncated(cut)).is_err(), "{cut}");
            }
        }
    }
}
