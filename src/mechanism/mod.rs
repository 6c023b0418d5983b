//! The mechanisms, by families, and the registry of their rows. A new family is one line in each of the lists below.

pub mod aes;
mod curve;
pub mod digest;
mod ec;
mod edwards;
pub mod generic;
pub mod hmac;
mod key;
mod kms;
mod mac;
mod mechanism;
mod montgomery;
mod remote;
mod rsa;
mod sealed;
mod signature;

use std::collections::HashMap;

pub use ec::{RECOVERABLE_LEN, sign_recoverable};
pub use key::{Key, KeyType};
pub use kms::MasterKeyService;
pub use mechanism::*;
pub use remote::{RemoteKey, RemoteKind, RemoteScheme, RemoteService, RemoteUse};
pub use sealed::{KeyVersions, Versions};

pub use crate::crypto::{InOut, random};

use crate::ck::*;
pub use crate::crypto::hash::Hash;
pub use crate::crypto::rsa::{EncryptionPadding, SignaturePadding};
use crate::error::{Kind, Result};
use crate::secret::Table;

/// The families' rows.
#[rustfmt::skip] // one line each, so that a new family is one new line
static FAMILIES: &[&[Mechanism]] = &[
    &digest::ROWS,
    &hmac::ROWS,
    &generic::ROWS,
    &aes::ROWS,
    rsa::ROWS,
    ec::ROWS,
    edwards::ROWS,
    montgomery::ROWS,
    kms::ROWS,
    sealed::ROWS,
];

/// The types of keys.
#[rustfmt::skip] // likewise
static KEY_TYPES: &[&[KeyType]] = &[
    &generic::KEY_TYPES,
    &aes::KEY_TYPES,
    &rsa::KEY_TYPES,
    &ec::KEY_TYPES,
    &edwards::KEY_TYPES,
    &montgomery::KEY_TYPES,
];

/// Every row, in ascending order of the numbers.
static SORTED: Table<Vec<&'static Mechanism>> = Table::new(|| {
    let mut rows: Vec<_> = FAMILIES.iter().copied().flatten().collect();
    rows.sort_by_key(|row| row.id);
    rows
});

/// The flags of all mechanisms that take keys of a type, by the type.
static USAGES: Table<HashMap<CK_KEY_TYPE, CK_FLAGS>> = Table::new(|| {
    let mut usages = HashMap::new();
    for row in all() {
        row.key_types.iter().for_each(|id| *usages.entry(*id).or_default() |= flags(row));
    }
    usages
});

/// Goes through every mechanism, in ascending order of their numbers.
pub fn all() -> impl Iterator<Item = &'static Mechanism> {
    SORTED.iter().copied()
}

/// Finds a mechanism.
pub fn find(id: CK_MECHANISM_TYPE) -> Option<&'static Mechanism> {
    let place = SORTED.binary_search_by_key(&id, |row| row.id).ok()?;
    SORTED.get(place).copied()
}

/// Tells the flags of a mechanism (`CK_MECHANISM_INFO`): those of its functions, and its own.
pub fn flags(row: &Mechanism) -> CK_FLAGS {
    let functions = [
        (row.digest.is_some(), CKF_DIGEST),
        (row.sign.is_some(), CKF_SIGN),
        (row.verify.is_some(), CKF_VERIFY),
        (row.encrypt.is_some(), CKF_ENCRYPT),
        (row.decrypt.is_some(), CKF_DECRYPT),
        (row.generate.is_some(), CKF_GENERATE),
        (row.generate_pair.is_some(), CKF_GENERATE_KEY_PAIR),
        (row.wrap.is_some(), CKF_WRAP),
        (row.unwrap.is_some(), CKF_UNWRAP),
        (row.derive.is_some(), CKF_DERIVE),
    ];
    functions.iter().filter(|function| function.0).fold(row.flags, |flags, function| flags | function.1)
}

/// Tells what keys of a type can do: the flags of all mechanisms that take them (`CKF_ENCRYPT`, `CKF_SIGN`, …).
pub fn usages(key_type: CK_KEY_TYPE) -> CK_FLAGS {
    USAGES.get(&key_type).copied().unwrap_or_default()
}

/// Names a mechanism as the standard does.
pub fn name(row: &Mechanism) -> String {
    mechanism_name(row.id)
}

/// Makes the `CKA_ID` of a key pair whose caller gave none: the SHA-1 of its public key, as most tools do.
///
/// # Errors
/// `FunctionFailed` when the library below fails.
pub fn default_id(public_key: &[u8]) -> Result<Vec<u8>> {
    Ok(Hash::Sha1.digest(public_key)?.to_vec())
}

/// Tells what a KMS calls a key with these attributes.
///
/// # Errors
/// `KeyTypeInconsistent` for a type that no KMS has.
pub fn remote_kind(attributes: &Attributes) -> Result<RemoteKind> {
    let row = key_type(attributes.require_ulong(CKA_KEY_TYPE)?).and_then(|row| row.remote_kind);
    row.map_or_else(|| Err(Kind::KeyTypeInconsistent.into()), |kind| kind(attributes))
}

/// Reads a public key: its type, and the attributes that both halves of a pair carry.
///
/// # Errors
/// `PublicKeyInvalid` for a `SubjectPublicKeyInfo` of no type that is supported.
pub fn public_parts(info: &[u8]) -> Result<(&'static KeyType, Attributes)> {
    let read = |row: &'static KeyType| Some((row, row.from_public_key_info?(info).ok()?));
    KEY_TYPES.iter().copied().flatten().find_map(read).ok_or_else(|| Kind::PublicKeyInvalid.into())
}

/// Finds a type of key.
pub fn key_type(id: CK_KEY_TYPE) -> Option<&'static KeyType> {
    KEY_TYPES.iter().copied().flatten().find(|row| row.id == id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions, clippy::panic)]
mod tests;
