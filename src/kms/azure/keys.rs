//! The keys that live in the vault and are used there: they sign and decrypt.
//!
//! The rules are:
//! - what the service offers is what its documents list for RSA and EC keys (About keys, Key types, algorithms, and operations);
//!   the HMAC keys of a Managed HSM are left out;
//! - ECDSA signatures come as r and s at full width already (RFC 7518, 3.4): their length is checked, nothing is converted;
//! - a key is named by its identifier with the version, so that a rotation changes nothing under an open handle.

use azure_security_keyvault_keys::models::{
    CreateKeyParameters, CurveName, EncryptionAlgorithm, KeyOperation, KeyType, SignatureAlgorithm,
};

use super::AzureKeyVault;
use super::fault::Verb;
use super::vault::{KeyId, is_name_byte, name_and_version};
use crate::error::{Error, Kind, KmsFault, Result};
use crate::kms::no_randomness;
use crate::kms::remote::{Ability, Curve, DecryptScheme, Hash, KeySpec, RemoteKey, RemoteKeys, SignScheme};
use crate::secret::SecureBytes;

/// The sizes of RSA keys in bits.
const RSA_SIZES: [u32; 3] = [2048, 3072, 4096];
/// The longest name of a key, in characters; room is kept for a suffix.
const NAME_LEN: usize = 118;

/// One way to sign: kind of key, scheme, and the service's name for both.
static EC: [(Curve, Hash, SignatureAlgorithm); 4] = [
    (Curve::P256, Hash::Sha256, SignatureAlgorithm::Es256),
    (Curve::P384, Hash::Sha384, SignatureAlgorithm::Es384),
    (Curve::P521, Hash::Sha512, SignatureAlgorithm::Es512),
    (Curve::Secp256k1, Hash::Sha256, SignatureAlgorithm::Es256K),
];

/// The ways in which an RSA key signs.
static RSA: [(SignScheme, SignatureAlgorithm); 6] = [
    (SignScheme::RsaPkcs1(Hash::Sha256), SignatureAlgorithm::Rs256),
    (SignScheme::RsaPkcs1(Hash::Sha384), SignatureAlgorithm::Rs384),
    (SignScheme::RsaPkcs1(Hash::Sha512), SignatureAlgorithm::Rs512),
    (SignScheme::RsaPss(Hash::Sha256), SignatureAlgorithm::Ps256),
    (SignScheme::RsaPss(Hash::Sha384), SignatureAlgorithm::Ps384),
    (SignScheme::RsaPss(Hash::Sha512), SignatureAlgorithm::Ps512),
];

/// The ways in which an RSA key decrypts.
static RSA_DECRYPT: [(DecryptScheme, EncryptionAlgorithm); 3] = [
    (DecryptScheme::RsaOaep(Hash::Sha1), EncryptionAlgorithm::RsaOaep),
    (DecryptScheme::RsaOaep(Hash::Sha256), EncryptionAlgorithm::RsaOaep256),
    (DecryptScheme::RsaPkcs1, EncryptionAlgorithm::Rsa1_5),
];

/// Lists what RSA keys of each size can do, behind what EC keys can do.
macro_rules! abilities {
    ($($bits:literal)*) => {
        &[
            Ability::Generate(KeySpec::Ec(Curve::P256)),
            Ability::Generate(KeySpec::Ec(Curve::P384)),
            Ability::Generate(KeySpec::Ec(Curve::P521)),
            Ability::Generate(KeySpec::Ec(Curve::Secp256k1)),
            Ability::Sign(KeySpec::Ec(Curve::P256), SignScheme::Ecdsa(Hash::Sha256)),
            Ability::Sign(KeySpec::Ec(Curve::P384), SignScheme::Ecdsa(Hash::Sha384)),
            Ability::Sign(KeySpec::Ec(Curve::P521), SignScheme::Ecdsa(Hash::Sha512)),
            Ability::Sign(KeySpec::Ec(Curve::Secp256k1), SignScheme::Ecdsa(Hash::Sha256)),
            $(
                Ability::Generate(KeySpec::Rsa($bits)),
                Ability::Sign(KeySpec::Rsa($bits), SignScheme::RsaPkcs1(Hash::Sha256)),
                Ability::Sign(KeySpec::Rsa($bits), SignScheme::RsaPkcs1(Hash::Sha384)),
                Ability::Sign(KeySpec::Rsa($bits), SignScheme::RsaPkcs1(Hash::Sha512)),
                Ability::Sign(KeySpec::Rsa($bits), SignScheme::RsaPss(Hash::Sha256)),
                Ability::Sign(KeySpec::Rsa($bits), SignScheme::RsaPss(Hash::Sha384)),
                Ability::Sign(KeySpec::Rsa($bits), SignScheme::RsaPss(Hash::Sha512)),
                Ability::Decrypt(KeySpec::Rsa($bits), DecryptScheme::RsaOaep(Hash::Sha1)),
                Ability::Decrypt(KeySpec::Rsa($bits), DecryptScheme::RsaOaep(Hash::Sha256)),
                Ability::Decrypt(KeySpec::Rsa($bits), DecryptScheme::RsaPkcs1),
            )*
        ]
    };
}

