//! What every store must do, written once; each store runs it through [`contract_tests`].

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions)]

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use super::{AuditEnd, AuditRow, IndexEntry, ObjectRow, Search, Serial, Store, TokenRow, Transaction, Uid};
use crate::error::{Error, Kind, Result};

/// A fresh, empty store of one kind, and further handles on it.
pub(super) trait Fixture {
    /// Makes the place.
    fn new() -> Self;
    /// Opens a handle on it, as another process would where the store can be shared.
    fn open(&self) -> Arc<dyn Store>;
}

/// Makes a token row for the next serial number.
pub(super) fn next_token(store: &dyn Store, label: &str) -> TokenRow {
    let serial = store.next_serial().unwrap();
    let slot = u32::from_str_radix(std::str::from_utf8(&serial[8..]).unwrap(), 16).unwrap() & 0x7fff_ffff;
    TokenRow {
        serial,
        slot,
        label: label.into(),
        revision: 1,
        created: 1_700_000_000,
        so_envelope: vec![1; 100],
        user_envelope: None,
        so_failures: 0,
        user_failures: 0,
        last_failure: 0,
    }
}

/// Makes a token.
pub(super) fn make_token(store: &dyn Store, label: &str) -> TokenRow {
    let row = next_token(store, label);
    store.write(&mut |t| t.insert_token(&row)).unwrap();
    row
}

/// Lists the tokens, none of which may be damaged.
pub(super) fn tokens(store: &dyn Store) -> Result<Vec<TokenRow>> {
    store.tokens()?.into_iter().map(|token| token.row).collect()
}

