//! Recovery envelopes of a token: made once, kept with it, and carried by every backup from then on.
//!
//! They belong to the token and not to a backup, so that a backup by night needs no secret but the PIN, and the people who hold shares
//! are asked once, not each night. The token key never changes, so an envelope stays good for all backups of its token.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde_json::{Value as Json, json};

use super::file::{NewFile, failed};
use super::head::{Base64, Hex, KmsPart, RecoveryPart};
use crate::audit::Event;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::seal::{Means, RecoveryId, Share, open_by_shares, recovery_means, seal_by_shares, set_text};
use crate::secret::SecureBytes;
use crate::token::{Here, Record, Restore, Session, Source};

/// The most recovery envelopes of one token.
const MOST: usize = 16;
/// The longest name of one in bytes.
const LONGEST_NAME: usize = 64;
/// The shortest password of one in bytes: it can be guessed at without the KMS, by whoever has a backup.
const SHORTEST_PASSWORD: usize = 16;
const LONGEST_PASSWORD: usize = 255;
/// The longest file of a share that is read, in bytes.
const LONGEST_SHARE_FILE: usize = 4096;

/// A recovery envelope of a token.
pub struct Recovery {
    /// Its name.
    pub name: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The envelope.
    pub envelope: Vec<u8>,
}

/// Makes the template that finds the envelopes.
fn template() -> Attributes {
    [(CKA_CLASS, Value::Ulong(CKO_SR_RECOVERY))].into_iter().collect()
}

impl Recovery {
    fn of(attributes: &Attributes) -> Result<Self> {
        let damaged = || Error::damaged("a recovery envelope");
        let name =
            String::from_utf8(attributes.bytes(CKA_LABEL).unwrap_or_default().to_vec()).map_err(|_| damaged())?;
        let envelope = attributes.bytes(CKA_VALUE).ok_or_else(damaged)?.to_vec();
        Ok(Self { name, created: attributes.ulong(CKA_SR_CREATED).unwrap_or(0), envelope })
    }

    /// Makes what a backup has of it.
    pub(super) fn part(&self) -> Result<RecoveryPart> {
        let means = recovery_means(&self.envelope)?;
        let (mut kms, mut set, mut needed, mut shares) = (None, None, None, None);
        match &means {
            Means::Password => {}
            Means::Kms { provider, master_key } => {
                let (provider, key, version) = (provider.clone(), master_key.key.clone(), master_key.version);
                kms = Some(KmsPart { provider, key, version });
            }
            Means::Shares { set: name, threshold, count } => {
                (set, needed, shares) = (Some(Hex(*name)), Some(*threshold), Some(*count));
            }
        }
        let (name, means, envelope) = (self.name.clone(), means.name().to_owned(), Base64(self.envelope.clone()));
        Ok(RecoveryPart { name, means, kms, set, threshold: needed, shares, envelope })
    }
}

/// Describes recovery envelopes for a person, without the envelopes.
pub(super) fn describe(parts: &[RecoveryPart]) -> Json {
    let describe = |part: &RecoveryPart| {
        json!({
            "name": part.name,
            "means": part.means,
            "kms": part.kms,
            "set": part.set.map(|set| HEXLOWER.encode(&set.0)),
            "threshold": part.threshold,
            "shares": part.shares,
        })
    };
    parts.iter().map(describe).collect()
}

/// Finds the recovery envelopes of what is to be backed up.
pub(super) fn of_source(source: &mut Source<'_>) -> Result<Vec<Recovery>> {
    let mut found = Vec::new();
    source.visit(&template(), &mut |record| {
        found.push(Recovery::of(record.attributes())?);
        Ok(())
    })?;
    Ok(found)
}

impl Recovery {
    /// Lists the recovery envelopes of a token as a JSON array.
    ///
    /// # Errors
    /// `UserNotLoggedIn`; `DeviceError` when the store fails.
    pub fn list(session: &Session) -> Result<Json> {
        let parts = of_source(&mut session.source()?)?;
        let mut list = describe(&parts.iter().map(Self::part).collect::<Result<Vec<_>>>()?);
        for (entry, part) in list.as_array_mut().into_iter().flatten().zip(&parts) {
            if let Some(entry) = entry.as_object_mut() {
                entry.insert("created".to_owned(), part.created.into());
            }
        }
        Ok(list)
    }

