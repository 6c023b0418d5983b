//! What the managed keys of `keys/` need of a token: objects that belong together, made, found and changed in one transaction.
//!
//! The rules are:
//! - keys are generated before the transaction, which may take long for RSA, and inserted in it;
//! - all that a change decides by, it reads under the write lock: of several processes with the same intent, one finds the
//!   state in which it is right;
//! - a data key of a key's own is made before the transaction, since that asks the KMS; what lies under one is opened in a transaction
//!   only if the login has opened it before;
//! - handles and cached objects change only after the commit;
//! - the change and its record are one transaction; the record names what was made, changed and removed, and there is none where
//!   the change found nothing to do.

use std::sync::Arc;

use super::data_key;
use super::key::{Half, fix_class};
use super::object::Object;
use super::operation::{Call, cannot};
use super::password;
use super::session::Session;
use super::token::View;
use super::trail::name_of;
use crate::audit::{Event, Line, Signers};
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::mechanism::{self, Params};
use crate::seal::{ObjectKey, PasswordKey, TokenKey};
use crate::secret::SecurePrivateKey;
use crate::store::{Search, Transaction, Uid};

/// The objects of one key that was generated and is not stored yet.
pub struct Prepared {
    pub(super) halves: Vec<Half>,
    /// What the secret is sealed under before it is stored, where the KMS of the token has the scope of keys.
    data_key: Option<ObjectKey>,
}

impl Prepared {
    /// Takes the halves of a key, or an object alone.
    pub(super) fn new(halves: Vec<Half>) -> Self {
        Self { halves, data_key: None }
    }

    /// Sets an attribute of each half.
    pub fn set(&mut self, id: CK_ATTRIBUTE_TYPE, value: impl Into<Value>) {
        let value = value.into();
        self.halves.iter_mut().for_each(|half| drop(half.0.set(id, value.clone())));
    }

    /// Sets an attribute of the half of one class, if there is such a half.
    pub fn set_of(&mut self, class: CK_OBJECT_CLASS, id: CK_ATTRIBUTE_TYPE, value: &Value) {
        let of_class = self.halves.iter_mut().filter(|half| half.0.ulong(CKA_CLASS) == Some(class));
        of_class.for_each(|half| drop(half.0.set(id, value.clone())));
    }

    /// Puts the secret under its owner's password. Owner, asset and version are set before.
    ///
    /// # Errors
    /// As [`PasswordKey::seal`].
    pub fn seal_under(&mut self, key: &PasswordKey) -> Result<()> {
        for (attributes, secret) in self.halves.iter_mut().filter(|half| half.1.is_some()) {
            attributes.set(CKA_ALWAYS_AUTHENTICATE, true);
            attributes.set(CKA_SR_PASSWORD, true);
            let name = password::version_name(attributes);
            *secret = secret.as_ref().map(|secret| key.seal(&name, secret)).transpose()?;
        }
        Ok(())
    }
}

/// An object that a change found.
pub struct Found(pub(super) Object);

impl Found {
    /// Gives its attributes.
    pub fn attributes(&self) -> &Attributes {
        self.0.attributes()
    }
}

/// What a change leaves behind once it is committed.
#[derive(Default)]
struct Effects {
    made: Vec<Object>,
    changed: Vec<Uid>,
    gone: Vec<Uid>,
    /// Records of parts of the change, for the other sinks.
    lines: Vec<Line>,
}

impl Effects {
    fn is_empty(&self) -> bool {
        self.made.is_empty() && self.changed.is_empty() && self.gone.is_empty()
    }
}

/// A change of several objects, under the store's write lock.
pub struct Change<'c> {
    pub(super) session: &'c Session,
    view: &'c View,
    transaction: &'c mut dyn Transaction,
    pub(super) token_key: &'c TokenKey,
    event: &'c mut Event,
    effects: &'c mut Effects,
}

