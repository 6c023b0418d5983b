//! The master key: wrapping by each mechanism, versions, and what is refused.

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass};

use super::super::super::contract::{self, CONTEXT, secret};
use super::super::super::provider::{Context, KeyState, KmsProvider, MasterKeyId, Wrapped};
use super::super::HsmKms;
use super::super::device::ulong;
use super::harness::{isolated, object, text, tool};
use crate::error::KmsFault;

#[test]
fn the_contract_holds_by_aes_gcm() {
    isolated("wrapping::the_contract_holds_by_aes_gcm", |hsm| {
        hsm.make_master("master", "01");
        let kms = hsm.kms();
        contract::check(&kms);
        assert_eq!(kms.describe().unwrap().algorithms, ["CKM_AES_GCM"]);
        assert_eq!(kms.describe().unwrap().version, "2");
    });
}

#[test]
fn the_contract_holds_by_aes_key_wrap() {
    isolated("wrapping::the_contract_holds_by_aes_key_wrap", |hsm| {
        for (word, name) in [("aes-kw", "CKM_AES_KEY_WRAP"), ("aes-kwp", "CKM_AES_KEY_WRAP_PAD")] {
            hsm.make_master(word, "01");
            let kms = HsmKms::new(&hsm.settings().with("key", text(word)).with("mechanism", text(word))).unwrap();
            contract::check(&kms);
            assert_eq!(kms.describe().unwrap().algorithms, [name]);
        }
        // The key that was an object for a moment is none any more.
        let (_module, session) = hsm.application(super::harness::softhsm());
        assert!(session.find_objects(&[Attribute::Token(false)]).unwrap().is_empty());
    });
}

/// SoftHSM2 2.6 knows OAEP with SHA-1 alone; the other hashes differ by two constants of the parameters (`hash.rs`).
#[test]
fn the_contract_holds_by_rsa_oaep() {
    isolated("wrapping::the_contract_holds_by_rsa_oaep", |hsm| {
        hsm.pkcs11_tool(&["--keypairgen", "--key-type", "rsa:2048", "--label", "master", "--id", "01"]);
        let kms = HsmKms::new(&hsm.settings().with("oaep_hash", text("sha1"))).unwrap();
        contract::check(&kms);
        assert_eq!(kms.describe().unwrap().algorithms, ["CKM_RSA_PKCS_OAEP with SHA-1"]);
        let error = hsm.kms().wrap_key(&secret(), &CONTEXT).unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::Unsupported));
        assert!(error.message().contains("oaep_hash"), "{error}");
    });
}

#[test]
fn every_flipped_bit_of_a_blob_is_told() {
    isolated("wrapping::every_flipped_bit_of_a_blob_is_told", |hsm| {
        hsm.make_master("master", "01");
        for mechanism in ["aes-gcm", "aes-kw"] {
            let kms = HsmKms::new(&hsm.settings().with("mechanism", text(mechanism))).unwrap();
            let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
            for bit in 0..wrapped.blob.len() * 8 {
                let mut blob = wrapped.blob.clone();
                blob[bit / 8] ^= 1 << (bit % 8);
                let error = kms.unwrap_key(&Wrapped { blob, ..wrapped.clone() }, &CONTEXT).unwrap_err();
                let fault = error.kms_fault();
                assert!(
                    matches!(fault, Some(KmsFault::Tampered | KmsFault::WrongContext)),
                    "{mechanism}, bit {bit}: {error}"
                );
            }
        }
    });
}

#[test]
fn blobs_stay_readable_when_the_mechanism_changes() {
    isolated("wrapping::blobs_stay_readable_when_the_mechanism_changes", |hsm| {
        hsm.make_master("master", "01");
        let of = |word| HsmKms::new(&hsm.settings().with("mechanism", text(word))).unwrap();
        let all = ["aes-gcm", "aes-kw", "aes-kwp"].map(|word| of(word).wrap_key(&secret(), &CONTEXT).unwrap());
        for wrapped in &all {
            assert_eq!(of("aes-kw").unwrap_key(wrapped, &CONTEXT).unwrap(), secret());
        }
        let error = of("rsa-oaep").wrap_key(&secret(), &CONTEXT).unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::Unsupported), "{error}");
    });
}

