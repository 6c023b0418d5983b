//! The `aws` provider: AWS Key Management Service.
//!
//! The rules are:
//! - token and purpose go along as encryption context, which the service authenticates and its log shows;
//! - what wraps is what `key` names now, an alias perhaps; what unwraps is the same, or a key of its account that the alias may have led
//!   to before, and must be the one whose ARN the service told when it wrapped;
//! - one method is one request, but for rotation, unwrapping after the alias was moved, `find` of a MAC key, `list` and `generate`;
//! - the SDK never tries again by itself, and shows no text of a service that could hold a token (`aws/fault.rs`).
//!
//! `docs/kms/aws.md` says how it is set up.

mod client;
mod fault;
mod keys;
mod name;
mod rotation;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::operation::decrypt::DecryptOutput;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, EncryptionAlgorithmSpec, KeyMetadata, KeySpec};

use super::provider::{
    Context, DATA_KEY_LEN, DataKey, Description, KeyState, KmsProvider, MasterKeyId, Wrapped, other_key,
};
use super::remote::RemoteKeys;
use super::{ProviderRow, SettingRow, Settings, Shape, blob};
use crate::error::{Error, KmsFault, Result};
use crate::secret::SecureBytes;
use client::{Connection, Where};
use fault::{no_sense, told};
use name::KeyName;
use rotation::Rotation;

/// The type as the configuration and the envelopes name it.
pub const KIND: &str = "aws";

/// The row of the registry.
pub const ROW: ProviderRow = ProviderRow {
    kind: KIND,
    settings: &[
        SettingRow::required(
            "key",
            Shape::Text,
            "the master key: its id, its ARN, or an alias with `alias/` in front; a symmetric encryption key",
        ),
        SettingRow::optional(
            "region",
            Shape::Text,
            "the region (default: that of the key's ARN, of AWS_REGION, of the profile, of the instance)",
        ),
        SettingRow::optional(
            "endpoint",
            Shape::Text,
            "the URL of another endpoint, of a VPC or an emulator (default: AWS_ENDPOINT_URL_KMS, then the region's own)",
        ),
        SettingRow::optional(
            "profile",
            Shape::Text,
            "the profile of ~/.aws/config with the credentials (default: AWS_PROFILE, then the SDK's own chain)",
        ),
        SettingRow::optional(
            "ca_file",
            Shape::Path,
            "certificates in PEM that are trusted instead of the system's, for a proxy that opens TLS or an emulator",
        ),
        SettingRow::optional(
            "rotation",
            Shape::Word(&["on-demand", "new-key"]),
            "how the master key is rotated: new key material in the same key (default), or a new key behind the alias",
        ),
    ],
    remote: true,
    abilities: || &keys::ABILITIES,
    open,
};

/// How long a call may take where the configuration says nothing.
const TIMEOUT_SECONDS: u32 = 10;
/// The most bytes that AWS KMS encrypts, signs or makes a MAC of at once.
const MAX_MESSAGE: usize = 4096;
/// The names of the pairs of the encryption context.
const CONTEXT_PAIRS: [&str; 2] = ["strongroom:token", "strongroom:purpose"];

/// Opens the provider of a configuration.
fn open(settings: &Settings) -> Result<Arc<dyn KmsProvider>> {
    Ok(Arc::new(AwsKms::new(settings, Arc::new(client::defaults))?))
}

/// A key of AWS KMS that wraps, and the keys of its account that sign.
struct AwsKms {
    name: String,
    key: KeyName,
    rotation: Rotation,
    connection: Connection,
}

impl AwsKms {
    /// Reads the settings; `defaults` is where the chain of the SDK's own settings starts.
    ///
    /// # Errors
    /// `ArgumentsBad` for a key that is no name of one, another region than the key's, and `new-key` without an alias.
    fn new(settings: &Settings, defaults: client::Defaults) -> Result<Self> {
        let wrong = |error: Error| error.context(format!("the KMS `{}`", settings.name));
        let key = KeyName::parse(settings.required_text("key")?).map_err(wrong)?;
        let rotation = Rotation::parse(settings.text("rotation"), &key)?;
        let place = Where {
            region: key.region_or(settings.text("region")).map_err(wrong)?,
            endpoint: settings.text("endpoint").map(str::to_owned),
            profile: settings.text("profile").map(str::to_owned),
            ca_file: settings.path("ca_file").map(ToOwned::to_owned),
        };
        let deadline = Duration::from_secs(settings.number("timeout_seconds").unwrap_or(TIMEOUT_SECONDS).into());
        let connection = Connection::new(place, deadline, defaults);
        Ok(Self { name: settings.name.clone(), key, rotation, connection })
    }
}

