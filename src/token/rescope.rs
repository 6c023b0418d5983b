//! The managed keys of a token follow its KMS: when the master key is rotated, the token moves, or the scope of its KMS was changed.
//!
//! The rules are:
//! - the token's own envelopes go first; what is not done yet opens as before, under the version or the KMS that it names;
//! - the KMS is asked outside of every transaction, and a key is replaced only if it is still the same revision: one that was
//!   changed meanwhile is taken up again;
//! - a few keys share a transaction: one that is killed leaves each key as it was or as it is to be, and the next call goes on;
//! - a move has succeeded only when no key is left under another KMS.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backup::search;
use super::data_key::under_data_keys;
use super::object::Object;
use super::session::Session;
use super::token::Login;
use super::trail::name_of;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
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
        let (mut pending, mut done, mut told) = (self.pending()?, 0, Instant::now());
        for _ in 0..ROUNDS {
            let (total, mut missed) = (done + pending.len(), Vec::new());
            for uids in pending.chunks(BATCH) {
                done += self.take(uids, &mut missed).map_err(|(some, error)| self.broken_off(done + some, total, error))?;
                if told.elapsed() >= PROGRESS {
                    log::info!("{}: {done} of {total} keys are {}", self.operation, self.target());
                    told = Instant::now();
                }
            }
            pending = match self.reason {
                Reason::Rotation => missed,
                // Others may have made keys under the old KMS meanwhile.
                Reason::Move => self.pending()?,
            };
            if pending.is_empty() {
                if done > 0 {
                    log::info!("{}: all {done} keys are {}", self.operation, self.target());
                }
                return Ok(done);
            }
        }
        let error = Error::new(Kind::FunctionFailed, "other processes change the keys all the time; try again");
        Err(self.broken_off(done, done + pending.len(), error))
    }

    /// Says where keys are that are done.
    fn target(&self) -> String {
        match self.to.gives_data_keys() {
            true => format!("under the {} KMS key {}", self.now_under.provider, self.now_under.master_key),
            false => "without a data key of their own".to_owned(),
        }
    }

    /// Adds to an error how far it went.
    fn broken_off(&self, done: usize, total: usize, error: Error) -> Error {
        let (operation, left) = (self.operation, total - done.min(total));
        let text = format!(
            "{done} of {total} keys are {}; {left} are left as they were and open as before, and the next {operation} takes them along",
            self.target()
        );
        log::warn!("{operation} is broken off: {text}: {error}");
        error.context(text)
    }

    /// Lists the keys that are to change.
    fn pending(&self) -> Result<Vec<Uid>> {
        let (token, key, mut uids) = (&self.session.token, &*self.login.token_key, Vec::new());
        let mut look = |row: ObjectRow| {
            let object = self.open(row)?;
            if self.is_pending(&object)? {
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

    fn is_pending(&self, object: &Object) -> Result<bool> {
        match (object.has_data_key(), self.to.gives_data_keys()) {
            (true, true) => Ok(!self.is_current(&data_key_of(&self.stored(object)?)?)),
            (true, false) => Ok(true),
            (false, true) => Ok(object.has_secret() && object.attributes().has(CKA_SR_OWNER)),
            (false, false) => Ok(false),
        }
    }

    /// Tells whether a data key is where it is to be. Where versions have no numbers, nobody can tell what a rotation has left.
    fn is_current(&self, by: &WrappedBy) -> bool {
        let now = &self.now_under;
        match self.reason {
            Reason::Rotation => by == now && by.master_key.version != 0,
            Reason::Move => by.provider == now.provider && by.master_key.key == now.master_key.key,
        }
    }

    fn stored(&self, object: &Object) -> Result<SecurePrivateKey> {
        object.stored_secret(&self.session.token.serial, Some(&self.login.token_key))
    }

    /// Takes a few keys along; adds those to `missed` that were changed meanwhile. Tells how many were, also when one fails.
    fn take(&self, uids: &[Uid], missed: &mut Vec<Uid>) -> std::result::Result<usize, (usize, Error)> {
        let (mut ready, mut failed) = (Vec::with_capacity(uids.len()), None);
        for uid in uids {
            match self.prepare(uid) {
                Ok(prepared) => ready.extend(prepared),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let (some, before) = (uids.len(), missed.len());
        let count = ready.len();
        self.replace(ready, missed).map_err(|error| (0, error))?;
        let replaced = count - (missed.len() - before);
        match failed {
            Some(error) => Err((replaced, error)),
            // What is gone, or was done by another process, is done too.
            None => Ok(some - (missed.len() - before)),
        }
    }

    /// Makes a key as it is to be; `None` when it is so, or gone.
    fn prepare(&self, uid: &Uid) -> Result<Option<Ready>> {
        let token = &self.session.token;
        let Some(row) = token.store.object(&token.serial, uid)? else { return Ok(None) };
        let object = self.open(row)?;
        if !self.is_pending(&object)? {
            return Ok(None);
        }
        let (mut attributes, stored) = (object.attributes().clone(), self.stored(&object)?);
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

    /// Puts keys in the places of those that are the same still, in one transaction with its record.
    fn replace(&self, ready: Vec<Ready>, missed: &mut Vec<Uid>) -> Result<()> {
        if ready.is_empty() {
            return Ok(());
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
        for object in replaced {
            if let Some(handle) = token.handles.known(&object.uid) {
                token.handles.keep(handle, Arc::new(object));
            }
        }
        Ok(())
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
