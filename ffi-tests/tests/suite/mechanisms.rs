//! Every advertised flag of every mechanism does what it says.

use std::collections::BTreeSet;

use ffi_tests::ck::*;
use ffi_tests::libcrypto::{PublicKey, sha256};
use ffi_tests::template::curve;
use ffi_tests::{Config, Handle, Mechanism, Session, Template, TestToken, assert_rv, call, check, isolated};

use crate::mechanism_rows::{HASHES, Key, Row, row_of};

/// Keys of each kind: the one that encrypts, verifies and wraps; the one that does the reverse.
struct Keys {
    rsa: (Handle, Handle),
    p256: (Handle, Handle),
    ed25519: (Handle, Handle),
    x25519: (Handle, Handle),
    aes: Handle,
    generic: Handle,
}

impl Keys {
    fn make(session: &Session) -> Keys {
        let mac = Template::new().bool(CKA_SIGN, true).bool(CKA_VERIFY, true);
        Keys {
            rsa: session.rsa(2048, "rsa", false),
            p256: session.p256("p256", false),
            ed25519: session.ec_pair(curve::ED25519, "ed25519", false).expect("Ed25519 pair"),
            x25519: session.ec_pair(curve::X25519, "x25519", false).unwrap_or_default(),
            aes: session.aes(32, "aes", false, &mac).expect("AES key"),
            generic: session.generic(64, "generic", false).expect("generic secret"),
        }
    }

    /// Gives the public and the private side.
    fn pair(&self, key: Key) -> (Handle, Handle) {
        match key {
            Key::Rsa => self.rsa,
            Key::P256 => self.p256,
            Key::Ed25519 => self.ed25519,
            Key::X25519 => self.x25519,
            Key::Aes => (self.aes, self.aes),
            Key::Generic => (self.generic, self.generic),
            Key::None => (0, 0),
        }
    }

    /// Gives a key of a type that the mechanism does not take.
    fn wrong(&self, key: Key) -> (Handle, Handle) {
        match key {
            Key::Rsa => self.p256,
            Key::Aes => (self.generic, self.generic),
            Key::Generic | Key::None => (self.aes, self.aes),
            _ => self.rsa,
        }
    }
}

/// One mechanism under test.
struct Case<'a> {
    session: &'a Session,
    keys: &'a Keys,
    row: Row,
    kind: CK_MECHANISM_TYPE,
}

/// Cuts data into uneven parts.
fn parts(data: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut all, mut size) = (data, Vec::new(), 1);
    while !rest.is_empty() {
        let (part, more) = rest.split_at(size.min(rest.len()));
        all.push(part);
        rest = more;
        size = size * 3 + 1;
    }
    all
}

