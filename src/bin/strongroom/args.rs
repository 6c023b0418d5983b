//! The arguments of the command. A PIN is never one of them: arguments can be read by every user of the machine.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::key_type::KeyType;
pub use crate::migrate_args::*;
use crate::pin::PinSource;

/// What stands below the help of the command as a whole.
const EXAMPLES: &str = "\
Examples:
  strongroom token init --label wallet
  strongroom key generate --token wallet --type ed25519 --label node-1
  strongroom key list --token wallet
  strongroom key create --token wallet --owner alice --asset btc
  strongroom rotate --due --token wallet
  strongroom migrate pkcs8 --token wallet server.pem
  strongroom kms test prod
  strongroom audit verify --token wallet
  strongroom backup export --token wallet --to wallet.backup
  strongroom doctor --token wallet --sign

Exit codes:
  0  done
  1  failed, or `doctor` or `audit verify` found a fault
  2  the arguments are wrong
  3  no token, key or KMS fits the selector, or more than one does
  4  the PIN is wrong, locked, or breaks the password rules
  5  `rotate` leaves keys that are due
  6  `migrate` leaves records that cannot be moved
  7  `rotate --warn-days` finds keys that will be due

Files:
  The configuration is --config, else STRONGROOM_CONFIG, else
  $XDG_CONFIG_HOME/strongroom/strongroom.toml (~/.config), else
  /etc/strongroom/strongroom.toml. Without one, the database is
  $XDG_DATA_HOME/strongroom/strongroom.db (~/.local/share).
  STRONGROOM_LOG=error|warn|info|debug|trace sets what is logged to stderr.";

/// Sets up and looks after the tokens of libstrongroom.so: keys that programs use and never see.
#[derive(Debug, Parser)]
#[command(name = "strongroom", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Arguments {
    /// Reads this configuration file instead of the usual ones.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<String>,
    /// Writes JSON instead of text, errors included.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Makes tokens and shows them.
    #[command(subcommand)]
    Token(TokenVerb),
    /// Makes keys and shows them.
    #[command(subcommand)]
    Key(KeyVerb),
    /// Rotates the managed keys of a token that are due.
    #[command(after_help = "\
Keys whose rules say auto_rotate = false are told and left; `strongroom key rotate` rotates them. Any number of \
processes and machines may run this at once: each key is rotated once.

Examples:
  strongroom rotate --due --token wallet --pin-source file:/run/secrets/pin
  strongroom --json rotate --due --dry-run
  strongroom rotate --due --dry-run --warn-days 30

Exit code 5 when keys are due still, or could not be rotated; 7 when none is, and with --warn-days some will be \
within so many days. strongroom-rotate.timer of systemd runs it once a day.")]
    Rotate(RotateOptions),
    /// Moves keys in from other systems: their records, files and tokens.
    #[command(subcommand)]
    Migrate(MigrateVerb),
    /// Looks after the KMS providers and the master keys of tokens.
    #[command(subcommand)]
    Kms(KmsVerb),
    /// Verifies, exports and shows the audit trail of a token.
    #[command(subcommand)]
    Audit(AuditVerb),
    /// Tells what Argon2id may cost.
    #[command(subcommand)]
    Argon2(Argon2Verb),
    /// Writes backups of tokens and keys, verifies and restores them.
    #[command(subcommand)]
    Backup(BackupVerb),
    /// Looks after what opens a token's backups when its KMS or its PINs are lost.
    #[command(subcommand)]
    Recovery(RecoveryVerb),
    /// Checks configuration, permissions, store, master keys and tokens; with --sign also every object and a signature.
    #[command(after_help = "Examples:
  strongroom doctor
  strongroom doctor --json
  strongroom doctor --repair
  strongroom doctor --token wallet --sign --pin-source file:/run/secrets/pin

Exit code 1 when a line says `fail`; a `warn` alone is exit code 0.")]
    Doctor(DoctorOptions),
    /// Writes what a shell needs to complete the arguments of this command.
    #[command(after_help = "\
`make install` puts those of bash, fish and zsh where these look for them.

