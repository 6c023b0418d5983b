//! The writing connection, and how threads that write at once share a commit.
//!
//! The rules are:
//! - whoever holds the lane runs its work inside a savepoint of the open transaction, or opens one;
//! - it commits when nobody waits for the lane; else it leaves the commit to the next, who is sure to come;
//! - the open transaction began with the turn of this process ([`super::turns`]), so that no process keeps the others out;
//! - whoever wants the write lock waits for its turn and for the lock until one deadline; threads that waited for the lane while
//!   another one waited in vain try once and give up with it, or each would wait as long again, one after another;
//! - nobody is answered, with success or failure, before the transaction that the work ran in has ended.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex, ReentrantMutex};
use rusqlite::Connection;

use super::fault::Fault;
use super::place::{PATIENCE, pause};
use super::turns::Turns;
use super::{audit, object, schema, token};
use crate::error::{Error, Kind, Result};
use crate::store::{AuditEnd, AuditRow, ObjectRow, Search, Serial, TokenRow, Transaction, Uid};

/// How many works share a commit at most.
const BATCH: u32 = 64;

/// The one connection that writes.
pub(super) struct Writer {
    /// Reentrant, so that a write inside a write is an error and not a deadlock.
    lane: ReentrantMutex<Lane>,
    /// Threads that are about to take the lane.
    waiting: AtomicUsize,
    commits: AtomicU64,
    batch: u32,
}

/// What the lock of the lane guards.
struct Lane {
    connection: Connection,
    turns: Turns,
    /// Until when the connection waits for others.
    deadline: Arc<Mutex<Instant>>,
    /// When a thread last gave up waiting for the write lock.
    gave_up: Cell<Option<Instant>>,
    /// Some work runs just now.
    running: Cell<bool>,
    open: RefCell<Option<Batch>>,
}

/// The open transaction.
struct Batch {
    outcome: Arc<Outcome>,
    works: u32,
    /// How many rows the connection had changed before the last work.
    rows_before: u64,
    /// Some work in it has succeeded and changed a row.
    changed: bool,
}

/// How a transaction ended, once it has.
#[derive(Default)]
struct Outcome {
    end: Mutex<Option<Result<(), (Kind, String)>>>,
    ended: Condvar,
}

impl Outcome {
    fn publish(&self, end: &Result<()>) {
        let end = match end {
            Ok(()) => Ok(()),
            Err(error) => Err((error.kind(), error.message())),
        };
        *self.end.lock() = Some(end);
        self.ended.notify_all();
    }

    fn wait(&self) -> Result<()> {
        let mut end = self.end.lock();
        loop {
            match &*end {
                Some(end) => return end.clone().map_err(|(kind, text)| Error::new(kind, text)),
                None => self.ended.wait(&mut end),
            }
        }
    }
}

impl Writer {
    /// Takes the connection over.
    pub(super) fn new(mut connection: Connection, turns: Turns) -> Result<Self, Fault> {
        let deadline = Arc::new(Mutex::new(Instant::now()));
        let until = Arc::clone(&deadline);
        connection.busy_handler(Some(move |_| {
            pause();
            Instant::now() < *until.lock()
        }))?;
        let (running, gave_up) = (Cell::new(false), Cell::new(None));
        let lane = Lane { connection, turns, deadline, gave_up, running, open: RefCell::new(None) };
        Ok(Self {
            lane: ReentrantMutex::new(lane),
            waiting: AtomicUsize::new(0),
            commits: AtomicU64::new(0),
            batch: BATCH,
        })
    }

    /// Commits each work alone: for a connection that also reads, which would see what is not committed yet.
    pub(super) fn alone(self) -> Self {
        Self { batch: 1, ..self }
    }

    /// Counts the transactions that have changed something.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }

