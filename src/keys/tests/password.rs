//! Keys with their owner's own password, on a token in memory that two libraries share as two processes would.

use super::*;
use crate::error::Result as LibraryResult;
use crate::store::Store;
use crate::token::{KnownKeys, Reply, Resealed};

const PASSWORD: &str = "Alice's own 1";
const OTHER: &str = "another one 2";

/// One store and its KMS, opened by any number of libraries.
struct Shared {
    store: Arc<dyn Store>,
    profile: Profile,
    clock: Arc<AtomicU64>,
}

impl Shared {
    fn new(max_attempts: u32) -> (Self, Fixture) {
        let mut profile = profile(Rotation { interval_days: 90, max_age_days: 365, max_uses: 0, auto_rotate: true });
        profile.policy.password.max_attempts = max_attempts;
        let store = store::open("memory:", &OpenOptions::default()).unwrap();
        let shared = Self { store, profile, clock: Arc::new(AtomicU64::new(START)) };
        let first = shared.library();
        let slot = first.slots(true).unwrap()[0];
        first.init_token(slot, pin(), b"test                            ").unwrap();
        let session = first.session(first.open_session(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION).unwrap()).unwrap();
        session.login(CKU_SO, pin()).unwrap();
        session.init_pin(pin()).unwrap();
        drop(session);
        first.shutdown();
        let fixture = shared.open();
        (shared, fixture)
    }

    fn library(&self) -> Library {
        let (store, told) = (self.store.clone(), self.clock.clone());
        Library::new(Parts {
            open_store: Box::new(move || Ok(store.clone())),
            profiles: Profiles { default: self.profile.clone(), named: HashMap::new() },
            trail: Arc::new(Trail::new(audit::Rules { mode: Mode::Required, key_use: false, copies: Vec::new() })),
            fault: None,
            status: String::new(),
            clock: Arc::new(move || told.load(Ordering::Relaxed)),
        })
    }

    /// Opens the store by another library, as another process does.
    fn open(&self) -> Fixture {
        let library = self.library();
        let slot = library.slots(true).unwrap()[0];
        let handle = library.open_session(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION).unwrap();
        let session = library.session(handle).unwrap();
        session.login(CKU_USER, pin()).unwrap();
        Fixture { library, session, clock: self.clock.clone() }
    }
}

fn pin() -> Option<SecureBytes> {
    Some(SecureBytes::copy_from(b"user-12345"))
}

fn text(text: &str) -> SecureBytes {
    SecureBytes::copy_from(text.as_bytes())
}

fn kind<T>(answer: LibraryResult<T>) -> Kind {
    answer.err().expect("an error").kind()
}

impl Fixture {
    fn with_password(&self, name: &Name) -> Version {
        self.keys().generate_with_password(name, &text(PASSWORD)).unwrap().version
    }

    fn unlock(&self, name: &Name, password: &str) -> LibraryResult<CK_OBJECT_HANDLE> {
        self.keys().unlock(name, 0, &text(password), 0)
    }

    fn begin(&self, key: CK_OBJECT_HANDLE) -> LibraryResult<()> {
        let call = Call { mechanism: mechanism::find(CKM_ECDSA).unwrap(), params: Params::None };
        self.session.sign_init(Some(call), key)
    }

    fn context_login(&self, password: &str) -> LibraryResult<()> {
        self.session.login(CKU_CONTEXT_SPECIFIC, Some(text(password)))
    }

    fn tries_left(&self, name: &Name) -> Option<u64> {
        let info: serde_json::Value = serde_json::from_str(&self.keys().info(name).unwrap()).unwrap();
        info["password_tries_left"].as_u64()
    }

    fn always_authenticate(&self, key: CK_OBJECT_HANDLE) -> bool {
        let answers = self.session.attributes(key, &[CKA_ALWAYS_AUTHENTICATE]).unwrap();
        answers == [crate::token::Answer::Value(Value::Bool(true))]
    }
}

