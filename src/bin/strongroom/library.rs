//! What the verbs share of the library: finding a token, logging in, finding objects and reading their attributes.

use std::collections::BTreeMap;
use std::sync::Arc;

use strongroom::abi::compose;
use strongroom::ck::*;
use strongroom::error::{Error, Kind};
use strongroom::keys::Name;
use strongroom::mechanism::{self, Params};
use strongroom::secret::SecureBytes;
use strongroom::token::{Answer, Call, Library, Session, TokenInfo};

use crate::args::{Selector, UserPin};
use crate::failure::Failure;

/// How many objects a find asks for at a time.
const BATCH: usize = 256;

/// A token and the slot that it is in.
pub struct Token {
    /// The slot.
    pub slot: CK_SLOT_ID,
    /// What the library says of it.
    pub info: TokenInfo,
}

impl Token {
    /// Tells the serial number as text.
    pub fn serial(&self) -> String {
        String::from_utf8_lossy(&self.info.serial).into_owned()
    }

    /// Tells whether a flag (`CKF_…`) is set.
    pub fn has(&self, flag: CK_FLAGS) -> bool {
        self.info.flags & flag != 0
    }

    /// Tells in words how the user PIN stands.
    pub fn pin_state(&self) -> &'static str {
        match () {
            () if !self.has(CKF_USER_PIN_INITIALIZED) => "not set",
            () if self.has(CKF_USER_PIN_LOCKED) => "locked",
            () if self.has(CKF_USER_PIN_FINAL_TRY) => "one try left",
            () if self.has(CKF_USER_PIN_COUNT_LOW) => "set, wrong tries so far",
            () => "set",
        }
    }
}

/// Opens the library in this process. A wrong configuration is a failure here, where an application has a library without slots.
pub fn open(config: Option<&str>) -> Result<Arc<Library>, Failure> {
    Ok(compose::library(config, true)?)
}

/// Lists the initialised tokens.
pub fn tokens(library: &Library) -> Result<Vec<Token>, Failure> {
    Ok(all(library)?.into_iter().filter(|token| token.has(CKF_TOKEN_INITIALIZED)).collect())
}

/// Finds the free slot.
pub fn free_slot(library: &Library) -> Result<CK_SLOT_ID, Failure> {
    let free = all(library)?.into_iter().find(|token| !token.has(CKF_TOKEN_INITIALIZED)).map(|token| token.slot);
    free.ok_or_else(|| {
        Failure::from(Error::new(Kind::TokenWriteProtected, "there is no free slot: the store is read-only"))
    })
}

/// Lists every slot's token, the free slot's too. A damaged one is left out, unless there is nothing else: `doctor` tells it.
fn all(library: &Library) -> Result<Vec<Token>, Failure> {
    let (mut tokens, mut fault) = (Vec::new(), None);
    for slot in library.slots(true)? {
        match library.token_info(slot) {
            Ok(info) => tokens.push(Token { slot, info }),
            Err(error) => fault = Some(error),
        }
    }
    match fault {
        Some(error) if !tokens.iter().any(|token| token.has(CKF_TOKEN_INITIALIZED)) => Err(error.into()),
        _ => Ok(tokens),
    }
}

/// Finds the one token that a selector means; none and more than one are failures that say what there is.
pub fn token(library: &Library, selector: &Selector) -> Result<Token, Failure> {
    let (label, serial) = (selector.token.as_deref(), selector.serial.as_deref());
    let fits = |token: &Token| {
        label.is_none_or(|label| label == token.info.label) && serial.is_none_or(|serial| serial == token.serial())
    };
    let (mut fitting, others): (Vec<_>, Vec<_>) = tokens(library)?.into_iter().partition(fits);
    match (fitting.len(), fitting.pop()) {
        (1, Some(token)) => Ok(token),
        (0, _) | (_, None) => Err(Failure::Selector(none_fits(&others))),
        (_, Some(last)) => {
            fitting.push(last);
            Err(Failure::Selector(format!("more than one token fits; name one by --serial:\n{}", lines(&fitting))))
        }
    }
}

/// Says that no token fits, and which there are.
fn none_fits(others: &[Token]) -> String {
    match others {
        [] => "there is no token yet; make one with `strongroom token init --label NAME`".to_owned(),
        _ => format!("no token fits; there is:\n{}", lines(others)),
    }
}