impl KmsProvider for AwsKms {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn wrap_key(&self, secret: &SecureBytes, context: &Context<'_>) -> Result<Wrapped> {
        if secret.len() > MAX_MESSAGE {
            let text =
                format!("AWS KMS encrypts at most {MAX_MESSAGE} bytes at once, and the secret has {}", secret.len());
            return Err(Error::kms(KmsFault::Unsupported, text));
        }
        let (key, plaintext, pairs) = (self.key.to_string(), Blob::new(secret.expose()), pairs(context));
        let answer = self.connection.call(async move |client: Client| {
            let request = client.encrypt().key_id(&key).plaintext(plaintext).set_encryption_context(Some(pairs));
            let request = request.encryption_algorithm(EncryptionAlgorithmSpec::SymmetricDefault);
            told("Encrypt", &key, request.send().await)
        })?;
        wrapped("Encrypt", answer.key_id, answer.ciphertext_blob, context)
    }

    fn unwrap_key(&self, wrapped: &Wrapped, context: &Context<'_>) -> Result<SecureBytes> {
        let decryption = Decryption {
            ciphertext: Blob::new(blob::unframe(&wrapped.blob, context)?),
            pairs: pairs(context),
            asked: wrapped.master_key.clone(),
            section: self.name.clone(),
        };
        if !self.key.may_be(&wrapped.master_key.key) {
            return Err(decryption.other_key(&self.key));
        }
        let key = self.key.clone();
        let answer = self.connection.call(async move |client: Client| decryption.run(&client, &key).await)?;
        let secret = secret("Decrypt", answer.plaintext)?;
        match answer.key_id {
            Some(key) if name::is_same_key(&key, &wrapped.master_key.key) => Ok(secret),
            _ => Err(no_sense("Decrypt", "names another key than the one that was asked")),
        }
    }

    fn generate_data_key(&self, context: &Context<'_>) -> Result<DataKey> {
        let (key, pairs) = (self.key.to_string(), pairs(context));
        let answer = self.connection.call(async move |client: Client| {
            let request = client.generate_data_key().key_id(&key).set_encryption_context(Some(pairs));
            told("GenerateDataKey", &key, request.key_spec(DataKeySpec::Aes256).send().await)
        })?;
        let key = secret("GenerateDataKey", answer.plaintext)?;
        if key.len() != DATA_KEY_LEN {
            return Err(no_sense("GenerateDataKey", "holds a key of another length than was asked for"));
        }
        Ok(DataKey { key, wrapped: wrapped("GenerateDataKey", answer.key_id, answer.ciphertext_blob, context)? })
    }

    fn rotate_master_key(&self) -> Result<MasterKeyId> {
        let (rotation, key) = (self.rotation.clone(), self.key.clone());
        let arn = self.connection.call(async move |client| rotation.run(&client, &key).await)?;
        Ok(MasterKeyId { key: arn, version: 0 })
    }

    fn describe(&self) -> Result<Description> {
        let key = self.key.to_string();
        let metadata = self.connection.call(async move |client| describe(&client, &key).await)?;
        if metadata.key_spec != Some(KeySpec::SymmetricDefault) {
            let kind = metadata.key_spec.as_ref().map_or("another kind of key", KeySpec::as_str);
            let text = format!("the key `{}` is {kind}; a master key must be SYMMETRIC_DEFAULT", self.key);
            return Err(Error::kms(KmsFault::Unsupported, text));
        }
        Ok(Description {
            version: version(&metadata),
            state: state(&metadata),
            algorithms: metadata.encryption_algorithms().iter().map(|name| name.as_str().to_owned()).collect(),
            master_key: MasterKeyId { key: key_arn("DescribeKey", metadata.arn)?, version: 0 },
        })
    }

