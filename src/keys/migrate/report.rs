//! What became of each entry, as a line of a report. No secret is ever part of it.

use serde_json::{Value as Json, json};

use super::Origin;

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the token now.
    Imported,
    /// It was in the token already.
    Present,
    /// It cannot be moved.
    Failed,
    /// It would be moved: nothing is, in a dry run.
    Importable,
    /// It could be moved, and was not, because another one cannot be (strict).
    Withheld,
}

impl Verdict {
    /// Names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Imported => "imported",
            Self::Present => "present",
            Self::Failed => "failed",
            Self::Importable => "importable",
            Self::Withheld => "withheld",
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Where the entry comes from.
    pub origin: Origin,
    /// What became of it.
    pub verdict: Verdict,
    /// The version that it is, of a managed key.
    pub version: Option<u64>,
    /// The label of the object.
    pub label: Option<String>,
    /// Its `CKA_ID`.
    pub id: Option<Vec<u8>>,
    /// Its address in the asset's usual form.
    pub address: Option<String>,
    /// Why it failed, or what should be known of it.
    pub reason: Option<String>,
}

impl Outcome {
    /// Makes the outcome of an entry of which nothing more is known.
    pub fn new(origin: Origin, verdict: Verdict, reason: Option<String>) -> Self {
        Self { origin, verdict, version: None, label: None, id: None, address: None, reason }
    }

    /// Describes it as a JSON object.
    pub fn to_json(&self) -> Json {
        json!({
            "source": self.origin.source,
            "line": self.origin.line,
            "owner": self.origin.owner,
            "asset": self.origin.asset,
            "result": self.verdict.name(),
            "version": self.version,
            "label": self.label,
            "id": self.id.as_ref().map(|id| data_encoding::HEXLOWER.encode(id)),
            "address": self.address,
            "reason": self.reason,
        })
    }
}

/// How many entries came to which end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Those that are in the token now, or would be after a dry run.
    pub imported: u64,
    /// Those that were there already.
    pub present: u64,
    /// Those that cannot be moved.
    pub failed: u64,
    /// Those that were held back because of them (strict).
    pub withheld: u64,
}

impl Summary {
    /// Counts an outcome.
    pub fn add(&mut self, verdict: Verdict) {
        let count = match verdict {
            Verdict::Imported | Verdict::Importable => &mut self.imported,
            Verdict::Present => &mut self.present,
            Verdict::Failed => &mut self.failed,
            Verdict::Withheld => &mut self.withheld,
        };
        *count = count.saturating_add(1);
    }

    /// Tells how many there are in all.
    pub fn total(&self) -> u64 {
        self.imported.saturating_add(self.present).saturating_add(self.failed).saturating_add(self.withheld)
    }
}
