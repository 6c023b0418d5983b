//! C_Initialize and C_Finalize: exit paths, unloading, threads, arguments.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::unix::process::ExitStatusExt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ffi_tests::ck::*;
use ffi_tests::{Mechanism, Module, Role, Rv, TestToken, assert_rv, call, check, isolated, say, token};

/// The threads of this process.
pub fn threads() -> BTreeSet<u64> {
    let entries = std::fs::read_dir("/proc/self/task").expect("/proc");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The open descriptors of this process.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

/// The resident memory of this process in KiB.
fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
}

/// Waits a moment for threads that are ending to be gone from /proc.
pub fn assert_threads(baseline: &BTreeSet<u64>, when: &str) {
    let end = Instant::now() + Duration::from_millis(200);
    loop {
        let left: Vec<u64> = threads().difference(baseline).copied().collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{when}: {} threads of the library are left", left.len());
        std::thread::sleep(Duration::from_millis(5));
    }
}

// ---- exit paths ----

/// What a C program would do before it ends; `exit` then runs the exit handlers.
pub fn role_exit(argument: &str) {
    let (how, config) = argument.split_once(' ').expect("how and configuration");
    if how.contains("atexit-before") {
        // SAFETY: the handler is a function of this program.
        unsafe { libc::atexit(call_from_exit_handler) };
    }
    let module = token::attach(config);
    LATE.store(module as *const Module as u64, Ordering::SeqCst);
    if how.contains("atexit-after") {
        // SAFETY: as above.
        unsafe { libc::atexit(call_from_exit_handler) };
    }
    let slot = module.slot_of("test").expect("the token");
    let session = module.open(slot).expect("C_OpenSession");
    session.login(CKU_USER, ffi_tests::USER_PIN).expect("C_Login");
    let (_, private) = session.p256("exit", false);
    if how.contains("signing") {
        session.sign_init(&Mechanism::new(CKM_ECDSA_SHA256), private).expect("C_SignInit");
        let _ = session.sign_update(b"part");
    }
    if how.contains("finding") {
        session.find_init(&ffi_tests::Template::new()).expect("C_FindObjectsInit");
    }
    if how.contains("threads") {
        for _ in 0..4 {
            let other = module.open(slot).expect("C_OpenSession");
            std::thread::spawn(move || {
                let mechanism = Mechanism::new(CKM_ECDSA);
                while other.sign(&mechanism, private, &[7; 32]).is_ok() {}
            });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    if how.contains("finalized") {
        module.finalize().expect("C_Finalize");
    }
    say("exiting");
    if how.contains("quick") {
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: ends the process through its exit handlers, as `return` from a C main does.
    unsafe { libc::exit(0) };
}

static LATE: AtomicU64 = AtomicU64::new(0);

/// Calls the module when the process is already on its way out.
extern "C" fn call_from_exit_handler() {
    let address = LATE.load(Ordering::SeqCst) as *const Module;
    // SAFETY: the module was leaked, so it lives as long as the process.
    let Some(module) = (unsafe { address.as_ref() }) else { return };
    let allowed = [CKR_OK, CKR_CRYPTOKI_NOT_INITIALIZED, CKR_FUNCTION_CANCELED];
    let answers = [
        call!(module, C_GetInfo(&mut CK_INFO::default())),
        call!(module, C_GetSlotList(1, std::ptr::null_mut(), &mut 0)),
        call!(module, C_CloseAllSessions(module.slot_of("test").unwrap_or(0))),
        call!(module, C_Finalize(std::ptr::null_mut())),
    ];
    let wrong = answers.iter().find(|rv| !allowed.contains(rv) && **rv != CKR_SLOT_ID_INVALID);
    say(&format!("handler {}", wrong.map_or("ok".to_owned(), |rv| format!("{:?}", Rv(*rv)))));
}

#[test]
fn r01_every_way_to_exit_is_clean() {
    isolated!(|| {
        let token = TestToken::new();
        let ways = [
            "plain",
            "finalized",
            "signing",
            "signing finding",
            "threads",
            "threads finalized",
            "quick signing",
            "atexit-before",
            "atexit-before signing",
            "atexit-after",
            "atexit-after signing finalized",
            "atexit-before atexit-after threads",
        ];
        for way in ways {
            let argument = format!("{} {}", way.replace(' ', "+"), token.config_text());
            let (status, lines, stderr) = Role::start("exit", &argument).finish();
            assert_eq!(status.signal(), None, "exit {way}: died by a signal\n{stderr}");
            assert_eq!(status.code(), Some(0), "exit {way}: {lines:?}\n{stderr}");
            assert!(lines.iter().any(|line| line == "exiting"), "exit {way}: never came to its exit");
            let handlers = way.matches("atexit").count();
            let clean = lines.iter().filter(|line| *line == "handler ok").count();
            assert_eq!(clean, handlers, "exit {way}: calls from an exit handler: {lines:?}");
        }
    });
}

// ---- finalising ----

#[test]
fn r02_finalize_is_idempotent_and_refuses_an_argument() {
    isolated!(|| {
        let token = TestToken::new();
        let mut something = 0u8;
        let rv = call!(token.module, C_Finalize((&raw mut something).cast()));
        assert_rv!(check(rv), CKR_ARGUMENTS_BAD);
        token.module.finalize().expect("C_Finalize");
        for _ in 0..3 {
            assert_rv!(token.module.finalize(), CKR_CRYPTOKI_NOT_INITIALIZED);
        }
        token.initialize().expect("C_Initialize after C_Finalize");
        token.user().p256("again", true);
    });
}

#[test]
fn r02_finalize_while_threads_are_inside_calls() {
    isolated!(|| {
        let token = TestToken::new();
        for round in 0..10 {
            if round > 0 {
                token.initialize().expect("C_Initialize");
            }
            let user = token.user();
            let (_, private) = user.p256("busy", false);
            let start = Barrier::new(9);
            std::thread::scope(|scope| {
                for thread in 0..8 {
                    let (token, start) = (&token, &start);
                    scope.spawn(move || {
                        let session = token.open();
                        start.wait();
                        loop {
                            let result = match thread % 4 {
                                0 => session.sign(&Mechanism::new(CKM_ECDSA), private, &[1; 32]).map(|_| ()),
                                1 => session.find(&ffi_tests::Template::new()).map(|_| ()),
                                2 => session.digest(&Mechanism::new(CKM_SHA256), &[0; 4096]).map(|_| ()),
                                _ => token.module.open(token.slot).and_then(|other| other.close()),
                            };
                            match result {
                                Ok(()) => {}
                                Err(Rv(CKR_CRYPTOKI_NOT_INITIALIZED | CKR_FUNCTION_CANCELED)) => break,
                                // A session or key may be gone before the library is.
                                Err(Rv(CKR_SESSION_HANDLE_INVALID | CKR_KEY_HANDLE_INVALID | CKR_SESSION_CLOSED)) => {}
                                Err(Rv(CKR_OPERATION_NOT_INITIALIZED | CKR_USER_NOT_LOGGED_IN)) => {}
                                Err(rv) => panic!("thread {thread} while finalising: {rv}"),
                            }
                        }
                    });
                }
                start.wait();
                std::thread::sleep(Duration::from_millis(5 + 3 * round));
                token.module.finalize().expect("C_Finalize while others are inside");
            });
        }
    });
}

// ---- unloading, threads, failed starts ----

type GetFunctionList = unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV;

/// Loads, initialises, works in a thread of the host, finalises, unloads, and only then ends the thread.
fn load_work_unload(config: &str) {
    let path = CString::new(Module::path().to_str().expect("a path of UTF-8")).expect("no NUL");
    let reserved = CString::new(config).expect("no NUL");
    // SAFETY: as a C host does it.
    unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        assert!(!handle.is_null(), "dlopen");
        let get: GetFunctionList = std::mem::transmute(libc::dlsym(handle, c"C_GetFunctionList".as_ptr()));
        let mut list = std::ptr::null_mut();
        assert_eq!(Rv(get(&mut list)), Rv(CKR_OK));
        let list = &*list;
        let mut args = CK_C_INITIALIZE_ARGS { flags: CKF_OS_LOCKING_OK, ..Default::default() };
        if !Module::is_foreign() {
            args.pReserved = reserved.as_ptr().cast_mut().cast();
        }
        assert_eq!(Rv(list.C_Initialize.expect("no NULL")((&raw mut args).cast())), Rv(CKR_OK));
        let (worked, may_end) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let mut count = 8;
                let mut slots = [0; 8];
                let rv = list.C_GetSlotList.expect("no NULL")(1, slots.as_mut_ptr(), &mut count);
                let mut session = 0;
                let open = list.C_OpenSession.expect("no NULL");
                let opened = open(slots[0], CKF_SERIAL_SESSION, std::ptr::null_mut(), None, &mut session);
                let mut random = [0u8; 32];
                let drawn = list.C_GenerateRandom.expect("no NULL")(session, random.as_mut_ptr(), 32);
                worked.wait();
                may_end.wait();
                (rv, opened, drawn, random)
            });
            worked.wait();
            assert_eq!(Rv(list.C_Finalize.expect("no NULL")(std::ptr::null_mut())), Rv(CKR_OK));
            assert_eq!(libc::dlclose(handle), 0);
            may_end.wait();
            let (listed, opened, drawn, random) = worker.join().expect("the worker");
            assert_eq!((Rv(listed), Rv(opened), Rv(drawn)), (Rv(CKR_OK), Rv(CKR_OK), Rv(CKR_OK)));
            assert_ne!(random, [0; 32]);
        });
    }
}

