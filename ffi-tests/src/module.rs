//! The module itself: its file, its tables, and the functions that need no session.

use std::ffi::CString;
use std::path::PathBuf;

use libloading::Library;

use crate::ck::*;
use crate::session::Session;
use crate::{Result, check};

/// A loaded module. It is never unloaded; tests of unloading call `dlopen` themselves.
pub struct Module {
    library: Library,
    list: *const CK_FUNCTION_LIST,
}

// SAFETY: a module's table is constant and its functions may be called from any thread.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

/// Calls a function of the 2.40 table.
#[macro_export]
macro_rules! call {
    ($module:expr, $name:ident($($arg:expr),* $(,)?)) => {{
        let function = $module.list().$name.expect("the table has no NULL pointer");
        // The pointers are those of live values of the test, or wrong on purpose.
        #[allow(unused_unsafe, clippy::macro_metavars_in_unsafe)]
        unsafe {
            function($($arg),*)
        }
    }};
}

impl Module {
    /// Tells where the module under test is.
    pub fn path() -> PathBuf {
        match std::env::var_os("STRONGROOM_TEST_MODULE") {
            Some(path) => PathBuf::from(path),
            None => workspace().join("target/release/libstrongroom.so"),
        }
    }

    /// Tells whether another module than Strongroom is under test, to check the tests themselves.
    pub fn is_foreign() -> bool {
        !Self::path().to_string_lossy().contains("strongroom.so")
    }

