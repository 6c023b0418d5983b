//! Measures the built `libstrongroom.so` through its C boundary against the bare cryptographic libraries.
//!
//! `benches/table.rs` makes one table of everything in one interleaved run; `benches/calls.rs` gives criterion's statistics
//! of the same rows. Nothing here decides a test.

pub mod bare;
pub mod line;
pub mod machine;
pub mod measure;
pub mod ours;
pub mod report;
pub mod rotation;
pub mod rows;
pub mod scale;
pub mod start;
pub mod token;

/// One call, ready to be repeated. It panics when the call fails: what fails is not measured.
pub type Work = Box<dyn FnMut()>;
