//! Backups of keys that have a data key of their own.

use super::*;
use crate::seal::WrappedBy;

const EVERY: &[&str] = &["first", "second"];

/// A source whose KMS has the scope of keys.
fn world() -> World {
    let providers = providers();
    let source = scoped_library(&providers, "first", PinSource::Prompt, EVERY);
    let session = token(&source, "wallet");
    fill(&session);
    World { folder: tempfile::tempdir().unwrap(), providers, source, session }
}

fn data_key(session: &Session, (owner, asset): (&str, &str)) -> Option<WrappedBy> {
    let handle = ManagedKeys::of(session).active(&name(owner, asset)).unwrap().handle;
    session.data_key_of(handle).unwrap()
}

/// Takes what says how a key is sealed out of the descriptions of keys.
fn plain(mut keys: Vec<Json>) -> Vec<Json> {
    let versions = keys.iter_mut().flat_map(|key| key.as_array_mut().unwrap());
    versions.for_each(|version| drop(version.as_object_mut().unwrap().remove("data_key").unwrap()));
    keys
}

#[test]
fn a_token_is_put_back_with_its_data_keys_and_a_second_time_is_nothing_to_do() {
    let world = world();
    let (path, report) = world.export(&Scope::Token, "backup");
    assert_eq!((report["records"].as_u64(), report["data_keys"].as_u64()), (Some(7), Some(4)), "{report}");
    let target = scoped_library(&world.providers, "first", PinSource::Prompt, EVERY);
    let place = Place::Library(&target);
    let verified = verify(place, &path, &with_pin(), &mut |_| {}).unwrap();
    assert_eq!(verified["data_keys"], 4);
    let done = restore(place, &path, &Scope::Token, &with_pin(), "").unwrap();
    assert_eq!(counts(&done), [7, 0, 0, 0]);
    let session = user(&target, PIN);
    assert_eq!(keys_of(&session, &ALL), keys_of(&world.session, &ALL));
    assert_eq!(sign(&session, "bob"), sign(&world.session, "bob"));
    assert!(data_key(&session, ALL[0]).is_some());
    // Wrapped anew or taken off, they are the same keys.
    session.rotate_master_key().unwrap();
    let again = restore(Place::Session(&session), &path, &Scope::Token, &Secrets::default(), "").unwrap();
    assert_eq!(counts(&again), [0, 7, 0, 0]);
    session.move_kms("second").unwrap();
    let again = restore(Place::Session(&session), &path, &Scope::Token, &Secrets::default(), "replace").unwrap();
    assert_eq!(counts(&again), [0, 7, 0, 0]);
    // A key that differs is not taken for the same one, and one that is gone comes back.
    ManagedKeys::of(&session).set_state(&name("bob", "ed25519"), 1, State::Disabled).unwrap();
    let place = Place::Session(&session);
    assert_eq!(
        text(restore(place, &path, &Scope::Token, &Secrets::default(), "").unwrap_err()).0,
        Kind::ActionProhibited
    );
    assert_eq!(counts(&restore(place, &path, &Scope::Token, &Secrets::default(), "replace").unwrap()), [0, 5, 2, 0]);
    assert_eq!(sign(&session, "bob"), sign(&world.session, "bob"));
}

#[test]
fn keys_that_come_into_another_token_are_sealed_as_its_kms_wants_it() {
    let world = world();
    let (path, _) = world.export(&Scope::new("bob", "").unwrap(), "bob");
    for (scoped, label) in [(EVERY, "scoped"), (&[][..], "plain")] {
        let target = scoped_library(&world.providers, "second", PinSource::Prompt, scoped);
        let session = token(&target, label);
        let place = Place::Session(&session);
        let tried = restore(place, &path, &Scope::Token, &with_pin(), "dry").unwrap();
        assert_eq!(counts(&tried), [2, 0, 0, 0]);
        let done = restore(place, &path, &Scope::Token, &with_pin(), "").unwrap();
        assert_eq!(counts(&done), [2, 0, 0, 0], "{label}");
        assert_eq!(data_key(&session, ("bob", "ed25519")).is_some(), !scoped.is_empty(), "{label}");
        assert_eq!(sign(&session, "bob"), sign(&world.session, "bob"));
        let before = keys_of(&session, &ALL[2..]);
        assert_eq!(
            counts(&restore(place, &path, &Scope::Token, &with_pin(), "replace").unwrap()),
            [0, 2, 0, 0],
            "{label}"
        );
        assert_eq!(keys_of(&session, &ALL[2..]), before);
        assert_eq!(plain(before).len(), 1);
    }
    // And what had none gets one, where the KMS of its new token has the scope of keys.
    let source = World::new();
    let (path, report) = source.export(&Scope::new("alice", "").unwrap(), "alice");
    assert_eq!(report["data_keys"].as_u64(), Some(0));
    let target = scoped_library(&source.providers, "second", PinSource::Prompt, EVERY);
    let session = token(&target, "scoped");
    for expected in [[5, 0, 0, 0], [0, 5, 0, 0]] {
        let done = restore(Place::Session(&session), &path, &Scope::Token, &with_pin(), "").unwrap();
        assert_eq!(counts(&done), expected);
    }
    assert!(ALL[..2].iter().all(|name| data_key(&session, *name).is_some()));
}

