//! The names of a key: its id, its ARN, an alias, the ARN of an alias (AWS KMS Developer Guide, "Key identifiers").

use std::fmt;

use crate::error::{Error, Result};

/// What an alias starts with.
pub const ALIAS: &str = "alias/";
/// The most characters of an alias, `alias/` among them.
const MAX_ALIAS: usize = 256;

/// The name of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyName {
    /// An id: a UUID, or `mrk-` and 32 hex digits for a multi-Region key.
    Id(String),
    /// The ARN of a key.
    Arn {
        /// The whole.
        arn: String,
        /// The region in it.
        region: String,
    },
    /// An alias, with `alias/` in front.
    Alias(String),
    /// The ARN of an alias, of another account perhaps.
    AliasArn {
        /// The whole.
        arn: String,
        /// The region in it.
        region: String,
        /// The alias in it, with `alias/` in front.
        alias: String,
    },
}

impl KeyName {
    /// Reads a name.
    ///
    /// # Errors
    /// `ArgumentsBad` for what AWS KMS would not take as a name.
    pub fn parse(name: &str) -> Result<Self> {
        if let Some(rest) = name.strip_prefix("arn:") {
            return Self::parse_arn(name, rest).ok_or_else(|| wrong(name, "is no ARN of a key or an alias"));
        }
        if is_alias(name) {
            return Ok(Self::Alias(name.to_owned()));
        }
        if is_id(name) {
            return Ok(Self::Id(name.to_owned()));
        }
        Err(wrong(name, "is no key id, ARN or alias; an alias has `alias/` in front"))
    }

    /// Reads the name of a key as people and labels give it: one that is nothing else is an alias without its `alias/`.
    ///
    /// # Errors
    /// `ArgumentsBad` for what cannot be an alias either.
    pub fn parse_label(name: &str) -> Result<Self> {
        Self::parse(name).or_else(|error| Self::parse(&format!("{ALIAS}{name}")).map_err(|_| error))
    }

    /// Reads `arn:PARTITION:kms:REGION:ACCOUNT:key/ID` or `…:alias/NAME`.
    fn parse_arn(name: &str, rest: &str) -> Option<Self> {
        let mut parts = rest.splitn(5, ':');
        let (_partition, service, region) = (parts.next()?, parts.next()?, parts.next()?);
        let (_account, resource) = (parts.next()?, parts.next()?);
        let (arn, region) = (name.to_owned(), region.to_owned());
        match resource.strip_prefix("key/") {
            _ if service != "kms" || region.is_empty() => None,
            Some(id) => is_id(id).then_some(Self::Arn { arn, region }),
            None => is_alias(resource).then(|| Self::AliasArn { arn, region, alias: resource.to_owned() }),
        }
    }

    /// Gives the alias, if that is what it is.
    pub fn alias(&self) -> Option<&str> {
        match self {
            Self::Alias(alias) | Self::AliasArn { alias, .. } => Some(alias),
            Self::Id(_) | Self::Arn { .. } => None,
        }
    }

    /// Tells the region that is in the name, or the one of the configuration.
    ///
    /// # Errors
    /// `ArgumentsBad` when the two are not the same.
    pub fn region_or(&self, configured: Option<&str>) -> Result<Option<String>> {
        let named = match self {
            Self::Arn { region, .. } | Self::AliasArn { region, .. } => Some(region.as_str()),
            Self::Id(_) | Self::Alias(_) => None,
        };
        match (named, configured) {
            (Some(named), Some(configured)) if named != configured => Err(Error::arguments_bad(format!(
                "the key is in the region `{}` and `region` is `{}`; leave `region` out",
                named.escape_debug(),
                configured.escape_debug()
            ))),
            (named, configured) => Ok(named.or(configured).map(str::to_owned)),
        }
    }

    /// Gives the part that people read: the alias without its prefix, or the id.
    pub fn label(&self) -> &str {
        match self {
            Self::Id(id) => id,
            Self::Arn { arn, .. } => arn.rsplit('/').next().unwrap_or(arn),
            Self::Alias(alias) | Self::AliasArn { alias, .. } => alias.strip_prefix(ALIAS).unwrap_or(alias),
        }
    }
}

