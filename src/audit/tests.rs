//! The chain as an attacker sees it, and sinks as they fail.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions, clippy::print_stdout)]

mod measure;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chain;
use super::record::UNSIGNED;
use super::sink::PATIENCE;
use super::*;
use crate::ck::CKM_ECDSA;
use crate::error::{self, Error, Kind, Result};
use crate::store::{AuditEnd, AuditRow, OpenOptions, Serial, Store, TokenRow};

const TOKEN: Serial = *b"0123456789ABCDEF";

/// A signer whose key is one byte: it shows who signed, no more.
#[derive(Clone, Copy)]
struct TestKey(u8);

impl Signer for TestKey {
    fn id(&self) -> [u8; 8] {
        [self.0; 8]
    }

    fn tag(&self, hash: &Hash) -> Hash {
        chain::link(&[self.0; 32], &[], hash)
    }

    fn verify(&self, hash: &Hash, tag: &[u8]) -> bool {
        self.tag(hash) == tag
    }
}

const OURS: TestKey = TestKey(7);

/// Makes an event that goes well, about one key.
fn event() -> Event {
    let mut event = Event::new("C_SignInit", 5, User::User).with(CKM_ECDSA);
    event.keys.push(KeyName { uid: [9; 16], version: 3 });
    event
}

/// Makes the row of an event after others.
fn next(rows: &[AuditRow], event: &Event, signer: Option<TestKey>) -> AuditRow {
    let sequence = rows.len() as u64 + 1;
    let id = signer.map_or(UNSIGNED, |key| key.id());
    let record = Record::of(event, &TOKEN, sequence, 1_700_000_000_000 + sequence, id).encode();
    row_of(sequence, record, rows.last(), signer)
}

fn row_of(sequence: u64, record: Vec<u8>, previous: Option<&AuditRow>, signer: Option<TestKey>) -> AuditRow {
    let start = || (chain::start(&TOKEN).to_vec(), Vec::new());
    let (before, tag) = previous.map_or_else(start, |row| (row.hash.clone(), row.tag.clone()));
    let hash = chain::link(&before, &tag, &record);
    let tag = signer.map_or_else(Vec::new, |key| key.tag(&hash).to_vec());
    AuditRow { sequence, record, hash: hash.to_vec(), tag }
}

/// Makes the event that a trail begins with.
fn beginning() -> Event {
    Event::new("C_InitToken", 0, User::Nobody)
}

/// A trail in which failures, which nobody signs, stand between signed successes.
fn trail(len: usize) -> Vec<AuditRow> {
    let mut rows = Vec::new();
    for number in 0..len {
        let row = match number % 4 {
            0 if number == 0 => next(&rows, &beginning(), Some(OURS)),
            2 => next(&rows, &event().answering(Kind::PinIncorrect.rv()), None),
            _ => next(&rows, &event(), Some(OURS)),
        };
        rows.push(row);
    }
    rows
}

/// Makes the end that the store had when these were the rows.
fn end_of(rows: &[AuditRow]) -> Option<AuditEnd> {
    let last = rows.iter().rfind(|row| !row.tag.is_empty())?;
    let hash = last.hash.as_slice().try_into().ok()?;
    Some(AuditEnd { sequence: last.sequence, tag: OURS.tag(&chain::end(hash)).to_vec() })
}

fn verify_with(
    rows: &[AuditRow],
    signer: Option<&dyn Signer>,
    anchor: Option<Anchor>,
    end: Option<AuditEnd>,
) -> Report {
    let mut verifier = Verifier::new(&TOKEN, signer, anchor, end);
    rows.iter().for_each(|row| verifier.take(row));
    verifier.finish()
}

/// Verifies rows that have their own end.
fn verify(rows: &[AuditRow]) -> Report {
    verify_with(rows, Some(&OURS), None, end_of(rows))
}

/// Verifies what became of the rows of a store that still has their end.
fn verify_altered(altered: &[AuditRow], original: &[AuditRow]) -> Report {
    verify_with(altered, Some(&OURS), None, end_of(original))
}

/// Numbers as a store does: what was put elsewhere has the number of its new place.
fn numbered(mut rows: Vec<AuditRow>) -> Vec<AuditRow> {
    (1..).zip(&mut rows).for_each(|(number, row)| row.sequence = number);
    rows
}

