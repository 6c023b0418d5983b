//! The log: one line for each event, on stderr or in a file, and nothing in the host's own logging.
//!
//! The rules are:
//! - a library must not install a logger in its host's process, so the log is a level and a file of this library's own;
//! - an event that the level leaves out costs one relaxed load; errors and warnings are on by default;
//! - a line is written with one `write(2)` to a descriptor opened for appending, without any lock that a forked child
//!   could inherit, so that threads and processes can share a file;
//! - no event holds a secret: texts come from [`crate::error::Error`], which never does.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;
use std::{fmt, io};

use arc_swap::ArcSwapOption;

use crate::error::{Error, Kind, Result};

/// How much an event matters; a level takes itself and all above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Something failed that should not.
    Error,
    /// Something is not as it should be, and work goes on.
    Warn,
    /// Something a person who runs the library may want to know: a token made, a key generated.
    Info,
    /// What the library decides and why.
    Debug,
    /// Every call.
    Trace,
}

impl Level {
    /// Every level, from the most important one.
    pub const ALL: [Level; 5] = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
    /// What is logged unless the configuration or `STRONGROOM_LOG` says otherwise.
    pub const DEFAULT: Level = Level::Warn;

    /// Names the level as the configuration does.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }

    /// Finds a level by its name.
    pub fn by_name(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name() == name)
    }

    /// Numbers the level, from 0 for the most important one.
    const fn rank(self) -> u8 {
        match self {
            Level::Error => 0,
            Level::Warn => 1,
            Level::Info => 2,
            Level::Debug => 3,
            Level::Trace => 4,
        }
    }
}

/// The rank of the least important level that is written.
static RANK: AtomicU8 = AtomicU8::new(Level::DEFAULT.rank());
/// Where lines go; nothing means stderr.
static FILE: ArcSwapOption<File> = ArcSwapOption::const_empty();

/// Sets the level and the file; without a file, lines go to stderr.
///
/// # Errors
/// `FunctionFailed` when the file cannot be opened; the level is set all the same and lines go to stderr.
pub fn configure(level: Level, file: Option<&Path>) -> Result<()> {
    RANK.store(level.rank(), Ordering::Relaxed);
    let opened = file.map(open).transpose();
    FILE.store(opened.as_ref().ok().and_then(|file| file.clone()));
    opened.map(drop)
}

/// Opens a log file for appending; a new one is readable by its owner only.
fn open(path: &Path) -> Result<Arc<File>> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    file.map(Arc::new).map_err(|cause| {
        let text = format!("the log file {} cannot be opened; correct [log] file", path.display());
        Error::new(Kind::FunctionFailed, text).caused_by(cause)
    })
}

/// Tells whether an event of this level is written.
#[inline]
pub fn enabled(level: Level) -> bool {
    level.rank() <= RANK.load(Ordering::Relaxed)
}

/// Writes one event; `target` is the module that it comes from. What cannot be written is lost: logging never fails a call.
#[cold]
pub fn write(level: Level, target: &str, event: fmt::Arguments<'_>) {
    let line = line(SystemTime::now(), level, target, event);
    let _ = match FILE.load().as_deref() {
        Some(file) => { file }.write_all(line.as_bytes()),
        None => write_to_stderr(line.as_bytes()),
    };
}

/// Writes to a copy of the descriptor, past the lock of `std::io::Stderr`, which a forked child may find taken.
fn write_to_stderr(line: &[u8]) -> io::Result<()> {
    File::from(io::stderr().as_fd().try_clone_to_owned()?).write_all(line)
}

/// Makes the line: time in UTC, level, module, process id, text. Control characters of the text are escaped.
fn line(time: SystemTime, level: Level, target: &str, event: fmt::Arguments<'_>) -> String {
    let time = humantime::format_rfc3339_millis(time);
    let text = event.to_string();
    let mut line = format!("{time} {:5} {target}[{}]: ", level.name().to_uppercase(), std::process::id());
    for character in text.chars() {
        if character.is_control() { line.extend(character.escape_default()) } else { line.push(character) }
    }
    line.push('\n');
    line
}

/// Logs an event at a level if the level is on: `event!(Level::Info, "text {value}")`.
macro_rules! event {
    ($level:expr, $($text:tt)+) => {
        if $crate::log::enabled($level) {
            $crate::log::write($level, module_path!(), format_args!($($text)+));
        }
    };
}

/// Logs that something failed that should not.
#[allow(unused_macros)]
macro_rules! log_error { ($($text:tt)+) => { $crate::log::event!($crate::log::Level::Error, $($text)+) }; }
/// Logs that something is not as it should be.
#[allow(unused_macros)]
macro_rules! log_warn { ($($text:tt)+) => { $crate::log::event!($crate::log::Level::Warn, $($text)+) }; }
/// Logs what a person who runs the library may want to know.
#[allow(unused_macros)]
macro_rules! log_info { ($($text:tt)+) => { $crate::log::event!($crate::log::Level::Info, $($text)+) }; }
/// Logs what the library decides and why.
#[allow(unused_macros)]
macro_rules! log_debug { ($($text:tt)+) => { $crate::log::event!($crate::log::Level::Debug, $($text)+) }; }

#[allow(unused_imports)] // the levels are one set; not each has a caller at all times
pub(crate) use {event, log_debug as debug, log_error as error, log_info as info, log_warn as warn};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn r73_an_event_is_one_line_with_time_level_module_and_process() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let line = line(time, Level::Warn, "strongroom::store", format_args!("two\nlines\u{1b}[31m"));
        let expected = format!(
            "2023-11-14T22:13:20.123Z WARN  strongroom::store[{}]: two\\nlines\\u{{1b}}[31m\n",
            std::process::id()
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn the_default_takes_errors_and_warnings_only() {
        let taken: Vec<_> = Level::ALL.into_iter().filter(|level| level.rank() <= Level::DEFAULT.rank()).collect();
        assert_eq!(taken, [Level::Error, Level::Warn]);
        assert!(Level::ALL.into_iter().all(|level| Level::by_name(level.name()) == Some(level)));
    }

    #[test]
    fn r72_the_file_is_appended_to_and_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a scratch directory");
        let path = folder.path().join("log");
        for text in ["first", "second"] {
            let file = open(&path).expect("opens");
            { &*file }.write_all(format!("{text}\n").as_bytes()).expect("writes");
        }
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "first\nsecond\n");
        assert_eq!(std::fs::metadata(&path).expect("exists").permissions().mode() & 0o777, 0o600);
        let error = open(&folder.path().join("none/log")).expect_err("there is no such folder").message();
        assert!(error.contains("none/log") && error.contains("[log] file"), "{error}");
    }
}
