//! Tokens whose keys live in a KMS: objects stand for them, and the KMS does what they are asked to do.
//!
//! The rules are:
//! - such an object is one like any other, with public parts and certificates beside it; its secret is the provider's name of the
//!   key, sealed, and no key material;
//! - keys that the configuration names are asked for once, when the token is first opened or searched; afterwards the store has
//!   them, and neither finding nor signing lists anything;
//! - a key that cannot be described is left out and logged: it never breaks the slot.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::attribute::{self, Origin};
use super::login::now_seconds;
use super::object::Object;
use super::operation::Call;
use super::session::Session;
use super::token::Token;
use super::trail::{name_of, user_of};
use crate::audit::Event;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::mechanism::{self, Hash, Mechanism, RemoteKind, RemoteService, RemoteUse};
use crate::secret::{SecureBytes, SecurePrivateKey};
use crate::store::{Role, Serial, Uid};

/// How many seconds pass before a token that has keys already is compared again with a KMS that was away.
const SYNC_PAUSE: u64 = 60;

/// What a key that lives in a KMS is.
#[derive(Debug, Clone)]
pub struct RemoteObject {
    /// The provider's full name of the key.
    pub id: String,
    /// A name for people.
    pub label: String,
    /// The public key as DER `SubjectPublicKeyInfo`; `None` for MAC keys.
    pub public: Option<Vec<u8>>,
    /// Whether it signs.
    pub sign: bool,
    /// Whether it decrypts.
    pub decrypt: bool,
    /// For a MAC key, its length in bytes.
    pub mac_len: u64,
}

/// The KMS of such a token; `keys/remote.rs` implements it.
pub trait RemoteToken: Send + Sync {
    /// Tells whether the KMS can do what a mechanism needs.
    fn can(&self, usage: RemoteUse) -> bool;

    /// Gives the names of the keys that the configuration shows; empty for all that the account has.
    fn names(&self) -> &[String];

    /// Finds a key by a name.
    ///
    /// # Errors
    /// What the KMS answers.
    fn find(&self, name: &str) -> Result<RemoteObject>;

    /// Lists the keys of the account that can be used here.
    ///
    /// # Errors
    /// What the KMS answers.
    fn list(&self) -> Result<Vec<RemoteObject>>;

    /// Makes a key.
    ///
    /// # Errors
    /// What the KMS answers; `FunctionNotSupported` for a kind that it has not.
    fn generate(&self, kind: RemoteKind, label: &str) -> Result<RemoteObject>;

    /// Reaches a key by the provider's name; no request.
    ///
    /// # Errors
    /// `DeviceError` when the name is none of this KMS.
    fn open(&self, id: &str, attributes: &Attributes) -> Result<Box<dyn RemoteService>>;
}

impl Session {
    /// Makes a pair of objects for a key pair that the KMS makes.
    ///
    /// # Errors
    /// The template's; what the KMS answers.
    pub(super) fn generate_remote_pair(
        &self,
        remote: &dyn RemoteToken,
        call: &Call,
        public: Attributes,
        private: Attributes,
        event: &mut Event,
    ) -> Result<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)> {
        let kind = kind_to_make(remote, call, &public)?;
        check_may_live_there(&public)?;
        check_may_live_there(&private)?;
        let made = remote.generate(kind, &label_of(&private).or_else(|| label_of(&public)).unwrap_or_default())?;
        let origin = Origin::Generate(call.mechanism.id);
        let [public, private] = halves(&made, public, private)?;
        let [public, private] = self.add_objects(
            [self.token.finish(&made, public, origin)?, self.token.finish(&made, private, origin)?],
            event,
        )?;
        Ok((public, private))
    }

    /// Makes the object of a MAC key that the KMS makes.
    ///
    /// # Errors
    /// As [`Self::generate_remote_pair`].
    pub(super) fn generate_remote_secret(
        &self,
        remote: &dyn RemoteToken,
        call: &Call,
        template: Attributes,
        event: &mut Event,
    ) -> Result<CK_OBJECT_HANDLE> {
        let kind = kind_to_make(remote, call, &template)?;
        check_may_live_there(&template)?;
        let made = remote.generate(kind, &label_of(&template).unwrap_or_default())?;
        let object = self.token.finish(&made, mac_key(&made, template), Origin::Generate(call.mechanism.id))?;
        let [handle] = self.add_objects([object], event)?;
        Ok(handle)
    }

    /// Brings the objects of a token of keys in a KMS in step with the account, and tells how many keys are new.
    ///
    /// # Errors
    /// `FunctionNotSupported` for another token; `UserNotLoggedIn`; what the KMS answers.
    pub fn sync_remote(&self) -> Result<usize> {
        let remote = self.token.profile().remote.ok_or_else(|| {
            Error::new(
                Kind::FunctionNotSupported,
                "the token shows no keys of a KMS: its [[token]] section has no `remote`",
            )
        })?;
        self.token.sync_remote(remote.as_ref(), true)
    }
}

