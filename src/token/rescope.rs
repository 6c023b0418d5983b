//! The managed keys of a token follow its KMS: when the master key is rotated, the token moves, or the scope of its KMS was changed.
//!
//! The rules are:
//! - the token's own envelopes go first; what is not done yet opens as before, under the version or the KMS that it names;
//! - the KMS is asked outside of every transaction, and a key is replaced only if it is still the same revision: one that was
//!   changed meanwhile is taken up again;
//! - a few keys share a transaction: one that is killed leaves each key as it was or as it is to be, and the next call goes on;
//! - a move has succeeded only when no key is left under another KMS. Where two of one type are configured, a name does not tell which
//!   of them it is of: there the new one is asked whether it opens what it seems to have.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backup::search;
use super::data_key::under_data_keys;
use super::object::Object;
use super::session::Session;
use super::token::Login;
use super::trail::name_of;
use crate::ck::*;
use crate::error::{Error, Kind, KmsFault, Result};
use crate::log;
use crate::seal::{ObjectKey, Sealer, WrappedBy, data_key_of};
use crate::secret::SecurePrivateKey;
use crate::store::{ObjectRow, Transaction, Uid};

/// How many keys share a transaction.
const BATCH: usize = 16;
/// How often keys are looked for that others have changed or made meanwhile.
const ROUNDS: usize = 16;
/// How often the log tells how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// Why keys follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The master key has a new version.
    Rotation,
    /// The token has another KMS.
    Move,
}

/// Where the keys of a token are to go.
pub(super) struct Rescope<'r> {
    pub(super) session: &'r Session,
    pub(super) operation: &'static str,
    pub(super) reason: Reason,
    pub(super) login: &'r Login,
    /// What opens them as they are.
    pub(super) from: Arc<Sealer>,
    /// What seals them from now on.
    pub(super) to: &'r Sealer,
    /// The master key that wraps the token's own outer key by now.
    pub(super) now_under: WrappedBy,
}

/// Whether a key is as it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Settled,
    Pending,
    /// Its names say that it is, and another KMS may have the same.
    Unsure,
}

/// A key as it is to be.
struct Ready {
    uid: Uid,
    /// The revision that it was made of.
    revision: u64,
    attributes: Attributes,
    secret: SecurePrivateKey,
}

