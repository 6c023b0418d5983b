//! The other side of the rows: the same work done with the cryptographic libraries alone.
//!
//! Keys and schedules are made before the measurement and kept for the process; buffers have the same sizes as on our side.

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::Write;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_sys as sys;
use ffi_tests::USER_PIN;
use k256::ecdsa::signature::hazmat::PrehashSigner;

use crate::Work;
use crate::ours::{DIGEST, IV};
use crate::token::Token;

/// Panics unless the library says 1.
fn ok(code: c_int) {
    assert_eq!(code, 1, "the bare library failed");
}

fn p256() -> *mut sys::EC_KEY {
    // SAFETY: takes a number alone.
    let key = unsafe { sys::EC_KEY_new_by_curve_name(sys::NID_X9_62_prime256v1) };
    // SAFETY: the key is new; NULL is refused.
    ok(unsafe { sys::EC_KEY_generate_key(key) });
    key
}

/// Signs a digest, r and s with 32 bytes each, as PKCS #11 wants them.
fn p256_signature(key: *const sys::EC_KEY, out: &mut [u8; 64]) {
    let (r_out, s_out) = out.split_at_mut(32);
    // SAFETY: key and digest are valid.
    let signature = unsafe { sys::ECDSA_do_sign(DIGEST.as_ptr(), DIGEST.len(), key) };
    assert!(!signature.is_null(), "the bare library failed");
    // SAFETY: the signature is valid and has both numbers.
    let (r, s) = unsafe { (sys::ECDSA_SIG_get0_r(signature), sys::ECDSA_SIG_get0_s(signature)) };
    // SAFETY: the number is valid, and there are 32 bytes of room.
    ok(unsafe { sys::BN_bn2bin_padded(r_out.as_mut_ptr(), 32, r) });
    // SAFETY: as above.
    ok(unsafe { sys::BN_bn2bin_padded(s_out.as_mut_ptr(), 32, s) });
    // SAFETY: nothing uses the signature any more.
    unsafe { sys::ECDSA_SIG_free(signature) };
}

/// Signs with P-256.
pub fn sign_p256(_: &Token) -> Work {
    let (key, mut out) = (p256(), [0; 64]);
    Box::new(move || {
        p256_signature(key, &mut out);
        black_box(&out);
    })
}

/// Verifies a signature of r and s with 32 bytes each.
fn verify(key: *const sys::EC_KEY, bytes: &[u8; 64]) {
    let (r, s) = bytes.split_at(32);
    // SAFETY: both halves are valid for 32 bytes.
    let (r, s) = unsafe { (sys::BN_bin2bn(r.as_ptr(), 32, null_mut()), sys::BN_bin2bn(s.as_ptr(), 32, null_mut())) };
    // SAFETY: takes no argument.
    let signature = unsafe { sys::ECDSA_SIG_new() };
    // SAFETY: the signature is new and takes both numbers over.
    ok(unsafe { sys::ECDSA_SIG_set0(signature, r, s) });
    // SAFETY: all are valid.
    ok(unsafe { sys::ECDSA_do_verify(DIGEST.as_ptr(), DIGEST.len(), signature, key) });
    // SAFETY: nothing uses the signature any more.
    unsafe { sys::ECDSA_SIG_free(signature) };
}

/// Verifies with P-256.
pub fn verify_p256(_: &Token) -> Work {
    let (key, mut bytes) = (p256(), [0; 64]);
    p256_signature(key, &mut bytes);
    Box::new(move || verify(key, &bytes))
}

/// Signs with secp256k1.
pub fn sign_secp256k1(_: &Token) -> Work {
    let key = k256::ecdsa::SigningKey::from_slice(&DIGEST).expect("a number below the order");
    Box::new(move || {
        let signature: k256::ecdsa::Signature = key.sign_prehash(&DIGEST).expect("a signature");
        black_box(signature.to_bytes());
    })
}

