//! Backups through `SR_*`: the story of a lost machine, a writer beside the export, kills at any moment, and what is no argument.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::damage::SmallDisk;
use ffi_tests::backup::*;
use ffi_tests::ck::*;
use ffi_tests::vendor::Name;
use ffi_tests::{
    Config, Mechanism, Role, SO_PIN, Session, Template, TestToken, USER_PIN, assert_rv, isolated, say, token,
};

/// The whole token.
const ALL: Name = ("", "");
/// How many times a process is killed in the midst of its work.
const KILLS: u64 = 200;
/// How many times at the most, where too few of the kills came while something was half done.
const MOST_KILLS: u64 = 10 * KILLS;
const PASSWORD: &str = "a long recovery password";

fn unwrap<T>(session: &Session, answer: ffi_tests::Result<T>) -> T {
    answer.unwrap_or_else(|rv| panic!("{rv}: {}", session.module.last_error()))
}

/// Reads a number of flat JSON.
fn number(json: &str, name: &str) -> u64 {
    let rest = json.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("no {name} in {json}")).1;
    rest.split([',', '}']).next().expect("a value").parse().unwrap_or_else(|_| panic!("{name} in {json}"))
}

/// Added, same, replaced, removed.
fn counts(json: &str) -> [u64; 4] {
    ["added", "same", "replaced", "removed"].map(|name| number(json, name))
}

fn sign(session: &Session, name: Name, version: CK_ULONG) -> Vec<u8> {
    let key = unwrap(session, session.find_managed(name, version));
    unwrap(session, session.sign(&Mechanism::new(CKM_EDDSA), key, b"message"))
}

/// Writes another machine's configuration: another store, another master key.
fn elsewhere(folder: &Path) -> PathBuf {
    std::fs::create_dir(folder).expect("a folder");
    Config::default().write(folder)
}

#[test]
fn r37_a_lost_machine_a_lost_kms_and_lost_pins_are_no_lost_keys() {
    isolated!(|| {
        let store = TestToken::new();
        let (module, name) = (store.module, ("alice", "ed25519"));
        let session = store.user();
        unwrap(&session, session.generate_managed(name));
        unwrap(&session, session.rotate_managed(name, 1));
        session.p256("plain", true);
        let signatures = [1, 2].map(|version| sign(&session, name, version));
        let versions = unwrap(&session, session.tell_managed("SR_ListVersions", name));
        let (backup, shares) = (store.directory().join("backup"), store.directory().join("shares"));
        std::fs::create_dir(&shares).expect("a folder");

        // The SO adds what opens the backups when all else is lost; the user cannot.
        assert_rv!(session.add_recovery("SR_AddRecoveryPassword", "paper", PASSWORD), CKR_USER_NOT_LOGGED_IN);
        session.logout().expect("C_Logout");
        session.login(CKU_SO, SO_PIN).expect("C_Login");
        unwrap(&session, session.add_recovery("SR_AddRecoveryPassword", "paper", PASSWORD));
        unwrap(&session, session.add_recovery_shares("people", 2, 3, &shares));
        assert_rv!(session.add_recovery_shares("people", 2, 3, &shares), CKR_ACTION_PROHIBITED);
        unwrap(&session, session.add_recovery("SR_AddRecoveryKms", "again", "local"));
        unwrap(&session, session.remove_recovery("again"));
        assert_eq!(unwrap(&session, session.list_recovery()).matches("\"name\"").count(), 2);
        session.logout().expect("C_Logout");
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(&shares).expect("the shares").map(|file| file.expect("a file").path()).collect();
        files.sort();
        assert_eq!(files.len(), 3);
        for file in &files {
            assert_eq!(std::fs::metadata(file).expect("a share").permissions().mode() & 0o777, 0o600);
        }

        let report = unwrap(&session, session.export_backup(ALL, &backup, 0));
        assert_eq!(number(&report, "records"), 8, "two pairs, another pair, two envelopes");
        assert_eq!(std::fs::metadata(&backup).expect("the backup").permissions().mode() & 0o777, 0o600);
        assert_rv!(session.export_backup(ALL, &backup, 0), CKR_ACTION_PROHIBITED);
        let checked = unwrap(&session, module.verify_backup(session.handle, &backup, &Secrets::default()));
        assert!(checked.contains("\"kms_opens\":true") && checked.contains("\"opened_by\":\"session\""), "{checked}");

        // Nothing stays but the backup and the shares or the password.
        let serial = store.serial();
        let kept = store.directory().join("kept");
        std::fs::create_dir(&kept).expect("a folder");
        std::fs::rename(&backup, kept.join("backup")).expect("moving");
        module.finalize().expect("C_Finalize");
        std::fs::remove_file(store.database()).expect("the database");
        std::fs::remove_file(store.directory().join("local-master.key")).expect("the master key");
        for (number, secrets) in [
            Secrets { password: Some(PASSWORD.to_owned()), ..Secrets::default() },
            Secrets { share_files: files[1..].to_vec(), ..Secrets::default() },
        ]
        .into_iter()
        .enumerate()
        {
            let config = elsewhere(&store.directory().join(format!("elsewhere-{number}")));
            token::initialize(module, &config).expect("C_Initialize");
            assert_rv!(
                module.import_backup(0, ALL, &kept.join("backup"), &Secrets::pin(USER_PIN), 0),
                CKR_DEVICE_ERROR
            );
            assert!(module.last_error().contains("recovery envelopes"), "{}", module.last_error());
            let secrets = Secrets { new_so_pin: Some("new-so-pin".into()), new_pin: Some("new-pin".into()), ..secrets };
            let done = module.import_backup(0, ALL, &kept.join("backup"), &secrets, 0);
            assert_eq!(counts(&done.unwrap_or_else(|rv| panic!("{rv}: {}", module.last_error()))), [8, 0, 0, 0]);
            let slot = module.slot_of("test").expect("the token is there");
            let info = module.token_info(slot).expect("C_GetTokenInfo");
            assert_eq!(ffi_tests::module::padded(&info.serialNumber), serial);
            let session = module.open(slot).expect("C_OpenSession");
            assert_rv!(session.login(CKU_USER, USER_PIN), CKR_PIN_INCORRECT);
            session.login(CKU_USER, "new-pin").expect("C_Login");
            assert_eq!([1, 2].map(|version| sign(&session, name, version)), signatures);
            assert_eq!(unwrap(&session, session.tell_managed("SR_ListVersions", name)), versions);
            module.finalize().expect("C_Finalize");
        }
    });
}