Example:
  strongroom completions bash > ~/.local/share/bash-completion/completions/strongroom")]
    Completions(CompletionsOptions),
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenVerb {
    /// Makes a token in the free slot, with an SO PIN and a user PIN.
    #[command(after_help = "\
The SO (security officer) PIN administers the token: it sets a new user PIN when that is lost or locked. \
The user PIN uses the keys. There is no way to open a token without one of them, so keep both.

Examples:
  strongroom token init --label wallet
  strongroom token init --label ci --so-pin-source env:SO_PIN --pin-source env:USER_PIN
  printf '%s\\n%s\\n' \"$SO\" \"$USER_PIN\" | \\
      strongroom token init --label ci --so-pin-source stdin --pin-source stdin")]
    Init(TokenInitOptions),
    /// Lists the tokens.
    List,
    /// Shows one token.
    #[command(after_help = "Example:\n  strongroom token info --token wallet")]
    Info(Selector),
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// Makes a key that never leaves the token, and shows its public half.
    #[command(after_help = "Examples:
  strongroom key generate --token wallet --type secp256k1 --label node-1
  strongroom key generate --token wallet --type rsa3072 --label tls --id 0a01 --pin-source stdin")]
    Generate(KeyGenerateOptions),
    /// Lists the keys of a token; without --public it asks for the user PIN, since private keys show after login only.
    #[command(after_help = "Examples:
  strongroom key list --token wallet
  strongroom key list --public --json")]
    List(KeyListOptions),
    /// Makes a managed key: an owner's key of an asset, with versions and rules for its rotation.
    #[command(after_help = "\
Assets: btc, eth, sol, secp256k1, p256, p384, p521, ed25519, rsa2048, rsa3072, rsa4096, aes128, aes256. \
With a password, each use of the key asks for it, and nobody can open the key without it.

Examples:
  strongroom key create --token wallet --owner alice --asset btc
  strongroom key create --token wallet --owner alice --asset eth --password-source prompt")]
    Create(KeyCreateOptions),
    /// Lists the versions of a managed key.
    #[command(after_help = "Example:\n  strongroom key versions --token wallet --owner alice --asset btc")]
    Versions(KeyVersionsOptions),
    /// Makes a new version of a managed key; the old one goes on verifying and decrypting.
    #[command(after_help = "Examples:
  strongroom key rotate --token wallet --owner alice --asset btc
  strongroom key rotate --token wallet --owner alice --asset btc --expected 3
  strongroom key rotate --owner alice --asset eth --old-password-source env:OLD \\
      --new-password-source env:NEW

A key with a password needs it; without a new one, the new version is under the same. Older versions stay under the \
passwords that they had. A key without a password gets one with --new-password-source alone.")]
    Rotate(KeyRotateOptions),
    /// Gives a managed key another password.
    #[command(after_help = "\
Every version that the old password opens is under the new one then, all of them or none. Copies of the database that were \
made before still open with the old one. From standard input, the PIN comes first, then the old and the new password.

Example:
  strongroom key password --token wallet --owner alice --asset eth")]
    Password(KeyPasswordOptions),
    /// Lets a managed key be tried again that is locked after wrong passwords; for the SO. The password stays what it is.
    #[command(after_help = "Example:\n  strongroom key reset-tries --token wallet --owner alice --asset eth")]
    ResetTries(KeyResetOptions),
    /// Signs with a managed key and verifies, or encrypts and decrypts: proof that it works, and that its password opens it.
    #[command(after_help = "Examples:
  strongroom key test --token wallet --owner alice --asset btc
  strongroom key test --owner alice --asset eth --number 1 --password-source prompt")]
    Test(KeyTestOptions),
    /// Changes the state of a version: the latest is active or disabled, an older one rotated or disabled.
    #[command(after_help = "Example:
  strongroom key state --token wallet --owner alice --asset btc --number 2 --state disabled")]
    State(KeyStateOptions),
    /// Destroys a version for good. It must not be active.
    #[command(after_help = "\
What the version encrypted can never be decrypted again. The confirmation is its unique id, as `key versions` shows it.

Example:
  strongroom key destroy --owner alice --asset aes256 --number 1 --confirm 0f3c...")]
    Destroy(KeyDestroyOptions),
}

