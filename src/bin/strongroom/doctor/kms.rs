//! Looks at the KMS providers: the files of local ones, and what each says of its master key.

use std::path::Path;

use strongroom::config::{Config, PinSource, StoreUrl};
use strongroom::kms::{self, Settings};
use strongroom::seal::FORGEABLE;

use super::files;
use super::report::Report;
use super::tokens::Tokens;

/// Looks at each provider.
pub fn check(settings: &Config, tokens: &Tokens, report: &mut Report) {
    for (name, provider) in &settings.kms {
        let check = format!("kms.{name}");
        match (file(provider), provider.kind == "local" && provider.text("credential").is_none()) {
            (Some(file), _) if !file.exists() => check_missing(settings, tokens, name, file, report),
            (Some(file), _) => check_file(settings, provider, file, report),
            (None, true) => {
                report.warn(&check, "the master key lives in memory and is gone when the program ends".to_owned());
            }
            (None, false) => {
                match describe(provider) {
                    Ok(text) => report.ok(&check, text),
                    Err(text) => report.fail(&check, text),
                }
                check_forgery(settings, provider, &check, report);
            }
        }
    }
}

/// Tells in which file a local provider has its master keys; a credential goes before it.
fn file(provider: &Settings) -> Option<&Path> {
    provider.path("file").filter(|_| provider.text("credential").is_none())
}

/// Asks a provider how it is and which master key it has.
fn describe(provider: &Settings) -> Result<String, String> {
    let found = kms::open(provider).and_then(|provider| provider.health().and_then(|()| provider.describe()));
    let found = found.map_err(|error| error.message())?;
    Ok(format!("master key {} is {}", found.master_key, found.state.name()))
}

/// Warns of tokens without a PIN where anybody can wrap what the provider unwraps; a provider of the configuration opens what names it,
/// whichever the token has. One that cannot tell has failed already.
fn check_forgery(settings: &Config, provider: &Settings, check: &str, report: &mut Report) {
    let Some(pinless) = settings.tokens.iter().find(|token| token.pin_source == PinSource::Kms) else { return };
    if kms::open(provider).is_ok_and(|provider| provider.wraps_by_public_key().is_ok_and(|public| public)) {
        let label = pinless.label.escape_debug();
        report
            .warn(check, format!("the token \"{label}\" opens without a PIN (pin_source = \"kms\"), and {FORGEABLE}"));
    }
}

/// Tells of a file that is not there: the first token makes it, unless there are some already that it should open.
fn check_missing(settings: &Config, tokens: &Tokens, name: &str, file: &Path, report: &mut Report) {
    let (check, closed) = (format!("kms.{name}"), tokens.closed_under(settings, name));
    if !closed.is_empty() {
        let text = format!("{} is missing, and without it nobody can open {}", file.display(), closed.join(", "));
        return report.fail(&check, format!("{text}; put it back from a backup"));
    }
    report.ok(&check, format!("{} does not exist yet; the first token makes it", file.display()));
    files::check_can_be_made(&check, file, report);
}

/// Looks at a file that is there: who else could read it, what is in it, and where it lies.
fn check_file(settings: &Config, provider: &Settings, file: &Path, report: &mut Report) {
    let check = format!("kms.{}", provider.name);
    files::check_private(&check, file, report);
    match (describe(provider), &settings.store) {
        (Err(text), _) => report.fail(&check, text),
        (Ok(_), StoreUrl::Sqlite(database)) if database.parent() == file.parent() => {
            let text = "lies beside the database, so only the PINs protect a stolen copy of the folder; set [kms.…] file to \
                        another disk or machine";
            report.warn(&check, format!("{} {text}", file.display()));
        }
        (Ok(text), _) => report.ok(&check, format!("{text}, in {}", file.display())),
    }
}
