//! What can go wrong in SQLite, and what it means to the person who must act on it.

use rusqlite::ErrorCode;
use rusqlite::ffi;

use crate::error::{Error, Kind};

/// A failure on the way: SQLite's, which still lacks words, or an error that says it all.
#[derive(Debug)]
pub(super) enum Fault {
    /// SQLite failed.
    Sql(rusqlite::Error),
    /// A column holds what was never written there.
    Damaged,
    /// The index does not say what the objects say, or its rows do not follow each other as they were written.
    Index,
    /// A file without locks was changed while it was read.
    Changed,
    /// The error is complete.
    Told(Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as Sql;
        match error {
            Sql::FromSqlConversionFailure(..)
            | Sql::IntegralValueOutOfRange(..)
            | Sql::Utf8Error(..)
            | Sql::InvalidColumnType(..) => Self::Damaged,
            other => Self::Sql(other),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

impl Fault {
    /// Makes a complete `DeviceError`.
    pub(super) fn told(text: String) -> Self {
        Self::Told(Error::device(text))
    }

    /// Names what is damaged, if that is what happened.
    pub(super) fn of(self, what: impl FnOnce() -> String) -> Self {
        match self {
            Self::Damaged => Self::Told(Error::damaged(what())),
            other => other,
        }
    }

    /// Tells whether a transaction in which it happened may be half done.
    pub(super) fn breaks(&self) -> bool {
        matches!(self, Self::Sql(_) | Self::Index)
    }

    /// Tells whether a value that must be unique is there already.
    pub(super) fn is_duplicate(&self) -> bool {
        self.code() == Some(ErrorCode::ConstraintViolation)
    }

    /// Tells whether another connection stands in the way just now.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
    }

    /// Tells whether SQLite could not open or make a file beside the database.
    pub(super) fn is_shut_out(&self) -> bool {
        matches!(self.code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::SystemIoFailure))
    }

    /// Tells whether it may go well in a moment.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Changed) || self.is_shut_out()
    }

    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sql(error) => error.sqlite_error_code(),
            _ => None,
        }
    }

    /// Puts it into words for the caller.
    pub(super) fn explain(self, location: &str) -> Error {
        match self {
            Self::Told(error) => error,
            Self::Damaged => Error::damaged(format_args!("a row of {location}")),
            Self::Index => Error::device(format!(
                "the index of {location} is damaged, so that a look-up could miss an object; make a copy of the file, then run \
                 `strongroom doctor --repair`, which makes the index anew from the objects, or restore a backup"
            )),
            Self::Changed => Error::device(format!("{location} is changed all the time by another process; try again")),
            Self::Sql(error) => explain(error, location),
        }
    }
}

/// Puts an error of SQLite into words.
fn explain(error: rusqlite::Error, location: &str) -> Error {
    if matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed)
    ) {
        return busy(location).caused_by(error);
    }
    let extended = error.sqlite_error().map_or(0, |error| error.extended_code);
    let (kind, text) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => full(location),
        Some(ErrorCode::SystemIoFailure) if extended == ffi::SQLITE_IOERR_SHMSIZE => full(location),
        Some(ErrorCode::SystemIoFailure) => (
            Kind::DeviceError,
            format!(
                "the disk below {location} failed, or a quota ended; look at the system's log, then run `strongroom doctor`"
            ),
        ),
        Some(ErrorCode::NotADatabase) => (
            Kind::DeviceError,
            format!(
                "{location} is not a store of Strongroom but some other file, or its start is damaged; \
                 name another file in `store.url`, or restore this one from a backup"
            ),
        ),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::TypeMismatch) => (
            Kind::DeviceError,
            format!("{location} is damaged or cut short; run `strongroom doctor` and restore it from a backup"),
        ),
        Some(ErrorCode::ReadOnly) => (
            Kind::TokenWriteProtected,
            format!("{location} cannot be written; check the owner and permissions of its file and directory"),
        ),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => (
            Kind::DeviceError,
            format!(
                "{location} cannot be opened; check that its file and directory exist, who owns them, their permissions, \
                 and the limit of open files"
            ),
        ),
        Some(ErrorCode::OutOfMemory) => (Kind::HostMemory, format!("no memory left while using {location}")),
        Some(ErrorCode::TooBig) => (Kind::DeviceMemory, format!("one value is larger than {location} takes")),
        Some(ErrorCode::Unknown) => (
            Kind::DeviceError,
            format!(
                "the tables of {location} are not as this version made them; run `strongroom doctor` and restore it from a backup"
            ),
        ),
        _ => (Kind::DeviceError, format!("{location} failed; run `strongroom doctor`")),
    };
    Error::new(kind, text).caused_by(error)
}

/// Says that another process does not let go of the write lock.
fn busy(location: &str) -> Error {
    Error::busy(format!(
        "another process has held the write lock of {location} for more than {} seconds; \
         find it (`fuser` names who has the file open) and let it finish or end it",
        super::place::PATIENCE.as_secs()
    ))
}

/// Says that the disk is full.
fn full(location: &str) -> (Kind, String) {
    (
        Kind::DeviceMemory,
        format!("no room is left on the disk of {location}, and nothing was changed; free some room and try again"),
    )
}
