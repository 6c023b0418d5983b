//! AES-GCM (SP 800-38D).
//!
//! The rules are:
//! - in one part, AWS-LC works straight from the caller's input to the caller's output, with the key's kept state;
//! - in parts, encryption streams, and decryption collects the ciphertext: no plaintext exists before the tag is verified;
//! - a decryption that fails leaves zeros in the output; when that is where the ciphertext was, the ciphertext is gone.

use std::ffi::c_int;
use std::ptr;

use aws_lc_sys as sys;
use smallvec::SmallVec;

use super::InOut;
use super::aes::{AesKey, BLOCK, new_context};
use super::cipher::{CipherOperation, Direction, Step, Written};
use super::lc::{Owned, check};
use super::locked::Locked;
use super::memory;
use crate::error::{Error, Kind, Result};

/// The lengths of tags in bytes (SP 800-38D, 5.2.1.2).
const TAGS: [usize; 7] = [4, 8, 12, 13, 14, 15, 16];
/// The most that AWS-LC's streaming functions take at once, in bytes.
const CHUNK: usize = 1 << 30;

/// The key and parameters of one GCM operation.
struct Gcm {
    key: AesKey,
    iv: SmallVec<[u8; 16]>,
    aad: SmallVec<[u8; 64]>,
    tag_len: usize,
    /// The state for tags shorter than 16 bytes; otherwise the key's own is used.
    short: Option<Locked<sys::EVP_AEAD_CTX>>,
}

impl Gcm {
    fn new(key: &AesKey, iv: &[u8], aad: &[u8], tag_len: usize) -> Result<Self> {
        if iv.is_empty() {
            return Err(Error::new(
                Kind::MechanismParamInvalid,
                "GCM needs an initialisation vector; 12 bytes are best",
            ));
        }
        if !TAGS.contains(&tag_len) {
            return Err(Error::new(Kind::MechanismParamInvalid, "a GCM tag has 128, 120, 112, 104, 96, 64 or 32 bits"));
        }
        let short = if tag_len == BLOCK { None } else { Some(key.new_gcm(tag_len)?) };
        Ok(Self { key: key.clone(), iv: copy(iv)?, aad: copy(aad)?, tag_len, short })
    }

    fn state(&self) -> Result<*const sys::EVP_AEAD_CTX> {
        match &self.short {
            Some(state) => Ok(state.as_ptr()),
            None => Ok(self.key.gcm()?.as_ptr()),
        }
    }

    /// Encrypts all of the input; the output has room for it and the tag.
    fn seal(&self, data: &InOut<'_>) -> Result<()> {
        let (state, len, mut written) = (self.state()?, data.len(), 0);
        let (iv, aad, tag) = (&self.iv, &self.aad, data.output().wrapping_add(len));
        // SAFETY: input and output have `len` bytes, and are the same or apart; the tag's room follows the output.
        let code = unsafe {
            sys::EVP_AEAD_CTX_seal_scatter(
                state,
                data.output(),
                tag,
                &raw mut written,
                self.tag_len,
                iv.as_ptr(),
                iv.len(),
                data.input(),
                len,
                ptr::null(),
                0,
                aad.as_ptr(),
                aad.len(),
            )
        };
        check(code, Kind::DataLenRange)
    }

    /// Decrypts `len` bytes of input and verifies the tag behind them. On failure the output holds zeros.
    fn open(&self, input: *const u8, output: *mut u8, len: usize) -> Result<()> {
        let (state, iv, aad, tag) = (self.state()?, &self.iv, &self.aad, input.wrapping_add(len));
        // SAFETY: callers vouch for `len` bytes of both, the tag behind the input, and that the two are the same or apart.
        let code = unsafe {
            sys::EVP_AEAD_CTX_open_gather(
                state,
                output,
                iv.as_ptr(),
                iv.len(),
                input,
                len,
                tag,
                self.tag_len,
                aad.as_ptr(),
                aad.len(),
            )
        };
        check(code, Kind::EncryptedDataInvalid)
            .map_err(|error| error.context("the GCM tag does not fit the ciphertext, the parameters and the key"))
    }

