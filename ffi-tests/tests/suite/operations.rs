//! Operations: their states, sizes and ends; finding; copying.

use std::collections::BTreeSet;

use ffi_tests::ck::*;
use ffi_tests::{Mechanism, Rv, Session, Template, TestToken, assert_rv, call, check, isolated};

use crate::attributes::data;

/// A call with an output, whose size is known.
type Step<'a> = Box<dyn Fn(*mut u8, *mut CK_ULONG) -> CK_RV + 'a>;

/// Proves the output convention on an operation that has just been started: NULL asks for the size, a small buffer is
/// refused with the exact size, both keep the operation, success ends it.
fn output_convention(session: &Session, what: &str, exact: usize, call: Step) {
    // What only the work itself can tell may be told as an upper bound.
    let is_bound = what.starts_with("OAEP") || what.starts_with("CBC");
    let is_told = |len: CK_ULONG| if is_bound { len as usize >= exact } else { len as usize == exact };
    let mut len: CK_ULONG = 0;
    for _ in 0..2 {
        assert_eq!(Rv(call(std::ptr::null_mut(), &mut len)), Rv(CKR_OK), "{what}: size query");
        assert!(is_told(len), "{what}: size query said {len}, needed {exact}");
    }
    if exact > 0 {
        for small in [0, exact / 2, exact - 1] {
            let (rv, needed) = session.sized(small, &call);
            assert_eq!(rv, Rv(CKR_BUFFER_TOO_SMALL), "{what} into {small} bytes");
            assert!(is_told(needed), "{what}: too small said {needed}, needed {exact}");
        }
    }
    let (rv, written) = session.sized(len as usize, &call);
    assert_eq!((rv, written as usize), (Rv(CKR_OK), exact), "{what} into enough room");
}

fn ended<T>(what: &str, answer: ffi_tests::Result<T>) {
    assert_rv!(answer.map(|_| ()), CKR_OPERATION_NOT_INITIALIZED, "{what} is over");
}

#[test]
fn r51_outputs_follow_the_convention_in_every_operation() {
    isolated!(|| {
        let token = TestToken::new();
        let (module, session) = (token.module, token.user());
        let handle = session.handle;
        let aes = session.aes(32, "aes", false, &Template::new()).expect("AES key");
        let (_, ec) = session.p256("ec", false);
        let (rsa_public, rsa) = session.rsa(2048, "rsa", false);
        let mut text = [0x11u8; 32];
        let data = text.as_mut_ptr();

        let ecdsa = Mechanism::new(CKM_ECDSA);
        session.sign_init(&ecdsa, ec).expect("C_SignInit");
        output_convention(
            &session,
            "ECDSA",
            64,
            Box::new(|out, len| call!(module, C_Sign(handle, data, 32, out, len))),
        );
        ended("C_Sign", session.sign_once(&text));

        let pkcs = Mechanism::new(CKM_SHA256_RSA_PKCS);
        session.sign_init(&pkcs, rsa).expect("C_SignInit");
        session.sign_update(b"part").expect("C_SignUpdate");
        output_convention(&session, "RSA", 256, Box::new(|out, len| call!(module, C_SignFinal(handle, out, len))));
        ended("C_SignFinal", session.sign_final());

        let sha = Mechanism::new(CKM_SHA384);
        session.digest_init(&sha).expect("C_DigestInit");
        output_convention(
            &session,
            "digest",
            48,
            Box::new(|out, len| call!(module, C_Digest(handle, data, 32, out, len))),
        );
        ended("C_Digest", session.digest_once(&text));
        session.digest_init(&sha).expect("C_DigestInit");
        session.digest_update(&text).expect("C_DigestUpdate");
        output_convention(
            &session,
            "digest parts",
            48,
            Box::new(|out, len| call!(module, C_DigestFinal(handle, out, len))),
        );
        ended("C_DigestFinal", session.digest_final());

        let gcm = Mechanism::gcm(CKM_AES_GCM, &[9; 12], b"aad", 128);
        session.encrypt_init(&gcm, aes).expect("C_EncryptInit");
        output_convention(
            &session,
            "GCM",
            48,
            Box::new(|out, len| call!(module, C_Encrypt(handle, data, 32, out, len))),
        );
        ended("C_Encrypt", session.encrypt_once(&text));
        let mut sealed = session.encrypt(&gcm, aes, &text).expect("C_Encrypt");
        session.decrypt_init(&gcm, aes).expect("C_DecryptInit");
        let at = sealed.as_mut_ptr();
        output_convention(
            &session,
            "GCM back",
            32,
            Box::new(|out, len| call!(module, C_Decrypt(handle, at, 48, out, len))),
        );
        ended("C_Decrypt", session.decrypt_once(&sealed));

        let cbc = Mechanism::with(CKM_AES_CBC_PAD, [3; 16]);
        session.encrypt_init(&cbc, aes).expect("C_EncryptInit");
        output_convention(
            &session,
            "CBC part",
            32,
            Box::new(|out, len| call!(module, C_EncryptUpdate(handle, data, 32, out, len))),
        );
        output_convention(
            &session,
            "CBC end",
            16,
            Box::new(|out, len| call!(module, C_EncryptFinal(handle, out, len))),
        );
        ended("C_EncryptFinal", session.encrypt_final());

        let oaep = Mechanism::oaep(CKM_RSA_PKCS_OAEP, CKM_SHA256, CKG_MGF1_SHA256, b"");
        let mut cipher = session.encrypt(&oaep, rsa_public, &text).expect("C_Encrypt");
        session.decrypt_init(&oaep, rsa).expect("C_DecryptInit");
        let at = cipher.as_mut_ptr();
        output_convention(
            &session,
            "OAEP",
            32,
            Box::new(|out, len| call!(module, C_Decrypt(handle, at, 256, out, len))),
        );
        ended("C_Decrypt", session.decrypt_once(&cipher));

        let kwp = Mechanism::new(CKM_AES_KEY_WRAP_KWP).raw();
        let step = |out, len| call!(module, C_WrapKey(handle, &raw const kwp as *mut _, aes, aes, out, len));
        output_convention(&session, "wrap", 40, Box::new(step));
    });
}

