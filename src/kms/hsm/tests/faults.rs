//! What goes wrong: a device that hangs or is away, a wrong PIN, an application that shares the module.

use std::fs;
use std::time::{Duration, Instant};

use cryptoki::object::{Attribute, ObjectClass};

use super::super::super::contract::{self, CONTEXT, secret};
use super::super::super::provider::KmsProvider;
use super::super::super::remote::{Curve, Hash, KeySpec, RemoteKeys, SignScheme};
use super::super::super::{Setting, Settings};
use super::super::HsmKms;
use super::harness::{PIN, SoftHsm, isolated, softhsm, text};
use crate::error::{Kind, KmsFault};

const SCHEME: SignScheme = SignScheme::Ecdsa(Hash::Sha256);

/// A provider behind the shim, with a key that has signed once.
fn signing(hsm: &SoftHsm, seconds: u32) -> (HsmKms, impl Fn(&HsmKms) -> crate::error::Result<Vec<u8>> + use<>) {
    let kms = HsmKms::new(&hsm.shimmed().with("timeout_seconds", Setting::Number(seconds))).unwrap();
    let key = kms.generate(KeySpec::Ec(Curve::P256), "one").unwrap();
    let sign = move |kms: &HsmKms| kms.sign(&key, SCHEME, &[7; 32]);
    sign(&kms).unwrap();
    hsm.calls();
    (kms, sign)
}

#[test]
fn r64_opening_touches_nothing_and_the_error_comes_with_the_use() {
    let settings = Settings::new("vault", "hsm").with("key", text("master"));
    assert_eq!(HsmKms::new(&settings).map(|_| ()).unwrap_err().kind(), Kind::ArgumentsBad);
    let settings = settings.with("module", Setting::Path("/nowhere/module.so".into()));
    let error = HsmKms::new(&settings).unwrap().describe().unwrap_err();
    assert_eq!(error.kms_fault(), Some(KmsFault::Failed));
    assert!(error.message().contains("/nowhere/module.so") && error.message().contains("`vault`"), "{error}");
    // A library that is no module: it has no C_GetFunctionList.
    let libc = fs::read_to_string("/proc/self/maps").unwrap();
    let libc =
        libc.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("/libc.so")).unwrap();
    let error =
        HsmKms::new(&settings.clone().with("module", Setting::Path(libc.into()))).unwrap().health().unwrap_err();
    assert!(error.message().contains("C_GetFunctionList"), "{error}");
    for bad in [("key_id", "xyz"), ("key_id", "123")] {
        let error = HsmKms::new(&settings.clone().with(bad.0, text(bad.1))).map(|_| ()).unwrap_err();
        assert!(error.message().contains("hexadecimal"), "{error}");
    }
}

#[test]
fn r67_a_device_that_hangs_is_given_up_at_the_deadline() {
    isolated("faults::r67_a_device_that_hangs_is_given_up_at_the_deadline", |hsm| {
        let (kms, sign) = signing(hsm, 1);
        hsm.fail("C_Sign hang 1");
        let start = Instant::now();
        // The second waits behind the first, and is not made any more when the device is back: nobody wants it.
        for _ in 0..2 {
            let error = sign(&kms).unwrap_err();
            assert_eq!(error.kms_fault(), Some(KmsFault::TimedOut), "{error}");
        }
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        hsm.heal();
        sign(&kms).unwrap();
        assert_eq!(hsm.calls().iter().filter(|call| *call == "C_Sign").count(), 2);
        hsm.fail("C_Sign hang 1");
        sign(&kms).unwrap_err();
        let start = Instant::now();
        drop(kms);
        assert!(start.elapsed() < Duration::from_secs(3), "the end of a provider does not wait for ever");
    });
}

