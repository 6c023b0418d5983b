//! fork(): the child knows at once that nothing is its own, and can start anew; the parent notices nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ffi_tests::ck::*;
use ffi_tests::signatures::FUNCTIONS;
use ffi_tests::{Mechanism, Rv, Session, TestToken, USER_PIN, call, isolated};

/// Runs a function in a forked child that must end by itself within the time; gives its exit code, or its signal negated.
pub fn in_child(limit: Duration, body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child only calls the module and ends with `_exit`.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    if child == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(99);
        // SAFETY: ends the child without the parent's exit handlers.
        unsafe { libc::_exit(code) };
    }
    wait_for(child, limit)
}

/// Waits for a child of `fork`.
fn wait_for(child: libc::pid_t, limit: Duration) -> i32 {
    let end = Instant::now() + limit;
    loop {
        let mut status = 0;
        // SAFETY: the pointer lives.
        if unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == child {
            return if libc::WIFSIGNALED(status) { -libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
        }
        if Instant::now() > end {
            // SAFETY: the child is ours and still there.
            unsafe { libc::kill(child, libc::SIGKILL) };
            // SAFETY: as above.
            unsafe { libc::waitpid(child, &mut status, 0) };
            panic!("the child did not end within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Signs in threads of the parent while something happens; every signature must succeed.
fn while_signing(token: &TestToken, private: CK_OBJECT_HANDLE, body: impl FnOnce()) {
    while_working(token, |session| sign(session, private), body);
}

fn sign(session: &Session, private: CK_OBJECT_HANDLE) {
    session.sign(&Mechanism::new(CKM_ECDSA), private, &[5; 32]).expect("the parent goes on signing");
}

/// Does some work over and over in threads of the parent while something happens, and counts.
fn while_working(token: &TestToken, work: impl Fn(&Session) + Sync, body: impl FnOnce()) {
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let session = token.open();
            let (stop, done, work) = (&stop, &done, &work);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    work(&session);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while done.load(Ordering::Relaxed) < 16 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        let before = done.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(50));
        let after = done.load(Ordering::Relaxed);
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        assert!(after > before, "the parent works on after the fork");
    });
}

/// A whole life in the child: initialise, log in, sign, finalise.
pub fn live_in_child(token: &TestToken) -> i32 {
    let start = Instant::now();
    if token.initialize().is_err() {
        return 1;
    }
    if start.elapsed() > Duration::from_secs(1) {
        return 2;
    }
    let Ok(session) = token.module.open(token.slot) else { return 3 };
    if session.login(CKU_USER, USER_PIN).is_err() {
        return 4;
    }
    let Ok((public, private)) = session.ec_pair(ffi_tests::template::curve::P256, "child", false) else { return 5 };
    let mechanism = Mechanism::new(CKM_ECDSA);
    let Ok(signature) = session.sign(&mechanism, private, &[9; 32]) else { return 6 };
    if session.verify(&mechanism, public, &[9; 32], &signature).is_err() {
        return 7;
    }
    if token.module.finalize().is_err() { 8 } else { 0 }
}

#[test]
fn r06_every_function_refuses_in_the_child() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let list = (token.module.list_3_2().expect("the 3.2 table") as *const CK_FUNCTION_LIST_3_2).cast::<usize>();
        let always = ["C_Initialize", "C_GetFunctionList", "C_GetInterfaceList", "C_GetInterface"];
        let code = in_child(Duration::from_secs(5), || {
            for (index, (name, _)) in FUNCTIONS.iter().enumerate().filter(|(_, function)| !always.contains(&function.0))
            {
                type Raw =
                    extern "C" fn(usize, usize, usize, usize, usize, usize, usize, usize, usize, usize, usize) -> CK_RV;
                // SAFETY: the table has a function in this place; see tables.rs.
                let function: Raw = unsafe { std::mem::transmute(list.add(index + 1).read()) };
                let start = Instant::now();
                let first = if *name == "C_Finalize" { 0 } else { session.handle as usize };
                let rv = function(first, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
                if rv != CKR_CRYPTOKI_NOT_INITIALIZED {
                    eprintln!("{name} in the child: {:?}", Rv(rv));
                    return 1;
                }
                if start.elapsed() > Duration::from_millis(100) {
                    eprintln!("{name} in the child took {:?}", start.elapsed());
                    return 2;
                }
            }
            0
        });
        assert_eq!(code, 0, "see the lines above");
        session.random(8).expect("the parent's session lives");
    });
}

