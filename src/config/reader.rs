//! Typed access to a TOML document in which each value knows its line, so that each error can name the place.

use std::ops::RangeInclusive;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::unusable;
use crate::error::{Error, Result};

/// A file and its text: what an error needs to name the place.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// Makes the error of the line in which the byte `offset` stands.
    fn error(&self, offset: usize, key: &str, text: &str) -> Error {
        let before = self.text.as_bytes().iter().take(offset);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        unusable(format!("{}:{line}: {key}{text}", self.file.display()))
    }

    /// Parses the text as TOML.
    pub(super) fn parse(&self) -> Result<Spanned<DeTable<'_>>> {
        DeTable::parse(self.text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            self.error(offset, "", &format!("this is not TOML: {}", error.message()))
        })
    }
}

/// One table of the document.
#[derive(Clone)]
pub(super) struct Section<'a> {
    source: Source<'a>,
    name: String,
    offset: usize,
    table: &'a DeTable<'a>,
}

/// One value with what an error about it needs.
pub(super) struct Item<'a, T> {
    source: Source<'a>,
    key: String,
    offset: usize,
    pub(super) value: T,
}

impl<'a, T> Item<'a, T> {
    /// Makes an error about this value.
    pub(super) fn error(&self, text: &str) -> Error {
        self.source.error(self.offset, &self.key, text)
    }
}

impl<'a> Section<'a> {
    /// Makes the section of a whole document.
    pub(super) fn root(source: Source<'a>, table: &'a DeTable<'a>) -> Self {
        Self { source, name: String::new(), offset: 0, table }
    }

    /// Makes an error about the section as a whole.
    pub(super) fn error(&self, text: &str) -> Error {
        self.source.error(self.offset, &self.name, text)
    }

    /// Fails for the first key that is not one of `known`.
    pub(super) fn allow(&self, known: &[&str]) -> Result<()> {
        let unknown = self.table.keys().find(|key| !known.contains(&key.get_ref().as_ref()));
        let Some(unknown) = unknown else { return Ok(()) };
        let key = unknown.get_ref().as_ref();
        let known_keys = known.join(", ");
        let text = match closest(key, known) {
            Some(meant) => format!("unknown key; did you mean {meant}? (known here: {known_keys})"),
            None => format!("unknown key; known here: {known_keys}"),
        };
        Err(self.source.error(unknown.span().start, &self.path(key), &text))
    }

    /// Lists the keys and their tables, for a section whose keys are names that the user gives.
    pub(super) fn tables(&self) -> Result<Vec<(&'a str, Section<'a>)>> {
        let keys = self.table.keys().map(|key| key.get_ref().as_ref());
        keys.map(|key| Ok((key, self.table(key)?.ok_or_else(|| self.error("is empty"))?))).collect()
    }

