//! Locked memory: one slab of pages that are not swapped and not dumped, handed out in blocks.
//!
//! The rules are:
//! - pages come from `mmap`, are locked with `mlock` and left out of core files with `MADV_DONTDUMP`, both as far as the
//!   limits allow; when locking fails, one warning is logged and work goes on;
//! - pages are zero in a forked child (`MADV_WIPEONFORK`), so that no copy of a secret lives on there;
//! - a slab belongs to the process that made it: a child starts one of its own and leaks the old one, whose lock another
//!   thread may have held at the fork;
//! - a block is wiped by its owner before it comes back, and pages are kept for the next block.

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use parking_lot::Mutex;

/// Block sizes in bytes; larger blocks get pages of their own.
const CLASSES: [usize; 8] = [32, 64, 128, 256, 512, 1024, 2048, 4096];
/// How many bytes are mapped and locked at a time for blocks of one class.
const CHUNK: usize = 16 * 1024;

/// A block of locked memory that belongs to one owner.
pub struct Block {
    start: NonNull<u8>,
    len: usize,
    home: Home,
}

/// Where a block came from.
enum Home {
    /// Nowhere: it holds no byte.
    Nowhere,
    /// A class of a slab.
    Slab(usize, &'static Slab),
    /// Pages of its own, mapped for so many bytes in the process of that generation.
    Pages(usize, u64),
}

// SAFETY: a block is plain memory with one owner; the slab behind it is shared through a lock.
unsafe impl Send for Block {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Block {}

impl Block {
    /// Takes a block of `len` zero bytes, if there is memory for it.
    pub fn try_new(len: usize) -> Option<Self> {
        let (start, home) = match class_of(len) {
            _ if len == 0 => (NonNull::dangling(), Home::Nowhere),
            Some(class) => {
                let slab = Slab::current();
                (slab.take(class)?, Home::Slab(class, slab))
            }
            None => (map_pages(len)?, Home::Pages(len, process_generation())),
        };
        Some(Self { start, len, home })
    }

    /// Gives the block up to C, which keeps no Rust value: where it starts, and its slab unless it has pages of its own.
    pub fn into_parts(self) -> (NonNull<u8>, Option<&'static Slab>) {
        let block = ManuallyDrop::new(self);
        let slab = if let Home::Slab(_, slab) = block.home { Some(slab) } else { None };
        (block.start, slab)
    }

    /// Takes a block back from C.
    ///
    /// # Safety
    /// [`Self::into_parts`] gave `start` and `slab` of a block of `len` bytes, not none, in this process, and nobody else takes it back.
    pub unsafe fn from_parts(start: NonNull<u8>, len: usize, slab: Option<&'static Slab>) -> Self {
        let home = match (slab, class_of(len)) {
            (Some(slab), Some(class)) => Home::Slab(class, slab),
            _ => Home::Pages(len, process_generation()),
        };
        Self { start, len, home }
    }

    /// Tells whether its bytes are those that were written: in a forked child, what the parent wrote is gone.
    pub fn is_of_this_process(&self) -> bool {
        match &self.home {
            Home::Nowhere => true,
            Home::Slab(_, slab) => slab.generation == process_generation(),
            Home::Pages(_, generation) => *generation == process_generation(),
        }
    }

    /// Keeps the first `len` bytes; the rest is out of reach from then on, so that the owner wipes it first.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Gives the bytes to read.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the block owns `len` initialised bytes at `start`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Gives the bytes to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        match self.home {
            Home::Nowhere => {}
            Home::Slab(class, slab) => slab.give_back(class, self.start),
            // SAFETY: the pages were mapped for this block alone with this length.
            Home::Pages(mapped, _) => unsafe {
                libc::munmap(self.start.as_ptr().cast(), mapped);
            },
        }
    }
}

/// Finds the class of blocks that have room for so many bytes.
fn class_of(len: usize) -> Option<usize> {
    CLASSES.iter().position(|class| len <= *class)
}

/// The free blocks of one process, by class.
pub struct Slab {
    generation: u64,
    free: Mutex<[Vec<FreeBlock>; CLASSES.len()]>,
}

struct FreeBlock(NonNull<u8>);
// SAFETY: a free block is plain memory that nobody uses.
unsafe impl Send for FreeBlock {}

