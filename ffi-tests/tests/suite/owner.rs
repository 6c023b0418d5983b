//! Managed keys with their owner's own password, through `SR_*` and as plain PKCS #11 uses them.

use std::time::Duration;

use ffi_tests::ck::*;
use ffi_tests::clock::Clock;
use ffi_tests::owner::*;
use ffi_tests::vendor::*;
use ffi_tests::{
    Config, Handle, Mechanism, Role, SO_PIN, Session, Template, TestToken, USER_PIN, assert_rv, call, check, isolated,
    say, token,
};

use crate::canary::{Masked, hits, own_page, wipe};

const PASSWORD: &str = "Alice's own 1";
const OTHER: &str = "another one 2";
const ALICE: Name = ("alice", "p256");

fn ecdsa() -> Mechanism {
    Mechanism::new(CKM_ECDSA)
}

fn unwrap<T>(session: &Session, answer: ffi_tests::Result<T>) -> T {
    answer.unwrap_or_else(|rv| panic!("{rv}: {}", session.module.last_error()))
}

/// Makes Alice's key.
fn make(session: &Session, name: Name) -> Handle {
    unwrap(session, session.generate_with_password(name, PASSWORD.as_bytes())).key
}

/// The public half of a version.
fn public_of(session: &Session, (owner, asset): Name, version: CK_ULONG) -> Handle {
    let template = Template::class(CKO_PUBLIC_KEY).bytes(CKA_SR_OWNER, owner).bytes(CKA_SR_ASSET, asset);
    session.find_one(&template.ulong(CKA_SR_VERSION, version)).expect("the public half")
}

/// Signs into a buffer of the right size, without asking for the size first.
fn sign_at_once(session: &Session) -> ffi_tests::Result<()> {
    let (rv, _) = session.sized(64, |out, len| {
        call!(session.module, C_Sign(session.handle, [1u8; 32].as_ptr().cast_mut(), 32, out, len))
    });
    check(rv.0)
}

/// Reads one number of the key's description.
fn tries_left(session: &Session, name: Name) -> String {
    let info = unwrap(session, session.tell_managed("SR_GetKeyInfo", name));
    let rest = info.split_once("\"password_tries_left\":").expect("the field").1;
    rest.split([',', '}']).next().expect("a value").to_owned()
}

/// A session of a helper process, with the user logged in.
fn helper(argument: &str) -> Session {
    let module = token::attach(argument);
    let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    unwrap(&session, session.login(CKU_USER, USER_PIN));
    session
}

