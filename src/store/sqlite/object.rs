//! Object rows and the index that finds them. What an object row holds is authenticated above the store; here it must
//! only be of the right shape.

use rusqlite::{Connection, Row, params};

use super::column::{self, hex, signed};
use super::fault::Fault;
use super::{serial, token};
use crate::error::{Error, Kind};
use crate::store::{IndexEntry, ObjectRow, Search, Serial, Uid};

/// How many objects a search reads at once.
const PAGE_ROWS: usize = 256;
/// After how many bytes of rows a search stops reading more at once.
const PAGE_BYTES: usize = 1 << 20;
/// The length of an index entry in the `entries` column: field, digest.
const ENTRY_LEN: usize = 17;

/// A part of what a search finds.
pub(super) struct Page {
    /// The objects.
    pub(super) rows: Vec<ObjectRow>,
    /// The row number after which the next page starts; `None` at the end.
    pub(super) more: Option<i64>,
}

/// What a change of an object must know of the stored one.
struct Stored {
    id: i64,
    token: i64,
    revision: u64,
    index: Vec<IndexEntry>,
}

/// Reads one object with its index entries.
pub(super) fn find(connection: &Connection, serial: &Serial, uid: &Uid) -> Result<Option<ObjectRow>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT object.uid, object.revision, attributes, secret, entries FROM object JOIN token ON token.id = object.token \
         WHERE object.uid = ?1 AND token.serial = ?2",
    )?;
    let mut rows = statement.query(params![uid, serial::text(serial)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let read = decode(row).and_then(|object| Ok(ObjectRow { index: unpack(column::blob(row, 4)?)?, ..object }));
    read.map(Some).map_err(|fault| damaged(fault, uid))
}

/// Counts the objects of a token.
pub(super) fn count(connection: &Connection, serial: &Serial) -> Result<u64, Fault> {
    let mut statement = connection
        .prepare_cached("SELECT count(*) FROM object WHERE token = (SELECT id FROM token WHERE serial = ?1)")?;
    statement.query_row([serial::text(serial)], |row| Ok(column::number(row, 0)))?
}

/// Reads the next objects of a search whose row numbers are above `after`, all from one state of the database.
pub(super) fn page(connection: &Connection, serial: &Serial, search: &Search, after: i64) -> Result<Page, Fault> {
    let snapshot = rusqlite::Transaction::new_unchecked(connection, rusqlite::TransactionBehavior::Deferred)?;
    let mut page = Page { rows: Vec::new(), more: None };
    let Some(token) = token::id(&snapshot, serial)? else { return Ok(page) };
    let ids = matches(&snapshot, token, search, after)?;
    let mut bytes = 0usize;
    for (number, id) in (1..).zip(&ids) {
        if let Some(row) = at(&snapshot, token, *id)? {
            bytes = bytes.saturating_add(row.attributes.len()).saturating_add(row.secret.as_ref().map_or(0, Vec::len));
            page.rows.push(row);
        }
        let end = if number == ids.len() { ids.len() < PAGE_ROWS } else { bytes < PAGE_BYTES };
        if !end {
            page.more = Some(*id);
            break;
        }
    }
    Ok(page)
}

/// Finds the row numbers of the next objects of a search, in order, at most a page of them.
fn matches(connection: &Connection, token: i64, search: &Search, after: i64) -> Result<Vec<i64>, Fault> {
    let limit = i64::try_from(PAGE_ROWS).expect("a page is small");
    let mut ids = match search {
        Search::All => numbers(
            connection,
            "SELECT id FROM object WHERE token = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
            params![token, after, limit],
        )?,
        Search::Any(entries) => {
            let mut ids = Vec::new();
            for entry in entries {
                ids.extend(numbers(
                    connection,
                    "SELECT object FROM object_index WHERE token = ?1 AND field = ?4 AND digest = ?5 AND object > ?2 \
                     ORDER BY object LIMIT ?3",
                    params![token, after, limit, entry.field, entry.digest],
                )?);
            }
            ids
        }
    };
    // Each entry gave its lowest numbers, so the lowest of all of them are complete.
    ids.sort_unstable();
    ids.dedup();
    ids.truncate(PAGE_ROWS);
    Ok(ids)
}

/// Reads a column of row numbers.
fn numbers(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<i64>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut numbers = Vec::new();
    while let Some(row) = rows.next()? {
        numbers.push(column::number(row, 0)?);
    }
    Ok(numbers)
}

/// Reads the object at a row number, without its index entries.
fn at(connection: &Connection, token: i64, id: i64) -> Result<Option<ObjectRow>, Fault> {
    let mut statement = connection
        .prepare_cached("SELECT uid, revision, attributes, secret FROM object WHERE id = ?1 AND token = ?2")?;
    let mut rows = statement.query([id, token])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    decode(row).map(Some).map_err(|fault| fault.of(|| format!("object number {id}")))
}

/// Adds an object.
pub(super) fn insert(connection: &Connection, serial: &Serial, row: &ObjectRow) -> Result<(), Fault> {
    let token = token::id(connection, serial)?
        .ok_or_else(|| Fault::told(format!("the token {} is gone", serial::text(serial))))?;
    let added = connection
        .prepare_cached(
            "INSERT INTO object (token, uid, revision, attributes, secret, entries) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![token, row.uid, signed(row.revision)?, row.attributes, row.secret, pack(&row.index)])
        .map_err(Fault::from);
    added.map_err(|fault| match fault.is_duplicate() {
        true => Fault::told(format!("there is an object {} already", hex(&row.uid))),
        false => fault,
    })?;
    let id = connection.last_insert_rowid();
    row.index.iter().try_for_each(|entry| add_entry(connection, token, id, entry))
}

/// Replaces an object.
pub(super) fn update(connection: &Connection, serial: &Serial, row: &ObjectRow) -> Result<(), Fault> {
    let stored = stored(connection, serial, &row.uid)?;
    if stored.revision.checked_add(1) != Some(row.revision) {
        return Err(Fault::told(format!(
            "the object {} was changed by another session meanwhile: revision {} would replace {}; try again",
            hex(&row.uid),
            row.revision,
            stored.revision
        )));
    }
    connection
        .prepare_cached("UPDATE object SET revision = ?2, attributes = ?3, secret = ?4, entries = ?5 WHERE id = ?1")?
        .execute(params![stored.id, signed(row.revision)?, row.attributes, row.secret, pack(&row.index)])?;
    let gone = stored.index.iter().filter(|entry| !row.index.contains(entry));
    gone.clone().try_for_each(|entry| remove_entry(connection, &stored, entry))?;
    let new = row.index.iter().filter(|entry| !stored.index.contains(entry));
    new.clone().try_for_each(|entry| add_entry(connection, stored.token, stored.id, entry))
}

/// Removes an object.
pub(super) fn delete(connection: &Connection, serial: &Serial, uid: &Uid) -> Result<(), Fault> {
    let stored = stored(connection, serial, uid)?;
    stored.index.iter().try_for_each(|entry| remove_entry(connection, &stored, entry))?;
    connection.prepare_cached("DELETE FROM object WHERE id = ?1")?.execute([stored.id])?;
    Ok(())
}

/// Removes all objects of a token.
pub(super) fn delete_all(connection: &Connection, serial: &Serial) -> Result<(), Fault> {
    let Some(token) = token::id(connection, serial)? else { return Ok(()) };
    connection.prepare_cached("DELETE FROM object_index WHERE token = ?1")?.execute([token])?;
    connection.prepare_cached("DELETE FROM object WHERE token = ?1")?.execute([token])?;
    Ok(())
}

/// Reads what a change must know of the stored object.
fn stored(connection: &Connection, serial: &Serial, uid: &Uid) -> Result<Stored, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT object.id, object.token, object.revision, entries FROM object JOIN token ON token.id = object.token \
         WHERE object.uid = ?1 AND token.serial = ?2",
    )?;
    let mut rows = statement.query(params![uid, serial::text(serial)])?;
    let row = rows
        .next()?
        .ok_or_else(|| Error::new(Kind::ObjectHandleInvalid, format!("the object {} is gone", hex(uid))))?;
    let read = || -> Result<Stored, Fault> {
        Ok(Stored {
            id: column::number(row, 0)?,
            token: column::number(row, 1)?,
            revision: column::number(row, 2)?,
            index: unpack(column::blob(row, 3)?)?,
        })
    };
    read().map_err(|fault| damaged(fault, uid))
}