#[test]
fn r03_loading_and_unloading_leaves_nothing() {
    isolated!(|| {
        let directory = tempfile::TempDir::new().expect("a directory");
        let config = make_store_elsewhere(directory.path());
        for _ in 0..20 {
            load_work_unload(&config);
        }
        let (threads_before, descriptors_before, kib_before) = (threads(), descriptors(), resident_kib());
        for _ in 0..200 {
            load_work_unload(&config);
        }
        assert_threads(&threads_before, "after 200 rounds");
        assert_eq!(descriptors(), descriptors_before, "descriptors grew");
        let grown = resident_kib().saturating_sub(kib_before);
        assert!(grown < 2048, "resident memory grew by {grown} KiB in 200 rounds");
    });
}

/// Makes a store with a token in another process, so that this one has not loaded the module yet.
fn make_store_elsewhere(directory: &std::path::Path) -> String {
    let config = ffi_tests::Config::default().write(directory);
    let config = config.to_str().expect("a path of UTF-8").to_owned();
    Role::start("make-token", &config).succeed();
    // SAFETY: no thread is there yet.
    unsafe { std::env::set_var("SOFTHSM2_CONF", directory.join("softhsm2.conf")) };
    config
}

/// Makes a token "test" in an empty store.
pub fn role_make_token(config: &str) {
    let module = token::attach(config);
    token::make_token(module, "test");
    module.finalize().expect("C_Finalize");
}

