//! Tests of the `aws` provider: on the emulator where it does what AWS documents, and with recorded answers in the service's
//! documented form where it does not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod answers;
mod credentials;
mod keys;
mod process;
mod service;
mod transport;
mod wrapping;

use std::sync::Arc;

use aws_config::{BehaviorVersion, ConfigLoader};
use aws_sdk_kms::config::Credentials;

use super::*;
use crate::kms::Setting;
use crate::kms::contract;
use crate::kms::emulator::Emulator;

/// A key of the account that the recorded answers are about.
const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const SECRET_ACCESS_KEY: &str = "SecretAccessKeyThatNoErrorMayShow";
const SESSION_TOKEN: &str = "SessionTokenThatNoErrorMayShow";

/// Settings without the chain of this machine: fixed credentials.
fn defaults() -> ConfigLoader {
    let credentials = Credentials::new("AKIATEST", SECRET_ACCESS_KEY, Some(SESSION_TOKEN.to_owned()), None, "test");
    aws_config::defaults(BehaviorVersion::v2026_01_12()).credentials_provider(credentials)
}

fn settings(port: u16, key: &str) -> Settings {
    // Much time: the emulator may make RSA keys on a machine that has other work.
    let settings = Settings::new("prod", KIND).with("timeout_seconds", Setting::Number(60));
    let settings = settings.with("key", Setting::Text(key.to_owned()));
    settings.with("endpoint", Setting::Text(format!("http://127.0.0.1:{port}")))
}

/// Opens a provider whose service listens on a port; the region is that of the emulator.
fn on_port(port: u16, key: &str) -> AwsKms {
    let settings = settings(port, key);
    let settings =
        if key.starts_with("arn:") { settings } else { settings.with("region", Setting::Text("us-east-1".to_owned())) };
    AwsKms::new(&settings, Arc::new(defaults)).unwrap()
}

/// Runs a request of the test's own.
fn admin<T: Send + 'static, F: Future<Output = T> + Send>(
    kms: &AwsKms,
    work: impl FnOnce(Client) -> F + Send + 'static,
) -> T {
    kms.connection.call(async move |client| Ok(work(client).await)).unwrap()
}

/// Makes a master key with an alias on the emulator, and opens the provider for the alias.
fn emulated(alias: &str) -> AwsKms {
    let kms = on_port(Emulator::shared("aws").port, alias);
    let alias = alias.to_owned();
    admin(&kms, async move |client: Client| {
        let made = client.create_key().send().await.unwrap().key_metadata.unwrap();
        client.create_alias().alias_name(alias).target_key_id(made.key_id).send().await.unwrap();
    });
    kms
}

/// Tells the fault of what must fail, and checks that its text shows no credential.
fn fault<T>(result: Result<T>) -> KmsFault {
    let Err(error) = result else { panic!("must fail") };
    let text = format!("{error} {error:?}");
    assert!(!text.contains(SECRET_ACCESS_KEY) && !text.contains(SESSION_TOKEN), "{text}");
    error.kms_fault().unwrap_or_else(|| panic!("an error without a fault: {error}"))
}
