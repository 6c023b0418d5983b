//! Rows of the audit trail: added at the end, read in order, never changed. What they hold is judged above the store.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::column::{self, signed};
use super::fault::Fault;
use super::{serial, token};
use crate::error::Error;
use crate::store::{AuditRow, Serial};

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

/// Adds a row; its sequence must be the next one.
pub(super) fn append(connection: &Connection, serial: &Serial, row: &AuditRow) -> Result<(), Fault> {
    let Some(token) = token::id(connection, serial)? else {
        return Err(Fault::told(format!("the token {} is gone", serial::text(serial))));
    };
    let last: Option<i64> = connection
        .prepare_cached("SELECT max(sequence) FROM audit WHERE token = ?1")?
        .query_row([token], |row| row.get(0))?;
    let next = last.map_or(Some(1), |last| last.checked_add(1));
    if next != Some(signed(row.sequence)?) {
        return Err(Error::internal("a record of the audit trail has a number that is not the next one").into());
    }
    connection
        .prepare_cached("INSERT INTO audit (token, sequence, record, hash, tag) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![token, signed(row.sequence)?, row.record, row.hash, row.tag])?;
    Ok(())
}

/// Reads the next rows after a sequence number, in order; after 0 the trail starts, with whatever stands before its first row.
pub(super) fn page(connection: &Connection, serial: &Serial, after: u64) -> Result<Vec<AuditRow>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT sequence, record, hash, tag FROM audit WHERE token = (SELECT id FROM token WHERE serial = ?1) \
         AND sequence > ?2 ORDER BY sequence LIMIT ?3",
    )?;
    let after = if after == 0 { i64::MIN } else { i64::try_from(after).unwrap_or(i64::MAX) };
    let mut rows = statement.query(params![serial::text(serial), after, PAGE_ROWS])?;
    let mut page = Vec::new();
    while let Some(row) = rows.next()? {
        page.push(decode(row).map_err(damaged)?);
    }
    Ok(page)
}

fn decode(row: &Row<'_>) -> Result<AuditRow, Fault> {
    Ok(AuditRow {
        sequence: column::number(row, 0)?,
        record: column::owned_blob(row, 1)?,
        hash: column::owned_blob(row, 2)?,
        tag: column::owned_blob(row, 3)?,
    })
}

/// Names what is damaged: only a row that no version wrote has such columns.
fn damaged(fault: Fault) -> Fault {
    fault.of(|| "a row of the audit trail".to_owned())
}
