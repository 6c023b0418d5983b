//! Making keys: generate, wrap, unwrap, derive (PKCS #11 v3.2, 5.18).

use super::attribute::{self, Origin};
use super::master;
use super::operation::{Call, Reply, Room, cannot, of_key};
use super::policy::{PinSource, Plaintext};
use super::session::Session;
use super::trail::name_of;
use crate::audit::Event;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::mechanism::{Generate, GeneratePair, Key};
use crate::secret::{SecureBytes, SecurePrivateKey};

/// The shortest key in bytes that is derived where key material must not leave.
const SHORTEST_DERIVED: usize = 16;

/// The attributes of an object to be, and its secret if it has one.
pub(super) type Half = (Attributes, Option<SecurePrivateKey>);

impl Session {
    /// Generates a secret key (5.18.1).
    ///
    /// # Errors
    /// `MechanismInvalid`; the template's; the store's.
    pub fn generate_key(&self, call: Call, template: Attributes) -> Result<CK_OBJECT_HANDLE> {
        let event = self.event("C_GenerateKey").with(call.mechanism.id);
        self.changing(event, |event| self.make_key(&call, template, event))
    }

    fn make_key(&self, call: &Call, mut template: Attributes, event: &mut Event) -> Result<CK_OBJECT_HANDLE> {
        let generate = call.mechanism.generate.ok_or_else(|| cannot(call.mechanism, "generate a key"))?;
        fix_class(&mut template, CKO_SECRET_KEY, call)?;
        self.check_template(&template)?;
        if let Some(remote) = self.token.profile().remote {
            return self.generate_remote_secret(remote.as_ref(), call, template, event);
        }
        let (attributes, secret) = self.make_secret(generate, call, template)?;
        self.add_object(attributes, secret, event)
    }

    /// Makes a secret key, complete, from a template that is checked.
    pub(super) fn make_secret(&self, generate: Generate, call: &Call, mut template: Attributes) -> Result<Half> {
        let made = generate(&call.params, &template)?;
        template.extend(made.attributes);
        self.complete(template, Some(made.secret), Origin::Generate(call.mechanism.id))
    }

