//! `strongroom rotate --due`: rotates what is due, for cron or a timer of systemd, and tells what soon will be.

use serde_json::{Value, json};
use strongroom::keys::{Cause, Due, ManagedKeys, Name, Report};

use crate::args::RotateOptions;
use crate::failure::Failure;
use crate::library;
use crate::managed::utc;
use crate::output::Output;

/// What the verb tells.
struct Told {
    report: Report,
    /// Keys that will be due soon.
    soon: Vec<Due>,
    now: u64,
}

/// Runs the verb. Keys that are due still, and those that soon will be for who asks, are failures of their own, after they were told.
pub fn run(config: Option<&str>, options: &RotateOptions, output: &Output) -> Result<(), Failure> {
    let library = library::open(config)?;
    let token = library::token(&library, &options.token)?;
    let session = library::user_session(&library, &token, &options.pin)?;
    let keys = ManagedKeys::of(&session);
    let days = options.warn_days.unwrap_or(session.rules().warn_days());
    let (report, soon) = match options.dry_run {
        true => {
            let outlook = keys.outlook(days)?;
            (Report { left: outlook.due, failed: outlook.damaged, ..Report::default() }, outlook.soon)
        }
        false => {
            let report = keys.rotate_due(options.at_most.unwrap_or(usize::MAX))?;
            // Looking ahead reads every key once more, which nobody may have asked for.
            let soon =
                options.warn_days.map_or(Ok(Vec::new()), |days| keys.outlook(days).map(|outlook| outlook.soon))?;
            (report, soon)
        }
    };
    let told = Told { report, soon, now: session.now() };
    output.result(&told.text(days), &told.value())?;
    match (&told.report, told.soon.is_empty() || options.warn_days.is_none()) {
        (report, _) if !report.left.is_empty() || !report.failed.is_empty() => Err(Failure::Due),
        (_, false) => Err(Failure::DueSoon),
        (_, true) => Ok(()),
    }
}

impl Told {
    fn text(&self, days: u64) -> String {
        let Report { rotated, left, failed } = &self.report;
        let soon = match self.soon.len() {
            0 => String::new(),
            count => format!(", {count} within {days} days"),
        };
        let mut lines = vec![format!("{} rotated, {} due, {} failed{soon}", rotated.len(), left.len(), failed.len())];
        lines.extend(rotated.iter().map(|(name, version)| format!("  rotated  {}: version {version}", of(name))));
        lines.extend(left.iter().map(|due| self.line("due ", "since", due)));
        lines.extend(failed.iter().map(|failed| {
            let name = failed.name.as_ref().map_or_else(|| "a key that cannot be read".to_owned(), of);
            format!("  failed   {name}: {}", failed.error)
        }));
        lines.extend(self.soon.iter().map(|due| self.line("soon", "from", due)));
        lines.join("\n")
    }

    fn line(&self, what: &str, when: &str, due: &Due) -> String {
        let by_name = match (due.password, due.automatic) {
            (true, _) => ", needs its password",
            (false, false) => ", to be rotated by name",
            (false, true) => "",
        };
        let cause = match due.cause {
            Cause::Age => "",
            Cause::Uses => ", by its uses",
            Cause::Clock => ", made by a clock that was ahead",
        };
        let refused = match due.refused_from {
            Some(from) if from <= self.now => format!(", makes nothing new since {}", utc(from)),
            _ => String::new(),
        };
        let (name, left) = (of(&due.name), days(due.days_left(self.now)));
        let version = due.version;
        format!("  {what}     {name}: version {version} {when} {} ({left}){cause}{by_name}{refused}", utc(due.since))
    }

    fn value(&self) -> Value {
        let Report { rotated, left, failed } = &self.report;
        let named =
            |name: Option<&Name>| json!({ "owner": name.map(Name::owner), "asset": name.map(|name| name.asset.name) });
        let with = |name: Option<&Name>, field: &str, value: Value| {
            let mut named = named(name);
            if let Value::Object(named) = &mut named {
                named.insert(field.to_owned(), value);
            }
            named
        };
        let due = |list: &[Due]| list.iter().map(|due| due.describe(self.now)).collect::<Vec<_>>();
        json!({
            "rotated": rotated.iter().map(|(name, version)| with(Some(name), "version", json!(version))).collect::<Vec<_>>(),
            "due": due(left),
            "failed": failed.iter().map(|failed| with(failed.name.as_ref(), "error", json!(failed.error.message()))).collect::<Vec<_>>(),
            "soon": due(&self.soon),
        })
    }
}

fn of(name: &Name) -> String {
    format!("{} key of {}", name.asset.name, name.owner().escape_debug())
}

/// Says when a key is due, in days.
pub fn days(left: i64) -> String {
    match left {
        0 => "today".to_owned(),
        1 => "in 1 day".to_owned(),
        2.. => format!("in {left} days"),
        -1 => "1 day ago".to_owned(),
        _ => format!("{} days ago", left.unsigned_abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_said_in_words() {
        let words = [-2, -1, 0, 1, 2].map(days);
        assert_eq!(words, ["2 days ago", "1 day ago", "today", "in 1 day", "in 2 days"]);
    }
}
