//! The master key on a device: its versions, and by which algorithm it wraps.
//!
//! The rules are:
//! - all keys with the configured label are versions of the master key; those that rotation made carry their number in CKA_ID,
//!   and one with any other CKA_ID is version 1. The highest wraps; a blob names the one that unwraps it;
//! - a key that the device would hand out in the clear is no master key.

use cryptoki::error::Result as Pkcs11Result;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::super::no_randomness;
use super::super::remote::Hash;
use super::device::{Connection, ulong};
use super::fault::{Fail, Try, fail};
use super::name::{Class, Name};
use super::wrap::{ALGORITHMS, Algorithm};
use crate::error::KmsFault;

/// How the CKA_ID of a key that rotation made begins; its number in four bytes and eight random ones follow.
const ROTATED: [u8; 4] = *b"SRKV";
/// The length of such an id.
const ROTATED_LEN: usize = 16;
/// The length of a new AES key in bytes.
const AES_LEN: u32 = 32;
/// 65537, as every device takes it.
const EXPONENT: [u8; 3] = [1, 0, 1];

/// Which key, and how it shall wrap.
#[derive(Debug, Clone)]
pub struct Choice {
    /// CKA_LABEL of all versions.
    pub label: Option<String>,
    /// CKA_ID of one key, which has no versions then.
    pub id: Option<Vec<u8>>,
    /// The word of the settings; `auto` takes the first that fits.
    pub mechanism: String,
    /// The hash where RSA wraps.
    pub hash: Hash,
}

/// One version of the master key.
#[derive(Debug, Clone)]
pub struct Master {
    /// Its full name.
    pub name: Name,
    /// Its number.
    pub version: u32,
    /// Whether it is of RSA; of AES otherwise.
    rsa: bool,
    /// Which of encrypt, decrypt, wrap and unwrap it may do.
    uses: Uses,
    /// Whether the device would give it away in the clear.
    readable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Uses {
    encrypt: bool,
    decrypt: bool,
    wrap: bool,
    unwrap: bool,
}

impl Choice {
    /// Finds the version that wraps now.
    pub fn current(&self, device: &mut Connection) -> Try<Master> {
        let all = self.versions(device)?;
        let highest = all.iter().map(|master| master.version).max();
        let mut best: Vec<_> = all.into_iter().filter(|master| Some(master.version) == highest).collect();
        // Two processes may have rotated at once: each takes the same one of the two.
        best.sort_by(|one, other| one.name.id.cmp(&other.name.id));
        let ours = best.first().is_some_and(|master| number(&master.name.id).is_some());
        match (best.len(), best.into_iter().next()) {
            (1, Some(master)) => Ok(master),
            (_, Some(master)) if ours => Ok(master),
            (0, _) | (_, None) => Err(Fail::new(
                KmsFault::NotFound,
                format!("the token with serial {} has no AES key and no RSA private key {self}", device.serial),
            )),
            _ => Err(Fail::new(
                KmsFault::Failed,
                format!("the token has more than one key {self}; name one by key_id, or delete the others"),
            )),
        }
    }

    /// Tells whether there is a master key at all.
    pub fn is_some(&self) -> bool {
        self.label.is_some() || self.id.is_some()
    }

    /// Tells whether a key is a version of the master key. The serial of its token is left open: a copy of the key serves too.
    pub fn has(&self, name: &Name) -> bool {
        let label = self.label.as_ref().is_none_or(|label| label.as_bytes() == name.label);
        self.is_some() && label && self.id.as_ref().is_none_or(|id| *id == name.id)
    }

    /// Tells whether one of the versions is of RSA, with whose public half everybody can wrap.
    pub fn has_rsa(&self, device: &mut Connection) -> Try<bool> {
        Ok(self.versions(device)?.iter().any(|master| master.rsa))
    }

    /// Finds all versions. Where each is, is remembered anew: a device may have given the place of a deleted key to another.
    fn versions(&self, device: &mut Connection) -> Try<Vec<Master>> {
        if !self.is_some() {
            let text = "no master key is named (key or key_id), so nothing can be wrapped here: only keys on the token are used";
            return Err(Fail::new(KmsFault::Unsupported, text));
        }
        let mut wanted = Vec::new();
        wanted.extend(self.label.as_ref().map(|label| Attribute::Label(label.clone().into_bytes())));
        wanted.extend(self.id.as_ref().map(|id| Attribute::Id(id.clone())));
        let mut found = Vec::new();
        for (class, object) in [(Class::Secret, ObjectClass::SECRET_KEY), (Class::Private, ObjectClass::PRIVATE_KEY)] {
            let template = [&[Attribute::Class(object)], wanted.as_slice()].concat();
            for handle in device.find(&template)? {
                if let Some(master) = Master::read(device, class, handle)? {
                    device.remember(master.name.clone(), handle);
                    found.push(master);
                }
            }
        }
        Ok(found)
    }