/// What to do with a KMS.
#[derive(Debug, Subcommand)]
pub enum KmsVerb {
    /// Lists the providers of the configuration.
    List,
    /// Asks a provider how it is, wraps and unwraps with it, and tells how long each took.
    #[command(after_help = "Example:\n  strongroom kms test prod")]
    Test(KmsTestOptions),
    /// Makes a new version of a token's master key in its KMS, and wraps the token under it.
    #[command(after_help = "\
What was wrapped before still opens, and no key of the token changes. It takes two requests, at any number of keys.

Example:
  strongroom kms rotate --token wallet")]
    Rotate(KmsTokenOptions),
    /// Moves a token to another provider of the configuration.
    #[command(after_help = "\
The old provider is needed only for this. Killed meanwhile, it leaves the token where it was.

Example:
  strongroom kms move --token wallet --to prod")]
    Move(KmsMoveOptions),
    /// Looks for new keys in the KMS of a token whose keys live there.
    #[command(after_help = "Example:\n  strongroom kms sync --token cloud")]
    Sync(KmsTokenOptions),
    /// Lists what each type of provider can do with keys that live there.
    #[command(after_help = "Example:\n  strongroom --json kms matrix")]
    Matrix,
}

/// What to do with an audit trail.
#[derive(Debug, Subcommand)]
pub enum AuditVerb {
    /// Verifies the trail from its first record: nothing altered, cut out, inserted or exchanged. Exit code 1 for a fault.
    #[command(after_help = "\
The user PIN opens the token key, under which records are signed; with --chain-only none is asked for, and a trail that somebody made \
anew would pass. Nothing in a database shows that all of it is an old copy: keep the head that is told, and give it to --expect the \
next time, or hold a copy that a file sink kept against it.

Examples:
  strongroom audit verify --token wallet
  strongroom audit verify --token wallet --pin-source env:PIN --expect 1204:6f1c…
  strongroom audit verify --token wallet --copy /var/log/strongroom/audit.jsonl")]
    Verify(AuditVerifyOptions),
    /// Writes the trail to standard output, one JSON object a line.
    #[command(after_help = "Example:\n  strongroom audit export --token wallet --after 1204")]
    Export(AuditExportOptions),
    /// Shows the last records.
    #[command(after_help = "Example:\n  strongroom audit show --token wallet --last 50")]
    Show(AuditShowOptions),
}

/// The options of `audit verify`.
#[derive(Debug, Args)]
pub struct AuditVerifyOptions {
    #[command(flatten)]
    pub token: Selector,
    /// Checks the chain without the token key, and so no signature.
    #[arg(long)]
    pub chain_only: bool,
    /// The head that an earlier verification told; it must still be there.
    #[arg(long, value_name = "NUMBER:HASH")]
    pub expect: Option<String>,
    /// A copy that a file sink kept: each of its lines must be that of its record, and none may be missing between them.
    #[arg(long, value_name = "FILE")]
    pub copy: Option<PathBuf>,
    #[command(flatten)]
    pub pin: UserPin,
}

/// The options of `audit export`.
#[derive(Debug, Args)]
pub struct AuditExportOptions {
    #[command(flatten)]
    pub token: Selector,
    /// Starts after the record of this number.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub after: u64,
}

