//! The audit trail: each operation leaves its record, in one chain, whatever happens to processes, disks and sinks.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ffi_tests::ck::*;
use ffi_tests::{
    Config, Mechanism, Role, SO_PIN, Session, Template, TestToken, USER_PIN, assert_rv, isolated, say, token,
};
use rusqlite::{Connection, params};

use crate::damage::{self, SmallDisk};

/// How often the process is killed.
const KILLS: u64 = 200;
/// How many alterations are tried.
const ALTERATIONS: u64 = 1000;

/// A configuration with these lines in `[audit]`.
fn audit(lines: &str) -> Config {
    Config { more: format!("[audit]\n{lines}"), ..Config::default() }
}

/// Reads a field of a line: a text, a number or null.
fn field<'l>(line: &'l str, name: &str) -> &'l str {
    let rest = line.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("no {name} in {line}")).1;
    match rest.strip_prefix('"') {
        Some(text) => text.split('"').next().expect("a text ends"),
        None => rest.split([',', '}']).next().expect("a value ends"),
    }
}

/// Reads the ids of the keys of a line.
fn keys(line: &str) -> Vec<&str> {
    line.split("\"id\":\"").skip(1).map(|rest| rest.split('"').next().expect("an id ends")).collect()
}

fn operations(lines: &[String]) -> Vec<(&str, &str)> {
    lines.iter().map(|line| (field(line, "operation"), field(line, "result"))).collect()
}

/// Requires a whole trail, signed to its last success, whose numbers have no gap; gives its lines.
fn whole(session: &Session) -> Vec<String> {
    let report = session.audit_verify().expect("SR_AuditVerify");
    assert!(report.contains("\"ok\":true") && report.contains("\"signatures_checked\":true"), "{report}");
    let lines = session.audit_lines(0).expect("SR_AuditExport");
    for (number, line) in (1..).zip(&lines) {
        assert_eq!(field(line, "sequence"), format!("{number}"));
    }
    lines
}

fn unique_id(session: &Session, object: CK_OBJECT_HANDLE) -> String {
    String::from_utf8(session.get(object, CKA_UNIQUE_ID).expect("CKA_UNIQUE_ID")).expect("text")
}

#[test]
fn r75_each_change_leaves_a_record_and_a_use_only_where_it_is_asked_for() {
    isolated!(|| {
        let token = TestToken::with(&Config { max_attempts: 3, ..Config::default() });
        let session = token.user();
        let (public, private) = session.p256("pair", true);
        let session_key = session.aes(16, "session", false, &Template::new()).expect("C_GenerateKey");
        let ids = [unique_id(&session, public), unique_id(&session, private)];
        session.sign(&Mechanism::new(CKM_ECDSA), private, &[1; 32]).expect("C_Sign");
        session.set(private, &Template::new().bytes(CKA_LABEL, "renamed")).expect("C_SetAttributeValue");
        session.destroy(public).expect("C_DestroyObject");
        session.destroy(session_key).expect("C_DestroyObject");
        let reader = token.module.open_read_only(token.slot).expect("C_OpenSession");
        assert_rv!(reader.aes(16, "refused", true, &Template::new()), CKR_SESSION_READ_ONLY);
        reader.close().expect("C_CloseSession");
        session.set_pin(USER_PIN, "other-1234").expect("C_SetPIN");
        session.logout().expect("C_Logout");
        for _ in 0..3 {
            assert_rv!(session.login(CKU_USER, "wrong-1234"), CKR_PIN_INCORRECT);
        }
        assert_rv!(session.login(CKU_USER, "other-1234"), CKR_PIN_LOCKED);
        session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
        let lines = whole(&session);
        assert_eq!(
            operations(&lines),
            [
                ("C_InitToken", "CKR_OK"),
                ("C_Login", "CKR_OK"),
                ("C_InitPIN", "CKR_OK"),
                ("C_Logout", "CKR_OK"),
                ("C_Login", "CKR_OK"),
                ("C_GenerateKeyPair", "CKR_OK"),
                ("C_SetAttributeValue", "CKR_OK"),
                ("C_DestroyObject", "CKR_OK"),
                ("C_GenerateKey", "CKR_SESSION_READ_ONLY"),
                ("C_SetPIN", "CKR_OK"),
                ("C_Logout", "CKR_OK"),
                ("C_Login", "CKR_PIN_INCORRECT"),
                ("C_Login", "CKR_PIN_INCORRECT"),
                ("C_Login", "CKR_PIN_INCORRECT"),
                ("lock-out", "CKR_PIN_LOCKED"),
                ("C_Login", "CKR_PIN_LOCKED"),
                ("C_Login", "CKR_OK"),
            ]
        );
        let made = &lines[5];
        assert_eq!(keys(made), ids);
        assert_eq!((field(made, "mechanism"), field(made, "user")), ("CKM_EC_KEY_PAIR_GEN", "user"));
        assert_eq!(field(made, "pid"), std::process::id().to_string());
        assert_eq!(field(made, "token"), token.serial());
        assert_eq!(field(made, "session"), format!("{:016x}", session.handle));
        let program = std::env::current_exe().expect("a program");
        assert!(program.to_string_lossy().ends_with(field(made, "executable")));
        assert_eq!(field(lines.last().expect("a record"), "user"), "so");
    });
}