#[test]
fn a_lost_session_is_opened_again_once() {
    isolated("faults::a_lost_session_is_opened_again_once", |hsm| {
        let (kms, sign) = signing(hsm, 10);
        for (function, rv) in [
            ("C_Sign", 0xB3),      // CKR_SESSION_HANDLE_INVALID
            ("C_SignInit", 0xB0),  // CKR_SESSION_CLOSED
            ("C_Sign", 0x32),      // CKR_DEVICE_REMOVED
            ("C_Sign", 0x30),      // CKR_DEVICE_ERROR
            ("C_SignInit", 0x101), // CKR_USER_NOT_LOGGED_IN
            ("C_SignInit", 0x60),  // CKR_KEY_HANDLE_INVALID
            ("C_SignInit", 0x190), // CKR_CRYPTOKI_NOT_INITIALIZED
        ] {
            hsm.fail(&format!("{function} {rv} 1"));
            sign(&kms).unwrap_or_else(|error| panic!("{function} {rv:#x}: {error}"));
            let calls = hsm.calls();
            assert_eq!(calls.iter().filter(|call| *call == "C_OpenSession").count(), 1, "{rv:#x}: {calls:?}");
            hsm.fail(&format!("{function} {rv} 2"));
            let error = sign(&kms).unwrap_err();
            let fault = error.kms_fault().unwrap();
            assert!(matches!(fault, KmsFault::Unreachable | KmsFault::Denied | KmsFault::NotFound), "{rv:#x}: {error}");
            sign(&kms).unwrap();
            hsm.calls();
        }
        // What a new session does not cure is not tried twice.
        hsm.fail("C_Sign 5 1");
        let error = sign(&kms).unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::Failed), "{error}");
        assert!(!hsm.calls().contains(&"C_OpenSession".to_owned()));
        hsm.fail("C_Sign 0x80000042 1");
        assert!(sign(&kms).unwrap_err().message().contains("0x80000042"));
    });
}

#[test]
fn r67_a_key_that_was_made_and_cannot_be_looked_at_is_not_made_again() {
    isolated("faults::r67_a_key_that_was_made_and_cannot_be_looked_at_is_not_made_again", |hsm| {
        let (kms, _) = signing(hsm, 10);
        // A session that is lost, and one that cannot be had: the first is tried again here, the second by the layer above.
        for (function, rv) in [("C_FindObjectsInit", "0xB3"), ("C_GetAttributeValue", "0xB1")] {
            hsm.fail(&format!("{function} {rv} 1"));
            let error = kms.generate(KeySpec::Ec(Curve::P256), "two").unwrap_err();
            assert!(error.message().contains("object=two") && error.message().contains("was made"), "{error}");
            assert!(!matches!(error.kms_fault(), Some(KmsFault::Throttled(_))), "{error}");
            let calls = hsm.calls();
            assert_eq!(calls.iter().filter(|call| *call == "C_GenerateKeyPair").count(), 1, "{calls:?}");
        }
    });
}

#[test]
fn a_sick_device_is_not_taken_for_a_damaged_blob() {
    isolated("faults::a_sick_device_is_not_taken_for_a_damaged_blob", |hsm| {
        hsm.make_master("master", "01");
        let kms = HsmKms::new(&hsm.shimmed()).unwrap();
        let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
        hsm.fail("C_Decrypt 5 99"); // CKR_GENERAL_ERROR
        let error = kms.unwrap_key(&wrapped, &CONTEXT).unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::Failed), "{error}");
        hsm.fail("C_Decrypt 5 1");
        let error = kms.unwrap_key(&wrapped, &CONTEXT).unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::Tampered), "a new key unwraps, so this blob is at fault: {error}");
        hsm.fail("C_Encrypt 0x31 1"); // CKR_DEVICE_MEMORY
        assert_eq!(kms.wrap_key(&secret(), &CONTEXT).unwrap_err().kms_fault(), Some(KmsFault::Failed));
        assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
    });
}

#[test]
fn a_wrong_pin_is_tried_once() {
    isolated("faults::a_wrong_pin_is_tried_once", |hsm| {
        hsm.make_master("master", "01");
        let settings = hsm.shimmed();
        hsm.write_pin("0000canary");
        let kms = HsmKms::new(&settings).unwrap();
        for _ in 0..3 {
            let error = kms.describe().unwrap_err();
            assert_eq!(error.kms_fault(), Some(KmsFault::Denied));
            assert!(error.message().contains("pin_file") && !format!("{error:?}{error}").contains("canary"), "{error}");
        }
        assert_eq!(hsm.calls().iter().filter(|call| *call == "C_Login").count(), 1);
        hsm.write_pin(PIN);
        kms.health().unwrap();
        let nothing = HsmKms::new(&Settings { values: hsm.settings().values, ..settings });
        nothing.unwrap().health().unwrap();
    });
}

