//! The canonical encoding of a record: the bytes that the chain goes over. `docs/format.md` has it as a table.

use super::event::{Event, KeyName, User};
use super::origin::Origin;
use crate::store::{Serial, Uid};

/// The version of the encoding.
const FORMAT: u8 = 1;
/// What stands for "no mechanism" (`CK_UNAVAILABLE_INFORMATION`).
const NO_MECHANISM: u64 = u64::MAX;
/// The longest detail in bytes.
const LONGEST_DETAIL: usize = 256;
/// The most keys that a record names.
const MOST_KEYS: usize = 64;

/// Which key signed a record: the id of a token key, or zeros when nobody did.
pub type SignerId = [u8; 8];
/// Nobody signed.
pub const UNSIGNED: SignerId = [0; 8];

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The token.
    pub token: Serial,
    /// The number in the token's trail, from 1; 0 for a record that the store did not take.
    pub sequence: u64,
    /// When, in milliseconds since 1970.
    pub time: u64,
    /// The process.
    pub origin: Origin,
    /// The session; 0 is none.
    pub session: u64,
    /// Who was logged in.
    pub user: User,
    /// Which token key signed it.
    pub signer: SignerId,
    /// What the operation answered.
    pub result: u64,
    /// The mechanism.
    pub mechanism: Option<u64>,
    /// The objects that it is about.
    pub keys: Vec<KeyName>,
    /// The function or operation.
    pub operation: String,
    /// Owner and asset of the managed key that it is about; both empty where it is about none.
    pub managed: [String; 2],
    /// More that is no secret.
    pub detail: String,
}

impl Record {
    /// Makes the record of an event that happens now.
    pub fn of(event: &Event, token: &Serial, sequence: u64, time: u64, signer: SignerId) -> Self {
        let mut detail = event.detail.clone();
        let cut = (0..=LONGEST_DETAIL).rev().find(|at| detail.is_char_boundary(*at)).unwrap_or(0);
        detail.truncate(cut);
        Self {
            token: *token,
            sequence,
            time,
            origin: Origin::here(),
            session: event.session,
            user: event.user,
            signer,
            result: event.result,
            mechanism: event.mechanism,
            keys: event.keys.iter().take(MOST_KEYS).copied().collect(),
            operation: event.operation.to_owned(),
            managed: event.managed.clone().unwrap_or_default().into(),
            detail,
        }
    }

    /// Encodes it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        out.extend_from_slice(&self.token);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.time.to_be_bytes());
        out.extend_from_slice(&self.origin.process.to_be_bytes());
        out.extend_from_slice(&self.origin.user.to_be_bytes());
        out.extend_from_slice(&self.session.to_be_bytes());
        out.push(code_of(self.user));
        out.extend_from_slice(&self.signer);
        out.extend_from_slice(&self.result.to_be_bytes());
        out.extend_from_slice(&self.mechanism.unwrap_or(NO_MECHANISM).to_be_bytes());
        out.push(u8::try_from(self.keys.len()).unwrap_or(u8::MAX));
        for key in &self.keys {
            out.extend_from_slice(&key.uid);
            out.extend_from_slice(&key.version.to_be_bytes());
        }
        let [owner, asset] = &self.managed;
        for text in [&self.operation, &self.origin.executable, owner, asset, &self.detail] {
            out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out
    }

    /// Decodes one; `None` for anything that [`Self::encode`] does not make.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let [FORMAT] = reader.array()? else { return None };
        let token = reader.array()?;
        let (sequence, time) = (reader.u64()?, reader.u64()?);
        let (process, user_id) = (reader.u32()?, reader.u32()?);
        let session = reader.u64()?;
        let [user] = reader.array()?;
        let signer = reader.array()?;
        let result = reader.u64()?;
        let mechanism = Some(reader.u64()?).filter(|id| *id != NO_MECHANISM);
        let [count] = reader.array()?;
        let keys = (0..count).map(|_| reader.key()).collect::<Option<_>>()?;
        let (operation, executable) = (reader.text()?, reader.text()?);
        let managed = [reader.text()?, reader.text()?];
        let detail = reader.text()?;
        let origin = Origin { process, user: user_id, executable };
        let user = user_of(user)?;
        reader.0.is_empty().then_some(Self {
            token,
            sequence,
            time,
            origin,
            session,
            user,
            signer,
            result,
            mechanism,
            keys,
            operation,
            managed,
            detail,
        })
    }

    /// Tells whether it is signed.
    pub fn is_signed(&self) -> bool {
        self.signer != UNSIGNED
    }
}

fn code_of(user: User) -> u8 {
    match user {
        User::Nobody => 0,
        User::So => 1,
        User::User => 2,
    }
}

fn user_of(code: u8) -> Option<User> {
    [User::Nobody, User::So, User::User].into_iter().find(|user| code_of(*user) == code)
}

/// Takes bytes from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn key(&mut self) -> Option<KeyName> {
        let uid: Uid = self.array()?;
        Some(KeyName { uid, version: self.u32()? })
    }

    fn text(&mut self) -> Option<String> {
        let len = usize::from(self.array().map(u16::from_be_bytes)?);
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        std::str::from_utf8(text).ok().map(str::to_owned)
    }
}
