//! Key management functions (PKCS #11 v3.2, 5.18).

use super::guard::guard_session;
use super::{arg, params, template, unsupported};
use crate::ck::*;

/// Generates a secret key (5.18.1).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GenerateKey(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    attributes: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
    key: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    guard_session("C_GenerateKey", session, |session| {
        // SAFETY: the caller vouches for the pointer.
        let place = unsafe { arg::place(key) }?;
        // SAFETY: the caller vouches for the mechanism.
        let call = unsafe { params::call(mechanism) }?;
        // SAFETY: the caller vouches for the template.
        place.put(session.generate_key(call, unsafe { template::attributes(attributes, count) }?)?);
        Ok(())
    })
}

/// Generates a key pair (5.18.2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GenerateKeyPair(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    public: CK_ATTRIBUTE_PTR,
    public_count: CK_ULONG,
    private: CK_ATTRIBUTE_PTR,
    private_count: CK_ULONG,
    public_key: CK_OBJECT_HANDLE_PTR,
    private_key: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    guard_session("C_GenerateKeyPair", session, |session| {
        // SAFETY: the caller vouches for both pointers.
        let places = unsafe { arg::places(public_key, private_key) }?;
        // SAFETY: the caller vouches for the mechanism.
        let call = unsafe { params::call(mechanism) }?;
        // SAFETY: the caller vouches for the public key's template.
        let public = unsafe { template::attributes(public, public_count) }?;
        // SAFETY: the caller vouches for the private key's template.
        let private = unsafe { template::attributes(private, private_count) }?;
        places.put(session.generate_key_pair(call, public, private)?);
        Ok(())
    })
}

/// Wraps a key (5.18.3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_WrapKey(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    wrapping_key: CK_OBJECT_HANDLE,
    key: CK_OBJECT_HANDLE,
    wrapped: CK_BYTE_PTR,
    wrapped_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_session("C_WrapKey", session, |session| {
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(wrapped, wrapped_len) }?;
        // SAFETY: the caller vouches for the mechanism.
        let call = unsafe { params::call(mechanism) }?;
        out.put(|room| session.wrap_key(call, wrapping_key, key, room))
    })
}

/// Refuses (5.18.4).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_WrapKeyAuthenticated(
    session: CK_SESSION_HANDLE,
    _mechanism: CK_MECHANISM_PTR,
    _wrapping_key: CK_OBJECT_HANDLE,
    _key: CK_OBJECT_HANDLE,
    _associated: CK_BYTE_PTR,
    _associated_len: CK_ULONG,
    _wrapped: CK_BYTE_PTR,
    _wrapped_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_session("C_WrapKeyAuthenticated", session, |_| unsupported())
}

/// Unwraps a key (5.18.5).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_UnwrapKey(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    unwrapping_key: CK_OBJECT_HANDLE,
    wrapped: CK_BYTE_PTR,
    wrapped_len: CK_ULONG,
    attributes: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
    key: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    guard_session("C_UnwrapKey", session, |session| {
        // SAFETY: the caller vouches for the pointer.
        let place = unsafe { arg::place(key) }?;
        // SAFETY: the caller vouches for the mechanism.
        let call = unsafe { params::call(mechanism) }?;
        // SAFETY: the caller vouches for the wrapped key.
        let blob = unsafe { arg::bytes(wrapped, wrapped_len) }?;
        // SAFETY: the caller vouches for the template.
        let attributes = unsafe { template::attributes(attributes, count) }?;
        place.put(session.unwrap_key(call, unwrapping_key, blob, attributes)?);
        Ok(())
    })
}

/// Refuses (5.18.6).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_UnwrapKeyAuthenticated(
    session: CK_SESSION_HANDLE,
    _mechanism: CK_MECHANISM_PTR,
    _unwrapping_key: CK_OBJECT_HANDLE,
    _wrapped: CK_BYTE_PTR,
    _wrapped_len: CK_ULONG,
    _attributes: CK_ATTRIBUTE_PTR,
    _count: CK_ULONG,
    _associated: CK_BYTE_PTR,
    _associated_len: CK_ULONG,
    _key: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    guard_session("C_UnwrapKeyAuthenticated", session, |_| unsupported())
}

/// Derives a key (5.18.7).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_DeriveKey(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    base_key: CK_OBJECT_HANDLE,
    attributes: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
    key: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    guard_session("C_DeriveKey", session, |session| {
        // SAFETY: the caller vouches for the pointer.
        let place = unsafe { arg::place(key) }?;
        // SAFETY: the caller vouches for the mechanism.
        let call = unsafe { params::call(mechanism) }?;
        // SAFETY: the caller vouches for the template.
        place.put(session.derive_key(call, base_key, unsafe { template::attributes(attributes, count) }?)?);
        Ok(())
    })
}

/// Refuses (5.18.8).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_EncapsulateKey(
    session: CK_SESSION_HANDLE,
    _mechanism: CK_MECHANISM_PTR,
    _public_key: CK_OBJECT_HANDLE,
    _attributes: CK_ATTRIBUTE_PTR,
    _count: CK_ULONG,
    _ciphertext: CK_BYTE_PTR,
    _ciphertext_len: CK_ULONG_PTR,
    _key: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    guard_session("C_EncapsulateKey", session, |_| unsupported())
}

/// Refuses (5.18.9).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_DecapsulateKey(
    session: CK_SESSION_HANDLE,
    _mechanism: CK_MECHANISM_PTR,
    _private_key: CK_OBJECT_HANDLE,
    _attributes: CK_ATTRIBUTE_PTR,
    _count: CK_ULONG,
    _ciphertext: CK_BYTE_PTR,
    _ciphertext_len: CK_ULONG,
    _key: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    guard_session("C_DecapsulateKey", session, |_| unsupported())
}
