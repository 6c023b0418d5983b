//! Looking at a backup: what it says of itself, and whether it would restore.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde_json::{Value as Json, json};

use super::document::Document;
use super::head::{Head, VERSION};
use super::source::Place;
use super::unlock::{Secrets, open_outer, unlock};
use super::{Progress, recovery};
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::seal::BackupMac;
use crate::store::Uid;
use crate::token::{Record, check_envelopes};

/// The operation as the audit trail names it.
const VERIFY: &str = "SR_VerifyBackup";

/// Tells what a backup says of itself. It needs no key, and nobody vouches for it.
///
/// # Errors
/// `FunctionFailed` when it cannot be read; `DataInvalid` for what is no backup, is damaged, or of a newer format.
pub fn inspect(path: &Path) -> Result<Json> {
    let document = Document::open(path)?;
    let Head { created, library, scope, token, kms, policy, recovery } = &document.head;
    Ok(json!({
        "path": path.display().to_string(),
        "format": VERSION,
        "created": created,
        "library": library,
        "scope": scope,
        "token": { "serial": token.serial, "label": token.label, "user_pin": token.user_envelope.is_some() },
        "kms": kms,
        "policy": policy,
        "recovery": recovery::describe(recovery),
        "records": document.end.records,
    }))
}

/// Proves that a backup would restore: opens every record, and asks the KMS for the outer key. Nothing is written.
///
/// # Errors
/// As [`inspect`]; as opening the token key; `DataInvalid` for a MAC that does not fit; `DeviceError` for a record that does not open.
pub fn verify(place: Place<'_>, path: &Path, secrets: &Secrets, progress: Progress<'_>) -> Result<Json> {
    let document = Document::open(path)?;
    let mut counts = Counts::default();
    let unlocked = place.recorded(&document.head, VERIFY, || {
        let unlocked = unlock(place, &document.head, secrets)?;
        check(&document, &unlocked.key, &mut |record| counts.take(&record), progress)?;
        counts.check_scope(&document.head)?;
        Ok(unlocked)
    })?;
    let mut event = place.event(VERIFY);
    event.detail = format!("a backup of token {}, opened by {}", document.head.token.serial, unlocked.how.text());
    place.note(&document.head, &event, Some(&unlocked.key))?;
    let mut report = inspect(path)?;
    if let Some(report) = report.as_object_mut() {
        report.insert("opened_by".to_owned(), unlocked.how.text().into());
        report.insert("kms_opens".to_owned(), kms(place, &document.head));
        report.insert("objects".to_owned(), json!(counts.classes));
        report.insert("managed_keys".to_owned(), counts.keys.len().into());
        report.insert("owners".to_owned(), counts.owners.len().into());
        report.insert("versions".to_owned(), counts.versions.into());
        report.insert("data_keys".to_owned(), counts.data_keys.into());
    }
    Ok(report)
}

/// Opens every record of a document and checks the MAC. That no object is there twice is part of it.
///
/// # Errors
/// As [`verify`].
pub(super) fn check(
    document: &Document,
    key: &crate::seal::TokenKey,
    visit: &mut dyn FnMut(Record) -> Result<()>,
    progress: Progress<'_>,
) -> Result<()> {
    let (serial, mut seen) = (document.head.serial()?, HashSet::<Uid>::new());
    document.read(BackupMac::new(key), &mut |number, row| {
        if !seen.insert(row.uid) {
            return Err(invalid(document, number, "it was there before"));
        }
        let record = Record::open(&serial, key, row);
        let record = record.map_err(|error| invalid(document, number, "it does not open").caused_by(error))?;
        progress(number);
        visit(record)
    })
}

fn invalid(document: &Document, number: u64, why: &str) -> Error {
    let text =
        format!("the backup {} has a record that was altered (number {number}: {why})", document.path().display());
    Error::new(Kind::DataInvalid, text)
}

/// Tells whether the KMS of this configuration opens the backup: true, or why not.
fn kms(place: Place<'_>, head: &Head) -> Json {
    let profile = place.profile(head);
    let opened = head.row().and_then(|row| {
        let outer = open_outer(head, &row, &profile)?.outer;
        check_envelopes(&row, &profile, &outer)
    });
    match opened {
        Ok(()) => true.into(),
        Err(error) => error.message().into(),
    }
}

/// What a backup holds.
#[derive(Default)]
struct Counts {
    classes: BTreeMap<&'static str, u64>,
    owners: HashSet<Vec<u8>>,
    keys: HashSet<(Vec<u8>, Vec<u8>)>,
    versions: u64,
    /// Keys with a data key of their own, which the KMS alone opens.
    data_keys: u64,
    /// Records that belong to no managed key.
    unmanaged: u64,
}

impl Counts {
    fn take(&mut self, record: &Record) -> Result<()> {
        let attributes = record.attributes();
        let class = attributes.ulong(CKA_CLASS).unwrap_or(CK_UNAVAILABLE_INFORMATION);
        *self.classes.entry(class_name(class)).or_default() += 1;
        self.data_keys += u64::from(record.has_data_key());
        match (attributes.bytes(CKA_SR_OWNER), attributes.bytes(CKA_SR_ASSET)) {
            (Some(owner), Some(asset)) => {
                self.owners.insert(owner.to_vec());
                self.keys.insert((owner.to_vec(), asset.to_vec()));
                self.versions += u64::from(super::super::version::is_secret(attributes));
            }
            _ => self.unmanaged += 1,
        }
        Ok(())
    }

    /// Checks that the records are what the head says.
    fn check_scope(&self, head: &Head) -> Result<()> {
        let fits = match head.scope.as_str() {
            "token" => true,
            "owner" => self.unmanaged == 0 && self.owners.len() == 1,
            "key" => self.unmanaged == 0 && self.keys.len() == 1,
            _ => false,
        };
        match fits {
            true => Ok(()),
            false => {
                Err(Error::new(Kind::DataInvalid, "the backup does not hold what its head says: its scope is wrong"))
            }
        }
    }
}

fn class_name(class: CK_OBJECT_CLASS) -> &'static str {
    match class {
        CKO_DATA => "data",
        CKO_CERTIFICATE => "certificates",
        CKO_PUBLIC_KEY => "public_keys",
        CKO_PRIVATE_KEY => "private_keys",
        CKO_SECRET_KEY => "secret_keys",
        CKO_SR_RECOVERY => "recovery_envelopes",
        _ => "others",
    }
}
