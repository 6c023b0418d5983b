//! RSA: PKCS #1 v1.5, PSS, OAEP and the bare operation (PKCS #11 v3.2, 6.1).

use std::sync::Arc;

use super::aes::{unwrap_kwp, wrap_kwp};
use super::digest::{hash_of, mgf_hash};
use super::key::{Key, KeyType};
use super::mechanism::*;
use super::remote::{RemoteKind, RemoteUse};
use super::signature::{Collected, Hashed, Signer, Verifier, Whole};
use crate::ck::*;
use crate::crypto::InOut;
use crate::crypto::hash::Hash;
use crate::crypto::random;
use crate::crypto::rsa::{self, Component, Components, EncryptionPadding, Pss, SignaturePadding};
use crate::error::{Error, Kind, Result};
use crate::secret::{SecureBytes, SecurePrivateKey};

/// How much of a multi-part input is collected before the padding refuses it by length.
const COLLECT: usize = 64 * 1024;

/// The base of every row.
const BASE: Mechanism = Mechanism { key_types: &[CKK_RSA], key_size: (2048, 4096), ..Mechanism::NONE };

/// Declares a row that hashes and then signs with a padding.
macro_rules! hashed {
    (pkcs1 $id:ident $hash:ident) => {
        Mechanism {
            id: $id,
            sign: Some(|key, params| sign_pkcs1(key, params, Hash::$hash)),
            verify: Some(|key, params| verify_pkcs1(key, params, Hash::$hash)),
            remote: Some(RemoteUse::RsaPkcs1(Some(Hash::$hash))),
            ..BASE
        }
    };
    (pss $id:ident $hash:ident) => {
        Mechanism {
            id: $id,
            params: ParamShape::RsaPss,
            sign: Some(|key, params| sign_hashed_pss(key, params, Hash::$hash)),
            verify: Some(|key, params| verify_hashed_pss(key, params, Hash::$hash)),
            remote: Some(RemoteUse::RsaPss(Some(Hash::$hash))),
            ..BASE
        }
    };
}

