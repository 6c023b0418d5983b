//! The functions of Strongroom's own (`SR_*`) that need a session.

use crate::ck::*;
use crate::owner::parts;
use crate::session::{Handle, Session};
use crate::template::Template;
use crate::{Result, check, output};

/// The type of a KMS master key (`CKK_SR_KMS`).
pub const CKK_SR_KMS: CK_KEY_TYPE = 0xD352_0001;
/// Wraps a key under the KMS master key.
pub const CKM_SR_KMS_WRAP: CK_MECHANISM_TYPE = 0xD352_0002;
/// Encrypts to a ciphertext that names key and version.
pub const CKM_SR_SEALED: CK_MECHANISM_TYPE = 0xD352_0001;

/// The owner of a managed key.
pub const CKA_SR_OWNER: CK_ATTRIBUTE_TYPE = 0xD352_0001;
/// The asset of a managed key.
pub const CKA_SR_ASSET: CK_ATTRIBUTE_TYPE = 0xD352_0002;
/// The version of a managed key.
pub const CKA_SR_VERSION: CK_ATTRIBUTE_TYPE = 0xD352_0003;
/// The state of a version.
pub const CKA_SR_STATE: CK_ATTRIBUTE_TYPE = 0xD352_0004;
/// When a version is due.
pub const CKA_SR_NEXT_ROTATION: CK_ATTRIBUTE_TYPE = 0xD352_0008;
/// How many uses of a version are taken.
pub const CKA_SR_USES: CK_ATTRIBUTE_TYPE = 0xD352_0013;
/// Whether a secret is under a data key of its own.
pub const CKA_SR_DATA_KEY: CK_ATTRIBUTE_TYPE = 0xD352_0030;
/// The states of versions.
pub const SR_STATE_ACTIVE: CK_ULONG = 1;
/// See [`SR_STATE_ACTIVE`].
pub const SR_STATE_ROTATED: CK_ULONG = 2;
/// See [`SR_STATE_ACTIVE`].
pub const SR_STATE_DISABLED: CK_ULONG = 3;

/// Moves all records or none.
pub const SR_LEGACY_STRICT: CK_ULONG = 1;
/// Says what would be moved.
pub const SR_LEGACY_DRY_RUN: CK_ULONG = 2;

/// The name of a managed key: owner and asset.
pub type Name<'n> = (&'n str, &'n str);

/// What `SR_GenerateKey` gives.
#[derive(Debug)]
pub struct Managed {
    /// The handle of the private or secret key.
    pub key: Handle,
    /// SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// The address.
    pub address: String,
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("texts are UTF-8")
}

