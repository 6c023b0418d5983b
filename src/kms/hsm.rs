//! The `hsm` provider: a master key on a device with a PKCS #11 module of its own.
//!
//! The rules are:
//! - a device knows no context, so a fresh key is wrapped there and the secret is sealed here under it (`blob.rs`);
//! - nothing is loaded before the first call; how the device is used, and what is done when it is away, says `device.rs`;
//! - a device has no versions of keys: keys with the same label are the versions of the master key (`master.rs`); how one wraps says `wrap.rs`.
//!
//! `docs/kms/hsm.md` says how to set one up.

mod abilities;
mod device;
mod export;
mod fault;
mod hash;
mod keys;
mod master;
mod name;
mod pin;
mod public;
#[cfg(test)]
mod tests;
mod wrap;

use std::sync::Arc;
use std::time::Duration;

use super::provider::{Context, Description, KeyState, KmsProvider, MasterKeyId, Wrapped, other_key};
use super::remote::{Ability, DecryptScheme, Hash, KeySpec, RemoteKey, RemoteKeys, SignScheme};
use super::{ProviderRow, SettingRow, Settings, Shape, blob};
use crate::error::{Error, KmsFault, Result};
use crate::secret::SecureBytes;
use device::{Connection, Device, Place};
pub use export::{Export, Exported, TokenSource, export};
use fault::Try;
use master::Choice;
use name::Name;
use pin::PinSource;

/// The type as the configuration and the envelopes name it.
pub const KIND: &str = "hsm";

/// The row of the registry.
pub const ROW: ProviderRow = ProviderRow {
    kind: KIND,
    settings: &[
        SettingRow::required("module", Shape::Path, "the PKCS #11 module of the device, a shared library"),
        SettingRow::optional("token", Shape::Text, "the label of the token (default: the only one that there is)"),
        SettingRow::optional("serial", Shape::Text, "the serial number of the token, where labels are not unique"),
        SettingRow::optional("slot", Shape::Number(0, u32::MAX), "the number of the slot, for modules that keep it"),
        SettingRow::optional(
            "key",
            Shape::Text,
            "the label (CKA_LABEL) of the master key and all its versions; none where only keys on the token are used",
        ),
        SettingRow::optional(
            "key_id",
            Shape::Text,
            "the id (CKA_ID) of one master key in hexadecimal; it cannot rotate",
        ),
        SettingRow::optional("pin_file", Shape::Path, "the file that holds the PIN, closed to others"),
        SettingRow::optional("pin_env", Shape::Text, "the name of the environment variable that holds the PIN"),
        SettingRow::optional("pin_credential", Shape::Text, "the name of the systemd credential that holds the PIN"),
        SettingRow::optional(
            "mechanism",
            Shape::Word(&["auto", "aes-gcm", "aes-kw", "aes-kwp", "rsa-oaep"]),
            "how the master key wraps (default auto: the first of these that device and key can do)",
        ),
        SettingRow::optional(
            "oaep_hash",
            Shape::Word(&["sha1", "sha256", "sha384", "sha512"]),
            "the hash of rsa-oaep (default sha256)",
        ),
    ],
    remote: true,
    abilities: || &abilities::ABILITIES,
    open,
};

/// How long one call may take unless the settings say otherwise.
const TIMEOUT_SECONDS: u32 = 10;

/// Opens the provider of a configuration.
fn open(settings: &Settings) -> Result<Arc<dyn KmsProvider>> {
    Ok(Arc::new(HsmKms::new(settings)?))
}

/// A KMS that is a device with a PKCS #11 module.
pub struct HsmKms {
    name: String,
    device: Device,
    choice: Choice,
}

impl HsmKms {
    /// Makes a provider of its settings. Nothing is loaded yet.
    ///
    /// # Errors
    /// `ArgumentsBad` for settings that lack the module, or contradict each other.
    pub fn new(settings: &Settings) -> Result<Self> {
        let bad = |text: &str| Error::arguments_bad(format!("the KMS `{}` {text}", settings.name));
        let text = |key: &str| settings.text(key).map(str::to_owned);
        let module = settings.path("module").ok_or_else(|| bad("lacks the key `module`"))?.to_owned();
        let place = Place {
            module,
            label: text("token"),
            serial: text("serial"),
            slot: settings.number("slot"),
            pin: PinSource::of(settings)?,
        };
        let id = settings.text("key_id").map(|id| data_encoding::HEXLOWER_PERMISSIVE.decode(id.as_bytes())).transpose();
        let choice = Choice {
            label: text("key"),
            id: id.map_err(|_| bad("has a key_id that is not hexadecimal"))?,
            mechanism: text("mechanism").unwrap_or_else(|| "auto".to_owned()),
            hash: match settings.text("oaep_hash") {
                Some("sha1") => Hash::Sha1,
                Some("sha384") => Hash::Sha384,
                Some("sha512") => Hash::Sha512,
                _ => Hash::Sha256,
            },
        };
        let timeout = settings.number("timeout_seconds").unwrap_or(TIMEOUT_SECONDS);
        let device = Device::new(place, Duration::from_secs(timeout.into()));
        Ok(Self { name: settings.name.clone(), device, choice })
    }

