//! A session and what is done in it.

use crate::ck::*;
use crate::mechanism::Mechanism;
use crate::module::Module;
use crate::template::Template;
use crate::{Result, Rv, call, check, output};

/// An object handle.
pub type Handle = CK_OBJECT_HANDLE;

/// An open session. It does not close itself: when sessions end is what tests are about.
#[derive(Clone, Copy)]
pub struct Session {
    /// The module.
    pub module: &'static Module,
    /// The handle.
    pub handle: CK_SESSION_HANDLE,
}

fn ptr(bytes: &[u8]) -> *mut u8 {
    bytes.as_ptr().cast_mut()
}

fn len(bytes: &[u8]) -> CK_ULONG {
    bytes.len() as CK_ULONG
}

/// Declares `x_init(mechanism, key)` and its like.
macro_rules! inits {
    ($($name:ident = $function:ident;)*) => {
        $(
            #[doc = concat!("Calls `", stringify!($function), "`.")]
            pub fn $name(&self, mechanism: &Mechanism, key: Handle) -> Result<()> {
                check(call!(self.module, $function(self.handle, &mut mechanism.raw(), key)))
            }
        )*
    };
}

/// Declares calls with bytes in and bytes out, as the two-call convention has them.
macro_rules! transforms {
    ($($name:ident = $function:ident;)*) => {
        $(
            #[doc = concat!("Calls `", stringify!($function), "` for the size and then for the bytes.")]
            pub fn $name(&self, data: &[u8]) -> Result<Vec<u8>> {
                output(|out, out_len| call!(self.module, $function(self.handle, ptr(data), len(data), out, out_len)))
            }
        )*
    };
}

/// Declares calls that end a multi-part operation with bytes out.
macro_rules! finals {
    ($($name:ident = $function:ident;)*) => {
        $(
            #[doc = concat!("Calls `", stringify!($function), "` for the size and then for the bytes.")]
            pub fn $name(&self) -> Result<Vec<u8>> {
                output(|out, out_len| call!(self.module, $function(self.handle, out, out_len)))
            }
        )*
    };
}

/// Declares calls with bytes in only.
macro_rules! feeds {
    ($($name:ident = $function:ident;)*) => {
        $(
            #[doc = concat!("Calls `", stringify!($function), "`.")]
            pub fn $name(&self, data: &[u8]) -> Result<()> {
                check(call!(self.module, $function(self.handle, ptr(data), len(data))))
            }
        )*
    };
}

impl Session {
    inits! {
        sign_init = C_SignInit;
        verify_init = C_VerifyInit;
        encrypt_init = C_EncryptInit;
        decrypt_init = C_DecryptInit;
        sign_recover_init = C_SignRecoverInit;
        verify_recover_init = C_VerifyRecoverInit;
    }

    transforms! {
        sign_once = C_Sign;
        encrypt_once = C_Encrypt;
        decrypt_once = C_Decrypt;
        digest_once = C_Digest;
        encrypt_update = C_EncryptUpdate;
        decrypt_update = C_DecryptUpdate;
    }

    finals! {
        sign_final = C_SignFinal;
        digest_final = C_DigestFinal;
        encrypt_final = C_EncryptFinal;
        decrypt_final = C_DecryptFinal;
    }

    feeds! {
        sign_update = C_SignUpdate;
        verify_update = C_VerifyUpdate;
        digest_update = C_DigestUpdate;
        verify_final = C_VerifyFinal;
    }

    /// Calls `C_DigestInit`.
    pub fn digest_init(&self, mechanism: &Mechanism) -> Result<()> {
        check(call!(self.module, C_DigestInit(self.handle, &mut mechanism.raw())))
    }

    /// Calls `C_Verify`.
    pub fn verify_once(&self, data: &[u8], signature: &[u8]) -> Result<()> {
        check(call!(self.module, C_Verify(self.handle, ptr(data), len(data), ptr(signature), len(signature))))
    }

