//! Keys that live in the KMS. Signatures are verified by libraries that have no part in making them: p256, p384 and k256, and the
//! `openssl` command for RSA and Ed25519.

use std::process::Command;

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use sha2::Digest;

use super::*;
use crate::kms::{Ability, Curve, DecryptScheme, Hash, KeySpec, RemoteKey, SignScheme};

const MESSAGE: &[u8] = b"what is signed";

/// A digest of the message.
fn digest(hash: Hash) -> Vec<u8> {
    match hash {
        // SHA-1 of the message, by `openssl dgst -sha1`: no crate of ours has it.
        Hash::Sha1 => openssl(&["dgst", "-sha1", "-binary"], &[], MESSAGE),
        Hash::Sha224 => sha2::Sha224::digest(MESSAGE).to_vec(),
        Hash::Sha256 => sha2::Sha256::digest(MESSAGE).to_vec(),
        Hash::Sha384 => sha2::Sha384::digest(MESSAGE).to_vec(),
        Hash::Sha512 => sha2::Sha512::digest(MESSAGE).to_vec(),
    }
}

fn hash_name(hash: Hash) -> &'static str {
    match hash {
        Hash::Sha1 => "sha1",
        Hash::Sha224 => "sha224",
        Hash::Sha256 => "sha256",
        Hash::Sha384 => "sha384",
        Hash::Sha512 => "sha512",
    }
}

