//! The file: how it is made, opened, and read where nothing can be written.
//!
//! SQLite needs `-wal` and `-shm` beside the file even to read it. Where they are not there and cannot be made (a read-only
//! mount, another user's directory), nobody writes just now, and the file is read as a snapshot: without locks
//! (`immutable=1`), and with a look before and after each read at whether the file or its log has changed. When it has, the
//! read is done again on a new connection.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use super::column::hex;
use super::fault::Fault;
use super::forked::hold_locks;
use super::turns::Turns;
use crate::error::{Error, Kind, Result};
use crate::store::OpenOptions;

/// How long to wait for another process's write lock.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The largest value or row that is written or read: far above any object, far below what would hurt the host.
const LARGEST: i32 = 64 << 20;
/// The most memory that the connection which writes takes for pages, in KiB. Many due keys are rotated in one transaction, and each changes
/// about twenty pages of the index.
const WRITER_CACHE_KIB: i64 = 16 * 1024;

/// How long to wait before each further try while other processes make or remove the files beside the database.
const PAUSES_MS: [u64; 6] = [1, 2, 4, 8, 16, 32];
/// What the length of a database is a multiple of: its smallest page.
const SECTOR: u64 = 512;

/// A database file and how to open it.
pub(super) struct Place {
    path: PathBuf,
    /// Where a symbolic link at `path` leads to, once the file is there: SQLite has its other files beside that.
    resolved: OnceLock<PathBuf>,
    options: OpenOptions,
    /// Device and inode of the file that was opened first.
    identity: OnceLock<(u64, u64)>,
    /// Counts the connections.
    links: AtomicU64,
}

/// A connection to the file.
pub(super) struct Link {
    pub(super) connection: Connection,
    /// Which of the connections it is: each counts changes from its own start.
    pub(super) number: u64,
    writable: bool,
    /// How the file looked, if it is read as a snapshot.
    snapshot: Option<Look>,
}

/// What tells whether a file was changed: device, inode, size, times of change, and whether it has a log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    inode: Option<(u64, u64)>,
    size: u64,
    times: [i64; 4],
    log: bool,
}

impl Link {
    /// Tells whether it may write.
    pub(super) fn writable(&self) -> bool {
        self.writable
    }

    /// Tells whether it sees what the file holds now.
    pub(super) fn is_current(&self, place: &Place) -> bool {
        self.snapshot.as_ref().is_none_or(|look| *look == place.look())
    }
}

impl Place {
    /// Reads what follows `sqlite:`.
    pub(super) fn parse(rest: &str, options: &OpenOptions) -> Result<Self> {
        let wrong = |text: &str| Error::arguments_bad(format!("the URL sqlite:{rest} {text}"));
        let path =
            rest.strip_prefix("//").ok_or_else(|| wrong("lacks the two slashes: write sqlite:///path/of/the/file"))?;
        if !path.starts_with('/') {
            return Err(wrong(
                "has no absolute path (the working directory is the host program's): write sqlite:/// and the path",
            ));
        }
        if path.ends_with('/') || path.contains(['?', '#', '\0']) {
            return Err(wrong(
                "does not end in a file name; a path holds no `?` and `#`, and options stand in the configuration",
            ));
        }
        Ok(Self {
            path: PathBuf::from(path),
            resolved: OnceLock::new(),
            options: *options,
            identity: OnceLock::new(),
            links: AtomicU64::new(0),
        })
    }

    /// Names it as its URL.
    pub(super) fn location(&self) -> String {
        format!("sqlite://{}", self.path.display())
    }

    /// Makes the file and its directories where they are missing.
    pub(super) fn create(&self) -> Result<()> {
        if fs::symlink_metadata(&self.path).is_ok() {
            return self.require_whole();
        }
        if self.options.read_only {
            return Err(Error::device(format!(
                "{} is not there, and read-only it is not made; check `store.url`",
                self.location()
            )));
        }
        self.make_directory()
            .and_then(|()| make_file(&self.path, self.options.mode))
            .map_err(|error| self.not_made(error))
    }

    /// Requires a length that a database can have. SQLite would read zeros behind the end, and overwrite a file of one byte.
    fn require_whole(&self) -> Result<()> {
        // With a log, the end of the file may be there and not here.
        let log = || self.beside("-wal").exists();
        match fs::metadata(&self.path) {
            Ok(file) if file.is_file() && file.len() % SECTOR != 0 && !log() => Err(Error::device(format!(
                "{} is not a store of Strongroom, or was cut short: its length is {} bytes; \
                 name another file in `store.url`, or restore this one from a backup",
                self.location(),
                file.len()
            ))),
            _ => Ok(()),
        }
    }

