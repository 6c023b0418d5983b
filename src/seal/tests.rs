#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions)]
//! Tests of the whole hierarchy: round trips, every flipped bit, damage told from a wrong password.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::header::{BlobKind, Header};
use super::reader::Reader;
use super::*;
use crate::error::{Kind, Result};
use crate::kms::{Context, Description, KmsProvider, LocalKms, MasterKeyId, Wrapped};
use crate::secret::{SecureBytes, SecurePrivateKey};

mod vectors;

const SERIAL: [u8; 16] = *b"0123456789ABCDEF";
const USER: EnvelopeId<'static> = EnvelopeId { token: SERIAL, label: "wallet", role: Role::User };
const OBJECT: ObjectId = ObjectId { token: SERIAL, uid: *b"an object's uid.", revision: 1 };
/// The share of docs/format.md, 14.2.
pub(super) const SHARE_TEXT: &str =
    "srshare1qxs2rg4r5jj6dfcrqgqqzqsrqszsvpcgpy9qkrqdpc83qygjzv2p29shrqv35xcur50p7cuyy2k";
const ATTRIBUTES: &[u8] = b"stands for encoded attributes; this layer does not look into them";

/// Cheap enough for a loop; the cost changes nothing else.
fn cheap() -> Argon2Params {
    Argon2Params::new(1024, 1, 1).unwrap()
}

fn sealer() -> Sealer {
    Sealer::new(Arc::new(LocalKms::ephemeral().unwrap()), cheap())
}

/// Seals a token key under an outer key of its own.
fn seal(sealer: &Sealer, id: &EnvelopeId<'_>, password: &str, key: &TokenKey) -> Vec<u8> {
    sealer.seal_token_key(id, &text(password), key, &sealer.make_outer(&id.token).unwrap()).unwrap()
}

fn text(text: &str) -> SecureBytes {
    SecureBytes::copy_from(text.as_bytes())
}

fn flip(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}

fn kind<T>(result: Result<T>) -> Kind {
    match result {
        Ok(_) => panic!("must fail"),
        Err(error) => error.kind(),
    }
}

fn secret_key() -> SecurePrivateKey {
    SecurePrivateKey::new(SecureBytes::copy_from(&[0x5A; 32]))
}

// -- Envelopes

#[test]
fn an_envelope_opens_with_its_password() {
    let (sealer, key) = (sealer(), TokenKey::generate().unwrap());
    for role in [Role::So, Role::User] {
        for password in ["correct horse", "", "p\0in", &"x".repeat(4096)] {
            let id = EnvelopeId { role, ..USER };
            let envelope = seal(&sealer, &id, password, &key);
            let opened = sealer.open_token_key(&id, &text(password), &envelope).unwrap();
            assert_eq!(opened.expose(), key.expose());
            assert!(envelope.windows(8).all(|window| key.expose().windows(8).all(|secret| secret != window)));
        }
    }
}

#[test]
fn a_wrong_password_is_told_from_damage() {
    let (sealer, key) = (sealer(), TokenKey::generate().unwrap());
    let envelope = seal(&sealer, &USER, "correct horse", &key);
    for password in ["Correct horse", "correct horse ", "correct hors", ""] {
        assert_eq!(kind(sealer.open_token_key(&USER, &text(password), &envelope)), Kind::PinIncorrect);
    }
    // Every flipped bit and every cut is damage, even with the right password.
    for bit in 0..envelope.len() * 8 {
        let result = sealer.open_token_key(&USER, &text("correct horse"), &flip(&envelope, bit));
        assert_eq!(kind(result), Kind::DeviceError, "bit {bit}");
    }
    for len in 0..envelope.len() {
        assert_eq!(kind(sealer.open_token_key(&USER, &text("correct horse"), &envelope[..len])), Kind::DeviceError);
    }
    let longer = [&envelope[..], &[0]].concat();
    assert_eq!(kind(sealer.open_token_key(&USER, &text("correct horse"), &longer)), Kind::DeviceError);
}

#[test]
fn an_envelope_belongs_to_one_token_label_and_role() {
    let (sealer, key) = (sealer(), TokenKey::generate().unwrap());
    let envelope = seal(&sealer, &USER, "pin", &key);
    for id in [
        EnvelopeId { token: *b"0123456789ABCDEE", ..USER },
        EnvelopeId { label: "wallet2", ..USER },
        EnvelopeId { label: "", ..USER },
        EnvelopeId { role: Role::So, ..USER },
    ] {
        assert_eq!(kind(sealer.open_token_key(&id, &text("pin"), &envelope)), Kind::DeviceError);
    }
}

/// A KMS without keys: what it wraps stays readable, and it checks nothing. It shows what the envelope itself detects.
struct Transparent {
    unwrapped: AtomicUsize,
}

