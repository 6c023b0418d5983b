//! The keys of a key ring that sign, decrypt and make MACs in Cloud KMS.
//!
//! The rules are:
//! - a key is one version: all requests name it in full, and its algorithm never changes;
//! - the public key comes with the algorithm, so that one permission (viewPublicKey) is enough to find a key that has one;
//! - the algorithm of an RSA key is remembered from when it was found, and asked for once where it was not.

use std::sync::Arc;

use dashmap::DashMap;
use google_cloud_kms_v1::model::crypto_key_version::CryptoKeyVersionState as State;
use google_cloud_kms_v1::model::{
    AsymmetricDecryptRequest, AsymmetricSignRequest, CryptoKey, CryptoKeyVersion, CryptoKeyVersionTemplate, Digest,
    MacSignRequest, ProtectionLevel, PublicKey,
};
use tokio::task::JoinSet;

use super::algorithm::{ABILITIES, Does, ROWS, Row, digest_info, digest_len};
use super::connection::Client;
use super::crc::crc32c;
use super::{GoogleKms, PATIENCE, name, patiently, state, taken, whole};
use crate::error::{Error, Kind, KmsFault, Result};
use crate::kms::provider::left_over;
use crate::kms::{
    Ability, DecryptScheme, Hash, KeySpec, KeyState, RemoteKey, RemoteKeys, Settings, SignScheme, fixed_width,
    no_randomness,
};
use crate::secret::SecureBytes;

/// How many keys are described at once when a key ring is listed.
const AT_ONCE: usize = 8;

/// How keys are made.
#[derive(Debug, Clone, Copy)]
pub struct Making {
    hsm: bool,
    rsa: fn(&Does) -> bool,
}

impl Making {
    /// Reads the settings.
    pub fn new(settings: &Settings) -> Self {
        let rsa: fn(&Does) -> bool = match settings.text("rsa_use") {
            Some("pss") => |does| *does == Does::Sign(SignScheme::RsaPss(Hash::Sha256)),
            Some("raw") => |does| *does == Does::SignRaw,
            Some("oaep") => |does| *does == Does::Decrypt(DecryptScheme::RsaOaep(Hash::Sha256)),
            _ => |does| *does == Does::Sign(SignScheme::RsaPkcs1(Hash::Sha256)),
        };
        Self { hsm: settings.text("protection_level") == Some("hsm"), rsa }
    }

    /// Chooses the algorithm of a new key.
    fn row(&self, spec: KeySpec) -> Option<&'static Row> {
        let wanted = |row: &&Row| row.spec == spec && (!matches!(spec, KeySpec::Rsa(_)) || (self.rsa)(&row.does));
        ROWS.iter().find(wanted)
    }

    fn template(&self, row: &Row) -> CryptoKeyVersionTemplate {
        let level = if self.hsm || row.is_hsm_only() { ProtectionLevel::Hsm } else { ProtectionLevel::Software };
        CryptoKeyVersionTemplate::new().set_algorithm(row.algorithm.clone()).set_protection_level(level)
    }
}

impl GoogleKms {
    /// Tells the algorithm of a key. Its kind alone does for all but RSA.
    fn row(&self, key: &RemoteKey) -> Result<&'static Row> {
        let mut rows = ROWS.iter().filter(|row| row.spec == key.spec);
        match (rows.next(), rows.next()) {
            (Some(row), None) => return Ok(row),
            (None, _) => {
                return Err(Error::kms(KmsFault::Unsupported, format!("Cloud KMS has no keys of {:?}", key.spec)));
            }
            _ => {}
        }
        if let Some(row) = self.known.get(&key.id) {
            return Ok(*row);
        }
        let id = key.id.clone();
        let known = self.known.clone();
        self.call("describing", &key.id, move |client| async move { describe(&client, &id, &known).await })?;
        self.known
            .get(&key.id)
            .map(|row| *row)
            .ok_or_else(|| Error::internal("the algorithm of a key was not remembered"))
    }
}

