//! Rotation by rules that the program brings.

use super::QuoteAsset;
use super::with_keys;
use crate::error::Result;
use crate::keys::Report;
use crate::token::Rotation;

/// When a key is rotated, and until when its active version makes anything new; in days, 0 is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotationPolicy {
    /// A version is due so many days after it was made.
    pub rotation_interval_days: u64,
    /// The active version makes nothing new so many days after it was made.
    pub max_key_age_days: u64,
    /// The active version makes nothing new after so many signatures, ciphertexts and wrapped keys; 0 is no limit.
    pub max_key_uses: u64,
    /// Whether a due key is rotated without being asked for by name.
    pub auto_rotate: bool,
}

impl Default for RotationPolicy {
    /// 90 days, 365 days, by itself.
    fn default() -> Self {
        Self { rotation_interval_days: 90, max_key_age_days: 365, max_key_uses: 0, auto_rotate: true }
    }
}

/// What became of the keys that were due.
pub type Rotated = Report;

/// Rotates keys by rules.
#[derive(Debug, Clone, Copy)]
pub struct KeyRotationManager {
    policy: RotationPolicy,
}

impl KeyRotationManager {
    /// Takes the rules; [`Self::apply`] gives them to keys.
    pub fn new(policy: RotationPolicy) -> Self {
        Self { policy }
    }

    /// Gives a key these rules: they hold for its latest version from now on, and for those that follow.
    ///
    /// # Errors
    /// `ArgumentsBad` for rules that contradict each other; `KeyHandleInvalid`.
    pub async fn apply(&self, owner: &str, asset: QuoteAsset) -> Result<()> {
        let RotationPolicy { rotation_interval_days, max_key_age_days, max_key_uses, auto_rotate } = self.policy;
        let rules = Rotation {
            interval_days: rotation_interval_days,
            max_age_days: max_key_age_days,
            max_uses: max_key_uses,
            auto_rotate,
        };
        let name = asset.key_of(owner)?;
        with_keys(move |keys| keys.set_policy(&name, rules)).await
    }

    /// Rotates what is due and may be rotated by itself. Any number of processes may do this at once: each key is rotated once.
    ///
    /// # Errors
    /// `DeviceError` when the store fails. What keeps a single key from its rotation is in the report.
    pub async fn rotate_due(&self) -> Result<Rotated> {
        with_keys(|keys| keys.rotate_due(usize::MAX)).await
    }
}