/// Signs with Ed25519.
pub fn sign_ed25519(_: &Token) -> Work {
    let (mut public, mut private, mut out) = ([0; 32], [0; 64], [0; 64]);
    // SAFETY: both have the room that the key needs.
    unsafe { sys::ED25519_keypair(public.as_mut_ptr(), private.as_mut_ptr()) };
    Box::new(move || {
        // SAFETY: signature and key have their lengths, and the message is valid.
        ok(unsafe { sys::ED25519_sign(out.as_mut_ptr(), DIGEST.as_ptr(), DIGEST.len(), private.as_ptr()) });
        black_box(&out);
    })
}

fn rsa() -> *mut sys::RSA {
    // SAFETY: takes no argument.
    let (key, e) = unsafe { (sys::RSA_new(), sys::BN_new()) };
    // SAFETY: the number is new.
    ok(unsafe { sys::BN_set_word(e, 65537) });
    // SAFETY: both are valid; there is no callback.
    ok(unsafe { sys::RSA_generate_key_ex(key, 2048, e, null_mut()) });
    key
}

/// Signs with RSA-2048, PKCS #1 v1.5 with SHA-256.
pub fn sign_rsa(_: &Token) -> Work {
    let (key, mut out) = (rsa(), [0u8; 256]);
    Box::new(move || {
        let (to, mut len) = (out.as_mut_ptr(), 0);
        // SAFETY: the key is valid, and `out` has the length of its modulus.
        ok(unsafe { sys::RSA_sign(sys::NID_sha256, DIGEST.as_ptr(), DIGEST.len(), to, &mut len, key) });
        black_box(&out);
    })
}

fn gcm_state() -> Box<sys::EVP_AEAD_CTX> {
    let mut state = Box::new(MaybeUninit::uninit());
    // SAFETY: takes no argument.
    let aead = unsafe { sys::EVP_aead_aes_256_gcm() };
    // SAFETY: there is room for the state, and the key has 32 bytes.
    ok(unsafe { sys::EVP_AEAD_CTX_init(state.as_mut_ptr(), aead, DIGEST.as_ptr(), 32, 16, null_mut()) });
    // SAFETY: it was just initialised.
    unsafe { state.assume_init() }
}

/// Encrypts with AES-256-GCM over `N` bytes.
pub fn gcm<const N: usize>(_: &Token) -> Work {
    let (state, data, mut out) = (gcm_state(), vec![0u8; N], vec![0u8; N + 16]);
    Box::new(move || {
        let (to, room, mut len, from) = (out.as_mut_ptr(), out.len(), 0, data.as_ptr());
        // SAFETY: the state is initialised, and all pointers are valid for their lengths.
        ok(unsafe { sys::EVP_AEAD_CTX_seal(&*state, to, &mut len, room, IV.as_ptr(), IV.len(), from, N, null(), 0) });
        black_box(&out);
    })
}

/// Makes HMAC-SHA256 over 1 KiB.
pub fn hmac(_: &Token) -> Work {
    let (data, mut out) = ([0u8; 1024], [0u8; 32]);
    // SAFETY: takes no argument.
    let sha256 = unsafe { sys::EVP_sha256() };
    Box::new(move || {
        let (key, from, to) = (DIGEST.as_ptr().cast(), data.as_ptr(), out.as_mut_ptr());
        // SAFETY: all pointers are valid for their lengths.
        let mac = unsafe { sys::HMAC(sha256, key, DIGEST.len(), from, data.len(), to, null_mut()) };
        assert!(!mac.is_null(), "the bare library failed");
        black_box(&out);
    })
}

/// Digests 16 KiB with SHA-256.
pub fn sha256(_: &Token) -> Work {
    let (data, mut out) = (vec![0u8; 16 * 1024], [0u8; 32]);
    Box::new(move || {
        // SAFETY: both pointers are valid for their lengths.
        unsafe { sys::SHA256(data.as_ptr(), data.len(), out.as_mut_ptr()) };
        black_box(&out);
    })
}