impl KmsProvider for Transparent {
    fn kind(&self) -> &'static str {
        "transparent"
    }

    fn wrap_key(&self, secret: &SecureBytes, _: &Context<'_>) -> Result<Wrapped> {
        let master_key = MasterKeyId { key: "none".into(), version: 7 };
        Ok(Wrapped { master_key, blob: secret.expose().to_vec() })
    }

    fn unwrap_key(&self, wrapped: &Wrapped, _: &Context<'_>) -> Result<SecureBytes> {
        self.unwrapped.fetch_add(1, Ordering::Relaxed);
        Ok(SecureBytes::copy_from(&wrapped.blob))
    }

    fn rotate_master_key(&self) -> Result<MasterKeyId> {
        Err(Kind::FunctionNotSupported.into())
    }

    fn describe(&self) -> Result<Description> {
        Err(Kind::FunctionNotSupported.into())
    }
}

#[test]
fn the_clear_part_is_authenticated_whatever_the_provider_checks() {
    let sealer = Sealer::new(Arc::new(Transparent { unwrapped: AtomicUsize::new(0) }), cheap());
    let envelope = seal(&sealer, &USER, "pin", &TokenKey::generate().unwrap());
    for bit in 0..envelope.len() * 8 {
        // The KMS key's name (13..17) and version (7..11) are the provider's to check.
        if (7..11).contains(&(bit / 8)) || (13..17).contains(&(bit / 8)) {
            continue;
        }
        let result = sealer.open_token_key(&USER, &text("pin"), &flip(&envelope, bit));
        assert_eq!(kind(result), Kind::DeviceError, "bit {bit}");
    }
    for id in [
        EnvelopeId { token: *b"0123456789ABCDEE", ..USER },
        EnvelopeId { label: "wallet2", ..USER },
        EnvelopeId { role: Role::So, ..USER },
    ] {
        assert_eq!(kind(sealer.open_token_key(&id, &text("pin"), &envelope)), Kind::DeviceError);
    }
}

#[test]
fn altered_argon2_parameters_are_refused_before_they_cost_anything() {
    let provider = Arc::new(Transparent { unwrapped: AtomicUsize::new(0) });
    let sealer = Sealer::new(provider.clone(), cheap());
    let envelope = seal(&sealer, &USER, "pin", &TokenKey::generate().unwrap());
    let at = envelope.windows(4).position(|window| window == 1024_u32.to_be_bytes()).unwrap();
    let with = |offset: usize, value: u32| {
        let mut altered = envelope.clone();
        altered[at + offset..at + offset + 4].copy_from_slice(&value.to_be_bytes());
        altered
    };
    // Out of bounds: not even the KMS is asked.
    for (offset, value) in [(0, u32::MAX), (0, 0), (4, u32::MAX), (4, 0), (8, u32::MAX), (8, 0)] {
        let Err(error) = sealer.open_token_key(&USER, &text("pin"), &with(offset, value)) else { panic!("must fail") };
        assert_eq!(error.kind(), Kind::DeviceError);
        assert!(error.message().contains("Argon2id"), "{error}");
    }
    assert_eq!(provider.unwrapped.load(Ordering::Relaxed), 0);
    // Within bounds, and it would take minutes and 4 GiB: the digest finds it first.
    let start = Instant::now();
    for altered in [with(0, Argon2Params::MAX_MEMORY_KIB), with(4, Argon2Params::MAX_PASSES)] {
        assert_eq!(kind(sealer.open_token_key(&USER, &text("pin"), &altered)), Kind::DeviceError);
    }
    assert!(start.elapsed().as_secs() < 2, "Argon2id ran with altered parameters");
}

#[test]
fn r21_without_the_kms_key_no_password_can_be_tried() {
    let (sealer, thief) = (sealer(), sealer());
    let key = TokenKey::generate().unwrap();
    let envelope = seal(&sealer, &USER, "right", &key);
    // The outer layer fails without a password being involved at all, and so alike for a right and a wrong one.
    assert_eq!(kind(thief.open_outer(&SERIAL, &envelope).map(|_| ())), Kind::DeviceError);
    let message = |password| thief.open_token_key(&USER, &text(password), &envelope).map(|_| ()).unwrap_err().message();
    assert_eq!(message("right"), message("wrong"));
    // Argon2id with the right password and the salt in clear gives a key that opens nothing of what is stored.
    let clear = envelope.len() - (12 + 48 + 16) - (4 + 38 + 12 + 32 + 16) - 12 - 32;
    let salt: [u8; 32] = envelope[clear..clear + 32].try_into().unwrap();
    let nonce: [u8; 12] = envelope[clear + 32..clear + 44].try_into().unwrap();
    let master = cheap().derive(&text("right"), &salt).unwrap();
    let outer = sealer.open_outer(&SERIAL, &envelope).unwrap();
    let inner = sealer.open_inner(&USER, &envelope, &outer).unwrap();
    let mut out = [0; 32];
    let mut opens = |window: &[u8]| {
        let (sealed, tag) = window.split_at(32);
        aead::open(master.expose(), &nonce, &inner.bound, sealed, tag.try_into().unwrap(), &mut out).is_ok()
    };
    assert!(opens(&[inner.sealed.expose(), &inner.tag].concat()), "the check below must be able to fail");
    assert!(!envelope.windows(48).any(opens));
}

