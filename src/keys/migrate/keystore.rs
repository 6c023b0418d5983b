//! Ethereum keystores: the Web3 Secret Storage Definition, version 3.
//!
//! The rules are:
//! - the MAC decides whether the password is right, before anything is decrypted, and is compared in constant time;
//! - the address in the file is checked, and never taken.

use serde::Deserialize;
use sha3::{Digest, Keccak256};
use subtle::ConstantTimeEq;

use super::legacy::read_secret;
use super::{Key, expect};
use crate::ck::{CKK_AES, CKM_AES_CTR};
use crate::error::{Error, Kind, Result};
use crate::keys::Asset;
use crate::mechanism::{self, Hash, InOut, Params, Written, password};
use crate::secret::{SecureBytes, SecurePrivateKey};

/// The length of the derived key in bytes: the first half of it encrypts, the second goes into the MAC.
const DERIVED: usize = 32;
/// The length of each half.
const HALF: usize = 16;

#[derive(Deserialize)]
struct Keystore {
    version: u32,
    #[serde(alias = "Crypto")]
    crypto: Crypto,
    address: Option<String>,
}

#[derive(Deserialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParams,
    ciphertext: String,
    kdf: String,
    kdfparams: KdfParams,
    mac: String,
}

#[derive(Deserialize)]
struct CipherParams {
    iv: String,
}

#[derive(Deserialize)]
struct KdfParams {
    dklen: usize,
    salt: String,
    n: Option<u64>,
    r: Option<u64>,
    p: Option<u64>,
    c: Option<u32>,
    prf: Option<String>,
}

/// Reads the key of a keystore.
///
/// # Errors
/// `DataInvalid` for a file that is none, a wrong password, an address of another key; what `ask` answers.
pub fn read(text: &SecureBytes, ask: &mut dyn FnMut() -> Result<SecureBytes>) -> Result<Key> {
    let keystore: Keystore = serde_json::from_slice(text.expose())
        .map_err(|error| invalid(format!("the file is no Ethereum keystore of version 3 (line {})", error.line())))?;
    let crypto = &keystore.crypto;
    if keystore.version != 3 || crypto.cipher != "aes-128-ctr" || crypto.kdfparams.dklen != DERIVED {
        return Err(invalid(
            "the keystore is not of version 3 with aes-128-ctr and a derived key of 32 bytes".to_owned(),
        ));
    }
    let (ciphertext, mac, iv) = (hex(&crypto.ciphertext)?, hex(&crypto.mac)?, hex(&crypto.cipherparams.iv)?);
    let derived = derive(crypto, &ask()?)?;
    let (encrypting, authenticating) = derived.expose().split_at(HALF);
    check_mac(authenticating, &ciphertext, &mac)?;
    let secret = decrypt(SecureBytes::copy_from(encrypting), &iv, &ciphertext)?;
    let asset = Asset::named("eth")?;
    let key = read_secret(asset, secret)?;
    if let Some(address) = keystore.address.as_deref().filter(|address| !address.is_empty()) {
        expect::address(asset, &key, address)?;
    }
    Ok(Key::new(key, None))
}

/// Derives the key that the password stands for.
fn derive(crypto: &Crypto, password: &SecureBytes) -> Result<SecureBytes> {
    let KdfParams { salt, n, r, p, c, prf, .. } = &crypto.kdfparams;
    let salt = hex(salt)?;
    match (crypto.kdf.as_str(), n, r, p, c, prf.as_deref()) {
        ("scrypt", Some(n), Some(r), Some(p), ..) => password::scrypt(password, &salt, [*n, *r, *p], DERIVED),
        ("pbkdf2", .., Some(rounds), Some("hmac-sha256") | None) => {
            password::pbkdf2(Hash::Sha256, password, &salt, *rounds, DERIVED)
        }
        _ => Err(invalid("the keystore derives its key neither by scrypt nor by pbkdf2 with hmac-sha256".to_owned())),
    }
}

fn check_mac(key: &[u8], ciphertext: &[u8], mac: &[u8]) -> Result<()> {
    let mut digest = Keccak256::new();
    digest.update(key);
    digest.update(ciphertext);
    match bool::from(digest.finalize().as_slice().ct_eq(mac)) {
        true => Ok(()),
        false => Err(invalid("the password is wrong, or the keystore is damaged".to_owned())),
    }
}

/// Decrypts with AES-128 in counter mode.
fn decrypt(key: SecureBytes, iv: &[u8], ciphertext: &[u8]) -> Result<SecureBytes> {
    let block = iv.try_into().map_err(|_| invalid("the keystore's iv has not 16 bytes".to_owned()))?;
    let row = mechanism::key_type(CKK_AES).ok_or_else(|| Error::internal("there is no AES"))?;
    let key = (row.secret_key)(&crate::ck::Attributes::new(), &SecurePrivateKey::new(key))?;
    let start = mechanism::find(CKM_AES_CTR).and_then(|row| row.decrypt);
    let start = start.ok_or_else(|| Error::internal("there is no CKM_AES_CTR"))?;
    let mut cipher = start(&std::sync::Arc::new(key), &Params::AesCtr { bits: 128, block })?;
    let mut plain = SecureBytes::try_zeroed(ciphertext.len())?;
    match cipher.single(InOut::from_slices(ciphertext, plain.expose_mut()))? {
        Written::Bytes(len) if len == ciphertext.len() => Ok(plain),
        _ => Err(Error::internal("counter mode changed a length")),
    }
}

