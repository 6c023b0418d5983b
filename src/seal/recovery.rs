//! The recovery envelope: a token key, sealed once more for the day on which the KMS or the PINs are lost.
//!
//! The rules are:
//! - it opens by itself: neither the token's KMS nor a PIN of the token is needed;
//! - whatever opens it (a password, another KMS, or enough shares) gives a key of its own, which seals nothing else;
//! - all that stands in clear is authenticated, with the token's serial number and the name of the envelope;
//! - a password is never cheaper to guess than the default of Argon2id makes it: no KMS stands around it;
//! - nor does it cost more than any sane envelope does before anything is authenticated: an altered one must not take the machine down.

use super::aead::{self, Mismatch, Nonce, TAG_LEN, Tag};
use super::argon2::{Argon2Params, SALT_LEN};
use super::envelope::Sealer;
use super::header::{BlobKind, Header};
use super::reader::Reader;
use super::share::{SET_LEN, Share};
use super::token_key::TokenKey;
use crate::crypto::shamir;
use crate::error::{Error, Kind, Result};
use crate::kms::{Context, DataKey, KmsProvider, MasterKeyId, Wrapped};
use crate::secret::SecureBytes;

const KIND: BlobKind = BlobKind::Recovery;
/// What the KMS is told of the key of an envelope.
const PURPOSE: &str = "recovery";
/// The most memory and passes that a password may cost where the configuration does not have more itself: 1 GiB, 16 passes.
const MOST: (u32, u32) = (1024 * 1024, 16);
/// The length of the key that shares give.
const KEY_LEN: usize = 32;

/// Which recovery envelope: of which token, and under which name.
#[derive(Debug, Clone, Copy)]
pub struct RecoveryId<'a> {
    /// The serial number of the token, 16 characters.
    pub token: [u8; 16],
    /// The name that its maker gave it.
    pub name: &'a str,
}

/// What opens a recovery envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Means {
    /// A password.
    Password,
    /// A KMS: whoever it serves.
    Kms {
        /// The type of the provider.
        provider: String,
        /// Its master key.
        master_key: MasterKeyId,
    },
    /// So many shares of a set.
    Shares {
        /// The set.
        set: [u8; SET_LEN],
        /// How many are needed.
        threshold: u8,
        /// How many there are.
        count: u8,
    },
}

impl Means {
    /// Names the means in one word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Kms { .. } => "kms",
            Self::Shares { .. } => "shares",
        }
    }
}

/// Tells what opens a recovery envelope, without opening it.
///
/// # Errors
/// `DeviceError` for what is none, or of a form that this library does not know.
pub fn recovery_means(envelope: &[u8]) -> Result<Means> {
    Ok(match Envelope::parse(envelope)?.lock {
        Lock::Password { .. } => Means::Password,
        Lock::Kms { provider, wrapped } => Means::Kms { provider: provider.to_owned(), master_key: wrapped.master_key },
        Lock::Shares { set, threshold, count } => Means::Shares { set, threshold, count },
    })
}

impl Sealer {
    /// Seals a token key under a recovery password: one Argon2id.
    ///
    /// # Errors
    /// `HostMemory` when Argon2id finds too little memory.
    pub fn seal_by_password(&self, id: &RecoveryId<'_>, password: &SecureBytes, key: &TokenKey) -> Result<Vec<u8>> {
        let (least, own) = (Argon2Params::default(), self.argon2());
        let params = Argon2Params::new(
            own.memory_kib().max(least.memory_kib()),
            own.passes().max(least.passes()),
            own.lanes().max(least.lanes()),
        )?;
        let salt = aead::random()?;
        let master = params.derive(password, &salt)?;
        seal(id, &Lock::Password { params, salt }, master.expose(), key)
    }

    /// Seals a token key under a key that a KMS wraps: one KMS call.
    ///
    /// # Errors
    /// What the KMS answers.
    pub fn seal_by_kms(&self, id: &RecoveryId<'_>, provider: &dyn KmsProvider, key: &TokenKey) -> Result<Vec<u8>> {
        let DataKey { key: own, wrapped } = provider.generate_data_key(&context(&id.token)?)?;
        seal(id, &Lock::Kms { provider: provider.kind(), wrapped }, own.expose(), key)
    }

    /// Opens a recovery envelope by its password: one Argon2id.
    ///
    /// # Errors
    /// `PinIncorrect` for a wrong password; `DeviceError` for a damaged envelope, and one that costs too much; `HostMemory` as in sealing.
    pub fn open_by_password(&self, id: &RecoveryId<'_>, password: &SecureBytes, envelope: &[u8]) -> Result<TokenKey> {
        let parsed = Envelope::parse(envelope)?;
        let Lock::Password { params, salt } = &parsed.lock else { return Err(other_means("a password")) };
        check_cost(id, params, self.argon2())?;
        let master = params.derive(password, salt)?;
        let text = || format!("the password does not open the recovery envelope `{}`", id.name);
        parsed.open(id, master.expose())?.ok_or_else(|| Error::new(Kind::PinIncorrect, text()))
    }

