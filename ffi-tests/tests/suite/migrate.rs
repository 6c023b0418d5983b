//! Moving the legacy system's records in through `SR_ImportLegacyHex`: wholly, once, and without a trace of the secrets.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ffi_tests::ck::*;
use ffi_tests::libcrypto::PublicKey;
use ffi_tests::vendor::*;
use ffi_tests::{Mechanism, Role, Session, Template, TestToken, USER_PIN, assert_rv, isolated, say, token};

/// The secret of one record, by its number: below the order of every curve, and no other's.
fn secret(number: u64) -> String {
    format!("5ca1ab1e{:048x}{number:08x}", 0xdead_beef_u64)
}

fn record(owner: &str, asset: &str, secret: &str) -> String {
    format!("{{\"owner\": \"{owner}\", \"asset\": \"{asset}\", \"ciphertext\": \"{secret}\"}}\n")
}

/// Writes a file of records beside the store.
fn write(store: &TestToken, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = store.directory().join(name);
    std::fs::write(&path, text).expect("writing the records");
    path.to_str().expect("UTF-8").to_owned()
}

fn report_of(store: &TestToken, name: &str) -> (String, PathBuf) {
    let path = store.directory().join(name);
    (path.to_str().expect("UTF-8").to_owned(), path)
}

fn public_key(session: &Session, name: Name) -> Vec<u8> {
    let key = session.find_managed(name, 0).unwrap_or_else(|rv| panic!("{name:?}: {rv}"));
    session.get(key, CKA_PUBLIC_KEY_INFO).expect("CKA_PUBLIC_KEY_INFO")
}

#[test]
fn r39_records_become_managed_keys_that_sign_and_openssl_verifies() {
    isolated!(|| {
        let store = TestToken::new();
        let session = store.user();
        let text = [
            // The private key 1 (SEC 2 has its public key, BIP 173 its address).
            format!(
                "{{\"owner\":\"alice\",\"asset\":\"btc\",\"ciphertext\":\"{:064x}\",\"address\":\"{}\",\"public_key\":\"{}\"}}\n",
                1,
                "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
                "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
            ),
            record("alice", "eth", &format!("{:064x}", 1)),
            // RFC 8032, 7.1, test 1.
            record("bob", "sol", "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"),
            record("bob", "p256", &secret(1)),
            record("bob", "aes256", &secret(2)),
        ];
        let source = write(&store, "records.jsonl", text.concat());
        let (report, report_path) = report_of(&store, "report.jsonl");
        let before = std::fs::read(&source).expect("the source");
        let (counts, answer) = session.import_legacy(&source, &report, 0);
        answer.unwrap_or_else(|rv| panic!("{rv}: {}", store.module.last_error()));
        assert_eq!(counts, [5, 0, 0]);
        assert_eq!(std::fs::read(&source).expect("the source"), before, "the source is never changed");
        let told = std::fs::read_to_string(&report_path).expect("the report");
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[0].contains("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4") && lines[0].contains("\"imported\""));
        assert!(lines[1].contains("0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf") && lines[1].contains("\"line\":2"));
        assert!(lines[2].contains("FVen3X669xLzsi6N2V91DoiyzHzg1uAgqiT8jZ9nS96Z"), "{}", lines[2]);
        for name in [("alice", "btc"), ("alice", "eth"), ("bob", "p256")] {
            let key = session.find_managed(name, 1).expect("version 1");
            let signature = session.sign(&Mechanism::new(CKM_ECDSA), key, &[7; 32]).expect("C_Sign");
            let public = PublicKey::from_spki(&public_key(&session, name)).expect("a public key");
            assert!(public.verify_ecdsa(&[7; 32], &signature), "{name:?}");
            assert_rv!(session.get(key, CKA_VALUE), CKR_ATTRIBUTE_SENSITIVE);
            for (attribute, wanted) in [(CKA_EXTRACTABLE, false), (CKA_LOCAL, false), (CKA_SENSITIVE, true)] {
                assert_eq!(session.get(key, attribute).expect("a flag"), [u8::from(wanted)], "{attribute:#x}");
            }
            assert_eq!(session.get_ulong(key, CKA_SR_STATE).expect("a state"), SR_STATE_ACTIVE);
        }
        let key = session.find_managed(("bob", "sol"), 0).expect("the key");
        let signature = session.sign(&Mechanism::new(CKM_EDDSA), key, b"").expect("C_Sign");
        // RFC 8032, 7.1, test 1: the signature of nothing.
        assert!(signature.starts_with(&[0xe5, 0x56, 0x43, 0x00, 0xc3, 0x60, 0xac, 0x72]));
        // What was moved rotates as any other.
        let new = session.rotate_managed(("alice", "btc"), 1).expect("SR_RotateKey");
        assert_eq!(session.find_managed(("alice", "btc"), 0).expect("the new version"), new);
        // Once more changes nothing, also where a key was rotated meanwhile.
        let objects = session.find(&Template::new()).expect("C_FindObjects").len();
        let (counts, answer) = session.import_legacy(&source, "", 0);
        answer.expect("once more");
        assert_eq!(counts, [0, 5, 0]);
        assert_eq!(session.find(&Template::new()).expect("C_FindObjects").len(), objects);
    });
}

