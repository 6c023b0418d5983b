//! Where the PIN of a token comes from: never from the configuration itself.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::super::Settings;
use super::super::local::credential;
use crate::error::{Error, KmsFault, Result};
use crate::secret::SecureBytes;

/// The longest PIN that is read, in bytes.
const MOST: usize = 1024;
/// The permission bits of everybody but owner and group.
const OTHERS: u32 = 0o007;

/// Where the PIN is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinSource {
    /// In a file, alone or with one newline behind it.
    File(PathBuf),
    /// In a variable of the environment.
    Variable(String),
    /// Nowhere: the device has a keypad of its own, or wants no login.
    Device,
}

impl PinSource {
    /// Reads which one the settings name.
    ///
    /// # Errors
    /// `ArgumentsBad` for more than one, and for a credential without its directory.
    pub fn of(settings: &Settings) -> Result<Self> {
        let file = settings.path("pin_file").map(|path| Self::File(path.to_owned()));
        let variable = settings.text("pin_env").map(|name| Self::Variable(name.to_owned()));
        let credential = settings.text("pin_credential").map(|name| credential(&settings.name, name)).transpose()?;
        let mut sources = [file, variable, credential.map(Self::File)].into_iter().flatten();
        match (sources.next(), sources.next()) {
            (source, None) => Ok(source.unwrap_or(Self::Device)),
            _ => Err(Error::arguments_bad(format!(
                "the KMS `{}` has more than one of pin_file, pin_env and pin_credential; leave one",
                settings.name
            ))),
        }
    }

    /// Reads the PIN; `None` where there is none.
    ///
    /// # Errors
    /// `Denied` for a file that cannot be read or that others can, and for a variable that is not set.
    pub fn read(&self) -> Result<Option<SecureBytes>> {
        match self {
            Self::Device => Ok(None),
            Self::File(path) => read_file(path).map(Some),
            Self::Variable(name) => match std::env::var_os(name) {
                Some(value) => Ok(Some(SecureBytes::take(value.into_encoded_bytes()))),
                None => Err(denied(format!("the variable {name}, which pin_env names, is not set"))),
            },
        }
    }
}

/// Reads a PIN file into locked memory.
fn read_file(path: &Path) -> Result<SecureBytes> {
    let failed =
        |error| denied(format!("the file of the PIN, {}, cannot be read", path.display())).caused_by(error);
    let mut file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & OTHERS != 0 {
        let text = format!("others may use the file of the PIN: run `chmod o= {}`", path.display());
        return Err(denied(text));
    }
    let mut pin = SecureBytes::zeroed(MOST);
    let len = read_to(&mut file, pin.expose_mut()).map_err(failed)?;
    let line = pin.expose().get(..len).unwrap_or_default();
    let len = line.strip_suffix(b"\n").map_or(len, |line| line.strip_suffix(b"\r").unwrap_or(line).len());
    if len == 0 || len == MOST {
        return Err(denied(format!("the file of the PIN, {}, must hold the PIN and nothing else", path.display())));
    }
    Ok(pin.truncated(len))
}

/// Reads until the end or until the room is full.
fn read_to(file: &mut File, mut room: &mut [u8]) -> std::io::Result<usize> {
    let mut total = 0;
    loop {
        let len = file.read(room)?;
        if len == 0 {
            return Ok(total);
        }
        total += len;
        room = room.get_mut(len..).unwrap_or_default();
    }
}

fn denied(text: String) -> Error {
    Error::kms(KmsFault::Denied, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::super::Setting;
    use super::*;
    use std::fs;

    fn written(pin: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pin");
        fs::write(&path, pin).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn a_pin_file_holds_the_pin_and_perhaps_one_newline() {
        for (content, pin) in [(&b"1234"[..], &b"1234"[..]), (b"12 34\n", b"12 34"), (b"1234\r\n", b"1234"), (b"1\n\n", b"1\n")]
        {
            let (_directory, path) = written(content, 0o440);
            assert_eq!(PinSource::File(path).read().unwrap().unwrap().expose(), pin);
        }
        for bad in [&b""[..], b"\n", &[b'1'; 2000]] {
            let (_directory, path) = written(bad, 0o400);
            let error = PinSource::File(path).read().unwrap_err();
            assert_eq!(error.kms_fault(), Some(KmsFault::Denied));
        }
    }

    #[test]
    fn r40_a_pin_that_others_can_read_is_refused_and_never_shown() {
        for mode in [0o644, 0o602, 0o601] {
            let (_directory, path) = written(b"canary-pin", mode);
            let error = PinSource::File(path).read().unwrap_err();
            assert_eq!(error.kms_fault(), Some(KmsFault::Denied));
            assert!(error.message().contains("chmod o=") && !format!("{error:?}").contains("canary"), "{error}");
        }
    }

    #[test]
    fn only_one_source_is_taken() {
        let settings = Settings::new("hsm", "hsm").with("pin_env", Setting::Text("A".to_owned()));
        assert_eq!(PinSource::of(&settings).unwrap(), PinSource::Variable("A".to_owned()));
        let settings = settings.with("pin_file", Setting::Path("/pin".into()));
        assert!(PinSource::of(&settings).unwrap_err().message().contains("leave one"));
        assert_eq!(PinSource::of(&Settings::new("hsm", "hsm")).unwrap(), PinSource::Device);
        let error = PinSource::Variable("STRONGROOM_TEST_NO_SUCH_PIN".to_owned()).read().unwrap_err();
        assert!(error.message().contains("STRONGROOM_TEST_NO_SUCH_PIN"));
    }
}
