//! `strongroom doctor`: finds out what is wrong before a program does. One line for each thing looked at.

mod files;
mod kms;
mod report;
mod rotation;
mod sign;
mod tokens;

use std::path::Path;

use strongroom::abi::compose;
use strongroom::config::{AuditSink, Config, Environment, StoreUrl};

use crate::args::DoctorOptions;
use crate::failure::Failure;
use crate::output::Output;

use report::Report;
use tokens::Tokens;

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
        let tokens = Tokens::open(config, &settings);
        kms::check(&settings, &tokens, &mut report);
        check_log(&settings, &mut report);
        check_audit(&settings, &mut report);
        tokens.check(&settings, options, &mut report);
    }
    check_memory(&mut report);
    output.result(&report.text(), &report.value())?;
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
            files::warn_of_read_only("store", path, report);
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

/// Tells where the log goes, and whether it can go there.
fn check_log(settings: &Config, report: &mut Report) {
    let level = settings.log.level.name();
    match &settings.log.file {
        None => report.ok("log", format!("level {level}, to stderr")),
        Some(file) => {
            report.ok("log", format!("level {level}, to {}", file.display()));
            files::check_takes_lines("log", file, report);
        }
    }
}

/// Looks at the files that copies of the audit trail go to.
fn check_audit(settings: &Config, report: &mut Report) {
    for copy in &settings.audit.copies {
        if let AuditSink::File(file) = copy {
            report.ok("audit", format!("mode {}, copies to {}", settings.audit.mode.name(), file.display()));
            files::check_takes_lines("audit", file, report);
        }
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
