//! Object management functions (PKCS #11 v3.2, 5.7).

use super::guard::guard_session;
use super::{arg, template};
use crate::ck::*;

/// Creates an object (5.7.1).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_CreateObject(
    session: CK_SESSION_HANDLE,
    attributes: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
    object: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    guard_session("C_CreateObject", session, |session| {
        // SAFETY: the caller vouches for the pointer.
        let place = unsafe { arg::place(object) }?;
        // SAFETY: the caller vouches for the template.
        place.put(session.create_object(unsafe { template::attributes(attributes, count) }?)?);
        Ok(())
    })
}

/// Copies an object (5.7.2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_CopyObject(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    attributes: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
    copy: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    guard_session("C_CopyObject", session, |session| {
        // SAFETY: the caller vouches for the pointer.
        let place = unsafe { arg::place(copy) }?;
        // SAFETY: the caller vouches for the template.
        place.put(session.copy_object(object, unsafe { template::attributes(attributes, count) }?)?);
        Ok(())
    })
}

/// Destroys an object (5.7.3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) -> CK_RV {
    guard_session("C_DestroyObject", session, |session| session.destroy_object(object))
}

/// Tells how many bytes an object takes (5.7.4).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetObjectSize(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    size: CK_ULONG_PTR,
) -> CK_RV {
    guard_session("C_GetObjectSize", session, |session| {
        // SAFETY: the caller vouches for the pointer.
        let place = unsafe { arg::place(size) }?;
        place.put(session.object_size(object)?);
        Ok(())
    })
}

/// Reads attributes (5.7.5).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetAttributeValue(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    attributes: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
) -> CK_RV {
    guard_session("C_GetAttributeValue", session, |session| {
        // SAFETY: the caller vouches for the entries and their buffers.
        unsafe { template::answer(attributes, count, |types| session.attributes(object, types)) }
    })
}

/// Changes attributes (5.7.6).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_SetAttributeValue(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    attributes: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
) -> CK_RV {
    guard_session("C_SetAttributeValue", session, |session| {
        // SAFETY: the caller vouches for the template.
        session.set_attributes(object, unsafe { template::attributes(attributes, count) }?)
    })
}

/// Starts a search (5.7.7).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_FindObjectsInit(
    session: CK_SESSION_HANDLE,
    attributes: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
) -> CK_RV {
    guard_session("C_FindObjectsInit", session, |session| {
        // SAFETY: the caller vouches for the template.
        session.find_init(unsafe { template::attributes(attributes, count) }?)
    })
}

/// Gives the next objects that were found (5.7.8).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_FindObjects(
    session: CK_SESSION_HANDLE,
    objects: CK_OBJECT_HANDLE_PTR,
    most: CK_ULONG,
    count: CK_ULONG_PTR,
) -> CK_RV {
    guard_session("C_FindObjects", session, |session| {
        // SAFETY: the caller vouches for array and count.
        let list = unsafe { arg::filled_list(objects, most, count) }?;
        list.put(&session.find(list.room())?)
    })
}

/// Ends a search (5.7.9).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_FindObjectsFinal(session: CK_SESSION_HANDLE) -> CK_RV {
    guard_session("C_FindObjectsFinal", session, |session| session.find_final())
}
