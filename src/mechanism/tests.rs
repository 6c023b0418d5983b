//! Tests of the registry and of the asymmetric families, through the rows alone.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use data_encoding::HEXLOWER as HEX;

use super::*;
use crate::crypto::InOut;
use crate::crypto::hash::Hash;
use crate::error::Kind;
use crate::secret::{SecureBytes, SecurePrivateKey};

const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x22";
const P521: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x23";
const SECP256K1: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x0a";
const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";
const X25519: &[u8] = b"\x06\x03\x2b\x65\x6e";

/// A generated key pair, with what each half carries.
struct Pair {
    kind: &'static KeyType,
    made: GeneratedPair,
}

impl Pair {
    fn make(mechanism: CK_MECHANISM_TYPE, template: &[(CK_ATTRIBUTE_TYPE, Value)]) -> Pair {
        let row = find(mechanism).unwrap();
        let template = template.iter().cloned().collect();
        let made = row.generate_pair.unwrap()(&Params::None, &template).unwrap();
        Pair { kind: key_type(row.key_types[0]).unwrap(), made }
    }

    fn ec(params: &[u8]) -> Pair {
        Self::make(CKM_EC_KEY_PAIR_GEN, &[(CKA_EC_PARAMS, params.into())])
    }

    fn ed25519() -> Pair {
        Self::make(CKM_EC_EDWARDS_KEY_PAIR_GEN, &[(CKA_EC_PARAMS, ED25519.into())])
    }

    fn x25519() -> Pair {
        Self::make(CKM_EC_MONTGOMERY_KEY_PAIR_GEN, &[(CKA_EC_PARAMS, X25519.into())])
    }

    fn rsa(bits: u64) -> Pair {
        Self::make(CKM_RSA_PKCS_KEY_PAIR_GEN, &[(CKA_MODULUS_BITS, bits.into())])
    }

    fn all() -> Vec<Pair> {
        let curves = [P256, P384, P521, SECP256K1].map(Pair::ec);
        curves.into_iter().chain([Pair::ed25519(), Pair::x25519(), Pair::rsa(2048)]).collect()
    }

    fn private(&self) -> Arc<Key> {
        Arc::new((self.kind.secret_key)(&self.made.private, &self.made.secret).unwrap())
    }

    fn public(&self) -> Arc<Key> {
        Arc::new(self.kind.public_key.unwrap()(&self.made.public).unwrap())
    }

    /// The template with which a caller would import the private key.
    fn template(&self) -> Attributes {
        let mut template = self.made.private.clone();
        for id in self.kind.secret_attributes {
            template.set(*id, (self.kind.reveal)(&template, &self.made.secret, *id).unwrap().unwrap());
        }
        template
    }
}

fn signer(mechanism: CK_MECHANISM_TYPE, pair: &Pair, params: &Params) -> Box<dyn SignOperation> {
    find(mechanism).unwrap().sign.unwrap()(&pair.private(), params).unwrap()
}

fn verifier(mechanism: CK_MECHANISM_TYPE, pair: &Pair, params: &Params) -> Box<dyn VerifyOperation> {
    find(mechanism).unwrap().verify.unwrap()(&pair.public(), params).unwrap()
}

fn pss_params(hash: CK_MECHANISM_TYPE, mgf: CK_ULONG, salt_len: u64) -> Params {
    Params::RsaPss { hash, mgf, salt_len }
}

/// The parameters that a signature row can run with, and an input that it takes.
fn sample(row: &Mechanism) -> (Params, Vec<u8>) {
    let over = |hash, mgf, len: usize| (pss_params(hash, mgf, 20), vec![7; len]);
    match row.id {
        CKM_RSA_PKCS_PSS => over(CKM_SHA256, CKG_MGF1_SHA512, 32),
        CKM_SHA1_RSA_PKCS_PSS => over(CKM_SHA_1, CKG_MGF1_SHA1, 500),
        CKM_SHA224_RSA_PKCS_PSS => over(CKM_SHA224, CKG_MGF1_SHA1, 500),
        CKM_SHA256_RSA_PKCS_PSS => over(CKM_SHA256, CKG_MGF1_SHA256, 500),
        CKM_SHA384_RSA_PKCS_PSS => over(CKM_SHA384, CKG_MGF1_SHA256, 500),
        CKM_SHA512_RSA_PKCS_PSS => over(CKM_SHA512, CKG_MGF1_SHA3_256, 500),
        CKM_SHA3_224_RSA_PKCS_PSS => over(CKM_SHA3_224, CKG_MGF1_SHA224, 500),
        CKM_SHA3_256_RSA_PKCS_PSS => over(CKM_SHA3_256, CKG_MGF1_SHA3_256, 500),
        CKM_SHA3_384_RSA_PKCS_PSS => over(CKM_SHA3_384, CKG_MGF1_SHA384, 500),
        CKM_SHA3_512_RSA_PKCS_PSS => over(CKM_SHA3_512, CKG_MGF1_SHA512, 500),
        CKM_RSA_PKCS | CKM_RSA_X_509 => (Params::None, vec![7; 51]),
        _ => (Params::None, vec![7; 500]),
    }
}

