//! The legacy system's records: one JSON object a line, whose `ciphertext` is nothing but the secret in hexadecimal.
//!
//! The rules are:
//! - the secret goes from the file's window in locked memory to a block of its own; no JSON value, no text and no error ever has it;
//! - owner and asset name the managed key; public key and address are checked where they are given;
//! - a line that is none is told by its number and why, and never quoted: a secret may stand in the wrong field.

use std::borrow::Cow;
use std::path::Path;

use serde::Deserialize;

use super::field::{Field, has_escapes};
use super::lines::{LONGEST, Line, Lines};
use super::{Content, Entry, Key, Origin, expect};
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::keys::managed::Name;
use crate::keys::{ASSETS, Asset};
use crate::mechanism::{self, GivenKey};
use crate::secret::SecureBytes;

/// What some programs write at the start of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// The length of an Ed25519 seed, which the public key may follow.
const SEED: usize = 32;

/// The fields of a record; others are no concern of ours.
#[derive(Deserialize)]
struct Fields<'l> {
    #[serde(borrow)]
    owner: Option<Field<'l>>,
    #[serde(borrow)]
    asset: Option<Field<'l>>,
    #[serde(borrow)]
    ciphertext: Option<Field<'l>>,
    #[serde(borrow)]
    public_key: Option<Field<'l>>,
    #[serde(borrow)]
    address: Option<Field<'l>>,
}

/// Reads a file of records.
pub struct Legacy {
    lines: Lines,
    number: u64,
    found: bool,
    ended: bool,
}

impl Legacy {
    /// Opens a file of records.
    ///
    /// # Errors
    /// `DataInvalid` when it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { lines: Lines::open(path)?, number: 0, found: false, ended: false })
    }

    /// Reads on to the next line that is not empty.
    fn entry(&mut self) -> Result<Option<Entry>> {
        while let Some(line) = self.lines.next()? {
            self.number += 1;
            let mut origin = Origin { line: Some(self.number), ..Origin::default() };
            let read = match &line {
                Line::TooLong => Err(invalid(format!("the line is longer than {LONGEST} bytes"))),
                Line::Text(text) => match self.stripped(text.expose()) {
                    [] => continue,
                    text => record(text, &mut origin),
                },
            };
            self.found = true;
            return Ok(Some(Entry { origin, read }));
        }
        match self.found {
            true => Ok(None),
            false => Err(invalid("the file has no record: it is empty".to_owned())),
        }
    }

    fn stripped<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        let text = if self.number == 1 { text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text) } else { text };
        text.trim_ascii()
    }
}

impl Iterator for Legacy {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let entry = self.entry().transpose();
        self.ended = !matches!(entry, Some(Ok(_)));
        entry
    }
}

/// Reads one record.
fn record(line: &[u8], origin: &mut Origin) -> Result<Content> {
    let line = std::str::from_utf8(line).map_err(|_| invalid("the line is not UTF-8".to_owned()))?;
    if has_escapes(line, "ciphertext") {
        return Err(invalid("the field `ciphertext` is no text of hexadecimal digits".to_owned()));
    }
    let fields: Fields<'_> = serde_json::from_str(line).map_err(|error| {
        let what = if error.is_data() { "not such an object, or has a field twice" } else { "no JSON" };
        invalid(format!(
            "the line must be a JSON object with owner, asset and ciphertext; it is {what} (column {})",
            error.column()
        ))
    })?;
    let owner = required(fields.owner, "owner")?;
    let asset = asset(&required(fields.asset, "asset")?)?;
    let name = Name::new(&owner, asset.name)?;
    (origin.owner, origin.asset) = (Some(owner.into_owned()), Some(asset.name));
    let key = read_secret(asset, hexadecimal(fields.ciphertext)?)?;
    if let Some(given) = optional(fields.public_key, "public_key")? {
        expect::public_key(&key, &given)?;
    }
    if let Some(given) = optional(fields.address, "address")? {
        expect::address(asset, &key, &given)?;
    }
    Ok(Content::Key(Box::new(Key::new(key, Some(name)))))
}

/// Reads a field that is a text and no secret.
fn required<'l>(field: Option<Field<'l>>, name: &str) -> Result<Cow<'l, str>> {
    optional(field, name)?.ok_or_else(|| missing(name))
}

/// Reads such a field where it is given; an empty text is none.
fn optional<'l>(field: Option<Field<'l>>, name: &str) -> Result<Option<Cow<'l, str>>> {
    match field {
        None => Ok(None),
        Some(Field::Text(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(Field::Other) => Err(invalid(format!("the field `{name}` is no text"))),
    }
}

fn missing(name: &str) -> Error {
    invalid(format!("the field `{name}` is missing or empty"))
}

/// Finds an asset; a text that is none is not quoted.
fn asset(name: &str) -> Result<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
        let names: Vec<_> = ASSETS.iter().map(|asset| asset.name).collect();
        invalid(format!("the asset is unknown; there is: {}", names.join(", ")))
    })
}

