//! The serial number of the next token: one row, random, with a digest.

use data_encoding::HEXUPPER;
use rusqlite::{Connection, OptionalExtension, Row};

use super::column::{self, RowDigest};
use super::fault::Fault;
use crate::error::Error;
use crate::store::Serial;

/// Reads it; `None` when it is damaged or missing.
pub(super) fn next(connection: &Connection) -> Result<Option<Serial>, Fault> {
    let mut statement = connection.prepare_cached("SELECT next_serial, digest FROM meta WHERE id = 1")?;
    let stored = statement.query_row([], |row| Ok(decode(row))).optional()?;
    match stored {
        None | Some(Err(Fault::Damaged)) => Ok(None),
        Some(other) => other.map(Some),
    }
}

/// Reads the row and checks its digest.
fn decode(row: &Row<'_>) -> Result<Serial, Fault> {
    let serial = parse(column::text(row, 0)?)?;
    if column::array::<32>(row, 1)? == digest(&serial) { Ok(serial) } else { Err(Fault::Damaged) }
}

/// Draws a new one that no token has.
pub(super) fn renew(connection: &Connection) -> Result<Serial, Fault> {
    let serial = draw()?;
    let taken = super::token::id(connection, &serial)?.is_some();
    if taken {
        return Err(Error::internal("the system's random numbers repeat: a serial number was drawn twice").into());
    }
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (id, next_serial, digest) VALUES (1, ?1, ?2)")?
        .execute((text(&serial), digest(&serial)))?;
    Ok(serial)
}

/// Draws 8 random bytes and writes them as 16 digits.
fn draw() -> Result<Serial, Fault> {
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(|error| {
        Error::device("the operating system gives no random numbers; check getrandom(2) and /dev/urandom")
            .caused_by(error)
    })?;
    parse(&HEXUPPER.encode(&random))
}

/// Reads 16 digits `0-9A-F`.
pub(super) fn parse(text: &str) -> Result<Serial, Fault> {
    let serial: Serial = text.as_bytes().try_into().map_err(|_| Fault::Damaged)?;
    let hex = serial.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'));
    if hex { Ok(serial) } else { Err(Fault::Damaged) }
}

/// Writes a serial number as text, for SQL and for messages.
pub(super) fn text(serial: &Serial) -> String {
    String::from_utf8_lossy(serial).into_owned()
}

fn digest(serial: &Serial) -> [u8; 32] {
    RowDigest::new("strongroom next serial 1").bytes(serial).finish()
}
