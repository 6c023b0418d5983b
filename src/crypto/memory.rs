//! AWS-LC's memory: its keys that live on are in locked memory, as everything else that is secret.
//!
//! The rules are:
//! - AWS-LC allocates through the functions below, with its length in front of each block. Ordinary blocks are as AWS-LC itself makes
//!   them, so that whoever allocated before (a program that uses AWS-LC, too) is freed as well;
//! - what a thread allocates within [`secret`] is a block of locked memory, which the highest bit of its length says;
//! - long-lived secrets are made within it: parsed keys, key schedules, running operations with a schedule of their own. A signature
//!   is not: its numbers are gone when it is made, and the locked memory has a lock for all threads;
//! - in a forked child, locked memory is zero, the length included: what has no length is left as it is. [`Owned`](super::lc::Owned)
//!   frees nothing there that the parent made.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use aws_lc_sys as sys;
use zeroize::Zeroize;

use super::random;
use crate::error::Result;
use crate::runtime::Pass;
use crate::secret::{Block, Slab, warn_once};

/// Says in the length of a block that it is locked memory.
const LOCKED: usize = !(usize::MAX >> 1);

/// What stands in front of each block of locked memory. In front of an ordinary one stands the length alone, as in AWS-LC's mem.c.
#[repr(C)]
struct Header {
    home: Option<&'static Slab>,
    len: usize,
}

thread_local! {
    /// How many calls of [`secret`] this thread is within.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Whether AWS-LC has made what it keeps for this thread.
    static READY: Cell<bool> = const { Cell::new(false) };
}

/// Does work in which what AWS-LC allocates is locked memory, wiped in a child.
///
/// # Errors
/// What `work` answers; `GeneralError` when the random generator fails.
pub fn secret<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    prepare()?;
    let _within = Within::enter();
    work()
}

struct Within;

impl Within {
    fn enter() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Lets AWS-LC allocate here, and make the state of its generator, which lives on in a child, in ordinary memory.
fn prepare() -> Result<()> {
    if READY.get() {
        return Ok(());
    }
    let _pass = Pass::take();
    install();
    random::fill(&mut [0])?;
    READY.set(true);
    Ok(())
}

/// Sets the functions, once in a process. A program that has set its own keeps them, and its memory is what it is.
fn install() {
    const NOT_YET: u8 = 0;
    const BEING_SET: u8 = 1;
    const SET: u8 = 2;
    static STATE: AtomicU8 = AtomicU8::new(NOT_YET);
    match STATE.compare_exchange(NOT_YET, BEING_SET, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            // SAFETY: the functions below keep to what AWS-LC demands; a thread that allocates meanwhile gets a block of the same form.
            let set = unsafe { sys::CRYPTO_set_mem_functions(Some(allocate), Some(reallocate), Some(release)) };
            if set != 1 {
                super::lc::clear_errors();
                warn_once("another part of the program has set where AWS-LC keeps its keys");
            }
            STATE.store(SET, Ordering::Release);
        }
        // A fork waits for the pass of who sets them, so that no child finds this half done.
        Err(_) => {
            while STATE.load(Ordering::Acquire) != SET {
                std::thread::yield_now();
            }
        }
    }
}

unsafe extern "C" fn allocate(len: usize, _file: *const c_char, _line: c_int) -> *mut c_void {
    let block = if DEPTH.get() > 0 { locked(len) } else { ordinary(len) };
    block.map_or(std::ptr::null_mut(), |block| block.as_ptr().cast())
}

fn ordinary(len: usize) -> Option<NonNull<u8>> {
    let total = len.checked_add(size_of::<usize>()).filter(|_| len & LOCKED == 0)?;
    // SAFETY: any length may be asked for.
    let start = NonNull::new(unsafe { libc::malloc(total) })?.cast::<usize>();
    // SAFETY: the block is at least as long as its length, and aligned for anything.
    unsafe { start.write(len) };
    // SAFETY: as above: what follows the length is within the block, or its end.
    Some(unsafe { start.add(1) }.cast())
}

fn locked(len: usize) -> Option<NonNull<u8>> {
    let total = len.checked_add(size_of::<Header>()).filter(|_| len & LOCKED == 0)?;
    let (start, home) = Block::try_new(total)?.into_parts();
    let start = start.cast::<Header>();
    // SAFETY: the block has room for the header and is aligned to 32 bytes.
    unsafe { start.write(Header { home, len: len | LOCKED }) };
    // SAFETY: as above: what follows the header is within the block, or its end.
    Some(unsafe { start.add(1) }.cast())
}

