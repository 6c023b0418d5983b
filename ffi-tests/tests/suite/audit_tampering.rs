//! The audit trail in the hands of who can write the database and has no PIN: each alteration is found, and its place is named.

use std::path::PathBuf;
use std::time::Duration;

use ffi_tests::ck::*;
use ffi_tests::{Role, SO_PIN, Session, Template, TestToken, USER_PIN, assert_rv, isolated};
use rusqlite::{Connection, params};

use crate::audit::whole;

/// How many alterations are tried.
const ALTERATIONS: u64 = 1000;
/// What the alterations are drawn from; the same ones each time.
const SEED: u64 = 0x005e_ed4a_0d17;

/// One row of the table.
#[derive(Clone)]
struct Row {
    token: i64,
    sequence: i64,
    record: Vec<u8>,
    hash: Vec<u8>,
    tag: Vec<u8>,
}

/// What the database holds of a trail.
#[derive(Clone)]
struct Trail {
    rows: Vec<Row>,
    /// The row of the end: token, sequence, tag.
    end: Option<(i64, i64, Vec<u8>)>,
}

/// Numbers that are the same each time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % limit as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        let bit = self.below(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }

    fn flip_number(&mut self, number: &mut i64) {
        *number ^= 1 << self.below(64);
    }
}

/// The database, open for whoever can write to it.
struct Attacker(Connection);

impl Attacker {
    fn open(path: PathBuf) -> Self {
        let database = Connection::open(path).expect("the database");
        database.busy_timeout(Duration::from_secs(10)).expect("a timeout");
        Self(database)
    }

    fn read(&self) -> Trail {
        let sql = "SELECT token, sequence, record, hash, tag FROM audit ORDER BY token, sequence";
        let mut statement = self.0.prepare(sql).expect("SQL");
        let read = statement.query_map([], |row| {
            let (token, sequence) = (row.get(0)?, row.get(1)?);
            Ok(Row { token, sequence, record: row.get(2)?, hash: row.get(3)?, tag: row.get(4)? })
        });
        let rows = read.expect("rows").map(|row| row.expect("a row")).collect();
        let end = self.0.query_row("SELECT token, sequence, tag FROM audit_end", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        });
        Trail { rows, end: Some(end.expect("the end")) }
    }

    /// Replaces the trail.
    fn put(&mut self, trail: &Trail) {
        let step = self.0.transaction().expect("a transaction");
        step.execute("DELETE FROM audit", []).expect("SQL");
        step.execute("DELETE FROM audit_end", []).expect("SQL");
        for row in &trail.rows {
            step.execute(
                "INSERT INTO audit (token, sequence, record, hash, tag) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![row.token, row.sequence, row.record, row.hash, row.tag],
            )
            .expect("SQL");
        }
        if let Some((token, sequence, tag)) = &trail.end {
            step.execute("INSERT INTO audit_end VALUES (?1, ?2, ?3)", params![token, sequence, tag]).expect("SQL");
        }
        step.commit().expect("a commit");
    }
}

/// One alteration: what it is, what becomes of the trail, and at which records its first fault may be told.
struct Alteration {
    what: String,
    trail: Trail,
    places: Vec<i64>,
}

/// Renumbers rows from one on, as somebody does who closes a gap or makes room.
fn renumber(rows: &mut [Row], from: usize) {
    for (place, row) in rows.iter_mut().enumerate().skip(from) {
        row.sequence = place as i64 + 1;
    }
}

/// The kinds of alterations; each takes the rows apart in its own way.
const KINDS: [fn(&Trail, &mut Draw) -> Alteration; 14] = [
    flip_bytes,
    flip_bytes,
    flip_bytes,
    flip_token_or_sequence,
    alter_end,
    cut_start,
    cut_middle,
    cut_middle_and_close_up,
    cut_end,
    insert,
    swap,
    reverse,
    replace_signature,
    replace_row,
];

