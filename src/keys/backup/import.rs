//! Restoring a backup.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::data_keys::{DataKeys, Find, Way};
use super::document::Document;
use super::export::policy;
use super::head::Head;
use super::merge::{Merge, Tally};
use super::source::Place;
use super::unlock::{How, Secrets, Unlocked, open_outer, unlock};
use super::verify::check;
use super::{Progress, Scope};
use crate::audit::Event;
use crate::ck::CK_SLOT_ID;
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::seal::{Outer, TokenKey, token_key_id};
use crate::store::{Serial, TokenRow, Uid};
use crate::token::{self, Library, NewPins, PinSource, Profile, Restore, Session};

/// The operation as the audit trail names it.
const IMPORT: &str = "SR_ImportBackup";

/// What a restore may do.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImportOptions {
    /// Whether it may replace what differs.
    pub replace: bool,
    /// Whether it may remove what the backup does not have.
    pub remove: bool,
    /// Whether it only tells what it would do.
    pub dry_run: bool,
}

/// Restores a backup, or what it has of an owner or a key: without a session a whole token, in a session into its token. Tells as JSON
/// what became of it. All of it is one transaction.
///
/// # Errors
/// As [`super::verify()`]; `ActionProhibited` when something is there that must not be replaced or removed; the store's. Nothing has
/// changed then.
pub fn import(
    place: Place<'_>,
    path: &Path,
    scope: &Scope,
    secrets: &Secrets,
    options: ImportOptions,
    progress: Progress<'_>,
) -> Result<Json> {
    let document = Document::open(path)?;
    let unlocked = place.recorded(&document.head, IMPORT, || {
        let unlocked = unlock(place, &document.head, secrets)?;
        check_pins(&unlocked.how, secrets)?;
        // All of it opens before the store is locked for the transaction.
        check(&document, &unlocked.key, &mut |_| Ok(()), progress)?;
        Ok(unlocked)
    })?;
    let event = place.event(IMPORT);
    let import = Import { document: &document, unlocked: &unlocked, scope, secrets, options };
    let done = match place {
        Place::Library(library) if options.dry_run => import.restore_token(library, event, progress),
        Place::Library(library) => {
            place.recorded(&document.head, IMPORT, || import.restore_token(library, event, progress))
        }
        Place::Session(session) => import.restore_keys(session, event, progress),
    }?;
    let profile = place.profile(&document.head);
    let what = if options.dry_run { "would be restored" } else { "restored" };
    log::info!("{} records of a backup of token {} {what}", done.tally.records(), document.head.token.serial);
    Ok(done.report(&import, &profile))
}

/// New PINs are set by who recovers a token: a PIN alone is changed by C_SetPIN.
fn check_pins(how: &How, secrets: &Secrets) -> Result<()> {
    match (secrets.sets_pins(), how) {
        (true, How::Session | How::Pin | How::Machine) => Err(Error::arguments_bad(
            "PINs are set anew by the secret of a recovery envelope alone; with a PIN, change it after the restore",
        )),
        _ => Ok(()),
    }
}

/// A restore under way.
struct Import<'i> {
    document: &'i Document,
    unlocked: &'i Unlocked,
    scope: &'i Scope,
    secrets: &'i Secrets,
    options: ImportOptions,
}

/// What a restore has done.
struct Done {
    tally: Tally,
    serial: Serial,
    slot: Option<CK_SLOT_ID>,
    /// What became of the token itself: `added`, `replaced`, `kept`, or `pins`: set anew.
    token: &'static str,
}

fn became(there: Option<&TokenRow>, row: Option<&TokenRow>) -> &'static str {
    match (there, row) {
        (None, _) => "added",
        (Some(_), None) => "kept",
        (Some(old), Some(new)) if old.created == new.created => "pins",
        (Some(_), Some(_)) => "replaced",
    }
}