impl RemoteKeys for GoogleKms {
    fn abilities(&self) -> &'static [Ability] {
        &ABILITIES
    }

    fn find(&self, name: &str) -> Result<RemoteKey> {
        let id = name::resolve(name, Some(&self.ring)).ok_or_else(|| {
            let text = format!(
                "`{}` names no key of Google Cloud KMS; use KEY or KEY/VERSION of the key ring {}, or the full name of a version",
                name.escape_debug(),
                self.ring
            );
            Error::kms(KmsFault::NotFound, text)
        })?;
        let known = self.known.clone();
        let named = id.clone();
        self.call("looking for", &named, move |client| async move { describe(&client, &id, &known).await })
    }

    fn list(&self) -> Result<Vec<RemoteKey>> {
        let (ring, known) = (self.ring.clone(), self.known.clone());
        self.call("listing", &self.ring, move |client| async move { list(&client, &ring, &known).await })
    }

    fn sign(&self, key: &RemoteKey, scheme: SignScheme, input: &[u8]) -> Result<Vec<u8>> {
        let request = sign_request(self.row(key)?, &key.id, scheme, input)?;
        let signature =
            self.call("signing with", &key.id, move |client| async move { sign(&client, request).await })?;
        match key.spec {
            KeySpec::Ec(curve) => fixed_width(curve, &signature),
            _ => Ok(signature),
        }
    }

    fn decrypt(&self, key: &RemoteKey, scheme: DecryptScheme, ciphertext: &[u8]) -> Result<SecureBytes> {
        let row = self.row(key)?;
        if row.does != Does::Decrypt(scheme) {
            return Err(other_algorithm(row, &key.id));
        }
        let request = AsymmetricDecryptRequest::new()
            .set_name(&key.id)
            .set_ciphertext_crc32c(crc32c(ciphertext))
            .set_ciphertext(ciphertext.to_vec());
        self.call("decrypting with", &key.id, move |client| async move {
            let request = client.sdk.asymmetric_decrypt().with_request(request).send();
            let answer = client.send(KmsFault::Tampered, request).await?;
            let secret = taken(answer.plaintext.into(), answer.plaintext_crc32c)?;
            whole(answer.verified_ciphertext_crc32c)?;
            Ok(secret)
        })
    }

    fn mac(&self, key: &RemoteKey, message: &[u8]) -> Result<Vec<u8>> {
        let row = self.row(key)?;
        if row.does != Does::Mac {
            return Err(other_algorithm(row, &key.id));
        }
        let request =
            MacSignRequest::new().set_name(&key.id).set_data_crc32c(crc32c(message)).set_data(message.to_vec());
        self.call("making a MAC with", &key.id, move |client| async move {
            let id = request.name.clone();
            let answer = client.send(KmsFault::Failed, client.sdk.mac_sign().with_request(request).send()).await?;
            whole(answer.verified_data_crc32c && answer.mac_crc32c == Some(crc32c(&answer.mac)) && answer.name == id)?;
            Ok(answer.mac.into())
        })
    }

    fn generate(&self, spec: KeySpec, label: &str) -> Result<RemoteKey> {
        let row = self.making.row(spec).ok_or_else(|| {
            Error::kms(
                KmsFault::Unsupported,
                format!("Cloud KMS makes no keys of {spec:?}; docs/kms/google.md has the kinds that it makes"),
            )
        })?;
        let key = CryptoKey::new().set_purpose(row.purpose()).set_version_template(self.making.template(row));
        let (ring, id, known) = (self.ring.clone(), name::id_from(label), self.known.clone());
        self.call("making a key in", &self.ring, move |client| async move {
            let made = name::version_of(&create(&client, &ring, &id, key).await?.name, 1);
            when_ready(&client, row, &made, &known).await.map_err(|error| left_over(error, made.escape_debug()))
        })
    }
}

/// Makes the request for a signature, if the key's algorithm gives this one.
fn sign_request(row: &'static Row, id: &str, scheme: SignScheme, input: &[u8]) -> Result<AsymmetricSignRequest> {
    let request = AsymmetricSignRequest::new().set_name(id);
    let (hash, raw) = match (row.does, scheme) {
        (Does::Sign(of), SignScheme::Ed25519) if of == scheme => {
            return Ok(request.set_data_crc32c(crc32c(input)).set_data(input.to_vec()));
        }
        (Does::Sign(of), SignScheme::Ecdsa(hash) | SignScheme::RsaPkcs1(hash) | SignScheme::RsaPss(hash))
            if of == scheme =>
        {
            (hash, false)
        }
        (Does::SignRaw, SignScheme::RsaPkcs1(hash)) => (hash, true),
        _ => return Err(other_algorithm(row, id)),
    };
    if input.len() != digest_len(hash) {
        let text = format!("a digest of {hash:?} has {} bytes, and {} were given", digest_len(hash), input.len());
        return Err(Error::new(Kind::DataLenRange, text));
    }
    if raw {
        let block = [digest_info(hash), input].concat();
        return Ok(request.set_data_crc32c(crc32c(&block)).set_data(block));
    }
    let digest = match hash {
        Hash::Sha256 => Digest::new().set_sha256(input.to_vec()),
        Hash::Sha384 => Digest::new().set_sha384(input.to_vec()),
        Hash::Sha512 => Digest::new().set_sha512(input.to_vec()),
        Hash::Sha1 | Hash::Sha224 => return Err(other_algorithm(row, id)),
    };
    Ok(request.set_digest_crc32c(crc32c(input)).set_digest(digest))
}

