//! Many threads, many processes: nothing is lost, nothing deadlocks, no odd answer.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ffi_tests::ck::*;
use ffi_tests::{Mechanism, Role, Rv, Session, Template, TestToken, USER_PIN, assert_rv, isolated, say, token};

use crate::attributes::data;

/// One life of a session: open, find, make, sign, read, destroy, close.
fn one_life(module: &'static ffi_tests::Module, slot: CK_SLOT_ID, name: &str, on_token: bool) -> ffi_tests::Result<()> {
    let session = module.open(slot)?;
    let (public, private) = session.ec_pair(ffi_tests::template::curve::P256, name, on_token)?;
    let found = session.find(&Template::class(CKO_PRIVATE_KEY).bytes(CKA_LABEL, name))?;
    assert_eq!(found, [private], "{name} is found, and only it");
    let mechanism = Mechanism::new(CKM_ECDSA);
    let signature = session.sign(&mechanism, private, &[7; 32])?;
    session.verify(&mechanism, public, &[7; 32], &signature)?;
    let renamed = format!("{name}'");
    session.set(private, &Template::new().bytes(CKA_LABEL, &renamed))?;
    assert_eq!(session.get(private, CKA_LABEL)?, renamed.as_bytes());
    session.destroy(private)?;
    session.destroy(public)?;
    assert_eq!(session.find(&Template::class(CKO_PRIVATE_KEY).bytes(CKA_LABEL, &renamed))?, []);
    session.close()
}

#[test]
fn r15_eight_threads_for_ten_seconds() {
    isolated!(|| {
        let token = TestToken::new();
        let keeper = token.user();
        let (_, shared) = keeper.p256("shared", true);
        let lives = AtomicU64::new(0);
        let end = Instant::now() + Duration::from_secs(10);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (token, lives) = (&token, &lives);
                scope.spawn(move || {
                    for round in 0.. {
                        if Instant::now() > end {
                            break;
                        }
                        let name = format!("t{thread}r{round}");
                        one_life(token.module, token.slot, &name, (thread + round) % 2 == 0)
                            .unwrap_or_else(|rv| panic!("{name}: {rv}: {}", token.module.last_error()));
                        keeper_signs(token, shared);
                        lives.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(keeper.find(&Template::new()).expect("C_FindObjects").len(), 2, "only the shared pair is left");
        assert!(lives.load(Ordering::Relaxed) > 80, "{} lives in ten seconds", lives.load(Ordering::Relaxed));
    });
}

fn keeper_signs(token: &TestToken, key: CK_OBJECT_HANDLE) {
    let session = token.open();
    for _ in 0..10 {
        session.sign(&Mechanism::new(CKM_ECDSA), key, &[8; 32]).expect("C_Sign with the shared key");
    }
    session.close().expect("C_CloseSession");
}

/// Makes objects, finds and destroys half of them, and tells what it leaves.
pub fn role_crowd(argument: &str) {
    let (name, config) = argument.split_once(' ').expect("name and configuration");
    let module = token::attach(config);
    let slot = module.slot_of("test").expect("the token");
    let session = module.open(slot).expect("C_OpenSession");
    session.login(CKU_USER, USER_PIN).unwrap_or_else(|rv| panic!("C_Login: {rv}: {}", module.last_error()));
    say("ready");
    for round in 0..60 {
        let label = format!("{name}-{round}");
        let fail = |rv: Rv| -> ! { panic!("{label}: {rv}: {}", module.last_error()) };
        let (_, private) =
            session.ec_pair(ffi_tests::template::curve::P256, &label, true).unwrap_or_else(|rv| fail(rv));
        session.create(&data(&format!("d-{label}"))).unwrap_or_else(|rv| fail(rv));
        session.sign(&Mechanism::new(CKM_ECDSA), private, &[1; 32]).unwrap_or_else(|rv| fail(rv));
        // What others make and destroy meanwhile may be seen or not; it never is an error.
        session.find(&Template::class(CKO_DATA)).unwrap_or_else(|rv| fail(rv));
        if round % 2 == 0 {
            for object in session.find(&Template::new().bytes(CKA_LABEL, &label)).unwrap_or_else(|rv| fail(rv)) {
                session.destroy(object).unwrap_or_else(|rv| fail(rv));
            }
        } else {
            say(&format!("keeps {label}"));
        }
        say(&format!("keeps d-{label}"));
    }
    module.finalize().expect("C_Finalize");
}

#[test]
fn r25_four_processes_on_one_store_lose_nothing() {
    isolated!(|| {
        let token = TestToken::new();
        token.user().p256("first", true);
        let crowd: Vec<Role> =
            (0..4).map(|index| Role::start("crowd", &format!("p{index} {}", token.config_text()))).collect();
        let mut wanted: BTreeSet<String> = ["first".to_owned()].into();
        for role in crowd {
            wanted.extend(role.succeed().iter().filter_map(|line| line.strip_prefix("keeps ").map(str::to_owned)));
        }
        assert_eq!(wanted.len(), 1 + 4 * 90);
        let session = token.open();
        let label = |object| String::from_utf8(session.get(object, CKA_LABEL).expect("CKA_LABEL")).expect("text");
        let found: BTreeSet<String> =
            session.find(&Template::new()).expect("C_FindObjects").into_iter().map(label).collect();
        assert_eq!(found, wanted);
        for object in session.find(&Template::class(CKO_PRIVATE_KEY)).expect("C_FindObjects") {
            session.sign(&Mechanism::new(CKM_ECDSA), object, &[1; 32]).expect("what another process made signs here");
        }
    });
}

/// Destroys one given object and tells whether it was the one to do it.
pub fn role_destroy(config: &str) {
    let module = token::attach(config);
    let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    session.login(CKU_USER, USER_PIN).expect("C_Login");
    let mut won = 0;
    for round in 0..40 {
        let label = format!("victim {round}");
        if let [object] = session.find(&Template::class(CKO_DATA).bytes(CKA_LABEL, &label)).expect("C_FindObjects")[..]
        {
            match session.destroy(object) {
                Ok(()) => won += 1,
                Err(rv) => assert_eq!(rv, Rv(CKR_OBJECT_HANDLE_INVALID)),
            }
        }
    }
    say(&format!("won {won}"));
    module.finalize().expect("C_Finalize");
}

#[test]
fn r25_an_object_is_destroyed_exactly_once() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        for round in 0..40 {
            session.create(&data(&format!("victim {round}"))).expect("C_CreateObject");
        }
        let racers: Vec<Role> = (0..3).map(|_| Role::start("destroy", &token.config_text())).collect();
        let won =
            |role: Role| -> u32 { role.succeed()[0].strip_prefix("won ").expect("a count").parse().expect("a number") };
        let total: u32 = racers.into_iter().map(won).sum();
        assert_eq!(total, 40);
        assert_eq!(session.find(&Template::class(CKO_DATA)).expect("C_FindObjects"), []);
    });
}

