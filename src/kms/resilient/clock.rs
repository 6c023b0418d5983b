//! The clock, so that tests need not wait.

use std::time::{Duration, Instant, SystemTime};

use crate::error::Result;
use crate::runtime;

/// Tells the time and waits.
pub trait Clock: Send + Sync {
    /// Tells the time for measuring.
    fn now(&self) -> Instant;

    /// Tells the time for people.
    fn wall(&self) -> SystemTime;

    /// Waits.
    ///
    /// # Errors
    /// `FunctionCanceled` when the library is finalised meanwhile.
    fn sleep(&self, pause: Duration) -> Result<()>;
}

/// The machine's own clock; waits on the runtime, which C_Finalize ends.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, pause: Duration) -> Result<()> {
        runtime::sleep(pause)
    }
}
