//! Object rows. Attributes and secret are authenticated above the store; here they must only be of the right shape. What no
//! seal covers, and what the index hangs on, carries a digest that is made with each write and checked with each read.

use rusqlite::{Connection, Row, params};

use super::chain::{self, Key};
use super::column::{self, RowDigest, hex, signed};
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
/// What [`decode`] reads.
pub(super) const COLUMNS: &str =
    "object.uid, object.revision, attributes, secret, entries, object.token, object.digest";

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
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM object JOIN token ON token.id = object.token WHERE object.uid = ?1 AND token.serial = ?2"
    ))?;
    let mut rows = statement.query(params![uid, serial::text(serial)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    decode(row).map(Some).map_err(|fault| damaged(fault, uid))
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
    page_within(&snapshot, serial, search, after)
}

/// Reads everything that a search finds, inside a transaction that is open.
pub(super) fn search_within(
    connection: &Connection,
    serial: &Serial,
    search: &Search,
) -> Result<Vec<ObjectRow>, Fault> {
    let (mut rows, mut after) = (Vec::new(), Some(i64::MIN));
    while let Some(start) = after {
        let page = page_within(connection, serial, search, start)?;
        rows.extend(page.rows);
        after = page.more;
    }
    Ok(rows)
}

/// Reads the next objects of a search, inside a transaction that is open.
pub(super) fn page_within(
    connection: &Connection,
    serial: &Serial,
    search: &Search,
    after: i64,
) -> Result<Page, Fault> {
    let mut page = Page { rows: Vec::new(), more: None };
    let Some(token) = token::id(connection, serial)? else { return Ok(page) };
    let hits = matches(connection, token, search, after)?;
    let mut bytes = 0usize;
    for (number, hit) in (1..).zip(&hits) {
        let row = at(connection, token, hit)?;
        bytes = bytes.saturating_add(row.attributes.len()).saturating_add(row.secret.as_ref().map_or(0, Vec::len));
        page.rows.push(row);
        let end = if number == hits.len() { hits.len() < PAGE_ROWS } else { bytes < PAGE_BYTES };
        if !end {
            page.more = Some(hit.object);
            break;
        }
    }
    Ok(page)
}

/// An object that a search found.
struct Hit {
    object: i64,
    /// The entry that found it, if it was looked up.
    entry: Option<IndexEntry>,
}

/// Finds the next objects of a search in the order of their row numbers, at most a page of them.
fn matches(connection: &Connection, token: i64, search: &Search, after: i64) -> Result<Vec<Hit>, Fault> {
    let mut hits = match search {
        Search::All => every(connection, token, after)?,
        Search::Any(entries) => {
            let mut hits = Vec::new();
            entries.iter().try_for_each(|entry| look_up(connection, token, entry, after, &mut hits))?;
            hits
        }
    };
    // Each entry gave its lowest numbers, so the lowest of all of them are complete.
    hits.sort_unstable_by_key(|hit| hit.object);
    hits.dedup_by_key(|hit| hit.object);
    hits.truncate(PAGE_ROWS);
    Ok(hits)
}

/// Lists the objects of a token after a row number, a page of them.
fn every(connection: &Connection, token: i64, after: i64) -> Result<Vec<Hit>, Fault> {
    let mut statement =
        connection.prepare_cached("SELECT id FROM object WHERE token = ?1 AND id > ?2 ORDER BY id LIMIT ?3")?;
    let limit = i64::try_from(PAGE_ROWS).expect("a page is small");
    let mut rows = statement.query([token, after, limit])?;
    let mut hits = Vec::new();
    while let Some(row) = rows.next()? {
        hits.push(Hit { object: column::number(row, 0)?, entry: None });
    }
    Ok(hits)
}

/// Looks an entry up in the index after a row number, at most a page of hits.
fn look_up(
    connection: &Connection,
    token: i64,
    entry: &IndexEntry,
    after: i64,
    hits: &mut Vec<Hit>,
) -> Result<(), Fault> {
    let mut room = PAGE_ROWS;
    chain::walk(connection, token, Key::new(entry, after), &mut |next| {
        let Some(key) = next.filter(|key| key.is_of(entry)) else { return false };
        hits.push(Hit { object: key.object, entry: Some(*entry) });
        room = room.saturating_sub(1);
        room > 0
    })?;
    Ok(())
}

/// Reads the object of a hit. That there is none, or one that has not the entry, is damage of the index.
fn at(connection: &Connection, token: i64, hit: &Hit) -> Result<ObjectRow, Fault> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM object WHERE id = ?1 AND token = ?2"))?;
    let mut rows = statement.query([hit.object, token])?;
    let row = rows.next()?.ok_or(Fault::Index)?;
    let row = decode(row).map_err(|fault| fault.of(|| format!("object number {}", hit.object)))?;
    match hit.entry.is_none_or(|entry| row.index.contains(&entry)) {
        true => Ok(row),
        false => Err(Fault::Index),
    }
}

