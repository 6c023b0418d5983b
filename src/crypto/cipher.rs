//! What every cipher offers: one part, or many and an end, with exact lengths told beforehand.

use super::InOut;
use crate::error::{Error, Kind, Result};

/// Which way a cipher runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From plaintext to ciphertext.
    Encrypt,
    /// From ciphertext to plaintext.
    Decrypt,
}

impl Direction {
    /// Makes the error of input whose length the cipher does not take.
    pub fn wrong_length(self, text: &'static str) -> Error {
        match self {
            Direction::Encrypt => Error::new(Kind::DataLenRange, text),
            Direction::Decrypt => Error::new(Kind::EncryptedDataLenRange, text),
        }
    }
}

/// Which call of a cipher operation an output length is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// All in one part: C_Encrypt, C_Decrypt.
    Single,
    /// One part of several: C_EncryptUpdate, C_DecryptUpdate.
    Update,
    /// The end of several parts: C_EncryptFinal, C_DecryptFinal.
    Final,
}

/// A running encryption or decryption. Nothing is released before it may be: a GCM decryption gives its plaintext at the end.
pub trait CipherOperation: Send {
    /// Tells how many bytes the call can give at most for so much input; exact wherever the mechanism allows.
    fn output_len(&self, step: Step, input: usize) -> usize;
    /// Runs in one part. When the output does not fit, answers [`Written::Needs`] and stays as it was.
    ///
    /// # Errors
    /// `DataLenRange`, `EncryptedDataLenRange`, `EncryptedDataInvalid`, by direction.
    fn single(&mut self, data: InOut<'_>) -> Result<Written>;
    /// Runs one part of several; likewise.
    ///
    /// # Errors
    /// As [`Self::single`].
    fn update(&mut self, data: InOut<'_>) -> Result<Written>;
    /// Ends; `data` has no input. Likewise.
    ///
    /// # Errors
    /// As [`Self::single`].
    fn finish(&mut self, data: InOut<'_>) -> Result<Written>;
}

/// How a cipher call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// So many bytes were written.
    Bytes(usize),
    /// So many bytes of room are needed; nothing was done.
    Needs(usize),
}

#[cfg(test)]
mod tests;
