//! `strongroom token list`: lists the tokens.

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::library;
use crate::output::{Output, table};

/// Runs the verb.
pub fn run(config: Option<&str>, output: &Output) -> Result<(), Failure> {
    let library = library::open(config)?;
    let tokens = library::tokens(&library)?;
    let mut rows = vec![["LABEL", "SERIAL", "SLOT", "USER PIN"].map(str::to_owned).to_vec()];
    for token in &tokens {
        rows.push(vec![token.info.label.clone(), token.serial(), token.slot.to_string(), token.pin_state().to_owned()]);
    }
    let values: Vec<Value> = tokens
        .iter()
        .map(|token| {
            let info = &token.info;
            json!({ "label": info.label, "serial": token.serial(), "slot": token.slot, "user_pin": token.pin_state() })
        })
        .collect();
    if tokens.is_empty() {
        output.hint("there is no token yet; make one with `strongroom token init --label NAME`");
    }
    let text = if tokens.is_empty() { String::new() } else { table(&rows) };
    output.result(&text, &Value::Array(values))
}
