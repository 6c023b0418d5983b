//! What a token allows: password rules, lock-out, and whether key material may cross the boundary in plaintext.

use std::collections::HashMap;
use std::sync::Arc;

use super::rotation::Rules;
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

/// What a token allows.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Whether key material may cross the boundary.
    pub plaintext: Plaintext,
    /// What a PIN must be like.
    pub password: PasswordRules,
    /// When managed keys are rotated that have no policy of their own.
    pub rotation: Rules,
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