    /// Signs in one part.
    pub fn sign(&self, mechanism: &Mechanism, key: Handle, data: &[u8]) -> Result<Vec<u8>> {
        self.sign_init(mechanism, key)?;
        self.sign_once(data)
    }

    /// Verifies in one part.
    pub fn verify(&self, mechanism: &Mechanism, key: Handle, data: &[u8], signature: &[u8]) -> Result<()> {
        self.verify_init(mechanism, key)?;
        self.verify_once(data, signature)
    }

    /// Encrypts in one part.
    pub fn encrypt(&self, mechanism: &Mechanism, key: Handle, data: &[u8]) -> Result<Vec<u8>> {
        self.encrypt_init(mechanism, key)?;
        self.encrypt_once(data)
    }

    /// Decrypts in one part.
    pub fn decrypt(&self, mechanism: &Mechanism, key: Handle, data: &[u8]) -> Result<Vec<u8>> {
        self.decrypt_init(mechanism, key)?;
        self.decrypt_once(data)
    }

    /// Digests in one part.
    pub fn digest(&self, mechanism: &Mechanism, data: &[u8]) -> Result<Vec<u8>> {
        self.digest_init(mechanism)?;
        self.digest_once(data)
    }

    /// Logs a user in.
    pub fn login(&self, user: CK_USER_TYPE, pin: &str) -> Result<()> {
        check(call!(self.module, C_Login(self.handle, user, ptr(pin.as_bytes()), len(pin.as_bytes()))))
    }

    /// Logs a user in without a PIN: NULL asks for the token's own way to open.
    pub fn login_without_pin(&self, user: CK_USER_TYPE) -> Result<()> {
        check(call!(self.module, C_Login(self.handle, user, std::ptr::null_mut(), 0)))
    }

    /// Calls `C_SessionCancel`.
    pub fn cancel(&self, flags: CK_FLAGS) -> Result<()> {
        let cancel = self.module.list_3_2().expect("the 3.2 table").C_SessionCancel.expect("no NULL");
        // SAFETY: it takes numbers alone.
        check(unsafe { cancel(self.handle, flags) })
    }

    /// Asks `C_DigestEncryptUpdate` for the length of its output.
    pub fn digest_encrypt_len(&self, part: &[u8]) -> Result<CK_ULONG> {
        let mut needed = 0;
        let none = std::ptr::null_mut();
        check(call!(self.module, C_DigestEncryptUpdate(self.handle, ptr(part), len(part), none, &mut needed)))?;
        Ok(needed)
    }

    /// Logs out.
    pub fn logout(&self) -> Result<()> {
        check(call!(self.module, C_Logout(self.handle)))
    }

    /// Sets the user PIN, as SO.
    pub fn init_pin(&self, pin: &str) -> Result<()> {
        check(call!(self.module, C_InitPIN(self.handle, ptr(pin.as_bytes()), len(pin.as_bytes()))))
    }

    /// Changes the PIN of whoever is logged in.
    pub fn set_pin(&self, old: &str, new: &str) -> Result<()> {
        let (old, new) = (old.as_bytes(), new.as_bytes());
        check(call!(self.module, C_SetPIN(self.handle, ptr(old), len(old), ptr(new), len(new))))
    }

    /// Closes the session.
    pub fn close(&self) -> Result<()> {
        check(call!(self.module, C_CloseSession(self.handle)))
    }

    /// Tells about the session.
    pub fn info(&self) -> Result<CK_SESSION_INFO> {
        let mut info = CK_SESSION_INFO::default();
        check(call!(self.module, C_GetSessionInfo(self.handle, &mut info)))?;
        Ok(info)
    }

    /// Creates an object.
    pub fn create(&self, template: &Template) -> Result<Handle> {
        let (mut raw, mut handle) = (template.raw(), 0);
        let count = raw.len() as CK_ULONG;
        check(call!(self.module, C_CreateObject(self.handle, raw.as_mut_ptr(), count, &mut handle)))?;
        Ok(handle)
    }

