//! Attributes: what is told, what is kept, what can change.

use std::collections::BTreeSet;

use ffi_tests::ck::*;
use ffi_tests::libcrypto::{PublicKey, read_tlv, sha1, tlv};
use ffi_tests::template::curve;
use ffi_tests::{
    Config, Handle, Mechanism, Role, Rv, SO_PIN, Session, Template, TestToken, UNAVAILABLE, assert_rv, isolated, say,
    token,
};

/// The attributes that hold a secret when they belong to a key.
pub const SECRETS: &[CK_ATTRIBUTE_TYPE] =
    &[CKA_VALUE, CKA_PRIVATE_EXPONENT, CKA_PRIME_1, CKA_PRIME_2, CKA_EXPONENT_1, CKA_EXPONENT_2, CKA_COEFFICIENT];

/// A certificate: well-formed, though signed by nobody.
pub fn certificate(name: &str) -> Template {
    let text = |text: &str| tlv(0x0c, text.as_bytes());
    let sequence = |parts: &[Vec<u8>]| tlv(0x30, &parts.concat());
    let common_name = sequence(&[tlv(6, &[0x55, 4, 3]), text(name)]);
    let subject = tlv(0x30, &tlv(0x31, &common_name));
    let algorithm = sequence(&[tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2])]);
    let time = |text: &str| tlv(0x17, text.as_bytes());
    let key_algorithm = sequence(&[tlv(6, &[0x2b, 0x65, 0x70])]);
    let key = sequence(&[key_algorithm, tlv(3, &[&[0][..], &[0x58; 32]].concat())]);
    let serial = tlv(2, &[0x11, 0x22]);
    let validity = sequence(&[time("250101000000Z"), time("450101000000Z")]);
    let version = tlv(0xa0, &tlv(2, &[2]));
    let body = sequence(&[version, serial.clone(), algorithm.clone(), subject.clone(), validity, subject.clone(), key]);
    let signature = tlv(3, &[&[0][..], &tlv(0x30, &[tlv(2, &[1]), tlv(2, &[1])].concat())].concat());
    Template::class(CKO_CERTIFICATE)
        .ulong(CKA_CERTIFICATE_TYPE, CKC_X_509)
        .bool(CKA_TOKEN, true)
        .bytes(CKA_LABEL, name)
        .bytes(CKA_ID, [0xc0, 0, 1])
        .bytes(CKA_SUBJECT, &subject)
        .bytes(CKA_ISSUER, &subject)
        .bytes(CKA_SERIAL_NUMBER, &serial)
        .bytes(CKA_VALUE, sequence(&[body, algorithm, signature]))
}

/// A data object.
pub fn data(name: &str) -> Template {
    Template::class(CKO_DATA)
        .bool(CKA_TOKEN, true)
        .bytes(CKA_LABEL, name)
        .bytes(CKA_APPLICATION, "test")
        .bytes(CKA_VALUE, [7; 40])
}

/// One of each class and type.
struct Zoo {
    objects: Vec<(&'static str, Handle)>,
}

impl Zoo {
    fn fill(session: &Session, token: bool) -> Zoo {
        let mut objects = Vec::new();
        let (public, private) = session.rsa(2048, "rsa", token);
        objects.extend([("RSA public key", public), ("RSA private key", private)]);
        let (public, private) = session.p256("ec", token);
        objects.extend([("EC public key", public), ("EC private key", private)]);
        let (public, private) = session.ec_pair(curve::ED25519, "ed", token).expect("Ed25519 pair");
        objects.extend([("Ed public key", public), ("Ed private key", private)]);
        objects.push(("AES key", session.aes(32, "aes", token, &Template::new()).expect("AES key")));
        objects.push(("generic secret", session.generic(32, "generic", token).expect("generic secret")));
        let kind = Template::new().bool(CKA_TOKEN, token);
        objects.push(("certificate", session.create(&certificate("cert").and(&kind)).expect("certificate")));
        objects.push(("data", session.create(&data("data").and(&kind)).expect("data object")));
        Zoo { objects }
    }

    fn keys(&self) -> impl Iterator<Item = (&'static str, Handle)> {
        self.objects
            .iter()
            .copied()
            .filter(|(name, _)| name.contains("private") || name.contains("AES") || name.contains("secret"))
    }
}

// ---- secrets stay inside ----

/// No way of asking reveals this attribute.
fn assert_unreadable(session: &Session, name: &str, key: Handle, kind: CK_ATTRIBUTE_TYPE) {
    for room in [0usize, 1, 32, 4096] {
        let mut buffer = vec![0x5au8; room];
        let pointer = if room == 0 { std::ptr::null_mut() } else { buffer.as_mut_ptr().cast() };
        let mut attribute = CK_ATTRIBUTE { type_: kind, pValue: pointer, ulValueLen: room as CK_ULONG };
        let answer = session.get_raw(key, std::slice::from_mut(&mut attribute));
        assert_rv!(
            answer,
            CKR_ATTRIBUTE_SENSITIVE | CKR_ATTRIBUTE_TYPE_INVALID,
            "{name}, attribute {kind:#x}, {room} bytes of room"
        );
        assert_eq!(attribute.ulValueLen, UNAVAILABLE, "{name}, attribute {kind:#x}");
        assert!(buffer.iter().all(|byte| *byte == 0x5a), "{name}, attribute {kind:#x}: something was written");
    }
}

#[test]
fn r17_no_call_reveals_a_secret_attribute() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let zoo = Zoo::fill(&session, true);
        for (name, key) in zoo.keys() {
            let mut own = 0;
            for kind in SECRETS {
                assert_unreadable(&session, name, key, *kind);
                let mut attribute = CK_ATTRIBUTE { type_: *kind, ..Default::default() };
                own += usize::from(
                    session.get_raw(key, std::slice::from_mut(&mut attribute)) == Err(Rv(CKR_ATTRIBUTE_SENSITIVE)),
                );
            }
            let wanted = if name.starts_with("RSA") { 6 } else { 1 };
            assert_eq!(own, wanted, "{name}: its own secret attributes are sensitive, not unknown");
            let copy = session.copy(key, &Template::new().bool(CKA_TOKEN, false)).expect("C_CopyObject");
            for kind in SECRETS {
                assert_unreadable(&session, &format!("copy of {name}"), copy, *kind);
            }
            let open = session.copy(key, &Template::new().bool(CKA_SENSITIVE, false));
            assert_rv!(
                open,
                CKR_ATTRIBUTE_READ_ONLY | CKR_TEMPLATE_INCONSISTENT | CKR_ATTRIBUTE_VALUE_INVALID,
                "{name}"
            );
        }
    });
}

#[test]
fn r17_finding_by_a_secret_is_no_oracle() {
    isolated!(|| {
        let token = TestToken::with(&Config::plaintext("import"));
        let session = token.user();
        let value = [0x42u8; 32];
        let secret = Template::class(CKO_SECRET_KEY)
            .ulong(CKA_KEY_TYPE, CKK_AES)
            .bytes(CKA_VALUE, value)
            .bool(CKA_SENSITIVE, true);
        session.create(&secret.clone().bool(CKA_TOKEN, true)).expect("C_CreateObject");
        assert_eq!(session.find(&Template::new().bytes(CKA_VALUE, value)).expect("C_FindObjects"), []);
    });
}

