//! Files that hold one key each, alone or in a folder.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Content, Entry, Origin, keystore, pkcs8, pkcs12, wif};
use crate::error::{Error, Kind, Result};
use crate::keys::import::is_of;
use crate::keys::managed::Name;
use crate::keys::{ASSETS, Asset};
use crate::mechanism::GivenKey;
use crate::secret::SecureBytes;

/// The largest file in bytes that is read whole: a key with a long chain of certificates is far below.
const LARGEST: usize = 1 << 20;
/// How much room a file is given at first.
const FIRST_ROOM: usize = 8 << 10;

/// Asks for the password of a file.
pub type AskPassword<'a> = dyn FnMut(&Path) -> Result<SecureBytes> + 'a;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A Bitcoin key in wallet import format.
    Wif,
    /// An Ethereum keystore, version 3.
    Keystore,
    /// PKCS #8, as PEM or DER, encrypted or not.
    Pkcs8,
    /// PKCS #12.
    Pkcs12,
}

impl Format {
    /// The asset of its keys, where there is only one.
    fn asset(self) -> Option<&'static str> {
        match self {
            Self::Wif => Some("btc"),
            Self::Keystore => Some("eth"),
            Self::Pkcs8 | Self::Pkcs12 => None,
        }
    }
}

/// How a key is named here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Naming {
    /// The owner of the managed key that it becomes.
    pub owner: Option<String>,
    /// Whether the owner is the name of the file without its extension.
    pub owner_from_file: bool,
    /// The asset, where it is not to follow from the format or the type of the key.
    pub asset: Option<String>,
    /// The label of the plain object that it becomes; without one, the name of the file without its extension.
    pub label: Option<String>,
    /// Its `CKA_ID`; without one, that of its public key.
    pub id: Option<Vec<u8>>,
}

/// Reads files, one after the other.
pub struct Files<'a> {
    paths: std::vec::IntoIter<PathBuf>,
    format: Format,
    naming: Naming,
    ask: Box<AskPassword<'a>>,
}

impl<'a> Files<'a> {
    /// Takes files, how their keys are named, and who is asked for passwords.
    pub fn new(paths: Vec<PathBuf>, format: Format, naming: Naming, ask: Box<AskPassword<'a>>) -> Self {
        Self { paths: paths.into_iter(), format, naming, ask }
    }

    fn entry(&mut self, path: &Path) -> Entry {
        let mut origin = Origin { source: Some(path.display().to_string()), ..Origin::default() };
        let read = self.read(path, &mut origin);
        Entry { origin, read }
    }

    fn read(&mut self, path: &Path, origin: &mut Origin) -> Result<Content> {
        let owner = self.owner(path);
        origin.owner = owner.clone();
        let text = read(path)?;
        let ask = &mut || (self.ask)(path);
        let mut key = match self.format {
            Format::Wif => wif::read(&text)?,
            Format::Keystore => keystore::read(&text, ask)?,
            Format::Pkcs8 => pkcs8::read(&text, ask)?,
            Format::Pkcs12 => pkcs12::read(&text, ask)?,
        };
        match owner {
            Some(owner) => {
                let asset = self.asset(&key.key)?;
                origin.asset = Some(asset.name);
                key.name = Some(Name::new(&owner, asset.name)?);
            }
            None => self.naming.describe(path, &mut key.kept),
        }
        Ok(Content::Key(Box::new(key)))
    }

    fn owner(&self, path: &Path) -> Option<String> {
        self.naming.owner.clone().or_else(|| self.naming.owner_from_file.then(|| stem(path)))
    }

    /// Finds the asset of a key: the one that was asked for, that of the format, or the plain one of its type.
    fn asset(&self, key: &GivenKey) -> Result<&'static Asset> {
        match self.naming.asset.as_deref().or(self.format.asset()) {
            Some(name) => Asset::named(name),
            None => plain_asset(key),
        }
    }
}

impl Iterator for Files<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let path = self.paths.next()?;
        Some(Ok(self.entry(&path)))
    }
}

