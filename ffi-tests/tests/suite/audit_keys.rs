//! Managed keys in the audit trail: what becomes of a version, who used it, and what stays when it is destroyed (R-74, R-75).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ffi_tests::ck::*;
use ffi_tests::clock::Clock;
use ffi_tests::vendor::*;
use ffi_tests::{Mechanism, Role, Session, TestToken, USER_PIN, assert_rv, isolated, say, token};
use rusqlite::Connection;

use crate::audit::{audit, field, keys, operations, unique_id, whole};

/// How often a process is killed.
const KILLS: u64 = 200;
/// The name of the key of most tests.
const ALICE: Name = ("alice", "btc");

fn ecdsa() -> Mechanism {
    Mechanism::new(CKM_ECDSA)
}

/// Attaches a helper process to a test's token.
fn helper(config: &str) -> Session {
    let module = token::attach(config);
    let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    session.login(CKU_USER, USER_PIN).expect("C_Login");
    session
}

/// Reads the keys of a line, each with its version.
fn versions(line: &str) -> Vec<(&str, u64)> {
    let numbers = line.split("\"version\":").skip(1).map(|rest| rest.split('}').next().expect("a number"));
    keys(line).into_iter().zip(numbers.map(|number| number.parse().expect("a number"))).collect()
}

/// Reads the unique id of the private key of each version.
fn ids(session: &Session, name: Name) -> BTreeMap<u64, String> {
    let list = session.tell_managed("SR_ListVersions", name).expect("SR_ListVersions");
    let of = |piece: &str| (field(piece, "version").parse().expect("a number"), field(piece, "unique_id").to_owned());
    list.split("},{").map(of).collect()
}

/// Gives the records of a function.
fn of<'l>(lines: &'l [String], operation: &str) -> Vec<&'l str> {
    lines.iter().map(String::as_str).filter(|line| field(line, "operation") == operation).collect()
}

#[test]
fn r75_each_step_of_a_managed_key_is_in_the_trail_with_its_versions() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let start = session.audit_lines(0).expect("SR_AuditExport").len() as u64;
        session.generate_managed(ALICE).expect("SR_GenerateKey");
        session.rotate_managed(ALICE, 1).expect("SR_RotateKey");
        session.set_version_state(ALICE, 1, SR_STATE_DISABLED).expect("SR_SetVersionState");
        session.set_rotation_policy(ALICE, [30, 60, 0], CK_TRUE).expect("SR_SetRotationPolicy");
        let ids = ids(&session, ALICE);
        session.destroy_version(ALICE, 1, &ids[&1]).expect("SR_DestroyVersion");
        whole(&session);
        let lines = session.audit_lines(start).expect("SR_AuditExport");
        let functions =
            ["SR_GenerateKey", "SR_RotateKey", "SR_SetVersionState", "SR_SetRotationPolicy", "SR_DestroyVersion"];
        assert_eq!(operations(&lines), functions.map(|function| (function, "CKR_OK")));
        for (line, wanted) in lines.iter().zip([&[1, 1][..], &[1, 1, 2, 2], &[1, 1], &[2, 2], &[1, 1]]) {
            assert_eq!((field(line, "owner"), field(line, "asset")), ALICE);
            let mut named: Vec<u64> = versions(line).into_iter().map(|(_, version)| version).collect();
            named.sort_unstable();
            assert_eq!(named, wanted, "{line}");
            for version in wanted {
                assert!(versions(line).contains(&(ids[version].as_str(), *version)), "the private key: {line}");
            }
        }
        let details: Vec<_> = lines.iter().map(|line| field(line, "detail")).collect();
        assert_eq!(details[1], "version 1 is replaced by 2");
        assert_eq!(details[2], "version 1 is disabled now");
        assert_eq!(details[3], "version 2 and later: interval 30 days, age 60 days, 0 uses, rotated by itself");
        let tombstone = format!("version 1 is destroyed, confirmed by {}; made ", ids[&1]);
        assert!(details[4].starts_with(&tombstone) && details[4].contains(", rotated "), "{}", details[4]);
    });
}

