//! Writing a backup.

use std::io::Write;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde_json::{Value as Json, json};

use super::file::NewFile;
use super::head::{Base64, Head, Hex, KmsPart, PolicyPart, RecoveryPart, TokenPart};
use super::recovery;
use super::writer::{Writer, Written};
use super::{Progress, Scope};
use crate::audit::Event;
use crate::ck::Attributes;
use crate::error::{Error, Kind, Result};
use crate::kms::MasterKeyId;
use crate::log;
use crate::seal::{BackupMac, token_key_id, wrapped_by};
use crate::token::{Plaintext, Profile, Session, Source};

/// Where a backup goes.
pub enum To<'t> {
    /// A file, which appears whole or not at all.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether it may take the place of a file that is there.
        overwrite: bool,
    },
    /// Somewhere else, such as standard output.
    Writer(&'t mut dyn Write),
}

/// Writes a backup of the session's token, or of managed keys of it, as they are at one moment. Tells as JSON what it wrote.
///
/// # Errors
/// `UserNotLoggedIn`; `KeyHandleInvalid` when there is no such key; `ActionProhibited` for a file that is there; `DeviceMemory` for
/// a full disk; `DeviceError` when the store fails or an object is damaged.
pub fn export(session: &Session, scope: &Scope, to: To<'_>, progress: Progress<'_>) -> Result<Json> {
    if !matches!(scope, Scope::Token) {
        session.check_may_be_private(true)?;
    }
    session.note(&event(session, scope))?;
    let mut source = session.source()?;
    let head = head(session, scope, &mut source)?;
    let (written, path) = match to {
        To::Writer(out) => (write(&mut source, scope, &head, out, Path::new("standard output"), progress)?, None),
        To::File { path, overwrite } => {
            let mut file = NewFile::create(&path, overwrite)?;
            let written = write(&mut source, scope, &head, &mut file, &path, progress)?;
            file.publish()?;
            (written, Some(path))
        }
    };
    let path = path.map(|path| path.display().to_string());
    let (written, data_keys) = written;
    log::info!("a backup of {} records of token {} was written", written.end.records, head.token.serial);
    Ok(json!({
        "path": path,
        "scope": head.scope,
        "token": { "serial": head.token.serial, "label": head.token.label },
        "records": written.end.records,
        "bytes": written.bytes,
        "sha256": HEXLOWER.encode(&written.end.sha256.0),
        "kms": head.kms,
        // So many keys of it no other way opens than the KMS.
        "data_keys": data_keys,
        "recovery": recovery::describe(&head.recovery),
    }))
}

/// Starts the audit record.
fn event(session: &Session, scope: &Scope) -> Event {
    let mut event = session.event("SR_ExportBackup");
    event.detail = scope.name().to_owned();
    match scope {
        Scope::Token => event,
        Scope::Owner(owner) => event.of_managed(owner, ""),
        Scope::Key(name) => event.of_managed(name.owner(), name.asset.name),
    }
}

fn write(
    source: &mut Source<'_>,
    scope: &Scope,
    head: &Head,
    out: &mut dyn Write,
    path: &Path,
    progress: Progress<'_>,
) -> Result<(Written, u64)> {
    let mac = BackupMac::new(source.key());
    let mut writer = Writer::begin(out, path, mac, head)?;
    let (mut count, mut data_keys) = (0, 0);
    source.visit(&scope.template(), &mut |record| {
        let row = record.sealed().ok_or_else(|| Error::internal("an object of the store is not sealed"))?;
        writer.record(row)?;
        count += 1;
        data_keys += u64::from(record.has_data_key());
        progress(count);
        Ok(())
    })?;
    if count == 0 && !matches!(scope, Scope::Token) {
        return Err(Error::new(Kind::KeyHandleInvalid, "there is no such managed key, so nothing was written"));
    }
    Ok((writer.finish()?, data_keys))
}

/// Makes the head.
fn head(session: &Session, scope: &Scope, source: &mut Source<'_>) -> Result<Head> {
    let recovery = recovery::of_source(source)?;
    let row = source.row();
    let (provider, MasterKeyId { key, version }) = wrapped_by(&row.so_envelope)?;
    Ok(Head {
        created: session.now(),
        library: env!("CARGO_PKG_VERSION").to_owned(),
        scope: scope.name().to_owned(),
        token: TokenPart {
            serial: String::from_utf8_lossy(&row.serial).into_owned(),
            label: row.label.clone(),
            created: row.created,
            key: Hex(token_key_id(source.key())),
            so_failures: row.so_failures,
            user_failures: row.user_failures,
            last_failure: row.last_failure,
            so_envelope: Base64(row.so_envelope.clone()),
            user_envelope: row.user_envelope.clone().map(Base64),
        },
        kms: KmsPart { provider, key, version },
        policy: policy(source.profile()),
        recovery: recovery.iter().map(recovery::Recovery::part).collect::<Result<Vec<RecoveryPart>>>()?,
    })
}

/// Tells what the configuration says of a token.
pub fn policy(profile: &Profile) -> PolicyPart {
    let plaintext = match profile.policy.plaintext {
        Plaintext::Never => "never",
        Plaintext::Import => "import",
        Plaintext::Compat => "compat",
    };
    let rotation = profile.policy.rotation.of(&Attributes::new()).rotation;
    PolicyPart {
        plaintext: plaintext.to_owned(),
        opens_itself: profile.pin_source.opens_itself(),
        remote: profile.remote.is_some(),
        rotation_interval_days: rotation.interval_days,
        max_key_age_days: rotation.max_age_days,
        auto_rotate: rotation.auto_rotate,
    }
}
