//! Where a session keeps its operations, and what is to end in them without a wait.
//!
//! The rules are:
//! - whoever works with the operations holds them, also while a KMS is asked: a session is one thread's at a time;
//! - what others end there (C_Logout from another session, C_SessionCancel, SR_LockKey) waits for nobody: when they are held, it is noted,
//!   and whoever holds them ends it when he gives them back, before anybody else has them.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::operation::Operations;
use crate::ck::CK_FLAGS;

/// Ends the operations whose keys are locked again. No operation of C_SessionCancel has this flag.
pub const UNLOCKED: CK_FLAGS = 1 << 62;
/// Ends all that a login has opened. Nor this one.
pub const PRIVATE: CK_FLAGS = 1 << 63;

/// The operations of a session.
#[derive(Default)]
pub struct Running {
    operations: Mutex<Operations>,
    /// What is to end: the two flags above, and those of C_SessionCancel.
    ending: AtomicU64,
}

impl Running {
    /// Takes the operations, once nobody else has them.
    pub fn lock(&self) -> Held<'_> {
        let mut held = Held { operations: self.operations.lock(), _then: Settle(self) };
        self.end_noted(&mut held);
        held
    }

    /// Ends what flags name: at once, or as soon as whoever holds the operations gives them back.
    pub fn end(&self, flags: CK_FLAGS) {
        self.ending.fetch_or(flags, Ordering::SeqCst);
        self.settle();
    }

    /// Drops everything, unless a call is under way: that one has the session to itself then, and drops it with the session.
    pub fn clear(&self) {
        if let Some(mut operations) = self.operations.try_lock() {
            *operations = Operations::default();
        }
    }

    /// Ends what is noted, unless somebody holds the operations, who does so then.
    fn settle(&self) {
        while self.ending.load(Ordering::SeqCst) != 0 {
            let Some(mut operations) = self.operations.try_lock() else { return };
            self.end_noted(&mut operations);
        }
    }

    fn end_noted(&self, operations: &mut Operations) {
        if self.ending.load(Ordering::SeqCst) == 0 {
            return;
        }
        let flags = self.ending.swap(0, Ordering::SeqCst);
        operations.cancel(flags);
        if flags & PRIVATE != 0 {
            operations.end_private();
        } else if flags & UNLOCKED != 0 {
            operations.end_unlocked();
        }
    }
}

/// The operations in the hands of one call. The fields are dropped in this order: given back first, settled then.
pub struct Held<'r> {
    operations: MutexGuard<'r, Operations>,
    _then: Settle<'r>,
}

impl Deref for Held<'_> {
    type Target = Operations;

    fn deref(&self) -> &Operations {
        &self.operations
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Operations {
        &mut self.operations
    }
}

/// Ends what was noted meanwhile.
struct Settle<'r>(&'r Running);

impl Drop for Settle<'_> {
    fn drop(&mut self) {
        self.0.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ck::{CKF_DIGEST, CKF_FIND_OBJECTS};
    use crate::token::find::Find;

    #[test]
    fn what_others_end_waits_for_nobody_and_is_over_once_the_operations_are_given_back() {
        let running = Running::default();
        let begin = || running.lock().find = Some(Find::default());
        let finds = || running.operations.lock().find.is_some();
        for flags in [CKF_FIND_OBJECTS, PRIVATE, UNLOCKED | CKF_FIND_OBJECTS] {
            begin();
            running.end(CKF_DIGEST | UNLOCKED);
            assert!(finds(), "no other operation ends");
            // This thread holds the operations: a wait would have no end.
            let held = running.lock();
            running.end(flags);
            running.clear();
            assert!(held.find.is_some(), "what is under way goes on");
            drop(held);
            assert!(!finds(), "{flags:#x} is forgotten");
            begin();
            running.end(flags);
            assert!(!finds(), "{flags:#x} is not done at once");
        }
        begin();
        running.clear();
        assert!(!finds());
    }
}
