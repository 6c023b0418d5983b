//! The blobs of all providers: what comes from the service, in a frame of ours.
//!
//! The rules are:
//! - the frame names the context by its digest, so that a blob of another token or purpose is told before the service is asked;
//! - a service that authenticates context itself is given token and purpose, and its ciphertext follows the frame;
//! - one that does not is given a fresh key to wrap; under that key the secret is sealed here, with frame, context and master
//!   key as associated data;
//! - a master key that is here (`local`) seals in the same way, with nothing wrapped in between.
//!
//! `docs/format.md` has the bytes.

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{Aes256Gcm, KeyInit};
use sha2::{Digest, Sha256};

use super::no_randomness;
use super::provider::{Context, DATA_KEY_LEN, MasterKeyId, Wrapped};
use crate::error::{Error, KmsFault, Result};
use crate::secret::{SecureBytes, wiping_stack};

/// Magic and format version: how each blob starts.
const MAGIC: [u8; 5] = *b"SRKW\x01";
/// The service authenticates the context.
const DIRECT: u8 = 1;
/// The context is authenticated here, under a key that the service wraps.
const SEALED: u8 = 2;
const DIGEST_LEN: usize = 32;
/// Magic, format version and mode.
const START_LEN: usize = MAGIC.len() + 1;
const FRAME_LEN: usize = START_LEN + DIGEST_LEN;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// What to do about a blob that does not open.
const CURE: &str = "run `strongroom doctor` and restore the store from a backup";

/// Frames the ciphertext of a service that authenticates the context itself.
#[cfg_attr(not(any(feature = "aws-kms", feature = "google-kms")), allow(dead_code))]
pub fn frame(context: &Context<'_>, ciphertext: &[u8]) -> Result<Vec<u8>> {
    Ok([&start(DIRECT, context)?[..], ciphertext].concat())
}

/// Takes the ciphertext out of a frame.
///
/// # Errors
/// `WrongContext` for a blob of another token or purpose; `Tampered` for what is no such blob.
pub fn unframe<'a>(blob: &'a [u8], context: &Context<'_>) -> Result<&'a [u8]> {
    open_frame(DIRECT, blob, context)
}

/// Wraps a secret by a service that knows no context: `wrap` wraps a fresh key of 32 bytes.
///
/// # Errors
/// What `wrap` answers.
#[cfg_attr(not(any(feature = "azure-kv", feature = "hsm")), allow(dead_code))]
pub fn seal(
    secret: &SecureBytes,
    context: &Context<'_>,
    wrap: impl FnOnce(&SecureBytes) -> Result<Wrapped>,
) -> Result<Wrapped> {
    let key = SecureBytes::try_with(DATA_KEY_LEN, getrandom::fill).map_err(no_randomness)?;
    let Wrapped { master_key, blob: wrapped } = wrap(&key)?;
    let len =
        u16::try_from(wrapped.len()).map_err(|_| tampered("the KMS answered with a wrapped key that is too long"))?;
    let (start, sealed) = encrypt(SEALED, &key, &master_key, context, secret)?;
    Ok(Wrapped { master_key, blob: [&start[..], &len.to_be_bytes(), &wrapped, &sealed].concat() })
}

