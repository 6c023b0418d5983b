//! Every function of every table, with absurd arguments, in every state of the library.

use std::collections::BTreeSet;

use ffi_tests::ck::*;
use ffi_tests::signatures::{Arg, FUNCTIONS};
use ffi_tests::{Config, Module, Rv, Session, TestToken, USER_PIN, assert_rv, isolated};

/// A function as an address: on this ABI, more integers than it takes do no harm.
type Raw = extern "C" fn(usize, usize, usize, usize, usize, usize, usize, usize, usize, usize, usize, usize) -> CK_RV;

/// A function of a table.
#[derive(Clone, Copy)]
struct Function {
    name: &'static str,
    args: &'static [Arg],
    raw: Raw,
}

/// The functions that work before `C_Initialize`.
const ALWAYS: &[&str] = &["C_Initialize", "C_GetFunctionList", "C_GetInterfaceList", "C_GetInterface"];

/// Reads a table as an array of addresses after its version.
fn functions_of(table: *const u8, count: usize) -> Vec<Function> {
    let first = table.wrapping_add(size_of::<usize>()).cast::<usize>();
    let function = |(index, (name, args)): (usize, &(&'static str, &'static [Arg]))| {
        // SAFETY: the table has so many words.
        let address = unsafe { first.add(index).read() };
        assert_ne!(address, 0, "{name} is NULL in the table of {count}");
        // SAFETY: the word is a function; see `Raw`.
        Function { name, args, raw: unsafe { std::mem::transmute::<usize, Raw>(address) } }
    };
    FUNCTIONS.iter().take(count).enumerate().map(function).collect()
}

/// How many functions a table has.
fn count_of<T>() -> usize {
    (size_of::<T>() - size_of::<usize>()) / size_of::<usize>()
}

/// Gives all functions of all tables, each address once.
fn all_functions(module: &Module) -> Vec<Function> {
    let mut all = functions_of((module.list() as *const CK_FUNCTION_LIST).cast(), count_of::<CK_FUNCTION_LIST>());
    if module.symbol("C_GetInterface").is_some() {
        let table =
            |minor| module.interface(Some("PKCS 11"), Some((3, minor)), 0).expect("the interface").pFunctionList;
        all.extend(functions_of(table(0).cast(), count_of::<CK_FUNCTION_LIST_3_0>()));
        all.extend(functions_of(table(2).cast(), count_of::<CK_FUNCTION_LIST_3_2>()));
    } else {
        assert!(Module::is_foreign(), "the module exports C_GetInterface");
    }
    let mut seen = BTreeSet::new();
    all.retain(|function| seen.insert((function.name, function.raw as usize)));
    all
}

/// What a kind of argument is given.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fill {
    /// Zero or NULL.
    Zero,
    /// All bits.
    Ones,
    /// A number.
    Value(usize),
    /// The session, when there is one.
    Session,
    /// The slot of the token.
    Slot,
    /// Memory of 64 KiB full of zeros, `offset` bytes from an aligned address.
    Scratch(usize),
    /// A mechanism of this number, with this parameter and length.
    Mechanism(CK_MECHANISM_TYPE, bool, usize),
    /// An array of attributes that are all wrong.
    Template,
}

/// One way of calling.
#[derive(Debug, Clone, Copy)]
struct Pattern {
    name: &'static str,
    session: Fill,
    slot: Fill,
    object: Fill,
    number: Fill,
    bytes: Fill,
    len_out: Fill,
    mechanism: Fill,
    template: Fill,
    out: Fill,
}

const ZERO: Pattern = Pattern {
    name: "all zero",
    session: Fill::Zero,
    slot: Fill::Zero,
    object: Fill::Zero,
    number: Fill::Zero,
    bytes: Fill::Zero,
    len_out: Fill::Zero,
    mechanism: Fill::Zero,
    template: Fill::Zero,
    out: Fill::Zero,
};

const NULLS: Pattern = Pattern { name: "NULL pointers", session: Fill::Session, slot: Fill::Slot, ..ZERO };

const VALID: Pattern = Pattern {
    name: "pointers to zeros",
    session: Fill::Session,
    slot: Fill::Slot,
    object: Fill::Value(1),
    number: Fill::Value(1),
    bytes: Fill::Scratch(0),
    len_out: Fill::Scratch(4096),
    mechanism: Fill::Scratch(8192),
    template: Fill::Scratch(12288),
    out: Fill::Scratch(16384),
};

