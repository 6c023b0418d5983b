//! Wrapping by the KMS master key itself: Strongroom's own mechanism CKM_SR_KMS_WRAP.

use std::sync::Arc;

use super::key::Key;
use super::mechanism::*;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::secret::SecureBytes;

/// A KMS master key, as the token reaches it.
pub trait MasterKeyService: Send + Sync {
    /// Wraps a key.
    ///
    /// # Errors
    /// What the KMS answers.
    fn wrap(&self, key: &SecureBytes) -> Result<Vec<u8>>;

    /// Unwraps a key.
    ///
    /// # Errors
    /// `WrappedKeyInvalid`; what the KMS answers.
    fn unwrap(&self, blob: &[u8]) -> Result<SecureBytes>;
}

/// The rows of the family.
pub static ROWS: &[Mechanism] = &[Mechanism {
    id: CKM_SR_KMS_WRAP,
    key_types: &[CKK_SR_KMS],
    wrap: Some(|key, params, secret| service(key, params)?.wrap(secret)),
    unwrap: Some(|key, params, blob| service(key, params)?.unwrap(blob)),
    ..Mechanism::NONE
}];

fn service<'a>(key: &'a Arc<Key>, params: &Params) -> Result<&'a dyn MasterKeyService> {
    match (&**key, params) {
        (Key::Master(service), Params::None) => Ok(service.as_ref()),
        (Key::Master(_), _) => Err(Error::from(Kind::MechanismParamInvalid)),
        _ => Err(Key::wrong_type()),
    }
}
