//! A fresh store with one token in it, in a directory that vanishes.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::ck::*;
use crate::mechanism::Mechanism;
use crate::module::{Module, padded};
use crate::session::{Handle, Session};
use crate::template::{Template, curve};

/// The user PIN of test tokens.
pub const USER_PIN: &str = "user-1234";
/// The SO PIN of test tokens.
pub const SO_PIN: &str = "so-12345678";

/// What a test store is configured with.
#[derive(Debug, Clone)]
pub struct Config {
    /// `plaintext`: never, import, compat.
    pub plaintext: &'static str,
    /// `max_attempts` of a PIN.
    pub max_attempts: u32,
    /// More lines at the end of the file.
    pub more: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { plaintext: "never", max_attempts: 10, more: String::new() }
    }
}

impl Config {
    /// Makes one with this policy on plaintext.
    pub fn plaintext(policy: &'static str) -> Self {
        Self { plaintext: policy, ..Self::default() }
    }

    /// Writes the configuration of a store in a directory and gives its path.
    pub fn write(&self, directory: &Path) -> PathBuf {
        let path = directory.join("strongroom.toml");
        std::fs::write(&path, self.text(directory)).expect("writing the configuration");
        if Module::is_foreign() {
            let tokens = directory.join("tokens");
            std::fs::create_dir_all(&tokens).expect("making the directory");
            let text =
                format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
            std::fs::write(directory.join("softhsm2.conf"), text).expect("writing the configuration");
        }
        path
    }

    fn text(&self, directory: &Path) -> String {
        format!(
            "[store]\nurl = \"sqlite://{}/strongroom.db\"\n[defaults]\nplaintext = \"{}\"\n\
             [password]\nmin_length = 4\nclasses = []\nmax_attempts = {}\n\
             [argon2]\nmemory_mib = 8\npasses = 1\nlanes = 1\n{}\n",
            directory.display(),
            self.plaintext,
            self.max_attempts,
            self.more,
        )
    }
}

/// A module that is initialised over a fresh store with a token that has both PINs.
pub struct TestToken {
    /// The module.
    pub module: &'static Module,
    /// The token's slot.
    pub slot: CK_SLOT_ID,
    /// The path of the configuration.
    pub config: PathBuf,
    directory: TempDir,
}

/// Initialises the module with a configuration file.
pub fn initialize(module: &Module, config: &Path) -> crate::Result<()> {
    let path = config.to_str().expect("a path of UTF-8");
    if Module::is_foreign() {
        let conf = config.with_file_name("softhsm2.conf");
        // SAFETY: tests set it before they start threads.
        unsafe { std::env::set_var("SOFTHSM2_CONF", conf) };
        return module.initialize(None);
    }
    module.initialize(Some(path))
}

/// Loads the module and initialises it with a configuration file.
pub fn attach(config: &str) -> &'static Module {
    let module = Module::load();
    initialize(module, Path::new(config)).unwrap_or_else(|rv| panic!("C_Initialize: {rv}: {}", module.last_error()));
    module
}

impl TestToken {
    /// Makes a store with a token "test", policy `never`.
    pub fn new() -> Self {
        Self::with(&Config::default())
    }

    /// Makes a store with a token "test" and this configuration.
    pub fn with(config: &Config) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let config = config.write(directory.path());
        let module = Module::load();
        initialize(module, &config).unwrap_or_else(|rv| panic!("C_Initialize: {rv}: {}", module.last_error()));
        let slot = make_token(module, "test");
        Self { module, slot, config, directory }
    }

    /// Tells where the store lies.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Gives the configuration's path as text, for helper processes.
    pub fn config_text(&self) -> String {
        self.config.to_str().expect("a path of UTF-8").to_owned()
    }

    /// Tells where the database lies.
    pub fn database(&self) -> PathBuf {
        self.directory.path().join("strongroom.db")
    }

    /// Initialises the module again, with the same configuration.
    pub fn initialize(&self) -> crate::Result<()> {
        initialize(self.module, &self.config)
    }

    /// Opens a read-write session.
    pub fn open(&self) -> Session {
        self.module.open(self.slot).unwrap_or_else(|rv| panic!("C_OpenSession: {rv}: {}", self.module.last_error()))
    }

    /// Opens a read-write session with the user logged in.
    pub fn user(&self) -> Session {
        let session = self.open();
        session.login(CKU_USER, USER_PIN).unwrap_or_else(|rv| panic!("C_Login: {rv}: {}", self.module.last_error()));
        session
    }

    /// Reads the token's flags.
    pub fn flags(&self) -> CK_FLAGS {
        self.module.token_info(self.slot).expect("C_GetTokenInfo").flags
    }

    /// Reads the token's serial number.
    pub fn serial(&self) -> String {
        padded(&self.module.token_info(self.slot).expect("C_GetTokenInfo").serialNumber)
    }
}

