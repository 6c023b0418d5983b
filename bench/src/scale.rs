//! What scales: two threads against one, and finding one object among many.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ffi_tests::ck::CKA_ID;
use ffi_tests::{Session, Template};

use crate::line::{Line, Target, Unit};
use crate::measure::{median, quantile};
use crate::rows::Prepare;
use crate::token::{Token, id};
use crate::{bare, ours};

/// How often each number of threads has its turn.
const ROUNDS: usize = 7;
/// How long a turn takes.
const TURN: Duration = Duration::from_millis(150);
/// How many objects are looked for.
const FINDS: usize = 10_000;

/// Measures two threads against one.
pub fn threads(token: &Token) -> Vec<Line> {
    let line = |name: &str, ours, bare| {
        let (ours, bare) = speedup(token, ours, bare);
        Line { name: name.to_owned(), unit: Unit::Times, ours, bare: Some(bare), target: Target::Least(1.9) }
    };
    vec![
        line("two threads against one: C_Sign, P-256", ours::sign_p256, bare::sign_p256),
        line("two threads against one: C_Encrypt, AES-256-GCM, 1 KiB", ours::gcm::<1024>, bare::gcm::<1024>),
    ]
}

/// Tells how much more two threads do than one, for both sides in turns.
fn speedup(token: &Token, ours: Prepare, bare: Prepare) -> (f64, f64) {
    let mut factors = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (side, factors) in [ours, bare].into_iter().zip(&mut factors) {
            factors.push(calls(token, side, 2) / calls(token, side, 1));
        }
    }
    let [ours, bare] = &mut factors;
    (median(ours), median(bare))
}

/// Counts how many calls so many threads do in a turn.
fn calls(token: &Token, prepare: Prepare, threads: usize) -> f64 {
    let stop = AtomicBool::new(false);
    let count_until_stop = || {
        let (mut work, mut count) = (prepare(token), 0u32);
        while !stop.load(Ordering::Relaxed) {
            work();
            count += 1;
        }
        f64::from(count)
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(count_until_stop)).collect();
        thread::sleep(TURN);
        stop.store(true, Ordering::Relaxed);
        running.into_iter().map(|thread| thread.join().expect("a thread that counts")).sum()
    })
}

/// Measures finding objects by `CKA_ID` among so many, in the process that made them and has handles of all.
pub fn finds(token: &Token, objects: usize) -> Vec<Line> {
    let mut times = find_times(token.open(), objects, FINDS);
    let mut line = |name: &str, part, target| Line {
        name: format!("C_FindObjects by CKA_ID, {objects} objects, all known: {name}"),
        unit: Unit::Nanoseconds,
        ours: quantile(&mut times, part),
        bare: None,
        target,
    };
    vec![line("p50", 0.5, Target::None), line("p99", 0.99, Target::Most(50_000.0))]
}

/// Finds some of so many objects, one at a time, and tells the nanoseconds that each took.
pub fn find_times(session: Session, objects: usize, finds: usize) -> Vec<f64> {
    let one = |turn: usize| {
        // A prime step visits the objects in no order of theirs.
        let template = Template::new().bytes(CKA_ID, id(turn * 7919 % objects));
        let start = Instant::now();
        session.find_init(&template).expect("C_FindObjectsInit");
        let found = session.find_some(2).expect("C_FindObjects");
        session.find_final().expect("C_FindObjectsFinal");
        let time = start.elapsed();
        assert_eq!(found.len(), 1, "each object has an id of its own");
        time.as_nanos() as f64
    };
    (0..finds).map(one).collect()
}
