//! `strongroom key generate`: makes a key that never leaves the token.

use serde_json::json;
use strongroom::ck::*;
use strongroom::mechanism::Params;
use strongroom::token::Session;

use crate::args::KeyGenerateOptions;
use crate::failure::Failure;
use crate::key_type::{self, Recipe};
use crate::library;
use crate::output::Output;

/// Runs the verb.
pub fn run(config: Option<&str>, options: &KeyGenerateOptions, output: &Output) -> Result<(), Failure> {
    let library = library::open(config)?;
    let token = library::token(&library, &options.token)?;
    let session = library::user_session(&library, &token, &options.pin)?;
    refuse_taken(&session, &options.label)?;
    let key = generate(&session, &options.key_type.recipe(), &common(options))?;
    let ids = [
        CKA_LABEL,
        CKA_ID,
        CKA_UNIQUE_ID,
        CKA_KEY_TYPE,
        CKA_EC_PARAMS,
        CKA_MODULUS,
        CKA_VALUE_LEN,
        CKA_PUBLIC_KEY_INFO,
    ];
    let key = library::attributes(&session, key, &ids)?;
    let pem = key.bytes(CKA_PUBLIC_KEY_INFO).filter(|info| !info.is_empty()).map(library::public_key_pem);
    let (kind, id) = (key_type::name(&key), library::hex(&key, CKA_ID));
    let text = format!("{kind} key \"{}\" is ready: id {id}\n{}", options.label, pem.as_deref().unwrap_or_default());
    let value = json!({
        "label": options.label, "type": kind, "id": id, "unique_id": library::text(&key, CKA_UNIQUE_ID), "public_key": pem,
    });
    output.result(&text, &value)
}

/// Fails when a key of this label exists: what a label means must stay clear.
fn refuse_taken(session: &Session, label: &str) -> Result<(), Failure> {
    for class in [CKO_PRIVATE_KEY, CKO_SECRET_KEY] {
        let mut template = Attributes::new();
        template.set(CKA_CLASS, class);
        template.set(CKA_LABEL, label.as_bytes());
        let Some(taken) = library::find(session, template)?.first().copied() else { continue };
        let taken = library::attributes(session, taken, &[CKA_ID, CKA_UNIQUE_ID])?;
        let (id, unique) = (library::hex(&taken, CKA_ID), library::text(&taken, CKA_UNIQUE_ID));
        let text =
            format!("a key with the label \"{label}\" exists: id {id}, unique id {unique}; choose another label");
        return Err(Failure::Selector(text));
    }
    Ok(())
}

/// Makes what both halves of a key have.
fn common(options: &KeyGenerateOptions) -> Attributes {
    let mut common = Attributes::new();
    common.set(CKA_TOKEN, true);
    common.set(CKA_LABEL, options.label.as_bytes());
    if let Some(id) = &options.id {
        common.set(CKA_ID, id.0.as_slice());
    }
    common
}

/// Generates a key or a pair, and tells the handle of the secret half.
pub fn generate(session: &Session, recipe: &Recipe, common: &Attributes) -> Result<CK_OBJECT_HANDLE, Failure> {
    let call = library::call(recipe.mechanism, Params::None)?;
    if !recipe.is_pair() {
        return Ok(session.generate_key(call, recipe.first_template(common))?);
    }
    let (_, private) =
        session.generate_key_pair(call, recipe.first_template(common), recipe.private_template(common))?;
    Ok(private)
}
