//! Login, logout, PINs and their lock.

use ffi_tests::ck::*;
use ffi_tests::template::curve;
use ffi_tests::{
    Config, Mechanism, Module, Role, SO_PIN, Session, Template, TestToken, USER_PIN, assert_rv, call, check, isolated,
    say, token,
};

const USER_LOCK: CK_FLAGS = CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED;
const SO_LOCK: CK_FLAGS = CKF_SO_PIN_COUNT_LOW | CKF_SO_PIN_FINAL_TRY | CKF_SO_PIN_LOCKED;

fn state(session: &Session) -> CK_STATE {
    session.info().expect("C_GetSessionInfo").state
}

// ---- exact answers ----

#[test]
fn r60_login_answers_are_exact() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.open();
        assert_eq!(state(&session), CKS_RW_PUBLIC_SESSION);
        assert_rv!(session.logout(), CKR_USER_NOT_LOGGED_IN);
        assert_rv!(session.login(99, USER_PIN), CKR_USER_TYPE_INVALID);
        assert_rv!(session.login(CKU_CONTEXT_SPECIFIC, USER_PIN), CKR_OPERATION_NOT_INITIALIZED);
        assert_rv!(session.login(CKU_USER, "wrong-pin"), CKR_PIN_INCORRECT);
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        assert_eq!(state(&session), CKS_RW_USER_FUNCTIONS);
        assert_rv!(session.login(CKU_USER, USER_PIN), CKR_USER_ALREADY_LOGGED_IN);
        assert_rv!(session.login(CKU_USER, "wrong-pin"), CKR_USER_ALREADY_LOGGED_IN);
        assert_rv!(session.login(CKU_SO, SO_PIN), CKR_USER_ANOTHER_ALREADY_LOGGED_IN);
        let other = token.module.open_read_only(token.slot).expect("C_OpenSession");
        assert_eq!(state(&other), CKS_RO_USER_FUNCTIONS, "login counts for all sessions of the token");
        assert_rv!(other.login(CKU_USER, USER_PIN), CKR_USER_ALREADY_LOGGED_IN);
        session.logout().expect("C_Logout");
        assert_eq!(state(&other), CKS_RO_PUBLIC_SESSION);

        assert_rv!(session.login(CKU_SO, SO_PIN), CKR_SESSION_READ_ONLY_EXISTS);
        assert_rv!(other.login(CKU_SO, SO_PIN), CKR_SESSION_READ_ONLY_EXISTS | CKR_SESSION_READ_ONLY);
        other.close().expect("C_CloseSession");
        session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
        assert_eq!(state(&session), CKS_RW_SO_FUNCTIONS);
        assert_rv!(token.module.open_read_only(token.slot).map(|_| ()), CKR_SESSION_READ_WRITE_SO_EXISTS);
        assert_rv!(session.login(CKU_USER, USER_PIN), CKR_USER_ANOTHER_ALREADY_LOGGED_IN);
        assert_rv!(session.login(CKU_SO, SO_PIN), CKR_USER_ALREADY_LOGGED_IN);
        session.logout().expect("C_Logout");
        assert_rv!(session.init_pin("any-pin"), CKR_USER_NOT_LOGGED_IN);
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        assert_rv!(session.init_pin("any-pin"), CKR_USER_NOT_LOGGED_IN);
    });
}

