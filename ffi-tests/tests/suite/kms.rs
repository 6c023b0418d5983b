//! The KMS of a token in use, with the `local` provider: tokens that open by themselves, master keys that rotate, tokens that move.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use ffi_tests::ck::*;
use ffi_tests::vendor::{CKK_SR_KMS, CKM_SR_KMS_WRAP};
use ffi_tests::{
    Config, Mechanism, Role, SO_PIN, Session, Template, TestToken, USER_PIN, assert_rv, isolated, say, token,
};

/// Two local providers, one of them the default.
const TWO: &str =
    "[kms.first]\ntype = \"local\"\n[kms.second]\ntype = \"local\"\n[[token]]\nlabel = \"test\"\nkms = \"first\"\n";

fn two() -> TestToken {
    TestToken::with(&Config { more: TWO.to_owned(), ..Config::default() })
}

/// Signs with the key of this label and verifies.
fn signs(session: &Session, label: &str) {
    let find = |class| session.find_one(&Template::class(class).bytes(CKA_LABEL, label)).expect("the key");
    let (public, private) = (find(CKO_PUBLIC_KEY), find(CKO_PRIVATE_KEY));
    let signature = session.sign(&Mechanism::new(CKM_ECDSA), private, &[7; 32]).expect("C_Sign");
    session.verify(&Mechanism::new(CKM_ECDSA), public, &[7; 32], &signature).expect("C_Verify");
}

/// An AES key that may leave wrapped.
fn extractable(session: &Session) -> CK_OBJECT_HANDLE {
    session.aes(32, "leaves", false, &Template::new()).expect("an AES key")
}

