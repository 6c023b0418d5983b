//! Boundaries: between classes and key types, policies, logins, processes and threads.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ffi_tests::ck::*;
use ffi_tests::template::curve;
use ffi_tests::{
    Config, Handle, Mechanism, Module, Result, Role, Rv, SO_PIN, Session, Template, TestToken, USER_PIN, assert_rv,
    call, check, isolated, say, token,
};

use crate::attributes::data;
use crate::lifecycle::{assert_threads, descriptors, threads};

fn state(session: &Session) -> CK_STATE {
    session.info().expect("C_GetSessionInfo").state
}

/// Finds everything and reads the class of each; an object that cannot be read is a failure.
fn classes(session: &Session) -> Vec<CK_OBJECT_CLASS> {
    let found =
        session.find(&Template::new()).unwrap_or_else(|rv| panic!("find: {rv}: {}", session.module.last_error()));
    found.into_iter().map(|object| session.get_ulong(object, CKA_CLASS).expect("CKA_CLASS")).collect()
}

/// Sleeps a little longer in each round, so that what races meets at different moments.
fn stagger(round: u64, step: Duration) {
    std::thread::sleep(step * u32::try_from(round).expect("few rounds"));
}

// ---- Class and key type ----

/// A class and a key type that do not fit, and what a key of that type is made of.
fn misfits() -> Vec<(&'static str, Template)> {
    let key = |class, kind| Template::class(class).ulong(CKA_KEY_TYPE, kind);
    let value = Template::new().bytes(CKA_VALUE, [7; 32]);
    let ec = value.clone().bytes(CKA_EC_PARAMS, curve::P256);
    let rsa = Template::new().bytes(CKA_MODULUS, [0xc1; 256]).bytes(CKA_PUBLIC_EXPONENT, [1, 0, 1]);
    vec![
        ("AES as public key", key(CKO_PUBLIC_KEY, CKK_AES)),
        ("AES with a value as public key", key(CKO_PUBLIC_KEY, CKK_AES).and(&value)),
        ("AES as private key", key(CKO_PRIVATE_KEY, CKK_AES).and(&value)),
        ("generic secret as public key", key(CKO_PUBLIC_KEY, CKK_GENERIC_SECRET).and(&value)),
        ("generic secret as private key", key(CKO_PRIVATE_KEY, CKK_GENERIC_SECRET).and(&value)),
        ("EC as secret key", key(CKO_SECRET_KEY, CKK_EC).and(&ec)),
        ("Ed25519 as secret key", key(CKO_SECRET_KEY, CKK_EC_EDWARDS).and(&value).bytes(CKA_EC_PARAMS, curve::ED25519)),
        ("RSA as secret key", key(CKO_SECRET_KEY, CKK_RSA).and(&rsa)),
        ("EC private key as public key", key(CKO_PUBLIC_KEY, CKK_EC).and(&ec)),
        ("AES as data", key(CKO_DATA, CKK_AES).and(&value)),
    ]
}

#[test]
fn r19_an_object_has_a_class_that_fits_its_key_type() {
    isolated!(|| {
        let token = TestToken::with(&Config::plaintext("compat"));
        let session = token.user();
        session.p256("fits", true);
        for (name, template) in misfits() {
            for on_token in [false, true] {
                let answer = session.create(&template.clone().bool(CKA_TOKEN, on_token));
                match name {
                    // The class fits here, but the private value does not belong to it and the point is missing.
                    "EC private key as public key" => assert_rv!(
                        answer,
                        CKR_TEMPLATE_INCONSISTENT
                            | CKR_ATTRIBUTE_VALUE_INVALID
                            | CKR_ATTRIBUTE_TYPE_INVALID
                            | CKR_TEMPLATE_INCOMPLETE
                    ),
                    // This class has no key type at all.
                    "AES as data" => assert_rv!(
                        answer,
                        CKR_TEMPLATE_INCONSISTENT | CKR_ATTRIBUTE_VALUE_INVALID | CKR_ATTRIBUTE_TYPE_INVALID
                    ),
                    _ => assert_rv!(answer, CKR_TEMPLATE_INCONSISTENT | CKR_ATTRIBUTE_VALUE_INVALID, "{name}"),
                }
                assert_eq!(classes(&session).len(), 2, "after {name}: the pair alone");
            }
        }
        for class in [CKO_PUBLIC_KEY, CKO_PRIVATE_KEY, CKO_DATA] {
            let answer = session.aes(32, "x", true, &Template::class(class));
            assert_rv!(answer, CKR_TEMPLATE_INCONSISTENT | CKR_ATTRIBUTE_VALUE_INVALID, "C_GenerateKey, {class:#x}");
        }
        assert_eq!(classes(&session).len(), 2);
        restart_and_look(&token, 2);
    });
}

