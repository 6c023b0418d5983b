//! MACs as signatures: any MAC, whole or cut to a length.

use subtle::ConstantTimeEq;

use super::mechanism::{Output, Params, SignOperation, VerifyOperation};
use crate::crypto::mac::Mac;
use crate::error::{Error, Kind, Result};

/// A running MAC whose first `len` bytes are the signature.
pub struct MacOperation<M: Mac> {
    mac: M,
    len: usize,
}

impl<M: Mac> MacOperation<M> {
    /// Takes over a MAC of `full` bytes; the parameter may ask for fewer, at least 1.
    ///
    /// # Errors
    /// `MechanismParamInvalid` for a length that the MAC cannot have.
    pub fn new(mac: M, full: usize, params: &Params) -> Result<Self> {
        Ok(Self { mac, len: length(full, params)? })
    }

    fn end(&mut self) -> Result<Output> {
        let whole = self.mac.finish()?;
        Ok(Output::from_slice(whole.get(..self.len).unwrap_or(&whole)))
    }

    fn compare(&mut self, signature: &[u8]) -> Result<()> {
        if signature.len() != self.len {
            return Err(Error::new(Kind::SignatureLenRange, format!("this MAC has {} bytes", self.len)));
        }
        let expected = self.end()?;
        match bool::from(expected.ct_eq(signature)) {
            true => Ok(()),
            false => Err(Error::from(Kind::SignatureInvalid)),
        }
    }
}

/// Reads how many of the `full` bytes of a MAC the parameter asks for.
///
/// # Errors
/// `MechanismParamInvalid` for a length that the MAC cannot have.
pub fn length(full: usize, params: &Params) -> Result<usize> {
    let len = match params {
        Params::MacGeneral(len) => usize::try_from(*len).ok().filter(|len| (1..=full).contains(len)),
        _ => Some(full),
    };
    len.ok_or_else(|| Error::new(Kind::MechanismParamInvalid, format!("this MAC has between 1 and {full} bytes")))
}

impl<M: Mac> SignOperation for MacOperation<M> {
    fn output_len(&self) -> usize {
        self.len
    }

    fn sign(&mut self, data: &[u8]) -> Result<Output> {
        self.mac.update(data)?;
        self.end()
    }

    fn update(&mut self, part: &[u8]) -> Result<()> {
        self.mac.update(part)
    }

    fn finish(&mut self) -> Result<Output> {
        self.end()
    }
}

impl<M: Mac> VerifyOperation for MacOperation<M> {
    fn verify(&mut self, data: &[u8], signature: &[u8]) -> Result<()> {
        self.mac.update(data)?;
        self.compare(signature)
    }

    fn update(&mut self, part: &[u8]) -> Result<()> {
        self.mac.update(part)
    }

    fn finish(&mut self, signature: &[u8]) -> Result<()> {
        self.compare(signature)
    }
}