async fn sign(client: &Client, request: AsymmetricSignRequest) -> Result<Vec<u8>> {
    let (id, digested) = (request.name.clone(), request.digest.is_some());
    let answer = client.send(KmsFault::Failed, client.sdk.asymmetric_sign().with_request(request).send()).await?;
    let checked = if digested { answer.verified_digest_crc32c } else { answer.verified_data_crc32c };
    whole(checked && answer.signature_crc32c == Some(crc32c(&answer.signature)) && answer.name == id)?;
    Ok(answer.signature.into())
}

fn other_algorithm(row: &'static Row, id: &str) -> Error {
    let text = format!(
        "the algorithm of `{}` is {} for ever, which does not do this; use another mechanism, or make a key of another algorithm",
        id.escape_debug(),
        row.name()
    );
    Error::kms(KmsFault::Unsupported, text)
}

type Known = Arc<DashMap<String, &'static Row>>;

/// Describes an enabled version: one request for a key with a public half, two for a MAC key.
async fn describe(client: &Client, id: &str, known: &Known) -> Result<RemoteKey> {
    let get = client.sdk.get_public_key().set_name(id).send();
    match client.send(KmsFault::Unsupported, get).await {
        Ok(answer) => with_public(&answer, id, known),
        Err(error) if error.kms_fault() == Some(KmsFault::Unsupported) => describe_mac(client, id, known).await,
        Err(error) => Err(error),
    }
}

async fn describe_mac(client: &Client, id: &str, known: &Known) -> Result<RemoteKey> {
    let get = client.sdk.get_crypto_key_version().set_name(id).send();
    without_public(&client.send(KmsFault::Failed, get).await?, id, known)
}

fn with_public(answer: &PublicKey, id: &str, known: &Known) -> Result<RemoteKey> {
    whole(answer.pem_crc32c == Some(crc32c(answer.pem.as_bytes())) && answer.name == id)?;
    let row = usable(Row::find(&answer.algorithm), answer.algorithm.name(), id)?;
    Ok(remote_key(row, id, Some(der(&answer.pem)?), known))
}

fn without_public(version: &CryptoKeyVersion, id: &str, known: &Known) -> Result<RemoteKey> {
    let row = Row::find(&version.algorithm).filter(|row| row.does == Does::Mac);
    let row = usable(row, version.algorithm.name(), id)?;
    let fault = match version.state {
        State::Enabled => return Ok(remote_key(row, id, None, known)),
        State::Destroyed => KmsFault::NotFound,
        _ => KmsFault::Disabled,
    };
    let text = format!("the version is {}; enable or restore it, or name another", state(&version.state).name());
    Err(Error::kms(fault, text))
}

