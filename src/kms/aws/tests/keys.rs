//! The keys of the service: each ability of the table on the emulator, checked with the OpenSSL command, which is another library
//! than the service's and ours; Ed25519, which that emulator lacks, with a service of the tests' own.

use std::path::Path;
use std::process::Command;

use der::Encode;
use der::asn1::UintRef;
use sha2::Digest;

use super::service::{Answer, Request, Service};
use super::*;
use crate::kms::{Ability, Curve, DecryptScheme, Hash, KeySpec as Spec, RemoteKey, SignScheme};

const MESSAGE: &[u8] = b"what is signed";

fn digest(hash: Hash) -> (&'static str, Vec<u8>) {
    match hash {
        Hash::Sha256 => ("sha256", sha2::Sha256::digest(MESSAGE).to_vec()),
        Hash::Sha384 => ("sha384", sha2::Sha384::digest(MESSAGE).to_vec()),
        Hash::Sha512 => ("sha512", sha2::Sha512::digest(MESSAGE).to_vec()),
        Hash::Sha1 | Hash::Sha224 => panic!("AWS signs no such digest"),
    }
}

/// Runs `openssl pkeyutl` in a folder, and tells whether it went well.
fn openssl(folder: &Path, arguments: &[&str]) -> bool {
    Command::new("openssl").arg("pkeyutl").args(arguments).current_dir(folder).output().unwrap().status.success()
}

/// Checks a signature over [`MESSAGE`] with OpenSSL.
fn verifies(key: &RemoteKey, scheme: SignScheme, signature: &[u8]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("public", key.public.as_ref().unwrap());
    let (input, options): (_, Vec<String>) = match scheme {
        SignScheme::Ed25519 => (MESSAGE.to_vec(), vec!["-rawin".to_owned()]),
        SignScheme::Ecdsa(hash) => (digest(hash).1, Vec::new()),
        SignScheme::RsaPkcs1(hash) => (digest(hash).1, vec![format!("-pkeyopt=digest:{}", digest(hash).0)]),
        SignScheme::RsaPss(hash) => {
            let name = digest(hash).0;
            let options = [
                "rsa_padding_mode:pss",
                "rsa_pss_saltlen:digest",
                &format!("digest:{name}"),
                &format!("rsa_mgf1_md:{name}"),
            ];
            (digest(hash).1, options.iter().map(|option| format!("-pkeyopt={option}")).collect())
        }
    };
    write("input", &input);
    match key.spec {
        Spec::Ec(curve) => {
            assert_eq!(signature.len(), 2 * curve.width());
            let (r, s) = signature.split_at(curve.width());
            let numbers = [UintRef::new(r).unwrap(), UintRef::new(s).unwrap()];
            write("signature", &numbers.to_vec().to_der().unwrap());
        }
        _ => write("signature", signature),
    }
    let options = options.iter().flat_map(|option| option.splitn(2, '=')).collect::<Vec<_>>();
    let fixed = ["-verify", "-pubin", "-keyform", "DER", "-inkey", "public", "-in", "input", "-sigfile", "signature"];
    openssl(folder.path(), &[&fixed[..], &options].concat())
}

#[test]
fn r27_r31_every_signature_of_the_table_verifies_elsewhere() {
    let kms = emulated("alias/signing");
    let mut signed = 0;
    for row in kms.abilities().iter().filter_map(|ability| match ability {
        Ability::Generate(spec) if !matches!(spec, Spec::Ed25519 | Spec::Hmac(_)) => Some(*spec),
        _ => None,
    }) {
        let key = kms.generate(row, &format!("sign {row:?}")).unwrap();
        assert_eq!((key.spec, key.uses.sign, key.uses.decrypt), (row, true, false));
        for ability in kms.abilities() {
            let Ability::Sign(spec, scheme) = *ability else { continue };
            if spec != row {
                continue;
            }
            let (SignScheme::Ecdsa(hash) | SignScheme::RsaPkcs1(hash) | SignScheme::RsaPss(hash)) = scheme else {
                continue;
            };
            let mut signature = kms.sign(&key, scheme, &digest(hash).1).unwrap();
            assert!(verifies(&key, scheme, &signature), "{spec:?} {scheme:?}");
            *signature.last_mut().unwrap() ^= 1;
            assert!(!verifies(&key, scheme, &signature), "OpenSSL must find what was altered");
            signed += 1;
        }
    }
    assert_eq!(signed, 4 + 3 * 6);
}

