//! `strongroom migrate`: moves keys in from other systems. The sources are read and never changed.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strongroom::error::{Error, Kind};
use strongroom::keys::Asset;
use strongroom::keys::migrate::{self, Entry, Files, Format, Mover, Naming, Options, Outcome, Summary, Verdict};
use strongroom::secret::SecureBytes;
use strongroom::token::{Library, Session};

use crate::args::{MigrateFilesOptions, MigrateLegacyOptions, MigrateTo, Selector, UserPin};
use crate::failure::Failure;
use crate::library;
use crate::output::{Output, table};
use crate::pin::PinSource;

/// How often progress is told.
const PACE: Duration = Duration::from_secs(2);

type Result<T> = std::result::Result<T, Failure>;

/// Opens the token that keys are moved to; what is opened lives as long as the session is used.
fn open(config: Option<&str>, token: &Selector, pin: &UserPin) -> Result<(Arc<Library>, Arc<Session>)> {
    let library = library::open(config)?;
    let token = library::token(&library, token)?;
    let session = library::user_session(&library, &token, pin)?;
    Ok((library, session))
}

/// Runs `migrate legacy`.
pub fn legacy(config: Option<&str>, options: &MigrateLegacyOptions, output: &Output) -> Result<()> {
    let MigrateTo { token, pin, dry_run } = &options.to;
    let (_library, session) = open(config, token, pin)?;
    let how = Options { strict: options.strict, dry_run: *dry_run };
    // Of a long file, the report has all records and the terminal those that need a look.
    let mut told =
        Told::new(output, |outcome| outcome.verdict == Verdict::Failed || outcome.verdict == Verdict::Withheld);
    let report = options.report.as_deref();
    let summary = migrate::import_file(&session, &options.file, report, how, &mut |outcome| told.take(outcome))?;
    told.finish(summary, *dry_run)
}

/// Runs `migrate wif`, `keystore`, `pkcs8` and `pkcs12`.
pub fn files(config: Option<&str>, options: &MigrateFilesOptions, format: Format, output: &Output) -> Result<()> {
    let naming = naming(options, format)?;
    let mut paths = Vec::new();
    for path in &options.paths {
        paths.extend(migrate::files(path)?);
    }
    if paths.len() > 1 && (naming.owner.is_some() || naming.label.is_some() || naming.id.is_some()) {
        let text = format!(
            "--owner, --label and --id name one key, and there are {} files: see --owner-from-file",
            paths.len()
        );
        return Err(Failure::Usage(text));
    }
    let MigrateTo { token, pin, dry_run } = &options.to;
    let (_library, session) = open(config, token, pin)?;
    let mut passwords = Passwords { source: &options.password_source, asked: BTreeMap::new() };
    let mut entries = Files::new(paths, format, naming, Box::new(move |path| passwords.of(path)));
    run(&session, &mut entries, *dry_run, output)
}

fn naming(options: &MigrateFilesOptions, format: Format) -> Result<Naming> {
    if let Some(asset) = &options.asset {
        Asset::named(asset).map_err(|error| Failure::Usage(error.message()))?;
    }
    let managed = options.owner.is_some() || options.owner_from_file;
    let coin = matches!(format, Format::Wif | Format::Keystore);
    match (managed, coin) {
        (false, true) => {
            Err(Failure::Usage("a key of a coin has an owner: --owner NAME or --owner-from-file".to_owned()))
        }
        (true, _) if options.label.is_some() || options.id.is_some() => {
            Err(Failure::Usage("a managed key is named by its owner and asset: leave --label and --id out".to_owned()))
        }
        (false, _) if options.asset.is_some() => {
            Err(Failure::Usage("--asset needs --owner or --owner-from-file".to_owned()))
        }
        _ => Ok(Naming {
            owner: options.owner.clone(),
            owner_from_file: options.owner_from_file,
            asset: options.asset.clone(),
            label: options.label.clone(),
            id: options.id.as_ref().map(|id| id.0.clone()),
        }),
    }
}

/// Runs `migrate softhsm`.
#[cfg(feature = "hsm")]
pub fn token(config: Option<&str>, options: &crate::args::MigrateTokenOptions, output: &Output) -> Result<()> {
    let MigrateTo { token, pin, dry_run } = &options.to;
    let (_library, session) = open(config, token, pin)?;
    let source = migrate::TokenSource {
        module: options.module.clone(),
        label: options.source_token.clone(),
        serial: options.source_serial.clone(),
        pin: Some(options.source_pin_source.read("PIN of the token that keys come from")?),
    };
    let mut entries = migrate::token(source, options.managed)?;
    run(&session, &mut entries, *dry_run, output)
}

