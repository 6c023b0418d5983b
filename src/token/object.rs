//! An object in memory: its attributes, its secret (sealed until it is used), and its key once it is parsed.

use std::sync::{Arc, OnceLock};

use super::policy::Plaintext;
use crate::ck::*;

use super::remote::RemoteToken;
use crate::error::{Error, Kind, Result};
use crate::mechanism::{self, Key, KeyType, RemoteKey, random};
use crate::seal::{self, ObjectId, TokenKey};
use crate::secret::{SecureBytes, SecurePrivateKey};
use crate::store::{IndexEntry, ObjectRow, Serial, Uid};
use zeroize::Zeroizing;

/// The attributes by which a find goes straight to its objects, most selective first, with their numbers in the index.
pub fn indexed() -> impl Iterator<Item = (CK_ATTRIBUTE_TYPE, u8)> {
    [CKA_ID, CKA_LABEL, CKA_SUBJECT, CKA_SR_OWNER, CKA_SR_STATE, CKA_CLASS]
        .into_iter()
        .filter_map(|id| Some((id, seal::index_field(id)?)))
}

/// The answer for one attribute in C_GetAttributeValue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Its value.
    Value(Value),
    /// The object has it, and never reveals it.
    Sensitive,
    /// The object has no such attribute.
    Invalid,
}

/// Where the secret of an object is.
enum Secret {
    /// The object has none.
    None,
    /// In memory, for session objects and new keys.
    Open(SecurePrivateKey),
    /// Sealed, as the store has it.
    Sealed(Vec<u8>),
}

/// How many counts a key is kept under.
const LANES: usize = 16;

/// A key once it is parsed, by the lane of the session that uses it.
type Keys = [OnceLock<Arc<Key>>; LANES];

/// One object. It never changes: a change makes another one.
pub struct Object {
    /// The unique id.
    pub uid: Uid,
    /// How often it was sealed; 0 for a session object.
    pub revision: u64,
    /// The token's login count when it was opened: a private object is of no use after it (C_Logout).
    pub login: u64,
    attributes: Attributes,
    /// `CKA_PRIVATE`, asked for on each use.
    private: bool,
    secret: Secret,
    keys: OnceLock<Box<Keys>>,
}

impl Object {
    /// Makes a new object from complete attributes, with a unique id of its own.
    ///
    /// # Errors
    /// `FunctionFailed` when the random generator fails.
    pub fn new(attributes: Attributes, secret: Option<SecurePrivateKey>, login: u64) -> Result<Self> {
        let mut uid = Uid::default();
        random::fill(&mut uid)?;
        Ok(Self::with_uid(uid, attributes, secret, login))
    }

    /// Makes a new object from complete attributes, with a unique id that follows from what it stands for.
    pub fn with_uid(uid: Uid, mut attributes: Attributes, secret: Option<SecurePrivateKey>, login: u64) -> Self {
        attributes.set(CKA_UNIQUE_ID, data_encoding::HEXLOWER.encode(&uid).into_bytes());
        Self {
            uid,
            revision: 0,
            login,
            private: attributes.is(CKA_PRIVATE),
            attributes,
            secret: secret.map_or(Secret::None, Secret::Open),
            keys: OnceLock::new(),
        }
    }

