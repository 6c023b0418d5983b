//! Where the file is, who may use it, and how much room there is.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn read_only() -> OpenOptions {
    OpenOptions { read_only: true, ..OpenOptions::default() }
}

fn assert_write_protected(store: &dyn Store, token: &Serial) {
    assert!(store.read_only());
    let error = error(add(store, token, &object(99)));
    assert_eq!(error.kind(), Kind::TokenWriteProtected);
    assert!(error.message().contains("strongroom.db") && error.message().contains("read-only"), "{error}");
}

#[test]
fn r72_files_and_directories_are_made_for_the_owner_alone() {
    let place = SqliteFile::new();
    let path = place.directory.join("a/b/strongroom.db");
    let store = crate::store::open(&url(&path), &OpenOptions::default()).unwrap();
    make_token(&*store, "wallet");
    for suffix in ["", "-wal", "-shm"] {
        assert_eq!(mode(Path::new(&format!("{}{suffix}", path.display()))), 0o600, "{suffix}");
    }
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(&place.directory.join("a")), 0o700);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 3, "nothing else is left there");
}

#[test]
fn r72_the_mode_of_a_new_file_is_as_configured() {
    let place = SqliteFile::new();
    let store = place.try_open(&OpenOptions { mode: 0o666, ..OpenOptions::default() }).unwrap();
    assert_eq!(mode(&place.path()), 0o666);
    assert!(store.check().unwrap().iter().any(|fault| fault.contains("every user")));
    set_mode(&place.path(), 0o640);
    assert!(store.check().unwrap().is_empty());
    place.try_open(&OpenOptions::default()).unwrap();
    assert_eq!(mode(&place.path()), 0o640, "an existing file keeps its mode");
}

#[test]
fn r73_a_url_that_names_no_file_is_told_what_is_wrong() {
    for (url, words) in [
        ("sqlite:strongroom.db", "two slashes"),
        ("sqlite://strongroom.db", "absolute path"),
        ("sqlite://", "absolute path"),
        ("sqlite:///tmp/", "file name"),
        ("sqlite:///tmp/a?mode=ro", "options"),
        ("sqlite:///tmp/a\0b", "file name"),
        ("memory:x", "memory:"),
    ] {
        let error = error(crate::store::open(url, &OpenOptions::default()));
        assert_eq!(error.kind(), Kind::ArgumentsBad);
        assert!(error.message().contains(words), "{error}");
    }
    assert_eq!(error(crate::store::open("memory:", &read_only())).kind(), Kind::ArgumentsBad);
}

#[test]
fn a_path_is_taken_as_it_is() {
    let place = SqliteFile::new();
    for name in ["with space.db", "100%41.db", "ключ.db", "file:x.db", "a&b=c.db", "'quoted\".db"] {
        let path = place.directory.join(name);
        make_token(&*crate::store::open(&url(&path), &OpenOptions::default()).unwrap(), "wallet");
        assert!(path.exists());
        let place = Place::parse(&format!("//{}", path.display()), &OpenOptions::default()).unwrap();
        let snapshot = place.snapshot().unwrap();
        let tokens: i64 = snapshot.connection.query_row("SELECT count(*) FROM token", [], |row| row.get(0)).unwrap();
        assert_eq!(tokens, 1, "{name}");
    }
}

#[test]
fn r73_what_cannot_be_opened_is_told() {
    let place = SqliteFile::new();
    let directory = &place.directory;
    symlink("/nowhere/at/all", directory.join("dangling.db")).unwrap();
    fs::write(directory.join("file"), "text").unwrap();
    for path in [
        directory.clone(),
        directory.join("dangling.db"),
        directory.join("file/strongroom.db"),
        "/proc/nothing/strongroom.db".into(),
    ] {
        let error = error(crate::store::open(&url(&path), &OpenOptions::default()));
        assert_eq!(error.kind(), Kind::DeviceError);
        assert!(error.message().contains(path.to_str().unwrap()) && error.message().contains("check"), "{error}");
    }
}

