//! Secrets that come from the environment, a file or a systemd credential: read into locked memory, byte by byte.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::SecureBytes;
use crate::error::{Error, Kind, Result};

/// The longest secret that is read, in bytes: more than any PIN has.
const MAX_LEN: usize = 1024;
/// The permission bits of everybody but owner and group.
const OTHERS: u32 = 0o007;
/// The variable in which systemd names the directory of a service's credentials (systemd.exec, LoadCredential=).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Reads a variable of the environment; `what` names the secret in errors.
///
/// # Errors
/// `FunctionFailed` when it is empty or not set.
pub fn from_environment(variable: &str, what: &str) -> Result<SecureBytes> {
    let value = std::env::var_os(variable).map(OsString::into_vec).map(SecureBytes::take);
    value.filter(|secret| !secret.is_empty()).ok_or_else(|| {
        failed(format!("the environment variable {variable}, which should hold the {what}, is empty or not set"))
    })
}

/// Reads the first line of a file; `what` names the secret in errors.
///
/// # Errors
/// `FunctionFailed` when the file cannot be read, or is empty.
pub fn from_file(path: &Path, what: &str) -> Result<SecureBytes> {
    let place = || format!("the file {}, which should hold the {what}", path.display());
    let read = File::open(path).and_then(|mut file| line(&mut file));
    let secret = read.map_err(|error| failed(format!("{}, cannot be read: {error}", place())))?;
    secret.ok_or_else(|| failed(format!("{}, is empty", place())))
}

/// Reads the first line of a file that a program finds by itself: nobody but owner and group may use it.
///
/// # Errors
/// As [`from_file`], and for a file that everybody may read or change.
pub fn from_private_file(path: &Path, what: &str) -> Result<SecureBytes> {
    // One that is not there is told when it is read.
    if std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & OTHERS != 0) {
        let path = path.display();
        return Err(failed(format!(
            "everybody may use the file {path}, which holds the {what}; run `chmod o= {path}`"
        )));
    }
    from_file(path, what)
}

/// Reads the first line of a systemd credential; `what` names the secret in errors.
///
/// # Errors
/// As [`from_file`], and when the process has no credentials.
pub fn from_credential(name: &str, what: &str) -> Result<SecureBytes> {
    from_file(&credential(name)?, what)
}

/// Finds the file of a systemd credential of this process.
///
/// # Errors
/// `FunctionFailed` when the process has no credentials, or the name is none.
pub fn credential(name: &str) -> Result<PathBuf> {
    if name.is_empty() || name.contains('/') {
        return Err(failed("the name of a systemd credential is a file name without /".to_owned()));
    }
    let directory = std::env::var_os(CREDENTIALS).filter(|directory| !directory.is_empty()).ok_or_else(|| {
        failed(format!(
            "the systemd credential {name} cannot be found, since {CREDENTIALS} is not set; run as a service with \
             LoadCredentialEncrypted={name}"
        ))
    })?;
    Ok(Path::new(&directory).join(name))
}

/// Reads up to the end of the line, byte by byte into locked memory, so that the next line is left for the next secret.
/// `None` when there is nothing.
///
/// # Errors
/// What reading answers; `InvalidData` for a line of more than 1024 bytes.
pub fn line(input: &mut impl Read) -> io::Result<Option<SecureBytes>> {
    let mut line = SecureBytes::zeroed(MAX_LEN);
    let mut len = 0;
    loop {
        let Some(byte) = line.expose_mut().get_mut(len..=len) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a PIN has at most {MAX_LEN} bytes")));
        };
        if input.read(byte)? == 0 || byte == b"\n" {
            break;
        }
        len += 1;
    }
    let without_return = line.expose().get(..len).and_then(|secret| secret.strip_suffix(b"\r"));
    let len = without_return.map_or(len, <[u8]>::len);
    Ok(Some(line.truncated(len)).filter(|secret| !secret.is_empty()))
}

fn failed(text: String) -> Error {
    Error::new(Kind::FunctionFailed, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_one_secret_and_the_next_is_left() {
        let mut input: &[u8] = b"first pin \r\nsecond\n\nlast";
        assert_eq!(line(&mut input).unwrap().unwrap().expose(), b"first pin ");
        assert_eq!(line(&mut input).unwrap().unwrap().expose(), b"second");
        assert!(line(&mut input).unwrap().is_none());
        assert_eq!(line(&mut input).unwrap().unwrap().expose(), b"last");
        assert!(line(&mut input).unwrap().is_none());
    }

    #[test]
    fn a_secret_that_is_too_long_is_refused() {
        assert!(line(&mut vec![b'a'; MAX_LEN + 1].as_slice()).is_err());
        assert_eq!(line(&mut vec![b'a'; MAX_LEN - 1].as_slice()).unwrap().unwrap().len(), MAX_LEN - 1);
    }

    #[test]
    fn r40_a_file_that_everybody_may_use_is_refused_and_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pin");
        std::fs::write(&path, "canary-pin\n").unwrap();
        let read = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            from_private_file(&path, "user PIN")
        };
        assert_eq!(read(0o440).unwrap().expose(), b"canary-pin");
        for mode in [0o644, 0o602, 0o601] {
            let text = read(mode).unwrap_err().message();
            assert!(text.contains("chmod o=") && text.contains("user PIN") && !text.contains("canary"), "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let text = from_environment("STRONGROOM_NO_SUCH_VARIABLE", "user PIN").unwrap_err().message();
        assert!(text.contains("STRONGROOM_NO_SUCH_VARIABLE") && text.contains("user PIN"), "{text}");
        let text = from_file(Path::new("/nowhere/pin"), "user PIN").unwrap_err().message();
        assert!(text.contains("/nowhere/pin") && text.contains("user PIN"), "{text}");
        assert!(credential("a/b").is_err() && credential("").is_err());
    }
}
