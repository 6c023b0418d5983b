//! What went wrong at Azure, as a [`KmsFault`] and in words.
//!
//! The rules are: the service's own words are kept as the cause, in one line and cut to a length; nothing of an answer that could
//! not be read is shown, since such an answer may hold a token.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::time::Duration;

use azure_core::error::ErrorKind;
use azure_core::http::headers::HeaderName;
use azure_core::http::{RawResponse, StatusCode};
use serde_json::Value;

use crate::error::{Error, KmsFault};

/// How many characters of the service's words are kept.
const SAID_LEN: usize = 400;
/// The header that says how many seconds to wait (RFC 9110, 10.2.3).
const RETRY_AFTER: HeaderName = HeaderName::from_static("retry-after");

/// What was asked of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// To tell what a key is.
    Read,
    /// To list the keys.
    List,
    /// To make a key.
    Create,
    /// To make a new version.
    Rotate,
    /// To wrap a key.
    Wrap,
    /// To unwrap a key.
    Unwrap,
    /// To sign.
    Sign,
    /// To decrypt.
    Decrypt,
}

impl Verb {
    /// Names the action in words.
    const fn words(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::List => "list",
            Self::Create => "create",
            Self::Rotate => "rotate",
            Self::Wrap => "wrap with",
            Self::Unwrap => "unwrap with",
            Self::Sign => "sign with",
            Self::Decrypt => "decrypt with",
        }
    }

    /// Names the permission as Azure's roles do (operations of Microsoft.KeyVault).
    const fn permission(self) -> &'static str {
        match self {
            Self::Read | Self::List => "Microsoft.KeyVault/vaults/keys/read",
            Self::Create => "Microsoft.KeyVault/vaults/keys/create/action",
            Self::Rotate => "Microsoft.KeyVault/vaults/keys/rotate/action",
            Self::Wrap => "Microsoft.KeyVault/vaults/keys/wrap/action",
            Self::Unwrap => "Microsoft.KeyVault/vaults/keys/unwrap/action",
            Self::Sign => "Microsoft.KeyVault/vaults/keys/sign/action",
            Self::Decrypt => "Microsoft.KeyVault/vaults/keys/decrypt/action",
        }
    }
}

/// Makes the error of a request about a key.
pub fn explain(verb: Verb, key: &str, error: &azure_core::Error) -> Error {
    let (fault, advice) = judge(verb, error);
    let text = match verb {
        Verb::List => format!("cannot list the Azure keys: {advice}"),
        _ => format!("cannot {} the Azure key `{}`: {advice}", verb.words(), key.escape_debug()),
    };
    Error::kms(fault, text).caused_by(said(error))
}

/// Tells whether the vault did not accept the login.
pub fn login_is_refused(error: &azure_core::Error) -> bool {
    error.http_status() == Some(StatusCode::Unauthorized)
}

/// Makes the error of a client that cannot be made: a credential lacks something.
pub fn no_client(error: &azure_core::Error) -> Error {
    let text = "cannot log in to Azure with what the configuration and the environment say";
    Error::kms(KmsFault::Denied, text).caused_by(said(error))
}

/// Decides what kind of trouble it is, and what to do about it.
fn judge(verb: Verb, error: &azure_core::Error) -> (KmsFault, Cow<'static, str>) {
    let in_login = matches!(error.kind(), ErrorKind::Credential);
    match innermost(error).kind() {
        ErrorKind::HttpResponse { status, raw_response, .. } => {
            let response = raw_response.as_deref();
            if in_login { of_login(*status, response) } else { of_vault(verb, *status, response) }
        }
        ErrorKind::Connection | ErrorKind::Io => (
            KmsFault::Unreachable,
            "no connection; check the address, the network, HTTPS_PROXY and, where the certificate is refused, `ca_file`".into(),
        ),
        ErrorKind::Credential => (
            KmsFault::Denied,
            "there is no way to log in; set `credential` and what belongs to it, or the AZURE_… variables".into(),
        ),
        ErrorKind::DataConversion => (KmsFault::Failed, "the service gave an answer that makes no sense".into()),
        _ => (
            KmsFault::Failed,
            "the request was refused on this side; an emulator needs `verify_challenge_resource = false`".into(),
        ),
    }
}

/// Judges an answer of the login service or of the machine's identity service.
fn of_login(status: StatusCode, response: Option<&RawResponse>) -> (KmsFault, Cow<'static, str>) {
    match u16::from(status) {
        429 => (KmsFault::Throttled(retry_after(response)), "too many logins".into()),
        408 | 500.. => (KmsFault::Unreachable, "the login service cannot serve now".into()),
        _ => (
            KmsFault::Denied,
            "the login was refused; check tenant, client id, and that the secret or identity is valid and assigned"
                .into(),
        ),
    }
}

