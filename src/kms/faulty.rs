//! A provider whose settings are wrong: it answers each call with what is wrong, so that the slots of other providers work.

use std::sync::Arc;

use super::provider::{Context, Description, KmsProvider, MasterKeyId, Wrapped};
use super::remote::{Ability, DecryptScheme, KeySpec, RemoteKey, RemoteKeys, SignScheme};
use super::{Settings, row};
use crate::error::{Error, KmsFault, Result};
use crate::log;
use crate::secret::SecureBytes;

/// Opens a provider, or gives one that says why that cannot be done.
pub fn open(settings: &Settings) -> Arc<dyn KmsProvider> {
    super::open(settings).unwrap_or_else(|error| {
        let faulty = Faulty::new(settings, &error);
        log::error!("{}", faulty.error);
        Arc::new(faulty)
    })
}

/// Answers every call with one error.
struct Faulty {
    kind: &'static str,
    error: Error,
}

impl Faulty {
    /// Takes the error. The caller of C_Login passed no bad argument, so it becomes one of the KMS.
    fn new(settings: &Settings, error: &Error) -> Self {
        let fault = error.kms_fault().unwrap_or(KmsFault::Failed);
        let error = Error::kms(fault, error.message()).context(format_args!("kms.{}", settings.name));
        Self { kind: row(&settings.kind).map_or("unknown", |row| row.kind), error }
    }

    fn answer<T>(&self) -> Result<T> {
        Err(self.error.repeated())
    }
}

impl KmsProvider for Faulty {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn wrap_key(&self, _: &SecureBytes, _: &Context<'_>) -> Result<Wrapped> {
        self.answer()
    }

    fn unwrap_key(&self, _: &Wrapped, _: &Context<'_>) -> Result<SecureBytes> {
        self.answer()
    }

    fn rotate_master_key(&self) -> Result<MasterKeyId> {
        self.answer()
    }

    fn describe(&self) -> Result<Description> {
        self.answer()
    }

    fn wraps_by_public_key(&self) -> Result<bool> {
        self.answer()
    }

    /// Nobody knows whether it would have keys; whoever asks for one is told why there is none.
    fn remote_keys(&self) -> Option<&dyn RemoteKeys> {
        Some(self)
    }
}

impl RemoteKeys for Faulty {
    fn abilities(&self) -> &'static [Ability] {
        &[]
    }

    fn find(&self, _: &str) -> Result<RemoteKey> {
        self.answer()
    }

    fn list(&self) -> Result<Vec<RemoteKey>> {
        self.answer()
    }

    fn sign(&self, _: &RemoteKey, _: SignScheme, _: &[u8]) -> Result<Vec<u8>> {
        self.answer()
    }

    fn decrypt(&self, _: &RemoteKey, _: DecryptScheme, _: &[u8]) -> Result<SecureBytes> {
        self.answer()
    }

    fn mac(&self, _: &RemoteKey, _: &[u8]) -> Result<Vec<u8>> {
        self.answer()
    }

    fn generate(&self, _: KeySpec, _: &str) -> Result<RemoteKey> {
        self.answer()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::kms::contract::{CONTEXT, secret};
    use crate::kms::{Setting, open_all};
    use std::collections::BTreeMap;

    #[test]
    fn r64_a_provider_that_cannot_be_opened_leaves_the_others_as_they_are() {
        let wrong = Settings::new("prod", "local").with("credential", Setting::Text("no/file/name".to_owned()));
        let settings = [wrong, Settings::new("memory", "local"), Settings::new("old", "clay-tablet")];
        let settings: BTreeMap<_, _> = settings.into_iter().map(|one| (one.name.clone(), one)).collect();
        let providers = open_all(&settings);
        assert_eq!(providers.len(), 3);
        for (name, provider) in &providers {
            let answer = provider.wrap_key(&secret(), &CONTEXT);
            if name == "memory" {
                answer.expect("it works");
                continue;
            }
            let keys = provider.remote_keys().expect("it says why there are none");
            for error in [answer.map(drop), provider.health(), keys.list().map(drop), keys.find("key").map(drop)] {
                let error = error.expect_err("it cannot be opened");
                assert_eq!((error.kind(), error.kms_fault()), (Kind::DeviceError, Some(KmsFault::Failed)));
                assert!(error.message().starts_with(&format!("kms.{name}: ")), "{error}");
            }
        }
        assert_eq!(providers.get("prod").map(|provider| provider.kind()), Some("local"));
    }
}
