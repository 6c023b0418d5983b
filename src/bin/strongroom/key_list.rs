//! `strongroom key list`: lists the keys of a token.

use serde_json::{Value, json};
use strongroom::ck::*;
use strongroom::keys::ManagedKeys;

use crate::args::KeyListOptions;
use crate::failure::Failure;
use crate::key_type;
use crate::library;
use crate::output::{Output, table};
use crate::rotate;

/// What is read of each key.
const SHOWN: &[CK_ATTRIBUTE_TYPE] =
    &[CKA_LABEL, CKA_ID, CKA_UNIQUE_ID, CKA_KEY_TYPE, CKA_EC_PARAMS, CKA_MODULUS, CKA_VALUE_LEN];

/// The classes that are keys.
const CLASSES: &[(CK_OBJECT_CLASS, &str)] =
    &[(CKO_PRIVATE_KEY, "private"), (CKO_SECRET_KEY, "secret"), (CKO_PUBLIC_KEY, "public")];

/// Runs the verb.
pub fn run(config: Option<&str>, options: &KeyListOptions, output: &Output) -> Result<(), Failure> {
    let library = library::open(config)?;
    let token = library::token(&library, &options.token)?;
    let session = match options.public {
        true => library::session(&library, &token)?,
        false => library::user_session(&library, &token, &options.pin)?,
    };
    let mut rows = vec![["LABEL", "TYPE", "CLASS", "ID", "UNIQUE ID", "DUE"].map(str::to_owned).to_vec()];
    let (mut values, keys) = (Vec::new(), ManagedKeys::of(&session));
    for (class, name) in CLASSES {
        let mut template = Attributes::new();
        template.set(CKA_CLASS, *class);
        for handle in library::find(&session, template)? {
            let key = library::attributes(&session, handle, SHOWN)?;
            let left = keys.due_of(&session.all_attributes(handle)?)?.map(|due| due.days_left(session.now()));
            let row = vec![
                library::text(&key, CKA_LABEL),
                key_type::name(&key),
                (*name).to_owned(),
                library::hex(&key, CKA_ID),
                library::text(&key, CKA_UNIQUE_ID),
                left.map(rotate::days).unwrap_or_default(),
            ];
            values.push(value(&row, left));
            rows.push(row);
        }
    }
    output.result(&table(&rows), &Value::Array(values))
}

/// Makes the JSON of one row, and of the days until the key is due.
fn value(row: &[String], left: Option<i64>) -> Value {
    match row {
        [label, kind, class, id, unique, _] => {
            json!({ "label": label, "type": kind, "class": class, "id": id, "unique_id": unique, "days_left": left })
        }
        _ => Value::Null,
    }
}
