//! What the errors of Google's client libraries mean, told without what could be secret.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use google_cloud_auth::build_errors::Error as CredentialsError;
use google_cloud_gax::client_builder::Error as ClientError;
use google_cloud_gax::error::rpc::{Code, Status, StatusDetails};
use google_cloud_kms_v1::Error as CallError;

use crate::error::{Error, KmsFault};

/// The longest text of another's error that is passed on, in characters.
const LONGEST: usize = 500;
/// From this length on, a run of letters and digits in an error of credentials is taken for a token.
const TOKEN_LEN: usize = 32;

/// The text of an error below. The error itself is not kept: its `Debug` shows headers and whole answers.
#[derive(Debug)]
struct Cause(String);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cause {}

/// Judges the error of a call; `refusal` is what a refused argument means for it.
pub fn judge(error: &CallError, refusal: KmsFault) -> Error {
    if let Some(status) = error.status() {
        let fault = fault_of(status, error, refusal);
        return Error::kms(fault, advice(fault)).caused_by(cause(&format!(
            "{}: {}",
            status.code.name(),
            status.message
        )));
    }
    if error.is_authentication() {
        return no_token(error);
    }
    if error.is_deserialization() {
        // What could not be read may be a plaintext: the text of the error stays out.
        return Error::kms(KmsFault::Failed, "the answer is none of Cloud KMS; check the key `endpoint` and any proxy");
    }
    let fault = match error.http_status_code() {
        Some(code) => fault_of_http(code, error),
        None if error.is_timeout() => KmsFault::TimedOut,
        None if error.is_connect() || error.is_io() || error.is_transport() => KmsFault::Unreachable,
        None => KmsFault::Failed,
    };
    Error::kms(fault, advice(fault)).caused_by(cause(&chain(error)))
}

/// Judges an error of making the client.
pub fn judge_client(error: &ClientError) -> Error {
    if error.is_universe_domain_mismatch() {
        // Its text has the answer of the metadata server in it, whatever that is.
        let text = "the credentials are for another universe than the client; check GOOGLE_CLOUD_UNIVERSE_DOMAIN and, where the \
                    metadata server gives the credentials, what it says of the universe";
        return Error::kms(KmsFault::Failed, text);
    }
    let text = "the client cannot be made; check the key `endpoint` and the CA certificates of this machine";
    Error::kms(KmsFault::Failed, text).caused_by(cause(&redact(&chain(error))))
}

/// Judges an error of making credentials from a file or the environment.
pub fn judge_credentials(error: &CredentialsError) -> Error {
    let text = "there are no usable credentials; set the key `credentials_file` or GOOGLE_APPLICATION_CREDENTIALS to a file that \
                can be read, or run where a service account is attached";
    let error_text = match error {
        // A field of the wrong type would be shown with its value.
        error if error.is_parsing() => "the file lacks a field of its type, or one has a wrong type".to_owned(),
        error => redact(&chain(error)),
    };
    Error::kms(KmsFault::Denied, text).caused_by(cause(&error_text))
}

/// Tells whether the credentials of the client are used up: the libraries never ask again after an error that they take for
/// lasting, so that a new client is needed.
pub fn spoils_client(error: &CallError) -> bool {
    error.is_authentication() || error.status().is_some_and(|status| status.code == Code::Unauthenticated)
}

fn no_token(error: &CallError) -> Error {
    let lasting = error
        .source()
        .and_then(|source| source.downcast_ref::<google_cloud_auth::errors::CredentialsError>())
        .is_none_or(|source| !source.is_transient());
    let (fault, text) = if lasting {
        (
            KmsFault::Denied,
            "Google gives no access token for these credentials; check that their account and key are active",
        )
    } else {
        (KmsFault::Unreachable, "no access token: the token service or the metadata server does not answer")
    };
    Error::kms(fault, text).caused_by(cause(&redact(&chain(error))))
}

