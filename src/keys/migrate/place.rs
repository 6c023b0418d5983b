//! Putting entries into the token.
//!
//! The rules are:
//! - entries are read and prepared before a transaction, and placed in it, so that the store is not locked while passwords are tried;
//! - each transaction places a batch: an entry is there wholly or not at all, and a commit costs the same for a hundred as for one;
//! - whether an entry is there already is found out in the transaction that would place it;
//! - strict: all of them in one transaction, which is given up when one fails;
//! - a dry run does all that but the placing.

use std::collections::HashMap;

use super::report::{Outcome, Summary, Verdict};
use super::{Content, Entry, Key, Origin};
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::keys::managed::{ManagedKeys, Name};
use crate::keys::{Asset, Placed};
use crate::secret::SecureBytes;
use crate::token::{Change, Prepared, Session};

/// How many entries one transaction places.
const BATCH: usize = 100;
/// The most entries that are placed in one transaction, all or none.
const STRICT_MOST: usize = 10_000;
/// What identifies an object that has no secret.
const IDENTITY: [CK_ATTRIBUTE_TYPE; 7] =
    [CKA_CLASS, CKA_ID, CKA_LABEL, CKA_VALUE, CKA_APPLICATION, CKA_OBJECT_ID, CKA_PUBLIC_KEY_INFO];

/// How entries are moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// All or nothing: one that fails holds all others back.
    pub strict: bool,
    /// Nothing is placed; the report says what would be.
    pub dry_run: bool,
}

/// Puts entries into the token of a session. The user must be logged in.
pub struct Mover<'s> {
    keys: ManagedKeys<'s>,
    /// What records call the operation.
    operation: &'static str,
    options: Options,
    /// What a dry run would have placed: its name, and what tells it from another key of that name.
    seen: HashMap<Vec<u8>, SecureBytes>,
}

/// An entry that is ready to be placed.
struct Ready {
    what: What,
    certificates: Vec<Attributes>,
    note: Option<String>,
}

enum What {
    Managed(Name, Prepared),
    Key(Prepared),
    Object(Prepared),
}

impl<'s> Mover<'s> {
    /// Takes a session, and what the records of the audit trail call the operation.
    pub fn new(session: &'s Session, operation: &'static str, options: Options) -> Self {
        Self { keys: ManagedKeys::of(session), operation, options, seen: HashMap::new() }
    }

    /// Moves entries, and hands what became of each to `tell`, in their order, once it is certain. An entry that is an error ends the
    /// work: the source itself cannot be read on.
    ///
    /// # Errors
    /// That of the source; `UserNotLoggedIn`, `SessionReadOnly`; `DataInvalid` for more than 10000 entries with `strict`; the store's;
    /// what `tell` answers. What was told before is done.
    pub fn run(
        &mut self,
        entries: &mut dyn Iterator<Item = Result<Entry>>,
        tell: &mut dyn FnMut(&Outcome) -> Result<()>,
    ) -> Result<Summary> {
        self.keys.session.check_may_be_private(true)?;
        let (mut summary, batch) = (Summary::default(), if self.options.strict { STRICT_MOST } else { BATCH });
        loop {
            let ready = entries.take(batch).map(|entry| self.prepare(entry?)).collect::<Result<Vec<_>>>()?;
            if ready.is_empty() {
                return Ok(summary);
            }
            if self.options.strict && entries.next().is_some() {
                let text =
                    format!("all-or-nothing takes at most {STRICT_MOST} records; split the source, or move it without");
                return Err(Error::new(Kind::DataInvalid, text));
            }
            for outcome in self.place_all(ready)? {
                summary.add(outcome.verdict);
                tell(&outcome)?;
            }
        }
    }

    /// Makes the objects of an entry. Errors that are those of every entry end the work.
    fn prepare(&self, entry: Entry) -> Result<(Origin, Result<Ready>)> {
        let ready = entry.read.and_then(|content| match content {
            Content::Key(key) => self.prepare_key(*key),
            Content::Object(template) => {
                let what = What::Object(self.keys.session.prepare_object(template)?);
                Ok(Ready { what, certificates: Vec::new(), note: None })
            }
        });
        match ready {
            Err(error) if stops_all(error.kind()) => Err(error),
            ready => Ok((entry.origin, ready)),
        }
    }