impl Change<'_> {
    /// Tells the record more of the change; no secret.
    pub fn tell(&mut self, detail: String) {
        self.event.detail = detail;
    }

    /// Adds a record of its own for what was made, changed and removed since the last one; what is left has that of the whole change.
    ///
    /// # Errors
    /// In the mode `required`, what the store answers.
    pub fn record(&mut self, mut event: Event) -> Result<()> {
        if self.event.keys.is_empty() {
            return Ok(());
        }
        event.keys = std::mem::take(&mut self.event.keys);
        let token = &self.session.token;
        let line = token.trail.append(self.transaction, &token.serial, &event, Some(Signers::of(self.token_key)))?;
        self.effects.lines.extend(line);
        Ok(())
    }

    /// Finds all objects that match, of every version.
    ///
    /// # Errors
    /// `DeviceError` when the store fails or an object is damaged.
    pub fn find(&mut self, template: &Attributes) -> Result<Vec<Found>> {
        self.find_by(template, &self.session.token.search(template, self.view))
    }

    /// Finds the objects of the latest version of the managed key whose owner and asset the template has.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn find_latest(&mut self, template: &Attributes) -> Result<Vec<Found>> {
        self.find_by(template, &self.session.token.search_latest(template, self.view))
    }

    fn find_by(&mut self, template: &Attributes, search: &Search) -> Result<Vec<Found>> {
        let token = &self.session.token;
        let rows = self.transaction.search(&token.serial, search)?;
        let found = rows.into_iter().map(|row| token.matching(template, self.view, row));
        found.filter_map(|found| found.transpose().map(|found| found.map(Found))).collect()
    }

    /// Stores a key that was generated.
    ///
    /// # Errors
    /// `FunctionFailed` for a managed key that lacks a data key of its own; `ActionProhibited` for one that has it in a token with
    /// recovery envelopes, which cannot open it; the store's.
    pub fn insert(&mut self, prepared: Prepared) -> Result<()> {
        let Prepared { halves, data_key } = prepared;
        data_key::check(self.session, self.transaction, self.token_key, data_key.as_ref(), &halves)?;
        let token = &self.session.token;
        for half in halves {
            let object = data_key::new_object(half, data_key.as_ref(), self.view.login_count())?;
            let row = object.to_row(&token.serial, self.token_key)?;
            self.transaction.insert_object(&token.serial, &row)?;
            self.event.keys.push(name_of(&object));
            self.effects.made.push(object.stored(row));
        }
        Ok(())
    }

    /// Replaces the attributes of an object that was found in this change.
    ///
    /// # Errors
    /// The store's.
    pub fn update(&mut self, found: &Found, attributes: Attributes) -> Result<()> {
        let secret = found.0.stored_secret_if_any(&self.session.token.serial, Some(self.token_key))?;
        self.update_with(found, attributes, secret)
    }

    /// Tells whether the secret of an object that was found in this change is sealed under a key: under the same password still.
    ///
    /// # Errors
    /// `DeviceError` when it is damaged.
    pub fn is_under(&self, found: &Found, key: &PasswordKey) -> Result<bool> {
        self.sealed_secret(found)?.map_or(Ok(false), |sealed| key.fits(&sealed))
    }

    /// Opens what the seals of an object that was found in this change hold, down to its owner's password; `None` for one under a data
    /// key of its own that this login has not opened: no KMS is asked under the write lock.
    ///
    /// # Errors
    /// `KeyFunctionNotPermitted` for an object without a secret; `DeviceError` when it is damaged.
    pub(super) fn sealed_secret(&self, found: &Found) -> Result<Option<SecurePrivateKey>> {
        let (token, object) = (&self.session.token, &found.0);
        let stored = object.stored_secret(&token.serial, Some(self.token_key))?;
        match object.has_data_key() {
            false => Ok(Some(stored)),
            true => Ok(token.data_keys()?.known(token.data_key_id(&object.uid), &stored)?.map(|known| known.1)),
        }
    }

    /// Replaces what [`Self::sealed_secret`] gives.
    ///
    /// # Errors
    /// `FunctionFailed` when that was `None`; the store's.
    pub(super) fn update_secret(&mut self, found: &Found, secret: SecurePrivateKey) -> Result<()> {
        let (token, object) = (&self.session.token, &found.0);
        let secret = match object.has_data_key() {
            false => secret,
            true => {
                let stored = object.stored_secret(&token.serial, Some(self.token_key))?;
                let known = token.data_keys()?.known(token.data_key_id(&object.uid), &stored)?;
                known.ok_or_else(|| data_key::not_open(object))?.0.seal(&secret)?
            }
        };
        self.update_with(found, found.attributes().clone(), Some(secret))
    }

    fn update_with(&mut self, found: &Found, attributes: Attributes, secret: Option<SecurePrivateKey>) -> Result<()> {
        let (serial, changed) = (&self.session.token.serial, found.0.changed(attributes, secret));
        let row = changed.to_row(serial, self.token_key)?;
        self.transaction.update_object(serial, &row)?;
        self.event.keys.push(name_of(&found.0));
        self.effects.changed.push(changed.uid);
        Ok(())
    }

    /// Removes an object that was found in this change.
    ///
    /// # Errors
    /// The store's.
    pub fn remove(&mut self, found: &Found) -> Result<()> {
        self.transaction.delete_object(&self.session.token.serial, &found.0.uid)?;
        self.event.keys.push(name_of(&found.0));
        self.effects.gone.push(found.0.uid);
        Ok(())
    }
}