#[test]
fn r75_with_key_use_each_use_is_recorded_before_it_begins() {
    isolated!(|| {
        let token = TestToken::with(&audit("key_use = true"));
        let session = token.user();
        let (public, private) = session.p256("pair", true);
        let extractable = session.aes(16, "aes", false, &Template::new()).expect("C_GenerateKey");
        let start = session.audit_lines(0).expect("SR_AuditExport").len() as u64;
        let (ecdsa, wrap) = (Mechanism::new(CKM_ECDSA), Mechanism::new(CKM_AES_KEY_WRAP));
        for _ in 0..3 {
            let signature = session.sign(&ecdsa, private, &[1; 32]).expect("C_Sign");
            session.verify(&ecdsa, public, &[1; 32], &signature).expect("C_Verify");
        }
        session.wrap(&wrap, extractable, extractable).expect("C_WrapKey");
        assert_rv!(session.encrypt_init(&Mechanism::new(CKM_RSA_PKCS), extractable), CKR_KEY_TYPE_INCONSISTENT);
        assert_rv!(session.sign_init(&ecdsa, public), CKR_KEY_FUNCTION_NOT_PERMITTED);
        whole(&session);
        let lines = session.audit_lines(start).expect("SR_AuditExport");
        let (sign, verify) = (("C_SignInit", "CKR_OK"), ("C_VerifyInit", "CKR_OK"));
        let refused = ("C_SignInit", "CKR_KEY_FUNCTION_NOT_PERMITTED");
        assert_eq!(operations(&lines), [sign, verify, sign, verify, sign, verify, ("C_WrapKey", "CKR_OK"), refused]);
        assert_eq!(keys(&lines[0]), [unique_id(&session, private)]);
        assert_eq!(field(&lines[0], "mechanism"), "CKM_ECDSA");
        assert_eq!(keys(&lines[6]).len(), 2, "what was wrapped, and by what");
    });
}

#[test]
fn r74_off_records_nothing() {
    isolated!(|| {
        let token = TestToken::with(&audit("mode = \"off\"\nkey_use = true"));
        let session = token.user();
        let (_, key) = session.p256("pair", true);
        session.sign(&Mechanism::new(CKM_ECDSA), key, &[1; 32]).expect("C_Sign");
        assert_eq!(session.audit_lines(0).expect("SR_AuditExport"), Vec::<String>::new());
    });
}

#[test]
fn r75_a_token_that_is_initialised_again_goes_on_with_its_trail() {
    isolated!(|| {
        let token = TestToken::new();
        token.user().p256("pair", true);
        token.module.close_all(token.slot).expect("C_CloseAllSessions");
        assert_rv!(token.module.init_token_in(token.slot, "test", "wrong-so-pin"), CKR_PIN_INCORRECT);
        token.module.init_token_in(token.slot, "test", SO_PIN).expect("C_InitToken");
        let session = token.open();
        session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
        let lines = whole(&session);
        let told = operations(&lines);
        let again = [
            ("C_CloseSession", "CKR_OK"),
            ("C_InitToken", "CKR_PIN_INCORRECT"),
            ("C_InitToken", "CKR_OK"),
            ("C_Login", "CKR_OK"),
        ];
        assert_eq!(told[told.len() - 4..], again);
        let signer = |line: &String| field(line, "signer").to_owned();
        assert_ne!(signer(&lines[0]), signer(lines.last().expect("a record")), "the new token key signs from here on");
    });
}

/// Makes token keys and tells the id of each: as many as asked for, or until it is killed.
pub fn role_keys(argument: &str) {
    let (config, count) = argument.split_once(' ').expect("configuration and count");
    let module = token::attach(config);
    let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    session.login(CKU_USER, USER_PIN).expect("C_Login");
    say("ready");
    for _ in 0..count.parse::<u64>().expect("a number") {
        let key = session.aes(16, "key", true, &Template::new()).expect("C_GenerateKey");
        say(&format!("made {}", unique_id(&session, key)));
    }
}

