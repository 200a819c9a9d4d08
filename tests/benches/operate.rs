//! Speed of the verbs that look at runs, on records in a folder: 1,000 runs that have ended, and a run of 100,000 items.
//!
//! `cargo bench -p cloudknot-tests --bench operate` needs the program `cargo-knot` of the same build.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cloudknot_runtime::contract::{IndexEntry, Part, PartEnd, RunKeys, RunState, index_key};
use cloudknot_tests::trial::{Behavior, Spec, Trial, run_of};
use cloudknot_tests::workspaces::cargo_knot_released;
use serde_json::{Value, json};

const KNOT: &str = "cloudknot-tests";
const RUNS: u32 = 1_000;
const ITEMS: u64 = 100_000;

fn main() {
    let trial = Trial::new(env!("CARGO_BIN_EXE_trial"));
    let run = run_of(&trial.map(&Spec::of([Behavior::Double(1)]))).expect("the run has an ID");
    for items_in_part in [10, 1_000] {
        enlarge(&trial, &run, items_in_part);
        let parts = ITEMS / items_in_part;
        println!("status of {ITEMS} items in {parts} parts: {:?}", time(&trial, &["status"]));
        println!("  --exact: {:?}", time(&trial, &["status", "--exact"]));
    }
    for number in 0..RUNS {
        record(&trial.home(), number);
    }
    println!("runs, of {RUNS}: {:?}", time(&trial, &["runs"]));
    println!("  --all: {:?}", time(&trial, &["runs", "--all"]));
}

/// Returns the shortest of three times.
fn time(trial: &Trial, verb: &[&str]) -> Duration {
    let once = || {
        let began = Instant::now();
        let mut command: Command = trial.command_of(cargo_knot_released(), &[&["knot"], verb].concat());
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("the command starts");
        assert!(status.success(), "{verb:?}");
        began.elapsed()
    };
    (0..3).map(|_| once()).min().expect("there are three times")
}

/// Writes the record of a run that has ended.
fn record(home: &Path, number: u32) {
    let run = format!("20261128-10{:02}{:02}000-a{number:03}", number / 60, number % 60);
    let submitted = IndexEntry::Submitted {
        backend: "local".into(),
        items: 96,
        inputs: None,
        function: "f:f::f".into(),
        name: None,
    };
    let ended = IndexEntry::Ended { round: 1, state: RunState::Done, done: 96, failed: 0, at_ms: 1_795_860_940_000 };
    let entries = [submitted, ended].map(|entry| index_key(KNOT, &run, &entry).expect("the ID has the form of a host"));
    for key in entries.into_iter().chain([RunKeys::new(KNOT, &run).manifest()]) {
        write(home.join(key), b"");
    }
}

/// Replaces the record of a run by that of one with many items, whose parts have no values.
fn enlarge(trial: &Trial, run: &str, items_in_part: u64) {
    let (home, keys) = (trial.home(), RunKeys::new(KNOT, run));
    let path = home.join(keys.manifest());
    let mut manifest: Value =
        serde_json::from_slice(&std::fs::read(&path).expect("the manifest is readable")).expect("the manifest is JSON");
    manifest["items"] = json!(ITEMS);
    write(path, manifest.to_string().as_bytes());
    let _ = std::fs::remove_file(home.join(keys.inputs()));
    let results = home.join(keys.results());
    let mut stored =
        std::fs::read_dir(&results).expect("there are results").map(|entry| entry.expect("an entry").path());
    let first = stored.next().expect("there is a part");
    let name = first.file_name().and_then(|name| name.to_str()).expect("a part has a name");
    let part = cloudknot_runtime::contract::part_of(&format!("results/{name}")).expect("the name is that of a part");
    let bytes = std::fs::read(&first).expect("the part is readable");
    let row = PartEnd::parse(part, &bytes).expect("the part has a table").rows[0];
    let (mut table, mut end) = (Vec::new(), Vec::new());
    (0..items_in_part).for_each(|_| row.append(&mut table));
    PartEnd::append(&table, b"{}", &mut end);
    std::fs::remove_dir_all(&results).expect("the folder can be removed");
    for first in (0..ITEMS).step_by(usize::try_from(items_in_part).expect("a small number")) {
        write(home.join(keys.part(Part { first, last: first + items_in_part - 1 })), &end);
    }
}

fn write(path: PathBuf, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("the path has a folder")).expect("the folder can be created");
    std::fs::write(path, bytes).expect("the file can be written");
}