#[test]
fn a_token_that_wants_a_pin_says_so_and_one_that_is_away_is_named() {
    isolated("faults::a_token_that_wants_a_pin_says_so_and_one_that_is_away_is_named", |hsm| {
        hsm.make_master("master", "01");
        let mut settings = hsm.settings();
        settings.values.remove("pin_file");
        let error = HsmKms::new(&settings).unwrap().health().unwrap_err();
        assert!(error.kms_fault() == Some(KmsFault::Denied) && error.message().contains("pin_env"), "{error}");
        let error = HsmKms::new(&hsm.settings().with("token", text("away"))).unwrap().health().unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::Unreachable));
        assert!(error.message().contains("`away`") && error.message().contains("`prod` (serial"), "{error}");
        // Two tokens of one name are told apart by their serials.
        let (module, _session) = hsm.application(softhsm());
        let serial = module.get_token_info(module.get_slots_with_initialized_token().unwrap()[0]).unwrap();
        hsm.init_token("prod");
        let fresh = hsm.shimmed();
        let child = HsmKms::new(&fresh.with("serial", text(serial.serial_number()))).unwrap();
        child.health().unwrap();
    });
}

#[test]
fn the_module_of_the_application_is_shared_and_never_finalised() {
    isolated("faults::the_module_of_the_application_is_shared_and_never_finalised", |hsm| {
        hsm.make_master("master", "01");
        let shim = hsm.shim();
        let (module, session) = hsm.application(&shim);
        let kms = HsmKms::new(&hsm.shimmed()).unwrap();
        contract::check(&kms);
        drop(kms);
        let keys = session.find_objects(&[Attribute::Class(ObjectClass::SECRET_KEY)]).unwrap();
        assert_eq!(keys.len(), 2, "the session of the application is still open and logged in");
        let calls = hsm.calls();
        for never in ["C_Finalize", "C_Logout", "C_CloseAllSessions"] {
            assert!(!calls.contains(&never.to_owned()), "{never}");
        }
        assert_eq!(calls.iter().filter(|call| *call == "C_CloseSession").count(), 2, "one to read, one to make a key");
        // The application ends the module under the provider, which starts it again.
        let kms = HsmKms::new(&hsm.shimmed()).unwrap();
        let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
        drop(session);
        module.finalize().unwrap();
        assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
    });
}

#[test]
fn strongroom_is_refused_as_its_own_device() {
    isolated("faults::strongroom_is_refused_as_its_own_device", |hsm| {
        let kms = HsmKms::new(&hsm.shimmed()).unwrap();
        hsm.fail("C_GetInfo ourselves 1");
        let error = kms.health().unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::Unsupported));
        assert!(error.message().contains("Strongroom itself"), "{error}");
        let calls = hsm.calls();
        assert_eq!(calls, ["C_Initialize", "C_GetInfo", "C_Finalize"], "nothing else is asked of it");
        let (_module, _session) = hsm.application(&hsm.shim());
        hsm.calls();
        hsm.fail("C_GetInfo ourselves 1");
        kms.health().unwrap_err();
        assert_eq!(hsm.calls(), ["C_Initialize", "C_GetInfo"], "the application's own is not finalised");
    });
}

#[test]
fn r14_without_threads_the_caller_does_the_work() {
    isolated("faults::r14_without_threads_the_caller_does_the_work", |hsm| {
        hsm.make_master("master", "01");
        crate::runtime::open(false);
        let kms = hsm.kms();
        contract::check(&kms);
        assert_eq!(threads(), 0);
        // So that the counting is seen to count: with threads there are.
        crate::runtime::close();
        crate::runtime::open(true);
        kms.health().unwrap();
        assert!(threads() > 0);
    });
}

/// Counts the threads of this library in this process.
fn threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| ["strongroom-hsm", "strongroom"].contains(&name.trim())).count()
}

#[test]
fn many_callers_share_one_session() {
    isolated("faults::many_callers_share_one_session", |hsm| {
        hsm.make_master("master", "01");
        let kms = HsmKms::new(&hsm.shimmed()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
                        assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
                    }
                });
            }
        });
        drop(kms);
        let calls = hsm.calls();
        for (call, times) in
            [("C_OpenSession", 1), ("C_CloseSession", 1), ("C_Login", 1), ("C_Encrypt", 160), ("C_Decrypt", 320)]
        {
            assert_eq!(calls.iter().filter(|made| *made == call).count(), times, "{call}");
        }
    });
}
