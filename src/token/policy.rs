//! What a token allows: password rules, lock-out, and whether key material may cross the boundary in plaintext.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::seal::Sealer;
use crate::secret::SecureBytes;

/// The longest PIN in bytes.
pub const MAX_PIN_LEN: usize = 255;

/// Whether key material may cross the C boundary in plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plaintext {
    /// Never: keys are always sensitive, and key material is not taken in.
    Never,
    /// C_CreateObject may bring key material in; keys are always sensitive.
    Import,
    /// Also keys with `CKA_SENSITIVE` false, where a template asks for them.
    Compat,
}

/// A class of characters that a PIN must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CharacterClass {
    /// A lower-case letter.
    Lower,
    /// An upper-case letter.
    Upper,
    /// A digit.
    Digit,
    /// Anything that is neither a letter nor a digit.
    Symbol,
}

impl CharacterClass {
    fn matches(self, c: char) -> bool {
        match self {
            Self::Lower => c.is_lowercase(),
            Self::Upper => c.is_uppercase(),
            Self::Digit => c.is_numeric(),
            Self::Symbol => !c.is_alphanumeric(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Lower => "a lower-case letter",
            Self::Upper => "an upper-case letter",
            Self::Digit => "a digit",
            Self::Symbol => "a symbol",
        }
    }
}

/// What a new PIN must be like, and how many wrong tries lock it.
#[derive(Debug, Clone)]
pub struct PasswordRules {
    /// The shortest PIN in bytes.
    pub min_length: usize,
    /// Classes of which it must have at least one character each.
    pub classes: Vec<CharacterClass>,
    /// Wrong tries in a row that lock the PIN; 0 never locks it.
    pub max_attempts: u32,
}

impl PasswordRules {
    /// Checks a new PIN.
    ///
    /// # Errors
    /// `PinLenRange` for a wrong length, `PinInvalid` for a missing class or bytes that are not UTF-8; the text states the rules.
    pub fn check(&self, pin: &SecureBytes) -> Result<()> {
        self.check_named(pin, "PIN")
    }

    /// Checks a new PIN or the new password of a key; `what` says which.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn check_named(&self, pin: &SecureBytes, what: &str) -> Result<()> {
        let broken = |kind, how: &str| Err(self.broken(kind, what, how));
        if pin.len() < self.min_length || pin.len() > MAX_PIN_LEN {
            return broken(Kind::PinLenRange, "has the wrong length");
        }
        let Ok(text) = std::str::from_utf8(pin.expose()) else {
            return broken(Kind::PinInvalid, "is not UTF-8 text");
        };
        match self.classes.iter().find(|class| !text.chars().any(|c| class.matches(c))) {
            None => Ok(()),
            Some(class) => broken(Kind::PinInvalid, &format!("lacks {}", class.name())),
        }
    }

    fn broken(&self, kind: Kind, what: &str, how: &str) -> Error {
        let classes: Vec<_> = self.classes.iter().map(|class| class.name()).collect();
        let mut rules = format!("{} to {MAX_PIN_LEN} bytes", self.min_length);
        if !classes.is_empty() {
            rules = format!("{rules} with {}", classes.join(", "));
        }
        Error::new(kind, format!("the new {what} {how}; it must have {rules} (see [password] in the configuration)"))
    }
}

/// When the versions of managed keys are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// A version is due so many days after it was made; 0 is never.
    pub interval_days: u64,
    /// So many days after it was made, the active version is refused for new signatures and ciphertexts; 0 is never.
    pub max_age_days: u64,
    /// Whether a due key is rotated without being asked for by name.
    pub auto_rotate: bool,
}

/// The most days that an interval or an age may have: a hundred years.
pub const MOST_DAYS: u64 = 36_500;
const SECONDS_A_DAY: u64 = 86_400;

