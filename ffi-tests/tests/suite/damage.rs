//! Bad input from below: configurations, databases, disks, and single bits. Each is told, by a
//! return value, a text and a line in the log; none crashes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ffi_tests::ck::*;
use ffi_tests::module::padded;
use ffi_tests::{
    Config, Mechanism, Module, Role, SO_PIN, Session, Template, TestToken, USER_PIN, isolated, say, token,
};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::attributes::{certificate, data};

// ---- What a process sees of a store ----

/// Tells everything that can be seen and used; an error is told with its text.
pub fn role_survey(config: &str) {
    let module = Module::load();
    match token::initialize(module, Path::new(config)) {
        Ok(()) => say("see initialized"),
        Err(rv) => return say(&format!("error C_Initialize {rv}: {}", module.last_error())),
    }
    let tell = |what: &str, rv| say(&format!("error {what} {rv}: {}", module.last_error()));
    match module.slots(true) {
        Err(rv) => tell("C_GetSlotList", rv),
        Ok(slots) => slots.into_iter().for_each(|slot| survey_slot(module, slot)),
    }
    // A new token, in the slot that waits for one.
    if let Some(slot) = module.free_slot_or_none() {
        let serial = module.token_info(slot).map(|info| padded(&info.serialNumber));
        say(&format!("see the next serial {serial:?}"));
        if let Err(rv) = module.init_token_in(slot, "new", SO_PIN) {
            tell("C_InitToken", rv);
        }
    }
    if let Err(rv) = module.finalize() {
        tell("C_Finalize", rv);
    }
}

fn survey_slot(module: &'static Module, slot: CK_SLOT_ID) {
    let tell = |what: &str, rv| say(&format!("error {what} {rv}: {}", module.last_error()));
    match module.token_info(slot) {
        Err(rv) => tell("C_GetTokenInfo", rv),
        Ok(info) if info.flags & CKF_TOKEN_INITIALIZED == 0 => return,
        Ok(info) => {
            let (label, serial) = (padded(&info.label), padded(&info.serialNumber));
            say(&format!("see token {slot} {serial} {label:?} {:#x}", info.flags));
        }
    }
    let session = match module.open(slot) {
        Ok(session) => session,
        Err(rv) => return tell("C_OpenSession", rv),
    };
    match session.login(CKU_SO, SO_PIN) {
        Ok(()) => drop(session.logout()),
        Err(rv) => tell("C_Login of the SO", rv),
    }
    if let Err(rv) = session.login(CKU_USER, USER_PIN) {
        tell("C_Login", rv);
    }
    match session.audit_verify() {
        Ok(report) => say(if report.contains("\"ok\":true") { TRAIL_WHOLE } else { TRAIL_DAMAGED }),
        Err(rv) => tell("SR_AuditVerify", rv),
    }
    let labels = ["ec", "aes", "cert", "data", "private data"]
        .map(|label| (label.to_owned(), Template::new().bytes(CKA_LABEL, label)));
    let classes = [CKO_PUBLIC_KEY, CKO_PRIVATE_KEY, CKO_SECRET_KEY, CKO_CERTIFICATE, CKO_DATA];
    let classes = classes.map(|class| (format!("class {class}"), Template::class(class)));
    let others = [
        ("id", Template::new().bytes(CKA_ID, [0xc0, 0, 1])),
        ("no id", Template::new().bytes(CKA_ID, [])),
        ("subject", certificate("cert").only(CKA_SUBJECT)),
        ("no subject", Template::new().bytes(CKA_SUBJECT, [])),
        ("the label of nothing", Template::new().bytes(CKA_LABEL, "nothing")),
    ];
    let others = others.map(|(what, template)| (what.to_owned(), template));
    for (what, template) in labels.into_iter().chain(classes).chain(others) {
        match session.find(&template) {
            Ok(found) => say(&format!("see by {what}: {}", found.len())),
            Err(rv) => tell("C_FindObjects", rv),
        }
    }
    match session.find(&Template::new()) {
        Err(rv) => tell("C_FindObjects", rv),
        Ok(found) => {
            // A check value is seen by who looks for what stands there, so each id of a key is looked for as well.
            for id in found.iter().filter_map(|object| session.get(*object, CKA_ID).ok()) {
                match session.find(&Template::new().bytes(CKA_ID, &id)) {
                    Ok(found) => say(&format!("see by id {id:02x?}: {}", found.len())),
                    Err(rv) => tell("C_FindObjects by an id", rv),
                }
            }
            let mut lines: Vec<String> = found.into_iter().flat_map(|object| survey_object(&session, object)).collect();
            lines.sort();
            lines.iter().for_each(|line| say(line));
        }
    }
}

