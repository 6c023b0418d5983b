//! What every provider must do, checked on the real thing: each provider's tests hand theirs to [`check`].
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::provider::{Context, DATA_KEY_LEN, KeyState, KmsProvider, MasterKeyId, Wrapped};
use crate::error::KmsFault;
use crate::secret::SecureBytes;

/// The context that the checks use.
pub const CONTEXT: Context<'static> = Context { token: "0123456789ABCDEF", purpose: "token-key/user" };

/// Gives a secret of the length of an envelope's inside.
pub fn secret() -> SecureBytes {
    SecureBytes::copy_from(b"thirty-two bytes of secret to be+thirty-two bytes of secret to be+sixteen bytes..")
}

/// Checks everything that all providers have in common. The master key is rotated on the way.
pub fn check(kms: &dyn KmsProvider) {
    let wrapped = what_is_wrapped_unwraps(kms);
    data_keys_unwrap(kms);
    other_contexts_are_told(kms, &wrapped);
    altered_blobs_are_told(kms, &wrapped);
    unknown_keys_are_told(kms, &wrapped);
    if let Some(wrapped) = rotation_keeps_what_was_wrapped(kms, wrapped) {
        what_is_wrapped_unwraps(kms);
        assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
    }
    kms.health().unwrap();
}

fn what_is_wrapped_unwraps(kms: &dyn KmsProvider) -> Wrapped {
    let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
    assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
    let again = kms.wrap_key(&secret(), &CONTEXT).unwrap();
    assert_ne!(wrapped.blob, again.blob, "each wrapping is another");
    let clear = secret();
    assert!(!wrapped.blob.windows(8).any(|part| part == &clear.expose()[..8]), "the secret does not show");
    let described = kms.describe().unwrap();
    assert_eq!(described.master_key, again.master_key);
    assert_eq!(described.state, KeyState::Enabled);
    assert!(!described.algorithms.is_empty() && !described.version.is_empty());
    let empty = kms.wrap_key(&SecureBytes::copy_from(b"x"), &CONTEXT).unwrap();
    assert_eq!(kms.unwrap_key(&empty, &CONTEXT).unwrap().expose(), b"x");
    wrapped
}

fn data_keys_unwrap(kms: &dyn KmsProvider) {
    let (one, other) = (kms.generate_data_key(&CONTEXT).unwrap(), kms.generate_data_key(&CONTEXT).unwrap());
    assert_eq!(one.key.len(), DATA_KEY_LEN);
    assert_ne!(one.key, other.key);
    for made in [one, other] {
        assert_eq!(kms.unwrap_key(&made.wrapped, &CONTEXT).unwrap(), made.key);
    }
}

fn other_contexts_are_told(kms: &dyn KmsProvider, wrapped: &Wrapped) {
    for other in [
        Context { token: "0123456789ABCDEE", ..CONTEXT },
        Context { purpose: "token-key/so", ..CONTEXT },
        Context { token: "0123456789ABCDEFt", purpose: "oken-key/user" },
        Context { token: "", purpose: "" },
    ] {
        let error = kms.unwrap_key(wrapped, &other).unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::WrongContext), "{error}");
    }
}

fn altered_blobs_are_told(kms: &dyn KmsProvider, wrapped: &Wrapped) {
    let fault = |blob: Vec<u8>| {
        let error = kms.unwrap_key(&Wrapped { blob, ..wrapped.clone() }, &CONTEXT).unwrap_err();
        error.kms_fault().unwrap_or_else(|| panic!("an error without a fault: {error}"))
    };
    // Start, frame, the first bytes behind it, the middle and the end: each request costs time behind a network.
    let len = wrapped.blob.len();
    for place in [0, 4, 5, 6, 37, 38 + (len - 38) / 3, 38 + (len - 38) / 2, len - 17, len - 1] {
        let mut blob = wrapped.blob.clone();
        blob[place] ^= 1;
        assert!(matches!(fault(blob), KmsFault::Tampered | KmsFault::WrongContext), "byte {place} of {len}");
    }
    for end in [0, 5, 37, 38, 50, len - 1] {
        assert_eq!(fault(wrapped.blob[..end].to_vec()), KmsFault::Tampered, "cut at {end} of {len}");
    }
}

fn unknown_keys_are_told(kms: &dyn KmsProvider, wrapped: &Wrapped) {
    // A name of the same form as the provider's own, with its last character changed.
    let mut key = wrapped.master_key.key.clone();
    let last = key.pop().unwrap();
    key.push(if last == '0' { '1' } else { '0' });
    let unknown = Wrapped { master_key: MasterKeyId { key, ..wrapped.master_key.clone() }, ..wrapped.clone() };
    let error = kms.unwrap_key(&unknown, &CONTEXT).unwrap_err();
    assert!(matches!(error.kms_fault(), Some(KmsFault::NotFound | KmsFault::Tampered | KmsFault::Denied)), "{error}");
}

fn rotation_keeps_what_was_wrapped(kms: &dyn KmsProvider, wrapped: Wrapped) -> Option<Wrapped> {
    match kms.rotate_master_key() {
        Ok(id) => {
            assert_eq!(kms.describe().unwrap().master_key, id);
            assert_eq!(kms.wrap_key(&secret(), &CONTEXT).unwrap().master_key, id);
            assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
            Some(wrapped)
        }
        Err(error) => {
            assert_eq!(error.kms_fault(), Some(KmsFault::Unsupported), "{error}");
            None
        }
    }
}
