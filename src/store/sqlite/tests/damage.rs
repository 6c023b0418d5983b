//! Files that are not what they should be, and bits that flipped.

use super::*;
use crate::store::contract::entry;

/// Opens a file and uses it a little: damage may show at any of these steps.
fn open_and_use(place: &SqliteFile, serial: &Serial) -> Result<()> {
    let store = place.try_open(&OpenOptions::default())?;
    tokens(&*store)?;
    store.search(serial, &Search::All, &mut |_| Ok(()))?;
    store.object(serial, &uid(1)).map(|_| ())
}

fn assert_device_error(error: &Error, words: &[&str]) {
    assert_eq!(error.kind(), Kind::DeviceError, "{error}");
    for word in words {
        assert!(error.message().contains(word), "{word:?} is missing in: {error}");
    }
}

#[test]
fn r73_a_file_of_another_kind_is_refused_and_left_alone() {
    for content in ["a text file\n".repeat(1000).into_bytes(), b"x".to_vec(), vec![0; 4096]] {
        let place = SqliteFile::new();
        fs::write(place.path(), &content).unwrap();
        let error = error(place.try_open(&OpenOptions::default()));
        assert_device_error(&error, &["strongroom.db", "not a store", "store.url"]);
        assert_eq!(fs::read(place.path()).unwrap(), content);
    }
}

#[test]
fn r73_the_database_of_another_program_is_refused_and_left_alone() {
    for sql in [
        "CREATE TABLE t (a); INSERT INTO t VALUES (1)",
        "PRAGMA application_id = 77; PRAGMA user_version = 1",
        "PRAGMA user_version = 1",
    ] {
        let place = SqliteFile::new();
        place.run(sql);
        let before = fs::read(place.path()).unwrap();
        let error = error(place.try_open(&OpenOptions::default()));
        assert_device_error(&error, &["strongroom.db", "another program", "store.url"]);
        assert_eq!(fs::read(place.path()).unwrap(), before);
    }
}

#[test]
fn an_empty_file_becomes_a_store() {
    let place = SqliteFile::new();
    fs::write(place.path(), []).unwrap();
    make_token(&*place.open(), "wallet");
    assert_eq!(tokens(&*place.open()).unwrap().len(), 1);
}

#[test]
fn r73_a_file_that_was_cut_short_is_told() {
    let place = SqliteFile::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    store.write(&mut |t| (0..500).try_for_each(|number| t.insert_object(&token, &object(number)))).unwrap();
    drop(store);
    let whole = fs::read(place.path()).unwrap();
    for length in [1, 99, 100, 511, 4095, 4096, 8192, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        fs::write(place.path(), &whole[..length]).unwrap();
        let error = open_and_use(&place, &token).err().unwrap_or_else(|| panic!("cut at {length} is not seen"));
        assert_device_error(&error, &["strongroom.db", "backup"]);
    }
    fs::write(place.path(), &whole).unwrap();
    open_and_use(&place, &token).unwrap();
}

/// Whatever is in the pages: an answer, never a panic; and the deep check sees a page full of rubbish.
#[test]
fn pages_of_rubbish_never_panic() {
    let place = SqliteFile::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    store.write(&mut |t| (0..200).try_for_each(|number| t.insert_object(&token, &object(number)))).unwrap();
    drop(store);
    let whole = fs::read(place.path()).unwrap();
    let mut seen = 0;
    let pages = whole.len() / 4096;
    for page in 0..pages {
        for (offset, byte) in [(0, 0xff), (3, 0x80), (8, 0xff), (2000, 0x55), (4000, 0x00)] {
            let mut broken = whole.clone();
            let start = page * 4096 + offset;
            broken[start..start + 64].fill(byte);
            fs::write(place.path(), &broken).unwrap();
            let Ok(store) = place.try_open(&OpenOptions::default()) else {
                seen += 1;
                continue;
            };
            let _ = open_and_use(&place, &token);
            let _ = add(&*store, &token, &object(1_000_000));
            let _ = store.write(&mut |t| t.delete_object(&token, &uid(1)));
            let _ = store.write(&mut |t| t.delete_objects(&token));
            seen += usize::from(!store.check().is_ok_and(|faults| faults.is_empty()));
        }
    }
    assert!(seen >= pages, "{seen} faults were seen in {pages} pages");
}