/// The rows of the family.
pub static ROWS: &[Mechanism] = &[
    Mechanism {
        id: CKM_RSA_PKCS_KEY_PAIR_GEN,
        generate_pair: Some(generate_pair),
        remote: Some(RemoteUse::Generate(|_, template| remote_kind(template))),
        ..BASE
    },
    Mechanism {
        id: CKM_RSA_PKCS,
        sign: Some(|key, params| sign_whole(key, params, SignaturePadding::Pkcs1)),
        verify: Some(|key, params| verify_whole(key, params, SignaturePadding::Pkcs1)),
        encrypt: Some(encrypt_pkcs1),
        decrypt: Some(decrypt_pkcs1),
        wrap: Some(|key, params, secret| wrap(key, &bare(params, EncryptionPadding::Pkcs1)?, secret)),
        unwrap: Some(|key, params, bytes| unwrap(key, &bare(params, EncryptionPadding::Pkcs1)?, bytes)),
        remote: Some(RemoteUse::RsaPkcs1(None)),
        ..BASE
    },
    Mechanism {
        id: CKM_RSA_X_509,
        sign: Some(|key, params| sign_whole(key, params, SignaturePadding::None)),
        verify: Some(|key, params| verify_whole(key, params, SignaturePadding::None)),
        encrypt: Some(|key, params| encrypt(key, bare(params, EncryptionPadding::None)?)),
        decrypt: Some(|key, params| decrypt(key, bare(params, EncryptionPadding::None)?)),
        ..BASE
    },
    Mechanism {
        id: CKM_RSA_PKCS_OAEP,
        params: ParamShape::RsaOaep,
        encrypt: Some(|key, params| encrypt(key, oaep(params)?)),
        decrypt: Some(|key, params| decrypt(key, oaep(params)?)),
        wrap: Some(|key, params, secret| wrap(key, &oaep(params)?, secret)),
        unwrap: Some(|key, params, bytes| unwrap(key, &oaep(params)?, bytes)),
        remote: Some(RemoteUse::RsaOaep),
        ..BASE
    },
    Mechanism {
        id: CKM_RSA_AES_KEY_WRAP,
        params: ParamShape::RsaAesKeyWrap,
        wrap: Some(wrap_rsa_aes),
        unwrap: Some(unwrap_rsa_aes),
        ..BASE
    },
    Mechanism {
        id: CKM_RSA_PKCS_PSS,
        params: ParamShape::RsaPss,
        sign: Some(sign_pss),
        verify: Some(verify_pss),
        remote: Some(RemoteUse::RsaPss(None)),
        ..BASE
    },
    hashed!(pkcs1 CKM_SHA1_RSA_PKCS Sha1),
    hashed!(pkcs1 CKM_SHA224_RSA_PKCS Sha224),
    hashed!(pkcs1 CKM_SHA256_RSA_PKCS Sha256),
    hashed!(pkcs1 CKM_SHA384_RSA_PKCS Sha384),
    hashed!(pkcs1 CKM_SHA512_RSA_PKCS Sha512),
    hashed!(pkcs1 CKM_SHA3_224_RSA_PKCS Sha3_224),
    hashed!(pkcs1 CKM_SHA3_256_RSA_PKCS Sha3_256),
    hashed!(pkcs1 CKM_SHA3_384_RSA_PKCS Sha3_384),
    hashed!(pkcs1 CKM_SHA3_512_RSA_PKCS Sha3_512),
    hashed!(pss CKM_SHA1_RSA_PKCS_PSS Sha1),
    hashed!(pss CKM_SHA224_RSA_PKCS_PSS Sha224),
    hashed!(pss CKM_SHA256_RSA_PKCS_PSS Sha256),
    hashed!(pss CKM_SHA384_RSA_PKCS_PSS Sha384),
    hashed!(pss CKM_SHA512_RSA_PKCS_PSS Sha512),
    hashed!(pss CKM_SHA3_224_RSA_PKCS_PSS Sha3_224),
    hashed!(pss CKM_SHA3_256_RSA_PKCS_PSS Sha3_256),
    hashed!(pss CKM_SHA3_384_RSA_PKCS_PSS Sha3_384),
    hashed!(pss CKM_SHA3_512_RSA_PKCS_PSS Sha3_512),
];

/// The type `CKK_RSA`.
pub static KEY_TYPES: [KeyType; 1] = [KeyType {
    id: CKK_RSA,
    secret_attributes: &[
        CKA_PRIVATE_EXPONENT,
        CKA_PRIME_1,
        CKA_PRIME_2,
        CKA_EXPONENT_1,
        CKA_EXPONENT_2,
        CKA_COEFFICIENT,
    ],
    public_attributes: &[CKA_MODULUS, CKA_MODULUS_BITS, CKA_PUBLIC_EXPONENT],
    public_key: Some(|attributes| public_key(attributes).map(Key::RsaPublic)),
    secret_key: |_, secret| rsa::PrivateKey::from_secret(secret).map(Key::RsaPrivate),
    normalize_public,
    import,
    reveal,
    to_wrapped: |_, secret| rsa::PrivateKey::from_secret(secret)?.to_pkcs8(),
    from_wrapped,
    public_key_info: Some(|attributes| public_key(attributes)?.to_spki()),
    from_public_key_info: Some(|info| public_attributes(&rsa::PublicKey::from_spki(info)?)),
    remote_kind: Some(private_kind),
    check_value: None,
    id_source: Some(|attributes| attributes.bytes(CKA_MODULUS).map(<[u8]>::to_vec)),
}];

/// A key with the padding of its signatures.
struct Scheme {
    key: Arc<Key>,
    padding: SignaturePadding,
}

impl Signer for Scheme {
    fn signature_len(&self) -> usize {
        match &*self.key {
            Key::RsaPrivate(key) => key.signature_len(),
            Key::Remote(key) => key.signature_len(),
            _ => 0,
        }
    }

