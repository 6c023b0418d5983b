//! The arguments of `strongroom migrate`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::args::{Bytes, Selector, UserPin, parse_hex};
use crate::pin::PinSource;

/// What keys are moved in from.
#[derive(Debug, Subcommand)]
pub enum MigrateVerb {
    /// Moves the legacy system's records: a JSON object a line, with owner, asset, ciphertext (the secret in hexadecimal).
    #[command(after_help = "\
A record may also have public_key and address, which are checked. Each key becomes version 1 of the managed key of its \
owner and asset. The report has a JSON object for each line. Moving the same file again changes nothing.

Examples:
  strongroom migrate legacy --token wallet --dry-run records.jsonl
  strongroom migrate legacy --token wallet --report moved.jsonl records.jsonl

Exit code 6 when a record cannot be moved; the others are.")]
    Legacy(MigrateLegacyOptions),
    /// Moves Bitcoin keys in wallet import format, one in each file, to managed keys of the asset btc.
    #[command(after_help = "Examples:
  strongroom migrate wif --token wallet --owner alice alice.wif
  strongroom migrate wif --token wallet --owner-from-file keys/
  strongroom migrate wif --owner alice --pin-source file:/run/secrets/pin /dev/stdin")]
    Wif(MigrateFilesOptions),
    /// Moves Ethereum keystores (version 3), one key in each, to managed keys of the asset eth.
    #[command(after_help = "Examples:
  strongroom migrate keystore --token wallet --owner alice UTC--2024-01-01T00-00-00.0Z--7e5f
  strongroom migrate keystore --token wallet --owner-from-file \\
      --password-source file:/run/secrets/password keystore/")]
    Keystore(MigrateFilesOptions),
    /// Moves PKCS #8 files (PEM or DER, encrypted or not), one private key in each, with the certificates in the same file.
    #[command(after_help = "\
Without an owner the key becomes a plain object of PKCS #11, whose label is the file's name unless --label says another.

Examples:
  strongroom migrate pkcs8 --token wallet --label tls server.pem
  strongroom migrate pkcs8 --owner alice --asset eth --password-source env:PASSWORD alice.pem")]
    Pkcs8(MigrateFilesOptions),
    /// Moves PKCS #12 files (.p12, .pfx), one private key in each, with its certificates.
    #[command(after_help = "\
Without an owner the key becomes a plain object of PKCS #11, whose label is the name that the file gives it.

Example:
  strongroom migrate pkcs12 --token wallet server.p12")]
    Pkcs12(MigrateFilesOptions),
    #[cfg(feature = "hsm")]
    /// Moves what is on a token of SoftHSM2, or of another PKCS #11 module, through that module.
    #[command(after_help = "\
Keys that are extractable leave wrapped, and keep label, id and usages. One that is not extractable cannot be had, and \
is told as failed. Nothing on the token is changed.

Example:
  strongroom migrate softhsm --token wallet --source-token old \\
      --module /usr/lib/softhsm/libsofthsm2.so")]
    Softhsm(MigrateTokenOptions),
}

/// Where keys are moved to.
#[derive(Debug, Args)]
pub struct MigrateTo {
    #[command(flatten)]
    pub token: Selector,
    #[command(flatten)]
    pub pin: UserPin,
    /// Says what would be moved, and moves nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// The options of `migrate legacy`.
#[derive(Debug, Args)]
pub struct MigrateLegacyOptions {
    #[command(flatten)]
    pub to: MigrateTo,
    /// All or nothing: moves no record if one fails. It takes at most 10000 records.
    #[arg(long)]
    pub strict: bool,
    /// Writes a JSON object for each record to this new file.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// The file of records.
    pub file: PathBuf,
}

/// The options of verbs that move files with one key each.
#[derive(Debug, Args)]
pub struct MigrateFilesOptions {
    #[command(flatten)]
    pub to: MigrateTo,
    /// Whose managed key it becomes.
    #[arg(long, conflicts_with = "owner_from_file")]
    pub owner: Option<String>,
    /// Makes managed keys, each of the owner that its file's name without extension is.
    #[arg(long)]
    pub owner_from_file: bool,
    /// The asset of the managed key, where it is not to follow from the key.
    #[arg(long)]
    pub asset: Option<String>,
    /// The label of the plain object (CKA_LABEL).
    #[arg(long)]
    pub label: Option<String>,
    /// The id of the plain object (CKA_ID) in hexadecimal; without it, a digest of the public key.
    #[arg(long, value_name = "HEX", value_parser = parse_hex)]
    pub id: Option<Bytes>,
    /// Where the password of the files comes from: prompt (asked for each file), env:NAME, file:PATH or stdin (one line).
    #[arg(long, value_name = "SOURCE", default_value = "prompt")]
    pub password_source: PinSource,
    /// The files, or folders of files.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
}

/// The options of `migrate softhsm`.
#[cfg(feature = "hsm")]
#[derive(Debug, Args)]
pub struct MigrateTokenOptions {
    #[command(flatten)]
    pub to: MigrateTo,
    /// The PKCS #11 module of the token that keys come from.
    #[arg(long, value_name = "FILE")]
    pub module: PathBuf,
    /// The label of the token that keys come from.
    #[arg(long, value_name = "LABEL")]
    pub source_token: Option<String>,
    /// The serial number of the token that keys come from.
    #[arg(long, value_name = "SERIAL")]
    pub source_serial: Option<String>,
    /// Where its user PIN comes from: prompt, env:NAME, file:PATH or stdin (one line).
    #[arg(long, value_name = "SOURCE", default_value = "prompt")]
    pub source_pin_source: PinSource,
    /// Makes managed keys, each of the owner that the key's label is.
    #[arg(long)]
    pub managed: bool,
}
