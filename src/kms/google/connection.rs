//! One client of Cloud KMS for each provider and process, made when it is first needed.
//!
//! The rules are:
//! - all calls of a provider share a client, its pool of connections and its access token, which is renewed ahead of time;
//! - a forked child leaks the parent's client, whose tasks and sockets it must not touch, and makes one of its own;
//! - a client whose credentials failed is thrown away: the libraries would never ask for a token again.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use google_cloud_auth::credentials::{
    self, Credentials, anonymous, external_account, impersonated, service_account, user_account,
};
use google_cloud_gax::retry_policy::NeverRetry;
use google_cloud_kms_v1::client::KeyManagementService;
use tokio::sync::OnceCell;

use super::fault;
use crate::error::{Error, KmsFault, Result};
use crate::secret::process_generation;

/// Where credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// Where Google's libraries look: GOOGLE_APPLICATION_CREDENTIALS, gcloud's own file, the metadata server.
    Chain,
    /// A file of one of Google's kinds.
    File(PathBuf),
    /// None: for emulators.
    Anonymous,
}

/// How to reach the service, and the client once it is there.
pub struct Connection {
    endpoint: Option<String>,
    login: Login,
    slot: ArcSwap<Slot>,
}

/// The client of one process.
struct Slot {
    generation: u64,
    client: OnceCell<KeyManagementService>,
}

/// A client in use.
#[derive(Clone)]
pub struct Client {
    /// Google's own.
    pub sdk: KeyManagementService,
    connection: Arc<Connection>,
    slot: Arc<Slot>,
}

impl Client {
    /// Waits for the answer of one request; `refusal` is what a refused argument means for it.
    ///
    /// # Errors
    /// What [`fault::judge`] makes of the error.
    pub async fn send<T>(
        &self,
        refusal: KmsFault,
        request: impl Future<Output = google_cloud_kms_v1::Result<T>>,
    ) -> Result<T> {
        request.await.map_err(|error| {
            if fault::spoils_client(&error) {
                self.connection.slot.compare_and_swap(&self.slot, Slot::empty());
            }
            fault::judge(&error, refusal)
        })
    }
}

impl Slot {
    fn empty() -> Arc<Self> {
        Arc::new(Self { generation: process_generation(), client: OnceCell::new() })
    }
}

impl Drop for Slot {
    /// Leaks a parent's client: to drop it would wake tasks of a runtime that does not run in this process.
    fn drop(&mut self) {
        if self.generation != process_generation() {
            std::mem::forget(std::mem::take(&mut self.client));
        }
    }
}

impl Connection {
    /// Keeps how to connect; nothing is touched.
    pub fn new(endpoint: Option<String>, login: Login) -> Self {
        Self { endpoint, login, slot: ArcSwap::new(Slot::empty()) }
    }

    /// Gives the client, and makes it if there is none. It runs on the runtime.
    ///
    /// # Errors
    /// `Denied` without usable credentials, `Failed` for settings that make no client.
    pub async fn client(self: Arc<Self>) -> Result<Client> {
        let slot = self.slot();
        let sdk = slot.client.get_or_try_init(|| self.connect()).await?.clone();
        Ok(Client { sdk, connection: self, slot })
    }

    /// Finds the slot of this process.
    fn slot(&self) -> Arc<Slot> {
        let found = self.slot.load_full();
        if found.generation == process_generation() {
            return found;
        }
        self.slot.compare_and_swap(&found, Slot::empty());
        self.slot.load_full()
    }

    async fn connect(&self) -> Result<KeyManagementService> {
        let mut builder =
            KeyManagementService::builder().with_retry_policy(NeverRetry).with_credentials(self.login.credentials()?);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        builder.build().await.map_err(|error| fault::judge_client(&error))
    }
}

impl Login {
    fn credentials(&self) -> Result<Credentials> {
        match self {
            Self::Chain => credentials::Builder::default().build().map_err(|error| fault::judge_credentials(&error)),
            Self::File(path) => from_file(path),
            Self::Anonymous => Ok(anonymous::Builder::new().build()),
        }
    }
}

/// Reads a file of credentials, whose `type` says of which kind it is.
fn from_file(path: &Path) -> Result<Credentials> {
    let unusable = |what: &str| {
        let text = format!("the credentials file {} {what}; make it anew, or leave the key out", path.display());
        Error::kms(KmsFault::Denied, text)
    };
    let text = std::fs::read(path).map_err(|error| unusable("cannot be read").caused_by(error))?;
    let text = crate::secret::SecureBytes::take(text);
    // The parser's own error names a line and never shows what stands there, but for strings of unknown kinds: it is left out.
    let json: serde_json::Value =
        serde_json::from_slice(text.expose()).map_err(|_| unusable("is no whole JSON document"))?;
    let kind = json.get("type").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let made = match kind.as_str() {
        "service_account" => service_account::Builder::new(json).build(),
        "authorized_user" => user_account::Builder::new(json).build(),
        "external_account" => external_account::Builder::new(json).build(),
        "impersonated_service_account" => impersonated::Builder::new(json).build(),
        _ => return Err(unusable("is of no type that can be used")),
    };
    made.map_err(|error| fault::judge_credentials(&error).context(format!("the credentials file {}", path.display())))
}
