//! `strongroom backup …`: backups of tokens, written, looked at, verified and restored.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use strongroom::ck::CKU_SO;
use strongroom::keys::backup::{self, ImportOptions, Place, Scope, Secrets, To};
use strongroom::secret::SecureBytes;
use strongroom::token::{Library, Session};

use crate::args::{BackupExportOptions, BackupImportOptions, BackupSecrets, BackupVerifyOptions, Selector};
use crate::failure::Failure;
use crate::library;
use crate::managed::utc;
use crate::output::Output;
use crate::pin::PinSource;

/// How often progress is told, and after what time for the first time.
const PACE: Duration = Duration::from_secs(1);

/// Tells on the terminal how far it is.
struct Meter {
    shown: bool,
    last: Instant,
    what: &'static str,
}

impl Meter {
    fn new(what: &'static str) -> Self {
        Self { shown: false, last: Instant::now(), what }
    }

    fn tell(&mut self, count: u64) {
        if self.last.elapsed() < PACE || !io::stderr().is_terminal() {
            return;
        }
        (self.last, self.shown) = (Instant::now(), true);
        let _ = write!(io::stderr().lock(), "\r{}: {count} records", self.what);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.shown {
            let _ = writeln!(io::stderr().lock());
        }
    }
}

/// Runs `backup export`.
pub fn export(config: Option<&str>, options: &BackupExportOptions, output: &Output) -> Result<(), Failure> {
    let scope = scope(options.owner.as_deref(), options.asset.as_deref())?;
    let library = library::open(config)?;
    let session = open(&library, &options.token, &options.pin.pin_source, options.so_pin_source.as_ref())?;
    let mut meter = Meter::new("written");
    if options.to.as_os_str() == "-" {
        backup::export(&session, &scope, To::Writer(&mut io::stdout().lock()), &mut |count| meter.tell(count))?;
        return Ok(());
    }
    let to = To::File { path: options.to.clone(), overwrite: options.overwrite };
    let report = backup::export(&session, &scope, to, &mut |count| meter.tell(count))?;
    drop(meter);
    let text = format!(
        "{} records in {}\nit opens with the KMS key {} (type {}) and a PIN of the token{}",
        at(&report, "/records"),
        options.to.display(),
        shown(&report, "/kms/key"),
        shown(&report, "/kms/provider"),
        recovery(at(&report, "/recovery"))
    );
    output.result(&text, &report)?;
    if at(&report, "/data_keys").as_u64().is_some_and(|count| count > 0) {
        output.hint(&format!(
            "{} of its keys have a data key of their own, which only the KMS opens: it must be at hand when they are restored",
            at(&report, "/data_keys")
        ));
        return Ok(());
    }
    if at(&report, "/recovery").as_array().is_some_and(Vec::is_empty) {
        output
            .hint("without that KMS key, or without a PIN, it opens for nobody: see `strongroom recovery add --help`");
    }
    Ok(())
}

/// Runs `backup inspect`.
pub fn inspect(path: &Path, output: &Output) -> Result<(), Failure> {
    let report = backup::inspect(path)?;
    output.result(&described(&report), &report)
}

/// Runs `backup verify`.
pub fn verify(config: Option<&str>, options: &BackupVerifyOptions, output: &Output) -> Result<(), Failure> {
    let library = library::open(config)?;
    let secrets = secrets(&options.secrets)?;
    let mut meter = Meter::new("opened");
    let report = backup::verify(Place::Library(&library), &options.file, &secrets, &mut |count| meter.tell(count))?;
    drop(meter);
    let kms = match at(&report, "/kms_opens") {
        Value::Bool(true) => "the KMS opens it, so that the PINs of its time open it".to_owned(),
        why => format!("the KMS does not open it here, so that only its recovery envelopes do: {}", shown(why, "")),
    };
    let text = format!(
        "{}\nopened by {}: every record opens, and nothing was altered\n{} managed keys of {} owners, {} versions\n{kms}",
        described(&report),
        shown(&report, "/opened_by"),
        at(&report, "/managed_keys"),
        at(&report, "/owners"),
        at(&report, "/versions")
    );
    output.result(&text, &report)
}

