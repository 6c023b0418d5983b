//! The sections on rotation: `[rotation]` and `[rotation.assets.NAME]` for all tokens, `[token.rotation]` and
//! `[token.rotation.assets.NAME]` for one.
//!
//! The rules are:
//! - each key is looked for on its own: first in the section of the asset for this token, then in that of the asset, of the token,
//!   and in `[rotation]`;
//! - what comes out for each token and asset must not contradict itself; the section that makes it do so is named.

use std::collections::BTreeMap;

use super::reader::Section;
use crate::error::Result;
use crate::keys::ASSETS;

/// The most days of an interval or an age: a hundred years.
const MOST_DAYS: u32 = 36_500;
/// The keys that each section has.
const RULES: [&str; 5] = ["rotation_interval_days", "max_key_age_days", "max_key_uses", "auto_rotate", "assets"];
/// The keys that `[rotation]` has besides.
const GENERAL: [&str; 3] = ["scheduler", "check_interval_minutes", "warn_days"];

/// Where a value was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Nowhere.
    Default,
    /// In `[rotation]`.
    General,
    /// In the section of the token.
    Token,
    /// In the section of the asset, for all tokens or for one.
    Asset,
}

/// A value, and where it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<T> {
    /// The value.
    pub value: T,
    /// Where it was found.
    pub level: Level,
}

/// When managed keys are rotated that have no rules of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// A version is due so many days after it was made; 0 is never.
    pub rotation_interval_days: Found<u32>,
    /// The active version makes nothing new so many days after it was made; 0 is never.
    pub max_key_age_days: Found<u32>,
    /// The active version makes nothing new after so many uses; 0 is no limit.
    pub max_key_uses: Found<u32>,
    /// Whether due keys are rotated without being asked for by name.
    pub auto_rotate: Found<bool>,
}

impl Default for Rotation {
    fn default() -> Self {
        resolve(&[])
    }
}

/// The rules of a token: those of some assets, and those of all others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Those of assets that have no section.
    pub others: Rotation,
    /// Those of assets that have one, by name.
    pub assets: BTreeMap<String, Rotation>,
}

/// All that is configured about rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The rules of tokens without rules of their own.
    pub rules: Rules,
    /// Whether the library rotates due keys by itself.
    pub scheduler: bool,
    /// How often it looks for them, in minutes.
    pub check_interval_minutes: u32,
    /// Keys that will be due within so many days are told.
    pub warn_days: u32,
    /// What the sections say.
    said: Said,
}

impl Default for Settings {
    fn default() -> Self {
        let (rules, said) = (Rules::default(), Said::default());
        Self { rules, scheduler: true, check_interval_minutes: 60, warn_days: 14, said }
    }
}

/// What one section says of the rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Layer {
    interval: Option<u32>,
    age: Option<u32>,
    uses: Option<u32>,
    automatic: Option<bool>,
}

/// What a section and those of its assets say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Said {
    own: Layer,
    assets: BTreeMap<String, Layer>,
}

/// Reads `[rotation]`.
pub(super) fn read(section: Option<Section<'_>>) -> Result<Settings> {
    let mut settings = Settings::default();
    let Some(section) = section else { return Ok(settings) };
    section.allow(&[&RULES[..], &GENERAL].concat())?;
    settings.said = said(&section)?;
    settings.rules = rules(&settings.said, &Said::default(), &section)?;
    settings.scheduler = section.flag("scheduler")?.unwrap_or(settings.scheduler);
    let minutes = section.number("check_interval_minutes", 1..=1440)?;
    settings.check_interval_minutes = minutes.unwrap_or(settings.check_interval_minutes);
    settings.warn_days = section.number("warn_days", 0..=MOST_DAYS)?.unwrap_or(settings.warn_days);
    Ok(settings)
}

/// Reads the section of one token.
pub(super) fn read_token(general: &Settings, section: Option<Section<'_>>) -> Result<Rules> {
    let Some(section) = section else { return Ok(general.rules.clone()) };
    section.allow(&RULES)?;
    rules(&general.said, &said(&section)?, &section)
}

/// Reads what a section and those of its assets say.
fn said(section: &Section<'_>) -> Result<Said> {
    let mut said = Said { own: layer(section)?, assets: BTreeMap::new() };
    let Some(assets) = section.table("assets")? else { return Ok(said) };
    assets.allow(&ASSETS.iter().map(|asset| asset.name).collect::<Vec<_>>())?;
    for (name, asset) in assets.tables()? {
        asset.allow(RULES.split_last().map_or(&[], |(_, rules)| rules))?;
        said.assets.insert(name.to_owned(), layer(&asset)?);
    }
    Ok(said)
}

fn layer(section: &Section<'_>) -> Result<Layer> {
    Ok(Layer {
        interval: section.number("rotation_interval_days", 0..=MOST_DAYS)?,
        age: section.number("max_key_age_days", 0..=MOST_DAYS)?,
        uses: section.number("max_key_uses", 0..=u32::MAX)?,
        automatic: section.flag("auto_rotate")?,
    })
}

