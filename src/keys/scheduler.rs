//! Rotates due keys by itself while the application has a token open and its user logged in.
//!
//! The rules are:
//! - it acts under the login that the application left on the token; when that ends it waits for the next one;
//! - it looks shortly after a login, and then at each interval, both spread by chance: processes that start together do not look
//!   together. Whichever is first rotates a key, the others find nothing to do;
//! - it runs on the runtime of this process, which starts with the first token that has managed keys, and never where the
//!   application forbids threads: there SR_RotateDue and `strongroom rotate --due` do what it would;
//! - of the looks at several tokens one runs at a time, and none waits on a thread: those are needed by the calls of a KMS, which makes the
//!   data keys of keys that have some of their own;
//! - what goes wrong is logged when it comes up first, and it looks less and less often while that lasts;
//! - C_Finalize waits for the transaction, or the one key, that is under way, and not for a KMS, whose calls it ends.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;

use super::due::{Failed, Report};
use super::managed::ManagedKeys;
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::mechanism::random;
use crate::runtime;
use crate::token::{Attendant, Session, Wake};

/// The first look after a login comes after such a part of the interval at most.
const FIRST_LOOK: u32 = 60;
/// How often the pause doubles at most while something goes wrong.
const MOST_DOUBLINGS: u32 = 4;
/// The longest pause, unless the interval is longer still.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// How long C_Finalize waits for a key that is being generated: a long RSA key takes seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Rotates due keys by itself.
pub struct Scheduler {
    interval: Duration,
    state: Arc<State>,
}

/// What the looks of all tokens share.
#[derive(Default)]
struct State {
    stopping: AtomicBool,
    /// Whose turn it is to look.
    turn: tokio::sync::Mutex<()>,
    /// Held during a look.
    looking: Mutex<()>,
    looks: AtomicU64,
    rotated: AtomicU64,
    last_look: AtomicU64,
    last_error: Mutex<Option<String>>,
}

/// What a look comes to.
enum Outcome {
    /// Nobody is logged in, or was before it ended.
    NobodyIn,
    /// The library is being finalised.
    Stopped,
    /// Nothing went wrong.
    Well,
    /// Something did.
    Badly,
}

impl Scheduler {
    /// Makes a scheduler that looks at about this interval. It starts nothing yet.
    pub fn new(interval: Duration) -> Self {
        Self { interval, state: Arc::default() }
    }
}

impl Attendant for Scheduler {
    fn attend(&self, session: Session) -> Wake {
        let woken = Arc::new(Notify::new());
        let watch = Watch { session: Arc::new(session), state: self.state.clone(), interval: self.interval };
        match runtime::spawn(watch.run(woken.clone())) {
            Ok(()) => {}
            Err(error) => log::warn!("due keys are not rotated by themselves in this process: {error}"),
        }
        Box::new(move || woken.notify_one())
    }

    fn stop(&self) {
        self.state.stopping.store(true, Ordering::Release);
    }

    fn wait(&self) {
        if self.state.looking.try_lock_for(PATIENCE).is_none() {
            log::warn!("a rotation is under way still after {} s; the library ends without it", PATIENCE.as_secs());
        }
    }

    fn status(&self) -> String {
        let state = &self.state;
        let last_look = Some(state.last_look.load(Ordering::Relaxed)).filter(|time| *time > 0);
        json!({
            "looks": state.looks.load(Ordering::Relaxed),
            "rotated": state.rotated.load(Ordering::Relaxed),
            "last_look": last_look,
            "last_error": *state.last_error.lock(),
        })
        .to_string()
    }
}

/// What goes on for one token.
struct Watch {
    session: Arc<Session>,
    state: Arc<State>,
    interval: Duration,
}

impl Watch {
    async fn run(self, woken: Arc<Notify>) {
        let (mut pause, mut failures, mut told) = (self.first_pause(), 0, Told::default());
        loop {
            tokio::time::sleep(pause).await;
            let (session, state) = (self.session.clone(), self.state.clone());
            let look = move || (state.look(&session, &mut told), told);
            let turn = self.state.turn.lock().await;
            // A look that panics is one that went badly; what was told is told again.
            let (outcome, still_told) = runtime::unblock(look).await.unwrap_or((Outcome::Badly, Told::default()));
            drop(turn);
            told = still_told;
            pause = match outcome {
                Outcome::Stopped => return,
                Outcome::NobodyIn => {
                    woken.notified().await;
                    self.first_pause()
                }
                Outcome::Well => {
                    failures = 0;
                    self.pause(failures)
                }
                Outcome::Badly => {
                    failures += 1;
                    self.pause(failures)
                }
            };
        }
    }