fn fault_of(status: &Status, error: &CallError, refusal: KmsFault) -> KmsFault {
    match status.code {
        Code::PermissionDenied | Code::Unauthenticated => KmsFault::Denied,
        Code::NotFound => KmsFault::NotFound,
        Code::FailedPrecondition => fault_of_state(&status.message),
        Code::ResourceExhausted => KmsFault::Throttled(retry_after(status, error)),
        Code::Unavailable | Code::Internal | Code::Aborted | Code::Cancelled => KmsFault::Unreachable,
        Code::DeadlineExceeded => KmsFault::TimedOut,
        Code::Unimplemented => KmsFault::Unsupported,
        Code::InvalidArgument => refusal,
        Code::Unknown => error.http_status_code().map_or(KmsFault::Failed, |code| fault_of_http(code, error)),
        _ => KmsFault::Failed,
    }
}

/// Tells FAILED_PRECONDITION apart, for which the service has no finer code than its message: "… is not enabled, current state
/// is: DESTROYED.", "… has incorrect key purpose: …", "… has not been used in this project before or it is disabled."
fn fault_of_state(message: &str) -> KmsFault {
    let says = |part: &str| message.contains(part);
    if says("incorrect key purpose") {
        KmsFault::Unsupported
    } else if says("has not been used in") {
        KmsFault::Denied
    } else if says("GENERATION_FAILED") || says("IMPORT_FAILED") {
        KmsFault::Failed
    } else if says("state is: DESTROYED") {
        KmsFault::NotFound
    } else if says("not enabled") || says("state is") || says("primary version") {
        KmsFault::Disabled
    } else {
        KmsFault::Failed
    }
}

/// Judges an answer that has no error of Google's in it: it comes from something in between.
fn fault_of_http(code: u16, error: &CallError) -> KmsFault {
    match code {
        401 | 403 | 407 => KmsFault::Denied,
        408 | 504 => KmsFault::TimedOut,
        429 => KmsFault::Throttled(header_retry_after(error)),
        500.. => KmsFault::Unreachable,
        _ => KmsFault::Failed,
    }
}

fn advice(fault: KmsFault) -> &'static str {
    match fault {
        KmsFault::Denied => {
            "the caller may not do this; grant its account the role on this key that docs/kms/google.md names, and check which \
             credentials are in use and that the Cloud KMS API is enabled"
        }
        KmsFault::NotFound => {
            "there is no such key or version (any more); check its name, or restore what it wrapped from a backup"
        }
        KmsFault::Disabled => {
            "the version is not enabled; enable or restore it (`gcloud kms keys versions enable` or `restore`), or name another"
        }
        KmsFault::Throttled(_) => "too many requests; raise the quota of the project or send fewer",
        KmsFault::Unreachable => {
            "the service cannot be reached or cannot serve now; check network, proxy and status.cloud.google.com"
        }
        KmsFault::TimedOut => "the service did not answer in time",
        KmsFault::Tampered => {
            "the ciphertext does not decrypt: it was altered, is damaged, or another key or context made it; restore it from a backup"
        }
        KmsFault::Unsupported => "the key cannot do this: its purpose or algorithm is another",
        KmsFault::WrongContext | KmsFault::Failed => {
            "the service refuses the request; check the settings and the name of the key"
        }
    }
}

/// Reads how long to wait: from the header, else from the details of the error.
fn retry_after(status: &Status, error: &CallError) -> Option<Duration> {
    let from_details = || {
        status.details.iter().find_map(|detail| match detail {
            StatusDetails::RetryInfo(info) => Duration::try_from(info.retry_delay?).ok(),
            _ => None,
        })
    };
    header_retry_after(error).or_else(from_details)
}