/// Judges an answer of the vault (Key Vault REST API error codes).
fn of_vault(verb: Verb, status: StatusCode, response: Option<&RawResponse>) -> (KmsFault, Cow<'static, str>) {
    match u16::from(status) {
        400 if matches!(verb, Verb::Unwrap | Verb::Decrypt) => (
            KmsFault::Tampered,
            "what it was given is not what this key encrypted: it is damaged or was altered".into(),
        ),
        400 => (KmsFault::Failed, "the service does not take the request for this key".into()),
        401 => (
            KmsFault::Denied,
            "the vault does not accept the login; check that tenant and vault belong together".into(),
        ),
        403 => forbidden(verb, response),
        404 => (
            KmsFault::NotFound,
            "there is no such key or version in this vault; a deleted one can be recovered until it is purged".into(),
        ),
        409 => {
            (KmsFault::Failed, "the name is taken by a deleted key, or another change is under way; try again".into())
        }
        429 => (KmsFault::Throttled(retry_after(response)), "too many requests for this vault".into()),
        408 | 500.. => (KmsFault::Unreachable, "the service cannot serve now".into()),
        _ => (KmsFault::Failed, "the service refused the request".into()),
    }
}

/// Tells the reasons for 403 apart.
fn forbidden(verb: Verb, response: Option<&RawResponse>) -> (KmsFault, Cow<'static, str>) {
    let (message, inner) = details(response);
    let has = |code: &str, words: &str| inner == code || message.contains(words);
    if has("KeyDisabled", "on a disabled key") {
        (KmsFault::Disabled, "it is disabled; enable it".into())
    } else if has("KeyExpired", "on an expired key") || has("KeyNotYetValid", "not yet valid") {
        (KmsFault::Disabled, "it is outside of its dates (exp, nbf); change them or rotate it".into())
    } else if has("KeyOperationForbidden", "is not permitted on this key") {
        (KmsFault::Unsupported, "its own list of operations (key_ops) forbids this".into())
    } else if has("ForbiddenByFirewall", "not authorized and caller is not a trusted service") {
        (KmsFault::Denied, "the vault's firewall refuses this machine's address; allow it under Networking".into())
    } else {
        (KmsFault::Denied, format!("the identity lacks {} on this key", verb.permission()).into())
    }
}

/// Reads the message and the inner code of an error answer.
fn details(response: Option<&RawResponse>) -> (String, String) {
    let body: Value = response.and_then(|response| serde_json::from_slice(response.body()).ok()).unwrap_or_default();
    let error = body.get("error").unwrap_or(&Value::Null);
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let inner = error.get("innererror").or_else(|| error.get("innerError"));
    let message = error.get("message").or_else(|| body.get("error_description"));
    (text(message), text(inner.and_then(|inner| inner.get("code"))))
}

/// Reads how long the service wants us to wait.
fn retry_after(response: Option<&RawResponse>) -> Option<Duration> {
    let seconds = response?.headers().get_optional_str(&RETRY_AFTER)?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

/// Finds the error of the SDK that the others wrap.
fn innermost(error: &azure_core::Error) -> &azure_core::Error {
    let mut found = error;
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(this) = cause {
        if let Some(inner) = this.downcast_ref::<azure_core::Error>() {
            found = inner;
        }
        cause = this.source();
    }
    found
}

/// Gives the service's words, or the reason of a broken connection, in one line.
fn said(error: &azure_core::Error) -> String {
    let inner = innermost(error);
    let words = match inner.kind() {
        // What cannot be read may hold anything.
        ErrorKind::DataConversion if inner.get_ref().is_some() => "an answer that cannot be read".to_owned(),
        ErrorKind::HttpResponse { status, raw_response, .. } => {
            let (message, code) = details(raw_response.as_deref());
            [format!("HTTP {status}"), code, message]
                .into_iter()
                .filter(|text| !text.is_empty())
                .collect::<Vec<_>>()
                .join(": ")
        }
        _ => chain(inner),
    };
    words.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SAID_LEN).collect()
}

/// Joins an error and its causes; what a text says already is not said again, and of a broken connection the causes say all.
fn chain(error: &azure_core::Error) -> String {
    let mut cause = error.source();
    let mut words = match cause {
        Some(first) if matches!(error.kind(), ErrorKind::Connection | ErrorKind::Io) => first.to_string(),
        _ => error.to_string(),
    };
    while let Some(this) = cause {
        let text = this.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        cause = this.source();
    }
    words
}