#[test]
fn the_registry_finds_every_row_and_no_other() {
    let ids: Vec<_> = all().map(|row| row.id).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "sorted, without a double");
    for row in all() {
        assert_eq!(find(row.id).unwrap().id, row.id);
        assert_ne!(flags(row), 0, "{:#x} does nothing", row.id);
        let is_known = |kind: &CK_KEY_TYPE| key_type(*kind).is_some() || *kind == CKK_SR_KMS;
        assert!(row.key_types.iter().all(is_known), "{:#x}", row.id);
    }
    assert!(find(CKM_VENDOR_DEFINED).is_none() && key_type(CKK_DSA).is_none());
    let info = flags(find(CKM_EC_KEY_PAIR_GEN).unwrap());
    assert_eq!(info, CKF_GENERATE_KEY_PAIR | CKF_EC_F_P | CKF_EC_OID | CKF_EC_CURVENAME | CKF_EC_UNCOMPRESS);
    assert_eq!(find(CKM_RSA_PKCS_OAEP).map(flags), Some(CKF_ENCRYPT | CKF_DECRYPT | CKF_WRAP | CKF_UNWRAP));
}

#[test]
fn usages_of_key_types_follow_from_the_rows() {
    const CIPHER: CK_FLAGS = CKF_ENCRYPT | CKF_DECRYPT;
    const SIGNATURE: CK_FLAGS = CKF_SIGN | CKF_VERIFY;
    for (kind, can, cannot) in [
        (CKK_RSA, CIPHER | SIGNATURE, CKF_DERIVE),
        (CKK_EC, SIGNATURE | CKF_DERIVE, CIPHER),
        (CKK_EC_EDWARDS, SIGNATURE, CIPHER),
        (CKK_EC_MONTGOMERY, CKF_DERIVE, CIPHER | SIGNATURE),
        (CKK_AES, CIPHER | SIGNATURE, CKF_GENERATE_KEY_PAIR),
        (CKK_GENERIC_SECRET, SIGNATURE, CIPHER),
        (CKK_SHA256_HMAC, SIGNATURE, CIPHER),
        (CKK_DSA, 0, CIPHER | SIGNATURE),
    ] {
        assert_eq!(usages(kind) & (can | cannot), can, "{kind:#x}");
    }
}

#[test]
fn r47_every_signature_row_signs_in_one_part_and_in_many() {
    let pairs = Pair::all();
    let mut rows = 0;
    for row in all().filter(|row| row.sign.is_some()) {
        for pair in pairs.iter().filter(|pair| row.key_types.contains(&pair.kind.id)) {
            rows += 1;
            let ((params, data), what) = (sample(row), mechanism_name(row.id));
            let mut whole = signer(row.id, pair, &params);
            let mut parts = signer(row.id, pair, &params);
            data.chunks(7).for_each(|part| parts.update(part).unwrap());
            for signature in [whole.sign(&data).unwrap(), parts.finish().unwrap()] {
                assert_eq!(signature.len(), whole.output_len(), "{what:?}");
                verifier(row.id, pair, &params).verify(&data, &signature).unwrap();
                let mut running = verifier(row.id, pair, &params);
                data.chunks(11).for_each(|part| running.update(part).unwrap());
                running.finish(&signature).unwrap();
                refuses(row.id, pair, &params, &data, &signature);
            }
        }
    }
    assert_eq!(rows, 21 + 4 * 10 + 1, "21 rows for RSA, 10 for each of 4 curves, 1 for Ed25519");
}

fn refuses(id: CK_MECHANISM_TYPE, pair: &Pair, params: &Params, data: &[u8], signature: &[u8]) {
    let kind = |data: &[u8], signature: &[u8]| verifier(id, pair, params).verify(data, signature).unwrap_err().kind();
    let (mut altered, mut other) = (signature.to_vec(), data.to_vec());
    *altered.last_mut().unwrap() ^= 1;
    other[0] ^= 1;
    assert_eq!(kind(data, &altered), Kind::SignatureInvalid, "{id:#x}");
    assert_eq!(kind(&other, signature), Kind::SignatureInvalid, "{id:#x}");
    assert_eq!(kind(data, &signature[1..]), Kind::SignatureLenRange, "{id:#x}");
    assert_eq!(kind(data, &[signature, &[0]].concat()), Kind::SignatureLenRange, "{id:#x}");
}