impl Rotation {
    /// Checks that the rules do not contradict each other.
    ///
    /// # Errors
    /// `ArgumentsBad` that says what would be right.
    pub fn check(&self) -> Result<()> {
        let (interval, age) = (self.interval_days, self.max_age_days);
        let text = match () {
            () if interval > MOST_DAYS || age > MOST_DAYS => "an interval and an age have at most 36500 days",
            () if interval > 0 && age > 0 && interval >= age => {
                "the maximum age must be longer than the rotation interval: keys would be refused before they are rotated"
            }
            () if interval == 0 && self.auto_rotate => "automatic rotation needs a rotation interval above 0",
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
}

/// Adds days to a time; 0 days are no limit.
fn after_days(time: u64, days: u64) -> Option<u64> {
    (days > 0).then(|| time.saturating_add(days.saturating_mul(SECONDS_A_DAY)))
}

/// What a token allows.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Whether key material may cross the boundary.
    pub plaintext: Plaintext,
    /// What a PIN must be like.
    pub password: PasswordRules,
    /// When managed keys are rotated that have no policy of their own.
    pub rotation: Rotation,
}

/// Reads a PIN from where the configuration says.
pub type ReadPin = Arc<dyn Fn() -> Result<SecureBytes> + Send + Sync>;

/// Where the user PIN of a token comes from.
#[derive(Clone)]
pub enum PinSource {
    /// From whoever calls C_Login.
    Prompt,
    /// From the configuration: the token opens by itself with the first session.
    Given(ReadPin),
    /// There is none: the token opens by itself for the machine that the KMS serves.
    Machine,
}

impl PinSource {
    /// Tells whether the token opens by itself, so that nobody needs to log in.
    pub fn opens_itself(&self) -> bool {
        !matches!(self, Self::Prompt)
    }
}

/// How a token is kept: what it allows, how its token key is sealed, and what opens it.
#[derive(Clone)]
pub struct Profile {
    /// What it allows.
    pub policy: Policy,
    /// What seals its token key.
    pub sealer: Arc<Sealer>,
    /// Where its user PIN comes from.
    pub pin_source: PinSource,
    /// The KMS whose keys it shows, for a token of keys that live in a KMS.
    pub remote: Option<Arc<dyn super::remote::RemoteToken>>,
}

/// The profile of each token, by its label.
pub struct Profiles {
    /// For tokens that the configuration does not name.
    pub default: Profile,
    /// For those that it names.
    pub named: HashMap<String, Profile>,
}

impl Profiles {
    /// Finds the profile of the token with this label.
    pub fn of(&self, label: &str) -> &Profile {
        self.named.get(label).unwrap_or(&self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> PasswordRules {
        use CharacterClass::*;
        PasswordRules { min_length: 12, classes: vec![Lower, Upper, Digit, Symbol], max_attempts: 10 }
    }

    #[test]
    fn rules_of_rotation_that_contradict_each_other_are_refused() {
        let rules = |interval_days, max_age_days, auto_rotate| Rotation { interval_days, max_age_days, auto_rotate };
        for good in [rules(90, 365, true), rules(90, 0, true), rules(0, 365, false), rules(0, 0, false)] {
            assert!(good.check().is_ok(), "{good:?}");
        }
        for bad in [rules(90, 90, true), rules(91, 90, false), rules(0, 365, true), rules(36_501, 0, false)] {
            assert_eq!(bad.check().expect_err("contradicts itself").kind(), Kind::ArgumentsBad, "{bad:?}");
        }
        assert_eq!((rules(1, 2, true).due(100), rules(1, 2, true).end(100)), (Some(86_500), Some(172_900)));
        assert_eq!((rules(0, 0, false).due(100), rules(0, 0, false).end(u64::MAX)), (None, None));
        assert_eq!(rules(1, 2, true).end(u64::MAX), Some(u64::MAX));
    }

    #[test]
    fn r22_rules_name_what_is_missing() {
        let check =
            |pin: &[u8]| rules().check(&SecureBytes::copy_from(pin)).map_err(|error| (error.kind(), error.message()));
        assert!(check(b"Correct-Horse-7").is_ok());
        for (pin, kind, word) in [
            (b"Short-1".as_slice(), Kind::PinLenRange, "length"),
            (&[b'x'; 256], Kind::PinLenRange, "length"),
            (b"correct-horse-7", Kind::PinInvalid, "upper-case"),
            (b"Correct-Horse-x", Kind::PinInvalid, "digit"),
            (b"CorrectHorse777", Kind::PinInvalid, "symbol"),
            (b"\xff\xfe1aA-aaaaaaaaa", Kind::PinInvalid, "UTF-8"),
        ] {
            let (found, text) = check(pin).expect_err("breaks a rule");
            assert_eq!(found, kind, "{text}");
            assert!(text.contains(word) && text.contains("12 to 255 bytes"), "{text}");
        }
    }
}