    /// Lends the connection for a read.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Connection) -> T) -> T {
        let lane = self.lane.lock();
        lane.be_patient(Instant::now());
        work(&lane.connection)
    }

    /// Runs work in a transaction; it is durable when this succeeds.
    pub(super) fn write(&self, location: &str, work: &mut dyn FnMut(&Connection) -> Result<(), Fault>) -> Result<()> {
        let start = Instant::now();
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let lane = self.lane.lock();
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        if lane.running.get() {
            return Err(Error::internal("a write was begun inside another write of the same thread"));
        }
        lane.be_patient(start);
        let outcome = lane.join(location)?;
        lane.running.set(true);
        let answer = catch_unwind(AssertUnwindSafe(|| lane.run(work)));
        lane.running.set(false);
        let kept = lane.keep_or_undo(matches!(answer, Ok(Ok(()))));
        if kept.is_err() || lane.is_full(self.batch) || self.waiting.load(Ordering::Acquire) == 0 {
            self.end(&lane, kept, location);
        }
        drop(lane);
        let ended = outcome.wait();
        match answer {
            Err(panic) => resume_unwind(panic),
            // Its own error says more than that of the transaction, which may have ended because of it.
            Ok(Err(fault)) => Err(fault.explain(location)),
            Ok(Ok(())) => ended,
        }
    }

    /// Ends the open transaction and tells all whose work ran in it.
    fn end(&self, lane: &Lane, kept: Result<(), Fault>, location: &str) {
        let Some(batch) = lane.open.borrow_mut().take() else { return };
        let end = kept.and_then(|()| lane.commit(batch.changed));
        if end.is_err() {
            lane.roll_back();
        } else if batch.changed {
            self.commits.fetch_add(1, Ordering::AcqRel);
        }
        batch.outcome.publish(&end.map_err(|fault| fault.explain(location)));
    }
}

impl Lane {
    /// Sets how long a call that began at `start` waits for others from now on.
    fn be_patient(&self, start: Instant) {
        let in_vain = self.gave_up.get().is_some_and(|gave_up| gave_up > start);
        *self.deadline.lock() = if in_vain { start } else { Instant::now() + PATIENCE };
    }

    /// Joins the open transaction, or opens one.
    fn join(&self, location: &str) -> Result<Arc<Outcome>> {
        let mut open = self.open.borrow_mut();
        if open.is_none() {
            self.begin(location).map_err(|fault| fault.explain(location))?;
        }
        let batch =
            open.get_or_insert_with(|| Batch { outcome: Arc::default(), works: 0, rows_before: 0, changed: false });
        batch.works = batch.works.saturating_add(1);
        batch.rows_before = self.connection.total_changes();
        Ok(Arc::clone(&batch.outcome))
    }

    /// Takes the write lock and makes sure that no newer version has taken the database over.
    fn begin(&self, location: &str) -> Result<(), Fault> {
        let deadline = *self.deadline.lock();
        let turn = self.turns.wait(deadline);
        self.execute("BEGIN IMMEDIATE").inspect_err(|fault| {
            if fault.is_busy() {
                self.gave_up.set(Some(Instant::now()));
            }
        })?;
        drop(turn);
        let current = schema::require(&self.connection, schema::MIGRATIONS.len(), location);
        if current.is_err() {
            self.roll_back();
        }
        current
    }

    /// Runs work inside a savepoint.
    fn run(&self, work: &mut dyn FnMut(&Connection) -> Result<(), Fault>) -> Result<(), Fault> {
        self.execute("SAVEPOINT work")?;
        work(&self.connection)
    }

    /// Keeps what the work did in the open transaction, or undoes it. An error means that the whole transaction is lost.
    fn keep_or_undo(&self, keep: bool) -> Result<(), Fault> {
        if self.connection.is_autocommit() {
            return Err(Fault::told("the transaction was lost with another write in it; try again".into()));
        }
        if !keep {
            self.execute("ROLLBACK TO work")?;
        }
        self.execute("RELEASE work")?;
        if let Some(batch) = self.open.borrow_mut().as_mut() {
            batch.changed |= keep && self.connection.total_changes() != batch.rows_before;
        }
        Ok(())
    }

    fn is_full(&self, limit: u32) -> bool {
        self.open.borrow().as_ref().is_none_or(|batch| batch.works >= limit)
    }

