//! Managed keys with a data key of their own (`scope = "key"`), and what their KMS is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::*;
use crate::error::{Error, KmsFault, Result as LibraryResult};
use crate::keys::backup::Recovery;
use crate::kms::{Context, Description, KmsProvider, MasterKeyId, Wrapped};
use crate::store::Store;

/// A local KMS that counts what it is asked, and fails when it is told to: from the request of that number on.
struct Counted {
    inner: LocalKms,
    unwraps: AtomicUsize,
    wraps: AtomicUsize,
    fault: Mutex<Option<(usize, KmsFault)>>,
    /// How often no thread was left to look a name up.
    starved: AtomicUsize,
}

impl Counted {
    fn new(name: &str, key: u8) -> Arc<Self> {
        let inner = LocalKms::new();
        inner.add_master_key(name, SecureBytes::copy_from(&[key; 32])).unwrap();
        Arc::new(Self {
            inner,
            unwraps: AtomicUsize::new(0),
            wraps: AtomicUsize::new(0),
            fault: Mutex::new(None),
            starved: AtomicUsize::new(0),
        })
    }

    /// Tells the unwraps and the wraps since it was asked last.
    fn asked(&self) -> (usize, usize) {
        (self.unwraps.swap(0, Ordering::SeqCst), self.wraps.swap(0, Ordering::SeqCst))
    }

    /// Lets so many requests pass, and then fails each.
    fn fail_after(&self, requests: usize, fault: KmsFault) {
        *self.fault.lock() = Some((requests, fault));
    }

    fn heal(&self) {
        *self.fault.lock() = None;
    }

