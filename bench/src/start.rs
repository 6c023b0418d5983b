//! What a fresh process needs from C_Initialize to its first find, and for the finds after it.
//!
//! The benchmark starts itself for that; such a helper tells its numbers in one line.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ffi_tests::ck::{CKA_ID, CKU_USER};
use ffi_tests::{Module, Session, Template, USER_PIN};

use crate::bare;
use crate::line::{Line, Target, Unit};
use crate::measure::{median, quantile};
use crate::scale::find_times;
use crate::token::{LABEL, Token, id};

/// Set in a helper to the path of the configuration.
const CONFIG: &str = "STRONGROOM_BENCH_START";
/// How many processes are started.
const ROUNDS: usize = 15;
/// How many objects each of them looks for.
const FINDS: usize = 1000;

/// Plays the helper, when this process is one, in a store with so many objects.
pub fn play(objects: usize) -> bool {
    let Some(config) = std::env::var_os(CONFIG) else { return false };
    let (session, start) = first_find(Path::new(&config));
    let memory = resident();
    let argon2id = Instant::now();
    bare::argon2id_once();
    let start = start.saturating_sub(argon2id.elapsed());
    let mut finds = find_times(session, objects, FINDS);
    println!("{} {memory} {} {}", start.as_nanos(), median(&mut finds), quantile(&mut finds, 0.99));
    true
}

/// Does all from C_Initialize to the first find, and tells how long that took.
fn first_find(config: &Path) -> (Session, Duration) {
    let module = Module::load();
    let start = Instant::now();
    ffi_tests::token::initialize(module, config).expect("C_Initialize");
    let session = module.open(module.slot_of(LABEL).expect("the token")).expect("C_OpenSession");
    session.login(CKU_USER, USER_PIN).expect("C_Login");
    session.find_one(&Template::new().bytes(CKA_ID, id(0))).expect("the first object");
    (session, start.elapsed())
}

/// Reads the resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Starts a helper and reads its numbers: the start in nanoseconds, the memory in KiB, p50 and p99 of finds in nanoseconds.
fn helper(config: &Path) -> [f64; 4] {
    let mut command = Command::new(std::env::current_exe().expect("the binary's own path"));
    let output = command.env(CONFIG, config).output().expect("the benchmark starts itself");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().expect("the helper tells four numbers")
}

/// Measures fresh processes over a store with so many objects.
pub fn lines(token: &Token, objects: usize) -> Vec<Line> {
    let helpers: Vec<_> = (0..ROUNDS).map(|_| helper(&token.config)).collect();
    let line = |which: usize, name: &str, unit, target| {
        let mut numbers: Vec<_> = helpers.iter().map(|numbers| numbers[which]).collect();
        let name = format!("fresh process, {objects} objects: {name}");
        Line { name, unit, ours: median(&mut numbers), bare: None, target }
    };
    vec![
        line(0, "C_Initialize to first find, less Argon2id", Unit::Nanoseconds, Target::Most(20e6)),
        line(1, "resident memory", Unit::Kibibytes, Target::Most(64.0 * 1024.0)),
        line(2, "C_FindObjects by CKA_ID, p50", Unit::Nanoseconds, Target::None),
        line(3, "C_FindObjects by CKA_ID, p99", Unit::Nanoseconds, Target::Most(50_000.0)),
    ]
}
