//! Keys that live on the device, checked with the OpenSSL command. RSA and ECDSA of every hash, Ed25519, RSA decryption, HMAC.

use std::fs;

use cryptoki::object::{Attribute, KeyType, ObjectClass};
use der::asn1::UintRef;
use der::{Encode, Sequence};

use super::super::super::contract::CONTEXT;
use super::super::super::provider::{KeyState, KmsProvider};
use super::super::super::remote::{
    Ability, Curve, DecryptScheme, Hash, KeySpec, RemoteKey, RemoteKeys, SignScheme, Uses, fixed_width,
};
use super::super::HsmKms;
use super::super::hash::digest_len;
use super::harness::{SoftHsm, isolated, object, softhsm, text, tool};
use crate::error::{Kind, KmsFault};

#[derive(Sequence)]
struct Signature<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// Names a hash as OpenSSL does.
fn openssl_name(hash: Hash) -> &'static str {
    match hash {
        Hash::Sha1 => "sha1",
        Hash::Sha224 => "sha224",
        Hash::Sha256 => "sha256",
        Hash::Sha384 => "sha384",
        Hash::Sha512 => "sha512",
    }
}

/// Writes a file and gives its path.
fn file(hsm: &SoftHsm, name: &str, content: &[u8]) -> String {
    let path = hsm.folder.join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Tells whether OpenSSL takes a signature.
fn verifies(hsm: &SoftHsm, key: &RemoteKey, scheme: SignScheme, input: &[u8], signature: &[u8]) -> bool {
    let mut options = Vec::new();
    let mut raw = signature.to_vec();
    match scheme {
        SignScheme::Ecdsa(_) => {
            let (r, s) = signature.split_at(signature.len() / 2);
            raw = Signature { r: UintRef::new(r).unwrap(), s: UintRef::new(s).unwrap() }.to_der().unwrap();
        }
        SignScheme::Ed25519 => options.push("-rawin".to_owned()),
        SignScheme::RsaPkcs1(hash) => options.push(format!("digest:{}", openssl_name(hash))),
        SignScheme::RsaPss(hash) => {
            options.extend(["rsa_padding_mode:pss", "rsa_pss_saltlen:digest"].map(str::to_owned));
            options.push(format!("digest:{}", openssl_name(hash)));
        }
    }
    let paths = [
        file(hsm, "public.der", key.public.as_ref().unwrap()),
        file(hsm, "input", input),
        file(hsm, "signature", &raw),
    ];
    let mut command = std::process::Command::new("openssl");
    command.args(["pkeyutl", "-verify", "-pubin", "-keyform", "DER"]);
    command.args(["-inkey", &paths[0], "-in", &paths[1], "-sigfile", &paths[2]]);
    for option in options {
        if option.starts_with('-') {
            command.arg(option)
        } else {
            command.args(["-pkeyopt", &option])
        };
    }
    command.output().unwrap().status.success()
}

/// Makes an input of the right length.
fn input(scheme: SignScheme) -> Vec<u8> {
    match scheme {
        SignScheme::Ed25519 => b"a message of any length".to_vec(),
        SignScheme::Ecdsa(hash) | SignScheme::RsaPkcs1(hash) | SignScheme::RsaPss(hash) => {
            (0..digest_len(hash)).map(|at| u8::try_from(at).unwrap() ^ 0xA5).collect()
        }
    }
}

pub fn sign_and_verify(hsm: &SoftHsm, kms: &HsmKms, key: &RemoteKey, scheme: SignScheme) {
    let input = input(scheme);
    let signature = kms.sign(key, scheme, &input).unwrap();
    match key.spec {
        KeySpec::Ec(curve) => assert_eq!(signature.len(), 2 * curve.width()),
        KeySpec::Rsa(bits) => assert_eq!(signature.len() * 8, usize::try_from(bits).unwrap()),
        _ => assert_eq!(signature.len(), 64),
    }
    assert!(verifies(hsm, key, scheme, &input, &signature), "{:?} {scheme:?}", key.spec);
    let mut other = input;
    other[0] ^= 1;
    assert!(!verifies(hsm, key, scheme, &other, &signature), "{:?} {scheme:?}", key.spec);
}

#[test]
fn r31_every_way_to_sign_that_the_device_offers_verifies_elsewhere() {
    isolated("signing::r31_every_way_to_sign_that_the_device_offers_verifies_elsewhere", |hsm| {
        let kms = hsm.kms();
        let mut signed = 0;
        for ability in kms.abilities() {
            let Ability::Generate(spec) = *ability else { continue };
            let key = kms.generate(spec, "a key").unwrap();
            assert_eq!((key.spec, key.label.as_str(), &key.state), (spec, "a key", &KeyState::Enabled));
            assert_eq!(key.public.is_some(), !matches!(spec, KeySpec::Hmac(_)));
            assert_eq!(kms.find(&key.id).unwrap(), key);
            for ability in kms.abilities() {
                match *ability {
                    Ability::Sign(of, scheme) if of == spec => {
                        sign_and_verify(hsm, &kms, &key, scheme);
                        signed += 1;
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(signed, 3 * 10 + 4 * 5 + 1);
    });
}

#[test]
fn r27_signatures_are_of_full_width_whatever_r_and_s_are() {
    isolated("signing::r27_signatures_are_of_full_width_whatever_r_and_s_are", |hsm| {
        let kms = hsm.kms();
        let key = kms.generate(KeySpec::Ec(Curve::Secp256k1), "wallet").unwrap();
        let digest = input(SignScheme::Ecdsa(Hash::Sha256));
        let mut short = 0;
        for _ in 0..1500 {
            let signature = kms.sign(&key, SignScheme::Ecdsa(Hash::Sha256), &digest).unwrap();
            assert_eq!(signature.len(), 64);
            if signature[0] == 0 || signature[32] == 0 {
                assert!(verifies(hsm, &key, SignScheme::Ecdsa(Hash::Sha256), &digest, &signature));
                let halves = [&signature[..32], &signature[32..]].map(|half| UintRef::new(half).unwrap());
                let der = Signature { r: halves[0], s: halves[1] }.to_der().unwrap();
                assert_eq!(fixed_width(Curve::Secp256k1, &der).unwrap(), signature);
                short += 1;
            }
        }
        assert!(short > 0, "one in 128 has a short half");
    });
}

/// Has OpenSSL encrypt `hello` by OAEP with a hash, or by PKCS1-v1_5.
pub fn encrypted(hsm: &SoftHsm, key: &RemoteKey, oaep: Option<Hash>) -> Vec<u8> {
    let paths = [file(hsm, "public.der", key.public.as_ref().unwrap()), file(hsm, "plain", b"hello")];
    let out = hsm.folder.join("ciphertext");
    let mut options = vec!["rsa_padding_mode:pkcs1".to_owned()];
    if let Some(hash) = oaep {
        let name = openssl_name(hash);
        options =
            vec!["rsa_padding_mode:oaep".to_owned(), format!("rsa_oaep_md:{name}"), format!("rsa_mgf1_md:{name}")];
    }
    let mut arguments = vec!["pkeyutl", "-encrypt", "-pubin", "-keyform", "DER", "-inkey", &paths[0], "-in", &paths[1]];
    arguments.extend(["-out", out.to_str().unwrap()]);
    arguments.extend(options.iter().flat_map(|option| ["-pkeyopt", option.as_str()]));
    tool("openssl", &arguments);
    fs::read(&out).unwrap()
}

/// SoftHSM2 2.6 knows OAEP with SHA-1 alone; what it refuses must be told as such.
#[test]
fn r31_rsa_decrypts_what_openssl_encrypted() {
    isolated("signing::r31_rsa_decrypts_what_openssl_encrypted", |hsm| {
        let kms = hsm.kms();
        let key = kms.generate(KeySpec::Rsa(2048), "opener").unwrap();
        let (oaep, plain) = (encrypted(hsm, &key, Some(Hash::Sha1)), encrypted(hsm, &key, None));
        let oaep_sha1 = DecryptScheme::RsaOaep(Hash::Sha1);
        assert_eq!(kms.decrypt(&key, oaep_sha1, &oaep).unwrap().expose(), b"hello");
        assert_eq!(kms.decrypt(&key, DecryptScheme::RsaPkcs1, &plain).unwrap().expose(), b"hello");
        let mut broken = oaep.clone();
        broken[100] ^= 1;
        for bad in [&broken[..], &oaep[1..], b""] {
            let error = kms.decrypt(&key, oaep_sha1, bad).unwrap_err();
            assert_eq!(error.kms_fault(), Some(KmsFault::Tampered), "{error}");
        }
        let error = kms.decrypt(&key, DecryptScheme::RsaOaep(Hash::Sha256), &oaep).unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::Unsupported), "{error}");
        assert_eq!(kms.decrypt(&key, oaep_sha1, &oaep).unwrap().expose(), b"hello", "the session is as good as before");
    });
}

#[test]
fn r31_macs_are_those_of_openssl() {
    isolated("signing::r31_macs_are_those_of_openssl", |hsm| {
        let kms = hsm.kms();
        let (_module, session) = hsm.application(&hsm.shim());
        let message = file(hsm, "message", b"the message");
        // CKK_SHA_1_HMAC and so on; the crate has wrong numbers for some, so the shim puts them in.
        for (hash, kind) in
            [(Hash::Sha1, 0x28), (Hash::Sha224, 0x2E), (Hash::Sha256, 0x2B), (Hash::Sha384, 0x2C), (Hash::Sha512, 0x2D)]
        {
            let value: Vec<u8> = (0..64).collect();
            for (kind, len) in [(kind, 64), (0x10, digest_len(hash))] {
                let value = &value[..usize::try_from(len).unwrap()];
                let label = format!("{hash:?} {kind}");
                let template = [
                    Attribute::Class(ObjectClass::SECRET_KEY),
                    Attribute::KeyType(KeyType::GENERIC_SECRET),
                    Attribute::Token(true),
                    Attribute::Sign(true),
                    Attribute::Label(label.clone().into_bytes()),
                    Attribute::Value(value.to_vec()),
                ];
                file(hsm, "type", kind.to_string().as_bytes());
                session.create_object(&template).unwrap();
                let key = kms.find(&label).unwrap();
                assert_eq!((key.spec, key.public.is_none(), key.uses.mac), (KeySpec::Hmac(hash), true, true));
                let option = format!("hexkey:{}", data_encoding::HEXLOWER.encode(value));
                let name = format!("-{}", openssl_name(hash));
                let wanted = tool("openssl", &["dgst", &name, "-mac", "HMAC", "-macopt", &option, &message]);
                let made = kms.mac(&key, b"the message").unwrap();
                assert!(wanted.trim().ends_with(&data_encoding::HEXLOWER.encode(&made)), "{label}: {wanted}");
            }
        }
        for hash in [Hash::Sha1, Hash::Sha224, Hash::Sha256, Hash::Sha384, Hash::Sha512] {
            let key = kms.generate(KeySpec::Hmac(hash), "mac").unwrap();
            assert_eq!(u32::try_from(kms.mac(&key, b"m").unwrap().len()), Ok(digest_len(hash)));
        }
    });
}

#[test]
fn r65_keys_are_found_by_name_and_those_that_are_disabled_are_left_out() {
    isolated("signing::r65_keys_are_found_by_name_and_those_that_are_disabled_are_left_out", |hsm| {
        hsm.make_master("master", "01");
        for (kind, label, id) in
            [("EC:prime256v1", "one", "0a"), ("EC:edwards25519", "two", "0b"), ("rsa:2048", "three", "0c")]
        {
            hsm.pkcs11_tool(&["--keypairgen", "--key-type", kind, "--label", label, "--id", id]);
        }
        let kms = hsm.kms();
        let one = kms.find("one").unwrap();
        assert_eq!((one.spec, one.uses.sign, one.uses.decrypt), (KeySpec::Ec(Curve::P256), true, false));
        assert_eq!(kms.find("0a").unwrap(), one);
        assert_eq!(kms.find(&one.id).unwrap(), one);
        let two = kms.find("two").unwrap();
        sign_and_verify(hsm, &kms, &one, SignScheme::Ecdsa(Hash::Sha256));
        sign_and_verify(hsm, &kms, &two, SignScheme::Ed25519);
        let kept = RemoteKey { label: String::new(), uses: Uses::default(), public: one.public.clone(), ..one.clone() };
        sign_and_verify(hsm, &kms, &kept, SignScheme::Ecdsa(Hash::Sha256));
        assert_eq!(kms.list().unwrap().len(), 3, "the master key is none of them");
        for unknown in ["master", "none", "0d", "pkcs11:serial=1;object=one;type=private;id=%0B"] {
            let error = kms.find(unknown).unwrap_err();
            assert_eq!(error.kms_fault(), Some(KmsFault::NotFound), "{error}");
        }
        let (_module, session) = hsm.application(softhsm());
        let key = object(&session, ObjectClass::PRIVATE_KEY, "one");
        session.update_attributes(key, &[Attribute::Sign(false)]).unwrap();
        assert_eq!(kms.find("one").unwrap().state, KeyState::Disabled);
        let labels: Vec<_> = kms.list().unwrap().into_iter().map(|key| key.label).collect();
        assert!(labels.len() == 2 && !labels.contains(&"one".to_owned()), "{labels:?}");
        for known in [kms.find("one").unwrap(), one.clone()] {
            let error = kms.sign(&known, SignScheme::Ecdsa(Hash::Sha256), &[7; 32]).unwrap_err();
            assert_eq!(error.kms_fault(), Some(KmsFault::Disabled), "{error}");
        }
        session.destroy_object(key).unwrap();
        let error = kms.sign(&one, SignScheme::Ecdsa(Hash::Sha256), &[7; 32]).unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::NotFound), "{error}");
    });
}

#[test]
fn two_keys_of_one_label_are_told_apart() {
    isolated("signing::two_keys_of_one_label_are_told_apart", |hsm| {
        let kms = hsm.kms();
        let [one, other] = [(), ()].map(|()| kms.generate(KeySpec::Ec(Curve::P256), " twin\n ").unwrap());
        assert!(one.id != other.id && one.public != other.public && one.label == "twin");
        let error = kms.find("twin").unwrap_err();
        assert!(error.kms_fault() == Some(KmsFault::Failed) && error.message().contains("pkcs11:serial="), "{error}");
        for key in [&one, &other] {
            assert_eq!(kms.find(&key.id).unwrap(), *key);
            sign_and_verify(hsm, &kms, key, SignScheme::Ecdsa(Hash::Sha384));
        }
    });
}

#[test]
fn what_a_key_does_not_do_is_refused_before_the_device_is_asked() {
    isolated("signing::what_a_key_does_not_do_is_refused_before_the_device_is_asked", |hsm| {
        let kms = HsmKms::new(&hsm.shimmed()).unwrap();
        let key = kms.generate(KeySpec::Ec(Curve::P256), "one").unwrap();
        let mac = kms.generate(KeySpec::Hmac(Hash::Sha256), "two").unwrap();
        hsm.calls();
        for error in [
            kms.sign(&key, SignScheme::Ed25519, b"m").unwrap_err(),
            kms.sign(&key, SignScheme::RsaPss(Hash::Sha256), &[0; 32]).unwrap_err(),
            kms.sign(&mac, SignScheme::Ecdsa(Hash::Sha256), &[0; 32]).unwrap_err(),
            kms.decrypt(&key, DecryptScheme::RsaPkcs1, b"c").unwrap_err(),
            kms.mac(&key, b"m").unwrap_err(),
            kms.generate(KeySpec::Rsa(1024), "small").unwrap_err(),
        ] {
            assert_eq!(error.kms_fault(), Some(KmsFault::Unsupported), "{error}");
        }
        let error = kms.sign(&key, SignScheme::Ecdsa(Hash::Sha256), &[0; 31]).unwrap_err();
        assert_eq!(error.kind(), Kind::DataLenRange);
        assert!(hsm.calls().is_empty());
    });
}

/// How often the device is asked: what `docs/kms/hsm.md` says.
#[test]
fn r51_one_signature_is_one_request() {
    isolated("signing::r51_one_signature_is_one_request", |hsm| {
        hsm.make_master("master", "01");
        let kms = HsmKms::new(&hsm.shimmed().with("key", text("master"))).unwrap();
        let key = kms.generate(KeySpec::Ec(Curve::P256), "one").unwrap();
        kms.sign(&key, SignScheme::Ecdsa(Hash::Sha256), &[7; 32]).unwrap();
        hsm.calls();
        kms.sign(&key, SignScheme::Ecdsa(Hash::Sha256), &[7; 32]).unwrap();
        assert_eq!(hsm.calls(), ["C_SignInit", "C_Sign"]);
        let wrapped = kms.wrap_key(&super::super::super::contract::secret(), &CONTEXT).unwrap();
        hsm.calls();
        kms.wrap_key(&super::super::super::contract::secret(), &CONTEXT).unwrap();
        let calls = hsm.calls();
        assert_eq!(calls[calls.len() - 4..], ["C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt"]);
        let found = |call: &&String| ["C_FindObjectsInit", "C_GetAttributeValue"].contains(&call.as_str());
        assert_eq!(calls.iter().filter(found).count(), calls.len() - 4, "{calls:?}");
        assert_eq!(calls.iter().filter(|call| *call == "C_FindObjectsInit").count(), 2, "{calls:?}");
        kms.unwrap_key(&wrapped, &CONTEXT).unwrap();
        assert_eq!(hsm.calls(), ["C_DecryptInit", "C_Decrypt"]);
        kms.find("one").unwrap();
        let calls = hsm.calls();
        assert!(
            calls.iter().all(|call| ["C_FindObjectsInit", "C_GetAttributeValue"].contains(&call.as_str())),
            "{calls:?}"
        );
    });
}
