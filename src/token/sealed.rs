//! The versions of a managed key, for ciphertexts that name theirs (CKM_SR_SEALED).

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::library::Shared;
use super::object::Object;
use super::operation::Call;
use super::session::Session;
use super::token::Token;
use super::unlocked::UnlockedKeys;
use super::version;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::mechanism::{Key, KeyVersions, ParamShape, Params, Versions};

/// What the digest of a key's name starts with.
const NAME_PREFIX: &[u8] = b"strongroom sealed key name v1";

/// The versions of one managed key in a session.
struct OfKey {
    token: Arc<Token>,
    library: Arc<Shared>,
    /// What the session has unlocked.
    unlocked: Arc<UnlockedKeys>,
    session: CK_SESSION_HANDLE,
    lane: usize,
    /// Owner and asset.
    name: Attributes,
    id: [u8; 16],
    number: u64,
}

impl KeyVersions for OfKey {
    fn id(&self) -> &[u8; 16] {
        &self.id
    }

    fn number(&self) -> u64 {
        self.number
    }

    fn key(&self, number: u64) -> Result<Arc<Key>> {
        let (mut template, token) = (self.name.clone(), &self.token);
        template.set(CKA_CLASS, CKO_SECRET_KEY);
        template.set(CKA_SR_VERSION, number);
        let handle = token.find_every(&template)?.next(1).pop().ok_or_else(|| {
            let text =
                format!("version {number} of the key that made the ciphertext is not there; no other one is tried");
            Error::new(Kind::EncryptedDataInvalid, text)
        })?;
        let object = token.object(handle)?;
        let attributes = object.attributes();
        version::check_use(attributes, CKA_DECRYPT, || self.library.now(), || token.profile().policy.rotation)?;
        if !attributes.is(CKA_DECRYPT) {
            let text = format!("CKA_DECRYPT of version {number} is not true");
            return Err(Error::new(Kind::KeyFunctionNotPermitted, text));
        }
        let key = self.open(&object, handle)?;
        if number != self.number {
            // The record of C_DecryptInit names the version of its handle, and this is another one.
            token.note_use(self.session, "C_Decrypt", Some(CKM_SR_SEALED), &[handle])?;
        }
        Ok(key)
    }
}

impl OfKey {
    /// Gives the key of a version: as the session has unlocked it, where it has a password.
    fn open(&self, object: &Object, handle: CK_OBJECT_HANDLE) -> Result<Arc<Key>> {
        if object.has_password() {
            let unlocked = self.unlocked.find(handle, object.login).map(|found| found.key);
            return unlocked.ok_or_else(|| super::password::closed(object.attributes()));
        }
        let token = &self.token;
        object.key(self.lane, || token.secret(object), || token.profile().remote)
    }
}

impl Session {
    /// Gives a mechanism whose ciphertexts name their version the versions of the key; other calls stay as they are.
    ///
    /// # Errors
    /// `KeyFunctionNotPermitted` for a key that is not managed; `ObjectHandleInvalid`.
    pub(super) fn with_versions(&self, call: Call, key: CK_OBJECT_HANDLE) -> Result<Call> {
        if call.mechanism.params != ParamShape::KeyVersions {
            return Ok(call);
        }
        let object = self.token.object(key).map_err(super::operation::of_key)?;
        let versions = Versions(Arc::new(self.versions_of(object.attributes())?));
        Ok(Call { params: Params::KeyVersions(versions), ..call })
    }

    fn versions_of(&self, attributes: &Attributes) -> Result<OfKey> {
        let texts = [CKA_SR_OWNER, CKA_SR_ASSET].map(|id| attributes.bytes(id));
        let ([Some(owner), Some(asset)], Some(number)) = (texts, attributes.ulong(CKA_SR_VERSION)) else {
            let text = "only a managed key names itself in its ciphertexts; SR_GenerateKey makes one";
            return Err(Error::new(Kind::KeyFunctionNotPermitted, text));
        };
        Ok(OfKey {
            token: self.token.clone(),
            library: self.library.clone(),
            unlocked: self.unlocked.clone(),
            session: self.handle,
            lane: self.lane,
            name: [(CKA_SR_OWNER, Value::from(owner)), (CKA_SR_ASSET, Value::from(asset))].into_iter().collect(),
            id: name_digest(owner, asset),
            number,
        })
    }
}

/// Digests the name of a key, for the header of its ciphertexts. Neither text has a zero byte.
fn name_digest(owner: &[u8], asset: &[u8]) -> [u8; 16] {
    let digest = Sha256::new().chain_update(NAME_PREFIX).chain_update(owner).chain_update([0]).chain_update(asset);
    *digest.finalize().first_chunk().expect("SHA-256 has 32 bytes")
}