    fn prepare_key(&self, key: Key) -> Result<Ready> {
        let Key { key, name, kept, certificates, note } = key;
        let what = match name {
            Some(name) => {
                let mut prepared = self.keys.prepare_import(&name, key, &kept)?;
                match self.options.dry_run {
                    true => self.keys.open_to_compare(&name)?,
                    false => self.keys.prepare_place(&name, &mut prepared)?,
                }
                What::Managed(name, prepared)
            }
            None => {
                let mut prepared = self.keys.session.prepare_given(key, Attributes::new(), Attributes::new())?;
                prepared.keep(&kept);
                What::Key(prepared)
            }
        };
        Ok(Ready { what, certificates, note })
    }

    /// Places entries in one transaction.
    fn place_all(&mut self, ready: Vec<(Origin, Result<Ready>)>) -> Result<Vec<Outcome>> {
        let session = self.keys.session;
        let (mut outcomes, mut given_up) = (Vec::with_capacity(ready.len()), false);
        let placed = session.change(session.event(self.operation), |change| {
            for (origin, ready) in ready {
                outcomes.push(match ready {
                    Ok(ready) => self.place(change, origin, ready)?,
                    Err(error) => Outcome::new(origin, Verdict::Failed, Some(error.message())),
                });
            }
            given_up = self.options.strict && outcomes.iter().any(|outcome| outcome.verdict == Verdict::Failed);
            match given_up {
                // Whatever was placed goes with the transaction.
                true => Err(Error::from(Kind::FunctionCanceled)),
                false => Ok(()),
            }
        });
        match placed {
            Err(_) if given_up => withhold(&mut outcomes),
            other => drop(other?),
        }
        Ok(outcomes)
    }

    /// Places one entry; what keeps only this one from it is its outcome.
    fn place(&mut self, change: &mut Change<'_>, origin: Origin, ready: Ready) -> Result<Outcome> {
        let Ready { what, certificates, note } = ready;
        let mut outcome = Outcome::new(origin, Verdict::Failed, None);
        describe(&mut outcome, &what)?;
        let placed = self.place_what(change, what).and_then(|placed| {
            for template in certificates {
                self.place_certificate(change, template, &placed.id)?;
            }
            Ok(placed)
        });
        match placed {
            Ok(Placed { present, version, id }) => {
                self.record(change, &outcome.origin)?;
                outcome.verdict = match (present, self.options.dry_run) {
                    (true, _) => Verdict::Present,
                    (false, true) => Verdict::Importable,
                    (false, false) => Verdict::Imported,
                };
                (outcome.version, outcome.id, outcome.reason) = (version, Some(id), note);
            }
            Err(error) if error.kind() == Kind::ActionProhibited => outcome.reason = Some(error.message()),
            Err(error) => return Err(error),
        }
        Ok(outcome)
    }

    /// Records what was placed of one entry, if anything was.
    fn record(&self, change: &mut Change<'_>, origin: &Origin) -> Result<()> {
        let mut event = self.keys.session.event(self.operation);
        if let (Some(owner), Some(asset)) = (&origin.owner, origin.asset) {
            event = event.of_managed(owner, asset);
        }
        let line = origin.line.map(|line| format!("line {line}"));
        event.detail = origin.source.clone().or(line).map(|source| format!("from {source}")).unwrap_or_default();
        change.record(event)
    }

    fn place_what(&mut self, change: &mut Change<'_>, what: What) -> Result<Placed> {
        match what {
            What::Managed(name, prepared) if self.options.dry_run => match self.keys.there(change, &name, &prepared)? {
                Some(placed) => Ok(placed),
                None => self.pretend(vec![b"name", name.owner().as_bytes(), name.asset.name.as_bytes()], &prepared),
            },
            What::Managed(name, prepared) => self.keys.place(change, &name, prepared),
            What::Key(prepared) => match key_there(change, &prepared)? {
                Some(placed) => Ok(placed),
                None => self.insert(change, prepared, &[CKA_CLASS, CKA_ID]),
            },
            What::Object(prepared) => match object_there(change, &prepared)? {
                Some(placed) => Ok(placed),
                None => self.insert(change, prepared, &IDENTITY),
            },
        }
    }

    /// Stores an object, or notes that it would be; some attributes tell it from others.
    fn insert(&mut self, change: &mut Change<'_>, prepared: Prepared, by: &[CK_ATTRIBUTE_TYPE]) -> Result<Placed> {
        let id = id_of(&prepared);
        if self.options.dry_run {
            let (names, same) = (subset(&prepared, by).encode()?, prepared.fingerprint()?);
            // Keys without an id do not stand in each other's way.
            let told_apart_by = if id.is_empty() { same.expose() } else { b"" };
            let placed = self.pretend(vec![b"object", &names, told_apart_by], &prepared)?;
            return Ok(Placed { id, ..placed });
        }
        change.insert(prepared)?;
        Ok(Placed { present: false, version: None, id })
    }

