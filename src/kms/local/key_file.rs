//! The local master keys, and the text file that holds them.
//!
//! The rules are:
//! - the file is never seen half-written: it is made under another name, synced, and then linked to its own;
//! - of two processes that create it at once, the first wins and the other takes what it finds;
//! - a file that takes its place has its owner and mode, and stands where a link leads;
//! - a file that group or others can reach is refused, not repaired: the keys in it may be known to others already.

use std::fmt::{self, Write as _};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::MasterKeyId;
use crate::error::{Error, KmsFault, Result};
use crate::kms::no_randomness;
use crate::secret::SecureBytes;

/// The length of a master key in bytes.
pub const KEY_LEN: usize = 32;
/// The first line: what the file is, and the version of its format.
const FIRST_LINE: &str = "strongroom-local-kms 1";
/// What the person who finds the file should know.
const NOTICE: &str = "\
# The master keys of Strongroom's local KMS. Without this file no token that was sealed under it can be opened.
# Keep a copy in a safe place, apart from the database; never change or remove a line.";
/// No honest file comes near this size in bytes.
const MAX_FILE_LEN: u64 = 1 << 20;
/// The longest name in bytes.
const MAX_NAME_LEN: usize = 64;

/// Who guards a file, and so which bits of its mode show that others can reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Its owner: nobody else has rights.
    Owner,
    /// systemd, which gives the user of a service access to a credential by an ACL: the bits of the group show its mask (acl(5)).
    Systemd,
}

impl Guard {
    const fn forbidden(self) -> u32 {
        match self {
            Self::Owner => 0o077,
            Self::Systemd => 0o007,
        }
    }
}

/// One master key.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: MasterKeyId,
    pub key: SecureBytes,
}

impl Entry {
    /// Gives the entry, unless a fork has left zeros of its key here.
    fn here(&self) -> Result<Self> {
        self.key.check_not_forked()?;
        Ok(self.clone())
    }
}

/// Master keys in the order in which they were added.
#[derive(Debug, Default)]
pub struct KeyRing {
    entries: Vec<Entry>,
}

impl KeyRing {
    /// Finds the key to wrap with: the highest version of the name that was added last.
    pub fn active(&self, place: impl fmt::Display) -> Result<Entry> {
        let name = self.entries.last().map(|last| &last.id.key);
        self.entries
            .iter()
            .filter(|entry| Some(&entry.id.key) == name)
            .max_by_key(|entry| entry.id.version)
            .ok_or_else(|| {
                Error::kms(KmsFault::NotFound, format!("{place} holds no local master key to wrap with; add one first"))
            })?
            .here()
    }

    /// Finds the key that wrapped a blob.
    pub fn find(&self, id: &MasterKeyId, place: impl fmt::Display) -> Result<Entry> {
        let found = self.entries.iter().find(|entry| entry.id == *id).ok_or_else(|| {
            let text = format!(
                "the token is sealed under local master key {id}, and {place} holds {}; put the right keys back from a backup",
                self.names()
            );
            Error::kms(KmsFault::NotFound, text)
        });
        found?.here()
    }

    /// Adds a key as the next version of a name.
    pub fn add(&mut self, name: &str, key: SecureBytes) -> Result<MasterKeyId> {
        if !is_name(name) {
            return Err(Error::arguments_bad(format!(
                "a master key's name has 1 to {MAX_NAME_LEN} of the characters A-Z a-z 0-9 . _ -"
            )));
        }
        if key.len() != KEY_LEN {
            return Err(Error::arguments_bad(format!("a master key has {KEY_LEN} bytes, not {}", key.len())));
        }
        let versions = self.entries.iter().filter(|entry| entry.id.key == name).map(|entry| entry.id.version);
        let version =
            versions.max().unwrap_or(0).checked_add(1).ok_or_else(|| Error::arguments_bad("too many versions"))?;
        let id = MasterKeyId { key: name.to_owned(), version };
        self.entries.push(Entry { id: id.clone(), key });
        Ok(id)
    }

    /// Lists names and versions, for messages.
    fn names(&self) -> String {
        let names: Vec<_> = self.entries.iter().map(|entry| entry.id.to_string()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

/// Makes a random master key.
pub fn random_key() -> Result<SecureBytes> {
    SecureBytes::try_with(KEY_LEN, getrandom::fill).map_err(no_randomness)
}

/// Reads the file; `None` when there is none.
pub fn load(path: &Path, guard: Guard) -> Result<Option<KeyRing>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path, error)),
    };
    let text = read_private(&file, path, guard)?;
    parse(text.expose(), path).map(Some)
}

