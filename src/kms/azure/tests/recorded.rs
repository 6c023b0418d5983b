//! Answers in the form that the service documents, where the double has none or another.

use std::time::Duration;

use azure_core::error::ErrorKind;
use azure_core::http::headers::Headers;
use azure_core::http::{RawResponse, StatusCode};

use super::super::fault::{Verb, explain};
use super::*;

/// Makes the SDK's error of an answer.
fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> azure_core::Error {
    let mut all = Headers::new();
    headers.iter().for_each(|(name, value)| all.insert(*name, *value));
    let status = StatusCode::from(status);
    let raw_response = Some(Box::new(RawResponse::from_bytes(status, all, body.to_owned())));
    azure_core::Error::with_message(ErrorKind::HttpResponse { status, error_code: None, raw_response }, "message")
}

fn judged(verb: Verb, status: u16, body: &str) -> (Option<KmsFault>, String) {
    let error = explain(verb, "k", &answer(status, &[], body));
    (error.kms_fault(), error.message())
}

#[test]
fn the_reasons_for_403_are_told_apart() {
    let body = |inner: &str, message: &str| {
        format!(r#"{{"error":{{"code":"Forbidden","message":"{message}","innererror":{{"code":"{inner}"}}}}}}"#)
    };
    for (inner, message, expected, advice) in [
        ("KeyDisabled", "Operation sign is not allowed on a disabled key.", KmsFault::Disabled, "enable it"),
        ("", "Operation wrapKey is not allowed on an expired key.", KmsFault::Disabled, "exp, nbf"),
        ("", "Operation sign is not permitted on this key.", KmsFault::Unsupported, "key_ops"),
        (
            "ForbiddenByRbac",
            "Caller is not authorized to perform action on resource.",
            KmsFault::Denied,
            "keys/sign/action",
        ),
        ("ForbiddenByFirewall", "Client address is not authorized.", KmsFault::Denied, "firewall"),
        (
            "AccessDenied",
            "The user, group or application does not have keys sign permission.",
            KmsFault::Denied,
            "lacks",
        ),
    ] {
        let (fault, text) = judged(Verb::Sign, 403, &body(inner, message));
        assert_eq!(fault, Some(expected), "{text}");
        assert!(text.contains(advice) && text.contains(message), "{text}");
    }
}

#[test]
fn r67_the_time_to_wait_is_read() {
    let body = r#"{"error":{"code":"Throttled","message":"Request was not processed because too many requests were received."}}"#;
    for (headers, wait) in [
        (&[("retry-after", "12")][..], Some(Duration::from_secs(12))),
        (&[("retry-after", "soon")][..], None),
        (&[][..], None),
    ] {
        let error = explain(Verb::Unwrap, "k", &answer(429, headers, body));
        assert_eq!(error.kms_fault(), Some(KmsFault::Throttled(wait)));
    }
}

#[test]
fn a_bad_parameter_means_tampering_where_something_is_opened() {
    let body = r#"{"error":{"code":"BadParameter","message":"The parameter is incorrect.\r\n"}}"#;
    assert_eq!(judged(Verb::Unwrap, 400, body).0, Some(KmsFault::Tampered));
    assert_eq!(judged(Verb::Decrypt, 400, body).0, Some(KmsFault::Tampered));
    assert_eq!(judged(Verb::Sign, 400, body).0, Some(KmsFault::Failed));
    for (status, expected) in [
        (401, KmsFault::Denied),
        (404, KmsFault::NotFound),
        (408, KmsFault::Unreachable),
        (409, KmsFault::Failed),
        (500, KmsFault::Unreachable),
        (502, KmsFault::Unreachable),
        (503, KmsFault::Unreachable),
        (504, KmsFault::Unreachable),
        (302, KmsFault::Failed),
    ] {
        assert_eq!(judged(Verb::Unwrap, status, "<html>not JSON</html>").0, Some(expected), "{status}");
    }
}

#[test]
fn a_login_that_fails_is_judged_by_its_own_answer() {
    let refused = r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 1"}"#;
    for (inner, expected) in [
        (answer(401, &[], refused), KmsFault::Denied),
        (answer(400, &[], "{}"), KmsFault::Denied),
        (answer(429, &[("retry-after", "3")], "{}"), KmsFault::Throttled(Some(Duration::from_secs(3)))),
        (answer(503, &[], "{}"), KmsFault::Unreachable),
        (azure_core::Error::with_message(ErrorKind::Connection, "refused"), KmsFault::Unreachable),
        (azure_core::Error::with_message(ErrorKind::Credential, "nothing there"), KmsFault::Denied),
    ] {
        let login = azure_core::Error::with_error(ErrorKind::Credential, inner, "ClientSecretCredential failed");
        let error = explain(Verb::Wrap, "k", &login);
        assert_eq!(error.kms_fault(), Some(expected), "{error:?}");
        assert!(!error.message().contains('\n'), "{error:?}");
    }
}

#[test]
fn an_answer_about_another_key_is_refused() {
    let id = KeyId::parse("https://v.vault.azure.net/keys/name/0a").unwrap();
    let read =
        |kid: &str, value: &str| vault::result(format!(r#"{{"kid":"{kid}","value":"{value}"}}"#).as_bytes(), &id);
    assert_eq!(read("https://v.vault.azure.net/keys/name/0a", "AP8").unwrap().expose(), [0, 255]);
    assert_eq!(read("https://restored.vault.azure.net/keys/Name/0A", "AP8=").unwrap().expose(), [0, 255]);
    for (kid, value) in [
        ("https://v.vault.azure.net/keys/name/0b", "AP8"),
        ("https://v.vault.azure.net/keys/other/0a", "AP8"),
        ("https://v.vault.azure.net/keys/name", "AP8"),
        ("https://v.vault.azure.net/keys/name/0a", "A"),
        ("https://v.vault.azure.net/keys/name/0a", "A+8"),
    ] {
        assert_eq!(fault(read(kid, value)), KmsFault::Failed, "{kid} {value}");
    }
    assert_eq!(fault(vault::result(br#"{"value":"AP8"}"#, &id)), KmsFault::Failed);
}

#[test]
fn what_cannot_be_read_is_not_shown() {
    let read = serde_json::from_str::<u32>(r#""eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9""#).unwrap_err();
    assert!(read.to_string().contains("eyJ0"), "the parser's own text shows the token");
    let inner = azure_core::Error::new(ErrorKind::DataConversion, read);
    let login = azure_core::Error::with_error(ErrorKind::Credential, inner, "ClientSecretCredential failed");
    let error = explain(Verb::Wrap, "k", &login);
    assert!(!format!("{error:?} {}", error.message()).contains("eyJ0"), "{error:?}");
}
