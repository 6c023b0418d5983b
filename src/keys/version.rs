//! One version of a managed key, as its attributes tell it.

use serde_json::{Map, Value as Json, json};

use super::asset::Asset;
use crate::ck::*;
use crate::error::{Error, Result};
use crate::token::{Effective, Rotation};

/// What a version may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Everything; one version of a key at most.
    Active,
    /// It verifies, decrypts and unwraps, and signs for who names it.
    Rotated,
    /// Nothing, until its state is changed.
    Disabled,
}

/// The states with their numbers and names.
const STATES: [(State, CK_ULONG, &str); 3] = [
    (State::Active, SR_STATE_ACTIVE, "active"),
    (State::Rotated, SR_STATE_ROTATED, "rotated"),
    (State::Disabled, SR_STATE_DISABLED, "disabled"),
];

impl State {
    /// Finds a state by its number.
    pub fn of_code(code: CK_ULONG) -> Option<Self> {
        STATES.iter().find(|row| row.1 == code).map(|row| row.0)
    }

    /// Finds a state by its name.
    pub fn named(name: &str) -> Option<Self> {
        STATES.iter().find(|row| row.2 == name).map(|row| row.0)
    }

    /// Tells its number (`SR_STATE_…`).
    pub fn code(self) -> CK_ULONG {
        STATES.iter().find(|row| row.0 == self).map_or(0, |row| row.1)
    }

    /// Names it.
    pub fn name(self) -> &'static str {
        STATES.iter().find(|row| row.0 == self).map_or("", |row| row.2)
    }
}

/// Tells the number of the version that an object belongs to.
///
/// # Errors
/// `DeviceError` when it belongs to none, although it was found as one.
pub(super) fn number(attributes: &Attributes) -> Result<u64> {
    attributes.ulong(CKA_SR_VERSION).ok_or_else(|| Error::damaged("a version of a managed key"))
}

/// Tells the state of the version that an object belongs to.
///
/// # Errors
/// As [`number`].
pub(super) fn state(attributes: &Attributes) -> Result<State> {
    let code = attributes.ulong(CKA_SR_STATE);
    code.and_then(State::of_code).ok_or_else(|| Error::damaged("the state of a version of a managed key"))
}

/// How far ahead of the clock a version may have been made: the clocks of several machines differ, and are set now and then.
const CLOCKS_DIFFER: u64 = 86_400;
/// No clock that is right tells an earlier time: 1 January 2026, before which there was no Strongroom.
const EARLIEST: u64 = 1_767_225_600;

/// Tells whether a version says that it was made so much later than now that the clock was ahead then. A clock that starts in 1970, since
/// nobody has set it yet, tells nothing of the kind.
pub(super) fn is_ahead(attributes: &Attributes, now: u64) -> bool {
    now >= EARLIEST && created(attributes) > now.saturating_add(CLOCKS_DIFFER)
}

/// Tells when the version was made, in seconds since 1970.
pub(super) fn created(attributes: &Attributes) -> u64 {
    attributes.ulong(CKA_SR_CREATED).unwrap_or(0)
}

/// Tells how often the version was used, where its uses are counted.
pub(super) fn uses(attributes: &Attributes) -> u64 {
    attributes.ulong(CKA_SR_USES).unwrap_or(0)
}

/// Tells when a version is due, if ever: at the time that was fixed when it was made, or earlier where its rules have become
/// stricter since then. What is refused for its age is due at the latest then, and what was made by a clock that was ahead is due
/// now: nobody knows its age.
pub(super) fn due_at(attributes: &Attributes, rotation: Rotation, now: u64) -> Option<u64> {
    let created = created(attributes);
    let fixed = attributes.ulong(CKA_SR_NEXT_ROTATION);
    let due = [fixed, rotation.due(created), rotation.end(created)].into_iter().flatten().min();
    due.map(|due| if is_ahead(attributes, now) { due.min(now) } else { due })
}

/// Tells whether a version is active and its time has come, or its uses run out.
pub(super) fn is_due(attributes: &Attributes, rotation: Rotation, now: u64) -> bool {
    let is_old = || due_at(attributes, rotation, now).is_some_and(|due| now >= due);
    attributes.ulong(CKA_SR_STATE) == Some(SR_STATE_ACTIVE) && (is_old() || is_used_up(attributes, rotation))
}

/// Tells whether so many uses of a version are taken that it is due by them.
pub(super) fn is_used_up(attributes: &Attributes, rotation: Rotation) -> bool {
    rotation.uses_due(attributes.ulong(CKA_CLASS)).is_some_and(|due| uses(attributes) >= due)
}

/// Tells whether an object is the half of a version that keeps the secret.
pub(super) fn is_secret(attributes: &Attributes) -> bool {
    matches!(attributes.ulong(CKA_CLASS), Some(CKO_PRIVATE_KEY | CKO_SECRET_KEY))
}

