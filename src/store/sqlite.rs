//! The store in one SQLite file, or in memory.
//!
//! The rules are:
//! - one connection writes, under one lock; a few others read, so that no read waits for the disk of a write;
//! - whatever enters SQLite holds a [`Pass`], so that no fork copies SQLite's locks and mutexes in mid-work;
//! - SQL stands in `sqlite/{token,object,chain,audit,serial,schema,check,rebuild}.rs` and is written once for all connections;
//! - a file descriptor of the database is opened and closed by SQLite alone: closing another one would drop the process's
//!   locks on it (POSIX), and with them the safety of the file.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;

use super::{
    AuditEnd, AuditRow, Listed, ObjectRow, OpenOptions, Search, Serial, Snapshot, Store, TokenRow, Transaction, Uid,
};
use crate::error::{Error, Kind, Result};
use crate::runtime::Pass;

mod audit;
mod chain;
mod check;
mod column;
mod fault;
mod forked;
mod object;
mod place;
mod rebuild;
mod schema;
mod serial;
mod snapshot;
#[cfg(test)]
mod tests;
mod token;
mod turns;
mod writer;

use fault::Fault;
use place::{Link, Place};
use schema::Migration;
use turns::Turns;
use writer::Writer;

/// How many connections read at once. More threads than these share them.
const READERS: usize = 8;

/// Opens the file that the rest of a `sqlite:` URL names.
pub(super) fn open(rest: &str, options: &OpenOptions) -> Result<Arc<dyn Store>> {
    let place = Place::parse(rest, options)?;
    Ok(Arc::new(SqliteStore::open_file(place, schema::MIGRATIONS)?))
}

/// Opens a new store in memory, gone when it is dropped.
pub(super) fn open_memory(rest: &str, options: &OpenOptions) -> Result<Arc<dyn Store>> {
    if !rest.is_empty() {
        return Err(Error::arguments_bad("the URL of the store in memory is `memory:` and nothing more"));
    }
    if options.read_only {
        return Err(Error::arguments_bad("a store in memory starts empty, so it cannot be read-only"));
    }
    Ok(Arc::new(SqliteStore::open_memory()?))
}

/// A store in SQLite.
struct SqliteStore {
    location: String,
    /// Where the file is; `None` in memory, where the one connection is the writer's.
    place: Option<Place>,
    /// `None` when it can only be read.
    writer: Option<Writer>,
    readers: [Mutex<Option<Link>>; READERS],
    /// The connection that sees whether anything changed.
    watch: Mutex<Option<Link>>,
}

impl SqliteStore {
    /// Opens a file, makes it when it is missing, and brings it to the last migration.
    fn open_file(place: Place, migrations: &[Migration]) -> Result<Self> {
        let _pass = Pass::take();
        let location = place.location();
        let explain = |fault: Fault| fault.explain(&location);
        place.create()?;
        let link = place.connect().map_err(explain)?;
        let writable = link.writable();
        if writable {
            schema::prepare(&link.connection, &place, migrations).map_err(explain)?;
            place::widen(&link.connection).map_err(explain)?;
        } else {
            schema::require(&link.connection, migrations.len(), &location).map_err(explain)?;
        }
        let writer = |link: Link| Writer::new(link.connection, place.turns()).map_err(explain);
        let (writer, reader) = if writable { (Some(writer(link)?), None) } else { (None, Some(link)) };
        let store =
            Self { location, place: Some(place), writer, readers: Default::default(), watch: Default::default() };
        if let Some(first) = store.readers.first() {
            *first.lock() = reader;
        }
        Ok(store)
    }

    /// Opens a database in memory.
    fn open_memory() -> Result<Self> {
        let _pass = Pass::take();
        let location = "memory:".to_owned();
        let made = place::memory().and_then(|connection| {
            schema::migrate(&connection, None, schema::MIGRATIONS, &location)?;
            Writer::new(connection, Turns::none())
        });
        let writer = made.map_err(|fault| fault.explain(&location))?.alone();
        Ok(Self { location, place: None, writer: Some(writer), readers: Default::default(), watch: Default::default() })
    }

    /// Runs a read on a connection that no other thread uses.
    fn read<T>(&self, work: impl Fn(&Connection) -> Result<T, Fault>) -> Result<T> {
        let _pass = Pass::take();
        let Some(place) = &self.place else { return self.read_memory(work) };
        let mut slot = self.reader();
        let answer = place.read_on(&mut slot, |link| work(&link.connection));
        answer.map_err(|fault| fault.explain(&self.location))
    }

    /// Runs a read on the one connection of a store in memory.
    fn read_memory<T>(&self, work: impl Fn(&Connection) -> Result<T, Fault>) -> Result<T> {
        let writer = self.writer.as_ref().expect("a store in memory is made with a writer");
        writer.with(work).map_err(|fault| fault.explain(&self.location))
    }

