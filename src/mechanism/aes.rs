//! AES: key generation, encryption, key wrap and CMAC (PKCS #11 v3.2, 6.13).

use std::sync::Arc;

use super::generic::{CHECK_LEN, accept, generate_value, import_value, secret_key_type};
use super::key::{Key, KeyType};
use super::mac::MacOperation;
use super::mechanism::{
    CipherOperation, Mechanism, ParamShape, Params, SignOperation, StartCipher, Step, Unwrap, VerifyOperation, Wrap,
    Written,
};
use crate::ck::*;
use crate::crypto::aead::{GcmDecryption, GcmEncryption};
pub use crate::crypto::aes::AesKey;
use crate::crypto::aes::{BLOCK, BlockCipher, Ctr, KeyWrap, Wrapping};
use crate::crypto::mac::Cmac;
use crate::crypto::{Direction, InOut};
use crate::error::{Error, Kind, Result};
use crate::secret::{SecureBytes, SecurePrivateKey};

use Direction::{Decrypt, Encrypt};

/// The rows of the family.
pub static ROWS: [Mechanism; 11] = [
    Mechanism { id: CKM_AES_KEY_GEN, generate: Some(|_, template| generate_value(template, check_size)), ..AES },
    Mechanism {
        wrap: Some(|key, params, bytes| wrap(start_ecb_encrypt, key, params, bytes)),
        unwrap: Some(|key, params, bytes| unwrap(start_ecb_decrypt, key, params, bytes)),
        fills: BLOCK,
        ..cipher(CKM_AES_ECB, ParamShape::None, start_ecb_encrypt, start_ecb_decrypt)
    },
    Mechanism {
        wrap: Some(|key, params, bytes| wrap(start_cbc_encrypt, key, params, bytes)),
        unwrap: Some(|key, params, bytes| unwrap(start_cbc_decrypt, key, params, bytes)),
        fills: BLOCK,
        ..cipher(CKM_AES_CBC, ParamShape::Iv(BLOCK), start_cbc_encrypt, start_cbc_decrypt)
    },
    Mechanism {
        wrap: Some(|key, params, bytes| wrap(start_pad_encrypt, key, params, bytes)),
        unwrap: Some(|key, params, bytes| unwrap(start_pad_decrypt, key, params, bytes)),
        ..cipher(CKM_AES_CBC_PAD, ParamShape::Iv(BLOCK), start_pad_encrypt, start_pad_decrypt)
    },
    cipher(
        CKM_AES_CTR,
        ParamShape::AesCtr,
        |key, params| ctr(Encrypt, key, params),
        |key, params| ctr(Decrypt, key, params),
    ),
    Mechanism {
        wrap: Some(|key, params, bytes| wrap(start_gcm_encrypt, key, params, bytes)),
        unwrap: Some(|key, params, bytes| unwrap(start_gcm_decrypt, key, params, bytes)),
        ..cipher(CKM_AES_GCM, ParamShape::Gcm, start_gcm_encrypt, start_gcm_decrypt)
    },
    Mechanism {
        wrap: Some(|key, params, bytes| wrap(start_kw_encrypt, key, params, bytes)),
        unwrap: Some(|key, params, bytes| unwrap(start_kw_decrypt, key, params, bytes)),
        fills: SEMIBLOCK,
        ..cipher(CKM_AES_KEY_WRAP, ParamShape::OptionalIv(8), start_kw_encrypt, start_kw_decrypt)
    },
    // The older number of KWP: v2.40 says too little, and all that is in use does RFC 5649 under it.
    kwp(CKM_AES_KEY_WRAP_PAD),
    kwp(CKM_AES_KEY_WRAP_KWP),
    Mechanism { id: CKM_AES_CMAC, sign: Some(sign), verify: Some(verify), ..AES },
    Mechanism {
        id: CKM_AES_CMAC_GENERAL,
        params: ParamShape::MacGeneral,
        sign: Some(sign),
        verify: Some(verify),
        ..AES
    },
];

/// The key types of the family.
pub static KEY_TYPES: [KeyType; 1] = [secret_key_type(
    CKK_AES,
    |_, secret| AesKey::new(SecureBytes::copy_from(secret.expose())).map(Key::Aes),
    |template| import_value(template, check_size),
    |template, bytes| accept(template, SecureBytes::try_copy_from(bytes.expose())?, check_size),
    cipher_check,
)];

/// Makes the check value of an AES key: the start of a block of zeros, encrypted (PKCS #11 v3.2, 4.10.2).
fn cipher_check(secret: &SecurePrivateKey) -> Result<Vec<u8>> {
    let key = AesKey::new(SecureBytes::copy_from(secret.expose()))?;
    let (zeros, mut block) = ([0; BLOCK], [0; BLOCK]);
    BlockCipher::ecb(&key, Encrypt)?.single(InOut::from_slices(&zeros, &mut block))?;
    Ok(block.iter().take(CHECK_LEN).copied().collect())
}

