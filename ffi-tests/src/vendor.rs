//! The functions of Strongroom's own (`SR_*`) that need a session.

use crate::ck::*;
use crate::session::{Handle, Session};
use crate::template::Template;
use crate::{Result, check, output};

/// The type of a KMS master key (`CKK_SR_KMS`).
pub const CKK_SR_KMS: CK_KEY_TYPE = 0xD352_0001;
/// Wraps a key under the KMS master key.
pub const CKM_SR_KMS_WRAP: CK_MECHANISM_TYPE = 0xD352_0002;

impl Session {
    /// Finds a function; the caller names its type.
    fn vendor<F: Copy>(&self, name: &str) -> F {
        let address = self.module.symbol(name).unwrap_or_else(|| panic!("the module exports {name}"));
        assert_eq!(size_of::<F>(), size_of::<usize>());
        // SAFETY: callers name the function pointer type that the header states for this symbol.
        unsafe { std::mem::transmute_copy(&address) }
    }

    /// Calls `SR_RotateMasterKey`.
    pub fn rotate_master_key(&self) -> Result<()> {
        let rotate: extern "C" fn(CK_SESSION_HANDLE) -> CK_RV = self.vendor("SR_RotateMasterKey");
        check(rotate(self.handle))
    }

    /// Calls `SR_MoveKms`.
    pub fn move_kms(&self, provider: &str) -> Result<()> {
        let go: extern "C" fn(CK_SESSION_HANDLE, *const u8, CK_ULONG) -> CK_RV = self.vendor("SR_MoveKms");
        check(go(self.handle, provider.as_ptr(), provider.len() as CK_ULONG))
    }

    /// Calls `SR_GetKmsStatus`.
    pub fn kms_status(&self) -> Result<String> {
        let tell: extern "C" fn(CK_SESSION_HANDLE, *mut u8, *mut CK_ULONG) -> CK_RV = self.vendor("SR_GetKmsStatus");
        let json = output(|json, len| tell(self.handle, json, len))?;
        Ok(String::from_utf8(json).expect("SR_GetKmsStatus gives UTF-8"))
    }

    /// Calls `SR_AuditVerify`.
    pub fn audit_verify(&self) -> Result<String> {
        let tell: extern "C" fn(CK_SESSION_HANDLE, *mut u8, *mut CK_ULONG) -> CK_RV = self.vendor("SR_AuditVerify");
        let json = output(|json, len| tell(self.handle, json, len))?;
        Ok(String::from_utf8(json).expect("SR_AuditVerify gives UTF-8"))
    }

    /// Calls `SR_AuditExport` until it has given every line after a number.
    pub fn audit_lines(&self, after: u64) -> Result<Vec<String>> {
        type Export = extern "C" fn(CK_SESSION_HANDLE, CK_ULONG, *mut u8, *mut CK_ULONG, *mut CK_ULONG) -> CK_RV;
        let export: Export = self.vendor("SR_AuditExport");
        let (mut all, mut after) = (Vec::new(), after);
        loop {
            let mut last = 0;
            let bytes = output(|lines, len| export(self.handle, after, lines, len, &mut last))?;
            if bytes.is_empty() {
                assert_eq!(last, after, "nothing more");
                return Ok(all);
            }
            all.extend(String::from_utf8(bytes).expect("UTF-8").lines().map(str::to_owned));
            after = last;
        }
    }

    /// Calls `SR_WrapKey`.
    pub fn wrap_under_kms(&self, key: Handle) -> Result<Vec<u8>> {
        let wrap: extern "C" fn(CK_SESSION_HANDLE, Handle, *mut u8, *mut CK_ULONG) -> CK_RV = self.vendor("SR_WrapKey");
        output(|blob, len| wrap(self.handle, key, blob, len))
    }

    /// Calls `SR_UnwrapKey`.
    pub fn unwrap_under_kms(&self, blob: &[u8], template: &Template) -> Result<Handle> {
        type Unwrap =
            extern "C" fn(CK_SESSION_HANDLE, *const u8, CK_ULONG, *const CK_ATTRIBUTE, CK_ULONG, *mut Handle) -> CK_RV;
        let unwrap: Unwrap = self.vendor("SR_UnwrapKey");
        let (raw, mut handle) = (template.raw(), 0);
        let (len, count) = (blob.len() as CK_ULONG, raw.len() as CK_ULONG);
        check(unwrap(self.handle, blob.as_ptr(), len, raw.as_ptr(), count, &mut handle))?;
        Ok(handle)
    }

    /// Calls `SR_GenerateDataKey`: gives the handle and the wrapped key.
    pub fn generate_data_key(&self, template: &Template) -> Result<(Handle, Vec<u8>)> {
        type Generate = extern "C" fn(
            CK_SESSION_HANDLE,
            *const CK_ATTRIBUTE,
            CK_ULONG,
            *mut u8,
            *mut CK_ULONG,
            *mut Handle,
        ) -> CK_RV;
        let generate: Generate = self.vendor("SR_GenerateDataKey");
        let (raw, mut handle) = (template.raw(), 0);
        let count = raw.len() as CK_ULONG;
        let blob = output(|blob, len| generate(self.handle, raw.as_ptr(), count, blob, len, &mut handle))?;
        Ok((handle, blob))
    }
}
