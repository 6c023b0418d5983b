//! Assets: what a managed key is made of, and how its address looks. A new asset is one row.

use super::address;
use crate::ck::*;
use crate::error::{Error, Kind, Result};

/// One form of address.
#[derive(Debug)]
pub struct AddressForm {
    /// Its name, such as `p2wpkh`.
    pub name: &'static str,
    make: fn(&[u8]) -> Result<String>,
}

/// The value of an attribute in a row.
#[derive(Debug, Clone, Copy)]
enum Fixed {
    Number(CK_ULONG),
    Bytes(&'static [u8]),
    Flag(bool),
}

impl From<Fixed> for Value {
    fn from(fixed: Fixed) -> Self {
        match fixed {
            Fixed::Number(number) => Self::Ulong(number),
            Fixed::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
            Fixed::Flag(flag) => Self::Bool(flag),
        }
    }
}

type Fields = &'static [(CK_ATTRIBUTE_TYPE, Fixed)];

/// One asset.
#[derive(Debug)]
pub struct Asset {
    /// Its name, in lower case.
    pub name: &'static str,
    /// The mechanism that makes its keys.
    pub mechanism: CK_MECHANISM_TYPE,
    /// What the secret key, or the public half, is made with.
    first: Fields,
    /// What the private half is made with.
    private: Fields,
    /// The forms of its address, the usual one first; none for plain types.
    addresses: &'static [AddressForm],
}

const BITCOIN: &[AddressForm] = &[
    AddressForm { name: "p2wpkh", make: address::p2wpkh },
    AddressForm { name: "p2pkh", make: address::p2pkh },
    AddressForm { name: "p2sh-p2wpkh", make: address::p2sh_p2wpkh },
    AddressForm { name: "p2pkh-uncompressed", make: address::p2pkh_uncompressed },
];
const ETHEREUM: &[AddressForm] = &[AddressForm { name: "eip55", make: address::eip55 }];
const SOLANA: &[AddressForm] = &[AddressForm { name: "base58", make: address::solana }];

/// The curves, as DER of their object identifiers (RFC 5480, SEC 2, RFC 8410).
const SECP256K1: Fields = &[(CKA_EC_PARAMS, Fixed::Bytes(&[0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x0A]))];
const P256: Fields = &[(CKA_EC_PARAMS, Fixed::Bytes(&[0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07]))];
const P384: Fields = &[(CKA_EC_PARAMS, Fixed::Bytes(&[0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x22]))];
const P521: Fields = &[(CKA_EC_PARAMS, Fixed::Bytes(&[0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x23]))];
const ED25519: Fields = &[(CKA_EC_PARAMS, Fixed::Bytes(&[0x06, 0x03, 0x2B, 0x65, 0x70]))];
/// The public exponent 65537.
const EXPONENT: (CK_ATTRIBUTE_TYPE, Fixed) = (CKA_PUBLIC_EXPONENT, Fixed::Bytes(&[1, 0, 1]));
const RSA2048: Fields = &[(CKA_MODULUS_BITS, Fixed::Number(2048)), EXPONENT, (CKA_WRAP, Fixed::Flag(true))];
const RSA3072: Fields = &[(CKA_MODULUS_BITS, Fixed::Number(3072)), EXPONENT, (CKA_WRAP, Fixed::Flag(true))];
const RSA4096: Fields = &[(CKA_MODULUS_BITS, Fixed::Number(4096)), EXPONENT, (CKA_WRAP, Fixed::Flag(true))];
const UNWRAPS: Fields = &[(CKA_UNWRAP, Fixed::Flag(true))];
const AES128: Fields =
    &[(CKA_VALUE_LEN, Fixed::Number(16)), (CKA_WRAP, Fixed::Flag(true)), (CKA_UNWRAP, Fixed::Flag(true))];
const AES256: Fields =
    &[(CKA_VALUE_LEN, Fixed::Number(32)), (CKA_WRAP, Fixed::Flag(true)), (CKA_UNWRAP, Fixed::Flag(true))];

const fn pair(name: &'static str, first: Fields, addresses: &'static [AddressForm]) -> Asset {
    Asset { name, mechanism: CKM_EC_KEY_PAIR_GEN, first, private: &[], addresses }
}

const fn edwards(name: &'static str, addresses: &'static [AddressForm]) -> Asset {
    Asset { mechanism: CKM_EC_EDWARDS_KEY_PAIR_GEN, ..pair(name, ED25519, addresses) }
}

const fn rsa(name: &'static str, first: Fields) -> Asset {
    Asset { mechanism: CKM_RSA_PKCS_KEY_PAIR_GEN, private: UNWRAPS, ..pair(name, first, &[]) }
}

const fn aes(name: &'static str, first: Fields) -> Asset {
    Asset { mechanism: CKM_AES_KEY_GEN, ..pair(name, first, &[]) }
}

/// The assets.
#[rustfmt::skip] // one line each
pub static ASSETS: &[Asset] = &[
    pair("btc", SECP256K1, BITCOIN),
    pair("eth", SECP256K1, ETHEREUM),
    edwards("sol", SOLANA),
    pair("secp256k1", SECP256K1, &[]),
    pair("p256", P256, &[]),
    pair("p384", P384, &[]),
    pair("p521", P521, &[]),
    edwards("ed25519", &[]),
    rsa("rsa2048", RSA2048),
    rsa("rsa3072", RSA3072),
    rsa("rsa4096", RSA4096),
    aes("aes128", AES128),
    aes("aes256", AES256),
];

impl Asset {
    /// Finds an asset by its name, in any case.
    ///
    /// # Errors
    /// `ArgumentsBad` that lists the names.
    pub fn named(name: &str) -> Result<&'static Self> {
        ASSETS.iter().find(|asset| asset.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
            let names: Vec<_> = ASSETS.iter().map(|asset| asset.name).collect();
            let name: String = name.chars().take(32).collect();
            Error::arguments_bad(format!("there is no asset `{}`; there is: {}", name.escape_debug(), names.join(", ")))
        })
    }

    /// Makes the templates of a key: of the secret key or public half, and of the private half.
    pub fn templates(&self) -> (Attributes, Attributes) {
        let fill = |fields: Fields| fields.iter().map(|(id, value)| (*id, Value::from(*value))).collect();
        (fill(self.first), fill(self.private))
    }

    /// Tells whether its keys have addresses.
    pub fn has_addresses(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Makes the address of a public key from the attributes of either half; the form is the asset's usual one unless named.
    ///
    /// # Errors
    /// `FunctionNotSupported` for an asset without addresses; `ArgumentsBad` for a form that it has not.
    pub fn address(&self, attributes: &Attributes, form: Option<&str>) -> Result<String> {
        let usual = self.addresses.first().ok_or_else(|| {
            Error::new(Kind::FunctionNotSupported, format!("a key of type {} has no address", self.name))
        })?;
        let found =
            form.map_or(Some(usual), |form| self.addresses.iter().find(|known| known.name.eq_ignore_ascii_case(form)));
        let found = found.ok_or_else(|| {
            let names: Vec<_> = self.addresses.iter().map(|form| form.name).collect();
            Error::arguments_bad(format!("a {} address has no such form; it has: {}", self.name, names.join(", ")))
        })?;
        (found.make)(point(attributes)?)
    }

    /// Makes the address of a public key in every form, each with its name.
    ///
    /// # Errors
    /// `PublicKeyInvalid` when the attributes have no public key.
    pub fn addresses(&self, attributes: &Attributes) -> Result<Vec<(&'static str, String)>> {
        self.addresses.iter().map(|form| Ok((form.name, (form.make)(point(attributes)?)?))).collect()
    }
}