impl Session {
    /// Tells the seconds since 1970, by the library's clock.
    pub fn now(&self) -> u64 {
        self.library.now()
    }

    /// Generates a key or a key pair as token objects that are not stored yet. The first template is that of a secret key, or of
    /// the public half.
    ///
    /// # Errors
    /// `UserNotLoggedIn`, `SessionReadOnly`; `FunctionNotSupported` for a token of keys that live in a KMS; the mechanism's.
    pub fn prepare(&self, mechanism: CK_MECHANISM_TYPE, first: Attributes, private: Attributes) -> Result<Prepared> {
        let row = mechanism::find(mechanism).ok_or_else(|| Error::from(Kind::MechanismInvalid))?;
        let call = Call { mechanism: row, params: Params::None };
        self.check_keeps_keys()?;
        if let Some(generate) = row.generate_pair {
            let (public, private) =
                (self.checked(first, CKO_PUBLIC_KEY, &call)?, self.checked(private, CKO_PRIVATE_KEY, &call)?);
            return Ok(Prepared::new(self.make_pair(generate, &call, public, private)?.into()));
        }
        let generate = row.generate.ok_or_else(|| cannot(row, "generate a key"))?;
        let template = self.checked(first, CKO_SECRET_KEY, &call)?;
        Ok(Prepared::new(vec![self.make_secret(generate, &call, template)?]))
    }

    /// Gives a managed key that was prepared a data key of its own, if the KMS of the token has the scope of keys: one KMS call.
    ///
    /// # Errors
    /// `ActionProhibited` for a token with recovery envelopes; what the KMS answers.
    pub fn give_data_key(&self, prepared: &mut Prepared) -> Result<()> {
        prepared.data_key = data_key::make(self, &prepared.halves)?;
        Ok(())
    }

    /// Refuses a token whose keys live in a KMS.
    pub(super) fn check_keeps_keys(&self) -> Result<()> {
        match self.token.profile().remote {
            None => Ok(()),
            Some(_) => {
                let text = "a token whose keys live in a KMS has no managed keys: the KMS rotates its own";
                Err(Error::new(Kind::FunctionNotSupported, text))
            }
        }
    }

    /// Checks a template for a key of the token.
    fn checked(&self, mut template: Attributes, class: CK_OBJECT_CLASS, call: &Call) -> Result<Attributes> {
        template.set(CKA_TOKEN, true);
        fix_class(&mut template, class, call)?;
        self.check_template(&template)?;
        Ok(template)
    }

