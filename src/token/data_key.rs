//! Managed keys with a data key of their own, where the KMS of the token has `scope = "key"`: how they are made, and what is opened
//! of them. How they follow the KMS is `rescope.rs`.
//!
//! The rules are:
//! - a data key is made before the transaction that stores its key, and a managed key is not stored without one that it should have;
//! - a data key is made by a KMS that opens the token too: one that was moved elsewhere, or whose key file was lost and made anew, would
//!   leave keys behind that open nowhere one day;
//! - a recovery envelope cannot open what only the KMS opens, so that a token has the one or the other; both are looked for under
//!   the write lock.

use super::backup::search;
use super::key::Half;
use super::object::Object;
use super::session::Session;
use super::token::Token;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::mechanism::random;
use crate::seal::{self, ObjectKey, TokenKey, WrappedBy, data_key_of};
use crate::secret::SecurePrivateKey;
use crate::store::{IndexEntry, Search, Serial, Transaction, Uid};

/// Makes the data key of a managed key, if the KMS of the token has the scope of keys: one KMS call.
pub(super) fn make(session: &Session, halves: &[Half]) -> Result<Option<ObjectKey>> {
    if !session.token.profile().sealer.gives_data_keys() || halves.iter().all(|half| half.1.is_none()) {
        return Ok(None);
    }
    session.token.check_no_recovery()?;
    let mut uid = Uid::default();
    random::fill(&mut uid)?;
    session.make_data_key(&uid).map(Some)
}

/// Checks under the write lock that a key may be stored with the data key that it has, or without one.
pub(super) fn check(
    session: &Session,
    transaction: &mut dyn Transaction,
    token_key: &TokenKey,
    data_key: Option<&ObjectKey>,
    halves: &[Half],
) -> Result<()> {
    let is_managed = |half: &Half| half.1.is_some() && half.0.has(CKA_SR_OWNER);
    match data_key {
        Some(_) => check_no_recovery(transaction, &session.token.serial, token_key),
        None if halves.iter().any(is_managed) && session.token.profile().sealer.gives_data_keys() => {
            let text = "the key was removed by another process while it was compared with this one; try again";
            Err(Error::new(Kind::FunctionFailed, text))
        }
        None => Ok(()),
    }
}

/// Refuses, under the write lock, a token with recovery envelopes.
pub(super) fn check_no_recovery(transaction: &mut dyn Transaction, serial: &Serial, key: &TokenKey) -> Result<()> {
    match transaction.search(serial, &recovery(serial, key))?.is_empty() {
        true => Ok(()),
        false => Err(has_recovery()),
    }
}

/// Refuses, under the write lock, a token with keys that have data keys of their own.
pub(super) fn check_no_data_keys(transaction: &mut dyn Transaction, serial: &Serial, key: &TokenKey) -> Result<()> {
    let mut found = false;
    transaction.visit(serial, &under_data_keys(serial, key), &mut |_| {
        found = true;
        Ok(())
    })?;
    if !found {
        return Ok(());
    }
    let text = "the token has keys whose data keys the KMS alone opens (scope = \"key\"), so that a recovery envelope would not recover \
                them: set scope = \"token\" in the section of the token's KMS and rotate its master key (SR_RotateMasterKey), which takes \
                the data keys off, or keep a second way to that KMS key";
    Err(Error::new(Kind::ActionProhibited, text))
}

/// Makes an object of a half; one with a secret is that of the data key, if there is one, and its secret is sealed under it.
pub(super) fn new_object(half: Half, data_key: Option<&ObjectKey>, login: u64) -> Result<Object> {
    match (half, data_key) {
        ((mut attributes, Some(secret)), Some(key)) => {
            attributes.set(CKA_SR_DATA_KEY, true);
            Ok(Object::with_uid(key.id().uid, attributes, Some(key.seal(&secret)?), login))
        }
        ((attributes, secret), _) => Object::new(attributes, secret, login),
    }
}

/// Makes the error of a key that was to be opened before the transaction, and came to be only since.
pub(super) fn not_open(object: &Object) -> Error {
    let name = super::version::name_of(object.attributes());
    Error::new(Kind::FunctionFailed, format!("{name} was changed by another process at the same time; try again"))
}

