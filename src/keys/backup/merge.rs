//! Putting the records of a backup into a token, inside one transaction.
//!
//! The rules are:
//! - a record that is there already is left alone, however often it was used since, one that is missing is added;
//! - one that differs, or does not open, is replaced if that was said, else nothing is done at all; uses and wrong passwords that
//!   were counted since stay counted;
//! - a managed key becomes what the backup says as a whole: a version that the backup does not have is removed if that was said, else
//!   nothing is done at all, since two versions would be the active one;
//! - other objects that the backup does not have stay, unless a whole token is restored and their removal was said;
//! - recovery envelopes come back with a token that is made anew. In one that is there they are as its SO left them: one that was removed
//!   stays removed.

use std::collections::{BTreeSet, HashSet};

use super::data_keys::DataKeys;
use super::document::Document;
use super::import::ImportOptions;
use super::{Progress, Scope};
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::seal::{BackupMac, TokenKey};
use crate::store::{Serial, Uid};
use crate::token::{Here, Record, Restore, object_name};

/// How many differences an error names.
const NAMED: usize = 5;

/// What became of the records.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    pub(super) added: u64,
    pub(super) same: u64,
    pub(super) replaced: u64,
    pub(super) removed: u64,
}

impl Tally {
    /// Counts the records that were taken.
    pub(super) fn records(&self) -> u64 {
        self.added + self.same + self.replaced
    }
}

/// One run through a document.
pub(super) struct Merge<'m> {
    pub(super) document: &'m Document,
    pub(super) key: &'m TokenKey,
    /// The token that the records go to.
    pub(super) to: Serial,
    /// Whether it is another token than that of the backup.
    pub(super) moves: bool,
    pub(super) data_keys: &'m DataKeys,
    pub(super) scope: &'m Scope,
    pub(super) options: &'m ImportOptions,
}

/// What a run has met.
#[derive(Default)]
struct Met {
    tally: Tally,
    uids: HashSet<Uid>,
    keys: BTreeSet<(Vec<u8>, Vec<u8>)>,
    /// What stands in the way, up to a few.
    differences: Vec<String>,
    more: u64,
}

impl Merge<'_> {
    /// Puts the records into the token. `empty` says that it had no object before.
    ///
    /// # Errors
    /// `ActionProhibited` when something would be replaced or removed and that was not said; `DataInvalid`, the store's.
    pub(super) fn run(&self, restore: &mut Restore<'_>, empty: bool, progress: Progress<'_>) -> Result<Tally> {
        let (mut met, serial) = (Met::default(), self.document.head.serial()?);
        self.document.read(BackupMac::new(self.key), &mut |number, row| {
            let record = Record::open(&serial, self.key, row)?;
            progress(number);
            match self.scope.takes(record.attributes()) && (empty || !is_recovery(&record)) {
                true => self.put(restore, &mut met, record, &serial),
                false => Ok(()),
            }
        })?;
        if !empty {
            self.remove_others(restore, &mut met)?;
        }
        let tally = met.settle()?;
        let Tally { added, replaced, removed, .. } = tally;
        restore.tell(format!(
            "from a backup of token {}: {added} added, {replaced} replaced, {removed} removed",
            self.document.head.token.serial
        ));
        Ok(tally)
    }

    fn put(&self, restore: &mut Restore<'_>, met: &mut Met, record: Record, from: &Serial) -> Result<()> {
        let record = if self.moves { self.data_keys.moved(record, (from, self.key), &self.to)? } else { record };
        if !met.uids.insert(record.uid()) {
            return Err(Error::new(Kind::DataInvalid, "the backup has an object twice"));
        }
        met.keys.extend(key_of(record.attributes()));
        match restore.find(&record.uid())? {
            None => {
                met.tally.added += 1;
                restore.add(record)
            }
            Some(Here::Sound(here)) if self.is_same(restore, &here, &record)? => {
                met.tally.same += 1;
                Ok(())
            }
            Some(here) => {
                met.tally.replaced += 1;
                match (self.options.replace, here) {
                    (true, Here::Sound(here)) => return restore.replace(&here, &record),
                    (true, Here::Damaged { revision, .. }) => return restore.replace_damaged(revision, &record),
                    (false, Here::Sound(here)) => met.differs(format!("{} differs", name_of(here.attributes()))),
                    (false, Here::Damaged { .. }) => {
                        met.differs(format!("{} is damaged", name_of(record.attributes())));
                    }
                }
                Ok(())
            }
        }
    }

    fn is_same(&self, restore: &Restore<'_>, here: &Record, record: &Record) -> Result<bool> {
        match self.data_keys.is_same(here, record, restore.token_key())? {
            Some(same) => Ok(same),
            None => restore.is_same(here, record),
        }
    }

    /// Tells whether the token is to become what the backup is, and not some keys of it.
    fn is_whole_token(&self) -> bool {
        matches!(self.scope, Scope::Token) && self.document.head.scope == Scope::Token.name() && !self.moves
    }

    /// Removes what the backup does not have, or notes that it stands in the way.
    fn remove_others(&self, restore: &mut Restore<'_>, met: &mut Met) -> Result<()> {
        let mut others = Vec::new();
        if self.is_whole_token() && self.options.remove {
            collect(restore, &Attributes::new(), &met.uids, &mut others)?;
        } else {
            for (owner, asset) in &met.keys {
                let texts = [(CKA_SR_OWNER, owner), (CKA_SR_ASSET, asset)];
                let template = texts.into_iter().map(|(id, text)| (id, Value::from(text.as_slice()))).collect();
                collect(restore, &template, &met.uids, &mut others)?;
            }
        }
        for other in others {
            met.tally.removed += 1;
            match self.options.remove {
                true => restore.remove(&other)?,
                false => met.differs(format!("{} is not in the backup", name_of_here(&other))),
            }
        }
        Ok(())
    }
}

