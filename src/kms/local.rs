//! The `local` provider: master keys in a file that only its owner can read, or in memory alone.
//!
//! The rules are:
//! - wrapping creates the file when there is none; unwrapping never does, since a new key could not open anything;
//! - the file is read for each call, so that a key which another process added is seen, and no key stays in memory;
//! - wrapping takes the active key: the highest version of the name that was added last. Old versions keep unwrapping;
//! - key name, key version, token and purpose are part of what is authenticated.
//!
//! `docs/format.md` has the bytes of the file and of the blob.

mod key_file;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{Aes256Gcm, KeyInit};
use parking_lot::RwLock;

use super::Settings;
use super::provider::{Context, KmsProvider, MasterKeyId, Wrapped};
use crate::error::{Error, Result};
use crate::secret::SecureBytes;
use key_file::{Entry, KEY_LEN, KeyRing};

/// The type as the configuration and the envelopes name it.
pub const KIND: &str = "local";

/// Magic, format version 1, algorithm 1 (AES-256-GCM): how each blob starts.
const BLOB_START: [u8; 6] = *b"SRLK\x01\x01";
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;

/// Opens the provider of a configuration.
pub fn open(settings: &Settings<'_>) -> Result<Arc<dyn KmsProvider>> {
    Ok(Arc::new(LocalKms::from_file(settings.key_file)))
}

/// A KMS without a KMS: master keys in a local file or in memory, for development and for a single machine.
#[derive(Debug)]
pub struct LocalKms {
    keys: Keys,
}

/// Where the master keys are.
#[derive(Debug)]
enum Keys {
    File(PathBuf),
    Memory(RwLock<KeyRing>),
}

impl LocalKms {
    /// Keeps the master keys in a file, which the first wrapping creates. Nothing is read yet.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self { keys: Keys::File(path.into()) }
    }

    /// Keeps master keys in memory; [`Self::add_master_key`] brings them in.
    pub fn new() -> Self {
        Self { keys: Keys::Memory(RwLock::default()) }
    }

    /// Makes a provider with one random key that is gone with it, for the `memory:` store.
    ///
    /// # Errors
    /// `DeviceError` when the system has no randomness.
    pub fn ephemeral() -> Result<Self> {
        let kms = Self::new();
        kms.add_master_key("ephemeral", key_file::random_key()?)?;
        Ok(kms)
    }

    /// Adds a master key of 32 bytes in memory and makes it the active one. A name that exists gets one version more.
    ///
    /// # Errors
    /// `ArgumentsBad` for a key of another length, a name with other characters than `A-Z a-z 0-9 . _ -`, and a
    /// provider whose keys are in a file.
    pub fn add_master_key(&self, name: &str, key: SecureBytes) -> Result<MasterKeyId> {
        match &self.keys {
            Keys::Memory(ring) => ring.write().add(name, key),
            Keys::File(path) => Err(Error::arguments_bad(format!(
                "the master keys of this provider are in {}; add_master_key is for LocalKms::new()",
                path.display()
            ))),
        }
    }

    /// Finds the active key; a missing file is created with a first one.
    fn active(&self) -> Result<Entry> {
        match &self.keys {
            Keys::File(path) => match key_file::load(path)? {
                Some(ring) => ring.active(path.display()),
                None => key_file::create(path)?.active(path.display()),
            },
            Keys::Memory(ring) => ring.read().active("this provider"),
        }
    }

    /// Finds the key that wrapped a blob.
    fn find(&self, id: &MasterKeyId) -> Result<Entry> {
        match &self.keys {
            Keys::File(path) => match key_file::load(path)? {
                Some(ring) => ring.find(id, path.display()),
                None => Err(missing(path, id)),
            },
            Keys::Memory(ring) => ring.read().find(id, "this provider"),
        }
    }
}

impl Default for LocalKms {
    fn default() -> Self {
        Self::new()
    }
}

