//! The envelope: a token key, sealed under a password and, around that, under the outer key, which the KMS wraps.
//!
//! The rules are:
//! - opening goes from the outside in: KMS, then the outer seal, then Argon2id, then the inner seal. So without the KMS no
//!   password can be tried, and whatever fails before the inner seal is damage or a missing KMS key, not a wrong password;
//! - the outer seal authenticates all that stands in clear, so that an altered header is found before Argon2id runs with it;
//! - the envelopes of one token share its outer key: one call of the KMS opens the token, and a new version of the master key,
//!   or another provider, wraps that one key again, without a password.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::aead::{self, Mismatch, NONCE_LEN, Nonce, TAG_LEN, Tag};
use super::argon2::{Argon2Params, SALT_LEN};
use super::header::{BlobKind, Header};
use super::reader::Reader;
use super::token_key::TokenKey;
use crate::error::{Error, Kind, KmsFault, Result};
use crate::kms::{Context, DATA_KEY_LEN, DataKey, KmsProvider, MasterKeyId, Wrapped};
use crate::log;
use crate::secret::SecureBytes;

const KIND: BlobKind = BlobKind::Envelope;
/// What the outer seal holds: the encrypted token key and its tag.
const INNER_LEN: usize = TokenKey::LEN + TAG_LEN;
/// What the KMS is told of the outer key.
const PURPOSE: &str = "token-key";

/// What to say of a KMS by whose public key anybody can wrap, where a token opens without a PIN.
pub const FORGEABLE: &str = "the master key of its KMS wraps by a public key (RSA): whoever can write the database can put a token of his own \
     in its place, unnoticed, and read what is made in it from then on; use a master key that is symmetric (AES), or a PIN";

/// Whose password opens an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The security officer.
    So,
    /// The normal user.
    User,
    /// The machine: there is no password, and whoever the KMS serves can open the token.
    Machine,
}

impl Role {
    fn code(self) -> u8 {
        match self {
            Role::So => 1,
            Role::User => 2,
            Role::Machine => 3,
        }
    }
}

/// Which envelope: of which token, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct EnvelopeId<'a> {
    /// The serial number of the token, 16 characters.
    pub token: [u8; 16],
    /// The label of the token.
    pub label: &'a str,
    /// Whose password.
    pub role: Role,
}

/// The outer key of a token: opened by the KMS once, it opens and seals every envelope of that token.
#[derive(Clone)]
pub struct Outer {
    provider: String,
    key: SecureBytes,
    wrapped: Wrapped,
}

impl Outer {
    /// Tells the type of the provider that wrapped it.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// Tells the master key that wrapped it.
    pub fn master_key(&self) -> &MasterKeyId {
        &self.wrapped.master_key
    }

    /// Gives the same key as it is wrapped in an envelope of the token now: it may have been wrapped again since.
    ///
    /// # Errors
    /// `DeviceError` for a damaged envelope.
    pub fn as_in(&self, envelope: &[u8]) -> Result<Outer> {
        let Envelope { provider, wrapped, .. } = Envelope::parse(envelope)?;
        Ok(Outer { provider: provider.to_owned(), key: self.key.clone(), wrapped })
    }
}

/// Seals and opens token keys with the KMS providers and the configured cost of Argon2id.
#[derive(Clone)]
pub struct Sealer {
    primary: Arc<dyn KmsProvider>,
    /// Every provider of the configuration by its name: what may open an envelope that was sealed under it, or take the token.
    named: Arc<BTreeMap<String, Arc<dyn KmsProvider>>>,
    /// Those of them under which each managed key has a data key of its own.
    scoped: Arc<BTreeSet<String>>,
    params: Argon2Params,
}

impl Sealer {
    /// Takes the provider of the token and the cost of new envelopes.
    pub fn new(primary: Arc<dyn KmsProvider>, params: Argon2Params) -> Self {
        Self { primary, named: Arc::default(), scoped: Arc::default(), params }
    }

