//! The keys of AWS KMS that sign, decrypt and make MACs there.
//!
//! The rules are:
//! - what AWS documents for a key spec stands in one row ("Key spec reference" of the Developer Guide), and nowhere else;
//! - an asymmetric key can be used with the permissions Sign and GetPublicKey alone, a MAC key with GenerateMac and DescribeKey
//!
//! - a digest is signed as a digest; Ed25519 alone signs the message itself.

mod requests;

use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{EncryptionAlgorithmSpec, KeyUsageType, MacAlgorithmSpec, MessageType, SigningAlgorithmSpec};

use super::fault::{no_sense, told};
use super::name::KeyName;
use super::{AwsKms, MAX_MESSAGE, secret};
use crate::error::{Error, KmsFault, Result};
use crate::kms::remote::{
    Ability, Curve, DecryptScheme, Hash, KeySpec, RemoteKey, RemoteKeys, SignScheme, Uses, fixed_width,
};
use crate::secret::{SecureBytes, Table};

/// What AWS KMS does with the keys of one key spec.
struct Row {
    spec: KeySpec,
    /// The key spec as AWS names it.
    name: &'static str,
    sign: &'static [SignScheme],
    decrypt: &'static [DecryptScheme],
    /// The algorithm of its MACs as AWS names it.
    mac: Option<&'static str>,
}

const RSA_SIGN: &[SignScheme] = &[
    SignScheme::RsaPkcs1(Hash::Sha256),
    SignScheme::RsaPkcs1(Hash::Sha384),
    SignScheme::RsaPkcs1(Hash::Sha512),
    SignScheme::RsaPss(Hash::Sha256),
    SignScheme::RsaPss(Hash::Sha384),
    SignScheme::RsaPss(Hash::Sha512),
];
const RSA_DECRYPT: &[DecryptScheme] = &[DecryptScheme::RsaOaep(Hash::Sha1), DecryptScheme::RsaOaep(Hash::Sha256)];

/// Every key spec that PKCS #11 has a word for here. SM2, of the regions in China, and ML-DSA are not among them.
static ROWS: &[Row] = &[
    Row::sign(KeySpec::Ec(Curve::P256), "ECC_NIST_P256", &[SignScheme::Ecdsa(Hash::Sha256)]),
    Row::sign(KeySpec::Ec(Curve::P384), "ECC_NIST_P384", &[SignScheme::Ecdsa(Hash::Sha384)]),
    Row::sign(KeySpec::Ec(Curve::P521), "ECC_NIST_P521", &[SignScheme::Ecdsa(Hash::Sha512)]),
    Row::sign(KeySpec::Ec(Curve::Secp256k1), "ECC_SECG_P256K1", &[SignScheme::Ecdsa(Hash::Sha256)]),
    Row::sign(KeySpec::Ed25519, "ECC_NIST_EDWARDS25519", &[SignScheme::Ed25519]),
    Row::rsa(2048, "RSA_2048"),
    Row::rsa(3072, "RSA_3072"),
    Row::rsa(4096, "RSA_4096"),
    Row::mac(Hash::Sha224, "HMAC_224", "HMAC_SHA_224"),
    Row::mac(Hash::Sha256, "HMAC_256", "HMAC_SHA_256"),
    Row::mac(Hash::Sha384, "HMAC_384", "HMAC_SHA_384"),
    Row::mac(Hash::Sha512, "HMAC_512", "HMAC_SHA_512"),
];

impl Row {
    const fn sign(spec: KeySpec, name: &'static str, sign: &'static [SignScheme]) -> Self {
        Self { spec, name, sign, decrypt: &[], mac: None }
    }

    const fn rsa(bits: u32, name: &'static str) -> Self {
        Self { spec: KeySpec::Rsa(bits), name, sign: RSA_SIGN, decrypt: RSA_DECRYPT, mac: None }
    }

    const fn mac(hash: Hash, name: &'static str, algorithm: &'static str) -> Self {
        Self { spec: KeySpec::Hmac(hash), name, sign: &[], decrypt: &[], mac: Some(algorithm) }
    }

    /// Finds the row of a kind of key.
    fn of(spec: KeySpec) -> Result<&'static Self> {
        let missing = || Error::kms(KmsFault::Unsupported, format!("AWS KMS has no keys of the kind {spec:?}"));
        ROWS.iter().find(|row| row.spec == spec).ok_or_else(missing)
    }

    /// Finds the row of a key spec as AWS names it.
    fn named(name: &str) -> Option<&'static Self> {
        ROWS.iter().find(|row| row.name == name)
    }

    /// Tells what a new key is for. AWS fixes one use for ever: an RSA key signs.
    fn usage(&self) -> KeyUsageType {
        if self.mac.is_some() { KeyUsageType::GenerateVerifyMac } else { KeyUsageType::SignVerify }
    }

    /// Lists what keys of this kind do.
    fn abilities(&self) -> impl Iterator<Item = Ability> {
        let spec = self.spec;
        let sign = self.sign.iter().map(move |scheme| Ability::Sign(spec, *scheme));
        let decrypt = self.decrypt.iter().map(move |scheme| Ability::Decrypt(spec, *scheme));
        [Ability::Generate(spec)].into_iter().chain(sign).chain(decrypt).chain(self.mac.map(|_| Ability::Mac(spec)))
    }
}

pub(super) static ABILITIES: Table<Vec<Ability>> = Table::new(|| ROWS.iter().flat_map(Row::abilities).collect());

