//! The one runtime of this process on which calls of a KMS run.
//!
//! The rules are:
//! - it starts with the first call that needs it, has two workers at most, and ends with C_Finalize;
//! - every wait has a deadline, and one on the workers ends at once when the library is finalised, before its sessions are closed;
//! - where the application forbids threads, the calling thread does the work itself;
//! - a forked child leaks the parent's runtime, whose threads it has not, and starts one of its own.

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Error, Kind, KmsFault, Result};
use crate::secret::PerProcess;

/// The most threads that run tasks.
const WORKERS: usize = 2;
/// How long C_Finalize waits for a task that does not end, a name look-up above all.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much longer than its deadline a caller waits for the task that keeps it.
const GRACE: Duration = Duration::from_secs(2);

/// What one process has.
struct Executor {
    state: Mutex<State>,
}

/// Whether there is a runtime.
enum State {
    /// Not yet; `true` where it may have threads.
    Idle(bool),
    /// With workers of its own.
    Workers(Runtime),
    /// Driven by whoever calls.
    Inline(Arc<Runtime>),
    /// The library was finalised.
    Closed,
}

/// What a caller runs its task on.
enum Place {
    Workers(Handle),
    Inline(Arc<Runtime>),
}

static CURRENT: PerProcess<Executor> = PerProcess::new();

thread_local! {
    /// When the work that this thread does must be done. It has no destructor, which would outlive the library.
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Allows calls from now on (C_Initialize): on threads of our own, or on the callers' alone.
pub fn open(threads_allowed: bool) {
    let mut state = Executor::current().state.lock();
    if matches!(*state, State::Closed | State::Idle(_)) {
        *state = State::Idle(threads_allowed);
    }
}

/// Ends the runtime and its threads (C_Finalize). Calls that are under way end with `FunctionCanceled`.
pub fn close() {
    let was = std::mem::replace(&mut *Executor::current().state.lock(), State::Closed);
    if let State::Workers(runtime) = was {
        runtime.shutdown_timeout(PATIENCE);
    }
}

/// Does work on this thread of which every [`run`] ends within a budget, whatever deadline of its own it has: several calls
/// one after the other cannot take longer together.
pub fn within<T>(budget: Duration, work: impl FnOnce() -> T) -> T {
    /// Puts back what was set before, also when the work panics.
    struct Before(Option<Instant>);
    impl Drop for Before {
        fn drop(&mut self) {
            UNTIL.set(self.0);
        }
    }
    let before = Before(UNTIL.get());
    let until = Instant::now().checked_add(budget).into_iter().chain(before.0).min();
    UNTIL.set(until);
    work()
}

/// Tells how much of a deadline the budget of [`within`] leaves.
pub fn time_left(deadline: Duration) -> Duration {
    UNTIL.get().map_or(deadline, |until| deadline.min(until.saturating_duration_since(Instant::now())))
}

/// Waits; a library that is finalised meanwhile ends it.
///
/// # Errors
/// `FunctionCanceled` and `HostMemory` as [`run`].
pub fn sleep(pause: Duration) -> Result<()> {
    run(pause.saturating_add(GRACE), async move {
        tokio::time::sleep(pause).await;
        Ok(())
    })
}

/// Runs a future to its end, for at most so long, and no longer than the budget of [`within`].
///
/// # Errors
/// What the future answers; a KMS fault `TimedOut` past the deadline; `FunctionCanceled` when the library is finalised meanwhile;
/// `HostMemory` when no thread can be made.
pub fn run<T: Send + 'static>(
    deadline: Duration,
    future: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let deadline = time_left(deadline);
    let bounded =
        async move { tokio::time::timeout(deadline, future).await.unwrap_or_else(|_| Err(timed_out(deadline))) };
    match Executor::current().place()? {
        Place::Inline(runtime) => runtime.block_on(bounded),
        Place::Workers(handle) => {
            let (tell, told) = mpsc::sync_channel(1);
            handle.spawn(async move {
                // Nobody listens any more when the caller gave up: nothing is lost.
                let _ = tell.send(bounded.await);
            });
            match told.recv_timeout(deadline.saturating_add(GRACE)) {
                Ok(answer) => answer,
                Err(mpsc::RecvTimeoutError::Timeout) => Err(timed_out(deadline)),
                Err(mpsc::RecvTimeoutError::Disconnected) => Err(Kind::FunctionCanceled.into()),
            }
        }
    }
}

