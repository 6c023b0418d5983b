//! The command `strongroom`: set up tokens, make keys and rotate them, look at both, back them up, and find out what is wrong.

mod argon2;
mod args;
mod audit;
mod backup;
mod completions;
mod doctor;
mod failure;
mod key_generate;
mod key_list;
mod key_type;
mod kms;
mod library;
mod managed;
mod migrate;
mod migrate_args;
mod output;
mod password;
mod pin;
mod recovery;
mod rotate;
mod terminal;
mod token_info;
mod token_init;
mod token_list;

use std::process::ExitCode;

use clap::Parser;

use args::{
    Argon2Verb, Arguments, AuditVerb, BackupVerb, KeyVerb, KmsVerb, MigrateVerb, RecoveryVerb, TokenVerb, Verb,
};
use failure::Failure;
use output::Output;
use strongroom::keys::migrate::Format;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(said) => return output::of_parser(&said),
    };
    let output = Output::new(arguments.json);
    match run(&arguments, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.failure(&failure),
    }
}

/// Runs the verb that was asked for.
fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let config = arguments.config.as_deref();
    match &arguments.verb {
        Verb::Token(TokenVerb::Init(options)) => token_init::run(config, options, output),
        Verb::Token(TokenVerb::List) => token_list::run(config, output),
        Verb::Token(TokenVerb::Info(options)) => token_info::run(config, options, output),
        Verb::Key(KeyVerb::Generate(options)) => key_generate::run(config, options, output),
        Verb::Key(KeyVerb::List(options)) => key_list::run(config, options, output),
        Verb::Key(KeyVerb::Create(options)) => managed::create(config, options, output),
        Verb::Key(KeyVerb::Versions(options)) => managed::versions(config, options, output),
        Verb::Key(KeyVerb::Rotate(options)) => managed::rotate(config, options, output),
        Verb::Key(KeyVerb::Password(options)) => password::change(config, options, output),
        Verb::Key(KeyVerb::ResetTries(options)) => password::reset(config, options, output),
        Verb::Key(KeyVerb::Test(options)) => password::test(config, options, output),
        Verb::Key(KeyVerb::State(options)) => managed::state(config, options, output),
        Verb::Key(KeyVerb::Destroy(options)) => managed::destroy(config, options, output),
        Verb::Rotate(options) => rotate::run(config, options, output),
        Verb::Migrate(MigrateVerb::Legacy(options)) => migrate::legacy(config, options, output),
        Verb::Migrate(MigrateVerb::Wif(options)) => migrate::files(config, options, Format::Wif, output),
        Verb::Migrate(MigrateVerb::Keystore(options)) => migrate::files(config, options, Format::Keystore, output),
        Verb::Migrate(MigrateVerb::Pkcs8(options)) => migrate::files(config, options, Format::Pkcs8, output),
        Verb::Migrate(MigrateVerb::Pkcs12(options)) => migrate::files(config, options, Format::Pkcs12, output),
        #[cfg(feature = "hsm")]
        Verb::Migrate(MigrateVerb::Softhsm(options)) => migrate::token(config, options, output),
        Verb::Kms(KmsVerb::List) => kms::list(config, output),
        Verb::Kms(KmsVerb::Test(options)) => kms::test(config, options, output),
        Verb::Kms(KmsVerb::Rotate(options)) => kms::rotate(config, options, output),
        Verb::Kms(KmsVerb::Move(options)) => kms::relocate(config, options, output),
        Verb::Kms(KmsVerb::Sync(options)) => kms::sync(config, options, output),
        Verb::Kms(KmsVerb::Matrix) => kms::matrix(output),
        Verb::Audit(AuditVerb::Verify(options)) => audit::verify(config, options, output),
        Verb::Audit(AuditVerb::Export(options)) => audit::export(config, options),
        Verb::Audit(AuditVerb::Show(options)) => audit::show(config, options, output),
        Verb::Argon2(Argon2Verb::Calibrate(options)) => argon2::calibrate(options, output),
        Verb::Backup(BackupVerb::Export(options)) => backup::export(config, options, output),
        Verb::Backup(BackupVerb::Inspect(options)) => backup::inspect(&options.file, output),
        Verb::Backup(BackupVerb::Verify(options)) => backup::verify(config, options, output),
        Verb::Backup(BackupVerb::Import(options)) => backup::import(config, options, output),
        Verb::Recovery(RecoveryVerb::Add(options)) => recovery::add(config, options, output),
        Verb::Recovery(RecoveryVerb::List(options)) => recovery::list(config, options, output),
        Verb::Recovery(RecoveryVerb::Remove(options)) => recovery::remove(config, options, output),
        Verb::Doctor(options) => doctor::run(config, options, output),
        Verb::Completions(options) => completions::run(options, output),
    }
}