    /// Runs a job on the device; an error says whose.
    fn run<T: Send + 'static>(&self, job: impl FnMut(&mut Connection) -> Try<T> + Send + 'static) -> Result<T> {
        self.device.run(job).map_err(|error| error.context(format!("the HSM `{}`", self.name)))
    }
}

/// Tells which key and version one is.
fn id(master: &master::Master) -> MasterKeyId {
    MasterKeyId { key: master.name.to_string(), version: master.version }
}

impl KmsProvider for HsmKms {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn wrap_key(&self, secret: &SecureBytes, context: &Context<'_>) -> Result<Wrapped> {
        blob::seal(secret, context, |key| {
            let (key, choice) = (key.clone(), self.choice.clone());
            self.run(move |device| {
                let master = choice.current(device)?;
                let algorithm = choice.algorithm(device, &master)?;
                let blob = wrap::wrap_and_check(device, &master.name, algorithm, &key)?;
                Ok(Wrapped { master_key: id(&master), blob })
            })
        })
    }

    fn unwrap_key(&self, wrapped: &Wrapped, context: &Context<'_>) -> Result<SecureBytes> {
        blob::open(wrapped, context, |blob| {
            let name = Name::parse(&wrapped.master_key.key).ok_or_else(|| {
                let text = format!("{} is no name of a key on a token; was another KMS used?", wrapped.master_key);
                Error::kms(KmsFault::NotFound, text)
            })?;
            if !self.choice.has(&name) {
                return Err(other_key(&self.name, &wrapped.master_key, format_args!("one {}", self.choice)));
            }
            let blob = blob.to_vec();
            self.run(move |device| wrap::unwrap(device, &name, &blob))
        })
    }

    fn rotate_master_key(&self) -> Result<MasterKeyId> {
        let choice = self.choice.clone();
        self.run(move |device| choice.rotate(device).map(|master| id(&master)))
    }

    fn describe(&self) -> Result<Description> {
        let choice = self.choice.clone();
        self.run(move |device| {
            let master = choice.current(device)?;
            let (state, algorithms) = match choice.algorithm(device, &master) {
                Ok(algorithm) => (KeyState::Enabled, vec![algorithm.name().to_owned()]),
                Err(fail) if fail.fault() == Some(KmsFault::Disabled) => (KeyState::Disabled, Vec::new()),
                Err(fail) => return Err(fail),
            };
            Ok(Description { master_key: id(&master), version: master.version.to_string(), state, algorithms })
        })
    }

    fn wraps_by_public_key(&self) -> Result<bool> {
        let choice = self.choice.clone();
        self.run(move |device| choice.has_rsa(device))
    }

    /// Checks the master key; where none is named, that the token can be used.
    fn health(&self) -> Result<()> {
        if !self.choice.is_some() {
            return self.run(|_| Ok(()));
        }
        let Description { master_key, state, .. } = self.describe()?;
        if state == KeyState::Enabled {
            return Ok(());
        }
        let text = format!("the master key {master_key} is {}: switch its uses on at the token", state.name());
        Err(Error::kms(KmsFault::Disabled, text))
    }

    fn remote_keys(&self) -> Option<&dyn RemoteKeys> {
        Some(self)
    }
}

impl RemoteKeys for HsmKms {
    fn abilities(&self) -> &'static [Ability] {
        &abilities::ABILITIES
    }

    fn find(&self, name: &str) -> Result<RemoteKey> {
        let name = name.to_owned();
        self.run(move |device| keys::find(device, &name))
    }

    fn list(&self) -> Result<Vec<RemoteKey>> {
        self.run(keys::list)
    }

    fn sign(&self, key: &RemoteKey, scheme: SignScheme, input: &[u8]) -> Result<Vec<u8>> {
        self.run(keys::sign(key, scheme, input)?)
    }

    fn decrypt(&self, key: &RemoteKey, scheme: DecryptScheme, ciphertext: &[u8]) -> Result<SecureBytes> {
        self.run(keys::decrypt(key, scheme, ciphertext)?)
    }

    fn mac(&self, key: &RemoteKey, message: &[u8]) -> Result<Vec<u8>> {
        self.run(keys::mac(key, message)?)
    }

    fn generate(&self, spec: KeySpec, label: &str) -> Result<RemoteKey> {
        if !self.abilities().contains(&Ability::Generate(spec)) {
            return Err(Error::kms(KmsFault::Unsupported, format!("keys of {spec:?} cannot be made on a token")));
        }
        let label = label.to_owned();
        self.run(move |device| keys::generate(device, spec, &label))
    }
}
