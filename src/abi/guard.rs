//! The only way to write an exported function: no panic gets out, and every error becomes a return value here.
//!
//! What a call that goes well costs here: one load of the library, one compare of the process generation, no lock, no
//! system call. All that an error costs stands in the cold functions below.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{global, last_error};
use crate::ck::{CK_FLAGS, CK_RV, CK_SESSION_HANDLE};
use crate::error::{self, Error, Kind, Result};
use crate::secret::process_generation;
use crate::token::{Library, Session};

/// Runs the body of a function that needs the library to be initialised, by this very process.
pub fn guard(function: &'static str, body: impl FnOnce(&Library) -> Result<()>) -> CK_RV {
    run(function, true, || global::with_library(body))
}

/// Runs the body of a function of a session. The session is checked before all else, as the standard ranks it.
pub fn guard_session(
    function: &'static str,
    session: CK_SESSION_HANDLE,
    body: impl FnOnce(&Session) -> Result<()>,
) -> CK_RV {
    guard(function, |library| body(&*library.session(session)?))
}

/// Runs one call of an active operation. A bad argument ends the operation, as every error does but `BufferTooSmall`
/// those that the token finds it ends itself, those that are found on the way there end here.
pub fn guard_operation(
    function: &'static str,
    session: CK_SESSION_HANDLE,
    operation: CK_FLAGS,
    body: impl FnOnce(&Session) -> Result<()>,
) -> CK_RV {
    guard_session(function, session, |session| {
        body(session).inspect_err(|error| {
            if error.kind() == Kind::ArgumentsBad {
                // The argument is what the caller is told of; an operation that was not there needs no end.
                let _ = session.cancel(operation);
            }
        })
    })
}

/// Runs the body of a function that works without the library.
pub fn guard_uninitialized(function: &'static str, body: impl FnOnce() -> Result<()>) -> CK_RV {
    run(function, true, body)
}

/// Runs the body of a function whose own errors must not replace the text that it tells (`SR_LastError`).
pub fn guard_unrecorded(function: &'static str, body: impl FnOnce() -> Result<()>) -> CK_RV {
    run(function, false, body)
}

#[inline]
fn run(function: &'static str, record: bool, body: impl FnOnce() -> Result<()>) -> CK_RV {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => error::OK,
        Ok(Err(error)) => failed(function, record, error),
        Err(panic) => failed(function, record, panicked(panic.as_ref())),
    }
}

/// Maps, records and logs an error. Neither the error's own drop nor the host's log subscriber can panic out of here.
#[cold]
fn failed(function: &'static str, record: bool, error: Error) -> CK_RV {
    let rv = error.rv();
    let _ = catch_unwind(AssertUnwindSafe(move || report(function, record, &error)));
    rv
}

fn report(function: &'static str, record: bool, error: &Error) {
    let correlation = is_unexpected(error.kind()).then(correlation_id);
    if record {
        last_error::record(function, error, correlation.as_deref());
    }
    let (rv, text) = (error.kind().name(), error.message());
    match correlation {
        Some(correlation) => crate::log::error!("{function}: {rv}: {text} [{correlation}]"),
        None => crate::log::debug!("{function}: {rv}: {text}"),
    }
}

/// Tells the errors whose cause an operator must be able to find in the log.
fn is_unexpected(kind: Kind) -> bool {
    matches!(kind, Kind::GeneralError | Kind::DeviceError | Kind::FunctionFailed)
}

/// Makes an id that ties what the caller was told to the line in the log.
fn correlation_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let (process, count) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    format!("{process:x}-{:x}-{count:x}", process_generation())
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::internal(format!("a defect of the library: {}", text.unwrap_or("a panic without a message")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ck::{CKR_BUFFER_TOO_SMALL, CKR_CRYPTOKI_NOT_INITIALIZED, CKR_GENERAL_ERROR};

    #[test]
    fn r16_a_panic_becomes_general_error_and_later_calls_work() {
        assert_eq!(guard_uninitialized("C_Test", || panic!("broken {}", 1)), CKR_GENERAL_ERROR);
        last_error::with(|text| {
            assert!(text.starts_with("C_Test: CKR_GENERAL_ERROR: a defect of the library: broken 1 ["), "{text}");
        });
        assert_eq!(guard_uninitialized("C_Test", || Ok(())), error::OK);
    }

    #[test]
    fn errors_map_to_their_return_value_and_text() {
        let rv = guard_uninitialized("C_Test", || Err(Error::from(Kind::BufferTooSmall)));
        assert_eq!(rv, CKR_BUFFER_TOO_SMALL);
        last_error::with(|text| assert!(text.starts_with("C_Test: CKR_BUFFER_TOO_SMALL: "), "{text}"));
        assert_eq!(guard_unrecorded("C_Other", || Err(Error::from(Kind::DeviceError))), Kind::DeviceError.rv());
        last_error::with(|text| assert!(text.starts_with("C_Test: "), "{text}"));
    }

    #[test]
    fn r06_without_a_library_the_body_does_not_run() {
        let rv = guard("C_Test", |_| panic!("must not run"));
        assert_eq!(rv, CKR_CRYPTOKI_NOT_INITIALIZED);
    }
}