#[test]
fn r19_an_unwrapped_key_has_a_class_that_fits_its_key_type() {
    isolated!(|| {
        let token = TestToken::with(&Config::plaintext("compat"));
        let session = token.user();
        let wrapping = session.aes(32, "wrapping", true, &Template::new()).expect("AES key");
        let open = Template::new().bool(CKA_EXTRACTABLE, true);
        let private = open.clone().bool(CKA_TOKEN, true).bool(CKA_SIGN, true);
        let public = Template::new().bytes(CKA_EC_PARAMS, curve::P256).bool(CKA_TOKEN, true);
        let pair = session.generate_pair(&Mechanism::new(CKM_EC_KEY_PAIR_GEN), &public, &private).expect("a pair");
        let mechanism = Mechanism::new(CKM_AES_KEY_WRAP_KWP);
        let wrap = |key| session.wrap(&mechanism, wrapping, key).expect("C_WrapKey");
        let (aes, ec) = (wrap(wrapping), wrap(pair.1));
        let rows = [
            ("AES as public key", &aes, CKO_PUBLIC_KEY, CKK_AES),
            ("AES as private key", &aes, CKO_PRIVATE_KEY, CKK_AES),
            ("generic secret as private key", &aes, CKO_PRIVATE_KEY, CKK_GENERIC_SECRET),
            ("AES as certificate", &aes, CKO_CERTIFICATE, CKK_AES),
            ("AES as data", &aes, CKO_DATA, CKK_AES),
            ("EC as secret key", &ec, CKO_SECRET_KEY, CKK_EC),
            ("RSA as secret key", &ec, CKO_SECRET_KEY, CKK_RSA),
            ("EC as public key", &ec, CKO_PUBLIC_KEY, CKK_EC),
        ];
        for (name, blob, class, kind) in rows {
            for on_token in [false, true] {
                let template = Template::class(class).ulong(CKA_KEY_TYPE, kind).bool(CKA_TOKEN, on_token);
                let answer = session.unwrap(&mechanism, wrapping, blob, &template);
                match class {
                    // These classes have no key type at all.
                    CKO_CERTIFICATE | CKO_DATA => assert_rv!(
                        answer,
                        CKR_TEMPLATE_INCONSISTENT | CKR_ATTRIBUTE_VALUE_INVALID | CKR_ATTRIBUTE_TYPE_INVALID,
                        "{name}"
                    ),
                    _ => assert_rv!(answer, CKR_TEMPLATE_INCONSISTENT | CKR_ATTRIBUTE_VALUE_INVALID, "{name}"),
                }
                assert_eq!(classes(&session).len(), 3, "after {name}: the pair and the wrapping key");
            }
        }
        restart_and_look(&token, 3);
    });
}

/// Looks at the store again as a later process does.
fn restart_and_look(token: &TestToken, count: usize) {
    token.module.finalize().expect("C_Finalize");
    token.initialize().expect("C_Initialize");
    assert_eq!(classes(&token.user()).len(), count, "after a restart");
}

// ---- The policy of today counts ----

#[test]
fn r17_a_readable_key_is_sealed_when_the_policy_becomes_never() {
    isolated!(|| {
        let token = TestToken::with(&Config::plaintext("compat"));
        let session = token.user();
        let open = Template::new().bool(CKA_SENSITIVE, false).bool(CKA_EXTRACTABLE, true).bool(CKA_TOKEN, true);
        session.aes(32, "open", true, &open).expect("AES key");
        let public = Template::new().bytes(CKA_EC_PARAMS, curve::P256).bool(CKA_TOKEN, true);
        let pair = Mechanism::new(CKM_EC_KEY_PAIR_GEN);
        session.generate_pair(&pair, &public, &open.clone().bytes(CKA_LABEL, "open")).expect("a pair");
        let readable = |session: &Session| session.find(&Template::new().bytes(CKA_LABEL, "open")).expect("a find");
        assert_eq!(readable(&session).len(), 2);
        for key in readable(&session) {
            assert_eq!(session.get(key, CKA_VALUE).expect("compat lets it be read").len(), 32);
        }

        token.module.finalize().expect("C_Finalize");
        let text = std::fs::read_to_string(&token.config).expect("the configuration");
        assert!(text.contains("plaintext = \"compat\""));
        std::fs::write(&token.config, text.replace("plaintext = \"compat\"", "plaintext = \"never\""))
            .expect("writing");
        token.initialize().expect("C_Initialize");
        let session = token.user();
        assert_eq!(readable(&session).len(), 2);
        for key in readable(&session) {
            assert_closed(&session, key, "the key");
            for on_token in [false, true] {
                let plain = Template::new().bool(CKA_TOKEN, on_token);
                let copy = session.copy(key, &plain).expect("C_CopyObject");
                assert_closed(&session, copy, "a copy");
                // Asking for an open copy is refused, or answered with a closed one.
                match session.copy(key, &plain.bool(CKA_SENSITIVE, false)) {
                    Ok(copy) => assert_closed(&session, copy, "a copy that was to be open"),
                    refused => assert_rv!(refused, CKR_ATTRIBUTE_READ_ONLY | CKR_TEMPLATE_INCONSISTENT),
                }
            }
        }
        assert_eq!(Role::start("read-values", &token.config_text()).succeed(), ["CKR_ATTRIBUTE_SENSITIVE"]);
    });
}

fn assert_closed(session: &Session, key: Handle, what: &str) {
    assert_rv!(session.get(key, CKA_VALUE), CKR_ATTRIBUTE_SENSITIVE, "{what}");
    assert!(session.get_bool(key, CKA_SENSITIVE).expect("CKA_SENSITIVE"), "{what}");
}

/// Tells the different answers to asking for the value of each key.
pub fn role_read_values(config: &str) {
    let session = attach_as_user(config);
    let found = session.find(&Template::new()).expect("C_FindObjects").into_iter();
    let secret = |key: &Handle| session.get_ulong(*key, CKA_CLASS) != Ok(CKO_PUBLIC_KEY);
    let answers: BTreeSet<String> = found
        .filter(secret)
        .map(|key| format!("{:?}", session.get(key, CKA_VALUE).map_or_else(|rv| rv, |_| Rv(CKR_OK))))
        .collect();
    answers.iter().for_each(|answer| say(answer));
    session.module.finalize().expect("C_Finalize");
}

fn attach_as_user(config: &str) -> Session {
    let module = token::attach(config);
    let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    session.login(CKU_USER, USER_PIN).unwrap_or_else(|rv| panic!("C_Login: {rv}: {}", module.last_error()));
    session
}

// ---- The lock, at its last try ----

const LOCK: CK_FLAGS = CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED;
const WRONG_PIN: &str = "wrong-pin";

/// Brings the counter of the user PIN to nine of ten.
fn nine_failures(token: &TestToken) {
    let session = token.open();
    for _ in 0..9 {
        assert_rv!(session.login(CKU_USER, WRONG_PIN), CKR_PIN_INCORRECT);
    }
    assert_eq!(token.flags() & LOCK, CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY, "nine of ten");
    session.close().expect("C_CloseSession");
}

