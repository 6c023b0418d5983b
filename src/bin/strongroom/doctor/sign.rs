//! Logs in, opens every object, and signs and verifies with a key that lasts as long as the session: proof that the token works from end
//! to end.

use std::time::Instant;

use strongroom::ck::*;
use strongroom::error::Error;
use strongroom::mechanism::Params;
use strongroom::token::{Library, Reply, Room, Session};

use super::report::Report;
use crate::args::DoctorOptions;
use crate::failure::Failure;
use crate::key_type::KeyType;
use crate::library::{self, Token};

/// What is signed.
const MESSAGE: &[u8] = b"strongroom doctor";
/// More than any ECDSA signature on P-256 needs, in bytes.
const SIGNATURE_ROOM: usize = 64;

/// Logs in, and looks at what only a login shows.
pub fn check(library: &Library, options: &DoctorOptions, report: &mut Report) {
    let opened = library::token(library, &options.token)
        .and_then(|token| Ok((library::user_session(library, &token, &options.pin)?, token)));
    let (session, token) = match opened {
        Ok(opened) => opened,
        Err(failure) => return report.fail("signature", failure.message()),
    };
    match sign_and_verify(&session, &token) {
        Ok(text) => report.ok("signature", text),
        Err(failure) => report.fail("signature", failure.message()),
    }
    check_objects(&session, report);
}

/// Opens every object of the token, secrets as well.
fn check_objects(session: &Session, report: &mut Report) {
    match session.check_objects() {
        Ok((count, damaged)) if damaged.is_empty() => report.ok("objects", format!("{count} objects open")),
        Ok((_, damaged)) => damaged.iter().for_each(|error| report.fail("objects", error.message())),
        Err(error) => report.fail("objects", error.message()),
    }
}

/// Makes a P-256 key for the session, signs and verifies, and checks that an altered message is refused.
fn sign_and_verify(session: &Session, token: &Token) -> Result<String, Failure> {
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