#[test]
fn another_kind_of_provider_is_named() {
    let (local, key) = (sealer(), TokenKey::generate().unwrap());
    let envelope = seal(&local, &USER, "pin", &key);
    let other = Sealer::new(Arc::new(Transparent { unwrapped: AtomicUsize::new(0) }), cheap());
    let Err(error) = other.open_token_key(&USER, &text("pin"), &envelope) else { panic!("must fail") };
    assert_eq!(error.kind(), Kind::DeviceError);
    assert!(error.message().contains("`local`") && error.message().contains("`transparent`"), "{error}");
}

#[test]
fn an_outer_key_is_wrapped_again_without_the_password() {
    let (old, key) = (sealer(), TokenKey::generate().unwrap());
    let outer = old.make_outer(&SERIAL).unwrap();
    let so = EnvelopeId { role: Role::So, ..USER };
    let before = [(USER, "pin"), (so, "so pin")]
        .map(|(id, pin)| (id, pin, old.seal_token_key(&id, &text(pin), &key, &outer).unwrap()));
    let new_kms = LocalKms::new();
    new_kms.add_master_key("another", SecureBytes::copy_from(&[7; 32])).unwrap();
    let new = Sealer::new(Arc::new(new_kms), cheap());
    let moved = old.rewrap(&SERIAL, &outer, new.provider().as_ref()).unwrap();
    assert_ne!(moved.master_key(), outer.master_key());
    for (id, pin, envelope) in before {
        let envelope = old.replace_outer(&id, &envelope, &moved).unwrap();
        assert_eq!(new.open_token_key(&id, &text(pin), &envelope).unwrap().expose(), key.expose());
        assert_eq!(kind(new.open_token_key(&id, &text("wrong"), &envelope)), Kind::PinIncorrect);
        assert_eq!(kind(old.open_token_key(&id, &text(pin), &envelope)), Kind::DeviceError);
        let named = [("new".to_owned(), new.provider().clone())].into_iter().collect();
        let both = old.clone().with_providers(Arc::new(named));
        assert_eq!(both.open_token_key(&id, &text(pin), &envelope).unwrap().expose(), key.expose());
    }
    let foreign = old.make_outer(&SERIAL).unwrap();
    let envelope = seal(&old, &USER, "pin", &key);
    assert_eq!(kind(old.replace_outer(&USER, &envelope, &foreign)), Kind::DeviceError);
}

#[test]
fn the_machine_opens_its_envelope_without_a_password_and_nobody_elses() {
    let (sealer, key) = (sealer(), TokenKey::generate().unwrap());
    let machine = EnvelopeId { role: Role::Machine, ..USER };
    let envelope = seal(&sealer, &machine, "", &key);
    assert_eq!(sealer.open_token_key(&machine, &text(""), &envelope).unwrap().expose(), key.expose());
    assert_eq!(kind(sealer.open_token_key(&USER, &text(""), &envelope)), Kind::DeviceError);
    let user = seal(&sealer, &USER, "", &key);
    assert_eq!(kind(sealer.open_token_key(&machine, &text(""), &user)), Kind::DeviceError);
}

#[test]
fn needs_upgrade_compares_with_the_configured_cost() {
    let kms = Arc::new(LocalKms::ephemeral().unwrap());
    let old = Sealer::new(kms.clone(), cheap());
    let new = Sealer::new(kms, Argon2Params::new(2048, 1, 1).unwrap());
    let envelope = seal(&old, &USER, "pin", &TokenKey::generate().unwrap());
    assert!(!old.needs_upgrade(&envelope).unwrap());
    assert!(new.needs_upgrade(&envelope).unwrap());
    let costly = seal(&new, &USER, "pin", &TokenKey::generate().unwrap());
    assert!(!old.needs_upgrade(&costly).unwrap(), "a login never lowers the cost");
    assert!(new.open_token_key(&USER, &text("pin"), &envelope).is_ok(), "an old envelope opens with its own cost");
    assert_eq!(kind(new.needs_upgrade(b"rubbish")), Kind::DeviceError);
}

