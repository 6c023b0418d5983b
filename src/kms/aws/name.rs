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
            return Self::parse_arn(name, rest).ok_or_else(|| wrong("is no ARN of a key or an alias"));
        }
        if is_alias(name) {
            return Ok(Self::Alias(name.to_owned()));
        }
        if is_id(name) {
            return Ok(Self::Id(name.to_owned()));
        }
        Err(wrong("is no key id, ARN or alias; an alias has `alias/` in front"))
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

    /// Tells whether an ARN may be that of this key: an alias leads where the service says.
    pub fn may_be(&self, arn: &str) -> bool {
        match (self, Self::parse(arn)) {
            (Self::Id(id), Ok(named @ Self::Arn { .. })) => named.label() == id,
            (Self::Arn { arn: own, .. }, _) => is_same_key(own, arn),
            (Self::Alias(_) | Self::AliasArn { .. }, Ok(Self::Arn { .. })) => true,
            _ => false,
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
            (Some(named), Some(configured)) if named != configured => {
                Err(Error::arguments_bad("`region` is another than that in the ARN of the key; leave `region` out"))
            }
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

/// Tells whether two ARNs are of one account, region and partition.
pub fn of_one_account(one: &str, other: &str) -> bool {
    fn place(arn: &str) -> Option<&str> {
        arn.rsplit_once(':').map(|(place, _)| place)
    }
    place(one).is_some() && place(one) == place(other)
}

/// Tells whether two ARNs are of the same key: a multi-Region key has one in each region, with the same id.
pub fn is_same_key(one: &str, other: &str) -> bool {
    fn multi_region(arn: &str) -> Option<[&str; 3]> {
        match arn.split(':').collect::<Vec<_>>().as_slice() {
            ["arn", partition, "kms", _, account, key] if key.starts_with("key/mrk-") => {
                Some([partition, account, key])
            }
            _ => None,
        }
    }
    one == other || multi_region(one).is_some_and(|one| Some(one) == multi_region(other))
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

fn wrong(what: &str) -> Error {
    Error::arguments_bad(format!("the name of the key {what}"))
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
    fn a_key_is_told_from_others_in_whichever_region_it_is() {
        let arn = |region: &str, account: &str, id: &str| format!("arn:aws:kms:{region}:{account}:key/{id}");
        let mrk = "mrk-1234abcd12ab34cd56ef1234567890ab";
        let (own, many) = (arn("eu-west-1", "111122223333", ID), arn("eu-west-1", "111122223333", mrk));
        assert!(is_same_key(&own, &own) && is_same_key(&many, &arn("us-east-1", "111122223333", mrk)));
        for (one, other) in [
            (&own, arn("us-east-1", "111122223333", ID)),
            (&many, arn("us-east-1", "444455556666", mrk)),
            (&many, arn("us-east-1", "111122223333", &mrk.replace('1', "2"))),
        ] {
            assert!(!is_same_key(one, &other), "{one} {other}");
        }
        let named = |name: &str| KeyName::parse(name).unwrap();
        assert!(named(ID).may_be(&own) && named(&own).may_be(&own) && named("alias/x").may_be(&own));
        assert!(!named(mrk).may_be(&own) && !named(&many).may_be(&own) && !named("alias/x").may_be("alias/y"));
        assert!(of_one_account(&own, &many) && !of_one_account(&own, &arn("eu-west-1", "444455556666", ID)));
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
