//! What the compiler cannot say of these files, read from their text.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use super::function_list;

/// The longest export in lines, from its name to its last brace.
const LONGEST_EXPORT: usize = 18;

/// The text of every file here but this one.
fn sources() -> Vec<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/abi");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| !path.ends_with("source_tests.rs"));
    files.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect()
}

/// The name and the text after it, up to the closing brace in the first column, of each function that C sees.
fn exports() -> Vec<(String, String)> {
    let mut exports = Vec::new();
    for (_, text) in sources() {
        for rest in text.split("\npub unsafe extern \"C\" fn ").skip(1) {
            let (name, rest) = rest.split_once('(').unwrap();
            let (export, _) = rest.split_once("\n}\n").unwrap();
            exports.push((name.to_owned(), export.to_owned()));
        }
    }
    assert!(exports.len() > 100, "only {} exports were found", exports.len());
    exports
}

/// Tells whether a body is one call of a guard with this function's name, and nothing beside it.
fn is_one_guard(name: &str, body: &str) -> bool {
    let Some((guard, arguments)) = body.trim().split_once('(') else { return false };
    let mut depth = 1_usize;
    let end = arguments.char_indices().find(|(_, letter)| {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    let is_guard =
        ["guard", "guard_session", "guard_operation", "guard_uninitialized", "guard_unrecorded"].contains(&guard);
    is_guard && arguments.starts_with(&format!("\"{name}\"")) && end.is_some_and(|(at, _)| at + 1 == arguments.len())
}

#[test]
fn r16_each_export_is_one_short_call_of_a_guard() {
    for (name, export) in exports() {
        let (_, body) = export.split_once("-> CK_RV {\n").unwrap_or_else(|| panic!("{name} does not answer a CK_RV"));
        assert!(is_one_guard(&name, body), "the body of {name} is not one call of a guard with its name:\n{body}");
        assert!(body.lines().count() <= LONGEST_EXPORT, "{name} is too long");
    }
}

#[test]
fn the_check_of_bodies_can_fail() {
    assert!(is_one_guard("C_X", "    guard(\"C_X\", |_| Ok(()))"));
    for bad in ["guard(\"C_Y\", |_| Ok(()))", "0", "guard(\"C_X\", |_| Ok(())) | 1", "x(); guard(\"C_X\", |_| Ok(()))"]
    {
        assert!(!is_one_guard("C_X", bad), "{bad}");
    }
}

#[test]
fn every_extern_function_is_an_export_of_this_form() {
    let plain: usize = sources()
        .iter()
        .map(|(_, text)| text.split("#[cfg(test)]").next().unwrap_or_default())
        .map(|text| text.matches("#[unsafe(no_mangle)]\npub unsafe extern \"C\" fn ").count())
        .sum();
    assert_eq!(plain, exports().len());
}

#[test]
fn r44_every_export_stands_in_a_table() {
    let (standard, own): (BTreeSet<_>, BTreeSet<_>) =
        exports().into_iter().map(|(name, _)| name).partition(|name| name.starts_with("C_"));
    let listed: BTreeSet<_> = function_list::NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(standard, listed);
    let table = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/abi/function_list.rs")).unwrap();
    for name in own {
        assert!(name.starts_with("SR_"), "{name} is neither C_* nor SR_*");
        assert!(table.contains(&format!("    pub {name}:")), "{name} is missing in SR_FUNCTION_LIST");
    }
}

#[test]
fn every_unsafe_block_says_why_it_is_safe() {
    for (file, text) in sources() {
        let mut explained = false;
        for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
            if line.starts_with("//") {
                explained |= line.starts_with("// SAFETY: ");
                continue;
            }
            let blocks = line.contains("unsafe {") || line.starts_with("unsafe impl");
            assert!(!blocks || explained, "{file}:{number} has an unsafe block without a SAFETY line");
            explained &= line.ends_with('=');
        }
    }
}

/// Lists the sources of the library below a folder, without those of tests.
fn below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let is_test = |path: &std::path::Path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.contains("tests") || ["bin", "emulator.rs", "measure.rs"].contains(&name.as_str())
    };
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| !is_test(path));
    entries.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
}

#[test]
fn r07_nothing_is_made_once_in_a_process_under_a_lock_that_a_fork_can_cut() {
    let sources = below(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
    assert!(sources.len() > 100, "only {} sources", sources.len());
    for path in sources {
        let source = std::fs::read_to_string(&path).unwrap();
        for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let once =
                ["OnceLock", "Once ", "Once:", "OnceCell"].iter().any(|name| line.contains(&format!(": {name}")));
            let made_once = line.contains("LazyLock") || (line.contains("static ") && once);
            assert!(!made_once, "{}: use secret::Table or PerProcess: {line}", path.display());
        }
    }
}
