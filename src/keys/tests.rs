//! Managed keys on a token in memory, with a clock that the test sets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::audit::{self, Mode, Trail};
use crate::ck::*;
use crate::error::Kind;
use crate::kms::LocalKms;
use crate::mechanism::{self, Params};
use crate::seal::{Argon2Params, Sealer};
use crate::secret::SecureBytes;
use crate::store::{self, OpenOptions};
use crate::token::{
    Call, Library, Parts, PasswordRules, PinSource, Plaintext, Policy, Profile, Profiles, Room, Rotation, Session,
};

mod fleet;
mod password;
mod scheduler;
mod scope;
mod uses;

const DAY: u64 = 86_400;
/// When the tests begin: 1 January 2026.
const START: u64 = 1_767_225_600;

/// A library with one token whose user is logged in.
struct Fixture {
    library: Library,
    session: Arc<Session>,
    clock: Arc<AtomicU64>,
}

fn profile(rotation: Rotation) -> Profile {
    let sealer = Sealer::new(Arc::new(LocalKms::ephemeral().unwrap()), Argon2Params::new(8192, 1, 1).unwrap());
    let password = PasswordRules { min_length: 4, classes: Vec::new(), max_attempts: 10 };
    let policy = Policy { plaintext: Plaintext::Never, password, rotation: rotation.into() };
    Profile { policy, sealer: Arc::new(sealer), pin_source: PinSource::Prompt, remote: None }
}

/// The user PIN, and that of the SO.
fn pin() -> Option<SecureBytes> {
    Some(SecureBytes::copy_from(b"user-12345"))
}

/// Makes a library over a store, and the clock that it tells the time by.
fn library(url: &str, profile: Profile) -> (Library, Arc<AtomicU64>) {
    let clock = Arc::new(AtomicU64::new(START));
    let (told, url) = (clock.clone(), url.to_owned());
    let parts = Parts {
        open_store: Box::new(move || store::open(&url, &OpenOptions::default())),
        profiles: Profiles { default: profile, named: HashMap::new() },
        trail: Arc::new(Trail::new(audit::Rules { mode: Mode::Required, key_use: false, copies: Vec::new() })),
        fault: None,
        status: String::new(),
        clock: Arc::new(move || told.load(Ordering::Relaxed)),
    };
    (Library::new(parts), clock)
}

impl Fixture {
    fn new() -> Self {
        Self::with(Rotation::default())
    }

    fn with(rotation: Rotation) -> Self {
        let (library, clock) = library("memory:", profile(rotation));
        Self::open(library, clock)
    }

    /// Logs in to the token, which is made when there is none.
    fn open(library: Library, clock: Arc<AtomicU64>) -> Self {
        let slots = library.slots(true).unwrap();
        let is_new = slots.len() == 1;
        if is_new {
            library.init_token(slots[0], pin(), b"test                            ").unwrap();
        }
        let handle = library.open_session(slots[0], CKF_SERIAL_SESSION | CKF_RW_SESSION).unwrap();
        let session = library.session(handle).unwrap();
        if is_new {
            session.login(CKU_SO, pin()).unwrap();
            session.init_pin(pin()).unwrap();
            session.logout().unwrap();
        }
        session.login(CKU_USER, pin()).unwrap();
        Self { library, session, clock }
    }

