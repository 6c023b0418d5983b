//! What rotating many due keys takes, and how often the KMS is asked for it.
//!
//! The benchmark starts itself again, 91 days later by its clock, for the rotation.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ffi_tests::ck::*;
use ffi_tests::clock::Clock;
use ffi_tests::{Config, Module, Session, Template, USER_PIN, vendor};
use tempfile::TempDir;

use crate::token::LABEL;

/// Set in the helper to the path of the configuration.
const CONFIG: &str = "STRONGROOM_BENCH_ROTATION";
/// How many threads make the keys; they share commits.
const MAKERS: usize = 16;
/// Where Debian puts SoftHSM2. With it, the token's master key lives there, and its requests are counted.
const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// What came out.
pub struct Outcome {
    /// How long it took to make the keys.
    pub made_in: Duration,
    /// How long it took to rotate all of them, from SR_RotateDue to its answer.
    pub rotated_in: Duration,
    /// How much of that the processor worked for it.
    pub worked: Duration,
    /// How long it took to find out that nothing is due any more.
    pub looked_in: Duration,
    /// How many requests the KMS got to open the token, and for the rotation, where they are counted.
    pub requests: Option<[u64; 2]>,
}

/// Plays the helper, when this process is one: opens the token, rotates, and tells its numbers in one line.
pub fn play() -> bool {
    let Some(config) = std::env::var_os(CONFIG) else { return false };
    let module = Module::load();
    ffi_tests::token::initialize(module, Path::new(&config)).expect("C_Initialize");
    let session = module.open(module.slot_of(LABEL).expect("the token")).expect("C_OpenSession");
    session.login(CKU_USER, USER_PIN).expect("C_Login");
    let opened = requests(&session);
    let (start, worked) = (Instant::now(), processor_time());
    let [rotated, left, failed] = session.rotate_due(0).expect("SR_RotateDue");
    let (took, worked) = (start.elapsed().as_nanos(), (processor_time() - worked).as_nanos());
    // Each look at the count is a request of its own.
    let more = requests(&session) - opened - 1;
    let look = Instant::now();
    assert_eq!(session.rotate_due(0).expect("SR_RotateDue"), [0, 0, 0], "each key is due once");
    println!("{rotated} {left} {failed} {took} {worked} {} {} {more}", look.elapsed().as_nanos(), opened - 1);
    true
}

/// Tells how long processors have worked for this process.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer lives.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) }, 0, "Linux has this clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Tells how many requests the token's KMS has got, that for this count among them; 1 more each time where nobody counts.
fn requests(session: &Session) -> u64 {
    let status = session.kms_status().expect("SR_GetKmsStatus");
    let counted = status.split_once("\"requests\":").map(|(_, rest)| rest.split([',', '}']).next().expect("a number"));
    counted.map_or_else(uncounted, |number| number.parse().expect("a number"))
}

fn uncounted() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static ASKED: AtomicU64 = AtomicU64::new(1);
    ASKED.fetch_add(1, Ordering::Relaxed)
}

/// Makes so many keys of an asset, and rotates all of them in a process whose clock is 91 days ahead.
pub fn measure(keys: usize, asset: &str) -> Outcome {
    let directory = TempDir::new().expect("a temporary directory");
    let hsm = with_softhsm(directory.path());
    let rules = "[rotation]\nmax_key_age_days = 0\nscheduler = false\n";
    let more = format!("{rules}{}", hsm.as_deref().unwrap_or_default());
    let config = Config { more, ..Config::default() }.write(directory.path());
    let module = Module::load();
    ffi_tests::token::initialize(module, &config).expect("C_Initialize");
    let slot = ffi_tests::token::make_token(module, LABEL);
    let session = module.open(slot).expect("C_OpenSession");
    session.login(CKU_USER, USER_PIN).expect("C_Login");
    let start = Instant::now();
    make(module, slot, keys, asset);
    let made_in = start.elapsed();
    let numbers = rotate_later(directory.path(), &config);
    let [rotated, left, failed, rotated_in, worked, looked_in, opening, more] = numbers;
    assert_eq!([rotated, left, failed], [keys as u64, 0, 0], "every key is rotated");
    let replaced = Template::new().ulong(vendor::CKA_SR_STATE, vendor::SR_STATE_ROTATED).bool(CKA_PRIVATE, true);
    assert_eq!(session.find(&replaced).expect("a find").len(), keys, "every key has one older version");
    Outcome {
        made_in,
        rotated_in: Duration::from_nanos(rotated_in),
        worked: Duration::from_nanos(worked),
        looked_in: Duration::from_nanos(looked_in),
        requests: hsm.map(|_| [opening, more]),
    }
}

fn make(module: &'static Module, slot: CK_SLOT_ID, keys: usize, asset: &str) {
    let part = |part: usize| {
        let session = module.open(slot).expect("C_OpenSession");
        for number in (part..keys).step_by(MAKERS) {
            session.generate_managed((&format!("user {number}"), asset)).expect("SR_GenerateKey");
        }
        session.close().expect("C_CloseSession");
    };
    thread::scope(|scope| {
        for number in 0..MAKERS {
            scope.spawn(move || part(number));
        }
    });
}

/// Starts the helper and reads its numbers.
fn rotate_later(directory: &Path, config: &Path) -> [u64; 8] {
    let mut command = Command::new(std::env::current_exe().expect("the binary's own path"));
    command.env(CONFIG, config).envs(Clock::build(directory).environment(91));
    let output = command.output().expect("the benchmark starts itself");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().expect("the helper tells eight numbers")
}

/// Makes a SoftHSM with a master key, and the lines of a configuration whose token is under it; `None` where there is none.
fn with_softhsm(directory: &Path) -> Option<String> {
    if !Path::new(SOFTHSM).exists() {
        return None;
    }
    let (tokens, conf, pin) = (directory.join("hsm"), directory.join("softhsm2.conf"), directory.join("pin"));
    std::fs::create_dir(&tokens).ok()?;
    std::fs::write(&conf, format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display())).ok()?;
    // SAFETY: this process has no other thread yet.
    unsafe { std::env::set_var("SOFTHSM2_CONF", &conf) };
    tool("softhsm2-util", &["--init-token", "--free", "--label", "prod", "--so-pin", "12345678", "--pin", "1234"])?;
    let start = ["--module", SOFTHSM, "--token-label", "prod", "--login", "--pin", "1234"];
    let master = ["--keygen", "--key-type", "aes:32", "--label", "master", "--id", "01", "--sensitive"];
    tool("pkcs11-tool", &[&start[..], &master].concat())?;
    write_private(&pin, "1234\n")?;
    let pin = pin.display();
    Some(format!(
        "[kms.vault]\ntype = \"hsm\"\nmodule = \"{SOFTHSM}\"\ntoken = \"prod\"\nkey = \"master\"\npin_file = \"{pin}\"\n\
         [[token]]\nlabel = \"{LABEL}\"\nkms = \"vault\"\n"
    ))
}

fn tool(name: &str, arguments: &[&str]) -> Option<()> {
    Command::new(name).args(arguments).output().ok().filter(|output| output.status.success()).map(drop)
}

fn write_private(file: &Path, text: &str) -> Option<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(file, text).ok()?;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).ok()
}