#[test]
fn r47_rsa_encrypts_decrypts_wraps_and_unwraps() {
    let pair = Pair::rsa(2048);
    let oaep = |hash, mgf| Params::RsaOaep(RsaOaep { hash, mgf, label: b"label".to_vec() });
    for (id, params) in [
        (CKM_RSA_PKCS, Params::None),
        (CKM_RSA_PKCS_OAEP, oaep(CKM_SHA_1, CKG_MGF1_SHA1)),
        (CKM_RSA_PKCS_OAEP, oaep(CKM_SHA512, CKG_MGF1_SHA224)),
    ] {
        let (row, secret) = (find(id).unwrap(), SecureBytes::copy_from(b"sixteen bytes...."));
        let mut cipher = [0; 256];
        let mut encryption = row.encrypt.unwrap()(&pair.public(), &params).unwrap();
        assert_eq!(encryption.output_len(Step::Single, 17), 256);
        let short = encryption.single(InOut::from_slices(secret.expose(), &mut cipher[..255])).unwrap();
        assert_eq!(short, Written::Needs(256));
        encryption.update(InOut::from_slices(&secret.expose()[..5], &mut [])).unwrap();
        encryption.update(InOut::from_slices(&secret.expose()[5..], &mut [])).unwrap();
        assert_eq!(encryption.finish(InOut::from_slices(&[], &mut cipher)).unwrap(), Written::Bytes(256));
        let mut plain = [0; 256];
        let mut decryption = row.decrypt.unwrap()(&pair.private(), &params).unwrap();
        assert_eq!(decryption.single(InOut::from_slices(&cipher, &mut plain)).unwrap(), Written::Bytes(17));
        assert_eq!(&plain[..17], secret.expose());
        let wrapped = row.wrap.unwrap()(&pair.public(), &params, &secret).unwrap();
        assert_eq!(row.unwrap.unwrap()(&pair.private(), &params, &wrapped).unwrap(), secret);
        let unwrap = |bytes: &[u8]| row.unwrap.unwrap()(&pair.private(), &params, bytes).unwrap_err().kind();
        assert_eq!(unwrap(&[1; 256]), Kind::WrappedKeyInvalid);
        assert_eq!(unwrap(&[1; 255]), Kind::WrappedKeyLenRange);
        let long = row.wrap.unwrap()(&pair.public(), &params, &SecureBytes::zeroed(250)).unwrap_err();
        assert_eq!(long.kind(), Kind::KeySizeRange);
    }
}

/// The parameters of `CKM_RSA_AES_KEY_WRAP` over SHA-256.
fn rsa_aes(aes_bits: u64, label: &[u8]) -> Params {
    let oaep = RsaOaep { hash: CKM_SHA256, mgf: CKG_MGF1_SHA256, label: label.to_vec() };
    Params::RsaAesKeyWrap { aes_bits, oaep }
}

#[test]
fn r47_rsa_aes_key_wrap_wraps_any_length_and_refuses_what_was_altered() {
    let (pair, row) = (Pair::rsa(2048), find(CKM_RSA_AES_KEY_WRAP).unwrap());
    assert_eq!(flags(row), CKF_WRAP | CKF_UNWRAP);
    let wrap = |params: &Params, secret: &SecureBytes| row.wrap.unwrap()(&pair.public(), params, secret);
    let unwrap = |params: &Params, bytes: &[u8]| row.unwrap.unwrap()(&pair.private(), params, bytes);
    for bits in [128, 192, 256] {
        for len in [1, 16, 33, 1200] {
            let (params, secret) = (rsa_aes(bits, b"label"), random::secure(len).unwrap());
            let wrapped = wrap(&params, &secret).unwrap();
            assert_eq!(wrapped.len(), 256 + len.next_multiple_of(8) + 8);
            assert_eq!(unwrap(&params, &wrapped).unwrap(), secret);
            assert_ne!(wrap(&params, &secret).unwrap()[256..], wrapped[256..], "a fresh AES key each time");
            let kind = |params: &Params, bytes: &[u8]| unwrap(params, bytes).unwrap_err().kind();
            for at in [255, 256, wrapped.len() - 1] {
                let mut altered = wrapped.clone();
                altered[at] ^= 1;
                assert_eq!(kind(&params, &altered), Kind::WrappedKeyInvalid, "byte {at}");
            }
            for short in [0, 255, 256, 264, wrapped.len() - 1] {
                assert_eq!(kind(&params, &wrapped[..short]), Kind::WrappedKeyLenRange, "{short} bytes");
            }
            assert_eq!(kind(&rsa_aes(bits, b"other"), &wrapped), Kind::WrappedKeyInvalid);
            let other = if bits == 128 { 256 } else { 128 };
            assert_eq!(kind(&rsa_aes(other, b"label"), &wrapped), Kind::WrappedKeyInvalid);
        }
    }
    let secret = SecureBytes::copy_from(b"secret");
    for params in [rsa_aes(0, b""), rsa_aes(16, b""), rsa_aes(512, b""), Params::None] {
        assert_eq!(wrap(&params, &secret).unwrap_err().kind(), Kind::MechanismParamInvalid, "{params:?}");
        assert_eq!(unwrap(&params, &[0; 280]).unwrap_err().kind(), Kind::MechanismParamInvalid, "{params:?}");
    }
}