/// Tells the length of a block, and whether it is locked memory; `None` for one of the parent's locked memory in a child.
///
/// # Safety
/// `block` was allocated here, or by AWS-LC itself before, and not freed since.
unsafe fn len_of(block: NonNull<u8>) -> Option<(usize, bool)> {
    // SAFETY: the length stands in front of each block.
    let place = unsafe { block.cast::<usize>().sub(1) };
    // SAFETY: as above, and it was written when the block was made.
    let len = unsafe { place.read() };
    // An ordinary block of no length has nothing to wipe, and where it is aligned like this, few allocators make it.
    let wiped = len == 0 && block.cast::<Header>().is_aligned() && block.addr().get().is_multiple_of(16);
    (!wiped).then_some((len & !LOCKED, len & LOCKED != 0))
}

unsafe extern "C" fn release(block: *mut c_void, _file: *const c_char, _line: c_int) {
    let Some(block) = NonNull::new(block.cast::<u8>()) else { return };
    // SAFETY: AWS-LC frees what it allocated here, or by itself before.
    match unsafe { len_of(block) } {
        // SAFETY: as above, and it is of this length and locked.
        Some((len, true)) => unsafe { release_locked(block, len) },
        // SAFETY: as above, and it is of this length and ordinary.
        Some((len, false)) => unsafe { release_ordinary(block, len) },
        None => {}
    }
}

/// # Safety
/// `block` is what [`locked`] gave for `len`, and is not used again.
unsafe fn release_locked(block: NonNull<u8>, len: usize) {
    // SAFETY: the header stands in front of the block.
    let start = unsafe { block.cast::<Header>().sub(1) };
    // SAFETY: as above.
    let home = unsafe { start.read() }.home;
    let total = len + size_of::<Header>();
    // SAFETY: start, length and home are those of the block that was taken apart.
    let mut block = unsafe { Block::from_parts(start.cast(), total, home) };
    block.as_mut_slice().zeroize();
}

/// # Safety
/// `block` is what [`ordinary`], or AWS-LC itself, gave for `len`, and is not used again.
unsafe fn release_ordinary(block: NonNull<u8>, len: usize) {
    // SAFETY: the length stands in front of the block.
    let start = unsafe { block.cast::<usize>().sub(1) };
    // SAFETY: AWS-LC wipes whatever it frees, and leaves that to this function.
    unsafe { sys::OPENSSL_cleanse(start.as_ptr().cast(), len + size_of::<usize>()) };
    // SAFETY: this is where the block of the C library starts.
    unsafe { libc::free(start.as_ptr().cast()) }
}

unsafe extern "C" fn reallocate(block: *mut c_void, len: usize, file: *const c_char, line: c_int) -> *mut c_void {
    let Some(old) = NonNull::new(block.cast::<u8>()) else {
        // SAFETY: any length may be asked for.
        return unsafe { allocate(len, file, line) };
    };
    // SAFETY: AWS-LC hands what it allocated here, or by itself before.
    let (old_len, is_locked) = unsafe { len_of(old) }.unwrap_or_default();
    let Some(new) = (if is_locked || DEPTH.get() > 0 { locked(len) } else { ordinary(len) }) else {
        return std::ptr::null_mut();
    };
    // SAFETY: both blocks have so many bytes, and are apart.
    unsafe { new.copy_from_nonoverlapping(old, len.min(old_len)) };
    // SAFETY: the old block is not used again.
    unsafe { release(block, file, line) };
    new.as_ptr().cast()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::as_conversions, clippy::print_stdout)]
mod tests {
    use super::*;
    use crate::crypto::{ec, rsa};

    /// Fills a block with bytes that tell their place.
    fn fill(block: *mut c_void, from: usize, to: usize) {
        // SAFETY: callers pass blocks of `to` bytes.
        let bytes = unsafe { std::slice::from_raw_parts_mut(block.cast::<u8>(), to) };
        bytes.iter_mut().enumerate().skip(from).for_each(|(at, byte)| *byte = (at % 251) as u8);
    }

