//! `SR_*`: backups and recovery envelopes. Texts are UTF-8 without a zero byte at the end; paths are bytes; lengths are in bytes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::arg::{self, Out};
use super::guard::{guard, guard_session};
use crate::ck::{
    CK_FLAGS, CK_INVALID_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG, CK_UTF8CHAR, SR_BACKUP_DRY_RUN,
    SR_BACKUP_OVERWRITE, SR_BACKUP_REMOVE, SR_BACKUP_REPLACE,
};
use crate::error::{Error, Result};
use crate::keys::backup::{self, ImportOptions, Place, Recovery, Scope, Secrets, To};
use crate::token::{Library, Reply, Room, Session};

/// The most bytes that a report takes.
const LARGEST_REPORT: usize = 32 * 1024;

/// What opens a backup; each may be NULL and 0. A session with the token of the backup needs none of them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SR_BACKUP_SECRETS {
    /// The user PIN, or the SO PIN, of the token at the time of the backup. It takes the KMS as well.
    pub pin: *const CK_UTF8CHAR,
    /// The length of the PIN.
    pub pin_len: CK_ULONG,
    /// The password of a recovery envelope.
    pub recovery_password: *const CK_UTF8CHAR,
    /// The length of the password.
    pub recovery_password_len: CK_ULONG,
    /// The paths of files with shares of a recovery key, one a line.
    pub share_files: *const CK_UTF8CHAR,
    /// The length of the paths.
    pub share_files_len: CK_ULONG,
    /// The SO PIN from now on, for a restore by recovery; NULL keeps that of the backup.
    pub new_so_pin: *const CK_UTF8CHAR,
    /// The length of the new SO PIN.
    pub new_so_pin_len: CK_ULONG,
    /// The user PIN from now on, for a restore by recovery; NULL keeps that of the backup.
    pub new_pin: *const CK_UTF8CHAR,
    /// The length of the new user PIN.
    pub new_pin_len: CK_ULONG,
}

/// Writes a backup of the session's token to a file: sealed records, nothing in plaintext, as they are at one moment while the
/// token is in use. With an owner only his managed keys, with owner and asset one of them, with all versions. The file appears whole or
/// not at all, readable by its owner alone. The SO or the user must be logged in; for an owner or a key, the user. Tells as JSON what
/// was written. A buffer of NULL asks for the most that this takes, and writes no file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_ExportBackup(
    session: CK_SESSION_HANDLE,
    owner: *const CK_UTF8CHAR,
    owner_len: CK_ULONG,
    asset: *const CK_UTF8CHAR,
    asset_len: CK_ULONG,
    path: *const CK_UTF8CHAR,
    path_len: CK_ULONG,
    flags: CK_FLAGS,
    json: *mut CK_UTF8CHAR,
    json_len: *mut CK_ULONG,
) -> CK_RV {
    guard_session("SR_ExportBackup", session, |session| {
        // SAFETY: the caller vouches for the texts; likewise below.
        let scope = unsafe { scope(owner, owner_len, asset, asset_len) }?;
        // SAFETY: as above.
        let path = unsafe { path_at(path, path_len) }?;
        let overwrite = only(flags, SR_BACKUP_OVERWRITE)? != 0;
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(json, json_len) }?;
        report(&out, || backup::export(session, &scope, To::File { path, overwrite }, &mut |_| {}))
    })
}

/// Proves that a backup would restore, without restoring: opens every record, checks that the document is as it was written, and
/// asks its KMS. The session may be 0; one of the backup's own token needs no secrets. Tells as JSON what the backup holds.
/// A buffer of NULL asks for the most that this takes, and reads nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_VerifyBackup(
    session: CK_SESSION_HANDLE,
    path: *const CK_UTF8CHAR,
    path_len: CK_ULONG,
    secrets: *const SR_BACKUP_SECRETS,
    json: *mut CK_UTF8CHAR,
    json_len: *mut CK_ULONG,
) -> CK_RV {
    guard("SR_VerifyBackup", |library| {
        let session = session_if_any(library, session)?;
        // SAFETY: the caller vouches for the path; likewise below.
        let path = unsafe { path_at(path, path_len) }?;
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(json, json_len) }?;
        report(&out, || {
            // SAFETY: as above.
            let secrets = unsafe { secrets_at(secrets) }?;
            backup::verify(place(library, &session), &path, &secrets, &mut |_| {})
        })
    })
}