#[test]
fn an_upgrade_never_lowers_the_cost() {
    let kms = Arc::new(LocalKms::ephemeral().unwrap());
    let sealer = |memory, passes, lanes| Sealer::new(kms.clone(), Argon2Params::new(memory, passes, lanes).unwrap());
    let envelope = seal(&sealer(2048, 2, 2), &USER, "pin", &TokenKey::generate().unwrap());
    let needed = |cost: (u32, u32, u32)| sealer(cost.0, cost.1, cost.2).needs_upgrade(&envelope).unwrap();
    for more in [(2049, 2, 2), (2048, 3, 2), (4096, 3, 1)] {
        assert!(needed(more), "{more:?}");
    }
    for less in [(2048, 2, 2), (2048, 2, 4), (2048, 2, 1), (1024, 2, 2), (2048, 1, 2), (4096, 1, 2), (1024, 3, 2)] {
        assert!(!needed(less), "{less:?}");
    }
}

// -- Headers

#[test]
fn unknown_headers_are_named() {
    let key = TokenKey::generate().unwrap();
    let blob = seal_attributes(&key, &OBJECT, true, ATTRIBUTES).unwrap();
    for (offset, value, words) in [
        (0, b'X', "magic 58525342"),
        (4, 9, "format version 9"),
        (5, 77, "blob kind 77"),
        (6, 9, "algorithm 9"),
        (10, 2, "version 2"),
    ] {
        let mut altered = blob.clone();
        altered[offset] = value;
        let Err(error) = open_attributes(Some(&key), &OBJECT, &altered) else { panic!("must fail") };
        assert_eq!(error.kind(), Kind::DeviceError);
        assert!(error.message().contains(words), "{error}");
    }
}

#[test]
fn a_header_reads_back() {
    for (kind, key_id) in
        [(BlobKind::Envelope, &b"a key"[..]), (BlobKind::Secret, b""), (BlobKind::Envelope, &[7; 65535])]
    {
        let header = Header { kind, key_version: 70_000, key_id };
        let bytes = header.encode().unwrap();
        let mut reader = Reader::new(&bytes, "test");
        assert_eq!(Header::parse(&mut reader).unwrap(), header);
        reader.finish().unwrap();
    }
    let too_long = Header { kind: BlobKind::Envelope, key_version: 1, key_id: &[7; 65536] };
    assert_eq!(kind(too_long.encode()), Kind::ArgumentsBad);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(0_u8.., 0..200), start in 1..5_usize) {
        let kinds = [BlobKind::Envelope, BlobKind::PrivateAttributes, BlobKind::PublicAttributes, BlobKind::Secret];
        let bytes = [&kinds[start - 1].start()[..], &bytes].concat();
        let key = TokenKey::generate().unwrap();
        let sealer = Sealer::new(Arc::new(LocalKms::new()), cheap());
        assert!(sealer.open_token_key(&USER, &text("pin"), &bytes).is_err());
        assert!(open_attributes(Some(&key), &OBJECT, &bytes).is_err());
        assert!(open_attributes(None, &OBJECT, &bytes).is_err());
        assert!(open_secret(&key, &OBJECT, ATTRIBUTES, &bytes).is_err());
    }
}

// -- Objects

#[test]
fn attributes_read_back() {
    let key = TokenKey::generate().unwrap();
    for private in [false, true] {
        for encoded in [b"".as_slice(), ATTRIBUTES, &[9; 10_000]] {
            let blob = seal_attributes(&key, &OBJECT, private, encoded).unwrap();
            assert_eq!(is_private(&blob).unwrap(), private);
            let opened = open_attributes(Some(&key), &OBJECT, &blob).unwrap();
            assert_eq!((opened.private, opened.verified, &opened.encoded[..]), (private, true, encoded));
        }
    }
}

#[test]
fn private_attributes_need_the_key_and_show_nothing_without_it() {
    let key = TokenKey::generate().unwrap();
    let blob = seal_attributes(&key, &OBJECT, true, ATTRIBUTES).unwrap();
    assert_eq!(kind(open_attributes(None, &OBJECT, &blob)), Kind::UserNotLoggedIn);
    assert!(blob.windows(6).all(|window| ATTRIBUTES.windows(6).all(|clear| clear != window)));
}

#[test]
fn public_attributes_open_without_the_key_unverified() {
    let key = TokenKey::generate().unwrap();
    let blob = seal_attributes(&key, &OBJECT, false, ATTRIBUTES).unwrap();
    let opened = open_attributes(None, &OBJECT, &blob).unwrap();
    assert_eq!((opened.private, opened.verified, &opened.encoded[..]), (false, false, ATTRIBUTES));
}