    /// Makes a token in a file, and gives what opens it again.
    fn in_file(rotation: Rotation) -> (Self, impl Fn(Rotation) -> Self) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/store.db", folder.path().display());
        let kept = profile(rotation);
        let open = move |rotation: Rotation| {
            // The folder lives as long as what opens its file.
            let _ = &folder;
            let policy = Policy { rotation: rotation.into(), ..kept.policy.clone() };
            let (library, clock) = library(&url, Profile { policy, ..kept.clone() });
            Self::open(library, clock)
        };
        (open(rotation), open)
    }

    fn keys(&self) -> ManagedKeys<'_> {
        ManagedKeys::of(&self.session)
    }

    fn pass_days(&self, days: u64) {
        self.clock.fetch_add(days * DAY, Ordering::Relaxed);
    }

    fn find(&self, template: &Attributes) -> Vec<CK_OBJECT_HANDLE> {
        self.session.find_init(template.clone()).unwrap();
        let found = self.session.find(10_000).unwrap();
        self.session.find_final().unwrap();
        found
    }

    fn sign(&self, key: CK_OBJECT_HANDLE) -> Result<Vec<u8>, Kind> {
        let call = Call { mechanism: mechanism::find(CKM_ECDSA).unwrap(), params: Params::None };
        let reply = self.session.sign_init(Some(call), key).and_then(|()| self.session.sign(&[7; 32], Room::Bytes(64)));
        match reply.map_err(|error| error.kind())? {
            crate::token::Reply::Bytes(bytes) => Ok(bytes.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    fn verify(&self, key: CK_OBJECT_HANDLE, signature: &[u8]) -> Result<(), Kind> {
        let call = Call { mechanism: mechanism::find(CKM_ECDSA).unwrap(), params: Params::None };
        let answer = self.session.verify_init(Some(call), key).and_then(|()| self.session.verify(&[7; 32], signature));
        answer.map_err(|error| error.kind())
    }
}

fn name(owner: &str, asset: &str) -> Name {
    Name::new(owner, asset).unwrap()
}

fn with(fields: &[(CK_ATTRIBUTE_TYPE, Value)]) -> Attributes {
    fields.iter().cloned().collect()
}

/// Alters the sealed attributes of an object in the store.
pub(super) fn damage(library: &Library, token: &store::Serial, unique_id: &[u8]) {
    let uid = data_encoding::HEXLOWER.decode(unique_id).unwrap().try_into().unwrap();
    let altered = library.store().unwrap().write(&mut |transaction| {
        let mut row = transaction.object(token, &uid)?.unwrap();
        *row.attributes.last_mut().unwrap() ^= 1;
        transaction.delete_object(token, &uid)?;
        transaction.insert_object(token, &row)
    });
    altered.unwrap();
}

/// Every key has one active version, which is the latest, and each version both halves in the same state.
fn check_sound(fixture: &Fixture, names: &[Name]) {
    for name in names {
        let versions = fixture.keys().versions(name).unwrap();
        let active: Vec<_> = versions.iter().filter(|version| version.state == State::Active).collect();
        assert_eq!(active.len(), 1);
        assert_eq!(active[0].number, versions.last().unwrap().number);
        let numbers: HashSet<_> = versions.iter().map(|version| version.number).collect();
        assert_eq!(numbers.len(), versions.len());
        for version in &versions {
            let mut template = name.template();
            template.set(CKA_SR_VERSION, version.number);
            for handle in fixture.find(&template) {
                let half = fixture.session.all_attributes(handle).unwrap();
                assert_eq!(half.ulong(CKA_SR_STATE), Some(version.state.code()));
            }
        }
    }
}

#[test]
fn every_asset_makes_a_key_with_its_addresses() {
    let fixture = Fixture::new();
    for asset in ASSETS.iter().filter(|asset| !asset.name.starts_with("rsa3") && !asset.name.starts_with("rsa4")) {
        let name = name("user 1", asset.name);
        let made = fixture.keys().generate(&name).unwrap_or_else(|error| panic!("{}: {error}", asset.name));
        assert_eq!((made.version.number, made.version.state), (1, State::Active));
        assert_eq!(made.address.is_some(), ["btc", "eth", "sol"].contains(&asset.name));
        assert_eq!(made.version.public_key().is_empty(), asset.name.starts_with("aes"));
        let found = fixture.keys().active(&name).unwrap();
        assert_eq!(found.handle, made.version.handle);
        let facts = &found.attributes;
        assert!(facts.is(CKA_TOKEN) && facts.is(CKA_PRIVATE) && facts.is(CKA_SENSITIVE) && !facts.is(CKA_EXTRACTABLE));
        assert_eq!(facts.bytes(CKA_LABEL).unwrap(), format!("user 1/{}", asset.name).as_bytes());
        assert_eq!(facts.ulong(CKA_SR_CREATED), Some(START));
        assert_eq!(facts.ulong(CKA_SR_NEXT_ROTATION), Some(START + 90 * DAY));
        let info: serde_json::Value = serde_json::from_str(&fixture.keys().info(&name).unwrap()).unwrap();
        assert_eq!((info["owner"].as_str(), info["asset"].as_str()), (Some("user 1"), Some(asset.name)));
        assert_eq!(info["refused_from"].as_u64(), Some(START + 365 * DAY));
        assert_eq!(info["address"].as_str(), made.address.as_deref());
        assert_eq!(fixture.keys().generate(&name).unwrap_err().kind(), Kind::ActionProhibited);
    }
    let bitcoin = name("user 1", "BTC");
    assert!(fixture.keys().address(&bitcoin, 0, None).unwrap().starts_with("bc1q"));
    assert!(fixture.keys().address(&bitcoin, 1, Some("P2PKH")).unwrap().starts_with('1'));
    assert_eq!(fixture.keys().address(&bitcoin, 2, None).unwrap_err().kind(), Kind::KeyHandleInvalid);
}

#[test]
fn names_that_are_none_are_refused() {
    for (owner, asset) in
        [("", "btc"), ("a\0b", "btc"), ("a\nb", "btc"), (&*"x".repeat(256), "btc"), ("a", "doge"), ("a", "")]
    {
        assert_eq!(Name::new(owner, asset).unwrap_err().kind(), Kind::ArgumentsBad, "{owner:?} {asset:?}");
    }
    let fixture = Fixture::new();
    for owner in ["x".repeat(255), "Zürich ☃".to_owned(), "a/b' or 1=1".to_owned()] {
        fixture.keys().generate(&name(&owner, "ed25519")).unwrap();
        assert_eq!(fixture.keys().active(&name(&owner, "ed25519")).unwrap().number, 1);
    }
    let unknown = name("nobody", "btc");
    assert_eq!(fixture.keys().active(&unknown).unwrap_err().kind(), Kind::KeyHandleInvalid);
    assert_eq!(fixture.keys().rotate(&unknown, 0).unwrap_err().kind(), Kind::KeyHandleInvalid);
    fixture.session.logout().unwrap();
    assert_eq!(fixture.keys().active(&unknown).unwrap_err().kind(), Kind::UserNotLoggedIn);
    assert_eq!(fixture.keys().generate(&unknown).unwrap_err().kind(), Kind::UserNotLoggedIn);
    assert_eq!(fixture.keys().rotate_due(9).unwrap_err().kind(), Kind::UserNotLoggedIn);
}

#[test]
fn r35_rotation_keeps_label_and_id_and_a_find_sees_the_new_version() {
    let fixture = Fixture::new();
    let name = name("user", "btc");
    let old = fixture.keys().generate(&name).unwrap().version;
    let label = with(&[(CKA_LABEL, Value::from(b"my label".as_slice()))]);
    fixture.session.set_attributes(old.handle, label.clone()).unwrap();
    let old_signature = fixture.sign(old.handle).unwrap();
    fixture.pass_days(10);
    let new = fixture.keys().rotate(&name, 1).unwrap().version;
    assert_eq!((new.number, new.state), (2, State::Active));
    for id in [CKA_LABEL, CKA_ID] {
        assert_eq!(new.attributes.bytes(id), fixture.session.all_attributes(old.handle).unwrap().bytes(id));
    }
    assert_ne!(new.unique_id(), old.unique_id());
    assert_ne!(new.public_key(), old.public_key());
    // By label, the active version; by version, state or unique id, any.
    assert_eq!(fixture.find(&label), [new.handle]);
    let named = |id, value: Value| {
        let class = (CKA_CLASS, Value::Ulong(CKO_PRIVATE_KEY));
        fixture.find(&with(&[class, (id, value)]))
    };
    assert_eq!(named(CKA_SR_VERSION, Value::Ulong(1)), [old.handle]);
    assert_eq!(named(CKA_SR_STATE, Value::Ulong(SR_STATE_ROTATED)), [old.handle]);
    assert_eq!(named(CKA_SR_STATE, Value::Ulong(SR_STATE_ACTIVE)), [new.handle]);
    assert_eq!(named(CKA_UNIQUE_ID, Value::from(old.unique_id())), [old.handle]);
    assert_eq!(named(CKA_SR_OWNER, Value::from(b"user".as_slice())), [new.handle]);
    // The old handle stays valid: it signs, since it names its version, and its public half verifies.
    fixture.sign(old.handle).unwrap();
    let mut public = name.template();
    public.set(CKA_CLASS, CKO_PUBLIC_KEY);
    public.set(CKA_SR_VERSION, 1);
    let [public] = fixture.find(&public)[..] else { panic!("one public key") };
    fixture.verify(public, &old_signature).unwrap();
    let facts = fixture.session.all_attributes(old.handle).unwrap();
    assert_eq!(facts.ulong(CKA_SR_ROTATED), Some(START + 10 * DAY));
    assert!(!facts.has(CKA_SR_NEXT_ROTATION));
    // Who expects another version than there is does not rotate.
    assert_eq!(fixture.keys().rotate(&name, 1).unwrap_err().kind(), Kind::ActionProhibited);
    check_sound(&fixture, &[name]);
}

#[test]
fn r33_the_active_version_is_found_while_others_rotate_and_destroy() {
    let (fixture, name) = (Fixture::new(), name("alice", "ed25519"));
    fixture.keys().generate(&name).unwrap();
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=300 {
                let old = fixture.keys().version(&name, number).unwrap();
                let confirmation = old.attributes.bytes(CKA_UNIQUE_ID).unwrap().to_vec();
                fixture.keys().rotate(&name, number).unwrap();
                fixture.keys().destroy_version(&name, number, &confirmation).unwrap();
            }
            done.store(1, Ordering::Relaxed);
        });
        for _ in 0..4 {
            scope.spawn(|| {
                let mut last = 0;
                while done.load(Ordering::Relaxed) == 0 {
                    let active = fixture.keys().active(&name).unwrap().number;
                    assert!(active >= last && !fixture.keys().versions(&name).unwrap().is_empty());
                    last = active;
                }
            });
        }
    });
    assert_eq!(fixture.keys().active(&name).unwrap().number, 301);
}