/// Unwraps what [`seal`] wrapped: `unwrap` unwraps the key of 32 bytes.
///
/// # Errors
/// `WrongContext` for a blob of another token or purpose, `Tampered` for one that was altered, and what `unwrap` answers.
#[cfg_attr(not(any(feature = "azure-kv", feature = "hsm")), allow(dead_code))]
pub fn open(
    wrapped: &Wrapped,
    context: &Context<'_>,
    unwrap: impl FnOnce(&[u8]) -> Result<SecureBytes>,
) -> Result<SecureBytes> {
    let short = || tampered("the wrapped blob is damaged: it is too short");
    let rest = open_frame(SEALED, &wrapped.blob, context)?;
    let (len, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let (key, rest) = rest.split_at_checked(u16::from_be_bytes(*len).into()).ok_or_else(short)?;
    decrypt(SEALED, &unwrap(key)?, &wrapped.master_key, context, rest)
}

/// Wraps a secret under a master key that is here, of 32 bytes.
///
/// # Errors
/// `Failed` without randomness.
pub fn wrap_here(key: &SecureBytes, id: MasterKeyId, context: &Context<'_>, secret: &SecureBytes) -> Result<Wrapped> {
    let (start, sealed) = encrypt(DIRECT, key, &id, context, secret)?;
    Ok(Wrapped { master_key: id, blob: [&start[..], &sealed].concat() })
}

/// Unwraps what [`wrap_here`] wrapped.
///
/// # Errors
/// `WrongContext` for a blob of another token or purpose, `Tampered` for one that was altered.
pub fn unwrap_here(key: &SecureBytes, wrapped: &Wrapped, context: &Context<'_>) -> Result<SecureBytes> {
    decrypt(DIRECT, key, &wrapped.master_key, context, unframe(&wrapped.blob, context)?)
}

/// Seals with AES-256-GCM and a random nonce: gives what the blob starts with, and nonce, ciphertext and tag.
fn encrypt(
    mode: u8,
    key: &SecureBytes,
    id: &MasterKeyId,
    context: &Context<'_>,
    secret: &SecureBytes,
) -> Result<([u8; FRAME_LEN], Vec<u8>)> {
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(no_randomness)?;
    let start = start(mode, context)?;
    let mut ciphertext = vec![0; secret.len()];
    let buffers = InOutBuf::new(secret.expose(), &mut ciphertext).expect("both have the secret's length");
    let tag = cipher(key)?
        .encrypt_inout_detached(&nonce.into(), &associated_data(&start, id, context)?, buffers)
        .map_err(|_| Error::arguments_bad("the secret is too long to be wrapped"))?;
    Ok((start, [&nonce[..], &ciphertext, &tag].concat()))
}

/// Opens nonce, ciphertext and tag that [`encrypt`] made.
fn decrypt(mode: u8, key: &SecureBytes, id: &MasterKeyId, context: &Context<'_>, sealed: &[u8]) -> Result<SecureBytes> {
    let short = || tampered("the wrapped blob is damaged: it is too short");
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(short)?;
    let (ciphertext, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or_else(short)?;
    let (cipher, data) = (cipher(key)?, associated_data(&start(mode, context)?, id, context)?);
    SecureBytes::try_with(ciphertext.len(), |plain| {
        let buffers = InOutBuf::new(ciphertext, plain).expect("both have the ciphertext's length");
        // The cipher leaves copies of the plaintext on the stack.
        wiping_stack(|| cipher.decrypt_inout_detached(&(*nonce).into(), &data, buffers, &(*tag).into()))
            .map_err(|_| tampered("the wrapped blob does not open under the master key: it is damaged or was altered"))
    })
}

/// Makes what a blob starts with.
fn start(mode: u8, context: &Context<'_>) -> Result<[u8; FRAME_LEN]> {
    let mut start = [0; FRAME_LEN];
    let bytes = MAGIC.into_iter().chain([mode]).chain(digest(context)?);
    start.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
    Ok(start)
}

/// Checks what a blob starts with and gives the rest.
fn open_frame<'a>(mode: u8, blob: &'a [u8], context: &Context<'_>) -> Result<&'a [u8]> {
    let (found, rest) = blob
        .split_first_chunk::<FRAME_LEN>()
        .ok_or_else(|| tampered("the wrapped blob is damaged: it is too short"))?;
    let wanted = start(mode, context)?;
    let ([found_start, ..], [wanted_start, ..]) = (found.as_chunks::<START_LEN>().0, wanted.as_chunks::<START_LEN>().0)
    else {
        return Err(tampered("the wrapped blob is damaged: it is too short"));
    };
    if found_start != wanted_start {
        return Err(tampered(format!(
            "the wrapped blob starts with {}, and {} is wanted: it is damaged, of another provider or of a newer version",
            data_encoding::HEXLOWER.encode(found_start),
            data_encoding::HEXLOWER.encode(wanted_start),
        )));
    }
    if *found != wanted {
        let text = format!(
            "the wrapped blob belongs to another token or purpose than token {}, {}; {CURE}",
            context.token.escape_debug(),
            context.purpose
        );
        return Err(Error::kms(KmsFault::WrongContext, text));
    }
    Ok(rest)
}

/// Encodes a context: a prefix, and each text with its length in front, so that no two contexts look the same. It is what the
/// frame has the digest of, and what a service is given that takes associated data as bytes.
pub fn context_bytes(context: &Context<'_>) -> Result<Vec<u8>> {
    let mut bytes = b"strongroom kms context v1".to_vec();
    for text in [context.token, context.purpose] {
        bytes.extend(len(text)?);
        bytes.extend_from_slice(text.as_bytes());
    }
    Ok(bytes)
}

fn digest(context: &Context<'_>) -> Result<[u8; DIGEST_LEN]> {
    Ok(Sha256::digest(context_bytes(context)?).into())
}

fn associated_data(start: &[u8], id: &MasterKeyId, context: &Context<'_>) -> Result<Vec<u8>> {
    let mut data = start.to_vec();
    data.extend(len(&id.key)?);
    data.extend_from_slice(id.key.as_bytes());
    data.extend(id.version.to_be_bytes());
    for text in [context.token, context.purpose] {
        data.extend(len(text)?);
        data.extend_from_slice(text.as_bytes());
    }
    Ok(data)
}

fn len(text: &str) -> Result<[u8; 2]> {
    let len =
        u16::try_from(text.len()).map_err(|_| Error::arguments_bad("a KMS context is longer than 65535 bytes"))?;
    Ok(len.to_be_bytes())
}

fn cipher(key: &SecureBytes) -> Result<Aes256Gcm> {
    Aes256Gcm::new_from_slice(key.expose())
        .map_err(|_| tampered(format!("the KMS unwrapped {} bytes where a key has {DATA_KEY_LEN}", key.len())))
}

/// Makes the error of a blob that is not what was wrapped.
fn tampered(text: impl std::fmt::Display) -> Error {
    Error::kms(KmsFault::Tampered, format!("{text}; {CURE}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const CONTEXT: Context<'static> = Context { token: "0123456789ABCDEF", purpose: "token-key/user" };

    /// Stands for a service: keeps the key as it is.
    fn wrap(key: &SecureBytes) -> Result<Wrapped> {
        let master_key = MasterKeyId { key: "k".to_owned(), version: 7 };
        Ok(Wrapped { master_key, blob: key.expose().to_vec() })
    }

    fn unwrap(blob: &[u8]) -> Result<SecureBytes> {
        Ok(SecureBytes::copy_from(blob))
    }

    #[test]
    fn a_sealed_blob_opens_in_its_own_context_only() {
        let secret = SecureBytes::copy_from(b"the secret");
        let wrapped = seal(&secret, &CONTEXT, wrap).unwrap();
        assert_eq!(open(&wrapped, &CONTEXT, unwrap).unwrap(), secret);
        for other in [Context { token: "0", ..CONTEXT }, Context { purpose: "token-key/so", ..CONTEXT }] {
            let error = open(&wrapped, &other, |_| panic!("the service is not asked")).unwrap_err();
            assert_eq!(error.kms_fault(), Some(KmsFault::WrongContext));
        }
        let moved = Wrapped { master_key: MasterKeyId { key: "k".to_owned(), version: 8 }, ..wrapped };
        assert_eq!(open(&moved, &CONTEXT, unwrap).unwrap_err().kms_fault(), Some(KmsFault::Tampered));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let wrapped = seal(&SecureBytes::copy_from(b"the secret"), &CONTEXT, wrap).unwrap();
        let fault =
            |blob: Vec<u8>| open(&Wrapped { blob, ..wrapped.clone() }, &CONTEXT, unwrap).unwrap_err().kms_fault();
        for bit in 0..wrapped.blob.len() * 8 {
            let mut blob = wrapped.blob.clone();
            blob[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(fault(blob), Some(KmsFault::Tampered | KmsFault::WrongContext)), "bit {bit}");
        }
        for end in 0..wrapped.blob.len() {
            assert_eq!(fault(wrapped.blob[..end].to_vec()), Some(KmsFault::Tampered), "cut at {end}");
        }
    }

    #[test]
    fn a_frame_gives_back_its_ciphertext() {
        let blob = frame(&CONTEXT, b"ciphertext").unwrap();
        assert_eq!(unframe(&blob, &CONTEXT).unwrap(), b"ciphertext");
        let other = Context { token: "other", ..CONTEXT };
        assert_eq!(unframe(&blob, &other).unwrap_err().kms_fault(), Some(KmsFault::WrongContext));
        let sealed = seal(&SecureBytes::copy_from(b"x"), &CONTEXT, wrap).unwrap();
        assert_eq!(unframe(&sealed.blob, &CONTEXT).unwrap_err().kms_fault(), Some(KmsFault::Tampered));
    }
}
