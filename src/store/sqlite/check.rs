//! The deep check: everything that can be told without a key, one line for each fault.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::fault::Fault;
use super::{chain, column, object, place, schema, serial, token};
use crate::store::ObjectRow;

/// How many faults of one kind are told.
const MOST: usize = 100;
/// What to do about a damaged index.
const REPAIR: &str = "run `strongroom doctor --repair`, which makes the index anew from the objects";

/// Checks a database, all of it in one state.
pub(super) fn database(connection: &Connection) -> Result<Vec<String>, Fault> {
    let connection = &Transaction::new_unchecked(connection, TransactionBehavior::Deferred)?;
    let mut faults = structure(connection)?;
    if !faults.is_empty() {
        // The rows of a broken file say nothing.
        return Ok(faults);
    }
    faults.extend(tables(connection)?);
    faults.extend(token::faults(connection)?);
    if serial::next(connection)?.is_none() {
        faults.push("the next serial number is damaged; it is drawn anew when the next token is made".into());
    }
    faults.extend(lonely_rows(connection)?);
    faults.extend(chains(connection)?);
    faults.extend(objects(connection)?);
    Ok(faults)
}

/// Lets SQLite check its pages, its indexes, and the types of all columns.
fn structure(connection: &Connection) -> Result<Vec<String>, Fault> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({MOST})"))?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").map(|line| format!("the database file: {line}")).collect())
}

/// Compares the tables with those of a new store.
fn tables(connection: &Connection) -> Result<Option<String>, Fault> {
    let new = place::memory()?;
    schema::migrate(&new, None, schema::MIGRATIONS, "memory:")?;
    let same = schema::tables(connection)? == schema::tables(&new)?;
    Ok((!same).then(|| "the tables are not as this version made them; restore the store from a backup".into()))
}

/// Finds rows that belong to nothing.
fn lonely_rows(connection: &Connection) -> Result<Vec<String>, Fault> {
    let mut faults = Vec::new();
    for (what, remedy, sql) in [
        (
            "objects belong to no token",
            "restore the store from a backup",
            "SELECT count(*) FROM object WHERE token NOT IN (SELECT id FROM token)",
        ),
        (
            "records of the audit trail belong to no token",
            "restore the store from a backup",
            "SELECT count(*) FROM audit WHERE token NOT IN (SELECT id FROM token)",
        ),
        (
            "ends of audit trails belong to no token",
            "restore the store from a backup",
            "SELECT count(*) FROM audit_end WHERE token NOT IN (SELECT id FROM token)",
        ),
        (
            "index entries belong to no object",
            REPAIR,
            "SELECT count(*) FROM object_index i WHERE i.object <> 0 \
             AND NOT EXISTS (SELECT 1 FROM object o WHERE o.id = i.object AND o.token = i.token)",
        ),
    ] {
        let count: i64 = connection.query_row(sql, [], |row| row.get(0))?;
        if count > 0 {
            faults.push(format!("{count} {what}; {remedy}"));
        }
    }
    Ok(faults)
}

/// Follows the index of every token from its first row to its last.
fn chains(connection: &Connection) -> Result<Vec<String>, Fault> {
    let mut statement = connection.prepare("SELECT id FROM token ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut faults = Vec::new();
    while let Some(row) = rows.next()? {
        let token = column::number(row, 0)?;
        match chain::check(connection, token) {
            Ok(()) => {}
            Err(Fault::Index) => faults.push(format!("the index of token number {token} is damaged; {REPAIR}")),
            Err(other) => return Err(other),
        }
    }
    Ok(faults)
}

/// Checks the digest of every object, and that the index has exactly the entries that the object says.
fn objects(connection: &Connection) -> Result<Vec<String>, Fault> {
    let mut statement = connection.prepare(&format!("SELECT {}, id FROM object ORDER BY id", object::COLUMNS))?;
    let mut indexed = connection.prepare(
        "SELECT EXISTS (SELECT 1 FROM object_index WHERE token = ?1 AND field = ?2 AND digest = ?3 AND object = ?4)",
    )?;
    let mut rows = statement.query([])?;
    let (mut faults, mut entries) = (Vec::new(), 0i64);
    while let Some(row) = rows.next()?
        && faults.len() < MOST
    {
        let (token, id) = (column::number::<i64>(row, 5)?, column::number::<i64>(row, 7)?);
        let Ok(ObjectRow { uid, mut index, .. }) = object::decode(row) else {
            faults.push(format!("object number {id} is damaged; restore the store from a backup"));
            continue;
        };
        index.sort_unstable_by_key(|entry| (entry.field, entry.digest));
        index.dedup();
        for entry in index {
            entries = entries.saturating_add(1);
            if !indexed.query_row((token, entry.field, entry.digest, id), |row| row.get(0))? {
                let (uid, field) = (column::hex(&uid), entry.field);
                faults.push(format!("object {uid} cannot be found by its attribute {field}; {REPAIR}"));
            }
        }
    }
    let stored: i64 =
        connection.query_row("SELECT count(*) FROM object_index WHERE object <> 0", [], |row| row.get(0))?;
    if faults.is_empty() && stored != entries {
        faults.push(format!("the index has {stored} entries where the objects name {entries}; {REPAIR}"));
    }
    Ok(faults)
}