    /// Does what a cloud's client does on the threads of the runtime, where there is one: a name is looked up on one for what blocks.
    fn look_up(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (tell, told) = mpsc::channel();
        runtime.spawn(async move { tell.send(tokio::task::spawn_blocking(|| ()).await.is_ok()).unwrap() });
        if told.recv_timeout(Duration::from_secs(10)) != Ok(true) {
            self.starved.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn step(&self) -> LibraryResult<()> {
        self.look_up();
        match &mut *self.fault.lock() {
            None => Ok(()),
            Some((0, fault)) => Err(Error::kms(*fault, "a fault of the test")),
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl KmsProvider for Counted {
    fn kind(&self) -> &'static str {
        "local"
    }

    fn wrap_key(&self, secret: &SecureBytes, context: &Context<'_>) -> LibraryResult<Wrapped> {
        self.wraps.fetch_add(1, Ordering::SeqCst);
        self.step()?;
        self.inner.wrap_key(secret, context)
    }

    fn unwrap_key(&self, wrapped: &Wrapped, context: &Context<'_>) -> LibraryResult<SecureBytes> {
        self.unwraps.fetch_add(1, Ordering::SeqCst);
        self.step()?;
        self.inner.unwrap_key(wrapped, context)
    }

    fn rotate_master_key(&self) -> LibraryResult<MasterKeyId> {
        self.inner.rotate_master_key()
    }

    fn describe(&self) -> LibraryResult<Description> {
        self.inner.describe()
    }
}

/// A store, and two providers of which one may have the scope of keys.
struct World {
    store: Arc<dyn Store>,
    first: Arc<Counted>,
    second: Arc<Counted>,
    clock: Arc<AtomicU64>,
}

impl World {
    fn new() -> Self {
        let store = store::open("memory:", &OpenOptions::default()).unwrap();
        let clock = Arc::new(AtomicU64::new(START));
        Self { store, first: Counted::new("first", 1), second: Counted::new("second-kms", 2), clock }
    }

    /// Opens the store as a process does whose configuration gives these providers the scope of keys.
    fn open(&self, scoped: &[&str]) -> Fixture {
        self.open_under(self.first.clone(), scoped)
    }

    fn open_under(&self, primary: Arc<Counted>, scoped: &[&str]) -> Fixture {
        self.open_library(primary, scoped, |library| library)
    }

    fn open_library(&self, primary: Arc<Counted>, scoped: &[&str], attend: impl FnOnce(Library) -> Library) -> Fixture {
        let (store, told) = (self.store.clone(), self.clock.clone());
        let mut profile = profile(Rotation::default());
        let provider = |kms: &Arc<Counted>| -> Arc<dyn KmsProvider> { kms.clone() };
        let named = [("first", &self.first), ("second", &self.second)];
        let named: BTreeMap<_, _> = named.map(|(name, kms)| (name.to_owned(), provider(kms))).into();
        let scoped: BTreeSet<_> = scoped.iter().map(|name| (*name).to_owned()).collect();
        let sealer = Sealer::new(primary, Argon2Params::new(1024, 1, 1).unwrap());
        profile.sealer = Arc::new(sealer.with_providers(Arc::new(named)).with_data_keys_of(Arc::new(scoped)));
        let library = Library::new(Parts {
            open_store: Box::new(move || Ok(store.clone())),
            profiles: Profiles { default: profile, named: HashMap::new() },
            trail: Arc::new(Trail::new(audit::Rules { mode: Mode::Required, key_use: false, copies: Vec::new() })),
            fault: None,
            status: String::new(),
            clock: Arc::new(move || told.load(Ordering::Relaxed)),
        });
        let library = attend(library);
        let slot = library.slots(true).unwrap()[0];
        if library.slots(true).unwrap().len() > 1 {
            let handle = library.open_session(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION).unwrap();
            let session = library.session(handle).unwrap();
            session.login(CKU_USER, pin()).unwrap();
            return Fixture { library, session, clock: self.clock.clone() };
        }
        Fixture::open(library, self.clock.clone())
    }

    fn asked(&self) -> [(usize, usize); 2] {
        [self.first.asked(), self.second.asked()]
    }
}

fn handle(fixture: &Fixture, name: &Name) -> CK_OBJECT_HANDLE {
    fixture.keys().active(name).unwrap().handle
}

/// Tells provider's key and version of a key's data key, if it has one of its own.
fn data_key(fixture: &Fixture, name: &Name, version: u64) -> Option<(String, u32)> {
    let handle = fixture.keys().version(name, version).unwrap().handle;
    let by = fixture.session.data_key_of(handle).unwrap()?;
    assert_eq!(by.provider, "local");
    Some((by.master_key.key, by.master_key.version))
}

fn under(key: &str, version: u32) -> Option<(String, u32)> {
    Some((key.to_owned(), version))
}

fn names(count: usize) -> Vec<Name> {
    (0..count).map(|number| name(&format!("owner {number}"), "p256")).collect()
}

#[test]
fn each_key_asks_the_kms_once_a_login_and_signatures_ask_nothing() {
    let world = World::new();
    let fixture = world.open(&["first"]);
    world.asked();
    let names = names(3);
    for name in &names {
        fixture.keys().generate(name).unwrap();
    }
    assert_eq!(world.asked(), [(0, 3), (0, 0)]);
    let again = world.open(&["first"]);
    assert_eq!(world.asked(), [(1, 0), (0, 0)], "the token");
    for name in &names {
        for _ in 0..100 {
            again.sign(handle(&again, name)).unwrap();
        }
        assert_eq!(world.asked(), [(1, 0), (0, 0)], "the first use");
    }
    // What is read again, or looked at, or changed, is not asked for again.
    let label = with(&[(CKA_LABEL, Value::from(b"another".as_slice()))]);
    again.session.set_attributes(handle(&again, &names[0]), label).unwrap();
    again.sign(handle(&again, &names[0])).unwrap();
    again.keys().info(&names[0]).unwrap();
    assert_eq!(world.asked(), [(0, 0), (0, 0)]);
    again.session.logout().unwrap();
    again.session.login(CKU_USER, pin()).unwrap();
    again.sign(handle(&again, &names[1])).unwrap();
    assert_eq!(world.asked(), [(2, 0), (0, 0)], "the token and one key");
    let info: serde_json::Value = serde_json::from_str(&again.keys().info(&names[1]).unwrap()).unwrap();
    assert_eq!(info["data_key"], serde_json::json!({"provider": "local", "key": "first", "version": 1}));
}

#[test]
fn counting_uses_costs_no_request() {
    let world = World::new();
    let fixture = world.open(&["first"]);
    let name = name("owner", "aes256");
    fixture.keys().generate(&name).unwrap();
    world.asked();
    for _ in 0..50 {
        super::uses::encrypt(&fixture.session, CKM_SR_SEALED, handle(&fixture, &name)).unwrap();
    }
    assert_eq!(world.asked(), [(1, 0), (0, 0)], "its uses were written meanwhile");
}

#[test]
fn what_the_kms_answers_comes_out_and_the_key_opens_when_it_is_back() {
    let world = World::new();
    world.open(&["first"]).keys().generate(&name("owner", "p256")).unwrap();
    for (fault, round) in [(KmsFault::Denied, 0), (KmsFault::Unreachable, 1), (KmsFault::Disabled, 2)] {
        let fixture = world.open(&["first"]);
        let key = handle(&fixture, &name("owner", "p256"));
        world.first.fail_after(0, fault);
        let call = || Call { mechanism: mechanism::find(CKM_ECDSA).unwrap(), params: Params::None };
        let error = fixture.session.sign_init(Some(call()), key).unwrap_err();
        assert_eq!((error.kind(), error.kms_fault()), (Kind::DeviceError, Some(fault)), "{round}: {error}");
        assert!(error.message().contains("`first` version 1"), "{error}");
        // Nor is a key made or rotated, and nothing is changed.
        let made = fixture.keys().generate(&name("other", "p256")).unwrap_err();
        assert_eq!(made.kms_fault(), Some(fault));
        assert_eq!(fixture.keys().rotate(&name("owner", "p256"), 0).unwrap_err().kms_fault(), Some(fault));
        assert!(fixture.keys().active(&name("other", "p256")).is_err());
        world.first.heal();
        fixture.sign(key).unwrap();
        check_sound(&fixture, &[name("owner", "p256")]);
    }
}

#[test]
fn what_was_there_stays_until_it_is_rotated() {
    let world = World::new();
    let plain = world.open(&[]);
    let name = name("owner", "p256");
    plain.keys().generate(&name).unwrap();
    let scoped = world.open(&["first"]);
    scoped.sign(handle(&scoped, &name)).unwrap();
    assert_eq!(data_key(&scoped, &name, 1), None);
    scoped.keys().rotate(&name, 0).unwrap();
    assert_eq!((data_key(&scoped, &name, 1), data_key(&scoped, &name, 2)), (None, under("first", 1)));
    scoped.sign(handle(&scoped, &name)).unwrap();
    // And the other way round, where the scope is the token again.
    let plain = world.open(&[]);
    plain.sign(handle(&plain, &name)).unwrap();
    plain.keys().rotate(&name, 0).unwrap();
    assert_eq!((data_key(&plain, &name, 2), data_key(&plain, &name, 3)), (under("first", 1), None));
}

#[test]
fn due_keys_cost_a_data_key_each_and_a_kms_that_fails_leaves_them_due() {
    let world = World::new();
    let fixture = world.open(&["first"]);
    let names = names(5);
    names.iter().for_each(|name| drop(fixture.keys().generate(name).unwrap()));
    fixture.pass_days(91);
    world.asked();
    world.first.fail_after(3, KmsFault::Unreachable);
    let report = fixture.keys().rotate_due(100).unwrap();
    assert_eq!((report.rotated.len(), report.failed.len()), (3, 2));
    assert_eq!(report.failed[0].error.kms_fault(), Some(KmsFault::Unreachable));
    world.first.heal();
    world.asked();
    assert_eq!(fixture.keys().rotate_due(100).unwrap().rotated.len(), 2);
    assert_eq!(world.asked(), [(0, 2), (0, 0)]);
    for name in &names {
        assert_eq!(data_key(&fixture, name, 2), under("first", 1));
        fixture.sign(handle(&fixture, name)).unwrap();
    }
    check_sound(&fixture, &names);
}

#[test]
fn the_scheduler_rotates_them_on_threads_that_their_kms_needs_too() {
    let world = World::new();
    let interval = Duration::from_millis(20);
    let attend = |library: Library| library.attended_by(Arc::new(Scheduler::new(interval)));
    let fixture = world.open_library(world.first.clone(), &["first"], attend);
    // Another token whose looks wait for those at the first one.
    let slot = *fixture.library.slots(true).unwrap().last().unwrap();
    fixture.library.init_token(slot, pin(), b"other                           ").unwrap();
    let handle = fixture.library.open_session(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION).unwrap();
    let other = fixture.library.session(handle).unwrap();
    other.login(CKU_SO, pin()).unwrap();
    other.init_pin(pin()).unwrap();
    other.logout().unwrap();
    other.login(CKU_USER, pin()).unwrap();
    let names = names(5);
    for keys in [fixture.keys(), ManagedKeys::of(&other)] {
        names.iter().for_each(|name| drop(keys.generate(name).unwrap()));
    }
    fixture.pass_days(91);
    let start = Instant::now();
    let is_done = |keys: ManagedKeys<'_>| names.iter().all(|name| keys.active(name).unwrap().number == 2);
    while !(is_done(fixture.keys()) && is_done(ManagedKeys::of(&other))) {
        assert!(start.elapsed() < Duration::from_secs(120), "waited in vain until they are rotated");
        std::thread::sleep(Duration::from_millis(2));
    }
    names.iter().for_each(|name| assert_eq!(data_key(&fixture, name, 2), under("first", 1)));
    fixture.library.shutdown();
    assert_eq!(world.first.starved.load(Ordering::SeqCst), 0);
}

#[test]
fn a_key_with_a_password_has_both_seals() {
    let world = World::new();
    let fixture = world.open(&["first"]);
    let (name, password, other) = (
        name("owner", "p256"),
        SecureBytes::copy_from(b"its own password"),
        SecureBytes::copy_from(b"another password"),
    );
    fixture.keys().generate_with_password(&name, &password).unwrap();
    fixture.keys().rotate_with_passwords(&name, 0, Passwords { old: Some(&password), new: None }).unwrap();
    let fixture = world.open(&["first"]);
    world.asked();
    world.first.fail_after(0, KmsFault::Denied);
    assert_eq!(fixture.keys().unlock(&name, 0, &password, 0).unwrap_err().kms_fault(), Some(KmsFault::Denied));
    world.first.heal();
    world.asked();
    let left = |fixture: &Fixture| {
        let info: serde_json::Value = serde_json::from_str(&fixture.keys().info(&name).unwrap()).unwrap();
        info["password_tries_left"].as_u64()
    };
    assert_eq!(left(&fixture), Some(10), "a KMS that is away is no wrong password");
    assert_eq!(fixture.keys().unlock(&name, 0, &other, 0).unwrap_err().kind(), Kind::PinIncorrect);
    assert_eq!(left(&fixture), Some(9));
    let key = fixture.keys().unlock(&name, 0, &password, 0).unwrap();
    fixture.sign(key).unwrap();
    assert_eq!(world.asked(), [(1, 0), (0, 0)]);
    // Another password for both versions: the data keys stay, and the one that was not open is asked for.
    assert_eq!(fixture.keys().change_password(&name, &password, &other).unwrap(), 0);
    assert_eq!(world.asked(), [(1, 0), (0, 0)]);
    for version in [1, 2] {
        assert_eq!(data_key(&fixture, &name, version), under("first", 1));
        assert_eq!(fixture.keys().unlock(&name, version, &password, 0).unwrap_err().kind(), Kind::PinIncorrect);
        fixture.keys().unlock(&name, version, &other, 0).unwrap();
    }
    // Rotated and moved, the password is the same.
    fixture.session.rotate_master_key().unwrap();
    fixture.session.move_kms("second").unwrap();
    let fixture = world.open_under(world.second.clone(), &[]);
    assert_eq!(fixture.keys().unlock(&name, 1, &password, 0).unwrap_err().kind(), Kind::PinIncorrect);
    let key = fixture.keys().unlock(&name, 1, &other, 0).unwrap();
    fixture.sign(key).unwrap();
    assert_eq!(data_key(&fixture, &name, 1), None, "the second has the scope of tokens");
}

#[test]
fn a_rotation_of_the_master_key_wraps_each_data_key_anew() {
    let world = World::new();
    let fixture = world.open(&["first"]);
    let names = names(40);
    names.iter().for_each(|name| drop(fixture.keys().generate(name).unwrap()));
    fixture.sign(handle(&fixture, &names[0])).unwrap();
    world.asked();
    let change = fixture.session.rotate_master_key().unwrap();
    assert_eq!((change.version, change.keys), (2, 40));
    assert_eq!(world.asked(), [(39, 41), (0, 0)], "one is open already, and the envelope is wrapped");
    for name in &names {
        assert_eq!(data_key(&fixture, name, 1), under("first", 2));
        fixture.sign(handle(&fixture, name)).unwrap();
    }
    let again = world.open(&["first"]);
    names.iter().for_each(|name| drop(again.sign(handle(&again, name)).unwrap()));
    // The first process goes on with what it has open.
    world.asked();
    names.iter().for_each(|name| drop(fixture.sign(handle(&fixture, name)).unwrap()));
    assert_eq!(world.asked(), [(0, 0), (0, 0)]);
}

#[test]
fn a_rotation_that_breaks_off_is_finished_by_the_next() {
    let world = World::new();
    let fixture = world.open(&["first"]);
    let names = names(40);
    names.iter().for_each(|name| drop(fixture.keys().generate(name).unwrap()));
    // Of 1 + 2 × 40 requests, so many pass: within the first transaction, at its end, in the middle, before the last.
    for passing in [1, 2, 20, 32, 33, 50, 80] {
        let fixture = world.open(&["first"]);
        world.first.fail_after(passing, KmsFault::Unreachable);
        let error = fixture.session.rotate_master_key().unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::Unreachable), "{passing}: {error}");
        assert!(
            passing < 1 || error.message().contains("of 40 keys are under the local KMS key"),
            "{passing}: {error}"
        );
        world.first.heal();
        let done = names.iter().filter(|name| data_key(&fixture, name, 1) == data_key(&fixture, &names[0], 1)).count();
        assert!(done > 0);
        let again = world.open(&["first"]);
        names.iter().for_each(|name| drop(again.sign(handle(&again, name)).unwrap()));
    }
    let change = world.open(&["first"]).session.rotate_master_key().unwrap();
    assert_eq!(change.keys, 40);
    let fixture = world.open(&["first"]);
    for name in &names {
        assert_eq!(data_key(&fixture, name, 1), under("first", change.version));
        fixture.sign(handle(&fixture, name)).unwrap();
    }
}

#[test]
fn a_move_takes_data_keys_along_gives_them_or_takes_them_off() {
    let world = World::new();
    let fixture = world.open(&[]);
    let (plain, scoped) = (name("plain", "p256"), name("scoped", "aes256"));
    fixture.keys().generate(&plain).unwrap();
    let fixture = world.open(&["first"]);
    fixture.keys().generate(&scoped).unwrap();
    // To a KMS that has the scope of keys: all of them have data keys there.
    let fixture = world.open(&["first", "second"]);
    world.asked();
    let change = fixture.session.move_kms("second").unwrap();
    assert_eq!((change.key.as_str(), change.keys), ("second-kms", 2));
    assert_eq!(world.asked(), [(1, 0), (1 + 2, 1 + 2)]);
    assert_eq!(
        (data_key(&fixture, &plain, 1), data_key(&fixture, &scoped, 1)),
        (under("second-kms", 1), under("second-kms", 1))
    );
    fixture.sign(handle(&fixture, &plain)).unwrap();
    world.first.fail_after(0, KmsFault::NotFound);
    let fixture = world.open_under(world.second.clone(), &["second"]);
    fixture.sign(handle(&fixture, &plain)).unwrap();
    // Once more does nothing but wrap the envelope, and see of keys that the other local KMS might have made that it has not.
    world.asked();
    assert_eq!(fixture.session.move_kms("second").unwrap().keys, 0);
    assert_eq!(world.asked(), [(0, 0), (1 + 2, 1)]);
    // Back to one with the scope of tokens: nothing is left.
    world.first.heal();
    let fixture = world.open_under(world.second.clone(), &["second"]);
    assert_eq!(fixture.session.move_kms("first").unwrap().keys, 2);
    assert_eq!((data_key(&fixture, &plain, 1), data_key(&fixture, &scoped, 1)), (None, None));
    world.second.fail_after(0, KmsFault::NotFound);
    let fixture = world.open(&["second"]);
    fixture.sign(handle(&fixture, &plain)).unwrap();
    check_sound(&fixture, &[plain, scoped]);
}

#[test]
fn a_move_that_breaks_off_needs_both_until_the_next_one_has_gone_on() {
    let world = World::new();
    let fixture = world.open(&["first", "second"]);
    let names = names(40);
    names.iter().for_each(|name| drop(fixture.keys().generate(name).unwrap()));
    let places =
        |fixture: &Fixture| names.iter().filter(|name| data_key(fixture, name, 1) == under("second-kms", 1)).count();
    let mut done = 0;
    // The new KMS fails, the old one fails: what is done stays done, and all of it opens.
    for (number, fault) in [(2 + 2 * 5, KmsFault::Unreachable), (2 + 5 + 2 * 5 + 1, KmsFault::Denied)] {
        let fixture = world.open(&["first", "second"]);
        world.second.fail_after(number, fault);
        let error = fixture.session.move_kms("second").unwrap_err();
        assert_eq!(error.kms_fault(), Some(fault), "{error}");
        world.second.heal();
        assert!(places(&fixture) > done, "{error}");
        done = places(&fixture);
        assert!(error.message().contains(&format!("{} are left as they were", 40 - done)), "{done}: {error}");
        let again = world.open(&["first", "second"]);
        names.iter().for_each(|name| drop(again.sign(handle(&again, name)).unwrap()));
    }
    let fixture = world.open(&["first", "second"]);
    world.first.fail_after(3, KmsFault::TimedOut);
    assert_eq!(fixture.session.move_kms("second").unwrap_err().kms_fault(), Some(KmsFault::TimedOut));
    world.first.heal();
    assert_eq!(places(&fixture), done + 3);
    // The envelope has moved already, and the configuration with it.
    let fixture = world.open_under(world.second.clone(), &["first", "second"]);
    assert_eq!(fixture.session.move_kms("second").unwrap().keys, 40 - done - 3);
    world.first.fail_after(0, KmsFault::NotFound);
    let fixture = world.open_under(world.second.clone(), &["second"]);
    names.iter().for_each(|name| drop(fixture.sign(handle(&fixture, name)).unwrap()));
}

#[test]
fn keys_that_change_while_a_rotation_is_under_way_lose_nothing() {
    let world = World::new();
    let fixture = world.open(&["first"]);
    let names = names(24);
    names.iter().for_each(|name| drop(fixture.keys().generate(name).unwrap()));
    let other = world.open(&["first"]);
    std::thread::scope(|scope| {
        let rename = scope.spawn(|| {
            for round in 0..4 {
                for name in &names {
                    let label = with(&[(CKA_LABEL, Value::from(format!("label {round}").as_bytes()))]);
                    other.session.set_attributes(handle(&other, name), label).unwrap();
                    other.sign(handle(&other, name)).unwrap();
                }
            }
        });
        let mut left = 0;
        while !rename.is_finished() || left < 2 {
            match fixture.session.rotate_master_key() {
                Ok(_) => left += 1,
                // So many changes that it has given up: it says so, and the next one goes on.
                Err(error) => assert_eq!(error.kind(), Kind::FunctionFailed, "{error}"),
            }
        }
    });
    let last = fixture.session.rotate_master_key().unwrap();
    let fixture = world.open(&["first"]);
    for name in &names {
        assert_eq!(data_key(&fixture, name, 1), under("first", last.version));
        fixture.sign(handle(&fixture, name)).unwrap();
        let facts = fixture.session.all_attributes(handle(&fixture, name)).unwrap();
        assert_eq!(facts.bytes(CKA_LABEL), Some(b"label 3".as_slice()));
    }
}

#[test]
fn threads_that_use_a_key_first_make_one_request() {
    let world = World::new();
    let fixture = world.open(&["first"]);
    let name = name("owner", "p256");
    fixture.keys().generate(&name).unwrap();
    let fixture = world.open(&["first"]);
    let key = handle(&fixture, &name);
    world.asked();
    let slot = fixture.library.slots(true).unwrap()[0];
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let handle = fixture.library.open_session(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION).unwrap();
                let session = fixture.library.session(handle).unwrap();
                let call = Call { mechanism: mechanism::find(CKM_ECDSA).unwrap(), params: Params::None };
                session.sign_init(Some(call), key).unwrap();
                session.sign(&[7; 32], Room::Bytes(64)).unwrap();
            });
        }
    });
    assert_eq!(world.asked(), [(1, 0), (0, 0)]);
}

