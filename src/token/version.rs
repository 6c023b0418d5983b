//! Versions of managed keys as PKCS #11 shows them: which are found, what each may do, and for how long.
//!
//! The rules are:
//! - a find that names neither CKA_SR_VERSION nor CKA_SR_STATE nor CKA_UNIQUE_ID sees active versions only; a handle that is
//!   open stays valid, whatever becomes of its version;
//! - a handle stands for one version, so that who signs with the handle of a rotated version has named it;
//! - new ciphertexts and wrapped keys come from the active version alone, and the active version makes nothing new once it is
//!   older than its key's policy allows, or has been used as often (`uses.rs`); what is there can be read for ever, until the
//!   version is disabled.

use super::rotation::{Effective, Rules};
use super::session::Session;
use crate::ck::*;
use crate::error::{Error, Kind, Result};

/// The attributes by which a template asks for versions.
const ASKED_BY: [CK_ATTRIBUTE_TYPE; 3] = [CKA_SR_VERSION, CKA_SR_STATE, CKA_UNIQUE_ID];

/// Tells whether a find with this template hides the versions that are not active.
pub fn hides_others(template: &Attributes) -> bool {
    !ASKED_BY.iter().any(|id| template.has(*id))
}

/// Tells whether an object belongs to a version that is not active.
pub fn is_replaced(attributes: &Attributes) -> bool {
    attributes.ulong(CKA_SR_STATE).is_some_and(|state| state != SR_STATE_ACTIVE)
}

/// Refuses C_DestroyObject for half a version: both halves go together, by a call that asks twice.
///
/// # Errors
/// `ActionProhibited`.
pub fn check_destroy(attributes: &Attributes) -> Result<()> {
    match attributes.has(CKA_SR_VERSION) {
        false => Ok(()),
        true => Err(Error::new(
            Kind::ActionProhibited,
            "the object is a version of a managed key: SR_DestroyVersion destroys it, once it is not active",
        )),
    }
}

/// What bounds the use of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// Until when it may be used so, in seconds since 1970.
    pub(super) until: Option<u64>,
    /// How often its version may be used so, where uses are counted.
    pub(super) uses: Option<u64>,
}

/// Checks that the version of a managed key may be used so, and tells until when and how often; other keys may for ever.
///
/// # Errors
/// `KeyFunctionNotPermitted` that names the version and says what to do.
pub(super) fn check_use(
    attributes: &Attributes,
    usage: CK_ATTRIBUTE_TYPE,
    now: impl FnOnce() -> u64,
    rules: impl FnOnce() -> Rules,
) -> Result<Limits> {
    let Some(state) = attributes.ulong(CKA_SR_STATE) else { return Ok(Limits::default()) };
    match (state, usage) {
        (SR_STATE_ACTIVE, CKA_SIGN | CKA_ENCRYPT | CKA_WRAP) => check_age(attributes, now(), &rules()),
        (SR_STATE_ROTATED, CKA_ENCRYPT | CKA_WRAP) => Err(refused(
            attributes,
            "was rotated away and makes nothing new: find the active version (a find without CKA_SR_VERSION)",
        )),
        (SR_STATE_ACTIVE | SR_STATE_ROTATED, _) => Ok(Limits::default()),
        _ => Err(refused(attributes, "is disabled: SR_SetVersionState brings it back, SR_RotateKey makes another")),
    }
}

/// Checks the age of an active version that is to make something new.
fn check_age(attributes: &Attributes, now: u64, rules: &Rules) -> Result<Limits> {
    let rotation = rules.of(attributes).rotation;
    let until = rotation.end(attributes.ulong(CKA_SR_CREATED).unwrap_or(0));
    match until {
        Some(end) if now >= end => {
            let text = format!(
                "is older than the {} days of max_key_age_days: SR_RotateKey makes a new version, and this \
                 one goes on verifying and decrypting",
                rotation.max_age_days
            );
            Err(refused(attributes, &text))
        }
        _ => Ok(Limits { until, uses: rotation.most_uses(attributes.ulong(CKA_CLASS)) }),
    }
}

/// Makes the error of a version that may not be used so.
pub(super) fn refused(attributes: &Attributes, how: &str) -> Error {
    Error::new(Kind::KeyFunctionNotPermitted, format!("{} {how}", name_of(attributes)))
}

/// Names a version in a message.
pub(super) fn name_of(attributes: &Attributes) -> String {
    format!("version {} of the {}", attributes.ulong(CKA_SR_VERSION).unwrap_or(0), key_of(attributes))
}

/// Names a managed key in a message.
pub(super) fn key_of(attributes: &Attributes) -> String {
    let text = |id| String::from_utf8_lossy(attributes.bytes(id).unwrap_or_default()).escape_debug().to_string();
    format!("{} key of {}", text(CKA_SR_ASSET), text(CKA_SR_OWNER))
}

