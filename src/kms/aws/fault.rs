//! What an error of AWS KMS means: its code, else its HTTP status, decides the fault; the text says what to do.
//!
//! The rules are:
//! - throttling is known by its code: no type of the SDK stands for it;
//! - the cause is kept as text alone: the SDK's own errors hold the whole answer, and one to Decrypt may hold a secret;
//! - what a service says of a signature is left out: it may repeat the headers, a session token among them.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use aws_config::retry::ErrorKind;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ConnectorError, ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;

use crate::error::{Error, KmsFault, Result};

/// What some codes have in common.
struct Row {
    codes: &'static [&'static str],
    fault: KmsFault,
    cure: &'static str,
}

/// The codes of AWS KMS and those that all services of AWS have (API Reference, "Common Error Types").
static ROWS: &[Row] = &[
    Row {
        codes: &[
            "AccessDeniedException",
            "AccessDenied",
            "NotAuthorized",
            "OptInRequired",
            "InvalidGrantTokenException",
        ],
        fault: KmsFault::Denied,
        cure: "give this identity the permission in its IAM policy and in the policy of the key",
    },
    Row {
        codes: &["ExpiredTokenException", "ExpiredToken", "RequestExpired"],
        fault: KmsFault::Denied,
        cure: "the credentials have expired; renew them, and check the clock of this machine",
    },
    Row {
        codes: &[
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
        ],
        fault: KmsFault::Denied,
        cure: "AWS does not know these credentials; check which ones the environment or the profile gives",
    },
    Row {
        codes: SIGNATURE_CODES,
        fault: KmsFault::Denied,
        cure: "check the secret access key, and the clock of this machine",
    },
    Row {
        codes: &["NotFoundException", "InvalidArnException"],
        fault: KmsFault::NotFound,
        cure: "check the name, the region and the account; a key that was deleted cannot come back",
    },
    Row {
        codes: &["DisabledException"],
        fault: KmsFault::Disabled,
        cure: "enable the key, or name another in the configuration",
    },
    Row {
        codes: &["KMSInvalidStateException"],
        fault: KmsFault::Disabled,
        cure: "if the key waits for its deletion, cancel that and enable it",
    },
    Row {
        codes: &[
            "ThrottlingException",
            "Throttling",
            "ThrottledException",
            "RequestThrottled",
            "RequestThrottledException",
            "TooManyRequestsException",
            "RequestLimitExceeded",
            "SlowDown",
            "PriorRequestNotComplete",
        ],
        fault: KmsFault::Throttled(None),
        cure: "try later, or ask AWS for a higher request quota",
    },
    Row {
        codes: &[
            "KMSInternalException",
            "DependencyTimeoutException",
            "KeyUnavailableException",
            "InternalFailure",
            "InternalError",
            "InternalServerError",
            "ServiceUnavailable",
            "ServiceUnavailableException",
            "RequestTimeout",
            "RequestTimeoutException",
        ],
        fault: KmsFault::Unreachable,
        cure: "the service cannot serve now; try later",
    },
    Row {
        codes: &["InvalidCiphertextException", "IncorrectKeyException"],
        fault: KmsFault::Tampered,
        cure: "the blob is damaged, was altered, or was made with another key or encryption context",
    },
    Row {
        codes: &["InvalidKeyUsageException", "UnsupportedOperationException"],
        fault: KmsFault::Unsupported,
        cure: "the key is not of the kind that this needs",
    },
    Row {
        codes: &["LimitExceededException"],
        fault: KmsFault::Failed,
        cure: "a quota of the account or of the key is used up; a key can be rotated on demand 25 times",
    },
    Row {
        codes: &["ConflictException"],
        fault: KmsFault::Failed,
        cure: "the key is being rotated already; look at it again in a few minutes",
    },
];

/// The codes whose messages may repeat the headers of the request.
const SIGNATURE_CODES: &[&str] = &[
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "RequestTimeTooSkewed",
];

/// What is done where nothing better is known.
const LOOK: &str = "see what the service says, and `docs/kms/aws.md`";

/// Why a request failed, in words alone.
#[derive(Debug)]
pub struct Cause(String);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Cause {}

/// Brings the answer to a request into the form of this library.
///
/// # Errors
/// Any [`KmsFault`], with the operation, the key, and what to do.
pub fn told<T, E>(operation: &str, key: &str, answer: Result<T, SdkError<E, HttpResponse>>) -> Result<T>
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    answer.map_err(|error| {
        let (fault, cure, cause) = judge(&error);
        let text = format!("{operation} with the key `{}`: {}; {cure}", key.escape_debug(), fault.name());
        Error::kms(fault, text).caused_by(Cause(cause))
    })
}

/// Makes the error of an answer that does not hold what it should.
pub fn no_sense(operation: &str, what: &str) -> Error {
    Error::kms(KmsFault::Tampered, format!("the answer to {operation} {what}; is a proxy in between?"))
}

