//! What the backups of `keys/` need of a token: its objects as they are sealed, from one state of the store, and a transaction that
//! puts objects back.
//!
//! The rules are:
//! - `keys/backup` decides, this carries out: it knows no document and no flag;
//! - a record is opened before it is written anywhere, so that nothing goes out or comes in that would not open later;
//! - entries of the index follow from the attributes, and are made anew where a record is put back;
//! - no lock is held while a record is handed over.

use std::sync::Arc;

use super::library::{Library, slot_of};
use super::login::{envelope_id, machine_id};
use super::object::Object;
use super::policy::{PinSource, Profile};
use super::session::Session;
use super::token::gone;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::seal::{self, EnvelopeId, Outer, TokenKey};
use crate::secret::SecureBytes;
use crate::store::{IndexEntry, ObjectRow, Role, Search, Serial, Snapshot, TokenRow, Transaction, Uid};

/// An object of a backup or a store, opened; nothing is kept of its secret but what seals it.
pub struct Record {
    object: Object,
    /// How it is sealed under its own token's key; `None` when it is to be sealed anew.
    sealed: Option<ObjectRow>,
}

impl Record {
    /// Opens a row: its attributes and its secret.
    ///
    /// # Errors
    /// `DeviceError` when it is damaged, or sealed under another token key.
    pub fn open(token: &Serial, key: &TokenKey, row: ObjectRow) -> Result<Self> {
        let object = Object::open(token, Some(key), row.clone(), 0)?;
        drop(object.secret_if_any(token, Some(key))?);
        Ok(Self { object, sealed: Some(row) })
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
        let secret = self.object.secret_if_any(from.0, Some(from.1))?;
        let uid = seal::moved_uid(from.0, to, &self.object.uid);
        Ok(Self { object: Object::with_uid(uid, self.object.attributes().clone(), secret, 0), sealed: None })
    }

    /// Gives the attributes.
    pub fn attributes(&self) -> &Attributes {
        self.object.attributes()
    }

    /// Tells the unique id.
    pub fn uid(&self) -> Uid {
        self.object.uid
    }

    /// Gives the row as it is sealed; `None` for one that is to be sealed.
    pub fn sealed(&self) -> Option<&ObjectRow> {
        self.sealed.as_ref()
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
fn search(serial: &Serial, key: &TokenKey, template: &Attributes) -> Search {
    let indexed = [CKA_SR_OWNER, CKA_CLASS]
        .into_iter()
        .find_map(|id| Some((seal::index_field(id)?, super::object::index_value(template.get(id)?)?)));
    indexed.map_or(Search::All, |(field, value)| {
        let public = IndexEntry { field, digest: seal::public_index_digest(serial, field, &value) };
        let private = IndexEntry { field, digest: key.index_digest(field, &value) };
        Search::Any(vec![public, private])
    })
}

/// A transaction that puts objects of a token back.
pub struct Restore<'r> {
    transaction: &'r mut dyn Transaction,
    serial: Serial,
    key: &'r TokenKey,
}

impl Restore<'_> {
    /// Reads the token's row; `None` when the store has no such token.
    ///
    /// # Errors
    /// `DeviceError` when the store fails or the row is damaged.
    pub fn token(&mut self) -> Result<Option<TokenRow>> {
        self.transaction.token(&self.serial)
    }

    /// Adds the token.
    ///
    /// # Errors
    /// The store's.
    pub fn add_token(&mut self, row: &TokenRow) -> Result<()> {
        self.transaction.restore_token(row)
    }

    /// Replaces the row of the token by one that was made of it.
    ///
    /// # Errors
    /// The store's.
    pub fn change_token(&mut self, old: &TokenRow, new: &TokenRow) -> Result<()> {
        self.transaction.update_token(&TokenRow { revision: old.revision + 1, ..new.clone() })
    }

    /// Removes every object of the token.
    ///
    /// # Errors
    /// The store's.
    pub fn clear(&mut self) -> Result<()> {
        self.transaction.delete_objects(&self.serial)
    }

    /// Finds an object.
    ///
    /// # Errors
    /// `DeviceError` when the store fails or the object is damaged.
    pub fn find(&mut self, uid: &Uid) -> Result<Option<Record>> {
        let row = self.transaction.object(&self.serial, uid)?;
        row.map(|row| Record::open(&self.serial, self.key, row)).transpose()
    }

