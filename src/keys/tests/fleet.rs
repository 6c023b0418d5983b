//! A fleet of keys over ten years, under a clock that jumps and rules that change.

use super::*;
use crate::error::Result;

/// How many keys the fleet has.
const KEYS: usize = 24;
/// Ten years.
const END: u64 = START + 3650 * DAY;

/// Numbers that look drawn, and are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What is known of one key between two looks.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    version: u64,
    created: u64,
    due: bool,
}

struct Fleet {
    fixture: Fixture,
    names: Vec<Name>,
    rotations: usize,
    refusals: usize,
}

impl Fleet {
    fn seen(&self, name: &Name) -> Seen {
        let active = self.fixture.keys().active(name).unwrap();
        let now = self.fixture.clock.load(Ordering::Relaxed);
        let rotation = self.fixture.keys().policy(name).unwrap().rotation;
        let due = active.due(rotation, now).is_some_and(|due| due <= now);
        Seen { version: active.number, created: active.attributes.ulong(CKA_SR_CREATED).unwrap(), due }
    }

    /// Rotates what is due, and checks that nothing else was, and that nothing is refused afterwards.
    fn look(&mut self) {
        let before: Vec<_> = self.names.iter().map(|name| self.seen(name)).collect();
        let report = self.fixture.keys().rotate_due(usize::MAX).unwrap();
        assert!(report.failed.is_empty() && report.left.is_empty(), "{report:?}");
        assert!(self.fixture.keys().rotate_due(usize::MAX).unwrap().rotated.is_empty(), "nothing is due twice");
        self.rotations += report.rotated.len();
        let now = self.fixture.clock.load(Ordering::Relaxed);
        for (name, before) in self.names.iter().zip(before) {
            let after = self.seen(name);
            assert_eq!(after.version, before.version + u64::from(before.due), "{name:?}");
            let is_ahead = before.created > now + DAY;
            assert!(after.created >= before.created || is_ahead, "a version is no older than the one before it");
            assert!(after.created <= now + DAY, "no clock that was ahead decides for ever");
            if before.due {
                assert_eq!(after.created, if is_ahead { now } else { now.max(before.created) });
            }
            self.sign(name).unwrap_or_else(|error| panic!("{name:?} is refused after a look: {error}"));
        }
    }

    fn sign(&self, name: &Name) -> Result<()> {
        let key = self.fixture.keys().active(name)?.handle;
        self.fixture.sign(key).map(drop).map_err(crate::error::Error::from)
    }

    /// Counts the keys that are refused before a look.
    fn count_refusals(&mut self) {
        self.refusals += self.names.iter().filter(|name| self.sign(name).is_err()).count();
    }
}

#[test]
fn r33_ten_years_under_a_clock_that_jumps_and_rules_that_change() {
    let rotation = Rotation { interval_days: 90, max_age_days: 120, ..Rotation::default() };
    let (fixture, open) = Fixture::in_file(rotation);
    let names: Vec<_> = (0..KEYS).map(|count| name(&format!("user {count}"), ["eth", "p256"][count % 2])).collect();
    let mut fleet = Fleet { fixture, names, rotations: 0, refusals: 0 };
    for name in fleet.names.clone() {
        fleet.fixture.keys().generate(&name).unwrap();
        fleet.fixture.pass_days(1);
    }
    let (mut numbers, mut jumps, mut is_changed) = (Numbers(1), [0, 0], false);
    let set = |clock: &AtomicU64, time| clock.store(time, Ordering::Relaxed);
    while fleet.fixture.clock.load(Ordering::Relaxed) < END {
        let now = fleet.fixture.clock.load(Ordering::Relaxed);
        match numbers.below(40) {
            // Back: what was made later than it is now by more than a day is due once; nothing old becomes young enough to be forgotten.
            0 => set(&fleet.fixture.clock, (now - numbers.below(100) * DAY).max(START)),
            // Ahead: what is due is rotated once, however long ago it was.
            1 => set(&fleet.fixture.clock, now + numbers.below(400) * DAY),
            _ => fleet.fixture.pass_days(1 + numbers.below(14)),
        }
        jumps[0] += usize::from(fleet.fixture.clock.load(Ordering::Relaxed) < now);
        jumps[1] += usize::from(fleet.fixture.clock.load(Ordering::Relaxed) > now + 120 * DAY);
        if !is_changed && now > (START + END) / 2 {
            // Half of the way: shorter rules for all, and rules of their own for some.
            let clock = fleet.fixture.clock.load(Ordering::Relaxed);
            fleet.fixture = open(Rotation { interval_days: 30, max_age_days: 45, ..rotation });
            set(&fleet.fixture.clock, clock);
            let own = Rotation { interval_days: 200, max_age_days: 0, ..rotation };
            fleet.names.iter().step_by(5).for_each(|name| fleet.fixture.keys().set_policy(name, own).unwrap());
            is_changed = true;
        }
        fleet.count_refusals();
        fleet.look();
    }
    check_sound(&fleet.fixture, &fleet.names);
    let versions: usize = fleet.names.iter().map(|name| fleet.fixture.keys().versions(name).unwrap().len()).sum();
    assert_eq!(versions, fleet.rotations + KEYS);
    assert!(jumps.iter().all(|count| *count > 0) && is_changed, "{jumps:?}");
    // About every 90 days in the first half, every 30 in the second, but for the keys with rules of their own.
    assert!((KEYS * 40..KEYS * 85).contains(&fleet.rotations), "{} rotations", fleet.rotations);
    assert!(fleet.refusals > 0, "a jump past the age was never met with a refusal");
}

