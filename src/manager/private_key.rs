//! A private key outside of its token.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::ck::*;
use crate::crypto::secp256k1;
use crate::error::{Error, Kind, Result};
use crate::keys::{Asset, ManagedKeys, Name};
use crate::mechanism::{self, Key, Params};
use crate::secret::{SecureBytes, SecurePrivateKey};

/// The version byte of WIF on Bitcoin's main chain, and what follows the key of a compressed public key.
const WIF_MAIN: u8 = 0x80;
const WIF_COMPRESSED: u8 = 1;

/// How keys of a type sign when nothing else is said.
const SIGN_BY: [(CK_KEY_TYPE, CK_MECHANISM_TYPE); 3] =
    [(CKK_EC, CKM_ECDSA), (CKK_EC_EDWARDS, CKM_EDDSA), (CKK_RSA, CKM_SHA256_RSA_PKCS)];

/// A private key outside of its token: it signs without store, KMS or lock, and is wiped when dropped. Its version may be disabled
/// or grow too old meanwhile, which it does not notice: keep it no longer than it is needed.
pub struct PrivateKey {
    asset: &'static Asset,
    attributes: Attributes,
    secret: SecurePrivateKey,
    key: Arc<Key>,
}

impl PrivateKey {
    /// Takes a version's private key out of its token.
    ///
    /// # Errors
    /// As [`super::KeyManager::get_private_key`].
    pub(super) fn take(
        keys: &ManagedKeys<'_>,
        name: &Name,
        version: u64,
        password: Option<&SecureBytes>,
    ) -> Result<Self> {
        let (attributes, secret) = keys.take_out(name, version, password)?;
        let key_type = attributes.ulong(CKA_KEY_TYPE).and_then(mechanism::key_type);
        let key_type = key_type.ok_or_else(|| Error::damaged("the type of a managed key"))?;
        let key = Arc::new((key_type.secret_key)(&attributes, &secret)?);
        Ok(Self { asset: name.asset, attributes, secret, key })
    }

    /// Signs: a digest with ECDSA (r ‖ s, low-S on secp256k1), a message with Ed25519, or a message with RSA (PKCS #1 v1.5, SHA-256).
    ///
    /// # Errors
    /// `KeyTypeInconsistent` for a key that does not sign; `DataLenRange`; `CryptokiNotInitialized` in a child that was forked since.
    pub fn sign(&self, data: &[u8]) -> Result<Vec<u8>> {
        self.secret.check_not_forked()?;
        let key_type = self.attributes.ulong(CKA_KEY_TYPE);
        let row = SIGN_BY.iter().find(|row| Some(row.0) == key_type).and_then(|row| mechanism::find(row.1));
        let start = row.and_then(|row| row.sign).ok_or_else(|| Error::from(Kind::KeyTypeInconsistent))?;
        Ok(start(&self.key, &Params::None)?.sign(data)?.to_vec())
    }

    /// Signs a digest of 32 bytes with a key on secp256k1: r ‖ s ‖ v, with the lower of the two values of s (BIP 146).
    ///
    /// # Errors
    /// `KeyTypeInconsistent` for another key; `DataLenRange` for another length; as for [`Self::sign`].
    pub fn sign_recoverable(&self, digest: &[u8]) -> Result<Vec<u8>> {
        self.secret.check_not_forked()?;
        let digest =
            digest.try_into().map_err(|_| Error::new(Kind::DataLenRange, "a digest of 32 bytes is signed so"))?;
        Ok(mechanism::sign_recoverable(&self.key, &self.attributes, digest)?.to_vec())
    }

    /// Gives the public key as `SubjectPublicKeyInfo` in DER.
    pub fn public_key(&self) -> &[u8] {
        self.attributes.bytes(CKA_PUBLIC_KEY_INFO).unwrap_or_default()
    }

    /// Gives the address in the asset's usual form.
    ///
    /// # Errors
    /// `FunctionNotSupported` for an asset without addresses.
    pub fn address(&self) -> Result<String> {
        self.asset.address(&self.attributes, None)
    }

    /// Tells the number of the version.
    pub fn version(&self) -> u64 {
        self.attributes.ulong(CKA_SR_VERSION).unwrap_or(0)
    }

    /// Writes the key in Bitcoin's wallet import format (compressed, main chain). It is the plaintext of the key: whoever reads it
    /// owns the coins. It exists in Rust alone.
    ///
    /// # Errors
    /// `KeyTypeInconsistent` for a key that is not on secp256k1; as for [`Self::sign`].
    pub fn to_wif(&self) -> Result<Zeroizing<String>> {
        self.secret.check_not_forked()?;
        let secret = self.secret.expose();
        if !matches!(&*self.key, Key::Secp256k1Private(_)) || secret.len() != secp256k1::LEN {
            return Err(not_on_secp256k1());
        }
        let bytes = Zeroizing::new([&[WIF_MAIN], secret, &[WIF_COMPRESSED]].concat());
        Ok(Zeroizing::new(bs58::encode(&bytes[..]).with_check().into_string()))
    }
}

fn not_on_secp256k1() -> Error {
    Error::new(Kind::KeyTypeInconsistent, "the key is not on secp256k1")
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("asset", &self.asset.name).field("version", &self.version()).finish()
    }
}