#[test]
fn a_rotation_elsewhere_is_seen_at_once_and_two_at_once_do_no_harm() {
    isolated("wrapping::a_rotation_elsewhere_is_seen_at_once_and_two_at_once_do_no_harm", |hsm| {
        hsm.make_master("master", "01");
        let (here, there) = (hsm.kms(), hsm.kms());
        let old = here.wrap_key(&secret(), &CONTEXT).unwrap();
        assert_eq!(old.master_key.version, 1);
        let rotated = there.rotate_master_key().unwrap();
        let new = here.wrap_key(&secret(), &CONTEXT).unwrap();
        assert_eq!((new.master_key.version, &new.master_key), (2, &rotated));
        // Two keys of version 3, as two processes make that rotate at the same time.
        for end in ["ff", "00"] {
            let id = format!("53524b5600000003{}", end.repeat(8));
            hsm.make_master("master", &id);
        }
        let both = [&here, &there].map(|kms| kms.wrap_key(&secret(), &CONTEXT).unwrap());
        assert_eq!(both[0].master_key, both[1].master_key);
        assert!(both[0].master_key.key.ends_with("%00%03%00%00%00%00%00%00%00%00"), "{}", both[0].master_key);
        for wrapped in both.iter().chain([&old, &new]) {
            assert_eq!(here.unwrap_key(wrapped, &CONTEXT).unwrap(), secret());
        }
        assert_eq!(here.rotate_master_key().unwrap().version, 4);
    });
}

#[test]
fn a_key_that_is_not_alone_is_named_by_its_id() {
    isolated("wrapping::a_key_that_is_not_alone_is_named_by_its_id", |hsm| {
        hsm.make_master("master", "01");
        hsm.make_master("master", "02");
        let error = hsm.kms().wrap_key(&secret(), &CONTEXT).unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::Failed));
        assert!(error.message().contains("key_id"), "{error}");
        let kms = HsmKms::new(&hsm.settings().with("key_id", text("02"))).unwrap();
        let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
        assert!(wrapped.master_key.key.ends_with("id=%02"));
        assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
        assert_eq!(kms.rotate_master_key().unwrap_err().kms_fault(), Some(KmsFault::Unsupported));
        let error = HsmKms::new(&hsm.settings().with("key", text("none"))).unwrap().describe().unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::NotFound), "{error}");
    });
}

#[test]
fn what_the_device_would_not_unwrap_is_not_wrapped() {
    isolated("wrapping::what_the_device_would_not_unwrap_is_not_wrapped", |hsm| {
        for label in ["master", "other"] {
            hsm.pkcs11_tool(&["--keypairgen", "--key-type", "rsa:2048", "--label", label, "--id", "01"]);
        }
        let (_module, session) = hsm.application(super::harness::softhsm());
        let [own, strange] = ["master", "other"].map(|label| object(&session, ObjectClass::PUBLIC_KEY, label));
        let kms = HsmKms::new(&hsm.settings().with("oaep_hash", text("sha1"))).unwrap();
        kms.wrap_key(&secret(), &CONTEXT).unwrap();
        session.destroy_object(own).unwrap();
        let error = kms.wrap_key(&secret(), &CONTEXT).unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::NotFound), "{error}");
        session.update_attributes(strange, &[Attribute::Label(b"master".to_vec())]).unwrap();
        let error = kms.wrap_key(&secret(), &CONTEXT).unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::Failed));
        assert!(error.message().contains("does not unwrap what it has just wrapped"), "{error}");
    });
}