#[test]
fn stock_calls_sign_after_a_login_of_their_own() {
    isolated!(|| {
        let store = TestToken::new();
        let session = store.user();
        let key = make(&session, ALICE);
        let by_label = Template::class(CKO_PRIVATE_KEY).bytes(CKA_LABEL, "alice/p256");
        assert_eq!(session.find(&by_label.clone().bool(CKA_ALWAYS_AUTHENTICATE, true)).expect("a find"), [key]);
        assert_eq!(session.find(&by_label.bool(CKA_SR_PASSWORD, true)).expect("a find"), [key]);
        assert!(session.get_bool(key, CKA_ALWAYS_AUTHENTICATE).expect("a flag"));
        let info = unwrap(&session, session.tell_managed("SR_GetKeyInfo", ALICE));
        assert!(info.contains("\"password\":true") && info.contains("\"password_tries_left\":10"), "{info}");
        assert!(unwrap(&session, session.tell_managed("SR_ListVersions", ALICE)).contains("\"password\":true"));
        assert_rv!(session.set(key, &Template::new().bool(CKA_SR_PASSWORD, false)), CKR_ATTRIBUTE_READ_ONLY);
        assert_rv!(session.set(key, &Template::new().bool(CKA_ALWAYS_AUTHENTICATE, false)), CKR_ATTRIBUTE_READ_ONLY);
        // In one part.
        session.sign_init(&ecdsa(), key).expect("C_SignInit");
        assert_rv!(sign_at_once(&session), CKR_USER_NOT_LOGGED_IN);
        session.sign_init(&ecdsa(), key).expect("the refusal ended the operation");
        assert_rv!(session.login(CKU_CONTEXT_SPECIFIC, USER_PIN), CKR_PIN_INCORRECT, "the PIN is no password");
        session.login(CKU_CONTEXT_SPECIFIC, PASSWORD).expect("the operation still waits");
        let signature = unwrap(&session, session.sign_once(&[1; 32]));
        assert_eq!(signature.len(), 64);
        let public = public_of(&session, ALICE, 1);
        session.verify(&ecdsa(), public, &[1; 32], &signature).expect("C_Verify needs no password");
        // In parts, with a hash of the token's.
        let hashed = Mechanism::new(CKM_ECDSA_SHA256);
        session.sign_init(&hashed, key).expect("C_SignInit");
        session.login(CKU_CONTEXT_SPECIFIC, PASSWORD).expect("C_Login");
        session.sign_update(b"two ").expect("C_SignUpdate");
        session.sign_update(b"parts").expect("C_SignUpdate");
        let signature = unwrap(&session, session.sign_final());
        session.verify(&hashed, public, b"two parts", &signature).expect("C_Verify");
        session.sign_init(&hashed, key).expect("C_SignInit");
        assert_rv!(session.sign_update(b"no login"), CKR_USER_NOT_LOGGED_IN);
        // A question for the length before the login is answered with enough, and keeps the operation.
        session.sign_init(&ecdsa(), key).expect("C_SignInit");
        let (data, mut len) = ([1u8; 32], 0);
        let rv =
            call!(session.module, C_Sign(session.handle, data.as_ptr().cast_mut(), 32, std::ptr::null_mut(), &mut len));
        assert!(rv == CKR_OK && len >= 64, "{rv:#x} {len}");
        session.login(CKU_CONTEXT_SPECIFIC, PASSWORD).expect("it still waits");
        assert_eq!(unwrap(&session, session.sign_once(&data)).len(), 64);
        // A read-only session does it as well.
        let reader = store.module.open_read_only(store.slot).expect("C_OpenSession");
        reader.sign_init(&ecdsa(), key).expect("C_SignInit");
        reader.login(CKU_CONTEXT_SPECIFIC, PASSWORD).expect("C_Login");
        unwrap(&reader, reader.sign_once(&[1; 32]));
    });
}

#[test]
fn every_use_of_a_secret_asks_for_the_password() {
    isolated!(|| {
        let store = TestToken::with(&Config::plaintext("compat"));
        let session = store.user();
        let (name, sealed) = (("alice", "aes256"), Mechanism::new(CKM_SR_SEALED));
        let (key, gcm) = (make(&session, name), Mechanism::gcm(CKM_AES_GCM, &[1; 12], b"", 128));
        let free = session.aes(32, "free", false, &Template::new()).expect("an AES key");
        let kwp = Mechanism::new(CKM_AES_KEY_WRAP_KWP);
        assert_rv!(session.wrap(&kwp, key, free), CKR_USER_NOT_LOGGED_IN);
        assert_rv!(session.wrap(&kwp, free, key), CKR_KEY_UNEXTRACTABLE);
        assert_rv!(session.wrap_under_kms(key), CKR_KEY_UNEXTRACTABLE);
        assert_rv!(session.get(key, CKA_VALUE), CKR_ATTRIBUTE_SENSITIVE);
        assert_rv!(session.copy(key, &Template::new()), CKR_ACTION_PROHIBITED);
        session.digest_init(&Mechanism::new(CKM_SHA256)).expect("C_DigestInit");
        let digested = check(call!(store.module, C_DigestKey(session.handle, key)));
        assert_rv!(digested, CKR_KEY_INDIGESTIBLE);
        for mechanism in [&gcm, &sealed] {
            assert_rv!(
                session.encrypt_init(mechanism, key).and_then(|()| session.encrypt_final()),
                CKR_USER_NOT_LOGGED_IN
            );
            session.encrypt_init(mechanism, key).expect("C_EncryptInit");
            session.login(CKU_CONTEXT_SPECIFIC, PASSWORD).expect("C_Login");
            let ciphertext = unwrap(&session, session.encrypt_once(b"secret"));
            session.decrypt_init(mechanism, key).expect("C_DecryptInit");
            session.login(CKU_CONTEXT_SPECIFIC, PASSWORD).expect("C_Login");
            assert_eq!(unwrap(&session, session.decrypt_once(&ciphertext)), b"secret");
            assert_eq!(unwrap(&session, session.unlock(name, 0, PASSWORD, 0)), key);
            assert_eq!(unwrap(&session, session.decrypt(mechanism, key, &ciphertext)), b"secret");
            let blob = unwrap(&session, session.wrap(&kwp, key, free));
            let template = Template::class(CKO_SECRET_KEY).ulong(CKA_KEY_TYPE, CKK_AES);
            unwrap(&session, session.unwrap(&kwp, key, &blob, &template));
            session.lock(key).expect("SR_LockKey");
        }
        // A parameter that does not fit the key is told when the operation is made: by the login.
        let bad = Mechanism::gcm(CKM_AES_GCM, b"", b"", 128);
        let begun = session.encrypt_init(&bad, key).and_then(|()| session.login(CKU_CONTEXT_SPECIFIC, PASSWORD));
        assert_rv!(begun, CKR_MECHANISM_PARAM_INVALID);
        assert_rv!(session.login(CKU_CONTEXT_SPECIFIC, PASSWORD), CKR_OPERATION_NOT_INITIALIZED);
    });
}

