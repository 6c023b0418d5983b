//! Looks at the permissions of files: who else could read or replace them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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
        Ok(metadata) if metadata.permissions().readonly() => {
            report.fail(check, format!("{} is not writable, so {} cannot be made", folder.display(), file.display()));
        }
        Ok(metadata) => check_folder_mode(check, folder, &metadata, report),
        Err(error) => report.fail(check, format!("{} cannot be looked at: {error}", folder.display())),
    }
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
}
