//! Records with a data key of their own in a restore: the KMS is asked before the transaction, which then only puts things together.
//!
//! The rules are:
//! - a record whose data key does not open is no record that can be restored: the restore fails as a whole, and names the KMS key;
//! - a key that comes into another token is sealed anew there: under a data key of that token's KMS where that has `scope = "key"`, and
//!   under the token key alone where it has not. A key that is put back as itself stays as it is sealed;
//! - what is compared is the secret itself, and not how often it was wrapped since.

use std::collections::HashMap;

use super::document::Document;
use super::{Progress, Scope};
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::seal::{BackupMac, ObjectKey, Sealer, TokenKey, moved_uid};
use crate::secret::SecurePrivateKey;
use crate::store::{Serial, Uid};
use crate::token::{Here, Record, Session};

/// Finds what the token has in the place of a record.
pub(super) type Find<'f> = &'f dyn Fn(&Uid) -> Result<Option<Here>>;

/// What was opened of one record.
struct Opened {
    /// The secret, or what its owner's password made of it.
    secret: SecurePrivateKey,
    /// What it is to be sealed under, where it goes to another token.
    data_key: Option<ObjectKey>,
    /// What the token has in its place, opened, and the revision that this is.
    here: Option<(u64, SecurePrivateKey)>,
}

/// Where the records of a document go.
pub(super) struct Way<'w> {
    pub(super) document: &'w Document,
    pub(super) key: &'w TokenKey,
    pub(super) scope: &'w Scope,
    /// The token that they go to, and its key.
    pub(super) to: (Serial, &'w TokenKey),
    pub(super) moves: bool,
    pub(super) sealer: &'w Sealer,
    /// What makes data keys for the token.
    pub(super) session: Option<&'w Session>,
    pub(super) dry_run: bool,
}

/// The secrets of those records whose data keys matter, by the unique id that each has in the token.
pub(super) struct DataKeys {
    opened: HashMap<Uid, Opened>,
}

impl DataKeys {
    /// Opens what has a data key of its own, in the document and in its place in the token; makes the data keys of what is to be sealed
    /// anew. One KMS call for each.
    ///
    /// # Errors
    /// What a KMS answers; `DataInvalid` for a document that was changed meanwhile; the store's.
    pub(super) fn open(way: &Way<'_>, find: Find<'_>, progress: Progress<'_>) -> Result<Self> {
        let (from, mut opened) = (way.document.head.serial()?, HashMap::new());
        way.document.read(BackupMac::new(way.key), &mut |number, row| {
            let record = Record::open(&from, way.key, row)?;
            progress(number);
            if way.scope.takes(record.attributes()) && record.has_secret() {
                let uid = if way.moves { moved_uid(&from, &way.to.0, &record.uid()) } else { record.uid() };
                opened.extend(way.open(&from, &uid, &record, find)?.map(|one| (uid, one)));
            }
            Ok(())
        })?;
        Ok(Self { opened })
    }

    /// Makes an object of another token of a record.
    ///
    /// # Errors
    /// `DeviceError` when the secret does not open; `DataInvalid` for a document that was changed meanwhile.
    pub(super) fn moved(&self, record: Record, from: (&Serial, &TokenKey), to: &Serial) -> Result<Record> {
        let opened = self.opened.get(&moved_uid(from.0, to, &record.uid()));
        match opened {
            Some(one) => {
                let moved = record.under(one.secret.clone(), None)?.moved(from, to)?;
                moved.under(one.secret.clone(), one.data_key.as_ref())
            }
            None if record.has_data_key() => {
                Err(Error::new(Kind::DataInvalid, "the backup was changed while it was read"))
            }
            None => record.moved(from, to),
        }
    }

    /// Tells whether an object here is what a record says, where one of both has a data key of its own; `None` where neither has.
    ///
    /// # Errors
    /// `FunctionFailed` when another process has changed the object since it was opened; `DeviceError` when it does not open.
    pub(super) fn is_same(&self, here: &Record, record: &Record, token: (&Serial, &TokenKey)) -> Result<Option<bool>> {
        if !here.has_data_key() && !record.has_data_key() {
            return Ok(None);
        }
        let changed = || Error::new(Kind::FunctionFailed, "another process changed a key at the same time; try again");
        let one = self.opened.get(&record.uid()).ok_or_else(changed)?;
        let secret = match (&one.here, here.has_data_key()) {
            (Some((revision, secret)), true) if *revision == here.revision() => secret.clone(),
            (_, true) => return Err(changed()),
            (_, false) => here.stored_secret(token)?,
        };
        Ok(Some(here.is_like(record) && secret == one.secret))
    }
}

impl Way<'_> {
    fn open(&self, from: &Serial, uid: &Uid, record: &Record, find: Find<'_>) -> Result<Option<Opened>> {
        let gets_one = self.moves && self.sealer.gives_data_keys() && record.attributes().has(CKA_SR_OWNER);
        let here = find(uid)?.and_then(Here::sound).filter(Record::has_secret);
        let is_under = here.as_ref().is_some_and(Record::has_data_key);
        if !record.has_data_key() && !gets_one && !is_under {
            return Ok(None);
        }
        let secret = record.opened((from, self.key), self.sealer)?;
        let here = match here.filter(Record::has_data_key) {
            Some(here) => Some((here.revision(), here.opened((&self.to.0, self.to.1), self.sealer)?)),
            None => None,
        };
        // What is there already is not sealed anew, and a dry run makes nothing.
        let is_there = here.as_ref().is_some_and(|here| here.1 == secret);
        let data_key = match gets_one && !is_there && !self.dry_run {
            true => self.session.map(|session| session.make_data_key(uid)).transpose()?,
            false => None,
        };
        Ok(Some(Opened { secret, data_key, here }))
    }
}