impl Case<'_> {
    fn mechanism(&self) -> Mechanism {
        (self.row.make)()
    }

    fn sign(&self) {
        let (session, mechanism, data) = (self.session, self.mechanism(), self.row.data.sample());
        let (public, private) = self.keys.pair(self.row.key);
        let one = session.sign(&mechanism, private, &data).expect("C_Sign");
        if self.row.fixed {
            assert_eq!(session.sign(&mechanism, private, &data).expect("C_Sign"), one, "the same again");
        } else if self.kind != CKM_RSA_PKCS {
            session.verify(&mechanism, public, &data, &one).expect("C_Verify");
        }
        session.sign_init(&mechanism, private).expect("C_SignInit");
        let fed: ffi_tests::Result<Vec<()>> = parts(&data).into_iter().map(|part| session.sign_update(part)).collect();
        match fed.and_then(|_| session.sign_final()) {
            Ok(several) => {
                assert_eq!(several.len(), one.len());
                if self.row.fixed {
                    assert_eq!(several, one, "one part and several");
                }
                session.verify(&mechanism, public, &data, &several).expect("what several parts signed, one verifies");
            }
            Err(rv) => {
                assert!(!self.row.parts, "in several parts: {rv}");
                assert_rv!(session.sign_final(), CKR_OPERATION_NOT_INITIALIZED, "the refused part ended it");
            }
        }
        for wrong in self.row.data.wrong() {
            assert_rv!(session.sign(&mechanism, private, &vec![0; wrong]), CKR_DATA_LEN_RANGE, "{wrong} bytes");
        }
        let wrong = session.sign_init(&mechanism, self.keys.wrong(self.row.key).1);
        assert_rv!(wrong, CKR_KEY_TYPE_INCONSISTENT, "a key of another type");
        let (forbidden, _) = self.without(CKA_SIGN);
        assert_rv!(session.sign_init(&mechanism, forbidden), CKR_KEY_FUNCTION_NOT_PERMITTED, "CKA_SIGN is false");
        let cancel = call!(session.module, C_SignInit(session.handle, std::ptr::null_mut(), private));
        assert_rv!(check(cancel), CKR_OK | CKR_OPERATION_NOT_INITIALIZED);
    }

    fn verify(&self) {
        let (session, mechanism, data) = (self.session, self.mechanism(), self.row.data.sample());
        let (public, private) = self.keys.pair(self.row.key);
        let signature = session.sign(&mechanism, private, &data).expect("C_Sign");
        session.verify(&mechanism, public, &data, &signature).expect("C_Verify");
        session.verify_init(&mechanism, public).expect("C_VerifyInit");
        let fed: ffi_tests::Result<Vec<()>> =
            parts(&data).into_iter().map(|part| session.verify_update(part)).collect();
        match fed.and_then(|_| session.verify_final(&signature)) {
            Ok(()) => {}
            Err(rv) => assert!(!self.row.parts, "in several parts: {rv}"),
        }
        for index in [0, signature.len() / 2, signature.len() - 1] {
            let mut wrong = signature.clone();
            wrong[index] ^= 1;
            assert_rv!(
                session.verify(&mechanism, public, &data, &wrong),
                CKR_SIGNATURE_INVALID,
                "byte {index} changed"
            );
        }
        let mut other = data.clone();
        *other.last_mut().expect("data") ^= 1;
        assert_rv!(session.verify(&mechanism, public, &other, &signature), CKR_SIGNATURE_INVALID, "other data");
        let short = &signature[..signature.len() - 1];
        assert_rv!(session.verify(&mechanism, public, &data, short), CKR_SIGNATURE_LEN_RANGE, "a short signature");
        let wrong = session.verify_init(&mechanism, self.keys.wrong(self.row.key).0);
        assert_rv!(wrong, CKR_KEY_TYPE_INCONSISTENT, "a key of another type");
    }

    fn digest(&self) {
        let (session, mechanism, data) = (self.session, self.mechanism(), self.row.data.sample());
        let one = session.digest(&mechanism, &data).expect("C_Digest");
        session.digest_init(&mechanism).expect("C_DigestInit");
        for part in parts(&data) {
            session.digest_update(part).expect("C_DigestUpdate");
        }
        assert_eq!(session.digest_final().expect("C_DigestFinal"), one, "one part and several");
        assert_ne!(session.digest(&mechanism, b"").expect("C_Digest of nothing"), one);
        if self.kind == CKM_SHA256 {
            assert_eq!(one, sha256(&data));
        }
    }

    fn encrypt(&self) {
        let (session, mechanism, data) = (self.session, self.mechanism(), self.row.data.sample());
        let (public, private) = self.keys.pair(self.row.key);
        let sealed = session.encrypt(&mechanism, public, &data).expect("C_Encrypt");
        assert_ne!(sealed, data);
        assert_eq!(session.decrypt(&mechanism, private, &sealed).expect("C_Decrypt"), data);
        self.encrypt_in_place(&mechanism, public, &data, private);
        if self.row.parts {
            session.encrypt_init(&mechanism, public).expect("C_EncryptInit");
            let mut several = Vec::new();
            for part in parts(&data) {
                several.extend(session.encrypt_update(part).expect("C_EncryptUpdate"));
            }
            several.extend(session.encrypt_final().expect("C_EncryptFinal"));
            assert_eq!(several, sealed, "one part and several");
        }
        for wrong in self.row.data.wrong() {
            assert_rv!(session.encrypt(&mechanism, public, &vec![0; wrong]), CKR_DATA_LEN_RANGE, "{wrong} bytes");
        }
        let wrong = session.encrypt_init(&mechanism, self.keys.wrong(self.row.key).0);
        assert_rv!(wrong, CKR_KEY_TYPE_INCONSISTENT, "a key of another type");
        let (forbidden, _) = self.without(CKA_ENCRYPT);
        assert_rv!(session.encrypt_init(&mechanism, forbidden), CKR_KEY_FUNCTION_NOT_PERMITTED, "CKA_ENCRYPT is false");
    }

    /// Input and output may be the same memory (PKCS #11 v3.2, 5.2).
    fn encrypt_in_place(&self, mechanism: &Mechanism, public: Handle, data: &[u8], private: Handle) {
        let (session, len) = (self.session, data.len());
        let mut memory = [data, &vec![0u8; 1024]].concat();
        let at = memory.as_mut_ptr();
        session.encrypt_init(mechanism, public).expect("C_EncryptInit");
        let mut written = memory.len() as CK_ULONG;
        let rv = call!(session.module, C_Encrypt(session.handle, at, len as CK_ULONG, at, &mut written));
        check(rv).expect("C_Encrypt in place");
        session.decrypt_init(mechanism, private).expect("C_DecryptInit");
        let mut back = memory.len() as CK_ULONG;
        let rv = call!(session.module, C_Decrypt(session.handle, at, written, at, &mut back));
        check(rv).expect("C_Decrypt in place");
        assert_eq!(&memory[..back as usize], data, "there and back in one memory");
        if !self.row.parts {
            return;
        }
        memory[..len].copy_from_slice(data);
        session.encrypt_init(mechanism, public).expect("C_EncryptInit");
        let mut total = 0u64;
        let mut update = memory.len() as CK_ULONG;
        let rv = call!(session.module, C_EncryptUpdate(session.handle, at, len as CK_ULONG, at, &mut update));
        check(rv).expect("C_EncryptUpdate in place");
        total += update;
        let mut last = memory.len() as CK_ULONG - update;
        let end = at.wrapping_add(update as usize);
        check(call!(session.module, C_EncryptFinal(session.handle, end, &mut last))).expect("C_EncryptFinal");
        total += last;
        let sealed = memory[..total as usize].to_vec();
        assert_eq!(session.decrypt(mechanism, private, &sealed).expect("C_Decrypt"), data, "updates in place");
    }

    fn decrypt(&self) {
        let (session, mechanism, data) = (self.session, self.mechanism(), self.row.data.sample());
        let (public, private) = self.keys.pair(self.row.key);
        let sealed = session.encrypt(&mechanism, public, &data).expect("C_Encrypt");
        if self.row.parts {
            session.decrypt_init(&mechanism, private).expect("C_DecryptInit");
            let mut several = Vec::new();
            for part in parts(&sealed) {
                several.extend(session.decrypt_update(part).expect("C_DecryptUpdate"));
            }
            several.extend(session.decrypt_final().expect("C_DecryptFinal"));
            assert_eq!(several, data, "one part and several");
        }
        let wrong = session.decrypt_init(&mechanism, self.keys.wrong(self.row.key).1);
        assert_rv!(wrong, CKR_KEY_TYPE_INCONSISTENT, "a key of another type");
        let (_, forbidden) = self.without(CKA_DECRYPT);
        assert_rv!(session.decrypt_init(&mechanism, forbidden), CKR_KEY_FUNCTION_NOT_PERMITTED, "CKA_DECRYPT is false");
    }

    fn wrap_and_unwrap(&self, wraps: bool, unwraps: bool) {
        assert!(wraps || !unwraps, "what is unwrapped must come from somewhere");
        let (session, mechanism) = (self.session, self.mechanism());
        let (public, private) = self.keys.pair(self.row.key);
        let target = session.aes(32, "target", false, &Template::new()).expect("AES key");
        let plain = [0x5a; 32];
        let ecb = Mechanism::new(CKM_AES_ECB);
        let reference = session.encrypt(&ecb, target, &plain).expect("C_Encrypt");
        let wrapped = session.wrap(&mechanism, public, target).expect("C_WrapKey");
        let (forbidden, _) = self.without(CKA_WRAP);
        let answer = session.wrap(&mechanism, forbidden, target);
        assert_rv!(answer, CKR_KEY_FUNCTION_NOT_PERMITTED, "CKA_WRAP is false");
        let wrong = session.wrap(&mechanism, self.keys.wrong(self.row.key).0, target);
        assert_rv!(wrong, CKR_WRAPPING_KEY_TYPE_INCONSISTENT | CKR_KEY_FUNCTION_NOT_PERMITTED, "a key of another type");
        assert_rv!(session.wrap(&mechanism, CK_ULONG::MAX, target), CKR_WRAPPING_KEY_HANDLE_INVALID);
        assert_rv!(session.wrap(&mechanism, public, CK_ULONG::MAX), CKR_KEY_HANDLE_INVALID);
        if !unwraps {
            return;
        }
        let template = Template::class(CKO_SECRET_KEY)
            .ulong(CKA_KEY_TYPE, CKK_AES)
            .bool(CKA_ENCRYPT, true)
            .bool(CKA_EXTRACTABLE, true);
        let back = session.unwrap(&mechanism, private, &wrapped, &template).expect("C_UnwrapKey");
        assert_eq!(session.encrypt(&ecb, back, &plain).expect("C_Encrypt"), reference, "the same key");
        let (_, forbidden) = self.without(CKA_UNWRAP);
        let answer = session.unwrap(&mechanism, forbidden, &wrapped, &template);
        assert_rv!(answer, CKR_KEY_FUNCTION_NOT_PERMITTED, "CKA_UNWRAP is false");
        assert_rv!(session.unwrap(&mechanism, CK_ULONG::MAX, &wrapped, &template), CKR_UNWRAPPING_KEY_HANDLE_INVALID);
        let short = &wrapped[..wrapped.len() - 1];
        if !matches!(self.kind, CKM_AES_CTR) {
            let answer = session.unwrap(&mechanism, private, short, &template);
            assert_rv!(answer, CKR_WRAPPED_KEY_LEN_RANGE | CKR_WRAPPED_KEY_INVALID, "a short wrapped key");
        }
        if matches!(
            self.kind,
            CKM_AES_KEY_WRAP | CKM_AES_KEY_WRAP_KWP | CKM_AES_KEY_WRAP_PAD | CKM_AES_GCM | CKM_RSA_AES_KEY_WRAP
        ) {
            for index in [0, wrapped.len() / 2, wrapped.len() - 1] {
                let mut wrong = wrapped.clone();
                wrong[index] ^= 1;
                let answer = session.unwrap(&mechanism, private, &wrong, &template);
                assert_rv!(answer, CKR_WRAPPED_KEY_INVALID, "byte {index} changed");
            }
            self.unwrap_a_private_key(&mechanism, public, private);
        }
    }

    /// Private keys travel as PKCS #8.
    fn unwrap_a_private_key(&self, mechanism: &Mechanism, public: Handle, private: Handle) {
        if matches!(self.kind, CKM_AES_KEY_WRAP) {
            return; // takes multiples of 8 bytes only
        }
        let session = self.session;
        for (params, kind, sign) in [
            (curve::P256, CKK_EC, CKM_ECDSA),
            (curve::SECP256K1, CKK_EC, CKM_ECDSA),
            (curve::ED25519, CKK_EC_EDWARDS, CKM_EDDSA),
        ] {
            let public_template = Template::new().bytes(CKA_EC_PARAMS, params).bool(CKA_VERIFY, true);
            let template = Template::new().bool(CKA_EXTRACTABLE, true).bool(CKA_SIGN, true);
            let generator = if kind == CKK_EC { CKM_EC_KEY_PAIR_GEN } else { CKM_EC_EDWARDS_KEY_PAIR_GEN };
            let (verify, key) =
                session.generate_pair(&Mechanism::new(generator), &public_template, &template).expect("a pair");
            let wrapped = session.wrap(mechanism, public, key).expect("C_WrapKey of a private key");
            let template = Template::class(CKO_PRIVATE_KEY).ulong(CKA_KEY_TYPE, kind).bool(CKA_SIGN, true);
            let back = session.unwrap(mechanism, private, &wrapped, &template).expect("C_UnwrapKey of a private key");
            let signature = session.sign(&Mechanism::new(sign), back, &[8; 32]).expect("C_Sign");
            session.verify(&Mechanism::new(sign), verify, &[8; 32], &signature).expect("the same key");
        }
    }

    fn derive(&self) {
        let session = self.session;
        let (_, private) = self.keys.pair(self.row.key);
        let template = Template::class(CKO_SECRET_KEY)
            .ulong(CKA_KEY_TYPE, CKK_AES)
            .ulong(CKA_VALUE_LEN, 32)
            .bool(CKA_ENCRYPT, true)
            .bool(CKA_EXTRACTABLE, true);
        let ecb = Mechanism::new(CKM_AES_ECB);
        let seen = |key| session.encrypt(&ecb, key, &[1; 16]).expect("C_Encrypt with the derived key");
        match self.kind {
            CKM_ECDH1_DERIVE | CKM_ECDH1_COFACTOR_DERIVE => {
                let mut results = BTreeSet::new();
                for kdf in [CKD_NULL, CKD_SHA256_KDF] {
                    let (a, b) = (self.keys.p256, session.p256("peer", false));
                    let point = |public| session.get(public, CKA_EC_POINT).expect("CKA_EC_POINT");
                    let to = |public| Mechanism::ecdh1(self.kind, kdf, b"", &point(public));
                    let ours = session.derive(&to(b.0), a.1, &template).expect("C_DeriveKey");
                    let theirs = session.derive(&to(a.0), b.1, &template).expect("C_DeriveKey");
                    assert_eq!(seen(ours), seen(theirs), "both sides derive one secret");
                    results.insert(seen(ours));
                    let bad = Mechanism::ecdh1(self.kind, kdf, b"", &[4; 65]);
                    let answer = session.derive(&bad, a.1, &template);
                    assert_rv!(answer, CKR_MECHANISM_PARAM_INVALID | CKR_PUBLIC_KEY_INVALID, "a point off the curve");
                }
                assert_eq!(results.len(), 2);
                if self.keys.x25519.1 != 0 && self.kind == CKM_ECDH1_DERIVE {
                    let (a, b) = (self.keys.x25519, session.ec_pair(curve::X25519, "peer", false).expect("a pair"));
                    let point = |public| session.get(public, CKA_EC_POINT).expect("CKA_EC_POINT");
                    let to = |public| Mechanism::ecdh1(self.kind, CKD_NULL, b"", &point(public));
                    let ours = session.derive(&to(b.0), a.1, &template).expect("C_DeriveKey");
                    assert_eq!(seen(ours), seen(session.derive(&to(a.0), b.1, &template).expect("C_DeriveKey")));
                    let zero = Mechanism::ecdh1(self.kind, CKD_NULL, b"", &[0; 32]);
                    let answer = session.derive(&zero, a.1, &template);
                    assert_rv!(
                        answer,
                        CKR_MECHANISM_PARAM_INVALID | CKR_PUBLIC_KEY_INVALID | CKR_FUNCTION_FAILED,
                        "a point of small order"
                    );
                }
            }
            _ => {
                let mechanism = self.mechanism();
                let first = session.derive(&mechanism, private, &template).expect("C_DeriveKey");
                let second = session.derive(&mechanism, private, &template).expect("C_DeriveKey");
                assert_eq!(seen(first), seen(second));
                let other = session.generic(64, "other", false).expect("generic secret");
                assert_ne!(seen(session.derive(&mechanism, other, &template).expect("C_DeriveKey")), seen(first));
            }
        }
    }

    fn generate(&self) {
        let template = Template::new().ulong(CKA_VALUE_LEN, 32).bool(CKA_SIGN, true);
        let template = if self.kind == CKM_AES_KEY_GEN { Template::new().ulong(CKA_VALUE_LEN, 32) } else { template };
        let key = self.session.generate_key(&self.mechanism(), &template).expect("C_GenerateKey");
        assert_eq!(self.session.get_ulong(key, CKA_CLASS).expect("CKA_CLASS"), CKO_SECRET_KEY);
        assert_eq!(self.session.get_ulong(key, CKA_VALUE_LEN).expect("CKA_VALUE_LEN"), 32);
        assert_eq!(self.session.get_ulong(key, CKA_KEY_GEN_MECHANISM).expect("CKA_KEY_GEN_MECHANISM"), self.kind);
    }

    fn generate_pair(&self) {
        let public = match self.row.key {
            Key::Rsa => Template::new().ulong(CKA_MODULUS_BITS, 2048),
            Key::P256 => Template::new().bytes(CKA_EC_PARAMS, curve::P256),
            Key::Ed25519 => Template::new().bytes(CKA_EC_PARAMS, curve::ED25519),
            _ => Template::new().bytes(CKA_EC_PARAMS, curve::X25519),
        };
        let (public, private) =
            self.session.generate_pair(&self.mechanism(), &public, &Template::new()).expect("C_GenerateKeyPair");
        for (key, class) in [(public, CKO_PUBLIC_KEY), (private, CKO_PRIVATE_KEY)] {
            assert_eq!(self.session.get_ulong(key, CKA_CLASS).expect("CKA_CLASS"), class);
            assert_eq!(self.session.get_ulong(key, CKA_KEY_GEN_MECHANISM).expect("CKA_KEY_GEN_MECHANISM"), self.kind);
        }
        assert!(self.session.get_bool(private, CKA_SENSITIVE).expect("CKA_SENSITIVE"));
    }

    /// Makes a key of the case's kind that must not do one thing.
    fn without(&self, use_of_key: CK_ATTRIBUTE_TYPE) -> (Handle, Handle) {
        let session = self.session;
        let forbid = Template::new().bool(use_of_key, false);
        let key = match self.row.key {
            Key::Rsa => {
                let public = Template::new().ulong(CKA_MODULUS_BITS, 2048).bytes(CKA_PUBLIC_EXPONENT, [1, 0, 1]);
                let (on_public, on_private) = match use_of_key {
                    CKA_ENCRYPT | CKA_WRAP | CKA_VERIFY => (forbid, Template::new()),
                    _ => (Template::new(), forbid),
                };
                let pair = session.generate_pair(
                    &Mechanism::new(CKM_RSA_PKCS_KEY_PAIR_GEN),
                    &public.and(&on_public),
                    &on_private,
                );
                let (public, private) = pair.expect("a pair");
                return if use_of_key == CKA_SIGN { (private, private) } else { (public, private) };
            }
            Key::Aes => session.aes(32, "without", false, &Template::new().bool(CKA_SIGN, true).and(&forbid)),
            Key::Generic => {
                let template = Template::new().ulong(CKA_VALUE_LEN, 64).and(&forbid);
                session.generate_key(&Mechanism::new(CKM_GENERIC_SECRET_KEY_GEN), &template)
            }
            Key::P256 | Key::Ed25519 | Key::X25519 | Key::None => {
                let (params, generator) = match self.row.key {
                    Key::P256 => (curve::P256, CKM_EC_KEY_PAIR_GEN),
                    _ => (curve::ED25519, CKM_EC_EDWARDS_KEY_PAIR_GEN),
                };
                let public = Template::new().bytes(CKA_EC_PARAMS, params);
                session.generate_pair(&Mechanism::new(generator), &public, &forbid).map(|pair| pair.1)
            }
        };
        let key = key.expect("a key");
        (key, key)
    }

    fn run(&self, flags: CK_FLAGS) {
        let has = |flag| flags & flag != 0;
        if has(CKF_GENERATE) {
            self.generate();
        }
        if has(CKF_GENERATE_KEY_PAIR) {
            self.generate_pair();
        }
        if has(CKF_DIGEST) {
            self.digest();
        }
        if has(CKF_SIGN) {
            self.sign();
        }
        if has(CKF_VERIFY) {
            self.verify();
        }
        if has(CKF_ENCRYPT) {
            self.encrypt();
        }
        if has(CKF_DECRYPT) {
            self.decrypt();
        }
        if has(CKF_WRAP) || has(CKF_UNWRAP) {
            self.wrap_and_unwrap(has(CKF_WRAP), has(CKF_UNWRAP));
        }
        if has(CKF_DERIVE) {
            self.derive();
        }
        let known = CKF_HW
            | CKF_GENERATE
            | CKF_GENERATE_KEY_PAIR
            | CKF_DIGEST
            | CKF_SIGN
            | CKF_VERIFY
            | CKF_ENCRYPT
            | CKF_DECRYPT
            | CKF_WRAP
            | CKF_UNWRAP
            | CKF_DERIVE
            | CKF_EC_F_P
            | CKF_EC_OID
            | CKF_EC_UNCOMPRESS
            | CKF_EC_COMPRESS
            | CKF_EC_CURVENAME;
        assert_eq!(flags & !known, 0, "flags that this test does not exercise");
        self.refuse_the_rest(flags);
    }

    /// What is not advertised does not work either.
    fn refuse_the_rest(&self, flags: CK_FLAGS) {
        let (session, mechanism) = (self.session, self.mechanism());
        let (public, private) = self.keys.pair(if self.row.key == Key::None { Key::Aes } else { self.row.key });
        if flags & CKF_SIGN == 0 {
            assert_rv!(session.sign_init(&mechanism, private), CKR_MECHANISM_INVALID, "C_SignInit");
        }
        if flags & CKF_ENCRYPT == 0 {
            assert_rv!(session.encrypt_init(&mechanism, public), CKR_MECHANISM_INVALID, "C_EncryptInit");
        }
        if flags & CKF_DECRYPT == 0 {
            assert_rv!(session.decrypt_init(&mechanism, private), CKR_MECHANISM_INVALID, "C_DecryptInit");
        }
        if flags & CKF_DIGEST == 0 {
            assert_rv!(session.digest_init(&mechanism), CKR_MECHANISM_INVALID, "C_DigestInit");
        }
        if flags & CKF_GENERATE == 0 {
            assert_rv!(session.generate_key(&mechanism, &Template::new()), CKR_MECHANISM_INVALID, "C_GenerateKey");
        }
    }
}

