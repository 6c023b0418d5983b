//! Many processes on one file.

use std::process::{Child, Command};

use super::*;
use crate::store::contract::entry;

/// Set in a child: which one it is. The first ones write.
const CHILD: &str = "STRONGROOM_TEST_PROCESS";
const FILE: &str = "STRONGROOM_TEST_PROCESS_FILE";
const TEST: &str = "store::sqlite::tests::processes::r71_sixteen_processes_read_and_four_write_and_none_is_told_busy";
const WRITERS: u64 = 4;
const READERS: u64 = 16;
const WRITES: u64 = 100;

fn child(number: u64, path: &str) {
    let store = crate::store::open(&format!("sqlite://{path}"), &OpenOptions::default()).unwrap();
    let token = tokens(&*store).unwrap()[0].serial;
    for step in 0..WRITES {
        if number < WRITERS {
            let own = 1000 + number * WRITES + step;
            add(&*store, &token, &object(own)).unwrap();
            store
                .write(&mut |t| {
                    let row = t.object(&token, &uid(0))?.unwrap();
                    t.update_object(&token, &ObjectRow { revision: row.revision + 1, ..row })
                })
                .unwrap();
            assert!(store.object(&token, &uid(own)).unwrap().is_some());
        } else {
            assert!(!found(&*store, &token, &Search::Any(vec![entry(2, 0)])).is_empty());
            assert!(store.object(&token, &uid(0)).unwrap().is_some());
            store.change_count().unwrap();
        }
    }
}

fn spawn(number: u64, path: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", TEST]).env(CHILD, number.to_string()).env(FILE, path).stdout(std::process::Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn r71_sixteen_processes_read_and_four_write_and_none_is_told_busy() {
    if let (Ok(number), Ok(path)) = (std::env::var(CHILD), std::env::var(FILE)) {
        return child(number.parse().unwrap(), &path);
    }
    let place = SqliteFile::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    add(&*store, &token, &object(0)).unwrap();
    drop(store);
    let children: Vec<Child> = (0..WRITERS + READERS).map(|number| spawn(number, &place.path())).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let store = place.open();
    assert_eq!(store.object_count(&token).unwrap(), 1 + WRITERS * WRITES);
    assert_eq!(store.object(&token, &uid(0)).unwrap().unwrap().revision, 1 + WRITERS * WRITES);
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
}

const TURN: &str = "store::sqlite::tests::processes::r71_who_waits_for_the_write_lock_has_it_next";

/// Takes the turn, tells so, and gives it back when it is told to.
fn turn_holder(path: &str) {
    let place = Place::parse(&format!("//{path}"), &OpenOptions::default()).unwrap();
    let turns = place.turns();
    let turn = turns.wait(std::time::Instant::now() + std::time::Duration::from_secs(10));
    assert!(turn.is_some());
    println!("holding");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn r71_who_waits_for_the_write_lock_has_it_next() {
    use std::io::{BufRead, Read, Write};
    if let Ok(path) = std::env::var(FILE) {
        return turn_holder(&path);
    }
    let place = SqliteFile::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    let mut other = Command::new(std::env::current_exe().unwrap());
    other.args(["--exact", TURN, "--nocapture"]).env(FILE, place.path());
    let mut other = other.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut told = std::io::BufReader::new(other.stdout.take().unwrap());
    assert!(told.by_ref().lines().map_while(std::result::Result::ok).any(|line| line.contains("holding")));

    // The write lock is free, but another process is to have it next.
    let writer = std::thread::spawn(move || add(&*store, &token, &object(0)));
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!writer.is_finished(), "it took the write lock out of turn");
    other.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    writer.join().unwrap().unwrap();
    assert!(other.wait().unwrap().success());
}
