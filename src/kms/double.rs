//! A provider for tests of what stands around providers: it injects faults, and its answers mean nothing. How real services
//! behave is tested on them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::provider::{Context, Description, KeyState, KmsProvider, MasterKeyId, Wrapped};
use super::remote::{Ability, Curve, DecryptScheme, KeySpec, RemoteKey, RemoteKeys, SignScheme, Uses};
use crate::error::{Error, KmsFault, Result};
use crate::secret::SecureBytes;

/// What one request meets before it is answered.
pub type Step = Box<dyn FnOnce() -> Result<()> + Send>;

/// Follows a script, and answers well once it is at its end.
pub struct Double {
    script: Mutex<VecDeque<Step>>,
    requests: AtomicUsize,
}

/// Meets a fault; the text is its name.
pub fn fault(fault: KmsFault) -> Step {
    Box::new(move || Err(Error::kms(fault, fault.name())))
}

impl Double {
    /// Follows these steps.
    pub fn new(script: impl IntoIterator<Item = Step>) -> Self {
        Self { script: Mutex::new(script.into_iter().collect()), requests: AtomicUsize::new(0) }
    }

    /// Adds steps.
    pub fn then(&self, steps: impl IntoIterator<Item = Step>) {
        self.script.lock().extend(steps);
    }

    /// Counts the requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn step(&self) -> Result<()> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let step = self.script.lock().pop_front();
        step.map_or(Ok(()), |step| step())
    }
}

fn master_key() -> MasterKeyId {
    MasterKeyId { key: "double".to_owned(), version: 1 }
}

fn remote_key() -> RemoteKey {
    RemoteKey {
        id: "double".to_owned(),
        label: "double".to_owned(),
        spec: KeySpec::Ec(Curve::P256),
        uses: Uses { sign: true, ..Uses::default() },
        state: KeyState::Enabled,
        public: None,
    }
}

impl KmsProvider for Double {
    fn kind(&self) -> &'static str {
        "double"
    }

    fn wrap_key(&self, secret: &SecureBytes, _: &Context<'_>) -> Result<Wrapped> {
        self.step()?;
        Ok(Wrapped { master_key: master_key(), blob: secret.expose().to_vec() })
    }

    fn unwrap_key(&self, wrapped: &Wrapped, _: &Context<'_>) -> Result<SecureBytes> {
        self.step()?;
        Ok(SecureBytes::copy_from(&wrapped.blob))
    }

    fn rotate_master_key(&self) -> Result<MasterKeyId> {
        self.step()?;
        Ok(master_key())
    }

    fn describe(&self) -> Result<Description> {
        self.step()?;
        Ok(Description {
            master_key: master_key(),
            version: "1".to_owned(),
            state: KeyState::Enabled,
            algorithms: Vec::new(),
        })
    }

    fn remote_keys(&self) -> Option<&dyn RemoteKeys> {
        Some(self)
    }
}

impl RemoteKeys for Double {
    fn abilities(&self) -> &'static [Ability] {
        &[Ability::Generate(KeySpec::Ed25519)]
    }

    fn find(&self, _: &str) -> Result<RemoteKey> {
        self.step()?;
        Ok(remote_key())
    }

    fn list(&self) -> Result<Vec<RemoteKey>> {
        self.step()?;
        Ok(vec![remote_key()])
    }

    fn sign(&self, _: &RemoteKey, _: SignScheme, input: &[u8]) -> Result<Vec<u8>> {
        self.step()?;
        Ok(input.to_vec())
    }

    fn decrypt(&self, _: &RemoteKey, _: DecryptScheme, ciphertext: &[u8]) -> Result<SecureBytes> {
        self.step()?;
        Ok(SecureBytes::copy_from(ciphertext))
    }

    fn mac(&self, _: &RemoteKey, message: &[u8]) -> Result<Vec<u8>> {
        self.step()?;
        Ok(message.to_vec())
    }

    fn generate(&self, _: KeySpec, _: &str) -> Result<RemoteKey> {
        self.step()?;
        Ok(remote_key())
    }
}
