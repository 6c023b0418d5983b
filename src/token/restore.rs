//! Putting a token and its objects back, in one transaction that takes its audit record; and the envelopes of a token that is put back.
//!
//! The rules are:
//! - `keys/backup` decides what is put back, this carries it out;
//! - entries of the index follow from the attributes, and are made anew;
//! - an object here that does not open stands in nobody's way: a record that is to replace it takes its place;
//! - a trial runs the same work, and is never committed.

use super::backup::{Here, Record, search};
use super::data_key;
use super::library::{Library, slot_of};
use super::login::{envelope_id, machine_id};
use super::object::{Object, latest_version};
use super::policy::{PinSource, Profile};
use super::session::Session;
use super::token::gone;
use super::trail::name_of;
use crate::audit::{Event, KeyName, Signers, User};
use crate::ck::{Attributes, CKO_SR_RECOVERY};
use crate::error::{Error, Kind, Result};
use crate::seal::{self, EnvelopeId, Outer, TokenKey};
use crate::secret::SecureBytes;
use crate::store::{IndexEntry, ObjectRow, Role, Search, Serial, Store, TokenRow, Transaction, Uid};

/// How many objects an audit record names at the most.
const MOST_NAMED: usize = 64;

/// A transaction that puts objects of a token back.
pub struct Restore<'r> {
    transaction: &'r mut dyn Transaction,
    serial: Serial,
    key: &'r TokenKey,
    event: &'r mut Event,
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
    /// `DeviceError` when the store fails.
    pub fn find(&mut self, uid: &Uid) -> Result<Option<Here>> {
        let row = self.transaction.object(&self.serial, uid)?;
        Ok(row.map(|row| Record::open_here(&self.serial, self.key, row)))
    }

    /// Hands each object with these attributes to `visit`. One that does not open is among them if it is asked for all objects, or if
    /// the index has it as of the latest version of the managed key that is asked for.
    ///
    /// # Errors
    /// `DeviceError` when the store fails; what `visit` answers.
    pub fn visit_here(&mut self, template: &Attributes, visit: &mut dyn FnMut(Here) -> Result<()>) -> Result<()> {
        let (serial, key, mut damaged) = (self.serial, self.key, Vec::new());
        self.transaction.visit(&serial, &search(&serial, key, template), &mut |row| match Record::open_here(
            &serial, key, row,
        ) {
            Here::Sound(record) if !record.object.matches(template) => Ok(()),
            here @ Here::Sound(_) => visit(here),
            here @ Here::Damaged { .. } => {
                damaged.push(here);
                Ok(())
            }
        })?;
        if !damaged.is_empty() && template.iter().next().is_some() {
            let latest: Vec<_> = self.latest(template)?.into_iter().map(|row| row.uid).collect();
            damaged.retain(|here| latest.contains(&here.uid()));
        }
        damaged.into_iter().try_for_each(visit)
    }

    /// Finds the rows that the index has as of the latest version of the managed key whose owner and asset the template has.
    fn latest(&mut self, template: &Attributes) -> Result<Vec<ObjectRow>> {
        let Some(value) = latest_version(template) else { return Ok(Vec::new()) };
        let field = seal::LATEST_VERSION_FIELD;
        let public = IndexEntry { field, digest: seal::public_index_digest(&self.serial, field, &value) };
        let private = IndexEntry { field, digest: self.key.index_digest(field, &value) };
        self.transaction.search(&self.serial, &Search::Any(vec![public, private]))
    }

    /// Hands each object with these attributes to `visit`.
    ///
    /// # Errors
    /// `DeviceError` when the store fails or an object is damaged; what `visit` answers.
    pub fn visit(&mut self, template: &Attributes, visit: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
        let (serial, key) = (self.serial, self.key);
        self.transaction.visit(&serial, &search(&serial, key, template), &mut |row| {
            let record = Record::open(&serial, key, row)?;
            if record.object.matches(template) { visit(record) } else { Ok(()) }
        })
    }

    /// Tells whether an object here is what a record says: the same attributes but for its counts, and the same secret.
    ///
    /// # Errors
    /// `DeviceError` when either does not open.
    pub fn is_same(&self, here: &Record, record: &Record) -> Result<bool> {
        let secret = |record: &Record| record.object.stored_secret_if_any(&self.serial, Some(self.key));
        Ok(here.is_like(record) && secret(here)? == secret(record)?)
    }

    /// Tells the audit record more of what is done, which is no secret.
    pub fn tell(&mut self, detail: String) {
        self.event.detail = detail;
    }

    /// Names an object in the audit record, which has room for a few.
    fn touch(&mut self, object: KeyName) {
        if self.event.keys.len() < MOST_NAMED {
            self.event.keys.push(object);
        }
    }

    /// Adds a record: as it is sealed if it is of this very token, else sealed under this token's key.
    ///
    /// # Errors
    /// The store's.
    pub fn add(&mut self, record: Record) -> Result<()> {
        self.check_scope(&record.object)?;
        self.touch(name_of(&record.object));
        let row = match record.sealed {
            None => record.object.to_row(&self.serial, self.key)?,
            Some(row) => ObjectRow { index: record.object.index(&self.serial, self.key), ..row },
        };
        self.transaction.insert_object(&self.serial, &row)
    }

    /// Makes an object here what a record says, as its next revision; its counts stay where they are higher.
    ///
    /// # Errors
    /// The store's; `DeviceError` when the record's secret does not open.
    pub fn replace(&mut self, here: &Record, record: &Record) -> Result<()> {
        self.check_scope(&record.object)?;
        self.touch(name_of(&here.object));
        let secret = record.object.stored_secret_if_any(&self.serial, Some(self.key))?;
        let changed = here.object.changed(record.counted_on(here), secret);
        self.transaction.update_object(&self.serial, &changed.to_row(&self.serial, self.key)?)
    }

    /// Puts a record in the place of an object here that does not open, as its next revision.
    ///
    /// # Errors
    /// As [`Self::replace`].
    pub fn replace_damaged(&mut self, revision: u64, record: &Record) -> Result<()> {
        self.check_scope(&record.object)?;
        self.touch(name_of(&record.object));
        let secret = record.object.stored_secret_if_any(&self.serial, Some(self.key))?;
        let next = record.object.changed(record.attributes().clone(), secret).after(revision);
        self.transaction.delete_object(&self.serial, &record.uid())?;
        self.transaction.insert_object(&self.serial, &next.to_row(&self.serial, self.key)?)
    }

    /// Refuses a key with a data key of its own beside recovery envelopes, which cannot open it, and the other way round.
    fn check_scope(&mut self, object: &Object) -> Result<()> {
        let recovery = object.class() == CKO_SR_RECOVERY;
        match recovery || object.has_data_key() {
            true if recovery => self.check_no_data_keys(),
            true => data_key::check_no_recovery(self.transaction, &self.serial, self.key),
            false => Ok(()),
        }
    }

    /// Refuses a token that has keys with data keys of their own, for what opens the token without its KMS.
    ///
    /// # Errors
    /// `ActionProhibited` for such a token; the store's.
    pub fn check_no_data_keys(&mut self) -> Result<()> {
        data_key::check_no_data_keys(self.transaction, &self.serial, self.key)
    }

    /// Gives serial number and key of the token.
    pub fn token_key(&self) -> (&Serial, &TokenKey) {
        (&self.serial, self.key)
    }

    /// Removes an object.
    ///
    /// # Errors
    /// The store's.
    pub fn remove(&mut self, here: &Here) -> Result<()> {
        self.touch(match here {
            Here::Sound(record) => name_of(&record.object),
            Here::Damaged { uid, .. } => KeyName { uid: *uid, version: 0 },
        });
        self.transaction.delete_object(&self.serial, &here.uid())
    }
}