impl fmt::Display for KeyName {
    /// Writes it as the service takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(name) | Self::Arn { arn: name, .. } | Self::Alias(name) | Self::AliasArn { arn: name, .. } => {
                f.write_str(name)
            }
        }
    }
}

/// Makes an alias of a label: only letters, digits, `/`, `_` and `-`, and not the `aws/` that AWS keeps for itself.
///
/// `room` characters are left for a suffix.
pub fn alias_of(label: &str, room: usize) -> String {
    let label = label.strip_prefix(ALIAS).unwrap_or(label);
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-');
    let clean: String = label.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    let mut alias = match clean.trim_matches('-') {
        "" => format!("{ALIAS}strongroom"),
        clean if clean.starts_with("aws/") => format!("{ALIAS}strongroom-{clean}"),
        clean => format!("{ALIAS}{clean}"),
    };
    alias.truncate(MAX_ALIAS.saturating_sub(room));
    alias
}

fn is_alias(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '/' | '_' | '-');
    name.len() <= MAX_ALIAS
        && name.strip_prefix(ALIAS).is_some_and(|rest| !rest.is_empty() && rest.chars().all(allowed))
}

fn is_id(name: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match name.strip_prefix("mrk-") {
        Some(digits) => digits.len() == 32 && hex(digits),
        None => name.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && name.split('-').all(hex),
    }
}

fn wrong(name: &str, what: &str) -> Error {
    Error::arguments_bad(format!("`{}` {what}", name.escape_debug()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn every_form_of_a_name_is_read_and_written() {
        let arn = format!("arn:aws-cn:kms:cn-north-1:111122223333:key/{ID}");
        let alias_arn = "arn:aws:kms:eu-west-1:111122223333:alias/team/room";
        let mrk = "mrk-1234abcd12ab34cd56ef1234567890ab";
        for (name, label, alias) in [
            (ID, ID, None),
            (mrk, mrk, None),
            (&arn, ID, None),
            ("alias/room", "room", Some("alias/room")),
            (alias_arn, "team/room", Some("alias/team/room")),
        ] {
            let key = KeyName::parse(name).unwrap();
            assert_eq!((key.to_string().as_str(), key.label(), key.alias()), (name, label, alias));
        }
        assert_eq!(KeyName::parse(alias_arn).unwrap().region_or(None).unwrap().unwrap(), "eu-west-1");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in
            ["", "room", "alias/", "alias/a b", "alias/ä", "arn:aws:s3:eu-west-1:1:key/x", "arn:aws:kms::1:alias/x"]
        {
            assert!(KeyName::parse(name).is_err(), "{name}");
        }
        assert!(KeyName::parse(&ID.replace('a', "g")).is_err());
        assert_eq!(KeyName::parse_label("room").unwrap(), KeyName::Alias("alias/room".to_owned()));
        assert!(KeyName::parse_label("a room").is_err());
    }

    #[test]
    fn another_region_than_the_keys_is_refused() {
        let key = KeyName::parse("arn:aws:kms:eu-west-1:1:alias/x").unwrap();
        assert!(key.region_or(Some("us-east-1")).is_err());
        assert_eq!(key.region_or(Some("eu-west-1")).unwrap().unwrap(), "eu-west-1");
        let key = KeyName::parse("alias/x").unwrap();
        assert_eq!(key.region_or(Some("us-east-1")).unwrap().unwrap(), "us-east-1");
        assert_eq!(key.region_or(None).unwrap(), None);
    }

    #[test]
    fn r49_every_label_becomes_an_alias_that_aws_takes() {
        let long = "x".repeat(400);
        for (label, alias) in [
            ("wallet 7", "alias/wallet-7"),
            ("alias/room", "alias/room"),
            ("Schlüssel", "alias/Schl-ssel"),
            ("aws/s3", "alias/strongroom-aws/s3"),
            ("", "alias/strongroom"),
            ("日本", "alias/strongroom"),
        ] {
            let made = alias_of(label, 9);
            assert!(is_alias(&made), "{made}");
            assert_eq!(made, alias);
        }
        assert_eq!(alias_of(&long, 9).len(), MAX_ALIAS - 9);
    }
}
