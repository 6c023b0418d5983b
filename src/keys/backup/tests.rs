//! Backups between libraries in memory: what they hold, what opens them, what they refuse.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;
use tempfile::TempDir;

use super::*;
use crate::audit::{Mode, Rules, Trail};
use crate::error::{Error, Kind};
use crate::keys::tests::damage;
use crate::keys::{Asset, ManagedKeys, State};
use crate::kms::{Context as KmsContext, Description, KmsProvider, LocalKms, MasterKeyId, Wrapped};
use crate::mechanism::{self, Params};
use crate::seal::{Argon2Params, Sealer};
use crate::secret::SecureBytes;
use crate::store::{self, OpenOptions, Search};
use crate::token::{
    Call, Library, Parts, PasswordRules, PinSource, Plaintext, Policy, Profile, Profiles, Reply, Room, Rotation,
    Session,
};

const PIN: &str = "user-12345";
const SO_PIN: &str = "so-1234567";
const PASSWORD: &str = "a long recovery password";
/// The time of every library.
const NOW: u64 = 1_767_225_600;

mod data_keys;

type Providers = BTreeMap<String, Arc<dyn KmsProvider>>;

fn secret(text: &str) -> SecureBytes {
    SecureBytes::copy_from(text.as_bytes())
}

/// Providers `first` and `second`.
fn providers() -> Providers {
    let provider = || -> Arc<dyn KmsProvider> { Arc::new(LocalKms::ephemeral().unwrap()) };
    [("first".to_owned(), provider()), ("second".to_owned(), provider())].into()
}

/// A library over a store in memory, whose tokens are under one of the providers.
fn library(providers: &Providers, kms: &str, pin_source: PinSource) -> Library {
    scoped_library(providers, kms, pin_source, &[])
}

/// The same where some providers have `scope = "key"`.
fn scoped_library(providers: &Providers, kms: &str, pin_source: PinSource, scoped: &[&str]) -> Library {
    let sealer = Sealer::new(providers[kms].clone(), Argon2Params::new(1024, 1, 1).unwrap());
    let scoped = scoped.iter().map(|name| (*name).to_owned()).collect();
    let sealer = sealer.with_providers(Arc::new(providers.clone())).with_data_keys_of(Arc::new(scoped));
    let sealer = Arc::new(sealer);
    let password = PasswordRules { min_length: 4, classes: Vec::new(), max_attempts: 10 };
    let rotation = Rotation { interval_days: 90, max_age_days: 365, max_uses: 0, auto_rotate: true };
    let policy = Policy { plaintext: Plaintext::Never, password, rotation: rotation.into() };
    Library::new(Parts {
        open_store: {
            let store = store::open("memory:", &OpenOptions::default()).unwrap();
            Box::new(move || Ok(store.clone()))
        },
        profiles: Profiles { default: Profile { policy, sealer, pin_source, remote: None }, named: HashMap::new() },
        fault: None,
        status: String::new(),
        clock: Arc::new(|| NOW),
        trail: Arc::new(Trail::new(Rules { mode: Mode::Required, key_use: false, copies: Vec::new() })),
    })
}

fn open(library: &Library, slot: CK_SLOT_ID) -> Arc<Session> {
    let handle = library.open_session(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION).unwrap();
    library.session(handle).unwrap()
}

/// Opens a session of the user, on the first token.
fn user(library: &Library, pin: &str) -> Arc<Session> {
    let session = open(library, library.slots(true).unwrap()[0]);
    session.login(CKU_USER, Some(secret(pin))).unwrap();
    session
}

/// Runs work as SO.
fn as_so<T>(library: &Library, work: impl FnOnce(&Session) -> Result<T>) -> Result<T> {
    let slot = library.slots(true).unwrap()[0];
    library.close_all_sessions(slot).unwrap();
    let session = open(library, slot);
    session.login(CKU_SO, Some(secret(SO_PIN))).unwrap();
    let answer = work(&session);
    library.close_all_sessions(slot).unwrap();
    answer
}

/// Makes a token.
fn token(library: &Library, label: &str) -> Arc<Session> {
    let slot = *library.slots(true).unwrap().last().unwrap();
    let mut padded = [b' '; 32];
    padded[..label.len()].copy_from_slice(label.as_bytes());
    library.init_token(slot, Some(secret(SO_PIN)), &padded).unwrap();
    let session = open(library, slot);
    session.login(CKU_SO, Some(secret(SO_PIN))).unwrap();
    session.init_pin(Some(secret(PIN))).unwrap();
    session.logout().unwrap();
    session.login(CKU_USER, Some(secret(PIN))).unwrap();
    session
}

fn name(owner: &str, asset: &str) -> Name {
    Name::new(owner, asset).unwrap()
}

/// Makes keys: two owners, several assets, one with two versions.
fn fill(session: &Session) {
    let keys = ManagedKeys::of(session);
    for (owner, asset) in [("alice", "p256"), ("alice", "aes256"), ("bob", "ed25519")] {
        keys.generate(&name(owner, asset)).unwrap();
    }
    keys.rotate(&name("alice", "p256"), 1).unwrap();
}

/// Describes all versions of some keys, with all that tells them apart.
fn keys_of(session: &Session, names: &[(&str, &str)]) -> Vec<Json> {
    let list = |(owner, asset): &(&str, &str)| {
        serde_json::from_str(&ManagedKeys::of(session).list(&name(owner, asset)).unwrap())
    };
    names.iter().map(|name| list(name).unwrap()).collect()
}

const ALL: [(&str, &str); 3] = [("alice", "p256"), ("alice", "aes256"), ("bob", "ed25519")];