impl Session {
    /// Runs work in one transaction that puts objects of the session's token back, and takes its audit record.
    ///
    /// # Errors
    /// `UserNotLoggedIn`, `SessionReadOnly`, the store's, and what `work` answers; nothing has changed then.
    pub fn restore<T>(&self, event: Event, work: impl FnOnce(&mut Restore<'_>) -> Result<T>) -> Result<T> {
        let restored = self.change_as(event, |session| session.check_may_be_private(true), work);
        self.token.handles.reread();
        restored
    }

    /// Runs work as [`Self::restore`] does, and undoes it.
    ///
    /// # Errors
    /// As [`Self::restore`].
    pub fn try_restore<T>(&self, work: impl FnOnce(&mut Restore<'_>) -> Result<T>) -> Result<T> {
        self.check_read_write()?;
        self.check_may_be_private(true)?;
        self.undone(work)
    }

    /// Runs work in one transaction that changes the recovery envelopes of the session's token, and takes its audit record.
    ///
    /// # Errors
    /// `UserNotLoggedIn` unless the SO is, or the user of a token that opens by itself; as [`Self::restore`].
    pub fn change_recovery<T>(&self, event: Event, work: impl FnOnce(&mut Restore<'_>) -> Result<T>) -> Result<T> {
        self.change_as(event, Self::check_may_change_recovery, work)
    }

    /// Runs work as [`Self::change_recovery`] does, and undoes it.
    ///
    /// # Errors
    /// As [`Self::change_recovery`].
    pub fn try_recovery<T>(&self, work: impl FnOnce(&mut Restore<'_>) -> Result<T>) -> Result<T> {
        self.check_read_write()?;
        self.check_may_change_recovery()?;
        self.undone(work)
    }

    fn check_may_change_recovery(&self) -> Result<()> {
        let opens_itself = self.token.profile().pin_source.opens_itself();
        match self.token.role() {
            Some(Role::So) => Ok(()),
            Some(Role::User) if opens_itself => Ok(()),
            _ => {
                let text = "a recovery envelope gives the token away as a whole: log in as SO to add or remove one";
                Err(Error::new(Kind::UserNotLoggedIn, text))
            }
        }
    }

    fn change_as<T>(
        &self,
        event: Event,
        may: impl FnOnce(&Self) -> Result<()>,
        work: impl FnOnce(&mut Restore<'_>) -> Result<T>,
    ) -> Result<T> {
        self.changing(event, |event| {
            self.check_read_write()?;
            may(self)?;
            let (serial, mut once) = (self.token.serial, Once::new(work));
            self.token.write_telling(event, &mut |transaction, key, event| {
                once.run(&mut Restore { transaction, serial, key, event }).map(|()| true)
            })?;
            once.answer()
        })
    }

    fn undone<T>(&self, work: impl FnOnce(&mut Restore<'_>) -> Result<T>) -> Result<T> {
        let login = self.token.login.read().clone().ok_or_else(|| Error::from(Kind::UserNotLoggedIn))?;
        undone(&*self.token.store, self.token.serial, &login.token_key, |restore| match restore.token()? {
            Some(row) if row.created == login.created => work(restore),
            _ => Err(gone()),
        })
    }
}

impl Library {
    /// Runs work in one transaction that puts a token back, and takes its audit record.
    ///
    /// # Errors
    /// The store's, and what `work` answers; nothing has changed then.
    pub fn restore<T>(
        &self,
        serial: Serial,
        key: &TokenKey,
        mut event: Event,
        work: impl FnOnce(&mut Restore<'_>) -> Result<T>,
    ) -> Result<T> {
        let (mut once, mut line) = (Once::new(work), None);
        self.store()?.write(&mut |transaction| {
            once.run(&mut Restore { transaction, serial, key, event: &mut event })?;
            line = self.trail().append(transaction, &serial, &event, Some(Signers::of(key)))?;
            Ok(())
        })?;
        self.trail().copy(line);
        // The token is there; should its slot not be listed now, the next list has it.
        let _ = self.slots(true);
        once.answer()
    }

    /// Runs work as [`Self::restore`] does, and undoes it.
    ///
    /// # Errors
    /// As [`Self::restore`].
    pub fn try_restore<T>(
        &self,
        serial: Serial,
        key: &TokenKey,
        work: impl FnOnce(&mut Restore<'_>) -> Result<T>,
    ) -> Result<T> {
        undone(&*self.store()?, serial, key, work)
    }
}

/// Runs work in a transaction that is never committed, and records nothing.
fn undone<T>(
    store: &dyn Store,
    serial: Serial,
    key: &TokenKey,
    work: impl FnOnce(&mut Restore<'_>) -> Result<T>,
) -> Result<T> {
    let (mut once, mut event) = (Once::new(work), Event::new("trial", 0, User::Nobody));
    let ended = store.write(&mut |transaction| {
        once.run(&mut Restore { transaction, serial, key, event: &mut event })?;
        Err(Error::new(Kind::FunctionCanceled, "this was a trial"))
    });
    match (once.answer, ended) {
        (Some(answer), _) => Ok(answer),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(Error::internal("a transaction did not run")),
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

/// Makes the row of a token from what a backup tells of it.
pub fn row_of(serial: Serial, row: TokenRow) -> TokenRow {
    TokenRow { serial, slot: slot_of(&serial), revision: 1, ..row }
}
