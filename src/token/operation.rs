//! Operations of a session: what is active, and the one place that decides when it ends (PKCS #11 v3.2, 5.2, 5.8–5.16).
//!
//! The rules are:
//! - an operation is made at Init, with everything checked; the calls after it only run it;
//! - any error ends it; a size query and a buffer that is too small keep it, and nothing was done;
//! - an operation with a private key ends with the login under which it began;
//! - a key with `CKA_ALWAYS_AUTHENTICATE` waits for C_Login(CKU_CONTEXT_SPECIFIC) after Init; where that login opens the key, the
//!   operation is made by it (`deferred.rs`);
//! - an operation with a key that the session has unlocked ends with the lease of it (`unlocked.rs`);
//! - a session remembers the key that it used last, so that threads which use one key at once do not meet in the token's tables.

use std::sync::{Arc, Weak};

use super::deferred::{Asked, Closed, Deferred, Start};
use super::find::Find;
use super::object::Object;
use super::running;
use super::session::Session;
use super::unlocked::Lease;
use super::uses::Stock;
use super::version::Limits;
use crate::ck::*;

use crate::error::{Error, Kind, Result};
use crate::mechanism::{
    self, CipherOperation, DigestOperation, InOut, Key, Mechanism, Output, Params, SignOperation, Step,
    VerifyOperation, Written,
};

/// A checked `CK_MECHANISM`.
pub struct Call {
    /// The row.
    pub mechanism: &'static Mechanism,
    /// The parameter, in the shape that the row asks for.
    pub params: Params,
}

/// How much room the caller gives for a short output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// None: only the size is asked for.
    Query,
    /// So many bytes.
    Bytes(usize),
}

/// What a call answers. A signature stays on the stack: a box would cost each signature an allocation.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Reply {
    /// So many bytes of room are needed; nothing was done.
    Needs(usize),
    /// A short output, to be copied out.
    Bytes(Output),
    /// A wrapped key, to be copied out.
    Wrapped(Vec<u8>),
    /// So many bytes were written where the caller wanted them.
    Written(usize),
}

/// An operation that runs.
pub struct Active<T: ?Sized> {
    operation: Box<T>,
    /// The token's login count, for an operation with a private object.
    login: Option<u64>,
    /// The number of the operation, while it still waits for its own login.
    waits: Option<u64>,
    /// What makes the operation once that login has opened its key.
    deferred: Option<Box<Deferred<T>>>,
    /// For how long its key is unlocked, where the session has unlocked it.
    lease: Option<Arc<Lease>>,
    /// Whether parts have been given.
    parts: bool,
}

/// The key that a session used last, and for what it was checked.
struct Recent {
    handle: CK_OBJECT_HANDLE,
    usage: CK_ATTRIBUTE_TYPE,
    mechanism: CK_MECHANISM_TYPE,
    /// The token's stamp when it was checked.
    stamp: (u64, u64),
    /// Weak, so that a key is wiped as soon as its object is gone.
    key: Weak<Key>,
    login: Option<u64>,
    /// Whether each use needs a login of its own.
    always_authenticate: bool,
    /// Until when the version of a managed key may be used so, in seconds since 1970.
    until: Option<u64>,
    /// For how long it is unlocked, where the session has unlocked it.
    lease: Option<Arc<Lease>>,
    /// Where the uses of a version come from whose uses are limited.
    uses: Option<Stock>,
}

/// What is active in a session; one of each kind at most.
#[derive(Default)]
pub struct Operations {
    recent: Option<Recent>,
    /// Counts operations that began.
    begun: u64,
    pub(super) find: Option<Find>,
    digest: Option<Active<dyn DigestOperation>>,
    sign: Option<Active<dyn SignOperation>>,
    verify: Option<Active<dyn VerifyOperation>>,
    encrypt: Option<Active<dyn CipherOperation>>,
    decrypt: Option<Active<dyn CipherOperation>>,
}

impl Operations {
    fn next_number(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }

    /// Finds the operation that began last and waits for a context-specific login: its number, and what that login must open.
    pub fn waiting(&self) -> Option<(u64, Option<Asked>)> {
        let all = [waits(&self.sign), waits(&self.decrypt), waits(&self.encrypt), waits(&self.verify)];
        all.into_iter().flatten().max_by_key(|waiting| waiting.0)
    }

    /// Lets the operation of that number go on, with the key that its login has opened.
    ///
    /// # Errors
    /// The mechanism's, when the operation cannot be made of the key: it has ended then.
    pub fn authorize(&mut self, number: u64, key: Option<&Arc<Key>>) -> Result<()> {
        authorize(&mut self.sign, number, key)?;
        authorize(&mut self.decrypt, number, key)?;
        authorize(&mut self.encrypt, number, key)?;
        authorize(&mut self.verify, number, key)
    }

    /// Ends the operation of that number, whose key may not be used so any more.
    pub fn refuse(&mut self, number: u64) {
        refuse(&mut self.sign, number);
        refuse(&mut self.decrypt, number);
        refuse(&mut self.encrypt, number);
        refuse(&mut self.verify, number);
    }

    /// Ends the operations whose keys are not unlocked any more.
    pub fn end_unlocked(&mut self) {
        end_unlocked(&mut self.sign);
        end_unlocked(&mut self.verify);
        end_unlocked(&mut self.encrypt);
        end_unlocked(&mut self.decrypt);
        self.recent.take_if(|recent| recent.lease.as_ref().is_some_and(|lease| !lease.holds()));
    }

    /// Ends everything that uses a private object.
    pub fn end_private(&mut self) {
        end_private(&mut self.digest);
        end_private(&mut self.sign);
        end_private(&mut self.verify);
        end_private(&mut self.encrypt);
        end_private(&mut self.decrypt);
        self.recent = None;
        self.find = None;
    }

    /// Ends the operations named by flags (C_SessionCancel); those that are not active are no error.
    pub fn cancel(&mut self, flags: CK_FLAGS) {
        cancel(&mut self.find, flags & CKF_FIND_OBJECTS);
        cancel(&mut self.digest, flags & CKF_DIGEST);
        cancel(&mut self.sign, flags & CKF_SIGN);
        cancel(&mut self.verify, flags & CKF_VERIFY);
        cancel(&mut self.encrypt, flags & CKF_ENCRYPT);
        cancel(&mut self.decrypt, flags & CKF_DECRYPT);
    }
}

fn waits<T: ?Sized>(slot: &Option<Active<T>>) -> Option<(u64, Option<Asked>)> {
    let active = slot.as_ref()?;
    active.waits.map(|number| (number, active.deferred.as_ref().map(|deferred| deferred.asked)))
}

fn authorize<T: ?Sized>(slot: &mut Option<Active<T>>, number: u64, key: Option<&Arc<Key>>) -> Result<()> {
    let Some(mut active) = slot.take_if(|active| active.waits == Some(number)) else { return Ok(()) };
    if let Some(deferred) = active.deferred.take() {
        active.operation = deferred.start(key.ok_or_else(|| Error::internal("a login opened no key"))?)?;
    }
    active.waits = None;
    *slot = Some(active);
    Ok(())
}

fn refuse<T: ?Sized>(slot: &mut Option<Active<T>>, number: u64) {
    slot.take_if(|active| active.waits == Some(number));
}

fn end_unlocked<T: ?Sized>(slot: &mut Option<Active<T>>) {
    slot.take_if(|active| active.lease.as_ref().is_some_and(|lease| !lease.holds()));
}

fn end_private<T: ?Sized>(slot: &mut Option<Active<T>>) {
    slot.take_if(|active| active.login.is_some());
}

fn cancel<T>(slot: &mut Option<T>, named: CK_FLAGS) {
    slot.take_if(|_| named != 0);
}

/// What a step leaves behind.
enum Next<R> {
    /// The operation goes on.
    Keep(R),
    /// It has come to its end.
    End(R),
}

