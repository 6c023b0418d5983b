//! The same on another device, by hand: `STRONGROOM_TEST_DEVICE` names its module, `STRONGROOM_TEST_DEVICE_TOKEN` the label of a
//! token, `STRONGROOM_TEST_DEVICE_PIN` its PIN, `STRONGROOM_TEST_DEVICE_KEY` the label of a master key that may be rotated, and
//! `STRONGROOM_TEST_DEVICE_MECHANISM` how it wraps. Run it with `cargo test --release --lib -- --ignored another_device`.

use super::super::super::remote::{Ability, DecryptScheme, Hash, KeySpec, RemoteKeys};
use super::super::super::{Setting, Settings, contract};
use super::super::HsmKms;
use super::harness::{SoftHsm, text};
use super::signing::sign_and_verify;
use crate::error::KmsFault;

fn setting(name: &str) -> String {
    let name = format!("STRONGROOM_TEST_DEVICE{name}");
    std::env::var(&name).unwrap_or_else(|_| panic!("{name} must be set"))
}

#[test]
#[ignore = "needs a device that STRONGROOM_TEST_DEVICE names"]
fn another_device_keeps_the_contract_and_signs() {
    let settings = Settings::new("device", "hsm")
        .with("module", Setting::Path(setting("").into()))
        .with("token", text(&setting("_TOKEN")))
        .with("key", text(&setting("_KEY")))
        .with("mechanism", text(&setting("_MECHANISM")))
        .with("pin_env", text("STRONGROOM_TEST_DEVICE_PIN"));
    let kms = HsmKms::new(&settings).unwrap();
    contract::check(&kms);
    let folder = tempfile::tempdir().unwrap();
    let hsm = SoftHsm { folder: folder.path().to_owned() };
    let mut signed = 0;
    for ability in kms.abilities() {
        let Ability::Generate(spec) = *ability else { continue };
        let key = match kms.generate(spec, "trial") {
            Ok(key) => key,
            Err(error) if error.kms_fault() == Some(KmsFault::Unsupported) => continue,
            Err(error) => panic!("{spec:?}: {error}"),
        };
        for ability in kms.abilities() {
            match *ability {
                Ability::Sign(of, scheme) if of == spec => {
                    sign_and_verify(&hsm, &kms, &key, scheme);
                    signed += 1;
                }
                Ability::Mac(of) if of == spec => assert!(!kms.mac(&key, b"message").unwrap().is_empty()),
                Ability::Decrypt(of, scheme) if of == spec && spec == KeySpec::Rsa(2048) => {
                    decrypts(&hsm, &kms, &key, scheme);
                }
                _ => {}
            }
        }
    }
    assert!(signed > 0);
}

/// Decrypts what OpenSSL encrypted; a device may have no use for a scheme.
fn decrypts(hsm: &SoftHsm, kms: &HsmKms, key: &super::super::super::remote::RemoteKey, scheme: DecryptScheme) {
    let ciphertext = match scheme {
        DecryptScheme::RsaOaep(hash) => super::signing::encrypted(hsm, key, Some(hash)),
        DecryptScheme::RsaPkcs1 => super::signing::encrypted(hsm, key, None),
    };
    match kms.decrypt(key, scheme, &ciphertext) {
        Ok(plain) => assert_eq!(plain.expose(), b"hello", "{scheme:?}"),
        Err(error) => {
            assert_eq!(error.kms_fault(), Some(KmsFault::Unsupported), "{scheme:?}: {error}");
            assert_ne!(scheme, DecryptScheme::RsaOaep(Hash::Sha1), "every device has it");
        }
    }
}
