//! Where PINs come from. They go into locked memory byte by byte and are never an argument.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::str::FromStr;

use strongroom::error::Error;
use strongroom::secret::{SecureBytes, source};

use crate::failure::Failure;
use crate::terminal;

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
            PinSource::Prompt => prompt(name),
            PinSource::Environment(variable) => source::from_environment(variable, name).map_err(unreadable),
            PinSource::File(path) => source::from_file(path, name).map_err(unreadable),
            PinSource::Stdin => from_stdin(name),
        }
    }

    /// Reads a new PIN; on the terminal it is asked for twice.
    pub fn read_new(&self, name: &str) -> Result<SecureBytes, Failure> {
        let pin = self.read(&format!("New {name}"))?;
        if *self == PinSource::Prompt && prompt(&format!("New {name} again"))? != pin {
            return Err(Failure::Usage(format!("the two entries of the {name} differ; nothing was changed")));
        }
        Ok(pin)
    }
}

fn unreadable(error: Error) -> Failure {
    Failure::Usage(error.message())
}

/// Asks on the terminal, without echo. Who enters nothing has not tried.
fn prompt(name: &str) -> Result<SecureBytes, Failure> {
    let none = |_| {
        let help = "there is no terminal to ask for the PIN; use --pin-source env:NAME, file:PATH or stdin";
        Failure::Usage(help.to_owned())
    };
    let entered = terminal::ask(&terminal::open().map_err(none)?, &format!("{name}: "));
    let entered = entered.map_err(|error| Failure::Usage(format!("{name}: the terminal cannot be read: {error}")))?;
    entered.ok_or_else(|| Failure::Usage(format!("{name}: nothing was entered, so nothing was done")))
}

/// Reads the next line of standard input, past the buffer of `std::io::Stdin`, which nobody would wipe.
fn from_stdin(name: &str) -> Result<SecureBytes, Failure> {
    let unreadable =
        |error| Failure::Usage(format!("standard input, which should hold the {name}, cannot be read: {error}"));
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(unreadable)?);
    let pin = source::line(&mut input).map_err(unreadable)?;
    pin.ok_or_else(|| Failure::Usage(format!("standard input has no line for the {name}")))
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