fn sign(session: &Session, owner: &str) -> Vec<u8> {
    let handle = ManagedKeys::of(session).active(&name(owner, "ed25519")).unwrap().handle;
    let call = Call { mechanism: mechanism::find(CKM_EDDSA).unwrap(), params: Params::None };
    session.sign_init(Some(call), handle).unwrap();
    match session.sign(b"message", Room::Bytes(64)).unwrap() {
        Reply::Bytes(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// A source with keys and a backup of it.
struct World {
    folder: TempDir,
    providers: Providers,
    source: Library,
    session: Arc<Session>,
}

impl World {
    fn new() -> Self {
        let providers = providers();
        let source = library(&providers, "first", PinSource::Prompt);
        let session = token(&source, "wallet");
        fill(&session);
        Self { folder: tempfile::tempdir().unwrap(), providers, source, session }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn export(&self, scope: &Scope, name: &str) -> (PathBuf, Json) {
        let path = self.path(name);
        let report = export_to(&self.session, scope, &path).unwrap();
        (path, report)
    }

    fn target(&self, kms: &str) -> Library {
        library(&self.providers, kms, PinSource::Prompt)
    }
}

fn export_to(session: &Session, scope: &Scope, path: &Path) -> Result<Json> {
    export(session, scope, To::File { path: path.to_owned(), overwrite: false }, &mut |_| {})
}

fn with_pin() -> Secrets {
    Secrets { pin: Some(secret(PIN)), ..Secrets::default() }
}

fn restore(place: Place<'_>, path: &Path, scope: &Scope, secrets: &Secrets, flags: &str) -> Result<Json> {
    let has = |flag| flags.contains(flag);
    let options = ImportOptions { replace: has("replace"), remove: has("remove"), dry_run: has("dry") };
    import(place, path, scope, secrets, options, &mut |_| {})
}

/// The counts of a report: added, same, replaced, removed.
fn counts(report: &Json) -> [u64; 4] {
    ["added", "same", "replaced", "removed"].map(|field| report[field].as_u64().unwrap())
}

fn text(error: Error) -> (Kind, String) {
    (error.kind(), error.message())
}

#[test]
fn r37_a_token_is_restored_with_serial_ids_labels_pins_and_versions() {
    let world = World::new();
    let (path, report) = world.export(&Scope::Token, "backup");
    assert_eq!(report["records"], 7, "{report}");
    let target = world.target("first");
    let done = restore(Place::Library(&target), &path, &Scope::Token, &with_pin(), "").unwrap();
    assert_eq!((counts(&done), &done["token"]["became"]), ([7, 0, 0, 0], &Json::from("added")), "{done}");
    let session = user(&target, PIN);
    assert_eq!(session.serial(), world.session.serial());
    assert_eq!(session.token_label().unwrap(), "wallet");
    assert_eq!(keys_of(&session, &ALL), keys_of(&world.session, &ALL));
    assert_eq!(sign(&session, "bob"), sign(&world.session, "bob"), "Ed25519 signs the same");
    // The SO's PIN is that of the source as well.
    as_so(&target, |_| Ok(())).unwrap();
    // What was restored goes on: a rotation, a new key.
    let session = user(&target, PIN);
    ManagedKeys::of(&session).rotate(&name("alice", "p256"), 2).unwrap();
    fill_one(&session, "carol");
}

fn fill_one(session: &Session, owner: &str) {
    ManagedKeys::of(session).generate(&name(owner, "ed25519")).unwrap();
}

#[test]
fn a_second_restore_finds_nothing_to_do() {
    let world = World::new();
    let (path, _) = world.export(&Scope::Token, "backup");
    let target = world.target("first");
    restore(Place::Library(&target), &path, &Scope::Token, &with_pin(), "").unwrap();
    let rows = || {
        let (store, mut rows) = (target.store().unwrap(), Vec::new());
        let mut snapshot = store.snapshot(&world.session.serial()).unwrap();
        snapshot
            .search(&Search::All, &mut |row| {
                rows.push(row);
                Ok(())
            })
            .unwrap();
        (snapshot.token().unwrap(), rows)
    };
    let before = rows();
    for flags in ["", "replace remove"] {
        let again = restore(Place::Library(&target), &path, &Scope::Token, &with_pin(), flags).unwrap();
        assert_eq!((counts(&again), &again["token"]["became"]), ([0, 7, 0, 0], &Json::from("kept")));
    }
    assert_eq!(rows(), before, "nothing but the audit trail was written");
}

#[test]
fn nothing_that_is_there_is_touched_unless_it_is_said() {
    let world = World::new();
    let (path, _) = world.export(&Scope::Token, "backup");
    let keys = ManagedKeys::of(&world.session);
    // Later on: a key is rotated, one is disabled, one is new, one is gone.
    keys.rotate(&name("alice", "p256"), 2).unwrap();
    keys.set_state(&name("bob", "ed25519"), 1, State::Disabled).unwrap();
    fill_one(&world.session, "carol");
    let before = keys_of(&world.session, &ALL);
    let place = Place::Session(&world.session);
    let (kind, why) = text(restore(place, &path, &Scope::Token, &Secrets::default(), "").unwrap_err());
    assert_eq!(kind, Kind::ActionProhibited);
    for part in ["version 1 of the ed25519 key of bob", "version 2 of the p256 key of alice", "replace", "remove"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let (_, why) = text(restore(place, &path, &Scope::Token, &Secrets::default(), "replace").unwrap_err());
    assert!(why.contains("version 3 of the p256 key of alice is not in the backup") && !why.contains("bob"), "{why}");
    assert_eq!(keys_of(&world.session, &ALL), before);
    let tried = restore(place, &path, &Scope::Token, &Secrets::default(), "replace remove dry").unwrap();
    // Both halves of version 2 and of bob's key differ; version 3 and carol's key are more.
    assert_eq!(counts(&tried), [0, 3, 4, 4]);
    assert_eq!(keys_of(&world.session, &ALL), before, "a trial changes nothing");
    let done = restore(place, &path, &Scope::Token, &Secrets::default(), "replace remove").unwrap();
    assert_eq!(counts(&done), [0, 3, 4, 4]);
    assert_eq!(keys_of(&world.session, &[("alice", "p256")])[0].as_array().unwrap().len(), 2);
    assert!(ManagedKeys::of(&world.session).active(&name("bob", "ed25519")).is_ok());
    assert!(ManagedKeys::of(&world.session).latest(&name("carol", "ed25519")).is_err());
}

#[test]
fn a_restore_takes_back_no_use_and_no_wrong_password() {
    let world = World::new();
    let (session, mine) = (&world.session, name("carol", "ed25519"));
    let (keys, password) = (ManagedKeys::of(session), secret("Carol's own"));
    keys.generate_with_password(&mine, &password).unwrap();
    let key = || keys.active(&mine).unwrap();
    let (path, _) = world.export(&Scope::Token, "backup");
    let (place, whole) = (Place::Session(session), |flags| {
        restore(Place::Session(session), &path, &Scope::Token, &Secrets::default(), flags)
    });
    let wrong = |count| {
        for _ in 0..count {
            let error = session.unlock(key().handle, &secret("another one"), 0).unwrap_err();
            assert_eq!(error.kind(), Kind::PinIncorrect, "{error}");
        }
    };
    // A key was used, and a wrong password was tried: neither makes it another key.
    let uses = |uses: u64| {
        let change = session.change(session.event("test"), |change| {
            for half in change.find_latest(&name("alice", "aes256").template())? {
                let mut attributes = half.attributes().clone();
                attributes.set(CKA_SR_USES, uses);
                change.update(&half, attributes)?;
            }
            Ok(())
        });
        change.unwrap();
    };
    let counted = |owner, asset, id| keys.latest(&name(owner, asset)).unwrap().attributes.ulong(id);
    uses(4095);
    wrong(2);
    assert_eq!(counts(&whole("").unwrap())[2], 0);
    // Where a key is replaced, since it differs, what was counted stays counted.
    for name in [&mine, &name("alice", "aes256")] {
        keys.set_state(name, 1, State::Disabled).unwrap();
    }
    assert_eq!(counts(&whole("replace").unwrap()), [0, 6, 3, 0]);
    assert_eq!(counted("alice", "aes256", CKA_SR_USES), Some(4095));
    assert_eq!(counted("carol", "ed25519", CKA_SR_PASSWORD_WRONG), Some(2));
    wrong(8);
    keys.set_state(&mine, 1, State::Disabled).unwrap();
    restore(place, &path, &Scope::new("carol", "").unwrap(), &Secrets::default(), "replace").unwrap();
    let locked = session.unlock(key().handle, &password, 0).unwrap_err();
    assert_eq!(locked.kind(), Kind::PinLocked, "a restore unlocks nothing");
    // A backup that has counted more is no reason to count less.
    let (later, _) = world.export(&Scope::new("alice", "aes256").unwrap(), "later");
    uses(1);
    keys.set_state(&name("alice", "aes256"), 1, State::Disabled).unwrap();
    restore(place, &later, &Scope::Token, &Secrets::default(), "replace").unwrap();
    assert_eq!(counted("alice", "aes256", CKA_SR_USES), Some(4095));
}

#[test]
fn a_key_that_does_not_open_is_replaced_by_what_a_backup_has_of_it() {
    let world = World::new();
    let (session, keys) = (&world.session, ManagedKeys::of(&world.session));
    let (whole, _) = world.export(&Scope::Token, "whole");
    let import = |place, path: &Path, flags| restore(place, path, &Scope::Token, &with_pin(), flags);
    let (before, mut place) = (keys_of(session, &ALL), Place::Session(session));
    for _ in ["a session", "none"] {
        let bob = keys.active(&name("bob", "ed25519")).unwrap();
        damage(&world.source, &session.serial(), bob.unique_id());
        assert_eq!(session.check_objects().unwrap().1.len(), 1);
        assert_eq!(export_to(session, &Scope::Token, &world.path("no")).unwrap_err().kind(), Kind::DeviceError);
        let (kind, why) = text(import(place, &whole, "").unwrap_err());
        assert!(
            kind == Kind::ActionProhibited && why.contains("version 1 of the ed25519 key of bob is damaged"),
            "{why}"
        );
        assert_eq!(counts(&import(place, &whole, "replace").unwrap()), [0, 6, 1, 0]);
        assert_eq!(keys_of(session, &ALL), before);
        assert!(session.check_objects().unwrap().1.is_empty());
        place = Place::Library(&world.source);
    }
    keys.set_state(&name("bob", "ed25519"), 1, State::Disabled).unwrap();
    // A damaged version that the backup does not have goes with `remove`, and that alone.
    fill_one(session, "carol");
    let of_alice = keys.rotate(&name("alice", "p256"), 2).unwrap().version;
    let of_carol = keys.active(&name("carol", "ed25519")).unwrap();
    for version in [&of_alice, &of_carol] {
        damage(&world.source, &session.serial(), version.unique_id());
    }
    let alice = Scope::new("alice", "").unwrap();
    let one = |flags| restore(Place::Session(session), &whole, &alice, &Secrets::default(), flags);
    let (_, why) = text(one("replace").unwrap_err());
    assert!(why.contains("which is damaged, is not in the backup"), "{why}");
    assert_eq!(counts(&one("replace remove").unwrap()), [0, 3, 2, 2]);
    assert_eq!(keys.active(&name("alice", "p256")).unwrap().number, 2);
    assert_eq!(session.check_objects().unwrap().1.len(), 1);
    assert_eq!(counts(&import(Place::Session(session), &whole, "replace remove").unwrap()), [0, 5, 2, 2]);
    assert_eq!(keys_of(session, &ALL), before);
    let (count, damaged) = session.check_objects().unwrap();
    assert_eq!((count, damaged.len()), (7, 0));
    export_to(session, &Scope::Token, &world.path("again")).unwrap();
}

#[test]
fn one_key_is_taken_out_of_a_larger_backup_and_others_are_left_alone() {
    let world = World::new();
    let (path, _) = world.export(&Scope::Token, "backup");
    let keys = ManagedKeys::of(&world.session);
    keys.set_state(&name("bob", "ed25519"), 1, State::Disabled).unwrap();
    keys.set_state(&name("alice", "aes256"), 1, State::Disabled).unwrap();
    let scope = Scope::new("bob", "ed25519").unwrap();
    let done = restore(Place::Session(&world.session), &path, &scope, &Secrets::default(), "replace").unwrap();
    assert_eq!(counts(&done), [0, 0, 2, 0]);
    assert!(keys.active(&name("bob", "ed25519")).is_ok());
    assert!(keys.active(&name("alice", "aes256")).is_err());
}

#[test]
fn what_is_restored_of_an_owner_removes_nothing_of_others() {
    let world = World::new();
    let (alice, _) = world.export(&Scope::new("alice", "").unwrap(), "alice");
    let keys = ManagedKeys::of(&world.session);
    keys.rotate(&name("alice", "p256"), 2).unwrap();
    let others = keys_of(&world.session, &ALL[1..]);
    let done = restore(Place::Session(&world.session), &alice, &Scope::Token, &Secrets::default(), "replace remove");
    // Version 3 goes, and version 2 is the active one again; both halves of each.
    assert_eq!(counts(&done.unwrap()), [0, 3, 2, 2]);
    assert_eq!(keys_of(&world.session, &ALL[1..]), others);
    // The same for another token, and for keys that a larger backup gives.
    let target = world.target("first");
    let session = token(&target, "other");
    fill_one(&session, "carol");
    restore(Place::Session(&session), &alice, &Scope::Token, &with_pin(), "replace remove").unwrap();
    let (whole, _) = world.export(&Scope::Token, "whole");
    let scope = Scope::new("bob", "").unwrap();
    restore(Place::Session(&session), &whole, &scope, &with_pin(), "replace remove").unwrap();
    assert_eq!(keys_of(&session, &[("carol", "ed25519"), ("alice", "p256"), ("bob", "ed25519")]).len(), 3);
}

#[test]
fn a_recovery_envelope_that_was_removed_stays_removed_in_a_token_that_is_there() {
    let world = World::new();
    let path = world.path("backup");
    as_so(&world.source, |session| {
        Recovery::add_password(session, "old", &secret(PASSWORD))?;
        export_to(session, &Scope::Token, &path)?;
        Recovery::remove(session, "old")?;
        Recovery::add_password(session, "new", &secret(PASSWORD))
    })
    .unwrap();
    let session = user(&world.source, PIN);
    let done = restore(Place::Session(&session), &path, &Scope::Token, &Secrets::default(), "replace remove").unwrap();
    assert_eq!(counts(&done), [0, 7, 0, 0]);
    let list = Recovery::list(&session).unwrap();
    assert_eq!((list.as_array().unwrap().len(), list[0]["name"].as_str()), (1, Some("new")));
}

#[test]
fn keys_of_another_token_are_sealed_anew() {
    let world = World::new();
    let scope = Scope::new("alice", "").unwrap();
    let (path, report) = world.export(&scope, "alice");
    assert_eq!((report["records"].as_u64(), report["scope"].as_str()), (Some(5), Some("owner")));
    let target = world.target("second");
    let session = token(&target, "other");
    let done = restore(Place::Session(&session), &path, &Scope::Token, &with_pin(), "").unwrap();
    assert_eq!(counts(&done), [5, 0, 0, 0]);
    let again = restore(Place::Session(&session), &path, &Scope::Token, &with_pin(), "").unwrap();
    assert_eq!(counts(&again), [0, 5, 0, 0]);
    // Everything but the unique ids is the same.
    let without_ids = |mut list: Vec<Json>| {
        list.iter_mut().flat_map(|list| list.as_array_mut().unwrap()).for_each(|version| {
            version.as_object_mut().unwrap().remove("unique_id").unwrap();
        });
        list
    };
    let names = &ALL[..2];
    assert_eq!(without_ids(keys_of(&session, names)), without_ids(keys_of(&world.session, names)));
    assert_ne!(keys_of(&session, names), keys_of(&world.session, names));
    // The source's own store may hold both tokens.
    let neighbour = token(&world.source, "neighbour");
    let done = restore(Place::Session(&neighbour), &path, &Scope::Token, &with_pin(), "").unwrap();
    assert_eq!(counts(&done), [5, 0, 0, 0]);
    assert_eq!(without_ids(keys_of(&neighbour, names)), without_ids(keys_of(&world.session, names)));
    // A key that is there under this name and is another one stays.
    let strange = token(&world.target("first"), "strange");
    ManagedKeys::of(&strange).generate(&name("alice", "p256")).unwrap();
    let (kind, why) =
        text(restore(Place::Session(&strange), &path, &Scope::Token, &with_pin(), "replace").unwrap_err());
    assert!(kind == Kind::ActionProhibited && why.contains("the p256 key of alice is not in the backup"), "{why}");
}

#[test]
fn a_restore_under_another_kms_needs_that_one_alone_from_then_on() {
    let world = World::new();
    let (path, _) = world.export(&Scope::Token, "backup");
    let target = world.target("second");
    restore(Place::Library(&target), &path, &Scope::Token, &with_pin(), "").unwrap();
    user(&target, PIN);
    as_so(&target, |_| Ok(())).unwrap();
    // A backup of what was restored opens without the first provider.
    let (moved, session) = (world.path("moved"), user(&target, PIN));
    export_to(&session, &Scope::Token, &moved).unwrap();
    let mut second_alone = world.providers.clone();
    second_alone.remove("first");
    let alone = library(&second_alone, "second", PinSource::Prompt);
    restore(Place::Library(&alone), &moved, &Scope::Token, &with_pin(), "").unwrap();
    let session = user(&alone, PIN);
    assert_eq!(sign(&session, "bob"), sign(&world.session, "bob"));
    // Without any provider that wrapped it, it says which key it needs.
    let (kind, why) = text(restore(Place::Library(&alone), &path, &Scope::Token, &with_pin(), "").unwrap_err());
    assert!(kind == Kind::DeviceError && why.contains("`ephemeral` of type local"), "{why}");
}

/// A provider of a type that the other library does not have.
struct Elsewhere(LocalKms);

impl KmsProvider for Elsewhere {
    fn kind(&self) -> &'static str {
        "cloud"
    }

    fn wrap_key(&self, secret: &SecureBytes, context: &KmsContext<'_>) -> Result<Wrapped> {
        self.0.wrap_key(secret, context)
    }

    fn unwrap_key(&self, wrapped: &Wrapped, context: &KmsContext<'_>) -> Result<SecureBytes> {
        self.0.unwrap_key(wrapped, context)
    }

    fn rotate_master_key(&self) -> Result<MasterKeyId> {
        self.0.rotate_master_key()
    }

    fn describe(&self) -> Result<Description> {
        self.0.describe()
    }
}

#[test]
fn an_unknown_provider_is_named_and_a_known_one_takes_the_token_over() {
    let mut both = providers();
    both.insert("cloud".to_owned(), Arc::new(Elsewhere(LocalKms::ephemeral().unwrap())));
    let source = library(&both, "cloud", PinSource::Prompt);
    let session = token(&source, "wallet");
    fill(&session);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backup");
    export_to(&session, &Scope::Token, &path).unwrap();
    assert_eq!(inspect(&path).unwrap()["kms"]["provider"], "cloud");
    let mut local_alone = both.clone();
    local_alone.remove("cloud");
    let without = library(&local_alone, "first", PinSource::Prompt);
    let (kind, why) = text(restore(Place::Library(&without), &path, &Scope::Token, &with_pin(), "").unwrap_err());
    assert!(kind == Kind::DeviceError && why.contains("of type cloud") && why.contains("[kms."), "{why}");
    assert_eq!(without.slots(true).unwrap().len(), 1, "nothing was restored");
    let with = library(&both, "first", PinSource::Prompt);
    restore(Place::Library(&with), &path, &Scope::Token, &with_pin(), "").unwrap();
    let session = user(&with, PIN);
    let again = folder.path().join("again");
    export_to(&session, &Scope::Token, &again).unwrap();
    assert_eq!(inspect(&again).unwrap()["kms"]["provider"], "local", "it is under the configured provider now");
    restore(Place::Library(&without), &again, &Scope::Token, &with_pin(), "").unwrap();
    assert_eq!(sign(&user(&without, PIN), "bob"), sign(&session, "bob"));
}

#[test]
fn a_new_pin_keeps_what_the_master_key_is_now() {
    let world = World::new();
    as_so(&world.source, |session| Recovery::add_password(session, "paper", &secret(PASSWORD))).unwrap();
    let path = world.path("backup");
    let session = user(&world.source, PIN);
    export_to(&session, &Scope::Token, &path).unwrap();
    session.rotate_master_key().unwrap();
    session.move_kms("second").unwrap();
    let forgotten =
        Secrets { password: Some(secret(PASSWORD)), new_pin: Some(secret("user-new")), ..Secrets::default() };
    restore(Place::Library(&world.source), &path, &Scope::Token, &forgotten, "").unwrap();
    world.source.close_all_sessions(world.source.slots(true).unwrap()[0]).unwrap();
    // The configuration says `first`, so it is under that one again, and under its newest version.
    let session = user(&world.source, "user-new");
    let later = world.path("later");
    export_to(&session, &Scope::Token, &later).unwrap();
    assert_eq!(inspect(&later).unwrap()["kms"]["version"], 2);
}

#[test]
fn a_recovery_needs_neither_kms_nor_pins_and_sets_pins_anew() {
    let world = World::new();
    let folder = world.folder.path().to_owned();
    as_so(&world.source, |session| {
        Recovery::add_password(session, "paper", &secret(PASSWORD))?;
        Recovery::add_kms(session, "other", "second")?;
        Recovery::add_shares(session, "people", (3, 5), |shares| write_share_files(&folder, "wallet", shares))
    })
    .unwrap();
    let session = user(&world.source, PIN);
    let (path, signature) = (world.path("backup"), sign(&session, "bob"));
    let report = export_to(&session, &Scope::Token, &path).unwrap();
    assert_eq!(report["recovery"].as_array().unwrap().len(), 3);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    assert_eq!(files.len(), 5);
    let shares = |count| read_share_files(&files[..count]).unwrap();

    // Nothing of the source is left but the backup: another world, whose KMS is new.
    let mut elsewhere = providers();
    elsewhere.insert("second".to_owned(), world.providers["second"].clone());
    let pins =
        |secrets| Secrets { new_so_pin: Some(secret("so-new-pin")), new_pin: Some(secret("user-new")), ..secrets };
    let by = [
        Secrets { password: Some(secret(PASSWORD)), ..Secrets::default() },
        Secrets { shares: shares(3), ..Secrets::default() },
        Secrets { shares: shares(5), ..Secrets::default() },
        Secrets::default(),
    ];
    for secrets in by {
        let target = library(&elsewhere, "first", PinSource::Prompt);
        let (kind, why) = text(restore(Place::Library(&target), &path, &Scope::Token, &secrets, "").unwrap_err());
        assert!(kind == Kind::DeviceError && why.contains("new SO PIN"), "{why}");
        let done = restore(Place::Library(&target), &path, &Scope::Token, &pins(secrets), "").unwrap();
        assert_eq!(counts(&done), [10, 0, 0, 0], "{done}");
        let session = user(&target, "user-new");
        assert_eq!(sign(&session, "bob"), signature);
        // The envelopes are there again, and the old PIN is not.
        assert_eq!(Recovery::list(&session).unwrap().as_array().unwrap().len(), 3);
        session.logout().unwrap();
        assert_eq!(session.login(CKU_USER, Some(secret(PIN))).unwrap_err().kind(), Kind::PinIncorrect);
    }
    // With the KMS there and the PINs forgotten, on the token that is in use, whose keys are newer than the backup's.
    ManagedKeys::of(&session).rotate(&name("alice", "p256"), 2).unwrap();
    fill_one(&session, "carol");
    let (kept, names) = (|session: &Session| keys_of(session, &ALL), &world.source);
    let (before, after) = (kept(&session), session.audit_end().unwrap());
    let forgotten =
        Secrets { password: Some(secret(PASSWORD)), new_pin: Some(secret("user-new")), ..Secrets::default() };
    for flags in ["dry", ""] {
        let done = restore(Place::Library(names), &path, &Scope::Token, &forgotten, flags).unwrap();
        assert_eq!((counts(&done), &done["token"]["became"]), ([0; 4], &Json::from("pins")));
    }
    names.close_all_sessions(names.slots(true).unwrap()[0]).unwrap();
    let session = user(names, "user-new");
    assert_eq!(kept(&session), before);
    sign(&session, "carol");
    let told = trail(&session, after);
    assert!(told.iter().any(|record| record.0 == "SR_ImportBackup" && record.2.contains("PINs")), "{told:?}");
    as_so(names, |_| Ok(())).unwrap();
}

#[test]
fn wrong_recovery_secrets_say_what_is_wrong() {
    let world = World::new();
    let folder = world.folder.path().to_owned();
    let add = |name: &'static str| {
        as_so(&world.source, |session| {
            Recovery::add_shares(session, name, (2, 2), |shares| {
                let kept = write_share_files(&folder, "wallet", shares)?;
                std::fs::write(folder.join(name), std::fs::read(&kept.files[0]).unwrap()).unwrap();
                Ok(kept)
            })
        })
        .unwrap();
    };
    add("one");
    add("two");
    let path = world.path("backup");
    export_to(&user(&world.source, PIN), &Scope::Token, &path).unwrap();
    let target = world.target("second");
    let verify =
        |secrets: &Secrets| text(super::verify(Place::Library(&target), &path, secrets, &mut |_| {}).unwrap_err());
    let files = |names: &[&str]| {
        let paths: Vec<_> = names.iter().map(|name| folder.join(name)).collect();
        Secrets { shares: read_share_files(&paths).unwrap(), ..Secrets::default() }
    };
    let (kind, why) = verify(&files(&["one"]));
    assert!(kind == Kind::ArgumentsBad && why.contains("too few") && why.contains("2 of set"), "{why}");
    let (kind, why) = verify(&files(&["one", "two"]));
    assert!(kind == Kind::ArgumentsBad && why.contains("another set"), "{why}");
    let (kind, why) = verify(&files(&["one", "one"]));
    assert!(kind == Kind::ArgumentsBad && why.contains("do not fit together"), "{why}");
    let (kind, why) = verify(&Secrets { password: Some(secret(PASSWORD)), ..Secrets::default() });
    assert!(kind == Kind::ArgumentsBad && why.contains("`one` (2 shares of set"), "{why}");
    let (kind, why) = verify(&Secrets { pin: Some(secret("wrong-pin")), ..Secrets::default() });
    assert_eq!(kind, Kind::PinIncorrect, "{why}");
    let (kind, why) = verify(&Secrets::default());
    assert!(kind == Kind::ArgumentsBad && why.contains("nothing was given"), "{why}");
    let sets_pins = Secrets { new_pin: Some(secret("user-new")), ..with_pin() };
    let (kind, why) = text(restore(Place::Library(&target), &path, &Scope::Token, &sets_pins, "").unwrap_err());
    assert!(kind == Kind::ArgumentsBad && why.contains("after the restore"), "{why}");
    assert!(target.slots(true).unwrap().len() == 1, "nothing was restored");
}

#[test]
fn recovery_envelopes_are_the_sos_and_are_no_objects() {
    let world = World::new();
    let add = |session: &Session, name: &str| Recovery::add_password(session, name, &secret(PASSWORD));
    assert_eq!(add(&world.session, "paper").unwrap_err().kind(), Kind::UserNotLoggedIn);
    as_so(&world.source, |session| {
        add(session, "paper")?;
        assert_eq!(add(session, "paper").unwrap_err().kind(), Kind::ActionProhibited);
        assert_eq!(add(session, "").unwrap_err().kind(), Kind::ArgumentsBad);
        let short = Recovery::add_password(session, "short", &secret("fifteen letters"));
        assert_eq!(short.unwrap_err().kind(), Kind::PinLenRange);
        assert_eq!(Recovery::add_kms(session, "x", "nowhere").unwrap_err().kind(), Kind::ArgumentsBad);
        (1..16).try_for_each(|number| Recovery::add_kms(session, &number.to_string(), "second"))?;
        assert_eq!(Recovery::add_kms(session, "17th", "second").unwrap_err().kind(), Kind::ActionProhibited);
        (1..16).try_for_each(|number| Recovery::remove(session, &number.to_string()))?;
        assert_eq!(Recovery::remove(session, "1").unwrap_err().kind(), Kind::ObjectHandleInvalid);
        Ok(())
    })
    .unwrap();
    let session = user(&world.source, PIN);
    for template in [Attributes::new(), [(CKA_CLASS, Value::Ulong(CKO_SR_RECOVERY))].into_iter().collect()] {
        session.find_init(template).unwrap();
        let found = session.find(1000).unwrap();
        session.find_final().unwrap();
        let classes = session_classes(&session, &found);
        assert!(!classes.contains(&CKO_SR_RECOVERY), "{classes:?}");
    }
    let list = Recovery::list(&session).unwrap();
    assert_eq!((list.as_array().unwrap().len(), list[0]["name"].as_str()), (1, Some("paper")));
    assert_eq!(list[0]["created"], NOW);
}

fn session_classes(session: &Session, found: &[CK_OBJECT_HANDLE]) -> Vec<CK_OBJECT_CLASS> {
    found.iter().map(|object| session.all_attributes(*object).unwrap().ulong(CKA_CLASS).unwrap()).collect()
}

#[test]
fn shares_that_were_not_kept_leave_no_envelope_and_no_file() {
    let world = World::new();
    let folder = world.path("shares");
    std::fs::create_dir(&folder).unwrap();
    let failed = as_so(&world.source, |session| {
        Recovery::add_shares(session, "people", (2, 3), |shares| {
            let mut kept = write_share_files(&folder, "wallet", shares)?;
            kept.shares.pop();
            kept.shares.pop();
            Ok(kept)
        })
    });
    assert!(failed.unwrap_err().message().contains("not kept"));
    let failed = as_so(&world.source, |session| {
        Recovery::add_shares(session, "people", (2, 3), |shares| {
            write_share_files(&folder.join("nowhere"), "wallet", shares)
        })
    });
    assert_eq!(failed.unwrap_err().kind(), Kind::FunctionFailed);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    let session = user(&world.source, PIN);
    assert_eq!(Recovery::list(&session).unwrap(), Json::Array(Vec::new()));
}

#[test]
fn the_so_backs_up_a_token_and_no_key() {
    let world = World::new();
    let path = world.path("backup");
    as_so(&world.source, |session| {
        let refused = export_to(session, &Scope::new("alice", "").unwrap(), &path).unwrap_err();
        assert_eq!(refused.kind(), Kind::UserNotLoggedIn);
        export_to(session, &Scope::Token, &path)
    })
    .unwrap();
    // The SO PIN opens it, too.
    let secrets = Secrets { pin: Some(secret(SO_PIN)), ..Secrets::default() };
    let report = super::verify(Place::Library(&world.source), &path, &secrets, &mut |_| {}).unwrap();
    assert_eq!((&report["records"], &report["opened_by"]), (&Json::from(7), &Json::from("pin")));
    let missing = export_to(&user(&world.source, PIN), &Scope::new("nobody", "").unwrap(), &world.path("nobody"));
    assert_eq!(missing.unwrap_err().kind(), Kind::KeyHandleInvalid);
    assert!(!world.path("nobody").exists());
}

#[test]
fn a_token_that_was_initialised_again_is_given_up_only_if_it_is_said() {
    let world = World::new();
    let (path, _) = world.export(&Scope::Token, "backup");
    let slot = world.source.slots(true).unwrap()[0];
    world.source.close_all_sessions(slot).unwrap();
    let mut label = [b' '; 32];
    label[..3].copy_from_slice(b"new");
    world.source.init_token(slot, Some(secret(SO_PIN)), &label).unwrap();
    let (kind, why) =
        text(restore(Place::Library(&world.source), &path, &Scope::Token, &with_pin(), "replace").unwrap_err());
    assert!(kind == Kind::ActionProhibited && why.contains("initialised again"), "{why}");
    // What is looked at leaves no record under a key that is not the token's any more.
    super::verify(Place::Library(&world.source), &path, &with_pin(), &mut |_| {}).unwrap();
    assert!(as_so(&world.source, |session| session.verify_audit(None)).unwrap().is_clean());
    let done = restore(Place::Library(&world.source), &path, &Scope::Token, &with_pin(), "remove").unwrap();
    assert_eq!((counts(&done), &done["token"]["became"]), ([7, 0, 0, 0], &Json::from("replaced")));
    let session = user(&world.source, PIN);
    assert_eq!((session.token_label().unwrap().as_str(), keys_of(&session, &ALL).len()), ("wallet", 3));
}

#[test]
fn a_token_without_a_pin_is_restored_by_its_kms_alone() {
    let providers = providers();
    let source = library(&providers, "first", PinSource::Machine);
    let slot = source.slots(true).unwrap()[0];
    source.init_token(slot, Some(secret(SO_PIN)), b"machine                         ").unwrap();
    let session = open(&source, slot);
    fill_one(&session, "bob");
    // Nobody can log in as SO here; the user adds the envelope.
    Recovery::add_password(&session, "paper", &secret(PASSWORD)).unwrap();
    let (folder, signature) = (tempfile::tempdir().unwrap(), sign(&session, "bob"));
    let path = folder.path().join("backup");
    export_to(&session, &Scope::Token, &path).unwrap();
    let target = library(&providers, "second", PinSource::Machine);
    let done = restore(Place::Library(&target), &path, &Scope::Token, &Secrets::default(), "").unwrap();
    assert_eq!(done["opened_by"], "kms");
    assert_eq!(sign(&open(&target, target.slots(true).unwrap()[0]), "bob"), signature);
    // With the KMS lost, the new one opens it; only the SO's PIN is to be given.
    let elsewhere = library(&self::providers(), "first", PinSource::Machine);
    let secrets = Secrets { password: Some(secret(PASSWORD)), new_so_pin: Some(secret(SO_PIN)), ..Secrets::default() };
    restore(Place::Library(&elsewhere), &path, &Scope::Token, &secrets, "").unwrap();
    assert_eq!(sign(&open(&elsewhere, elsewhere.slots(true).unwrap()[0]), "bob"), signature);
}

#[test]
fn a_restore_goes_where_it_can_go() {
    let world = World::new();
    let (whole, _) = world.export(&Scope::Token, "whole");
    let (key, _) = world.export(&Scope::new("bob", "ed25519").unwrap(), "key");
    let target = world.target("first");
    let other = token(&target, "other");
    let refused = |place, path: &Path, scope: &Scope, part: &str| {
        let (kind, why) = text(restore(place, path, scope, &with_pin(), "").unwrap_err());
        assert!(kind == Kind::ArgumentsBad && why.contains(part), "{why}");
    };
    refused(Place::Library(&target), &key, &Scope::Token, "open a session");
    refused(Place::Library(&target), &whole, &Scope::new("bob", "").unwrap(), "open a session");
    refused(Place::Session(&other), &whole, &Scope::Token, "name the owner");
    assert!(Scope::new("", "btc").is_err() && Scope::new("a\u{1}", "").is_err() && Scope::new("a", "doge").is_err());
    assert!(Asset::named("ed25519").is_ok());
    // A key that the backup does not have is none to restore.
    let none = restore(Place::Session(&other), &key, &Scope::new("nobody", "").unwrap(), &with_pin(), "").unwrap();
    assert_eq!(counts(&none), [0, 0, 0, 0]);
}

/// The operations in a token's audit trail from a record on, each with its result and detail.
fn trail(session: &Session, after: u64) -> Vec<(String, String, String)> {
    let mut records = Vec::new();
    session
        .export_audit(after, &mut |_, line| {
            let line: Json = serde_json::from_str(line).unwrap();
            records.push(
                ["operation", "result", "detail"].map(|field| line[field].as_str().unwrap_or("").to_owned()).into(),
            );
            Ok(())
        })
        .unwrap();
    records
}

#[test]
fn r75_a_backup_its_verification_and_its_restore_leave_records() {
    let world = World::new();
    let recorded = |session: &Session, after: u64, wanted: &[(&str, &str, &str)]| {
        let found = trail(session, after);
        let found: Vec<_> = found.iter().filter(|record| record.0.starts_with("SR_")).collect();
        assert_eq!(found.len(), wanted.len(), "{found:?}");
        for (found, wanted) in found.iter().zip(wanted) {
            assert_eq!((found.0.as_str(), found.1.as_str()), (wanted.0, wanted.1), "{found:?}");
            assert!(found.2.contains(wanted.2), "{found:?}");
        }
    };
    let before = world.session.audit_end().unwrap();
    as_so(&world.source, |session| {
        Recovery::add_password(session, "paper", &secret(PASSWORD))?;
        Recovery::add_kms(session, "other", "second")?;
        Recovery::remove(session, "other")
    })
    .unwrap();
    let session = user(&world.source, PIN);
    assert!(Recovery::add_password(&session, "x", &secret(PASSWORD)).is_err());
    let path = world.path("backup");
    export_to(&session, &Scope::Token, &path).unwrap();
    super::verify(Place::Library(&world.source), &path, &with_pin(), &mut |_| {}).unwrap();
    let wrong = Secrets { pin: Some(secret("wrong-pin")), ..Secrets::default() };
    assert!(super::verify(Place::Library(&world.source), &path, &wrong, &mut |_| {}).is_err());
    restore(Place::Session(&session), &path, &Scope::Token, &Secrets::default(), "dry").unwrap();
    ManagedKeys::of(&session).set_state(&name("bob", "ed25519"), 1, State::Disabled).unwrap();
    assert!(restore(Place::Session(&session), &path, &Scope::Token, &Secrets::default(), "").is_err());
    for flags in ["", "dry"] {
        assert!(restore(Place::Library(&world.source), &path, &Scope::Token, &with_pin(), flags).is_err());
    }
    restore(Place::Session(&session), &path, &Scope::Token, &Secrets::default(), "replace").unwrap();
    let of_source = [
        ("SR_AddRecoveryPassword", "CKR_OK", "paper"),
        ("SR_AddRecoveryKms", "CKR_OK", "other"),
        ("SR_RemoveRecovery", "CKR_OK", "other"),
        ("SR_AddRecoveryPassword", "CKR_USER_NOT_LOGGED_IN", "x"),
        ("SR_ExportBackup", "CKR_OK", "token"),
        ("SR_VerifyBackup", "CKR_OK", "opened by pin"),
        ("SR_VerifyBackup", "CKR_PIN_INCORRECT", ""),
        ("SR_SetVersionState", "CKR_OK", ""),
        ("SR_ImportBackup", "CKR_ACTION_PROHIBITED", ""),
        ("SR_ImportBackup", "CKR_ACTION_PROHIBITED", ""),
        ("SR_ImportBackup", "CKR_OK", "0 added, 2 replaced, 0 removed"),
    ];
    recorded(&session, before, &of_source);
    assert!(session.verify_audit(None).unwrap().is_clean(), "the trail is whole");

    // A restored token starts a trail of its own, whose first record is the restore, signed.
    let target = world.target("first");
    restore(Place::Library(&target), &path, &Scope::Token, &with_pin(), "").unwrap();
    let session = user(&target, PIN);
    recorded(&session, 0, &[("SR_ImportBackup", "CKR_OK", "8 added, 0 replaced, 0 removed")]);
    assert!(session.verify_audit(None).unwrap().is_clean());
}

// -- The document

#[test]
fn every_flipped_byte_every_cut_and_every_moved_line_is_found() {
    let world = World::new();
    as_so(&world.source, |session| Recovery::add_kms(session, "other", "second")).unwrap();
    let path = world.path("backup");
    export_to(&user(&world.source, PIN), &Scope::new("bob", "").unwrap(), &path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let altered = world.path("altered");
    let found = |bytes: &[u8], what: &str| {
        std::fs::write(&altered, bytes).unwrap();
        let answer = super::verify(Place::Library(&world.source), &altered, &with_pin(), &mut |_| {});
        let (kind, why) = text(answer.err().unwrap_or_else(|| panic!("{what} was not found")));
        assert_eq!(kind, Kind::DataInvalid, "{what}: {why}");
        assert!(
            ["another copy", "newer Strongroom", "no backup of Strongroom"].iter().any(|part| why.contains(part)),
            "{why}"
        );
    };
    for at in 0..whole.len() {
        for mask in [1, 0x80] {
            let mut bytes = whole.clone();
            bytes[at] ^= mask;
            found(&bytes, &format!("byte {at} ^ {mask:#x}"));
        }
    }
    (0..whole.len()).for_each(|end| found(&whole[..end], &format!("cut at {end}")));
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    for line in 0..lines.len() {
        for other in line + 1..lines.len() {
            let mut moved = lines.clone();
            moved.swap(line, other);
            found(&moved.concat(), &format!("lines {line} and {other}"));
        }
        let mut doubled = lines.clone();
        doubled.insert(line, lines[line]);
        found(&doubled.concat(), &format!("line {line} twice"));
        let mut without = lines.clone();
        without.remove(line);
        found(&without.concat(), &format!("without line {line}"));
    }
    found(&[&whole[..], b"\n"].concat(), "something behind the end");
}

/// Makes the checksum anew, as an attacker can, who has no key.
fn with_checksum(text: &str) -> Vec<u8> {
    use sha2::Digest;
    let at = text.find("\"end\":").unwrap();
    let (before, end) = text.split_at(at);
    let mut end: Json =
        serde_json::from_str(end.strip_prefix("\"end\":").unwrap().strip_suffix("}\n").unwrap()).unwrap();
    end["sha256"] = data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(before)).into();
    end["records"] = before.matches("\"uid\"").count().into();
    let (records, sha256, mac) = (&end["records"], &end["sha256"], &end["mac"]);
    format!("{before}\"end\":{{\"records\":{records},\"sha256\":{sha256},\"mac\":{mac}}}}}\n").into_bytes()
}

#[test]
fn an_attacker_who_makes_the_checksum_anew_is_found_by_the_mac() {
    let world = World::new();
    let (path, _) = world.export(&Scope::Token, "backup");
    let text_of = std::fs::read_to_string(&path).unwrap();
    assert_eq!(with_checksum(&text_of), text_of.as_bytes());
    let lines: Vec<&str> = text_of.split_inclusive('\n').collect();
    let without =
        |at: usize| lines.iter().enumerate().filter(|(line, _)| *line != at).map(|(_, line)| *line).collect::<String>();
    let altered = world.path("altered");
    for (what, forged) in [
        ("a record less", without(5)),
        ("another time", text_of.replace("\"created\":1767225600,\"library\"", "\"created\":1767225601,\"library\"")),
        ("wrong tries forgotten", text_of.replace("\"so_failures\":0", "\"so_failures\":9")),
        ("another policy", text_of.replace("\"plaintext\":\"never\"", "\"plaintext\":\"compat\"")),
        ("another version of the KMS key", text_of.replace("\"version\":1},\"policy\"", "\"version\":2},\"policy\"")),
    ] {
        assert_ne!(forged, text_of, "{what}");
        std::fs::write(&altered, with_checksum(&forged)).unwrap();
        // It looks whole without the key.
        inspect(&altered).unwrap();
        let (kind, why) =
            text(super::verify(Place::Library(&world.source), &altered, &with_pin(), &mut |_| {}).unwrap_err());
        assert!(kind == Kind::DataInvalid && why.contains("altered"), "{what}: {why}");
        let target = world.target("first");
        assert!(restore(Place::Library(&target), &altered, &Scope::Token, &with_pin(), "").is_err());
        assert_eq!(target.slots(true).unwrap().len(), 1, "{what}: nothing was restored");
    }
}

#[test]
fn r37_a_backup_tells_in_its_head_what_opens_it_and_reveals_nothing() {
    let world = World::new();
    let canary = "canary owner";
    let keys = ManagedKeys::of(&world.session);
    keys.generate(&name(canary, "aes256")).unwrap();
    let (path, report) = world.export(&Scope::new(canary, "").unwrap(), "backup");
    let shown = inspect(&path).unwrap();
    assert_eq!(shown["kms"], serde_json::json!({ "provider": "local", "key": "ephemeral", "version": 1 }));
    assert_eq!(
        (&shown["token"]["label"], &shown["scope"], &shown["format"]),
        (&"wallet".into(), &"owner".into(), &1.into())
    );
    assert_eq!((&shown["records"], &report["kms"]), (&1.into(), &shown["kms"]));
    // It is JSON, as any reader of it finds, and a secret key shows not even its owner.
    let text = std::fs::read_to_string(&path).unwrap();
    let json: Json = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["strongroom_backup"], json["records"].as_array().unwrap().len()), (&1.into(), 1));
    assert!(!text.contains("canary") && !text.contains(&data_encoding::BASE64.encode(canary.as_bytes())[..12]));
    let report = super::verify(Place::Session(&world.session), &path, &Secrets::default(), &mut |_| {}).unwrap();
    assert_eq!((&report["opened_by"], &report["kms_opens"]), (&"session".into(), &true.into()));
    assert_eq!(
        (&report["managed_keys"], &report["versions"], &report["objects"]["secret_keys"]),
        (&1.into(), &1.into(), &1.into())
    );
}

#[test]
fn what_is_no_backup_or_of_a_newer_version_is_told_so() {
    let world = World::new();
    let (path, _) = world.export(&Scope::Token, "backup");
    let text_of = std::fs::read_to_string(&path).unwrap();
    let other = world.path("other");
    for (content, part) in [
        (text_of.replacen("_backup\":1,", "_backup\":2,", 1), "newer Strongroom"),
        (text_of.replacen("_backup\":1,", "_backup\":01,", 1), "version of the format"),
        (String::new(), "no backup of Strongroom"),
        ("{\"other\":1}\n".to_owned(), "no backup of Strongroom"),
    ] {
        std::fs::write(&other, content).unwrap();
        let (kind, why) = text(inspect(&other).unwrap_err());
        assert!(kind == Kind::DataInvalid && why.contains(part), "{why}");
    }
    assert_eq!(inspect(&world.path("nowhere")).unwrap_err().kind(), Kind::FunctionFailed);
    assert_eq!(inspect(world.folder.path()).unwrap_err().kind(), Kind::DataInvalid);
    let refused = export_to(&world.session, &Scope::Token, &path).unwrap_err();
    assert_eq!(refused.kind(), Kind::ActionProhibited);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text_of);
}
