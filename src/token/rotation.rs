//! When the versions of managed keys are rotated: the rules of a key, and where each of them comes from.
//!
//! The rules are:
//! - a rule of the key itself goes before one of its asset, that before one of the token, that before one for all tokens, and
//!   that before the default; each rule is looked for on its own;
//! - rules that contradict each other cannot be made.

use std::sync::Arc;

use crate::ck::*;
use crate::error::{Error, Result};

/// The most days that an interval or an age may have: a hundred years.
pub const MOST_DAYS: u64 = 36_500;
/// The most uses that a limit may have, and how often a secret key makes something new at most: random nonces of AES-GCM are
/// safe below 2^32 of them (NIST SP 800-38D, 8.3).
pub const MOST_USES: u64 = (1 << 32) - 1;
const SECONDS_A_DAY: u64 = 86_400;

/// When the versions of a managed key are rotated, and until when one makes something new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// A version is due so many days after it was made; 0 is never.
    pub interval_days: u64,
    /// So many days after it was made, the active version is refused for new signatures and ciphertexts; 0 is never.
    pub max_age_days: u64,
    /// After so many new signatures, ciphertexts and wrapped keys the active version is refused for more; 0 is never.
    pub max_uses: u64,
    /// Whether a due key is rotated without being asked for by name.
    pub auto_rotate: bool,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { interval_days: 90, max_age_days: 365, max_uses: 0, auto_rotate: true }
    }
}

impl Rotation {
    /// Checks that the rules do not contradict each other.
    ///
    /// # Errors
    /// `ArgumentsBad` that says what would be right.
    pub fn check(&self) -> Result<()> {
        let (interval, age) = (self.interval_days, self.max_age_days);
        let text = match () {
            () if interval > MOST_DAYS || age > MOST_DAYS => "an interval and an age have at most 36500 days",
            () if self.max_uses > MOST_USES => "a limit of uses is at most 4294967295",
            () if interval > 0 && age > 0 && interval >= age => {
                "the maximum age must be longer than the rotation interval: keys would be refused before they are rotated"
            }
            () if interval == 0 && self.max_uses == 0 && self.auto_rotate => {
                "automatic rotation needs a rotation interval or a limit of uses above 0"
            }
            () => return Ok(()),
        };
        Err(Error::arguments_bad(text))
    }

    /// Tells when a version that was made at `created` is due, in seconds since 1970.
    pub fn due(&self, created: u64) -> Option<u64> {
        after_days(created, self.interval_days)
    }

    /// Tells from when on it is refused.
    pub fn end(&self, created: u64) -> Option<u64> {
        after_days(created, self.max_age_days)
    }

    /// Tells after how many uses a version of a key of this class is refused, if its uses are counted at all: those of private
    /// keys where the rules limit them, those of secret keys always. What a public key does is anybody's.
    pub fn most_uses(&self, class: Option<CK_OBJECT_CLASS>) -> Option<u64> {
        match (class, self.max_uses) {
            (Some(CKO_SECRET_KEY), 0) => Some(MOST_USES),
            (Some(CKO_PRIVATE_KEY), 0) => None,
            (Some(CKO_SECRET_KEY | CKO_PRIVATE_KEY), most) => Some(most),
            _ => None,
        }
    }

    /// Tells from how many uses on a version is due: three quarters of those after which it is refused.
    pub fn uses_due(&self, class: Option<CK_OBJECT_CLASS>) -> Option<u64> {
        self.most_uses(class).map(|most| most.saturating_sub(most / 4))
    }
}

/// Adds days to a time; 0 days are no limit.
fn after_days(time: u64, days: u64) -> Option<u64> {
    (days > 0).then(|| time.saturating_add(days.saturating_mul(SECONDS_A_DAY)))
}

/// Where a rule comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Nobody has said anything.
    Default,
    /// `[rotation]` of the configuration.
    Configuration,
    /// The section of the token.
    Token,
    /// The section of the asset, for all tokens or for this one.
    Asset,
    /// The key itself (SR_SetRotationPolicy).
    Key,
}

impl Origin {
    /// Names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Configuration => "configuration",
            Self::Token => "token",
            Self::Asset => "asset",
            Self::Key => "key",
        }
    }
}

/// Rules, and where each comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effective {
    /// The rules.
    pub rotation: Rotation,
    /// Whose they are: interval, age, uses, automatic rotation.
    pub origins: [Origin; 4],
}

impl From<Rotation> for Effective {
    fn from(rotation: Rotation) -> Self {
        Self { rotation, origins: [Origin::Configuration; 4] }
    }
}

/// How many days ahead keys are told that will be due, unless the configuration says otherwise.
const WARN_DAYS: u64 = 14;

/// The rules of a token: those of each asset, and those of all others.
#[derive(Debug, Clone)]
pub struct Rules {
    others: Effective,
    /// By the names of assets.
    assets: Arc<[(String, Effective)]>,
    warn_days: u64,
}

impl Rules {
    /// Takes the rules of keys in general, and of assets that have some.
    pub fn new(others: Effective, assets: Vec<(String, Effective)>) -> Self {
        Self { others, assets: assets.into(), warn_days: WARN_DAYS }
    }

