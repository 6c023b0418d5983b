//! What stands in the document, part by part. `docs/format.md`, chapter 15, says what each field means.

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::store::{Serial, TokenRow};

/// The version of the format that is written, and the one that is read.
pub const VERSION: u64 = 1;
/// What the parts of the document start with.
pub(super) const FIRST: &str = "{\"strongroom_backup\":";
pub(super) const HEAD: &str = "\"head\":";
pub(super) const RECORDS: &str = "\"records\":[\n";
pub(super) const RECORDS_END: &str = "],\n";
pub(super) const END: &str = "\"end\":";

/// Bytes in base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map(Self).map_err(|_| serde::de::Error::custom("not base64"))
    }
}

/// So many bytes in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hex<const N: usize>(pub [u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&HEXLOWER.encode(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("not so many bytes in hexadecimal"))
    }
}

/// What a backup says of itself, for everybody to read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The version of the library that made it.
    pub library: String,
    /// `token`, `owner` or `key`.
    pub scope: String,
    /// The token.
    pub token: TokenPart,
    /// The KMS key that opens it.
    pub kms: KmsPart,
    /// What the configuration said of the token. It is told, and not restored.
    pub policy: PolicyPart,
    /// What opens it when the KMS or the PINs are lost.
    pub recovery: Vec<RecoveryPart>,
}

/// The token of a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenPart {
    /// Its serial number.
    pub serial: String,
    /// Its label.
    pub label: String,
    /// When it was initialised, in seconds since 1970.
    pub created: u64,
    /// The id of its token key.
    pub key: Hex<8>,
    /// Wrong SO PINs in a row.
    pub so_failures: u32,
    /// Wrong user PINs in a row.
    pub user_failures: u32,
    /// When the last wrong PIN was given, in milliseconds since 1970.
    pub last_failure: u64,
    /// The token key, sealed for the SO.
    pub so_envelope: Base64,
    /// The token key, sealed for the user.
    pub user_envelope: Option<Base64>,
}

/// A KMS key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KmsPart {
    /// The type of the provider.
    pub provider: String,
    /// The provider's name of the key.
    pub key: String,
    /// The provider's number of the version; 0 where versions have no numbers.
    pub version: u32,
}

/// What the configuration said of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyPart {
    /// `never`, `import` or `compat`.
    pub plaintext: String,
    /// Whether the token opens by itself.
    pub opens_itself: bool,
    /// Whether its keys live in a KMS.
    pub remote: bool,
    /// See `[rotation]`.
    pub rotation_interval_days: u64,
    /// See `[rotation]`.
    pub max_key_age_days: u64,
    /// See `[rotation]`.
    pub auto_rotate: bool,
}

/// A recovery envelope.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryPart {
    /// Its name.
    pub name: String,
    /// `password`, `kms` or `shares`.
    pub means: String,
    /// The KMS key, for `kms`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kms: Option<KmsPart>,
    /// The set, for `shares`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub set: Option<Hex<8>>,
    /// How many shares are needed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub threshold: Option<u8>,
    /// How many shares there are.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shares: Option<u8>,
    /// The envelope.
    pub envelope: Base64,
}

/// One object.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordPart {
    pub(super) uid: Hex<16>,
    pub(super) revision: u64,
    pub(super) attributes: Base64,
    pub(super) secret: Option<Base64>,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// How many records there are.
    pub records: u64,
    /// The SHA-256 of everything before.
    pub sha256: Hex<32>,
    /// The MAC of everything before.
    pub mac: Hex<32>,
}

impl Head {
    /// Reads the serial number.
    ///
    /// # Errors
    /// `DataInvalid` for what is none.
    pub fn serial(&self) -> Result<Serial> {
        let serial: Option<Serial> = self.token.serial.as_bytes().try_into().ok();
        let serial = serial.filter(|serial| serial.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F')));
        serial.ok_or_else(|| Error::new(Kind::DataInvalid, "the serial number of the backup is none"))
    }

    /// Makes the row of its token.
    ///
    /// # Errors
    /// As [`Self::serial`].
    pub fn row(&self) -> Result<TokenRow> {
        let token = &self.token;
        let row = TokenRow {
            serial: Serial::default(),
            slot: 0,
            label: token.label.clone(),
            revision: 1,
            created: token.created,
            so_envelope: token.so_envelope.0.clone(),
            user_envelope: token.user_envelope.as_ref().map(|envelope| envelope.0.clone()),
            so_failures: token.so_failures,
            user_failures: token.user_failures,
            last_failure: token.last_failure,
        };
        Ok(crate::token::row_of(self.serial()?, row))
    }
}

/// Writes the last line.
pub(super) fn end_line(end: &End) -> Result<String> {
    Ok(format!("{END}{}}}\n", json(end)?))
}

/// Writes a part.
pub(super) fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal(format!("JSON: {error}")))
}
