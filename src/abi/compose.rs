//! Puts the library together from the configuration: the one place that knows every part.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::global;
use crate::audit::{self, Mode, Sink, Trail};
use crate::config::{self, AuditMode, AuditSink, Config, StoreUrl};
use crate::error::Result;
use crate::keys::{CloudKeys, Scheduler};
use crate::kms::{self, KmsProvider, LocalKms};
use crate::log;
use crate::runtime;
use crate::seal::{Argon2Params, Sealer};
use crate::secret::source;
use crate::store::{self, OpenOptions, Store};
use crate::token::{
    CharacterClass, Effective, Library, Origin, Parts, PasswordRules, PinSource, Plaintext, Policy, Profile, Profiles,
    ReadPin, RemoteToken, Rotation, Rules, now_seconds,
};

/// What a PIN that the configuration gives is called in errors.
const USER_PIN: &str = "user PIN";

/// Makes the library from the configuration at `path`, or from where one is found, for a program that tells its user what is wrong
/// with that. Nothing is opened yet, and no network is touched.
///
/// # Errors
/// What is wrong with the configuration, or in the way of what it asks for.
pub fn library(path: Option<&str>, threads_allowed: bool) -> Result<Arc<Library>> {
    Ok(Arc::new(Library::new(parts(&Config::load(path)?, threads_allowed)?)))
}

/// Makes the same for an application that stays. A configuration that is wrong gives a library without slots, which tells what is
/// wrong. Due keys are rotated by themselves, where that is configured and threads are allowed. No thread is started yet.
///
/// # Errors
/// `FunctionFailed` when not even a library without slots can be made.
pub fn attended_library(path: Option<&str>, threads_allowed: bool) -> Result<Arc<Library>> {
    let composed =
        Config::load(path).and_then(|config| Ok((parts(&config, threads_allowed)?, check_interval(&config))));
    Ok(Arc::new(match composed {
        Ok((parts, interval)) => attended(Library::new(parts), interval.filter(|_| threads_allowed)),
        Err(error) => {
            log::error!("{error}");
            Library::new(faulty(&error.message())?)
        }
    }))
}

/// Lets due keys be looked for at an interval, if there is one.
fn attended(library: Library, interval: Option<Duration>) -> Library {
    match interval {
        Some(interval) => library.attended_by(Arc::new(Scheduler::new(interval))),
        None => library,
    }
}

/// Tells at which interval due keys are looked for, if that is configured.
fn check_interval(config: &Config) -> Option<Duration> {
    config.rotation.scheduler.then(|| Duration::from_secs(60 * u64::from(config.rotation.check_interval_minutes)))
}

/// Makes the library for the Rust face, which stays: due keys are rotated by themselves, where that is configured. A provider that the
/// program brings seals the token with this label, which opens without a PIN then, whatever the configuration says of it.
///
/// # Errors
/// As [`library`], and what is wrong with the configuration.
pub fn library_with(config: &Config, label: &str, provider: Option<Arc<dyn KmsProvider>>) -> Result<Arc<Library>> {
    global::watch_forks()?;
    let mut parts = parts(config, true)?;
    if let Some(provider) = provider {
        let mut own = parts.profiles.of(label).clone();
        (own.sealer, own.pin_source) = (Arc::new(own.sealer.under(provider)), PinSource::Machine);
        parts.profiles.named.insert(label.to_owned(), own);
    }
    runtime::open(true);
    Ok(Arc::new(attended(Library::new(parts), check_interval(config))))
}