#[test]
fn a_key_that_was_brought_in_has_a_data_key_and_is_known_again() {
    let world = World::new();
    let fixture = world.open(&["first"]);
    let bytes = || SecureBytes::copy_from(&[0x5A; 32]);
    let key = || mechanism::GivenKey::of_value(CKK_AES, Attributes::new(), bytes()).unwrap();
    let name = name("owner", "aes256");
    world.asked();
    assert!(!fixture.keys().import(&name, key()).unwrap().present);
    assert_eq!(world.asked(), [(0, 1), (0, 0)]);
    assert_eq!(data_key(&fixture, &name, 1), under("first", 1));
    // The same one is known again, which takes its data key, and another one is refused.
    assert!(fixture.keys().import(&name, key()).unwrap().present);
    let other = mechanism::GivenKey::of_value(CKK_AES, Attributes::new(), SecureBytes::copy_from(&[0x5B; 32])).unwrap();
    assert_eq!(fixture.keys().import(&name, other).unwrap_err().kind(), Kind::ActionProhibited);
    assert_eq!(world.asked(), [(1, 0), (0, 0)]);
}

#[test]
fn recovery_envelopes_and_data_keys_are_not_for_one_token() {
    let world = World::new();
    let fixture = world.open(&["first"]);
    let name = name("owner", "p256");
    fixture.keys().generate(&name).unwrap();
    let as_so = |fixture: &Fixture, work: &dyn Fn(&Session) -> LibraryResult<()>| {
        fixture.session.logout().unwrap();
        fixture.session.login(CKU_SO, pin()).unwrap();
        let answer = work(&fixture.session);
        fixture.session.logout().unwrap();
        fixture.session.login(CKU_USER, pin()).unwrap();
        answer
    };
    let password = SecureBytes::copy_from(b"a password of sixteen and more");
    let add = |session: &Session| Recovery::add_password(session, "emergency", &password);
    let error = as_so(&fixture, &add).unwrap_err();
    assert_eq!(error.kind(), Kind::ActionProhibited, "{error}");
    assert!(error.message().contains("scope = \"token\"") && error.message().contains("SR_RotateMasterKey"), "{error}");
    // As it says: with the scope of tokens, a rotation takes them off, and then there may be an envelope.
    let fixture = world.open(&[]);
    assert_eq!(fixture.session.rotate_master_key().unwrap().keys, 1);
    as_so(&fixture, &add).unwrap();
    fixture.sign(handle(&fixture, &name)).unwrap();
    // The other way round.
    let fixture = world.open(&["first", "second"]);
    world.asked();
    for error in [
        fixture.keys().generate(&super::name("other", "p256")).unwrap_err(),
        fixture.keys().rotate(&name, 0).unwrap_err(),
        fixture.session.rotate_master_key().unwrap_err(),
        fixture.session.move_kms("second").unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::ActionProhibited, "{error}");
        assert!(
            error.message().contains("recovery envelopes") && error.message().contains("scope = \"token\""),
            "{error}"
        );
    }
    assert_eq!(world.asked(), [(0, 0), (0, 0)], "nothing was asked, and no version made");
    as_so(&fixture, &|session| Recovery::remove(session, "emergency")).unwrap();
    fixture.keys().rotate(&name, 0).unwrap();
    assert_eq!(data_key(&fixture, &name, 2), under("first", fixture_version(&world)));
}

