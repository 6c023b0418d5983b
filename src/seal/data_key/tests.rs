#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::Argon2Params;
use super::*;
use crate::error::{Kind, KmsFault};
use crate::kms::{Description, KmsProvider, LocalKms};

const ID: DataKeyId = DataKeyId { token: *b"0123456789ABCDEF", uid: [0xA5; 16] };

/// Counts what is asked of a local KMS, and answers slowly where that is wanted.
struct Slow {
    inner: LocalKms,
    unwraps: AtomicUsize,
    pause: Duration,
}

impl KmsProvider for Slow {
    fn kind(&self) -> &'static str {
        "local"
    }

    fn wrap_key(&self, secret: &SecureBytes, context: &Context<'_>) -> Result<Wrapped> {
        self.inner.wrap_key(secret, context)
    }

    fn unwrap_key(&self, wrapped: &Wrapped, context: &Context<'_>) -> Result<SecureBytes> {
        self.unwraps.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(self.pause);
        self.inner.unwrap_key(wrapped, context)
    }

    fn rotate_master_key(&self) -> Result<MasterKeyId> {
        self.inner.rotate_master_key()
    }

    fn describe(&self) -> Result<Description> {
        self.inner.describe()
    }
}

fn slow(pause: Duration) -> (Arc<Slow>, Sealer) {
    let kms = Arc::new(Slow { inner: LocalKms::ephemeral().unwrap(), unwraps: AtomicUsize::new(0), pause });
    (kms.clone(), Sealer::new(kms, Argon2Params::LEAST))
}

fn sealer() -> Sealer {
    slow(Duration::ZERO).1
}

fn secret() -> SecurePrivateKey {
    SecurePrivateKey::new(SecureBytes::copy_from(b"CanaryKey:4Jx8u2MpQ7vZ1sLb9RtYc3"))
}

fn altered(bytes: &[u8]) -> SecurePrivateKey {
    SecurePrivateKey::new(SecureBytes::copy_from(bytes))
}

#[test]
fn a_secret_opens_with_its_kms_alone_and_for_its_object_alone() {
    let sealer = sealer();
    let key = sealer.make_object_key(ID).unwrap();
    let sealed = key.seal(&secret()).unwrap();
    assert!(sealed.expose().windows(8).all(|window| secret().expose().windows(8).all(|part| part != window)));
    assert!(DataKeys::default().open(&sealer, ID, &sealed).unwrap() == secret());
    assert!(sealer.open_object_key(ID, &sealed).unwrap().open(&sealed).unwrap() == secret());
    for other in [DataKeyId { uid: [0xA4; 16], ..ID }, DataKeyId { token: *b"0123456789ABCDEE", ..ID }] {
        let error = DataKeys::default().open(&sealer, other, &sealed).unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::WrongContext), "{error}");
        // Nor with the right key in hand: the seal itself names token and object.
        let (key, sealed) = (sealer.make_object_key(ID).unwrap(), &sealed);
        assert_eq!(key.open(sealed).unwrap_err().kind(), Kind::DeviceError);
        assert!(Sealed::parse(sealed.expose()).unwrap().open(&other, &key.key).unwrap().is_none());
    }
    // Another KMS does not open it, and the error names the key that is needed.
    let error = DataKeys::default().open(&super::tests::sealer(), ID, &sealed).unwrap_err();
    let by = data_key_of(&sealed).unwrap();
    assert_eq!(error.kms_fault(), Some(KmsFault::Tampered), "both are called ephemeral: {error}");
    assert!(error.message().contains(&by.master_key.key) && error.message().contains(&"a5".repeat(16)), "{error}");
}

#[test]
fn each_seal_has_a_nonce_of_its_own_and_each_object_a_key() {
    let sealer = sealer();
    let key = sealer.make_object_key(ID).unwrap();
    let (first, second) = (key.seal(&secret()).unwrap(), key.seal(&secret()).unwrap());
    let nonce = |sealed: &SecurePrivateKey| sealed.expose()[sealed.expose().len() - 32 - 28..][..12].to_vec();
    assert_ne!(nonce(&first), nonce(&second));
    let other = sealer.make_object_key(ID).unwrap();
    assert!(other.key != key.key);
}