#[test]
fn r27_short_numbers_of_a_signature_get_the_width_of_the_curve() {
    // SEQUENCE { INTEGER 1, INTEGER 0x80 }, which no key would make in a lifetime.
    let service = Service::start(|request| {
        let short = data_encoding::BASE64.encode(&[0x30, 7, 2, 1, 1, 2, 2, 0, 0x80]);
        assert_eq!(request.json()["MessageType"], "DIGEST");
        Some(Answer::json(&serde_json::json!({ "KeyId": ARN, "Signature": short })))
    });
    let kms = on_port(service.port, ARN);
    for (curve, hash) in [
        (Curve::P256, Hash::Sha256),
        (Curve::P384, Hash::Sha384),
        (Curve::P521, Hash::Sha512),
        (Curve::Secp256k1, Hash::Sha256),
    ] {
        let key = RemoteKey { spec: Spec::Ec(curve), ..unknown() };
        let signature = kms.sign(&key, SignScheme::Ecdsa(hash), &digest(hash).1).unwrap();
        assert_eq!(signature.len(), 2 * curve.width());
        assert_eq!((signature[curve.width() - 1], signature[2 * curve.width() - 1]), (1, 0x80));
        assert_eq!(signature.iter().filter(|byte| **byte != 0).count(), 2);
    }
}

/// Gives a key as the caller's layer makes it up from its own record.
fn unknown() -> RemoteKey {
    RemoteKey {
        id: ARN.to_owned(),
        label: String::new(),
        spec: Spec::Ec(Curve::P384),
        uses: crate::kms::Uses::default(),
        state: KeyState::Enabled,
        public: None,
    }
}

#[test]
fn r27_ed25519_signs_the_message_itself() {
    // The emulator has no Ed25519. (MiniStack 1.5.33 has; what is signed there verifies as well.) This service signs with OpenSSL, and only what AWS documents: RAW, ED25519_SHA_512.
    let (folder, public) = key_pair(&["-algorithm", "ed25519"]);
    let service = Service::start(move |request| {
        let body = request.json();
        if request.operation() != "Sign" {
            return Some(found(request, &public, "ECC_NIST_EDWARDS25519", "SIGN_VERIFY"));
        }
        if body["MessageType"] != "RAW" || body["SigningAlgorithm"] != "ED25519_SHA_512" || body["KeyId"] != ARN {
            return Some(Answer::error(400, "ValidationException", "not as AWS documents it"));
        }
        std::fs::write(folder.path().join("message"), from_base64(&body["Message"])).unwrap();
        let sign = ["-sign", "-rawin", "-inkey", "key", "-in", "message", "-out", "signature"];
        assert!(openssl(folder.path(), &sign));
        let signature = data_encoding::BASE64.encode(&std::fs::read(folder.path().join("signature")).unwrap());
        Some(Answer::json(&serde_json::json!({ "KeyId": ARN, "Signature": signature })))
    });
    let kms = on_port(service.port, ARN);
    let key = kms.find("alias/ed").unwrap();
    let mut signature = kms.sign(&key, SignScheme::Ed25519, MESSAGE).unwrap();
    assert!(verifies(&key, SignScheme::Ed25519, &signature));
    signature[0] ^= 1;
    assert!(!verifies(&key, SignScheme::Ed25519, &signature));
    let long = vec![0; MAX_MESSAGE + 1];
    assert_eq!(kms.sign(&key, SignScheme::Ed25519, &long).unwrap_err().kms_fault(), Some(KmsFault::Unsupported));
}

#[test]
fn what_openssl_encrypts_decrypts_there() {
    let kms = emulated("alias/decrypting");
    for bits in [2048, 3072, 4096] {
        let id = made(&kms, &format!("RSA_{bits}"), "ENCRYPT_DECRYPT", None);
        let key = kms.find(&id).unwrap();
        assert!(key.spec == Spec::Rsa(bits) && key.uses.decrypt && !key.uses.sign);
        let plain = kms.decrypt(&key, DecryptScheme::RsaOaep(Hash::Sha256), &encrypted(&key, "sha256")).unwrap();
        assert_eq!(plain.expose(), MESSAGE, "{bits}");
        let error = kms.decrypt(&key, DecryptScheme::RsaPkcs1, &[0; 256]).unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::Unsupported));
    }
}

