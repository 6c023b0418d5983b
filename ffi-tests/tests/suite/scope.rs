//! Managed keys with a data key of their own (`scope = "key"` of a KMS): what the KMS is asked, and what becomes of them without it.

use std::fs;
use std::time::Duration;

use ffi_tests::ck::*;
use ffi_tests::vendor::*;
use ffi_tests::{Config, Mechanism, Role, Session, Template, TestToken, USER_PIN, assert_rv, isolated, say, token};
use rusqlite::{Connection, params};

use crate::hsm::with_softhsm_and;
use crate::managed::{field, unwrap};

/// Two local providers of the scope of keys, one of them the token's.
const TWO: &str = "[kms.first]\ntype = \"local\"\nscope = \"key\"\n[kms.second]\ntype = \"local\"\nscope = \"key\"\n\
                   [[token]]\nlabel = \"test\"\nkms = \"first\"\n";
/// How many keys are rotated and moved.
const KEYS: usize = 24;

fn two() -> TestToken {
    TestToken::with(&Config { more: TWO.to_owned(), ..Config::default() })
}

fn again(store: &TestToken) -> Session {
    store.module.finalize().expect("C_Finalize");
    store.initialize().expect("C_Initialize");
    store.user()
}

fn owner(number: usize) -> String {
    format!("owner {number}")
}

fn key(session: &Session, number: usize) -> CK_OBJECT_HANDLE {
    unwrap(session, session.find_managed((&owner(number), "p256"), 0))
}

fn sign(session: &Session, key: CK_OBJECT_HANDLE) -> ffi_tests::Result<Vec<u8>> {
    session.sign(&Mechanism::new(CKM_ECDSA), key, &[7; 32])
}

/// Signs with each of some keys and verifies.
fn all_sign(session: &Session, count: usize) {
    for number in 0..count {
        let signature = unwrap(session, sign(session, key(session, number)));
        let public = Template::class(CKO_PUBLIC_KEY).bytes(CKA_SR_OWNER, owner(number)).bytes(CKA_SR_ASSET, "p256");
        let public = session.find_one(&public).expect("the public key");
        session.verify(&Mechanism::new(CKM_ECDSA), public, &[7; 32], &signature).expect("C_Verify");
    }
}

fn make(session: &Session, count: usize) {
    for number in 0..count {
        unwrap(session, session.generate_managed((&owner(number), "p256")));
    }
}

#[test]
fn each_key_is_one_request_a_login_and_a_signature_is_none() {
    isolated!(120, || {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let store = with_softhsm_and(folder.path(), "scope = \"key\"\n");
        make(&store.user(), 3);
        let session = again(&store);
        // To ask is a request itself.
        let (mut before, mut questions) = (0, 0);
        let mut asked = || {
            let status = session.kms_status().expect("SR_GetKmsStatus");
            questions += 1;
            let requests = field(&status, "requests").parse::<u64>().expect("a count") - questions;
            requests - std::mem::replace(&mut before, requests)
        };
        assert_eq!(asked(), 1, "the token");
        for number in 0..3 {
            let key = key(&session, number);
            assert!(session.get_bool(key, CKA_SR_DATA_KEY).expect("C_GetAttributeValue"));
            let info = unwrap(&session, session.tell_managed("SR_GetKeyInfo", (&owner(number), "p256")));
            assert!(info.contains("\"data_key\":{\"key\":\"") && info.contains("\"provider\":\"hsm\""), "{info}");
            assert_eq!(asked(), 0, "looking at a key");
            unwrap(&session, sign(&session, key));
            assert_eq!(asked(), 1, "the first use of key {number}");
        }
        for round in 0..1000 {
            unwrap(&session, sign(&session, key(&session, round % 3)));
        }
        assert_eq!(asked(), 0, "1,000 signatures");
        unwrap(&session, session.rotate_managed((&owner(0), "p256"), 0));
        assert_eq!(asked(), 1, "a new version");
    });
}

