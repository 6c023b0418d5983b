//! The token under measurement: a store in a directory that vanishes, keys, and many objects.

use std::path::{Path, PathBuf};
use std::thread;

use ffi_tests::ck::*;
use ffi_tests::template::curve;
use ffi_tests::{Config, Handle, Mechanism, Module, Session, Template, USER_PIN};
use tempfile::TempDir;

/// The label of the token.
pub const LABEL: &str = "bench";
/// How many threads make the objects; they share commits.
const MAKERS: usize = 16;

/// The keys that the rows use; all are token objects.
#[derive(Clone, Copy)]
pub struct Keys {
    /// P-256, public and private.
    pub p256: (Handle, Handle),
    /// secp256k1, private.
    pub secp256k1: Handle,
    /// Ed25519, private.
    pub ed25519: Handle,
    /// RSA with 2048 bits, private.
    pub rsa: Handle,
    /// AES-256, for all uses.
    pub aes: Handle,
    /// A second AES-256 key, to be wrapped.
    pub wrapped: Handle,
    /// HMAC, 32 bytes.
    pub hmac: Handle,
}

/// A token with the user logged in.
pub struct Token {
    /// The module.
    pub module: &'static Module,
    /// The token's slot.
    pub slot: CK_SLOT_ID,
    /// The configuration.
    pub config: PathBuf,
    /// The keys.
    pub keys: Keys,
    directory: TempDir,
}

impl Token {
    /// Makes a store with one token, its keys, and so many AES keys with the ids of [`id`].
    pub fn new(objects: usize) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let config = Config::plaintext("import").write(directory.path());
        let module = Module::load();
        ffi_tests::token::initialize(module, &config).expect("C_Initialize");
        let slot = ffi_tests::token::make_token(module, LABEL);
        let session = module.open(slot).expect("C_OpenSession");
        session.login(CKU_USER, USER_PIN).expect("C_Login");
        let token = Self { module, slot, config, keys: keys(session), directory };
        token.fill(objects);
        token
    }

    /// Opens a session of its own.
    pub fn open(&self) -> Session {
        self.module.open(self.slot).expect("C_OpenSession")
    }

    /// Tells where the store lies.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn fill(&self, objects: usize) {
        let fill_part = |part: usize| {
            let session = self.open();
            (part..objects).step_by(MAKERS).for_each(|number| make_object(session, number));
            session.close().expect("C_CloseSession");
        };
        thread::scope(|scope| {
            for part in 0..MAKERS {
                scope.spawn(move || fill_part(part));
            }
        });
    }
}

/// Gives the `CKA_ID` of an object by its number.
pub fn id(number: usize) -> [u8; 8] {
    (number as u64).to_be_bytes()
}

fn make_object(session: Session, number: usize) {
    session.aes(32, "object", true, &Template::new().bytes(CKA_ID, id(number))).expect("C_GenerateKey");
}

fn keys(session: Session) -> Keys {
    let pair = |params, label| session.ec_pair(params, label, true).expect("C_GenerateKeyPair");
    let aes = |label| session.aes(32, label, true, &Template::new()).expect("C_GenerateKey");
    Keys {
        p256: pair(curve::P256, "p256"),
        secp256k1: pair(curve::SECP256K1, "secp256k1").1,
        ed25519: pair(curve::ED25519, "ed25519").1,
        rsa: session.rsa(2048, "rsa", true).1,
        aes: aes("aes"),
        wrapped: aes("wrapped"),
        hmac: hmac_key(session),
    }
}

fn hmac_key(session: Session) -> Handle {
    let template = Template::new().ulong(CKA_VALUE_LEN, 32).bool(CKA_TOKEN, true).bool(CKA_SIGN, true);
    session.generate_key(&Mechanism::new(CKM_GENERIC_SECRET_KEY_GEN), &template).expect("C_GenerateKey")
}
