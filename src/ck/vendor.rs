//! Strongroom's own numbers, all at and above the standard's vendor-defined base.

use super::{
    CK_ATTRIBUTE_TYPE, CK_FLAGS, CK_KEY_TYPE, CK_MECHANISM_TYPE, CK_OBJECT_CLASS, CK_ULONG, CKA_VENDOR_DEFINED,
    CKM_VENDOR_DEFINED,
};

/// Where our own attributes start: "SR" in the third and fourth byte keeps clear of other vendors' numbers.
pub const CKA_SR_BASE: CK_ATTRIBUTE_TYPE = 0xD352_0000;
/// Where our own mechanisms start.
pub const CKM_SR_BASE: CK_MECHANISM_TYPE = 0xD352_0000;

/// The header shows the numbers, so that it needs no other header; they are in the vendors' range.
const _: () =
    assert!(CKA_SR_BASE == CKA_VENDOR_DEFINED | 0x5352_0000 && CKM_SR_BASE == CKM_VENDOR_DEFINED | 0x5352_0000);

/// The owner of a managed key (text).
pub const CKA_SR_OWNER: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x01;
/// The asset of a managed key (text).
pub const CKA_SR_ASSET: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x02;
/// The version of a managed key, from 1 (CK_ULONG).
pub const CKA_SR_VERSION: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x03;
/// The state of a version (CK_ULONG).
pub const CKA_SR_STATE: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x04;
/// When the version was made, in seconds since 1970 (CK_ULONG).
pub const CKA_SR_CREATED: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x05;
/// When the version was rotated away, in seconds since 1970 (CK_ULONG).
pub const CKA_SR_ROTATED: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x06;
/// The KMS master key that wraps the version (text).
pub const CKA_SR_KMS_KEY_ID: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x07;
/// When the next rotation is due, in seconds since 1970 (CK_ULONG).
pub const CKA_SR_NEXT_ROTATION: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x08;
/// The provider's name of a key that lives in a KMS (text); an object that has it holds no key material.
pub const CKA_SR_REMOTE_KEY_ID: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x09;
/// The name under which the configuration shows such a key (text).
pub const CKA_SR_REMOTE_NAME: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x0A;

/// How many days after it was made a version is due for rotation, where the key has a policy of its own; 0 is never (CK_ULONG).
pub const CKA_SR_ROTATION_INTERVAL: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x0B;
/// After how many days the active version is refused, where the key has a policy of its own; 0 is never (CK_ULONG).
pub const CKA_SR_MAX_AGE: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x0C;
/// Whether a due key is rotated without being asked for by name, where it has a policy of its own (CK_BBOOL).
pub const CKA_SR_AUTO_ROTATE: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x0D;
/// How often the active version makes something new at most, where the key has a policy of its own; 0 is no limit (CK_ULONG).
pub const CKA_SR_MAX_USES: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x12;
/// How many uses of the version are taken, of which the last may not have been made yet (CK_ULONG).
pub const CKA_SR_USES: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x13;

/// Whether the secret is sealed under its owner's own password, which each use needs (CK_BBOOL).
pub const CKA_SR_PASSWORD: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x20;
/// Tries of that password since the last right one, each counted before it is made; the latest version has it (CK_ULONG).
pub const CKA_SR_PASSWORD_TRIES: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x21;
/// How many of them were wrong (CK_ULONG).
pub const CKA_SR_PASSWORD_WRONG: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x22;

/// Whether the secret is under a data key of its own, which the KMS wraps and each login asks for once (CK_BBOOL).
pub const CKA_SR_DATA_KEY: CK_ATTRIBUTE_TYPE = CKA_SR_BASE | 0x30;

/// A version that does all that its key can do; a managed key has one at most.
pub const SR_STATE_ACTIVE: CK_ULONG = 1;
/// A version that was rotated away: it verifies, decrypts and unwraps, and signs for who names it.
pub const SR_STATE_ROTATED: CK_ULONG = 2;
/// A version that does nothing until its state is changed.
pub const SR_STATE_DISABLED: CK_ULONG = 3;

/// SR_ImportLegacyHex moves all records or none.
pub const SR_LEGACY_STRICT: CK_FLAGS = 0x1;
/// SR_ImportLegacyHex says what would be moved, and moves nothing.
pub const SR_LEGACY_DRY_RUN: CK_FLAGS = 0x2;

/// SR_ExportBackup may replace a file that is there. No flag of a backup is one of another function.
pub const SR_BACKUP_OVERWRITE: CK_FLAGS = 0x10;
/// SR_ImportBackup may replace objects that differ from those of the backup.
pub const SR_BACKUP_REPLACE: CK_FLAGS = 0x20;
/// SR_ImportBackup may remove what the backup does not have: later versions of its keys; with a whole token, all other objects.
pub const SR_BACKUP_REMOVE: CK_FLAGS = 0x40;
/// SR_ImportBackup tells what it would do, and changes nothing.
pub const SR_BACKUP_DRY_RUN: CK_FLAGS = 0x80;

/// The class of a recovery envelope of the token; no find gives one.
pub const CKO_SR_RECOVERY: CK_OBJECT_CLASS = CKA_SR_BASE | 0x01;

/// The type of a KMS master key.
pub const CKK_SR_KMS: CK_KEY_TYPE = CKA_SR_BASE | 0x01;

/// Encrypts to a self-describing ciphertext that names key and version.
pub const CKM_SR_SEALED: CK_MECHANISM_TYPE = CKM_SR_BASE | 0x01;
/// Wraps a key under the KMS master key.
pub const CKM_SR_KMS_WRAP: CK_MECHANISM_TYPE = CKM_SR_BASE | 0x02;