#[test]
fn r17_wrapping_obeys_the_key() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let wrapping = session.aes(32, "wrapping", false, &Template::new()).expect("AES key");
        let kept = Template::new().bool(CKA_EXTRACTABLE, false);
        let key = session.aes(32, "kept", false, &kept).expect("AES key");
        let mechanism = Mechanism::new(CKM_AES_KEY_WRAP_KWP);
        assert_rv!(session.wrap(&mechanism, wrapping, key), CKR_KEY_UNEXTRACTABLE);
        let trusted = Template::new().bool(CKA_WRAP_WITH_TRUSTED, true);
        let picky = session.aes(32, "picky", false, &trusted).expect("AES key");
        assert_rv!(session.wrap(&mechanism, wrapping, picky), CKR_KEY_NOT_WRAPPABLE);
        let no_wrap = session.aes(32, "no wrap", false, &Template::new().bool(CKA_WRAP, false)).expect("AES key");
        let free = session.aes(32, "free", false, &Template::new()).expect("AES key");
        assert_rv!(session.wrap(&mechanism, no_wrap, free), CKR_KEY_FUNCTION_NOT_PERMITTED);
        let claims = Template::new().bool(CKA_TRUSTED, true);
        let answer = session.aes(32, "self-made trust", false, &claims);
        assert_rv!(answer, CKR_ATTRIBUTE_READ_ONLY | CKR_TEMPLATE_INCONSISTENT, "only the SO makes keys trusted");
    });
}

/// What the SO trusts to wrap stays what the SO has made of it.
#[test]
fn r17_nobody_but_the_so_changes_or_copies_a_trusted_key() {
    isolated!(|| {
        let token = TestToken::new();
        let so = token.open();
        so.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
        let only_wraps = |label: &str, modifiable: bool| {
            let no = |template: Template, kind| template.bool(kind, false);
            let template = [CKA_ENCRYPT, CKA_DECRYPT, CKA_UNWRAP, CKA_PRIVATE].into_iter().fold(Template::new(), no);
            let template = template.bool(CKA_TRUSTED, true).bool(CKA_MODIFIABLE, modifiable);
            so.aes(32, label, true, &template).expect("a trusted key")
        };
        let [fixed, open] = [only_wraps("fixed", false), only_wraps("open", true)];
        let certificate = so.create(&certificate("CA").bool(CKA_TRUSTED, true)).expect("a trusted certificate");
        let copy = so.copy(open, &Template::new().bool(CKA_DECRYPT, true)).expect("the SO knows what it does");
        assert!(so.get_bool(copy, CKA_TRUSTED).expect("CKA_TRUSTED"));
        so.set(copy, &Template::new().bool(CKA_DECRYPT, false)).expect("the SO changes it");
        so.logout().expect("C_Logout");

        let user = token.user();
        let kept = Template::new().bool(CKA_WRAP_WITH_TRUSTED, true);
        let kept = user.aes(32, "kept", false, &kept).expect("AES key");
        user.wrap(&Mechanism::new(CKM_AES_KEY_WRAP_KWP), fixed, kept).expect("a trusted key wraps it");
        for key in [fixed, open] {
            for usage in [CKA_ENCRYPT, CKA_DECRYPT, CKA_UNWRAP, CKA_SIGN, CKA_DERIVE] {
                let more = Template::new().bool(usage, !user.get_bool(key, usage).expect("a boolean"));
                assert_rv!(user.set(key, &more), CKR_ATTRIBUTE_READ_ONLY | CKR_ACTION_PROHIBITED);
                assert_rv!(user.copy(key, &more.bool(CKA_TOKEN, false)), CKR_ACTION_PROHIBITED);
            }
            assert_rv!(user.copy(key, &Template::new()), CKR_ACTION_PROHIBITED);
        }
        user.set(open, &Template::new().bytes(CKA_LABEL, "renamed")).expect("a label is no use");
        let copy = user.copy(certificate, &Template::new()).expect("a certificate is no secret");
        assert!(!user.get_bool(copy, CKA_TRUSTED).expect("CKA_TRUSTED"), "trust is the SO's to give");
    });
}

// ---- only tighter ----

#[test]
fn r19_sensitive_and_extractable_only_tighten() {
    isolated!(|| {
        let token = TestToken::with(&Config::plaintext("compat"));
        let session = token.user();
        for on_token in [false, true] {
            let open = Template::new().bool(CKA_SENSITIVE, false).bool(CKA_EXTRACTABLE, true);
            let key = session.aes(32, "open", on_token, &open).expect("AES key");
            assert!(!session.get_bool(key, CKA_SENSITIVE).expect("CKA_SENSITIVE"));
            assert_eq!(session.get(key, CKA_VALUE).expect("compat lets it be read").len(), 32);
            let copy = session.copy(key, &Template::new().bool(CKA_SENSITIVE, true)).expect("a tighter copy");
            assert_unreadable(&session, "tighter copy", copy, CKA_VALUE);
            assert!(!session.get_bool(copy, CKA_ALWAYS_SENSITIVE).expect("CKA_ALWAYS_SENSITIVE"), "it was open once");

            session.set(key, &Template::new().bool(CKA_SENSITIVE, true)).expect("tightening");
            assert_unreadable(&session, "tightened", key, CKA_VALUE);
            session.set(key, &Template::new().bool(CKA_EXTRACTABLE, false)).expect("tightening");
            for (kind, loose) in [(CKA_SENSITIVE, false), (CKA_EXTRACTABLE, true)] {
                let template = Template::new().bool(kind, loose);
                assert_rv!(session.set(key, &template), CKR_ATTRIBUTE_READ_ONLY | CKR_TEMPLATE_INCONSISTENT);
                let copied = session.copy(key, &template);
                assert_rv!(copied, CKR_ATTRIBUTE_READ_ONLY | CKR_TEMPLATE_INCONSISTENT | CKR_ATTRIBUTE_VALUE_INVALID);
            }
            let read = |kind| session.get_bool(key, kind).expect("a boolean");
            assert!(read(CKA_SENSITIVE) && !read(CKA_EXTRACTABLE));
            assert!(!read(CKA_ALWAYS_SENSITIVE) && !read(CKA_NEVER_EXTRACTABLE), "history is not forgotten");
        }
    });
}

/// Reads local, always sensitive, never extractable.
fn history(session: &Session, key: Handle) -> (bool, bool, bool) {
    let read = |kind| session.get_bool(key, kind).expect("a boolean");
    (read(CKA_LOCAL), read(CKA_ALWAYS_SENSITIVE), read(CKA_NEVER_EXTRACTABLE))
}

