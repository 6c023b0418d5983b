//! `strongroom kms …`: the KMS providers of the configuration, and what an operator does with the master key of a token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use strongroom::config::Config;
use strongroom::error::Error;
use strongroom::kms::{self, Ability, Context, KmsProvider};
use strongroom::secret::SecureBytes;

use crate::args::{KmsMoveOptions, KmsTestOptions, KmsTokenOptions};
use crate::failure::Failure;
use crate::library;
use crate::output::{Output, table};

/// What the test wraps: no secret, and as long as a key.
const PROBE: &[u8; 32] = b"strongroom kms test: 32 bytes...";
/// What the test's blobs are bound to; no token has such a serial number.
const CONTEXT: Context<'static> = Context { token: "----------------", purpose: "test" };

/// Lists the providers of the configuration.
pub fn list(config: Option<&str>, output: &Output) -> Result<(), Failure> {
    let config = Config::load(config)?;
    let users = |name: &str| -> Vec<String> {
        let fits = |token: &&strongroom::config::Token| token.kms == name || token.remote.as_deref() == Some(name);
        config.tokens.iter().filter(fits).map(|token| token.label.clone()).collect()
    };
    let mut rows = vec![["NAME", "TYPE", "DEFAULT", "TOKENS"].map(str::to_owned).to_vec()];
    let mut values = Vec::new();
    for (name, settings) in &config.kms {
        let (is_default, tokens) = (config.defaults.kms == *name, users(name));
        let default = if is_default { "yes" } else { "" };
        rows.push(vec![name.clone(), settings.kind.clone(), default.to_owned(), tokens.join(", ")]);
        values.push(json!({ "name": name, "type": settings.kind, "default": is_default, "tokens": tokens,
            "scope": if settings.has_key_scope() { "key" } else { "token" } }));
    }
    output.result(&table(&rows), &Value::Array(values))
}

/// Asks a provider how it is, wraps and unwraps with it, and tells how long each took.
pub fn test(config: Option<&str>, options: &KmsTestOptions, output: &Output) -> Result<(), Failure> {
    let provider = provider(config, &options.name)?;
    let mut times = Vec::new();
    let description = timed(&mut times, "describe", || provider.describe())?;
    let secret = SecureBytes::copy_from(PROBE);
    let wrapped = timed(&mut times, "wrap", || provider.wrap_key(&secret, &CONTEXT))?;
    let unwrapped = timed(&mut times, "unwrap", || provider.unwrap_key(&wrapped, &CONTEXT))?;
    if unwrapped != secret {
        return Err(Error::device("the KMS does not give back what it has wrapped").into());
    }
    let lines: Vec<_> = times.iter().map(|(what, millis)| format!("  {what:9} {millis} ms")).collect();
    let text = format!(
        "{}: master key {} is {}; what it wraps it unwraps\n{}",
        options.name,
        description.master_key,
        description.state.name(),
        lines.join("\n")
    );
    let value = json!({
        "name": options.name,
        "type": provider.kind(),
        "key": description.master_key.key,
        "version": description.version,
        "state": description.state.name(),
        "algorithms": description.algorithms,
        "milliseconds": times.iter().copied().collect::<BTreeMap<_, _>>(),
    });
    output.result(&text, &value)
}

/// Runs one step and notes how many milliseconds it took.
fn timed<T>(
    times: &mut Vec<(&'static str, u64)>,
    what: &'static str,
    step: impl FnOnce() -> strongroom::error::Result<T>,
) -> Result<T, Failure> {
    let start = Instant::now();
    let answer = step().map_err(|error| error.context(what))?;
    times.push((what, u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)));
    Ok(answer)
}

/// Opens a provider of the configuration by its name.
fn provider(config: Option<&str>, name: &str) -> Result<Arc<dyn KmsProvider>, Failure> {
    let config = Config::load(config)?;
    let provider = kms::open_all(&config.kms).remove(name);
    provider.ok_or_else(|| none_named(&config, name))
}

/// Fails where the configuration has no provider of a name.
pub fn check_name(config: Option<&str>, name: &str) -> Result<(), Failure> {
    let config = Config::load(config)?;
    match config.kms.contains_key(name) {
        true => Ok(()),
        false => Err(none_named(&config, name)),
    }
}

fn none_named(config: &Config, name: &str) -> Failure {
    let names = config.kms.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    Failure::Selector(format!("there is no [kms.{}] in the configuration; it has: {names}", name.escape_debug()))
}

/// Rotates the master key of a token.
pub fn rotate(config: Option<&str>, options: &KmsTokenOptions, output: &Output) -> Result<(), Failure> {
    let (library, token) = token(config, options)?;
    let session = library::user_session(&library, &token, &options.pin)?;
    let change = session.rotate_master_key()?;
    let text = format!(
        "the master key of token \"{}\" is rotated: {} version {}{}",
        token.info.label,
        change.key,
        change.version,
        followed(change.keys)
    );
    let keys = change.keys;
    output
        .result(&text, &json!({ "type": change.provider, "key": change.key, "version": change.version, "keys": keys }))
}

