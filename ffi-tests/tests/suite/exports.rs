//! What the built file exports and links, and what the sources import.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use ffi_tests::Module;
use ffi_tests::module::workspace;

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Lists what the module exports.
pub fn exported_symbols() -> BTreeSet<String> {
    let path = Module::path();
    let text = run("nm", &["-D", "--defined-only", path.to_str().expect("a path of UTF-8")]);
    text.lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .map(|name| name.split('@').next().unwrap_or(name).to_owned())
        .collect()
}

/// The tests judge the file that is there: one that is older than its sources proves nothing.
#[test]
fn the_module_is_newer_than_its_sources() {
    if std::env::var_os("STRONGROOM_TEST_MODULE").is_some() {
        return;
    }
    let time_of = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).expect("a time");
    // Cargo writes beside the module what it was made of; sources of the command and of unit tests are not among that.
    let made_of = std::fs::read_to_string(Module::path().with_extension("d")).expect("the list of sources");
    let sources =
        made_of.split_whitespace().map(Path::new).filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let sources: Vec<_> = sources.collect();
    assert!(sources.iter().any(|path| path.ends_with("src/lib.rs")), "{made_of}");
    let built = time_of(&Module::path());
    let newer: Vec<_> = sources.into_iter().filter(|path| time_of(path) > built).collect();
    assert!(newer.is_empty(), "run `cargo build --release` first; newer than the module: {newer:?}");
}

#[test]
fn r10_exports_are_the_documented_ones() {
    let exported = exported_symbols();
    let strangers: Vec<_> =
        exported.iter().filter(|name| !name.starts_with("C_") && !name.starts_with("SR_")).collect();
    assert!(strangers.is_empty(), "exported besides C_* and SR_*: {strangers:?}");
    let list = std::fs::read_to_string(workspace().join("include/exports.txt")).expect("include/exports.txt");
    let documented: BTreeSet<String> = list
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    assert_eq!(exported, documented, "include/exports.txt is not what the module exports");
}

#[test]
fn r10_every_function_of_the_tables_is_exported() {
    let exported = exported_symbols();
    let missing: Vec<_> = ffi_tests::signatures::FUNCTIONS
        .iter()
        .filter(|function| !exported.contains(function.0))
        .map(|function| function.0)
        .collect();
    assert!(missing.is_empty(), "not exported: {missing:?}");
}

#[test]
fn r10_nothing_but_the_c_library_is_linked() {
    let path = Module::path();
    let text = run("ldd", &[path.to_str().expect("a path of UTF-8")]);
    let allowed =
        ["linux-vdso.so", "libc.so", "libm.so", "libgcc_s.so", "libpthread.so", "libdl.so", "librt.so", "ld-linux"];
    for line in text.lines().map(str::trim) {
        assert!(allowed.iter().any(|name| line.contains(name)), "linked besides the C library: {line}");
    }
}

#[test]
fn r03_the_module_is_never_unloaded_and_runs_nothing_when_loaded() {
    let path = Module::path();
    let path = path.to_str().expect("a path of UTF-8");
    assert!(run("readelf", &["-d", path]).contains("NODELETE"), "linked with -z nodelete");
    // The C runtime's; the standard library's reading of argv; AWS-LC's look at what the processor can do, and its wiping of
    // the random generators at exit. r01 proves that exits are clean with them.
    let harmless = [
        "frame_dummy",
        "__do_global_dtors_aux",
        "init_wrapper",
        "do_library_init",
        "rand_thread_local_state_clear_all",
        "tree_jitter_free_global_drbg",
    ];
    for (section, function) in constructors(path) {
        assert!(harmless.iter().any(|name| function.contains(name)), "{section} runs {function}");
    }
}

/// Lists what runs when the file is loaded and unloaded: section and function.
fn constructors(path: &str) -> Vec<(String, String)> {
    let hex = |text: &str| usize::from_str_radix(text, 16).expect("hexadecimal");
    let symbols = run("nm", &[path]);
    let name_of = |address: usize| {
        let is =
            |line: &&str| line.split_whitespace().next().is_some_and(|word| word.len() == 16 && hex(word) == address);
        symbols.lines().find(is).map_or_else(|| format!("{address:#x}"), |line| line.to_owned())
    };
    let sections = run("readelf", &["-SW", path]);
    let relocations = run("readelf", &["-rW", path]);
    let mut all = Vec::new();
    for name in [".init_array", ".fini_array", ".ctors", ".dtors"] {
        let Some(line) = sections.lines().find(|line| line.contains(&format!(" {name} "))) else { continue };
        let words: Vec<&str> = line.split(name).nth(1).expect("the name is there").split_whitespace().collect();
        let (start, size) = (hex(words[1]), hex(words[3]));
        for words in relocations.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()) {
            if let [offset, _, "R_X86_64_RELATIVE", addend] = words[..]
                && (start..start + size).contains(&hex(offset))
            {
                all.push((name.to_owned(), name_of(hex(addend))));
            }
        }
    }
    assert!(!all.is_empty(), "the C runtime has at least one");
    all
}