impl Token {
    /// Brings a token of keys in a KMS in step with its configuration, once in this process. A KMS that is away is an error only
    /// while the token has no key at all.
    ///
    /// # Errors
    /// What the KMS answers.
    pub(super) fn sync_remote_once(&self) -> Result<()> {
        let Some(remote) = self.profile().remote else { return Ok(()) };
        let next = self.next_sync.load(Ordering::Acquire);
        if self.role() != Some(Role::User) || self.store.read_only() || now_seconds() < next {
            return Ok(());
        }
        // Whoever comes second in the meantime goes on with what is there.
        if self.next_sync.compare_exchange(next, u64::MAX, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return Ok(());
        }
        let Err(error) = self.sync_remote(remote.as_ref(), false) else { return Ok(()) };
        let known = self.known_remote().inspect_err(|_| self.next_sync.store(0, Ordering::Release))?;
        if known.is_empty() {
            self.next_sync.store(0, Ordering::Release);
            return Err(error);
        }
        self.next_sync.store(now_seconds().saturating_add(SYNC_PAUSE), Ordering::Release);
        log::warn!("the keys of token `{}` could not be compared with the KMS: {error}", self.row()?.label);
        Ok(())
    }

    fn sync_remote(&self, remote: &dyn RemoteToken, whole: bool) -> Result<usize> {
        let known = self.known_remote()?;
        let mut new = Vec::new();
        for name in remote.names().iter().filter(|name| !known.contains(name.as_str())) {
            new.push((remote.find(name).map_err(|error| error.context(format!("key `{name}`"))), name.clone()));
        }
        if remote.names().is_empty() && (whole || known.is_empty()) {
            let listed = remote.list()?.into_iter().filter(|found| !known.contains(found.id.as_str()));
            new.extend(listed.map(|found| (Ok(found.clone()), found.id)));
        }
        let (mut added, mut first_error) = (0, None);
        for (found, name) in new {
            match found.and_then(|found| self.adopt(&found, &name)) {
                Ok(()) => added += 1,
                Err(error) => {
                    log::warn!("a key of the KMS is left out: {error}");
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.filter(|_| added == 0).map_or(Ok(added), Err)
    }

    /// Lists the names under which keys of the KMS are here already.
    fn known_remote(&self) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for class in [CKO_PRIVATE_KEY, CKO_SECRET_KEY] {
            let template = [(CKA_CLASS, Value::Ulong(class))].into_iter().collect();
            for handle in self.find(&template)?.next(usize::MAX) {
                let object = self.object(handle)?;
                for id in [CKA_SR_REMOTE_KEY_ID, CKA_SR_REMOTE_NAME] {
                    let text = object.attributes().bytes(id).map(|text| String::from_utf8_lossy(text).into_owned());
                    names.extend(text);
                }
            }
        }
        Ok(names)
    }

    /// Adds the objects of a key that the KMS has.
    fn adopt(&self, found: &RemoteObject, name: &str) -> Result<()> {
        let template = || Attributes::from_iter([(CKA_TOKEN, Value::Bool(true))]);
        let mut templates = Vec::with_capacity(2);
        match found.public {
            Some(_) => templates.extend(halves(found, template(), template())?),
            None => templates.push(mac_key(found, template())),
        }
        let mut objects = Vec::with_capacity(2);
        for template in templates {
            let (mut attributes, secret) = self.finish(found, template, Origin::Unwrap)?;
            if secret.is_some() {
                attributes.set(CKA_SR_REMOTE_NAME, name.as_bytes());
            }
            let uid = remote_uid(&self.serial, &attributes, &found.id)?;
            objects.push(Object::with_uid(uid, attributes, secret, self.login_count()));
        }
        let mut event = Event::new("adopt", 0, user_of(self.role()));
        event.keys.extend(objects.iter().map(name_of));
        self.write(&event, &mut |transaction, token_key| {
            for object in &objects {
                // Another process may have been faster.
                if transaction.object(&self.serial, &object.uid)?.is_none() {
                    transaction.insert_object(&self.serial, &object.to_row(&self.serial, token_key)?)?;
                }
            }
            Ok(())
        })
    }

    /// Completes the attributes of an object that stands for a key in the KMS. Its secret is the key's name.
    fn finish(
        &self,
        made: &RemoteObject,
        template: Attributes,
        origin: Origin,
    ) -> Result<(Attributes, Option<SecurePrivateKey>)> {
        let plaintext = self.profile().policy.plaintext;
        let (mut attributes, _) = attribute::complete(template, None, origin, plaintext, self.role())?;
        if !attribute::holds_secret(attributes.require_ulong(CKA_CLASS)?) {
            return Ok((attributes, None));
        }
        attributes.set(CKA_SR_REMOTE_KEY_ID, made.id.as_bytes());
        Ok((attributes, Some(SecurePrivateKey::new(SecureBytes::copy_from(made.id.as_bytes())))))
    }
}

/// Makes the unique id of an object that stands for a key which the KMS has: the same in every process, so that the key is not
/// shown twice when two find it at once.
fn remote_uid(serial: &Serial, attributes: &Attributes, id: &str) -> Result<Uid> {
    let class = attributes.require_ulong(CKA_CLASS)?;
    let name = [b"strongroom remote key v1".as_slice(), serial, &class.to_be_bytes(), id.as_bytes()].concat();
    let digest = Hash::Sha256.digest(&name)?;
    digest.first_chunk().copied().ok_or_else(|| Error::internal("SHA-256 has 32 bytes"))
}

/// Finds what the KMS is to make.
fn kind_to_make(remote: &dyn RemoteToken, call: &Call, template: &Attributes) -> Result<RemoteKind> {
    match call.mechanism.remote.filter(|usage| remote.can(*usage)) {
        Some(RemoteUse::Generate(kind)) => kind(&call.params, template),
        _ => Err(not_there(call.mechanism)),
    }
}

/// The error of a mechanism that a token of keys in a KMS has not.
pub fn not_there(row: &Mechanism) -> Error {
    let text = format!("{} does not work with keys that live in this token's KMS", mechanism_name(row.id));
    Error::new(Kind::MechanismInvalid, text)
}

/// Refuses what a key in a KMS can never be.
fn check_may_live_there(template: &Attributes) -> Result<()> {
    let refuse = |text: &'static str| Err(Error::new(Kind::TemplateInconsistent, text));
    match () {
        () if !template.is(CKA_TOKEN) => refuse("a key in a KMS outlives the session: CKA_TOKEN must be true"),
        () if template.is(CKA_EXTRACTABLE) => refuse("a key in a KMS never leaves it: CKA_EXTRACTABLE must be false"),
        () => Ok(()),
    }
}

fn label_of(template: &Attributes) -> Option<String> {
    let label = template.bytes(CKA_LABEL).filter(|label| !label.is_empty())?;
    Some(String::from_utf8_lossy(label).into_owned())
}

/// Puts into both halves of a pair what the KMS tells. A usage is what the template asks for and the key can do.
fn halves(found: &RemoteObject, mut public: Attributes, mut private: Attributes) -> Result<[Attributes; 2]> {
    let info = found.public.as_deref().ok_or_else(|| Error::device("the KMS gives no public key for a key pair"))?;
    let (key_type, parts) = mechanism::public_parts(info)?;
    for (half, class, signs, decrypts) in
        [(&mut public, CKO_PUBLIC_KEY, CKA_VERIFY, CKA_ENCRYPT), (&mut private, CKO_PRIVATE_KEY, CKA_SIGN, CKA_DECRYPT)]
    {
        half.set(CKA_CLASS, class);
        half.set(CKA_KEY_TYPE, key_type.id);
        half.default_to(CKA_LABEL, found.label.as_bytes().to_vec());
        restrict(half, signs, found.sign);
        restrict(half, decrypts, found.decrypt);
    }
    for id in [CKA_WRAP, CKA_UNWRAP, CKA_DERIVE] {
        public.set(id, false);
        private.set(id, false);
    }
    private.extend(
        parts.iter().filter(|(id, _)| *id != CKA_MODULUS_BITS).map(|(id, value)| (id, value.clone())).collect(),
    );
    public.extend(parts);
    Ok([public, private])
}

fn restrict(half: &mut Attributes, usage: CK_ATTRIBUTE_TYPE, can: bool) {
    let wanted = half.bool(usage).unwrap_or(true);
    half.set(usage, wanted && can);
}

/// Puts into the template of a MAC key what the KMS tells.
fn mac_key(found: &RemoteObject, mut template: Attributes) -> Attributes {
    template.set(CKA_CLASS, CKO_SECRET_KEY);
    template.set(CKA_KEY_TYPE, CKK_GENERIC_SECRET);
    template.set(CKA_VALUE_LEN, found.mac_len);
    template.default_to(CKA_LABEL, found.label.as_bytes().to_vec());
    for id in [CKA_ENCRYPT, CKA_DECRYPT, CKA_WRAP, CKA_UNWRAP, CKA_DERIVE] {
        template.set(id, false);
    }
    template
}
