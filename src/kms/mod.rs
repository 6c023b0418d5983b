//! The KMS: providers that wrap the envelopes of tokens under a master key that never leaves them, and that use keys which
//! live there.
//!
//! [`KmsProvider`] is the trait, [`RemoteKeys`] what a provider does with keys of its own; each provider has a file of its own,
//! and [`PROVIDERS`] has one line for each. [`Resilient`] stands around each that is behind a network.

#[cfg(feature = "aws-kms")]
mod aws;
#[cfg(feature = "azure-kv")]
mod azure;
mod blob;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod double;
#[cfg(test)]
pub mod emulator;
mod fallback;
mod faulty;
#[cfg(feature = "google-kms")]
mod google;
mod health;
#[cfg(feature = "hsm")]
mod hsm;
mod local;
mod provider;
mod remote;
mod resilient;
mod settings;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use health::{BreakerReport, FallbackReport, HealthReport, LastError};
#[cfg(feature = "hsm")]
pub use hsm::{Export, Exported, HsmKms, TokenSource, export};
pub use local::LocalKms;
pub use provider::{Context, DATA_KEY_LEN, DataKey, Description, KeyState, KmsProvider, MasterKeyId, Wrapped};
pub use remote::{Ability, Curve, DecryptScheme, Hash, KeySpec, RemoteKey, RemoteKeys, SignScheme, Uses, fixed_width};
pub use resilient::{Flights, Resilient, Ticket};
pub use settings::{Setting, SettingRow, Settings, Shape};

use crate::error::{Error, KmsFault, Result};

/// One kind of provider: the type that the configuration names, its keys, and how it is opened.
pub struct ProviderRow {
    /// The type as the configuration and the envelopes name it.
    pub kind: &'static str,
    /// The keys of its section beside `type`, [`COMMON_SETTINGS`] and, for a provider behind a network, [`REMOTE_SETTINGS`].
    pub settings: &'static [SettingRow],
    /// Whether it is behind a network, or a device that can be slow or away.
    pub remote: bool,
    /// What it can do with keys that live there.
    pub abilities: fn() -> &'static [Ability],
    open: fn(&Settings) -> Result<Arc<dyn KmsProvider>>,
}

/// Every kind of provider in this build.
pub static PROVIDERS: &[ProviderRow] = &[
    local::ROW,
    #[cfg(feature = "azure-kv")]
    azure::ROW,
    #[cfg(feature = "google-kms")]
    google::ROW,
    #[cfg(feature = "aws-kms")]
    aws::ROW,
    #[cfg(feature = "hsm")]
    hsm::ROW,
];

/// The keys that every provider behind a network has beside its own.
pub const REMOTE_SETTINGS: &[SettingRow] = &[
    SettingRow::optional(
        "timeout_seconds",
        Shape::Number(1, 600),
        "how long one call may take with all its tries (default 10)",
    ),
    SettingRow::optional("attempts", Shape::Number(1, 20), "how often a call is tried when it may pass (default 4)"),
    SettingRow::optional("fallback", Shape::Text, "the name of another [kms.…] that unwraps when this one is away"),
];

/// The keys that every provider has beside its own.
pub const COMMON_SETTINGS: &[SettingRow] = &[SettingRow::optional(
    "scope",
    Shape::Word(&["token", "key"]),
    "what has a key in the KMS: each token (default), or each managed key beside",
)];

/// Finds the row of a type.
///
/// # Errors
/// `ArgumentsBad` for a type that this build does not have; the text names those that it has.
pub fn row(kind: &str) -> Result<&'static ProviderRow> {
    PROVIDERS.iter().find(|row| row.kind == kind).ok_or_else(|| {
        Error::arguments_bad(format!(
            "there is no KMS provider of type `{}` in this build; it has: {}",
            kind.escape_debug(),
            PROVIDERS.iter().map(|row| row.kind).collect::<Vec<_>>().join(", ")
        ))
    })
}

/// Opens a provider, without its fallback. It touches neither network nor disk before the first call that needs it.
///
/// # Errors
/// `ArgumentsBad` for an unknown type, and what the provider finds wrong with its settings.
pub fn open(settings: &Settings) -> Result<Arc<dyn KmsProvider>> {
    let row = row(&settings.kind)?;
    let provider = (row.open)(settings)?;
    Ok(if row.remote { Arc::new(Resilient::new(settings, provider)) } else { provider })
}

/// Opens every configured provider, each with its fallback. One that cannot be opened says so at each use, and leaves the others
/// as they are.
pub fn open_all(settings: &BTreeMap<String, Settings>) -> BTreeMap<String, Arc<dyn KmsProvider>> {
    let alone = settings.iter().map(|(name, settings)| (name.clone(), faulty::open(settings))).collect();
    fallback::join(settings, alone)
}

/// Makes the error of a system without randomness.
fn no_randomness(cause: getrandom::Error) -> Error {
    Error::kms(KmsFault::Failed, "the operating system gives no random bytes").caused_by(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_type_is_named_with_those_that_there_are() {
        let Err(error) = open(&Settings::new("prod", "clay-tablet")) else { panic!("an unknown type must be refused") };
        assert!(error.message().contains("`clay-tablet`") && error.message().contains("local"), "{error}");
    }

    #[test]
    fn no_key_stands_twice_in_a_section() {
        for row in PROVIDERS {
            let mut names: Vec<_> = row
                .settings
                .iter()
                .chain(REMOTE_SETTINGS)
                .chain(COMMON_SETTINGS)
                .map(|row| row.name)
                .chain(["type"])
                .collect();
            names.sort_unstable();
            let before = names.len();
            names.dedup();
            assert_eq!(names.len(), before, "{}", row.kind);
        }
    }
}