    /// Notes what a dry run would have placed, and finds what it has placed before.
    fn pretend(&mut self, name: Vec<&[u8]>, prepared: &Prepared) -> Result<Placed> {
        let (name, fingerprint) = (name.join(&0), prepared.fingerprint()?);
        let placed = |present| Placed { present, version: None, id: Vec::new() };
        match self.seen.get(&name) {
            Some(seen) if *seen == fingerprint => Ok(placed(true)),
            Some(_) => {
                let text = "another key of this name or id stands before it in the source";
                Err(Error::new(Kind::ActionProhibited, text))
            }
            None => {
                self.seen.insert(name, fingerprint);
                Ok(placed(false))
            }
        }
    }

    /// Stores a certificate unless it is there; that of the key itself gets the key's id.
    fn place_certificate(&mut self, change: &mut Change<'_>, mut template: Attributes, key_id: &[u8]) -> Result<()> {
        if !template.has(CKA_ID) {
            template.set(CKA_ID, key_id);
        }
        let prepared = self.keys.session.prepare_object(template)?;
        match object_there(change, &prepared)? {
            None if !self.options.dry_run => change.insert(prepared),
            _ => Ok(()),
        }
    }
}

/// Tells whether an error is that of every entry, so that it makes no sense to go on.
fn stops_all(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::UserNotLoggedIn | Kind::SessionReadOnly | Kind::FunctionNotSupported | Kind::TokenWriteProtected
    )
}

/// Makes of what would have been placed what was held back.
fn withhold(outcomes: &mut [Outcome]) {
    for outcome in
        outcomes.iter_mut().filter(|outcome| matches!(outcome.verdict, Verdict::Imported | Verdict::Importable))
    {
        outcome.verdict = Verdict::Withheld;
        outcome.reason = Some("another record fails, and all or nothing was asked for".to_owned());
    }
}

/// Tells in an outcome what is about to be placed.
fn describe(outcome: &mut Outcome, what: &What) -> Result<()> {
    let (asset, prepared): (Option<&Asset>, _) = match what {
        What::Managed(name, prepared) => (Some(name.asset), prepared),
        What::Key(prepared) | What::Object(prepared) => (None, prepared),
    };
    let Some(made) = prepared.attributes() else { return Ok(()) };
    outcome.label = made.bytes(CKA_LABEL).map(|label| String::from_utf8_lossy(label).into_owned());
    if let Some(asset) = asset {
        outcome.address = asset.addresses(made)?.into_iter().next().map(|address| address.1);
    }
    Ok(())
}

fn id_of(prepared: &Prepared) -> Vec<u8> {
    prepared.attributes().and_then(|made| made.bytes(CKA_ID)).unwrap_or_default().to_vec()
}

/// Takes some attributes of what is to be placed as a template to search by.
fn subset(prepared: &Prepared, ids: &[CK_ATTRIBUTE_TYPE]) -> Attributes {
    let made = prepared.attributes();
    ids.iter().filter_map(|id| Some((*id, made?.get(*id)?.clone()))).collect()
}

/// Finds a plain key that is there already; by its id, or by its label where it has none.
///
/// # Errors
/// `ActionProhibited` when its id is that of another key of its class; the store's.
fn key_there(change: &mut Change<'_>, prepared: &Prepared) -> Result<Option<Placed>> {
    let id = id_of(prepared);
    let by = if id.is_empty() { CKA_LABEL } else { CKA_ID };
    let there = change.find(&subset(prepared, &[CKA_CLASS, by]))?;
    for found in &there {
        if change.is_same_key(found, prepared)? {
            return Ok(Some(Placed { present: true, version: found.attributes().ulong(CKA_SR_VERSION), id }));
        }
    }
    match there.is_empty() || id.is_empty() {
        true => Ok(None),
        false => {
            let text = "another key of this class has the same id (CKA_ID); nothing was overwritten";
            Err(Error::new(Kind::ActionProhibited, text))
        }
    }
}

/// Finds an object without a secret that is there already.
fn object_there(change: &mut Change<'_>, prepared: &Prepared) -> Result<Option<Placed>> {
    let there = !change.find(&subset(prepared, &IDENTITY))?.is_empty();
    Ok(there.then(|| Placed { present: true, version: None, id: id_of(prepared) }))
}
