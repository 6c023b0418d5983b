//! What the backups of `keys/` need of a token: its objects as they are sealed, from one state of the store. How they are put back is
//! `restore.rs`.
//!
//! The rules are:
//! - `keys/backup` decides, this carries out: it knows no document and no flag;
//! - a record is opened before it is written anywhere, so that nothing goes out or comes in that would not open later;
//! - entries of the index follow from the attributes, and are made anew where a record is put back;
//! - no lock is held while a record is handed over.

use std::sync::Arc;

use super::find::object_name;
use super::library::Library;
use super::object::{Object, index_value};
use super::policy::Profile;
use super::session::Session;
use super::token::gone;
use crate::audit::{Event, Signer};
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::seal::{self, DataKeyId, ObjectKey, Sealer, TokenKey};
use crate::secret::SecurePrivateKey;
use crate::store::{IndexEntry, ObjectRow, Search, Serial, Snapshot, TokenRow, Transaction, Uid};

/// What counts up while a key is used: its uses, and the tries of its password.
const COUNTS: [CK_ATTRIBUTE_TYPE; 3] = [CKA_SR_USES, CKA_SR_PASSWORD_TRIES, CKA_SR_PASSWORD_WRONG];

/// An object of a backup or a store, opened; nothing is kept of its secret but what seals it.
pub struct Record {
    pub(super) object: Object,
    /// How it is sealed under its own token's key; `None` when it is to be sealed anew.
    pub(super) sealed: Option<ObjectRow>,
}

impl Record {
    /// Opens a row: its attributes and its secret.
    ///
    /// # Errors
    /// `DeviceError` when it is damaged, or sealed under another token key.
    pub fn open(token: &Serial, key: &TokenKey, row: ObjectRow) -> Result<Self> {
        let object = Object::open(token, Some(key), row.clone(), 0)?;
        drop(object.stored_secret_if_any(token, Some(key))?);
        Ok(Self { object, sealed: Some(row) })
    }

    /// Opens a row of a store if it is sound. One that does not open is damage, since the key is the right one.
    pub(super) fn open_here(token: &Serial, key: &TokenKey, row: ObjectRow) -> Here {
        let (uid, revision) = (row.uid, row.revision);
        Self::open(token, key, row).map_or(Here::Damaged { uid, revision }, Here::Sound)
    }

    /// Makes the record of a new object.
    ///
    /// # Errors
    /// `FunctionFailed` when the random generator fails.
    pub fn new(attributes: Attributes) -> Result<Self> {
        Ok(Self { object: Object::new(attributes, None, 0)?, sealed: None })
    }

    /// Makes an object of another token of it, under a unique id that follows from both tokens and the old one: a second import finds
    /// what the first one made.
    ///
    /// # Errors
    /// `DeviceError` when the secret does not open.
    pub fn moved(self, from: (&Serial, &TokenKey), to: &Serial) -> Result<Self> {
        let secret = self.object.stored_secret_if_any(from.0, Some(from.1))?;
        let uid = seal::moved_uid(from.0, to, &self.object.uid);
        Ok(Self { object: Object::with_uid(uid, self.object.attributes().clone(), secret, 0), sealed: None })
    }

    /// Gives the secret, or what its owner's password made of it; asks the KMS for a data key of its own, if it has one.
    ///
    /// # Errors
    /// What the KMS answers, naming its key; `DeviceError` when it does not open.
    pub fn opened(&self, token: (&Serial, &TokenKey), sealer: &Sealer) -> Result<SecurePrivateKey> {
        let stored = self.stored_secret(token)?;
        match self.has_data_key() {
            true => sealer.open_object_key(Self::data_key_id(token.0, &self.uid()), &stored)?.open(&stored),
            false => Ok(stored),
        }
    }

    /// Gives what the seal of the object holds.
    ///
    /// # Errors
    /// `KeyFunctionNotPermitted` when it has no secret; `DeviceError` when it does not open.
    pub fn stored_secret(&self, (serial, key): (&Serial, &TokenKey)) -> Result<SecurePrivateKey> {
        self.object.stored_secret(serial, Some(key))
    }

    /// Makes the record of the same object with its secret under a data key of its own, or without one.
    ///
    /// # Errors
    /// As [`ObjectKey::seal`].
    pub fn under(self, secret: SecurePrivateKey, key: Option<&ObjectKey>) -> Result<Self> {
        let mut attributes = self.object.attributes().clone();
        let secret = match key {
            Some(key) => {
                attributes.set(CKA_SR_DATA_KEY, true);
                key.seal(&secret)?
            }
            None => {
                attributes.take(CKA_SR_DATA_KEY);
                secret
            }
        };
        Ok(Self { object: self.object.changed(attributes, Some(secret)), sealed: None })
    }