    /// Adds an envelope that a password opens.
    ///
    /// # Errors
    /// `PinLenRange` for a short password; `ActionProhibited` for a name that is taken; `UserNotLoggedIn` unless the SO is.
    pub fn add_password(session: &Session, name: &str, password: &SecureBytes) -> Result<()> {
        check_name(name)?;
        if !(SHORTEST_PASSWORD..=LONGEST_PASSWORD).contains(&password.len()) {
            let text = format!(
                "a recovery password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} bytes: whoever has a backup can guess at it without the KMS"
            );
            return Err(Error::new(Kind::PinLenRange, text));
        }
        let (sealer, key) = (session.profile().sealer, session.token_key()?);
        let envelope = sealer.seal_by_password(&id(session, name), password, &key)?;
        add(session, "SR_AddRecoveryPassword", name, &envelope)
    }

    /// Adds an envelope that another KMS of the configuration opens: one call of it, and one to see that it does.
    ///
    /// # Errors
    /// `ArgumentsBad` for an unknown provider; what the KMS answers; as [`Self::add_password`].
    pub fn add_kms(session: &Session, name: &str, provider: &str) -> Result<()> {
        check_name(name)?;
        let (sealer, key) = (session.profile().sealer, session.token_key()?);
        let found = sealer.provider_named(provider).ok_or_else(|| {
            Error::arguments_bad(format!(
                "there is no [kms.{}] in the configuration; it has: {}",
                provider.escape_debug(),
                sealer.provider_names().join(", ")
            ))
        })?;
        session.make_first_key(&sealer.under(found.clone()))?;
        let envelope = sealer.seal_by_kms(&id(session, name), found.as_ref(), &key)?;
        sealer.open_by_kms(&id(session, name), &envelope)?;
        add(session, "SR_AddRecoveryKms", name, &envelope)
    }

    /// Adds an envelope that `threshold` of `count` shares open. `keep` is given the shares, and gives them back as they can be read
    /// again where it has put them; only then is the envelope stored.
    ///
    /// # Errors
    /// `ArgumentsBad` unless 2 ≤ `threshold` ≤ `count`; what `keep` answers; as [`Self::add_password`].
    pub fn add_shares(
        session: &Session,
        name: &str,
        (threshold, count): (u8, u8),
        keep: impl FnOnce(&[Share]) -> Result<Kept>,
    ) -> Result<()> {
        check_name(name)?;
        let (id, key) = (id(session, name), session.token_key()?);
        // Before anything is handed out: the name may be taken, or this login not allowed to.
        session.try_recovery(|change| check_free(change, name))?;
        let (envelope, shares) = seal_by_shares(&id, &key, threshold, count)?;
        let mut kept = keep(&shares)?;
        let opened = open_by_shares(&id, &kept.shares, &envelope);
        opened.map_err(|error| error.context("the shares were not kept as they were made"))?;
        add(session, "SR_AddRecoveryShares", name, &envelope)?;
        kept.files.clear();
        Ok(())
    }

    /// Removes an envelope. Backups that have it already keep it.
    ///
    /// # Errors
    /// `ObjectHandleInvalid` when there is none of this name; `UserNotLoggedIn` unless the SO is.
    pub fn remove(session: &Session, name: &str) -> Result<()> {
        session.change_recovery(event(session, "SR_RemoveRecovery", name), |change| {
            let mut found = None;
            change.visit(&template(), &mut |record| {
                if record.attributes().bytes(CKA_LABEL) == Some(name.as_bytes()) {
                    found = Some(Here::Sound(record));
                }
                Ok(())
            })?;
            let missing = || format!("the token has no recovery envelope `{}`", name.escape_debug());
            change.remove(&found.ok_or_else(|| Error::new(Kind::ObjectHandleInvalid, missing()))?)
        })?;
        log::info!("the recovery envelope `{}` is removed; backups that have it already keep it", name.escape_debug());
        Ok(())
    }
}

fn id<'n>(session: &Session, name: &'n str) -> RecoveryId<'n> {
    RecoveryId { token: session.serial(), name }
}

fn check_name(name: &str) -> Result<()> {
    match (1..=LONGEST_NAME).contains(&name.len()) && !name.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(Error::arguments_bad(
            "the name of a recovery envelope has 1 to 64 bytes of UTF-8 and no control characters",
        )),
    }
}

fn check_free(change: &mut Restore<'_>, name: &str) -> Result<()> {
    change.check_no_data_keys()?;
    let (mut count, mut taken) = (0, false);
    change.visit(&template(), &mut |record| {
        count += 1;
        taken |= record.attributes().bytes(CKA_LABEL) == Some(name.as_bytes());
        Ok(())
    })?;
    let text = match (taken, count >= MOST) {
        (true, _) => format!("the token has a recovery envelope `{}` already; remove it first", name.escape_debug()),
        (false, true) => format!("the token has {MOST} recovery envelopes already; remove one first"),
        (false, false) => return Ok(()),
    };
    Err(Error::new(Kind::ActionProhibited, text))
}