#[test]
fn r47_rsa_aes_key_wrap_is_oaep_and_kwp_of_openssl() {
    let (rsa, target) = (Pair::rsa(2048), Pair::ec(P256));
    let row = find(CKM_RSA_AES_KEY_WRAP).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let pkcs8 = (rsa.kind.to_wrapped)(&rsa.made.private, &rsa.made.secret).unwrap();
    let private = file("private.der", pkcs8.expose());
    let public = file("public.der", &rsa.kind.public_key_info.unwrap()(&rsa.made.public).unwrap());
    let oaep = |what: &[&str], input: &[u8]| {
        let padding = ["rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256"];
        let padding = padding.iter().flat_map(|option| ["-pkeyopt", *option]);
        openssl(&["pkeyutl"].iter().chain(what).copied().chain(padding).collect::<Vec<_>>(), input)
    };
    // The command asks for the initial value, although KWP has but one (RFC 5649, 3).
    let kwp = |what: &str, bits: u64, key: &[u8], input: &[u8]| {
        let (name, key) = (format!("-id-aes{bits}-wrap-pad"), HEX.encode(key));
        openssl(&["enc", what, &name, "-K", &key, "-iv", "a65959a6"], input)
    };
    let secret = (target.kind.to_wrapped)(&target.made.private, &target.made.secret).unwrap();
    for bits in [128, 192, 256] {
        let params = rsa_aes(bits, b"");
        let ours = row.wrap.unwrap()(&rsa.public(), &params, &secret).unwrap();
        let aes = oaep(&["-decrypt", "-keyform", "DER", "-inkey", &private], &ours[..256]);
        assert_eq!(aes.len() as u64 * 8, bits);
        assert_eq!(kwp("-d", bits, &aes, &ours[256..]), secret.expose());

        let aes = random::secure(aes.len()).unwrap();
        let first = oaep(&["-encrypt", "-pubin", "-keyform", "DER", "-inkey", &public], aes.expose());
        let theirs = [first, kwp("-e", bits, aes.expose(), secret.expose())].concat();
        assert_eq!(row.unwrap.unwrap()(&rsa.private(), &params, &theirs).unwrap(), secret);
    }
}

#[test]
fn pss_takes_any_legal_salt_and_no_other() {
    let pair = Pair::rsa(2048);
    for salt in [0, 1, 32, 256 - 32 - 2] {
        let params = pss_params(CKM_SHA256, CKG_MGF1_SHA1, salt);
        let signature = signer(CKM_RSA_PKCS_PSS, &pair, &params).sign(&[1; 32]).unwrap();
        verifier(CKM_RSA_PKCS_PSS, &pair, &params).verify(&[1; 32], &signature).unwrap();
        let other = pss_params(CKM_SHA256, CKG_MGF1_SHA1, (salt + 1) % 200);
        assert!(verifier(CKM_RSA_PKCS_PSS, &pair, &other).verify(&[1; 32], &signature).is_err());
    }
    let start = find(CKM_RSA_PKCS_PSS).unwrap().sign.unwrap();
    for salt in [223, u64::MAX] {
        let refused = start(&pair.private(), &pss_params(CKM_SHA256, CKG_MGF1_SHA1, salt)).err().unwrap();
        assert_eq!(refused.kind(), Kind::MechanismParamInvalid);
    }
    let start = find(CKM_SHA256_RSA_PKCS_PSS).unwrap().sign.unwrap();
    let other_hash = start(&pair.private(), &pss_params(CKM_SHA384, CKG_MGF1_SHA1, 20)).err().unwrap();
    assert_eq!(other_hash.kind(), Kind::MechanismParamInvalid);
}

/// Verifies with RustCrypto's implementation of a NIST curve.
macro_rules! rust_crypto {
    ($curve:ident) => {
        |point: &[u8], digest: &[u8], signature: &[u8]| {
            use $curve::ecdsa::signature::hazmat::PrehashVerifier;
            let key = $curve::ecdsa::VerifyingKey::from_sec1_bytes(point).unwrap();
            key.verify_prehash(digest, &$curve::ecdsa::Signature::from_slice(signature).unwrap()).is_ok()
        }
    };
}