    /// Reads a table.
    pub(super) fn table(&self, key: &str) -> Result<Option<Section<'a>>> {
        let read = |item: Item<'a, &'a DeValue<'a>>| match item.value {
            DeValue::Table(table) => Ok(Section { source: self.source, name: item.key, offset: item.offset, table }),
            _ => Err(item.error("must be a table")),
        };
        self.item(key).map(read).transpose()
    }

    /// Reads an array of tables.
    pub(super) fn array_of_tables(&self, key: &str) -> Result<Vec<Section<'a>>> {
        let Some(item) = self.item(key) else { return Ok(Vec::new()) };
        let DeValue::Array(array) = item.value else {
            return Err(item.error(&format!("must be written as [[{key}]]")));
        };
        let read = |entry: &'a Spanned<DeValue<'a>>| match entry.get_ref() {
            DeValue::Table(table) => {
                Ok(Section { source: self.source, name: item.key.clone(), offset: entry.span().start, table })
            }
            _ => Err(item.error(&format!("must be written as [[{key}]]"))),
        };
        array.iter().map(read).collect()
    }

    /// Reads a text.
    pub(super) fn text(&self, key: &str) -> Result<Option<Item<'a, &'a str>>> {
        self.item(key).map(|item| as_text(item, "must be a text in quotes")).transpose()
    }

    /// Reads one of some words.
    pub(super) fn choice<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>> {
        let Some(item) = self.text(key)? else { return Ok(None) };
        pick(&item, words).map(Some)
    }

    /// Reads a list of words, each one of some.
    pub(super) fn choices<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<Vec<T>>> {
        let Some(item) = self.item(key) else { return Ok(None) };
        let wanted = format!("must be a list of {}", list(words));
        let DeValue::Array(array) = item.value else { return Err(item.error(&wanted)) };
        let read = |entry: &'a Spanned<DeValue<'a>>| {
            let at =
                Item { source: item.source, key: item.key.clone(), offset: entry.span().start, value: entry.get_ref() };
            pick(&as_text(at, &wanted)?, words)
        };
        array.iter().map(read).collect::<Result<_>>().map(Some)
    }

    /// Reads a list of texts, none of them empty.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        const WANTED: &str = "must be a list of texts in quotes";
        let Some(item) = self.item(key) else { return Ok(None) };
        let DeValue::Array(array) = item.value else { return Err(item.error(WANTED)) };
        let read = |entry: &'a Spanned<DeValue<'a>>| match entry.get_ref().as_str() {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(item.error(WANTED)),
        };
        array.iter().map(read).collect::<Result<_>>().map(Some)
    }

    /// Reads a list of texts, each with its place.
    pub(super) fn text_items(&self, key: &str) -> Result<Option<Vec<Item<'a, &'a str>>>> {
        const WANTED: &str = "must be a list of texts in quotes";
        let Some(item) = self.item(key) else { return Ok(None) };
        let DeValue::Array(array) = item.value else { return Err(item.error(WANTED)) };
        let read = |entry: &'a Spanned<DeValue<'a>>| {
            let (key, offset) = (item.key.clone(), entry.span().start);
            as_text(Item { source: item.source, key, offset, value: entry.get_ref() }, WANTED)
        };
        array.iter().map(read).collect::<Result<_>>().map(Some)
    }

    /// Reads a whole number within bounds.
    pub(super) fn number(&self, key: &str, bounds: RangeInclusive<u32>) -> Result<Option<u32>> {
        let Some(item) = self.item(key) else { return Ok(None) };
        let wanted = format!("must be a whole number from {} to {}", bounds.start(), bounds.end());
        let DeValue::Integer(number) = item.value else { return Err(item.error(&wanted)) };
        let parsed = u32::from_str_radix(number.as_str(), number.radix()).ok().filter(|number| bounds.contains(number));
        parsed.map(Some).ok_or_else(|| item.error(&format!("{wanted}; it is {}", number.as_str())))
    }

    /// Reads `true` or `false`.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(item) = self.item(key) else { return Ok(None) };
        match item.value {
            DeValue::Boolean(flag) => Ok(Some(*flag)),
            _ => Err(item.error("must be true or false")),
        }
    }

    /// Finds a value.
    fn item(&self, key: &str) -> Option<Item<'a, &'a DeValue<'a>>> {
        let value = self.table.get(key)?;
        Some(Item { source: self.source, key: self.path(key), offset: value.span().start, value: value.get_ref() })
    }

    /// Names a key with its section: `argon2.lanes`.
    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

/// Takes a value for a text.
fn as_text<'a>(item: Item<'a, &'a DeValue<'a>>, wanted: &str) -> Result<Item<'a, &'a str>> {
    match item.value.as_str() {
        Some(value) => Ok(Item { source: item.source, key: item.key, offset: item.offset, value }),
        None => Err(item.error(wanted)),
    }
}

/// Finds the meaning of a word.
fn pick<T: Copy>(item: &Item<'_, &str>, words: &[(&str, T)]) -> Result<T> {
    let found = words.iter().find(|word| word.0 == item.value).map(|word| word.1);
    found.ok_or_else(|| item.error(&format!("must be {}", list(words))))
}

/// Lists words for an error: `"a", "b" or "c"`.
fn list<T>(words: &[(&str, T)]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{}\"", word.0)).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// Finds the known key that a mistyped one most looks like.
fn closest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let near = known.iter().map(|known| (strsim::jaro_winkler(key, known), *known)).filter(|near| near.0 > 0.8);
    near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|near| near.1)
}
