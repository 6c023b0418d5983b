//! How managed keys stand, for operators: in SR_GetStatus, and for the command.

use serde_json::{Value as Json, json};

use super::due::{Due, Outlook};
use super::managed::ManagedKeys;
use crate::token::{Library, Session};

/// How many keys of a token the status names at most; it counts all.
const NAMED: usize = 100;

/// Tells how the library stands, as a JSON object, and how the managed keys do of each token whose user is logged in.
pub fn status(library: &Library) -> String {
    let mut status: Json = serde_json::from_str(&library.status()).unwrap_or_default();
    if let Some(rotation) = status.get_mut("rotation").and_then(Json::as_object_mut) {
        let activity = library.attendant_status().and_then(|json| serde_json::from_str::<Json>(&json).ok());
        rotation.insert("activity".to_owned(), activity.unwrap_or_default());
        rotation.insert("tokens".to_owned(), library.users().iter().map(of_token).collect());
    }
    status.to_string()
}

/// Describes the managed keys of a token. What cannot be read is told in its place.
fn of_token(session: &Session) -> Json {
    let label = session.label().unwrap_or_default();
    match ManagedKeys::of(session).outlook(session.rules().warn_days()) {
        Ok(outlook) => of_outlook(&label, &outlook, session.now()),
        Err(error) => json!({ "label": label, "error": error.message() }),
    }
}

fn of_outlook(label: &str, outlook: &Outlook, now: u64) -> Json {
    let keys = outlook.due.iter().chain(&outlook.soon).take(NAMED).map(|due| due.describe(now));
    json!({
        "label": label,
        "managed": outlook.managed,
        "due": outlook.due.len(),
        "soon": outlook.soon.len(),
        "damaged": outlook.damaged.len(),
        "keys": keys.collect::<Vec<_>>(),
    })
}

impl Due {
    /// Describes the key as a JSON object.
    pub fn describe(&self, now: u64) -> Json {
        json!({
            "owner": self.name.owner(),
            "asset": self.name.asset.name,
            "version": self.version,
            "since": self.since,
            "days_left": self.days_left(now),
            "cause": self.cause.name(),
            "refused_from": self.refused_from,
            "automatic": self.automatic,
            "password": self.password,
        })
    }
}
