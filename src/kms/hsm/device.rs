//! The device: its module, one session, and the thread that uses them.
//!
//! The rules are:
//! - calls of a module block, so a thread of the provider's own makes them, one after the other, and callers wait no longer than
//!   the deadline; where the application forbids threads the calling thread makes them, and no deadline can hold;
//! - module, session and login are made by the first call and kept; when they are lost, they are made anew once for each call;
//! - PKCS #11 has one initialisation and one login for the whole process, which the application may share: the module is never
//!   finalised, never unloaded and never logged out here;
//! - a PIN that the device refused is not tried again, lest the device lock it;
//! - in a forked child nothing of the parent's device is touched; the provider is made anew there.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::{RawAuthPin, Ulong};
use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use super::fault::{Fail, Try, fail};
use super::name::{Class, Name};
use super::pin::PinSource;
use crate::error::{Error, Kind, KmsFault, Result};
use crate::runtime;
use crate::secret::{SecureBytes, process_generation};

/// How long the end of a provider waits for a call that the device does not answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How Strongroom names itself in C_GetInfo.
const OURSELVES: &str = "Strongroom";

/// Which device, and how to log in to it.
#[derive(Debug)]
pub struct Place {
    /// The file of the PKCS #11 module.
    pub module: PathBuf,
    /// The label of the token.
    pub label: Option<String>,
    /// The serial number of the token.
    pub serial: Option<String>,
    /// The number of the slot.
    pub slot: Option<u32>,
    /// Where its PIN is.
    pub pin: PinSource,
}

/// A device and the thread that uses it.
pub struct Device {
    shared: Arc<Shared>,
    worker: Arc<Worker>,
    deadline: Duration,
    generation: u64,
}

/// What the jobs share.
struct Shared {
    place: Place,
    state: Mutex<State>,
}

/// What stays between two jobs.
#[derive(Default)]
struct State {
    module: Option<Pkcs11>,
    open: Option<Connection>,
    refused: Option<SecureBytes>,
}

/// An open session on the token.
pub struct Connection {
    /// The session: read-only, logged in.
    pub session: Session,
    /// The serial number of the token.
    pub serial: String,
    module: Pkcs11,
    slot: Slot,
    mechanisms: Vec<MechanismType>,
    ciphers: Vec<MechanismType>,
    handles: HashMap<Name, ObjectHandle>,
}

type Job = Box<dyn FnOnce(&Shared) + Send>;

/// The thread of a device, once there is one.
#[derive(Default)]
struct Worker(Mutex<Option<(Sender<Job>, JoinHandle<()>)>>);

impl Device {
    /// Makes a device that nothing has touched yet.
    pub fn new(place: Place, deadline: Duration) -> Self {
        let shared = Arc::new(Shared { place, state: Mutex::default() });
        Self { shared, worker: Arc::default(), deadline, generation: process_generation() }
    }

    /// Runs a job on the device and waits for it, for as long as the deadline allows. A job whose session is lost runs twice.
    ///
    /// # Errors
    /// What the job or the way to the device answers; `TimedOut` past the deadline.
    pub fn run<T: Send + 'static>(&self, job: impl FnMut(&mut Connection) -> Try<T> + Send + 'static) -> Result<T> {
        let (shared, worker) = (self.shared.clone(), self.worker.clone());
        runtime::run(self.deadline, async move {
            if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
                return shared.work(false, job);
            }
            let (tell, told) = oneshot::channel();
            let run: Job = Box::new(move |shared| {
                // A caller that gave up wants no key made and no signature any more.
                if !tell.is_closed() {
                    let _ = tell.send(shared.work(true, job));
                }
            });
            worker.send(&shared, run)?;
            told.await.unwrap_or_else(|_| Err(Error::internal("the call of the PKCS #11 module broke off")))
        })
    }
}