    /// Runs a change of several objects in one transaction that also takes its record, and gives the handles of what it made. The
    /// record names every object that is made, changed or removed; a failure leaves a record of its own, and a change that finds
    /// nothing to do leaves none.
    ///
    /// # Errors
    /// `UserNotLoggedIn`, `SessionReadOnly`, the store's, and what `work` answers; nothing has changed then.
    pub fn change<T>(
        &self,
        event: Event,
        work: impl FnOnce(&mut Change<'_>) -> Result<T>,
    ) -> Result<(T, Vec<CK_OBJECT_HANDLE>)> {
        self.change_after(event, |_| Ok(()), |change, ()| work(change))
    }

    /// Does the same for objects that nobody asks the handles of: who finds them gets them then.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub fn change_without_handles<T>(
        &self,
        event: Event,
        work: impl FnOnce(&mut Change<'_>) -> Result<T>,
    ) -> Result<T> {
        self.changing(event, |event| {
            self.check_read_write()?;
            Ok(self.commit(event, work)?.0)
        })
    }

    /// Runs a change as [`Self::change`] does, after some work outside of the transaction whose failure is recorded as that of the
    /// change, if it has not recorded that itself.
    ///
    /// # Errors
    /// As [`Self::change`], and what `before` answers.
    pub fn change_after<B, T>(
        &self,
        event: Event,
        before: impl FnOnce(&mut Event) -> Result<B>,
        work: impl FnOnce(&mut Change<'_>, B) -> Result<T>,
    ) -> Result<(T, Vec<CK_OBJECT_HANDLE>)> {
        self.changing(event, |event| {
            self.check_read_write()?;
            let made = before(event)?;
            self.changed(event, |change| work(change, made))
        })
    }

    /// Runs a change as [`Self::change`] does, in a read-only session too: it is none that the caller asked for.
    pub(super) fn change_anywhere<T>(
        &self,
        event: Event,
        work: impl FnOnce(&mut Change<'_>) -> Result<T>,
    ) -> Result<(T, Vec<CK_OBJECT_HANDLE>)> {
        self.changing(event, |event| self.changed(event, work))
    }

    fn changed<T>(
        &self,
        event: &mut Event,
        work: impl FnOnce(&mut Change<'_>) -> Result<T>,
    ) -> Result<(T, Vec<CK_OBJECT_HANDLE>)> {
        let seen = self.token.handles.changes();
        let (answer, made) = self.commit(event, work)?;
        let handle = |object| self.token.handles.of_token_object(&Arc::new(object), seen);
        Ok((answer, made.into_iter().map(handle).collect::<Result<_>>()?))
    }

    /// Runs a change and brings cached objects in step with it; gives the objects that it made.
    fn commit<T>(
        &self,
        event: &mut Event,
        work: impl FnOnce(&mut Change<'_>) -> Result<T>,
    ) -> Result<(T, Vec<Object>)> {
        self.check_may_be_private(true)?;
        let (view, mut effects, mut work, mut answer) = (self.token.view(), Effects::default(), Some(work), None);
        self.token.write_telling(event, &mut |transaction, token_key, event| {
            let work = work.take().ok_or_else(|| Error::internal("a transaction ran twice"))?;
            let mut change =
                Change { session: self, view: &view, transaction, token_key, event, effects: &mut effects };
            answer = Some(work(&mut change)?);
            let recorded = change.event.keys.is_empty() && !change.effects.lines.is_empty();
            Ok(!change.effects.is_empty() && !recorded)
        })?;
        effects.lines.drain(..).for_each(|line| self.token.trail.copy(Some(line)));
        let answer = answer.ok_or_else(|| Error::internal("a transaction did not run"))?;
        effects.changed.iter().for_each(|uid| self.token.handles.forget(uid));
        effects.gone.iter().for_each(|uid| self.token.handles.remove_gone(uid));
        Ok((answer, effects.made))
    }

    /// Finds the handles of all objects that match, of every version.
    ///
    /// # Errors
    /// `DeviceError` when the store fails or a candidate is damaged.
    pub fn find_every(&self, template: &Attributes) -> Result<Vec<CK_OBJECT_HANDLE>> {
        self.catch_up();
        Ok(self.token.find_every(template)?.next(usize::MAX))
    }

    /// Finds the handles of the latest version of the managed key whose owner and asset the template has.
    ///
    /// # Errors
    /// As [`Self::find_every`].
    pub fn find_latest(&self, template: &Attributes) -> Result<Vec<CK_OBJECT_HANDLE>> {
        self.catch_up();
        let (token, view, mut handles) = (&self.token, self.token.view(), Vec::new());
        token.store.search(&token.serial, &token.search_latest(template, &view), &mut |row| {
            if let Some(object) = token.matching(template, &view, row)? {
                handles.push(token.handles.of_token_object(&Arc::new(object), view.changes())?);
            }
            Ok(())
        })?;
        Ok(handles)
    }

    /// Hands the attributes of the objects of the latest version of a managed key to `visit`, as [`Self::find_latest`] finds them; no
    /// handle is made.
    ///
    /// # Errors
    /// As [`Self::find_every`], and what `visit` answers.
    pub fn visit_latest(&self, template: &Attributes, visit: &mut dyn FnMut(&Attributes) -> Result<()>) -> Result<()> {
        let (token, view) = (&self.token, self.token.view());
        token.store.search(&token.serial, &token.search_latest(template, &view), &mut |row| {
            token.matching(template, &view, row)?.map_or(Ok(()), |object| visit(object.attributes()))
        })
    }

    /// Hands the attributes of each token object that matches, of every version, to `visit`, and the error of each object that does not
    /// open to `damaged`: it keeps nobody from the others. No handle is made.
    ///
    /// # Errors
    /// `DeviceError` when the store fails; what `visit` answers.
    pub fn visit_sound(
        &self,
        template: &Attributes,
        visit: &mut dyn FnMut(&Attributes) -> Result<()>,
        damaged: &mut dyn FnMut(Error),
    ) -> Result<()> {
        let (token, view) = (&self.token, self.token.view());
        token.store.search(&token.serial, &token.search(template, &view), &mut |row| match token
            .matching(template, &view, row)
        {
            Ok(object) => object.map_or(Ok(()), |object| visit(object.attributes())),
            Err(error) => {
                damaged(error);
                Ok(())
            }
        })
    }

    /// Reads all attributes of an object, none of them secret.
    ///
    /// # Errors
    /// `ObjectHandleInvalid`; `DeviceError` when it is damaged.
    pub fn all_attributes(&self, handle: CK_OBJECT_HANDLE) -> Result<Attributes> {
        Ok(self.token.object(handle)?.attributes().clone())
    }
}
