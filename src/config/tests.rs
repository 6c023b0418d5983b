//! Tests of the configuration: defaults, search order, and one case for each way to be wrong.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;

use super::*;
use crate::kms::Setting;

/// An environment whose user lives in `home`.
fn at(home: &str) -> Environment {
    Environment { home: Some(home.into()), ..Environment::default() }
}

fn parse(text: &str) -> Result<Config> {
    Config::parse(&at("/home/me"), Some("/cfg/strongroom.toml".into()), text)
}

/// The settings of a local provider with this file.
fn local(name: &str, file: Option<&str>) -> Settings {
    let settings = Settings::new(name, "local");
    file.map_or(settings.clone(), |file| settings.with("file", Setting::Path(file.into())))
}

fn refusal(text: &str) -> String {
    parse(text).expect_err(text).message()
}

#[test]
fn zero_configuration_works() {
    let config = Config::parse(&at("/home/me"), None, "").unwrap();
    let folder = Path::new("/home/me/.local/share/strongroom");
    assert_eq!(config.file, None);
    assert_eq!(config.store, StoreUrl::Sqlite(folder.join("strongroom.db")));
    assert_eq!(config.kms["local"], local("local", folder.join("local-master.key").to_str()));
    assert_eq!(config.defaults, Defaults { kms: "local".into(), plaintext: Plaintext::Never });
    assert_eq!(config.argon2, Argon2 { memory_mib: 64, passes: 3, lanes: 4 });
    assert_eq!(config.password, Password { min_length: 8, classes: vec![], max_attempts: 10 });
    let rotation = Rotation { rotation_interval_days: 90, max_key_age_days: 365, auto_rotate: true };
    assert_eq!(config.rotation, rotation);
    assert_eq!(config.log, Log { level: Level::Warn, file: None });
    assert!(config.tokens.is_empty());
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        [store]
        url = "sqlite:data/a.db"
        [defaults]
        kms = "dev"
        plaintext = "import"
        [kms.dev]
        type = "local"
        [kms.local]
        file = "/keys/local"
        [[token]]
        label = "wallet"
        kms = "local"
        plaintext = "compat"
        pin_source = "prompt"
        [[token]]
        label = "second"
        [password]
        min_length = 12
        classes = ["lower", "upper", "digit", "symbol"]
        max_attempts = 0
        [argon2]
        memory_mib = 128
        passes = 2
        lanes = 1
        [rotation]
        rotation_interval_days = 30
        max_key_age_days = 0
        auto_rotate = false
        [log]
        level = "debug"
        file = "log/strongroom.log"
        "#,
    )
    .unwrap();
    assert_eq!(config.store, StoreUrl::Sqlite("/cfg/data/a.db".into()));
    assert_eq!(config.kms["dev"], local("dev", Some("/cfg/data/dev-master.key")));
    assert_eq!(config.kms["local"], local("local", Some("/keys/local")));
    let wallet = config.token("wallet");
    assert_eq!((wallet.kms.as_str(), wallet.plaintext), ("local", Plaintext::Compat));
    for label in ["second", "without a section"] {
        let token = config.token(label);
        assert_eq!((token.kms.as_str(), token.plaintext), ("dev", Plaintext::Import), "{label}");
    }
    use CharacterClass::*;
    assert_eq!(
        config.password,
        Password { min_length: 12, classes: vec![Lower, Upper, Digit, Symbol], max_attempts: 0 }
    );
    assert_eq!(config.argon2, Argon2 { memory_mib: 128, passes: 2, lanes: 1 });
    assert_eq!(config.log, Log { level: Level::Debug, file: Some("/cfg/log/strongroom.log".into()) });
}

#[test]
fn a_memory_store_has_an_ephemeral_master_key() {
    let config = parse("[store]\nurl = \"memory:\"").unwrap();
    assert_eq!((config.store, config.kms["local"].clone()), (StoreUrl::Memory, local("local", None)));
    let config = parse("[store]\nurl = \"memory:\"\n[kms.local]\nfile = \"k\"").unwrap();
    assert_eq!(config.kms["local"], local("local", Some("/cfg/k")));
}

#[test]
fn absolute_urls_stay() {
    let config = parse("[store]\nurl = \"sqlite:///var/lib/s.db\"").unwrap();
    assert_eq!(config.store, StoreUrl::Sqlite("/var/lib/s.db".into()));
}