    /// Loads the module.
    pub fn load() -> &'static Module {
        let path = Self::path();
        // SAFETY: the module has no constructors that could do harm.
        let library = unsafe { Library::new(&path) }.unwrap_or_else(|error| {
            panic!("cannot load {}: {error}; build it with `cargo build --release`", path.display())
        });
        let mut list: *mut CK_FUNCTION_LIST = std::ptr::null_mut();
        // SAFETY: the symbol has this type by the standard.
        let rv = unsafe {
            let get: libloading::Symbol<unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV> =
                library.get(b"C_GetFunctionList\0").expect("the module exports C_GetFunctionList");
            get(&mut list)
        };
        check(rv).expect("C_GetFunctionList");
        assert!(!list.is_null());
        Box::leak(Box::new(Module { library, list }))
    }

    /// Gives the 2.40 table.
    pub fn list(&self) -> &CK_FUNCTION_LIST {
        // SAFETY: the module vouches for its table.
        unsafe { &*self.list }
    }

    /// Finds an exported symbol as an address.
    pub fn symbol(&self, name: &str) -> Option<usize> {
        let name = CString::new(name).expect("a name has no NUL");
        // SAFETY: only the address is taken.
        let symbol = unsafe { self.library.get::<*const u8>(name.as_bytes_with_nul()) };
        symbol.ok().map(|symbol| *symbol as usize)
    }

    /// Asks for an interface by name and version; NULL where `None`.
    pub fn interface(&self, name: Option<&str>, version: Option<(u8, u8)>, flags: CK_FLAGS) -> Result<CK_INTERFACE> {
        let address = self.symbol("C_GetInterface").expect("the module exports C_GetInterface");
        type Get = unsafe extern "C" fn(*mut u8, *mut CK_VERSION, *mut *mut CK_INTERFACE, CK_FLAGS) -> CK_RV;
        // SAFETY: the symbol has this type by the standard.
        let get: Get = unsafe { std::mem::transmute(address) };
        let name = name.map(|name| CString::new(name).expect("a name has no NUL"));
        let name = name.as_ref().map_or(std::ptr::null_mut(), |name| name.as_ptr().cast_mut().cast());
        let mut version = version.map(|(major, minor)| CK_VERSION { major, minor });
        let version = version.as_mut().map_or(std::ptr::null_mut(), |version| version as *mut CK_VERSION);
        let mut interface: *mut CK_INTERFACE = std::ptr::null_mut();
        // SAFETY: all pointers live through the call.
        check(unsafe { get(name, version, &mut interface, flags) })?;
        // SAFETY: the module vouches for what it gives.
        Ok(unsafe { *interface })
    }

    /// Gives the 3.2 table, when the module has it.
    pub fn list_3_2(&self) -> Option<&'static CK_FUNCTION_LIST_3_2> {
        self.symbol("C_GetInterface")?;
        let interface = self.interface(Some("PKCS 11"), Some((3, 2)), 0).ok()?;
        // SAFETY: an interface of this name and version has this table.
        Some(unsafe { &*interface.pFunctionList.cast() })
    }

    /// Gives the text of the last error of this thread (`SR_LastError`), empty where there is none.
    pub fn last_error(&self) -> String {
        let Some(address) = self.symbol("SR_LastError") else { return String::new() };
        // SAFETY: the symbol has this type.
        let last: unsafe extern "C" fn(*mut u8, *mut CK_ULONG) -> CK_RV = unsafe { std::mem::transmute(address) };
        // SAFETY: all pointers live through the call.
        let text = crate::output(|text, len| unsafe { last(text, len) });
        String::from_utf8(text.unwrap_or_default()).expect("SR_LastError gives UTF-8")
    }

    /// Gives the state of the library as `SR_GetStatus` tells it.
    pub fn status(&self) -> Result<String> {
        let address = self.symbol("SR_GetStatus").expect("the module exports SR_GetStatus");
        // SAFETY: the symbol has this type.
        let status: unsafe extern "C" fn(*mut u8, *mut CK_ULONG) -> CK_RV = unsafe { std::mem::transmute(address) };
        // SAFETY: all pointers live through the call.
        let json = crate::output(|json, len| unsafe { status(json, len) })?;
        Ok(String::from_utf8(json).expect("SR_GetStatus gives UTF-8"))
    }

    /// Initialises with OS locking and a reserved string, the path of the configuration.
    pub fn initialize(&self, reserved: Option<&str>) -> Result<()> {
        let reserved = reserved.map(|text| CString::new(text).expect("a path has no NUL"));
        let mut args = CK_C_INITIALIZE_ARGS { flags: CKF_OS_LOCKING_OK, ..Default::default() };
        if let Some(text) = &reserved {
            args.pReserved = text.as_ptr().cast_mut().cast();
        }
        self.initialize_with(&mut args)
    }

    /// Initialises with these arguments.
    pub fn initialize_with(&self, args: *mut CK_C_INITIALIZE_ARGS) -> Result<()> {
        check(call!(self, C_Initialize(args.cast())))
    }

    /// Finalises.
    pub fn finalize(&self) -> Result<()> {
        check(call!(self, C_Finalize(std::ptr::null_mut())))
    }

    /// Gives general facts.
    pub fn info(&self) -> Result<CK_INFO> {
        let mut info = CK_INFO::default();
        check(call!(self, C_GetInfo(&mut info)))?;
        Ok(info)
    }

    /// Lists slots.
    pub fn slots(&self, with_token: bool) -> Result<Vec<CK_SLOT_ID>> {
        let mut count = 0;
        check(call!(self, C_GetSlotList(with_token.into(), std::ptr::null_mut(), &mut count)))?;
        let mut slots = vec![0; count as usize];
        check(call!(self, C_GetSlotList(with_token.into(), slots.as_mut_ptr(), &mut count)))?;
        slots.truncate(count as usize);
        Ok(slots)
    }

    /// Tells about a slot.
    pub fn slot_info(&self, slot: CK_SLOT_ID) -> Result<CK_SLOT_INFO> {
        let mut info = CK_SLOT_INFO::default();
        check(call!(self, C_GetSlotInfo(slot, &mut info)))?;
        Ok(info)
    }

    /// Tells about a token.
    pub fn token_info(&self, slot: CK_SLOT_ID) -> Result<CK_TOKEN_INFO> {
        let mut info = CK_TOKEN_INFO::default();
        check(call!(self, C_GetTokenInfo(slot, &mut info)))?;
        Ok(info)
    }

    /// Finds a token by its label.
    pub fn slot_of(&self, label: &str) -> Option<CK_SLOT_ID> {
        let is = |slot: &CK_SLOT_ID| self.token_info(*slot).is_ok_and(|info| padded(&info.label) == label);
        self.slots(true).ok()?.into_iter().find(is)
    }

    /// Makes a token in a free slot and gives its slot.
    pub fn init_token(&self, label: &str, so_pin: &str) -> Result<CK_SLOT_ID> {
        let free = self.free_slot().expect("there is always a slot for a new token");
        self.init_token_in(free, label, so_pin)?;
        Ok(self.slot_of(label).expect("the new token is listed"))
    }

    /// Finds a slot without an initialised token.
    pub fn free_slot(&self) -> Option<CK_SLOT_ID> {
        self.slots(false).expect("C_GetSlotList");
        self.free_slot_or_none()
    }

    /// As [`Self::free_slot`], where the slots may not be listed at all.
    pub fn free_slot_or_none(&self) -> Option<CK_SLOT_ID> {
        let is_free = |slot: &CK_SLOT_ID| match self.token_info(*slot) {
            Ok(info) => info.flags & CKF_TOKEN_INITIALIZED == 0,
            Err(_) => true,
        };
        self.slots(false).ok()?.into_iter().find(is_free)
    }

    /// Calls `C_InitToken`.
    pub fn init_token_in(&self, slot: CK_SLOT_ID, label: &str, so_pin: &str) -> Result<()> {
        let mut padded = [b' '; 32];
        padded[..label.len()].copy_from_slice(label.as_bytes());
        let pin = so_pin.as_ptr().cast_mut();
        check(call!(self, C_InitToken(slot, pin, so_pin.len() as CK_ULONG, padded.as_mut_ptr())))
    }

    /// Lists the mechanisms of a slot.
    pub fn mechanisms(&self, slot: CK_SLOT_ID) -> Result<Vec<CK_MECHANISM_TYPE>> {
        let mut count = 0;
        check(call!(self, C_GetMechanismList(slot, std::ptr::null_mut(), &mut count)))?;
        let mut list = vec![0; count as usize];
        check(call!(self, C_GetMechanismList(slot, list.as_mut_ptr(), &mut count)))?;
        list.truncate(count as usize);
        Ok(list)
    }

    /// Tells about a mechanism.
    pub fn mechanism_info(&self, slot: CK_SLOT_ID, mechanism: CK_MECHANISM_TYPE) -> Result<CK_MECHANISM_INFO> {
        let mut info = CK_MECHANISM_INFO::default();
        check(call!(self, C_GetMechanismInfo(slot, mechanism, &mut info)))?;
        Ok(info)
    }

    /// Opens a read-write session.
    pub fn open(&'static self, slot: CK_SLOT_ID) -> Result<Session> {
        self.open_with(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION)
    }

    /// Opens a read-only session.
    pub fn open_read_only(&'static self, slot: CK_SLOT_ID) -> Result<Session> {
        self.open_with(slot, CKF_SERIAL_SESSION)
    }

    /// Opens a session with these flags.
    pub fn open_with(&'static self, slot: CK_SLOT_ID, flags: CK_FLAGS) -> Result<Session> {
        let mut handle = 0;
        check(call!(self, C_OpenSession(slot, flags, std::ptr::null_mut(), None, &mut handle)))?;
        Ok(Session { module: self, handle })
    }

    /// Closes all sessions of a token.
    pub fn close_all(&self, slot: CK_SLOT_ID) -> Result<()> {
        check(call!(self, C_CloseAllSessions(slot)))
    }
}

/// Reads a padded text of an info structure.
pub fn padded(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim_end_matches(' ').to_owned()
}

/// Tells where the workspace is.
pub fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").to_path_buf()
}
