//! Where tokens and objects rest: the trait, the stores behind it, and the registry that finds one by its URL.
//!
//! The rules are:
//! - [`Store`] is all that the rest of the library sees; what it holds is sealed before it comes here ([`store`]);
//! - a store has no thread and no global of its own. It never crosses `fork()`: the child leaks it and opens its own;
//! - a new store is one file here, one row in [`BACKENDS`], and the contract tests run for it.

use std::sync::Arc;

use crate::error::{Error, Result};

mod sqlite;
#[allow(clippy::module_inception)] // The trait stands in a file of its own, as in `kms` and `mechanism`.
mod store;

#[cfg(test)]
mod contract;

pub use store::{
    AuditEnd, AuditRow, IndexDigest, IndexEntry, Listed, ObjectRow, Role, Search, Serial, Snapshot, Store, TokenRow,
    Transaction, Uid,
};

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    /// Never writes, even where it could.
    pub read_only: bool,
    /// The permissions of a new file, whatever the umask says; its group is the directory's (set-group-id) or the user's.
    pub mode: u32,
}

impl Default for OpenOptions {
    /// Reads and writes; a new file is its owner's alone.
    fn default() -> Self {
        Self { read_only: false, mode: 0o600 }
    }
}

/// One kind of store.
struct Backend {
    /// What stands before the first colon of the URL.
    scheme: &'static str,
    /// How the URL looks, for messages.
    form: &'static str,
    /// Opens what stands behind the first colon.
    open: fn(&str, &OpenOptions) -> Result<Arc<dyn Store>>,
}

/// Every kind of store.
const BACKENDS: &[Backend] = &[
    Backend { scheme: "sqlite", form: "sqlite:///absolute/path/of/the/file", open: sqlite::open },
    Backend { scheme: "memory", form: "memory:", open: sqlite::open_memory },
];

/// Opens the store that a URL names; a file that is not there yet is made, with its directories.
///
/// # Errors
/// `ArgumentsBad` for a URL that names no store; `DeviceError` when the store cannot be opened, is damaged, foreign, or of a
/// newer version; `DeviceMemory` when the disk is full.
pub fn open(url: &str, options: &OpenOptions) -> Result<Arc<dyn Store>> {
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
    match BACKENDS.iter().find(|backend| backend.scheme == scheme) {
        Some(backend) => (backend.open)(rest, options),
        None => Err(unknown(scheme)),
    }
}

/// Makes the error of an unknown scheme. It shows the scheme alone: the rest of a URL may hold a password.
fn unknown(scheme: &str) -> Error {
    let forms: Vec<&str> = BACKENDS.iter().map(|backend| backend.form).collect();
    let named =
        if scheme.is_empty() { "the store's URL has no scheme".into() } else { format!("no store of kind {scheme:?}") };
    Error::arguments_bad(format!("{named}; the URL is one of: {}", forms.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn r73_an_unknown_url_is_told_what_is_accepted_and_shows_no_password() {
        for url in ["mysql://user:hunter2@host/db", "/var/lib/strongroom.db", "", "sqlite"] {
            let error = open(url, &OpenOptions::default()).err().expect("no such store");
            assert_eq!(error.kind(), Kind::ArgumentsBad);
            assert!(error.message().contains("sqlite:///") && error.message().contains("memory:"), "{error}");
            assert!(!error.message().contains("hunter2"));
        }
    }
}
