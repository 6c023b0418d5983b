//! The configuration: found, read and checked once, into values that need no further check.
//!
//! The rules are:
//! - zero configuration works: without a file everything has a default;
//! - unknown keys, wrong types and impossible values are errors that name file, line, key and what would be right;
//! - an error never quotes a text from the file, which may hold a password in the wrong place;
//! - this module knows nothing of tokens and stores: `abi/compose.rs` maps its plain values; the keys of a provider are the rows
//!   that the provider lists (`kms/settings.rs`).

mod environment;
mod reader;
mod sections;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::kms::Settings;
use crate::log::Level;

pub use environment::Environment;

/// Everything that can be configured, complete and right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file that it was read from; `None` when no file was found and all values are defaults.
    pub file: Option<PathBuf>,
    /// The store of tokens and objects.
    pub store: StoreUrl,
    /// What a token has unless its own section says otherwise.
    pub defaults: Defaults,
    /// The KMS providers by name; `local` is always there.
    pub kms: BTreeMap<String, Settings>,
    /// Tokens that have a section of their own, with the defaults filled in.
    pub tokens: Vec<Token>,
    /// The rules for passwords.
    pub password: Password,
    /// The cost of deriving a key from a password.
    pub argon2: Argon2,
    /// When managed keys are rotated.
    pub rotation: Rotation,
    /// What is logged, and where.
    pub log: Log,
    /// What is recorded of operations, and where.
    pub audit: Audit,
}

/// Where tokens and objects rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// An SQLite database in this file.
    Sqlite(PathBuf),
    /// The memory of this process: gone at C_Finalize.
    Memory,
}

/// What becomes of key material that a caller wants to see or to bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plaintext {
    /// No key material goes in or out.
    Never,
    /// Key material may be brought in.
    Import,
    /// Also keys that are not sensitive, where a template asks for them.
    Compat,
}

impl Plaintext {
    /// Names the policy as the configuration does.
    pub const fn name(self) -> &'static str {
        match self {
            Plaintext::Never => "never",
            Plaintext::Import => "import",
            Plaintext::Compat => "compat",
        }
    }
}

/// What a token has unless its own section says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// The name of the KMS provider.
    pub kms: String,
    /// The policy on key material.
    pub plaintext: Plaintext,
}

/// Where the PIN of a token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinSource {
    /// From whoever calls C_Login.
    Prompt,
    /// From an environment variable.
    Environment(String),
    /// From the first line of a file.
    File(PathBuf),
    /// From a systemd credential.
    Credential(String),
    /// There is none: the machine's identity at the KMS opens the token.
    Kms,
}

impl PinSource {
    /// Names the kind of source as the configuration does; the rest might tell too much.
    pub const fn name(&self) -> &'static str {
        match self {
            PinSource::Prompt => "prompt",
            PinSource::Environment(_) => "env",
            PinSource::File(_) => "file",
            PinSource::Credential(_) => "credential",
            PinSource::Kms => "kms",
        }
    }
}

/// The settings of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The label by which the token is found.
    pub label: String,
    /// The name of its KMS provider.
    pub kms: String,
    /// Its policy on key material.
    pub plaintext: Plaintext,
    /// Where its PIN comes from.
    pub pin_source: PinSource,
    /// The name of the KMS provider whose keys it shows; `None` for a token that keeps keys itself.
    pub remote: Option<String>,
    /// The names of the keys that it shows; empty for all that the account has.
    pub keys: Vec<String>,
}

/// A class of characters that a password may have to contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CharacterClass {
    /// A lower-case letter.
    Lower,
    /// An upper-case letter.
    Upper,
    /// A digit.
    Digit,
    /// Anything else.
    Symbol,
}

/// The rules for passwords (PINs).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Password {
    /// The least number of characters.
    pub min_length: u32,
    /// Classes of which each must occur.
    pub classes: Vec<CharacterClass>,
    /// After so many wrong tries in a row a PIN is locked; 0 never locks it.
    pub max_attempts: u32,
}