#[test]
fn what_openssl_encrypts_decrypts_with_sha_1_and_altered_it_does_not() {
    // The emulator takes SHA-256 whatever is asked, and answers InternalError for an altered ciphertext. This service decrypts with
    // OpenSSL by the algorithm that is named, and answers as AWS documents it.
    let (folder, public) = key_pair(&["-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let service = Service::start(move |request| {
        let body = request.json();
        if request.operation() != "Decrypt" {
            return Some(found(request, &public, "RSA_2048", "ENCRYPT_DECRYPT"));
        }
        let hash = match body["EncryptionAlgorithm"].as_str() {
            Some("RSAES_OAEP_SHA_1") => "sha1",
            Some("RSAES_OAEP_SHA_256") => "sha256",
            _ => return Some(Answer::error(400, "ValidationException", "not as AWS documents it")),
        };
        std::fs::write(folder.path().join("input"), from_base64(&body["CiphertextBlob"])).unwrap();
        let (oaep, mgf1) = (format!("rsa_oaep_md:{hash}"), format!("rsa_mgf1_md:{hash}"));
        let fixed =
            ["-decrypt", "-inkey", "key", "-in", "input", "-out", "output", "-pkeyopt", "rsa_padding_mode:oaep"];
        if !openssl(folder.path(), &[&fixed[..], &["-pkeyopt", &oaep, "-pkeyopt", &mgf1]].concat()) {
            return Some(Answer::error(400, "InvalidCiphertextException", ""));
        }
        let plain = std::fs::read(folder.path().join("output")).unwrap();
        Some(Answer::json(&serde_json::json!({ "KeyId": ARN, "Plaintext": data_encoding::BASE64.encode(&plain) })))
    });
    let kms = on_port(service.port, ARN);
    let key = kms.find("rsa").unwrap();
    for (hash, name) in [(Hash::Sha1, "sha1"), (Hash::Sha256, "sha256")] {
        let mut ciphertext = encrypted(&key, name);
        let decrypt = |bytes: &[u8]| kms.decrypt(&key, DecryptScheme::RsaOaep(hash), bytes);
        assert_eq!(decrypt(&ciphertext).unwrap().expose(), MESSAGE, "{name}");
        ciphertext[100] ^= 1;
        assert_eq!(fault(decrypt(&ciphertext)), KmsFault::Tampered, "{name}");
    }
}

/// Makes a key pair with OpenSSL: the private key is the file `key` of the folder.
fn key_pair(arguments: &[&str]) -> (tempfile::TempDir, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| Command::new("openssl").args(arguments).current_dir(folder.path()).output().unwrap();
    run(&[&["genpkey", "-out", "key"], arguments].concat());
    let public = run(&["pkey", "-in", "key", "-pubout", "-outform", "DER"]).stdout;
    (folder, public)
}

/// Answers what is asked when a key is looked for.
fn found(request: &Request, public: &[u8], spec: &str, usage: &str) -> Answer {
    if request.operation() == "DescribeKey" {
        return Answer::error(400, "AccessDeniedException", "not authorized to perform: kms:DescribeKey");
    }
    let public = data_encoding::BASE64.encode(public);
    Answer::json(&serde_json::json!({ "KeyId": ARN, "PublicKey": public, "KeySpec": spec, "KeyUsage": usage }))
}

fn from_base64(value: &serde_json::Value) -> Vec<u8> {
    data_encoding::BASE64.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

/// Encrypts [`MESSAGE`] with OpenSSL.
fn encrypted(key: &RemoteKey, hash: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("public"), key.public.as_ref().unwrap()).unwrap();
    std::fs::write(folder.path().join("input"), MESSAGE).unwrap();
    let (oaep, mgf1) = (format!("rsa_oaep_md:{hash}"), format!("rsa_mgf1_md:{hash}"));
    let fixed = ["-encrypt", "-pubin", "-keyform", "DER", "-inkey", "public", "-in", "input", "-out", "output"];
    let options = ["-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", &oaep, "-pkeyopt", &mgf1];
    assert!(openssl(folder.path(), &[&fixed[..], &options].concat()));
    std::fs::read(folder.path().join("output")).unwrap()
}