static SLABS: PerProcess<Slab> = PerProcess::new();

/// What each process has one of: a forked child leaks the parent's, whose locks another thread may have held at the fork, and
/// makes its own.
pub struct PerProcess<T: 'static> {
    current: AtomicPtr<Owned<T>>,
}

/// Something, and the process that made it.
struct Owned<T> {
    generation: u64,
    value: T,
}

impl<T: Sync + 'static> PerProcess<T> {
    /// Makes a place with nothing in it.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self { current: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Gives what this process has, made at first use.
    pub fn get(&self, make: impl Fn() -> T) -> &'static T {
        let generation = process_generation();
        let found = self.current.load(Ordering::Acquire);
        // SAFETY: what was once published is never freed.
        if let Some(owned) = unsafe { found.as_ref() }
            && owned.generation == generation
        {
            return &owned.value;
        }
        let fresh = Box::into_raw(Box::new(Owned { generation, value: make() }));
        match self.current.compare_exchange(found, fresh, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: `fresh` was just made from a box and is never freed once published.
            Ok(_) => &unsafe { &*fresh }.value,
            Err(_) => {
                // SAFETY: another thread was first; nobody else has seen `fresh`.
                drop(unsafe { Box::from_raw(fresh) });
                self.get(make)
            }
        }
    }
}

/// What is worked out once in each process. Unlike `LazyLock` it has no lock: a child that is forked while a thread works it out
/// would wait for that thread, which it has not got.
pub struct Table<T: 'static> {
    made: PerProcess<T>,
    make: fn() -> T,
}

impl<T: Sync + 'static> Table<T> {
    /// Makes it at first use. Threads that come at once may each make one; one of them is kept.
    pub const fn new(make: fn() -> T) -> Self {
        Self { made: PerProcess::new(), make }
    }
}

impl<T: Sync + 'static> Deref for Table<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.made.get(self.make)
    }
}

impl Slab {
    /// Finds this process's slab, or starts it.
    fn current() -> &'static Slab {
        SLABS.get(|| Slab { generation: process_generation(), free: Mutex::default() })
    }

    fn take(&self, class: usize) -> Option<NonNull<u8>> {
        let mut free = self.free.lock();
        let list = free.get_mut(class).expect("a class is an index of CLASSES");
        if let Some(block) = list.pop() {
            return Some(block.0);
        }
        let size = *CLASSES.get(class).expect("a class is an index of CLASSES");
        let chunk = map_pages(CHUNK)?;
        for offset in (size..CHUNK).step_by(size) {
            // SAFETY: `offset` lies within the chunk just mapped.
            list.push(FreeBlock(unsafe { chunk.add(offset) }));
        }
        Some(chunk)
    }

    /// Takes a wiped block back; in a forked child the parent's slab is left alone.
    fn give_back(&self, class: usize, start: NonNull<u8>) {
        if self.generation != process_generation() {
            return;
        }
        if let Some(list) = self.free.lock().get_mut(class) {
            list.push(FreeBlock(start));
        }
    }
}

/// Maps zeroed pages for `len` bytes, locked, not dumped, wiped in a child, as far as the system allows. `None` when there is
/// no memory.
fn map_pages(len: usize) -> Option<NonNull<u8>> {
    let pages = map_unlocked(len)?;
    // SAFETY: the range is the mapping just made.
    if unsafe { libc::mlock(pages.as_ptr().cast(), len) } != 0 {
        warn_once("raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=)");
    }
    Some(pages)
}

/// Maps zeroed pages for `len` bytes, not dumped and wiped in a child as far as the system allows, which may be swapped.
fn map_unlocked(len: usize) -> Option<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping touches no memory that exists.
    let pages = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if pages == libc::MAP_FAILED {
        return None;
    }
    for advice in [libc::MADV_DONTDUMP, libc::MADV_WIPEONFORK] {
        // SAFETY: the range is the mapping just made; advice changes no content in this process.
        unsafe { libc::madvise(pages, len, advice) };
    }
    NonNull::new(pages.cast())
}

/// Says once that memory could not be locked, and what to do; a failure to lock is never a failure of the call.
pub fn warn_once(cure: &str) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        crate::log::warn!("secret memory could not be locked and may be swapped to disk; {cure}");
    }
}

