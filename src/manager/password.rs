//! The owner's password of a key, or none.

use crate::error::{Error, Result};
use crate::secret::SecureBytes;

/// The owner's password of a key, or none. It is kept in locked memory and wiped when dropped.
#[derive(Debug, Clone, Default)]
pub struct Password(Option<SecureBytes>);

impl Password {
    /// No password: the token alone protects the key.
    pub const NONE: Self = Self(None);

    /// Gives the password, if there is one.
    pub(super) fn secret(&self) -> Option<&SecureBytes> {
        self.0.as_ref()
    }

    /// Gives the password where there must be one.
    ///
    /// # Errors
    /// `ArgumentsBad`.
    pub(super) fn required(&self) -> Result<&SecureBytes> {
        self.secret().ok_or_else(|| Error::arguments_bad("a password must be given"))
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        Self(Some(SecureBytes::copy_from(text.as_bytes())))
    }
}

impl From<SecureBytes> for Password {
    fn from(secret: SecureBytes) -> Self {
        Self(Some(secret))
    }
}

impl From<Option<SecureBytes>> for Password {
    fn from(secret: Option<SecureBytes>) -> Self {
        Self(secret)
    }
}