#[test]
fn r60_session_answers_are_exact() {
    isolated!(|| {
        let token = TestToken::new();
        let module = token.module;
        assert_rv!(module.open_with(token.slot, CKF_RW_SESSION).map(|_| ()), CKR_SESSION_PARALLEL_NOT_SUPPORTED);
        assert_rv!(module.open_with(CK_ULONG::MAX, CKF_SERIAL_SESSION).map(|_| ()), CKR_SLOT_ID_INVALID);
        let flags = CKF_SERIAL_SESSION | CKF_RW_SESSION | CKF_ASYNC_SESSION;
        assert_rv!(module.open_with(token.slot, flags).map(|_| ()), CKR_SESSION_ASYNC_NOT_SUPPORTED);
        let session = token.open();
        session.close().expect("C_CloseSession");
        assert_rv!(session.close(), CKR_SESSION_HANDLE_INVALID);
        assert_rv!(session.info().map(|_| ()), CKR_SESSION_HANDLE_INVALID);
        let reader = module.open_read_only(token.slot).expect("C_OpenSession");
        reader.login(CKU_USER, USER_PIN).expect("C_Login");
        assert_rv!(reader.ec_pair(curve::P256, "ro", true).map(|_| ()), CKR_SESSION_READ_ONLY);
        reader.ec_pair(curve::P256, "ro", false).expect("session objects are fine in a read-only session");
        assert_rv!(reader.set_pin(USER_PIN, "new-pin-1"), CKR_SESSION_READ_ONLY);
        assert_rv!(module.init_token_in(token.slot, "again", SO_PIN), CKR_SESSION_EXISTS);
        let closed = token.open();
        module.close_all(token.slot).expect("C_CloseAllSessions");
        assert_rv!(closed.info().map(|_| ()), CKR_SESSION_HANDLE_INVALID);
        assert_rv!(module.close_all(CK_ULONG::MAX), CKR_SLOT_ID_INVALID);
    });
}

#[test]
fn r60_without_login_private_things_are_out_of_reach() {
    isolated!(|| {
        let token = TestToken::new();
        let user = token.user();
        user.p256("mine", true);
        user.logout().expect("C_Logout");
        let private = Template::class(CKO_PRIVATE_KEY);
        assert_eq!(user.find(&private).expect("C_FindObjects"), [], "private objects are not found without login");
        assert_eq!(user.find(&Template::class(CKO_PUBLIC_KEY)).expect("C_FindObjects").len(), 1);
        assert_rv!(user.ec_pair(curve::P256, "new", false).map(|_| ()), CKR_USER_NOT_LOGGED_IN);
        user.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
        assert_eq!(user.find(&private).expect("C_FindObjects"), [], "the SO sees no private objects");
    });
}

#[test]
fn r60_tokens_do_not_touch_each_other() {
    isolated!(|| {
        let first = TestToken::new();
        let session = first.user();
        let (_, private) = session.p256("a", false);
        let second = token::make_token(first.module, "second");
        let other = first.module.open(second).expect("C_OpenSession");
        assert_eq!(state(&other), CKS_RW_PUBLIC_SESSION, "login on one token is none on another");
        for _ in 0..3 {
            assert_rv!(other.login(CKU_USER, "wrong-pin"), CKR_PIN_INCORRECT);
        }
        assert_eq!(first.flags() & USER_LOCK, 0, "the first token's counter");
        assert_ne!(first.module.token_info(second).expect("C_GetTokenInfo").flags & CKF_USER_PIN_COUNT_LOW, 0);
        assert_eq!(state(&session), CKS_RW_USER_FUNCTIONS);
        session.sign(&Mechanism::new(CKM_ECDSA), private, &[1; 32]).expect("the first token still signs");
        first.module.close_all(second).expect("C_CloseAllSessions");
        assert_eq!(state(&session), CKS_RW_USER_FUNCTIONS, "closing one token's sessions is not another's logout");
    });
}

#[test]
fn r60_a_fresh_token_has_no_user_pin() {
    isolated!(|| {
        let token = TestToken::new();
        let slot = token.module.init_token("fresh", SO_PIN).expect("C_InitToken");
        let flags = token.module.token_info(slot).expect("C_GetTokenInfo").flags;
        assert_eq!(flags & CKF_USER_PIN_INITIALIZED, 0);
        assert_ne!(flags & CKF_TOKEN_INITIALIZED, 0);
        assert_ne!(flags & CKF_LOGIN_REQUIRED, 0);
        let session = token.module.open(slot).expect("C_OpenSession");
        assert_rv!(session.login(CKU_USER, USER_PIN), CKR_USER_PIN_NOT_INITIALIZED);
        assert_ne!(token.flags() & CKF_USER_PIN_INITIALIZED, 0);
    });
}

