//! Writing a document, a line at a time.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::file;
use super::head::{Base64, End, FIRST, HEAD, Head, Hex, RECORDS, RECORDS_END, RecordPart, VERSION, end_line, json};
use crate::error::Result;
use crate::seal::BackupMac;
use crate::store::ObjectRow;

/// Writes a document.
pub struct Writer<'w> {
    out: BufWriter<&'w mut dyn Write>,
    digest: Sha256,
    mac: BackupMac,
    records: u64,
    bytes: u64,
    /// Names the document in errors.
    path: PathBuf,
}

/// What was written.
pub struct Written {
    /// The last line.
    pub end: End,
    /// The length of the whole.
    pub bytes: u64,
}

impl<'w> Writer<'w> {
    /// Writes the head.
    ///
    /// # Errors
    /// `DeviceMemory` for a full disk; `FunctionFailed`.
    pub fn begin(out: &'w mut dyn Write, path: &Path, mac: BackupMac, head: &Head) -> Result<Self> {
        let out = BufWriter::with_capacity(1 << 16, out);
        let mut writer = Self { out, digest: Sha256::new(), mac, records: 0, bytes: 0, path: path.to_owned() };
        writer.put(&format!("{FIRST}{VERSION},\n{HEAD}{},\n{RECORDS}", json(head)?))?;
        Ok(writer)
    }

    /// Writes a record.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn record(&mut self, row: &ObjectRow) -> Result<()> {
        let record = RecordPart {
            uid: Hex(row.uid),
            revision: row.revision,
            attributes: Base64(row.attributes.clone()),
            secret: row.secret.clone().map(Base64),
        };
        let separator = if self.records == 0 { "" } else { ",\n" };
        self.records += 1;
        self.put(&format!("{separator}{}", json(&record)?))
    }

    /// Writes the end.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn finish(mut self) -> Result<Written> {
        let newline = if self.records == 0 { "" } else { "\n" };
        self.put(&format!("{newline}{RECORDS_END}"))?;
        let (digest, mac) = (self.digest.clone().finalize().into(), self.mac.clone().finish());
        let end = End { records: self.records, sha256: Hex(digest), mac: Hex(mac) };
        self.put(&end_line(&end)?)?;
        self.out.flush().map_err(|error| file::failed("write", &self.path, error))?;
        Ok(Written { end, bytes: self.bytes })
    }

    fn put(&mut self, text: &str) -> Result<()> {
        self.digest.update(text.as_bytes());
        self.mac.update(text.as_bytes());
        self.bytes = self.bytes.saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX));
        self.out.write_all(text.as_bytes()).map_err(|error| file::failed("write", &self.path, error))
    }
}
