//! What a record says of its key, checked against what follows from the secret.

use data_encoding::HEXLOWER_PERMISSIVE;

use super::pem;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::keys::Asset;
use crate::mechanism::GivenKey;

/// Checks a public key: `SubjectPublicKeyInfo` as PEM or in hexadecimal, or the bare key in hexadecimal (a point in full, compressed, or
/// without its first byte; the 32 bytes of Ed25519).
///
/// # Errors
/// `DataInvalid` for another key, and for a text that is none of these.
pub fn public_key(key: &GivenKey, text: &str) -> Result<()> {
    let given = read(text.trim())?;
    let info = key.public_key_info()?;
    if !info.is_empty() && (given == info || bare_forms(key.parts()).contains(&given)) {
        return Ok(());
    }
    Err(invalid(match info.is_empty() {
        true => "the record has a public key, and a secret key has none",
        false => "the public key is not that of the secret",
    }))
}

fn read(text: &str) -> Result<Vec<u8>> {
    if text.starts_with(pem::START) {
        let blocks = pem::blocks(text.as_bytes())?;
        let found = blocks.into_iter().find(|block| block.label == "PUBLIC KEY");
        return found.map(|block| block.der.expose().to_vec()).ok_or_else(|| invalid("the PEM text has no PUBLIC KEY"));
    }
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes());
    bytes.map_err(|_| invalid("the public key is neither hexadecimal nor PEM"))
}

/// Gives the forms in which a bare key on a curve is written.
fn bare_forms(parts: &Attributes) -> Vec<Vec<u8>> {
    let point = parts.bytes(CKA_EC_POINT).and_then(|framed| {
        let octets: &der::asn1::OctetStringRef = der::Decode::from_der(framed).ok()?;
        Some(octets.as_bytes())
    });
    match point {
        Some([4, coordinates @ ..]) if coordinates.len() >= 64 => {
            let (x, y) = coordinates.split_at(coordinates.len() / 2);
            let sign = if y.last().is_some_and(|last| last & 1 == 1) { 3 } else { 2 };
            vec![[&[4], coordinates].concat(), coordinates.to_vec(), [&[sign], x].concat()]
        }
        Some(point) => vec![point.to_vec()],
        None => Vec::new(),
    }
}

/// Checks an address in any form that the asset has.
///
/// # Errors
/// `DataInvalid` for another address, and for an asset without addresses.
pub fn address(asset: &Asset, key: &GivenKey, text: &str) -> Result<()> {
    let forms = asset.addresses(key.parts())?;
    if forms.iter().any(|(_, address)| same_address(address, text.trim())) {
        return Ok(());
    }
    if forms.is_empty() {
        return Err(invalid(&format!("the record has an address, and a {} key has none", asset.name)));
    }
    let forms: Vec<_> = forms.iter().map(|(form, address)| format!("{form} {address}")).collect();
    Err(invalid(&format!("the address is not that of the secret, which is {}", forms.join(", "))))
}

/// Compares addresses. Hexadecimal ones and Bech32 may be written in capitals or small letters, but for a checksum in their mixture
/// (EIP-55).
fn same_address(ours: &str, given: &str) -> bool {
    let of_one_case = |text: &str| {
        let digits = text.trim_start_matches("0x");
        digits.to_ascii_lowercase() == digits || digits.to_ascii_uppercase() == digits
    };
    let folds = ours.starts_with("0x") || ours.starts_with("bc1");
    let bare = ours.strip_prefix("0x");
    let same = |text: &str| ours == text || folds && of_one_case(text) && ours.eq_ignore_ascii_case(text);
    same(given) || bare.is_some() && !given.starts_with("0x") && same(&format!("0x{given}"))
}

fn invalid(text: &str) -> Error {
    Error::new(Kind::DataInvalid, text.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::keys::migrate::legacy::read_secret;
    use crate::secret::SecureBytes;

    fn one(asset: &str) -> (&'static Asset, GivenKey) {
        let asset = Asset::named(asset).unwrap();
        let mut secret = SecureBytes::zeroed(32);
        *secret.expose_mut().last_mut().unwrap() = 1;
        (asset, read_secret(asset, secret).unwrap())
    }

    #[test]
    fn a_public_key_is_known_in_each_of_its_forms() {
        let (_, key) = one("btc");
        let x = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        let y = "483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";
        for good in [format!("02{x}"), format!("04{x}{y}"), format!("{x}{y}"), format!("0x02{}", x.to_uppercase())] {
            public_key(&key, &good).unwrap();
        }
        let info = key.public_key_info().unwrap();
        public_key(&key, &data_encoding::HEXLOWER.encode(&info)).unwrap();
        let base64 = data_encoding::BASE64.encode(&info);
        let (first, rest) = base64.split_at(64);
        public_key(&key, &format!("-----BEGIN PUBLIC KEY-----\n{first}\n{rest}\n-----END PUBLIC KEY-----\n")).unwrap();
        for bad in
            [format!("03{x}"), x.to_owned(), String::new(), "zz".to_owned(), "-----BEGIN PUBLIC KEY-----".to_owned()]
        {
            assert_eq!(public_key(&key, &bad).unwrap_err().kind(), Kind::DataInvalid, "{bad}");
        }
    }

    #[test]
    fn an_address_is_known_in_each_of_its_forms() {
        let (bitcoin, key) = one("btc");
        for good in [
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
            "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4",
            "1BgGZ9tcN4rm9KBzDn7KprQz87SZ26SAMH",
            "1EHNa6Q4Jz2uvNExL497mE43ikXhwF6kZm",
            "3JvL6Ymt8MVWiCNHC7oWU6nLeHNJKLZGLN",
        ] {
            address(bitcoin, &key, good).unwrap();
        }
        for bad in ["bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", "1bgGZ9tcN4rm9KBzDn7KprQz87SZ26SAMH", ""] {
            assert!(address(bitcoin, &key, bad).unwrap_err().message().contains("p2wpkh bc1qw508"), "{bad}");
        }
        let (ethereum, key) = one("eth");
        for good in [
            "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf",
            "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf",
            "7e5f4552091a69125d5dfcb7b8c2659029395bdf",
            "7E5F4552091A69125D5DFCB7B8C2659029395BDF",
        ] {
            address(ethereum, &key, good).unwrap();
        }
        // One capital is another checksum.
        assert!(address(ethereum, &key, "0x7E5F4552091A69125d5DfCb7b8C2659029395bdf").is_err());
        let (plain, key) = one("p256");
        assert!(address(plain, &key, "1BgGZ9tcN4rm9KBzDn7KprQz87SZ26SAMH").unwrap_err().message().contains("has none"));
    }
}