    fn sign(&self, input: &[u8], out: &mut [u8]) -> Result<()> {
        match &*self.key {
            Key::RsaPrivate(key) => key.sign(self.padding, input, out),
            Key::Remote(key) => key.sign_rsa(self.padding, input, out),
            _ => Err(Key::wrong_type()),
        }
    }
}

impl Verifier for Scheme {
    fn verify(&self, input: &[u8], signature: &[u8]) -> Result<()> {
        public(&self.key)?.verify(self.padding, input, signature)
    }
}

/// Tells the size of a private key in bits.
fn private_bits(key: &Key) -> Result<usize> {
    match key {
        Key::RsaPrivate(key) => Ok(key.bits()),
        Key::Remote(key) => Ok(key.bits()),
        _ => Err(Key::wrong_type()),
    }
}

fn public(key: &Key) -> Result<&rsa::PublicKey> {
    match key {
        Key::RsaPublic(key) => Ok(key),
        _ => Err(Key::wrong_type()),
    }
}

/// Checks that a mechanism without a parameter got none.
fn bare<T>(params: &Params, value: T) -> Result<T> {
    match params {
        Params::None => Ok(value),
        _ => Err(Error::from(Kind::MechanismParamInvalid)),
    }
}

fn pss(params: &Params, bits: usize) -> Result<Pss> {
    let Params::RsaPss { hash, mgf, salt_len } = params else {
        return Err(Error::from(Kind::MechanismParamInvalid));
    };
    let salt_len = usize::try_from(*salt_len).map_err(|_| Error::from(Kind::MechanismParamInvalid))?;
    let pss = Pss { hash: hash_of(*hash)?, mgf: mgf_hash(*mgf)?, salt_len };
    if pss.fits(bits) {
        return Ok(pss);
    }
    Err(Error::new(Kind::MechanismParamInvalid, "the PSS salt is too long for the key"))
}

/// Reads PSS parameters whose hash must be the mechanism's own.
fn pss_over(params: &Params, bits: usize, hash: Hash) -> Result<SignaturePadding> {
    let pss = pss(params, bits)?;
    if pss.hash == hash {
        return Ok(SignaturePadding::Pss(pss));
    }
    Err(Error::new(Kind::MechanismParamInvalid, "the hash of the PSS parameters is not that of the mechanism"))
}

fn oaep(params: &Params) -> Result<EncryptionPadding> {
    match params {
        Params::RsaOaep(oaep) => oaep_padding(oaep),
        _ => Err(Error::from(Kind::MechanismParamInvalid)),
    }
}

fn oaep_padding(oaep: &RsaOaep) -> Result<EncryptionPadding> {
    let (hash, mgf) = (hash_of(oaep.hash)?, mgf_hash(oaep.mgf)?);
    Ok(EncryptionPadding::Oaep { hash, mgf, label: oaep.label.clone() })
}

/// Reads the length in bytes of the temporary AES key, and the padding under which it travels.
fn rsa_aes(params: &Params) -> Result<(usize, EncryptionPadding)> {
    let Params::RsaAesKeyWrap { aes_bits, oaep } = params else {
        return Err(Error::from(Kind::MechanismParamInvalid));
    };
    let len = match aes_bits {
        128 => 16,
        192 => 24,
        256 => 32,
        _ => return Err(Error::new(Kind::MechanismParamInvalid, "ulAESKeyBits is not 128, 192 or 256")),
    };
    Ok((len, oaep_padding(oaep)?))
}

fn sign_whole(key: &Arc<Key>, params: &Params, padding: SignaturePadding) -> Result<Box<dyn SignOperation>> {
    private_bits(key)?;
    Ok(Whole::new(Scheme { key: key.clone(), padding: bare(params, padding)? }, COLLECT))
}

fn verify_whole(key: &Arc<Key>, params: &Params, padding: SignaturePadding) -> Result<Box<dyn VerifyOperation>> {
    public(key)?;
    Ok(Whole::new(Scheme { key: key.clone(), padding: bare(params, padding)? }, COLLECT))
}