    /// Names an object for its data key.
    pub fn data_key_id(token: &Serial, uid: &Uid) -> DataKeyId {
        DataKeyId { token: *token, uid: *uid }
    }

    /// Tells whether the secret is under a data key of its own.
    pub fn has_data_key(&self) -> bool {
        self.object.has_data_key()
    }

    /// Tells whether the object has a secret.
    pub fn has_secret(&self) -> bool {
        self.object.has_secret()
    }

    /// Tells the revision.
    pub fn revision(&self) -> u64 {
        self.object.revision
    }

    /// Gives the attributes.
    pub fn attributes(&self) -> &Attributes {
        self.object.attributes()
    }

    /// Tells the unique id.
    pub fn uid(&self) -> Uid {
        self.object.uid
    }

    /// Tells whether another record is the same object in the same state, but for what counts up while it is used and for the seal
    /// of its secret.
    pub fn is_like(&self, other: &Self) -> bool {
        let told = |record: &Self| {
            let mut attributes = record.attributes().clone();
            COUNTS.iter().chain(&[CKA_SR_DATA_KEY]).for_each(|id| drop(attributes.take(*id)));
            attributes
        };
        told(self) == told(other)
    }

    /// Gives the attributes with each count as high as it is here or in another record: no restore takes a use or a try back.
    pub(super) fn counted_on(&self, other: &Self) -> Attributes {
        let mut attributes = self.attributes().clone();
        for id in COUNTS {
            if let Some(most) = attributes.ulong(id).max(other.attributes().ulong(id)) {
                attributes.set(id, most);
            }
        }
        attributes
    }

    /// Gives the row as it is sealed; `None` for one that is to be sealed.
    pub fn sealed(&self) -> Option<&ObjectRow> {
        self.sealed.as_ref()
    }
}

/// An object as a store has it.
pub enum Here {
    /// It opens.
    Sound(Record),
    /// It does not, so that nobody can tell what it was.
    Damaged {
        /// The unique id.
        uid: Uid,
        /// The revision.
        revision: u64,
    },
}

impl Here {
    /// Gives the object if it opens.
    pub fn sound(self) -> Option<Record> {
        match self {
            Self::Sound(record) => Some(record),
            Self::Damaged { .. } => None,
        }
    }

    /// Tells the unique id.
    pub fn uid(&self) -> Uid {
        match self {
            Self::Sound(record) => record.uid(),
            Self::Damaged { uid, .. } => *uid,
        }
    }
}

/// One state of a token, to be written into a backup.
pub struct Source<'s> {
    snapshot: Box<dyn Snapshot + 's>,
    row: TokenRow,
    key: Arc<TokenKey>,
    profile: Profile,
}

impl Source<'_> {
    /// Gives the token's row.
    pub fn row(&self) -> &TokenRow {
        &self.row
    }

    /// Gives the token key.
    pub fn key(&self) -> &TokenKey {
        &self.key
    }

    /// Gives how the token is kept.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Counts the objects of the token.
    ///
    /// # Errors
    /// `DeviceError` when the store fails.
    pub fn object_count(&mut self) -> Result<u64> {
        self.snapshot.object_count()
    }

    /// Hands each object with these attributes to `visit`, in the order in which they were made.
    ///
    /// # Errors
    /// `DeviceError` when the store fails or an object is damaged; what `visit` answers.
    pub fn visit(&mut self, template: &Attributes, visit: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
        let (serial, key) = (self.row.serial, self.key.clone());
        let search = search(&serial, &key, template);
        self.snapshot.search(&search, &mut |row| {
            let record = Record::open(&serial, &key, row)?;
            if record.object.matches(template) { visit(record) } else { Ok(()) }
        })
    }
}

/// Chooses how objects with these attributes are found: by their owner, their class, or by looking at each.
pub(super) fn search(serial: &Serial, key: &TokenKey, template: &Attributes) -> Search {
    let indexed = [CKA_SR_OWNER, CKA_CLASS]
        .into_iter()
        .find_map(|id| Some((seal::index_field(id)?, index_value(template.get(id)?)?)));
    indexed.map_or(Search::All, |(field, value)| {
        let public = IndexEntry { field, digest: seal::public_index_digest(serial, field, &value) };
        let private = IndexEntry { field, digest: key.index_digest(field, &value) };
        Search::Any(vec![public, private])
    })
}

