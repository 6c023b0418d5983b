//! Turns: processes that write at once get the write lock one after another.
//!
//! SQLite's write lock is no queue. Who waits for it looks again every millisecond, and a process whose threads write without a pause
//! lets go of it for less than that: the others could wait in vain until their patience is over. So whoever wants the write lock
//! takes the turn first, which one process has at a time, and gives it back once the write lock is its own. A process that has just
//! written finds the turn with who waits. The rules are:
//! - the turn is a POSIX lock on the log (`-wal`), where SQLite itself takes none: it costs no file, ends with the process that has
//!   it, and a forked child has none;
//! - it says who is next and no more: where it cannot be taken, SQLite's own lock holds all the same;
//! - the log stays the same file for as long as a connection of this process is open.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::place::pause;
use crate::runtime;

/// The turns of one database, as a process takes them.
pub(super) struct Turns(Option<File>);

/// The right to ask for the write lock next.
pub(super) struct Turn<'t>(&'t File);

impl Turns {
    /// Takes turns on the log of a database.
    pub(super) fn on(log: &Path) -> Self {
        Self(OpenOptions::new().read(true).write(true).open(log).ok())
    }

    /// Takes none: nobody else can reach the database.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Waits for the turn until `deadline`: a process that is stopped while it has it must not stop the others.
    pub(super) fn wait(&self, deadline: Instant) -> Option<Turn<'_>> {
        let file = self.0.as_ref()?;
        loop {
            match lock(file, libc::F_WRLCK) {
                Ok(()) => return Some(Turn(file)),
                Err(Errno::EAGAIN | Errno::EACCES | Errno::EINTR) if Instant::now() < deadline => {}
                Err(_) => return None,
            }
            // SQLite is not entered yet.
            runtime::give_way();
            pause();
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Where this fails, the lock ends with the process.
        let _ = lock(self.0, libc::F_UNLCK);
    }
}

/// Locks or unlocks the first byte.
fn lock(file: &File, kind: libc::c_int) -> Result<(), Errno> {
    let narrow = |number| i16::try_from(number).map_err(|_| Errno::EINVAL);
    let (l_type, l_whence) = (narrow(kind)?, narrow(libc::SEEK_SET)?);
    fcntl(file, FcntlArg::F_SETLK(&libc::flock { l_type, l_whence, l_start: 0, l_len: 1, l_pid: 0 })).map(drop)
}
