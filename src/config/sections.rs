//! The sections of the file, one function each: which keys there are, their bounds and their defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::reader::{Item, Section, Source};
use super::{
    Argon2, Audit, AuditMode, AuditSink, CharacterClass, Config, Defaults, Environment, Log, Password, PinSource,
    Plaintext, StoreUrl, Token, rotation,
};
use crate::error::Result;
use crate::kms::{self, Setting, SettingRow, Settings, Shape};
use crate::log::Level;

/// The sections of the file.
const SECTIONS: &[&str] = &["store", "defaults", "kms", "token", "password", "argon2", "rotation", "log", "audit"];
/// The file name of the database in the user's data folder.
const DATABASE: &str = "strongroom.db";
/// The provider that is there without a section.
const LOCAL: &str = "local";
/// The longest label of a token in bytes (PKCS #11 v3.2, 3.3).
const LABEL_LEN: usize = 32;

const PLAINTEXT: &[(&str, Plaintext)] =
    &[("never", Plaintext::Never), ("import", Plaintext::Import), ("compat", Plaintext::Compat)];
const CLASSES: &[(&str, CharacterClass)] = &[
    ("lower", CharacterClass::Lower),
    ("upper", CharacterClass::Upper),
    ("digit", CharacterClass::Digit),
    ("symbol", CharacterClass::Symbol),
];
const LEVELS: &[(&str, Level)] = &[
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("trace", Level::Trace),
];

const AUDIT_MODES: &[(&str, AuditMode)] =
    &[("required", AuditMode::Required), ("best-effort", AuditMode::BestEffort), ("off", AuditMode::Off)];

/// Reads the whole file.
pub(super) fn read(environment: &Environment, file: &Path, text: &str) -> Result<Config> {
    let source = Source { file, text };
    let document = source.parse()?;
    let root = Section::root(source, document.get_ref());
    root.allow(SECTIONS)?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    let store = store(environment, folder, root.table("store")?)?;
    let kms = kms(&store, folder, root.table("kms")?)?;
    let defaults = defaults(&kms, root.table("defaults")?)?;
    let rotation = rotation::read(root.table("rotation")?)?;
    let tokens = tokens(&kms, folder, &defaults, &rotation, &root.array_of_tables("token")?)?;
    let password = password(root.table("password")?)?;
    let argon2 = argon2(root.table("argon2")?)?;
    let log = log(environment, folder, root.table("log")?)?;
    let audit = audit(folder, root.table("audit")?)?;
    Ok(Config { file: None, store, defaults, kms, tokens, password, argon2, rotation, log, audit })
}

/// Reads `[store]`.
fn store(environment: &Environment, folder: &Path, section: Option<Section<'_>>) -> Result<StoreUrl> {
    if let Some(section) = section {
        section.allow(&["url"])?;
        if let Some(url) = section.text("url")? {
            return store_url(folder, &url);
        }
    }
    Ok(StoreUrl::Sqlite(environment.data_folder()?.join(DATABASE)))
}

/// Reads the URL of a store: `sqlite:///absolute`, `sqlite:relative` or `memory:`.
fn store_url(folder: &Path, url: &Item<'_, &str>) -> Result<StoreUrl> {
    const FORMS: &str = "must be \"sqlite:///absolute/path\", \"sqlite:path-from-this-file\" or \"memory:\"";
    if url.value == "memory:" {
        return Ok(StoreUrl::Memory);
    }
    let Some(rest) = url.value.strip_prefix("sqlite:") else { return Err(url.error(FORMS)) };
    let place = match rest.strip_prefix("//") {
        Some(absolute) if absolute.starts_with('/') => absolute,
        Some(_) => return Err(url.error("an absolute path has three slashes: \"sqlite:///absolute/path\"")),
        None => rest,
    };
    if place.is_empty() || place.ends_with('/') {
        return Err(url.error("names no file; write for example \"sqlite:///var/lib/strongroom/strongroom.db\""));
    }
    path(folder, url, place).map(StoreUrl::Sqlite)
}

