//! The process below the library: what must not be under way while the process forks.
//!
//! A forked child has one thread and a copy of all memory. A lock that another thread held at the fork stays taken in the child
//! for ever: SQLite's mutexes and lock counts, and the locks that AWS-LC's random generator has for the whole process, which the
//! first draw in a child takes for writing. So work of that kind holds a [`Pass`], and a fork waits until none is held. The rules are:
//! - the hooks of `pthread_atfork` touch atomics and nothing else;
//! - a fork waits for a bounded time: a disk that hangs must not hang the host's `fork()`;
//! - a pass is held for one piece of work on the store, or one call that draws, never across a call of a KMS;
//! - a thread that holds a pass gets another one at once: the fork waits for it, and it must not wait for the fork;
//! - threads that hold passes meet in no cache line, since each signature takes one.

mod executor;

pub use executor::{close, open, run, sleep, spawn, time_left, unblock, within};

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a fork waits for work that is under way.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many slots there are. More threads than these share them.
const SLOTS: usize = 64;

/// How many forks are going on; each thread may be about one.
static FORKING: AtomicUsize = AtomicUsize::new(0);
/// How many threads hold passes, by slot.
static HELD: [Slot; SLOTS] = [const { Slot(AtomicUsize::new(0)) }; SLOTS];

/// A count in a pair of cache lines of its own: processors fetch them in pairs.
#[repr(align(128))]
struct Slot(AtomicUsize);

impl Slot {
    /// Chooses a slot for a thread, each in turn.
    fn choose() -> &'static Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        HELD.get(NEXT.fetch_add(1, Ordering::Relaxed) % SLOTS).expect("the index is below SLOTS")
    }

    /// Counts a holder, once no fork is going on.
    fn enter(&self) {
        loop {
            wait_for_forks();
            self.0.fetch_add(1, Ordering::SeqCst);
            if FORKING.load(Ordering::SeqCst) == 0 {
                return;
            }
            self.leave();
        }
    }

    fn leave(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits until no fork is going on. Nothing is written meanwhile, so that the fork sees the slots at rest.
fn wait_for_forks() {
    while FORKING.load(Ordering::SeqCst) > 0 {
        std::thread::yield_now();
    }
}

/// What a thread knows of its own passes. Without a destructor: passes are taken until the very end of a thread.
struct Own {
    slot: Cell<Option<&'static Slot>>,
    /// How many passes the thread holds.
    depth: Cell<usize>,
}

thread_local! {
    static OWN: Own = const { Own { slot: Cell::new(None), depth: Cell::new(0) } };
}

impl Own {
    fn slot(&self) -> &'static Slot {
        self.slot.get().unwrap_or_else(|| {
            let slot = Slot::choose();
            self.slot.set(Some(slot));
            slot
        })
    }

    fn take(&self) {
        if self.depth.get() == 0 {
            self.slot().enter();
        }
        self.depth.set(self.depth.get() + 1);
    }

    fn give_back(&self) {
        self.depth.set(self.depth.get() - 1);
        if self.depth.get() == 0 {
            self.slot().leave();
        }
    }

    /// Lets forks that wait go on, if this is the only pass of the thread.
    fn give_way(&self) {
        if self.depth.get() == 1 && FORKING.load(Ordering::SeqCst) > 0 {
            self.slot().leave();
            self.slot().enter();
        }
    }
}

/// The right to do work that must not be cut by a fork. It belongs to the thread that took it.
pub struct Pass(PhantomData<*const ()>);

impl Pass {
    /// Waits until no fork is going on and takes a pass.
    pub fn take() -> Self {
        OWN.with(Own::take);
        Self(PhantomData)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        OWN.with(Own::give_back);
    }
}

/// Lets a fork through at a point of long work where it does no harm, for a thread that holds one pass.
pub fn give_way() {
    OWN.with(Own::give_way);
}

/// Waits, before a fork, until no pass is held.
pub extern "C" fn before_fork() {
    FORKING.fetch_add(1, Ordering::SeqCst);
    let start = Instant::now();
    while HELD.iter().any(|slot| slot.0.load(Ordering::SeqCst) > 0) && start.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
}

/// Lets work go on in the parent, once no other thread forks.
pub extern "C" fn after_fork_in_parent() {
    // A fork that began before the hooks were set was not counted.
    let _ = FORKING.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |forks| forks.checked_sub(1));
}

/// Lets work begin in the child, where the threads that held passes are gone.
pub extern "C" fn after_fork_in_child() {
    HELD.iter().for_each(|slot| slot.0.store(0, Ordering::SeqCst));
    FORKING.store(0, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn r06_work_waits_until_the_last_fork_is_over() {
        before_fork();
        before_fork();
        after_fork_in_parent();
        let (tell, told) = mpsc::channel();
        let worker = std::thread::spawn(move || {
            let _pass = Pass::take();
            tell.send(()).expect("the test listens");
        });
        assert!(told.recv_timeout(Duration::from_millis(200)).is_err(), "a pass while a fork is going on");
        after_fork_in_parent();
        told.recv_timeout(Duration::from_secs(10)).expect("a pass after the forks");
        worker.join().expect("the worker ends");

        after_fork_in_parent();
        drop(Pass::take());
    }

    /// Forks in another thread, as far as the hooks go, once this one holds a pass; tells how long the fork waited.
    fn wait_of_a_fork(during: impl FnOnce()) -> Duration {
        let pass = Pass::take();
        let fork = std::thread::spawn(|| {
            let start = Instant::now();
            before_fork();
            let waited = start.elapsed();
            after_fork_in_parent();
            waited
        });
        while FORKING.load(Ordering::SeqCst) == 0 && !fork.is_finished() {
            std::thread::yield_now();
        }
        during();
        let waited = fork.join().expect("the fork goes on");
        drop(pass);
        waited
    }

    #[test]
    fn r06_a_fork_goes_through_where_work_gives_way_and_only_there() {
        assert!(wait_of_a_fork(give_way) < PATIENCE);
        let nested = || {
            drop(Pass::take());
            let _inner = Pass::take();
            give_way();
        };
        assert!(wait_of_a_fork(nested) >= PATIENCE, "the outer pass is held still");
    }
}
