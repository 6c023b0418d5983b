//! Versions: older ones are brought up after a backup, newer ones are refused.

use super::schema::Migration;
use super::*;
use crate::store::contract::entry;

/// What a next version might do.
const NEXT: &str = "ALTER TABLE token ADD COLUMN colour TEXT";

fn migrations(next: &'static str) -> Vec<Migration> {
    schema::MIGRATIONS.iter().copied().chain([Migration { sql: next, fill: |_| Ok(()) }]).collect()
}

fn open_with(place: &SqliteFile, migrations: &[Migration]) -> Result<SqliteStore> {
    let rest = format!("//{}", place.path().display());
    SqliteStore::open_file(Place::parse(&rest, &OpenOptions::default())?, migrations)
}

#[test]
fn r26_a_newer_store_is_refused_by_name_of_both_versions_and_left_alone() {
    let place = SqliteFile::new();
    make_token(&*place.open(), "wallet");
    for version in [i64::from(i32::MAX), 7, -1, 0] {
        place.run(&format!("PRAGMA user_version = {version}"));
        let before = fs::read(place.path()).unwrap();
        for read_only in [false, true] {
            let error = error(place.try_open(&OpenOptions { read_only, ..OpenOptions::default() }));
            assert_eq!(error.kind(), Kind::DeviceError);
            let last = format!("up to {}", schema::MIGRATIONS.len());
            assert!(
                error.message().contains(&format!("version {version}")) && error.message().contains(&last),
                "{error}"
            );
        }
        assert_eq!(fs::read(place.path()).unwrap(), before);
    }
}

#[test]
fn r26_a_store_that_a_newer_version_takes_over_while_open_is_not_written() {
    let place = SqliteFile::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    drop(open_with(&place, &migrations(NEXT)).unwrap());
    assert!(error(add(&*store, &token, &object(1))).message().contains("version 4"));
    assert!(error(store.change_count()).message().contains("version 4"));
}

#[test]
fn r26_a_migration_backs_up_first_and_keeps_everything() {
    let place = SqliteFile::new();
    let token = make_token(&*place.open(), "wallet");
    add(&*place.open(), &token.serial, &object(1)).unwrap();
    let store = open_with(&place, &migrations(NEXT)).unwrap();
    assert_eq!(tokens(&store).unwrap(), std::slice::from_ref(&token));
    assert_eq!(store.object(&token.serial, &uid(1)).unwrap(), Some(object(1)));
    assert_eq!(place.raw().query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).unwrap(), 4);

    let backup = place.directory.join("strongroom.db.v3.backup");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&backup).unwrap().permissions()) & 0o777, 0o600);
    let restored = crate::store::open(&url(&backup), &OpenOptions::default()).unwrap();
    assert_eq!(tokens(&*restored).unwrap(), std::slice::from_ref(&token));
    assert_eq!(restored.object(&token.serial, &uid(1)).unwrap(), Some(object(1)));
    assert_eq!(restored.check().unwrap(), Vec::<String>::new());
}

/// Makes a store of version 1 with a token and objects, as the first version wrote them.
fn store_of_version_1() -> (SqliteFile, TokenRow) {
    let (place, now) = (SqliteFile::new(), SqliteFile::new());
    drop(open_with(&place, &schema::MIGRATIONS[..1]).unwrap());
    let token = make_token(&*now.open(), "wallet");
    (0..300).for_each(|number| add(&*now.open(), &token.serial, &object(number)).unwrap());
    let raw = place.raw();
    raw.execute("ATTACH ?1 AS now", [now.path().to_str().unwrap()]).unwrap();
    raw.execute_batch(
        "INSERT INTO token SELECT * FROM now.token; \
         INSERT INTO object SELECT id, token, uid, revision, attributes, secret, entries FROM now.object; \
         INSERT INTO object_index SELECT token, field, digest, object FROM now.object_index WHERE object <> 0",
    )
    .unwrap();
    (place, token)
}

#[test]
fn r26_a_store_of_version_1_is_brought_up_with_its_index_chained() {
    let (place, token) = store_of_version_1();
    let store = place.open();
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
    assert_eq!(place.raw().query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).unwrap(), 3);
    assert_eq!(tokens(&*store).unwrap(), std::slice::from_ref(&token));
    assert_eq!(store.object(&token.serial, &uid(7)).unwrap(), Some(object(7)));
    assert_eq!(found(&*store, &token.serial, &Search::Any(vec![entry(1, 7)])), [7]);
    assert_eq!(found(&*store, &token.serial, &Search::Any(vec![entry(2, 0)])), (0..300).collect::<Vec<_>>());
    add(&*store, &token.serial, &object(300)).unwrap();
    store.write(&mut |t| t.delete_object(&token.serial, &uid(0))).unwrap();
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
    let backup = Connection::open(place.directory.join("strongroom.db.v1.backup")).unwrap();
    assert_eq!(backup.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    assert_eq!(backup.query_row("SELECT count(*) FROM object", [], |row| row.get::<_, i64>(0)).unwrap(), 300);
}

#[test]
fn r26_a_store_of_version_1_with_an_object_of_the_wrong_shape_is_told_and_left_alone() {
    let (place, _) = store_of_version_1();
    place.run("UPDATE object SET entries = x'00' WHERE id = 5");
    let error = error(place.try_open(&OpenOptions::default()));
    assert!(error.message().contains("object number 5"), "{error}");
    assert_eq!(place.raw().query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
}

#[test]
fn r26_a_migration_that_fails_leaves_the_old_version() {
    let place = SqliteFile::new();
    let token = make_token(&*place.open(), "wallet");
    for _ in 0..2 {
        let broken = migrations("ALTER TABLE token ADD COLUMN colour TEXT; DROP TABLE nothing");
        assert!(open_with(&place, &broken).is_err());
        assert_eq!(tokens(&*place.open()).unwrap(), std::slice::from_ref(&token));
    }
    assert_eq!(place.open().check().unwrap(), Vec::<String>::new());
}

#[test]
fn r26_many_migrate_at_once_and_it_happens_once() {
    let place = SqliteFile::new();
    make_token(&*place.open(), "wallet");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(tokens(&open_with(&place, &migrations(NEXT)).unwrap()).unwrap().len(), 1));
        }
    });
}

#[test]
fn many_make_the_store_at_once_and_find_the_same() {
    for _ in 0..5 {
        let place = SqliteFile::new();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| place.open().next_serial().unwrap())).collect();
            let serials: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            assert!(serials.iter().all(|serial| *serial == serials[0]));
        });
    }
}
