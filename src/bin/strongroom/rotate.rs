//! `strongroom rotate --due`: rotates what is due, for cron or a timer of systemd.

use serde_json::{Value, json};
use strongroom::keys::{Due, ManagedKeys, Name, Report};

use crate::args::RotateOptions;
use crate::failure::Failure;
use crate::library;
use crate::managed::utc;
use crate::output::Output;

/// Runs the verb. Keys that are due still are a failure of its own, after they were told.
pub fn run(config: Option<&str>, options: &RotateOptions, output: &Output) -> Result<(), Failure> {
    let library = library::open(config)?;
    let token = library::token(&library, &options.token)?;
    let session = library::user_session(&library, &token, &options.pin)?;
    let keys = ManagedKeys::of(&session);
    let report = match options.dry_run {
        true => Report { left: keys.due()?, ..Report::default() },
        false => keys.rotate_due(options.at_most.unwrap_or(usize::MAX))?,
    };
    output.result(&text(&report), &value(&report));
    match report.left.is_empty() && report.failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::Due),
    }
}

fn text(report: &Report) -> String {
    let mut lines =
        vec![format!("{} rotated, {} due, {} failed", report.rotated.len(), report.left.len(), report.failed.len())];
    lines.extend(report.rotated.iter().map(|(name, version)| format!("  rotated  {}: version {version}", of(name))));
    let why = |due: &Due| match (due.password, due.automatic) {
        (true, _) => ", needs its password",
        (false, false) => ", to be rotated by name",
        (false, true) => "",
    };
    let line = |due: &Due| {
        format!("  due      {}: version {} since {}{}", of(&due.name), due.version, utc(due.since), why(due))
    };
    lines.extend(report.left.iter().map(line));
    lines.extend(report.failed.iter().map(|failed| format!("  failed   {}: {}", of(&failed.name), failed.error)));
    lines.join("\n")
}

fn of(name: &Name) -> String {
    format!("{} key of {}", name.asset.name, name.owner().escape_debug())
}

fn value(report: &Report) -> Value {
    let named = |name: &Name, rest: Value| {
        let mut value = json!({ "owner": name.owner(), "asset": name.asset.name });
        if let (Value::Object(value), Value::Object(rest)) = (&mut value, rest) {
            value.extend(rest);
        }
        value
    };
    let due = |due: &Due| {
        named(
            &due.name,
            json!({ "version": due.version, "since": due.since, "automatic": due.automatic, "password": due.password }),
        )
    };
    json!({
        "rotated": report.rotated.iter().map(|(name, version)| named(name, json!({ "version": version }))).collect::<Vec<_>>(),
        "due": report.left.iter().map(due).collect::<Vec<_>>(),
        "failed": report.failed.iter().map(|failed| named(&failed.name, json!({ "error": failed.error.message() }))).collect::<Vec<_>>(),
    })
}
