//! What the answers of AWS KMS mean, recorded in its documented form: an emulator gives few of them.

use std::time::Instant;

use super::service::{Answer, Service};
use super::*;
use contract::{CONTEXT, secret};

/// Tells what an answer to Encrypt means, and how many requests were made.
fn told_by(answer: impl Fn() -> Option<Answer> + Send + Sync + 'static) -> (Error, usize) {
    let service = Service::start(move |_| answer());
    let error = on_port(service.port, ARN).wrap_key(&secret(), &CONTEXT).unwrap_err();
    (error, service.take_counts().iter().map(|(_, count)| count).sum())
}

#[test]
fn r67_every_code_has_its_fault_and_is_asked_once() {
    for (status, code, fault) in [
        (400, "AccessDeniedException", KmsFault::Denied),
        (400, "ExpiredTokenException", KmsFault::Denied),
        (403, "UnrecognizedClientException", KmsFault::Denied),
        (400, "InvalidGrantTokenException", KmsFault::Denied),
        (400, "NotFoundException", KmsFault::NotFound),
        (400, "InvalidArnException", KmsFault::NotFound),
        (400, "DisabledException", KmsFault::Disabled),
        (400, "KMSInvalidStateException", KmsFault::Disabled),
        (400, "ThrottlingException", KmsFault::Throttled(None)),
        (400, "TooManyRequestsException", KmsFault::Throttled(None)),
        (500, "KMSInternalException", KmsFault::Unreachable),
        (500, "DependencyTimeoutException", KmsFault::Unreachable),
        (500, "KeyUnavailableException", KmsFault::Unreachable),
        (503, "ServiceUnavailable", KmsFault::Unreachable),
        (400, "InvalidCiphertextException", KmsFault::Tampered),
        (400, "IncorrectKeyException", KmsFault::Tampered),
        (400, "InvalidKeyUsageException", KmsFault::Unsupported),
        (400, "UnsupportedOperationException", KmsFault::Unsupported),
        (400, "ValidationException", KmsFault::Failed),
        (400, "LimitExceededException", KmsFault::Failed),
        (400, "SomethingNewException", KmsFault::Failed),
        (503, "SomethingNewException", KmsFault::Unreachable),
        (429, "SomethingNewException", KmsFault::Throttled(None)),
    ] {
        let (error, requests) = told_by(move || Some(Answer::error(status, code, "what AWS says")));
        assert_eq!((error.kms_fault(), requests), (Some(fault), 1), "{code}: {error}");
        for word in [code, "what AWS says", ARN, "Encrypt"] {
            assert!(error.message().contains(word), "{word}: {error}");
        }
    }
}

#[test]
fn r67_the_service_says_how_long_to_wait() {
    let (error, _) =
        told_by(|| Some(Answer::error(400, "ThrottlingException", "Rate exceeded").header("Retry-After", "7")));
    assert_eq!(error.kms_fault(), Some(KmsFault::Throttled(Some(Duration::from_secs(7)))));
    let (error, _) =
        told_by(|| Some(Answer::error(429, "", "").header("Retry-After", "Wed, 21 Oct 2026 07:28:00 GMT")));
    assert_eq!(error.kms_fault(), Some(KmsFault::Throttled(None)));
}

#[test]
fn r67_what_is_no_answer_of_aws_is_judged_by_its_status() {
    for (status, fault) in [
        (200, KmsFault::Failed),
        (401, KmsFault::Denied),
        (403, KmsFault::Denied),
        (404, KmsFault::Failed),
        (429, KmsFault::Throttled(None)),
        (502, KmsFault::Unreachable),
        (503, KmsFault::Unreachable),
    ] {
        let body = b"<html>a proxy says no</html>".to_vec();
        let (error, requests) = told_by(move || Some(Answer { status, headers: Vec::new(), body: body.clone() }));
        assert_eq!((error.kms_fault(), requests), (Some(fault), 1), "{status}: {error}");
    }
}

#[test]
fn r67_a_connection_that_breaks_is_tried_once_and_told() {
    let (error, requests) = told_by(|| None);
    assert_eq!((error.kms_fault(), requests), (Some(KmsFault::Unreachable), 1), "{error}");
    let error = on_port(1, ARN).wrap_key(&secret(), &CONTEXT).unwrap_err();
    assert_eq!(error.kms_fault(), Some(KmsFault::Unreachable), "{error}");
}

