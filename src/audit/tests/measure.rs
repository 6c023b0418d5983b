//! A trail of 1 GiB on disk: how fast it is written and verified, in how much memory, and whether one wrong bit in it is found.
//!
//! `make bench` runs it, or alone:
//!
//! ```sh
//! cargo test --release --lib -- --ignored --nocapture audit::tests::measure
//! ```
//!
//! It needs 2 GiB below `TMPDIR`.

#![allow(clippy::unwrap_used, clippy::as_conversions, clippy::print_stdout)]

use std::fs;
use std::path::Path;
use std::time::Instant;

use super::super::*;
use crate::ck::CKM_ECDSA_SHA256;
use crate::store::{self, OpenOptions, Serial, Store, TokenRow, Transaction};

/// How much is verified: records, hashes and tags.
const BYTES: u64 = 1 << 30;
/// How many records are written in one transaction.
const BATCH: usize = 10_000;
const MIB: f64 = (1 << 20) as f64;

/// A signer that costs what a token key does.
struct HmacKey([u8; 32]);

impl Signer for HmacKey {
    fn id(&self) -> [u8; 8] {
        [1; 8]
    }

    fn tag(&self, hash: &Hash) -> Hash {
        use hmac::{KeyInit, Mac};
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&self.0).unwrap();
        mac.update(hash);
        mac.finalize().into_bytes().into()
    }

    fn verify(&self, hash: &Hash, tag: &[u8]) -> bool {
        self.tag(hash) == tag
    }
}

/// A token of which nothing but the trail is there.
fn token(serial: Serial) -> TokenRow {
    TokenRow {
        serial,
        slot: 1,
        label: "measure".into(),
        revision: 1,
        created: 1,
        so_envelope: vec![1],
        user_envelope: None,
        so_failures: 0,
        user_failures: 0,
        last_failure: 0,
    }
}

/// The use of a managed key, as `key_use = true` records it.
fn event() -> Event {
    let key = KeyName { uid: [9; 16], version: 3 };
    Event::new("C_SignInit", 5, User::User).with(CKM_ECDSA_SHA256).about(key).of_managed("user123", "btc")
}

fn write(store: &dyn Store, serial: &Serial, key: &HmacKey) -> u64 {
    let trail = Trail::new(Rules { mode: Mode::Required, key_use: true, copies: Vec::new() });
    let (start, mut records, mut bytes) = (Instant::now(), 0, 0);
    let beginning = Event::new("C_InitToken", 0, User::Nobody);
    store
        .write(&mut |transaction| trail.append(transaction, serial, &beginning, Some(Signers::of(key))).map(drop))
        .unwrap();
    while bytes < BYTES {
        let append = &mut |transaction: &mut dyn Transaction| {
            (0..BATCH).try_for_each(|_| trail.append(transaction, serial, &event(), Some(Signers::of(key))).map(drop))
        };
        store.write(append).unwrap();
        records += BATCH as u64;
        let last = store.audit_last(serial).unwrap().unwrap();
        bytes = records * (last.record.len() + last.hash.len() + last.tag.len()) as u64;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "written: {records} records in {seconds:.1} s, {:.0} records/s, {BATCH} in a transaction",
        records as f64 / seconds
    );
    records + 1
}

fn verify(store: &dyn Store, serial: &Serial, signer: Option<&dyn Signer>) -> Report {
    let start = Instant::now();
    let mut verifier = Verifier::new(serial, signer, None, store.audit_end(serial).unwrap());
    store
        .audit(serial, 0, &mut |row| {
            verifier.take(&row);
            Ok(())
        })
        .unwrap();
    let (report, seconds) = (verifier.finish(), start.elapsed().as_secs_f64());
    println!(
        "verified, signatures {}: {} records, {:.1} MiB in {seconds:.1} s: {:.1} MiB/s, {:.0} records/s; {}",
        signer.is_some(),
        report.records,
        report.bytes as f64 / MIB,
        report.bytes as f64 / MIB / seconds,
        report.records as f64 / seconds,
        resident()
    );
    report
}

/// Tells the most memory that the process has had resident since [`forget_resident`].
fn resident() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM unknown").replace('\t', " ")
}

fn forget_resident() {
    // Where the system does not allow it, the most of all times is told.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Flips one bit of one record with SQLite alone.
fn flip(database: &Path, sequence: u64) {
    let database = rusqlite::Connection::open(database).unwrap();
    let read = "SELECT record FROM audit WHERE sequence = ?1";
    let mut record: Vec<u8> = database.query_row(read, [sequence as i64], |row| row.get(0)).unwrap();
    *record.last_mut().unwrap() ^= 1;
    let changed = database.execute("UPDATE audit SET record = ?1 WHERE sequence = ?2", (record, sequence as i64));
    assert_eq!(changed.unwrap(), 1);
}

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let count = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{}, {count} processors", model.trim_start_matches(['\t', ' ', ':']))
}

#[test]
#[ignore = "it measures, and needs 2 GiB of disk"]
fn a_trail_of_one_gibibyte_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.db");
    let store = store::open(&format!("sqlite://{}", path.display()), &OpenOptions::default()).unwrap();
    let (serial, key) = (store.next_serial().unwrap(), HmacKey([7; 32]));
    store.write(&mut |transaction| transaction.insert_token(&token(serial))).unwrap();
    println!("{}", machine());
    let records = write(&*store, &serial, &key);
    println!("database: {:.1} MiB", fs::metadata(&path).unwrap().len() as f64 / MIB);
    forget_resident();
    for signer in [Some(&key as &dyn Signer), None] {
        let report = verify(&*store, &serial, signer);
        assert!(report.is_clean() && report.records == records && report.bytes >= BYTES, "{report:?}");
    }
    let place = records / 3;
    flip(&path, place);
    let report = verify(&*store, &serial, Some(&key));
    let first = report.faults.first().unwrap();
    assert_eq!(first.sequence, place, "{report:?}");
    println!("one bit flipped: record {} {}", first.sequence, first.text);
}