/// Runs a step of an operation. Here, and nowhere else, it is decided whether the operation goes on.
fn step<T: ?Sized, R>(
    slot: &mut Option<Active<T>>,
    login: u64,
    run: impl FnOnce(&mut Active<T>) -> Result<Next<R>>,
) -> Result<R> {
    let Some(mut active) = slot.take() else { return Err(Kind::OperationNotInitialized.into()) };
    if active.login.is_some_and(|begun| begun != login) {
        return Err(Error::new(
            Kind::OperationNotInitialized,
            "the operation ended with the login under which it began",
        ));
    }
    if active.lease.as_ref().is_some_and(|lease| !lease.holds()) {
        return Err(Error::new(Kind::OperationNotInitialized, "the operation ended when its key was locked again"));
    }
    match run(&mut active)? {
        Next::Keep(result) => {
            *slot = Some(active);
            Ok(result)
        }
        Next::End(result) => Ok(result),
    }
}

/// Refuses to use a key before its own login. A size query does not use it.
fn check_authorized(waits: Option<u64>) -> Result<()> {
    let text = "the key asks for C_Login(CKU_CONTEXT_SPECIFIC) before each use";
    waits.map_or(Ok(()), |_| Err(Error::new(Kind::UserNotLoggedIn, text)))
}

/// Runs a step with a short output of known length.
fn short<T: ?Sized>(
    active: &mut Active<T>,
    room: Room,
    needed: usize,
    run: impl FnOnce(&mut T) -> Result<Output>,
) -> Result<Next<Reply>> {
    match room {
        // What an operation needs that is not made yet, nobody knows.
        Room::Bytes(room) if room >= needed || active.deferred.is_some() => {
            check_authorized(active.waits)?;
            Ok(Next::End(Reply::Bytes(run(&mut active.operation)?)))
        }
        _ => Ok(Next::Keep(Reply::Needs(needed))),
    }
}

/// Refuses a single-part call after parts have been given.
fn check_no_parts<T: ?Sized>(active: &Active<T>) -> Result<()> {
    match active.parts {
        false => Ok(()),
        true => {
            Err(Error::new(Kind::OperationActive, "a multi-part operation is under way: it ends with its Final call"))
        }
    }
}

/// Adds a part.
fn part<T: ?Sized>(active: &mut Active<T>, run: impl FnOnce(&mut T) -> Result<()>) -> Result<Next<()>> {
    check_authorized(active.waits)?;
    active.parts = true;
    run(&mut active.operation).map(Next::Keep)
}

/// Checks that an operation may be given a part.
fn takes_parts<T: ?Sized>(active: &mut Active<T>) -> Result<Next<()>> {
    check_authorized(active.waits).map(Next::Keep)
}

/// Runs a step of a cipher, whose output goes straight to the caller's memory.
fn cipher(active: &mut Active<dyn CipherOperation>, which: Step, data: InOut<'_>, query: bool) -> Result<Next<Reply>> {
    if which == Step::Single {
        check_no_parts(active)?;
    }
    if query {
        return Ok(Next::Keep(Reply::Needs(active.operation.output_len(which, data.len()))));
    }
    check_authorized(active.waits)?;
    let written = match which {
        Step::Single => active.operation.single(data)?,
        Step::Update => active.operation.update(data)?,
        Step::Final => active.operation.finish(data)?,
    };
    Ok(match (written, which) {
        (Written::Needs(needed), _) => Next::Keep(Reply::Needs(needed)),
        (Written::Bytes(written), Step::Update) => {
            active.parts = true;
            Next::Keep(Reply::Written(written))
        }
        (Written::Bytes(written), _) => Next::End(Reply::Written(written)),
    })
}

/// A key checked for one use: the parsed key, and what binds the operation to the login.
pub struct Checked {
    /// The key, parsed; `None` while its owner's password is to be given.
    key: Option<Arc<Key>>,
    asked: Asked,
    login: Option<u64>,
    /// Whether each use needs a login of its own.
    always_authenticate: bool,
    /// What bounds its use; nothing is counted yet.
    pub(super) limits: Limits,
    /// For how long it is unlocked, where the session has unlocked it.
    lease: Option<Arc<Lease>>,
}

