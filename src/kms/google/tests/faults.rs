//! What goes wrong: states of keys on the double, answers of the service in its documented form, the network, credentials.

use std::time::{Duration, Instant};

use super::super::connection::{Connection, Login};
use super::*;
use crate::kms::{Curve, KeySpec};

/// An error in the form of the service (google.rpc.Status as JSON, cloud.google.com/apis/design/errors).
pub fn service_error(code: u16, status: &str, message: &str, retry: &str) -> Action {
    let mut error = json!({"code": code, "status": status, "message": message});
    if !retry.is_empty() {
        error["details"] = json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": retry}]);
    }
    Action::Answer(code, "", json!({"error": error}).to_string())
}

#[test]
fn the_states_of_the_master_key_are_told() {
    let bench = Bench::new();
    let kms = bench.with_master();
    let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
    let version = format!("{}/cryptoKeyVersions/1", bench.key());
    set_state(&version, "DISABLED");
    assert_eq!(kms.describe().unwrap().state, KeyState::Disabled);
    assert_eq!(kms.health().unwrap_err().kms_fault(), Some(KmsFault::Disabled));
    assert_eq!(fault(kms.wrap_key(&secret(), &CONTEXT)), KmsFault::Disabled);
    assert_eq!(fault(kms.unwrap_key(&wrapped, &CONTEXT)), KmsFault::Disabled);
    set_state(&version, "ENABLED");
    assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
    ask("POST", &format!("/v1/{version}:destroy"), &json!({}));
    assert_eq!(kms.describe().unwrap().state, KeyState::PendingDeletion);
    assert_eq!(fault(kms.unwrap_key(&wrapped, &CONTEXT)), KmsFault::Disabled);
    ask("POST", &format!("/v1/{version}:restore"), &json!({}));
    set_state(&version, "ENABLED");
    assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
    // The double destroys nothing for good; this is what the service says of a version that it has destroyed.
    let gone = format!("{version} is not enabled, current state is: DESTROYED.");
    bench.gateway.on(move |_| service_error(400, "FAILED_PRECONDITION", &gone, ""));
    assert_eq!(fault(kms.unwrap_key(&wrapped, &CONTEXT)), KmsFault::NotFound);
}

#[test]
fn a_master_key_that_is_none_is_told() {
    let bench = Bench::new();
    assert_eq!(fault(bench.kms().wrap_key(&secret(), &CONTEXT)), KmsFault::NotFound);
    assert_eq!(fault(bench.kms().describe()), KmsFault::NotFound);
    assert_eq!(fault(bench.kms().rotate_master_key()), KmsFault::NotFound);
    bench.make("master", "ASYMMETRIC_SIGN", "EC_SIGN_P256_SHA256");
    let error = bench.kms().describe().unwrap_err();
    assert_eq!(error.kms_fault(), Some(KmsFault::Unsupported));
    assert!(error.message().contains("ASYMMETRIC_SIGN"), "{error}");
    // A key whose versions are all gone has no primary one: the answer lacks the field.
    let bench = Bench::new();
    let kms = bench.with_master();
    bench.gateway.on(|_| Action::Alter(|key| drop(key.as_object_mut().unwrap().remove("primary"))));
    assert_eq!(kms.health().unwrap_err().kms_fault(), Some(KmsFault::Disabled));
}

#[test]
fn r67_a_quota_after_the_first_step_makes_nothing_twice() {
    let quota = || service_error(429, "RESOURCE_EXHAUSTED", "Quota exceeded", "");
    for (refused, step, made) in [
        ("updatePrimaryVersion", "POST cryptoKeyVersions", "/cryptoKeys/master/cryptoKeyVersions/"),
        ("GET publicKey", "POST cryptoKeys", "/cryptoKeys/signer/cryptoKeyVersions/1"),
    ] {
        for times in [2, 1000] {
            let bench = Bench::new();
            bench.with_master();
            bench.gateway.take();
            let left = AtomicU32::new(times);
            bench.gateway.on(move |request| match request.operation() == refused {
                true if left.load(Ordering::Relaxed) > 0 => {
                    left.fetch_sub(1, Ordering::Relaxed);
                    quota()
                }
                _ => Action::Forward,
            });
            // As it is used: with the layer around it that tries again.
            let kms = crate::kms::open(&bench.settings()).unwrap();
            let answer = match refused {
                "GET publicKey" => kms.remote_keys().unwrap().generate(KeySpec::Ec(Curve::P256), "signer").map(|_| ()),
                _ => kms.rotate_master_key().map(|_| ()),
            };
            let requests = bench.gateway.take();
            assert_eq!(requests.iter().filter(|request| *request == step).count(), 1, "{requests:?}");
            match answer {
                Ok(()) => assert_eq!(times, 2),
                Err(error) => {
                    assert_eq!((times, error.kms_fault()), (1000, Some(KmsFault::Failed)), "{error}");
                    assert!(error.message().contains(made) && error.message().contains("was made"), "{error}");
                }
            }
        }
    }
}

