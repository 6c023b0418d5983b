//! Where PINs come from. They go into locked memory byte by byte and are never an argument.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use strongroom::secret::SecureBytes;

use crate::failure::Failure;

/// The longest PIN that is read, in bytes: more than any token takes.
const MAX_LEN: usize = 1024;

/// Where a PIN comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinSource {
    /// Asked for on the terminal, without echo.
    Prompt,
    /// The variable of this name.
    Environment(String),
    /// The first line of this file.
    File(PathBuf),
    /// The next line of standard input.
    Stdin,
}

impl FromStr for PinSource {
    type Err = String;

    /// Reads a source. The error does not quote the text, which may be a PIN in the wrong place.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "prompt" => Ok(Self::Prompt),
            None if text == "stdin" => Ok(Self::Stdin),
            Some(("env", name)) if !name.is_empty() => Ok(Self::Environment(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err("must be prompt, env:NAME, file:PATH or stdin".to_owned()),
        }
    }
}

impl PinSource {
    /// Reads an existing PIN; `name` says which, for the prompt and for errors.
    pub fn read(&self, name: &str) -> Result<SecureBytes, Failure> {
        match self {
            PinSource::Prompt => prompt(&format!("{name}: ")),
            PinSource::Environment(variable) => from_environment(variable, name),
            PinSource::File(path) => from_file(path, name),
            PinSource::Stdin => from_stdin(name),
        }
    }

    /// Reads a new PIN; on the terminal it is asked for twice.
    pub fn read_new(&self, name: &str) -> Result<SecureBytes, Failure> {
        let pin = self.read(&format!("New {name}"))?;
        if *self == PinSource::Prompt && prompt(&format!("New {name} again: "))? != pin {
            return Err(Failure::Usage(format!("the two entries of the {name} differ; nothing was changed")));
        }
        Ok(pin)
    }
}

/// Asks on the terminal, without echo.
fn prompt(text: &str) -> Result<SecureBytes, Failure> {
    if !io::stdin().is_terminal() && File::open("/dev/tty").is_err() {
        let help = "there is no terminal to ask for the PIN; use --pin-source env:NAME, file:PATH or stdin";
        return Err(Failure::Usage(help.to_owned()));
    }
    let entered = rpassword::prompt_password(text);
    let entered =
        entered.map_err(|error| Failure::Usage(format!("the PIN could not be read from the terminal: {error}")))?;
    Ok(SecureBytes::take(entered.into_bytes()))
}

/// Reads a variable of the environment.
fn from_environment(variable: &str, name: &str) -> Result<SecureBytes, Failure> {
    let value = std::env::var_os(variable).map(OsString::into_vec).map(SecureBytes::take);
    value.filter(|pin| !pin.is_empty()).ok_or_else(|| {
        Failure::Usage(format!(
            "the environment variable {variable}, which should hold the {name}, is empty or not set"
        ))
    })
}

/// Reads the first line of a file.
fn from_file(path: &Path, name: &str) -> Result<SecureBytes, Failure> {
    let unreadable = |error| {
        Failure::Usage(format!("the file {}, which should hold the {name}, cannot be read: {error}", path.display()))
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let pin = line(&mut file).map_err(unreadable)?;
    pin.ok_or_else(|| Failure::Usage(format!("the file {}, which should hold the {name}, is empty", path.display())))
}

/// Reads the next line of standard input, past the buffer of `std::io::Stdin`, which nobody would wipe.
fn from_stdin(name: &str) -> Result<SecureBytes, Failure> {
    let unreadable =
        |error| Failure::Usage(format!("standard input, which should hold the {name}, cannot be read: {error}"));
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(unreadable)?);
    let pin = line(&mut input).map_err(unreadable)?;
    pin.ok_or_else(|| Failure::Usage(format!("standard input has no line for the {name}")))
}

/// Reads up to the end of the line, byte by byte into locked memory, so that the next line is left for the next PIN.
/// `None` when there is nothing.
fn line(input: &mut impl Read) -> io::Result<Option<SecureBytes>> {
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
    let without_return = line.expose().get(..len).and_then(|pin| pin.strip_suffix(b"\r"));
    let len = without_return.map_or(len, <[u8]>::len);
    Ok(Some(line.truncated(len)).filter(|pin| !pin.is_empty()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn sources_are_read() {
        assert_eq!("prompt".parse(), Ok(PinSource::Prompt));
        assert_eq!("stdin".parse(), Ok(PinSource::Stdin));
        assert_eq!("env:PIN".parse(), Ok(PinSource::Environment("PIN".into())));
        assert_eq!("file:/a:b".parse(), Ok(PinSource::File("/a:b".into())));
    }

    #[test]
    fn r23_a_pin_in_the_place_of_a_source_is_not_quoted() {
        for text in ["canary", "env:", "file:", "pin:canary", ""] {
            let error = text.parse::<PinSource>().unwrap_err();
            assert!(!error.contains("canary") && error.contains("env:NAME"), "{error}");
        }
    }

    #[test]
    fn one_line_is_one_pin_and_the_next_is_left() {
        let mut input: &[u8] = b"first pin \r\nsecond\n\nlast";
        assert_eq!(line(&mut input).unwrap().unwrap().expose(), b"first pin ");
        assert_eq!(line(&mut input).unwrap().unwrap().expose(), b"second");
        assert!(line(&mut input).unwrap().is_none());
        assert_eq!(line(&mut input).unwrap().unwrap().expose(), b"last");
        assert!(line(&mut input).unwrap().is_none());
    }

    #[test]
    fn a_pin_that_is_too_long_is_refused() {
        assert!(line(&mut vec![b'a'; MAX_LEN + 1].as_slice()).is_err());
        assert_eq!(line(&mut vec![b'a'; MAX_LEN - 1].as_slice()).unwrap().unwrap().len(), MAX_LEN - 1);
    }

    #[test]
    fn a_file_gives_its_first_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        let source = PinSource::File(path.clone());
        assert!(source.read("user PIN").unwrap_err().message().contains("cannot be read"));
        std::fs::write(&path, "p\u{e4}ss w\u{f6}rd\n").unwrap();
        assert_eq!(source.read("user PIN").unwrap().expose(), "p\u{e4}ss w\u{f6}rd".as_bytes());
        std::fs::write(&path, "").unwrap();
        assert!(source.read("user PIN").unwrap_err().message().contains("is empty"));
    }
}