#[test]
fn init_token_again_needs_the_so_pin_and_clears_everything() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        session.p256("gone soon", true);
        session.close().expect("C_CloseSession");
        let serial = token.serial();
        assert_rv!(token.module.init_token_in(token.slot, "renamed", "not-the-so-pin"), CKR_PIN_INCORRECT);
        token.user().close().expect("nothing was lost by the refused attempt");
        token.module.init_token_in(token.slot, "renamed", SO_PIN).expect("C_InitToken");
        let slot = token.module.slot_of("renamed").expect("the token has its new label");
        let info = token.module.token_info(slot).expect("C_GetTokenInfo");
        assert_eq!(info.flags & CKF_USER_PIN_INITIALIZED, 0);
        assert_eq!(slot, token.slot, "the slot stays (R-53)");
        assert_eq!(ffi_tests::module::padded(&info.serialNumber), serial, "the serial stays");
        let session = token.module.open(slot).expect("C_OpenSession");
        session.login(CKU_SO, SO_PIN).expect("the SO PIN is the same");
        session.init_pin(USER_PIN).expect("C_InitPIN");
        session.logout().expect("C_Logout");
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        assert_eq!(session.find(&Template::new()).expect("C_FindObjects"), [], "no object is left");
    });
}

// ---- logout ----

#[test]
fn r18_logout_ends_private_handles_and_operations() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let (public, private) = session.p256("token", true);
        let (session_public, session_private) = session.p256("session", false);
        let mechanism = Mechanism::new(CKM_ECDSA);
        session.sign_init(&mechanism, private).expect("C_SignInit");
        session.logout().expect("C_Logout");
        assert_rv!(session.sign_once(&[1; 32]), CKR_OPERATION_NOT_INITIALIZED | CKR_USER_NOT_LOGGED_IN);
        let stale = |when: &str| {
            for handle in [private, session_private] {
                let sign = session.sign_init(&mechanism, handle);
                assert_rv!(sign, CKR_KEY_HANDLE_INVALID | CKR_OBJECT_HANDLE_INVALID, "sign {when}");
                assert_rv!(session.get(handle, CKA_LABEL), CKR_OBJECT_HANDLE_INVALID, "read {when}");
                assert_rv!(session.destroy(handle), CKR_OBJECT_HANDLE_INVALID, "destroy {when}");
            }
        };
        stale("after logout");
        session.get(public, CKA_LABEL).expect("public objects stay");
        session.get(session_public, CKA_LABEL).expect("public session objects stay");
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        stale("after the next login");
        let label = |text: &str| Template::class(CKO_PRIVATE_KEY).bytes(CKA_LABEL, text);
        assert_eq!(
            session.find(&label("session")).expect("C_FindObjects"),
            [],
            "private session objects are destroyed"
        );
        let again = session.find_one(&label("token")).expect("the token object is there");
        assert_ne!(again, private, "under a new handle");
        session.sign(&mechanism, again, &[1; 32]).expect("and it signs");
    });
}