/// Runs the command with files `key` (DER) and others in its folder, and gives what it writes.
fn openssl(arguments: &[&str], files: &[(&str, &[u8])], input: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("input", input)].iter().chain(files) {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let input = std::fs::File::open(folder.path().join("input")).unwrap();
    let output = Command::new("openssl").args(arguments).current_dir(folder.path()).stdin(input).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn verify(key: &RemoteKey, scheme: SignScheme, signature: &[u8]) {
    let public = key.public.as_deref().unwrap();
    match (key.spec, scheme) {
        (KeySpec::Ec(Curve::P256), SignScheme::Ecdsa(hash)) => {
            use p256::pkcs8::DecodePublicKey;
            let verifier = p256::ecdsa::VerifyingKey::from_public_key_der(public).unwrap();
            verifier.verify_prehash(&digest(hash), &p256::ecdsa::Signature::from_slice(signature).unwrap()).unwrap();
        }
        (KeySpec::Ec(Curve::P384), SignScheme::Ecdsa(hash)) => {
            use p384::pkcs8::DecodePublicKey;
            let verifier = p384::ecdsa::VerifyingKey::from_public_key_der(public).unwrap();
            verifier.verify_prehash(&digest(hash), &p384::ecdsa::Signature::from_slice(signature).unwrap()).unwrap();
        }
        (KeySpec::Ec(Curve::Secp256k1), SignScheme::Ecdsa(hash)) => {
            use k256::pkcs8::DecodePublicKey;
            let verifier = k256::ecdsa::VerifyingKey::from_public_key_der(public).unwrap();
            // The service makes s of either half, and this library takes the lower one alone.
            let signature = k256::ecdsa::Signature::from_slice(signature).unwrap();
            verifier.verify_prehash(&digest(hash), &signature.normalize_s()).unwrap();
        }
        (_, SignScheme::Ed25519) => {
            let arguments =
                ["pkeyutl", "-verify", "-pubin", "-inkey", "key", "-keyform", "DER", "-rawin", "-in", "message"];
            let arguments = [&arguments[..], &["-sigfile", "signature"]].concat();
            openssl(&arguments, &[("key", public), ("message", MESSAGE), ("signature", signature)], b"");
        }
        (_, SignScheme::RsaPkcs1(hash) | SignScheme::RsaPss(hash)) => {
            let digest_option = format!("digest:{}", hash_name(hash));
            let mut arguments =
                vec!["pkeyutl", "-verify", "-pubin", "-inkey", "key", "-keyform", "DER", "-in", "digest"];
            arguments.extend(["-sigfile", "signature", "-pkeyopt", &digest_option]);
            if matches!(scheme, SignScheme::RsaPss(_)) {
                arguments.extend(["-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "rsa_pss_saltlen:digest"]);
            }
            openssl(&arguments, &[("key", public), ("digest", &digest(hash)), ("signature", signature)], b"");
        }
        other => panic!("no verifier for {other:?}"),
    }
}

fn input(scheme: SignScheme) -> Vec<u8> {
    match scheme {
        SignScheme::Ed25519 => MESSAGE.to_vec(),
        SignScheme::Ecdsa(hash) | SignScheme::RsaPkcs1(hash) | SignScheme::RsaPss(hash) => digest(hash),
    }
}

/// Uses a key in every way that its algorithm has; gives what it could do.
fn use_in_every_way(bench: &Bench, kms: &GoogleKms, key: &RemoteKey) -> Vec<Ability> {
    let mut done = Vec::new();
    for ability in kms.abilities() {
        bench.gateway.take();
        match *ability {
            Ability::Sign(spec, scheme) if spec == key.spec => match kms.sign(key, scheme, &input(scheme)) {
                Ok(signature) => verify(key, scheme, &signature),
                Err(error) => {
                    assert_eq!(error.kms_fault(), Some(KmsFault::Unsupported), "{error}");
                    assert!(bench.gateway.take().is_empty(), "what the key cannot do is known without a request");
                    continue;
                }
            },
            Ability::Decrypt(spec, scheme) if spec == key.spec => {
                let ciphertext = encrypted(key, scheme);
                match kms.decrypt(key, scheme, &ciphertext) {
                    Ok(plain) => assert_eq!(plain.expose(), b"plain"),
                    Err(error) => {
                        assert_eq!(error.kms_fault(), Some(KmsFault::Unsupported), "{error}");
                        continue;
                    }
                }
                let mut altered = ciphertext;
                altered[100] ^= 1;
                assert_eq!(fault(kms.decrypt(key, scheme, &altered)), KmsFault::Tampered);
                bench.gateway.take().pop();
            }
            Ability::Mac(spec) if spec == key.spec => check_mac(kms, key),
            _ => continue,
        }
        let requests = bench.gateway.take();
        assert!(requests.len() <= 1, "{ability:?} is one request: {requests:?}");
        done.push(*ability);
    }
    done
}

fn encrypted(key: &RemoteKey, scheme: DecryptScheme) -> Vec<u8> {
    let DecryptScheme::RsaOaep(hash) = scheme else { panic!("the service has no {scheme:?}") };
    let (hash, mgf) = (format!("rsa_oaep_md:{}", hash_name(hash)), format!("rsa_mgf1_md:{}", hash_name(hash)));
    let mut arguments = vec!["pkeyutl", "-encrypt", "-pubin", "-inkey", "key", "-keyform", "DER", "-in", "input"];
    arguments.extend(["-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", &hash, "-pkeyopt", &mgf]);
    openssl(&arguments, &[("key", key.public.as_deref().unwrap())], b"plain")
}

/// The service itself says whether a MAC is right; another message has another.
fn check_mac(kms: &GoogleKms, key: &RemoteKey) {
    let mac = kms.mac(key, MESSAGE).unwrap();
    let base64 = |bytes: &[u8]| data_encoding::BASE64.encode(bytes);
    let verdict = |message: &[u8]| {
        let body = json!({"data": base64(message), "mac": base64(&mac)});
        ask("POST", &format!("/v1/{}:macVerify", key.id), &body)["success"] == true
    };
    assert!(verdict(MESSAGE) && !verdict(b"another message"));
    let KeySpec::Hmac(hash) = key.spec else { panic!("no MAC key") };
    assert_eq!(mac.len(), super::super::algorithm::digest_len(hash));
}

fn text(text: &str) -> Setting {
    Setting::Text(text.to_owned())
}

/// Makes a key, finds it again by label and by name with a provider that knows nothing, and uses it in every way.
fn generate_and_use(bench: &Bench, settings: &Settings, spec: KeySpec, label: &str) -> Vec<Ability> {
    let kms = GoogleKms::new(settings).unwrap();
    let made = kms.generate(spec, label).unwrap();
    assert_eq!((made.spec, made.label.as_str(), &made.state), (spec, label, &KeyState::Enabled));
    let requests = bench.gateway.take();
    assert!(requests.len() == 2 && requests[0] == "POST cryptoKeys", "{requests:?}");
    let fresh = GoogleKms::new(settings).unwrap();
    assert_eq!(fresh.find(label).unwrap(), made);
    let wanted: &[&str] = match made.public {
        Some(_) => &["GET publicKey"],
        None => &["GET publicKey", "GET cryptoKeyVersions"],
    };
    assert_eq!(bench.gateway.take(), wanted);
    assert_eq!(fresh.find(&made.id).unwrap(), made);
    use_in_every_way(bench, &fresh, &made)
}

/// The one place that says which abilities were seen to work: with [`every_rsa_ability_works`], all of them.
#[test]
fn r31_every_ability_but_rsa_works() {
    let bench = Bench::new();
    let mut seen = Vec::new();
    for ability in bench.kms().abilities() {
        match ability {
            Ability::Generate(KeySpec::Rsa(_)) => {}
            Ability::Generate(spec) => {
                seen.push(*ability);
                let label = format!("{spec:?}").replace(['(', ')'], "_");
                seen.extend(generate_and_use(&bench, &bench.settings(), *spec, &label));
            }
            _ => {}
        }
    }
    assert_complete(&bench, &seen, false);
}

#[test]
fn r31_every_rsa_ability_works() {
    let bench = Bench::new();
    let mut seen = Vec::new();
    for (bits, way) in
        [2048, 3072, 4096].into_iter().flat_map(|bits| ["pkcs1", "pss", "raw", "oaep"].map(|way| (bits, way)))
    {
        let settings = bench.settings().with("rsa_use", text(way));
        seen.push(Ability::Generate(KeySpec::Rsa(bits)));
        seen.extend(generate_and_use(&bench, &settings, KeySpec::Rsa(bits), &format!("{way}-{bits}")));
    }
    // The algorithms that `generate` does not choose, of keys that somebody else made.
    for (id, purpose, algorithm) in [
        ("pkcs1-512", "ASYMMETRIC_SIGN", "RSA_SIGN_PKCS1_4096_SHA512"),
        ("pss-512", "ASYMMETRIC_SIGN", "RSA_SIGN_PSS_4096_SHA512"),
        ("oaep-512", "ASYMMETRIC_DECRYPT", "RSA_DECRYPT_OAEP_4096_SHA512"),
        ("oaep-1-2048", "ASYMMETRIC_DECRYPT", "RSA_DECRYPT_OAEP_2048_SHA1"),
        ("oaep-1-3072", "ASYMMETRIC_DECRYPT", "RSA_DECRYPT_OAEP_3072_SHA1"),
        ("oaep-1-4096", "ASYMMETRIC_DECRYPT", "RSA_DECRYPT_OAEP_4096_SHA1"),
    ] {
        bench.make(id, purpose, algorithm);
        let kms = bench.kms();
        let key = kms.find(id).unwrap();
        seen.extend(use_in_every_way(&bench, &kms, &key));
    }
    assert_complete(&bench, &seen, true);
}

fn assert_complete(bench: &Bench, seen: &[Ability], rsa: bool) {
    for ability in bench.kms().abilities() {
        let (Ability::Generate(spec) | Ability::Sign(spec, _) | Ability::Decrypt(spec, _) | Ability::Mac(spec)) =
            ability;
        let is_rsa = matches!(spec, KeySpec::Rsa(_));
        assert!(is_rsa != rsa || seen.contains(ability), "{ability:?} was not seen to work");
    }
    assert!(seen.iter().all(|ability| bench.kms().abilities().contains(ability)));
}

#[test]
fn an_rsa_key_that_is_not_remembered_is_asked_for_once() {
    let bench = Bench::new();
    let id = bench.make("rsa", "ASYMMETRIC_SIGN", "RSA_SIGN_PSS_2048_SHA256");
    let key = bench.kms().find("rsa").unwrap();
    assert_eq!(key.id, format!("{id}/cryptoKeyVersions/1"));
    let fresh = bench.kms();
    bench.gateway.take();
    for wanted in [&["GET publicKey", "asymmetricSign"][..], &["asymmetricSign"]] {
        let signature = fresh.sign(&key, SignScheme::RsaPss(Hash::Sha256), &digest(Hash::Sha256)).unwrap();
        verify(&key, SignScheme::RsaPss(Hash::Sha256), &signature);
        assert_eq!(bench.gateway.take(), wanted);
    }
    // A signature of another scheme than the one that was asked for would verify nowhere.
    let error = fresh.sign(&key, SignScheme::RsaPkcs1(Hash::Sha256), &digest(Hash::Sha256)).unwrap_err();
    assert!(error.message().contains("RSA_SIGN_PSS_2048_SHA256"), "{error}");
    assert_eq!(bench.gateway.take(), [""; 0]);
}

#[test]
fn r27_signatures_have_full_width_whatever_the_service_answers() {
    let bench = Bench::new();
    bench.make("p384", "ASYMMETRIC_SIGN", "EC_SIGN_P384_SHA384");
    let kms = bench.kms();
    let key = kms.find("p384").unwrap();
    let scheme = SignScheme::Ecdsa(Hash::Sha384);
    for _ in 0..600 {
        // One in 128 has a short r or s.
        assert_eq!(kms.sign(&key, scheme, &digest(Hash::Sha384)).unwrap().len(), 96);
    }
    bench.gateway.on(|request| match request.operation().as_str() {
        "asymmetricSign" => Action::Alter(|answer| {
            // SEQUENCE { INTEGER 1, INTEGER 128 }
            let short = [0x30, 7, 2, 1, 1, 2, 2, 0, 0x80];
            answer["signature"] = json!(data_encoding::BASE64.encode(&short));
            answer["signatureCrc32c"] = json!(crc32c(&short).to_string());
        }),
        _ => Action::Forward,
    });
    let signature = kms.sign(&key, scheme, &digest(Hash::Sha384)).unwrap();
    assert_eq!((signature.len(), signature[47], signature[95]), (96, 1, 0x80));
    assert_eq!(signature.iter().filter(|byte| **byte != 0).count(), 2);
}

#[test]
#[ignore = "takes minutes: 10 000 signatures of each curve"]
fn r27_ten_thousand_signatures_of_each_curve_verify() {
    let bench = Bench::new();
    let curves = [(Curve::P256, Hash::Sha256), (Curve::P384, Hash::Sha384), (Curve::Secp256k1, Hash::Sha256)];
    for (curve, hash) in curves {
        let kms = bench.kms();
        let key = kms.generate(KeySpec::Ec(curve), "many").unwrap();
        let short = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2500 {
                        let signature = kms.sign(&key, SignScheme::Ecdsa(hash), &digest(hash)).unwrap();
                        assert_eq!(signature.len(), 2 * curve.width());
                        let halves = signature.chunks(curve.width());
                        short.fetch_add(halves.map(|half| u32::from(half[0] == 0)).sum(), Ordering::Relaxed);
                        verify(&key, SignScheme::Ecdsa(hash), &signature);
                    }
                });
            }
        });
        // One in 128 has a half that starts with a zero byte, which its DER form leaves out.
        assert!((30..150).contains(&short.into_inner()), "{curve:?}");
    }
}

