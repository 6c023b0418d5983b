//! Checked reads from the front of a blob.

use crate::error::{Error, Result};

/// What is left to read of a blob.
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Starts at the front; `what` names the blob in errors.
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// Names the blob in errors from here on.
    pub fn rename(&mut self, what: &'static str) {
        self.what = what;
    }

    /// Reads `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Reads as many bytes as the array has.
    pub fn array<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(array)
    }

    /// Reads as many bytes as the array has from the end.
    pub fn array_at_end<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        let (rest, array) = self.rest.split_last_chunk().ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(array)
    }

    /// Reads a byte.
    pub fn u8(&mut self) -> Result<u8> {
        self.array().map(|bytes: &[u8; 1]| u8::from_be_bytes(*bytes))
    }

    /// Reads a 16-bit number in big-endian.
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(|bytes| u16::from_be_bytes(*bytes))
    }

    /// Reads a 32-bit number in big-endian.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// Reads UTF-8 text of `len` bytes.
    pub fn text(&mut self, len: usize) -> Result<&'a str> {
        let bytes = self.bytes(len)?;
        std::str::from_utf8(bytes).map_err(|_| Error::damaged(self.what))
    }

    /// Reads all that is left.
    pub fn remaining(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Checks that nothing is left.
    pub fn finish(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Error::damaged(self.what)) }
    }

    fn short(&self) -> Error {
        Error::damaged(self.what)
    }
}