#[test]
fn r75_what_is_refused_of_a_managed_key_is_in_the_trail() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        session.generate_managed(ALICE).expect("SR_GenerateKey");
        session.rotate_managed(ALICE, 0).expect("SR_RotateKey");
        let ids = ids(&session, ALICE);
        let start = session.audit_lines(0).expect("SR_AuditExport").len() as u64;
        assert_rv!(session.generate_managed(ALICE), CKR_ACTION_PROHIBITED);
        assert_rv!(session.rotate_managed(ALICE, 1), CKR_ACTION_PROHIBITED);
        assert_rv!(session.set_version_state(ALICE, 1, SR_STATE_ACTIVE), CKR_ACTION_PROHIBITED);
        assert_rv!(session.destroy_version(ALICE, 2, &ids[&2]), CKR_ACTION_PROHIBITED);
        // A try to destroy is told even where it makes no sense.
        assert_rv!(session.destroy_version(ALICE, 1, &ids[&2]), CKR_ARGUMENTS_BAD);
        assert_rv!(session.destroy_version(ALICE, 7, &ids[&1]), CKR_KEY_HANDLE_INVALID);
        // What is asked of a key that is not there is no operation.
        assert_rv!(session.rotate_managed(("nobody", "btc"), 0), CKR_KEY_HANDLE_INVALID);
        let reader = token.module.open_read_only(token.slot).expect("C_OpenSession");
        assert_rv!(reader.rotate_managed(ALICE, 0), CKR_SESSION_READ_ONLY);
        whole(&session);
        let lines = session.audit_lines(start).expect("SR_AuditExport");
        let (prohibited, destroy) = ("CKR_ACTION_PROHIBITED", "SR_DestroyVersion");
        assert_eq!(
            operations(&lines),
            [
                ("SR_GenerateKey", prohibited),
                ("SR_RotateKey", prohibited),
                ("SR_SetVersionState", prohibited),
                (destroy, prohibited),
                (destroy, "CKR_ARGUMENTS_BAD"),
                (destroy, "CKR_KEY_HANDLE_INVALID"),
                ("SR_RotateKey", "CKR_SESSION_READ_ONLY"),
            ]
        );
        assert!(lines.iter().all(|line| (field(line, "owner"), field(line, "asset")) == ALICE));
        let details: Vec<_> = of(&lines, destroy).into_iter().map(|line| field(line, "detail")).collect();
        assert_eq!(details, ["version 2", "version 1", "version 7"]);
    });
}

#[test]
fn r75_a_use_names_the_version_that_was_used() {
    isolated!(|| {
        let token = TestToken::with(&audit("key_use = true"));
        let session = token.user();
        let aes = ("alice", "aes256");
        let old = session.generate_managed(ALICE).expect("SR_GenerateKey").key;
        let old_aes = session.generate_managed(aes).expect("SR_GenerateKey").key;
        let sealed = session.encrypt(&Mechanism::new(CKM_SR_SEALED), old_aes, b"secret").expect("C_Encrypt");
        let new = session.rotate_managed(ALICE, 0).expect("SR_RotateKey");
        let new_aes = session.rotate_managed(aes, 0).expect("SR_RotateKey");
        let ids = [ids(&session, ALICE), ids(&session, aes)];
        let start = session.audit_lines(0).expect("SR_AuditExport").len() as u64;
        session.sign(&ecdsa(), old, &[1; 32]).expect("C_Sign");
        session.sign(&ecdsa(), new, &[1; 32]).expect("C_Sign");
        session.sign_recoverable(new, &[1; 32]).expect("SR_SignRecoverable");
        let plain = session.decrypt(&Mechanism::new(CKM_SR_SEALED), new_aes, &sealed).expect("C_Decrypt");
        assert_eq!(plain, b"secret");
        whole(&session);
        let lines = session.audit_lines(start).expect("SR_AuditExport");
        let told: Vec<_> =
            lines.iter().map(|line| (field(line, "operation"), field(line, "asset"), versions(line))).collect();
        let [btc, secret] = ids.each_ref().map(|ids| [(ids[&1].as_str(), 1), (ids[&2].as_str(), 2)]);
        assert_eq!(
            told,
            [
                ("C_SignInit", "btc", vec![btc[0]]),
                ("C_SignInit", "btc", vec![btc[1]]),
                ("SR_SignRecoverable", "btc", vec![btc[1]]),
                ("C_DecryptInit", "aes256", vec![secret[1]]),
                // The ciphertext names another version than the handle.
                ("C_Decrypt", "aes256", vec![secret[0]]),
            ]
        );
        assert_eq!(unique_id(&session, old), ids[0][&1]);
    });
}

/// Puts a row behind the trail after which no other can come, as a damaged database has it.
fn block(token: &TestToken) {
    let database = Connection::open(token.database()).expect("the database");
    let row =
        "INSERT INTO audit (token, sequence, record, hash, tag) VALUES (1, 9223372036854775807, x'00', x'00', x'')";
    database.execute(row, []).expect("SQL");
}