/// Makes a path absolute: a relative one starts at the folder of the configuration file.
fn path(folder: &Path, item: &Item<'_, &str>, value: &str) -> Result<PathBuf> {
    if value.is_empty() {
        return Err(item.error("names no file"));
    }
    if value.starts_with('~') {
        return Err(item.error("a ~ is not expanded; write the whole path"));
    }
    Ok(folder.join(value))
}

/// Reads `[kms.NAME]`, and adds the provider that is always there.
fn kms(store: &StoreUrl, folder: &Path, section: Option<Section<'_>>) -> Result<BTreeMap<String, Settings>> {
    let mut providers = BTreeMap::from([(LOCAL.to_owned(), local(store, LOCAL))]);
    let Some(section) = section else { return Ok(providers) };
    let sections = section.tables()?;
    for (name, section) in &sections {
        providers.insert((*name).to_owned(), provider(store, folder, name, section)?);
    }
    for (name, section) in &sections {
        check_fallback(&providers, name, section)?;
    }
    Ok(providers)
}

/// Makes the settings of a local provider without a section.
fn local(store: &StoreUrl, name: &str) -> Settings {
    let settings = Settings::new(name, LOCAL);
    match default_key_file(store, name) {
        Some(file) => settings.with("file", Setting::Path(file)),
        None => settings,
    }
}

/// Reads one `[kms.NAME]`. The section of `local` needs no type.
fn provider(store: &StoreUrl, folder: &Path, name: &str, section: &Section<'_>) -> Result<Settings> {
    if name.is_empty() || !name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter)) {
        return Err(section.error("a provider's name has letters, digits, - and _ only"));
    }
    let kinds = || kms::PROVIDERS.iter().map(|row| row.kind).collect::<Vec<_>>().join(", ");
    let row = match section.text("type")? {
        Some(kind) => kms::row(kind.value)
            .map_err(|_| kind.error(&format!("unknown type of provider; this build knows: {}", kinds())))?,
        None if name == LOCAL => kms::row(LOCAL)?,
        None => return Err(section.error(&format!("lacks the key type; this build knows: {}", kinds()))),
    };
    let rows =
        || row.settings.iter().chain(if row.remote { kms::REMOTE_SETTINGS } else { &[] }).chain(kms::COMMON_SETTINGS);
    section.allow(&["type"].into_iter().chain(rows().map(|row| row.name)).collect::<Vec<_>>())?;
    let mut settings = if row.kind == LOCAL { local(store, name) } else { Settings::new(name, row.kind) };
    for row in rows() {
        match setting(folder, section, row)? {
            Some(value) => settings = settings.with(row.name, value),
            None if row.required => return Err(section.error(&format!("lacks the key {}: {}", row.name, row.help))),
            None => {}
        }
    }
    Ok(settings)
}

/// Reads one key of a provider's section.
fn setting(folder: &Path, section: &Section<'_>, row: &SettingRow) -> Result<Option<Setting>> {
    Ok(match row.shape {
        Shape::Text => section.text(row.name)?.map(|item| Setting::Text(item.value.to_owned())),
        Shape::Word(words) => {
            let words: Vec<_> = words.iter().map(|word| (*word, *word)).collect();
            section.choice(row.name, &words)?.map(|word| Setting::Text(word.to_owned()))
        }
        Shape::Path => {
            let read = |item: Item<'_, &str>| path(folder, &item, item.value).map(Setting::Path);
            section.text(row.name)?.map(read).transpose()?
        }
        Shape::Number(least, most) => section.number(row.name, least..=most)?.map(Setting::Number),
        Shape::Flag => section.flag(row.name)?.map(Setting::Flag),
    })
}

