//! Backups and recovery envelopes (`SR_ExportBackup` and its like).

use std::path::{Path, PathBuf};

use crate::ck::*;
use crate::module::Module;
use crate::session::Session;
use crate::vendor::Name;
use crate::{Result, check, output};

/// SR_ExportBackup may replace a file.
pub const SR_BACKUP_OVERWRITE: CK_FLAGS = 0x10;
/// SR_ImportBackup may replace what differs.
pub const SR_BACKUP_REPLACE: CK_FLAGS = 0x20;
/// SR_ImportBackup may remove what the backup does not have.
pub const SR_BACKUP_REMOVE: CK_FLAGS = 0x40;
/// SR_ImportBackup changes nothing.
pub const SR_BACKUP_DRY_RUN: CK_FLAGS = 0x80;

/// `SR_BACKUP_SECRETS`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RawSecrets {
    /// Pointers and lengths, in the order of the header.
    pub texts: [(*const u8, CK_ULONG); 5],
}

/// What opens a backup.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// The PIN of its token.
    pub pin: Option<String>,
    /// The password of a recovery envelope.
    pub password: Option<String>,
    /// Files with shares.
    pub share_files: Vec<PathBuf>,
    /// The SO PIN from now on.
    pub new_so_pin: Option<String>,
    /// The user PIN from now on.
    pub new_pin: Option<String>,
}

impl Secrets {
    /// Makes secrets of a PIN.
    pub fn pin(pin: &str) -> Self {
        Self { pin: Some(pin.to_owned()), ..Self::default() }
    }

    /// Lends the structure to a call.
    pub fn with<T>(&self, call: impl FnOnce(*const RawSecrets) -> T) -> T {
        let files: Vec<_> = self.share_files.iter().map(|file| file.to_str().expect("UTF-8")).collect();
        let files = (!files.is_empty()).then(|| files.join("\n"));
        let raw = |text: &Option<String>| {
            text.as_ref().map_or((std::ptr::null(), 0), |text| (text.as_ptr(), text.len() as CK_ULONG))
        };
        let texts = [&self.pin, &self.password, &files, &self.new_so_pin, &self.new_pin].map(raw);
        call(&RawSecrets { texts })
    }
}

fn path_of(path: &Path) -> &str {
    path.to_str().expect("a path of UTF-8")
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("texts are UTF-8")
}

impl Module {
    /// Finds a function; the caller names its type.
    pub fn vendor<F: Copy>(&self, name: &str) -> F {
        let address = self.symbol(name).unwrap_or_else(|| panic!("the module exports {name}"));
        assert_eq!(size_of::<F>(), size_of::<usize>());
        // SAFETY: callers name the function pointer type that the header states for this symbol.
        unsafe { std::mem::transmute_copy(&address) }
    }

    /// Calls `SR_VerifyBackup` in a session, or without one.
    pub fn verify_backup(&self, session: CK_SESSION_HANDLE, path: &Path, secrets: &Secrets) -> Result<String> {
        type Verify =
            extern "C" fn(CK_SESSION_HANDLE, *const u8, CK_ULONG, *const RawSecrets, *mut u8, *mut CK_ULONG) -> CK_RV;
        let (verify, path): (Verify, _) = (self.vendor("SR_VerifyBackup"), path_of(path));
        let call =
            |raw| output(|json, len| verify(session, path.as_ptr(), path.len() as CK_ULONG, raw, json, len)).map(text);
        secrets.with(call)
    }

    /// Calls `SR_ImportBackup` in a session, or without one.
    pub fn import_backup(
        &self,
        session: CK_SESSION_HANDLE,
        (owner, asset): Name,
        path: &Path,
        secrets: &Secrets,
        flags: CK_FLAGS,
    ) -> Result<String> {
        type Import = extern "C" fn(
            CK_SESSION_HANDLE,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            *const RawSecrets,
            CK_FLAGS,
            *mut u8,
            *mut CK_ULONG,
        ) -> CK_RV;
        let (import, path): (Import, _) = (self.vendor("SR_ImportBackup"), path_of(path));
        let [owner_len, asset_len, path_len] = [owner, asset, path].map(|text| text.len() as CK_ULONG);
        let (owner, asset, path) = (owner.as_ptr(), asset.as_ptr(), path.as_ptr());
        let call = |raw| {
            let import =
                |json, len| import(session, owner, owner_len, asset, asset_len, path, path_len, raw, flags, json, len);
            output(import).map(text)
        };
        secrets.with(call)
    }
}

impl Session {
    /// Calls `SR_ExportBackup`.
    pub fn export_backup(&self, (owner, asset): Name, path: &Path, flags: CK_FLAGS) -> Result<String> {
        type Export = extern "C" fn(
            CK_SESSION_HANDLE,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            CK_FLAGS,
            *mut u8,
            *mut CK_ULONG,
        ) -> CK_RV;
        let (export, path): (Export, _) = (self.module.vendor("SR_ExportBackup"), path_of(path));
        let [owner_len, asset_len, path_len] = [owner, asset, path].map(|text| text.len() as CK_ULONG);
        let (owner, asset, path) = (owner.as_ptr(), asset.as_ptr(), path.as_ptr());
        let call =
            |json, len| export(self.handle, owner, owner_len, asset, asset_len, path, path_len, flags, json, len);
        output(call).map(text)
    }

    /// Calls `SR_AddRecoveryPassword` or `SR_AddRecoveryKms`.
    pub fn add_recovery(&self, function: &str, name: &str, what: &str) -> Result<()> {
        type Add = extern "C" fn(CK_SESSION_HANDLE, *const u8, CK_ULONG, *const u8, CK_ULONG) -> CK_RV;
        let add: Add = self.module.vendor(function);
        check(add(self.handle, name.as_ptr(), name.len() as CK_ULONG, what.as_ptr(), what.len() as CK_ULONG))
    }

    /// Calls `SR_AddRecoveryShares`.
    pub fn add_recovery_shares(&self, name: &str, needed: CK_ULONG, count: CK_ULONG, folder: &Path) -> Result<()> {
        type Add =
            extern "C" fn(CK_SESSION_HANDLE, *const u8, CK_ULONG, CK_ULONG, CK_ULONG, *const u8, CK_ULONG) -> CK_RV;
        let (add, folder): (Add, _) = (self.module.vendor("SR_AddRecoveryShares"), path_of(folder));
        let (name_len, folder_len) = (name.len() as CK_ULONG, folder.len() as CK_ULONG);
        check(add(self.handle, name.as_ptr(), name_len, needed, count, folder.as_ptr(), folder_len))
    }

    /// Calls `SR_RemoveRecovery`.
    pub fn remove_recovery(&self, name: &str) -> Result<()> {
        let remove: extern "C" fn(CK_SESSION_HANDLE, *const u8, CK_ULONG) -> CK_RV =
            self.module.vendor("SR_RemoveRecovery");
        check(remove(self.handle, name.as_ptr(), name.len() as CK_ULONG))
    }

    /// Calls `SR_ListRecovery`.
    pub fn list_recovery(&self) -> Result<String> {
        let list: extern "C" fn(CK_SESSION_HANDLE, *mut u8, *mut CK_ULONG) -> CK_RV =
            self.module.vendor("SR_ListRecovery");
        output(|json, len| list(self.handle, json, len)).map(text)
    }
}