    /// Tells how a master key wraps on this device.
    pub fn algorithm(&self, device: &Connection, master: &Master) -> Try<Algorithm> {
        if master.uses == Uses::default() {
            let text =
                format!("the master key `{}` is disabled: all its uses are switched off on the token", master.name);
            return Err(Fail::new(KmsFault::Disabled, text));
        }
        if master.readable {
            return Err(Fail::new(
                KmsFault::Failed,
                format!(
                    "the token would give the master key `{}` away in the clear; make one with CKA_SENSITIVE, without \
                     CKA_EXTRACTABLE",
                    master.name
                ),
            ));
        }
        self.candidates(master)
            .find(|algorithm| device.offers(algorithm.mechanism()) && master.permits(device, *algorithm))
            .ok_or_else(|| self.nothing_fits(master))
    }

    /// Lists the algorithms that the settings and the type of the key leave.
    fn candidates(&self, master: &Master) -> impl Iterator<Item = Algorithm> {
        let fitting = ALGORITHMS.iter().filter(|row| {
            let kind = match row.algorithm {
                Algorithm::Oaep(hash) => master.rsa && hash == self.hash,
                _ => !master.rsa,
            };
            kind && (self.mechanism == "auto" || self.mechanism == row.word)
        });
        fitting.map(|row| row.algorithm)
    }

    fn nothing_fits(&self, master: &Master) -> Fail {
        let names: Vec<_> = self.candidates(master).map(Algorithm::name).collect();
        let text = if names.is_empty() {
            format!("the mechanism `{}` does not fit the type of the master key `{}`", self.mechanism, master.name)
        } else {
            format!(
                "the master key `{}` cannot wrap by {}: the token lacks it, or the key lacks CKA_ENCRYPT and CKA_DECRYPT, or \
                 CKA_WRAP and CKA_UNWRAP",
                master.name,
                names.join(" or ")
            )
        };
        Fail::new(KmsFault::Unsupported, text)
    }

    /// Makes a new version: a key of the same kind with the same label.
    pub fn rotate(&self, device: &mut Connection) -> Try<Master> {
        let old = self.current(device)?;
        let Some(label) = self.label.as_ref().filter(|_| self.id.is_none()) else {
            let text =
                "key_id names one key, which has no versions; name the master key by its label (key) to rotate it";
            return Err(Fail::new(KmsFault::Unsupported, text));
        };
        let version =
            old.version.checked_add(1).ok_or_else(|| Fail::new(KmsFault::Failed, "the versions are used up"))?;
        let name = Name { id: rotated_id(version)?, label: label.clone().into_bytes(), ..old.name.clone() };
        let session = device.writable()?;
        let made = if old.rsa { make_rsa(&session, device, &old, &name) } else { make_aes(&session, &name) };
        made.map_err(|error| fail(error, format!("make the master key `{name}`")).for_good())?;
        Ok(Master { name, version, ..old })
    }
}

impl std::fmt::Display for Choice {
    /// Names the key as the settings do.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let label = self.label.as_ref().map(|label| format!("with the label `{}`", label.escape_debug()));
        let id = self.id.as_ref().map(|id| format!("with the id {}", data_encoding::HEXLOWER.encode(id)));
        match [label, id].into_iter().flatten().collect::<Vec<_>>() {
            none if none.is_empty() => f.write_str("without a name"),
            parts => f.write_str(&parts.join(" ")),
        }
    }
}

/// Makes an AES-256 key that never leaves the device.
fn make_aes(session: &Session, name: &Name) -> Pkcs11Result<()> {
    let template = [
        &private(name)[..],
        &[
            Attribute::ValueLen(ulong(AES_LEN)),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::Wrap(true),
            Attribute::Unwrap(true),
        ],
    ];
    session.generate_key(&Mechanism::AesKeyGen, &template.concat()).map(|_| ())
}