/// Lists the ids of the keys that the records tell of.
fn recorded(lines: &[String]) -> BTreeSet<String> {
    let made = lines.iter().filter(|line| field(line, "operation") == "C_GenerateKey");
    made.flat_map(|line| keys(line)).map(str::to_owned).collect()
}

/// Lists the ids of the keys that there are.
fn present(session: &Session) -> BTreeSet<String> {
    let found = session.find(&Template::class(CKO_SECRET_KEY)).expect("C_FindObjects");
    found.into_iter().map(|key| unique_id(session, key)).collect()
}

#[test]
fn r75_processes_that_record_at_once_make_one_chain() {
    isolated!(|| {
        const PROCESSES: usize = 4;
        const EACH: usize = 25;
        let token = TestToken::with(&audit("sinks = [\"store\", \"file:audit.jsonl\"]"));
        let work = format!("{} {EACH}", token.config_text());
        let helpers: Vec<_> = (0..PROCESSES).map(|_| Role::start("audit-keys", &work)).collect();
        let pids: BTreeSet<String> = helpers.iter().map(|helper| helper.id().to_string()).collect();
        helpers.into_iter().for_each(|helper| drop(helper.succeed()));
        let session = token.user();
        let lines = whole(&session);
        let made: Vec<_> = lines.iter().filter(|line| field(line, "operation") == "C_GenerateKey").collect();
        assert_eq!(made.len(), PROCESSES * EACH);
        assert_eq!(made.iter().map(|line| field(line, "pid").to_owned()).collect::<BTreeSet<_>>(), pids);
        assert_eq!(recorded(&lines), present(&session));
        let copy = std::fs::read_to_string(token.directory().join("audit.jsonl")).expect("the copy");
        let sorted = |lines: Vec<&str>| lines.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(
            sorted(copy.lines().collect()),
            sorted(lines.iter().map(String::as_str).collect()),
            "each line once, whole"
        );
    });
}

#[test]
fn r75_a_forked_child_goes_on_with_the_chain() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        session.aes(16, "before", true, &Template::new()).expect("C_GenerateKey");
        // SAFETY: the child calls the module and ends with `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let work = || {
                token.initialize().expect("C_Initialize in the child");
                let session = token.user();
                for _ in 0..20 {
                    session.aes(16, "child", true, &Template::new()).expect("C_GenerateKey");
                }
            };
            let code = i32::from(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
            // SAFETY: ends the child without the parent's exit handlers.
            unsafe { libc::_exit(code) };
        }
        for _ in 0..20 {
            session.aes(16, "parent", true, &Template::new()).expect("C_GenerateKey");
        }
        let mut status = 0;
        // SAFETY: the pointer lives.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0, "the child");
        let lines = whole(&session);
        assert_eq!(recorded(&lines), present(&session));
        let pids: BTreeSet<_> = lines.iter().map(|line| field(line, "pid")).collect();
        assert_eq!(pids, BTreeSet::from([std::process::id().to_string().as_str(), child.to_string().as_str()]));
    });
}

#[test]
fn r75_kill_nine_leaves_no_change_without_its_record() {
    isolated!(600, || {
        let token = TestToken::new();
        let (mut acknowledged, mut random) = (BTreeSet::new(), u64::from(std::process::id()));
        for _ in 0..KILLS {
            let mut helper = Role::start("audit-keys", &format!("{} 100000", token.config_text()));
            helper.expect("ready");
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_micros((random >> 33) % 30_000));
            helper.kill();
            let (_, lines, _) = helper.finish();
            acknowledged.extend(lines.iter().filter_map(|line| line.strip_prefix("made ")).map(str::to_owned));
        }
        let session = token.user();
        let recorded = recorded(&whole(&session));
        assert_eq!(recorded, present(&session), "a record for each key, and a key for each record");
        assert!(acknowledged.is_subset(&recorded), "no acknowledged key without its record");
        assert!(acknowledged.len() as u64 > KILLS, "{} keys prove too little", acknowledged.len());
    });
}