/// Each bad text, the line and key that the error must name, and a part of what it must say would be right.
const WRONG: &[(&str, &str, &str, &str)] = &[
    ("[store\nurl = 1", "1", "", "not TOML"),
    ("[store]\nurl = \"a\"\nurl = \"b\"", "3", "", "duplicate key"),
    ("\n[stor]\nurl = \"memory:\"", "2", "stor", "did you mean store?"),
    ("[backup]\nmode = \"required\"", "1", "backup", "unknown key; known here: store, defaults, kms"),
    ("store = 1", "1", "store", "must be a table"),
    ("[store]\nlocation = \"x\"", "2", "store.location", "known here: url"),
    ("[store]\nurl = 7", "2", "store.url", "must be a text in quotes"),
    ("[store]\nurl = \"mysql://x\"", "2", "store.url", "\"sqlite:///absolute/path\""),
    ("[store]\nurl = \"sqlite://x/y\"", "2", "store.url", "three slashes"),
    ("[store]\nurl = \"sqlite:\"", "2", "store.url", "names no file"),
    ("[store]\nurl = \"sqlite:///var/lib/\"", "2", "store.url", "names no file"),
    ("[store]\nurl = \"sqlite:~/a.db\"", "2", "store.url", "whole path"),
    ("[defaults]\nplaintext = \"sometimes\"", "2", "defaults.plaintext", "\"never\", \"import\" or \"compat\""),
    ("[defaults]\nplaintxt = \"never\"", "2", "defaults.plaintxt", "did you mean plaintext?"),
    ("[defaults]\nkms = \"prod\"", "2", "defaults.kms", "there is: local"),
    ("[kms]\nprod = 1", "2", "kms.prod", "must be a table"),
    ("[kms.prod]\ntype = \"clay\"\nkey = \"k\"", "2", "kms.prod.type", "this build knows: local"),
    ("[kms.prod]\nfile = \"x\"", "1", "kms.prod", "lacks the key type"),
    ("[kms.prod]\ntype = \"local\"\nkey = \"x\"", "3", "kms.prod.key", "known here: type, file, credential"),
    ("[kms.\"a/b\"]\ntype = \"local\"", "1", "kms.a/b", "letters, digits"),
    ("[kms.local]\nfile = \"\"", "2", "kms.local.file", "names no file"),
    ("[kms.local]\nfile = \"~/k\"", "2", "kms.local.file", "whole path"),
    ("[token]\nlabel = \"a\"", "1", "token", "[[token]]"),
    ("token = [1]", "1", "token", "[[token]]"),
    ("[[token]]\nkms = \"local\"", "1", "token", "lacks the key label"),
    ("[[token]]\nlabel = \"\"", "2", "token.label", "1 to 32 bytes"),
    ("[[token]]\nlabel = \"123456789012345678901234567890123\"", "2", "token.label", "1 to 32 bytes"),
    ("[[token]]\nlabel = \"a\"\n[[token]]\nlabel = \"a\"", "3", "token", "same label"),
    ("[[token]]\nlabel = \"a\"\nkms = \"x\"", "3", "token.kms", "there is: local"),
    ("[[token]]\nlabel = \"a\"\nplaintext = \"x\"", "3", "token.plaintext", "\"never\""),
    ("[[token]]\nlabel = \"a\"\npin_source = \"env:\"", "3", "token.pin_source", "\"env:NAME\""),
    ("[[token]]\nlabel = \"a\"\npin_source = \"1234\"", "3", "token.pin_source", "no PIN: the KMS opens the token"),
    ("[[token]]\nlabel = \"a\"\nremote = \"x\"", "3", "token.remote", "there is: local"),
    ("[[token]]\nlabel = \"a\"\nkeys = [\"x\"]", "1", "token", "lacks the key remote"),
    ("[[token]]\nlabel = \"a\"\nremote = \"local\"\nkeys = [\"\"]", "4", "token.keys", "list of texts"),
    ("[[token]]\nlabel = \"a\"\npin = \"1\"", "3", "token.pin", "unknown key"),
    ("[password]\nmin_length = 0", "2", "password.min_length", "from 1 to 128; it is 0"),
    ("[password]\nmin_length = \"12\"", "2", "password.min_length", "whole number"),
    ("[password]\nclasses = \"lower\"", "2", "password.classes", "list of \"lower\""),
    ("[password]\nclasses = [\"lower\",\n\"emoji\"]", "3", "password.classes", "\"digit\" or \"symbol\""),
    ("[password]\nclasses = [1]", "2", "password.classes", "list of \"lower\""),
    ("[password]\nmax_attempts = -1", "2", "password.max_attempts", "from 0 to 1000; it is -1"),
    ("[password]\nattempts = 1", "2", "password.attempts", "known here"),
    ("[argon2]\nmemory_mib = 7", "2", "argon2.memory_mib", "from 8 to 4096; it is 7"),
    ("[argon2]\nmemory_mib = 99999999999", "2", "argon2.memory_mib", "from 8 to 4096"),
    ("[argon2]\npasses = 0", "2", "argon2.passes", "from 1 to 64"),
    ("[argon2]\nlanes = 1.5", "2", "argon2.lanes", "from 1 to 64"),
    ("[argon2]\nlane = 1", "2", "argon2.lane", "did you mean lanes?"),
    ("[log]\nlevel = \"loud\"", "2", "log.level", "\"error\", \"warn\", \"info\", \"debug\" or \"trace\""),
    ("[log]\nfile = true", "2", "log.file", "text in quotes"),
    ("[log]\npath = \"x\"", "2", "log.path", "known here: level, file"),
    ("[audit]\nmode = \"on\"", "2", "audit.mode", "\"required\", \"best-effort\" or \"off\""),
    ("[audit]\nkey_use = \"yes\"", "2", "audit.key_use", "true or false"),
    ("[audit]\nsink = []", "2", "audit.sink", "did you mean sinks?"),
    ("[audit]\nsinks = \"store\"", "2", "audit.sinks", "list of texts"),
    ("[audit]\nsinks = [\"store\", 1]", "2", "audit.sinks", "list of texts"),
    ("[audit]\nsinks = []", "1", "audit", "lacks \"store\""),
    ("[audit]\nsinks = [\"syslog\"]", "1", "audit", "lacks \"store\""),
    ("[audit]\nsinks = [\"store\",\n\"tcp:host\"]", "3", "audit.sinks", "\"file:PATH\" and \"syslog\""),
    ("[audit]\nsinks = [\"store\", \"file:\"]", "2", "audit.sinks", "names no file"),
];