#[test]
fn each_use_asks_for_the_password_once() {
    let (_, fixture) = Shared::new(10);
    let name = name("alice", "p256");
    let key = fixture.with_password(&name);
    assert!(key.has_password() && fixture.always_authenticate(key.handle));
    assert_eq!(fixture.sign(key.handle), Err(Kind::UserNotLoggedIn));
    fixture.begin(key.handle).unwrap();
    // A question for the length costs nothing, and what has too little room is not told from what has not.
    assert!(matches!(fixture.session.sign(&[7; 32], Room::Query).unwrap(), Reply::Needs(len) if len >= 64));
    assert_eq!(kind(fixture.context_login(OTHER)), Kind::PinIncorrect);
    fixture.context_login(PASSWORD).unwrap();
    assert!(matches!(fixture.session.sign(&[7; 32], Room::Query).unwrap(), Reply::Needs(64)));
    let signature = match fixture.session.sign(&[7; 32], Room::Bytes(64)).unwrap() {
        Reply::Bytes(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    };
    let mut public = name.template();
    public.set(CKA_CLASS, CKO_PUBLIC_KEY);
    fixture.verify(fixture.find(&public)[0], &signature).unwrap();
    assert_eq!(fixture.sign(key.handle), Err(Kind::UserNotLoggedIn), "one login is for one use");
    assert_eq!(kind(fixture.context_login(PASSWORD)), Kind::OperationNotInitialized);
    fixture.begin(key.handle).unwrap();
    assert_eq!(kind(fixture.session.sign(&[7; 32], Room::Bytes(8))), Kind::UserNotLoggedIn);
}

#[test]
fn an_unlocked_key_signs_in_its_session_until_it_is_locked() {
    let (_, fixture) = Shared::new(10);
    let name = name("alice", "btc");
    let key = fixture.with_password(&name).handle;
    assert_eq!(kind(fixture.session.sign_recoverable(key, &[7; 32], Room::Bytes(65))), Kind::UserNotLoggedIn);
    assert_eq!(fixture.unlock(&name, PASSWORD).unwrap(), key);
    for _ in 0..3 {
        fixture.sign(key).unwrap();
    }
    fixture.session.sign_recoverable(key, &[7; 32], Room::Bytes(65)).unwrap();
    assert!(!fixture.always_authenticate(key));
    // Another session has nothing of it.
    let slot = fixture.session.info().unwrap().slot;
    let other = fixture.library.open_session(slot, CKF_SERIAL_SESSION).unwrap();
    let other = Fixture {
        session: fixture.library.session(other).unwrap(),
        library: Library::new(empty_parts()),
        clock: fixture.clock.clone(),
    };
    assert_eq!(other.sign(key), Err(Kind::UserNotLoggedIn));
    assert!(other.always_authenticate(key));
    // An operation that is under way ends with the lock, and so does the fast way to the key.
    fixture.begin(key).unwrap();
    fixture.session.lock(key).unwrap();
    assert_eq!(kind(fixture.session.sign(&[7; 32], Room::Bytes(64))), Kind::OperationNotInitialized);
    assert_eq!(fixture.sign(key), Err(Kind::UserNotLoggedIn));
    fixture.session.lock(key).unwrap();
    assert_eq!(kind(fixture.session.lock(77)), Kind::KeyHandleInvalid);
    let plain = fixture.keys().generate(&super::name("alice", "p256")).unwrap().version;
    assert_eq!(kind(fixture.session.lock(plain.handle)), Kind::ActionProhibited);
    assert_eq!(kind(fixture.unlock(&super::name("alice", "p256"), PASSWORD)), Kind::ActionProhibited);
    // A logout locks, and so does the end of the session.
    fixture.unlock(&name, PASSWORD).unwrap();
    fixture.session.logout().unwrap();
    fixture.session.login(CKU_USER, pin()).unwrap();
    let key = fixture.keys().active(&name).unwrap().handle;
    assert_eq!(fixture.sign(key), Err(Kind::UserNotLoggedIn));
}

fn empty_parts() -> Parts {
    Parts {
        open_store: Box::new(|| store::open("memory:", &OpenOptions::default())),
        profiles: Profiles {
            default: profile(Rotation { interval_days: 0, max_age_days: 0, max_uses: 0, auto_rotate: false }),
            named: HashMap::new(),
        },
        trail: Arc::new(Trail::new(audit::Rules { mode: Mode::Required, key_use: false, copies: Vec::new() })),
        fault: None,
        status: String::new(),
        clock: Arc::new(|| START),
    }
}

#[test]
fn a_lease_is_over_when_its_time_is() {
    let (_, fixture) = Shared::new(10);
    let name = name("alice", "p256");
    let key = fixture.with_password(&name).handle;
    fixture.keys().unlock(&name, 0, &text(PASSWORD), 60).unwrap();
    fixture.clock.fetch_add(59, Ordering::Relaxed);
    fixture.sign(key).unwrap();
    fixture.begin(key).unwrap();
    fixture.clock.fetch_add(1, Ordering::Relaxed);
    assert_eq!(kind(fixture.session.sign(&[7; 32], Room::Bytes(64))), Kind::OperationNotInitialized);
    assert_eq!(fixture.sign(key), Err(Kind::UserNotLoggedIn));
    assert!(fixture.always_authenticate(key));
    // Unlocked once more, the new time counts alone.
    fixture.keys().unlock(&name, 0, &text(PASSWORD), 60).unwrap();
    fixture.keys().unlock(&name, 0, &text(PASSWORD), 0).unwrap();
    fixture.pass_days(300);
    fixture.sign(key).unwrap();
    // The age of the version counts as ever.
    fixture.pass_days(65);
    assert_eq!(fixture.sign(key), Err(Kind::KeyFunctionNotPermitted));
}

#[test]
fn states_reach_an_unlocked_handle() {
    let (_, fixture) = Shared::new(10);
    let name = name("alice", "p256");
    let old = fixture.with_password(&name);
    fixture.unlock(&name, PASSWORD).unwrap();
    let passwords = Passwords { old: Some(&text(PASSWORD)), new: None };
    let new = fixture.keys().rotate_with_passwords(&name, 0, passwords).unwrap().version;
    // The unlocked version was named: it signs on. The new one is closed.
    fixture.sign(old.handle).unwrap();
    assert_eq!(fixture.sign(new.handle), Err(Kind::UserNotLoggedIn));
    fixture.keys().set_state(&name, 1, State::Disabled).unwrap();
    assert_eq!(fixture.sign(old.handle), Err(Kind::KeyFunctionNotPermitted));
    assert_eq!(kind(fixture.keys().unlock(&name, 1, &text(PASSWORD), 0)), Kind::KeyFunctionNotPermitted);
    fixture.keys().set_state(&name, 1, State::Rotated).unwrap();
    fixture.sign(old.handle).unwrap();
    fixture.keys().destroy_version(&name, 1, old.unique_id()).unwrap();
    assert_eq!(fixture.sign(old.handle), Err(Kind::KeyHandleInvalid));
    // Disabled between C_SignInit and its login.
    fixture.begin(new.handle).unwrap();
    fixture.keys().set_state(&name, 2, State::Disabled).unwrap();
    assert_eq!(kind(fixture.context_login(PASSWORD)), Kind::KeyFunctionNotPermitted);
}

#[test]
fn wrong_passwords_lock_the_key_for_all_and_the_so_lets_it_be_tried_again() {
    let (shared, fixture) = Shared::new(3);
    let name = name("alice", "p256");
    let key = fixture.with_password(&name).handle;
    let other = shared.open();
    let theirs = other.keys().active(&name).unwrap().handle;
    assert_eq!(fixture.tries_left(&name), Some(3));
    assert_eq!(kind(fixture.unlock(&name, OTHER)), Kind::PinIncorrect);
    other.begin(theirs).unwrap();
    let error = other.context_login("").unwrap_err();
    assert!(error.message().contains("1 tries are left"), "{error}");
    assert_eq!(other.tries_left(&name), Some(1));
    // The right one clears the count.
    fixture.unlock(&name, PASSWORD).unwrap();
    assert_eq!(fixture.tries_left(&name), Some(3));
    for _ in 0..2 {
        assert_eq!(kind(fixture.unlock(&name, OTHER)), Kind::PinIncorrect);
    }
    let error = other.unlock(&name, OTHER).unwrap_err();
    assert!(error.kind() == Kind::PinIncorrect && error.message().contains("SR_ResetKeyTries"), "{error}");
    for fixture in [&fixture, &other] {
        let error = fixture.unlock(&name, PASSWORD).unwrap_err();
        assert!(error.kind() == Kind::PinLocked && error.message().contains("SR_ResetKeyTries"), "{error}");
        let passwords = Passwords { old: Some(&text(PASSWORD)), new: None };
        assert_eq!(kind(fixture.keys().rotate_with_passwords(&name, 0, passwords)), Kind::PinLocked);
        assert_eq!(kind(fixture.keys().change_password(&name, &text(PASSWORD), &text(OTHER))), Kind::PinLocked);
    }
    // What is unlocked already stays so: the count keeps out who does not know the password.
    fixture.sign(key).unwrap();
    assert_eq!(kind(other.keys().reset_tries(&name)), Kind::UserNotLoggedIn);
    other.session.logout().unwrap();
    other.session.login(CKU_SO, pin()).unwrap();
    assert_eq!(kind(other.keys().reset_tries(&super::name("bob", "p256"))), Kind::KeyHandleInvalid);
    other.keys().reset_tries(&name).unwrap();
    assert_eq!(fixture.tries_left(&name), Some(3));
    fixture.unlock(&name, PASSWORD).unwrap();
}

#[test]
fn an_old_password_that_got_known_buys_no_tries_of_the_new_one() {
    let (_, fixture) = Shared::new(3);
    let name = name("alice", "p256");
    fixture.with_password(&name);
    let passwords = Passwords { old: Some(&text(PASSWORD)), new: Some(&text(OTHER)) };
    fixture.keys().rotate_with_passwords(&name, 1, passwords).unwrap();
    // The old version stays under its old password.
    assert_eq!(kind(fixture.unlock(&name, PASSWORD)), Kind::PinIncorrect);
    fixture.keys().unlock(&name, 1, &text(PASSWORD), 0).unwrap();
    assert_eq!(fixture.tries_left(&name), Some(2), "it clears no count");
    assert_eq!(kind(fixture.keys().unlock(&name, 1, &text(OTHER), 0)), Kind::PinIncorrect);
    assert_eq!(fixture.tries_left(&name), Some(1), "a wrong one counts whichever version it is tried on");
    fixture.unlock(&name, OTHER).unwrap();
    assert_eq!(fixture.tries_left(&name), Some(3));
}

#[test]
fn sixteen_at_once_with_the_right_password_all_get_in() {
    let (shared, fixture) = Shared::new(2);
    let name = name("alice", "p256");
    fixture.with_password(&name);
    let slot = fixture.session.info().unwrap().slot;
    let others: Vec<_> = (0..4).map(|_| shared.open()).collect();
    std::thread::scope(|scope| {
        for round in 0..16 {
            let library = &others[round % 4].library;
            let name = &name;
            scope.spawn(move || {
                let session = library.session(library.open_session(slot, CKF_SERIAL_SESSION).unwrap()).unwrap();
                ManagedKeys::of(&session).unlock(name, 0, &text(PASSWORD), 0).unwrap();
            });
        }
    });
    assert_eq!(fixture.tries_left(&name), Some(2));
}

#[test]
fn rotation_needs_the_right_password_and_the_scheduler_leaves_the_key() {
    let (_, fixture) = Shared::new(10);
    let (name, plain) = (name("alice", "p256"), super::name("bob", "p256"));
    fixture.with_password(&name);
    fixture.keys().generate(&plain).unwrap();
    let error = fixture.keys().rotate(&name, 0).unwrap_err();
    assert!(error.kind() == Kind::PinIncorrect && error.message().contains("old_password"), "{error}");
    let rotate = |old: Option<&str>, new: Option<&str>| {
        let (old, new) = (old.map(text), new.map(text));
        fixture.keys().rotate_with_passwords(&name, 0, Passwords { old: old.as_ref(), new: new.as_ref() })
    };
    assert_eq!(kind(rotate(None, Some(OTHER))), Kind::PinIncorrect);
    assert_eq!(fixture.tries_left(&name), Some(10), "what was not given was not tried");
    assert_eq!(kind(rotate(Some(OTHER), None)), Kind::PinIncorrect);
    assert_eq!(kind(rotate(Some(PASSWORD), Some("abc"))), Kind::PinLenRange);
    assert_eq!(fixture.keys().latest(&name).unwrap().number, 1);
    // The same password for the next version, then another one.
    rotate(Some(PASSWORD), None).unwrap();
    fixture.unlock(&name, PASSWORD).unwrap();
    rotate(Some(PASSWORD), Some(OTHER)).unwrap();
    fixture.unlock(&name, OTHER).unwrap();
    let expected = fixture.keys().rotate_with_passwords(&name, 1, Passwords::default());
    assert_eq!(kind(expected), Kind::ActionProhibited);
    // Due, it is left, and says why.
    fixture.pass_days(90);
    let report = fixture.keys().rotate_due(usize::MAX).unwrap();
    assert_eq!((report.rotated.len(), report.left.len(), report.failed.len()), (1, 1, 0));
    assert!(report.left[0].password && !report.left[0].automatic && report.left[0].version == 3);
    // A key without a password refuses an old one, and gets one with the next version if it is told to.
    let old = Passwords { old: Some(&text(PASSWORD)), new: None };
    assert_eq!(kind(fixture.keys().rotate_with_passwords(&plain, 0, old)), Kind::ArgumentsBad);
    let new = Passwords { old: None, new: Some(&text(PASSWORD)) };
    let made = fixture.keys().rotate_with_passwords(&plain, 0, new).unwrap().version;
    assert!(made.has_password() && !fixture.keys().version(&plain, 2).unwrap().has_password());
    assert_eq!(fixture.sign(made.handle), Err(Kind::UserNotLoggedIn));
    fixture.sign(fixture.keys().version(&plain, 2).unwrap().handle).unwrap();
    check_sound(&fixture, &[name, plain]);
}

#[test]
fn a_change_seals_every_version_that_the_old_password_opens() {
    let (shared, fixture) = Shared::new(10);
    let name = name("alice", "p256");
    let third = "the third one 3";
    fixture.with_password(&name);
    for (old, new) in [(PASSWORD, OTHER), (OTHER, OTHER)] {
        let passwords = Passwords { old: Some(&text(old)), new: Some(&text(new)) };
        fixture.keys().rotate_with_passwords(&name, 0, passwords).unwrap();
    }
    let change = |old: &str, new: &str| fixture.keys().change_password(&name, &text(old), &text(new));
    assert_eq!(kind(change(PASSWORD, third)), Kind::PinIncorrect);
    assert_eq!(kind(change(OTHER, "")), Kind::PinLenRange);
    assert_eq!(kind(change(OTHER, "abc")), Kind::PinLenRange);
    assert_eq!(fixture.tries_left(&name), Some(9));
    // Versions 2 and 3 were under the old password, in seals of their own; version 1 keeps the one before.
    assert_eq!(change(OTHER, third).unwrap(), 1);
    let other = shared.open();
    for (number, password) in [(1, PASSWORD), (2, third), (3, third)] {
        let key = other.keys().unlock(&name, number, &text(password), 0).unwrap();
        other.sign(key).unwrap();
        assert_eq!(kind(other.keys().unlock(&name, number, &text(OTHER), 0)), Kind::PinIncorrect);
    }
    let plain = super::name("bob", "p256");
    fixture.keys().generate(&plain).unwrap();
    assert_eq!(kind(fixture.keys().change_password(&plain, &text(OTHER), &text(third))), Kind::ActionProhibited);
}

#[test]
fn ciphertexts_that_name_their_version_open_with_unlocked_versions() {
    let (_, fixture) = Shared::new(10);
    let name = name("alice", "aes256");
    let old = fixture.with_password(&name).handle;
    let begin = |key, encrypt: bool| {
        let call = Some(Call { mechanism: mechanism::find(CKM_SR_SEALED).unwrap(), params: Params::None });
        if encrypt { fixture.session.encrypt_init(call, key) } else { fixture.session.decrypt_init(call, key) }
    };
    let run = |encrypt: bool, data: &[u8]| {
        let mut out = vec![0; data.len() + 100];
        let input = crate::mechanism::InOut::from_slices(data, &mut out);
        let reply = if encrypt { fixture.session.encrypt(input, false) } else { fixture.session.decrypt(input, false) };
        reply.map(|reply| match reply {
            Reply::Written(len) => out[..len].to_vec(),
            other => panic!("{other:?}"),
        })
    };
    // By a login for one use.
    begin(old, true).unwrap();
    fixture.context_login(PASSWORD).unwrap();
    let first = run(true, b"secret").unwrap();
    begin(old, false).unwrap();
    fixture.context_login(PASSWORD).unwrap();
    assert_eq!(run(false, &first).unwrap(), b"secret");
    // By unlocked versions: each for itself.
    let passwords = Passwords { old: Some(&text(PASSWORD)), new: None };
    let new = fixture.keys().rotate_with_passwords(&name, 0, passwords).unwrap().version.handle;
    fixture.unlock(&name, PASSWORD).unwrap();
    begin(new, true).unwrap();
    let second = run(true, b"another").unwrap();
    begin(new, false).unwrap();
    assert_eq!(run(false, &second).unwrap(), b"another");
    begin(new, false).unwrap();
    let error = run(false, &first).unwrap_err();
    assert!(error.kind() == Kind::UserNotLoggedIn && error.message().contains("version 1"), "{error}");
    fixture.keys().unlock(&name, 1, &text(PASSWORD), 0).unwrap();
    begin(new, false).unwrap();
    assert_eq!(run(false, &first).unwrap(), b"secret");
    // What a secret is made of never goes into a digest.
    let sha256 = Some(Call { mechanism: mechanism::find(CKM_SHA256).unwrap(), params: Params::None });
    fixture.session.digest_init(sha256).unwrap();
    assert_eq!(kind(fixture.session.digest_key(new)), Kind::KeyIndigestible);
}

#[test]
fn the_cost_of_a_password_is_raised_at_its_next_use() {
    let (mut shared, fixture) = Shared::new(10);
    let name = name("alice", "p256");
    fixture.with_password(&name);
    fixture.keys().rotate_with_passwords(&name, 0, Passwords { old: Some(&text(PASSWORD)), new: None }).unwrap();
    let cost = |fixture: &Fixture, number| {
        let handle = fixture.keys().version(&name, number).unwrap().handle;
        fixture.session.check_password("test", handle, &text(PASSWORD)).unwrap().params()
    };
    assert_eq!(cost(&fixture, 1), Argon2Params::new(8192, 1, 1).unwrap());
    let raised = Argon2Params::new(16384, 2, 1).unwrap();
    let kms = shared.profile.sealer.provider().clone();
    shared.profile.sealer = Arc::new(Sealer::new(kms, raised));
    let dear = shared.open();
    // A wrong password raises nothing.
    assert_eq!(kind(dear.unlock(&name, OTHER)), Kind::PinIncorrect);
    assert_eq!(cost(&fixture, 2), Argon2Params::new(8192, 1, 1).unwrap());
    dear.unlock(&name, PASSWORD).unwrap();
    // Both versions were under one seal's key. Whoever is configured to pay less pays what the seal asks for, and lowers nothing.
    for number in [1, 2] {
        assert_eq!(cost(&fixture, number), raised);
    }
}

#[test]
fn passwords_keep_to_the_rules() {
    let (_, fixture) = Shared::new(10);
    let name = name("alice", "p256");
    let error = fixture.keys().generate_with_password(&name, &text("abc")).unwrap_err();
    assert!(error.kind() == Kind::PinLenRange && error.message().contains("the new password"), "{error}");
    let bad = SecureBytes::copy_from(b"\xff\xfeabcdef");
    assert_eq!(kind(fixture.keys().generate_with_password(&name, &bad)), Kind::PinInvalid);
    assert_eq!(kind(fixture.keys().latest(&name)), Kind::KeyHandleInvalid, "nothing was made");
}

#[test]
fn what_is_done_with_passwords_leaves_records() {
    let (_, fixture) = Shared::new(2);
    let name = name("alice", "p256");
    let key = fixture.with_password(&name).handle;
    let before = fixture.session.audit_end().unwrap();
    assert_eq!(kind(fixture.unlock(&name, OTHER)), Kind::PinIncorrect);
    fixture.unlock(&name, PASSWORD).unwrap();
    fixture.session.lock(key).unwrap();
    fixture.session.lock(key).unwrap();
    fixture.begin(key).unwrap();
    fixture.context_login(PASSWORD).unwrap();
    let passwords = Passwords { old: Some(&text(PASSWORD)), new: None };
    fixture.keys().rotate_with_passwords(&name, 0, passwords).unwrap();
    fixture.keys().change_password(&name, &text(PASSWORD), &text(OTHER)).unwrap();
    for _ in 0..2 {
        assert_eq!(kind(fixture.unlock(&name, PASSWORD)), Kind::PinIncorrect);
    }
    assert_eq!(kind(fixture.keys().change_password(&name, &text(OTHER), &text(PASSWORD))), Kind::PinLocked);
    fixture.session.logout().unwrap();
    fixture.session.login(CKU_SO, pin()).unwrap();
    fixture.keys().reset_tries(&name).unwrap();
    let mut records = Vec::new();
    fixture
        .session
        .export_audit(before, &mut |_, line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
            let of_key = [text("owner"), text("asset")] == ["alice", "p256"];
            records.push((of_key, text("operation"), text("result"), line["keys"].as_array().unwrap().len()));
            Ok(())
        })
        .unwrap();
    let told: Vec<_> = records
        .iter()
        .filter(|record| record.0)
        .map(|(_, operation, result, keys)| format!("{operation} {} {keys}", result.trim_start_matches("CKR_")))
        .collect();
    assert_eq!(
        told,
        [
            "SR_UnlockKey PIN_INCORRECT 1",
            "SR_UnlockKey OK 1",
            "SR_LockKey OK 1",
            "C_Login OK 1",
            // Both halves of both versions; then both secrets.
            "SR_RotateKey OK 4",
            "SR_ChangeKeyPassword OK 2",
            "SR_UnlockKey PIN_INCORRECT 1",
            "SR_UnlockKey PIN_INCORRECT 1",
            "lock-out PIN_LOCKED 1",
            "SR_ChangeKeyPassword PIN_LOCKED 1",
            "SR_ResetKeyTries OK 0",
        ]
    );
    assert!(fixture.session.verify_audit(None).unwrap().is_clean());
}