    /// Chooses when to look first after a login.
    fn first_pause(&self) -> Duration {
        (self.interval / FIRST_LOOK).mul_f64(chance())
    }

    /// Chooses when to look next: at the interval, a tenth more or less, and later after so many failures in a row.
    fn pause(&self, failures: u32) -> Duration {
        let longest = LONGEST_PAUSE.max(self.interval);
        let pause = self.interval.saturating_mul(1 << failures.min(MOST_DOUBLINGS)).min(longest);
        pause.mul_f64(0.9 + 0.2 * chance())
    }
}

/// Draws a number from 0 to 1.
fn chance() -> f64 {
    f64::from(draw()) / f64::from(u32::MAX)
}

/// Draws a number.
fn draw() -> u32 {
    let mut bytes = [0; 4];
    // Without chance the looks of several processes fall together, which costs time and nothing else.
    let _ = random::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

impl State {
    /// Looks for due keys and rotates those that may be.
    fn look(&self, session: &Session, told: &mut Told) -> Outcome {
        let _one_at_a_time = self.looking.lock();
        if self.stopping.load(Ordering::Acquire) {
            return Outcome::Stopped;
        }
        if !session.is_user() {
            return Outcome::NobodyIn;
        }
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.last_look.store(session.now(), Ordering::Relaxed);
        let report = self.rotate(session);
        let outcome = match &report {
            _ if self.stopping.load(Ordering::Acquire) => Outcome::Stopped,
            Err(error) if error.kind() == Kind::UserNotLoggedIn => Outcome::NobodyIn,
            // What cannot be read was not tried, and to look later would keep the others from their rotation.
            Ok(report) if report.failed.iter().all(|failed| failed.name.is_none()) => Outcome::Well,
            _ => Outcome::Badly,
        };
        if matches!(outcome, Outcome::Well | Outcome::Badly) {
            *self.last_error.lock() = told.tell(&report);
        }
        outcome
    }

    fn rotate(&self, session: &Session) -> Result<Report> {
        let (keys, go_on) = (ManagedKeys::of(session), || !self.stopping.load(Ordering::Acquire));
        let mut outlook = keys.outlook_while(0, &go_on)?;
        // Processes that look at the same time begin at different keys.
        let start = usize::try_from(draw()).unwrap_or(0) % outlook.due.len().max(1);
        outlook.due.rotate_left(start);
        let report = keys.rotate_while(outlook, usize::MAX, &go_on)?;
        let rotated = u64::try_from(report.rotated.len()).unwrap_or(u64::MAX);
        self.rotated.fetch_add(rotated, Ordering::Relaxed);
        Ok(report)
    }
}

/// What was logged and need not be logged again.
#[derive(Default)]
struct Told {
    /// Why a look failed as a whole.
    error: Option<String>,
    /// Which keys could not be rotated or read, and why.
    failed: HashSet<String>,
    /// How many keys wait to be rotated by name.
    left: usize,
}

impl Told {
    /// Logs what is new, and gives the last error.
    fn tell(&mut self, report: &Result<Report>) -> Option<String> {
        match report {
            Err(error) => Some(self.tell_error(error)),
            Ok(report) => {
                if self.error.take().is_some() {
                    log::warn!("due keys are rotated again");
                }
                self.tell_left(report.left.len());
                self.tell_failed(report)
            }
        }
    }

    fn tell_error(&mut self, error: &Error) -> String {
        let text = error.to_string();
        if self.error.as_ref() != Some(&text) {
            log::warn!("due keys cannot be rotated now: {text}");
        }
        self.error = Some(text.clone());
        text
    }

    fn tell_left(&mut self, left: usize) {
        if left > self.left {
            log::warn!(
                "{left} keys are due and wait to be rotated by name (`strongroom rotate --due --dry-run` lists them)"
            );
        }
        self.left = left;
    }

    fn tell_failed(&mut self, report: &Report) -> Option<String> {
        let failed: HashSet<_> = report.failed.iter().map(Failed::text).collect();
        failed.difference(&self.failed).for_each(|text| log::warn!("{text}"));
        self.failed = failed;
        self.failed.iter().next().cloned()
    }
}