/// Strongroom's own mechanisms have tests of their own.
fn is_vendors(kind: CK_MECHANISM_TYPE) -> bool {
    kind & CKM_VENDOR_DEFINED != 0
}

#[test]
fn r47_every_advertised_flag_of_every_mechanism_works() {
    isolated!(300, || {
        let token = TestToken::new();
        let session = token.user();
        let keys = Keys::make(&session);
        let list = token.module.mechanisms(token.slot).expect("C_GetMechanismList");
        let mut failed = Vec::new();
        for kind in list.iter().copied().filter(|kind| !is_vendors(*kind)) {
            let info = token.module.mechanism_info(token.slot, kind).expect("C_GetMechanismInfo");
            assert!(info.ulMinKeySize <= info.ulMaxKeySize, "{kind:#x}");
            let Some(row) = row_of(kind) else {
                failed.push(format!("{kind:#x}: advertised, but this test has no row for it"));
                continue;
            };
            let own = token.open();
            let case = Case { session: &own, keys: &keys, row, kind };
            // A failure must not hide the others.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case.run(info.flags)));
            if let Err(panic) = outcome {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                failed.push(format!(
                    "mechanism {kind:#x}: {} ({})",
                    text.unwrap_or_default(),
                    token.module.last_error()
                ));
            }
            let _ = own.close();
        }
        assert!(failed.is_empty(), "{} mechanisms failed:\n{}", failed.len(), failed.join("\n"));
    });
}