impl Rescope<'_> {
    /// Takes all keys along, and tells how many were changed.
    ///
    /// # Errors
    /// What a KMS answers, with how many keys are left; `FunctionFailed` when others change keys all the time; the store's.
    pub(super) fn run(&self) -> Result<usize> {
        let (mut settled, mut progress) = (HashSet::new(), Progress::new(self));
        let mut pending = self.pending(&settled)?;
        for _ in 0..ROUNDS {
            progress.total = progress.done + pending.len();
            let mut missed = Vec::new();
            for uids in pending.chunks(BATCH) {
                self.take(uids, &mut missed, &mut progress).map_err(|error| progress.broken_off(error))?;
                progress.tell();
            }
            settled.extend(pending);
            missed.iter().for_each(|uid| {
                settled.remove(uid);
            });
            pending = match self.reason {
                Reason::Rotation => missed,
                // Others may have made keys under the old KMS meanwhile.
                Reason::Move => self.pending(&settled)?,
            };
            if pending.is_empty() {
                progress.finished();
                return Ok(progress.changed);
            }
        }
        progress.total = progress.done + pending.len();
        Err(progress
            .broken_off(Error::new(Kind::FunctionFailed, "other processes change the keys all the time; try again")))
    }

    /// Says where keys are that are done.
    fn target(&self) -> String {
        match self.to.gives_data_keys() {
            true => format!("under the {} KMS key {}", self.now_under.provider, self.now_under.master_key),
            false => "without a data key of their own".to_owned(),
        }
    }

    /// Lists the keys that are to change, or may be, but for those that this run has settled.
    fn pending(&self, settled: &HashSet<Uid>) -> Result<Vec<Uid>> {
        let (token, key, mut uids) = (&self.session.token, &*self.login.token_key, Vec::new());
        let mut look = |row: ObjectRow| {
            let object = self.open(row)?;
            if !settled.contains(&object.uid) && self.stand(&object)? != Stand::Settled {
                uids.push(object.uid);
            }
            Ok(())
        };
        token.store.search(&token.serial, &under_data_keys(&token.serial, key), &mut look)?;
        if self.to.gives_data_keys() {
            for class in [CKO_PRIVATE_KEY, CKO_SECRET_KEY] {
                let of_class = [(CKA_CLASS, Value::Ulong(class))].into_iter().collect();
                let plain = &mut |row| look(row);
                token.store.search(&token.serial, &search(&token.serial, key, &of_class), plain)?;
            }
        }
        uids.sort_unstable();
        uids.dedup();
        Ok(uids)
    }

    fn open(&self, row: ObjectRow) -> Result<Object> {
        let token = &self.session.token;
        Object::open(&token.serial, Some(&self.login.token_key), row, token.login_count())
    }

    fn stand(&self, object: &Object) -> Result<Stand> {
        let gets_one = || object.has_secret() && object.attributes().has(CKA_SR_OWNER);
        match (object.has_data_key(), self.to.gives_data_keys()) {
            (true, true) => Ok(self.stand_of(&data_key_of(&self.stored(object)?)?)),
            (true, false) => Ok(Stand::Pending),
            (false, true) if gets_one() => Ok(Stand::Pending),
            (false, _) => Ok(Stand::Settled),
        }
    }

    /// Tells whether a data key is where it is to be. Where versions have no numbers, nobody can tell what a rotation has left.
    fn stand_of(&self, by: &WrappedBy) -> Stand {
        let (now, alone) = (&self.now_under, self.to.is_alone_of_its_kind());
        let same_key = by.provider == now.provider && by.master_key.key == now.master_key.key;
        match (self.reason, alone) {
            (Reason::Rotation, true) if by == now && by.master_key.version != 0 => Stand::Settled,
            (Reason::Move, true) if same_key => Stand::Settled,
            (Reason::Move, false) if same_key => Stand::Unsure,
            _ => Stand::Pending,
        }
    }

    /// Asks the new KMS alone whether it opens a data key.
    fn is_there(&self, object: &Object, stored: &SecurePrivateKey) -> Result<bool> {
        let id = self.session.token.data_key_id(&object.uid);
        match self.to.alone().open_object_key(id, stored) {
            Ok(_) => Ok(true),
            Err(error) => match error.kms_fault() {
                Some(KmsFault::Tampered | KmsFault::NotFound | KmsFault::WrongContext) => Ok(false),
                _ => Err(error),
            },
        }
    }

    fn stored(&self, object: &Object) -> Result<SecurePrivateKey> {
        object.stored_secret(&self.session.token.serial, Some(&self.login.token_key))
    }

    /// Takes a few keys along, as far as it goes; adds those to `missed` that were changed meanwhile.
    fn take(&self, uids: &[Uid], missed: &mut Vec<Uid>, progress: &mut Progress<'_>) -> Result<()> {
        let (mut ready, mut failed) = (Vec::with_capacity(uids.len()), Ok(()));
        for uid in uids {
            match self.prepare(uid) {
                Ok(Some(prepared)) => ready.push(prepared),
                // It is gone, or was taken along before.
                Ok(None) => progress.done += 1,
                Err(error) => {
                    failed = Err(error);
                    break;
                }
            }
        }
        let changed = self.replace(ready, missed)?;
        progress.done += changed;
        progress.changed += changed;
        failed
    }

    /// Makes a key as it is to be; `None` when it is so, or gone.
    fn prepare(&self, uid: &Uid) -> Result<Option<Ready>> {
        let token = &self.session.token;
        let Some(row) = token.store.object(&token.serial, uid)? else { return Ok(None) };
        let object = self.open(row)?;
        let (mut attributes, stored) = (object.attributes().clone(), self.stored(&object)?);
        match self.stand(&object)? {
            Stand::Settled => return Ok(None),
            Stand::Unsure if self.is_there(&object, &stored)? => return Ok(None),
            Stand::Unsure | Stand::Pending => {}
        }
        let secret = match object.has_data_key() {
            true => {
                let key = self.data_key(&object, &stored)?;
                let secret = key.open(&stored)?;
                if self.to.gives_data_keys() { self.rewrapped(&key)?.seal(&secret)? } else { secret }
            }
            false => self.checked(self.to.make_object_key(token.data_key_id(uid))?)?.seal(&stored)?,
        };
        match self.to.gives_data_keys() {
            true => drop(attributes.set(CKA_SR_DATA_KEY, true)),
            false => drop(attributes.take(CKA_SR_DATA_KEY)),
        }
        Ok(Some(Ready { uid: *uid, revision: object.revision, attributes, secret }))
    }

    fn data_key(&self, object: &Object, stored: &SecurePrivateKey) -> Result<ObjectKey> {
        let id = self.session.token.data_key_id(&object.uid);
        match self.login.data_keys.known(id, stored)? {
            Some((key, _)) => Ok(key),
            None => self.from.open_object_key(id, stored),
        }
    }

    fn rewrapped(&self, key: &ObjectKey) -> Result<ObjectKey> {
        self.checked(self.to.rewrap_object_key(key)?)
    }

    /// A key must open again by another KMS before its old form is given up.
    fn checked(&self, key: ObjectKey) -> Result<ObjectKey> {
        if self.reason == Reason::Move {
            self.to.check_object_key(&key)?;
        }
        Ok(key)
    }

    /// Puts keys in the places of those that are the same still, in one transaction with its record. Tells how many they are.
    fn replace(&self, ready: Vec<Ready>, missed: &mut Vec<Uid>) -> Result<usize> {
        if ready.is_empty() {
            return Ok(0);
        }
        let (token, mut replaced) = (&self.session.token, Vec::new());
        let mut event = self.session.event(self.operation);
        event.detail = format!("keys {}", self.target());
        self.session.changing(event, |event| {
            token.write_telling(event, &mut |transaction, token_key, event| {
                for one in &ready {
                    match self.replace_one(transaction, token_key, one)? {
                        Some(object) => {
                            event.keys.push(name_of(&object));
                            replaced.push(object);
                        }
                        None => missed.push(one.uid),
                    }
                }
                Ok(!replaced.is_empty())
            })
        })?;
        let count = replaced.len();
        replaced.iter().for_each(|object| token.handles.forget(&object.uid));
        Ok(count)
    }

    /// Replaces a key; `None` when it is another revision by now.
    fn replace_one(
        &self,
        transaction: &mut dyn Transaction,
        token_key: &crate::seal::TokenKey,
        ready: &Ready,
    ) -> Result<Option<Object>> {
        let serial = &self.session.token.serial;
        let Some(row) = transaction.object(serial, &ready.uid)?.filter(|row| row.revision == ready.revision) else {
            return Ok(None);
        };
        let next = self.open(row)?.changed(ready.attributes.clone(), Some(ready.secret.clone()));
        let row = next.to_row(serial, token_key)?;
        transaction.update_object(serial, &row)?;
        Ok(Some(next.stored(row)))
    }
}

