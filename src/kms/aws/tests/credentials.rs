//! Where credentials come from, and that they are fetched anew before they expire.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_credential_types::provider::{ProvideCredentials, future};
use aws_smithy_async::time::TimeSource;
use parking_lot::Mutex;

use super::process::{self, PORT};
use super::service::{Answer, Request, Service};
use super::*;

/// The answer to DescribeKey.
fn described() -> Answer {
    Answer::json(&serde_json::json!({ "KeyMetadata": { "KeyId": "x", "Arn": ARN, "KeyState": "Enabled",
        "KeySpec": "SYMMETRIC_DEFAULT", "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"] } }))
}

/// Tells the access key that signed a request.
fn signer(request: &Request) -> String {
    let text = &request.headers["authorization"];
    text.split("Credential=").nth(1).unwrap().split('/').next().unwrap().to_owned()
}

/// A clock that the test moves: seconds since 1970.
#[derive(Debug, Clone)]
struct Clock(Arc<AtomicU64>);

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// Gives credentials that live for an hour of the clock; the access key names the second of their end.
#[derive(Debug)]
struct Hourly {
    clock: Clock,
    given: Arc<AtomicUsize>,
}

impl ProvideCredentials for Hourly {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        self.given.fetch_add(1, Ordering::Relaxed);
        let end = self.clock.0.load(Ordering::Relaxed) + 3600;
        let expiry = UNIX_EPOCH + Duration::from_secs(end);
        future::ProvideCredentials::ready(Ok(Credentials::new(format!("AKIA{end}"), "s", None, Some(expiry), "hourly")))
    }
}

#[test]
fn r66_a_day_with_credentials_of_one_hour_has_no_failure() {
    let clock = Clock(Arc::new(AtomicU64::new(1_800_000_000)));
    let (given, now) = (Arc::new(AtomicUsize::new(0)), clock.clone());
    let service = Service::start(move |request| {
        let end: u64 = signer(request)[4..].parse().unwrap();
        // As strict as AWS, and half a minute more, which a request may need on its way.
        let late = now.0.load(Ordering::Relaxed) + 30 > end;
        Some(if late { Answer::error(400, "ExpiredTokenException", "expired") } else { described() })
    });
    let (moved, count) = (clock.clone(), given.clone());
    let defaults: client::Defaults = Arc::new(move || {
        let provider = Hourly { clock: moved.clone(), given: count.clone() };
        aws_config::defaults(BehaviorVersion::v2026_01_12()).credentials_provider(provider).time_source(moved.clone())
    });
    let kms = AwsKms::new(&settings(service.port, ARN), defaults).unwrap();
    // Steps that do not divide an hour, so that some call falls into the last half minute of each hour.
    for step in 0..24 * 3600 / 47 {
        kms.describe().unwrap_or_else(|error| panic!("after {step} times 47 seconds: {error}"));
        clock.0.fetch_add(47, Ordering::Relaxed);
    }
    let given = given.load(Ordering::Relaxed);
    assert!((24..=26).contains(&given), "{given} times");
    assert_eq!(service.connections(), 1);
}

/// Tells the child process which file to change between two calls.
const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";

/// The body of the child processes below: it uses the SDK's own chain.
#[test]
fn child_asks_twice() {
    let Ok(port) = std::env::var(PORT) else { return };
    let mut settings = Settings::new("prod", KIND).with("key", Setting::Text("alias/x".to_owned()));
    if let Ok(endpoint) = std::env::var("STRONGROOM_TEST_ENDPOINT") {
        settings = settings.with("endpoint", Setting::Text(endpoint));
    }
    if let Ok(profile) = std::env::var("STRONGROOM_TEST_PROFILE") {
        settings = settings.with("profile", Setting::Text(profile));
    }
    if let Ok(file) = std::env::var("STRONGROOM_TEST_CA") {
        settings = settings.with("ca_file", Setting::Path(file.into()));
    }
    let kms = super::super::open(&settings).unwrap();
    for call in 0..2 {
        if let (1, Ok(file)) = (call, std::env::var(TOKEN_FILE)) {
            std::fs::write(file, "second-token").unwrap();
        }
        if let Err(error) = kms.describe() {
            println!("FAULT {:?} {error} {error:?} PORT {port}", error.kms_fault());
            return;
        }
    }
}

/// Runs the child in an environment of these variables alone, and gives what it prints.
fn child(port: u16, variables: &[(&str, &str)]) -> String {
    process::child("credentials::child_asks_twice", port, variables)
}

/// Credentials as services give them, which have to be fetched anew for each call: they live for half a minute.
fn short_lived(key: &str) -> serde_json::Value {
    let end = SystemTime::now() + Duration::from_secs(30);
    serde_json::json!({ "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": key, "SecretAccessKey": SECRET_ACCESS_KEY,
        "Token": SESSION_TOKEN, "Expiration": humantime::format_rfc3339_seconds(end).to_string(),
        "LastUpdated": "2026-01-01T00:00:00Z" })
}

/// What the answer of STS looks like (Query protocol).
fn assumed(key: &str) -> Answer {
    let end = humantime::format_rfc3339_seconds(SystemTime::now() + Duration::from_secs(30));
    let body = format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId>\
         <SecretAccessKey>{SECRET_ACCESS_KEY}</SecretAccessKey><SessionToken>{SESSION_TOKEN}</SessionToken>\
         <Expiration>{end}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
         </AssumeRoleWithWebIdentityResponse>"
    );
    Answer { status: 200, headers: vec![("content-type", "text/xml".to_owned())], body: body.into_bytes() }
}

