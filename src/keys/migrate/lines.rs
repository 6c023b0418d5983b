//! Lines of a file of secrets, each in locked memory of its own.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::file::unreadable;
use crate::error::Result;
use crate::secret::SecureBytes;

/// The longest line in bytes that is taken: RSA-4096 in hexadecimal, with all that stands beside it, is far below.
pub const LONGEST: usize = 64 << 10;

/// One line.
pub enum Line {
    /// Its text, without what ends it.
    Text(SecureBytes),
    /// It is longer than [`LONGEST`]; its text is gone.
    TooLong,
}

/// Reads a file line by line.
pub struct Lines {
    path: PathBuf,
    file: File,
    /// What was read and not handed out yet: from `start` to `end`.
    window: SecureBytes,
    start: usize,
    end: usize,
    at_end: bool,
}

impl Lines {
    /// Opens a file.
    ///
    /// # Errors
    /// `DataInvalid` when it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            window: SecureBytes::zeroed(LONGEST + 1),
            start: 0,
            end: 0,
            at_end: false,
        })
    }

    /// Gives the next line; `None` at the end of the file.
    ///
    /// # Errors
    /// `DataInvalid` when it cannot be read.
    pub fn next(&mut self) -> Result<Option<Line>> {
        let mut searched = 0;
        loop {
            let unread = self.window.expose().get(self.start..self.end).unwrap_or_default();
            if let Some(len) = unread.iter().skip(searched).position(|byte| *byte == b'\n').map(|at| at + searched) {
                let text = SecureBytes::copy_from(unread.get(..len).unwrap_or_default());
                self.start += len + 1;
                return Ok(Some(Line::Text(text)));
            }
            searched = unread.len();
            if self.at_end {
                let last = SecureBytes::copy_from(unread);
                (self.start, self.end) = (0, 0);
                return Ok((!last.is_empty()).then_some(Line::Text(last)));
            }
            if searched > LONGEST {
                self.skip_line()?;
                return Ok(Some(Line::TooLong));
            }
            self.fill()?;
        }
    }

    /// Reads on, after what is unread was brought to the front.
    fn fill(&mut self) -> Result<()> {
        self.window.expose_mut().copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let room = self.window.expose_mut().get_mut(self.end..).unwrap_or_default();
        match self.file.read(room) {
            Ok(0) => self.at_end = true,
            Ok(more) => self.end += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(&self.path, &error)),
        }
        Ok(())
    }

    /// Drops the rest of a line.
    fn skip_line(&mut self) -> Result<()> {
        loop {
            let unread = self.window.expose().get(self.start..self.end).unwrap_or_default();
            if let Some(len) = unread.iter().position(|byte| *byte == b'\n') {
                self.start += len + 1;
                return Ok(());
            }
            (self.start, self.end) = (0, 0);
            if self.at_end {
                return Ok(());
            }
            self.fill()?;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The lines of a text; too long ones are `None`.
    fn lines(text: &[u8]) -> Vec<Option<Vec<u8>>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        std::fs::write(&path, text).unwrap();
        let (mut lines, mut found) = (Lines::open(&path).unwrap(), Vec::new());
        while let Some(line) = lines.next().unwrap() {
            found.push(match line {
                Line::Text(text) => Some(text.expose().to_vec()),
                Line::TooLong => None,
            });
        }
        assert!(lines.next().unwrap().is_none());
        found
    }

    #[test]
    fn lines_are_those_of_the_file() {
        assert!(lines(b"").is_empty());
        assert_eq!(
            lines(b"a\n\nb\r\nc"),
            [Some(b"a".to_vec()), Some(Vec::new()), Some(b"b\r".to_vec()), Some(b"c".to_vec())]
        );
        let many: Vec<u8> = (0..50_000).flat_map(|number: u32| format!("{number}\n").into_bytes()).collect();
        let found = lines(&many);
        assert!(
            found.len() == 50_000
                && found.iter().zip(0..).all(|(line, at)| line.as_deref() == Some(format!("{at}").as_bytes()))
        );
    }

    #[test]
    fn a_line_that_is_too_long_is_left_out_and_the_next_is_read() {
        for over in [1, 2, LONGEST, 5 * LONGEST] {
            let (longest, longer) = (vec![b'a'; LONGEST], vec![b'b'; LONGEST + over]);
            let text = [&longest[..], b"\n", &longer, b"\nend\n", &longer].concat();
            assert_eq!(lines(&text), [Some(longest), None, Some(b"end".to_vec()), None], "{over}");
        }
    }
}