#[test]
fn an_unlocked_key_belongs_to_its_session_and_is_locked_with_it() {
    isolated!(|| {
        let store = TestToken::new();
        let (session, other) = (store.user(), store.open());
        let name = ("alice", "eth");
        let key = make(&session, name);
        assert_rv!(session.sign_recoverable(key, &[1; 32]), CKR_USER_NOT_LOGGED_IN);
        assert_eq!(unwrap(&session, session.unlock(name, 0, PASSWORD, 0)), key);
        assert_eq!(session.unlock(name, 1, PASSWORD, 0), Ok(key));
        unwrap(&session, session.sign(&ecdsa(), key, &[1; 32]));
        assert_eq!(unwrap(&session, session.sign_recoverable(key, &[1; 32])).len(), 65);
        assert!(!session.get_bool(key, CKA_ALWAYS_AUTHENTICATE).expect("a flag"), "as this session has it");
        assert!(other.get_bool(key, CKA_ALWAYS_AUTHENTICATE).expect("a flag"));
        assert_rv!(other.sign_init(&ecdsa(), key).and_then(|()| sign_at_once(&other)), CKR_USER_NOT_LOGGED_IN);
        let all = Template::class(CKO_PRIVATE_KEY);
        assert_eq!(session.find(&all).expect("a find"), [key], "there is no second object");
        // SR_LockKey, twice, and by a session that has nothing to lock.
        session.sign_init(&ecdsa(), key).expect("C_SignInit");
        other.lock(key).expect("SR_LockKey");
        unwrap(&session, sign_at_once(&session));
        session.sign_init(&ecdsa(), key).expect("C_SignInit");
        session.lock(key).expect("SR_LockKey");
        assert_rv!(sign_at_once(&session), CKR_OPERATION_NOT_INITIALIZED);
        session.lock(key).expect("SR_LockKey");
        assert_rv!(session.sign_init(&ecdsa(), key).and_then(|()| sign_at_once(&session)), CKR_USER_NOT_LOGGED_IN);
        assert_rv!(session.lock(CK_ULONG::MAX), CKR_KEY_HANDLE_INVALID);
        // C_CloseSession and C_Logout.
        let third = store.open();
        unwrap(&third, third.unlock(name, 0, PASSWORD, 0));
        third.close().expect("C_CloseSession");
        let fourth = store.open();
        assert_rv!(fourth.sign_init(&ecdsa(), key).and_then(|()| sign_at_once(&fourth)), CKR_USER_NOT_LOGGED_IN);
        unwrap(&session, session.unlock(name, 0, PASSWORD, 0));
        other.logout().expect("C_Logout");
        other.login(CKU_USER, USER_PIN).expect("C_Login");
        let key = unwrap(&session, session.find_managed(name, 0));
        assert_rv!(session.sign_init(&ecdsa(), key).and_then(|()| sign_at_once(&session)), CKR_USER_NOT_LOGGED_IN);
    });
}

