//! One state of a token and its objects, read while others go on writing.
//!
//! The rules are:
//! - a file is read in one read transaction on a connection of its own, so that no thread waits for the end of a backup;
//! - a [`Pass`] is held for each step alone: a fork never waits for a whole backup;
//! - a store in memory, which has one connection for all, is copied.

use rusqlite::Connection;

use super::fault::Fault;
use super::object;
use super::place::{Link, Place};
use super::{schema, token};
use crate::error::Result;
use crate::runtime::Pass;
use crate::store::{ObjectRow, Search, Serial, Snapshot, TokenRow};

/// The state of a token in a file.
pub(super) struct InFile<'p> {
    place: &'p Place,
    serial: Serial,
    /// `None` once it is dropped, which takes a pass.
    link: Option<Link>,
}

impl<'p> InFile<'p> {
    /// Opens a connection and begins the read transaction.
    pub(super) fn take(place: &'p Place, serial: Serial) -> Result<Self> {
        let _pass = Pass::take();
        let location = place.location();
        let begun = place.connect().and_then(|link| {
            link.connection.execute_batch("PRAGMA query_only = ON; BEGIN")?;
            // The transaction begins with the first read.
            schema::require(&link.connection, schema::MIGRATIONS.len(), &location)?;
            Ok(link)
        });
        let link = Some(begun.map_err(|fault| fault.explain(&location))?);
        Ok(Self { place, serial, link })
    }

    /// Runs one step of reading.
    fn step<T>(&self, work: impl FnOnce(&Connection, &Serial) -> Result<T, Fault>) -> Result<T> {
        let _pass = Pass::take();
        let link = self.link.as_ref().expect("it is taken away when dropped");
        let answer = work(&link.connection, &self.serial);
        // A file that is read without locks may have been changed by now.
        let answer = if link.is_current(self.place) { answer } else { Err(changed(self.place)) };
        answer.map_err(|fault| fault.explain(&self.place.location()))
    }
}

fn changed(place: &Place) -> Fault {
    Fault::told(format!("{} was changed while it was read, and cannot be locked here; try again", place.location()))
}

impl Drop for InFile<'_> {
    fn drop(&mut self) {
        let _pass = Pass::take();
        drop(self.link.take());
    }
}

impl Snapshot for InFile<'_> {
    fn token(&mut self) -> Result<Option<TokenRow>> {
        self.step(token::find)
    }

    fn object_count(&mut self) -> Result<u64> {
        self.step(object::count)
    }

    fn search(&mut self, search: &Search, visit: &mut dyn FnMut(ObjectRow) -> Result<()>) -> Result<()> {
        let mut after = Some(i64::MIN);
        while let Some(start) = after {
            let page = self.step(|connection, serial| object::page_within(connection, serial, search, start))?;
            page.rows.into_iter().try_for_each(&mut *visit)?;
            after = page.more;
        }
        Ok(())
    }
}

/// A copy of a token and its objects.
pub(super) struct Copied {
    token: Option<TokenRow>,
    objects: Vec<ObjectRow>,
}

/// Copies a token and its objects.
pub(super) fn copy(connection: &Connection, serial: &Serial) -> Result<Copied, Fault> {
    let objects = object::search_within(connection, serial, &Search::All)?;
    Ok(Copied { token: token::find(connection, serial)?, objects })
}

impl Snapshot for Copied {
    fn token(&mut self) -> Result<Option<TokenRow>> {
        Ok(self.token.clone())
    }

    fn object_count(&mut self) -> Result<u64> {
        Ok(u64::try_from(self.objects.len()).unwrap_or(u64::MAX))
    }

    fn search(&mut self, search: &Search, visit: &mut dyn FnMut(ObjectRow) -> Result<()>) -> Result<()> {
        let fits = |row: &&ObjectRow| match search {
            Search::All => true,
            Search::Any(entries) => row.index.iter().any(|entry| entries.contains(entry)),
        };
        self.objects.iter().filter(fits).cloned().try_for_each(visit)
    }
}