fn fixture_version(world: &World) -> u32 {
    world.first.describe().unwrap().master_key.version
}

#[test]
fn the_so_rotates_and_moves_too() {
    let world = World::new();
    let fixture = world.open(&["first"]);
    let names = names(3);
    names.iter().for_each(|name| drop(fixture.keys().generate(name).unwrap()));
    fixture.session.logout().unwrap();
    fixture.session.login(CKU_SO, pin()).unwrap();
    assert_eq!(fixture.session.rotate_master_key().unwrap().keys, 3);
    assert_eq!(fixture.session.move_kms("second").unwrap().keys, 3);
    fixture.session.logout().unwrap();
    fixture.session.login(CKU_USER, pin()).unwrap();
    names.iter().for_each(|name| drop(fixture.sign(handle(&fixture, name)).unwrap()));
}

#[test]
fn each_transaction_of_a_rotation_is_recorded_with_its_keys() {
    let world = World::new();
    let fixture = world.open(&["first"]);
    names(20).iter().for_each(|name| drop(fixture.keys().generate(name).unwrap()));
    let before = fixture.session.audit_end().unwrap();
    fixture.session.rotate_master_key().unwrap();
    let mut lines = Vec::new();
    fixture
        .session
        .export_audit(before, &mut |_, line| {
            lines.push(serde_json::from_str::<serde_json::Value>(line).unwrap());
            Ok(())
        })
        .unwrap();
    let of: Vec<_> = lines
        .iter()
        .map(|line| (line["operation"].as_str().unwrap(), line["keys"].as_array().map_or(0, Vec::len)))
        .collect();
    assert_eq!(of, [("SR_RotateMasterKey", 0), ("SR_RotateMasterKey", 16), ("SR_RotateMasterKey", 4)]);
    assert!(fixture.session.verify_audit(None).unwrap().faults.is_empty());
}

