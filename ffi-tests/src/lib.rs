//! A thin client of a PKCS #11 module, loaded from its file as a host loads it, and what black-box tests need around it.
//!
//! The module under test is `STRONGROOM_TEST_MODULE`, else `target/release/libstrongroom.so` of this workspace. Every test
//! that calls `C_Initialize` runs in a process of its own ([`isolated!`]), because a module has one state for each process.

// C structures are filled in one field at a time here, as their callers in C do.
#![allow(clippy::type_complexity, clippy::field_reassign_with_default, clippy::macro_metavars_in_unsafe)]

pub mod backup;
pub mod clock;
pub mod isolate;
pub mod libcrypto;
pub mod mechanism;
pub mod module;
pub mod owner;
pub mod rv;
pub mod session;
pub mod signatures;
pub mod template;
pub mod token;
pub mod vendor;

pub use cryptoki_sys as ck;
pub use isolate::{Role, say};
pub use mechanism::Mechanism;
pub use module::Module;
pub use rv::Rv;
pub use session::{Handle, Session};
pub use template::Template;
pub use token::{Config, SO_PIN, TestToken, USER_PIN};

/// What a call gives, or its return value.
pub type Result<T> = std::result::Result<T, Rv>;

/// "Cannot be told", or "not revealed" (PKCS #11 v3.2, 3.4).
pub const UNAVAILABLE: ck::CK_ULONG = ck::CK_ULONG::MAX;

/// Makes a result of a return value.
pub fn check(rv: ck::CK_RV) -> Result<()> {
    if rv == ck::CKR_OK { Ok(()) } else { Err(Rv(rv)) }
}

/// Runs a call of the two-call convention: first for the size, then for the bytes.
pub fn output(mut call: impl FnMut(*mut u8, *mut ck::CK_ULONG) -> ck::CK_RV) -> Result<Vec<u8>> {
    let mut len = 0;
    check(call(std::ptr::null_mut(), &mut len))?;
    let mut bytes = vec![0u8; len as usize + 1];
    check(call(bytes.as_mut_ptr(), &mut len))?;
    bytes.truncate(len as usize);
    Ok(bytes)
}

/// Fails the test unless the call was answered with this return value.
#[macro_export]
macro_rules! assert_rv {
    ($call:expr, $($rv:ident)|+ $(, $($why:tt)+)?) => {{
        let answer: $crate::Result<_> = $call;
        let rv = match &answer { Ok(_) => $crate::Rv($crate::ck::CKR_OK), Err(rv) => *rv };
        let wanted = [$($crate::Rv($crate::ck::$rv)),+];
        assert!(wanted.contains(&rv), "{} answered {rv:?}, not {wanted:?}{}", stringify!($call),
            { let why = String::new(); $(let why = format!(": {}", format_args!($($why)+));)? why });
        drop(answer);
    }};
}
