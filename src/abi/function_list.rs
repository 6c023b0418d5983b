//! The function tables and interfaces (PKCS #11 v3.2, 3.6, 5.4): each name stands here once.
//!
//! The rules are:
//! - a table's version is true: 2.40 ends after C_WaitForSlotEvent, 3.0 after C_MessageVerifyFinal, 3.2 has all;
//! - no entry is NULL; what the library cannot do yet answers CKR_FUNCTION_NOT_SUPPORTED;
//! - the first interface is the default one. None has CKF_INTERFACE_FORK_SAFE: a forked child initialises the library anew.

use std::ffi::CStr;

use super::async_functions::*;
use super::decrypt::*;
use super::digest::*;
use super::dual::*;
use super::encrypt::*;
use super::general::*;
use super::key::*;
use super::message_decrypt::*;
use super::message_encrypt::*;
use super::message_sign::*;
use super::message_verify::*;
use super::object::*;
use super::parallel::*;
use super::random::*;
use super::session::*;
use super::sign::*;
use super::slot_token::*;
use super::sr_about::*;
use super::sr_audit::*;
use super::sr_backup::*;
use super::sr_keys::*;
use super::sr_kms::*;
use super::sr_migrate::*;
use super::sr_password::*;
use super::sr_rotation::*;
use super::verify::*;
use crate::ck::*;
use crate::error::{Error, Result};

/// The longest interface name that is looked at, in bytes.
pub(super) const LONGEST_NAME: usize = 64;

/// The standard's own interface.
const PKCS_11: &CStr = c"PKCS 11";
/// The interface of the `SR_*` functions.
const VENDOR: &CStr = c"Vendor Strongroom";