    fn not_made(&self, error: std::io::Error) -> Error {
        let kind = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Kind::DeviceMemory,
            _ => Kind::DeviceError,
        };
        let text = format!(
            "{} cannot be made; check its directory's owner and permissions, and the room on its disk",
            self.location()
        );
        Error::new(kind, text).caused_by(error)
    }

    /// Makes the directory, the owner's alone, and each above it that is missing.
    fn make_directory(&self) -> std::io::Result<()> {
        let directory = self.directory();
        let missing: Vec<&Path> = directory.ancestors().take_while(|directory| !directory.exists()).collect();
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        // A file is only as durable as the entries that lead to it.
        missing.iter().filter_map(|directory| directory.parent()).try_for_each(sync_directory)
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Opens the file for everything that its permissions and the options allow.
    pub(super) fn connect(&self) -> Result<Link, Fault> {
        self.patiently(|| self.try_connect())
    }

    /// Runs work on the connection in `slot`, on a new one where there is none, or where the old one does not see what the
    /// file holds now.
    pub(super) fn read_on<T>(
        &self,
        slot: &mut Option<Link>,
        work: impl Fn(&Link) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.patiently(|| {
            let link = match slot.take().filter(|link| link.is_current(self)) {
                Some(link) => link,
                None => self.try_connect_reader()?,
            };
            let answer = work(&link);
            if !link.is_current(self) {
                return Err(Fault::Changed);
            }
            if !answer.as_ref().is_err_and(Fault::may_pass) {
                *slot = Some(link);
            }
            answer
        })
    }

    /// Does again what failed because the files were just then made or removed by a process that began or ended its work.
    fn patiently<T>(&self, mut attempt: impl FnMut() -> Result<T, Fault>) -> Result<T, Fault> {
        for pause in PAUSES_MS {
            match attempt() {
                Err(fault) if fault.may_pass() => std::thread::sleep(Duration::from_millis(pause)),
                other => return other,
            }
        }
        attempt().map_err(|fault| if fault.may_pass() && !self.is_quiet() { self.useless_log(fault) } else { fault })
    }

    fn try_connect(&self) -> Result<Link, Fault> {
        let flags =
            if self.options.read_only { OpenFlags::SQLITE_OPEN_READ_ONLY } else { OpenFlags::SQLITE_OPEN_READ_WRITE };
        let connection = open(&self.path, flags)?;
        self.remember_identity()?;
        let locked_out = connection.is_readonly("main")?;
        if locked_out && !self.options.read_only && self.is_quiet() {
            // Not even by way of SQLite: it would make log files of ours, which the file's owner could not write.
            return self.snapshot();
        }
        match set_up(connection) {
            Ok(connection) => {
                hold_locks(&self.path, &self.beside("-shm"))?;
                Ok(self.link(connection, !locked_out, None))
            }
            Err(fault) if fault.is_shut_out() && self.is_quiet() && !self.can_make_files() => self.snapshot(),
            Err(fault) => Err(fault),
        }
    }

    /// Opens the file to read.
    fn try_connect_reader(&self) -> Result<Link, Fault> {
        let link = self.try_connect()?;
        link.connection.execute_batch("PRAGMA query_only = ON")?;
        Ok(Link { writable: false, ..link })
    }

    /// Opens the file as a snapshot.
    pub(super) fn snapshot(&self) -> Result<Link, Fault> {
        let look = self.look();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let connection = set_up(open(Path::new(&format!("file:{}?immutable=1", escape(&self.path))), flags)?)?;
        Ok(self.link(connection, false, Some(look)))
    }

    fn link(&self, connection: Connection, writable: bool, snapshot: Option<Look>) -> Link {
        Link { connection, number: self.links.fetch_add(1, Ordering::Relaxed), writable, snapshot }
    }

    /// Tells whether no process writes, as far as the files beside it show: no log, or an empty one that nobody has open.
    fn is_quiet(&self) -> bool {
        match fs::metadata(self.beside("-wal")) {
            Ok(log) => log.len() == 0 && !self.beside("-shm").exists(),
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    /// Explains why a file with a log cannot be read.
    fn useless_log(&self, fault: Fault) -> Fault {
        let text = format!(
            "{} has a write-ahead log (-wal) that cannot be used here; open it once where its directory can be written, \
             or give this user read access to the files -wal and -shm beside it",
            self.location()
        );
        Fault::Told(Error::device(text).caused_by(fault.explain(&self.location())))
    }

    /// Tries whether a file can be made in the directory. `true` when that cannot be told.
    fn can_make_files(&self) -> bool {
        let Ok(path) = scratch(self.resolved()) else { return true };
        match make_new(&path, 0o600) {
            Ok(()) => {
                // One that cannot be removed is empty and does no harm.
                let _ = fs::remove_file(&path);
                true
            }
            Err(error) => !matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem),
        }
    }

    /// Looks at the file.
    fn look(&self) -> Look {
        let log = self.beside("-wal").exists();
        match fs::metadata(&self.path) {
            Ok(file) => Look {
                inode: Some((file.dev(), file.ino())),
                size: file.len(),
                times: [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()],
                log,
            },
            Err(_) => Look { inode: None, size: 0, times: [0; 4], log },
        }
    }

    /// Gives the turns of the processes that write.
    pub(super) fn turns(&self) -> Turns {
        Turns::on(&self.beside("-wal"))
    }

    /// Names a file beside the database.
    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.resolved().as_os_str().to_owned();
        path.push(suffix);
        PathBuf::from(path)
    }

    /// Names the file itself, past symbolic links.
    fn resolved(&self) -> &Path {
        if let Some(path) = self.resolved.get() {
            return path;
        }
        match fs::canonicalize(&self.path) {
            Ok(path) => self.resolved.get_or_init(|| path),
            Err(_) => &self.path,
        }
    }

    fn remember_identity(&self) -> Result<(), Fault> {
        match fs::metadata(&self.path) {
            Ok(file) => {
                self.identity.get_or_init(|| (file.dev(), file.ino()));
                Ok(())
            }
            Err(_) => Err(self.moved()),
        }
    }

    /// Requires that the path still leads to the file that was opened: a change to one that was moved away would be lost.
    pub(super) fn require_unmoved(&self) -> Result<(), Fault> {
        let now = fs::metadata(&self.path).ok().map(|file| (file.dev(), file.ino()));
        if now.as_ref() == self.identity.get() { Ok(()) } else { Err(self.moved()) }
    }

    fn moved(&self) -> Fault {
        Fault::told(format!(
            "{} was removed or replaced by another file while it was in use; restart the programs that use it",
            self.location()
        ))
    }

    /// Copies the store to a file beside it before a migration from `version`, under the migration's write lock.
    pub(super) fn back_up(&self, version: usize) -> Result<(), Fault> {
        let copy = self.beside(&format!(".v{version}.backup"));
        let made = match fs::remove_file(&copy) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => make_file(&copy, self.options.mode),
        };
        made.map_err(|error| self.not_made(error).context("the backup before the migration"))?;
        let reader = self.connect()?;
        reader.connection.execute("VACUUM INTO ?1", [copy.to_string_lossy()])?;
        Ok(())
    }

    /// Says so when others than owner and group can use the file.
    pub(super) fn exposure(&self) -> Option<String> {
        let mode = fs::metadata(&self.path).ok()?.mode() & 0o7777;
        let text = || {
            format!(
                "{} can be read or written by every user (mode {mode:04o}); take that away with chmod o=",
                self.location()
            )
        };
        (mode & 0o007 != 0).then(text)
    }
}