/// Reads and uses an object.
fn survey_object(session: &Session, object: CK_OBJECT_HANDLE) -> Vec<String> {
    let module = session.module;
    let mut lines = Vec::new();
    let tell = |what: &str, rv| format!("error {what} {rv}: {}", module.last_error());
    let label = match session.get(object, CKA_LABEL) {
        Ok(label) => String::from_utf8_lossy(&label).into_owned(),
        Err(rv) => return vec![tell("CKA_LABEL", rv)],
    };
    let class = session.get_ulong(object, CKA_CLASS).unwrap_or(CK_ULONG::MAX);
    for kind in [
        CKA_CLASS,
        CKA_ID,
        CKA_KEY_TYPE,
        CKA_PRIVATE,
        CKA_SENSITIVE,
        CKA_EXTRACTABLE,
        CKA_MODIFIABLE,
        CKA_UNIQUE_ID,
        CKA_EC_POINT,
        CKA_SUBJECT,
        CKA_APPLICATION,
        CKA_SIGN,
    ] {
        if let Ok(value) = session.get(object, kind) {
            lines.push(format!("see {class} {label:?} {kind:#x} {value:x?}"));
        }
    }
    let used = match class {
        CKO_PRIVATE_KEY => session.sign(&Mechanism::new(CKM_ECDSA), object, &[3; 32]).map(|_| Vec::new()),
        CKO_PUBLIC_KEY => session.verify_init(&Mechanism::new(CKM_ECDSA), object).map(|()| Vec::new()),
        CKO_SECRET_KEY => session.encrypt(&Mechanism::new(CKM_AES_ECB), object, &[3; 16]),
        _ => session.get(object, CKA_VALUE),
    };
    lines.push(match used {
        Ok(result) => format!("see {class} {label:?} in use: {result:x?}"),
        Err(rv) => tell(&format!("using {label:?}"), rv),
    });
    let _ = session.verify_once(&[3; 32], &[3; 64]);
    lines
}

/// The log of a survey, beside the store.
const LOG: &str = "log";

/// What a survey of a store brought.
struct Survey {
    seen: BTreeSet<String>,
    errors: Vec<String>,
}

impl Survey {
    fn of(config: &Path) -> Survey {
        let lines = Role::start("survey", config.to_str().expect("a path of UTF-8")).succeed();
        let (errors, seen): (Vec<String>, Vec<String>) = lines.into_iter().partition(|line| line.starts_with("error "));
        Survey { seen: seen.into_iter().collect(), errors }
    }

    /// Gives an error that the log does not have, or that does not say what to do.
    fn half_told(&self, log: &str) -> Option<&String> {
        self.errors.iter().find(|error| {
            let text = error.split_once(": ").map_or("", |parts| parts.1);
            let is_device = error.contains("CKR_DEVICE_ERROR");
            text.is_empty() || !log.contains(text) || (is_device && !text.contains("strongroom doctor"))
        })
    }

