//! Rotation of the master key: new material in the same key, or a new key behind the alias.

use std::future::Future;
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::types::{KeySpec, KeyUsageType};

use super::super::provider::left_over;
use super::fault::{no_sense, told};
use super::name::KeyName;
use super::{describe, key_arn};
use crate::error::{Error, KmsFault, Result};

/// The only policy that a key has.
const POLICY: &str = "default";
/// How often a key that was just made is asked for, and how long is waited first; each wait is twice the one before. AWS KMS
/// is eventually consistent: "most changes propagate within a few seconds".
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// How the master key is rotated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// RotateKeyOnDemand: the key keeps its ARN and finds the right material by itself.
    OnDemand,
    /// CreateKey and UpdateAlias, for this alias: the old key must stay as long as something is wrapped under it.
    NewKey(String),
}

impl Rotation {
    /// Reads the setting.
    ///
    /// # Errors
    /// `ArgumentsBad` for `new-key` when the key is not named by an alias.
    pub fn parse(word: Option<&str>, key: &KeyName) -> Result<Self> {
        match (word, key.alias()) {
            (Some("new-key"), Some(alias)) => Ok(Self::NewKey(alias.to_owned())),
            (Some("new-key"), None) => Err(Error::arguments_bad(
                "`rotation = \"new-key\"` moves an alias to a new key; give the `key` as an alias, or leave `rotation` out",
            )),
            _ => Ok(Self::OnDemand),
        }
    }

    /// Rotates, and tells the ARN of the key that wraps from now on.
    ///
    /// # Errors
    /// Any [`KmsFault`].
    pub async fn run(&self, client: &Client, key: &KeyName) -> Result<String> {
        match self {
            Self::OnDemand => on_demand(client, key).await,
            Self::NewKey(alias) => new_key(client, key, alias).await,
        }
    }
}

/// Gives the key new material. The operation takes no alias, and its answer names the key by its id.
async fn on_demand(client: &Client, key: &KeyName) -> Result<String> {
    let arn = current(client, key).await?;
    told("RotateKeyOnDemand", &arn, client.rotate_key_on_demand().key_id(&arn).send().await)?;
    Ok(arn)
}

/// Finds the ARN of the key. That of an alias is asked for each time: an alias may be moved.
pub async fn current(client: &Client, key: &KeyName) -> Result<String> {
    match key {
        KeyName::Arn { arn, .. } => Ok(arn.clone()),
        _ => key_arn("DescribeKey", describe(client, &key.to_string()).await?.arn),
    }
}

/// Makes a key with the policy of the present one, so that rotation gives nobody more or less than before, and moves the alias.
async fn new_key(client: &Client, key: &KeyName, alias: &str) -> Result<String> {
    let old = current(client, key).await?;
    let request = client.get_key_policy().key_id(&old).policy_name(POLICY);
    let policy = told("GetKeyPolicy", &old, request.send().await)?.policy;
    let policy = policy.ok_or_else(|| no_sense("GetKeyPolicy", "holds no policy"))?;
    let request = client.create_key().key_spec(KeySpec::SymmetricDefault).key_usage(KeyUsageType::EncryptDecrypt);
    let request = request.description(format!("strongroom: {alias}, after {old}")).policy(policy);
    let made = told("CreateKey", alias, request.send().await)?.key_metadata;
    let made = made.ok_or_else(|| no_sense("CreateKey", "holds no metadata"))?;
    let (id, new) = (made.key_id, key_arn("CreateKey", made.arn)?);
    settled(|| async {
        told("UpdateAlias", alias, client.update_alias().alias_name(alias).target_key_id(&id).send().await)
    })
    .await
    .map_err(|error| left_over(error, &new))?;
    Ok(new)
}

/// Repeats a request that names a key made a moment ago, as long as the service does not find it yet or has too much to do.
pub async fn settled<T, F: Future<Output = Result<T>>>(request: impl Fn() -> F) -> Result<T> {
    let mut wait = FIRST_WAIT;
    for _ in 1..TRIES {
        match request().await {
            Err(error) if matches!(error.kms_fault(), Some(KmsFault::NotFound | KmsFault::Throttled(_))) => {
                tokio::time::sleep(wait).await;
            }
            answer => return answer,
        }
        wait *= 2;
    }
    request().await
}
