//! The provider on the test double of Cloud KMS (`tests/emulators/google_kms.py`), and on an emulator that others wrote (`drongo.rs`),
//! which knows neither versions nor states; where the double cannot show an answer of the service, the test gives it
//! in the form that Google documents, and says so.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions)]

mod drongo;
mod faults;
mod process;
mod remote;

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::gateway::{Action, Gateway, exchange};
use super::*;
use crate::kms::contract::{self, CONTEXT, secret};
use crate::kms::emulator::Emulator;
use crate::kms::{DATA_KEY_LEN, Setting};

const LOCATION: &str = "/v1/projects/p/locations/europe-west3";

/// A key ring of its own for each test, before which a gateway stands.
struct Bench {
    gateway: Gateway,
    ring: String,
}

impl Bench {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("ring-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ask("POST", &format!("{LOCATION}/keyRings?keyRingId={id}"), &json!({}));
        Self { gateway: Gateway::before(port()), ring: format!("{}/keyRings/{id}", &LOCATION[4..]) }
    }

    fn key(&self) -> String {
        format!("{}/cryptoKeys/master", self.ring)
    }

    /// Makes a key of the double, and gives its name.
    fn make(&self, id: &str, purpose: &str, algorithm: &str) -> String {
        let body = json!({"purpose": purpose, "versionTemplate": {"algorithm": algorithm}});
        ask("POST", &format!("/v1/{}/cryptoKeys?cryptoKeyId={id}", self.ring), &body)["name"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn settings(&self) -> Settings {
        Settings::new("cloud", "google")
            .with("key", Setting::Text(self.key()))
            .with("endpoint", Setting::Text(self.gateway.endpoint()))
            .with("anonymous", Setting::Flag(true))
            .with("timeout_seconds", Setting::Number(60))
    }

    fn kms(&self) -> GoogleKms {
        GoogleKms::new(&self.settings()).unwrap()
    }

    /// Makes the master key, and the provider that uses it.
    fn with_master(&self) -> GoogleKms {
        self.make("master", "ENCRYPT_DECRYPT", "GOOGLE_SYMMETRIC_ENCRYPTION");
        self.kms()
    }
}

fn port() -> u16 {
    Emulator::shared("google").port
}

/// Asks the double itself, past the provider.
fn ask(method: &str, path: &str, body: &Value) -> Value {
    let (status, answer) = exchange(port(), method, path, body.to_string().as_bytes());
    assert_eq!(status, 200, "{method} {path}: {}", String::from_utf8_lossy(&answer));
    serde_json::from_slice(&answer).unwrap()
}

fn set_state(version: &str, state: &str) {
    ask("PATCH", &format!("/v1/{version}?updateMask=state"), &json!({"state": state}));
}

fn fault<T>(result: Result<T>) -> KmsFault {
    let Err(error) = result else { panic!("must fail") };
    assert!(error.message().contains("projects/p/"), "the key must be named: {error}");
    error.kms_fault().unwrap_or_else(|| panic!("an error without a fault: {error}"))
}

#[test]
fn the_contract_holds() {
    contract::check(&Bench::new().with_master());
}

#[test]
fn r64_nothing_is_touched_before_the_first_call() {
    let bench = Bench::new();
    let kms = crate::kms::open(&bench.settings()).unwrap();
    assert_eq!((kms.kind(), bench.gateway.connections()), ("google", 0));
    assert!(kms.remote_keys().unwrap().abilities().len() > 30);
    assert_eq!(bench.gateway.connections(), 0);
}

#[test]
fn each_operation_is_one_request_over_one_connection() {
    let bench = Bench::new();
    let kms = bench.with_master();
    let took = |wanted: &[&str]| assert_eq!(bench.gateway.take(), wanted);
    let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
    took(&["encrypt"]);
    kms.unwrap_key(&wrapped, &CONTEXT).unwrap();
    took(&["decrypt"]);
    assert_eq!(kms.generate_data_key(&CONTEXT).unwrap().key.len(), DATA_KEY_LEN);
    took(&["encrypt"]);
    kms.describe().unwrap();
    took(&["GET master"]);
    kms.health().unwrap();
    took(&["GET master"]);
    kms.rotate_master_key().unwrap();
    took(&["POST cryptoKeyVersions", "updatePrimaryVersion"]);
    let other = Context { token: "other", ..CONTEXT };
    assert_eq!(kms.unwrap_key(&wrapped, &other).unwrap_err().kms_fault(), Some(KmsFault::WrongContext));
    took(&[]);
    assert_eq!(bench.gateway.connections(), 1);
}

#[test]
fn the_master_key_is_named_with_its_version() {
    let bench = Bench::new();
    let kms = bench.with_master();
    let first = kms.wrap_key(&secret(), &CONTEXT).unwrap();
    assert_eq!(first.master_key, MasterKeyId { key: bench.key(), version: 1 });
    assert_eq!(kms.rotate_master_key().unwrap().version, 2);
    let description = kms.describe().unwrap();
    assert_eq!((description.version.as_str(), description.master_key.version), ("2", 2));
    assert_eq!(description.algorithms, ["GOOGLE_SYMMETRIC_ENCRYPTION"]);
}

#[test]
fn a_blob_does_not_choose_the_key_that_unwraps_it() {
    let bench = Bench::new();
    let first = bench.with_master().wrap_key(&secret(), &CONTEXT).unwrap();
    bench.gateway.take();
    let next = format!("{}/cryptoKeys/next", bench.ring);
    let settings = bench.settings().with("key", Setting::Text(next.clone()));
    let error = GoogleKms::new(&settings).unwrap().unwrap_key(&first, &CONTEXT).unwrap_err();
    assert_eq!(error.kms_fault(), Some(KmsFault::NotFound));
    let text = error.message();
    assert!(text.contains(&bench.key()) && text.contains(&next) && text.contains("section of its own"), "{text}");
    assert!(bench.gateway.take().is_empty(), "the service is not asked");
}

#[test]
fn a_version_that_is_made_slowly_is_waited_for() {
    // The double makes versions at once, HSMs do not: the first answers are PENDING_GENERATION (state 5), as documented.
    let bench = Bench::new();
    let kms = bench.with_master();
    let looks = AtomicU32::new(0);
    bench.gateway.on(move |request| match request.operation().as_str() {
        "POST cryptoKeyVersions" => Action::Alter(|version| version["state"] = json!(5)),
        "GET cryptoKeyVersions" if looks.fetch_add(1, Ordering::Relaxed) == 0 => {
            Action::Alter(|version| version["state"] = json!(5))
        }
        _ => Action::Forward,
    });
    assert_eq!(kms.rotate_master_key().unwrap().version, 2);
    let looks = ["POST cryptoKeyVersions", "GET cryptoKeyVersions", "GET cryptoKeyVersions", "updatePrimaryVersion"];
    assert_eq!(bench.gateway.take(), looks);
}

#[test]
fn settings_that_cannot_be_right_are_refused_with_the_key() {
    let ring = "projects/p/locations/l/keyRings/r";
    let text = |text: &str| Setting::Text(text.to_owned());
    let base = || Settings::new("cloud", "google").with("key_ring", text(ring));
    assert!(GoogleKms::new(&base()).is_ok());
    for (settings, word) in [
        (Settings::new("cloud", "google"), "`key` or `key_ring`"),
        (base().with("key", text("a pass@word")), "`key` must be"),
        (base().with("key", text(&format!("{ring}/cryptoKeys/k/cryptoKeyVersions/1"))), "without a version"),
        (base().with("key_ring", text("a pass@word")), "`key_ring` must be"),
        (base().with("endpoint", text("http://example.com")), "https://"),
        (base().with("endpoint", text("https://user:pass@example.com")), "host alone"),
        (
            base().with("anonymous", Setting::Flag(true)).with("credentials_file", Setting::Path("c".into())),
            "exclude each other",
        ),
    ] {
        let Err(error) = GoogleKms::new(&settings) else { panic!("must be refused: {word}") };
        let message = error.message();
        assert!(message.contains(word) && message.contains("`cloud`") && !message.contains("pass@"), "{message}");
    }
    let Err(error) = GoogleKms::new(&base()).unwrap().wrap_key(&secret(), &CONTEXT) else { panic!("there is no key") };
    assert!(error.message().contains("add `key`"), "{error}");
}