    /// Generates a key pair (5.18.2); both halves are stored in one transaction.
    ///
    /// # Errors
    /// As [`Self::generate_key`].
    pub fn generate_key_pair(
        &self,
        call: Call,
        public: Attributes,
        private: Attributes,
    ) -> Result<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)> {
        let event = self.event("C_GenerateKeyPair").with(call.mechanism.id);
        self.changing(event, |event| self.make_key_pair(&call, public, private, event))
    }

    fn make_key_pair(
        &self,
        call: &Call,
        mut public: Attributes,
        mut private: Attributes,
        event: &mut Event,
    ) -> Result<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)> {
        let generate = call.mechanism.generate_pair.ok_or_else(|| cannot(call.mechanism, "generate a key pair"))?;
        fix_class(&mut public, CKO_PUBLIC_KEY, call)?;
        fix_class(&mut private, CKO_PRIVATE_KEY, call)?;
        self.check_template(&public)?;
        self.check_template(&private)?;
        if let Some(remote) = self.token.profile().remote {
            return self.generate_remote_pair(remote.as_ref(), call, public, private, event);
        }
        let [public, private] = self.add_objects(self.make_pair(generate, call, public, private)?, event)?;
        Ok((public, private))
    }

    /// Makes both halves of a key pair, complete, from templates that are checked.
    pub(super) fn make_pair(
        &self,
        generate: GeneratePair,
        call: &Call,
        mut public: Attributes,
        mut private: Attributes,
    ) -> Result<[Half; 2]> {
        let made = generate(&call.params, &public)?;
        public.extend(made.public);
        private.extend(made.private);
        let origin = Origin::Generate(call.mechanism.id);
        Ok([self.complete(public, None, origin)?, self.complete(private, Some(made.secret), origin)?])
    }

    /// Wraps a key (5.18.3).
    ///
    /// # Errors
    /// `KeyUnextractable`, `KeyNotWrappable`, `WrappingKeyHandleInvalid` and its like; the mechanism's.
    pub fn wrap_key(&self, call: Call, wrapping: CK_OBJECT_HANDLE, key: CK_OBJECT_HANDLE, room: Room) -> Result<Reply> {
        self.using("C_WrapKey", Some(call.mechanism.id), key, || self.wrapped(&call, wrapping, key, room))
    }

    fn wrapped(&self, call: &Call, wrapping: CK_OBJECT_HANDLE, key: CK_OBJECT_HANDLE, room: Room) -> Result<Reply> {
        let keys = [key, wrapping];
        let wrap = call.mechanism.wrap.ok_or_else(|| cannot(call.mechanism, "wrap"))?;
        let (by, wrapping) = self.checked_key(wrapping, CKA_WRAP, call.mechanism).map_err(of_wrapping_key)?;
        wrapping.check_needs_no_login()?;
        let target = self.token.object(key).map_err(of_key)?;
        let attributes = target.attributes();
        if !attribute::holds_secret(target.class()) {
            return Err(Error::new(Kind::KeyNotWrappable, "only private and secret keys can be wrapped"));
        }
        if !attributes.is(CKA_EXTRACTABLE) {
            return Err(Error::new(Kind::KeyUnextractable, "the key's CKA_EXTRACTABLE is not true"));
        }
        if attributes.is(CKA_ALWAYS_AUTHENTICATE) {
            return Err(Error::new(
                Kind::KeyNotWrappable,
                "a key that asks for a login before each use cannot be wrapped",
            ));
        }
        if attributes.is(CKA_WRAP_WITH_TRUSTED) && !by.attributes().is(CKA_TRUSTED) {
            return Err(Error::new(
                Kind::KeyNotWrappable,
                "the key asks for a trusted wrapping key (CKA_WRAP_WITH_TRUSTED)",
            ));
        }
        if let Some(Value::Template(wanted)) = by.attributes().get(CKA_WRAP_TEMPLATE)
            && !target.matches(wanted)
        {
            return Err(Error::new(
                Kind::KeyNotWrappable,
                "the key does not match the wrapping key's CKA_WRAP_TEMPLATE",
            ));
        }
        if let Key::Master(_) = &**wrapping.key()?
            && let Some(needed) = master::too_small(room)
        {
            return Ok(needed);
        }
        let secret = self.secret_of(&target)?.ok_or_else(|| Error::from(Kind::KeyNotWrappable))?;
        let bytes = (target.key_type()?.to_wrapped)(attributes, &secret)?;
        let blob = wrap(wrapping.key()?, &call.params, &bytes)?;
        match room {
            Room::Bytes(room) if room >= blob.len() => {
                self.count_use(&by, CKA_WRAP, wrapping.limits)?;
                self.note_use("C_WrapKey", Some(call.mechanism.id), &keys)?;
                Ok(Reply::Wrapped(blob))
            }
            _ => Ok(Reply::Needs(blob.len())),
        }
    }

    /// Unwraps a key (5.18.4).
    ///
    /// # Errors
    /// `WrappedKeyInvalid`, `WrappedKeyLenRange`, `UnwrappingKeyHandleInvalid` and its like; the template's.
    pub fn unwrap_key(
        &self,
        call: Call,
        unwrapping: CK_OBJECT_HANDLE,
        blob: &[u8],
        template: Attributes,
    ) -> Result<CK_OBJECT_HANDLE> {
        let event = self.event("C_UnwrapKey").with(call.mechanism.id);
        self.changing(event, |event| self.unwrapped(&call, unwrapping, blob, template, event))
    }

    fn unwrapped(
        &self,
        call: &Call,
        unwrapping: CK_OBJECT_HANDLE,
        blob: &[u8],
        mut template: Attributes,
        event: &mut Event,
    ) -> Result<CK_OBJECT_HANDLE> {
        let unwrap = call.mechanism.unwrap.ok_or_else(|| cannot(call.mechanism, "unwrap"))?;
        let (by, unwrapping) = self.checked_key(unwrapping, CKA_UNWRAP, call.mechanism).map_err(of_unwrapping_key)?;
        event.keys.push(name_of(&by));
        unwrapping.check_needs_no_login()?;
        merge(&mut template, by.attributes().get(CKA_UNWRAP_TEMPLATE))?;
        self.check_template(&template)?;
        if !attribute::holds_secret(template.require_ulong(CKA_CLASS)?) {
            return Err(Error::new(Kind::TemplateInconsistent, "only private and secret keys are unwrapped"));
        }
        attribute::key_type(&template)?;
        let bytes = unwrap(unwrapping.key()?, &call.params, blob)?;
        let bytes = unfilled(bytes, &template, call.mechanism.fills);
        let secret = (attribute::key_type(&template)?.from_wrapped)(&mut template, &bytes)?;
        self.add_key(template, Origin::Unwrap, secret, event)
    }

    /// Derives a secret key (5.18.5).
    ///
    /// # Errors
    /// The mechanism's and the template's.
    pub fn derive_key(&self, call: Call, base: CK_OBJECT_HANDLE, template: Attributes) -> Result<CK_OBJECT_HANDLE> {
        let event = self.event("C_DeriveKey").with(call.mechanism.id);
        self.changing(event, |event| self.derived(&call, base, template, event))
    }

    fn derived(
        &self,
        call: &Call,
        base: CK_OBJECT_HANDLE,
        mut template: Attributes,
        event: &mut Event,
    ) -> Result<CK_OBJECT_HANDLE> {
        let derive = call.mechanism.derive.ok_or_else(|| cannot(call.mechanism, "derive"))?;
        let (object, base) = self.checked_key(base, CKA_DERIVE, call.mechanism)?;
        base.check_needs_no_login()?;
        event.keys.push(name_of(&object));
        let facts = object.attributes();
        merge(&mut template, facts.get(CKA_DERIVE_TEMPLATE))?;
        template.default_to(CKA_CLASS, CKO_SECRET_KEY);
        template.default_to(CKA_KEY_TYPE, CKK_GENERIC_SECRET);
        attribute::fix(&mut template, CKA_CLASS, CKO_SECRET_KEY)?;
        self.check_template(&template)?;
        let len = template.ulong(CKA_VALUE_LEN).map(usize::try_from).transpose();
        let len = len.map_err(|_| Error::from(Kind::KeySizeRange))?;
        self.check_derived_length(len)?;
        let bytes = derive(base.key()?, &call.params, len)?;
        let secret = (attribute::key_type(&template)?.from_wrapped)(&mut template, &bytes)?;
        let origin = Origin::Derive {
            always_sensitive: facts.is(CKA_ALWAYS_SENSITIVE),
            never_extractable: facts.is(CKA_NEVER_EXTRACTABLE),
        };
        self.add_key(template, origin, secret, event)
    }

    /// Refuses to derive keys that are short enough to be guessed: with one of each length, a secret could be told byte by byte.
    fn check_derived_length(&self, len: Option<usize>) -> Result<()> {
        match len {
            Some(len) if len < SHORTEST_DERIVED && self.token.profile().policy.plaintext != Plaintext::Compat => {
                let text =
                    format!("a derived key has at least {SHORTEST_DERIVED} bytes (plaintext policy of the token)");
                Err(Error::new(Kind::KeySizeRange, text))
            }
            _ => Ok(()),
        }
    }

    /// Checks a template before any work is done for it.
    pub(super) fn check_template(&self, template: &Attributes) -> Result<()> {
        let class = template.require_ulong(CKA_CLASS)?;
        if template.is(CKA_TOKEN) {
            self.check_read_write()?;
            self.token.token_key()?;
        }
        self.check_may_be_private(template.bool(CKA_PRIVATE).unwrap_or(attribute::holds_secret(class)))?;
        self.check_can_authenticate(template)?;
        attribute::check_template(template, class, self.token.role())
    }

    /// Refuses a key that asks for the PIN before each use where there is none: nobody could ever use it.
    pub(super) fn check_can_authenticate(&self, template: &Attributes) -> Result<()> {
        match template.is(CKA_ALWAYS_AUTHENTICATE) && matches!(self.token.profile().pin_source, PinSource::Machine) {
            true => Err(Error::new(
                Kind::TemplateInconsistent,
                "CKA_ALWAYS_AUTHENTICATE asks for a PIN before each use, and the token has none (pin_source = \"kms\")",
            )),
            false => Ok(()),
        }
    }

    pub(super) fn complete(
        &self,
        template: Attributes,
        secret: Option<SecurePrivateKey>,
        origin: Origin,
    ) -> Result<Half> {
        attribute::complete(template, secret, origin, self.token.profile().policy.plaintext, self.token.role())
    }

    pub(super) fn add_key(
        &self,
        template: Attributes,
        origin: Origin,
        secret: SecurePrivateKey,
        event: &mut Event,
    ) -> Result<CK_OBJECT_HANDLE> {
        let (attributes, secret) = self.complete(template, Some(secret), origin)?;
        self.add_object(attributes, secret, event)
    }

    /// Fills a caller's buffer with random bytes (5.19.2).
    ///
    /// # Errors
    /// `FunctionFailed` when the random generator fails.
    pub fn random(&self, out: &mut [u8]) -> Result<()> {
        crate::mechanism::random::fill(out)
    }

    /// Gives random bytes that no other memory has seen.
    ///
    /// # Errors
    /// As [`Self::random`].
    pub fn secure_random(&self, len: usize) -> Result<SecureBytes> {
        crate::mechanism::random::secure(len)
    }
}