#[test]
fn r06_the_child_refuses_at_once_while_the_parent_works() {
    isolated!(|| {
        let token = TestToken::new();
        let (_, private) = token.user().p256("parent", false);
        while_signing(&token, private, || {
            for _ in 0..50 {
                let code = in_child(Duration::from_secs(2), || {
                    let session = Session { module: token.module, handle: 1 };
                    let calls = [
                        call!(token.module, C_GetSlotList(1, std::ptr::null_mut(), &mut 0)),
                        call!(token.module, C_Finalize(std::ptr::null_mut())),
                        session.sign_init(&Mechanism::new(CKM_ECDSA), private).map_or_else(|rv| rv.0, |()| CKR_OK),
                    ];
                    i32::from(calls.iter().any(|rv| *rv != CKR_CRYPTOKI_NOT_INITIALIZED))
                });
                assert_eq!(code, 0);
            }
        });
    });
}

#[test]
fn r07_a_child_of_a_busy_parent_can_start_anew() {
    isolated!(|| {
        let token = TestToken::new();
        let (_, private) = token.user().p256("parent", true);
        while_signing(&token, private, || {
            for _ in 0..20 {
                assert_eq!(
                    in_child(Duration::from_secs(10), || live_in_child(&token)),
                    0,
                    "see live_in_child for the step"
                );
            }
        });
        assert_eq!(token.user_again().sign(&Mechanism::new(CKM_ECDSA), private, &[1; 32]).expect("C_Sign").len(), 64);
    });
}

/// How often the next test forks. Without the passes of `crypto` a child hangs in one of the first thirty or so.
const ROUNDS: usize = 100;

#[test]
fn r07_no_child_inherits_a_taken_lock_of_the_random_generator() {
    isolated!(|| {
        let token = TestToken::new();
        let (_, private) = token.user().p256("parent", false);
        let work = |session: &Session| {
            (0..16).for_each(|_| drop(session.random(16).expect("the parent goes on drawing")));
            sign(session, private);
        };
        while_working(&token, work, || {
            for round in 0..ROUNDS {
                // C_Initialize and C_OpenSession draw handles as well.
                let code = in_child(Duration::from_secs(10), || {
                    let begin = token.initialize().and_then(|()| token.module.open(token.slot));
                    let drawn = begin.and_then(|session| session.random(16));
                    drawn.map_or(1, |bytes| i32::from(bytes.len() != 16))
                });
                assert_eq!(code, 0, "round {round}");
            }
        });
    });
}

#[test]
fn r06_a_fork_does_not_wait_for_the_generation_of_an_rsa_key() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    session.rsa(4096, "parent", false);
                }
            });
            // It takes about a second for each key: some of the forks are in the middle.
            let slowest = (0..20).map(|_| {
                std::thread::sleep(Duration::from_millis(100));
                let start = Instant::now();
                assert_eq!(in_child(Duration::from_secs(10), || 0), 0);
                start.elapsed()
            });
            let slowest = slowest.max();
            stop.store(true, Ordering::Relaxed);
            assert!(slowest < Some(Duration::from_secs(1)), "a fork took {slowest:?}");
        });
    });
}

/// Reads the session state of the parent: the user is still logged in.
trait Again {
    fn user_again(&self) -> Session;
}

impl Again for TestToken {
    fn user_again(&self) -> Session {
        let session = self.open();
        assert_eq!(session.info().expect("C_GetSessionInfo").state, CKS_RW_USER_FUNCTIONS, "the parent's login lives");
        session
    }
}

#[test]
fn r07_the_childs_objects_appear_in_the_parent() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        session.p256("parent", true);
        let code = in_child(Duration::from_secs(10), || {
            token.initialize().expect("C_Initialize");
            token.user().p256("from the child", true);
            token.module.finalize().expect("C_Finalize");
            0
        });
        assert_eq!(code, 0);
        let wanted = ffi_tests::Template::class(CKO_PRIVATE_KEY).bytes(CKA_LABEL, "from the child");
        session.find_one(&wanted).expect("C_FindObjects");
        session.p256("parent still writes", true);
    });
}

#[test]
fn r08_a_crash_of_the_child_leaves_the_parent_working() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let (public, private) = session.p256("parent", true);
        for how in 0..4 {
            let code = in_child(Duration::from_secs(10), || {
                if how > 0 {
                    token.initialize().expect("C_Initialize");
                    let user = token.user();
                    if how > 1 {
                        user.p256("half", true);
                        user.sign_init(&Mechanism::new(CKM_ECDSA_SHA256), user.p256("op", false).1)
                            .expect("C_SignInit");
                    }
                }
                if how == 3 {
                    // SAFETY: runs the exit handlers inherited from the parent.
                    unsafe { libc::exit(0) };
                }
                // SAFETY: ends the child hard.
                unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
                0
            });
            assert_eq!(code, if how == 3 { 0 } else { -libc::SIGKILL });
            let mechanism = Mechanism::new(CKM_ECDSA);
            let signature = session.sign(&mechanism, private, &[2; 32]).expect("the parent signs");
            session.verify(&mechanism, public, &[2; 32], &signature).expect("the parent verifies");
            session.p256("parent writes", true);
        }
        token.module.finalize().expect("C_Finalize");
    });
}