/// Lists tokens for a message.
fn lines(tokens: &[Token]) -> String {
    let line = |token: &Token| format!("  label {:?}, serial {}", token.info.label, token.serial());
    tokens.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Opens a session: a read-write one, unless the store can only be read.
pub fn session(library: &Library, token: &Token) -> Result<Arc<Session>, Failure> {
    let changes = if token.has(CKF_WRITE_PROTECTED) { 0 } else { CKF_RW_SESSION };
    let handle = library.open_session(token.slot, CKF_SERIAL_SESSION | changes)?;
    Ok(library.session(handle)?)
}

/// Logs in as a user (`CKU_…`).
pub fn login(session: &Session, user: CK_USER_TYPE, pin: SecureBytes) -> Result<(), Failure> {
    Ok(session.login(user, Some(pin))?)
}

/// Opens a read-write session with the user logged in; a token that has opened by itself asks for no PIN.
pub fn user_session(library: &Library, token: &Token, pin: &UserPin) -> Result<Arc<Session>, Failure> {
    let session = session(library, token)?;
    if !session.is_user() {
        login(&session, CKU_USER, pin.pin_source.read("User PIN")?)?;
    }
    Ok(session)
}

/// Names a managed key as the arguments do.
pub fn name(owner: &str, asset: &str) -> Result<Name, Failure> {
    Name::new(owner, asset).map_err(|error| Failure::Usage(error.message()))
}

/// Finds every object that a template fits.
pub fn find(session: &Session, template: Attributes) -> Result<Vec<CK_OBJECT_HANDLE>, Failure> {
    session.find_init(template)?;
    let mut found = Vec::new();
    loop {
        let batch = session.find(BATCH)?;
        if batch.is_empty() {
            break;
        }
        found.extend(batch);
    }
    session.find_final()?;
    Ok(found)
}

/// Reads attributes of an object; those that it has not, or does not reveal, are left out.
pub fn attributes(
    session: &Session,
    object: CK_OBJECT_HANDLE,
    ids: &[CK_ATTRIBUTE_TYPE],
) -> Result<Attributes, Failure> {
    let answers = session.attributes(object, ids)?;
    let known: BTreeMap<_, _> = ids.iter().copied().zip(answers).collect();
    let mut attributes = Attributes::new();
    for (id, answer) in known {
        if let Answer::Value(value) = answer {
            attributes.set(id, value);
        }
    }
    Ok(attributes)
}

/// Makes the call of a mechanism.
pub fn call(id: CK_MECHANISM_TYPE, params: Params) -> Result<Call, Failure> {
    let mechanism = mechanism::find(id).ok_or_else(|| Error::from(Kind::MechanismInvalid))?;
    Ok(Call { mechanism, params })
}

/// Makes the PEM text of a public key from its `CKA_PUBLIC_KEY_INFO` (RFC 7468, 13).
pub fn public_key_pem(info: &[u8]) -> String {
    let base64 = data_encoding::BASE64.encode(info);
    let mut pem = "-----BEGIN PUBLIC KEY-----\n".to_owned();
    for (index, letter) in base64.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            pem.push('\n');
        }
        pem.push(letter);
    }
    pem + "\n-----END PUBLIC KEY-----\n"
}

/// Shows text of an attribute.
pub fn text(attributes: &Attributes, id: CK_ATTRIBUTE_TYPE) -> String {
    String::from_utf8_lossy(attributes.bytes(id).unwrap_or_default()).into_owned()
}

/// Shows bytes of an attribute in hexadecimal.
pub fn hex(attributes: &Attributes, id: CK_ATTRIBUTE_TYPE) -> String {
    data_encoding::HEXLOWER.encode(attributes.bytes(id).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_has_lines_of_64() {
        let pem = public_key_pem(&[0; 91]);
        let lines: Vec<_> = pem.lines().collect();
        assert_eq!(lines.first(), Some(&"-----BEGIN PUBLIC KEY-----"));
        assert_eq!(lines.iter().map(|line| line.len()).collect::<Vec<_>>(), [26, 64, 60, 24]);
        assert!(!public_key_pem(&[0; 48]).contains("\n\n"));
    }
}