    /// Adds the providers of the configuration: they open what was sealed under them, and take tokens that move.
    #[must_use]
    pub fn with_providers(self, named: Arc<BTreeMap<String, Arc<dyn KmsProvider>>>) -> Self {
        Self { named, ..self }
    }

    /// Says of which of these providers the scope is the key: there each managed key has a data key of its own.
    #[must_use]
    pub fn with_data_keys_of(self, scoped: Arc<BTreeSet<String>>) -> Self {
        Self { scoped, ..self }
    }

    /// Tells whether new managed keys of the token have a data key of their own.
    pub fn gives_data_keys(&self) -> bool {
        self.gives_data_keys_by(&self.primary)
    }

    /// Tells the same of a provider of the configuration.
    pub fn gives_data_keys_by(&self, provider: &Arc<dyn KmsProvider>) -> bool {
        self.scoped.iter().filter_map(|name| self.named.get(name)).any(|scoped| Arc::ptr_eq(scoped, provider))
    }

    /// Tells whether no other provider of the configuration has the type of the token's: then its names of keys mean its own.
    pub fn is_alone_of_its_kind(&self) -> bool {
        let others = self.named.values().filter(|other| !Arc::ptr_eq(other, &self.primary));
        others.into_iter().all(|other| other.kind() != self.primary.kind())
    }

    /// Gives the same without the other providers.
    #[must_use]
    pub fn alone(&self) -> Self {
        Self::new(self.primary.clone(), self.params)
    }

    /// Gives the same with another provider for the token.
    #[must_use]
    pub fn under(&self, provider: Arc<dyn KmsProvider>) -> Self {
        Self { primary: provider, ..self.clone() }
    }

    /// Finds a provider by its name in the configuration.
    pub fn provider_named(&self, name: &str) -> Option<&Arc<dyn KmsProvider>> {
        self.named.get(name)
    }

    /// Lists the names of the providers of the configuration.
    pub fn provider_names(&self) -> Vec<&str> {
        self.named.keys().map(String::as_str).collect()
    }

    /// Tells the cost of new envelopes, and of new seals under passwords.
    pub fn argon2(&self) -> Argon2Params {
        self.params
    }

    /// Gives the provider of the token.
    pub fn provider(&self) -> &Arc<dyn KmsProvider> {
        &self.primary
    }

    /// Makes the outer key of a new token: one KMS call.
    ///
    /// # Errors
    /// What the KMS answers.
    pub fn make_outer(&self, token: &[u8; 16]) -> Result<Outer> {
        let DataKey { key, wrapped } = self.primary.generate_data_key(&context(token)?)?;
        Ok(Outer { provider: self.primary.kind().to_owned(), key, wrapped })
    }

    /// Opens the outer key of an envelope: one KMS call.
    ///
    /// # Errors
    /// `DeviceError` with what the KMS said, when the envelope is damaged, or when no provider of its type is configured.
    pub fn open_outer(&self, token: &[u8; 16], envelope: &[u8]) -> Result<Outer> {
        let Envelope { provider, wrapped, .. } = Envelope::parse(envelope)?;
        let key = self.unwrap(KIND.name(), provider, &wrapped, &context(token)?)?;
        if key.len() != DATA_KEY_LEN {
            return Err(Error::damaged(format!("{} of token {}", KIND.name(), String::from_utf8_lossy(token))));
        }
        Ok(Outer { provider: provider.to_owned(), key, wrapped })
    }