#[test]
fn every_flipped_bit_and_every_cut_is_told() {
    let sealer = sealer();
    let key = sealer.make_object_key(ID).unwrap();
    let sealed = key.seal(&secret()).unwrap();
    let bytes = sealed.expose();
    for byte in 0..bytes.len() {
        for bit in 0..8 {
            let mut copy = bytes.to_vec();
            copy[byte] ^= 1 << bit;
            let error = DataKeys::default().open(&sealer, ID, &altered(&copy)).unwrap_err();
            assert_eq!(error.kind(), Kind::DeviceError, "byte {byte} bit {bit}: {error}");
            // With the data key in hand, nothing of the head can be another either.
            assert!(key.open(&altered(&copy)).is_err(), "byte {byte} bit {bit}");
        }
        assert!(DataKeys::default().open(&sealer, ID, &altered(&bytes[..byte])).is_err(), "cut at {byte}");
    }
    let longer = [bytes, &[0]].concat();
    assert!(DataKeys::default().open(&sealer, ID, &altered(&longer)).is_err());
}

#[test]
fn what_a_rotation_and_a_move_wrap_anew_opens_and_is_another_blob() {
    let old = sealer();
    let key = old.make_object_key(ID).unwrap();
    let sealed = key.seal(&secret()).unwrap();
    let version = |sealed: &SecurePrivateKey| data_key_of(sealed).unwrap().master_key.version;
    old.provider().rotate_master_key().unwrap();
    let rotated = old.rewrap_object_key(&old.open_object_key(ID, &sealed).unwrap()).unwrap();
    let again = rotated.seal(&secret()).unwrap();
    assert_eq!((version(&sealed), version(&again)), (1, 2));
    for sealed in [&sealed, &again] {
        assert!(DataKeys::default().open(&old, ID, sealed).unwrap() == secret());
    }
    // A seal does not open with the head of another one: the head is a part of it.
    let mixed = [&again.expose()[..again.expose().len() - 60], &sealed.expose()[sealed.expose().len() - 60..]].concat();
    assert!(rotated.open(&altered(&mixed)).is_err());

    let new = sealer();
    let moved = new.rewrap_object_key(&key).unwrap();
    new.check_object_key(&moved).unwrap();
    assert!(old.check_object_key(&moved).is_err());
    let moved = moved.seal(&secret()).unwrap();
    assert!(DataKeys::default().open(&new, ID, &moved).unwrap() == secret());
    let named: BTreeMap<_, _> = [("old".to_owned(), old.provider().clone())].into();
    let both = Sealer::new(new.provider().clone(), Argon2Params::LEAST).with_providers(Arc::new(named));
    for sealed in [&sealed, &moved] {
        assert!(DataKeys::default().open(&both, ID, sealed).unwrap() == secret(), "both are configured");
    }
}

#[test]
fn a_login_asks_once_for_each_key_however_it_is_wrapped() {
    let (kms, sealer) = slow(Duration::ZERO);
    let key = sealer.make_object_key(ID).unwrap();
    let (sealed, keys) = (key.seal(&secret()).unwrap(), DataKeys::default());
    assert!(keys.known(ID, &sealed).unwrap().is_none());
    for _ in 0..3 {
        assert!(keys.open(&sealer, ID, &sealed).unwrap() == secret());
    }
    let rewrapped = sealer.rewrap_object_key(&key).unwrap().seal(&secret()).unwrap();
    assert!(keys.open(&sealer, ID, &rewrapped).unwrap() == secret());
    assert!(keys.known(ID, &rewrapped).unwrap().unwrap().1 == secret());
    assert_eq!(kms.unwraps.load(Ordering::SeqCst), 1);
    // An object that was given another data key is asked for again, and so is what another login opens.
    let other = sealer.make_object_key(ID).unwrap().seal(&secret()).unwrap();
    assert!(keys.open(&sealer, ID, &other).unwrap() == secret());
    assert!(DataKeys::default().open(&sealer, ID, &other).unwrap() == secret());
    assert_eq!(kms.unwraps.load(Ordering::SeqCst), 3);
}

