//! `strongroom audit …`: the audit trail of a token, verified, exported and shown.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde_json::Value;
use strongroom::audit::{Anchor, CopyReport, Report};
use strongroom::ck::{CKF_SERIAL_SESSION, CKU_USER};
use strongroom::error::{Error, Kind};
use strongroom::token::{Library, Session};

use crate::args::{AuditExportOptions, AuditShowOptions, AuditVerifyOptions, Selector};
use crate::failure::Failure;
use crate::library::{self, Token};
use crate::output::{Output, table};

/// The longest line of a copy in bytes, above that of any record.
const LONGEST_LINE: u64 = 64 << 10;

/// Verifies the trail of a token. Without login, signatures are not checked.
pub fn verify(config: Option<&str>, options: &AuditVerifyOptions, output: &Output) -> Result<(), Failure> {
    let expected = options.expect.as_deref().map(anchor).transpose()?;
    let (_library, token, session) = open(config, &options.token)?;
    if !options.chain_only && !session.is_user() {
        library::login(&session, CKU_USER, options.pin.pin_source.read("User PIN")?)?;
    }
    let report = session.verify_audit(expected)?;
    let copy = options.copy.as_deref().map(|path| verify_copy(&session, path)).transpose()?;
    let (mut told, mut fields) = (text(&token, &report), report.json());
    if let Some(copy) = &copy {
        told = format!("{told}\n{}", text_of_copy(copy));
        fields.as_object_mut().map(|fields| fields.insert("copy".to_owned(), copy.json()));
    }
    output.result(&told, &fields)?;
    match report.is_clean() && copy.is_none_or(|copy| copy.is_clean()) {
        true => Ok(()),
        false => Err(Failure::Faults),
    }
}

/// Holds a file against the trail.
fn verify_copy(session: &Session, path: &Path) -> Result<CopyReport, Failure> {
    let unreadable =
        |error| Error::new(Kind::FunctionFailed, format!("{} cannot be read", path.display())).caused_by(error);
    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    let lines = std::iter::from_fn(|| line(&mut file).map_err(unreadable).transpose());
    Ok(session.verify_audit_copy(lines)?)
}

/// Reads a line without its end. One that is too long comes in pieces, and one that is no UTF-8 is changed: both are none of a trail.
fn line(file: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if file.take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let text = line.strip_suffix(b"\n").unwrap_or(&line);
    Ok(Some(String::from_utf8_lossy(text).into_owned()))
}

/// Tells of a copy in words.
fn text_of_copy(copy: &CopyReport) -> String {
    let (first, last) = copy.range;
    let found = match copy.fault_count {
        0 => "the copy is that of the trail".to_owned(),
        count => format!("the copy has {count} faults"),
    };
    let mut lines = vec![format!("{found}: {} lines, of records {first} to {last}", copy.lines)];
    lines.extend(copy.faults.iter().map(|fault| match fault.line {
        0 => format!("  {}", fault.text),
        line => format!("  line {line} {}", fault.text),
    }));
    if copy.alone > 0 {
        lines.push(format!("  {} lines tell of what the store did not take", copy.alone));
    }
    lines.join("\n")
}

/// Reads a record that was seen before: `SEQUENCE:HASH`.
fn anchor(text: &str) -> Result<Anchor, Failure> {
    let read = text.split_once(':').and_then(|(sequence, hash)| {
        let hash = HEXLOWER.decode(hash.as_bytes()).ok()?.try_into().ok()?;
        Some(Anchor { sequence: sequence.parse().ok()?, hash })
    });
    read.ok_or_else(|| Failure::Usage("--expect takes the head that `audit verify` told: SEQUENCE:HASH".to_owned()))
}

/// Tells the report in words.
fn text(token: &Token, report: &Report) -> String {
    let label = &token.info.label;
    let head = format!("head {}:{}", report.last, HEXLOWER.encode(&report.head));
    let signed = match report.signatures_checked {
        true => format!("signed up to record {}", report.signed_to),
        false => "signatures not checked".to_owned(),
    };
    let found = match report.fault_count {
        0 => format!("the trail of token \"{label}\" is whole"),
        count => format!("the trail of token \"{label}\" has {count} faults"),
    };
    let mut lines = vec![format!("{found}: {} records, {signed}", report.records)];
    lines.extend(report.faults.iter().map(|fault| format!("  record {} {}", fault.sequence, fault.text)));
    if report.clock_steps > 0 {
        lines.push(format!("  the clock was set back {} times", report.clock_steps));
    }
    lines.push(head);
    lines.join("\n")
}

/// Writes records as lines of JSON to standard output.
pub fn export(config: Option<&str>, options: &AuditExportOptions) -> Result<(), Failure> {
    let (_library, _, session) = open(config, &options.token)?;
    let (mut out, mut left) = (BufWriter::new(io::stdout().lock()), false);
    let mut written = |done: io::Result<()>| {
        done.map_err(|error| {
            left = error.kind() == ErrorKind::BrokenPipe;
            Error::new(Kind::FunctionFailed, "standard output takes no more lines").caused_by(error)
        })
    };
    let exported = session.export_audit(options.after, &mut |_, line| written(writeln!(out, "{line}")));
    let exported = exported.and_then(|_| written(out.flush()));
    match exported {
        // Who reads has seen enough, as `head` has.
        Err(_) if left => Ok(()),
        other => Ok(other?),
    }
}

/// Shows the last records as a table.
pub fn show(config: Option<&str>, options: &AuditShowOptions, output: &Output) -> Result<(), Failure> {
    let (_library, _, session) = open(config, &options.token)?;
    let after = session.audit_end()?.saturating_sub(options.last);
    let mut records = Vec::new();
    session.export_audit(after, &mut |_, line| {
        records.push(serde_json::from_str(line).unwrap_or(Value::Null));
        Ok(())
    })?;
    let mut rows =
        vec![["NUMBER", "TIME", "OPERATION", "RESULT", "USER", "KEY", "PROCESS"].map(str::to_owned).to_vec()];
    rows.extend(records.iter().map(row));
    output.result(&table(&rows), &Value::Array(records))
}

/// Makes the row of a record.
fn row(record: &Value) -> Vec<String> {
    let text = |place: &str| match record.pointer(place) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let process = format!("{} {}", text("/pid"), text("/executable"));
    let cells = ["/sequence", "/time", "/operation", "/result", "/user", "/keys/0/id"];
    cells.into_iter().map(text).chain([process]).collect()
}

/// Opens a session that only reads.
fn open(config: Option<&str>, selector: &Selector) -> Result<(Arc<Library>, Token, Arc<Session>), Failure> {
    let library = library::open(config)?;
    let token = library::token(&library, selector)?;
    let handle = library.open_session(token.slot, CKF_SERIAL_SESSION)?;
    let session = library.session(handle)?;
    Ok((library, token, session))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expected_head_is_a_number_and_a_hash() {
        let read = anchor(&format!("17:{}", "0a".repeat(32))).ok();
        assert_eq!(read, Some(Anchor { sequence: 17, hash: [10; 32] }));
        for wrong in ["", "17", "17:", "17:0a", "x:0a", &format!("-1:{}", "0a".repeat(32))] {
            assert_eq!(anchor(wrong).err().map(|failure| failure.exit_code()), Some(2), "{wrong}");
        }
    }
}