#[test]
fn r51_every_other_error_ends_the_operation() {
    isolated!(|| {
        let token = TestToken::new();
        let (module, session) = (token.module, token.user());
        let aes = session.aes(32, "aes", false, &Template::new()).expect("AES key");
        let (public, private) = session.p256("ec", false);
        let ecdsa = Mechanism::new(CKM_ECDSA);

        session.verify_init(&ecdsa, public).expect("C_VerifyInit");
        assert_rv!(session.verify_once(&[1; 32], &[1; 64]), CKR_SIGNATURE_INVALID);
        ended("C_Verify", session.verify_once(&[1; 32], &[1; 64]));
        session.verify_init(&ecdsa, public).expect("C_VerifyInit");
        assert_rv!(session.verify_once(&[1; 32], &[1; 63]), CKR_SIGNATURE_LEN_RANGE);
        ended("C_Verify", session.verify_once(&[1; 32], &[1; 64]));

        let cbc = Mechanism::with(CKM_AES_CBC, [1; 16]);
        session.encrypt_init(&cbc, aes).expect("C_EncryptInit");
        let (rv, _) = session.sized(64, |out, len| {
            call!(module, C_Encrypt(session.handle, [0u8; 15].as_ptr().cast_mut(), 15, out, len))
        });
        assert_eq!(rv, Rv(CKR_DATA_LEN_RANGE));
        ended("C_Encrypt", session.encrypt_once(&[0; 16]));
        session.encrypt_init(&cbc, aes).expect("C_EncryptInit");
        session.encrypt_update(&[0; 17]).expect("C_EncryptUpdate");
        let (rv, _) = session.sized(64, |out, len| call!(module, C_EncryptFinal(session.handle, out, len)));
        assert_eq!(rv, Rv(CKR_DATA_LEN_RANGE));
        ended("C_EncryptFinal", session.encrypt_final());

        let gcm = Mechanism::gcm(CKM_AES_GCM, &[9; 12], b"aad", 128);
        let mut sealed = session.encrypt(&gcm, aes, &[5; 32]).expect("C_Encrypt");
        for index in [0, 31, 47] {
            sealed[index] ^= 1;
            session.decrypt_init(&gcm, aes).expect("C_DecryptInit");
            let mut out = [0xa5u8; 64];
            let mut len = 64;
            let rv = call!(module, C_Decrypt(session.handle, sealed.as_mut_ptr(), 48, out.as_mut_ptr(), &mut len));
            assert_rv!(check(rv), CKR_ENCRYPTED_DATA_INVALID | CKR_AEAD_DECRYPT_FAILED);
            assert!(out.iter().all(|byte| *byte != 5), "no plaintext before the tag is right");
            ended("C_Decrypt", session.decrypt_once(&sealed));
            sealed[index] ^= 1;
        }
        session.sign_init(&ecdsa, private).expect("C_SignInit");
        let rv = call!(
            module,
            C_Sign(session.handle, [0u8; 32].as_ptr().cast_mut(), 32, std::ptr::null_mut(), std::ptr::null_mut())
        );
        assert_rv!(check(rv), CKR_ARGUMENTS_BAD);
        ended("C_Sign", session.sign_once(&[0; 32]));
        session.find_init(&Template::new()).expect("C_FindObjectsInit");
        let rv = call!(module, C_FindObjects(session.handle, std::ptr::null_mut(), 1, std::ptr::null_mut()));
        assert_rv!(check(rv), CKR_ARGUMENTS_BAD);
        let _ = session.find_final();
        session.find_init(&Template::new()).expect("a new find can start");
    });
}

