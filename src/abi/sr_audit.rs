//! `SR_*`: the audit trail of a token. Texts are UTF-8 without a zero byte at the end; lengths are in bytes.

use super::arg;
use super::guard::guard_session;
use crate::ck::{CK_RV, CK_SESSION_HANDLE, CK_ULONG, CK_UTF8CHAR};

/// Verifies the audit trail of the session's token, and tells what was found as a JSON object: `ok`, how many records there are, the
/// number and hash of the last one, up to where the token's key has signed, and each fault with its place. The return value is CKR_OK
/// when the trail could be read, whatever was found: look at `ok`. Signatures are checked while somebody is logged in. A call for the
/// length verifies nothing, and tells the most that it takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_AuditVerify(
    session: CK_SESSION_HANDLE,
    json: *mut CK_UTF8CHAR,
    json_len: *mut CK_ULONG,
) -> CK_RV {
    guard_session("SR_AuditVerify", session, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(json, json_len) }?;
        out.put(|room| session.audit_report(room))
    })
}

/// Writes records of the audit trail of the session's token as lines of JSON: as many as there is room for, from the one after the
/// number `after` (0 for all), and tells the number of the last one, to go on from. No line and the same number: there are no more. A
/// call for the length tells the least room that always takes a line; more room takes more lines at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_AuditExport(
    session: CK_SESSION_HANDLE,
    after: CK_ULONG,
    lines: *mut CK_UTF8CHAR,
    lines_len: *mut CK_ULONG,
    last: *mut CK_ULONG,
) -> CK_RV {
    guard_session("SR_AuditExport", session, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(lines, lines_len) }?;
        // SAFETY: the caller vouches for the pointer.
        let place = unsafe { arg::place(last) }?;
        let (reply, last) = session.audit_lines(after, out.room())?;
        out.reply(reply)?;
        place.put(last);
        Ok(())
    })
}
