//! Keys that live in a KMS, as a token shows them: the token's words on one side, the provider's on the other.

use std::sync::Arc;

use crate::ck::{Attributes, CKA_VALUE_LEN};
use crate::error::{Error, Kind, Result};
use crate::kms::{self, Ability, Curve, DecryptScheme, KeySpec, KeyState, KmsProvider, SignScheme};
use crate::mechanism::{self, EncryptionPadding, Hash, RemoteKind, RemoteScheme, RemoteService, RemoteUse};
use crate::secret::SecureBytes;
use crate::token::{RemoteObject, RemoteToken};

/// The hashes of both sides.
const HASHES: &[(Hash, kms::Hash)] = &[
    (Hash::Sha1, kms::Hash::Sha1),
    (Hash::Sha224, kms::Hash::Sha224),
    (Hash::Sha256, kms::Hash::Sha256),
    (Hash::Sha384, kms::Hash::Sha384),
    (Hash::Sha512, kms::Hash::Sha512),
];

/// The kinds of keys of both sides that have no size.
const KINDS: &[(RemoteKind, KeySpec)] = &[
    (RemoteKind::P256, KeySpec::Ec(Curve::P256)),
    (RemoteKind::P384, KeySpec::Ec(Curve::P384)),
    (RemoteKind::P521, KeySpec::Ec(Curve::P521)),
    (RemoteKind::Secp256k1, KeySpec::Ec(Curve::Secp256k1)),
    (RemoteKind::Ed25519, KeySpec::Ed25519),
    (RemoteKind::Hmac(28), KeySpec::Hmac(kms::Hash::Sha224)),
    (RemoteKind::Hmac(32), KeySpec::Hmac(kms::Hash::Sha256)),
    (RemoteKind::Hmac(48), KeySpec::Hmac(kms::Hash::Sha384)),
    (RemoteKind::Hmac(64), KeySpec::Hmac(kms::Hash::Sha512)),
];

/// The keys of one provider.
pub struct CloudKeys {
    provider: Arc<dyn KmsProvider>,
    names: Vec<String>,
}

impl CloudKeys {
    /// Shows the keys of these names, or all of the account.
    ///
    /// # Errors
    /// `FunctionNotSupported` for a provider in which no keys live.
    pub fn new(provider: Arc<dyn KmsProvider>, names: Vec<String>) -> Result<Self> {
        keys_of(provider.as_ref())?;
        Ok(Self { provider, names })
    }
}

/// Gives the keys of a provider that has such.
fn keys_of(provider: &dyn KmsProvider) -> Result<&dyn kms::RemoteKeys> {
    provider.remote_keys().ok_or_else(|| {
        let text = format!("no keys live in a KMS of type `{}`; name another one as `remote`", provider.kind());
        Error::new(Kind::FunctionNotSupported, text)
    })
}

impl RemoteToken for CloudKeys {
    fn can(&self, usage: RemoteUse) -> bool {
        let abilities = self.provider.remote_keys().map_or(&[][..], |keys| keys.abilities());
        abilities.iter().any(|ability| is_enough(*ability, usage))
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn find(&self, name: &str) -> Result<RemoteObject> {
        let found = keys_of(self.provider.as_ref())?.find(name)?;
        match found.state {
            KeyState::Enabled => Ok(object(found)),
            state => Err(Error::device(format!("the key {} is {} in its KMS", found.id, state.name()))),
        }
    }

    fn list(&self) -> Result<Vec<RemoteObject>> {
        let listed = keys_of(self.provider.as_ref())?.list()?;
        Ok(listed.into_iter().filter(|key| key.state == KeyState::Enabled).map(object).collect())
    }

    fn generate(&self, kind: RemoteKind, label: &str) -> Result<RemoteObject> {
        keys_of(self.provider.as_ref())?.generate(spec(kind)?, label).map(object)
    }

    fn open(&self, id: &str, attributes: &Attributes) -> Result<Box<dyn RemoteService>> {
        let spec = spec(mechanism::remote_kind(attributes)?)?;
        let key = kms::RemoteKey {
            id: id.to_owned(),
            label: String::new(),
            spec,
            uses: kms::Uses::default(),
            state: KeyState::Enabled,
            public: None,
        };
        Ok(Box::new(CloudKey { provider: self.provider.clone(), key }))
    }
}

/// Tells whether an ability of a provider is what a mechanism needs.
fn is_enough(ability: Ability, usage: RemoteUse) -> bool {
    let fits =
        |wanted: Option<Hash>, hash| wanted.is_none_or(|wanted| hash_of(wanted).is_ok_and(|wanted| wanted == hash));
    match (usage, ability) {
        (RemoteUse::Generate(_), Ability::Generate(_)) => true,
        (RemoteUse::Ecdsa, Ability::Sign(_, SignScheme::Ecdsa(_))) => true,
        (RemoteUse::Ed25519, Ability::Sign(_, SignScheme::Ed25519)) => true,
        (RemoteUse::RsaPkcs1(wanted), Ability::Sign(_, SignScheme::RsaPkcs1(hash))) => fits(wanted, hash),
        (RemoteUse::RsaPss(wanted), Ability::Sign(_, SignScheme::RsaPss(hash))) => fits(wanted, hash),
        (RemoteUse::RsaOaep, Ability::Decrypt(_, DecryptScheme::RsaOaep(_))) => true,
        (RemoteUse::Mac(wanted), Ability::Mac(KeySpec::Hmac(hash))) => fits(Some(wanted), hash),
        _ => false,
    }
}

fn hash_of(hash: Hash) -> Result<kms::Hash> {
    let found = HASHES.iter().find(|row| row.0 == hash).map(|row| row.1);
    found.ok_or_else(|| Error::new(Kind::FunctionNotSupported, "no KMS signs with this hash"))
}

fn spec(kind: RemoteKind) -> Result<KeySpec> {
    if let RemoteKind::Rsa(bits) = kind {
        return Ok(KeySpec::Rsa(bits));
    }
    let found = KINDS.iter().find(|row| row.0 == kind).map(|row| row.1);
    found.ok_or_else(|| Error::new(Kind::KeySizeRange, "an HMAC key in a KMS has 28, 32, 48 or 64 bytes"))
}

/// Tells the token what a key is.
fn object(key: kms::RemoteKey) -> RemoteObject {
    let mac_len = KINDS.iter().find(|row| row.1 == key.spec).and_then(|row| match row.0 {
        RemoteKind::Hmac(len) => Some(len),
        _ => None,
    });
    RemoteObject {
        id: key.id,
        label: key.label,
        public: key.public,
        sign: key.uses.sign,
        decrypt: key.uses.decrypt,
        mac_len: mac_len.unwrap_or(0),
    }
}

/// One key of the provider.
struct CloudKey {
    provider: Arc<dyn KmsProvider>,
    key: kms::RemoteKey,
}

impl RemoteService for CloudKey {
    fn sign(&self, scheme: RemoteScheme, input: &[u8]) -> Result<Vec<u8>> {
        let keys = keys_of(self.provider.as_ref())?;
        match scheme {
            RemoteScheme::Ecdsa => {
                let (hash, len) = self.ecdsa_hash()?;
                keys.sign(&self.key, SignScheme::Ecdsa(hash), &fit(input, len)?)
            }
            RemoteScheme::Ed25519 => keys.sign(&self.key, SignScheme::Ed25519, input),
            RemoteScheme::RsaPkcs1(hash) => keys.sign(&self.key, SignScheme::RsaPkcs1(hash_of(hash)?), input),
            RemoteScheme::RsaPss(hash) => keys.sign(&self.key, SignScheme::RsaPss(hash_of(hash)?), input),
        }
    }