    /// Tells keys that will be due within so many days.
    pub fn warning(self, warn_days: u64) -> Self {
        Self { warn_days, ..self }
    }

    /// Tells how many days ahead keys are told that will be due.
    pub fn warn_days(&self) -> u64 {
        self.warn_days
    }

    /// Tells the rules of a version's key.
    pub fn of(&self, attributes: &Attributes) -> Effective {
        let asset = attributes.bytes(CKA_SR_ASSET);
        let of_asset = self.assets.iter().find(|row| asset == Some(row.0.as_bytes()));
        with_own(of_asset.map_or(self.others, |row| row.1), attributes)
    }
}

impl From<Rotation> for Rules {
    fn from(rotation: Rotation) -> Self {
        Self::new(rotation.into(), Vec::new())
    }
}

/// Puts the key's own rules in the place of others, if it has some.
fn with_own(configured: Effective, attributes: &Attributes) -> Effective {
    let days = (attributes.ulong(CKA_SR_ROTATION_INTERVAL), attributes.ulong(CKA_SR_MAX_AGE));
    let (Some(interval_days), Some(max_age_days)) = days else { return configured };
    let auto_rotate = attributes.is(CKA_SR_AUTO_ROTATE);
    // A key that was given its rules before uses had a limit has none of its own.
    let (max_uses, uses) = match attributes.ulong(CKA_SR_MAX_USES) {
        Some(max_uses) => (max_uses, Origin::Key),
        None => (configured.rotation.max_uses, configured.origins[2]),
    };
    let rotation = Rotation { interval_days, max_age_days, max_uses, auto_rotate };
    Effective { rotation, origins: [Origin::Key, Origin::Key, uses, Origin::Key] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn rules(interval_days: u64, max_age_days: u64, max_uses: u64, auto_rotate: bool) -> Rotation {
        Rotation { interval_days, max_age_days, max_uses, auto_rotate }
    }

    #[test]
    fn rules_of_rotation_that_contradict_each_other_are_refused() {
        for good in [
            rules(90, 365, 0, true),
            rules(90, 0, 1, true),
            rules(0, 365, 0, false),
            rules(0, 0, 0, false),
            rules(0, 0, MOST_USES, true),
        ] {
            assert!(good.check().is_ok(), "{good:?}");
        }
        for bad in [
            rules(90, 90, 0, true),
            rules(91, 90, 9, false),
            rules(0, 365, 0, true),
            rules(36_501, 0, 0, false),
            rules(1, 0, MOST_USES + 1, true),
        ] {
            assert_eq!(bad.check().expect_err("contradicts itself").kind(), Kind::ArgumentsBad, "{bad:?}");
        }
        let short = rules(1, 2, 0, true);
        assert_eq!((short.due(100), short.end(100)), (Some(86_500), Some(172_900)));
        let never = rules(0, 0, 0, false);
        assert_eq!((never.due(100), never.end(u64::MAX)), (None, None));
        assert_eq!(short.end(u64::MAX), Some(u64::MAX));
    }

    #[test]
    fn r36_secret_keys_have_a_limit_of_uses_whatever_the_rules_say() {
        let (secret, private, public) = (Some(CKO_SECRET_KEY), Some(CKO_PRIVATE_KEY), Some(CKO_PUBLIC_KEY));
        let (none, some) = (rules(90, 0, 0, true), rules(90, 0, 1000, true));
        assert_eq!((none.most_uses(secret), none.most_uses(private)), (Some((1 << 32) - 1), None));
        assert_eq!(
            (some.most_uses(secret), some.most_uses(private), some.most_uses(public)),
            (Some(1000), Some(1000), None)
        );
        assert_eq!((some.uses_due(private), none.uses_due(private)), (Some(750), None));
        assert_eq!(none.uses_due(secret), Some(3_221_225_472));
        assert_eq!(rules(90, 0, 1, true).uses_due(private), Some(1), "a single use makes it due");
    }

    #[test]
    fn the_rules_of_a_key_go_before_its_assets_and_those_before_the_rest() {
        let policy = |days, origin| Effective { rotation: rules(days, 0, 5, true), origins: [origin; 4] };
        let rules = Rules::new(policy(90, Origin::Default), vec![("btc".into(), policy(30, Origin::Asset))]);
        let mut version: Attributes = [(CKA_SR_ASSET, Value::from(b"eth".as_slice()))].into_iter().collect();
        assert_eq!(rules.of(&version), policy(90, Origin::Default));
        assert_eq!(rules.of(&Attributes::new()), policy(90, Origin::Default));
        version.set(CKA_SR_ASSET, b"btc".as_slice());
        assert_eq!(rules.of(&version), policy(30, Origin::Asset));
        version.set(CKA_SR_ROTATION_INTERVAL, 7);
        version.set(CKA_SR_MAX_AGE, 0);
        let own = rules.of(&version);
        assert_eq!((own.rotation.interval_days, own.rotation.max_uses, own.rotation.auto_rotate), (7, 5, false));
        assert_eq!(own.origins, [Origin::Key, Origin::Key, Origin::Asset, Origin::Key]);
        version.set(CKA_SR_MAX_USES, 9);
        assert_eq!((rules.of(&version).rotation.max_uses, rules.of(&version).origins), (9, [Origin::Key; 4]));
    }
}
