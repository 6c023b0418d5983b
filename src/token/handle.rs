//! Handles: random 64-bit numbers, checked in a table, never given to another object.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use foldhash::fast::RandomState;
use quick_cache::sync::Cache;

use super::object::Object;
use crate::ck::{CK_OBJECT_HANDLE, CK_SESSION_HANDLE};
use crate::error::Result;
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

/// Owns the token's own objects (profiles, mechanisms): no session ever has this handle.
pub const TOKEN_ITSELF: CK_SESSION_HANDLE = 0;

/// What a handle stands for.
#[derive(Clone)]
pub struct Entry {
    /// The object's unique id.
    pub uid: Uid,
    /// Whether it may be used by the logged-in user alone.
    pub private: bool,
    /// The session that owns it, for session objects.
    pub session: Option<CK_SESSION_HANDLE>,
    /// The object itself, for session objects.
    object: Option<Arc<Object>>,
}

/// The objects of one token that this process has handles of.
pub struct Handles {
    entries: DashMap<CK_OBJECT_HANDLE, Entry, RandomState>,
    by_uid: DashMap<Uid, CK_OBJECT_HANDLE, RandomState>,
    opened: Cache<CK_OBJECT_HANDLE, Arc<Object>>,
    /// Counts whatever may make what is known of a handle wrong.
    changes: AtomicU64,
}

impl Handles {
    /// Makes an empty table.
    pub fn new() -> Self {
        Self {
            entries: DashMap::default(),
            by_uid: DashMap::default(),
            opened: Cache::new(KEPT_OBJECTS),
            changes: AtomicU64::new(0),
        }
    }

    /// Tells a number under which what was found out about a handle holds; another number says: look again.
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

    /// Finds a session object.
    pub fn session_object(&self, handle: CK_OBJECT_HANDLE) -> Option<Arc<Object>> {
        self.entries.get(&handle).and_then(|entry| entry.object.clone())
    }

    /// Finds or draws the handle of a token object, and keeps the object as opened.
    ///
    /// # Errors
    /// `FunctionFailed` when the random generator fails.
    pub fn of_token_object(&self, object: &Arc<Object>) -> Result<CK_OBJECT_HANDLE> {
        let known = self.by_uid.get(&object.uid).map(|found| *found);
        // Another thread may find the same object right now: the handle that it drew first is everybody's.
        let handle = match known {
            Some(handle) => handle,
            None => *self.by_uid.entry(object.uid).or_insert(draw()?),
        };
        let entry = Entry { uid: object.uid, private: object.is_private(), session: None, object: None };
        let kept = self.entries.entry(handle).or_insert(entry);
        self.opened.insert(handle, object.clone());
        drop(kept);
        Ok(handle)
    }

    /// Adds a session object.
    ///
    /// # Errors
    /// `FunctionFailed` when the random generator fails.
    pub fn add_session_object(&self, object: Arc<Object>, session: CK_SESSION_HANDLE) -> Result<CK_OBJECT_HANDLE> {
        let handle = draw()?;
        let (uid, private) = (object.uid, object.is_private());
        self.entries.insert(handle, Entry { uid, private, session: Some(session), object: Some(object) });
        Ok(handle)
    }

    /// Puts an object that was changed, or read again, in the place of the old one.
    pub fn replace(&self, handle: CK_OBJECT_HANDLE, object: Arc<Object>) {
        if let Some(mut entry) = self.entries.get_mut(&handle) {
            if entry.session.is_some() {
                entry.object = Some(object.clone());
            }
            self.opened.insert(handle, object);
        }
        self.changed();
    }

    /// Forgets a handle: it is invalid from now on.
    pub fn remove(&self, handle: CK_OBJECT_HANDLE) {
        // The entry first: nobody keeps an object as opened whose entry is gone.
        if let Some((_, entry)) = self.entries.remove(&handle) {
            self.by_uid.remove(&entry.uid);
        }
        self.opened.remove(&handle);
        self.changed();
    }

    /// Forgets the session objects of one session.
    pub fn remove_session_objects(&self, session: CK_SESSION_HANDLE) {
        self.remove_where(|entry| entry.session == Some(session));
    }

    /// Forgets everything private (C_Logout).
    pub fn remove_private(&self) {
        self.remove_where(|entry| entry.private);
        self.reread();
    }

    /// Forgets everything but the token's own objects.
    pub fn clear(&self) {
        self.remove_where(|entry| entry.session != Some(TOKEN_ITSELF));
        self.reread();
    }

    /// Drops what is kept of token objects, so that each is read again when it is used next.
    pub fn reread(&self) {
        self.opened.clear();
        self.changed();
    }

    /// Hands each session object to `visit`.
    ///
    /// # Errors
    /// What `visit` answers.
    pub fn visit_session_objects(
        &self,
        mut visit: impl FnMut(CK_OBJECT_HANDLE, &Arc<Object>) -> Result<()>,
    ) -> Result<()> {
        let all: Vec<_> =
            self.entries.iter().filter_map(|row| row.object.clone().map(|object| (*row.key(), object))).collect();
        all.iter().try_for_each(|(handle, object)| visit(*handle, object))
    }

    fn remove_where(&self, gone: impl Fn(&Entry) -> bool) {
        let handles: Vec<_> = self.entries.iter().filter(|row| gone(row)).map(|row| *row.key()).collect();
        handles.into_iter().for_each(|handle| self.remove(handle));
    }
}