/// Signs `count` digests, and verifies each with another library; every one has the exact width.
fn r27(params: &[u8], len: usize, count: usize, verify: impl Fn(&[u8], &[u8], &[u8]) -> bool) {
    let pair = Pair::ec(params);
    let point = pair.made.public.bytes(CKA_EC_POINT).unwrap();
    let point = &point[point.len() - len - 1..];
    let (mut running, mut short) = (signer(CKM_ECDSA, &pair, &Params::None), 0);
    for i in 0..count {
        let digest = Hash::Sha256.digest(&i.to_be_bytes()).unwrap();
        let signature = running.sign(&digest).unwrap();
        assert_eq!(signature.len(), len);
        assert!(verify(point, &digest, &signature), "{i}");
        short += usize::from(signature[0] == 0 || signature[len / 2] == 0);
    }
    assert!(short > 0, "no short r or s came up, so the width proves nothing");
}

#[test]
fn r27_p256_signatures_have_one_width() {
    r27(P256, 64, 10_000, rust_crypto!(p256));
}

#[test]
fn r27_p384_signatures_have_one_width() {
    r27(P384, 96, 2_000, rust_crypto!(p384));
}

#[test]
fn r27_p521_signatures_have_one_width() {
    r27(P521, 132, 2_000, rust_crypto!(p521));
}

#[test]
fn r27_r29_secp256k1_signatures_have_one_width_and_a_low_s() {
    let half = HEX.decode(b"7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0").unwrap();
    r27(SECP256K1, 64, 10_000, |point, digest, signature| {
        assert!(signature[32..] <= half[..], "high s");
        crate::crypto::aws_lc_verifies_secp256k1(point, digest, signature)
    });
}

#[test]
fn r29_a_high_s_still_verifies() {
    let pair = Pair::ec(SECP256K1);
    let low = signer(CKM_ECDSA, &pair, &Params::None).sign(&[5; 32]).unwrap();
    let parsed = k256::ecdsa::Signature::from_slice(&low).unwrap();
    let high = k256::ecdsa::Signature::from_scalars(parsed.r(), -parsed.s()).unwrap().to_bytes();
    assert_ne!(high.as_slice(), low.as_slice());
    verifier(CKM_ECDSA, &pair, &Params::None).verify(&[5; 32], &high).unwrap();
}

#[test]
fn a_long_digest_is_cut_and_a_short_one_is_padded() {
    for params in [P256, P384, P521, SECP256K1] {
        let pair = Pair::ec(params);
        let len = signer(CKM_ECDSA, &pair, &Params::None).output_len() / 2;
        for given in [1, 15, 20, 32, 66, 200] {
            let digest = vec![0xA7; given];
            let signature = signer(CKM_ECDSA, &pair, &Params::None).sign(&digest).unwrap();
            // P-521 cuts to 521 bits, not to whole bytes; there only what is shorter is compared.
            let same = match (given.cmp(&len), params == P521) {
                (std::cmp::Ordering::Less, _) => {
                    [vec![0; len.min(64) - given.min(len.min(64))], digest.clone()].concat()
                }
                (_, true) => digest.clone(),
                _ => digest[..len].to_vec(),
            };
            verifier(CKM_ECDSA, &pair, &Params::None).verify(&same, &signature).unwrap();
        }
        let none = signer(CKM_ECDSA, &pair, &Params::None).sign(&[]).unwrap_err();
        assert_eq!(none.kind(), Kind::DataLenRange);
    }
}

fn derive(pair: &Pair, kdf: CK_ULONG, public: &[u8], len: Option<usize>) -> crate::error::Result<SecureBytes> {
    let params = Params::Ecdh1 { kdf, shared: Vec::new(), public: public.to_vec() };
    find(CKM_ECDH1_DERIVE).unwrap().derive.unwrap()(&pair.private(), &params, len)
}

