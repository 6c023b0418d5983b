//! Keys that are rotated by themselves while an application has its token open: once among processes, and without a trace after it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ffi_tests::ck::*;
use ffi_tests::clock::Clock;
use ffi_tests::vendor::*;
use ffi_tests::{Config, Handle, Mechanism, Role, Session, Template, TestToken, USER_PIN, assert_rv, isolated, say};

use crate::fork::in_child;
use crate::lifecycle::{assert_threads, threads};
use crate::managed::{field, helper, unwrap};

/// How many keys are due.
const KEYS: usize = 1000;
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(240);

/// A look at most a second after the login.
fn eager() -> Config {
    let more = "[rotation]\nrotation_interval_days = 90\nmax_key_age_days = 0\ncheck_interval_minutes = 1\n".to_owned();
    Config { more, ..Config::default() }
}

fn ecdsa() -> Mechanism {
    Mechanism::new(CKM_ECDSA)
}

fn owner(number: usize) -> String {
    format!("user {number}")
}

/// The private or public keys of all managed keys in a state.
fn of_state(class: CK_OBJECT_CLASS, state: CK_ULONG) -> Template {
    Template::class(class).ulong(CKA_SR_STATE, state)
}

fn make_keys(session: &Session, count: usize) {
    for number in 0..count {
        unwrap(session, session.generate_managed((&owner(number), "p256")));
    }
}

/// Waits until something is so.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Each of so many keys has one active version with both halves, of which a sample signs and verifies; gives the sum of their numbers.
fn check_active(session: &Session, keys: usize) -> usize {
    let find = |class| session.find(&of_state(class, SR_STATE_ACTIVE)).expect("a find");
    let name = |key: &Handle| session.get(*key, CKA_SR_OWNER).expect("an owner");
    let of_version = |key: &Handle| (name(key), session.get_ulong(*key, CKA_SR_VERSION).expect("a number"));
    let active = find(CKO_PRIVATE_KEY);
    let owners: BTreeSet<_> = active.iter().map(name).collect();
    assert_eq!((active.len(), owners.len()), (keys, keys), "one active version for each key");
    let public: BTreeMap<_, _> = find(CKO_PUBLIC_KEY).iter().map(|key| (of_version(key), *key)).collect();
    assert_eq!(public.len(), keys, "one public half for each key");
    for (count, key) in active.iter().enumerate() {
        let half = public.get(&of_version(key)).expect("both halves are of one version");
        if count % (keys / 8 + 1) == 0 {
            let signature = unwrap(session, session.sign(&ecdsa(), *key, &[1; 32]));
            session.verify(&ecdsa(), *half, &[1; 32], &signature).expect("they fit");
        }
    }
    active.iter().map(|key| of_version(key).1 as usize).sum()
}

/// As above, and every version before the active one is there with both halves, of which a sample signs and verifies still; each
/// key has so many versions, if it says so.
fn check_whole(session: &Session, keys: usize, versions: Option<usize>) {
    let numbers = check_active(session, keys);
    let find = |class| session.find(&of_state(class, SR_STATE_ROTATED)).expect("a find");
    let (old, public) = (find(CKO_PRIVATE_KEY), find(CKO_PUBLIC_KEY).len());
    assert_eq!((old.len() + keys, public + keys), (numbers, numbers), "no version is missing and none is there twice");
    for key in old.iter().step_by(old.len() / 16 + 1) {
        let of = Template::class(CKO_PUBLIC_KEY)
            .bytes(CKA_SR_OWNER, session.get(*key, CKA_SR_OWNER).expect("an owner"))
            .ulong(CKA_SR_VERSION, session.get_ulong(*key, CKA_SR_VERSION).expect("a number"));
        let signature = unwrap(session, session.sign(&ecdsa(), *key, &[2; 32]));
        let half = session.find_one(&of).expect("its public half");
        session.verify(&ecdsa(), half, &[2; 32], &signature).expect("an old version verifies");
    }
    if let Some(versions) = versions {
        assert_eq!(numbers, keys * versions, "each key was rotated as often as the others");
    }
}