/// Judges what six wrong tries and a right one were answered when one try was left.
///
/// Whatever their order is, the first of them decides. If it was the right one, the counter began again at zero, and all that
/// were wrong after it were counted. If it was a wrong one, it closed the lock, and none of the others was tried.
fn judge_salvo(token: &TestToken, right: std::result::Result<(), Rv>, wrong: &[Rv]) {
    let counted = wrong.iter().filter(|rv| **rv == Rv(CKR_PIN_INCORRECT)).count();
    let session = token.open();
    match right {
        Ok(()) => {
            let fine = [Rv(CKR_PIN_INCORRECT), Rv(CKR_USER_ALREADY_LOGGED_IN)];
            assert!(wrong.iter().all(|rv| fine.contains(rv)), "the right PIN came first, so nothing locks: {wrong:?}");
            let flags = if counted == 0 { 0 } else { CKF_USER_PIN_COUNT_LOW };
            assert_eq!(token.flags() & LOCK, flags, "{counted} wrong tries after the right one");
            for _ in counted..9 {
                assert_rv!(session.login(CKU_USER, WRONG_PIN), CKR_PIN_INCORRECT);
            }
            let last = CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY;
            assert_eq!(token.flags() & LOCK, last, "the counter began at zero and missed none of {counted}");
            session.login(CKU_USER, USER_PIN).expect("the last try is the right one");
            session.logout().expect("C_Logout");
        }
        Err(rv) => {
            assert_eq!(rv, Rv(CKR_PIN_LOCKED), "the right PIN fails by the lock alone");
            let fine = [Rv(CKR_PIN_INCORRECT), Rv(CKR_PIN_LOCKED)];
            assert!(wrong.iter().all(|rv| fine.contains(rv)), "{wrong:?}");
            assert!(counted <= 1, "one try was left, and {counted} were tried");
            assert_ne!(token.flags() & CKF_USER_PIN_LOCKED, 0);
            assert_eq!(token.flags() & CKF_USER_PIN_FINAL_TRY, 0);
            assert_rv!(session.login(CKU_USER, USER_PIN), CKR_PIN_LOCKED, "no right PIN opens a closed lock");
            session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
            session.init_pin(USER_PIN).expect("C_InitPIN unlocks");
            session.logout().expect("C_Logout");
        }
    }
    assert_eq!(token.flags() & LOCK, 0);
    session.close().expect("C_CloseSession");
}

#[test]
fn r20_one_try_that_is_left_is_one_try_for_seven_threads() {
    isolated!(|| {
        let token = TestToken::new();
        for round in 0..5 {
            nine_failures(&token);
            let start = Barrier::new(7);
            let session = token.open();
            let attempt = |pin, waits| {
                start.wait();
                stagger(waits, Duration::from_millis(1));
                session.login(CKU_USER, pin)
            };
            let (right, wrong) = std::thread::scope(|scope| {
                // The right one starts first in one round, and last in another.
                let right = scope.spawn(|| attempt(USER_PIN, round));
                let wrong: Vec<_> = (0..6).map(|_| scope.spawn(|| attempt(WRONG_PIN, 2))).collect();
                let wrong = wrong.into_iter().map(|thread| thread.join().expect("a thread").expect_err("it is wrong"));
                let wrong: Vec<Rv> = wrong.collect();
                (right.join().expect("a thread"), wrong)
            });
            if right.is_ok() {
                session.logout().expect("C_Logout");
            }
            session.close().expect("C_CloseSession");
            judge_salvo(&token, right, &wrong);
        }
    });
}

/// Waits for a file and tries a PIN then.
pub fn role_salvo(argument: &str) {
    let [pin, go, config] = argument.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("PIN, file, configuration") };
    let module = token::attach(config);
    let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    say("ready");
    while !Path::new(go).exists() {
        std::thread::sleep(Duration::from_micros(200));
    }
    let answer = session.login(CKU_USER, pin);
    say(&format!("{:#x}", answer.map_or_else(|rv| rv.0, |()| CKR_OK)));
    module.finalize().expect("C_Finalize");
}

#[test]
fn r20_one_try_that_is_left_is_one_try_for_seven_processes() {
    isolated!(|| {
        let token = TestToken::new();
        for round in 0..4 {
            nine_failures(&token);
            let go = token.directory().join(format!("go-{round}"));
            let path = go.to_str().expect("a path of UTF-8");
            let start = |pin| Role::start("salvo", &format!("{pin} {path} {}", token.config_text()));
            let mut roles: Vec<Role> = [USER_PIN].into_iter().chain([WRONG_PIN; 6]).map(start).collect();
            roles.iter_mut().for_each(|role| role.expect("ready"));
            std::fs::write(&go, "").expect("writing a file");
            let answer = |role: Role| {
                let said = role.succeed();
                let text = said[0].strip_prefix("0x").expect("a number");
                check(CK_RV::from_str_radix(text, 16).expect("a number"))
            };
            let mut answers = roles.into_iter().map(answer);
            let right = answers.next().expect("the first is the right one");
            let wrong: Vec<Rv> = answers.map(|answer| answer.expect_err("it is wrong")).collect();
            judge_salvo(&token, right, &wrong);
        }
    });
}

// ---- A token that another process makes anew ----

/// Makes the token anew, and tells when it begins and what it was answered.
pub fn role_init_again(config: &str) {
    let module = token::attach(config);
    let slot = module.slot_of("test").expect("the token");
    say("ready");
    let answer = module.init_token_in(slot, "test", SO_PIN);
    say(&format!("{:?}", answer.map_or_else(|rv| rv, |()| Rv(CKR_OK))));
    module.finalize().expect("C_Finalize");
}

#[test]
fn r22_a_login_of_the_so_ends_when_another_process_makes_the_token_anew() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.open();
        session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
        assert_eq!(Role::start("init-again", &token.config_text()).succeed(), ["ready", "CKR_OK"]);
        assert!(session.init_pin("pin-of-a").is_err(), "the SO of the old token is nobody on the new one");
        assert_eq!(token.flags() & CKF_USER_PIN_INITIALIZED, 0, "and changed nothing");
        let _ = session.logout();
        session.login(CKU_SO, SO_PIN).expect("the same session serves the new token");
        assert_new_token_works(&token);
    });
}