/// The options of `audit show`.
#[derive(Debug, Args)]
pub struct AuditShowOptions {
    #[command(flatten)]
    pub token: Selector,
    /// How many records.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub last: u64,
}

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub enum BackupVerb {
    /// Writes a backup of a token, of an owner's managed keys, or of one managed key, while the token is in use.
    #[command(after_help = "\
The file holds sealed records and no plaintext. It opens with the KMS key that it names and a PIN of the token, and with \
each recovery envelope that the token had. The SO can write it as well as the user, and cannot use a key by that.

Examples:
  strongroom backup export --token wallet --to /backup/wallet-2026-01-31
  strongroom backup export --token wallet --to nightly --overwrite \\
      --so-pin-source file:/run/secrets/so-pin
  strongroom backup export --token wallet --owner alice --asset btc --to alice-btc
  strongroom backup export --token wallet --to - | ssh vault 'cat > wallet.backup'")]
    Export(BackupExportOptions),
    /// Shows what a backup says of itself: which token, how many records, which KMS key opens it. It needs no secret.
    #[command(after_help = "Example:\n  strongroom backup inspect /backup/wallet-2026-01-31")]
    Inspect(BackupInspectOptions),
    /// Proves that a backup would restore, without restoring: opens every record, and asks its KMS.
    #[command(after_help = "\
Without other options it asks for the user PIN, or the SO PIN, that the token had when the backup was made. It is how a \
recovery is rehearsed, too: give the password or the shares, on a machine that has no access to the KMS.

Examples:
  strongroom backup verify /backup/wallet-2026-01-31
  strongroom backup verify nightly --share-file a.txt --share-file b.txt --share-file c.txt
  strongroom --json backup verify nightly --password-source file:/run/secrets/recovery")]
    Verify(BackupVerifyOptions),
    /// Restores a backup: a whole token into a store that has none of it, or keys into a token.
    #[command(after_help = "\
All of it is one transaction; a second time changes nothing. Without --replace and --remove, nothing that is there is \
touched, and a difference is an error that names it. If the configuration names another KMS for the token, the token is \
under that one from then on.

Examples:
  strongroom backup import /backup/wallet-2026-01-31
  strongroom backup import nightly --into wallet --owner alice --asset btc
  strongroom backup import nightly --share-file a.txt --share-file b.txt \\
      --new-so-pin-source prompt --new-pin-source prompt")]
    Import(BackupImportOptions),
}

/// What to do with recovery envelopes.
#[derive(Debug, Subcommand)]
pub enum RecoveryVerb {
    /// Adds a recovery envelope, which every backup from then on carries.
    #[command(after_help = "\
It opens every key of the token without its KMS and its PINs, for whoever has the password, may use that KMS, or holds \
enough shares. A password must have 16 bytes at the least, since whoever has a backup can guess at it. Each share goes \
into a file of its own in --folder, or is shown, which --json does not do.

Examples:
  strongroom recovery add --token wallet --name safe --shares 3/5 --folder /media/shares
  strongroom recovery add --token wallet --name paper --password-source prompt
  strongroom recovery add --token wallet --name other-cloud --kms second")]
    Add(RecoveryAddOptions),
    /// Lists the recovery envelopes of a token.
    #[command(after_help = "Example:\n  strongroom recovery list --token wallet")]
    List(RecoveryListOptions),
    /// Removes a recovery envelope; backups that have it already keep it.
    #[command(after_help = "Example:\n  strongroom recovery remove --token wallet --name safe")]
    Remove(RecoveryRemoveOptions),
}

/// The options of `backup export`.
#[derive(Debug, Args)]
pub struct BackupExportOptions {
    #[command(flatten)]
    pub token: Selector,
    /// Writes only the managed keys of this owner.
    #[arg(long)]
    pub owner: Option<String>,
    /// Writes only this key of the owner.
    #[arg(long, requires = "owner")]
    pub asset: Option<String>,
    /// The file to write, or - for standard output.
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// Replaces the file if it is there.
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub pin: UserPin,
    /// Logs in as SO instead, with a PIN from: prompt, env:NAME, file:PATH or stdin (one line).
    #[arg(long, value_name = "SOURCE")]
    pub so_pin_source: Option<PinSource>,
}

/// The options of `backup inspect`.
#[derive(Debug, Args)]
pub struct BackupInspectOptions {
    /// The backup.
    pub file: PathBuf,
}

