//! Rows of the audit trail: added at the end, read in order, never changed. What they hold is judged above the store.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::column::{self, signed};
use super::fault::Fault;
use super::{serial, token};
use crate::error::Error;
use crate::store::{AuditEnd, AuditRow, Serial};

/// How many rows a page has at most.
const PAGE_ROWS: i64 = 1024;

/// Reads the last row of a token.
pub(super) fn last(connection: &Connection, serial: &Serial) -> Result<Option<AuditRow>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT sequence, record, hash, tag FROM audit WHERE token = (SELECT id FROM token WHERE serial = ?1) \
         ORDER BY sequence DESC LIMIT 1",
    )?;
    let last = statement.query_row([serial::text(serial)], |row| Ok(decode(row))).optional()?;
    last.transpose().map_err(damaged)
}

/// Reads a row of a token by its number.
pub(super) fn at(connection: &Connection, serial: &Serial, sequence: u64) -> Result<Option<AuditRow>, Fault> {
    let Ok(sequence) = i64::try_from(sequence) else { return Ok(None) };
    let mut statement = connection.prepare_cached(
        "SELECT sequence, record, hash, tag FROM audit WHERE token = (SELECT id FROM token WHERE serial = ?1) \
         AND sequence = ?2",
    )?;
    let found = statement.query_row(params![serial::text(serial), sequence], |row| Ok(decode(row))).optional()?;
    found.transpose().map_err(damaged)
}

/// Tells whether any row of a token has a tag.
pub(super) fn is_signed(connection: &Connection, serial: &Serial) -> Result<bool, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM audit WHERE token = (SELECT id FROM token WHERE serial = ?1) AND tag <> x'')",
    )?;
    Ok(statement.query_row([serial::text(serial)], |row| row.get(0))?)
}

/// Adds a row; its sequence must be the next one.
pub(super) fn append(
    connection: &Connection,
    serial: &Serial,
    row: &AuditRow,
    end: Option<&[u8]>,
) -> Result<(), Fault> {
    let Some(token) = token::id(connection, serial)? else {
        return Err(Fault::told(format!("the token {} is gone", serial::text(serial))));
    };
    let sequence = signed(row.sequence)?;
    let last: Option<i64> = connection
        .prepare_cached("SELECT max(sequence) FROM audit WHERE token = ?1")?
        .query_row([token], |row| row.get(0))?;
    if last.map_or(Some(1), |last| last.checked_add(1)) != Some(sequence) {
        return Err(Error::internal("a record of the audit trail has a number that is not the next one").into());
    }
    connection
        .prepare_cached("INSERT INTO audit (token, sequence, record, hash, tag) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![token, sequence, row.record, row.hash, row.tag])?;
    match end {
        Some(end) => set_end(connection, token, sequence, end),
        None => Ok(()),
    }
}

fn set_end(connection: &Connection, token: i64, sequence: i64, tag: &[u8]) -> Result<(), Fault> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO audit_end (token, sequence, tag) VALUES (?1, ?2, ?3)")?
        .execute(params![token, sequence, tag])?;
    Ok(())
}

/// Reads the end of a token's trail.
pub(super) fn end(connection: &Connection, serial: &Serial) -> Result<Option<AuditEnd>, Fault> {
    let mut statement = connection
        .prepare_cached("SELECT sequence, tag FROM audit_end WHERE token = (SELECT id FROM token WHERE serial = ?1)")?;
    let read = |row: &Row<'_>| Ok(AuditEnd { sequence: sequence(row)?, tag: column::owned_blob(row, 1)? });
    let end = statement.query_row([serial::text(serial)], |row| Ok(read(row))).optional()?;
    end.transpose().map_err(damaged)
}

/// The next rows of a trail, and where those after them start.
pub(super) struct Page {
    pub(super) rows: Vec<AuditRow>,
    pub(super) next: Option<i64>,
}

/// Tells where the rows after a number start; after 0 with whatever stands before the first one.
pub(super) fn after(sequence: u64) -> Option<i64> {
    match sequence {
        0 => Some(i64::MIN),
        _ => i64::try_from(sequence).ok()?.checked_add(1),
    }
}

/// Reads the next rows from a sequence number on, in order.
pub(super) fn page(connection: &Connection, serial: &Serial, start: i64) -> Result<Page, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT sequence, record, hash, tag FROM audit WHERE token = (SELECT id FROM token WHERE serial = ?1) \
         AND sequence >= ?2 ORDER BY sequence LIMIT ?3",
    )?;
    let mut rows = statement.query(params![serial::text(serial), start, PAGE_ROWS])?;
    let mut page = Page { rows: Vec::new(), next: None };
    while let Some(row) = rows.next()? {
        page.next = column::number::<i64>(row, 0)?.checked_add(1);
        page.rows.push(decode(row).map_err(damaged)?);
    }
    Ok(page)
}

/// Reads a number; one that no version wrote is 0, which no record has, so that whoever looks at the trail finds it.
fn sequence(row: &Row<'_>) -> Result<u64, Fault> {
    Ok(u64::try_from(column::number::<i64>(row, 0)?).unwrap_or(0))
}

fn decode(row: &Row<'_>) -> Result<AuditRow, Fault> {
    Ok(AuditRow {
        sequence: sequence(row)?,
        record: column::owned_blob(row, 1)?,
        hash: column::owned_blob(row, 2)?,
        tag: column::owned_blob(row, 3)?,
    })
}

/// Names what is damaged: only a row that no version wrote has such columns.
fn damaged(fault: Fault) -> Fault {
    fault.of(|| "a row of the audit trail".to_owned())
}