    /// Hands each object with these attributes to `visit`.
    ///
    /// # Errors
    /// As [`Self::find`], and what `visit` answers.
    pub fn visit(&mut self, template: &Attributes, visit: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
        let (serial, key) = (self.serial, self.key);
        self.transaction.visit(&serial, &search(&serial, key, template), &mut |row| {
            let record = Record::open(&serial, key, row)?;
            if record.object.matches(template) { visit(record) } else { Ok(()) }
        })
    }

    /// Tells whether an object here is what a record says: the same attributes, and the same secret.
    ///
    /// # Errors
    /// `DeviceError` when either does not open.
    pub fn is_same(&self, here: &Record, record: &Record) -> Result<bool> {
        let secret = |record: &Record| record.object.secret_if_any(&self.serial, Some(self.key));
        Ok(here.attributes() == record.attributes() && secret(here)? == secret(record)?)
    }

    /// Adds a record: as it is sealed if it is of this very token, else sealed under this token's key.
    ///
    /// # Errors
    /// The store's.
    pub fn add(&mut self, record: Record) -> Result<()> {
        let row = match record.sealed {
            None => record.object.to_row(&self.serial, self.key)?,
            Some(row) => ObjectRow { index: record.object.index(&self.serial, self.key), ..row },
        };
        self.transaction.insert_object(&self.serial, &row)
    }

    /// Makes an object here what a record says, as its next revision.
    ///
    /// # Errors
    /// The store's; `DeviceError` when the record's secret does not open.
    pub fn replace(&mut self, here: &Record, record: &Record) -> Result<()> {
        let secret = record.object.secret_if_any(&self.serial, Some(self.key))?;
        let changed = here.object.changed(record.attributes().clone(), secret);
        self.transaction.update_object(&self.serial, &changed.to_row(&self.serial, self.key)?)
    }

    /// Removes an object.
    ///
    /// # Errors
    /// The store's.
    pub fn remove(&mut self, uid: &Uid) -> Result<()> {
        self.transaction.delete_object(&self.serial, uid)
    }
}

/// What the PINs of a token that is put back are to be.
pub struct NewPins<'p> {
    /// The SO's, if it is another one from now on.
    pub so: Option<&'p SecureBytes>,
    /// The user's, if it is another one from now on.
    pub user: Option<&'p SecureBytes>,
}

/// Makes a row of another one with its outer key wrapped anew, or with a new outer key.
///
/// # Errors
/// `PinLenRange`, `PinInvalid` for a new PIN that breaks the rules; `DeviceError` when an envelope that stays does not open.
pub fn reseal(
    row: &TokenRow,
    profile: &Profile,
    key: &TokenKey,
    outer: &Outer,
    pins: &NewPins<'_>,
) -> Result<TokenRow> {
    let (mut row, sealer) = (row.clone(), &profile.sealer);
    let seal = |id: &EnvelopeId<'_>, pin: &SecureBytes| sealer.seal_token_key(id, pin, key, outer);
    let id = |role| envelope_id(&row, role);
    let so_envelope = match pins.so {
        Some(pin) => profile.policy.password.check(pin).and_then(|()| seal(&id(Role::So), pin))?,
        None => sealer.replace_outer(&id(Role::So), &row.so_envelope, outer)?,
    };
    let user_envelope = match (pins.user, &row.user_envelope, &profile.pin_source) {
        (Some(pin), ..) => Some(profile.policy.password.check(pin).and_then(|()| seal(&id(Role::User), pin))?),
        // A token that opens without a PIN is given no PIN.
        (None, Some(_), PinSource::Machine) if pins.so.is_some() => {
            Some(seal(&machine_id(&row), &SecureBytes::zeroed(0))?)
        }
        (None, Some(envelope), _) => {
            let user = sealer.replace_outer(&id(Role::User), envelope, outer);
            Some(user.or_else(|_| sealer.replace_outer(&machine_id(&row), envelope, outer))?)
        }
        (None, None, _) => None,
    };
    if pins.so.is_some() {
        row.so_failures = 0;
    }
    if pins.user.is_some() {
        row.user_failures = 0;
    }
    Ok(TokenRow { so_envelope, user_envelope, ..row })
}

/// Opens a token key by a PIN of the user or the SO, or, without a PIN, by the machine's envelope.
///
/// # Errors
/// `PinIncorrect`; `DeviceError` when the envelopes are damaged.
pub fn open_by_pin(row: &TokenRow, profile: &Profile, outer: &Outer, pin: Option<&SecureBytes>) -> Result<TokenKey> {
    let open = |id: &EnvelopeId<'_>, envelope: &[u8], pin: &SecureBytes| {
        profile.sealer.open_inner(id, envelope, outer)?.open(pin)
    };
    let Some(pin) = pin else {
        let envelope = row.user_envelope.as_ref().ok_or_else(|| Error::from(Kind::PinIncorrect))?;
        return open(&machine_id(row), envelope, &SecureBytes::zeroed(0));
    };
    if let Some(envelope) = &row.user_envelope
        && let Ok(key) = open(&envelope_id(row, Role::User), envelope, pin)
    {
        return Ok(key);
    }
    open(&envelope_id(row, Role::So), &row.so_envelope, pin)
}

