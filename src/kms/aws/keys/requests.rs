//! What finding, listing and making keys asks of the service.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_kms::Client;
use aws_sdk_kms::operation::create_alias::CreateAliasError;
use aws_sdk_kms::operation::get_public_key::GetPublicKeyOutput;
use aws_sdk_kms::types::KeySpec as Spec;
use aws_sdk_kms::types::{KeyMetadata, KeyUsageType};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Row, uses};
use crate::error::{Error, KmsFault, Result};
use crate::kms::aws::fault::{no_sense, told};
use crate::kms::aws::name::{ALIAS, KeyName, alias_of};
use crate::kms::aws::rotation::settled;
use crate::kms::aws::{describe, key_arn, state};
use crate::kms::provider::KeyState;
use crate::kms::provider::left_over;
use crate::kms::remote::{KeySpec, RemoteKey};

/// How many keys are asked for at once while listing.
const AT_ONCE: usize = 8;
/// The most keys in one answer to ListKeys.
const PAGE: i32 = 1000;
/// How many characters of its id tell a key from another of the same label.
const SUFFIX: usize = 8;

/// Finds a key by its name: two requests at once. Either may be denied: GetPublicKey for a MAC key, which has none, and
/// DescribeKey for any other, of which only the state stays unknown until it is used.
pub async fn find(client: &Client, name: &KeyName) -> Result<RemoteKey> {
    let id = name.to_string();
    match tokio::join!(public_key(client, &id, name.label()), describe(client, &id)) {
        (Ok(key), Ok(metadata)) => usable(&id, &metadata).map(|()| key),
        (Ok(key), Err(error)) if error.kms_fault() == Some(KmsFault::Denied) => Ok(key),
        (Ok(_), Err(error)) => Err(error),
        (Err(_), Ok(metadata)) if metadata.key_usage == Some(KeyUsageType::GenerateVerifyMac) => {
            usable(&id, &metadata)?;
            from_metadata(metadata, name.label())
        }
        (Err(error), Err(second)) if error.kms_fault() == Some(KmsFault::Unsupported) => Err(second),
        (Err(error), _) => Err(error),
    }
}

/// Refuses a key that is not enabled.
fn usable(key: &str, metadata: &KeyMetadata) -> Result<()> {
    match state(metadata) {
        KeyState::Enabled => Ok(()),
        state => {
            let text = format!("the key `{key}` is {}; enable it, or name another", state.name());
            Err(Error::kms(KmsFault::Disabled, text))
        }
    }
}

/// Asks for a public key and what comes with it: all but the state, for AWS answers for disabled keys, too.
async fn public_key(client: &Client, key: &str, label: &str) -> Result<RemoteKey> {
    let answer = told("GetPublicKey", key, client.get_public_key().key_id(key).send().await)?;
    let spec = row("GetPublicKey", key, answer.key_spec())?.spec;
    check_use(key, answer.key_usage())?;
    let GetPublicKeyOutput { key_id, public_key, key_usage, .. } = answer;
    Ok(RemoteKey {
        id: key_arn("GetPublicKey", key_id)?,
        label: label.to_owned(),
        spec,
        uses: uses(key_usage.as_ref()),
        state: KeyState::Enabled,
        public: Some(public_key.ok_or_else(|| no_sense("GetPublicKey", "holds no public key"))?.into_inner()),
    })
}

/// Makes a MAC key of its metadata.
fn from_metadata(metadata: KeyMetadata, label: &str) -> Result<RemoteKey> {
    let spec = row("DescribeKey", label, metadata.key_spec.as_ref())?.spec;
    let (uses, state) = (uses(metadata.key_usage.as_ref()), state(&metadata));
    Ok(RemoteKey {
        id: key_arn("DescribeKey", metadata.arn)?,
        label: label.to_owned(),
        spec,
        uses,
        state,
        public: None,
    })
}

/// Finds the row of what an answer says a key is.
fn row(operation: &str, key: &str, spec: Option<&Spec>) -> Result<&'static Row> {
    let spec = spec.ok_or_else(|| no_sense(operation, "does not say what the key is"))?;
    Row::named(spec.as_str()).ok_or_else(|| {
        let text = format!("the key `{}` is {}, which cannot be used from here", key.escape_debug(), spec.as_str());
        Error::kms(KmsFault::Unsupported, text)
    })
}

/// Refuses a key that neither signs nor decrypts, such as one for key agreement.
fn check_use(key: &str, usage: Option<&KeyUsageType>) -> Result<()> {
    if uses(usage).sign || uses(usage).decrypt {
        return Ok(());
    }
    let usage = usage.map_or("nothing", KeyUsageType::as_str);
    let text = format!("the key `{}` is for {usage}, which cannot be done from here", key.escape_debug());
    Err(Error::kms(KmsFault::Unsupported, text))
}

