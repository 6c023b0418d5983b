//! What the return values of a PKCS #11 module mean for a caller of the provider: one table.

use std::fmt;

use cryptoki::context::Function;
use cryptoki::error::{Error as Pkcs11Error, RvError};

use crate::error::{Error, KmsFault, Result};

/// How one try of a job ends.
pub type Try<T> = Result<T, Fail>;

/// Why a try failed.
#[derive(Debug)]
pub struct Fail {
    /// What the caller is told.
    pub error: Error,
    /// Whether the session or what it knew is gone: a new one may do better.
    pub lost: bool,
    /// Whether the answer says nothing: some modules give it for a wrong ciphertext as well as for a broken device.
    pub vague: bool,
}

impl Fail {
    /// Makes the failure of a KMS fault that a new session does not cure.
    pub fn new(fault: KmsFault, text: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Error::kms(fault, text).into()
    }

    /// Keeps it from being tried again: what was tried may have been done.
    pub fn for_good(self) -> Self {
        Self { lost: false, ..self }
    }

    /// Tells what kind of trouble it is.
    pub fn fault(&self) -> Option<KmsFault> {
        self.error.kms_fault()
    }
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        Self { error, lost: false, vague: false }
    }
}

/// What becomes of a return value.
struct Row {
    rv: RvError,
    fault: KmsFault,
    then: Then,
    /// What happened and what to do.
    text: &'static str,
}

/// What to try next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Nothing.
    Tell,
    /// A new session.
    Reopen,
    /// For a decryption: find out whether the ciphertext or the device is at fault.
    Doubt,
}

const fn row(rv: RvError, fault: KmsFault, then: Then, text: &'static str) -> Row {
    Row { rv, fault, then, text }
}

const PIN: &str = "the device refuses the PIN; correct pin_file, pin_env or pin_credential before the device locks it";
const AWAY: &str = "the device or its token is away; is it plugged in, switched on and reachable?";
const GONE: &str = "the session with the device has ended";
const OBJECT: &str = "the device no longer has the key";
const BROKEN: &str = "the ciphertext is not what this key made: it is damaged, was altered, or belongs to another key";
const USE: &str =
    "the key's attributes do not permit this use: it was made for another, or an operator has switched it off";
const LACKS: &str = "the device or the key cannot do this";
const FULL: &str = "the device has no room or no free session; free some, or use another token";
const SICK: &str = "the device failed; its own log says why";

/// Every return value with a meaning of its own (PKCS #11 v3.2, 5.1); all others are `Failed`.
static TABLE: &[Row] = &[
    row(RvError::PinIncorrect, KmsFault::Denied, Then::Tell, PIN),
    row(RvError::PinInvalid, KmsFault::Denied, Then::Tell, PIN),
    row(RvError::PinLenRange, KmsFault::Denied, Then::Tell, PIN),
    row(
        RvError::PinExpired,
        KmsFault::Denied,
        Then::Tell,
        "the PIN has expired; set a new one with the device's own tool",
    ),
    row(
        RvError::PinLocked,
        KmsFault::Denied,
        Then::Tell,
        "the PIN is locked; the security officer of the token can unlock it",
    ),
    row(
        RvError::UserPinNotInitialized,
        KmsFault::Denied,
        Then::Tell,
        "the token has no user PIN yet; its security officer sets it",
    ),
    row(
        RvError::UserAnotherAlreadyLoggedIn,
        KmsFault::Denied,
        Then::Tell,
        "the security officer is logged in to the token; log out first",
    ),
    row(RvError::UserTypeInvalid, KmsFault::Denied, Then::Tell, "the token has no such user"),
    row(RvError::FunctionRejected, KmsFault::Denied, Then::Tell, "the device refuses the request by its policy"),
    row(RvError::ActionProhibited, KmsFault::Denied, Then::Tell, "the device refuses the request by its policy"),
    row(RvError::SessionReadOnly, KmsFault::Denied, Then::Tell, "the device permits reading only"),
    row(
        RvError::TokenWriteProtected,
        KmsFault::Denied,
        Then::Tell,
        "the token is write-protected; new keys cannot be made on it",
    ),
    row(
        RvError::UserNotLoggedIn,
        KmsFault::Denied,
        Then::Reopen,
        "the device wants a login, or one for each use (CKA_ALWAYS_AUTHENTICATE), which a service cannot give",
    ),
    row(RvError::SessionHandleInvalid, KmsFault::Unreachable, Then::Reopen, GONE),
    row(RvError::SessionClosed, KmsFault::Unreachable, Then::Reopen, GONE),
    row(
        RvError::CryptokiNotInitialized,
        KmsFault::Unreachable,
        Then::Reopen,
        "the application has finalised the module",
    ),
    row(RvError::OperationActive, KmsFault::Unreachable, Then::Reopen, "the session is stuck in another operation"),
    row(RvError::DeviceRemoved, KmsFault::Unreachable, Then::Reopen, AWAY),
    row(RvError::TokenNotPresent, KmsFault::Unreachable, Then::Reopen, AWAY),
    row(RvError::SlotIdInvalid, KmsFault::Unreachable, Then::Reopen, AWAY),
    row(RvError::DeviceError, KmsFault::Unreachable, Then::Reopen, SICK),
    row(RvError::FunctionCanceled, KmsFault::Unreachable, Then::Tell, "the device gave the request up"),
    row(RvError::KeyHandleInvalid, KmsFault::NotFound, Then::Reopen, OBJECT),
    row(RvError::ObjectHandleInvalid, KmsFault::NotFound, Then::Reopen, OBJECT),
    row(RvError::WrappingKeyHandleInvalid, KmsFault::NotFound, Then::Reopen, OBJECT),
    row(RvError::UnwrappingKeyHandleInvalid, KmsFault::NotFound, Then::Reopen, OBJECT),
    row(RvError::KeyFunctionNotPermitted, KmsFault::Disabled, Then::Tell, USE),
    row(RvError::EncryptedDataInvalid, KmsFault::Tampered, Then::Tell, BROKEN),
    row(RvError::EncryptedDataLenRange, KmsFault::Tampered, Then::Tell, BROKEN),
    row(RvError::WrappedKeyInvalid, KmsFault::Tampered, Then::Tell, BROKEN),
    row(RvError::WrappedKeyLenRange, KmsFault::Tampered, Then::Tell, BROKEN),
    row(RvError::GeneralError, KmsFault::Failed, Then::Doubt, SICK),
    row(RvError::FunctionFailed, KmsFault::Failed, Then::Doubt, SICK),
    row(RvError::ArgumentsBad, KmsFault::Failed, Then::Doubt, "the device does not take the arguments"),
    row(RvError::DataInvalid, KmsFault::Failed, Then::Doubt, "the device does not take the data"),
    row(RvError::DataLenRange, KmsFault::Failed, Then::Doubt, "the device does not take data of this length"),
    row(RvError::AttributeValueInvalid, KmsFault::Unsupported, Then::Doubt, LACKS),
    row(RvError::TemplateInconsistent, KmsFault::Unsupported, Then::Doubt, LACKS),
    row(RvError::DomainParamsInvalid, KmsFault::Unsupported, Then::Tell, LACKS),
    row(RvError::CurveNotSupported, KmsFault::Unsupported, Then::Tell, LACKS),
    row(RvError::KeySizeRange, KmsFault::Unsupported, Then::Tell, LACKS),
    row(RvError::KeyTypeInconsistent, KmsFault::Unsupported, Then::Tell, LACKS),
    row(RvError::MechanismInvalid, KmsFault::Unsupported, Then::Tell, LACKS),
    row(
        RvError::MechanismParamInvalid,
        KmsFault::Unsupported,
        Then::Tell,
        "the device does not take the mechanism's parameters; for RSA-OAEP, try another oaep_hash",
    ),
    row(RvError::FunctionNotSupported, KmsFault::Unsupported, Then::Tell, LACKS),
    row(
        RvError::NeedToCreateThreads,
        KmsFault::Unsupported,
        Then::Tell,
        "the module needs threads, and the application forbids them (CKF_LIBRARY_CANT_CREATE_OS_THREADS)",
    ),
    row(RvError::CantLock, KmsFault::Unsupported, Then::Tell, "the module cannot be used by more than one thread"),
    row(RvError::DeviceMemory, KmsFault::Failed, Then::Tell, FULL),
    row(RvError::SessionCount, KmsFault::Throttled(None), Then::Tell, FULL),
];

