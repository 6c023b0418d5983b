//! Slots and tokens: ids, serials, labels, and what other processes make.

use std::collections::BTreeSet;

use ffi_tests::ck::*;
use ffi_tests::module::padded;
use ffi_tests::{Mechanism, Module, Role, SO_PIN, Template, TestToken, USER_PIN, assert_rv, isolated, say, token};

/// Tells slot and serial of each token.
pub fn role_list_slots(config: &str) {
    let module = token::attach(config);
    for slot in module.slots(true).expect("C_GetSlotList") {
        let info = module.token_info(slot).expect("C_GetTokenInfo");
        if info.flags & CKF_TOKEN_INITIALIZED != 0 {
            say(&format!("{slot} {} {}", padded(&info.serialNumber), padded(&info.label)));
        }
    }
    module.finalize().expect("C_Finalize");
}

fn listed(module: &Module) -> Vec<String> {
    let mut lines = Vec::new();
    for slot in module.slots(true).expect("C_GetSlotList") {
        let info = module.token_info(slot).expect("C_GetTokenInfo");
        if info.flags & CKF_TOKEN_INITIALIZED != 0 {
            lines.push(format!("{slot} {} {}", padded(&info.serialNumber), padded(&info.label)));
        }
    }
    lines
}

#[test]
fn r64_a_wrong_configuration_is_told_to_whoever_uses_a_slot() {
    isolated!(|| {
        let store = TestToken::new();
        store.module.finalize().expect("C_Finalize");
        let text = std::fs::read_to_string(&store.config).expect("the configuration");
        std::fs::write(&store.config, format!("colour = 7\n{text}")).expect("the configuration");
        store.initialize().expect("C_Initialize");
        assert_rv!(store.module.open(store.slot).map(|_| ()), CKR_SLOT_ID_INVALID);
        let told = store.module.last_error();
        assert!(told.contains("colour") && told.contains("strongroom.toml"), "{told}");
    });
}

#[test]
fn r53_slot_ids_are_the_same_everywhere() {
    isolated!(|| {
        let token = TestToken::new();
        for index in 0..5 {
            token::make_token(token.module, &format!("token {index}"));
        }
        let here = listed(token.module);
        assert_eq!(here.len(), 6);
        assert_eq!(listed(token.module), here, "the order is stable");
        assert_eq!(Role::start("list-slots", &token.config_text()).succeed(), here, "in another process");
        token.module.finalize().expect("C_Finalize");
        token.initialize().expect("C_Initialize");
        assert_eq!(listed(token.module), here, "after a restart");
        let second = token.module.slot_of("token 3").expect("the token");
        token.module.init_token_in(second, "token 3 again", SO_PIN).expect("C_InitToken");
        assert_eq!(token.module.slot_of("token 3 again"), Some(second), "after C_InitToken");
    });
}

#[test]
fn r53_slots_and_tokens_describe_themselves() {
    isolated!(|| {
        let token = TestToken::new();
        token::make_token(token.module, "second");
        let mut serials = BTreeSet::new();
        let slots = token.module.slots(false).expect("C_GetSlotList");
        assert!(slots.len() >= 3, "two tokens and room for one more");
        for slot in &slots {
            assert!(*slot < 1 << 31, "slot {slot:#x} does not fit Java's int");
            let info = token.module.slot_info(*slot).expect("C_GetSlotInfo");
            assert!(!padded(&info.slotDescription).is_empty() && !padded(&info.manufacturerID).is_empty());
            for text in [&info.slotDescription[..], &info.manufacturerID[..]] {
                assert!(!text.contains(&0) && std::str::from_utf8(text).is_ok(), "padded with blanks, not NUL");
            }
            let info = token.module.token_info(*slot).expect("C_GetTokenInfo");
            let serial = padded(&info.serialNumber);
            assert!(serial.len() == 16 && serial.bytes().all(|byte| byte.is_ascii_alphanumeric()), "serial {serial:?}");
            assert!(serials.insert(serial), "serials are unique");
            for text in [&info.label[..], &info.manufacturerID, &info.model, &info.serialNumber] {
                assert!(!text.contains(&0) && std::str::from_utf8(text).is_ok(), "padded with blanks, not NUL");
            }
            for text in [&info.manufacturerID[..], &info.model, &info.serialNumber] {
                assert!(!padded(text).is_empty(), "a text of CK_TOKEN_INFO is empty");
            }
            let is_initialized = info.flags & CKF_TOKEN_INITIALIZED != 0;
            assert!(!is_initialized || !padded(&info.label).is_empty(), "a token's label is empty");
            assert_ne!(info.flags & CKF_RNG, 0);
            // A limit, or CK_EFFECTIVELY_INFINITE; never "unavailable".
            assert_ne!(info.ulMaxSessionCount, ffi_tests::UNAVAILABLE);
            assert_ne!(info.ulMaxRwSessionCount, ffi_tests::UNAVAILABLE);
        }
        let unique: BTreeSet<_> = slots.iter().collect();
        assert_eq!(unique.len(), slots.len());
        let info = token.module.info().expect("C_GetInfo");
        assert!(!info.libraryDescription.contains(&0) && !info.manufacturerID.contains(&0));
        assert_eq!(info.flags, 0);
    });
}

