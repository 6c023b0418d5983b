//! What must not get past a boundary: of class, policy, login, copy, memory.

use ffi_tests::ck::*;
use ffi_tests::template::curve;
use ffi_tests::{Config, Mechanism, Role, Rv, SO_PIN, Template, TestToken, USER_PIN, assert_rv, call, isolated, token};

/// Whether the module still lists everything.
fn lists_all(session: &ffi_tests::Session) {
    session.find(&Template::new()).expect("a find without a template");
}

#[test]
fn r43_a_class_that_does_not_fit_the_key_type_is_refused() {
    isolated!(|| {
        let token = TestToken::with(&Config::plaintext("compat"));
        let session = token.user();
        let usage = Template::new().bool(CKA_WRAP, true).bool(CKA_UNWRAP, true);
        let wrapping = session.aes(32, "kek", false, &usage).expect("a wrapping key");
        let inner = session.aes(32, "inner", false, &Template::new().bool(CKA_EXTRACTABLE, true)).expect("a key");
        let mechanism = Mechanism::new(CKM_AES_KEY_WRAP_KWP);
        let blob = session.wrap(&mechanism, wrapping, inner).expect("C_WrapKey");
        for (class, key_type) in [
            (CKO_PUBLIC_KEY, CKK_AES),
            (CKO_PRIVATE_KEY, CKK_AES),
            (CKO_PRIVATE_KEY, CKK_GENERIC_SECRET),
            (CKO_SECRET_KEY, CKK_EC),
            (CKO_PUBLIC_KEY, CKK_EC),
            (CKO_DATA, CKK_AES),
        ] {
            let template = Template::class(class).ulong(CKA_KEY_TYPE, key_type).bool(CKA_TOKEN, true);
            let refused = session.unwrap(&mechanism, wrapping, &blob, &template);
            assert!(refused.is_err(), "C_UnwrapKey as class {class:#x}, type {key_type:#x}");
            let created = session.create(&template.bytes(CKA_VALUE, [7; 32]));
            assert!(created.is_err(), "C_CreateObject as class {class:#x}, type {key_type:#x}");
            lists_all(&session);
        }
    });
}

#[test]
fn r17_a_policy_holds_for_keys_that_were_made_under_another() {
    isolated!(|| {
        let token = TestToken::with(&Config::plaintext("compat"));
        let open = Template::new().bool(CKA_SENSITIVE, false).bool(CKA_EXTRACTABLE, true);
        let session = token.user();
        let key = session.aes(32, "open", true, &open).expect("a key that can be read");
        assert_eq!(session.get(key, CKA_VALUE).expect("under compat").len(), 32);
        token.module.finalize().expect("C_Finalize");
        Config::plaintext("never").write(token.directory());
        token.initialize().expect("C_Initialize");
        let session = token.user();
        let key = session.find_one(&Template::class(CKO_SECRET_KEY).bytes(CKA_LABEL, "open")).expect("the key");
        assert_rv!(session.get(key, CKA_VALUE).map(|_| ()), CKR_ATTRIBUTE_SENSITIVE);
        assert!(session.get_bool(key, CKA_SENSITIVE).expect("CKA_SENSITIVE"));
        let copy = session.copy(key, &Template::new().bool(CKA_TOKEN, false)).expect("C_CopyObject");
        assert_rv!(session.get(copy, CKA_VALUE).map(|_| ()), CKR_ATTRIBUTE_SENSITIVE);
    });
}

#[test]
fn r17_a_derived_key_is_too_long_to_be_guessed() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let (public, private) = session.ec_pair(curve::P256, "agree", false).expect("a pair");
        let point = session.get(public, CKA_EC_POINT).expect("CKA_EC_POINT");
        let allow = session.set(private, &Template::new().bool(CKA_DERIVE, true));
        allow.expect("CKA_DERIVE");
        let mechanism = Mechanism::ecdh1(CKM_ECDH1_DERIVE, CKD_NULL, &[], &point);
        for (len, right) in [(1, false), (8, false), (15, false), (16, true), (32, true)] {
            let template =
                Template::class(CKO_SECRET_KEY).ulong(CKA_KEY_TYPE, CKK_GENERIC_SECRET).ulong(CKA_VALUE_LEN, len);
            let derived = session.derive(&mechanism, private, &template);
            match right {
                true => drop(derived.expect("C_DeriveKey")),
                false => assert_rv!(derived.map(|_| ()), CKR_KEY_SIZE_RANGE, "{len} bytes"),
            }
        }
    });
}

#[test]
fn r19_a_copy_never_loosens() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let data = Template::class(CKO_DATA).bytes(CKA_VALUE, "private text");
        let private = session.create(&data.bool(CKA_PRIVATE, true).bool(CKA_MODIFIABLE, false)).expect("data");
        for loosened in [Template::new().bool(CKA_PRIVATE, false), Template::new().bool(CKA_MODIFIABLE, true)] {
            assert_rv!(
                session.copy(private, &loosened).map(|_| ()),
                CKR_ATTRIBUTE_READ_ONLY | CKR_TEMPLATE_INCONSISTENT
            );
        }
        let data = Template::class(CKO_DATA).bytes(CKA_VALUE, "public text");
        let public = session.create(&data.bool(CKA_PRIVATE, false)).expect("data");
        session.copy(public, &Template::new().bool(CKA_PRIVATE, true)).expect("a copy may be tighter");
    });
}

/// Initialises the token of a configuration again, as another program would.
pub fn role_initialize_again(config: &str) {
    let module = token::attach(config);
    let slot = module.slot_of("test").expect("the token");
    module.init_token_in(slot, "test", SO_PIN).expect("C_InitToken");
}

