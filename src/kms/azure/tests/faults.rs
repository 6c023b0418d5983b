//! What goes wrong, on the double and on the proxy before it.

use std::time::{Duration, Instant};

use azure_core::time::OffsetDateTime;

use super::keys::{delete, disable, set};
use super::*;
use crate::kms::remote::{Curve, Hash, KeySpec, SignScheme};

#[test]
fn a_disabled_key_says_so_whatever_is_asked_of_it() {
    let kms = master(Double::shared(), "fault-disabled", rsa());
    let wrapped = kms.wrap_key(&contract::secret(), &contract::CONTEXT).unwrap();
    let key = kms.generate(KeySpec::Ec(Curve::P256), "fault disabled too").unwrap();
    disable(&kms, &key);
    set(&kms, "fault-disabled", KeyAttributes { enabled: Some(false), ..Default::default() });
    assert_eq!(fault(kms.wrap_key(&contract::secret(), &contract::CONTEXT)), KmsFault::Disabled);
    assert_eq!(fault(kms.unwrap_key(&wrapped, &contract::CONTEXT)), KmsFault::Disabled);
    assert_eq!(fault(kms.sign(&key, SignScheme::Ecdsa(Hash::Sha256), &[1; 32])), KmsFault::Disabled);
    assert_eq!(fault(kms.health()), KmsFault::Disabled);
    assert_eq!(kms.describe().unwrap().state, KeyState::Disabled);
    set(&kms, "fault-disabled", KeyAttributes { enabled: Some(true), ..Default::default() });
    assert_eq!(kms.unwrap_key(&wrapped, &contract::CONTEXT).unwrap(), contract::secret());
}

#[test]
fn outside_of_its_dates_a_key_wraps_nothing_and_still_unwraps() {
    let kms = master(Double::shared(), "fault-dates", rsa());
    let wrapped = kms.wrap_key(&contract::secret(), &contract::CONTEXT).unwrap();
    let hour = Duration::from_secs(3600);
    let (past, future) = (OffsetDateTime::now_utc() - hour, OffsetDateTime::now_utc() + hour);
    for (attributes, state) in [
        (KeyAttributes { expires: Some(past), ..Default::default() }, "expired"),
        (KeyAttributes { expires: Some(future), not_before: Some(future), ..Default::default() }, "not-yet-valid"),
    ] {
        set(&kms, "fault-dates", attributes);
        assert_eq!(kms.describe().unwrap().state.name(), state);
        assert_eq!(fault(kms.health()), KmsFault::Disabled);
        assert_eq!(fault(kms.wrap_key(&contract::secret(), &contract::CONTEXT)), KmsFault::Disabled);
        assert_eq!(kms.unwrap_key(&wrapped, &contract::CONTEXT).unwrap(), contract::secret());
    }
}

#[test]
fn a_deleted_key_is_not_found() {
    let kms = master(Double::shared(), "fault-deleted", rsa());
    let wrapped = kms.wrap_key(&contract::secret(), &contract::CONTEXT).unwrap();
    kms.run(|vault| async move { delete(&vault, "fault-deleted").await }).unwrap();
    assert_eq!(fault(kms.wrap_key(&contract::secret(), &contract::CONTEXT)), KmsFault::NotFound);
    assert_eq!(fault(kms.unwrap_key(&wrapped, &contract::CONTEXT)), KmsFault::NotFound);
    assert_eq!(fault(kms.health()), KmsFault::NotFound);
    // Its name is not free yet.
    let error = kms.generate(KeySpec::Ec(Curve::P256), "fault-deleted").unwrap_err();
    assert!(error.message().contains("taken by a deleted key"), "{error:?}");
}

#[test]
fn a_key_whose_operations_forbid_it_is_unsupported() {
    let ops = Some(vec![KeyOperation::Verify]);
    let kms = master(Double::shared(), "fault-operations", CreateKeyParameters { key_ops: ops, ..rsa() });
    let key = kms.find("fault-operations").unwrap();
    assert!(!key.uses.sign && !key.uses.decrypt);
    assert_eq!(fault(kms.sign(&key, SignScheme::RsaPkcs1(Hash::Sha256), &[1; 32])), KmsFault::Unsupported);
}