#[test]
fn r61_a_token_without_a_pin_opens_by_itself() {
    isolated!(|| {
        let more = "[[token]]\nlabel = \"machine\"\npin_source = \"kms\"\n".to_owned();
        let store = TestToken::with(&Config { more, ..Config::default() });
        let module = store.module;
        let slot = module.init_token("machine", SO_PIN).expect("C_InitToken");
        let flags = module.token_info(slot).expect("C_GetTokenInfo").flags;
        assert_eq!(flags & (CKF_LOGIN_REQUIRED | CKF_USER_PIN_INITIALIZED), CKF_USER_PIN_INITIALIZED, "{flags:#x}");

        let session = module.open(slot).expect("C_OpenSession");
        assert_eq!(session.info().expect("C_GetSessionInfo").state, CKS_RW_USER_FUNCTIONS);
        session.p256("machine key", true);
        signs(&session, "machine key");
        // a login on a slot that needs none is harmless, and a logout leaves it open.
        assert_rv!(session.login(CKU_USER, "any PIN"), CKR_USER_ALREADY_LOGGED_IN);
        assert_rv!(session.login_without_pin(CKU_USER), CKR_USER_ALREADY_LOGGED_IN);
        session.logout().expect("C_Logout");
        signs(&session, "machine key");
        // Nobody could give the PIN that such a key asks for, or change it.
        let asks = Template::new().bool(CKA_ALWAYS_AUTHENTICATE, true).bool(CKA_SIGN, true);
        let p256 = Template::new().bytes(CKA_EC_PARAMS, ffi_tests::template::curve::P256);
        let generate = Mechanism::new(CKM_EC_KEY_PAIR_GEN);
        assert_rv!(session.generate_pair(&generate, &p256, &asks), CKR_TEMPLATE_INCONSISTENT);
        assert!(module.last_error().contains("CKA_ALWAYS_AUTHENTICATE"), "{}", module.last_error());
        assert_rv!(session.set_pin("any PIN", "another PIN"), CKR_USER_PIN_NOT_INITIALIZED);
        session.close().expect("C_CloseSession");
        signs(&module.open(slot).expect("C_OpenSession"), "machine key");

        // The SO needs no logout of a user who has not logged in.
        let session = module.open(slot).expect("C_OpenSession");
        let reader = module.open_read_only(slot).expect("C_OpenSession");
        assert_rv!(session.login(CKU_SO, SO_PIN), CKR_SESSION_READ_ONLY_EXISTS);
        reader.close().expect("C_CloseSession");
        assert_rv!(session.login(CKU_SO, "wrong-pin"), CKR_PIN_INCORRECT);
        signs(&session, "machine key");
        let private = Template::class(CKO_PRIVATE_KEY).bytes(CKA_LABEL, "machine key");
        let key = session.find(&private).expect("C_FindObjects")[0];
        session.sign_init(&Mechanism::new(CKM_ECDSA), key).expect("C_SignInit");
        session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
        assert_eq!(session.info().expect("C_GetSessionInfo").state, CKS_RW_SO_FUNCTIONS);
        assert_rv!(session.sign_once(&[7; 32]).map(|_| ()), CKR_OPERATION_NOT_INITIALIZED);
        assert_eq!(session.find(&private).expect("C_FindObjects"), []);
        session.logout().expect("C_Logout");
        assert_rv!(session.sign_init(&Mechanism::new(CKM_ECDSA), key), CKR_KEY_HANDLE_INVALID);
        assert_eq!(session.info().expect("C_GetSessionInfo").state, CKS_RW_PUBLIC_SESSION);
        session.login_without_pin(CKU_USER).expect("R-60: the token opens again");
        signs(&session, "machine key");
        session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
        session.logout().expect("C_Logout");
        session.login(CKU_USER, "any PIN").expect("R-60: any PIN will do where there is none");
        session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
        module.close_all(slot).expect("C_CloseAllSessions ends the login of the SO");
        signs(&module.open(slot).expect("C_OpenSession"), "machine key");

        // The other token asks for its PIN as before.
        let other = store.open();
        assert_eq!(other.info().expect("C_GetSessionInfo").state, CKS_RW_PUBLIC_SESSION);
        module.finalize().expect("C_Finalize");
        store.initialize().expect("C_Initialize");
        signs(&module.open(slot).expect("C_OpenSession"), "machine key");

        // Without the master key the slot tells so when it is used, and the others go on.
        module.finalize().expect("C_Finalize");
        let key_file = store.directory().join("local-master.key");
        fs::rename(&key_file, store.directory().join("away")).expect("renaming");
        store.initialize().expect("C_Initialize");
        assert!(module.slots(true).expect("C_GetSlotList").contains(&slot));
        assert_rv!(module.open(slot), CKR_DEVICE_ERROR);
        let text = module.last_error();
        assert!(text.contains("`machine`") && text.contains("local-master.key"), "{text}");
        store.open();
    });
}

#[test]
fn no_new_master_key_takes_the_place_of_one_that_is_away() {
    isolated!(|| {
        let store = TestToken::with(&Config { more: TWO.to_owned(), ..Config::default() });
        let session = store.user();
        session.p256("key", true);
        let (key_file, away) = (store.directory().join("first-master.key"), store.directory().join("away"));
        fs::rename(&key_file, &away).expect("a disk that is not mounted");
        let module = store.module;
        // What is open goes on, and makes no key either.
        signs(&session, "key");
        assert_rv!(session.wrap_under_kms(extractable(&session)), CKR_DEVICE_ERROR);
        assert_rv!(session.rotate_master_key(), CKR_DEVICE_ERROR);
        module.finalize().expect("C_Finalize");
        store.initialize().expect("C_Initialize");
        let again = fs::read_to_string(&store.config).expect("the configuration");
        fs::write(&store.config, format!("{again}[[token]]\nlabel = \"more\"\nkms = \"first\"\n"))
            .expect("the configuration");
        module.finalize().expect("C_Finalize");
        store.initialize().expect("C_Initialize");
        assert_rv!(module.init_token("more", SO_PIN), CKR_DEVICE_ERROR);
        let text = module.last_error();
        assert!(text.contains("first-master.key") && text.contains("`test`") && text.contains("mount"), "{text}");
        assert!(!key_file.exists(), "no key was made");
        // Under a provider of another file likewise, since a token is under one of this type that does not open.
        assert_rv!(module.init_token("other", SO_PIN), CKR_DEVICE_ERROR);
        fs::rename(&away, &key_file).expect("the disk is back");
        for label in ["more", "other"] {
            module.init_token(label, SO_PIN).unwrap_or_else(|rv| panic!("{rv}: {}", module.last_error()));
        }
        signs(&store.user(), "key");
    });
}

