//! The breaker: a provider that is away is left alone for a while, so that callers fail at once and it is not flooded when it
//! comes back.
//!
//! The rules are:
//! - [`TRIP`] requests in a row that meet a fault which may pass open it; an answer of the service closes it, a refusal too;
//! - what says nothing of the service (a damaged blob found here, a finalised library) neither counts nor resets;
//! - while it is open, one request at a time goes through once the pause is over; each that fails doubles the pause;
//! - a probe has a lease instead of a state of its own: one that never comes back must not keep the provider out for ever.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{KmsFault, Result};

/// How many faults in a row open it.
pub const TRIP: u32 = 5;
/// The first pause.
pub const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Decides whether a provider is asked.
#[derive(Debug, Default)]
pub struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { faults: u32 },
    Open(Open),
}

#[derive(Debug, Clone, Copy)]
struct Open {
    since: Instant,
    pause: Duration,
    /// When the next probe may start: at the end of the pause, or of the lease of the probe that is under way.
    next: Instant,
    probing: bool,
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { faults: 0 }
    }
}

/// The right to make one request; [`Breaker::settle`] takes it back.
#[derive(Debug)]
pub struct Permit {
    probe: bool,
}

/// Why a request is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// For how long the provider has been away.
    pub away_for: Duration,
    /// How long until it is asked again; `None` while a probe is under way.
    pub next_in: Option<Duration>,
}

/// What a request tells of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It answers, if only to refuse.
    Alive,
    /// It is away, or has too much to do.
    Away,
    /// Nothing: the answer may have been made on this side.
    Unknown,
}

/// What changed, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The provider is not asked for so long.
    Opened(Duration),
    /// It is asked again.
    Closed,
}

impl Sign {
    /// Reads the answer of a request.
    pub fn of<T>(answer: &Result<T>) -> Self {
        match answer.as_ref().map_err(|error| error.kms_fault()) {
            Ok(_) | Err(Some(KmsFault::Denied | KmsFault::NotFound | KmsFault::Disabled)) => Self::Alive,
            Err(Some(fault)) if fault.may_pass() => Self::Away,
            Err(_) => Self::Unknown,
        }
    }
}

impl Breaker {
    /// Lets a request through, or tells why not. The one that goes through while it is open has the others wait for `lease`.
    pub fn admit(&self, now: Instant, lease: Duration) -> Result<Permit, Refusal> {
        let mut state = self.state.lock();
        let State::Open(open) = &mut *state else { return Ok(Permit { probe: false }) };
        if now < open.next {
            return Err(open.refusal(now));
        }
        (open.next, open.probing) = (now + lease, true);
        Ok(Permit { probe: true })
    }

    /// Learns what a request came to, and tells whether that changed anything.
    pub fn settle(&self, permit: Permit, sign: Sign, now: Instant) -> Option<Change> {
        let mut state = self.state.lock();
        match (&mut *state, sign) {
            (State::Closed { faults }, Sign::Away) => {
                *faults = faults.saturating_add(1);
                if *faults < TRIP {
                    return None;
                }
                *state = State::Open(Open { since: now, pause: FIRST_PAUSE, next: now + FIRST_PAUSE, probing: false });
                Some(Change::Opened(FIRST_PAUSE))
            }
            (State::Closed { faults }, Sign::Alive) => {
                *faults = 0;
                None
            }
            (State::Open(_), Sign::Alive) => {
                *state = State::default();
                Some(Change::Closed)
            }
            (State::Open(open), Sign::Away) if permit.probe => Some(open.longer(now)),
            (State::Open(open), Sign::Unknown) if permit.probe => {
                (open.next, open.probing) = (now, false);
                None
            }
            // A request from before it opened says nothing new.
            _ => None,
        }
    }

    /// Tells why a request would not be made now; `None` where it would.
    pub fn refusal(&self, now: Instant) -> Option<Refusal> {
        match &*self.state.lock() {
            State::Open(open) if now < open.next => Some(open.refusal(now)),
            _ => None,
        }
    }

    /// Names the state, and tells for how long the provider has been away.
    pub fn state(&self, now: Instant) -> (&'static str, Option<Duration>) {
        match &*self.state.lock() {
            State::Closed { .. } => ("closed", None),
            State::Open(open) => {
                let name = if open.probing || now >= open.next { "half-open" } else { "open" };
                (name, Some(now.saturating_duration_since(open.since)))
            }
        }
    }
}

impl Open {
    fn refusal(&self, now: Instant) -> Refusal {
        Refusal {
            away_for: now.saturating_duration_since(self.since),
            next_in: (!self.probing).then(|| self.next.saturating_duration_since(now)),
        }
    }