/// What opens a backup.
#[derive(Debug, Args)]
pub struct BackupSecrets {
    /// Where the user PIN, or the SO PIN, of the backup comes from: prompt, env:NAME, file:PATH or stdin (one line).
    #[arg(long, value_name = "SOURCE", default_value = "prompt")]
    pub pin_source: PinSource,
    /// Opens it by a recovery password instead, from: prompt, env:NAME, file:PATH or stdin (one line).
    #[arg(long, value_name = "SOURCE")]
    pub password_source: Option<PinSource>,
    /// Opens it by shares instead; names the file of one share, and is given once for each.
    #[arg(long = "share-file", value_name = "FILE")]
    pub share_files: Vec<PathBuf>,
    /// Opens it by so many shares instead, each asked for on the terminal.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub ask_shares: u8,
    /// Opens it by the KMS alone: of a token without a PIN, or of a recovery envelope.
    #[arg(long)]
    pub kms_alone: bool,
}

/// The options of `backup verify`.
#[derive(Debug, Args)]
pub struct BackupVerifyOptions {
    /// The backup.
    pub file: PathBuf,
    #[command(flatten)]
    pub secrets: BackupSecrets,
}

/// The options of `backup import`.
#[derive(Debug, Args)]
pub struct BackupImportOptions {
    /// The backup.
    pub file: PathBuf,
    /// Restores into the token with this label, instead of the token of the backup as a whole.
    #[arg(long, value_name = "LABEL")]
    pub into: Option<String>,
    /// Where the user PIN of that token comes from: prompt, env:NAME, file:PATH or stdin (one line).
    #[arg(long, value_name = "SOURCE", default_value = "prompt", requires = "into")]
    pub into_pin_source: PinSource,
    /// Restores only the managed keys of this owner.
    #[arg(long, requires = "into")]
    pub owner: Option<String>,
    /// Restores only this key of the owner.
    #[arg(long, requires = "owner")]
    pub asset: Option<String>,
    /// Replaces what differs.
    #[arg(long)]
    pub replace: bool,
    /// Removes what the backup does not have: later versions of its keys; with a whole token, all other objects.
    #[arg(long)]
    pub remove: bool,
    /// Tells what would be done, and changes nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub secrets: BackupSecrets,
    /// Sets the SO PIN anew, after a recovery: prompt, env:NAME, file:PATH or stdin (one line).
    #[arg(long, value_name = "SOURCE")]
    pub new_so_pin_source: Option<PinSource>,
    /// Sets the user PIN anew, after a recovery: prompt, env:NAME, file:PATH or stdin (one line).
    #[arg(long, value_name = "SOURCE")]
    pub new_pin_source: Option<PinSource>,
}

/// Which token is meant, and the PIN of its SO.
#[derive(Debug, Args)]
pub struct RecoveryToken {
    #[command(flatten)]
    pub token: Selector,
    /// Where the SO PIN comes from: prompt, env:NAME, file:PATH or stdin (one line).
    #[arg(long, value_name = "SOURCE", default_value = "prompt")]
    pub so_pin_source: PinSource,
}

/// The options of `recovery add`.
#[derive(Debug, Args)]
pub struct RecoveryAddOptions {
    #[command(flatten)]
    pub token: RecoveryToken,
    /// A name for the envelope, 1 to 64 bytes.
    #[arg(long)]
    pub name: String,
    /// A password opens it, from: prompt, env:NAME, file:PATH or stdin (one line).
    #[arg(long, value_name = "SOURCE", group = "means")]
    pub password_source: Option<PinSource>,
    /// Another KMS opens it: NAME of [kms.NAME].
    #[arg(long, value_name = "NAME", group = "means")]
    pub kms: Option<String>,
    /// So many of so many shares open it, such as 3/5.
    #[arg(long, value_name = "NEEDED/ALL", group = "means", value_parser = parse_shares)]
    pub shares: Option<(u8, u8)>,
    /// Writes each share into a file in this folder, instead of showing it.
    #[arg(long, value_name = "FOLDER", requires = "shares")]
    pub folder: Option<PathBuf>,
}

/// The options of `recovery list`.
#[derive(Debug, Args)]
pub struct RecoveryListOptions {
    #[command(flatten)]
    pub token: Selector,
    #[command(flatten)]
    pub pin: UserPin,
}

/// The options of `recovery remove`.
#[derive(Debug, Args)]
pub struct RecoveryRemoveOptions {
    #[command(flatten)]
    pub token: RecoveryToken,
    /// The name of the envelope.
    #[arg(long)]
    pub name: String,
}

