//! The document: JSON whose every part stands on a line of its own, so that it can be written and read a line at a time.
//!
//! ```text
//! {"strongroom_backup":1,
//! "head":{…},
//! "records":[
//! {…},
//! {…}
//! ],
//! "end":{"records":2,"sha256":"…","mac":"…"}}
//! ```
//!
//! SHA-256 and MAC are of everything before the line of the end. The one finds damage without a key, the other an attacker.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::file;
use super::head::{END, End, FIRST, HEAD, Head, RECORDS, RECORDS_END, RecordPart, VERSION, end_line};
use crate::error::{Error, Kind, Result};
use crate::seal::BackupMac;
use crate::store::ObjectRow;

/// The longest line: a store keeps rows of up to 64 MiB, which base64 makes longer by a third.
const LONGEST_LINE: u64 = 96 << 20;

/// A document that was found to be whole.
pub struct Document {
    path: PathBuf,
    file: File,
    /// What it says of itself. Nobody vouches for it before [`Self::read`] has succeeded with the MAC.
    pub head: Head,
    /// Its last line.
    pub end: End,
}

impl Document {
    /// Opens a document and checks that it is whole, as far as that shows without a key.
    ///
    /// # Errors
    /// `FunctionFailed` when it cannot be read; `DataInvalid` for what is no backup, is damaged, or of a newer format.
    pub fn open(path: &Path) -> Result<Self> {
        // A pipe that nobody writes to must not hang the caller before it is told to be no file.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = file.map_err(|error| file::failed("read", path, error))?;
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(Error::new(Kind::DataInvalid, format!("{} is no file", path.display())));
        }
        let (head, end) = read(path, &file, None, &mut |_, _| Ok(()))?;
        Ok(Self { path: path.to_owned(), file, head, end })
    }

    /// Tells where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hands each record to `visit`, with its number from 1, and checks the MAC at the end.
    ///
    /// # Errors
    /// As [`Self::open`]; `DataInvalid` when the MAC does not fit; what `visit` answers.
    pub fn read(&self, mac: BackupMac, visit: &mut dyn FnMut(u64, ObjectRow) -> Result<()>) -> Result<()> {
        let (_, end) = read(&self.path, &self.file, Some(mac), visit)?;
        match end == self.end {
            true => Ok(()),
            false => Err(Error::new(
                Kind::DataInvalid,
                format!("the backup {} was changed while it was read; try again", self.path.display()),
            )),
        }
    }
}

/// Reads a document from its first byte to its last.
fn read(
    path: &Path,
    file: &File,
    mac: Option<BackupMac>,
    visit: &mut dyn FnMut(u64, ObjectRow) -> Result<()>,
) -> Result<(Head, End)> {
    let mut lines = Lines::new(path, file, mac)?;
    let head = lines.head()?;
    let mut count = 0_u64;
    while let Some(record) = lines.record()? {
        count += 1;
        visit(count, record)?;
    }
    let (digest, mac) = (lines.digest.clone().finalize(), lines.mac.take());
    let end = lines.end()?;
    if end.records != count {
        return Err(lines.damaged("another number of records stands there"));
    }
    if end.sha256.0 != <[u8; 32]>::from(digest) {
        return Err(lines.damaged("the checksum of the whole does not fit"));
    }
    if mac.is_some_and(|mac| !mac.is(&end.mac.0)) {
        let text = format!(
            "the backup {} was altered by somebody who made its checksum anew, or parts of it are of another token: its MAC does \
             not fit the key of token {}; take another copy of it",
            path.display(),
            head.token.serial.escape_debug()
        );
        return Err(Error::new(Kind::DataInvalid, text));
    }
    Ok((head, end))
}

/// The lines of a document, one after the other.
struct Lines<'f> {
    path: &'f Path,
    input: BufReader<&'f File>,
    digest: Sha256,
    mac: Option<BackupMac>,
    line: Vec<u8>,
    number: u64,
    /// Whether the last record said that another one follows.
    more: bool,
    /// Whether no record was read yet.
    first: bool,
}

impl<'f> Lines<'f> {
    fn new(path: &'f Path, mut file: &'f File, mac: Option<BackupMac>) -> Result<Self> {
        file.seek(SeekFrom::Start(0)).map_err(|error| file::failed("read", path, error))?;
        let (input, digest) = (BufReader::with_capacity(1 << 16, file), Sha256::new());
        Ok(Self { path, input, digest, mac, line: Vec::new(), number: 0, more: false, first: true })
    }