/// What all rows of the family share; sizes are in bytes.
const AES: Mechanism = Mechanism { key_types: &[CKK_AES], key_size: (16, 32), ..Mechanism::NONE };

/// The unit of KW in bytes (RFC 3394, 2).
const SEMIBLOCK: usize = 8;

/// The initial value of KWP (RFC 5649, 3), the only one that the algorithm has.
const KWP_IV: [u8; 4] = [0xA6, 0x59, 0x59, 0xA6];

const fn cipher(id: CK_MECHANISM_TYPE, params: ParamShape, encrypt: StartCipher, decrypt: StartCipher) -> Mechanism {
    Mechanism { id, params, encrypt: Some(encrypt), decrypt: Some(decrypt), ..AES }
}

const fn kwp(id: CK_MECHANISM_TYPE) -> Mechanism {
    let wraps: Wrap = |key, params, bytes| wrap(start_kwp_encrypt, key, params, bytes);
    let unwraps: Unwrap = |key, params, bytes| unwrap(start_kwp_decrypt, key, params, bytes);
    Mechanism {
        wrap: Some(wraps),
        unwrap: Some(unwraps),
        ..cipher(id, ParamShape::OptionalIv(KWP_IV.len()), start_kwp_encrypt, start_kwp_decrypt)
    }
}

type Started = Result<Box<dyn CipherOperation>>;

fn start_ecb_encrypt(key: &Arc<Key>, _: &Params) -> Started {
    Ok(Box::new(BlockCipher::ecb(aes(key)?, Encrypt)?))
}

fn start_ecb_decrypt(key: &Arc<Key>, _: &Params) -> Started {
    Ok(Box::new(BlockCipher::ecb(aes(key)?, Decrypt)?))
}

fn start_cbc_encrypt(key: &Arc<Key>, params: &Params) -> Started {
    Ok(Box::new(BlockCipher::cbc(aes(key)?, Encrypt, iv(params)?, false)))
}

fn start_cbc_decrypt(key: &Arc<Key>, params: &Params) -> Started {
    Ok(Box::new(BlockCipher::cbc(aes(key)?, Decrypt, iv(params)?, false)))
}

fn start_pad_encrypt(key: &Arc<Key>, params: &Params) -> Started {
    Ok(Box::new(BlockCipher::cbc(aes(key)?, Encrypt, iv(params)?, true)))
}

fn start_pad_decrypt(key: &Arc<Key>, params: &Params) -> Started {
    Ok(Box::new(BlockCipher::cbc(aes(key)?, Decrypt, iv(params)?, true)))
}

fn ctr(direction: Direction, key: &Arc<Key>, params: &Params) -> Started {
    let Params::AesCtr { bits, block } = params else { return Err(wrong_params()) };
    Ok(Box::new(Ctr::new(aes(key)?, direction, *bits, *block)?))
}

fn start_gcm_encrypt(key: &Arc<Key>, params: &Params) -> Started {
    let Params::Gcm { iv, aad, tag_bits } = params else { return Err(wrong_params()) };
    Ok(Box::new(GcmEncryption::new(aes(key)?, iv, aad, tag_len(*tag_bits)?)?))
}

fn start_gcm_decrypt(key: &Arc<Key>, params: &Params) -> Started {
    let Params::Gcm { iv, aad, tag_bits } = params else { return Err(wrong_params()) };
    Ok(Box::new(GcmDecryption::new(aes(key)?, iv, aad, tag_len(*tag_bits)?)?))
}

fn start_kw_encrypt(key: &Arc<Key>, params: &Params) -> Started {
    Ok(Box::new(KeyWrap::new(aes(key)?, Encrypt, Wrapping::Kw(optional_iv(params)?))))
}

fn start_kw_decrypt(key: &Arc<Key>, params: &Params) -> Started {
    Ok(Box::new(KeyWrap::new(aes(key)?, Decrypt, Wrapping::Kw(optional_iv(params)?))))
}

fn start_kwp_encrypt(key: &Arc<Key>, params: &Params) -> Started {
    check_kwp(params)?;
    Ok(Box::new(KeyWrap::new(aes(key)?, Encrypt, Wrapping::Kwp)))
}

fn start_kwp_decrypt(key: &Arc<Key>, params: &Params) -> Started {
    check_kwp(params)?;
    Ok(Box::new(KeyWrap::new(aes(key)?, Decrypt, Wrapping::Kwp)))
}

fn sign(key: &Arc<Key>, params: &Params) -> Result<Box<dyn SignOperation>> {
    Ok(Box::new(MacOperation::new(Cmac::new(aes(key)?)?, BLOCK, params)?))
}

