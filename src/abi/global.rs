//! The one library of this process: set by C_Initialize, taken away by C_Finalize, forgotten by a forked child.
//!
//! The rules are:
//! - a call sees the library only if this very process initialised it; what a child inherits is leaked, never dropped,
//!   since the threads, sockets and locks behind it belong to the parent;
//! - C_Initialize and C_Finalize never wait for each other: whoever comes second is told so at once;
//! - C_Finalize takes the library away first, then shuts it down; calls that are inside keep it alive until they return.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use super::compose;
use crate::error::{Error, Kind, Result};
use crate::runtime;
use crate::secret::process_generation;
use crate::token::Library;

/// The library and the process that initialised it.
struct Instance {
    generation: u64,
    library: Arc<Library>,
}

impl Instance {
    fn is_mine(&self) -> bool {
        self.generation == process_generation()
    }
}

static LIBRARY: ArcSwapOption<Instance> = ArcSwapOption::const_empty();

/// The process generation in which C_Initialize or C_Finalize is running now, or 0.
static BUSY: AtomicU64 = AtomicU64::new(0);

/// Runs `body` with the library of this process.
///
/// # Errors
/// `CryptokiNotInitialized`, at once and without a lock; what `body` answers.
#[inline]
pub fn with_library<R>(body: impl FnOnce(&Library) -> Result<R>) -> Result<R> {
    match LIBRARY.load().as_ref() {
        Some(instance) if instance.is_mine() => body(&instance.library),
        _ => Err(Error::from(Kind::CryptokiNotInitialized)),
    }
}

/// Builds the library (C_Initialize).
///
/// # Errors
/// `CryptokiAlreadyInitialized`, also while another thread is about it; what composing answers, and then nothing is left.
pub fn initialize(config_path: Option<&str>, threads_allowed: bool) -> Result<()> {
    let _turn = Turn::take().ok_or(Kind::CryptokiAlreadyInitialized)?;
    if is_initialized() {
        return Err(Error::from(Kind::CryptokiAlreadyInitialized));
    }
    watch_forks()?;
    let library = compose::attended_library(config_path, threads_allowed)?;
    runtime::open(threads_allowed);
    let fresh = Arc::new(Instance { generation: process_generation(), library });
    std::mem::forget(LIBRARY.swap(Some(fresh)));
    Ok(())
}

/// Keeps forks out of work that they must not cut, from the first C_Initialize, or the first token of the Rust face, on. The hooks
/// touch atomics only; two threads that register them both at the same moment do no harm.
///
/// # Errors
/// `HostMemory`.
pub(super) fn watch_forks() -> Result<()> {
    static WATCHED: AtomicBool = AtomicBool::new(false);
    let watch = || {
        let before: unsafe extern "C" fn() = runtime::before_fork;
        let parent: unsafe extern "C" fn() = runtime::after_fork_in_parent;
        let child: unsafe extern "C" fn() = runtime::after_fork_in_child;
        // SAFETY: the hooks are functions of this library, which is never unloaded.
        (unsafe { libc::pthread_atfork(Some(before), Some(parent), Some(child)) }) == 0
    };
    if !WATCHED.load(Ordering::Acquire) {
        if !watch() {
            return Err(Kind::HostMemory.into());
        }
        WATCHED.store(true, Ordering::Release);
    }
    Ok(())
}

/// Takes the library away and shuts it down (C_Finalize).
///
/// # Errors
/// `CryptokiNotInitialized`, also while another thread is about it.
pub fn finalize() -> Result<()> {
    let _turn = Turn::take().ok_or(Kind::CryptokiNotInitialized)?;
    if !is_initialized() {
        return Err(Error::from(Kind::CryptokiNotInitialized));
    }
    if let Some(instance) = LIBRARY.swap(None) {
        instance.library.shutdown_with(runtime::close);
    }
    Ok(())
}

fn is_initialized() -> bool {
    LIBRARY.load().as_ref().is_some_and(|instance| instance.is_mine())
}

/// The right to change [`LIBRARY`], given back when dropped.
struct Turn;

impl Turn {
    /// Takes the right unless another thread of this process has it. What a parent's thread had at the fork counts for nothing.
    fn take() -> Option<Self> {
        let (me, busy) = (process_generation(), BUSY.load(Ordering::Acquire));
        let free = busy != me && BUSY.compare_exchange(busy, me, Ordering::AcqRel, Ordering::Acquire).is_ok();
        // Not `then_some`: a turn that is not taken must not be dropped either.
        free.then(|| Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        BUSY.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r12_whoever_comes_second_is_told_at_once() {
        let turn = Turn::take().expect("nobody else is about it");
        assert_eq!(initialize(None, true).expect_err("a turn is taken").kind(), Kind::CryptokiAlreadyInitialized);
        assert_eq!(finalize().expect_err("a turn is taken").kind(), Kind::CryptokiNotInitialized);
        drop(turn);
        assert_eq!(finalize().expect_err("nothing is initialised").kind(), Kind::CryptokiNotInitialized);

        BUSY.store(process_generation() + 1, Ordering::Release);
        assert!(Turn::take().is_some(), "what a thread of another process had is free");
    }
}
