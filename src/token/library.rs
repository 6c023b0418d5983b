//! The library: slots and tokens, the table of sessions, and what all of them share (PKCS #11 v3.2, 5.4–5.6).
//!
//! The rules are:
//! - the store is opened by the first call that needs it, and tried again by the next when that failed;
//! - each initialised token has a slot of its own whose id follows from its serial number, and there is always one more slot
//!   with a token that can be initialised, whose id is already that of the serial number it will get;
//! - tokens that other processes made appear with the next list;
//! - a token whose row is damaged takes no other one with it: its slot is listed, and reports the error on use.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use parking_lot::{Condvar, Mutex, RwLock};

use super::attend::Attendant;
use super::handle;
use super::login;
use super::master::make_first_key;
use super::policy::{MAX_PIN_LEN, Profile, Profiles};
use super::remote::RemoteToken;
use super::running::{self, Running};
use super::session::Session;
use super::token::{Login, Token};
use super::trail::user_of;
use super::unlocked::{Lease, UnlockedKeys};
use crate::audit::{Event, Signers, Trail, User};
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::mechanism::{self, Mechanism};
use crate::secret::SecureBytes;
use crate::store::{Serial, Store, TokenRow};

/// Who makes the library, as the info structures tell.
pub const MANUFACTURER: &str = "Strongroom";
/// The model that every token tells.
pub const MODEL: &str = "Strongroom v1";

/// How often the store is asked for other processes' changes at most, in milliseconds.
const CATCH_UP_MILLIS: u64 = 1000;

/// In how many parts the table of sessions is locked: so many that two busy sessions hardly ever share one.
const SESSION_SHARDS: usize = 256;

/// The operation that makes a token, as records name it.
const INIT: &str = "C_InitToken";

/// Opens the store.
pub type OpenStore = Box<dyn Fn() -> Result<Arc<dyn Store>> + Send + Sync>;

/// Tells the seconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What the library is made of; `abi/compose.rs` fills it from the configuration.
pub struct Parts {
    /// Opens the store, or tells what is wrong with the configuration.
    pub open_store: OpenStore,
    /// How each token is kept.
    pub profiles: Profiles,
    /// Where operations are recorded.
    pub trail: Arc<Trail>,
    /// Why the library has no slot, if the configuration is wrong.
    pub fault: Option<String>,
    /// What `SR_GetStatus` tells of the configuration, as JSON object.
    pub status: String,
    /// The clock by which managed keys are made, become due, and grow too old.
    pub clock: Clock,
}

/// What sessions share.
pub struct Shared {
    store: Mutex<Option<Arc<dyn Store>>>,
    sessions: DashMap<CK_SESSION_HANDLE, Arc<Session>, RandomState>,
    /// How many sessions have been opened.
    opened: AtomicUsize,
    started: Instant,
    /// When the store was asked last, in milliseconds since `started`, and what it answered.
    asked: AtomicU64,
    changes: AtomicU64,
    clock: Clock,
    /// When the next lease of an unlocked key is over, in seconds since 1970.
    next_end: AtomicU64,
    /// What looks after tokens in the background, if anything does.
    pub(super) attendant: OnceLock<Arc<dyn Attendant>>,
}

impl Shared {
    /// Tells the seconds since 1970.
    pub(super) fn now(&self) -> u64 {
        (self.clock)()
    }

    /// Tells the store's change count, as it was about a second ago at most.
    pub(super) fn changes(&self) -> u64 {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let asked = self.asked.load(Ordering::Relaxed);
        if now.saturating_sub(asked) >= CATCH_UP_MILLIS
            && self.asked.compare_exchange(asked, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.sweep_leases();
            if let Some(store) = self.store.lock().clone()
                && let Ok(changes) = store.change_count()
            {
                self.changes.store(changes, Ordering::Relaxed);
            }
        }
        self.changes.load(Ordering::Relaxed)
    }

    /// Ends the operations with private keys in all sessions of a token (C_Logout), and locks what they have unlocked.
    pub(super) fn end_private_operations(&self, token: &Arc<Token>) {
        for session in self.sessions_of(token) {
            session.unlocked.lock_all();
            session.operations.end(running::PRIVATE);
        }
    }

