//! How fast it is at a million objects: `cargo test --release --lib measure -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use super::*;
use crate::store::contract::entry;

const MANY: u64 = 1_000_000;

/// Runs work many times and prints percentiles; the 10th is what it takes on a machine that does nothing else.
fn time(what: &str, times: u64, mut work: impl FnMut(u64)) {
    let mut took: Vec<Duration> = (0..times)
        .map(|round| {
            let start = Instant::now();
            work(round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % MANY);
            start.elapsed()
        })
        .collect();
    took.sort();
    let percentile = |percent: usize| took[took.len() * percent / 100];
    println!("{what}: p10 {:?}, median {:?}, p99 {:?}", percentile(10), percentile(50), percentile(99));
}

#[test]
#[ignore = "a measurement of about a minute"]
fn a_million_objects() {
    let place = SqliteFile::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    let row = |number| ObjectRow { secret: Some(vec![3; 100]), attributes: vec![4; 300], ..object(number) };
    let start = Instant::now();
    for chunk in 0..100 {
        let numbers = chunk * (MANY / 100)..(chunk + 1) * (MANY / 100);
        store.write(&mut |t| numbers.clone().try_for_each(|number| t.insert_object(&token, &row(number)))).unwrap();
    }
    println!("filled in {:?}, {} MiB", start.elapsed(), fs::metadata(place.path()).unwrap().len() >> 20);
    drop(store);
    time("open", 100, |_| drop(place.open()));
    time("open and find", 100, |number| {
        place.open().search(&token, &Search::Any(vec![entry(1, number)]), &mut |_| Ok(())).unwrap();
    });
    let store = place.open();
    time("object", 100_000, |number| assert!(store.object(&token, &uid(number)).unwrap().is_some()));
    time("search by digest", 100_000, |number| {
        store.search(&token, &Search::Any(vec![entry(1, number)]), &mut |_| Ok(())).unwrap();
    });
    time("search for nothing", 100_000, |number| {
        store.search(&token, &Search::Any(vec![entry(3, number)]), &mut |_| Ok(())).unwrap();
    });
    time("token", 10_000, |_| assert!(store.token(&token).unwrap().is_some()));
    time("change count", 10_000, |_| assert!(store.change_count().unwrap() > 0));
    time("count all", 10, |_| assert!(store.object_count(&token).unwrap() > 0));
    time("visit all", 3, |_| store.search(&token, &Search::All, &mut |_| Ok(())).unwrap());
    time("insert, durable", 3000, |number| add(&*store, &token, &row(MANY + number)).unwrap());
    for threads in [1, 2, 4, 16] {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (store, token) = (&store, &token);
                scope.spawn(move || {
                    (0..1000).for_each(|number| {
                        add(&**store, token, &row((threads * 100 + thread) * 10 * MANY + number)).unwrap()
                    });
                });
            }
        });
        println!("{threads} threads insert {:.0} a second", (threads * 1000) as f64 / start.elapsed().as_secs_f64());
    }
}
