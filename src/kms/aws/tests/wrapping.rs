//! The master key on the emulator: the contract, rotation, the states of a key, and how many requests each method takes.

use super::service::Service;
use super::*;
use contract::{CONTEXT, secret};

#[test]
fn keeps_the_contract_by_alias_with_rotation_on_demand() {
    let kms = emulated("alias/contract-on-demand");
    let before = kms.describe().unwrap();
    contract::check(&kms);
    let after = kms.describe().unwrap();
    assert_eq!(after.master_key, before.master_key, "the key keeps its ARN");
    assert_ne!(after.version, before.version, "the key has new material");
    assert_eq!(after.algorithms, ["SYMMETRIC_DEFAULT"]);
}

#[test]
fn keeps_the_contract_with_a_new_key_behind_the_alias() {
    let alias = "alias/contract-new-key";
    let old = emulated(alias).describe().unwrap().master_key;
    let own = serde_json::json!({ "Version": "2012-10-17", "Id": "not-the-default", "Statement": [{ "Effect": "Allow",
        "Principal": { "AWS": "arn:aws:iam::000000000000:root" }, "Action": "kms:*", "Resource": "*" }] });
    let settings = settings(Emulator::shared("aws").port, alias).with("region", Setting::Text("us-east-1".to_owned()));
    let kms = AwsKms::new(&settings.with("rotation", Setting::Text("new-key".to_owned())), Arc::new(defaults)).unwrap();
    let (key, policy) = (old.key.clone(), own.to_string());
    admin(&kms, async move |client: Client| {
        client.put_key_policy().key_id(key).policy_name("default").policy(policy).send().await.unwrap();
    });
    let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
    contract::check(&kms);
    let new = kms.describe().unwrap().master_key;
    assert_ne!(new, old);
    assert_eq!((&wrapped.master_key, kms.unwrap_key(&wrapped, &CONTEXT).unwrap()), (&old, secret()));
    let policy = |key: MasterKeyId| {
        admin(&kms, async move |client: Client| {
            client.get_key_policy().key_id(key.key).policy_name("default").send().await.unwrap().policy.unwrap()
        })
    };
    assert_eq!(policy(new), own.to_string(), "the new key has the policy of the old one");
}

#[test]
fn keeps_the_contract_by_arn() {
    let kms = emulated("alias/contract-arn");
    let arn = kms.describe().unwrap().master_key.key;
    contract::check(&on_port(Emulator::shared("aws").port, &arn));
    let id = KeyName::parse(&arn).unwrap().label().to_owned();
    let kms = on_port(Emulator::shared("aws").port, &id);
    assert_eq!(kms.wrap_key(&secret(), &CONTEXT).unwrap().master_key.key, arn);
}

#[test]
fn r51_each_method_is_one_request_on_one_connection() {
    let alias = "alias/counted";
    emulated(alias);
    let service = Service::in_front_of(Emulator::shared("aws").port);
    let kms = on_port(service.port, alias);
    assert_eq!(service.connections(), 0, "nothing is asked before the first method");
    let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
    assert_eq!(service.take_counts(), [("Encrypt".to_owned(), 1)]);
    kms.unwrap_key(&wrapped, &CONTEXT).unwrap();
    assert_eq!(service.take_counts(), [("Decrypt".to_owned(), 1)]);
    kms.generate_data_key(&CONTEXT).unwrap();
    assert_eq!(service.take_counts(), [("GenerateDataKey".to_owned(), 1)]);
    kms.health().unwrap();
    assert_eq!(service.take_counts(), [("DescribeKey".to_owned(), 1)]);
    kms.rotate_master_key().unwrap();
    assert_eq!(service.take_counts(), [("DescribeKey".to_owned(), 1), ("RotateKeyOnDemand".to_owned(), 1)]);
    let other = Context { purpose: "token-key/so", ..CONTEXT };
    assert_eq!(kms.unwrap_key(&wrapped, &other).unwrap_err().kms_fault(), Some(KmsFault::WrongContext));
    assert_eq!(service.take_counts(), [], "another context is told without the service");
    assert_eq!(service.connections(), 1);
}

#[test]
fn the_service_authenticates_the_context_itself() {
    let kms = emulated("alias/context");
    let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
    // A frame for another context around the same ciphertext: only the service can find out.
    let other = Context { purpose: "token-key/so", ..CONTEXT };
    let moved = blob::frame(&other, blob::unframe(&wrapped.blob, &CONTEXT).unwrap()).unwrap();
    assert_eq!(fault(kms.unwrap_key(&Wrapped { blob: moved, ..wrapped }, &other)), KmsFault::Tampered);
}

#[test]
fn a_blob_of_another_key_is_refused() {
    let (one, other) = (emulated("alias/one"), emulated("alias/other"));
    let wrapped = one.wrap_key(&secret(), &CONTEXT).unwrap();
    let master_key = other.describe().unwrap().master_key;
    assert_eq!(fault(one.unwrap_key(&Wrapped { master_key, ..wrapped }, &CONTEXT)), KmsFault::Tampered);
}