impl Import<'_> {
    fn head(&self) -> &Head {
        &self.document.head
    }

    fn merge<'m>(&'m self, to: Serial, moves: bool, data_keys: &'m DataKeys) -> Merge<'m> {
        let (document, key, scope, options) = (self.document, &*self.unlocked.key, self.scope, &self.options);
        Merge { document, key, to, moves, data_keys, scope, options }
    }

    /// Asks the KMS for what the transaction will need of it.
    fn data_keys(
        &self,
        to: (Serial, &TokenKey),
        profile: &Profile,
        (moves, session): (bool, Option<&Session>),
        find: Find<'_>,
        progress: Progress<'_>,
    ) -> Result<DataKeys> {
        let (document, key, scope, dry_run) = (self.document, &*self.unlocked.key, self.scope, self.options.dry_run);
        DataKeys::open(
            &Way { document, key, scope, to, moves, sealer: &profile.sealer, session, dry_run },
            find,
            progress,
        )
    }

    /// Restores a whole token.
    fn restore_token(&self, library: &Library, event: Event, progress: Progress<'_>) -> Result<Done> {
        if self.head().scope != "token" {
            let text = "the backup holds keys and no whole token: open a session of the token that shall take them";
            return Err(Error::arguments_bad(text));
        }
        if !matches!(self.scope, Scope::Token) {
            return Err(Error::arguments_bad("keys out of a backup go into a token: open a session of it"));
        }
        let (serial, profile) = (self.head().serial()?, library.profile_of(&self.head().token.label));
        let there = library.token_row(&serial)?;
        let row = self.row(there.as_ref(), &profile)?;
        let (key, of_backup) = (&*self.unlocked.key, self.head().token.created);
        // What another initialisation has left there is under another key, and goes.
        let same = there.as_ref().is_some_and(|there| there.created == of_backup);
        if let (true, Some(old), Some(new)) = (same && !self.options.replace && !self.options.remove, &there, &row) {
            return self.set_pins(library, event, old, new);
        }
        let find = |uid: &Uid| if same { library.record((&serial, key), uid) } else { Ok(None) };
        let data_keys = self.data_keys((serial, key), &profile, (false, None), &find, progress)?;
        let work = |restore: &mut Restore<'_>| {
            require_unchanged(restore, there.as_ref())?;
            let empty = match (&there, &row) {
                (Some(_), None) => false,
                (Some(old), Some(new)) => self.change_token(restore, old, new)?,
                (None, Some(new)) => restore.add_token(new).map(|()| true)?,
                (None, None) => return Err(Error::internal("a token was to be restored without a row")),
            };
            self.merge(serial, false, &data_keys).run(restore, empty, progress)
        };
        let tally = self.run(library, &serial, event, work)?;
        let slot = Some(CK_SLOT_ID::from(token::slot_of(&serial)));
        Ok(Done { tally, serial, slot, token: became(there.as_ref(), row.as_ref()) })
    }

    /// Sets the PINs of a token that is in use, and touches nothing else: its keys are newer than those of the backup.
    fn set_pins(&self, library: &Library, event: Event, there: &TokenRow, row: &TokenRow) -> Result<Done> {
        let work = |restore: &mut Restore<'_>| {
            require_unchanged(restore, Some(there))?;
            restore.tell("the PINs of the token are set anew".to_owned());
            restore.change_token(there, row)
        };
        self.run(library, &there.serial, event, work)?;
        let slot = Some(CK_SLOT_ID::from(token::slot_of(&there.serial)));
        Ok(Done { tally: Tally::default(), serial: there.serial, slot, token: became(Some(there), Some(row)) })
    }

    /// Runs work in the transaction that restores a token, or, for who only tries, in one that is undone.
    fn run<T>(
        &self,
        library: &Library,
        serial: &Serial,
        event: Event,
        work: impl FnOnce(&mut Restore<'_>) -> Result<T>,
    ) -> Result<T> {
        match self.options.dry_run {
            true => library.try_restore(*serial, &self.unlocked.key, work),
            false => library.restore(*serial, &self.unlocked.key, event, work),
        }
    }

    /// Restores into the token of a session.
    fn restore_keys(&self, session: &Session, event: Event, progress: Progress<'_>) -> Result<Done> {
        let (head, serial) = (self.head(), session.serial());
        let same = serial == head.serial()? && token_key_id(&*session.token_key()?) == head.token.key.0;
        if !same && head.scope == "token" && matches!(self.scope, Scope::Token) {
            return Err(Error::arguments_bad(format!(
                "the backup is of the whole token {}, and this session is of another one: name the owner whose keys it shall give, or \
                 restore it without a session",
                head.token.serial
            )));
        }
        if self.secrets.sets_pins() {
            return Err(Error::arguments_bad(
                "PINs are set anew with a whole token, which is restored without a session",
            ));
        }
        let (key, profile) = (session.token_key()?, session.profile());
        let way = (!same, Some(session));
        let data_keys = self.data_keys((serial, &key), &profile, way, &|uid| session.record(uid), progress)?;
        let work = |restore: &mut Restore<'_>| self.merge(serial, !same, &data_keys).run(restore, false, progress);
        let tally = match self.options.dry_run {
            true => session.try_restore(work),
            false => session.restore(event, work),
        }?;
        Ok(Done { tally, serial, slot: None, token: "kept" })
    }

    /// Puts another row in the place of a token's. Tells whether the token has no objects then.
    fn change_token(&self, restore: &mut Restore<'_>, old: &TokenRow, new: &TokenRow) -> Result<bool> {
        if old.created != new.created {
            if !self.options.remove {
                let text = format!(
                    "the token {} was initialised again since the backup was made, and what it has now is under another key: say \
                     `remove` to give that up",
                    self.head().token.serial
                );
                return Err(Error::new(Kind::ActionProhibited, text));
            }
            restore.clear()?;
        }
        restore.change_token(old, new)?;
        Ok(old.created != new.created)
    }

    /// Makes the row that the token is to have; `None` when that which is there stays.
    fn row(&self, there: Option<&TokenRow>, profile: &Profile) -> Result<Option<TokenRow>> {
        let of_backup = self.head().row()?;
        let base = match there.filter(|there| there.created == of_backup.created) {
            Some(_) if !self.secrets.sets_pins() => return Ok(None),
            Some(there) => there.clone(),
            None => of_backup,
        };
        let pins = NewPins { so: self.secrets.new_so_pin.as_ref(), user: self.secrets.new_pin.as_ref() };
        let (key, sealer) = (&*self.unlocked.key, &profile.sealer);
        match open_outer(self.head(), &base, profile) {
            Ok(opened) if opened.by_own && !self.secrets.sets_pins() => {
                token::check_envelopes(&base, profile, &opened.outer)?;
                Ok(Some(base))
            }
            Ok(opened) => {
                make_first_key(profile)?;
                let outer = if opened.by_own { opened.outer } else { self.rewrapped(profile, &opened.outer)? };
                token::reseal(&base, profile, key, &outer, &pins).map(Some)
            }
            Err(error) => {
                self.check_both_pins(&base, profile).map_err(|wanted| error.context(wanted.message()))?;
                make_first_key(profile)?;
                let outer = sealer.make_outer(&base.serial)?;
                sealer.check_opens(&base.serial, &outer, sealer.provider().as_ref())?;
                token::reseal(&base, profile, key, &outer, &pins).map(Some)
            }
        }
    }

    /// Wraps the outer key by the provider that the configuration names for the token, and sees that it opens.
    fn rewrapped(&self, profile: &Profile, outer: &Outer) -> Result<Outer> {
        let (serial, provider) = (self.head().serial()?, profile.sealer.provider().clone());
        let outer = profile.sealer.rewrap(&serial, outer, provider.as_ref())?;
        profile.sealer.check_opens(&serial, &outer, provider.as_ref())?;
        Ok(outer)
    }

    /// Without the KMS of the backup, no envelope of it is of use any more.
    fn check_both_pins(&self, base: &TokenRow, profile: &Profile) -> Result<()> {
        let opens_itself = matches!(profile.pin_source, PinSource::Machine);
        let user = self.secrets.new_pin.is_some() || base.user_envelope.is_none() || opens_itself;
        match (&self.unlocked.how, self.secrets.new_so_pin.is_some() && user) {
            (How::Recovery(_), true) => Ok(()),
            (How::Recovery(_), false) => Err(Error::arguments_bad(
                "the PINs of the backup are of no use without its KMS: give a new SO PIN and a new user PIN",
            )),
            _ => Err(Error::arguments_bad("the KMS of the backup is needed")),
        }
    }
}