fn altered(what: String, trail: Trail, places: Vec<i64>) -> Alteration {
    Alteration { what, trail, places }
}

fn flip_bytes(trail: &Trail, draw: &mut Draw) -> Alteration {
    let mut trail = trail.clone();
    let at = draw.below(trail.rows.len());
    let row = &mut trail.rows[at];
    let columns: Vec<_> = [("record", &mut row.record), ("hash", &mut row.hash), ("tag", &mut row.tag)]
        .into_iter()
        .filter(|(_, bytes)| !bytes.is_empty())
        .collect();
    let column = draw.below(columns.len());
    let (name, bytes) = columns.into_iter().nth(column).expect("a column");
    match draw.below(4) {
        0 => drop(bytes.pop()),
        1 => bytes.push(draw.below(256) as u8),
        _ => draw.flip(bytes),
    }
    let sequence = row.sequence;
    altered(format!("{name} of {sequence} altered"), trail, vec![sequence])
}

fn flip_token_or_sequence(trail: &Trail, draw: &mut Draw) -> Alteration {
    let mut trail = trail.clone();
    let at = draw.below(trail.rows.len());
    let (old, taken): (_, Vec<_>) = (trail.rows[at].sequence, trail.rows.iter().map(|row| row.sequence).collect());
    let token = draw.below(2) == 0;
    let row = &mut trail.rows[at];
    if token {
        draw.flip_number(&mut row.token);
    } else {
        while taken.contains(&row.sequence) {
            row.sequence = old;
            draw.flip_number(&mut row.sequence);
        }
    }
    let new = row.sequence;
    // What is no number of a record is told as 0.
    altered(format!("token or sequence of {old} altered"), trail, vec![old, old + 1, new.max(0)])
}

fn alter_end(trail: &Trail, draw: &mut Draw) -> Alteration {
    let mut trail = trail.clone();
    let last = trail.rows.len() as i64;
    let (_, sequence, tag) = trail.end.as_mut().expect("the end");
    let (old, what) = (*sequence, draw.below(5));
    let mut places = vec![old, last, last + 1];
    match what {
        0 => trail.end = None,
        1 => draw.flip(tag),
        2 => *tag = draw.bytes(32),
        3 => {
            draw.flip_number(sequence);
            places.push((*sequence).max(0));
        }
        _ => {
            // As if an earlier signature were that of the end.
            let row = trail.rows.iter().rfind(|row| row.sequence < old && !row.tag.is_empty()).expect("a signed row");
            places.push(row.sequence);
            trail.end = Some((row.token, row.sequence, row.tag.clone()));
        }
    }
    altered(format!("the end altered ({what})"), trail, places)
}

fn cut(trail: &Trail, at: usize, count: usize) -> Trail {
    let mut trail = trail.clone();
    trail.rows.drain(at..at + count);
    trail
}

fn cut_start(trail: &Trail, draw: &mut Draw) -> Alteration {
    let count = draw.below(trail.rows.len()) + 1;
    let mut left = cut(trail, 0, count);
    let closed = draw.below(2) == 0;
    if closed {
        renumber(&mut left.rows, 0);
    }
    let places = vec![1, count as i64 + 1];
    altered(format!("the first {count} cut off, closed up: {closed}"), left, places)
}

fn cut_middle(trail: &Trail, draw: &mut Draw) -> Alteration {
    let at = draw.below(trail.rows.len() - 2) + 1;
    let count = draw.below(trail.rows.len() - 1 - at) + 1;
    altered(format!("{count} cut after {at}"), cut(trail, at, count), vec![(at + count) as i64 + 1])
}

fn cut_middle_and_close_up(trail: &Trail, draw: &mut Draw) -> Alteration {
    let at = draw.below(trail.rows.len() - 2) + 1;
    let count = draw.below(trail.rows.len() - 1 - at) + 1;
    let mut left = cut(trail, at, count);
    renumber(&mut left.rows, at);
    altered(format!("{count} cut after {at} and closed up"), left, vec![at as i64 + 1])
}

