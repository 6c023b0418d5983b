//! Getting at the token key of a backup: by the session that has it, by a PIN and the KMS, or by a recovery envelope.

use std::sync::Arc;

use super::head::{Head, RecoveryPart};
use super::source::Place;
use crate::error::{Error, Kind, Result};
use crate::seal::{Opened, RecoveryId, Share, TokenKey, open_by_shares, set_text, token_key_id};
use crate::secret::SecureBytes;
use crate::store::TokenRow;
use crate::token::{self, Profile};

/// What a caller knows that may open a backup.
#[derive(Default)]
pub struct Secrets {
    /// The PIN of the user, or of the SO, at the time of the backup.
    pub pin: Option<SecureBytes>,
    /// The password of a recovery envelope.
    pub password: Option<SecureBytes>,
    /// Shares of a recovery key.
    pub shares: Vec<Share>,
    /// What the SO PIN is to be after a restore by recovery.
    pub new_so_pin: Option<SecureBytes>,
    /// What the user PIN is to be after a restore by recovery.
    pub new_pin: Option<SecureBytes>,
}

impl Secrets {
    /// Tells whether a PIN is to be set anew.
    pub(super) fn sets_pins(&self) -> bool {
        self.new_so_pin.is_some() || self.new_pin.is_some()
    }
}

/// What opened a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum How {
    /// The session, which has its token open.
    Session,
    /// A PIN, and the KMS.
    Pin,
    /// The KMS alone: the token opens without a PIN.
    Machine,
    /// The recovery envelope of this name.
    Recovery(String),
}

impl How {
    /// Tells it in words.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Session => "session".to_owned(),
            Self::Pin => "pin".to_owned(),
            Self::Machine => "kms".to_owned(),
            Self::Recovery(name) => format!("recovery {name}"),
        }
    }
}

/// A backup whose token key is there.
pub(super) struct Unlocked {
    pub(super) key: Arc<TokenKey>,
    pub(super) how: How,
}

/// Opens the token key of a backup with what there is. The MAC must be checked before anything of the head is believed.
///
/// # Errors
/// `PinIncorrect` for what is wrong; `ArgumentsBad` when nothing was given that can open it; `DeviceError` when the KMS does not.
pub(super) fn unlock(place: Place<'_>, head: &Head, secrets: &Secrets) -> Result<Unlocked> {
    let profile = place.profile(head);
    let (key, how) = match (place.token_key(head)?, secrets) {
        (_, Secrets { shares, .. }) if !shares.is_empty() => by_shares(head, shares)?,
        (_, Secrets { password: Some(password), .. }) => by_password(head, &profile, password)?,
        (Some(key), _) => return Ok(Unlocked { key, how: How::Session }),
        (None, Secrets { pin: Some(pin), .. }) => (by_pin(head, &profile, Some(pin))?, How::Pin),
        (None, _) => by_kms(head, &profile)?,
    };
    match token_key_id(&key) == head.token.key.0 {
        true => Ok(Unlocked { key: Arc::new(key), how }),
        false => {
            Err(Error::new(Kind::DataInvalid, "the envelopes of the backup hold another token key than its head names"))
        }
    }
}

/// Asks the KMS of this configuration for the outer key of a row: that of the backup, or that which its token has now.
pub(super) fn open_outer(head: &Head, row: &TokenRow, profile: &Profile) -> Result<Opened> {
    profile.sealer.open_outer_from_elsewhere(&row.serial, &row.so_envelope).map_err(|error| {
        let kms = &head.kms;
        let needed = format!("the backup is under the KMS key `{}` of type {}", kms.key.escape_debug(), kms.provider);
        match head.recovery.is_empty() {
            true => error.context(needed),
            false => error.context(format!(
                "{needed}; without it, give the secret of one of its recovery envelopes ({})",
                names(head)
            )),
        }
    })
}

fn by_pin(head: &Head, profile: &Profile, pin: Option<&SecureBytes>) -> Result<TokenKey> {
    let row = head.row()?;
    let outer = open_outer(head, &row, profile)?.outer;
    token::open_by_pin(&row, profile, &outer, pin)
}

fn by_password(head: &Head, profile: &Profile, password: &SecureBytes) -> Result<(TokenKey, How)> {
    let mut last = None;
    for part in of_means(head, "password") {
        match profile.sealer.open_by_password(&id(head, part)?, password, &part.envelope.0) {
            Ok(key) => return Ok((key, How::Recovery(part.name.clone()))),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| none(head, "that a password opens")))
}

fn by_shares(head: &Head, shares: &[Share]) -> Result<(TokenKey, How)> {
    let set = shares.first().map(|share| share.set);
    let part = of_means(head, "shares").find(|part| part.set.map(|set| set.0) == set);
    let part =
        part.ok_or_else(|| none(head, &format!("of the set {}", set.as_ref().map(set_text).unwrap_or_default())))?;
    Ok((open_by_shares(&id(head, part)?, shares, &part.envelope.0)?, How::Recovery(part.name.clone())))
}

/// Tries what needs no secret: a token that opens without a PIN, and recovery envelopes of other KMSs.
fn by_kms(head: &Head, profile: &Profile) -> Result<(TokenKey, How)> {
    if let Ok(key) = by_pin(head, profile, None) {
        return Ok((key, How::Machine));
    }
    let mut last = None;
    for part in of_means(head, "kms") {
        match profile.sealer.open_by_kms(&id(head, part)?, &part.envelope.0) {
            Ok(key) => return Ok((key, How::Recovery(part.name.clone()))),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| {
        let ways = if head.recovery.is_empty() {
            "it has no recovery envelope".to_owned()
        } else {
            format!("its recovery envelopes: {}", names(head))
        };
        Error::arguments_bad(format!(
            "nothing was given that opens the backup: give the PIN of its token, or a recovery secret ({ways})"
        ))
    }))
}

fn of_means<'h>(head: &'h Head, means: &'h str) -> impl Iterator<Item = &'h RecoveryPart> {
    head.recovery.iter().filter(move |part| part.means == means)
}

fn id<'h>(head: &'h Head, part: &'h RecoveryPart) -> Result<RecoveryId<'h>> {
    Ok(RecoveryId { token: head.serial()?, name: &part.name })
}

fn none(head: &Head, what: &str) -> Error {
    let ways = if head.recovery.is_empty() { "none".to_owned() } else { names(head) };
    Error::arguments_bad(format!("the backup has no recovery envelope {what}; it has: {ways}"))
}

/// Names the recovery envelopes and what opens each.
fn names(head: &Head) -> String {
    let name = |part: &RecoveryPart| match (part.threshold, part.set) {
        (Some(needed), Some(set)) => {
            format!("`{}` ({needed} shares of set {})", part.name.escape_debug(), set_text(&set.0))
        }
        _ => format!("`{}` ({})", part.name.escape_debug(), part.means.escape_debug()),
    };
    head.recovery.iter().map(name).collect::<Vec<_>>().join(", ")
}