#[test]
fn r61_a_pin_from_the_configuration_opens_the_token() {
    isolated!(|| {
        let store = TestToken::new();
        store.user().p256("key", true);
        store.module.finalize().expect("C_Finalize");
        let pin = store.directory().join("pin");
        let text = fs::read_to_string(&store.config).expect("the configuration");
        fs::write(
            &store.config,
            format!("{text}[[token]]\nlabel = \"test\"\npin_source = \"file:{}\"\n", pin.display()),
        )
        .expect("the configuration");
        for (content, mode, outcome) in [
            (None, 0, "cannot be read"),
            (Some("wrong-pin"), 0o644, "everybody may use"),
            (Some(""), 0o600, "is empty"),
        ] {
            if let Some(content) = content {
                fs::write(&pin, content).expect("the PIN");
                fs::set_permissions(&pin, fs::Permissions::from_mode(mode)).expect("the PIN's mode");
            }
            store.initialize().expect("C_Initialize");
            let answer = store.module.open(store.slot).map(|_| ());
            let text = store.module.last_error();
            assert!(answer.is_err() && text.contains(outcome) && text.contains("`test`"), "{answer:?}: {text}");
            store.module.finalize().expect("C_Finalize");
        }
        fs::write(&pin, format!("{USER_PIN}\n")).expect("the PIN");
        store.initialize().expect("C_Initialize");
        signs(&store.open(), "key");
        assert_eq!(store.module.token_info(store.slot).expect("C_GetTokenInfo").flags & CKF_LOGIN_REQUIRED, 0);
    });
}

#[test]
fn r20_an_outdated_pin_of_the_configuration_locks_nobody_out() {
    isolated!(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let (pin, log) = (directory.path().join("pin"), directory.path().join("log"));
        let put = |text: &str| {
            fs::write(&pin, text).expect("the PIN");
            fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).expect("the PIN's mode");
        };
        put(USER_PIN);
        let (source, file) = (pin.display(), log.display());
        let more = format!("[log]\nfile = \"{file}\"\n[[token]]\nlabel = \"test\"\npin_source = \"file:{source}\"\n");
        let store = TestToken::with(&Config { max_attempts: 3, more, ..Config::default() });
        let told = || fs::read_to_string(&log).map_or(0, |log| log.matches("does not open by itself").count());
        let state = |session: &Session| session.info().expect("C_GetSessionInfo").state;
        let pin_flags = CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED | CKF_LOGIN_REQUIRED;
        store.open().p256("key", true);
        assert_eq!(store.flags() & pin_flags, 0);

        // However often it is opened and started anew, the last try is left, and each process says so once.
        put("an-old-pin");
        let low = CKF_USER_PIN_COUNT_LOW | CKF_LOGIN_REQUIRED;
        for (round, flags) in [low, low | CKF_USER_PIN_FINAL_TRY, low | CKF_USER_PIN_FINAL_TRY].iter().enumerate() {
            store.module.finalize().expect("C_Finalize");
            store.initialize().expect("C_Initialize");
            for _ in 0..3 {
                assert_eq!(state(&store.open()), CKS_RW_PUBLIC_SESSION);
            }
            assert_eq!((store.flags() & pin_flags, told()), (*flags, round + 1), "round {round}");
        }
        // A user who has the PIN logs in and out as anywhere; the PIN that is known to be wrong costs no try after that.
        let session = store.open();
        assert_rv!(session.login_without_pin(CKU_USER), CKR_PIN_LOCKED);
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        signs(&session, "key");
        assert_eq!(store.flags() & pin_flags, 0);
        session.logout().expect("C_Logout");
        assert_eq!(state(&session), CKS_RW_PUBLIC_SESSION);
        assert_eq!(state(&store.open()), CKS_RW_PUBLIC_SESSION);
        assert_eq!(state(&store.open()), CKS_RW_PUBLIC_SESSION);
        assert_eq!(store.flags() & pin_flags, low);
        // The SO gets in, too, and what the configuration says may be right then.
        session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
        session.init_pin("an-old-pin").expect("C_InitPIN");
        session.logout().expect("C_Logout");
        signs(&store.open(), "key");
        assert_eq!(store.flags() & pin_flags, 0);
    });
}

