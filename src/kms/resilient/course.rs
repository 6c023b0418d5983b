//! The course of one call: how often it was tried, how long it may still take, and how long it waits before the next try.
//!
//! The rules are:
//! - all tries and pauses together end within the deadline; a try that others may follow gets half of what is left, so that one
//!   connection that hangs does not use up the whole of it;
//! - pauses have full jitter: any length between nothing and a bound that doubles, so that callers do not come back together;
//! - a service that says how long to wait is waited for, if that leaves time for a try;
//! - what must not happen twice is tried again only when the service refused to begin.
//!
//! Crates for this wait between tries without a look at how long the tries take, and cannot be woken: those are the rules above.

use std::time::{Duration, Instant};

use crate::error::{Error, KmsFault};
use crate::kms::Settings;

/// The bound of the first pause.
pub const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The bound of all pauses that no service asks for.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What a try needs at least to be worth it.
const LEAST: Duration = Duration::from_millis(50);

/// How often and how long a call is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many tries at most.
    pub attempts: u32,
    /// How long all of them together.
    pub timeout: Duration,
}

impl Limits {
    /// Reads what the configuration says.
    pub fn of(settings: &Settings) -> Self {
        let seconds = settings.number("timeout_seconds").unwrap_or(10);
        Self {
            attempts: settings.number("attempts").unwrap_or(4).max(1),
            timeout: Duration::from_secs(u64::from(seconds)),
        }
    }
}

/// Whether a request may be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Twice does no harm.
    Freely,
    /// Twice would make two keys or versions.
    UnlessBegun,
}

impl Repeat {
    /// Tells whether a request that met this fault may be made again. Only a service that has too much to do says for certain
    /// that it did not begin; a connection may break after that.
    fn after(self, fault: KmsFault) -> bool {
        match self {
            Self::Freely => fault.may_pass(),
            Self::UnlessBegun => matches!(fault, KmsFault::Throttled(_)),
        }
    }
}

/// One call with all its tries.
#[derive(Debug)]
pub struct Course {
    limits: Limits,
    repeat: Repeat,
    begun: Instant,
    /// How many tries were due, whether or not the breaker let them through.
    rounds: u32,
    /// How many requests were made.
    tries: u32,
}

impl Course {
    /// Begins a call.
    pub fn begin(limits: Limits, repeat: Repeat, now: Instant) -> Self {
        Self { limits, repeat, begun: now, rounds: 0, tries: 0 }
    }

    /// Counts a try that the breaker did not let through.
    pub fn refused(&mut self) {
        self.rounds = self.rounds.saturating_add(1);
    }

    /// Counts a try, and tells how long it may take.
    pub fn tried(&mut self, now: Instant) -> Duration {
        self.refused();
        self.tries = self.tries.saturating_add(1);
        let left = self.left(now);
        let others_follow = self.repeat == Repeat::Freely && self.rounds < self.limits.attempts;
        if others_follow { left / 2 } else { left }
    }

    /// Tells how long to wait before the next try, at least for what the breaker asks; `None` where there is none.
    pub fn pause(&self, error: &Error, breaker: Duration, now: Instant) -> Option<Duration> {
        let fault = error.kms_fault().filter(|fault| self.repeat.after(*fault))?;
        let asked = asked(fault).max(breaker);
        let spare = self.left(now).checked_sub(asked).filter(|spare| *spare >= LEAST)?;
        (self.rounds < self.limits.attempts).then(|| asked + jitter(self.bound()).min(spare / 2))
    }

    /// Says in front of the last error whose it is and what was done about it: `kms.prod (tried 4 times in 9.5 s)`.
    pub fn verdict(&self, name: &str, error: &Error, now: Instant) -> String {
        let fault = error.kms_fault();
        let may_pass = fault.is_some_and(|fault| fault.may_pass());
        if !may_pass && self.tries <= 1 {
            return name.to_owned();
        }
        let tried = self.account(now);
        match fault {
            Some(fault) if may_pass && !self.repeat.after(fault) => {
                format!("{name} ({tried}; it may have been carried out all the same: look before you repeat it)")
            }
            Some(KmsFault::Throttled(Some(wait))) if wait.saturating_add(LEAST) > self.left(now) => {
                format!("{name} ({tried}; it asks to wait {:.1} s, which timeout_seconds forbids)", wait.as_secs_f32())
            }
            _ => format!("{name} ({tried})"),
        }
    }

