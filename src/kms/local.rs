//! The `local` provider: master keys in a file that only its owner can read, in a systemd credential, or in memory alone.
//!
//! The rules are:
//! - [`KmsProvider::make_first_key`] alone creates the file, where a token is made or moved here: a file that is missing otherwise was
//!   there before, on a disk that is not mounted perhaps, and what a new key wraps would be lost when the old one comes back;
//! - the file is read for each call, so that a key which another process added is seen, and no key stays in memory;
//! - wrapping takes the active key: the highest version of the name that was added last. Old versions keep unwrapping;
//! - key name, key version, token and purpose are part of what is authenticated.
//!
//! `docs/format.md` has the bytes of the file and of the blob.

mod key_file;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use super::blob;
use super::provider::{Context, Description, KeyState, KmsProvider, MasterKeyId, Wrapped};
use super::{ProviderRow, SettingRow, Settings, Shape};
use crate::error::{Error, KmsFault, Result};
use crate::secret::{SecureBytes, source};
use key_file::{Entry, Guard, KeyRing};

/// The type as the configuration and the envelopes name it.
pub const KIND: &str = "local";

/// The row of the registry.
pub const ROW: ProviderRow = ProviderRow {
    kind: KIND,
    settings: &[
        SettingRow::optional("file", Shape::Path, "the file of the master keys (default: beside the database)"),
        SettingRow::optional("credential", Shape::Text, "the name of a systemd credential that holds such a file"),
    ],
    remote: false,
    abilities: || &[],
    open,
};

/// Opens the provider of a configuration; one without a file keeps its key in memory.
fn open(settings: &Settings) -> Result<Arc<dyn KmsProvider>> {
    let kms = match (settings.text("credential"), settings.path("file")) {
        (Some(name), _) => LocalKms { keys: Keys::Credential(source::credential(name)?) },
        (None, Some(file)) => LocalKms::from_file(file),
        (None, None) => LocalKms::ephemeral()?,
    };
    Ok(Arc::new(kms))
}

/// A KMS without a KMS: master keys in a local file or in memory, for development and for a single machine.
#[derive(Debug)]
pub struct LocalKms {
    keys: Keys,
}

/// Where the master keys are.
#[derive(Debug)]
enum Keys {
    File(PathBuf),
    Credential(PathBuf),
    Memory(RwLock<KeyRing>),
}

impl LocalKms {
    /// Keeps the master keys in a file, which the first token creates. Nothing is read yet.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self { keys: Keys::File(path.into()) }
    }

    /// Keeps master keys in memory; [`Self::add_master_key`] brings them in.
    pub fn new() -> Self {
        Self { keys: Keys::Memory(RwLock::default()) }
    }

    /// Makes a provider with one random key that is gone with it, for the `memory:` store.
    ///
    /// # Errors
    /// `DeviceError` when the system has no randomness.
    pub fn ephemeral() -> Result<Self> {
        let kms = Self::new();
        kms.add_master_key("ephemeral", key_file::random_key()?)?;
        Ok(kms)
    }

    /// Adds a master key of 32 bytes in memory and makes it the active one. A name that exists gets one version more.
    ///
    /// # Errors
    /// `ArgumentsBad` for a key of another length, a name with other characters than `A-Z a-z 0-9 . _ -`, and a
    /// provider whose keys are in a file.
    pub fn add_master_key(&self, name: &str, key: SecureBytes) -> Result<MasterKeyId> {
        match &self.keys {
            Keys::Memory(ring) => ring.write().add(name, key),
            Keys::File(path) | Keys::Credential(path) => Err(Error::arguments_bad(format!(
                "the master keys of this provider are in {}; add_master_key is for LocalKms::new()",
                path.display()
            ))),
        }
    }

    /// Finds the active key.
    fn active(&self) -> Result<Entry> {
        match &self.keys {
            Keys::File(path) => load(path, Guard::Owner)?.active(path.display()),
            Keys::Credential(path) => load(path, Guard::Systemd)?.active(path.display()),
            Keys::Memory(ring) => ring.read().active("this provider"),
        }
    }

    /// Finds the key that wrapped a blob.
    fn find(&self, id: &MasterKeyId) -> Result<Entry> {
        match &self.keys {
            Keys::File(path) => match key_file::load(path, Guard::Owner)? {
                Some(ring) => ring.find(id, path.display()),
                None => Err(missing(path, id)),
            },
            Keys::Credential(path) => load(path, Guard::Systemd)?.find(id, path.display()),
            Keys::Memory(ring) => ring.read().find(id, "this provider"),
        }
    }
}

