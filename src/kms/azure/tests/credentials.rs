//! Who we are: each way to log in. Those that read variables run in a process of their own.

use std::process::Command;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use azure_core::http::{AsyncRawResponse, HttpClient, Request, Transport, Url};
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions};

use super::super::connect::{OneTry, metadata_client, one_try};

use super::*;

/// Tells a child process which vault to ask.
const VAULT: &str = "STRONGROOM_TEST_AZURE_VAULT";

/// What the child does: it logs in by the chain with the variables that it was given, and prints what became of it.
#[test]
#[allow(clippy::print_stderr)]
fn child_of_the_chain() {
    let Ok(vault) = std::env::var(VAULT) else { return };
    let settings = Settings::new("chain", KIND)
        .with("vault", double::text(&vault))
        .with("key", double::text("credentials"))
        .with("ca_file", double::Setting::Path(crate::kms::emulator::test_ca()))
        .with("verify_challenge_resource", double::Setting::Flag(false));
    match open(&settings).unwrap().health() {
        Ok(()) => eprintln!("HEALTHY"),
        Err(error) => eprintln!("FAULT {:?} {}", error.kms_fault(), error.message()),
    }
}

/// Runs the child with these variables and no others of Azure's.
fn chain(variables: &[(&str, &str)]) -> String {
    let double = Double::shared();
    drop(master(double, "credentials", rsa()));
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["kms::azure::tests::credentials::child_of_the_chain", "--exact", "--nocapture"]);
    child.env_clear().env("PATH", "/nonexistent").env(VAULT, double.url("127.0.0.1"));
    let output = child.envs(variables.iter().copied()).output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn r66_the_chain_takes_the_service_principal_of_the_variables() {
    let authority = Double::shared().url("127.0.0.1");
    let variables = |secret| {
        [
            ("AZURE_TENANT_ID", double::TENANT),
            ("AZURE_CLIENT_ID", double::CLIENT),
            ("AZURE_CLIENT_SECRET", secret),
            ("AZURE_AUTHORITY_HOST", authority.as_str()),
        ]
    };
    let said = chain(&variables(double::SECRET));
    assert!(said.contains("HEALTHY"), "{said}");
    let said = chain(&variables("another-secret"));
    assert!(said.contains("FAULT Some(Denied)") && said.contains("AADSTS7000215"), "{said}");
    assert!(!said.contains("another-secret"), "{said}");
    let said = chain(&variables(double::SECRET)[1..]);
    assert!(said.contains("FAULT Some(Denied)") && said.contains("AZURE_TENANT_ID"), "{said}");
}

#[test]
fn r66_the_chain_takes_the_identity_of_an_app_service() {
    let endpoint = format!("{}/msi/token", Double::shared().url("127.0.0.1"));
    let said = chain(&[("IDENTITY_ENDPOINT", &endpoint), ("IDENTITY_HEADER", "header")]);
    assert!(said.contains("HEALTHY"), "{said}");
    let start = Instant::now();
    let said = chain(&[("IDENTITY_ENDPOINT", "https://127.0.0.1:1/msi/token"), ("IDENTITY_HEADER", "header")]);
    assert!(said.contains("FAULT Some(Unreachable)"), "{said}");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "the SDK's own retries would take over a minute: {:?}",
        start.elapsed()
    );
}

/// Sends what is meant for the identity service of a virtual machine, at its fixed address, to another place.
#[derive(Debug)]
struct Elsewhere(OneTry, Url);

#[async_trait]
impl HttpClient for Elsewhere {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        assert_eq!(request.url().host_str(), Some("169.254.169.254"));
        let mut request = request.clone();
        let url = request.url_mut();
        url.set_scheme("https").unwrap();
        url.set_host(self.1.host_str()).unwrap();
        url.set_port(self.1.port()).unwrap();
        self.0.execute_request(&request).await
    }
}