/// Makes a key on the emulator as an operator would, and tells its id; a tag of the emulator's own sets a MAC key's value.
fn made(kms: &AwsKms, spec: &str, usage: &str, value: Option<&[u8]>) -> String {
    use aws_sdk_kms::types::{KeyUsageType, Tag};
    let (spec, usage) = (KeySpec::from(spec), KeyUsageType::from(usage));
    let value = value.map(|value| data_encoding::BASE64.encode(value));
    let tag = value.map(|value| Tag::builder().tag_key("_custom_key_material_").tag_value(value).build().unwrap());
    admin(kms, async move |client: Client| {
        let request = client.create_key().key_spec(spec).key_usage(usage).set_tags(tag.map(|tag| vec![tag]));
        request.send().await.unwrap().key_metadata.unwrap().key_id
    })
}

#[test]
fn macs_are_those_of_another_library() {
    let kms = emulated("alias/macs");
    let value = [0x5A; 64];
    for (hash, bits) in [(Hash::Sha224, 224), (Hash::Sha256, 256), (Hash::Sha384, 384), (Hash::Sha512, 512)] {
        let key = kms.find(&made(&kms, &format!("HMAC_{bits}"), "GENERATE_VERIFY_MAC", Some(&value))).unwrap();
        assert!(key.spec == Spec::Hmac(hash) && key.uses.mac && key.public.is_none());
        let mac = kms.mac(&key, MESSAGE).unwrap();
        let hexkey = format!("hexkey:{}", data_encoding::HEXLOWER.encode(&value));
        let mut openssl = Command::new("openssl");
        openssl.args(["dgst", &format!("-sha{bits}"), "-mac", "HMAC", "-macopt", &hexkey, "-binary"]);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("input"), MESSAGE).unwrap();
        assert_eq!(mac, openssl.arg("input").current_dir(folder.path()).output().unwrap().stdout);
        let error = kms.mac(&key, &[0; MAX_MESSAGE + 1]).unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::Unsupported));
    }
    let made = kms.generate(Spec::Hmac(Hash::Sha256), "a mac key").unwrap();
    assert_eq!((made.label.as_str(), kms.mac(&made, MESSAGE).unwrap().len()), ("a-mac-key", 32));
}

#[test]
fn r65_a_named_key_is_found_without_a_listing() {
    let service = Service::in_front_of(Emulator::shared("aws").port);
    let kms = on_port(service.port, "alias/unused");
    let key = kms.generate(Spec::Ec(Curve::Secp256k1), "wallet 7").unwrap();
    assert_eq!(key.label, "wallet-7");
    let counts = [("CreateAlias".to_owned(), 1), ("CreateKey".to_owned(), 1), ("GetPublicKey".to_owned(), 1)];
    assert_eq!(service.take_counts(), counts);
    let id = KeyName::parse(&key.id).unwrap().label().to_owned();
    for name in [key.id.as_str(), "alias/wallet-7", "wallet-7", &id] {
        let found = kms.find(name).unwrap();
        assert_eq!((&found.id, &found.public, found.spec), (&key.id, &key.public, key.spec), "{name}");
        assert_eq!(service.take_counts(), [("DescribeKey".to_owned(), 1), ("GetPublicKey".to_owned(), 1)]);
    }
    kms.sign(&key, SignScheme::Ecdsa(Hash::Sha256), &[1; 32]).unwrap();
    assert_eq!(service.take_counts(), [("Sign".to_owned(), 1)]);
    let mac = kms.generate(Spec::Hmac(Hash::Sha512), "mac 7").unwrap();
    service.take_counts();
    assert_eq!(kms.find("mac-7").unwrap(), mac);
    assert_eq!(service.take_counts(), [("DescribeKey".to_owned(), 1), ("GetPublicKey".to_owned(), 1)]);
    kms.mac(&mac, b"x").unwrap();
    assert_eq!(service.take_counts(), [("GenerateMac".to_owned(), 1)]);
    assert!(service.connections() <= 2, "two requests at once, and never more");
}

#[test]
fn r65_a_signing_key_is_found_without_the_permission_to_describe_it() {
    let disabled = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = disabled.clone();
    let service = Service::start(move |request| {
        Some(match (request.operation().as_str(), told.load(std::sync::atomic::Ordering::Relaxed)) {
            ("GetPublicKey", _) => Answer::json(&serde_json::json!({ "KeyId": ARN, "PublicKey": "eA==",
                "KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY" })),
            (_, false) => Answer::error(400, "AccessDeniedException", "not authorized to perform: kms:DescribeKey"),
            (_, true) => Answer::json(&serde_json::json!({ "KeyMetadata": { "KeyId": "x", "Arn": ARN,
                "KeyState": "Disabled", "KeyUsage": "SIGN_VERIFY", "KeySpec": "ECC_NIST_P256" } })),
        })
    });
    let kms = on_port(service.port, ARN);
    assert_eq!(kms.find("ec").unwrap().id, ARN);
    disabled.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(fault(kms.find("ec")), KmsFault::Disabled);
}