fn verify(key: &Arc<Key>, params: &Params) -> Result<Box<dyn VerifyOperation>> {
    Ok(Box::new(MacOperation::new(Cmac::new(aes(key)?)?, BLOCK, params)?))
}

/// Wraps by encrypting the bytes of the key in one part.
fn wrap(start: StartCipher, key: &Arc<Key>, params: &Params, bytes: &SecureBytes) -> Result<Vec<u8>> {
    let mut running = start(key, params)?;
    let mut wrapped = vec![0; running.output_len(Step::Single, bytes.len())];
    let written =
        running.single(InOut::from_slices(bytes.expose(), &mut wrapped)).map_err(|error| match error.kind() {
            Kind::DataLenRange => {
                Error::new(Kind::KeySizeRange, "the mechanism cannot wrap a key of this length; KWP wraps any")
                    .caused_by(error)
            }
            _ => error,
        })?;
    wrapped.truncate(complete(written)?);
    Ok(wrapped)
}

/// Unwraps by decrypting in one part.
fn unwrap(start: StartCipher, key: &Arc<Key>, params: &Params, wrapped: &[u8]) -> Result<SecureBytes> {
    let mut running = start(key, params)?;
    let mut bytes = SecureBytes::try_zeroed(running.output_len(Step::Single, wrapped.len()))?;
    let written =
        running.single(InOut::from_slices(wrapped, bytes.expose_mut())).map_err(|error| match error.kind() {
            Kind::EncryptedDataLenRange => Error::from(Kind::WrappedKeyLenRange).caused_by(error),
            Kind::EncryptedDataInvalid => Error::from(Kind::WrappedKeyInvalid).caused_by(error),
            _ => error,
        })?;
    match complete(written)? {
        len if len == bytes.len() => Ok(bytes),
        len => Ok(bytes.truncated(len)),
    }
}

/// Wraps with KWP under the key of these bytes, for mechanisms that make a key of their own.
///
/// # Errors
/// `KeySizeRange` for a wrong length.
pub fn wrap_kwp(key: SecureBytes, bytes: &SecureBytes) -> Result<Vec<u8>> {
    wrap(start_kwp_encrypt, &Arc::new(Key::Aes(AesKey::new(key)?)), &Params::None, bytes)
}

/// Unwraps what [`wrap_kwp`] made.
///
/// # Errors
/// `WrappedKeyInvalid`, `WrappedKeyLenRange`.
pub fn unwrap_kwp(key: SecureBytes, wrapped: &[u8]) -> Result<SecureBytes> {
    unwrap(start_kwp_decrypt, &Arc::new(Key::Aes(AesKey::new(key)?)), &Params::None, wrapped)
}

fn complete(written: Written) -> Result<usize> {
    match written {
        Written::Bytes(len) => Ok(len),
        Written::Needs(_) => Err(Error::internal("a cipher needed more room than it had said")),
    }
}

fn aes(key: &Arc<Key>) -> Result<&AesKey> {
    match key.as_ref() {
        Key::Aes(key) => Ok(key),
        _ => Err(Key::wrong_type()),
    }
}

fn iv(params: &Params) -> Result<[u8; BLOCK]> {
    match params {
        Params::Iv(iv) => iv.as_slice().try_into().map_err(|_| wrong_params()),
        _ => Err(wrong_params()),
    }
}

fn optional_iv<const N: usize>(params: &Params) -> Result<Option<[u8; N]>> {
    match params {
        Params::None => Ok(None),
        Params::Iv(iv) => iv.as_slice().try_into().map(Some).map_err(|_| wrong_params()),
        _ => Err(wrong_params()),
    }
}

fn check_kwp(params: &Params) -> Result<()> {
    match optional_iv(params)? {
        None | Some(KWP_IV) => Ok(()),
        Some(_) => {
            Err(Error::new(Kind::MechanismParamInvalid, "KWP has no other initial value than A65959A6; give none"))
        }
    }
}

/// Turns a tag's length in bits into bytes; which lengths there are is GCM's own affair.
fn tag_len(bits: u64) -> Result<usize> {
    let bytes = if bits.is_multiple_of(8) { usize::try_from(bits / 8).ok() } else { None };
    bytes.ok_or_else(|| {
        Error::new(Kind::MechanismParamInvalid, "the length of a GCM tag is told in bits, in whole bytes")
    })
}

fn wrong_params() -> Error {
    Error::from(Kind::MechanismParamInvalid)
}

fn check_size(len: usize) -> Result<()> {
    match len {
        16 | 24 | 32 => Ok(()),
        _ => Err(Error::new(Kind::KeySizeRange, "an AES key has 16, 24 or 32 bytes")),
    }
}

#[cfg(test)]
mod tests;
