//! A field of a JSON record that may be a secret: read where it stands.
//!
//! serde_json hands out a text without escapes as a part of its input. One with escapes it writes anew into memory that nobody wipes, and
//! a value of another type into the text of an error. So a secret must have no escapes, and no value here is ever an error.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The value of a field.
pub enum Field<'l> {
    /// A text; borrowed from the input where it has no escapes.
    Text(Cow<'l, str>),
    /// A value of another type, which is dropped.
    Other,
}

impl<'de: 'l, 'l> Deserialize<'de> for Field<'l> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'l> Visitor<'l> for FieldVisitor {
    type Value = Field<'l>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'l str) -> Result<Field<'l>, E> {
        Ok(Field::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Field<'l>, E> {
        Ok(Field::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Field<'l>, E> {
        Ok(Field::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Field<'l>, E> {
        Ok(Field::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Field<'l>, E> {
        Ok(Field::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Field<'l>, E> {
        Ok(Field::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<Field<'l>, E> {
        Ok(Field::Other)
    }

    fn visit_seq<A: SeqAccess<'l>>(self, mut values: A) -> Result<Field<'l>, A::Error> {
        while values.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }

    fn visit_map<A: MapAccess<'l>>(self, mut values: A) -> Result<Field<'l>, A::Error> {
        while values.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }
}

/// Tells whether the text after a field's name has escapes, before anything reads it.
pub fn has_escapes(line: &str, name: &str) -> bool {
    let value = |rest: &str| {
        let text = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
        Some(text.split('"').next()?.contains('\\'))
    };
    line.split(&format!("\"{name}\"")).skip(1).any(|rest| value(rest).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_seen_in_the_named_field_alone() {
        for (line, found) in [
            (r#"{"a":"b\u0041","c":"d"}"#, false),
            (r#"{"c" : "d\u0041"}"#, true),
            (r#"{"c":"d","c":"\n"}"#, true),
            (r#"{"c":"d","e":"\n"}"#, false),
            (r#"{"c":7}"#, false),
            (r#"{"c"#, false),
        ] {
            assert_eq!(has_escapes(line, "c"), found, "{line}");
        }
    }
}