#[test]
fn every_flipped_bit_and_every_cut_of_attributes_is_found() {
    let key = TokenKey::generate().unwrap();
    for private in [false, true] {
        let blob = seal_attributes(&key, &OBJECT, private, ATTRIBUTES).unwrap();
        let keys = if private { vec![Some(&key)] } else { vec![Some(&key), None] };
        for key in keys {
            for bit in 0..blob.len() * 8 {
                assert_eq!(kind(open_attributes(key, &OBJECT, &flip(&blob, bit))), Kind::DeviceError, "bit {bit}");
            }
            for len in 0..blob.len() {
                assert_eq!(kind(open_attributes(key, &OBJECT, &blob[..len])), Kind::DeviceError, "length {len}");
            }
        }
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_secret_is_found() {
    let key = TokenKey::generate().unwrap();
    let blob = seal_secret(&key, &OBJECT, ATTRIBUTES, &secret_key()).unwrap();
    assert_eq!(open_secret(&key, &OBJECT, ATTRIBUTES, &blob).unwrap(), secret_key());
    assert!(blob.windows(8).all(|window| *window != [0x5A; 8]));
    for bit in 0..blob.len() * 8 {
        assert_eq!(kind(open_secret(&key, &OBJECT, ATTRIBUTES, &flip(&blob, bit))), Kind::DeviceError, "bit {bit}");
    }
    for len in 0..blob.len() {
        assert_eq!(kind(open_secret(&key, &OBJECT, ATTRIBUTES, &blob[..len])), Kind::DeviceError);
    }
}

#[test]
fn r17_a_flipped_attribute_makes_the_secret_unusable() {
    let key = TokenKey::generate().unwrap();
    let blob = seal_secret(&key, &OBJECT, ATTRIBUTES, &secret_key()).unwrap();
    for bit in 0..ATTRIBUTES.len() * 8 {
        assert_eq!(kind(open_secret(&key, &OBJECT, &flip(ATTRIBUTES, bit), &blob)), Kind::DeviceError);
    }
}

#[test]
fn nothing_opens_as_another_object_revision_token_or_purpose() {
    let (key, other_key) = (TokenKey::generate().unwrap(), TokenKey::generate().unwrap());
    let others = [
        ObjectId { token: *b"0123456789ABCDEE", ..OBJECT },
        ObjectId { uid: *b"another uid.....", ..OBJECT },
        ObjectId { revision: 2, ..OBJECT },
        ObjectId { revision: 0, ..OBJECT },
    ];
    let public = seal_attributes(&key, &OBJECT, false, ATTRIBUTES).unwrap();
    let private = seal_attributes(&key, &OBJECT, true, ATTRIBUTES).unwrap();
    let secret = seal_secret(&key, &OBJECT, ATTRIBUTES, &secret_key()).unwrap();
    for id in others {
        assert_eq!(kind(open_attributes(Some(&key), &id, &private)), Kind::DeviceError);
        assert_eq!(kind(open_attributes(Some(&key), &id, &public)), Kind::DeviceError);
        assert_eq!(kind(open_attributes(None, &id, &public)), Kind::DeviceError);
        assert_eq!(kind(open_secret(&key, &id, ATTRIBUTES, &secret)), Kind::DeviceError);
    }
    for blob in [&private, &public] {
        assert_eq!(kind(open_attributes(Some(&other_key), &OBJECT, blob)), Kind::DeviceError);
        assert_eq!(kind(open_secret(&key, &OBJECT, ATTRIBUTES, blob)), Kind::DeviceError);
    }
    assert_eq!(kind(open_secret(&other_key, &OBJECT, ATTRIBUTES, &secret)), Kind::DeviceError);
    assert_eq!(kind(open_attributes(Some(&key), &OBJECT, &secret)), Kind::DeviceError);
    assert_eq!(kind(is_private(&secret)), Kind::DeviceError);
}

#[test]
fn a_checksum_that_an_attacker_made_is_found_by_the_tag() {
    // Attributes, header and checksum of a forger who has no token key, and copies the id of it from another blob.
    let (key, forger) = (TokenKey::generate().unwrap(), TokenKey::generate().unwrap());
    let honest = seal_attributes(&key, &OBJECT, false, ATTRIBUTES).unwrap();
    let mut forged = honest[..21].to_vec();
    forged.extend_from_slice(&honest[21..49]);
    let altered = flip(ATTRIBUTES, 3);
    let data = [&honest[..21], &SERIAL, &OBJECT.uid, &1_u64.to_be_bytes(), &sha256(&[&altered])].concat();
    forged.extend_from_slice(&sha256(&[b"strongroom public attributes v1", &data, &honest[21..49]]));
    forged.extend_from_slice(&altered);
    let before = open_attributes(None, &OBJECT, &forged).unwrap();
    assert!(!before.verified, "before login a forged checksum passes, and says so");
    assert_eq!(kind(open_attributes(Some(&key), &OBJECT, &forged)), Kind::DeviceError);
    assert_eq!(kind(open_attributes(Some(&forger), &OBJECT, &forged)), Kind::DeviceError);
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(parts.concat()).into()
}

#[test]
fn a_revision_past_the_nonce_bound_is_refused() {
    let key = TokenKey::generate().unwrap();
    let last = ObjectId { revision: u64::from(u32::MAX), ..OBJECT };
    let past = ObjectId { revision: u64::from(u32::MAX) + 1, ..OBJECT };
    for private in [false, true] {
        assert!(seal_attributes(&key, &last, private, ATTRIBUTES).is_ok());
        assert_eq!(kind(seal_attributes(&key, &past, private, ATTRIBUTES)), Kind::TokenResourceExceeded);
    }
    assert!(seal_secret(&key, &last, ATTRIBUTES, &secret_key()).is_ok());
    assert_eq!(kind(seal_secret(&key, &past, ATTRIBUTES, &secret_key())), Kind::TokenResourceExceeded);
}

#[test]
fn two_seals_of_the_same_differ() {
    let key = TokenKey::generate().unwrap();
    for private in [false, true] {
        let seal = || seal_attributes(&key, &OBJECT, private, ATTRIBUTES).unwrap();
        assert_ne!(seal(), seal());
    }
}

#[test]
fn r40_nothing_shows_a_key_in_debug() {
    let key = TokenKey::from_bytes(SecureBytes::copy_from(b"canary-canary-canary-canary-32by")).unwrap();
    let text = format!("{key:?}");
    assert!(!text.contains("canary") && !text.contains("99, 97"), "{text}");
}

// -- Index

#[test]
fn index_digests_depend_on_key_field_and_value() {
    let (key, other) = (TokenKey::generate().unwrap(), TokenKey::generate().unwrap());
    let digest = key.index_digest(3, b"label");
    assert_eq!(digest, key.index_digest(3, b"label"));
    for different in [key.index_digest(4, b"label"), key.index_digest(3, b"Label"), other.index_digest(3, b"label")] {
        assert_ne!(digest, different);
    }
    let public = public_index_digest(&SERIAL, 3, b"label");
    assert_ne!(public, digest);
    assert_ne!(public, public_index_digest(b"0123456789ABCDEE", 3, b"label"));
    assert_ne!(public, public_index_digest(&SERIAL, 4, b"label"));
    assert_ne!(public, public_index_digest(&SERIAL, 3, b"labe"));
}

#[test]
fn each_index_field_has_one_number() {
    for (number, attribute) in INDEX_FIELDS {
        assert_eq!(index_field(attribute), Some(number));
        assert_eq!(INDEX_FIELDS.iter().filter(|row| row.0 == number || row.1 == attribute).count(), 1);
    }
    assert_eq!(index_field(crate::ck::CKA_VALUE), None);
}

// -- Speed

/// Runs `work` for a while and tells the time of one run, the best of several rounds.
fn time(mut work: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        (0..5_000).for_each(|_| work());
        best = best.min(start.elapsed().as_secs_f64() / 5_000.0);
    }
    best * 1e6
}

#[test]
#[ignore = "measures; run with --ignored --nocapture"]
#[allow(clippy::print_stdout)]
fn speed() {
    let key = TokenKey::generate().unwrap();
    let attributes = [7; 500];
    for private in [true, false] {
        let blob = seal_attributes(&key, &OBJECT, private, &attributes).unwrap();
        let seal = time(|| drop(seal_attributes(&key, &OBJECT, private, &attributes).unwrap()));
        let open = time(|| drop(open_attributes(Some(&key), &OBJECT, &blob).unwrap()));
        println!("attributes of 500 bytes, private {private}: seal {seal:.2} µs, open {open:.2} µs");
    }
    let blob = seal_secret(&key, &OBJECT, &attributes, &secret_key()).unwrap();
    let seal = time(|| drop(seal_secret(&key, &OBJECT, &attributes, &secret_key()).unwrap()));
    let open = time(|| drop(open_secret(&key, &OBJECT, &attributes, &blob).unwrap()));
    let index = time(|| _ = std::hint::black_box(key.index_digest(3, b"a label")));
    let public = time(|| _ = std::hint::black_box(public_index_digest(&SERIAL, 3, b"a label")));
    println!("secret: seal {seal:.2} µs, open {open:.2} µs; index {index:.2} µs, public index {public:.2} µs");
    let (sealer, pin) = (Sealer::new(Arc::new(LocalKms::ephemeral().unwrap()), Argon2Params::default()), text("pin"));
    let envelope = sealer.seal_token_key(&USER, &pin, &key, &sealer.make_outer(&SERIAL).unwrap()).unwrap();
    let mut times: Vec<_> = (0..5)
        .map(|_| {
            let start = Instant::now();
            sealer.open_token_key(&USER, &pin, &envelope).unwrap();
            start.elapsed().as_millis()
        })
        .collect();
    times.sort_unstable();
    println!("open_token_key at the default cost: {times:?} ms");
}

#[test]
fn an_envelope_for_the_other_pin_source_is_told_from_damage() {
    let (sealer, key) = (sealer(), TokenKey::generate().unwrap());
    let machine = EnvelopeId { role: Role::Machine, ..USER };
    for (made, opened, word) in [(machine, USER, "write pin_source"), (USER, machine, "take pin_source")] {
        let envelope = seal(&sealer, &made, "", &key);
        let outer = sealer.open_outer(&SERIAL, &envelope).unwrap();
        let told = |id: &EnvelopeId<'_>, envelope: &[u8]| sealer.open_inner(id, envelope, &outer).err().unwrap();
        let error = told(&opened, &envelope);
        assert!(error.kind() == Kind::DeviceError && error.message().contains(word), "{error}");
        let mut altered = envelope.clone();
        *altered.last_mut().unwrap() ^= 1;
        for damaged in [told(&opened, &altered), told(&EnvelopeId { role: Role::So, ..USER }, &envelope)] {
            assert!(!damaged.message().contains("pin_source"), "{damaged}");
        }
    }
}

// -- Recovery envelopes

const RECOVERY: RecoveryId<'static> = RecoveryId { token: SERIAL, name: "safe" };

/// What opens an envelope in a test.
type Open<'o> = Box<dyn Fn(&RecoveryId<'_>, &[u8]) -> Result<TokenKey> + 'o>;