impl Default for Password {
    fn default() -> Self {
        Self { min_length: 8, classes: Vec::new(), max_attempts: 10 }
    }
}

/// The cost of Argon2id (RFC 9106, 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2 {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes, each a thread where threads are allowed.
    pub lanes: u32,
}

impl Default for Argon2 {
    /// The second recommended option of RFC 9106, 4.
    fn default() -> Self {
        Self { memory_mib: 64, passes: 3, lanes: 4 }
    }
}

/// When managed keys are rotated that have no policy of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// A version is due so many days after it was made; 0 is never.
    pub rotation_interval_days: u32,
    /// The active version makes nothing new so many days after it was made; 0 is never.
    pub max_key_age_days: u32,
    /// Whether due keys are rotated without being asked for by name.
    pub auto_rotate: bool,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { rotation_interval_days: 90, max_key_age_days: 365, auto_rotate: true }
    }
}

/// What is logged, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The least important level that is written.
    pub level: Level,
    /// The file that lines are added to; `None` is stderr.
    pub file: Option<PathBuf>,
}

/// What happens when no sink takes a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditMode {
    /// Nothing is recorded.
    Off,
    /// The operation goes on, and a warning is logged.
    BestEffort,
    /// The operation is refused.
    Required,
}

impl AuditMode {
    /// Names the mode as the configuration does.
    pub const fn name(self) -> &'static str {
        match self {
            AuditMode::Off => "off",
            AuditMode::BestEffort => "best-effort",
            AuditMode::Required => "required",
        }
    }
}

/// Where copies of records go besides the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditSink {
    /// A file that lines are added to.
    File(PathBuf),
    /// The system's log.
    Syslog,
}

/// What is recorded of operations, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// What happens when no sink takes a record.
    pub mode: AuditMode,
    /// Whether uses of keys are recorded too, and not only changes.
    pub key_use: bool,
    /// Who gets copies of what the store has.
    pub copies: Vec<AuditSink>,
}

impl Default for Audit {
    /// Records changes in the store, which costs a row in a transaction that is written anyway.
    fn default() -> Self {
        Self { mode: AuditMode::BestEffort, key_use: false, copies: Vec::new() }
    }
}

impl Config {
    /// Finds, reads and checks the configuration of this process. `explicit` is the path that C_Initialize or the command was given.
    ///
    /// # Errors
    /// `FunctionFailed` when a named file cannot be read, or a file has a wrong value; the text says which and what would be right.
    pub fn load(explicit: Option<&str>) -> Result<Self> {
        Self::load_in(&Environment::current(), explicit)
    }

    /// Does the same in a given environment.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_in(environment: &Environment, explicit: Option<&str>) -> Result<Self> {
        match environment.find_file(explicit)? {
            Some((file, text)) => Self::parse(environment, Some(file), &text),
            None => Self::parse(environment, None, ""),
        }
    }

    /// Reads and checks the text of a file.
    fn parse(environment: &Environment, file: Option<PathBuf>, text: &str) -> Result<Self> {
        let mut config = sections::read(environment, file.as_deref().unwrap_or(Path::new("")), text)?;
        config.file = file;
        Ok(config)
    }

    /// Tells the settings of the token with this label: its own section, else the defaults.
    pub fn token(&self, label: &str) -> Token {
        let own = self.tokens.iter().find(|token| token.label == label);
        own.cloned().unwrap_or_else(|| Token {
            label: label.to_owned(),
            kms: self.defaults.kms.clone(),
            plaintext: self.defaults.plaintext,
            pin_source: PinSource::Prompt,
            remote: None,
            keys: Vec::new(),
        })
    }
}

/// Makes the error of a configuration that cannot be used.
fn unusable(text: String) -> Error {
    Error::new(Kind::FunctionFailed, text)
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
