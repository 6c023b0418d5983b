//! The audit trail: one record for each operation that changes a token, and for each use of a key where that is asked for.
//!
//! The rules are:
//! - the trail of a token is one chain in the store, whoever adds to it: the last record is read, and the next one added, in one
//!   transaction, and where the operation changes the store, in the very transaction of that change;
//! - a record holds no secret, no PIN, and no attribute of an object but its unique id and version;
//! - while the token key is at hand, each record is signed under it. What is not signed cannot claim that anything went well;
//! - other sinks get a copy once the store has the record, each within a bounded time; whether an operation goes on when no sink
//!   takes its record is the [`Mode`].
//!
//! `docs/format.md` has every byte of it, and `SECURITY.md` what it does and does not prove.

mod chain;
mod copy;
mod event;
mod json;
mod origin;
mod record;
mod sink;
mod trail;
mod verify;

pub use chain::{Hash, Signer};
pub use copy::{CopyFault, CopyReport, CopyVerifier};
pub use event::{Event, KeyName, User};
pub use json::line;
pub use record::Record;
pub use sink::Sink;
pub use trail::{Line, Mode, Rules, Signers, Trail};
pub use verify::{Anchor, Fault, Report, Verifier};

#[cfg(test)]
mod tests;
