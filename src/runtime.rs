//! The process below the library: what must not be under way while the process forks.
//!
//! A forked child has one thread and a copy of all memory. SQLite's mutexes and lock counts, copied while another thread was
//! inside SQLite, would stay taken in the child for ever. So work of that kind holds a [`Pass`], and a fork waits until none is
//! held. The rules are:
//! - the hooks of `pthread_atfork` touch atomics and nothing else;
//! - a fork waits for a bounded time: a disk that hangs must not hang the host's `fork()`;
//! - a pass is held for one piece of work on the store, never across a call of a KMS.

mod executor;

pub use executor::{close, open, run, sleep, time_left, within};

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a fork waits for work that is under way.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many forks are going on; each thread may be about one.
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

/// Lets work go on in the parent, once no other thread forks.
pub extern "C" fn after_fork_in_parent() {
    // A fork that began before the hooks were set was not counted.
    let _ = FORKING.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |forks| forks.checked_sub(1));
}

/// Lets work begin in the child, where the threads that held passes are gone.
pub extern "C" fn after_fork_in_child() {
    HELD.store(0, Ordering::SeqCst);
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
}
