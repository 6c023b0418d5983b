//! What another process, or a new initialisation, has changed is not acted on as it was before.

use std::time::Duration;

use ffi_tests::ck::*;
use ffi_tests::vendor::{CKK_SR_KMS, CKM_SR_KMS_WRAP};
use ffi_tests::{Config, Mechanism, Role, SO_PIN, Template, TestToken, USER_PIN, assert_rv, isolated, say, token};

/// More than the second after which a process has seen what another one changed.
const SEEN: Duration = Duration::from_millis(1500);

/// Destroys the key "gone", and takes rights from the others.
pub fn role_take_away(config: &str) {
    let module = token::attach(config);
    let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    session.login(CKU_USER, USER_PIN).expect("C_Login");
    let key = |label: &str| session.find(&Template::new().bytes(CKA_LABEL, label)).expect("C_FindObjects")[0];
    session.destroy(key("gone")).expect("C_DestroyObject");
    session.set(key("open"), &Template::new().bool(CKA_EXTRACTABLE, false)).expect("C_SetAttributeValue");
    session.set(key("kept"), &Template::new().bool(CKA_DESTROYABLE, false)).expect("C_SetAttributeValue");
    say("done");
    module.finalize().expect("C_Finalize");
}

#[test]
fn r19_what_another_process_took_away_is_not_copied_or_destroyed() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let make = |label| session.aes(32, label, true, &Template::new()).expect("C_GenerateKey");
        let [gone, open, kept] = ["gone", "open", "kept"].map(make);
        Role::start("take-away", &token.config_text()).succeed();
        // What was changed under the write lock counts at once.
        assert_rv!(session.destroy(kept), CKR_ACTION_PROHIBITED);
        std::thread::sleep(SEEN);
        let copy = Template::new().bool(CKA_TOKEN, false);
        assert_rv!(session.copy(gone, &copy), CKR_OBJECT_HANDLE_INVALID);
        let copied = session.copy(open, &copy).expect("C_CopyObject");
        assert!(!session.get_bool(copied, CKA_EXTRACTABLE).expect("CKA_EXTRACTABLE"), "a right came back in a copy");
    });
}

#[test]
fn a_token_that_is_initialised_again_forgets_what_it_was() {
    isolated!(|| {
        let more = "[[token]]\nlabel = \"by-itself\"\npin_source = \"kms\"".to_owned();
        let token = TestToken::with(&Config { more, ..Config::default() });
        let slot = token.module.init_token("by-itself", SO_PIN).expect("C_InitToken");
        let session = token.module.open(slot).expect("C_OpenSession");
        session.aes(32, "first", true, &Template::new()).expect("C_GenerateKey");
        session.close().expect("C_CloseSession");
        token.module.init_token_in(slot, "by-itself", SO_PIN).expect("C_InitToken");
        let session = token.module.open(slot).expect("C_OpenSession");
        let made = session.aes(32, "second", true, &Template::new());
        made.unwrap_or_else(|rv| panic!("C_GenerateKey: {rv}: {}", token.module.last_error()));
    });
}

#[test]
fn a_token_that_is_initialised_under_another_kms_wraps_under_that_one() {
    isolated!(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str| directory.path().join(name).display().to_string();
        let more = format!(
            "[kms.a]\ntype = \"local\"\nfile = \"{}\"\n[kms.b]\ntype = \"local\"\nfile = \"{}\"\n\
             [[token]]\nlabel = \"x\"\nkms = \"a\"\n[[token]]\nlabel = \"y\"\nkms = \"b\"",
            file("a.key"),
            file("b.key"),
        );
        let token = TestToken::with(&Config { more, ..Config::default() });
        let slot = token.module.init_token("x", SO_PIN).expect("C_InitToken");
        token.module.init_token_in(slot, "y", SO_PIN).expect("C_InitToken");
        let session = token.module.open(slot).expect("C_OpenSession");
        session.login(CKU_SO, SO_PIN).expect("C_Login");
        session.init_pin(USER_PIN).expect("C_InitPIN");
        session.logout().expect("C_Logout");
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        // The first KMS is retired: nothing of the token needs it any more.
        std::fs::remove_file(directory.path().join("a.key")).expect("removing the key file");
        let key = session.aes(32, "leaves", false, &Template::new()).expect("C_GenerateKey");
        let the_master = Template::class(CKO_SECRET_KEY).ulong(CKA_KEY_TYPE, CKK_SR_KMS);
        let master = session.find_one(&the_master).expect("the KMS master key");
        let wrap = Mechanism::new(CKM_SR_KMS_WRAP);
        let blob = session.wrap(&wrap, master, key).expect("C_WrapKey");
        let opened = Template::class(CKO_SECRET_KEY).ulong(CKA_KEY_TYPE, CKK_AES).bool(CKA_TOKEN, false);
        session.unwrap(&wrap, master, &blob, &opened).expect("C_UnwrapKey");
        // A process that has never seen the first KMS opens it too.
        token.module.finalize().expect("C_Finalize");
        token.initialize().expect("C_Initialize");
        let session = token.module.open(slot).expect("C_OpenSession");
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        let master = session.find_one(&the_master).expect("the KMS master key");
        session.unwrap(&wrap, master, &blob, &opened).expect("C_UnwrapKey after C_Initialize");
    });
}

/// Lets no file grow beyond a size in bytes, as on a full disk; `None` for no limit.
fn limit_files(size: Option<u64>) {
    let limit = libc::rlimit { rlim_cur: size.unwrap_or(libc::RLIM_INFINITY), rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a write beyond the limit is to fail, and not to end the process.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    // SAFETY: the structure lives.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0, "setrlimit");
}

#[test]
fn r53_wrong_pins_count_while_the_store_cannot_be_written() {
    isolated!(|| {
        let token = TestToken::with(&Config { max_attempts: 3, ..Config::default() });
        let session = token.open();
        limit_files(Some(std::fs::metadata(token.directory().join("strongroom.db-wal")).expect("the log").len()));
        for _ in 0..3 {
            assert_rv!(session.login(CKU_USER, "wrong-pin"), CKR_PIN_INCORRECT);
            assert!(token.module.last_error().contains("could not count"), "{}", token.module.last_error());
        }
        assert_rv!(session.login(CKU_USER, USER_PIN), CKR_PIN_LOCKED);
        limit_files(None);
        assert_eq!(token.flags() & CKF_USER_PIN_LOCKED, 0, "the store knows nothing of it");
        assert_rv!(session.login(CKU_USER, USER_PIN), CKR_PIN_LOCKED);
        session.login(CKU_SO, SO_PIN).expect("C_Login");
        session.init_pin("user-5678").expect("C_InitPIN");
        session.logout().expect("C_Logout");
        session.login(CKU_USER, "user-5678").expect("a new PIN is not locked");
    });
}
