//! How a vault is reached: what the configuration says, the transport, and who we are.
//!
//! The rules are:
//! - the SDK's own retries are off, and the SDK cannot turn them on again: it does so for the machine's identity, for over a
//!   minute, so that transport hides from it what it would try again ([`OneTry`]);
//! - the credential is chosen by what is there, and the one probe that is needed, for the machine's identity, is short;
//! - a secret of ours is read when it is needed, and never from the configuration itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_core::http::{AsyncRawResponse, ClientOptions, HttpClient, Request, RetryOptions, Transport, Url};
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions, ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use azure_security_keyvault_keys::{KeyClient, KeyClientOptions};
use zeroize::Zeroizing;

use super::fault;
use super::vault::name_and_version;
use crate::error::{Error, KmsFault, Result};
use crate::kms::settings::{Setting, Settings};

/// The words for `credential`.
pub const CREDENTIALS: &[&str] = &["chain", "service-principal", "managed-identity", "workload-identity", "cli"];

/// How long one call may take when the settings do not say.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the chain waits for the machine's identity service, which is not there on most machines.
const PROBE: Duration = Duration::from_millis(1500);
/// What the names of managed HSMs have in them, in every cloud: `NAME.managedhsm.azure.net`.
const MANAGED_HSM: &str = ".managedhsm.";

/// Who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Chain,
    ServicePrincipal,
    ManagedIdentity,
    WorkloadIdentity,
    Cli,
}

/// What the configuration says.
#[derive(Debug)]
pub struct Options {
    /// The address of the vault, without a slash at the end.
    pub url: String,
    /// The name of the master key.
    pub key: String,
    /// How long one call may take.
    pub timeout: Duration,
    /// Whether keys made here are in an HSM.
    pub hsm_keys: bool,
    source: Source,
    tenant: Option<String>,
    client_id: Option<String>,
    client_secret_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
    authority: Option<String>,
    ca_file: Option<PathBuf>,
    verify_challenge_resource: bool,
}

impl Options {
    /// Reads the settings.
    ///
    /// # Errors
    /// `ArgumentsBad` for a vault that is no `https://` address and a name that no key can have.
    pub fn read(settings: &Settings) -> Result<Self> {
        let (url, host) = vault_url(settings)?;
        let text = |key: &str| settings.text(key).map(str::to_owned);
        let path = |key: &str| settings.path(key).map(Path::to_owned);
        Ok(Self {
            hsm_keys: settings.flag("hsm_keys") || host.contains(MANAGED_HSM),
            url,
            key: key_name(settings)?,
            timeout: settings.number("timeout_seconds").map_or(TIMEOUT, |seconds| Duration::from_secs(seconds.into())),
            source: source(settings.text("credential")),
            tenant: text("tenant"),
            client_id: text("client_id"),
            client_secret_file: path("client_secret_file"),
            token_file: path("token_file"),
            authority: text("authority"),
            ca_file: path("ca_file"),
            verify_challenge_resource: settings.values.get("verify_challenge_resource") != Some(&Setting::Flag(false)),
        })
    }
}

/// Reads the address of the vault: the whole of it, and its host.
fn vault_url(settings: &Settings) -> Result<(String, String)> {
    let given = settings.required_text("vault")?;
    let url = Url::parse(given).ok().filter(|url| url.scheme() == "https" && matches!(url.path(), "" | "/"));
    let url = url.filter(|url| url.query().is_none() && url.username().is_empty());
    let host = url.as_ref().and_then(|url| url.host_str()).map(str::to_owned);
    match (url, host) {
        (Some(url), Some(host)) => Ok((url.as_str().trim_end_matches('/').to_owned(), host)),
        _ => Err(Error::arguments_bad(format!(
            "the KMS `{}`: `vault` must be an address like https://NAME.vault.azure.net; there is no http://",
            settings.name
        ))),
    }
}

/// Reads the name of the master key.
fn key_name(settings: &Settings) -> Result<String> {
    let given = settings.required_text("key")?;
    match name_and_version(given) {
        Some((name, None)) => Ok(name),
        _ => Err(Error::arguments_bad(format!(
            "the KMS `{}`: `key` must be the name of a key alone, of letters, digits and hyphens",
            settings.name
        ))),
    }
}

