//! The token that this process has open for the Rust face.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::oneshot;

use crate::abi::compose;
use crate::ck::{CK_SLOT_ID, CKF_RW_SESSION, CKF_SERIAL_SESSION, CKF_TOKEN_INITIALIZED, CKF_WRITE_PROTECTED, CKU_USER};
use crate::config::Config;
use crate::crypto;
use crate::error::{Error, Kind, Result};
use crate::kms::KmsProvider;
use crate::secret::{SecureBytes, process_generation};
use crate::token::{Library, Session};

/// The label of a token that is not named.
const LABEL: &str = "strongroom";
/// How many random bytes are in the SO PIN of a token that is made without one; nobody knows it.
const SO_PIN_BYTES: usize = 48;
/// What it starts with: a character of each class that rules for passwords may ask for.
const EVERY_CLASS: &[u8] = b"aA1-";

/// Which token to open, and how.
#[derive(Default)]
pub struct Options {
    config: Option<String>,
    label: Option<String>,
    pin: Option<SecureBytes>,
    so_pin: Option<SecureBytes>,
    provider: Option<Arc<dyn KmsProvider>>,
}

impl Options {
    /// Names nothing: the configuration is found as C_Initialize finds it, and the token's label is `strongroom`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the configuration from this file.
    #[must_use]
    pub fn config(self, path: impl Into<String>) -> Self {
        Self { config: Some(path.into()), ..self }
    }

    /// Opens the token with this label.
    #[must_use]
    pub fn token(self, label: impl Into<String>) -> Self {
        Self { label: Some(label.into()), ..self }
    }

    /// Opens it with this user PIN, where the configuration has none for it.
    #[must_use]
    pub fn pin(self, pin: SecureBytes) -> Self {
        Self { pin: Some(pin), ..self }
    }

    /// Makes the token with this SO PIN, if it is not there yet. It lets a key be tried again that wrong passwords have locked
    /// ([`super::KeyManager::reset_key_tries`]); without it, such a key stays locked.
    #[must_use]
    pub fn so_pin(self, so_pin: SecureBytes) -> Self {
        Self { so_pin: Some(so_pin), ..self }
    }

    /// Seals the token under this provider, and opens it by the machine's identity there, without a PIN.
    #[must_use]
    pub fn provider(self, provider: Box<dyn KmsProvider>) -> Self {
        Self { provider: Some(provider.into()), ..self }
    }
}

/// An open token.
pub struct Instance {
    generation: u64,
    library: Arc<Library>,
    session: Arc<Session>,
}

static CURRENT: ArcSwapOption<Instance> = ArcSwapOption::const_empty();

/// Makes an open token that of this process.
pub fn set(instance: Instance) {
    end(CURRENT.swap(Some(Arc::new(instance))));
}

/// Closes the open token.
pub fn clear() {
    end(CURRENT.swap(None));
}

/// Ends what was open; what a forked child inherited is leaked, since its locks belong to the parent.
fn end(instance: Option<Arc<Instance>>) {
    match instance {
        Some(old) if old.generation == process_generation() => old.library.shutdown(),
        other => std::mem::forget(other),
    }
}

impl Instance {
    /// Gives the open token.
    ///
    /// # Errors
    /// `CryptokiNotInitialized` before [`super::KeyManager::init`], and in a forked child.
    pub fn current() -> Result<Arc<Self>> {
        let open = CURRENT.load_full().filter(|instance| instance.generation == process_generation());
        open.ok_or_else(|| Error::new(Kind::CryptokiNotInitialized, "no token is open: KeyManager::init opens one"))
    }

    /// Opens a token, or makes one that has no PIN.
    ///
    /// # Errors
    /// As [`super::KeyManager::init`].
    pub fn open(options: Options) -> Result<Self> {
        let label = options.label.as_deref().unwrap_or(LABEL);
        let config = Config::load(options.config.as_deref())?;
        let library = compose::library_with(&config, label, options.provider)?;
        let slot = match find(&library, label)? {
            Some(slot) => slot,
            None => make(&library, label, options.so_pin)?,
        };
        let changes = if library.token_info(slot)?.flags & CKF_WRITE_PROTECTED == 0 { CKF_RW_SESSION } else { 0 };
        let session = library.session(library.open_session(slot, CKF_SERIAL_SESSION | changes)?)?;
        if !session.is_user() {
            session.login(CKU_USER, options.pin)?;
        }
        Ok(Self { generation: process_generation(), library, session })
    }

    /// Gives the session, whose user is logged in.
    pub fn session(&self) -> &Session {
        &self.session
    }
}

/// Finds the slot of the token with this label; of several, the one that was made first.
fn find(library: &Library, label: &str) -> Result<Option<CK_SLOT_ID>> {
    for slot in library.slots(true)? {
        let info = library.token_info(slot);
        if info.is_ok_and(|info| info.flags & CKF_TOKEN_INITIALIZED != 0 && info.label == label) {
            return Ok(Some(slot));
        }
    }
    Ok(None)
}

/// Makes a token without a user PIN. An SO PIN that is not given is random and forgotten.
fn make(library: &Library, label: &str, so_pin: Option<SecureBytes>) -> Result<CK_SLOT_ID> {
    if !library.opens_itself(label) {
        let text = format!(
            "there is no token `{}`: make it with `strongroom token init --label`, or give KeyManager a provider",
            label.escape_debug()
        );
        return Err(Error::new(Kind::TokenNotPresent, text));
    }
    let mut padded = [b' '; 32];
    let room = padded.get_mut(..label.len()).ok_or_else(|| Error::arguments_bad("a label has 32 bytes at most"))?;
    room.copy_from_slice(label.as_bytes());
    let free = |slot: &CK_SLOT_ID| library.token_info(*slot).is_ok_and(|info| info.flags & CKF_TOKEN_INITIALIZED == 0);
    let slot = library.slots(true)?.into_iter().find(free);
    let slot = slot.ok_or_else(|| Error::new(Kind::TokenWriteProtected, "the store is read-only"))?;
    let so_pin = so_pin.map_or_else(random_pin, Ok)?;
    let made = library.init_new_token(slot, &so_pin, &padded);
    // Where several processes begin at once, the first one makes the token.
    match (find(library, label)?, made) {
        (Some(slot), _) => Ok(slot),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(Error::internal("a token that was just made is not there")),
    }
}

/// Makes a random PIN that any rules for passwords take.
fn random_pin() -> Result<SecureBytes> {
    let random = crypto::random::secure(SO_PIN_BYTES)?;
    let digits = SecureBytes::take(data_encoding::HEXLOWER.encode(random.expose()).into_bytes());
    Ok(SecureBytes::take([EVERY_CLASS, digits.expose()].concat()))
}

/// Runs work that may wait on a thread of its own. A thread of an executor must not wait, and those of our runtime serve the KMS.
///
/// # Errors
/// What the work answers; `HostMemory` when there is no thread for it; `FunctionFailed` when it panics.
pub async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (tell, told) = oneshot::channel();
    let run = move || {
        // Nobody listens any more when the caller gave up.
        let _ = tell.send(work());
    };
    let thread = std::thread::Builder::new().name("strongroom-call".to_owned()).spawn(run);
    thread.map_err(|error| Error::from(Kind::HostMemory).caused_by(error))?;
    told.await.unwrap_or_else(|_| Err(Error::internal("a call of KeyManager panicked")))
}