#[test]
fn r74_required_refuses_every_step_of_a_managed_key_without_a_record_and_changes_nothing() {
    isolated!(|| {
        let token = TestToken::with(&audit("mode = \"required\"\nkey_use = true"));
        let session = token.user();
        let old = session.generate_managed(ALICE).expect("SR_GenerateKey").key;
        session.rotate_managed(ALICE, 0).expect("SR_RotateKey");
        let ids = ids(&session, ALICE);
        let state = || session.tell_managed("SR_ListVersions", ALICE).expect("SR_ListVersions");
        let before = state();
        block(&token);
        let start = Instant::now();
        let refusals = [
            session.generate_managed(("bob", "eth")).map(drop),
            session.rotate_managed(ALICE, 0).map(drop),
            session.set_version_state(ALICE, 1, SR_STATE_DISABLED),
            session.set_rotation_policy(ALICE, [30, 60, 0], CK_TRUE),
            session.destroy_version(ALICE, 1, &ids[&1]),
            session.sign_init(&ecdsa(), old),
            session.sign_recoverable(old, &[1; 32]).map(drop),
        ];
        assert!(start.elapsed() < Duration::from_secs(60), "each in a bounded time: {:?}", start.elapsed());
        for (number, refused) in refusals.into_iter().enumerate() {
            assert_rv!(refused, CKR_FUNCTION_REJECTED, "{number}");
        }
        assert!(session.module.last_error().contains("required"), "{}", session.module.last_error());
        assert_eq!(state(), before);
        assert_rv!(session.find_managed(("bob", "eth"), 0), CKR_KEY_HANDLE_INVALID);
    });
}

/// Takes the write lock of a database, past the library, and keeps it until it is killed.
pub fn role_lock(path: &str) {
    let database = Connection::open(path).expect("the database");
    database.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
    say("locked");
    std::thread::sleep(Duration::from_secs(300));
}

#[test]
fn r74_a_store_that_somebody_keeps_locked_costs_a_bounded_time() {
    isolated!(300, || {
        let copy = ["", "sinks = [\"store\", \"file:audit.jsonl\"]"];
        for (sinks, taken) in copy.into_iter().zip([false, true]) {
            let token = TestToken::with(&audit(&format!("mode = \"required\"\nkey_use = true\n{sinks}")));
            let session = token.user();
            let key = session.generate_managed(ALICE).expect("SR_GenerateKey").key;
            let mut locker = Role::start("audit-lock", token.database().to_str().expect("UTF-8"));
            locker.expect("locked");
            let start = Instant::now();
            let used = session.sign(&ecdsa(), key, &[1; 32]).map(drop);
            let rotated = session.rotate_managed(ALICE, 0).map(drop);
            assert!(start.elapsed() < Duration::from_secs(100), "{:?}", start.elapsed());
            match taken {
                // The other sink takes the record of what changes nothing.
                true => used.expect("C_Sign"),
                false => assert_rv!(used, CKR_FUNCTION_REJECTED),
            }
            assert_rv!(rotated, CKR_DEVICE_ERROR);
            locker.kill();
            locker.finish();
            session.rotate_managed(ALICE, 1).expect("SR_RotateKey");
            whole(&session);
            token.module.finalize().expect("C_Finalize");
        }
    });
}

#[test]
fn r74_best_effort_goes_on_where_the_trail_takes_no_record() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        session.generate_managed(ALICE).expect("SR_GenerateKey");
        block(&token);
        session.rotate_managed(ALICE, 0).expect("SR_RotateKey");
        assert_eq!(ids(&session, ALICE).len(), 2);
        let report = session.audit_verify().expect("SR_AuditVerify");
        assert!(report.contains("\"ok\":false"), "{report}");
    });
}

/// Rotates what is due, in its own process.
pub fn role_due(config: &str) {
    let [rotated, ..] = helper(config).rotate_due(0).expect("SR_RotateDue");
    say(&rotated.to_string());
}

#[test]
fn r75_of_processes_that_rotate_what_is_due_each_rotation_has_one_record() {
    isolated!(300, || {
        const KEYS: usize = 40;
        let token = TestToken::new();
        let session = token.user();
        for number in 0..KEYS {
            session.generate_managed((&format!("owner {number}"), "p256")).expect("SR_GenerateKey");
        }
        let clock = Clock::build(token.directory());
        let helpers: Vec<_> = (0..3).map(|_| clock.start(91, "audit-due", &token.config_text())).collect();
        let of_each = |helper: Role| helper.succeed().last().expect("a line").parse::<usize>().expect("a number");
        assert_eq!(helpers.into_iter().map(of_each).sum::<usize>(), KEYS);
        let lines = whole(&session);
        let rotations = of(&lines, "SR_RotateDue");
        assert_eq!(rotations.len(), KEYS, "one for each, and none for who came too late");
        let owners: BTreeSet<_> = rotations.iter().map(|line| field(line, "owner")).collect();
        assert_eq!(owners.len(), KEYS);
        assert!(rotations.iter().all(|line| field(line, "result") == "CKR_OK" && versions(line).len() == 4));
    });
}