#[test]
fn without_a_master_key_keys_on_the_token_can_be_used() {
    isolated("wrapping::without_a_master_key_keys_on_the_token_can_be_used", |hsm| {
        let mut settings = hsm.settings();
        settings.values.remove("key");
        let kms = HsmKms::new(&settings).unwrap();
        kms.health().unwrap();
        for error in [
            kms.wrap_key(&secret(), &CONTEXT).map(|_| ()).unwrap_err(),
            kms.describe().map(|_| ()).unwrap_err(),
            kms.rotate_master_key().map(|_| ()).unwrap_err(),
        ] {
            assert_eq!(error.kms_fault(), Some(KmsFault::Unsupported));
            assert!(error.message().contains("no master key"), "{error}");
        }
        let settings = settings.with("token", text("away"));
        assert_eq!(HsmKms::new(&settings).unwrap().health().unwrap_err().kms_fault(), Some(KmsFault::Unreachable));
    });
}

#[test]
fn a_master_key_that_can_be_read_is_refused() {
    isolated("wrapping::a_master_key_that_can_be_read_is_refused", |hsm| {
        hsm.pkcs11_tool(&["--keygen", "--key-type", "aes:32", "--label", "master", "--id", "01", "--extractable"]);
        let kms = hsm.kms();
        for error in [kms.wrap_key(&secret(), &CONTEXT).unwrap_err(), kms.health().unwrap_err()] {
            assert_eq!(error.kms_fault(), Some(KmsFault::Failed));
            assert!(error.message().contains("CKA_SENSITIVE"), "{error}");
        }
    });
}

#[test]
fn a_key_without_uses_is_disabled_and_one_that_is_gone_is_not_found() {
    isolated("wrapping::a_key_without_uses_is_disabled_and_one_that_is_gone_is_not_found", |hsm| {
        hsm.make_master("master", "01");
        let kms = hsm.kms();
        let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
        let (_module, session) = hsm.application(super::harness::softhsm());
        let key = object(&session, ObjectClass::SECRET_KEY, "master");
        let uses = |on| [Attribute::Encrypt(on), Attribute::Decrypt(on), Attribute::Wrap(on), Attribute::Unwrap(on)];
        session.update_attributes(key, &uses(false)).unwrap();
        assert_eq!(kms.describe().unwrap().state, KeyState::Disabled);
        for error in [
            kms.health().unwrap_err(),
            kms.wrap_key(&secret(), &CONTEXT).unwrap_err(),
            kms.unwrap_key(&wrapped, &CONTEXT).unwrap_err(),
        ] {
            assert_eq!(error.kms_fault(), Some(KmsFault::Disabled), "{error}");
        }
        session.update_attributes(key, &uses(true)).unwrap();
        assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
        session.destroy_object(key).unwrap();
        for error in [kms.unwrap_key(&wrapped, &CONTEXT).unwrap_err(), kms.wrap_key(&secret(), &CONTEXT).unwrap_err()] {
            assert_eq!(error.kms_fault(), Some(KmsFault::NotFound), "{error}");
        }
    });
}