/// Tells what a key with a use of AWS may do.
fn uses(usage: Option<&KeyUsageType>) -> Uses {
    Uses {
        sign: usage == Some(&KeyUsageType::SignVerify),
        decrypt: usage == Some(&KeyUsageType::EncryptDecrypt),
        mac: usage == Some(&KeyUsageType::GenerateVerifyMac),
    }
}

/// Names a hash as the algorithms of AWS do.
fn bits(hash: Hash) -> &'static str {
    match hash {
        Hash::Sha1 => "1",
        Hash::Sha224 => "224",
        Hash::Sha256 => "256",
        Hash::Sha384 => "384",
        Hash::Sha512 => "512",
    }
}

/// Names a scheme as AWS does.
fn algorithm(scheme: SignScheme) -> SigningAlgorithmSpec {
    let name = match scheme {
        SignScheme::Ecdsa(hash) => format!("ECDSA_SHA_{}", bits(hash)),
        SignScheme::RsaPkcs1(hash) => format!("RSASSA_PKCS1_V1_5_SHA_{}", bits(hash)),
        SignScheme::RsaPss(hash) => format!("RSASSA_PSS_SHA_{}", bits(hash)),
        SignScheme::Ed25519 => return SigningAlgorithmSpec::Ed25519Sha512,
    };
    SigningAlgorithmSpec::from(name.as_str())
}

/// Makes the error of something that a key has not.
fn not_offered(key: &RemoteKey, what: &str) -> Error {
    let text = format!("the key `{}` is {:?} at AWS KMS and cannot do {what}", key.id.escape_debug(), key.spec);
    Error::kms(KmsFault::Unsupported, text)
}

/// Checks that a message goes into one request.
fn in_one_request(message: &[u8]) -> Result<Blob> {
    if message.len() > MAX_MESSAGE {
        let text = format!("AWS KMS takes messages of at most {MAX_MESSAGE} bytes, and this one has {}", message.len());
        return Err(Error::kms(KmsFault::Unsupported, text));
    }
    Ok(Blob::new(message))
}

impl RemoteKeys for AwsKms {
    fn abilities(&self) -> &'static [Ability] {
        &ABILITIES
    }

    fn find(&self, name: &str) -> Result<RemoteKey> {
        let name = KeyName::parse_label(name).map_err(|error| not_found(name, error))?;
        self.connection.call(async move |client: Client| requests::find(&client, &name).await)
    }

    fn list(&self) -> Result<Vec<RemoteKey>> {
        self.connection.call(requests::list)
    }

    fn sign(&self, key: &RemoteKey, scheme: SignScheme, input: &[u8]) -> Result<Vec<u8>> {
        if !Row::of(key.spec)?.sign.contains(&scheme) {
            return Err(not_offered(key, &format!("{scheme:?}")));
        }
        let kind = if scheme == SignScheme::Ed25519 { MessageType::Raw } else { MessageType::Digest };
        let (id, message) = (key.id.clone(), in_one_request(input)?);
        let answer = self.connection.call(async move |client: Client| {
            let request = client.sign().key_id(&id).message(message).message_type(kind);
            told("Sign", &id, request.signing_algorithm(algorithm(scheme)).send().await)
        })?;
        let signature = answer.signature.ok_or_else(|| no_sense("Sign", "holds no signature"))?;
        match key.spec {
            KeySpec::Ec(curve) => fixed_width(curve, signature.as_ref()),
            _ => Ok(signature.into_inner()),
        }
    }

    fn decrypt(&self, key: &RemoteKey, scheme: DecryptScheme, ciphertext: &[u8]) -> Result<SecureBytes> {
        let DecryptScheme::RsaOaep(hash) = scheme else { return Err(not_offered(key, &format!("{scheme:?}"))) };
        if !Row::of(key.spec)?.decrypt.contains(&scheme) {
            return Err(not_offered(key, &format!("{scheme:?}")));
        }
        let algorithm = EncryptionAlgorithmSpec::from(format!("RSAES_OAEP_SHA_{}", bits(hash)).as_str());
        let (id, ciphertext) = (key.id.clone(), Blob::new(ciphertext));
        let answer = self.connection.call(async move |client: Client| {
            let request = client.decrypt().key_id(&id).ciphertext_blob(ciphertext).encryption_algorithm(algorithm);
            told("Decrypt", &id, request.send().await)
        })?;
        secret("Decrypt", answer.plaintext)
    }

    fn mac(&self, key: &RemoteKey, message: &[u8]) -> Result<Vec<u8>> {
        let algorithm = Row::of(key.spec)?.mac.ok_or_else(|| not_offered(key, "a MAC"))?;
        let (id, message) = (key.id.clone(), in_one_request(message)?);
        let answer = self.connection.call(async move |client: Client| {
            let request = client.generate_mac().key_id(&id).message(message);
            told("GenerateMac", &id, request.mac_algorithm(MacAlgorithmSpec::from(algorithm)).send().await)
        })?;
        Ok(answer.mac.ok_or_else(|| no_sense("GenerateMac", "holds no MAC"))?.into_inner())
    }

    fn generate(&self, spec: KeySpec, label: &str) -> Result<RemoteKey> {
        let (row, label) = (Row::of(spec)?, label.to_owned());
        self.connection.call(async move |client: Client| requests::generate(&client, row, &label).await)
    }
}

/// Makes the error of a name that cannot be one of a key.
fn not_found(name: &str, cause: Error) -> Error {
    Error::kms(KmsFault::NotFound, format!("AWS KMS can have no key `{}`", name.escape_debug())).caused_by(cause)
}