#[test]
fn r73_every_wrong_value_names_file_line_key_and_what_would_be_right() {
    for (text, line, key, right) in WRONG {
        let error = refusal(text);
        let place = format!("/cfg/strongroom.toml:{line}: {key}{}", if key.is_empty() { "" } else { ": " });
        assert!(error.starts_with(&place), "{text:?}\n got {error}\nwant {place}");
        assert!(error.contains(right), "{text:?}\n got {error}\nwant {right}");
    }
}

#[test]
fn r23_an_error_never_quotes_a_text_of_the_file() {
    for text in [
        "[store]\nurl = \"postgres://me:canary@host/db\"",
        "[[token]]\nlabel = \"a\"\npin_source = \"canary\"",
        "[[token]]\nlabel = \"a\"\npin = \"canary\"",
        "[defaults]\nkms = \"canary\"",
        "[log]\nlevel = \"canary\"",
        "[store]\nurl = \"canary",
        "[store]\nurl = canary",
    ] {
        let error = refusal(text);
        assert!(!error.contains("canary"), "{error}");
    }
}

#[test]
fn r74_the_trail_takes_changes_by_default_and_sinks_by_name() {
    let audit = parse("").unwrap().audit;
    assert_eq!(audit, Audit { mode: AuditMode::BestEffort, key_use: false, copies: vec![] });
    let text = "[audit]\nmode = \"required\"\nkey_use = true\nsinks = [\"store\", \"file:a.jsonl\", \"syslog\"]";
    let copies = vec![AuditSink::File("/cfg/a.jsonl".into()), AuditSink::Syslog];
    assert_eq!(parse(text).unwrap().audit, Audit { mode: AuditMode::Required, key_use: true, copies });
}

#[test]
fn strongroom_log_stands_above_the_file() {
    let mut environment = at("/home/me");
    environment.log = Some("TRACE".into());
    let config = Config::parse(&environment, None, "[log]\nlevel = \"error\"").unwrap();
    assert_eq!(config.log.level, Level::Trace);
    environment.log = Some("loud".into());
    let error = Config::parse(&environment, None, "").unwrap_err().message();
    assert!(error.starts_with("STRONGROOM_LOG takes error, warn"), "{error}");
}