#[test]
fn each_answer_of_the_service_has_its_fault_and_is_not_tried_again() {
    let bench = Bench::new();
    let kms = bench.with_master();
    kms.health().unwrap();
    bench.gateway.take();
    let seconds = |seconds| KmsFault::Throttled(Some(Duration::from_secs(seconds)));
    let cases: Vec<(Action, KmsFault)> = vec![
        (
            service_error(403, "PERMISSION_DENIED", "Permission 'cloudkms.cryptoKeyVersions.useToEncrypt' denied", ""),
            KmsFault::Denied,
        ),
        (service_error(429, "RESOURCE_EXHAUSTED", "Quota exceeded", ""), KmsFault::Throttled(None)),
        (service_error(429, "RESOURCE_EXHAUSTED", "Quota exceeded", "7s"), seconds(7)),
        (Action::Answer(429, "Retry-After: 3\r\n", "slow down".to_owned()), seconds(3)),
        (service_error(500, "INTERNAL", "Internal error", ""), KmsFault::Unreachable),
        (service_error(503, "UNAVAILABLE", "The service is unavailable", ""), KmsFault::Unreachable),
        (service_error(504, "DEADLINE_EXCEEDED", "Deadline exceeded", ""), KmsFault::TimedOut),
        (service_error(400, "INVALID_ARGUMENT", "Request is wrong", ""), KmsFault::Failed),
        (service_error(501, "UNIMPLEMENTED", "Not in this region", ""), KmsFault::Unsupported),
        (Action::Answer(502, "", "<html>bad gateway</html>".to_owned()), KmsFault::Unreachable),
        (Action::Answer(403, "", "<html>proxy</html>".to_owned()), KmsFault::Denied),
        (Action::Answer(404, "", "<html>no such page</html>".to_owned()), KmsFault::Failed),
        (Action::Answer(200, "", "<html>log in</html>".to_owned()), KmsFault::Failed),
        (Action::Drop, KmsFault::Unreachable),
    ];
    for (action, wanted) in cases {
        bench.gateway.on(move |_| action.clone());
        let error = kms.wrap_key(&secret(), &CONTEXT).unwrap_err();
        assert_eq!(error.kms_fault(), Some(wanted), "{error}");
        assert!(error.message().contains(&bench.key()) && error.message().contains("wrapping"), "{error}");
        assert_eq!(bench.gateway.take(), ["encrypt"], "{error}");
        // Google's library would repeat this one by itself, for it changes nothing.
        assert_eq!(fault(kms.describe()), wanted);
        assert_eq!(bench.gateway.take(), ["GET master"]);
    }
}

#[test]
fn r67_a_service_that_hangs_is_given_up_at_the_deadline() {
    let bench = Bench::new();
    bench.with_master();
    let kms = GoogleKms::new(&bench.settings().with("timeout_seconds", Setting::Number(1))).unwrap();
    kms.health().unwrap();
    bench.gateway.on(|_| Action::Hang);
    let start = Instant::now();
    assert_eq!(fault(kms.wrap_key(&secret(), &CONTEXT)), KmsFault::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(3));
    bench.gateway.on(|_| Action::Forward);
    kms.health().unwrap();
}

#[test]
fn nobody_who_listens_is_unreachable() {
    let bench = Bench::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = bench.settings().with("endpoint", Setting::Text(format!("http://127.0.0.1:{free}")));
    assert_eq!(fault(GoogleKms::new(&settings).unwrap().health()), KmsFault::Unreachable);
}

#[test]
fn an_answer_that_was_changed_on_its_way_is_refused() {
    let bench = Bench::new();
    let kms = bench.with_master();
    let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
    let encrypting: [fn(&mut Value); 5] = [
        |answer| answer["ciphertextCrc32c"] = json!("1"),
        |answer| answer["ciphertext"] = json!("AAAA"),
        |answer| answer["verifiedPlaintextCrc32c"] = json!(false),
        |answer| drop(answer.as_object_mut().unwrap().remove("verifiedAdditionalAuthenticatedDataCrc32c")),
        |answer| answer["name"] = json!("projects/p/locations/l/keyRings/r/cryptoKeys/other/cryptoKeyVersions/1"),
    ];
    for change in encrypting {
        bench.gateway.on(move |_| Action::Alter(change));
        assert_eq!(fault(kms.wrap_key(&secret(), &CONTEXT)), KmsFault::Tampered);
    }
    let decrypting: [fn(&mut Value); 3] = [
        |answer| answer["plaintext"] = json!("AAAA"),
        |answer| answer["plaintextCrc32c"] = json!("1"),
        |answer| drop(answer.as_object_mut().unwrap().remove("plaintextCrc32c")),
    ];
    for change in decrypting {
        bench.gateway.on(move |_| Action::Alter(change));
        assert_eq!(fault(kms.unwrap_key(&wrapped, &CONTEXT)), KmsFault::Tampered);
    }
}