#[test]
fn r71_a_store_can_be_opened_read_only_while_another_writes() {
    let place = SqliteFile::new();
    assert!(error(place.try_open(&read_only())).message().contains("not there"));
    let writer = place.open();
    let token = make_token(&*writer, "wallet").serial;
    let reader = place.try_open(&read_only()).unwrap();
    for number in 0..20 {
        let before = reader.change_count().unwrap();
        add(&*writer, &token, &object(number)).unwrap();
        assert_ne!(reader.change_count().unwrap(), before);
        assert_eq!(found(&*reader, &token, &Search::All).len() as u64, number + 1);
    }
    assert_write_protected(&*reader, &token);
    drop(writer);
    assert_eq!(found(&*reader, &token, &Search::All).len(), 20);
    assert_write_protected(&*place.try_open(&read_only()).unwrap(), &token);
}

#[test]
fn r73_an_empty_file_cannot_become_a_store_read_only() {
    let place = SqliteFile::new();
    fs::write(place.path(), []).unwrap();
    assert!(error(place.try_open(&read_only())).message().contains("is empty"));
}

#[test]
fn r73_a_file_that_was_removed_or_replaced_in_use_is_not_written() {
    for replace in [false, true] {
        let place = SqliteFile::new();
        let store = place.open();
        let token = make_token(&*store, "wallet").serial;
        let aside = place.directory.join("aside.db");
        fs::rename(place.path(), &aside).unwrap();
        if replace {
            fs::copy(&aside, place.path()).unwrap();
        }
        for error in [error(add(&*store, &token, &object(1))), error(store.change_count())] {
            assert_eq!(error.kind(), Kind::DeviceError);
            assert!(error.message().contains("replaced"), "{error}");
        }
    }
}

/// Set in a child without root's power over permissions: the directory that it uses.
const CHILD: &str = "STRONGROOM_TEST_NOBODY";
/// What the child says when its parent shall go on.
const READY: &str = "the child is ready";

/// In the child: the place that the parent prepared.
fn in_child() -> Option<SqliteFile> {
    std::env::var(CHILD).ok().map(|path| SqliteFile { directory: path.into(), guard: None })
}

/// Runs a test of this file again as a user who owns nothing; `when_ready` runs once the child says that it is ready.
fn as_nobody(test: &str, place: &SqliteFile, when_ready: impl FnOnce()) {
    set_mode(place.guard.as_ref().unwrap().path(), 0o755);
    // The test program may rest in a directory that others cannot enter.
    let program = tempfile::tempdir().unwrap();
    set_mode(program.path(), 0o755);
    let copy = program.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    set_mode(&copy, 0o755);
    let mut command = Command::new(&copy);
    command.args(["--exact", &format!("store::sqlite::tests::files::{test}"), "--nocapture"]);
    command.env(CHILD, &place.directory).current_dir("/").stdout(Stdio::piped());
    if fs::metadata(program.path()).unwrap().uid() == 0 {
        command.uid(65534).gid(65534);
    }
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(std::result::Result::unwrap);
    assert!(lines.any(|line| line.contains(READY)), "the child has failed");
    when_ready();
    lines.for_each(drop);
    assert!(child.wait().unwrap().success(), "the child has failed");
}

/// Makes a store with a token and three objects in a directory below the fixture's.
fn prepare(place: &SqliteFile, name: &str) -> (SqliteFile, Arc<dyn Store>) {
    let below = SqliteFile { directory: place.directory.join(name), guard: None };
    let store = below.open();
    set_mode(&below.directory, 0o755);
    let token = make_token(&*store, "wallet").serial;
    (0..3).for_each(|number| add(&*store, &token, &object(number)).unwrap());
    (below, store)
}