fn source(word: Option<&str>) -> Source {
    match word {
        Some("service-principal") => Source::ServicePrincipal,
        Some("managed-identity") => Source::ManagedIdentity,
        Some("workload-identity") => Source::WorkloadIdentity,
        Some("cli") => Source::Cli,
        _ => Source::Chain,
    }
}

/// Makes the client. It connects with its first request.
///
/// # Errors
/// `Denied` when there is no way to log in; `Failed` for a file of certificates that cannot be used.
pub fn client(options: &Options) -> Result<Arc<KeyClient>> {
    let transport = Transport::new(Arc::new(http_client(options)?));
    let credential = credential(options, &transport)?;
    let client_options = KeyClientOptions {
        client_options: one_try(transport),
        verify_challenge_resource: Some(options.verify_challenge_resource),
        ..Default::default()
    };
    let client = KeyClient::new(&options.url, credential, Some(client_options));
    client.map(Arc::new).map_err(|error| fault::no_client(&error))
}

/// Makes the options of a client that tries once.
pub fn one_try(transport: Transport) -> ClientOptions {
    ClientOptions { transport: Some(transport), retry: RetryOptions::none(), ..Default::default() }
}

/// Makes the HTTP client for the vault and the login service: TLS only, with the user's own CA.
fn http_client(options: &Options) -> Result<reqwest::Client> {
    base(options)?.https_only(true).build().map_err(no_http)
}

/// Makes the HTTP client for the machine's identity service: a plain address of the machine itself, never behind a proxy.
pub fn metadata_client(options: &Options) -> Result<OneTry> {
    base(options)?.no_proxy().build().map(OneTry).map_err(no_http)
}

fn base(options: &Options) -> Result<reqwest::ClientBuilder> {
    let builder =
        reqwest::Client::builder().connect_timeout(options.timeout).redirect(reqwest::redirect::Policy::none());
    Ok(match &options.ca_file {
        Some(file) => builder.tls_certs_merge(certificates(file)?),
        None => builder,
    })
}

fn no_http(error: reqwest::Error) -> Error {
    Error::kms(KmsFault::Failed, "the HTTP client for Azure cannot be made").caused_by(error)
}

fn certificates(file: &Path) -> Result<Vec<reqwest::Certificate>> {
    let unusable =
        || Error::kms(KmsFault::Failed, format!("the `ca_file` {} has no certificates in PEM form", file.display()));
    let pem = std::fs::read(file).map_err(|error| unusable().caused_by(error))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unusable().caused_by(error))?;
    if certificates.is_empty() { Err(unusable()) } else { Ok(certificates) }
}

/// Makes the credential.
fn credential(options: &Options, transport: &Transport) -> Result<Arc<dyn TokenCredential>> {
    match options.source {
        Source::ServicePrincipal => service_principal(options, transport),
        Source::ManagedIdentity => managed_identity(options),
        Source::WorkloadIdentity => workload_identity(options, transport),
        Source::Cli => cli(options),
        Source::Chain if options.client_secret_file.is_some() || present("AZURE_CLIENT_SECRET") => {
            service_principal(options, transport)
        }
        Source::Chain if options.token_file.is_some() || present("AZURE_FEDERATED_TOKEN_FILE") => {
            workload_identity(options, transport)
        }
        Source::Chain if present("IDENTITY_ENDPOINT") || present("MSI_ENDPOINT") => managed_identity(options),
        Source::Chain => Ok(Arc::new(Probe {
            machine: managed_identity(options)?,
            cli: cli(options)?,
            found: tokio::sync::OnceCell::new(),
        })),
    }
}