#[test]
fn what_we_send_is_checked_by_the_service() {
    // Were a checksum or a field left out, the double would answer that it checked nothing, and the answer be refused.
    let bench = Bench::new();
    let kms = bench.with_master();
    bench.gateway.on(|request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        for field in ["additionalAuthenticatedData", "additionalAuthenticatedDataCrc32c"] {
            assert!(body.get(field).is_some_and(Value::is_string), "{field}");
        }
        let data =
            data_encoding::BASE64.decode(body["additionalAuthenticatedData"].as_str().unwrap().as_bytes()).unwrap();
        assert_eq!(data, b"strongroom kms context v1\x00\x100123456789ABCDEF\x00\x0etoken-key/user");
        Action::Forward
    });
    let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
    assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
    // The service itself refuses another context, were the frame of the blob forged.
    let other = Context { token: "other", ..CONTEXT };
    let forged = frame(&other, unframe(&wrapped.blob, &CONTEXT).unwrap()).unwrap();
    bench.gateway.on(|_| Action::Forward);
    assert_eq!(fault(kms.unwrap_key(&Wrapped { blob: forged, ..wrapped }, &other)), KmsFault::Tampered);
}

/// A credentials file whose tokens come from the double.
pub fn user(bench: &Bench) -> Value {
    json!({"type": "authorized_user", "client_id": "id", "client_secret": "canary-secret", "refresh_token": "canary-refresh",
        "token_uri": format!("{}/token", bench.gateway.endpoint())})
}

/// A provider that logs in with a file, though its endpoint is no https: the settings would not allow it.
fn with_login(bench: &Bench, file: &std::path::Path) -> GoogleKms {
    let connection = Connection::new(Some(bench.gateway.endpoint()), Login::File(file.to_owned()));
    GoogleKms { connection: Arc::new(connection), ..bench.kms() }
}

#[test]
fn r66_a_token_is_asked_for_once_and_anew_when_it_is_refused() {
    let bench = Bench::new();
    bench.with_master();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials.json");
    std::fs::write(&file, user(&bench).to_string()).unwrap();
    let kms = with_login(&bench, &file);
    bench.gateway.on(|request| {
        assert!(request.path.starts_with("/token") || request.has_token());
        Action::Forward
    });
    kms.health().unwrap();
    kms.health().unwrap();
    assert_eq!(bench.gateway.take(), ["POST token", "GET master", "GET master"]);
    // A token that is refused is thrown away with its client.
    bench.gateway.on(|_| service_error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.", ""));
    assert_eq!(fault(kms.health()), KmsFault::Denied);
    bench.gateway.take();
    bench.gateway.on(|_| Action::Forward);
    kms.health().unwrap();
    assert_eq!(bench.gateway.take(), ["POST token", "GET master"]);
}

#[test]
fn r66_credentials_that_fail_are_told_and_tried_again_by_the_next_call() {
    let bench = Bench::new();
    bench.with_master();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials.json");
    let kms = with_login(&bench, &file);
    let denied = |word: &str| {
        let error = kms.health().unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::Denied), "{error}");
        assert!(error.message().contains(word) && !format!("{error:?}").contains("canary"), "{error:?}");
    };
    denied("cannot be read");
    std::fs::write(&file, "{\"private_key\": \"canary").unwrap();
    denied("no whole JSON");
    std::fs::write(&file, "{\"type\": \"canary\"}").unwrap();
    denied("of no type");
    std::fs::write(&file, "{\"type\": \"authorized_user\", \"client_secret\": \"canary\"}").unwrap();
    denied("lacks a field");
    std::fs::write(&file, user(&bench).to_string()).unwrap();
    // The answer of Google's token service to a refresh token that was revoked.
    bench.gateway.on(|_| {
        let body = json!({"error": "invalid_grant", "error_description": "Token has been expired or revoked."});
        Action::Answer(400, "", body.to_string())
    });
    denied("invalid_grant");
    bench.gateway.on(|_| Action::Answer(503, "", "later".to_owned()));
    assert_eq!(fault(kms.health()), KmsFault::Unreachable);
    bench.gateway.on(|_| Action::Forward);
    kms.health().unwrap();
}

#[test]
fn r66_threads_that_start_at_once_share_client_and_token() {
    let bench = Bench::new();
    bench.with_master();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials.json");
    std::fs::write(&file, user(&bench).to_string()).unwrap();
    let kms = with_login(&bench, &file);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| kms.unwrap_key(&kms.wrap_key(&secret(), &CONTEXT).unwrap(), &CONTEXT).unwrap());
        }
    });
    let requests = bench.gateway.take();
    assert_eq!(requests.iter().filter(|request| *request == "POST token").count(), 1);
    assert_eq!(requests.len(), 17);
    // One for the token, and at most one for each of the threads.
    assert!(bench.gateway.connections() <= 9, "{}", bench.gateway.connections());
}
