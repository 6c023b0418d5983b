//! Our side of the rows: calls of the built module through its function table.

use std::hint::black_box;

use ffi_tests::ck::*;
use ffi_tests::template::curve;
use ffi_tests::{Handle, Mechanism, Session, Template, USER_PIN, call, check};

use crate::Work;
use crate::token::Token;

/// What is signed: a digest of 32 bytes.
pub const DIGEST: [u8; 32] = [0x5a; 32];
/// `DigestInfo` of SHA-256 up to the digest (RFC 8017, 9.2).
const SHA256_INFO: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];
/// The initialisation vector of all encryptions. They encrypt zeros, so that nothing is lost by its being the same.
pub const IV: [u8; 12] = [7; 12];

/// C_SignInit and C_Sign with a key, a mechanism and data.
fn sign(session: Session, mechanism: CK_MECHANISM_TYPE, key: Handle, data: Vec<u8>) -> Work {
    let (mechanism, mut out) = (Mechanism::new(mechanism), [0u8; 512]);
    Box::new(move || {
        session.sign_init(&mechanism, key).expect("C_SignInit");
        let (from, len) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
        let mut out_len = out.len() as CK_ULONG;
        let rv = call!(session.module, C_Sign(session.handle, from, len, out.as_mut_ptr(), &mut out_len));
        check(rv).expect("C_Sign");
        black_box(&out);
    })
}

/// Signs with P-256.
pub fn sign_p256(token: &Token) -> Work {
    sign(token.open(), CKM_ECDSA, token.keys.p256.1, DIGEST.to_vec())
}

/// Signs with secp256k1.
pub fn sign_secp256k1(token: &Token) -> Work {
    sign(token.open(), CKM_ECDSA, token.keys.secp256k1, DIGEST.to_vec())
}

/// Signs with Ed25519.
pub fn sign_ed25519(token: &Token) -> Work {
    sign(token.open(), CKM_EDDSA, token.keys.ed25519, DIGEST.to_vec())
}

/// Signs with RSA-2048, PKCS #1 v1.5 with SHA-256.
pub fn sign_rsa(token: &Token) -> Work {
    sign(token.open(), CKM_RSA_PKCS, token.keys.rsa, [&SHA256_INFO[..], &DIGEST].concat())
}

/// Makes HMAC-SHA256 over 1 KiB.
pub fn hmac(token: &Token) -> Work {
    sign(token.open(), CKM_SHA256_HMAC, token.keys.hmac, vec![0; 1024])
}

/// C_VerifyInit and C_Verify with P-256.
pub fn verify_p256(token: &Token) -> Work {
    let (session, (public, private)) = (token.open(), token.keys.p256);
    let mechanism = Mechanism::new(CKM_ECDSA);
    let signature = session.sign(&mechanism, private, &DIGEST).expect("a signature");
    Box::new(move || session.verify(&mechanism, public, &DIGEST, &signature).expect("C_Verify"))
}

/// C_EncryptInit and C_Encrypt with AES-256-GCM over `N` bytes.
pub fn gcm<const N: usize>(token: &Token) -> Work {
    encrypt::<N>(token.open(), token.keys.aes)
}

/// The same over 16 bytes with a managed key, whose uses have a limit.
pub fn gcm_managed(token: &Token) -> Work {
    let session = token.open();
    let name = ("bench", "aes256");
    let key = session.generate_managed(name).map(|made| made.key).or_else(|_| session.find_managed(name, 0));
    encrypt::<16>(session, key.expect("a managed key"))
}

fn encrypt<const N: usize>(session: Session, key: Handle) -> Work {
    let mechanism = Mechanism::gcm(CKM_AES_GCM, &IV, &[], 128);
    let (mut data, mut out) = (vec![0u8; N], vec![0u8; N + 16]);
    Box::new(move || {
        session.encrypt_init(&mechanism, key).expect("C_EncryptInit");
        let (from, len, mut out_len) = (data.as_mut_ptr(), N as CK_ULONG, out.len() as CK_ULONG);
        let rv = call!(session.module, C_Encrypt(session.handle, from, len, out.as_mut_ptr(), &mut out_len));
        check(rv).expect("C_Encrypt");
        black_box(&out);
    })
}