fn sign_pss(key: &Arc<Key>, params: &Params) -> Result<Box<dyn SignOperation>> {
    let padding = SignaturePadding::Pss(pss(params, private_bits(key)?)?);
    Ok(Whole::new(Scheme { key: key.clone(), padding }, COLLECT))
}

fn verify_pss(key: &Arc<Key>, params: &Params) -> Result<Box<dyn VerifyOperation>> {
    let padding = SignaturePadding::Pss(pss(params, public(key)?.bits())?);
    Ok(Whole::new(Scheme { key: key.clone(), padding }, COLLECT))
}

fn sign_pkcs1(key: &Arc<Key>, params: &Params, hash: Hash) -> Result<Box<dyn SignOperation>> {
    private_bits(key)?;
    let padding = bare(params, SignaturePadding::Pkcs1Digest(hash))?;
    Ok(Hashed::new(Scheme { key: key.clone(), padding }, hash))
}

fn verify_pkcs1(key: &Arc<Key>, params: &Params, hash: Hash) -> Result<Box<dyn VerifyOperation>> {
    public(key)?;
    let padding = bare(params, SignaturePadding::Pkcs1Digest(hash))?;
    Ok(Hashed::new(Scheme { key: key.clone(), padding }, hash))
}

fn sign_hashed_pss(key: &Arc<Key>, params: &Params, hash: Hash) -> Result<Box<dyn SignOperation>> {
    let padding = pss_over(params, private_bits(key)?, hash)?;
    Ok(Hashed::new(Scheme { key: key.clone(), padding }, hash))
}

fn verify_hashed_pss(key: &Arc<Key>, params: &Params, hash: Hash) -> Result<Box<dyn VerifyOperation>> {
    let padding = pss_over(params, public(key)?.bits(), hash)?;
    Ok(Hashed::new(Scheme { key: key.clone(), padding }, hash))
}

/// Encryption or decryption; parts are collected and worked on at the end.
struct Cipher {
    key: Arc<Key>,
    padding: EncryptionPadding,
    parts: Collected,
}

impl Cipher {
    fn run(&self, input: &[u8]) -> Result<SecureBytes> {
        match &*self.key {
            Key::RsaPublic(key) => key.encrypt(&self.padding, input).map(|out| SecureBytes::copy_from(&out)),
            Key::RsaPrivate(key) => key.decrypt(&self.padding, input),
            Key::Remote(key) => key.decrypt(&self.padding, input),
            _ => Err(Key::wrong_type()),
        }
    }

    fn put(&self, input: &[u8], mut data: InOut<'_>) -> Result<Written> {
        let out = self.run(input)?;
        if data.write(out.expose()) { Ok(Written::Bytes(out.len())) } else { Ok(Written::Needs(out.len())) }
    }
}

impl CipherOperation for Cipher {
    fn output_len(&self, step: Step, _input: usize) -> usize {
        match (step, &*self.key) {
            (Step::Update, _) => 0,
            (_, Key::RsaPublic(key)) => key.signature_len(),
            (_, Key::RsaPrivate(key)) => self.padding.max_message(key.signature_len()),
            (_, Key::Remote(key)) => self.padding.max_message(key.signature_len()),
            _ => 0,
        }
    }

    fn single(&mut self, data: InOut<'_>) -> Result<Written> {
        let input = data.copy_input()?;
        self.put(input.expose(), data)
    }

    fn update(&mut self, data: InOut<'_>) -> Result<Written> {
        self.parts.add(data.copy_input()?.expose())?;
        Ok(Written::Bytes(0))
    }

    fn finish(&mut self, data: InOut<'_>) -> Result<Written> {
        self.put(self.parts.bytes(), data)
    }
}

fn encrypt(key: &Arc<Key>, padding: EncryptionPadding) -> Result<Box<dyn CipherOperation>> {
    public(key)?;
    Ok(Box::new(Cipher { key: key.clone(), padding, parts: Collected::new(COLLECT) }))
}