/// Rotates a key, and destroys the version before, over and over; tells of each step once it is done.
pub fn role_work(config: &str) {
    let session = helper(config);
    say("ready");
    loop {
        let new = session.rotate_managed(ALICE, 0).expect("SR_RotateKey");
        say(&format!("SR_RotateKey {}", unique_id(&session, new)));
        let mut ids = ids(&session, ALICE);
        ids.pop_last();
        for (version, id) in ids {
            session.destroy_version(ALICE, version, &id).expect("SR_DestroyVersion");
            say(&format!("SR_DestroyVersion {id}"));
        }
    }
}

/// Goes through the records of a key and tells what must be there after them: the private key of each version.
fn replayed(lines: &[String]) -> BTreeMap<u64, String> {
    let mut there = BTreeMap::new();
    for line in lines.iter().filter(|line| field(line, "owner") == ALICE.0 && field(line, "result") == "CKR_OK") {
        let named = versions(line).into_iter().map(|(id, version)| (version, id.to_owned()));
        match field(line, "operation") {
            // The private half is named after the public one.
            "SR_GenerateKey" | "SR_RotateKey" => there.extend(named),
            "SR_DestroyVersion" => named.for_each(|(version, _)| drop(there.remove(&version))),
            other => panic!("{other}"),
        }
    }
    there
}

#[test]
fn r75_kill_nine_at_a_managed_key_leaves_a_trail_that_tells_what_there_is() {
    isolated!(900, || {
        let token = TestToken::new();
        let session = token.user();
        session.generate_managed(ALICE).expect("SR_GenerateKey");
        let (mut told, mut random) = (BTreeSet::new(), u64::from(std::process::id()));
        println!("seed {random}");
        for _ in 0..KILLS {
            let mut helper = Role::start("audit-managed", &token.config_text());
            helper.expect("ready");
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            told.extend((0..random >> 62).map_while(|_| helper.line()));
            std::thread::sleep(Duration::from_micros((random >> 33) % 20_000));
            helper.kill();
            let (_, lines, stderr) = helper.finish();
            assert!(!stderr.contains("panicked"), "{stderr}");
            told.extend(lines.into_iter().filter(|line| line.starts_with("SR_")));
        }
        let lines = whole(&session);
        assert_eq!(replayed(&lines), ids(&session, ALICE), "the trail tells what there is");
        let has = |step: &str| {
            let (operation, id) = step.split_once(' ').expect("two words");
            of(&lines, operation).into_iter().any(|line| keys(line).contains(&id))
        };
        let missing: Vec<_> = told.iter().filter(|step| !has(step)).collect();
        assert!(missing.is_empty(), "acknowledged, and not in the trail: {missing:?}");
        assert!(told.len() as u64 > KILLS, "{} steps prove too little", told.len());
    });
}

/// Makes one key of the name that is asked for.
pub fn role_make(argument: &str) {
    let (config, owner) = argument.split_once(' ').expect("configuration and owner");
    helper(config).generate_managed((owner, "p256")).expect("SR_GenerateKey");
}

#[test]
fn r75_a_clock_that_jumps_ahead_and_back_breaks_no_trail_and_is_told() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let clock = Clock::build(token.directory());
        let jumps = [0, 400, 3, 1_000_000, 0, 90];
        for (number, days) in jumps.into_iter().enumerate() {
            let owner = format!("owner{number}");
            clock.start(days, "audit-make", &format!("{} {owner}", token.config_text())).succeed();
        }
        let lines = whole(&session);
        let made = of(&lines, "SR_GenerateKey");
        assert_eq!(made.len(), jumps.len(), "in the order in which they were made, whatever the clock said");
        for (number, line) in made.iter().enumerate() {
            assert_eq!(field(line, "owner"), format!("owner{number}"));
        }
        assert!(field(made[3], "time").starts_with("47"), "a thousand thousand days ahead: {}", made[3]);
        let report = session.audit_verify().expect("SR_AuditVerify");
        assert_eq!(field(&report, "clock_steps"), "2", "{report}");
    });
}

#[test]
fn r75_a_name_with_quotes_stays_one_field_of_the_record() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let owner = "mallory\",\"result\":\"CKR_OK\u{2028}\\";
        session.generate_managed((owner, "p256")).expect("SR_GenerateKey");
        let lines = whole(&session);
        let line = lines.last().expect("a record");
        assert!(line.contains(r#""owner":"mallory\",\"result\":\"CKR_OK"#), "{line}");
        assert_eq!(line.matches("\"result\":").count(), 1, "{line}");
    });
}