impl Default for LocalKms {
    fn default() -> Self {
        Self::new()
    }
}

impl KmsProvider for LocalKms {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn wrap_key(&self, secret: &SecureBytes, context: &Context<'_>) -> Result<Wrapped> {
        let Entry { id, key } = self.active()?;
        blob::wrap_here(&key, id, context, secret)
    }

    fn unwrap_key(&self, wrapped: &Wrapped, context: &Context<'_>) -> Result<SecureBytes> {
        // What belongs elsewhere is told as that, before its key is looked for.
        blob::unframe(&wrapped.blob, context)?;
        let Entry { id, key } = self.find(&wrapped.master_key)?;
        blob::unwrap_here(&key, wrapped, context).map_err(|error| error.context(format!("the local master key {id}")))
    }

    fn make_first_key(&self, may: &dyn Fn() -> Result<()>) -> Result<()> {
        match &self.keys {
            Keys::File(path) if key_file::load(path, Guard::Owner)?.is_none() => {
                may()
                    .map_err(|error| error.context(format!("there is no local master key file {}", path.display())))?;
                key_file::create(path)
            }
            _ => Ok(()),
        }
    }

    fn rotate_master_key(&self) -> Result<MasterKeyId> {
        match &self.keys {
            Keys::File(path) => load(path, Guard::Owner).and_then(|_| key_file::rotate(path)),
            Keys::Credential(path) => Err(Error::kms(
                KmsFault::Unsupported,
                format!(
                    "the systemd credential {} cannot be changed from here; make a new one that has one key more",
                    path.display()
                ),
            )),
            Keys::Memory(ring) => {
                let name = ring.read().active("this provider")?.id.key;
                ring.write().add(&name, key_file::random_key()?)
            }
        }
    }

    fn describe(&self) -> Result<Description> {
        let active = self.active()?;
        Ok(Description {
            version: active.id.version.to_string(),
            master_key: active.id,
            state: KeyState::Enabled,
            algorithms: vec!["AES-256-GCM".to_owned()],
        })
    }
}

/// Reads a file that must be there.
fn load(path: &Path, guard: Guard) -> Result<KeyRing> {
    key_file::load(path, guard)?.ok_or_else(|| {
        let text = format!(
            "there is no local master key file {}; the first token makes it, and where there was one, put it back from a backup or mount \
             its disk",
            path.display()
        );
        Error::kms(KmsFault::NotFound, text)
    })
}