/// A token whose keys live in a cloud that takes connections and never answers.
fn of_a_silent_cloud() -> (TestToken, std::net::TcpListener) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    for (name, value) in [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_REGION", "us-east-1")] {
        // SAFETY: the process has no other thread yet.
        unsafe { std::env::set_var(name, value) };
    }
    let cloud = format!(
        "[kms.cloud]\ntype = \"aws\"\nkey = \"alias/x\"\nendpoint = \"http://{}\"\ntimeout_seconds = 60\n",
        listener.local_addr().expect("an address")
    );
    let token = "[[token]]\nlabel = \"test\"\nkms = \"local\"\nremote = \"cloud\"\nkeys = [\"alias/tls\"]\n";
    (TestToken::with(&Config { more: cloud + token, ..Config::default() }), listener)
}

#[test]
fn r02_nobody_waits_for_a_kms_that_does_not_answer() {
    isolated!(|| {
        let (store, cloud) = of_a_silent_cloud();
        let (session, other) = (store.user(), store.open());
        let asking = std::thread::spawn(move || (session.find(&Template::new()), session.module.last_error()));
        let connection = cloud.accept().expect("the KMS is asked");
        session.cancel(CKF_FIND_OBJECTS).expect("C_SessionCancel");
        other.logout().expect("C_Logout");
        session.close().expect("C_CloseSession");
        assert!(!asking.is_finished(), "the call is inside still");
        store.module.finalize().expect("C_Finalize");
        let (answer, text) = asking.join().expect("a thread");
        assert!(answer.is_err() && text.contains("finalised"), "C_Finalize ends it, not the deadline: {text}");
        drop(connection);
    });
}

#[test]
fn r36_a_master_key_rotates_and_everything_still_opens() {
    isolated!(|| {
        let store = two();
        let session = store.user();
        session.p256("key", true);
        let key = extractable(&session);
        let old = session.wrap_under_kms(key).expect("SR_WrapKey");
        let versions = || {
            fs::read_to_string(store.directory().join("first-master.key")).expect("the keys").matches("\nkey ").count()
        };
        assert_eq!(versions(), 1);
        for count in 2..4 {
            session.rotate_master_key().unwrap_or_else(|rv| panic!("{rv}: {}", store.module.last_error()));
            assert_eq!(versions(), count);
            let status = session.kms_status().expect("SR_GetKmsStatus");
            assert!(
                status.contains(&format!("\"version\":\"{count}\"")) && status.contains("\"state\":\"enabled\""),
                "{status}"
            );
        }
        session.unwrap_under_kms(&old, &aes()).expect("an old blob unwraps");
        // A PIN that is changed by a process which was logged in all along keeps the new version.
        session.set_pin(USER_PIN, "user-new-1").expect("C_SetPIN");
        store.module.finalize().expect("C_Finalize");
        store.initialize().expect("C_Initialize");
        let session = store.open();
        session.login(CKU_SO, SO_PIN).expect("the SO's envelope opens");
        session.logout().expect("C_Logout");
        session.login(CKU_USER, "user-new-1").expect("the user's envelope opens");
        signs(&session, "key");
        session.unwrap_under_kms(&old, &aes()).expect("an old blob unwraps");
    });
}