#[test]
fn shorter_rules_hold_at_once_and_longer_ones_from_the_next_version_on() {
    let rotation = Rotation { interval_days: 60, max_age_days: 90, ..Rotation::default() };
    let (fixture, open) = Fixture::in_file(rotation);
    let name = name("user", "p256");
    fixture.keys().generate(&name).unwrap();
    let due_after = |fixture: &Fixture| {
        let due = fixture.keys().outlook(36_500).unwrap().soon.pop().unwrap().since;
        (due - START) / DAY
    };
    assert_eq!(due_after(&fixture), 60);
    assert_eq!(due_after(&open(Rotation { interval_days: 20, ..rotation })), 20);
    assert_eq!(due_after(&open(Rotation { interval_days: 80, ..rotation })), 60);
    // What is refused by its age is due then at the latest, with or without an interval.
    assert_eq!(due_after(&open(Rotation { interval_days: 0, max_age_days: 40, auto_rotate: false, ..rotation })), 40);
    let longer = open(Rotation { interval_days: 80, ..rotation });
    longer.keys().rotate(&name, 1).unwrap();
    assert_eq!(due_after(&longer), 80);
}

#[test]
fn a_damaged_key_does_not_keep_the_others_of_its_batch_from_their_rotation() {
    let fixture = Fixture::new();
    let names: Vec<_> = (0..10).map(|count| name(&format!("user {count}"), "p256")).collect();
    for name in &names {
        fixture.keys().generate(name).unwrap();
    }
    // One half of a pair says that it is of another version.
    fixture
        .session
        .change(fixture.session.event("test"), |change| {
            let halves = change.find_latest(&names[3].template())?;
            let public = halves.iter().find(|half| half.attributes().ulong(CKA_CLASS) == Some(CKO_PUBLIC_KEY)).unwrap();
            let mut attributes = public.attributes().clone();
            attributes.set(CKA_SR_VERSION, 7);
            change.update(public, attributes)
        })
        .unwrap();
    fixture.pass_days(90);
    let report = fixture.keys().rotate_due(usize::MAX).unwrap();
    assert_eq!((report.rotated.len(), report.left.len(), report.failed.len()), (9, 0, 1));
    assert_eq!(report.failed[0].name.as_ref().unwrap().owner(), "user 3");
    assert_eq!(report.failed[0].error.kind(), Kind::DeviceError);
    let others: Vec<_> = names.iter().filter(|name| name.owner() != "user 3").cloned().collect();
    check_sound(&fixture, &others);
    assert_eq!(fixture.keys().due().unwrap().len(), 1, "it is due still");
}

#[test]
fn a_key_that_does_not_open_does_not_keep_the_others_from_their_rotation() {
    let fixture = Fixture::new();
    let names: Vec<_> = (0..5).map(|count| name(&format!("user {count}"), "p256")).collect();
    let keys: Vec<_> = names.iter().map(|name| fixture.keys().generate(name).unwrap().version).collect();
    damage(&fixture.library, &fixture.session.serial(), keys[2].unique_id());
    let (count, damaged) = fixture.session.check_objects().unwrap();
    assert_eq!((count, damaged.len()), (10, 1));
    let unique_id = String::from_utf8(keys[2].unique_id().to_vec()).unwrap();
    assert!(damaged[0].message().contains(&unique_id), "{damaged:?}");
    fixture.pass_days(90);
    let outlook = fixture.keys().outlook(0).unwrap();
    assert_eq!((outlook.managed, outlook.due.len(), outlook.damaged.len()), (4, 4, 1));
    let report = fixture.keys().rotate_due(usize::MAX).unwrap();
    assert_eq!((report.rotated.len(), report.left.len(), report.failed.len()), (4, 0, 1));
    assert!(report.failed[0].name.is_none() && report.failed[0].text().contains(&unique_id), "{report:?}");
    check_sound(&fixture, &[names[0].clone(), names[1].clone(), names[3].clone(), names[4].clone()]);
}

#[test]
fn what_will_be_due_is_told_in_days() {
    let fixture = Fixture::new();
    for count in 0..3 {
        fixture.keys().generate(&name(&format!("user {count}"), ["p256", "aes128", "sol"][count])).unwrap();
        fixture.pass_days(10);
    }
    let days = |fixture: &Fixture, within| {
        let (outlook, now) = (fixture.keys().outlook(within).unwrap(), fixture.session.now());
        assert_eq!(outlook.managed, 3);
        [outlook.due, outlook.soon].map(|list| list.iter().map(|due| due.days_left(now)).collect::<Vec<_>>())
    };
    assert!(days(&fixture, 0).iter().all(Vec::is_empty));
    assert_eq!(days(&fixture, 70), [vec![], vec![60, 70]]);
    fixture.pass_days(73);
    assert_eq!(days(&fixture, 14), [vec![-13, -3], vec![7]]);
    // Without login the public halves tell it of key pairs.
    fixture.session.logout().unwrap();
    let outlook = fixture.keys().outlook_of_public_halves(14).unwrap();
    assert_eq!((outlook.managed, outlook.due.len(), outlook.soon.len()), (2, 1, 1));
    assert_eq!(fixture.keys().outlook(14).unwrap_err().kind(), Kind::UserNotLoggedIn);
}
