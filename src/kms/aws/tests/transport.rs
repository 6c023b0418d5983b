//! TLS with a certificate authority of the configuration.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::service::{Answer, Service};
use super::*;

/// Makes a certificate for 127.0.0.1 that signs itself, and its key beside it.
pub fn certificate(folder: &Path) -> PathBuf {
    let config = "[req]\ndistinguished_name = name\nx509_extensions = extensions\n[name]\n[extensions]\n\
                  basicConstraints = critical, CA:FALSE\nsubjectAltName = IP:127.0.0.1\n";
    std::fs::write(folder.join("config"), config).unwrap();
    let arguments = "req -x509 -config config -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test \
                     -keyout key.pem -out ca.pem";
    let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder.join("ca.pem")
}

fn server(folder: &Path) -> ServerConfig {
    let certificate = CertificateDer::from_pem_file(folder.join("ca.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap()
}

#[test]
fn r66_a_certificate_authority_of_the_configuration_is_trusted_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let ca = certificate(folder.path());
    let service = Service::start_tls(server(folder.path()), |_| {
        Some(Answer::json(&serde_json::json!({ "KeyMetadata": { "KeyId": "x", "Arn": ARN, "KeyState": "Enabled",
            "KeySpec": "SYMMETRIC_DEFAULT" } })))
    });
    let endpoint = Setting::Text(format!("https://127.0.0.1:{}", service.port));
    let settings = settings(1, ARN).with("endpoint", endpoint);
    let open = |settings: &Settings| AwsKms::new(settings, Arc::new(defaults)).unwrap();
    open(&settings.clone().with("ca_file", Setting::Path(ca))).describe().unwrap();
    let error = open(&settings).describe().unwrap_err();
    assert!(error.kms_fault() == Some(KmsFault::Unreachable) && error.message().contains("certificate"), "{error}");
    let other = tempfile::tempdir().unwrap();
    let error = open(&settings.with("ca_file", Setting::Path(certificate(other.path())))).describe().unwrap_err();
    assert_eq!(error.kms_fault(), Some(KmsFault::Unreachable), "{error}");
}

#[test]
fn r66_a_bad_file_of_certificates_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let open = || {
        let settings = settings(1, ARN).with("ca_file", Setting::Path(ca.clone()));
        AwsKms::new(&settings, Arc::new(defaults)).unwrap().describe().unwrap_err()
    };
    let block = |bytes: &str| format!("-----BEGIN CERTIFICATE-----\n{bytes}\n-----END CERTIFICATE-----\n");
    for (text, word) in [
        (None, "cannot be read"),
        (Some(String::new()), "holds no certificate"),
        (Some(block("!!!!")), "is no PEM"),
        (Some(block("AAAA")), "holds a bad certificate"),
    ] {
        if let Some(text) = text {
            std::fs::write(&ca, text).unwrap();
        }
        let error = open();
        assert!(error.message().contains(word) && error.message().contains("ca.pem"), "{error}");
    }
}

#[test]
fn another_machine_is_not_spoken_to_without_tls() {
    // Addresses for documents (RFC 5737), where nobody answers: a request that was sent would end with another fault.
    let url = |url: &str| settings(1, ARN).with("endpoint", Setting::Text(url.to_owned()));
    let mut by_environment = url("");
    by_environment.values.remove("endpoint");
    for (settings, chain) in [
        (url("http://192.0.2.1:4566"), None),
        (url("HTTP://user@192.0.2.1/"), None),
        (by_environment, Some("http://192.0.2.1:4566")),
    ] {
        let chained = move || chain.into_iter().fold(defaults(), |loader, url| loader.endpoint_url(url));
        let kms = AwsKms::new(&settings, Arc::new(chained)).unwrap();
        let error = kms.wrap_key(&contract::secret(), &contract::CONTEXT).unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::Failed));
        assert!(error.message().contains("https://"), "{error}");
    }
}