#[test]
fn r22_init_pin_racing_with_init_token_of_another_process() {
    isolated!(|| {
        let token = TestToken::new();
        for round in 0..6 {
            let session = token.open();
            session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
            let mut role = Role::start("init-again", &token.config_text());
            role.expect("ready");
            stagger(round, Duration::from_millis(2));
            let ours = session.init_pin("pin-of-a");
            match role.succeed()[0].as_str() {
                // Ours may have come before theirs; after it, it cannot have been done.
                "CKR_OK" => {
                    assert_eq!(token.flags() & CKF_USER_PIN_INITIALIZED, 0, "a new token has no user PIN: {ours:?}");
                    assert_new_token_works(&token);
                }
                // A change of the PINs at the same moment is told, and nothing was done.
                "CKR_FUNCTION_FAILED" => {
                    ours.expect("C_InitPIN, when C_InitToken failed by it");
                    token.module.close_all(token.slot).expect("C_CloseAllSessions");
                    token.open().login(CKU_USER, "pin-of-a").expect("the token is as it was");
                    token.module.close_all(token.slot).expect("C_CloseAllSessions");
                }
                other => panic!("C_InitToken of the other process answered {other}"),
            }
        }
    });
}

/// Sets up a token that was made anew, and uses it.
fn assert_new_token_works(token: &TestToken) {
    token.module.close_all(token.slot).expect("C_CloseAllSessions");
    let session = token.open();
    session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
    session.init_pin(USER_PIN).expect("C_InitPIN");
    session.logout().expect("C_Logout");
    assert_rv!(session.login(CKU_USER, "pin-of-a"), CKR_PIN_INCORRECT);
    session.login(CKU_USER, USER_PIN).expect("C_Login");
    assert_eq!(classes(&session), [], "a new token is empty");
    let (public, private) = session.p256("new", true);
    let signature = session.sign(&Mechanism::new(CKM_ECDSA), private, &[1; 32]).expect("C_Sign");
    session.verify(&Mechanism::new(CKM_ECDSA), public, &[1; 32], &signature).expect("C_Verify");
    session.close().expect("C_CloseSession");
    assert_eq!(Role::start("try-pin", &format!("{USER_PIN} {}", token.config_text())).succeed(), ["works"]);
}

// ---- CKA_ALWAYS_AUTHENTICATE ----

/// Pairs whose private keys ask for a login before each use: P-256 and RSA.
fn careful_pairs(session: &Session) -> [(Handle, Handle); 2] {
    let private = Template::new()
        .bool(CKA_ALWAYS_AUTHENTICATE, true)
        .bool(CKA_PRIVATE, true)
        .bool(CKA_EXTRACTABLE, true)
        .bool(CKA_SIGN, true);
    let ec = Template::new().bytes(CKA_EC_PARAMS, curve::P256);
    let ec_private = private.clone().bool(CKA_DERIVE, true);
    let rsa = Template::new()
        .ulong(CKA_MODULUS_BITS, 2048)
        .bytes(CKA_PUBLIC_EXPONENT, [1, 0, 1])
        .bool(CKA_ENCRYPT, true)
        .bool(CKA_WRAP, true);
    let rsa_private = private.bool(CKA_DECRYPT, true).bool(CKA_UNWRAP, true);
    let make = |mechanism, public: &Template, private: &Template| {
        session.generate_pair(&Mechanism::new(mechanism), public, private).expect("C_GenerateKeyPair")
    };
    [make(CKM_EC_KEY_PAIR_GEN, &ec, &ec_private), make(CKM_RSA_PKCS_KEY_PAIR_GEN, &rsa, &rsa_private)]
}

#[test]
fn r18_a_key_that_asks_for_a_login_is_no_base_and_unwraps_nothing() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let [ec, rsa] = careful_pairs(&session);
        let secret = Template::class(CKO_SECRET_KEY).ulong(CKA_KEY_TYPE, CKK_AES);
        let point = session.get(ec.0, CKA_EC_POINT).expect("CKA_EC_POINT");
        let ecdh = Mechanism::ecdh1(CKM_ECDH1_DERIVE, CKD_NULL, b"", &point);
        let derived = secret.clone().ulong(CKA_VALUE_LEN, 32);
        assert_rv!(session.derive(&ecdh, ec.1, &derived), CKR_USER_NOT_LOGGED_IN);

        let free = session.aes(32, "free", false, &Template::new()).expect("AES key");
        let oaep = Mechanism::oaep(CKM_RSA_PKCS_OAEP, CKM_SHA256, CKG_MGF1_SHA256, b"");
        let blob = session.wrap(&oaep, rsa.0, free).expect("the public key wraps without ado");
        assert_rv!(session.unwrap(&oaep, rsa.1, &blob, &secret), CKR_USER_NOT_LOGGED_IN);
        assert_rv!(session.login(CKU_CONTEXT_SPECIFIC, USER_PIN), CKR_OPERATION_NOT_INITIALIZED, "nothing waits");

        for key in [ec.1, rsa.1] {
            let answer = session.wrap(&Mechanism::new(CKM_AES_KEY_WRAP_KWP), free, key);
            assert_rv!(answer, CKR_KEY_NOT_WRAPPABLE | CKR_USER_NOT_LOGGED_IN);
        }
        // A login for another operation is none for these.
        session.sign_init(&Mechanism::new(CKM_ECDSA), ec.1).expect("C_SignInit");
        session.login(CKU_CONTEXT_SPECIFIC, USER_PIN).expect("C_Login for the signature");
        assert_rv!(session.derive(&ecdh, ec.1, &derived), CKR_USER_NOT_LOGGED_IN);
        assert_rv!(session.unwrap(&oaep, rsa.1, &blob, &secret), CKR_USER_NOT_LOGGED_IN);
    });
}

/// Signs into a buffer of the right size, without asking for the size first.
fn sign_at_once(session: &Session) -> Result<()> {
    let (rv, _) = session.sized(64, |out, len| {
        call!(session.module, C_Sign(session.handle, [1u8; 32].as_ptr().cast_mut(), 32, out, len))
    });
    check(rv.0)
}