/// Reads how many shares there are, and how many are needed.
fn parse_shares(text: &str) -> Result<(u8, u8), String> {
    let numbers = text.split_once('/').and_then(|(needed, all)| Some((needed.parse().ok()?, all.parse().ok()?)));
    let numbers = numbers.filter(|(needed, all)| (2..=*all).contains(needed));
    numbers
        .ok_or_else(|| "must be two numbers such as 3/5: at least 2 are needed, and there are at most 255".to_owned())
}

/// The options of `kms test`.
#[derive(Debug, Args)]
pub struct KmsTestOptions {
    /// The name of the provider: NAME of [kms.NAME].
    pub name: String,
}

/// The options of verbs that work on a token's master key.
#[derive(Debug, Args)]
pub struct KmsTokenOptions {
    #[command(flatten)]
    pub token: Selector,
    #[command(flatten)]
    pub pin: UserPin,
}

/// The options of `kms move`.
#[derive(Debug, Args)]
pub struct KmsMoveOptions {
    #[command(flatten)]
    pub token: KmsTokenOptions,
    /// The name of the provider to move to: NAME of [kms.NAME].
    #[arg(long, value_name = "NAME")]
    pub to: String,
}

/// Which token is meant. With one token only, nothing needs to be said.
#[derive(Debug, Args)]
pub struct Selector {
    /// The label of the token.
    #[arg(long, value_name = "LABEL")]
    pub token: Option<String>,
    /// The serial number of the token, where a label is not unique.
    #[arg(long, value_name = "SERIAL")]
    pub serial: Option<String>,
}

/// Where the user PIN comes from.
#[derive(Debug, Args)]
pub struct UserPin {
    /// Where the user PIN comes from: prompt, env:NAME, file:PATH or stdin (one line).
    #[arg(long, value_name = "SOURCE", default_value = "prompt")]
    pub pin_source: PinSource,
}

/// The options of `token init`.
#[derive(Debug, Args)]
pub struct TokenInitOptions {
    /// The label of the new token, 1 to 32 bytes.
    #[arg(long)]
    pub label: String,
    /// Where the SO PIN comes from: prompt, env:NAME, file:PATH or stdin (one line).
    #[arg(long, value_name = "SOURCE", default_value = "prompt")]
    pub so_pin_source: PinSource,
    #[command(flatten)]
    pub pin: UserPin,
}

/// The options of `key generate`.
#[derive(Debug, Args)]
pub struct KeyGenerateOptions {
    #[command(flatten)]
    pub token: Selector,
    /// The type of the key.
    #[arg(long = "type", value_enum)]
    pub key_type: KeyType,
    /// The label of the key (CKA_LABEL); it must not be in use on this token.
    #[arg(long)]
    pub label: String,
    /// The id of the key (CKA_ID) in hexadecimal; without it, a digest of the public key.
    #[arg(long, value_name = "HEX", value_parser = parse_hex)]
    pub id: Option<Bytes>,
    #[command(flatten)]
    pub pin: UserPin,
}

/// Bytes given in hexadecimal.
#[derive(Debug, Clone)]
pub struct Bytes(pub Vec<u8>);

/// The options of `key list`.
#[derive(Debug, Args)]
pub struct KeyListOptions {
    #[command(flatten)]
    pub token: Selector,
    /// Lists only what can be seen without login.
    #[arg(long)]
    pub public: bool,
    #[command(flatten)]
    pub pin: UserPin,
}

/// Which managed key is meant, and how its token is opened.
#[derive(Debug, Args)]
pub struct ManagedKey {
    #[command(flatten)]
    pub token: Selector,
    /// Whose key it is.
    #[arg(long)]
    pub owner: String,
    /// What it is a key of.
    #[arg(long)]
    pub asset: String,
    #[command(flatten)]
    pub pin: UserPin,
}

/// The options of `key versions`.
#[derive(Debug, Args)]
pub struct KeyVersionsOptions {
    #[command(flatten)]
    pub key: ManagedKey,
}