fn hex(text: &str) -> Result<Vec<u8>> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes());
    bytes.map_err(|_| invalid("a field of the keystore is not hexadecimal".to_owned()))
}

fn invalid(text: String) -> Error {
    Error::new(Kind::DataInvalid, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Web3 Secret Storage Definition, test vector PBKDF2-SHA-256: password "testpassword".
    const PBKDF2: &str = r#"{"crypto": {"cipher": "aes-128-ctr",
        "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
        "kdf": "pbkdf2",
        "kdfparams": {"c": 262144, "dklen": 32, "prf": "hmac-sha256",
            "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},
        "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},
        "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6", "version": 3}"#;
    /// The same, test vector Scrypt. Its N is not below 2^(16 r), as RFC 7914, 2, asks for, and no library here takes it.
    const BEYOND_RFC_7914: &str = r#"{"crypto": {"cipher": "aes-128-ctr",
        "cipherparams": {"iv": "83dbcc02d8ccb40e466191a123791e0e"},
        "ciphertext": "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
        "kdf": "scrypt",
        "kdfparams": {"dklen": 32, "n": 262144, "p": 8, "r": 1,
            "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19"},
        "mac": "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097"},
        "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6", "version": 3}"#;
    /// A keystore of go-ethereum's own tests (accounts/keystore/testdata), password "foobar".
    const SCRYPT: &str = r#"{"address": "7ef5a6135f1fd6a02593eedc869c6d41d934aef8", "crypto": {"cipher": "aes-128-ctr",
        "ciphertext": "1d0839166e7a15b9c1333fc865d69858b22df26815ccf601b28219b6192974e1",
        "cipherparams": {"iv": "8df6caa7ff1b00c4e871f002cb7921ed"},
        "kdf": "scrypt", "kdfparams": {"dklen": 32, "n": 8, "p": 16, "r": 8,
            "salt": "e5e6ef3f4ea695f496b643ebd3f75c0aa58ef4070e90c80c5d3fb0241bf1595c"},
        "mac": "6d16dfde774845e4585357f24bce530528bc69f4f84e1e22880d34fa45c273e5"},
        "id": "950077c7-71e3-4c44-a4a1-143919141ed4", "version": 3}"#;
    /// The address of the private key of the first, 7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d.
    const ADDRESS: &str = "0x008aeeda4d805471df9b2a5b0f38a0c3bcba786b";

    fn open(text: &str, password: &str) -> Result<Key> {
        read(&SecureBytes::copy_from(text.as_bytes()), &mut || Ok(SecureBytes::copy_from(password.as_bytes())))
    }

    #[test]
    fn r39_the_published_keystores_are_read() {
        let scrypt = "0x7ef5a6135f1fd6a02593eedc869c6d41d934aef8";
        for (text, password, wanted) in [
            (PBKDF2, "testpassword", ADDRESS),
            (&PBKDF2.replace("crypto", "Crypto"), "testpassword", ADDRESS),
            (SCRYPT, "foobar", scrypt),
        ] {
            let key = open(text, password).unwrap();
            let address = Asset::named("eth").unwrap().address(key.key.parts(), None).unwrap();
            assert_eq!(address.to_lowercase(), wanted);
        }
    }

    #[test]
    fn a_wrong_password_address_or_file_is_refused() {
        let with = |address: &str| PBKDF2.replace("\"version\"", &format!("\"address\": \"{address}\", \"version\""));
        open(&with(&ADDRESS[2..]), "testpassword").unwrap();
        for (text, password, word) in [
            (PBKDF2.to_owned(), "testpasswore", "password is wrong"),
            (PBKDF2.replace("517e", "517f"), "testpassword", "password is wrong"),
            (PBKDF2.replace("5318", "5319"), "testpassword", "password is wrong"),
            (with("008aeeda4d805471df9b2a5b0f38a0c3bcba786c"), "testpassword", "address"),
            (PBKDF2.replace("\"version\": 3", "\"version\": 1"), "", "version 3"),
            (PBKDF2.replace("aes-128-ctr", "aes-128-cbc"), "", "version 3"),
            (PBKDF2.replace("hmac-sha256", "hmac-sha512"), "", "neither by scrypt"),
            (PBKDF2.replace("\"c\": 262144", "\"c\": 0"), "", "rounds"),
            (PBKDF2.replace("6087dab2", "xx"), "", "hexadecimal"),
            (BEYOND_RFC_7914.to_owned(), "testpassword", "scrypt does not take"),
            (SCRYPT.replace("\"n\": 8", "\"n\": 9"), "", "scrypt does not take"),
            (SCRYPT.replace("\"n\": 8", "\"n\": 1099511627776"), "", "scrypt"),
            (SCRYPT.to_owned(), "foobaz", "password is wrong"),
            (PBKDF2.replace("\"mac\"", "\"cam\""), "", "no Ethereum keystore"),
            ("{".to_owned(), "", "no Ethereum keystore"),
            ("[]".to_owned(), "", "no Ethereum keystore"),
        ] {
            let error = open(&text, password).err().unwrap_or_else(|| panic!("{text}"));
            assert!(error.message().contains(word), "{text}: {error}");
        }
    }
}
