//! General-purpose functions (PKCS #11 v3.2, 5.4).

use std::ffi::{c_char, c_void};

use super::guard::{guard, guard_uninitialized};
use super::{arg, function_list, global};
use crate::ck::*;
use crate::error::{Error, Result};

/// The longest configuration path in bytes.
const LONGEST_PATH: usize = 4096;

/// Initialises the library for this process (5.4.1). `pReserved` is NULL or the path of the configuration, as a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_Initialize(init_args: CK_VOID_PTR) -> CK_RV {
    guard_uninitialized("C_Initialize", || {
        // SAFETY: the caller vouches for the structure and what it points to.
        let args = unsafe { InitializeArgs::read(init_args) }?;
        global::initialize(args.config_path, args.threads_allowed)
    })
}

/// Ends the use of the library in this process (5.4.2). It does not wait for calls of other threads that are inside: they find
/// their sessions closed, and may end with an error; those that ask a KMS are ended. A rotation by the library itself is waited for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_Finalize(reserved: CK_VOID_PTR) -> CK_RV {
    guard_uninitialized("C_Finalize", || {
        arg::reserved(reserved)?;
        global::finalize()
    })
}

/// Tells about the library (5.4.3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetInfo(info: CK_INFO_PTR) -> CK_RV {
    guard("C_GetInfo", |_| {
        // SAFETY: the caller vouches for the pointer.
        let info = unsafe { arg::place(info) }?;
        info.put(library_info());
        Ok(())
    })
}

/// Gives the functions of version 2.40 (5.4.4).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(function_list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    guard_uninitialized("C_GetFunctionList", || {
        // SAFETY: the caller vouches for the pointer.
        let list = unsafe { arg::place(function_list) }?;
        list.put(function_list::version_2_40());
        Ok(())
    })
}

/// Lists the interfaces (5.4.5).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetInterfaceList(interfaces: CK_INTERFACE_PTR, count: CK_ULONG_PTR) -> CK_RV {
    guard_uninitialized("C_GetInterfaceList", || {
        // SAFETY: the caller vouches for array and count.
        let list = unsafe { arg::list(interfaces, count) }?;
        list.put(&function_list::interfaces())
    })
}

/// Gives the first interface that has this name, version and flags (5.4.6); NULL and 0 take any. No name is "PKCS 11".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetInterface(
    name: CK_UTF8CHAR_PTR,
    version: CK_VERSION_PTR,
    interface: CK_INTERFACE_PTR_PTR,
    flags: CK_FLAGS,
) -> CK_RV {
    guard_uninitialized("C_GetInterface", || {
        // SAFETY: the caller vouches for the string.
        let name = unsafe { arg::c_string(name.cast(), function_list::LONGEST_NAME) }?;
        // SAFETY: the caller vouches for the version.
        let version = unsafe { arg::optional(version) };
        // SAFETY: the caller vouches for the place.
        let place = unsafe { arg::place(interface) }?;
        place.put(function_list::interface(name, version, flags)?);
        Ok(())
    })
}

/// What C_Initialize is told, checked. Nothing of it is kept but what the configuration says.
struct InitializeArgs<'a> {
    config_path: Option<&'a str>,
    threads_allowed: bool,
}

impl InitializeArgs<'_> {
    /// Reads the arguments. Locks are always the system's, so that the application's mutex functions are checked for being
    /// all there or all absent, and never called; flags that are not defined ask for nothing.
    unsafe fn read(init_args: *const c_void) -> Result<Self> {
        if init_args.is_null() {
            return Ok(Self { config_path: None, threads_allowed: true });
        }
        // SAFETY: the caller vouches for the structure.
        let args = unsafe { arg::read(init_args.cast::<CK_C_INITIALIZE_ARGS>()) }?;
        let given = [
            args.CreateMutex.is_some(),
            args.DestroyMutex.is_some(),
            args.LockMutex.is_some(),
            args.UnlockMutex.is_some(),
        ];
        if given.contains(&true) && given.contains(&false) {
            return Err(Error::arguments_bad("either all four mutex functions must be given, or none"));
        }
        // SAFETY: the caller vouches for the string.
        let config_path = unsafe { arg::c_string(args.pReserved.cast::<c_char>(), LONGEST_PATH) }?;
        Ok(Self { config_path, threads_allowed: args.flags & CKF_LIBRARY_CANT_CREATE_OS_THREADS == 0 })
    }
}