/// What must be there on the first day.
#[test]
fn r47_the_list_is_complete_and_has_no_doubles() {
    isolated!(|| {
        let token = TestToken::new();
        let list = token.module.mechanisms(token.slot).expect("C_GetMechanismList");
        let set: BTreeSet<_> = list.iter().copied().collect();
        assert_eq!(set.len(), list.len(), "a mechanism is listed twice");
        let wanted: &[(&str, &[CK_MECHANISM_TYPE])] = &[
            (
                "RSA",
                &[CKM_RSA_PKCS_KEY_PAIR_GEN, CKM_RSA_PKCS, CKM_RSA_PKCS_PSS, CKM_RSA_PKCS_OAEP, CKM_RSA_AES_KEY_WRAP],
            ),
            ("RSA with hash", &[CKM_SHA1_RSA_PKCS, CKM_SHA256_RSA_PKCS, CKM_SHA384_RSA_PKCS, CKM_SHA512_RSA_PKCS]),
            ("PSS with hash", &[CKM_SHA256_RSA_PKCS_PSS, CKM_SHA384_RSA_PKCS_PSS, CKM_SHA512_RSA_PKCS_PSS]),
            (
                "EC",
                &[CKM_EC_KEY_PAIR_GEN, CKM_ECDSA, CKM_ECDSA_SHA1, CKM_ECDSA_SHA256, CKM_ECDSA_SHA384, CKM_ECDSA_SHA512],
            ),
            ("Edwards and Montgomery", &[CKM_EC_EDWARDS_KEY_PAIR_GEN, CKM_EDDSA, CKM_EC_MONTGOMERY_KEY_PAIR_GEN]),
            ("ECDH", &[CKM_ECDH1_DERIVE]),
            (
                "AES",
                &[CKM_AES_KEY_GEN, CKM_AES_ECB, CKM_AES_CBC, CKM_AES_CBC_PAD, CKM_AES_CTR, CKM_AES_GCM, CKM_AES_CMAC],
            ),
            ("AES wrap", &[CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_KWP]),
            ("HMAC", &[CKM_GENERIC_SECRET_KEY_GEN, CKM_SHA256_HMAC, CKM_SHA384_HMAC, CKM_SHA512_HMAC]),
            (
                "digests",
                &[CKM_SHA_1, CKM_SHA224, CKM_SHA256, CKM_SHA384, CKM_SHA512, CKM_SHA3_256, CKM_SHA3_384, CKM_SHA3_512],
            ),
        ];
        for (family, kinds) in wanted {
            let missing: Vec<String> =
                kinds.iter().filter(|kind| !set.contains(kind)).map(|kind| format!("{kind:#x}")).collect();
            assert!(missing.is_empty(), "{family} lacks {missing:?}");
        }
    });
}