#[test]
fn r67_a_service_that_hangs_is_given_up_at_the_deadline() {
    let service = Service::start(|_| {
        std::thread::sleep(Duration::from_secs(60));
        None
    });
    let settings = settings(service.port, ARN).with("timeout_seconds", Setting::Number(1));
    let kms = AwsKms::new(&settings, Arc::new(defaults)).unwrap();
    let start = Instant::now();
    assert_eq!(fault(kms.wrap_key(&secret(), &CONTEXT)), KmsFault::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[test]
fn r40_what_a_service_says_of_a_signature_is_not_shown() {
    // The form in which services of AWS explain a wrong signature: the headers, a session token among them, stand in it.
    let canonical = format!(
        "The request signature we calculated does not match the signature you provided. The Canonical String for this request \
         should have been 'POST\n/\n\nhost:kms\nx-amz-security-token:{SESSION_TOKEN}\n'"
    );
    for code in ["SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignatureException"] {
        let canonical = canonical.clone();
        let (error, _) = told_by(move || Some(Answer::error(403, code, &canonical)));
        assert!(!format!("{error} {error:?}").contains(SESSION_TOKEN), "{error:?}");
        assert!(error.kms_fault() == Some(KmsFault::Denied) && error.message().contains("clock"), "{error}");
    }
}

#[test]
fn r40_an_answer_that_breaks_off_does_not_show_its_secret() {
    let plain = data_encoding::BASE64.encode(b"the secret of the token");
    let shown = plain.clone();
    let service = Service::start(move |_| {
        let body = format!("{{\"KeyId\":\"{ARN}\",\"Plaintext\":\"{plain}\",\"Encr").into_bytes();
        Some(Answer { status: 200, headers: Vec::new(), body })
    });
    let wrapped = Wrapped {
        master_key: MasterKeyId { key: ARN.to_owned(), version: 0 },
        blob: blob::frame(&CONTEXT, b"ciphertext").unwrap(),
    };
    let error = on_port(service.port, ARN).unwrap_key(&wrapped, &CONTEXT).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(&shown[..8]), "{error:?}");
    assert_eq!(error.kms_fault(), Some(KmsFault::Failed), "{error}");
}

#[test]
fn an_answer_that_does_not_fit_its_request_is_refused() {
    let other = ARN.replace("1234abcd", "4321abcd");
    let answers = [
        serde_json::json!({ "KeyId": other, "Plaintext": "eA==" }),
        serde_json::json!({ "Plaintext": "eA==" }),
        serde_json::json!({ "KeyId": ARN }),
        serde_json::json!({ "KeyId": "alias/x", "CiphertextBlob": "eA==", "Plaintext": "eA==" }),
    ];
    for answer in answers {
        let text = answer.clone();
        let service = Service::start(move |_| Some(Answer::json(&answer)));
        let kms = on_port(service.port, ARN);
        let wrapped = Wrapped {
            master_key: MasterKeyId { key: ARN.to_owned(), version: 0 },
            blob: blob::frame(&CONTEXT, b"ciphertext").unwrap(),
        };
        assert_eq!(fault_of(kms.unwrap_key(&wrapped, &CONTEXT)), KmsFault::Tampered, "{text}");
        assert_eq!(fault_of(kms.wrap_key(&secret(), &CONTEXT)), KmsFault::Tampered, "{text}");
        assert_eq!(fault_of(kms.generate_data_key(&CONTEXT)), KmsFault::Tampered, "{text}");
    }
}

fn fault_of<T>(result: Result<T>) -> KmsFault {
    result.err().unwrap().kms_fault().unwrap()
}

#[test]
fn a_version_that_is_not_told_is_not_made_up() {
    let service = Service::start(|_| {
        Some(Answer::json(&serde_json::json!({ "KeyMetadata": { "KeyId": "x", "Arn": ARN, "KeyState": "Unavailable",
            "KeySpec": "SYMMETRIC_DEFAULT", "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"] } })))
    });
    let described = on_port(service.port, ARN).describe().unwrap();
    assert_eq!((described.version.as_str(), described.state.name()), ("not told by the service", "Unavailable"));
}

#[test]
fn a_rotation_that_runs_already_is_told() {
    let service = Service::start(|_| Some(Answer::error(400, "ConflictException", "rotation in progress")));
    let error = on_port(service.port, ARN).rotate_master_key().unwrap_err();
    assert!(error.kms_fault() == Some(KmsFault::Failed) && error.message().contains("rotated already"), "{error}");
    assert_eq!(service.take_counts(), [("RotateKeyOnDemand".to_owned(), 1)], "an ARN needs no DescribeKey before");
}