/// What a module answered, in few words; its own are a paragraph of the standard.
#[derive(Debug)]
struct Answer(Pkcs11Error);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Pkcs11Error::Pkcs11(RvError::VendorDefined(rv), function) => write!(f, "C_{function:?}: {rv:#x}"),
            Pkcs11Error::Pkcs11(rv, function) => write!(f, "C_{function:?}: {rv:?}"),
            other => other.fmt(f),
        }
    }
}

impl std::error::Error for Answer {}

/// Makes the failure of a call of the module; `doing` says in words what was tried.
pub fn fail(error: Pkcs11Error, doing: impl fmt::Display) -> Fail {
    let found = match &error {
        Pkcs11Error::Pkcs11(rv, function) => TABLE.iter().find(|row| row.rv == meant(*rv, *function)),
        _ => None,
    };
    let opens = matches!(error, Pkcs11Error::Pkcs11(_, Function::Decrypt | Function::UnwrapKey));
    let (fault, then, text) = match found {
        Some(row) => (row.fault, row.then, row.text),
        None => (KmsFault::Failed, Then::Tell, "the PKCS #11 module answers with an error; its own log says why"),
    };
    Fail {
        error: Error::kms(fault, format!("cannot {doing}: {text}")).caused_by(Answer(error)),
        lost: then == Then::Reopen,
        vague: opens && then == Then::Doubt,
    }
}

/// Brings an answer to the one that the standard has for it: some devices blame the arguments for a mechanism's parameters.
fn meant(rv: RvError, function: Function) -> RvError {
    match (rv, function) {
        (RvError::ArgumentsBad, Function::EncryptInit | Function::DecryptInit | Function::SignInit) => {
            RvError::MechanismParamInvalid
        }
        (rv, _) => rv,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_return_value_stands_twice_in_the_table() {
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(TABLE.iter().position(|other| other.rv == row.rv), Some(at), "{:?}", row.rv);
        }
    }

    #[test]
    fn a_failure_says_what_was_tried_what_came_back_and_what_to_do() {
        let Fail { error, lost, vague } = fail(Pkcs11Error::Pkcs11(RvError::PinIncorrect, Function::Login), "log in");
        assert_eq!((error.kms_fault(), lost, vague), (Some(KmsFault::Denied), false, false));
        let text = error.message();
        assert!(text.contains("cannot log in") && text.contains("C_Login: PinIncorrect") && text.contains("pin_file"));
        let fail = fail(Pkcs11Error::Pkcs11(RvError::VendorDefined(0x8000_0007), Function::Sign), "sign");
        assert_eq!(fail.fault(), Some(KmsFault::Failed));
        assert!(fail.error.message().contains("0x80000007"));
    }
}