#[test]
fn a_copy_of_the_key_on_another_token_serves() {
    isolated("wrapping::a_copy_of_the_key_on_another_token_serves", |hsm| {
        hsm.init_token("spare");
        let value = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
        let file = hsm.folder.join("key");
        std::fs::write(&file, data_encoding::HEXLOWER.decode(value.as_bytes()).unwrap()).unwrap();
        let module = super::harness::softhsm().to_str().unwrap();
        for token in ["prod", "spare"] {
            let path = file.to_str().unwrap();
            let start = ["--module", module, "--token-label", token, "--login", "--pin", "1234"];
            let key = [
                "--write-object",
                path,
                "--type",
                "secrkey",
                "--key-type",
                "AES:32",
                "--label",
                "master",
                "--id",
                "01",
            ];
            let uses = ["--usage-decrypt", "--usage-wrap", "--sensitive"];
            tool("pkcs11-tool", &[&start[..], &key, &uses].concat());
        }
        let spare = HsmKms::new(&hsm.settings().with("token", text("spare"))).unwrap();
        let wrapped = hsm.kms().wrap_key(&secret(), &CONTEXT).unwrap();
        assert_ne!(spare.describe().unwrap().master_key, wrapped.master_key, "the serial is another");
        assert_eq!(spare.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
    });
}

#[test]
fn a_blob_does_not_choose_the_key_that_unwraps_it() {
    isolated("wrapping::a_blob_does_not_choose_the_key_that_unwraps_it", |hsm| {
        hsm.make_master("master", "01");
        hsm.make_master("master", "02");
        hsm.make_master("other", "01");
        let by = |key: &str, id: &str| {
            let settings = hsm.settings().with("key", text(key));
            HsmKms::new(&settings.with("key_id", text(id))).unwrap()
        };
        let own = by("master", "01");
        for (key, id) in [("other", "01"), ("master", "02")] {
            let wrapped = by(key, id).wrap_key(&secret(), &CONTEXT).unwrap();
            assert_eq!(by(key, id).unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
            let error = own.unwrap_key(&wrapped, &CONTEXT).unwrap_err();
            assert_eq!(error.kms_fault(), Some(KmsFault::NotFound));
            assert!(error.message().contains(&format!("object={key}")), "{error}");
            assert!(error.message().contains("with the label `master` with the id 01"), "{error}");
        }
    });
}

#[test]
fn with_an_rsa_key_among_the_versions_everybody_can_wrap() {
    isolated("wrapping::with_an_rsa_key_among_the_versions_everybody_can_wrap", |hsm| {
        hsm.make_master("master", "01");
        hsm.make_master("other", "02");
        assert!(!hsm.kms().wraps_by_public_key().unwrap());
        hsm.pkcs11_tool(&["--keypairgen", "--key-type", "rsa:2048", "--label", "master", "--id", "03"]);
        assert!(hsm.kms().wraps_by_public_key().unwrap());
    });
}

#[test]
fn a_name_of_another_provider_is_not_found() {
    isolated("wrapping::a_name_of_another_provider_is_not_found", |hsm| {
        hsm.make_master("master", "01");
        let kms = hsm.kms();
        let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
        let master_key = MasterKeyId { key: "arn:aws:kms:eu-west-1:1:key/2".to_owned(), version: 0 };
        let error = kms.unwrap_key(&Wrapped { master_key, ..wrapped.clone() }, &CONTEXT).unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::NotFound), "{error}");
        let other = Context { purpose: "token-key/so", ..CONTEXT };
        assert_eq!(kms.unwrap_key(&wrapped, &other).unwrap_err().kms_fault(), Some(KmsFault::WrongContext));
    });
}

/// What rotation makes cannot be read or wrapped away, and the device itself made it.
#[test]
fn a_rotated_key_stays_on_the_device() {
    isolated("wrapping::a_rotated_key_stays_on_the_device", |hsm| {
        hsm.make_master("master", "01");
        hsm.kms().rotate_master_key().unwrap();
        let (_module, session) = hsm.application(super::harness::softhsm());
        let found = session.find_objects(&[
            Attribute::Label(b"master".to_vec()),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Local(true),
            Attribute::ValueLen(ulong(32)),
            Attribute::KeyType(KeyType::AES),
        ]);
        assert_eq!(found.unwrap().len(), 2);
        let other =
            session.generate_key(&Mechanism::AesKeyGen, &[Attribute::ValueLen(ulong(32)), Attribute::Wrap(true)]);
        for key in session.find_objects(&[Attribute::Label(b"master".to_vec())]).unwrap() {
            assert!(session.wrap_key(&Mechanism::AesKeyWrap, *other.as_ref().unwrap(), key).is_err());
        }
    });
}