#[test]
fn r66_the_identity_of_a_machine_is_asked_once_for_a_token() {
    let faults = Faults::before(Double::shared());
    let options = connect::Options::read(&faults.double().settings("k")).unwrap();
    let elsewhere = Elsewhere(metadata_client(&options).unwrap(), Url::parse(&options.url).unwrap());
    let client_options = one_try(Transport::new(Arc::new(elsewhere)));
    let more = ManagedIdentityCredentialOptions { client_options, ..Default::default() };
    let credential = ManagedIdentityCredential::new(Some(more)).unwrap();
    let token = || {
        let credential = credential.clone();
        let asked = async move { Ok(credential.get_token(&["https://vault.azure.net/.default"], None).await) };
        crate::runtime::run(Duration::from_secs(30), asked).unwrap()
    };
    // The SDK tries again by itself what is unavailable, throttled or broken: seven times in 72 seconds.
    for (name, expected) in [
        ("unavailable", KmsFault::Unreachable),
        ("throttle", KmsFault::Throttled(Some(Duration::from_secs(7)))),
        ("forbidden", KmsFault::Denied),
        ("drop", KmsFault::Unreachable),
    ] {
        faults.clear();
        faults.set("token", name, 0);
        let error = fault::explain(Verb::Read, "k", &token().unwrap_err());
        assert_eq!(error.kms_fault(), Some(expected), "{name}: {error:?}");
        assert_eq!(faults.hits(), "token=1", "{name}");
    }
    faults.clear();
    token().unwrap();
    token().unwrap();
    assert_eq!(faults.hits(), "token=1", "the token is kept");
}

#[test]
fn r66_the_chain_reads_the_token_of_a_workload() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let authority = Double::shared().url("127.0.0.1");
    let variables = [
        ("AZURE_TENANT_ID", double::TENANT),
        ("AZURE_CLIENT_ID", double::CLIENT),
        ("AZURE_FEDERATED_TOKEN_FILE", file.to_str().unwrap()),
        ("AZURE_AUTHORITY_HOST", authority.as_str()),
    ];
    let said = chain(&variables);
    assert!(said.contains("FAULT Some(Denied)") && said.contains("token"), "{said}");
    std::fs::write(&file, "test-assertion").unwrap();
    let said = chain(&variables);
    assert!(said.contains("HEALTHY"), "{said}");
    std::fs::write(&file, "another-assertion").unwrap();
    let said = chain(&variables);
    assert!(said.contains("FAULT Some(Denied)") && !said.contains("another-assertion"), "{said}");
}

#[test]
fn r66_the_proxy_of_the_environment_is_heeded() {
    let authority = Double::shared().url("127.0.0.1");
    let variables = |more: &[(&'static str, &'static str)]| {
        let login = [
            ("AZURE_TENANT_ID", double::TENANT),
            ("AZURE_CLIENT_ID", double::CLIENT),
            ("AZURE_CLIENT_SECRET", double::SECRET),
            ("AZURE_AUTHORITY_HOST", authority.as_str()),
        ];
        chain(&[&login[..], more].concat())
    };
    let said = variables(&[("HTTPS_PROXY", "http://127.0.0.1:1")]);
    assert!(said.contains("FAULT Some(Unreachable)") && said.contains("HTTPS_PROXY"), "{said}");
    let said = variables(&[("HTTPS_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", "127.0.0.1")]);
    assert!(said.contains("HEALTHY"), "{said}");
}

#[test]
fn r66_a_chain_that_finds_nothing_says_so_soon() {
    let start = Instant::now();
    let said = chain(&[]);
    assert!(said.contains("FAULT Some(Denied)") && said.contains("`credential`"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[test]
fn r66_a_token_is_renewed_before_it_ends() {
    let double = Double::start(&["--token-seconds", "1"]);
    let kms = master(&double, "renewed", rsa());
    let wrapped = kms.wrap_key(&contract::secret(), &contract::CONTEXT).unwrap();
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!(kms.unwrap_key(&wrapped, &contract::CONTEXT).unwrap(), contract::secret());
    }
}

#[test]
fn a_secret_that_is_wrong_missing_or_elsewhere_is_denied() {
    let double = Double::shared();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    let settings = double.settings("k").with("client_secret_file", double::Setting::Path(file.clone()));
    let error = double.open(&settings).health().unwrap_err();
    assert_eq!(error.kms_fault(), Some(KmsFault::Denied), "{error:?}");
    assert!(error.message().contains(file.to_str().unwrap()), "{error:?}");
    std::fs::write(&file, "not-this-one").unwrap();
    let error = double.open(&settings).health().unwrap_err();
    assert_eq!(error.kms_fault(), Some(KmsFault::Denied), "{error:?}");
    let all = format!("{error:?} {}", error.message());
    assert!(all.contains("AADSTS7000215") && !all.contains("not-this-one"), "{all}");
}