    /// Locks what the sessions of a token have unlocked.
    pub(super) fn lock_keys(&self, token: &Arc<Token>) {
        for session in self.sessions_of(token) {
            session.unlocked.lock_all();
            session.operations.end(running::UNLOCKED);
        }
    }

    /// Starts a lease of so many seconds for a key that is unlocked; 0 is without end.
    pub(super) fn lease(&self, seconds: u64) -> Lease {
        Lease::new(self.clock.clone(), seconds)
    }

    /// Takes note of when a lease that somebody holds is over.
    pub(super) fn expect_end(&self, lease: &Lease) {
        if let Some(until) = lease.until() {
            self.next_end.fetch_min(until, Ordering::AcqRel);
        }
    }

    /// Drops unlocked keys whose time is over, also in sessions that nobody uses.
    fn sweep_leases(&self) {
        if self.now() < self.next_end.load(Ordering::Acquire) {
            return;
        }
        // A lease that is not seen below is noted after this.
        self.next_end.store(u64::MAX, Ordering::Release);
        let next = self.sessions.iter().filter_map(|row| row.unlocked.sweep()).min();
        if let Some(next) = next {
            self.next_end.fetch_min(next, Ordering::AcqRel);
        }
    }

    /// Tells whether a session is open.
    pub(super) fn has_session(&self, handle: CK_SESSION_HANDLE) -> bool {
        self.sessions.contains_key(&handle)
    }

    fn sessions_of(&self, token: &Arc<Token>) -> Vec<Arc<Session>> {
        self.sessions.iter().filter(|row| Arc::ptr_eq(&row.token, token)).map(|row| row.value().clone()).collect()
    }
}

/// What a list has of a slot.
struct Listed {
    slot: CK_SLOT_ID,
    /// The token, or why it cannot be used.
    token: Result<Arc<Token>>,
}

/// One initialised library.
pub struct Library {
    parts: Parts,
    shared: Arc<Shared>,
    tokens: RwLock<Vec<Arc<Token>>>,
    ended: AtomicBool,
    slot_event: (Mutex<()>, Condvar),
}

/// What C_GetSlotInfo tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// What the slot is.
    pub description: String,
    /// Who makes it.
    pub manufacturer: String,
    /// `CKF_TOKEN_PRESENT`.
    pub flags: CK_FLAGS,
    /// Major and minor version of the hardware.
    pub hardware: (u8, u8),
    /// Major and minor version of the firmware.
    pub firmware: (u8, u8),
}

/// What C_GetTokenInfo tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    /// The label, not padded; empty for a token that is not initialised.
    pub label: String,
    /// Who makes it.
    pub manufacturer: String,
    /// The model.
    pub model: String,
    /// The serial number.
    pub serial: [u8; 16],
    /// `CKF_…`.
    pub flags: CK_FLAGS,
    /// The most sessions that can be open: unlimited.
    pub max_session_count: u64,
    /// Sessions that this process has open.
    pub session_count: u64,
    /// The most read-write sessions that can be open: unlimited.
    pub max_rw_session_count: u64,
    /// Read-write sessions that this process has open.
    pub rw_session_count: u64,
    /// The longest PIN in bytes.
    pub max_pin_len: u64,
    /// The shortest PIN in bytes.
    pub min_pin_len: u64,
    /// Major and minor version of the hardware.
    pub hardware: (u8, u8),
    /// Major and minor version of the firmware.
    pub firmware: (u8, u8),
}

/// What C_GetMechanismInfo tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MechanismInfo {
    /// The smallest key, in the mechanism's unit.
    pub min: u64,
    /// The largest key.
    pub max: u64,
    /// `CKF_…`.
    pub flags: CK_FLAGS,
}

impl Library {
    /// Makes a library. Nothing is opened yet.
    pub fn new(parts: Parts) -> Self {
        let shared = Shared {
            store: Mutex::new(None),
            sessions: DashMap::with_hasher_and_shard_amount(RandomState::default(), SESSION_SHARDS),
            opened: AtomicUsize::new(0),
            started: Instant::now(),
            asked: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            clock: parts.clock.clone(),
            next_end: AtomicU64::new(u64::MAX),
            attendant: OnceLock::new(),
        };
        let (tokens, ended) = (RwLock::new(Vec::new()), AtomicBool::new(false));
        Self { parts, shared: Arc::new(shared), tokens, ended, slot_event: Default::default() }
    }

