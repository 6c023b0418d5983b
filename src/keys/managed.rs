//! Managed keys: made, found, described, and changed version by version.
//!
//! The rules are:
//! - a version is an ordinary private key with its public key, or a secret key; both halves carry the same version and state;
//! - CKA_LABEL and CKA_ID belong to the managed key and stay through rotation, CKA_UNIQUE_ID is each object's own;
//! - the version with the highest number alone can be active;
//! - whatever decides a change is read in the transaction that makes it.

use std::fmt;

use serde_json::json;

use super::asset::Asset;
use super::version::{self, State, Version, describe_policy};
use crate::audit::Event;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::mechanism::random;
use crate::seal::PasswordKey;
use crate::token::{Effective, Found, Prepared, Rotation, Session};

/// The longest owner in bytes.
const LONGEST_OWNER: usize = 255;
/// How often versions are searched for at most, where others rotate and destroy them meanwhile.
const LOOKS: usize = 16;
/// The length of a `CKA_ID`, which is random.
pub(super) const ID_LEN: usize = 16;

/// The name of a managed key.
#[derive(Debug, Clone)]
pub struct Name {
    owner: String,
    /// What it is a key of.
    pub asset: &'static Asset,
}

impl Name {
    /// Checks a name: an owner of 1 to 255 bytes of UTF-8 without control characters, and an asset that there is.
    ///
    /// # Errors
    /// `ArgumentsBad` that says what is wrong.
    pub fn new(owner: &str, asset: &str) -> Result<Self> {
        check_owner(owner)?;
        Ok(Self { owner: owner.to_owned(), asset: Asset::named(asset)? })
    }

    /// Tells whose key it is.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Makes the template that finds all objects of the key.
    pub(super) fn template(&self) -> Attributes {
        let texts = [(CKA_SR_OWNER, self.owner.as_str()), (CKA_SR_ASSET, self.asset.name)];
        texts.into_iter().map(|(id, text)| (id, Value::from(text.as_bytes()))).collect()
    }

    /// Makes the error of a key or version that is not there.
    pub(super) fn missing(&self, what: &str) -> Error {
        let text = format!("there is no {what} of the {} key of {}", self.asset.name, self.owner.escape_debug());
        Error::new(Kind::KeyHandleInvalid, text)
    }

    pub(super) fn refused(&self, how: &str) -> Error {
        let text = format!("the {} key of {} {how}", self.asset.name, self.owner.escape_debug());
        Error::new(Kind::ActionProhibited, text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} key of {}", self.asset.name, self.owner.escape_debug())
    }
}

/// Checks an owner.
pub(super) fn check_owner(owner: &str) -> Result<()> {
    let fits = (1..=LONGEST_OWNER).contains(&owner.len()) && !owner.chars().any(char::is_control);
    match fits {
        true => Ok(()),
        false => Err(Error::arguments_bad("an owner has 1 to 255 bytes of UTF-8 and no control characters")),
    }
}

/// What became of a key that was made.
#[derive(Debug, Clone)]
pub struct Generated {
    /// The new version.
    pub version: Version,
    /// Its address in the asset's usual form, if it has one.
    pub address: Option<String>,
}

/// The managed keys of a session's token. The user must be logged in.
pub struct ManagedKeys<'s> {
    pub(super) session: &'s Session,
}

impl<'s> ManagedKeys<'s> {
    /// Takes a session.
    pub fn of(session: &'s Session) -> Self {
        Self { session }
    }

    /// Starts the record of an operation on a key.
    pub(super) fn event(&self, operation: &'static str, name: &Name) -> Event {
        self.session.event(operation).of_managed(&name.owner, name.asset.name)
    }

    /// Makes a key: its first version.
    ///
    /// # Errors
    /// `ActionProhibited` when there is one of this name; `UserNotLoggedIn`, `SessionReadOnly`; the store's.
    pub fn generate(&self, name: &Name) -> Result<Generated> {
        self.make(name, None)
    }

    /// Makes a key, under a password where there is one.
    pub(super) fn make(&self, name: &Name, under: Option<&PasswordKey>) -> Result<Generated> {
        let before = |_: &mut Event| {
            self.check_new(name, self.session.find_latest(&name.template())?.is_empty())?;
            self.prepare_first(name)
        };
        let (_, made) =
            self.session.change_after(self.event("SR_GenerateKey", name), before, |change, mut prepared| {
                self.check_new(name, change.find_latest(&name.template())?.is_empty())?;
                let policy = self.session.rotation_of(&name.template());
                stamp(&mut prepared, name, 1, self.session.now(), policy.rotation);
                under.map_or(Ok(()), |key| prepared.seal_under(key))?;
                change.insert(prepared)
            })?;
        self.session.made_managed_key();
        self.made(name, &made)
    }