/// Everything that the service offers; a test compares it with the tables above.
pub(super) static ABILITIES: &[Ability] = abilities!(2048 3072 4096);

/// Names what a kind of key can do in the service's words.
pub fn algorithm_names(spec: KeySpec) -> Vec<String> {
    let rsa = RSA.iter().filter(|_| matches!(spec, KeySpec::Rsa(_))).map(|row| row.1.to_string());
    let ec = EC.iter().filter(|row| spec == KeySpec::Ec(row.0)).map(|row| row.2.to_string());
    rsa.chain(ec).collect()
}

/// Finds the service's name for a scheme.
fn sign_algorithm(spec: KeySpec, scheme: SignScheme) -> Option<&'static SignatureAlgorithm> {
    match spec {
        KeySpec::Ec(curve) => {
            EC.iter().find(|row| row.0 == curve && SignScheme::Ecdsa(row.1) == scheme).map(|row| &row.2)
        }
        KeySpec::Rsa(_) => RSA.iter().find(|row| row.0 == scheme).map(|row| &row.1),
        KeySpec::Ed25519 | KeySpec::Hmac(_) => None,
    }
}

/// Tells the length of a digest in bytes.
const fn digest_len(scheme: SignScheme) -> Option<usize> {
    let (SignScheme::Ecdsa(hash) | SignScheme::RsaPkcs1(hash) | SignScheme::RsaPss(hash)) = scheme else { return None };
    Some(match hash {
        Hash::Sha1 => 20,
        Hash::Sha224 => 28,
        Hash::Sha256 => 32,
        Hash::Sha384 => 48,
        Hash::Sha512 => 64,
    })
}

/// Tells the length of a signature in bytes.
fn signature_len(spec: KeySpec) -> Option<usize> {
    match spec {
        KeySpec::Ec(curve) => Some(2 * curve.width()),
        KeySpec::Rsa(bits) => usize::try_from(bits.div_ceil(8)).ok(),
        KeySpec::Ed25519 | KeySpec::Hmac(_) => None,
    }
}

/// Checks that a signature has the width of the key's kind.
///
/// # Errors
/// `Failed` for any other width.
pub fn full_width(spec: KeySpec, signature: &[u8]) -> Result<Vec<u8>> {
    if signature_len(spec) == Some(signature.len()) {
        return Ok(signature.to_vec());
    }
    let text = format!("Azure gave a signature of {} bytes, which fits no key of the kind {spec:?}", signature.len());
    Err(Error::kms(KmsFault::Failed, text))
}

fn unsupported(what: impl std::fmt::Display) -> Error {
    Error::kms(KmsFault::Unsupported, format!("Azure Key Vault has no {what}"))
}

/// Reads the identifier of a key that was found before.
fn id(key: &RemoteKey) -> Result<KeyId> {
    KeyId::parse(&key.id).ok_or_else(|| {
        let text = format!("`{}` is no Azure key identifier with a version", key.id.escape_debug());
        Error::kms(KmsFault::NotFound, text)
    })
}

/// Makes a name that the service takes: letters, digits and single hyphens between them.
fn clean(label: &str) -> String {
    let spaced: String = label.chars().map(|c| if u8::try_from(c).is_ok_and(is_name_byte) { c } else { '-' }).collect();
    let parts: Vec<_> = spaced.split('-').filter(|part| !part.is_empty()).collect();
    let name: String = parts.join("-").chars().take(NAME_LEN).collect();
    if name.is_empty() { "key".to_owned() } else { name }
}

/// Adds what makes a name one of its own.
fn with_suffix(name: &str) -> Result<String> {
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(no_randomness)?;
    Ok(format!("{name}-{}", data_encoding::HEXLOWER.encode(&random)))
}