#[test]
fn r18_every_kind_of_active_operation_ends_with_logout() {
    isolated!(|| {
        let token = TestToken::new();
        let user = token.user();
        let aes = user.aes(32, "aes", true, &Template::new()).expect("AES key");
        let mac = user.generic(32, "mac", true).expect("MAC key");
        let sessions: Vec<Session> = (0..4).map(|_| token.open()).collect();
        let gcm = Mechanism::gcm(CKM_AES_GCM, &[1; 12], b"", 128);
        sessions[0].encrypt_init(&gcm, aes).expect("C_EncryptInit");
        sessions[1].decrypt_init(&gcm, aes).expect("C_DecryptInit");
        sessions[2].sign_init(&Mechanism::new(CKM_SHA256_HMAC), mac).expect("C_SignInit");
        sessions[2].sign_update(b"part").expect("C_SignUpdate");
        sessions[3].verify_init(&Mechanism::new(CKM_SHA256_HMAC), mac).expect("C_VerifyInit");
        user.logout().expect("C_Logout");
        assert_rv!(sessions[0].encrypt_once(&[0; 16]), CKR_OPERATION_NOT_INITIALIZED | CKR_USER_NOT_LOGGED_IN);
        assert_rv!(sessions[1].decrypt_once(&[0; 32]), CKR_OPERATION_NOT_INITIALIZED | CKR_USER_NOT_LOGGED_IN);
        assert_rv!(sessions[2].sign_final(), CKR_OPERATION_NOT_INITIALIZED | CKR_USER_NOT_LOGGED_IN);
        assert_rv!(sessions[3].verify_once(b"x", &[0; 32]), CKR_OPERATION_NOT_INITIALIZED | CKR_USER_NOT_LOGGED_IN);
    });
}

#[test]
fn r18_a_find_that_was_started_logged_in_gives_nothing_private_after_logout() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        session.p256("secret", true);
        session.find_init(&Template::class(CKO_PRIVATE_KEY)).expect("C_FindObjectsInit");
        session.logout().expect("C_Logout");
        let found = session.find_some(10).unwrap_or_default();
        for handle in found {
            assert_rv!(session.get(handle, CKA_LABEL), CKR_OBJECT_HANDLE_INVALID, "a private object after logout");
        }
    });
}

#[test]
fn r18_closing_the_last_session_is_logout() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let (_, private) = session.p256("token", true);
        let other = token.open();
        session.close().expect("C_CloseSession");
        assert_eq!(state(&other), CKS_RW_USER_FUNCTIONS, "another session keeps the login");
        other.get(private, CKA_LABEL).expect("and the handles of token objects");
        other.close().expect("C_CloseSession");
        let fresh = token.open();
        assert_eq!(state(&fresh), CKS_RW_PUBLIC_SESSION);
        fresh.login(CKU_USER, USER_PIN).expect("C_Login");
        assert_rv!(fresh.get(private, CKA_LABEL), CKR_OBJECT_HANDLE_INVALID);
    });
}

#[test]
fn r18_session_objects_go_with_their_session() {
    isolated!(|| {
        let token = TestToken::new();
        let (first, second) = (token.user(), token.open());
        let (public, private) = first.p256("short", false);
        second.get(private, CKA_LABEL).expect("other sessions see it");
        first.close().expect("C_CloseSession");
        assert_rv!(second.get(private, CKA_LABEL), CKR_OBJECT_HANDLE_INVALID);
        assert_rv!(second.get(public, CKA_LABEL), CKR_OBJECT_HANDLE_INVALID);
        assert_eq!(second.find(&Template::new()).expect("C_FindObjects"), []);
    });
}

// ---- the lock ----

/// Tries a wrong user PIN once, in a process of its own.
pub fn role_wrong_pin(config: &str) {
    let module = token::attach(config);
    let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    let answer = session.login(CKU_USER, "wrong-pin");
    say(&format!("{:?}", answer.expect_err("the PIN is wrong")));
    module.finalize().expect("C_Finalize");
}

