//! Adding records: to the store first, then copies to the other sinks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::chain::{self, Hash, Signer};
use super::event::Event;
use super::json;
use super::record::{Record, UNSIGNED};
use super::sink::Sink;
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::store::{AuditRow, Serial, Store, Transaction};

/// How often it is told that records are lost, in milliseconds.
const WARN_MILLIS: u64 = 60_000;

/// What happens when no sink takes a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is recorded.
    Off,
    /// The operation goes on, and a warning is logged.
    BestEffort,
    /// The operation is refused.
    Required,
}

/// How records are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// What happens when no sink takes a record.
    pub mode: Mode,
    /// Whether uses of keys are recorded too, and not only changes.
    pub key_use: bool,
    /// Who gets copies.
    pub copies: Vec<Sink>,
}

/// A record that the store has taken, or is about to, as the other sinks see it; nothing where there are none.
#[derive(Debug)]
#[must_use]
pub struct Line(Option<String>);

/// Who signs a record, and who has signed the end before it.
#[derive(Clone, Copy)]
pub struct Signers<'s> {
    /// Who signs.
    pub now: &'s dyn Signer,
    /// Who signed before: another one where the token gets a new key with this record.
    pub before: &'s dyn Signer,
}

impl<'s> Signers<'s> {
    /// Takes who signs as who has signed.
    pub fn of(signer: &'s dyn Signer) -> Self {
        Self { now: signer, before: signer }
    }
}

/// Adds records.
pub struct Trail {
    rules: Rules,
    started: Instant,
    /// When it was last told that records are lost, in milliseconds since `started`, plus 1; 0 is never.
    warned: AtomicU64,
}

impl Trail {
    /// Makes one.
    pub fn new(rules: Rules) -> Self {
        Self { rules, started: Instant::now(), warned: AtomicU64::new(0) }
    }

    /// Tells whether anything is recorded.
    pub fn is_on(&self) -> bool {
        self.rules.mode != Mode::Off
    }

    /// Tells whether uses of keys are recorded.
    #[inline]
    pub fn records_key_use(&self) -> bool {
        self.rules.key_use && self.is_on()
    }

    /// Adds the record of a change in the transaction of that change. The copy goes out with [`Self::copy`] once it is committed.
    ///
    /// # Errors
    /// In the mode `required`, `FunctionRejected` when the record cannot be added.
    pub fn append(
        &self,
        transaction: &mut dyn Transaction,
        token: &Serial,
        event: &Event,
        signers: Option<Signers<'_>>,
    ) -> Result<Option<Line>> {
        if !self.is_on() {
            return Ok(None);
        }
        match self.add(transaction, token, event, signers) {
            Ok(line) => Ok(Some(line)),
            Err(error) => self.lost(error).map(|()| None),
        }
    }

    /// Sends a committed record to the other sinks. What they do not take is told in the log; the store has it.
    pub fn copy(&self, line: Option<Line>) {
        let Some(Line(Some(line))) = line else { return };
        for (sink, error) in self.refusals(&line) {
            self.warn(format_args!("{sink} does not take the record, which the store has: {error}"));
        }
    }

    /// Adds the record of what changes nothing in the store, in a transaction of its own. When the store does not take it, another
    /// sink may: there it stands with the number 0. Of what `check` does not recognise the token nothing is recorded: who signs has the
    /// key of another one.
    ///
    /// # Errors
    /// `TokenNotRecognized` when `check` says so; in the mode `required`, `FunctionRejected` when no sink takes it; each has a bounded time.
    pub fn record(
        &self,
        store: &dyn Store,
        token: &Serial,
        event: &Event,
        signer: Option<&dyn Signer>,
        check: &dyn Fn(&mut dyn Transaction) -> Result<()>,
    ) -> Result<()> {
        if !self.is_on() {
            return Ok(());
        }
        let mut line = None;
        let stored = store.write(&mut |transaction| {
            check(transaction)?;
            line = Some(self.add(transaction, token, event, signer.map(Signers::of))?);
            Ok(())
        });
        event.tell();
        match stored {
            Ok(()) => self.copy(line),
            Err(error) if error.kind() == Kind::TokenNotRecognized => return Err(error),
            Err(error) if self.taken_without_store(token, event, signer) => {
                self.warn(format_args!("the store does not take the record, which another sink has: {error}"));
            }
            // A store that can only be read is no fault of it.
            Err(_) if store.read_only() && self.rules.mode == Mode::BestEffort => {}
            Err(error) => return self.lost(error),
        }
        Ok(())
    }

