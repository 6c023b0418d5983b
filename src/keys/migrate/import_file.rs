//! A whole file of legacy records, with its report.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Legacy, Mover, Options, Outcome, Summary};
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::token::Session;

/// Moves the records of a file in. Where a report is asked for, a new file gets a line of JSON for each record, as soon as it is certain
/// what became of it; `progress` is told too.
///
/// # Errors
/// `DataInvalid` for a file that cannot be read or has no record; `ArgumentsBad` for a report that is there already or cannot be written;
/// as [`Mover::run`].
pub fn import_file(
    session: &Session,
    source: &Path,
    report: Option<&Path>,
    options: Options,
    progress: &mut dyn FnMut(&Outcome),
) -> Result<Summary> {
    let mut records = Legacy::open(source)?;
    let mut report = report.map(Report::create).transpose()?;
    let mut told = 0_u64;
    let moved = Mover::new(session, "SR_ImportLegacyHex", options).run(&mut records, &mut |outcome| {
        told += 1;
        progress(outcome);
        report.as_mut().map_or(Ok(()), |report| report.write(outcome))
    });
    match (&moved, report) {
        (Err(_), Some(report)) if told == 0 => report.discard(),
        (Ok(_), Some(report)) => report.finish()?,
        _ => {}
    }
    let summary = moved.map_err(|error| error.context(format!("after {told} records")))?;
    if !options.dry_run {
        let Summary { imported, present, failed, withheld } = summary;
        log::info!("legacy records: {imported} imported, {present} present, {failed} failed, {withheld} withheld");
    }
    Ok(summary)
}

/// A new file of outcomes.
struct Report {
    path: PathBuf,
    file: File,
}

impl Report {
    fn create(path: &Path) -> Result<Self> {
        // What is there already could be the source.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| unwritable(path, &error))?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn write(&mut self, outcome: &Outcome) -> Result<()> {
        let line = format!("{}\n", outcome.to_json());
        self.file.write_all(line.as_bytes()).map_err(|error| unwritable(&self.path, &error))
    }

    fn finish(self) -> Result<()> {
        self.file.sync_all().map_err(|error| unwritable(&self.path, &error))
    }

    /// Takes the file away again when nothing was told: the next try may have the same name.
    fn discard(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    let text = match error.kind() {
        std::io::ErrorKind::AlreadyExists => format!("the report {} is there already: name a new file", path.display()),
        _ => format!("the report {} cannot be written: {error}", path.display()),
    };
    Error::new(Kind::ArgumentsBad, text)
}
