//! The seal of a secret under a data key of its own, which the KMS wraps (`scope = "key"` of a provider).
//!
//! The rules are:
//! - this seal lies inside that of the object, which needs the token key, and around that of the owner's password, if there is one;
//! - it is bound to token and object, and so is the wrapped data key, of which the KMS is told both: each of its records names the key;
//! - it names provider, master key and version, so that it opens after the master key was rotated, and while a move is under way;
//! - another version or another KMS wraps the same data key again, and the secret is sealed anew with another nonce.

use std::collections::HashMap;
use std::time::Duration;

use data_encoding::HEXLOWER;
use parking_lot::Mutex;

use super::aead::{self, Mismatch, NONCE_LEN, Nonce, TAG_LEN, Tag};
use super::envelope::Sealer;
use super::header::{BlobKind, Bytes, Header};
use super::reader::Reader;
use crate::error::{Error, Result};
use crate::kms::{Context, DATA_KEY_LEN, DataKey, Flights, MasterKeyId, Ticket, Wrapped};
use crate::secret::{SecureBytes, SecurePrivateKey};

const KIND: BlobKind = BlobKind::DataKeySealed;
/// For how long one waits for the answer to another thread's request: longer than a KMS may be configured to take.
const PATIENCE: Duration = Duration::from_secs(610);

/// Which object of which token a data key is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataKeyId {
    /// The serial number of the token.
    pub token: [u8; 16],
    /// The unique id of the object.
    pub uid: [u8; 16],
}

impl DataKeyId {
    /// Tells the KMS what the data key is for, and hands that to `ask`.
    fn with_context<T>(&self, ask: impl FnOnce(&Context<'_>) -> Result<T>) -> Result<T> {
        let token = std::str::from_utf8(&self.token).map_err(|_| Error::internal("a token serial is not text"))?;
        let purpose = format!("data-key/{}", HEXLOWER.encode(&self.uid));
        ask(&Context { token, purpose: &purpose })
    }

    fn damaged(&self) -> Error {
        Error::damaged(format!("{} (object {})", KIND.name(), HEXLOWER.encode(&self.uid)))
    }
}

/// What wraps a data key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedBy {
    /// The type of the provider.
    pub provider: String,
    /// The master key.
    pub master_key: MasterKeyId,
}

/// The data key of one object, open, and the form in which it rests.
pub struct ObjectKey {
    id: DataKeyId,
    provider: String,
    key: SecureBytes,
    wrapped: Wrapped,
}

impl ObjectKey {
    /// Tells the object that it is of.
    pub fn id(&self) -> DataKeyId {
        self.id
    }

    /// Tells what wraps it.
    pub fn wrapped_by(&self) -> WrappedBy {
        WrappedBy { provider: self.provider.clone(), master_key: self.wrapped.master_key.clone() }
    }

    /// Seals the secret of the object, or what its owner's password made of it.
    ///
    /// # Errors
    /// `DeviceError` without randomness, and for a name or blob of the KMS that is too long; `HostMemory`.
    pub fn seal(&self, secret: &SecurePrivateKey) -> Result<SecurePrivateKey> {
        let (head, plain, nonce) = (self.head()?, secret.expose(), aead::random::<NONCE_LEN>()?);
        let mut blob = SecureBytes::try_zeroed(head.len() + NONCE_LEN + plain.len() + TAG_LEN)?;
        let parts = split(blob.expose_mut(), head.len(), plain.len());
        let (start, place, out, end) = parts.ok_or_else(|| Error::internal("a seal has another length"))?;
        start.copy_from_slice(&head);
        *place = nonce;
        *end = aead::seal(self.key.expose(), &nonce, &bound_to(&head, &self.id), plain, out)?;
        Ok(SecurePrivateKey::new(blob))
    }

    /// Opens what was sealed under it.
    ///
    /// # Errors
    /// `DeviceError` when it is damaged, was altered, or belongs to another object.
    pub fn open(&self, sealed: &SecurePrivateKey) -> Result<SecurePrivateKey> {
        let opened = Sealed::parse(sealed.expose())?.open(&self.id, &self.key)?;
        opened.ok_or_else(|| self.id.damaged())
    }

