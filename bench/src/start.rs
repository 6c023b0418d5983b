//! What a fresh process needs from C_Initialize to its first find.
//!
//! The benchmark starts itself for that; such a helper tells its numbers in one line.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use ffi_tests::ck::{CKA_ID, CKU_USER};
use ffi_tests::{Module, Template, USER_PIN};

use crate::bare;
use crate::line::{Line, Target, Unit};
use crate::measure::median;
use crate::token::{LABEL, Token, id};

/// Set in a helper to the path of the configuration.
const CONFIG: &str = "STRONGROOM_BENCH_START";
/// How many processes are started.
const ROUNDS: usize = 15;

/// Plays the helper, when this process is one.
pub fn play() -> bool {
    let Some(config) = std::env::var_os(CONFIG) else { return false };
    let (start, memory) = first_find(Path::new(&config));
    let argon2id = Instant::now();
    bare::argon2id_once();
    println!("{} {memory}", start.saturating_sub(argon2id.elapsed().as_nanos()));
    true
}

/// Does all from C_Initialize to the first find; tells the nanoseconds and the resident memory in KiB.
fn first_find(config: &Path) -> (u128, u64) {
    let module = Module::load();
    let start = Instant::now();
    ffi_tests::token::initialize(module, config).expect("C_Initialize");
    let session = module.open(module.slot_of(LABEL).expect("the token")).expect("C_OpenSession");
    session.login(CKU_USER, USER_PIN).expect("C_Login");
    session.find_one(&Template::new().bytes(CKA_ID, id(0))).expect("the first object");
    (start.elapsed().as_nanos(), resident())
}

/// Reads the resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Starts a helper and reads its numbers.
fn helper(config: &Path) -> [f64; 2] {
    let mut command = Command::new(std::env::current_exe().expect("the binary's own path"));
    let output = command.env(CONFIG, config).output().expect("the benchmark starts itself");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().expect("the helper tells two numbers")
}

/// Measures fresh processes over a store with so many objects.
pub fn lines(token: &Token, objects: usize) -> Vec<Line> {
    let (mut times, mut memory): (Vec<_>, Vec<_>) =
        (0..ROUNDS).map(|_| helper(&token.config)).map(|[time, memory]| (time, memory)).unzip();
    let line = |name: &str, unit, ours, target| Line { name: name.to_owned(), unit, ours, bare: None, target };
    let name = format!("fresh process, {objects} objects: C_Initialize to first find, less Argon2id");
    vec![
        line(&name, Unit::Nanoseconds, median(&mut times), Target::Most(20e6)),
        line("fresh process: resident memory", Unit::Kibibytes, median(&mut memory), Target::Most(64.0 * 1024.0)),
    ]
}