/// Restores a backup in one transaction. With session 0 a whole token: same serial number, ids, labels, PINs, versions; if the
/// configuration names another KMS for it, it is wrapped by that from then on. With a session, into its token: keys of another token
/// are sealed anew, and owner and asset may name what is taken out of a larger backup. Nothing that is there is replaced or
/// removed without a flag (SR_BACKUP_...). A second time changes nothing. Tells as JSON what became of the records.
/// A buffer of NULL asks for the most that this takes, and restores nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_ImportBackup(
    session: CK_SESSION_HANDLE,
    owner: *const CK_UTF8CHAR,
    owner_len: CK_ULONG,
    asset: *const CK_UTF8CHAR,
    asset_len: CK_ULONG,
    path: *const CK_UTF8CHAR,
    path_len: CK_ULONG,
    secrets: *const SR_BACKUP_SECRETS,
    flags: CK_FLAGS,
    json: *mut CK_UTF8CHAR,
    json_len: *mut CK_ULONG,
) -> CK_RV {
    guard("SR_ImportBackup", |library| {
        let (session, options) = (session_if_any(library, session)?, options(flags)?);
        // SAFETY: the caller vouches for the texts; likewise below.
        let scope = unsafe { scope(owner, owner_len, asset, asset_len) }?;
        // SAFETY: as above.
        let path = unsafe { path_at(path, path_len) }?;
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(json, json_len) }?;
        report(&out, || {
            // SAFETY: as above.
            let secrets = unsafe { secrets_at(secrets) }?;
            backup::import(place(library, &session), &path, &scope, &secrets, options, &mut |_| {})
        })
    })
}

/// Adds a recovery envelope to the session's token, which every backup from then on carries: this password (16 bytes at the least)
/// opens the token's keys without its KMS and its PINs. The SO must be logged in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_AddRecoveryPassword(
    session: CK_SESSION_HANDLE,
    name: *const CK_UTF8CHAR,
    name_len: CK_ULONG,
    password: *const CK_UTF8CHAR,
    password_len: CK_ULONG,
) -> CK_RV {
    guard_session("SR_AddRecoveryPassword", session, |session| {
        // SAFETY: the caller vouches for the texts; likewise below.
        let name = unsafe { arg::text_at(name, name_len) }?;
        // SAFETY: as above.
        let password = unsafe { arg::pin(password, password_len) }?;
        let password = password.ok_or_else(|| Error::arguments_bad("the recovery password must be given"))?;
        Recovery::add_password(session, name, &password)
    })
}

/// Adds a recovery envelope that another KMS of the configuration opens, by its name there. Whoever that KMS serves opens the
/// token's keys with it. The SO must be logged in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_AddRecoveryKms(
    session: CK_SESSION_HANDLE,
    name: *const CK_UTF8CHAR,
    name_len: CK_ULONG,
    provider: *const CK_UTF8CHAR,
    provider_len: CK_ULONG,
) -> CK_RV {
    guard_session("SR_AddRecoveryKms", session, |session| {
        // SAFETY: the caller vouches for the texts; likewise below.
        let name = unsafe { arg::text_at(name, name_len) }?;
        // SAFETY: as above.
        let provider = unsafe { arg::text_at(provider, provider_len) }?;
        Recovery::add_kms(session, name, provider)
    })
}

/// Adds a recovery envelope that any `threshold` of `count` shares open (Shamir), and writes each share into a file of its own in a
/// folder, readable by its owner alone. Whoever holds so many of them has the token's keys: move them apart. The SO must be logged in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_AddRecoveryShares(
    session: CK_SESSION_HANDLE,
    name: *const CK_UTF8CHAR,
    name_len: CK_ULONG,
    threshold: CK_ULONG,
    count: CK_ULONG,
    folder: *const CK_UTF8CHAR,
    folder_len: CK_ULONG,
) -> CK_RV {
    guard_session("SR_AddRecoveryShares", session, |session| {
        // SAFETY: the caller vouches for the texts; likewise below.
        let name = unsafe { arg::text_at(name, name_len) }?;
        // SAFETY: as above.
        let folder = unsafe { path_at(folder, folder_len) }?;
        let (label, counts) = (session.token_label()?, (small(threshold)?, small(count)?));
        Recovery::add_shares(session, name, counts, |shares| backup::write_share_files(&folder, &label, shares))
    })
}

/// Removes a recovery envelope from the session's token. Backups that have it keep it. The SO must be logged in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_RemoveRecovery(
    session: CK_SESSION_HANDLE,
    name: *const CK_UTF8CHAR,
    name_len: CK_ULONG,
) -> CK_RV {
    guard_session("SR_RemoveRecovery", session, |session| {
        // SAFETY: the caller vouches for the text.
        Recovery::remove(session, unsafe { arg::text_at(name, name_len) }?)
    })
}

