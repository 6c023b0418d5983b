//! `CK_MECHANISM` as a row and a checked parameter: the one place that knows how each shape of parameter looks in C.

use std::ffi::c_void;

use smallvec::SmallVec;

use super::arg;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::mechanism::{self, ParamShape, Params, RsaOaep};
use crate::token::Call;

/// The longest additional data in bytes.
const LONGEST_AAD: usize = 16 * 1024 * 1024;
/// The longest initialisation vector, label, shared information or public key in bytes.
const LONGEST_PART: usize = 4096;
/// The longest context of EdDSA in bytes (RFC 8032).
const LONGEST_CONTEXT: usize = 255;

/// `CK_GCM_PARAMS` as the text of v2.40 has it, without the `ulIvBits` of the header.
#[repr(C)]
#[derive(Clone, Copy)]
struct GcmParamsWithoutIvBits {
    iv: *const u8,
    iv_len: CK_ULONG,
    aad: *const u8,
    aad_len: CK_ULONG,
    tag_bits: CK_ULONG,
}

/// Reads a mechanism and its parameter.
///
/// # Errors
/// `ArgumentsBad` for NULL, `MechanismInvalid` for an unknown one, `MechanismParamInvalid`.
///
/// # Safety
/// `mechanism` is NULL or a `CK_MECHANISM` whose parameter is NULL or valid for reads of its length, and so are the
/// buffers to which the parameter points.
pub unsafe fn call(mechanism: *const CK_MECHANISM) -> Result<Call> {
    // SAFETY: as the caller vouches.
    let given = unsafe { arg::read(mechanism) }?;
    let row = mechanism::find(given.mechanism)
        .ok_or_else(|| Error::new(Kind::MechanismInvalid, format!("{} is unknown", mechanism_name(given.mechanism))))?;
    // SAFETY: as the caller vouches.
    let params = unsafe { params(row.params, given.pParameter, given.ulParameterLen) };
    let params = params.map_err(|error| error.context(mechanism_name(given.mechanism)))?;
    Ok(Call { mechanism: row, params })
}

/// Reads a mechanism that may be NULL, which cancels the operation (PKCS #11 v3.2, 5.8.1).
///
/// # Errors
/// As [`call`], but for NULL.
///
/// # Safety
/// As [`call`].
pub unsafe fn optional_call(mechanism: *const CK_MECHANISM) -> Result<Option<Call>> {
    match mechanism.is_null() {
        true => Ok(None),
        // SAFETY: as the caller vouches.
        false => unsafe { call(mechanism) }.map(Some),
    }
}

unsafe fn params(shape: ParamShape, start: *const c_void, len: CK_ULONG) -> Result<Params> {
    let given = Given { start, len: arg::length(len).map_err(|_| invalid("its length cannot be"))? };
    if start.is_null() && given.len > 0 {
        return Err(invalid("it is NULL although its length is not 0"));
    }
    match shape {
        ParamShape::None | ParamShape::KeyVersions if given.len == 0 => Ok(Params::None),
        ParamShape::None | ParamShape::KeyVersions => Err(invalid("the mechanism takes none")),
        ParamShape::OptionalIv(_) | ParamShape::OptionalEddsa if given.len == 0 => Ok(Params::None),
        // SAFETY: the caller of `call` vouches for the parameter; likewise in each arm below.
        ParamShape::Iv(len) | ParamShape::OptionalIv(len) => unsafe { given.iv(len) },
        // SAFETY: as above.
        ParamShape::AesCtr => unsafe { given.aes_ctr() },
        // SAFETY: as above.
        ParamShape::Gcm => unsafe { given.gcm() },
        // SAFETY: as above.
        ParamShape::RsaPss => unsafe { given.rsa_pss() },
        // SAFETY: as above.
        ParamShape::RsaOaep => unsafe { given.rsa_oaep() }.map(Params::RsaOaep),
        // SAFETY: as above.
        ParamShape::RsaAesKeyWrap => unsafe { given.rsa_aes_key_wrap() },
        // SAFETY: as above.
        ParamShape::Ecdh1 => unsafe { given.ecdh1() },
        // SAFETY: as above.
        ParamShape::OptionalEddsa => unsafe { given.eddsa() },
        // SAFETY: as above.
        ParamShape::MacGeneral => unsafe { given.structure() }.map(Params::MacGeneral),
    }
}

fn invalid(text: &str) -> Error {
    Error::new(Kind::MechanismParamInvalid, format!("the parameter is wrong: {text}"))
}

/// A parameter as given: valid for reads of `len` bytes, and NULL only if that is 0.
struct Given {
    start: *const c_void,
    len: usize,
}