#[test]
fn threads_that_want_one_key_make_one_request() {
    let (kms, sealer) = slow(Duration::from_millis(50));
    let sealed = sealer.make_object_key(ID).unwrap().seal(&secret()).unwrap();
    let keys = DataKeys::default();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| assert!(keys.open(&sealer, ID, &sealed).unwrap() == secret()));
        }
    });
    assert_eq!(kms.unwraps.load(Ordering::SeqCst), 1);
}

#[test]
fn the_scope_is_that_of_the_provider_that_seals() {
    let (plain, scoped) = (sealer(), sealer());
    let named: BTreeMap<_, _> =
        [("plain", &plain), ("scoped", &scoped)].map(|(name, of)| (name.to_owned(), of.provider().clone())).into();
    let token = Sealer::new(plain.provider().clone(), Argon2Params::LEAST)
        .with_providers(Arc::new(named))
        .with_data_keys_of(Arc::new(BTreeSet::from(["scoped".to_owned()])));
    assert!(!token.gives_data_keys());
    assert!(token.under(scoped.provider().clone()).gives_data_keys());
    assert!(!token.under(sealer().provider().clone()).gives_data_keys(), "nobody has configured that one");
}

/// The document's example was made by another library.
#[test]
fn the_documents_example_opens() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/format.md")).unwrap();
    let blob = document.split("| sealed | `").nth(1).unwrap().split('`').next().unwrap();
    let sealed = SecurePrivateKey::new(SecureBytes::take(data_encoding::HEXLOWER.decode(blob.as_bytes()).unwrap()));
    let by = data_key_of(&sealed).unwrap();
    let master_key = MasterKeyId { key: "master".to_owned(), version: 1 };
    assert_eq!(by, WrappedBy { provider: "local".to_owned(), master_key: master_key.clone() });
    let id = DataKeyId { uid: std::array::from_fn(|at| 0xC0 + u8::try_from(at).unwrap()), ..ID };
    let key = SecureBytes::copy_from(&std::array::from_fn::<u8, 32, _>(|at| u8::try_from(at).unwrap()));
    let wrapped = Wrapped { master_key, blob: vec![0xB0, 0xB1, 0xB2, 0xB3] };
    let key = ObjectKey { id, provider: by.provider, key, wrapped };
    assert_eq!(key.open(&sealed).unwrap().expose(), [0x5A; 32]);
}

/// What `docs/format.md` states, computed from its text with the primitives alone.
#[test]
fn the_bytes_are_the_documented_ones() {
    let sealer = sealer();
    let key = sealer.make_object_key(ID).unwrap();
    let sealed = key.seal(&secret()).unwrap();
    let (bytes, name) = (sealed.expose(), key.wrapped.master_key.key.as_bytes());
    let mut head = b"SRSB\x01\x09\x07\0\0\0\x01".to_vec();
    head.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
    head.extend([name, b"\x05local"].concat());
    head.extend(u32::try_from(key.wrapped.blob.len()).unwrap().to_be_bytes());
    head.extend(&key.wrapped.blob);
    assert_eq!(bytes[..head.len()], head);
    assert_eq!(bytes.len(), head.len() + 12 + 32 + 16);
    let purpose = format!("data-key/{}", "a5".repeat(16));
    let context = Context { token: "0123456789ABCDEF", purpose: &purpose };
    let data_key = sealer.provider().unwrap_key(&key.wrapped, &context).unwrap();
    let bound = [&head[..], b"0123456789ABCDEF", &[0xA5; 16]].concat();
    let (nonce, rest) = bytes[head.len()..].split_first_chunk().unwrap();
    let (ciphertext, tag) = rest.split_last_chunk().unwrap();
    let mut opened = [0; 32];
    aead::open(data_key.expose(), nonce, &bound, ciphertext, tag, &mut opened).unwrap();
    assert_eq!(opened, secret().expose());
}