/// Says what key is to be made.
///
/// # Errors
/// `Unsupported` for a kind that the service has not.
pub fn parameters(spec: KeySpec, hsm: bool) -> Result<CreateKeyParameters> {
    let kind = |soft, hard| Some(if hsm { hard } else { soft });
    let signing = [KeyOperation::Sign, KeyOperation::Verify];
    match spec {
        KeySpec::Ec(curve) => Ok(CreateKeyParameters {
            kty: kind(KeyType::Ec, KeyType::EcHsm),
            curve: Some(match curve {
                Curve::P256 => CurveName::P256,
                Curve::P384 => CurveName::P384,
                Curve::P521 => CurveName::P521,
                Curve::Secp256k1 => CurveName::P256K,
            }),
            key_ops: Some(signing.into()),
            ..Default::default()
        }),
        KeySpec::Rsa(bits) if RSA_SIZES.contains(&bits) => Ok(CreateKeyParameters {
            kty: kind(KeyType::Rsa, KeyType::RsaHsm),
            key_size: i32::try_from(bits).ok(),
            key_ops: Some(signing.into_iter().chain([KeyOperation::Encrypt, KeyOperation::Decrypt]).collect()),
            ..Default::default()
        }),
        _ => Err(unsupported(format_args!("keys of the kind {spec:?}"))),
    }
}

impl RemoteKeys for AzureKeyVault {
    fn abilities(&self) -> &'static [Ability] {
        ABILITIES
    }

    fn find(&self, name: &str) -> Result<RemoteKey> {
        let path = name.split_once("/keys/").map_or(name, |(_, path)| path);
        let (name, version) = name_and_version(path.trim_end_matches('/')).ok_or_else(|| {
            let text =
                format!("`{}` is no name of an Azure key; names have letters, digits and hyphens", name.escape_debug());
            Error::kms(KmsFault::NotFound, text)
        })?;
        self.run(|vault| async move { vault.read(&name, version).await })?.into_remote()
    }

    fn list(&self) -> Result<Vec<RemoteKey>> {
        let keys = self.run(|vault| async move { vault.list().await })?;
        Ok(keys.into_iter().filter_map(|key| key.into_remote().ok()).collect())
    }

    fn sign(&self, key: &RemoteKey, scheme: SignScheme, input: &[u8]) -> Result<Vec<u8>> {
        let id = id(key)?;
        let algorithm = sign_algorithm(key.spec, scheme)
            .ok_or_else(|| unsupported(format_args!("{scheme:?} for keys of the kind {:?}", key.spec)))?;
        if digest_len(scheme) != Some(input.len()) {
            let text = format!("{algorithm} signs a digest of its hash, and this one has {} bytes", input.len());
            return Err(Error::new(Kind::DataLenRange, text));
        }
        let digest = input.to_vec();
        let signature =
            self.run(|vault| async move { vault.operate(Verb::Sign, &id, algorithm.as_ref(), &digest).await })?;
        full_width(key.spec, signature.expose())
    }

    fn decrypt(&self, key: &RemoteKey, scheme: DecryptScheme, ciphertext: &[u8]) -> Result<SecureBytes> {
        let id = id(key)?;
        let row = RSA_DECRYPT.iter().find(|row| row.0 == scheme && matches!(key.spec, KeySpec::Rsa(_)));
        let (_, algorithm) =
            row.ok_or_else(|| unsupported(format_args!("{scheme:?} for keys of the kind {:?}", key.spec)))?;
        let ciphertext = ciphertext.to_vec();
        self.run(|vault| async move { vault.operate(Verb::Decrypt, &id, algorithm.as_ref(), &ciphertext).await })
    }

    fn mac(&self, _: &RemoteKey, _: &[u8]) -> Result<Vec<u8>> {
        Err(unsupported("MAC that this library uses"))
    }

    fn generate(&self, spec: KeySpec, label: &str) -> Result<RemoteKey> {
        let parameters = parameters(spec, self.vault.options.hsm_keys)?;
        let name = clean(label);
        let made = self.run(|vault| async move {
            // Making a key of a name that is taken makes a new version of the key that has it. Two that make the same name at
            // once get two versions of one key; both work, since each is named with its version.
            let name = match vault.read(&name, None).await {
                Err(error) if error.kms_fault() == Some(KmsFault::NotFound) => name,
                Ok(_) => with_suffix(&name)?,
                Err(error) => return Err(error),
            };
            vault.create(&name, parameters).await
        })?;
        made.into_remote()
    }
}