#[test]
fn r34_states_and_destruction() {
    let fixture = Fixture::new();
    let name = name("user", "p256");
    let first = fixture.keys().generate(&name).unwrap().version;
    let prohibited = |answer: crate::error::Result<()>| assert_eq!(answer.unwrap_err().kind(), Kind::ActionProhibited);
    prohibited(fixture.keys().set_state(&name, 1, State::Rotated));
    prohibited(fixture.keys().destroy_version(&name, 1, first.unique_id()));
    prohibited(fixture.session.destroy_object(first.handle));
    prohibited(fixture.session.copy_object(first.handle, Attributes::new()).map(|_| ()));
    fixture.keys().rotate(&name, 0).unwrap();
    prohibited(fixture.keys().set_state(&name, 1, State::Active));
    fixture.keys().set_state(&name, 1, State::Disabled).unwrap();
    assert_eq!(fixture.sign(first.handle).unwrap_err(), Kind::KeyFunctionNotPermitted);
    fixture.keys().set_state(&name, 1, State::Rotated).unwrap();
    fixture.sign(first.handle).unwrap();
    // A disabled key is found by its version only, and rotation brings it back.
    fixture.keys().set_state(&name, 2, State::Disabled).unwrap();
    assert_eq!(fixture.keys().active(&name).unwrap_err().kind(), Kind::KeyHandleInvalid);
    assert_eq!(fixture.keys().version(&name, 2).unwrap().state, State::Disabled);
    let third = fixture.keys().rotate(&name, 0).unwrap().version;
    assert_eq!((third.number, fixture.keys().version(&name, 2).unwrap().state), (3, State::Disabled));
    for wrong in [b"".as_slice(), b"1", third.unique_id()] {
        let error = fixture.keys().destroy_version(&name, 1, wrong).unwrap_err();
        assert_eq!(error.kind(), Kind::ArgumentsBad);
    }
    let second = fixture.keys().version(&name, 2).unwrap();
    fixture.keys().set_state(&name, 3, State::Disabled).unwrap();
    prohibited(fixture.keys().destroy_version(&name, 3, third.unique_id()));
    fixture.keys().set_state(&name, 3, State::Active).unwrap();
    fixture.keys().destroy_version(&name, 1, first.unique_id()).unwrap();
    assert_eq!(fixture.sign(first.handle).unwrap_err(), Kind::KeyHandleInvalid);
    assert_eq!(fixture.keys().version(&name, 1).unwrap_err().kind(), Kind::KeyHandleInvalid);
    assert!(fixture.keys().destroy_version(&name, 1, first.unique_id()).is_err());
    let numbers: Vec<_> = fixture.keys().versions(&name).unwrap().iter().map(|version| version.number).collect();
    assert_eq!(numbers, [2, 3]);
    // The last one that goes takes the key with it, and its name is free.
    fixture.keys().destroy_version(&name, 2, second.unique_id()).unwrap();
    fixture.keys().set_state(&name, 3, State::Disabled).unwrap();
    fixture.keys().destroy_version(&name, 3, third.unique_id()).unwrap();
    assert_eq!(fixture.keys().versions(&name).unwrap_err().kind(), Kind::KeyHandleInvalid);
    assert_eq!(fixture.keys().generate(&name).unwrap().version.number, 1);
}