fn cut_end(trail: &Trail, draw: &mut Draw) -> Alteration {
    let count = draw.below(trail.rows.len()) + 1;
    let at = trail.rows.len() - count;
    altered(format!("the last {count} cut off"), cut(trail, at, count), vec![at as i64 + 1])
}

fn insert(trail: &Trail, draw: &mut Draw) -> Alteration {
    let mut trail = trail.clone();
    let (at, from) = (draw.below(trail.rows.len() + 1), draw.below(trail.rows.len()));
    let mut row = trail.rows[from].clone();
    match draw.below(4) {
        0 => row.record = draw.bytes(row.record.len()),
        1 => row.tag = Vec::new(),
        2 => (row.hash, row.tag) = (draw.bytes(32), draw.bytes(32)),
        // The same once more.
        _ => {}
    }
    trail.rows.insert(at, row);
    renumber(&mut trail.rows, at);
    altered(format!("a row like {} inserted after {at}", from + 1), trail, vec![at as i64 + 1])
}

fn swap(trail: &Trail, draw: &mut Draw) -> Alteration {
    let mut trail = trail.clone();
    let (one, other) = (draw.below(trail.rows.len()), draw.below(trail.rows.len() - 1));
    let other = if other >= one { other + 1 } else { other };
    trail.rows.swap(one, other);
    renumber(&mut trail.rows, 0);
    altered(format!("{} and {} exchanged", one + 1, other + 1), trail, vec![one.min(other) as i64 + 1])
}

fn reverse(trail: &Trail, draw: &mut Draw) -> Alteration {
    let mut trail = trail.clone();
    let at = draw.below(trail.rows.len() - 1);
    let count = (draw.below(trail.rows.len() - 1 - at) + 2).min(trail.rows.len() - at);
    trail.rows[at..at + count].reverse();
    renumber(&mut trail.rows, 0);
    altered(format!("{count} after {at} in reverse order"), trail, vec![at as i64 + 1])
}

fn replace_signature(trail: &Trail, draw: &mut Draw) -> Alteration {
    let mut trail = trail.clone();
    let at = draw.below(trail.rows.len());
    let tags: Vec<_> = trail.rows.iter().map(|row| row.tag.clone()).filter(|tag| *tag != trail.rows[at].tag).collect();
    let other = draw.below(tags.len());
    trail.rows[at].tag = if draw.below(2) == 0 { tags[other].clone() } else { draw.bytes(32) };
    altered(format!("signature of {} replaced", at + 1), trail, vec![at as i64 + 1])
}

fn replace_row(trail: &Trail, draw: &mut Draw) -> Alteration {
    let mut trail = trail.clone();
    let (at, from) = (draw.below(trail.rows.len()), draw.below(trail.rows.len() - 1));
    let from = if from >= at { from + 1 } else { from };
    let mut row = trail.rows[from].clone();
    row.sequence = at as i64 + 1;
    trail.rows[at] = row;
    altered(format!("{} replaced by a copy of {}", at + 1, from + 1), trail, vec![at as i64 + 1])
}

/// Makes a trail in which signed successes and unsigned failures stand side by side, and ends with a signed one.
fn fill(token: &TestToken) -> Session {
    let session = token.user();
    for round in 0..12 {
        session.aes(16, "key", true, &Template::new()).expect("C_GenerateKey");
        if round % 4 == 1 {
            session.logout().expect("C_Logout");
            assert_rv!(session.login(CKU_USER, "wrong-1234"), CKR_PIN_INCORRECT);
            session.login(CKU_USER, USER_PIN).expect("C_Login");
        }
    }
    session
}

/// Reads the number of the first fault of a report.
fn first_fault(report: &str) -> i64 {
    let rest = report.split_once("\"faults\":[{\"sequence\":").unwrap_or_else(|| panic!("no fault in {report}")).1;
    rest.split(',').next().expect("a number").parse::<u64>().expect("a number") as i64
}

