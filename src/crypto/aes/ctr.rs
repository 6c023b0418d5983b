//! Counter mode (SP 800-38A, 6.5). The counter never wraps: a second use of a counter block would reveal the data.

use std::ffi::c_uint;

use aws_lc_sys as sys;
use zeroize::Zeroizing;

use super::{AesKey, BLOCK};
use crate::crypto::InOut;
use crate::crypto::cipher::{CipherOperation, Direction, Step, Written};
use crate::error::{Error, Kind, Result};

/// A running counter-mode operation.
pub struct Ctr {
    key: AesKey,
    direction: Direction,
    counter: [u8; BLOCK],
    /// The key stream of the current block, of which `used` bytes are spent; 0 when no block is begun.
    stream: Zeroizing<[u8; BLOCK]>,
    used: c_uint,
    /// How many blocks may still be begun.
    left: u128,
}

impl Ctr {
    /// Starts from a counter block whose low `bits` (1 to 128) are the counter.
    ///
    /// # Errors
    /// `MechanismParamInvalid` for another number of bits.
    pub fn new(key: &AesKey, direction: Direction, bits: u64, counter: [u8; BLOCK]) -> Result<Self> {
        if !(1..=128).contains(&bits) {
            return Err(Error::new(Kind::MechanismParamInvalid, "the counter has between 1 and 128 bits"));
        }
        let mask = u128::MAX >> (128 - bits);
        let left = (mask - (u128::from_be_bytes(counter) & mask)).saturating_add(1);
        Ok(Self { key: key.clone(), direction, counter, stream: Zeroizing::default(), used: 0, left })
    }

    /// Tells how many blocks so much input begins.
    fn begins(&self, len: usize) -> Result<u128> {
        let started = match usize::try_from(self.used) {
            Ok(used) if used > 0 => BLOCK - used,
            _ => 0,
        };
        let blocks = len.saturating_sub(started).div_ceil(BLOCK);
        u128::try_from(blocks).map_err(|_| self.overflow())
    }

    fn overflow(&self) -> Error {
        self.direction.wrong_length(
            "the data is longer than the counter can count; take more counter bits or a new counter block",
        )
    }
}

impl CipherOperation for Ctr {
    fn output_len(&self, step: Step, input: usize) -> usize {
        match step {
            Step::Single | Step::Update => input,
            Step::Final => 0,
        }
    }

    fn single(&mut self, data: InOut<'_>) -> Result<Written> {
        self.update(data)
    }

    fn update(&mut self, data: InOut<'_>) -> Result<Written> {
        let len = data.len();
        self.left = match self.left.checked_sub(self.begins(len)?) {
            Some(_) if data.room() < len => return Ok(Written::Needs(len)),
            Some(left) => left,
            None => return Err(self.overflow()),
        };
        if len > 0 {
            let schedule = self.key.schedule(Direction::Encrypt)?.as_ptr();
            let (counter, stream) = (self.counter.as_mut_ptr(), self.stream.as_mut_ptr());
            // SAFETY: input and output are valid for `len` bytes, and the same or apart; both blocks have 16 bytes.
            unsafe {
                sys::AES_ctr128_encrypt(
                    data.input(),
                    data.output(),
                    len,
                    schedule,
                    counter,
                    stream,
                    &raw mut self.used,
                );
            }
        }
        Ok(Written::Bytes(len))
    }

    fn finish(&mut self, _: InOut<'_>) -> Result<Written> {
        Ok(Written::Bytes(0))
    }
}
