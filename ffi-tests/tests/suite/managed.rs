//! Managed keys: made, found, rotated and destroyed through `SR_*`, and seen through plain PKCS #11.

use std::time::Duration;

use ffi_tests::ck::*;
use ffi_tests::clock::Clock;
use ffi_tests::vendor::*;
use ffi_tests::{Config, Mechanism, Role, Session, Template, TestToken, USER_PIN, assert_rv, isolated, say, token};

/// Half the order of secp256k1 (SEC 2, 2.4.1): the largest low s.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x5d, 0x57, 0x6e,
    0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

fn ecdsa() -> Mechanism {
    Mechanism::new(CKM_ECDSA)
}

/// The objects of a class that belong to a key.
fn of((owner, asset): Name, class: CK_OBJECT_CLASS) -> Template {
    Template::class(class).bytes(CKA_SR_OWNER, owner).bytes(CKA_SR_ASSET, asset)
}

/// Reads one field of a flat piece of JSON, as it stands there.
pub fn field<'j>(json: &'j str, name: &str) -> &'j str {
    let rest = json.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("no {name} in {json}")).1;
    rest.split([',', '}', ']']).next().expect("a value").trim_matches('"')
}

pub fn unwrap<T>(session: &Session, answer: ffi_tests::Result<T>) -> T {
    answer.unwrap_or_else(|rv| panic!("{rv}: {}", session.module.last_error()))
}

#[test]
fn a_managed_key_is_made_found_and_described() {
    isolated!(|| {
        let store = TestToken::new();
        let session = store.user();
        for (asset, prefix) in [("btc", "bc1q"), ("eth", "0x"), ("sol", ""), ("p256", ""), ("aes256", "")] {
            let name = ("user 1", asset);
            let made = unwrap(&session, session.generate_managed(name));
            assert_eq!(made.address.is_empty(), ["p256", "aes256"].contains(&asset));
            assert!(made.address.starts_with(prefix), "{}", made.address);
            assert_eq!(unwrap(&session, session.find_managed(name, 0)), made.key);
            assert_eq!(unwrap(&session, session.find_managed(name, 1)), made.key);
            let info = unwrap(&session, session.tell_managed("SR_GetKeyInfo", name));
            assert_eq!(
                [field(&info, "owner"), field(&info, "asset"), field(&info, "state")],
                ["user 1", asset, "active"]
            );
            if !made.address.is_empty() {
                assert_eq!(field(&info, "address"), made.address);
                assert_eq!(unwrap(&session, session.address(name, 0, "")), made.address);
            }
            let shown =
                if asset == "aes256" { vec![] } else { session.get(made.key, CKA_PUBLIC_KEY_INFO).expect("shown") };
            assert_eq!(made.public_key, shown);
            assert_rv!(session.generate_managed(name), CKR_ACTION_PROHIBITED);
            assert_rv!(session.get(made.key, CKA_VALUE), CKR_ATTRIBUTE_SENSITIVE);
        }
        assert!(unwrap(&session, session.address(("user 1", "btc"), 1, "p2pkh")).starts_with('1'));
        assert_rv!(session.address(("user 1", "btc"), 0, "p2tr"), CKR_ARGUMENTS_BAD);
        assert_rv!(session.address(("user 1", "p256"), 0, ""), CKR_FUNCTION_NOT_SUPPORTED);
        assert_rv!(session.generate_managed(("user 1", "doge")), CKR_ARGUMENTS_BAD);
        assert_rv!(session.generate_managed(("", "btc")), CKR_ARGUMENTS_BAD);
        assert_rv!(session.find_managed(("nobody", "btc"), 0), CKR_KEY_HANDLE_INVALID);
        assert_rv!(session.find_managed(("user 1", "btc"), 2), CKR_KEY_HANDLE_INVALID);
        // A read-only session finds, and makes nothing; without a login nothing works.
        let reader = store.module.open_read_only(store.slot).expect("C_OpenSession");
        unwrap(&reader, reader.find_managed(("user 1", "btc"), 0));
        assert_rv!(reader.generate_managed(("user 2", "btc")), CKR_SESSION_READ_ONLY);
        assert_rv!(reader.rotate_managed(("user 1", "btc"), 0), CKR_SESSION_READ_ONLY);
        session.logout().expect("C_Logout");
        assert_rv!(session.find_managed(("user 1", "btc"), 0), CKR_USER_NOT_LOGGED_IN);
        assert_rv!(session.generate_managed(("user 2", "btc")), CKR_USER_NOT_LOGGED_IN);
        // All of it is there for another process.
        store.module.finalize().expect("C_Finalize");
        store.initialize().expect("C_Initialize");
        let session = store.user();
        unwrap(&session, session.find_managed(("user 1", "sol"), 0));
    });
}