#[test]
fn r18_a_context_login_is_for_the_operation_that_was_started_last() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let [ec, rsa] = careful_pairs(&session);
        let (ecdsa, oaep) =
            (Mechanism::new(CKM_ECDSA), Mechanism::oaep(CKM_RSA_PKCS_OAEP, CKM_SHA256, CKG_MGF1_SHA256, b""));
        let sealed = session.encrypt(&oaep, rsa.0, b"text").expect("C_Encrypt");
        session.sign_init(&ecdsa, ec.1).expect("C_SignInit");
        assert_rv!(sign_at_once(&session), CKR_USER_NOT_LOGGED_IN, "without a login");
        // The refusal may have ended the operation, or not.
        assert_rv!(session.sign_init(&ecdsa, ec.1), CKR_OK | CKR_OPERATION_ACTIVE);
        session.login(CKU_CONTEXT_SPECIFIC, USER_PIN).expect("C_Login for the signature");
        sign_at_once(&session).expect("after the login");
        session.sign_init(&ecdsa, ec.1).expect("C_SignInit");
        assert_rv!(sign_at_once(&session), CKR_USER_NOT_LOGGED_IN, "a login is for one use");

        // Two operations of different kinds, in both orders: the later one is authorised, and it alone.
        let other = token.open();
        other.sign_init(&ecdsa, ec.1).expect("C_SignInit");
        other.decrypt_init(&oaep, rsa.1).expect("C_DecryptInit");
        other.login(CKU_CONTEXT_SPECIFIC, USER_PIN).expect("C_Login for the decryption");
        assert_rv!(sign_at_once(&other), CKR_USER_NOT_LOGGED_IN);
        assert_eq!(other.decrypt_once(&sealed).expect("C_Decrypt"), b"text");
        let other = token.open();
        other.decrypt_init(&oaep, rsa.1).expect("C_DecryptInit");
        other.sign_init(&ecdsa, ec.1).expect("C_SignInit");
        other.login(CKU_CONTEXT_SPECIFIC, USER_PIN).expect("C_Login for the signature");
        assert_eq!(other.sign_once(&[1; 32]).expect("C_Sign").len(), 64);
        let mut room = [0u8; 256];
        let mut len = 256;
        let rv = call!(
            other.module,
            C_Decrypt(other.handle, sealed.as_ptr().cast_mut(), sealed.len() as CK_ULONG, room.as_mut_ptr(), &mut len)
        );
        assert_rv!(check(rv), CKR_USER_NOT_LOGGED_IN);
        assert_eq!(room, [0; 256], "nothing was written");
    });
}

#[test]
fn r51_a_size_query_before_the_context_login_keeps_the_operation() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let [ec, _] = careful_pairs(&session);
        session.sign_init(&Mechanism::new(CKM_ECDSA), ec.1).expect("C_SignInit");
        let mut len = 0;
        let data = [1u8; 32].as_mut_ptr();
        let rv = call!(session.module, C_Sign(session.handle, data, 32, std::ptr::null_mut(), &mut len));
        assert_eq!((Rv(rv), len), (Rv(CKR_OK), 64));
        session.login(CKU_CONTEXT_SPECIFIC, USER_PIN).expect("the operation still waits");
        let signature = session.sign_once(&[1; 32]).expect("C_Sign");
        session.verify(&Mechanism::new(CKM_ECDSA), ec.0, &[1; 32], &signature).expect("C_Verify");
    });
}

// ---- C_CopyObject ----

#[test]
fn r19_a_copy_is_never_less_guarded() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let (_, private) = session.p256("pair", true);
        let secret = session.aes(32, "aes", true, &Template::new()).expect("AES key");
        let note = session.create(&data("note").bool(CKA_PRIVATE, true)).expect("C_CreateObject");
        let public_note = Template::new().bool(CKA_PRIVATE, false);
        for (name, object) in [("private key", private), ("secret key", secret), ("data", note)] {
            for on_token in [false, true] {
                let answer = session.copy(object, &public_note.clone().bool(CKA_TOKEN, on_token));
                assert_rv!(answer, CKR_ATTRIBUTE_READ_ONLY | CKR_TEMPLATE_INCONSISTENT, "{name}: public copy");
            }
        }

        let fixed = data("fixed").bool(CKA_MODIFIABLE, false).bool(CKA_PRIVATE, false);
        let fixed = session.create(&fixed).expect("C_CreateObject");
        let answer = session.copy(fixed, &Template::new().bool(CKA_MODIFIABLE, true));
        assert_rv!(answer, CKR_ATTRIBUTE_READ_ONLY | CKR_TEMPLATE_INCONSISTENT, "a modifiable copy");
        let answer = session.copy(fixed, &Template::new().bytes(CKA_LABEL, "modified"));
        assert_rv!(answer, CKR_ATTRIBUTE_READ_ONLY | CKR_TEMPLATE_INCONSISTENT, "a copy that modifies");
        let copy = session.copy(fixed, &Template::new().bool(CKA_TOKEN, false)).expect("a copy elsewhere");
        assert!(!session.get_bool(copy, CKA_TOKEN).expect("CKA_TOKEN"));
        let copy = session.copy(fixed, &Template::new()).expect("a copy that asks for nothing");
        assert!(!session.get_bool(copy, CKA_MODIFIABLE).expect("CKA_MODIFIABLE"));

        let open = session.create(&data("open").bool(CKA_PRIVATE, false)).expect("C_CreateObject");
        let tighter = Template::new().bool(CKA_PRIVATE, true).bool(CKA_MODIFIABLE, false).bytes(CKA_LABEL, "closed");
        let copy = session.copy(open, &tighter).expect("a copy may be guarded more");
        assert!(session.get_bool(copy, CKA_PRIVATE).expect("CKA_PRIVATE"));
        assert!(!session.get_bool(copy, CKA_MODIFIABLE).expect("CKA_MODIFIABLE"));
        session.logout().expect("C_Logout");
        let closed = session.find(&Template::new().bytes(CKA_LABEL, "closed")).expect("C_FindObjects");
        assert_eq!(closed, [], "and then it is out of reach without login");
        session.find_one(&Template::new().bytes(CKA_LABEL, "open")).expect("what it was copied from stays public");
    });
}

