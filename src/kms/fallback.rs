//! A second provider that unwraps when the first is away: another region with the same multi-region key, or a replica.
//!
//! The rules are:
//! - only unwrapping falls back: what is wrapped, made or rotated belongs to the first;
//! - only a fault that may pass does it: a first provider that denies, or that finds a blob damaged, has the last word;
//! - the fallback of a fallback is not asked, so that two regions may name each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Settings;
use super::health::{FallbackReport, HealthReport};
use super::provider::{Context, DataKey, Description, KmsProvider, MasterKeyId, Wrapped};
use super::remote::RemoteKeys;
use crate::error::{Error, Result};
use crate::log;
use crate::secret::SecureBytes;

/// The key of the configuration that names the fallback.
const SETTING: &str = "fallback";

/// Every provider by its name.
type Providers = BTreeMap<String, Arc<dyn KmsProvider>>;

/// Gives each provider the fallback that its settings name.
pub fn join(settings: &BTreeMap<String, Settings>, alone: Providers) -> Providers {
    let joined = |(name, first): (&String, &Arc<dyn KmsProvider>)| {
        let second = settings.get(name).and_then(|settings| settings.text(SETTING));
        let second = second.and_then(|second| Some((second, alone.get(second)?)));
        let provider: Arc<dyn KmsProvider> = match second {
            Some((second, provider)) => Arc::new(Fallback::new(name, first.clone(), second, provider.clone())),
            None => first.clone(),
        };
        (name.clone(), provider)
    };
    alone.iter().map(joined).collect()
}

/// A provider with a fallback.
struct Fallback {
    name: String,
    first: Arc<dyn KmsProvider>,
    second_name: String,
    second: Arc<dyn KmsProvider>,
    unwraps: AtomicU64,
}

impl Fallback {
    fn new(name: &str, first: Arc<dyn KmsProvider>, second_name: &str, second: Arc<dyn KmsProvider>) -> Self {
        Self { name: name.to_owned(), first, second_name: second_name.to_owned(), second, unwraps: AtomicU64::new(0) }
    }

    /// Unwraps with the second, after the first was away.
    fn fall_back(&self, away: Error, wrapped: &Wrapped, context: &Context<'_>) -> Result<SecureBytes> {
        match self.second.unwrap_key(wrapped, context) {
            Ok(key) => {
                self.unwraps.fetch_add(1, Ordering::Relaxed);
                log::warn!("kms.{} unwrapped in place of kms.{}: {away}", self.second_name, self.name);
                Ok(key)
            }
            Err(error) => {
                Err(away.context(format_args!("kms.{} is away, and its fallback failed too ({error})", self.name)))
            }
        }
    }
}

impl KmsProvider for Fallback {
    fn kind(&self) -> &'static str {
        self.first.kind()
    }

    fn wrap_key(&self, secret: &SecureBytes, context: &Context<'_>) -> Result<Wrapped> {
        self.first.wrap_key(secret, context)
    }

    fn unwrap_key(&self, wrapped: &Wrapped, context: &Context<'_>) -> Result<SecureBytes> {
        match self.first.unwrap_key(wrapped, context) {
            Err(error) if error.kms_fault().is_some_and(|fault| fault.may_pass()) => {
                self.fall_back(error, wrapped, context)
            }
            answer => answer,
        }
    }

    fn generate_data_key(&self, context: &Context<'_>) -> Result<DataKey> {
        self.first.generate_data_key(context)
    }

    fn make_first_key(&self, may: &dyn Fn() -> Result<()>) -> Result<()> {
        self.first.make_first_key(may)
    }

    fn rotate_master_key(&self) -> Result<MasterKeyId> {
        self.first.rotate_master_key()
    }

    fn describe(&self) -> Result<Description> {
        self.first.describe()
    }

    /// Either unwraps for a token.
    fn wraps_by_public_key(&self) -> Result<bool> {
        Ok(self.first.wraps_by_public_key()? || self.second.wraps_by_public_key()?)
    }

    fn health(&self) -> Result<()> {
        self.first.health()
    }

    fn health_report(&self) -> Option<HealthReport> {
        let unwraps = self.unwraps.load(Ordering::Relaxed);
        let fallback = Some(FallbackReport { name: self.second_name.clone(), unwraps });
        self.first.health_report().map(|report| HealthReport { fallback, ..report })
    }

    fn remote_keys(&self) -> Option<&dyn RemoteKeys> {
        self.first.remote_keys()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::KmsFault;
    use crate::kms::Setting;
    use crate::kms::contract::{CONTEXT, secret};
    use crate::kms::double::{Double, fault};

    const FAULTS: [KmsFault; 10] = [
        KmsFault::Denied,
        KmsFault::NotFound,
        KmsFault::Disabled,
        KmsFault::Throttled(None),
        KmsFault::Unreachable,
        KmsFault::TimedOut,
        KmsFault::Tampered,
        KmsFault::WrongContext,
        KmsFault::Unsupported,
        KmsFault::Failed,
    ];

    /// Joins two that name each other.
    fn joined(first: &Arc<Double>, second: &Arc<Double>) -> Arc<dyn KmsProvider> {
        let named = |name: &str, other: &str| {
            (name.to_owned(), Settings::new(name, "double").with(SETTING, Setting::Text(other.to_owned())))
        };
        let settings = BTreeMap::from([named("east", "west"), named("west", "east")]);
        let east: (String, Arc<dyn KmsProvider>) = ("east".to_owned(), first.clone());
        let west: (String, Arc<dyn KmsProvider>) = ("west".to_owned(), second.clone());
        join(&settings, BTreeMap::from([east, west])).remove("east").unwrap()
    }

    #[test]
    fn only_faults_that_may_pass_fall_back() {
        for cause in FAULTS {
            let (first, second) = (Arc::new(Double::new([fault(cause)])), Arc::new(Double::new([])));
            let kms = joined(&first, &second);
            let wrapped = second.wrap_key(&secret(), &CONTEXT).unwrap();
            let answer = kms.unwrap_key(&wrapped, &CONTEXT);
            assert_eq!((first.requests(), second.requests()), (1, 1 + usize::from(cause.may_pass())), "{cause:?}");
            match answer {
                Ok(key) => assert!(cause.may_pass() && key == secret(), "{cause:?}"),
                Err(error) => assert_eq!(error.kms_fault(), Some(cause)),
            }
        }
    }

    #[test]
    fn both_errors_are_told_and_two_that_name_each_other_do_not_go_in_circles() {
        let first = Arc::new(Double::new([fault(KmsFault::TimedOut)]));
        let second = Arc::new(Double::new([fault(KmsFault::Unreachable)]));
        let wrapped = Double::new([]).wrap_key(&secret(), &CONTEXT).unwrap();
        let error = joined(&first, &second).unwrap_key(&wrapped, &CONTEXT).unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::TimedOut));
        assert!(error.message().contains("timed-out") && error.message().contains("unreachable"), "{error}");
        assert_eq!((first.requests(), second.requests()), (1, 1));
    }

    #[test]
    fn all_but_unwrapping_is_the_first_ones() {
        let away = || fault(KmsFault::Unreachable);
        let first = Arc::new(Double::new([away(), away(), away(), away(), away()]));
        let second = Arc::new(Double::new([]));
        let kms = joined(&first, &second);
        assert!(kms.wrap_key(&secret(), &CONTEXT).is_err());
        assert!(kms.generate_data_key(&CONTEXT).is_err());
        assert!(kms.rotate_master_key().is_err());
        assert!(kms.describe().is_err());
        assert!(kms.health().is_err());
        assert_eq!((first.requests(), second.requests()), (5, 0));
    }
}