    /// Asks the providers of a type, the token's own first, until one unwraps. One that is away or denies may not be the right one; one that
    /// does not have the key is not, and tells the least.
    pub(super) fn unwrap(
        &self,
        what: &str,
        kind: &str,
        wrapped: &Wrapped,
        context: &Context<'_>,
    ) -> Result<SecureBytes> {
        let others = self.named.values().filter(|other| !Arc::ptr_eq(other, &self.primary));
        let candidates = std::iter::once(&self.primary).chain(others).filter(|provider| provider.kind() == kind);
        let is_missing = |fault| fault == Some(KmsFault::NotFound);
        let mut first_error = None;
        for provider in candidates {
            match provider.unwrap_key(wrapped, context) {
                Ok(key) => return Ok(key),
                Err(error) if error.kms_fault() == Some(KmsFault::WrongContext) => return Err(error),
                Err(error) => {
                    log::debug!("a KMS of type {kind} does not open {what}: {error}");
                    let tells_more =
                        |first: &Error| [first, &error].map(Error::kms_fault).map(is_missing) == [true, false];
                    if first_error.as_ref().is_none_or(tells_more) {
                        first_error = Some(error);
                    }
                }
            }
        }
        Err(first_error.unwrap_or_else(|| {
            Error::device(format!(
                "{what} is under a KMS of type `{}`, and the configuration names one of type `{}`; add a [kms.…] section for the former",
                kind.escape_debug(),
                self.primary.kind()
            ))
        }))
    }

    /// Wraps an outer key again: under the present version of the token's master key, or by another provider. One KMS call.
    ///
    /// # Errors
    /// What the KMS answers.
    pub fn rewrap(&self, token: &[u8; 16], outer: &Outer, provider: &dyn KmsProvider) -> Result<Outer> {
        let wrapped = provider.wrap_key(&outer.key, &context(token)?)?;
        Ok(Outer { provider: provider.kind().to_owned(), key: outer.key.clone(), wrapped })
    }

    /// Checks that an outer key which was wrapped again unwraps to the same key. One KMS call.
    ///
    /// # Errors
    /// What the KMS answers; `DeviceError` when it gives another key.
    pub fn check_opens(&self, token: &[u8; 16], outer: &Outer, provider: &dyn KmsProvider) -> Result<()> {
        match provider.unwrap_key(&outer.wrapped, &context(token)?)? == outer.key {
            true => Ok(()),
            false => Err(Error::device("the KMS does not give back the key that it has just wrapped")),
        }
    }

    /// Puts an outer key that was wrapped again into an envelope, which stays the same below.
    ///
    /// # Errors
    /// `DeviceError` for a damaged envelope, and for one whose outer key is another one.
    pub fn replace_outer(&self, id: &EnvelopeId<'_>, envelope: &[u8], outer: &Outer) -> Result<Vec<u8>> {
        self.open_inner(id, envelope, outer)?;
        let old = Envelope::parse(envelope)?;
        Envelope { provider: &outer.provider, wrapped: outer.wrapped.clone(), ..old }.encode()
    }

    /// Seals a token key for a role: one Argon2id, no KMS call. The machine's has an empty password at the least cost.
    ///
    /// # Errors
    /// `HostMemory` when Argon2id finds too little memory.
    pub fn seal_token_key(
        &self,
        id: &EnvelopeId<'_>,
        password: &SecureBytes,
        key: &TokenKey,
        outer: &Outer,
    ) -> Result<Vec<u8>> {
        let params = if id.role == Role::Machine { Argon2Params::LEAST } else { self.params };
        let clear = Clear { params, salt: aead::random()?, nonce: aead::random()? };
        let bound = clear.bound_to(id)?;
        let master = clear.params.derive(password, &clear.salt)?;
        let mut sealed = [0; TokenKey::LEN];
        let tag = aead::seal(master.expose(), &clear.nonce, &bound, key.expose(), &mut sealed)?;
        let inner = SecureBytes::take([&sealed[..], &tag].concat());
        let mut body = Body { nonce: aead::random()?, sealed: [0; INNER_LEN], tag: Tag::default() };
        body.tag = aead::seal(outer.key.expose(), &body.nonce, &bound, inner.expose(), &mut body.sealed)?;
        Envelope { provider: &outer.provider, clear, wrapped: outer.wrapped.clone(), body }.encode()
    }

    /// Opens a token key with the password of a role: one KMS call, then one Argon2id.
    ///
    /// # Errors
    /// `PinIncorrect` for a wrong password, and for nothing else; `DeviceError` when the KMS does not open the envelope,
    /// when it is damaged, or when it belongs to another token, label or role; `HostMemory` as in sealing.
    pub fn open_token_key(&self, id: &EnvelopeId<'_>, password: &SecureBytes, envelope: &[u8]) -> Result<TokenKey> {
        self.open_inner(id, envelope, &self.open_outer(&id.token, envelope)?)?.open(password)
    }

