//! What signature families share: a scheme that signs a whole input, and the two ways to feed it.
//!
//! [`Whole`] hands the scheme the caller's input. The standard allows one part for such mechanisms; parts are collected
//! all the same, since common tools send them. [`Hashed`] hashes the input, in any number of parts, and hands on the digest.

use super::mechanism::{Output, SignOperation, VerifyOperation};
use crate::crypto::hash::{Hash, HashContext};
use crate::error::{Error, Kind, Result};
use crate::secret::SecureBytes;

/// What a key and parameters make of an input: a signature.
pub trait Signer: Send {
    /// Tells the length of a signature in bytes.
    fn signature_len(&self) -> usize;
    /// Signs into `out`, which has exactly [`Self::signature_len`] bytes.
    ///
    /// # Errors
    /// As [`SignOperation::sign`].
    fn sign(&self, input: &[u8], out: &mut [u8]) -> Result<()>;
}

/// What a key and parameters make of an input and a signature: a verdict.
pub trait Verifier: Send {
    /// Verifies, the length of the signature included.
    ///
    /// # Errors
    /// As [`VerifyOperation::verify`].
    fn verify(&self, input: &[u8], signature: &[u8]) -> Result<()>;
}

/// An operation over the whole input.
pub struct Whole<S> {
    scheme: S,
    parts: Collected,
}

impl<S> Whole<S> {
    /// Makes an operation that collects parts up to `limit` bytes.
    pub fn new(scheme: S, limit: usize) -> Box<Self> {
        Box::new(Self { scheme, parts: Collected::new(limit) })
    }
}

impl<S: Signer> SignOperation for Whole<S> {
    fn output_len(&self) -> usize {
        self.scheme.signature_len()
    }

    fn sign(&mut self, data: &[u8]) -> Result<Output> {
        sign(&self.scheme, data)
    }

    fn update(&mut self, part: &[u8]) -> Result<()> {
        self.parts.add(part)
    }

    fn finish(&mut self) -> Result<Output> {
        sign(&self.scheme, self.parts.bytes())
    }
}

impl<S: Verifier> VerifyOperation for Whole<S> {
    fn verify(&mut self, data: &[u8], signature: &[u8]) -> Result<()> {
        self.scheme.verify(data, signature)
    }

    fn update(&mut self, part: &[u8]) -> Result<()> {
        self.parts.add(part)
    }

    fn finish(&mut self, signature: &[u8]) -> Result<()> {
        self.scheme.verify(self.parts.bytes(), signature)
    }
}

/// An operation over the digest of the input.
pub struct Hashed<S> {
    scheme: S,
    hash: Hash,
    /// The parts, from the first one on: input in one part needs no context.
    parts: Option<HashContext>,
}

impl<S> Hashed<S> {
    /// Makes an operation.
    pub fn new(scheme: S, hash: Hash) -> Box<Self> {
        Box::new(Self { scheme, hash, parts: None })
    }

    fn parts(&mut self) -> Result<&mut HashContext> {
        let parts = match self.parts.take() {
            Some(parts) => parts,
            None => HashContext::new(self.hash)?,
        };
        Ok(self.parts.insert(parts))
    }
}

impl<S: Signer> SignOperation for Hashed<S> {
    fn output_len(&self) -> usize {
        self.scheme.signature_len()
    }

    fn sign(&mut self, data: &[u8]) -> Result<Output> {
        sign(&self.scheme, &self.hash.digest(data)?)
    }

    fn update(&mut self, part: &[u8]) -> Result<()> {
        self.parts()?.update(part)
    }

    fn finish(&mut self) -> Result<Output> {
        let digest = self.parts()?.finish()?;
        sign(&self.scheme, &digest)
    }
}

impl<S: Verifier> VerifyOperation for Hashed<S> {
    fn verify(&mut self, data: &[u8], signature: &[u8]) -> Result<()> {
        self.scheme.verify(&self.hash.digest(data)?, signature)
    }

    fn update(&mut self, part: &[u8]) -> Result<()> {
        self.parts()?.update(part)
    }

    fn finish(&mut self, signature: &[u8]) -> Result<()> {
        let digest = self.parts()?.finish()?;
        self.scheme.verify(&digest, signature)
    }
}

/// Bytes that came in parts, wiped at the end and whenever they move.
pub struct Collected {
    bytes: SecureBytes,
    len: usize,
    limit: usize,
}

impl Collected {
    /// Makes an empty collection that takes up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: SecureBytes::zeroed(0), len: 0, limit }
    }

    /// Adds a part.
    ///
    /// # Errors
    /// `DataLenRange` beyond the limit; `HostMemory`.
    pub fn add(&mut self, part: &[u8]) -> Result<()> {
        let len = self.len.checked_add(part.len()).filter(|len| *len <= self.limit);
        let len = len.ok_or_else(|| Error::from(Kind::DataLenRange))?;
        if len > self.bytes.len() {
            self.grow(len)?;
        }
        let room = self.bytes.expose_mut().get_mut(self.len..len).unwrap_or_default();
        room.copy_from_slice(part);
        self.len = len;
        Ok(())
    }

    /// Gives all parts as one.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.expose().get(..self.len).unwrap_or_default()
    }

    fn grow(&mut self, need: usize) -> Result<()> {
        let room = need.checked_next_power_of_two().unwrap_or(need).max(256);
        let mut larger = SecureBytes::try_zeroed(room)?;
        larger.expose_mut().iter_mut().zip(self.bytes()).for_each(|(to, from)| *to = *from);
        self.bytes = larger;
        Ok(())
    }
}

fn sign(scheme: &impl Signer, input: &[u8]) -> Result<Output> {
    let mut out = Output::from_elem(0, scheme.signature_len());
    scheme.sign(input, &mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the first byte of the digest.
    struct First;

    impl Signer for First {
        fn signature_len(&self) -> usize {
            1
        }

        fn sign(&self, input: &[u8], out: &mut [u8]) -> Result<()> {
            out.iter_mut().zip(input).for_each(|(to, from)| *to = *from);
            Ok(())
        }
    }

    #[test]
    fn input_in_one_part_makes_no_context_and_signs_as_parts_do() {
        let mut whole = Hashed::new(First, Hash::Sha256);
        let signature = whole.sign(b"data").expect("it signs");
        assert!(whole.parts.is_none());
        let mut parts = Hashed::new(First, Hash::Sha256);
        parts.update(b"da").and_then(|()| parts.update(b"ta")).expect("parts");
        assert_eq!(parts.finish().expect("it signs"), signature);
        let none = Hashed::new(First, Hash::Sha256).finish().expect("it signs nothing");
        assert_eq!(none, whole.sign(b"").expect("it signs"));
    }
}
