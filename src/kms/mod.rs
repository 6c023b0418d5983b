//! The KMS: providers that wrap the envelopes of tokens under a master key that never leaves them.
//!
//! [`KmsProvider`] is the trait, each provider has a file of its own, and [`PROVIDERS`] has one line for each.

mod local;
mod provider;

use std::path::Path;
use std::sync::Arc;

pub use local::LocalKms;
pub use provider::{Context, KmsProvider, MasterKeyId, Wrapped};

use crate::error::{Error, Result};

/// What the configuration says about one provider.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// The type: `local`, …
    pub kind: &'a str,
    /// The file of master keys, for `local`.
    pub key_file: &'a Path,
}

/// One kind of provider: the type that the configuration names, and how it is opened.
pub struct ProviderRow {
    /// The type as the configuration and the envelopes name it.
    pub kind: &'static str,
    open: fn(&Settings<'_>) -> Result<Arc<dyn KmsProvider>>,
}

/// Every kind of provider.
pub static PROVIDERS: &[ProviderRow] = &[ProviderRow { kind: local::KIND, open: local::open }];

/// Opens a provider. It touches neither network nor disk before the first call that needs it.
///
/// # Errors
/// `ArgumentsBad` for an unknown type, and what the provider finds wrong with its settings.
pub fn open(settings: &Settings<'_>) -> Result<Arc<dyn KmsProvider>> {
    match PROVIDERS.iter().find(|row| row.kind == settings.kind) {
        Some(row) => (row.open)(settings),
        None => Err(Error::arguments_bad(format!(
            "there is no KMS provider of type `{}`; the types are: {}",
            settings.kind,
            PROVIDERS.iter().map(|row| row.kind).collect::<Vec<_>>().join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_finds_each_kind_and_names_the_unknown_one() {
        for row in PROVIDERS {
            let settings = Settings { kind: row.kind, key_file: Path::new("/nowhere/master.keys") };
            assert_eq!(open(&settings).expect("opens without touching the disk").kind(), row.kind);
        }
        let Err(error) = open(&Settings { kind: "clay-tablet", key_file: Path::new("/nowhere") }) else {
            panic!("an unknown type must be refused");
        };
        assert!(error.message().contains("`clay-tablet`") && error.message().contains("local"), "{error}");
    }
}
