//! Operations with a key whose owner's password is not given yet: C_SignInit comes first, C_Login(CKU_CONTEXT_SPECIFIC) after it.
//!
//! An operation is made from its key, so one with a closed key is made when the login has opened it. Until then something stands in
//! its place that answers a question for the length with the most that any key gives, as the standard allows (PKCS #11 v3.2, 5.2).

use std::sync::Arc;

use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::mechanism::{
    CipherOperation, InOut, Key, Mechanism, Output, Params, SignOperation, Step, VerifyOperation, Written,
};

/// The most bytes of a signature, and of what a cipher adds: RSA-4096.
const LARGEST: usize = 512;

/// Makes an operation of its key.
pub type Start<T> = fn(&Arc<Key>, &Params) -> Result<Box<T>>;

/// For what a key is asked.
#[derive(Clone, Copy)]
pub struct Asked {
    /// The key.
    pub handle: CK_OBJECT_HANDLE,
    /// The attribute that allows the use.
    pub usage: CK_ATTRIBUTE_TYPE,
    /// The mechanism.
    pub row: &'static Mechanism,
}

/// What makes the operation once its key is open.
pub struct Deferred<T: ?Sized> {
    pub(super) asked: Asked,
    pub(super) start: Start<T>,
    pub(super) params: Params,
}

impl<T: ?Sized> Deferred<T> {
    /// Makes the operation.
    ///
    /// # Errors
    /// The mechanism's: a parameter that does not fit the key.
    pub fn start(&self, key: &Arc<Key>) -> Result<Box<T>> {
        (self.start)(key, &self.params)
    }
}

/// What stands in for an operation of this kind until its key is open.
pub trait Closed {
    /// Makes it.
    fn closed() -> Box<Self>;
}

impl Closed for dyn SignOperation {
    fn closed() -> Box<Self> {
        Box::new(ClosedKey)
    }
}

impl Closed for dyn VerifyOperation {
    fn closed() -> Box<Self> {
        Box::new(ClosedKey)
    }
}

impl Closed for dyn CipherOperation {
    fn closed() -> Box<Self> {
        Box::new(ClosedKey)
    }
}

/// An operation without a key. The session asks for the login before it runs anything, so that only the lengths are ever asked for.
struct ClosedKey;

fn closed<T>() -> Result<T> {
    Err(Error::new(Kind::UserNotLoggedIn, "the key's password was not given: C_Login(CKU_CONTEXT_SPECIFIC) gives it"))
}

impl SignOperation for ClosedKey {
    fn output_len(&self) -> usize {
        LARGEST
    }

    fn sign(&mut self, _: &[u8]) -> Result<Output> {
        closed()
    }

    fn update(&mut self, _: &[u8]) -> Result<()> {
        closed()
    }

    fn finish(&mut self) -> Result<Output> {
        closed()
    }
}

impl VerifyOperation for ClosedKey {
    fn verify(&mut self, _: &[u8], _: &[u8]) -> Result<()> {
        closed()
    }

    fn update(&mut self, _: &[u8]) -> Result<()> {
        closed()
    }

    fn finish(&mut self, _: &[u8]) -> Result<()> {
        closed()
    }
}

impl CipherOperation for ClosedKey {
    fn output_len(&self, _: Step, input: usize) -> usize {
        input.saturating_add(LARGEST)
    }

    fn single(&mut self, _: InOut<'_>) -> Result<Written> {
        closed()
    }

    fn update(&mut self, _: InOut<'_>) -> Result<Written> {
        closed()
    }

    fn finish(&mut self, _: InOut<'_>) -> Result<Written> {
        closed()
    }
}
