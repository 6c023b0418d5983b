//! Stand-in until the token is here: signatures only.
#![allow(missing_docs, unused_variables, clippy::missing_errors_doc)]

use std::sync::Arc;

use crate::ck::*;
use crate::crypto::InOut;
use crate::error::Result;
use crate::mechanism::{Mechanism, Output, Params};
use crate::secret::SecureBytes;

pub struct Library;
pub struct Session;

pub struct SlotInfo {
    pub description: String,
    pub manufacturer: String,
    pub flags: CK_FLAGS,
    pub hardware: (u8, u8),
    pub firmware: (u8, u8),
}

pub struct TokenInfo {
    pub label: String,
    pub manufacturer: String,
    pub model: String,
    pub serial: [u8; 16],
    pub flags: CK_FLAGS,
    pub max_session_count: u64,
    pub session_count: u64,
    pub max_rw_session_count: u64,
    pub rw_session_count: u64,
    pub max_pin_len: u64,
    pub min_pin_len: u64,
    pub hardware: (u8, u8),
    pub firmware: (u8, u8),
}

pub struct MechanismInfo {
    pub min: u64,
    pub max: u64,
    pub flags: CK_FLAGS,
}

pub struct SessionInfo {
    pub slot: CK_SLOT_ID,
    pub state: CK_STATE,
    pub flags: CK_FLAGS,
}

pub struct Call {
    pub mechanism: &'static Mechanism,
    pub params: Params,
}
pub enum Room {
    Query,
    Bytes(usize),
}
pub enum Reply {
    Needs(usize),
    Bytes(Output),
    Written(usize),
    Wrapped(Vec<u8>),
}
pub enum Answer {
    Value(Value),
    Sensitive,
    Invalid,
}

macro_rules! stand_in {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)?;)*) => {
        $(pub fn $name(&self, $($arg: $type),*) $(-> $ret)? { unimplemented!() })*
    };
}

impl Library {
    stand_in! {
        fn slots(with_token: bool) -> Result<Vec<CK_SLOT_ID>>;
        fn slot_info(slot: CK_SLOT_ID) -> Result<SlotInfo>;
        fn token_info(slot: CK_SLOT_ID) -> Result<TokenInfo>;
        fn mechanisms(slot: CK_SLOT_ID) -> Result<Vec<CK_MECHANISM_TYPE>>;
        fn mechanism_info(slot: CK_SLOT_ID, id: CK_MECHANISM_TYPE) -> Result<MechanismInfo>;
        fn init_token(slot: CK_SLOT_ID, so_pin: Option<SecureBytes>, label: &[u8; 32]) -> Result<()>;
        fn open_session(slot: CK_SLOT_ID, flags: CK_FLAGS) -> Result<CK_SESSION_HANDLE>;
        fn close_session(h: CK_SESSION_HANDLE) -> Result<()>;
        fn close_all_sessions(slot: CK_SLOT_ID) -> Result<()>;
        fn session(h: CK_SESSION_HANDLE) -> Result<Arc<Session>>;
        fn wait_for_slot_event(block: bool) -> Result<CK_SLOT_ID>;
        fn status() -> String;
        fn shutdown();
    }
}

impl Session {
    stand_in! {
        fn info() -> Result<SessionInfo>;
        fn init_pin(pin: Option<SecureBytes>) -> Result<()>;
        fn set_pin(old: Option<SecureBytes>, new: Option<SecureBytes>) -> Result<()>;
        fn login(user: CK_USER_TYPE, pin: Option<SecureBytes>) -> Result<()>;
        fn logout() -> Result<()>;
        fn cancel(flags: CK_FLAGS) -> Result<()>;
        fn create_object(t: Attributes) -> Result<CK_OBJECT_HANDLE>;
        fn copy_object(h: CK_OBJECT_HANDLE, t: Attributes) -> Result<CK_OBJECT_HANDLE>;
        fn destroy_object(h: CK_OBJECT_HANDLE) -> Result<()>;
        fn object_size(h: CK_OBJECT_HANDLE) -> Result<u64>;
        fn attributes(h: CK_OBJECT_HANDLE, types: &[CK_ATTRIBUTE_TYPE]) -> Result<Vec<Answer>>;
        fn set_attributes(h: CK_OBJECT_HANDLE, t: Attributes) -> Result<()>;
        fn find_init(t: Attributes) -> Result<()>;
        fn find(max: usize) -> Result<Vec<CK_OBJECT_HANDLE>>;
        fn find_final() -> Result<()>;
        fn encrypt_init(call: Option<Call>, key: CK_OBJECT_HANDLE) -> Result<()>;
        fn encrypt(data: InOut<'_>, query: bool) -> Result<Reply>;
        fn encrypt_update(data: InOut<'_>, query: bool) -> Result<Reply>;
        fn encrypt_final(data: InOut<'_>, query: bool) -> Result<Reply>;
        fn decrypt_init(call: Option<Call>, key: CK_OBJECT_HANDLE) -> Result<()>;
        fn decrypt(data: InOut<'_>, query: bool) -> Result<Reply>;
        fn decrypt_update(data: InOut<'_>, query: bool) -> Result<Reply>;
        fn decrypt_final(data: InOut<'_>, query: bool) -> Result<Reply>;
        fn digest_init(call: Option<Call>) -> Result<()>;
        fn digest(data: &[u8], room: Room) -> Result<Reply>;
        fn digest_update(part: &[u8]) -> Result<()>;
        fn digest_key(key: CK_OBJECT_HANDLE) -> Result<()>;
        fn digest_final(room: Room) -> Result<Reply>;
        fn sign_init(call: Option<Call>, key: CK_OBJECT_HANDLE) -> Result<()>;
        fn sign(data: &[u8], room: Room) -> Result<Reply>;
        fn sign_update(part: &[u8]) -> Result<()>;
        fn sign_final(room: Room) -> Result<Reply>;
        fn verify_init(call: Option<Call>, key: CK_OBJECT_HANDLE) -> Result<()>;
        fn verify(data: &[u8], signature: &[u8]) -> Result<()>;
        fn verify_update(part: &[u8]) -> Result<()>;
        fn verify_final(signature: &[u8]) -> Result<()>;
        fn generate_key(call: Call, t: Attributes) -> Result<CK_OBJECT_HANDLE>;
        fn generate_key_pair(call: Call, public: Attributes, private: Attributes) -> Result<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)>;
        fn wrap_key(call: Call, wrapping: CK_OBJECT_HANDLE, key: CK_OBJECT_HANDLE, room: Room) -> Result<Reply>;
        fn unwrap_key(call: Call, unwrapping: CK_OBJECT_HANDLE, blob: &[u8], t: Attributes) -> Result<CK_OBJECT_HANDLE>;
        fn derive_key(call: Call, base: CK_OBJECT_HANDLE, t: Attributes) -> Result<CK_OBJECT_HANDLE>;
        fn random(out: &mut [u8]) -> Result<()>;
    }
}