/// Lists the keys that can be used here: ListKeys and ListAliases, then one or two requests for each key.
pub async fn list(client: Client) -> Result<Vec<RemoteKey>> {
    let (ids, labels) = (ids(&client).await?, labels(&client).await?);
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for id in ids {
        let (client, gate) = (client.clone(), gate.clone());
        let label = labels.get(&id).cloned().unwrap_or_else(|| id.clone());
        tasks.spawn(async move {
            let _turn = gate.acquire_owned().await;
            listed(&client, &id, &label).await
        });
    }
    let mut keys = Vec::new();
    while let Some(answer) = tasks.join_next().await {
        match answer.map_err(|error| Error::internal("a task of a listing ended early").caused_by(error))? {
            Ok(key) => keys.extend(key),
            // What may pass would leave out a key that can be used.
            Err(error) if error.kms_fault().is_some_and(KmsFault::may_pass) => return Err(error),
            Err(_) => {}
        }
    }
    keys.sort_by(|one, other| (&one.label, &one.id).cmp(&(&other.label, &other.id)));
    Ok(keys)
}

/// Describes one key of a listing; `None` for one that cannot be used here.
async fn listed(client: &Client, id: &str, label: &str) -> Result<Option<RemoteKey>> {
    let metadata = describe(client, id).await?;
    let row = metadata.key_spec.as_ref().and_then(|spec| Row::named(spec.as_str()));
    match row.map(|row| row.spec) {
        _ if state(&metadata) != KeyState::Enabled => Ok(None),
        None => Ok(None),
        Some(KeySpec::Hmac(_)) => from_metadata(metadata, label).map(Some),
        Some(_) => public_key(client, id, label).await.map(Some),
    }
}

/// Lists the ids of all keys.
async fn ids(client: &Client) -> Result<Vec<String>> {
    let mut pages = client.list_keys().limit(PAGE).into_paginator().items().send();
    let mut ids = Vec::new();
    while let Some(entry) = pages.next().await {
        ids.extend(told("ListKeys", "*", entry)?.key_id);
    }
    Ok(ids)
}

/// Lists the labels by id; without the permission there are none, and the ids stand in for them.
async fn labels(client: &Client) -> Result<HashMap<String, String>> {
    let mut pages = client.list_aliases().into_paginator().items().send();
    let mut labels = HashMap::new();
    while let Some(entry) = pages.next().await {
        let entry = match told("ListAliases", "*", entry) {
            Err(error) if error.kms_fault() == Some(KmsFault::Denied) => break,
            entry => entry?,
        };
        if let (Some(id), Some(alias)) = (entry.target_key_id, entry.alias_name) {
            labels.entry(id).or_insert_with(|| alias.strip_prefix(ALIAS).unwrap_or(&alias).to_owned());
        }
    }
    Ok(labels)
}

/// Makes a key, gives it an alias, and asks what it is: three requests.
pub async fn generate(client: &Client, row: &Row, label: &str) -> Result<RemoteKey> {
    let request = client.create_key().key_spec(Spec::from(row.name)).key_usage(row.usage());
    let made = told("CreateKey", label, request.description(format!("strongroom: {label}")).send().await)?;
    let metadata = made.key_metadata.ok_or_else(|| no_sense("CreateKey", "holds no metadata"))?;
    let arn = key_arn("CreateKey", metadata.arn.clone())?;
    let alias = name(client, &arn, label).await.map_err(|error| left_over(error, &arn))?;
    let label = alias.strip_prefix(ALIAS).unwrap_or(&alias);
    if row.mac.is_some() {
        return from_metadata(metadata, label);
    }
    settled(|| public_key(client, &arn, label)).await.map_err(|error| left_over(error, &arn))
}

/// Gives a new key its alias: one of the label, with a part of the key's id behind it where another key has that already.
async fn name(client: &Client, arn: &str, label: &str) -> Result<String> {
    let plain = alias_of(label, SUFFIX + 1);
    if settled(|| create_alias(client, arn, &plain)).await? {
        return Ok(plain);
    }
    let id: String = arn.rsplit('/').next().unwrap_or_default().chars().take(SUFFIX).collect();
    let alias = format!("{plain}-{id}");
    if create_alias(client, arn, &alias).await? {
        return Ok(alias);
    }
    Err(Error::kms(
        KmsFault::Failed,
        format!("both aliases `{plain}` and `{alias}` belong to other keys; take another label"),
    ))
}

/// Makes an alias; `false` where another key has it.
async fn create_alias(client: &Client, arn: &str, alias: &str) -> Result<bool> {
    let answer = client.create_alias().alias_name(alias).target_key_id(arn).send().await;
    match &answer {
        Err(error) if error.as_service_error().is_some_and(CreateAliasError::is_already_exists_exception) => Ok(false),
        _ => told("CreateAlias", alias, answer).map(|_| true),
    }
}
