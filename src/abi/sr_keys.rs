//! `SR_*`: managed keys, which are named by owner and asset and have versions. Texts are UTF-8 without a zero byte at the end;
//! lengths are in bytes; times are seconds since 1970. The user must be logged in.

use super::arg::{self, Out};
use super::guard::guard_session;
use super::sr_password::given_password;
use crate::ck::{CK_BYTE, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG, CK_UTF8CHAR};
use crate::error::{Error, Result};
use crate::keys::{Generated, ManagedKeys, Name, State};
use crate::secret::SecureBytes;
use crate::token::{Reply, Room};

/// The most bytes of a public key that is made: RSA-4096.
const LARGEST_PUBLIC_KEY: usize = 600;
/// The most bytes of an address.
const LARGEST_ADDRESS: usize = 96;

/// Makes a managed key, version 1, and gives the handle of its private or secret key, its public key (SubjectPublicKeyInfo; empty
/// for a secret key) and its address (empty for plain types). Assets: btc, eth, sol, secp256k1, p256, p384, p521, ed25519,
/// rsa2048, rsa3072, rsa4096, aes128, aes256. With a password (else NULL and 0), the key has CKA_ALWAYS_AUTHENTICATE: each use asks for
/// it by C_Login(CKU_CONTEXT_SPECIFIC), or SR_UnlockKey once. Nobody can open the key without it. Both of `public_key` and
/// `public_key_len` may be NULL, and of `address` and `address_len`. A buffer of NULL with a length asks for the most that it takes, and
/// makes no key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_GenerateKey(
    session: CK_SESSION_HANDLE,
    owner: *const CK_UTF8CHAR,
    owner_len: CK_ULONG,
    asset: *const CK_UTF8CHAR,
    asset_len: CK_ULONG,
    password: *const CK_UTF8CHAR,
    password_len: CK_ULONG,
    key: *mut CK_OBJECT_HANDLE,
    public_key: *mut CK_BYTE,
    public_key_len: *mut CK_ULONG,
    address: *mut CK_UTF8CHAR,
    address_len: *mut CK_ULONG,
) -> CK_RV {
    guard_session("SR_GenerateKey", session, |session| {
        // SAFETY: the caller vouches for the texts.
        let name = unsafe { name(owner, owner_len, asset, asset_len) }?;
        // SAFETY: the caller vouches for the password, and for buffer and length below.
        let password = unsafe { given_password(password, password_len) }?;
        // SAFETY: as above.
        let public_key = unsafe { arg::optional_out(public_key, public_key_len) }?;
        // SAFETY: as above.
        let address = unsafe { arg::optional_out(address, address_len) }?;
        if asks_for_room(&public_key, LARGEST_PUBLIC_KEY)? | asks_for_room(&address, LARGEST_ADDRESS)? {
            return Ok(());
        }
        // SAFETY: the caller vouches for the pointer.
        let place = unsafe { arg::place(key) }?;
        let made = generate(&ManagedKeys::of(session), &name, password.as_ref())?;
        place.put(made.version.handle);
        tell(&made, public_key, address)
    })
}

/// Finds the private or secret key of a managed key: of the version with this number, or of the active one for 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_FindKey(
    session: CK_SESSION_HANDLE,
    owner: *const CK_UTF8CHAR,
    owner_len: CK_ULONG,
    asset: *const CK_UTF8CHAR,
    asset_len: CK_ULONG,
    version: CK_ULONG,
    key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    guard_session("SR_FindKey", session, |session| {
        // SAFETY: the caller vouches for the texts.
        let name = unsafe { name(owner, owner_len, asset, asset_len) }?;
        // SAFETY: the caller vouches for the pointer.
        let place = unsafe { arg::place(key) }?;
        place.put(ManagedKeys::of(session).version(&name, version)?.handle);
        Ok(())
    })
}

/// Describes a managed key as a JSON object: owner, asset, its latest version with state, times, public key and addresses, and the
/// rules of its rotation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_GetKeyInfo(
    session: CK_SESSION_HANDLE,
    owner: *const CK_UTF8CHAR,
    owner_len: CK_ULONG,
    asset: *const CK_UTF8CHAR,
    asset_len: CK_ULONG,
    json: *mut CK_UTF8CHAR,
    json_len: *mut CK_ULONG,
) -> CK_RV {
    guard_session("SR_GetKeyInfo", session, |session| {
        // SAFETY: the caller vouches for the texts.
        let name = unsafe { name(owner, owner_len, asset, asset_len) }?;
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(json, json_len) }?;
        out.text(&ManagedKeys::of(session).info(&name)?)
    })
}

/// Describes every version of a managed key as a JSON array, the oldest first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_ListVersions(
    session: CK_SESSION_HANDLE,
    owner: *const CK_UTF8CHAR,
    owner_len: CK_ULONG,
    asset: *const CK_UTF8CHAR,
    asset_len: CK_ULONG,
    json: *mut CK_UTF8CHAR,
    json_len: *mut CK_ULONG,
) -> CK_RV {
    guard_session("SR_ListVersions", session, |session| {
        // SAFETY: the caller vouches for the texts.
        let name = unsafe { name(owner, owner_len, asset, asset_len) }?;
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(json, json_len) }?;
        out.text(&ManagedKeys::of(session).list(&name)?)
    })
}

