//! Tries of a password: how they are counted, and how many run at once.

use parking_lot::{Condvar, Mutex};

use crate::ck::*;

/// Lets as many Argon2id run at once as there are processors: each takes one of them, and memory.
pub struct Gate {
    room: Mutex<usize>,
    left: Condvar,
}

impl Gate {
    /// Makes the gate of this machine.
    pub fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { room: Mutex::new(processors), left: Condvar::new() }
    }

    /// Runs work once there is room for it.
    pub fn pass<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut room = self.room.lock();
        while *room == 0 {
            self.left.wait(&mut room);
        }
        *room -= 1;
        drop(room);
        let _place = Place(self);
        work()
    }
}

/// A place at a gate, given back even when the work panics.
struct Place<'g>(&'g Gate);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.room.lock() += 1;
        self.0.left.notify_one();
    }
}

/// The tries of a password since the last right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tries {
    /// Those that were counted.
    pub begun: u64,
    /// Those of them that were wrong.
    pub wrong: u64,
}

/// What may be done about a try.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is counted, and may be made.
    Go,
    /// Others are under way that decide about it.
    Wait,
    /// The key is locked.
    Locked,
}

/// How a try went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The password of the latest version.
    Right,
    /// The password of an older version, or none was tried.
    Other,
    /// Another password.
    Wrong,
}

impl Tries {
    /// Reads the count from the latest version.
    pub fn of(attributes: &Attributes) -> Self {
        let number = |id| attributes.ulong(id).unwrap_or(0);
        Self { begun: number(CKA_SR_PASSWORD_TRIES), wrong: number(CKA_SR_PASSWORD_WRONG) }
    }

    /// Writes the count; nothing stands there for none.
    pub fn write_to(self, attributes: &mut Attributes) {
        for (id, number) in [(CKA_SR_PASSWORD_TRIES, self.begun), (CKA_SR_PASSWORD_WRONG, self.wrong)] {
            match number {
                0 => drop(attributes.take(id)),
                _ => drop(attributes.set(id, number)),
            }
        }
    }

    /// Counts a try, if it may be made. `waited` says that nobody is waited for any longer: what is undecided counts as wrong.
    pub fn begin(&mut self, max: u64, waited: bool) -> Verdict {
        match max {
            0 => {}
            max if self.wrong >= max => return Verdict::Locked,
            max if self.begun >= max && waited => {
                self.wrong = self.begun;
                return Verdict::Locked;
            }
            max if self.begun >= max => return Verdict::Wait,
            _ => {}
        }
        self.begun = self.begun.saturating_add(1);
        Verdict::Go
    }

    /// Notes how a try went.
    pub fn end(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Right => *self = Self::default(),
            Outcome::Other => self.begun = self.begun.saturating_sub(1).max(self.wrong),
            Outcome::Wrong => {
                self.wrong = self.wrong.saturating_add(1);
                self.begun = self.begun.max(self.wrong);
            }
        }
    }

    /// Tells how many are left before the key is locked.
    pub fn left(self, max: u64) -> u64 {
        max.saturating_sub(self.begun.max(self.wrong))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_counted_before_they_are_made_and_cleared_by_the_right_one() {
        let mut tries = Tries::default();
        for _ in 0..3 {
            assert_eq!(tries.begin(3, false), Verdict::Go);
        }
        // Three are under way: a fourth waits for them, and at last takes them for wrong.
        assert_eq!((tries.begin(3, false), tries.left(3)), (Verdict::Wait, 0));
        tries.end(Outcome::Wrong);
        assert_eq!(tries, Tries { begun: 3, wrong: 1 });
        // One was no try of this password after all.
        tries.end(Outcome::Other);
        assert_eq!((tries.begin(3, false), tries.begin(3, false)), (Verdict::Go, Verdict::Wait));
        let mut killed = tries;
        assert_eq!((killed.begin(3, true), killed), (Verdict::Locked, Tries { begun: 3, wrong: 3 }));
        assert_eq!(killed.begin(3, false), Verdict::Locked);
        tries.end(Outcome::Right);
        assert_eq!((tries, tries.left(3)), (Tries::default(), 3));
        // What comes late is counted all the same, and an old version's password takes no wrong try back.
        tries.end(Outcome::Wrong);
        tries.end(Outcome::Other);
        assert_eq!(tries, Tries { begun: 1, wrong: 1 });
        // Without a limit nothing locks.
        let mut many = Tries { begun: u64::MAX, wrong: u64::MAX };
        assert_eq!(many.begin(0, false), Verdict::Go);
    }

    #[test]
    fn a_count_of_nothing_leaves_no_trace() {
        let mut attributes = Attributes::new();
        Tries { begun: 2, wrong: 1 }.write_to(&mut attributes);
        assert_eq!(Tries::of(&attributes), Tries { begun: 2, wrong: 1 });
        Tries::default().write_to(&mut attributes);
        assert!(!attributes.has(CKA_SR_PASSWORD_TRIES) && !attributes.has(CKA_SR_PASSWORD_WRONG));
    }

    #[test]
    fn a_gate_lets_so_many_through_at_once() {
        let (gate, inside) = (Gate { room: Mutex::new(2), left: Condvar::new() }, Mutex::new((0, 0)));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    gate.pass(|| {
                        let mut counts = inside.lock();
                        counts.0 += 1;
                        counts.1 = counts.1.max(counts.0);
                        drop(counts);
                        std::thread::yield_now();
                        inside.lock().0 -= 1;
                    });
                });
            }
        });
        assert!(inside.lock().1 <= 2 && *gate.room.lock() == 2);
    }
}
