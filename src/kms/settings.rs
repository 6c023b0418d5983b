//! What the configuration can say about a provider: each provider lists its keys as rows, and reads their values by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What the value of a key looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A text.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// The path of a file; a relative one starts at the folder of the configuration file.
    Path,
    /// A whole number within these bounds.
    Number(u32, u32),
    /// `true` or `false`.
    Flag,
}

/// One key of a `[kms.NAME]` section.
#[derive(Debug, Clone, Copy)]
pub struct SettingRow {
    /// The key.
    pub name: &'static str,
    /// What its value looks like.
    pub shape: Shape,
    /// Whether it must be there.
    pub required: bool,
    /// What it is, in one line for documents and errors.
    pub help: &'static str,
}

impl SettingRow {
    /// A key that may be left out.
    pub const fn optional(name: &'static str, shape: Shape, help: &'static str) -> Self {
        Self { name, shape, required: false, help }
    }

    /// A key that must be there.
    pub const fn required(name: &'static str, shape: Shape, help: &'static str) -> Self {
        Self { name, shape, required: true, help }
    }
}

/// The value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// Of [`Shape::Text`] or [`Shape::Word`].
    Text(String),
    /// Of [`Shape::Path`].
    Path(PathBuf),
    /// Of [`Shape::Number`].
    Number(u32),
    /// Of [`Shape::Flag`].
    Flag(bool),
}

/// What the configuration says about one provider; every key is one of its rows and has the right shape.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// The provider's name in the configuration.
    pub name: String,
    /// Its type: `local`, `aws`, …
    pub kind: String,
    /// Its keys.
    pub values: BTreeMap<String, Setting>,
}

impl Settings {
    /// Makes settings of a name and a type without any key.
    pub fn new(name: &str, kind: &str) -> Self {
        Self { name: name.to_owned(), kind: kind.to_owned(), values: BTreeMap::new() }
    }

    /// Adds a key.
    #[must_use]
    pub fn with(mut self, key: &str, value: Setting) -> Self {
        self.values.insert(key.to_owned(), value);
        self
    }

    /// Reads a text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.values.get(key) {
            Some(Setting::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Tells whether each managed key is to have a data key of its own there.
    pub fn has_key_scope(&self) -> bool {
        self.text("scope") == Some("key")
    }

    /// Reads a text that must be there.
    ///
    /// # Errors
    /// `ArgumentsBad` when it is not.
    pub fn required_text(&self, key: &str) -> Result<&str> {
        self.text(key).ok_or_else(|| Error::arguments_bad(format!("the KMS `{}` lacks the key `{key}`", self.name)))
    }

    /// Reads a path.
    pub fn path(&self, key: &str) -> Option<&Path> {
        match self.values.get(key) {
            Some(Setting::Path(path)) => Some(path),
            _ => None,
        }
    }

    /// Reads a number.
    pub fn number(&self, key: &str) -> Option<u32> {
        match self.values.get(key) {
            Some(Setting::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// Reads a flag; one that is not there is `false`.
    pub fn flag(&self, key: &str) -> bool {
        matches!(self.values.get(key), Some(Setting::Flag(true)))
    }
}