/// Logs in and lets due keys be rotated until none is left; tells how many this process has rotated.
pub fn role_count_rotations(argument: &str) {
    let session = helper(argument);
    let rotated = || field(&session.module.status().expect("a status"), "rotated").parse::<u64>().expect("a number");
    wait_until("nothing is due", || field(&session.module.status().expect("a status"), "due") == "0");
    // What the last look has rotated is counted when it ends.
    let mut before = rotated();
    wait_until("its last look is over", || {
        std::thread::sleep(Duration::from_millis(500));
        std::mem::replace(&mut before, rotated()) == before
    });
    say(&before.to_string());
}

#[test]
fn r33_eight_processes_with_the_scheduler_on_rotate_each_due_key_once() {
    isolated!(900, || {
        let (store, keys) = (TestToken::with(&eager()), KEYS);
        let session = store.user();
        make_keys(&session, keys);
        let (clock, start) = (Clock::build(store.directory()), Instant::now());
        let helpers: Vec<_> = (0..8).map(|_| clock.start(91, "count-rotations", &store.config_text())).collect();
        let rotated: Vec<u64> = helpers
            .into_iter()
            .map(|helper| helper.succeed().last().expect("a count").parse().expect("a number"))
            .collect();
        eprintln!("{keys} keys by 8 processes in {:?}: {rotated:?}", start.elapsed());
        assert_eq!(rotated.iter().sum::<u64>(), keys as u64, "each key was rotated by one process: {rotated:?}");
        check_whole(&session, keys, Some(2));
    });
}

#[test]
fn r14_threads_begin_with_the_first_managed_key_and_end_with_c_finalize() {
    isolated!(|| {
        let before = threads();
        let store = TestToken::with(&eager());
        let session = store.user();
        assert_threads(&before, "before there is a managed key");
        session.p256("plain", true);
        assert_threads(&before, "a plain key");
        make_keys(&session, 1);
        assert!(threads().len() > before.len(), "the scheduler runs");
        store.module.finalize().expect("C_Finalize");
        assert_threads(&before, "after C_Finalize");
        // A token that has one starts it with the login, and not before.
        store.initialize().expect("C_Initialize");
        let session = store.open();
        assert_threads(&before, "before the login");
        unwrap(&session, session.login(CKU_USER, USER_PIN));
        assert!(threads().len() > before.len(), "the scheduler runs");
        store.module.finalize().expect("C_Finalize");
        assert_threads(&before, "after C_Finalize");
    });
}

#[test]
fn r14_without_threads_or_switched_off_the_application_rotates_itself() {
    isolated!(|| {
        let before = threads();
        let store = TestToken::with(&eager());
        make_keys(&store.user(), 3);
        store.module.finalize().expect("C_Finalize");
        let path = std::ffi::CString::new(store.config_text()).expect("a path has no NUL");
        let mut args = CK_C_INITIALIZE_ARGS { flags: CKF_LIBRARY_CANT_CREATE_OS_THREADS, ..Default::default() };
        args.pReserved = path.as_ptr().cast_mut().cast();
        store.module.initialize_with(&mut args).expect("C_Initialize");
        let session = store.user();
        unwrap(&session, session.rotate_managed(("user 0", "p256"), 1));
        assert_eq!(unwrap(&session, session.rotate_due(0)), [0, 0, 0]);
        assert_threads(&before, "threads are forbidden");
        let status = store.module.status().expect("a status");
        assert_eq!(field(&status, "scheduler"), "off: the application forbids threads");
        store.module.finalize().expect("C_Finalize");
        let off = Config { more: "[rotation]\nscheduler = false\n".to_owned(), ..Config::default() };
        off.write(store.directory());
        store.initialize().expect("C_Initialize");
        let session = store.user();
        unwrap(&session, session.rotate_managed(("user 0", "p256"), 2));
        assert_threads(&before, "it is switched off");
        assert_eq!(field(&store.module.status().expect("a status"), "scheduler"), "off");
    });
}