#[test]
fn r75_a_key_that_is_taken_out_is_named_in_its_record() {
    let (_, fixture) = Shared::new(10);
    let (plain, own) = (name("alice", "ed25519"), name("alice", "p256"));
    fixture.keys().generate(&plain).unwrap();
    fixture.with_password(&own);
    let before = fixture.session.audit_end().unwrap();
    fixture.keys().take_out(&plain, 0, None).unwrap();
    fixture.keys().take_out(&own, 0, Some(&text(PASSWORD))).unwrap();
    let mut named = Vec::new();
    fixture
        .session
        .export_audit(before, &mut |_, line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            named.push((line["operation"].as_str().unwrap().to_owned(), line["keys"].as_array().unwrap().len()));
            Ok(())
        })
        .unwrap();
    let taken = ("get_private_key".to_owned(), 1);
    assert_eq!(named, [taken.clone(), taken]);
}

#[test]
fn a_change_that_does_not_know_every_version_changes_nothing() {
    let (_, fixture) = Shared::new(10);
    let name = name("alice", "p256");
    let first = fixture.with_password(&name);
    let passwords = Passwords { old: Some(&text(PASSWORD)), new: Some(&text(OTHER)) };
    let second = fixture.keys().rotate_with_passwords(&name, 0, passwords).unwrap().version;
    let new = fixture.session.new_password(&text("the third one 3")).unwrap();
    let reseal = |known: &KnownKeys| {
        let event = fixture.session.event("test");
        fixture.session.reseal(event, &name.template(), known, &new, true).map_err(|error| error.kind())
    };
    let of = |version: &Version, password: &str| {
        KnownKeys::of_right(fixture.session.check_password("test", version.handle, &text(password)).unwrap())
    };
    // As if another process had rotated, or given the password anew, after the versions were looked at.
    assert_eq!(reseal(&of(&second, OTHER)), Err(Kind::FunctionFailed));
    let mut known = of(&first, PASSWORD);
    fixture.session.learn(second.handle, &text(PASSWORD), &mut known).unwrap();
    assert_eq!(reseal(&known), Err(Kind::FunctionFailed), "the latest version must be among them");
    fixture.keys().unlock(&name, 1, &text(PASSWORD), 0).unwrap();
    fixture.unlock(&name, OTHER).unwrap();
    let mut known = of(&second, OTHER);
    fixture.session.learn(first.handle, &text(OTHER), &mut known).unwrap();
    assert_eq!(reseal(&known), Ok(Resealed { sealed: 1, left: 1 }));
    fixture.unlock(&name, "the third one 3").unwrap();
}

