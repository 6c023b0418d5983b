//! `strongroom token init`: makes a token with an SO PIN and a user PIN.

use serde_json::json;
use strongroom::abi::compose;
use strongroom::ck::CKU_SO;
use strongroom::config::{self, CharacterClass, Config, Password};
use strongroom::secret::SecureBytes;

use crate::args::TokenInitOptions;
use crate::failure::Failure;
use crate::library;
use crate::output::Output;
use crate::pin::PinSource;

/// Runs the verb.
pub fn run(config_file: Option<&str>, options: &TokenInitOptions, output: &Output) -> Result<(), Failure> {
    // Blanks at the end are no part of a label: PKCS #11 fills it up with them.
    let label = options.label.trim_end_matches(' ');
    let padded = padded(label)?;
    let settings = Config::load(config_file)?;
    let rules = &settings.password;
    // Such a token has no user PIN: the KMS opens it.
    let opens_by_kms = settings.token(label).pin_source == config::PinSource::Kms;
    let library = library::open(config_file)?;
    if let Some(token) = library::tokens(&library)?.into_iter().find(|token| token.info.label == label) {
        let text = format!("a token with this label exists, serial {}; choose another label", token.serial());
        return Err(Failure::Selector(text));
    }
    if [&options.so_pin_source, &options.pin.pin_source].contains(&&PinSource::Prompt) {
        output.hint(&explanation(rules));
    }
    let so_pin = options.so_pin_source.read_new("SO PIN")?;
    let user_pin = if opens_by_kms { None } else { Some(options.pin.pin_source.read_new("user PIN")?) };
    // Both before the token is made: a token whose user PIN is refused would be left half made.
    let policy = compose::password(rules)?;
    policy.check(&so_pin).map_err(|error| error.context("SO PIN"))?;
    if let Some(user_pin) = &user_pin {
        policy.check(user_pin).map_err(|error| error.context("user PIN"))?;
    }
    // Only now: while a person types the PINs, another process may make a token of its own.
    let slot = library::free_slot(&library)?;
    library.init_new_token(slot, &so_pin, &padded)?;
    let selector = crate::args::Selector { token: Some(label.to_owned()), serial: None };
    let token = library::token(&library, &selector)?;
    if let Some(user_pin) = user_pin {
        set_user_pin(&library, &token, so_pin, user_pin)?;
    }
    let text = format!("token \"{label}\" is ready: serial {}, slot {}", token.serial(), token.slot);
    output.result(&text, &json!({ "label": label, "serial": token.serial(), "slot": token.slot }))
}

/// Sets the user PIN as the SO.
fn set_user_pin(
    library: &strongroom::token::Library,
    token: &library::Token,
    so_pin: SecureBytes,
    user_pin: SecureBytes,
) -> Result<(), Failure> {
    let session = library::session(library, token)?;
    library::login(&session, CKU_SO, so_pin)?;
    session.init_pin(Some(user_pin)).map_err(|error| {
        error.context(
            "the token was made but its user PIN was refused; the SO sets one (pkcs11-tool --init-pin), or make another token",
        )
    })?;
    Ok(())
}

/// Pads a label with blanks to the 32 bytes of PKCS #11.
fn padded(label: &str) -> Result<[u8; 32], Failure> {
    let mut padded = [b' '; 32];
    match padded.get_mut(..label.len()) {
        Some(start) if !label.trim().is_empty() => start.copy_from_slice(label.as_bytes()),
        _ => return Err(Failure::Usage("a token's label has 1 to 32 bytes of UTF-8".to_owned())),
    }
    Ok(padded)
}

/// Explains the two PINs and the rules for them.
fn explanation(rules: &Password) -> String {
    let class = |class: &CharacterClass| match class {
        CharacterClass::Lower => "a lower-case letter",
        CharacterClass::Upper => "an upper-case letter",
        CharacterClass::Digit => "a digit",
        CharacterClass::Symbol => "a symbol",
    };
    let classes: Vec<_> = rules.classes.iter().map(class).collect();
    let with = if classes.is_empty() { String::new() } else { format!(", with {}", classes.join(", ")) };
    let lock = match rules.max_attempts {
        0 => String::new(),
        tries => format!(" After {tries} wrong tries in a row it is locked."),
    };
    format!(
        "The SO PIN administers the token, the user PIN uses its keys. Keep both: without them nobody can open the token.\n\
         A PIN has at least {} characters{with}.{lock}",
        rules.min_length
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_padded_or_refused() {
        assert_eq!(padded("wallet").ok().as_ref(), Some(b"wallet                          "));
        assert!(padded(&"x".repeat(32)).is_ok());
        assert!(["", "  ", &"x".repeat(33)].iter().all(|label| padded(label).is_err()));
    }

    #[test]
    fn the_rules_are_explained() {
        let rules = Password { min_length: 12, classes: vec![CharacterClass::Digit], max_attempts: 10 };
        let text = explanation(&rules);
        assert!(
            text.contains("at least 12 characters, with a digit.") && text.contains("After 10 wrong tries"),
            "{text}"
        );
    }
}