#[test]
fn r75_a_record_reads_as_it_was_written_and_nothing_else_reads() {
    for event in [Event::new("C_Login", 0, User::So), event().answering(error::OK), event()] {
        let record = Record::of(&event, &TOKEN, 4, 1_700_000_000_123, OURS.id());
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes), Some(record));
        for len in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..len]), None, "cut after {len} bytes");
        }
        assert_eq!(Record::decode(&[&bytes[..], &[0]].concat()), None);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[at] ^= 1 << bit;
                assert!(Record::decode(&other).is_none_or(|record| record.encode() == other), "one encoding each");
            }
        }
    }
}

#[test]
fn r75_long_texts_and_many_keys_are_cut_and_stay_readable() {
    let mut event = event();
    event.detail = "ä".repeat(1000);
    event.keys = vec![event.keys[0]; 1000];
    let record = Record::of(&event, &TOKEN, 1, 0, UNSIGNED);
    assert_eq!(Record::decode(&record.encode()), Some(record.clone()));
    assert!(line(&record, &[0; 32], &[]).len() < 8192, "a line fits in the room of an export");
}

/// The example of `docs/format.md`.
#[test]
fn r75_the_encoding_is_the_documented_one() {
    let origin = super::origin::Origin { process: 4711, user: 1000, executable: "/usr/bin/node".into() };
    let event = event().of_managed("alice", "btc");
    let record = Record { origin, ..Record::of(&event, &TOKEN, 1, 1_700_000_000_000, [0xaa; 8]) };
    let bytes = record.encode();
    let hash = chain::link(&chain::start(&TOKEN), &[], &bytes);
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let document = include_str!("../../docs/format.md");
    for (what, text) in [
        ("start", hex(&chain::start(&TOKEN))),
        ("record", hex(&bytes)),
        ("hash", hex(&hash)),
        ("end", hex(&chain::end(&hash))),
    ] {
        assert!(document.contains(&text), "docs/format.md lacks the {what} {text}");
    }
}

#[test]
fn r75_a_whole_trail_is_clean_with_and_without_the_key() {
    let rows = trail(23);
    let report = verify(&rows);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.records, report.last, report.signed_to), (23, 23, 22));
    assert_eq!(report.head, rows[22].hash);
    assert!(verify_with(&rows, None, None, end_of(&rows)).is_clean());
    assert!(verify_with(&[], None, None, None).is_clean(), "without the key nothing tells that there was more");
}

#[test]
fn r75_a_trail_without_its_beginning_is_found_also_when_it_was_deleted_as_a_whole() {
    let report = verify(&[]);
    assert!(!report.is_clean() && report.faults[0].text.contains("nothing is signed"), "{report:?}");
    // All of it was deleted, and the library went on; with what a stranger can make before it, or without.
    let stranger = TestKey(8);
    for before in [vec![], vec![(beginning(), Some(stranger))], vec![(beginning().answering(5), None)]] {
        let mut rows = Vec::new();
        for (event, signer) in before {
            rows.push(next(&rows, &event, signer));
        }
        let first = rows.len() as u64 + 1;
        (0..5).for_each(|_| rows.push(next(&rows, &event(), Some(OURS))));
        let report = verify(&rows);
        assert_eq!((report.fault_count, report.faults[0].sequence), (1, first), "{report:?}");
        assert!(report.faults[0].text.contains("was off then"), "{report:?}");
        // Who knows that nothing was recorded before has kept a head of it, and names that.
        let kept = Anchor { sequence: first, hash: rows[first as usize - 1].hash.as_slice().try_into().unwrap() };
        assert!(verify_with(&rows, Some(&OURS), Some(kept), end_of(&rows)).is_clean());
    }
    // A restore begins a trail as well; one that failed begins none.
    let import = || Event::new("SR_ImportBackup", 0, User::Nobody);
    assert!(verify(&[next(&[], &import(), Some(OURS))]).is_clean());
    assert!(!verify(&[next(&[], &import().answering(5), Some(OURS))]).is_clean());
}

#[test]
fn r75_every_bit_is_covered_and_its_place_is_named() {
    let rows = trail(8);
    for number in 0..rows.len() {
        for part in 0..3 {
            let len = [rows[number].record.len(), rows[number].hash.len(), rows[number].tag.len()][part];
            for bit in 0..len * 8 {
                let mut altered = rows.clone();
                let row = &mut altered[number];
                let bytes = [&mut row.record, &mut row.hash, &mut row.tag].into_iter().nth(part).unwrap();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let report = verify_altered(&altered, &rows);
                let first = report.faults.first().unwrap_or_else(|| panic!("row {number} part {part} bit {bit}"));
                assert_eq!(first.sequence, number as u64 + 1);
            }
        }
    }
}