/// The columns of a table, with the type that each value has.
fn columns(connection: &Connection, table: &str) -> Vec<(String, String)> {
    let sql = format!("SELECT name, type FROM pragma_table_info('{table}')");
    let mut statement = connection.prepare(&sql).unwrap();
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(std::result::Result::unwrap).collect()
}

/// Takes the type checks of all tables away, as damage in the file would.
fn take_types_away(place: &SqliteFile) {
    place.run(
        "PRAGMA writable_schema = ON; \
         UPDATE sqlite_schema SET sql = replace(replace(sql, 'STRICT', ''), 'WITHOUT ROWID, ', 'WITHOUT ROWID') WHERE type = 'table'; \
         UPDATE sqlite_schema SET sql = replace(sql, ' NOT NULL', ''); \
         UPDATE sqlite_schema SET sql = replace(sql, 'INTEGER PRIMARY KEY CHECK (id = 1)', 'INTEGER PRIMARY KEY'); \
         PRAGMA writable_schema = OFF",
    );
}

/// Ways to damage a column of each type: SQL expressions, of which each differs from the value.
fn damages(column: &str, kind: &str) -> Vec<String> {
    let bits = (0..8).map(|bit| 1 << bit);
    match kind {
        "INTEGER" => {
            bits.chain([1i64 << 31, 1 << 40]).map(|bit| format!("({column} | {bit}) - ({column} & {bit})")).collect()
        }
        "TEXT" => vec![
            format!("'x' || {column}"),
            format!("substr({column}, 2)"),
            format!("CASE substr({column}, 1, 1) WHEN 'A' THEN 'B' ELSE 'A' END || substr({column}, 2)"),
            format!("lower({column}) || char(0)"),
            format!("CAST({column} AS BLOB)"),
            "CAST(x'ff41' AS TEXT)".into(),
        ],
        "BLOB" => vec![
            format!("CAST({column} || x'00' AS BLOB)"),
            format!("CAST(substr({column}, 2) AS BLOB)"),
            format!("CAST(x'03' || substr({column}, 2) AS BLOB)"),
            "x''".into(),
            "'text'".into(),
            "7".into(),
        ],
        other => panic!("a column of type {other}"),
    }
}

#[test]
fn r73_a_flipped_bit_in_any_column_of_a_token_is_told() {
    let place = SqliteFile::new();
    let store = place.open();
    let row = make_token(&*store, "wallet");
    let row = TokenRow { revision: 2, user_envelope: Some(vec![5; 90]), last_failure: 99, ..row };
    store.write(&mut |t| t.update_token(&row)).unwrap();
    take_types_away(&place);
    let raw = place.raw();
    let mut tried = 0;
    for (column, kind) in columns(&raw, "token") {
        for damage in damages(&column, &kind).into_iter().chain(["NULL".into()]) {
            if (column.as_str(), damage.as_str()) == ("id", "NULL") {
                continue; // SQLite itself refuses it.
            }
            raw.execute_batch(&format!(
                "CREATE TABLE saved AS SELECT * FROM token; UPDATE token SET {column} = {damage}"
            ))
            .unwrap();
            for answer in [
                tokens(&*store).map(|_| ()),
                store.token(&row.serial).map(|_| ()),
                store.write(&mut |t| t.token(&row.serial).map(|_| ())),
                store.write(&mut |t| t.update_token(&TokenRow { revision: 3, ..row.clone() })),
            ] {
                let error = answer.err().unwrap_or_else(|| panic!("{column} = {damage} is not seen"));
                assert_device_error(&error, &["the token", "backup"]);
                let named = error.message().contains("wallet") || error.message().contains(&serial::text(&row.serial));
                assert!(named, "{column} = {damage}: {error}");
            }
            assert!(store.check().unwrap().iter().any(|fault| fault.contains("token")), "{column} = {damage}");
            if column != "slot" {
                assert_eq!(store.tokens().unwrap()[0].slot, row.slot, "{column} = {damage}: the slot is still listed");
            }
            raw.execute_batch("DELETE FROM token; INSERT INTO token SELECT * FROM saved; DROP TABLE saved").unwrap();
            assert_eq!(tokens(&*store).unwrap(), std::slice::from_ref(&row));
            tried += 1;
        }
    }
    assert!(tried > 90, "{tried}");
}