#[test]
fn r34_a_handle_shows_what_the_last_of_overlapping_changes_has_made() {
    let (fixture, name) = (Fixture::new(), name("user", "p256"));
    let key = fixture.keys().generate(&name).unwrap().version.handle;
    for _ in 0..200 {
        std::thread::scope(|scope| {
            for state in [State::Active, State::Disabled, State::Active, State::Disabled] {
                let fixture = &fixture;
                let name = &name;
                scope.spawn(move || fixture.keys().set_state(name, 1, state).unwrap());
            }
            // Who signs meanwhile reads the key again and again.
            scope.spawn(|| (0..20).for_each(|_| drop(fixture.sign(key))));
        });
        let shown = fixture.session.all_attributes(key).unwrap();
        let mut stored = None;
        fixture
            .session
            .visit_latest(&name.template(), &mut |half| {
                stored = half.ulong(CKA_SR_STATE);
                Ok(())
            })
            .unwrap();
        assert_eq!(shown.ulong(CKA_SR_STATE), stored);
        assert_eq!(fixture.sign(key).is_ok(), stored == Some(SR_STATE_ACTIVE));
    }
}

#[test]
fn callers_cannot_set_what_belongs_to_versions() {
    let fixture = Fixture::new();
    let key = fixture.keys().generate(&name("user", "aes256")).unwrap().version;
    for id in
        [CKA_SR_OWNER, CKA_SR_ASSET, CKA_SR_VERSION, CKA_SR_STATE, CKA_SR_CREATED, CKA_SR_NEXT_ROTATION, CKA_SR_MAX_AGE]
    {
        let value = match value_kind(id) {
            ValueKind::Ulong => Value::Ulong(1),
            _ => Value::from(b"user".as_slice()),
        };
        let template = with(&[(CKA_VALUE_LEN, Value::Ulong(32)), (id, value.clone())]);
        let call = Call { mechanism: mechanism::find(CKM_AES_KEY_GEN).unwrap(), params: Params::None };
        assert_eq!(
            fixture.session.generate_key(call, template).unwrap_err().kind(),
            Kind::AttributeReadOnly,
            "{id:#x}"
        );
        let change =
            with(&[(id, if value == Value::Ulong(1) { Value::Ulong(7) } else { Value::from(b"x".as_slice()) })]);
        assert_eq!(fixture.session.set_attributes(key.handle, change).unwrap_err().kind(), Kind::AttributeReadOnly);
    }
}