/// Changes the state of a version (SR_STATE_...). The latest version is active or disabled, an older one rotated or disabled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_SetVersionState(
    session: CK_SESSION_HANDLE,
    owner: *const CK_UTF8CHAR,
    owner_len: CK_ULONG,
    asset: *const CK_UTF8CHAR,
    asset_len: CK_ULONG,
    version: CK_ULONG,
    state: CK_ULONG,
) -> CK_RV {
    guard_session("SR_SetVersionState", session, |session| {
        // SAFETY: the caller vouches for the texts.
        let name = unsafe { name(owner, owner_len, asset, asset_len) }?;
        let unknown =
            || Error::arguments_bad("the state is not SR_STATE_ACTIVE, SR_STATE_ROTATED or SR_STATE_DISABLED");
        let state = State::of_code(state).ok_or_else(unknown)?;
        ManagedKeys::of(session).set_state(&name, version, state)
    })
}

/// Destroys a version for good, both halves. What it encrypted can never be decrypted again. It must not be active, and the
/// confirmation is its CKA_UNIQUE_ID, which SR_ListVersions tells as unique_id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_DestroyVersion(
    session: CK_SESSION_HANDLE,
    owner: *const CK_UTF8CHAR,
    owner_len: CK_ULONG,
    asset: *const CK_UTF8CHAR,
    asset_len: CK_ULONG,
    version: CK_ULONG,
    confirmation: *const CK_UTF8CHAR,
    confirmation_len: CK_ULONG,
) -> CK_RV {
    guard_session("SR_DestroyVersion", session, |session| {
        // SAFETY: the caller vouches for the texts.
        let name = unsafe { name(owner, owner_len, asset, asset_len) }?;
        // SAFETY: the caller vouches for the confirmation.
        let confirmation = unsafe { arg::bytes(confirmation, confirmation_len) }?;
        ManagedKeys::of(session).destroy_version(&name, version, confirmation)
    })
}

/// Gives the address of a version, or of the active one for 0. The form is the asset's usual one when it is NULL, or p2wpkh, p2pkh,
/// p2sh-p2wpkh, p2pkh-uncompressed, eip55, base58.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_GetAddress(
    session: CK_SESSION_HANDLE,
    owner: *const CK_UTF8CHAR,
    owner_len: CK_ULONG,
    asset: *const CK_UTF8CHAR,
    asset_len: CK_ULONG,
    version: CK_ULONG,
    form: *const CK_UTF8CHAR,
    form_len: CK_ULONG,
    address: *mut CK_UTF8CHAR,
    address_len: *mut CK_ULONG,
) -> CK_RV {
    guard_session("SR_GetAddress", session, |session| {
        // SAFETY: the caller vouches for the texts; likewise below.
        let name = unsafe { name(owner, owner_len, asset, asset_len) }?;
        // SAFETY: as above.
        let form = Some(unsafe { arg::text_at(form, form_len) }?).filter(|form| !form.is_empty());
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(address, address_len) }?;
        out.text(&ManagedKeys::of(session).address(&name, version, form)?)
    })
}

/// Signs a digest of 32 bytes with a private key on secp256k1, managed or not, and gives 65 bytes: r, s and the recovery number
/// (0 to 3). s is the lower of its two values, and the number belongs to it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SR_SignRecoverable(
    session: CK_SESSION_HANDLE,
    key: CK_OBJECT_HANDLE,
    digest: *const CK_BYTE,
    digest_len: CK_ULONG,
    signature: *mut CK_BYTE,
    signature_len: *mut CK_ULONG,
) -> CK_RV {
    guard_session("SR_SignRecoverable", session, |session| {
        // SAFETY: the caller vouches for the digest.
        let digest = unsafe { arg::bytes(digest, digest_len) }?;
        // SAFETY: the caller vouches for buffer and length.
        let out = unsafe { arg::out(signature, signature_len) }?;
        out.put(|room| session.sign_recoverable(key, digest, room))
    })
}

/// Reads the name of a managed key.
///
/// # Errors
/// `ArgumentsBad` for texts that are none.
///
/// # Safety
/// As [`arg::bytes`], for both texts.
pub(super) unsafe fn name(
    owner: *const u8,
    owner_len: CK_ULONG,
    asset: *const u8,
    asset_len: CK_ULONG,
) -> Result<Name> {
    // SAFETY: as the caller vouches; likewise below.
    let owner = unsafe { arg::text_at(owner, owner_len) }?;
    // SAFETY: as above.
    Name::new(owner, unsafe { arg::text_at(asset, asset_len) }?)
}

fn generate(keys: &ManagedKeys<'_>, name: &Name, password: Option<&SecureBytes>) -> Result<Generated> {
    match password {
        Some(password) => keys.generate_with_password(name, password),
        None => keys.generate(name),
    }
}

/// Answers who asks for the length, or has too little room, before a key is made.
fn asks_for_room(out: &Option<Out>, largest: usize) -> Result<bool> {
    match out {
        Some(out) if !matches!(out.room(), Room::Bytes(room) if room >= largest) => {
            out.reply(Reply::Needs(largest)).map(|()| true)
        }
        _ => Ok(false),
    }
}

fn tell(made: &Generated, public_key: Option<Out>, address: Option<Out>) -> Result<()> {
    if let Some(out) = public_key {
        out.reply(Reply::Wrapped(made.version.public_key().to_vec()))?;
    }
    address.map_or(Ok(()), |out| out.text(made.address.as_deref().unwrap_or_default()))
}
