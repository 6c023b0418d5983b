//! The emulators of `scripts/emulators`, started for the tests of providers.
//!
//! The rules are:
//! - an emulator is started once in a test process, when the first test asks for it, and dies with that process;
//! - each has a port and a folder of its own, so that test processes do not meet.
// The child is killed by the kernel when this process ends, and reaped by whoever is above it then.
#![allow(clippy::unwrap_used, clippy::zombie_processes)]

use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{LazyLock, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long an emulator may take to start, with other tests beside it.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running emulator.
#[derive(Debug)]
pub struct Emulator {
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl Emulator {
    /// Gives the emulator of a name (`aws`, `google`, `azure`), which all tests of this process share.
    pub fn shared(name: &'static str) -> &'static Emulator {
        static RUNNING: LazyLock<Mutex<HashMap<&'static str, &'static OnceLock<Emulator>>>> =
            LazyLock::new(Mutex::default);
        let place = *RUNNING.lock().entry(name).or_insert_with(|| Box::leak(Box::default()));
        place.get_or_init(|| Emulator::start(name, &[]))
    }

    /// Starts a proxy that injects faults before a shared emulator; each call starts another one.
    pub fn faults_before(name: &'static str) -> Emulator {
        let scheme = if name == "azure" { "https" } else { "http" };
        let upstream = format!("{scheme}://127.0.0.1:{}", Emulator::shared(name).port);
        Emulator::start("faults", &["--cloud", name, "--upstream", &upstream])
    }

    /// Gives its address as a URL.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Starts another emulator with options of its own.
    pub fn start(name: &str, arguments: &[&str]) -> Emulator {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap().keep();
        let script = root().join("scripts/emulators/emulators.sh");
        let mut command = Command::new(script);
        command.args(["run", name, &port.to_string()]).arg(&folder).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(folder.join("log")).unwrap());
        // SAFETY: prctl is one system call; the child runs nothing else before it becomes the emulator.
        unsafe { command.pre_exec(die_with_parent) };
        // The kernel kills the emulator when the thread that started it ends, so that thread must live as long as the process.
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            tell.send(command.spawn()).unwrap();
            loop {
                thread::park();
            }
        });
        let mut child =
            told.recv().unwrap().unwrap_or_else(|error| panic!("{name}: {error}; run scripts/setup-test.sh"));
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(child.try_wait().unwrap().is_none(), "{name} ended; run scripts/setup-test.sh\n{}", log());
            assert!(start.elapsed() < PATIENCE, "{name} does not start\n{}", log());
            thread::sleep(Duration::from_millis(50));
        }
        Emulator { port }
    }
}

/// Gives the file of the test CA, which clients of `azure` must trust.
pub fn test_ca() -> PathBuf {
    root().join(".test-env/emulators/ca/ca.pem")
}

fn root() -> PathBuf {
    std::env::var_os("STRONGROOM_ROOT").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

fn die_with_parent() -> std::io::Result<()> {
    // SAFETY: the call takes a number and touches no memory.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
