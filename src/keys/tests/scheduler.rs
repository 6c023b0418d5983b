//! The scheduler, at an interval of its own, on the clock of the test.

use std::time::{Duration, Instant};

use super::*;

/// So short that a test sees many looks.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(120);

/// A token whose keys are rotated by themselves.
fn attended(rotation: Rotation) -> Fixture {
    let (library, clock) = library("memory:", profile(rotation));
    Fixture::open(library.attended_by(Arc::new(Scheduler::new(INTERVAL))), clock)
}

fn activity(fixture: &Fixture, field: &str) -> serde_json::Value {
    let status = fixture.library.attendant_status().unwrap();
    serde_json::from_str::<serde_json::Value>(&status).unwrap()[field].clone()
}

/// Waits until something is so.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits for so many more looks.
fn wait_for_looks(fixture: &Fixture, count: u64) {
    let looks = || activity(fixture, "looks").as_u64().unwrap();
    let before = looks();
    wait_until("it has looked", || looks() >= before + count);
}

fn version_of(fixture: &Fixture, name: &Name) -> u64 {
    fixture.keys().active(name).unwrap().number
}

#[test]
fn a_due_key_is_rotated_while_its_user_is_logged_in_and_only_then() {
    let fixture = attended(Rotation::default());
    assert_eq!(activity(&fixture, "looks"), 0, "without managed keys nothing is started");
    let name = name("user", "p256");
    fixture.keys().generate(&name).unwrap();
    wait_for_looks(&fixture, 2);
    assert_eq!((version_of(&fixture, &name), activity(&fixture, "rotated")), (1, 0.into()));
    fixture.pass_days(90);
    wait_until("the key is rotated", || version_of(&fixture, &name) == 2);
    wait_until("it is counted", || activity(&fixture, "rotated") == 1);
    // Nobody is logged in: nothing happens, and nothing is said of it.
    fixture.session.logout().unwrap();
    fixture.pass_days(90);
    let looks = activity(&fixture, "looks");
    std::thread::sleep(INTERVAL * 5);
    assert!(activity(&fixture, "looks").as_u64() <= looks.as_u64().map(|looks| looks + 1), "a look that was under way");
    fixture.session.login(CKU_USER, pin()).unwrap();
    wait_until("the next login is noticed", || version_of(&fixture, &name) == 3);
    assert!(activity(&fixture, "last_error").is_null());
    // Once the library ends, it looks no more.
    fixture.library.shutdown();
    let looks = activity(&fixture, "looks");
    std::thread::sleep(INTERVAL * 5);
    assert_eq!(activity(&fixture, "looks"), looks);
}

#[test]
fn keys_that_wait_for_their_name_are_left() {
    let fixture = attended(Rotation { auto_rotate: false, ..Rotation::default() });
    let (one, other) = (name("user", "p256"), name("user", "ed25519"));
    fixture.keys().generate(&one).unwrap();
    fixture.keys().generate(&other).unwrap();
    fixture.keys().set_policy(&other, Rotation::default()).unwrap();
    fixture.pass_days(91);
    wait_until("the key with rules of its own is rotated", || version_of(&fixture, &other) == 2);
    wait_for_looks(&fixture, 2);
    assert_eq!(version_of(&fixture, &one), 1);
}

#[test]
fn uses_make_a_key_due_too() {
    let fixture = attended(Rotation { max_uses: 20, ..Rotation::default() });
    let name = name("user", "p256");
    fixture.keys().generate(&name).unwrap();
    for _ in 0..100 {
        let key = fixture.keys().active(&name).unwrap().handle;
        // Until it is rotated it may be refused.
        wait_until("it signs", || fixture.sign(key).is_ok() || fixture.keys().active(&name).unwrap().handle != key);
    }
    wait_until("it is rotated", || version_of(&fixture, &name) > 3);
}

#[test]
fn what_goes_wrong_is_told_once_and_tried_less_and_less_often() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    crate::log::configure(crate::log::Level::Warn, Some(&file)).unwrap();
    let fixture = attended(Rotation::default());
    let (good, bad) = (name("good one", "p256"), name("bad one", "p256"));
    fixture.keys().generate(&good).unwrap();
    fixture.keys().generate(&bad).unwrap();
    let halve = fixture.session.change(fixture.session.event("test"), |change| {
        let halves = change.find_latest(&bad.template())?;
        let mut attributes = halves[0].attributes().clone();
        attributes.set(CKA_SR_VERSION, 7);
        change.update(&halves[0], attributes)
    });
    halve.unwrap();
    fixture.pass_days(90);
    wait_until("the other key is rotated", || version_of(&fixture, &good) == 2);
    wait_for_looks(&fixture, 4);
    assert!(activity(&fixture, "last_error").as_str().unwrap().contains("bad one"));
    let log = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("bad one")).collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("is due and could not be rotated"), "{lines:?}");
    // Five pauses in a row have doubled four times.
    let start = Instant::now();
    wait_for_looks(&fixture, 2);
    assert!(start.elapsed() > INTERVAL * 14, "the pauses did not grow: {:?}", start.elapsed());
    // Mended, it is rotated, and that is all there is to say.
    let mend = fixture.session.change(fixture.session.event("test"), |change| {
        for half in change.find(&bad.template())? {
            let mut attributes = half.attributes().clone();
            attributes.set(CKA_SR_VERSION, 1);
            change.update(&half, attributes)?;
        }
        Ok(())
    });
    mend.unwrap();
    wait_until("the mended key is rotated", || version_of(&fixture, &bad) == 2);
    wait_until("nothing is wrong any more", || activity(&fixture, "last_error").is_null());
    fixture.library.shutdown();
}
