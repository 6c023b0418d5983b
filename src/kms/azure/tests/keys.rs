//! Keys that live in the vault.

use std::process::Command;

use azure_security_keyvault_keys::models::UpdateKeyPropertiesParameters;
use azure_security_keyvault_keys::models::{CurveName, JsonWebKey, Key, KeyClientUpdateKeyPropertiesOptions};

use super::*;
use crate::kms::azure::jwk::KeyFacts;
use crate::kms::azure::keys::{full_width, parameters};
use crate::kms::remote::{Ability, Curve, DecryptScheme, Hash, KeySpec, RemoteKey, SignScheme};
use k256::ecdsa::signature::hazmat::PrehashVerifier;

fn digest(hash: Hash) -> Vec<u8> {
    use sha2::Digest;
    match hash {
        Hash::Sha384 => sha2::Sha384::digest(b"message").to_vec(),
        Hash::Sha512 => sha2::Sha512::digest(b"message").to_vec(),
        _ => sha2::Sha256::digest(b"message").to_vec(),
    }
}

/// Verifies an ECDSA signature with the crate of the curve: whether it is right, and whether a changed one is found.
fn ec_verifies(curve: Curve, spki: &[u8], digest: &[u8], signature: &[u8]) -> bool {
    // What verifies is told by both halves alike; the crate of secp256k1 takes the lower s alone, and Azure gives either.
    macro_rules! verify {
        ($curve:ident) => {{
            use $curve::pkcs8::DecodePublicKey;
            let key = $curve::ecdsa::VerifyingKey::from_public_key_der(spki).unwrap();
            $curve::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|it| key.verify_prehash(digest, &it.normalize_s()).is_ok())
        }};
    }
    match curve {
        Curve::P256 => verify!(p256),
        Curve::P384 => verify!(p384),
        Curve::P521 => verify!(p521),
        Curve::Secp256k1 => verify!(k256),
    }
}

/// Runs the command of openssl over files that stand for `@NAME` in the arguments.
fn openssl(arguments: &[&str], files: &[(&str, &[u8])]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let output = Command::new("openssl").args(arguments).current_dir(folder.path()).output().unwrap();
    output.status.success().then_some(output.stdout)
}

fn hash_name(hash: Hash) -> &'static str {
    match hash {
        Hash::Sha1 => "sha1",
        Hash::Sha384 => "sha384",
        Hash::Sha512 => "sha512",
        _ => "sha256",
    }
}