#[test]
fn r20_the_lock_is_exact_and_holds_across_processes() {
    isolated!(|| {
        let token = TestToken::with(&Config { max_attempts: 4, ..Config::default() });
        assert_eq!(token.flags() & USER_LOCK, 0);
        let session = token.open();
        assert_rv!(session.login(CKU_USER, "wrong-pin"), CKR_PIN_INCORRECT);
        assert_eq!(token.flags() & USER_LOCK, CKF_USER_PIN_COUNT_LOW, "after one wrong PIN");
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        assert_eq!(token.flags() & USER_LOCK, 0, "a right PIN clears the counter");
        session.logout().expect("C_Logout");

        // Two here, one in another process, one here after a restart.
        assert_rv!(session.login(CKU_USER, "wrong-pin"), CKR_PIN_INCORRECT);
        assert_rv!(session.login(CKU_USER, "wrong-pin"), CKR_PIN_INCORRECT);
        assert_eq!(token.flags() & USER_LOCK, CKF_USER_PIN_COUNT_LOW, "after two of four");
        assert_eq!(Role::start("wrong-pin", &token.config_text()).succeed(), ["CKR_PIN_INCORRECT"]);
        assert_eq!(token.flags() & USER_LOCK, CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY, "after three of four");
        token.module.finalize().expect("C_Finalize");
        token.initialize().expect("C_Initialize");
        assert_eq!(token.flags() & USER_LOCK, CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY, "after a restart");
        let session = token.open();
        assert_rv!(session.login(CKU_USER, "wrong-pin"), CKR_PIN_INCORRECT | CKR_PIN_LOCKED);
        let flags = token.flags();
        assert_eq!(flags & (CKF_USER_PIN_LOCKED | CKF_USER_PIN_FINAL_TRY), CKF_USER_PIN_LOCKED, "after four of four");
        assert_rv!(session.login(CKU_USER, USER_PIN), CKR_PIN_LOCKED, "the right PIN no longer helps");
        assert_rv!(session.set_pin(USER_PIN, "new-user-pin"), CKR_PIN_LOCKED);
        assert_eq!(Role::start("wrong-pin", &token.config_text()).succeed(), ["CKR_PIN_LOCKED"]);
        assert_eq!(flags & SO_LOCK, 0, "the SO PIN has a counter of its own");

        session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
        session.init_pin("new-user-pin").expect("C_InitPIN unlocks");
        session.logout().expect("C_Logout");
        assert_eq!(token.flags() & USER_LOCK, 0, "unlocked");
        assert_rv!(session.login(CKU_USER, USER_PIN), CKR_PIN_INCORRECT);
        session.login(CKU_USER, "new-user-pin").expect("C_Login");
    });
}

#[test]
fn r20_the_so_pin_locks_too() {
    isolated!(|| {
        let token = TestToken::with(&Config { max_attempts: 3, ..Config::default() });
        let session = token.open();
        let expected = [CKF_SO_PIN_COUNT_LOW, CKF_SO_PIN_COUNT_LOW | CKF_SO_PIN_FINAL_TRY];
        for flags in expected {
            assert_rv!(session.login(CKU_SO, "wrong-pin"), CKR_PIN_INCORRECT);
            assert_eq!(token.flags() & SO_LOCK, flags);
        }
        assert_rv!(session.login(CKU_SO, "wrong-pin"), CKR_PIN_INCORRECT | CKR_PIN_LOCKED);
        assert_ne!(token.flags() & CKF_SO_PIN_LOCKED, 0);
        assert_rv!(session.login(CKU_SO, SO_PIN), CKR_PIN_LOCKED);
        session.login(CKU_USER, USER_PIN).expect("the user is not locked");
        session.close().expect("C_CloseSession");
        assert_rv!(token.module.init_token_in(token.slot, "x", SO_PIN), CKR_PIN_LOCKED);
    });
}

#[test]
fn r20_wrong_pins_count_in_every_function_that_takes_one() {
    isolated!(|| {
        let token = TestToken::with(&Config { max_attempts: 3, ..Config::default() });
        let session = token.open();
        assert_rv!(session.set_pin("wrong-pin", "new-user-pin"), CKR_PIN_INCORRECT);
        assert_ne!(token.flags() & CKF_USER_PIN_COUNT_LOW, 0, "C_SetPIN is no oracle");
        session.close().expect("C_CloseSession");
        assert_rv!(token.module.init_token_in(token.slot, "x", "wrong-pin"), CKR_PIN_INCORRECT);
        assert_ne!(token.flags() & CKF_SO_PIN_COUNT_LOW, 0, "C_InitToken is no oracle");
    });
}