    /// Lets something look after the tokens from now on; what was set first stays.
    pub fn attended_by(self, attendant: Arc<dyn Attendant>) -> Self {
        self.shared.attendant.get_or_init(|| attendant);
        self
    }

    /// Gives the store, opened at first use.
    ///
    /// # Errors
    /// `DeviceError` when it cannot be opened.
    pub fn store(&self) -> Result<Arc<dyn Store>> {
        let mut store = self.shared.store.lock();
        if self.ended.load(Ordering::Acquire) {
            return Err(Kind::CryptokiNotInitialized.into());
        }
        if let Some(store) = &*store {
            return Ok(store.clone());
        }
        let opened = (self.parts.open_store)()?;
        *store = Some(opened.clone());
        Ok(opened)
    }

    /// Brings the tokens in step with the store and lists them in the order in which they were made. One whose row is damaged
    /// keeps its slot; a process that knows it already goes on with its sessions, and is told when it reads the row.
    fn tokens(&self) -> Result<Vec<Listed>> {
        let store = self.store()?;
        // The rows are read under the lock: an older list never takes the place of a newer one.
        let mut tokens = self.tokens.write();
        let mut current = Vec::new();
        for row in store.tokens()? {
            let slot = u64::from(row.slot);
            let token = match (row.row, tokens.iter().find(|token| token.slot == slot)) {
                (Ok(row), known) => Ok(self.token_of(&row, known, &store)?),
                (Err(_), Some(known)) => Ok(known.clone()),
                (Err(error), None) => Err(error),
            };
            current.push(Listed { slot, token });
        }
        *tokens = current.iter().filter_map(|listed| listed.token.as_ref().ok().cloned()).collect();
        Ok(current)
    }

    /// Gives the token of a row: the one that is known, or a new one.
    fn token_of(&self, row: &TokenRow, known: Option<&Arc<Token>>, store: &Arc<dyn Store>) -> Result<Arc<Token>> {
        let profile = self.parts.profiles.of(&row.label).clone();
        match known.filter(|token| token.serial == row.serial) {
            Some(token) => {
                token.set_profile(profile)?;
                Ok(token.clone())
            }
            None => Ok(Arc::new(Token::new(row, store.clone(), profile, self.parts.trail.clone())?)),
        }
    }

    /// Lists the slots; each has a token, the last one a token that is not initialised.
    ///
    /// # Errors
    /// `DeviceError` when the store cannot be read.
    pub fn slots(&self, _with_token: bool) -> Result<Vec<CK_SLOT_ID>> {
        if self.parts.fault.is_some() {
            return Ok(Vec::new());
        }
        let mut slots: Vec<_> = self.tokens()?.iter().map(|listed| listed.slot).collect();
        if !self.store()?.read_only() {
            slots.push(u64::from(slot_of(&self.store()?.next_serial()?)));
        }
        Ok(slots)
    }

    /// Finds the token of a slot; `None` for the slot whose token is not initialised. Whoever uses the slot of a damaged token
    /// is told here.
    fn slot(&self, slot: CK_SLOT_ID) -> Result<Option<Arc<Token>>> {
        if let Some(fault) = &self.parts.fault {
            return Err(Error::new(Kind::SlotIdInvalid, format!("there is no slot: {fault}")));
        }
        if let Some(token) = self.tokens.read().iter().find(|token| token.slot == slot) {
            return Ok(Some(token.clone()));
        }
        if let Some(listed) = self.tokens()?.into_iter().find(|listed| listed.slot == slot) {
            return listed.token.map(Some);
        }
        match u64::from(slot_of(&self.store()?.next_serial()?)) == slot {
            true => Ok(None),
            false => Err(Kind::SlotIdInvalid.into()),
        }
    }

    /// Finds the initialised token of a slot.
    fn token(&self, slot: CK_SLOT_ID) -> Result<Arc<Token>> {
        let text = "the token of this slot is not initialised: C_InitToken first (pkcs11-tool --init-token)";
        self.slot(slot)?.ok_or_else(|| Error::new(Kind::TokenNotRecognized, text))
    }

