//! Looks at the managed keys of a token: which are due, and which are too old to be used.

use strongroom::keys::{ManagedKeys, Outlook};
use strongroom::token::{Library, Session};

use super::report::Report;
use crate::failure::Failure;
use crate::library::{self, Token};

/// What is looked at.
const CHECK: &str = "rotation";

/// Looks at one token. Nobody needs to log in for what public keys tell; secret keys show after that only.
pub fn check(library: &Library, token: &Token, report: &mut Report) {
    match library::session(library, token).and_then(|session| outlook(&session)) {
        Ok((outlook, days, now)) => tell(&token.info.label, &outlook, days, now, report),
        Err(failure) => report.warn(CHECK, format!("\"{}\": {}", token.info.label, failure.message())),
    }
}

fn outlook(session: &Session) -> Result<(Outlook, u64, u64), Failure> {
    let (keys, days) = (ManagedKeys::of(session), session.rules().warn_days());
    let outlook = match session.is_user() {
        true => keys.outlook(days)?,
        false => keys.outlook_of_public_halves(days)?,
    };
    Ok((outlook, days, session.now()))
}

fn tell(label: &str, outlook: &Outlook, days: u64, now: u64, report: &mut Report) {
    let (managed, due, soon) = (outlook.managed, outlook.due.len(), outlook.soon.len());
    let refused = outlook.due.iter().filter(|due| due.refused_from.is_some_and(|from| from <= now)).count();
    let text = format!("\"{label}\": of {managed} managed keys {due} are due, {soon} will be within {days} days");
    let help = format!("`strongroom rotate --due --token {label}`");
    match () {
        () if !outlook.damaged.is_empty() => {
            let help = "`strongroom backup import … --replace` restores them";
            report.fail(CHECK, format!("{text}; {} cannot be read: {help}", outlook.damaged.len()));
        }
        () if managed == 0 => {}
        () if refused > 0 => {
            report.fail(CHECK, format!("{text}; {refused} make nothing new until they are rotated: {help}"));
        }
        () if due > 0 => report.warn(CHECK, format!("{text}; {help}")),
        () => report.ok(CHECK, text),
    }
}