#[test]
fn r07_grandchildren_start_anew_too() {
    isolated!(|| {
        let token = TestToken::new();
        token.user();
        let code = in_child(Duration::from_secs(20), || {
            token.initialize().expect("C_Initialize");
            token.user();
            in_child(Duration::from_secs(10), || live_in_child(&token))
        });
        assert_eq!(code, 0);
    });
}

/// Forks a child that talks to the parent through a pipe in each direction: one byte says "go on".
struct Partner {
    child: libc::pid_t,
    to_child: libc::c_int,
    from_child: libc::c_int,
}

fn pipe() -> [libc::c_int; 2] {
    let mut ends = [0; 2];
    // SAFETY: the array has room for two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    ends
}

fn tell(end: libc::c_int) {
    // SAFETY: one byte that lives.
    assert_eq!(unsafe { libc::write(end, [1u8].as_ptr().cast(), 1) }, 1);
}

fn hear(end: libc::c_int) {
    let mut byte = [0u8];
    // SAFETY: room for one byte.
    assert_eq!(unsafe { libc::read(end, byte.as_mut_ptr().cast(), 1) }, 1, "the other side is gone");
}

impl Partner {
    /// The body is given "hear" and "tell" of the child's side.
    fn start(body: impl FnOnce(&dyn Fn(), &dyn Fn()) -> i32) -> Self {
        let (down, up) = (pipe(), pipe());
        // SAFETY: the child only calls the module and ends with `_exit`.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "fork");
        if child == 0 {
            let run = || body(&|| hear(down[0]), &|| tell(up[1]));
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or(99);
            // SAFETY: ends the child without the parent's exit handlers.
            unsafe { libc::_exit(code) };
        }
        Self { child, to_child: down[1], from_child: up[0] }
    }
}

#[test]
fn r08_what_a_child_commits_stays_after_the_parent_has_closed_the_store() {
    isolated!(|| {
        let token = TestToken::new();
        token.user().p256("parent", true);
        let partner = Partner::start(|hear, tell| {
            if token.initialize().is_err() {
                return 1;
            }
            let session = token.user();
            session.p256("child-1", true);
            tell();
            hear();
            // The parent has closed the store, as the last one that the kernel knows of unless this process has its own locks.
            session.p256("child-2", true);
            token.module.finalize().map_or(2, |()| 0)
        });
        hear(partner.from_child);
        token.module.finalize().expect("C_Finalize");
        // Another program opens and closes it as well.
        token.initialize().expect("C_Initialize");
        assert!(
            token.user().find_one(&ffi_tests::Template::class(CKO_PRIVATE_KEY).bytes(CKA_LABEL, "child-1")).is_ok()
        );
        token.module.finalize().expect("C_Finalize");
        tell(partner.to_child);
        assert_eq!(wait_for(partner.child, Duration::from_secs(30)), 0);
        token.initialize().expect("C_Initialize");
        let session = token.user();
        for label in ["parent", "child-1", "child-2"] {
            session
                .find_one(&ffi_tests::Template::class(CKO_PRIVATE_KEY).bytes(CKA_LABEL, label))
                .unwrap_or_else(|rv| panic!("{label}: {rv:?}"));
        }
    });
}

#[test]
fn r07_a_child_forked_while_the_parent_writes_can_write() {
    isolated!(|| {
        let token = TestToken::new();
        token.user();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let session = token.open();
                let stop = &stop;
                scope.spawn(move || {
                    let mut count = 0;
                    while !stop.load(Ordering::Relaxed) {
                        session.p256(&format!("writer-{writer}-{count}"), true);
                        count += 1;
                    }
                });
            }
            let rounds = || {
                for round in 0..40 {
                    let code = in_child(Duration::from_secs(20), || {
                        if token.initialize().is_err() {
                            return 1;
                        }
                        token.user().p256(&format!("forked-{round}"), true);
                        token.module.finalize().map_or(2, |()| 0)
                    });
                    assert_eq!(code, 0, "round {round}");
                }
            };
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(rounds));
            stop.store(true, Ordering::Relaxed);
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        let session = token.open();
        for round in 0..40 {
            let label = format!("forked-{round}");
            session
                .find_one(&ffi_tests::Template::class(CKO_PRIVATE_KEY).bytes(CKA_LABEL, &label))
                .unwrap_or_else(|rv| panic!("{label}: {rv:?}"));
        }
    });
}