/// Makes the round keys of one direction.
fn schedule(expand: unsafe extern "C" fn(*const u8, u32, *mut sys::AES_KEY) -> c_int) -> Box<sys::AES_KEY> {
    let mut key = Box::new(MaybeUninit::uninit());
    // SAFETY: the key has 256 bits, and there is room for the round keys.
    assert_eq!(unsafe { expand(DIGEST.as_ptr(), 256, key.as_mut_ptr()) }, 0, "the bare library failed");
    // SAFETY: it was just initialised.
    unsafe { key.assume_init() }
}

fn wrapped() -> [u8; 40] {
    let (key, mut out) = (schedule(sys::AES_set_encrypt_key), [0; 40]);
    // SAFETY: input and output have their lengths; NULL is the initial value of RFC 3394.
    let len = unsafe { sys::AES_wrap_key(&*key, null(), out.as_mut_ptr(), DIGEST.as_ptr(), 32) };
    assert_eq!(len, 40, "the bare library failed");
    out
}

/// Wraps 32 bytes with AES-KW.
pub fn wrap(_: &Token) -> Work {
    let (key, mut out) = (schedule(sys::AES_set_encrypt_key), [0u8; 40]);
    Box::new(move || {
        // SAFETY: as in `wrapped`.
        let len = unsafe { sys::AES_wrap_key(&*key, null(), out.as_mut_ptr(), DIGEST.as_ptr(), 32) };
        assert_eq!(len, 40, "the bare library failed");
        black_box(&out);
    })
}

/// Unwraps 32 bytes with AES-KW.
pub fn unwrap(_: &Token) -> Work {
    let (key, wrapped, mut out) = (schedule(sys::AES_set_decrypt_key), wrapped(), [0u8; 32]);
    Box::new(move || {
        // SAFETY: input and output have their lengths; NULL is the initial value of RFC 3394.
        let len = unsafe { sys::AES_unwrap_key(&*key, null(), out.as_mut_ptr(), wrapped.as_ptr(), wrapped.len()) };
        assert_eq!(len, 32, "the bare library failed");
        black_box(&out);
    })
}

/// Draws 32 random bytes.
pub fn random(_: &Token) -> Work {
    let mut out = [0u8; 32];
    Box::new(move || {
        // SAFETY: `out` is valid for its length.
        ok(unsafe { sys::RAND_bytes(out.as_mut_ptr(), out.len()) });
        black_box(&out);
    })
}

/// Makes a P-256 pair.
pub fn generate_p256(_: &Token) -> Work {
    Box::new(|| {
        // SAFETY: the key is new, and nothing else has it.
        unsafe { sys::EC_KEY_free(black_box(p256())) }
    })
}

/// Makes a P-256 pair, and appends 4 KiB to a file beside the store and waits until they are on disk.
pub fn generate_p256_stored(token: &Token) -> Work {
    let (mut generate, mut file) = (generate_p256(token), append_file(token));
    Box::new(move || {
        generate();
        file.write_all(&[0; 4096]).expect("an append");
        file.sync_data().expect("fdatasync");
    })
}

fn append_file(token: &Token) -> File {
    let path = token.directory().join("append");
    OpenOptions::new().create(true).append(true).open(path).expect("a file beside the store")
}

/// Runs Argon2id as the configuration of the token has it, without the rest of a login.
pub fn argon2id(_: &Token) -> Work {
    Box::new(argon2id_once)
}

/// Runs Argon2id once: 8 MiB, 1 pass, 1 lane.
pub fn argon2id_once() {
    let params = Params::new(8 * 1024, 1, 1, Some(32)).expect("parameters within bounds");
    let (argon2, mut out) = (Argon2::new(Algorithm::Argon2id, Version::V0x13, params), [0u8; 32]);
    argon2.hash_password_into(USER_PIN.as_bytes(), &DIGEST, &mut out).expect("Argon2id");
    black_box(&out);
}