/// Finds the fault of an error, what to do, and the words for the cause.
fn judge<E>(error: &SdkError<E, HttpResponse>) -> (KmsFault, &'static str, String)
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(service) => judge_answer(service.err(), service.raw()),
        SdkError::TimeoutError(_) => (KmsFault::TimedOut, "is the service reachable from this machine?", words(error)),
        SdkError::ResponseError(response) => {
            let (fault, cure) = judge_status(response.raw().status().as_u16());
            (fault, cure, "the answer is not in the form of AWS KMS".to_owned())
        }
        _ => judge_connection(error),
    }
}

/// Judges what the service says.
fn judge_answer(error: &impl ProvideErrorMetadata, raw: &HttpResponse) -> (KmsFault, &'static str, String) {
    let status = raw.status().as_u16();
    let code = error.code().unwrap_or_default();
    let row = ROWS.iter().find(|row| row.codes.contains(&code));
    let (fault, cure) = row.map_or_else(|| judge_status(status), |row| (row.fault, row.cure));
    let fault = if matches!(fault, KmsFault::Throttled(_)) { KmsFault::Throttled(retry_after(raw)) } else { fault };
    let message = error.message().filter(|_| !SIGNATURE_CODES.contains(&code)).unwrap_or("no more is told");
    let message = shown(message.to_owned());
    let request = error.meta().request_id().or_else(|| raw.headers().get("x-amzn-requestid")).unwrap_or("unknown");
    let name = if code.is_empty() { format!("HTTP {status}") } else { code.to_owned() };
    (fault, cure, format!("{}: {} (request {})", name.escape_debug(), message.escape_debug(), request.escape_debug()))
}

/// Judges an answer of which nothing but the status is known.
fn judge_status(status: u16) -> (KmsFault, &'static str) {
    match status {
        401 | 403 => (KmsFault::Denied, "check the credentials, and that no proxy refuses the request"),
        408 | 500.. => (KmsFault::Unreachable, "the service cannot serve now; try later"),
        429 => (KmsFault::Throttled(None), "try later"),
        _ => (KmsFault::Failed, LOOK),
    }
}

/// Reads for how long the service asks to wait, in seconds.
fn retry_after(raw: &HttpResponse) -> Option<Duration> {
    raw.headers().get("retry-after")?.trim().parse().ok().map(Duration::from_secs)
}

/// Why a request was not sent: it would have gone to another machine without TLS.
#[derive(Debug)]
pub struct InClear;

impl fmt::Display for InClear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the address of the service begins with http:// and is not of this machine")
    }
}

impl StdError for InClear {}

/// Judges a request that was never answered: no credentials, no connection, or one that broke.
fn judge_connection(error: &(dyn StdError + 'static)) -> (KmsFault, &'static str, String) {
    let credentials = causes(error).find_map(|error| error.downcast_ref::<CredentialsError>());
    let (fault, cure) = match credentials {
        Some(CredentialsError::ProviderTimedOut(_)) => {
            (KmsFault::TimedOut, "the source of the credentials does not answer")
        }
        Some(_) if broken(error) => (KmsFault::Unreachable, "the source of the credentials cannot be reached"),
        Some(_) => {
            (KmsFault::Denied, "there are no usable credentials; set them in the environment or name a `profile`")
        }
        None if broken(error) => {
            (KmsFault::Unreachable, "is the service reachable from this machine, and its certificate trusted?")
        }
        None if causes(error).any(|error| error.is::<InClear>()) => {
            (KmsFault::Failed, "give an `endpoint` with https://; http:// is for an emulator on this machine")
        }
        None => (KmsFault::Failed, LOOK),
    };
    (fault, cure, words(error))
}

/// Tells whether a connection that could not be made, or that broke, is among the causes.
fn broken(error: &(dyn StdError + 'static)) -> bool {
    let mut connections = causes(error).filter_map(|error| error.downcast_ref::<ConnectorError>());
    connections.any(|error| error.is_io() || error.is_timeout() || error.as_other() == Some(ErrorKind::TransientError))
}

/// Puts the causes into words. None of them shows an answer of the service in its `Display`.
fn words(error: &(dyn StdError + 'static)) -> String {
    causes(error).map(|error| shown(error.to_string())).collect::<Vec<_>>().join(": ")
}

/// Leaves out a text that repeats the headers of a request, as a service may do which gives credentials.
fn shown(text: String) -> String {
    let small = text.to_ascii_lowercase();
    if small.contains("security-token") || small.contains("authorization") && small.contains("credential=") {
        return "its text is left out, since it may hold a credential".to_owned();
    }
    text
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r40_a_text_that_repeats_headers_is_left_out() {
        for text in
            ["…\nx-amz-security-token:IQoJb3\n…", "Authorization=AWS4-HMAC-SHA256 Credential=AKIA/2026, Signature=00"]
        {
            assert!(shown(text.to_owned()).starts_with("its text is left out"), "{text}");
        }
        let harmless = "User: x is not authorized to perform: kms:Sign";
        assert_eq!(shown(harmless.to_owned()), harmless);
    }
}
