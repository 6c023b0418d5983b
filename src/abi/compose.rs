//! Puts the library together from the configuration: the one place that knows every part.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use crate::audit::{Mode, Rules, Sink, Trail};
use crate::config::{self, AuditMode, AuditSink, Config, StoreUrl};
use crate::error::Result;
use crate::keys::CloudKeys;
use crate::kms::{self, KmsProvider, LocalKms};
use crate::log;
use crate::seal::{Argon2Params, Sealer};
use crate::secret::source;
use crate::store::{self, OpenOptions, Store};
use crate::token::{
    CharacterClass, Library, Parts, PasswordRules, PinSource, Plaintext, Policy, Profile, Profiles, ReadPin,
    RemoteToken, Rotation, now_seconds,
};

/// What a PIN that the configuration gives is called in errors.
const USER_PIN: &str = "user PIN";

/// Makes the library from the configuration at `path`, or from where one is found. A configuration that is wrong gives a
/// library without slots, which tells what is wrong; nothing is opened yet, and no network is touched.
///
/// # Errors
/// `FunctionFailed` when even that cannot be made.
pub fn library(path: Option<&str>, threads_allowed: bool) -> Result<Arc<Library>> {
    let parts = Config::load(path).and_then(|config| parts(&config, threads_allowed));
    let parts = match parts {
        Ok(parts) => parts,
        Err(error) => {
            log::error!("{error}");
            faulty(&error.message())?
        }
    };
    Ok(Arc::new(Library::new(parts)))
}

/// Maps a configuration to the parts of a library.
fn parts(config: &Config, threads_allowed: bool) -> Result<Parts> {
    log::configure(config.log.level, config.log.file.as_deref())?;
    let providers = Arc::new(kms::open_all(&config.kms));
    let profile = |token: &config::Token| profile(config, &providers, token);
    let named = config.tokens.iter().map(|token| Ok((token.label.clone(), profile(token)?))).collect::<Result<_>>()?;
    let profiles = Profiles { default: profile(&config.token(""))?, named };
    let (url, options) = (store_url(&config.store), OpenOptions::default());
    let status = status(config, &url, threads_allowed);
    let trail = Arc::new(Trail::new(rules(&config.audit)));
    Ok(Parts {
        open_store: Box::new(move || store::open(&url, &options)),
        profiles,
        trail,
        fault: None,
        status,
        clock: Arc::new(now_seconds),
    })
}

/// The providers by their names.
type Providers = Arc<BTreeMap<String, Arc<dyn KmsProvider>>>;

fn profile(config: &Config, providers: &Providers, token: &config::Token) -> Result<Profile> {
    let provider = providers.get(&token.kms).cloned().ok_or_else(|| {
        crate::error::Error::internal(format!("the configuration names the KMS `{}` and does not define it", token.kms))
    })?;
    let argon2 = &config.argon2;
    let params = Argon2Params::new(argon2.memory_mib.saturating_mul(1024), argon2.passes, argon2.lanes)?;
    let rotation = rotation(&config.rotation);
    let policy = Policy { plaintext: plaintext(token.plaintext), password: password(&config.password)?, rotation };
    let sealer = Arc::new(Sealer::new(provider, params).with_providers(providers.clone()));
    let remote = token.remote.as_ref().and_then(|name| providers.get(name));
    let remote = remote.map(|provider| CloudKeys::new(provider.clone(), token.keys.clone())).transpose()?;
    let remote = remote.map(|keys| -> Arc<dyn RemoteToken> { Arc::new(keys) });
    Ok(Profile { policy, sealer, pin_source: pin_source(&token.pin_source), remote })
}

/// Maps where a PIN comes from to how it is read.
fn pin_source(source: &config::PinSource) -> PinSource {
    let read: ReadPin = match source.clone() {
        config::PinSource::Prompt => return PinSource::Prompt,
        config::PinSource::Kms => return PinSource::Machine,
        config::PinSource::Environment(name) => Arc::new(move || source::from_environment(&name, USER_PIN)),
        config::PinSource::File(path) => Arc::new(move || source::from_private_file(&path, USER_PIN)),
        config::PinSource::Credential(name) => Arc::new(move || source::from_credential(&name, USER_PIN)),
    };
    PinSource::Given(read)
}

fn rotation(rules: &config::Rotation) -> Rotation {
    Rotation {
        interval_days: u64::from(rules.rotation_interval_days),
        max_age_days: u64::from(rules.max_key_age_days),
        auto_rotate: rules.auto_rotate,
    }
}

fn plaintext(policy: config::Plaintext) -> Plaintext {
    match policy {
        config::Plaintext::Never => Plaintext::Never,
        config::Plaintext::Import => Plaintext::Import,
        config::Plaintext::Compat => Plaintext::Compat,
    }
}

