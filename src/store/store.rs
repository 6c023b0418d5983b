//! The store: rows that hold sealed bytes, and nothing that can be read without the keys.
//!
//! The rules are:
//! - a store knows nothing of PKCS #11 or of cryptography: tokens, objects and index digests are opaque bytes to it;
//! - each change is one transaction that is durable when it returns; all that it reads, it reads under the write lock
//!   (`BEGIN IMMEDIATE` in SQLite, row locks in PostgreSQL), so that two processes never lose each other's change;
//! - an update names the revision that it replaces; another one there is an error, never an overwrite.

use crate::error::Result;

/// The serial number of a token: 16 characters `0-9A-F`, unique, never reused.
pub type Serial = [u8; 16];
/// The unique id of an object, random.
pub type Uid = [u8; 16];
/// A keyed digest of an attribute's type and value, by which objects are found.
pub type IndexDigest = [u8; 16];

/// Which password an envelope or a counter belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The security officer.
    So,
    /// The normal user.
    User,
}

/// One token: its name, its sealed token key, and what must be known before login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// The serial number.
    pub serial: Serial,
    /// The slot id, from the serial number, below 2^31, unique in the store.
    pub slot: u32,
    /// The label, at most 32 bytes of UTF-8, without padding.
    pub label: String,
    /// Counts up with each change of this row.
    pub revision: u64,
    /// When it was initialised, in seconds since 1970.
    pub created: u64,
    /// The token key, sealed for the SO.
    pub so_envelope: Vec<u8>,
    /// The token key, sealed for the user; `None` until the SO has set the user PIN.
    pub user_envelope: Option<Vec<u8>>,
    /// Wrong SO PINs in a row.
    pub so_failures: u32,
    /// Wrong user PINs in a row.
    pub user_failures: u32,
    /// When the last wrong PIN of either role was given, in milliseconds since 1970; 0 is never.
    pub last_failure: u64,
}

/// What a list has of a token. One that is damaged keeps its slot, so that its error is told there and the others can be used.
#[derive(Debug)]
pub struct Listed {
    /// The slot id, as the row tells it.
    pub slot: u32,
    /// The row, or the error that names the token.
    pub row: Result<TokenRow>,
}

/// One token object: attributes and secret, each sealed, and the digests that find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRow {
    /// The unique id within the store.
    pub uid: Uid,
    /// Counts up from 1 with each change; it is part of what is authenticated.
    pub revision: u64,
    /// The sealed (private) or tagged (public) attributes.
    pub attributes: Vec<u8>,
    /// The sealed secret, if the object has one.
    pub secret: Option<Vec<u8>>,
    /// Digests of the attributes by which it can be found, each with a small number that names the attribute.
    pub index: Vec<IndexEntry>,
}

/// One index entry: which attribute, and the digest of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IndexEntry {
    /// A number that stands for the attribute, fixed in `docs/format.md`.
    pub field: u8,
    /// The keyed digest of the value.
    pub digest: IndexDigest,
}

/// What a search takes: every object of the token, or those that have any of the entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Search {
    /// Every object.
    All,
    /// The objects that have at least one of these entries.
    Any(Vec<IndexEntry>),
}

/// One record of a token's audit trail; its content is opaque here, and the lengths are whatever was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// The number of the record in the trail of its token, from 1 without a gap; 0 for one that cannot be a number.
    pub sequence: u64,
    /// What is recorded.
    pub record: Vec<u8>,
    /// What chains it to the record before it.
    pub hash: Vec<u8>,
    /// What signs it; empty when nobody did.
    pub tag: Vec<u8>,
}

/// The end of a token's audit trail; opaque here as the records are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEnd {
    /// The number of the last record that somebody signed; 0 for one that cannot be a number.
    pub sequence: u64,
    /// What signs it as the end.
    pub tag: Vec<u8>,
}

/// Where tokens and objects rest.
pub trait Store: Send + Sync {
    /// Tells where it is, without credentials, for messages: `sqlite:///path`, `memory:`.
    fn location(&self) -> &str;

    /// Tells whether it can only be read (a read-only file, directory or mount).
    fn read_only(&self) -> bool;

    /// Tells a number that changes when this or any other process has committed a change. Cheap: no disk access.
    ///
    /// # Errors
    /// `DeviceError` when the store cannot be reached.
    fn change_count(&self) -> Result<u64>;