fn decrypt(key: &Arc<Key>, padding: EncryptionPadding) -> Result<Box<dyn CipherOperation>> {
    private_bits(key)?;
    Ok(Box::new(Cipher { key: key.clone(), padding, parts: Collected::new(COLLECT) }))
}

fn encrypt_pkcs1(key: &Arc<Key>, params: &Params) -> Result<Box<dyn CipherOperation>> {
    encrypt(key, bare(params, EncryptionPadding::Pkcs1)?)
}

fn decrypt_pkcs1(key: &Arc<Key>, params: &Params) -> Result<Box<dyn CipherOperation>> {
    decrypt(key, bare(params, EncryptionPadding::Pkcs1)?)
}

fn wrap(key: &Arc<Key>, padding: &EncryptionPadding, secret: &SecureBytes) -> Result<Vec<u8>> {
    let key = public(key)?;
    if secret.len() > padding.max_message(key.signature_len()) {
        return Err(Error::new(Kind::KeySizeRange, "the key to wrap is too long for the RSA key"));
    }
    key.encrypt(padding, secret.expose())
}

fn unwrap(key: &Arc<Key>, padding: &EncryptionPadding, bytes: &[u8]) -> Result<SecureBytes> {
    // A key in a KMS is made without CKA_UNWRAP: what it decrypted there would cross the network in plaintext.
    let Key::RsaPrivate(key) = &**key else { return Err(Key::wrong_type()) };
    key.decrypt(padding, bytes).map_err(|error| match error.kind() {
        Kind::EncryptedDataLenRange => Error::from(Kind::WrappedKeyLenRange),
        Kind::EncryptedDataInvalid => Error::from(Kind::WrappedKeyInvalid),
        _ => error,
    })
}

/// Wraps a key under a fresh AES key by KWP, after that AES key under OAEP (6.1, `CKM_RSA_AES_KEY_WRAP`).
fn wrap_rsa_aes(key: &Arc<Key>, params: &Params, secret: &SecureBytes) -> Result<Vec<u8>> {
    let (len, padding) = rsa_aes(params)?;
    let temporary = random::secure(len)?;
    let mut wrapped = wrap(key, &padding, &temporary)?;
    wrapped.extend(wrap_kwp(temporary, secret)?);
    Ok(wrapped)
}

fn unwrap_rsa_aes(key: &Arc<Key>, params: &Params, bytes: &[u8]) -> Result<SecureBytes> {
    let (len, padding) = rsa_aes(params)?;
    let parts = bytes.split_at_checked(private_bits(key)?.div_ceil(8));
    let (temporary, wrapped) = parts.ok_or_else(|| Error::from(Kind::WrappedKeyLenRange))?;
    let temporary = unwrap(key, &padding, temporary)?;
    if temporary.len() != len {
        return Err(Error::new(Kind::WrappedKeyInvalid, "the wrapped AES key has not the length of ulAESKeyBits"));
    }
    unwrap_kwp(temporary, wrapped)
}

fn generate_pair(params: &Params, template: &Attributes) -> Result<GeneratedPair> {
    let bits = usize::try_from(template.require_ulong(CKA_MODULUS_BITS)?).unwrap_or(usize::MAX);
    let exponent = template.bytes(CKA_PUBLIC_EXPONENT).unwrap_or(rsa::DEFAULT_EXPONENT);
    let key = rsa::PrivateKey::generate(bare(params, bits)?, exponent)?;
    let private = parts(&key.public()?)?;
    let mut public = private.clone();
    public.set(CKA_MODULUS_BITS, modulus_bits(&key.public()?)?);
    Ok(GeneratedPair { secret: key.secret()?, public, private })
}

/// Makes the attributes that both halves of a key carry.
fn parts(key: &rsa::PublicKey) -> Result<Attributes> {
    let (modulus, exponent) = (key.modulus()?, key.exponent()?);
    Ok([(CKA_MODULUS, Value::Bytes(modulus)), (CKA_PUBLIC_EXPONENT, Value::Bytes(exponent))].into_iter().collect())
}

