//! A SoftHSM2 of its own for each test: the test binary starts itself, since the module reads its configuration from the
//! environment and keeps it for the life of the process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;

use super::super::super::{Setting, Settings};
use super::super::HsmKms;

/// Set in a process of its own to the folder of its SoftHSM.
const FOLDER: &str = "STRONGROOM_TEST_HSM";
/// Where distributions put the module.
const MODULES: [&str; 5] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];
/// The PIN of all tokens here.
pub const PIN: &str = "1234";

/// A SoftHSM with one token `prod`.
pub struct SoftHsm {
    pub folder: PathBuf,
}

/// Runs the body in a process of its own: the test of this full name, which starts itself.
pub fn isolated(test: &str, body: impl FnOnce(&SoftHsm)) {
    let test = format!("kms::hsm::tests::{test}");
    if let Some(folder) = std::env::var_os(FOLDER) {
        let hsm = SoftHsm { folder: folder.into() };
        hsm.init_token("prod");
        body(&hsm);
        fs::write(hsm.folder.join("finished"), "").unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    fs::create_dir(&tokens).unwrap();
    let configuration = folder.path().join("softhsm2.conf");
    fs::write(&configuration, format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display())).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &test, "--nocapture"]).env(FOLDER, folder.path()).env("SOFTHSM2_CONF", configuration);
    command.env("STRONGROOM_SHIM_MODULE", softhsm()).env("STRONGROOM_SHIM_FOLDER", folder.path());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{test}: {status}\n{stdout}\n{stderr}");
    assert!(folder.path().join("finished").exists(), "{test} did not run to its end:\n{stdout}\n{stderr}");
}

/// Finds SoftHSM2.
pub fn softhsm() -> &'static Path {
    let found = MODULES.into_iter().map(Path::new).find(|path| path.exists());
    found.expect("these tests need SoftHSM2: install the package softhsm2")
}

/// Runs a tool that must succeed, and gives what it says.
pub fn tool(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(name).args(arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} {arguments:?}: {out}\n{err}");
    out.into_owned()
}

impl SoftHsm {
    /// Makes a token.
    pub fn init_token(&self, label: &str) {
        tool("softhsm2-util", &["--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", PIN]);
    }

    /// Runs pkcs11-tool, as a person would, on the token `prod`.
    pub fn pkcs11_tool(&self, arguments: &[&str]) -> String {
        let module = softhsm().to_str().unwrap();
        let start = ["--module", module, "--token-label", "prod", "--login", "--pin", PIN];
        tool("pkcs11-tool", &[&start[..], arguments].concat())
    }

    /// Makes an AES master key.
    pub fn make_master(&self, label: &str, id: &str) {
        self.pkcs11_tool(&["--keygen", "--key-type", "aes:32", "--label", label, "--id", id, "--sensitive"]);
    }

    /// Writes the file of the PIN.
    pub fn write_pin(&self, pin: &str) -> PathBuf {
        let path = self.folder.join("pin");
        fs::write(&path, format!("{pin}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Gives settings for the key `master` on the token `prod`.
    pub fn settings(&self) -> Settings {
        Settings::new("vault", "hsm")
            .with("module", Setting::Path(softhsm().to_owned()))
            .with("token", text("prod"))
            .with("key", text("master"))
            .with("pin_file", Setting::Path(self.write_pin(PIN)))
    }

    /// Gives a provider of these settings.
    pub fn kms(&self) -> HsmKms {
        HsmKms::new(&self.settings()).unwrap()
    }

    /// Gives settings behind the module that counts and fails.
    pub fn shimmed(&self) -> Settings {
        self.settings().with("module", Setting::Path(self.shim()))
    }

    /// Builds the module that counts and fails.
    pub fn shim(&self) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let module = self.folder.join("shim.so");
        if !module.exists() {
            let (source, include) = (root.join("src/kms/hsm/tests/shim.c"), root.join("include"));
            let paths = [include, module.clone(), source].map(|path| path.to_str().unwrap().to_owned());
            tool("cc", &["-shared", "-fPIC", "-Wall", "-Werror", "-I", &paths[0], "-o", &paths[1], &paths[2], "-ldl"]);
        }
        module
    }

    /// Tells the module that counts and fails how to fail: `FUNCTION RV TIMES`.
    pub fn fail(&self, how: &str) {
        fs::write(self.folder.join("fault"), how).unwrap();
    }

    /// Ends the failing.
    pub fn heal(&self) {
        fs::remove_file(self.folder.join("fault")).unwrap();
    }

    /// Tells which calls were made since the last time, without those that ask for a length.
    pub fn calls(&self) -> Vec<String> {
        let path = self.folder.join("calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(&path);
        calls.lines().filter(|line| !line.ends_with('?')).map(str::to_owned).collect()
    }

    /// Uses the module directly, as the application of this process would.
    pub fn application(&self, module: &Path) -> (Pkcs11, Session) {
        let pkcs11 = Pkcs11::new(module).unwrap();
        let _ = pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        let slot = pkcs11.get_slots_with_initialized_token().unwrap()[0];
        let session = pkcs11.open_rw_session(slot).unwrap();
        let _ = session.login(UserType::User, Some(&AuthPin::new(PIN.into())));
        (pkcs11, session)
    }
}

/// Makes a setting of a text.
pub fn text(value: &str) -> Setting {
    Setting::Text(value.to_owned())
}

/// Finds the one object of a class with a label.
pub fn object(session: &Session, class: ObjectClass, label: &str) -> ObjectHandle {
    let found = session.find_objects(&[Attribute::Class(class), Attribute::Label(label.as_bytes().to_vec())]).unwrap();
    assert_eq!(found.len(), 1, "{label}");
    found[0]
}