/// The options of `key create`.
#[derive(Debug, Args)]
pub struct KeyCreateOptions {
    #[command(flatten)]
    pub key: ManagedKey,
    /// Where the password of the key comes from: prompt, env:NAME, file:PATH or stdin (one line); without it, it has none.
    #[arg(long, value_name = "SOURCE")]
    pub password_source: Option<PinSource>,
}

/// The options of `key password`.
#[derive(Debug, Args)]
pub struct KeyPasswordOptions {
    #[command(flatten)]
    pub key: ManagedKey,
    /// Where the present password of the key comes from.
    #[arg(long, value_name = "SOURCE", default_value = "prompt")]
    pub old_password_source: PinSource,
    /// Where the new password of the key comes from.
    #[arg(long, value_name = "SOURCE", default_value = "prompt")]
    pub new_password_source: PinSource,
}

/// The options of `key reset-tries`.
#[derive(Debug, Args)]
pub struct KeyResetOptions {
    #[command(flatten)]
    pub token: Selector,
    /// Whose key it is.
    #[arg(long)]
    pub owner: String,
    /// What it is a key of.
    #[arg(long)]
    pub asset: String,
    /// Where the SO PIN comes from: prompt, env:NAME, file:PATH or stdin (one line).
    #[arg(long, value_name = "SOURCE", default_value = "prompt")]
    pub so_pin_source: PinSource,
}

/// The options of `key test`.
#[derive(Debug, Args)]
pub struct KeyTestOptions {
    #[command(flatten)]
    pub key: ManagedKey,
    /// The number of the version; 0 is the active one.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub number: u64,
    /// Where the password of the key comes from, if it has one.
    #[arg(long, value_name = "SOURCE")]
    pub password_source: Option<PinSource>,
}

/// What to do with Argon2id.
#[derive(Debug, Subcommand)]
pub enum Argon2Verb {
    /// Measures what Argon2id costs on this machine, and proposes an [argon2] section for a target time.
    #[command(after_help = "\
Measure on the machine that will do the work, while it does nothing else. A quarter of the memory that is available is the \
most that is proposed, since several derivations may run at once.

Example:
  strongroom argon2 calibrate --target-ms 500")]
    Calibrate(CalibrateOptions),
}

/// The options of `argon2 calibrate`.
#[derive(Debug, Args)]
pub struct CalibrateOptions {
    /// How long one derivation may take, in milliseconds.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub target_ms: u64,
}

/// The options of `key rotate`.
#[derive(Debug, Args)]
pub struct KeyRotateOptions {
    #[command(flatten)]
    pub key: ManagedKey,
    /// Rotates only if this is the latest version; 0 is whichever is.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub expected: u64,
    /// Where the password of the key comes from, if it has one.
    #[arg(long, value_name = "SOURCE")]
    pub old_password_source: Option<PinSource>,
    /// Where the password of the new version comes from; without it, it is the same.
    #[arg(long, value_name = "SOURCE")]
    pub new_password_source: Option<PinSource>,
}

/// The options of `key state`.
#[derive(Debug, Args)]
pub struct KeyStateOptions {
    #[command(flatten)]
    pub key: ManagedKey,
    /// The number of the version.
    #[arg(long)]
    pub number: u64,
    /// What it becomes: active, rotated or disabled.
    #[arg(long)]
    pub state: String,
}

/// The options of `key destroy`.
#[derive(Debug, Args)]
pub struct KeyDestroyOptions {
    #[command(flatten)]
    pub key: ManagedKey,
    /// The number of the version.
    #[arg(long)]
    pub number: u64,
    /// The unique id of the version.
    #[arg(long, value_name = "UNIQUE ID")]
    pub confirm: String,
}

/// The options of `rotate`.
#[derive(Debug, Args)]
pub struct RotateOptions {
    /// Rotates all keys that are due; there is nothing else to rotate by this verb.
    #[arg(long, required = true)]
    pub due: bool,
    /// Tells what is due, and what will be within the days of --warn-days, and rotates nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Also tells which keys will be due within so many days, and that some will be is exit code 7; without it, a dry run
    /// tells those within the warn_days of the configuration.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(0..=36_500))]
    pub warn_days: Option<u64>,
    /// Rotates at most so many keys.
    #[arg(long, value_name = "COUNT")]
    pub at_most: Option<usize>,
    #[command(flatten)]
    pub token: Selector,
    #[command(flatten)]
    pub pin: UserPin,
}

