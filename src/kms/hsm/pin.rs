//! Where the PIN of a token comes from: never from the configuration itself.

use std::path::PathBuf;

use super::super::Settings;
use crate::error::{Error, KmsFault, Result};
use crate::secret::{SecureBytes, source};

/// What the secret is, in errors.
const WHAT: &str = "PIN of the HSM";

/// Where the PIN is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinSource {
    /// In the first line of a file.
    File(PathBuf),
    /// In a variable of the environment.
    Variable(String),
    /// In a systemd credential.
    Credential(String),
    /// With whoever asks; no configuration says so.
    Given(SecureBytes),
    /// Nowhere: the device has a keypad of its own, or wants no login.
    Device,
}

impl PinSource {
    /// Reads which one the settings name.
    ///
    /// # Errors
    /// `ArgumentsBad` for more than one.
    pub fn of(settings: &Settings) -> Result<Self> {
        let file = settings.path("pin_file").map(|path| Self::File(path.to_owned()));
        let variable = settings.text("pin_env").map(|name| Self::Variable(name.to_owned()));
        let credential = settings.text("pin_credential").map(|name| Self::Credential(name.to_owned()));
        let mut sources = [file, variable, credential].into_iter().flatten();
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
    /// `Denied` for one that is not there, and for a file that others may use.
    pub fn read(&self) -> Result<Option<SecureBytes>> {
        let pin = match self {
            Self::Device => return Ok(None),
            Self::Given(pin) => return Ok(Some(pin.clone())),
            Self::File(path) => source::from_private_file(path, WHAT),
            Self::Variable(name) => source::from_environment(name, WHAT),
            Self::Credential(name) => source::from_credential(name, WHAT),
        };
        pin.map(Some).map_err(|error| Error::kms(KmsFault::Denied, "the PIN of the HSM cannot be had").caused_by(error))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::super::Setting;
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn read(pin: &[u8], mode: u32) -> Result<Option<SecureBytes>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pin");
        fs::write(&path, pin).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        PinSource::File(path).read()
    }

    #[test]
    fn r40_a_pin_that_everybody_can_read_is_refused_and_never_shown() {
        assert_eq!(read(b"12 34\n", 0o440).unwrap().unwrap().expose(), b"12 34");
        for mode in [0o644, 0o602, 0o601] {
            let error = read(b"canary-pin", mode).unwrap_err();
            assert_eq!(error.kms_fault(), Some(KmsFault::Denied));
            assert!(error.message().contains("chmod o=") && !format!("{error:?}").contains("canary"), "{error}");
        }
    }

    #[test]
    fn only_one_source_is_taken_and_a_missing_pin_is_named() {
        let settings = Settings::new("hsm", "hsm").with("pin_env", Setting::Text("STRONGROOM_TEST_NO_PIN".to_owned()));
        let error = PinSource::of(&settings).unwrap().read().unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::Denied));
        assert!(error.message().contains("STRONGROOM_TEST_NO_PIN"), "{error}");
        let settings = settings.with("pin_file", Setting::Path("/pin".into()));
        assert!(PinSource::of(&settings).unwrap_err().message().contains("leave one"));
        assert_eq!(PinSource::of(&Settings::new("hsm", "hsm")).unwrap(), PinSource::Device);
        assert_eq!(read(b"\n", 0o400).unwrap_err().kms_fault(), Some(KmsFault::Denied));
    }
}