    /// Starts a streaming encryption and feeds it the associated data.
    fn stream(&self) -> Result<Owned<sys::EVP_CIPHER_CTX>> {
        memory::secret(|| self.new_stream())
    }

    fn new_stream(&self) -> Result<Owned<sys::EVP_CIPHER_CTX>> {
        let cipher = self.key.sized([sys::EVP_aes_128_gcm, sys::EVP_aes_192_gcm, sys::EVP_aes_256_gcm]);
        // SAFETY: takes no argument and gives a pointer to static data.
        let cipher = unsafe { cipher() };
        let context = new_context()?;
        let (to, none, iv_len) = (context.as_ptr(), ptr::null_mut(), c_len(self.iv.len())?);
        // SAFETY: the context is fresh; key and IV come below; there is no engine.
        check(unsafe { sys::EVP_EncryptInit_ex(to, cipher, none, ptr::null(), ptr::null()) }, Kind::GeneralError)?;
        // SAFETY: the context is a GCM context, and this command takes no pointer.
        let code = unsafe { sys::EVP_CIPHER_CTX_ctrl(to, sys::EVP_CTRL_AEAD_SET_IVLEN, iv_len, ptr::null_mut()) };
        check(code, Kind::MechanismParamInvalid)?;
        let (key, iv) = (self.key.raw().as_ptr(), self.iv.as_ptr());
        // SAFETY: the key has the cipher's length and the IV the length just set.
        check(unsafe { sys::EVP_EncryptInit_ex(to, ptr::null(), none, key, iv) }, Kind::GeneralError)?;
        self.aad
            .chunks(CHUNK)
            .try_for_each(|part| stream_part(&context, part.as_ptr(), ptr::null_mut(), part.len()))?;
        Ok(context)
    }
}

/// A running GCM encryption; the tag follows the ciphertext.
pub struct GcmEncryption {
    gcm: Gcm,
    stream: Option<Owned<sys::EVP_CIPHER_CTX>>,
}

impl GcmEncryption {
    /// Starts an encryption with a tag of so many bytes: 16, 15, 14, 13, 12, 8 or 4.
    ///
    /// # Errors
    /// `MechanismParamInvalid` for an empty IV or another length of the tag.
    pub fn new(key: &AesKey, iv: &[u8], aad: &[u8], tag_len: usize) -> Result<Self> {
        Ok(Self { gcm: Gcm::new(key, iv, aad, tag_len)?, stream: None })
    }

    fn stream(&mut self) -> Result<&Owned<sys::EVP_CIPHER_CTX>> {
        match self.stream {
            Some(ref stream) => Ok(stream),
            None => Ok(self.stream.insert(self.gcm.stream()?)),
        }
    }
}

impl CipherOperation for GcmEncryption {
    fn output_len(&self, step: Step, input: usize) -> usize {
        match step {
            Step::Single => input.saturating_add(self.gcm.tag_len),
            Step::Update => input,
            Step::Final => self.gcm.tag_len,
        }
    }

    fn single(&mut self, data: InOut<'_>) -> Result<Written> {
        let needed = self.output_len(Step::Single, data.len());
        if data.room() < needed {
            return Ok(Written::Needs(needed));
        }
        self.gcm.seal(&data)?;
        Ok(Written::Bytes(needed))
    }

    fn update(&mut self, data: InOut<'_>) -> Result<Written> {
        let len = data.len();
        if data.room() < len {
            return Ok(Written::Needs(len));
        }
        let stream = self.stream()?;
        for offset in (0..len).step_by(CHUNK) {
            let (from, to) = (data.input().wrapping_add(offset), data.output().wrapping_add(offset));
            stream_part(stream, from, to, CHUNK.min(len - offset))?;
        }
        Ok(Written::Bytes(len))
    }

