//! `strongroom key password`, `reset-tries` and `test`: managed keys with their owner's own password.

use serde_json::json;
use strongroom::ck::*;
use strongroom::error::{Error, Kind};
use strongroom::keys::{ManagedKeys, Name, Version};
use strongroom::mechanism::{InOut, Params};
use strongroom::secret::SecureBytes;
use strongroom::token::{Reply, Room, Session};

use crate::args::{KeyPasswordOptions, KeyResetOptions, KeyTestOptions};
use crate::failure::Failure;
use crate::library;
use crate::managed::open;
use crate::output::Output;
use crate::pin::PinSource;

/// What a key's password is called.
const NAME: &str = "password of the key";
/// What is signed or encrypted: as long as a digest, which some mechanisms want.
const MESSAGE: &[u8; 32] = b"strongroom key test: 32 bytes...";
/// More than any signature, and than what a cipher adds, in bytes.
const ROOM: usize = 1024;

/// Reads the password that a key is to have, if it is to have one.
pub fn read_new(source: Option<&PinSource>) -> Result<Option<SecureBytes>, Failure> {
    source.map(|source| source.read_new(NAME)).transpose()
}

/// Reads the password that a key has, if one is given.
pub fn read(source: Option<&PinSource>) -> Result<Option<SecureBytes>, Failure> {
    source.map(|source| source.read("Password of the key")).transpose()
}

/// Runs `key password`.
pub fn change(config: Option<&str>, options: &KeyPasswordOptions, output: &Output) -> Result<(), Failure> {
    let (_library, session, name) = open(config, &options.key)?;
    let old = options.old_password_source.read("Old password of the key")?;
    let new = options.new_password_source.read_new(NAME)?;
    let left = ManagedKeys::of(&session).change_password(&name, &old, &new)?;
    let rest = match left {
        0 => String::new(),
        left => format!("; {left} older versions stay under another one"),
    };
    let value =
        json!({ "owner": name.owner(), "asset": name.asset.name, "changed": true, "versions_under_another": left });
    output.result(&format!("the {name} has a new password{rest}"), &value)
}

/// Runs `key reset-tries`.
pub fn reset(config: Option<&str>, options: &KeyResetOptions, output: &Output) -> Result<(), Failure> {
    let name = library::name(&options.owner, &options.asset)?;
    let library = library::open(config)?;
    let token = library::token(&library, &options.token)?;
    let session = library::session(&library, &token)?;
    library::login(&session, CKU_SO, options.so_pin_source.read("SO PIN")?)?;
    ManagedKeys::of(&session).reset_tries(&name)?;
    let value = json!({ "owner": name.owner(), "asset": name.asset.name, "reset": true });
    output.result(&format!("the password of the {name} can be tried again"), &value)
}

/// Runs `key test`.
pub fn test(config: Option<&str>, options: &KeyTestOptions, output: &Output) -> Result<(), Failure> {
    let (_library, session, name) = open(config, &options.key)?;
    let keys = ManagedKeys::of(&session);
    let version = keys.version(&name, options.number)?;
    match (version.has_password(), read(options.password_source.as_ref())?) {
        (true, Some(password)) => drop(keys.unlock(&name, version.number, &password, 0)?),
        (true, None) => {
            let text = format!("the {name} has a password of its own: say where it comes from (--password-source)");
            return Err(Failure::Usage(text));
        }
        (false, Some(_)) => return Err(Failure::Usage(format!("the {name} has no password of its own"))),
        (false, None) => {}
    }
    let done = try_key(&session, &name, &version)?;
    let value = json!({
        "owner": name.owner(), "asset": name.asset.name, "version": version.number, "password": version.has_password(),
        "test": done,
    });
    output.result(&format!("version {} of the {name} {done}", version.number), &value)
}

/// Uses a version once, and checks what came of it.
fn try_key(session: &Session, name: &Name, version: &Version) -> Result<&'static str, Failure> {
    let handle = version.handle;
    let row = match version.attributes.ulong(CKA_KEY_TYPE) {
        Some(CKK_AES) => return try_cipher(session, handle).map(|()| "encrypts, and decrypts what it encrypted"),
        Some(CKK_RSA) => CKM_SHA256_RSA_PKCS,
        Some(CKK_EC_EDWARDS) => CKM_EDDSA,
        _ => CKM_ECDSA,
    };
    let mut template = Attributes::new();
    template.set(CKA_CLASS, CKO_PUBLIC_KEY);
    template.set(CKA_SR_OWNER, name.owner().as_bytes());
    template.set(CKA_SR_ASSET, name.asset.name.as_bytes());
    template.set(CKA_SR_VERSION, version.number);
    let public = library::find(session, template)?;
    let public = *public.first().ok_or_else(|| Error::new(Kind::KeyHandleInvalid, "the public half is not there"))?;
    session.sign_init(Some(library::call(row, Params::None)?), handle)?;
    let Reply::Bytes(signature) = session.sign(MESSAGE, Room::Bytes(ROOM))? else {
        return Err(Error::internal("C_Sign gave no signature").into());
    };
    session.verify_init(Some(library::call(row, Params::None)?), public)?;
    session.verify(MESSAGE, &signature)?;
    Ok("signs, and the signature verifies")
}

fn try_cipher(session: &Session, handle: CK_OBJECT_HANDLE) -> Result<(), Failure> {
    let (mut sealed, mut opened) = ([0; ROOM], [0; ROOM]);
    session.encrypt_init(Some(library::call(CKM_SR_SEALED, Params::None)?), handle)?;
    let len = written(session.encrypt(InOut::from_slices(MESSAGE, &mut sealed), false)?)?;
    session.decrypt_init(Some(library::call(CKM_SR_SEALED, Params::None)?), handle)?;
    let len = written(session.decrypt(InOut::from_slices(sealed.get(..len).unwrap_or_default(), &mut opened), false)?)?;
    match opened.get(..len) == Some(MESSAGE) {
        true => Ok(()),
        false => Err(Error::internal("what was encrypted decrypts to something else").into()),
    }
}

fn written(reply: Reply) -> Result<usize, Failure> {
    match reply {
        Reply::Written(len) => Ok(len),
        _ => Err(Error::internal("a cipher gave no output").into()),
    }
}
