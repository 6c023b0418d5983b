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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn share() -> Share {
        let value = SecureBytes::copy_from(&(0..32).collect::<Vec<u8>>());
        Share { set: *b"\xa0\xa1\xa2\xa3\xa4\xa5\xa6\xa7", threshold: 3, index: 2, value }
    }

    fn parse(text: &[u8]) -> Result<Share> {
        Share::parse(&SecureBytes::copy_from(text), "this")
    }

    #[test]
    fn a_text_is_read_back_however_it_was_written_down() {
        let text = share().text().unwrap();
        let text = std::str::from_utf8(text.expose()).unwrap();
        assert!(text.starts_with("srshare1") && text.len() == 83, "{text}");
        let grouped: Vec<String> =
            text.as_bytes().chunks(4).map(|four| String::from_utf8(four.to_vec()).unwrap()).collect();
        for written in [text.to_owned(), text.to_uppercase(), format!("  {}\r\n", grouped.join(" ")), grouped.join("-")]
        {
            let read = parse(written.as_bytes()).unwrap();
            assert_eq!((read.set, read.threshold, read.index), (share().set, 3, 2));
            assert_eq!(read.value, share().value);
        }
    }

    #[test]
    fn the_text_is_that_of_the_document() {
        // docs/format.md, 14.2; made by an implementation of BIP 350 in Python.
        let text = share().text().unwrap();
        assert_eq!(std::str::from_utf8(text.expose()).unwrap(), super::super::tests::SHARE_TEXT);
    }

    #[test]
    fn each_slip_of_the_pen_is_found_and_shows_nothing() {
        let text = share().text().unwrap().expose().to_vec();
        let mut wrong =
            vec![Vec::new(), b"srshare1".to_vec(), b"hello".to_vec(), text[1..].to_vec(), [&text[..], b"q"].concat()];
        for at in 0..text.len() {
            for other in *b"qpzry9x8gf2tvdw0s3jn54khce6mua7l1bio" {
                let mut slip = text.clone();
                slip[at] = other;
                wrong.extend((slip != text).then_some(slip));
            }
            wrong.push([&text[..at], &text[at + 1..]].concat());
            if at > 0 {
                let mut swapped = text.clone();
                swapped.swap(at - 1, at);
                wrong.extend((swapped != text).then_some(swapped));
            }
        }
        for slip in wrong {
            let error = parse(&slip).unwrap_err();
            assert_eq!(error.kind(), Kind::DataInvalid);
            let shown = std::str::from_utf8(&slip[slip.len().min(8)..]).unwrap();
            assert!(shown.len() < 4 || !error.message().contains(shown), "{error}");
        }
    }

    #[test]
    fn what_a_newer_version_made_is_told() {
        let mut bytes = vec![2];
        bytes.extend([0; LEN - 1]);
        let text = bech32::encode::<Bech32m>(Hrp::parse(PREFIX).unwrap(), &bytes).unwrap();
        assert!(parse(text.as_bytes()).unwrap_err().message().contains("newer version"));
        bytes[0] = 1;
        let text = bech32::encode::<Bech32m>(Hrp::parse(PREFIX).unwrap(), &bytes).unwrap();
        assert!(parse(text.as_bytes()).unwrap_err().message().contains("number is 0"));
        bytes.pop();
        let text = bech32::encode::<Bech32m>(Hrp::parse(PREFIX).unwrap(), &bytes).unwrap();
        assert!(parse(text.as_bytes()).unwrap_err().message().contains("another length"));
    }

    #[test]
    fn r40_a_share_does_not_show_its_value() {
        assert_eq!(format!("{:?}", share()), "share 2 of set a0a1a2a3a4a5a6a7");
    }
}