    /// Tells the serial number that the next token will have. All processes are told the same until it is taken.
    ///
    /// # Errors
    /// `DeviceError` when the store cannot be read, is damaged, or is of a newer version.
    fn next_serial(&self) -> Result<Serial>;

    /// Lists the tokens in the order in which they were made, also those whose rows are damaged.
    ///
    /// # Errors
    /// As [`Self::next_serial`]; `DeviceError` too when a row is so damaged that it names no slot.
    fn tokens(&self) -> Result<Vec<Listed>>;

    /// Reads one token.
    ///
    /// # Errors
    /// As [`Self::next_serial`].
    fn token(&self, serial: &Serial) -> Result<Option<TokenRow>>;

    /// Reads one object.
    ///
    /// # Errors
    /// As [`Self::next_serial`].
    fn object(&self, token: &Serial, uid: &Uid) -> Result<Option<ObjectRow>>;

    /// Hands each object that the search takes to `visit`, in the order in which they were made, until `visit` fails.
    /// A look-up finds each object that has an entry, or fails: an index that lost a row is told from an object that is not
    /// there. No lock is held that would keep `visit` from using the store.
    ///
    /// # Errors
    /// As [`Self::next_serial`], and what `visit` answers.
    fn search(&self, token: &Serial, search: &Search, visit: &mut dyn FnMut(ObjectRow) -> Result<()>) -> Result<()>;

    /// Counts the objects of a token.
    ///
    /// # Errors
    /// As [`Self::next_serial`].
    fn object_count(&self, token: &Serial) -> Result<u64>;

    /// Takes hold of the state in which a token and its objects are now, to be read while others go on writing (a backup).
    ///
    /// # Errors
    /// As [`Self::next_serial`].
    fn snapshot(&self, token: &Serial) -> Result<Box<dyn Snapshot + '_>>;

    /// Hands each record of a token's audit trail after a number to `visit`, in order, until `visit` fails. Constant memory, and no
    /// lock is held while `visit` runs. After 0, whatever stands before record 1 comes first.
    ///
    /// # Errors
    /// As [`Self::next_serial`], and what `visit` answers.
    fn audit(&self, token: &Serial, after: u64, visit: &mut dyn FnMut(AuditRow) -> Result<()>) -> Result<()>;

    /// Reads the last record of a token's audit trail.
    ///
    /// # Errors
    /// As [`Self::next_serial`].
    fn audit_last(&self, token: &Serial) -> Result<Option<AuditRow>>;

    /// Reads the end of a token's audit trail; `None` while nobody has signed any record.
    ///
    /// # Errors
    /// As [`Self::next_serial`].
    fn audit_end(&self, token: &Serial) -> Result<Option<AuditEnd>>;

    /// Runs `work` in one transaction and commits it, durable, when `work` succeeds; else nothing has changed.
    /// `work` is not run twice.
    ///
    /// # Errors
    /// What `work` answers; `TokenWriteProtected` for a read-only store; `DeviceMemory` for a full disk; `DeviceError` otherwise.
    fn write(&self, work: &mut dyn FnMut(&mut dyn Transaction) -> Result<()>) -> Result<()>;

    /// Makes the index anew from the entries of the objects, in one transaction, and tells how many entries it has
    /// (`strongroom doctor --repair`). Objects are read and never changed.
    ///
    /// # Errors
    /// `DeviceError` when an object is damaged, for what it says of itself cannot be trusted; as [`Self::write`].
    fn repair(&self) -> Result<u64>;

    /// Checks the store as deeply as it can (for `doctor`): one line for each fault found.
    ///
    /// # Errors
    /// `DeviceError` when the check itself cannot run.
    fn check(&self) -> Result<Vec<String>>;
}

/// One state of a token and its objects.
pub trait Snapshot {
    /// Reads the token.
    ///
    /// # Errors
    /// As [`Store::next_serial`].
    fn token(&mut self) -> Result<Option<TokenRow>>;

    /// Counts the objects of the token.
    ///
    /// # Errors
    /// As [`Store::next_serial`].
    fn object_count(&mut self) -> Result<u64>;

    /// Hands each object that the search takes to `visit`, as [`Store::search`] does, a few at a time. No lock is held that would
    /// keep `visit`, or anybody else, from using the store.
    ///
    /// # Errors
    /// As [`Store::search`].
    fn search(&mut self, search: &Search, visit: &mut dyn FnMut(ObjectRow) -> Result<()>) -> Result<()>;
}