#[test]
fn without_the_master_key_a_key_says_so_and_loses_nothing() {
    isolated!(|| {
        let store = two();
        let session = store.user();
        make(&session, 3);
        let session = again(&store);
        unwrap(&session, sign(&session, key(&session, 0)));
        let (file, away) = (store.directory().join("first-master.key"), store.directory().join("away"));
        let other = "strongroom-local-kms 1\n";
        fs::rename(&file, &away).expect("renaming");
        for (state, word) in [(None, "first-master.key"), (Some(other), "first-master.key")] {
            if let Some(text) = state {
                fs::write(&file, text).expect("writing");
                fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
            }
            let (opened, closed) = (key(&session, 0), key(&session, 1));
            assert_rv!(sign(&session, closed), CKR_DEVICE_ERROR);
            let text = store.module.last_error();
            assert!(text.contains("the data key of object") && text.contains(word), "{text}");
            // A local KMS without its file makes one of its own, which must not get a key that is lost when the right one is back.
            assert_rv!(session.generate_managed(("another", "p256")), CKR_DEVICE_ERROR);
            let text = store.module.last_error();
            assert!(text.contains("no key was made") || text.contains(word), "{text}");
            assert_rv!(session.rotate_managed((&owner(1), "p256"), 0), CKR_DEVICE_ERROR);
            // What is open goes on.
            unwrap(&session, sign(&session, opened));
        }
        fs::rename(&away, &file).expect("renaming");
        all_sign(&session, 3);
        assert_rv!(session.find_managed(("another", "p256"), 0), CKR_KEY_HANDLE_INVALID);
        let session = again(&store);
        all_sign(&session, 3);
    });
}

#[test]
fn what_was_altered_in_the_store_is_told_and_what_was_not_opens() {
    isolated!(120, || {
        let store = two();
        make(&store.user(), 1);
        store.module.finalize().expect("C_Finalize");
        let database = || Connection::open(store.database()).expect("the database");
        let query = "SELECT id, secret FROM object WHERE secret IS NOT NULL";
        let (id, secret): (i64, Vec<u8>) = database()
            .query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)))
            .expect("the one object with a secret");
        let write = |secret: &[u8]| {
            let changed = database().execute("UPDATE object SET secret = ?1 WHERE id = ?2", params![secret, id]);
            assert_eq!(changed.expect("UPDATE"), 1);
        };
        // Header, names, wrapped data key, nonce, ciphertext and tag all lie within what the token key seals.
        for place in (0..secret.len()).step_by(7) {
            let mut altered = secret.clone();
            altered[place] ^= 1;
            write(&altered);
            store.initialize().expect("C_Initialize");
            let session = store.user();
            assert_rv!(sign(&session, key(&session, 0)), CKR_DEVICE_ERROR);
            let text = store.module.last_error();
            assert!(!text.contains("internal"), "byte {place}: {text}");
            store.module.finalize().expect("C_Finalize");
        }
        write(&secret);
        store.initialize().expect("C_Initialize");
        all_sign(&store.user(), 1);
    });
}

#[test]
fn a_wrong_scope_is_told() {
    isolated!(|| {
        let store = two();
        store.module.finalize().expect("C_Finalize");
        let text = fs::read_to_string(&store.config).expect("the configuration");
        fs::write(&store.config, text.replacen("scope = \"key\"", "scope = \"keys\"", 1)).expect("the configuration");
        store.initialize().expect("C_Initialize");
        let status = store.module.last_error();
        let slots = store.module.slots(true).expect("C_GetSlotList");
        assert!(slots.is_empty(), "{status}");
    });
}

/// Rotates the master key and moves the token to and fro until it is killed.
pub fn role_rewrap_keys(argument: &str) {
    let module = token::attach(argument);
    let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    session.login(CKU_USER, USER_PIN).unwrap_or_else(|rv| panic!("C_Login: {rv}: {}", module.last_error()));
    say("ready");
    for step in 0u64.. {
        match step % 3 {
            0 => unwrap(&session, session.rotate_master_key()),
            1 => unwrap(&session, session.move_kms("second")),
            _ => unwrap(&session, session.move_kms("first")),
        }
    }
}

#[test]
fn kill_nine_in_a_rotation_or_move_is_finished_by_the_next_one() {
    isolated!(600, || {
        let store = two();
        make(&store.user(), KEYS);
        store.module.finalize().expect("C_Finalize");
        for round in 0..200u64 {
            let mut child = Role::start("rewrap-keys", &store.config_text());
            child.expect("ready");
            std::thread::sleep(Duration::from_millis(round * 37 % 400));
            child.kill();
            let (_, _, stderr) = child.finish();
            assert!(!stderr.contains("panicked"), "round {round}: {}", ffi_tests::isolate::tail(&stderr));
            if round % 10 == 0 {
                // Whatever is under which version or KMS, all of it opens.
                store.initialize().expect("C_Initialize");
                all_sign(&store.user(), KEYS);
                store.module.finalize().expect("C_Finalize");
            }
        }
        store.initialize().expect("C_Initialize");
        let session = store.user();
        unwrap(&session, session.move_kms("second"));
        store.module.finalize().expect("C_Finalize");
        // Nothing is left that needs the old master key.
        fs::remove_file(store.directory().join("first-master.key")).expect("removing");
        let text = fs::read_to_string(&store.config).expect("the configuration");
        fs::write(&store.config, text.replace("kms = \"first\"", "kms = \"second\"")).expect("the configuration");
        store.initialize().expect("C_Initialize");
        all_sign(&store.user(), KEYS);
    });
}