#[test]
fn r67_each_fault_of_the_service_has_its_name_and_one_attempt() {
    let faults = Faults::before(Double::shared());
    let kms = master(&faults.double(), "fault-service", rsa());
    let wrapped = kms.wrap_key(&contract::secret(), &contract::CONTEXT).unwrap();
    for (name, expected) in [
        ("throttle", KmsFault::Throttled(Some(Duration::from_secs(7)))),
        ("internal", KmsFault::Unreachable),
        ("unavailable", KmsFault::Unreachable),
        ("forbidden", KmsFault::Denied),
        ("drop", KmsFault::Unreachable),
        ("lost", KmsFault::Unreachable),
        ("cut", KmsFault::Unreachable),
        ("truncate", KmsFault::Failed),
        ("garbage", KmsFault::Failed),
    ] {
        faults.clear();
        faults.set("unwrapkey", name, 0);
        let error = kms.unwrap_key(&wrapped, &contract::CONTEXT).unwrap_err();
        assert_eq!(error.kms_fault(), Some(expected), "{name}: {error:?}");
        assert!(
            error.message().contains("fault-service") && error.message().contains("https://127.0.0.1"),
            "{error:?}"
        );
        assert_eq!(faults.hits(), "unwrapkey=1", "{name}");
    }
    faults.clear();
    assert_eq!(kms.unwrap_key(&wrapped, &contract::CONTEXT).unwrap(), contract::secret(), "it works again");
}

#[test]
fn a_login_that_the_vault_does_not_take_is_denied_after_a_second_try() {
    let faults = Faults::before(Double::shared());
    let kms = master(&faults.double(), "fault-login", rsa());
    faults.clear();
    faults.set("get", "expired", 0);
    assert_eq!(fault(kms.health()), KmsFault::Denied);
    assert!(faults.hits().contains("get=2"), "a challenge is answered once: {}", faults.hits());
    faults.clear();
    kms.health().unwrap();
}

#[test]
fn a_token_that_is_withdrawn_costs_one_call() {
    let double = Double::start(&[]);
    let kms = master(&double, "fault-withdrawn", rsa());
    double.expire();
    assert_eq!(fault(kms.health()), KmsFault::Denied);
    kms.health().unwrap();
}

#[test]
fn r67_a_service_that_says_nothing_is_given_up_at_the_deadline() {
    let faults = Faults::before(Double::shared());
    let double = faults.double();
    master(&double, "fault-hang", rsa());
    let kms = double.open(&double.settings("fault-hang").with("timeout_seconds", double::Setting::Number(2)));
    kms.health().unwrap();
    faults.hang("get", 5);
    let start = Instant::now();
    let error = kms.health().unwrap_err();
    assert_eq!(error.kms_fault(), Some(KmsFault::TimedOut), "{error:?}");
    assert!(error.message().contains("https://127.0.0.1"), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn a_vault_that_is_not_there_or_not_trusted_is_unreachable() {
    let double = Double::shared();
    let nowhere = double.settings("k").with("vault", double::text("https://127.0.0.1:1"));
    assert_eq!(fault(double.open(&nowhere).health()), KmsFault::Unreachable);
    let unknown = double.settings("k").with("vault", double::text("https://nowhere.invalid"));
    assert_eq!(fault(double.open(&unknown).health()), KmsFault::Unreachable);
    let mut untrusted = double.settings("k");
    untrusted.values.remove("ca_file");
    let error = double.open(&untrusted).health().unwrap_err();
    assert_eq!(error.kms_fault(), Some(KmsFault::Unreachable), "{error:?}");
    assert!(error.message().contains("`ca_file`") && error.message().contains("certificate"), "{}", error.message());
    let mut empty = double.settings("k");
    empty = empty.with("ca_file", double::Setting::Path("/dev/null".into()));
    assert_eq!(fault(double.open(&empty).health()), KmsFault::Failed);
}

#[test]
fn a_challenge_of_a_foreign_domain_is_refused_unless_it_is_allowed() {
    let double = Double::shared();
    let mut careful = double.settings("k");
    careful.values.remove("verify_challenge_resource");
    let error = double.open(&careful).health().unwrap_err();
    assert_eq!(error.kms_fault(), Some(KmsFault::Failed), "{error:?}");
    assert!(error.message().contains("`verify_challenge_resource = false`"), "{}", error.message());
}