impl Default for TestToken {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes a token with both PINs set and gives its slot.
pub fn make_token(module: &'static Module, label: &str) -> CK_SLOT_ID {
    let fail = |what: &str, rv| -> ! { panic!("{what}: {rv}: {}", module.last_error()) };
    let slot = module.init_token(label, SO_PIN).unwrap_or_else(|rv| fail("C_InitToken", rv));
    let session = module.open(slot).unwrap_or_else(|rv| fail("C_OpenSession", rv));
    session.login(CKU_SO, SO_PIN).unwrap_or_else(|rv| fail("C_Login of the SO", rv));
    session.init_pin(USER_PIN).unwrap_or_else(|rv| fail("C_InitPIN", rv));
    session.logout().unwrap_or_else(|rv| fail("C_Logout", rv));
    session.close().unwrap_or_else(|rv| fail("C_CloseSession", rv));
    slot
}

/// Everyday keys.
impl Session {
    /// Makes a key pair on a named curve; `token` objects or session objects. Both halves carry the label.
    pub fn ec_pair(&self, params: &[u8], label: &str, token: bool) -> crate::Result<(Handle, Handle)> {
        let (mechanism, sign, derive) = match params {
            curve::ED25519 | curve::ED25519_NAME | curve::ED25519_OLD => (CKM_EC_EDWARDS_KEY_PAIR_GEN, true, false),
            curve::X25519 => (CKM_EC_MONTGOMERY_KEY_PAIR_GEN, false, true),
            _ => (CKM_EC_KEY_PAIR_GEN, true, true),
        };
        let public = Template::new()
            .bytes(CKA_EC_PARAMS, params)
            .bool(CKA_TOKEN, token)
            .bool(CKA_VERIFY, sign)
            .bytes(CKA_LABEL, label);
        let private = Template::new()
            .bool(CKA_TOKEN, token)
            .bool(CKA_PRIVATE, true)
            .bool(CKA_SENSITIVE, true)
            .bool(CKA_SIGN, sign)
            .bool(CKA_DERIVE, derive)
            .bytes(CKA_LABEL, label);
        self.generate_pair(&Mechanism::new(mechanism), &public, &private)
    }

    /// Makes a P-256 key pair.
    pub fn p256(&self, label: &str, token: bool) -> (Handle, Handle) {
        self.ec_pair(curve::P256, label, token)
            .unwrap_or_else(|rv| panic!("P-256 pair: {rv}: {}", self.module.last_error()))
    }

    /// Makes an RSA key pair with every use allowed.
    pub fn rsa(&self, bits: CK_ULONG, label: &str, token: bool) -> (Handle, Handle) {
        let public = Template::new()
            .ulong(CKA_MODULUS_BITS, bits)
            .bytes(CKA_PUBLIC_EXPONENT, [1, 0, 1])
            .bool(CKA_TOKEN, token)
            .bool(CKA_VERIFY, true)
            .bool(CKA_ENCRYPT, true)
            .bool(CKA_WRAP, true)
            .bytes(CKA_LABEL, label);
        let private = Template::new()
            .bool(CKA_TOKEN, token)
            .bool(CKA_PRIVATE, true)
            .bool(CKA_SENSITIVE, true)
            .bool(CKA_SIGN, true)
            .bool(CKA_DECRYPT, true)
            .bool(CKA_UNWRAP, true)
            .bytes(CKA_LABEL, label);
        self.generate_pair(&Mechanism::new(CKM_RSA_PKCS_KEY_PAIR_GEN), &public, &private)
            .unwrap_or_else(|rv| panic!("RSA pair: {rv}: {}", self.module.last_error()))
    }

    /// Makes an AES key with every use allowed, extended or overridden by a template.
    pub fn aes(&self, bytes: CK_ULONG, label: &str, token: bool, more: &Template) -> crate::Result<Handle> {
        let template = Template::new()
            .ulong(CKA_VALUE_LEN, bytes)
            .bool(CKA_TOKEN, token)
            .bool(CKA_PRIVATE, true)
            .bool(CKA_SENSITIVE, true)
            .bool(CKA_EXTRACTABLE, true)
            .bool(CKA_ENCRYPT, true)
            .bool(CKA_DECRYPT, true)
            .bool(CKA_WRAP, true)
            .bool(CKA_UNWRAP, true)
            .bytes(CKA_LABEL, label)
            .and(more);
        self.generate_key(&Mechanism::new(CKM_AES_KEY_GEN), &template)
    }

    /// Makes a generic secret key for MACs and derivation.
    pub fn generic(&self, bytes: CK_ULONG, label: &str, token: bool) -> crate::Result<Handle> {
        let template = Template::new()
            .ulong(CKA_VALUE_LEN, bytes)
            .bool(CKA_TOKEN, token)
            .bool(CKA_PRIVATE, true)
            .bool(CKA_SENSITIVE, true)
            .bool(CKA_EXTRACTABLE, true)
            .bool(CKA_SIGN, true)
            .bool(CKA_VERIFY, true)
            .bool(CKA_DERIVE, true)
            .bytes(CKA_LABEL, label);
        self.generate_key(&Mechanism::new(CKM_GENERIC_SECRET_KEY_GEN), &template)
    }
}
