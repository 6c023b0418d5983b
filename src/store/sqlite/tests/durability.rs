//! kill -9 at random points: what was acknowledged is there, and nothing is half there.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

/// Names the file to the child; its being set makes the test the child.
const CHILD: &str = "STRONGROOM_TEST_STORE";
const TEST: &str = "store::sqlite::tests::durability::r24_whatever_was_acknowledged_survives_kill_9";
const KILLS: u32 = 60;
const THREADS: u64 = 3;

/// What the object with a number is at a revision: a change touches every part of it.
fn version(number: u64, revision: u64) -> ObjectRow {
    let mark = number << 32 | revision;
    let index = vec![crate::store::contract::entry(1, mark), crate::store::contract::entry(2, number)];
    ObjectRow {
        revision,
        attributes: mark.to_be_bytes().repeat(40),
        secret: Some(mark.to_be_bytes().repeat(5)),
        index,
        ..object(number)
    }
}

/// Changes objects for ever; announces each change before it, and acknowledges it after.
fn child(path: &str) {
    let store = crate::store::open(&format!("sqlite://{path}"), &OpenOptions::default()).unwrap();
    let token = tokens(&*store).unwrap()[0].serial;
    let say = |text: String| std::io::stdout().lock().write_all(text.as_bytes()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, say) = (&store, &say);
            scope.spawn(move || {
                for step in 0u64.. {
                    let number = thread * 100 + step * 7 % 20;
                    let revision = store.object(&token, &uid(number)).unwrap().map_or(0, |row| row.revision);
                    let next = if revision >= 3 { 0 } else { revision + 1 };
                    say(format!("\ntry {number} {next}\n"));
                    let change = |t: &mut dyn Transaction| match (revision, next) {
                        (0, _) => t.insert_object(&token, &version(number, 1)),
                        (_, 0) => t.delete_object(&token, &uid(number)),
                        _ => t.update_object(&token, &version(number, next)),
                    };
                    store.write(&mut { change }).unwrap();
                    say(format!("\ndone {number} {next}\n"));
                }
            });
        }
    });
}

/// Reads what the child said: for each object the acknowledged revision, and the one that was tried since.
fn read_said(said: impl BufRead, known: &mut HashMap<u64, (u64, Option<u64>)>) -> u32 {
    let mut acknowledged = 0;
    for line in said.lines().map_while(std::result::Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        let [verb @ ("try" | "done"), number, revision] = words[..] else { continue };
        let (Ok(number), Ok(revision)) = (number.parse(), revision.parse()) else { continue };
        let state = known.entry(number).or_default();
        match verb {
            "try" => state.1 = Some(revision),
            _ => {
                *state = (revision, None);
                acknowledged += 1;
            }
        }
    }
    acknowledged
}

fn run_and_kill(path: &Path, life: Duration, known: &mut HashMap<u64, (u64, Option<u64>)>) -> u32 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn({
        let mut known = std::mem::take(known);
        move || (read_said(stdout, &mut known), known)
    });
    std::thread::sleep(life);
    child.kill().unwrap();
    child.wait().unwrap();
    let (acknowledged, said) = reader.join().unwrap();
    *known = said;
    acknowledged
}

#[test]
fn r24_whatever_was_acknowledged_survives_kill_9() {
    if let Ok(path) = std::env::var(CHILD) {
        return child(&path);
    }
    let place = SqliteFile::new();
    let token = make_token(&*place.open(), "wallet").serial;
    let (mut known, mut acknowledged, start) = (HashMap::new(), 0, Instant::now());
    for kill in 0..KILLS {
        let life = 15 + u64::from(start.elapsed().subsec_nanos() % 60);
        acknowledged += run_and_kill(&place.path(), Duration::from_millis(life), &mut known);
        let store = place.open();
        for (number, (sure, tried)) in &mut known {
            let stored = store.object(&token, &uid(*number)).unwrap();
            let revision = stored.as_ref().map_or(0, |row| row.revision);
            assert!(
                revision == *sure || Some(revision) == *tried,
                "kill {kill}: object {number} is at {revision}, not {sure} or {tried:?}"
            );
            assert!(
                stored.is_none_or(|row| row == version(*number, revision)),
                "kill {kill}: object {number} is half changed"
            );
            (*sure, *tried) = (revision, None);
        }
        assert_eq!(store.check().unwrap(), Vec::<String>::new(), "kill {kill}");
    }
    assert!(acknowledged > KILLS, "the child did hardly anything: {acknowledged}");
}