#[test]
fn a_blob_does_not_choose_the_key_that_unwraps_it() {
    let other = emulated("alias/chosen-other");
    let wrapped = other.wrap_key(&secret(), &CONTEXT).unwrap();
    let arn = emulated("alias/chosen-own").describe().unwrap().master_key.key;
    let id = KeyName::parse(&arn).unwrap().label().to_owned();
    let service = Service::in_front_of(Emulator::shared("aws").port);
    for name in [&arn, &id] {
        let error = on_port(service.port, name).unwrap_key(&wrapped, &CONTEXT).unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::NotFound));
        let text = error.message();
        assert!(text.contains(&wrapped.master_key.key) && text.contains(&format!("[kms.prod] has `{name}`")), "{text}");
    }
    assert_eq!(service.take_counts(), [], "the service is not asked");
    let own = on_port(service.port, KeyName::parse(&wrapped.master_key.key).unwrap().label());
    assert_eq!(own.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
}

#[test]
fn a_key_that_the_alias_has_left_unwraps_within_its_account_alone() {
    let (old, new) = (emulated("alias/moved"), emulated("alias/moved-to"));
    let wrapped = old.wrap_key(&secret(), &CONTEXT).unwrap();
    let target = KeyName::parse(&new.describe().unwrap().master_key.key).unwrap().label().to_owned();
    admin(&old, async move |client: Client| {
        client.update_alias().alias_name("alias/moved").target_key_id(target).send().await.unwrap();
    });
    let service = Service::in_front_of(Emulator::shared("aws").port);
    let kms = on_port(service.port, "alias/moved");
    assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
    assert_eq!(service.take_counts(), [("Decrypt".to_owned(), 2), ("DescribeKey".to_owned(), 1)]);
    let foreign = wrapped.master_key.key.replace(":000000000000:", ":111122223333:");
    assert_ne!(foreign, wrapped.master_key.key);
    let master_key = MasterKeyId { key: foreign.clone(), version: 0 };
    let error = kms.unwrap_key(&Wrapped { master_key, ..wrapped }, &CONTEXT).unwrap_err();
    assert_eq!(error.kms_fault(), Some(KmsFault::NotFound));
    assert!(error.message().contains(&foreign) && error.message().contains("`alias/moved`"), "{error}");
    assert_eq!(service.take_counts(), [("Decrypt".to_owned(), 1), ("DescribeKey".to_owned(), 1)]);
}

#[test]
fn a_key_that_cannot_be_used_is_told_with_its_state() {
    let kms = emulated("alias/states");
    let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
    let id = wrapped.master_key.key.clone();
    let key = id.clone();
    admin(&kms, async move |client: Client| client.disable_key().key_id(key).send().await.unwrap());
    assert_eq!(kms.describe().unwrap().state, KeyState::Disabled);
    assert_eq!(fault(kms.wrap_key(&secret(), &CONTEXT)), KmsFault::Disabled);
    assert_eq!(fault(kms.unwrap_key(&wrapped, &CONTEXT)), KmsFault::Disabled);
    assert_eq!(kms.health().unwrap_err().kms_fault(), Some(KmsFault::Disabled));
    let key = id.clone();
    admin(&kms, async move |client: Client| client.schedule_key_deletion().key_id(key).send().await.unwrap());
    assert_eq!(kms.describe().unwrap().state, KeyState::PendingDeletion);
    assert_eq!(fault(kms.unwrap_key(&wrapped, &CONTEXT)), KmsFault::Disabled);
    assert!(kms.health().unwrap_err().message().contains("pending-deletion"));
}

#[test]
fn a_key_that_is_not_there_is_told_by_its_name() {
    let kms = on_port(Emulator::shared("aws").port, "alias/nobody-made-this");
    let error = kms.wrap_key(&secret(), &CONTEXT).unwrap_err();
    assert!(error.message().contains("`alias/nobody-made-this`"), "{error}");
    assert_eq!(fault(kms.wrap_key(&secret(), &CONTEXT)), KmsFault::NotFound);
    assert_eq!(fault(kms.describe()), KmsFault::NotFound);
    assert_eq!(fault(kms.rotate_master_key()), KmsFault::NotFound);
}

#[test]
fn a_secret_of_any_length_that_aws_takes_is_wrapped() {
    let kms = emulated("alias/lengths");
    let long = SecureBytes::copy_from(&[7; MAX_MESSAGE]);
    let wrapped = kms.wrap_key(&long, &CONTEXT).unwrap();
    assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), long);
    let error = kms.wrap_key(&SecureBytes::copy_from(&[7; MAX_MESSAGE + 1]), &CONTEXT).unwrap_err();
    assert_eq!(error.kms_fault(), Some(KmsFault::Unsupported));
}

#[test]
fn an_asymmetric_key_is_no_master_key() {
    let kms = emulated("alias/symmetric");
    let key = kms.generate(crate::kms::KeySpec::Rsa(2048), "no-master").unwrap();
    let kms = on_port(Emulator::shared("aws").port, &key.id);
    let error = kms.health().unwrap_err();
    assert!(error.kms_fault() == Some(KmsFault::Unsupported) && error.message().contains("RSA_2048"), "{error}");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let text = |text: &str| Setting::Text(text.to_owned());
    let open = |settings: &Settings| super::super::open(settings).map(|_| ()).unwrap_err();
    let settings = Settings::new("prod", KIND);
    for (settings, word) in [
        (settings.clone(), "`key`"),
        (settings.clone().with("key", text("us-east-1 and more")), "`alias/`"),
        (settings.clone().with("key", text(ARN)).with("region", text("us-east-1")), "`region`"),
        (settings.with("key", text(ARN)).with("rotation", text("new-key")), "alias"),
    ] {
        let error = open(&settings);
        assert!(error.message().contains(word) && !error.message().contains("us-east-1"), "{error}");
    }
}
