//! Token rows. Each carries a digest over all its columns, made with each write and checked with each read.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::column::{self, RowDigest, signed};
use super::fault::Fault;
use super::{chain, serial};
use crate::error::Error;
use crate::store::{Listed, Serial, TokenRow};

const COLUMNS: &str = "id, serial, slot, label, revision, created, so_envelope, user_envelope, so_failures, user_failures, \
                       last_failure, digest";

const INSERT: &str = "INSERT INTO token (id, serial, slot, label, revision, created, so_envelope, user_envelope, so_failures, \
                      user_failures, last_failure, digest) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
const UPDATE: &str = "UPDATE token SET serial = ?2, slot = ?3, label = ?4, revision = ?5, created = ?6, so_envelope = ?7, \
                      user_envelope = ?8, so_failures = ?9, user_failures = ?10, last_failure = ?11, digest = ?12 WHERE id = ?1";

/// Finds the row number of a token.
pub(super) fn id(connection: &Connection, serial: &Serial) -> Result<Option<i64>, Fault> {
    let mut statement = connection.prepare_cached("SELECT id FROM token WHERE serial = ?1")?;
    Ok(statement.query_row([serial::text(serial)], |row| row.get(0)).optional()?)
}

/// Lists all tokens in the order in which they were made. A row that does not even tell its slot is an error of the whole.
pub(super) fn all(connection: &Connection) -> Result<Vec<Listed>, Fault> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM token ORDER BY id"))?;
    let mut rows = statement.query([])?;
    let mut tokens = Vec::new();
    while let Some(row) = rows.next()? {
        tokens.push(match (checked(row), column::number(row, 2)) {
            (Ok((_, row)), _) => Listed { slot: row.slot, row: Ok(row) },
            (Err(Fault::Told(error)), Ok(slot)) => Listed { slot, row: Err(error) },
            (Err(fault), _) => return Err(fault),
        });
    }
    Ok(tokens)
}

/// Reads one token.
pub(super) fn find(connection: &Connection, serial: &Serial) -> Result<Option<TokenRow>, Fault> {
    Ok(with_id(connection, serial)?.map(|(_, row)| row))
}

/// Reads one token and its row number.
fn with_id(connection: &Connection, serial: &Serial) -> Result<Option<(i64, TokenRow)>, Fault> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM token WHERE serial = ?1"))?;
    let mut rows = statement.query([serial::text(serial)])?;
    match rows.next()? {
        Some(row) => checked(row).map(Some),
        // Rather than to call a token missing whose serial number is damaged, look at them all: there are few.
        None => Ok(all(connection)?.into_iter().try_for_each(|token| token.row.map(drop)).map(|()| None)?),
    }
}

/// Adds a token.
pub(super) fn insert(connection: &Connection, row: &TokenRow) -> Result<(), Fault> {
    if serial::next(connection)? != Some(row.serial) {
        return Err(Fault::told(format!(
            "the serial number {} is not the next one any more: another process has made a token meanwhile; try again",
            serial::text(&row.serial)
        )));
    }
    add(connection, row)?;
    serial::renew(connection)?;
    Ok(())
}

/// Adds a token under the serial number that it had in another store.
pub(super) fn restore(connection: &Connection, row: &TokenRow) -> Result<(), Fault> {
    if id(connection, &row.serial)?.is_some() {
        return Err(Fault::told(format!("there is a token {} already", serial::text(&row.serial))));
    }
    add(connection, row)?;
    // Nobody else may be given the serial number.
    match serial::next(connection)? {
        Some(next) if next != row.serial => Ok(()),
        _ => serial::renew(connection).map(drop),
    }
}

fn add(connection: &Connection, row: &TokenRow) -> Result<(), Fault> {
    let id: i64 =
        connection.prepare_cached("SELECT coalesce(max(id), 0) + 1 FROM token")?.query_row([], |row| row.get(0))?;
    let added = put(connection, INSERT, id, row);
    added.map_err(|fault| match fault.is_duplicate() {
        true => Fault::told(format!("slot {} is taken by another token; choose another slot id", row.slot)),
        false => fault,
    })?;
    chain::begin(connection, id)
}

/// Replaces a token's row.
pub(super) fn update(connection: &Connection, row: &TokenRow) -> Result<(), Fault> {
    let name = serial::text(&row.serial);
    let (id, stored) =
        with_id(connection, &row.serial)?.ok_or_else(|| Fault::told(format!("the token {name} is gone")))?;
    if stored.revision.checked_add(1) != Some(row.revision) {
        return Err(Fault::told(format!(
            "the token {name} was changed by another process meanwhile: revision {} would replace {}; try again",
            row.revision, stored.revision
        )));
    }
    put(connection, UPDATE, id, row)
}

/// Writes a row and its digest.
fn put(connection: &Connection, sql: &str, id: i64, row: &TokenRow) -> Result<(), Fault> {
    connection.prepare_cached(sql)?.execute(params![
        id,
        serial::text(&row.serial),
        row.slot,
        row.label,
        signed(row.revision)?,
        signed(row.created)?,
        row.so_envelope,
        row.user_envelope,
        row.so_failures,
        row.user_failures,
        signed(row.last_failure)?,
        digest(id, row)
    ])?;
    Ok(())
}

/// Reads a row and checks its digest; the error names the token.
pub(super) fn checked(row: &Row<'_>) -> Result<(i64, TokenRow), Fault> {
    let read = decode(row).and_then(|(id, token)| match column::array::<32>(row, 11)? == digest(id, &token) {
        true => Ok((id, token)),
        false => Err(Fault::Damaged),
    });
    read.map_err(|fault| fault.of(|| format!("the token {}", name(row))))
}

/// Names a token whose row cannot be trusted.
fn name(row: &Row<'_>) -> String {
    let label = column::text(row, 3).unwrap_or("?");
    let serial = column::text(row, 1).unwrap_or("?");
    format!("{label:?} (serial number {serial:?})")
}

fn decode(row: &Row<'_>) -> Result<(i64, TokenRow), Fault> {
    let token = TokenRow {
        serial: serial::parse(column::text(row, 1)?)?,
        slot: column::number(row, 2)?,
        label: column::text(row, 3)?.to_owned(),
        revision: column::number(row, 4)?,
        created: column::number(row, 5)?,
        so_envelope: column::blob(row, 6)?.to_vec(),
        user_envelope: column::optional_blob(row, 7)?,
        so_failures: column::number(row, 8)?,
        user_failures: column::number(row, 9)?,
        last_failure: column::number(row, 10)?,
    };
    Ok((column::number(row, 0)?, token))
}

fn digest(id: i64, row: &TokenRow) -> [u8; 32] {
    RowDigest::new("strongroom token 1")
        .number(id.cast_unsigned())
        .bytes(&row.serial)
        .number(row.slot.into())
        .bytes(row.label.as_bytes())
        .number(row.revision)
        .number(row.created)
        .bytes(&row.so_envelope)
        .optional(row.user_envelope.as_deref())
        .number(row.so_failures.into())
        .number(row.user_failures.into())
        .number(row.last_failure)
        .finish()
}

/// Checks every token on its own: one line for each fault.
pub(super) fn faults(connection: &Connection) -> Result<Vec<String>, Fault> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM token ORDER BY id"))?;
    let mut rows = statement.query([])?;
    let mut faults = Vec::new();
    while let Some(row) = rows.next()? {
        match checked(row) {
            Ok(_) => {}
            Err(Fault::Told(error)) => faults.push(Error::message(&error)),
            Err(other) => return Err(other),
        }
    }
    Ok(faults)
}
