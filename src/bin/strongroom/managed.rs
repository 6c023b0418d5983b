//! `strongroom key create`, `versions`, `rotate`, `state`, `destroy`: managed keys, which have an owner, an asset and versions.

use std::sync::Arc;

use serde_json::{Value, json};
use strongroom::keys::{ManagedKeys, Name, Passwords, State};
use strongroom::token::Session;

use crate::args::{
    KeyCreateOptions, KeyDestroyOptions, KeyRotateOptions, KeyStateOptions, KeyVersionsOptions, ManagedKey,
};
use crate::failure::Failure;
use crate::library;
use crate::output::{Output, table};
use crate::password;

/// Opens the token of a key; what is opened lives as long as the session is used.
pub fn open(
    config: Option<&str>,
    key: &ManagedKey,
) -> Result<(Arc<strongroom::token::Library>, Arc<Session>, Name), Failure> {
    let name = library::name(&key.owner, &key.asset)?;
    let library = library::open(config)?;
    let token = library::token(&library, &key.token)?;
    let session = library::user_session(&library, &token, &key.pin)?;
    Ok((library, session, name))
}

/// Reads JSON that the library made.
fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or(Value::Null)
}

/// Shows a field of JSON, without quotes; nothing for null.
fn shown(value: &Value, field: &str) -> String {
    match value.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

/// Shows a time of JSON as UTC.
fn time(value: &Value, field: &str) -> String {
    let seconds = value.get(field).and_then(Value::as_u64);
    seconds.map(utc).unwrap_or_default()
}

/// Writes seconds since 1970 as UTC.
pub fn utc(seconds: u64) -> String {
    let time = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(seconds));
    time.map(|time| humantime::format_rfc3339_seconds(time).to_string()).unwrap_or_default()
}

/// Runs `key create`.
pub fn create(config: Option<&str>, options: &KeyCreateOptions, output: &Output) -> Result<(), Failure> {
    let (_library, session, name) = open(config, &options.key)?;
    let keys = ManagedKeys::of(&session);
    match password::read_new(options.password_source.as_ref())? {
        Some(password) => keys.generate_with_password(&name, &password)?,
        None => keys.generate(&name)?,
    };
    tell(&keys, &name, "is ready", output)
}

/// Runs `key rotate`.
pub fn rotate(config: Option<&str>, options: &KeyRotateOptions, output: &Output) -> Result<(), Failure> {
    let (_library, session, name) = open(config, &options.key)?;
    let keys = ManagedKeys::of(&session);
    let old = password::read(options.old_password_source.as_ref())?;
    let new = password::read_new(options.new_password_source.as_ref())?;
    keys.rotate_with_passwords(&name, options.expected, Passwords { old: old.as_ref(), new: new.as_ref() })?;
    tell(&keys, &name, "is rotated", output)
}

/// Tells what a key is now.
fn tell(keys: &ManagedKeys<'_>, name: &Name, what: &str, output: &Output) -> Result<(), Failure> {
    let info = parsed(&keys.info(name)?);
    let address = shown(&info, "address");
    let address = if address.is_empty() { address } else { format!("\naddress {address}") };
    let (owner, asset, version) = (name.owner(), name.asset.name, shown(&info, "version"));
    let text = format!("the {asset} key of {owner} {what}: version {version}, id {}{address}", shown(&info, "id"));
    output.result(&text, &info)
}

/// Runs `key versions`.
pub fn versions(config: Option<&str>, options: &KeyVersionsOptions, output: &Output) -> Result<(), Failure> {
    let (_library, session, name) = open(config, &options.key)?;
    let list = parsed(&ManagedKeys::of(&session).list(&name)?);
    let heading = ["VERSION", "STATE", "CREATED", "NEXT ROTATION", "ROTATED", "PASSWORD", "ADDRESS", "UNIQUE ID"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for version in list.as_array().into_iter().flatten() {
        rows.push(vec![
            shown(version, "version"),
            shown(version, "state"),
            time(version, "created"),
            time(version, "next_rotation"),
            time(version, "rotated"),
            if version.get("password") == Some(&Value::Bool(true)) { "own".to_owned() } else { String::new() },
            shown(version, "address"),
            shown(version, "unique_id"),
        ]);
    }
    output.result(&table(&rows), &list)
}

/// Runs `key state`.
pub fn state(config: Option<&str>, options: &KeyStateOptions, output: &Output) -> Result<(), Failure> {
    let states = || Failure::Usage("--state must be active, rotated or disabled".to_owned());
    let state = State::named(&options.state).ok_or_else(states)?;
    let (_library, session, name) = open(config, &options.key)?;
    ManagedKeys::of(&session).set_state(&name, options.number, state)?;
    let (owner, asset, number) = (name.owner(), name.asset.name, options.number);
    let text = format!("version {number} of the {asset} key of {owner} is {} now", state.name());
    output.result(&text, &json!({ "owner": owner, "asset": asset, "version": number, "state": state.name() }))
}

/// Runs `key destroy`.
pub fn destroy(config: Option<&str>, options: &KeyDestroyOptions, output: &Output) -> Result<(), Failure> {
    let (_library, session, name) = open(config, &options.key)?;
    ManagedKeys::of(&session).destroy_version(&name, options.number, options.confirm.as_bytes())?;
    let (owner, asset, number) = (name.owner(), name.asset.name, options.number);
    let text = format!("version {number} of the {asset} key of {owner} is destroyed");
    output.result(&text, &json!({ "owner": owner, "asset": asset, "version": number, "destroyed": true }))
}
