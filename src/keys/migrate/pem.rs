//! PEM (RFC 7468), read into locked memory: a file may have several blocks, and words between them.

use crate::error::{Error, Kind, Result};
use crate::secret::SecureBytes;

/// What every block begins with.
pub const START: &str = "-----BEGIN ";
/// What a block ends with.
const END: &[u8] = b"-----END ";
/// What the first and last line of a block end with.
const DASHES: &[u8] = b"-----";

/// One block.
pub struct Block {
    /// What it holds: `PRIVATE KEY`, `CERTIFICATE`, …
    pub label: String,
    /// Its content.
    pub der: SecureBytes,
}

/// Reads every block of a text.
///
/// # Errors
/// `DataInvalid` for a block that does not end, or is damaged; the text names it and never quotes it.
pub fn blocks(text: &[u8]) -> Result<Vec<Block>> {
    let (mut blocks, mut rest) = (Vec::new(), text);
    while let Some(start) = find(rest, START.as_bytes()) {
        let block = rest.get(start..).unwrap_or_default();
        let end = find(block, END).and_then(|end| {
            let line = block.get(end + END.len()..)?;
            Some(end + END.len() + find(line, DASHES)? + DASHES.len())
        });
        let end = end.ok_or_else(|| invalid("a PEM block has no end"))?;
        let (block, after) = block.split_at(end);
        blocks.push(read(block)?);
        rest = after;
    }
    Ok(blocks)
}

fn read(block: &[u8]) -> Result<Block> {
    let damaged = |_| invalid("a PEM block is damaged");
    // Not all writers keep to lines of 64 letters.
    let mut decoder = pem_rfc7468::Decoder::new_detect_wrap(block).map_err(damaged)?;
    let mut der = SecureBytes::try_zeroed(decoder.remaining_len())?;
    decoder.decode(der.expose_mut()).map_err(damaged)?;
    Ok(Block { label: decoder.type_label().to_owned(), der })
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

fn invalid(text: &'static str) -> Error {
    Error::new(Kind::DataInvalid, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_among_words() {
        let text = b"Bag Attributes\n  friendlyName: a\n-----BEGIN A-----\nAQID\n-----END A-----\n\nwords\n\
                     -----BEGIN B C-----\r\nBAUG\r\nBwg=\r\n-----END B C-----";
        let blocks = blocks(text).unwrap();
        let found: Vec<_> = blocks.iter().map(|block| (block.label.as_str(), block.der.expose())).collect();
        assert_eq!(found, [("A", &[1, 2, 3][..]), ("B C", &[4, 5, 6, 7, 8])]);
        assert!(super::blocks(b"").unwrap().is_empty() && super::blocks(b"-----BEG").unwrap().is_empty());
    }

    #[test]
    fn a_block_that_is_cut_or_damaged_is_an_error() {
        let whole = b"-----BEGIN A-----\nAQID\n-----END A-----\n";
        for cut in 11..whole.len() - 1 {
            assert!(blocks(&whole[..cut]).is_err(), "{cut}");
        }
        for bad in [&b"-----BEGIN A-----\n!!!!\n-----END A-----\n"[..], b"-----BEGIN A-----\nAQID\n-----END B-----\n"] {
            assert_eq!(blocks(bad).err().unwrap().kind(), Kind::DataInvalid);
        }
    }
}