/// Begins to rotate many keys, and finalises meanwhile.
pub fn role_finalize_while_rotating(argument: &str) {
    let before = threads();
    let session = helper(argument);
    let status = || session.module.status().expect("a status");
    wait_until("it rotates", || field(&status(), "looks") != "0");
    session.module.finalize().expect("C_Finalize");
    assert_threads(&before, "after C_Finalize");
    say("finalized");
}

#[test]
fn c_finalize_in_a_rotation_ends_it_between_two_keys() {
    isolated!(300, || {
        let store = TestToken::with(&eager());
        let session = store.user();
        make_keys(&session, KEYS);
        let clock = Clock::build(store.directory());
        for round in 1..=5 {
            let lines = clock.start(91 * round, "finalize-while-rotating", &store.config_text()).succeed();
            assert_eq!(lines, ["finalized"]);
            check_whole(&session, KEYS, None);
        }
    });
}

#[test]
fn r07_a_forked_child_leaves_the_parents_scheduler_alone_and_starts_its_own() {
    isolated!(300, || {
        let store = TestToken::with(&eager());
        let session = store.user();
        make_keys(&session, 2);
        for _ in 0..10 {
            let code = in_child(Duration::from_secs(60), || {
                assert_rv!(session.sign(&ecdsa(), 1, &[1; 32]), CKR_CRYPTOKI_NOT_INITIALIZED);
                store.initialize().expect("C_Initialize");
                let session = store.user();
                let key = unwrap(&session, session.find_managed(("user 0", "p256"), 0));
                unwrap(&session, session.sign(&ecdsa(), key, &[1; 32]));
                assert!(threads().len() > 1, "it has a scheduler of its own");
                store.module.finalize().expect("C_Finalize");
                assert_threads(&BTreeSet::from([u64::from(std::process::id())]), "in the child");
                0
            });
            assert_eq!(code, 0);
        }
        let key = unwrap(&session, session.find_managed(("user 0", "p256"), 0));
        unwrap(&session, session.sign(&ecdsa(), key, &[1; 32]));
        store.module.finalize().expect("C_Finalize");
    });
}

/// Rotates what is due in several transactions.
pub fn role_rotate_in_parts(argument: &str) {
    let session = helper(argument);
    say("ready");
    while unwrap(&session, session.rotate_due(30))[1] > 0 {}
}

/// How often a process that rotates many keys is killed.
const KILLS: u64 = 200;
/// How many keys it rotates, in four transactions.
const PARTS: usize = 100;

#[test]
fn r33_kill_nine_among_many_due_keys_leaves_each_in_one_version() {
    isolated!(1800, || {
        // Without a scheduler, so that what is due is the test's to say.
        let more = "[rotation]\nmax_key_age_days = 0\nscheduler = false\n".to_owned();
        let store = TestToken::with(&Config { more, ..Config::default() });
        let session = store.user();
        make_keys(&session, PARTS);
        let (clock, mut seed) = (Clock::build(store.directory()), 1u64);
        let (mut longest, mut rounds, mut cut, mut partly, mut numbers) = (Duration::MAX, 0, 0, 0, PARTS);
        while cut < KILLS {
            rounds += 1;
            let mut child = clock.start(91 * rounds, "rotate-in-parts", &store.config_text());
            child.expect("ready");
            let start = Instant::now();
            if longest < Duration::MAX {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                std::thread::sleep(longest.mul_f64(f64::from((seed >> 33) as u32 % 1000) / 1000.0));
                child.kill();
            }
            let (_, lines, stderr) = child.finish();
            assert!(!stderr.contains("panicked"), "round {rounds}: {}", ffi_tests::isolate::tail(&stderr));
            let before = std::mem::replace(&mut numbers, check_active(&session, PARTS));
            match lines.iter().any(|line| line == "done") {
                // It was faster than the kill: that is how long it takes.
                true => longest = start.elapsed(),
                false => (cut, partly) = (cut + 1, partly + u64::from((1..PARTS).contains(&(numbers - before)))),
            }
        }
        check_whole(&session, PARTS, None);
        eprintln!("{KILLS} of {rounds} were killed in a rotation of {longest:?}, {partly} of them between two keys");
        assert!(partly > 0, "no kill came between two transactions");
    });
}