/// Puts together what the sections for all tokens and those for one say. `section` is the one that was read last.
fn rules(general: &Said, token: &Said, section: &Section<'_>) -> Result<Rules> {
    let common = [(Level::Token, Some(&token.own)), (Level::General, Some(&general.own))];
    let others = checked(resolve(&common), section, None)?;
    let mut assets = BTreeMap::new();
    for name in general.assets.keys().chain(token.assets.keys()) {
        let [of_token, of_all] = [token, general].map(|said| (Level::Asset, said.assets.get(name)));
        let found = resolve(&[&[of_token, of_all], &common[..]].concat());
        assets.insert(name.clone(), checked(found, section, Some(name))?);
    }
    Ok(Rules { others, assets })
}

/// Finds each value in the first section that has it.
fn resolve(layers: &[(Level, Option<&Layer>)]) -> Rotation {
    fn find<T: Copy>(layers: &[(Level, Option<&Layer>)], value: fn(&Layer) -> Option<T>, default: T) -> Found<T> {
        let found = layers.iter().find_map(|(level, layer)| Some(Found { value: value((*layer)?)?, level: *level }));
        found.unwrap_or(Found { value: default, level: Level::Default })
    }
    let interval = find(layers, |layer| layer.interval, 90);
    let uses = find(layers, |layer| layer.uses, 0);
    let mut automatic = find(layers, |layer| layer.automatic, true);
    // Who says that keys are never due says nothing against what is said above it.
    if interval.value == 0
        && uses.value == 0
        && place(layers, |layer| layer.automatic.is_some()) > place(layers, says_never)
    {
        automatic = Found { value: false, level: interval.level };
    }
    let max_key_age_days = find(layers, |layer| layer.age, 365);
    Rotation { rotation_interval_days: interval, max_key_age_days, max_key_uses: uses, auto_rotate: automatic }
}

fn says_never(layer: &Layer) -> bool {
    layer.interval == Some(0)
}

/// Tells how far down the first section stands that says something.
fn place(layers: &[(Level, Option<&Layer>)], says: fn(&Layer) -> bool) -> usize {
    layers.iter().position(|(_, layer)| layer.is_some_and(says)).unwrap_or(layers.len())
}