#[test]
fn a_query_for_lengths_makes_no_key() {
    isolated!(|| {
        type Generate = extern "C" fn(
            CK_SESSION_HANDLE,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            *mut CK_OBJECT_HANDLE,
            *mut u8,
            *mut CK_ULONG,
            *mut u8,
            *mut CK_ULONG,
        ) -> CK_RV;
        let store = TestToken::new();
        let session = store.user();
        let address = store.module.symbol("SR_GenerateKey").expect("an export");
        // SAFETY: the type is the header's.
        let generate = unsafe { std::mem::transmute::<usize, Generate>(address) };
        let (none, no_len) = (std::ptr::null_mut::<u8>(), std::ptr::null_mut::<CK_ULONG>());
        let (mut public_len, mut address_len, mut key, mut byte) = (0, 0, 0, 0u8);
        let (owner, asset) = (b"user".as_ptr(), b"btc".as_ptr());
        let mut call = |password: *const u8,
                        password_len,
                        public: *mut u8,
                        public_len: *mut CK_ULONG,
                        text: *mut u8,
                        text_len: *mut CK_ULONG| {
            ffi_tests::check(generate(
                session.handle,
                owner,
                4,
                asset,
                3,
                password,
                password_len,
                &mut key,
                public,
                public_len,
                text,
                text_len,
            ))
        };
        call(none, 0, none, &mut public_len, none, &mut address_len).expect("a query");
        assert!(public_len >= 550 && address_len >= 64);
        public_len = 1;
        assert_rv!(call(none, 0, &mut byte, &mut public_len, none, no_len), CKR_BUFFER_TOO_SMALL);
        assert_rv!(call(none, 0, &mut byte, no_len, none, no_len), CKR_ARGUMENTS_BAD);
        assert_rv!(call(owner, 3, none, no_len, none, no_len), CKR_PIN_LEN_RANGE);
        assert_rv!(session.find_managed(("user", "btc"), 0), CKR_KEY_HANDLE_INVALID);
        call(none, 0, none, no_len, none, no_len).expect("no output is wanted");
        assert_eq!(session.find_managed(("user", "btc"), 0).expect("it was made"), key);
    });
}

#[test]
fn r35_plain_pkcs11_sees_the_active_version_and_old_ones_by_name() {
    isolated!(|| {
        let store = TestToken::new();
        let session = store.user();
        let name = ("alice", "eth");
        let old = unwrap(&session, session.generate_managed(name)).key;
        let signature = unwrap(&session, session.sign(&ecdsa(), old, &[1; 32]));
        let (label, id) = (session.get(old, CKA_LABEL).expect("a label"), session.get(old, CKA_ID).expect("an id"));
        let new = unwrap(&session, session.rotate_managed(name, 1));
        assert_rv!(session.rotate_managed(name, 1), CKR_ACTION_PROHIBITED);
        let by_label = Template::class(CKO_PRIVATE_KEY).bytes(CKA_LABEL, &label);
        assert_eq!(session.find(&by_label).expect("a find"), [new]);
        assert_eq!(session.find(&Template::class(CKO_PRIVATE_KEY).bytes(CKA_ID, &id)).expect("a find"), [new]);
        assert_eq!(session.find(&by_label.clone().ulong(CKA_SR_VERSION, 1)).expect("a find"), [old]);
        assert_eq!(session.find(&Template::class(CKO_PUBLIC_KEY).bytes(CKA_ID, &id)).expect("a find").len(), 1);
        // A handle that is open signs on, and the old public key verifies.
        unwrap(&session, session.sign(&ecdsa(), old, &[2; 32]));
        let public = session.find_one(&of(name, CKO_PUBLIC_KEY).ulong(CKA_SR_VERSION, 1)).expect("the old public key");
        session.verify(&ecdsa(), public, &[1; 32], &signature).expect("an old signature verifies");
        assert_eq!(session.get_ulong(old, CKA_SR_STATE).expect("a state"), SR_STATE_ROTATED);
        // What belongs to versions is not the caller's to set.
        assert_rv!(session.set(new, &Template::new().ulong(CKA_SR_VERSION, 9)), CKR_ATTRIBUTE_READ_ONLY);
        assert_rv!(session.create(&Template::class(CKO_DATA).bytes(CKA_SR_OWNER, "a")), CKR_ATTRIBUTE_TYPE_INVALID);
        assert_rv!(session.aes(32, "a", true, &Template::new().ulong(CKA_SR_STATE, 1)), CKR_ATTRIBUTE_READ_ONLY);
        assert_rv!(session.destroy(new), CKR_ACTION_PROHIBITED);
        assert_rv!(session.destroy(old), CKR_ACTION_PROHIBITED);
        assert_rv!(session.copy(new, &Template::new()), CKR_ACTION_PROHIBITED);
    });
}

