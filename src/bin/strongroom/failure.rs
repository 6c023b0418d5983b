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
}

impl Failure {
    /// Tells the exit code; `strongroom --help` documents them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Library(error) if is_about_pin(error.kind()) => 4,
            Failure::Library(_) | Failure::Faults => 1,
            Failure::Usage(_) => 2,
            Failure::Selector(_) => 3,
            Failure::Due => 5,
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
        }
    }

    /// Tells what happened and what to do.
    pub fn message(&self) -> String {
        match self {
            Failure::Library(error) => error.message(),
            Failure::Usage(text) | Failure::Selector(text) => text.clone(),
            Failure::Faults => "faults were found".to_owned(),
            Failure::Due => "keys are due that were not rotated".to_owned(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Library(error)
    }
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
        assert_eq!(Failure::Due.exit_code(), 5);
        assert_eq!(Failure::Usage(String::new()).exit_code(), 2);
        assert_eq!(Failure::Selector(String::new()).exit_code(), 3);
        for kind in [Kind::PinIncorrect, Kind::PinLocked, Kind::PinLenRange, Kind::PinInvalid] {
            assert_eq!(Failure::Library(Error::from(kind)).exit_code(), 4);
        }
    }
}
