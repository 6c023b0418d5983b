//! Which process an operation comes from. Asked anew for each record: a process may fork, change its user, or run another program.

use nix::unistd::Uid;

/// The longest path of a program that a record keeps, in bytes; of a longer one the end.
const LONGEST_PATH: usize = 512;

/// The process of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The process id.
    pub process: u32,
    /// The effective user id.
    pub user: u32,
    /// The program that runs; empty when the system does not tell.
    pub executable: String,
}

impl Origin {
    /// Tells about this process.
    pub fn here() -> Self {
        let path = std::env::current_exe().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        Self {
            process: std::process::id(),
            user: Uid::effective().as_raw(),
            executable: end_of(&path, LONGEST_PATH).to_owned(),
        }
    }
}

/// Gives the end of a text, cut between characters.
fn end_of(text: &str, longest: usize) -> &str {
    let mut start = text.len().saturating_sub(longest);
    while !text.is_char_boundary(start) {
        start = start.saturating_add(1);
    }
    text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_this_process() {
        let here = Origin::here();
        assert_eq!(here.process, std::process::id());
        assert!(!here.executable.is_empty());
        assert_eq!((end_of("/a/b", 3), end_of("ä", 1), end_of("", 1)), ("a/b", "", ""));
    }
}