    /// Tells of a slot (5.5.2).
    ///
    /// # Errors
    /// `SlotIdInvalid`; `DeviceError` when the store cannot be read.
    pub fn slot_info(&self, slot: CK_SLOT_ID) -> Result<SlotInfo> {
        let description = match self.slot(slot)? {
            Some(token) => format!("Strongroom slot of token {}", String::from_utf8_lossy(&token.serial)),
            None => "Strongroom slot for a new token".to_owned(),
        };
        let (hardware, firmware) = versions();
        Ok(SlotInfo {
            description,
            manufacturer: MANUFACTURER.to_owned(),
            flags: CKF_TOKEN_PRESENT,
            hardware,
            firmware,
        })
    }

    /// Tells of a token (5.5.3).
    ///
    /// # Errors
    /// As [`Self::slot_info`].
    pub fn token_info(&self, slot: CK_SLOT_ID) -> Result<TokenInfo> {
        let token = self.slot(slot)?;
        let store = self.store()?;
        let protected = if store.read_only() { CKF_WRITE_PROTECTED } else { 0 };
        let (hardware, firmware) = versions();
        let mut info = TokenInfo {
            label: String::new(),
            manufacturer: MANUFACTURER.to_owned(),
            model: MODEL.to_owned(),
            serial: store.next_serial()?,
            flags: CKF_RNG | CKF_LOGIN_REQUIRED | CKF_DUAL_CRYPTO_OPERATIONS | protected,
            max_session_count: CK_EFFECTIVELY_INFINITE,
            session_count: 0,
            max_rw_session_count: CK_EFFECTIVELY_INFINITE,
            rw_session_count: 0,
            max_pin_len: u64::try_from(MAX_PIN_LEN).unwrap_or(u64::MAX),
            min_pin_len: u64::try_from(self.parts.profiles.default.policy.password.min_length).unwrap_or(0),
            hardware,
            firmware,
        };
        if let Some(token) = token {
            describe(&token, &token.row()?, &mut info);
        }
        Ok(info)
    }

    /// Lets the KMS of a token open it as far as no PIN is needed, and tells by which master key: one KMS call.
    ///
    /// # Errors
    /// As [`Self::token_info`]; what the KMS answers; `DeviceError` for an envelope that is damaged or of another token, and with what to
    /// do for another `pin_source`.
    pub fn check_master_key(&self, slot: CK_SLOT_ID) -> Result<String> {
        let token = self.token(slot)?;
        Ok(token.check_envelopes(&token.row()?)?.master_key().to_string())
    }

    /// Lists the mechanisms (5.5.5).
    ///
    /// # Errors
    /// `SlotIdInvalid`.
    pub fn mechanisms(&self, slot: CK_SLOT_ID) -> Result<Vec<CK_MECHANISM_TYPE>> {
        let remote = self.remote(slot)?;
        Ok(mechanism::all().filter(|row| is_here(row, remote.as_deref())).map(|row| row.id).collect())
    }

    /// Tells of a mechanism (5.5.6).
    ///
    /// # Errors
    /// `SlotIdInvalid`, `MechanismInvalid`.
    pub fn mechanism_info(&self, slot: CK_SLOT_ID, id: CK_MECHANISM_TYPE) -> Result<MechanismInfo> {
        let remote = self.remote(slot)?;
        let row = mechanism::find(id).filter(|row| is_here(row, remote.as_deref()));
        let row = row.ok_or_else(|| Error::from(Kind::MechanismInvalid))?;
        let never_remote = if remote.is_some() { CKF_WRAP | CKF_UNWRAP | CKF_DERIVE } else { 0 };
        Ok(MechanismInfo { min: row.key_size.0, max: row.key_size.1, flags: mechanism::flags(row) & !never_remote })
    }

    /// Gives the KMS whose keys a slot shows, if it shows such.
    fn remote(&self, slot: CK_SLOT_ID) -> Result<Option<Arc<dyn RemoteToken>>> {
        Ok(self.slot(slot)?.and_then(|token| token.profile().remote))
    }