    fn longer(&mut self, now: Instant) -> Change {
        self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        (self.next, self.probing) = (now + self.pause, false);
        Change::Opened(self.pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Kind};

    const LEASE: Duration = Duration::from_secs(10);

    /// Makes one request that tells this.
    fn ask(breaker: &Breaker, sign: Sign, now: Instant) -> Option<Change> {
        let permit = breaker.admit(now, LEASE).expect("it is let through");
        breaker.settle(permit, sign, now)
    }

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::default();
        for _ in 1..TRIP {
            assert_eq!(ask(&breaker, Sign::Away, now), None);
        }
        assert_eq!(ask(&breaker, Sign::Away, now), Some(Change::Opened(FIRST_PAUSE)));
        breaker
    }

    #[test]
    fn faults_in_a_row_open_it_and_an_answer_between_them_does_not() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..3 {
            for _ in 1..TRIP {
                assert_eq!(ask(&breaker, Sign::Away, now), None);
            }
            assert_eq!(ask(&breaker, Sign::Alive, now), None);
        }
        assert_eq!(breaker.state(now), ("closed", None));
        let breaker = opened(now);
        assert_eq!(breaker.state(now), ("open", Some(Duration::ZERO)));
        let refusal = breaker.admit(now, LEASE).expect_err("it is open");
        assert_eq!(refusal, Refusal { away_for: Duration::ZERO, next_in: Some(FIRST_PAUSE) });
    }

    #[test]
    fn one_probe_at_a_time_and_each_that_fails_doubles_the_pause_up_to_its_bound() {
        let mut now = Instant::now();
        let breaker = opened(now);
        let mut pauses = Vec::new();
        let mut pause = FIRST_PAUSE;
        for _ in 0..7 {
            assert!(breaker.admit(now + pause - Duration::from_nanos(1), LEASE).is_err());
            now += pause;
            let probe = breaker.admit(now, LEASE).expect("the pause is over");
            assert_eq!(breaker.state(now).0, "half-open");
            assert_eq!(breaker.admit(now, LEASE).expect_err("one at a time").next_in, None);
            let Some(Change::Opened(longer)) = breaker.settle(probe, Sign::Away, now) else { panic!("it stays open") };
            pause = longer;
            pauses.push(longer.as_secs());
        }
        assert_eq!(pauses, [2, 4, 8, 16, 30, 30, 30]);
        now += pause;
        assert_eq!(ask(&breaker, Sign::Alive, now), Some(Change::Closed));
        assert_eq!(breaker.state(now), ("closed", None));
        assert_eq!(ask(&breaker, Sign::Away, now), None, "the count starts anew");
    }

    #[test]
    fn a_probe_that_is_lost_or_tells_nothing_gives_way_to_another() {
        let now = Instant::now();
        let breaker = opened(now);
        let _lost = breaker.admit(now + FIRST_PAUSE, LEASE).expect("the pause is over");
        assert!(breaker.refusal(now + FIRST_PAUSE).is_some());
        let now = now + FIRST_PAUSE + LEASE;
        assert_eq!(ask(&breaker, Sign::Unknown, now), None);
        assert_eq!(breaker.refusal(now), None);
        assert_eq!(ask(&breaker, Sign::Alive, now), Some(Change::Closed));
    }

    #[test]
    fn what_began_before_it_opened_does_not_lengthen_the_pause() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        let early: Vec<_> = (0..20).map(|_| breaker.admit(now, LEASE).expect("it is closed")).collect();
        let changes = early.into_iter().filter_map(|permit| breaker.settle(permit, Sign::Away, now)).count();
        assert_eq!(changes, 1);
        assert_eq!(breaker.refusal(now).and_then(|refusal| refusal.next_in), Some(FIRST_PAUSE));
    }

    #[test]
    fn signs_are_read_from_answers() {
        let sign = |fault| Sign::of::<()>(&Err(Error::kms(fault, "")));
        for fault in [KmsFault::Denied, KmsFault::NotFound, KmsFault::Disabled] {
            assert_eq!(sign(fault), Sign::Alive, "{}", fault.name());
        }
        for fault in [KmsFault::Throttled(None), KmsFault::Unreachable, KmsFault::TimedOut] {
            assert_eq!(sign(fault), Sign::Away, "{}", fault.name());
        }
        for fault in [KmsFault::Tampered, KmsFault::WrongContext, KmsFault::Unsupported, KmsFault::Failed] {
            assert_eq!(sign(fault), Sign::Unknown, "{}", fault.name());
        }
        assert_eq!(Sign::of::<()>(&Err(Kind::FunctionCanceled.into())), Sign::Unknown);
        assert_eq!(Sign::of(&Ok(())), Sign::Alive);
    }
}