/// C_DigestInit and C_Digest with SHA-256 over 16 KiB.
pub fn sha256(token: &Token) -> Work {
    let (session, mechanism) = (token.open(), Mechanism::new(CKM_SHA256));
    let (mut data, mut out) = (vec![0u8; 16 * 1024], [0u8; 32]);
    Box::new(move || {
        session.digest_init(&mechanism).expect("C_DigestInit");
        let (from, len, mut out_len) = (data.as_mut_ptr(), data.len() as CK_ULONG, out.len() as CK_ULONG);
        let rv = call!(session.module, C_Digest(session.handle, from, len, out.as_mut_ptr(), &mut out_len));
        check(rv).expect("C_Digest");
        black_box(&out);
    })
}

/// C_WrapKey of an AES-256 key with AES-KW.
pub fn wrap(token: &Token) -> Work {
    let (session, keys, mechanism) = (token.open(), token.keys, Mechanism::new(CKM_AES_KEY_WRAP));
    let mut out = [0u8; 40];
    Box::new(move || {
        let (mut raw, mut out_len) = (mechanism.raw(), out.len() as CK_ULONG);
        let (key, to) = (keys.wrapped, out.as_mut_ptr());
        let rv = call!(session.module, C_WrapKey(session.handle, &mut raw, keys.aes, key, to, &mut out_len));
        check(rv).expect("C_WrapKey");
        black_box(&out);
    })
}

/// C_UnwrapKey of an AES-256 key with AES-KW, and C_DestroyObject of the session key that it makes.
pub fn unwrap(token: &Token) -> Work {
    let (session, keys, mechanism) = (token.open(), token.keys, Mechanism::new(CKM_AES_KEY_WRAP));
    let wrapped = session.wrap(&mechanism, keys.aes, keys.wrapped).expect("C_WrapKey");
    let template = Template::class(CKO_SECRET_KEY).ulong(CKA_KEY_TYPE, CKK_AES).bool(CKA_ENCRYPT, true);
    Box::new(move || {
        let key = session.unwrap(&mechanism, keys.aes, &wrapped, &template).expect("C_UnwrapKey");
        session.destroy(key).expect("C_DestroyObject");
    })
}

/// C_GenerateRandom of 32 bytes.
pub fn random(token: &Token) -> Work {
    let (session, mut out) = (token.open(), [0u8; 32]);
    Box::new(move || {
        let rv = call!(session.module, C_GenerateRandom(session.handle, out.as_mut_ptr(), out.len() as CK_ULONG));
        check(rv).expect("C_GenerateRandom");
        black_box(&out);
    })
}

/// C_GenerateKey of an AES-256 session key, and C_DestroyObject.
pub fn generate_aes(token: &Token) -> Work {
    let session = token.open();
    Box::new(move || {
        let key = session.aes(32, "session", false, &Template::new()).expect("C_GenerateKey");
        session.destroy(key).expect("C_DestroyObject");
    })
}

/// C_GenerateKeyPair of a P-256 session pair, and C_DestroyObject of both halves.
pub fn generate_p256(token: &Token) -> Work {
    let session = token.open();
    Box::new(move || {
        let (public, private) = session.ec_pair(curve::P256, "session", false).expect("C_GenerateKeyPair");
        session.destroy(public).expect("C_DestroyObject");
        session.destroy(private).expect("C_DestroyObject");
    })
}

/// C_GenerateKeyPair of a P-256 pair in the store.
pub fn generate_p256_stored(token: &Token) -> Work {
    let session = token.open();
    Box::new(move || {
        black_box(session.ec_pair(curve::P256, "stored", true).expect("C_GenerateKeyPair"));
    })
}

/// C_OpenSession and C_CloseSession.
pub fn open_session(token: &Token) -> Work {
    let (module, slot) = (token.module, token.slot);
    Box::new(move || module.open(slot).expect("C_OpenSession").close().expect("C_CloseSession"))
}

/// C_Login of the user and C_Logout, on a second token of the store: a logout here would end the other rows' keys.
pub fn login(token: &Token) -> Work {
    let slot = ffi_tests::token::make_token(token.module, "login");
    let session = token.module.open(slot).expect("C_OpenSession");
    Box::new(move || {
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        session.logout().expect("C_Logout");
    })
}