fn modulus_bits(key: &rsa::PublicKey) -> Result<u64> {
    u64::try_from(key.bits()).map_err(|_| Error::from(Kind::GeneralError))
}

fn public_key(attributes: &Attributes) -> Result<rsa::PublicKey> {
    let modulus = attributes.require_bytes(CKA_MODULUS)?;
    rsa::PublicKey::from_components(modulus, attributes.require_bytes(CKA_PUBLIC_EXPONENT)?)
}

fn public_attributes(key: &rsa::PublicKey) -> Result<Attributes> {
    let mut attributes = parts(key)?;
    attributes.set(CKA_MODULUS_BITS, modulus_bits(key)?);
    Ok(attributes)
}

fn private_kind(attributes: &Attributes) -> Result<RemoteKind> {
    let bytes = attributes.require_bytes(CKA_MODULUS)?.len();
    u32::try_from(bytes.saturating_mul(8)).map(RemoteKind::Rsa).map_err(|_| Error::from(Kind::KeySizeRange))
}

fn remote_kind(template: &Attributes) -> Result<RemoteKind> {
    let bits = template.require_ulong(CKA_MODULUS_BITS)?;
    u32::try_from(bits).map(RemoteKind::Rsa).map_err(|_| Error::from(Kind::KeySizeRange))
}

fn normalize_public(attributes: &mut Attributes) -> Result<()> {
    let key = public_key(attributes)?;
    attributes.extend(parts(&key)?);
    attributes.set(CKA_MODULUS_BITS, modulus_bits(&key)?);
    Ok(())
}

fn import(attributes: &mut Attributes) -> Result<SecurePrivateKey> {
    let mut take = |id| attributes.take_secret(id).filter(|value| !value.is_empty());
    let [d, p, q] = [CKA_PRIVATE_EXPONENT, CKA_PRIME_1, CKA_PRIME_2].map(&mut take);
    let [dp, dq, qi] = [CKA_EXPONENT_1, CKA_EXPONENT_2, CKA_COEFFICIENT].map(&mut take);
    let (Some(d), Some(p), Some(q)) = (d, p, q) else {
        let text = "an RSA private key needs CKA_PRIVATE_EXPONENT, CKA_PRIME_1 and CKA_PRIME_2";
        return Err(Error::new(Kind::TemplateIncomplete, text));
    };
    let key = rsa::PrivateKey::from_components(&Components {
        modulus: attributes.require_bytes(CKA_MODULUS)?,
        public_exponent: attributes.require_bytes(CKA_PUBLIC_EXPONENT)?,
        private_exponent: &d,
        prime_1: &p,
        prime_2: &q,
        exponent_1: dp.as_ref(),
        exponent_2: dq.as_ref(),
        coefficient: qi.as_ref(),
    })?;
    attributes.extend(parts(&key.public()?)?);
    key.secret()
}

fn reveal(_: &Attributes, secret: &SecurePrivateKey, id: CK_ATTRIBUTE_TYPE) -> Result<Option<SecureBytes>> {
    let component = match id {
        CKA_PRIVATE_EXPONENT => Component::PrivateExponent,
        CKA_PRIME_1 => Component::Prime1,
        CKA_PRIME_2 => Component::Prime2,
        CKA_EXPONENT_1 => Component::Exponent1,
        CKA_EXPONENT_2 => Component::Exponent2,
        CKA_COEFFICIENT => Component::Coefficient,
        _ => return Ok(None),
    };
    rsa::PrivateKey::from_secret(secret)?.component(component).map(Some)
}

fn from_wrapped(attributes: &mut Attributes, bytes: &SecureBytes) -> Result<SecurePrivateKey> {
    let key = rsa::PrivateKey::from_pkcs8(bytes.expose())?;
    attributes.extend(parts(&key.public()?)?);
    key.secret()
}