#[test]
fn r34_states_decide_what_a_version_does() {
    isolated!(|| {
        let store = TestToken::new();
        let session = store.user();
        let name = ("alice", "aes256");
        let old = unwrap(&session, session.generate_managed(name)).key;
        let gcm = Mechanism::gcm(CKM_AES_GCM, &[1; 12], b"", 128);
        let ciphertext = unwrap(&session, session.encrypt(&gcm, old, b"secret"));
        assert_rv!(session.set_version_state(name, 1, SR_STATE_ROTATED), CKR_ACTION_PROHIBITED);
        assert_rv!(session.set_version_state(name, 1, 4), CKR_ARGUMENTS_BAD);
        let new = unwrap(&session, session.rotate_managed(name, 0));
        assert_rv!(session.encrypt(&gcm, old, b"secret"), CKR_KEY_FUNCTION_NOT_PERMITTED);
        assert!(
            store.module.last_error().contains("version 1 of the aes256 key of alice"),
            "{}",
            store.module.last_error()
        );
        assert_eq!(unwrap(&session, session.decrypt(&gcm, old, &ciphertext)), b"secret");
        unwrap(&session, session.encrypt(&gcm, new, b"secret"));
        // Disabled, it does nothing until it is brought back.
        unwrap(&session, session.set_version_state(name, 1, SR_STATE_DISABLED));
        assert_rv!(session.decrypt(&gcm, old, &ciphertext), CKR_KEY_FUNCTION_NOT_PERMITTED);
        unwrap(&session, session.set_version_state(name, 1, SR_STATE_ROTATED));
        assert_eq!(unwrap(&session, session.decrypt(&gcm, old, &ciphertext)), b"secret");
        assert_rv!(session.set_version_state(name, 1, SR_STATE_ACTIVE), CKR_ACTION_PROHIBITED);
        assert_rv!(session.set_version_state(name, 3, SR_STATE_DISABLED), CKR_KEY_HANDLE_INVALID);
        // Destroying asks twice.
        let versions = unwrap(&session, session.tell_managed("SR_ListVersions", name));
        let confirmation = field(&versions, "unique_id").to_owned();
        assert_eq!(session.get(old, CKA_UNIQUE_ID).expect("an id"), confirmation.as_bytes());
        assert_rv!(session.destroy_version(name, 1, "yes"), CKR_ARGUMENTS_BAD);
        assert_rv!(session.destroy_version(name, 1, ""), CKR_ARGUMENTS_BAD);
        assert_rv!(session.destroy_version(name, 2, &confirmation), CKR_ACTION_PROHIBITED);
        unwrap(&session, session.destroy_version(name, 1, &confirmation));
        assert_rv!(session.decrypt(&gcm, old, &ciphertext), CKR_KEY_HANDLE_INVALID);
        assert_rv!(session.find_managed(name, 1), CKR_KEY_HANDLE_INVALID);
        assert_eq!(unwrap(&session, session.tell_managed("SR_ListVersions", name)).matches("\"version\":").count(), 1);
    });
}

