//! A record as one line of JSON, for export and for sinks.

use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use serde::Serialize;

use super::record::Record;
use crate::ck::mechanism_name;
use crate::error::{self, Kind};

/// The fields of a line, in their order.
#[derive(Serialize)]
struct Fields<'a> {
    sequence: u64,
    time: String,
    token: String,
    operation: &'a str,
    result: String,
    user: &'static str,
    session: String,
    mechanism: Option<String>,
    keys: Vec<KeyFields>,
    owner: Option<&'a str>,
    asset: Option<&'a str>,
    pid: u32,
    uid: u32,
    executable: &'a str,
    detail: &'a str,
    signer: Option<String>,
    hash: String,
    tag: Option<String>,
}

/// A key of a line.
#[derive(Serialize)]
struct KeyFields {
    id: String,
    version: u32,
}

/// Writes a record as one line of JSON without its end.
pub fn line(record: &Record, hash: &[u8], tag: &[u8]) -> String {
    let optional = |bytes: &[u8]| record.is_signed().then(|| HEXLOWER.encode(bytes));
    let keys = record.keys.iter().map(|key| KeyFields { id: HEXLOWER.encode(&key.uid), version: key.version });
    let [owner, asset] = record.managed.each_ref().map(|text| Some(text.as_str()).filter(|text| !text.is_empty()));
    let fields = Fields {
        sequence: record.sequence,
        time: time(record.time),
        token: String::from_utf8_lossy(&record.token).into_owned(),
        operation: &record.operation,
        result: result(record.result),
        user: record.user.name(),
        session: format!("{:016x}", record.session),
        mechanism: record.mechanism.map(mechanism_name),
        keys: keys.collect(),
        owner,
        asset,
        pid: record.origin.process,
        uid: record.origin.user,
        executable: &record.origin.executable,
        detail: &record.detail,
        signer: optional(&record.signer),
        hash: HEXLOWER.encode(hash),
        tag: optional(tag),
    };
    serde_json::to_string(&fields).expect("texts and numbers can be written as JSON")
}

/// Writes a time in UTC; one that no clock shows stays a number.
fn time(millis: u64) -> String {
    /// The end of the year 9999.
    const LAST: u64 = 253_402_300_799_999;
    match SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)) {
        Some(time) if millis <= LAST => humantime::format_rfc3339_millis(time).to_string(),
        _ => millis.to_string(),
    }
}

/// Names a return value as the standard does.
fn result(rv: u64) -> String {
    match Kind::ALL.iter().find(|kind| kind.rv() == rv) {
        _ if rv == error::OK => "CKR_OK".to_owned(),
        Some(kind) => kind.name().to_owned(),
        None => format!("{rv:#x}"),
    }
}
