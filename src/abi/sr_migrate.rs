//! `SR_*`: moving keys in from the legacy system. Texts are UTF-8 without a zero byte at the end; the user must be logged in.

use std::path::Path;

use super::arg;
use super::guard::guard_session;
use crate::ck::{CK_FLAGS, CK_RV, CK_SESSION_HANDLE, CK_ULONG, CK_UTF8CHAR, SR_LEGACY_DRY_RUN, SR_LEGACY_STRICT};
use crate::error::{Error, Kind, Result};
use crate::keys::migrate::{self, Options, Summary};

/// Moves the records of the legacy system in, each as version 1 of a managed key. `source` is the path of a file with a JSON object on
/// each line: owner, asset, ciphertext (the secret in hexadecimal, for RSA its PKCS #8), and perhaps public_key and address, which are
/// checked. The file is read here and never changed, so that no secret passes through this call. `report` is the path of a new file, or
/// empty for none: a JSON object for each line with its number, owner, asset, result (imported, present, failed, importable, withheld),
/// address and reason. `flags` are SR_LEGACY_STRICT and SR_LEGACY_DRY_RUN, or 0. Lines that fail do not keep the others from being
/// moved, and are counted: CKR_OK says that the file was read to its end. With SR_LEGACY_STRICT a line that fails is CKR_DATA_INVALID, and
/// nothing is moved. A key that is there already is present, and not moved again; another key of that name is left as it is, and the line
/// fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_ImportLegacyHex(
    session: CK_SESSION_HANDLE,
    source: *const CK_UTF8CHAR,
    source_len: CK_ULONG,
    report: *const CK_UTF8CHAR,
    report_len: CK_ULONG,
    flags: CK_FLAGS,
    imported: *mut CK_ULONG,
    present: *mut CK_ULONG,
    failed: *mut CK_ULONG,
) -> CK_RV {
    guard_session("SR_ImportLegacyHex", session, |session| {
        // SAFETY: the caller vouches for the texts; likewise below.
        let source = path(unsafe { arg::text_at(source, source_len) }?)?;
        // SAFETY: as above.
        let report = Some(unsafe { arg::text_at(report, report_len) }?).filter(|report| !report.is_empty());
        // SAFETY: the caller vouches for the pointers; likewise below.
        let counts = unsafe { arg::places(imported, present) }?;
        // SAFETY: as above.
        let failures = unsafe { arg::place(failed) }?;
        let (report, options) = (report.map(path).transpose()?, options(flags)?);
        let summary = migrate::import_file(session, source, report, options, &mut |_| {})?;
        counts.put((summary.imported, summary.present));
        failures.put(summary.failed);
        verdict(options, &summary)
    })
}

fn path(text: &str) -> Result<&Path> {
    match text.is_empty() || text.contains('\0') {
        true => Err(Error::arguments_bad("a path is empty, or has a zero byte")),
        false => Ok(Path::new(text)),
    }
}

fn options(flags: CK_FLAGS) -> Result<Options> {
    match flags & !(SR_LEGACY_STRICT | SR_LEGACY_DRY_RUN) {
        0 => Ok(Options { strict: flags & SR_LEGACY_STRICT != 0, dry_run: flags & SR_LEGACY_DRY_RUN != 0 }),
        _ => Err(Error::arguments_bad("the flags are SR_LEGACY_STRICT and SR_LEGACY_DRY_RUN")),
    }
}

/// Says no to lines that fail where all or nothing was asked for.
fn verdict(options: Options, summary: &Summary) -> Result<()> {
    match options.strict && summary.failed > 0 {
        true => {
            let text = format!("{} records fail, so nothing was moved; the report has their reasons", summary.failed);
            Err(Error::new(Kind::DataInvalid, text))
        }
        false => Ok(()),
    }
}