impl Session {
    /// Finds a function; the caller names its type.
    pub(crate) fn vendor<F: Copy>(&self, name: &str) -> F {
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

    /// Calls `SR_GenerateKey` without a password.
    pub fn generate_managed(&self, name: Name) -> Result<Managed> {
        self.generate_under(name, None)
    }

    /// Calls `SR_GenerateKey`.
    pub(crate) fn generate_under(&self, (owner, asset): Name, password: Option<&[u8]>) -> Result<Managed> {
        type Generate = extern "C" fn(
            CK_SESSION_HANDLE,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            *mut Handle,
            *mut u8,
            *mut CK_ULONG,
            *mut u8,
            *mut CK_ULONG,
        ) -> CK_RV;
        let generate: Generate = self.vendor("SR_GenerateKey");
        let (mut key, mut public_key, mut address) = (0, vec![0; 1024], vec![0; 128]);
        let (mut public_len, mut address_len) = (public_key.len() as CK_ULONG, address.len() as CK_ULONG);
        let (password, password_len) = parts(password);
        check(generate(
            self.handle,
            owner.as_ptr(),
            owner.len() as CK_ULONG,
            asset.as_ptr(),
            asset.len() as CK_ULONG,
            password,
            password_len,
            &mut key,
            public_key.as_mut_ptr(),
            &mut public_len,
            address.as_mut_ptr(),
            &mut address_len,
        ))?;
        public_key.truncate(public_len as usize);
        address.truncate(address_len as usize);
        Ok(Managed { key, public_key, address: text(address) })
    }

    /// Calls `SR_FindKey`.
    pub fn find_managed(&self, (owner, asset): Name, version: CK_ULONG) -> Result<Handle> {
        type Find =
            extern "C" fn(CK_SESSION_HANDLE, *const u8, CK_ULONG, *const u8, CK_ULONG, CK_ULONG, *mut Handle) -> CK_RV;
        let find: Find = self.vendor("SR_FindKey");
        let (mut key, owner_len, asset_len) = (0, owner.len() as CK_ULONG, asset.len() as CK_ULONG);
        check(find(self.handle, owner.as_ptr(), owner_len, asset.as_ptr(), asset_len, version, &mut key))?;
        Ok(key)
    }

    /// Calls a function that tells of a managed key: `SR_GetKeyInfo`, `SR_ListVersions`, `SR_GetRotationPolicy`.
    pub fn tell_managed(&self, function: &str, (owner, asset): Name) -> Result<String> {
        type Tell =
            extern "C" fn(CK_SESSION_HANDLE, *const u8, CK_ULONG, *const u8, CK_ULONG, *mut u8, *mut CK_ULONG) -> CK_RV;
        let tell: Tell = self.vendor(function);
        let (owner_len, asset_len) = (owner.len() as CK_ULONG, asset.len() as CK_ULONG);
        output(|json, len| tell(self.handle, owner.as_ptr(), owner_len, asset.as_ptr(), asset_len, json, len)).map(text)
    }

    /// Calls `SR_GetAddress`.
    pub fn address(&self, (owner, asset): Name, version: CK_ULONG, form: &str) -> Result<String> {
        type Address = extern "C" fn(
            CK_SESSION_HANDLE,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            *mut u8,
            *mut CK_ULONG,
        ) -> CK_RV;
        let address: Address = self.vendor("SR_GetAddress");
        let [owner_len, asset_len, form_len] = [owner, asset, form].map(|text| text.len() as CK_ULONG);
        let (owner, asset, form) = (owner.as_ptr(), asset.as_ptr(), form.as_ptr());
        let call =
            |out, len| address(self.handle, owner, owner_len, asset, asset_len, version, form, form_len, out, len);
        output(call).map(text)
    }

    /// Calls `SR_SetVersionState`.
    pub fn set_version_state(&self, (owner, asset): Name, version: CK_ULONG, state: CK_ULONG) -> Result<()> {
        type Set =
            extern "C" fn(CK_SESSION_HANDLE, *const u8, CK_ULONG, *const u8, CK_ULONG, CK_ULONG, CK_ULONG) -> CK_RV;
        let set: Set = self.vendor("SR_SetVersionState");
        let (owner_len, asset_len) = (owner.len() as CK_ULONG, asset.len() as CK_ULONG);
        check(set(self.handle, owner.as_ptr(), owner_len, asset.as_ptr(), asset_len, version, state))
    }

    /// Calls `SR_DestroyVersion`.
    pub fn destroy_version(&self, (owner, asset): Name, version: CK_ULONG, confirmation: &str) -> Result<()> {
        type Destroy = extern "C" fn(
            CK_SESSION_HANDLE,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            CK_ULONG,
            *const u8,
            CK_ULONG,
        ) -> CK_RV;
        let destroy: Destroy = self.vendor("SR_DestroyVersion");
        let [owner_len, asset_len, len] = [owner, asset, confirmation].map(|text| text.len() as CK_ULONG);
        let (owner, asset, confirmation) = (owner.as_ptr(), asset.as_ptr(), confirmation.as_ptr());
        check(destroy(self.handle, owner, owner_len, asset, asset_len, version, confirmation, len))
    }

    /// Calls `SR_SignRecoverable`.
    pub fn sign_recoverable(&self, key: Handle, digest: &[u8]) -> Result<Vec<u8>> {
        type Sign = extern "C" fn(CK_SESSION_HANDLE, Handle, *const u8, CK_ULONG, *mut u8, *mut CK_ULONG) -> CK_RV;
        let sign: Sign = self.vendor("SR_SignRecoverable");
        output(|out, len| sign(self.handle, key, digest.as_ptr(), digest.len() as CK_ULONG, out, len))
    }

    /// Calls `SR_RotateKey`.
    pub fn rotate_managed(&self, (owner, asset): Name, expected: CK_ULONG) -> Result<Handle> {
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
        let (mut key, none) = (0, std::ptr::null());
        let (owner_len, asset_len) = (owner.len() as CK_ULONG, asset.len() as CK_ULONG);
        let (owner, asset) = (owner.as_ptr(), asset.as_ptr());
        check(rotate(self.handle, owner, owner_len, asset, asset_len, none, 0, none, 0, expected, &mut key))?;
        Ok(key)
    }

    /// Calls `SR_RotateDue`: gives how many were rotated, are left, and failed.
    pub fn rotate_due(&self, at_most: CK_ULONG) -> Result<[CK_ULONG; 3]> {
        type Rotate = extern "C" fn(CK_SESSION_HANDLE, CK_ULONG, *mut CK_ULONG, *mut CK_ULONG, *mut CK_ULONG) -> CK_RV;
        let rotate: Rotate = self.vendor("SR_RotateDue");
        let (mut rotated, mut left, mut failed) = (0, 0, 0);
        check(rotate(self.handle, at_most, &mut rotated, &mut left, &mut failed))?;
        Ok([rotated, left, failed])
    }

    /// Calls `SR_SetRotationPolicy`, with an interval, an age and a number of uses.
    pub fn set_rotation_policy(
        &self,
        (owner, asset): Name,
        [interval, age, uses]: [CK_ULONG; 3],
        auto_rotate: CK_BBOOL,
    ) -> Result<()> {
        type Set = extern "C" fn(
            CK_SESSION_HANDLE,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            CK_ULONG,
            CK_ULONG,
            CK_ULONG,
            CK_BBOOL,
        ) -> CK_RV;
        let set: Set = self.vendor("SR_SetRotationPolicy");
        let (owner_len, asset_len) = (owner.len() as CK_ULONG, asset.len() as CK_ULONG);
        let (owner, asset) = (owner.as_ptr(), asset.as_ptr());
        check(set(self.handle, owner, owner_len, asset, asset_len, interval, age, uses, auto_rotate))
    }

    /// Calls `SR_ImportLegacyHex`: gives how many were imported, present and failed, and what the call answered.
    pub fn import_legacy(&self, source: &str, report: &str, flags: CK_ULONG) -> ([CK_ULONG; 3], Result<()>) {
        type Import = extern "C" fn(
            CK_SESSION_HANDLE,
            *const u8,
            CK_ULONG,
            *const u8,
            CK_ULONG,
            CK_ULONG,
            *mut CK_ULONG,
            *mut CK_ULONG,
            *mut CK_ULONG,
        ) -> CK_RV;
        let import: Import = self.vendor("SR_ImportLegacyHex");
        let (mut imported, mut present, mut failed) = (99, 99, 99);
        let (source_len, report_len) = (source.len() as CK_ULONG, report.len() as CK_ULONG);
        let (source, report) = (source.as_ptr(), report.as_ptr());
        let counts = (&mut imported, &mut present, &mut failed);
        let rv = import(self.handle, source, source_len, report, report_len, flags, counts.0, counts.1, counts.2);
        ([imported, present, failed], check(rv))
    }
}
