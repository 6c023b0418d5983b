//! Files that are not what they should be, and bits that flipped.

use super::*;

/// Opens a file and uses it a little: damage may show at any of these steps.
fn open_and_use(place: &SqliteFile, serial: &Serial) -> Result<()> {
    let store = place.try_open(&OpenOptions::default())?;
    store.tokens()?;
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
    assert_eq!(place.open().tokens().unwrap().len(), 1);
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
                store.tokens().map(|_| ()),
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
            raw.execute_batch("DELETE FROM token; INSERT INTO token SELECT * FROM saved; DROP TABLE saved").unwrap();
            assert_eq!(store.tokens().unwrap(), std::slice::from_ref(&row));
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
        ];
        if column != "entries" {
            answers.push(store.search(&token, &Search::All, &mut |_| Ok(())));
        }
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

#[test]
fn the_deep_check_sees_lost_and_foreign_index_entries_and_tables() {
    for (damage, words) in [
        ("DELETE FROM object_index WHERE field = 1", "cannot be found"),
        ("DELETE FROM object WHERE id = 1", "belong to no object"),
        ("INSERT INTO object_index VALUES (1, 9, x'00', 1)", "entries where"),
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