    /// Initialises a token (5.5.7): a new one in the free slot, or one that is there, whose objects are all destroyed.
    ///
    /// # Errors
    /// `SessionExists`; `PinIncorrect`, `PinLocked` for a token that is there; `PinLenRange`, `PinInvalid` for a new one.
    pub fn init_token(&self, slot: CK_SLOT_ID, so_pin: Option<SecureBytes>, label: &[u8; 32]) -> Result<()> {
        let so_pin = so_pin.ok_or_else(|| Error::arguments_bad("the SO PIN must be given"))?;
        let label = label_of(label)?;
        match self.slot(slot)? {
            Some(token) => {
                let mut event = Event::new(INIT, 0, User::So);
                token.recorded(&mut event, |event| self.init_again(&token, event, &so_pin, label))
            }
            None => self.init_new(&so_pin, label),
        }?;
        self.tokens()?;
        Ok(())
    }

    /// Initialises a new token in the free slot, and never one that is there already.
    ///
    /// # Errors
    /// `FunctionFailed` when another process has made a token there meanwhile; as [`Self::init_token`].
    pub fn init_new_token(&self, slot: CK_SLOT_ID, so_pin: &SecureBytes, label: &[u8; 32]) -> Result<()> {
        let label = label_of(label)?;
        if self.slot(slot)?.is_some() {
            return Err(Error::new(
                Kind::FunctionFailed,
                "another process has made a token in this slot meanwhile; it is left as it is: try again",
            ));
        }
        self.init_new(so_pin, label)?;
        self.tokens()?;
        Ok(())
    }

    fn init_new(&self, so_pin: &SecureBytes, label: String) -> Result<()> {
        let store = self.store()?;
        let serial = store.next_serial()?;
        let profile = self.parts.profiles.of(&label).clone();
        make_first_key(store.as_ref(), &profile.sealer)?;
        let (row, token_key) = login::new_row(blank_row(serial, label), &profile, so_pin)?;
        let (trail, event) = (&self.parts.trail, Event::new(INIT, 0, User::So));
        let mut line = None;
        store.write(&mut |transaction| {
            transaction.insert_token(&row)?;
            line = trail.append(transaction, &serial, &event, Some(Signers::of(&token_key)))?;
            Ok(())
        })?;
        trail.copy(line);
        Ok(())
    }

    fn init_again(&self, token: &Arc<Token>, event: &Event, so_pin: &SecureBytes, label: String) -> Result<()> {
        if token.session_counts().0 > 0 {
            return Err(Kind::SessionExists.into());
        }
        let old = token.row()?;
        let (old_key, _) = token.try_pin(&old, crate::store::Role::So, so_pin, event)?;
        let profile = self.parts.profiles.of(&label);
        make_first_key(token.store.as_ref(), &profile.sealer)?;
        let (made, token_key) = login::new_row(TokenRow { label, ..old.clone() }, profile, so_pin)?;
        let signers = Signers { now: &token_key, before: &old_key };
        token.write_recorded(event, Some(signers), &mut |transaction| {
            let now = transaction.token(&token.serial)?;
            let Some(now) = now.filter(|now| now.so_envelope == old.so_envelope) else {
                return Err(Error::new(Kind::FunctionFailed, "another process initialised the token at the same time"));
            };
            transaction.delete_objects(&token.serial)?;
            transaction.update_token(&TokenRow { revision: now.revision + 1, ..made.clone() })
        })?;
        token.start_anew();
        Ok(())
    }