/// Lists what fits and is not among the records.
fn collect(
    restore: &mut Restore<'_>,
    template: &Attributes,
    taken: &HashSet<Uid>,
    others: &mut Vec<Here>,
) -> Result<()> {
    restore.visit_here(template, &mut |here| {
        let stays = matches!(&here, Here::Sound(record) if is_recovery(record));
        if !taken.contains(&here.uid()) && !stays {
            others.push(here);
        }
        Ok(())
    })
}

impl Met {
    fn differs(&mut self, what: String) {
        match self.differences.len() < NAMED {
            true => self.differences.push(what),
            false => self.more += 1,
        }
    }

    /// Gives what was done, unless something stands in the way.
    fn settle(self) -> Result<Tally> {
        if self.differences.is_empty() {
            return Ok(self.tally);
        }
        let more = if self.more > 0 { format!(", and {} more", self.more) } else { String::new() };
        let text = format!(
            "nothing was restored, since the token has something else there: {}{more}; say `replace` to replace what differs, and \
             `remove` to give up what the backup does not have",
            self.differences.join(", ")
        );
        Err(Error::new(Kind::ActionProhibited, text))
    }
}

/// Tells whether a record is a recovery envelope.
fn is_recovery(record: &Record) -> bool {
    record.attributes().ulong(CKA_CLASS) == Some(CKO_SR_RECOVERY)
}

/// Names the managed key that an object belongs to.
fn key_of(attributes: &Attributes) -> Option<(Vec<u8>, Vec<u8>)> {
    Some((attributes.bytes(CKA_SR_OWNER)?.to_vec(), attributes.bytes(CKA_SR_ASSET)?.to_vec()))
}

/// Names what the token has for a person.
fn name_of_here(here: &Here) -> String {
    match here {
        Here::Sound(record) => name_of(record.attributes()),
        Here::Damaged { uid, .. } => format!("{}, which is damaged,", object_name(uid)),
    }
}

/// Names an object for a person.
fn name_of(attributes: &Attributes) -> String {
    let text = |id| String::from_utf8_lossy(attributes.bytes(id).unwrap_or_default()).escape_debug().to_string();
    match attributes.ulong(CKA_SR_VERSION) {
        Some(version) => format!("version {version} of the {} key of {}", text(CKA_SR_ASSET), text(CKA_SR_OWNER)),
        None => format!("the object {} ({})", text(CKA_UNIQUE_ID), text(CKA_LABEL)),
    }
}
