//! The master key of a token's KMS: as an object that wraps, and what an operator does with it (rotate, move).
//!
//! The rules are:
//! - a rotation makes a new version in the KMS and wraps the token's outer key under it; a move wraps it by another provider. Both
//!   end in one transaction that replaces both envelopes: a crash before it leaves everything as it was, and what was wrapped
//!   before still opens;
//! - nothing below the outer key is touched, at any number of objects, but keys that have a data key of their own, or are to
//!   have one: they follow (`rescope.rs`);
//! - no lock is held across a call of the KMS.

use std::sync::Arc;

use super::attribute::Origin;
use super::login::{envelope_id, machine_id};
use super::object::Object;
use super::operation::{Call, Reply, Room};
use super::policy::PinSource;
use super::rescope::{Reason, Rescope};
use super::session::Session;
use super::token::{Login, Token, gone};
use crate::audit::{Event, Signers};
use crate::ck::*;
use crate::error::{Error, Kind, KmsFault, Result};
use crate::log;
use crate::mechanism::{self, Key, MasterKeyService, Params};
use crate::seal::{FORGEABLE, Outer, Sealer, WrappedBy, wrapped_by};
use crate::secret::{SecureBytes, SecurePrivateKey};
use crate::store::{Role, Serial, Store, TokenRow};

/// What records call a move.
const MOVE: &str = "SR_MoveKms";
/// The label of the object.
const LABEL: &str = "KMS master key";

/// The master key of one token.
struct Master {
    sealer: Arc<Sealer>,
    serial: Serial,
}

impl MasterKeyService for Master {
    fn wrap(&self, key: &SecureBytes) -> Result<Vec<u8>> {
        self.sealer.wrap_under_kms(&self.serial, key)
    }

    fn unwrap(&self, blob: &[u8]) -> Result<SecureBytes> {
        self.sealer.unwrap_under_kms(&self.serial, blob)
    }
}

/// Makes the object of the master key. It is found by who asks for its key type or its label.
///
/// # Errors
/// `FunctionFailed` when the random generator fails.
pub fn object(serial: Serial, sealer: Arc<Sealer>) -> Result<Object> {
    let texts = [(CKA_LABEL, LABEL), (CKA_SR_KMS_KEY_ID, sealer.provider().kind())];
    let facts = [
        (CKA_TOKEN, true),
        (CKA_PRIVATE, false),
        (CKA_SENSITIVE, true),
        (CKA_ALWAYS_SENSITIVE, true),
        (CKA_EXTRACTABLE, false),
        (CKA_NEVER_EXTRACTABLE, true),
        (CKA_MODIFIABLE, false),
        (CKA_COPYABLE, false),
        (CKA_DESTROYABLE, false),
        (CKA_WRAP, true),
        (CKA_UNWRAP, true),
        (CKA_ENCRYPT, false),
        (CKA_DECRYPT, false),
        (CKA_SIGN, false),
        (CKA_VERIFY, false),
        (CKA_DERIVE, false),
        (CKA_LOCAL, false),
    ];
    let attributes = [(CKA_CLASS, Value::Ulong(CKO_SECRET_KEY)), (CKA_KEY_TYPE, Value::Ulong(CKK_SR_KMS))]
        .into_iter()
        .chain(texts.map(|(id, text)| (id, Value::Bytes(text.as_bytes().to_vec()))))
        .chain(facts.map(|(id, fact)| (id, Value::Bool(fact))))
        .collect();
    Object::of_key(attributes, Key::Master(Box::new(Master { sealer, serial })))
}

/// Tells whether a search asks for the master key by name.
pub fn is_asked_for(template: &Attributes) -> bool {
    template.ulong(CKA_KEY_TYPE) == Some(CKK_SR_KMS)
        || template.has(CKA_SR_KMS_KEY_ID)
        || template.bytes(CKA_LABEL) == Some(LABEL.as_bytes())
}

/// What became of a token's master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterKeyChange {
    /// The type of the provider.
    pub provider: String,
    /// The provider's name of the key.
    pub key: String,
    /// The provider's number of the version; 0 where versions have no numbers.
    pub version: u32,
    /// How many managed keys have followed, for data keys of their own.
    pub keys: usize,
}

