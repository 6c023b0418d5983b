//! Key wrap (KW, RFC 3394) and key wrap with padding (KWP, RFC 5649), the two of SP 800-38F.

use std::ptr;

use aws_lc_sys as sys;

use super::{AesKey, BLOCK};
use crate::crypto::InOut;
use crate::crypto::cipher::{CipherOperation, Direction, Step, Written};
use crate::crypto::lc::clear_errors;
use crate::error::{Error, Kind, Result};
use crate::secret::SecureBytes;

/// Half a block: the unit of key wrap, and what it adds.
const HALF: usize = 8;

/// The most bytes that AWS-LC takes, whose lengths are C's `int`, with what key wrap adds.
const LONGEST: usize = (1 << 31) - 1 - BLOCK;

/// Which key wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    /// RFC 3394, for multiples of 8 bytes from 16 on, with the standard's initial value or another.
    Kw(Option<[u8; HALF]>),
    /// RFC 5649, for any length from 1 on.
    Kwp,
}

/// A running key wrap. It has no parts by nature: parts are collected, and the end gives all.
pub struct KeyWrap {
    key: AesKey,
    direction: Direction,
    wrapping: Wrapping,
    collected: SecureBytes,
    used: usize,
}

impl KeyWrap {
    /// Starts a key wrap.
    pub fn new(key: &AesKey, direction: Direction, wrapping: Wrapping) -> Self {
        Self { key: key.clone(), direction, wrapping, collected: SecureBytes::zeroed(0), used: 0 }
    }

    /// Runs the whole input.
    fn run(&self, mut data: InOut<'_>) -> Result<Written> {
        self.check_len(data.len())?;
        let needed = self.output_len(Step::Single, data.len());
        match self.direction {
            Direction::Encrypt if data.room() < needed => Ok(Written::Needs(needed)),
            Direction::Encrypt => self.wrap(&data, needed),
            Direction::Decrypt => {
                let plain = self.unwrap(&data, needed)?;
                let written = data.write(plain.expose());
                Ok(if written { Written::Bytes(plain.len()) } else { Written::Needs(plain.len()) })
            }
        }
    }

    fn check_len(&self, len: usize) -> Result<()> {
        let (least, unit, text) = match (self.wrapping, self.direction) {
            (Wrapping::Kw(_), Direction::Encrypt) => (
                BLOCK,
                HALF,
                "key wrap takes multiples of 8 bytes from 16 on; key wrap with padding (KWP) takes any length",
            ),
            (Wrapping::Kwp, Direction::Encrypt) => (1, 1, "key wrap with padding takes at least 1 byte"),
            (Wrapping::Kw(_), Direction::Decrypt) => {
                (BLOCK + HALF, HALF, "wrapped data is a multiple of 8 bytes from 24 on")
            }
            (Wrapping::Kwp, Direction::Decrypt) => (BLOCK, HALF, "wrapped data is a multiple of 8 bytes from 16 on"),
        };
        if len < least || !len.is_multiple_of(unit) || len > LONGEST {
            return Err(self.direction.wrong_length(text));
        }
        Ok(())
    }

    /// Wraps straight into the output, which may be where the input is: AWS-LC moves the input before it writes.
    fn wrap(&self, data: &InOut<'_>, needed: usize) -> Result<Written> {
        let key = self.key.schedule(Direction::Encrypt)?.as_ptr();
        let (from, to, len) = (data.input(), data.output(), data.len());
        let done = match self.wrapping {
            Wrapping::Kw(iv) => {
                let iv = iv.as_ref().map_or(ptr::null(), |iv| iv.as_ptr());
                // SAFETY: `from` has `len` bytes, `to` 8 more; the initial value is absent or has 8 bytes.
                let code = unsafe { sys::AES_wrap_key(key, iv, to, from, len) };
                usize::try_from(code) == Ok(needed)
            }
            Wrapping::Kwp => {
                let mut written = 0;
                // SAFETY: `from` has `len` bytes, `to` has `needed`; `written` is a valid place for the length.
                let code = unsafe { sys::AES_wrap_key_padded(key, to, &raw mut written, needed, from, len) };
                code == 1 && written == needed
            }
        };
        if !done {
            clear_errors();
            return Err(Error::from(Kind::FunctionFailed));
        }
        Ok(Written::Bytes(needed))
    }

    /// Unwraps into memory of our own; nothing leaves it before it is found whole.
    fn unwrap(&self, data: &InOut<'_>, most: usize) -> Result<SecureBytes> {
        let key = self.key.schedule(Direction::Decrypt)?.as_ptr();
        let mut plain = SecureBytes::try_zeroed(most)?;
        let (from, to, len) = (data.input(), plain.expose_mut().as_mut_ptr(), data.len());
        let found = match self.wrapping {
            Wrapping::Kw(iv) => {
                let iv = iv.as_ref().map_or(ptr::null(), |iv| iv.as_ptr());
                // SAFETY: `from` has `len` bytes, `to` 8 less; the initial value is absent or has 8 bytes.
                let code = unsafe { sys::AES_unwrap_key(key, iv, to, from, len) };
                usize::try_from(code).ok()
            }
            Wrapping::Kwp => {
                let mut written = 0;
                // SAFETY: `from` has `len` bytes, `to` has `most`; `written` is a valid place for the length.
                let code = unsafe { sys::AES_unwrap_key_padded(key, to, &raw mut written, most, from, len) };
                (code == 1).then_some(written)
            }
        };
        clear_errors();
        match found {
            Some(len) if len == most => Ok(plain),
            Some(len) => Ok(plain.truncated(len)),
            None => Err(Error::new(
                Kind::EncryptedDataInvalid,
                "the wrapped data was altered, or was wrapped under another key",
            )),
        }
    }

    fn collect(&mut self, data: &InOut<'_>) -> Result<()> {
        let end = self.used.saturating_add(data.len());
        if end > LONGEST {
            return Err(self.direction.wrong_length("key wrap takes less than 2 GiB"));
        }
        if end > self.collected.len() {
            let mut larger = SecureBytes::try_zeroed(end.next_power_of_two())?;
            larger.expose_mut().iter_mut().zip(self.collected.expose()).for_each(|(to, from)| *to = *from);
            self.collected = larger;
        }
        data.read_at(0, self.collected.expose_mut().get_mut(self.used..end).expect("grown just now"));
        self.used = end;
        Ok(())
    }
}

impl CipherOperation for KeyWrap {
    fn output_len(&self, step: Step, input: usize) -> usize {
        let len = match step {
            Step::Single => input,
            Step::Update => return 0,
            Step::Final => self.used,
        };
        match self.direction {
            Direction::Encrypt => len.next_multiple_of(HALF) + HALF,
            Direction::Decrypt => len.saturating_sub(HALF),
        }
    }

    fn single(&mut self, data: InOut<'_>) -> Result<Written> {
        self.run(data)
    }

    fn update(&mut self, data: InOut<'_>) -> Result<Written> {
        self.collect(&data)?;
        Ok(Written::Bytes(0))
    }

    fn finish(&mut self, data: InOut<'_>) -> Result<Written> {
        let input = self.collected.expose().get(..self.used).unwrap_or_default();
        // SAFETY: `input` and the output of `data` are valid for as long as `data`, and lie apart.
        let whole = unsafe { InOut::new(input.as_ptr(), input.len(), data.output(), data.room()) }?;
        self.run(whole)
    }
}