    fn remote_keys(&self) -> Option<&dyn RemoteKeys> {
        Some(self)
    }
}

/// What is unwrapped.
struct Decryption {
    ciphertext: Blob,
    pairs: HashMap<String, String>,
    /// The key that the blob names.
    asked: MasterKeyId,
    section: String,
}

impl Decryption {
    /// Decrypts with the key of the settings. Where that is an alias which leads elsewhere by now, a key of the same account and
    /// region may be one that it led to before: two requests more.
    async fn run(&self, client: &Client, key: &KeyName) -> Result<DecryptOutput> {
        let asked = &self.asked.key;
        let error = match (key.alias(), self.decrypt(client, &key.to_string()).await) {
            (Some(_), Err(error)) if error.kms_fault() == Some(KmsFault::Tampered) => error,
            (_, answer) => return answer,
        };
        let now = rotation::current(client, key).await.map_err(|denied| denied.context(&error))?;
        match name::of_one_account(&now, asked) {
            true if now == *asked => Err(error),
            true => self.decrypt(client, asked).await,
            false => Err(self.other_key(key)),
        }
    }

    async fn decrypt(&self, client: &Client, key: &str) -> Result<DecryptOutput> {
        let request = client.decrypt().key_id(key).ciphertext_blob(self.ciphertext.clone());
        let request = request.set_encryption_context(Some(self.pairs.clone()));
        let request = request.encryption_algorithm(EncryptionAlgorithmSpec::SymmetricDefault);
        told("Decrypt", key, request.send().await)
    }

    fn other_key(&self, key: &KeyName) -> Error {
        other_key(&self.section, &self.asked, format_args!("`{key}`"))
    }
}

/// Makes the encryption context of a request.
fn pairs(context: &Context<'_>) -> HashMap<String, String> {
    CONTEXT_PAIRS
        .into_iter()
        .zip([context.token, context.purpose])
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// Puts together what a wrapping answer says.
fn wrapped(operation: &str, key: Option<String>, ciphertext: Option<Blob>, context: &Context<'_>) -> Result<Wrapped> {
    let master_key = MasterKeyId { key: key_arn(operation, key)?, version: 0 };
    let ciphertext = ciphertext.ok_or_else(|| no_sense(operation, "holds no ciphertext"))?;
    Ok(Wrapped { master_key, blob: blob::frame(context, ciphertext.as_ref())? })
}

/// Takes a secret out of an answer, and wipes the SDK's copy.
fn secret(operation: &str, plaintext: Option<Blob>) -> Result<SecureBytes> {
    let plaintext = plaintext.ok_or_else(|| no_sense(operation, "holds no plaintext"))?;
    Ok(SecureBytes::take(plaintext.into_inner()))
}

/// Asks for the metadata of a key.
async fn describe(client: &Client, key: &str) -> Result<KeyMetadata> {
    let answer = told("DescribeKey", key, client.describe_key().key_id(key).send().await)?;
    answer.key_metadata.ok_or_else(|| no_sense("DescribeKey", "holds no metadata"))
}

/// Checks that what an answer names is the ARN of a key and no alias: envelopes keep it.
fn key_arn(operation: &str, key: Option<String>) -> Result<String> {
    key.filter(|key| matches!(KeyName::parse(key), Ok(KeyName::Arn { .. })))
        .ok_or_else(|| no_sense(operation, "names no key by its ARN"))
}

/// Tells the version: AWS KMS gives no numbers, but each key material has an id, where the service tells it.
fn version(metadata: &KeyMetadata) -> String {
    match metadata.current_key_material_id() {
        Some(id) => format!("key material {id}"),
        None => "not told by the service".to_owned(),
    }
}

/// Tells whether a key can be used.
fn state(metadata: &KeyMetadata) -> KeyState {
    use aws_sdk_kms::types::KeyState as State;
    match &metadata.key_state {
        Some(State::Enabled) => KeyState::Enabled,
        Some(State::Disabled) => KeyState::Disabled,
        Some(State::PendingDeletion | State::PendingReplicaDeletion) => KeyState::PendingDeletion,
        Some(other) => KeyState::Other(other.as_str().to_owned()),
        None => KeyState::Other("unknown".to_owned()),
    }
}