#[test]
fn r51_starting_and_cancelling() {
    isolated!(|| {
        let token = TestToken::new();
        let (module, session) = (token.module, token.user());
        let aes = session.aes(32, "aes", false, &Template::new()).expect("AES key");
        let (public, private) = session.p256("ec", false);
        let ecdsa = Mechanism::new(CKM_ECDSA);
        let gcm = Mechanism::gcm(CKM_AES_GCM, &[9; 12], b"", 128);
        let sha = Mechanism::new(CKM_SHA256);

        for what in ["C_Sign", "C_Verify", "C_Encrypt", "C_Decrypt", "C_Digest"] {
            let start = || match what {
                "C_Sign" => session.sign_init(&ecdsa, private),
                "C_Verify" => session.verify_init(&ecdsa, public),
                "C_Encrypt" => session.encrypt_init(&gcm, aes),
                "C_Decrypt" => session.decrypt_init(&gcm, aes),
                _ => session.digest_init(&sha),
            };
            let cancel = || {
                let (null, handle) = (std::ptr::null_mut(), session.handle);
                check(match what {
                    "C_Sign" => call!(module, C_SignInit(handle, null, private)),
                    "C_Verify" => call!(module, C_VerifyInit(handle, null, public)),
                    "C_Encrypt" => call!(module, C_EncryptInit(handle, null, aes)),
                    "C_Decrypt" => call!(module, C_DecryptInit(handle, null, aes)),
                    _ => call!(module, C_DigestInit(handle, null)),
                })
            };
            let go = || match what {
                "C_Sign" => session.sign_once(&[1; 32]).map(|_| ()),
                "C_Verify" => session.verify_once(&[1; 32], &[1; 64]),
                "C_Encrypt" => session.encrypt_once(&[1; 32]).map(|_| ()),
                "C_Decrypt" => session.decrypt_once(&[1; 32]).map(|_| ()),
                _ => session.digest_once(&[1; 32]).map(|_| ()),
            };
            ended(what, go());
            start().unwrap_or_else(|rv| panic!("{what}Init: {rv}"));
            assert_rv!(start(), CKR_OPERATION_ACTIVE, "{what}Init twice");
            cancel().unwrap_or_else(|rv| panic!("{what}Init with NULL cancels: {rv}"));
            ended(what, go());
            start().unwrap_or_else(|rv| panic!("{what}Init after cancelling: {rv}"));
            let _ = go();
            start().unwrap_or_else(|rv| panic!("{what}Init after the end: {rv}"));
            let _ = go();
        }
        // A start that fails leaves nothing active.
        assert_rv!(session.sign_init(&ecdsa, aes), CKR_KEY_TYPE_INCONSISTENT | CKR_KEY_FUNCTION_NOT_PERMITTED);
        assert_rv!(session.sign_init(&ecdsa, CK_ULONG::MAX), CKR_KEY_HANDLE_INVALID);
        assert_rv!(session.sign_init(&Mechanism::new(CK_ULONG::MAX), private), CKR_MECHANISM_INVALID);
        assert_rv!(session.sign_init(&gcm, private), CKR_MECHANISM_INVALID);
        ended("C_Sign", session.sign_once(&[1; 32]));
        session.sign(&ecdsa, private, &[1; 32]).expect("C_Sign");
    });
}

#[test]
fn r51_operations_of_different_kinds_run_side_by_side() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let aes = session.aes(32, "aes", false, &Template::new()).expect("AES key");
        let (public, private) = session.p256("ec", false);
        session.digest_init(&Mechanism::new(CKM_SHA256)).expect("C_DigestInit");
        session.digest_update(b"a").expect("C_DigestUpdate");
        session.find_init(&Template::new()).expect("C_FindObjectsInit");
        session.encrypt_init(&Mechanism::gcm(CKM_AES_GCM, &[9; 12], b"", 128), aes).expect("C_EncryptInit");
        let signature = session.sign(&Mechanism::new(CKM_ECDSA), private, &[1; 32]).expect("C_Sign");
        session.verify(&Mechanism::new(CKM_ECDSA), public, &[1; 32], &signature).expect("C_Verify");
        session.digest_update(b"b").expect("C_DigestUpdate");
        assert_eq!(session.digest_final().expect("C_DigestFinal"), ffi_tests::libcrypto::sha256(b"ab"));
        assert_eq!(session.encrypt_once(b"x").expect("C_Encrypt").len(), 17);
        assert_eq!(session.find_some(10).expect("C_FindObjects").len(), 3);
    });
}

