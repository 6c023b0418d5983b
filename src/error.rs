//! One error for the whole library, and the one place where it becomes a `CK_RV` (PKCS #11 v3.2, 5.1).
//!
//! An [`Error`] says what happened and what to do about it. Its [`Kind`] decides the return value; its text reaches
//! the caller through `SR_LastError` and the log. Neither ever holds a secret.

use std::borrow::Cow;
use std::collections::TryReserveError;
use std::fmt;
use std::time::Duration;

use smallvec::CollectionAllocErr;

use crate::ck::{self, CK_RV};

/// The result of everything in this library that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The return value of a call that went well.
pub const OK: CK_RV = ck::CKR_OK;

/// What happened (the kind), in words (the text), and why (the source).
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    text: Cow<'static, str>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    fault: Option<KmsFault>,
    busy: bool,
}

/// What kind of trouble a KMS made: it decides whether another try can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KmsFault {
    /// The credentials are missing, expired or lack a permission.
    Denied,
    /// There is no such key or version (any more).
    NotFound,
    /// The key is disabled, or waits for its deletion.
    Disabled,
    /// Too many requests; the service may say how long to wait.
    Throttled(Option<Duration>),
    /// No connection, or one that broke, or a service that answers that it cannot serve (5xx).
    Unreachable,
    /// No answer within the deadline.
    TimedOut,
    /// The blob is not what the KMS made, or an answer fails its integrity check.
    Tampered,
    /// The blob is bound to another token or purpose.
    WrongContext,
    /// The provider or the key cannot do this.
    Unsupported,
    /// Anything else: an answer that makes no sense, a setting that the service refuses.
    Failed,
}

impl KmsFault {
    /// Tells whether the same call may succeed a moment later.
    pub const fn may_pass(self) -> bool {
        matches!(self, Self::Throttled(_) | Self::Unreachable | Self::TimedOut)
    }

    /// Names it in one word, for status and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::NotFound => "not-found",
            Self::Disabled => "disabled",
            Self::Throttled(_) => "throttled",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed-out",
            Self::Tampered => "tampered",
            Self::WrongContext => "wrong-context",
            Self::Unsupported => "unsupported",
            Self::Failed => "failed",
        }
    }
}