fn header_retry_after(error: &CallError) -> Option<Duration> {
    let seconds = error.http_headers()?.get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Joins the texts of an error and its sources, each once: some of them already have their source in their text.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

fn cause(text: &str) -> Cause {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    Cause(printable.take(LONGEST).collect())
}

/// Takes out what looks like a token or a key.
fn redact(text: &str) -> String {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "_-+=".contains(c);
    let mut clean = String::with_capacity(text.len());
    for part in text.split_inclusive(|c| !is_token(c)) {
        let run = part.trim_end_matches(|c| !is_token(c));
        match run.len() {
            0..TOKEN_LEN => clean.push_str(part),
            _ => clean.extend(["…", part.strip_prefix(run).unwrap_or_default()]),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(code: Code, message: &str) -> CallError {
        CallError::service(Status::default().set_code(code).set_message(message))
    }

    #[test]
    fn every_code_of_the_service_becomes_a_fault() {
        let failed = KmsFault::Failed;
        for (code, fault) in [
            (Code::PermissionDenied, KmsFault::Denied),
            (Code::Unauthenticated, KmsFault::Denied),
            (Code::NotFound, KmsFault::NotFound),
            (Code::ResourceExhausted, KmsFault::Throttled(None)),
            (Code::Unavailable, KmsFault::Unreachable),
            (Code::Internal, KmsFault::Unreachable),
            (Code::DeadlineExceeded, KmsFault::TimedOut),
            (Code::Unimplemented, KmsFault::Unsupported),
            (Code::AlreadyExists, failed),
        ] {
            let error = judge(&service(code, "a message"), failed);
            assert_eq!(error.kms_fault(), Some(fault), "{error}");
            assert!(error.message().ends_with(&format!(": {}: a message", code.name())), "{error}");
        }
        let refused = service(Code::InvalidArgument, "Decryption failed");
        assert_eq!(judge(&refused, KmsFault::Tampered).kms_fault(), Some(KmsFault::Tampered));
        assert_eq!(judge(&refused, failed).kms_fault(), Some(failed));
    }

    #[test]
    fn the_states_of_a_version_are_told_apart_by_the_message() {
        let state =
            |state: &str| format!("projects/p/…/cryptoKeyVersions/1 is not enabled, current state is: {state}.");
        for (message, fault) in [
            (state("DISABLED"), KmsFault::Disabled),
            (state("DESTROY_SCHEDULED"), KmsFault::Disabled),
            (state("PENDING_GENERATION"), KmsFault::Disabled),
            (state("DESTROYED"), KmsFault::NotFound),
            (state("GENERATION_FAILED"), KmsFault::Failed),
            (
                "Operation requested for Key k has incorrect key purpose: ENCRYPT_DECRYPT".to_owned(),
                KmsFault::Unsupported,
            ),
            (
                "Google Cloud KMS API has not been used in this project before, or it is disabled.".to_owned(),
                KmsFault::Denied,
            ),
            ("something else".to_owned(), KmsFault::Failed),
        ] {
            let error = judge(&service(Code::FailedPrecondition, &message), KmsFault::Failed);
            assert_eq!(error.kms_fault(), Some(fault), "{message}");
        }
    }

    #[test]
    fn r40_no_token_gets_into_a_text() {
        let token = "ya29.a0AfH6SMBx-canary-canary-canary-canary_0123456789";
        let text = redact(&format!(
            "body=<{{\"access_token\":\"{token}\"}}> invalid_grant for sr@project.iam.gserviceaccount.com"
        ));
        assert!(!text.contains("canary") && text.contains("invalid_grant for sr@project"), "{text}");
        let answer = CallError::deser(std::io::Error::other("invalid type: string \"canary\""));
        assert!(!format!("{:?}", judge(&answer, KmsFault::Failed)).contains("canary"));
        let source = google_cloud_auth::errors::CredentialsError::from_msg(false, format!("body=<{token}>"));
        let error = judge(&CallError::authentication(source), KmsFault::Failed);
        assert_eq!(error.kms_fault(), Some(KmsFault::Denied));
        assert!(!format!("{error:?} {error}").contains("canary"), "{error:?}");
    }
}