fn add_entry(connection: &Connection, token: i64, id: i64, entry: &IndexEntry) -> Result<(), Fault> {
    // OR IGNORE: the same entry may be given twice.
    connection
        .prepare_cached("INSERT OR IGNORE INTO object_index (token, field, digest, object) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![token, entry.field, entry.digest, id])?;
    Ok(())
}

fn remove_entry(connection: &Connection, stored: &Stored, entry: &IndexEntry) -> Result<(), Fault> {
    connection
        .prepare_cached("DELETE FROM object_index WHERE token = ?1 AND field = ?2 AND digest = ?3 AND object = ?4")?
        .execute(params![stored.token, entry.field, entry.digest, stored.id])?;
    Ok(())
}

/// Reads `uid, revision, attributes, secret`; the index entries stay empty.
pub(super) fn decode(row: &Row<'_>) -> Result<ObjectRow, Fault> {
    Ok(ObjectRow {
        uid: column::array(row, 0)?,
        revision: column::number(row, 1)?,
        attributes: column::owned_blob(row, 2)?,
        secret: column::optional_blob(row, 3)?,
        index: Vec::new(),
    })
}

/// Writes index entries one after the other.
fn pack(index: &[IndexEntry]) -> Vec<u8> {
    index.iter().flat_map(|entry| std::iter::once(entry.field).chain(entry.digest)).collect()
}

/// Reads index entries that [`pack`] wrote.
pub(super) fn unpack(bytes: &[u8]) -> Result<Vec<IndexEntry>, Fault> {
    let (entries, rest) = bytes.as_chunks::<ENTRY_LEN>();
    if !rest.is_empty() {
        return Err(Fault::Damaged);
    }
    let read = |[field, digest @ ..]: &[u8; ENTRY_LEN]| IndexEntry { field: *field, digest: *digest };
    Ok(entries.iter().map(read).collect())
}

fn damaged(fault: Fault, uid: &Uid) -> Fault {
    fault.of(|| format!("the object {}", hex(uid)))
}