impl Session {
    /// Takes hold of the present state of the token, to be backed up. The objects stay sealed for the SO as for the user.
    ///
    /// # Errors
    /// `UserNotLoggedIn`; `TokenNotRecognized` when another process has initialised the token again; the store's.
    pub fn source(&self) -> Result<Source<'_>> {
        let login = self.token.login.read().clone().ok_or_else(|| Error::from(Kind::UserNotLoggedIn))?;
        let mut snapshot = self.token.store.snapshot(&self.token.serial)?;
        let row = snapshot.token()?.filter(|row| row.created == login.created).ok_or_else(gone)?;
        Ok(Source { snapshot, row, key: login.token_key, profile: self.token.profile() })
    }

    /// Finds an object of the session's token as the store has it.
    ///
    /// # Errors
    /// `UserNotLoggedIn`; `DeviceError` when the store fails.
    pub fn record(&self, uid: &Uid) -> Result<Option<Here>> {
        let (token, key) = (&self.token, self.token.token_key()?);
        let row = token.store.object(&token.serial, uid)?;
        Ok(row.map(|row| Record::open_here(&token.serial, &key, row)))
    }

    /// Opens every object of the session's token, secrets as well; tells how many there are, and the error of each that does not open.
    ///
    /// # Errors
    /// `UserNotLoggedIn`; `DeviceError` when the store fails.
    pub fn check_objects(&self) -> Result<(u64, Vec<Error>)> {
        let (token, key, mut count, mut damaged) = (&self.token, self.token.token_key()?, 0, Vec::new());
        token.store.search(&token.serial, &Search::All, &mut |row| {
            let uid = row.uid;
            count += 1;
            damaged.extend(Record::open(&token.serial, &key, row).err().map(|error| error.context(object_name(&uid))));
            Ok(())
        })?;
        Ok((count, damaged))
    }

    /// Tells the serial number of the session's token.
    pub fn serial(&self) -> Serial {
        self.token.serial
    }

    /// Tells the label of the session's token.
    ///
    /// # Errors
    /// `TokenNotRecognized` when it is gone; `DeviceError` when the store fails.
    pub fn token_label(&self) -> Result<String> {
        Ok(self.token.row()?.label)
    }

    /// Gives how the session's token is kept.
    pub fn profile(&self) -> Profile {
        self.token.profile()
    }

    /// Gives the token key of who is logged in.
    ///
    /// # Errors
    /// `UserNotLoggedIn`.
    pub fn token_key(&self) -> Result<Arc<TokenKey>> {
        self.token.token_key()
    }

    /// Records what changes nothing in the store, before it is done.
    ///
    /// # Errors
    /// In the mode `required` of the audit trail, `FunctionRejected` when no sink takes it.
    pub fn note(&self, event: &Event) -> Result<()> {
        self.token.note(event)
    }
}

impl Library {
    /// Records an operation about a token that nobody has opened. One that the store does not have has no trail, and neither has one
    /// that was initialised at another time: its key is another one.
    ///
    /// # Errors
    /// In the mode `required` of the audit trail, `FunctionRejected` when no sink takes it.
    pub fn note(&self, token: &TokenRow, event: &Event, key: Option<&TokenKey>) -> Result<()> {
        let store = self.store()?;
        let check = |transaction: &mut dyn Transaction| match transaction.token(&token.serial)? {
            Some(row) if row.created == token.created => Ok(()),
            _ => Err(gone()),
        };
        match self.trail().record(&*store, &token.serial, event, signer_of(key), &check) {
            Err(error) if error.kind() == Kind::TokenNotRecognized => Ok(()),
            other => other,
        }
    }

    /// Finds an object of a token as the store has it.
    ///
    /// # Errors
    /// `DeviceError` when the store fails.
    pub fn record(&self, token: (&Serial, &TokenKey), uid: &Uid) -> Result<Option<Here>> {
        let row = self.store()?.object(token.0, uid)?;
        Ok(row.map(|row| Record::open_here(token.0, token.1, row)))
    }

    /// Finds the row of a token.
    ///
    /// # Errors
    /// `DeviceError` when the store fails or the row is damaged.
    pub fn token_row(&self, serial: &Serial) -> Result<Option<TokenRow>> {
        self.store()?.token(serial)
    }
}

/// Takes a token key for a signer.
fn signer_of(key: Option<&TokenKey>) -> Option<&dyn Signer> {
    match key {
        Some(key) => Some(key),
        None => None,
    }
}