/// Requires that the provider which `fallback` names is there, is another one, and can read the same blobs.
fn check_fallback(providers: &BTreeMap<String, Settings>, name: &str, section: &Section<'_>) -> Result<()> {
    let kind = |name: &str| providers.get(name).map(|settings| &settings.kind);
    match section.text("fallback")? {
        Some(item) if item.value == name || kind(item.value).is_none() || kind(item.value) != kind(name) => {
            Err(item.error("must name another [kms.…] section of this file that has the same type"))
        }
        _ => Ok(()),
    }
}

/// Tells where a local provider keeps its master key unless it is told: beside the database.
fn default_key_file(store: &StoreUrl, name: &str) -> Option<PathBuf> {
    match store {
        StoreUrl::Sqlite(database) => Some(database.with_file_name(format!("{name}-master.key"))),
        StoreUrl::Memory => None,
    }
}

/// Reads `[defaults]`.
fn defaults(kms: &BTreeMap<String, Settings>, section: Option<Section<'_>>) -> Result<Defaults> {
    let mut defaults = Defaults { kms: LOCAL.to_owned(), plaintext: Plaintext::Never };
    let Some(section) = section else { return Ok(defaults) };
    section.allow(&["kms", "plaintext"])?;
    if let Some(name) = kms_name(kms, &section, "kms")? {
        defaults.kms = name;
    }
    if let Some(plaintext) = section.choice("plaintext", PLAINTEXT)? {
        defaults.plaintext = plaintext;
    }
    Ok(defaults)
}

/// Reads `pin_source`.
fn pin_source(folder: &Path, item: &Item<'_, &str>) -> Result<PinSource> {
    const FORMS: &str = "must be \"prompt\", \"env:NAME\", \"file:PATH\", \"credential:NAME\" or \"kms\" (no PIN: the KMS opens the token)";
    match item.value.split_once(':') {
        None if item.value == "prompt" => Ok(PinSource::Prompt),
        None if item.value == "kms" => Ok(PinSource::Kms),
        Some(("env", name)) if !name.is_empty() => Ok(PinSource::Environment(name.to_owned())),
        Some(("file", file)) => path(folder, item, file).map(PinSource::File),
        Some(("credential", name)) if !name.is_empty() && !name.contains('/') => {
            Ok(PinSource::Credential(name.to_owned()))
        }
        _ => Err(item.error(FORMS)),
    }
}

/// Reads a key that must name a provider which there is.
fn kms_name(kms: &BTreeMap<String, Settings>, section: &Section<'_>, key: &str) -> Result<Option<String>> {
    let Some(item) = section.text(key)? else { return Ok(None) };
    if kms.contains_key(item.value) {
        return Ok(Some(item.value.to_owned()));
    }
    let names: Vec<_> = kms.keys().map(String::as_str).collect();
    Err(item.error(&format!("there is no [kms.…] section of this name; there is: {}", names.join(", "))))
}

