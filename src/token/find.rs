//! Finding objects (PKCS #11 v3.2, 5.7.7–5.7.9).
//!
//! The rules are:
//! - what a find gives is settled at C_FindObjectsInit; whatever happens between Init and Final does not change it;
//! - a template with an id, label, subject or class goes straight to its objects through the index; the rest of the template
//!   is compared with the opened attributes, so that the index decides speed and never the answer;
//! - listing opens attributes and never a secret;
//! - a damaged object that the search meets is an error, not a gap.

use std::sync::Arc;

use super::master;
use super::object::{index_value, indexed};
use super::token::{Token, View};
use crate::ck::*;
use crate::error::Result;
use crate::seal;
use crate::store::{IndexEntry, Search, Uid};

/// A running find: what is left to hand out.
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
        let view = self.view();
        let mut handles = Vec::new();
        if template.bool(CKA_TOKEN) != Some(true) {
            let made = self.handles.session_objects();
            handles.extend(made.iter().filter(|row| view.sees(&row.1) && row.1.matches(template)).map(|row| row.0));
        }
        // The token's own objects are found only by who asks for them (PKCS #11 v3.2, 4.3, 4.12).
        let asked_for = matches!(template.ulong(CKA_CLASS), Some(CKO_PROFILE | CKO_MECHANISM));
        if asked_for && template.bool(CKA_TOKEN) != Some(true) || master::is_asked_for(template) {
            handles.extend(self.handles.all_own().filter(|own| own.1.matches(template)).map(|own| own.0));
        }
        if template.bool(CKA_TOKEN) != Some(false) {
            self.find_token_objects(template, &view, &mut handles)?;
        }
        Ok(Find { handles: handles.into_iter() })
    }

    fn find_token_objects(
        &self,
        template: &Attributes,
        view: &View,
        handles: &mut Vec<CK_OBJECT_HANDLE>,
    ) -> Result<()> {
        let mut consider = |row: crate::store::ObjectRow| {
            if view.skips(template, &row)? {
                return Ok(());
            }
            let uid = row.uid;
            let object = self.open_row(view, row).map_err(|error| error.context(object_name(&uid)))?;
            if view.sees(&object) && object.matches(template) {
                handles.push(self.handles.of_token_object(&Arc::new(object))?);
            }
            Ok(())
        };
        if let Some(unique_id) = template.get(CKA_UNIQUE_ID) {
            let Some(uid) = uid_of(unique_id) else { return Ok(()) };
            return self.store.object(&self.serial, &uid)?.map_or(Ok(()), consider);
        }
        self.store.search(&self.serial, &self.search(template, view), &mut consider)
    }

    /// Chooses the most selective index that the template allows.
    fn search(&self, template: &Attributes, view: &View) -> Search {
        let found = indexed().find_map(|(id, field)| Some((field, index_value(template.get(id)?)?)));
        let Some((field, value)) = found else { return Search::All };
        let public = IndexEntry { field, digest: seal::public_index_digest(&self.serial, field, &value) };
        let private = view.private_key().map(|key| IndexEntry { field, digest: key.index_digest(field, &value) });
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
