//! What stands around a provider behind a network: tries again, leaves it alone while it is away, asks once for what many want,
//! and counts.
//!
//! The rules are:
//! - a fault that may pass is tried again within one deadline (`resilient/course.rs`); all others are answered at once;
//! - a request that makes something, a key or a version, is made again only when the service refused to begin;
//! - a provider that is away is not asked for a while (`resilient/breaker.rs`);
//! - no lock is held across a request, and there is no thread of our own: who calls, waits, and C_Finalize ends his wait;
//! - every error names the provider as the configuration does.

mod breaker;
mod clock;
mod course;
mod flights;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use super::Settings;
use super::health::{BreakerReport, Health, HealthReport, millis, utc};
use super::provider::{Context, DataKey, Description, KmsProvider, MasterKeyId, Wrapped};
use super::remote::{Ability, DecryptScheme, KeySpec, RemoteKey, RemoteKeys, SignScheme};
use crate::error::{Error, KmsFault, Result};
use crate::log;
use crate::runtime;
use crate::secret::SecureBytes;
use breaker::{Breaker, Change, Permit, Refusal, Sign};
use clock::{Clock, SystemClock};
use course::{Course, Limits, Repeat};
pub use flights::{Flights, Ticket};

/// How much longer than the deadline one waits for the answer to another thread's request.
const GRACE: Duration = Duration::from_secs(5);

/// A provider that is asked with patience.
pub struct Resilient {
    name: String,
    inner: Arc<dyn KmsProvider>,
    limits: Limits,
    clock: Arc<dyn Clock>,
    breaker: Breaker,
    health: Health,
    unwraps: Flights,
}

/// What one try came to.
enum Try<T> {
    Answered(T),
    Failed(Error),
    NotMade(Refusal),
}

impl Resilient {
    /// Stands around a provider with the limits that its settings have.
    pub fn new(settings: &Settings, inner: Arc<dyn KmsProvider>) -> Self {
        Self::with_clock(settings, inner, Arc::new(SystemClock))
    }

    fn with_clock(settings: &Settings, inner: Arc<dyn KmsProvider>, clock: Arc<dyn Clock>) -> Self {
        Self {
            name: format!("kms.{}", settings.name),
            inner,
            limits: Limits::of(settings),
            clock,
            breaker: Breaker::default(),
            health: Health::default(),
            unwraps: Flights::default(),
        }
    }

    /// Makes a request until it is answered, or until another try is useless, too much or too late.
    fn call<T>(&self, repeat: Repeat, request: impl Fn() -> Result<T>) -> Result<T> {
        let mut course = Course::begin(self.limits, repeat, self.clock.now());
        let mut error = match self.try_once(&mut course, &request) {
            Try::Answered(answer) => return Ok(answer),
            Try::NotMade(refusal) => return Err(self.left_alone(refusal)),
            Try::Failed(error) => error,
        };
        while let Some(pause) = course.pause(&error, self.breaker_pause(), self.clock.now()) {
            log::debug!("{} is tried again in {} ms: {error}", self.name, pause.as_millis());
            self.clock.sleep(pause).map_err(|cancelled| cancelled.context(&self.name))?;
            match self.try_once(&mut course, &request) {
                Try::Answered(answer) => return Ok(answer),
                Try::Failed(other) => error = other,
                // Another thread finds out whether it is back; what is known is still the error before.
                Try::NotMade(_) => {}
            }
        }
        let verdict = course.verdict(&self.name, &error, self.clock.now());
        Err(error.context(verdict))
    }

    /// Makes a request once, if the breaker lets it through, and counts it.
    fn try_once<T>(&self, course: &mut Course, request: impl Fn() -> Result<T>) -> Try<T> {
        let begun = self.clock.now();
        let permit = match self.breaker.admit(begun, self.limits.timeout) {
            Ok(permit) => permit,
            Err(refusal) => {
                course.refused();
                return Try::NotMade(refusal);
            }
        };
        let answer = runtime::within(course.tried(begun), request);
        let took = self.clock.now().saturating_duration_since(begun);
        self.health.count(&answer, took, self.clock.wall());
        self.settle(permit, &answer);
        match answer {
            Ok(answer) => Try::Answered(answer),
            Err(error) => Try::Failed(error),
        }
    }

    /// Tells the breaker what a request came to, and the log what that changed.
    fn settle<T>(&self, permit: Permit, answer: &Result<T>) {
        match (self.breaker.settle(permit, Sign::of(answer), self.clock.now()), answer) {
            (Some(Change::Opened(pause)), Err(error)) => {
                log::warn!("{} is away and is not asked for {} s: {error}", self.name, pause.as_secs());
            }
            (Some(Change::Closed), _) => log::warn!("{} answers again", self.name),
            _ => {}
        }
    }