#[test]
fn r75_every_cut_insertion_and_exchange_is_found_at_its_place() {
    let rows = trail(9);
    for at in 0..rows.len() - 1 {
        let mut cut = rows.clone();
        cut.remove(at);
        assert_eq!(verify_altered(&cut, &rows).faults[0].sequence, at as u64 + 2, "the gap before it");
        assert_eq!(verify_altered(&numbered(cut), &rows).faults[0].sequence, at as u64 + 1);
        for other in 0..rows.len() {
            let mut more = rows.clone();
            more.insert(at, rows[other].clone());
            assert!(!verify_altered(&numbered(more.clone()), &rows).is_clean(), "{other} once more at {at}");
            assert!(!verify_altered(&more, &rows).is_clean());
            let mut exchanged = rows.clone();
            exchanged.swap(at, other);
            assert_eq!(verify_altered(&numbered(exchanged), &rows).is_clean(), at == other);
        }
    }
}

/// Makes the chain anew from a row on, as someone does who can write the database and has another key, or none.
fn forge(rows: &[AuditRow], from: usize, signer: Option<TestKey>) -> Vec<AuditRow> {
    let mut forged = rows[..from].to_vec();
    for row in &rows[from..] {
        let mut record = Record::decode(&row.record).unwrap();
        record.keys.clear();
        record.signer = if record.is_signed() { signer.map_or(UNSIGNED, |key| key.id()) } else { UNSIGNED };
        let row = row_of(row.sequence, record.encode(), forged.last(), signer.filter(|_| record.is_signed()));
        forged.push(row);
    }
    forged
}

#[test]
fn r75_a_chain_that_is_made_anew_without_the_key_is_found() {
    let rows = trail(12);
    for from in 0..rows.len() {
        for signer in [None, Some(TestKey(8))] {
            let forged = forge(&rows, from, signer);
            assert!(!verify(&forged).is_clean(), "from {from}");
        }
        // With the id of our key and a tag that is somebody else's.
        let mut forged = forge(&rows, from, Some(OURS));
        forged.iter_mut().skip(from).for_each(|row| row.tag = row.tag.iter().map(|byte| byte ^ 1).collect());
        assert!(!verify(&forged).is_clean(), "from {from}");
    }
}

#[test]
fn r75_an_end_that_was_cut_off_is_found_and_its_place_is_named() {
    let rows = trail(12);
    let signed: Vec<_> = rows.iter().filter(|row| !row.tag.is_empty()).map(|row| row.sequence).collect();
    for len in 0..12 {
        for signer in [Some(&OURS as &dyn Signer), None] {
            let report = verify_with(&rows[..len], signer, None, end_of(&rows));
            assert_eq!(report.faults.last().unwrap().sequence, len as u64 + 1, "{report:?}");
        }
        // An end is signed as such: the signature of a record is none, and neither is that of another end.
        for sequence in signed.iter().filter(|sequence| **sequence <= len as u64) {
            let row = &rows[*sequence as usize - 1];
            let forged = |tag: &[u8]| Some(AuditEnd { sequence: *sequence, tag: tag.to_vec() });
            for tag in [&row.tag, &end_of(&rows).unwrap().tag, &Vec::new()] {
                assert!(!verify_with(&rows[..len], Some(&OURS), None, forged(tag)).is_clean());
            }
        }
        assert!(!verify_with(&rows[..len], Some(&OURS), None, None).is_clean(), "the end was taken away");
    }
    for wrong in [0, 3, 13, u64::MAX] {
        let end = AuditEnd { sequence: wrong, ..end_of(&rows).unwrap() };
        assert!(!verify_with(&rows, Some(&OURS), None, Some(end)).is_clean(), "{wrong}");
    }
}