    /// Encodes all that stands before the nonce.
    fn head(&self) -> Result<Bytes> {
        let too_long = |_| Error::device("the KMS answered with a name or blob that is too long");
        let MasterKeyId { key, version } = &self.wrapped.master_key;
        let mut head = Header { kind: KIND, key_version: *version, key_id: key.as_bytes() }.encode()?;
        head.push(u8::try_from(self.provider.len()).map_err(too_long)?);
        head.extend_from_slice(self.provider.as_bytes());
        head.extend_from_slice(&u32::try_from(self.wrapped.blob.len()).map_err(too_long)?.to_be_bytes());
        head.extend_from_slice(&self.wrapped.blob);
        Ok(head)
    }
}

/// Tells what wraps the data key of a sealed secret, without opening it.
///
/// # Errors
/// `DeviceError` for what is no such seal.
pub fn data_key_of(sealed: &SecurePrivateKey) -> Result<WrappedBy> {
    let Sealed { provider, wrapped, .. } = Sealed::parse(sealed.expose())?;
    Ok(WrappedBy { provider: provider.to_owned(), master_key: wrapped.master_key })
}

impl Sealer {
    /// Makes the data key of an object by the provider of the token: one KMS call.
    ///
    /// # Errors
    /// What the KMS answers.
    pub fn make_object_key(&self, id: DataKeyId) -> Result<ObjectKey> {
        let DataKey { key, wrapped } = id.with_context(|context| self.provider().generate_data_key(context))?;
        Ok(ObjectKey { id, provider: self.provider().kind().to_owned(), key, wrapped })
    }

    /// Wraps a data key again, under the present version of the master key of the token's provider: one KMS call.
    ///
    /// # Errors
    /// What the KMS answers.
    pub fn rewrap_object_key(&self, key: &ObjectKey) -> Result<ObjectKey> {
        let wrapped = key.id.with_context(|context| self.provider().wrap_key(&key.key, context))?;
        Ok(ObjectKey { id: key.id, provider: self.provider().kind().to_owned(), key: key.key.clone(), wrapped })
    }

    /// Checks that the provider of the token gives a data key back that it has wrapped: one KMS call.
    ///
    /// # Errors
    /// What the KMS answers; `DeviceError` when it gives another key.
    pub fn check_object_key(&self, key: &ObjectKey) -> Result<()> {
        match key.id.with_context(|context| self.provider().unwrap_key(&key.wrapped, context))? == key.key {
            true => Ok(()),
            false => Err(Error::device("the KMS does not give back the data key that it has just wrapped")),
        }
    }

    /// Opens the data key of a sealed secret: one KMS call.
    ///
    /// # Errors
    /// What the KMS answers; `DeviceError` for what is no such seal, or when no provider of its type is configured.
    pub fn open_object_key(&self, id: DataKeyId, sealed: &SecurePrivateKey) -> Result<ObjectKey> {
        let Sealed { provider, wrapped, .. } = Sealed::parse(sealed.expose())?;
        let key = self.unwrap_data_key(&id, provider, &wrapped)?;
        Ok(ObjectKey { id, provider: provider.to_owned(), key, wrapped })
    }

    fn unwrap_data_key(&self, id: &DataKeyId, provider: &str, wrapped: &Wrapped) -> Result<SecureBytes> {
        let key = id.with_context(|context| self.unwrap(KIND.name(), provider, wrapped, context));
        let key = key.map_err(|error| {
            let (uid, master_key) = (HEXLOWER.encode(&id.uid), &wrapped.master_key);
            error.context(format!("the data key of object {uid}, under the {provider} KMS key {master_key}"))
        })?;
        match key.len() {
            DATA_KEY_LEN => Ok(key),
            _ => Err(id.damaged()),
        }
    }
}

/// The data keys that one login has opened: each costs one KMS call, however many threads want it. They go with the login.
#[derive(Default)]
pub struct DataKeys {
    open: Mutex<HashMap<[u8; 16], SecureBytes>>,
    flights: Flights,
}