#[test]
fn r51_a_query_of_a_dual_function_moves_neither_operation() {
    isolated!(|| {
        let store = TestToken::new();
        let session = store.user();
        let key = session.aes(32, "key", false, &Template::new()).expect("an AES key");
        session.encrypt_init(&Mechanism::gcm(CKM_AES_GCM, &[9; 12], b"", 128), key).expect("C_EncryptInit");
        assert_rv!(session.digest_encrypt_len(b"abc"), CKR_OPERATION_NOT_INITIALIZED);
        session.digest_init(&Mechanism::new(CKM_SHA256)).expect("C_DigestInit");
        session.digest_encrypt_len(b"abc").expect("C_DigestEncryptUpdate");
        // Both can still be done in one part.
        assert_eq!(session.digest_once(b"abc").expect("C_Digest")[..4], [0xba, 0x78, 0x16, 0xbf]);
        session.encrypt_once(b"abc").expect("C_Encrypt");
    });
}

#[test]
fn r51_a_key_destroyed_in_use_does_no_harm() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let (_, private) = session.p256("ec", true);
        let other = token.open();
        session.sign_init(&Mechanism::new(CKM_ECDSA), private).expect("C_SignInit");
        other.destroy(private).expect("C_DestroyObject");
        // Finishing what was started is fine; so is refusing.
        assert_rv!(session.sign_once(&[1; 32]), CKR_OK | CKR_OPERATION_NOT_INITIALIZED | CKR_KEY_HANDLE_INVALID);
        assert_rv!(
            session.sign_init(&Mechanism::new(CKM_ECDSA), private),
            CKR_KEY_HANDLE_INVALID | CKR_OBJECT_HANDLE_INVALID
        );
    });
}

#[test]
fn r52_a_find_is_a_snapshot_and_other_calls_may_come_between() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let objects: BTreeSet<_> =
            (0..10).map(|index| session.create(&data(&format!("d{index}"))).expect("data")).collect();
        assert_rv!(session.find_some(1), CKR_OPERATION_NOT_INITIALIZED);
        assert_rv!(session.find_final(), CKR_OPERATION_NOT_INITIALIZED);
        session.find_init(&Template::class(CKO_DATA)).expect("C_FindObjectsInit");
        assert_rv!(session.find_init(&Template::new()), CKR_OPERATION_ACTIVE);
        let mut found: BTreeSet<_> = session.find_some(3).expect("C_FindObjects").into_iter().collect();
        assert_eq!(found.len(), 3);
        let first = *found.first().expect("three");
        assert!(session.get(first, CKA_LABEL).expect("C_GetAttributeValue").starts_with(b"d"));
        session.set(first, &Template::new().bytes(CKA_LABEL, "between")).expect("C_SetAttributeValue");
        session.create(&data("too late")).expect("C_CreateObject");
        let other = token.open();
        assert_eq!(other.find(&Template::class(CKO_DATA)).expect("a find in another session").len(), 11);
        assert_eq!(session.find_some(0).expect("none asked"), []);
        loop {
            let some = session.find_some(4).expect("C_FindObjects");
            if some.is_empty() {
                break;
            }
            for object in some {
                assert!(found.insert(object), "an object was found twice");
            }
        }
        assert_eq!(found, objects, "what was there at the start");
        assert_eq!(session.find_some(4).expect("C_FindObjects at the end"), []);
        session.find_final().expect("C_FindObjectsFinal");
        assert_rv!(session.find_final(), CKR_OPERATION_NOT_INITIALIZED);
    });
}