/// The options of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorOptions {
    #[command(flatten)]
    pub token: Selector,
    /// Logs in, opens every object, makes a key that lasts as long as the session, signs with it and verifies.
    #[arg(long)]
    pub sign: bool,
    /// Makes the index of the store anew from its objects, before anything is looked at; copy the database first.
    #[arg(long)]
    pub repair: bool,
    #[command(flatten)]
    pub pin: UserPin,
}

/// The options of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsOptions {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Reads hexadecimal of any case.
pub fn parse_hex(text: &str) -> Result<Bytes, String> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes());
    bytes.map(Bytes).map_err(|_| "must be pairs of hexadecimal digits, such as 0a01".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    /// What follows the options is wrapped to the terminal: a paragraph is one line, and an example fits.
    #[test]
    fn notes_are_whole_paragraphs_and_examples_fit() {
        fn check(command: &clap::Command) {
            let notes = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<_> = notes.lines().collect();
            for (line, next) in lines.iter().zip(lines.iter().skip(1)) {
                let words = [line, next].iter().all(|line| line.starts_with(char::is_alphanumeric));
                let broken = words && !line.ends_with(':');
                assert!(!broken, "{}: a paragraph is broken after {line:?}", command.get_name());
            }
            for line in lines.iter().filter(|line| line.starts_with(' ')) {
                assert!(line.len() <= 100, "{}: too long: {line}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Arguments::command());
    }

    #[test]
    fn a_pin_is_never_an_argument() {
        for arguments in [
            ["strongroom", "key", "list", "--pin", "secret"].as_slice(),
            &["strongroom", "key", "list", "--pin-source", "secret"],
            &["strongroom", "token", "init", "--label", "a", "--so-pin", "secret"],
        ] {
            let error = Arguments::try_parse_from(arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }

    /// Writes the manual page: the command as a whole, then a section for each verb.
    fn manual() -> String {
        let mut command = Arguments::command();
        command.build();
        let (mut page, man) = (Vec::new(), clap_mangen::Man::new(command.clone()).title("STRONGROOM"));
        man.render_title(&mut page).unwrap();
        man.render_name_section(&mut page).unwrap();
        man.render_synopsis_section(&mut page).unwrap();
        man.render_options_section(&mut page).unwrap();
        verbs(&mut page, &command, "strongroom");
        man.render_extra_section(&mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        page.replace(".SH EXTRA\n", ".SH NOTES\n").lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    /// Writes the sections of the verbs below a command.
    fn verbs(page: &mut Vec<u8>, command: &clap::Command, path: &str) {
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let path = format!("{path} {}", verb.get_name());
            if verb.has_subcommands() {
                verbs(page, verb, &path);
                continue;
            }
            let man = clap_mangen::Man::new(verb.clone().bin_name(&path).version(None::<&str>));
            let mut section = Vec::new();
            man.render_description_section(&mut section).unwrap();
            man.render_options_section(&mut section).unwrap();
            if verb.get_after_help().is_some() {
                man.render_extra_section(&mut section).unwrap();
            }
            page.extend(format!(".SH \"{}\"\n", path.to_uppercase()).bytes());
            let section = String::from_utf8(section).unwrap();
            let section = section.replace(".SH DESCRIPTION\n", "").replace(".SH OPTIONS", ".SS Options");
            page.extend(section.replace(".SH EXTRA", ".SS Notes").bytes());
        }
    }

    /// Fails when dist/strongroom.1 is not what the command says of itself; `make man` writes it.
    #[test]
    fn the_manual_page_is_up_to_date() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/strongroom.1");
        if std::env::var_os("STRONGROOM_WRITE_MAN").is_some() {
            std::fs::write(&file, manual()).unwrap();
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(committed == manual(), "dist/strongroom.1 is out of date: run `make man`");
    }
}