/// The `SR_*` functions as a table, from C_GetInterface with the name "Vendor Strongroom". Later versions only add at the end.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SR_FUNCTION_LIST {
    /// The major version of the table.
    pub version_major: CK_BYTE,
    /// The minor version of the table.
    pub version_minor: CK_BYTE,
    /// See [`SR_GetVersion`].
    pub SR_GetVersion: unsafe extern "C" fn(version: *mut CK_UTF8CHAR, version_len: *mut CK_ULONG) -> CK_RV,
    /// See [`SR_LastError`].
    pub SR_LastError: unsafe extern "C" fn(text: *mut CK_UTF8CHAR, text_len: *mut CK_ULONG) -> CK_RV,
    /// See [`SR_GetStatus`].
    pub SR_GetStatus: unsafe extern "C" fn(json: *mut CK_UTF8CHAR, json_len: *mut CK_ULONG) -> CK_RV,
    /// See [`SR_WrapKey`].
    pub SR_WrapKey: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        key: CK_OBJECT_HANDLE,
        wrapped: *mut CK_BYTE,
        wrapped_len: *mut CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_UnwrapKey`].
    pub SR_UnwrapKey: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        wrapped: *const CK_BYTE,
        wrapped_len: CK_ULONG,
        attributes: *const CK_ATTRIBUTE,
        count: CK_ULONG,
        key: *mut CK_OBJECT_HANDLE,
    ) -> CK_RV,
    /// See [`SR_GenerateDataKey`].
    pub SR_GenerateDataKey: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        attributes: *const CK_ATTRIBUTE,
        count: CK_ULONG,
        wrapped: *mut CK_BYTE,
        wrapped_len: *mut CK_ULONG,
        key: *mut CK_OBJECT_HANDLE,
    ) -> CK_RV,
    /// See [`SR_RotateMasterKey`].
    pub SR_RotateMasterKey: unsafe extern "C" fn(session: CK_SESSION_HANDLE) -> CK_RV,
    /// See [`SR_MoveKms`].
    pub SR_MoveKms:
        unsafe extern "C" fn(session: CK_SESSION_HANDLE, provider: *const CK_UTF8CHAR, provider_len: CK_ULONG) -> CK_RV,
    /// See [`SR_GetKmsStatus`].
    pub SR_GetKmsStatus:
        unsafe extern "C" fn(session: CK_SESSION_HANDLE, json: *mut CK_UTF8CHAR, json_len: *mut CK_ULONG) -> CK_RV,
    /// See [`SR_GenerateKey`].
    pub SR_GenerateKey: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        owner: *const CK_UTF8CHAR,
        owner_len: CK_ULONG,
        asset: *const CK_UTF8CHAR,
        asset_len: CK_ULONG,
        password: *const CK_UTF8CHAR,
        password_len: CK_ULONG,
        key: *mut CK_OBJECT_HANDLE,
        public_key: *mut CK_BYTE,
        public_key_len: *mut CK_ULONG,
        address: *mut CK_UTF8CHAR,
        address_len: *mut CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_FindKey`].
    pub SR_FindKey: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        owner: *const CK_UTF8CHAR,
        owner_len: CK_ULONG,
        asset: *const CK_UTF8CHAR,
        asset_len: CK_ULONG,
        version: CK_ULONG,
        key: *mut CK_OBJECT_HANDLE,
    ) -> CK_RV,
    /// See [`SR_GetKeyInfo`].
    pub SR_GetKeyInfo: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        owner: *const CK_UTF8CHAR,
        owner_len: CK_ULONG,
        asset: *const CK_UTF8CHAR,
        asset_len: CK_ULONG,
        json: *mut CK_UTF8CHAR,
        json_len: *mut CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_ListVersions`].
    pub SR_ListVersions: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        owner: *const CK_UTF8CHAR,
        owner_len: CK_ULONG,
        asset: *const CK_UTF8CHAR,
        asset_len: CK_ULONG,
        json: *mut CK_UTF8CHAR,
        json_len: *mut CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_SetVersionState`].
    pub SR_SetVersionState: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        owner: *const CK_UTF8CHAR,
        owner_len: CK_ULONG,
        asset: *const CK_UTF8CHAR,
        asset_len: CK_ULONG,
        version: CK_ULONG,
        state: CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_DestroyVersion`].
    pub SR_DestroyVersion: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        owner: *const CK_UTF8CHAR,
        owner_len: CK_ULONG,
        asset: *const CK_UTF8CHAR,
        asset_len: CK_ULONG,
        version: CK_ULONG,
        confirmation: *const CK_UTF8CHAR,
        confirmation_len: CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_GetAddress`].
    pub SR_GetAddress: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        owner: *const CK_UTF8CHAR,
        owner_len: CK_ULONG,
        asset: *const CK_UTF8CHAR,
        asset_len: CK_ULONG,
        version: CK_ULONG,
        form: *const CK_UTF8CHAR,
        form_len: CK_ULONG,
        address: *mut CK_UTF8CHAR,
        address_len: *mut CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_SignRecoverable`].
    pub SR_SignRecoverable: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        key: CK_OBJECT_HANDLE,
        digest: *const CK_BYTE,
        digest_len: CK_ULONG,
        signature: *mut CK_BYTE,
        signature_len: *mut CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_RotateKey`].
    pub SR_RotateKey: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        owner: *const CK_UTF8CHAR,
        owner_len: CK_ULONG,
        asset: *const CK_UTF8CHAR,
        asset_len: CK_ULONG,
        old_password: *const CK_UTF8CHAR,
        old_password_len: CK_ULONG,
        new_password: *const CK_UTF8CHAR,
        new_password_len: CK_ULONG,
        expected: CK_ULONG,
        key: *mut CK_OBJECT_HANDLE,
    ) -> CK_RV,
    /// See [`SR_RotateDue`].
    pub SR_RotateDue: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        at_most: CK_ULONG,
        rotated: *mut CK_ULONG,
        left: *mut CK_ULONG,
        failed: *mut CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_GetRotationPolicy`].
    pub SR_GetRotationPolicy: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        owner: *const CK_UTF8CHAR,
        owner_len: CK_ULONG,
        asset: *const CK_UTF8CHAR,
        asset_len: CK_ULONG,
        json: *mut CK_UTF8CHAR,
        json_len: *mut CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_SetRotationPolicy`].
    pub SR_SetRotationPolicy: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        owner: *const CK_UTF8CHAR,
        owner_len: CK_ULONG,
        asset: *const CK_UTF8CHAR,
        asset_len: CK_ULONG,
        rotation_interval_days: CK_ULONG,
        max_key_age_days: CK_ULONG,
        max_key_uses: CK_ULONG,
        auto_rotate: CK_BBOOL,
    ) -> CK_RV,
    /// See [`SR_AuditVerify`].
    pub SR_AuditVerify:
        unsafe extern "C" fn(session: CK_SESSION_HANDLE, json: *mut CK_UTF8CHAR, json_len: *mut CK_ULONG) -> CK_RV,
    /// See [`SR_AuditExport`].
    pub SR_AuditExport: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        after: CK_ULONG,
        lines: *mut CK_UTF8CHAR,
        lines_len: *mut CK_ULONG,
        last: *mut CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_UnlockKey`].
    pub SR_UnlockKey: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        owner: *const CK_UTF8CHAR,
        owner_len: CK_ULONG,
        asset: *const CK_UTF8CHAR,
        asset_len: CK_ULONG,
        version: CK_ULONG,
        password: *const CK_UTF8CHAR,
        password_len: CK_ULONG,
        time_to_live: CK_ULONG,
        key: *mut CK_OBJECT_HANDLE,
    ) -> CK_RV,
    /// See [`SR_LockKey`].
    pub SR_LockKey: unsafe extern "C" fn(session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> CK_RV,
    /// See [`SR_ChangeKeyPassword`].
    pub SR_ChangeKeyPassword: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        owner: *const CK_UTF8CHAR,
        owner_len: CK_ULONG,
        asset: *const CK_UTF8CHAR,
        asset_len: CK_ULONG,
        old_password: *const CK_UTF8CHAR,
        old_password_len: CK_ULONG,
        new_password: *const CK_UTF8CHAR,
        new_password_len: CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_ResetKeyTries`].
    pub SR_ResetKeyTries: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        owner: *const CK_UTF8CHAR,
        owner_len: CK_ULONG,
        asset: *const CK_UTF8CHAR,
        asset_len: CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_ImportLegacyHex`].
    pub SR_ImportLegacyHex: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        source: *const CK_UTF8CHAR,
        source_len: CK_ULONG,
        report: *const CK_UTF8CHAR,
        report_len: CK_ULONG,
        flags: CK_FLAGS,
        imported: *mut CK_ULONG,
        present: *mut CK_ULONG,
        failed: *mut CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_ExportBackup`].
    pub SR_ExportBackup: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        owner: *const CK_UTF8CHAR,
        owner_len: CK_ULONG,
        asset: *const CK_UTF8CHAR,
        asset_len: CK_ULONG,
        path: *const CK_UTF8CHAR,
        path_len: CK_ULONG,
        flags: CK_FLAGS,
        json: *mut CK_UTF8CHAR,
        json_len: *mut CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_VerifyBackup`].
    pub SR_VerifyBackup: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        path: *const CK_UTF8CHAR,
        path_len: CK_ULONG,
        secrets: *const SR_BACKUP_SECRETS,
        json: *mut CK_UTF8CHAR,
        json_len: *mut CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_ImportBackup`].
    pub SR_ImportBackup: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        owner: *const CK_UTF8CHAR,
        owner_len: CK_ULONG,
        asset: *const CK_UTF8CHAR,
        asset_len: CK_ULONG,
        path: *const CK_UTF8CHAR,
        path_len: CK_ULONG,
        secrets: *const SR_BACKUP_SECRETS,
        flags: CK_FLAGS,
        json: *mut CK_UTF8CHAR,
        json_len: *mut CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_AddRecoveryPassword`].
    pub SR_AddRecoveryPassword: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        name: *const CK_UTF8CHAR,
        name_len: CK_ULONG,
        password: *const CK_UTF8CHAR,
        password_len: CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_AddRecoveryKms`].
    pub SR_AddRecoveryKms: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        name: *const CK_UTF8CHAR,
        name_len: CK_ULONG,
        provider: *const CK_UTF8CHAR,
        provider_len: CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_AddRecoveryShares`].
    pub SR_AddRecoveryShares: unsafe extern "C" fn(
        session: CK_SESSION_HANDLE,
        name: *const CK_UTF8CHAR,
        name_len: CK_ULONG,
        threshold: CK_ULONG,
        count: CK_ULONG,
        folder: *const CK_UTF8CHAR,
        folder_len: CK_ULONG,
    ) -> CK_RV,
    /// See [`SR_RemoveRecovery`].
    pub SR_RemoveRecovery:
        unsafe extern "C" fn(session: CK_SESSION_HANDLE, name: *const CK_UTF8CHAR, name_len: CK_ULONG) -> CK_RV,
    /// See [`SR_ListRecovery`].
    pub SR_ListRecovery:
        unsafe extern "C" fn(session: CK_SESSION_HANDLE, json: *mut CK_UTF8CHAR, json_len: *mut CK_ULONG) -> CK_RV,
}

/// Makes the three tables of the standard from its functions, in the order in which its versions added them.
macro_rules! tables {
    ([$($v2_40:ident)*] [$($v3_0:ident)*] [$($v3_2:ident)*]) => {
        static FUNCTIONS_2_40: CK_FUNCTION_LIST =
            CK_FUNCTION_LIST { version: CK_VERSION { major: 2, minor: 40 }, $($v2_40: Some($v2_40),)* };
        static FUNCTIONS_3_0: CK_FUNCTION_LIST_3_0 = CK_FUNCTION_LIST_3_0 {
            version: CK_VERSION { major: 3, minor: 0 }, $($v2_40: Some($v2_40),)* $($v3_0: Some($v3_0),)*
        };
        static FUNCTIONS_3_2: CK_FUNCTION_LIST_3_2 = CK_FUNCTION_LIST_3_2 {
            version: CK_VERSION { major: 3, minor: 2 },
            $($v2_40: Some($v2_40),)* $($v3_0: Some($v3_0),)* $($v3_2: Some($v3_2),)*
        };

        /// The names in all tables of the standard.
        #[cfg(test)]
        pub const NAMES: &[&str] = &[$(stringify!($v2_40),)* $(stringify!($v3_0),)* $(stringify!($v3_2),)*];
    };
}

tables! {
    [
        C_Initialize C_Finalize C_GetInfo C_GetFunctionList
        C_GetSlotList C_GetSlotInfo C_GetTokenInfo C_GetMechanismList C_GetMechanismInfo C_InitToken C_InitPIN C_SetPIN
        C_OpenSession C_CloseSession C_CloseAllSessions C_GetSessionInfo C_GetOperationState C_SetOperationState C_Login
        C_Logout
        C_CreateObject C_CopyObject C_DestroyObject C_GetObjectSize C_GetAttributeValue C_SetAttributeValue
        C_FindObjectsInit C_FindObjects C_FindObjectsFinal
        C_EncryptInit C_Encrypt C_EncryptUpdate C_EncryptFinal
        C_DecryptInit C_Decrypt C_DecryptUpdate C_DecryptFinal
        C_DigestInit C_Digest C_DigestUpdate C_DigestKey C_DigestFinal
        C_SignInit C_Sign C_SignUpdate C_SignFinal C_SignRecoverInit C_SignRecover
        C_VerifyInit C_Verify C_VerifyUpdate C_VerifyFinal C_VerifyRecoverInit C_VerifyRecover
        C_DigestEncryptUpdate C_DecryptDigestUpdate C_SignEncryptUpdate C_DecryptVerifyUpdate
        C_GenerateKey C_GenerateKeyPair C_WrapKey C_UnwrapKey C_DeriveKey
        C_SeedRandom C_GenerateRandom
        C_GetFunctionStatus C_CancelFunction
        C_WaitForSlotEvent
    ]
    [
        C_GetInterfaceList C_GetInterface C_LoginUser C_SessionCancel
        C_MessageEncryptInit C_EncryptMessage C_EncryptMessageBegin C_EncryptMessageNext C_MessageEncryptFinal
        C_MessageDecryptInit C_DecryptMessage C_DecryptMessageBegin C_DecryptMessageNext C_MessageDecryptFinal
        C_MessageSignInit C_SignMessage C_SignMessageBegin C_SignMessageNext C_MessageSignFinal
        C_MessageVerifyInit C_VerifyMessage C_VerifyMessageBegin C_VerifyMessageNext C_MessageVerifyFinal
    ]
    [
        C_EncapsulateKey C_DecapsulateKey
        C_VerifySignatureInit C_VerifySignature C_VerifySignatureUpdate C_VerifySignatureFinal
        C_GetSessionValidationFlags
        C_AsyncComplete C_AsyncGetID C_AsyncJoin
        C_WrapKeyAuthenticated C_UnwrapKeyAuthenticated
    ]
}

static SR_FUNCTIONS: SR_FUNCTION_LIST = SR_FUNCTION_LIST {
    version_major: 1,
    version_minor: 0,
    SR_GetVersion,
    SR_LastError,
    SR_GetStatus,
    SR_WrapKey,
    SR_UnwrapKey,
    SR_GenerateDataKey,
    SR_RotateMasterKey,
    SR_MoveKms,
    SR_GetKmsStatus,
    SR_GenerateKey,
    SR_FindKey,
    SR_GetKeyInfo,
    SR_ListVersions,
    SR_SetVersionState,
    SR_DestroyVersion,
    SR_GetAddress,
    SR_SignRecoverable,
    SR_RotateKey,
    SR_RotateDue,
    SR_GetRotationPolicy,
    SR_SetRotationPolicy,
    SR_AuditVerify,
    SR_AuditExport,
    SR_UnlockKey,
    SR_LockKey,
    SR_ChangeKeyPassword,
    SR_ResetKeyTries,
    SR_ImportLegacyHex,
    SR_ExportBackup,
    SR_VerifyBackup,
    SR_ImportBackup,
    SR_AddRecoveryPassword,
    SR_AddRecoveryKms,
    SR_AddRecoveryShares,
    SR_RemoveRecovery,
    SR_ListRecovery,
};

/// The version of [`SR_FUNCTIONS`], which starts with the two numbers as every table does.
const SR_VERSION: CK_VERSION = CK_VERSION { major: SR_FUNCTIONS.version_major, minor: SR_FUNCTIONS.version_minor };

/// One interface: its name and version, and what the caller gets.
struct Interface {
    name: &'static CStr,
    version: CK_VERSION,
    c: CK_INTERFACE,
}

// SAFETY: the pointers lead to statics that nobody writes.
unsafe impl Sync for Interface {}

impl Interface {
    /// `table` starts with `version`, as every table of functions does.
    const fn new<T>(name: &'static CStr, version: CK_VERSION, table: &'static T) -> Self {
        let c = CK_INTERFACE {
            pInterfaceName: name.as_ptr().cast_mut().cast(),
            pFunctionList: std::ptr::from_ref(table).cast_mut().cast(),
            flags: 0,
        };
        Self { name, version, c }
    }
}

static INTERFACES: [Interface; 4] = [
    Interface::new(PKCS_11, FUNCTIONS_3_2.version, &FUNCTIONS_3_2),
    Interface::new(PKCS_11, FUNCTIONS_3_0.version, &FUNCTIONS_3_0),
    Interface::new(PKCS_11, FUNCTIONS_2_40.version, &FUNCTIONS_2_40),
    Interface::new(VENDOR, SR_VERSION, &SR_FUNCTIONS),
];

/// Gives the table of version 2.40, which nobody may write.
pub fn version_2_40() -> *mut CK_FUNCTION_LIST {
    (&raw const FUNCTIONS_2_40).cast_mut()
}

/// Lists the interfaces, the default one first.
pub fn interfaces() -> [CK_INTERFACE; 4] {
    INTERFACES.each_ref().map(|interface| interface.c)
}

/// Finds the first interface that fits; no name is the standard's own, no version is the newest.
///
/// # Errors
/// `ArgumentsBad` when none fits.
pub fn interface(name: Option<&str>, version: Option<CK_VERSION>, flags: CK_FLAGS) -> Result<*mut CK_INTERFACE> {
    let name = name.map_or(PKCS_11.to_bytes(), str::as_bytes);
    let fits = |interface: &&Interface| {
        let same =
            |wanted: CK_VERSION| (wanted.major, wanted.minor) == (interface.version.major, interface.version.minor);
        interface.name.to_bytes() == name && version.is_none_or(same) && interface.c.flags & flags == flags
    };
    let found = INTERFACES.iter().find(fits).map(|interface| (&raw const interface.c).cast_mut());
    found.ok_or_else(|| Error::arguments_bad("there is no interface of this name, version and flags"))
}

/// Tells the version of the library as the standard's two numbers.
pub fn library_version() -> CK_VERSION {
    let number = |text: &str| text.parse().expect("Cargo.toml has a version below 256.256");
    CK_VERSION { major: number(env!("CARGO_PKG_VERSION_MAJOR")), minor: number(env!("CARGO_PKG_VERSION_MINOR")) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::multiple_unsafe_ops_per_block)]
mod tests {
    use super::*;

    const V3_0: CK_VERSION = CK_VERSION { major: 3, minor: 0 };

    /// The version at the head of the table behind an interface.
    fn table_version(interface: &CK_INTERFACE) -> (u8, u8) {
        // SAFETY: every table starts with its version.
        let version = unsafe { interface.pFunctionList.cast::<CK_VERSION>().read() };
        (version.major, version.minor)
    }

    fn found(name: Option<&str>, version: Option<CK_VERSION>) -> (u8, u8) {
        // SAFETY: a static.
        table_version(unsafe { &*interface(name, version, 0).unwrap() })
    }

    #[test]
    fn r44_versions_are_true() {
        assert_eq!(interfaces().each_ref().map(table_version), [(3, 2), (3, 0), (2, 40), (1, 0)]);
        assert!(INTERFACES.iter().all(|one| table_version(&one.c) == (one.version.major, one.version.minor)));
        // SAFETY: a static.
        let list = unsafe { version_2_40().read() };
        assert_eq!((list.version.major, list.version.minor), (2, 40));
    }

    #[test]
    fn r44_no_entry_is_null() {
        let pointers = |start: *const CK_VERSION, size: usize| -> Vec<usize> {
            let words = start.cast::<usize>();
            // SAFETY: after the version, padded to a word, a table is all pointers.
            (1..size / size_of::<usize>()).map(|index| unsafe { words.add(index).read() }).collect()
        };
        let tables = [
            pointers((&raw const FUNCTIONS_2_40).cast(), size_of::<CK_FUNCTION_LIST>()),
            pointers((&raw const FUNCTIONS_3_0).cast(), size_of::<CK_FUNCTION_LIST_3_0>()),
            pointers((&raw const FUNCTIONS_3_2).cast(), size_of::<CK_FUNCTION_LIST_3_2>()),
        ];
        assert_eq!(tables.each_ref().map(Vec::len), [68, 92, 104]);
        assert!(tables.iter().flatten().all(|pointer| *pointer != 0));
        assert!(tables[2].starts_with(&tables[1]) && tables[1].starts_with(&tables[0]));
    }

    #[test]
    fn r44_interfaces_are_found_by_name_version_and_flags() {
        assert_eq!(found(None, None), (3, 2));
        assert_eq!(found(None, Some(V3_0)), (3, 0));
        assert_eq!(found(Some("PKCS 11"), Some(V3_0)), (3, 0));
        assert_eq!(found(Some("Vendor Strongroom"), None), (1, 0));
        assert!(interface(Some("PKCS 12"), None, 0).is_err());
        assert!(interface(Some("Vendor Strongroom"), Some(V3_0), 0).is_err());
        assert!(interface(None, None, CKF_INTERFACE_FORK_SAFE).is_err());
    }
}