/// Wrong parameters are refused when the operation starts.
#[test]
fn mechanism_parameters_are_checked_at_init() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let keys = Keys::make(&session);
        let bad_cipher = [
            Mechanism::new(CKM_AES_CBC),
            Mechanism::with(CKM_AES_CBC, [0; 15]),
            Mechanism::with(CKM_AES_CBC_PAD, [0; 17]),
            Mechanism::with(CKM_AES_ECB, [0; 16]),
            Mechanism::new(CKM_AES_CTR),
            Mechanism::ctr(CKM_AES_CTR, 0, [0; 16]),
            Mechanism::ctr(CKM_AES_CTR, 129, [0; 16]),
            Mechanism::new(CKM_AES_GCM),
            Mechanism::with(CKM_AES_GCM, [0; 12]),
            Mechanism::gcm(CKM_AES_GCM, &[1; 12], b"", 129),
            Mechanism::gcm(CKM_AES_GCM, &[1; 12], b"", 7),
            Mechanism::gcm(CKM_AES_GCM, &[1; 12], b"", CK_ULONG::MAX),
        ];
        for (index, mechanism) in bad_cipher.iter().enumerate() {
            assert_rv!(
                session.encrypt_init(mechanism, keys.aes),
                CKR_MECHANISM_PARAM_INVALID | CKR_ARGUMENTS_BAD,
                "cipher {index}"
            );
        }
        let bad_sign = [
            Mechanism::new(CKM_RSA_PKCS_PSS),
            Mechanism::with(CKM_SHA256_RSA_PKCS, [1]),
            Mechanism::pss(CKM_SHA256_RSA_PKCS_PSS, CKM_SHA384, CKG_MGF1_SHA256, 32),
            Mechanism::pss(CKM_RSA_PKCS_PSS, CKM_SHA256, 99, 32),
            Mechanism::pss(CKM_RSA_PKCS_PSS, CKM_AES_CBC, CKG_MGF1_SHA256, 32),
            Mechanism::pss(CKM_RSA_PKCS_PSS, CKM_SHA256, CKG_MGF1_SHA256, 256),
            Mechanism::pss(CKM_RSA_PKCS_PSS, CKM_SHA256, CKG_MGF1_SHA256, CK_ULONG::MAX),
        ];
        for (index, mechanism) in bad_sign.iter().enumerate() {
            assert_rv!(
                session.sign_init(mechanism, keys.rsa.1),
                CKR_MECHANISM_PARAM_INVALID | CKR_ARGUMENTS_BAD,
                "signature {index}"
            );
        }
        for length in [0, 33, CK_ULONG::MAX] {
            let mechanism = Mechanism::ulong(CKM_SHA256_HMAC_GENERAL, length);
            assert_rv!(
                session.sign_init(&mechanism, keys.generic),
                CKR_MECHANISM_PARAM_INVALID,
                "a MAC of {length} bytes"
            );
        }
    });
}