fn missing(path: &Path, id: &MasterKeyId) -> Error {
    let text = format!(
        "the local master key file {} is missing; without this file the token cannot be opened: put it back from a backup \
         (it must hold key `{}` version {})",
        path.display(),
        id.key,
        id.version
    );
    Error::kms(KmsFault::NotFound, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::process::{Command, Stdio};

    const CONTEXT: Context<'static> = Context { token: "0123456789ABCDEF", purpose: "token-key/user" };
    /// Tells a child process of the race test which file to use.
    const RACE_FILE: &str = "STRONGROOM_TEST_RACE_FILE";

    fn secret() -> SecureBytes {
        SecureBytes::copy_from(b"thirty-two bytes of secret to be")
    }

    fn scratch() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/on/demand/master.keys");
        (directory, path)
    }

    /// Opens a provider whose file is there.
    fn begun(path: &Path) -> LocalKms {
        let kms = LocalKms::from_file(path);
        kms.make_first_key(&|| Ok(())).unwrap();
        kms
    }

    fn message<T>(result: Result<T>) -> String {
        let Err(error) = result else { panic!("must fail") };
        assert_eq!(error.kind(), Kind::DeviceError);
        error.message()
    }

    /// Rewrites the key file with one more line made from `fields`.
    fn append_key(path: &Path, fields: &str) {
        let text = fs::read_to_string(path).unwrap();
        let sum = HEX.encode(&sha2::Sha256::digest(fields.as_bytes())[..4]);
        fs::write(path, format!("{text}key {fields} {sum}\n")).unwrap();
    }
    use data_encoding::HEXLOWER as HEX;
    use sha2::Digest;

    #[test]
    fn the_file_is_created_once_and_for_its_owner_alone() {
        let (_directory, path) = scratch();
        let kms = begun(&path);
        let first = kms.wrap_key(&secret(), &CONTEXT).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o7777, 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no scratch file stays");
        let second = begun(&path).wrap_key(&secret(), &CONTEXT).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_ne!(first.blob, second.blob, "each wrapping has a nonce of its own");
        for wrapped in [first, second] {
            assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
        }
    }

    #[test]
    fn a_missing_file_is_named_and_never_made_by_what_needs_its_keys() {
        let (_directory, path) = scratch();
        let kms = begun(&path);
        let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
        fs::remove_file(&path).unwrap();
        let text = message(kms.unwrap_key(&wrapped, &CONTEXT));
        assert!(text.contains(path.to_str().unwrap()) && text.contains("without this file"), "{text}");
        for text in [message(kms.wrap_key(&secret(), &CONTEXT)), message(kms.rotate_master_key())] {
            assert!(text.contains(path.to_str().unwrap()) && text.contains("put it back"), "{text}");
        }
        let refused = kms.make_first_key(&|| Err(Error::device("a token needs it")));
        assert!(message(refused).contains(path.to_str().unwrap()));
        assert!(!path.exists());
        // A new file of another origin is told from damage.
        begun(&path).wrap_key(&secret(), &CONTEXT).unwrap();
        let text = message(kms.unwrap_key(&wrapped, &CONTEXT));
        assert!(text.contains(&wrapped.master_key.key) && text.contains("holds"), "{text}");
    }

    #[test]
    fn a_file_open_to_others_is_refused_with_the_cure() {
        let (_directory, path) = scratch();
        let kms = begun(&path);
        let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o660, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            for text in [message(kms.unwrap_key(&wrapped, &CONTEXT)), message(kms.wrap_key(&secret(), &CONTEXT))] {
                assert!(text.contains("chmod 600") && text.contains(path.to_str().unwrap()), "{text}");
            }
        }
        for mode in [0o600, 0o400] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
        }
    }

    /// systemd 254 and later give a service with User= its credential with the mode 0400 and an ACL, which shows as 0440.
    #[test]
    fn a_credential_may_show_the_mask_of_an_acl_and_no_right_of_others() {
        let (_directory, path) = scratch();
        let wrapped = begun(&path).wrap_key(&secret(), &CONTEXT).unwrap();
        let kms = LocalKms { keys: Keys::Credential(path.clone()) };
        for mode in [0o400, 0o440] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
            kms.wrap_key(&secret(), &CONTEXT).unwrap();
        }
        for mode in [0o444, 0o402, 0o441] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(message(kms.unwrap_key(&wrapped, &CONTEXT)).contains("is open to others"));
        }
    }

    #[test]
    fn a_rotation_keeps_link_owner_and_mode() {
        let (_directory, path) = scratch();
        let kms = begun(&path);
        let linked = path.with_file_name("linked.keys");
        fs::rename(&path, &linked).unwrap();
        std::os::unix::fs::symlink(&linked, &path).unwrap();
        fs::set_permissions(&linked, fs::Permissions::from_mode(0o400)).unwrap();
        // Only root can give a file away; whoever else runs the tests has it anyway.
        let owner = (fs::metadata(&linked).unwrap().uid() == 0).then_some(65_534);
        std::os::unix::fs::chown(&linked, owner, owner).unwrap();
        let before = fs::metadata(&linked).unwrap();
        assert_eq!(kms.rotate_master_key().unwrap().version, 2);
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink(), "the link is still one");
        let after = fs::metadata(&linked).unwrap();
        assert_eq!((after.uid(), after.gid(), after.mode()), (before.uid(), before.gid(), before.mode()));
        assert_eq!(kms.describe().unwrap().version, "2");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2, "no scratch file stays");
    }

    #[test]
    fn the_highest_version_wraps_and_old_ones_unwrap() {
        let (_directory, path) = scratch();
        let kms = begun(&path);
        let old = kms.wrap_key(&secret(), &CONTEXT).unwrap();
        let name = old.master_key.key.clone();
        append_key(&path, &format!("{name} 10 {}", "ab".repeat(32)));
        append_key(&path, &format!("{name} 2 {}", "cd".repeat(32)));
        let new = kms.wrap_key(&secret(), &CONTEXT).unwrap();
        assert_eq!((old.master_key.version, new.master_key.version), (1, 10));
        for wrapped in [&old, &new] {
            assert_eq!(kms.unwrap_key(wrapped, &CONTEXT).unwrap(), secret());
        }
        let unknown = MasterKeyId { key: name, version: 3 };
        message(kms.unwrap_key(&Wrapped { master_key: unknown, blob: new.blob }, &CONTEXT));
    }

    #[test]
    fn a_bad_line_is_named_and_never_shown() {
        let (_directory, path) = scratch();
        let kms = begun(&path);
        let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        let key_line = good.lines().zip(1..).find(|(line, _)| line.starts_with("key ")).unwrap();
        let hex = key_line.0.split(' ').nth(3).unwrap();
        let flipped = hex.replace(&hex[5..6], if &hex[5..6] == "0" { "1" } else { "0" });
        let cases = [
            (good.replace("strongroom-local-kms 1", "strongroom-local-kms 2"), 1),
            (String::new(), 1),
            (good.replace(hex, &flipped), key_line.1),
            (good.replace(hex, &hex[2..]), key_line.1),
            (good.replace("key ", "kez "), key_line.1),
            (format!("{good}{}\n", key_line.0), key_line.1 + 1),
            (format!("{good}\n# a comment\nrubbish\n"), key_line.1 + 3),
        ];
        for (text, line) in cases {
            fs::write(&path, &text).unwrap();
            let message = message(kms.unwrap_key(&wrapped, &CONTEXT));
            assert!(message.contains(&format!("{}, line {line}:", path.display())), "{message}");
            assert!(!message.contains(&hex[8..16]), "{message}");
        }
        for fields in ["name 0 ", "name x ", "na/me 1 ", " 1 ", "name 1 extra "] {
            fs::write(&path, &good).unwrap();
            append_key(&path, &format!("{fields}{}", "ab".repeat(32)));
            assert!(message(kms.unwrap_key(&wrapped, &CONTEXT)).contains(&format!("line {}:", key_line.1 + 1)));
        }
        fs::write(&path, b"\xFF\xFE").unwrap();
        assert!(message(kms.unwrap_key(&wrapped, &CONTEXT)).contains(path.to_str().unwrap()));
    }

    #[test]
    fn a_blob_unwraps_with_its_own_context_only() {
        let kms = LocalKms::ephemeral().unwrap();
        let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
        for context in [
            Context { token: "0123456789ABCDEE", ..CONTEXT },
            Context { purpose: "token-key/so", ..CONTEXT },
            Context { token: "0123456789ABCDEFt", purpose: "oken-key/user" },
            Context { token: "", purpose: "" },
        ] {
            message(kms.unwrap_key(&wrapped, &context));
        }
        assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_blob_is_found() {
        let kms = LocalKms::ephemeral().unwrap();
        let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
        let master_key = wrapped.master_key;
        for bit in 0..wrapped.blob.len() * 8 {
            let mut blob = wrapped.blob.clone();
            blob[bit / 8] ^= 1 << (bit % 8);
            message(kms.unwrap_key(&Wrapped { master_key: master_key.clone(), blob }, &CONTEXT));
        }
        for len in 0..wrapped.blob.len() {
            let blob = wrapped.blob[..len].to_vec();
            message(kms.unwrap_key(&Wrapped { master_key: master_key.clone(), blob }, &CONTEXT));
        }
    }

    #[test]
    fn keys_in_memory_get_versions_and_the_last_name_wraps() {
        let kms = LocalKms::new();
        assert!(message(kms.wrap_key(&secret(), &CONTEXT)).contains("add one"));
        let key = |byte| SecureBytes::copy_from(&[byte; 32]);
        kms.add_master_key("master-key-1", key(1)).unwrap();
        let first = kms.wrap_key(&secret(), &CONTEXT).unwrap();
        assert_eq!(kms.add_master_key("master-key-1", key(2)).unwrap().version, 2);
        assert_eq!(kms.wrap_key(&secret(), &CONTEXT).unwrap().master_key.version, 2);
        kms.add_master_key("master-key-2", key(3)).unwrap();
        assert_eq!(kms.wrap_key(&secret(), &CONTEXT).unwrap().master_key.key, "master-key-2");
        assert_eq!(kms.unwrap_key(&first, &CONTEXT).unwrap(), secret());
        for (name, key) in [("", key(1)), ("with space", key(1)), ("short", SecureBytes::copy_from(&[1; 31]))] {
            assert_eq!(kms.add_master_key(name, key).unwrap_err().kind(), Kind::ArgumentsBad);
        }
        let (_directory, path) = scratch();
        assert_eq!(LocalKms::from_file(path).add_master_key("a", key(1)).unwrap_err().kind(), Kind::ArgumentsBad);
    }

    #[test]
    fn the_contract_holds_in_a_file_and_in_memory() {
        let (_directory, path) = scratch();
        crate::kms::contract::check(&begun(&path));
        crate::kms::contract::check(&LocalKms::ephemeral().unwrap());
    }

    #[test]
    fn rotations_of_many_at_once_lose_no_key() {
        let (_directory, path) = scratch();
        let rotate = || {
            let kms = begun(&path);
            kms.rotate_master_key().unwrap();
            kms.wrap_key(&secret(), &CONTEXT).unwrap()
        };
        let wrapped: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(rotate)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let kms = begun(&path);
        assert_eq!(kms.describe().unwrap().master_key.version, 9);
        for wrapped in wrapped {
            assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no scratch file stays");
    }

    #[test]
    fn two_ephemeral_providers_do_not_open_each_others_blobs() {
        let (one, other) = (LocalKms::ephemeral().unwrap(), LocalKms::ephemeral().unwrap());
        message(other.unwrap_key(&one.wrap_key(&secret(), &CONTEXT).unwrap(), &CONTEXT));
    }

    #[test]
    fn r40_debug_shows_no_key() {
        let kms = LocalKms::new();
        kms.add_master_key("master-key-1", SecureBytes::copy_from(b"canary-canary-canary-canary-32by")).unwrap();
        let text = format!("{kms:?}");
        assert!(text.contains("master-key-1") && !text.contains("canary") && !text.contains("99, 97"), "{text}");
    }

    #[test]
    fn threads_that_start_at_once_end_up_with_one_key() {
        for _ in 0..20 {
            let (_directory, path) = scratch();
            let wrap = || begun(&path).wrap_key(&secret(), &CONTEXT).unwrap();
            let wrapped: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(wrap)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            for wrapped in wrapped {
                assert_eq!(LocalKms::from_file(&path).unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
            }
        }
    }

    /// Is run by the next test, in processes of their own; alone it has nothing to do.
    #[test]
    #[ignore = "a part of processes_that_start_at_once_end_up_with_one_key"]
    fn race_child() {
        let Some(path) = std::env::var_os(RACE_FILE) else { return };
        let wrapped = begun(Path::new(&path)).wrap_key(&secret(), &CONTEXT).unwrap();
        let answer = format!("{} {} {}", wrapped.master_key.key, wrapped.master_key.version, HEX.encode(&wrapped.blob));
        fs::write(format!("{}.{}", path.to_str().unwrap(), std::process::id()), answer).unwrap();
    }

    #[test]
    fn processes_that_start_at_once_end_up_with_one_key() {
        for _ in 0..5 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("master.keys");
            let start = || {
                let mut child = Command::new(std::env::current_exe().unwrap());
                child.args(["--ignored", "--exact", "kms::local::tests::race_child"]).env(RACE_FILE, &path);
                child.stdout(Stdio::null()).spawn().unwrap()
            };
            let children: Vec<_> = (0..4).map(|_| start()).collect();
            for mut child in children {
                assert!(child.wait().unwrap().success());
            }
            let answers: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
            let answers: Vec<_> = answers.into_iter().filter(|answer| *answer != path).collect();
            assert_eq!(answers.len(), 4);
            for answer in answers {
                let text = fs::read_to_string(answer).unwrap();
                let [key, version, blob] = text.split(' ').collect::<Vec<_>>().try_into().unwrap();
                let master_key = MasterKeyId { key: key.to_owned(), version: version.parse().unwrap() };
                let blob = HEX.decode(blob.as_bytes()).unwrap();
                let opened = LocalKms::from_file(&path).unwrap_key(&Wrapped { master_key, blob }, &CONTEXT);
                assert_eq!(opened.unwrap(), secret());
            }
        }
    }
}