/// Ends the writers, also when the test fails.
struct Stop<'d>(&'d AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_backup_is_of_one_moment_while_others_write() {
    isolated!(|| {
        let store = TestToken::new();
        let session = store.user();
        let (done, backup) = (AtomicBool::new(false), store.directory().join("backup"));
        for number in 0..200 {
            unwrap(&session, session.generate_managed((&format!("owner {number}"), "p256")));
        }
        std::thread::scope(|scope| {
            for worker in 0..3 {
                let (store, done) = (&store, &done);
                scope.spawn(move || {
                    let (session, owner) = (store.open(), format!("busy {worker}"));
                    let name = (owner.as_str(), "p256");
                    unwrap(&session, session.generate_managed(name));
                    for version in 1.. {
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                        unwrap(&session, session.rotate_managed(name, version));
                        let old = unwrap(&session, session.find_managed(name, version));
                        let id = unwrap(&session, session.get(old, CKA_UNIQUE_ID));
                        let id = String::from_utf8(id).expect("hexadecimal");
                        unwrap(&session, session.destroy_version(name, version, &id));
                    }
                });
            }
            let (_stop, mut moments) = (Stop(&done), BTreeSet::new());
            for _ in 0..20 {
                unwrap(&session, session.export_backup(ALL, &backup, SR_BACKUP_OVERWRITE));
                let checked = session.module.verify_backup(session.handle, &backup, &Secrets::default());
                let checked = unwrap(&session, checked);
                // Both halves of every version, and of every busy key one version or two: a change is there or it is not.
                let [private, public, keys] =
                    ["private_keys", "public_keys", "managed_keys"].map(|name| number(&checked, name));
                assert!(private == public && (keys..=keys + 3).contains(&private), "{checked}");
                moments.insert(std::fs::read(&backup).expect("the backup"));
            }
            assert!(moments.len() > 10, "{} of 20 backups differ: nothing was written meanwhile", moments.len());
        });
    });
}