// ---- Races of threads ----

#[test]
fn r04_finalize_racing_with_open_session_leaves_nothing() {
    isolated!(|| {
        let token = TestToken::new();
        token.module.finalize().expect("C_Finalize");
        let (before, baseline) = (threads(), descriptors());
        for round in 0..60 {
            token.initialize().expect("C_Initialize");
            let start = Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        start.wait();
                        open_until_finalized(&token);
                    });
                }
                start.wait();
                stagger(round % 12, Duration::from_micros(300));
                token.module.finalize().expect("C_Finalize");
            });
            assert_rv!(token.module.open(token.slot).map(|_| ()), CKR_CRYPTOKI_NOT_INITIALIZED);
            assert_threads(&before, &format!("round {round}"));
            assert!(descriptors() <= baseline, "round {round}: {} descriptors, {baseline} before", descriptors());
        }
        token.initialize().expect("C_Initialize");
        token.user().p256("still works", true);
    });
}

fn open_until_finalized(token: &TestToken) {
    loop {
        match token.module.open(token.slot).and_then(|session| session.info()) {
            Ok(_) | Err(Rv(CKR_SESSION_HANDLE_INVALID | CKR_SESSION_CLOSED)) => {}
            Err(Rv(CKR_CRYPTOKI_NOT_INITIALIZED | CKR_FUNCTION_CANCELED)) => return,
            Err(rv) => panic!("C_OpenSession while finalising: {rv}"),
        }
    }
}

/// Lists slots again and again, and opens a session on each token of this label, until it is told to stop.
fn list_and_open(module: &'static Module, label: &str, stop: &AtomicBool) -> Vec<(CK_SLOT_ID, Session)> {
    let mut opened = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let mut count = 0;
        check(call!(module, C_GetSlotList(CK_TRUE, std::ptr::null_mut(), &mut count))).expect("C_GetSlotList");
        if let Some(slot) = module.slot_of(label) {
            opened.push((slot, module.open(slot).expect("C_OpenSession")));
        }
    }
    opened
}

#[test]
fn r53_a_slot_has_one_login_state_while_tokens_are_made() {
    isolated!(|| {
        let token = TestToken::new();
        for round in 0..12 {
            let label = format!("round {round}");
            let stop = AtomicBool::new(false);
            let mut opened = std::thread::scope(|scope| {
                let fresh: Vec<_> =
                    (0..2).map(|_| scope.spawn(|| list_and_open(token.module, &label, &stop))).collect();
                let old = scope.spawn(|| list_and_open(token.module, "test", &stop));
                let slot = token.module.init_token(&label, SO_PIN).expect("C_InitToken");
                let session = token.module.open(slot).expect("C_OpenSession");
                std::thread::sleep(Duration::from_millis(5));
                stop.store(true, Ordering::SeqCst);
                let mut opened = vec![(slot, session)];
                for thread in fresh.into_iter().chain([old]) {
                    opened.extend(thread.join().expect("a thread"));
                }
                opened
            });
            opened.push((token.slot, token.open()));
            for slot in opened.iter().map(|row| row.0).collect::<BTreeSet<_>>() {
                let sessions: Vec<Session> = opened.iter().filter(|row| row.0 == slot).map(|row| row.1).collect();
                let all_are = |wanted, when| {
                    for session in &sessions {
                        assert_eq!(state(session), wanted, "round {round}, slot {slot}, {when}");
                    }
                };
                all_are(CKS_RW_PUBLIC_SESSION, "at first");
                sessions[0].login(CKU_SO, SO_PIN).expect("C_Login of the SO");
                all_are(CKS_RW_SO_FUNCTIONS, "after login");
                sessions[sessions.len() - 1].logout().expect("C_Logout, from any session");
                all_are(CKS_RW_PUBLIC_SESSION, "after logout");
                let info = token.module.token_info(slot).expect("C_GetTokenInfo");
                assert_eq!(info.ulSessionCount, sessions.len() as CK_ULONG, "round {round}, slot {slot}");
                token.module.close_all(slot).expect("C_CloseAllSessions");
                assert_rv!(sessions[0].info().map(|_| ()), CKR_SESSION_HANDLE_INVALID);
            }
        }
    });
}

/// Gives the one key of the token this label a hundred times, numbered.
fn relabel(session: &Session, name: &str) {
    let key = session.find_one(&Template::class(CKO_PRIVATE_KEY)).expect("the key");
    for round in 0..100 {
        let label = Template::new().bytes(CKA_LABEL, format!("{name}-{round}"));
        session
            .set(key, &label)
            .unwrap_or_else(|rv| panic!("{name}, round {round}: {rv}: {}", session.module.last_error()));
    }
}

/// Changes the label of the token's key.
pub fn role_relabel(argument: &str) {
    let (name, config) = argument.split_once(' ').expect("name and configuration");
    let session = attach_as_user(config);
    say("ready");
    relabel(&session, name);
    session.module.finalize().expect("C_Finalize");
}

/// Of the writers' labels only the last of one of them can have stayed.
fn assert_last_label(session: &Session, names: [&str; 2]) {
    let key = session.find_one(&Template::class(CKO_PRIVATE_KEY)).expect("the key");
    let label = String::from_utf8(session.get(key, CKA_LABEL).expect("CKA_LABEL")).expect("text");
    assert!(names.map(|name| format!("{name}-99")).contains(&label), "{label} is no writer's last");
    session.sign(&Mechanism::new(CKM_ECDSA), key, &[1; 32]).expect("and the key is whole");
}

#[test]
fn r25_two_processes_change_one_object() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let (_, key) = session.p256("first", true);
        let mut roles = ["p0", "p1"].map(|name| Role::start("relabel", &format!("{name} {}", token.config_text())));
        roles.iter_mut().for_each(|role| role.expect("ready"));
        for role in roles {
            role.succeed();
        }
        assert_last_label(&session, ["p0", "p1"]);
        session.set(key, &Template::new().bytes(CKA_LABEL, "ours")).expect("a change after theirs, by the old handle");
        assert_eq!(session.get(key, CKA_LABEL).expect("CKA_LABEL"), b"ours");
        assert_eq!(session.find(&Template::new().bytes(CKA_LABEL, "ours")).expect("C_FindObjects"), [key]);
    });
}

