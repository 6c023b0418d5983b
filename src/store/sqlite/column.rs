//! Reading columns without trust in what they hold, and the digest over a row.

use data_encoding::HEXLOWER;
use rusqlite::Row;
use rusqlite::types::ValueRef;
use sha2::{Digest, Sha256};

use super::fault::Fault;
use crate::error::Error;

/// Reads a BLOB.
pub(super) fn blob<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r [u8], Fault> {
    match row.get_ref(column)? {
        ValueRef::Blob(bytes) => Ok(bytes),
        _ => Err(Fault::Damaged),
    }
}

/// Copies a BLOB, whose length the callers of the library decided.
pub(super) fn owned_blob(row: &Row<'_>, column: usize) -> Result<Vec<u8>, Fault> {
    let (bytes, mut copy) = (blob(row, column)?, Vec::new());
    copy.try_reserve_exact(bytes.len()).map_err(Error::from)?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// Reads a BLOB of a fixed length.
pub(super) fn array<const N: usize>(row: &Row<'_>, column: usize) -> Result<[u8; N], Fault> {
    blob(row, column)?.try_into().map_err(|_| Fault::Damaged)
}

/// Reads a BLOB or NULL.
pub(super) fn optional_blob(row: &Row<'_>, column: usize) -> Result<Option<Vec<u8>>, Fault> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        _ => owned_blob(row, column).map(Some),
    }
}

/// Reads a TEXT that is UTF-8.
pub(super) fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r str, Fault> {
    match row.get_ref(column)? {
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).map_err(|_| Fault::Damaged),
        _ => Err(Fault::Damaged),
    }
}

/// Reads an INTEGER that is in the range of `T`.
pub(super) fn number<T: TryFrom<i64>>(row: &Row<'_>, column: usize) -> Result<T, Fault> {
    match row.get_ref(column)? {
        ValueRef::Integer(number) => T::try_from(number).map_err(|_| Fault::Damaged),
        _ => Err(Fault::Damaged),
    }
}

/// Turns a number into SQLite's, which is signed.
pub(super) fn signed(number: u64) -> Result<i64, Fault> {
    i64::try_from(number).map_err(|_| Error::internal("a number above 2^63 cannot be stored").into())
}

/// Writes an id for messages.
pub(super) fn hex(id: &[u8]) -> String {
    HEXLOWER.encode(id)
}

/// SHA-256 over a row: each column with its length before it, so that no two rows read the same.
pub(super) struct RowDigest(Sha256);

impl RowDigest {
    /// Starts with what kind of row it is.
    pub(super) fn new(kind: &str) -> Self {
        Self(Sha256::new()).bytes(kind.as_bytes())
    }

    /// Takes a BLOB or TEXT.
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        let length = u64::try_from(bytes.len()).expect("a length fits 64 bits");
        self.0.update(length.to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Takes a BLOB or NULL.
    pub(super) fn optional(self, bytes: Option<&[u8]>) -> Self {
        match bytes {
            None => self.number(0),
            Some(bytes) => self.number(1).bytes(bytes),
        }
    }

    /// Takes an INTEGER.
    pub(super) fn number(mut self, number: u64) -> Self {
        self.0.update(number.to_le_bytes());
        self
    }

    /// Ends.
    pub(super) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}