#[test]
fn a_kms_that_does_not_open_the_token_makes_no_keys_for_it() {
    let world = World::new();
    let fixture = world.open(&["first", "second"]);
    let name = name("owner", "p256");
    fixture.keys().generate(&name).unwrap();
    // Another process moves the token, and this one goes by the old configuration.
    world.open(&["first", "second"]).session.move_kms("second").unwrap();
    let error = fixture.keys().rotate(&name, 0).unwrap_err();
    assert_eq!(error.kind(), Kind::DeviceError);
    let text = error.message();
    assert!(text.contains("no key was made") && text.contains("`first`") && text.contains("`second-kms`"), "{text}");
    assert_eq!(fixture.keys().latest(&name).unwrap().number, 1);
    fixture.sign(handle(&fixture, &name)).unwrap();
    let fixture = world.open_under(world.second.clone(), &["first", "second"]);
    fixture.keys().rotate(&name, 0).unwrap();
    assert_eq!(data_key(&fixture, &name, 2), under("second-kms", 1));
    // Another name of the key alone is no reason: here the envelope is under an older one, which still opens.
    let next = SecureBytes::copy_from(&[9; 32]);
    world.second.inner.add_master_key("later", next).unwrap();
    world.asked();
    fixture.keys().rotate(&name, 0).unwrap();
    assert_eq!((data_key(&fixture, &name, 3), world.asked()), (under("later", 1), [(0, 0), (1, 1)]));
}
