//! `strongroom doctor`: finds out what is wrong before a program does. One line for each thing looked at.

mod files;
mod report;
mod rotation;
mod sign;

use std::path::Path;

use strongroom::abi::compose;
use strongroom::config::{Config, Environment, Plaintext, StoreUrl};
use strongroom::kms::{self, Settings};

use crate::args::DoctorOptions;
use crate::failure::Failure;
use crate::library;
use crate::output::Output;

use report::Report;

/// Locked memory below this is a warning: about a thousand keys and PINs fit in it.
const MEMLOCK_WANTED: u64 = 256 * 1024;

/// Runs the verb.
pub fn run(config: Option<&str>, options: &DoctorOptions, output: &Output) -> Result<(), Failure> {
    let mut report = Report::default();
    if let Some(settings) = check_config(config, &mut report) {
        if options.repair {
            repair(&settings, &mut report);
        }
        check_store(&settings, &mut report);
        check_kms(&settings, &mut report);
        check_log(&settings, &mut report);
        check_tokens(config, &settings, options, &mut report);
    }
    check_memory(&mut report);
    output.result(&report.text(), &report.value());
    if report.has_fault() { Err(Failure::Faults) } else { Ok(()) }
}

/// Reads the configuration and tells where it came from.
fn check_config(config: Option<&str>, report: &mut Report) -> Option<Config> {
    let settings = match Config::load(config) {
        Ok(settings) => settings,
        Err(error) => {
            report.fail("configuration", error.message());
            return None;
        }
    };
    match &settings.file {
        Some(file) => {
            report.ok("configuration", format!("read from {}", file.display()));
            files::check_not_writable_by_others("configuration", file, report);
        }
        None => {
            let places: Vec<_> =
                Environment::current().places().iter().map(|path| path.display().to_string()).collect();
            report.ok("configuration", format!("no file, so the defaults apply; looked for {}", places.join(", ")));
        }
    }
    let argon2 = settings.argon2;
    let (memory, passes, lanes) = (argon2.memory_mib, argon2.passes, argon2.lanes);
    report.ok("passwords", format!("Argon2id with {memory} MiB, {passes} passes, {lanes} lanes; {}", rules(&settings)));
    Some(settings)
}

/// Tells the rules for passwords in words.
fn rules(settings: &Config) -> String {
    let rules = &settings.password;
    let lock = match rules.max_attempts {
        0 => "never locked".to_owned(),
        tries => format!("locked after {tries} wrong tries"),
    };
    format!("at least {} characters, {lock}", rules.min_length)
}

/// Looks at the database: permissions, then what the store itself finds.
fn check_store(settings: &Config, report: &mut Report) {
    match &settings.store {
        StoreUrl::Memory => report.warn("store", "memory: tokens and keys are gone when the program ends".to_owned()),
        StoreUrl::Sqlite(path) if !path.exists() => {
            report.ok("store", format!("{} does not exist yet; the first use makes it", path.display()));
            files::check_can_be_made("store", path, report);
        }
        StoreUrl::Sqlite(path) => {
            files::check_private("store", path, report);
            check_database(settings, path, report);
        }
    }
}

/// Lets the store make its index anew.
fn repair(settings: &Config, report: &mut Report) {
    let StoreUrl::Sqlite(path) = &settings.store else {
        return report.fail("repair", "a store in memory has nothing to repair".to_owned());
    };
    if !path.exists() {
        return report.fail("repair", format!("{} does not exist, so there is nothing to repair", path.display()));
    }
    match compose::store_to_repair(settings).and_then(|store| store.repair()) {
        Ok(entries) => report.ok("repair", format!("the index was made anew: {entries} entries")),
        Err(error) => report.fail("repair", format!("nothing was changed: {}", error.message())),
    }
}

/// Lets the store check itself.
fn check_database(settings: &Config, path: &Path, report: &mut Report) {
    match compose::store_to_read(settings).and_then(|store| store.check()) {
        Ok(faults) if faults.is_empty() => report.ok("store", format!("{} is in order", path.display())),
        Ok(faults) => faults.into_iter().for_each(|fault| report.fail("store", fault)),
        Err(error) => report.fail("store", error.message()),
    }
}

/// Looks at the master key file of each local provider, and asks each other one how it is.
fn check_kms(settings: &Config, report: &mut Report) {
    for (name, provider) in &settings.kms {
        let check = format!("kms.{name}");
        match provider.path("file") {
            None if provider.kind != "local" => check_remote(&check, provider, report),
            None => report.warn(&check, "the master key lives in memory and is gone when the program ends".to_owned()),
            Some(file) if !file.exists() => {
                report.ok(&check, format!("{} does not exist yet; the first token makes it", file.display()));
                files::check_can_be_made(&check, file, report);
            }
            Some(file) => {
                files::check_private(&check, file, report);
                check_beside_database(settings, &check, file, report);
            }
        }
    }
}

