//! The index that finds objects, as a chain: a row that is lost, moved or altered is told from one that never was, as the
//! NSEC records of DNSSEC prove that a name is not there (RFC 4034, 4).
//!
//! The rules are:
//! - the rows of a token stand in the order (field, digest, object); the first one is made with the token and finds nothing;
//! - the link of a row is a digest over the row and the key of the row after it: damage to either, or a row between them that
//!   is gone or new, shows in one comparison;
//! - who looks something up starts at the row before it and ends at the row after it, so that a gap is proven as a hit is;
//! - who changes a row checks the rows on both sides first: damage is never covered by a new link;
//! - there is no key in it, for public objects go without a login. It finds damage, not an attacker, who could take whole
//!   objects away as well;
//! - all of it follows from the entries of the objects, so it can be rebuilt.

use rusqlite::{Connection, Row, Rows, params};

use super::column::{self, RowDigest};
use super::fault::Fault;
use crate::store::IndexEntry;

/// How many bytes of the digest a link keeps: enough for damage, and small beside the row.
const LINK_LEN: usize = 8;

/// What a link is: the start of a digest.
type Link = [u8; LINK_LEN];

// Two statements and not one with the other in it: SQLite would use an index for all three columns of a plain value only.
/// Reads the last row that is not after a place.
const BEFORE: &str = "SELECT field, digest, object, link FROM object_index \
                      WHERE token = ?1 AND (field, digest, object) <= (?2, ?3, ?4) \
                      ORDER BY field DESC, digest DESC, object DESC LIMIT 1";
/// Reads the rows after a place, in order.
const AFTER: &str = "SELECT field, digest, object, link FROM object_index \
                     WHERE token = ?1 AND (field, digest, object) > (?2, ?3, ?4) ORDER BY field, digest, object";
const INSERT: &str = "INSERT INTO object_index (token, field, digest, object, link) VALUES (?1, ?2, ?3, ?4, ?5)";

/// Where a row stands among those of its token. Objects are numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    entry: IndexEntry,
    /// The row number of the object.
    pub(super) object: i64,
}

impl Key {
    /// The row before all others.
    pub(super) const FIRST: Self = Self { entry: IndexEntry { field: 0, digest: [0; 16] }, object: 0 };

    /// Names the row by which an entry finds an object.
    pub(super) fn new(entry: &IndexEntry, object: i64) -> Self {
        Self { entry: *entry, object }
    }

    /// Reads field, digest and object from a column on.
    pub(super) fn read(row: &Row<'_>, column: usize) -> Result<Self, Fault> {
        let digest = column.saturating_add(1);
        let entry = IndexEntry { field: column::number(row, column)?, digest: column::array(row, digest)? };
        Ok(Self { entry, object: column::number(row, digest.saturating_add(1))? })
    }

    /// Tells whether the row finds an object by this entry.
    pub(super) fn is_of(&self, entry: &IndexEntry) -> bool {
        self.entry == *entry
    }

    /// Writes it as the link's digest takes it.
    fn bytes(&self) -> [u8; 25] {
        let mut bytes = [0; 25];
        let (field, rest) = bytes.split_at_mut(1);
        let (digest, object) = rest.split_at_mut(16);
        field.copy_from_slice(&[self.entry.field]);
        digest.copy_from_slice(&self.entry.digest);
        object.copy_from_slice(&self.object.to_be_bytes());
        bytes
    }
}

/// Makes the link from a row to the one after it; after the last one there is none.
fn link(token: i64, key: Key, next: Option<Key>) -> Link {
    let next = next.map(|next| next.bytes());
    let digest = RowDigest::new("strongroom index 1")
        .number(token.cast_unsigned())
        .bytes(&key.bytes())
        .optional(next.as_ref().map(<[u8; 25]>::as_slice))
        .finish();
    *digest.first_chunk().expect("a digest is longer than a link")
}