    /// Makes an object of the token's own around a key that is ready for use.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_key(attributes: Attributes, key: Key) -> Result<Self> {
        let object = Self::new(attributes, None, 0)?;
        if let Some(first) = object.keys.get_or_init(Box::default).first() {
            first.get_or_init(|| Arc::new(key));
        }
        Ok(object)
    }

    /// Makes what this object is after a change of its attributes.
    pub fn changed(&self, attributes: Attributes, secret: Option<SecurePrivateKey>) -> Self {
        let (private, secret) = (attributes.is(CKA_PRIVATE), secret.map_or(Secret::None, Secret::Open));
        Self {
            private,
            uid: self.uid,
            revision: self.revision,
            login: self.login,
            attributes,
            secret,
            keys: OnceLock::new(),
        }
    }

    /// Makes the object one that has been sealed as often as this, or more often.
    pub fn after(self, revision: u64) -> Self {
        Self { revision: self.revision.max(revision), ..self }
    }

    /// Gives the attributes, none of them secret.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// Tells the object's class.
    pub fn class(&self) -> CK_OBJECT_CLASS {
        self.attributes.ulong(CKA_CLASS).unwrap_or(CK_UNAVAILABLE_INFORMATION)
    }

    /// Tells whether only the logged-in user may see it.
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Tells whether it outlives the session.
    pub fn is_token_object(&self) -> bool {
        self.attributes.is(CKA_TOKEN)
    }

    /// Tells whether it has a secret.
    pub fn has_secret(&self) -> bool {
        !matches!(self.secret, Secret::None)
    }

    /// Finds the row of the object's key type.
    ///
    /// # Errors
    /// `KeyTypeInconsistent` when it is no key or of an unknown type.
    pub fn key_type(&self) -> Result<&'static KeyType> {
        let id = self
            .attributes
            .ulong(CKA_KEY_TYPE)
            .ok_or_else(|| Error::new(Kind::KeyTypeInconsistent, "the object is not a key"))?;
        mechanism::key_type(id)
            .ok_or_else(|| Error::new(Kind::KeyTypeInconsistent, format!("keys of type {id:#x} are not supported")))
    }

    /// Tells whether the secret is under its owner's own password.
    pub fn has_password(&self) -> bool {
        self.attributes.is(CKA_SR_PASSWORD)
    }

    /// Tells whether the secret is under a data key of its own.
    pub fn has_data_key(&self) -> bool {
        self.attributes.is(CKA_SR_DATA_KEY)
    }

    /// Opens what the object's own seal holds: the secret, or the secret under its owner's password, its data key, or both.
    ///
    /// # Errors
    /// `KeyFunctionNotPermitted` when it has none; `UserNotLoggedIn` without a token key; `DeviceError` when it is damaged.
    pub fn stored_secret(&self, token: &Serial, token_key: Option<&TokenKey>) -> Result<SecurePrivateKey> {
        match &self.secret {
            Secret::None => Err(Error::new(Kind::KeyFunctionNotPermitted, "the object holds no secret")),
            Secret::Open(secret) => Ok(secret.clone()),
            Secret::Sealed(blob) => {
                let token_key = token_key.ok_or_else(|| Error::from(Kind::UserNotLoggedIn))?;
                seal::open_secret(token_key, &self.id(token), &Zeroizing::new(self.attributes.encode()?), blob)
            }
        }
    }

    /// Opens what the object's own seal holds, if the object has a secret: for who passes it on.
    ///
    /// # Errors
    /// As [`Self::stored_secret`].
    pub fn stored_secret_if_any(
        &self,
        token: &Serial,
        token_key: Option<&TokenKey>,
    ) -> Result<Option<SecurePrivateKey>> {
        self.has_secret().then(|| self.stored_secret(token, token_key)).transpose()
    }

    /// Parses a secret that was opened by its owner's password.
    ///
    /// # Errors
    /// As [`Self::key_type`]; `DeviceError` when it is no such key.
    pub(super) fn parse_secret(&self, secret: &SecurePrivateKey) -> Result<Key> {
        (self.key_type()?.secret_key)(&self.attributes, secret)
    }

    /// Gives the key parsed for use; the first use parses it, later ones take what is kept. Sessions of different lanes get it
    /// under different counts, so that threads which use one key do not meet in a count.
    ///
    /// # Errors
    /// As [`Self::key_type`], and what `secret` answers, which opens the secret.
    pub fn key(
        &self,
        lane: usize,
        secret: impl FnOnce() -> Result<SecurePrivateKey>,
        remote: impl FnOnce() -> Option<Arc<dyn RemoteToken>>,
    ) -> Result<Arc<Key>> {
        let keys = self.keys.get_or_init(Box::default);
        let own = keys.get(lane % LANES).expect("the index is below LANES");
        if let Some(key) = own.get() {
            return Ok(key.clone());
        }
        let key = match keys.iter().find_map(OnceLock::get) {
            Some(key) => Key::apart(key),
            None => Arc::new(self.parse(secret, remote)?),
        };
        Ok(own.get_or_init(|| key).clone())
    }

    fn parse(
        &self,
        secret: impl FnOnce() -> Result<SecurePrivateKey>,
        remote: impl FnOnce() -> Option<Arc<dyn RemoteToken>>,
    ) -> Result<Key> {
        let row = self.key_type()?;
        if let Some(parse) = row.public_key.filter(|_| self.class() == CKO_PUBLIC_KEY) {
            return parse(&self.attributes);
        }
        let secret = secret()?;
        match self.attributes.has(CKA_SR_REMOTE_KEY_ID) {
            true => self.remote_key(row, &secret, remote()),
            false => (row.secret_key)(&self.attributes, &secret),
        }
    }

    /// Reaches the key in its KMS; its secret is the provider's name of it.
    fn remote_key(&self, row: &KeyType, name: &SecurePrivateKey, remote: Option<Arc<dyn RemoteToken>>) -> Result<Key> {
        let name = std::str::from_utf8(name.expose()).map_err(|_| Error::damaged("the name of a key in a KMS"))?;
        let remote = remote.ok_or_else(|| {
            let text = format!("the key lives in a KMS as {name}; name that KMS as `remote` in the [[token]] section");
            Error::new(Kind::DeviceError, text)
        })?;
        let service = remote.open(name, &self.attributes)?;
        Ok(Key::Remote(Box::new(RemoteKey::new(row, &self.attributes, service)?)))
    }

    /// Answers for one attribute. `reveal` gives a secret attribute of a key that may be revealed. What the token allows now
    /// counts, and not what it allowed when the key was made.
    ///
    /// # Errors
    /// What `reveal` answers.
    pub fn answer(
        &self,
        id: CK_ATTRIBUTE_TYPE,
        plaintext: Plaintext,
        reveal: impl FnOnce(&KeyType) -> Result<Option<SecureBytes>>,
    ) -> Result<Answer> {
        if id == CKA_SENSITIVE && self.has_secret() {
            return Ok(Answer::Value(Value::Bool(self.is_sensitive(plaintext))));
        }
        if let Some(value) = self.attributes.get(id) {
            return Ok(Answer::Value(value.clone()));
        }
        let Ok(row) = self.key_type() else { return Ok(Answer::Invalid) };
        if !self.has_secret() || !row.secret_attributes.contains(&id) {
            return Ok(Answer::Invalid);
        }
        if !self.shows_secret(plaintext) {
            return Ok(Answer::Sensitive);
        }
        Ok(reveal(row)?.map_or(Answer::Invalid, |secret| Answer::Value(Value::Secret(secret))))
    }

    /// Tells whether the secret may leave in plaintext. What stands for the secret of a key that lives in a KMS is none.
    pub fn shows_secret(&self, plaintext: Plaintext) -> bool {
        let here = !self.attributes.has(CKA_SR_REMOTE_KEY_ID);
        here && !self.is_sensitive(plaintext) && self.attributes.is(CKA_EXTRACTABLE)
    }

    /// Tells whether the secret never leaves in plaintext: by its attribute, or because the token allows nothing else.
    fn is_sensitive(&self, plaintext: Plaintext) -> bool {
        plaintext != Plaintext::Compat || self.attributes.bool(CKA_SENSITIVE) != Some(false)
    }

    /// Tells whether each attribute of a search template has this value here. Secret values never match.
    pub fn matches(&self, template: &Attributes) -> bool {
        template.iter().all(|(id, wanted)| match (self.attributes.get(id), wanted) {
            (Some(Value::Bytes(found)), Value::Secret(wanted)) => found.as_slice() == wanted.expose(),
            (Some(found), wanted) => found == wanted,
            (None, _) => false,
        })
    }

    /// Tells about how many bytes it takes (C_GetObjectSize).
    ///
    /// # Errors
    /// `GeneralError` when the attributes cannot be encoded.
    pub fn size(&self) -> Result<u64> {
        let secret = match &self.secret {
            Secret::None => 0,
            Secret::Open(secret) => secret.expose().len(),
            Secret::Sealed(blob) => blob.len(),
        };
        u64::try_from(self.attributes.encode()?.len() + secret)
            .map_err(|_| Error::internal("an object of this size cannot be"))
    }

    /// Seals the object as its next revision.
    ///
    /// # Errors
    /// `TokenResourceExceeded` when it was sealed too often; `UserNotLoggedIn` when its secret is sealed and there is no key.
    pub fn to_row(&self, token: &Serial, token_key: &TokenKey) -> Result<ObjectRow> {
        let id = ObjectId { token: *token, uid: self.uid, revision: self.revision + 1 };
        let encoded = Zeroizing::new(self.attributes.encode()?);
        let secret = match self.has_secret() {
            true => Some(seal::seal_secret(token_key, &id, &encoded, &self.stored_secret(token, Some(token_key))?)?),
            false => None,
        };
        let attributes = seal::seal_attributes(token_key, &id, self.is_private(), &encoded)?;
        Ok(ObjectRow { uid: self.uid, revision: id.revision, attributes, secret, index: self.index(token, token_key) })
    }

    /// Makes what the object is once its row is stored.
    pub fn stored(mut self, row: ObjectRow) -> Self {
        self.revision = row.revision;
        self.secret = row.secret.map_or(Secret::None, Secret::Sealed);
        self
    }

    /// Opens an object from its row.
    ///
    /// # Errors
    /// `UserNotLoggedIn` for a private object without a token key; `DeviceError` when it is damaged.
    pub fn open(token: &Serial, token_key: Option<&TokenKey>, row: ObjectRow, login: u64) -> Result<Self> {
        let id = ObjectId { token: *token, uid: row.uid, revision: row.revision };
        let opened = seal::open_attributes(token_key, &id, &row.attributes)?;
        let attributes = Attributes::decode(&opened.encoded)?;
        if attributes.is(CKA_PRIVATE) != opened.private || !attributes.is(CKA_TOKEN) {
            return Err(Error::damaged("an object"));
        }
        let secret = row.secret.map_or(Secret::None, Secret::Sealed);
        let has_secret = matches!(attributes.ulong(CKA_CLASS), Some(CKO_PRIVATE_KEY | CKO_SECRET_KEY));
        if has_secret == matches!(secret, Secret::None) {
            return Err(Error::damaged("the secret of an object"));
        }
        Ok(Self {
            uid: row.uid,
            revision: row.revision,
            login,
            private: opened.private,
            attributes,
            secret,
            keys: OnceLock::new(),
        })
    }

    fn id(&self, token: &Serial) -> ObjectId {
        ObjectId { token: *token, uid: self.uid, revision: self.revision }
    }

    /// Makes the entries under which the object is found.
    pub(super) fn index(&self, token: &Serial, token_key: &TokenKey) -> Vec<IndexEntry> {
        let digest = |field, value: &[u8]| match self.is_private() {
            true => token_key.index_digest(field, value),
            false => seal::public_index_digest(token, field, value),
        };
        let entry = |(id, field)| {
            let value = index_value(self.attributes.get(id)?)?;
            Some(IndexEntry { field, digest: digest(field, &value) })
        };
        let latest = latest_version(&self.attributes).map(|value| {
            let field = seal::LATEST_VERSION_FIELD;
            IndexEntry { field, digest: digest(field, &value) }
        });
        let field = seal::DATA_KEY_FIELD;
        let under_data_key = self.has_data_key().then(|| IndexEntry { field, digest: digest(field, &[]) });
        indexed().filter_map(entry).chain(latest).chain(under_data_key).collect()
    }
}