    /// Tells whether another sink than the store takes a record that stands alone.
    fn taken_without_store(&self, token: &Serial, event: &Event, signer: Option<&dyn Signer>) -> bool {
        let record = Record::of(event, token, 0, now(), signer.map_or(UNSIGNED, Signer::id));
        let (row, _) = seal(&record, (&chain::start(token), &[]), signer);
        self.refusals(&text(&record, &row)).len() < self.rules.copies.len()
    }

    /// Tells whether the end may move on to a new record: only from where it is right. One that is not stays as it is, for whoever
    /// verifies: a new one in its place would hide what was cut off.
    fn may_move_end(
        &self,
        transaction: &mut dyn Transaction,
        token: &Serial,
        last: Option<&AuditRow>,
        signer: &dyn Signer,
    ) -> Result<bool> {
        let right = match transaction.audit_end(token)? {
            Some(end) => {
                let named = match last.filter(|last| last.sequence == end.sequence) {
                    Some(last) => Some(last.clone()),
                    None => transaction.audit_at(token, end.sequence)?,
                };
                named.is_some_and(|row| chain::is_end(&row.hash, &end.tag, signer))
            }
            None => last.is_none() || !transaction.audit_is_signed(token)?,
        };
        if !right {
            self.warn(format_args!("the end of the trail is not as it was signed; run `strongroom audit verify`"));
        }
        Ok(right)
    }

    /// Adds a record after the last one of its token.
    fn add(
        &self,
        transaction: &mut dyn Transaction,
        token: &Serial,
        event: &Event,
        signers: Option<Signers<'_>>,
    ) -> Result<Line> {
        let last = transaction.audit_last(token)?;
        let sequence = last.as_ref().map_or(Some(1), |last| last.sequence.checked_add(1));
        let sequence = sequence.ok_or_else(|| Error::damaged("the last row of the audit trail"))?;
        let moves = match signers {
            Some(signers) => self.may_move_end(transaction, token, last.as_ref(), signers.before)?,
            None => false,
        };
        let (previous, tag) =
            last.map_or_else(|| (chain::start(token).to_vec(), Vec::new()), |last| (last.hash, last.tag));
        let signer = signers.map(|signers| signers.now);
        let record = Record::of(event, token, sequence, now(), signer.map_or(UNSIGNED, Signer::id));
        let (row, end) = seal(&record, (&previous, &tag), signer);
        transaction.append_audit(token, &row, end.as_ref().filter(|_| moves).map(Hash::as_slice))?;
        event.tell();
        Ok(Line((!self.rules.copies.is_empty()).then(|| text(&record, &row))))
    }

    /// Writes a line to each sink and lists those that do not take it.
    fn refusals(&self, line: &str) -> Vec<(&Sink, std::io::Error)> {
        self.rules.copies.iter().filter_map(|sink| Some((sink, sink.write(line).err()?))).collect()
    }

    /// Decides what becomes of an operation whose record nobody takes.
    fn lost(&self, error: Error) -> Result<()> {
        if self.rules.mode == Mode::Required {
            let text = "no sink of [audit] takes the record, and mode = \"required\" allows nothing without one; nothing was done";
            return Err(Error::new(Kind::FunctionRejected, text).caused_by(error));
        }
        self.warn(format_args!("an operation goes on without a record: {error}"));
        Ok(())
    }

    /// Warns, once a minute at most.
    fn warn(&self, text: std::fmt::Arguments<'_>) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let last = self.warned.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= WARN_MILLIS;
        if due && self.warned.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            log::warn!("audit: {text}; this is told once a minute at most");
        }
    }
}

/// Chains a record to the hash and the tag before it, and signs it; also as the end of its trail.
fn seal(record: &Record, (previous, tag): (&[u8], &[u8]), signer: Option<&dyn Signer>) -> (AuditRow, Option<Hash>) {
    let encoded = record.encode();
    let hash: Hash = chain::link(previous, tag, &encoded);
    let tag = signer.map_or_else(Vec::new, |signer| signer.tag(&hash).to_vec());
    let end = signer.map(|signer| signer.tag(&chain::end(&hash)));
    (AuditRow { sequence: record.sequence, record: encoded, hash: hash.to_vec(), tag }, end)
}

fn text(record: &Record, row: &AuditRow) -> String {
    json::line(record, &row.hash, &row.tag)
}

/// Tells the milliseconds since 1970.
fn now() -> u64 {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
    u64::try_from(millis).unwrap_or(u64::MAX)
}