    /// Reads the next line, without its end.
    fn next(&mut self) -> Result<()> {
        self.line.clear();
        self.number += 1;
        let read = (&mut self.input).take(LONGEST_LINE).read_until(b'\n', &mut self.line);
        read.map_err(|error| file::failed("read", self.path, error))?;
        match self.line.last() {
            Some(b'\n') => Ok(()),
            _ => Err(self.damaged("it ends too early, and was cut off")),
        }
    }

    /// Takes the line into the checksums.
    fn count(&mut self) {
        self.digest.update(&self.line);
        if let Some(mac) = &mut self.mac {
            mac.update(&self.line);
        }
    }

    fn head(&mut self) -> Result<Head> {
        if self.next().is_err() || !self.line.starts_with(FIRST.as_bytes()) {
            let text = format!("{} is no backup of Strongroom, or its beginning is damaged", self.path.display());
            return Err(Error::new(Kind::DataInvalid, text));
        }
        let version = self.between(FIRST, ",\n").and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        match version {
            Some(VERSION) if self.line == format!("{FIRST}{VERSION},\n").as_bytes() => {}
            Some(version) if version != VERSION => return Err(newer(self.path, version)),
            _ => return Err(self.damaged("the version of the format cannot be read")),
        }
        self.count();
        self.next()?;
        let head = self.between(HEAD, ",\n").and_then(|text| serde_json::from_slice(text).ok());
        let head = head.ok_or_else(|| self.damaged("the head cannot be read"))?;
        self.count();
        self.next()?;
        if self.line != RECORDS.as_bytes() {
            return Err(self.damaged("no records follow the head"));
        }
        self.count();
        Ok(head)
    }

    /// Gives the line without what it starts and ends with.
    fn between(&self, start: &str, end: &str) -> Option<&[u8]> {
        self.line.strip_prefix(start.as_bytes())?.strip_suffix(end.as_bytes())
    }

    fn record(&mut self) -> Result<Option<ObjectRow>> {
        self.next()?;
        if self.line == RECORDS_END.as_bytes() && !self.more {
            self.count();
            return Ok(None);
        }
        let text = match self.line.strip_suffix(b",\n") {
            Some(text) => (text, true),
            None => (self.line.strip_suffix(b"\n").unwrap_or_default(), false),
        };
        let record: Option<RecordPart> =
            serde_json::from_slice(text.0).ok().filter(|_| self.more || std::mem::take(&mut self.first));
        let record = record.ok_or_else(|| self.damaged("no record that can be read"))?;
        self.first = false;
        self.more = text.1;
        self.count();
        Ok(Some(ObjectRow {
            uid: record.uid.0,
            revision: record.revision,
            attributes: record.attributes.0,
            secret: record.secret.map(|secret| secret.0),
            index: Vec::new(),
        }))
    }

    fn end(&mut self) -> Result<End> {
        self.next()?;
        let end: Option<End> = self.between(END, "}\n").and_then(|text| serde_json::from_slice(text).ok());
        let end = end.ok_or_else(|| self.damaged("the end cannot be read"))?;
        // No checksum covers this line, so it must be what would be written.
        if self.line != end_line(&end)?.as_bytes() {
            return Err(self.damaged("the end is not what was written"));
        }
        match self.input.fill_buf() {
            Ok([]) => Ok(end),
            Ok(_) => Err(self.damaged("something follows the end")),
            Err(error) => Err(file::failed("read", self.path, error)),
        }
    }

    fn damaged(&self, why: &str) -> Error {
        let text = format!(
            "the backup {} is damaged or was altered (line {}: {why}); take another copy of it, or an older backup",
            self.path.display(),
            self.number
        );
        Error::new(Kind::DataInvalid, text)
    }
}

fn newer(path: &Path, version: u64) -> Error {
    let text = format!(
        "the backup {} has format version {version}, and Strongroom {} reads version {VERSION}: use the newer Strongroom that wrote it; \
         if there is none, its first line is damaged: take another copy of it",
        path.display(),
        env!("CARGO_PKG_VERSION")
    );
    Error::new(Kind::DataInvalid, text)
}