#[test]
fn r54_a_token_that_was_initialised_again_takes_no_pin_from_before() {
    isolated!(|| {
        let token = TestToken::new();
        let label = token.module.token_info(token.slot).expect("C_GetTokenInfo").label;
        assert!(label.starts_with(b"test "), "the role below looks for this label");
        let session = token.open();
        session.login(CKU_SO, SO_PIN).expect("C_Login");
        Role::start("initialize-again", &token.config_text()).succeed();
        assert!(session.init_pin(USER_PIN).is_err(), "the SO of the old token sets no PIN in the new one");
        let _ = session.logout();
        session.login(CKU_SO, SO_PIN).expect("C_Login to the new token");
        session.init_pin(USER_PIN).expect("C_InitPIN");
        session.logout().expect("C_Logout");
        session.login(CKU_USER, USER_PIN).expect("C_Login of the user");
        session.p256("after", true);
        lists_all(&session);
    });
}

#[test]
fn r51_an_own_login_releases_one_operation_and_a_size_query_waits() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let public = Template::new().bytes(CKA_EC_PARAMS, curve::P256);
        let private = Template::new().bool(CKA_ALWAYS_AUTHENTICATE, true).bool(CKA_DERIVE, true);
        let pair = session.generate_pair(&Mechanism::new(CKM_EC_KEY_PAIR_GEN), &public, &private);
        let (public, key) = pair.expect("a pair");
        let mechanism = Mechanism::new(CKM_ECDSA);
        assert_rv!(session.sign(&mechanism, key, &[1; 32]).map(|_| ()), CKR_USER_NOT_LOGGED_IN);
        session.sign_init(&mechanism, key).expect("C_SignInit");
        let (handle, mut data) = (session.handle, [1; 32]);
        let (rv, size) = session
            .sized(0, |_, len| call!(token.module, C_Sign(handle, data.as_mut_ptr(), 32, std::ptr::null_mut(), len)));
        assert_eq!((rv, size), (Rv(CKR_OK), 64), "a size query before the login");
        session.login(CKU_CONTEXT_SPECIFIC, USER_PIN).expect("C_Login");
        session.sign_once(&[1; 32]).expect("C_Sign");
        let point = session.get(public, CKA_EC_POINT).expect("CKA_EC_POINT");
        let derive = Mechanism::ecdh1(CKM_ECDH1_DERIVE, CKD_NULL, &[], &point);
        let template = Template::class(CKO_SECRET_KEY).ulong(CKA_KEY_TYPE, CKK_GENERIC_SECRET);
        assert_rv!(session.derive(&derive, key, &template).map(|_| ()), CKR_USER_NOT_LOGGED_IN);
    });
}

#[test]
fn r02_sessions_opened_beside_finalize_leave_nothing() {
    isolated!(|| {
        let token = TestToken::new();
        let files = || std::fs::read_dir("/proc/self/fd").expect("/proc").count();
        token.module.finalize().expect("C_Finalize");
        let before = files();
        for _ in 0..60 {
            token.initialize().expect("C_Initialize");
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| while token.module.open(token.slot).is_ok() {});
                }
                std::thread::sleep(std::time::Duration::from_millis(3));
                token.module.finalize().expect("C_Finalize");
            });
        }
        assert!(files() <= before + 2, "{before} descriptors before, {} after", files());
    });
}

#[test]
fn r25_threads_that_change_one_object_all_succeed() {
    isolated!(|| {
        let token = TestToken::new();
        let (_, private) = token.user().p256("shared", true);
        std::thread::scope(|scope| {
            for writer in 0..2 {
                let session = token.open();
                scope.spawn(move || {
                    for round in 0..100 {
                        let label = format!("{writer}-{round}");
                        let change = session.set(private, &Template::new().bytes(CKA_LABEL, &label));
                        change.unwrap_or_else(|rv| panic!("{label}: {rv:?}"));
                    }
                });
            }
        });
        assert_eq!(token.open().get(private, CKA_LABEL).expect("CKA_LABEL").get(1..), Some(b"-99".as_slice()));
    });
}

#[test]
fn r44_profiles_and_mechanisms_are_objects_of_the_token() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let profiles = session.find(&Template::class(CKO_PROFILE)).expect("profiles");
        let mechanisms = session.find(&Template::class(CKO_MECHANISM)).expect("mechanisms");
        assert!(!profiles.is_empty());
        assert_eq!(mechanisms.len(), token.module.mechanisms(token.slot).expect("C_GetMechanismList").len());
        assert_eq!(session.find(&Template::new()).expect("everything").len(), 0, "found by who asks for them only");
        for own in profiles.iter().chain(&mechanisms).take(3) {
            assert_rv!(session.destroy(*own), CKR_ACTION_PROHIBITED);
            assert_rv!(session.set(*own, &Template::new().bytes(CKA_LABEL, "x")), CKR_ACTION_PROHIBITED);
        }
    });
}

#[test]
fn r16_a_template_larger_than_memory_is_an_error() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let mut big = vec![7_u8; 16 << 20];
        let mut entries: Vec<CK_ATTRIBUTE> = (0..200)
            .map(|index| CK_ATTRIBUTE {
                type_: CKA_VENDOR_DEFINED | index,
                pValue: big.as_mut_ptr().cast(),
                ulValueLen: 16 << 20,
            })
            .collect();
        let rv = call!(token.module, C_FindObjectsInit(session.handle, entries.as_mut_ptr(), 200));
        assert!(matches!(rv, CKR_ATTRIBUTE_VALUE_INVALID | CKR_ARGUMENTS_BAD | CKR_HOST_MEMORY), "{:?}", Rv(rv));
        lists_all(&session);
    });
}
