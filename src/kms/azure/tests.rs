//! The provider on `tests/emulators/azure_vault.py`. That is a test double of this project's own, made from the reference that
//! the provider was made from: it shows that requests and answers are what the reference says, with real cryptography on the
//! other side, and proves nothing about the service itself. What the service does otherwise than the double is checked on
//! answers in its documented form (`recorded`).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions)]

mod credentials;
mod double;
mod faults;
mod keys;
mod process;
mod recorded;

use azure_security_keyvault_keys::models::{CreateKeyParameters, KeyAttributes, KeyOperation, KeyType};

use super::*;
use crate::kms::contract;
use double::{Double, Faults};

/// What the wrapping key of a test is made of.
fn rsa() -> CreateKeyParameters {
    CreateKeyParameters { kty: Some(KeyType::Rsa), key_size: Some(2048), ..Default::default() }
}

/// Makes a key and the provider that has it as its master key.
fn master(double: &Double, name: &str, parameters: CreateKeyParameters) -> AzureKeyVault {
    let kms = double.provider(name);
    let name = name.to_owned();
    kms.run(|vault| async move { vault.create(&name, parameters).await }).unwrap();
    kms
}

fn fault<T>(result: Result<T>) -> KmsFault {
    let Err(error) = result else { panic!("must fail") };
    assert!(!format!("{error:?} {}", error.message()).contains(double::SECRET), "a secret shows: {error:?}");
    error.kms_fault().unwrap_or_else(|| panic!("an error without a fault: {error:?}"))
}

#[test]
fn the_contract_holds_with_an_rsa_key() {
    contract::check(&master(Double::shared(), "contract-rsa", rsa()));
}

#[test]
fn the_contract_holds_with_an_rsa_key_of_4096_bits_in_an_hsm() {
    let large = CreateKeyParameters { kty: Some(KeyType::RsaHsm), key_size: Some(4096), ..Default::default() };
    contract::check(&master(Double::shared(), "contract-rsa-hsm", large));
}

#[test]
fn the_contract_holds_with_an_aes_key_of_a_managed_hsm() {
    let aes = CreateKeyParameters { kty: Some(KeyType::OctHsm), key_size: Some(256), ..Default::default() };
    contract::check(&master(Double::shared(), "contract-aes", aes));
}

#[test]
fn r65_each_operation_is_as_few_requests_as_it_can_be() {
    let faults = Faults::before(Double::shared());
    let kms = master(&faults.double(), "counted", rsa());
    let count = |work: &dyn Fn()| {
        faults.clear();
        work();
        faults.hits()
    };
    // The client's first request asked for the challenge, logged in, and was repeated.
    assert_eq!(faults.hits(), "create=2 token=1");
    let wrapped = kms.wrap_key(&contract::secret(), &contract::CONTEXT).unwrap();
    let wrap = || drop(kms.wrap_key(&contract::secret(), &contract::CONTEXT).unwrap());
    assert_eq!(count(&wrap), "get=1 wrapkey=1");
    assert_eq!(count(&|| drop(kms.unwrap_key(&wrapped, &contract::CONTEXT).unwrap())), "unwrapkey=1");
    assert_eq!(count(&|| drop(kms.generate_data_key(&contract::CONTEXT).unwrap())), "get=1 wrapkey=1");
    assert_eq!(count(&|| drop(kms.describe().unwrap())), "get=1");
    assert_eq!(count(&|| kms.health().unwrap()), "get=1");
    assert_eq!(count(&|| drop(kms.rotate_master_key().unwrap())), "rotate=1");
}

#[test]
fn what_may_not_unwrap_again_is_never_wrapped() {
    let double = Double::shared();
    let wrap = |kms: &AzureKeyVault| fault(kms.wrap_key(&contract::secret(), &contract::CONTEXT));
    let disabled = KeyAttributes { enabled: Some(false), ..Default::default() };
    let faults = Faults::before(double);
    let parameters = CreateKeyParameters { key_attributes: Some(disabled), ..rsa() };
    let kms = master(&faults.double(), "wraps-disabled", parameters);
    faults.clear();
    assert_eq!(wrap(&kms), KmsFault::Disabled);
    // The double refuses to wrap with a disabled key; the service is reported to wrap (azure-sdk-for-python#45342).
    assert_eq!(faults.hits(), "get=1", "it is refused here");
    let ops = Some(vec![KeyOperation::WrapKey]);
    let kms = master(double, "wraps-one-way", CreateKeyParameters { key_ops: ops, ..rsa() });
    assert_eq!(wrap(&kms), KmsFault::Unsupported);
    let ec = CreateKeyParameters { kty: Some(KeyType::Ec), ..Default::default() };
    assert_eq!(wrap(&master(double, "wraps-ec", ec)), KmsFault::Unsupported);
    assert_eq!(wrap(&double.provider("wraps-nothing")), KmsFault::NotFound);
}