fn aes() -> Template {
    Template::class(CKO_SECRET_KEY).ulong(CKA_KEY_TYPE, CKK_AES)
}

#[test]
fn r36_who_may_not_change_the_token_may_not_rotate_its_master_key() {
    isolated!(|| {
        let store = two();
        let session = store.open();
        assert_rv!(session.rotate_master_key(), CKR_USER_NOT_LOGGED_IN);
        assert_rv!(session.move_kms("second"), CKR_USER_NOT_LOGGED_IN);
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        let reader = store.module.open_read_only(store.slot).expect("C_OpenSession");
        assert_rv!(reader.rotate_master_key(), CKR_SESSION_READ_ONLY);
        assert_rv!(session.move_kms("nowhere"), CKR_ARGUMENTS_BAD);
        assert!(store.module.last_error().contains("first, local, second"), "{}", store.module.last_error());
        assert_rv!(session.move_kms(""), CKR_ARGUMENTS_BAD);
    });
}

#[test]
fn r36_a_token_moves_and_needs_the_old_master_key_no_more() {
    isolated!(|| {
        let store = two();
        let session = store.user();
        session.p256("key", true);
        session.move_kms("second").unwrap_or_else(|rv| panic!("{rv}: {}", store.module.last_error()));
        store.module.finalize().expect("C_Finalize");
        fs::remove_file(store.directory().join("first-master.key")).expect("removing");
        for attempt in ["with the old configuration", "with the new one"] {
            store.initialize().expect("C_Initialize");
            let session = store.open();
            session.login(CKU_SO, SO_PIN).unwrap_or_else(|rv| panic!("{attempt}: {rv}: {}", store.module.last_error()));
            session.logout().expect("C_Logout");
            session.login(CKU_USER, USER_PIN).expect("C_Login");
            signs(&session, "key");
            store.module.finalize().expect("C_Finalize");
            let text = fs::read_to_string(&store.config).expect("the configuration");
            fs::write(&store.config, text.replace("kms = \"first\"", "kms = \"second\"")).expect("the configuration");
        }
    });
}

/// Rotates, moves and changes PINs until it is killed. A number of the round follows the configuration.
pub fn role_rewrap(argument: &str) {
    let module = token::attach(argument);
    let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    session.login(CKU_USER, USER_PIN).unwrap_or_else(|rv| panic!("C_Login: {rv}: {}", module.last_error()));
    signs(&session, "key");
    say("ready");
    for step in 0u64.. {
        match step % 4 {
            0 => session.rotate_master_key().expect("SR_RotateMasterKey"),
            1 => session.move_kms("second").expect("SR_MoveKms"),
            2 => session.set_pin(USER_PIN, USER_PIN).expect("C_SetPIN"),
            _ => session.move_kms("first").expect("SR_MoveKms"),
        }
    }
}

#[test]
fn r36_kill_nine_in_a_rotation_or_move_leaves_a_token_that_opens() {
    isolated!(300, || {
        let store = two();
        store.user().p256("key", true);
        store.module.finalize().expect("C_Finalize");
        for round in 0..200u64 {
            let mut child = Role::start("rewrap", &store.config_text());
            child.expect("ready");
            std::thread::sleep(Duration::from_micros(200 + round * 7919 % 20_000));
            child.kill();
            let (_, _, stderr) = child.finish();
            assert!(!stderr.contains("panicked"), "round {round}: {}", ffi_tests::isolate::tail(&stderr));
        }
        store.initialize().expect("C_Initialize");
        signs(&store.user(), "key");
    });
}