/// Makes the same, with its log open, for every user to read.
fn prepare_for_all(fixture: &SqliteFile) -> (SqliteFile, Arc<dyn Store>) {
    let (place, store) = prepare(fixture, "store");
    for suffix in ["", "-wal", "-shm"] {
        set_mode(Path::new(&format!("{}{suffix}", place.path().display())), 0o644);
    }
    (place, store)
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Opens a store that must be read-only and hold what [`prepare`] put there.
fn assert_readable(place: &SqliteFile) -> Arc<dyn Store> {
    let before = names(&place.directory);
    let store = place.open();
    let token = tokens(&*store).unwrap()[0].serial;
    assert_eq!(found(&*store, &token, &Search::All), [0, 1, 2]);
    assert_eq!(store.change_count().unwrap(), store.change_count().unwrap());
    assert_write_protected(&*store, &token);
    assert_eq!(names(&place.directory), before, "no file is made");
    store
}

#[test]
fn r71_a_store_that_cannot_be_written_is_read() {
    if let Some(place) = in_child() {
        let below = |name| SqliteFile { directory: place.directory.join(name), guard: None };
        for name in ["nothing-writable", "file-writable", "directory-writable", "empty-log"] {
            assert_readable(&below(name));
        }
        for (name, words) in
            [("stale-log", "write-ahead log"), ("unreadable", "cannot be opened"), ("missing", "cannot be made")]
        {
            let error = error(below(name).try_open(&OpenOptions::default()));
            assert_eq!(error.kind(), Kind::DeviceError);
            assert!(error.message().contains(words), "{name}: {error}");
        }
        return println!("{READY}");
    }
    let fixture = SqliteFile::new();
    for (name, file, directory) in [
        ("nothing-writable", 0o444, 0o555),
        ("file-writable", 0o666, 0o555),
        ("directory-writable", 0o444, 0o777),
        ("empty-log", 0o444, 0o555),
        ("unreadable", 0o000, 0o555),
    ] {
        let (place, store) = prepare(&fixture, name);
        drop(store);
        assert_eq!(names(&place.directory), ["strongroom.db"]);
        if name == "empty-log" {
            fs::write(place.directory.join("strongroom.db-wal"), []).unwrap();
        }
        set_mode(&place.path(), file);
        set_mode(&place.directory, directory);
    }
    let (place, store) = prepare(&fixture, "stale-log");
    let log = place.directory.join("strongroom.db-wal");
    let (copied, database) = (fs::read(&log).unwrap(), fs::read(place.path()).unwrap());
    drop(store);
    fs::write(log, copied).unwrap();
    fs::write(place.path(), database).unwrap();
    set_mode(&place.path(), 0o444);
    set_mode(&place.directory, 0o555);
    fs::create_dir(fixture.directory.join("missing")).unwrap();
    set_mode(&fixture.directory.join("missing"), 0o555);
    as_nobody("r71_a_store_that_cannot_be_written_is_read", &fixture, || {});
}

/// Waits until a store has a number of objects.
fn await_objects(store: &dyn Store, token: &Serial, count: u64) {
    let start = Instant::now();
    while store.object_count(token).unwrap() != count {
        assert!(start.elapsed() < Duration::from_secs(60), "the change is not seen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs the child's side: sees what the parent writes from the start, 3 objects, to the end, 3000.
fn watch_as_nobody(place: &SqliteFile) {
    let store = place.open();
    assert!(store.read_only());
    let token = tokens(&*store).unwrap()[0].serial;
    let count = store.change_count().unwrap();
    await_objects(&*store, &token, 3);
    println!("{READY}");
    let start = Instant::now();
    while store.object_count(&token).unwrap() < 3000 {
        assert!(start.elapsed() < Duration::from_secs(60), "the changes are not seen");
        let seen = found(&*store, &token, &Search::Any(vec![crate::store::contract::entry(2, 0)]));
        assert!(seen.len() >= 3 && seen.is_sorted());
    }
    await_objects(&*store, &token, 3000);
    assert_ne!(store.change_count().unwrap(), count);
    assert_write_protected(&*store, &token);
}

/// Writes up to 3000 objects in steps, with the log folded into the file now and then.
fn write_while_watched(place: &SqliteFile, store: &dyn Store) {
    let token = tokens(store).unwrap()[0].serial;
    for step in 0..30 {
        let numbers = if step == 0 { 3..100 } else { step * 100..(step + 1) * 100 };
        store.write(&mut |t| numbers.clone().try_for_each(|number| t.insert_object(&token, &object(number)))).unwrap();
        place.run("PRAGMA wal_checkpoint(TRUNCATE)");
    }
}

#[test]
fn r71_another_user_reads_while_the_owner_writes() {
    if let Some(place) = in_child() {
        return watch_as_nobody(&place);
    }
    let fixture = SqliteFile::new();
    let (place, store) = prepare_for_all(&fixture);
    let below = SqliteFile { directory: place.directory.clone(), guard: fixture.guard };
    as_nobody("r71_another_user_reads_while_the_owner_writes", &below, || write_while_watched(&place, &*store));
}

#[test]
fn r71_a_reader_by_way_of_a_symbolic_link_sees_what_the_log_holds() {
    if let Some(place) = in_child() {
        return watch_as_nobody(&place);
    }
    let fixture = SqliteFile::new();
    let (place, store) = prepare_for_all(&fixture);
    let link = SqliteFile { directory: fixture.directory.join("link"), guard: fixture.guard };
    fs::create_dir(&link.directory).unwrap();
    set_mode(&link.directory, 0o755);
    std::os::unix::fs::symlink(place.path(), link.path()).unwrap();
    as_nobody("r71_a_reader_by_way_of_a_symbolic_link_sees_what_the_log_holds", &link, || {
        write_while_watched(&place, &*store);
    });
    // The files of SQLite, and with them the turns, are beside the file and not beside the link.
    assert_eq!(names(&link.directory), ["strongroom.db"]);
    let store = link.open();
    add(&*store, &tokens(&*store).unwrap()[0].serial, &object(5000)).unwrap();
    assert_eq!(names(&link.directory), ["strongroom.db"]);
}

#[test]
fn r71_who_reads_a_snapshot_sees_when_the_owner_writes_after_all() {
    if let Some(place) = in_child() {
        return watch_as_nobody(&place);
    }
    let fixture = SqliteFile::new();
    let (place, store) = prepare(&fixture, "store");
    drop(store);
    set_mode(&place.path(), 0o644);
    let below = SqliteFile { directory: place.directory.clone(), guard: fixture.guard };
    as_nobody("r71_who_reads_a_snapshot_sees_when_the_owner_writes_after_all", &below, || {
        for numbers in [3..1003, 1003..2003, 2003..3000u64] {
            let store = place.open();
            let token = tokens(&*store).unwrap()[0].serial;
            for first in numbers.step_by(20) {
                let mut some = first..(first + 20).min(3000);
                store.write(&mut |t| some.try_for_each(|number| t.insert_object(&token, &object(number)))).unwrap();
            }
        }
    });
}

#[test]
fn a_store_with_many_threads_but_few_connections_reads() {
    let place = SqliteFile::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    add(&*store, &token, &object(1)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 * READERS {
            scope.spawn(|| (0..200).for_each(|_| assert!(store.object(&token, &uid(1)).unwrap().is_some())));
        }
    });
}

/// Fills a store until it says that there is no room, and then makes room.
fn fill(store: &dyn Store, make_room: impl FnOnce()) {
    let token = make_token(store, "wallet").serial;
    let big = |number| ObjectRow { secret: Some(vec![7; 30_000]), ..object(number) };
    let full = (0..2000).find_map(|number| Some((number, add(store, &token, &big(number)).err()?)));
    let (count, error) = full.expect("the store takes more than there is room for");
    assert_eq!(error.kind(), Kind::DeviceMemory, "{error}");
    assert!(error.message().contains("no room"), "{error}");
    assert!(count > 0);
    for _ in 0..3 {
        assert_eq!(add(store, &token, &big(count)).unwrap_err().kind(), Kind::DeviceMemory);
        assert_eq!(store.object_count(&token).unwrap(), count);
        assert_eq!(store.object(&token, &uid(0)).unwrap(), Some(big(0)));
    }
    make_room();
    add(store, &token, &big(count)).unwrap();
    assert_eq!(store.object_count(&token).unwrap(), count + 1);
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
}

#[test]
fn r73_a_store_that_may_not_grow_is_told_full() {
    let place = SqliteFile::new();
    let rest = format!("//{}", place.path().display());
    let store =
        SqliteStore::open_file(Place::parse(&rest, &OpenOptions::default()).unwrap(), schema::MIGRATIONS).unwrap();
    let pages = |count: u32| {
        let sql = format!("PRAGMA max_page_count = {count}");
        store.writer.as_ref().unwrap().with(|connection| connection.query_row(&sql, [], |_| Ok(()))).unwrap();
    };
    pages(100);
    fill(&store, || pages(1000));
}

/// A small file system in memory, unmounted when dropped. `None` where mounting is not permitted.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(directory.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(directory)),
            other => {
                println!(
                    "no file system can be mounted here ({other:?}); the tests with max_page_count and permissions stand in"
                );
                None
            }
        }
    }

    fn remount_read_only(&self) {
        let remount =
            || Command::new("mount").args(["-o", "remount,ro"]).arg(self.0.path()).status().unwrap().success();
        // A child that another test starts just now may hold a file open until it runs its program.
        let done = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            remount()
        });
        assert!(done);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn r73_a_full_disk_is_told_and_nothing_is_lost() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.0.path().join("store/strongroom.db");
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![0; 300_000]).unwrap();
    let store = crate::store::open(&url(&path), &OpenOptions::default()).unwrap();
    fill(&*store, || fs::remove_file(&ballast).unwrap());
}

