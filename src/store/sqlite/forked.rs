//! SQLite's locks in a forked child.
//!
//! A child inherits SQLite's memory, in which the parent's connections hold the locks that say "somebody uses this file". So
//! SQLite in the child believes that it has them and asks the kernel for nothing, but the kernel gives no lock of the parent
//! to a child. Another process that then closes the file as the last one, as it believes, would remove the log under the child
//! and with it what the child commits. So the child takes those two locks itself, on descriptors of its own, and keeps them
//! for as long as it lives.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use parking_lot::Mutex;

use super::fault::Fault;
use crate::error::Error;
use crate::secret::{is_forked, process_generation};

/// The bytes of the database that are locked while a connection is open (SQLite, os.h: SHARED_FIRST, SHARED_SIZE).
const DATABASE: (libc::off_t, libc::off_t) = (0x4000_0002, 510);
/// The byte of the shared-memory file that is locked while somebody has it mapped (SQLite, os_unix.c: UNIX_SHM_DMS).
const SHARED_MEMORY: (libc::off_t, libc::off_t) = (128, 1);

/// The files that this process holds locks of: the process generation, device and inode.
static HELD: Mutex<Vec<(u64, u64, u64)>> = Mutex::new(Vec::new());

/// Takes the locks of an open database, in a forked child and once for each file.
pub(super) fn hold_locks(database: &Path, shared_memory: &Path) -> Result<(), Fault> {
    if !is_forked() {
        return Ok(());
    }
    let found = std::fs::metadata(database).map_err(|error| fault(database, error))?;
    let name = (process_generation(), found.dev(), found.ino());
    let mut held = HELD.lock();
    if !held.contains(&name) {
        hold(database, DATABASE)?;
        if shared_memory.exists() {
            hold(shared_memory, SHARED_MEMORY)?;
        }
        held.push(name);
    }
    Ok(())
}

/// Takes a shared lock on some bytes of a file.
fn hold(path: &Path, (start, len): (libc::off_t, libc::off_t)) -> Result<(), Fault> {
    let file = File::open(path).map_err(|error| fault(path, error))?;
    let lock = libc::flock {
        l_type: i16::try_from(libc::F_RDLCK).expect("a small number"),
        l_whence: i16::try_from(libc::SEEK_SET).expect("a small number"),
        l_start: start,
        l_len: len,
        l_pid: 0,
    };
    let taken = fcntl(&file, FcntlArg::F_SETLK(&lock));
    // Closing it would drop every lock of this process on the file, SQLite's included.
    std::mem::forget(file);
    taken.map(|_| ()).map_err(|error| fault(path, error.into()))
}

fn fault(path: &Path, error: std::io::Error) -> Fault {
    Fault::Told(Error::device(format!("{} cannot be locked in a forked process", path.display())).caused_by(error))
}