    /// The library came up, an error was answered, and its text says this.
    fn assert_told(&self, what: &str, word: &str) {
        assert!(self.seen.contains("see initialized"), "{what}: the library still initialises: {:?}", self.errors);
        assert!(!self.errors.is_empty(), "{what}: nothing was told; seen: {:?}", self.seen);
        for error in &self.errors {
            let text = error.split_once(": ").map_or("", |parts| parts.1);
            assert!(!text.is_empty(), "{what}: an error without a text: {error}");
        }
        assert!(
            self.errors.iter().any(|error| error.contains(word)),
            "{what}: no text says {word:?}: {:?}",
            self.errors
        );
    }
}

/// A store with one of each kind of object, at rest.
fn filled_store() -> TestToken {
    let store = TestToken::new();
    let session = store.user();
    session.p256("ec", true);
    session.aes(32, "aes", true, &Template::new()).expect("AES key");
    session.create(&certificate("cert")).expect("certificate");
    session.create(&data("data")).expect("data object");
    session.create(&data("private data").bool(CKA_PRIVATE, true)).expect("private data object");
    store.module.finalize().expect("C_Finalize");
    store
}

/// Copies a store at rest to a directory of its own and gives its configuration there.
fn copy_store(from: &Path, to: &Path) -> PathBuf {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("the store").map(|entry| entry.expect("an entry").path()) {
        if entry.is_file() {
            fs::copy(&entry, to.join(entry.file_name().expect("a name"))).expect("copying");
        }
    }
    let config = to.join("strongroom.toml");
    let text = fs::read_to_string(&config).expect("the configuration");
    let moved = text.replace(from.to_str().expect("UTF-8"), to.to_str().expect("UTF-8"));
    let logged = format!("{moved}[log]\nfile = \"{}\"\n", to.join(LOG).display());
    fs::write(&config, logged).expect("the configuration");
    config
}

// ---- Single bits ----

/// One stored value.
struct Cell {
    table: String,
    columns: Vec<String>,
    row: Vec<Value>,
    column: usize,
}

impl Cell {
    fn name(&self) -> String {
        format!("{}.{}", self.table, self.columns[self.column])
    }

    /// Flips one bit of the value in place; `None` when the database itself forbids the new value.
    fn flip(&self, database: &Connection, place: usize) -> Option<()> {
        let flipped = match &self.row[self.column] {
            Value::Null | Value::Real(_) => return None,
            Value::Integer(number) => Value::Integer(number ^ 1),
            Value::Text(text) => {
                let mut bytes = text.clone().into_bytes();
                let index = (bytes.len().checked_sub(1)?).min(place * bytes.len() / 2);
                bytes[index] ^= 1;
                Value::Text(String::from_utf8(bytes).ok()?)
            }
            Value::Blob(bytes) => {
                let mut bytes = bytes.clone();
                let index = (bytes.len().checked_sub(1)?).min(place * bytes.len() / 2);
                bytes[index] ^= 1;
                Value::Blob(bytes)
            }
        };
        let is_row: Vec<String> =
            self.columns.iter().enumerate().map(|(index, name)| format!("\"{name}\" IS ?{}", index + 2)).collect();
        let statement = format!(
            "UPDATE \"{}\" SET \"{}\" = ?1 WHERE {}",
            self.table,
            self.columns[self.column],
            is_row.join(" AND ")
        );
        let values = std::iter::once(&flipped).chain(&self.row);
        let changed = database.execute(&statement, params_from_iter(values)).ok()?;
        assert_eq!(changed, 1, "{}", self.name());
        Some(())
    }
}