#[test]
fn r65_a_key_is_used_with_the_permissions_of_that_key_alone() {
    // With roles/cloudkms.signerVerifier on one key: signing and its public key, nothing else.
    let bench = Bench::new();
    bench.make("signer", "ASYMMETRIC_SIGN", "EC_SIGN_P256_SHA256");
    bench.gateway.on(|request| match request.operation().as_str() {
        "GET publicKey" | "asymmetricSign" => Action::Forward,
        _ => super::faults::service_error(403, "PERMISSION_DENIED", "denied", ""),
    });
    let kms = bench.kms();
    let key = kms.find("signer").unwrap();
    verify(
        &key,
        SignScheme::Ecdsa(Hash::Sha256),
        &kms.sign(&key, SignScheme::Ecdsa(Hash::Sha256), &digest(Hash::Sha256)).unwrap(),
    );
    assert_eq!(fault(kms.list()), KmsFault::Denied);
}

#[test]
fn r65_the_list_leaves_out_what_cannot_be_used() {
    let bench = Bench::new();
    bench.with_master();
    let keys = ["a", "b", "disabled", "destroyed", "denied", "mac"].map(|id| match id {
        "mac" => bench.make(id, "MAC", "HMAC_SHA256"),
        id => bench.make(id, "ASYMMETRIC_SIGN", "EC_SIGN_P256_SHA256"),
    });
    ask("POST", &format!("/v1/{}/cryptoKeyVersions", keys[0]), &json!({}));
    set_state(&format!("{}/cryptoKeyVersions/1", keys[2]), "DISABLED");
    ask("POST", &format!("/v1/{}/cryptoKeyVersions/1:destroy", keys[3]), &json!({}));
    bench.gateway.on(|request| match request.path.contains("/denied/") {
        true => super::faults::service_error(403, "PERMISSION_DENIED", "denied", ""),
        false => Action::Forward,
    });
    let kms = bench.kms();
    let labels = |kms: &GoogleKms| kms.list().unwrap().into_iter().map(|key| key.label).collect::<Vec<_>>();
    assert_eq!(labels(&kms), ["a", "a/2", "b", "mac"]);
    assert_eq!(fault(kms.find("disabled")), KmsFault::Disabled);
    assert_eq!(fault(kms.find("destroyed")), KmsFault::Disabled);
    assert_eq!(fault(kms.find("missing")), KmsFault::NotFound);
    assert_eq!(fault(kms.find("master")), KmsFault::Unsupported);
    assert_eq!(kms.find("a/2").unwrap().label, "a/2");
    // A list with holes because of a moment's trouble would look like keys that are gone.
    bench.gateway.on(|request| match request.path.contains("/b/") {
        true => super::faults::service_error(503, "UNAVAILABLE", "later", ""),
        false => Action::Forward,
    });
    assert_eq!(fault(kms.list()), KmsFault::Unreachable);
}