fn run(
    session: &Session,
    entries: &mut dyn Iterator<Item = strongroom::error::Result<Entry>>,
    dry_run: bool,
    output: &Output,
) -> Result<()> {
    let mut told = Told::new(output, |_| true);
    let summary =
        Mover::new(session, "strongroom migrate", Options { strict: false, dry_run }).run(entries, &mut |outcome| {
            told.take(outcome);
            Ok(())
        })?;
    told.finish(summary, dry_run)
}

/// Where the passwords of files come from: a terminal is asked for each, any other source has one for all.
struct Passwords<'o> {
    source: &'o PinSource,
    asked: BTreeMap<PathBuf, SecureBytes>,
}

impl Passwords<'_> {
    fn of(&mut self, path: &Path) -> strongroom::error::Result<SecureBytes> {
        let place = if *self.source == PinSource::Prompt { path.to_owned() } else { PathBuf::new() };
        if let Some(password) = self.asked.get(&place) {
            return Ok(password.clone());
        }
        let password = self.source.read(&format!("Password of {}", path.display()));
        let password = password.map_err(|failure| Error::new(Kind::FunctionFailed, failure.message()))?;
        self.asked.insert(place, password.clone());
        Ok(password)
    }
}

/// Gathers what became of the entries, and tells progress on a terminal.
struct Told<'o> {
    output: &'o Output,
    wanted: fn(&Outcome) -> bool,
    kept: Vec<Outcome>,
    count: u64,
    next: Instant,
}

impl<'o> Told<'o> {
    fn new(output: &'o Output, wanted: fn(&Outcome) -> bool) -> Self {
        Self { output, wanted, kept: Vec::new(), count: 0, next: Instant::now() + PACE }
    }

    fn take(&mut self, outcome: &Outcome) {
        self.count += 1;
        if (self.wanted)(outcome) {
            self.kept.push(outcome.clone());
        }
        if Instant::now() >= self.next && std::io::stderr().is_terminal() {
            self.output.hint(&format!("{} records so far", self.count));
            self.next = Instant::now() + PACE;
        }
    }

    /// Writes the result. Entries that failed are a failure of its own, after they were told.
    fn finish(self, summary: Summary, dry_run: bool) -> Result<()> {
        let Summary { imported, present, failed, withheld } = summary;
        let value = json!({
            "dry_run": dry_run, "imported": imported, "present": present, "failed": failed, "withheld": withheld,
            "records": self.kept.iter().map(Outcome::to_json).collect::<Vec<Value>>(),
        });
        let would = if dry_run { "would be " } else { "" };
        let mut text = format!("{imported} {would}imported, {present} present, {failed} failed");
        if withheld > 0 {
            text += &format!(", {withheld} held back because of them");
        }
        if !self.kept.is_empty() {
            text = format!("{text}\n{}", table(&rows(&self.kept)));
        }
        self.output.result(&text, &value)?;
        match failed {
            0 => Ok(()),
            _ => Err(Failure::Unmoved),
        }
    }
}

/// Lays outcomes out as a table.
fn rows(outcomes: &[Outcome]) -> Vec<Vec<String>> {
    let heading = ["RESULT", "SOURCE", "KEY", "ADDRESS", "REASON"].map(str::to_owned).to_vec();
    let row = |outcome: &Outcome| {
        let line = outcome.origin.line.map(|line| format!("line {line}"));
        let source = outcome.origin.source.clone().or(line).unwrap_or_default();
        let key = match (&outcome.origin.owner, outcome.origin.asset) {
            (Some(owner), Some(asset)) => format!("{}/{asset}", owner.escape_debug()),
            _ => outcome.label.as_deref().unwrap_or_default().escape_debug().to_string(),
        };
        let (address, reason) = (outcome.address.clone(), outcome.reason.clone());
        vec![outcome.verdict.name().to_owned(), source, key, address.unwrap_or_default(), reason.unwrap_or_default()]
    };
    std::iter::once(heading).chain(outcomes.iter().map(row)).collect()
}