fn patterns() -> Vec<Pattern> {
    let mut all = vec![
        ZERO,
        Pattern { name: "handles of all bits", session: Fill::Ones, slot: Fill::Ones, object: Fill::Ones, ..ZERO },
        NULLS,
        Pattern { name: "NULL pointers, objects of all bits", object: Fill::Ones, ..NULLS },
        Pattern { name: "NULL pointers with length 1", number: Fill::Value(1), ..NULLS },
        Pattern { name: "NULL pointers with length isize::MAX", number: Fill::Value(usize::MAX >> 1), ..NULLS },
        Pattern { name: "NULL pointers with length ULONG_MAX", number: Fill::Ones, ..NULLS },
        Pattern {
            name: "NULL data, real outputs",
            bytes: Fill::Zero,
            template: Fill::Zero,
            mechanism: Fill::Zero,
            ..VALID
        },
        VALID,
        Pattern { name: "real pointers, no lengths", number: Fill::Zero, ..VALID },
        Pattern { name: "real pointers, slot and object of all bits", slot: Fill::Ones, object: Fill::Ones, ..VALID },
        // No memory can be larger than isize::MAX, so a module can tell without touching it.
        Pattern { name: "real pointers, length ULONG_MAX", number: Fill::Ones, ..VALID },
        Pattern {
            name: "misaligned pointers",
            bytes: Fill::Scratch(1),
            len_out: Fill::Scratch(4097),
            mechanism: Fill::Scratch(8193),
            template: Fill::Scratch(12289),
            out: Fill::Scratch(16385),
            ..VALID
        },
        Pattern { name: "wrong attributes", template: Fill::Template, number: Fill::Value(4), ..VALID },
    ];
    let mechanisms = [
        CKM_RSA_PKCS_KEY_PAIR_GEN,
        CKM_RSA_PKCS_PSS,
        CKM_RSA_PKCS_OAEP,
        CKM_SHA256_RSA_PKCS_PSS,
        CKM_RSA_AES_KEY_WRAP,
        CKM_ECDSA,
        CKM_EDDSA,
        CKM_ECDH1_DERIVE,
        CKM_AES_CBC,
        CKM_AES_CTR,
        CKM_AES_GCM,
        CKM_AES_CMAC_GENERAL,
        CKM_SHA256,
        CKM_SHA256_HMAC_GENERAL,
        CKM_HKDF_DERIVE,
        CK_MECHANISM_TYPE::MAX,
    ];
    for kind in mechanisms {
        // A NULL parameter of any length; a real one that is too short; one longer than any memory.
        for (real, len) in
            [(false, 0), (false, 16), (false, usize::MAX), (true, 0), (true, 1), (true, 17), (true, usize::MAX)]
        {
            all.push(Pattern { name: "odd mechanism", mechanism: Fill::Mechanism(kind, real, len), ..VALID });
        }
        // A parameter of plausible sizes, all zeros: inner pointers are NULL.
        for len in [24, 40, 48] {
            all.push(Pattern { name: "mechanism of zeros", mechanism: Fill::Mechanism(kind, true, len), ..VALID });
        }
    }
    all
}

/// Memory for pointers that may be written through.
#[repr(C, align(4096))]
struct Scratch([u8; 65536]);

/// Calls one function in one way.
fn call(
    function: Function,
    pattern: &Pattern,
    session: CK_SESSION_HANDLE,
    slot: CK_SLOT_ID,
    scratch: &mut Scratch,
) -> CK_RV {
    scratch.0.fill(0);
    let base = scratch.0.as_mut_ptr();
    let value = |fill: Fill| match fill {
        Fill::Zero => 0,
        Fill::Ones => usize::MAX,
        Fill::Value(value) => value,
        Fill::Session => session as usize,
        Fill::Slot => slot as usize,
        Fill::Scratch(offset) => base as usize + offset,
        Fill::Mechanism(kind, real, len) => {
            let parameter = if real { base as usize + 20480 } else { 0 };
            write_words(base, 8192, &[kind as usize, parameter, len])
        }
        Fill::Template => write_words(
            base,
            12288,
            &[
                usize::MAX,
                0,
                1,
                CKA_CLASS as usize,
                0,
                usize::MAX,
                CKA_VALUE as usize,
                base as usize,
                usize::MAX,
                0,
                0,
                0,
            ],
        ),
    };
    let mut args = [0usize; 12];
    for (arg, kind) in args.iter_mut().zip(function.args) {
        *arg = value(match kind {
            Arg::Session => pattern.session,
            Arg::Slot => pattern.slot,
            Arg::Object => pattern.object,
            Arg::Flags => Fill::Value(CKF_DONT_BLOCK as usize),
            Arg::Number => pattern.number,
            Arg::Bytes => pattern.bytes,
            Arg::LenOut => pattern.len_out,
            Arg::Mechanism => pattern.mechanism,
            Arg::Template => pattern.template,
            Arg::Out => pattern.out,
            Arg::Notify => Fill::Zero,
        });
    }
    let [a, b, c, d, e, f, g, h, i, j, k, l] = args;
    (function.raw)(a, b, c, d, e, f, g, h, i, j, k, l)
}