impl Error {
    /// Makes an error of a kind with a text that says what happened and what to do.
    pub fn new(kind: Kind, text: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, text: text.into(), source: None, fault: None, busy: false }
    }

    /// Adds the error of a library below, kept as the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts more context in front of the text: `context: text`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.text = Cow::Owned(format!("{context}: {}", self.text));
        self
    }

    /// Makes the error of a bad pointer, length or flag in a call.
    pub fn arguments_bad(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::ArgumentsBad, text)
    }

    /// Makes the error of something that should be impossible; reaching it is a defect of this library.
    pub fn internal(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::GeneralError, text)
    }

    /// Makes the error of the store or the machine below it: a full disk, a torn file, a lost permission.
    pub fn device(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::DeviceError, text)
    }

    /// Makes the error of a store whose write lock another process has held for all the time that a call may take.
    pub fn busy(text: impl Into<Cow<'static, str>>) -> Self {
        Self { busy: true, ..Self::new(Kind::DeviceError, text) }
    }

    /// Tells whether the store was busy for so long that the same call must not wait for it again.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Makes the error of a KMS; the text says what happened and what to do.
    pub fn kms(fault: KmsFault, text: impl Into<Cow<'static, str>>) -> Self {
        let kind = if fault == KmsFault::Unsupported { Kind::FunctionNotSupported } else { Kind::DeviceError };
        Self { fault: Some(fault), ..Self::new(kind, text) }
    }

    /// Tells what kind of trouble a KMS made, if it was one.
    pub fn kms_fault(&self) -> Option<KmsFault> {
        self.fault
    }

    /// Makes the error of stored data that fails its integrity check.
    pub fn damaged(what: impl fmt::Display) -> Self {
        Self::new(
            Kind::DeviceError,
            format!("{what} is damaged or was altered; run `strongroom doctor` and restore it from a backup"),
        )
    }

    /// Tells what kind of error it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Makes the same error once more, for another caller who waited for the same answer; the causes become part of the text.
    #[must_use]
    pub fn repeated(&self) -> Self {
        Self { kind: self.kind, text: Cow::Owned(self.message()), source: None, fault: self.fault, busy: self.busy }
    }

    /// Tells what happened in words, with each cause.
    pub fn message(&self) -> String {
        let mut text = self.text.to_string();
        let mut cause: Option<&(dyn std::error::Error + 'static)> = match &self.source {
            Some(source) => Some(source.as_ref()),
            None => None,
        };
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }

    /// Maps to the return value of a C function.
    pub fn rv(&self) -> CK_RV {
        self.kind.rv()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl std::error::Error for Error {}

impl From<Kind> for Error {
    /// Makes an error whose text is the kind's own.
    fn from(kind: Kind) -> Self {
        Self::new(kind, kind.text())
    }
}

impl From<TryReserveError> for Error {
    /// Makes the error of a vector that cannot grow.
    fn from(error: TryReserveError) -> Self {
        Self::from(Kind::HostMemory).caused_by(error)
    }
}

impl From<CollectionAllocErr> for Error {
    /// Makes the error of a small vector that cannot grow.
    fn from(_: CollectionAllocErr) -> Self {
        Self::from(Kind::HostMemory)
    }
}

/// Declares [`Kind`] as one table: variant, return value, what a caller is told when nothing better is known.
macro_rules! kinds {
    ($($variant:ident = $rv:ident, $text:literal;)*) => {
        /// The kinds of errors: one for each `CK_RV` that this library answers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind { $(#[doc = $text] $variant,)* }

        impl Kind {
            /// Every kind, in the order of the table.
            pub const ALL: &[Kind] = &[$(Kind::$variant,)*];

            /// Maps to the return value of a C function.
            pub const fn rv(self) -> CK_RV {
                match self { $(Kind::$variant => ck::$rv,)* }
            }

            /// Names the return value as the standard does.
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$variant => stringify!($rv),)* }
            }

            /// Tells in general words what happened.
            pub const fn text(self) -> &'static str {
                match self { $(Kind::$variant => $text,)* }
            }
        }
    };
}