    /// Copies an object.
    pub fn copy(&self, object: Handle, template: &Template) -> Result<Handle> {
        let (mut raw, mut handle) = (template.raw(), 0);
        let count = raw.len() as CK_ULONG;
        check(call!(self.module, C_CopyObject(self.handle, object, raw.as_mut_ptr(), count, &mut handle)))?;
        Ok(handle)
    }

    /// Destroys an object.
    pub fn destroy(&self, object: Handle) -> Result<()> {
        check(call!(self.module, C_DestroyObject(self.handle, object)))
    }

    /// Generates a secret key.
    pub fn generate_key(&self, mechanism: &Mechanism, template: &Template) -> Result<Handle> {
        let (mut raw, mut handle) = (template.raw(), 0);
        let count = raw.len() as CK_ULONG;
        let mut mechanism = mechanism.raw();
        check(call!(self.module, C_GenerateKey(self.handle, &mut mechanism, raw.as_mut_ptr(), count, &mut handle)))?;
        Ok(handle)
    }

    /// Generates a key pair: public, private.
    pub fn generate_pair(
        &self,
        mechanism: &Mechanism,
        public: &Template,
        private: &Template,
    ) -> Result<(Handle, Handle)> {
        let (mut public, mut private) = (public.raw(), private.raw());
        let (mut public_key, mut private_key) = (0, 0);
        let mut mechanism = mechanism.raw();
        check(call!(
            self.module,
            C_GenerateKeyPair(
                self.handle,
                &mut mechanism,
                public.as_mut_ptr(),
                public.len() as CK_ULONG,
                private.as_mut_ptr(),
                private.len() as CK_ULONG,
                &mut public_key,
                &mut private_key,
            )
        ))?;
        Ok((public_key, private_key))
    }

    /// Wraps a key.
    pub fn wrap(&self, mechanism: &Mechanism, wrapping: Handle, key: Handle) -> Result<Vec<u8>> {
        let mut raw = mechanism.raw();
        output(|out, out_len| call!(self.module, C_WrapKey(self.handle, &mut raw, wrapping, key, out, out_len)))
    }

    /// Unwraps a key.
    pub fn unwrap(&self, mechanism: &Mechanism, key: Handle, wrapped: &[u8], template: &Template) -> Result<Handle> {
        let (mut mechanism, mut raw, mut handle) = (mechanism.raw(), template.raw(), 0);
        let count = raw.len() as CK_ULONG;
        check(call!(
            self.module,
            C_UnwrapKey(
                self.handle,
                &mut mechanism,
                key,
                ptr(wrapped),
                len(wrapped),
                raw.as_mut_ptr(),
                count,
                &mut handle
            )
        ))?;
        Ok(handle)
    }

    /// Derives a key.
    pub fn derive(&self, mechanism: &Mechanism, key: Handle, template: &Template) -> Result<Handle> {
        let (mut mechanism, mut raw, mut handle) = (mechanism.raw(), template.raw(), 0);
        let count = raw.len() as CK_ULONG;
        check(call!(self.module, C_DeriveKey(self.handle, &mut mechanism, key, raw.as_mut_ptr(), count, &mut handle)))?;
        Ok(handle)
    }

    /// Starts a find.
    pub fn find_init(&self, template: &Template) -> Result<()> {
        let mut raw = template.raw();
        let count = raw.len() as CK_ULONG;
        check(call!(self.module, C_FindObjectsInit(self.handle, raw.as_mut_ptr(), count)))
    }

    /// Gets at most so many found objects.
    pub fn find_some(&self, most: usize) -> Result<Vec<Handle>> {
        let (mut found, mut count) = (vec![0; most], 0);
        check(call!(self.module, C_FindObjects(self.handle, found.as_mut_ptr(), most as CK_ULONG, &mut count)))?;
        found.truncate(count as usize);
        Ok(found)
    }