    /// Makes the error of a call that the breaker does not let through.
    fn left_alone(&self, refusal: Refusal) -> Error {
        let away = refusal.away_for.as_secs_f32();
        let since = self.since(refusal.away_for);
        let next = match refusal.next_in {
            Some(wait) => format!("it is tried again in {:.1} s", wait.as_secs_f32()),
            None => "another call finds out at this moment whether it is back".to_owned(),
        };
        let text = format!("it has been away since {since}, for {away:.1} s, and was not asked; {next}");
        Error::kms(KmsFault::Unreachable, text).context(&self.name)
    }

    fn since(&self, ago: Duration) -> String {
        let now = self.clock.wall();
        utc(now.checked_sub(ago).unwrap_or(now))
    }

    /// Tells how long the breaker keeps the next try waiting.
    fn breaker_pause(&self) -> Duration {
        self.breaker.refusal(self.clock.now()).and_then(|refusal| refusal.next_in).unwrap_or_default()
    }

    fn breaker_report(&self) -> BreakerReport {
        let now = self.clock.now();
        let (state, away_for) = self.breaker.state(now);
        let next = self.breaker.refusal(now).and_then(|refusal| refusal.next_in);
        BreakerReport { state, away_since: away_for.map(|ago| self.since(ago)), next_try_ms: next.map(millis) }
    }

    fn keys(&self) -> Result<&dyn RemoteKeys> {
        self.inner.remote_keys().ok_or_else(|| {
            let text = format!("a KMS of type {} has no keys that are used there", self.inner.kind());
            Error::kms(KmsFault::Unsupported, text)
        })
    }
}

impl KmsProvider for Resilient {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn wrap_key(&self, secret: &SecureBytes, context: &Context<'_>) -> Result<Wrapped> {
        self.call(Repeat::Freely, || self.inner.wrap_key(secret, context))
    }

    fn unwrap_key(&self, wrapped: &Wrapped, context: &Context<'_>) -> Result<SecureBytes> {
        let patience = self.limits.timeout.saturating_add(GRACE);
        self.unwraps.join(Ticket::new(wrapped, context), patience, || {
            self.call(Repeat::Freely, || self.inner.unwrap_key(wrapped, context))
        })
    }

    fn generate_data_key(&self, context: &Context<'_>) -> Result<DataKey> {
        self.call(Repeat::Freely, || self.inner.generate_data_key(context))
    }

    fn make_first_key(&self, may: &dyn Fn() -> Result<()>) -> Result<()> {
        self.inner.make_first_key(may)
    }

    fn rotate_master_key(&self) -> Result<MasterKeyId> {
        self.call(Repeat::UnlessBegun, || self.inner.rotate_master_key())
    }

    fn describe(&self) -> Result<Description> {
        self.call(Repeat::Freely, || self.inner.describe())
    }

    fn wraps_by_public_key(&self) -> Result<bool> {
        self.call(Repeat::Freely, || self.inner.wraps_by_public_key())
    }

    fn health(&self) -> Result<()> {
        self.call(Repeat::Freely, || self.inner.health())
    }

    fn health_report(&self) -> Option<HealthReport> {
        Some(self.health.report(self.breaker_report()))
    }

    fn remote_keys(&self) -> Option<&dyn RemoteKeys> {
        self.inner.remote_keys()?;
        Some(self)
    }
}

impl RemoteKeys for Resilient {
    fn abilities(&self) -> &'static [Ability] {
        self.inner.remote_keys().map_or(&[], |keys| keys.abilities())
    }

    fn find(&self, name: &str) -> Result<RemoteKey> {
        self.call(Repeat::Freely, || self.keys()?.find(name))
    }

    fn list(&self) -> Result<Vec<RemoteKey>> {
        self.call(Repeat::Freely, || self.keys()?.list())
    }

    fn sign(&self, key: &RemoteKey, scheme: SignScheme, input: &[u8]) -> Result<Vec<u8>> {
        self.call(Repeat::Freely, || self.keys()?.sign(key, scheme, input))
    }

    fn decrypt(&self, key: &RemoteKey, scheme: DecryptScheme, ciphertext: &[u8]) -> Result<SecureBytes> {
        self.call(Repeat::Freely, || self.keys()?.decrypt(key, scheme, ciphertext))
    }

    fn mac(&self, key: &RemoteKey, message: &[u8]) -> Result<Vec<u8>> {
        self.call(Repeat::Freely, || self.keys()?.mac(key, message))
    }

    fn generate(&self, spec: KeySpec, label: &str) -> Result<RemoteKey> {
        self.call(Repeat::UnlessBegun, || self.keys()?.generate(spec, label))
    }
}