#[test]
fn r74_on_a_full_disk_required_refuses_and_changes_nothing() {
    isolated!(|| {
        let directory = tempfile::TempDir::new().expect("a directory");
        let Some(mount) = SmallDisk::mount(directory.path()) else {
            eprintln!("no right to mount a tmpfs here; the test of a full disk needs it");
            return;
        };
        let config = audit("mode = \"required\"\nkey_use = true").write(directory.path());
        let module = token::attach(config.to_str().expect("UTF-8"));
        let slot = token::make_token(module, "test");
        let session = module.open(slot).expect("C_OpenSession");
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        let key = session.aes(16, "before", true, &Template::new()).expect("C_GenerateKey");
        let filler = directory.path().join("filler");
        let _ = std::fs::write(&filler, vec![1u8; 64 << 20]);
        let (refused, uses) = use_until_refused(&session, key);
        assert_eq!(refused, CKR_FUNCTION_REJECTED);
        assert!(
            module.last_error().contains("required") && module.last_error().contains("no room"),
            "{}",
            module.last_error()
        );
        let before = present(&session);
        assert_rv!(session.aes(16, "full", true, &Template::new()), CKR_DEVICE_MEMORY | CKR_FUNCTION_REJECTED);
        assert_eq!(present(&session), before, "nothing was changed");
        std::fs::remove_file(&filler).expect("making room");
        session.aes(16, "after", true, &Template::new()).expect("C_GenerateKey");
        let lines = whole(&session);
        let used = lines
            .iter()
            .filter(|line| field(line, "operation") == "C_EncryptInit" && field(line, "result") == "CKR_OK");
        assert_eq!(used.count(), uses, "a record for each use that went through");
        assert_eq!(recorded(&lines), present(&session));
        module.finalize().expect("C_Finalize");
        drop(mount);
    });
}

/// Uses a key until that is refused; tells the answer, and how often it went through.
fn use_until_refused(session: &Session, key: CK_OBJECT_HANDLE) -> (CK_RV, usize) {
    for uses in 0..100_000 {
        if let Err(rv) = session.encrypt(&Mechanism::new(CKM_AES_ECB), key, &[1; 16]) {
            return (rv.0, uses);
        }
    }
    panic!("the disk was not full");
}

#[test]
fn r74_a_sink_that_blocks_or_is_gone_costs_a_bounded_time() {
    isolated!(|| {
        let sinks =
            "mode = \"required\"\nsinks = [\"store\", \"file:pipe\", \"file:none/audit\", \"file:audit.jsonl\"]";
        let directory = tempfile::TempDir::new().expect("a directory");
        let pipe = directory.path().join("pipe");
        let path = CString::new(pipe.to_str().expect("UTF-8")).expect("no zero");
        // SAFETY: the path ends with a zero.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        let config = audit(sinks).write(directory.path());
        let module = token::attach(config.to_str().expect("UTF-8"));
        let slot = token::make_token(module, "test");
        let session = module.open(slot).expect("C_OpenSession");
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        let start = Instant::now();
        for _ in 0..10 {
            session.aes(16, "key", true, &Template::new()).expect("C_GenerateKey");
        }
        assert!(start.elapsed() < Duration::from_secs(3), "a pipe without a reader: {:?}", start.elapsed());
        let reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("the pipe");
        fill(&reader);
        let start = Instant::now();
        session.aes(16, "key", true, &Template::new()).expect("C_GenerateKey");
        assert!(start.elapsed() < Duration::from_secs(2), "a pipe that is full: {:?}", start.elapsed());
        let copy = directory.path().join("audit.jsonl");
        let lines = whole(&session).len();
        assert_eq!(std::fs::read_to_string(copy).expect("the copy").lines().count(), lines);
    });
}

/// Writes to a pipe until it takes no more.
fn fill(pipe: &std::fs::File) {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, 0);
    let mut pipe = pipe;
    while pipe.write(&[b'x'; 4096]).is_ok() {}
    while pipe.write(b"x").is_ok() {}
}

/// One row of the table, as an attacker sees it.
#[derive(Clone)]
struct Row {
    record: Vec<u8>,
    hash: Vec<u8>,
    tag: Vec<u8>,
}

/// The trail in the database, open for whoever can write to it.
struct Attacker {
    database: Connection,
    rows: Vec<Row>,
}

impl Attacker {
    fn open(path: PathBuf) -> Self {
        let database = Connection::open(path).expect("the database");
        database.busy_timeout(Duration::from_secs(10)).expect("a timeout");
        let mut statement = database.prepare("SELECT record, hash, tag FROM audit ORDER BY sequence").expect("SQL");
        let read = statement.query_map([], |row| Ok(Row { record: row.get(0)?, hash: row.get(1)?, tag: row.get(2)? }));
        let rows = read.expect("rows").map(|row| row.expect("a row")).collect();
        drop(statement);
        Self { database, rows }
    }

    /// Replaces the trail.
    fn put(&mut self, rows: &[(u64, Row)]) {
        let step = self.database.transaction().expect("a transaction");
        step.execute("DELETE FROM audit", []).expect("SQL");
        for (sequence, row) in rows {
            step.execute(
                "INSERT INTO audit (token, sequence, record, hash, tag) VALUES (1, ?1, ?2, ?3, ?4)",
                params![*sequence as i64, row.record, row.hash, row.tag],
            )
            .expect("SQL");
        }
        step.commit().expect("a commit");
    }