    fn account(&self, now: Instant) -> String {
        let seconds = now.saturating_duration_since(self.begun).as_secs_f32();
        match self.tries {
            1 => format!("tried once, for {seconds:.1} s"),
            tries => format!("tried {tries} times in {seconds:.1} s"),
        }
    }

    fn left(&self, now: Instant) -> Duration {
        self.limits.timeout.saturating_sub(now.saturating_duration_since(self.begun))
    }

    /// Tells the longest pause after this round.
    fn bound(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.rounds.saturating_sub(1)).unwrap_or(u32::MAX);
        FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
    }
}

/// Tells how long the service asked to wait.
fn asked(fault: KmsFault) -> Duration {
    match fault {
        KmsFault::Throttled(Some(wait)) => wait,
        _ => Duration::ZERO,
    }
}

/// Draws a pause between nothing and its bound. Without randomness it is half of it: a pause is no secret.
fn jitter(bound: Duration) -> Duration {
    let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    match getrandom::u64() {
        Ok(random) => Duration::from_nanos(random % nanos.saturating_add(1)),
        Err(_) => bound / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(fault: KmsFault) -> Error {
        Error::kms(fault, "fault")
    }

    fn course(attempts: u32, timeout: Duration, now: Instant) -> Course {
        Course::begin(Limits { attempts, timeout }, Repeat::Freely, now)
    }

    #[test]
    fn settings_have_defaults() {
        let settings = Settings::new("a", "aws");
        assert_eq!(Limits::of(&settings), Limits { attempts: 4, timeout: Duration::from_secs(10) });
        let settings = settings.with("timeout_seconds", crate::kms::Setting::Number(3));
        let settings = settings.with("attempts", crate::kms::Setting::Number(1));
        assert_eq!(Limits::of(&settings), Limits { attempts: 1, timeout: Duration::from_secs(3) });
    }

    #[test]
    fn pauses_differ_and_keep_to_a_bound_that_doubles() {
        let now = Instant::now();
        let mut course = course(20, Duration::from_secs(600), now);
        let mut bound = FIRST_PAUSE;
        for _ in 0..12 {
            course.tried(now);
            let pauses: Vec<_> =
                (0..200).filter_map(|_| course.pause(&fault(KmsFault::Unreachable), Duration::ZERO, now)).collect();
            assert_eq!(pauses.len(), 200);
            assert!(pauses.iter().all(|pause| *pause <= bound), "{bound:?}");
            // 200 draws that all miss one half have a chance of 2^-200.
            assert!(pauses.iter().any(|pause| *pause < bound / 2) && pauses.iter().any(|pause| *pause > bound / 2));
            bound = (bound * 2).min(LONGEST_PAUSE);
        }
    }

    #[test]
    fn what_a_service_asks_for_is_kept_if_it_fits() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut course = course(4, 10 * second, now);
        course.tried(now);
        let pause =
            |wait: Duration, breaker: Duration| course.pause(&fault(KmsFault::Throttled(Some(wait))), breaker, now);
        let kept = pause(3 * second, Duration::ZERO).expect("it fits");
        assert!(kept >= 3 * second && kept <= 3 * second + FIRST_PAUSE);
        assert!(pause(3 * second, 5 * second).expect("it fits") >= 5 * second);
        let close = pause(10 * second - LEAST, Duration::ZERO).expect("it just fits");
        assert!(close < 10 * second);
        for wait in [10 * second, 60 * second, Duration::MAX] {
            assert_eq!(pause(wait, Duration::ZERO), None);
        }
    }

    #[test]
    fn nothing_is_tried_after_the_last_round_or_without_time() {
        let now = Instant::now();
        let mut course = course(2, Duration::from_secs(10), now);
        assert_eq!(course.tried(now), Duration::from_secs(5), "half, since another may follow");
        let away = fault(KmsFault::Unreachable);
        assert!(course.pause(&away, Duration::ZERO, now).is_some());
        assert_eq!(course.pause(&away, Duration::ZERO, now + Duration::from_secs(10)), None);
        assert_eq!(course.tried(now), Duration::from_secs(10), "all, since none follows");
        assert_eq!(course.pause(&away, Duration::ZERO, now), None);
    }
}