/// Numbers that need no quality.
fn next(seed: &mut u64, below: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % below
}

/// Waits for a moment within a few runs of work that took so long.
fn wait_within(seed: &mut u64, work: Duration, runs: u32) {
    let most = u64::try_from((work * runs).as_micros()).unwrap_or(u64::MAX).max(1000);
    std::thread::sleep(Duration::from_micros(next(seed, most)));
}

/// Tells how long work takes on this machine now.
fn time_of(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Logs in to the token of a configuration.
fn attach(config: &str) -> Session {
    let module = token::attach(config);
    let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    session.login(CKU_USER, USER_PIN).expect("C_Login");
    session
}

/// Writes one backup after the other over the same file, until it is killed.
pub fn role_export(argument: &str) {
    let (config, path) = argument.split_once(' ').expect("configuration and path");
    let session = attach(config);
    say("ready");
    loop {
        unwrap(&session, session.export_backup(ALL, Path::new(path), SR_BACKUP_OVERWRITE));
        say("written");
    }
}

#[test]
fn r24_a_kill_in_an_export_leaves_the_old_backup_or_the_new_one() {
    isolated!(900, || {
        let store = TestToken::new();
        let session = store.user();
        for number in 0..40 {
            unwrap(&session, session.generate_managed((&format!("owner {number}"), "ed25519")));
        }
        let folder = store.directory().join("backups");
        std::fs::create_dir(&folder).expect("a folder");
        let path = folder.join("backup");
        let once = time_of(|| drop(unwrap(&session, session.export_backup(ALL, &path, 0))));
        let (mut seed, mut half, mut acknowledged) = (u64::from(std::process::id()), 0, 0);
        for round in 0..MOST_KILLS {
            if round >= KILLS && half > KILLS / 10 && acknowledged > 10 {
                break;
            }
            let mut child = Role::start("export", &format!("{} {}", store.config_text(), path.display()));
            child.expect("ready");
            wait_within(&mut seed, once, 4);
            child.kill();
            acknowledged += child.finish().1.iter().filter(|line| *line == "written").count();
            let checked = session.module.verify_backup(session.handle, &path, &Secrets::default());
            let checked = checked.unwrap_or_else(|rv| panic!("round {round}: {rv}: {}", session.module.last_error()));
            assert_eq!(number(&checked, "records"), 80, "round {round}");
            for file in std::fs::read_dir(&folder).expect("the folder").map(|file| file.expect("a file").path()) {
                if file != path {
                    assert!(file.to_string_lossy().ends_with(".tmp"), "{}", file.display());
                    std::fs::remove_file(&file).expect("what was begun");
                    half += 1;
                }
            }
        }
        assert!(half > KILLS / 10, "{half} kills came while a file was written");
        assert!(acknowledged > 10, "{acknowledged} backups were finished: the kills came before the work");
    });
}

/// Restores one of two backups after the other into the same token, until it is killed.
pub fn role_import(argument: &str) {
    let words: Vec<&str> = argument.split(' ').collect();
    let [config, first, second] = words[..] else { panic!("configuration and two paths") };
    let session = attach(config);
    say("ready");
    loop {
        for path in [first, second] {
            let flags = SR_BACKUP_REPLACE | SR_BACKUP_REMOVE;
            let done = session.module.import_backup(session.handle, ALL, Path::new(path), &Secrets::default(), flags);
            let [added, _, replaced, removed] = counts(&unwrap(&session, done));
            say(&format!("restored {}", added + replaced + removed));
        }
    }
}

#[test]
fn r24_a_kill_in_an_import_leaves_the_old_state_or_the_new_one() {
    isolated!(900, || {
        let store = TestToken::new();
        let session = store.user();
        let (first, second) = (store.directory().join("first"), store.directory().join("second"));
        let names: Vec<String> = (0..15).map(|number| format!("owner {number}")).collect();
        for name in &names {
            unwrap(&session, session.generate_managed((name, "ed25519")));
        }
        unwrap(&session, session.export_backup(ALL, &first, 0));
        // The second backup has other versions, another state, a key more and a key less.
        for name in &names[1..10] {
            unwrap(&session, session.rotate_managed((name, "ed25519"), 1));
        }
        unwrap(&session, session.generate_managed(("another", "aes256")));
        unwrap(&session, session.export_backup(ALL, &second, 0));
        let back = || {
            let flags = SR_BACKUP_REPLACE | SR_BACKUP_REMOVE;
            let done = session.module.import_backup(session.handle, ALL, &first, &Secrets::default(), flags);
            unwrap(&session, done);
        };
        let (once, mut seed, mut seen) = (time_of(back), u64::from(std::process::id()), [0, 0]);
        let enough = |seen: [u64; 2]| seen.iter().all(|count| *count > KILLS / 20);
        for round in 0..MOST_KILLS {
            if round >= KILLS && enough(seen) {
                break;
            }
            let argument = format!("{} {} {}", store.config_text(), first.display(), second.display());
            let mut child = Role::start("import", &argument);
            child.expect("ready");
            wait_within(&mut seed, once, 6);
            child.kill();
            child.finish();
            let same = |path: &Path| {
                let flags = SR_BACKUP_REPLACE | SR_BACKUP_REMOVE | SR_BACKUP_DRY_RUN;
                let tried = session.module.import_backup(session.handle, ALL, path, &Secrets::default(), flags);
                let [added, same, replaced, removed] = counts(&unwrap(&session, tried));
                assert!(same > 0);
                added + replaced + removed == 0
            };
            let is = [same(&first), same(&second)];
            assert!(is[0] != is[1], "round {round}: the token is neither what it was nor what it was to be");
            seen[usize::from(is[1])] += 1;
        }
        assert!(enough(seen), "{seen:?}: the kills came before the work, or after it");
        session.module.finalize().expect("C_Finalize");
        store.initialize().expect("C_Initialize");
        sign(&store.user(), ("owner 14", "ed25519"), 1);
    });
}

/// Restores a token into a new store.
pub fn role_import_new(argument: &str) {
    let (config, path) = argument.split_once(' ').expect("configuration and path");
    let module = token::attach(config);
    say("ready");
    let done = module.import_backup(0, ALL, Path::new(path), &Secrets::pin(USER_PIN), 0);
    say(&format!("restored {}", counts(&done.unwrap_or_else(|rv| panic!("{rv}: {}", module.last_error())))[0]));
}

#[test]
fn r24_a_kill_in_the_import_of_a_token_leaves_no_token_or_a_whole_one() {
    isolated!(600, || {
        let store = TestToken::new();
        let session = store.user();
        for number in 0..15 {
            unwrap(&session, session.generate_managed((&format!("owner {number}"), "ed25519")));
        }
        let path = store.directory().join("backup");
        unwrap(&session, session.export_backup(ALL, &path, 0));
        let (mut once, mut seed, mut seen) = (None, u64::from(std::process::id()), [0, 0]);
        for round in 0..MOST_KILLS {
            if round >= KILLS && seen[0] > 5 {
                break;
            }
            let folder = store.directory().join(format!("target-{round}"));
            let config = elsewhere(&folder);
            std::fs::copy(store.directory().join("local-master.key"), folder.join("local-master.key"))
                .expect("the key");
            let argument = format!("{} {}", config.display(), path.display());
            let mut child = Role::start("import-new", &argument);
            child.expect("ready");
            match once {
                None => once = Some(time_of(|| child.expect("restored 30"))),
                Some(once) => wait_within(&mut seed, once, 2),
            }
            child.kill();
            child.finish();
            // A second try finishes what was begun, or finds it done.
            let lines = Role::start("import-new", &argument).succeed();
            let added = lines.last().expect("it tells").as_str();
            match added {
                "restored 0" => seen[1] += 1,
                "restored 30" => seen[0] += 1,
                other => panic!("round {round}: {other}: half a token was there"),
            }
        }
        assert!(seen[0] > 5, "{seen:?}: too few kills came before the end");
    });
}

#[test]
fn an_import_onto_a_full_disk_leaves_no_token_and_is_done_when_there_is_room() {
    isolated!(|| {
        let store = TestToken::new();
        let (session, module) = (store.user(), store.module);
        for number in 0..60 {
            unwrap(&session, session.generate_managed((&format!("owner {number}"), "ed25519")));
        }
        let (backup, small) = (store.directory().join("backup"), store.directory().join("small"));
        unwrap(&session, session.export_backup(ALL, &backup, 0));
        module.finalize().expect("C_Finalize");
        std::fs::create_dir(&small).expect("a folder");
        let Some(_mount) = SmallDisk::mount(&small) else {
            eprintln!("no right to mount a tmpfs here; the test of a full disk needs it");
            return;
        };
        std::fs::copy(store.directory().join("local-master.key"), small.join("local-master.key")).expect("the key");
        token::initialize(module, &Config::default().write(&small)).expect("C_Initialize");
        assert_eq!(module.slot_of("test"), None);
        // Room for the start of the transaction, and not for all of it.
        let filler = small.join("filler");
        let _ = std::fs::write(&filler, vec![1u8; 64 << 20]);
        let file = std::fs::OpenOptions::new().write(true).open(&filler).expect("the filler");
        let len = file.metadata().expect("its size").len();
        file.set_len(len.saturating_sub(64 << 10)).expect("some room");
        drop(file);
        let secrets = Secrets::pin(USER_PIN);
        let refused = module.import_backup(0, ALL, &backup, &secrets, 0).expect_err("the disk is full");
        assert!([CKR_DEVICE_MEMORY, CKR_DEVICE_ERROR].contains(&refused.0), "{refused}");
        assert!(module.last_error().contains("full"), "{}", module.last_error());
        assert_eq!(module.slot_of("test"), None, "all or nothing");
        std::fs::remove_file(&filler).expect("making room");
        let done = module.import_backup(0, ALL, &backup, &secrets, 0);
        assert_eq!(counts(&done.unwrap_or_else(|rv| panic!("{rv}: {}", module.last_error()))), [120, 0, 0, 0]);
        let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        sign(&session, ("owner 59", "ed25519"), 1);
        session.module.finalize().expect("C_Finalize");
    });
}

#[test]
fn what_is_no_argument_is_refused_and_nothing_is_written() {
    isolated!(|| {
        let store = TestToken::new();
        let (session, module) = (store.user(), store.module);
        unwrap(&session, session.generate_managed(("alice", "ed25519")));
        let path = store.directory().join("backup");
        for bad in ["", "a\0b"] {
            assert_rv!(session.export_backup(ALL, Path::new(bad), 0), CKR_ARGUMENTS_BAD);
            assert_rv!(module.verify_backup(0, Path::new(bad), &Secrets::default()), CKR_ARGUMENTS_BAD);
        }
        assert_rv!(session.export_backup(ALL, &path, 2), CKR_ARGUMENTS_BAD);
        assert_rv!(session.export_backup(("", "btc"), &path, 0), CKR_ARGUMENTS_BAD);
        assert_rv!(session.export_backup(("alice", "doge"), &path, 0), CKR_ARGUMENTS_BAD);
        assert_rv!(session.export_backup(("nobody", ""), &path, 0), CKR_KEY_HANDLE_INVALID);
        assert_rv!(session.export_backup(ALL, store.directory(), SR_BACKUP_OVERWRITE), CKR_ACTION_PROHIBITED);
        assert_rv!(session.export_backup(ALL, &store.directory().join("no/backup"), 0), CKR_FUNCTION_FAILED);
        assert!(!path.exists());
        // A pipe that nobody writes to is told at once.
        let pipe = store.directory().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
        assert_rv!(module.verify_backup(session.handle, &pipe, &Secrets::default()), CKR_DATA_INVALID);
        // A query, or too little room, writes nothing.
        type Export = extern "C" fn(
            CK_SESSION_HANDLE,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            CK_FLAGS,
            *mut u8,
            *mut CK_ULONG,
        ) -> CK_RV;
        let export: Export = module.vendor("SR_ExportBackup");
        let (text, none) = (path.to_str().expect("UTF-8"), std::ptr::null());
        let (mut room, mut len) = ([0u8; 64], 0);
        let call = |json: *mut u8, len: &mut CK_ULONG| {
            ffi_tests::check(export(
                session.handle,
                none,
                0,
                none,
                0,
                text.as_ptr(),
                text.len() as CK_ULONG,
                0,
                json,
                len,
            ))
        };
        unwrap(&session, call(std::ptr::null_mut(), &mut len));
        assert_eq!(len, 32768);
        len = 64;
        assert_rv!(call(room.as_mut_ptr(), &mut len), CKR_BUFFER_TOO_SMALL);
        assert!(len == 32768 && !path.exists());

        unwrap(&session, session.export_backup(ALL, &path, 0));
        assert_rv!(module.import_backup(session.handle, ALL, &path, &Secrets::default(), 8), CKR_ARGUMENTS_BAD);
        assert_rv!(module.import_backup(77, ALL, &path, &Secrets::default(), 0), CKR_SESSION_HANDLE_INVALID);
        assert_rv!(module.verify_backup(0, &path, &Secrets::pin("wrong-pin")), CKR_PIN_INCORRECT);
        assert_rv!(module.verify_backup(0, &path, &Secrets::default()), CKR_ARGUMENTS_BAD);
        let shares = Secrets { share_files: vec![path.clone()], ..Secrets::default() };
        assert_rv!(module.verify_backup(0, &path, &shares), CKR_DATA_INVALID);
        let reader = module.open_read_only(store.slot).expect("C_OpenSession");
        assert_rv!(module.import_backup(reader.handle, ALL, &path, &Secrets::default(), 0), CKR_SESSION_READ_ONLY);
        unwrap(&reader, reader.export_backup(ALL, &path, SR_BACKUP_OVERWRITE));
        session.logout().expect("C_Logout");
        assert_rv!(session.export_backup(ALL, &path, SR_BACKUP_OVERWRITE), CKR_USER_NOT_LOGGED_IN);
        assert_rv!(session.list_recovery(), CKR_USER_NOT_LOGGED_IN);
        // Recovery envelopes are found by nobody.
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        let found = session.find(&Template::class(0xD352_0001)).expect("C_FindObjects");
        assert!(found.is_empty());
    });
}

/// The canaries of the secrets are nowhere but in the files of the shares.
#[test]
fn r23_a_backup_shows_no_secret() {
    isolated!(|| {
        let more = "[log]\nlevel = \"trace\"\nfile = \"all.log\"\n".to_owned();
        let store = TestToken::with(&Config { more, ..Config::default() });
        let (module, folder) = (store.module, store.directory().to_path_buf());
        let session = store.open();
        session.login(CKU_SO, SO_PIN).expect("C_Login");
        unwrap(&session, session.add_recovery("SR_AddRecoveryPassword", "paper", "canary recovery password"));
        unwrap(&session, session.add_recovery_shares("people", 2, 2, &folder));
        session.logout().expect("C_Logout");
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        let backup = folder.join("backup");
        unwrap(&session, session.export_backup(ALL, &backup, 0));
        let files: Vec<PathBuf> =
            std::fs::read_dir(&folder).expect("the folder").map(|file| file.expect("a file").path()).collect();
        let (shares, others): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| file.to_string_lossy().contains("share-"));
        assert_eq!(shares.len(), 2);
        for secrets in [
            Secrets { password: Some("canary recovery password".into()), ..Secrets::default() },
            Secrets { password: Some("canary wrong password".into()), ..Secrets::default() },
            Secrets { share_files: shares.clone(), ..Secrets::default() },
            Secrets { share_files: shares[..1].to_vec(), ..Secrets::default() },
        ] {
            let _ = module.verify_backup(0, &backup, &secrets);
            assert!(!module.last_error().contains("canary"), "{}", module.last_error());
        }
        let text = |path: &PathBuf| String::from_utf8_lossy(&std::fs::read(path).expect("a file")).into_owned();
        let secret = |path| text(path).lines().find(|line| line.starts_with("srshare1")).expect("a share").to_owned();
        let canaries =
            ["canary".to_owned(), secret(&shares[0]), secret(&shares[1]), USER_PIN.to_owned(), SO_PIN.to_owned()];
        assert!(others.iter().any(|file| file.ends_with("all.log")), "{others:?}");
        for file in others {
            let content = text(&file);
            for canary in &canaries {
                assert!(!content.contains(canary.as_str()), "{} has {canary}", file.display());
            }
        }
    });
}