#[test]
fn r73_a_damaged_next_serial_is_seen_and_drawn_anew() {
    let place = SqliteFile::new();
    let store = place.open();
    take_types_away(&place);
    let raw = place.raw();
    let mut columns = columns(&raw, "meta");
    columns.retain(|(column, _)| column != "id");
    for (column, kind) in columns {
        for damage in damages(&column, &kind).into_iter().chain(["NULL".into()]) {
            let before = store.next_serial().unwrap();
            raw.execute_batch(&format!("UPDATE meta SET {column} = {damage}")).unwrap();
            let read_only = place.try_open(&OpenOptions { read_only: true, ..OpenOptions::default() }).unwrap();
            assert_device_error(&error(read_only.next_serial()), &["next serial"]);
            assert!(read_only.check().unwrap().iter().any(|fault| fault.contains("next serial")));
            let after = store.next_serial().unwrap();
            assert_ne!(before, after, "{column} = {damage}");
            assert_eq!(place.open().next_serial().unwrap(), after);
        }
    }
    raw.execute_batch("DELETE FROM meta").unwrap();
    make_token(&*store, "wallet");
    raw.execute_batch("UPDATE meta SET id = 2").unwrap();
    make_token(&*store, "wallet");
}

#[test]
fn r73_an_object_of_the_wrong_shape_is_told_and_never_panics() {
    let place = SqliteFile::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    add(&*store, &token, &object(1)).unwrap();
    take_types_away(&place);
    let raw = place.raw();
    for (column, damage) in [
        ("uid", "'text'"),
        ("uid", "x'00'"),
        ("uid", "NULL"),
        ("revision", "-1"),
        ("revision", "'one'"),
        ("revision", "1.5"),
        ("revision", "NULL"),
        ("attributes", "'text'"),
        ("attributes", "NULL"),
        ("secret", "'text'"),
        ("secret", "5"),
        ("entries", "x'00'"),
        ("entries", "'text'"),
        ("entries", "NULL"),
    ] {
        raw.execute_batch(&format!(
            "CREATE TABLE saved AS SELECT * FROM object; UPDATE object SET {column} = {damage}"
        ))
        .unwrap();
        let mut answers = vec![
            store.write(&mut |t| t.object(&token, &uid(1)).map(|_| ())),
            store.object(&token, &uid(1)).map(|_| ()),
            store.search(&token, &Search::All, &mut |_| Ok(())),
        ];
        if column == "uid" {
            answers.drain(..2).for_each(|answer| answer.unwrap());
        }
        for answer in answers {
            assert_device_error(&error(answer), &["object", "backup"]);
        }
        assert!(!store.check().unwrap().is_empty(), "{column} = {damage}");
        raw.execute_batch("DELETE FROM object; INSERT INTO object SELECT * FROM saved; DROP TABLE saved").unwrap();
        assert_eq!(store.object(&token, &uid(1)).unwrap(), Some(object(1)));
    }
}

/// Looks for every object of [`chained`] and for none, by every entry that there is: what a caller can do.
fn look_everywhere(store: &dyn Store, token: &Serial) -> Vec<Error> {
    let entries = (0..4).map(|number| entry(1, number)).chain([entry(2, 0), entry(2, 1), entry(5, 5)]);
    let answers = entries.map(|entry| store.search(token, &Search::Any(vec![entry]), &mut |_| Ok(())));
    let all = store.search(token, &Search::All, &mut |_| Ok(()));
    answers.chain([all]).filter_map(std::result::Result::err).collect()
}