#[test]
fn r39_bad_lines_do_not_stop_the_others_and_strict_moves_nothing() {
    isolated!(|| {
        let store = TestToken::new();
        let session = store.user();
        let good = record("alice", "btc", &secret(1));
        let bad = [
            "no json\n".to_owned(),
            record("carol", "doge", &secret(3)),
            record("carol", "btc", "01"),
            record("carol", "btc", &"0".repeat(64)),
            record("carol", "btc", "zz"),
            record("alice", "btc", &secret(2)),
            format!("{}\n", "x".repeat(100_000)),
            good.replace("}", ", \"address\": \"1BoatSLRHtKNngkdXEeobR76b53LETtpyT\"}").replace("alice", "dora"),
        ];
        let text = [good.as_str(), &bad.concat(), "\n", &record("bob", "eth", &secret(4)), &good].concat();
        let source = write(&store, "records.jsonl", text);
        let (report, report_path) = report_of(&store, "strict.jsonl");
        let (counts, answer) = session.import_legacy(&source, &report, SR_LEGACY_STRICT);
        assert_rv!(answer, CKR_DATA_INVALID);
        assert!(
            store.module.last_error().contains("8 records fail, so nothing was moved"),
            "{}",
            store.module.last_error()
        );
        assert_eq!(counts, [0, 1, 8]);
        assert_rv!(session.find_managed(("alice", "btc"), 0), CKR_KEY_HANDLE_INVALID);
        let told = std::fs::read_to_string(&report_path).expect("the report");
        assert_eq!([told.matches("withheld").count(), told.matches("\"failed\"").count()], [2, 8], "{told}");
        let (counts, answer) = session.import_legacy(&source, "", SR_LEGACY_DRY_RUN);
        answer.expect("a dry run");
        assert_eq!(counts, [2, 1, 8]);
        assert_rv!(session.find_managed(("alice", "btc"), 0), CKR_KEY_HANDLE_INVALID);
        let (report, report_path) = report_of(&store, "report.jsonl");
        let (counts, answer) = session.import_legacy(&source, &report, 0);
        answer.expect("bad lines are counted");
        assert_eq!(counts, [2, 1, 8]);
        let told = std::fs::read_to_string(&report_path).expect("the report");
        let failed: Vec<_> = told.lines().filter(|line| line.contains("\"failed\"")).collect();
        let words = [
            "no JSON",
            "unknown",
            "has 1 bytes",
            "above 0",
            "hexadecimal",
            "another one",
            "longer than",
            "address is not",
        ];
        for ((line, word), number) in failed.iter().zip(words).zip(2..) {
            assert!(line.contains(word) && line.contains(&format!("\"line\":{number}")), "{line}");
        }
        session.find_managed(("bob", "eth"), 0).expect("the line after the bad ones");
        for number in 1..=4 {
            assert!(!told.contains(&secret(number)[8..]), "a secret is in the report");
        }
    });
}