/// Lets a provider make its first master key for a token that is made or moved there, unless a token is under one of its type that does
/// not open. That one's key is away then, and what a new one wraps would be lost when it comes back.
///
/// # Errors
/// `DeviceError` when there is such a token; what the KMS and the store answer.
pub fn make_first_key(store: &dyn Store, sealer: &Sealer) -> Result<()> {
    let provider = sealer.provider();
    let of_this_type = |row: &TokenRow| wrapped_by(&row.so_envelope).is_ok_and(|(kind, _)| kind == provider.kind());
    provider.make_first_key(&|| {
        let rows = store.tokens()?.into_iter().filter_map(|listed| listed.row.ok());
        for row in rows.filter(of_this_type) {
            sealer.open_outer(&row.serial, &row.so_envelope).map_err(|cause| needed_by(&row).caused_by(cause))?;
        }
        Ok(())
    })
}

/// Warns of a token without a PIN whose KMS opens what anybody may have wrapped.
pub fn warn_of_forgery(sealer: &Sealer, label: &str) {
    match sealer.provider().wraps_by_public_key() {
        Ok(false) => {}
        Ok(true) => log::warn!(
            "the token \"{}\" opens without a PIN (pin_source = \"kms\"), and {FORGEABLE}",
            label.escape_debug()
        ),
        Err(error) => log::debug!("the KMS does not tell whether its master key wraps by a public key: {error}"),
    }
}

fn needed_by(row: &TokenRow) -> Error {
    Error::device(format!(
        "no new one is made, since the token `{}` needs the one that was there: put it back from a backup, or mount its disk; if it is lost \
         for good, restore that token by a recovery, or use another database",
        row.label.escape_debug()
    ))
}

fn now_under(outer: &Outer) -> WrappedBy {
    WrappedBy { provider: outer.provider().to_owned(), master_key: outer.master_key().clone() }
}

impl Session {
    /// Rotates the master key in the KMS and wraps the token's outer key under the new version: two KMS calls, and two for each key that
    /// has a data key of its own. What a run that was broken off has left, the next one takes along.
    ///
    /// # Errors
    /// `UserNotLoggedIn`, `SessionReadOnly`; what the KMS answers; `FunctionFailed` when another process changes the envelopes;
    /// `ActionProhibited` for a token with recovery envelopes whose keys would get data keys of their own.
    pub fn rotate_master_key(&self) -> Result<MasterKeyChange> {
        const OPERATION: &str = "SR_RotateMasterKey";
        self.changing(self.event(OPERATION), |event| {
            self.check_read_write()?;
            let (login, sealer) = self.token.login_and_sealer()?;
            self.token.check_scope(&sealer)?;
            sealer.provider().rotate_master_key()?;
            let outer = sealer.rewrap(&self.token.serial, &login.outer, sealer.provider().as_ref())?;
            let now_under = now_under(&outer);
            let changed = self.token.replace_outer(&sealer, &login, outer, event)?;
            let (from, to, reason) = (sealer.clone(), &*sealer, Reason::Rotation);
            let keys =
                Rescope { session: self, operation: OPERATION, reason, login: &login, from, to, now_under }.run()?;
            Ok(MasterKeyChange { keys, ..changed })
        })
    }

    /// Moves the token to another provider of the configuration: two KMS calls of that provider, and some for each key that has a data
    /// key of its own. The old one is no longer needed once this has succeeded; a run that was broken off needs both, and the next
    /// one goes on.
    ///
    /// # Errors
    /// As [`Self::rotate_master_key`]; `ArgumentsBad` for a provider that the configuration does not have.
    pub fn move_kms(&self, provider: &str) -> Result<MasterKeyChange> {
        self.changing(self.event(MOVE), |event| self.relocate(provider, event))
    }

