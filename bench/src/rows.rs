//! The rows: each call with the same work of the bare library and the target.

use crate::line::Target;
use crate::token::Token;
use crate::{Work, bare, ours};

/// Prepares a call over a token.
pub type Prepare = fn(&Token) -> Work;

/// One call.
pub struct Row {
    /// What is done.
    pub name: &'static str,
    /// Our side.
    pub ours: Prepare,
    /// The bare library's side, where it has one.
    pub bare: Option<Prepare>,
    /// What the design asks for.
    pub target: Target,
}

const fn row(name: &'static str, ours: Prepare, bare: Prepare, target: Target) -> Row {
    Row { name, ours, bare: Some(bare), target }
}

/// All rows, in the order of the table.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row("C_SignInit + C_Sign, P-256", ours::sign_p256, bare::sign_p256, Target::Ratio(0.9)),
    row("C_SignInit + C_Sign, secp256k1", ours::sign_secp256k1, bare::sign_secp256k1, Target::Ratio(0.9)),
    row("C_SignInit + C_Sign, Ed25519", ours::sign_ed25519, bare::sign_ed25519, Target::Ratio(0.9)),
    row("C_SignInit + C_Sign, RSA-2048", ours::sign_rsa, bare::sign_rsa, Target::Ratio(0.9)),
    row("C_VerifyInit + C_Verify, P-256", ours::verify_p256, bare::verify_p256, Target::None),
    row("C_EncryptInit + C_Encrypt, AES-256-GCM, 16 B", ours::gcm::<16>, bare::gcm::<16>, Target::Adds(600.0)),
    row("C_EncryptInit + C_Encrypt, AES-256-GCM, 16 B, managed: uses are counted", ours::gcm_managed, bare::gcm::<16>, Target::Adds(600.0)),
    row("C_EncryptInit + C_Encrypt, AES-256-GCM, 1 KiB", ours::gcm::<1024>, bare::gcm::<1024>, Target::Adds(600.0)),
    row("C_EncryptInit + C_Encrypt, AES-256-GCM, 16 KiB", ours::gcm::<{ 1 << 14 }>, bare::gcm::<{ 1 << 14 }>, Target::Ratio(0.9)),
    row("C_EncryptInit + C_Encrypt, AES-256-GCM, 1 MiB", ours::gcm::<{ 1 << 20 }>, bare::gcm::<{ 1 << 20 }>, Target::Ratio(0.9)),
    row("C_SignInit + C_Sign, HMAC-SHA256, 1 KiB", ours::hmac, bare::hmac, Target::Ratio(0.7)),
    row("C_DigestInit + C_Digest, SHA-256, 16 KiB", ours::sha256, bare::sha256, Target::Ratio(0.7)),
    row("C_WrapKey, AES-KW", ours::wrap, bare::wrap, Target::Ratio(0.7)),
    row("C_UnwrapKey, AES-KW + C_DestroyObject", ours::unwrap, bare::unwrap, Target::Ratio(0.7)),
    row("C_GenerateRandom, 32 B", ours::random, bare::random, Target::Ratio(0.7)),
    row("C_GenerateKey, AES-256, session + C_DestroyObject", ours::generate_aes, bare::random, Target::None),
    row("C_GenerateKeyPair, P-256, session + 2 C_DestroyObject", ours::generate_p256, bare::generate_p256, Target::None),
    row("C_GenerateKeyPair, P-256, stored", ours::generate_p256_stored, bare::generate_p256_stored, Target::Ratio(0.9)),
    row("C_Login + C_Logout, Argon2id 8 MiB", ours::login, bare::argon2id, Target::None),
    Row { name: "C_OpenSession + C_CloseSession", ours: ours::open_session, bare: None, target: Target::None },
];
