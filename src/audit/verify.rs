//! Going through a trail: each record is held against the one before it, in constant memory.
//!
//! What each check finds:
//! - the numbers follow each other: a record that was cut out, inserted, or put elsewhere;
//! - the hash is that of the record and the hash before it: any change of a byte;
//! - the signature is the token key's: a chain that was made anew by someone who has not got the key;
//! - what is not signed tells of no success, and the last success is covered by a signature: a tail that somebody added;
//! - the last record that was signed is signed once more as the end, apart from the records: an end that was cut off. That
//!   signature changes with each record, so that who would put an old one there must have kept it from that time;
//! - the first record that the token's key signed is that of what gave the token its key: a trail without its beginning, or one that was
//!   deleted as a whole. A trail that was begun later, since nothing was recorded then, looks the same: who knows better names a record
//!   that he has seen ([`Anchor`]).
//!
//! What nothing in the database can show is that all of it is an old copy, or what stood unsigned after the last signature: for
//! that, keep the head that a verification told ([`Anchor`]), or a copy in another sink.

use data_encoding::HEXLOWER;

use super::chain::{self, Hash, Signer};
use super::record::Record;
use crate::error;
use crate::store::{AuditEnd, AuditRow, Serial};

/// The operations that give a token the key which signs its records.
const BEGINNINGS: [&str; 2] = ["C_InitToken", "SR_ImportBackup"];
/// How many faults a report tells in words.
const MOST_FAULTS: usize = 16;

/// One fault and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The number of the record.
    pub sequence: u64,
    /// What is wrong.
    pub text: String,
}

/// A record that was seen before and must still be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Its number.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// How many records there are.
    pub records: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// The number of the last one.
    pub last: u64,
    /// The hash of the last one.
    pub head: Vec<u8>,
    /// Whether signatures were checked, for which the token key must be at hand.
    pub signatures_checked: bool,
    /// The last record that the present token key signed; all up to it are vouched for.
    pub signed_to: u64,
    /// How often a record is older than the one before it: the clock was set back. No fault.
    pub clock_steps: u64,
    /// How many faults there are.
    pub fault_count: u64,
    /// The first of them.
    pub faults: Vec<Fault>,
}

impl Report {
    /// Tells whether no fault was found.
    pub fn is_clean(&self) -> bool {
        self.fault_count == 0
    }

    /// Writes it as JSON.
    pub fn json(&self) -> serde_json::Value {
        let faults =
            self.faults.iter().map(|fault| serde_json::json!({ "sequence": fault.sequence, "text": fault.text }));
        serde_json::json!({
            "ok": self.is_clean(),
            "records": self.records,
            "bytes": self.bytes,
            "last": self.last,
            "head": HEXLOWER.encode(&self.head),
            "signatures_checked": self.signatures_checked,
            "signed_to": self.signed_to,
            "clock_steps": self.clock_steps,
            "fault_count": self.fault_count,
            "faults": faults.collect::<Vec<_>>(),
        })
    }

    fn fault(&mut self, sequence: u64, text: impl Into<String>) {
        self.fault_count = self.fault_count.saturating_add(1);
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(Fault { sequence, text: text.into() });
        }
    }
}

/// Goes through the trail of one token.
pub struct Verifier<'s> {
    token: Serial,
    signer: Option<&'s dyn Signer>,
    anchor: Option<Anchor>,
    /// The end that the store has.
    end: Option<AuditEnd>,
    /// Whether the record of the end was there.
    ended: bool,
    /// Some record is signed.
    any_signed: bool,
    /// The first record that the token's key has signed, where it is no beginning.
    begun_late: Option<u64>,
    /// The hash and the tag that stand before the next record.
    previous: (Vec<u8>, Vec<u8>),
    /// The time of the last record.
    time: u64,
    /// The last record that tells of a success.
    last_success: u64,
    report: Report,
}

impl<'s> Verifier<'s> {
    /// Starts; without a signer the chain alone is checked. The end is that which the store told before it is asked for the records,
    /// so that those which other processes add meanwhile come after it.
    pub fn new(token: &Serial, signer: Option<&'s dyn Signer>, anchor: Option<Anchor>, end: Option<AuditEnd>) -> Self {
        let previous = (chain::start(token).to_vec(), Vec::new());
        let report = Report { signatures_checked: signer.is_some(), ..Report::default() };
        let (ended, any_signed, begun_late, time, last_success) = (false, false, None, 0, 0);
        Self { token: *token, signer, anchor, end, ended, any_signed, begun_late, previous, time, last_success, report }
    }

    /// Takes the next record.
    pub fn take(&mut self, row: &AuditRow) {
        self.check_number(row.sequence);
        let hash = chain::link(&self.previous.0, &self.previous.1, &row.record);
        if hash.as_slice() != row.hash {
            self.fault(row, "was altered, or does not follow from the record before it");
        }
        match Record::decode(&row.record) {
            Some(record) => self.check_record(row, &record),
            None => self.fault(row, "cannot be read"),
        }
        if let Some(anchor) = self.anchor.filter(|anchor| anchor.sequence == row.sequence)
            && row.hash != anchor.hash
        {
            self.fault(row, "is not the one that was seen here before");
        }
        self.check_end(row);
        self.report.records = self.report.records.saturating_add(1);
        let bytes = row.record.len().saturating_add(row.hash.len()).saturating_add(row.tag.len());
        self.report.bytes = self.report.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.report.last = row.sequence;
        self.previous.0.clone_from(&row.hash);
        self.previous.1.clone_from(&row.tag);
    }