    /// Takes a reader that is free, or waits for one.
    fn reader(&self) -> MutexGuard<'_, Option<Link>> {
        match self.readers.iter().find_map(|reader| reader.try_lock()) {
            Some(reader) => reader,
            None => self.readers.get(self.crowded_slot()).expect("the slot is below READERS").lock(),
        }
    }

    /// Chooses a reader to wait for, spread by thread.
    fn crowded_slot(&self) -> usize {
        let mut hasher = std::hash::DefaultHasher::new();
        std::hash::Hash::hash(&std::thread::current().id(), &mut hasher);
        usize::try_from(std::hash::Hasher::finish(&hasher)).unwrap_or(0) % READERS
    }

    /// Asks the watching connection for its count of changes.
    fn watch(&self, place: &Place) -> Result<u64, Fault> {
        let _pass = Pass::take();
        place.require_unmoved()?;
        place.read_on(&mut self.watch.lock(), |link| {
            let mut statement = link.connection.prepare_cached("PRAGMA data_version")?;
            let version: u32 = statement.query_row([], |row| row.get(0))?;
            schema::require(&link.connection, schema::MIGRATIONS.len(), &self.location)?;
            Ok((link.number << 32) | u64::from(version))
        })
    }

    /// Draws a new next serial number in the place of a damaged one: nothing depends on it yet, so nothing is lost.
    fn renew_serial(&self) -> Result<Serial> {
        crate::log::warn!(
            "{}: the next serial number was damaged and is drawn anew; run `strongroom doctor`",
            self.location
        );
        let mut answer = None;
        self.write_with(&mut |connection| {
            answer = Some(match serial::next(connection)? {
                Some(serial) => serial,
                None => serial::renew(connection)?,
            });
            Ok(())
        })?;
        answer.ok_or_else(|| Error::internal("the transaction that draws a serial number did not run"))
    }

    /// Runs work in a transaction on the writing connection.
    fn write_with(&self, work: &mut dyn FnMut(&Connection) -> Result<(), Fault>) -> Result<()> {
        let writer = self.writer.as_ref().ok_or_else(|| self.write_protected())?;
        if let Some(place) = &self.place {
            place.require_unmoved().map_err(|fault| fault.explain(&self.location))?;
        }
        let _pass = Pass::take();
        writer.write(&self.location, work)
    }

    /// Makes the error of a write to a store that can only be read.
    fn write_protected(&self) -> Error {
        Error::new(
            Kind::TokenWriteProtected,
            format!(
                "{} was opened read-only: by configuration, or because its file or directory cannot be written",
                self.location
            ),
        )
    }
}

impl Store for SqliteStore {
    fn location(&self) -> &str {
        &self.location
    }

    fn read_only(&self) -> bool {
        self.writer.is_none()
    }

    fn change_count(&self) -> Result<u64> {
        match &self.place {
            Some(place) => self.watch(place).map_err(|fault| fault.explain(&self.location)),
            None => Ok(self.writer.as_ref().map_or(0, Writer::commits)),
        }
    }

    fn next_serial(&self) -> Result<Serial> {
        match self.read(serial::next)? {
            Some(serial) => Ok(serial),
            None if self.read_only() => {
                Err(Error::damaged(format_args!("the next serial number in {}", self.location)))
            }
            None => self.renew_serial(),
        }
    }

    fn tokens(&self) -> Result<Vec<Listed>> {
        self.read(token::all)
    }

    fn token(&self, serial: &Serial) -> Result<Option<TokenRow>> {
        self.read(|connection| token::find(connection, serial))
    }

    fn object(&self, token: &Serial, uid: &Uid) -> Result<Option<ObjectRow>> {
        self.read(|connection| object::find(connection, token, uid))
    }

    fn search(&self, token: &Serial, search: &Search, visit: &mut dyn FnMut(ObjectRow) -> Result<()>) -> Result<()> {
        let mut after = Some(i64::MIN);
        while let Some(start) = after {
            let page = self.read(|connection| object::page(connection, token, search, start))?;
            page.rows.into_iter().try_for_each(&mut *visit)?;
            after = page.more;
        }
        Ok(())
    }

    fn object_count(&self, token: &Serial) -> Result<u64> {
        self.read(|connection| object::count(connection, token))
    }

    fn snapshot(&self, token: &Serial) -> Result<Box<dyn Snapshot + '_>> {
        match (&self.place, &self.writer) {
            (None, Some(writer)) => {
                let copied = writer.with(|connection| snapshot::copy(connection, token));
                Ok(Box::new(copied.map_err(|fault| fault.explain(&self.location))?))
            }
            (place, _) => {
                let place = place.as_ref().ok_or_else(|| Error::internal("a store has neither a file nor a writer"))?;
                Ok(Box::new(snapshot::InFile::take(place, *token)?))
            }
        }
    }

    fn audit(&self, token: &Serial, after: u64, visit: &mut dyn FnMut(AuditRow) -> Result<()>) -> Result<()> {
        let mut next = audit::after(after);
        while let Some(start) = next {
            let page = self.read(|connection| audit::page(connection, token, start))?;
            next = page.next;
            page.rows.into_iter().try_for_each(&mut *visit)?;
        }
        Ok(())
    }

    fn audit_last(&self, token: &Serial) -> Result<Option<AuditRow>> {
        self.read(|connection| audit::last(connection, token))
    }

    fn audit_end(&self, token: &Serial) -> Result<Option<AuditEnd>> {
        self.read(|connection| audit::end(connection, token))
    }

    fn write(&self, work: &mut dyn FnMut(&mut dyn Transaction) -> Result<()>) -> Result<()> {
        self.write_with(&mut |connection| {
            let mut running = writer::Running::new(connection, &self.location);
            work(&mut running)?;
            running.finish()
        })
    }

    fn repair(&self) -> Result<u64> {
        let mut entries = 0;
        self.write_with(&mut |connection| {
            entries = rebuild::index(connection)?;
            Ok(())
        })?;
        Ok(entries)
    }

    fn check(&self) -> Result<Vec<String>> {
        let mut faults = self.read(check::database)?;
        faults.extend(self.place.as_ref().and_then(Place::exposure));
        Ok(faults)
    }
}
