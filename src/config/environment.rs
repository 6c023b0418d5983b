//! Where the configuration is looked for and where data goes: the XDG base directories and our own variables.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::unusable;
use crate::error::Result;
use crate::log::Level;

/// The name of the variable that names the configuration file.
const CONFIG_VARIABLE: &str = "STRONGROOM_CONFIG";
/// The name of the variable that sets the log level, above the configuration file.
const LOG_VARIABLE: &str = "STRONGROOM_LOG";
/// The place of the configuration of a whole machine.
const SYSTEM_CONFIG: &str = "/etc/strongroom/strongroom.toml";

/// What the environment of a process says about the configuration.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `STRONGROOM_CONFIG`.
    pub config: Option<PathBuf>,
    /// `STRONGROOM_LOG`.
    pub log: Option<String>,
    /// `XDG_CONFIG_HOME`, if absolute.
    pub config_home: Option<PathBuf>,
    /// `XDG_DATA_HOME`, if absolute.
    pub data_home: Option<PathBuf>,
    /// `HOME`, else the home directory of the user database.
    pub home: Option<PathBuf>,
}

impl Environment {
    /// Reads the environment of this process.
    pub fn current() -> Self {
        Self {
            config: variable(CONFIG_VARIABLE).map(PathBuf::from),
            log: variable(LOG_VARIABLE).map(|level| level.to_string_lossy().into_owned()),
            config_home: directory("XDG_CONFIG_HOME"),
            data_home: directory("XDG_DATA_HOME"),
            home: std::env::home_dir().filter(|home| home.is_absolute()),
        }
    }

    /// Lists the places of a configuration file that nobody named, in the order of the search.
    pub fn places(&self) -> Vec<PathBuf> {
        let user = self.config_home.clone().or_else(|| Some(self.home.as_ref()?.join(".config")));
        let user = user.map(|folder| folder.join("strongroom/strongroom.toml"));
        user.into_iter().chain([PathBuf::from(SYSTEM_CONFIG)]).collect()
    }

    /// Finds the configuration file and reads it; `None` when nobody named one and there is none.
    ///
    /// # Errors
    /// `FunctionFailed` when a file that was named is not there, or one that is there cannot be read.
    pub(super) fn find_file(&self, explicit: Option<&str>) -> Result<Option<(PathBuf, String)>> {
        let named = match (explicit, &self.config) {
            (Some(path), _) => Some((PathBuf::from(path), "was named by the application")),
            (None, Some(path)) => Some((path.clone(), "was named by STRONGROOM_CONFIG")),
            (None, None) => None,
        };
        if let Some((path, by)) = named {
            let text = read(&path)?.ok_or_else(|| {
                unusable(format!(
                    "the configuration file {} {by} and does not exist; make it or name another",
                    path.display()
                ))
            })?;
            return Ok(Some((std::path::absolute(&path).unwrap_or(path), text)));
        }
        for path in self.places() {
            if let Some(text) = read(&path)? {
                return Ok(Some((path, text)));
            }
        }
        Ok(None)
    }

    /// Tells the folder of the user's data.
    ///
    /// # Errors
    /// `FunctionFailed` when neither the variables nor the user database tell it.
    pub(super) fn data_folder(&self) -> Result<PathBuf> {
        let base = self.data_home.clone().or_else(|| Some(self.home.as_ref()?.join(".local/share")));
        base.map(|base| base.join("strongroom")).ok_or_else(|| {
            unusable(
                "no place for the database: this user has no home directory; set XDG_DATA_HOME or HOME, or [store] url in a \
                 configuration file that STRONGROOM_CONFIG names"
                    .to_owned(),
            )
        })
    }

    /// Tells the log level that `STRONGROOM_LOG` sets.
    ///
    /// # Errors
    /// `FunctionFailed` for a word that is no level.
    pub fn log_level(&self) -> Result<Option<Level>> {
        let Some(word) = &self.log else { return Ok(None) };
        let level = Level::by_name(&word.to_ascii_lowercase());
        level.map(Some).ok_or_else(|| unusable(format!("{LOG_VARIABLE} takes error, warn, info, debug or trace")))
    }
}

/// Reads a variable; an empty one counts as unset.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Reads a variable that names a directory; a relative one is to be ignored (XDG Base Directory Specification).
fn directory(name: &str) -> Option<PathBuf> {
    variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Reads a file; `None` when it does not exist.
fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => {
            Err(unusable(format!("the configuration file {} cannot be read", path.display())).caused_by(error))
        }
    }
}