    fn finish(&mut self, mut data: InOut<'_>) -> Result<Written> {
        let tag_len = self.gcm.tag_len;
        if data.room() < tag_len {
            return Ok(Written::Needs(tag_len));
        }
        let (stream, mut tag, mut none, mut len) = (self.stream()?.as_ptr(), [0; BLOCK], [0; BLOCK], 0);
        // SAFETY: the stream is initialised; GCM writes nothing at its end; `len` is a valid place for that length.
        check(unsafe { sys::EVP_EncryptFinal_ex(stream, none.as_mut_ptr(), &raw mut len) }, Kind::GeneralError)?;
        let (get, all) = (sys::EVP_CTRL_AEAD_GET_TAG, c_len(BLOCK)?);
        // SAFETY: the stream has ended and `tag` has room for the whole tag.
        check(unsafe { sys::EVP_CIPHER_CTX_ctrl(stream, get, all, tag.as_mut_ptr().cast()) }, Kind::GeneralError)?;
        data.write(tag.get(..tag_len).unwrap_or(&tag));
        Ok(Written::Bytes(tag_len))
    }
}

/// A running GCM decryption; the tag follows the ciphertext.
pub struct GcmDecryption {
    gcm: Gcm,
    /// Ciphertext and tag so far. They are no secret, so this is plain memory.
    collected: Vec<u8>,
}

impl GcmDecryption {
    /// Starts a decryption; otherwise as [`GcmEncryption::new`].
    ///
    /// # Errors
    /// As [`GcmEncryption::new`].
    pub fn new(key: &AesKey, iv: &[u8], aad: &[u8], tag_len: usize) -> Result<Self> {
        Ok(Self { gcm: Gcm::new(key, iv, aad, tag_len)?, collected: Vec::new() })
    }

    /// Decrypts ciphertext and tag, `total` bytes at `input`, which the caller vouches for.
    fn open(&self, input: *const u8, total: usize, data: &InOut<'_>) -> Result<Written> {
        let Some(len) = total.checked_sub(self.gcm.tag_len) else {
            return Err(Direction::Decrypt.wrong_length("the ciphertext is shorter than its tag"));
        };
        if data.room() < len {
            return Ok(Written::Needs(len));
        }
        self.gcm.open(input, data.output(), len)?;
        Ok(Written::Bytes(len))
    }
}

impl CipherOperation for GcmDecryption {
    fn output_len(&self, step: Step, input: usize) -> usize {
        match step {
            Step::Single => input.saturating_sub(self.gcm.tag_len),
            Step::Update => 0,
            Step::Final => self.collected.len().saturating_sub(self.gcm.tag_len),
        }
    }

    fn single(&mut self, data: InOut<'_>) -> Result<Written> {
        self.open(data.input(), data.len(), &data)
    }

    fn update(&mut self, data: InOut<'_>) -> Result<Written> {
        data.append_to(&mut self.collected)?;
        Ok(Written::Bytes(0))
    }

    fn finish(&mut self, data: InOut<'_>) -> Result<Written> {
        self.open(self.collected.as_ptr(), self.collected.len(), &data)
    }
}

/// Feeds a streaming encryption: data when there is an output, associated data when there is none.
///
/// Both pointers are valid for `len` bytes, and are the same or apart.
fn stream_part(stream: &Owned<sys::EVP_CIPHER_CTX>, input: *const u8, output: *mut u8, len: usize) -> Result<()> {
    let (mut written, len) = (0, c_len(len)?);
    // SAFETY: as this function demands; `written` is a valid place for the length.
    let code = unsafe { sys::EVP_EncryptUpdate(stream.as_ptr(), output, &raw mut written, input, len) };
    check(code, Kind::DataLenRange)
}

/// Copies a parameter, whose length the caller of the library decides.
fn copy<const N: usize>(bytes: &[u8]) -> Result<SmallVec<[u8; N]>>
where
    [u8; N]: smallvec::Array<Item = u8>,
{
    let mut all = SmallVec::new();
    all.try_reserve_exact(bytes.len())?;
    all.extend_from_slice(bytes);
    Ok(all)
}

fn c_len(len: usize) -> Result<c_int> {
    c_int::try_from(len).map_err(|_| Error::from(Kind::MechanismParamInvalid))
}