impl Drop for Device {
    /// Closes the session and ends the thread, if this is still the process that made them.
    fn drop(&mut self) {
        let worker = self.worker.0.lock().take();
        if self.generation != process_generation() {
            std::mem::forget((worker, self.shared.clone()));
            return;
        }
        let Some((sender, thread)) = worker else { return };
        drop(sender);
        let end = Instant::now() + PATIENCE;
        while !thread.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Worker {
    /// Hands a job to the thread, and starts it if there is none.
    fn send(&self, shared: &Arc<Shared>, job: Job) -> Result<()> {
        let mut worker = self.0.lock();
        let job = match &*worker {
            Some((sender, _)) => match sender.send(job) {
                Ok(()) => return Ok(()),
                Err(returned) => returned.0,
            },
            None => job,
        };
        let (sender, receiver) = channel();
        let shared = shared.clone();
        let thread = std::thread::Builder::new()
            .name("strongroom-hsm".to_owned())
            .spawn(move || serve(&shared, receiver))
            .map_err(|error| Error::new(Kind::HostMemory, "the thread of the HSM cannot start").caused_by(error))?;
        let sent = sender.send(job);
        *worker = Some((sender, thread));
        sent.map_err(|_| Error::internal("the thread of the HSM ended at once"))
    }
}

/// Does the jobs until the provider is gone, and closes the session then.
fn serve(shared: &Arc<Shared>, jobs: Receiver<Job>) {
    for job in jobs {
        job(shared);
    }
    shared.state.lock().open = None;
}

impl Shared {
    /// Does a job, on a new session if the one that was there is lost.
    fn work<T>(&self, threads: bool, mut job: impl FnMut(&mut Connection) -> Try<T>) -> Result<T> {
        let mut state = self.state.lock();
        let fresh = state.open.is_none();
        let mut outcome = state.attempt(&self.place, threads, &mut job);
        if outcome.as_ref().is_err_and(|fail| fail.lost) {
            state.open = None;
            if !fresh {
                outcome = state.attempt(&self.place, threads, &mut job);
            }
        }
        if outcome.as_ref().is_err_and(|fail| fail.lost) {
            state.open = None;
        }
        outcome.map_err(|fail| fail.error)
    }
}

impl State {
    /// Does a job on the session that there is, or on a new one.
    fn attempt<T>(&mut self, place: &Place, threads: bool, job: &mut impl FnMut(&mut Connection) -> Try<T>) -> Try<T> {
        if self.open.is_none() {
            self.open = Some(self.connect(place, threads)?);
        }
        match &mut self.open {
            Some(connection) => job(connection),
            None => Err(Error::internal("the session of the HSM is gone").into()),
        }
    }

    /// Opens a session on the token and logs in.
    fn connect(&mut self, place: &Place, threads: bool) -> Try<Connection> {
        let module = self.module(place, threads)?;
        let (slot, token) = find_token(&module, place)?;
        let session = module.open_ro_session(slot).map_err(|error| fail(error, "open a session on the token"))?;
        self.log_in(&session, &token, &place.pin)?;
        let mechanisms = module.get_mechanism_list(slot).map_err(|error| fail(error, "list the token's mechanisms"))?;
        let encrypts = |of: &MechanismType| module.get_mechanism_info(slot, *of).is_ok_and(|info| info.encrypt());
        let ciphers =
            [MechanismType::AES_KEY_WRAP, MechanismType::AES_KEY_WRAP_PAD].into_iter().filter(encrypts).collect();
        let serial = token.serial_number().to_owned();
        Ok(Connection { session, serial, module, slot, mechanisms, ciphers, handles: HashMap::new() })
    }

    /// Loads and initialises the module; one that the application initialised is as good.
    fn module(&mut self, place: &Place, threads: bool) -> Try<Pkcs11> {
        let module = match &self.module {
            Some(module) => module.clone(),
            None => Pkcs11::new(&place.module)
                .map_err(|error| fail(error, format!("load the PKCS #11 module {}", place.module.display())))?,
        };
        let mut flags = CInitializeFlags::OS_LOCKING_OK;
        flags.set(CInitializeFlags::LIBRARY_CANT_CREATE_OS_THREADS, !threads);
        let first = match module.initialize(CInitializeArgs::new(flags)) {
            Ok(()) => true,
            Err(Pkcs11Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => false,
            Err(error) => {
                return Err(fail(error, format!("initialise the PKCS #11 module {}", place.module.display())));
            }
        };
        if self.module.is_none() {
            let module = refuse_ourselves(module, first)?;
            // Kept for the life of the process: others may use it, and it may have threads of its own.
            std::mem::forget(module.clone());
            self.module = Some(module);
        }
        self.module.clone().ok_or_else(|| Error::internal("the module of the HSM is gone").into())
    }

    /// Logs in as the user, if the token wants it and nobody did.
    fn log_in(&mut self, session: &Session, token: &TokenInfo, source: &PinSource) -> Try<()> {
        let pin = source.read()?;
        if pin.is_none() && !token.login_required() {
            return Ok(());
        }
        self.may_log_in(token, pin.as_ref())?;
        let answer = match &pin {
            Some(pin) => session.login_with_raw(UserType::User, &RawAuthPin::new(Box::new(pin.expose().to_vec()))),
            None => session.login(UserType::User, None),
        };
        match answer {
            Ok(()) | Err(Pkcs11Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(error) => {
                let wrong = matches!(error, Pkcs11Error::Pkcs11(RvError::PinIncorrect, _));
                self.refused = pin.filter(|_| wrong);
                Err(fail(error, format!("log in to the token `{}`", token.label().escape_debug())))
            }
        }
    }

    /// Says no before a login that would do harm or cannot be.
    fn may_log_in(&self, token: &TokenInfo, pin: Option<&SecureBytes>) -> Try<()> {
        let label = token.label().escape_debug().to_string();
        let no = |text: String| Err(Fail::new(KmsFault::Denied, text));
        if pin.is_none() && !token.protected_authentication_path() {
            return no(format!(
                "the token `{label}` wants a PIN: name its source by pin_file, pin_env or pin_credential"
            ));
        }
        if pin.is_some() && pin == self.refused.as_ref() {
            return no(format!(
                "the token `{label}` refused this PIN before, and it is not tried again lest the token lock it; correct \
                 pin_file, pin_env or pin_credential"
            ));
        }
        if token.user_pin_locked() {
            return no(format!("the PIN of the token `{label}` is locked; its security officer can unlock it"));
        }
        if token.user_pin_final_try() {
            return no(format!(
                "one try is left before the token `{label}` locks its PIN; log in once with the device's own tool first"
            ));
        }
        Ok(())
    }
}

/// Makes a number of the module's own width.
pub fn ulong(value: u32) -> Ulong {
    std::ffi::c_ulong::from(value).into()
}

/// Refuses a module that is this library: it would wait for itself.
fn refuse_ourselves(module: Pkcs11, initialised_here: bool) -> Try<Pkcs11> {
    let info = module.get_library_info().map_err(|error| fail(error, "ask the PKCS #11 module for its name"))?;
    if info.manufacturer_id() != OURSELVES {
        return Ok(module);
    }
    if initialised_here {
        // A copy under another name, which only this call has used.
        let _ = module.finalize();
    }
    let text = "the module of the HSM is Strongroom itself, which would wait for itself; name the module of the device, or \
                use another type of KMS";
    Err(Fail::new(KmsFault::Unsupported, text))
}

/// Finds the token that the settings name.
fn find_token(module: &Pkcs11, place: &Place) -> Try<(Slot, TokenInfo)> {
    let slots = module.get_slots_with_token().map_err(|error| fail(error, "list the slots of the module"))?;
    let all: Vec<_> = slots.into_iter().filter_map(|slot| Some((slot, module.get_token_info(slot).ok()?))).collect();
    let mut fitting = all.iter().filter(|(slot, token)| place.fits(*slot, token));
    match (fitting.next(), fitting.next()) {
        (Some((slot, token)), None) => Ok((*slot, token.clone())),
        (None, _) => Err(Fail::new(
            KmsFault::Unreachable,
            format!("the token {place} is not there; the module has {}", list(&all)),
        )),
        (Some(_), Some(_)) => Err(Fail::new(
            KmsFault::Failed,
            format!("there is more than one token {place}; name one by serial: {}", list(&all)),
        )),
    }
}

/// Lists tokens for a person.
fn list(tokens: &[(Slot, TokenInfo)]) -> String {
    let named: Vec<_> = tokens
        .iter()
        .map(|(_, token)| {
            format!("`{}` (serial {})", token.label().escape_debug(), token.serial_number().escape_debug())
        })
        .collect();
    if named.is_empty() { "none".to_owned() } else { named.join(", ") }
}

impl Place {
    /// Tells whether a token is the one; without any setting every initialised one is.
    fn fits(&self, slot: Slot, token: &TokenInfo) -> bool {
        token.token_initialized()
            && self.label.as_deref().is_none_or(|label| label == token.label())
            && self.serial.as_deref().is_none_or(|serial| serial == token.serial_number())
            && self.slot.is_none_or(|number| u64::from(number) == slot.id())
    }
}

impl std::fmt::Display for Place {
    /// Names the token as the settings do.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slot = self.slot.map(|slot| format!("in slot {slot}"));
        let serial = self.serial.as_ref().map(|serial| format!("with serial {}", serial.escape_debug()));
        let label = self.label.as_ref().map(|label| format!("`{}`", label.escape_debug()));
        let parts: Vec<_> = [label, serial, slot].into_iter().flatten().collect();
        f.write_str(&if parts.is_empty() { "in any slot".to_owned() } else { parts.join(" ") })
    }
}

impl Connection {
    /// Tells whether the token offers a mechanism.
    pub fn offers(&self, mechanism: MechanismType) -> bool {
        self.mechanisms.contains(&mechanism)
    }

    /// Tells whether a mechanism of key wrapping encrypts data as well, so that the data need not be an object of the device.
    pub fn encrypts_by(&self, mechanism: MechanismType) -> bool {
        self.ciphers.contains(&mechanism)
    }

    /// Opens a session that can make keys; the login holds for it too.
    pub fn writable(&self) -> Try<Session> {
        self.module.open_rw_session(self.slot).map_err(|error| fail(error, "open a session that can make keys"))
    }

    /// Finds the objects of the token that have these attributes.
    pub fn find(&self, template: &[Attribute]) -> Try<Vec<ObjectHandle>> {
        let template = [&[Attribute::Token(true)], template].concat();
        self.session.find_objects(&template).map_err(|error| fail(error, "look for the key on the token"))
    }

    /// Remembers where a key is that was found in another way.
    pub fn remember(&mut self, name: Name, handle: ObjectHandle) {
        self.handles.insert(name, handle);
    }

    /// Finds the one key of a name, and remembers where it is.
    pub fn handle(&mut self, name: &Name) -> Try<ObjectHandle> {
        if let Some(handle) = self.handles.get(name) {
            return Ok(*handle);
        }
        let class = match name.class {
            Class::Private => cryptoki::object::ObjectClass::PRIVATE_KEY,
            Class::Secret => cryptoki::object::ObjectClass::SECRET_KEY,
        };
        let found = self.find(&[
            Attribute::Class(class),
            Attribute::Label(name.label.clone()),
            Attribute::Id(name.id.clone()),
        ])?;
        match found.as_slice() {
            [handle] => {
                self.handles.insert(name.clone(), *handle);
                Ok(*handle)
            }
            [] => Err(Fail::new(KmsFault::NotFound, self.missing(name))),
            _ => Err(Fail::new(
                KmsFault::Failed,
                format!("the token has more than one key `{name}`; give each an id of its own (CKA_ID)"),
            )),
        }
    }

    /// Says that a key is not there.
    fn missing(&self, name: &Name) -> String {
        let here = self.serial.escape_debug();
        if self.serial == name.serial {
            format!("the token with serial {here} has no key `{name}` (any more)")
        } else {
            format!(
                "the token with serial {here} has no key `{name}`, which was on another token; copy it, or use that token"
            )
        }
    }
}