/// Lists every value of every table.
fn cells(database: &Connection) -> Vec<Cell> {
    let texts = |query: &str, column: usize| -> Vec<String> {
        let mut statement = database.prepare(query).expect("a query");
        statement.query_map([], |row| row.get(column)).expect("rows").map(|text| text.expect("text")).collect()
    };
    let mut all = Vec::new();
    for table in texts("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'", 0) {
        let columns = texts(&format!("PRAGMA table_info(\"{table}\")"), 1);
        let mut statement = database.prepare(&format!("SELECT * FROM \"{table}\"")).expect("a query");
        let width = columns.len();
        let rows =
            statement.query_map([], |row| (0..width).map(|index| row.get(index)).collect::<Result<Vec<Value>, _>>());
        for row in rows.expect("rows").map(|row| row.expect("a row")) {
            let cell = |column| Cell { table: table.clone(), columns: columns.clone(), row: row.clone(), column };
            all.extend((0..width).map(cell));
        }
    }
    all
}

/// Where the next token's serial number is kept. When it is damaged, another is drawn in its place and the log says so. An error
/// would protect nothing: nobody has been given the number yet, nothing is stored under it, and any unused one will do as
/// well, whereas no slot could be listed until somebody repaired it.
const REDRAWN: &[&str] = &["meta.id", "meta.next_serial", "meta.digest"];

/// What a survey says of the audit trail. Damage there is told by who verifies it, and stops no work.
const TRAIL_WHOLE: &str = "see the trail whole";
const TRAIL_DAMAGED: &str = "see the trail damaged";

/// Tells whether the survey found the trail damaged, as it must be where one of its cells was struck.
fn trail_is_told(cell: &Cell, survey: &Survey) -> bool {
    ["audit", "audit_end"].contains(&cell.table.as_str()) && survey.seen.contains(TRAIL_DAMAGED)
}

/// Tells whether two surveys differ in the next serial alone.
fn only_redraws(baseline: &Survey, survey: &Survey) -> bool {
    baseline.seen.symmetric_difference(&survey.seen).all(|line| line.starts_with("see the next serial Ok"))
}

fn open(path: &Path) -> Connection {
    let database = Connection::open(path).expect("the database");
    // Damage asks neither.
    database.pragma_update(None, "ignore_check_constraints", true).expect("a pragma");
    database.pragma_update(None, "foreign_keys", false).expect("a pragma");
    database
}

#[test]
fn flipped_bits_are_noticed_in_every_column() {
    isolated!(600, || {
        let store = filled_store();
        open(&store.database()).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("a checkpoint");
        let copies = tempfile::TempDir::new().expect("a directory");
        let baseline = Survey::of(&copy_store(store.directory(), &copies.path().join("baseline")));
        assert!(baseline.errors.is_empty(), "{:?}", baseline.errors);
        assert!(baseline.seen.iter().filter(|line| line.contains("in use")).count() == 6, "{:?}", baseline.seen);

        let all = cells(&open(&store.database()));
        let (mut flips, mut wrong) = (0, Vec::new());
        let mut columns = BTreeSet::new();
        for (index, cell) in all.iter().enumerate() {
            // Long values are struck at their start, middle and end: header, body, tag.
            let places =
                if matches!(&cell.row[cell.column], Value::Blob(bytes) if bytes.len() > 40) { 0..3 } else { 1..2 };
            for place in places {
                let directory = copies.path().join(format!("{index}-{place}"));
                let config = copy_store(store.directory(), &directory);
                let database = open(&directory.join("strongroom.db"));
                let Some(()) = cell.flip(&database, place) else { continue };
                drop(database);
                flips += 1;
                columns.insert(cell.name());
                let survey = Survey::of(&config);
                let log = fs::read_to_string(directory.join(LOG)).unwrap_or_default();
                let verdict = match survey.half_told(&log) {
                    Some(error) => &format!("no log line, or no word of what to do: {error}"),
                    None if !survey.errors.is_empty() => "noticed",
                    None if survey.seen == baseline.seen => "no difference",
                    None => "changed in silence",
                };
                let is_redrawn = REDRAWN.contains(&cell.name().as_str())
                    && survey.errors.is_empty()
                    && only_redraws(&baseline, &survey)
                    && log.contains("the next serial number was damaged and is drawn anew");
                if verdict != "noticed" && !is_redrawn && !trail_is_told(cell, &survey) {
                    let gone: Vec<_> = baseline.seen.difference(&survey.seen).take(3).collect();
                    let new: Vec<_> = survey.seen.difference(&baseline.seen).take(3).collect();
                    wrong.push(format!("{} at {place}: {verdict}; gone {gone:?}; new {new:?}", cell.name()));
                }
                fs::remove_dir_all(&directory).expect("removing a copy");
            }
        }
        let every: BTreeSet<_> = all.iter().map(Cell::name).collect();
        assert_eq!(columns, every, "each column of each table was struck");
        assert!(flips > 60, "{flips} flips are too few to prove anything");
        assert!(wrong.is_empty(), "{} of {flips} flips:\n{}", wrong.len(), wrong.join("\n"));
    });
}