/// Who may import whom, as ARCHITECTURE.md says; `ck`, `log`, `error` and `secret` are for all, but `crypto` has the last two alone.
const ARROWS: &[(&str, &[&str])] = &[
    ("abi", &["token", "keys", "seal", "kms", "store", "audit", "config", "mechanism", "runtime", "crypto"]),
    ("keys", &["token", "seal", "kms", "store", "audit", "mechanism", "runtime"]),
    ("token", &["mechanism", "seal", "store", "audit"]),
    ("mechanism", &["crypto"]),
    ("seal", &["crypto", "kms"]),
    ("kms", &["runtime"]),
    ("config", &["kms", "keys"]),
    ("store", &["runtime"]),
    ("audit", &["store"]),
    // AWS-LC has locks that a fork must not copy in mid-work.
    ("crypto", &["runtime"]),
    ("ck", &[]),
    ("error", &[]),
    ("secret", &[]),
    ("log", &[]),
    ("runtime", &[]),
    // The Rust face stands where `abi` does.
    ("manager", &["abi", "audit", "keys", "token", "seal", "kms", "config", "mechanism", "crypto"]),
];

/// Files that tie everything together.
fn may_import_all(path: &Path) -> bool {
    let text = path.to_string_lossy();
    ["/src/abi/compose.rs", "/src/lib.rs"].iter().any(|file| text.ends_with(file)) || text.contains("/src/bin/")
}

fn sources(directory: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("the sources").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            sources(&entry, all);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            all.push(entry);
        }
    }
}

/// Finds the modules named after `crate::`, one at a time or in braces.
fn imported(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let first_word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    for part in text.split("crate::").skip(1) {
        match part.strip_prefix('{') {
            None => {
                found.insert(first_word(part));
            }
            Some(list) => {
                let mut depth = 0;
                let mut start = true;
                for (index, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && !c.is_whitespace() => {
                            found.insert(first_word(&list[index..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

/// Leaves out comments and the tests at the end of a file.
fn code_of(text: &str) -> String {
    let tests = text.match_indices("#[cfg(test)]").find(|(at, _)| {
        let item = text[*at..].lines().skip(1).find(|line| !line.starts_with("#["));
        item.is_some_and(|line| line.starts_with("mod tests"))
    });
    let code = tests.map_or(text, |(at, _)| &text[..at]);
    code.lines().map(|line| line.split("//").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

fn forbidden(part: &str, text: &str) -> Vec<String> {
    let Some(row) = ARROWS.iter().find(|row| row.0 == part) else {
        return vec![format!("whatever it likes: src/{part} stands in no row of the import rules")];
    };
    let parts: BTreeSet<&str> = ARROWS.iter().map(|row| row.0).collect();
    let allowed = |name: &str| {
        name == part
            || row.1.contains(&name)
            || matches!(name, "error" | "secret")
            || (matches!(name, "ck" | "log") && part != "crypto")
    };
    imported(&code_of(text)).into_iter().filter(|name| parts.contains(name.as_str()) && !allowed(name)).collect()
}

#[test]
fn sources_keep_to_the_import_rules() {
    let root = workspace().join("src");
    let mut all = Vec::new();
    sources(&root, &mut all);
    assert!(all.len() > 10, "the sources are read");
    let mut wrong = Vec::new();
    for path in all.iter().filter(|path| !may_import_all(path)) {
        let text = std::fs::read_to_string(path).expect("a source");
        let inside = path.strip_prefix(&root).expect("below src");
        let part = inside
            .components()
            .next()
            .expect("a name")
            .as_os_str()
            .to_string_lossy()
            .trim_end_matches(".rs")
            .to_owned();
        wrong.extend(forbidden(&part, &text).into_iter().map(|name| format!("{} imports {name}", inside.display())));
    }
    assert!(wrong.is_empty(), "forbidden imports:\n{}", wrong.join("\n"));
}

#[test]
fn the_import_check_sees_forbidden_arrows() {
    assert_eq!(forbidden("crypto", "use crate::ck::CK_RV;\nuse crate::{error, secret::SecureBytes};"), ["ck"]);
    assert_eq!(forbidden("store", "use crate::{error::{Error, Kind}, kms, seal::x};"), ["kms", "seal"]);
    assert_eq!(forbidden("store", "// use crate::kms\nfn f() { crate::crypto::x() }"), ["crypto"]);
    assert!(forbidden("token", "use crate::mechanism::Mechanism;\nuse crate::store;").is_empty());
}
