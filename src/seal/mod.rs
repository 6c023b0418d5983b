//! The hierarchy of keys: how a token key and the objects below it are sealed at rest.
//!
//! ```text
//! password ──Argon2id──► MasterKey ──AES-256-GCM──► sealed token key ──AES-256-GCM under the outer key──► envelope
//! KMS master key ──wrap──► outer key of the token
//! token key ──HKDF-SHA256(object uid, purpose)──► object key ──AES-256-GCM──► sealed object
//! owner's password ──Argon2id──► MasterKey ──AES-256-GCM──► the secret of a sealed object, where a managed key has one
//! KMS master key ──wrap──► data key of one object ──AES-256-GCM──► the secret, or the above, where the KMS has `scope = "key"`
//! ```
//!
//! The rules are:
//! - every blob starts with a versioned [`header`], and what is unknown there is an error that names it;
//! - the KMS layer is the outer one: nothing of an envelope can be tried with a password before the KMS has opened it;
//! - all that stands beside a ciphertext is authenticated with it: header, token serial, uid, revision, attributes;
//! - a sealing key belongs to one object and one purpose, and the revision bounds how often it is used.
//!
//! `docs/format.md` has every format byte by byte.

mod aead;
mod argon2;
mod backup;
mod data_key;
mod engine;
mod envelope;
mod header;
mod index;
mod kms_blob;
mod object;
mod password;
mod reader;
mod recovery;
mod share;
mod token_key;

pub use argon2::Argon2Params;
pub use backup::{BackupMac, Opened, moved_uid, token_key_id};
pub use data_key::{DataKeyId, DataKeys, ObjectKey, WrappedBy, data_key_of};
pub use engine::EncryptionEngine;
pub use envelope::{EnvelopeId, FORGEABLE, Inner, Outer, Role, Sealer, wrapped_by};
pub use index::{DATA_KEY_FIELD, INDEX_FIELDS, IndexDigest, LATEST_VERSION_FIELD, index_field, public_index_digest};
pub use object::{ObjectId, OpenedAttributes, is_private, open_attributes, open_secret, seal_attributes, seal_secret};
pub use password::{PasswordKey, VersionName};
pub use recovery::{Means, RecoveryId, open_by_shares, recovery_means, seal_by_shares};
pub use share::{Share, set_text};
pub use token_key::TokenKey;

#[cfg(test)]
mod tests;
