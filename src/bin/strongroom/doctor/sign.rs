//! Signs and verifies with a key that lasts as long as the session: proof that the token works from end to end.

use std::time::Instant;

use strongroom::ck::*;
use strongroom::error::Error;
use strongroom::mechanism::Params;
use strongroom::token::{Library, Reply, Room};

use crate::args::DoctorOptions;
use crate::failure::Failure;
use crate::key_type::KeyType;
use crate::library;

/// What is signed.
const MESSAGE: &[u8] = b"strongroom doctor";
/// More than any ECDSA signature on P-256 needs, in bytes.
const SIGNATURE_ROOM: usize = 64;

/// Logs in, makes a P-256 key for the session, signs and verifies, and checks that an altered message is refused.
pub fn sign_and_verify(library: &Library, options: &DoctorOptions) -> Result<String, Failure> {
    let token = library::token(library, &options.token)?;
    let session = library::user_session(library, &token, &options.pin)?;
    let (recipe, mut common) = (KeyType::P256.recipe(), Attributes::new());
    common.set(CKA_TOKEN, false);
    let call = library::call(recipe.mechanism, Params::None)?;
    let templates = (recipe.first_template(&common), recipe.private_template(&common));
    let (public, private) = session.generate_key_pair(call, templates.0, templates.1)?;
    let start = Instant::now();
    session.sign_init(Some(library::call(CKM_ECDSA_SHA256, Params::None)?), private)?;
    let signature = match session.sign(MESSAGE, Room::Bytes(SIGNATURE_ROOM))? {
        Reply::Bytes(signature) => signature,
        _ => return Err(Error::internal("C_Sign gave no signature").into()),
    };
    let micros = start.elapsed().as_micros();
    session.verify_init(Some(library::call(CKM_ECDSA_SHA256, Params::None)?), public)?;
    session.verify(MESSAGE, &signature)?;
    session.verify_init(Some(library::call(CKM_ECDSA_SHA256, Params::None)?), public)?;
    if session.verify(b"another message", &signature).is_ok() {
        return Err(Error::internal("the signature verifies another message too").into());
    }
    Ok(format!("token \"{}\" signed with a new P-256 key in {micros} µs, and the signature verifies", token.info.label))
}