/// Takes the point out of its frame, a DER OCTET STRING of less than 128 bytes (PKCS #11 v3.2, 6.3).
fn point(attributes: &Attributes) -> Result<&[u8]> {
    match attributes.bytes(CKA_EC_POINT) {
        Some([4, len, point @ ..]) if usize::from(*len) == point.len() && *len < 128 => Ok(point),
        _ => Err(Error::from(Kind::PublicKeyInvalid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_are_unique() {
        for asset in ASSETS {
            assert_eq!(Asset::named(&asset.name.to_uppercase()).expect("known").name, asset.name);
            assert_eq!(ASSETS.iter().filter(|other| other.name == asset.name).count(), 1);
        }
        for unknown in ["", "doge\n", "p25", &"x".repeat(10_000)] {
            let error = Asset::named(unknown).expect_err("unknown");
            assert!(error.kind() == Kind::ArgumentsBad && error.message().contains("btc, eth, sol"), "{error}");
            assert!(error.message().len() < 400);
        }
    }

    #[test]
    fn plain_types_have_no_address_and_forms_are_named() {
        let attributes = Attributes::new();
        let plain = Asset::named("p256").expect("known");
        assert_eq!(plain.address(&attributes, None).expect_err("none").kind(), Kind::FunctionNotSupported);
        assert!(plain.addresses(&attributes).expect("none").is_empty());
        let bitcoin = Asset::named("btc").expect("known");
        assert!(bitcoin.address(&attributes, Some("p2tr")).expect_err("none").message().contains("p2wpkh, p2pkh"));
        assert_eq!(bitcoin.address(&attributes, None).expect_err("no key").kind(), Kind::PublicKeyInvalid);
    }
}
