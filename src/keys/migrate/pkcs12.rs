//! PKCS #12 files: one private key with its certificates.

use super::{Key, certificate};
use crate::ck::CKA_LABEL;
use crate::error::{Error, Kind, Result};
use crate::mechanism::{GivenKey, container};
use crate::secret::SecureBytes;

/// Reads the private key of a file, and the certificates beside it.
///
/// # Errors
/// `DataInvalid`, `EncryptedDataInvalid`, `WrappedKeyInvalid` for what is none, for a wrong password, and for a type that is not supported;
/// what `ask` answers.
pub fn read(text: &SecureBytes, ask: &mut dyn FnMut() -> Result<SecureBytes>) -> Result<Key> {
    let opened = container::open_pkcs12(text.expose(), &ask()?)?;
    let key = opened.key.ok_or_else(|| Error::new(Kind::DataInvalid, "the file has no private key"))?;
    let mut key = Key::new(GivenKey::of_pkcs8(&key)?, None);
    for found in opened.certificates {
        let template = certificate::template(&found.der, found.name.as_deref(), &key.key)?;
        // The name of its certificate is that of the key: AWS-LC does not tell the key's own.
        if let Some(name) = found.name.filter(|_| certificate::is_own(&template)) {
            key.kept.set(CKA_LABEL, name.into_bytes());
        }
        key.certificates.push(template);
    }
    Ok(key)
}