impl Given {
    /// Reads a structure of exactly this length.
    unsafe fn structure<T: Copy>(&self) -> Result<T> {
        if self.len != size_of::<T>() {
            return Err(invalid(&format!("it has {} bytes instead of {}", self.len, size_of::<T>())));
        }
        // SAFETY: the length is that of a `T`, which any bits are.
        unsafe { arg::read(self.start.cast()) }
    }

    unsafe fn iv(&self, len: usize) -> Result<Params> {
        if self.len != len {
            return Err(invalid(&format!("the initialisation vector has {} bytes instead of {len}", self.len)));
        }
        // SAFETY: the parameter has that length.
        Ok(Params::Iv(unsafe { part(self.start.cast(), arg::ulong(len)) }?.into()))
    }

    unsafe fn aes_ctr(&self) -> Result<Params> {
        // SAFETY: the structure holds plain numbers.
        let given: CK_AES_CTR_PARAMS = unsafe { self.structure() }?;
        match given.ulCounterBits {
            bits @ 1..=128 => Ok(Params::AesCtr { bits, block: given.cb }),
            bits => Err(invalid(&format!("a counter of {bits} bits; 1 to 128 are possible"))),
        }
    }

    /// Both layouts of `CK_GCM_PARAMS`, told apart by their length. `ulIvBits` says nothing that `ulIvLen` does not.
    unsafe fn gcm(&self) -> Result<Params> {
        let given = if self.len == size_of::<GcmParamsWithoutIvBits>() {
            // SAFETY: the structure holds numbers and pointers.
            unsafe { self.structure::<GcmParamsWithoutIvBits>() }?
        } else {
            // SAFETY: as above.
            let full: CK_GCM_PARAMS = unsafe { self.structure() }?;
            let (iv, aad) = (full.pIv.cast_const(), full.pAAD.cast_const());
            GcmParamsWithoutIvBits { iv, iv_len: full.ulIvLen, aad, aad_len: full.ulAADLen, tag_bits: full.ulTagBits }
        };
        // SAFETY: the caller vouches for the buffers of the parameter.
        let iv = unsafe { part(given.iv, given.iv_len) }?;
        // SAFETY: as above.
        let given_aad = unsafe { part_up_to(LONGEST_AAD, given.aad, given.aad_len) }?;
        let mut aad = SmallVec::new();
        aad.try_reserve_exact(given_aad.len())?;
        aad.extend_from_slice(given_aad);
        Ok(Params::Gcm { iv: iv.into(), aad, tag_bits: given.tag_bits })
    }

    unsafe fn rsa_pss(&self) -> Result<Params> {
        // SAFETY: the structure holds plain numbers.
        let given: CK_RSA_PKCS_PSS_PARAMS = unsafe { self.structure() }?;
        Ok(Params::RsaPss { hash: given.hashAlg, mgf: given.mgf, salt_len: given.sLen })
    }

    /// Source 0 without data is what pkcs11-tool and Java send for "no label".
    unsafe fn rsa_oaep(&self) -> Result<RsaOaep> {
        // SAFETY: the structure holds numbers and a pointer.
        let given: CK_RSA_PKCS_OAEP_PARAMS = unsafe { self.structure() }?;
        // SAFETY: the caller vouches for the buffers of the parameter.
        let label = unsafe { part(given.pSourceData.cast(), given.ulSourceDataLen) }?;
        match given.source {
            CKZ_DATA_SPECIFIED => {}
            0 if label.is_empty() => {}
            other => return Err(invalid(&format!("the source of the label is {other} instead of CKZ_DATA_SPECIFIED"))),
        }
        Ok(RsaOaep { hash: given.hashAlg, mgf: given.mgf, label: label.to_vec() })
    }

    unsafe fn rsa_aes_key_wrap(&self) -> Result<Params> {
        // SAFETY: the structure holds a number and a pointer.
        let given: CK_RSA_AES_KEY_WRAP_PARAMS = unsafe { self.structure() }?;
        if given.pOAEPParams.is_null() {
            return Err(invalid("pOAEPParams is NULL"));
        }
        let oaep = Given { start: given.pOAEPParams.cast(), len: size_of::<CK_RSA_PKCS_OAEP_PARAMS>() };
        // SAFETY: the caller vouches for the structure to which the parameter points, and for its label.
        let oaep = unsafe { oaep.rsa_oaep() }.map_err(|error| error.context("pOAEPParams"))?;
        Ok(Params::RsaAesKeyWrap { aes_bits: given.ulAESKeyBits, oaep })
    }

