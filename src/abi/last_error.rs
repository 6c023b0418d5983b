//! The text of a thread's last error, for `SR_LastError`.
//!
//! It is plain memory of the thread: no destructor, so that a thread may end after the host has unloaded the library, and
//! no allocation, so that it can be written at any time, also while the process exits.

use std::cell::Cell;
use std::fmt::{self, Write};

use super::arg::cut;
use crate::error::Error;

/// The longest text that is kept, in bytes.
const ROOM: usize = 1024;

#[derive(Clone, Copy)]
struct Text {
    len: usize,
    bytes: [u8; ROOM],
}

thread_local! {
    static LAST: Cell<Text> = const { Cell::new(Text::EMPTY) };
}

impl Text {
    const EMPTY: Text = Text { len: 0, bytes: [0; ROOM] };
}

impl Write for Text {
    /// Adds as much as fits, cut between characters.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let text = cut(text, ROOM.saturating_sub(self.len));
        for (to, from) in self.bytes.iter_mut().skip(self.len).zip(text.bytes()) {
            *to = from;
        }
        self.len = self.len.saturating_add(text.len());
        Ok(())
    }
}

/// Keeps what a call answered: `C_Sign: CKR_KEY_HANDLE_INVALID: …`, with the number under which the log has more.
pub fn record(function: &str, error: &Error, correlation: Option<&str>) {
    let mut text = Text::EMPTY;
    let _ = write!(text, "{function}: {}: {}", error.kind().name(), error.message());
    if let Some(id) = correlation {
        let _ = write!(text, " [{id}]");
    }
    LAST.set(text);
}

/// Hands this thread's last text to `read`; empty when no call of this thread has failed.
pub fn with<R>(read: impl FnOnce(&str) -> R) -> R {
    let text = LAST.get();
    let bytes = text.bytes.get(..text.len).unwrap_or_default();
    read(std::str::from_utf8(bytes).expect("only whole characters are written"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn r73_last_error_names_function_kind_and_text() {
        record("C_Sign", &Error::new(Kind::KeyHandleInvalid, "no key 7"), None);
        with(|text| assert_eq!(text, "C_Sign: CKR_KEY_HANDLE_INVALID: no key 7"));
        std::thread::spawn(|| with(|text| assert_eq!(text, ""))).join().expect("the thread ends well");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        record("C_Sign", &Error::device("\u{e9}".repeat(ROOM)), Some("1-1"));
        with(|text| assert!(text.len() >= ROOM - 1 && text.ends_with('\u{e9}')));
        assert!(!std::mem::needs_drop::<Cell<Text>>());
    }
}