/// Makes an empty file under a name that is free; when another process was faster, its file stays.
///
/// The file is made and closed under another name first: to close a file descriptor of a database that a thread of this
/// process has opened already would drop that thread's locks.
fn make_file(path: &Path, mode: u32) -> std::io::Result<()> {
    let scratch = scratch(path)?;
    make_new(&scratch, mode)?;
    let made = fs::hard_link(&scratch, path);
    fs::remove_file(&scratch)?;
    let made = match made {
        // Some file systems have no links.
        Err(error) if error.kind() != ErrorKind::AlreadyExists => make_new(path, mode),
        made => made,
    };
    match made {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => path.parent().map_or(Ok(()), sync_directory),
    }
}

/// Makes an empty file that is not there yet.
fn make_new(path: &Path, mode: u32) -> std::io::Result<()> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Names a file in the same directory that nobody else uses.
fn scratch(path: &Path) -> std::io::Result<PathBuf> {
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    Ok(path.with_file_name(format!(".strongroom-{}", hex(&random))))
}

fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Opens a database in memory.
pub(super) fn memory() -> Result<Connection, Fault> {
    set_up(Connection::open_in_memory()?)
}

/// Opens a file, without reading it yet.
fn open(path: &Path, flags: OpenFlags) -> Result<Connection, Fault> {
    Ok(Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?)
}

/// Makes a connection durable, patient and distrustful of what the file holds, and reads the first page and the log.
fn set_up(mut connection: Connection) -> Result<Connection, Fault> {
    let mut since = Instant::now();
    connection.busy_handler(Some(move |tries| {
        if tries == 0 {
            since = Instant::now();
        }
        pause();
        since.elapsed() < PATIENCE
    }))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    // Plans do not depend on what is bound; without this SQLite compiles some statements anew for each value.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, LARGEST)?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON; PRAGMA foreign_keys = ON; \
         PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY; PRAGMA secure_delete = ON; \
         PRAGMA journal_size_limit = 16777216; PRAGMA cache_size = -4096",
    )?;
    connection.query_row("PRAGMA schema_version", [], |_| Ok(()))?;
    Ok(connection)
}

/// Waits a moment for another connection.
pub(super) fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

/// Writes a path as that of a `file:` URI.
fn escape(path: &Path) -> String {
    path.to_string_lossy().chars().map(|c| if c == '%' { "%25".to_owned() } else { c.to_string() }).collect()
}

/// Gives the connection that writes more memory for pages, which it takes when a transaction changes so many: what does not fit is
/// written, and read again, before the commit.
pub(super) fn widen(connection: &Connection) -> Result<(), Fault> {
    Ok(connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?)
}