#[test]
fn r30_recoverable_signatures_have_65_bytes_and_a_low_s() {
    isolated!(|| {
        let store = TestToken::new();
        let session = store.user();
        let key = unwrap(&session, session.generate_managed(("alice", "eth"))).key;
        let public = session.find_one(&of(("alice", "eth"), CKO_PUBLIC_KEY)).expect("the public key");
        let mut seen = [false; 2];
        for round in 0..64 {
            let digest = [round; 32];
            let signature = unwrap(&session, session.sign_recoverable(key, &digest));
            assert_eq!(signature.len(), 65);
            assert!(signature[32..64] <= HALF_ORDER[..]);
            seen[usize::from(signature[64])] = true;
            session.verify(&ecdsa(), public, &digest, &signature[..64]).expect("C_Verify");
        }
        assert_eq!(seen, [true; 2]);
        for len in [0, 31, 33, 64] {
            assert_rv!(session.sign_recoverable(key, &vec![1; len]), CKR_DATA_LEN_RANGE);
        }
        let (_, other) = session.p256("other", false);
        assert_rv!(session.sign_recoverable(other, &[1; 32]), CKR_KEY_TYPE_INCONSISTENT);
        assert_rv!(session.sign_recoverable(public, &[1; 32]), CKR_KEY_FUNCTION_NOT_PERMITTED);
        assert_rv!(session.sign_recoverable(77, &[1; 32]), CKR_KEY_HANDLE_INVALID);
    });
}

#[test]
fn rules_of_rotation_are_told_and_set() {
    isolated!(|| {
        let more = "[rotation]\nrotation_interval_days = 30\nmax_key_age_days = 60\n".to_owned();
        let store = TestToken::with(&Config { more, ..Config::default() });
        let session = store.user();
        let name = ("alice", "ed25519");
        unwrap(&session, session.generate_managed(name));
        for key in [name, ("", "")] {
            let policy = unwrap(&session, session.tell_managed("SR_GetRotationPolicy", key));
            let fields = ["rotation_interval_days", "max_key_age_days", "auto_rotate"]
                .map(|name| field(&policy, name).to_owned());
            assert_eq!(fields, ["30", "60", "true"]);
        }
        assert_rv!(session.set_rotation_policy(name, [60, 60, 0], 1), CKR_ARGUMENTS_BAD);
        assert_rv!(session.set_rotation_policy(name, [1, 60, 0], 2), CKR_ARGUMENTS_BAD);
        assert_rv!(session.set_rotation_policy(name, [0, 60, 0], 1), CKR_ARGUMENTS_BAD);
        assert_rv!(session.set_rotation_policy(name, [CK_ULONG::MAX, 0, 0], 0), CKR_ARGUMENTS_BAD);
        assert_rv!(session.set_rotation_policy(name, [1, 2, 1 << 32], 0), CKR_ARGUMENTS_BAD);
        assert_rv!(session.set_rotation_policy(("bob", "ed25519"), [1, 2, 0], 1), CKR_KEY_HANDLE_INVALID);
        unwrap(&session, session.set_rotation_policy(name, [7, 0, 5], 0));
        let key = unwrap(&session, session.rotate_managed(name, 1));
        let policy = unwrap(&session, session.tell_managed("SR_GetRotationPolicy", name));
        assert_eq!([field(&policy, "rotation_interval_days"), field(&policy, "max_key_uses")], ["7", "5"]);
        let info = unwrap(&session, session.tell_managed("SR_GetKeyInfo", name));
        let due: u64 = field(&info, "next_rotation").parse().expect("a time");
        let created: u64 = field(&info, "created").parse().expect("a time");
        assert_eq!(due - created, 7 * 86_400);
        assert_eq!(session.get_ulong(key, CKA_SR_NEXT_ROTATION).expect("a time"), due);
        assert_eq!(unwrap(&session, session.rotate_due(0)), [0, 0, 0]);
    });
}

/// A session of a helper process, with the user logged in.
pub fn helper(argument: &str) -> Session {
    let module = token::attach(argument);
    let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    unwrap(&session, session.login(CKU_USER, USER_PIN));
    session
}

/// Makes a key that others make at the same time.
pub fn role_make_same(argument: &str) {
    let session = helper(argument);
    let made = (0..20).filter(|round| session.generate_managed((&format!("user {round}"), "p256")).is_ok()).count();
    say(&made.to_string());
}

#[test]
fn of_eight_who_make_a_key_at_once_one_does() {
    isolated!(300, || {
        let store = TestToken::new();
        let helpers: Vec<_> = (0..8).map(|_| Role::start("make-same", &store.config_text())).collect();
        let made = helpers.into_iter().map(|helper| {
            let lines = helper.succeed();
            lines.last().expect("a count").parse::<u64>().expect("a number")
        });
        assert_eq!(made.sum::<u64>(), 20);
        let session = store.user();
        for round in 0..20 {
            let owner = format!("user {round}");
            assert_eq!(session.find(&of((&owner, "p256"), CKO_PRIVATE_KEY)).expect("a find").len(), 1);
        }
    });
}

