//! What the managed keys of `keys/` need of a token: objects that belong together, made, found and changed in one transaction.
//!
//! The rules are:
//! - keys are generated before the transaction, which may take long for RSA, and inserted in it;
//! - all that a change decides by, it reads under the write lock: of several processes with the same intent, one finds the
//!   state in which it is right;
//! - handles and cached objects change only after the commit;
//! - the change and its record are one transaction; the record names what was made, changed and removed.

use std::sync::Arc;

use super::key::{Half, fix_class};
use super::object::Object;
use super::operation::{Call, cannot};
use super::session::Session;
use super::token::View;
use super::trail::name_of;
use crate::audit::Event;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::mechanism::{self, Params};
use crate::seal::TokenKey;
use crate::store::{Search, Transaction, Uid};

/// The objects of one key that was generated and is not stored yet.
pub struct Prepared(Vec<Half>);

impl Prepared {
    /// Sets an attribute of each half.
    pub fn set(&mut self, id: CK_ATTRIBUTE_TYPE, value: impl Into<Value>) {
        let value = value.into();
        self.0.iter_mut().for_each(|half| drop(half.0.set(id, value.clone())));
    }

    /// Sets an attribute of the half of one class, if there is such a half.
    pub fn set_of(&mut self, class: CK_OBJECT_CLASS, id: CK_ATTRIBUTE_TYPE, value: &Value) {
        let of_class = self.0.iter_mut().filter(|half| half.0.ulong(CKA_CLASS) == Some(class));
        of_class.for_each(|half| drop(half.0.set(id, value.clone())));
    }
}

/// An object that a change found.
pub struct Found(Object);

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
    changed: Vec<Object>,
    gone: Vec<Uid>,
}

/// A change of several objects, under the store's write lock.
pub struct Change<'c> {
    session: &'c Session,
    view: &'c View,
    transaction: &'c mut dyn Transaction,
    token_key: &'c TokenKey,
    event: &'c mut Event,
    effects: &'c mut Effects,
}

impl Change<'_> {
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
    /// The store's.
    pub fn insert(&mut self, prepared: Prepared) -> Result<()> {
        let token = &self.session.token;
        for (attributes, secret) in prepared.0 {
            let object = Object::new(attributes, secret, self.view.login_count())?;
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
        let serial = &self.session.token.serial;
        let changed = found.0.changed(attributes, found.0.secret_if_any(serial, Some(self.token_key))?);
        let row = changed.to_row(serial, self.token_key)?;
        self.transaction.update_object(serial, &row)?;
        self.event.keys.push(name_of(&found.0));
        self.effects.changed.push(changed.stored(row));
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
        if self.token.profile().remote.is_some() {
            let text = "a token whose keys live in a KMS has no managed keys: the KMS rotates its own";
            return Err(Error::new(Kind::FunctionNotSupported, text));
        }
        if let Some(generate) = row.generate_pair {
            let (public, private) =
                (self.checked(first, CKO_PUBLIC_KEY, &call)?, self.checked(private, CKO_PRIVATE_KEY, &call)?);
            return Ok(Prepared(self.make_pair(generate, &call, public, private)?.into()));
        }
        let generate = row.generate.ok_or_else(|| cannot(row, "generate a key"))?;
        let template = self.checked(first, CKO_SECRET_KEY, &call)?;
        Ok(Prepared(vec![self.make_secret(generate, &call, template)?]))
    }

    /// Checks a template for a key of the token.
    fn checked(&self, mut template: Attributes, class: CK_OBJECT_CLASS, call: &Call) -> Result<Attributes> {
        template.set(CKA_TOKEN, true);
        fix_class(&mut template, class, call)?;
        self.check_template(&template)?;
        Ok(template)
    }

    /// Runs a change of several objects in one transaction that also takes its record, and gives the handles of what it made. The
    /// record names every object that is made, changed or removed; a failure leaves a record of its own.
    ///
    /// # Errors
    /// `UserNotLoggedIn`, `SessionReadOnly`, the store's, and what `work` answers; nothing has changed then.
    pub fn change<T>(
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
        self.check_read_write()?;
        self.check_may_be_private(true)?;
        let (view, mut effects, mut work, mut answer) = (self.token.view(), Effects::default(), Some(work), None);
        self.token.write_telling(event, &mut |transaction, token_key, event| {
            let work = work.take().ok_or_else(|| Error::internal("a transaction ran twice"))?;
            let effects = &mut effects;
            answer = Some(work(&mut Change { session: self, view: &view, transaction, token_key, event, effects })?);
            Ok(())
        })?;
        let answer = answer.ok_or_else(|| Error::internal("a transaction did not run"))?;
        Ok((answer, self.settle(effects)?))
    }

    /// Brings handles and cached objects in step with what was committed.
    fn settle(&self, effects: Effects) -> Result<Vec<CK_OBJECT_HANDLE>> {
        let handles = &self.token.handles;
        for object in effects.changed {
            if let Some(handle) = handles.known(&object.uid) {
                handles.keep(handle, Arc::new(object));
            }
        }
        effects.gone.iter().filter_map(|uid| handles.known(uid)).for_each(|handle| handles.remove(handle));
        effects.made.into_iter().map(|object| handles.of_token_object(&Arc::new(object))).collect()
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
                handles.push(token.handles.of_token_object(&Arc::new(object))?);
            }
            Ok(())
        })?;
        Ok(handles)
    }

    /// Hands the attributes of each token object that matches, of every version, to `visit`; no handle is made.
    ///
    /// # Errors
    /// As [`Self::find_every`], and what `visit` answers.
    pub fn visit(&self, template: &Attributes, visit: &mut dyn FnMut(&Attributes) -> Result<()>) -> Result<()> {
        self.check_may_be_private(true)?;
        self.token.visit(template, &self.token.view(), &mut |object| visit(object.attributes()))
    }

    /// Reads all attributes of an object, none of them secret.
    ///
    /// # Errors
    /// `ObjectHandleInvalid`; `DeviceError` when it is damaged.
    pub fn all_attributes(&self, handle: CK_OBJECT_HANDLE) -> Result<Attributes> {
        Ok(self.token.object(handle)?.attributes().clone())
    }
}
