//! Slot and token management functions (PKCS #11 v3.2, 5.5).

use super::arg;
use super::guard::{guard, guard_session};
use crate::ck::*;
use crate::token::{MechanismInfo, SlotInfo, TokenInfo};

/// Lists the slots (5.5.1).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetSlotList(token_present: CK_BBOOL, slots: CK_SLOT_ID_PTR, count: CK_ULONG_PTR) -> CK_RV {
    guard("C_GetSlotList", |library| {
        // SAFETY: the caller vouches for array and count.
        let list = unsafe { arg::list(slots, count) }?;
        list.put(&library.slots(token_present != CK_FALSE)?)
    })
}

/// Tells about a slot (5.5.2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetSlotInfo(slot: CK_SLOT_ID, info: CK_SLOT_INFO_PTR) -> CK_RV {
    guard("C_GetSlotInfo", |library| {
        // SAFETY: the caller vouches for the pointer.
        let info = unsafe { arg::place(info) }?;
        info.put(slot_info(&library.slot_info(slot)?));
        Ok(())
    })
}

/// Tells about a token (5.5.3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: CK_TOKEN_INFO_PTR) -> CK_RV {
    guard("C_GetTokenInfo", |library| {
        // SAFETY: the caller vouches for the pointer.
        let info = unsafe { arg::place(info) }?;
        info.put(token_info(&library.token_info(slot)?));
        Ok(())
    })
}

/// Waits for a slot event, or asks for one (5.5.4). C_Finalize wakes it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_WaitForSlotEvent(flags: CK_FLAGS, slot: CK_SLOT_ID_PTR, reserved: CK_VOID_PTR) -> CK_RV {
    guard("C_WaitForSlotEvent", |library| {
        arg::reserved(reserved)?;
        // SAFETY: the caller vouches for the pointer.
        let slot = unsafe { arg::place(slot) }?;
        slot.put(library.wait_for_slot_event(flags & CKF_DONT_BLOCK == 0)?);
        Ok(())
    })
}

/// Lists a token's mechanisms (5.5.5).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetMechanismList(
    slot: CK_SLOT_ID,
    mechanisms: CK_MECHANISM_TYPE_PTR,
    count: CK_ULONG_PTR,
) -> CK_RV {
    guard("C_GetMechanismList", |library| {
        // SAFETY: the caller vouches for array and count.
        let list = unsafe { arg::list(mechanisms, count) }?;
        list.put(&library.mechanisms(slot)?)
    })
}

/// Tells about a mechanism (5.5.6).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetMechanismInfo(
    slot: CK_SLOT_ID,
    mechanism: CK_MECHANISM_TYPE,
    info: CK_MECHANISM_INFO_PTR,
) -> CK_RV {
    guard("C_GetMechanismInfo", |library| {
        // SAFETY: the caller vouches for the pointer.
        let info = unsafe { arg::place(info) }?;
        let MechanismInfo { min, max, flags } = library.mechanism_info(slot, mechanism)?;
        info.put(CK_MECHANISM_INFO { ulMinKeySize: min, ulMaxKeySize: max, flags });
        Ok(())
    })
}

/// Initialises a token (5.5.7). The label is 32 bytes, padded with blanks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_InitToken(
    slot: CK_SLOT_ID,
    pin: CK_UTF8CHAR_PTR,
    pin_len: CK_ULONG,
    label: CK_UTF8CHAR_PTR,
) -> CK_RV {
    guard("C_InitToken", |library| {
        // SAFETY: the caller vouches for the PIN.
        let pin = unsafe { arg::pin(pin, pin_len) }?;
        // SAFETY: the caller vouches for 32 bytes.
        let label: [u8; 32] = unsafe { arg::read(label.cast()) }?;
        library.init_token(slot, pin, &label)
    })
}

/// Sets the user PIN, as the SO (5.5.8).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_InitPIN(session: CK_SESSION_HANDLE, pin: CK_UTF8CHAR_PTR, pin_len: CK_ULONG) -> CK_RV {
    guard_session("C_InitPIN", session, |session| {
        // SAFETY: the caller vouches for the PIN.
        session.init_pin(unsafe { arg::pin(pin, pin_len) }?)
    })
}

/// Changes the PIN of whoever is logged in, or the user's (5.5.9).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_SetPIN(
    session: CK_SESSION_HANDLE,
    old_pin: CK_UTF8CHAR_PTR,
    old_len: CK_ULONG,
    new_pin: CK_UTF8CHAR_PTR,
    new_len: CK_ULONG,
) -> CK_RV {
    guard_session("C_SetPIN", session, |session| {
        // SAFETY: the caller vouches for the old PIN.
        let old = unsafe { arg::pin(old_pin, old_len) }?;
        // SAFETY: the caller vouches for the new PIN.
        let new = unsafe { arg::pin(new_pin, new_len) }?;
        session.set_pin(old, new)
    })
}

fn slot_info(info: &SlotInfo) -> CK_SLOT_INFO {
    CK_SLOT_INFO {
        slotDescription: arg::padded(&info.description),
        manufacturerID: arg::padded(&info.manufacturer),
        flags: info.flags,
        hardwareVersion: version(info.hardware),
        firmwareVersion: version(info.firmware),
    }
}

fn token_info(info: &TokenInfo) -> CK_TOKEN_INFO {
    CK_TOKEN_INFO {
        label: arg::padded(&info.label),
        manufacturerID: arg::padded(&info.manufacturer),
        model: arg::padded(&info.model),
        serialNumber: info.serial,
        flags: info.flags,
        ulMaxSessionCount: info.max_session_count,
        ulSessionCount: info.session_count,
        ulMaxRwSessionCount: info.max_rw_session_count,
        ulRwSessionCount: info.rw_session_count,
        ulMaxPinLen: info.max_pin_len,
        ulMinPinLen: info.min_pin_len,
        ulTotalPublicMemory: CK_UNAVAILABLE_INFORMATION,
        ulFreePublicMemory: CK_UNAVAILABLE_INFORMATION,
        ulTotalPrivateMemory: CK_UNAVAILABLE_INFORMATION,
        ulFreePrivateMemory: CK_UNAVAILABLE_INFORMATION,
        hardwareVersion: version(info.hardware),
        firmwareVersion: version(info.firmware),
        utcTime: arg::padded(""),
    }
}

fn version((major, minor): (u8, u8)) -> CK_VERSION {
    CK_VERSION { major, minor }
}