#[test]
fn r73_a_store_cannot_be_made_on_a_full_disk() {
    let Some(disk) = SmallDisk::mount() else { return };
    let _ = fs::write(disk.0.path().join("ballast"), vec![0; 2 << 20]);
    let path = disk.0.path().join("strongroom.db");
    let error = error(crate::store::open(&url(&path), &OpenOptions::default()));
    assert_eq!(error.kind(), Kind::DeviceMemory, "{error}");
}

#[test]
fn r71_a_store_on_a_read_only_mount_is_read() {
    let Some(disk) = SmallDisk::mount() else { return };
    let place = SqliteFile { directory: disk.0.path().to_owned(), guard: None };
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    (0..3).for_each(|number| add(&*store, &token, &object(number)).unwrap());
    drop(store);
    disk.remount_read_only();
    drop(assert_readable(&place));
    let forced = place.try_open(&read_only()).unwrap();
    assert_write_protected(&*forced, &token);
    assert_eq!(found(&*forced, &token, &Search::All), [0, 1, 2]);
}

#[test]
fn r73_a_lock_that_is_never_given_back_is_told_and_reads_go_on() {
    let place = SqliteFile::new();
    let store = place.open();
    let token = make_token(&*store, "wallet").serial;
    let holder = place.raw();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let write = scope.spawn(|| error(add(&*store, &token, &object(1))));
        while !write.is_finished() {
            let start = Instant::now();
            assert_eq!(store.object_count(&token).unwrap(), 0);
            assert!(start.elapsed() < place::PATIENCE / 2, "a read waits for the lock");
            std::thread::sleep(Duration::from_millis(50));
        }
        let error = write.join().unwrap();
        assert_eq!(error.kind(), Kind::DeviceError);
        assert!(error.message().contains("write lock") && error.message().contains("10 seconds"), "{error}");
    });
    assert!(start.elapsed() >= place::PATIENCE && start.elapsed() < place::PATIENCE * 2);
    // Threads that wait at once give up at once, and not one after the other.
    let start = Instant::now();
    let write = |number| error(add(&*store, &token, &object(number)));
    std::thread::scope(|scope| {
        let writes: Vec<_> = (2..8).map(|number| scope.spawn(move || write(number))).collect();
        writes.into_iter().for_each(|write| assert!(write.join().unwrap().is_busy()));
    });
    assert!(start.elapsed() < place::PATIENCE * 2, "{:?}", start.elapsed());
    holder.execute_batch("ROLLBACK").unwrap();
    add(&*store, &token, &object(1)).unwrap();
}
