//! PKCS #8 files: PEM or DER, encrypted or not. Certificates in the same PEM file come along.

use super::{Key, certificate, pem};
use crate::error::{Error, Kind, Result};
use crate::mechanism::{GivenKey, container};
use crate::secret::SecureBytes;

/// The labels of the two forms (RFC 7468, 10 and 11).
const PLAIN: &str = "PRIVATE KEY";
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
const CERTIFICATE: &str = "CERTIFICATE";

/// Reads the one private key of a file, and the certificates beside it.
///
/// # Errors
/// `DataInvalid`, `EncryptedDataInvalid`, `WrappedKeyInvalid` for what is none, for a wrong password, and for a type that is not supported;
/// what `ask` answers.
pub fn read(text: &SecureBytes, ask: &mut dyn FnMut() -> Result<SecureBytes>) -> Result<Key> {
    let blocks = pem::blocks(text.expose())?;
    if blocks.is_empty() {
        return Ok(Key::new(open(text, ask)?, None));
    }
    let mut keys = blocks.iter().filter(|block| [PLAIN, ENCRYPTED].contains(&block.label.as_str()));
    let key = match (keys.next(), keys.next()) {
        (Some(block), None) => open(&block.der, ask)?,
        (Some(_), Some(_)) => {
            return Err(invalid("the file has more than one private key: put each into a file of its own"));
        }
        (None, _) => return Err(no_key(&blocks)),
    };
    let mut key = Key::new(key, None);
    for block in blocks.iter().filter(|block| block.label == CERTIFICATE) {
        key.certificates.push(certificate::template(block.der.expose(), None, &key.key)?);
    }
    Ok(key)
}

/// Opens a key in DER, whichever form it has.
fn open(der: &SecureBytes, ask: &mut dyn FnMut() -> Result<SecureBytes>) -> Result<GivenKey> {
    match container::is_encrypted_pkcs8(der.expose()) {
        true => GivenKey::of_pkcs8(&container::decrypt_pkcs8(der.expose(), &ask()?)?),
        false => GivenKey::of_pkcs8(der),
    }
}

/// Says what a file has in place of a key, and what to do.
fn no_key(blocks: &[pem::Block]) -> Error {
    match blocks.iter().find(|block| block.label.ends_with(PLAIN)) {
        Some(block) if block.label.starts_with("OPENSSH") => {
            invalid("the key has OpenSSH's own form: `ssh-keygen -p -m PKCS8` brings a copy of it to PKCS #8")
        }
        Some(_) => {
            invalid("the key has an older form: `openssl pkcs8 -topk8 -in FILE -out OTHER` brings it to PKCS #8")
        }
        None => invalid("the file has no PRIVATE KEY"),
    }
}

fn invalid(text: &'static str) -> Error {
    Error::new(Kind::DataInvalid, text)
}