/// One damaged token takes no other one with it.
#[test]
fn r64_a_damaged_token_reports_its_error_and_the_others_work() {
    isolated!(600, || {
        let store = TestToken::new();
        store.user().p256("first key", true);
        let second = store.module.open(token::make_token(store.module, "second")).expect("C_OpenSession");
        second.login(CKU_USER, USER_PIN).expect("C_Login");
        second.p256("second key", true);
        store.module.finalize().expect("C_Finalize");
        open(&store.database()).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("a checkpoint");
        let copies = tempfile::TempDir::new().expect("a directory");
        let baseline = Survey::of(&copy_store(store.directory(), &copies.path().join("baseline")));
        let of_second = |survey: &Survey| -> Vec<String> {
            survey.seen.iter().filter(|line| line.contains("\"second")).cloned().collect()
        };
        assert!(of_second(&baseline).iter().any(|line| line.contains("in use")), "{:?}", baseline.seen);
        let is_first = |cell: &&Cell| cell.table == "token" && cell.row[3] == Value::Text("test".into());
        for cell in cells(&open(&store.database())).iter().filter(is_first) {
            let directory = copies.path().join(cell.name());
            let config = copy_store(store.directory(), &directory);
            let Some(()) = cell.flip(&open(&directory.join("strongroom.db")), 1) else { continue };
            let survey = Survey::of(&config);
            let (name, told) = (cell.name(), &survey.errors);
            assert_eq!(of_second(&survey), of_second(&baseline), "{name}: {told:?}");
            assert!(told.iter().all(|error| !error.contains("C_GetSlotList")), "{name}: {told:?}");
            for call in ["C_GetTokenInfo", "C_OpenSession"] {
                let error =
                    told.iter().find(|error| error.contains(call)).unwrap_or_else(|| panic!("{name}: {told:?}"));
                assert!(error.contains("CKR_DEVICE_ERROR") && error.contains("the token"), "{name}: {error}");
            }
        }
    });
}

/// Rows that vanish are noticed too, or are as if never made: no half object.
#[test]
fn bits_of_the_file_itself_never_crash() {
    isolated!(600, || {
        let store = filled_store();
        open(&store.database()).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("a checkpoint");
        let copies = tempfile::TempDir::new().expect("a directory");
        let bytes = fs::read(store.database()).expect("the database");
        let step = (bytes.len() / 80).max(1);
        for (round, index) in (0..bytes.len()).step_by(step).chain(0..100).enumerate().step_by(2) {
            let directory = copies.path().join(round.to_string());
            let config = copy_store(store.directory(), &directory);
            let mut torn = bytes.clone();
            torn[index] ^= 0x10;
            fs::write(directory.join("strongroom.db"), torn).expect("the database");
            // `succeed` inside: no crash, and C_Finalize is reached.
            let survey = Survey::of(&config);
            assert!(survey.errors.iter().all(|error| !error.ends_with(": ")), "byte {index}: an error without a text");
            fs::remove_dir_all(&directory).expect("removing a copy");
        }
    });
}

// ---- Databases that are not ours, or not whole ----