/// A store with two tokens, of which the first has three objects and the second one.
fn chained() -> (SqliteFile, Arc<dyn Store>, Serial) {
    let place = SqliteFile::new();
    let store = place.open();
    let (token, other) = (make_token(&*store, "wallet").serial, make_token(&*store, "other").serial);
    (1..4).for_each(|number| add(&*store, &token, &object(number)).unwrap());
    add(&*store, &other, &object(9)).unwrap();
    (place, store, token)
}

#[test]
fn r73_damage_in_any_column_of_the_index_is_told_and_repaired() {
    let (place, store, token) = chained();
    take_types_away(&place);
    let raw = place.raw();
    raw.execute_batch("CREATE TABLE saved AS SELECT * FROM object_index").unwrap();
    let keys = "SELECT group_concat(quote(digest) || ' AND field = ' || field || ' AND object = ' || object, ';') \
                FROM object_index WHERE token = 1";
    let rows: String = raw.query_row(keys, [], |row| row.get(0)).unwrap();
    let mut tried = 0;
    for row in rows.split(';') {
        for (column, kind) in columns(&raw, "object_index") {
            for damage in damages(&column, &kind) {
                let sql =
                    format!("UPDATE OR IGNORE object_index SET {column} = {damage} WHERE token = 1 AND digest = {row}");
                raw.execute_batch(&sql).unwrap();
                if raw.query_row("SELECT * FROM object_index EXCEPT SELECT * FROM saved", [], |_| Ok(())).is_err() {
                    continue; // Such a row there is already.
                }
                let errors = look_everywhere(&*store, &token);
                assert!(!errors.is_empty(), "{sql} is not seen");
                errors.iter().for_each(|error| assert_device_error(error, &["index", "doctor --repair", "backup"]));
                assert!(store.check().unwrap().iter().any(|fault| fault.contains("doctor --repair")), "{sql}");
                assert_eq!(store.repair().unwrap(), 8);
                assert!(look_everywhere(&*store, &token).is_empty());
                let odd = "SELECT count(*) FROM (SELECT * FROM object_index EXCEPT SELECT * FROM saved)";
                assert_eq!(raw.query_row(odd, [], |row| row.get::<_, i64>(0)).unwrap(), 0, "{sql}");
                tried += 1;
            }
        }
    }
    assert!(tried > 150, "{tried}");
}

#[test]
fn r73_a_row_that_the_index_lost_or_won_is_told() {
    let (place, store, token) = chained();
    for damage in [
        "DELETE FROM object_index WHERE token = 1 AND object = 0",
        "DELETE FROM object_index WHERE token = 1 AND object = 1 AND field = 1",
        "DELETE FROM object_index WHERE token = 1 AND object = 2 AND field = 2",
        "DELETE FROM object_index WHERE token = 1 AND object = 3 AND field = 2",
        "DELETE FROM object_index WHERE token = 1 AND field = 2",
        "DELETE FROM object_index WHERE token = 1",
        "INSERT INTO object_index SELECT token, field, digest, 9, link FROM object_index WHERE token = 1 AND object = 3",
    ] {
        place.run(damage);
        let errors = look_everywhere(&*store, &token);
        assert!(!errors.is_empty(), "{damage} is not seen");
        errors.iter().for_each(|error| assert_device_error(error, &["index", "doctor --repair"]));
        store.repair().unwrap();
        assert!(look_everywhere(&*store, &token).is_empty());
    }
}

