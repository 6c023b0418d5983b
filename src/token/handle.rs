//! Handles: random 64-bit numbers, checked in a table, never given to another object.
//!
//! The rules are:
//! - what a change has made of an object is never kept as opened, but what was is forgotten: of changes that overlap, nobody here knows
//!   which one the store took last, and the next use reads that;
//! - what was read is kept as opened only if nothing has changed since before it was read.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::Entry::{Occupied, Vacant};
use foldhash::fast::RandomState;
use parking_lot::RwLock;
use quick_cache::sync::Cache;

use super::object::Object;
use crate::ck::{CK_OBJECT_HANDLE, CK_SESSION_HANDLE};
use crate::error::{Error, Kind, Result};
use crate::mechanism::random;
use crate::store::Uid;

/// How many opened token objects are kept at a time; others are read and opened again when used.
const KEPT_OBJECTS: usize = 20_000;

/// Draws a handle: never 0, and positive as a signed number, since some callers keep it as one.
///
/// # Errors
/// `FunctionFailed` when the random generator fails.
pub fn draw() -> Result<u64> {
    loop {
        let mut bytes = [0; 8];
        random::fill(&mut bytes)?;
        match u64::from_ne_bytes(bytes) >> 1 {
            0 => {}
            handle => return Ok(handle),
        }
    }
}

/// Draws a handle for each object.
fn with_handles(objects: Vec<Arc<Object>>) -> Result<Vec<(CK_OBJECT_HANDLE, Arc<Object>)>> {
    objects.into_iter().map(|object| Ok((draw()?, object))).collect()
}

/// What a handle stands for.
#[derive(Clone)]
pub struct Entry {
    /// The object's unique id.
    pub uid: Uid,
    /// Whether it may be used by the logged-in user alone.
    pub private: bool,
    /// The session that made it, for an object that is in memory alone.
    pub session: Option<CK_SESSION_HANDLE>,
}

/// The objects of one token that this process has handles of.
pub struct Handles {
    entries: DashMap<CK_OBJECT_HANDLE, Entry, RandomState>,
    by_uid: DashMap<Uid, CK_OBJECT_HANDLE, RandomState>,
    /// Session objects: there are few of them beside many token objects, and a find looks at each.
    in_memory: DashMap<CK_OBJECT_HANDLE, Arc<Object>, RandomState>,
    by_session: DashMap<CK_SESSION_HANDLE, HashSet<CK_OBJECT_HANDLE>, RandomState>,
    /// The token's own objects (profiles, mechanisms), which nobody made.
    own: RwLock<Vec<(CK_OBJECT_HANDLE, Arc<Object>)>>,
    opened: Cache<CK_OBJECT_HANDLE, Arc<Object>>,
    /// Counts whatever may make what is known of a handle wrong.
    changes: AtomicU64,
}

impl Handles {
    /// Makes a table that has the token's own objects.
    ///
    /// # Errors
    /// `FunctionFailed` when the random generator fails.
    pub fn new(own: Vec<Arc<Object>>) -> Result<Self> {
        Ok(Self {
            entries: DashMap::default(),
            by_uid: DashMap::default(),
            in_memory: DashMap::default(),
            by_session: DashMap::default(),
            own: RwLock::new(with_handles(own)?),
            opened: Cache::new(KEPT_OBJECTS),
            changes: AtomicU64::new(0),
        })
    }

    /// Finds one of the token's own objects.
    pub fn own(&self, handle: CK_OBJECT_HANDLE) -> Option<Arc<Object>> {
        self.own.read().iter().find(|own| own.0 == handle).map(|own| own.1.clone())
    }

    /// Gives the token's own objects.
    pub fn all_own(&self) -> Vec<(CK_OBJECT_HANDLE, Arc<Object>)> {
        self.own.read().clone()
    }

    /// Puts other own objects in the place of the token's.
    ///
    /// # Errors
    /// `FunctionFailed` when the random generator fails.
    pub fn replace_own(&self, own: Vec<Arc<Object>>) -> Result<()> {
        *self.own.write() = with_handles(own)?;
        self.reread();
        Ok(())
    }

