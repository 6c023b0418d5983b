//! Moving keys in from other systems: their records, files and tokens, each format in a file of its own.
//!
//! The rules are:
//! - a source is read and never changed; moving the same keys twice changes nothing;
//! - a source makes [`Entry`]s of what it holds, [`Mover`] puts them into the token: one way for all formats;
//! - one entry that cannot be moved does not keep the others from it, unless that is asked for ([`Options::strict`]);
//! - an entry is moved wholly or not at all: both halves of a key and the certificates beside it are one transaction;
//! - no text of a source is quoted where a secret could stand in the wrong place.

mod certificate;
mod expect;
mod field;
mod file;
mod import_file;
mod keystore;
mod legacy;
mod lines;
mod pem;
mod pkcs12;
mod pkcs8;
mod place;
mod report;
#[cfg(feature = "hsm")]
mod token;
mod wif;

pub use file::{Files, Format, Naming, files};
pub use import_file::import_file;
pub use legacy::Legacy;
pub use place::{Mover, Options};
pub use report::{Outcome, Summary, Verdict};
#[cfg(feature = "hsm")]
pub use token::{TokenSource, token};

use super::managed::Name;
use crate::ck::*;
use crate::error::Result;
use crate::mechanism::GivenKey;

/// Where an entry comes from, for reports; none of it is secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file, or the object's name on its token.
    pub source: Option<String>,
    /// The number of the line, from 1.
    pub line: Option<u64>,
    /// Whose key it is, where that could be read.
    pub owner: Option<String>,
    /// What it is a key of, where that could be read.
    pub asset: Option<&'static str>,
}

/// One thing of a source: what it is, or why it cannot be read.
pub struct Entry {
    /// Where it comes from.
    pub origin: Origin,
    /// What it is.
    pub read: Result<Content>,
}

/// What is to be moved.
pub enum Content {
    /// A key.
    Key(Box<Key>),
    /// An object without a secret: a certificate, a public key, data.
    Object(Attributes),
}

/// A key, and how it is to look.
pub struct Key {
    /// The key.
    pub key: GivenKey,
    /// Version 1 of this managed key, or a plain object of PKCS #11.
    pub name: Option<Name>,
    /// What the key had where it comes from: label, id, usages.
    pub kept: Attributes,
    /// Certificates that belong to it, as templates.
    pub certificates: Vec<Attributes>,
    /// What whoever moves it should know.
    pub note: Option<String>,
}

impl Key {
    /// Makes a key that has nothing but itself.
    pub fn new(key: GivenKey, name: Option<Name>) -> Self {
        Self { key, name, kept: Attributes::new(), certificates: Vec::new(), note: None }
    }
}
