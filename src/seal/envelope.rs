//! The envelope: a token key, sealed under a password and, around that, under the KMS master key.
//!
//! The rules are:
//! - opening goes from the outside in: KMS, then Argon2id, then the inner seal. So without the KMS no password can be tried,
//!   and whatever fails before the inner seal is damage or a missing KMS key, not a wrong password;
//! - the KMS layer holds a digest of all that stands in clear beside it, so that an altered header is found before
//!   Argon2id runs with it;
//! - the inner seal does not name the KMS key: the outer layer can be renewed, or moved to another provider, without the
//!   password.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::aead::{self, Mismatch, Nonce, TAG_LEN, Tag};
use super::argon2::{Argon2Params, SALT_LEN};
use super::header::{BlobKind, Header};
use super::reader::Reader;
use super::token_key::TokenKey;
use crate::error::{Error, Kind, Result};
use crate::kms::{Context, KmsProvider, MasterKeyId, Wrapped};
use crate::secret::SecureBytes;

const KIND: BlobKind = BlobKind::Envelope;
const DIGEST_LEN: usize = 32;
/// What the KMS wraps: the digest of the clear part, the encrypted token key, its tag.
const INNER_LEN: usize = DIGEST_LEN + TokenKey::LEN + TAG_LEN;

/// Whose password opens an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The security officer.
    So,
    /// The normal user.
    User,
}

impl Role {
    /// Tells the purpose that the KMS is given.
    pub fn purpose(self) -> &'static str {
        match self {
            Role::So => "token-key/so",
            Role::User => "token-key/user",
        }
    }

    fn code(self) -> u8 {
        match self {
            Role::So => 1,
            Role::User => 2,
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

impl EnvelopeId<'_> {
    /// Tells the KMS what the envelope is for.
    fn context(&self) -> Result<Context<'_>> {
        let token = std::str::from_utf8(&self.token).map_err(|_| Error::internal("a token serial is not text"))?;
        Ok(Context { token, purpose: self.role.purpose() })
    }
}

/// Seals and opens token keys with one KMS provider and the configured cost of Argon2id.
#[derive(Clone)]
pub struct Sealer {
    provider: Arc<dyn KmsProvider>,
    params: Argon2Params,
}

impl Sealer {
    /// Takes the provider and the cost of new envelopes.
    pub fn new(provider: Arc<dyn KmsProvider>, params: Argon2Params) -> Self {
        Self { provider, params }
    }

    /// Seals a token key for a role: one Argon2id, one KMS call.
    ///
    /// # Errors
    /// `DeviceError` with what the KMS said; `HostMemory` when Argon2id finds too little memory.
    pub fn seal_token_key(&self, id: &EnvelopeId<'_>, password: &SecureBytes, key: &TokenKey) -> Result<Vec<u8>> {
        let clear = Clear { params: self.params, salt: aead::random()?, nonce: aead::random()? };
        let bound = clear.bound_to(id)?;
        let master = clear.params.derive(password, &clear.salt)?;
        let mut sealed = [0; TokenKey::LEN];
        let tag = aead::seal(master.expose(), &clear.nonce, &bound, key.expose(), &mut sealed)?;
        let inner = SecureBytes::take([&Sha256::digest(&bound)[..], &sealed, &tag].concat());
        let wrapped = self.provider.wrap_key(&inner, &id.context()?)?;
        Envelope { provider: self.provider.kind(), clear, wrapped }.encode()
    }

    /// Opens a token key with the password of a role: one KMS call, then one Argon2id.
    ///
    /// # Errors
    /// `PinIncorrect` for a wrong password, and for nothing else; `DeviceError` when the KMS does not open the envelope,
    /// when it is damaged, or when it belongs to another token, label or role; `HostMemory` as in sealing.
    pub fn open_token_key(&self, id: &EnvelopeId<'_>, password: &SecureBytes, envelope: &[u8]) -> Result<TokenKey> {
        self.open_kms_layer(id, envelope)?.open(password)
    }

    /// Tells whether an envelope was sealed with a lower cost of Argon2id than the configured one, and should be sealed anew at
    /// this login. A cost is never lowered by a login: another process may be configured otherwise. Lanes are no cost.
    ///
    /// # Errors
    /// `DeviceError` when the envelope cannot be read.
    pub fn needs_upgrade(&self, envelope: &[u8]) -> Result<bool> {
        Ok(self.params.exceeds(&Envelope::parse(envelope)?.clear.params))
    }

    /// Opens the outer layer. No password comes in here: all that fails, fails alike for a right and a wrong one.
    ///
    /// # Errors
    /// `DeviceError` as in [`Self::open_token_key`].
    pub fn open_kms_layer(&self, id: &EnvelopeId<'_>, envelope: &[u8]) -> Result<Inner> {
        let Envelope { provider, clear, wrapped } = Envelope::parse(envelope)?;
        if provider != self.provider.kind() {
            return Err(Error::device(format!(
                "{} is under a KMS of type `{}`, and the configuration names one of type `{}`",
                KIND.name(),
                provider.escape_debug(),
                self.provider.kind()
            )));
        }
        let inner = self.provider.unwrap_key(&wrapped, &id.context()?)?;
        Inner::new(inner, clear, id)
    }
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

/// An envelope, taken apart.
struct Envelope<'a> {
    provider: &'a str,
    clear: Clear,
    wrapped: Wrapped,
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
        reader.finish()?;
        let master_key = MasterKeyId { key, version: header.key_version };
        Ok(Self { provider, clear, wrapped: Wrapped { master_key, blob } })
    }
}

/// What the KMS layer held: the token key under the password alone.
pub struct Inner {
    clear: Clear,
    pub(super) bound: Vec<u8>,
    pub(super) sealed: SecureBytes,
    pub(super) tag: Tag,
}

impl Inner {
    /// Checks that the KMS layer vouches for all that stood in clear.
    fn new(inner: SecureBytes, clear: Clear, id: &EnvelopeId<'_>) -> Result<Self> {
        let bound = clear.bound_to(id)?;
        let damaged = || Error::damaged(format!("{} of token `{}`", KIND.name(), id.label.escape_debug()));
        if inner.len() != INNER_LEN {
            return Err(damaged());
        }
        let mut reader = Reader::new(inner.expose(), KIND.name());
        if reader.array::<DIGEST_LEN>()?[..] != Sha256::digest(&bound)[..] {
            return Err(damaged());
        }
        let tag = *reader.array_at_end()?;
        let sealed = SecureBytes::copy_from(reader.remaining());
        Ok(Self { clear, bound, sealed, tag })
    }

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