    fn check_new(&self, name: &Name, new: bool) -> Result<()> {
        match new {
            true => Ok(()),
            false => Err(name.refused("is there already: SR_RotateKey makes a new version of it")),
        }
    }

    /// Generates the objects of the first version, with the label and id that stay.
    fn prepare_first(&self, name: &Name) -> Result<Prepared> {
        let mut prepared = self.prepare(name)?;
        let mut id = [0; ID_LEN];
        random::fill(&mut id)?;
        prepared.set(CKA_ID, id.as_slice());
        prepared.set(CKA_LABEL, format!("{}/{}", name.owner, name.asset.name).into_bytes());
        Ok(prepared)
    }

    /// Generates the objects of a version, and its data key where it has one of its own.
    pub(super) fn prepare(&self, name: &Name) -> Result<Prepared> {
        let (first, private) = name.asset.templates();
        let mut prepared = self.session.prepare(name.asset.mechanism, first, private)?;
        self.session.give_data_key(&mut prepared)?;
        Ok(prepared)
    }

    /// Takes up what a transaction has made.
    pub(super) fn made(&self, name: &Name, handles: &[CK_OBJECT_HANDLE]) -> Result<Generated> {
        // The half with the secret comes last, or is the only one.
        let handle = *handles.last().ok_or_else(|| Error::internal("a managed key was made of nothing"))?;
        let version = Version::new(handle, self.session.all_attributes(handle)?)?;
        let address = name.asset.addresses(&version.attributes)?.into_iter().next().map(|address| address.1);
        Ok(Generated { version, address })
    }

    /// Finds the active version.
    ///
    /// # Errors
    /// `KeyHandleInvalid` when there is no such key, or none that is active; `UserNotLoggedIn`.
    pub fn active(&self, name: &Name) -> Result<Version> {
        let latest = Some(self.latest(name)?).filter(|latest| latest.state == State::Active);
        latest.ok_or_else(|| name.missing("active version"))
    }

    /// Finds the latest version, active or disabled.
    ///
    /// # Errors
    /// `KeyHandleInvalid` when there is no such key; `UserNotLoggedIn`; `DeviceError` when it is damaged.
    pub fn latest(&self, name: &Name) -> Result<Version> {
        let search = || self.session.find_latest(&name.template());
        let found = self.read(&search, |latest| latest.state != State::Rotated)?.pop();
        found.ok_or_else(|| name.missing("version"))
    }

    /// Finds a version by its number; 0 is the active one.
    ///
    /// # Errors
    /// As [`Self::active`].
    pub fn version(&self, name: &Name, number: u64) -> Result<Version> {
        if number == 0 {
            return self.active(name);
        }
        let found = self.versions(name)?.into_iter().find(|version| version.number == number);
        found.ok_or_else(|| name.missing(&format!("version {number}")))
    }

    /// Lists the versions, the oldest first.
    ///
    /// # Errors
    /// `KeyHandleInvalid` when there is no such key; `UserNotLoggedIn`; `DeviceError` when one is damaged.
    pub fn versions(&self, name: &Name) -> Result<Vec<Version>> {
        let versions = self.read(&|| self.session.find_every(&name.template()), |_| true)?;
        match versions.is_empty() {
            true => Err(name.missing("version")),
            false => Ok(versions),
        }
    }

    /// Reads the versions that a search finds, the oldest first. What is found may be rotated or destroyed by others before it is
    /// read: it is searched again until the last one is as it should be.
    fn read(
        &self,
        search: &dyn Fn() -> Result<Vec<CK_OBJECT_HANDLE>>,
        as_it_should: fn(&Version) -> bool,
    ) -> Result<Vec<Version>> {
        let mut versions = Vec::new();
        for _ in 0..LOOKS {
            let handles = search()?;
            let none = handles.is_empty();
            versions = self.of_secrets(handles)?;
            if none || versions.last().is_some_and(as_it_should) {
                break;
            }
        }
        Ok(versions)
    }

    /// Takes the versions of those objects that are private or secret keys, the oldest first.
    fn of_secrets(&self, handles: Vec<CK_OBJECT_HANDLE>) -> Result<Vec<Version>> {
        self.session.check_may_be_private(true)?;
        let mut versions = Vec::new();
        for handle in handles {
            match self.session.all_attributes(handle) {
                Ok(attributes) if version::is_secret(&attributes) => versions.push(Version::new(handle, attributes)?),
                Ok(_) => {}
                // It was destroyed after it was found.
                Err(error) if error.kind() == Kind::ObjectHandleInvalid => {}
                Err(error) => return Err(error),
            }
        }
        versions.sort_by_key(|version| version.number);
        Ok(versions)
    }