/// Moves a token to another provider.
pub fn relocate(config: Option<&str>, options: &KmsMoveOptions, output: &Output) -> Result<(), Failure> {
    check_name(config, &options.to)?;
    let (library, token) = token(config, &options.token)?;
    let session = library::user_session(&library, &token, &options.token.pin)?;
    let change = session.move_kms(&options.to)?;
    let text = format!(
        "token \"{}\" is now under {} (type {}, key {}){}; write kms = \"{}\" in its [[token]] section",
        token.info.label,
        options.to,
        change.provider,
        change.key,
        followed(change.keys),
        options.to
    );
    let keys = change.keys;
    let value = json!({ "kms": options.to, "type": change.provider, "key": change.key, "version": change.version, "keys": keys });
    output.result(&text, &value)
}

/// Tells how many managed keys were sealed anew with the token.
fn followed(keys: usize) -> String {
    match keys {
        0 => String::new(),
        keys => format!(", and {keys} managed keys with it"),
    }
}

/// Brings a token of keys in a KMS in step with the account.
pub fn sync(config: Option<&str>, options: &KmsTokenOptions, output: &Output) -> Result<(), Failure> {
    let (library, token) = token(config, options)?;
    let session = library::user_session(&library, &token, &options.pin)?;
    let new = session.sync_remote()?;
    output.result(&format!("token \"{}\": {new} new keys", token.info.label), &json!({ "new": new }))
}

fn token(
    config: Option<&str>,
    options: &KmsTokenOptions,
) -> Result<(Arc<strongroom::token::Library>, library::Token), Failure> {
    let library = library::open(config)?;
    let token = library::token(&library, &options.token)?;
    Ok((library, token))
}

/// Lists what each type of provider can do with keys that live there.
pub fn matrix(output: &Output) -> Result<(), Failure> {
    let mut rows = vec![["PROVIDER", "DOES", "KEY", "SCHEME"].map(str::to_owned).to_vec()];
    for row in kms::PROVIDERS {
        for ability in (row.abilities)() {
            let (does, spec, scheme) = match ability {
                Ability::Generate(spec) => ("generate", spec, String::new()),
                Ability::Sign(spec, scheme) => ("sign", spec, format!("{scheme:?}")),
                Ability::Decrypt(spec, scheme) => ("decrypt", spec, format!("{scheme:?}")),
                Ability::Mac(spec) => ("mac", spec, "Hmac".to_owned()),
            };
            rows.push(vec![row.kind.to_owned(), does.to_owned(), format!("{spec:?}"), scheme]);
        }
    }
    let value = |row: &Vec<String>| match row.as_slice() {
        [provider, does, key, scheme] => json!({ "provider": provider, "does": does, "key": key, "scheme": scheme }),
        _ => Value::Null,
    };
    output.result(&table(&rows), &Value::Array(rows.iter().skip(1).map(value).collect()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Writes the page of the matrix: a row for each thing that is done with a kind of key, a column for each provider.
    fn page() -> String {
        let kinds: Vec<_> = kms::PROVIDERS.iter().filter(|row| row.remote).map(|row| row.kind).collect();
        let mut cells: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for row in kms::PROVIDERS {
            for ability in (row.abilities)() {
                cells.entry(words(ability)).or_default().push(row.kind);
            }
        }
        let mut page = format!(
            "# What each KMS can do with keys that live there\n\n\
             Made from the providers' own tables, from which `strongroom kms matrix` and C_GetMechanismList of such a slot follow too; a test\n\
             compares it with them. What an `hsm` can do depends on the device: the column says what is asked of it.\n\n\
             | | {} |\n|---|{}\n",
            kinds.join(" | "),
            "---|".repeat(kinds.len())
        );
        for (what, providers) in cells {
            let marks: Vec<_> = kinds.iter().map(|kind| if providers.contains(kind) { "yes" } else { "" }).collect();
            page.push_str(&format!("| {what} | {} |\n", marks.join(" | ")));
        }
        page
    }

    fn words(ability: &Ability) -> String {
        match ability {
            Ability::Generate(spec) => format!("make `{spec:?}`"),
            Ability::Sign(spec, scheme) => format!("sign with `{spec:?}` by `{scheme:?}`"),
            Ability::Decrypt(spec, scheme) => format!("decrypt with `{spec:?}` by `{scheme:?}`"),
            Ability::Mac(spec) => format!("make MACs with `{spec:?}`"),
        }
    }

    /// Fails when docs/kms/matrix.md is not what the providers say; `make man` writes it.
    #[test]
    fn r31_the_page_of_the_matrix_is_up_to_date() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kms/matrix.md");
        if std::env::var_os("STRONGROOM_WRITE_MAN").is_some() {
            std::fs::write(&file, page()).unwrap();
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(committed == page(), "docs/kms/matrix.md is out of date: run `make man`");
    }
}