/// PSS with any legal salt, OAEP with any hash and label.
#[test]
fn r47_pss_salts_and_oaep_labels() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let (public, private) = session.rsa(2048, "rsa", false);
        for salt in [0, 1, 20, 32, 222] {
            let mechanism = Mechanism::pss(CKM_SHA256_RSA_PKCS_PSS, CKM_SHA256, CKG_MGF1_SHA256, salt);
            let signature = session.sign(&mechanism, private, b"m").unwrap_or_else(|rv| panic!("salt {salt}: {rv}"));
            session.verify(&mechanism, public, b"m", &signature).expect("C_Verify");
        }
        for (hash, mgf, len) in &HASHES[..5] {
            for label in [&b""[..], b"label", &[0; 100]] {
                let mechanism = Mechanism::oaep(CKM_RSA_PKCS_OAEP, *hash, *mgf, label);
                let most = 256 - 2 * len - 2;
                let sealed = session.encrypt(&mechanism, public, &vec![3; most]).expect("C_Encrypt");
                assert_eq!(session.decrypt(&mechanism, private, &sealed).expect("C_Decrypt"), vec![3; most]);
                assert_rv!(session.encrypt(&mechanism, public, &vec![3; most + 1]), CKR_DATA_LEN_RANGE);
                let other = Mechanism::oaep(CKM_RSA_PKCS_OAEP, *hash, *mgf, b"another");
                session.decrypt_init(&other, private).expect("C_DecryptInit");
                let (rv, _) = session.sized(256, |out, room| {
                    call!(token.module, C_Decrypt(session.handle, sealed.as_ptr().cast_mut(), 256, out, room))
                });
                assert_rv!(check(rv.0), CKR_ENCRYPTED_DATA_INVALID, "another label");
            }
        }
    });
}

