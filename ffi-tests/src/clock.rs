//! A wall clock that a test moves ahead, for the helper processes that it starts.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::isolate::Role;

/// A library that is preloaded into helper processes.
pub struct Clock {
    library: PathBuf,
}

impl Clock {
    /// Builds the library in a directory.
    pub fn build(directory: &Path) -> Self {
        let library = directory.join("clock.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/clock.c");
        let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
        assert!(status.expect("the C compiler is there").success(), "clock.c compiles");
        Self { library }
    }

    /// Starts a helper process so many days ahead.
    pub fn start(&self, days: u64, role: &str, argument: &str) -> Role {
        let library = self.library.to_str().expect("a path of UTF-8");
        Role::start_with(role, argument, &[("LD_PRELOAD", library), ("STRONGROOM_TEST_DAYS", &days.to_string())])
    }
}