#[test]
fn keys_leave_and_come_back_wrapped_by_the_kms() {
    isolated!(|| {
        let store = TestToken::new();
        let session = store.user();
        let key = extractable(&session);
        let fixed = session.aes(32, "stays", false, &Template::new().bool(CKA_EXTRACTABLE, false)).expect("an AES key");
        let ecb = Mechanism::new(CKM_AES_ECB);
        let expected = session.encrypt(&ecb, key, &[1; 16]).expect("C_Encrypt");
        // By the function of our own, and by the standard's with the object of the master key.
        let master =
            session.find_one(&Template::class(CKO_SECRET_KEY).ulong(CKA_KEY_TYPE, CKK_SR_KMS)).expect("the key");
        let kms_wrap = Mechanism::new(CKM_SR_KMS_WRAP);
        let blobs = [
            session.wrap_under_kms(key).expect("SR_WrapKey"),
            session.wrap(&kms_wrap, master, key).expect("C_WrapKey"),
        ];
        for blob in &blobs {
            for back in [
                session.unwrap_under_kms(blob, &aes()).expect("SR_UnwrapKey"),
                session.unwrap(&kms_wrap, master, blob, &aes()).expect("C_UnwrapKey"),
            ] {
                assert_eq!(session.encrypt(&ecb, back, &[1; 16]).expect("C_Encrypt"), expected);
            }
            let mut altered = blob.clone();
            *altered.last_mut().expect("a byte") ^= 1;
            assert_rv!(session.unwrap_under_kms(&altered, &aes()), CKR_WRAPPED_KEY_INVALID);
            assert_rv!(session.unwrap_under_kms(&blob[..7], &aes()), CKR_WRAPPED_KEY_INVALID);
        }
        assert_rv!(session.wrap_under_kms(fixed), CKR_KEY_UNEXTRACTABLE);
        assert_rv!(session.wrap_under_kms(master), CKR_KEY_UNEXTRACTABLE);
        assert_rv!(session.destroy(master), CKR_ACTION_PROHIBITED);
        for secret in [CKA_VALUE, CKA_VALUE_LEN] {
            assert!(session.get(master, secret).is_err());
        }
        // It shows to who asks for it, and does not get into the way of others.
        let all = session.find(&Template::class(CKO_SECRET_KEY)).expect("C_FindObjects");
        assert!(all.contains(&key) && !all.contains(&master));
        assert_eq!(session.find(&Template::new().bytes(CKA_LABEL, "KMS master key")).expect("C_FindObjects"), [master]);
        // Without a login nothing comes in.
        session.logout().expect("C_Logout");
        assert_rv!(session.unwrap_under_kms(&blobs[0], &aes()), CKR_USER_NOT_LOGGED_IN);
    });
}

#[test]
fn a_data_key_comes_as_a_handle_and_a_blob() {
    isolated!(|| {
        let store = TestToken::new();
        let session = store.user();
        let (key, blob) = session.generate_data_key(&Template::new()).expect("SR_GenerateDataKey");
        let (other, other_blob) = session.generate_data_key(&Template::new()).expect("SR_GenerateDataKey");
        let ecb = Mechanism::new(CKM_AES_ECB);
        let encrypt = |key| session.encrypt(&ecb, key, &[1; 16]).expect("C_Encrypt");
        assert_ne!(encrypt(key), encrypt(other));
        assert_ne!(blob, other_blob);
        assert_eq!(encrypt(session.unwrap_under_kms(&blob, &aes()).expect("SR_UnwrapKey")), encrypt(key));
        assert_rv!(session.get(key, CKA_VALUE), CKR_ATTRIBUTE_SENSITIVE);
        assert_rv!(
            session.generate_data_key(&Template::class(CKO_PRIVATE_KEY)),
            CKR_TEMPLATE_INCONSISTENT | CKR_ATTRIBUTE_VALUE_INVALID
        );
    });
}
