//! The provider: a KMS that wraps and unwraps the few envelopes of a token under a master key that never leaves it.
//!
//! The rules are:
//! - each method is one request, or as few as the service allows, and one attempt: [`super::resilient`] tries again;
//! - each method ends within the deadline of its settings, and answers an error with a [`crate::error::KmsFault`];
//! - nothing touches network or disk before the first method that needs it;
//! - a blob is bound to its [`Context`], by the service where it can, by us where it cannot (`blob.rs`);
//! - what a blob says of its key is no proof: who can write the store chooses it. A provider unwraps with the key of its settings, in any
//!   version, and refuses every other. A former key has a section of its own.

use std::fmt;

use super::health::HealthReport;
use super::remote::RemoteKeys;
use crate::error::{Error, KmsFault, Result};
use crate::secret::SecureBytes;

/// What a wrapped blob is bound to: it unwraps only with the same pairs (encryption context, additional authenticated data).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context<'a> {
    /// The serial number of the token.
    pub token: &'a str,
    /// What the blob is for: `token-key/so`, `token-key/user`, …
    pub purpose: &'a str,
}

/// Which master key wrapped a blob.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MasterKeyId {
    /// The provider's full name of the key, never an alias; with the version in it where versions have names of their own.
    pub key: String,
    /// The provider's number of the version; 0 where versions have no numbers.
    pub version: u32,
}

impl fmt::Display for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            0 => write!(f, "`{}`", self.key.escape_debug()),
            version => write!(f, "`{}` version {version}", self.key.escape_debug()),
        }
    }
}

/// A blob and the master key that wrapped it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// The master key.
    pub master_key: MasterKeyId,
    /// The wrapped bytes, in the provider's own form.
    pub blob: Vec<u8>,
}

/// A data key: the key itself, and the form in which it rests.
pub struct DataKey {
    /// 32 random bytes.
    pub key: SecureBytes,
    /// The same, wrapped.
    pub wrapped: Wrapped,
}

/// Whether a key can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyState {
    /// It can.
    Enabled,
    /// An operator has disabled it.
    Disabled,
    /// It will be deleted, and cannot be used meanwhile.
    PendingDeletion,
    /// Another state, as the provider names it.
    Other(String),
}

impl KeyState {
    /// Names the state in one word.
    pub fn name(&self) -> &str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::PendingDeletion => "pending-deletion",
            Self::Other(name) => name,
        }
    }
}

/// What a provider tells about its master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The key and version that wraps now.
    pub master_key: MasterKeyId,
    /// The version as the provider writes it.
    pub version: String,
    /// Whether it can be used.
    pub state: KeyState,
    /// The provider's names of what it does: `SYMMETRIC_DEFAULT`, `RSA-OAEP-256`, `CKM_AES_KEY_WRAP_KWP`, …
    pub algorithms: Vec<String>,
}

/// The length of a data key in bytes.
pub const DATA_KEY_LEN: usize = 32;

/// A KMS backend.
pub trait KmsProvider: Send + Sync {
    /// Tells the provider's type as the configuration names it: `local`, …
    fn kind(&self) -> &'static str;

    /// Wraps a secret under the current version of the master key.
    ///
    /// # Errors
    /// Any [`KmsFault`].
    fn wrap_key(&self, secret: &SecureBytes, context: &Context<'_>) -> Result<Wrapped>;

    /// Unwraps a blob with the master key and version that wrapped it.
    ///
    /// # Errors
    /// Any [`KmsFault`]: `WrongContext` when it is bound to another context, `Tampered` when it is not what was wrapped,
    /// `NotFound` when the key or its version is gone, or is another than that of the settings.
    fn unwrap_key(&self, wrapped: &Wrapped, context: &Context<'_>) -> Result<SecureBytes>;

    /// Makes a data key. Where the service makes none, it is made here and wrapped.
    ///
    /// # Errors
    /// As [`Self::wrap_key`].
    fn generate_data_key(&self, context: &Context<'_>) -> Result<DataKey> {
        let key = SecureBytes::try_with(DATA_KEY_LEN, getrandom::fill).map_err(super::no_randomness)?;
        let wrapped = self.wrap_key(&key, context)?;
        Ok(DataKey { key, wrapped })
    }

    /// Makes the first master key where there is none and the provider makes it by itself, if `may` agrees. Else it does nothing.
    ///
    /// # Errors
    /// Any [`KmsFault`], and what `may` answers.
    fn make_first_key(&self, may: &dyn Fn() -> Result<()>) -> Result<()> {
        let _ = may;
        Ok(())
    }

    /// Makes a new version of the master key, which wraps from now on; what older ones wrapped still unwraps.
    ///
    /// # Errors
    /// Any [`KmsFault`]; `Unsupported` where the provider has no way to do it; `Throttled` only when nothing was done yet, since
    /// it is asked again then.
    fn rotate_master_key(&self) -> Result<MasterKeyId>;

    /// Asks what the master key is: one request.
    ///
    /// # Errors
    /// Any [`KmsFault`].
    fn describe(&self) -> Result<Description>;

    /// Tells whether who knows a public key can make blobs that unwrap here: that a blob opens is no proof then that the KMS wrapped
    /// it. One request at the most.
    ///
    /// # Errors
    /// Any [`KmsFault`].
    fn wraps_by_public_key(&self) -> Result<bool> {
        Ok(false)
    }

    /// Checks that the provider can be used now.
    ///
    /// # Errors
    /// Any [`KmsFault`]; `Disabled` when the key cannot be used.
    fn health(&self) -> Result<()> {
        let Description { master_key, state, .. } = self.describe()?;
        match state {
            KeyState::Enabled => Ok(()),
            state => Err(Error::kms(
                KmsFault::Disabled,
                format!(
                    "the master key {master_key} is {}; enable it, or name another in the configuration",
                    state.name()
                ),
            )),
        }
    }

    /// Tells what the requests came to so far, where that is counted.
    fn health_report(&self) -> Option<HealthReport> {
        None
    }

    /// Gives the keys that live in the provider, where it has such: they sign, decrypt and make MACs there.
    fn remote_keys(&self) -> Option<&dyn RemoteKeys> {
        None
    }
}

/// Makes the error of a blob whose key is not that of the settings, whose section is `kms`.
#[cfg_attr(
    not(any(feature = "aws-kms", feature = "azure-kv", feature = "google-kms", feature = "hsm")),
    allow(dead_code)
)]
pub fn other_key(kms: &str, asked: &MasterKeyId, configured: impl fmt::Display) -> Error {
    let text = format!(
        "this was wrapped by the key {asked}, and [kms.{kms}] has {configured}; if the former is a key of yours, name it in a [kms.…] \
         section of its own, which opens what it wrapped; if not, the database was altered: restore it from a backup"
    );
    Error::kms(KmsFault::NotFound, text)
}

/// Says that a key or a version was made before something went wrong, so that nobody pays for what nobody knows. The fault is never
/// throttling, which tells the caller's layer that nothing was begun, and to begin again.
#[cfg_attr(not(any(feature = "aws-kms", feature = "google-kms", feature = "hsm")), allow(dead_code))]
pub fn left_over(error: Error, made: impl fmt::Display) -> Error {
    let text = format!("`{made}` was made, but not all that belongs to it; use it by this name, or delete it");
    match error.kms_fault() {
        Some(KmsFault::Throttled(_)) => Error::kms(KmsFault::Failed, text).caused_by(error),
        _ => error.context(text),
    }
}