#[test]
fn the_data_folder_follows_xdg_and_home() {
    let mut environment = at("/home/me");
    environment.data_home = Some("/data".into());
    let config = Config::parse(&environment, None, "").unwrap();
    assert_eq!(config.store, StoreUrl::Sqlite("/data/strongroom/strongroom.db".into()));
    let error = Config::parse(&Environment::default(), None, "").unwrap_err().message();
    assert!(error.contains("XDG_DATA_HOME") && error.contains("HOME"), "{error}");
}

/// Writes a configuration that is told apart by its log level.
fn write(path: &Path, level: Level) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("[log]\nlevel = \"{}\"", level.name())).unwrap();
}

#[test]
fn the_first_place_of_the_search_wins() {
    let folder = tempfile::tempdir().unwrap();
    let (explicit, named) = (folder.path().join("explicit.toml"), folder.path().join("named.toml"));
    let (xdg, home) = (folder.path().join("xdg"), folder.path().join("home"));
    write(&explicit, Level::Error);
    write(&named, Level::Info);
    write(&xdg.join("strongroom/strongroom.toml"), Level::Debug);
    write(&home.join(".config/strongroom/strongroom.toml"), Level::Trace);
    let mut environment =
        Environment { config: Some(named), config_home: Some(xdg), home: Some(home), ..Environment::default() };
    let level = |environment: &Environment, explicit: Option<&Path>| {
        Config::load_in(environment, explicit.map(|path| path.to_str().unwrap())).unwrap().log.level
    };
    assert_eq!(level(&environment, Some(&explicit)), Level::Error);
    assert_eq!(level(&environment, None), Level::Info);
    environment.config = None;
    assert_eq!(level(&environment, None), Level::Debug);
    environment.config_home = None;
    assert_eq!(level(&environment, None), Level::Trace);
    assert_eq!(environment.places().last().unwrap(), Path::new("/etc/strongroom/strongroom.toml"));
}

#[test]
fn r73_a_named_file_that_is_missing_or_unreadable_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.toml");
    let text = missing.to_str().unwrap();
    let error = Config::load_in(&at("/home/me"), Some(text)).unwrap_err().message();
    assert!(error.contains(text) && error.contains("named by the application"), "{error}");
    let environment = Environment { config: Some(missing.clone()), ..at("/home/me") };
    let error = Config::load_in(&environment, None).unwrap_err().message();
    assert!(error.contains(text) && error.contains("STRONGROOM_CONFIG"), "{error}");
    let error = Config::load_in(&at("/home/me"), Some(folder.path().to_str().unwrap())).unwrap_err().message();
    assert!(error.contains("cannot be read"), "{error}");
}

#[test]
fn the_example_of_the_readme_is_right_and_shows_the_defaults() {
    let readme = include_str!("../../README.md");
    let example = readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let (shown, default) = (parse(example).unwrap(), parse("").unwrap());
    assert_eq!((shown.password, shown.argon2), (default.password, default.argon2));
    assert_eq!((shown.defaults, shown.log.level), (default.defaults, default.log.level));
}

#[test]
fn rules_of_rotation_that_contradict_each_other_name_file_and_line() {
    for (text, wanted) in [
        ("\n[rotation]\nrotation_interval_days = 90\nmax_key_age_days = 90\n", "greater than rotation_interval_days"),
        ("\n[rotation]\nrotation_interval_days = 400\n", "greater than rotation_interval_days"),
        ("\n[rotation]\nrotation_interval_days = 0\nauto_rotate = true\n", "above 0"),
    ] {
        let text = refusal(text);
        assert!(text.starts_with("/cfg/strongroom.toml:2: rotation: ") && text.contains(wanted), "{text}");
    }
    for (line, wanted) in [
        ("rotation_interval_days = 36501", "from 0 to 36500"),
        ("max_key_age_days = -1", "from 0 to 36500"),
        ("auto_rotate = \"yes\"", "true or false"),
        ("interval_days = 9", "unknown key"),
    ] {
        let text = refusal(&format!("[rotation]\n{line}\n"));
        assert!(text.starts_with("/cfg/strongroom.toml:2: ") && text.contains(wanted), "{text}");
    }
    let off = parse("[rotation]\nrotation_interval_days = 0\n").unwrap().rotation;
    assert_eq!(off, Rotation { rotation_interval_days: 0, max_key_age_days: 365, auto_rotate: false });
}