fn usable(row: Option<&'static Row>, algorithm: Option<&str>, id: &str) -> Result<&'static Row> {
    row.ok_or_else(|| {
        let algorithm = algorithm.unwrap_or("an unknown one");
        let text =
            format!("the algorithm of `{}` is {algorithm}, with which nothing can be done here", id.escape_debug());
        Error::kms(KmsFault::Unsupported, text)
    })
}

fn remote_key(row: &'static Row, id: &str, public: Option<Vec<u8>>, known: &Known) -> RemoteKey {
    if matches!(row.spec, KeySpec::Rsa(_)) {
        known.insert(id.to_owned(), row);
    }
    RemoteKey {
        id: id.to_owned(),
        label: name::label(id),
        spec: row.spec,
        uses: row.uses(),
        state: KeyState::Enabled,
        public,
    }
}

/// Takes the DER out of a PEM of a public key (RFC 7468).
fn der(pem: &str) -> Result<Vec<u8>> {
    let wrong = || Error::kms(KmsFault::Failed, "the service's public key is no PEM of a public key");
    let body = pem.trim().strip_prefix("-----BEGIN PUBLIC KEY-----").ok_or_else(wrong)?;
    let body = body.strip_suffix("-----END PUBLIC KEY-----").ok_or_else(wrong)?;
    let base64: String = body.split_ascii_whitespace().collect();
    data_encoding::BASE64.decode(base64.as_bytes()).map_err(|error| wrong().caused_by(error))
}

/// Makes a key. Names are never free again, so that one in use gets a random end: one request more.
async fn create(client: &Client, ring: &str, id: &str, key: CryptoKey) -> Result<CryptoKey> {
    let request =
        |id: &str| client.sdk.create_crypto_key().set_parent(ring).set_crypto_key_id(id).set_crypto_key(key.clone());
    let first = request(id).send().await;
    match first {
        Err(error) if error.status().is_some_and(|status| status.code.name() == "ALREADY_EXISTS") => {
            let mut random = [0; 4];
            getrandom::fill(&mut random).map_err(no_randomness)?;
            let start: String = id.chars().take(54).collect();
            let other = format!("{start}-{}", data_encoding::HEXLOWER.encode(&random));
            client.send(KmsFault::Failed, request(&other).send()).await
        }
        first => client.send(KmsFault::Failed, std::future::ready(first)).await,
    }
}

/// Waits for a new version, which an HSM may take seconds to make.
async fn when_ready(client: &Client, row: &Row, id: &str, known: &Known) -> Result<RemoteKey> {
    loop {
        let described = match row.does {
            Does::Mac => patiently(|| describe_mac(client, id, known)).await,
            _ => patiently(|| describe(client, id, known)).await,
        };
        match described {
            Err(error) if error.kms_fault() == Some(KmsFault::Disabled) => tokio::time::sleep(PATIENCE).await,
            done => return done,
        }
    }
}

/// Lists a key ring: a request for each page of keys, one for the versions of each key, and one for each public key.
async fn list(client: &Client, ring: &str, known: &Known) -> Result<Vec<RemoteKey>> {
    let mut found = Vec::new();
    for keys in keys(client, ring).await?.chunks(AT_ONCE) {
        let mut tasks = JoinSet::new();
        for key in keys {
            let (client, key, known) = (client.clone(), key.clone(), known.clone());
            tasks.spawn(async move { enabled_versions(&client, &key, &known).await });
        }
        while let Some(done) = tasks.join_next().await {
            found.extend(done.map_err(|error| Error::internal("a task of a listing ended early").caused_by(error))??);
        }
    }
    found.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(found)
}

/// Names the keys of a key ring whose purpose is one of those here.
async fn keys(client: &Client, ring: &str) -> Result<Vec<String>> {
    let (mut names, mut page) = (Vec::new(), String::new());
    loop {
        let request = client.sdk.list_crypto_keys().set_parent(ring).set_page_token(page).send();
        let answer = client.send(KmsFault::Failed, request).await?;
        let useful = |key: &CryptoKey| ROWS.iter().any(|row| row.purpose() == key.purpose);
        names.extend(answer.crypto_keys.into_iter().filter(useful).map(|key| key.name));
        page = answer.next_page_token;
        if page.is_empty() {
            return Ok(names);
        }
    }
}

/// Describes the enabled versions of a key. One that cannot be described is left out, but not what may pass.
async fn enabled_versions(client: &Client, key: &str, known: &Known) -> Result<Vec<RemoteKey>> {
    let (mut found, mut page) = (Vec::new(), String::new());
    loop {
        let request =
            client.sdk.list_crypto_key_versions().set_parent(key).set_filter("state=ENABLED").set_page_token(page);
        let Some(answer) = unless_lasting(client.send(KmsFault::Failed, request.send()).await)? else {
            return Ok(found);
        };
        for version in answer.crypto_key_versions.iter().filter(|version| version.state == State::Enabled) {
            let described = match Row::find(&version.algorithm).map(|row| row.does) {
                Some(Does::Mac) => without_public(version, &version.name, known),
                Some(_) => describe(client, &version.name, known).await,
                None => continue,
            };
            found.extend(unless_lasting(described)?);
        }
        page = answer.next_page_token;
        if page.is_empty() {
            return Ok(found);
        }
    }
}

/// Leaves out what fails for a reason of its own; a fault that may pass would make a list with holes.
fn unless_lasting<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kms_fault().is_some_and(KmsFault::may_pass) => Err(error),
        Err(_) => Ok(None),
    }
}