/// Signs until the key is used up, and tells how often.
pub fn role_use_up(argument: &str) {
    let session = helper(argument);
    let key = unwrap(&session, session.find_managed(("user 0", "p256"), 1));
    let mut count = 0;
    while session.sign(&ecdsa(), key, &[1; 32]).is_ok() {
        count += 1;
    }
    let text = session.module.last_error();
    assert!(text.contains("max_key_uses") && text.contains("SR_RotateKey"), "{text}");
    say(&format!("{count}"));
}

#[test]
fn processes_share_the_uses_of_a_key() {
    isolated!(300, || {
        let more = "[rotation]\nscheduler = false\n[rotation.assets.p256]\nmax_key_uses = 2000\n".to_owned();
        let store = TestToken::with(&Config { more, ..Config::default() });
        let session = store.user();
        make_keys(&session, 1);
        // One is killed in the middle of it.
        let mut killed = Role::start("use-up", &store.config_text());
        wait_until("it signs", || {
            let key = session.find_managed(("user 0", "p256"), 1).expect("the key");
            session.get_ulong(key, CKA_SR_USES).is_ok_and(|uses| uses > 10)
        });
        killed.kill();
        killed.finish();
        let helpers: Vec<_> = (0..4).map(|_| Role::start("use-up", &store.config_text())).collect();
        let used = helpers
            .into_iter()
            .map(|helper| helper.succeed().last().expect("a count").parse::<u64>().expect("a number"));
        let used: u64 = used.sum();
        assert!((1..=2000).contains(&used), "{used} of 2000 uses were made");
        let key = unwrap(&session, session.find_managed(("user 0", "p256"), 1));
        assert_rv!(session.sign_init(&ecdsa(), key), CKR_KEY_FUNCTION_NOT_PERMITTED);
        assert_eq!(unwrap(&session, session.rotate_due(0)), [1, 0, 0]);
        let key = unwrap(&session, session.find_managed(("user 0", "p256"), 0));
        unwrap(&session, session.sign(&ecdsa(), key, &[1; 32]));
    });
}

#[test]
fn the_status_tells_what_is_due_of_tokens_whose_user_is_logged_in() {
    isolated!(|| {
        let more = "[rotation]\nauto_rotate = false\nwarn_days = 20\n[[token]]\nlabel = \"test\"\n[token.rotation]\n\
                    rotation_interval_days = 15\nmax_key_age_days = 30\n";
        let store = TestToken::with(&Config { more: more.to_owned(), ..Config::default() });
        let status = || store.module.status().expect("a status");
        assert!(status().contains("\"tokens\":[]"), "{}", status());
        let session = store.user();
        make_keys(&session, 2);
        // Not in the second in which they were made: 15 days less a moment.
        std::thread::sleep(Duration::from_millis(1100));
        let told = status();
        assert_eq!([field(&told, "managed"), field(&told, "due"), field(&told, "soon")], ["2", "0", "2"]);
        assert_eq!([field(&told, "owner"), field(&told, "days_left")], ["user 0", "14"], "{told}");
        let policy = unwrap(&session, session.tell_managed("SR_GetRotationPolicy", ("user 0", "p256")));
        assert!(policy.contains("\"rotation_interval_days\":\"token\""), "{policy}");
        assert!(policy.contains("\"auto_rotate\":\"configuration\""), "{policy}");
        session.logout().expect("C_Logout");
        assert!(status().contains("\"tokens\":[]"));
    });
}