fn library_info() -> CK_INFO {
    CK_INFO {
        cryptokiVersion: CK_VERSION { major: 3, minor: 2 },
        manufacturerID: arg::padded("Strongroom"),
        flags: 0,
        libraryDescription: arg::padded("Strongroom PKCS#11 module"),
        libraryVersion: function_list::library_version(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::multiple_unsafe_ops_per_block)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::ptr::{null, null_mut};

    unsafe extern "C" fn create(_: *mut CK_VOID_PTR) -> CK_RV {
        panic!("the application's mutexes are never used")
    }

    unsafe extern "C" fn mutex(_: CK_VOID_PTR) -> CK_RV {
        panic!("the application's mutexes are never used")
    }

    const NO_ARGS: CK_C_INITIALIZE_ARGS = CK_C_INITIALIZE_ARGS {
        CreateMutex: None,
        DestroyMutex: None,
        LockMutex: None,
        UnlockMutex: None,
        flags: 0,
        pReserved: null_mut(),
    };

    fn read(args: &CK_C_INITIALIZE_ARGS) -> Result<InitializeArgs<'_>> {
        // SAFETY: the structure is alive, and its string is NULL or a literal.
        unsafe { InitializeArgs::read(std::ptr::from_ref(args).cast()) }
    }

    #[test]
    fn r13_initialize_takes_null_all_or_no_mutexes_and_a_path() {
        // SAFETY: NULL is allowed.
        let none = unsafe { InitializeArgs::read(null()) }.unwrap();
        assert!(none.threads_allowed && none.config_path.is_none());
        let all = CK_C_INITIALIZE_ARGS {
            CreateMutex: Some(create),
            DestroyMutex: Some(mutex),
            LockMutex: Some(mutex),
            UnlockMutex: Some(mutex),
            ..NO_ARGS
        };
        assert!(read(&NO_ARGS).is_ok() && read(&all).is_ok());
        let partial = [
            CK_C_INITIALIZE_ARGS { CreateMutex: None, ..all },
            CK_C_INITIALIZE_ARGS { DestroyMutex: None, ..all },
            CK_C_INITIALIZE_ARGS { LockMutex: None, ..all },
            CK_C_INITIALIZE_ARGS { UnlockMutex: None, ..all },
        ];
        assert!(partial.iter().all(|args| read(args).is_err_and(|error| error.kind() == Kind::ArgumentsBad)));
        let path = CK_C_INITIALIZE_ARGS { pReserved: c"/etc/x.toml".as_ptr().cast_mut().cast(), ..NO_ARGS };
        assert_eq!(read(&path).unwrap().config_path, Some("/etc/x.toml"));
    }

    #[test]
    fn r14_the_flag_against_threads_is_passed_on() {
        let flags = CKF_OS_LOCKING_OK | CKF_LIBRARY_CANT_CREATE_OS_THREADS;
        assert!(!read(&CK_C_INITIALIZE_ARGS { flags, ..NO_ARGS }).unwrap().threads_allowed);
        assert!(read(&CK_C_INITIALIZE_ARGS { flags: CKF_OS_LOCKING_OK, ..NO_ARGS }).unwrap().threads_allowed);
    }

    #[test]
    fn r44_null_arguments_are_refused() {
        let mut count = 0;
        // SAFETY: NULL and live places.
        unsafe {
            assert_eq!(C_GetFunctionList(null_mut()), CKR_ARGUMENTS_BAD);
            assert_eq!(C_GetInterfaceList(null_mut(), null_mut()), CKR_ARGUMENTS_BAD);
            assert_eq!(C_GetInterface(null_mut(), null_mut(), null_mut(), 0), CKR_ARGUMENTS_BAD);
            assert_eq!(C_GetInterfaceList(null_mut(), &raw mut count), CKR_OK);
            assert_eq!(count, 4);
            assert_eq!(C_Finalize(std::ptr::dangling_mut()), CKR_ARGUMENTS_BAD);
        }
    }
}
