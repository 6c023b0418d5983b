//! What is SQLite's own: files, faults, power cuts.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::place::Place;
use super::*;
use crate::store::contract::{Fixture, add, contract_tests, found, make_token, object, tokens, uid};

mod damage;
mod durability;
mod files;
mod measure;
mod migration;
mod processes;

/// A file in a directory of its own.
struct SqliteFile {
    directory: PathBuf,
    /// Removes the directory, unless it is somebody else's.
    guard: Option<TempDir>,
}

impl SqliteFile {
    fn path(&self) -> PathBuf {
        self.directory.join("strongroom.db")
    }

    fn try_open(&self, options: &OpenOptions) -> Result<Arc<dyn Store>> {
        crate::store::open(&url(&self.path()), options)
    }

    /// Opens the file with SQLite alone.
    fn raw(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    /// Runs SQL on the file with SQLite alone.
    fn run(&self, sql: &str) {
        self.raw().execute_batch(sql).unwrap();
    }
}

fn url(path: &Path) -> String {
    format!("sqlite://{}", path.display())
}

/// The error of something that must fail.
fn error<T>(answer: Result<T>) -> Error {
    answer.err().expect("this must fail")
}

impl Fixture for SqliteFile {
    fn new() -> Self {
        let guard = tempfile::tempdir().unwrap();
        Self { directory: guard.path().to_owned(), guard: Some(guard) }
    }

    fn open(&self) -> Arc<dyn Store> {
        self.try_open(&OpenOptions::default()).unwrap()
    }
}

/// A database in memory, which nobody else can open.
struct InMemory(Arc<dyn Store>);

impl Fixture for InMemory {
    fn new() -> Self {
        Self(crate::store::open("memory:", &OpenOptions::default()).unwrap())
    }

    fn open(&self) -> Arc<dyn Store> {
        Arc::clone(&self.0)
    }
}

mod contract_of_the_file {
    super::contract_tests!(super::SqliteFile);
}

mod contract_in_memory {
    super::contract_tests!(super::InMemory);
}
