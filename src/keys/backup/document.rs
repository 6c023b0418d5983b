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

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::file;
use crate::error::{Error, Kind, Result};
use crate::seal::BackupMac;
use crate::store::{ObjectRow, Serial, TokenRow};

/// The version of the format that is written, and the one that is read.
pub const VERSION: u64 = 1;
const FIRST: &str = "{\"strongroom_backup\":";
const HEAD: &str = "\"head\":";
const RECORDS: &str = "\"records\":[\n";
const RECORDS_END: &str = "],\n";
const END: &str = "\"end\":";
/// The longest line: a store keeps rows of up to 64 MiB, which base64 makes longer by a third.
const LONGEST_LINE: u64 = 96 << 20;

/// Bytes in base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map(Self).map_err(|_| serde::de::Error::custom("not base64"))
    }
}

/// So many bytes in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hex<const N: usize>(pub [u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&HEXLOWER.encode(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("not so many bytes in hexadecimal"))
    }
}

/// What a backup says of itself, for everybody to read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The version of the library that made it.
    pub library: String,
    /// `token`, `owner` or `key`.
    pub scope: String,
    /// The token.
    pub token: TokenPart,
    /// The KMS key that opens it.
    pub kms: KmsPart,
    /// What the configuration said of the token. It is told, and not restored.
    pub policy: PolicyPart,
    /// What opens it when the KMS or the PINs are lost.
    pub recovery: Vec<RecoveryPart>,
}

/// The token of a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenPart {
    /// Its serial number.
    pub serial: String,
    /// Its label.
    pub label: String,
    /// When it was initialised, in seconds since 1970.
    pub created: u64,
    /// The id of its token key.
    pub key: Hex<8>,
    /// Wrong SO PINs in a row.
    pub so_failures: u32,
    /// Wrong user PINs in a row.
    pub user_failures: u32,
    /// When the last wrong PIN was given, in milliseconds since 1970.
    pub last_failure: u64,
    /// The token key, sealed for the SO.
    pub so_envelope: Base64,
    /// The token key, sealed for the user.
    pub user_envelope: Option<Base64>,
}

/// A KMS key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KmsPart {
    /// The type of the provider.
    pub provider: String,
    /// The provider's name of the key.
    pub key: String,
    /// The provider's number of the version; 0 where versions have no numbers.
    pub version: u32,
}

/// What the configuration said of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyPart {
    /// `never`, `import` or `compat`.
    pub plaintext: String,
    /// Whether the token opens by itself.
    pub opens_itself: bool,
    /// Whether its keys live in a KMS.
    pub remote: bool,
    /// See `[rotation]`.
    pub rotation_interval_days: u64,
    /// See `[rotation]`.
    pub max_key_age_days: u64,
    /// See `[rotation]`.
    pub auto_rotate: bool,
}

/// A recovery envelope.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryPart {
    /// Its name.
    pub name: String,
    /// `password`, `kms` or `shares`.
    pub means: String,
    /// The KMS key, for `kms`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kms: Option<KmsPart>,
    /// The set, for `shares`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub set: Option<Hex<8>>,
    /// How many shares are needed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub threshold: Option<u8>,
    /// How many shares there are.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shares: Option<u8>,
    /// The envelope.
    pub envelope: Base64,
}

/// One object.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordPart {
    uid: Hex<16>,
    revision: u64,
    attributes: Base64,
    secret: Option<Base64>,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// How many records there are.
    pub records: u64,
    /// The SHA-256 of everything before.
    pub sha256: Hex<32>,
    /// The MAC of everything before.
    pub mac: Hex<32>,
}

impl Head {
    /// Reads the serial number.
    ///
    /// # Errors
    /// `DataInvalid` for what is none.
    pub fn serial(&self) -> Result<Serial> {
        let serial: Option<Serial> = self.token.serial.as_bytes().try_into().ok();
        let serial = serial.filter(|serial| serial.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F')));
        serial.ok_or_else(|| Error::new(Kind::DataInvalid, "the serial number of the backup is none"))
    }

    /// Makes the row of its token.
    ///
    /// # Errors
    /// As [`Self::serial`].
    pub fn row(&self) -> Result<TokenRow> {
        let token = &self.token;
        let row = TokenRow {
            serial: Serial::default(),
            slot: 0,
            label: token.label.clone(),
            revision: 1,
            created: token.created,
            so_envelope: token.so_envelope.0.clone(),
            user_envelope: token.user_envelope.as_ref().map(|envelope| envelope.0.clone()),
            so_failures: token.so_failures,
            user_failures: token.user_failures,
            last_failure: token.last_failure,
        };
        Ok(crate::token::row_of(self.serial()?, row))
    }
}

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

fn end_line(end: &End) -> Result<String> {
    Ok(format!("{END}{}}}\n", json(end)?))
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal(format!("JSON: {error}")))
}

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
        let file = File::open(path).map_err(|error| file::failed("read", path, error))?;
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