    unsafe fn ecdh1(&self) -> Result<Params> {
        // SAFETY: the structure holds numbers and pointers.
        let given: CK_ECDH1_DERIVE_PARAMS = unsafe { self.structure() }?;
        // SAFETY: the caller vouches for the buffers of the parameter.
        let shared = unsafe { part(given.pSharedData, given.ulSharedDataLen) }?;
        // SAFETY: as above.
        let public = unsafe { part(given.pPublicData, given.ulPublicDataLen) }?;
        Ok(Params::Ecdh1 { kdf: given.kdf, shared: shared.to_vec(), public: public.to_vec() })
    }

    unsafe fn eddsa(&self) -> Result<Params> {
        // SAFETY: the structure holds numbers and a pointer.
        let given: CK_EDDSA_PARAMS = unsafe { self.structure() }?;
        // SAFETY: the caller vouches for the buffers of the parameter.
        let context = unsafe { part(given.pContextData, given.ulContextDataLen) }?;
        if context.len() > LONGEST_CONTEXT {
            return Err(invalid(&format!(
                "the context has {} bytes; at most {LONGEST_CONTEXT} are possible",
                context.len()
            )));
        }
        Ok(Params::Eddsa { prehash: given.phFlag != CK_FALSE, context: context.to_vec() })
    }
}

/// Views a buffer to which a parameter points.
unsafe fn part<'a>(start: *const u8, len: CK_ULONG) -> Result<&'a [u8]> {
    // SAFETY: as the caller vouches.
    unsafe { part_up_to(LONGEST_PART, start, len) }
}