#[test]
fn r46_ecdh_takes_the_peer_raw_and_as_der() {
    for (make, len) in [
        (Box::new(|| Pair::ec(P256)) as Box<dyn Fn() -> Pair>, 32),
        (Box::new(|| Pair::ec(P384)), 48),
        (Box::new(|| Pair::ec(P521)), 66),
        (Box::new(|| Pair::ec(SECP256K1)), 32),
        (Box::new(Pair::x25519), 32),
    ] {
        let (ours, theirs) = (make(), make());
        let der = theirs.made.public.bytes(CKA_EC_POINT).unwrap();
        let raw = theirs.kind.id_source.unwrap()(&theirs.made.public).unwrap();
        let secret = derive(&ours, CKD_NULL, der, None).unwrap();
        assert_eq!(secret.len(), len);
        assert_eq!(secret, derive(&ours, CKD_NULL, &raw, None).unwrap());
        assert_eq!(secret, derive(&theirs, CKD_NULL, ours.made.public.bytes(CKA_EC_POINT).unwrap(), None).unwrap());
        // Truncation takes bytes from the leading end (PKCS #11 v2.20, 12.3.9).
        let cut = derive(&ours, CKD_NULL, der, Some(16)).unwrap();
        assert_eq!(cut.expose(), &secret.expose()[len - 16..]);
        assert_eq!(derive(&ours, CKD_NULL, der, Some(len + 1)).unwrap_err().kind(), Kind::TemplateInconsistent);
        let one = [secret.expose(), &1_u32.to_be_bytes()].concat();
        let kdf = derive(&ours, CKD_SHA384_KDF, der, None).unwrap();
        assert_eq!(kdf.expose(), Hash::Sha384.digest(&one).unwrap().as_slice());
        assert_eq!(derive(&ours, CKD_SHA384_KDF, der, Some(100)).unwrap().len(), 100);
        for bad in [&raw[1..], &[], &vec![0; raw.len()]] {
            assert_eq!(derive(&ours, CKD_NULL, bad, None).unwrap_err().kind(), Kind::MechanismParamInvalid);
        }
    }
}

#[test]
fn r45_points_come_in_in_every_form_and_go_out_in_one() {
    for pair in Pair::all().iter().filter(|pair| pair.kind.id != CKK_RSA) {
        let canonical = pair.made.public.bytes(CKA_EC_POINT).unwrap().to_vec();
        let raw = pair.kind.id_source.unwrap()(&pair.made.public).unwrap();
        assert_eq!(canonical[0], 4, "OCTET STRING");
        let header: &[u8] = if raw.len() > 127 { &[3, 0x81] } else { &[3] };
        let bits = [header, &[u8::try_from(raw.len() + 1).unwrap(), 0], &raw].concat();
        let mut forms = vec![raw.clone(), canonical.clone(), bits];
        if pair.kind.id == CKK_EC {
            let half = raw.len() / 2;
            forms.push([&[2 + raw.last().unwrap() % 2], &raw[1..=half]].concat());
        }
        for form in forms {
            let mut template = pair.made.public.clone();
            template.set(CKA_EC_POINT, form.clone());
            (pair.kind.normalize_public)(&mut template).unwrap();
            assert_eq!(template, pair.made.public, "{form:?}");
            for bad in [[form.as_slice(), &[0]].concat(), form[..form.len() - 1].to_vec(), Vec::new()] {
                template.set(CKA_EC_POINT, bad.clone());
                assert!((pair.kind.normalize_public)(&mut template).is_err(), "{bad:?}");
            }
        }
    }
}

fn printable(name: &str) -> Vec<u8> {
    [&[0x13, u8::try_from(name.len()).unwrap()], name.as_bytes()].concat()
}

#[test]
fn r46_params_come_in_in_every_form_and_go_out_in_one() {
    let gnu_ed = HEX.decode(b"06092b06010401da470f01").unwrap();
    let gnu_x = HEX.decode(b"060a2b060104019755010501").unwrap();
    let cases = [
        (
            CKM_EC_EDWARDS_KEY_PAIR_GEN,
            ED25519,
            vec![ED25519.to_vec(), printable("edwards25519"), printable("Ed25519"), gnu_ed],
        ),
        (
            CKM_EC_MONTGOMERY_KEY_PAIR_GEN,
            X25519,
            vec![X25519.to_vec(), printable("curve25519"), printable("X25519"), gnu_x],
        ),
        (CKM_EC_KEY_PAIR_GEN, P256, vec![P256.to_vec(), printable("secp256r1"), printable("prime256v1")]),
        (CKM_EC_KEY_PAIR_GEN, SECP256K1, vec![SECP256K1.to_vec(), printable("secp256k1")]),
    ];
    for (mechanism, canonical, forms) in cases {
        for form in forms {
            let pair = Pair::make(mechanism, &[(CKA_EC_PARAMS, form.clone().into())]);
            assert_eq!(pair.made.public.bytes(CKA_EC_PARAMS), Some(canonical), "{form:?}");
            assert_eq!(pair.made.private, pair.made.public);
            let mut template = pair.template();
            template.set(CKA_EC_PARAMS, form);
            template.take(CKA_EC_POINT);
            assert_eq!((pair.kind.import)(&mut template).unwrap(), pair.made.secret);
            assert_eq!(template, pair.made.private, "imported as generated");
        }
    }
}