#[test]
fn r19_history_is_right_however_the_key_came() {
    isolated!(|| {
        let token = TestToken::with(&Config::plaintext("import"));
        let session = token.user();
        let closed = Template::new().bool(CKA_EXTRACTABLE, false);
        let free = session.aes(32, "free", false, &Template::new()).expect("AES key");
        let kept = session.aes(32, "kept", false, &closed).expect("AES key");
        let (_, pair) = session.p256("pair", false);
        assert_eq!(history(&session, free), (true, true, false), "generated, extractable");
        assert_eq!(history(&session, kept), (true, true, true), "generated, not extractable");
        assert_eq!(history(&session, pair), (true, true, true), "a pair is not extractable by default");
        assert_eq!(session.get_ulong(free, CKA_KEY_GEN_MECHANISM).expect("it"), CKM_AES_KEY_GEN);
        assert_eq!(session.get_ulong(pair, CKA_KEY_GEN_MECHANISM).expect("it"), CKM_EC_KEY_PAIR_GEN);

        let mechanism = Mechanism::new(CKM_AES_KEY_WRAP_KWP);
        let wrapped = session.wrap(&mechanism, free, free).expect("C_WrapKey");
        let template = Template::class(CKO_SECRET_KEY).ulong(CKA_KEY_TYPE, CKK_AES).and(&closed);
        let unwrapped = session.unwrap(&mechanism, free, &wrapped, &template).expect("C_UnwrapKey");
        assert_eq!(history(&session, unwrapped), (false, false, false), "unwrapped");
        assert_eq!(session.get_ulong(unwrapped, CKA_KEY_GEN_MECHANISM).expect("it"), UNAVAILABLE);

        let created = session.create(&template.clone().bytes(CKA_VALUE, [1; 32])).expect("C_CreateObject");
        assert_eq!(history(&session, created), (false, false, false), "created");
        assert_eq!(session.get_ulong(created, CKA_KEY_GEN_MECHANISM).expect("it"), UNAVAILABLE);
        let copied = session.copy(kept, &Template::new()).expect("C_CopyObject");
        assert_eq!(history(&session, copied), (true, true, true), "a copy of a local key");
        assert_eq!(
            history(&session, session.copy(created, &Template::new()).expect("C_CopyObject")),
            (false, false, false)
        );

        for kind in [CKA_LOCAL, CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE] {
            let forged = Template::new().bool(kind, true);
            let answer = session.create(&template.clone().bytes(CKA_VALUE, [1; 32]).and(&forged));
            assert_rv!(answer, CKR_ATTRIBUTE_READ_ONLY | CKR_TEMPLATE_INCONSISTENT, "{kind:#x} in C_CreateObject");
            let answer = session.set(created, &forged);
            assert_rv!(answer, CKR_ATTRIBUTE_READ_ONLY | CKR_TEMPLATE_INCONSISTENT, "{kind:#x} in C_SetAttributeValue");
        }
    });
}

#[test]
fn r19_objects_obey_modifiable_copyable_destroyable() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let fixed = |kind| session.create(&data("fixed").bool(kind, false)).expect("C_CreateObject");
        let label = Template::new().bytes(CKA_LABEL, "new");
        assert_rv!(session.set(fixed(CKA_MODIFIABLE), &label), CKR_ACTION_PROHIBITED | CKR_ATTRIBUTE_READ_ONLY);
        assert_rv!(session.copy(fixed(CKA_COPYABLE), &label), CKR_ACTION_PROHIBITED);
        assert_rv!(session.destroy(fixed(CKA_DESTROYABLE)), CKR_ACTION_PROHIBITED);
        let object = session.create(&data("plain")).expect("C_CreateObject");
        for kind in [CKA_CLASS, CKA_TOKEN, CKA_PRIVATE, CKA_UNIQUE_ID] {
            let bytes = session.get(object, kind).expect("the attribute");
            let changed: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
            let answer = session.set(object, &Template::new().bytes(kind, changed));
            assert_rv!(answer, CKR_ATTRIBUTE_READ_ONLY, "{kind:#x}");
        }
    });
}

// ---- C_GetAttributeValue ----

#[test]
fn r41_every_entry_of_a_template_is_answered() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let key = session.aes(32, "a label", true, &Template::new().bytes(CKA_ID, [1, 2, 3])).expect("AES key");
        const UNKNOWN: CK_ATTRIBUTE_TYPE = 0x4000_1234;
        // Each combination of: unknown, sensitive, too small; always with good entries before, between and after.
        for bad in 0..8u8 {
            let (unknown, sensitive, small) = (bad & 1 != 0, bad & 2 != 0, bad & 4 != 0);
            let mut label = [0x5au8; 32];
            let mut class = [0x5au8; 8];
            let mut id = [0x5au8; 3];
            let mut value = [0x5au8; 64];
            let mut odd = [0x5au8; 8];
            let entry = |kind, bytes: &mut [u8]| CK_ATTRIBUTE {
                type_: kind,
                pValue: bytes.as_mut_ptr().cast(),
                ulValueLen: bytes.len() as CK_ULONG,
            };
            let id_room = if small { 2 } else { 3 };
            let mut attributes = vec![entry(CKA_LABEL, &mut label)];
            if unknown {
                attributes.push(entry(UNKNOWN, &mut odd));
            }
            attributes.push(entry(CKA_ID, &mut id[..id_room]));
            if sensitive {
                attributes.push(entry(CKA_VALUE, &mut value));
            }
            attributes.push(CK_ATTRIBUTE { type_: CKA_KEY_TYPE, ..Default::default() });
            attributes.push(entry(CKA_CLASS, &mut class));
            let answer = session.get_raw(key, &mut attributes);
            let mut allowed = Vec::new();
            if unknown {
                allowed.push(CKR_ATTRIBUTE_TYPE_INVALID);
            }
            if sensitive {
                allowed.push(CKR_ATTRIBUTE_SENSITIVE);
            }
            if small {
                allowed.push(CKR_BUFFER_TOO_SMALL);
            }
            match answer {
                Ok(()) => assert_eq!(bad, 0, "CKR_OK although an entry failed"),
                Err(rv) => assert!(allowed.contains(&rv.0), "{rv} for {allowed:x?}"),
            }
            for attribute in &attributes {
                let wanted = match attribute.type_ {
                    CKA_LABEL => 7,
                    CKA_ID if small => {
                        // The standard says "unavailable"; some callers need the exact length. Never the caller's own.
                        assert!([UNAVAILABLE, 3].contains(&attribute.ulValueLen), "{:#x}", attribute.ulValueLen);
                        continue;
                    }
                    CKA_ID => 3,
                    CKA_KEY_TYPE | CKA_CLASS => 8,
                    _ => UNAVAILABLE,
                };
                assert_eq!(attribute.ulValueLen, wanted, "{:#x} with faults {bad:03b}", attribute.type_);
            }
            assert_eq!(&label[..7], b"a label", "good entries are filled");
            assert_eq!(label[7], 0x5a, "and no more than that");
            assert_eq!(class, CKO_SECRET_KEY.to_ne_bytes());
            if !small {
                assert_eq!(id, [1, 2, 3]);
            }
            assert!(value.iter().all(|byte| *byte == 0x5a), "nothing of a secret is written");
        }
    });
}

#[test]
fn r41_the_answers_to_wrong_handles_and_pointers() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let object = session.create(&data("d")).expect("C_CreateObject");
        for handle in [0, object + 1, object ^ 1 << 40, CK_ULONG::MAX] {
            assert_rv!(session.get(handle, CKA_LABEL), CKR_OBJECT_HANDLE_INVALID);
        }
        let null = ffi_tests::call!(token.module, C_GetAttributeValue(session.handle, object, std::ptr::null_mut(), 1));
        assert_rv!(ffi_tests::check(null), CKR_ARGUMENTS_BAD);
        session.destroy(object).expect("C_DestroyObject");
        assert_rv!(session.get(object, CKA_LABEL), CKR_OBJECT_HANDLE_INVALID);
        assert_rv!(session.destroy(object), CKR_OBJECT_HANDLE_INVALID);
    });
}