/// As [`part`], up to another length.
unsafe fn part_up_to<'a>(most: usize, start: *const u8, len: CK_ULONG) -> Result<&'a [u8]> {
    // SAFETY: as the caller vouches.
    let bytes =
        unsafe { arg::bytes(start, len) }.map_err(|_| invalid("a pointer in it is NULL or a length cannot be"))?;
    match bytes.len() {
        len if len <= most => Ok(bytes),
        len => Err(invalid(&format!("a part of it has {len} bytes; at most {most} are taken"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::as_conversions)]
mod tests {
    use super::*;
    use smallvec::smallvec;
    use std::ptr::{null, null_mut};

    fn parse<T>(shape: ParamShape, value: &T) -> Result<Params> {
        // SAFETY: `value` is alive, and so is all that it points to in these tests.
        unsafe { params(shape, std::ptr::from_ref(value).cast(), size_of::<T>() as CK_ULONG) }
    }

    fn absent(shape: ParamShape, len: CK_ULONG) -> Result<Params> {
        // SAFETY: NULL is never read.
        unsafe { params(shape, null(), len) }
    }

    fn refused(result: Result<Params>) -> bool {
        result.is_err_and(|error| error.kind() == Kind::MechanismParamInvalid)
    }

    #[test]
    fn absent_parameters_are_taken_only_where_the_shape_allows() {
        use ParamShape::*;
        for shape in [None, OptionalIv(8), OptionalEddsa] {
            assert_eq!(absent(shape, 0).unwrap(), Params::None);
            assert!(refused(absent(shape, 8)), "{shape:?}: NULL with a length");
        }
        for shape in [Iv(16), AesCtr, Gcm, RsaPss, RsaOaep, RsaAesKeyWrap, Ecdh1, MacGeneral] {
            assert!(refused(absent(shape, 0)), "{shape:?}");
            assert!(refused(parse(shape, &[0_u8; 7])), "{shape:?}: a wrong length");
        }
        assert!(refused(parse(None, &[0_u8; 1])));
        // SAFETY: no byte is read.
        assert_eq!(unsafe { params(None, [1_u8].as_ptr().cast(), 0) }.unwrap(), Params::None);
    }

    #[test]
    fn plain_shapes() {
        assert_eq!(parse(ParamShape::Iv(4), b"abcd").unwrap(), Params::Iv(smallvec![b'a', b'b', b'c', b'd']));
        assert_eq!(parse(ParamShape::OptionalIv(8), &[5_u8; 8]).unwrap(), Params::Iv(smallvec![5; 8]));
        assert_eq!(parse(ParamShape::MacGeneral, &(12 as CK_ULONG)).unwrap(), Params::MacGeneral(12));
        let ctr = |bits| CK_AES_CTR_PARAMS { ulCounterBits: bits, cb: [3; 16] };
        assert_eq!(parse(ParamShape::AesCtr, &ctr(128)).unwrap(), Params::AesCtr { bits: 128, block: [3; 16] });
        assert!(refused(parse(ParamShape::AesCtr, &ctr(0))) && refused(parse(ParamShape::AesCtr, &ctr(129))));
        let pss = CK_RSA_PKCS_PSS_PARAMS { hashAlg: CKM_SHA256, mgf: CKG_MGF1_SHA256, sLen: 32 };
        let read = Params::RsaPss { hash: CKM_SHA256, mgf: CKG_MGF1_SHA256, salt_len: 32 };
        assert_eq!(parse(ParamShape::RsaPss, &pss).unwrap(), read);
    }

    #[test]
    fn r48_both_layouts_of_gcm_params() {
        let (mut iv, mut aad) = ([1_u8; 12], [2_u8; 3]);
        let read = Params::Gcm { iv: smallvec![1; 12], aad: smallvec![2; 3], tag_bits: 128 };
        let short =
            GcmParamsWithoutIvBits { iv: iv.as_ptr(), iv_len: 12, aad: aad.as_ptr(), aad_len: 3, tag_bits: 128 };
        assert_eq!(parse(ParamShape::Gcm, &short).unwrap(), read);
        let mut full = |iv_bits| CK_GCM_PARAMS {
            pIv: iv.as_mut_ptr(),
            ulIvLen: 12,
            ulIvBits: iv_bits,
            pAAD: aad.as_mut_ptr(),
            ulAADLen: 3,
            ulTagBits: 128,
        };
        assert_eq!(parse(ParamShape::Gcm, &full(96)).unwrap(), read);
        assert_eq!(parse(ParamShape::Gcm, &full(0)).unwrap(), read);
        assert!(refused(parse(ParamShape::Gcm, &CK_GCM_PARAMS { pAAD: null_mut(), ..full(96) })));
    }

    #[test]
    fn oaep_takes_a_label_from_its_source_only() {
        let mut label = *b"label";
        let params = |source, label: &mut [u8]| CK_RSA_PKCS_OAEP_PARAMS {
            hashAlg: CKM_SHA_1,
            mgf: CKG_MGF1_SHA1,
            source,
            pSourceData: label.as_mut_ptr().cast(),
            ulSourceDataLen: label.len() as CK_ULONG,
        };
        let read = |label: &[u8]| RsaOaep { hash: CKM_SHA_1, mgf: CKG_MGF1_SHA1, label: label.to_vec() };
        let with = |label: &[u8]| Params::RsaOaep(read(label));
        assert_eq!(parse(ParamShape::RsaOaep, &params(CKZ_DATA_SPECIFIED, &mut label)).unwrap(), with(b"label"));
        assert_eq!(parse(ParamShape::RsaOaep, &params(0, &mut [])).unwrap(), with(b""));
        assert!(refused(parse(ParamShape::RsaOaep, &params(0, &mut label))));
        assert!(refused(parse(ParamShape::RsaOaep, &params(2, &mut []))));
        let around = |oaep| CK_RSA_AES_KEY_WRAP_PARAMS { ulAESKeyBits: 256, pOAEPParams: oaep };
        let read = Params::RsaAesKeyWrap { aes_bits: 256, oaep: read(b"label") };
        let mut inner = params(CKZ_DATA_SPECIFIED, &mut label);
        assert_eq!(parse(ParamShape::RsaAesKeyWrap, &around(&raw mut inner)).unwrap(), read);
        inner.source = 2;
        assert!(refused(parse(ParamShape::RsaAesKeyWrap, &around(&raw mut inner))));
        assert!(refused(parse(ParamShape::RsaAesKeyWrap, &around(null_mut()))));
    }

    #[test]
    fn ecdh_and_eddsa() {
        let mut public = [4_u8; 65];
        let ecdh = CK_ECDH1_DERIVE_PARAMS {
            kdf: CKD_NULL,
            ulSharedDataLen: 0,
            pSharedData: null_mut(),
            ulPublicDataLen: 65,
            pPublicData: public.as_mut_ptr(),
        };
        let read = Params::Ecdh1 { kdf: CKD_NULL, shared: vec![], public: vec![4; 65] };
        assert_eq!(parse(ParamShape::Ecdh1, &ecdh).unwrap(), read);
        let mut context = [7_u8; 256];
        let mut eddsa =
            |len| CK_EDDSA_PARAMS { phFlag: CK_TRUE, ulContextDataLen: len, pContextData: context.as_mut_ptr() };
        let read = Params::Eddsa { prehash: true, context: vec![7; 255] };
        assert_eq!(parse(ParamShape::OptionalEddsa, &eddsa(255)).unwrap(), read);
        assert!(refused(parse(ParamShape::OptionalEddsa, &eddsa(256))));
    }
}
