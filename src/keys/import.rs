//! Managed keys that are brought in from other systems: version 1 of a key, made of a secret that was kept elsewhere.
//!
//! The rules are:
//! - a key that is there already is left as it is, whether it is the same one (then nothing is to be done) or another (an error);
//! - the same key is also there when it was rotated away since: what was moved once is not moved again.

use super::managed::{ID_LEN, ManagedKeys, Name, stamp};
use super::version;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::mechanism::{self, GivenKey, random};
use crate::token::{Change, Prepared};

/// What decides of which asset a key is, where the asset's template has it.
const DECISIVE: [CK_ATTRIBUTE_TYPE; 3] = [CKA_EC_PARAMS, CKA_MODULUS_BITS, CKA_VALUE_LEN];

/// Where a key is that was brought in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Whether it was there before.
    pub present: bool,
    /// The version that it is, of a managed key.
    pub version: Option<u64>,
    /// Its `CKA_ID`.
    pub id: Vec<u8>,
}

impl ManagedKeys<'_> {
    /// Makes version 1 of a key from a secret of another system.
    ///
    /// # Errors
    /// `ActionProhibited` when there is another key of this name; `TemplateInconsistent` when the secret is of another asset;
    /// `UserNotLoggedIn`, `SessionReadOnly`; the store's.
    pub fn import(&self, name: &Name, key: GivenKey) -> Result<Placed> {
        let mut prepared = self.prepare_import(name, key, &Attributes::new())?;
        self.prepare_place(name, &mut prepared)?;
        let placed = self.session.change(self.event("ImportKey", name), |change| self.place(change, name, prepared));
        placed.map(|(placed, _)| placed)
    }

    /// Makes the objects of the key. `kept` are attributes that it had where it comes from: label, id, usages.
    pub(super) fn prepare_import(&self, name: &Name, key: GivenKey, kept: &Attributes) -> Result<Prepared> {
        check_asset(name, &key)?;
        let (first, private) = name.asset.templates();
        let mut prepared = self.session.prepare_given(key, first, private)?;
        let mut id = [0; ID_LEN];
        random::fill(&mut id)?;
        prepared.set(CKA_ID, id.as_slice());
        prepared.set(CKA_LABEL, format!("{}/{}", name.owner(), name.asset.name).into_bytes());
        prepared.keep(kept);
        stamp(&mut prepared, name, 1, self.session.now(), self.session.rotation_of(&name.template()).rotation);
        Ok(prepared)
    }

    /// Does what asks the KMS before a key is placed: a key that is not there gets its data key, and one that is there is opened to be
    /// compared.
    pub(super) fn prepare_place(&self, name: &Name, prepared: &mut Prepared) -> Result<()> {
        match self.session.find_latest(&name.template())?.is_empty() {
            true => self.session.give_data_key(prepared),
            false => self.open_to_compare(name),
        }
    }

    /// Opens what a key is compared with that is there by its name.
    pub(super) fn open_to_compare(&self, name: &Name) -> Result<()> {
        let mut secret = name.template();
        // Pairs are compared by their public key.
        secret.set(CKA_CLASS, CKO_SECRET_KEY);
        self.session.open_data_keys(&secret)
    }

    /// Stores the key unless it is there.
    ///
    /// # Errors
    /// `ActionProhibited` when there is another key of this name; the store's.
    pub(super) fn place(&self, change: &mut Change<'_>, name: &Name, prepared: Prepared) -> Result<Placed> {
        if let Some(placed) = self.there(change, name, &prepared)? {
            return Ok(placed);
        }
        let id = prepared.attributes().and_then(|made| made.bytes(CKA_ID)).unwrap_or_default().to_vec();
        change.insert(prepared)?;
        Ok(Placed { present: false, version: Some(1), id })
    }

    /// Finds the key among the versions of its name.
    ///
    /// # Errors
    /// `ActionProhibited` when there is another key of this name; the store's.
    pub(super) fn there(&self, change: &mut Change<'_>, name: &Name, prepared: &Prepared) -> Result<Option<Placed>> {
        let there = change.find(&name.template())?;
        for found in there.iter().filter(|found| version::is_secret(found.attributes())) {
            if change.is_same_key(found, prepared)? {
                let id = found.attributes().bytes(CKA_ID).unwrap_or_default().to_vec();
                return Ok(Some(Placed { present: true, version: Some(version::number(found.attributes())?), id }));
            }
        }
        match there.is_empty() {
            true => Ok(None),
            false => Err(name.refused("is there already and is another one; nothing was overwritten")),
        }
    }
}

/// Checks that a key is one of the asset.
fn check_asset(name: &Name, key: &GivenKey) -> Result<()> {
    if is_of(name.asset, key)? {
        return Ok(());
    }
    let text = format!("the key is of another type than a {} key has", name.asset.name);
    Err(Error::new(Kind::TemplateInconsistent, text))
}

/// Tells whether a key is one of an asset.
///
/// # Errors
/// As [`GivenKey::public_parts`].
pub fn is_of(asset: &super::Asset, key: &GivenKey) -> Result<bool> {
    let types = mechanism::find(asset.mechanism).map_or(&[][..], |row| row.key_types);
    let parts = if key.is_pair() { key.public_parts()? } else { key.parts().clone() };
    let wanted = asset.templates().0;
    let same = |id: &CK_ATTRIBUTE_TYPE| wanted.get(*id).is_none_or(|value| parts.get(*id) == Some(value));
    Ok(types.first() == Some(&key.key_type()) && DECISIVE.iter().all(same))
}
