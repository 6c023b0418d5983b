//! ECB and CBC, as they are and CBC with padding (SP 800-38A; PKCS #7, RFC 5652, 6.3).
//!
//! The rules are:
//! - bytes that do not fill a block wait in `held`; a padded decryption also holds the last whole block back, since only
//!   the end tells whether it is the one with the padding;
//! - with bytes held, output runs ahead of input, so work in place first copies its input;
//! - nothing changes before the room has been found large enough.

use std::ffi::c_int;

use aws_lc_sys as sys;
use zeroize::Zeroizing;

use super::{AesKey, BLOCK};
use crate::crypto::InOut;
use crate::crypto::cipher::{CipherOperation, Direction, Step, Written};
use crate::crypto::lc::{Owned, check};
use crate::error::{Error, Kind, Result};

type Block = Zeroizing<[u8; BLOCK]>;

/// A running ECB or CBC operation.
pub struct BlockCipher {
    mode: Mode,
    direction: Direction,
    padded: bool,
    held: Block,
    used: usize,
}

enum Mode {
    Ecb(Owned<sys::EVP_CIPHER_CTX>),
    Cbc { key: AesKey, iv: [u8; BLOCK] },
}

impl BlockCipher {
    /// Starts ECB.
    ///
    /// # Errors
    /// `HostMemory` when there is none left.
    pub fn ecb(key: &AesKey, direction: Direction) -> Result<Self> {
        Ok(Self::new(Mode::Ecb(key.ecb(direction)?), direction, false))
    }

    /// Starts CBC, with padding (PKCS #7) or without.
    pub fn cbc(key: &AesKey, direction: Direction, iv: [u8; BLOCK], padded: bool) -> Self {
        Self::new(Mode::Cbc { key: key.clone(), iv }, direction, padded)
    }

    fn new(mode: Mode, direction: Direction, padded: bool) -> Self {
        Self { mode, direction, padded, held: Block::default(), used: 0 }
    }

    fn unpads(&self) -> bool {
        self.padded && self.direction == Direction::Decrypt
    }

    fn pads(&self) -> bool {
        self.padded && self.direction == Direction::Encrypt
    }

    fn broken_block(&self) -> Error {
        self.direction.wrong_length("the data is not a multiple of 16 bytes")
    }

    /// Encrypts in one part, with padding.
    fn single_padded(&mut self, mut data: InOut<'_>) -> Result<Written> {
        let needed = self.output_len(Step::Single, data.len());
        if data.room() < needed {
            return Ok(Written::Needs(needed));
        }
        let tail = data.len() % BLOCK;
        let whole = data.len() - tail;
        self.hold(&data, whole, tail);
        self.run(data.input(), data.output(), whole)?;
        self.write_padding(&mut data, whole)?;
        Ok(Written::Bytes(needed))
    }

    /// Decrypts in one part and takes the padding off. The last block comes first, so that the length is known.
    fn single_unpadded(&mut self, mut data: InOut<'_>) -> Result<Written> {
        if data.is_empty() || !data.len().is_multiple_of(BLOCK) {
            return Err(self.broken_block());
        }
        let whole = data.len() - BLOCK;
        let (mut before, mut last) = (self.chain(), Block::default());
        if whole > 0 {
            data.read_at(whole - BLOCK, &mut before);
        }
        data.read_at(whole, last.as_mut());
        let (plain, len) = self.unpad(before, &last)?;
        let needed = whole + len;
        if data.room() < needed {
            return Ok(Written::Needs(needed));
        }
        self.run(data.input(), data.output(), whole)?;
        data.write_at(whole, plain.get(..len).unwrap_or_default());
        Ok(Written::Bytes(needed))
    }

    /// Fills the held block up with padding and writes it encrypted.
    fn write_padding(&mut self, data: &mut InOut<'_>, offset: usize) -> Result<()> {
        let missing = BLOCK - self.used;
        let byte = u8::try_from(missing).expect("at most 16");
        let mut block = self.held.clone();
        block.iter_mut().skip(self.used).for_each(|to| *to = byte);
        self.run_block(&mut block)?;
        data.write_at(offset, block.as_ref());
        Ok(())
    }

    /// Decrypts the last block without a change of state; gives it and the length of what is not padding.
    fn unpad(&self, mut before: [u8; BLOCK], last: &Block) -> Result<(Block, usize)> {
        let mut plain = last.clone();
        let Mode::Cbc { key, .. } = &self.mode else { return Err(Error::internal("only CBC is padded")) };
        cbc(key, self.direction, plain.as_ptr(), plain.as_mut_ptr(), BLOCK, &mut before)?;
        let len = unpadded_len(&plain).ok_or_else(|| {
            Error::new(Kind::EncryptedDataInvalid, "the ciphertext, its IV or the key is wrong: the padding is invalid")
        })?;
        Ok((plain, len))
    }

    /// Tells the block that the next one is chained to.
    fn chain(&self) -> [u8; BLOCK] {
        match &self.mode {
            Mode::Ecb(_) => [0; BLOCK],
            Mode::Cbc { iv, .. } => *iv,
        }
    }

    /// Adds input bytes to the held ones.
    fn hold(&mut self, data: &InOut<'_>, offset: usize, len: usize) {
        let end = self.used + len;
        let room = self.held.get_mut(self.used..end).expect("callers hold at most one block");
        data.read_at(offset, room);
        self.used = end;
    }