    /// Tells whether an envelope was sealed with a lower cost of Argon2id than the configured one, and should be sealed anew at
    /// this login. A cost is never lowered by a login: another process may be configured otherwise. Lanes are no cost.
    ///
    /// # Errors
    /// `DeviceError` when the envelope cannot be read.
    pub fn needs_upgrade(&self, envelope: &[u8]) -> Result<bool> {
        Ok(self.params.exceeds(&Envelope::parse(envelope)?.clear.params))
    }

    /// Opens the outer seal. No password comes in here: all that fails, fails alike for a right and a wrong one.
    ///
    /// # Errors
    /// `DeviceError` when the envelope is damaged, or belongs to another token, label, role or outer key; what to do where it was made
    /// for the other `pin_source`.
    pub fn open_inner(&self, id: &EnvelopeId<'_>, envelope: &[u8], outer: &Outer) -> Result<Inner> {
        let damaged = || Error::damaged(format!("{} of token `{}`", KIND.name(), id.label.escape_debug()));
        let opened = open_as(id, envelope, outer)?;
        opened.ok_or_else(|| made_for_another(id, envelope, outer).unwrap_or_else(damaged))
    }
}

/// Opens the outer seal of an envelope as one of this token, label and role; `None` when it is none.
fn open_as(id: &EnvelopeId<'_>, envelope: &[u8], outer: &Outer) -> Result<Option<Inner>> {
    let Envelope { clear, body, .. } = Envelope::parse(envelope)?;
    let bound = clear.bound_to(id)?;
    let inner = SecureBytes::try_with(INNER_LEN, |inner| {
        aead::open(outer.key.expose(), &body.nonce, &bound, &body.sealed, &body.tag, inner)
    });
    let Ok(inner) = inner.map_err(|Mismatch| ()) else { return Ok(None) };
    let parts = inner.expose().split_last_chunk();
    Ok(parts.map(|(sealed, tag)| Inner { clear, bound, tag: *tag, sealed: SecureBytes::copy_from(sealed) }))
}

/// Makes the error of a token that was made for another `pin_source` than the configuration has, if it is one.
fn made_for_another(id: &EnvelopeId<'_>, envelope: &[u8], outer: &Outer) -> Option<Error> {
    let (role, text) = match id.role {
        Role::So => return None,
        Role::User => (Role::Machine, "has no user PIN: write pin_source = \"kms\" in its [[token]] section"),
        Role::Machine => (Role::User, "has a user PIN: take pin_source = \"kms\" out of its [[token]] section"),
    };
    open_as(&EnvelopeId { role, ..*id }, envelope, outer).ok()??;
    let text = format!(
        "the token `{}` was made for another pin_source, and {text}, or initialise it anew",
        id.label.escape_debug()
    );
    Some(Error::device(text))
}

/// Tells which provider's type and which master key wrapped the outer key of an envelope, without opening it.
///
/// # Errors
/// `DeviceError` for a damaged envelope.
pub fn wrapped_by(envelope: &[u8]) -> Result<(String, MasterKeyId)> {
    let Envelope { provider, wrapped, .. } = Envelope::parse(envelope)?;
    Ok((provider.to_owned(), wrapped.master_key))
}

/// Tells the KMS what the outer key is for.
fn context(token: &[u8; 16]) -> Result<Context<'_>> {
    let token = std::str::from_utf8(token).map_err(|_| Error::internal("a token serial is not text"))?;
    Ok(Context { token, purpose: PURPOSE })
}

/// What stands in clear and is authenticated by both layers.
struct Clear {
    params: Argon2Params,
    salt: [u8; SALT_LEN],
    nonce: Nonce,
}