// ---- nothing is missing ----

const STORAGE: &[CK_ATTRIBUTE_TYPE] =
    &[CKA_CLASS, CKA_TOKEN, CKA_PRIVATE, CKA_MODIFIABLE, CKA_LABEL, CKA_COPYABLE, CKA_DESTROYABLE, CKA_UNIQUE_ID];
const KEY: &[CK_ATTRIBUTE_TYPE] =
    &[CKA_KEY_TYPE, CKA_ID, CKA_START_DATE, CKA_END_DATE, CKA_DERIVE, CKA_LOCAL, CKA_KEY_GEN_MECHANISM];
const PUBLIC: &[CK_ATTRIBUTE_TYPE] =
    &[CKA_SUBJECT, CKA_ENCRYPT, CKA_VERIFY, CKA_VERIFY_RECOVER, CKA_WRAP, CKA_TRUSTED, CKA_PUBLIC_KEY_INFO];
const PRIVATE: &[CK_ATTRIBUTE_TYPE] = &[
    CKA_SUBJECT,
    CKA_SENSITIVE,
    CKA_DECRYPT,
    CKA_SIGN,
    CKA_SIGN_RECOVER,
    CKA_UNWRAP,
    CKA_EXTRACTABLE,
    CKA_ALWAYS_SENSITIVE,
    CKA_NEVER_EXTRACTABLE,
    CKA_WRAP_WITH_TRUSTED,
    CKA_ALWAYS_AUTHENTICATE,
    CKA_PUBLIC_KEY_INFO,
];
const SECRET: &[CK_ATTRIBUTE_TYPE] = &[
    CKA_SENSITIVE,
    CKA_ENCRYPT,
    CKA_DECRYPT,
    CKA_SIGN,
    CKA_VERIFY,
    CKA_WRAP,
    CKA_UNWRAP,
    CKA_EXTRACTABLE,
    CKA_ALWAYS_SENSITIVE,
    CKA_NEVER_EXTRACTABLE,
    CKA_WRAP_WITH_TRUSTED,
    CKA_TRUSTED,
    CKA_VALUE_LEN,
    CKA_CHECK_VALUE,
];
const CERTIFICATE: &[CK_ATTRIBUTE_TYPE] = &[
    CKA_CERTIFICATE_TYPE,
    CKA_TRUSTED,
    CKA_CERTIFICATE_CATEGORY,
    CKA_CHECK_VALUE,
    CKA_START_DATE,
    CKA_END_DATE,
    CKA_SUBJECT,
    CKA_ID,
    CKA_ISSUER,
    CKA_SERIAL_NUMBER,
    CKA_VALUE,
];
const BOOLEANS: &[CK_ATTRIBUTE_TYPE] = &[
    CKA_TOKEN,
    CKA_PRIVATE,
    CKA_MODIFIABLE,
    CKA_COPYABLE,
    CKA_DESTROYABLE,
    CKA_DERIVE,
    CKA_LOCAL,
    CKA_ENCRYPT,
    CKA_DECRYPT,
    CKA_SIGN,
    CKA_SIGN_RECOVER,
    CKA_VERIFY,
    CKA_VERIFY_RECOVER,
    CKA_WRAP,
    CKA_UNWRAP,
    CKA_TRUSTED,
    CKA_SENSITIVE,
    CKA_EXTRACTABLE,
    CKA_ALWAYS_SENSITIVE,
    CKA_NEVER_EXTRACTABLE,
    CKA_WRAP_WITH_TRUSTED,
    CKA_ALWAYS_AUTHENTICATE,
];

fn standard_attributes(name: &str) -> Vec<CK_ATTRIBUTE_TYPE> {
    let own: &[&[CK_ATTRIBUTE_TYPE]] = match name {
        "RSA public key" => &[KEY, PUBLIC, &[CKA_MODULUS, CKA_MODULUS_BITS, CKA_PUBLIC_EXPONENT]],
        "RSA private key" => &[KEY, PRIVATE, &[CKA_MODULUS, CKA_PUBLIC_EXPONENT]],
        "EC public key" | "Ed public key" => &[KEY, PUBLIC, &[CKA_EC_PARAMS, CKA_EC_POINT]],
        "EC private key" | "Ed private key" => &[KEY, PRIVATE, &[CKA_EC_PARAMS]],
        "AES key" | "generic secret" => &[KEY, SECRET],
        "certificate" => &[CERTIFICATE],
        "data" => &[&[CKA_APPLICATION, CKA_OBJECT_ID, CKA_VALUE]],
        other => panic!("{other} has no list"),
    };
    [&[STORAGE], own].concat().concat()
}

#[test]
fn r42_every_class_has_every_standard_attribute() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        for on_token in [true, false] {
            let zoo = Zoo::fill(&session, on_token);
            let mut missing = Vec::new();
            for (name, object) in &zoo.objects {
                for kind in standard_attributes(name) {
                    match session.get(*object, kind) {
                        Err(rv) => missing.push(format!("{name}: {kind:#x} {rv}")),
                        Ok(value) if BOOLEANS.contains(&kind) => {
                            assert!(value == [0] || value == [1], "{name}: {kind:#x} is no CK_BBOOL: {value:x?}");
                        }
                        Ok(_) => {}
                    }
                }
                let allowed = session.get(*object, CKA_ALLOWED_MECHANISMS);
                assert!(
                    !matches!(&allowed, Ok(list) if list.is_empty()),
                    "{name}: an empty CKA_ALLOWED_MECHANISMS forbids everything"
                );
            }
            assert!(missing.is_empty(), "on token {on_token}:\n{}", missing.join("\n"));
        }
    });
}

#[test]
fn r42_usages_default_to_what_the_key_type_can_do() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let pair = |generator, params: &[u8], template: &Template| {
            let public = Template::new().bytes(CKA_EC_PARAMS, params).and(template);
            session.generate_pair(&Mechanism::new(generator), &public, template).expect("a pair")
        };
        let reads =
            |key, kinds: [CK_ATTRIBUTE_TYPE; 2]| kinds.map(|kind| session.get_bool(key, kind).expect("a boolean"));
        for (generator, params, signs) in [
            (CKM_EC_KEY_PAIR_GEN, curve::P256, true),
            (CKM_EC_EDWARDS_KEY_PAIR_GEN, curve::ED25519, true),
            (CKM_EC_MONTGOMERY_KEY_PAIR_GEN, curve::X25519, false),
        ] {
            let (public, private) = pair(generator, params, &Template::new());
            assert_eq!(reads(public, [CKA_ENCRYPT, CKA_VERIFY]), [false, signs], "{generator:#x}");
            assert_eq!(reads(private, [CKA_DECRYPT, CKA_SIGN]), [false, signs], "{generator:#x}");
        }
        let (public, private) = session
            .generate_pair(
                &Mechanism::new(CKM_RSA_PKCS_KEY_PAIR_GEN),
                &Template::new().ulong(CKA_MODULUS_BITS, 2048),
                &Template::new(),
            )
            .expect("a pair");
        assert_eq!(reads(public, [CKA_ENCRYPT, CKA_VERIFY]), [true, true]);
        assert_eq!(reads(private, [CKA_DECRYPT, CKA_SIGN]), [true, true]);
        for (generator, encrypts) in [(CKM_AES_KEY_GEN, true), (CKM_GENERIC_SECRET_KEY_GEN, false)] {
            let template = Template::new().ulong(CKA_VALUE_LEN, 32);
            let key = session.generate_key(&Mechanism::new(generator), &template).expect("a key");
            assert_eq!(reads(key, [CKA_ENCRYPT, CKA_DECRYPT]), [encrypts; 2], "{generator:#x}");
            assert_eq!(reads(key, [CKA_SIGN, CKA_VERIFY]), [true; 2], "{generator:#x}");
        }
    });
}

