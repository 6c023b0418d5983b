//! The stack after secret work: libraries leave copies there of what they worked on.

use std::hint::black_box;

/// How much of the stack below its caller secret work may have used, in bytes: a few times what AES-GCM takes.
const DEPTH: usize = 16 * 1024;

/// Does `work`, and overwrites the stack that it used.
#[inline(never)]
pub fn wiping_stack<T>(work: impl FnOnce() -> T) -> T {
    let done = below(work);
    overwrite();
    done
}

/// Does the work in frames below the caller's.
#[inline(never)]
fn below<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// Writes zeros to the stack below the caller's frame, which the compiler cannot tell are never read.
#[inline(never)]
fn overwrite() {
    let mut zeros = [0_u8; DEPTH];
    black_box(&mut zeros);
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::FileExt;

    /// Tells whether these bytes, which are kept with each bit flipped, stand in the stack below the caller.
    #[inline(never)]
    pub fn left_below(flipped: &[u8]) -> bool {
        const REACH: usize = 64 * 1024;
        let mark = 0_u8;
        let top = std::ptr::from_ref(std::hint::black_box(&mark)).addr();
        let memory = std::fs::File::open("/proc/self/mem").expect("this process's memory");
        let mut stack = vec![0; REACH];
        let start = u64::try_from(top.saturating_sub(REACH)).expect("an address");
        memory.read_exact_at(&mut stack, start).expect("the stack can be read");
        let is_there = |window: &[u8]| window.iter().zip(flipped).all(|(found, byte)| *found == !byte);
        stack.windows(flipped.len()).any(is_there)
    }
}