/// Rotates what is due.
pub fn role_rotate_due(argument: &str) {
    let session = helper(argument);
    say("ready");
    let mut line = String::new();
    let [rotated, left, failed] = unwrap(&session, session.rotate_due(0));
    line.push_str(&format!("{rotated} {left} {failed}"));
    say(&line);
}

/// Tries to use a key that is too old.
pub fn role_use_old(argument: &str) {
    let session = helper(argument);
    let key = unwrap(&session, session.find_managed(("user 0", "p256"), 0));
    assert_rv!(session.sign_init(&ecdsa(), key), CKR_KEY_FUNCTION_NOT_PERMITTED);
    let text = session.module.last_error();
    assert!(text.contains("max_key_age_days") && text.contains("SR_RotateKey"), "{text}");
    let public = session.find_one(&of(("user 0", "p256"), CKO_PUBLIC_KEY)).expect("the public key");
    session.verify_init(&ecdsa(), public).expect("it verifies for ever");
    assert!(session.verify_once(&[1; 32], &[1; 64]).is_err());
    let new = unwrap(&session, session.rotate_managed(("user 0", "p256"), 1));
    unwrap(&session, session.sign(&ecdsa(), new, &[1; 32]));
}

#[test]
fn r33_eight_processes_rotate_each_of_a_thousand_due_keys_once() {
    isolated!(600, || {
        const KEYS: u64 = 1000;
        let more = "[rotation]\nscheduler = false\n".to_owned();
        let store = TestToken::with(&Config { more, ..Config::default() });
        let session = store.user();
        for count in 0..KEYS {
            unwrap(&session, session.generate_managed((&format!("user {count}"), "p256")));
        }
        assert_eq!(unwrap(&session, session.rotate_due(0)), [0, 0, 0]);
        let clock = Clock::build(store.directory());
        let helpers: Vec<_> = (0..8).map(|_| clock.start(91, "rotate-due", &store.config_text())).collect();
        let mut rotated = 0;
        for helper in helpers {
            let lines = helper.succeed();
            let numbers: Vec<u64> =
                lines.last().expect("a report").split(' ').map(|number| number.parse().expect("a number")).collect();
            assert_eq!(numbers[1..], [0, 0], "{lines:?}");
            rotated += numbers[0];
        }
        assert_eq!(rotated, KEYS, "each key was rotated by one process");
        for count in 0..KEYS {
            let owner = format!("user {count}");
            let versions = unwrap(&session, session.tell_managed("SR_ListVersions", (&owner, "p256")));
            assert_eq!(versions.matches("\"version\":").count(), 2, "{versions}");
            assert_eq!(versions.matches("\"state\":\"active\"").count(), 1, "{versions}");
        }
    });
}

#[test]
fn past_its_age_a_key_signs_no_more_until_it_is_rotated() {
    isolated!(|| {
        let store = TestToken::new();
        let session = store.user();
        unwrap(&session, session.generate_managed(("user 0", "p256")));
        Clock::build(store.directory()).start(366, "use-old", &store.config_text()).succeed();
    });
}

/// Rotates a key until it is killed.
pub fn role_rotate(argument: &str) {
    let session = helper(argument);
    say("ready");
    loop {
        unwrap(&session, session.rotate_managed(("alice", "btc"), 0));
    }
}

#[test]
fn r33_kill_nine_in_a_rotation_leaves_the_old_or_the_new_version() {
    isolated!(600, || {
        let store = TestToken::new();
        let session = store.user();
        let name = ("alice", "btc");
        unwrap(&session, session.generate_managed(name));
        for round in 0..200u64 {
            let mut child = Role::start("rotate", &store.config_text());
            child.expect("ready");
            std::thread::sleep(Duration::from_micros(100 + round * 7919 % 60_000));
            child.kill();
            let (_, _, stderr) = child.finish();
            assert!(!stderr.contains("panicked"), "round {round}: {}", ffi_tests::isolate::tail(&stderr));
            // One active version, with both halves, which signs.
            let key = unwrap(&session, session.find_managed(name, 0));
            let halves = [CKO_PRIVATE_KEY, CKO_PUBLIC_KEY].map(|class| session.find(&of(name, class)).expect("a find"));
            assert_eq!(halves.each_ref().map(Vec::len), [1, 1], "round {round}");
            let signature = unwrap(&session, session.sign(&ecdsa(), key, &[1; 32]));
            session.verify(&ecdsa(), halves[1][0], &[1; 32], &signature).expect("both halves are of one version");
        }
        // And every version before it has both halves too.
        let versions =
            session.get_ulong(unwrap(&session, session.find_managed(name, 0)), CKA_SR_VERSION).expect("a number");
        for class in [CKO_PRIVATE_KEY, CKO_PUBLIC_KEY] {
            let rotated = session.find(&of(name, class).ulong(CKA_SR_STATE, SR_STATE_ROTATED)).expect("a find");
            assert_eq!(rotated.len() as u64, versions - 1);
        }
        assert!(versions > 100, "only {versions} versions: the kills came before the rotations");
    });
}

