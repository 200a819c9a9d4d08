//! Tests that each promise of `docs/promises.md` names tests that exist.

use std::collections::BTreeSet;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the repository")
}

fn names_of_tests(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("the folder exists").flatten() {
        let path = entry.path();
        if path.is_dir() {
            names_of_tests(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source is text");
            let functions = text.lines().filter_map(|line| {
                let line = line.trim_start().trim_start_matches("async ");
                Some(line.strip_prefix("fn ")?.split(['(', '<']).next()?.to_owned())
            });
            names.extend(functions);
        }
    }
}

#[test]
fn each_promise_names_existing_tests() {
    let mut tests = BTreeSet::new();
    for folder in ["tests/tests", "cloudknot-runtime/src", "cloudknot-runtime/tests", "cloudknot/src"] {
        names_of_tests(&root().join(folder), &mut tests);
    }
    let page = std::fs::read_to_string(root().join("docs/promises.md")).expect("the page exists");
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.contains("| tests |"));
    let mut promises = 0;
    for row in rows {
        let cell = row.rsplit('|').nth(1).expect("a row has cells");
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        let missing: Vec<_> = names
            .iter()
            .filter(|name| !tests.contains(**name) && !root().join(name).exists())
            .filter(|name| !root().join("tests/ui/fail").join(format!("{name}.rs")).exists())
            .collect();
        assert!(!names.is_empty() && missing.is_empty(), "{row}\ndoes not exist: {missing:?}");
        promises += 1;
    }
    assert!(promises > 20, "the page lists the promises in tables");
}