/// An operation that is made, or what makes it once its key is open.
struct Started<T: ?Sized>(Box<T>, Option<Box<Deferred<T>>>);

impl Checked {
    /// Gives the key.
    ///
    /// # Errors
    /// `UserNotLoggedIn` while its owner's password is to be given.
    pub fn key(&self) -> Result<&Arc<Key>> {
        self.check_needs_no_login()?;
        self.key.as_ref().ok_or_else(|| Error::from(Kind::UserNotLoggedIn))
    }

    /// Makes an operation, now or by the login that opens the key.
    fn start<T: ?Sized + Closed>(&self, start: Start<T>, params: &Params) -> Result<Started<T>> {
        let Some(key) = &self.key else {
            let deferred = Deferred { asked: self.asked, start, params: params.clone() };
            return Ok(Started(T::closed(), Some(Box::new(deferred))));
        };
        Ok(Started(start(key, params)?, None))
    }

    fn active<T: ?Sized>(self, Started(operation, deferred): Started<T>, number: u64) -> Active<T> {
        let waits = self.always_authenticate.then_some(number);
        Active { operation, login: self.login, waits, deferred, lease: self.lease, parts: false }
    }

    /// Refuses a key that asks for a login of its own, for a call that is over before one can be given.
    ///
    /// # Errors
    /// `UserNotLoggedIn`.
    pub fn check_needs_no_login(&self) -> Result<()> {
        check_authorized(self.always_authenticate.then_some(0))
    }
}

impl Session {
    /// Finds a key and checks that it may be used so: usage attribute, type, version, allowed mechanisms.
    ///
    /// # Errors
    /// `KeyHandleInvalid`, `KeyFunctionNotPermitted`, `KeyTypeInconsistent`, `MechanismInvalid`.
    pub(super) fn permitted_key(&self, asked: Asked) -> Result<(Arc<Object>, Limits)> {
        let Asked { handle, usage, row } = asked;
        self.catch_up();
        let object = self.token.object(handle).map_err(of_key)?;
        let attributes = object.attributes();
        let Some(key_type) = attributes.ulong(CKA_KEY_TYPE) else {
            return Err(Error::new(Kind::KeyHandleInvalid, "the object is not a key"));
        };
        if !row.key_types.contains(&key_type) {
            let text = format!("{} does not take keys of type {key_type:#x}", mechanism_name(row.id));
            return Err(Error::new(Kind::KeyTypeInconsistent, text));
        }
        if !attributes.is(usage) {
            let text = format!("the key's {} is not true", attribute_name(usage));
            return Err(Error::new(Kind::KeyFunctionNotPermitted, text));
        }
        let limits = self.check_version(attributes, usage)?;
        if let Some(Value::Mechanisms(allowed)) = attributes.get(CKA_ALLOWED_MECHANISMS)
            && !allowed.contains(&row.id)
        {
            let text = format!("the key's CKA_ALLOWED_MECHANISMS does not have {}", mechanism_name(row.id));
            return Err(Error::new(Kind::MechanismInvalid, text));
        }
        Ok((object, limits))
    }

    /// Finds a key that may be used so, and opens it where nothing but the token key is needed. The use is not counted yet
    /// ([`Self::count_use`]): that comes last, so that nobody uses a key up who may not use it.
    ///
    /// # Errors
    /// As [`Self::permitted_key`]; `KeySizeRange`.
    pub(super) fn checked_key(
        &self,
        handle: CK_OBJECT_HANDLE,
        usage: CK_ATTRIBUTE_TYPE,
        row: &'static Mechanism,
    ) -> Result<(Arc<Object>, Checked)> {
        let asked = Asked { handle, usage, row };
        let (object, limits) = self.permitted_key(asked)?;
        let token = &self.token;
        let (key, lease) = match object.has_password() {
            true => self.unlocked.find(handle, object.login).map(|found| (found.key, found.lease)).unzip(),
            false => {
                let key = object.key(self.lane, || token.secret(&object), || token.profile().remote)?;
                (Some(key), None)
            }
        };
        let always_authenticate = object.attributes().is(CKA_ALWAYS_AUTHENTICATE) && lease.is_none();
        let login = object.is_private().then_some(object.login);
        Ok((object, Checked { key, asked, login, always_authenticate, limits, lease }))
    }

