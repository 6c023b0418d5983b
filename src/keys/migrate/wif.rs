//! Bitcoin keys in wallet import format: Base58Check of a version byte, the scalar, and a 1 where the public key is compressed.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Key;
use super::legacy::read_secret;
use crate::error::{Error, Kind, Result};
use crate::keys::Asset;
use crate::secret::SecureBytes;

/// The version byte of private keys on the main chain, and on the test chains.
const MAIN: u8 = 0x80;
const TEST: u8 = 0xEF;
/// The longest text of a key: 38 bytes in Base58.
const LONGEST: usize = 52;
/// The lengths of what it stands for: a version byte, a scalar, perhaps a 1, and 4 bytes of checksum.
const PLAIN: usize = 37;
const COMPRESSED: usize = 38;
const CHECKSUM: usize = 4;

/// Reads the one key of a text.
///
/// # Errors
/// `DataInvalid` for a text that is none, a wrong checksum, a key of a test chain; `AttributeValueInvalid` for a scalar out of range.
pub fn read(text: &SecureBytes) -> Result<Key> {
    let bytes = decode(trim(text.expose()))?;
    let (version, rest) = bytes.expose().split_first().ok_or_else(none)?;
    match *version {
        MAIN => {}
        TEST => return Err(invalid("the key is one of a test chain: only keys of the main chain are taken")),
        _ => return Err(none()),
    }
    let (scalar, compressed) = match (rest.len(), rest) {
        (32, scalar) => (scalar, false),
        (33, [scalar @ .., 1]) => (scalar, true),
        _ => return Err(none()),
    };
    let mut key = Key::new(read_secret(Asset::named("btc")?, SecureBytes::copy_from(scalar))?, None);
    key.note = (!compressed).then(|| {
        "the wallet wrote this key uncompressed: its coins are at the address of the form p2pkh-uncompressed".to_owned()
    });
    Ok(key)
}

/// Takes Base58 and its checksum off.
fn decode(text: &[u8]) -> Result<SecureBytes> {
    if text.len() > LONGEST {
        return Err(match text.contains(&b'\n') {
            true => invalid("the file has more than one line: it holds one key and nothing else"),
            false => none(),
        });
    }
    let mut bytes = SecureBytes::zeroed(LONGEST);
    let len = bs58::decode(text).onto(bytes.expose_mut()).map_err(|_| none())?;
    let bytes = bytes.truncated(len);
    if ![PLAIN, COMPRESSED].contains(&len) {
        return Err(none());
    }
    let (body, checksum) = bytes.expose().split_at(len - CHECKSUM);
    let mut digest = Sha256::digest(Sha256::digest(body));
    let right: bool = digest.get(..CHECKSUM).unwrap_or_default().ct_eq(checksum).into();
    zeroize::Zeroize::zeroize(digest.as_mut_slice());
    match right {
        true => Ok(bytes.truncated(len - CHECKSUM)),
        false => Err(invalid("the checksum of the key is wrong: is a letter of it mistyped?")),
    }
}

fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

fn none() -> Error {
    invalid("the file is no private key in wallet import format (WIF)")
}

fn invalid(text: &'static str) -> Error {
    Error::new(Kind::DataInvalid, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn wif(text: &str) -> Result<Key> {
        read(&SecureBytes::copy_from(text.as_bytes()))
    }

    fn address(key: &Key, form: &str) -> String {
        Asset::named("btc").unwrap().address(key.key.parts(), Some(form)).unwrap()
    }

    #[test]
    fn r39_the_published_keys_are_read() {
        // The Bitcoin wiki, "Wallet import format".
        let key = wif("5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ\n").unwrap();
        assert_eq!(address(&key, "p2pkh-uncompressed"), "1GAehh7TsJAHuUAeKZcXf5CnwuGuGgyX2S");
        assert!(key.note.unwrap().contains("p2pkh-uncompressed"));
        // The private key 1, compressed (BIP 173 has its address) and not.
        let key = wif(" KwDiBf89QgGbjEhKnhXJuH7LrciVrZi3qYjgd9M7rFU73sVHnoWn \r\n").unwrap();
        assert_eq!(address(&key, "p2wpkh"), "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4");
        assert!(key.note.is_none());
        let key = wif("5HpHagT65TZzG1PH3CSu63k8DbpvD8s5ip4nEB3kEsreAnchuDf").unwrap();
        assert_eq!(address(&key, "p2pkh-uncompressed"), "1EHNa6Q4Jz2uvNExL497mE43ikXhwF6kZm");
        // BIP 38, the decrypted keys of its test vectors.
        let key = wif("L44B5gGEpqEDRS9vVPz7QT35jcBG2r3CZwSwQ4fCewXAhAhqGVpP").unwrap();
        assert_eq!(address(&key, "p2pkh"), "164MQi977u9GUteHr4EPH27VkkdxmfCvGW");
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_quoted() {
        let encode = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let check = Sha256::digest(Sha256::digest(&bytes));
            bytes.extend(check.iter().take(CHECKSUM));
            bs58::encode(bytes).into_string()
        };
        let good = "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ";
        let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
        let order = data_encoding::HEXLOWER.decode(order.as_bytes()).unwrap();
        for (bad, word) in [
            (good.replace("TLvy", "T0vy"), "WIF"),
            (good.replacen('5', "6", 1), "checksum"),
            (good.replace("TLvy", "TLvz"), "checksum"),
            (format!("{good}\n{good}"), "more than one line"),
            (encode(&[&[TEST][..], &[7; 32]].concat()), "test chain"),
            (encode(&[&[0][..], &[7; 32]].concat()), "WIF"),
            (encode(&[&[MAIN][..], &[7; 33]].concat()), "WIF"),
            (encode(&[&[MAIN][..], &[0; 32]].concat()), "above 0"),
            (encode(&[&[MAIN][..], &order].concat()), "below the order"),
            (good[..40].to_owned(), "WIF"),
            ("x".repeat(1000), "WIF"),
            (String::new(), "WIF"),
        ] {
            let error = wif(&bad).err().unwrap_or_else(|| panic!("{bad}"));
            assert!(error.message().contains(word), "{bad}: {error}");
            assert!(bad.len() < 10 || !error.message().contains(&bad[..10]), "{error}");
        }
    }
}