/// Maps the rules for passwords.
///
/// # Errors
/// None on a machine with 64 bits.
pub fn password(rules: &config::Password) -> Result<PasswordRules> {
    let class = |class: &config::CharacterClass| match class {
        config::CharacterClass::Lower => CharacterClass::Lower,
        config::CharacterClass::Upper => CharacterClass::Upper,
        config::CharacterClass::Digit => CharacterClass::Digit,
        config::CharacterClass::Symbol => CharacterClass::Symbol,
    };
    let min_length =
        usize::try_from(rules.min_length).map_err(|_| crate::error::Error::internal("min_length is out of range"))?;
    Ok(PasswordRules {
        min_length,
        classes: rules.classes.iter().map(class).collect(),
        max_attempts: rules.max_attempts,
    })
}

/// Maps how operations are recorded.
fn rules(audit: &config::Audit) -> Rules {
    let mode = match audit.mode {
        AuditMode::Off => Mode::Off,
        AuditMode::BestEffort => Mode::BestEffort,
        AuditMode::Required => Mode::Required,
    };
    let copy = |sink: &AuditSink| match sink {
        AuditSink::File(path) => Sink::File(path.clone()),
        AuditSink::Syslog => Sink::syslog(),
    };
    Rules { mode, key_use: audit.key_use, copies: audit.copies.iter().map(copy).collect() }
}

/// Opens the configured store for reading, to look at it without a library (`strongroom doctor`).
///
/// # Errors
/// As [`store::open`].
pub fn store_to_read(config: &Config) -> Result<Arc<dyn Store>> {
    store::open(&store_url(&config.store), &OpenOptions { read_only: true, ..OpenOptions::default() })
}

/// Opens the configured store to repair it (`strongroom doctor --repair`).
///
/// # Errors
/// As [`store::open`].
pub fn store_to_repair(config: &Config) -> Result<Arc<dyn Store>> {
    store::open(&store_url(&config.store), &OpenOptions::default())
}

fn store_url(store: &StoreUrl) -> String {
    match store {
        StoreUrl::Sqlite(path) => format!("sqlite://{}", path.display()),
        StoreUrl::Memory => "memory:".to_owned(),
    }
}

/// Makes the parts of a library that has no slot because its configuration is wrong.
fn faulty(fault: &str) -> Result<Parts> {
    let fault = fault.to_owned();
    let told = fault.clone();
    let password = PasswordRules { min_length: 0, classes: Vec::new(), max_attempts: 0 };
    let sealer = Sealer::new(Arc::new(LocalKms::ephemeral()?), Argon2Params::default());
    let policy = Policy { plaintext: Plaintext::Never, password, rotation: rotation(&config::Rotation::default()) };
    let profile = Profile { policy, sealer: Arc::new(sealer), pin_source: PinSource::Prompt, remote: None };
    let status = serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "fault": fault }).to_string();
    Ok(Parts {
        open_store: Box::new(move || Err(crate::error::Error::device(told.clone()))),
        profiles: Profiles { default: profile, named: HashMap::new() },
        trail: Arc::new(Trail::new(Rules { mode: Mode::Off, key_use: false, copies: Vec::new() })),
        fault: Some(fault),
        status,
        clock: Arc::new(now_seconds),
    })
}

/// Tells how the library is set up, for `SR_GetStatus`. No secret is in it.
fn status(config: &Config, url: &str, threads_allowed: bool) -> String {
    let file = config.file.as_ref().map(|file: &PathBuf| file.display().to_string());
    let tokens: Vec<_> = config
        .tokens
        .iter()
        .map(|token| {
            serde_json::json!({ "label": token.label, "kms": token.kms, "plaintext": token.plaintext.name(),
            "pin_source": token.pin_source.name(), "remote": token.remote, "keys": token.keys })
        })
        .collect();
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "configuration": file,
        "store": url,
        "threads": threads_allowed,
        "defaults": { "kms": config.defaults.kms, "plaintext": config.defaults.plaintext.name() },
        "tokens": tokens,
        "argon2": { "memory_mib": config.argon2.memory_mib, "passes": config.argon2.passes, "lanes": config.argon2.lanes },
        "rotation": {
            "rotation_interval_days": config.rotation.rotation_interval_days,
            "max_key_age_days": config.rotation.max_key_age_days,
            "auto_rotate": config.rotation.auto_rotate,
        },
        "audit": { "mode": config.audit.mode.name(), "key_use": config.audit.key_use, "copies": config.audit.copies.len() },
        "password": { "min_length": config.password.min_length, "max_attempts": config.password.max_attempts },
    })
    .to_string()
}