#[test]
fn r41_an_empty_list_of_allowed_mechanisms_restricts_nothing() {
    isolated!(|| {
        let store = TestToken::new();
        let session = store.user();
        let empty = Template::new().bytes(CKA_ALLOWED_MECHANISMS, []);
        let key = session.aes(32, "any use", true, &empty).expect("an AES key");
        assert_rv!(session.get(key, CKA_ALLOWED_MECHANISMS).map(|_| ()), CKR_ATTRIBUTE_TYPE_INVALID);
        let ecb = Mechanism::new(CKM_AES_ECB);
        session.encrypt(&ecb, key, &[7; 16]).unwrap_or_else(|rv| panic!("{rv}: {}", session.module.last_error()));
        let one = Template::new().bytes(CKA_ALLOWED_MECHANISMS, CKM_AES_CMAC.to_ne_bytes());
        let key = session.aes(32, "one use", true, &one).expect("an AES key");
        assert_rv!(session.encrypt(&ecb, key, &[7; 16]).map(|_| ()), CKR_MECHANISM_INVALID);
    });
}

#[test]
fn r42_a_certificate_has_the_check_value_of_its_bytes() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let object = session.create(&certificate("checked")).expect("C_CreateObject");
        let digest = sha1(&session.get(object, CKA_VALUE).expect("CKA_VALUE"));
        assert_eq!(session.get(object, CKA_CHECK_VALUE).expect("CKA_CHECK_VALUE"), digest[..3]);
        let right = certificate("checked").bytes(CKA_CHECK_VALUE, &digest[..3]);
        session.create(&right).expect("a template with the right check value");
        let wrong = certificate("checked").bytes(CKA_CHECK_VALUE, [1, 2, 3]);
        assert_rv!(session.create(&wrong), CKR_ATTRIBUTE_VALUE_INVALID);
        let elsewhere = Template::class(CKO_CERTIFICATE)
            .ulong(CKA_CERTIFICATE_TYPE, CKC_X_509)
            .bytes(CKA_SUBJECT, [0x30, 0])
            .bytes(CKA_URL, "https://example.org/a.crt");
        let elsewhere = session.create(&elsewhere).expect("a certificate with a URL alone");
        assert_rv!(session.get(elsewhere, CKA_CHECK_VALUE), CKR_ATTRIBUTE_TYPE_INVALID);
    });
}

#[test]
fn r42_public_key_info_is_the_public_key() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let message = b"message";
        let check = |params: &[u8], name: &str| {
            let (public, private) = session.ec_pair(params, name, true).expect("a pair");
            let spki = session.get(public, CKA_PUBLIC_KEY_INFO).expect("CKA_PUBLIC_KEY_INFO");
            assert_eq!(session.get(private, CKA_PUBLIC_KEY_INFO).expect("on the private half"), spki, "{name}");
            let judge = PublicKey::from_spki(&spki).unwrap_or_else(|| panic!("{name}: no SubjectPublicKeyInfo"));
            (private, judge)
        };
        let (private, judge) = check(curve::ED25519, "Ed25519");
        let signature = session.sign(&Mechanism::new(CKM_EDDSA), private, message).expect("C_Sign");
        assert!(judge.verify_eddsa(message, &signature), "Ed25519 by libcrypto");
        for (params, name) in
            [(curve::P256, "P-256"), (curve::P384, "P-384"), (curve::P521, "P-521"), (curve::SECP256K1, "k1")]
        {
            let (private, judge) = check(params, name);
            let digest = ffi_tests::libcrypto::sha256(message);
            let signature = session.sign(&Mechanism::new(CKM_ECDSA), private, &digest).expect("C_Sign");
            assert!(judge.verify_ecdsa(&digest, &signature), "{name} by libcrypto");
        }
        let (public, private) = session.rsa(2048, "rsa", true);
        let spki = session.get(public, CKA_PUBLIC_KEY_INFO).expect("CKA_PUBLIC_KEY_INFO");
        assert_eq!(session.get(private, CKA_PUBLIC_KEY_INFO).expect("on the private half"), spki);
        assert!(PublicKey::from_spki(&spki).is_some());
        assert_eq!(session.get_ulong(public, CKA_MODULUS_BITS).expect("CKA_MODULUS_BITS"), 2048);
        assert_eq!(session.get(public, CKA_MODULUS), session.get(private, CKA_MODULUS));
    });
}

// ---- points and curves ----

fn ec_public(params: &[u8], kind: CK_KEY_TYPE, point: &[u8]) -> Template {
    Template::class(CKO_PUBLIC_KEY)
        .ulong(CKA_KEY_TYPE, kind)
        .bytes(CKA_EC_PARAMS, params)
        .bytes(CKA_EC_POINT, point)
        .bool(CKA_VERIFY, true)
}

#[test]
fn r45_ec_points_come_in_raw_or_der_and_go_out_as_der() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        for (params, width) in [(curve::P256, 32), (curve::P384, 48), (curve::P521, 66), (curve::SECP256K1, 32)] {
            let (public, private) = session.ec_pair(params, "out", false).expect("a pair");
            let der = session.get(public, CKA_EC_POINT).expect("CKA_EC_POINT");
            let (tag, raw, rest) = read_tlv(&der).expect("DER");
            assert_eq!(
                (tag, raw.len(), rest.len(), raw[0]),
                (4, 1 + 2 * width, 0, 4),
                "OCTET STRING of an uncompressed point"
            );
            let signature = session.sign(&Mechanism::new(CKM_ECDSA), private, &[6; 32]).expect("C_Sign");
            for point in [&der[..], raw] {
                let imported = session.create(&ec_public(params, CKK_EC, point)).expect("a public key");
                assert_eq!(session.get(imported, CKA_EC_POINT).expect("CKA_EC_POINT"), der);
                assert_eq!(session.get(imported, CKA_EC_PARAMS).expect("CKA_EC_PARAMS"), params);
                session.verify(&Mechanism::new(CKM_ECDSA), imported, &[6; 32], &signature).expect("C_Verify");
            }
            let mut off_curve = raw.to_vec();
            off_curve[5] ^= 1;
            let trailing = [&der[..], &[0]].concat();
            for (wrong, what) in [
                (&raw[..raw.len() - 1], "short"),
                (&trailing[..], "trailing"),
                (&off_curve, "off the curve"),
                (&[], "empty"),
                (&[0], "infinity"),
                (&der[..der.len() - 1], "cut"),
            ] {
                let answer = session.create(&ec_public(params, CKK_EC, wrong));
                assert_rv!(
                    answer,
                    CKR_ATTRIBUTE_VALUE_INVALID | CKR_PUBLIC_KEY_INVALID | CKR_TEMPLATE_INCONSISTENT,
                    "{what}"
                );
            }
        }
    });
}

