//! Keys and objects that are brought in from other systems (migration). The policy on plaintext has no say here: the material comes from
//! a file or a token that this library reads itself, and not through the C boundary.

use super::attribute::{self, Origin};
use super::data_key;
use super::key::Half;
use super::managed::{Change, Found, Prepared};
use super::session::Session;
use crate::ck::*;
use crate::error::{Error, Result};
use crate::mechanism::{GivenKey, Hash};
use crate::secret::SecureBytes;

impl Prepared {
    /// Gives the attributes of the object that was made, of a key pair those of the half with the secret.
    pub fn attributes(&self) -> Option<&Attributes> {
        // The half with the secret comes last, or is the only one.
        self.halves.last().map(|half| &half.0)
    }

    /// Takes over attributes that the key had where it comes from. Each half takes those that it has itself, such as its usages; what
    /// is empty says nothing.
    pub fn keep(&mut self, kept: &Attributes) {
        for half in &mut self.halves {
            for (id, value) in kept.iter().filter(|(_, value)| !is_empty(value)) {
                if half.0.has(id) {
                    half.0.set(id, value.clone());
                }
            }
        }
    }

    /// Gives what tells two keys apart: the public key, or a digest of the secret.
    ///
    /// # Errors
    /// `GeneralError` when the library below fails.
    pub fn fingerprint(&self) -> Result<SecureBytes> {
        let info = self.attributes().and_then(|made| made.bytes(CKA_PUBLIC_KEY_INFO));
        match (info, self.halves.last()) {
            (Some(info), _) => Ok(SecureBytes::copy_from(info)),
            (None, Some((_, Some(secret)))) => Ok(SecureBytes::take(Hash::Sha256.digest(secret.expose())?.to_vec())),
            _ => Ok(SecureBytes::zeroed(0)),
        }
    }
}

impl Session {
    /// Makes the objects of a key that was read, as token objects that are not stored yet. The first template is that of a secret key,
    /// or of the public half.
    ///
    /// # Errors
    /// `UserNotLoggedIn`, `SessionReadOnly`; `FunctionNotSupported` for a token of keys that live in a KMS; the templates'.
    pub fn prepare_given(&self, key: GivenKey, mut first: Attributes, mut private: Attributes) -> Result<Prepared> {
        self.check_keeps_keys()?;
        let id = key.key_type();
        if !key.is_pair() {
            return Ok(Prepared::new(vec![self.prepare_secret(key, first)?]));
        }
        first.extend(key.public_parts()?);
        identify(&mut first, CKO_PUBLIC_KEY, id);
        self.check_template(&first)?;
        let public = self.complete(first, None, Origin::Unwrap)?;
        private.extend(key.parts().clone());
        identify(&mut private, CKO_PRIVATE_KEY, id);
        self.check_template(&private)?;
        Ok(Prepared::new(vec![public, self.complete(private, Some(key.into_secret()), Origin::Unwrap)?]))
    }

    fn prepare_secret(&self, key: GivenKey, mut template: Attributes) -> Result<Half> {
        template.extend(key.parts().clone());
        identify(&mut template, CKO_SECRET_KEY, key.key_type());
        self.check_template(&template)?;
        self.complete(template, Some(key.into_secret()), Origin::Unwrap)
    }

    /// Makes a token object without a secret, such as a certificate, that is not stored yet.
    ///
    /// # Errors
    /// As [`Self::prepare_given`].
    pub fn prepare_object(&self, mut template: Attributes) -> Result<Prepared> {
        self.check_keeps_keys()?;
        if attribute::holds_secret(template.require_ulong(CKA_CLASS)?) {
            return Err(Error::internal("an object without a secret was to be made of a key"));
        }
        template.set(CKA_TOKEN, true);
        self.check_template(&template)?;
        Ok(Prepared::new(vec![self.complete(template, None, Origin::Create)?]))
    }
}

impl Change<'_> {
    /// Tells whether a key that was found is the one that was prepared: pairs by their public key, secret keys by their bytes, which
    /// are compared without a branch on them.
    ///
    /// # Errors
    /// `DeviceError` when the secret of the one that was found is damaged; `FunctionFailed` when it is under a data key of its own that
    /// [`Session::open_data_keys`] has not opened.
    pub fn is_same_key(&self, found: &Found, prepared: &Prepared) -> Result<bool> {
        let Some((attributes, secret)) = prepared.halves.last() else { return Ok(false) };
        match attributes.get(CKA_PUBLIC_KEY_INFO) {
            Some(info) => Ok(found.attributes().get(CKA_PUBLIC_KEY_INFO) == Some(info)),
            None if !found.0.has_secret() => Ok(secret.is_none()),
            None => {
                let there = self.sealed_secret(found)?.ok_or_else(|| data_key::not_open(&found.0))?;
                Ok(secret.as_ref() == Some(&there))
            }
        }
    }
}

fn is_empty(value: &Value) -> bool {
    matches!(value, Value::Bytes(bytes) if bytes.is_empty())
}

/// Says in a template what object it makes.
fn identify(template: &mut Attributes, class: CK_OBJECT_CLASS, key_type: CK_KEY_TYPE) {
    template.set(CKA_TOKEN, true);
    template.set(CKA_CLASS, class);
    template.set(CKA_KEY_TYPE, key_type);
}