/// GCM with both layouts of its parameter, any IV and tag.
#[test]
fn r48_gcm_takes_both_layouts_and_any_iv() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let aes = session.aes(32, "aes", false, &Template::new()).expect("AES key");
        for iv in [1usize, 8, 12, 16, 64, 256] {
            for tag in [96, 104, 112, 120, 128] {
                let mechanism = Mechanism::gcm(CKM_AES_GCM, &vec![4; iv], b"aad", tag);
                let sealed =
                    session.encrypt(&mechanism, aes, b"plain").unwrap_or_else(|rv| panic!("IV {iv}, tag {tag}: {rv}"));
                assert_eq!(sealed.len(), 5 + tag as usize / 8);
                assert_eq!(session.decrypt(&mechanism, aes, &sealed).expect("C_Decrypt"), b"plain");
            }
        }
        // The layout of 2.40's header, without ulIvBits.
        let (mut iv, mut aad) = ([4u8; 12], *b"aad");
        let words: [usize; 5] = [iv.as_mut_ptr() as usize, 12, aad.as_mut_ptr() as usize, 3, 128];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let short = Mechanism::with(CKM_AES_GCM, bytes);
        let long = Mechanism::gcm(CKM_AES_GCM, &iv, &aad, 128);
        let sealed = session.encrypt(&short, aes, b"plain").expect("the layout without ulIvBits");
        assert_eq!(session.encrypt(&long, aes, b"plain").expect("C_Encrypt"), sealed);
    });
}

