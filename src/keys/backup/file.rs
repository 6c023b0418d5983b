//! Files that appear under their name whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::error::{Error, Kind, Result};

/// A file that is being written under a name of its own, for its owner alone. It is removed when dropped before it is published.
pub struct NewFile {
    path: PathBuf,
    scratch: PathBuf,
    file: File,
    overwrite: bool,
}

impl NewFile {
    /// Makes the file beside the path that it shall have.
    ///
    /// # Errors
    /// `ActionProhibited` when something is there that must not be overwritten; `FunctionFailed` when the folder cannot be written.
    pub fn create(path: &Path, overwrite: bool) -> Result<Self> {
        let name =
            path.file_name().ok_or_else(|| Error::arguments_bad(format!("{} is no file name", path.display())))?;
        match fs::symlink_metadata(path) {
            Ok(_) if !overwrite => return Err(taken(path)),
            Ok(there) if !there.is_file() => {
                let text = format!("{} is no ordinary file and is not overwritten", path.display());
                return Err(Error::new(Kind::ActionProhibited, text));
            }
            _ => {}
        }
        let scratch = path.with_file_name(scratch_name(name.to_owned())?);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&scratch);
        let file = file.map_err(|error| failed("make", path, error))?;
        Ok(Self { path: path.to_owned(), scratch, file, overwrite })
    }

    /// Makes what was written durable and gives the file its name.
    ///
    /// # Errors
    /// `ActionProhibited` when something came there meanwhile; `DeviceMemory` for a full disk; `FunctionFailed`.
    pub fn publish(self) -> Result<()> {
        self.file.sync_all().map_err(|error| failed("write", &self.path, error))?;
        let named = if self.overwrite { fs::rename(&self.scratch, &self.path) } else { self.name_if_free() };
        named.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => taken(&self.path),
            _ => failed("name", &self.path, error),
        })?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| failed("make durable", &self.path, error))
    }

    fn name_if_free(&self) -> io::Result<()> {
        match renameat2(AT_FDCWD, &self.scratch, AT_FDCWD, &self.path, RenameFlags::RENAME_NOREPLACE) {
            // Some file systems cannot do it at once; a link never takes the place of a file either.
            Err(Errno::EINVAL | Errno::ENOSYS) => fs::hard_link(&self.scratch, &self.path),
            other => Ok(other?),
        }
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Once it has its name, there is nothing under this one.
        let _ = fs::remove_file(&self.scratch);
    }
}

/// Names a file in the same folder that nobody else uses.
fn scratch_name(mut name: OsString) -> Result<OsString> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)
        .map_err(|error| Error::device("the operating system gives no random bytes").caused_by(error))?;
    name.push(format!(".{}.tmp", HEXLOWER.encode(&random)));
    Ok(name)
}

fn taken(path: &Path) -> Error {
    let text = format!("{} is there already; name another file, or say that it is to be overwritten", path.display());
    Error::new(Kind::ActionProhibited, text)
}

/// Makes the error of a file operation.
pub fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Kind::DeviceMemory,
        _ => Kind::FunctionFailed,
    };
    Error::new(kind, format!("cannot {what} the file {}", path.display())).caused_by(error)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        let mut file = NewFile::create(&path, false).unwrap();
        file.write_all(b"half").unwrap();
        assert!(!path.exists(), "nothing has the name yet");
        drop(file);
        assert!(names(folder.path()).is_empty(), "what was given up is gone");
        let mut file = NewFile::create(&path, false).unwrap();
        file.write_all(b"whole").unwrap();
        file.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(folder.path()), ["backup"]);
    }

    #[test]
    fn nothing_is_overwritten_unless_it_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        let late = NewFile::create(&path, false).unwrap();
        fs::write(&path, "old").unwrap();
        let refused = |answer: Result<()>| {
            let error = answer.unwrap_err();
            assert_eq!(error.kind(), Kind::ActionProhibited, "{error}");
            assert_eq!(fs::read(&path).unwrap(), b"old");
        };
        refused(NewFile::create(&path, false).map(drop));
        refused(late.publish());
        let mut file = NewFile::create(&path, true).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old", "until it is published");
        file.publish().unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(folder.path())), (b"new".to_vec(), vec!["backup".to_owned()]));
        for other in [folder.path(), Path::new("/dev/null")] {
            assert!(NewFile::create(other, true).is_err(), "{}", other.display());
        }
        assert!(NewFile::create(Path::new("/nowhere/backup"), false).is_err_and(|e| e.message().contains("/nowhere")));
    }
}