#[test]
fn past_its_age_a_key_makes_nothing_new_until_it_is_rotated() {
    let fixture = Fixture::new();
    let name = name("user", "btc");
    let key = fixture.keys().generate(&name).unwrap().version;
    let signature = fixture.sign(key.handle).unwrap();
    fixture.pass_days(364);
    fixture.sign(key.handle).unwrap();
    fixture.pass_days(1);
    // The session has used the key before, so that this is the fast way.
    assert_eq!(fixture.sign(key.handle).unwrap_err(), Kind::KeyFunctionNotPermitted);
    let recoverable = fixture.session.sign_recoverable(key.handle, &[7; 32], Room::Bytes(65));
    assert!(recoverable.unwrap_err().message().contains("max_key_age_days"));
    let mut public = name.template();
    public.set(CKA_CLASS, CKO_PUBLIC_KEY);
    fixture.verify(fixture.find(&public)[0], &signature).unwrap();
    let new = fixture.keys().rotate(&name, 0).unwrap().version;
    fixture.sign(new.handle).unwrap();
    fixture.sign(key.handle).unwrap();
    // A clock that is set back makes nothing old, and the next version no older than this one.
    for back in [DAY, 0] {
        let time = if back == 0 { 1000 } else { START + 365 * DAY - back };
        fixture.clock.store(time, Ordering::Relaxed);
        assert!(
            fixture.keys().due().unwrap().is_empty(),
            "a day is no matter, and neither is a clock that nobody has set"
        );
        fixture.sign(new.handle).unwrap();
        let next = fixture.keys().rotate(&name, 0).unwrap().version;
        assert_eq!(next.attributes.ulong(CKA_SR_CREATED), new.attributes.ulong(CKA_SR_CREATED));
    }
}