impl KmsProvider for LocalKms {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn wrap_key(&self, secret: &SecureBytes, context: &Context<'_>) -> Result<Wrapped> {
        let Entry { id, key } = self.active()?;
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(no_randomness)?;
        let mut ciphertext = vec![0; secret.len()];
        let buffers = InOutBuf::new(secret.expose(), &mut ciphertext).expect("both have the secret's length");
        let tag = cipher(&key)?
            .encrypt_inout_detached(&nonce.into(), &associated_data(&id, context)?, buffers)
            .map_err(|_| Error::arguments_bad("the secret is too long to be wrapped"))?;
        let blob = [&BLOB_START[..], &nonce, &ciphertext, &tag].concat();
        Ok(Wrapped { master_key: id, blob })
    }

    fn unwrap_key(&self, wrapped: &Wrapped, context: &Context<'_>) -> Result<SecureBytes> {
        let parts = Blob::parse(&wrapped.blob)?;
        let Entry { id, key } = self.find(&wrapped.master_key)?;
        let (cipher, aad) = (cipher(&key)?, associated_data(&id, context)?);
        SecureBytes::try_with(parts.ciphertext.len(), |plain| {
            let buffers = InOutBuf::new(parts.ciphertext, plain).expect("both have the ciphertext's length");
            cipher.decrypt_inout_detached(&parts.nonce.into(), &aad, buffers, &parts.tag.into()).map_err(|_| {
                Error::device(format!(
                    "the local master key `{}` version {} does not open this blob: the blob is damaged, was altered, or \
                     belongs to another token",
                    id.key, id.version
                ))
            })
        })
    }
}

/// A wrapped blob, taken apart.
struct Blob<'a> {
    nonce: [u8; NONCE_LEN],
    ciphertext: &'a [u8],
    tag: [u8; TAG_LEN],
}

impl<'a> Blob<'a> {
    fn parse(blob: &'a [u8]) -> Result<Self> {
        let (start, rest) = blob.split_first_chunk::<6>().ok_or_else(|| Error::damaged("a local KMS blob"))?;
        if *start != BLOB_START {
            return Err(Error::device(format!(
                "a local KMS blob starts with {}, and this library knows {}: it is damaged or of a newer version",
                data_encoding::HEXLOWER.encode(start),
                data_encoding::HEXLOWER.encode(&BLOB_START)
            )));
        }
        let (nonce, rest) = rest.split_first_chunk().ok_or_else(|| Error::damaged("a local KMS blob"))?;
        let (ciphertext, tag) = rest.split_last_chunk().ok_or_else(|| Error::damaged("a local KMS blob"))?;
        Ok(Self { nonce: *nonce, ciphertext, tag: *tag })
    }
}

fn cipher(key: &SecureBytes) -> Result<Aes256Gcm> {
    Aes256Gcm::new_from_slice(key.expose())
        .map_err(|_| Error::internal(format!("a local master key has {} bytes, not {KEY_LEN}", key.len())))
}

/// Encodes what a blob is bound to: each text with its length in front, so that no two contexts look the same.
fn associated_data(id: &MasterKeyId, context: &Context<'_>) -> Result<Vec<u8>> {
    let mut data = BLOB_START.to_vec();
    append_text(&mut data, &id.key)?;
    data.extend_from_slice(&id.version.to_be_bytes());
    append_text(&mut data, context.token)?;
    append_text(&mut data, context.purpose)?;
    Ok(data)
}

fn append_text(data: &mut Vec<u8>, text: &str) -> Result<()> {
    let len =
        u16::try_from(text.len()).map_err(|_| Error::arguments_bad("a KMS context is longer than 65535 bytes"))?;
    data.extend_from_slice(&len.to_be_bytes());
    data.extend_from_slice(text.as_bytes());
    Ok(())
}

fn missing(path: &Path, id: &MasterKeyId) -> Error {
    Error::device(format!(
        "the local master key file {} is missing; without this file the token cannot be opened: put it back from a backup \
         (it must hold key `{}` version {})",
        path.display(),
        id.key,
        id.version
    ))
}

/// Makes the error of a system without randomness.
fn no_randomness(cause: getrandom::Error) -> Error {
    Error::device("the operating system gives no random bytes").caused_by(cause)
}