/// One version of a managed key.
#[derive(Debug, Clone)]
pub struct Version {
    /// The handle of its private or secret key.
    pub handle: CK_OBJECT_HANDLE,
    /// Its number, from 1.
    pub number: u64,
    /// Its state.
    pub state: State,
    /// The attributes of the private or secret key.
    pub attributes: Attributes,
}

impl Version {
    /// Takes the version of a private or secret key.
    ///
    /// # Errors
    /// `DeviceError` when it has no version or state.
    pub(super) fn new(handle: CK_OBJECT_HANDLE, attributes: Attributes) -> Result<Self> {
        Ok(Self { handle, number: number(&attributes)?, state: state(&attributes)?, attributes })
    }

    /// Gives the public key as `SubjectPublicKeyInfo`; empty for a secret key.
    pub fn public_key(&self) -> &[u8] {
        self.attributes.bytes(CKA_PUBLIC_KEY_INFO).unwrap_or_default()
    }

    /// Gives the `CKA_ID` of the managed key.
    pub fn id(&self) -> &[u8] {
        self.attributes.bytes(CKA_ID).unwrap_or_default()
    }

    /// Gives the unique id of the private or secret key, which SR_DestroyVersion asks for.
    pub fn unique_id(&self) -> &[u8] {
        self.attributes.bytes(CKA_UNIQUE_ID).unwrap_or_default()
    }

    /// Tells whether it has a password of its own.
    pub fn has_password(&self) -> bool {
        self.attributes.is(CKA_SR_PASSWORD)
    }

    /// Tells when it is to be rotated by its age, if ever; an active version only.
    pub fn due(&self, rotation: Rotation, now: u64) -> Option<u64> {
        due_at(&self.attributes, rotation, now).filter(|_| self.state == State::Active)
    }

    /// Describes the version as the fields of a JSON object. Times are in seconds since 1970.
    ///
    /// # Errors
    /// `PublicKeyInvalid` when the public key has no address.
    pub fn describe(&self, asset: &Asset, policy: Rotation, now: u64) -> Result<Map<String, Json>> {
        let hex = |id| data_encoding::HEXLOWER.encode(self.attributes.bytes(id).unwrap_or_default());
        let text = |id| String::from_utf8_lossy(self.attributes.bytes(id).unwrap_or_default()).into_owned();
        let addresses = asset.addresses(&self.attributes)?;
        let (first, active) = (addresses.first().map(|address| address.1.clone()), self.state == State::Active);
        let most_uses = policy.most_uses(self.attributes.ulong(CKA_CLASS)).filter(|_| active);
        let fields: [(&str, Json); 16] = [
            ("version", self.number.into()),
            ("state", self.state.name().into()),
            ("label", text(CKA_LABEL).into()),
            ("id", hex(CKA_ID).into()),
            ("unique_id", text(CKA_UNIQUE_ID).into()),
            ("created", created(&self.attributes).into()),
            ("rotated", self.attributes.ulong(CKA_SR_ROTATED).into()),
            ("next_rotation", self.due(policy, now).into()),
            ("password", self.has_password().into()),
            ("due", is_due(&self.attributes, policy, now).into()),
            ("refused_from", policy.end(created(&self.attributes)).filter(|_| active).into()),
            ("uses", most_uses.map(|_| uses(&self.attributes)).into()),
            ("refused_after_uses", most_uses.into()),
            ("public_key", (!self.public_key().is_empty()).then(|| hex(CKA_PUBLIC_KEY_INFO)).into()),
            ("address", first.into()),
            ("addresses", addresses.into_iter().map(|(form, text)| (form.to_owned(), Json::from(text))).collect()),
        ];
        Ok(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

/// Describes rules of rotation, and where each comes from, as JSON.
pub(super) fn describe_policy(policy: Effective) -> Json {
    let Effective { rotation, origins } = policy;
    let [interval, age, uses, automatic] = origins.map(|origin| origin.name());
    json!({
        "rotation_interval_days": rotation.interval_days,
        "max_key_age_days": rotation.max_age_days,
        "max_key_uses": rotation.max_uses,
        "auto_rotate": rotation.auto_rotate,
        "set_by": {
            "rotation_interval_days": interval,
            "max_key_age_days": age,
            "max_key_uses": uses,
            "auto_rotate": automatic,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_numbers_and_names() {
        for (state, code, name) in STATES {
            assert_eq!((State::of_code(code), State::named(name)), (Some(state), Some(state)));
            assert_eq!((state.code(), state.name()), (code, name));
        }
        assert_eq!((State::of_code(0), State::of_code(4), State::named("destroyed")), (None, None, None));
    }
}