    /// Opens a recovery envelope by the KMS that it names: one KMS call.
    ///
    /// # Errors
    /// What the KMS answers; `DeviceError` for a damaged envelope, and for one that a KMS does not open.
    pub fn open_by_kms(&self, id: &RecoveryId<'_>, envelope: &[u8]) -> Result<TokenKey> {
        let parsed = Envelope::parse(envelope)?;
        let Lock::Kms { provider, wrapped } = &parsed.lock else { return Err(other_means("a KMS")) };
        let own = self.unwrap(KIND.name(), provider, wrapped, &context(&id.token)?)?;
        parsed.open(id, own.expose())?.ok_or_else(|| damaged(id))
    }
}

/// Seals a token key under a new key, and splits that into shares.
///
/// # Errors
/// `ArgumentsBad` unless 2 ≤ `threshold` ≤ `count`; `DeviceError` when the system has no randomness.
pub fn seal_by_shares(id: &RecoveryId<'_>, key: &TokenKey, threshold: u8, count: u8) -> Result<(Vec<u8>, Vec<Share>)> {
    let own = SecureBytes::try_with(KEY_LEN, getrandom::fill).map_err(aead::no_randomness)?;
    let values = shamir::split(&own, threshold, count)?;
    let set = aead::random()?;
    let envelope = seal(id, &Lock::Shares { set, threshold, count }, own.expose(), key)?;
    let share = |(value, index)| Share { set, threshold, index, value };
    Ok((envelope, values.into_iter().zip(1..=count).map(share).collect()))
}

/// Refuses a cost that no envelope has which was made with this configuration, or a sane one: nothing has authenticated it yet.
fn check_cost(id: &RecoveryId<'_>, params: &Argon2Params, own: Argon2Params) -> Result<()> {
    let (memory, passes) = (MOST.0.max(own.memory_kib()), MOST.1.max(own.passes()));
    match params.memory_kib() <= memory && params.passes() <= passes {
        true => Ok(()),
        false => Err(Error::device(format!(
            "the recovery envelope `{}` asks for Argon2id with {} MiB and {} passes, and at most {} MiB and {passes} passes are taken: it is \
             damaged or was altered; if it was made so, configure as much in [argon2]",
            id.name.escape_debug(),
            params.memory_kib() / 1024,
            params.passes(),
            memory / 1024
        ))),
    }
}

/// Opens a recovery envelope by shares.
///
/// # Errors
/// `ArgumentsBad` for shares of another set, too few of them, or one twice; `PinIncorrect` when they do not open it.
pub fn open_by_shares(id: &RecoveryId<'_>, shares: &[Share], envelope: &[u8]) -> Result<TokenKey> {
    let parsed = Envelope::parse(envelope)?;
    let Lock::Shares { set, threshold, .. } = &parsed.lock else { return Err(other_means("shares")) };
    check_shares(shares, set, *threshold)?;
    let numbered: Vec<_> = shares.iter().map(|share| (share.index, &share.value)).collect();
    let own = shamir::combine(&numbered)?;
    let wrong = || {
        let text =
            format!("the shares do not open the recovery envelope `{}`: one of them is not what was made", id.name);
        Error::new(Kind::PinIncorrect, text)
    };
    parsed.open(id, own.expose())?.ok_or_else(wrong)
}

/// Checks that shares are of a set, and enough.
fn check_shares(shares: &[Share], set: &[u8; SET_LEN], threshold: u8) -> Result<()> {
    if let Some(stranger) = shares.iter().find(|share| share.set != *set) {
        return Err(Error::arguments_bad(format!(
            "{stranger} belongs to another set than {}; its envelope was replaced, or it is of another token",
            super::share::set_text(set)
        )));
    }
    match shares.len() < usize::from(threshold) {
        false => Ok(()),
        true => Err(Error::arguments_bad(format!(
            "{} shares are too few: {threshold} of set {} are needed",
            shares.len(),
            super::share::set_text(set)
        ))),
    }
}

fn other_means(what: &str) -> Error {
    Error::internal(format!("a recovery envelope of other means was to be opened by {what}"))
}

fn damaged(id: &RecoveryId<'_>) -> Error {
    Error::damaged(format!("{} `{}`", KIND.name(), id.name.escape_debug()))
}

/// Tells the KMS what the key of an envelope is for.
fn context(token: &[u8; 16]) -> Result<Context<'_>> {
    let token = std::str::from_utf8(token).map_err(|_| Error::internal("a token serial is not text"))?;
    Ok(Context { token, purpose: PURPOSE })
}

/// What the key of an envelope comes from.
enum Lock<'a> {
    Password { params: Argon2Params, salt: [u8; SALT_LEN] },
    Kms { provider: &'a str, wrapped: Wrapped },
    Shares { set: [u8; SET_LEN], threshold: u8, count: u8 },
}