fn present(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

/// Takes a value from the configuration, or else from a variable.
fn setting(given: Option<&String>, key: &str, variable: &str) -> Result<String> {
    let value = given.cloned().or_else(|| std::env::var(variable).ok()).filter(|value| !value.is_empty());
    value.ok_or_else(|| Error::kms(KmsFault::Denied, format!("to log in to Azure, set `{key}` or {variable}")))
}

fn service_principal(options: &Options, transport: &Transport) -> Result<Arc<dyn TokenCredential>> {
    let tenant = setting(options.tenant.as_ref(), "tenant", "AZURE_TENANT_ID")?;
    let client_id = setting(options.client_id.as_ref(), "client_id", "AZURE_CLIENT_ID")?;
    let more = ClientSecretCredentialOptions { client_options: login(options, transport) };
    let made = ClientSecretCredential::new(&tenant, client_id, client_secret(options)?, Some(more));
    Ok(made.map_err(|error| fault::no_client(&error))?)
}

/// Reads the secret of the service principal; a line's end behind it is none of it.
fn client_secret(options: &Options) -> Result<Secret> {
    let Some(file) = &options.client_secret_file else {
        return setting(None, "client_secret_file", "AZURE_CLIENT_SECRET").map(Secret::new);
    };
    let text = std::fs::read_to_string(file).map(Zeroizing::new).map_err(|error| {
        let text = format!("the `client_secret_file` {} cannot be read", file.display());
        Error::kms(KmsFault::Denied, text).caused_by(error)
    })?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn workload_identity(options: &Options, transport: &Transport) -> Result<Arc<dyn TokenCredential>> {
    let credential_options = ClientAssertionCredentialOptions { client_options: login(options, transport) };
    let more = WorkloadIdentityCredentialOptions {
        credential_options,
        client_id: options.client_id.clone(),
        tenant_id: options.tenant.clone(),
        token_file_path: options.token_file.clone(),
    };
    Ok(WorkloadIdentityCredential::new(Some(more)).map_err(|error| fault::no_client(&error))?)
}

fn managed_identity(options: &Options) -> Result<Arc<dyn TokenCredential>> {
    let transport = Transport::new(Arc::new(metadata_client(options)?));
    let more = ManagedIdentityCredentialOptions {
        user_assigned_id: options.client_id.clone().map(UserAssignedId::ClientId),
        client_options: one_try(transport),
    };
    Ok(ManagedIdentityCredential::new(Some(more)).map_err(|error| fault::no_client(&error))?)
}

fn cli(options: &Options) -> Result<Arc<dyn TokenCredential>> {
    let more = AzureCliCredentialOptions { tenant_id: options.tenant.clone(), ..Default::default() };
    Ok(AzureCliCredential::new(Some(more)).map_err(|error| fault::no_client(&error))?)
}

/// Makes the options for the login service.
fn login(options: &Options, transport: &Transport) -> ClientOptions {
    let cloud = options.authority.clone().map(|authority| {
        let mut custom = CustomConfiguration::default();
        custom.authority_host = authority;
        Arc::new(CloudConfiguration::Custom(custom))
    });
    ClientOptions { cloud, ..one_try(transport.clone()) }
}

/// The machine's identity where there is one, else the Azure CLI: what the chain comes to when nothing is configured.
#[derive(Debug)]
struct Probe {
    machine: Arc<dyn TokenCredential>,
    cli: Arc<dyn TokenCredential>,
    found: tokio::sync::OnceCell<Arc<dyn TokenCredential>>,
}

#[async_trait]
impl TokenCredential for Probe {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        if let Some(found) = self.found.get() {
            return found.get_token(scopes, options).await;
        }
        let machine = tokio::time::timeout(PROBE, self.machine.get_token(scopes, options.clone())).await;
        let (token, credential) = match machine {
            Ok(Ok(token)) => (token, &self.machine),
            _ => (self.cli.get_token(scopes, options).await.map_err(nothing_found)?, &self.cli),
        };
        // Another call may have been first, with the same answer.
        let _ = self.found.set(credential.clone());
        Ok(token)
    }
}

fn nothing_found(cli: azure_core::Error) -> azure_core::Error {
    let text = format!("no AZURE_… variables, no identity of this machine, and no login by the Azure CLI: {cli}");
    azure_core::Error::with_message(ErrorKind::Credential, text)
}

/// A transport whose failures the SDK does not try again.
#[derive(Debug)]
pub struct OneTry(reqwest::Client);

#[async_trait]
impl HttpClient for OneTry {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        // Io and Connection are what the SDK tries again; the cause still tells what it was.
        let last = |error| azure_core::Error::with_error(ErrorKind::Other, error, "no identity service answers");
        let response = self.0.execute_request(request).await.map_err(last)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let raw_response = Some(Box::new(response.try_into_raw_response().await.map_err(last)?));
        let kind = ErrorKind::HttpResponse { status, error_code: None, raw_response };
        Err(azure_core::Error::with_message(kind, "the identity service refused"))
    }
}