/// How far it is, for the log and for errors.
struct Progress<'p> {
    way: &'p Rescope<'p>,
    /// Keys that are as they are to be.
    done: usize,
    /// Those of them that this run has changed.
    changed: usize,
    /// All that were to change.
    total: usize,
    told: Instant,
}

impl<'p> Progress<'p> {
    fn new(way: &'p Rescope<'p>) -> Self {
        Self { way, done: 0, changed: 0, total: 0, told: Instant::now() }
    }

    /// Tells the log now and then.
    fn tell(&mut self) {
        if self.told.elapsed() >= PROGRESS {
            log::info!("{}: {} of {} keys are {}", self.way.operation, self.done, self.total, self.way.target());
            self.told = Instant::now();
        }
    }

    fn finished(&self) {
        if self.changed > 0 {
            log::info!("{}: {} keys were changed, and all are {}", self.way.operation, self.changed, self.way.target());
        }
    }

    /// Adds to an error how far it went.
    fn broken_off(&self, error: Error) -> Error {
        let (operation, left) = (self.way.operation, self.total.saturating_sub(self.done));
        let text = format!(
            "{} of {} keys are {}; {left} are left as they were and open as before, and the next {operation} takes them along",
            self.done,
            self.total,
            self.way.target()
        );
        log::warn!("{operation} is broken off: {text}: {error}");
        error.context(text)
    }
}
