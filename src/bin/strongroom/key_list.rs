//! `strongroom key list`: lists the keys of a token.

use serde_json::{Value, json};
use strongroom::ck::*;

use crate::args::KeyListOptions;
use crate::failure::Failure;
use crate::key_type;
use crate::library;
use crate::output::{Output, table};

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
        true => library::session(&library, token.slot)?,
        false => library::user_session(&library, &token, &options.pin)?,
    };
    let mut rows = vec![["LABEL", "TYPE", "CLASS", "ID", "UNIQUE ID"].map(str::to_owned).to_vec()];
    for (class, name) in CLASSES {
        let mut template = Attributes::new();
        template.set(CKA_CLASS, *class);
        for key in library::find(&session, template)? {
            let key = library::attributes(&session, key, SHOWN)?;
            let (label, id) = (library::text(&key, CKA_LABEL), library::hex(&key, CKA_ID));
            rows.push(vec![label, key_type::name(&key), (*name).to_owned(), id, library::text(&key, CKA_UNIQUE_ID)]);
        }
    }
    output.result(&table(&rows), &Value::Array(rows.iter().skip(1).map(|row| value(row)).collect()));
    Ok(())
}

/// Makes the JSON of one row.
fn value(row: &[String]) -> Value {
    match row {
        [label, kind, class, id, unique] => {
            json!({ "label": label, "type": kind, "class": class, "id": id, "unique_id": unique })
        }
        _ => Value::Null,
    }
}