    /// Holds the end that the store has against the record that it names.
    fn check_end(&mut self, row: &AuditRow) {
        self.any_signed |= !row.tag.is_empty();
        let Some(end) = self.end.as_ref().filter(|end| end.sequence == row.sequence) else { return };
        self.ended = true;
        if !self.signer.is_none_or(|signer| chain::is_end(&row.hash, &end.tag, signer)) {
            self.fault(row, "is the end of the trail by a signature that is not the token's key's");
        }
    }

    /// Requires the record that the store names as the end.
    fn check_ended(&mut self, last: u64) {
        match &self.end {
            Some(end) if end.sequence > last => {
                let (first, end) = (last.saturating_add(1), end.sequence);
                self.report.fault(first, format!("the end is cut off: records {first} to {end} are missing"));
            }
            Some(end) if !self.ended => {
                let (sequence, text) = (end.sequence, "is named as the end and is not there");
                self.report.fault(sequence, text);
            }
            None if self.any_signed => self.report.fault(last, "the signature of the trail's end is missing"),
            _ => {}
        }
    }

    fn fault(&mut self, row: &AuditRow, text: &str) {
        self.report.fault(row.sequence, text);
    }

    /// Requires the number after the last one.
    fn check_number(&mut self, sequence: u64) {
        let expected = self.report.last.saturating_add(1);
        let text = match sequence.cmp(&expected) {
            std::cmp::Ordering::Equal => return,
            std::cmp::Ordering::Less => "stands at the wrong place".to_owned(),
            std::cmp::Ordering::Greater => format!("records {expected} to {} are missing before it", sequence - 1),
        };
        self.report.fault(sequence, text);
    }

    /// Holds what a record says against where it stands and who signed it.
    fn check_record(&mut self, row: &AuditRow, record: &Record) {
        if record.sequence != row.sequence || record.token != self.token {
            let token = String::from_utf8_lossy(&record.token).into_owned();
            self.fault(row, &format!("is record {} of token {token} in truth", record.sequence));
        }
        if record.result == error::OK {
            self.last_success = row.sequence;
            if !record.is_signed() {
                self.fault(row, "tells of a success and is not signed");
            }
        }
        match record.is_signed() {
            true => self.check_signature(row, record),
            false if row.tag.is_empty() => {}
            false => self.fault(row, "has a signature that nobody made"),
        }
        self.report.clock_steps = self.report.clock_steps.saturating_add(u64::from(record.time < self.time));
        self.time = record.time;
    }

    fn check_signature(&mut self, row: &AuditRow, record: &Record) {
        let Some(signer) = self.signer else {
            if row.tag.len() != size_of::<Hash>() {
                self.fault(row, "lacks its signature");
            }
            return;
        };
        let hash: Option<&Hash> = row.hash.as_slice().try_into().ok();
        match record.signer == signer.id() {
            true if hash.is_some_and(|hash| signer.verify(hash, &row.tag)) => self.check_beginning(row, record),
            true => self.fault(row, "has a wrong signature"),
            // Another initialisation of the token had another key; what it signed is covered by what came after.
            false if self.report.signed_to == 0 && row.tag.len() == size_of::<Hash>() => {}
            false => self.fault(row, "is signed by another key than the token's"),
        }
    }

    /// Takes a record that the token's key has signed, and notes where the first one is not of what gave the token this key.
    fn check_beginning(&mut self, row: &AuditRow, record: &Record) {
        let is_beginning = record.result == error::OK && BEGINNINGS.contains(&record.operation.as_str());
        if self.report.signed_to == 0 && !is_beginning {
            self.begun_late = Some(row.sequence);
        }
        self.report.signed_to = row.sequence;
    }

    /// Requires the beginning, unless it is known from elsewhere that the trail is the right one.
    fn check_begun(&mut self) {
        if self.signer.is_none() || self.anchor.is_some() {
            return;
        }
        let why = "was removed, or `[audit]` was off then; a head that was kept and is expected settles which";
        match self.begun_late {
            Some(sequence) => {
                let text =
                    format!("is the first that the token's key has signed, and no beginning: what was before it {why}");
                self.report.fault(sequence, text);
            }
            None if self.report.signed_to == 0 => {
                let text = format!("nothing is signed by the token's key: what it has signed {why}");
                self.report.fault(1, text);
            }
            None => {}
        }
    }

    /// Ends, and tells what was found.
    pub fn finish(mut self) -> Report {
        let (last, signed_to) = (self.report.last, self.report.signed_to);
        if self.signer.is_some() && self.last_success > signed_to {
            let text = format!("records {} to {last} are covered by no signature of the token's key", signed_to + 1);
            self.report.fault(self.last_success, text);
        }
        if let Some(anchor) = self.anchor.filter(|anchor| anchor.sequence > last) {
            self.report.fault(last, format!("the trail ends here, and record {} was seen before", anchor.sequence));
        }
        self.check_begun();
        self.check_ended(last);
        self.report.head = self.previous.0;
        self.report
    }
}
