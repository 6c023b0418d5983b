//! Keys with a password of their own that a session has unlocked (SR_UnlockKey), and for how long.
//!
//! The rules are:
//! - what is unlocked belongs to one session; no other session and no find knows of it, and the handle is the key's own, so that
//!   whatever becomes of its version reaches it as it reaches every handle;
//! - a lease is the one truth of whether a key is unlocked: whoever holds the key holds the lease too, and looks at it;
//! - the time of a lease runs by two clocks, of which nobody can set the second: it is over when either says so;
//! - the table's lock is held for one look, and nothing else is locked meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::library::Clock;
use crate::ck::CK_OBJECT_HANDLE;
use crate::mechanism::Key;

/// For how long a key is unlocked.
pub struct Lease {
    /// Set when the key is locked again.
    ended: AtomicBool,
    /// When it is over, in seconds since 1970; `None` is never.
    until: Option<u64>,
    /// When it is over by the time that the machine has been running.
    deadline: Option<Instant>,
    clock: Clock,
}

impl Lease {
    /// Starts a lease of so many seconds; 0 lasts until the key is locked.
    pub fn new(clock: Clock, seconds: u64) -> Self {
        let time = (seconds > 0).then_some(seconds);
        let until = time.map(|seconds| clock().saturating_add(seconds));
        let deadline = time.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        Self { ended: AtomicBool::new(false), until, deadline, clock }
    }

    /// Tells whether the key is unlocked still.
    pub fn holds(&self) -> bool {
        !self.ended.load(Ordering::Acquire)
            && self.until.is_none_or(|until| (self.clock)() < until)
            && self.deadline.is_none_or(|deadline| Instant::now() < deadline)
    }

    /// Tells when it is over, in seconds since 1970, if its time is limited.
    pub fn until(&self) -> Option<u64> {
        self.until
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// A key that is unlocked. It is wiped when the last operation with it has ended.
#[derive(Clone)]
pub struct Unlocked {
    /// The key, parsed.
    pub key: Arc<Key>,
    /// For how long.
    pub lease: Arc<Lease>,
    /// The token's login count under which it was unlocked.
    pub login: u64,
}

/// The keys that one session has unlocked.
#[derive(Default)]
pub struct UnlockedKeys(Mutex<HashMap<CK_OBJECT_HANDLE, Unlocked>>);

impl UnlockedKeys {
    /// Adds a key; one that was unlocked before is unlocked by the new lease alone.
    pub fn add(&self, handle: CK_OBJECT_HANDLE, unlocked: Unlocked) {
        let before = self.0.lock().insert(handle, unlocked);
        before.inspect(|before| before.lease.end());
    }

    /// Finds a key that is unlocked under this login.
    pub fn find(&self, handle: CK_OBJECT_HANDLE, login: u64) -> Option<Unlocked> {
        let mut all = self.0.lock();
        let found = all.get(&handle)?;
        if found.login == login && found.lease.holds() {
            return Some(found.clone());
        }
        all.remove(&handle).inspect(|gone| gone.lease.end());
        None
    }

    /// Locks a key; tells whether it was unlocked.
    pub fn lock(&self, handle: CK_OBJECT_HANDLE) -> bool {
        let gone = self.0.lock().remove(&handle);
        gone.inspect(|gone| gone.lease.end()).is_some()
    }

    /// Locks all keys.
    pub fn lock_all(&self) {
        let gone = std::mem::take(&mut *self.0.lock());
        gone.values().for_each(|gone| gone.lease.end());
    }

    /// Drops the keys whose time is over, and tells when that of the next one is.
    pub fn sweep(&self) -> Option<u64> {
        let mut all = self.0.lock();
        all.retain(|_, unlocked| unlocked.lease.holds());
        all.values().filter_map(|unlocked| unlocked.lease.until()).min()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::ck::{CKA_CLASS, CKA_KEY_TYPE, CKK_AES, CKO_SECRET_KEY, Value};
    use crate::mechanism;
    use crate::secret::{SecureBytes, SecurePrivateKey};

    fn key() -> Arc<Key> {
        let attributes = [(CKA_CLASS, Value::Ulong(CKO_SECRET_KEY)), (CKA_KEY_TYPE, Value::Ulong(CKK_AES))];
        let secret = SecurePrivateKey::new(SecureBytes::copy_from(&[7; 32]));
        let row = mechanism::key_type(CKK_AES).expect("a key type");
        Arc::new((row.secret_key)(&attributes.into_iter().collect(), &secret).expect("an AES key"))
    }

    #[test]
    fn a_lease_ends_by_its_time_or_when_it_is_ended_and_the_key_goes_with_it() {
        let now = Arc::new(AtomicU64::new(1000));
        let told = now.clone();
        let clock: Clock = Arc::new(move || told.load(Ordering::Relaxed));
        let keys = UnlockedKeys::default();
        let add = |handle, seconds| {
            let (key, lease) = (key(), Arc::new(Lease::new(clock.clone(), seconds)));
            let weak = Arc::downgrade(&key);
            keys.add(handle, Unlocked { key, lease, login: 1 });
            weak
        };
        let (short, long, endless) = (add(1, 10), add(2, u64::MAX), add(3, 0));
        assert!(keys.find(1, 1).is_some() && keys.find(4, 1).is_none());
        assert_eq!(keys.sweep(), Some(1010));
        now.store(1010, Ordering::Relaxed);
        assert_eq!(keys.sweep(), Some(u64::MAX));
        assert!(short.upgrade().is_none() && keys.find(1, 1).is_none());
        // A clock that is set back makes no lease longer than the other clock lets it be.
        now.store(0, Ordering::Relaxed);
        assert!(keys.find(2, 1).is_some() && keys.find(3, 1).is_some());
        // Another login, another lease, the end.
        let lease = keys.find(3, 1).expect("unlocked").lease;
        assert!(keys.find(3, 2).is_none() && !lease.holds() && endless.upgrade().is_none());
        assert!(keys.lock(2) && !keys.lock(2) && long.upgrade().is_none());
        let (first, lease) = (add(5, 0), keys.find(5, 1).expect("unlocked").lease);
        let second = add(5, 0);
        assert!(!lease.holds() && first.upgrade().is_none() && second.upgrade().is_some());
        keys.lock_all();
        assert!(second.upgrade().is_none() && keys.sweep().is_none());
    }
}