#[test]
fn r15_two_threads_change_one_object() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        session.p256("first", true);
        std::thread::scope(|scope| {
            for name in ["t0", "t1"] {
                let token = &token;
                scope.spawn(move || relabel(&token.open(), name));
            }
        });
        assert_last_label(&session, ["t0", "t1"]);
    });
}

#[test]
fn r18_login_racing_with_the_end_of_the_last_session() {
    isolated!(|| {
        let token = TestToken::new();
        for round in 0..40 {
            let session = token.open();
            let start = Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    let login = session.login(CKU_USER, USER_PIN);
                    assert_rv!(login, CKR_OK | CKR_SESSION_HANDLE_INVALID | CKR_SESSION_CLOSED, "round {round}");
                });
                start.wait();
                stagger(round / 2 % 20, Duration::from_micros(700));
                match round % 2 {
                    0 => session.close().expect("C_CloseSession"),
                    _ => token.module.close_all(token.slot).expect("C_CloseAllSessions"),
                }
            });
            let fresh = token.open();
            assert_eq!(state(&fresh), CKS_RW_PUBLIC_SESSION, "round {round}: the last session took the login with it");
            fresh.close().expect("C_CloseSession");
        }
    });
}

#[test]
fn r60_login_of_the_so_racing_with_a_read_only_session() {
    isolated!(|| {
        let token = TestToken::new();
        for round in 0..40 {
            let session = token.open();
            let start = Barrier::new(2);
            let (login, reader) = std::thread::scope(|scope| {
                let login = scope.spawn(|| {
                    start.wait();
                    session.login(CKU_SO, SO_PIN)
                });
                start.wait();
                stagger(round % 20, Duration::from_micros(700));
                let reader = token.module.open_read_only(token.slot);
                (login.join().expect("a thread"), reader)
            });
            match (login, reader) {
                (Ok(()), reader) => {
                    assert_rv!(reader.map(|_| ()), CKR_SESSION_READ_WRITE_SO_EXISTS, "round {round}");
                    assert_eq!(state(&session), CKS_RW_SO_FUNCTIONS);
                }
                (login, Ok(reader)) => {
                    assert_rv!(login, CKR_SESSION_READ_ONLY_EXISTS, "round {round}");
                    assert_eq!(state(&reader), CKS_RO_PUBLIC_SESSION, "round {round}");
                    assert_eq!(state(&session), CKS_RW_PUBLIC_SESSION, "round {round}");
                }
                (login, Err(rv)) => panic!("round {round}: both were refused: {login:?}, {rv}"),
            }
            token.module.close_all(token.slot).expect("C_CloseAllSessions");
        }
    });
}

#[test]
fn r59_a_pair_that_is_made_while_its_session_closes_does_not_stay() {
    isolated!(|| {
        let token = TestToken::new();
        let keeper = token.user();
        let race = |round, step, make: &(dyn Fn(&Session) -> Result<()> + Sync)| {
            let session = token.open();
            let start = Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    assert_rv!(make(&session), CKR_OK | CKR_SESSION_HANDLE_INVALID | CKR_SESSION_CLOSED);
                });
                start.wait();
                stagger(round, step);
                session.close().expect("C_CloseSession");
            });
            assert_eq!(classes(&keeper), [], "round {round}: objects without a session");
        };
        for round in 0..100 {
            race(round % 25, Duration::from_micros(20), &|session| {
                session.ec_pair(curve::P256, "late", false).map(|_| ())
            });
        }
        let public = Template::new().ulong(CKA_MODULUS_BITS, 2048).bytes(CKA_PUBLIC_EXPONENT, [1, 0, 1]);
        for round in 0..8 {
            race(round, Duration::from_millis(2), &|session| {
                let mechanism = Mechanism::new(CKM_RSA_PKCS_KEY_PAIR_GEN);
                session.generate_pair(&mechanism, &public, &Template::new()).map(|_| ())
            });
        }
    });
}

// ---- What a key gives away ----

#[test]
fn r17_no_short_key_is_derived_from_a_secret() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let (ours, theirs) = (session.p256("ours", false), session.p256("theirs", false));
        let point = session.get(theirs.0, CKA_EC_POINT).expect("CKA_EC_POINT");
        let generic = Template::class(CKO_SECRET_KEY).ulong(CKA_KEY_TYPE, CKK_GENERIC_SECRET).bool(CKA_SIGN, true);
        let before = classes(&session).len();
        for kdf in [CKD_NULL, CKD_SHA256_KDF] {
            let mechanism = Mechanism::ecdh1(CKM_ECDH1_DERIVE, kdf, b"", &point);
            for len in [1, 2, 8, 15] {
                let answer = session.derive(&mechanism, ours.1, &generic.clone().ulong(CKA_VALUE_LEN, len));
                assert_rv!(answer, CKR_KEY_SIZE_RANGE | CKR_TEMPLATE_INCONSISTENT, "{len} bytes");
            }
            assert_eq!(classes(&session).len(), before, "nothing was made");
            for len in [16, 32] {
                let template = generic.clone().ulong(CKA_VALUE_LEN, len);
                let key = session.derive(&mechanism, ours.1, &template).expect("C_DeriveKey");
                assert_eq!(session.get_ulong(key, CKA_VALUE_LEN).expect("CKA_VALUE_LEN"), len);
                session.destroy(key).expect("C_DestroyObject");
            }
        }
    });
}

