//! The client of the SDK: made with the first call of a process, kept with its connections and credentials for all others.

use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::{AppName, BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_kms::config::{ConfigBag, Intercept, RuntimeComponents, SharedHttpClient};
use aws_sdk_kms::error::BoxError;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::OnceCell;

use super::fault::InClear;
use crate::error::{Error, KmsFault, Result};
use crate::runtime;
use crate::secret::process_generation;

/// How long before they expire credentials are fetched anew: the SDK's own ten seconds are less than one call may take.
const REFRESH_AHEAD: Duration = Duration::from_secs(60);
/// How this library names itself in the user agent, which CloudTrail records.
const APP_NAME: &str = "strongroom";

/// Where the chain of the SDK's own settings starts: the environment and the files of this machine, but in tests.
pub type Defaults = Arc<dyn Fn() -> ConfigLoader + Send + Sync>;

/// Starts the SDK's own chain of settings: variables, profile, web identity, SSO, container, instance.
pub fn defaults() -> ConfigLoader {
    aws_config::defaults(BehaviorVersion::v2026_01_12())
}

/// Where the service is, as the configuration says it; what it leaves out, the SDK's own chain finds.
#[derive(Debug, Clone)]
pub struct Where {
    /// The region.
    pub region: Option<String>,
    /// The URL of another endpoint.
    pub endpoint: Option<String>,
    /// The profile with the credentials.
    pub profile: Option<String>,
    /// The certificates that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// The client that the calls of one process share.
type Shared = Arc<OnceCell<Client>>;

/// The way to the service.
pub struct Connection {
    place: Where,
    deadline: Duration,
    defaults: Defaults,
    /// The client, and the process that it belongs to.
    shared: Mutex<(u64, Shared)>,
}

impl Connection {
    /// Notes where the service is; nothing is read or connected yet.
    pub fn new(place: Where, deadline: Duration, defaults: Defaults) -> Self {
        let shared = Mutex::new((process_generation(), Shared::default()));
        Self { place, deadline, defaults, shared }
    }

    /// Runs the requests of one method within the deadline.
    ///
    /// # Errors
    /// What the work answers; a KMS fault `TimedOut` past the deadline.
    pub fn call<T: Send + 'static, F: Future<Output = Result<T>> + Send>(
        &self,
        work: impl FnOnce(Client) -> F + Send + 'static,
    ) -> Result<T> {
        let (shared, place, defaults) = (self.shared(), self.place.clone(), self.defaults.clone());
        let task = async move {
            let client = shared.get_or_try_init(|| connect(&place, defaults())).await?.clone();
            work(client).await
        };
        runtime::run(self.deadline, task)
    }

    /// Finds the client of this process.
    ///
    /// A forked child must not use the parent's connections, and must not drop them either: their tasks belong to a runtime
    /// whose threads are not here. It leaks them, as the runtime is leaked.
    fn shared(&self) -> Shared {
        let mut shared = self.shared.lock();
        if shared.0 != process_generation() {
            std::mem::forget(std::mem::replace(&mut *shared, (process_generation(), Shared::default())));
        }
        shared.1.clone()
    }
}

/// Makes the client. The SDK's retries are off: the caller's layer tries again, and counts.
async fn connect(place: &Where, defaults: ConfigLoader) -> Result<Client> {
    let http = place.ca_file.as_deref().map(trusting).transpose()?;
    let shared = load(place, http.clone(), defaults).await;
    let Some(region) = shared.region().cloned() else {
        let text = "no region is known; set `region` in the configuration, or AWS_REGION";
        return Err(Error::kms(KmsFault::Failed, text));
    };
    let mut config = aws_sdk_kms::config::Builder::from(&shared).interceptor(Encrypted);
    if let Some(profile) = &place.profile {
        config = config.credentials_provider(of_profile(profile, region, http));
    }
    // Only here: the endpoints of STS and SSO, which give credentials, are others.
    if let Some(endpoint) = &place.endpoint {
        config = config.endpoint_url(endpoint);
    }
    Ok(Client::from_conf(config.build()))
}

/// Refuses to speak to another machine without TLS, wherever its address comes from: secrets go this way.
#[derive(Debug)]
struct Encrypted;

impl Intercept for Encrypted {
    fn name(&self) -> &'static str {
        "Encrypted"
    }

    fn read_before_signing(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        match goes_in_clear(context.request().uri()) {
            true => Err(InClear.into()),
            false => Ok(()),
        }
    }
}

/// Tells whether a URL leads to another machine without TLS.
fn goes_in_clear(url: &str) -> bool {
    let Some(rest) = url.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://")).and(url.get(7..)) else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(host) => host.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    !(host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback()))
}

/// Lets the SDK's own chain find what the configuration leaves out.
async fn load(place: &Where, http: Option<SharedHttpClient>, defaults: ConfigLoader) -> SdkConfig {
    let mut loader = defaults.retry_config(RetryConfig::disabled());
    loader = loader.app_name(AppName::new(APP_NAME).expect("a name of letters is right"));
    loader = loader.identity_cache(IdentityCache::lazy().buffer_time(REFRESH_AHEAD).build());
    if let Some(region) = &place.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &place.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(http) = http {
        loader = loader.http_client(http);
    }
    loader.load().await
}

/// Takes the credentials of a profile alone: in the SDK's own chain the variables of the environment would come first.
fn of_profile(profile: &str, region: Region, http: Option<SharedHttpClient>) -> ProfileFileCredentialsProvider {
    let mut config = ProviderConfig::without_region().with_region(Some(region));
    if let Some(http) = http {
        config = config.with_http_client(http);
    }
    ProfileFileCredentialsProvider::builder().configure(&config).profile_name(profile).build()
}

/// Makes the connector that trusts the certificates of a file; in all else it is the SDK's own, proxies included.
fn trusting(file: &Path) -> Result<SharedHttpClient> {
    let store = TrustStore::empty().with_pem_certificate(certificates(file)?);
    let context = TlsContext::builder()
        .with_trust_store(store)
        .build()
        .map_err(|error| bad_file(file, "cannot be used").caused_by(error))?;
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(context.clone())
            .proxy_config(ProxyConfig::from_env());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.build()
    }))
}

/// Reads certificates and checks them: the connector panics on what it cannot read.
fn certificates(file: &Path) -> Result<Vec<u8>> {
    let pem = std::fs::read(file).map_err(|error| bad_file(file, "cannot be read").caused_by(error))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| bad_file(file, "is no PEM").caused_by(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad_file(file, "holds a bad certificate").caused_by(error))?;
    }
    if roots.is_empty() {
        return Err(bad_file(file, "holds no certificate"));
    }
    Ok(pem)
}

fn bad_file(file: &Path, what: &str) -> Error {
    Error::kms(KmsFault::Failed, format!("the `ca_file` {} {what}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_reached_without_tls() {
        for url in [
            "http://127.0.0.1:4566/",
            "http://localhost",
            "HTTP://LOCALHOST:1/x",
            "http://[::1]:2?x",
            "https://kms.eu-west-1.amazonaws.com/",
        ] {
            assert!(!goes_in_clear(url), "{url}");
        }
        for url in [
            "http://kms.example/",
            "HTTP://192.0.2.1:4566",
            "http://localhost@kms.example/",
            "http://127.0.0.1.kms.example",
            "http://[2001:db8::1]/",
            "http:///",
        ] {
            assert!(goes_in_clear(url), "{url}");
        }
    }
}
