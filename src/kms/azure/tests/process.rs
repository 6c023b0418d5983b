//! What needs a process of its own: fork, and an application that forbids threads.

use std::process::Command;
use std::time::{Duration, Instant};

use super::*;

/// Runs one ignored test of this file in a process of its own.
fn run_alone(test: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", &format!("kms::azure::tests::process::{test}")]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_forked_child_makes_a_client_of_its_own() {
    run_alone("forks");
}

#[test]
#[ignore = "a part of a_forked_child_makes_a_client_of_its_own"]
fn forks() {
    let faults = Faults::before(Double::shared());
    let kms = master(&faults.double(), "forks", rsa());
    let wrapped = kms.wrap_key(&contract::secret(), &contract::CONTEXT).unwrap();
    let opens = || kms.unwrap_key(&wrapped, &contract::CONTEXT).is_ok_and(|opened| opened == contract::secret());
    assert!(opens());
    faults.clear();
    // SAFETY: the child uses what this library allows after a fork, and leaves by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let opened = opens();
        // SAFETY: it ends the child at once.
        unsafe { libc::_exit(if opened { 7 } else { 1 }) };
    }
    let (start, mut status) = (Instant::now(), 0);
    // SAFETY: the status is a place of this frame.
    while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0 {
        assert!(start.elapsed() < Duration::from_secs(90), "the child hangs");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status}");
    assert_eq!(faults.hits(), "token=1 unwrapkey=2", "a new client is asked to log in, and does");
    faults.clear();
    assert!(opens());
    assert_eq!(faults.hits(), "unwrapkey=1", "the parent's own client is as it was");
}

#[test]
fn r14_it_works_where_the_application_forbids_threads() {
    run_alone("without_threads");
}

#[test]
#[ignore = "a part of r14_it_works_where_the_application_forbids_threads"]
fn without_threads() {
    crate::runtime::open(false);
    contract::check(&master(Double::shared(), "without-threads", rsa()));
}