/// Makes the first master key for what is restored: this is how one that is lost for good is replaced.
fn make_first_key(profile: &Profile) -> Result<()> {
    profile.sealer.provider().make_first_key(&|| Ok(()))
}

/// Requires that the token is still as it was looked at before the transaction.
fn require_unchanged(restore: &mut Restore<'_>, there: Option<&TokenRow>) -> Result<()> {
    let now = restore.token()?;
    match now.as_ref().map(|row| row.revision) == there.map(|row| row.revision) {
        true => Ok(()),
        false => Err(Error::new(Kind::FunctionFailed, "another process changed the token at the same time; try again")),
    }
}

impl Done {
    fn report(&self, import: &Import<'_>, profile: &Profile) -> Json {
        let (head, now) = (import.head(), policy(profile));
        json!({
            "token": {
                "serial": String::from_utf8_lossy(&self.serial),
                "of_backup": head.token.serial,
                "slot": self.slot,
                "became": self.token,
            },
            "opened_by": import.unlocked.how.text(),
            "records": self.tally.records(),
            "added": self.tally.added,
            "same": self.tally.same,
            "replaced": self.tally.replaced,
            "removed": self.tally.removed,
            "dry_run": import.options.dry_run,
            // What the configuration says is not restored; whoever relied on it must know.
            "policy_of_backup": (now != head.policy).then_some(&head.policy),
            "policy_here": (now != head.policy).then_some(&now),
        })
    }
}
