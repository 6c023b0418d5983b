//! Makes `include/strongroom.h` and `include/exports.txt` from the sources of the C boundary.
//!
//! With `--check` it writes nothing, and fails when either file is not what the sources say.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where functions, types and numbers of our own stand.
const HEADER_SOURCES: &[&str] = &["src/ck/vendor.rs", "src/abi/function_list.rs"];
/// How a number of the header starts in the sources.
const NUMBER: &str = "\npub const ";
/// How an export starts in the sources.
const EXPORT: &str = "\npub unsafe extern \"C\" fn ";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let check = std::env::args().any(|arg| arg == "--check");
    match run(check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("header: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(check: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the package has no parent folder")?;
    let include = root.join("include");
    for (name, text) in [("strongroom.h", header(root)?), ("exports.txt", exports(root)?)] {
        settle(&include.join(name), &text, check)?;
    }
    Ok(())
}

/// Writes a file, or checks that it is what it would be written as.
fn settle(path: &Path, text: &str, check: bool) -> Result<()> {
    if !check {
        return Ok(fs::write(path, text)?);
    }
    match fs::read_to_string(path) {
        Ok(found) if found == text => Ok(()),
        _ => Err(format!("{} is not what the sources say; run `make header`", path.display()).into()),
    }
}

/// Makes the header from the vendor's numbers, the vendor's table and the files of `SR_*` functions.
fn header(root: &Path) -> Result<String> {
    let mut builder = cbindgen::Builder::new().with_config(cbindgen::Config::from_file(root.join("cbindgen.toml"))?);
    let own = boundary(root)?.into_iter().filter(|path| has_prefix(path, "sr_"));
    let mut names = BTreeSet::new();
    for path in HEADER_SOURCES.iter().map(|path| root.join(path)).chain(own) {
        check_names(&fs::read_to_string(&path)?, &mut names)?;
        builder = builder.with_src(path);
    }
    let mut text = Vec::new();
    builder.generate()?.write(&mut text);
    Ok(String::from_utf8(text)?)
}

/// Refuses a number whose name another one has: cbindgen would keep one of them without a word.
fn check_names(source: &str, names: &mut BTreeSet<String>) -> Result<()> {
    for name in source.split(NUMBER).skip(1).filter_map(|rest| rest.split(':').next()) {
        if !names.insert(name.to_owned()) {
            return Err(format!("{name} is defined twice; give one of them another name").into());
        }
    }
    Ok(())
}

/// Lists what the library exports, sorted, one name a line.
fn exports(root: &Path) -> Result<String> {
    let mut names = BTreeSet::new();
    for path in boundary(root)?.iter().filter(|path| !has_prefix(path, "source_tests")) {
        let text = fs::read_to_string(path)?;
        names.extend(text.split(EXPORT).skip(1).filter_map(|rest| rest.split('(').next()).map(str::to_owned));
    }
    Ok(names.into_iter().map(|name| name + "\n").collect())
}

/// The files of the C boundary, in a fixed order.
fn boundary(root: &Path) -> Result<Vec<PathBuf>> {
    let files = fs::read_dir(root.join("src/abi"))?.map(|file| file.map(|file| file.path()));
    let mut files = files.collect::<std::io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

fn has_prefix(path: &Path, prefix: &str) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_two_files_give_to_numbers_is_refused() {
        let (mut names, one) = (BTreeSet::new(), "\n/// One.\npub const SR_ONE: CK_FLAGS = 1;\n");
        check_names(one, &mut names).expect("it is new");
        check_names("\npub const SR_TWO: CK_ULONG = 1;\n", &mut names).expect("it is new");
        let error = check_names(one, &mut names).expect_err("it is there already").to_string();
        assert!(error.starts_with("SR_ONE is defined twice"), "{error}");
    }
}