/// Runs `backup import`.
pub fn import(config: Option<&str>, options: &BackupImportOptions, output: &Output) -> Result<(), Failure> {
    let scope = scope(options.owner.as_deref(), options.asset.as_deref())?;
    let library = library::open(config)?;
    let session = options.into.as_ref().map(|label| {
        let selector = Selector { token: Some(label.clone()), serial: None };
        open(&library, &selector, &options.into_pin_source, None)
    });
    let session = session.transpose()?;
    let mut secrets = secrets(&options.secrets)?;
    secrets.new_so_pin = options.new_so_pin_source.as_ref().map(|source| source.read_new("SO PIN")).transpose()?;
    secrets.new_pin = options.new_pin_source.as_ref().map(|source| source.read_new("user PIN")).transpose()?;
    let place = session.as_deref().map_or(Place::Library(&library), Place::Session);
    let allowed = ImportOptions { replace: options.replace, remove: options.remove, dry_run: options.dry_run };
    let mut meter = Meter::new("read");
    let report = backup::import(place, &options.file, &scope, &secrets, allowed, &mut |count| meter.tell(count))?;
    drop(meter);
    let what = if options.dry_run { "nothing was changed; it would be" } else { "restored" };
    let text = format!(
        "token {}: {what}: {} records added, {} replaced, {} removed, {} there already",
        shown(&report, "/token/serial"),
        at(&report, "/added"),
        at(&report, "/replaced"),
        at(&report, "/removed"),
        at(&report, "/same")
    );
    output.result(&text, &report)?;
    if !at(&report, "/policy_of_backup").is_null() {
        output
            .hint("the configuration says other things of this token than it did when the backup was made: see --json");
    }
    Ok(())
}

/// Opens a session with somebody logged in: the SO, if his PIN is given.
pub fn open(
    library: &Library,
    token: &Selector,
    pin: &PinSource,
    so_pin: Option<&PinSource>,
) -> Result<Arc<Session>, Failure> {
    let token = library::token(library, token)?;
    match so_pin {
        None => library::user_session(library, &token, &crate::args::UserPin { pin_source: pin.clone() }),
        Some(so_pin) => {
            let session = library::session(library, &token)?;
            library::login(&session, CKU_SO, so_pin.read("SO PIN")?)?;
            Ok(session)
        }
    }
}

fn scope(owner: Option<&str>, asset: Option<&str>) -> Result<Scope, Failure> {
    let scope = Scope::new(owner.unwrap_or_default(), asset.unwrap_or_default());
    scope.map_err(|error| Failure::Usage(error.message()))
}

/// Reads what opens a backup. Without anything else, it is a PIN.
fn secrets(options: &BackupSecrets) -> Result<Secrets, Failure> {
    let mut secrets = Secrets {
        shares: backup::read_share_files(&options.share_files)?,
        password: options.password_source.as_ref().map(|source| source.read("recovery password")).transpose()?,
        ..Secrets::default()
    };
    for number in 1..=options.ask_shares {
        let text: SecureBytes = PinSource::Prompt.read(&format!("Share {number} of {}", options.ask_shares))?;
        secrets.shares.push(backup::Share::parse(&text, &format!("share {number}"))?);
    }
    if secrets.password.is_none() && secrets.shares.is_empty() && !options.kms_alone {
        secrets.pin = Some(options.pin_source.read("PIN of the backup")?);
    }
    Ok(secrets)
}

/// Describes a backup for a person.
fn described(report: &Value) -> String {
    format!(
        "a backup of {} of token \"{}\", serial {}, from {}\nformat {}, {} records, under the KMS key {} (type {}, version {}){}",
        match at(report, "/scope").as_str() {
            Some("owner") => "an owner's keys",
            Some("key") => "a key",
            _ => "all",
        },
        shown(report, "/token/label"),
        shown(report, "/token/serial"),
        at(report, "/created").as_u64().map(utc).unwrap_or_default(),
        at(report, "/format"),
        at(report, "/records"),
        shown(report, "/kms/key"),
        shown(report, "/kms/provider"),
        at(report, "/kms/version"),
        recovery(at(report, "/recovery"))
    )
}

/// Describes recovery envelopes for a person, a line for each.
pub fn recovery(list: &Value) -> String {
    let line = |entry: &Value| {
        let needs = match at(entry, "/means").as_str() {
            Some("shares") => {
                format!(
                    "{} of {} shares of set {}",
                    at(entry, "/threshold"),
                    at(entry, "/shares"),
                    shown(entry, "/set")
                )
            }
            Some("kms") => {
                format!("the KMS key {} (type {})", shown(entry, "/kms/key"), shown(entry, "/kms/provider"))
            }
            _ => "a password".to_owned(),
        };
        format!("\nrecovery `{}`: {needs}", shown(entry, "/name"))
    };
    list.as_array().into_iter().flatten().map(line).collect()
}

/// Finds a value in a report.
fn at<'r>(report: &'r Value, path: &str) -> &'r Value {
    report.pointer(path).unwrap_or(&Value::Null)
}

/// Shows a value of a report, a text without quotes.
fn shown(report: &Value, path: &str) -> String {
    let value = at(report, path);
    value.as_str().map_or_else(|| value.to_string(), |text| text.escape_debug().to_string())
}