/// Lists the recovery envelopes of the session's token as a JSON array: name, means, and what they need. Somebody must be logged in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_ListRecovery(
    session: CK_SESSION_HANDLE,
    json: *mut CK_UTF8CHAR,
    json_len: *mut CK_ULONG,
) -> CK_RV {
    guard_session("SR_ListRecovery", session, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(json, json_len) }?;
        out.text(&Recovery::list(session)?.to_string())
    })
}

/// Finds a session; 0 is none.
fn session_if_any(library: &Library, session: CK_SESSION_HANDLE) -> Result<Option<Arc<Session>>> {
    match session {
        CK_INVALID_HANDLE => Ok(None),
        session => library.session(session).map(Some),
    }
}

fn place<'p>(library: &'p Library, session: &'p Option<Arc<Session>>) -> Place<'p> {
    session.as_deref().map_or(Place::Library(library), Place::Session)
}

/// Answers who asks for the length, or has too little room, before anything is done; else does it and hands the report out.
fn report(out: &Out, work: impl FnOnce() -> Result<serde_json::Value>) -> Result<()> {
    match out.room() {
        Room::Bytes(room) if room >= LARGEST_REPORT => out.text(&work()?.to_string()),
        _ => out.reply(Reply::Needs(LARGEST_REPORT)),
    }
}

fn options(flags: CK_FLAGS) -> Result<ImportOptions> {
    let flags = only(flags, SR_BACKUP_REPLACE | SR_BACKUP_REMOVE | SR_BACKUP_DRY_RUN)?;
    Ok(ImportOptions {
        replace: flags & SR_BACKUP_REPLACE != 0,
        remove: flags & SR_BACKUP_REMOVE != 0,
        dry_run: flags & SR_BACKUP_DRY_RUN != 0,
    })
}

/// Refuses flags that mean nothing: they may mean something in a later version.
fn only(flags: CK_FLAGS, known: CK_FLAGS) -> Result<CK_FLAGS> {
    match flags & !known {
        0 => Ok(flags),
        other => Err(Error::arguments_bad(format!("the flags {other:#x} are unknown"))),
    }
}

fn small(number: CK_ULONG) -> Result<u8> {
    u8::try_from(number).map_err(|_| Error::arguments_bad("there are at most 255 shares"))
}

/// Reads what a backup is to hold, or what is taken out of one.
///
/// # Safety
/// As [`arg::bytes`], for both texts.
unsafe fn scope(owner: *const u8, owner_len: CK_ULONG, asset: *const u8, asset_len: CK_ULONG) -> Result<Scope> {
    // SAFETY: as the caller vouches; likewise below.
    let owner = unsafe { arg::text_at(owner, owner_len) }?;
    // SAFETY: as above.
    Scope::new(owner, unsafe { arg::text_at(asset, asset_len) }?)
}

/// Reads a path.
///
/// # Safety
/// As [`arg::bytes`].
unsafe fn path_at(start: *const u8, len: CK_ULONG) -> Result<PathBuf> {
    // SAFETY: as the caller vouches.
    path(unsafe { arg::bytes(start, len) }?)
}

fn path(bytes: &[u8]) -> Result<PathBuf> {
    match bytes.is_empty() || bytes.contains(&0) {
        true => Err(Error::arguments_bad("a path is empty or has a zero byte")),
        false => Ok(PathBuf::from(OsStr::from_bytes(bytes))),
    }
}

/// Reads what opens a backup.
///
/// # Safety
/// `secrets` is NULL or valid for reading, and as [`arg::bytes`] for each of its texts.
unsafe fn secrets_at(secrets: *const SR_BACKUP_SECRETS) -> Result<Secrets> {
    // SAFETY: as the caller vouches; likewise below.
    let Some(given) = (unsafe { arg::optional(secrets) }) else { return Ok(Secrets::default()) };
    // SAFETY: as above.
    let files = unsafe { arg::bytes(given.share_files, given.share_files_len) }?;
    let files = files.split(|byte| *byte == b'\n').filter(|file| !file.is_empty()).map(path);
    Ok(Secrets {
        shares: backup::read_share_files(&files.collect::<Result<Vec<_>>>()?)?,
        // SAFETY: as above.
        pin: unsafe { arg::pin(given.pin, given.pin_len) }?,
        // SAFETY: as above.
        password: unsafe { arg::pin(given.recovery_password, given.recovery_password_len) }?,
        // SAFETY: as above.
        new_so_pin: unsafe { arg::pin(given.new_so_pin, given.new_so_pin_len) }?,
        // SAFETY: as above.
        new_pin: unsafe { arg::pin(given.new_pin, given.new_pin_len) }?,
    })
}
