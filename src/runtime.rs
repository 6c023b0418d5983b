//! The process below the library: what must not be under way while the process forks.
//!
//! A forked child has one thread and a copy of all memory. SQLite's mutexes and lock counts, copied while another thread was
//! inside SQLite, would stay taken in the child for ever. So work of that kind holds a [`Pass`], and a fork waits until none is
//! held. The rules are:
//! - the hooks of `pthread_atfork` touch atomics and nothing else;
//! - a fork waits for a bounded time: a disk that hangs must not hang the host's `fork()`;
//! - a pass is held for one piece of work on the store, never across a call of a KMS.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a fork waits for work that is under way.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many forks are going on: the C library lets several threads fork at once.
static FORKING: AtomicUsize = AtomicUsize::new(0);
/// How many passes are held.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// The right to do work that must not be cut by a fork.
pub struct Pass(());

impl Pass {
    /// Waits until no fork is going on and takes a pass.
    pub fn take() -> Self {
        loop {
            HELD.fetch_add(1, Ordering::SeqCst);
            if FORKING.load(Ordering::SeqCst) == 0 {
                return Self(());
            }
            HELD.fetch_sub(1, Ordering::SeqCst);
            std::thread::yield_now();
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits, before a fork, until no pass is held.
pub extern "C" fn before_fork() {
    FORKING.fetch_add(1, Ordering::SeqCst);
    let start = Instant::now();
    while HELD.load(Ordering::SeqCst) > 0 && start.elapsed() < PATIENCE {
        std::hint::spin_loop();
        std::thread::yield_now();
    }
}

/// Lets work go on in the parent.
pub extern "C" fn after_fork_in_parent() {
    FORKING.fetch_sub(1, Ordering::SeqCst);
}

/// Lets work begin in the child, where the threads that held passes are gone.
pub extern "C" fn after_fork_in_child() {
    HELD.store(0, Ordering::SeqCst);
    FORKING.store(0, Ordering::SeqCst);
}