    /// Describes a key and its latest version as a JSON object.
    ///
    /// # Errors
    /// As [`Self::versions`].
    pub fn info(&self, name: &Name) -> Result<String> {
        let latest = self.latest(name)?;
        let policy = self.session.rotation_of(&latest.attributes);
        let mut info = latest.describe(name.asset, policy.rotation, self.session.now())?;
        info.insert("data_key".to_owned(), self.data_key(&latest)?);
        info.insert("owner".to_owned(), name.owner.as_str().into());
        info.insert("asset".to_owned(), name.asset.name.into());
        info.insert("policy".to_owned(), describe_policy(policy));
        let tries_left = self.session.password_tries_left(&latest.attributes);
        info.insert("password_tries_left".to_owned(), tries_left.into());
        Ok(json!(info).to_string())
    }

    /// Describes every version as a JSON array, the oldest first.
    ///
    /// # Errors
    /// As [`Self::versions`].
    pub fn list(&self, name: &Name) -> Result<String> {
        let now = self.session.now();
        let describe = |version: &Version| {
            let rotation = self.session.rotation_of(&version.attributes).rotation;
            let mut told = version.describe(name.asset, rotation, now)?;
            told.insert("data_key".to_owned(), self.data_key(version)?);
            Ok(told)
        };
        let list: Vec<_> = self.versions(name)?.iter().map(describe).collect::<Result<_>>()?;
        Ok(json!(list).to_string())
    }

    /// Tells what wraps the data key of a version; null where it has none of its own.
    fn data_key(&self, version: &Version) -> Result<serde_json::Value> {
        Ok(self.session.data_key_of(version.handle)?.map_or(
            serde_json::Value::Null,
            |by| json!({ "provider": by.provider, "key": by.master_key.key, "version": by.master_key.version }),
        ))
    }

    /// Makes the address of a version, in the asset's usual form unless another is named.
    ///
    /// # Errors
    /// As [`Self::version`]; `FunctionNotSupported` for an asset without addresses; `ArgumentsBad` for an unknown form.
    pub fn address(&self, name: &Name, number: u64, form: Option<&str>) -> Result<String> {
        name.asset.address(&self.version(name, number)?.attributes, form)
    }

    /// Changes the state of a version. The latest is active or disabled, an older one rotated or disabled.
    ///
    /// # Errors
    /// `KeyHandleInvalid` for an unknown version; `ActionProhibited` for a state that it cannot have; the store's.
    pub fn set_state(&self, name: &Name, number: u64, state: State) -> Result<()> {
        self.session.change(self.event("SR_SetVersionState", name), |change| {
            let all = change.find(&name.template())?;
            let latest = number_of(name, &change.find_latest(&name.template())?)?;
            match (state, number == latest) {
                (State::Active, false) => {
                    return Err(name.refused("has a later version; none but the latest can be active"));
                }
                (State::Rotated, true) => {
                    return Err(name.refused("cannot do without its latest version: SR_RotateKey replaces it"));
                }
                _ => {}
            }
            let halves = halves(&all, number)?;
            if halves.is_empty() {
                return Err(name.missing(&format!("version {number}")));
            }
            change.tell(format!("version {number} is {} now", state.name()));
            for half in halves {
                let mut attributes = half.attributes().clone();
                attributes.set(CKA_SR_STATE, state.code());
                change.update(half, attributes)?;
            }
            Ok(())
        })?;
        log::info!(
            "{} key of {}: version {number} is {} now",
            name.asset.name,
            name.owner.escape_debug(),
            state.name()
        );
        Ok(())
    }

    /// Destroys a version for good. The confirmation is the `CKA_UNIQUE_ID` of its private or secret key, which SR_ListVersions
    /// tells: whoever names the wrong version does not have it.
    ///
    /// # Errors
    /// `ActionProhibited` for the active version; `ArgumentsBad` for another confirmation; `KeyHandleInvalid`; the store's.
    pub fn destroy_version(&self, name: &Name, number: u64, confirmation: &[u8]) -> Result<()> {
        self.session.change(self.event("SR_DestroyVersion", name).gravely(), |change| {
            change.tell(format!("version {number}"));
            let all = change.find(&name.template())?;
            let halves = halves(&all, number)?;
            let secret = halves.iter().find(|half| version::is_secret(half.attributes()));
            let secret = secret.ok_or_else(|| name.missing(&format!("version {number}")))?.attributes();
            if version::state(secret)? == State::Active {
                return Err(name.refused("is in use by its active version: rotate or disable it first"));
            }
            if !secret.has(CKA_SR_ROTATED) && all.len() > halves.len() {
                return Err(name.refused("has older versions: rotate it, or destroy them first"));
            }
            if secret.bytes(CKA_UNIQUE_ID) != Some(confirmation) {
                let text =
                    "the confirmation is not the unique id of the version's private or secret key (SR_ListVersions)";
                return Err(Error::arguments_bad(text));
            }
            change.tell(tombstone(number, secret));
            halves.into_iter().try_for_each(|half| change.remove(half))
        })?;
        log::warn!("{} key of {}: version {number} is destroyed", name.asset.name, name.owner.escape_debug());
        Ok(())
    }

