//! Looks at the permissions of files: who else could read or replace them, and whether this user can write them.

use std::fs::{Metadata, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::report::Report;

/// The bits by which the group or others may read or write.
const OTHERS: u32 = 0o077;
/// The bits by which the group or others may write.
const OTHERS_WRITE: u32 = 0o022;
/// The bit by which only the owner of a file may remove it from a folder (as in /tmp).
const STICKY: u32 = 0o1000;

/// Checks a file that only its owner should read or write.
pub fn check_private(check: &str, file: &Path, report: &mut Report) {
    let Some(metadata) = metadata(check, file, report) else { return };
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS != 0 {
        let text =
            format!("{} can be opened by others (mode {mode:04o}); chmod 600 it, or 660 for a group", file.display());
        if mode & 0o007 != 0 { report.fail(check, text) } else { report.warn(check, text) }
    }
    check_owner(check, file, &metadata, report);
    check_folder(check, file, report);
}

/// Checks a file that others may read and must not write.
pub fn check_not_writable_by_others(check: &str, file: &Path, report: &mut Report) {
    let Some(metadata) = metadata(check, file, report) else { return };
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 {
        report.fail(check, format!("{} can be changed by others (mode {mode:04o}); chmod go-w it", file.display()));
    }
    check_folder(check, file, report);
}

/// Checks that a file which is not there yet can be made: its nearest folder that exists must be writable.
pub fn check_can_be_made(check: &str, file: &Path, report: &mut Report) {
    let Some(folder) = file.ancestors().skip(1).find(|folder| folder.exists()) else { return };
    match std::fs::metadata(folder) {
        Ok(metadata) if !metadata.is_dir() || !takes_files(folder) => {
            let text = "is no folder in which this user may make files";
            report.fail(check, format!("{} {text}, so {} cannot be made", folder.display(), file.display()));
        }
        Ok(metadata) => check_folder_mode(check, folder, &metadata, report),
        Err(error) => report.fail(check, format!("{} cannot be looked at: {error}", folder.display())),
    }
}

/// Checks a file that lines are added to: one that is there must take them, and another must be possible. Its folder is not made.
pub fn check_takes_lines(check: &str, file: &Path, report: &mut Report) {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY; // a pipe or a terminal must not hold this up
    match OpenOptions::new().append(true).custom_flags(flags).open(file) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound && file.parent().is_some_and(Path::exists) => {
            check_can_be_made(check, file, report);
        }
        Err(error) => report.fail(check, format!("{} cannot be written: {error}", file.display())),
    }
}

/// Warns of a database that can be read only: its tokens are used, and nothing is changed.
pub fn warn_of_read_only(check: &str, file: &Path, report: &mut Report) {
    let folder = file.parent().is_none_or(takes_files);
    if access(file, AccessFlags::W_OK).is_err() || !folder {
        let text = "so its tokens are read-only: this user may not write the file, or not its folder";
        report.warn(check, format!("{} cannot be changed, {text}", file.display()));
    }
}

/// Tells whether this user may make files in a folder.
fn takes_files(folder: &Path) -> bool {
    access(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}

/// Reads what the file system says of a file.
fn metadata(check: &str, file: &Path, report: &mut Report) -> Option<Metadata> {
    let metadata = std::fs::metadata(file);
    metadata.map_err(|error| report.fail(check, format!("{} cannot be looked at: {error}", file.display()))).ok()
}

/// Warns of a file that belongs to another user than the one who runs this.
fn check_owner(check: &str, file: &Path, metadata: &Metadata, report: &mut Report) {
    let Ok(me) = std::fs::metadata("/proc/self").map(|process| process.uid()) else { return };
    if metadata.uid() != me {
        let owner = metadata.uid();
        report.warn(check, format!("{} belongs to user {owner}, and this is user {me}", file.display()));
    }
}

/// Checks that nobody else can replace a file in its folder.
fn check_folder(check: &str, file: &Path, report: &mut Report) {
    let Some(folder) = file.parent() else { return };
    if let Some(metadata) = metadata(check, folder, report) {
        check_folder_mode(check, folder, &metadata, report);
    }
}

/// Checks the mode of a folder.
fn check_folder_mode(check: &str, folder: &Path, metadata: &Metadata, report: &mut Report) {
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        let text = format!("others can replace files in {} (mode {mode:04o}); chmod go-w it", folder.display());
        if mode & 0o002 != 0 { report.fail(check, text) } else { report.warn(check, text) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_that_others_can_open_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        fs::write(&file, "").unwrap();
        for (mode, result) in [(0o600, ""), (0o660, "warn"), (0o604, "fail"), (0o640, "warn"), (0o666, "fail")] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            let mut report = Report::default();
            check_private("key", &file, &mut report);
            assert_eq!(report.text().split(' ').next().unwrap(), result, "{mode:o}: {}", report.text());
        }
    }

    #[test]
    fn folders_in_which_others_can_replace_files_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("strongroom.toml");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        for (mode, fault) in [(0o755, false), (0o777, true), (0o1777, false)] {
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            let mut report = Report::default();
            check_not_writable_by_others("configuration", &file, &mut report);
            assert_eq!(report.has_fault(), fault, "{mode:o}: {}", report.text());
        }
    }

    #[test]
    fn what_cannot_be_made_or_written_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let told = |check: fn(&str, &Path, &mut Report), path: &Path| {
            let mut report = Report::default();
            check("log", path, &mut report);
            report.text()
        };
        assert!(told(check_can_be_made, &file.join("below")).contains("is no folder"));
        assert_eq!(told(check_can_be_made, &folder.path().join("new/file")), "");
        // Whoever adds lines makes no folder.
        assert!(told(check_takes_lines, &folder.path().join("new/file")).contains("cannot be written"));
        assert!(told(check_takes_lines, folder.path()).contains("cannot be written"));
        assert_eq!(told(check_takes_lines, &folder.path().join("new")) + &told(check_takes_lines, &file), "");
        assert!(!folder.path().join("new").exists(), "nothing is made");
    }
}