fn rsa_verifies(scheme: SignScheme, hash: Hash, spki: &[u8], digest: &[u8], signature: &[u8]) -> bool {
    let option = format!("digest:{}", hash_name(hash));
    let mut arguments = vec!["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "key", "-in", "digest"];
    arguments.extend(["-sigfile", "signature", "-pkeyopt", &option]);
    if matches!(scheme, SignScheme::RsaPss(_)) {
        arguments.extend(["-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "rsa_pss_saltlen:digest"]);
    }
    openssl(&arguments, &[("key", spki), ("digest", digest), ("signature", signature)]).is_some()
}

fn verifies(key: &RemoteKey, scheme: SignScheme, digest: &[u8], signature: &[u8]) -> bool {
    let spki = key.public.as_deref().unwrap();
    match (key.spec, scheme) {
        (KeySpec::Ec(curve), _) => ec_verifies(curve, spki, digest, signature),
        (_, SignScheme::RsaPkcs1(hash) | SignScheme::RsaPss(hash)) => {
            rsa_verifies(scheme, hash, spki, digest, signature)
        }
        other => panic!("{other:?}"),
    }
}

fn signs(kms: &AzureKeyVault, key: &RemoteKey, scheme: SignScheme) {
    let (SignScheme::Ecdsa(hash) | SignScheme::RsaPkcs1(hash) | SignScheme::RsaPss(hash)) = scheme else { panic!() };
    let digest = digest(hash);
    let mut signature = kms.sign(key, scheme, &digest).unwrap();
    assert!(verifies(key, scheme, &digest, &signature), "{scheme:?} of {:?}", key.spec);
    *signature.last_mut().unwrap() ^= 1;
    assert!(!verifies(key, scheme, &digest, &signature), "a changed signature must not verify");
}

fn decrypts(kms: &AzureKeyVault, key: &RemoteKey, scheme: DecryptScheme) {
    let mut arguments = vec!["pkeyutl", "-encrypt", "-pubin", "-keyform", "DER", "-inkey", "key", "-in", "plain"];
    let option;
    if let DecryptScheme::RsaOaep(hash) = scheme {
        option = format!("rsa_oaep_md:{}", hash_name(hash));
        arguments.extend(["-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", &option]);
    }
    let files: [(&str, &[u8]); 2] = [("key", key.public.as_deref().unwrap()), ("plain", b"\0plain text\0")];
    let mut ciphertext = openssl(&arguments, &files).unwrap();
    assert_eq!(kms.decrypt(key, scheme, &ciphertext).unwrap().expose(), b"\0plain text\0");
    if scheme != DecryptScheme::RsaPkcs1 {
        ciphertext[40] ^= 1;
        assert_eq!(fault(kms.decrypt(key, scheme, &ciphertext)), KmsFault::Tampered);
    }
    ciphertext.pop();
    assert_eq!(fault(kms.decrypt(key, scheme, &ciphertext)), KmsFault::Tampered);
}

/// Does all that the table says of one kind of key.
fn everything(spec: KeySpec) {
    let kms = Double::shared().provider("none");
    let key = kms.generate(spec, &format!("Ability {spec:?}")).unwrap();
    assert_eq!((key.spec, &key.state), (spec, &KeyState::Enabled));
    assert!(key.uses.sign && !key.uses.mac && key.uses.decrypt == matches!(spec, KeySpec::Rsa(_)));
    for ability in kms.abilities() {
        match *ability {
            Ability::Sign(of, scheme) if of == spec => signs(&kms, &key, scheme),
            Ability::Decrypt(of, scheme) if of == spec => decrypts(&kms, &key, scheme),
            _ => {}
        }
    }
}

#[test]
fn r29_r31_all_that_the_table_says_of_ec_keys_is_so() {
    for curve in [Curve::P256, Curve::P384, Curve::P521, Curve::Secp256k1] {
        everything(KeySpec::Ec(curve));
    }
}

#[test]
fn r31_all_that_the_table_says_of_rsa_keys_is_so() {
    for bits in [2048, 3072, 4096] {
        everything(KeySpec::Rsa(bits));
    }
}

#[test]
fn r31_what_the_table_does_not_say_is_unsupported() {
    let kms = Double::shared().provider("none");
    let hashes = [Hash::Sha1, Hash::Sha224, Hash::Sha256, Hash::Sha384, Hash::Sha512];
    let curves = [Curve::P256, Curve::P384, Curve::P521, Curve::Secp256k1];
    let specs = curves.map(KeySpec::Ec).into_iter().chain([2048, 3072, 4096].map(KeySpec::Rsa));
    let specs = specs.chain([KeySpec::Ed25519, KeySpec::Hmac(Hash::Sha256)]);
    let id = "https://v.vault.azure.net/keys/name/1".to_owned();
    for spec in specs {
        let key = RemoteKey {
            id: id.clone(),
            label: "name".to_owned(),
            spec,
            uses: Default::default(),
            state: KeyState::Enabled,
            public: None,
        };
        for hash in hashes {
            for scheme in [SignScheme::Ecdsa(hash), SignScheme::RsaPkcs1(hash), SignScheme::RsaPss(hash)] {
                let told = kms.abilities().contains(&Ability::Sign(spec, scheme));
                // One byte is no digest: what is supported is refused for that, before the service is asked.
                let error = kms.sign(&key, scheme, b"x").unwrap_err();
                assert_eq!(told, error.kind() == crate::error::Kind::DataLenRange, "{spec:?} {scheme:?}: {error}");
                assert_eq!(!told, error.kms_fault() == Some(KmsFault::Unsupported), "{spec:?} {scheme:?}: {error}");
            }
            if !kms.abilities().contains(&Ability::Decrypt(spec, DecryptScheme::RsaOaep(hash))) {
                assert_eq!(fault(kms.decrypt(&key, DecryptScheme::RsaOaep(hash), b"x")), KmsFault::Unsupported);
            }
        }
        assert_eq!(fault(kms.mac(&key, b"message")), KmsFault::Unsupported);
    }
    for spec in [KeySpec::Rsa(1024), KeySpec::Rsa(2047), KeySpec::Ed25519, KeySpec::Hmac(Hash::Sha256)] {
        assert_eq!(fault(kms.generate(spec, "label")), KmsFault::Unsupported);
    }
}

#[test]
fn r27_many_signatures_have_the_full_width_and_verify() {
    // In one of 128 signatures r or s is short: eight are expected here.
    let kms = Double::shared().provider("none");
    let key = kms.generate(KeySpec::Ec(Curve::P256), "width").unwrap();
    let digest = digest(Hash::Sha256);
    let mut short = 0;
    for _ in 0..1024 {
        let signature = kms.sign(&key, SignScheme::Ecdsa(Hash::Sha256), &digest).unwrap();
        assert_eq!(signature.len(), 64);
        assert!(verifies(&key, SignScheme::Ecdsa(Hash::Sha256), &digest, &signature));
        short += u32::from(signature[0] == 0 || signature[32] == 0);
    }
    assert!(short > 0, "none of 1024 was short: the odds are one in 3000");
}

#[test]
#[ignore = "takes minutes: 10 000 signatures of each curve"]
fn r27_ten_thousand_signatures_of_each_curve_verify() {
    let kms = Double::shared().provider("none");
    for (curve, hash) in [
        (Curve::P256, Hash::Sha256),
        (Curve::P384, Hash::Sha384),
        (Curve::P521, Hash::Sha512),
        (Curve::Secp256k1, Hash::Sha256),
    ] {
        let key = kms.generate(KeySpec::Ec(curve), "ten thousand").unwrap();
        let (scheme, digest) = (SignScheme::Ecdsa(hash), digest(hash));
        let many = || {
            for _ in 0..2500 {
                let signature = kms.sign(&key, scheme, &digest).unwrap();
                assert_eq!(signature.len(), 2 * curve.width());
                assert!(verifies(&key, scheme, &digest, &signature));
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(many))));
    }
}

#[test]
fn r27_a_signature_of_another_width_is_refused() {
    for (spec, len) in [
        (KeySpec::Ec(Curve::P256), 64),
        (KeySpec::Ec(Curve::Secp256k1), 64),
        (KeySpec::Ec(Curve::P384), 96),
        (KeySpec::Ec(Curve::P521), 132),
        (KeySpec::Rsa(3072), 384),
    ] {
        assert_eq!(full_width(spec, &vec![0; len]).unwrap(), vec![0; len]);
        for wrong in [0, len - 1, len + 1] {
            assert_eq!(fault(full_width(spec, &vec![1; wrong])), KmsFault::Failed, "{spec:?} {wrong}");
        }
    }
}

#[test]
fn keys_are_made_in_an_hsm_where_that_is_wanted_or_there_is_nothing_else() {
    let kty = |spec, hsm| parameters(spec, hsm).unwrap().kty;
    assert_eq!(kty(KeySpec::Ec(Curve::P384), false), Some(KeyType::Ec));
    assert_eq!(kty(KeySpec::Ec(Curve::P384), true), Some(KeyType::EcHsm));
    assert_eq!(kty(KeySpec::Rsa(4096), false), Some(KeyType::Rsa));
    assert_eq!(kty(KeySpec::Rsa(4096), true), Some(KeyType::RsaHsm));
    let settings = Double::shared().settings("k");
    let hsm = |settings: &Settings| connect::Options::read(settings).unwrap().hsm_keys;
    assert!(!hsm(&settings));
    assert!(hsm(&settings.clone().with("hsm_keys", double::Setting::Flag(true))));
    assert!(hsm(&settings.with("vault", double::text("https://name.managedhsm.azure.net"))));
}

#[test]
fn short_coordinates_are_padded_and_long_ones_refused() {
    let read = |x: &[u8], y: &[u8]| {
        let jwk = JsonWebKey {
            kid: Some("https://v.vault.azure.net/keys/name/1".to_owned()),
            kty: Some(KeyType::EcHsm),
            crv: Some(CurveName::P521),
            x: Some(x.to_vec()),
            y: Some(y.to_vec()),
            ..Default::default()
        };
        let mut key = Key::default();
        key.key = Some(jwk);
        KeyFacts::read(key).unwrap().into_remote()
    };
    let public = read(&[7; 65], &[9; 66]).unwrap().public.unwrap();
    let point = &public[public.len() - 133..];
    assert_eq!((point[0], point[1], point[2], point[66], point[67]), (4, 0, 7, 7, 9));
    assert_eq!(fault(read(&[7; 67], &[9; 66])), KmsFault::Failed);
}

#[test]
fn r65_a_key_is_found_by_name_version_or_identifier_with_one_request() {
    let faults = Faults::before(Double::shared());
    let kms = faults.double().provider("none");
    let made = kms.generate(KeySpec::Ec(Curve::P256), "found by name").unwrap();
    assert_eq!(made.label, "found-by-name");
    let path = made.id.split_once("/keys/").unwrap().1;
    for name in ["found-by-name", path, &made.id, made.id.rsplit_once('/').unwrap().0] {
        faults.clear();
        assert_eq!(kms.find(name).unwrap(), made, "{name}");
        assert_eq!(faults.hits(), "get=1", "{name}");
    }
    faults.clear();
    kms.sign(&made, SignScheme::Ecdsa(Hash::Sha256), &digest(Hash::Sha256)).unwrap();
    assert_eq!(faults.hits(), "sign=1");
    for missing in
        ["not-there", "found-by-name/00000000000000000000000000000000", "no_name", "", "a/b/c", "../secrets/x"]
    {
        assert_eq!(fault(kms.find(missing)), KmsFault::NotFound, "{missing}");
    }
}

#[test]
fn a_name_that_is_taken_makes_another_key_and_no_new_version() {
    let kms = Double::shared().provider("none");
    let spec = KeySpec::Ec(Curve::P256);
    let first = kms.generate(spec, "  taken / twice!  ").unwrap();
    let second = kms.generate(spec, "taken twice").unwrap();
    assert_eq!(first.label, "taken-twice");
    assert!(second.label.starts_with("taken-twice-"), "{}", second.label);
    assert_eq!(kms.find(&first.label).unwrap(), first, "the first key has no new version");
    let long = kms.generate(spec, &"ä long läbel ".repeat(30)).unwrap();
    assert_eq!(long.label.chars().count(), 118);
    assert_eq!(kms.generate(spec, "äöü").unwrap().label, "key");
}

#[test]
fn r65_the_list_leaves_out_what_cannot_be_used() {
    // A vault of its own: the others make keys while this one lists.
    let double = Double::start(&[]);
    let faults = Faults::before(&double);
    let kms = faults.double().provider("none");
    let good = kms.generate(KeySpec::Ec(Curve::Secp256k1), "good").unwrap();
    let hidden = kms.generate(KeySpec::Rsa(2048), "rsa").unwrap();
    let off = kms.generate(KeySpec::Ec(Curve::P256), "off").unwrap();
    disable(&kms, &off);
    let aes = CreateKeyParameters { kty: Some(KeyType::OctHsm), ..Default::default() };
    kms.run(|vault| async move { vault.create("aes", aes).await }).unwrap();
    let labels = |kms: &AzureKeyVault| {
        let mut labels: Vec<_> = kms.list().unwrap().into_iter().map(|key| key.label).collect();
        labels.sort();
        labels
    };
    assert_eq!(labels(&kms), ["good", "rsa"]);
    assert_eq!(kms.find("off").unwrap().state, KeyState::Disabled);
    assert_eq!(kms.list().unwrap().into_iter().find(|key| key.label == "good"), Some(good));
    kms.run(|vault| async move { delete(&vault, &hidden.label).await }).unwrap();
    assert_eq!(labels(&kms), ["good"]);
    // The list itself is denied, then a key of it, then a key is slow to come by: a short list would be wrong.
    faults.set("get", "forbidden", 0);
    assert_eq!(fault(kms.list()), KmsFault::Denied);
    faults.clear();
    faults.skip("get", "forbidden", 1);
    assert_eq!(labels(&kms), Vec::<String>::new());
    faults.clear();
    faults.skip("get", "unavailable", 1);
    assert_eq!(fault(kms.list()), KmsFault::Unreachable);
}

/// Disables a key, as an operator does.
pub fn disable(kms: &AzureKeyVault, key: &RemoteKey) {
    set(kms, &key.label, KeyAttributes { enabled: Some(false), ..Default::default() });
}

/// Changes the attributes of a key.
pub fn set(kms: &AzureKeyVault, name: &str, attributes: KeyAttributes) {
    let name = name.to_owned();
    kms.run(|vault| async move {
        let parameters = UpdateKeyPropertiesParameters { key_attributes: Some(attributes), ..Default::default() };
        let options = KeyClientUpdateKeyPropertiesOptions::default();
        let client = vault.client().await?;
        client.update_key_properties(&name, parameters.try_into().unwrap(), Some(options)).await.unwrap();
        Ok(())
    })
    .unwrap();
}

/// Deletes a key; it can be recovered.
pub async fn delete(vault: &Vault, name: &str) -> Result<()> {
    vault.client().await?.delete_key(name, None).await.unwrap();
    Ok(())
}