/// Gives what the latest version of a managed key is found by: owner and asset, neither of which has a zero byte. A version that
/// was rotated away says when, and is not the latest.
pub fn latest_version(attributes: &Attributes) -> Option<Vec<u8>> {
    let (owner, asset) = (attributes.bytes(CKA_SR_OWNER)?, attributes.bytes(CKA_SR_ASSET)?);
    (!attributes.has(CKA_SR_ROTATED)).then(|| [owner, &[0], asset].concat())
}

/// Gives the bytes of a value that an index digest is made of.
pub fn index_value(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Bytes(bytes) => Some(bytes.clone()),
        Value::Ulong(number) => Some(number.to_be_bytes().to_vec()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_has_its_own_count_of_one_key_and_all_end_with_the_object() {
        let attributes = [(CKA_CLASS, Value::Ulong(CKO_SECRET_KEY)), (CKA_KEY_TYPE, Value::Ulong(CKK_AES))];
        let secret = SecurePrivateKey::new(SecureBytes::copy_from(&[7; 32]));
        let object = Object::new(attributes.into_iter().collect(), Some(secret), 0).expect("the generator works");
        let secret = || object.stored_secret(&Serial::default(), None);
        let key = |lane| object.key(lane, secret, || None).expect("an AES key");
        assert!(!Arc::ptr_eq(&key(0), &key(1)) && Arc::ptr_eq(&key(0), &key(LANES)));
        let (first, second) = (Arc::downgrade(&key(0)), Arc::downgrade(&key(1)));
        assert!(first.upgrade().is_some() && second.upgrade().is_some(), "the object keeps them");
        drop(object);
        assert!(first.upgrade().is_none() && second.upgrade().is_none());
    }

    #[test]
    fn r17_a_secret_leaves_where_policy_and_attributes_agree_and_never_one_that_stands_for_a_remote_key() {
        let shows = |plaintext, sensitive, extractable, remote: bool| {
            let facts = [(CKA_SENSITIVE, Value::Bool(sensitive)), (CKA_EXTRACTABLE, Value::Bool(extractable))];
            let mut attributes: Attributes = facts.into_iter().collect();
            if remote {
                attributes.set(CKA_SR_REMOTE_KEY_ID, b"id".as_slice());
            }
            Object::with_uid(Uid::default(), attributes, None, 0).shows_secret(plaintext)
        };
        assert!(shows(Plaintext::Compat, false, true, false));
        assert!(!shows(Plaintext::Compat, false, true, true), "the provider's name of a key is no secret to hand out");
        assert!(!shows(Plaintext::Compat, true, true, false) && !shows(Plaintext::Compat, false, false, false));
        assert!(!shows(Plaintext::Never, false, true, false) && !shows(Plaintext::Import, false, true, false));
    }
}