#[test]
fn r52_any_attribute_can_be_asked_for() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let (rsa, _) = session.rsa(2048, "rsa", true);
        session.p256("ec", true);
        let object = session.create(&data("x")).expect("data");
        let modulus = session.get(rsa, CKA_MODULUS).expect("CKA_MODULUS");
        assert_eq!(session.find(&Template::new().bytes(CKA_MODULUS, &modulus)).expect("by modulus").len(), 2);
        assert_eq!(session.find(&Template::new().bytes(CKA_VALUE, [7; 40])).expect("by value"), [object]);
        assert_eq!(session.find(&Template::new().ulong(0x4000_4321, 1)).expect("an unknown attribute"), []);
        assert_eq!(session.find(&Template::new().bool(CKA_SIGN, true)).expect("by use").len(), 2);
        assert_eq!(session.find(&Template::new().ulong(CKA_KEY_TYPE, CKK_EC)).expect("by type").len(), 2);
        let odd = session.find(&Template::new().bytes(CKA_KEY_TYPE, [3]));
        assert!(odd == Ok(vec![]) || odd == Err(Rv(CKR_ATTRIBUTE_VALUE_INVALID)), "a value of a wrong length: {odd:?}");
        assert_eq!(session.find(&Template::new().bytes(CKA_LABEL, "")).expect("an empty label"), []);
        assert_eq!(session.find(&Template::new()).expect("everything").len(), 5);
        let contradiction = Template::class(CKO_DATA).ulong(CKA_CLASS, CKO_PUBLIC_KEY);
        let odd = session.find(&contradiction);
        assert!(odd == Ok(vec![]) || odd == Err(Rv(CKR_TEMPLATE_INCONSISTENT)), "two classes at once: {odd:?}");
    });
}

#[test]
fn r63_a_token_key_can_be_copied_to_the_session() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let (public, private) = session.p256("ec", true);
        let change = Template::new().bool(CKA_TOKEN, false).bytes(CKA_LABEL, "copy");
        let copy = session.copy(private, &change).expect("C_CopyObject");
        assert!(!session.get_bool(copy, CKA_TOKEN).expect("CKA_TOKEN"));
        assert_eq!(session.get(copy, CKA_LABEL).expect("CKA_LABEL"), b"copy");
        let signature = session.sign(&Mechanism::new(CKM_ECDSA), copy, &[1; 32]).expect("C_Sign");
        session.verify(&Mechanism::new(CKM_ECDSA), public, &[1; 32], &signature).expect("C_Verify");
        let back = session.copy(copy, &Template::new().bool(CKA_TOKEN, true)).expect("and back to the token");
        session.destroy(private).expect("C_DestroyObject");
        session.sign(&Mechanism::new(CKM_ECDSA), back, &[1; 32]).expect("the copy is independent");
        session.sign(&Mechanism::new(CKM_ECDSA), copy, &[1; 32]).expect("the copy is independent");
        let reader = token.module.open_read_only(token.slot).expect("C_OpenSession");
        assert_rv!(reader.copy(copy, &Template::new().bool(CKA_TOKEN, true)), CKR_SESSION_READ_ONLY);
        assert_rv!(reader.destroy(back), CKR_SESSION_READ_ONLY);
        assert_rv!(reader.set(back, &Template::new().bytes(CKA_LABEL, "x")), CKR_SESSION_READ_ONLY);
    });
}

#[test]
fn r63_operation_states_are_refused_cleanly() {
    isolated!(|| {
        let token = TestToken::new();
        let (module, session) = (token.module, token.user());
        let mut len = 0;
        session.digest_init(&Mechanism::new(CKM_SHA256)).expect("C_DigestInit");
        let rv = call!(module, C_GetOperationState(session.handle, std::ptr::null_mut(), &mut len));
        assert_rv!(check(rv), CKR_STATE_UNSAVEABLE | CKR_FUNCTION_NOT_SUPPORTED | CKR_OK);
        let mut junk = [0u8; 64];
        let rv = call!(module, C_SetOperationState(session.handle, junk.as_mut_ptr(), 64, 0, 0));
        assert_rv!(check(rv), CKR_SAVED_STATE_INVALID | CKR_FUNCTION_NOT_SUPPORTED | CKR_STATE_UNSAVEABLE);
        session.digest_once(b"x").expect("the operation is unharmed");
        let rv = call!(module, C_GetFunctionStatus(session.handle));
        assert_rv!(check(rv), CKR_FUNCTION_NOT_PARALLEL);
    });
}

#[test]
fn random_bytes_are_random() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.open();
        let drawn: BTreeSet<Vec<u8>> = (0..100).map(|_| session.random(16).expect("C_GenerateRandom")).collect();
        assert_eq!(drawn.len(), 100);
        let long = session.random(1 << 20).expect("a megabyte");
        let ones: u32 = long.iter().map(|byte| byte.count_ones()).sum();
        assert!((4_180_000..4_210_000).contains(&ones), "{ones} of 8 Mi bits are set");
        session.random(0).expect("nothing");
    });
}