    /// Alters the trail somehow; tells what was done. The end is never cut off: that shows to nobody.
    fn alter(&self, mut draw: impl FnMut(u64) -> u64) -> (String, Vec<(u64, Row)>) {
        let mut rows: Vec<(u64, Row)> = (1..).zip(self.rows.iter().cloned()).collect();
        let len = rows.len() as u64;
        let at = draw(len - 1) as usize;
        let what = match draw(6) {
            0 => {
                rows.remove(at);
                format!("cut {}", at + 1)
            }
            1 => {
                let gone = rows.remove(at);
                rows.iter_mut().skip(at).for_each(|row| row.0 -= 1);
                format!("cut {} and closed up", gone.0)
            }
            2 => {
                let copy = rows[draw(len) as usize].1.clone();
                rows.iter_mut().skip(at).for_each(|row| row.0 += 1);
                rows.insert(at, (at as u64 + 1, copy));
                format!("inserted at {}", at + 1)
            }
            3 => {
                let other = at + 1;
                let (first, second) = (rows[at].1.clone(), rows[other].1.clone());
                (rows[at].1, rows[other].1) = (second, first);
                format!("exchanged {} and {}", at + 1, other + 1)
            }
            _ => {
                let row = &mut rows[draw(len) as usize].1;
                let parts = [&mut row.record, &mut row.hash, &mut row.tag].into_iter().filter(|part| !part.is_empty());
                let part = parts.collect::<Vec<_>>().swap_remove(draw(2) as usize);
                let bit = draw(part.len() as u64 * 8);
                part[bit as usize / 8] ^= 1 << (bit % 8);
                format!("bit {bit}")
            }
        };
        (what, rows)
    }
}

#[test]
fn r75_every_one_of_a_thousand_alterations_is_found() {
    isolated!(300, || {
        let token = TestToken::new();
        let session = token.user();
        for _ in 0..30 {
            session.aes(16, "key", true, &Template::new()).expect("C_GenerateKey");
        }
        let clean = whole(&session);
        let mut attacker = Attacker::open(token.database());
        assert_eq!(attacker.rows.len(), clean.len());
        let mut state = 0x5eed_u64;
        let mut draw = move |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % limit
        };
        for _ in 0..ALTERATIONS {
            let (what, rows) = attacker.alter(&mut draw);
            attacker.put(&rows);
            let report = session.audit_verify().expect("SR_AuditVerify");
            assert!(report.contains("\"ok\":false") && report.contains("\"sequence\":"), "{what}: {report}");
        }
        let rows: Vec<_> = (1..).zip(attacker.rows.iter().cloned()).collect();
        attacker.put(&rows);
        assert_eq!(whole(&session), clean);
    });
}

#[test]
fn r75_without_login_the_chain_alone_is_checked() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.open();
        let report = session.audit_verify().expect("SR_AuditVerify");
        assert!(report.contains("\"ok\":true") && report.contains("\"signatures_checked\":false"), "{report}");
        let lines = session.audit_lines(0).expect("SR_AuditExport");
        assert_eq!(session.audit_lines(lines.len() as u64).expect("SR_AuditExport"), Vec::<String>::new());
        assert_eq!(session.audit_lines(2).expect("SR_AuditExport"), lines[2..]);
    });
}

/// Gives up all rights, and tells whether a login goes through where the store can only be read.
pub fn role_read_only(config: &str) {
    damage::give_up_rights();
    let module = token::attach(config);
    let session = module.open_read_only(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    match session.login(CKU_USER, USER_PIN) {
        Ok(()) => say("logged in"),
        Err(rv) => say(&format!("refused {rv}: {}", module.last_error())),
    }
    module.finalize().expect("C_Finalize");
}

#[test]
fn r74_a_store_that_can_only_be_read_stops_required_and_nothing_else() {
    isolated!(|| {
        for (mode, wanted) in [("best-effort", "logged in"), ("required", "refused CKR_FUNCTION_REJECTED")] {
            let store = TestToken::with(&audit(&format!("mode = \"{mode}\"")));
            store.module.finalize().expect("C_Finalize");
            let (_, lines, stderr) =
                damage::read_only(&store, || Role::start("audit-read-only", &store.config_text()).finish());
            assert!(lines.iter().any(|line| line.starts_with(wanted)), "{mode}: {lines:?}");
            assert!(!stderr.contains("WARN"), "a store that can only be read is no fault of it: {stderr}");
        }
    });
}