/// Reads each `[[token]]`.
fn tokens(
    kms: &BTreeMap<String, Settings>,
    folder: &Path,
    defaults: &Defaults,
    rotation: &rotation::Settings,
    sections: &[Section<'_>],
) -> Result<Vec<Token>> {
    let mut tokens: Vec<Token> = Vec::with_capacity(sections.len());
    for section in sections {
        let token = token(kms, folder, defaults, rotation, section)?;
        if tokens.iter().any(|other| other.label == token.label) {
            return Err(section.error("another [[token]] has the same label; a label may stand in one section only"));
        }
        tokens.push(token);
    }
    Ok(tokens)
}

/// Reads one `[[token]]`.
fn token(
    kms: &BTreeMap<String, Settings>,
    folder: &Path,
    defaults: &Defaults,
    rotation: &rotation::Settings,
    section: &Section<'_>,
) -> Result<Token> {
    section.allow(&["label", "kms", "plaintext", "pin_source", "remote", "keys", "rotation"])?;
    let label =
        section.text("label")?.ok_or_else(|| section.error("lacks the key label, by which the token is found"))?;
    if label.value.is_empty() || label.value.len() > LABEL_LEN {
        return Err(label.error("a token's label has 1 to 32 bytes of UTF-8"));
    }
    let keys = section.texts("keys")?.unwrap_or_default();
    let remote = kms_name(kms, section, "remote")?;
    if remote.is_none() && !keys.is_empty() {
        return Err(section.error("lists keys and lacks the key remote, which names the KMS that they live in"));
    }
    Ok(Token {
        label: label.value.to_owned(),
        kms: kms_name(kms, section, "kms")?.unwrap_or_else(|| defaults.kms.clone()),
        plaintext: section.choice("plaintext", PLAINTEXT)?.unwrap_or(defaults.plaintext),
        pin_source: section.text("pin_source")?.map_or(Ok(PinSource::Prompt), |item| pin_source(folder, &item))?,
        remote,
        keys,
        rotation: rotation::read_token(rotation, section.table("rotation")?)?,
    })
}

/// Reads `[password]`.
fn password(section: Option<Section<'_>>) -> Result<Password> {
    let default = Password::default();
    let Some(section) = section else { return Ok(default) };
    section.allow(&["min_length", "classes", "max_attempts"])?;
    Ok(Password {
        min_length: section.number("min_length", 1..=128)?.unwrap_or(default.min_length),
        classes: section.choices("classes", CLASSES)?.unwrap_or(default.classes),
        max_attempts: section.number("max_attempts", 0..=1000)?.unwrap_or(default.max_attempts),
    })
}

/// Reads `[argon2]`.
fn argon2(section: Option<Section<'_>>) -> Result<Argon2> {
    let default = Argon2::default();
    let Some(section) = section else { return Ok(default) };
    section.allow(&["memory_mib", "passes", "lanes"])?;
    Ok(Argon2 {
        memory_mib: section.number("memory_mib", 8..=4096)?.unwrap_or(default.memory_mib),
        passes: section.number("passes", 1..=64)?.unwrap_or(default.passes),
        lanes: section.number("lanes", 1..=64)?.unwrap_or(default.lanes),
    })
}

/// Reads `[log]`; `STRONGROOM_LOG` stands above its level.
fn log(environment: &Environment, folder: &Path, section: Option<Section<'_>>) -> Result<Log> {
    let mut log = Log { level: Level::DEFAULT, file: None };
    if let Some(section) = section {
        section.allow(&["level", "file"])?;
        log.level = section.choice("level", LEVELS)?.unwrap_or(log.level);
        log.file = section.text("file")?.map(|file| path(folder, &file, file.value)).transpose()?;
    }
    log.level = environment.log_level()?.unwrap_or(log.level);
    Ok(log)
}

/// Reads `[audit]`. The store is always among the sinks: the chain lives there.
fn audit(folder: &Path, section: Option<Section<'_>>) -> Result<Audit> {
    let default = Audit::default();
    let Some(section) = section else { return Ok(default) };
    section.allow(&["mode", "key_use", "sinks"])?;
    Ok(Audit {
        mode: section.choice("mode", AUDIT_MODES)?.unwrap_or(default.mode),
        key_use: section.flag("key_use")?.unwrap_or(default.key_use),
        copies: audit_copies(folder, &section)?.unwrap_or(default.copies),
    })
}

/// Reads the sinks besides the store.
fn audit_copies(folder: &Path, section: &Section<'_>) -> Result<Option<Vec<AuditSink>>> {
    let Some(sinks) = section.text_items("sinks")? else { return Ok(None) };
    if !sinks.iter().any(|sink| sink.value == "store") {
        return Err(section.error("sinks lacks \"store\", which keeps the chain; the others get copies"));
    }
    let copy = |item: &Item<'_, &str>| match item.value.split_once(':') {
        None if item.value == "syslog" => Ok(AuditSink::Syslog),
        Some(("file", place)) => path(folder, item, place).map(AuditSink::File),
        _ => Err(item.error("must be a list of \"store\", \"file:PATH\" and \"syslog\"")),
    };
    sinks.iter().filter(|sink| sink.value != "store").map(copy).collect::<Result<_>>().map(Some)
}
