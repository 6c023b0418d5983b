//! Backups: a document of sealed records, written while the token is in use, verified without restoring, and restored into any store.
//!
//! The rules are:
//! - a document holds records as they are sealed, and nothing of them in the clear that the store does not have in the clear;
//! - it is authenticated as a whole, under a key below the token key: no part can be altered, cut off, added or moved;
//! - it is written and read line by line, in bounded memory at any number of objects;
//! - a restore is one transaction: it leaves the old state or the new one, and a second one finds nothing to do;
//! - nothing that is there is overwritten, and nothing removed, unless the caller says so.
//!
//! `docs/format.md`, chapter 15, has the document byte by byte; `docs/backup.md` is for those who keep backups.

mod data_keys;
mod document;
mod export;
mod file;
mod head;
mod import;
mod merge;
mod recovery;
mod source;
mod unlock;
mod verify;
mod writer;

pub use document::Document;
pub use export::{To, export};
pub use head::Head;
pub use import::{ImportOptions, import};
pub use recovery::{Kept, Recovery, read_share_files, write_share_files};
pub use source::Place;
pub use unlock::Secrets;
pub use verify::{inspect, verify};

pub use crate::seal::Share;

#[cfg(test)]
mod tests;

use super::managed::{Name, check_owner};
use crate::ck::*;
use crate::error::Result;

/// What a backup holds, or what is taken out of one.
#[derive(Debug, Clone)]
pub enum Scope {
    /// A whole token.
    Token,
    /// The managed keys of one owner.
    Owner(String),
    /// One managed key, with all its versions.
    Key(Name),
}

impl Scope {
    /// Reads owner and asset, both of which may be empty.
    ///
    /// # Errors
    /// `ArgumentsBad` for an asset without an owner, and for what is no owner or no asset.
    pub fn new(owner: &str, asset: &str) -> Result<Self> {
        match (owner.is_empty(), asset.is_empty()) {
            (true, true) => Ok(Self::Token),
            (false, true) => check_owner(owner).map(|()| Self::Owner(owner.to_owned())),
            (_, false) => Name::new(owner, asset).map(Self::Key),
        }
    }

    /// Names the kind as the document does.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Owner(_) => "owner",
            Self::Key(_) => "key",
        }
    }

    /// Makes the template that its objects fit.
    fn template(&self) -> Attributes {
        match self {
            Self::Token => Attributes::new(),
            Self::Owner(owner) => [(CKA_SR_OWNER, Value::from(owner.as_bytes()))].into_iter().collect(),
            Self::Key(name) => name.template(),
        }
    }

    /// Tells whether an object belongs to it.
    fn takes(&self, attributes: &Attributes) -> bool {
        self.template().iter().all(|(id, value)| attributes.get(id) == Some(value))
    }
}

/// Is told how many records are done, and now and then why it takes so long.
pub type Progress<'p> = &'p mut dyn FnMut(u64);