#[test]
fn what_another_process_does_to_a_version_reaches_an_unlocked_handle() {
    isolated!(|| {
        let store = TestToken::new();
        let session = store.user();
        let key = make(&session, ALICE);
        unwrap(&session, session.unlock(ALICE, 0, PASSWORD, 0));
        unwrap(&session, session.sign(&ecdsa(), key, &[1; 32]));
        let until_refused = || {
            let start = std::time::Instant::now();
            loop {
                match session.sign(&ecdsa(), key, &[1; 32]) {
                    Err(rv) => return rv.0,
                    Ok(_) => assert!(start.elapsed() < Duration::from_secs(30), "the change never arrived"),
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        Role::start("owner-state", &format!("{} disable", store.config_text())).succeed();
        assert_eq!(until_refused(), CKR_KEY_FUNCTION_NOT_PERMITTED);
        Role::start("owner-state", &format!("{} destroy", store.config_text())).succeed();
        let start = std::time::Instant::now();
        while until_refused() != CKR_KEY_HANDLE_INVALID {
            assert!(start.elapsed() < Duration::from_secs(30), "the destruction never arrived");
        }
    });
}

/// Disables or destroys Alice's key.
pub fn role_state(argument: &str) {
    let (config, what) = argument.split_once(' ').expect("configuration and verb");
    let session = helper(config);
    if what == "disable" {
        return unwrap(&session, session.set_version_state(ALICE, 1, SR_STATE_DISABLED));
    }
    let versions = unwrap(&session, session.tell_managed("SR_ListVersions", ALICE));
    let id = versions.split("\"unique_id\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("an id");
    unwrap(&session, session.destroy_version(ALICE, 1, id));
}

#[test]
fn a_lease_ends_by_the_clock() {
    isolated!(|| {
        let store = TestToken::new();
        make(&store.user(), ALICE);
        Clock::build(store.directory()).start(0, "owner-lease", &store.config_text()).succeed();
    });
}

/// Unlocks Alice's key for an hour, and lets a day pass.
pub fn role_lease(argument: &str) {
    let session = helper(argument);
    let key = unwrap(&session, session.unlock(ALICE, 0, PASSWORD, 3600));
    unwrap(&session, session.sign(&ecdsa(), key, &[1; 32]));
    session.sign_init(&ecdsa(), key).expect("C_SignInit");
    // SAFETY: this process has one thread.
    unsafe { std::env::set_var("STRONGROOM_TEST_DAYS", "1") };
    assert_rv!(sign_at_once(&session), CKR_OPERATION_NOT_INITIALIZED);
    assert_rv!(session.sign_init(&ecdsa(), key).and_then(|()| sign_at_once(&session)), CKR_USER_NOT_LOGGED_IN);
    // Back in time, it stays locked: the lease was ended, and not only over.
    // SAFETY: as above.
    unsafe { std::env::set_var("STRONGROOM_TEST_DAYS", "0") };
    assert_rv!(session.sign_init(&ecdsa(), key).and_then(|()| sign_at_once(&session)), CKR_USER_NOT_LOGGED_IN);
    let key = unwrap(&session, session.unlock(ALICE, 0, PASSWORD, CK_ULONG::MAX));
    unwrap(&session, session.sign(&ecdsa(), key, &[1; 32]));
}

#[test]
fn wrong_passwords_of_all_processes_lock_the_key_and_the_so_unlocks_it() {
    isolated!(|| {
        let store = TestToken::with(&Config { max_attempts: 4, ..Config::default() });
        let session = store.user();
        make(&session, ALICE);
        let helpers: Vec<_> = (0..3).map(|_| Role::start("owner-wrong", &store.config_text())).collect();
        helpers.into_iter().for_each(|helper| drop(helper.succeed()));
        assert_eq!(tries_left(&session, ALICE), "1");
        assert_rv!(session.unlock(ALICE, 0, OTHER, 0), CKR_PIN_INCORRECT);
        let text = store.module.last_error();
        assert!(text.contains("now locked") && text.contains("SR_ResetKeyTries"), "{text}");
        assert_rv!(session.unlock(ALICE, 0, PASSWORD, 0), CKR_PIN_LOCKED);
        assert!(store.module.last_error().contains("p256 key of alice is locked after 4"));
        assert_rv!(session.change_key_password(ALICE, Some(PASSWORD), Some(OTHER)), CKR_PIN_LOCKED);
        assert_rv!(session.rotate_with_passwords(ALICE, Some(PASSWORD), None, 0), CKR_PIN_LOCKED);
        let key = unwrap(&session, session.find_managed(ALICE, 0));
        session.sign_init(&ecdsa(), key).expect("C_SignInit");
        assert_rv!(session.login(CKU_CONTEXT_SPECIFIC, PASSWORD), CKR_PIN_LOCKED);
        // Another key, and the PIN, are not locked.
        make(&session, ("alice", "ed25519"));
        unwrap(&session, session.unlock(("alice", "ed25519"), 0, PASSWORD, 0));
        // A restart forgets nothing. The SO alone lets it be tried again, in a session that may write.
        assert_rv!(session.reset_key_tries(ALICE), CKR_USER_NOT_LOGGED_IN);
        store.module.finalize().expect("C_Finalize");
        store.initialize().expect("C_Initialize");
        let session = store.open();
        assert_rv!(session.reset_key_tries(ALICE), CKR_USER_NOT_LOGGED_IN);
        session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
        assert_rv!(session.reset_key_tries(("alice", "btc")), CKR_KEY_HANDLE_INVALID);
        unwrap(&session, session.reset_key_tries(ALICE));
        session.logout().expect("C_Logout");
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        assert_eq!(tries_left(&session, ALICE), "4");
        unwrap(&session, session.unlock(ALICE, 0, PASSWORD, 0));
    });
}

/// Tries one wrong password.
pub fn role_wrong(argument: &str) {
    let session = helper(argument);
    assert_rv!(session.unlock(ALICE, 0, OTHER, 0), CKR_PIN_INCORRECT);
}

#[test]
fn a_try_that_is_killed_is_counted() {
    isolated!(300, || {
        let dear = "[argon2]\nmemory_mib = 512\npasses = 8\n";
        let store = TestToken::new();
        let cheap = std::fs::read_to_string(&store.config).expect("the configuration");
        let text = format!("{}{dear}", cheap.split_once("[argon2]").expect("the section").0);
        std::fs::write(store.directory().join("dear.toml"), text).expect("writing the configuration");
        // The key is made by a process that is configured so; whoever tries its password pays that.
        Role::start("owner-make", store.directory().join("dear.toml").to_str().expect("a path")).succeed();
        let session = store.user();
        for round in 1..=3u32 {
            let mut child = Role::start("owner-right", &store.config_text());
            child.expect("trying");
            // The count shows before the try is over, which takes seconds.
            let start = std::time::Instant::now();
            while tries_left(&session, ALICE) != (10 - round).to_string() {
                assert!(start.elapsed() < Duration::from_secs(60), "the try was never counted");
                std::thread::sleep(Duration::from_millis(5));
            }
            child.kill();
            let (status, ..) = child.finish();
            assert!(!status.success(), "the try was killed, and not over");
            assert_eq!(tries_left(&session, ALICE), (10 - round).to_string());
        }
        // The right password clears what nobody decided.
        unwrap(&session, session.unlock(ALICE, 0, PASSWORD, 0));
        assert_eq!(tries_left(&session, ALICE), "10");
    });
}

/// Makes Alice's key.
pub fn role_make(argument: &str) {
    make(&helper(argument), ALICE);
}

/// Gives the right password.
pub fn role_right(argument: &str) {
    let session = helper(argument);
    say("trying");
    unwrap(&session, session.unlock(ALICE, 0, PASSWORD, 0));
}

#[test]
fn absurd_arguments_are_told_and_change_nothing() {
    isolated!(|| {
        let store = TestToken::with(&Config { more: String::new(), ..Config::default() });
        let session = store.user();
        for (password, rv) in [
            (&b"abc"[..], CKR_PIN_LEN_RANGE),
            (&[b'x'; 256], CKR_PIN_LEN_RANGE),
            (&[b'x'; 100_000], CKR_PIN_LEN_RANGE),
            (b"\xff\xfe\xfd\xfc\xfb", CKR_PIN_INVALID),
        ] {
            assert_eq!(session.generate_with_password(ALICE, password).unwrap_err().0, rv);
            assert!(store.module.last_error().contains("password") || password.len() > 1000);
        }
        assert_rv!(session.find_managed(ALICE, 0), CKR_KEY_HANDLE_INVALID, "nothing was made");
        let longest = "\u{e4}".repeat(127);
        unwrap(&session, session.generate_with_password(ALICE, longest.as_bytes()));
        unwrap(&session, session.unlock(ALICE, 0, &longest, 0));
        let zero = ("bob", "p256");
        unwrap(&session, session.generate_with_password(zero, b"with\0zero"));
        assert_rv!(session.unlock(zero, 0, "with", 0), CKR_PIN_INCORRECT);
        unwrap(&session, session.unlock(zero, 0, "with\0zero", 0));

        let mut key = 0;
        let good = (longest.as_ptr(), longest.len() as CK_ULONG);
        let null = std::ptr::null();
        let unlock = |password, version, key: *mut Handle| {
            // SAFETY: each length is that of a text, or refused.
            unsafe { session.unlock_raw(ALICE, version, password, 0, key) }
        };
        assert_rv!(unlock((null, 0), 0, &mut key), CKR_ARGUMENTS_BAD);
        assert_rv!(unlock((null, 5), 0, &mut key), CKR_ARGUMENTS_BAD);
        assert_rv!(unlock((good.0, 0), 0, &mut key), CKR_ARGUMENTS_BAD);
        assert_rv!(unlock((good.0, CK_ULONG::MAX), 0, &mut key), CKR_ARGUMENTS_BAD);
        assert_rv!(unlock(good, 0, std::ptr::null_mut()), CKR_ARGUMENTS_BAD);
        assert_rv!(unlock(good, CK_ULONG::MAX, &mut key), CKR_KEY_HANDLE_INVALID);
        assert_rv!(session.unlock(("nobody", "p256"), 0, PASSWORD, 0), CKR_KEY_HANDLE_INVALID);
        assert_rv!(session.unlock(("alice", "doge"), 0, PASSWORD, 0), CKR_ARGUMENTS_BAD);
        assert_eq!((key, tries_left(&session, ALICE)), (0, "10".to_owned()), "none of them was a try");
        assert_rv!(session.change_key_password(ALICE, None, Some(PASSWORD)), CKR_ARGUMENTS_BAD);
        assert_rv!(session.change_key_password(ALICE, Some(&longest), None), CKR_ARGUMENTS_BAD);
        assert_rv!(session.change_key_password(ALICE, Some(&longest), Some("abc")), CKR_PIN_LEN_RANGE);
        assert_rv!(session.change_key_password(ALICE, Some(PASSWORD), Some(OTHER)), CKR_PIN_INCORRECT);
        assert_rv!(session.rotate_managed(ALICE, 0), CKR_PIN_INCORRECT);
        assert_rv!(session.rotate_with_passwords(ALICE, None, Some(OTHER), 0), CKR_PIN_INCORRECT);
        assert_eq!(tries_left(&session, ALICE), "9");
        // Keys without a password have none to give, to change or to lock.
        let plain = ("carol", "p256");
        let key = unwrap(&session, session.generate_managed(plain)).key;
        assert_rv!(session.unlock(plain, 0, PASSWORD, 0), CKR_ACTION_PROHIBITED);
        assert_rv!(session.lock(key), CKR_ACTION_PROHIBITED);
        assert_rv!(session.change_key_password(plain, Some(PASSWORD), Some(OTHER)), CKR_ACTION_PROHIBITED);
        assert_rv!(session.rotate_with_passwords(plain, Some(PASSWORD), None, 0), CKR_ARGUMENTS_BAD);
        let reader = store.module.open_read_only(store.slot).expect("C_OpenSession");
        assert_rv!(reader.change_key_password(ALICE, Some(&longest), Some(OTHER)), CKR_SESSION_READ_ONLY);
        assert_rv!(reader.rotate_with_passwords(ALICE, Some(&longest), None, 0), CKR_SESSION_READ_ONLY);
        unwrap(&reader, reader.unlock(ALICE, 0, &longest, 0));
        session.logout().expect("C_Logout");
        assert_rv!(session.unlock(ALICE, 0, &longest, 0), CKR_USER_NOT_LOGGED_IN);
        assert_rv!(session.generate_with_password(("dave", "p256"), PASSWORD.as_bytes()), CKR_USER_NOT_LOGGED_IN);
    });
}

#[test]
fn r40_a_password_is_gone_as_soon_as_it_was_used() {
    isolated!(|| {
        let store = TestToken::new();
        let session = store.user();
        let (password, page) = (Masked::<24>::draw(&session), own_page());
        let name = ("alice", "ed25519");
        password.unmask(page);
        // SAFETY: the page holds the password.
        let bytes = unsafe { std::slice::from_raw_parts(page, 24) };
        let key = unwrap(&session, session.generate_with_password(name, bytes)).key;
        assert_eq!(hits(&password).len(), 1, "the search finds what is there");
        let mut handle = 0;
        // SAFETY: as above.
        unsafe { session.unlock_raw(name, 0, (page, 24), 0, &mut handle) }.expect("SR_UnlockKey");
        session.sign_init(&Mechanism::new(CKM_EDDSA), key).expect("C_SignInit");
        wipe(page);
        assert_eq!(hits(&password), Vec::<String>::new(), "while the key is unlocked");
        session.lock(key).expect("SR_LockKey");
        password.unmask(page);
        session.sign_init(&Mechanism::new(CKM_EDDSA), key).expect("C_SignInit");
        check(call!(store.module, C_Login(session.handle, CKU_CONTEXT_SPECIFIC, page, 24))).expect("C_Login");
        wipe(page);
        assert_eq!(hits(&password), Vec::<String>::new(), "while the operation is under way");
        unwrap(&session, session.sign_once(b"message"));
    });
}

/// Tells when to kill in a round: at some point of the first two and a half operations, of which one takes about so long here.
fn kill_after(round: u64, operation: Duration) -> Duration {
    let point = u32::try_from(round * 7919 % 1000).expect("below 1000");
    operation * point * 5 / 2000
}

/// The password that Alice's key has in the round of this number.
fn password(number: u64) -> String {
    format!("password {number}")
}

/// Changes the password from this number on, until it is killed.
pub fn role_change(argument: &str) {
    let (config, number) = argument.split_once(' ').expect("configuration and number");
    let session = helper(config);
    let mut number: u64 = number.parse().expect("a number");
    say("ready");
    loop {
        say(&format!("try {}", number + 1));
        unwrap(&session, session.change_key_password(ALICE, Some(&password(number)), Some(&password(number + 1))));
        number += 1;
        say(&format!("ack {number}"));
    }
}

/// Rotates to the next password from this number on, until it is killed.
pub fn role_rotate_on(argument: &str) {
    let (config, number) = argument.split_once(' ').expect("configuration and number");
    let session = helper(config);
    let mut number: u64 = number.parse().expect("a number");
    say("ready");
    loop {
        say(&format!("try {}", number + 1));
        let (old, new) = (password(number), password(number + 1));
        unwrap(&session, session.rotate_with_passwords(ALICE, Some(&old), Some(&new), 0));
        number += 1;
        say(&format!("ack {number}"));
    }
}

/// Runs a role until it is killed; gives the last number that was acknowledged, and the one that was tried after it.
fn killed(role: &str, store: &TestToken, number: u64, round: u64, operation: Duration) -> (u64, Option<u64>) {
    let mut child = Role::start(role, &format!("{} {number}", store.config_text()));
    child.expect("ready");
    std::thread::sleep(kill_after(round, operation));
    child.kill();
    let (_, lines, stderr) = child.finish();
    assert!(!stderr.contains("panicked"), "round {round}: {}", ffi_tests::isolate::tail(&stderr));
    let (mut acknowledged, mut tried) = (number, None);
    for line in lines {
        match line.split_once(' ') {
            Some(("try", text)) => tried = text.parse().ok(),
            Some(("ack", text)) => (acknowledged, tried) = (text.parse().expect("a number"), None),
            _ => {}
        }
    }
    (acknowledged, tried)
}

#[test]
fn kill_nine_in_a_change_of_password_leaves_the_old_or_the_new_for_all_versions() {
    isolated!(900, || {
        let store = TestToken::new();
        let session = store.user();
        unwrap(&session, session.generate_with_password(ALICE, password(0).as_bytes()));
        for _ in 0..2 {
            // Each version in a seal of its own.
            let same = password(0);
            unwrap(&session, session.rotate_with_passwords(ALICE, Some(&same), Some(&same), 0));
        }
        let (mut number, mut changes, mut new, start) = (1, 0, 0, std::time::Instant::now());
        unwrap(&session, session.change_key_password(ALICE, Some(&password(0)), Some(&password(1))));
        let operation = start.elapsed();
        for round in 0..200 {
            let (acknowledged, tried) = killed("owner-change", &store, number, round, operation);
            changes += acknowledged - number;
            // The new one first; one that is wrong costs a try, which the right one gives back.
            let candidates = tried.into_iter().chain([acknowledged]);
            number = candidates
                .into_iter()
                .find(|candidate| session.unlock(ALICE, 0, &password(*candidate), 0).is_ok())
                .unwrap_or_else(|| panic!("round {round}: neither {acknowledged} nor {tried:?} opens"));
            new += u64::from(tried == Some(number));
            for version in 1..=3 {
                let key = unwrap(&session, session.unlock(ALICE, version, &password(number), 0));
                let signature = unwrap(&session, session.sign(&ecdsa(), key, &[1; 32]));
                let public = public_of(&session, ALICE, version);
                session.verify(&ecdsa(), public, &[1; 32], &signature).expect("nothing below was touched");
            }
        }
        say(&format!("{changes} changes were acknowledged, {new} of 200 kills came between commit and answer"));
        assert!(changes > 40, "only {changes} changes: the kills came before them");
    });
}

#[test]
fn kill_nine_in_a_rotation_with_passwords_leaves_the_old_or_the_new_version() {
    isolated!(900, || {
        let store = TestToken::new();
        let session = store.user();
        unwrap(&session, session.generate_with_password(ALICE, password(1).as_bytes()));
        let (mut number, start) = (2, std::time::Instant::now());
        unwrap(&session, session.rotate_with_passwords(ALICE, Some(&password(1)), Some(&password(2)), 0));
        let operation = start.elapsed();
        for round in 0..200 {
            let (acknowledged, tried) = killed("owner-rotate", &store, number, round, operation);
            // The password of a version has its number.
            let key = unwrap(&session, session.find_managed(ALICE, 0));
            let latest = session.get_ulong(key, CKA_SR_VERSION).expect("a number");
            assert!(
                latest == acknowledged || Some(latest) == tried,
                "round {round}: {latest}, {acknowledged}, {tried:?}"
            );
            number = latest;
            for version in number.saturating_sub(1).max(1)..=number {
                let key = unwrap(&session, session.unlock(ALICE, version, &password(version), 0));
                let signature = unwrap(&session, session.sign(&ecdsa(), key, &[1; 32]));
                let public = public_of(&session, ALICE, version);
                session.verify(&ecdsa(), public, &[1; 32], &signature).expect("both halves are of one version");
                session.lock(key).expect("SR_LockKey");
            }
        }
        assert!(number > 40, "only {number} versions: the kills came before the rotations");
        for class in [CKO_PRIVATE_KEY, CKO_PUBLIC_KEY] {
            let of_key = Template::class(class).bytes(CKA_SR_OWNER, "alice").ulong(CKA_SR_STATE, SR_STATE_ROTATED);
            assert_eq!(session.find(&of_key).expect("a find").len() as u64, number - 1);
        }
    });
}

#[test]
fn a_token_that_opens_by_itself_locks_keys_at_logout() {
    isolated!(|| {
        // The configuration names the file of the PIN before there is a token.
        let directory = tempfile::tempdir().expect("a directory");
        let pin = directory.path().join("pin");
        std::fs::write(&pin, USER_PIN).expect("writing the PIN");
        std::process::Command::new("chmod").arg("600").arg(&pin).status().expect("chmod");
        let more = format!("[[token]]\nlabel = \"test\"\npin_source = \"file:{}\"\n", pin.display());
        let store = TestToken::with(&Config { more, ..Config::default() });
        let session = store.open();
        let key = make(&session, ALICE);
        unwrap(&session, session.unlock(ALICE, 0, PASSWORD, 0));
        unwrap(&session, session.sign(&ecdsa(), key, &[1; 32]));
        session.sign_init(&ecdsa(), key).expect("C_SignInit");
        session.logout().expect("C_Logout");
        assert_rv!(sign_at_once(&session), CKR_OPERATION_NOT_INITIALIZED);
        assert_rv!(session.sign_init(&ecdsa(), key).and_then(|()| sign_at_once(&session)), CKR_USER_NOT_LOGGED_IN);
    });
}

#[test]
fn only_who_has_the_password_takes_uses_of_a_key() {
    isolated!(|| {
        let more = "[rotation]\nscheduler = false\nmax_key_uses = 3\n".to_owned();
        let store = TestToken::with(&Config { more, ..Config::default() });
        let session = store.user();
        let key = make(&session, ALICE);
        for _ in 0..9 {
            session.sign_init(&ecdsa(), key).expect("C_SignInit takes no use");
            assert_rv!(sign_at_once(&session), CKR_USER_NOT_LOGGED_IN);
        }
        let uses = |key| session.get_ulong(key, CKA_SR_USES).unwrap_or(0);
        assert_eq!(uses(key), 0);
        for _ in 0..3 {
            session.sign_init(&ecdsa(), key).expect("C_SignInit");
            session.login(CKU_CONTEXT_SPECIFIC, PASSWORD).expect("C_Login");
            sign_at_once(&session).expect("C_Sign");
        }
        session.sign_init(&ecdsa(), key).expect("C_SignInit");
        assert_rv!(session.login(CKU_CONTEXT_SPECIFIC, PASSWORD), CKR_KEY_FUNCTION_NOT_PERMITTED);
        assert!(session.module.last_error().contains("used 3 times"), "{}", session.module.last_error());
    });
}
