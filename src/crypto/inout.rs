//! Input and output of bulk data, which may be the same memory (PKCS #11 v3.2, 5.2).
//!
//! A slice of the input and a mutable slice of the output must not exist at once, since both may name the same bytes.
//! So both stay raw pointers here, and AWS-LC, which allows in-place work, is handed them as they are.

use std::marker::PhantomData;

use crate::error::Result;
use crate::secret::SecureBytes;

/// Input bytes and room for output. The two may be the same memory; they never overlap in part.
pub struct InOut<'a> {
    input: *const u8,
    len: usize,
    output: *mut u8,
    room: usize,
    /// Holds a copy of the input when the caller's buffers overlap in part.
    _copy: Option<SecureBytes>,
    lifetime: PhantomData<&'a mut [u8]>,
}

impl<'a> InOut<'a> {
    /// Pairs input with output. Buffers that overlap in part are pulled apart by a copy of the input.
    ///
    /// # Errors
    /// `HostMemory` when there is no memory for the copy.
    ///
    /// # Safety
    /// For `'a`: `input` is valid for reads of `len` bytes, `output` for writes of `room` bytes; either may be NULL or
    /// dangling where its length is 0, and nothing else writes to them.
    pub unsafe fn new(input: *const u8, len: usize, output: *mut u8, room: usize) -> Result<Self> {
        // No input overlaps nothing, wherever it is said to be; AWS-LC would take an empty one within the output for an overlap.
        let input = if len == 0 { output.cast_const() } else { input };
        let (from, to) = (input.addr(), output.addr());
        let apart = from == to || from.saturating_add(len) <= to || to.saturating_add(room) <= from;
        if apart || len == 0 || room == 0 {
            return Ok(Self { input, len, output, room, _copy: None, lifetime: PhantomData });
        }
        // SAFETY: the caller vouches for `len` readable bytes.
        let copy = SecureBytes::try_copy_from(unsafe { std::slice::from_raw_parts(input, len) })?;
        Ok(Self { input: copy.expose().as_ptr(), len, output, room, _copy: Some(copy), lifetime: PhantomData })
    }

    /// Pairs two separate Rust buffers.
    pub fn from_slices(input: &'a [u8], output: &'a mut [u8]) -> Self {
        Self {
            input: input.as_ptr(),
            len: input.len(),
            output: output.as_mut_ptr(),
            room: output.len(),
            _copy: None,
            lifetime: PhantomData,
        }
    }

    /// Tells how many input bytes there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Tells whether there is no input.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tells how many output bytes fit.
    pub fn room(&self) -> usize {
        self.room
    }

    /// Gives the input pointer, for `crypto/` alone.
    pub(in crate::crypto) fn input(&self) -> *const u8 {
        self.input
    }

    /// Gives the output pointer, for `crypto/` alone.
    pub(in crate::crypto) fn output(&self) -> *mut u8 {
        self.output
    }

    /// Copies the input out, for work that cannot be done in place.
    ///
    /// # Errors
    /// `HostMemory` when there is no memory for the copy.
    pub fn copy_input(&self) -> Result<SecureBytes> {
        if self.len == 0 {
            return SecureBytes::try_zeroed(0);
        }
        // SAFETY: `input` is valid for reads of `len` bytes, and no mutable slice of the output exists here.
        SecureBytes::try_copy_from(unsafe { std::slice::from_raw_parts(self.input, self.len) })
    }

    /// Copies the input to the end of a vector.
    ///
    /// # Errors
    /// `HostMemory` when the vector cannot grow.
    pub fn append_to(&self, vector: &mut Vec<u8>) -> Result<()> {
        vector.try_reserve(self.len)?;
        if self.len > 0 {
            // SAFETY: `input` is valid for reads of `len` bytes, and no mutable slice of the output exists here.
            vector.extend_from_slice(unsafe { std::slice::from_raw_parts(self.input, self.len) });
        }
        Ok(())
    }

    /// Writes a result that was made elsewhere; `false`, and nothing written, when it does not fit.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.write_at(0, bytes)
    }

    /// Writes from an offset of the output on; `false`, and nothing written, when it does not fit.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) -> bool {
        if offset > self.room || bytes.len() > self.room - offset {
            return false;
        }
        if !bytes.is_empty() {
            let to = self.output.wrapping_add(offset);
            // SAFETY: `output` is valid for writes of `room` bytes; `bytes` may lie in the same memory, which `copy` allows.
            unsafe { std::ptr::copy(bytes.as_ptr(), to, bytes.len()) };
        }
        true
    }

    /// Copies input bytes from an offset on, as many as `into` takes; `false`, and nothing read, when there are not as many.
    pub fn read_at(&self, offset: usize, into: &mut [u8]) -> bool {
        if offset > self.len || into.len() > self.len - offset {
            return false;
        }
        if !into.is_empty() {
            let from = self.input.wrapping_add(offset);
            // SAFETY: `input` is valid for reads of `len` bytes; `into` may lie in the same memory, which `copy` allows.
            unsafe { std::ptr::copy(from, into.as_mut_ptr(), into.len()) };
        }
        true
    }

    /// Pulls input and output apart by a copy of the input, for work that writes ahead of what it has read.
    ///
    /// # Errors
    /// As [`Self::copy_input`].
    pub fn apart(self) -> Result<Self> {
        if self.input.addr() != self.output.addr() || self.len == 0 {
            return Ok(self);
        }
        let copy = self.copy_input()?;
        Ok(Self { input: copy.expose().as_ptr(), _copy: Some(copy), ..self })
    }
}