#[test]
fn r73_damage_in_any_column_of_an_object_that_no_seal_covers_is_told() {
    let (place, store, token) = chained();
    take_types_away(&place);
    let raw = place.raw();
    raw.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    for (column, kind) in columns(&raw, "object") {
        if column == "attributes" || column == "secret" {
            continue; // Sealed above the store.
        }
        for damage in damages(&column, &kind) {
            raw.execute_batch("CREATE TABLE saved AS SELECT * FROM object").unwrap();
            let sql = format!("UPDATE OR IGNORE object SET {column} = {damage} WHERE id = 1");
            raw.execute_batch(&sql).unwrap();
            let changed = raw.query_row("SELECT * FROM object EXCEPT SELECT * FROM saved", [], |_| Ok(())).is_ok();
            let errors = look_everywhere(&*store, &token);
            assert_eq!(!errors.is_empty(), changed, "{sql}");
            errors.iter().for_each(|error| assert_device_error(error, &["doctor", "backup"]));
            // The number of an object matters to the index alone; what it says of itself must be trusted.
            if changed && column != "id" {
                assert_device_error(&error(store.repair()), &["object number 1", "backup"]);
            }
            raw.execute_batch("DELETE FROM object; INSERT INTO object SELECT * FROM saved; DROP TABLE saved").unwrap();
            assert!(look_everywhere(&*store, &token).is_empty());
        }
    }
    place.run("PRAGMA foreign_keys = OFF; UPDATE object SET id = 77 WHERE id = 1");
    assert!(!look_everywhere(&*store, &token).is_empty());
    store.repair().unwrap();
    assert!(look_everywhere(&*store, &token).is_empty());
}

#[test]
fn r24_a_change_beside_damage_of_the_index_is_undone_as_a_whole() {
    let (place, store, token) = chained();
    place.run("UPDATE object_index SET link = x'00' WHERE field <> 9");
    for answer in [
        add(&*store, &token, &object(5)),
        store.write(&mut |t| t.delete_object(&token, &uid(1))),
        store
            .write(&mut |t| t.update_object(&token, &ObjectRow { revision: 2, index: vec![entry(7, 7)], ..object(1) })),
    ] {
        assert_device_error(&error(answer), &["index", "doctor --repair"]);
    }
    assert_device_error(&error(store.write(&mut |t| t.delete_object(&token, &uid(1)).or(Ok(())))), &["half-way"]);
    store.repair().unwrap();
    assert_eq!(found(&*store, &token, &Search::Any(vec![entry(2, 0)])), [1, 2, 3]);
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
}

#[test]
fn the_deep_check_sees_lost_and_foreign_index_entries_and_tables() {
    for (damage, words) in [
        ("DELETE FROM object_index WHERE field = 1", "cannot be found"),
        ("DELETE FROM object_index WHERE field = 1", "of token number 1 is damaged"),
        ("DELETE FROM object_index WHERE object = 0", "of token number 1 is damaged"),
        ("UPDATE object_index SET link = x'0011223344556677' WHERE field = 2", "of token number 1 is damaged"),
        ("DELETE FROM object WHERE id = 1", "belong to no object"),
        ("INSERT INTO object_index VALUES (1, 9, x'00', 1, x'00')", "entries where"),
        ("PRAGMA foreign_keys = OFF; UPDATE object SET token = 9", "belong to no token"),
        ("CREATE TRIGGER evil AFTER INSERT ON object BEGIN DELETE FROM object; END", "tables are not"),
        ("DROP INDEX object_by_token", "tables are not"),
    ] {
        let place = SqliteFile::new();
        let store = place.open();
        let token = make_token(&*store, "wallet").serial;
        add(&*store, &token, &object(1)).unwrap();
        assert!(store.check().unwrap().is_empty());
        place.run(damage);
        let faults = store.check().unwrap();
        assert!(faults.iter().any(|fault| fault.contains(words)), "{damage}: {faults:?}");
    }
}

#[test]
fn a_trigger_that_somebody_put_into_the_file_does_not_run() {
    let place = SqliteFile::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    place.run("CREATE TRIGGER evil AFTER INSERT ON object BEGIN DELETE FROM object; END");
    add(&*store, &token, &object(1)).unwrap();
    assert_eq!(found(&*store, &token, &Search::All), [1]);
}

#[test]
fn r73_a_store_without_its_tables_is_told() {
    for table in ["token", "object", "meta", "object_index"] {
        let place = SqliteFile::new();
        let store = place.open();
        let token = make_token(&*store, "wallet").serial;
        place.run(&format!("PRAGMA foreign_keys = OFF; DROP TABLE {table}"));
        let answer = add(&*store, &token, &object(1)).and_then(|()| store.next_serial().map(|_| ()));
        assert_device_error(&error(answer), &["tables", "doctor"]);
    }
}