/// Refuses rules that contradict each other.
fn checked(rules: Rotation, section: &Section<'_>, asset: Option<&str>) -> Result<Rotation> {
    let (interval, age) = (rules.rotation_interval_days.value, rules.max_key_age_days.value);
    let text = match () {
        () if interval == 0 && rules.max_key_uses.value == 0 && rules.auto_rotate.value => {
            "auto_rotate = true needs a rotation_interval_days or a max_key_uses above 0"
        }
        () if age > 0 && interval >= age => {
            "max_key_age_days must be greater than rotation_interval_days, or 0 for no limit: keys would be refused before \
             they are rotated"
        }
        () => return Ok(rules),
    };
    Err(match asset {
        Some(asset) => section.error(&format!("for the asset {asset}: {text}")),
        None => section.error(text),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::{Config, Environment};
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        let environment = Environment { home: Some("/home/me".into()), ..Environment::default() };
        Config::parse(&environment, Some("/cfg/strongroom.toml".into()), text)
    }

    /// Interval, age, uses and automatic rotation, without where they come from.
    fn values(rotation: Rotation) -> (u32, u32, u32, bool) {
        let Rotation { rotation_interval_days, max_key_age_days, max_key_uses, auto_rotate } = rotation;
        (rotation_interval_days.value, max_key_age_days.value, max_key_uses.value, auto_rotate.value)
    }

    #[test]
    fn nothing_said_is_the_default() {
        let settings = parse("").unwrap().rotation;
        assert_eq!(values(settings.rules.others), (90, 365, 0, true));
        assert_eq!(settings.rules.others.auto_rotate.level, Level::Default);
        assert_eq!((settings.scheduler, settings.check_interval_minutes, settings.warn_days), (true, 60, 14));
    }

    #[test]
    fn what_is_said_of_an_asset_goes_before_what_is_said_of_a_token_and_that_before_the_rest() {
        let config = parse(
            r#"
            [rotation]
            rotation_interval_days = 60
            max_key_uses = 1000
            scheduler = false
            check_interval_minutes = 5
            warn_days = 3
            [rotation.assets.btc]
            rotation_interval_days = 10
            [rotation.assets.aes256]
            max_key_uses = 4294967295
            [[token]]
            label = "wallet"
            [token.rotation]
            max_key_age_days = 100
            auto_rotate = false
            [token.rotation.assets.btc]
            auto_rotate = true
            max_key_age_days = 0
            [[token]]
            label = "plain"
            "#,
        )
        .unwrap();
        let settings = &config.rotation;
        assert_eq!((settings.scheduler, settings.check_interval_minutes, settings.warn_days), (false, 5, 3));
        assert_eq!(values(settings.rules.others), (60, 365, 1000, true));
        assert_eq!(values(settings.rules.assets["btc"]), (10, 365, 1000, true));
        assert_eq!(values(settings.rules.assets["aes256"]), (60, 365, u32::MAX, true));
        let wallet = config.token("wallet").rotation;
        assert_eq!(values(wallet.others), (60, 100, 1000, false));
        let bitcoin = wallet.assets["btc"];
        assert_eq!(values(bitcoin), (10, 0, 1000, true));
        let levels = (bitcoin.rotation_interval_days.level, bitcoin.max_key_age_days.level, bitcoin.max_key_uses.level);
        assert_eq!(levels, (Level::Asset, Level::Asset, Level::General));
        assert_eq!(wallet.others.max_key_age_days.level, Level::Token);
        assert_eq!(values(wallet.assets["aes256"]), (60, 100, u32::MAX, false));
        assert_eq!(config.token("plain").rotation, settings.rules);
        assert_eq!(config.token("another").rotation, settings.rules);
    }

    #[test]
    fn who_says_never_does_not_contradict_what_is_said_above() {
        let config = parse(
            "[rotation]\nauto_rotate = true\n[rotation.assets.btc]\nrotation_interval_days = 0\n\
             [rotation.assets.eth]\nrotation_interval_days = 0\nmax_key_uses = 9\n",
        );
        let rules = config.unwrap().rotation.rules;
        assert_eq!(values(rules.assets["btc"]), (0, 365, 0, false));
        assert_eq!(values(rules.assets["eth"]), (0, 365, 9, true), "by its uses");
        let off = parse("[rotation]\nrotation_interval_days = 0\n").unwrap().rotation.rules.others;
        assert_eq!(values(off), (0, 365, 0, false));
    }

    #[test]
    fn r73_rules_that_contradict_each_other_name_file_line_and_section() {
        let longer = "greater than rotation_interval_days";
        for (text, line, key, wanted) in [
            ("\n[rotation]\nrotation_interval_days = 90\nmax_key_age_days = 90\n", 2, "rotation", longer),
            ("\n[rotation]\nrotation_interval_days = 400\n", 2, "rotation", longer),
            ("\n[rotation]\nrotation_interval_days = 0\nauto_rotate = true\n", 2, "rotation", "above 0"),
            (
                "[rotation]\n[rotation.assets.btc]\nmax_key_age_days = 9\n",
                1,
                "rotation",
                "for the asset btc: max_key_age_days",
            ),
            ("[[token]]\nlabel = \"a\"\n[token.rotation]\nmax_key_age_days = 90\n", 3, "token.rotation", longer),
            (
                "[[token]]\nlabel = \"a\"\n[token.rotation]\nmax_key_age_days = 100\n\
                 [rotation.assets.sol]\nrotation_interval_days = 200\n",
                3,
                "token.rotation",
                "for the asset sol: max_key_age_days",
            ),
            ("[rotation]\nrotation_interval_days = 36501", 2, "rotation.rotation_interval_days", "from 0 to 36500"),
            ("[rotation]\nmax_key_age_days = -1", 2, "rotation.max_key_age_days", "from 0 to 36500"),
            ("[rotation]\nmax_key_uses = 4294967296", 2, "rotation.max_key_uses", "from 0 to 4294967295"),
            ("[rotation]\nauto_rotate = \"yes\"", 2, "rotation.auto_rotate", "true or false"),
            ("[rotation]\nscheduler = 1", 2, "rotation.scheduler", "true or false"),
            ("[rotation]\ncheck_interval_minutes = 0", 2, "rotation.check_interval_minutes", "from 1 to 1440"),
            ("[rotation]\nwarn_days = 36501", 2, "rotation.warn_days", "from 0 to 36500"),
            ("[rotation]\ninterval_days = 9", 2, "rotation.interval_days", "unknown key"),
            ("[rotation.assets.doge]\nauto_rotate = true", 1, "rotation.assets.doge", "known here: btc, eth"),
            (
                "[rotation.assets.btc]\nscheduler = true",
                2,
                "rotation.assets.btc.scheduler",
                "known here: rotation_interval_days",
            ),
            ("[rotation.assets]\nbtc = 1", 2, "rotation.assets.btc", "must be a table"),
            ("[[token]]\nlabel = \"a\"\nrotation = 1", 3, "token.rotation", "must be a table"),
            (
                "[[token]]\nlabel = \"a\"\n[token.rotation]\nscheduler = true",
                4,
                "token.rotation.scheduler",
                "known here",
            ),
        ] {
            let error = parse(text).unwrap_err().message();
            let place = format!("/cfg/strongroom.toml:{line}: {key}: ");
            assert!(
                error.starts_with(&place) && error.contains(wanted),
                "{text:?}\n got {error}\nwant {place}{wanted}"
            );
        }
    }
}
