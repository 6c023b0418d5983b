//! Looks at the tokens: whether the KMS opens each, its PIN, its policy and its keys, and whether one signs.

use std::sync::Arc;

use strongroom::config::{Config, Plaintext, StoreUrl};
use strongroom::token::Library;

use super::report::Report;
use super::{rotation, sign};
use crate::args::DoctorOptions;
use crate::failure::Failure;
use crate::library::{self, Token};

/// What is said where there is none.
const NONE: &str = "there is none; make one with `strongroom token init --label NAME`";

/// The tokens of the store; `None` where there is no database yet.
pub struct Tokens(Result<Option<Opened>, Failure>);

/// The library, and what it found.
struct Opened {
    library: Arc<Library>,
    found: Vec<Found>,
}

/// A token, and the master key that opens it, or why none does.
struct Found {
    token: Token,
    opened: strongroom::error::Result<String>,
}

impl Tokens {
    /// Opens the library, and lets the KMS of each token open it, which takes no PIN.
    pub fn open(config: Option<&str>, settings: &Config) -> Self {
        if matches!(&settings.store, StoreUrl::Sqlite(path) if !path.exists()) {
            // Opening the library would make the database, and doctor changes nothing.
            return Self(Ok(None));
        }
        Self(library::open(config).and_then(|library| {
            let found = |token: Token| Found { opened: library.check_master_key(token.slot), token };
            let found = library::tokens(&library)?.into_iter().map(found).collect();
            Ok(Some(Opened { library, found }))
        }))
    }

    fn found(&self) -> &[Found] {
        match &self.0 {
            Ok(Some(opened)) => &opened.found,
            _ => &[],
        }
    }

    /// Names those that are to be under a provider, and that nothing opens.
    pub fn closed_under(&self, settings: &Config, provider: &str) -> Vec<String> {
        let under = |found: &&Found| settings.token(&found.token.info.label).kms == provider;
        let closed = self.found().iter().filter(|found| found.opened.is_err()).filter(under);
        closed.map(|found| format!("token \"{}\"", found.token.info.label.escape_debug())).collect()
    }

    /// Looks at each token, and signs if that was asked for.
    pub fn check(&self, settings: &Config, options: &DoctorOptions, report: &mut Report) {
        let library = match &self.0 {
            Ok(Some(opened)) => &opened.library,
            Ok(None) if options.sign => return report.fail("tokens", NONE.to_owned()),
            Ok(None) => return report.warn("tokens", NONE.to_owned()),
            Err(failure) => return report.fail("tokens", failure.message()),
        };
        if self.found().is_empty() {
            report.warn("tokens", NONE.to_owned());
        }
        for found in self.found() {
            check_token(settings, found, report);
            rotation::check(library, &found.token, report);
        }
        for label in settings.tokens.iter().map(|token| &token.label) {
            if !self.found().iter().any(|found| found.token.info.label == *label) {
                let text = format!("[[token]] \"{label}\" has no token; `strongroom token init --label {label}`");
                report.warn("configuration", text);
            }
        }
        if options.sign {
            sign::check(library, options, report);
        }
    }
}

/// Looks at one token: its KMS, its PIN and its policy.
fn check_token(settings: &Config, found: &Found, report: &mut Report) {
    let (token, label) = (&found.token, found.token.info.label.escape_debug());
    let settings = settings.token(&token.info.label);
    let (kms, plaintext) = (&settings.kms, settings.plaintext.name());
    let pin = token.pin_state();
    let text = format!("\"{label}\", serial {}: user PIN {pin}, KMS {kms}, plaintext \"{plaintext}\"", token.serial());
    match (&found.opened, pin, settings.plaintext) {
        (Err(error), ..) => report.fail("token", format!("{text}; the KMS does not open it: {}", error.message())),
        (_, "locked", _) => report.fail("token", format!("{text}; the SO sets a new user PIN")),
        (_, "not set", _) => report.warn("token", format!("{text}; the SO sets one before keys can be used")),
        (Ok(key), "set", Plaintext::Never) => report.ok("token", format!("{text}; master key {key} opens it")),
        (_, "set", Plaintext::Import) => report.warn("token", format!("{text}: key material may be brought in")),
        (_, "set", Plaintext::Compat) => {
            report.warn("token", format!("{text}: keys may be made that can be read in plaintext"));
        }
        _ => report.warn("token", text),
    }
}