/// Starts work that goes on by itself, until it ends or the library is finalised.
///
/// # Errors
/// `FunctionNotSupported` where the application forbids threads; `FunctionCanceled` and `HostMemory` as [`run`].
pub fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    match Executor::current().place()? {
        Place::Workers(handle) => drop(handle.spawn(work)),
        Place::Inline(_) => {
            let text = "the application forbids threads (CKF_LIBRARY_CANT_CREATE_OS_THREADS)";
            return Err(Error::new(Kind::FunctionNotSupported, text));
        }
    }
    Ok(())
}

/// Runs work that blocks beside the workers, for a future that [`spawn`] started; `None` when it panicked.
pub async fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

fn timed_out(deadline: Duration) -> Error {
    let text = format!("no answer within {} s; is the service reachable from this machine?", deadline.as_secs_f32());
    Error::kms(KmsFault::TimedOut, text)
}

impl Executor {
    /// Finds what this process has, or starts it.
    fn current() -> &'static Executor {
        CURRENT.get(|| Executor { state: Mutex::new(State::Idle(true)) })
    }

    /// Tells where to run, and starts the runtime if there is none.
    fn place(&self) -> Result<Place> {
        let mut state = self.state.lock();
        if let State::Idle(threads_allowed) = *state {
            *state = start(threads_allowed)?;
        }
        match &*state {
            State::Workers(runtime) => Ok(Place::Workers(runtime.handle().clone())),
            State::Inline(runtime) => Ok(Place::Inline(runtime.clone())),
            State::Idle(_) | State::Closed => Err(Kind::FunctionCanceled.into()),
        }
    }
}

fn start(threads_allowed: bool) -> Result<State> {
    let failed = |error| Error::new(Kind::HostMemory, "the runtime for calls of a KMS cannot start").caused_by(error);
    if !threads_allowed {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        return Ok(State::Inline(Arc::new(runtime)));
    }
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(WORKERS).max_blocking_threads(WORKERS).thread_name("strongroom").enable_all();
    // Signals are for the threads of the application, which knows what they mean.
    builder.on_thread_start(|| {
        let _ = SigSet::all().thread_block();
    });
    Ok(State::Workers(builder.build().map_err(failed)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;

    #[test]
    fn a_future_that_never_ends_is_given_up_at_its_deadline() {
        let start = Instant::now();
        let error = run::<()>(Duration::from_millis(50), std::future::pending()).expect_err("it never ends");
        assert_eq!(error.kms_fault(), Some(KmsFault::TimedOut));
        assert!(start.elapsed() < GRACE);
        assert_eq!(run(Duration::from_secs(5), async { Ok(7) }).expect("it ends"), 7);
    }

    #[test]
    fn a_budget_bounds_every_deadline_within_it_and_ends_with_its_work() {
        const LONG: Duration = Duration::from_secs(3600);
        within(Duration::from_secs(60), || {
            assert!(within(LONG, || time_left(LONG)) <= Duration::from_secs(60), "an inner budget cannot be longer");
            let error = within(Duration::from_millis(20), || run::<()>(LONG, std::future::pending()));
            assert_eq!(error.expect_err("it never ends").kms_fault(), Some(KmsFault::TimedOut));
            assert!(time_left(LONG) > Duration::from_millis(20));
            let panicked = std::panic::catch_unwind(|| within(Duration::ZERO, || panic!("on purpose")));
            assert!(panicked.is_err() && time_left(LONG) > Duration::ZERO);
        });
        assert_eq!(time_left(LONG), LONG);
        sleep(Duration::from_millis(1)).expect("it ends");
    }

    #[test]
    fn signals_of_the_application_never_come_to_its_threads() {
        let mask = run(Duration::from_secs(5), async { Ok(SigSet::thread_get_mask()) });
        let mask = mask.expect("it ends").expect("a mask");
        assert!([Signal::SIGINT, Signal::SIGTERM].into_iter().all(|signal| mask.contains(signal)));
    }

    #[test]
    fn r14_without_threads_the_caller_does_the_work() {
        let State::Inline(runtime) = start(false).expect("a runtime") else { panic!("must be inline") };
        let me = std::thread::current().id();
        runtime.block_on(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(std::thread::current().id(), me);
        });
    }
}