/// Adds an object.
pub(super) fn insert(connection: &Connection, serial: &Serial, row: &ObjectRow) -> Result<(), Fault> {
    let token = token::id(connection, serial)?
        .ok_or_else(|| Fault::told(format!("the token {} is gone", serial::text(serial))))?;
    let (revision, entries) = (signed(row.revision)?, pack(&row.index));
    let digest = digest(token, &row.uid, row.revision, &entries);
    let added = connection
        .prepare_cached(
            "INSERT INTO object (token, uid, revision, attributes, secret, entries, digest) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![token, row.uid, revision, row.attributes, row.secret, entries, digest])
        .map_err(Fault::from);
    added.map_err(|fault| match fault.is_duplicate() {
        true => Fault::told(format!("there is an object {} already", hex(&row.uid))),
        false => fault,
    })?;
    let id = connection.last_insert_rowid();
    row.index.iter().try_for_each(|entry| chain::add(connection, token, entry, id))
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
    let (revision, entries) = (signed(row.revision)?, pack(&row.index));
    let digest = digest(stored.token, &row.uid, row.revision, &entries);
    connection
        .prepare_cached(
            "UPDATE object SET revision = ?2, attributes = ?3, secret = ?4, entries = ?5, digest = ?6 WHERE id = ?1",
        )?
        .execute(params![stored.id, revision, row.attributes, row.secret, entries, digest])?;
    let mut gone = stored.index.iter().filter(|entry| !row.index.contains(entry));
    gone.try_for_each(|entry| chain::remove(connection, stored.token, entry, stored.id))?;
    let mut new = row.index.iter().filter(|entry| !stored.index.contains(entry));
    new.try_for_each(|entry| chain::add(connection, stored.token, entry, stored.id))
}

/// Removes an object.
pub(super) fn delete(connection: &Connection, serial: &Serial, uid: &Uid) -> Result<(), Fault> {
    let stored = stored(connection, serial, uid)?;
    stored.index.iter().try_for_each(|entry| chain::remove(connection, stored.token, entry, stored.id))?;
    connection.prepare_cached("DELETE FROM object WHERE id = ?1")?.execute([stored.id])?;
    Ok(())
}

/// Removes all objects of a token.
pub(super) fn delete_all(connection: &Connection, serial: &Serial) -> Result<(), Fault> {
    let Some(token) = token::id(connection, serial)? else { return Ok(()) };
    connection.prepare_cached("DELETE FROM object WHERE token = ?1")?.execute([token])?;
    chain::begin(connection, token)
}

/// Reads what a change must know of the stored object.
fn stored(connection: &Connection, serial: &Serial, uid: &Uid) -> Result<Stored, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT object.id, entries, object.token, object.revision, object.digest \
         FROM object JOIN token ON token.id = object.token WHERE object.uid = ?1 AND token.serial = ?2",
    )?;
    let mut rows = statement.query(params![uid, serial::text(serial)])?;
    let row = rows
        .next()?
        .ok_or_else(|| Error::new(Kind::ObjectHandleInvalid, format!("the object {} is gone", hex(uid))))?;
    let read = || -> Result<Stored, Fault> {
        let (id, token, revision) = (column::number(row, 0)?, column::number(row, 2)?, column::number(row, 3)?);
        let entries = column::blob(row, 1)?;
        require_digest(&column::array(row, 4)?, token, uid, revision, entries)?;
        let mut index = unpack(entries)?;
        // The same entry may have been given twice; the index has it once.
        index.sort_unstable_by_key(|entry| (entry.field, entry.digest));
        index.dedup();
        Ok(Stored { id, token, revision, index })
    };
    read().map_err(|fault| damaged(fault, uid))
}

/// Reads [`COLUMNS`] and checks the digest.
pub(super) fn decode(row: &Row<'_>) -> Result<ObjectRow, Fault> {
    let (uid, revision, entries) = (column::array(row, 0)?, column::number(row, 1)?, column::blob(row, 4)?);
    require_digest(&column::array(row, 6)?, column::number(row, 5)?, &uid, revision, entries)?;
    Ok(ObjectRow {
        uid,
        revision,
        attributes: column::owned_blob(row, 2)?,
        secret: column::optional_blob(row, 3)?,
        index: unpack(entries)?,
    })
}

fn require_digest(stored: &[u8; 32], token: i64, uid: &Uid, revision: u64, entries: &[u8]) -> Result<(), Fault> {
    if *stored == digest(token, uid, revision, entries) { Ok(()) } else { Err(Fault::Damaged) }
}

/// Makes the digest of a row over what no seal covers, and what a repair of the index needs to trust. The row's own number is
/// not in it: only the index hangs on that.
pub(super) fn digest(token: i64, uid: &Uid, revision: u64, entries: &[u8]) -> [u8; 32] {
    RowDigest::new("strongroom object 1")
        .number(token.cast_unsigned())
        .bytes(uid)
        .number(revision)
        .bytes(entries)
        .finish()
}

/// Writes index entries one after the other.
fn pack(index: &[IndexEntry]) -> Vec<u8> {
    index.iter().flat_map(|entry| std::iter::once(entry.field).chain(entry.digest)).collect()
}

/// Reads index entries that [`pack`] wrote.
fn unpack(bytes: &[u8]) -> Result<Vec<IndexEntry>, Fault> {
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
