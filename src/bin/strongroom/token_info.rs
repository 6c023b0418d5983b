//! `strongroom token info`: shows one token and the settings that the configuration gives it.

use serde_json::json;
use strongroom::config::Config;

use crate::args::Selector;
use crate::failure::Failure;
use crate::library;
use crate::output::{Output, table};

/// Runs the verb.
pub fn run(config: Option<&str>, selector: &Selector, output: &Output) -> Result<(), Failure> {
    let settings = Config::load(config)?;
    let library = library::open(config)?;
    let token = library::token(&library, selector)?;
    let settings = settings.token(&token.info.label);
    let rows = [
        ("label", token.info.label.clone()),
        ("serial", token.serial()),
        ("slot", token.slot.to_string()),
        ("manufacturer", token.info.manufacturer.clone()),
        ("model", token.info.model.clone()),
        ("user PIN", token.pin_state().to_owned()),
        ("KMS", settings.kms.clone()),
        ("plaintext policy", settings.plaintext.name().to_owned()),
        ("URI", uri(&token.info.label, &token.serial())),
    ];
    let value = json!({
        "label": token.info.label, "serial": token.serial(), "slot": token.slot, "manufacturer": token.info.manufacturer,
        "model": token.info.model, "user_pin": token.pin_state(), "flags": token.info.flags, "kms": settings.kms,
        "plaintext": settings.plaintext.name(), "uri": uri(&token.info.label, &token.serial()),
    });
    output.result(&table(&rows.map(|(name, value)| vec![name.to_owned(), value])), &value)
}

/// Makes the URI by which tools find the token (RFC 7512).
fn uri(label: &str, serial: &str) -> String {
    let mut encoded = String::new();
    for byte in label.bytes() {
        match char::from(byte) {
            plain if plain.is_ascii_alphanumeric() || "-_.~".contains(plain) => encoded.push(plain),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    format!("pkcs11:token={encoded};serial={serial}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r53_a_label_is_usable_in_a_uri() {
        assert_eq!(uri("my wallet;ä", "00AA"), "pkcs11:token=my%20wallet%3B%C3%A4;serial=00AA");
    }
}
