//! Makes the index anew from what the objects say of themselves: for a repair, and for stores of before the chain.

use rusqlite::{Connection, Row, params};

use super::chain::{self, Key};
use super::column;
use super::fault::Fault;
use super::object;

/// Every token that has an index, and those that objects name: a row of a token that is damaged takes no index away.
const TOKENS: &str = "SELECT id FROM token UNION SELECT token FROM object";

/// Makes the index anew and counts its entries. Each object must match its digest.
pub(super) fn index(connection: &Connection) -> Result<u64, Fault> {
    connection.execute("DELETE FROM object_index", [])?;
    connection.execute_batch(
        "CREATE TEMP TABLE entry (token, field, digest, object, PRIMARY KEY (token, field, digest, object)) WITHOUT ROWID",
    )?;
    gather(connection)?;
    let mut tokens = connection.prepare(TOKENS)?;
    let mut rows = tokens.query([])?;
    let mut entries = 0u64;
    while let Some(row) = rows.next()? {
        entries = entries.saturating_add(join(connection, column::number(row, 0)?)?);
    }
    connection.execute_batch("DROP TABLE temp.entry")?;
    Ok(entries)
}

/// Collects the entries of all objects.
fn gather(connection: &Connection) -> Result<(), Fault> {
    let mut objects = connection.prepare(&format!("SELECT {}, id FROM object", object::COLUMNS))?;
    let mut add = connection.prepare("INSERT OR IGNORE INTO temp.entry VALUES (?1, ?2, ?3, ?4)")?;
    let mut rows = objects.query([])?;
    while let Some(row) = rows.next()? {
        let (token, id): (i64, i64) = (column::number(row, 5)?, column::number(row, 7)?);
        let object = object::decode(row).map_err(|fault| fault.of(|| format!("object number {id}")))?;
        for entry in object.index {
            add.execute(params![token, entry.field, entry.digest, id])?;
        }
    }
    Ok(())
}

/// Writes the rows of a token in order, so that each knows the one after it, and counts them.
fn join(connection: &Connection, token: i64) -> Result<u64, Fault> {
    let mut sorted = connection
        .prepare("SELECT field, digest, object FROM temp.entry WHERE token = ?1 ORDER BY field, digest, object")?;
    let mut rows = sorted.query([token])?;
    let (mut key, mut entries) = (Key::FIRST, 0u64);
    while let Some(row) = rows.next()? {
        let next = Key::read(row, 0)?;
        chain::put(connection, token, key, Some(next))?;
        entries = entries.saturating_add(1);
        key = next;
    }
    chain::put(connection, token, key, None)?;
    Ok(entries)
}

/// Brings a store of version 1 up: each object gets its digest, then the index is made. What version 1 could not tell from
/// damage is taken as it stands.
pub(super) fn digests_and_index(connection: &Connection) -> Result<(), Fault> {
    let mut ids = connection.prepare("SELECT id, token, uid, revision, entries FROM object")?;
    let mut write = connection.prepare("UPDATE object SET digest = ?2 WHERE id = ?1")?;
    let mut rows = ids.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = column::number(row, 0)?;
        let digest = digest_of(row).map_err(|fault| fault.of(|| format!("object number {id}")))?;
        write.execute(params![id, digest])?;
    }
    index(connection).map(drop)
}

/// Makes the digest of a row of version 1.
fn digest_of(row: &Row<'_>) -> Result<[u8; 32], Fault> {
    let (token, uid, revision) = (column::number(row, 1)?, column::array(row, 2)?, column::number(row, 3)?);
    Ok(object::digest(token, &uid, revision, column::blob(row, 4)?))
}