#[test]
fn r04_no_thread_is_left_after_finalize() {
    isolated!(|| {
        let before = threads();
        let token = TestToken::new();
        for round in 0..5 {
            let session = token.user();
            let (public, private) = session.p256("threads", true);
            let mechanism = Mechanism::new(CKM_ECDSA);
            let signature = session.sign(&mechanism, private, &[3; 32]).expect("C_Sign");
            session.verify(&mechanism, public, &[3; 32], &signature).expect("C_Verify");
            token.module.finalize().expect("C_Finalize");
            assert_threads(&before, &format!("round {round}"));
            token.initialize().expect("C_Initialize works again");
        }
    });
}

#[test]
fn r05_a_failed_initialize_leaves_nothing() {
    isolated!(|| {
        let directory = tempfile::TempDir::new().expect("a directory");
        let config = make_store_elsewhere(directory.path());
        let module = Module::load();
        let (threads_before, descriptors_before) = (threads(), descriptors());
        let mut args = CK_C_INITIALIZE_ARGS { flags: CKF_OS_LOCKING_OK, ..Default::default() };
        args.CreateMutex = Some(create_mutex);
        for _ in 0..10 {
            assert_rv!(module.initialize_with(&mut args), CKR_ARGUMENTS_BAD);
            assert_threads(&threads_before, "after a failed C_Initialize");
            assert_eq!(descriptors(), descriptors_before);
            assert_rv!(module.info(), CKR_CRYPTOKI_NOT_INITIALIZED);
        }
        token::initialize(module, config.as_ref()).expect("the next attempt works");
        assert!(module.slot_of("test").is_some());
    });
}