impl DataKeys {
    /// Opens a secret. The first time asks the KMS for its data key; who comes meanwhile waits for that answer.
    ///
    /// # Errors
    /// What the KMS answers; `DeviceError` when the secret is damaged, was altered, or belongs to another object.
    pub fn open(&self, sealer: &Sealer, id: DataKeyId, sealed: &SecurePrivateKey) -> Result<SecurePrivateKey> {
        if let Some((_, secret)) = self.known(id, sealed)? {
            return Ok(secret);
        }
        let parsed = Sealed::parse(sealed.expose())?;
        let ticket = id.with_context(|context| Ok(Ticket::new(&parsed.wrapped, context)))?;
        let key = self.flights.join(ticket, PATIENCE, || {
            // Another thread may have landed just before this one took off.
            match self.known(id, sealed)? {
                Some((known, _)) => Ok(known.key),
                None => sealer.unwrap_data_key(&id, parsed.provider, &parsed.wrapped).inspect(|key| {
                    self.open.lock().insert(id.uid, key.clone());
                }),
            }
        })?;
        parsed.open(&id, &key)?.ok_or_else(|| id.damaged())
    }

    /// Opens a secret whose data key is open already, and gives that too; `None` when the KMS must be asked for it.
    ///
    /// # Errors
    /// `DeviceError` for what is no such seal; `HostMemory`.
    pub fn known(&self, id: DataKeyId, sealed: &SecurePrivateKey) -> Result<Option<(ObjectKey, SecurePrivateKey)>> {
        let Some(key) = self.open.lock().get(&id.uid).cloned() else { return Ok(None) };
        let parsed = Sealed::parse(sealed.expose())?;
        // Wrapped anew it is the same key; what it does not open is under another one by now.
        let Some(secret) = parsed.open(&id, &key)? else { return Ok(None) };
        let Sealed { provider, wrapped, .. } = parsed;
        Ok(Some((ObjectKey { id, provider: provider.to_owned(), key, wrapped }, secret)))
    }
}

/// Encodes what a seal is bound to.
fn bound_to(head: &[u8], id: &DataKeyId) -> Bytes {
    let mut bound = Bytes::from_slice(head);
    bound.extend_from_slice(&id.token);
    bound.extend_from_slice(&id.uid);
    bound
}

/// The parts of a blob that is written: head, nonce, ciphertext, tag.
type Places<'a> = (&'a mut [u8], &'a mut Nonce, &'a mut [u8], &'a mut Tag);

fn split(blob: &mut [u8], head: usize, len: usize) -> Option<Places<'_>> {
    let (start, rest) = blob.split_at_mut_checked(head)?;
    let (nonce, rest) = rest.split_first_chunk_mut()?;
    let (ciphertext, rest) = rest.split_at_mut_checked(len)?;
    Some((start, nonce, ciphertext, rest.first_chunk_mut()?))
}

/// A sealed secret, taken apart.
struct Sealed<'a> {
    /// All that stands before the nonce.
    head: &'a [u8],
    provider: &'a str,
    wrapped: Wrapped,
    nonce: &'a Nonce,
    ciphertext: &'a [u8],
    tag: &'a Tag,
}

impl<'a> Sealed<'a> {
    fn parse(blob: &'a [u8]) -> Result<Self> {
        let damaged = || Error::damaged(KIND.name());
        let mut reader = Reader::new(blob, KIND.name());
        let header = Header::parse_kind(&mut reader, KIND)?;
        let key = std::str::from_utf8(header.key_id).map_err(|_| damaged())?.to_owned();
        let provider_len = reader.u8()?;
        let provider = reader.text(usize::from(provider_len))?;
        let blob_len = usize::try_from(reader.u32()?).map_err(|_| damaged())?;
        let wrapped = reader.bytes(blob_len)?.to_vec();
        let (nonce, tag) = (reader.array()?, reader.array_at_end()?);
        let ciphertext = reader.remaining();
        let rest = NONCE_LEN + ciphertext.len() + TAG_LEN;
        let head = blob.len().checked_sub(rest).and_then(|len| blob.get(..len)).ok_or_else(damaged)?;
        let wrapped = Wrapped { master_key: MasterKeyId { key, version: header.key_version }, blob: wrapped };
        Ok(Self { head, provider, wrapped, nonce, ciphertext, tag })
    }

    /// Decrypts; `None` when the key is another one, or anything was altered.
    fn open(&self, id: &DataKeyId, key: &SecureBytes) -> Result<Option<SecurePrivateKey>> {
        let mut secret = SecureBytes::try_zeroed(self.ciphertext.len())?;
        let bound = bound_to(self.head, id);
        let opened = aead::open(key.expose(), self.nonce, &bound, self.ciphertext, self.tag, secret.expose_mut());
        Ok(opened.map_or_else(|Mismatch| None, |()| Some(SecurePrivateKey::new(secret))))
    }
}

#[cfg(test)]
mod tests;