fn write_words(base: *mut u8, offset: usize, words: &[usize]) -> usize {
    let at = base.wrapping_add(offset).cast::<usize>();
    for (index, word) in words.iter().enumerate() {
        // SAFETY: the scratch memory is larger.
        unsafe { at.add(index).write(*word) };
    }
    at as usize
}

/// Says what is called, so that the output of a crash ends with it.
fn announce(state: &str, function: Function, pattern: &Pattern) {
    eprintln!("{state}: {} with {}, {:?}", function.name, pattern.name, pattern.mechanism);
}

/// Tells whether an answer is one that a caller can act on.
fn is_sound(rv: CK_RV) -> bool {
    Rv(rv).is_standard() && rv != CKR_GENERAL_ERROR
}

/// Calls everything in a state that `prepare` sets up before each call.
fn survive(state: &str, token: &TestToken, mut prepare: impl FnMut() -> CK_SESSION_HANDLE) {
    let mut scratch = Box::new(Scratch([0; 65536]));
    let mut unsound = Vec::new();
    for function in all_functions(token.module) {
        let patterns = patterns();
        let takes_mechanism = function.args.contains(&Arg::Mechanism);
        for pattern in
            patterns.iter().filter(|pattern| takes_mechanism || !matches!(pattern.mechanism, Fill::Mechanism(..)))
        {
            if function.name == "C_Initialize" && pattern.out != Fill::Zero {
                continue; // r13 has its arguments
            }
            let session = prepare();
            announce(state, function, pattern);
            let rv = call(function, pattern, session, token.slot, &mut scratch);
            if !is_sound(rv) {
                unsound.push(format!("{} with {}, {:?}: {:?}", function.name, pattern.name, pattern.mechanism, Rv(rv)));
            }
        }
    }
    assert!(unsound.is_empty(), "{state}: {} unsound answers:\n{}", unsound.len(), unsound.join("\n"));
}

/// Calls everything in a library that is not initialised.
fn refuse_all(module: &Module, state: &str) {
    let mut scratch = Box::new(Scratch([0; 65536]));
    let mut wrong = Vec::new();
    for function in all_functions(module) {
        if ALWAYS.contains(&function.name) {
            continue;
        }
        for pattern in patterns().iter().take(14) {
            announce(state, function, pattern);
            let rv = call(function, pattern, 1, 1, &mut scratch);
            // C_Finalize may judge its reserved argument first.
            let is_argument = function.name == "C_Finalize" && pattern.out != Fill::Zero && rv == CKR_ARGUMENTS_BAD;
            if rv != CKR_CRYPTOKI_NOT_INITIALIZED && !is_argument {
                wrong.push(format!("{} with {}: {:?}", function.name, pattern.name, Rv(rv)));
            }
        }
    }
    assert!(wrong.is_empty(), "{state}: {} functions did not refuse:\n{}", wrong.len(), wrong.join("\n"));
}

/// Many wrong PINs are tried here; none may lock.
fn patient_token() -> TestToken {
    TestToken::with(&Config { max_attempts: 1000, ..Config::default() })
}

/// Initialises again when a call has finalised.
fn revive(token: &TestToken) {
    if token.module.info().is_err() {
        token.initialize().expect("C_Initialize works after C_Finalize");
    }
}

/// Opens a session again when a call has closed it; logs in or out as asked.
fn session_again(token: &TestToken, held: &mut Option<Session>, logged_in: bool) -> CK_SESSION_HANDLE {
    revive(token);
    let session = held.filter(|session| session.info().is_ok()).unwrap_or_else(|| token.open());
    *held = Some(session);
    let state = session.info().expect("the session is open").state;
    if logged_in && state != CKS_RW_USER_FUNCTIONS {
        let _ = session.logout();
        session.login(CKU_USER, USER_PIN).expect("the PIN is still right");
    }
    if !logged_in && state != CKS_RW_PUBLIC_SESSION {
        session.logout().expect("a user was logged in");
    }
    session.handle
}

#[test]
fn r16_every_function_refuses_before_initialize() {
    isolated!(|| refuse_all(Module::load(), "before C_Initialize"));
}