// ---- arguments and races ----

unsafe extern "C" fn create_mutex(_: *mut *mut std::ffi::c_void) -> CK_RV {
    CKR_GENERAL_ERROR
}

unsafe extern "C" fn use_mutex(_: *mut std::ffi::c_void) -> CK_RV {
    CALLED.store(true, Ordering::SeqCst);
    CKR_OK
}

unsafe extern "C" fn make_mutex(mutex: *mut *mut std::ffi::c_void) -> CK_RV {
    CALLED.store(true, Ordering::SeqCst);
    // SAFETY: the module gives a place for the mutex.
    unsafe { *mutex = std::ptr::dangling_mut::<u64>().cast() };
    CKR_OK
}

static CALLED: AtomicBool = AtomicBool::new(false);

#[test]
fn r12_initialize_again_is_refused_at_once_from_any_thread() {
    isolated!(|| {
        let token = TestToken::new();
        let again = || token.initialize();
        assert_rv!(again(), CKR_CRYPTOKI_ALREADY_INITIALIZED);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_rv!(token.initialize(), CKR_CRYPTOKI_ALREADY_INITIALIZED));
            }
        });
        token.user();
    });
}

#[test]
fn r12_exactly_one_of_many_racing_initializes_wins() {
    isolated!(|| {
        let token = TestToken::new();
        for _ in 0..20 {
            token.module.finalize().expect("C_Finalize");
            let (won, start) = (AtomicU64::new(0), Barrier::new(8));
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        start.wait();
                        match token.initialize() {
                            Ok(()) => drop(won.fetch_add(1, Ordering::SeqCst)),
                            Err(rv) => assert_eq!(rv, Rv(CKR_CRYPTOKI_ALREADY_INITIALIZED)),
                        }
                    });
                }
            });
            assert_eq!(won.load(Ordering::SeqCst), 1);
            token.module.info().expect("it is initialised");
        }
    });
}

#[test]
fn r13_the_arguments_of_initialize() {
    isolated!(|| {
        let directory = tempfile::TempDir::new().expect("a directory");
        let config = make_store_elsewhere(directory.path());
        // SAFETY: no thread is there yet.
        unsafe { std::env::set_var("STRONGROOM_CONFIG", &config) };
        let module = Module::load();
        let works = |args: *mut CK_C_INITIALIZE_ARGS, what: &str| {
            module.initialize_with(args).unwrap_or_else(|rv| panic!("{what}: {rv}"));
            let slot = module.slot_of("test").unwrap_or_else(|| panic!("{what}: no token"));
            // Threads work whatever the arguments were.
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..50 {
                            module.open(slot).expect("C_OpenSession").close().expect("C_CloseSession");
                        }
                    });
                }
            });
            module.finalize().expect("C_Finalize");
        };
        works(std::ptr::null_mut(), "NULL");
        let none = CK_C_INITIALIZE_ARGS::default();
        works(&mut none.clone(), "all NULL");
        for flags in [
            CKF_OS_LOCKING_OK,
            CKF_LIBRARY_CANT_CREATE_OS_THREADS | CKF_OS_LOCKING_OK,
            CKF_LIBRARY_CANT_CREATE_OS_THREADS,
        ] {
            works(&mut CK_C_INITIALIZE_ARGS { flags, ..none }, "flags");
        }
        let all = CK_C_INITIALIZE_ARGS {
            CreateMutex: Some(make_mutex),
            DestroyMutex: Some(use_mutex),
            LockMutex: Some(use_mutex),
            UnlockMutex: Some(use_mutex),
            ..none
        };
        works(&mut CK_C_INITIALIZE_ARGS { flags: CKF_OS_LOCKING_OK, ..all }, "callbacks and OS locking");
        assert!(!CALLED.load(Ordering::SeqCst), "OS locking was offered, so the callbacks are not needed");
        let rv = module.initialize_with(&mut all.clone());
        assert_rv!(rv, CKR_OK | CKR_CANT_LOCK, "callbacks alone");
        if rv.is_ok() {
            module.finalize().expect("C_Finalize");
        }

        for missing in 0..4 {
            let mut args = CK_C_INITIALIZE_ARGS { flags: CKF_OS_LOCKING_OK, ..all };
            match missing {
                0 => args.CreateMutex = None,
                1 => args.DestroyMutex = None,
                2 => args.LockMutex = None,
                _ => args.UnlockMutex = None,
            }
            assert_rv!(
                module.initialize_with(&mut args),
                CKR_ARGUMENTS_BAD,
                "three of four callbacks, without {missing}"
            );
        }
        // The arguments are copied: they may go away right after the call.
        let path = CString::new(config).expect("no NUL");
        let mut args = Box::new(CK_C_INITIALIZE_ARGS { flags: CKF_OS_LOCKING_OK, ..none });
        args.pReserved = path.as_ptr().cast_mut().cast();
        module.initialize_with(&mut *args).expect("a path as reserved string");
        let mut bytes = path.into_bytes_with_nul();
        bytes.fill(b'?');
        drop((args, bytes));
        let slot = module.slot_of("test").expect("the token");
        module.open(slot).expect("C_OpenSession").login(CKU_USER, ffi_tests::USER_PIN).expect("C_Login");
    });
}