kinds! {
    ActionProhibited = CKR_ACTION_PROHIBITED, "the object does not allow this action";
    ArgumentsBad = CKR_ARGUMENTS_BAD, "an argument of the call is wrong";
    AttributeReadOnly = CKR_ATTRIBUTE_READ_ONLY, "the attribute cannot be changed";
    AttributeSensitive = CKR_ATTRIBUTE_SENSITIVE, "the attribute is sensitive and is never revealed";
    AttributeTypeInvalid = CKR_ATTRIBUTE_TYPE_INVALID, "the object has no such attribute";
    AttributeValueInvalid = CKR_ATTRIBUTE_VALUE_INVALID, "the attribute cannot have this value";
    BufferTooSmall = CKR_BUFFER_TOO_SMALL, "the output buffer is too small; its length now says what is needed";
    CantLock = CKR_CANT_LOCK, "the requested kind of locking is not available";
    CryptokiAlreadyInitialized = CKR_CRYPTOKI_ALREADY_INITIALIZED, "the library is initialised already";
    CryptokiNotInitialized = CKR_CRYPTOKI_NOT_INITIALIZED, "the library is not initialised in this process; call C_Initialize first";
    CurveNotSupported = CKR_CURVE_NOT_SUPPORTED, "the elliptic curve is not supported";
    DataInvalid = CKR_DATA_INVALID, "the input data is invalid";
    DataLenRange = CKR_DATA_LEN_RANGE, "the input data has a wrong length";
    DeviceError = CKR_DEVICE_ERROR, "the store or the machine below it failed";
    DeviceMemory = CKR_DEVICE_MEMORY, "the store has no room left";
    EncryptedDataInvalid = CKR_ENCRYPTED_DATA_INVALID, "the ciphertext is invalid or was altered";
    EncryptedDataLenRange = CKR_ENCRYPTED_DATA_LEN_RANGE, "the ciphertext has a wrong length";
    FunctionCanceled = CKR_FUNCTION_CANCELED, "the call was cancelled because the library was finalised";
    FunctionFailed = CKR_FUNCTION_FAILED, "the call failed";
    FunctionNotParallel = CKR_FUNCTION_NOT_PARALLEL, "no function runs in parallel with the application";
    FunctionNotSupported = CKR_FUNCTION_NOT_SUPPORTED, "the function is not supported";
    FunctionRejected = CKR_FUNCTION_REJECTED, "the call was refused by policy";
    GeneralError = CKR_GENERAL_ERROR, "an unexpected error; the log has more";
    HostMemory = CKR_HOST_MEMORY, "the machine has no memory left";
    KeyFunctionNotPermitted = CKR_KEY_FUNCTION_NOT_PERMITTED, "the key's attributes do not permit this operation";
    KeyHandleInvalid = CKR_KEY_HANDLE_INVALID, "there is no key with this handle";
    KeyIndigestible = CKR_KEY_INDIGESTIBLE, "the key cannot be digested";
    KeyNotWrappable = CKR_KEY_NOT_WRAPPABLE, "the key cannot be wrapped";
    KeySizeRange = CKR_KEY_SIZE_RANGE, "the key has a size that the mechanism does not take";
    KeyTypeInconsistent = CKR_KEY_TYPE_INCONSISTENT, "the key is of a type that the mechanism does not take";
    KeyUnextractable = CKR_KEY_UNEXTRACTABLE, "the key is not extractable";
    MechanismInvalid = CKR_MECHANISM_INVALID, "the mechanism is unknown or cannot do this";
    MechanismParamInvalid = CKR_MECHANISM_PARAM_INVALID, "the mechanism's parameter is wrong";
    NeedToCreateThreads = CKR_NEED_TO_CREATE_THREADS, "the configuration needs threads that the application forbids";
    NoEvent = CKR_NO_EVENT, "no slot event happened";
    ObjectHandleInvalid = CKR_OBJECT_HANDLE_INVALID, "there is no object with this handle";
    OperationActive = CKR_OPERATION_ACTIVE, "another operation is active in this session";
    OperationCancelFailed = CKR_OPERATION_CANCEL_FAILED, "the operation cannot be cancelled";
    OperationNotInitialized = CKR_OPERATION_NOT_INITIALIZED, "no such operation is active in this session";
    PinExpired = CKR_PIN_EXPIRED, "the PIN has expired and must be changed";
    PinIncorrect = CKR_PIN_INCORRECT, "the PIN is wrong";
    PinInvalid = CKR_PIN_INVALID, "the new PIN breaks the password rules";
    PinLenRange = CKR_PIN_LEN_RANGE, "the new PIN has a length that the password rules forbid";
    PinLocked = CKR_PIN_LOCKED, "the PIN is locked after too many wrong tries";
    PublicKeyInvalid = CKR_PUBLIC_KEY_INVALID, "the public key is invalid";
    RandomSeedNotSupported = CKR_RANDOM_SEED_NOT_SUPPORTED, "the random generator takes no seed";
    SavedStateInvalid = CKR_SAVED_STATE_INVALID, "the saved operation state is invalid";
    SessionAsyncNotSupported = CKR_SESSION_ASYNC_NOT_SUPPORTED, "no function runs by itself: open the session without CKF_ASYNC_SESSION";
    SessionCount = CKR_SESSION_COUNT, "the token has as many sessions as it can";
    SessionExists = CKR_SESSION_EXISTS, "a session is open on the token; close it first";
    SessionHandleInvalid = CKR_SESSION_HANDLE_INVALID, "there is no session with this handle";
    SessionParallelNotSupported = CKR_SESSION_PARALLEL_NOT_SUPPORTED, "a session must be opened with CKF_SERIAL_SESSION";
    SessionReadOnly = CKR_SESSION_READ_ONLY, "the session is read-only";
    SessionReadOnlyExists = CKR_SESSION_READ_ONLY_EXISTS, "a read-only session is open, so the SO cannot log in";
    SessionReadWriteSoExists = CKR_SESSION_READ_WRITE_SO_EXISTS, "the SO is logged in, so no read-only session can be opened";
    SignatureInvalid = CKR_SIGNATURE_INVALID, "the signature is wrong";
    SignatureLenRange = CKR_SIGNATURE_LEN_RANGE, "the signature has a wrong length";
    SlotIdInvalid = CKR_SLOT_ID_INVALID, "there is no slot with this id";
    StateUnsaveable = CKR_STATE_UNSAVEABLE, "the state of this operation cannot be saved";
    TemplateIncomplete = CKR_TEMPLATE_INCOMPLETE, "the template lacks an attribute";
    TemplateInconsistent = CKR_TEMPLATE_INCONSISTENT, "the template's attributes contradict each other or the operation";
    TokenNotPresent = CKR_TOKEN_NOT_PRESENT, "there is no token in the slot";
    TokenNotRecognized = CKR_TOKEN_NOT_RECOGNIZED, "the token is not initialised or not one of this library's";
    TokenResourceExceeded = CKR_TOKEN_RESOURCE_EXCEEDED, "the token has reached a limit";
    TokenWriteProtected = CKR_TOKEN_WRITE_PROTECTED, "the store is read-only";
    UnwrappingKeyHandleInvalid = CKR_UNWRAPPING_KEY_HANDLE_INVALID, "there is no unwrapping key with this handle";
    UnwrappingKeySizeRange = CKR_UNWRAPPING_KEY_SIZE_RANGE, "the unwrapping key has a wrong size";
    UnwrappingKeyTypeInconsistent = CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT, "the unwrapping key has a wrong type";
    UserAlreadyLoggedIn = CKR_USER_ALREADY_LOGGED_IN, "this user is logged in already";
    UserAnotherAlreadyLoggedIn = CKR_USER_ANOTHER_ALREADY_LOGGED_IN, "another user is logged in; log out first";
    UserNotLoggedIn = CKR_USER_NOT_LOGGED_IN, "log in first";
    UserPinNotInitialized = CKR_USER_PIN_NOT_INITIALIZED, "the user PIN is not set; the SO sets it with C_InitPIN";
    UserTypeInvalid = CKR_USER_TYPE_INVALID, "there is no such user type";
    WrappedKeyInvalid = CKR_WRAPPED_KEY_INVALID, "the wrapped key is invalid or was altered";
    WrappedKeyLenRange = CKR_WRAPPED_KEY_LEN_RANGE, "the wrapped key has a wrong length";
    WrappingKeyHandleInvalid = CKR_WRAPPING_KEY_HANDLE_INVALID, "there is no wrapping key with this handle";
    WrappingKeySizeRange = CKR_WRAPPING_KEY_SIZE_RANGE, "the wrapping key has a wrong size";
    WrappingKeyTypeInconsistent = CKR_WRAPPING_KEY_TYPE_INCONSISTENT, "the wrapping key has a wrong type";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_kind_has_its_own_rv_and_text() {
        let rvs: HashSet<_> = Kind::ALL.iter().map(|kind| kind.rv()).collect();
        assert_eq!(rvs.len(), Kind::ALL.len());
        assert!(!rvs.contains(&ck::CKR_OK));
        assert!(Kind::ALL.iter().all(|kind| !kind.text().is_empty() && kind.name().starts_with("CKR_")));
    }

    #[test]
    fn message_names_context_and_causes() {
        let error = Error::device("cannot read").context("token wallet").caused_by(std::io::Error::other("no disk"));
        assert_eq!(error.message(), "token wallet: cannot read: no disk");
        assert_eq!(error.rv(), ck::CKR_DEVICE_ERROR);
    }
}