/// One running transaction. It sees its own changes.
pub trait Transaction {
    /// Reads one token under the write lock.
    ///
    /// # Errors
    /// `DeviceError` when the store fails.
    fn token(&mut self, serial: &Serial) -> Result<Option<TokenRow>>;

    /// Adds a token that takes the store's next serial number; a new next serial number is drawn.
    ///
    /// # Errors
    /// `DeviceError` when the serial number is not the next one any more (another process took it), or the store fails.
    fn insert_token(&mut self, row: &TokenRow) -> Result<()>;

    /// Adds a token under the serial number that it had in another store, which no token of this one may have.
    ///
    /// # Errors
    /// `DeviceError` when there is a token of this serial number or slot, or the store fails.
    fn restore_token(&mut self, row: &TokenRow) -> Result<()>;

    /// Replaces a token's row; `row.revision` must be the stored one plus 1.
    ///
    /// # Errors
    /// `DeviceError` when the token is gone or has another revision, or the store fails.
    fn update_token(&mut self, row: &TokenRow) -> Result<()>;

    /// Removes all objects of a token (C_InitToken on an initialised token).
    ///
    /// # Errors
    /// `DeviceError` when the store fails.
    fn delete_objects(&mut self, token: &Serial) -> Result<()>;

    /// Reads one object under the write lock.
    ///
    /// # Errors
    /// `DeviceError` when the store fails.
    fn object(&mut self, token: &Serial, uid: &Uid) -> Result<Option<ObjectRow>>;

    /// Finds every object that the search takes, under the write lock, in the order in which they were made.
    ///
    /// # Errors
    /// `DeviceError` when the store fails or is damaged.
    fn search(&mut self, token: &Serial, search: &Search) -> Result<Vec<ObjectRow>>;

    /// Hands each object that the search takes to `visit`, a few at a time, under the write lock.
    ///
    /// # Errors
    /// As [`Self::search`], and what `visit` answers.
    fn visit(&mut self, token: &Serial, search: &Search, visit: &mut dyn FnMut(ObjectRow) -> Result<()>) -> Result<()>;

    /// Adds an object.
    ///
    /// # Errors
    /// `DeviceError` when the uid is taken or the store fails.
    fn insert_object(&mut self, token: &Serial, row: &ObjectRow) -> Result<()>;

    /// Replaces an object; `row.revision` must be the stored one plus 1.
    ///
    /// # Errors
    /// `ObjectHandleInvalid` when it is gone; `DeviceError` when it has another revision or the store fails.
    fn update_object(&mut self, token: &Serial, row: &ObjectRow) -> Result<()>;

    /// Removes an object.
    ///
    /// # Errors
    /// `ObjectHandleInvalid` when it is gone; `DeviceError` when the store fails.
    fn delete_object(&mut self, token: &Serial, uid: &Uid) -> Result<()>;

    /// Reads the last record of a token's audit trail under the write lock.
    ///
    /// # Errors
    /// `DeviceError` when the store fails.
    fn audit_last(&mut self, token: &Serial) -> Result<Option<AuditRow>>;

    /// Reads a record of a token's audit trail by its number.
    ///
    /// # Errors
    /// `DeviceError` when the store fails.
    fn audit_at(&mut self, token: &Serial, sequence: u64) -> Result<Option<AuditRow>>;

    /// Reads the end of a token's audit trail under the write lock.
    ///
    /// # Errors
    /// `DeviceError` when the store fails.
    fn audit_end(&mut self, token: &Serial) -> Result<Option<AuditEnd>>;

    /// Tells whether any record of a token's audit trail is signed. It goes through the trail up to the first one.
    ///
    /// # Errors
    /// `DeviceError` when the store fails.
    fn audit_is_signed(&mut self, token: &Serial) -> Result<bool>;

    /// Adds a record to a token's audit trail; its sequence must be the last one plus 1, or 1. With `end`, it is the end of the trail
    /// from now on.
    ///
    /// # Errors
    /// `GeneralError` for another sequence; `DeviceError` when the token is gone or the store fails.
    fn append_audit(&mut self, token: &Serial, row: &AuditRow, end: Option<&[u8]>) -> Result<()>;
}