#[test]
fn r20_wrong_pins_in_parallel_all_count() {
    isolated!(|| {
        let token = TestToken::with(&Config { max_attempts: 5, ..Config::default() });
        let sessions: Vec<Session> = (0..8).map(|_| token.open()).collect();
        std::thread::scope(|scope| {
            for session in &sessions {
                scope.spawn(|| assert_rv!(session.login(CKU_USER, "wrong-pin"), CKR_PIN_INCORRECT | CKR_PIN_LOCKED));
            }
        });
        assert_rv!(sessions[0].login(CKU_USER, USER_PIN), CKR_PIN_LOCKED, "eight tries are more than five");
    });
}

// ---- PINs ----

#[test]
fn r22_pins_of_odd_lengths() {
    isolated!(|| {
        let token = TestToken::with(&Config { max_attempts: 100, ..Config::default() });
        let session = token.open();
        for wrong in ["u", "user-123", "user-12345", "USER-1234", " user-1234", "user-1234 ", "user-1234\0", "\u{fffd}"]
        {
            assert_rv!(session.login(CKU_USER, wrong), CKR_PIN_INCORRECT | CKR_PIN_LEN_RANGE, "{wrong:?}");
        }
        assert_rv!(session.login(CKU_USER, &"x".repeat(100_000)), CKR_PIN_INCORRECT | CKR_PIN_LEN_RANGE);
        assert_rv!(session.login(CKU_USER, ""), CKR_PIN_INCORRECT | CKR_PIN_LEN_RANGE | CKR_ARGUMENTS_BAD);
        let rv = call!(token.module, C_Login(session.handle, CKU_USER, std::ptr::null_mut(), 0));
        assert_rv!(check(rv), CKR_ARGUMENTS_BAD | CKR_PIN_INCORRECT | CKR_PIN_LEN_RANGE);
        let rv = call!(token.module, C_Login(session.handle, CKU_USER, std::ptr::null_mut(), 8));
        assert_rv!(check(rv), CKR_ARGUMENTS_BAD);
        session.login(CKU_USER, USER_PIN).expect("after all that the right one works");
    });
}

#[test]
fn r22_new_pins_keep_to_the_announced_lengths() {
    isolated!(|| {
        let token = TestToken::new();
        let info = token.module.token_info(token.slot).expect("C_GetTokenInfo");
        let (least, most) = (info.ulMinPinLen as usize, info.ulMaxPinLen as usize);
        assert!(least >= 1 && least < most && most <= 1 << 16, "{least}..{most}");
        assert!(Module::is_foreign() || least == 4, "min_length of the configuration");
        let session = token.user();
        let longest = "n".repeat(most);
        assert_rv!(session.set_pin(USER_PIN, &"n".repeat(most + 1)), CKR_PIN_LEN_RANGE);
        assert_rv!(session.set_pin(USER_PIN, &"n".repeat(least - 1)), CKR_PIN_LEN_RANGE);
        assert_rv!(session.set_pin(USER_PIN, ""), CKR_PIN_LEN_RANGE | CKR_ARGUMENTS_BAD);
        session.set_pin(USER_PIN, &longest).expect("the longest PIN");
        session.set_pin(&longest, "äöü€").expect("PINs are UTF-8");
        session.set_pin("äöü€", &"n".repeat(least)).expect("the shortest PIN");
        session.logout().expect("C_Logout");
        session.login(CKU_USER, &"n".repeat(least)).expect("C_Login");
    });
}