#[test]
fn r16_every_function_refuses_after_finalize() {
    isolated!(|| {
        let token = TestToken::new();
        token.module.finalize().expect("C_Finalize");
        refuse_all(token.module, "after C_Finalize");
    });
}

#[test]
fn r16_every_function_survives_absurd_arguments_without_session() {
    isolated!(|| {
        let token = patient_token();
        survive("no session", &token, || {
            revive(&token);
            1
        });
    });
}

#[test]
fn r16_every_function_survives_absurd_arguments_logged_out() {
    isolated!(|| {
        let token = patient_token();
        let mut held = None;
        survive("logged out", &token, || session_again(&token, &mut held, false));
    });
}

#[test]
fn r16_every_function_survives_absurd_arguments_logged_in() {
    isolated!(300, || {
        let token = patient_token();
        let mut held = None;
        survive("logged in", &token, || session_again(&token, &mut held, true));
    });
}

/// Operations that are active see the same lengths: none is read, each is refused.
#[test]
fn r16_impossible_lengths_are_refused_in_active_operations() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let aes = session.aes(32, "aes", false, &ffi_tests::Template::new()).expect("AES key");
        let (public, private) = session.p256("ec", false);
        let module = token.module;
        let (mut byte, mut len) = ([0u8; 64], 64);
        let at = byte.as_mut_ptr();
        let huge = [CK_ULONG::MAX, CK_ULONG::MAX - 7, 1 << 63];
        for length in huge {
            for pointer in [std::ptr::null_mut(), at] {
                let digest = ffi_tests::Mechanism::new(CKM_SHA256);
                session.digest_init(&digest).expect("C_DigestInit");
                let rv = ffi_tests::call!(module, C_DigestUpdate(session.handle, pointer, length));
                assert_rv!(ffi_tests::check(rv), CKR_ARGUMENTS_BAD | CKR_DATA_LEN_RANGE | CKR_HOST_MEMORY);

                let ecdsa = ffi_tests::Mechanism::new(CKM_ECDSA_SHA256);
                session.sign_init(&ecdsa, private).expect("C_SignInit");
                let rv = ffi_tests::call!(module, C_Sign(session.handle, pointer, length, at, &mut len));
                assert_rv!(ffi_tests::check(rv), CKR_ARGUMENTS_BAD | CKR_DATA_LEN_RANGE | CKR_HOST_MEMORY);

                session.verify_init(&ecdsa, public).expect("C_VerifyInit");
                let rv = ffi_tests::call!(module, C_Verify(session.handle, at, 1, pointer, length));
                assert_rv!(ffi_tests::check(rv), CKR_ARGUMENTS_BAD | CKR_SIGNATURE_LEN_RANGE | CKR_HOST_MEMORY);

                let gcm = ffi_tests::Mechanism::gcm(CKM_AES_GCM, &[1; 12], b"", 128);
                session.encrypt_init(&gcm, aes).expect("C_EncryptInit");
                let rv = ffi_tests::call!(module, C_Encrypt(session.handle, pointer, length, at, &mut len));
                assert_rv!(ffi_tests::check(rv), CKR_ARGUMENTS_BAD | CKR_DATA_LEN_RANGE | CKR_HOST_MEMORY);

                session.decrypt_init(&gcm, aes).expect("C_DecryptInit");
                let rv = ffi_tests::call!(module, C_DecryptUpdate(session.handle, pointer, length, at, &mut len));
                assert_rv!(ffi_tests::check(rv), CKR_ARGUMENTS_BAD | CKR_ENCRYPTED_DATA_LEN_RANGE | CKR_HOST_MEMORY);
            }
        }
    });
}