    /// Tells a number under which what was found out about a handle, or read from the store, holds; another number says: look again.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Finds an opened object: all that an operation on a known key needs.
    pub fn opened(&self, handle: CK_OBJECT_HANDLE) -> Option<Arc<Object>> {
        self.opened.get(&handle)
    }

    /// Finds what a handle stands for.
    pub fn entry(&self, handle: CK_OBJECT_HANDLE) -> Option<Entry> {
        self.entries.get(&handle).map(|entry| entry.clone())
    }

    /// Finds the handle that a token object has in this process, if it has one.
    pub fn known(&self, uid: &Uid) -> Option<CK_OBJECT_HANDLE> {
        self.by_uid.get(uid).map(|handle| *handle)
    }

    /// Finds a session object.
    pub fn session_object(&self, handle: CK_OBJECT_HANDLE) -> Option<Arc<Object>> {
        self.in_memory.get(&handle).map(|object| object.clone())
    }

    /// Finds or draws the handle of a token object, and keeps the object as opened if nothing has changed since [`Self::changes`] told
    /// `seen`, before it was read or made.
    ///
    /// # Errors
    /// `FunctionFailed` when the random generator fails.
    pub fn of_token_object(&self, object: &Arc<Object>, seen: u64) -> Result<CK_OBJECT_HANDLE> {
        // The row of the uid is held until the entry is there: remove() takes them in the same order.
        let row = self.by_uid.entry(object.uid);
        let row = match row {
            Occupied(row) => row.into_ref(),
            Vacant(row) => row.insert(draw()?),
        };
        let handle = *row;
        let entry = Entry { uid: object.uid, private: object.is_private(), session: None };
        let kept = self.entries.entry(handle).or_insert(entry);
        self.keep_as_opened(handle, object, seen);
        drop(kept);
        Ok(handle)
    }

    /// Adds a session object.
    ///
    /// # Errors
    /// `FunctionFailed` when the random generator fails.
    pub fn add_session_object(&self, object: Arc<Object>, session: CK_SESSION_HANDLE) -> Result<CK_OBJECT_HANDLE> {
        let handle = draw()?;
        let entry = Entry { uid: object.uid, private: object.is_private(), session: Some(session) };
        self.by_session.entry(session).or_default().insert(handle);
        self.entries.insert(handle, entry);
        self.in_memory.insert(handle, object);
        Ok(handle)
    }

    /// Changes a session object; nobody else changes it meanwhile.
    ///
    /// # Errors
    /// `ObjectHandleInvalid`, and what `change` answers.
    pub fn change_session_object(
        &self,
        handle: CK_OBJECT_HANDLE,
        change: impl FnOnce(&Object) -> Result<Object>,
    ) -> Result<()> {
        let mut object = self.in_memory.get_mut(&handle).ok_or_else(|| Error::from(Kind::ObjectHandleInvalid))?;
        let changed = Arc::new(change(&object)?);
        *object = changed.clone();
        self.opened.insert(handle, changed);
        self.changed();
        Ok(())
    }

    /// Keeps an object that was read again as opened, if nothing has changed since [`Self::changes`] told `seen`, before it was read.
    pub fn keep(&self, handle: CK_OBJECT_HANDLE, object: &Arc<Object>, seen: u64) {
        if let Some(entry) = self.entries.get(&handle) {
            self.keep_as_opened(handle, object, seen);
            drop(entry);
        }
    }

    fn keep_as_opened(&self, handle: CK_OBJECT_HANDLE, object: &Arc<Object>, seen: u64) {
        if self.changes() != seen {
            return;
        }
        self.opened.insert(handle, object.clone());
        // Whoever forgets counts first: what he could not forget, since it was not there yet, goes here.
        if self.changes() != seen {
            self.opened.remove(&handle);
            self.changed();
        }
    }