    /// Does the same for an operation, and counts the use; when the session used this key for the same last, and nothing has changed
    /// since, without another look. A use of a key that is closed is counted when its login opens it.
    fn key_to_use(
        &self,
        recent: &mut Option<Recent>,
        handle: CK_OBJECT_HANDLE,
        usage: CK_ATTRIBUTE_TYPE,
        row: &'static Mechanism,
    ) -> Result<Checked> {
        self.catch_up();
        let stamp = self.token.stamp();
        if let Some(known) = recent
            && (known.handle, known.usage, known.mechanism, known.stamp) == (handle, usage, row.id, stamp)
            && known.until.is_none_or(|until| self.library.now() < until)
            && known.lease.as_ref().is_none_or(|lease| lease.holds())
            && let Some(key) = known.key.upgrade()
        {
            known.uses.as_mut().map_or(Ok(()), |uses| uses.take(&self.token))?;
            let (login, always_authenticate, limits) = (known.login, known.always_authenticate, Limits::default());
            let lease = known.lease.clone();
            let (key, asked) = (Some(key), Asked { handle, usage, row });
            return Ok(Checked { key, asked, login, always_authenticate, limits, lease });
        }
        let (object, checked) = self.checked_key(handle, usage, row)?;
        *recent = None;
        let Some(key) = &checked.key else { return Ok(checked) };
        let uses = self.count_use(&object, usage, checked.limits)?;
        let (key, lease) = (Arc::downgrade(key), checked.lease.clone());
        let Checked { login, always_authenticate, limits: Limits { until, .. }, .. } = checked;
        let mechanism = row.id;
        *recent = Some(Recent { handle, usage, mechanism, stamp, key, login, always_authenticate, until, lease, uses });
        Ok(checked)
    }

    fn login_count(&self) -> u64 {
        self.token.login_count()
    }

    /// Starts a digest (5.12.1); without a mechanism, cancels the one that runs.
    ///
    /// # Errors
    /// `MechanismInvalid`, `OperationActive`.
    pub fn digest_init(&self, call: Option<Call>) -> Result<()> {
        let mut operations = self.operations.lock();
        let Some(call) = call else { return cancelled(&mut operations.digest) };
        let start = call.mechanism.digest.ok_or_else(|| cannot(call.mechanism, "digest"))?;
        check_free(&operations.digest)?;
        operations.digest =
            Some(Active { operation: start()?, login: None, waits: None, deferred: None, lease: None, parts: false });
        Ok(())
    }

    /// Digests in one part (5.12.2).
    ///
    /// # Errors
    /// `OperationNotInitialized`, `OperationActive`.
    pub fn digest(&self, data: &[u8], room: Room) -> Result<Reply> {
        step(&mut self.operations.lock().digest, self.login_count(), |active| {
            check_no_parts(active)?;
            let needed = active.operation.output_len();
            short(active, room, needed, |operation| operation.digest(data))
        })
    }

    /// Adds data to a digest (5.12.3).
    ///
    /// # Errors
    /// `OperationNotInitialized`.
    pub fn digest_update(&self, data: &[u8]) -> Result<()> {
        step(&mut self.operations.lock().digest, self.login_count(), |active| {
            part(active, |operation| operation.update(data))
        })
    }

    /// Adds the value of a secret key to a digest (5.12.4), of a key whose value the caller may read. The digest of another one would
    /// be of use instead of the key: as the key of an HMAC (RFC 2104), or as what a key derivation makes of it.
    ///
    /// # Errors
    /// `KeyHandleInvalid`, `KeyIndigestible`.
    pub fn digest_key(&self, handle: CK_OBJECT_HANDLE) -> Result<()> {
        self.catch_up();
        let object = self.token.object(handle).map_err(of_key)?;
        self.check_version(object.attributes(), CKA_VALUE)?;
        let readable = object.class() == CKO_SECRET_KEY && object.shows_secret(self.token.profile().policy.plaintext);
        let secret = if readable { self.secret_of(&object)? } else { None };
        step(&mut self.operations.lock().digest, self.login_count(), |active| {
            let text = "only the value of a secret key that can be read goes into a digest: derive a key (C_DeriveKey) or make a MAC";
            let secret = secret.ok_or_else(|| Error::new(Kind::KeyIndigestible, text))?;
            self.note_use("C_DigestKey", None, &[handle])?;
            active.login = object.is_private().then_some(object.login).or(active.login);
            part(active, |operation| operation.update(secret.expose()))
        })
    }