/// Strongroom's own functions (`SR_*`) with the two calls that tell most: all zero, and handles of all bits with NULL pointers.
#[test]
fn r16_vendor_functions_survive_absurd_arguments() {
    isolated!(|| {
        let token = patient_token();
        let names = crate::exports::exported_symbols();
        for name in names.iter().filter(|name| name.starts_with("SR_")) {
            let address = token.module.symbol(name).expect("an exported symbol is found");
            // SAFETY: the symbol is a function; see `Raw`.
            let raw = unsafe { std::mem::transmute::<usize, Raw>(address) };
            for first in [0, usize::MAX, token.user().handle as usize] {
                revive(&token);
                eprintln!("{name} with {first:#x} and zeros");
                let rv = raw(first, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
                assert!(is_sound(rv), "{name}({first:#x}, 0, …) answered {:?}", Rv(rv));
                token.module.close_all(token.slot).expect("C_CloseAllSessions");
            }
        }
    });
}

/// Interfaces: versions, completeness, answers to bad arguments.
#[test]
fn r44_interfaces_are_complete_and_exact() {
    isolated!(|| {
        let module = Module::load();
        let version = module.list().version;
        assert_eq!((version.major, version.minor), (2, 40), "C_GetFunctionList gives a table of 2.40");
        let of = |version| {
            let interface = module.interface(Some("PKCS 11"), version, 0).expect("C_GetInterface");
            // SAFETY: a table starts with its version.
            let found = unsafe { *interface.pFunctionList.cast::<CK_VERSION>() };
            (interface.pFunctionList as usize, (found.major, found.minor))
        };
        assert_eq!(of(Some((3, 0))).1, (3, 0));
        assert_eq!(of(Some((3, 2))).1, (3, 2));
        assert_eq!(of(Some((2, 40))).1, (2, 40));
        assert_eq!(of(None).1, (3, 2), "without a version, the newest");
        assert_eq!(module.interface(None, None, 0).expect("the default interface").pFunctionList as usize, of(None).0);
        all_functions(module);

        assert_rv!(module.interface(Some("PKCS 12"), None, 0).map(|_| ()), CKR_ARGUMENTS_BAD);
        assert_rv!(module.interface(Some("PKCS 11"), Some((9, 9)), 0).map(|_| ()), CKR_ARGUMENTS_BAD);
        assert_rv!(module.interface(Some("PKCS 11"), Some((3, 0)), 1 << 40).map(|_| ()), CKR_ARGUMENTS_BAD);
        let vendor = module.interface(Some("Vendor Strongroom"), None, 0).expect("the vendor's interface");
        assert!(!vendor.pFunctionList.is_null());
    });
}

/// `C_GetInterfaceList` and `C_GetFunctionList` with bad arguments.
#[test]
fn r44_interface_list_follows_the_two_call_convention() {
    isolated!(|| {
        let module = Module::load();
        let tables = module.list_3_2().expect("the 3.2 table");
        let (list, get) = (tables.C_GetInterfaceList.expect("no NULL"), tables.C_GetInterface.expect("no NULL"));
        let mut count = 0;
        // SAFETY: the pointers live, or are NULL on purpose.
        unsafe {
            assert_eq!(Rv(list(std::ptr::null_mut(), std::ptr::null_mut())), Rv(CKR_ARGUMENTS_BAD));
            assert_eq!(
                Rv(get(std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut(), 0)),
                Rv(CKR_ARGUMENTS_BAD)
            );
            let get_list = module.list().C_GetFunctionList.expect("no NULL");
            assert_eq!(Rv(get_list(std::ptr::null_mut())), Rv(CKR_ARGUMENTS_BAD));
            assert_eq!(Rv(list(std::ptr::null_mut(), &mut count)), Rv(CKR_OK));
        }
        assert!(count >= 4, "three versions and the vendor's interface");
        let mut interfaces = vec![CK_INTERFACE::default(); count as usize];
        let mut short = 1;
        // SAFETY: as above.
        unsafe {
            assert_eq!(Rv(list(interfaces.as_mut_ptr(), &mut short)), Rv(CKR_BUFFER_TOO_SMALL));
            assert_eq!(short, count);
            assert_eq!(Rv(list(interfaces.as_mut_ptr(), &mut count)), Rv(CKR_OK));
        }
        for interface in interfaces {
            assert!(!interface.pFunctionList.is_null() && !interface.pInterfaceName.is_null());
        }
    });
}

/// `C_SessionCancel` ends exactly the operations it is asked to.
#[test]
fn r44_session_cancel_ends_operations() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let cancel = token.module.list_3_2().expect("the 3.2 table").C_SessionCancel.expect("no NULL");
        let (_, private) = session.p256("ec", false);
        session.sign_init(&ffi_tests::Mechanism::new(CKM_ECDSA), private).expect("C_SignInit");
        session.digest_init(&ffi_tests::Mechanism::new(CKM_SHA256)).expect("C_DigestInit");
        // SAFETY: no pointers.
        assert_eq!(Rv(unsafe { cancel(session.handle, CKF_SIGN) }), Rv(CKR_OK));
        assert_rv!(session.sign_once(&[1; 32]), CKR_OPERATION_NOT_INITIALIZED);
        session.digest_once(b"still there").expect("the digest was not cancelled");
        // SAFETY: no pointers.
        assert_eq!(Rv(unsafe { cancel(CK_ULONG::MAX, CKF_SIGN) }), Rv(CKR_SESSION_HANDLE_INVALID));
    });
}