    /// Gives the rules by which a key is rotated, and where each comes from: the key itself, or the configuration.
    ///
    /// # Errors
    /// As [`Self::versions`].
    pub fn policy(&self, name: &Name) -> Result<Effective> {
        let latest = self.latest(name)?;
        Ok(self.session.rotation_of(&latest.attributes))
    }

    /// Gives the rules of a key, or those of the configuration, as a JSON object.
    ///
    /// # Errors
    /// As [`Self::policy`].
    pub fn describe_policy(&self, name: Option<&Name>) -> Result<String> {
        let configured = || Ok(self.session.rotation_of(&Attributes::new()));
        Ok(describe_policy(name.map_or_else(configured, |name| self.policy(name))?).to_string())
    }

    /// Gives a key rules of its own. They hold for its latest version from now on, and for those that follow.
    ///
    /// # Errors
    /// `ArgumentsBad` for rules that contradict each other; `KeyHandleInvalid`; the store's.
    pub fn set_policy(&self, name: &Name, policy: Rotation) -> Result<()> {
        policy.check()?;
        self.session.change(self.event("SR_SetRotationPolicy", name), |change| {
            let latest = change.find_latest(&name.template())?;
            let number = number_of(name, &latest)?;
            change.tell(format!("version {number} and later: {}", told_policy(policy)));
            for half in &latest {
                let mut attributes = half.attributes().clone();
                attributes.set(CKA_SR_ROTATION_INTERVAL, policy.interval_days);
                attributes.set(CKA_SR_MAX_AGE, policy.max_age_days);
                attributes.set(CKA_SR_MAX_USES, policy.max_uses);
                attributes.set(CKA_SR_AUTO_ROTATE, policy.auto_rotate);
                match policy.due(version::created(&attributes)) {
                    Some(due) => drop(attributes.set(CKA_SR_NEXT_ROTATION, due)),
                    None => drop(attributes.take(CKA_SR_NEXT_ROTATION)),
                }
                change.update(half, attributes)?;
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// Tells of a version what stays when it is destroyed: its number, its confirmation, and its life. Its unique ids are the record's keys.
fn tombstone(number: u64, secret: &Attributes) -> String {
    let confirmation = String::from_utf8_lossy(secret.bytes(CKA_UNIQUE_ID).unwrap_or_default()).into_owned();
    let rotated = secret.ulong(CKA_SR_ROTATED).map_or(String::new(), |rotated| format!(", rotated {rotated}"));
    format!("version {number} is destroyed, confirmed by {confirmation}; made {}{rotated}", version::created(secret))
}

/// Tells rules of rotation in words.
fn told_policy(policy: Rotation) -> String {
    let by = if policy.auto_rotate { "rotated by itself" } else { "rotated by name" };
    let Rotation { interval_days, max_age_days, max_uses, .. } = policy;
    format!("interval {interval_days} days, age {max_age_days} days, {max_uses} uses, {by}")
}

/// Writes into a version that is to be stored what it is.
pub(super) fn stamp(prepared: &mut Prepared, name: &Name, number: u64, now: u64, policy: Rotation) {
    for (id, value) in name.template().iter() {
        prepared.set(id, value.clone());
    }
    prepared.set(CKA_SR_VERSION, number);
    prepared.set(CKA_SR_STATE, SR_STATE_ACTIVE);
    prepared.set(CKA_SR_CREATED, now);
    if let Some(due) = policy.due(now) {
        prepared.set(CKA_SR_NEXT_ROTATION, due);
    }
    // A copy would be a second object of the same version.
    prepared.set(CKA_COPYABLE, false);
    prepared.set(CKA_DESTROYABLE, false);
}

/// Tells the number of the latest version from its objects.
///
/// # Errors
/// `KeyHandleInvalid` when there are none; `DeviceError` when they are not of one version.
pub(super) fn number_of(name: &Name, latest: &[Found]) -> Result<u64> {
    let number = version::number(latest.first().ok_or_else(|| name.missing("version"))?.attributes())?;
    match latest.iter().all(|half| half.attributes().ulong(CKA_SR_VERSION) == Some(number)) {
        true => Ok(number),
        false => Err(Error::damaged(format!("the {} key of {}", name.asset.name, name.owner.escape_debug()))),
    }
}

/// Picks the objects of one version.
fn halves(all: &[Found], number: u64) -> Result<Vec<&Found>> {
    let mut halves = Vec::new();
    for found in all {
        if version::number(found.attributes())? == number {
            halves.push(found);
        }
    }
    Ok(halves)
}