/// The library leaves the process as it found it.
#[test]
fn r72_process_wide_state_stays() {
    isolated!(|| {
        let state = || {
            // Of this thread: the main thread blocks signals for a moment while it starts others.
            let status = std::fs::read_to_string("/proc/thread-self/status").expect("/proc");
            let signals: Vec<String> = status
                .lines()
                .filter(|line| line.starts_with("Sig") && !line.starts_with("SigQ"))
                .map(str::to_owned)
                .collect();
            let mask = status.lines().find(|line| line.starts_with("Umask")).map(str::to_owned);
            let limits = std::fs::read_to_string("/proc/self/limits").expect("/proc");
            let directory = std::env::current_dir().expect("a directory");
            let variables: Vec<_> = std::env::vars_os().filter(|(name, _)| name != "SOFTHSM2_CONF").collect();
            // SAFETY: asks only.
            let locale =
                unsafe { std::ffi::CStr::from_ptr(libc::setlocale(libc::LC_ALL, std::ptr::null())) }.to_owned();
            (signals, mask, limits, directory, variables, locale)
        };
        let before = state();
        let token = TestToken::new();
        let session = token.user();
        session.p256("state", true);
        assert_eq!(state(), before, "while initialised");
        token.module.finalize().expect("C_Finalize");
        assert_eq!(state(), before, "after C_Finalize");
    });
}

/// The database is for its owner alone.
#[test]
fn r72_the_database_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    isolated!(|| {
        let token = TestToken::new();
        token.user().p256("modes", true);
        for entry in std::fs::read_dir(token.directory()).expect("the directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("strongroom.db") {
                let mode = entry.metadata().expect("metadata").permissions().mode() & 0o777;
                assert_eq!(mode, 0o600, "{name}");
            }
        }
        assert!(Module::is_foreign() || token.database().exists());
    });
}

/// Waiting for slot events.
#[test]
fn r63_waiting_for_a_slot_event_ends_with_finalize() {
    isolated!(|| {
        let token = TestToken::new();
        let wait = |flags| call!(token.module, C_WaitForSlotEvent(flags, &mut 0, std::ptr::null_mut()));
        assert_rv!(check(wait(CKF_DONT_BLOCK)), CKR_NO_EVENT);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(0));
            std::thread::sleep(Duration::from_millis(100));
            if waiting.is_finished() {
                assert_rv!(check(waiting.join().expect("the waiter")), CKR_FUNCTION_NOT_SUPPORTED);
                return;
            }
            let start = Instant::now();
            token.module.finalize().expect("C_Finalize");
            let rv = waiting.join().expect("the waiter");
            assert_rv!(check(rv), CKR_CRYPTOKI_NOT_INITIALIZED);
            assert!(start.elapsed() < Duration::from_secs(5), "the waiter was woken late");
        });
    });
}