#[test]
fn without_the_kms_of_the_data_keys_nothing_is_restored() {
    let world = world();
    let (path, _) = world.export(&Scope::Token, "backup");
    let (bob, _) = world.export(&Scope::new("bob", "").unwrap(), "bob");
    // The providers have the same names and types, and other keys.
    let target = scoped_library(&providers(), "first", PinSource::Prompt, EVERY);
    let session = token(&target, "other");
    for (path, place) in [(&path, Place::Library(&target)), (&bob, Place::Session(&session))] {
        let (kind, why) = text(restore(place, path, &Scope::Token, &with_pin(), "").unwrap_err());
        assert_eq!(kind, Kind::DeviceError);
        assert!(why.contains("`ephemeral`"), "{why}");
    }
    assert!(ManagedKeys::of(&session).latest(&name("bob", "ed25519")).is_err());
    // The token key in hand does not help: the data key is what is missing, and the error says whose.
    let scope = Scope::new("bob", "").unwrap();
    let same = scoped_library(&world.providers, "first", PinSource::Prompt, EVERY);
    restore(Place::Library(&same), &path, &Scope::Token, &with_pin(), "").unwrap();
    let session = user(&same, PIN);
    session.move_kms("second").unwrap();
    let (path, _) = {
        let path = world.path("moved");
        (path.clone(), export_to(&session, &scope, &path).unwrap())
    };
    // A session of the source: it has the token key, and a configuration without the second KMS.
    let alone: Providers = [("first".to_owned(), world.providers["first"].clone())].into();
    let target = scoped_library(&alone, "first", PinSource::Prompt, &["first"]);
    let (backup, _) = world.export(&Scope::Token, "again");
    restore(Place::Library(&target), &backup, &Scope::Token, &with_pin(), "").unwrap();
    let session = user(&target, PIN);
    let before = keys_of(&session, &ALL);
    let error = restore(Place::Session(&session), &path, &scope, &Secrets::default(), "replace").unwrap_err();
    let (kind, why) = text(error);
    assert_eq!(kind, Kind::DeviceError);
    assert!(why.contains("the data key of object") && why.contains("under the local KMS key `ephemeral`"), "{why}");
    assert_eq!(keys_of(&session, &ALL), before);
    assert_eq!(sign(&session, "bob"), sign(&world.session, "bob"));
}

#[test]
fn a_backup_brings_no_data_keys_into_a_token_with_recovery_envelopes() {
    let world = world();
    let scope = Scope::new("bob", "").unwrap();
    let (path, _) = world.export(&scope, "bob");
    let target = scoped_library(&world.providers, "second", PinSource::Prompt, EVERY);
    drop(token(&target, "other"));
    as_so(&target, |session| Recovery::add_password(session, "emergency", &secret(PASSWORD))).unwrap();
    let session = user(&target, PIN);
    let (kind, why) = text(restore(Place::Session(&session), &path, &scope, &with_pin(), "").unwrap_err());
    assert_eq!(kind, Kind::ActionProhibited);
    assert!(why.contains("recovery envelopes"), "{why}");
    // Where they are sealed under the token key alone, they may come.
    let target = scoped_library(&world.providers, "second", PinSource::Prompt, &[]);
    drop(token(&target, "other"));
    as_so(&target, |session| Recovery::add_password(session, "emergency", &secret(PASSWORD))).unwrap();
    let session = user(&target, PIN);
    restore(Place::Session(&session), &path, &scope, &with_pin(), "").unwrap();
    assert_eq!(sign(&session, "bob"), sign(&world.session, "bob"));
}