/// A multi-part GCM decryption gives nothing away before the tag is right.
#[test]
fn r48_gcm_releases_nothing_before_the_tag() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let aes = session.aes(32, "aes", false, &Template::new()).expect("AES key");
        let mechanism = Mechanism::gcm(CKM_AES_GCM, &[4; 12], b"aad", 128);
        let mut sealed = session.encrypt(&mechanism, aes, &[9; 4096]).expect("C_Encrypt");
        *sealed.last_mut().expect("a tag") ^= 1;
        session.decrypt_init(&mechanism, aes).expect("C_DecryptInit");
        let mut given = Vec::new();
        for part in sealed.chunks(500) {
            given.extend(session.decrypt_update(part).expect("C_DecryptUpdate"));
        }
        assert!(given.is_empty(), "{} bytes came out before the tag was checked", given.len());
        let mut out = [0xa5u8; 8192];
        let mut len = 8192;
        let rv = call!(token.module, C_DecryptFinal(session.handle, out.as_mut_ptr(), &mut len));
        assert_rv!(check(rv), CKR_ENCRYPTED_DATA_INVALID | CKR_AEAD_DECRYPT_FAILED);
        assert!(out.iter().all(|byte| *byte != 9), "no plaintext is released");
    });
}

/// Signatures have exactly 2 × nLen bytes, whatever r and s are, and libcrypto agrees.
#[test]
fn r27_ecdsa_signatures_have_one_width() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let mechanism = Mechanism::new(CKM_ECDSA);
        for (params, width, name) in [
            (curve::P256, 64, "P-256"),
            (curve::P384, 96, "P-384"),
            (curve::P521, 132, "P-521"),
            (curve::SECP256K1, 64, "secp256k1"),
        ] {
            let (public, private) = session.ec_pair(params, name, false).expect("a pair");
            let spki = session.get(public, CKA_PUBLIC_KEY_INFO).expect("CKA_PUBLIC_KEY_INFO");
            let judge = PublicKey::from_spki(&spki).expect("SubjectPublicKeyInfo");
            let mut short = 0;
            for round in 0..200u32 {
                let digest = sha256(&round.to_be_bytes());
                let signature = session.sign(&mechanism, private, &digest).expect("C_Sign");
                assert_eq!(signature.len(), width, "{name}, round {round}");
                assert!(judge.verify_ecdsa(&digest, &signature), "{name}, round {round}: libcrypto disagrees");
                session.verify(&mechanism, public, &digest, &signature).expect("C_Verify");
                short += u32::from(signature[0] == 0 || signature[width / 2] == 0);
                if name == "secp256k1" {
                    // Half the order (SEC 2, 2.4.1): low-S is the default.
                    const HALF: [u8; 16] = [
                        0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                    ];
                    assert!(signature[32..48] <= HALF[..], "{name}, round {round}: s is high");
                }
            }
            // P-521 has a short half in nearly every signature; the others in about one of 128.
            assert!(name != "P-521" || short > 50, "{name}: short halves were met");
        }
    });
}

/// ECDSA takes digests of any length: shorter and longer than the order (FIPS 186-5, 6.4.1).
#[test]
fn r27_ecdsa_truncates_long_digests() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let mechanism = Mechanism::new(CKM_ECDSA);
        for params in [curve::P256, curve::P384, curve::P521, curve::SECP256K1] {
            let (public, private) = session.ec_pair(params, "ec", false).expect("a pair");
            let spki = session.get(public, CKA_PUBLIC_KEY_INFO).expect("CKA_PUBLIC_KEY_INFO");
            let judge = PublicKey::from_spki(&spki).expect("SubjectPublicKeyInfo");
            for len in [20usize, 32, 48, 64] {
                let digest: Vec<u8> = (1..=len as u8).collect();
                let signature =
                    session.sign(&mechanism, private, &digest).unwrap_or_else(|rv| panic!("{len} bytes: {rv}"));
                assert!(judge.verify_ecdsa(&digest, &signature), "{len} bytes: libcrypto disagrees");
                session.verify(&mechanism, public, &digest, &signature).expect("C_Verify");
            }
        }
    });
}

/// Others fill a key up with zeros before they wrap it by ECB, CBC or KW; the template says how long it is.
#[test]
fn r38_a_key_that_was_filled_up_with_zeros_is_cut_to_the_length_in_the_template() {
    isolated!(|| {
        let token = TestToken::with(&Config::plaintext("compat"));
        let session = token.user();
        let wrapping = session.aes(32, "wrapping", false, &Template::new()).expect("an AES key");
        let value: Vec<u8> = (1..=20).collect();
        let (ecb, kw) = (Mechanism::new(CKM_AES_ECB), Mechanism::new(CKM_AES_KEY_WRAP));
        for (mechanism, filled) in [(&ecb, 32), (&kw, 24)] {
            let mut plain = value.clone();
            plain.resize(filled, 0);
            let blob = session.encrypt(mechanism, wrapping, &plain).expect("C_Encrypt");
            let template = |len: usize| {
                Template::class(CKO_SECRET_KEY)
                    .ulong(CKA_KEY_TYPE, CKK_GENERIC_SECRET)
                    .ulong(CKA_VALUE_LEN, len as CK_ULONG)
                    .bool(CKA_SENSITIVE, false)
                    .bool(CKA_EXTRACTABLE, true)
            };
            let key = session.unwrap(mechanism, wrapping, &blob, &template(20)).expect("C_UnwrapKey");
            assert_eq!(session.get(key, CKA_VALUE).expect("CKA_VALUE"), value);
            for wrong in [19, 33] {
                let answer = session.unwrap(mechanism, wrapping, &blob, &template(wrong));
                assert_rv!(answer, CKR_TEMPLATE_INCONSISTENT, "{wrong} bytes");
            }
        }
    });
}