impl Naming {
    /// Gives a plain object its label and id.
    fn describe(&self, path: &Path, kept: &mut crate::ck::Attributes) {
        use crate::ck::{CKA_ID, CKA_LABEL};
        match &self.label {
            Some(label) => drop(kept.set(CKA_LABEL, label.as_bytes())),
            None => kept.default_to(CKA_LABEL, stem(path).into_bytes()),
        }
        if let Some(id) = &self.id {
            kept.set(CKA_ID, id.as_slice());
        }
    }
}

/// Finds the plain asset that a key is of.
///
/// # Errors
/// `KeyTypeInconsistent` for a type that is no asset.
pub fn plain_asset(key: &GivenKey) -> Result<&'static Asset> {
    for asset in ASSETS.iter().filter(|asset| !asset.has_addresses()) {
        if is_of(asset, key)? {
            return Ok(asset);
        }
    }
    Err(Error::new(
        Kind::KeyTypeInconsistent,
        "managed keys are of no such type; move it as a plain object, without an owner",
    ))
}

/// Gives the name of a file without its extension.
fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Lists the files that a path means: itself, or those in it when it is a folder, in the order of their names. Folders in it and names that
/// begin with a dot are left out.
///
/// # Errors
/// `DataInvalid` when it cannot be read, or has no file.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let listed = std::fs::read_dir(path).and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>());
    let listed = listed.map_err(|error| unreadable(path, &error))?;
    let mut files: Vec<_> = listed
        .into_iter()
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.') && !entry.path().is_dir())
        .map(|entry| entry.path())
        .collect();
    files.sort();
    match files.is_empty() {
        true => Err(Error::new(Kind::DataInvalid, format!("the folder {} has no file", path.display()))),
        false => Ok(files),
    }
}

/// Reads a file whole into locked memory.
///
/// # Errors
/// `DataInvalid` when it cannot be read, is empty or too large.
pub fn read(path: &Path) -> Result<SecureBytes> {
    let mut file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let (mut text, mut len) = (SecureBytes::zeroed(FIRST_ROOM), 0);
    loop {
        let room = text.expose_mut().get_mut(len..).unwrap_or_default();
        match file.read(room) {
            Ok(0) if room.is_empty() => text = larger(&text),
            Ok(0) if len == 0 => return Err(Error::new(Kind::DataInvalid, format!("{} is empty", path.display()))),
            Ok(0) => return Ok(text.truncated(len)),
            Ok(more) if len + more > LARGEST => return Err(too_large(path)),
            Ok(more) => len += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(path, &error)),
        }
    }
}

/// Gives a copy with twice the room.
fn larger(text: &SecureBytes) -> SecureBytes {
    let mut copy = SecureBytes::zeroed(text.len().saturating_mul(2));
    copy.expose_mut().iter_mut().zip(text.expose()).for_each(|(to, from)| *to = *from);
    copy
}

fn too_large(path: &Path) -> Error {
    let text = format!("{} is larger than {LARGEST} bytes: it holds no single key", path.display());
    Error::new(Kind::DataInvalid, text)
}

/// Makes the error of a file that cannot be read.
pub fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(Kind::DataInvalid, format!("{} cannot be read: {error}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_up_to_the_largest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for len in [1, FIRST_ROOM - 1, FIRST_ROOM, FIRST_ROOM + 1, LARGEST] {
            let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
            std::fs::write(&path, &bytes).unwrap();
            assert!(read(&path).unwrap().expose() == bytes, "{len}");
        }
        std::fs::write(&path, vec![1; LARGEST + 1]).unwrap();
        assert!(read(&path).unwrap_err().message().contains("larger"));
        std::fs::write(&path, "").unwrap();
        assert!(read(&path).unwrap_err().message().contains("empty"));
        for bad in [folder.path().to_owned(), folder.path().join("none")] {
            assert!(read(&bad).unwrap_err().message().contains("cannot be read"));
        }
    }

    #[test]
    fn a_folder_means_its_files_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        assert!(files(folder.path()).unwrap_err().message().contains("no file"));
        for name in ["b.wif", "a.wif", ".hidden"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        let found: Vec<_> = files(folder.path()).unwrap().iter().map(|path| stem(path)).collect();
        assert_eq!(found, ["a", "b"]);
    }
}
