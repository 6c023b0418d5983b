//! Mechanisms with their parameters, kept alive together.

use crate::ck::*;

/// A mechanism and the memory of its parameter.
pub struct Mechanism {
    kind: CK_MECHANISM_TYPE,
    parameter: Vec<u8>,
    _held: Vec<Box<[u8]>>,
}

/// Gives the bytes of a C structure.
fn bytes_of<T>(value: &T) -> Vec<u8> {
    // SAFETY: the structure has only integers and pointers, and no padding that matters.
    unsafe { std::slice::from_raw_parts((value as *const T).cast::<u8>(), size_of::<T>()) }.to_vec()
}

/// Gives the address of held bytes; NULL for none.
fn address(bytes: &[u8]) -> *mut u8 {
    if bytes.is_empty() { std::ptr::null_mut() } else { bytes.as_ptr().cast_mut() }
}

impl Mechanism {
    /// Makes one without a parameter.
    pub fn new(kind: CK_MECHANISM_TYPE) -> Self {
        Self { kind, parameter: Vec::new(), _held: Vec::new() }
    }

    /// Makes one whose parameter is bytes, such as an initialisation vector.
    pub fn with(kind: CK_MECHANISM_TYPE, parameter: impl AsRef<[u8]>) -> Self {
        Self { kind, parameter: parameter.as_ref().to_vec(), _held: Vec::new() }
    }

    /// Makes one whose parameter is a `CK_ULONG`.
    pub fn ulong(kind: CK_MECHANISM_TYPE, value: CK_ULONG) -> Self {
        Self::with(kind, value.to_ne_bytes())
    }

    /// Makes one with `CK_GCM_PARAMS`.
    pub fn gcm(kind: CK_MECHANISM_TYPE, iv: &[u8], aad: &[u8], tag_bits: CK_ULONG) -> Self {
        let (iv, aad): (Box<[u8]>, Box<[u8]>) = (iv.into(), aad.into());
        let params = CK_GCM_PARAMS {
            pIv: address(&iv),
            ulIvLen: iv.len() as CK_ULONG,
            ulIvBits: iv.len() as CK_ULONG * 8,
            pAAD: address(&aad),
            ulAADLen: aad.len() as CK_ULONG,
            ulTagBits: tag_bits,
        };
        Self { kind, parameter: bytes_of(&params), _held: vec![iv, aad] }
    }

    /// Makes one with `CK_AES_CTR_PARAMS`.
    pub fn ctr(kind: CK_MECHANISM_TYPE, bits: CK_ULONG, block: [u8; 16]) -> Self {
        Self { kind, parameter: bytes_of(&CK_AES_CTR_PARAMS { ulCounterBits: bits, cb: block }), _held: Vec::new() }
    }

    /// Makes one with `CK_RSA_PKCS_PSS_PARAMS`.
    pub fn pss(kind: CK_MECHANISM_TYPE, hash: CK_MECHANISM_TYPE, mgf: CK_ULONG, salt: CK_ULONG) -> Self {
        let params = CK_RSA_PKCS_PSS_PARAMS { hashAlg: hash, mgf, sLen: salt };
        Self { kind, parameter: bytes_of(&params), _held: Vec::new() }
    }

    /// Makes one with `CK_RSA_PKCS_OAEP_PARAMS`.
    pub fn oaep(kind: CK_MECHANISM_TYPE, hash: CK_MECHANISM_TYPE, mgf: CK_ULONG, label: &[u8]) -> Self {
        let label: Box<[u8]> = label.into();
        let params = CK_RSA_PKCS_OAEP_PARAMS {
            hashAlg: hash,
            mgf,
            source: CKZ_DATA_SPECIFIED,
            pSourceData: address(&label).cast(),
            ulSourceDataLen: label.len() as CK_ULONG,
        };
        Self { kind, parameter: bytes_of(&params), _held: vec![label] }
    }

    /// Makes one with `CK_RSA_AES_KEY_WRAP_PARAMS` over OAEP.
    pub fn rsa_aes(kind: CK_MECHANISM_TYPE, aes_bits: CK_ULONG, hash: CK_MECHANISM_TYPE, mgf: CK_ULONG) -> Self {
        let oaep: Box<[u8]> = Self::oaep(CKM_RSA_PKCS_OAEP, hash, mgf, b"").parameter.into();
        let params = CK_RSA_AES_KEY_WRAP_PARAMS { ulAESKeyBits: aes_bits, pOAEPParams: address(&oaep).cast() };
        Self { kind, parameter: bytes_of(&params), _held: vec![oaep] }
    }

    /// Makes one with `CK_ECDH1_DERIVE_PARAMS`.
    pub fn ecdh1(kind: CK_MECHANISM_TYPE, kdf: CK_ULONG, shared: &[u8], public: &[u8]) -> Self {
        let (shared, public): (Box<[u8]>, Box<[u8]>) = (shared.into(), public.into());
        let params = CK_ECDH1_DERIVE_PARAMS {
            kdf,
            ulSharedDataLen: shared.len() as CK_ULONG,
            pSharedData: address(&shared),
            ulPublicDataLen: public.len() as CK_ULONG,
            pPublicData: address(&public),
        };
        Self { kind, parameter: bytes_of(&params), _held: vec![shared, public] }
    }

    /// Makes one with `CK_HKDF_PARAMS` (extract and expand, no salt).
    pub fn hkdf(kind: CK_MECHANISM_TYPE, prf: CK_MECHANISM_TYPE, info: &[u8]) -> Self {
        let info: Box<[u8]> = info.into();
        let params = CK_HKDF_PARAMS {
            bExtract: 1,
            bExpand: 1,
            prfHashMechanism: prf,
            ulSaltType: CKF_HKDF_SALT_NULL,
            pInfo: address(&info),
            ulInfoLen: info.len() as CK_ULONG,
            ..Default::default()
        };
        Self { kind, parameter: bytes_of(&params), _held: vec![info] }
    }

    /// Tells its number.
    pub fn kind(&self) -> CK_MECHANISM_TYPE {
        self.kind
    }

    /// Gives the C form; it points into this value.
    pub fn raw(&self) -> CK_MECHANISM {
        CK_MECHANISM {
            mechanism: self.kind,
            pParameter: address(&self.parameter).cast(),
            ulParameterLen: self.parameter.len() as CK_ULONG,
        }
    }
}
