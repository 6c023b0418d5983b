//! Tokens whose KMS is another PKCS #11 module: SoftHSM2 in the same process, in a forked child, and Strongroom itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ffi_tests::ck::*;
use ffi_tests::{Config, Mechanism, Module, SO_PIN, TestToken, USER_PIN, assert_rv, isolated};

use crate::fork::{in_child, live_in_child};

/// Where Debian puts SoftHSM2.
const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// Runs a tool that must succeed.
fn tool(name: &str, arguments: &[&str]) {
    let output = Command::new(name).args(arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes a SoftHSM with a master key and a key that signs, and a configuration whose tokens use both.
fn with_softhsm(folder: &Path) -> TestToken {
    with_softhsm_and(folder, "")
}

/// The same with more keys in the section of the provider.
pub fn with_softhsm_and(folder: &Path, keys: &str) -> TestToken {
    let tokens = folder.join("tokens");
    fs::create_dir(&tokens).expect("making the directory");
    let conf = folder.join("softhsm2.conf");
    fs::write(&conf, format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display())).expect("writing");
    // SAFETY: this process has no other threads yet that read the environment.
    unsafe { std::env::set_var("SOFTHSM2_CONF", &conf) };
    tool("softhsm2-util", &["--init-token", "--free", "--label", "prod", "--so-pin", "12345678", "--pin", "1234"]);
    let start = ["--module", SOFTHSM, "--token-label", "prod", "--login", "--pin", "1234"];
    let master = ["--keygen", "--key-type", "aes:32", "--label", "master", "--id", "01", "--sensitive"];
    let wallet = ["--keypairgen", "--key-type", "EC:secp256k1", "--label", "wallet", "--id", "02"];
    tool("pkcs11-tool", &[&start[..], &master].concat());
    tool("pkcs11-tool", &[&start[..], &wallet].concat());
    let pin = folder.join("pin");
    fs::write(&pin, "1234\n").expect("writing");
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).expect("chmod");
    let more = format!(
        "[kms.vault]\ntype = \"hsm\"\nmodule = \"{SOFTHSM}\"\ntoken = \"prod\"\nkey = \"master\"\npin_file = \"{}\"\n{keys}\
         [[token]]\nlabel = \"test\"\nkms = \"vault\"\n\
         [[token]]\nlabel = \"remote\"\nkms = \"vault\"\nremote = \"vault\"\nkeys = [\"wallet\"]\n",
        pin.display()
    );
    TestToken::with(&Config { more, ..Config::default() })
}

#[test]
fn r06_a_token_on_an_hsm_opens_in_a_forked_child_and_after_a_new_start() {
    isolated!(|| {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let token = with_softhsm(folder.path());
        let session = token.user();
        let (_, private) = session.p256("key", true);
        session.sign(&Mechanism::new(CKM_ECDSA), private, &[7; 32]).expect("C_Sign");
        assert_eq!(in_child(Duration::from_secs(30), || live_in_child(&token)), 0);
        session.sign(&Mechanism::new(CKM_ECDSA), private, &[7; 32]).expect("C_Sign after the child");
        token.module.finalize().expect("C_Finalize");
        token.initialize().expect("C_Initialize");
        token.user();
    });
}

#[test]
fn r65_a_key_that_lives_on_an_hsm_signs_in_the_parent_and_in_a_forked_child() {
    isolated!(|| {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let token = with_softhsm(folder.path());
        let slot = token.module.init_token("remote", SO_PIN).expect("C_InitToken");
        let officer = token.module.open(slot).expect("C_OpenSession");
        officer.login(CKU_SO, SO_PIN).expect("C_Login");
        officer.init_pin(USER_PIN).expect("C_InitPIN");
        officer.logout().expect("C_Logout");
        officer.close().expect("C_CloseSession");
        let signs = || {
            let session = token.module.open(slot)?;
            session.login(CKU_USER, USER_PIN)?;
            let [public, private] = [CKO_PUBLIC_KEY, CKO_PRIVATE_KEY].map(|class| {
                session.find_one(&ffi_tests::Template::class(class).bytes(CKA_LABEL, "wallet")).expect("the key")
            });
            let signature = session.sign(&Mechanism::new(CKM_ECDSA), private, &[7; 32])?;
            assert_eq!(signature.len(), 64);
            session.verify(&Mechanism::new(CKM_ECDSA), public, &[7; 32], &signature)
        };
        signs().expect("the parent signs");
        let child = || if token.initialize().is_ok() && signs().is_ok() { 0 } else { 1 };
        assert_eq!(in_child(Duration::from_secs(30), child), 0);
    });
}

#[test]
fn strongroom_is_refused_as_its_own_hsm_under_any_name() {
    isolated!(|| {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let copy = folder.path().join("another-name.so");
        fs::copy(Module::path(), &copy).expect("copying the module");
        let mut more = String::new();
        for (name, path) in [("same", Module::path()), ("copy", copy)] {
            more += &format!(
                "[kms.{name}]\ntype = \"hsm\"\nmodule = \"{}\"\nkey = \"k\"\n[[token]]\nlabel = \"{name}\"\nkms = \"{name}\"\n",
                path.display()
            );
        }
        let token = TestToken::with(&Config { more, ..Config::default() });
        for name in ["same", "copy"] {
            assert_rv!(token.module.init_token(name, SO_PIN), CKR_FUNCTION_NOT_SUPPORTED);
            let text = token.module.last_error();
            assert!(text.contains("Strongroom itself"), "{text}");
        }
        token.user().p256("key", false);
    });
}