    /// Commits; a transaction in which nothing was kept is rolled back, so that nobody sees a change.
    fn commit(&self, changed: bool) -> Result<(), Fault> {
        self.execute(if changed { "COMMIT" } else { "ROLLBACK" })
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit() {
            // Nothing else can be done when this fails: the transaction ends with the connection, uncommitted.
            let _ = self.execute("ROLLBACK");
        }
    }

    fn execute(&self, sql: &str) -> Result<(), Fault> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
}

/// The transaction that a work sees.
pub(super) struct Running<'c> {
    connection: &'c Connection,
    location: &'c str,
    /// A step failed half-way; what it left must never be committed, whatever the work makes of its error.
    broken: bool,
}

impl<'c> Running<'c> {
    /// Starts.
    pub(super) fn new(connection: &'c Connection, location: &'c str) -> Self {
        Self { connection, location, broken: false }
    }

    /// Ends; a broken one must not be committed.
    pub(super) fn finish(self) -> Result<(), Fault> {
        match self.broken {
            true => Err(Fault::told(format!("a write to {} failed half-way and was undone; try again", self.location))),
            false => Ok(()),
        }
    }

    fn step<T>(&mut self, step: Result<T, Fault>) -> Result<T> {
        step.map_err(|fault| {
            self.broken |= fault.breaks();
            fault.explain(self.location)
        })
    }
}

impl Transaction for Running<'_> {
    fn token(&mut self, serial: &Serial) -> Result<Option<TokenRow>> {
        self.step(token::find(self.connection, serial))
    }

    fn insert_token(&mut self, row: &TokenRow) -> Result<()> {
        self.step(token::insert(self.connection, row))
    }

    fn restore_token(&mut self, row: &TokenRow) -> Result<()> {
        self.step(token::restore(self.connection, row))
    }

    fn update_token(&mut self, row: &TokenRow) -> Result<()> {
        self.step(token::update(self.connection, row))
    }

    fn delete_objects(&mut self, token: &Serial) -> Result<()> {
        self.step(object::delete_all(self.connection, token))
    }

    fn object(&mut self, token: &Serial, uid: &Uid) -> Result<Option<ObjectRow>> {
        self.step(object::find(self.connection, token, uid))
    }

    fn search(&mut self, token: &Serial, search: &Search) -> Result<Vec<ObjectRow>> {
        self.step(object::search_within(self.connection, token, search))
    }

    fn visit(&mut self, token: &Serial, search: &Search, visit: &mut dyn FnMut(ObjectRow) -> Result<()>) -> Result<()> {
        let mut after = Some(i64::MIN);
        while let Some(start) = after {
            let page = self.step(object::page_within(self.connection, token, search, start))?;
            page.rows.into_iter().try_for_each(&mut *visit)?;
            after = page.more;
        }
        Ok(())
    }

    fn insert_object(&mut self, token: &Serial, row: &ObjectRow) -> Result<()> {
        self.step(object::insert(self.connection, token, row))
    }

    fn update_object(&mut self, token: &Serial, row: &ObjectRow) -> Result<()> {
        self.step(object::update(self.connection, token, row))
    }

    fn delete_object(&mut self, token: &Serial, uid: &Uid) -> Result<()> {
        self.step(object::delete(self.connection, token, uid))
    }

    fn audit_last(&mut self, token: &Serial) -> Result<Option<AuditRow>> {
        self.step(audit::last(self.connection, token))
    }

    fn audit_at(&mut self, token: &Serial, sequence: u64) -> Result<Option<AuditRow>> {
        self.step(audit::at(self.connection, token, sequence))
    }

    fn audit_end(&mut self, token: &Serial) -> Result<Option<AuditEnd>> {
        self.step(audit::end(self.connection, token))
    }

    fn audit_is_signed(&mut self, token: &Serial) -> Result<bool> {
        self.step(audit::is_signed(self.connection, token))
    }

    fn append_audit(&mut self, token: &Serial, row: &AuditRow, end: Option<&[u8]>) -> Result<()> {
        self.step(audit::append(self.connection, token, row, end))
    }
}