    /// Opens a session (5.6.1).
    ///
    /// # Errors
    /// `SessionParallelNotSupported`, `SessionAsyncNotSupported`, `SessionReadWriteSoExists`, `TokenWriteProtected`, `TokenNotRecognized`.
    pub fn open_session(&self, slot: CK_SLOT_ID, flags: CK_FLAGS) -> Result<CK_SESSION_HANDLE> {
        if flags & CKF_SERIAL_SESSION == 0 {
            return Err(Kind::SessionParallelNotSupported.into());
        }
        if flags & CKF_ASYNC_SESSION != 0 {
            return Err(Kind::SessionAsyncNotSupported.into());
        }
        let token = self.token(slot)?;
        let read_write = flags & CKF_RW_SESSION != 0;
        if read_write && token.store.read_only() {
            return Err(Kind::TokenWriteProtected.into());
        }
        let handle = handle::draw()?;
        token.count_session(read_write)?;
        let (library, operations) = (self.shared.clone(), Running::default());
        let lane = self.shared.opened.fetch_add(1, Ordering::Relaxed);
        let unlocked = Arc::new(UnlockedKeys::default());
        let session = Session { handle, lane, token, library, read_write, operations, unlocked };
        self.shared.sessions.insert(handle, Arc::new(session));
        // C_Finalize may have gone through the sessions just before this one was there.
        if self.ended.load(Ordering::Acquire) {
            let _ = self.close_session(handle);
            return Err(Kind::CryptokiNotInitialized.into());
        }
        let session = self.session(handle)?;
        let opened = session.open_itself().inspect_err(|_| {
            // It is not known to anybody yet.
            let _ = self.close_session(handle);
        })?;
        if opened {
            self.shared.logged_in(&session.token);
        }
        Ok(handle)
    }

    /// Finds a session.
    ///
    /// # Errors
    /// `SessionHandleInvalid`.
    pub fn session(&self, handle: CK_SESSION_HANDLE) -> Result<Arc<Session>> {
        self.shared
            .sessions
            .get(&handle)
            .map(|row| row.value().clone())
            .ok_or_else(|| Kind::SessionHandleInvalid.into())
    }

    /// Closes a session (5.6.2): its objects and operations go; with the last session of a token the login ends.
    ///
    /// # Errors
    /// `SessionHandleInvalid`.
    pub fn close_session(&self, handle: CK_SESSION_HANDLE) -> Result<()> {
        let (_, session) =
            self.shared.sessions.remove(&handle).ok_or_else(|| Error::from(Kind::SessionHandleInvalid))?;
        session.unlocked.lock_all();
        session.operations.clear();
        session.token.handles.remove_session_objects(handle);
        if let Some(login) = session.token.discount_session(session.read_write) {
            note_last_session(&session, &login);
        }
        Ok(())
    }

    /// Closes all sessions of a slot (5.6.3).
    ///
    /// # Errors
    /// `SlotIdInvalid`.
    pub fn close_all_sessions(&self, slot: CK_SLOT_ID) -> Result<()> {
        let Some(token) = self.slot(slot)? else { return Ok(()) };
        for session in self.shared.sessions_of(&token) {
            // Another thread may close it at the same time, which is as good.
            let _ = self.close_session(session.handle);
        }
        Ok(())
    }

    /// Waits for a slot event (5.5.4). Slots never change while nobody lists them, so only C_Finalize ends a wait.
    ///
    /// # Errors
    /// `NoEvent` when it must not block; `CryptokiNotInitialized` once the library is finalised.
    pub fn wait_for_slot_event(&self, block: bool) -> Result<CK_SLOT_ID> {
        if !block {
            return Err(Kind::NoEvent.into());
        }
        let mut waiting = self.slot_event.0.lock();
        while !self.ended.load(Ordering::Acquire) {
            self.slot_event.1.wait(&mut waiting);
        }
        Err(Kind::CryptokiNotInitialized.into())
    }

    /// Tells whether a token with this label would open without a PIN from a caller.
    pub fn opens_itself(&self, label: &str) -> bool {
        self.parts.profiles.of(label).pin_source.opens_itself()
    }

    /// Tells how the library stands, as JSON (`SR_GetStatus`).
    pub fn status(&self) -> String {
        self.parts.status.clone()
    }

    /// Tells how what looks after the tokens stands, as JSON, if anything does.
    pub fn attendant_status(&self) -> Option<String> {
        self.shared.attendant.get().map(|attendant| attendant.status())
    }

    /// Gives a session of each token whose user is logged in; nobody else sees it.
    pub fn users(&self) -> Vec<Session> {
        let tokens = self.tokens.read();
        tokens.iter().map(|token| Session::unseen(&self.shared, token)).filter(Session::is_user).collect()
    }

    /// Gives the audit trail.
    pub(super) fn trail(&self) -> &Trail {
        &self.parts.trail
    }

    /// Gives how a token of this label is kept.
    pub fn profile_of(&self, label: &str) -> Profile {
        self.parts.profiles.of(label).clone()
    }

