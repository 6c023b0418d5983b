//! Google Cloud KMS: the master key is a key of the purpose ENCRYPT_DECRYPT, and other keys of its key ring can be used there.
//!
//! The rules are:
//! - the service authenticates the context: it is the additional authenticated data of each request;
//! - each field that goes out has its CRC-32C, and each answer is taken only when the service says that it checked ours, when its
//!   own checksum is right and when it names the key that was asked for;
//! - one method is one request where the service allows it, and one attempt.
//!
//! `docs/kms/google.md` has the settings, the permissions and the requests of each operation.

mod algorithm;
mod connection;
mod crc;
mod fault;
#[cfg(test)]
mod gateway;
mod keys;
mod name;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use google_cloud_kms_v1::model::crypto_key::CryptoKeyPurpose;
use google_cloud_kms_v1::model::crypto_key_version::CryptoKeyVersionState as State;
use google_cloud_kms_v1::model::{
    CryptoKey, CryptoKeyVersion, DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse,
};
use zeroize::Zeroize;

use self::connection::{Client, Connection, Login};
use self::crc::crc32c;
use super::blob::{context_bytes, frame, unframe};
use super::provider::{left_over, other_key};
use super::{
    Context, Description, KeyState, KmsProvider, MasterKeyId, ProviderRow, RemoteKeys, SettingRow, Settings, Shape,
    Wrapped,
};
use crate::error::{Error, KmsFault, Result};
use crate::runtime;
use crate::secret::SecureBytes;

/// The provider in the registry.
pub const ROW: ProviderRow =
    ProviderRow { kind: KIND, settings: SETTINGS, remote: true, abilities: || &algorithm::ABILITIES, open };

const KIND: &str = "google";
/// How long a call may take where `timeout_seconds` says nothing.
const TIMEOUT_SECONDS: u32 = 10;
/// How long to wait between looks at a version that is being made.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often the service is asked about something new while it has too much to do; each wait is twice the one before.
const TRIES: u32 = 5;

const SETTINGS: &[SettingRow] = &[
    SettingRow::optional(
        "key",
        Shape::Text,
        "the master key: projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY",
    ),
    SettingRow::optional(
        "key_ring",
        Shape::Text,
        "where keys that live in the KMS are looked for and made: projects/PROJECT/locations/LOCATION/keyRings/RING (default: that of `key`)",
    ),
    SettingRow::optional(
        "endpoint",
        Shape::Text,
        "another URL of the service: a regional or private one, or an emulator",
    ),
    SettingRow::optional(
        "credentials_file",
        Shape::Path,
        "a credentials file of Google's (default: where its libraries look: GOOGLE_APPLICATION_CREDENTIALS, gcloud, metadata server)",
    ),
    SettingRow::optional("anonymous", Shape::Flag, "send no credentials: for an emulator (default false)"),
    SettingRow::optional(
        "protection_level",
        Shape::Word(&["software", "hsm"]),
        "where keys that are made live (default software; secp256k1 is always hsm)",
    ),
    SettingRow::optional(
        "rsa_use",
        Shape::Word(&["pkcs1", "pss", "raw", "oaep"]),
        "what an RSA key that is made does: sign by PKCS #1 v1.5 or PSS with SHA-256, sign with any hash (raw), or decrypt (default pkcs1)",
    ),
];

/// A key of Google Cloud KMS.
pub struct GoogleKms {
    name: String,
    key: Option<String>,
    ring: String,
    making: keys::Making,
    deadline: Duration,
    connection: Arc<Connection>,
    /// The algorithms of RSA keys by the names of their versions: neither name nor public key tells them.
    known: Arc<DashMap<String, &'static algorithm::Row>>,
}

fn open(settings: &Settings) -> Result<Arc<dyn KmsProvider>> {
    Ok(Arc::new(GoogleKms::new(settings)?))
}

impl GoogleKms {
    /// Reads the settings; nothing is touched before the first call.
    ///
    /// # Errors
    /// `ArgumentsBad` for settings that cannot be right.
    pub fn new(settings: &Settings) -> Result<Self> {
        let wrong = |what: String| Error::arguments_bad(format!("the KMS `{}`: {what}", settings.name));
        let key = settings.text("key").map(str::to_owned);
        if key.as_deref().is_some_and(|key| !name::is_key(key)) {
            let form = "projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY, without a version";
            return Err(wrong(format!("`key` must be {form}")));
        }
        let ring = settings.text("key_ring").or_else(|| key.as_deref().map(name::ring_of)).map(str::to_owned);
        let ring = ring.ok_or_else(|| wrong("`key` or `key_ring` must be there".to_owned()))?;
        if !name::is_ring(&ring) {
            let form = "projects/PROJECT/locations/LOCATION/keyRings/RING";
            return Err(wrong(format!("`key_ring` must be {form}")));
        }
        let seconds = settings.number("timeout_seconds").unwrap_or(TIMEOUT_SECONDS);
        Ok(Self {
            name: settings.name.clone(),
            key,
            ring,
            making: keys::Making::new(settings),
            deadline: Duration::from_secs(seconds.into()),
            connection: Arc::new(connection(settings).map_err(wrong)?),
            known: Arc::default(),
        })
    }

