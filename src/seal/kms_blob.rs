//! Keys that the KMS master key wraps for callers: data keys, and keys that C_WrapKey hands out.
//!
//! A blob names provider, master key and version, so that it opens after the token's master key was rotated, and after the token
//! moved to another provider that is still configured.

use super::envelope::Sealer;
use super::header::{BlobKind, Header};
use super::reader::Reader;
use crate::error::{Error, Kind, KmsFault, Result};
use crate::kms::{Context, DataKey, MasterKeyId, Wrapped};
use crate::secret::SecureBytes;

const KIND: BlobKind = BlobKind::KmsWrapped;

impl Sealer {
    /// Wraps a key under the token's master key: one KMS call.
    ///
    /// # Errors
    /// What the KMS answers.
    pub fn wrap_under_kms(&self, token: &[u8; 16], key: &SecureBytes) -> Result<Vec<u8>> {
        encode(self.provider().kind(), &self.provider().wrap_key(key, &context(token)?)?)
    }

    /// Makes a data key of 32 bytes: gives it, and the blob in which it rests. One KMS call.
    ///
    /// # Errors
    /// What the KMS answers.
    pub fn data_key(&self, token: &[u8; 16]) -> Result<(SecureBytes, Vec<u8>)> {
        let DataKey { key, wrapped } = self.provider().generate_data_key(&context(token)?)?;
        Ok((key, encode(self.provider().kind(), &wrapped)?))
    }

    /// Unwraps what the two above wrapped: one KMS call.
    ///
    /// # Errors
    /// `WrappedKeyInvalid` for what is no such blob, was altered, or belongs to another token; what the KMS answers.
    pub fn unwrap_under_kms(&self, token: &[u8; 16], blob: &[u8]) -> Result<SecureBytes> {
        let invalid = |error: Error| Error::from(Kind::WrappedKeyInvalid).caused_by(error);
        let (provider, wrapped) = parse(blob).map_err(invalid)?;
        self.unwrap(KIND.name(), provider, &wrapped, &context(token)?).map_err(|error| match error.kms_fault() {
            Some(KmsFault::Tampered | KmsFault::WrongContext) => invalid(error),
            _ => error,
        })
    }
}

fn context(token: &[u8; 16]) -> Result<Context<'_>> {
    let token = std::str::from_utf8(token).map_err(|_| Error::internal("a token serial is not text"))?;
    Ok(Context { token, purpose: "key" })
}

fn encode(provider: &str, Wrapped { master_key, blob }: &Wrapped) -> Result<Vec<u8>> {
    let too_long = |_| Error::device("the KMS answered with a name that is too long");
    let header = Header { kind: KIND, key_version: master_key.version, key_id: master_key.key.as_bytes() };
    let mut bytes = header.encode()?.to_vec();
    bytes.push(u8::try_from(provider.len()).map_err(too_long)?);
    bytes.extend_from_slice(provider.as_bytes());
    bytes.extend_from_slice(blob);
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Result<(&str, Wrapped)> {
    let mut reader = Reader::new(bytes, KIND.name());
    let header = Header::parse_kind(&mut reader, KIND)?;
    let key = std::str::from_utf8(header.key_id).map_err(|_| Error::damaged(KIND.name()))?.to_owned();
    let len = reader.u8()?;
    let provider = reader.text(usize::from(len))?;
    let master_key = MasterKeyId { key, version: header.key_version };
    Ok((provider, Wrapped { master_key, blob: reader.remaining().to_vec() }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::Argon2Params;
    use super::*;
    use crate::kms::LocalKms;
    use std::sync::Arc;

    const TOKEN: [u8; 16] = *b"0123456789ABCDEF";

    #[test]
    fn a_wrapped_key_opens_for_its_token_alone_and_after_a_rotation() {
        let sealer = Sealer::new(Arc::new(LocalKms::ephemeral().unwrap()), Argon2Params::LEAST);
        let (key, blob) = sealer.data_key(&TOKEN).unwrap();
        let other = sealer.wrap_under_kms(&TOKEN, &key).unwrap();
        sealer.provider().rotate_master_key().unwrap();
        for blob in [&blob, &other] {
            assert_eq!(sealer.unwrap_under_kms(&TOKEN, blob).unwrap(), key);
            let wrong = sealer.unwrap_under_kms(b"0123456789ABCDEE", blob).unwrap_err();
            assert_eq!(wrong.kind(), Kind::WrappedKeyInvalid);
        }
        for end in 0..blob.len() {
            assert!(sealer.unwrap_under_kms(&TOKEN, &blob[..end]).is_err(), "cut at {end}");
        }
        for byte in 0..blob.len() {
            let mut altered = blob.clone();
            altered[byte] ^= 1;
            assert!(sealer.unwrap_under_kms(&TOKEN, &altered).is_err(), "byte {byte}");
        }
    }
}