impl<'a> Lock<'a> {
    /// Encodes everything up to the nonce.
    fn encode(&self) -> Result<Vec<u8>> {
        let too_long = |_| Error::device("the KMS answered with a name or blob that is too long");
        let (key_id, key_version): (&[u8], u32) = match self {
            Self::Password { .. } => (&[], 0),
            Self::Kms { wrapped, .. } => (wrapped.master_key.key.as_bytes(), wrapped.master_key.version),
            Self::Shares { set, .. } => (set, 0),
        };
        let mut bytes = Header { kind: KIND, key_version, key_id }.encode()?.to_vec();
        match self {
            Self::Password { params, salt } => {
                bytes.push(1);
                for number in [params.memory_kib(), params.passes(), params.lanes()] {
                    bytes.extend_from_slice(&number.to_be_bytes());
                }
                bytes.extend_from_slice(salt);
            }
            Self::Kms { provider, wrapped } => {
                bytes.extend_from_slice(&[2, u8::try_from(provider.len()).map_err(too_long)?]);
                bytes.extend_from_slice(provider.as_bytes());
                bytes.extend_from_slice(&u32::try_from(wrapped.blob.len()).map_err(too_long)?.to_be_bytes());
                bytes.extend_from_slice(&wrapped.blob);
            }
            Self::Shares { threshold, count, .. } => bytes.extend_from_slice(&[3, *threshold, *count]),
        }
        Ok(bytes)
    }

    fn parse(reader: &mut Reader<'a>) -> Result<Self> {
        let unreadable = || Error::damaged(KIND.name());
        let header = Header::parse_kind(reader, KIND)?;
        match reader.u8()? {
            1 => {
                let params = Argon2Params::new(reader.u32()?, reader.u32()?, reader.u32()?);
                Ok(Self::Password {
                    params: params.map_err(|error| unreadable().caused_by(error))?,
                    salt: *reader.array()?,
                })
            }
            2 => {
                let len = reader.u8()?;
                let provider = reader.text(usize::from(len))?;
                let len = usize::try_from(reader.u32()?).map_err(|_| unreadable())?;
                let key = std::str::from_utf8(header.key_id).map_err(|_| unreadable())?.to_owned();
                let master_key = MasterKeyId { key, version: header.key_version };
                Ok(Self::Kms { provider, wrapped: Wrapped { master_key, blob: reader.bytes(len)?.to_vec() } })
            }
            3 => {
                let set = header.key_id.try_into().map_err(|_| unreadable())?;
                Ok(Self::Shares { set, threshold: reader.u8()?, count: reader.u8()? })
            }
            other => Err(Error::device(format!(
                "{} is of form {other}, and this library knows 1 to 3: it was made by a newer version, which opens it",
                KIND.name()
            ))),
        }
    }
}

/// A recovery envelope, taken apart.
struct Envelope<'a> {
    lock: Lock<'a>,
    /// Everything up to the nonce.
    clear: &'a [u8],
    nonce: Nonce,
    sealed: [u8; TokenKey::LEN],
    tag: Tag,
}

impl<'a> Envelope<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, KIND.name());
        let lock = Lock::parse(&mut reader)?;
        let (nonce, sealed, tag): (Nonce, [u8; TokenKey::LEN], Tag) =
            (*reader.array()?, *reader.array()?, *reader.array()?);
        reader.finish()?;
        let clear = bytes.len().saturating_sub(nonce.len() + sealed.len() + TAG_LEN);
        let clear = bytes.get(..clear).ok_or_else(|| Error::damaged(KIND.name()))?;
        Ok(Self { lock, clear, nonce, sealed, tag })
    }

    /// Opens with the key of the envelope; `None` when that is another one.
    fn open(&self, id: &RecoveryId<'_>, own: &[u8]) -> Result<Option<TokenKey>> {
        if own.len() != KEY_LEN {
            return Ok(None);
        }
        let bound = bound(id, self.clear)?;
        let key = SecureBytes::try_with(TokenKey::LEN, |key| {
            aead::open(own, &self.nonce, &bound, &self.sealed, &self.tag, key)
        });
        match key {
            Ok(key) => TokenKey::from_bytes(key).map(Some),
            Err(Mismatch) => Ok(None),
        }
    }
}

/// Seals under the key of the envelope.
fn seal(id: &RecoveryId<'_>, lock: &Lock<'_>, own: &[u8], key: &TokenKey) -> Result<Vec<u8>> {
    let mut envelope = lock.encode()?;
    let (nonce, mut sealed): (Nonce, _) = (aead::random()?, [0; TokenKey::LEN]);
    let tag = aead::seal(own, &nonce, &bound(id, &envelope)?, key.expose(), &mut sealed)?;
    for part in [&nonce[..], &sealed, &tag] {
        envelope.extend_from_slice(part);
    }
    Ok(envelope)
}

/// Puts together what is authenticated: what stands in clear, the serial number of the token, the name.
fn bound(id: &RecoveryId<'_>, clear: &[u8]) -> Result<Vec<u8>> {
    let len = u16::try_from(id.name.len()).map_err(|_| Error::arguments_bad("the name of the recovery is too long"))?;
    Ok([clear, &id.token, &len.to_be_bytes(), id.name.as_bytes()].concat())
}
