//! Starts the double and the proxy that makes it fail, and opens providers on them.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use super::super::connect::Options;
use super::super::vault::Vault;
use super::super::{AzureKeyVault, KIND};
use crate::kms::Settings;
use crate::kms::emulator::{Emulator, test_ca};
pub use crate::kms::settings::Setting;

pub const TENANT: &str = "11111111-1111-1111-1111-111111111111";
pub const CLIENT: &str = "22222222-2222-2222-2222-222222222222";
pub const SECRET: &str = "test-secret";

pub fn text(text: &str) -> Setting {
    Setting::Text(text.to_owned())
}

/// A running double, or a proxy before it.
pub struct Double {
    port: u16,
}

impl Double {
    /// Gives the one that the tests share; each test uses key names of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Double> = OnceLock::new();
        SHARED.get_or_init(|| Self { port: Emulator::shared("azure").port })
    }

    /// Starts one with options of its own.
    pub fn start(options: &[&str]) -> Self {
        Self { port: Emulator::start("azure", options).port }
    }

    pub fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.port)
    }

    /// Lets all tokens that were given end.
    pub fn expire(&self) {
        ask("POST", &format!("{}/_expire", self.url("127.0.0.1")), "");
    }

    /// What a section of the configuration would say.
    pub fn settings(&self, key: &str) -> Settings {
        Settings::new("test", KIND)
            .with("vault", text(&self.url("127.0.0.1")))
            .with("key", text(key))
            .with("credential", text("service-principal"))
            .with("tenant", text(TENANT))
            .with("client_id", text(CLIENT))
            .with("client_secret_file", Setting::Path(secret_file()))
            .with("authority", text(&self.url("127.0.0.1")))
            .with("ca_file", Setting::Path(test_ca()))
            .with("verify_challenge_resource", Setting::Flag(false))
            .with("timeout_seconds", Setting::Number(60))
    }

    pub fn provider(&self, key: &str) -> AzureKeyVault {
        self.open(&self.settings(key))
    }

    pub fn open(&self, settings: &Settings) -> AzureKeyVault {
        AzureKeyVault { name: "prod".to_owned(), vault: Arc::new(Vault::new(Options::read(settings).unwrap())) }
    }
}

/// Gives a file with the secret of the service principal.
fn secret_file() -> PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let file = tempfile::tempdir().unwrap().keep().join("secret");
        std::fs::write(&file, format!("{SECRET}\n")).unwrap();
        file
    })
    .clone()
}

/// The proxy before a double.
pub struct Faults {
    port: u16,
}

impl Faults {
    pub fn before(double: &Double) -> Self {
        let options = ["--cloud", "azure", "--upstream", &double.url("127.0.0.1")];
        Self { port: Emulator::start("faults", &options).port }
    }

    pub fn double(&self) -> Double {
        Double { port: self.port }
    }

    /// Makes the next requests of an operation fail, `times` of them or, for 0, all.
    pub fn set(&self, operation: &str, fault: &str, times: u32) {
        let rule = serde_json::json!({"operation": operation, "fault": fault, "times": times, "retry_after": 7});
        self.control("POST", &rule.to_string());
    }

    /// Lets so many requests of an operation pass, and makes all that follow fail.
    pub fn skip(&self, operation: &str, fault: &str, skip: u32) {
        let rule = serde_json::json!({"operation": operation, "fault": fault, "times": 0, "skip": skip});
        self.control("POST", &rule.to_string());
    }

    /// Lets the next request of an operation wait for an answer that never comes.
    pub fn hang(&self, operation: &str, seconds: u32) {
        let rule = serde_json::json!({"operation": operation, "fault": "hang", "delay": seconds});
        self.control("POST", &rule.to_string());
    }

    pub fn clear(&self) {
        self.control("DELETE", "");
    }

    /// Tells what was asked since the last clearing: `get=1 wrapkey=1`.
    pub fn hits(&self) -> String {
        let state: serde_json::Value = serde_json::from_str(&self.control("GET", "")).unwrap();
        let hits: Vec<_> =
            state["hits"].as_object().unwrap().iter().map(|(name, count)| format!("{name}={count}")).collect();
        hits.join(" ")
    }

    fn control(&self, method: &str, body: &str) -> String {
        let url = format!("https://127.0.0.1:{}/_faults", self.port);
        ask(method, &url, body)
    }
}

/// Asks without the provider: the command of openssl speaks TLS for us.
pub fn ask(method: &str, url: &str, body: &str) -> String {
    let (host, path) = url.strip_prefix("https://").unwrap().split_once('/').unwrap();
    let mut child = Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error", "-no_ign_eof", "-connect", host, "-CAfile"])
        .arg(test_ca())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    write!(
        input,
        "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    input.flush().unwrap();
    let mut answer = String::new();
    child.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    drop(input);
    child.wait().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{method} {url}: {answer}");
    body.to_owned()
}