impl Clear {
    /// Encodes everything that the inner seal is bound to.
    fn bound_to(&self, id: &EnvelopeId<'_>) -> Result<Vec<u8>> {
        let label_len =
            u16::try_from(id.label.len()).map_err(|_| Error::arguments_bad("the token label is too long"))?;
        let mut bound = KIND.start().to_vec();
        self.append_to(&mut bound);
        bound.extend_from_slice(&id.token);
        bound.push(id.role.code());
        bound.extend_from_slice(&label_len.to_be_bytes());
        bound.extend_from_slice(id.label.as_bytes());
        Ok(bound)
    }

    fn append_to(&self, bytes: &mut Vec<u8>) {
        for number in [self.params.memory_kib(), self.params.passes(), self.params.lanes()] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&self.nonce);
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self> {
        let (memory_kib, passes, lanes) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let params =
            Argon2Params::new(memory_kib, passes, lanes).map_err(|e| Error::damaged(KIND.name()).caused_by(e))?;
        Ok(Self { params, salt: *reader.array()?, nonce: *reader.array()? })
    }
}

/// The outer seal.
struct Body {
    nonce: Nonce,
    sealed: [u8; INNER_LEN],
    tag: Tag,
}

/// An envelope, taken apart.
struct Envelope<'a> {
    provider: &'a str,
    clear: Clear,
    wrapped: Wrapped,
    body: Body,
}

impl<'a> Envelope<'a> {
    fn encode(&self) -> Result<Vec<u8>> {
        let too_long = |_| Error::device("the KMS answered with a name or blob that is too long");
        let MasterKeyId { key, version } = &self.wrapped.master_key;
        let header = Header { kind: KIND, key_version: *version, key_id: key.as_bytes() };
        let mut bytes = header.encode()?.to_vec();
        bytes.push(u8::try_from(self.provider.len()).map_err(too_long)?);
        bytes.extend_from_slice(self.provider.as_bytes());
        self.clear.append_to(&mut bytes);
        bytes.extend_from_slice(&u32::try_from(self.wrapped.blob.len()).map_err(too_long)?.to_be_bytes());
        bytes.extend_from_slice(&self.wrapped.blob);
        bytes.extend_from_slice(&[&self.body.nonce[..], &self.body.sealed, &self.body.tag].concat());
        Ok(bytes)
    }

    fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, KIND.name());
        let header = Header::parse_kind(&mut reader, KIND)?;
        let key = std::str::from_utf8(header.key_id).map_err(|_| Error::damaged(KIND.name()))?.to_owned();
        let provider_len = reader.u8()?;
        let provider = reader.text(usize::from(provider_len))?;
        let clear = Clear::parse(&mut reader)?;
        let blob_len = usize::try_from(reader.u32()?).map_err(|_| Error::damaged(KIND.name()))?;
        let blob = reader.bytes(blob_len)?.to_vec();
        let body = Body {
            nonce: *reader.array::<NONCE_LEN>()?,
            sealed: *reader.array::<INNER_LEN>()?,
            tag: *reader.array::<TAG_LEN>()?,
        };
        reader.finish()?;
        let master_key = MasterKeyId { key, version: header.key_version };
        Ok(Self { provider, clear, wrapped: Wrapped { master_key, blob }, body })
    }
}

/// What the outer seal held: the token key under the password alone.
pub struct Inner {
    clear: Clear,
    pub(super) bound: Vec<u8>,
    pub(super) sealed: SecureBytes,
    pub(super) tag: Tag,
}

impl Inner {
    /// Opens the inner seal with the password.
    ///
    /// # Errors
    /// `PinIncorrect` for a wrong password; `HostMemory` when Argon2id finds too little memory.
    pub fn open(&self, password: &SecureBytes) -> Result<TokenKey> {
        let master = self.clear.params.derive(password, &self.clear.salt)?;
        let key = SecureBytes::try_with(self.sealed.len(), |key| {
            aead::open(master.expose(), &self.clear.nonce, &self.bound, self.sealed.expose(), &self.tag, key)
        });
        TokenKey::from_bytes(key.map_err(|Mismatch| Error::from(Kind::PinIncorrect))?)
    }
}
