//! What a provider's requests came to, for `SR_GetKmsStatus` and `strongroom kms status`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::Serialize;

use crate::error::{Error, Result};

/// The name under which errors are counted that are no fault of the KMS: a finalised library, no memory.
const OTHER: &str = "other";

/// Counts requests. One small lock: it is taken twice for each request, which takes milliseconds.
#[derive(Debug, Default)]
pub struct Health {
    counts: Mutex<Counts>,
}

/// What is known of all requests so far.
#[derive(Debug, Clone, Default)]
struct Counts {
    requests: u64,
    faults: BTreeMap<&'static str, u64>,
    last_error: Option<LastError>,
    last_latency_ms: Option<u64>,
}

/// The error that came last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// The whole text.
    pub text: String,
    /// When it came, in UTC (RFC 3339).
    pub time: String,
}

/// What the breaker does now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BreakerReport {
    /// `closed`: the provider is asked; `open`: it is not; `half-open`: one request finds out.
    pub state: &'static str,
    /// Since when it is not asked, in UTC (RFC 3339).
    pub away_since: Option<String>,
    /// When it is asked next, in milliseconds from now.
    pub next_try_ms: Option<u64>,
}

/// What the fallback did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FallbackReport {
    /// Its name in the configuration.
    pub name: String,
    /// How often it unwrapped in place of the provider.
    pub unwraps: u64,
}

/// What a provider's requests came to since the library was initialised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthReport {
    /// How many requests were made, each try counted.
    pub requests: u64,
    /// How many of them failed, by the name of the fault.
    pub faults: BTreeMap<&'static str, u64>,
    /// The error that came last.
    pub last_error: Option<LastError>,
    /// How long the last request took.
    pub last_latency_ms: Option<u64>,
    /// Whether the provider is asked at present.
    pub breaker: BreakerReport,
    /// The fallback, if there is one.
    pub fallback: Option<FallbackReport>,
}

impl Health {
    /// Counts a request that took so long and ended at this time.
    pub fn count<T>(&self, answer: &Result<T>, took: Duration, at: SystemTime) {
        let failed = answer.as_ref().err().map(|error| (fault_name(error), last_error(error, at)));
        let mut counts = self.counts.lock();
        counts.requests = counts.requests.saturating_add(1);
        counts.last_latency_ms = Some(millis(took));
        if let Some((fault, error)) = failed {
            let count = counts.faults.entry(fault).or_default();
            *count = count.saturating_add(1);
            counts.last_error = Some(error);
        }
    }

    /// Tells everything counted so far.
    pub fn report(&self, breaker: BreakerReport) -> HealthReport {
        let Counts { requests, faults, last_error, last_latency_ms } = self.counts.lock().clone();
        HealthReport { requests, faults, last_error, last_latency_ms, breaker, fallback: None }
    }
}

fn fault_name(error: &Error) -> &'static str {
    error.kms_fault().map_or(OTHER, |fault| fault.name())
}

fn last_error(error: &Error, at: SystemTime) -> LastError {
    LastError { text: error.message(), time: utc(at) }
}

/// Writes a time in UTC, to the second.
pub fn utc(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Tells a duration in whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Kind, KmsFault};

    #[test]
    fn requests_are_counted_by_fault_and_the_report_is_json() {
        let (health, at) = (Health::default(), SystemTime::UNIX_EPOCH);
        health.count(&Ok(()), Duration::from_millis(7), at);
        for fault in [KmsFault::Denied, KmsFault::Throttled(None), KmsFault::Throttled(Some(Duration::MAX))] {
            health.count::<()>(&Err(Error::kms(fault, "no")), Duration::from_millis(8), at);
        }
        health.count::<()>(&Err(Kind::FunctionCanceled.into()), Duration::MAX, at);
        let breaker = BreakerReport { state: "closed", away_since: None, next_try_ms: None };
        let report = serde_json::to_value(health.report(breaker)).expect("it is JSON");
        let expected = serde_json::json!({
            "requests": 5,
            "faults": { "denied": 1, "throttled": 2, "other": 1 },
            "last_error": { "text": Kind::FunctionCanceled.text(), "time": "1970-01-01T00:00:00Z" },
            "last_latency_ms": u64::MAX,
            "breaker": { "state": "closed", "away_since": null, "next_try_ms": null },
            "fallback": null,
        });
        assert_eq!(report, expected);
    }
}