#[test]
fn databases_that_cannot_be_used_are_told() {
    isolated!(|| {
        let store = filled_store();
        open(&store.database()).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("a checkpoint");
        let copies = tempfile::TempDir::new().expect("a directory");
        let case = |name: &str, spoil: &dyn Fn(&Path)| {
            let directory = copies.path().join(name);
            let config = copy_store(store.directory(), &directory);
            spoil(&directory.join("strongroom.db"));
            Survey::of(&config)
        };
        let garbage = case("garbage", &|path| fs::write(path, [0x5a; 8192]).expect("writing"));
        garbage.assert_told("not a database", "strongroom.db");
        let torn = case("torn", &|path| {
            let bytes = fs::read(path).expect("reading");
            fs::write(path, &bytes[..bytes.len() / 2]).expect("writing");
        });
        torn.assert_told("half a database", "");
        let foreign = case("foreign", &|path| {
            fs::remove_file(path).expect("removing");
            let database = Connection::open(path).expect("a database");
            database.execute_batch("CREATE TABLE recipes (id INTEGER PRIMARY KEY, text TEXT)").expect("a table");
        });
        foreign.assert_told("somebody else's database", "strongroom.db");
        let newer = case("newer", &|path| {
            let database = Connection::open(path).expect("a database");
            let version: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a version");
            database.pragma_update(None, "user_version", version + 1000).expect("a version");
        });
        newer.assert_told("a newer store (R-26)", "newer");
        let directory = case("directory", &|path| {
            fs::remove_file(path).expect("removing");
            fs::create_dir(path).expect("a directory");
        });
        directory.assert_told("a directory in place of the database", "strongroom.db");
        let missing_table = case("missing table", &|path| {
            let database = Connection::open(path).expect("a database");
            database.execute_batch("PRAGMA foreign_keys = OFF; DROP TABLE object").expect("dropping");
        });
        missing_table.assert_told("a table is missing", "");
    });
}

#[test]
fn an_empty_file_is_a_new_store() {
    isolated!(|| {
        let directory = tempfile::TempDir::new().expect("a directory");
        let config = Config::default().write(directory.path());
        fs::write(directory.path().join("strongroom.db"), b"").expect("writing");
        let module = token::attach(config.to_str().expect("UTF-8"));
        token::make_token(module, "new");
    });
}

#[test]
fn a_missing_directory_is_made_or_told() {
    isolated!(|| {
        let directory = tempfile::TempDir::new().expect("a directory");
        let config = Config::default().write(directory.path());
        let text = fs::read_to_string(&config).expect("the configuration");
        let moved = text.replace("/strongroom.db", "/a/b/strongroom.db");
        fs::write(&config, moved).expect("the configuration");
        let module = token::attach(config.to_str().expect("UTF-8"));
        match module.slots(false) {
            Ok(_) => drop(token::make_token(module, "new")),
            Err(rv) => assert!(module.last_error().contains("strongroom.db"), "{rv}: {}", module.last_error()),
        }
    });
}

/// Another user, without the right to write: reading and signing go on.
#[test]
fn r71_a_store_that_cannot_be_written_still_signs() {
    isolated!(|| {
        let store = filled_store();
        let lines = read_only(&store, || Role::start("read-only", &store.config_text()).succeed());
        assert!(lines.contains(&"signs".to_owned()), "{lines:?}");
        assert!(
            lines.iter().any(|line| line.starts_with("write ") && line.contains("CKR_TOKEN_WRITE_PROTECTED")),
            "{lines:?}"
        );
    });
}