/// Maps a configuration to the parts of a library.
fn parts(config: &Config, threads_allowed: bool) -> Result<Parts> {
    log::configure(config.log.level, config.log.file.as_deref())?;
    let providers = Arc::new(kms::open_all(&config.kms));
    let scoped = config.kms.values().filter(|settings| settings.has_key_scope());
    let scoped: Arc<BTreeSet<_>> = Arc::new(scoped.map(|settings| settings.name.clone()).collect());
    let profile = |token: &config::Token| profile(config, &providers, &scoped, token);
    let named = config.tokens.iter().map(|token| Ok((token.label.clone(), profile(token)?))).collect::<Result<_>>()?;
    let profiles = Profiles { default: profile(&config.token(""))?, named };
    let (url, options) = (store_url(&config.store), OpenOptions::default());
    let status = status(config, &url, threads_allowed);
    let trail = Arc::new(Trail::new(recorded(&config.audit)));
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

fn profile(
    config: &Config,
    providers: &Providers,
    scoped: &Arc<BTreeSet<String>>,
    token: &config::Token,
) -> Result<Profile> {
    let provider = providers.get(&token.kms).cloned().ok_or_else(|| {
        crate::error::Error::internal(format!("the configuration names the KMS `{}` and does not define it", token.kms))
    })?;
    let argon2 = &config.argon2;
    let params = Argon2Params::new(argon2.memory_mib.saturating_mul(1024), argon2.passes, argon2.lanes)?;
    let rotation = rules(&token.rotation, config.rotation.warn_days);
    let policy = Policy { plaintext: plaintext(token.plaintext), password: password(&config.password)?, rotation };
    let sealer =
        Arc::new(Sealer::new(provider, params).with_providers(providers.clone()).with_data_keys_of(scoped.clone()));
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

/// Maps the rules of a token's rotation.
fn rules(rules: &config::rotation::Rules, warn_days: u32) -> Rules {
    let assets = rules.assets.iter().map(|(name, rotation)| (name.clone(), effective(rotation))).collect();
    Rules::new(effective(&rules.others), assets).warning(u64::from(warn_days))
}

fn effective(rules: &config::rotation::Rotation) -> Effective {
    use config::rotation::Level;
    let origin = |level| match level {
        Level::Default => Origin::Default,
        Level::General => Origin::Configuration,
        Level::Token => Origin::Token,
        Level::Asset => Origin::Asset,
    };
    let rotation = Rotation {
        interval_days: u64::from(rules.rotation_interval_days.value),
        max_age_days: u64::from(rules.max_key_age_days.value),
        max_uses: u64::from(rules.max_key_uses.value),
        auto_rotate: rules.auto_rotate.value,
    };
    let levels = [
        rules.rotation_interval_days.level,
        rules.max_key_age_days.level,
        rules.max_key_uses.level,
        rules.auto_rotate.level,
    ];
    Effective { rotation, origins: levels.map(origin) }
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
fn recorded(rules: &config::Audit) -> audit::Rules {
    let mode = match rules.mode {
        AuditMode::Off => Mode::Off,
        AuditMode::BestEffort => Mode::BestEffort,
        AuditMode::Required => Mode::Required,
    };
    let copy = |sink: &AuditSink| match sink {
        AuditSink::File(path) => Sink::File(path.clone()),
        AuditSink::Syslog => Sink::syslog(),
    };
    audit::Rules { mode, key_use: rules.key_use, copies: rules.copies.iter().map(copy).collect() }
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
    let policy = Policy { plaintext: Plaintext::Never, password, rotation: Rotation::default().into() };
    let profile = Profile { policy, sealer: Arc::new(sealer), pin_source: PinSource::Prompt, remote: None };
    let status = serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "fault": fault }).to_string();
    Ok(Parts {
        open_store: Box::new(move || Err(crate::error::Error::device(told.clone()))),
        profiles: Profiles { default: profile, named: HashMap::new() },
        trail: Arc::new(Trail::new(audit::Rules { mode: Mode::Off, key_use: false, copies: Vec::new() })),
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
        "rotation": rotation_status(config, threads_allowed),
        "audit": { "mode": config.audit.mode.name(), "key_use": config.audit.key_use, "copies": config.audit.copies.len() },
        "password": { "min_length": config.password.min_length, "max_attempts": config.password.max_attempts },
    })
    .to_string()
}

/// Tells when keys are rotated, and whether the library does so by itself.
fn rotation_status(config: &Config, threads_allowed: bool) -> serde_json::Value {
    let (settings, rules) = (&config.rotation, &config.rotation.rules.others);
    let scheduler = match (settings.scheduler, threads_allowed) {
        (false, _) => "off",
        (true, false) => "off: the application forbids threads",
        (true, true) => "on",
    };
    serde_json::json!({
        "rotation_interval_days": rules.rotation_interval_days.value,
        "max_key_age_days": rules.max_key_age_days.value,
        "max_key_uses": rules.max_key_uses.value,
        "auto_rotate": rules.auto_rotate.value,
        "scheduler": scheduler,
        "check_interval_minutes": settings.check_interval_minutes,
        "warn_days": settings.warn_days,
    })
}