/// Makes a uid from a number.
pub(super) fn uid(number: u64) -> Uid {
    (u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_be_bytes()
}

/// Makes an index entry from numbers.
pub(super) fn entry(field: u8, number: u64) -> IndexEntry {
    IndexEntry { field, digest: uid(number ^ 0xabcd) }
}

/// Makes an object with one index entry of its own and one that all share.
pub(super) fn object(number: u64) -> ObjectRow {
    ObjectRow {
        uid: uid(number),
        revision: 1,
        attributes: number.to_be_bytes().to_vec(),
        secret: Some(vec![2; 60]),
        index: vec![entry(1, number), entry(2, 0)],
    }
}

/// Adds an object.
pub(super) fn add(store: &dyn Store, token: &Serial, row: &ObjectRow) -> Result<()> {
    store.write(&mut |t| t.insert_object(token, row))
}

/// Runs a search and gives the attributes of what it found.
pub(super) fn found(store: &dyn Store, token: &Serial, search: &Search) -> Vec<u64> {
    let mut numbers = Vec::new();
    store
        .search(token, search, &mut |row| {
            numbers.push(u64::from_be_bytes(row.attributes.try_into().unwrap()));
            Ok(())
        })
        .unwrap();
    numbers
}

fn device_error<T>(answer: Result<T>) -> String {
    let error = answer.err().expect("this must fail");
    assert_eq!(error.kind(), Kind::DeviceError, "{error}");
    error.message()
}

pub(super) fn tokens_are_made_read_and_changed<F: Fixture>() {
    let place = F::new();
    let store = place.open();
    assert!(!store.read_only());
    assert!(tokens(&*store).unwrap().is_empty());
    let serial = store.next_serial().unwrap();
    assert!(serial.iter().all(|digit| b"0123456789ABCDEF".contains(digit)));
    assert_eq!(store.token(&serial).unwrap(), None);

    let mut first = make_token(&*store, "wallet");
    let second = make_token(&*store, "Zürich ☃");
    assert_ne!(first.serial, second.serial);
    assert_eq!(tokens(&*store).unwrap(), [first.clone(), second.clone()]);

    first = TokenRow {
        revision: 2,
        label: "renamed".into(),
        user_envelope: Some(vec![]),
        so_failures: u32::MAX,
        user_failures: 3,
        last_failure: 1_700_000_000_123,
        so_envelope: vec![9; 300],
        ..first
    };
    store.write(&mut |t| t.update_token(&first)).unwrap();
    assert_eq!(store.token(&first.serial).unwrap(), Some(first.clone()));
    assert_eq!(tokens(&*store).unwrap(), [first, second]);
}

pub(super) fn r25_a_token_changes_only_from_the_revision_that_was_read<F: Fixture>() {
    let place = F::new();
    let store = place.open();
    let row = make_token(&*store, "wallet");
    for revision in [0, 1, 3, u64::MAX] {
        device_error(store.write(&mut |t| t.update_token(&TokenRow { revision, ..row.clone() })));
    }
    let gone = TokenRow { serial: *b"0000000000000000", revision: 2, ..row.clone() };
    device_error(store.write(&mut |t| t.update_token(&gone)));
    assert_eq!(tokens(&*store).unwrap(), [row]);
}

pub(super) fn slots_are_unique<F: Fixture>() {
    let place = F::new();
    let store = place.open();
    let first = make_token(&*store, "one");
    let second = TokenRow { slot: first.slot, ..next_token(&*store, "two") };
    assert!(device_error(store.write(&mut |t| t.insert_token(&second))).contains("slot"));
    assert_eq!(tokens(&*store).unwrap(), [first]);
}

pub(super) fn objects_are_made_read_changed_and_removed<F: Fixture>() {
    let place = F::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    let mut row = object(7);
    assert_eq!(store.object(&token, &row.uid).unwrap(), None);
    add(&*store, &token, &row).unwrap();
    assert_eq!(store.object(&token, &row.uid).unwrap(), Some(row.clone()));
    assert_eq!(store.object_count(&token).unwrap(), 1);

    row = ObjectRow { revision: 2, attributes: vec![0; 8], secret: None, index: vec![entry(1, 8), entry(2, 0)], ..row };
    store.write(&mut |t| t.update_object(&token, &row)).unwrap();
    assert_eq!(store.object(&token, &row.uid).unwrap(), Some(row.clone()));
    assert!(found(&*store, &token, &Search::Any(vec![entry(1, 7)])).is_empty());
    assert_eq!(found(&*store, &token, &Search::Any(vec![entry(1, 8)])), [0]);

    store.write(&mut |t| t.delete_object(&token, &row.uid)).unwrap();
    assert_eq!(store.object(&token, &row.uid).unwrap(), None);
    assert_eq!(store.object_count(&token).unwrap(), 0);
    assert!(found(&*store, &token, &Search::Any(vec![entry(1, 8), entry(2, 0)])).is_empty());
    for _ in 0..2 {
        let gone = store.write(&mut |t| t.delete_object(&token, &row.uid));
        assert_eq!(gone.unwrap_err().kind(), Kind::ObjectHandleInvalid);
        let gone = store.write(&mut |t| t.update_object(&token, &ObjectRow { revision: 3, ..row.clone() }));
        assert_eq!(gone.unwrap_err().kind(), Kind::ObjectHandleInvalid);
    }
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
}

pub(super) fn r25_an_object_changes_only_from_the_revision_that_was_read<F: Fixture>() {
    let place = F::new();
    let (one, two) = (place.open(), place.open());
    let token = make_token(&*one, "wallet").serial;
    let row = object(1);
    add(&*one, &token, &row).unwrap();
    assert!(device_error(add(&*two, &token, &row)).contains("already"));
    let changed = ObjectRow { revision: 2, attributes: vec![1; 8], ..row.clone() };
    two.write(&mut |t| t.update_object(&token, &changed)).unwrap();
    device_error(one.write(&mut |t| t.update_object(&token, &ObjectRow { revision: 2, ..row.clone() })));
    for revision in [0, 1, 4, u64::MAX] {
        device_error(one.write(&mut |t| t.update_object(&token, &ObjectRow { revision, ..row.clone() })));
    }
    assert_eq!(one.object(&token, &row.uid).unwrap(), Some(changed));
}

pub(super) fn tokens_do_not_see_each_others_objects<F: Fixture>() {
    let place = F::new();
    let store = place.open();
    let (one, two) = (make_token(&*store, "one").serial, make_token(&*store, "two").serial);
    for number in 0..4 {
        add(&*store, if number % 2 == 0 { &one } else { &two }, &object(number)).unwrap();
    }
    assert_eq!(store.object(&two, &uid(0)).unwrap(), None);
    assert_eq!(store.write(&mut |t| t.delete_object(&two, &uid(0))).unwrap_err().kind(), Kind::ObjectHandleInvalid);
    assert_eq!(found(&*store, &one, &Search::All), [0, 2]);
    assert_eq!(found(&*store, &two, &Search::Any(vec![entry(2, 0)])), [1, 3]);
    assert!(found(&*store, &two, &Search::Any(vec![entry(1, 0)])).is_empty());
    store.write(&mut |t| t.delete_objects(&one)).unwrap();
    assert_eq!(store.object_count(&one).unwrap(), 0);
    assert!(found(&*store, &one, &Search::Any(vec![entry(1, 0), entry(2, 0)])).is_empty());
    assert_eq!(found(&*store, &two, &Search::All), [1, 3]);
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
    let unknown = *b"FFFFFFFFFFFFFFFF";
    assert_eq!(store.object_count(&unknown).unwrap(), 0);
    assert!(found(&*store, &unknown, &Search::All).is_empty());
    device_error(add(&*store, &unknown, &object(9)));
}

pub(super) fn a_search_goes_through_any_number_of_objects_in_order<F: Fixture>() {
    const MANY: u64 = 12_000;
    let place = F::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    store.write(&mut |t| (0..MANY).try_for_each(|number| t.insert_object(&token, &object(number)))).unwrap();
    assert_eq!(store.object_count(&token).unwrap(), MANY);
    let all: Vec<u64> = (0..MANY).collect();
    assert_eq!(found(&*store, &token, &Search::All), all);
    assert_eq!(found(&*store, &token, &Search::Any(vec![entry(2, 0)])), all);
    // Each object once, though both entries find it.
    assert_eq!(found(&*store, &token, &Search::Any(vec![entry(1, 77), entry(2, 0), entry(1, 77)])), all);
    assert_eq!(found(&*store, &token, &Search::Any(vec![entry(1, 9000), entry(1, 3), entry(1, 77)])), [3, 77, 9000]);
    assert!(found(&*store, &token, &Search::Any(vec![])).is_empty());

    let mut seen = 0;
    let stopped = store.search(&token, &Search::All, &mut |_| {
        seen += 1;
        if seen == 300 { Err(Error::from(Kind::FunctionCanceled)) } else { Ok(()) }
    });
    assert_eq!((stopped.unwrap_err().kind(), seen), (Kind::FunctionCanceled, 300));
}

pub(super) fn r25_a_transaction_finds_what_it_has_changed<F: Fixture>() {
    let place = F::new();
    let store = place.open();
    let (token, other) = (make_token(&*store, "wallet"), make_token(&*store, "other"));
    for number in 0..600 {
        add(&*store, &token.serial, &object(number)).unwrap();
    }
    add(&*store, &other.serial, &object(1000)).unwrap();
    let numbers = |rows: Vec<ObjectRow>| -> Vec<u64> {
        rows.into_iter().map(|row| u64::from_be_bytes(row.attributes.try_into().unwrap())).collect()
    };
    store
        .write(&mut |t| {
            let shared = Search::Any(vec![entry(2, 0)]);
            assert_eq!(numbers(t.search(&token.serial, &shared)?), (0..600).collect::<Vec<_>>());
            t.insert_object(&token.serial, &object(600))?;
            t.delete_object(&token.serial, &uid(0))?;
            t.update_object(&token.serial, &ObjectRow { revision: 2, index: vec![entry(2, 0)], ..object(7) })?;
            assert_eq!(numbers(t.search(&token.serial, &Search::All)?), (1..601).collect::<Vec<_>>());
            assert_eq!(numbers(t.search(&token.serial, &Search::Any(vec![entry(1, 600), entry(1, 3)]))?), [3, 600]);
            assert!(t.search(&token.serial, &Search::Any(vec![entry(1, 7)]))?.is_empty());
            Ok(())
        })
        .unwrap();
    assert_eq!(found(&*store, &other.serial, &Search::All), [1000]);
}

pub(super) fn a_search_holds_no_lock_while_it_visits<F: Fixture>() {
    let place = F::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    store.write(&mut |t| (0..1000).try_for_each(|number| t.insert_object(&token, &object(number)))).unwrap();
    store
        .search(&token, &Search::All, &mut |row| {
            assert!(store.object(&token, &row.uid)?.is_some());
            store.write(&mut |t| t.delete_object(&token, &row.uid))
        })
        .unwrap();
    assert_eq!(store.object_count(&token).unwrap(), 0);
}

pub(super) fn large_objects_are_kept_and_found<F: Fixture>() {
    let place = F::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    for number in 0..5 {
        let row = ObjectRow { attributes: vec![number as u8; 700_000], secret: Some(vec![]), ..object(number) };
        add(&*store, &token, &row).unwrap();
        assert_eq!(store.object(&token, &row.uid).unwrap(), Some(row));
    }
    let mut sizes = Vec::new();
    store
        .search(&token, &Search::All, &mut |row| {
            sizes.push((row.attributes[0], row.attributes.len()));
            Ok(())
        })
        .unwrap();
    assert_eq!(sizes, [0u8, 1, 2, 3, 4].map(|number| (number, 700_000)));
}

pub(super) fn r54_handles_see_each_others_changes_at_once<F: Fixture>() {
    let place = F::new();
    let (one, two) = (place.open(), place.open());
    let mut counts = HashSet::from([(one.change_count().unwrap(), two.change_count().unwrap())]);
    let token = make_token(&*one, "wallet");
    assert_eq!(tokens(&*two).unwrap(), std::slice::from_ref(&token));
    for number in 0..50 {
        let (writer, reader) = if number % 2 == 0 { (&one, &two) } else { (&two, &one) };
        add(&**writer, &token.serial, &object(number)).unwrap();
        assert!(reader.object(&token.serial, &uid(number)).unwrap().is_some());
        let (a, b) = (one.change_count().unwrap(), two.change_count().unwrap());
        assert!(counts.iter().all(|(x, y)| *x != a && *y != b), "both handles' counts move");
        counts.insert((a, b));
        assert_eq!((one.change_count().unwrap(), two.change_count().unwrap()), (a, b), "without a change they stay");
    }
    let before = (one.change_count().unwrap(), two.change_count().unwrap());
    one.write(&mut |t| t.object(&token.serial, &uid(0)).map(|_| ())).unwrap();
    one.write(&mut |t| t.insert_object(&token.serial, &object(0))).unwrap_err();
    assert_eq!((one.change_count().unwrap(), two.change_count().unwrap()), before, "nothing was changed");
}

pub(super) fn r24_a_failed_or_panicking_write_changes_nothing<F: Fixture>() {
    let place = F::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    add(&*store, &token, &object(1)).unwrap();
    let serial = store.next_serial().unwrap();
    let mut change = |t: &mut dyn Transaction| -> Result<()> {
        t.insert_object(&token, &object(2))?;
        assert!(t.object(&token, &uid(2))?.is_some(), "a transaction sees its own changes");
        t.delete_object(&token, &uid(1))?;
        let row = t.token(&token)?.unwrap();
        t.update_token(&TokenRow { revision: 2, label: "changed".into(), ..row })?;
        let new = TokenRow { serial, slot: 1, ..next_token(&*place.open(), "new") };
        t.insert_token(&new)
    };
    let before = store.change_count().unwrap();
    let failed = store.write(&mut |t| change(t).and_then(|()| Err(Kind::PinIncorrect.into())));
    assert_eq!(failed.unwrap_err().kind(), Kind::PinIncorrect);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        store.write(&mut |t| {
            change(t).unwrap();
            std::panic::resume_unwind(Box::new("on purpose"))
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(found(&*store, &token, &Search::All), [1]);
    assert_eq!(tokens(&*store).unwrap().len(), 1);
    assert_eq!(store.token(&token).unwrap().unwrap().label, "wallet");
    assert_eq!(store.next_serial().unwrap(), serial);
    assert_eq!(store.change_count().unwrap(), before);
    store.write(&mut change).unwrap();
    assert_eq!(found(&*store, &token, &Search::All), [2]);
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
}

pub(super) fn r24_an_error_that_the_work_swallows_leaves_nothing_half_done<F: Fixture>() {
    let place = F::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    add(&*store, &token, &object(1)).unwrap();
    store
        .write(&mut |t| {
            assert!(t.insert_object(&token, &object(1)).is_err());
            assert!(t.update_object(&token, &ObjectRow { revision: 9, ..object(1) }).is_err());
            assert!(t.delete_object(&token, &uid(5)).is_err());
            t.insert_object(&token, &object(2))
        })
        .unwrap();
    assert_eq!(found(&*store, &token, &Search::Any(vec![entry(2, 0)])), [1, 2]);
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
}

pub(super) fn a_write_inside_a_write_is_an_error<F: Fixture>() {
    let place = F::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    store
        .write(&mut |t| {
            assert_eq!(add(&*store, &token, &object(1)).unwrap_err().kind(), Kind::GeneralError);
            assert!(store.token(&token)?.is_some(), "but a read is possible");
            t.insert_object(&token, &object(2))
        })
        .unwrap();
    assert_eq!(found(&*store, &token, &Search::All), [2]);
}

pub(super) fn the_next_serial_is_the_same_for_all_until_it_is_taken<F: Fixture>() {
    let place = F::new();
    let (one, two) = (place.open(), place.open());
    let serial = one.next_serial().unwrap();
    assert_eq!(two.next_serial().unwrap(), serial);
    assert_eq!(place.open().next_serial().unwrap(), serial);
    let other = TokenRow { serial: *b"0123456789ABCDEF", ..next_token(&*one, "other") };
    device_error(one.write(&mut |t| t.insert_token(&other)));
    let token = make_token(&*one, "wallet");
    assert_eq!(token.serial, serial);
    assert_ne!(two.next_serial().unwrap(), serial);
    assert_eq!(one.next_serial().unwrap(), two.next_serial().unwrap());
    device_error(two.write(&mut |t| t.insert_token(&token)));
}

pub(super) fn r25_one_of_those_who_take_a_serial_at_once_gets_it<F: Fixture>() {
    const THREADS: usize = 8;
    let place = F::new();
    let handles: Vec<_> = (0..THREADS).map(|_| place.open()).collect();
    let refused = AtomicU32::new(0);
    thread::scope(|scope| {
        for store in &handles {
            scope.spawn(|| {
                for _ in 0..10 {
                    let row = next_token(&**store, "race");
                    if let Err(error) = store.write(&mut |t| t.insert_token(&row)) {
                        assert_eq!(error.kind(), Kind::DeviceError);
                        assert!(error.message().contains("not the next one"), "{error}");
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let tokens = tokens(&*handles[0]).unwrap();
    let serials: HashSet<_> = tokens.iter().map(|token| token.serial).collect();
    assert_eq!(serials.len(), tokens.len());
    assert_eq!(tokens.len() + refused.load(Ordering::Relaxed) as usize, THREADS * 10);
}

pub(super) fn r25_no_increment_is_lost<F: Fixture>() {
    const THREADS: u64 = 6;
    const ROUNDS: u64 = 50;
    let place = F::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    add(&*store, &token, &ObjectRow { attributes: 0u64.to_be_bytes().to_vec(), ..object(1) }).unwrap();
    let handles: Vec<_> =
        (0..THREADS).map(|number| if number < 3 { Arc::clone(&store) } else { place.open() }).collect();
    thread::scope(|scope| {
        for store in &handles {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    store
                        .write(&mut |t| {
                            let row = t.object(&token, &uid(1))?.unwrap();
                            let count = u64::from_be_bytes(row.attributes.clone().try_into().unwrap()) + 1;
                            let revision = row.revision + 1;
                            t.update_object(
                                &token,
                                &ObjectRow { revision, attributes: count.to_be_bytes().to_vec(), ..row },
                            )
                        })
                        .unwrap();
                }
            });
        }
    });
    let row = store.object(&token, &uid(1)).unwrap().unwrap();
    assert_eq!(row.revision, 1 + THREADS * ROUNDS);
    assert_eq!(row.attributes, (THREADS * ROUNDS).to_be_bytes());
}

pub(super) fn r71_sixteen_threads_read_and_write_and_none_is_told_busy<F: Fixture>() {
    let place = F::new();
    let handles: Vec<_> = (0..16).map(|_| place.open()).collect();
    let token = make_token(&*handles[0], "wallet").serial;
    let writing = AtomicBool::new(true);
    let work = |number: u64, store: &dyn Store| match number {
        0..4 => {
            for step in 0..50 {
                add(store, &token, &object(number * 1000 + step)).unwrap();
                assert!(
                    store.object(&token, &uid(number * 1000 + step)).unwrap().is_some(),
                    "own writes are seen at once"
                );
            }
        }
        _ => {
            let mut before = 0;
            while writing.load(Ordering::Relaxed) {
                let seen = found(store, &token, &Search::Any(vec![entry(2, 0)]));
                assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len(), "each object once");
                assert!(seen.len() >= before, "what was seen stays");
                before = seen.len();
                tokens(store).unwrap();
                store.change_count().unwrap();
            }
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..).zip(&handles).map(|(number, store)| scope.spawn(move || work(number, &**store))).collect();
        let mut threads = threads.into_iter();
        let writers: Vec<_> = threads.by_ref().take(4).map(thread::ScopedJoinHandle::join).collect();
        writing.store(false, Ordering::Relaxed);
        assert!(writers.iter().all(std::result::Result::is_ok));
        assert!(threads.all(|reader| reader.join().is_ok()));
    });
    assert_eq!(handles[5].object_count(&token).unwrap(), 200);
    assert_eq!(handles[6].check().unwrap(), Vec::<String>::new());
}

pub(super) fn threads_that_share_commits_fail_alone<F: Fixture>() {
    let place = F::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    thread::scope(|scope| {
        for number in 0..8u64 {
            let (store, token) = (&store, &token);
            scope.spawn(move || {
                for step in 0..40 {
                    let row = object(number * 1000 + step);
                    let answer = catch_unwind(AssertUnwindSafe(|| {
                        store.write(&mut |t| {
                            t.insert_object(token, &row)?;
                            match (number, step % 3) {
                                (6, 0) => Err(Kind::PinIncorrect.into()),
                                (7, 0) => std::panic::resume_unwind(Box::new("on purpose")),
                                _ => Ok(()),
                            }
                        })
                    }));
                    let fails = number >= 6 && step % 3 == 0;
                    assert_eq!(matches!(answer, Ok(Ok(()))), !fails);
                    assert_eq!(store.object(token, &row.uid).unwrap().is_some(), !fails);
                }
            });
        }
    });
    assert_eq!(store.object_count(&token).unwrap(), 6 * 40 + 2 * 26);
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
}

pub(super) fn numbers_that_do_not_fit_are_refused<F: Fixture>() {
    let place = F::new();
    let store = place.open();
    let token = make_token(&*store, "wallet");
    assert!(add(&*store, &token.serial, &ObjectRow { revision: u64::MAX, ..object(1) }).is_err());
    assert!(
        store.write(&mut |t| t.update_token(&TokenRow { revision: 2, created: 1 << 63, ..token.clone() })).is_err()
    );
    assert_eq!(store.object_count(&token.serial).unwrap(), 0);
    assert_eq!(tokens(&*store).unwrap(), [token]);
}

/// The index is put together anew from the objects, and nothing else is touched.
pub(super) fn r73_a_repair_keeps_everything<F: Fixture>() {
    let place = F::new();
    let store = place.open();
    assert_eq!(store.repair().unwrap(), 0);
    let (one, two) = (make_token(&*store, "one").serial, make_token(&*store, "two").serial);
    let twice = ObjectRow { index: vec![entry(1, 9), entry(1, 9), entry(2, 0)], ..object(9) };
    (0..5).for_each(|number| add(&*store, if number < 3 { &one } else { &two }, &object(number)).unwrap());
    add(&*store, &two, &twice).unwrap();
    let before = tokens(&*store).unwrap();
    for _ in 0..2 {
        assert_eq!(store.repair().unwrap(), 12);
        assert_eq!(store.check().unwrap(), Vec::<String>::new());
        assert_eq!(tokens(&*store).unwrap(), before);
        assert_eq!(found(&*store, &one, &Search::Any(vec![entry(2, 0)])), [0, 1, 2]);
        assert_eq!(found(&*store, &two, &Search::Any(vec![entry(1, 9)])), [9]);
        assert_eq!(store.object(&two, &uid(9)).unwrap(), Some(twice.clone()));
    }
    store.write(&mut |t| t.delete_object(&two, &uid(9))).unwrap();
    store.write(&mut |t| t.delete_objects(&one)).unwrap();
    make_token(&*store, "three");
    assert_eq!(store.repair().unwrap(), 4);
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
}

/// Makes a record from its number.
fn record(sequence: u64) -> AuditRow {
    AuditRow { sequence, record: sequence.to_be_bytes().to_vec(), hash: vec![3; 32], tag: Vec::new() }
}

/// Lists the numbers of a trail after one of them.
fn trail(store: &dyn Store, token: &Serial, after: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    let visit = &mut |row: AuditRow| {
        assert_eq!(row, record(row.sequence));
        numbers.push(row.sequence);
        Ok(())
    };
    store.audit(token, after, visit).unwrap();
    numbers
}

pub(super) fn r75_records_stand_in_order_with_the_change_that_they_tell_or_not_at_all<F: Fixture>() {
    const MANY: u64 = 3000;
    let place = F::new();
    let store = place.open();
    let (token, other) = (make_token(&*store, "wallet").serial, make_token(&*store, "other").serial);
    assert_eq!((store.audit_last(&token).unwrap(), trail(&*store, &token, 0)), (None, vec![]));
    store.write(&mut |t| (1..=MANY).try_for_each(|number| t.append_audit(&token, &record(number), None))).unwrap();
    store.write(&mut |t| t.append_audit(&other, &record(1), None)).unwrap();
    assert_eq!(trail(&*store, &token, 0), (1..=MANY).collect::<Vec<_>>());
    assert_eq!(trail(&*store, &token, MANY - 2), [MANY - 1, MANY]);
    assert_eq!((trail(&*store, &token, MANY), trail(&*store, &other, 0)), (vec![], vec![1]));

    for wrong in [0, 1, MANY, MANY + 2] {
        assert!(store.write(&mut |t| t.append_audit(&token, &record(wrong), None)).is_err());
    }
    let failed = store.write(&mut |t| {
        t.insert_object(&token, &object(1))?;
        t.append_audit(&token, &record(MANY + 1), None)?;
        assert_eq!(t.audit_last(&token)?, Some(record(MANY + 1)));
        Err(Error::from(Kind::FunctionFailed))
    });
    assert!(failed.is_err());
    assert_eq!((store.object(&token, &uid(1)).unwrap(), store.audit_last(&token).unwrap()), (None, Some(record(MANY))));
    assert!(store.write(&mut |t| t.append_audit(b"0000000000000000", &record(1), None)).is_err(), "no such token");
    assert_eq!(store.check().unwrap(), Vec::<String>::new());

    let end = |sequence, tag: &[u8]| Some(AuditEnd { sequence, tag: tag.to_vec() });
    assert_eq!(store.audit_end(&token).unwrap(), None);
    store.write(&mut |t| t.append_audit(&token, &record(MANY + 1), Some(b"one"))).unwrap();
    assert_eq!(store.audit_end(&token).unwrap(), end(MANY + 1, b"one"));
    store.write(&mut |t| t.append_audit(&token, &record(MANY + 2), None)).unwrap();
    let failed = store.write(&mut |t| {
        t.append_audit(&token, &record(MANY + 3), Some(b"undone"))?;
        Err(Error::from(Kind::FunctionFailed))
    });
    assert!(failed.is_err());
    assert_eq!(store.audit_end(&token).unwrap(), end(MANY + 1, b"one"), "what nobody signed is no end");
    store.write(&mut |t| t.append_audit(&token, &record(MANY + 3), Some(b"two"))).unwrap();
    assert_eq!((store.audit_end(&token).unwrap(), store.audit_end(&other).unwrap()), (end(MANY + 3, b"two"), None));
    let signed = |sequence| AuditRow { tag: vec![7; 32], ..record(sequence) };
    store
        .write(&mut |t| {
            assert_eq!((t.audit_end(&token)?, t.audit_end(&other)?), (end(MANY + 3, b"two"), None));
            assert_eq!((t.audit_at(&token, MANY)?, t.audit_at(&other, 2)?), (Some(record(MANY)), None));
            assert_eq!((t.audit_at(&token, 0)?, t.audit_at(&token, u64::MAX)?), (None, None));
            assert!(!t.audit_is_signed(&token)?);
            t.append_audit(&token, &signed(MANY + 4), None)?;
            assert!(t.audit_is_signed(&token)? && !t.audit_is_signed(&other)?);
            Ok(())
        })
        .unwrap();
}

pub(super) fn r75_records_of_all_handles_and_threads_have_no_gap<F: Fixture>() {
    const THREADS: u64 = 6;
    const EACH: u64 = 40;
    let place = F::new();
    let token = make_token(&*place.open(), "wallet").serial;
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let store = place.open();
            scope.spawn(move || {
                for _ in 0..EACH {
                    let append = &mut |t: &mut dyn Transaction| {
                        let next = t.audit_last(&token)?.map_or(1, |last| last.sequence + 1);
                        t.append_audit(&token, &record(next), None)
                    };
                    store.write(append).unwrap();
                }
            });
        }
    });
    assert_eq!(trail(&*place.open(), &token, 0), (1..=THREADS * EACH).collect::<Vec<_>>());
}

/// Whatever comes and goes in whatever order, each look-up gives what is there, and the check finds the index in order.
pub(super) fn look_ups_follow_any_order_of_changes<F: Fixture>() {
    let place = F::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    let mut there: std::collections::BTreeMap<u64, ObjectRow> = Default::default();
    for step in 0..600u64 {
        let number = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59;
        match there.remove(&number) {
            None => {
                let row = object(number);
                add(&*store, &token, &row).unwrap();
                there.insert(number, row);
            }
            Some(row) if step % 3 == 0 => {
                let index = vec![entry(1, number + step), entry(2, 0), entry(4, step % 2)];
                let row = ObjectRow { revision: row.revision + 1, index, ..row };
                store.write(&mut |t| t.update_object(&token, &row)).unwrap();
                there.insert(number, row);
            }
            Some(row) => store.write(&mut |t| t.delete_object(&token, &row.uid)).unwrap(),
        }
        for wanted in [entry(1, number), entry(1, number + step), entry(2, 0), entry(3, 0), entry(4, 0), entry(4, 1)] {
            let mut seen = found(&*store, &token, &Search::Any(vec![wanted]));
            seen.sort_unstable();
            let has = |row: &ObjectRow| row.index.contains(&wanted);
            let expected: Vec<u64> = there.iter().filter(|(_, row)| has(row)).map(|(number, _)| *number).collect();
            assert_eq!(seen, expected, "step {step}");
        }
    }
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
}

pub(super) fn a_snapshot_is_one_state_while_others_write<F: Fixture>() {
    let place = F::new();
    let (store, other) = (place.open(), place.open());
    let token = make_token(&*store, "wallet");
    (0..600).for_each(|number| add(&*store, &token.serial, &object(number)).unwrap());
    let mut snapshot = store.snapshot(&token.serial).unwrap();
    // Before its first object is read, and in the midst of the reading, others change what it holds.
    other.write(&mut |t| t.update_token(&TokenRow { revision: 2, label: "other".into(), ..token.clone() })).unwrap();
    other.write(&mut |t| t.delete_object(&token.serial, &uid(599))).unwrap();
    let mut seen = Vec::new();
    snapshot
        .search(&Search::All, &mut |row| {
            let number = u64::from_be_bytes(row.attributes.clone().try_into().unwrap());
            assert_eq!(row, object(number));
            if number == 100 {
                add(&*other, &token.serial, &object(1000))?;
                other.write(&mut |t| t.delete_object(&token.serial, &uid(500)))?;
            }
            seen.push(number);
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, (0..600).collect::<Vec<_>>());
    assert_eq!((snapshot.token().unwrap(), snapshot.object_count().unwrap()), (Some(token.clone()), 600));
    let mut some = 0;
    snapshot
        .search(&Search::Any(vec![entry(1, 500), entry(1, 1000), entry(1, 5)]), &mut |_| {
            some += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(some, 2);
    let stopped = snapshot.search(&Search::All, &mut |_| Err(Error::device("enough")));
    assert_eq!(device_error(stopped), "enough");
    drop(snapshot);
    assert_eq!(store.object_count(&token.serial).unwrap(), 599);
    assert!(store.snapshot(b"0000000000000000").unwrap().token().unwrap().is_none());
}

pub(super) fn a_token_is_restored_under_its_own_serial_number<F: Fixture>() {
    let place = F::new();
    let store = place.open();
    let next = store.next_serial().unwrap();
    let row = TokenRow { serial: *b"00000000DEADBEEF", revision: 7, ..next_token(&*store, "restored") };
    store.write(&mut |t| t.restore_token(&row)).unwrap();
    assert_eq!(store.token(&row.serial).unwrap(), Some(row.clone()));
    assert_eq!(store.next_serial().unwrap(), next, "the next one is still free");
    add(&*store, &row.serial, &object(1)).unwrap();
    assert_eq!(found(&*store, &row.serial, &Search::Any(vec![entry(2, 0)])), [1]);
    // Twice, or in the slot of another, is an error.
    device_error(store.write(&mut |t| t.restore_token(&row)));
    device_error(store.write(&mut |t| t.restore_token(&TokenRow { serial: *b"00000000DEADBEEE", ..row.clone() })));
    // Whoever brings the serial number that was to be the next one takes it away.
    store.write(&mut |t| t.restore_token(&TokenRow { serial: next, slot: 77, ..row.clone() })).unwrap();
    assert_ne!(store.next_serial().unwrap(), next);
    make_token(&*store, "new");
    assert_eq!(tokens(&*store).unwrap().len(), 3);
}

pub(super) fn a_transaction_goes_through_objects_a_few_at_a_time<F: Fixture>() {
    let place = F::new();
    let store = place.open();
    let token = make_token(&*store, "wallet");
    store
        .write(&mut |t| {
            (0..700).try_for_each(|number| t.insert_object(&token.serial, &object(number)))?;
            t.delete_object(&token.serial, &uid(3))?;
            let mut seen = 0;
            t.visit(&token.serial, &Search::Any(vec![entry(2, 0)]), &mut |_| {
                seen += 1;
                Ok(())
            })?;
            assert_eq!(seen, 699, "it sees its own changes");
            let stopped = t.visit(&token.serial, &Search::All, &mut |_| Err(Error::device("enough")));
            assert_eq!(device_error(stopped), "enough");
            Ok(())
        })
        .unwrap();
    assert_eq!(store.object_count(&token.serial).unwrap(), 699);
}

/// Runs the whole contract for one kind of store.
macro_rules! contract_tests {
    ($fixture:ty) => {
        $crate::store::contract::contract_tests! { $fixture:
            tokens_are_made_read_and_changed
            r25_a_token_changes_only_from_the_revision_that_was_read
            slots_are_unique
            objects_are_made_read_changed_and_removed
            r25_an_object_changes_only_from_the_revision_that_was_read
            tokens_do_not_see_each_others_objects
            a_search_goes_through_any_number_of_objects_in_order
            r25_a_transaction_finds_what_it_has_changed
            a_search_holds_no_lock_while_it_visits
            large_objects_are_kept_and_found
            r54_handles_see_each_others_changes_at_once
            r24_a_failed_or_panicking_write_changes_nothing
            r24_an_error_that_the_work_swallows_leaves_nothing_half_done
            a_write_inside_a_write_is_an_error
            the_next_serial_is_the_same_for_all_until_it_is_taken
            r25_one_of_those_who_take_a_serial_at_once_gets_it
            r25_no_increment_is_lost
            r71_sixteen_threads_read_and_write_and_none_is_told_busy
            threads_that_share_commits_fail_alone
            numbers_that_do_not_fit_are_refused
            r73_a_repair_keeps_everything
            look_ups_follow_any_order_of_changes
            a_snapshot_is_one_state_while_others_write
            a_token_is_restored_under_its_own_serial_number
            a_transaction_goes_through_objects_a_few_at_a_time
            r75_records_stand_in_order_with_the_change_that_they_tell_or_not_at_all
            r75_records_of_all_handles_and_threads_have_no_gap
        }
    };
    ($fixture:ty: $($test:ident)*) => {
        $(#[test] fn $test() { $crate::store::contract::$test::<$fixture>(); })*
    };
}
pub(super) use contract_tests;
