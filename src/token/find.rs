//! Finding objects (PKCS #11 v3.2, 5.7.7–5.7.9).
//!
//! The rules are:
//! - what a find gives is settled at C_FindObjectsInit; whatever happens between Init and Final does not change it;
//! - a template with an id, label, subject or class goes straight to its objects through the index; the rest of the template
//!   is compared with the opened attributes, so that the index decides speed and never the answer;
//! - listing opens attributes and never a secret;
//! - of a managed key the active version is found, unless the template asks for versions (`version.rs`); a recovery envelope is
//!   never found;
//! - a damaged object that the search meets is an error, not a gap.

use std::sync::Arc;

use super::master;
use super::object::{Object, index_value, indexed, latest_version};
use super::token::{Token, View};
use super::version;
use crate::ck::*;
use crate::error::Result;
use crate::seal;
use crate::store::{IndexEntry, ObjectRow, Search, Uid};

/// A running find: what is left to hand out.
#[derive(Default)]
pub struct Find {
    handles: std::vec::IntoIter<CK_OBJECT_HANDLE>,
}

impl Find {
    /// Hands out the next handles, at most `max`.
    pub fn next(&mut self, max: usize) -> Vec<CK_OBJECT_HANDLE> {
        self.handles.by_ref().take(max).collect()
    }
}

impl Token {
    /// Finds all objects that match the template and that this login may see.
    ///
    /// # Errors
    /// `DeviceError` when the store fails or a candidate is damaged.
    pub fn find(&self, template: &Attributes) -> Result<Find> {
        self.find_some(template, version::hides_others(template))
    }

    /// Finds all objects that match the template, those of every version of a managed key among them.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(super) fn find_every(&self, template: &Attributes) -> Result<Find> {
        self.find_some(template, false)
    }

    fn find_some(&self, template: &Attributes, active_only: bool) -> Result<Find> {
        let view = self.view();
        let mut handles = Vec::new();
        if template.bool(CKA_TOKEN) != Some(true) {
            let made = self.handles.session_objects();
            handles.extend(made.iter().filter(|row| view.sees(&row.1) && row.1.matches(template)).map(|row| row.0));
        }
        // The token's own objects are found only by who asks for them (PKCS #11 v3.2, 4.3, 4.12).
        let asked_for = matches!(template.ulong(CKA_CLASS), Some(CKO_PROFILE | CKO_MECHANISM));
        if asked_for && template.bool(CKA_TOKEN) != Some(true) || master::is_asked_for(template) {
            let own = self.handles.all_own();
            handles.extend(own.iter().filter(|own| own.1.matches(template)).map(|own| own.0));
        }
        if template.bool(CKA_TOKEN) != Some(false) {
            self.visit(template, &view, &mut |object| {
                let hidden = object.class() == CKO_SR_RECOVERY;
                if !(hidden || active_only && version::is_replaced(object.attributes())) {
                    handles.push(self.handles.of_token_object(&Arc::new(object), view.changes())?);
                }
                Ok(())
            })?;
        }
        Ok(Find { handles: handles.into_iter() })
    }

    /// Hands each token object that matches the template, and that the view sees, to `visit`.
    ///
    /// # Errors
    /// As [`Self::find`], and what `visit` answers.
    pub(super) fn visit(
        &self,
        template: &Attributes,
        view: &View,
        visit: &mut dyn FnMut(Object) -> Result<()>,
    ) -> Result<()> {
        let mut consider = |row| self.matching(template, view, row)?.map_or(Ok(()), &mut *visit);
        if let Some(unique_id) = template.get(CKA_UNIQUE_ID) {
            let Some(uid) = uid_of(unique_id) else { return Ok(()) };
            return self.store.object(&self.serial, &uid)?.map_or(Ok(()), consider);
        }
        self.store.search(&self.serial, &self.search(template, view), &mut consider)
    }

    /// Opens a row; `None` when the view does not see it or the template does not fit.
    ///
    /// # Errors
    /// `DeviceError` when it is damaged.
    pub(super) fn matching(&self, template: &Attributes, view: &View, row: ObjectRow) -> Result<Option<Object>> {
        if view.skips(template, &row)? {
            return Ok(None);
        }
        let uid = row.uid;
        let object = self.open_row(view, row).map_err(|error| error.context(object_name(&uid)))?;
        Ok(Some(object).filter(|object| view.sees(object) && object.matches(template)))
    }

    /// Chooses the most selective index that the template allows.
    pub(super) fn search(&self, template: &Attributes, view: &View) -> Search {
        let found = indexed().find_map(|(id, field)| Some((field, index_value(template.get(id)?)?)));
        match (found, template.bool(CKA_PRIVATE), view.private_key()) {
            // Whose key the template leaves no doubt about is looked for under that key alone.
            (Some((field, value)), Some(true), Some(key)) => {
                Search::Any(vec![IndexEntry { field, digest: key.index_digest(field, &value) }])
            }
            (Some((field, value)), ..) => self.entries(field, &value, view),
            (None, ..) => Search::All,
        }
    }

    /// Finds the latest version of the managed key whose owner and asset the template has: one look-up, at any number of versions.
    pub(super) fn search_latest(&self, template: &Attributes, view: &View) -> Search {
        let value = latest_version(template);
        value.map_or(Search::All, |value| self.entries(seal::LATEST_VERSION_FIELD, &value, view))
    }

    /// Makes the entries under which an object has this value, public and private.
    fn entries(&self, field: u8, value: &[u8], view: &View) -> Search {
        let public = IndexEntry { field, digest: seal::public_index_digest(&self.serial, field, value) };
        let private = view.private_key().map(|key| IndexEntry { field, digest: key.index_digest(field, value) });
        Search::Any(std::iter::once(public).chain(private).collect())
    }
}

/// Names an object in a message.
pub fn object_name(uid: &Uid) -> String {
    format!("object {}", data_encoding::HEXLOWER.encode(uid))
}

fn uid_of(value: &Value) -> Option<Uid> {
    let Value::Bytes(text) = value else { return None };
    data_encoding::HEXLOWER.decode(text).ok()?.try_into().ok()
}