/// Checks that the envelopes of a row belong to this outer key, as far as that shows without a PIN.
///
/// # Errors
/// `DeviceError` when one of them is damaged.
pub fn check_envelopes(row: &TokenRow, profile: &Profile, outer: &Outer) -> Result<()> {
    let open = |id: &EnvelopeId<'_>, envelope: &[u8]| profile.sealer.open_inner(id, envelope, outer).map(drop);
    open(&envelope_id(row, Role::So), &row.so_envelope)?;
    match &row.user_envelope {
        Some(envelope) => open(&envelope_id(row, Role::User), envelope).or_else(|_| open(&machine_id(row), envelope)),
        None => Ok(()),
    }
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

    /// Runs work in one transaction that puts objects of the session's token back.
    ///
    /// # Errors
    /// `UserNotLoggedIn`, `SessionReadOnly`, the store's, and what `work` answers; nothing has changed then.
    pub fn restore<T>(&self, work: impl FnOnce(&mut Restore<'_>) -> Result<T>) -> Result<T> {
        self.check_read_write()?;
        self.check_may_be_private(true)?;
        let mut once = Once::new(work);
        let (serial, answer) = (self.token.serial, &mut once);
        self.token.write(&mut |transaction, key| answer.run(&mut Restore { transaction, serial, key }))?;
        self.token.handles.reread();
        once.answer()
    }

    /// Runs work in one transaction that changes the recovery envelopes of the session's token.
    ///
    /// # Errors
    /// `UserNotLoggedIn` unless the SO is, or the user of a token that opens by itself; as [`Self::restore`].
    pub fn change_recovery<T>(&self, work: impl FnOnce(&mut Restore<'_>) -> Result<T>) -> Result<T> {
        self.check_read_write()?;
        let opens_itself = self.token.profile().pin_source.opens_itself();
        if !(self.token.role() == Some(Role::So) || opens_itself && self.token.role().is_some()) {
            let text = "a recovery envelope gives the token away as a whole: log in as SO to add or remove one";
            return Err(Error::new(Kind::UserNotLoggedIn, text));
        }
        let mut once = Once::new(work);
        let (serial, answer) = (self.token.serial, &mut once);
        self.token.write(&mut |transaction, key| answer.run(&mut Restore { transaction, serial, key }))?;
        once.answer()
    }
}

impl Library {
    /// Runs work in one transaction that puts a token back.
    ///
    /// # Errors
    /// The store's, and what `work` answers; nothing has changed then.
    pub fn restore<T>(
        &self,
        serial: Serial,
        key: &TokenKey,
        work: impl FnOnce(&mut Restore<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut once = Once::new(work);
        let answer = &mut once;
        self.store()?.write(&mut |transaction| answer.run(&mut Restore { transaction, serial, key }))?;
        self.slots(true)?;
        once.answer()
    }

    /// Finds the row of a token.
    ///
    /// # Errors
    /// `DeviceError` when the store fails or the row is damaged.
    pub fn token_row(&self, serial: &Serial) -> Result<Option<TokenRow>> {
        self.store()?.token(serial)
    }
}

/// Work that a transaction runs once, and what it answered.
struct Once<W, T> {
    work: Option<W>,
    answer: Option<T>,
}

impl<T, W: FnOnce(&mut Restore<'_>) -> Result<T>> Once<W, T> {
    fn new(work: W) -> Self {
        Self { work: Some(work), answer: None }
    }

    fn run(&mut self, restore: &mut Restore<'_>) -> Result<()> {
        let work = self.work.take().ok_or_else(|| Error::internal("a transaction ran twice"))?;
        self.answer = Some(work(restore)?);
        Ok(())
    }

    fn answer(self) -> Result<T> {
        self.answer.ok_or_else(|| Error::internal("a transaction did not run"))
    }
}

/// Makes the row of a token from what a backup tells of it.
pub fn row_of(serial: Serial, row: TokenRow) -> TokenRow {
    TokenRow { serial, slot: slot_of(&serial), revision: 1, ..row }
}