#[test]
fn r17_a_key_that_cannot_be_read_cannot_be_digested() {
    isolated!(|| {
        for plaintext in ["never", "import", "compat"] {
            let token = TestToken::with(&Config::plaintext(plaintext));
            let session = token.user();
            // The digest of a key longer than a block is as good as the key in HMAC.
            let template = |sensitive, extractable| {
                Template::new()
                    .ulong(CKA_VALUE_LEN, 80)
                    .bool(CKA_SENSITIVE, sensitive)
                    .bool(CKA_EXTRACTABLE, extractable)
                    .bool(CKA_SIGN, true)
            };
            for (sensitive, extractable) in [(true, true), (true, false), (false, false), (false, true)] {
                let generate = Mechanism::new(CKM_GENERIC_SECRET_KEY_GEN);
                let key = session.generate_key(&generate, &template(sensitive, extractable)).expect("C_GenerateKey");
                session.digest_init(&Mechanism::new(CKM_SHA256)).expect("C_DigestInit");
                let digested = check(call!(token.module, C_DigestKey(session.handle, key)));
                if plaintext == "compat" && !sensitive && extractable {
                    digested.expect("what can be read can be digested");
                    let value = session.get(key, CKA_VALUE).expect("CKA_VALUE");
                    let digest = session.digest_final().expect("C_DigestFinal");
                    assert_eq!(digest, session.digest(&Mechanism::new(CKM_SHA256), &value).expect("C_Digest"));
                } else {
                    assert_rv!(digested, CKR_KEY_INDIGESTIBLE, "{plaintext} {sensitive} {extractable}");
                    assert_rv!(session.digest_final(), CKR_OPERATION_NOT_INITIALIZED);
                }
            }
            token.module.finalize().expect("C_Finalize");
        }
    });
}

#[test]
fn r18_a_digest_over_a_private_key_ends_with_logout() {
    isolated!(|| {
        let token = TestToken::with(&Config::plaintext("compat"));
        let user = token.user();
        let open = Template::new()
            .ulong(CKA_VALUE_LEN, 32)
            .bool(CKA_TOKEN, true)
            .bool(CKA_SENSITIVE, false)
            .bool(CKA_EXTRACTABLE, true);
        let key = user.generate_key(&Mechanism::new(CKM_GENERIC_SECRET_KEY_GEN), &open).expect("generic secret");
        assert!(user.get_bool(key, CKA_PRIVATE).expect("CKA_PRIVATE"));
        let sha = Mechanism::new(CKM_SHA256);
        let [with_key, mixed, plain] = [(); 3].map(|()| token.open());
        for session in [with_key, mixed, plain] {
            session.digest_init(&sha).expect("C_DigestInit");
        }
        let digest_key = |session: Session| check(call!(token.module, C_DigestKey(session.handle, key)));
        digest_key(with_key).expect("C_DigestKey");
        mixed.digest_update(b"before").expect("C_DigestUpdate");
        digest_key(mixed).expect("C_DigestKey");
        mixed.digest_update(b"after").expect("C_DigestUpdate");
        plain.digest_update(b"public").expect("C_DigestUpdate");
        user.logout().expect("C_Logout");
        assert_rv!(with_key.digest_final(), CKR_OPERATION_NOT_INITIALIZED | CKR_USER_NOT_LOGGED_IN);
        assert_rv!(mixed.digest_update(b"x"), CKR_OPERATION_NOT_INITIALIZED | CKR_USER_NOT_LOGGED_IN);
        let digest = plain.digest_final().expect("a digest without a key goes on");
        assert_eq!(digest, user.digest(&sha, b"public").expect("C_Digest"));
        user.login(CKU_USER, USER_PIN).expect("C_Login");
        assert_rv!(with_key.digest_final(), CKR_OPERATION_NOT_INITIALIZED, "a new login does not bring it back");
    });
}

// ---- The token's own objects ----

#[test]
fn r52_profiles_and_mechanisms_are_found_by_their_class_alone() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.open();
        assert_own_objects(&token, &session, "public session");
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        assert_own_objects(&token, &session, "the user");
        session.logout().expect("C_Logout");
        session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
        assert_own_objects(&token, &session, "the SO");
    });
}

fn assert_own_objects(token: &TestToken, session: &Session, who: &str) {
    for template in [Template::new(), Template::new().bool(CKA_TOKEN, true), Template::new().bool(CKA_TOKEN, false)] {
        assert_eq!(session.find(&template).expect("C_FindObjects"), [], "{who}: {template:?}");
    }
    let offered = token.module.mechanisms(token.slot).expect("C_GetMechanismList");
    for (class, kind) in [(CKO_PROFILE, CKA_PROFILE_ID), (CKO_MECHANISM, CKA_MECHANISM_TYPE)] {
        let found = session.find(&Template::class(class)).expect("C_FindObjects");
        assert!(!found.is_empty(), "{who}: objects of class {class:#x}");
        assert!(class == CKO_PROFILE || found.len() == offered.len(), "{who}: one object for each mechanism");
        let mut seen = BTreeSet::new();
        for object in &found {
            assert_eq!(session.get_ulong(*object, CKA_CLASS).expect("CKA_CLASS"), class);
            let id = session.get_ulong(*object, kind).expect("its number");
            assert!(seen.insert(id), "{id:#x} comes twice");
            assert_eq!(session.find(&Template::class(class).ulong(kind, id)).expect("C_FindObjects"), [*object]);
            assert_eq!(session.find(&Template::new().ulong(kind, id)).expect("C_FindObjects"), [], "without the class");
            assert!(class == CKO_PROFILE || offered.contains(&id), "mechanism {id:#x} is not in the list");
        }
        let first = found[0];
        assert_rv!(session.destroy(first), CKR_ACTION_PROHIBITED, "{who}");
        for change in [Template::new().ulong(kind, 1), Template::new().bytes(CKA_LABEL, "mine")] {
            assert_rv!(
                session.set(first, &change),
                CKR_ACTION_PROHIBITED | CKR_ATTRIBUTE_READ_ONLY | CKR_ATTRIBUTE_TYPE_INVALID,
                "{who}"
            );
        }
        assert!(session.copy(first, &Template::new()).is_err(), "{who} copies it");
        assert!(session.create(&Template::class(class).ulong(kind, 1)).is_err(), "{who} makes one");
        assert_eq!(session.find(&Template::class(class)).expect("C_FindObjects"), found, "{who}: all are still there");
    }
}
