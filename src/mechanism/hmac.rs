//! HMAC over every hash, whole and cut to a length (PKCS #11 v3.2, 6.21 to 6.33).

use std::sync::Arc;

use super::generic::{GenericKey, SIZES};
use super::key::Key;
use super::mac::{self, MacOperation};
use super::mechanism::{Mechanism, ParamShape, Params, SignOperation, StartSign, StartVerify, VerifyOperation};
use super::remote::{RemoteMac, RemoteUse};
use super::signature::Whole;
use crate::ck::*;
use crate::crypto::hash::Hash;
use crate::crypto::mac::Hmac;
use crate::error::Result;

/// How much of a message for a key in a KMS is collected.
const COLLECT: usize = 64 * 1024;

/// Declares two rows for each hash: mechanism, mechanism with a length, key type, hash.
macro_rules! rows {
    ($count:literal: $($whole:ident, $general:ident, $key:ident, $hash:ident;)*) => {
        /// The rows of the family.
        pub static ROWS: [Mechanism; 2 * $count] = [
            $(row($whole, ParamShape::None, &[CKK_GENERIC_SECRET, $key],
                  Hash::$hash, |key, params| sign(Hash::$hash, key, params), |key, params| verify(Hash::$hash, key, params)),
            row($general, ParamShape::MacGeneral, &[CKK_GENERIC_SECRET, $key],
                Hash::$hash, |key, params| sign(Hash::$hash, key, params), |key, params| verify(Hash::$hash, key, params)),)*
        ];

        /// The key types of HMAC keys.
        pub const KEY_TYPES: [CK_KEY_TYPE; $count] = [$($key),*];
    };
}

rows! { 11:
    CKM_SHA_1_HMAC, CKM_SHA_1_HMAC_GENERAL, CKK_SHA_1_HMAC, Sha1;
    CKM_SHA224_HMAC, CKM_SHA224_HMAC_GENERAL, CKK_SHA224_HMAC, Sha224;
    CKM_SHA256_HMAC, CKM_SHA256_HMAC_GENERAL, CKK_SHA256_HMAC, Sha256;
    CKM_SHA384_HMAC, CKM_SHA384_HMAC_GENERAL, CKK_SHA384_HMAC, Sha384;
    CKM_SHA512_HMAC, CKM_SHA512_HMAC_GENERAL, CKK_SHA512_HMAC, Sha512;
    CKM_SHA512_224_HMAC, CKM_SHA512_224_HMAC_GENERAL, CKK_SHA512_224_HMAC, Sha512_224;
    CKM_SHA512_256_HMAC, CKM_SHA512_256_HMAC_GENERAL, CKK_SHA512_256_HMAC, Sha512_256;
    CKM_SHA3_224_HMAC, CKM_SHA3_224_HMAC_GENERAL, CKK_SHA3_224_HMAC, Sha3_224;
    CKM_SHA3_256_HMAC, CKM_SHA3_256_HMAC_GENERAL, CKK_SHA3_256_HMAC, Sha3_256;
    CKM_SHA3_384_HMAC, CKM_SHA3_384_HMAC_GENERAL, CKK_SHA3_384_HMAC, Sha3_384;
    CKM_SHA3_512_HMAC, CKM_SHA3_512_HMAC_GENERAL, CKK_SHA3_512_HMAC, Sha3_512;
}

const fn row(
    id: CK_MECHANISM_TYPE,
    params: ParamShape,
    key_types: &'static [CK_KEY_TYPE],
    hash: Hash,
    sign: StartSign,
    verify: StartVerify,
) -> Mechanism {
    let remote = Some(RemoteUse::Mac(hash));
    Mechanism {
        id,
        key_types,
        key_size: SIZES,
        params,
        sign: Some(sign),
        verify: Some(verify),
        remote,
        ..Mechanism::NONE
    }
}

fn sign(hash: Hash, key: &Arc<Key>, params: &Params) -> Result<Box<dyn SignOperation>> {
    match &**key {
        Key::Remote(_) => Ok(Whole::new(remote(hash, key, params)?, COLLECT)),
        _ => Ok(Box::new(start(hash, key, params)?)),
    }
}

fn verify(hash: Hash, key: &Arc<Key>, params: &Params) -> Result<Box<dyn VerifyOperation>> {
    match &**key {
        Key::Remote(_) => Ok(Whole::new(remote(hash, key, params)?, COLLECT)),
        _ => Ok(Box::new(start(hash, key, params)?)),
    }
}

fn remote(hash: Hash, key: &Arc<Key>, params: &Params) -> Result<RemoteMac> {
    Ok(RemoteMac::new(key.clone(), hash, mac::length(hash.len(), params)?))
}

fn start(hash: Hash, key: &Arc<Key>, params: &Params) -> Result<MacOperation<Hmac>> {
    MacOperation::new(GenericKey::of(key)?.hmac(hash)?, hash.len(), params)
}

#[cfg(test)]
mod tests;
