//! The full name of a key on a token, as a PKCS #11 URI (RFC 7512): `pkcs11:serial=…;object=…;type=…;id=…`.
//!
//! The rules are:
//! - label, id and type find the key; the serial says where it was, so that a copy of the token on another device serves too;
//! - the same key always has the same name: it is bound into what it wraps.

use std::fmt;

/// What a name begins with (RFC 7512, 2.3).
const SCHEME: &str = "pkcs11:";

/// The kind of the object that does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// CKO_PRIVATE_KEY.
    Private,
    /// CKO_SECRET_KEY.
    Secret,
}

impl Class {
    /// Names it as RFC 7512 does.
    const fn word(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Secret => "secret-key",
        }
    }
}

/// The name of one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    /// The serial number of the token (CK_TOKEN_INFO).
    pub serial: String,
    /// CKA_LABEL.
    pub label: Vec<u8>,
    /// CKA_ID.
    pub id: Vec<u8>,
    /// CKA_CLASS.
    pub class: Class,
}

impl Name {
    /// Reads a name; `None` for what is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(SCHEME)?.split(';').map(|part| part.split_once('='));
        let mut next = |wanted: &str| match parts.next()? {
            Some((name, value)) if name == wanted => decode(value),
            _ => None,
        };
        let (serial, label, class, id) = (next("serial")?, next("object")?, next("type")?, next("id")?);
        let class = [Class::Private, Class::Secret].into_iter().find(|known| known.word().as_bytes() == class)?;
        parts.next().is_none().then_some(())?;
        Some(Self { serial: String::from_utf8(serial).ok()?, label, id, class })
    }

    /// Gives the label for people to read.
    pub fn label(&self) -> String {
        String::from_utf8_lossy(&self.label).into_owned()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}serial=")?;
        encode(f, self.serial.as_bytes(), true)?;
        f.write_str(";object=")?;
        encode(f, &self.label, true)?;
        f.write_str(";type=")?;
        f.write_str(self.class.word())?;
        f.write_str(";id=")?;
        encode(f, &self.id, false)
    }
}

/// Writes bytes with percent signs: all, or all but what may stand for itself in every URI (RFC 3986, 2.3).
fn encode(f: &mut fmt::Formatter<'_>, bytes: &[u8], readable: bool) -> fmt::Result {
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' if readable => {
                write!(f, "{}", char::from(*byte))?;
            }
            other => write!(f, "%{other:02X}")?,
        }
    }
    Ok(())
}

/// Reads bytes with percent signs.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => (hex(bytes.next()?)? << 4) | hex(bytes.next()?)?,
            other => other,
        });
    }
    Some(decoded)
}

/// Reads a hexadecimal digit.
fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back() {
        for (label, id, class) in [
            (&b"wallet"[..], &b"\x01"[..], Class::Private),
            (b"", b"", Class::Secret),
            ("a;b=c%d \u{e9}".as_bytes(), b"\x00\xff;", Class::Secret),
        ] {
            let name = Name { serial: "0a 1b".to_owned(), label: label.to_vec(), id: id.to_vec(), class };
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
    }

    #[test]
    fn a_name_looks_as_rfc_7512_says() {
        let (serial, label, id) = ("6e9e".to_owned(), b"my key".to_vec(), vec![0x69, 0xab]);
        let name = Name { serial, label, id, class: Class::Private };
        assert_eq!(name.to_string(), "pkcs11:serial=6e9e;object=my%20key;type=private;id=%69%AB");
    }

    #[test]
    fn what_is_no_name_is_none() {
        for text in [
            "",
            "wallet",
            "pkcs11:",
            "pkcs11:serial=1;object=a;id=%0",
            "pkcs11:serial=1;object=a;type=private;id=%0",
            "pkcs11:serial=1;object=a;type=cert;id=%01",
            "pkcs11:serial=1;object=a;type=private;id=%01;x=y",
            "pkcs11:serial=%ff;object=a;type=private;id=%01",
        ] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
    }
}