#[test]
fn r53_slot_list_follows_the_two_call_convention() {
    isolated!(|| {
        let token = TestToken::new();
        let all = token.module.slots(false).expect("C_GetSlotList").len() as CK_ULONG;
        let mut count = all - 1;
        let mut room = vec![0; all as usize];
        let rv = ffi_tests::call!(token.module, C_GetSlotList(0, room.as_mut_ptr(), &mut count));
        assert_rv!(ffi_tests::check(rv), CKR_BUFFER_TOO_SMALL);
        assert_eq!(count, all);
        let rv = ffi_tests::call!(token.module, C_GetSlotList(0, room.as_mut_ptr(), std::ptr::null_mut()));
        assert_rv!(ffi_tests::check(rv), CKR_ARGUMENTS_BAD);
        let mechanisms = token.module.mechanisms(token.slot).expect("C_GetMechanismList");
        let mut short = mechanisms.len() as CK_ULONG - 1;
        let mut room = vec![0; mechanisms.len()];
        let rv = ffi_tests::call!(token.module, C_GetMechanismList(token.slot, room.as_mut_ptr(), &mut short));
        assert_rv!(ffi_tests::check(rv), CKR_BUFFER_TOO_SMALL);
        assert_eq!(short as usize, mechanisms.len());
        assert_rv!(token.module.slot_info(CK_ULONG::MAX).map(|_| ()), CKR_SLOT_ID_INVALID);
        assert_rv!(token.module.token_info(CK_ULONG::MAX).map(|_| ()), CKR_SLOT_ID_INVALID);
        assert_rv!(token.module.mechanisms(CK_ULONG::MAX), CKR_SLOT_ID_INVALID);
        assert_rv!(token.module.mechanism_info(token.slot, CK_ULONG::MAX).map(|_| ()), CKR_MECHANISM_INVALID);
    });
}

/// Makes a token "elsewhere", and an object in the token "test", on command.
pub fn role_make_things(config: &str) {
    let module = token::attach(config);
    token::make_token(module, "elsewhere");
    say("token");
    let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    session.login(CKU_USER, USER_PIN).expect("C_Login");
    session.p256("elsewhere", true);
    session
        .create(&Template::class(CKO_DATA).bool(CKA_TOKEN, true).bytes(CKA_LABEL, "data").bytes(CKA_VALUE, b"x"))
        .expect("data");
    let mine =
        session.find_one(&Template::class(CKO_PRIVATE_KEY).bytes(CKA_LABEL, "here")).expect("the first process's key");
    session.destroy(mine).expect("C_DestroyObject");
    let both = Template::class(CKO_PUBLIC_KEY).bytes(CKA_LABEL, "here");
    let public = session.find_one(&both).expect("its public half");
    session.set(public, &Template::new().bytes(CKA_LABEL, "renamed")).expect("C_SetAttributeValue");
    module.finalize().expect("C_Finalize");
}

#[test]
fn r54_what_another_process_makes_shows_without_a_restart() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let (public, private) = session.p256("here", true);
        Role::start("make-things", &token.config_text()).succeed();
        assert!(token.module.slot_of("elsewhere").is_some(), "the new token");
        let key =
            session.find_one(&Template::class(CKO_PRIVATE_KEY).bytes(CKA_LABEL, "elsewhere")).expect("the new key");
        session.sign(&Mechanism::new(CKM_ECDSA), key, &[1; 32]).expect("it signs");
        session.find_one(&Template::class(CKO_DATA)).expect("the new data object");
        assert_eq!(
            session.find(&Template::class(CKO_PRIVATE_KEY).bytes(CKA_LABEL, "here")).expect("C_FindObjects"),
            []
        );
        let change = session.set(private, &Template::new().bytes(CKA_LABEL, "back"));
        assert_rv!(change, CKR_OBJECT_HANDLE_INVALID, "the handle of an object that another process destroyed");
        assert_rv!(session.destroy(private), CKR_OBJECT_HANDLE_INVALID);
        let sign = session.sign(&Mechanism::new(CKM_ECDSA), private, &[1; 32]);
        assert_rv!(sign, CKR_KEY_HANDLE_INVALID | CKR_OBJECT_HANDLE_INVALID, "after that it signs no more");
        let renamed =
            session.find(&Template::class(CKO_PUBLIC_KEY).bytes(CKA_LABEL, "renamed")).expect("C_FindObjects");
        assert_eq!(renamed, [public], "the object is found by its new label");
        assert_eq!(session.get(public, CKA_LABEL).expect("C_GetAttributeValue"), b"renamed");
    });
}