#[test]
fn a_clock_that_was_far_ahead_once_does_not_switch_rotation_off() {
    let (fixture, name) = (Fixture::new(), name("user", "p256"));
    fixture.keys().generate(&name).unwrap();
    fixture.pass_days(10_000);
    assert_eq!(fixture.keys().rotate_due(usize::MAX).unwrap().rotated.len(), 1);
    // The clock is right again: nobody knows how old the key is, so it is due, and the next one is as old as it is.
    let now = START + DAY;
    fixture.clock.store(now, Ordering::Relaxed);
    let [due] = &fixture.keys().outlook(0).unwrap().due[..] else { panic!("it is due") };
    assert_eq!((due.cause, due.version, due.since, due.days_left(now)), (Cause::Clock, 2, now, 0));
    let info: serde_json::Value = serde_json::from_str(&fixture.keys().info(&name).unwrap()).unwrap();
    assert_eq!((&info["due"], info["next_rotation"].as_u64()), (&true.into(), Some(now)));
    assert_eq!(fixture.keys().rotate_due(usize::MAX).unwrap().rotated.len(), 1);
    assert!(fixture.keys().due().unwrap().is_empty());
    let key = fixture.keys().active(&name).unwrap();
    assert_eq!(key.attributes.ulong(CKA_SR_CREATED), Some(now));
    assert_eq!(key.attributes.ulong(CKA_SR_NEXT_ROTATION), Some(now + 90 * DAY));
    // A rotation by name heals as well, and so do the limits of age.
    fixture.pass_days(10_000);
    fixture.keys().rotate(&name, 0).unwrap();
    fixture.clock.store(now, Ordering::Relaxed);
    let last = fixture.keys().rotate(&name, 0).unwrap().version;
    fixture.pass_days(365);
    assert_eq!(fixture.sign(last.handle).unwrap_err(), Kind::KeyFunctionNotPermitted);
    // Rules that ask for no age ask for none here.
    fixture.keys().rotate(&name, 0).unwrap();
    let never = Rotation { interval_days: 0, max_age_days: 0, max_uses: 0, auto_rotate: false };
    fixture.keys().set_policy(&name, never).unwrap();
    fixture.clock.store(START, Ordering::Relaxed);
    assert!(fixture.keys().due().unwrap().is_empty());
}