/// Creates the file with one random key, unless another process has just created it.
pub fn create(path: &Path) -> Result<()> {
    let directory = parent(path);
    make_directory(directory).map_err(|error| failed("create the directory of", path, error))?;
    let mut ring = KeyRing::default();
    ring.add(&random_name()?, random_key()?)?;
    publish(path, directory, &render(&ring)?)
}

/// Adds a random key as the next version of the active name, for all processes at once.
pub fn rotate(path: &Path) -> Result<MasterKeyId> {
    // A link stays, and leads to the new file.
    let path = &fs::canonicalize(path).map_err(|error| failed("read", path, error))?;
    let file = lock(path)?;
    let mut ring = parse(read_private(&file, path, Guard::Owner)?.expose(), path)?;
    let name = ring.active(path.display())?.id.key;
    let id = ring.add(&name, random_key()?)?;
    let directory = parent(path);
    let scratch = write_scratch(path, directory, &render(&ring)?, Some(&file))?;
    fs::rename(&scratch.0, path).map_err(|error| failed("replace", path, error))?;
    sync_directory(directory, path)?;
    // Only now may another process go on: it reads the file that has the new key.
    drop(file);
    Ok(id)
}

/// Locks the file against other processes that rotate; waits for them.
fn lock(path: &Path) -> Result<File> {
    loop {
        let file = File::open(path).map_err(|error| failed("read", path, error))?;
        file.lock().map_err(|error| failed("lock", path, error))?;
        let now = fs::metadata(path).map_err(|error| failed("read", path, error))?;
        let locked = file.metadata().map_err(|error| failed("read", path, error))?;
        // Another process may have put a new file in its place while this one waited.
        if (now.dev(), now.ino()) == (locked.dev(), locked.ino()) {
            return Ok(file);
        }
    }
}

/// Makes a directory and those above it, for the owner alone, so that they outlive a loss of power.
fn make_directory(directory: &Path) -> std::io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    make_directory(parent(directory))?;
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => File::open(parent(directory))?.sync_all(),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes the text under a name of its own, then links it to `path` unless that exists by now.
fn publish(path: &Path, directory: &Path, text: &str) -> Result<()> {
    let scratch = write_scratch(path, directory, text, None)?;
    match fs::hard_link(&scratch.0, path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("create", path, error)),
    }
    drop(scratch);
    sync_directory(directory, path)
}

/// Writes the text durably to a file beside `path` that nobody else knows, for the owner of the file that it replaces.
fn write_scratch(path: &Path, directory: &Path, text: &str, replaced: Option<&File>) -> Result<Scratch> {
    let scratch = Scratch::new(directory, path)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&scratch.0)
        .map_err(|error| failed("create", &scratch.0, error))?;
    if let Some(replaced) = replaced {
        give_away(&file, replaced, path)?;
    }
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|error| failed("write", &scratch.0, error))?;
    Ok(scratch)
}

/// Gives a file the owner and the mode of another.
fn give_away(file: &File, replaced: &File, path: &Path) -> Result<()> {
    let old = replaced.metadata().map_err(|error| failed("read", path, error))?;
    let new = file.metadata().map_err(|error| failed("write", path, error))?;
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        fchown(file, Some(old.uid()), Some(old.gid())).map_err(|error| {
            let text = format!(
                "the local master key file {} belongs to user {} and group {}, to whom this process cannot give a new one: rotate as that user",
                path.display(),
                old.uid(),
                old.gid()
            );
            Error::device(text).caused_by(error)
        })?;
    }
    file.set_permissions(old.permissions()).map_err(|error| failed("write", path, error))
}

fn sync_directory(directory: &Path, path: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| failed("sync the directory of", path, error))
}

/// A file that is removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(directory: &Path, path: &Path) -> Result<Self> {
        let mut name = path.file_name().ok_or_else(|| failed("create", path, "this is not a file name"))?.to_owned();
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(no_randomness)?;
        name.push(format!(".{}.tmp", HEXLOWER.encode(&random)));
        Ok(Self(directory.join(name)))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing depends on it: the name is random, and the content is as well guarded as the file's.
        let _ = fs::remove_file(&self.0);
    }
}