#[test]
fn r75_an_old_copy_is_found_by_who_kept_the_head_and_by_nobody_else() {
    let rows = trail(12);
    let anchor = |row: &AuditRow| Anchor { sequence: row.sequence, hash: row.hash.as_slice().try_into().unwrap() };
    let head = anchor(&rows[11]);
    let verify_from = |rows: &[AuditRow], head| verify_with(rows, Some(&OURS), Some(head), end_of(rows));
    for len in 1..12 {
        let old = &rows[..len];
        assert!(verify(old).is_clean(), "nothing in the database shows it: SECURITY.md says so");
        assert_eq!(verify_from(old, head).faults.last().unwrap().sequence, len as u64);
    }
    assert!(verify_from(&rows, head).is_clean());
    let longer = trail(20);
    assert!(verify_from(&longer, anchor(&longer[5])).is_clean());
    assert!(!verify_from(&longer, Anchor { sequence: 6, hash: [0; 32] }).is_clean());
}

#[test]
fn r75_a_token_that_was_initialised_again_vouches_for_what_was_before() {
    let mut rows = Vec::new();
    for number in 0..10 {
        let signer = if number < 5 { TestKey(1) } else { OURS };
        let event = if number % 5 == 0 { beginning() } else { event() };
        rows.push(next(&rows, &event, Some(signer)));
    }
    assert_eq!(verify(&rows).signed_to, 10);
    assert!(verify(&rows).is_clean());
    assert!(!verify(&rows[..5]).is_clean(), "the present key has signed nothing");
    // What the old key signed nobody can check any more, but the chain goes over it.
    for number in 0..5 {
        let mut altered = rows.clone();
        altered[number].tag[3] ^= 1;
        assert_eq!(verify(&altered).faults[0].sequence, number as u64 + 2);
    }
    rows.push(next(&rows, &event(), Some(TestKey(1))));
    assert_eq!(verify(&rows).faults[0].sequence, 11, "the old key signs no more");
}

#[test]
fn a_clock_that_was_set_back_is_told_and_no_fault() {
    let mut rows = trail(3);
    let record = Record::of(&event(), &TOKEN, 4, 5, OURS.id()).encode();
    rows.push(row_of(4, record, rows.last(), Some(OURS)));
    let report = verify(&rows);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.clock_steps, 1);
}

#[test]
fn r75_whatever_the_clock_says_the_order_is_that_of_the_numbers() {
    let last_second = 253_402_300_799_999;
    let times = [5, 0, u64::MAX, 1_700_000_000_000, 1_600_000_000_000, last_second, last_second + 1, 1, 1];
    let mut rows = Vec::new();
    for (number, time) in (1..).zip(times) {
        let event = if number == 1 { beginning() } else { event() };
        let record = Record::of(&event, &TOKEN, number, time, OURS.id());
        let row = row_of(number, record.encode(), rows.last(), Some(OURS));
        let line: serde_json::Value = serde_json::from_str(&line(&record, &row.hash, &row.tag)).unwrap();
        assert!(!line["time"].as_str().unwrap().is_empty());
        rows.push(row);
    }
    let report = verify(&rows);
    assert!(report.is_clean(), "{report:?}");
    let steps = times.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert_eq!((report.clock_steps, report.last), (steps as u64, times.len() as u64));
}

// ---- sinks ----

/// A store in memory with one token.
fn store() -> (Arc<dyn Store>, Serial) {
    let store = crate::store::open("memory:", &OpenOptions::default()).unwrap();
    let serial = store.next_serial().unwrap();
    let row = TokenRow {
        serial,
        slot: 1,
        label: "test".into(),
        revision: 1,
        created: 1,
        so_envelope: vec![1],
        user_envelope: None,
        so_failures: 0,
        user_failures: 0,
        last_failure: 0,
    };
    store.write(&mut |transaction| transaction.insert_token(&row)).unwrap();
    (store, serial)
}

fn trail_to(mode: Mode, copies: Vec<Sink>) -> Trail {
    Trail::new(Rules { mode, key_use: true, copies })
}