/// Asks a provider behind a network.
fn check_remote(check: &str, settings: &Settings, report: &mut Report) {
    match kms::open(settings).and_then(|provider| provider.health().and_then(|()| provider.describe())) {
        Ok(found) => report.ok(check, format!("master key {} is {}", found.master_key, found.state.name())),
        Err(error) => report.fail(check, error.message()),
    }
}

/// Warns of a master key that lies where the database does: whoever copies the folder has both.
fn check_beside_database(settings: &Config, check: &str, file: &Path, report: &mut Report) {
    match &settings.store {
        StoreUrl::Sqlite(database) if database.parent() == file.parent() => {
            let text = "lies beside the database, so only the PINs protect a stolen copy of the folder; set [kms.…] file to \
                        another disk or machine";
            report.warn(check, format!("{} {text}", file.display()));
        }
        _ => report.ok(check, format!("master key in {}", file.display())),
    }
}

/// Tells where the log goes, and whether it can go there.
fn check_log(settings: &Config, report: &mut Report) {
    let level = settings.log.level.name();
    match &settings.log.file {
        None => report.ok("log", format!("level {level}, to stderr")),
        Some(file) => {
            report.ok("log", format!("level {level}, to {}", file.display()));
            files::check_can_be_made("log", file, report);
        }
    }
}

/// Looks at each token, and signs if that was asked for.
fn check_tokens(config: Option<&str>, settings: &Config, options: &DoctorOptions, report: &mut Report) {
    const NONE: &str = "there is none; make one with `strongroom token init --label NAME`";
    if matches!(&settings.store, StoreUrl::Sqlite(path) if !path.exists()) {
        // Opening the library would make the database, and doctor changes nothing.
        return if options.sign {
            report.fail("tokens", NONE.to_owned())
        } else {
            report.warn("tokens", NONE.to_owned())
        };
    }
    let tokens = library::open(config).and_then(|library| Ok((library::tokens(&library)?, library)));
    let (tokens, library) = match tokens {
        Ok(found) => found,
        Err(failure) => return report.fail("tokens", failure.message()),
    };
    if tokens.is_empty() {
        report.warn("tokens", NONE.to_owned());
    }
    for token in &tokens {
        check_token(settings, token, report);
        rotation::check(&library, token, report);
    }
    for label in settings.tokens.iter().map(|token| &token.label) {
        if !tokens.iter().any(|token| token.info.label == *label) {
            report.warn(
                "configuration",
                format!("[[token]] \"{label}\" has no token; `strongroom token init --label {label}`"),
            );
        }
    }
    if options.sign {
        match sign::sign_and_verify(&library, options) {
            Ok(text) => report.ok("signature", text),
            Err(failure) => report.fail("signature", failure.message()),
        }
    }
}

/// Looks at one token: its PIN and its policy.
fn check_token(settings: &Config, token: &library::Token, report: &mut Report) {
    let label = &token.info.label;
    let settings = settings.token(label);
    let (kms, plaintext) = (&settings.kms, settings.plaintext.name());
    let pin = token.pin_state();
    let text = format!("\"{label}\", serial {}: user PIN {pin}, KMS {kms}, plaintext \"{plaintext}\"", token.serial());
    match (pin, settings.plaintext) {
        ("locked", _) => report.fail("token", format!("{text}; the SO sets a new user PIN")),
        ("not set", _) => report.warn("token", format!("{text}; the SO sets one before keys can be used")),
        ("set", Plaintext::Never) => report.ok("token", text),
        ("set", Plaintext::Import) => report.warn("token", format!("{text}: key material may be brought in")),
        ("set", Plaintext::Compat) => {
            report.warn("token", format!("{text}: keys may be made that can be read in plaintext"))
        }
        _ => report.warn("token", text),
    }
}

/// Looks at how much memory may be locked against swapping.
fn check_memory(report: &mut Report) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let text = match locked_memory(&limits) {
        Some(None) => return report.ok("memory", "secrets can be locked in memory without limit".to_owned()),
        Some(Some(bytes)) if bytes >= MEMLOCK_WANTED => {
            return report.ok("memory", format!("secrets can be locked in memory up to {} KiB", bytes / 1024));
        }
        Some(Some(bytes)) => format!("only {} KiB of memory can be locked", bytes / 1024),
        None => "the limit on locked memory is not known".to_owned(),
    };
    report.warn(
        "memory",
        format!("{text}; raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=), or secrets may be swapped to disk"),
    );
}

/// Reads the soft limit of locked memory: `None` when it is not there, `Some(None)` when there is no limit.
fn locked_memory(limits: &str) -> Option<Option<u64>> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(None),
        bytes => bytes.parse().ok().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_locked_memory_is_read() {
        let limits =
            |value: &str| format!("Max processes  1 2 processes\nMax locked memory         {value}   9   bytes\n");
        assert_eq!(locked_memory(&limits("8388608")), Some(Some(8_388_608)));
        assert_eq!(locked_memory(&limits("unlimited")), Some(None));
        assert_eq!(locked_memory("nothing"), None);
    }
}
