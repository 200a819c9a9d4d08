//! Tests of the seam between host and worker: the same public API in both, and few places that differ.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::architecture::workspace;

/// Maximum number of attributes in the library that compile code for some builds only, besides those of tests.
const MAX_ATTRIBUTES: usize = 40;

#[test]
fn cfg_attributes_are_limited() {
    let found = attributes("cfg");
    let list: Vec<_> = found.iter().map(|(location, line, _)| format!("{location}: {line}")).collect();
    assert!(
        found.len() <= MAX_ATTRIBUTES,
        "{} attributes, {MAX_ATTRIBUTES} at most:\n{}",
        found.len(),
        list.join("\n")
    );
}

/// A module that is absent from a worker is private to the crate, so a user cannot name it.
#[test]
fn only_private_modules_are_absent_from_a_worker() {
    for (location, line, next) in attributes("cloudknot_worker") {
        let is_lint_or_path = line.starts_with("#![cfg_attr(") || line.contains("path = \"host_absent.rs\"");
        let is_private = next.starts_with("mod ") || next.starts_with("pub(crate) mod ");
        // These two files contain the generated main, which differs, and the terminal.
        let is_start = location.starts_with("__private.rs") || location.starts_with("program.rs");
        assert!(is_lint_or_path || is_private || is_start, "{location}: `{line}` before `{next}`");
    }
}

#[test]
fn host_program_covers_public_api() {
    let library = fs::read_to_string(workspace().join("cloudknot/src/lib.rs")).expect("the file of the library exists");
    let program =
        fs::read_to_string(workspace().join("tests/src/bin/whole.rs")).expect("the file of the program exists");
    let words = |text: &str| -> BTreeSet<String> {
        text.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned).collect()
    };
    let used = words(&program);
    let exports = library.split("#[cfg(feature = \"deploy\")]\npub use ").skip(1);
    let exports = exports.map(|rest| rest.split_once(';').expect("a declaration ends").0);
    let named: BTreeSet<_> = exports.flat_map(words).collect();
    let paths =
        ["", "build", "deploy", "docker_image", "home", "knot", "login", "pars", "pipeline", "plan", "settings"];
    let missing: Vec<_> =
        named.iter().filter(|name| !paths.contains(&name.as_str()) && !used.contains(*name)).collect();
    assert!(named.len() > 30, "{named:?}");
    assert!(missing.is_empty(), "tests/src/bin/whole.rs does not name {missing:?}");
}

/// Returns the attributes of the library that contain this word, besides those of tests: location, line, and the next
/// line.
fn attributes(word: &str) -> Vec<(String, String, String)> {
    let source = workspace().join("cloudknot/src");
    let mut found = Vec::new();
    for file in files(&source) {
        let text = fs::read_to_string(&file).expect("the file is UTF-8");
        let name = file.strip_prefix(&source).expect("the file is in the folder").display().to_string();
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let is_attribute = line.starts_with("#[cfg") || line.starts_with("#![cfg");
            // A longer attribute continues on the next lines.
            let whole =
                if line.ends_with('(') { lines[at..].iter().take(4).copied().collect() } else { (*line).to_owned() };
            if is_attribute && whole.contains(word) && !line.contains("cfg(test)") {
                let next = lines.get(at + 1).copied().unwrap_or_default();
                found.push((format!("{name}:{}", at + 1), whole, next.to_owned()));
            }
        }
    }
    assert!(!found.is_empty(), "the library has attributes with `{word}`");
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).expect("the folder exists").map(|entry| entry.expect("the folder can be read").path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let rust = files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs"));
    rust.chain(folders.iter().flat_map(|folder| self::files(folder))).collect()
}