/// Values for a moment in pages that are not dumped and are wiped in a child, but are not locked.
pub struct Pages<T: Copy> {
    start: NonNull<T>,
    count: usize,
}

// SAFETY: the pages are memory with one owner.
unsafe impl<T: Copy + Send> Send for Pages<T> {}

impl<T: Copy> Pages<T> {
    /// Makes so many copies of a value, more than none, if there is memory for them.
    pub fn try_of(count: usize, value: T) -> Option<Self> {
        let start = map_unlocked(count.checked_mul(size_of::<T>())?)?.cast::<T>();
        for index in 0..count {
            // SAFETY: the index is within the pages.
            let place = unsafe { start.add(index) };
            // SAFETY: as above; pages are aligned for anything.
            unsafe { place.write(value) };
        }
        Some(Self { start, count })
    }

    /// Gives the values to write.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: so many values stand there, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.count) }
    }
}

impl<T: Copy> Drop for Pages<T> {
    fn drop(&mut self) {
        // SAFETY: the pages were mapped for this value alone with this length.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * size_of::<T>()) };
    }
}

/// Tells processes apart across fork without a system call: a number that differs in a forked child.
///
/// It stands on a page that the kernel zeroes in a child; where that is not supported, it is the process id.
pub fn process_generation() -> u64 {
    static MARK: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let found = MARK.load(Ordering::Acquire);
    // SAFETY: a mark once published is never unmapped.
    let Some(mark) = (unsafe { found.as_ref() }) else {
        let Some(page) = map_mark() else { return u64::from(std::process::id()) };
        let _ = MARK.compare_exchange(std::ptr::null_mut(), page.as_ptr(), Ordering::AcqRel, Ordering::Acquire);
        return process_generation();
    };
    match mark.load(Ordering::Acquire) {
        0 => {
            let fresh = NEXT.fetch_add(1, Ordering::Relaxed);
            match mark.compare_exchange(0, fresh, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => fresh,
                Err(other) => other,
            }
        }
        generation => generation,
    }
}

/// Tells whether this process was forked from one that used the library.
pub fn is_forked() -> bool {
    static FIRST: AtomicU64 = AtomicU64::new(0);
    let now = process_generation();
    // The first caller leaves its generation; a child inherits it and finds another one of its own.
    matches!(FIRST.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed), Err(first) if first != now)
}

/// Maps the page of the mark, if the kernel can wipe it in a child (Linux 4.14).
fn map_mark() -> Option<NonNull<AtomicU64>> {
    let (len, flags) = (size_of::<AtomicU64>(), libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new anonymous mapping touches no memory that exists.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the range is the mapping just made.
    match unsafe { libc::madvise(page, len, libc::MADV_WIPEONFORK) } {
        0 => NonNull::new(page.cast()),
        _ => {
            // SAFETY: as above, and nobody else has seen it.
            unsafe { libc::munmap(page, len) };
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps whoever works the table out from coming to an end.
    static SLOW: AtomicBool = AtomicBool::new(true);
    static STARTED: AtomicBool = AtomicBool::new(false);
    static TABLE: Table<u32> = Table::new(|| {
        STARTED.store(true, Ordering::Release);
        while SLOW.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        7
    });

    #[test]
    fn a_block_of_no_byte_takes_no_memory() {
        let mut block = Block::try_new(0).expect("it needs nothing");
        assert!(matches!(block.home, Home::Nowhere) && block.as_slice().is_empty() && block.as_mut_slice().is_empty());
    }

    #[test]
    fn r07_a_child_that_is_forked_while_a_table_is_worked_out_makes_its_own() {
        let worker = std::thread::spawn(|| *TABLE);
        while !STARTED.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        // SAFETY: the child touches this table and ends with `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: one that waits for ever is killed.
            unsafe { libc::alarm(30) };
            SLOW.store(false, Ordering::Release);
            let code = i32::from(*TABLE != 7);
            // SAFETY: ends the child without the parent's exit handlers.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: the pointer lives.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        SLOW.store(false, Ordering::Release);
        assert_eq!(worker.join().expect("the worker ends"), 7);
        assert_eq!(status, 0, "the child waited for a thread of its parent");
    }
}
