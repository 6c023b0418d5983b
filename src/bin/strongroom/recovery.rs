//! `strongroom recovery …`: envelopes that open a token's backups when the KMS or the PINs are lost.

use std::io::{self, Write};

use serde_json::json;
use strongroom::keys::backup::{self, Kept, Recovery, Share};

use crate::args::{RecoveryAddOptions, RecoveryListOptions, RecoveryRemoveOptions, RecoveryToken};
use crate::backup::{open, recovery};
use crate::failure::Failure;
use crate::kms;
use crate::library;
use crate::output::Output;

/// Runs `recovery add`.
pub fn add(config: Option<&str>, options: &RecoveryAddOptions, output: &Output) -> Result<(), Failure> {
    if output.is_json() && options.shares.is_some() && options.folder.is_none() {
        return Err(Failure::Usage("with --json, shares are written to files: say where by --folder".to_owned()));
    }
    if let Some(provider) = &options.kms {
        kms::check_name(config, provider)?;
    }
    let library = library::open(config)?;
    let session = open_for_change(&library, &options.token)?;
    let name = options.name.as_str();
    let how = match (&options.password_source, &options.kms, options.shares) {
        (Some(source), None, None) => {
            Recovery::add_password(&session, name, &source.read_new("recovery password")?)?;
            "a password".to_owned()
        }
        (None, Some(provider), None) => {
            Recovery::add_kms(&session, name, provider)?;
            format!("the KMS {provider}")
        }
        (None, None, Some(counts)) => {
            let label = session.token_label()?;
            match &options.folder {
                Some(folder) => Recovery::add_shares(&session, name, counts, |shares| {
                    backup::write_share_files(folder, &label, shares)
                })?,
                None => Recovery::add_shares(&session, name, counts, show)?,
            }
            format!("{} of {} shares", counts.0, counts.1)
        }
        _ => return Err(Failure::Usage("give one of --password-source, --kms and --shares".to_owned())),
    };
    let text = format!("recovery `{name}` is added: {how} will open every backup made from now on");
    output.result(&text, &json!({ "name": name, "how": how }))?;
    if options.shares.is_some() {
        output.hint("whoever holds enough shares has every key of the token: move them apart, and rehearse with `backup verify`");
    }
    Ok(())
}

/// Shows each share on the terminal. They are read back from what was shown.
fn show(shares: &[Share]) -> strongroom::error::Result<Kept> {
    let mut kept = Kept { shares: Vec::new(), files: Vec::new() };
    let mut out = io::stdout().lock();
    for share in shares {
        let text = share.text()?;
        let shown = write!(out, "{share}, of {}:\n  ", shares.len()).and_then(|()| out.write_all(text.expose()));
        shown.and_then(|()| writeln!(out)).map_err(|error| {
            strongroom::error::Error::new(strongroom::error::Kind::FunctionFailed, "the shares could not be shown")
                .caused_by(error)
        })?;
        kept.shares.push(Share::parse(&text, "what was shown")?);
    }
    Ok(kept)
}

/// Runs `recovery list`.
pub fn list(config: Option<&str>, options: &RecoveryListOptions, output: &Output) -> Result<(), Failure> {
    let library = library::open(config)?;
    let session = open(&library, &options.token, &options.pin.pin_source, None)?;
    let list = Recovery::list(&session)?;
    let text = match recovery(&list) {
        none if none.is_empty() => "the token has no recovery envelope".to_owned(),
        lines => lines.trim_start().to_owned(),
    };
    output.result(&text, &list)
}

/// Runs `recovery remove`.
pub fn remove(config: Option<&str>, options: &RecoveryRemoveOptions, output: &Output) -> Result<(), Failure> {
    let library = library::open(config)?;
    let session = open_for_change(&library, &options.token)?;
    Recovery::remove(&session, &options.name)?;
    let text = format!("recovery `{}` is removed; backups that have it already keep it", options.name);
    output.result(&text, &json!({ "name": options.name, "removed": true }))
}

/// Opens a session of the SO; a token that has opened by itself asks for no PIN.
fn open_for_change(
    library: &strongroom::token::Library,
    token: &RecoveryToken,
) -> Result<std::sync::Arc<strongroom::token::Session>, Failure> {
    let found = library::token(library, &token.token)?;
    let session = library::session(library, &found)?;
    if !session.is_user() {
        library::login(&session, strongroom::ck::CKU_SO, token.so_pin_source.read("SO PIN")?)?;
    }
    Ok(session)
}
