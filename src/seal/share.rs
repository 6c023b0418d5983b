//! One share of a recovery key, as a person keeps it: one line of text that tells its set and number and finds slips of the pen.
//!
//! The text is Bech32m (BIP 350) with the prefix `srshare`: up to four wrong characters are found for sure, and others but once in
//! a thousand million times.

use std::fmt;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use data_encoding::HEXLOWER;

use crate::error::{Error, Kind, Result};
use crate::secret::SecureBytes;

/// The length of the name of a set in bytes.
pub const SET_LEN: usize = 8;
/// What the text starts with.
const PREFIX: &str = "srshare";
const FORMAT_VERSION: u8 = 1;
/// Format version, set, threshold, number, value.
const LEN: usize = 1 + SET_LEN + 2 + VALUE_LEN;
const VALUE_LEN: usize = 32;
/// The length of the text: prefix, separator, five bits a character, checksum.
const TEXT_LEN: usize = PREFIX.len() + 1 + (LEN * 8).div_ceil(5) + 6;

/// One share.
pub struct Share {
    /// Which set it belongs to; a set is made at once, and belongs to one envelope.
    pub set: [u8; SET_LEN],
    /// How many of the set are needed.
    pub threshold: u8,
    /// Its number in the set, from 1.
    pub index: u8,
    pub(super) value: SecureBytes,
}

/// Writes the name of a set.
pub fn set_text(set: &[u8; SET_LEN]) -> String {
    HEXLOWER.encode(set)
}

impl fmt::Display for Share {
    /// Names the share; its value does not show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "share {} of set {}", self.index, set_text(&self.set))
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Share {
    /// Writes the share as its text, which is as secret as the share.
    ///
    /// # Errors
    /// None that can come: the text has the length that Bech32m allows.
    pub fn text(&self) -> Result<SecureBytes> {
        let failed = |_: fmt::Error| Error::internal("a share does not fit into its text");
        let prefix = Hrp::parse(PREFIX).map_err(|_| Error::internal("the prefix of shares"))?;
        let start = [&[FORMAT_VERSION][..], &self.set, &[self.threshold, self.index]].concat();
        let mut bytes = Line { text: SecureBytes::zeroed(LEN), len: 0 };
        start.iter().chain(self.value.expose()).try_for_each(|byte| bytes.push(*byte)).map_err(failed)?;
        let mut text = Line { text: SecureBytes::zeroed(TEXT_LEN), len: 0 };
        bech32::encode_lower_to_fmt::<Bech32m, _>(&mut text, prefix, bytes.text.expose())
            .map_err(|_| Error::internal("a share does not fit into its text"))?;
        Ok(text.text)
    }

    /// Reads a text; blanks in it are left out, and so is the case of its letters. `whence` names it in errors, which show nothing
    /// of it.
    ///
    /// # Errors
    /// `DataInvalid` for what is no share, or was copied wrongly.
    pub fn parse(text: &SecureBytes, whence: &str) -> Result<Self> {
        let wrong = |why: &str| Error::new(Kind::DataInvalid, format!("{whence} is no share of a recovery key: {why}"));
        let blank = |byte: &&u8| byte.is_ascii_whitespace() || **byte == b'-';
        let mut packed = Line { text: SecureBytes::zeroed(TEXT_LEN), len: 0 };
        for byte in text.expose().iter().filter(|byte| !blank(byte)) {
            packed.push(byte.to_ascii_lowercase()).map_err(|fmt::Error| wrong("it is too long"))?;
        }
        let packed = packed.text.truncated(packed.len);
        let line = std::str::from_utf8(packed.expose()).map_err(|_| wrong("it is not text"))?;
        if !line.starts_with(PREFIX) {
            return Err(wrong("it does not start with `srshare1`"));
        }
        let checked = CheckedHrpstring::new::<Bech32m>(line);
        let checked =
            checked.map_err(|_| wrong("a character is missing or wrong; compare it with what was written down"))?;
        let mut bytes = Line { text: SecureBytes::zeroed(LEN), len: 0 };
        let fits = checked.byte_iter().try_for_each(|byte| bytes.push(byte)).is_ok() && bytes.len == LEN;
        match bytes.text.expose() {
            [FORMAT_VERSION, rest @ ..] if fits => Self::of_bytes(rest).ok_or_else(|| wrong("its number is 0")),
            [FORMAT_VERSION, ..] => Err(wrong("it has another length")),
            _ => Err(wrong("it was made by a newer version of Strongroom, which reads it")),
        }
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (set, rest) = bytes.split_first_chunk()?;
        match rest {
            [threshold, index, value @ ..] if *index > 0 && value.len() == VALUE_LEN => {
                Some(Self { set: *set, threshold: *threshold, index: *index, value: SecureBytes::copy_from(value) })
            }
            _ => None,
        }
    }
}

/// A text that is written into secret memory.
struct Line {
    text: SecureBytes,
    len: usize,
}

impl Line {
    fn push(&mut self, byte: u8) -> fmt::Result {
        *self.text.expose_mut().get_mut(self.len).ok_or(fmt::Error)? = byte;
        self.len += 1;
        Ok(())
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().try_for_each(|byte| self.push(byte))
    }
}