#[test]
fn a_blob_of_another_vault_opens_where_its_key_was_restored() {
    // The double names keys by the host it was asked for: `localhost` and `127.0.0.1` are two vaults with the same keys.
    let double = Double::shared();
    let kms = master(double, "restored", rsa());
    let wrapped = kms.wrap_key(&contract::secret(), &contract::CONTEXT).unwrap();
    assert!(wrapped.master_key.key.starts_with("https://127.0.0.1:"), "{}", wrapped.master_key);
    let other = double.open(&double.settings("restored").with("vault", double::text(&double.url("localhost"))));
    assert!(other.describe().unwrap().master_key.key.starts_with("https://localhost:"));
    assert_eq!(other.unwrap_key(&wrapped, &contract::CONTEXT).unwrap(), contract::secret());
}

#[test]
fn a_blob_does_not_choose_the_key_that_unwraps_it() {
    let double = Double::shared();
    let (own, other) = (master(double, "chosen-own", rsa()), master(double, "chosen-other", rsa()));
    let wrapped = other.wrap_key(&contract::secret(), &contract::CONTEXT).unwrap();
    assert_eq!(other.unwrap_key(&wrapped, &contract::CONTEXT).unwrap(), contract::secret());
    let error = own.unwrap_key(&wrapped, &contract::CONTEXT).unwrap_err();
    assert_eq!(error.kms_fault(), Some(KmsFault::NotFound));
    assert!(error.message().contains("chosen-other") && error.message().contains("`chosen-own`"), "{error}");
}

#[test]
fn with_an_rsa_key_everybody_can_wrap() {
    let aes = CreateKeyParameters { kty: Some(KeyType::OctHsm), key_size: Some(256), ..Default::default() };
    for (name, parameters, public) in [("public-rsa", rsa(), true), ("public-aes", aes, false)] {
        assert_eq!(master(Double::shared(), name, parameters).wraps_by_public_key().unwrap(), public);
    }
}

#[test]
fn a_stored_name_cannot_become_another_path() {
    for bad in [
        "",
        "https://v.vault.azure.net/keys/name",
        "https://v.vault.azure.net/keys/../secrets/x",
        "https://v.vault.azure.net/keys/name/..",
        "https://v.vault.azure.net/keys/name/1?x=1",
        "https://v.vault.azure.net/keys/name/1/2",
        "https://v.vault.azure.net/keys/%2e/1",
        "http://v.vault.azure.net/keys/name/1",
        "https://v.vault.azure.net/secrets/name/1",
    ] {
        assert_eq!(KeyId::parse(bad), None, "{bad}");
    }
    let id = KeyId::parse("https://v.vault.azure.net/keys/name-1/0a1b").unwrap();
    assert_eq!((id.name.as_str(), id.version.as_str()), ("name-1", "0a1b"));
}

#[test]
fn settings_that_cannot_work_are_refused_when_opened() {
    let settings = Settings::new("prod", KIND);
    let with =
        |vault: &str, key: &str| settings.clone().with("vault", double::text(vault)).with("key", double::text(key));
    let good = "https://v.vault.azure.net";
    open(&with(good, "k")).map(drop).unwrap();
    open(&with("https://v.vault.azure.net/", "k")).map(drop).unwrap();
    for (vault, key, named) in [
        ("http://v.vault.azure.net", "k", "https://"),
        ("v.vault.azure.net", "k", "vault"),
        ("https://v.vault.azure.net/keys/k", "k", "vault"),
        ("https://v.vault.azure.net/?x=1", "k", "vault"),
        ("https://user@v.vault.azure.net", "k", "vault"),
        (good, "k/0123", "key"),
        (good, "a_b", "key"),
        (good, "", "key"),
    ] {
        let Err(error) = open(&with(vault, key)) else { panic!("{vault} {key} must be refused") };
        let message = error.message();
        assert!(message.contains("`prod`") && message.contains(named), "{message}");
        assert!(["v.vault", "0123", "a_b"].iter().all(|text| !message.contains(text)), "{message}");
    }
    for lacking in [&settings, &settings.clone().with("vault", double::text(good))] {
        assert!(open(lacking).is_err());
    }
}

#[test]
fn r64_opening_touches_nothing() {
    let missing = double::Setting::Path("/nonexistent/file".into());
    let settings = Settings::new("offline", KIND)
        .with("vault", double::text("https://nowhere.invalid"))
        .with("key", double::text("k"))
        .with("ca_file", missing.clone())
        .with("client_secret_file", missing);
    let kms = open(&settings).unwrap();
    assert_eq!(fault(kms.health()), KmsFault::Failed, "the file is missed with the first call");
}