/// Makes an RSA key with a modulus as long as the old one's.
fn make_rsa(session: &Session, device: &mut Connection, old: &Master, name: &Name) -> Pkcs11Result<()> {
    let bits = modulus_bits(device, &old.name).unwrap_or(3072);
    let public = [
        Attribute::Token(true),
        Attribute::Label(name.label.clone()),
        Attribute::Id(name.id.clone()),
        Attribute::ModulusBits(ulong(bits)),
        Attribute::PublicExponent(EXPONENT.to_vec()),
        Attribute::Encrypt(true),
    ];
    let secret = [&private(name)[..], &[Attribute::Decrypt(true)]].concat();
    session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &secret).map(|_| ())
}

/// Tells how long the modulus of an RSA key is.
fn modulus_bits(device: &mut Connection, name: &Name) -> Option<u32> {
    let handle = device.handle(name).ok()?;
    match device.session.get_attributes(handle, &[AttributeType::Modulus]).ok()?.into_iter().next()? {
        Attribute::Modulus(modulus) => u32::try_from(modulus.len()).ok()?.checked_mul(8),
        _ => None,
    }
}

/// Gives the attributes of every key that is made to stay on the device.
pub fn private(name: &Name) -> [Attribute; 6] {
    [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Label(name.label.clone()),
        Attribute::Id(name.id.clone()),
    ]
}

/// Makes the CKA_ID of a version.
fn rotated_id(version: u32) -> Try<Vec<u8>> {
    let mut random = [0; ROTATED_LEN - 8];
    getrandom::fill(&mut random).map_err(no_randomness)?;
    Ok([&ROTATED[..], &version.to_be_bytes(), &random].concat())
}

/// Reads the version out of the CKA_ID of a key that rotation made.
fn number(id: &[u8]) -> Option<u32> {
    let version = id.strip_prefix(&ROTATED).filter(|_| id.len() == ROTATED_LEN)?.first_chunk()?;
    Some(u32::from_be_bytes(*version))
}

impl Master {
    /// Reads what a key is; `None` for one that is neither AES nor RSA.
    fn read(device: &Connection, class: Class, handle: ObjectHandle) -> Try<Option<Self>> {
        let wanted = [
            AttributeType::KeyType,
            AttributeType::Label,
            AttributeType::Id,
            AttributeType::Encrypt,
            AttributeType::Decrypt,
            AttributeType::Wrap,
            AttributeType::Unwrap,
            AttributeType::Sensitive,
            AttributeType::Extractable,
        ];
        let found =
            device.session.get_attributes(handle, &wanted).map_err(|error| fail(error, "read the master key"))?;
        let name = Name { serial: device.serial.clone(), label: Vec::new(), id: Vec::new(), class };
        let mut master = Self { name, version: 1, rsa: false, uses: Uses::default(), readable: false };
        let (mut kind, mut sensitive, mut extractable) = (None, true, false);
        for attribute in found {
            match attribute {
                Attribute::KeyType(found) => kind = Some(found),
                Attribute::Label(label) => master.name.label = label,
                Attribute::Id(id) => master.name.id = id,
                Attribute::Encrypt(may) => master.uses.encrypt = may,
                Attribute::Decrypt(may) => master.uses.decrypt = may,
                Attribute::Wrap(may) => master.uses.wrap = may,
                Attribute::Unwrap(may) => master.uses.unwrap = may,
                Attribute::Sensitive(is) => sensitive = is,
                Attribute::Extractable(is) => extractable = is,
                _ => {}
            }
        }
        master.version = number(&master.name.id).unwrap_or(1);
        master.readable = !sensitive && extractable;
        master.rsa = kind == Some(KeyType::RSA);
        Ok((master.rsa == (class == Class::Private) && (master.rsa || kind == Some(KeyType::AES))).then_some(master))
    }

    /// Tells whether the key's attributes permit an algorithm. What the public half of RSA may is the public object's.
    fn permits(&self, device: &Connection, algorithm: Algorithm) -> bool {
        let encrypts = self.uses.encrypt && self.uses.decrypt;
        match algorithm {
            Algorithm::Gcm => encrypts,
            Algorithm::Kw | Algorithm::KwPad => {
                (self.uses.wrap && self.uses.unwrap) || (encrypts && device.encrypts_by(algorithm.mechanism()))
            }
            Algorithm::Oaep(_) => self.uses.decrypt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_stands_in_the_id_of_a_rotated_key() {
        for version in [1, 2, 258, u32::MAX] {
            assert_eq!(number(&rotated_id(version).expect("randomness")), Some(version));
        }
        for other in
            [&b""[..], b"\x01", b"SRKV", b"SRKV\0\0\0\x02", b"SRKV\0\0\0\x02.........", b"srkv\0\0\0\x02........"]
        {
            assert_eq!(number(other), None);
        }
    }
}