#[test]
fn a_source_or_report_that_cannot_be_is_refused() {
    isolated!(|| {
        let store = TestToken::new();
        let session = store.user();
        let source = write(&store, "records.jsonl", record("alice", "btc", &secret(1)));
        let empty = write(&store, "empty.jsonl", "\n\n");
        let folder = store.directory().to_str().expect("UTF-8");
        for (path, word) in [(&*empty, "no record"), (folder, "cannot be read"), ("/nowhere/records", "cannot be read")]
        {
            let (report, report_path) = report_of(&store, "none.jsonl");
            let (_, answer) = session.import_legacy(path, &report, 0);
            assert_rv!(answer, CKR_DATA_INVALID);
            assert!(store.module.last_error().contains(word), "{}", store.module.last_error());
            assert!(!report_path.exists(), "an empty report stays for {path}");
        }
        // The report is never a file that is there: least of all the source.
        let (_, answer) = session.import_legacy(&source, &source, 0);
        assert_rv!(answer, CKR_ARGUMENTS_BAD);
        assert!(store.module.last_error().contains("there already"), "{}", store.module.last_error());
        assert_eq!(std::fs::read_to_string(&source).expect("the source"), record("alice", "btc", &secret(1)));
        assert_rv!(session.import_legacy("", "", 0).1, CKR_ARGUMENTS_BAD);
        assert_rv!(session.import_legacy("a\0b", "", 0).1, CKR_ARGUMENTS_BAD);
        assert_rv!(session.import_legacy(&source, "", 4).1, CKR_ARGUMENTS_BAD);
        let reader = store.module.open_read_only(store.slot).expect("C_OpenSession");
        assert_rv!(reader.import_legacy(&source, "", 0).1, CKR_SESSION_READ_ONLY);
        session.logout().expect("C_Logout");
        assert_rv!(session.import_legacy(&source, "", 0).1, CKR_USER_NOT_LOGGED_IN);
        let session = store.user();
        assert_rv!(session.find_managed(("alice", "btc"), 0), CKR_KEY_HANDLE_INVALID);
    });
}

/// How often the import is killed.
const KILLS: usize = 200;
/// How often at most with one file, and how many records that has: five transactions and a bit.
const KILLS_A_FILE: usize = 40;
const RECORDS: u64 = 520;

/// Imports a file; tells when it starts and when it is done.
pub fn role_import_legacy(argument: &str) {
    let (config, source) = argument.split_once(' ').expect("configuration and source");
    let module = token::attach(config);
    let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    session.login(CKU_USER, USER_PIN).expect("C_Login");
    say("ready");
    let (counts, answer) = session.import_legacy(source, "", 0);
    answer.unwrap_or_else(|rv| panic!("{rv}: {}", module.last_error()));
    say(&format!("moved {counts:?}"));
}

/// Counts the keys of each half, and proves that the two belong together: as many owners on both sides, none of them twice.
fn whole_keys(session: &Session) -> usize {
    let owners = |class| {
        let found = session.find(&Template::class(class)).expect("C_FindObjects");
        let mut owners: Vec<_> = found.iter().map(|key| session.get(*key, CKA_SR_OWNER).expect("an owner")).collect();
        owners.sort();
        owners
    };
    let (private, public) = (owners(CKO_PRIVATE_KEY), owners(CKO_PUBLIC_KEY));
    assert!(private == public, "{} private and {} public halves", private.len(), public.len());
    let count = private.len();
    let mut once = private;
    once.dedup();
    assert_eq!(once.len(), count, "an owner has a key twice");
    count
}

/// Writes one more file of records, whose owners no other has.
fn next_file(store: &TestToken, number: u64) -> String {
    let lines =
        (number * RECORDS..(number + 1) * RECORDS).map(|at| record(&format!("o{at}"), "secp256k1", &secret(at)));
    write(store, &format!("records-{number}.jsonl"), lines.collect::<String>())
}

