//! A copy of a trail that a file sink kept, held against the trail line by line.
//!
//! The rules are:
//! - a line is that of its record to the byte, or a fault: the copy proves the trail, and the trail the copy;
//! - lines of several processes come in any order, and a file that was rotated begins where it begins: what lies between its first
//!   and its last record must be there, once;
//! - lines of other tokens are none of this trail, and a line with the number 0 tells of what the store did not take.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::json;
use super::record::Record;
use crate::error::{Error, Kind, Result};
use crate::store::{AuditRow, Serial, Store};

/// How many faults a report tells in words.
const MOST_FAULTS: usize = 16;
/// How many records are kept at hand: lines hardly ever stand further from their place.
const WINDOW: usize = 2048;
/// How far before a record the window begins.
const BEFORE: u64 = 512;

/// One fault and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFault {
    /// The number of the line, from 1; 0 for what is not in the file.
    pub line: u64,
    /// What is wrong.
    pub text: String,
}

/// What was found of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyReport {
    /// How many lines tell of a record of the trail, and are that of the record.
    pub lines: u64,
    /// The first and the last record that the copy has; 0 when it has none.
    pub range: (u64, u64),
    /// How many lines tell of what the store did not take.
    pub alone: u64,
    /// How many lines are those of other tokens.
    pub others: u64,
    /// How many faults there are.
    pub fault_count: u64,
    /// The first of them.
    pub faults: Vec<CopyFault>,
}

impl CopyReport {
    /// Tells whether no fault was found.
    pub fn is_clean(&self) -> bool {
        self.fault_count == 0
    }

    /// Writes it as JSON.
    pub fn json(&self) -> serde_json::Value {
        let faults = self.faults.iter().map(|fault| serde_json::json!({ "line": fault.line, "text": fault.text }));
        serde_json::json!({
            "ok": self.is_clean(),
            "lines": self.lines,
            "first": self.range.0,
            "last": self.range.1,
            "alone": self.alone,
            "others": self.others,
            "fault_count": self.fault_count,
            "faults": faults.collect::<Vec<_>>(),
        })
    }

    fn fault(&mut self, line: u64, text: String) {
        self.fault_count = self.fault_count.saturating_add(1);
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(CopyFault { line, text });
        }
    }
}

/// Where a line belongs.
#[derive(Deserialize)]
struct Place<'l> {
    sequence: u64,
    token: &'l str,
}

/// Goes through a copy.
pub struct CopyVerifier<'s> {
    store: &'s dyn Store,
    token: Serial,
    /// Records at hand, in order.
    window: Vec<AuditRow>,
    seen: Ranges,
    line: u64,
    report: CopyReport,
}

impl<'s> CopyVerifier<'s> {
    /// Starts.
    pub fn new(store: &'s dyn Store, token: &Serial) -> Self {
        let (seen, report) = (Ranges::default(), CopyReport::default());
        Self { store, token: *token, window: Vec::new(), seen, line: 0, report }
    }

    /// Takes the next line, without its end.
    ///
    /// # Errors
    /// `DeviceError` when the store cannot be read.
    pub fn take(&mut self, text: &str) -> Result<()> {
        self.line = self.line.saturating_add(1);
        let Ok(Place { sequence, token }) = serde_json::from_str(text) else {
            self.fault("is no line of an audit trail");
            return Ok(());
        };
        match sequence {
            _ if token.as_bytes() != self.token => self.report.others = self.report.others.saturating_add(1),
            0 => self.report.alone = self.report.alone.saturating_add(1),
            _ => self.check(sequence, text)?,
        }
        Ok(())
    }

    fn check(&mut self, sequence: u64, text: &str) -> Result<()> {
        let Some(row) = self.row(sequence)? else {
            self.fault(&format!("tells of record {sequence}, which the trail does not have"));
            return Ok(());
        };
        let genuine = Record::decode(&row.record).map(|record| json::line(&record, &row.hash, &row.tag));
        match genuine {
            Some(genuine) if genuine == text && self.seen.insert(sequence) => {
                self.report.lines = self.report.lines.saturating_add(1);
            }
            Some(genuine) if genuine == text => self.fault(&format!("tells of record {sequence} once more")),
            _ => self.fault(&format!("differs from record {sequence} of the trail")),
        }
        Ok(())
    }

    fn fault(&mut self, text: &str) {
        self.report.fault(self.line, text.to_owned());
    }

    /// Finds a record of the trail.
    fn row(&mut self, sequence: u64) -> Result<Option<AuditRow>> {
        let find = |window: &[AuditRow]| window.binary_search_by_key(&sequence, |row| row.sequence).ok();
        if find(&self.window).is_none() {
            self.read_window(sequence)?;
        }
        Ok(find(&self.window).and_then(|at| self.window.get(at)).cloned())
    }

    fn read_window(&mut self, sequence: u64) -> Result<()> {
        let window = &mut self.window;
        window.clear();
        let after = sequence.saturating_sub(BEFORE);
        let read = self.store.audit(&self.token, after, &mut |row| {
            if window.len() == WINDOW {
                return Err(Error::from(Kind::BufferTooSmall));
            }
            window.push(row);
            Ok(())
        });
        match read {
            // There are more than fit in the window.
            Err(error) if error.kind() == Kind::BufferTooSmall => Ok(()),
            other => other,
        }
    }

    /// Ends, and tells what was found.
    pub fn finish(mut self) -> CopyReport {
        for (first, last) in self.seen.gaps() {
            let which =
                if first == last { format!("record {first} is") } else { format!("records {first} to {last} are") };
            self.report.fault(0, format!("{which} missing"));
        }
        self.report.range = self.seen.span();
        self.report
    }
}

/// Numbers, as the first and last of each row of them without a gap.
#[derive(Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Takes a number; tells whether it is new.
    fn insert(&mut self, number: u64) -> bool {
        let before = self.0.range(..=number).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| last >= number) {
            return false;
        }
        let first = before.filter(|(_, last)| last.checked_add(1) == Some(number)).map_or(number, |(first, _)| first);
        let last = number.checked_add(1).and_then(|next| self.0.remove(&next)).unwrap_or(number);
        self.0.insert(first, last);
        true
    }

    fn span(&self) -> (u64, u64) {
        let first = self.0.first_key_value().map_or(0, |(first, _)| *first);
        (first, self.0.last_key_value().map_or(0, |(_, last)| *last))
    }

    fn gaps(&self) -> Vec<(u64, u64)> {
        let ends = self.0.values().map(|last| last.saturating_add(1));
        let starts = self.0.keys().skip(1).map(|first| first.saturating_sub(1));
        ends.zip(starts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_grow_together_and_tell_their_gaps() {
        let mut ranges = Ranges::default();
        for (number, new) in [(5, true), (7, true), (6, true), (6, false), (5, false), (7, false), (1, true), (9, true)]
        {
            assert_eq!(ranges.insert(number), new, "{number}");
        }
        assert_eq!((ranges.span(), ranges.gaps()), ((1, 9), vec![(2, 4), (8, 8)]));
        assert!(ranges.insert(u64::MAX) && !ranges.insert(u64::MAX));
        assert_eq!(Ranges::default().span(), (0, 0));
    }
}