/// Starts the audit record of a change.
fn event(session: &Session, operation: &'static str, name: &str) -> Event {
    let mut event = session.event(operation);
    event.detail = name.to_owned();
    event
}

fn add(session: &Session, operation: &'static str, name: &str, envelope: &[u8]) -> Result<()> {
    let facts = [
        (CKA_TOKEN, true),
        (CKA_PRIVATE, false),
        (CKA_MODIFIABLE, false),
        (CKA_COPYABLE, false),
        (CKA_DESTROYABLE, false),
    ];
    let values = [
        (CKA_CLASS, Value::Ulong(CKO_SR_RECOVERY)),
        (CKA_LABEL, Value::from(name.as_bytes())),
        (CKA_VALUE, Value::from(envelope)),
        (CKA_SR_CREATED, Value::Ulong(session.now())),
    ];
    let facts = facts.map(|(id, fact)| (id, Value::Bool(fact)));
    let record = Record::new(values.into_iter().chain(facts).collect())?;
    session.change_recovery(event(session, operation, name), |change| {
        check_free(change, name)?;
        change.add(record)
    })?;
    log::info!("a recovery envelope `{}` is added: whoever can open it has all keys of the token", name.escape_debug());
    Ok(())
}

/// Shares as they were read again, and the files that they are in, which are removed unless the envelope was stored.
pub struct Kept {
    /// The shares.
    pub shares: Vec<Share>,
    /// The files.
    pub files: Vec<PathBuf>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.files.iter().for_each(|path| drop(std::fs::remove_file(path)));
    }
}

/// Writes each share into a file of its own in a folder, readable by its owner alone, and reads them back. `token` is for those who
/// find such a file.
///
/// # Errors
/// `ActionProhibited` when a file is there already; `FunctionFailed` when the folder cannot be written. No file stays then.
pub fn write_share_files(folder: &Path, token: &str, shares: &[Share]) -> Result<Kept> {
    let mut kept = Kept { shares: Vec::new(), files: Vec::new() };
    for share in shares {
        let path = folder.join(format!("share-{}-of-{}-{}.txt", share.index, shares.len(), set_text(&share.set)));
        write_share(&path, &about(share, shares.len(), token), share)?;
        kept.files.push(path);
    }
    kept.shares = read_share_files(&kept.files)?;
    Ok(kept)
}

/// Says what a share is.
fn about(share: &Share, count: usize, token: &str) -> String {
    format!(
        "# Strongroom: {share}, of {count} shares; {} of them open every key of the token {}.\n\
         # Keep it where nobody finds another share. The line that starts with srshare1 is the share.\n",
        share.threshold,
        token.escape_debug()
    )
}

fn write_share(path: &Path, about: &str, share: &Share) -> Result<()> {
    let (mut file, text) = (NewFile::create(path, false)?, share.text()?);
    let parts = [about.as_bytes(), text.expose(), b"\n"];
    parts.iter().try_for_each(|part| file.write_all(part)).map_err(|error| failed("write", path, error))?;
    file.publish()
}

/// Reads shares from files: the first line of each that is not empty and does not start with `#`.
///
/// # Errors
/// `FunctionFailed` when a file cannot be read; `DataInvalid` for what is no share.
pub fn read_share_files(paths: &[PathBuf]) -> Result<Vec<Share>> {
    paths.iter().map(|path| read_share(path)).collect()
}

fn read_share(path: &Path) -> Result<Share> {
    let mut text = SecureBytes::zeroed(LONGEST_SHARE_FILE);
    let mut file = File::open(path).map_err(|error| failed("read", path, error))?;
    let mut len = 0;
    while let Some(room) = text.expose_mut().get_mut(len..).filter(|room| !room.is_empty()) {
        match file.read(room).map_err(|error| failed("read", path, error))? {
            0 => break,
            read => len += read,
        }
    }
    let text = text.truncated(len);
    let line = text
        .expose()
        .split(|byte| *byte == b'\n')
        .find(|line| !line.trim_ascii().is_empty() && !line.starts_with(b"#"));
    let whence = format!("the file {}", path.display());
    let line =
        line.ok_or_else(|| Error::new(Kind::DataInvalid, format!("{whence} holds no share of a recovery key")))?;
    Share::parse(&SecureBytes::copy_from(line), &whence)
}