    /// Runs the held block, which is full, to the start of the output.
    fn flush(&mut self, data: &mut InOut<'_>) -> Result<()> {
        let mut block = self.held.clone();
        self.run_block(&mut block)?;
        self.used = 0;
        data.write_at(0, block.as_ref());
        Ok(())
    }

    fn run_block(&mut self, block: &mut Block) -> Result<()> {
        let (from, to) = (block.as_ptr(), block.as_mut_ptr());
        self.run(from, to, BLOCK)
    }

    /// Runs whole blocks. Both pointers are valid for `len` bytes, and are the same or do not overlap.
    fn run(&mut self, input: *const u8, output: *mut u8, len: usize) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        match &mut self.mode {
            Mode::Ecb(context) => {
                // SAFETY: as this function demands; `len` is a multiple of the block, so nothing is held inside.
                let code = unsafe { sys::EVP_Cipher(context.as_ptr(), output, input, len) };
                check(code, Kind::GeneralError)
            }
            Mode::Cbc { key, iv } => cbc(key, self.direction, input, output, len, iv),
        }
    }
}

impl CipherOperation for BlockCipher {
    fn output_len(&self, step: Step, input: usize) -> usize {
        let total = self.used + input;
        match step {
            Step::Single if self.pads() => (input / BLOCK + 1) * BLOCK,
            Step::Single => input,
            Step::Update if self.unpads() => total.saturating_sub(1) / BLOCK * BLOCK,
            Step::Update => total / BLOCK * BLOCK,
            Step::Final if self.padded => BLOCK,
            Step::Final => 0,
        }
    }

    fn single(&mut self, data: InOut<'_>) -> Result<Written> {
        if self.pads() {
            return self.single_padded(data);
        }
        if self.unpads() {
            return self.single_unpadded(data);
        }
        let len = data.len();
        if !len.is_multiple_of(BLOCK) {
            return Err(self.broken_block());
        }
        if data.room() < len {
            return Ok(Written::Needs(len));
        }
        self.run(data.input(), data.output(), len)?;
        Ok(Written::Bytes(len))
    }

    fn update(&mut self, data: InOut<'_>) -> Result<Written> {
        let needed = self.output_len(Step::Update, data.len());
        if data.room() < needed {
            return Ok(Written::Needs(needed));
        }
        if needed == 0 {
            self.hold(&data, 0, data.len());
            return Ok(Written::Bytes(0));
        }
        let (mut data, mut from, mut to) = (data, 0, 0);
        if self.used > 0 {
            data = data.apart()?;
            from = BLOCK - self.used;
            to = BLOCK;
            self.hold(&data, 0, from);
            self.flush(&mut data)?;
        }
        let len = needed - to;
        self.run(data.input().wrapping_add(from), data.output().wrapping_add(to), len)?;
        self.hold(&data, from + len, data.len() - from - len);
        Ok(Written::Bytes(needed))
    }

    fn finish(&mut self, mut data: InOut<'_>) -> Result<Written> {
        if self.pads() {
            if data.room() < BLOCK {
                return Ok(Written::Needs(BLOCK));
            }
            self.write_padding(&mut data, 0)?;
            return Ok(Written::Bytes(BLOCK));
        }
        if self.unpads() {
            if self.used != BLOCK {
                return Err(self.broken_block());
            }
            let (plain, len) = self.unpad(self.chain(), &self.held)?;
            let written = data.write(plain.get(..len).unwrap_or_default());
            return Ok(if written { Written::Bytes(len) } else { Written::Needs(len) });
        }
        if self.used != 0 {
            return Err(self.broken_block());
        }
        Ok(Written::Bytes(0))
    }
}

/// Runs whole blocks of CBC and moves the chain on. Pointers are as for [`BlockCipher::run`].
fn cbc(
    key: &AesKey,
    direction: Direction,
    input: *const u8,
    output: *mut u8,
    len: usize,
    iv: &mut [u8; BLOCK],
) -> Result<()> {
    let schedule = key.schedule(direction)?.as_ptr();
    let encrypt = c_int::from(direction == Direction::Encrypt);
    // SAFETY: the pointers are valid for `len` bytes, the schedule is that of the direction, and `iv` has one block.
    unsafe { sys::AES_cbc_encrypt(input, output, len, schedule, iv.as_mut_ptr(), encrypt) };
    Ok(())
}

/// Tells how many bytes of the last block are not padding, looking at all of them alike; `None` for padding that is wrong.
fn unpadded_len(block: &[u8; BLOCK]) -> Option<usize> {
    let [.., padding] = *block;
    let rest = BLOCK.checked_sub(usize::from(padding)).filter(|rest| *rest < BLOCK)?;
    let wrong = block.iter().enumerate().fold(0, |wrong, (at, byte)| wrong | (u8::from(at >= rest) * (byte ^ padding)));
    (wrong == 0).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_from_1_to_16_equal_bytes() {
        for last in 0..=u8::MAX {
            let mut block = [0xEE; BLOCK];
            let start = BLOCK.saturating_sub(usize::from(last));
            block.iter_mut().skip(start).for_each(|byte| *byte = last);
            let expected = (1..=16).contains(&last).then_some(start);
            assert_eq!(unpadded_len(&block), expected, "{last}");
            for broken in start..BLOCK - 1 {
                let mut other = block;
                other.iter_mut().skip(broken).take(1).for_each(|byte| *byte ^= 1);
                assert_eq!(unpadded_len(&other), None, "{last}, byte {broken} altered");
            }
        }
    }
}