    fn relocate(&self, provider: &str, event: &mut Event) -> Result<MasterKeyChange> {
        self.check_read_write()?;
        let (login, sealer) = self.token.login_and_sealer()?;
        let target = sealer.provider_named(provider).ok_or_else(|| {
            Error::arguments_bad(format!(
                "there is no [kms.{}] in the configuration; it has: {}",
                provider.escape_debug(),
                sealer.provider_names().join(", ")
            ))
        })?;
        let to = sealer.under(target.clone());
        self.token.check_scope(&to)?;
        self.make_first_key(&to)?;
        let outer = to.rewrap(&self.token.serial, &login.outer, to.provider().as_ref())?;
        // By another KMS it must open again before the old form is given up.
        to.check_opens(&self.token.serial, &outer, to.provider().as_ref())?;
        let now_under = now_under(&outer);
        let changed = self.token.replace_outer(&sealer, &login, outer, event)?;
        let (from, to, reason) = (sealer, &to, Reason::Move);
        let keys = Rescope { session: self, operation: MOVE, reason, login: &login, from, to, now_under }.run()?;
        Ok(MasterKeyChange { keys, ..changed })
    }

    /// Lets the provider of a sealer make its first master key, unless another token needs the one that was there.
    ///
    /// # Errors
    /// `DeviceError` when there is such a token; what the KMS and the store answer.
    pub fn make_first_key(&self, sealer: &Sealer) -> Result<()> {
        make_first_key(self.token.store.as_ref(), sealer)
    }

    /// Wraps a key under the token's master key (C_WrapKey with CKM_SR_KMS_WRAP).
    ///
    /// # Errors
    /// As [`Self::wrap_key`].
    pub fn wrap_under_kms(&self, key: CK_OBJECT_HANDLE, room: Room) -> Result<Reply> {
        self.wrap_key(kms_wrap()?, self.token.master_key()?, key, room)
    }

    /// Unwraps a key under the token's master key (C_UnwrapKey with CKM_SR_KMS_WRAP).
    ///
    /// # Errors
    /// As [`Self::unwrap_key`].
    pub fn unwrap_under_kms(&self, blob: &[u8], template: Attributes) -> Result<CK_OBJECT_HANDLE> {
        self.unwrap_key(kms_wrap()?, self.token.master_key()?, blob, template)
    }

    /// Makes a data key: a session object of type AES with 32 bytes, and the same wrapped by the KMS. One KMS call.
    ///
    /// # Errors
    /// `UserNotLoggedIn`; what the KMS answers; the template's.
    pub fn generate_data_key(&self, mut template: Attributes, room: Room) -> Result<(Reply, CK_OBJECT_HANDLE)> {
        let (_, sealer) = self.token.login_and_sealer()?;
        template.default_to(CKA_CLASS, CKO_SECRET_KEY);
        template.default_to(CKA_KEY_TYPE, CKK_AES);
        self.check_template(&template)?;
        if let Some(needed) = too_small(room) {
            return Ok((needed, CK_INVALID_HANDLE));
        }
        let (key, blob) = sealer.data_key(&self.token.serial)?;
        let event = self.event("SR_GenerateDataKey");
        template.set(CKA_VALUE_LEN, u64::try_from(key.len()).unwrap_or(0));
        let secret = SecurePrivateKey::new(key);
        let handle = self.changing(event, |event| self.add_key(template, Origin::Unwrap, secret, event))?;
        Ok((Reply::Wrapped(blob), handle))
    }

    /// Asks the token's KMS how it is, and describes it and its master key as JSON. One KMS call, and none for a size query.
    ///
    /// # Errors
    /// None of the KMS's: an error is part of the answer.
    pub fn kms_status(&self, room: Room) -> Result<Reply> {
        if let Some(needed) = too_small(room) {
            return Ok(needed);
        }
        let provider = self.token.profile().sealer.provider().clone();
        let (kind, answer) = (provider.kind(), provider.describe());
        let calls = provider.health_report();
        let status = match answer {
            Ok(found) => serde_json::json!({
                "type": kind,
                "key": found.master_key.key,
                "version": found.version,
                "state": found.state.name(),
                "algorithms": found.algorithms,
                "calls": calls,
            }),
            Err(error) => serde_json::json!({
                "type": kind,
                "fault": error.kms_fault().map(KmsFault::name),
                "error": error.message(),
                "calls": calls,
            }),
        };
        Ok(Reply::Wrapped(status.to_string().into_bytes()))
    }
}

