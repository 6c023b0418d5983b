//! The provider: a KMS that wraps and unwraps the few envelopes of a token under a master key that never leaves it.

use crate::error::Result;
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterKeyId {
    /// The provider's name of the key.
    pub key: String,
    /// The provider's version of the key.
    pub version: u32,
}

/// A blob and the master key that wrapped it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// The master key.
    pub master_key: MasterKeyId,
    /// The wrapped bytes, in the provider's own form.
    pub blob: Vec<u8>,
}

/// A KMS backend.
pub trait KmsProvider: Send + Sync {
    /// Tells the provider's type as the configuration names it: `local`, …
    fn kind(&self) -> &'static str;

    /// Wraps a secret under the current version of the master key.
    ///
    /// # Errors
    /// `DeviceError` with what the provider said.
    fn wrap_key(&self, secret: &SecureBytes, context: &Context<'_>) -> Result<Wrapped>;

    /// Unwraps a blob with the master key and version that wrapped it.
    ///
    /// # Errors
    /// `DeviceError` when the key is missing or the blob or context is not what was wrapped.
    fn unwrap_key(&self, wrapped: &Wrapped, context: &Context<'_>) -> Result<SecureBytes>;
}