    /// Ends a digest (5.12.5).
    ///
    /// # Errors
    /// `OperationNotInitialized`.
    pub fn digest_final(&self, room: Room) -> Result<Reply> {
        step(&mut self.operations.lock().digest, self.login_count(), |active| {
            let needed = active.operation.output_len();
            short(active, room, needed, |operation| operation.finish())
        })
    }

    /// Starts a signature or MAC (5.13.1); without a mechanism, cancels the one that runs.
    ///
    /// # Errors
    /// `MechanismInvalid`, `OperationActive`, and as for the key.
    pub fn sign_init(&self, call: Option<Call>, key: CK_OBJECT_HANDLE) -> Result<()> {
        let mechanism = call.as_ref().map(|call| call.mechanism.id);
        self.using("C_SignInit", mechanism, key, || self.begin_sign(call, key))
    }

    fn begin_sign(&self, call: Option<Call>, key: CK_OBJECT_HANDLE) -> Result<()> {
        let mut operations = self.operations.lock();
        let Some(call) = call else { return cancelled(&mut operations.sign) };
        let start = call.mechanism.sign.ok_or_else(|| cannot(call.mechanism, "sign"))?;
        check_free(&operations.sign)?;
        let checked = self.key_to_use(&mut operations.recent, key, CKA_SIGN, call.mechanism)?;
        let number = operations.next_number();
        let started = checked.start(start, &call.params)?;
        self.note_use("C_SignInit", Some(call.mechanism.id), &[key])?;
        operations.sign = Some(checked.active(started, number));
        Ok(())
    }

    /// Signs in one part (5.13.2).
    ///
    /// # Errors
    /// `OperationNotInitialized`, `OperationActive`, `DataLenRange`.
    pub fn sign(&self, data: &[u8], room: Room) -> Result<Reply> {
        step(&mut self.operations.lock().sign, self.login_count(), |active| {
            check_no_parts(active)?;
            let needed = active.operation.output_len();
            short(active, room, needed, |operation| operation.sign(data))
        })
    }

    /// Adds data to a signature (5.13.3).
    ///
    /// # Errors
    /// `OperationNotInitialized`.
    pub fn sign_update(&self, data: &[u8]) -> Result<()> {
        step(&mut self.operations.lock().sign, self.login_count(), |active| {
            part(active, |operation| operation.update(data))
        })
    }

    /// Ends a multi-part signature (5.13.4).
    ///
    /// # Errors
    /// `OperationNotInitialized`.
    pub fn sign_final(&self, room: Room) -> Result<Reply> {
        step(&mut self.operations.lock().sign, self.login_count(), |active| {
            let needed = active.operation.output_len();
            short(active, room, needed, |operation| operation.finish())
        })
    }

    /// Starts a verification (5.15.1); without a mechanism, cancels the one that runs.
    ///
    /// # Errors
    /// As [`Self::sign_init`].
    pub fn verify_init(&self, call: Option<Call>, key: CK_OBJECT_HANDLE) -> Result<()> {
        let mechanism = call.as_ref().map(|call| call.mechanism.id);
        self.using("C_VerifyInit", mechanism, key, || self.begin_verify(call, key))
    }