    /// Forgets what was read of an object that a change of the store has made another one.
    pub fn forget(&self, uid: &Uid) {
        self.changed();
        if let Some(handle) = self.known(uid) {
            self.opened.remove(&handle);
        }
        self.changed();
    }

    /// Forgets the handle of an object that is gone from the store.
    pub fn remove_gone(&self, uid: &Uid) {
        self.changed();
        if let Some(handle) = self.known(uid) {
            self.remove(handle);
        }
    }

    /// Forgets a handle: it is invalid from now on.
    pub fn remove(&self, handle: CK_OBJECT_HANDLE) {
        self.changed();
        if let Some(entry) = self.entry(handle) {
            self.by_uid.remove(&entry.uid);
            if let Some(mut made) = entry.session.and_then(|session| self.by_session.get_mut(&session)) {
                made.remove(&handle);
            }
        }
        self.entries.remove(&handle);
        self.in_memory.remove(&handle);
        self.opened.remove(&handle);
        self.changed();
    }

    /// Forgets what a session made (C_CloseSession).
    pub fn remove_session_objects(&self, session: CK_SESSION_HANDLE) {
        if let Some((_, made)) = self.by_session.remove(&session) {
            made.into_iter().for_each(|handle| self.remove(handle));
        }
    }

    /// Forgets everything private (C_Logout).
    pub fn remove_private(&self) {
        self.remove_where(|entry| entry.private);
        self.reread();
    }

    /// Forgets everything but the token's own objects.
    pub fn clear(&self) {
        self.remove_where(|_| true);
        self.reread();
    }

    /// Drops what is kept of token objects, so that each is read again when it is used next.
    pub fn reread(&self) {
        self.changed();
        self.opened.clear();
        self.changed();
    }

    /// Goes through the session objects.
    pub fn session_objects(&self) -> Vec<(CK_OBJECT_HANDLE, Arc<Object>)> {
        self.in_memory.iter().map(|row| (*row.key(), row.value().clone())).collect()
    }

    fn remove_where(&self, gone: impl Fn(&Entry) -> bool) {
        let handles: Vec<_> = self.entries.iter().filter(|row| gone(row)).map(|row| *row.key()).collect();
        handles.into_iter().for_each(|handle| self.remove(handle));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ck::Attributes;

    fn object() -> Arc<Object> {
        Arc::new(Object::new(Attributes::new(), None, 0).expect("the generator works"))
    }

    #[test]
    fn what_was_read_before_a_change_is_not_kept_after_it() {
        let (handles, object) = (Handles::new(Vec::new()).expect("the generator works"), object());
        let seen = handles.changes();
        let handle = handles.of_token_object(&object, seen).expect("a handle");
        handles.keep(handle, &object, seen);
        assert!(handles.opened(handle).is_some() && handles.changes() == seen, "reading changes nothing");
        let forgetting: [&dyn Fn(); 2] = [&|| handles.forget(&object.uid), &|| handles.reread()];
        for forget in forgetting {
            let seen = handles.changes();
            handles.keep(handle, &object, seen);
            forget();
            // This read is over now, and has seen what was there before the change.
            handles.keep(handle, &object, seen);
            assert_eq!(handles.of_token_object(&object, seen).expect("a handle"), handle);
            assert!(handles.opened(handle).is_none());
        }
        handles.keep(handle, &object, handles.changes());
        handles.forget(&Uid::default());
        assert!(handles.opened(handle).is_some(), "another object's change leaves it");
    }

    #[test]
    fn an_object_that_is_gone_is_not_kept_under_a_new_handle() {
        let (handles, object) = (Handles::new(Vec::new()).expect("the generator works"), object());
        let seen = handles.changes();
        // Nobody here has a handle of it yet; a find has read it.
        handles.remove_gone(&object.uid);
        let handle = handles.of_token_object(&object, seen).expect("a handle");
        assert!(handles.opened(handle).is_none() && handles.entry(handle).is_some());
    }
}