#[test]
fn r45_edwards_points_come_in_raw_octet_string_and_bit_string() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let (public, private) = session.ec_pair(curve::ED25519, "out", false).expect("a pair");
        let out = session.get(public, CKA_EC_POINT).expect("CKA_EC_POINT");
        let spki = session.get(public, CKA_PUBLIC_KEY_INFO).expect("CKA_PUBLIC_KEY_INFO");
        let raw = spki[spki.len() - 32..].to_vec();
        assert!(out == raw || out == tlv(4, &raw), "a documented form: {out:x?}");
        let signature = session.sign(&Mechanism::new(CKM_EDDSA), private, b"m").expect("C_Sign");
        for point in [raw.clone(), tlv(4, &raw), tlv(3, &[&[0][..], &raw].concat())] {
            let imported = session.create(&ec_public(curve::ED25519, CKK_EC_EDWARDS, &point)).expect("a public key");
            assert_eq!(session.get(imported, CKA_EC_POINT).expect("CKA_EC_POINT"), out, "imported as generated");
            session.verify(&Mechanism::new(CKM_EDDSA), imported, b"m", &signature).expect("C_Verify");
        }
        for wrong in [&raw[..31], &[&raw[..], &[0]].concat(), &[tlv(4, &raw), vec![0]].concat(), &[]] {
            let answer = session.create(&ec_public(curve::ED25519, CKK_EC_EDWARDS, wrong));
            assert_rv!(answer, CKR_ATTRIBUTE_VALUE_INVALID | CKR_PUBLIC_KEY_INVALID | CKR_TEMPLATE_INCONSISTENT);
        }
        // A raw point may look like the start of DER; half of all such strings are points.
        let mut taken = 0;
        for last in 0..16u8 {
            let mut point = [0x33u8; 32];
            point[..2].copy_from_slice(&[0x04, 0x1e]);
            point[31] = last;
            if let Ok(object) = session.create(&ec_public(curve::ED25519, CKK_EC_EDWARDS, &point)) {
                let spki = session.get(object, CKA_PUBLIC_KEY_INFO).expect("CKA_PUBLIC_KEY_INFO");
                assert!(spki.ends_with(&point), "the whole point was taken");
                taken += 1;
            }
        }
        assert!(taken > 0, "raw points that start with 04 1e are taken");
    });
}

#[test]
fn r46_edwards_curves_have_three_names_and_one_answer() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let mut answers = BTreeSet::new();
        for params in [curve::ED25519, curve::ED25519_NAME, curve::ED25519_OLD] {
            let (public, private) =
                session.ec_pair(params, "ed", true).unwrap_or_else(|rv| panic!("{params:x?}: {rv}"));
            let told = session.get(public, CKA_EC_PARAMS).expect("CKA_EC_PARAMS");
            assert_eq!(session.get(private, CKA_EC_PARAMS).expect("CKA_EC_PARAMS"), told, "both halves say the same");
            let point = session.get(public, CKA_EC_POINT).expect("CKA_EC_POINT");
            let imported = session.create(&ec_public(params, CKK_EC_EDWARDS, &point)).expect("a public key");
            assert_eq!(session.get(imported, CKA_EC_PARAMS).expect("CKA_EC_PARAMS"), told, "imported as generated");
            let signature = session.sign(&Mechanism::new(CKM_EDDSA), private, b"m").expect("C_Sign");
            session.verify(&Mechanism::new(CKM_EDDSA), imported, b"m", &signature).expect("C_Verify");
            answers.insert(told);
        }
        assert!(answers.len() <= 3 && answers.iter().all(|told| told.len() <= 14), "{answers:x?}");
        let unknown = session.ec_pair(&[6, 3, 0x2b, 1, 1], "unknown", false).map(|_| ());
        assert_rv!(unknown, CKR_CURVE_NOT_SUPPORTED | CKR_ATTRIBUTE_VALUE_INVALID | CKR_DOMAIN_PARAMS_INVALID);
    });
}

#[test]
fn r46_ecdh_takes_the_peer_raw_and_as_der() {
    isolated!(|| {
        let token = TestToken::with(&Config::plaintext("compat"));
        let session = token.user();
        let secret = |own: Handle, peer: &[u8]| {
            let template = Template::class(CKO_SECRET_KEY)
                .ulong(CKA_KEY_TYPE, CKK_GENERIC_SECRET)
                .bool(CKA_SENSITIVE, false)
                .bool(CKA_EXTRACTABLE, true);
            let mechanism = Mechanism::ecdh1(CKM_ECDH1_DERIVE, CKD_NULL, b"", peer);
            let key = session.derive(&mechanism, own, &template).expect("C_DeriveKey without CKA_VALUE_LEN");
            session.get(key, CKA_VALUE).expect("CKA_VALUE")
        };
        for (params, width) in [(curve::P256, 32), (curve::P521, 66), (curve::X25519, 32)] {
            let (a_public, a_private) = session.ec_pair(params, "a", false).expect("a pair");
            let (b_public, b_private) = session.ec_pair(params, "b", false).expect("a pair");
            let point = |public| {
                let out = session.get(public, CKA_EC_POINT).expect("CKA_EC_POINT");
                let raw = if out.len() == 32 { out.clone() } else { read_tlv(&out).expect("DER").1.to_vec() };
                (tlv(4, &raw), raw)
            };
            let (a, b) = (point(a_public), point(b_public));
            let shared = secret(a_private, &b.1);
            assert_eq!(shared.len(), width, "leading zeros are kept");
            assert_eq!(secret(a_private, &b.0), shared, "DER");
            assert_eq!(secret(b_private, &a.1), shared, "the other side");
        }
    });
}

// ---- names ----

#[test]
fn r55_id_and_label_are_independent_and_default_to_the_key_hash() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let (public, private) = session.p256("a label", true);
        let id = session.get(public, CKA_ID).expect("CKA_ID");
        assert_eq!(session.get(private, CKA_ID).expect("CKA_ID"), id, "both halves have one id");
        let point = session.get(public, CKA_EC_POINT).expect("CKA_EC_POINT");
        assert_eq!(id, sha1(read_tlv(&point).expect("DER").1), "SHA-1 of the public key (RFC 5280, 4.2.1.2, method 1)");
        assert_eq!(session.get(public, CKA_LABEL).expect("CKA_LABEL"), b"a label");

        let (public, private) = session.rsa(2048, "", true);
        let id = session.get(public, CKA_ID).expect("CKA_ID");
        assert_eq!(session.get(private, CKA_ID).expect("CKA_ID"), id);
        let spki = session.get(public, CKA_PUBLIC_KEY_INFO).expect("CKA_PUBLIC_KEY_INFO");
        let (_, body, _) = read_tlv(&spki).expect("SEQUENCE");
        let (_, _, rest) = read_tlv(body).expect("algorithm");
        let key = &read_tlv(rest).expect("BIT STRING").1[1..];
        let modulus = session.get(public, CKA_MODULUS).expect("CKA_MODULUS");
        assert!(id == sha1(key) || id == sha1(&modulus), "SHA-1 of the public key");

        let odd = [0u8, 0xff, b'\n', 0, b'/', 0x80];
        for (half, which) in [(public, "public"), (private, "private")] {
            session.set(half, &Template::new().bytes(CKA_ID, odd)).expect("CKA_ID can change");
            assert_eq!(
                session.get(half, CKA_LABEL).expect("CKA_LABEL"),
                b"",
                "{which}: the label did not change with it"
            );
            session.set(half, &Template::new().bytes(CKA_LABEL, odd)).expect("CKA_LABEL can change");
            assert_eq!(session.get(half, CKA_ID).expect("CKA_ID"), odd);
            session.set(half, &Template::new().bytes(CKA_LABEL, "other")).expect("CKA_LABEL can change");
            assert_eq!(session.get(half, CKA_ID).expect("CKA_ID"), odd, "{which}: the id did not change with it");
        }
        assert_eq!(session.find(&Template::new().bytes(CKA_ID, odd)).expect("C_FindObjects").len(), 2);
        assert_eq!(session.find(&Template::new().bytes(CKA_ID, &odd[..5])).expect("C_FindObjects"), []);
        assert_eq!(session.find(&Template::new().bytes(CKA_LABEL, "other")).expect("C_FindObjects").len(), 2);
    });
}