#[test]
fn an_unknown_curve_is_an_error_that_lists_the_known() {
    let brainpool = HEX.decode(b"06092b2403030208010107").unwrap();
    for (mechanism, known) in [
        (CKM_EC_KEY_PAIR_GEN, "secp256r1, secp384r1, secp521r1, secp256k1"),
        (CKM_EC_EDWARDS_KEY_PAIR_GEN, "edwards25519"),
        (CKM_EC_MONTGOMERY_KEY_PAIR_GEN, "curve25519"),
    ] {
        let generate = find(mechanism).unwrap().generate_pair.unwrap();
        for params in [brainpool.clone(), printable("edwards448"), b"\x30\x00".to_vec(), Vec::new()] {
            let template = [(CKA_EC_PARAMS, Value::Bytes(params))].into_iter().collect();
            let error = generate(&Params::None, &template).err().unwrap();
            assert_eq!(error.kind(), Kind::CurveNotSupported);
            assert!(error.message().contains(known), "{error}");
        }
        assert_eq!(generate(&Params::None, &Attributes::new()).err().unwrap().kind(), Kind::TemplateIncomplete);
    }
}

#[test]
fn imported_keys_are_checked_and_carry_their_public_parts() {
    for pair in Pair::all() {
        let mut template = pair.template();
        let secret = (pair.kind.import)(&mut template).unwrap();
        assert_eq!(template, pair.made.private, "no secret attribute is left, every public one is there");
        assert_eq!(secret, pair.made.secret);
        let id = *pair.kind.secret_attributes.last().unwrap();
        let mut altered = pair.template();
        altered.set(id, SecureBytes::copy_from(&[0xFF; 80]));
        assert!((pair.kind.import)(&mut altered).is_err(), "{:#x}", pair.kind.id);
        if pair.kind.id == CKK_RSA {
            continue;
        }
        let mut other = pair.template();
        let point = pair.made.public.bytes(CKA_EC_POINT).unwrap();
        let last = point.last().unwrap() ^ 1;
        other.set(CKA_EC_POINT, [&point[..point.len() - 1], &[last]].concat());
        assert_eq!((pair.kind.import)(&mut other).unwrap_err().kind(), Kind::TemplateInconsistent);
    }
}

/// Runs the OpenSSL command.
fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}");
    output.stdout
}

#[test]
fn openssl_reads_our_keys_and_we_read_what_it_writes() {
    for pair in Pair::all() {
        let wrapped = (pair.kind.to_wrapped)(&pair.made.private, &pair.made.secret).unwrap();
        let info = pair.kind.public_key_info.unwrap()(&pair.made.public).unwrap();
        assert_eq!(pair.kind.public_key_info.unwrap()(&pair.made.private).unwrap(), info, "from either half");
        let public = openssl(&["pkey", "-inform", "DER", "-pubout", "-outform", "DER"], wrapped.expose());
        assert_eq!(public, info);
        let checked = openssl(&["pkey", "-inform", "DER", "-check", "-noout"], wrapped.expose());
        assert!(String::from_utf8_lossy(&checked).contains("valid"));
        let pem = openssl(&["pkcs8", "-topk8", "-nocrypt", "-inform", "DER"], wrapped.expose());
        let again = openssl(&["pkcs8", "-topk8", "-nocrypt", "-outform", "DER"], &pem);
        let mut attributes = Attributes::new();
        let secret = (pair.kind.from_wrapped)(&mut attributes, &SecureBytes::take(again)).unwrap();
        assert_eq!(secret, pair.made.secret);
        assert_eq!(attributes, pair.made.private);
    }
}

#[test]
fn openssl_keys_of_its_own_unwrap() {
    let arguments: [&[&str]; 7] = [
        &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
        &["-algorithm", "ED25519"],
        &["-algorithm", "X25519"],
    ];
    let kinds = [CKK_RSA, CKK_EC, CKK_EC, CKK_EC, CKK_EC, CKK_EC_EDWARDS, CKK_EC_MONTGOMERY];
    for (arguments, kind) in arguments.iter().zip(kinds) {
        let kind = key_type(kind).unwrap();
        let pem = openssl(&[&["genpkey"], *arguments].concat(), &[]);
        let pkcs8 = openssl(&["pkcs8", "-topk8", "-nocrypt", "-outform", "DER"], &pem);
        let public = openssl(&["pkey", "-inform", "DER", "-pubout", "-outform", "DER"], &pkcs8);
        let mut attributes = Attributes::new();
        let secret = (kind.from_wrapped)(&mut attributes, &SecureBytes::take(pkcs8.clone())).unwrap();
        assert_eq!(kind.public_key_info.unwrap()(&attributes).unwrap(), public, "{arguments:?}");
        assert_eq!((kind.to_wrapped)(&attributes, &secret).unwrap().expose(), pkcs8, "{arguments:?}");
        for other in [CKK_RSA, CKK_EC, CKK_EC_EDWARDS, CKK_EC_MONTGOMERY].into_iter().filter(|id| *id != kind.id) {
            let bytes = SecureBytes::copy_from(&pkcs8);
            let refused = (key_type(other).unwrap().from_wrapped)(&mut Attributes::new(), &bytes).unwrap_err();
            assert_eq!(refused.kind(), Kind::WrappedKeyInvalid);
        }
        let damaged = SecureBytes::copy_from(&pkcs8[..pkcs8.len() - 1]);
        let refused = (kind.from_wrapped)(&mut Attributes::new(), &damaged).unwrap_err();
        assert_eq!(refused.kind(), Kind::WrappedKeyInvalid);
    }
}

