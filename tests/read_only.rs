//! A store that can only be read: a Rust program uses its keys through `KeyManager` all the same.
#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use strongroom::error::Kind;
use strongroom::manager::{KeyManager, LocalKmsProvider, Options, Password, QuoteAsset};

/// Names the folder of the store to a child process.
const FOLDER: &str = "STRONGROOM_TEST_READ_ONLY";
/// The user who may not write.
const NOBODY: u32 = 65534;

fn options(folder: &Path) -> Options {
    let provider = LocalKmsProvider::from_file(folder.join("master.key"));
    Options::new().config(folder.join("strongroom.toml").display().to_string()).provider(Box::new(provider))
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Runs this test once more as a user who cannot write: root could.
fn run_as_nobody(folder: &Path) {
    let (programs, root) = (tempfile::tempdir().unwrap(), fs::metadata(folder).unwrap().uid() == 0);
    set_mode(programs.path(), 0o755);
    let program = programs.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(&program);
    command.env(FOLDER, folder).current_dir("/");
    if root {
        command.uid(NOBODY).gid(NOBODY);
    }
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        set_mode(&path, 0o400);
        if root {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    set_mode(folder, 0o555);
    assert!(command.status().unwrap().success());
    set_mode(folder, 0o755);
}

#[tokio::test]
async fn r71_a_program_reads_a_store_that_it_cannot_write() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        KeyManager::init(options(Path::new(&folder))).await.unwrap();
        let key = KeyManager::get_private_key("alice", QuoteAsset::Btc, Password::NONE).await.unwrap();
        assert_eq!(key.sign(&[7; 32]).unwrap().len(), 64);
        let error = KeyManager::generate_key("bob", QuoteAsset::Btc, Password::NONE).await.unwrap_err();
        assert!([Kind::SessionReadOnly, Kind::TokenWriteProtected].contains(&error.kind()), "{error}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let text = format!("[store]\nurl = \"sqlite://{}/s.db\"\n", folder.path().display());
    fs::write(folder.path().join("strongroom.toml"), text).unwrap();
    KeyManager::init(options(folder.path())).await.unwrap();
    KeyManager::generate_key("alice", QuoteAsset::Btc, Password::NONE).await.unwrap();
    KeyManager::shutdown().await;
    run_as_nobody(folder.path());
}