    /// Ends the library: wakes who waits, closes all sessions, drops all secrets.
    pub fn shutdown(&self) {
        self.shutdown_with(|| ());
    }

    /// Ends the library as [`Self::shutdown`] does (C_Finalize); once nothing new begins, `end_calls` ends the calls of a KMS that are
    /// under way, so that nobody waits for one.
    pub fn shutdown_with(&self, end_calls: impl FnOnce()) {
        self.ended.store(true, Ordering::Release);
        drop(self.slot_event.0.lock());
        self.slot_event.1.notify_all();
        let attendant = self.shared.attendant.get();
        attendant.inspect(|attendant| attendant.stop());
        end_calls();
        attendant.inspect(|attendant| attendant.wait());
        let handles: Vec<_> = self.shared.sessions.iter().map(|row| *row.key()).collect();
        for handle in handles {
            let _ = self.close_session(handle);
        }
        self.tokens.write().clear();
        *self.shared.store.lock() = None;
    }
}

/// Records that a login ended with the last session of its token.
fn note_last_session(session: &Session, login: &Login) {
    session.token.note_logout(&Event::new("C_CloseSession", session.handle, user_of(Some(login.role))), login);
}

/// Tells the slot id of a serial number: the same in every process, below 2^31, never 0.
pub fn slot_of(serial: &Serial) -> u32 {
    let number = serial.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(0x0100_0000_01B3) ^ u64::from(*byte));
    let folded = u32::try_from((number ^ (number >> 33)) & 0x7FFF_FFFF).expect("31 bits");
    folded.max(1)
}

fn blank_row(serial: Serial, label: String) -> TokenRow {
    TokenRow {
        serial,
        slot: slot_of(&serial),
        label,
        revision: 1,
        created: 0,
        so_envelope: Vec::new(),
        user_envelope: None,
        so_failures: 0,
        user_failures: 0,
        last_failure: 0,
    }
}

/// Reads a padded label (5.5.7); one that is all blank gets a name, so that a token can always be told by it.
fn label_of(padded: &[u8; 32]) -> Result<String> {
    let text = std::str::from_utf8(padded).map_err(|_| Error::arguments_bad("the label is not UTF-8"))?;
    Ok(match text.trim_end_matches([' ', '\0']) {
        "" => "strongroom".to_owned(),
        label => label.to_owned(),
    })
}

fn describe(token: &Token, row: &TokenRow, info: &mut TokenInfo) {
    let (all, read_only) = token.session_counts();
    let user_pin = if row.user_envelope.is_some() { CKF_USER_PIN_INITIALIZED } else { 0 };
    let policy = token.profile().policy;
    if !token.needs_login(row) {
        info.flags &= !CKF_LOGIN_REQUIRED;
    }
    info.label.clone_from(&row.label);
    info.serial = row.serial;
    info.flags |= CKF_TOKEN_INITIALIZED | user_pin | login::pin_flags(row, &policy);
    info.session_count = all;
    info.rw_session_count = all.saturating_sub(read_only);
    info.min_pin_len = u64::try_from(policy.password.min_length).unwrap_or(0);
}

/// Tells whether a mechanism works in a slot: one of keys in a KMS has those that need no key, and those that the KMS can do.
fn is_here(row: &Mechanism, remote: Option<&dyn RemoteToken>) -> bool {
    let Some(remote) = remote else { return true };
    row.digest.is_some() || row.remote.is_some_and(|usage| remote.can(usage))
}

/// Tells the versions: there is no hardware; the firmware is this library.
fn versions() -> ((u8, u8), (u8, u8)) {
    let part = |text: &str| text.parse().unwrap_or(0);
    ((0, 0), (part(env!("CARGO_PKG_VERSION_MAJOR")), part(env!("CARGO_PKG_VERSION_MINOR"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r53_slot_ids_are_positive_and_spread() {
        let ids: std::collections::HashSet<_> = (0..10_000_u32)
            .map(|i| slot_of(format!("{:016X}", u64::from(i) << 13).as_bytes().try_into().expect("16")))
            .collect();
        assert!(ids.iter().all(|id| (1..1 << 31).contains(id)));
        assert!(ids.len() > 9_990);
    }
}