#[test]
fn r55_an_empty_id_is_as_none_and_a_given_one_stays() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let pair = |id: &[u8]| {
            let public = Template::new().bytes(CKA_EC_PARAMS, curve::P256).bytes(CKA_ID, id);
            let private = Template::new().bytes(CKA_ID, id);
            session.generate_pair(&Mechanism::new(CKM_EC_KEY_PAIR_GEN), &public, &private).expect("a pair")
        };
        let id = |(public, private)| {
            let id = session.get(public, CKA_ID).expect("CKA_ID");
            assert_eq!(session.get(private, CKA_ID).expect("CKA_ID"), id);
            id
        };
        assert_eq!(id(pair(b"")).len(), 20);
        assert_eq!(id(pair(b"mine")), b"mine");
    });
}

/// Tells the unique ids of all objects with a label.
pub fn role_unique_ids(config: &str) {
    let module = token::attach(config);
    let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    session.login(CKU_USER, ffi_tests::USER_PIN).expect("C_Login");
    for id in unique_ids(&session) {
        say(&id);
    }
    module.finalize().expect("C_Finalize");
}

fn unique_ids(session: &Session) -> BTreeSet<String> {
    let read = |object| String::from_utf8(session.get(object, CKA_UNIQUE_ID).expect("CKA_UNIQUE_ID")).expect("text");
    session.find(&Template::new().bool(CKA_TOKEN, true)).expect("C_FindObjects").into_iter().map(read).collect()
}

#[test]
fn r56_every_object_has_a_unique_id_for_ever() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let zoo = Zoo::fill(&session, true);
        for _ in 0..3 {
            session.p256("same label", true);
        }
        let ids = unique_ids(&session);
        assert_eq!(ids.len(), zoo.objects.len() + 6);
        assert!(ids.iter().all(|id| !id.is_empty()));
        let elsewhere: BTreeSet<String> =
            Role::start("unique-ids", &token.config_text()).succeed().into_iter().collect();
        assert_eq!(elsewhere, ids, "in another process");
        let object = zoo.objects[0].1;
        let id = session.get(object, CKA_UNIQUE_ID).expect("CKA_UNIQUE_ID");
        assert_eq!(session.find(&Template::new().bytes(CKA_UNIQUE_ID, &id)).expect("C_FindObjects"), [object]);
        let forged = data("forged").bytes(CKA_UNIQUE_ID, &id);
        assert_rv!(session.create(&forged), CKR_ATTRIBUTE_READ_ONLY | CKR_TEMPLATE_INCONSISTENT);
        let copy = session.copy(object, &Template::new()).expect("C_CopyObject");
        assert_ne!(session.get(copy, CKA_UNIQUE_ID).expect("CKA_UNIQUE_ID"), id, "a copy is another object");
    });
}

// ---- R-43 and templates that cannot be ----

#[test]
fn r43_rejected_templates_are_explained() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let told = |what: &str, name: &str| {
            let text = token.module.last_error();
            assert!(text.contains(name), "{what}: the text {text:?} names {name}");
        };
        assert_rv!(session.create(&Template::new()), CKR_TEMPLATE_INCOMPLETE);
        told("no class", "CKA_CLASS");
        assert_rv!(
            session.create(&Template::class(CKO_DATA).ulong(CKA_KEY_TYPE, 1)),
            CKR_ATTRIBUTE_TYPE_INVALID | CKR_TEMPLATE_INCONSISTENT
        );
        told("a data object with a key type", "CKA_KEY_TYPE");
        assert_rv!(
            session.create(&data("x").bytes(CKA_TOKEN, [1, 1])),
            CKR_ATTRIBUTE_VALUE_INVALID | CKR_TEMPLATE_INCONSISTENT
        );
        told("a boolean of two bytes", "CKA_TOKEN");
        let bare = session.generate_key(&Mechanism::new(CKM_AES_KEY_GEN), &Template::new());
        assert_rv!(bare, CKR_TEMPLATE_INCOMPLETE);
        told("AES without a length", "CKA_VALUE_LEN");
        let odd = session.aes(17, "x", false, &Template::new());
        assert_rv!(odd, CKR_ATTRIBUTE_VALUE_INVALID | CKR_KEY_SIZE_RANGE);
        let class = session.aes(32, "x", false, &Template::class(CKO_PRIVATE_KEY));
        assert_rv!(class, CKR_TEMPLATE_INCONSISTENT);
        let stranger = session.aes(32, "x", false, &Template::new().bytes(CKA_MODULUS, [1; 256]));
        assert_rv!(stranger, CKR_ATTRIBUTE_TYPE_INVALID | CKR_TEMPLATE_INCONSISTENT);
        told("an AES key with a modulus", "CKA_MODULUS");
        let bare = session.generate_pair(&Mechanism::new(CKM_EC_KEY_PAIR_GEN), &Template::new(), &Template::new());
        assert_rv!(bare, CKR_TEMPLATE_INCOMPLETE);
        told("EC without a curve", "CKA_EC_PARAMS");
    });
}

#[test]
fn r43_harmless_attributes_are_tolerated() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let harmless = Template::new().bool(CKA_DERIVE, false).bool(CKA_SIGN_RECOVER, false).bool(CKA_DECRYPT, false);
        let public = Template::class(CKO_PUBLIC_KEY)
            .ulong(CKA_KEY_TYPE, CKK_EC)
            .bytes(CKA_EC_PARAMS, curve::P256)
            .bool(CKA_ENCRYPT, false)
            .bool(CKA_WRAP, false)
            .bool(CKA_VERIFY_RECOVER, false);
        let private =
            Template::class(CKO_PRIVATE_KEY).ulong(CKA_KEY_TYPE, CKK_EC).and(&harmless).bytes(CKA_SUBJECT, b"");
        session.generate_pair(&Mechanism::new(CKM_EC_KEY_PAIR_GEN), &public, &private).expect("a pair");
    });
}

