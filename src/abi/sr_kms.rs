//! `SR_*`: the KMS of a token and its master key. Texts are UTF-8 without a zero byte at the end; lengths are in bytes.

use super::arg::text;
use super::guard::guard_session;
use super::{arg, template};
use crate::ck::{CK_ATTRIBUTE, CK_BYTE, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG, CK_UTF8CHAR};

/// Wraps a key under the KMS master key of the session's token, as C_WrapKey with CKM_SR_KMS_WRAP does. The key must be
/// extractable. A call for the length asks no KMS; one that fits is one request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_WrapKey(
    session: CK_SESSION_HANDLE,
    key: CK_OBJECT_HANDLE,
    wrapped: *mut CK_BYTE,
    wrapped_len: *mut CK_ULONG,
) -> CK_RV {
    guard_session("SR_WrapKey", session, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(wrapped, wrapped_len) }?;
        out.put(|room| session.wrap_under_kms(key, room))
    })
}

/// Unwraps what [`SR_WrapKey`] or [`SR_GenerateDataKey`] wrapped, to a new object of this template. One request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_UnwrapKey(
    session: CK_SESSION_HANDLE,
    wrapped: *const CK_BYTE,
    wrapped_len: CK_ULONG,
    attributes: *const CK_ATTRIBUTE,
    count: CK_ULONG,
    key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    guard_session("SR_UnwrapKey", session, |session| {
        // SAFETY: the caller vouches for the pointer.
        let place = unsafe { arg::place(key) }?;
        // SAFETY: the caller vouches for the wrapped key.
        let blob = unsafe { arg::bytes(wrapped, wrapped_len) }?;
        // SAFETY: the caller vouches for the template.
        let attributes = unsafe { template::attributes(attributes, count) }?;
        place.put(session.unwrap_under_kms(blob, attributes)?);
        Ok(())
    })
}

/// Makes a data key: an AES key of 32 bytes behind a handle, and the same key wrapped under the KMS master key, to be kept and
/// unwrapped with [`SR_UnwrapKey`]. The template may be empty. A call for the length asks no KMS; one that fits is one request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_GenerateDataKey(
    session: CK_SESSION_HANDLE,
    attributes: *const CK_ATTRIBUTE,
    count: CK_ULONG,
    wrapped: *mut CK_BYTE,
    wrapped_len: *mut CK_ULONG,
    key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    guard_session("SR_GenerateDataKey", session, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(wrapped, wrapped_len) }?;
        // SAFETY: the caller vouches for the pointer.
        let place = unsafe { arg::place(key) }?;
        // SAFETY: the caller vouches for the template.
        let attributes = unsafe { template::attributes(attributes, count) }?;
        let (reply, handle) = session.generate_data_key(attributes, out.room())?;
        out.reply(reply)?;
        place.put(handle);
        Ok(())
    })
}

/// Rotates the KMS master key of the session's token, and wraps the token's outer key under the new version. What was wrapped
/// before still unwraps. Two requests, at any number of keys; two more for each key that has a data key of its own (`scope = "key"` of
/// the KMS), which is wrapped anew too. A call that was broken off has lost nothing, and the next one finishes the work.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_RotateMasterKey(session: CK_SESSION_HANDLE) -> CK_RV {
    guard_session("SR_RotateMasterKey", session, |session| session.rotate_master_key().map(|_| ()))
}

/// Moves the session's token to the KMS provider of this name in the configuration. Afterwards the old provider is not needed
/// any more to open the token; a process that is killed meanwhile leaves the token where it was. Keys that have a data key of their own
/// move with it, and get one or lose it as the `scope` of the new provider says: a call that was broken off among them leaves a token that
/// needs both providers, and the next SR_MoveKms goes on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_MoveKms(
    session: CK_SESSION_HANDLE,
    provider: *const CK_UTF8CHAR,
    provider_len: CK_ULONG,
) -> CK_RV {
    guard_session("SR_MoveKms", session, |session| {
        // SAFETY: the caller vouches for the text.
        let provider = text(unsafe { arg::bytes(provider, provider_len) }?)?;
        session.move_kms(provider).map(|_| ())
    })
}

/// Asks the KMS of the session's token how it is, and tells it as a JSON object: type, key, version and state, or fault and error.
/// Counters of this process's calls are in it. A call for the length asks no KMS, and tells the most that it takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_GetKmsStatus(
    session: CK_SESSION_HANDLE,
    json: *mut CK_UTF8CHAR,
    json_len: *mut CK_ULONG,
) -> CK_RV {
    guard_session("SR_GetKmsStatus", session, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(json, json_len) }?;
        out.put(|room| session.kms_status(room))
    })
}