    fn is_filled(block: *mut c_void, len: usize) -> bool {
        // SAFETY: callers pass blocks of `len` bytes.
        let bytes = unsafe { std::slice::from_raw_parts(block.cast::<u8>(), len) };
        bytes.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8)
    }

    fn is_locked(block: *mut c_void) -> bool {
        // SAFETY: the block lives.
        unsafe { len_of(NonNull::new(block.cast()).unwrap()) }.unwrap().1
    }

    #[test]
    fn blocks_grow_shrink_and_stay_where_they_belong() {
        prepare().unwrap();
        for len in [0, 1, 15, 16, 100, 4080, 4081, 70_000] {
            for locked in [false, true] {
                // SAFETY: any length may be asked for.
                let made = || unsafe { sys::OPENSSL_malloc(len) };
                let block = if locked { secret(|| Ok(made())).unwrap() } else { made() };
                assert_eq!(is_locked(block), locked, "{len}");
                fill(block, 0, len);
                // SAFETY: the block lives, and only the new one is used from here.
                let block = unsafe { sys::OPENSSL_realloc(block, 3 * len + 1) };
                assert!(is_filled(block, len) && is_locked(block) == locked, "{len}");
                fill(block, len, 3 * len + 1);
                // SAFETY: as above.
                let block = unsafe { sys::OPENSSL_realloc(block, len / 2) };
                assert!(is_filled(block, len / 2) && is_locked(block) == locked, "{len}");
                // SAFETY: this is its last use.
                unsafe { sys::OPENSSL_free(block) };
            }
        }
    }

    #[test]
    #[ignore = "measures; run alone, with --ignored --nocapture"]
    fn speed_of_a_signature_before_and_after() {
        // SAFETY: takes a number alone.
        let key = unsafe { sys::EC_KEY_new_by_curve_name(sys::NID_X9_62_prime256v1) };
        // SAFETY: the result is new, or NULL, and owned by nobody else.
        let key = unsafe { crate::crypto::lc::Owned::new(key) }.unwrap();
        // SAFETY: the key is valid and has its group.
        assert_eq!(unsafe { sys::EC_KEY_generate_key(key.as_ptr()) }, 1);
        let signatures = || {
            let start = std::time::Instant::now();
            for _ in 0..20_000 {
                // SAFETY: the key and the digest are valid.
                let signature = unsafe { sys::ECDSA_do_sign([1; 32].as_ptr(), 32, key.as_ptr()) };
                // SAFETY: the signature was just made and is owned by nobody else.
                drop(unsafe { crate::crypto::lc::Owned::new(signature) });
            }
            start.elapsed() / 20_000
        };
        let before = [(); 5].map(|()| signatures()).into_iter().min();
        prepare().unwrap();
        println!("P-256: {before:?} before, {:?} after", [(); 5].map(|()| signatures()).into_iter().min());
    }

    #[test]
    fn r40_what_is_freed_is_wiped() {
        let block = secret(|| {
            // SAFETY: any length may be asked for.
            Ok(unsafe { sys::OPENSSL_malloc(100) })
        })
        .unwrap();
        fill(block, 0, 100);
        // SAFETY: this is its last use by its owner.
        unsafe { sys::OPENSSL_free(block) };
        // Locked memory stays mapped. Another test may write to it meanwhile, but hardly the same bytes.
        assert!(!is_filled(block, 100));
    }

    #[test]
    fn r07_a_child_drops_the_keys_of_its_parent_and_makes_its_own() {
        let key = ec::PrivateKey::generate(ec::Curve::P256).unwrap();
        let large = rsa::PrivateKey::generate(2048, rsa::DEFAULT_EXPONENT).unwrap();
        let mut signature = [0; 64];
        key.sign(&[1; 32], &mut signature).unwrap();
        // SAFETY: the child makes a key and ends with `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: one that waits for ever is killed.
            unsafe { libc::alarm(60) };
            drop((key, large));
            let own = ec::PrivateKey::generate(ec::Curve::P256).and_then(|own| own.sign(&[1; 32], &mut signature));
            // SAFETY: ends the child without the parent's exit handlers.
            unsafe { libc::_exit(i32::from(own.is_err())) };
        }
        let mut status = 0;
        // SAFETY: the pointer lives.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
        key.sign(&[1; 32], &mut signature).unwrap();
    }
}
