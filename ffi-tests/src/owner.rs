//! The functions of managed keys with their owner's own password.

use crate::ck::*;
use crate::session::{Handle, Session};
use crate::vendor::{Managed, Name};
use crate::{Result, check};

/// Whether a key is under its owner's own password.
pub const CKA_SR_PASSWORD: CK_ATTRIBUTE_TYPE = 0xD352_0020;
/// Tries of that password.
pub const CKA_SR_PASSWORD_TRIES: CK_ATTRIBUTE_TYPE = 0xD352_0021;

/// The pointer and length of bytes; NULL and 0 for none.
pub(crate) fn parts(bytes: Option<&[u8]>) -> (*const u8, CK_ULONG) {
    bytes.map_or((std::ptr::null(), 0), |bytes| (bytes.as_ptr(), bytes.len() as CK_ULONG))
}

impl Session {
    /// Calls `SR_GenerateKey` with a password.
    pub fn generate_with_password(&self, name: Name, password: &[u8]) -> Result<Managed> {
        self.generate_under(name, Some(password))
    }

    /// Calls `SR_UnlockKey`, with the password as pointer and length.
    ///
    /// # Safety
    /// The pointer is valid for so many bytes, or the call refuses it.
    pub unsafe fn unlock_raw(
        &self,
        (owner, asset): Name,
        version: CK_ULONG,
        (password, password_len): (*const u8, CK_ULONG),
        seconds: CK_ULONG,
        key: *mut Handle,
    ) -> Result<()> {
        type Unlock = extern "C" fn(
            CK_SESSION_HANDLE,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            CK_ULONG,
            *mut Handle,
        ) -> CK_RV;
        let unlock: Unlock = self.vendor("SR_UnlockKey");
        let (owner_len, asset_len) = (owner.len() as CK_ULONG, asset.len() as CK_ULONG);
        let (owner, asset) = (owner.as_ptr(), asset.as_ptr());
        check(unlock(self.handle, owner, owner_len, asset, asset_len, version, password, password_len, seconds, key))
    }

    /// Calls `SR_UnlockKey`.
    pub fn unlock(&self, name: Name, version: CK_ULONG, password: &str, seconds: CK_ULONG) -> Result<Handle> {
        let mut key = 0;
        // SAFETY: pointer and length are those of a text.
        unsafe { self.unlock_raw(name, version, parts(Some(password.as_bytes())), seconds, &mut key) }?;
        Ok(key)
    }

    /// Calls `SR_LockKey`.
    pub fn lock(&self, key: Handle) -> Result<()> {
        let lock: extern "C" fn(CK_SESSION_HANDLE, Handle) -> CK_RV = self.vendor("SR_LockKey");
        check(lock(self.handle, key))
    }

    /// Calls `SR_ChangeKeyPassword`.
    pub fn change_key_password(&self, (owner, asset): Name, old: Option<&str>, new: Option<&str>) -> Result<()> {
        type Change = extern "C" fn(
            CK_SESSION_HANDLE,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
        ) -> CK_RV;
        let change: Change = self.vendor("SR_ChangeKeyPassword");
        let (owner_len, asset_len) = (owner.len() as CK_ULONG, asset.len() as CK_ULONG);
        let ((old, old_len), (new, new_len)) = (parts(old.map(str::as_bytes)), parts(new.map(str::as_bytes)));
        let (owner, asset) = (owner.as_ptr(), asset.as_ptr());
        check(change(self.handle, owner, owner_len, asset, asset_len, old, old_len, new, new_len))
    }

    /// Calls `SR_RotateKey` with passwords.
    pub fn rotate_with_passwords(
        &self,
        (owner, asset): Name,
        old: Option<&str>,
        new: Option<&str>,
        expected: CK_ULONG,
    ) -> Result<Handle> {
        type Rotate = extern "C" fn(
            CK_SESSION_HANDLE,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            CK_ULONG,
            *mut Handle,
        ) -> CK_RV;
        let rotate: Rotate = self.vendor("SR_RotateKey");
        let (mut key, owner_len, asset_len) = (0, owner.len() as CK_ULONG, asset.len() as CK_ULONG);
        let ((old, old_len), (new, new_len)) = (parts(old.map(str::as_bytes)), parts(new.map(str::as_bytes)));
        let (owner, asset) = (owner.as_ptr(), asset.as_ptr());
        check(rotate(self.handle, owner, owner_len, asset, asset_len, old, old_len, new, new_len, expected, &mut key))?;
        Ok(key)
    }

    /// Calls `SR_ResetKeyTries`.
    pub fn reset_key_tries(&self, (owner, asset): Name) -> Result<()> {
        type Reset = extern "C" fn(CK_SESSION_HANDLE, *const u8, CK_ULONG, *const u8, CK_ULONG) -> CK_RV;
        let reset: Reset = self.vendor("SR_ResetKeyTries");
        let (owner_len, asset_len) = (owner.len() as CK_ULONG, asset.len() as CK_ULONG);
        check(reset(self.handle, owner.as_ptr(), owner_len, asset.as_ptr(), asset_len))
    }
}
