//! OpenSSL's libcrypto of the machine, loaded at run time: the independent judge of keys and signatures.

use std::sync::LazyLock;

use libloading::Library;

static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    // SAFETY: libcrypto's constructors are harmless.
    ["libcrypto.so.3", "libcrypto.so.1.1"]
        .iter()
        .find_map(|name| unsafe { Library::new(*name) }.ok())
        .expect("the tests need OpenSSL's libcrypto to judge signatures independently; install openssl")
});

/// Gives a function of libcrypto.
fn function<T: Copy>(name: &str) -> T {
    // SAFETY: the callers name the types as OpenSSL's headers do.
    *unsafe { LIBRARY.get::<T>(name.as_bytes()) }.unwrap_or_else(|error| panic!("libcrypto lacks {name}: {error}"))
}

/// A public key.
pub struct PublicKey(*mut u8);

type D2i = unsafe extern "C" fn(*mut *mut u8, *mut *const u8, i64) -> *mut u8;
type NewContext = unsafe extern "C" fn(*mut u8, *mut u8) -> *mut u8;
type OneArgument = unsafe extern "C" fn(*mut u8) -> i32;
type Free = unsafe extern "C" fn(*mut u8);
type Verify = unsafe extern "C" fn(*mut u8, *const u8, usize, *const u8, usize) -> i32;
type Hash = unsafe extern "C" fn(*const u8, usize, *mut u8) -> *mut u8;

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo, whole.
    pub fn from_spki(spki: &[u8]) -> Option<Self> {
        let mut at = spki.as_ptr();
        // SAFETY: the pointers are those of a live slice.
        let key = unsafe { function::<D2i>("d2i_PUBKEY")(std::ptr::null_mut(), &mut at, spki.len() as i64) };
        let consumed = at as usize - spki.as_ptr() as usize;
        (!key.is_null() && consumed == spki.len()).then_some(Self(key))
    }

    /// Verifies an ECDSA signature r ‖ s over a digest.
    pub fn verify_ecdsa(&self, digest: &[u8], signature: &[u8]) -> bool {
        let der = ecdsa_der(signature);
        // SAFETY: the key lives, and each context is used by this thread alone.
        unsafe {
            let context = function::<NewContext>("EVP_PKEY_CTX_new")(self.0, std::ptr::null_mut());
            assert_eq!(function::<OneArgument>("EVP_PKEY_verify_init")(context), 1);
            let verdict =
                function::<Verify>("EVP_PKEY_verify")(context, der.as_ptr(), der.len(), digest.as_ptr(), digest.len());
            function::<Free>("EVP_PKEY_CTX_free")(context);
            verdict == 1
        }
    }

    /// Verifies an EdDSA signature over a message.
    pub fn verify_eddsa(&self, message: &[u8], signature: &[u8]) -> bool {
        type Init = unsafe extern "C" fn(*mut u8, *mut *mut u8, *const u8, *mut u8, *mut u8) -> i32;
        // SAFETY: as above.
        unsafe {
            let context = function::<unsafe extern "C" fn() -> *mut u8>("EVP_MD_CTX_new")();
            let null = std::ptr::null_mut;
            let init = function::<Init>("EVP_DigestVerifyInit")(
                context,
                std::ptr::null_mut(),
                std::ptr::null(),
                null(),
                self.0,
            );
            assert_eq!(init, 1);
            let verdict = function::<Verify>("EVP_DigestVerify")(
                context,
                signature.as_ptr(),
                signature.len(),
                message.as_ptr(),
                message.len(),
            );
            function::<Free>("EVP_MD_CTX_free")(context);
            verdict == 1
        }
    }
}

impl Drop for PublicKey {
    fn drop(&mut self) {
        // SAFETY: the key is ours.
        unsafe { function::<Free>("EVP_PKEY_free")(self.0) }
    }
}

/// Digests with SHA-1.
pub fn sha1(data: &[u8]) -> Vec<u8> {
    hash("SHA1", 20, data)
}

/// Digests with SHA-256.
pub fn sha256(data: &[u8]) -> Vec<u8> {
    hash("SHA256", 32, data)
}

fn hash(name: &str, size: usize, data: &[u8]) -> Vec<u8> {
    let mut digest = vec![0u8; size];
    // SAFETY: the buffer has the digest's size.
    unsafe { function::<Hash>(name)(data.as_ptr(), data.len(), digest.as_mut_ptr()) };
    digest
}

/// Writes r ‖ s as DER.
fn ecdsa_der(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(signature.len() / 2);
    let body = [integer(r), integer(s)].concat();
    tlv(0x30, &body)
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
    let mut value = bytes[start..].to_vec();
    if value[0] & 0x80 != 0 {
        value.insert(0, 0);
    }
    tlv(2, &value)
}

/// Writes a DER element.
pub fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    match value.len() {
        len @ 0..=0x7f => der.push(len as u8),
        len @ 0x80..=0xff => der.extend([0x81, len as u8]),
        len => der.extend([0x82, (len >> 8) as u8, len as u8]),
    }
    der.extend(value);
    der
}

/// Reads the element that starts here: tag, value, rest.
pub fn read_tlv(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(*rest.first()?) << 8 | usize::from(*rest.get(1)?), &rest[2..]),
        _ => return None,
    };
    Some((tag, rest.get(..len)?, rest.get(len..)?))
}