/// Goes along the chain of a token from the last row that is not after `from`, and gives the key of that row. Each key behind
/// it, and `None` at the end, goes to `visit` once the link to it is checked, as long as `visit` asks for more.
pub(super) fn walk(
    connection: &Connection,
    token: i64,
    from: Key,
    visit: &mut dyn FnMut(Option<Key>) -> bool,
) -> Result<Key, Fault> {
    let place = params![token, from.entry.field, from.entry.digest, from.object];
    let (mut before, mut after) = (connection.prepare_cached(BEFORE)?, connection.prepare_cached(AFTER)?);
    let first = next_row(&mut before.query(place)?)?.ok_or(Fault::Index)?;
    let (mut row, mut rows) = (first, after.query(place)?);
    loop {
        let next = next_row(&mut rows)?;
        let key = next.map(|(key, _)| key);
        if row.1 != link(token, row.0, key) {
            return Err(Fault::Index);
        }
        let more = visit(key);
        match next {
            Some(next) if more => row = next,
            _ => return Ok(first.0),
        }
    }
}

/// Reads the next row: its key and its link.
fn next_row(rows: &mut Rows<'_>) -> Result<Option<(Key, Link)>, Fault> {
    rows.next()?.map(decode).transpose().map_err(|fault| match fault {
        Fault::Damaged => Fault::Index,
        other => other,
    })
}

fn decode(row: &Row<'_>) -> Result<(Key, Link), Fault> {
    Ok((Key::read(row, 0)?, column::array(row, 3)?))
}

/// Checks the whole chain of a token.
pub(super) fn check(connection: &Connection, token: i64) -> Result<(), Fault> {
    if walk(connection, token, Key::FIRST, &mut |_| true)? == Key::FIRST { Ok(()) } else { Err(Fault::Index) }
}

/// Starts the chain of a token, whose index is then empty.
pub(super) fn begin(connection: &Connection, token: i64) -> Result<(), Fault> {
    connection.prepare_cached("DELETE FROM object_index WHERE token = ?1")?.execute([token])?;
    put(connection, token, Key::FIRST, None)
}

/// Adds the row by which an entry finds an object. The same entry may be given twice.
pub(super) fn add(connection: &Connection, token: i64, entry: &IndexEntry, object: i64) -> Result<(), Fault> {
    let (key, mut next) = (Key::new(entry, object), None);
    let before = walk(connection, token, key, &mut |after| {
        next = after;
        false
    })?;
    if before == key {
        return Ok(());
    }
    put(connection, token, key, next)?;
    relink(connection, token, before, Some(key))
}

/// Removes the row by which an entry finds an object.
pub(super) fn remove(connection: &Connection, token: i64, entry: &IndexEntry, object: i64) -> Result<(), Fault> {
    let (key, mut seen) = (Key::new(entry, object), Vec::with_capacity(2));
    let before = walk(connection, token, Key { object: object.saturating_sub(1), ..key }, &mut |after| {
        seen.push(after);
        seen.len() < 2
    })?;
    let &[found, next] = seen.as_slice() else { return Err(Fault::Index) };
    if found != Some(key) {
        return Err(Fault::Index);
    }
    connection
        .prepare_cached("DELETE FROM object_index WHERE token = ?1 AND field = ?2 AND digest = ?3 AND object = ?4")?
        .execute(params![token, entry.field, entry.digest, object])?;
    relink(connection, token, before, next)
}

/// Writes a row, given the one after it.
pub(super) fn put(connection: &Connection, token: i64, key: Key, next: Option<Key>) -> Result<(), Fault> {
    connection.prepare_cached(INSERT)?.execute(params![
        token,
        key.entry.field,
        key.entry.digest,
        key.object,
        link(token, key, next)
    ])?;
    Ok(())
}

/// Lets a row name another one as the row after it.
fn relink(connection: &Connection, token: i64, key: Key, next: Option<Key>) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "UPDATE object_index SET link = ?5 WHERE token = ?1 AND field = ?2 AND digest = ?3 AND object = ?4",
        )?
        .execute(params![token, key.entry.field, key.entry.digest, key.object, link(token, key, next)])?;
    Ok(())
}
