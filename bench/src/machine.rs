//! What machine the numbers are of.

use std::fs::read_to_string;
use std::thread::available_parallelism;

/// The machine.
pub struct Machine {
    /// The processor's model.
    pub cpu: String,
    /// How many cores there are for this process.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// How busy the machine was when the run began: the load average over a minute.
    pub load: String,
}

impl Machine {
    /// Reads what machine this is.
    pub fn this() -> Self {
        Self {
            cpu: field("/proc/cpuinfo", "model name"),
            cores: available_parallelism().map_or(1, Into::into),
            kernel: first_word("/proc/sys/kernel/osrelease"),
            load: first_word("/proc/loadavg"),
        }
    }
}

fn field(path: &str, name: &str) -> String {
    let text = read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':'));
    line.map_or("unknown", |(_, value)| value.trim()).to_owned()
}

fn first_word(path: &str) -> String {
    let text = read_to_string(path).unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}