#[test]
fn r32_a_sealed_ciphertext_finds_its_version_and_no_other_is_tried() {
    isolated!(|| {
        let store = TestToken::new();
        let session = store.user();
        let (sealed, name) = (Mechanism::new(CKM_SR_SEALED), ("alice", "aes256"));
        let mut key = unwrap(&session, session.generate_managed(name)).key;
        let first = key;
        let mut ciphertexts = Vec::new();
        for version in 1..=3u8 {
            ciphertexts.push(unwrap(&session, session.encrypt(&sealed, key, &[version; 100])));
            key = unwrap(&session, session.rotate_managed(name, version.into()));
        }
        // By the active key, as by one of the others.
        for handle in [key, first] {
            for (version, ciphertext) in (1u8..).zip(&ciphertexts) {
                assert_eq!(ciphertext.len(), 100 + 58);
                assert_eq!(ciphertext[22..30], u64::from(version).to_be_bytes());
                assert_eq!(unwrap(&session, session.decrypt(&sealed, handle, ciphertext)), [version; 100]);
            }
        }
        assert_rv!(session.encrypt(&sealed, first, b"new"), CKR_KEY_FUNCTION_NOT_PERMITTED);
        // In parts, and in place.
        session.encrypt_init(&sealed, key).expect("C_EncryptInit");
        let mut parts = unwrap(&session, session.encrypt_update(b"two "));
        parts.extend(unwrap(&session, session.encrypt_update(b"parts")));
        parts.extend(unwrap(&session, session.encrypt_final()));
        session.decrypt_init(&sealed, first).expect("C_DecryptInit");
        for part in parts.chunks(7) {
            assert!(unwrap(&session, session.decrypt_update(part)).is_empty());
        }
        assert_eq!(unwrap(&session, session.decrypt_final()), b"two parts");
        // A version that never was, of another key, altered, disabled, destroyed.
        let mut forged = ciphertexts[0].clone();
        forged[29] = 9;
        assert_rv!(session.decrypt(&sealed, key, &forged), CKR_ENCRYPTED_DATA_INVALID);
        assert!(store.module.last_error().contains("version 9"), "{}", store.module.last_error());
        forged[29] = 2;
        assert_rv!(session.decrypt(&sealed, key, &forged), CKR_ENCRYPTED_DATA_INVALID);
        assert_rv!(session.decrypt(&sealed, key, &ciphertexts[0][..57]), CKR_ENCRYPTED_DATA_LEN_RANGE);
        let other = unwrap(&session, session.generate_managed(("bob", "aes256"))).key;
        assert_rv!(session.decrypt(&sealed, other, &ciphertexts[0]), CKR_ENCRYPTED_DATA_INVALID);
        unwrap(&session, session.set_version_state(name, 2, SR_STATE_DISABLED));
        assert_rv!(session.decrypt(&sealed, key, &ciphertexts[1]), CKR_KEY_FUNCTION_NOT_PERMITTED);
        let versions = unwrap(&session, session.tell_managed("SR_ListVersions", name));
        unwrap(&session, session.destroy_version(name, 1, field(&versions, "unique_id")));
        assert_rv!(session.decrypt(&sealed, key, &ciphertexts[0]), CKR_ENCRYPTED_DATA_INVALID);
        assert_eq!(unwrap(&session, session.decrypt(&sealed, key, &ciphertexts[2])), [3; 100]);
        // A key that is not managed has no name to write.
        let plain = session.aes(32, "plain", false, &Template::new()).expect("an AES key");
        assert_rv!(session.encrypt_init(&sealed, plain), CKR_KEY_FUNCTION_NOT_PERMITTED);
        assert_rv!(session.decrypt_init(&sealed, plain), CKR_KEY_FUNCTION_NOT_PERMITTED);
    });
}
