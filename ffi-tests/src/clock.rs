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
        let environment = self.environment(days);
        let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
        Role::start_with(role, argument, &environment)
    }

    /// Gives the environment of a process so many days ahead.
    pub fn environment(&self, days: u64) -> [(&'static str, String); 2] {
        let library = self.library.to_str().expect("a path of UTF-8").to_owned();
        [("LD_PRELOAD", library), ("STRONGROOM_TEST_DAYS", days.to_string())]
    }
}