fn record(trail: &Trail, store: &dyn Store, serial: &Serial) -> Result<()> {
    trail.record(store, serial, &event(), Some(&OURS), &|_| Ok(()))
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn r74_a_file_that_is_moved_or_deleted_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("audit.jsonl"), folder.path().join("audit.1"));
    let (store, serial) = store();
    let trail = trail_to(Mode::Required, vec![Sink::File(path.clone())]);
    record(&trail, &*store, &serial).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::rename(&path, &moved).unwrap();
    record(&trail, &*store, &serial).unwrap();
    std::fs::remove_file(&path).unwrap();
    record(&trail, &*store, &serial).unwrap();
    record(&trail, &*store, &serial).unwrap();
    let numbers = |path| lines(path).iter().map(|line| line["sequence"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!((numbers(&moved), numbers(&path)), (vec![1], vec![3, 4]));
    let first = &lines(&moved)[0];
    assert_eq!((first["operation"].as_str(), first["result"].as_str()), (Some("C_SignInit"), Some("CKR_OK")));
    assert_eq!(
        (first["mechanism"].as_str(), first["pid"].as_u64()),
        (Some("CKM_ECDSA"), Some(std::process::id().into()))
    );
    assert_eq!(first["keys"][0]["version"], 3);
}

fn fifo(path: &Path) {
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::unistd::mkfifo(path, mode).unwrap();
}

#[test]
fn r74_a_sink_that_blocks_costs_a_bounded_time_while_another_takes_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let (path, pipe) = (folder.path().join("audit.jsonl"), folder.path().join("pipe"));
    fifo(&pipe);
    let (store, serial) = store();
    let trail = trail_to(Mode::Required, vec![Sink::File(pipe.clone()), Sink::File(path.clone())]);
    let start = Instant::now();
    record(&trail, &*store, &serial).unwrap();
    assert!(start.elapsed() < PATIENCE, "a pipe without a reader is an error at once");

    // A reader that does not read: once the pipe is full, each record waits as long as a sink may take.
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let fill = std::thread::spawn(move || {
        use std::os::unix::fs::OpenOptionsExt;
        let mut writer = std::fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&pipe).unwrap();
        while std::io::Write::write(&mut writer, &[b'x'; 4096]).is_ok() {}
    });
    fill.join().unwrap();
    let start = Instant::now();
    record(&trail, &*store, &serial).unwrap();
    assert!((PATIENCE..PATIENCE * 3).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!(lines(&path).len(), 2);
    drop(reader);
}

#[test]
fn r74_required_refuses_where_no_sink_takes_the_record_and_best_effort_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let none = Sink::File(folder.path().join("no/such/folder"));
    let (store, _) = store();
    let gone: Serial = *b"FFFFFFFFFFFFFFFF";
    let start = Instant::now();
    let refused = |mode, copies| record(&trail_to(mode, copies), &*store, &gone).map_err(|error: Error| error);
    let error = refused(Mode::Required, vec![none.clone()]).unwrap_err();
    assert_eq!(error.kind(), Kind::FunctionRejected);
    assert!(error.message().contains("required") && error.message().contains("is gone"), "{error}");
    refused(Mode::Required, vec![]).unwrap_err();
    refused(Mode::BestEffort, vec![none]).unwrap();
    refused(Mode::Off, vec![]).unwrap();
    let path = folder.path().join("audit.jsonl");
    refused(Mode::Required, vec![Sink::File(path.clone())]).unwrap();
    assert_eq!(lines(&path)[0]["sequence"], 0, "what the store did not take stands alone");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn r74_the_log_of_the_system_gets_one_message_for_each_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let (store, serial) = store();
    let trail = trail_to(Mode::Required, vec![Sink::Syslog(path.clone())]);
    record(&trail, &*store, &serial).unwrap();
    let socket = UnixDatagram::bind(&path).unwrap();
    record(&trail, &*store, &serial).unwrap();
    let mut message = [0; 8192];
    let len = socket.recv(&mut message).unwrap();
    let text = std::str::from_utf8(&message[..len]).unwrap();
    let (head, json) = text.split_once(": ").unwrap();
    assert_eq!(head, format!("<86>strongroom[{}]", std::process::id()));
    assert_eq!(serde_json::from_str::<serde_json::Value>(json).unwrap()["sequence"], 2);
    // Nobody reads any more: a full socket costs a bounded time.
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        record(&trail, &*store, &serial).unwrap();
    }
    assert!(start.elapsed() < PATIENCE * 4, "{:?}", start.elapsed());
}

#[test]
fn r75_what_the_store_keeps_is_one_chain() {
    let (store, serial) = store();
    let trail = trail_to(Mode::Required, vec![]);
    trail.record(&*store, &serial, &beginning(), Some(&OURS), &|_| Ok(())).unwrap();
    for _ in 1..50 {
        record(&trail, &*store, &serial).unwrap();
    }
    let mut verifier = Verifier::new(&serial, Some(&OURS), None, store.audit_end(&serial).unwrap());
    store
        .audit(&serial, 0, &mut |row| {
            verifier.take(&row);
            Ok(())
        })
        .unwrap();
    let report = verifier.finish();
    assert!(report.is_clean() && report.signed_to == 50, "{report:?}");
}
