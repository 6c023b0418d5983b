//! What can go wrong, and the exit code of each.

use strongroom::error::{Error, Kind};

/// Why the command did not do what it was asked for.
#[derive(Debug)]
pub enum Failure {
    /// The library says no.
    Library(Error),
    /// An argument is wrong in a way that the parser cannot see.
    Usage(String),
    /// No token or key fits, or more than one does.
    Selector(String),
    /// `doctor` or `audit verify` found faults, which it has told already.
    Faults,
    /// `rotate` leaves keys that are due, which it has told already.
    Due,
    /// `migrate` leaves records that cannot be moved, which it has told already.
    Unmoved,
    /// `rotate --warn-days` finds keys that will be due, which it has told already.
    DueSoon,
}

impl Failure {
    /// Tells the exit code; `strongroom --help` documents them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Library(error) if is_about_pin(error.kind()) => 4,
            // There is no such managed key, or no such version of it.
            Failure::Library(error) if error.kind() == Kind::KeyHandleInvalid => 3,
            Failure::Library(_) | Failure::Faults => 1,
            Failure::Usage(_) => 2,
            Failure::Selector(_) => 3,
            Failure::Due => 5,
            Failure::Unmoved => 6,
            Failure::DueSoon => 7,
        }
    }

    /// Names the kind of failure for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Failure::Library(error) => error.kind().name(),
            Failure::Usage(_) => "usage",
            Failure::Selector(_) => "selector",
            Failure::Faults => "faults",
            Failure::Due => "due",
            Failure::Unmoved => "unmoved",
            Failure::DueSoon => "due-soon",
        }
    }

    /// Tells what happened and what to do.
    pub fn message(&self) -> String {
        match self {
            // Where the store can only be read, the sessions of the command are read-only, and no others.
            Failure::Library(error) if error.kind() == Kind::SessionReadOnly => {
                Error::from(Kind::TokenWriteProtected).message()
            }
            Failure::Library(error) => in_verbs(error.message()),
            Failure::Usage(text) | Failure::Selector(text) => text.clone(),
            Failure::Faults => "faults were found".to_owned(),
            Failure::Due => "keys are due that were not rotated".to_owned(),
            Failure::Unmoved => "records were not moved".to_owned(),
            Failure::DueSoon => "keys will be due soon".to_owned(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Library(error)
    }
}

/// What the library's advice to C programs is called here.
const VERBS: &[(&str, &str)] = &[
    ("old_password of SR_RotateKey", "--old-password-source"),
    ("SR_RotateKey", "`strongroom key rotate`"),
    ("SR_ListVersions", "`strongroom key versions`"),
    ("SR_SetVersionState", "`strongroom key state`"),
    ("SR_DestroyVersion", "`strongroom key destroy`"),
    ("SR_RotateMasterKey", "`strongroom kms rotate`"),
    ("SR_MoveKms", "`strongroom kms move`"),
];

/// Puts verbs of the command for functions of the library.
fn in_verbs(message: String) -> String {
    VERBS.iter().fold(message, |text, (function, verb)| text.replace(function, verb))
}

/// Tells whether an error is about a PIN.
fn is_about_pin(kind: Kind) -> bool {
    matches!(kind, Kind::PinExpired | Kind::PinIncorrect | Kind::PinInvalid | Kind::PinLenRange | Kind::PinLocked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        assert_eq!(Failure::Library(Error::from(Kind::DeviceError)).exit_code(), 1);
        assert_eq!(Failure::Faults.exit_code(), 1);
        assert_eq!((Failure::Due.exit_code(), Failure::Unmoved.exit_code(), Failure::DueSoon.exit_code()), (5, 6, 7));
        assert_eq!(Failure::Usage(String::new()).exit_code(), 2);
        assert_eq!(Failure::Selector(String::new()).exit_code(), 3);
        for kind in [Kind::PinIncorrect, Kind::PinLocked, Kind::PinLenRange, Kind::PinInvalid] {
            assert_eq!(Failure::Library(Error::from(kind)).exit_code(), 4);
        }
        assert_eq!(Failure::Library(Error::from(Kind::KeyHandleInvalid)).exit_code(), 3);
    }

    #[test]
    fn advice_names_verbs_and_no_functions() {
        let told = |text: &'static str| Failure::from(Error::new(Kind::ActionProhibited, text)).message();
        assert!(
            told("it is there: SR_RotateKey makes a new one").contains(": `strongroom key rotate` makes a new one")
        );
        assert!(told("it is needed (old_password of SR_RotateKey)").contains("(--old-password-source)"));
        assert!(Failure::from(Error::from(Kind::SessionReadOnly)).message().contains("the store is read-only"));
    }
}