#[test]
fn r65_a_mac_key_is_found_without_the_permission_for_public_keys() {
    let metadata = |usage: &str, spec: &str| {
        Answer::json(&serde_json::json!({ "KeyMetadata": { "KeyId": "1234abcd-12ab-34cd-56ef-1234567890ab", "Arn": ARN,
            "KeyState": "Enabled", "KeyUsage": usage, "KeySpec": spec } }))
    };
    let service = Service::start(move |request| {
        Some(match (request.operation().as_str(), request.json()["KeyId"].as_str().unwrap()) {
            ("DescribeKey", "alias/mac") => metadata("GENERATE_VERIFY_MAC", "HMAC_384"),
            ("DescribeKey", "alias/ec") => metadata("SIGN_VERIFY", "ECC_NIST_P256"),
            _ => Answer::error(400, "AccessDeniedException", "User: x is not authorized to perform: kms:GetPublicKey"),
        })
    });
    let kms = on_port(service.port, ARN);
    assert_eq!(kms.find("mac").unwrap().spec, Spec::Hmac(Hash::Sha384));
    assert_eq!(fault(kms.find("ec")), KmsFault::Denied);
    assert_eq!(fault(kms.find("other")), KmsFault::Denied);
}

#[test]
fn r65_a_listing_leaves_out_what_cannot_be_used() {
    let kms = emulated("alias/listing");
    let good = kms.generate(Spec::Ec(Curve::P256), "listed good").unwrap();
    let [disabled, deleted] =
        ["listed disabled", "listed deleted"].map(|label| kms.generate(Spec::Ec(Curve::P256), label).unwrap());
    let agreement = made(&kms, "ECC_NIST_P256", "KEY_AGREEMENT", None);
    let unnamed = made(&kms, "HMAC_256", "GENERATE_VERIFY_MAC", None);
    let (off, gone) = (disabled.id.clone(), deleted.id.clone());
    admin(&kms, async move |client: Client| {
        client.disable_key().key_id(off).send().await.unwrap();
        client.schedule_key_deletion().key_id(gone).send().await.unwrap();
    });
    let keys = kms.list().unwrap();
    let found = |id: &str| keys.iter().find(|key| key.id.ends_with(id));
    assert_eq!(found(&good.id), Some(&good));
    assert_eq!(found(&unnamed).unwrap().label, unnamed);
    for id in [&disabled.id, &deleted.id, &agreement, &kms.describe().unwrap().master_key.key] {
        assert_eq!(found(id), None);
    }
    assert_eq!(fault(kms.find(&disabled.id)), KmsFault::Disabled);
    assert_eq!(fault(kms.find(&deleted.id)), KmsFault::Disabled);
    assert_eq!(fault(kms.find(&agreement)), KmsFault::Unsupported);
    assert_eq!(fault(kms.find("nobody-made-this")), KmsFault::NotFound);
    assert_eq!(kms.find("no name at all").unwrap_err().kms_fault(), Some(KmsFault::NotFound));
    assert_eq!(fault(kms.find("alias/listing")), KmsFault::Unsupported);
    assert_eq!(fault(kms.sign(&disabled, SignScheme::Ecdsa(Hash::Sha256), &[1; 32])), KmsFault::Disabled);
}