/// Takes the right to write a store from everybody while `work` runs.
pub fn read_only<T>(store: &TestToken, work: impl FnOnce() -> T) -> T {
    open(&store.database()).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("a checkpoint");
    // The owner is the one without rights; nobody may write.
    let all = fs::read_dir(store.directory()).expect("the store").map(|entry| entry.expect("an entry").path());
    let all: Vec<PathBuf> = all.chain([store.directory().to_path_buf()]).collect();
    for path in &all {
        // Fails where this is no privileged user; then the helper is this same user.
        let _ = std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY));
        change_mode(path, if path.is_dir() { 0o500 } else { 0o400 });
    }
    let answer = work();
    all.iter().for_each(|path| change_mode(path, 0o700));
    answer
}

fn change_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

/// A user without rights.
const NOBODY: u32 = 65_534;

/// Gives up all rights.
pub fn give_up_rights() {
    // SAFETY: asks only.
    if unsafe { libc::geteuid() } == 0 {
        // The module may lie where only its owner can read.
        Module::load();
        // SAFETY: nothing else of this process needs the rights.
        let dropped =
            unsafe { libc::setresgid(NOBODY, NOBODY, NOBODY) == 0 && libc::setresuid(NOBODY, NOBODY, NOBODY) == 0 };
        assert!(dropped, "giving up rights");
    }
}

/// Gives up all rights, logs in, signs, and tries to write.
pub fn role_read_only(config: &str) {
    give_up_rights();
    let module = token::attach(config);
    let slot = module.slot_of("test").unwrap_or_else(|| panic!("no token: {}", module.last_error()));
    let session = module.open_read_only(slot).expect("C_OpenSession");
    session.login(CKU_USER, USER_PIN).unwrap_or_else(|rv| panic!("C_Login: {rv}: {}", module.last_error()));
    let key = session.find_one(&Template::class(CKO_PRIVATE_KEY)).expect("the key");
    session.sign(&Mechanism::new(CKM_ECDSA), key, &[1; 32]).expect("C_Sign");
    say("signs");
    let info = module.token_info(slot).expect("C_GetTokenInfo");
    say(&format!("flags {:#x}", info.flags & CKF_WRITE_PROTECTED));
    match module.open(slot).and_then(|writer| writer.create(&data("new"))) {
        Ok(_) => say("write OK"),
        Err(rv) => say(&format!("write {rv}: {}", module.last_error())),
    }
    module.finalize().expect("C_Finalize");
}

/// A full disk: writes are refused and told, nothing is half written, and it goes on when there is room again.
#[test]
fn a_full_disk_is_told_and_survived() {
    isolated!(|| {
        let directory = tempfile::TempDir::new().expect("a directory");
        let Some(mount) = SmallDisk::mount(directory.path()) else {
            eprintln!("no right to mount a tmpfs here; the test of a full disk needs it");
            return;
        };
        let config = Config::default().write(directory.path());
        let module = token::attach(config.to_str().expect("UTF-8"));
        let slot = token::make_token(module, "test");
        let session = module.open(slot).expect("C_OpenSession");
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        let (_, key) = session.p256("before", true);
        let filler = directory.path().join("filler");
        let _ = fs::write(&filler, vec![1u8; 64 << 20]);
        let mut made = 0;
        let refused = loop {
            match session.create(&data(&format!("d{made}")).bytes(CKA_OBJECT_ID, vec![1; 3000])) {
                Ok(_) => made += 1,
                Err(rv) => break rv,
            }
            assert!(made < 10_000, "the disk was not full");
        };
        assert!([CKR_DEVICE_MEMORY, CKR_DEVICE_ERROR].contains(&refused.0), "{refused}");
        assert!(!module.last_error().is_empty());
        session.sign(&Mechanism::new(CKM_ECDSA), key, &[1; 32]).expect("signing needs no room");
        assert_eq!(session.find(&Template::class(CKO_DATA)).expect("C_FindObjects").len(), made, "all or nothing");
        fs::remove_file(&filler).expect("making room");
        session.p256("after", true);
        module.finalize().expect("C_Finalize");
        let again = token::attach(config.to_str().expect("UTF-8"));
        let session = again.open(again.slot_of("test").expect("the token")).expect("C_OpenSession");
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        assert_eq!(session.find(&Template::class(CKO_DATA)).expect("C_FindObjects").len(), made);
        assert_eq!(session.find(&Template::class(CKO_PRIVATE_KEY)).expect("C_FindObjects").len(), 2);
        drop(mount);
    });
}

