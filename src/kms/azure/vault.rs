//! One vault: its client, which is made once and kept, and the requests about its keys.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use azure_core::Bytes;
use azure_core::http::RequestContent;
use azure_security_keyvault_keys::KeyClient;
use azure_security_keyvault_keys::models::{
    CreateKeyParameters, KeyClientGetKeyOptions, KeyClientSignOptions, KeyClientWrapKeyOptions,
};
use data_encoding::BASE64URL_NOPAD;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::OnceCell;
use zeroize::Zeroize;

use super::connect::{self, Options};
use super::fault::{self, Verb};
use super::jwk::KeyFacts;
use crate::error::{Error, KmsFault, Result};
use crate::kms::provider::KeyState;
use crate::secret::{SecureBytes, process_generation};

/// How many keys of a list are asked about at a time.
const AT_A_TIME: usize = 8;

/// A key and its version by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyId {
    /// The whole identifier, as the service gave it: `https://VAULT/keys/NAME/VERSION`.
    pub kid: String,
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
}

impl KeyId {
    /// Reads a key identifier that has a version.
    pub fn parse(kid: &str) -> Option<Self> {
        let (name, version) = parts(kid)?;
        Some(Self { kid: kid.to_owned(), name, version: version? })
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.version)
    }
}

/// Reads name and version from an identifier with or without a version.
fn parts(kid: &str) -> Option<(String, Option<String>)> {
    let (_, path) = kid.strip_prefix("https://")?.split_once("/keys/")?;
    name_and_version(path)
}

/// Reads `NAME` or `NAME/VERSION`. Nothing else passes: both become parts of a path.
pub fn name_and_version(path: &str) -> Option<(String, Option<String>)> {
    let (name, version) = match path.split_once('/') {
        Some((name, version)) => (name, Some(version)),
        None => (path, None),
    };
    let fits = |text: &str| (1..=127).contains(&text.len()) && text.bytes().all(is_name_byte);
    (fits(name) && version.is_none_or(fits)).then(|| (name.to_owned(), version.map(str::to_owned)))
}

/// Tells whether a name may have this byte (Key Vault object identifiers).
pub const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// The client of one process: a forked child must not share the parent's connections.
type Clients = (u64, Arc<OnceCell<Arc<KeyClient>>>);

/// One vault.
pub struct Vault {
    /// What the configuration says.
    pub options: Options,
    clients: Mutex<Clients>,
}

impl Vault {
    /// Makes a vault to which nobody has connected yet.
    pub fn new(options: Options) -> Self {
        Self { options, clients: Mutex::new((process_generation(), Arc::default())) }
    }

    /// Runs work within the deadline of the settings.
    pub fn run<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        crate::runtime::run(self.options.timeout, work)
            .map_err(|error| error.context(format!("the vault {}", self.options.url)))
    }

    /// Gives the client; the first call makes it.
    pub async fn client(&self) -> Result<Arc<KeyClient>> {
        let cell = self.cell();
        cell.get_or_try_init(|| async { connect::client(&self.options) }).await.cloned()
    }

    fn cell(&self) -> Arc<OnceCell<Arc<KeyClient>>> {
        let mut clients = self.clients.lock();
        let now = process_generation();
        if clients.0 != now {
            // The parent's connections are left as they are: closing them here would end its sessions.
            std::mem::forget(std::mem::replace(&mut *clients, (now, Arc::default())));
        }
        clients.1.clone()
    }

    /// Makes the error of a request. A login that the vault refuses is forgotten with its token, which is not asked for again
    /// otherwise while it seems good: the next call logs in anew.
    fn failed(&self, verb: Verb, key: &str, error: &azure_core::Error) -> Error {
        if fault::login_is_refused(error) {
            self.clients.lock().1 = Arc::default();
        }
        fault::explain(verb, key, error)
    }

    /// Asks what a key is: one request.
    pub async fn read(&self, name: &str, version: Option<String>) -> Result<KeyFacts> {
        let options = KeyClientGetKeyOptions { key_version: version, ..Default::default() };
        let answer = self.client().await?.get_key(name, Some(options)).await;
        let key =
            answer.and_then(|answer| answer.into_model()).map_err(|error| self.failed(Verb::Read, name, &error))?;
        self.expect(KeyFacts::read(key)?, name)
    }

    /// Asks what the master key is: one request.
    pub async fn master_key(&self) -> Result<KeyFacts> {
        self.read(&self.options.key, None).await
    }

    /// Makes a new version of the master key.
    pub async fn rotate(&self) -> Result<KeyFacts> {
        let name = &self.options.key;
        let answer = self.client().await?.rotate_key(name, None).await;
        let key =
            answer.and_then(|answer| answer.into_model()).map_err(|error| self.failed(Verb::Rotate, name, &error))?;
        self.expect(KeyFacts::read(key)?, name)
    }

    /// Makes a key.
    pub async fn create(&self, name: &str, parameters: CreateKeyParameters) -> Result<KeyFacts> {
        let failed = |error: azure_core::Error| self.failed(Verb::Create, name, &error);
        let content: RequestContent<CreateKeyParameters> = parameters.try_into().map_err(failed)?;
        let answer = self.client().await?.create_key(name, content, None).await;
        let key = answer.and_then(|answer| answer.into_model()).map_err(failed)?;
        self.expect(KeyFacts::read(key)?, name)
    }

    /// Checks that the service told of the key that it was asked about.
    fn expect(&self, found: KeyFacts, name: &str) -> Result<KeyFacts> {
        if found.id.name.eq_ignore_ascii_case(name) { Ok(found) } else { Err(other_key(name)) }
    }

    /// Lists all keys that are enabled and can be described.
    pub async fn list(&self) -> Result<Vec<KeyFacts>> {
        let failed = |error: azure_core::Error| self.failed(Verb::List, "*", &error);
        let mut pages = self.client().await?.list_key_properties(None).map_err(failed)?;
        let mut names = Vec::new();
        while let Some(item) = pages.try_next().await.map_err(failed)? {
            let enabled = item.attributes.is_none_or(|attributes| attributes.enabled != Some(false));
            names.extend(item.kid.as_deref().and_then(parts).filter(|_| enabled).map(|(name, _)| name));
        }
        let asked = futures::stream::iter(names).map(|name| async move { self.read(&name, None).await });
        let answers: Vec<_> = asked.buffered(AT_A_TIME).collect().await;
        answers.into_iter().filter_map(usable).collect()
    }

    /// Has the service work on bytes with one version of a key: one request.
    pub async fn operate(&self, verb: Verb, id: &KeyId, algorithm: &str, input: &[u8]) -> Result<SecureBytes> {
        let client = self.client().await?;
        let body = operation(algorithm, input);
        let answer = send(&client, verb, id, body.clone()).await;
        wipe(body);
        let answer = answer.map_err(|error| self.failed(verb, &id.to_string(), &error))?;
        let output = result(&answer, id);
        wipe(answer);
        output
    }
}

