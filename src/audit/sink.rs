//! Where copies of records go besides the store, each within a bounded time.
//!
//! The rules are:
//! - a sink keeps nothing open between records: a file that was moved, deleted or rotated is simply made anew, and a forked child
//!   inherits nothing;
//! - nothing is opened or written in a way that waits; what cannot take a line at once is tried until [`PATIENCE`] is over;
//! - a line is one write, so that lines of several processes never mix.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a sink may take for one record.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);
/// How long to wait before another try.
const PAUSE: Duration = Duration::from_millis(10);
/// Where the system's log listens.
const SYSLOG: &str = "/dev/log";
/// Facility authpriv (10), severity informational (6) (RFC 3164, 4.1.1).
const PRIORITY: u8 = 10 * 8 + 6;

/// Where copies go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// A file that lines are added to.
    File(PathBuf),
    /// The socket of the system's log.
    Syslog(PathBuf),
}

impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sink::File(path) => write!(f, "file:{}", path.display()),
            Sink::Syslog(_) => f.write_str("syslog"),
        }
    }
}

impl Sink {
    /// Makes the sink of the system's log.
    pub fn syslog() -> Self {
        Self::Syslog(SYSLOG.into())
    }

    /// Writes a line, given without its end.
    ///
    /// # Errors
    /// What the system answers, also that it has not taken the line in time.
    pub fn write(&self, line: &str) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        match self {
            Sink::File(path) => append(path, format!("{line}\n").as_bytes(), end),
            Sink::Syslog(path) => send(path, line, end),
        }
    }
}

/// Adds to a file; a new one is readable by its owner only. A pipe that nobody reads is an error at once.
fn append(path: &Path, line: &[u8], end: Instant) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let mut file = options.open(path)?;
    within(end, || match file.write(line)? {
        written if written == line.len() => Ok(()),
        _ => Err(io::Error::new(ErrorKind::WriteZero, "only a part of the line was taken")),
    })
}

/// Sends a datagram to the system's log.
fn send(path: &Path, line: &str, end: Instant) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    let text = format!("<{PRIORITY}>strongroom[{}]: {line}", std::process::id());
    within(end, || socket.send(text.as_bytes()).map(drop))
}

/// Tries until it goes well, fails, or the time is over.
fn within(end: Instant, mut work: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match work() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < end => std::thread::sleep(PAUSE),
            answer => return answer,
        }
    }
}