#[test]
fn r65_a_long_list_is_read_page_by_page() {
    let bench = Bench::new();
    for number in 0..21 {
        bench.make(&format!("key-{number:02}"), "MAC", "HMAC_SHA256");
    }
    // The double gives 100 to a page, as the service; this makes it ten.
    bench.gateway.on(|request| match request.operation().as_str() {
        "GET cryptoKeys" => {
            let path = format!("{}&pageSize=10", request.path.replace("pageSize=", "ignored="));
            let (status, body) = exchange(port(), "GET", &path, b"");
            Action::Answer(status, "", String::from_utf8(body).unwrap())
        }
        _ => Action::Forward,
    });
    assert_eq!(bench.kms().list().unwrap().len(), 21);
    let requests = bench.gateway.take();
    assert_eq!(requests.iter().filter(|request| *request == "GET cryptoKeys").count(), 3);
    assert_eq!(requests.len(), 3 + 21);
}

#[test]
fn r49_a_label_in_use_gets_another_end_and_slow_keys_are_waited_for() {
    let bench = Bench::new();
    let kms = bench.kms();
    let first = kms.generate(KeySpec::Ec(Curve::P256), "code signing").unwrap();
    let second = kms.generate(KeySpec::Ec(Curve::P256), "code signing").unwrap();
    assert_eq!(first.label, "code-signing");
    assert!(second.label.starts_with("code-signing-") && second.label.len() == 21, "{}", second.label);
    assert_eq!(kms.find(&second.label).unwrap(), second);
    // The double makes keys at once; an HSM answers in the meantime as documented for PENDING_GENERATION.
    let looks = AtomicU32::new(0);
    bench.gateway.on(move |request| match request.operation().as_str() {
        "GET publicKey" if looks.fetch_add(1, Ordering::Relaxed) < 2 => {
            let message = "k is not enabled, current state is: PENDING_GENERATION.";
            super::faults::service_error(400, "FAILED_PRECONDITION", message, "")
        }
        _ => Action::Forward,
    });
    let settings = bench.settings().with("protection_level", text("hsm"));
    let slow = GoogleKms::new(&settings).unwrap().generate(KeySpec::Ec(Curve::P384), "slow").unwrap();
    assert_eq!(ask("GET", &format!("/v1/{}", slow.id), &json!({}))["protectionLevel"], "HSM");
    let error = kms.generate(KeySpec::Ec(Curve::P521), "none").unwrap_err();
    assert_eq!(error.kms_fault(), Some(KmsFault::Unsupported), "{error}");
}

