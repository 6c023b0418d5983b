//! Session management functions (PKCS #11 v3.2, 5.6).

use super::guard::{guard, guard_session};
use super::{arg, unsupported};
use crate::ck::*;
use crate::error::{Error, Kind};

/// Opens a session (5.6.1). The callback is never called: nothing here surrenders or removes a token.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_OpenSession(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    _application: CK_VOID_PTR,
    _notify: CK_NOTIFY,
    session: CK_SESSION_HANDLE_PTR,
) -> CK_RV {
    guard("C_OpenSession", |library| {
        // SAFETY: the caller vouches for the pointer.
        let handle = unsafe { arg::place(session) }?;
        handle.put(library.open_session(slot, flags)?);
        Ok(())
    })
}

/// Closes a session (5.6.2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_CloseSession(session: CK_SESSION_HANDLE) -> CK_RV {
    guard("C_CloseSession", |library| library.close_session(session))
}

/// Closes all sessions with a token (5.6.3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_CloseAllSessions(slot: CK_SLOT_ID) -> CK_RV {
    guard("C_CloseAllSessions", |library| library.close_all_sessions(slot))
}

/// Tells about a session (5.6.4).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetSessionInfo(session: CK_SESSION_HANDLE, info: CK_SESSION_INFO_PTR) -> CK_RV {
    guard_session("C_GetSessionInfo", session, |session| {
        // SAFETY: the caller vouches for the pointer.
        let place = unsafe { arg::place(info) }?;
        let info = session.info()?;
        place.put(CK_SESSION_INFO { slotID: info.slot, state: info.state, flags: info.flags, ulDeviceError: 0 });
        Ok(())
    })
}

/// Cancels operations of a session (5.6.5).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_SessionCancel(session: CK_SESSION_HANDLE, flags: CK_FLAGS) -> CK_RV {
    guard_session("C_SessionCancel", session, |session| session.cancel(flags))
}

/// Refuses: no operation's state leaves the library, since a part of it may be secret (5.6.6).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetOperationState(
    session: CK_SESSION_HANDLE,
    _state: CK_BYTE_PTR,
    _state_len: CK_ULONG_PTR,
) -> CK_RV {
    guard_session("C_GetOperationState", session, |_| unsupported())
}

/// Refuses, as C_GetOperationState does (5.6.7).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_SetOperationState(
    session: CK_SESSION_HANDLE,
    _state: CK_BYTE_PTR,
    _state_len: CK_ULONG,
    _encryption_key: CK_OBJECT_HANDLE,
    _authentication_key: CK_OBJECT_HANDLE,
) -> CK_RV {
    guard_session("C_SetOperationState", session, |_| unsupported())
}

/// Logs a user in (5.6.8).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_Login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: CK_UTF8CHAR_PTR,
    pin_len: CK_ULONG,
) -> CK_RV {
    guard_session("C_Login", session, |session| {
        // SAFETY: the caller vouches for the PIN.
        session.login(user, unsafe { arg::pin(pin, pin_len) }?)
    })
}

/// Logs a user in by name (5.6.9). The users of a token have no names, so that only the empty one is known.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_LoginUser(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: CK_UTF8CHAR_PTR,
    pin_len: CK_ULONG,
    name: CK_UTF8CHAR_PTR,
    name_len: CK_ULONG,
) -> CK_RV {
    guard_session("C_LoginUser", session, |session| {
        // SAFETY: the caller vouches for the name.
        if !unsafe { arg::bytes(name, name_len) }?.is_empty() {
            return Err(Error::new(Kind::UserTypeInvalid, "the users of this token have no names; pass an empty one"));
        }
        // SAFETY: the caller vouches for the PIN.
        session.login(user, unsafe { arg::pin(pin, pin_len) }?)
    })
}

/// Logs out (5.6.10).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_Logout(session: CK_SESSION_HANDLE) -> CK_RV {
    guard_session("C_Logout", session, |session| session.logout())
}

/// Tells which validations a session's last operation kept to (5.6.11): none, as the token has no validation objects.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetSessionValidationFlags(
    session: CK_SESSION_HANDLE,
    flags_type: CK_SESSION_VALIDATION_FLAGS_TYPE,
    flags: CK_FLAGS_PTR,
) -> CK_RV {
    guard_session("C_GetSessionValidationFlags", session, |_| {
        // SAFETY: the caller vouches for the pointer.
        let place = unsafe { arg::place(flags) }?;
        if flags_type != CKS_LAST_VALIDATION_OK {
            return Err(Error::arguments_bad("the only type of validation flags is CKS_LAST_VALIDATION_OK"));
        }
        place.put(0);
        Ok(())
    })
}