/// An envelope of each means, and what opens it.
fn recovery_envelopes<'o>(sealer: &'o Sealer, key: &TokenKey) -> Vec<(Vec<u8>, Open<'o>)> {
    let by_password = sealer.seal_by_password(&RECOVERY, &text("a recovery password"), key).unwrap();
    let by_kms = sealer.seal_by_kms(&RECOVERY, sealer.provider().as_ref(), key).unwrap();
    let (by_shares, mut shares) = seal_by_shares(&RECOVERY, key, 2, 3).unwrap();
    shares.remove(1);
    vec![
        (by_password, Box::new(|id, envelope| sealer.open_by_password(id, &text("a recovery password"), envelope))),
        (by_kms, Box::new(|id, envelope| sealer.open_by_kms(id, envelope))),
        (by_shares, Box::new(move |id, envelope| open_by_shares(id, &shares, envelope))),
    ]
}

#[test]
fn a_recovery_envelope_opens_by_itself_and_only_as_what_it_is() {
    let (sealer, key) = (sealer(), TokenKey::generate().unwrap());
    for (envelope, open) in recovery_envelopes(&sealer, &key) {
        assert_eq!(open(&RECOVERY, &envelope).unwrap().expose(), key.expose());
        let other_token = RecoveryId { token: *b"0123456789ABCDEE", ..RECOVERY };
        for other in [other_token, RecoveryId { name: "sage", ..RECOVERY }] {
            assert!(open(&other, &envelope).is_err());
        }
        assert!(envelope.windows(16).all(|part| !key.expose().windows(16).any(|secret| secret == part)));
    }
}