    fn begin_verify(&self, call: Option<Call>, key: CK_OBJECT_HANDLE) -> Result<()> {
        let mut operations = self.operations.lock();
        let Some(call) = call else { return cancelled(&mut operations.verify) };
        let start = call.mechanism.verify.ok_or_else(|| cannot(call.mechanism, "verify"))?;
        check_free(&operations.verify)?;
        let checked = self.key_to_use(&mut operations.recent, key, CKA_VERIFY, call.mechanism)?;
        let number = operations.next_number();
        let started = checked.start(start, &call.params)?;
        self.note_use("C_VerifyInit", Some(call.mechanism.id), &[key])?;
        operations.verify = Some(checked.active(started, number));
        Ok(())
    }

    /// Verifies in one part (5.15.2).
    ///
    /// # Errors
    /// `SignatureInvalid`, `SignatureLenRange`, `OperationNotInitialized`.
    pub fn verify(&self, data: &[u8], signature: &[u8]) -> Result<()> {
        step(&mut self.operations.lock().verify, self.login_count(), |active| {
            check_no_parts(active)?;
            check_authorized(active.waits)?;
            active.operation.verify(data, signature).map(Next::End)
        })
    }

    /// Adds data to a verification (5.15.3).
    ///
    /// # Errors
    /// `OperationNotInitialized`.
    pub fn verify_update(&self, data: &[u8]) -> Result<()> {
        step(&mut self.operations.lock().verify, self.login_count(), |active| {
            part(active, |operation| operation.update(data))
        })
    }

    /// Ends a multi-part verification (5.15.4).
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_final(&self, signature: &[u8]) -> Result<()> {
        step(&mut self.operations.lock().verify, self.login_count(), |active| {
            check_authorized(active.waits)?;
            active.operation.finish(signature).map(Next::End)
        })
    }

    /// Starts an encryption (5.8.1); without a mechanism, cancels the one that runs.
    ///
    /// # Errors
    /// As [`Self::sign_init`].
    pub fn encrypt_init(&self, call: Option<Call>, key: CK_OBJECT_HANDLE) -> Result<()> {
        let mechanism = call.as_ref().map(|call| call.mechanism.id);
        self.using("C_EncryptInit", mechanism, key, || self.begin_encrypt(call, key))
    }

    fn begin_encrypt(&self, call: Option<Call>, key: CK_OBJECT_HANDLE) -> Result<()> {
        let mut operations = self.operations.lock();
        let Some(call) = call else { return cancelled(&mut operations.encrypt) };
        let start = call.mechanism.encrypt.ok_or_else(|| cannot(call.mechanism, "encrypt"))?;
        check_free(&operations.encrypt)?;
        let checked = self.key_to_use(&mut operations.recent, key, CKA_ENCRYPT, call.mechanism)?;
        let call = self.with_versions(call, key)?;
        let number = operations.next_number();
        let started = checked.start(start, &call.params)?;
        self.note_use("C_EncryptInit", Some(call.mechanism.id), &[key])?;
        operations.encrypt = Some(checked.active(started, number));
        Ok(())
    }

    /// Encrypts in one part (5.8.2).
    ///
    /// # Errors
    /// `DataLenRange`, `OperationNotInitialized`, `OperationActive`.
    pub fn encrypt(&self, data: InOut<'_>, query: bool) -> Result<Reply> {
        step(&mut self.operations.lock().encrypt, self.login_count(), |active| {
            cipher(active, Step::Single, data, query)
        })
    }

    /// Encrypts one part of several (5.8.3).
    ///
    /// # Errors
    /// As [`Self::encrypt`].
    pub fn encrypt_update(&self, data: InOut<'_>, query: bool) -> Result<Reply> {
        step(&mut self.operations.lock().encrypt, self.login_count(), |active| {
            cipher(active, Step::Update, data, query)
        })
    }

    /// Ends an encryption (5.8.4).
    ///
    /// # Errors
    /// As [`Self::encrypt`].
    pub fn encrypt_final(&self, data: InOut<'_>, query: bool) -> Result<Reply> {
        step(&mut self.operations.lock().encrypt, self.login_count(), |active| cipher(active, Step::Final, data, query))
    }

    /// Starts a decryption (5.10.1); without a mechanism, cancels the one that runs.
    ///
    /// # Errors
    /// As [`Self::sign_init`].
    pub fn decrypt_init(&self, call: Option<Call>, key: CK_OBJECT_HANDLE) -> Result<()> {
        let mechanism = call.as_ref().map(|call| call.mechanism.id);
        self.using("C_DecryptInit", mechanism, key, || self.begin_decrypt(call, key))
    }