/// A file system of 4 MiB in memory.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it, where that is allowed.
    pub fn mount(at: &Path) -> Option<Self> {
        let done = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(at).status();
        done.is_ok_and(|status| status.success()).then(|| Self(at.to_path_buf()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

// ---- Configurations ----

#[test]
fn r73_wrong_configurations_are_told_and_the_library_comes_up() {
    isolated!(|| {
        let directory = tempfile::TempDir::new().expect("a directory");
        let good = fs::read_to_string(Config::default().write(directory.path())).expect("the configuration");
        let module = Module::load();
        let cases: &[(&str, String, &str)] = &[
            ("an unknown section", format!("{good}\n[stoer]\nx = 1\n"), "stoer"),
            ("an unknown key", good.replace("[password]", "[password]\nmin_lenght = 9"), "min_lenght"),
            ("a wrong type", good.replace("min_length = 4", "min_length = \"four\""), "min_length"),
            ("an impossible value", good.replace("passes = 1", "passes = 0"), "passes"),
            ("an unknown policy", good.replace("\"never\"", "\"sometimes\""), "plaintext"),
            ("an unknown store", good.replace("sqlite://", "mongodb://"), "store.url"),
            ("an unknown KMS", good.replace("[defaults]", "[defaults]\nkms = \"nowhere\""), "kms"),
            ("no TOML", "[store\nurl = ".to_owned(), "strongroom.toml"),
            ("no UTF-8", "\u{1}\u{2}".to_owned(), "strongroom.toml"),
        ];
        let path = directory.path().join("strongroom.toml");
        for (what, text, word) in cases {
            fs::write(&path, text).expect("the configuration");
            module
                .initialize(path.to_str())
                .unwrap_or_else(|rv| panic!("{what}: the library comes up all the same: {rv}"));
            assert_told(module, what, word);
            assert_told(module, what, "strongroom.toml");
            module.finalize().expect("C_Finalize");
        }
        fs::remove_file(&path).expect("removing");
        module.initialize(path.to_str()).expect("the library comes up without its configuration");
        assert_told(module, "a configuration that is not there", "strongroom.toml");
        module.finalize().expect("C_Finalize");
        fs::write(&path, good).expect("the configuration");
        module.initialize(path.to_str()).expect("C_Initialize");
        token::make_token(module, "after all that");
    });
}

/// There is no slot, and status or error text say why.
fn assert_told(module: &'static Module, what: &str, word: &str) {
    let slots = module.slots(true);
    assert!(
        !matches!(&slots, Ok(slots) if !slots.is_empty()),
        "{what}: there are slots although the configuration is wrong"
    );
    let text = format!("{} {}", module.status().expect("SR_GetStatus"), module.last_error());
    assert!(text.contains(word), "{what}: neither status nor error text say {word:?}: {text}");
}

/// Where the default path has no configuration, the library comes up with a free slot: zero configuration works.
#[test]
fn r73_no_configuration_at_all_works() {
    isolated!(|| {
        let home = tempfile::TempDir::new().expect("a directory");
        // SAFETY: no thread is there yet.
        unsafe {
            for name in ["STRONGROOM_CONFIG", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
                std::env::remove_var(name);
            }
            std::env::set_var("HOME", home.path());
        }
        let module = Module::load();
        module.initialize(None).expect("C_Initialize(NULL) without any file");
        let slot =
            module.init_token("zero", SO_PIN).unwrap_or_else(|rv| panic!("C_InitToken: {rv}: {}", module.last_error()));
        assert_eq!(padded(&module.token_info(slot).expect("C_GetTokenInfo").label), "zero");
    });
}
