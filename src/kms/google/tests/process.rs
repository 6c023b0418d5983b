//! What needs a process of its own: fork, an application that forbids threads, the environment.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::super::connection::{Connection, Login};
use super::*;

/// Runs one ignored test of this file in a process of its own.
fn run_alone(test: &str, environment: &[(&str, String)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", &format!("kms::google::tests::process::{test}")]);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_forked_child_makes_a_client_of_its_own() {
    run_alone("forks", &[]);
}

#[test]
#[ignore = "a part of a_forked_child_makes_a_client_of_its_own"]
fn forks() {
    let bench = Bench::new();
    let kms = bench.with_master();
    let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
    assert_eq!(bench.gateway.connections(), 1);
    // SAFETY: the child uses what this library allows after a fork, and leaves by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let opened = kms.unwrap_key(&wrapped, &CONTEXT).is_ok_and(|opened| opened == secret());
        drop(kms);
        // SAFETY: it ends the child at once.
        unsafe { libc::_exit(if opened { 7 } else { 1 }) };
    }
    let (start, mut status) = (Instant::now(), 0);
    // SAFETY: the status is a place of this frame.
    while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0 {
        assert!(start.elapsed() < Duration::from_secs(30), "the child hangs");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status}");
    assert_eq!(bench.gateway.connections(), 2);
    // The parent's own connection is as it was.
    kms.unwrap_key(&wrapped, &CONTEXT).unwrap();
    assert_eq!(bench.gateway.connections(), 2);
}

#[test]
fn r14_it_works_where_the_application_forbids_threads() {
    run_alone("without_threads", &[]);
}

#[test]
#[ignore = "a part of r14_it_works_where_the_application_forbids_threads"]
fn without_threads() {
    runtime::open(false);
    let bench = Bench::new();
    contract::check(&bench.with_master());
    assert_eq!(bench.gateway.connections(), 1);
}

#[test]
fn r66_googles_own_chain_finds_the_file_of_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("adc.json");
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    run_alone("by_environment", &[("GOOGLE_APPLICATION_CREDENTIALS", text(&file)), ("HOME", text(folder.path()))]);
}

#[test]
#[ignore = "a part of r66_googles_own_chain_finds_the_file_of_the_environment"]
fn by_environment() {
    let bench = Bench::new();
    bench.with_master();
    std::fs::write(std::env::var("GOOGLE_APPLICATION_CREDENTIALS").unwrap(), faults::user(&bench).to_string()).unwrap();
    let kms = by_chain(&bench);
    kms.health().unwrap();
    assert_eq!(bench.gateway.take(), ["POST token", "GET master"]);
}

#[test]
fn r66_googles_own_chain_ends_at_the_metadata_server() {
    // The double stands for the metadata server; the gateway of the child is not known here, so the double itself is named.
    let folder = tempfile::tempdir().unwrap();
    let host = format!("127.0.0.1:{}", port());
    run_alone("by_metadata", &[("GCE_METADATA_HOST", host), ("HOME", folder.path().to_str().unwrap().to_owned())]);
}

#[test]
#[ignore = "a part of r66_googles_own_chain_ends_at_the_metadata_server"]
fn by_metadata() {
    let bench = Bench::new();
    bench.with_master();
    let kms = by_chain(&bench);
    bench.gateway.on(|request| {
        assert!(request.has_token());
        Action::Forward
    });
    kms.health().unwrap();
    assert_eq!(bench.gateway.take(), ["GET master"]);
}

/// A double that listens with TLS, and ends with the pipe that this holds.
struct WithTls {
    port: u16,
    child: std::process::Child,
}

impl WithTls {
    fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap().keep();
        let ca = crate::kms::emulator::test_ca();
        let root = std::env::var_os("STRONGROOM_ROOT").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let mut command = Command::new(std::path::Path::new(&root).join("scripts/emulators/emulators.sh"));
        command.args(["run", "google", &port.to_string()]).arg(folder);
        command.arg("--cert").arg(ca.with_file_name("server.pem")).arg("--key").arg(ca.with_file_name("server.key"));
        command.env("EMULATOR_ENDS_WITH_STDIN", "1").stdin(Stdio::piped()).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "the double does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { port, child }
    }
}

impl Drop for WithTls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn r66_a_ca_and_a_proxy_of_the_environment_are_heeded() {
    let double = WithTls::start();
    let ca = crate::kms::emulator::test_ca().to_str().unwrap().to_owned();
    // A port where nobody listens: whoever asks this proxy reaches nothing.
    let proxy = "http://127.0.0.1:1".to_owned();
    let expect = |fault: &str, more: &[(&str, String)]| {
        let told = [("TLS_PORT", double.port.to_string()), ("TLS_EXPECT", fault.to_owned())];
        run_alone("over_tls", &[&told[..], more].concat());
    };
    expect("not-found", &[("SSL_CERT_FILE", ca.clone())]);
    expect("unreachable certificate", &[]);
    expect("unreachable", &[("SSL_CERT_FILE", ca.clone()), ("HTTPS_PROXY", proxy.clone())]);
    let around = [("SSL_CERT_FILE", ca), ("HTTPS_PROXY", proxy), ("NO_PROXY", "127.0.0.1".to_owned())];
    expect("not-found", &around);
}

#[test]
#[ignore = "a part of r66_a_ca_and_a_proxy_of_the_environment_are_heeded"]
fn over_tls() {
    let (port, expected) = (std::env::var("TLS_PORT").unwrap(), std::env::var("TLS_EXPECT").unwrap());
    let settings = Settings::new("cloud", "google")
        .with("key", Setting::Text("projects/p/locations/l/keyRings/r/cryptoKeys/k".to_owned()))
        .with("endpoint", Setting::Text(format!("https://127.0.0.1:{port}")))
        .with("anonymous", Setting::Flag(true));
    let error = GoogleKms::new(&settings).unwrap().health().unwrap_err();
    let mut words = expected.split(' ');
    assert_eq!(Some(error.kms_fault().unwrap().name()), words.next(), "{error}");
    assert!(words.all(|word| error.message().contains(word)), "{error}");
}

/// A provider with the credentials of the environment, though its endpoint is no https.
fn by_chain(bench: &Bench) -> GoogleKms {
    let connection = Connection::new(Some(bench.gateway.endpoint()), Login::Chain);
    GoogleKms { connection: Arc::new(connection), ..bench.kms() }
}