/// Fixes class and key type of what a mechanism makes.
pub(super) fn fix_class(template: &mut Attributes, class: CK_OBJECT_CLASS, call: &Call) -> Result<()> {
    attribute::fix(template, CKA_CLASS, class)?;
    let Some(key_type) = call.mechanism.key_types.first() else { return Ok(()) };
    attribute::fix(template, CKA_KEY_TYPE, *key_type)
}

/// Adds the template that a key prescribes for what it unwraps or derives; a contradiction is an error.
fn merge(template: &mut Attributes, prescribed: Option<&Value>) -> Result<()> {
    let Some(Value::Template(prescribed)) = prescribed else { return Ok(()) };
    for (id, value) in prescribed.iter() {
        match template.set(id, value.clone()) {
            Some(found) if found != *value => {
                let text = format!("{} contradicts the template that the key prescribes", attribute_name(id));
                return Err(Error::new(Kind::TemplateInconsistent, text));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Cuts off the zeros with which a secret key was filled up to a multiple of `unit`, where the template says how long the key is
/// (PKCS #11 v3.2, 6.13.4).
fn unfilled(bytes: SecureBytes, template: &Attributes, unit: usize) -> SecureBytes {
    let is_filled = |len: &usize| {
        let rest = bytes.expose().get(*len..).unwrap_or_default();
        rest.len() < unit && rest.iter().fold(0, |all, byte| all | byte) == 0
    };
    let len = template.ulong(CKA_VALUE_LEN).and_then(|len| usize::try_from(len).ok());
    match len.filter(is_filled) {
        Some(len) => bytes.truncated(len),
        None => bytes,
    }
}

fn of_wrapping_key(error: Error) -> Error {
    match error.kind() {
        Kind::KeyHandleInvalid => Kind::WrappingKeyHandleInvalid.into(),
        Kind::KeyTypeInconsistent => Kind::WrappingKeyTypeInconsistent.into(),
        Kind::KeySizeRange => Kind::WrappingKeySizeRange.into(),
        _ => error,
    }
}

fn of_unwrapping_key(error: Error) -> Error {
    match error.kind() {
        Kind::KeyHandleInvalid => Kind::UnwrappingKeyHandleInvalid.into(),
        Kind::KeyTypeInconsistent => Kind::UnwrappingKeyTypeInconsistent.into(),
        Kind::KeySizeRange => Kind::UnwrappingKeySizeRange.into(),
        _ => error,
    }
}