#[test]
fn each_flipped_bit_and_each_cut_of_a_recovery_envelope_is_found() {
    let (sealer, key) = (sealer(), TokenKey::generate().unwrap());
    for (envelope, open) in recovery_envelopes(&sealer, &key) {
        let is_password = recovery_means(&envelope).unwrap() == Means::Password;
        for end in 0..envelope.len() {
            assert!(recovery_means(&envelope[..end]).is_err(), "cut at {end}");
        }
        assert!(recovery_means(&[&envelope[..], &[0]].concat()).is_err());
        // Each try of a password takes its time, and the memory of Argon2id is not tried with sizes that flipped bits make.
        let bits = (0..envelope.len() * 8).filter(|bit| !is_password || bit % 24 == 0 && !(112..208).contains(bit));
        for bit in bits {
            assert!(open(&RECOVERY, &flip(&envelope, bit)).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn wrong_secrets_of_a_recovery_are_told_from_damage() {
    let (sealer, key) = (sealer(), TokenKey::generate().unwrap());
    let envelopes = recovery_envelopes(&sealer, &key);
    let wrong = sealer.open_by_password(&RECOVERY, &text("another recovery password"), &envelopes[0].0);
    assert_eq!(kind(wrong), Kind::PinIncorrect);
    let (envelope, mut shares) = seal_by_shares(&RECOVERY, &key, 3, 5).unwrap();
    let (other_envelope, others) = seal_by_shares(&RECOVERY, &key, 3, 5).unwrap();
    let two = open_by_shares(&RECOVERY, &shares[..2], &envelope).unwrap_err();
    assert!(two.kind() == Kind::ArgumentsBad && two.message().contains("3 of set"), "{two}");
    let strange = open_by_shares(&RECOVERY, &others, &envelope).unwrap_err();
    assert!(strange.kind() == Kind::ArgumentsBad && strange.message().contains("another set"), "{strange}");
    assert!(open_by_shares(&RECOVERY, &others, &other_envelope).is_ok());
    // One that was altered but keeps its set.
    shares[1].value = SecureBytes::copy_from(&[9; 32]);
    assert_eq!(kind(open_by_shares(&RECOVERY, &shares[..3], &envelope)), Kind::PinIncorrect);
    assert!(open_by_shares(&RECOVERY, &shares[2..], &envelope).is_ok());
    let means = recovery_means(&envelope).unwrap();
    assert!(matches!(means, Means::Shares { threshold: 3, count: 5, .. }), "{means:?}");
}

#[test]
fn a_recovery_password_never_costs_less_than_the_default() {
    let envelope = sealer().seal_by_password(&RECOVERY, &text("x"), &TokenKey::generate().unwrap()).unwrap();
    // Behind the header of 13 bytes and the means: 64 MiB, 3 passes, 4 lanes.
    assert_eq!(envelope[14..26], [0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4]);
}

#[test]
fn an_altered_recovery_envelope_does_not_decide_what_its_opening_costs() {
    let sealer = sealer();
    let envelope = sealer.seal_by_password(&RECOVERY, &text("x"), &TokenKey::generate().unwrap()).unwrap();
    let asking = |memory_kib: u32, passes: u32| {
        let mut envelope = envelope.clone();
        envelope[14..18].copy_from_slice(&memory_kib.to_be_bytes());
        envelope[18..22].copy_from_slice(&passes.to_be_bytes());
        envelope
    };
    for (memory_kib, passes) in [(1024 * 1024 + 1, 1), (4 * 1024 * 1024, 64), (1024, 17)] {
        let error = sealer.open_by_password(&RECOVERY, &text("x"), &asking(memory_kib, passes)).unwrap_err();
        assert!(error.kind() == Kind::DeviceError && error.message().contains("[argon2]"), "{error}");
    }
    assert_eq!(kind(sealer.open_by_password(&RECOVERY, &text("x"), &asking(1024, 16))), Kind::PinIncorrect);
    // Who has configured as much takes as much.
    let own = Sealer::new(sealer.provider().clone(), Argon2Params::new(1024, 17, 1).unwrap());
    assert_eq!(kind(own.open_by_password(&RECOVERY, &text("x"), &asking(1024, 17))), Kind::PinIncorrect);
}

// -- Backups

#[test]
fn the_mac_of_a_backup_has_a_key_of_its_own() {
    let key = TokenKey::from_bytes(SecureBytes::copy_from(&(0..32).collect::<Vec<u8>>())).unwrap();
    let mac = |key: &TokenKey, parts: &[&[u8]]| {
        let mut mac = BackupMac::new(key);
        parts.iter().for_each(|part| mac.update(part));
        mac.finish()
    };
    let whole = mac(&key, &[b"a document"]);
    assert_eq!(whole, mac(&key, &[b"a doc", b"ument"]));
    assert_ne!(whole, mac(&key, &[b"a documenu"]));
    assert_ne!(whole, mac(&TokenKey::generate().unwrap(), &[b"a document"]));
    let started = |bytes| {
        let mut mac = BackupMac::new(&key);
        mac.update(bytes);
        mac
    };
    assert!(started(b"a document".as_slice()).is(&whole) && !started(b"another").is(&whole));
    // docs/format.md, 4; computed with Python's hmac and hashlib.
    assert_eq!(
        data_encoding::HEXLOWER.encode(&key.backup_key()[..]),
        "e9b1102e95c36188dac9fd07b9b81d5639b543037ac9bf168389c73592010169"
    );
}

#[test]
fn an_outer_key_is_opened_by_the_own_provider_or_by_another() {
    let [own, other]: [Arc<dyn KmsProvider>; 2] =
        [Arc::new(LocalKms::ephemeral().unwrap()), Arc::new(LocalKms::ephemeral().unwrap())];
    let named = || Arc::new([("a".to_owned(), own.clone()), ("b".to_owned(), other.clone())].into());
    let of = |provider: &Arc<dyn KmsProvider>| Sealer::new(provider.clone(), cheap());
    let envelope = seal(&of(&other), &USER, "pin", &TokenKey::generate().unwrap());
    let at_home = of(&other).with_providers(named()).open_outer_from_elsewhere(&SERIAL, &envelope).unwrap();
    let abroad = of(&own).with_providers(named()).open_outer_from_elsewhere(&SERIAL, &envelope).unwrap();
    assert!(at_home.by_own && !abroad.by_own);
    assert!(of(&own).open_outer_from_elsewhere(&SERIAL, &envelope).is_err());
}