#[test]
fn changes_and_rotations_at_once_leave_one_password_for_all_versions() {
    let (shared, fixture) = Shared::new(0);
    let name = name("alice", "p256");
    fixture.with_password(&name);
    let other = shared.open();
    let passwords = [PASSWORD, OTHER];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..12 {
                // Another rotation may come between; then it is tried again.
                let (old, new) = (text(passwords[round % 2]), text(passwords[(round + 1) % 2]));
                while let Err(error) = fixture.keys().change_password(&name, &old, &new) {
                    assert_eq!(error.kind(), Kind::FunctionFailed, "{error}");
                }
            }
        });
        scope.spawn(|| {
            let mut rotations = 0;
            for round in 0.. {
                let old = text(passwords[round % 2]);
                let made = other.keys().rotate_with_passwords(&name, 0, Passwords { old: Some(&old), new: None });
                let expected = [Kind::PinIncorrect, Kind::FunctionFailed];
                assert!(made.is_ok() || expected.contains(&made.as_ref().unwrap_err().kind()), "{made:?}");
                rotations += usize::from(made.is_ok());
                if round >= 12 && rotations > 0 {
                    break;
                }
            }
        });
    });
    let versions = fixture.keys().versions(&name).unwrap();
    assert!(versions.len() > 1);
    for version in versions {
        let key = fixture.keys().unlock(&name, version.number, &text(PASSWORD), 0).unwrap();
        fixture.sign(key).unwrap();
    }
}