#[test]
fn r24_an_import_that_is_killed_leaves_whole_keys_and_is_completed_by_the_next() {
    isolated!(900, || {
        let store = TestToken::new();
        let session = store.user();
        let run = |source: &str, delay: Option<Duration>| {
            let mut child = Role::start("import-legacy", &format!("{} {source}", store.config_text()));
            child.expect("ready");
            let start = Instant::now();
            if let Some(delay) = delay {
                std::thread::sleep(delay);
                child.kill();
            }
            let (_, told, stderr) = child.finish();
            assert!(!stderr.contains("panicked"), "{}", ffi_tests::isolate::tail(&stderr));
            (told.iter().any(|line| line.starts_with("moved")), start.elapsed())
        };
        // How long a whole import takes tells over which time the kills are spread; it decides nothing.
        let (done, whole) = run(&next_file(&store, 0), None);
        assert!(done && whole_keys(&session) as u64 == RECORDS);
        let (mut kills, mut files, mut states) = (0, 1, BTreeSet::new());
        while kills < KILLS {
            let (source, mut last) = (next_file(&store, files), whole_keys(&session));
            for attempt in 1..=KILLS_A_FILE {
                let (done, _) =
                    run(&source, Some(whole.mul_f64((attempt * 7 % KILLS_A_FILE) as f64 / (2 * KILLS_A_FILE) as f64)));
                let now = whole_keys(&session);
                assert!(now >= last, "keys were lost: {last} and then {now}");
                last = now;
                states.insert(now);
                if done {
                    break;
                }
                kills += 1;
            }
            // The next one completes it, and one more changes nothing.
            let before = last as u64 - files * RECORDS;
            let (counts, answer) = session.import_legacy(&source, "", 0);
            answer.expect("the next one");
            assert_eq!(counts, [RECORDS - before, before, 0]);
            assert_eq!(session.import_legacy(&source, "", 0).0, [0, RECORDS, 0]);
            files += 1;
            assert_eq!(whole_keys(&session) as u64, files * RECORDS);
        }
        say(&format!("{kills} kills in {files} files; {} states were seen", states.len()));
        for number in [0, RECORDS + 1, files * RECORDS - 1] {
            let owner = format!("o{number}");
            let key = session.find_managed((&owner, "secp256k1"), 0).expect("the key");
            let signature = session.sign(&Mechanism::new(CKM_ECDSA), key, &[7; 32]).expect("C_Sign");
            let public = PublicKey::from_spki(&public_key(&session, (&owner, "secp256k1"))).expect("a public key");
            assert!(public.verify_ecdsa(&[7; 32], &signature));
        }
    });
}

/// The forms in which a secret may turn up.
fn forms(hex: &str) -> Vec<Vec<u8>> {
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect();
    vec![hex.as_bytes().to_vec(), hex.to_uppercase().into_bytes(), bytes.clone(), bytes.into_iter().rev().collect()]
}

#[test]
fn r23_no_secret_of_a_record_is_in_log_report_or_database() {
    isolated!(|| {
        let store = TestToken::new();
        store.module.finalize().expect("C_Finalize");
        let (canary, misplaced) = (secret(77), "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00");
        let text = [
            record("alice", "btc", &canary),
            record("alice", "eth", &canary[2..]),
            record("alice", misplaced, &canary),
            record("dora", "btc", &canary)
                .replace("\"btc\"", "\"btc\", \"address\": \"1BoatSLRHtKNngkdXEeobR76b53LETtpyT\""),
            format!("{{\"owner\": \"{misplaced}\n"),
            format!("{misplaced}\n"),
        ];
        // Outside of the folder that is searched.
        let folder = tempfile::tempdir().expect("a temporary directory");
        let source = folder.path().join("records.jsonl");
        std::fs::write(&source, text.concat()).expect("writing the records");
        let argument = format!("{} {}", store.config_text(), source.display());
        let (status, lines, stderr) =
            Role::start_with("import-legacy", &argument, &[("STRONGROOM_LOG", "trace")]).finish();
        assert!(status.success(), "{}", ffi_tests::isolate::tail(&stderr));
        store.initialize().expect("C_Initialize");
        let session = store.user();
        let (report, _) = report_of(&store, "report.jsonl");
        let (counts, answer) = session.import_legacy(source.to_str().expect("UTF-8"), &report, 0);
        answer.expect("once more");
        assert_eq!(counts, [0, 1, 5]);
        let mut places =
            vec![("the log".to_owned(), stderr.into_bytes()), ("the output".to_owned(), lines.join("\n").into_bytes())];
        for entry in
            std::fs::read_dir(store.directory()).expect("the folder").map(|entry| entry.expect("an entry").path())
        {
            places.push((entry.display().to_string(), std::fs::read(&entry).expect("a file")));
        }
        assert!(places.iter().any(|(place, _)| place.ends_with("strongroom.db")) && places.len() > 4);
        for form in forms(&canary[8..]).into_iter().chain(forms(misplaced)) {
            for (place, content) in &places {
                assert!(!content.windows(form.len()).any(|window| window == form), "{place} has a secret");
            }
        }
    });
}