#[test]
fn r75_every_one_of_a_thousand_alterations_is_found_and_its_place_is_named() {
    isolated!(600, || {
        println!("seed {SEED:#x}");
        let token = TestToken::new();
        let session = fill(&token);
        let clean = whole(&session);
        let mut attacker = Attacker::open(token.database());
        let trail = attacker.read();
        assert_eq!(trail.rows.len(), clean.len());
        assert!(trail.rows.iter().any(|row| row.tag.is_empty()), "records that nobody signed");
        let mut draw = Draw(SEED);
        for number in 0..ALTERATIONS {
            let kind = draw.below(KINDS.len());
            let Alteration { what, trail, places } = KINDS[kind](&trail, &mut draw);
            attacker.put(&trail);
            let report = session.audit_verify().unwrap_or_else(|rv| panic!("{number}: {what}: {rv}"));
            assert!(report.contains("\"ok\":false"), "{number}: {what}: {report}");
            assert!(places.contains(&first_fault(&report)), "{number}: {what}, not at {places:?}: {report}");
        }
        attacker.put(&trail);
        assert_eq!(whole(&session), clean, "and as it was it is whole");
    });
}

/// What can be done to the end of a trail.
fn attacks(trail: &Trail) -> Vec<(String, Trail)> {
    let mut all = Vec::new();
    let last = trail.rows.len();
    for count in [1, 2, 5] {
        let left = cut(trail, last - count, count);
        let row = left.rows.iter().rfind(|row| !row.tag.is_empty()).expect("a signed row").clone();
        all.push((format!("{count} cut off"), left.clone()));
        all.push((format!("{count} cut off, and no end"), Trail { end: None, ..left.clone() }));
        let end = Some((row.token, row.sequence, row.tag));
        all.push((format!("{count} cut off, and the signature of a record as the end"), Trail { end, ..left }));
    }
    all.push(("no end".to_owned(), Trail { end: None, ..trail.clone() }));
    let (token, sequence, tag) = trail.end.clone().expect("the end");
    all.push(("an end elsewhere".to_owned(), Trail { end: Some((token, sequence - 1, tag)), ..trail.clone() }));
    all
}

#[test]
fn r75_what_was_done_to_the_end_stays_told_when_the_trail_goes_on() {
    isolated!(300, || {
        let token = TestToken::new();
        let session = fill(&token);
        let mut attacker = Attacker::open(token.database());
        let trail = attacker.read();
        for (what, attacked) in attacks(&trail) {
            attacker.put(&attacked);
            // Past the numbers of what was cut off.
            for step in 0..8 {
                let report = session.audit_verify().expect("SR_AuditVerify");
                assert!(report.contains("\"ok\":false"), "{what}, after {step} more: {report}");
                session.aes(16, "key", true, &Template::new()).expect("C_GenerateKey");
            }
            attacker.put(&trail);
            whole(&session);
        }
        // Nor does a new key of the token cover it.
        attacker.put(&cut(&trail, trail.rows.len() - 2, 2));
        token.module.close_all(token.slot).expect("C_CloseAllSessions");
        token.module.init_token_in(token.slot, "test", SO_PIN).expect("C_InitToken");
        let session = token.open();
        session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
        let report = session.audit_verify().expect("SR_AuditVerify");
        assert!(report.contains("\"ok\":false"), "{report}");
    });
}

#[test]
fn r75_a_login_that_another_initialisation_has_ended_signs_nothing_more() {
    isolated!(|| {
        for end in ["C_Logout", "C_CloseSession"] {
            let token = TestToken::new();
            let session = token.user();
            Role::start("init-again", &token.config_text()).succeed();
            // It has not noticed yet, and may not.
            match end {
                "C_Logout" => drop(session.logout()),
                _ => drop(session.close()),
            }
            let so = token.open();
            so.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
            whole(&so);
            token.module.finalize().expect("C_Finalize");
        }
    });
}