fn has_recovery() -> Error {
    let text = "the token has recovery envelopes, which cannot open a key whose data key the KMS alone opens (scope = \"key\"): remove \
                them, or set scope = \"token\" in the section of the token's KMS";
    Error::new(Kind::ActionProhibited, text)
}

/// Makes the search for recovery envelopes.
fn recovery(serial: &Serial, token_key: &TokenKey) -> Search {
    search(serial, token_key, &[(CKA_CLASS, Value::Ulong(CKO_SR_RECOVERY))].into_iter().collect())
}

/// Makes the search for keys with a data key of their own.
pub(super) fn under_data_keys(serial: &Serial, token_key: &TokenKey) -> Search {
    let field = seal::DATA_KEY_FIELD;
    let public = IndexEntry { field, digest: seal::public_index_digest(serial, field, &[]) };
    Search::Any(vec![public, IndexEntry { field, digest: token_key.index_digest(field, &[]) }])
}

impl Token {
    /// Refuses a token with recovery envelopes.
    ///
    /// # Errors
    /// `ActionProhibited` for such a token; `UserNotLoggedIn`; the store's.
    pub(super) fn check_no_recovery(&self) -> Result<()> {
        let mut found = false;
        self.store.search(&self.serial, &recovery(&self.serial, &*self.token_key()?), &mut |_| {
            found = true;
            Ok(())
        })?;
        if found { Err(has_recovery()) } else { Ok(()) }
    }

    /// Opens what the seal of an object holds, as the store has it.
    pub(super) fn stored_secret(&self, object: &Object) -> Result<SecurePrivateKey> {
        object.stored_secret(&self.serial, Some(&*self.token_key()?))
    }
}

impl Session {
    /// Makes the data key of an object: one KMS call, and another one where the master key is not the one that the token is under.
    ///
    /// # Errors
    /// What the KMS answers, also when it does not open the token itself; `UserNotLoggedIn`; the store's.
    pub fn make_data_key(&self, uid: &Uid) -> Result<ObjectKey> {
        let (token, (login, sealer)) = (&self.token, self.token.login_and_sealer()?);
        let key = sealer.make_object_key(token.data_key_id(uid))?;
        // As it is wrapped now: another process may have moved the token.
        let outer = login.outer.as_in(&token.row()?.so_envelope)?;
        let (by, master_key) = (key.wrapped_by(), outer.master_key());
        if by.provider == outer.provider() && by.master_key.key == master_key.key {
            return Ok(key);
        }
        let opens = sealer.check_opens(&token.serial, &outer, sealer.provider().as_ref());
        opens.map(|()| key).map_err(|error| {
            error.context(format!(
                "no key was made, since the KMS that the configuration names for the token wraps under {}, and does not open the token, \
                 which is under the {} KMS key {master_key}: put the old key back, or name the KMS that the token was moved to",
                by.master_key,
                outer.provider(),
            ))
        })
    }

    /// Opens the data keys of all objects that match and have one of their own, so that a change can see what lies under them: one KMS
    /// call for each that this login has not opened yet.
    ///
    /// # Errors
    /// `UserNotLoggedIn`; what the KMS answers; `DeviceError` when the store fails or an object is damaged.
    pub fn open_data_keys(&self, template: &Attributes) -> Result<()> {
        let (token, mut sealed) = (&self.token, Vec::new());
        token.visit(template, &token.view(), &mut |object| {
            if object.has_data_key() {
                sealed.push((object.uid, token.stored_secret(&object)?, object));
            }
            Ok(())
        })?;
        // The store is not kept waiting for the KMS.
        for (uid, stored, object) in sealed {
            token.without_data_key(&uid, object.attributes(), stored)?;
        }
        Ok(())
    }

    /// Tells what wraps the data key of an object, if it has one of its own. No KMS is asked.
    ///
    /// # Errors
    /// `ObjectHandleInvalid`, `UserNotLoggedIn`; `DeviceError` when it is damaged.
    pub fn data_key_of(&self, handle: CK_OBJECT_HANDLE) -> Result<Option<WrappedBy>> {
        let object = self.token.object(handle)?;
        match object.has_data_key() {
            true => data_key_of(&self.token.stored_secret(&object)?).map(Some),
            false => Ok(None),
        }
    }
}