    fn key(&self) -> Result<&str> {
        self.key.as_deref().ok_or_else(|| {
            Error::kms(
                KmsFault::Failed,
                format!("the KMS `{}` has no master key; add `key` to its section of the configuration", self.name),
            )
        })
    }

    /// Runs the requests of one method, and puts what was done with which key in front of an error.
    fn call<T: Send + 'static, F: Future<Output = Result<T>> + Send>(
        &self,
        doing: &str,
        key: &str,
        work: impl FnOnce(Client) -> F + Send + 'static,
    ) -> Result<T> {
        let connection = self.connection.clone();
        runtime::run(self.deadline, async move { work(connection.client().await?).await })
            .map_err(|error| error.context(format!("Google Cloud KMS, {doing} `{}`", key.escape_debug())))
    }
}

/// Reads how to connect.
fn connection(settings: &Settings) -> Result<Connection, String> {
    let endpoint = settings.text("endpoint").map(str::to_owned);
    let login = match (settings.flag("anonymous"), settings.path("credentials_file")) {
        (true, Some(_)) => return Err("`anonymous` and `credentials_file` exclude each other".to_owned()),
        (true, None) => Login::Anonymous,
        (false, Some(path)) => Login::File(path.to_owned()),
        (false, None) => Login::Chain,
    };
    match endpoint.as_deref() {
        Some(url) if url.contains(['@', '?', '#']) => return Err("`endpoint` must be a URL of a host alone".to_owned()),
        Some(url) if url.starts_with("https://") => {}
        Some(url) if url.starts_with("http://") && login == Login::Anonymous => {}
        Some(_) => return Err("`endpoint` must start with https://, or http:// where `anonymous` is true".to_owned()),
        None => {}
    }
    Ok(Connection::new(endpoint, login))
}

impl KmsProvider for GoogleKms {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn wrap_key(&self, secret: &SecureBytes, context: &Context<'_>) -> Result<Wrapped> {
        let (key, secret, data) = (self.key()?.to_owned(), secret.clone(), context_bytes(context)?);
        let (master_key, ciphertext) = self.call("wrapping with", self.key()?, move |client| async move {
            encrypt(&client, &key, &secret, data).await
        })?;
        Ok(Wrapped { master_key, blob: frame(context, &ciphertext)? })
    }

    fn unwrap_key(&self, wrapped: &Wrapped, context: &Context<'_>) -> Result<SecureBytes> {
        let ciphertext = unframe(&wrapped.blob, context)?.to_vec();
        let (key, data) = (self.key()?.to_owned(), context_bytes(context)?);
        if wrapped.master_key.key != key {
            return Err(other_key(&self.name, &wrapped.master_key, format_args!("`{key}`")));
        }
        self.call("unwrapping with", self.key()?, move |client| async move {
            decrypt(&client, &key, ciphertext, data).await
        })
    }

    fn rotate_master_key(&self) -> Result<MasterKeyId> {
        let key = self.key()?.to_owned();
        self.call("rotating", self.key()?, move |client| async move { rotate(&client, &key).await })
    }

    fn describe(&self) -> Result<Description> {
        let key = self.key()?.to_owned();
        self.call("describing", self.key()?, move |client| async move {
            let request = client.sdk.get_crypto_key().set_name(key).send();
            description(client.send(KmsFault::Failed, request).await?)
        })
    }

    fn remote_keys(&self) -> Option<&dyn RemoteKeys> {
        Some(self)
    }
}

/// Wipes the bytes of a request when it is done. They are a type of Google's library that is shared with the request, so that
/// this must be dropped after it; what the library makes of them below (JSON, TLS) is out of reach.
struct Wiped<B: Default>(B)
where
    Vec<u8>: From<B>;

impl<B: Default> Drop for Wiped<B>
where
    Vec<u8>: From<B>,
{
    fn drop(&mut self) {
        Vec::from(std::mem::take(&mut self.0)).zeroize();
    }
}

async fn encrypt(client: &Client, key: &str, secret: &SecureBytes, data: Vec<u8>) -> Result<(MasterKeyId, Vec<u8>)> {
    let request = EncryptRequest::new()
        .set_name(key)
        .set_plaintext(secret.expose().to_vec())
        .set_plaintext_crc32c(crc32c(secret.expose()))
        .set_additional_authenticated_data_crc32c(crc32c(&data))
        .set_additional_authenticated_data(data);
    let _wiped = Wiped(request.plaintext.clone());
    let answer = client.send(KmsFault::Failed, client.sdk.encrypt().with_request(request).send()).await?;
    Ok((wrapped_by(&answer, key)?, answer.ciphertext.into()))
}

/// Checks the answer to an encryption and tells which version made it.
fn wrapped_by(answer: &EncryptResponse, key: &str) -> Result<MasterKeyId> {
    let checked = answer.verified_plaintext_crc32c && answer.verified_additional_authenticated_data_crc32c;
    whole(checked && answer.ciphertext_crc32c == Some(crc32c(&answer.ciphertext)))?;
    master_key(&answer.name, key)
}