#[test]
fn an_altered_answer_is_refused() {
    let bench = Bench::new();
    bench.make("p256", "ASYMMETRIC_SIGN", "EC_SIGN_P256_SHA256");
    bench.make("oaep", "ASYMMETRIC_DECRYPT", "RSA_DECRYPT_OAEP_2048_SHA256");
    bench.make("mac", "MAC", "HMAC_SHA256");
    let kms = bench.kms();
    let [signer, decrypter, mac] = ["p256", "oaep", "mac"].map(|id| kms.find(id).unwrap());
    let oaep = DecryptScheme::RsaOaep(Hash::Sha256);
    let ciphertext = encrypted(&decrypter, oaep);
    let changes: [fn(&mut Value); 4] = [
        |answer| {
            for field in ["signatureCrc32c", "plaintextCrc32c", "macCrc32c", "pemCrc32c"] {
                answer[field] = json!("1");
            }
        },
        |answer| {
            for field in ["verifiedDigestCrc32c", "verifiedCiphertextCrc32c", "verifiedDataCrc32c", "pemCrc32c"] {
                answer.as_object_mut().unwrap().remove(field);
            }
        },
        |answer| {
            for field in ["signature", "plaintext", "mac"] {
                answer[field] = json!("AAAA");
            }
            answer["pem"] = json!("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n");
        },
        |answer| {
            answer["name"] = json!("projects/p/locations/l/keyRings/r/cryptoKeys/other/cryptoKeyVersions/1");
            answer["plaintextCrc32c"] = json!(null);
        },
    ];
    for change in changes {
        bench.gateway.on(move |_| Action::Alter(change));
        assert_eq!(
            fault(kms.sign(&signer, SignScheme::Ecdsa(Hash::Sha256), &digest(Hash::Sha256))),
            KmsFault::Tampered
        );
        assert_eq!(fault(kms.decrypt(&decrypter, oaep, &ciphertext)), KmsFault::Tampered);
        assert_eq!(fault(kms.mac(&mac, MESSAGE)), KmsFault::Tampered);
        assert_eq!(fault(kms.find("p256")), KmsFault::Tampered);
    }
}

#[test]
fn a_digest_of_a_wrong_length_is_refused_here() {
    let bench = Bench::new();
    bench.make("raw", "ASYMMETRIC_SIGN", "RSA_SIGN_RAW_PKCS1_2048");
    let kms = bench.kms();
    let key = kms.find("raw").unwrap();
    bench.gateway.take();
    let error = kms.sign(&key, SignScheme::RsaPkcs1(Hash::Sha384), &[0; 32]).unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::DataLenRange);
    assert_eq!(bench.gateway.take(), [""; 0]);
}