/// Tries a PIN in a process of its own and uses a private key with it.
pub fn role_try_pin(argument: &str) {
    let (pin, config) = argument.split_once(' ').expect("PIN and configuration");
    let module = token::attach(config);
    let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    match session.login(CKU_USER, pin) {
        Ok(()) => {
            let key = session.find_one(&Template::class(CKO_PRIVATE_KEY)).expect("the key");
            session.sign(&Mechanism::new(CKM_ECDSA), key, &[1; 32]).expect("C_Sign");
            say("works");
        }
        Err(rv) => say(&format!("{rv:?}")),
    }
    module.finalize().expect("C_Finalize");
}

#[test]
fn r22_a_changed_pin_replaces_the_old_one_everywhere() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        session.p256("key", true);
        let elsewhere = |pin: &str| Role::start("try-pin", &format!("{pin} {}", token.config_text())).succeed();
        assert_eq!(elsewhere(USER_PIN), ["works"]);
        assert_rv!(session.set_pin("wrong-pin", "changed-pin"), CKR_PIN_INCORRECT);
        session.set_pin(USER_PIN, "changed-pin").expect("C_SetPIN");
        assert_eq!(elsewhere(USER_PIN), ["CKR_PIN_INCORRECT"]);
        assert_eq!(elsewhere("changed-pin"), ["works"]);
        session.logout().expect("C_Logout");
        assert_rv!(session.login(CKU_USER, USER_PIN), CKR_PIN_INCORRECT);
        session.login(CKU_USER, "changed-pin").expect("C_Login");
        session.logout().expect("C_Logout");
        session.set_pin("changed-pin", "public-pin").expect("C_SetPIN changes the user PIN in a public session");
        session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
        session.set_pin(SO_PIN, "changed-so-pin").expect("C_SetPIN of the SO");
        session.logout().expect("C_Logout");
        assert_rv!(session.login(CKU_SO, SO_PIN), CKR_PIN_INCORRECT);
        session.login(CKU_SO, "changed-so-pin").expect("C_Login of the SO");
        session.logout().expect("C_Logout");
        assert_eq!(elsewhere("public-pin"), ["works"], "the SO's change left the user's PIN alone");
    });
}

#[test]
fn r22_init_pin_by_the_so_keeps_the_objects() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        session.p256("kept", true);
        session.logout().expect("C_Logout");
        session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
        assert_rv!(session.init_pin("x"), CKR_PIN_LEN_RANGE);
        session.init_pin("given-by-so").expect("C_InitPIN");
        session.logout().expect("C_Logout");
        assert_rv!(session.login(CKU_USER, USER_PIN), CKR_PIN_INCORRECT);
        session.login(CKU_USER, "given-by-so").expect("C_Login");
        let key = session.find_one(&Template::class(CKO_PRIVATE_KEY)).expect("the key is still there");
        session.sign(&Mechanism::new(CKM_ECDSA), key, &[1; 32]).expect("and signs");
    });
}

#[test]
fn password_rules_of_the_configuration_hold() {
    isolated!(|| {
        let token = TestToken::new();
        token.module.finalize().expect("C_Finalize");
        let text = std::fs::read_to_string(&token.config).expect("the configuration");
        let strict = text.replace("min_length = 4", "min_length = 12");
        let strict = strict.replace("classes = []", "classes = [\"lower\", \"upper\", \"digit\", \"symbol\"]");
        std::fs::write(&token.config, strict).expect("the configuration");
        token.initialize().expect("C_Initialize");
        let session = token.user();
        assert_rv!(session.set_pin(USER_PIN, "Short-1"), CKR_PIN_LEN_RANGE);
        assert_rv!(session.set_pin(USER_PIN, "all-lower-case-1"), CKR_PIN_INVALID);
        assert!(!token.module.last_error().is_empty(), "the text says which class is missing");
        session.set_pin(USER_PIN, "Long-enough-1").expect("C_SetPIN");
    });
}