async fn decrypt(client: &Client, key: &str, ciphertext: Vec<u8>, data: Vec<u8>) -> Result<SecureBytes> {
    let request = DecryptRequest::new()
        .set_name(key)
        .set_ciphertext_crc32c(crc32c(&ciphertext))
        .set_ciphertext(ciphertext)
        .set_additional_authenticated_data_crc32c(crc32c(&data))
        .set_additional_authenticated_data(data);
    let answer = client.send(KmsFault::Tampered, client.sdk.decrypt().with_request(request).send()).await?;
    let DecryptResponse { plaintext, plaintext_crc32c, .. } = answer;
    taken(plaintext.into(), plaintext_crc32c)
}

/// Takes a plaintext over, wipes where it was, and checks it.
fn taken(plaintext: Vec<u8>, checksum: Option<i64>) -> Result<SecureBytes> {
    let secret = SecureBytes::take(plaintext);
    whole(checksum == Some(crc32c(secret.expose())))?;
    Ok(secret)
}

/// Makes the version that wraps from now on: two requests, and one more for each look at a version that is not ready at once.
async fn rotate(client: &Client, key: &str) -> Result<MasterKeyId> {
    let create =
        client.sdk.create_crypto_key_version().set_parent(key).set_crypto_key_version(CryptoKeyVersion::default());
    let version = client.send(KmsFault::Failed, create.send()).await?;
    let name = version.name.clone();
    promote(client, key, version).await.map_err(|error| left_over(error, name.escape_debug()))
}

/// Makes a new version the primary one, as soon as it is ready.
async fn promote(client: &Client, key: &str, mut version: CryptoKeyVersion) -> Result<MasterKeyId> {
    while version.state == State::PendingGeneration {
        tokio::time::sleep(PATIENCE).await;
        let get = || client.sdk.get_crypto_key_version().set_name(&version.name).send();
        version = patiently(|| client.send(KmsFault::Failed, get())).await?;
    }
    let made = master_key(&version.name, key)?;
    let number = made.version.to_string();
    let promote = client.sdk.update_crypto_key_primary_version().set_name(key).set_crypto_key_version_id(number);
    let primary = patiently(|| client.send(KmsFault::Failed, promote.clone().send())).await?.primary;
    match primary.unwrap_or_default().name == version.name {
        true => Ok(made),
        false => {
            let text = "it did not become the primary version; see who else rotates this key";
            Err(Error::kms(KmsFault::Failed, text))
        }
    }
}

/// Repeats a request about something that was just made while the service has too much to do: nothing above may begin anew.
async fn patiently<T, F: Future<Output = Result<T>>>(request: impl Fn() -> F) -> Result<T> {
    let mut wait = PATIENCE;
    for _ in 1..TRIES {
        match request().await {
            Err(error) if matches!(error.kms_fault(), Some(KmsFault::Throttled(_))) => tokio::time::sleep(wait).await,
            answer => return answer,
        }
        wait *= 2;
    }
    request().await
}

fn description(key: CryptoKey) -> Result<Description> {
    if key.purpose != CryptoKeyPurpose::EncryptDecrypt {
        let text = format!(
            "the key has the purpose {}, and a master key must have ENCRYPT_DECRYPT; name another in the configuration",
            key.purpose.name().unwrap_or("of an unknown kind")
        );
        return Err(Error::kms(KmsFault::Unsupported, text));
    }
    let Some(primary) = key.primary else {
        let state = KeyState::Other("without a primary version".to_owned());
        let master_key = MasterKeyId { key: key.name, version: 0 };
        return Ok(Description { master_key, version: "none".to_owned(), state, algorithms: Vec::new() });
    };
    let master_key = master_key(&primary.name, &key.name)?;
    Ok(Description {
        version: master_key.version.to_string(),
        master_key,
        state: state(&primary.state),
        algorithms: primary.algorithm.name().map(str::to_owned).into_iter().collect(),
    })
}

fn state(state: &State) -> KeyState {
    match state {
        State::Enabled => KeyState::Enabled,
        State::Disabled => KeyState::Disabled,
        State::DestroyScheduled => KeyState::PendingDeletion,
        state => KeyState::Other(state.name().unwrap_or("unknown").to_ascii_lowercase().replace('_', "-")),
    }
}

/// Reads which version an answer names; it must be one of the key that was asked for.
fn master_key(version: &str, key: &str) -> Result<MasterKeyId> {
    match name::split_version(version) {
        Some((of, version)) if of == key => Ok(MasterKeyId { key: key.to_owned(), version }),
        _ => Err(Error::kms(
            KmsFault::Tampered,
            format!("the answer is of `{}`, which is not the key that was asked for", version.escape_debug()),
        )),
    }
}

/// Refuses what was changed on its way (cloud.google.com/kms/docs/data-integrity-guidelines).
fn whole(checks: bool) -> Result<()> {
    let text = "the checksums (CRC-32C) of request or answer do not match: something between here and the service changes them";
    if checks { Ok(()) } else { Err(Error::kms(KmsFault::Tampered, text)) }
}