/// Leaves out what cannot be used or described; other faults end the list, which would be short without a word.
fn usable(answer: Result<KeyFacts>) -> Option<Result<KeyFacts>> {
    match answer {
        Ok(key) => (key.state == KeyState::Enabled && key.spec().is_some()).then_some(Ok(key)),
        Err(error) => match error.kms_fault() {
            Some(KmsFault::Denied | KmsFault::NotFound | KmsFault::Disabled | KmsFault::Failed) => None,
            _ => Some(Err(error)),
        },
    }
}

/// Sends an operation and gives the answer's body.
async fn send(client: &KeyClient, verb: Verb, id: &KeyId, body: Bytes) -> azure_core::Result<Bytes> {
    let (name, version) = (&id.name, Some(id.version.clone()));
    let answer = match verb {
        Verb::Sign => {
            let options = KeyClientSignOptions { key_version: version, ..Default::default() };
            client.sign(name, body.into(), Some(options)).await
        }
        Verb::Wrap => {
            let options = KeyClientWrapKeyOptions { key_version: version, ..Default::default() };
            client.wrap_key(name, body.into(), Some(options)).await
        }
        Verb::Decrypt => client.decrypt(name, &id.version, body.into(), None).await,
        _ => client.unwrap_key(name, &id.version, body.into(), None).await,
    };
    Ok(answer?.into_body().into())
}

/// Makes the body of an operation in one piece of memory, which is wiped afterwards. The alphabet of base64url needs no escapes.
fn operation(algorithm: &str, input: &[u8]) -> Bytes {
    let (start, middle, end) = (r#"{"alg":""#, r#"","value":""#, r#""}"#);
    let len = start.len() + algorithm.len() + middle.len() + BASE64URL_NOPAD.encode_len(input.len()) + end.len();
    let mut body = String::with_capacity(len);
    body.push_str(start);
    body.push_str(algorithm);
    body.push_str(middle);
    BASE64URL_NOPAD.encode_append(input, &mut body);
    body.push_str(end);
    body.into()
}

/// The answer to an operation, as it stands in the body.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    kid: Cow<'a, str>,
    value: &'a str,
}

/// Reads the answer to an operation straight into secret memory.
///
/// # Errors
/// `Failed` for an answer about another key or version, and for one that makes no sense.
pub fn result(body: &[u8], id: &KeyId) -> Result<SecureBytes> {
    let senseless =
        || Error::kms(KmsFault::Failed, format!("Azure gave an answer for the key `{id}` that makes no sense"));
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|_| senseless())?;
    let made_by = KeyId::parse(&answer.kid).ok_or_else(senseless)?;
    if !(made_by.name.eq_ignore_ascii_case(&id.name) && made_by.version.eq_ignore_ascii_case(&id.version)) {
        return Err(other_key(&id.to_string()));
    }
    let value = answer.value.trim_end_matches('=').as_bytes();
    let len = BASE64URL_NOPAD.decode_len(value.len()).map_err(|_| senseless())?;
    SecureBytes::try_with(len, |output| BASE64URL_NOPAD.decode_mut(value, output).map(drop)).map_err(|_| senseless())
}

/// Makes the error of an answer about another key.
fn other_key(asked: &str) -> Error {
    let text = format!("Azure answered for another key than `{}`, for which it was asked", asked.escape_debug());
    Error::kms(KmsFault::Failed, text)
}

/// Wipes a body, unless the transport still holds it.
fn wipe(body: Bytes) {
    if let Ok(mut body) = body.try_into_mut() {
        body.as_mut().zeroize();
    }
}