#[test]
fn r65_a_listing_goes_over_all_pages_and_past_bad_keys() {
    // The emulator denies nothing: this service denies the aliases and one key, and has two pages.
    let id = |last: char| format!("1234abcd-12ab-34cd-56ef-1234567890a{last}");
    let throttle = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let throttled = throttle.clone();
    let service = Service::start(move |request| {
        let body = request.json();
        Some(match (request.operation().as_str(), body["KeyId"].as_str()) {
            ("ListKeys", _) if body["Marker"].is_null() => Answer::json(
                &serde_json::json!({ "Keys": [{ "KeyId": id('1') }], "Truncated": true, "NextMarker": "m" }),
            ),
            ("ListKeys", _) => Answer::json(&serde_json::json!({ "Keys": [{ "KeyId": id('2') }], "Truncated": false })),
            ("DescribeKey", Some(key)) if key.ends_with('2') => {
                let arn = format!("arn:aws:kms:eu-west-1:111122223333:key/{key}");
                Answer::json(&serde_json::json!({ "KeyMetadata": { "KeyId": key, "Arn": arn, "KeyState": "Enabled",
                    "KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC" } }))
            }
            ("DescribeKey", _) if throttled.load(std::sync::atomic::Ordering::Relaxed) => {
                Answer::error(400, "ThrottlingException", "Rate exceeded")
            }
            _ => Answer::error(400, "AccessDeniedException", "no"),
        })
    });
    let kms = on_port(service.port, ARN);
    let keys = kms.list().unwrap();
    assert_eq!(keys.iter().map(|key| key.label.as_str()).collect::<Vec<_>>(), ["1234abcd-12ab-34cd-56ef-1234567890a2"]);
    throttle.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(fault(kms.list()), KmsFault::Throttled(_)), "a key must not be missing because of haste");
}

#[test]
fn r49_a_label_that_is_taken_gets_a_part_of_the_id() {
    let kms = emulated("alias/labels");
    let (one, other) =
        (kms.generate(Spec::Ec(Curve::P384), "twice").unwrap(), kms.generate(Spec::Ec(Curve::P384), "twice").unwrap());
    assert_eq!(one.label, "twice");
    assert!(other.label.starts_with("twice-") && other.id.contains(&other.label[6..]), "{}", other.label);
    assert_eq!(kms.find(&other.label).unwrap().id, other.id);
}

#[test]
fn a_key_that_aws_does_not_find_at_once_is_asked_for_again() {
    // AWS KMS is eventually consistent; no emulator is.
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let service = Service::start(move |request| {
        let first = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2;
        Some(match request.operation().as_str() {
            "CreateKey" => Answer::json(&serde_json::json!({ "KeyMetadata": { "KeyId": "x", "Arn": ARN,
                "KeyState": "Enabled", "KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC" } })),
            _ if first => Answer::error(400, "NotFoundException", "not yet"),
            _ => Answer { status: 200, headers: Vec::new(), body: Vec::new() },
        })
    });
    let kms = on_port(service.port, ARN);
    assert_eq!(kms.generate(Spec::Hmac(Hash::Sha256), "late").unwrap().id, ARN);
    assert_eq!(service.take_counts(), [("CreateAlias".to_owned(), 2), ("CreateKey".to_owned(), 1)]);
}

#[test]
fn a_key_without_its_alias_is_named_and_not_made_twice() {
    for (code, fault) in [("AccessDeniedException", KmsFault::Denied), ("ThrottlingException", KmsFault::Failed)] {
        let service = Service::start(move |request| {
            Some(match request.operation().as_str() {
                "CreateKey" => Answer::json(&serde_json::json!({ "KeyMetadata": { "KeyId": "x", "Arn": ARN } })),
                _ => Answer::error(400, code, "kms:CreateAlias"),
            })
        });
        let error = on_port(service.port, ARN).generate(Spec::Ec(Curve::P256), "x").unwrap_err();
        assert!(error.message().contains(ARN) && error.message().contains("kms:CreateAlias"), "{error}");
        // Throttling would tell the layer above to begin again, with another key.
        assert_eq!(error.kms_fault(), Some(fault), "{error}");
        assert_eq!(service.take_counts().last(), Some(&("CreateKey".to_owned(), 1)));
    }
}

#[test]
fn r31_what_the_table_lacks_is_refused_without_a_request() {
    let kms = on_port(1, ARN);
    let key = unknown();
    let unsupported = |error: Error| assert_eq!(error.kms_fault(), Some(KmsFault::Unsupported), "{error}");
    unsupported(kms.sign(&key, SignScheme::Ecdsa(Hash::Sha256), &[0; 32]).unwrap_err());
    unsupported(kms.sign(&key, SignScheme::Ed25519, &[0; 32]).unwrap_err());
    unsupported(kms.decrypt(&key, DecryptScheme::RsaOaep(Hash::Sha256), &[0; 32]).unwrap_err());
    unsupported(kms.mac(&key, &[0; 32]).unwrap_err());
    unsupported(kms.generate(Spec::Rsa(1024), "x").unwrap_err());
    unsupported(kms.generate(Spec::Hmac(Hash::Sha1), "x").unwrap_err());
    assert_eq!(kms.abilities().len(), 12 + 5 + 18 + 6 + 4);
}