    fn decrypt(&self, padding: &EncryptionPadding, ciphertext: &[u8]) -> Result<SecureBytes> {
        let scheme = match padding {
            EncryptionPadding::Oaep { hash, mgf, label } if hash == mgf && label.is_empty() => {
                DecryptScheme::RsaOaep(hash_of(*hash)?)
            }
            EncryptionPadding::Pkcs1 => DecryptScheme::RsaPkcs1,
            _ => {
                let text = "a key in a KMS decrypts by OAEP with one hash for both uses and no label";
                return Err(Error::new(Kind::MechanismParamInvalid, text));
            }
        };
        keys_of(self.provider.as_ref())?.decrypt(&self.key, scheme, ciphertext)
    }

    fn mac(&self, hash: Hash, message: &[u8]) -> Result<Vec<u8>> {
        if self.key.spec != KeySpec::Hmac(hash_of(hash)?) {
            let text =
                format!("the MAC key is one of {CKA_VALUE_LEN:#x} for another hash; a KMS ties a key to one hash");
            return Err(Error::new(Kind::KeyTypeInconsistent, text));
        }
        keys_of(self.provider.as_ref())?.mac(&self.key, message)
    }
}

impl CloudKey {
    /// Tells the hash that a KMS ties to the key's curve, and its length in bytes.
    fn ecdsa_hash(&self) -> Result<(kms::Hash, usize)> {
        match self.key.spec {
            KeySpec::Ec(Curve::P256 | Curve::Secp256k1) => Ok((kms::Hash::Sha256, 32)),
            KeySpec::Ec(Curve::P384) => Ok((kms::Hash::Sha384, 48)),
            KeySpec::Ec(Curve::P521) => Ok((kms::Hash::Sha512, 64)),
            _ => Err(Kind::KeyTypeInconsistent.into()),
        }
    }
}

/// Brings a digest to the length that the service takes, with the same signature: ECDSA takes the leftmost bits as a number
/// (FIPS 186-5, 6.4.1), so that a longer digest may be cut and a shorter one padded on the left.
fn fit(digest: &[u8], len: usize) -> Result<Vec<u8>> {
    // On P-521 the leftmost 521 bits count, and no service takes more than 512.
    if len == 64 && digest.len() > len {
        return Err(Error::new(Kind::DataLenRange, "a P-521 key in a KMS signs digests of at most 64 bytes"));
    }
    let mut fitted = vec![0; len.saturating_sub(digest.len())];
    fitted.extend(digest.iter().take(len));
    Ok(fitted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_keeps_its_value_at_the_length_of_the_service() {
        assert_eq!(fit(&[1, 2, 3], 4).expect("shorter"), [0, 1, 2, 3]);
        assert_eq!(fit(&[1, 2, 3, 4], 4).expect("equal"), [1, 2, 3, 4]);
        assert_eq!(fit(&[1, 2, 3, 4, 5], 4).expect("longer"), [1, 2, 3, 4]);
        assert_eq!(fit(&[7; 65], 64).expect_err("cannot be cut").kind(), Kind::DataLenRange);
    }
}