/// The most bytes that a key takes which a KMS wrapped: no service takes more than 4096, and names of keys are shorter.
const LARGEST_BLOB: usize = 8192;

/// Answers a size query, or a buffer that may be too small, before the KMS is asked: a request costs money, and a key that
/// does not fit would be lost.
pub fn too_small(room: Room) -> Option<Reply> {
    match room {
        Room::Bytes(room) if room >= LARGEST_BLOB => None,
        _ => Some(Reply::Needs(LARGEST_BLOB)),
    }
}

fn kms_wrap() -> Result<Call> {
    let mechanism = mechanism::find(CKM_SR_KMS_WRAP).ok_or_else(|| Error::internal("the mechanism has no row"))?;
    Ok(Call { mechanism, params: Params::None })
}

impl Token {
    /// Opens the outer seals of both envelopes, and gives the key that they have in common.
    pub(super) fn check_envelopes(&self, row: &TokenRow) -> Result<Outer> {
        let profile = self.profile();
        let outer = profile.sealer.open_outer(&row.serial, &row.so_envelope)?;
        profile.sealer.open_inner(&envelope_id(row, Role::So), &row.so_envelope, &outer)?;
        let user = match profile.pin_source {
            PinSource::Machine => machine_id(row),
            PinSource::Prompt | PinSource::Given(_) => envelope_id(row, Role::User),
        };
        if let Some(envelope) = &row.user_envelope {
            profile.sealer.open_inner(&user, envelope, &outer)?;
        }
        Ok(outer)
    }

    /// Finds the object of the master key.
    fn master_key(&self) -> Result<CK_OBJECT_HANDLE> {
        let is_master =
            |own: &&(CK_OBJECT_HANDLE, Arc<Object>)| own.1.attributes().ulong(CKA_KEY_TYPE) == Some(CKK_SR_KMS);
        let found = self.handles.all_own().iter().find(|own| is_master(own)).map(|own| own.0);
        found.ok_or_else(|| Error::internal("the token has no object of its master key"))
    }

    pub(super) fn login_and_sealer(&self) -> Result<(Login, Arc<Sealer>)> {
        let login = self.login.read().clone().ok_or_else(|| Error::from(Kind::UserNotLoggedIn))?;
        Ok((login, self.profile().sealer))
    }

    /// Refuses to give keys of a token data keys of their own that its recovery envelopes could not open.
    fn check_scope(&self, to: &Sealer) -> Result<()> {
        match to.gives_data_keys() {
            true => self.check_no_recovery(),
            false => Ok(()),
        }
    }

    /// Puts an outer key that was wrapped again into both envelopes, in one transaction.
    fn replace_outer(
        &self,
        sealer: &Sealer,
        login: &Login,
        outer: Outer,
        event: &mut Event,
    ) -> Result<MasterKeyChange> {
        let (key, signers) = (outer.master_key(), Signers::of(&*login.token_key));
        event.detail = format!("{} {} version {}", outer.provider(), key.key, key.version);
        self.write_recorded(event, Some(signers), &mut |transaction| {
            let row = transaction.token(&self.serial)?.filter(|row| row.created == login.created);
            let mut row = row.ok_or_else(gone)?;
            row.so_envelope = sealer.replace_outer(&envelope_id(&row, Role::So), &row.so_envelope, &outer)?;
            if let Some(envelope) = &row.user_envelope {
                let user = sealer.replace_outer(&envelope_id(&row, Role::User), envelope, &outer);
                // A token that opens without a PIN has the machine's envelope there.
                row.user_envelope = Some(user.or_else(|_| sealer.replace_outer(&machine_id(&row), envelope, &outer))?);
            }
            row.revision += 1;
            transaction.update_token(&row)
        })?;
        Ok(MasterKeyChange {
            provider: outer.provider().to_owned(),
            key: outer.master_key().key.clone(),
            version: outer.master_key().version,
            keys: 0,
        })
    }
}