#[test]
fn eddsa_maps_its_parameter_to_the_schemes() {
    let pair = Pair::ed25519();
    let eddsa = |prehash, context: &[u8]| Params::Eddsa { prehash, context: context.to_vec() };
    let all = [Params::None, eddsa(false, b"a"), eddsa(false, b"b"), eddsa(true, b""), eddsa(true, b"a")];
    for (i, params) in all.iter().enumerate() {
        let signature = signer(CKM_EDDSA, &pair, params).sign(b"message").unwrap();
        for (j, other) in all.iter().enumerate() {
            assert_eq!(verifier(CKM_EDDSA, &pair, other).verify(b"message", &signature).is_ok(), i == j);
        }
    }
    let start = find(CKM_EDDSA).unwrap().sign.unwrap();
    assert_eq!(start(&pair.private(), &eddsa(true, &[0; 256])).err().unwrap().kind(), Kind::MechanismParamInvalid);
}

#[test]
fn keys_of_another_type_and_unfit_parameters_are_refused_at_init() {
    let pairs = Pair::all();
    for row in all().filter(|row| row.sign.is_some() && row.id != CKM_EDDSA) {
        for pair in &pairs {
            let takes = row.key_types.contains(&pair.kind.id);
            let started = row.sign.unwrap()(&pair.private(), &sample(row).0);
            assert_eq!(started.is_ok(), takes, "{:#x} {:#x}", row.id, pair.kind.id);
            let unfit = row.sign.unwrap()(&pair.private(), &Params::Iv(Default::default()));
            assert!(unfit.is_err() || !takes, "{:#x}", row.id);
        }
    }
    let secret = SecurePrivateKey::new(SecureBytes::copy_from(b"short"));
    for pair in &pairs {
        assert!((pair.kind.secret_key)(&pair.made.private, &secret).is_err());
    }
}

/// Signatures per second through an operation made per signature, against the bare library call:
/// `cargo test --release --lib -- --ignored --nocapture rate`.
#[test]
#[ignore = "a measurement"]
fn rate_of_signatures() {
    for (name, pair, id, len) in [
        ("P-256", Pair::ec(P256), CKM_ECDSA, 32),
        ("secp256k1", Pair::ec(SECP256K1), CKM_ECDSA, 32),
        ("Ed25519", Pair::ed25519(), CKM_EDDSA, 32),
        ("RSA-2048", Pair::rsa(2048), CKM_SHA256_RSA_PKCS, 32),
    ] {
        let (key, data, start) = (pair.private(), vec![7; len], find(id).unwrap().sign.unwrap());
        let ours = rate(|| drop(start(&key, &Params::None).unwrap().sign(&data).unwrap()));
        let mut room = [0; 512];
        let bare = rate(|| bare_sign(&key, &data, &mut room));
        let line = format!("{name}: {ours:.0}/s through the operation, {bare:.0}/s bare, {:.3}\n", ours / bare);
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
}

fn bare_sign(key: &Key, data: &[u8], room: &mut [u8]) {
    use crate::crypto::ed::Scheme;
    use crate::crypto::rsa::SignaturePadding;
    match key {
        Key::EcPrivate(key) => key.bare_sign(data),
        Key::Secp256k1Private(key) => key.sign(data, &mut room[..64]).unwrap(),
        Key::Ed25519Private(key) => key.sign(&Scheme::Pure, data, &mut room[..64]).unwrap(),
        Key::RsaPrivate(key) => key.sign(SignaturePadding::Pkcs1Digest(Hash::Sha256), data, &mut room[..256]).unwrap(),
        _ => panic!("not measured"),
    }
}

fn rate(mut work: impl FnMut()) -> f64 {
    let best = (0..5).map(|_| {
        let (start, mut count) = (std::time::Instant::now(), 0_u32);
        while start.elapsed().as_millis() < 400 {
            (0..16).for_each(|_| work());
            count += 16;
        }
        f64::from(count) / start.elapsed().as_secs_f64()
    });
    best.fold(0.0, f64::max)
}