#[test]
fn rules_of_a_key_go_before_those_of_the_configuration_and_stay() {
    let configured = Rotation { interval_days: 30, max_age_days: 60, ..Rotation::default() };
    let fixture = Fixture::with(configured);
    let name = name("user", "ed25519");
    fixture.keys().generate(&name).unwrap();
    assert_eq!(fixture.keys().policy(&name).unwrap().rotation, configured);
    let own = Rotation { interval_days: 7, max_age_days: 0, max_uses: 9, auto_rotate: false };
    let bad = Rotation { interval_days: 7, max_age_days: 7, ..own };
    assert_eq!(fixture.keys().set_policy(&name, bad).unwrap_err().kind(), Kind::ArgumentsBad);
    fixture.keys().set_policy(&name, own).unwrap();
    let made = fixture.keys().rotate(&name, 0).unwrap().version;
    assert_eq!(fixture.keys().policy(&name).unwrap().rotation, own);
    assert_eq!(made.attributes.ulong(CKA_SR_NEXT_ROTATION), Some(START + 7 * DAY));
    fixture.pass_days(7);
    let report = fixture.keys().rotate_due(usize::MAX).unwrap();
    assert_eq!((report.rotated.len(), report.left.len(), report.failed.len()), (0, 1, 0));
    assert_eq!((report.left[0].version, report.left[0].since), (2, START + 7 * DAY));
    assert!(fixture.keys().describe_policy(None).unwrap().contains("30"));
    assert!(fixture.keys().describe_policy(Some(&name)).unwrap().contains("false"));
}

#[test]
fn r33_ten_years_of_a_fleet() {
    let fixture = Fixture::new();
    let names: Vec<_> =
        (0..12).map(|count| name(&format!("user {count}"), ["eth", "sol", "aes256"][count % 3])).collect();
    for name in &names {
        fixture.keys().generate(name).unwrap();
        fixture.pass_days(1);
    }
    let mut rotations = 0;
    for _look in 0..3650 / 10 {
        fixture.pass_days(10);
        let report = fixture.keys().rotate_due(usize::MAX).unwrap();
        assert!(report.failed.is_empty() && report.left.is_empty());
        rotations += report.rotated.len();
        assert!(fixture.keys().rotate_due(usize::MAX).unwrap().rotated.is_empty(), "nothing is due twice");
    }
    // Every 90 days, on the first look at or after it.
    let expected = 3650 / 90 * names.len();
    assert!(rotations >= expected - names.len() && rotations <= expected, "{rotations} rotations");
    check_sound(&fixture, &names);
    let versions: usize = names.iter().map(|name| fixture.keys().versions(name).unwrap().len()).sum();
    assert_eq!(versions, rotations + names.len());
    drop(fixture.library);
}

#[test]
fn a_limit_leaves_the_rest_for_later() {
    let fixture = Fixture::new();
    for count in 0..5 {
        fixture.keys().generate(&name(&format!("user {count}"), "p256")).unwrap();
    }
    fixture.pass_days(90);
    let report = fixture.keys().rotate_due(2).unwrap();
    assert_eq!((report.rotated.len(), report.left.len()), (2, 3));
    assert_eq!(fixture.keys().rotate_due(0).unwrap().left.len(), 3);
    assert_eq!(fixture.keys().rotate_due(9).unwrap().rotated.len(), 3);
    assert!(fixture.keys().due().unwrap().is_empty());
}