    fn begin_decrypt(&self, call: Option<Call>, key: CK_OBJECT_HANDLE) -> Result<()> {
        let mut operations = self.operations.lock();
        let Some(call) = call else { return cancelled(&mut operations.decrypt) };
        let start = call.mechanism.decrypt.ok_or_else(|| cannot(call.mechanism, "decrypt"))?;
        check_free(&operations.decrypt)?;
        let checked = self.key_to_use(&mut operations.recent, key, CKA_DECRYPT, call.mechanism)?;
        let call = self.with_versions(call, key)?;
        let number = operations.next_number();
        let started = checked.start(start, &call.params)?;
        self.note_use("C_DecryptInit", Some(call.mechanism.id), &[key])?;
        operations.decrypt = Some(checked.active(started, number));
        Ok(())
    }

    /// Decrypts in one part (5.10.2).
    ///
    /// # Errors
    /// `EncryptedDataInvalid`, `EncryptedDataLenRange`, `OperationNotInitialized`, `OperationActive`.
    pub fn decrypt(&self, data: InOut<'_>, query: bool) -> Result<Reply> {
        step(&mut self.operations.lock().decrypt, self.login_count(), |active| {
            cipher(active, Step::Single, data, query)
        })
    }

    /// Decrypts one part of several (5.10.3).
    ///
    /// # Errors
    /// As [`Self::decrypt`].
    pub fn decrypt_update(&self, data: InOut<'_>, query: bool) -> Result<Reply> {
        step(&mut self.operations.lock().decrypt, self.login_count(), |active| {
            cipher(active, Step::Update, data, query)
        })
    }

    /// Ends a decryption (5.10.4).
    ///
    /// # Errors
    /// As [`Self::decrypt`].
    pub fn decrypt_final(&self, data: InOut<'_>, query: bool) -> Result<Reply> {
        step(&mut self.operations.lock().decrypt, self.login_count(), |active| cipher(active, Step::Final, data, query))
    }

    /// Checks that an operation is active which reads plaintext (`CKF_DIGEST`, `CKF_SIGN`, `CKF_VERIFY`) and may be given a part.
    ///
    /// # Errors
    /// `OperationNotInitialized`; `UserNotLoggedIn` before the key's own login.
    pub fn check_takes_parts(&self, which: CK_FLAGS) -> Result<()> {
        let (operations, login) = (&mut *self.operations.lock(), self.login_count());
        match which {
            CKF_DIGEST => step(&mut operations.digest, login, takes_parts),
            CKF_SIGN => step(&mut operations.sign, login, takes_parts),
            _ => step(&mut operations.verify, login, takes_parts),
        }
    }

    /// Cancels operations by flags (C_SessionCancel, 5.6.11).
    ///
    /// # Errors
    /// None today: an operation in software can always be cancelled.
    pub fn cancel(&self, flags: CK_FLAGS) -> Result<()> {
        self.operations.end(flags & !(running::PRIVATE | running::UNLOCKED));
        Ok(())
    }
}

fn check_free<T: ?Sized>(slot: &Option<Active<T>>) -> Result<()> {
    match slot {
        None => Ok(()),
        Some(_) => Err(Kind::OperationActive.into()),
    }
}

fn cancelled<T: ?Sized>(slot: &mut Option<Active<T>>) -> Result<()> {
    *slot = None;
    Ok(())
}

/// Makes the error of a mechanism that cannot do what is asked.
pub fn cannot(row: &Mechanism, what: &str) -> Error {
    Error::new(Kind::MechanismInvalid, format!("{} cannot {what}", mechanism::name(row)))
}

/// Tells the error of an object's handle as that of a key's; other errors stay what they are.
pub fn of_key(error: Error) -> Error {
    match error.kind() {
        Kind::ObjectHandleInvalid => Kind::KeyHandleInvalid.into(),
        _ => error,
    }
}
