//! The story of a key as a Rust program sees it, through `KeyManager` alone and on a real SQLite file.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;

use k256::ecdsa::signature::hazmat::PrehashVerifier;
use k256::ecdsa::{Signature, VerifyingKey};
use k256::pkcs8::DecodePublicKey;
use sha2::{Digest, Sha256};
use strongroom::abi::compose;
use strongroom::config::Config;
use strongroom::error::Kind;
use strongroom::keys::State;
use strongroom::manager::{
    BackupScope, BackupSecrets, ImportOptions, KeyManager, KeyRotationManager, LocalKmsProvider, MigrationOptions,
    Options, Password, QuoteAsset, RotationPolicy, SecureBytes,
};

const OWNER: &str = "user123";
const PASSWORD: &str = "correct horse 1";
const NEXT_PASSWORD: &str = "battery staple 2";

/// A configuration whose store is in `folder`, with a cheap Argon2id.
fn configure(folder: &Path) -> String {
    let file = folder.join("strongroom.toml");
    let text = format!("[store]\nurl = \"sqlite://{}/s.db\"\n[argon2]\nmemory_mib = 8\npasses = 1\n", folder.display());
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

/// Opens the token of `folder` with the master keys in a file there.
fn options(folder: &Path) -> Options {
    let provider = LocalKmsProvider::from_file(folder.join("master.key"));
    Options::new().config(configure(folder)).provider(Box::new(provider)).so_pin(so_pin())
}

fn so_pin() -> SecureBytes {
    SecureBytes::copy_from(b"an SO PIN 1")
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Verifies r ‖ s with the public key alone.
fn verifies(public_key: &[u8], digest: &[u8], signature: &[u8]) -> bool {
    let key = VerifyingKey::from_public_key_der(public_key).unwrap();
    key.verify_prehash(digest, &Signature::from_slice(signature).unwrap()).is_ok()
}

fn recovery_password() -> SecureBytes {
    SecureBytes::copy_from(b"a long recovery password")
}

fn by_paper() -> BackupSecrets {
    BackupSecrets { password: Some(recovery_password()), ..BackupSecrets::default() }
}

/// One test: the open token is that of the process.
#[tokio::test]
async fn a_key_is_made_signs_is_rotated_and_outlives_its_process() {
    let error = KeyManager::list_versions(OWNER, QuoteAsset::Btc).await.unwrap_err();
    assert_eq!(error.kind(), Kind::CryptokiNotInitialized);

    let folder = tempfile::tempdir().unwrap();
    KeyManager::init(options(folder.path())).await.unwrap();
    let first = KeyManager::generate_key(OWNER, QuoteAsset::Btc, PASSWORD).await.unwrap();
    assert!(first.version == 1 && first.address.as_ref().unwrap().starts_with("bc1q"), "{first:?}");
    let again = KeyManager::generate_key(OWNER, QuoteAsset::Btc, PASSWORD).await.unwrap_err();
    assert_eq!(again.kind(), Kind::ActionProhibited);

    let pay = digest("pay 1 to Alice");
    let private = KeyManager::get_private_key(OWNER, QuoteAsset::Btc, PASSWORD).await.unwrap();
    assert!(verifies(&first.public_key, &pay, &private.sign(&pay).unwrap()));
    assert!(!format!("{private:?}").contains(&*private.to_wif().unwrap()));
    assert!(matches!(private.to_wif().unwrap().chars().next(), Some('K' | 'L')));
    assert_eq!(private.address().unwrap(), first.address.clone().unwrap());
    for wrong in [Password::from("wrong password"), Password::NONE] {
        assert!(KeyManager::get_private_key(OWNER, QuoteAsset::Btc, wrong).await.is_err());
    }

    // Wrong passwords lock the key, for the right one too, until somebody with the SO PIN lets it be tried again.
    for _ in 0..10 {
        assert!(KeyManager::get_private_key(OWNER, QuoteAsset::Btc, "wrong password").await.is_err());
    }
    let locked = KeyManager::get_private_key(OWNER, QuoteAsset::Btc, PASSWORD).await.unwrap_err();
    assert_eq!(locked.kind(), Kind::PinLocked);
    let wrong = SecureBytes::copy_from(b"another SO PIN");
    let refused = KeyManager::reset_key_tries(OWNER, QuoteAsset::Btc, wrong).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::PinIncorrect);
    KeyManager::reset_key_tries(OWNER, QuoteAsset::Btc, so_pin()).await.unwrap();
    KeyManager::get_private_key(OWNER, QuoteAsset::Btc, PASSWORD).await.unwrap();

    let second = KeyManager::rotate_key(OWNER, QuoteAsset::Btc, PASSWORD, NEXT_PASSWORD).await.unwrap();
    assert_eq!((second.version, &second.id), (2, &first.id));
    let old = KeyManager::get_private_key_version(OWNER, QuoteAsset::Btc, 1, PASSWORD).await.unwrap();
    assert!(verifies(&first.public_key, &pay, &old.sign(&pay).unwrap()), "an old version signs for who names it");
    let states: Vec<_> =
        KeyManager::list_versions(OWNER, QuoteAsset::Btc).await.unwrap().iter().map(|v| v.state).collect();
    assert_eq!(states, [State::Rotated, State::Active]);
    assert_eq!(KeyManager::rotate_master_key().await.unwrap().version, 2);

    // Closed and opened again, as another process would.
    KeyManager::shutdown().await;
    assert!(KeyManager::find_key(OWNER, QuoteAsset::Btc, 0).await.is_err());
    let other = LocalKmsProvider::new();
    other.add_master_key("master-key-1", SecureBytes::copy_from(&[8; 32])).unwrap();
    let refused = KeyManager::init(Options::new().config(configure(folder.path())).provider(Box::new(other))).await;
    assert!(refused.is_err(), "another master key opens nothing");
    KeyManager::init(options(folder.path())).await.unwrap();
    let left = KeyManager::change_key_password(OWNER, QuoteAsset::Btc, NEXT_PASSWORD, "third secret 3").await.unwrap();
    assert_eq!(left, 1, "version 1 keeps the password that it had");
    let private = KeyManager::get_private_key(OWNER, QuoteAsset::Btc, "third secret 3").await.unwrap();
    assert!(verifies(&second.public_key, &pay, &private.sign(&pay).unwrap()));
    assert_eq!(private.sign_recoverable(&pay).unwrap().len(), 65);

    // Elsewhere: another store, another KMS, another token key.
    let backup = folder.path().join("backup");
    KeyManager::add_recovery_password("paper", recovery_password()).await.unwrap();
    let written = KeyManager::export_backup(&backup, BackupScope::Token).await.unwrap();
    KeyManager::export_backup(&backup, BackupScope::Token).await.expect_err("a file that is there stays");
    KeyManager::shutdown().await;
    let elsewhere = tempfile::tempdir().unwrap();
    KeyManager::init(options(elsewhere.path())).await.unwrap();
    assert!(KeyManager::find_key(OWNER, QuoteAsset::Btc, 0).await.is_err());
    KeyManager::verify_backup(&backup, BackupSecrets::default()).await.expect_err("this KMS does not open it");
    KeyManager::verify_backup(&backup, by_paper()).await.unwrap();
    let (his, as_is) = (BackupScope::Owner(OWNER.to_owned()), ImportOptions::default());
    let whole = KeyManager::import_backup(&backup, BackupScope::Token, by_paper(), as_is).await.unwrap_err();
    assert_eq!(whole.kind(), Kind::ArgumentsBad, "it is another token");
    let done = KeyManager::import_backup(&backup, his, by_paper(), as_is).await.unwrap();
    assert!(written["records"].as_u64() > Some(4) && done["added"] == 4, "two versions, each a pair: {written} {done}");
    for (version, key, password) in [(1, &first, PASSWORD), (2, &second, "third secret 3")] {
        let moved = KeyManager::get_private_key_version(OWNER, QuoteAsset::Btc, version, password).await.unwrap();
        assert!(verifies(&key.public_key, &pay, &moved.sign(&pay).unwrap()));
    }
    let wrong = KeyManager::get_private_key(OWNER, QuoteAsset::Btc, NEXT_PASSWORD).await.unwrap_err();
    assert_eq!(wrong.kind(), Kind::PinIncorrect);
    let third = KeyManager::rotate_key(OWNER, QuoteAsset::Btc, "third secret 3", NEXT_PASSWORD).await.unwrap();
    assert_eq!((third.version, &third.id), (3, &first.id));

    // What is old is destroyed, what was elsewhere is moved in, and all of it is on record.
    let old = KeyManager::find_key(OWNER, QuoteAsset::Btc, 1).await.unwrap();
    let wrong = KeyManager::destroy_version(OWNER, QuoteAsset::Btc, 2, old.unique_id()).await.unwrap_err();
    assert_eq!(wrong.kind(), Kind::ArgumentsBad);
    KeyManager::destroy_version(OWNER, QuoteAsset::Btc, 1, old.unique_id()).await.unwrap();
    let records = elsewhere.path().join("records.jsonl");
    let secret = "0".repeat(63) + "1";
    let record = format!(r#"{{"owner":"legacy","asset":"eth","ciphertext":"{secret}"}}"#);
    std::fs::write(&records, record + "\n").unwrap();
    let moved = KeyManager::import_legacy_hex(&records, None, MigrationOptions::default()).await.unwrap();
    assert_eq!((moved.imported, moved.failed), (1, 0));
    // The address of the private key 1.
    let address = KeyManager::get_address("legacy", QuoteAsset::Eth, 0).await.unwrap();
    assert_eq!(address, "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf");
    let shares = elsewhere.path().join("shares");
    std::fs::create_dir(&shares).unwrap();
    KeyManager::add_recovery_shares("people", 2, 3, &shares).await.unwrap();
    assert_eq!(std::fs::read_dir(&shares).unwrap().count(), 3);
    assert_eq!(KeyManager::list_recovery().await.unwrap()[0]["means"], "shares");
    KeyManager::remove_recovery("people").await.unwrap();
    let trail = KeyManager::verify_audit().await.unwrap();
    assert!(trail.is_clean() && trail.records > 10, "{trail:?}");

    // A key without a password, and rules of its own.
    let plain = KeyManager::generate_key("node", QuoteAsset::Ed25519, Password::NONE).await.unwrap();
    let rotation = KeyRotationManager::new(RotationPolicy { rotation_interval_days: 30, ..RotationPolicy::default() });
    rotation.apply("node", QuoteAsset::Ed25519).await.unwrap();
    assert_eq!(rotation.rotate_due().await.unwrap().rotated.len(), 0, "nothing is due yet");
    let private = KeyManager::get_private_key("node", QuoteAsset::Ed25519, Password::NONE).await.unwrap();
    assert_eq!((private.public_key(), private.sign(b"any message").unwrap().len()), (&plain.public_key[..], 64));
    assert_eq!(private.to_wif().unwrap_err().kind(), Kind::KeyTypeInconsistent);
    KeyManager::shutdown().await;
}

#[test]
fn due_keys_are_looked_for_where_the_configuration_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = configure(folder.path());
    let without = std::fs::read_to_string(&file).unwrap();
    for scheduler in [true, false] {
        std::fs::write(&file, format!("{without}[rotation]\nscheduler = {scheduler}\n")).unwrap();
        let library = compose::library_with(&Config::load(Some(&file)).unwrap(), "wallet", None).unwrap();
        assert_eq!(library.attendant_status().is_some(), scheduler);
    }
}

#[test]
fn rules_and_names_are_those_of_the_c_side() {
    let rules = RotationPolicy::default();
    assert_eq!((rules.rotation_interval_days, rules.max_key_age_days, rules.auto_rotate), (90, 365, true));
    assert!(format!("{:?}", KeyRotationManager::new(rules)).contains("90"));
    assert_eq!(QuoteAsset::Btc.name(), "btc");
}