/// Reads the secret out of its field, straight into locked memory.
fn hexadecimal(field: Option<Field<'_>>) -> Result<SecureBytes> {
    let no_text = || invalid("the field `ciphertext` is no text of hexadecimal digits".to_owned());
    let digits = match field {
        Some(Field::Text(Cow::Borrowed(digits))) => digits.strip_prefix("0x").unwrap_or(digits),
        Some(_) => return Err(no_text()),
        None => return Err(missing("ciphertext")),
    };
    match digits.len() {
        0 => return Err(missing("ciphertext")),
        len if !len.is_multiple_of(2) => {
            let text =
                format!("the secret has {len} hexadecimal digits, an odd number: is a zero at its start missing?");
            return Err(invalid(text));
        }
        _ => {}
    }
    let mut secret = SecureBytes::zeroed(digits.len() / 2);
    let decoded = data_encoding::HEXLOWER_PERMISSIVE.decode_mut(digits.as_bytes(), secret.expose_mut());
    decoded.map(|_| secret).map_err(|_| no_text())
}

/// Reads the secret of an asset's key as other systems keep it: the scalar at full width; the seed of Ed25519, alone or before its public
/// key; the bytes of an AES key; PKCS #8 for RSA.
///
/// # Errors
/// `AttributeValueInvalid`, `KeySizeRange`, `WrappedKeyInvalid` for what is none; `DataInvalid` for a seed before another public key.
pub fn read_secret(asset: &Asset, secret: SecureBytes) -> Result<GivenKey> {
    let id = mechanism::find(asset.mechanism).and_then(|row| row.key_types.first().copied());
    let id = id.ok_or_else(|| Error::internal("an asset has no type of key"))?;
    let template = asset.templates().0;
    let curve = || template.get(CKA_EC_PARAMS).map(|curve| (CKA_EC_PARAMS, curve.clone())).into_iter().collect();
    match (id, secret.len()) {
        (CKK_RSA, _) => GivenKey::of_pkcs8(&secret),
        (CKK_EC_EDWARDS, len) if len == 2 * SEED => {
            let (seed, public) = secret.expose().split_at(SEED);
            let key = GivenKey::of_value(id, curve(), SecureBytes::copy_from(seed))?;
            match expect::public_key(&key, &data_encoding::HEXLOWER.encode(public)) {
                Ok(()) => Ok(key),
                Err(_) => Err(invalid(
                    "the secret has 64 bytes, and the second half is not the public key of the first".to_owned(),
                )),
            }
        }
        _ => GivenKey::of_value(id, curve(), secret),
    }
}