/// Sessions by the thousand.
#[test]
fn r61_ten_thousand_sessions() {
    isolated!(|| {
        let token = TestToken::new();
        let keeper = token.user();
        let mut handles = BTreeSet::new();
        let mut open = Vec::new();
        for _ in 0..10_000 {
            let session = token.open();
            assert!(handles.insert(session.handle), "a session handle came twice");
            open.push(session);
        }
        assert_eq!(token.module.token_info(token.slot).expect("C_GetTokenInfo").ulSessionCount, 10_001);
        let last = open[9_999];
        last.random(8).expect("the last one works");
        open.iter().for_each(|session| session.close().expect("C_CloseSession"));
        assert_rv!(last.random(8), CKR_SESSION_HANDLE_INVALID);
        assert_eq!(token.module.token_info(token.slot).expect("C_GetTokenInfo").ulSessionCount, 1);
        keeper.random(8).expect("the first one works");
    });
}

/// Session objects by the thousand: memory stays bounded and handles are never used again.
#[test]
fn r59_ten_thousand_session_objects() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let mut handles = BTreeSet::new();
        let round = |handles: &mut BTreeSet<_>, session: &Session| {
            for _ in 0..1000 {
                let object =
                    session.create(&data("d").and(&Template::new().bool(CKA_TOKEN, false))).expect("C_CreateObject");
                assert!(handles.insert(object), "an object handle came twice");
                session.destroy(object).expect("C_DestroyObject");
            }
        };
        round(&mut handles, &session);
        let before = resident();
        for _ in 0..9 {
            round(&mut handles, &session);
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < 4096, "resident memory grew by {grown} KiB");
    });
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
}
