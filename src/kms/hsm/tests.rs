//! The provider on SoftHSM2, and on a module before it that counts calls and fails when it is told to (`tests/shim.c`).
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod device;
mod faults;
mod harness;
mod signing;
mod wrapping;
