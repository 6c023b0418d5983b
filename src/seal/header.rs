//! The header that every sealed blob starts with.

use data_encoding::HEXLOWER;
use smallvec::SmallVec;

use super::reader::Reader;
use crate::error::{Error, Result};

/// "Strongroom sealed blob".
pub const MAGIC: [u8; 4] = *b"SRSB";
/// The one format version that is known.
pub const FORMAT_VERSION: u8 = 1;
/// Bytes of magic, format version, kind and algorithm.
pub const START_LEN: usize = 7;

/// Header bytes, and what is authenticated with them, without an allocation at the usual sizes.
pub type Bytes = SmallVec<[u8; 128]>;

/// What a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobKind {
    /// A token key, sealed for one role.
    Envelope,
    /// Encrypted attributes of a private object.
    PrivateAttributes,
    /// Readable attributes of a public object, with checksum and tag.
    PublicAttributes,
    /// The secret of an object.
    Secret,
    /// A key that the KMS wrapped for a caller.
    KmsWrapped,
    /// The secret of a managed key under its owner's own password.
    PasswordSealed,
    /// What a Rust program sealed under a master key of its own.
    MasterSealed,
    /// A token key, sealed for the day on which KMS or PINs are lost.
    Recovery,
    /// The secret of a managed key under a data key of its own, which the KMS wraps.
    DataKeySealed,
}

/// Kind, its number, its algorithm's number, its name in messages.
const KINDS: [(BlobKind, u8, u8, &str); 9] = [
    (BlobKind::Envelope, 1, 1, "the sealed token key"),
    (BlobKind::PrivateAttributes, 2, 2, "a private object's sealed attributes"),
    (BlobKind::PublicAttributes, 3, 3, "a public object's attributes"),
    (BlobKind::Secret, 4, 2, "an object's sealed secret"),
    (BlobKind::KmsWrapped, 5, 1, "a key wrapped by the KMS"),
    (BlobKind::PasswordSealed, 6, 4, "a secret under its owner's password"),
    (BlobKind::MasterSealed, 7, 5, "a secret under a master key"),
    (BlobKind::Recovery, 8, 6, "the recovery envelope"),
    (BlobKind::DataKeySealed, 9, 7, "a secret under a data key of its own"),
];

impl BlobKind {
    /// Tells number, algorithm and name.
    fn row(self) -> (u8, u8, &'static str) {
        let row = KINDS.iter().find(|row| row.0 == self).expect("each kind has a row");
        (row.1, row.2, row.3)
    }

    /// Names the kind in messages.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Gives the bytes that a blob of this kind starts with.
    pub fn start(self) -> [u8; START_LEN] {
        let ([a, b, c, d], (kind, algorithm, _)) = (MAGIC, self.row());
        [a, b, c, d, FORMAT_VERSION, kind, algorithm]
    }
}

/// A header: the kind of the blob, and the key that sealed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header<'a> {
    /// What the blob is; it fixes the algorithm.
    pub kind: BlobKind,
    /// The version of the sealing key.
    pub key_version: u32,
    /// The name of the sealing key.
    pub key_id: &'a [u8],
}

impl<'a> Header<'a> {
    /// Encodes the header.
    ///
    /// # Errors
    /// `ArgumentsBad` for a key id of more than 65535 bytes.
    pub fn encode(&self) -> Result<Bytes> {
        let id_len = u16::try_from(self.key_id.len()).map_err(|_| Error::arguments_bad("a key id is too long"))?;
        let mut bytes = Bytes::from_slice(&self.kind.start());
        bytes.extend_from_slice(&self.key_version.to_be_bytes());
        bytes.extend_from_slice(&id_len.to_be_bytes());
        bytes.extend_from_slice(self.key_id);
        Ok(bytes)
    }

    /// Reads a header of any kind.
    ///
    /// # Errors
    /// `DeviceError` that names the magic, version, kind or algorithm that is unknown.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self> {
        let magic = reader.array()?;
        if *magic != MAGIC {
            return Err(unknown("magic", HEXLOWER.encode(magic), HEXLOWER.encode(&MAGIC)));
        }
        let version = reader.u8()?;
        if version != FORMAT_VERSION {
            return Err(unknown("format version", version, FORMAT_VERSION));
        }
        let number = reader.u8()?;
        let Some((kind, _, algorithm, name)) = KINDS.iter().find(|row| row.1 == number) else {
            return Err(unknown("blob kind", number, "1 to 9"));
        };
        reader.rename(name);
        let found = reader.u8()?;
        if found != *algorithm {
            return Err(unknown("algorithm", found, algorithm).context(name));
        }
        let key_version = reader.u32()?;
        let id_len = reader.u16()?;
        Ok(Self { kind: *kind, key_version, key_id: reader.bytes(usize::from(id_len))? })
    }

    /// Reads a header of one kind.
    ///
    /// # Errors
    /// As [`Self::parse`], and for another kind.
    pub fn parse_kind(reader: &mut Reader<'a>, kind: BlobKind) -> Result<Self> {
        let header = Self::parse(reader)?;
        if header.kind != kind {
            let text = format!("expected {}, and found {}", kind.name(), header.kind.name());
            return Err(Error::damaged("a sealed blob").context(text));
        }
        Ok(header)
    }
}

fn unknown(what: &str, found: impl std::fmt::Display, known: impl std::fmt::Display) -> Error {
    Error::device(format!(
        "a sealed blob has {what} {found}, and this library knows {known}: it was written by a newer version, which can read \
         it, or is damaged: run `strongroom doctor` and restore it from a backup"
    ))
}