/// Starts AWS KMS, STS, the container's and the instance's service in one; gives the signers of the KMS requests.
fn sources() -> (Service, Arc<Mutex<Vec<String>>>) {
    let signers: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = signers.clone();
    let service = Service::start(move |request| {
        let text = |text: &str| Answer { status: 200, headers: Vec::new(), body: text.as_bytes().to_vec() };
        let body = String::from_utf8_lossy(&request.body).into_owned();
        Some(match request.operation().as_str() {
            "DescribeKey" => {
                noted.lock().push(signer(request));
                described()
            }
            "/container" => Answer::json(&short_lived("AKIACONTAINER")),
            "/latest/api/token" => text("instance-token").header("x-aws-ec2-metadata-token-ttl-seconds", "21600"),
            "/latest/meta-data/placement/region" => text("eu-central-1"),
            path if path.ends_with("/security-credentials/") => text("role"),
            path if path.ends_with("/security-credentials/role") => Answer::json(&short_lived("AKIAINSTANCE")),
            _ if body.contains("WebIdentityToken=first-token") => assumed("AKIAFIRST"),
            _ if body.contains("WebIdentityToken=second-token") => assumed("AKIASECOND"),
            other => panic!("nobody expects {other} {body}"),
        })
    });
    (service, signers)
}

#[test]
fn r66_the_whole_chain_of_the_sdk_gives_credentials() {
    let (service, signers) = sources();
    let url = format!("http://127.0.0.1:{}", service.port);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let config = file(
        "config",
        "[profile team]\nregion = eu-west-1\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = s\n\
         [profile process]\nregion = eu-west-1\ncredential_process = printf '{\"Version\":1,\"AccessKeyId\":\"AKIAPROCESS\",\"SecretAccessKey\":\"s\"}'\n",
    );
    let token = file("token", "first-token");
    let container = format!("{url}/container");
    let run = |variables: &[(&str, &str)]| {
        let printed = child(service.port, &[variables, &[("AWS_ENDPOINT_URL", &url)]].concat());
        assert!(!printed.contains("FAULT"), "{printed}");
        std::mem::take(&mut *signers.lock())
    };
    let region = ("AWS_REGION", "eu-west-1");
    let keys = [region, ("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "s")];
    assert_eq!(run(&keys), ["AKIAENV", "AKIAENV"]);
    assert_eq!(run(&[("AWS_PROFILE", "team"), ("AWS_CONFIG_FILE", &config)]), ["AKIAPROFILE", "AKIAPROFILE"]);
    let profile = [("STRONGROOM_TEST_PROFILE", "team"), ("AWS_CONFIG_FILE", config.as_str())];
    assert_eq!(run(&[&profile[..], &keys].concat()), ["AKIAPROFILE", "AKIAPROFILE"], "what is named comes first");
    let profile = ("STRONGROOM_TEST_PROFILE", "process");
    assert_eq!(
        run(&[profile, ("AWS_CONFIG_FILE", &config), ("PATH", "/usr/bin:/bin")]),
        ["AKIAPROCESS", "AKIAPROCESS"]
    );
    let role = ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/strongroom");
    assert_eq!(run(&[region, role, (TOKEN_FILE, &token)]), ["AKIAFIRST", "AKIASECOND"], "the file is read again");
    assert_eq!(run(&[region, ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &container)]), ["AKIACONTAINER", "AKIACONTAINER"]);
    let instance = [("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str())];
    assert_eq!(run(&instance), ["AKIAINSTANCE", "AKIAINSTANCE"], "the region comes from the instance, too");
}

#[test]
fn r66_missing_credentials_and_regions_are_told() {
    let (service, _) = sources();
    let url = format!("http://127.0.0.1:{}", service.port);
    let printed = child(service.port, &[("AWS_REGION", "eu-west-1"), ("AWS_ENDPOINT_URL", &url)]);
    assert!(printed.contains("FAULT Some(Denied)") && printed.contains("no usable credentials"), "{printed}");
    let printed = child(service.port, &[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "s")]);
    assert!(printed.contains("no region is known"), "{printed}");
    let source = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/container"), ("AWS_REGION", "eu-west-1")];
    let printed = child(service.port, &source);
    assert!(printed.contains("FAULT Some(Unreachable)"), "{printed}");
}

#[test]
fn r66_requests_go_through_the_proxy_of_the_environment() {
    let lines: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let noted = lines.clone();
    let proxy = Service::start(move |request| {
        *noted.lock().entry(request.line.clone()).or_default() += 1;
        Some(described())
    });
    let address = format!("http://127.0.0.1:{}", proxy.port);
    let ca = super::transport::certificate(&tempfile::tempdir().unwrap().keep());
    let keys = [("AWS_REGION", "eu-west-1"), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "s")];
    let endpoint = ("STRONGROOM_TEST_ENDPOINT", "http://127.0.0.2:1");
    for more in [&[][..], &[("STRONGROOM_TEST_CA", ca.to_str().unwrap())]] {
        let printed = child(1, &[&keys[..], &[endpoint, ("HTTP_PROXY", &address)], more].concat());
        assert!(!printed.contains("FAULT"), "{printed}");
        let seen = std::mem::take(&mut *lines.lock());
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [("POST http://127.0.0.2:1/ HTTP/1.1".to_owned(), 2)]);
    }
    let around = [endpoint, ("HTTP_PROXY", address.as_str()), ("NO_PROXY", "127.0.0.2")];
    let printed = child(1, &[&keys[..], &around].concat());
    assert!(printed.contains("FAULT Some(Unreachable)"), "{printed}");
}