fn invalid(text: String) -> Error {
    Error::new(Kind::DataInvalid, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// Reads a file of these bytes: for each line its number, and the name of the key or why it is none.
    fn read(text: &[u8]) -> Result<Vec<(u64, Result<String, String>)>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records");
        std::fs::write(&path, text).unwrap();
        let told = |entry: Entry| match entry.read {
            Ok(Content::Key(key)) => Ok(key.name.map(|name| format!("{} {}", name.owner(), name.asset.name)).unwrap()),
            Ok(Content::Object(_)) => panic!("a record is a key"),
            Err(error) => Err(error.message()),
        };
        Legacy::open(&path)?.map(|entry| entry.map(|entry| (entry.origin.line.unwrap(), told(entry)))).collect()
    }

    /// The canary that stands for a secret.
    const SECRET: &str = "ca9a7ca9a7ca9a7ca9a7ca9a7ca9a7ca9a7ca9a7ca9a7ca9a7ca9a7ca9a7ca9a";

    #[test]
    fn each_asset_is_read() {
        let record = |asset: &str, secret: &str| {
            format!("{{\"owner\":\"a\",\"asset\":\"{asset}\",\"ciphertext\":\"{secret}\"}}")
        };
        for asset in ["btc", "ETH", "sol", "secp256k1", "p256", "ed25519", "aes256"] {
            let found = read(record(asset, SECRET).as_bytes()).unwrap();
            assert_eq!(found, [(1, Ok(format!("a {}", asset.to_lowercase())))]);
        }
        for (asset, len) in [("p384", 48), ("p521", 66), ("aes128", 16)] {
            let secret = "00".to_owned() + &"1f".repeat(len - 1);
            assert_eq!(read(record(asset, &secret).as_bytes()).unwrap(), [(1, Ok(format!("a {asset}")))]);
        }
        // RFC 8032, 7.1, test 1: the seed, and the seed with its public key.
        let (seed, public) = (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        );
        for secret in [seed.to_owned(), format!("0x{}", seed.to_uppercase()), format!("{seed}{public}")] {
            assert_eq!(read(record("sol", &secret).as_bytes()).unwrap(), [(1, Ok("a sol".to_owned()))]);
        }
        let wrong = read(record("sol", &format!("{seed}{seed}")).as_bytes()).unwrap();
        assert!(wrong[0].1.as_ref().unwrap_err().contains("second half"), "{wrong:?}");
    }

    #[test]
    fn a_bad_line_is_told_by_its_number_and_never_quoted() {
        let good = format!("{{\"owner\":\"a\",\"asset\":\"btc\",\"ciphertext\":\"{SECRET}\"}}");
        let bad: [(&str, String); 22] = [
            ("no JSON", SECRET.to_owned()),
            ("no JSON", format!("{{\"owner\":\"{SECRET}\"")),
            ("such an object", format!("[\"{SECRET}\"]")),
            ("such an object", format!("\"{SECRET}\"")),
            ("field twice", good.replace("\"asset\"", "\"owner\"")),
            ("no JSON", format!("{good} {SECRET}")),
            ("`owner` is missing", good.replace("owner", "user")),
            ("`owner` is missing", good.replace("\"a\"", "\"\"")),
            ("`owner` is no text", good.replace("\"a\"", "7")),
            ("`asset` is missing", good.replace("asset", "coin")),
            ("asset is unknown", good.replace("btc", SECRET)),
            ("1 to 255 bytes", good.replace("\"a\"", &format!("\"{}\"", "a".repeat(256)))),
            ("1 to 255 bytes", good.replace("\"a\"", "\"a\\u0000\"")),
            ("`ciphertext` is missing", good.replace("ciphertext", "secret")),
            ("`ciphertext` is missing", good.replace(SECRET, "")),
            ("`ciphertext` is missing", good.replace(&format!("\"{SECRET}\""), "null")),
            ("no text of hexadecimal", good.replace(&format!("\"{SECRET}\""), "12")),
            ("odd number", good.replace(SECRET, &SECRET[1..])),
            ("no text of hexadecimal", good.replace(SECRET, &SECRET.replacen("ca", "xa", 1))),
            (
                "no text of hexadecimal",
                good.replace(SECRET, &SECRET.replacen("ca", "\\u0063a", 1).replacen("7c", "7", 1)),
            ),
            ("has 31 bytes", good.replace(SECRET, &SECRET[2..])),
            ("above 0", good.replace(SECRET, &"0".repeat(64))),
        ];
        let text: Vec<_> = bad.iter().map(|(_, line)| line.as_str()).chain([good.as_str()]).collect();
        let found = read(text.join("\n").as_bytes()).unwrap();
        assert_eq!(found.len(), bad.len() + 1);
        assert_eq!(found.last().unwrap(), &(23, Ok("a btc".to_owned())));
        for ((word, line), (number, found)) in bad.iter().zip(&found) {
            let text = found.as_ref().expect_err(line);
            assert!(text.contains(word), "line {number}, {line}: {text}");
            assert!(!text.contains("a9a7") && !text.to_lowercase().contains("ca9a"), "{text}");
        }
        let order = good.replace(SECRET, "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");
        assert!(read(order.as_bytes()).unwrap()[0].1.as_ref().unwrap_err().contains("below the order"));
    }

    #[test]
    fn empty_lines_are_left_out_and_bytes_of_any_kind_survive() {
        let good = format!("{{\"owner\":\"\\u00e9\",\"asset\":\"eth\",\"ciphertext\":\"{SECRET}\",\"more\":[1]}}");
        let text = [BYTE_ORDER_MARK, good.as_bytes(), b"\r\n\n  \n", &[0xFF, 0xFE], b"\n", good.as_bytes()].concat();
        let found = read(&text).unwrap();
        assert_eq!(found[0], (1, Ok("\u{e9} eth".to_owned())));
        assert_eq!(found[1], (4, Err("the line is not UTF-8".to_owned())));
        assert_eq!((found[2].0, found.len()), (5, 3));
        let long = [good.as_bytes(), b"\n", &vec![b'1'; LONGEST + 1], b"\n", good.as_bytes()].concat();
        let found = read(&long).unwrap();
        assert!(found[1].1.as_ref().unwrap_err().contains("longer than") && found[2].1.is_ok());
        for empty in [&b""[..], b"\n", b" \r\n\t\n"] {
            assert!(read(empty).unwrap_err().message().contains("no record"));
        }
    }

    #[test]
    fn what_the_record_says_of_its_key_is_checked() {
        let record = |more: &str| format!("{{\"owner\":\"a\",\"asset\":\"btc\",\"ciphertext\":\"{:064x}\",{more}}}", 1);
        let x = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        for good in [
            format!("\"public_key\":\"{x}\""),
            format!("\"public_key\":\"{x}\",\"address\":\"1BgGZ9tcN4rm9KBzDn7KprQz87SZ26SAMH\""),
            "\"address\":null,\"public_key\":\"\"".to_owned(),
        ] {
            assert!(read(record(&good).as_bytes()).unwrap()[0].1.is_ok(), "{good}");
        }
        for (bad, word) in [
            (format!("\"public_key\":\"{}\"", x.replace("0279", "0379")), "public key is not that"),
            ("\"address\":\"1EHNa6Q4Jz2uvNExL497mE43ikXhwF6kZz\"".to_owned(), "address is not that"),
            ("\"address\":7".to_owned(), "no text"),
        ] {
            let found = read(record(&bad).as_bytes()).unwrap();
            assert!(found[0].1.as_ref().unwrap_err().contains(word), "{found:?}");
        }
    }
}
