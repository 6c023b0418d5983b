//! Which database this is, of which version, and how it is brought to the last one.

use std::time::Instant;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::fault::Fault;
use super::place::{self, PATIENCE, Place};
use super::{rebuild, serial};

/// "STRG": what marks a SQLite file as a store of Strongroom.
pub(super) const APPLICATION_ID: i64 = 0x5354_5247;

/// One step from a version to the next.
#[derive(Clone, Copy)]
pub(super) struct Migration {
    /// Changes the tables.
    pub(super) sql: &'static str,
    /// Fills what SQL alone cannot, in the same transaction.
    pub(super) fill: fn(&Connection) -> Result<(), Fault>,
}

/// The migrations; number N brings version N to version N + 1.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration {
        sql: include_str!("../migrations/0001_initial.sql"),
        fill: |connection| serial::renew(connection).map(drop),
    },
    Migration { sql: include_str!("../migrations/0002_index_chain.sql"), fill: rebuild::digests_and_index },
    Migration { sql: include_str!("../migrations/0003_audit.sql"), fill: |_| Ok(()) },
];

/// Brings a writable database to the last version; an empty one becomes a store.
pub(super) fn prepare(connection: &Connection, place: &Place, migrations: &[Migration]) -> Result<(), Fault> {
    let location = place.location();
    // First of all: nothing may be written to a file that is not ours.
    let version = version(connection, migrations.len(), &location)?;
    write_ahead(connection, &location)?;
    if version < migrations.len() { migrate(connection, Some(place), migrations, &location) } else { Ok(()) }
}

/// Runs the migrations that are missing in one transaction: nobody ever sees a version in between.
pub(super) fn migrate(
    connection: &Connection,
    place: Option<&Place>,
    migrations: &[Migration],
    location: &str,
) -> Result<(), Fault> {
    let step = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    // Read under the write lock: another process may have been faster.
    let version = version(&step, migrations.len(), location)?;
    let missing = migrations.get(version..).unwrap_or_default();
    if missing.is_empty() {
        return Ok(());
    }
    match place {
        Some(place) if version > 0 => place.back_up(version)?,
        _ => {}
    }
    for migration in missing {
        step.execute_batch(migration.sql)?;
        (migration.fill)(&step)?;
    }
    step.pragma_update(None, "application_id", APPLICATION_ID)?;
    step.pragma_update(None, "user_version", i64::try_from(migrations.len()).unwrap_or(i64::MAX))?;
    Ok(step.commit()?)
}

/// Requires a store of exactly the last version.
pub(super) fn require(connection: &Connection, last: usize, location: &str) -> Result<(), Fault> {
    match version(connection, last, location)? {
        version if version == last => Ok(()),
        0 => Err(Fault::told(format!("{location} is empty and cannot be written, so no store can be made in it"))),
        version => Err(Fault::told(format!(
            "{location} has format version {version} and cannot be written, so it cannot be brought to version {last}; \
             open it once where it can be written"
        ))),
    }
}

/// Reads the version; 0 is an empty database. What is foreign or newer is refused.
fn version(connection: &Connection, last: usize, location: &str) -> Result<usize, Fault> {
    let mut statement = connection
        .prepare_cached("SELECT application_id, user_version FROM pragma_application_id, pragma_user_version")?;
    let (application, version): (i64, i64) = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if application == 0 && version == 0 && is_empty(connection)? {
        return Ok(0);
    }
    if application != APPLICATION_ID {
        return Err(Fault::told(format!(
            "{location} is the database of another program (application id {application:#x}); name another file in `store.url`"
        )));
    }
    match usize::try_from(version) {
        Ok(version) if (1..=last).contains(&version) => Ok(version),
        _ => Err(Fault::told(format!(
            "{location} has format version {version}, but Strongroom {} knows the versions up to {last} only; \
             use the newer Strongroom that made it, or restore a backup of version {last}",
            env!("CARGO_PKG_VERSION")
        ))),
    }
}

fn is_empty(connection: &Connection) -> Result<bool, Fault> {
    Ok(connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))? == 0)
}

/// Turns write-ahead logging on: readers and the writer do not wait for each other.
fn write_ahead(connection: &Connection, location: &str) -> Result<(), Fault> {
    let start = Instant::now();
    loop {
        let set = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
        match set.map_err(Fault::from) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                return Err(Fault::told(format!(
                    "{location} is on a file system without write-ahead logging (the journal is {mode:?}); put it on a local disk"
                )));
            }
            // Two that turn it on at once may both be refused without a wait, lest they wait for each other.
            Err(fault) if fault.is_busy() && start.elapsed() < PATIENCE => place::pause(),
            Err(fault) => return Err(fault),
        }
    }
}

/// Reads the SQL of every table and index, to compare two databases.
pub(super) fn tables(connection: &Connection) -> Result<Vec<(String, String, String)>, Fault> {
    let mut statement = connection.prepare(
        "SELECT type, name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT GLOB 'sqlite_stat*' ORDER BY type, name",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