/// Some callers give both halves of a pair one template; parts of another type of key are a mistake.
#[test]
fn r43_public_parts_belong_to_the_key_type() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let curve = Template::new().bytes(CKA_EC_PARAMS, curve::P256);
        let size = Template::new().ulong(CKA_MODULUS_BITS, 2048).bytes(CKA_PUBLIC_EXPONENT, [1, 0, 1]);
        let (ec, rsa) = (Mechanism::new(CKM_EC_KEY_PAIR_GEN), Mechanism::new(CKM_RSA_PKCS_KEY_PAIR_GEN));
        for (mechanism, own, other, name) in
            [(&ec, &curve, &size, "CKA_MODULUS_BITS"), (&rsa, &size, &curve, "CKA_EC_PARAMS")]
        {
            session.generate_pair(mechanism, own, own).expect("a pair from one template");
            for (public, private) in [(own.clone().and(other), own.clone()), (own.clone(), own.clone().and(other))] {
                let answer = session.generate_pair(mechanism, &public, &private);
                assert_rv!(answer, CKR_ATTRIBUTE_TYPE_INVALID, "{name}");
                let text = token.module.last_error();
                assert!(text.contains(name) || text.contains("CKA_PUBLIC_EXPONENT"), "the text {text:?} names {name}");
            }
        }
        let (public, _) = session.p256("ec", false);
        assert_rv!(session.set(public, &size), CKR_ATTRIBUTE_TYPE_INVALID);
    });
}

// ---- The policy on plaintext ----

fn secret_template(value: &[u8]) -> Template {
    Template::class(CKO_SECRET_KEY)
        .ulong(CKA_KEY_TYPE, CKK_AES)
        .bytes(CKA_VALUE, value)
        .bool(CKA_ENCRYPT, true)
        .bool(CKA_DECRYPT, true)
        .bool(CKA_EXTRACTABLE, true)
}

fn ec_private_template(scalar: &[u8]) -> Template {
    Template::class(CKO_PRIVATE_KEY)
        .ulong(CKA_KEY_TYPE, CKK_EC)
        .bytes(CKA_EC_PARAMS, curve::P256)
        .bytes(CKA_VALUE, scalar)
        .bool(CKA_SIGN, true)
}

/// FIPS 197, C.3.
fn aes_known_answer(session: &Session, key: Handle) {
    let plain: Vec<u8> = (0..16).map(|index| index * 0x11).collect();
    let cipher = session.encrypt(&Mechanism::new(CKM_AES_ECB), key, &plain).expect("C_Encrypt");
    assert_eq!(
        cipher,
        [0x8e, 0xa2, 0xb7, 0xca, 0x51, 0x67, 0x45, 0xbf, 0xea, 0xfc, 0x49, 0x90, 0x4b, 0x49, 0x60, 0x89]
    );
}

#[test]
fn plaintext_never_takes_no_key_and_reveals_none() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let value: Vec<u8> = (0..32).collect();
        for (what, template) in [("secret key", secret_template(&value)), ("private key", ec_private_template(&value))]
        {
            for on_token in [false, true] {
                let answer = session.create(&template.clone().bool(CKA_TOKEN, on_token).bool(CKA_SENSITIVE, true));
                assert_rv!(answer, CKR_FUNCTION_REJECTED | CKR_ACTION_PROHIBITED | CKR_TEMPLATE_INCONSISTENT, "{what}");
                let text = token.module.last_error();
                assert!(text.contains("plaintext"), "{what}: the text {text:?} names the setting");
            }
        }
        Zoo::fill(&session, true);
        let open = Template::new().bool(CKA_SENSITIVE, false);
        let key = session.aes(32, "asked open", true, &open).expect("stock tools ask so; they get a sensitive key");
        assert!(session.get_bool(key, CKA_SENSITIVE).expect("CKA_SENSITIVE"));
        assert_unreadable(&session, "asked open", key, CKA_VALUE);
        let (public, private) = session.p256("pair", false);
        let point = session.get(public, CKA_EC_POINT).expect("CKA_EC_POINT");
        let derived = Template::class(CKO_SECRET_KEY)
            .ulong(CKA_KEY_TYPE, CKK_GENERIC_SECRET)
            .and(&open)
            .bool(CKA_EXTRACTABLE, true);
        let mechanism = Mechanism::ecdh1(CKM_ECDH1_DERIVE, CKD_NULL, b"", &point);
        let shared = session.derive(&mechanism, private, &derived).expect("C_DeriveKey");
        assert_unreadable(&session, "derived", shared, CKA_VALUE);
        let wrapping = session.aes(32, "w", false, &Template::new()).expect("AES key");
        let kwp = Mechanism::new(CKM_AES_KEY_WRAP_KWP);
        let wrapped = session.wrap(&kwp, wrapping, wrapping).expect("C_WrapKey");
        let template =
            Template::class(CKO_SECRET_KEY).ulong(CKA_KEY_TYPE, CKK_AES).and(&open).bool(CKA_EXTRACTABLE, true);
        let unwrapped = session.unwrap(&kwp, wrapping, &wrapped, &template).expect("C_UnwrapKey");
        assert_unreadable(&session, "unwrapped", unwrapped, CKA_VALUE);
    });
}

#[test]
fn plaintext_import_takes_keys_and_reveals_none() {
    isolated!(|| {
        let token = TestToken::with(&Config::plaintext("import"));
        let session = token.user();
        let value: Vec<u8> = (0..32).collect();
        for on_token in [false, true] {
            let key = session
                .create(&secret_template(&value).bool(CKA_TOKEN, on_token).bool(CKA_SENSITIVE, false))
                .expect("import");
            aes_known_answer(&session, key);
            assert!(session.get_bool(key, CKA_SENSITIVE).expect("CKA_SENSITIVE"));
            assert_unreadable(&session, "imported", key, CKA_VALUE);
            let private = session.create(&ec_private_template(&value).bool(CKA_TOKEN, on_token)).expect("import");
            assert_unreadable(&session, "imported", private, CKA_VALUE);
            assert_eq!(session.sign(&Mechanism::new(CKM_ECDSA), private, &value).expect("C_Sign").len(), 64);
        }
        for (wrong, what) in
            [(&[0u8; 32][..], "zero"), (&[0xff; 32], "above the order"), (&[1; 33], "too long"), (&[], "empty")]
        {
            let answer = session.create(&ec_private_template(wrong));
            assert_rv!(answer, CKR_ATTRIBUTE_VALUE_INVALID | CKR_TEMPLATE_INCONSISTENT | CKR_KEY_SIZE_RANGE, "{what}");
        }
        let odd = session.create(&secret_template(&[1; 17]));
        assert_rv!(odd, CKR_ATTRIBUTE_VALUE_INVALID | CKR_TEMPLATE_INCONSISTENT | CKR_KEY_SIZE_RANGE);
    });
}

#[test]
fn plaintext_compat_reveals_what_the_template_opens() {
    isolated!(|| {
        let token = TestToken::with(&Config::plaintext("compat"));
        let session = token.user();
        let value: Vec<u8> = (0..32).collect();
        let open = session
            .create(&secret_template(&value).bool(CKA_SENSITIVE, false).bool(CKA_TOKEN, true))
            .expect("open key");
        assert_eq!(session.get(open, CKA_VALUE).expect("CKA_VALUE"), value);
        aes_known_answer(&session, open);
        let closed = session.create(&secret_template(&value).bool(CKA_SENSITIVE, true)).expect("sensitive key");
        assert_unreadable(&session, "sensitive", closed, CKA_VALUE);
        let kept = Template::new().bool(CKA_EXTRACTABLE, false).bool(CKA_SENSITIVE, false);
        let kept = session.create(&secret_template(&value).and(&kept)).expect("a key that cannot be extracted");
        assert_unreadable(&session, "not extractable", kept, CKA_VALUE);
    });
}