/// Reads a file that nobody but its guard lets reach it into locked memory.
fn read_private(mut file: &File, path: &Path, guard: Guard) -> Result<SecureBytes> {
    let metadata = file.metadata().map_err(|error| failed("read", path, error))?;
    if !metadata.is_file() || metadata.len() > MAX_FILE_LEN {
        return Err(failed("read", path, "this is not a file of local master keys"));
    }
    if metadata.permissions().mode() & guard.forbidden() != 0 {
        return Err(Error::device(format!(
            "the local master key file {} is open to others (mode {:03o}); run: chmod 600 '{}'",
            path.display(),
            metadata.permissions().mode() & 0o777,
            path.display()
        )));
    }
    let len = usize::try_from(metadata.len()).expect("MAX_FILE_LEN fits");
    SecureBytes::try_with(len, |text| file.read_exact(text)).map_err(|error| failed("read", path, error))
}

/// Writes the text of a file; it is wiped when dropped, and its memory never moves.
fn render(ring: &KeyRing) -> Result<Zeroizing<String>> {
    let room = FIRST_LINE.len() + NOTICE.len() + 64 + ring.entries.len() * (MAX_NAME_LEN + 128);
    let mut text = Zeroizing::new(String::with_capacity(room));
    write!(text, "{FIRST_LINE}\n{NOTICE}\n").expect("a string takes any text");
    for Entry { id, key } in &ring.entries {
        let mut fields = Zeroizing::new(String::with_capacity(MAX_NAME_LEN + 128));
        write!(fields, "{} {} ", id.key, id.version).expect("a string takes any text");
        HEXLOWER.encode_append(key.expose(), &mut fields);
        writeln!(text, "key {} {}", *fields, checksum(&fields)).expect("a string takes any text");
    }
    Ok(text)
}

/// Reads the text of a file. An error names file and line, and shows nothing of the line.
fn parse(text: &[u8], path: &Path) -> Result<KeyRing> {
    let text =
        std::str::from_utf8(text).map_err(|_| failed("read", path, "this is not a file of local master keys"))?;
    let mut lines = text.lines().zip(1..);
    match lines.next() {
        Some((FIRST_LINE, _)) => {}
        _ => return Err(bad_line(path, 1, format_args!("the first line must be `{FIRST_LINE}`"))),
    }
    let mut ring = KeyRing::default();
    for (line, number) in lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#')) {
        let entry = parse_key(line).map_err(|why| bad_line(path, number, why))?;
        if ring.entries.iter().any(|other| other.id == entry.id) {
            return Err(bad_line(path, number, "this name and version stood on a line before"));
        }
        ring.entries.push(entry);
    }
    Ok(ring)
}

/// Reads `key NAME VERSION KEY CHECKSUM`.
fn parse_key(line: &str) -> std::result::Result<Entry, &'static str> {
    const SHAPE: &str = "the line must read: key NAME VERSION KEY CHECKSUM";
    let fields = line.strip_prefix("key ").ok_or(SHAPE)?;
    let (fields, sum) = fields.rsplit_once(' ').ok_or(SHAPE)?;
    if checksum(fields) != sum {
        return Err("the checksum does not match; the line is damaged or was edited");
    }
    let mut parts = fields.split(' ');
    let (Some(name), Some(version), Some(key), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(SHAPE);
    };
    if !is_name(name) {
        return Err("the name has other characters than A-Z a-z 0-9 . _ - or is too long");
    }
    let version = version.parse().ok().filter(|version| *version > 0).ok_or("the version must be a number from 1")?;
    let key = decode_key(key).ok_or("the key must be 64 hexadecimal digits in lower case")?;
    Ok(Entry { id: MasterKeyId { key: name.to_owned(), version }, key })
}

fn decode_key(hex: &str) -> Option<SecureBytes> {
    if hex.len() != 2 * KEY_LEN {
        return None;
    }
    SecureBytes::try_with(KEY_LEN, |key| HEXLOWER.decode_mut(hex.as_bytes(), key).map(|_| ())).ok()
}

/// Sums up a line's fields so that a slip of the hand is found: the first 4 bytes of SHA-256 in hex.
fn checksum(fields: &str) -> String {
    let digest = Sha256::digest(fields.as_bytes());
    HEXLOWER.encode(digest.first_chunk::<4>().expect("SHA-256 has 32 bytes"))
}

/// Makes a name that no other file has, so that a wrong file is told from damage.
fn random_name() -> Result<String> {
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(no_randomness)?;
    Ok(format!("local-{}", HEXLOWER.encode(&random)))
}

fn is_name(name: &str) -> bool {
    let fits = (1..=MAX_NAME_LEN).contains(&name.len());
    fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn failed(what: &str, path: &Path, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::device(format!("cannot {what} the local master key file {}", path.display())).caused_by(cause)
}

fn bad_line(path: &Path, number: u32, why: impl fmt::Display) -> Error {
    Error::device(format!("the local master key file {}, line {number}: {why}", path.display()))
}
