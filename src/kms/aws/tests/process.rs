//! Processes of their own: with another environment, and forked.

use std::process::Command;

use super::service::{Answer, Service};
use super::*;

/// Tells the child process where the service is.
pub const PORT: &str = "STRONGROOM_TEST_AWS_PORT";

/// Runs a test of this folder alone, in an environment of these variables, and gives what it prints.
pub fn child(test: &str, port: u16, variables: &[(&str, &str)]) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("kms::aws::tests::{test}"), "--nocapture"]).env_clear();
    command.env("HOME", home.path()).env(PORT, port.to_string()).env("AWS_EC2_METADATA_DISABLED", "true");
    let output = command.envs(variables.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The body of the child process below: it asks, forks, and asks again on both sides.
#[test]
fn child_forks() {
    let Ok(port) = std::env::var(PORT) else { return };
    let kms = on_port(port.parse().unwrap(), ARN);
    kms.describe().unwrap();
    // The connection goes back to the pool after the answer: without it there, the child would have nothing to misuse.
    std::thread::sleep(Duration::from_millis(300));
    // SAFETY: no other thread of this process does anything meanwhile; the child ends by _exit.
    let forked = unsafe { libc::fork() };
    if forked == 0 {
        let code = if kms.describe().is_ok() && kms.describe().is_ok() { 7 } else { 1 };
        // SAFETY: ends the child without the destructors and the output of its parent.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(forked, &raw mut status, 0) }, forked);
    kms.describe().unwrap();
    println!("CHILD {}", libc::WEXITSTATUS(status));
}

#[test]
fn r08_a_forked_child_has_a_connection_of_its_own() {
    let service = Service::start(|_| {
        Some(Answer::json(&serde_json::json!({ "KeyMetadata": { "KeyId": "x", "Arn": ARN, "KeyState": "Enabled",
            "KeySpec": "SYMMETRIC_DEFAULT" } })))
    });
    let printed = child("process::child_forks", service.port, &[]);
    assert!(printed.contains("CHILD 7"), "{printed}");
    assert_eq!(service.take_counts(), [("DescribeKey".to_owned(), 4)]);
    assert_eq!(service.connections(), 2, "one of the parent, which outlives the fork, and one of the child");
}