    /// Ends a find.
    pub fn find_final(&self) -> Result<()> {
        check(call!(self.module, C_FindObjectsFinal(self.handle)))
    }

    /// Finds all objects that match.
    pub fn find(&self, template: &Template) -> Result<Vec<Handle>> {
        self.find_init(template)?;
        let mut all = Vec::new();
        loop {
            let some = self.find_some(16)?;
            if some.is_empty() {
                break;
            }
            all.extend(some);
        }
        self.find_final()?;
        Ok(all)
    }

    /// Finds the one object that matches.
    pub fn find_one(&self, template: &Template) -> Result<Handle> {
        let found = self.find(template)?;
        assert_eq!(found.len(), 1, "exactly one object matches {template:?}");
        Ok(found[0])
    }

    /// Reads one attribute: its size, then its value.
    pub fn get(&self, object: Handle, kind: CK_ATTRIBUTE_TYPE) -> Result<Vec<u8>> {
        let mut attribute = CK_ATTRIBUTE { type_: kind, ..Default::default() };
        self.get_raw(object, std::slice::from_mut(&mut attribute))?;
        if attribute.ulValueLen == CK_ULONG::MAX {
            panic!("C_GetAttributeValue answered CKR_OK with CK_UNAVAILABLE_INFORMATION for attribute {kind:#x}");
        }
        let mut value = vec![0u8; attribute.ulValueLen as usize + 1];
        attribute.pValue = value.as_mut_ptr().cast();
        attribute.ulValueLen = value.len() as CK_ULONG;
        self.get_raw(object, std::slice::from_mut(&mut attribute))?;
        value.truncate(attribute.ulValueLen as usize);
        Ok(value)
    }

    /// Reads a `CK_BBOOL`.
    pub fn get_bool(&self, object: Handle, kind: CK_ATTRIBUTE_TYPE) -> Result<bool> {
        match self.get(object, kind)?.as_slice() {
            [0] => Ok(false),
            [1] => Ok(true),
            other => panic!("attribute {kind:#x} is no CK_BBOOL: {other:x?}"),
        }
    }

    /// Reads a `CK_ULONG`.
    pub fn get_ulong(&self, object: Handle, kind: CK_ATTRIBUTE_TYPE) -> Result<CK_ULONG> {
        let value = self.get(object, kind)?;
        Ok(CK_ULONG::from_ne_bytes(
            value.try_into().unwrap_or_else(|other| panic!("{kind:#x} is no CK_ULONG: {other:x?}")),
        ))
    }

    /// Calls `C_GetAttributeValue`.
    pub fn get_raw(&self, object: Handle, attributes: &mut [CK_ATTRIBUTE]) -> Result<()> {
        let count = attributes.len() as CK_ULONG;
        check(call!(self.module, C_GetAttributeValue(self.handle, object, attributes.as_mut_ptr(), count)))
    }

    /// Changes attributes.
    pub fn set(&self, object: Handle, template: &Template) -> Result<()> {
        let mut raw = template.raw();
        let count = raw.len() as CK_ULONG;
        check(call!(self.module, C_SetAttributeValue(self.handle, object, raw.as_mut_ptr(), count)))
    }

    /// Gives random bytes.
    pub fn random(&self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0u8; count];
        check(call!(self.module, C_GenerateRandom(self.handle, bytes.as_mut_ptr(), count as CK_ULONG)))?;
        Ok(bytes)
    }

    /// Calls a function of output convention with a buffer of exactly this size; gives the return value and the length.
    pub fn sized(&self, size: usize, call: impl FnOnce(*mut u8, *mut CK_ULONG) -> CK_RV) -> (Rv, CK_ULONG) {
        let mut buffer = vec![0xa5u8; size + 16];
        let mut out_len = size as CK_ULONG;
        let rv = call(buffer.as_mut_ptr(), &mut out_len);
        assert!(buffer[size..].iter().all(|byte| *byte == 0xa5), "the call wrote behind its buffer");
        (Rv(rv), out_len)
    }
}