impl Session {
    /// Checks a key's version for a use; see [`check_use`].
    ///
    /// # Errors
    /// `KeyFunctionNotPermitted`.
    pub(super) fn check_version(&self, attributes: &Attributes, usage: CK_ATTRIBUTE_TYPE) -> Result<Limits> {
        if attributes.has(CKA_SR_STATE) {
            self.library.uses_managed_key(&self.token);
        }
        check_use(attributes, usage, || self.library.now(), || self.rules())
    }

    /// Tells the rules of a version's key, and where each comes from; without a version, those of keys in general.
    pub fn rotation_of(&self, attributes: &Attributes) -> Effective {
        self.rules().of(attributes)
    }

    /// Gives the rules of the token.
    pub fn rules(&self) -> Rules {
        self.token.profile.read().policy.rotation.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::rotation::Rotation;
    use super::*;

    const DAY: u64 = 86_400;

    fn version(state: CK_ULONG) -> Attributes {
        let texts = [(CKA_SR_OWNER, "user\n1"), (CKA_SR_ASSET, "btc")];
        let numbers = [(CKA_SR_VERSION, 3), (CKA_SR_STATE, state), (CKA_SR_CREATED, 1000)];
        let texts = texts.into_iter().map(|(id, text)| (id, Value::from(text.as_bytes())));
        texts.chain(numbers.into_iter().map(|(id, number)| (id, Value::Ulong(number)))).collect()
    }

    fn answer(attributes: &Attributes, usage: CK_ATTRIBUTE_TYPE, now: u64) -> Result<Option<u64>> {
        check_use(attributes, usage, || now, || Rotation::default().into()).map(|limits| limits.until)
    }

    #[test]
    fn r34_each_state_does_what_its_word_says() {
        let uses = [CKA_SIGN, CKA_ENCRYPT, CKA_WRAP, CKA_VERIFY, CKA_DECRYPT, CKA_UNWRAP, CKA_DERIVE];
        for (state, allowed) in [
            (SR_STATE_ACTIVE, [true; 7]),
            (SR_STATE_ROTATED, [true, false, false, true, true, true, true]),
            (SR_STATE_DISABLED, [false; 7]),
            (99, [false; 7]),
        ] {
            for (usage, allowed) in uses.iter().zip(allowed) {
                assert_eq!(answer(&version(state), *usage, 1000).is_ok(), allowed, "{state} {usage:#x}");
            }
        }
        assert!(answer(&Attributes::new(), CKA_SIGN, u64::MAX).is_ok_and(|until| until.is_none()));
    }

    #[test]
    fn an_old_active_version_reads_and_makes_nothing_new() {
        let (active, end) = (version(SR_STATE_ACTIVE), 1000 + 365 * DAY);
        assert_eq!(answer(&active, CKA_SIGN, end - 1).expect("young enough"), Some(end));
        // A clock that was set back makes no key old.
        assert_eq!(answer(&active, CKA_SIGN, 0).expect("young enough"), Some(end));
        for usage in [CKA_SIGN, CKA_ENCRYPT, CKA_WRAP] {
            let error = answer(&active, usage, end).expect_err("too old");
            assert_eq!(error.kind(), Kind::KeyFunctionNotPermitted);
            let text = error.message();
            assert!(text.contains("version 3 of the btc key of user\\n1") && text.contains("365 days"), "{text}");
        }
        assert!(answer(&active, CKA_VERIFY, u64::MAX).is_ok() && answer(&active, CKA_DECRYPT, u64::MAX).is_ok());
        let mut own = version(SR_STATE_ACTIVE);
        own.set(CKA_SR_ROTATION_INTERVAL, 0);
        own.set(CKA_SR_MAX_AGE, 0);
        assert_eq!(answer(&own, CKA_SIGN, u64::MAX).expect("a policy of its own"), None);
    }

    #[test]
    fn r35_a_find_shows_active_versions_unless_it_asks() {
        let mut template = Attributes::new();
        template.set(CKA_LABEL, b"label".as_slice());
        assert!(hides_others(&template));
        for id in ASKED_BY {
            let mut asking = template.clone();
            asking.set(id, 1);
            assert!(!hides_others(&asking));
        }
        assert!(!is_replaced(&version(SR_STATE_ACTIVE)) && !is_replaced(&Attributes::new()));
        assert!(is_replaced(&version(SR_STATE_ROTATED)) && is_replaced(&version(SR_STATE_DISABLED)));
        assert!(check_destroy(&version(SR_STATE_ROTATED)).is_err() && check_destroy(&Attributes::new()).is_ok());
    }
}
