//! Who we are: each way to log in. Those that read variables run in a process of their own.

use std::process::Command;
use std::time::{Duration, Instant};

use super::*;

/// Tells a child process which vault to ask.
const VAULT: &str = "STRONGROOM_TEST_AZURE_VAULT";

/// What the child does: it logs in by the chain with the variables that it was given, and prints what became of it.
#[test]
fn child_of_the_chain() {
    let Ok(vault) = std::env::var(VAULT) else { return };
    let settings = Settings::new("chain", KIND)
        .with("vault", double::text(&vault))
        .with("key", double::text("credentials"))
        .with("ca_file", double::Setting::Path(double::ca_file()))
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
