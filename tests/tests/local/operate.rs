//! Tests of the verbs that look at runs, and of those that cancel and delete them, on the runs of a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use cloudknot_runtime::contract::{IndexEntry, RunKeys, RunState, index_key};
use cloudknot_runtime::store::DirStore;
use cloudknot_tests::skip::skipped;
use cloudknot_tests::trial::{Behavior, Running, Spec, Trial, counted, files, json, run_of, values, wait_for};
use cloudknot_tests::workspaces::cargo_knot;
use cloudknot_tests::{counterparts, schema};
use serde_json::{Value, json};

use crate::terminal::Terminal;

pub(crate) fn trial() -> Trial {
    Trial::new(crate::PROGRAM)
}

/// Returns the command of a verb over the runs of a trial.
pub(crate) fn verb(trial: &Trial, arguments: &[&str]) -> Command {
    let mut command = trial.command_of(cargo_knot(), &[&["knot"], arguments].concat());
    command.env("TZ", "UTC");
    command
}

#[track_caller]
pub(crate) fn check(trial: &Trial, arguments: &[&str], code: i32, expected: &[&str]) -> Output {
    counterparts::check(&mut verb(trial, arguments), code, expected)
}

/// Runs a verb, and returns the JSON that it prints.
#[track_caller]
fn found(trial: &Trial, arguments: &[&str], code: i32) -> Value {
    let output = check(trial, &[arguments, &["--json"]].concat(), code, &[]);
    assert!(output.stdout.starts_with(b"{\"v\":1,"), "{output:?}");
    let found = serde_json::from_slice(&output.stdout).expect("one JSON value and nothing else");
    schema::check(arguments[0], &found);
    found
}

/// Returns the files of a trial's record, with the times of their changes.
pub(crate) fn record(trial: &Trial) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let stat = |path: PathBuf| {
        let metadata = path.metadata().unwrap();
        (path, (metadata.len(), metadata.modified().unwrap()))
    };
    files(&trial.home()).into_iter().map(stat).collect()
}

/// Returns a failing run: 2 items have a value, 2 return errors that differ in a number, and one panics.
fn failing(trial: &Trial) -> String {
    let error = |number: u32| Behavior::Fail(vec![format!("no star {number}")]);
    let inputs =
        [Behavior::Double(1), error(17), error(18), Behavior::Sleep(30, 4), Behavior::Panic("out of range".into())];
    run_of(&trial.map(&Spec::of(inputs))).unwrap()
}

pub(crate) fn word(run: &str) -> &str {
    run.rsplit('-').next().unwrap()
}

/// A run whose items wait for a file, so that the run goes on until it is released.
struct Held {
    program: Running,
    run: String,
    go_on: PathBuf,
}

impl Held {
    fn start(trial: &Trial, items: u64) -> Self {
        let (began, go_on) = (trial.file("began"), trial.file("go-on"));
        let inputs = (0..items).map(|item| Behavior::Wait(began.clone(), item, go_on.clone()));
        let program = trial.start(&["map", &json(&Spec { parallel: Some(2), ..Spec::of(inputs) })]);
        let run = program.wait_for_run_id();
        wait_for("two items to begin", || (counted(&began).len() == 2).then_some(()));
        Self { program, run, go_on }
    }

    fn release(&self) {
        std::fs::write(&self.go_on, "").unwrap();
    }
}

#[test]
fn ended_run_is_shown_with_its_failures() {
    let trial = trial();
    let run = failing(&trial);
    let before = record(&trial);
    let listed = found(&trial, &["runs"], 0);
    let [summary] = &listed["runs"].as_array().unwrap()[..] else { panic!("{listed}") };
    assert_eq!((&summary["run"], &summary["word"]), (&json!(run), &json!(word(&run))));
    assert_eq!(
        (&summary["backend"], &summary["state"], &summary["cost"]),
        (&json!("local"), &json!("failed"), &Value::Null)
    );
    let items = json!({"all": 5, "succeeded": 2, "failed": 3, "running": 0, "waiting": 0, "unfinished": 0});
    assert_eq!(summary["items"], items);
    assert_eq!(summary["rounds"].as_array().map(Vec::len), Some(1));
    assert!(summary["submitted"].as_str().is_some_and(|time| time.ends_with('Z')), "{summary}");
    assert!(summary["function"].as_str().is_some_and(|function| function.ends_with("::work")), "{summary}");

    let status = found(&trial, &["status", &word(&run)[..3], "--exact"], 0);
    assert_eq!(status["items"], items);
    let failures = status["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 2, "failures that differ only in a number have one cause: {status}");
    assert_eq!((&failures[0]["kind"], &failures[0]["count"]), (&json!("returned"), &json!(2)));
    assert_eq!(failures[0]["items"], json!([[1, 2]]));
    assert_eq!(failures[0]["message"], "no star N");
    assert_eq!((&failures[1]["kind"], &failures[1]["message"]), (&json!("panicked"), &json!("out of range")));
    assert!(failures[1]["place"].as_str().is_some_and(|place| place.contains("main.rs:")), "{status}");
    assert_eq!(status["measured"], 2);
    assert_eq!(status["time"]["max_item"], 3);
    assert!(status["time"]["max"].as_f64().is_some_and(|seconds| seconds >= 0.03), "{status}");

    let text = check(&trial, &["status"], 0, &["next     cargo knot logs"]).stdout;
    let text = String::from_utf8(text).unwrap();
    for part in ["over 5 inputs, on this machine", ": 2 done, 3 failed", "returned an error  items 1-2: no star N"] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    check(&trial, &["status", "--check"], 10, &[]);
    check(&trial, &["wait"], 10, &[]);
    check(&trial, &["runs"], 0, &["next     cargo knot status"]);
    assert_eq!(record(&trial), before, "looking at a run changes nothing");
}

#[test]
fn running_run_is_shown_and_waited_for() {
    let trial = trial();
    let held = Held::start(&trial, 5);
    let status = found(&trial, &["status"], 0);
    assert_eq!(
        (&status["state"], &status["items"]["running"], &status["items"]["waiting"]),
        (&json!("running"), &json!(2), &json!(3))
    );
    check(&trial, &["status", "--check"], 11, &["next     cargo knot wait"]);
    check(&trial, &["wait", "--timeout", "10ms"], 11, &[]);
    check(&trial, &["clean", "last", "--yes"], 12, &["it has not ended"]);
    check(&trial, &["cancel", "last", "3", "--yes"], 2, &["cannot cancel item 3 of run", "it has no job of its own"]);
    check(
        &trial,
        &["cancel", "last", "3"],
        12,
        &["cannot cancel these items of the run", "the same command with `--yes`"],
    );
    check(&trial, &["cancel", "last", "5"], 2, &["cannot select item 5"]);
    held.release();
    let line = check(&trial, &["wait", &held.run, "--timeout", "10m"], 0, &[]).stdout;
    let line = String::from_utf8(line).unwrap();
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.contains("is done") && line.contains("5 done"), "{line}");
    assert!(held.program.wait_with_output().status.success());
}

/// Without a terminal, a watched run is a line for each change.
#[test]
fn running_run_is_watched_until_it_has_ended() {
    let trial = trial();
    let held = Held::start(&trial, 3);
    let watching =
        |arguments: &[&str]| Running::start(verb(&trial, &[&["status", "--watch"], arguments].concat()), &trial.home());
    let (text, objects) = (watching(&["--check"]), watching(&["--json"]));
    let first = || text.stdout().contains("2 running, 1 waiting").then_some(());
    wait_for("the first line", first);
    held.release();
    assert!(held.program.wait_with_output().status.success());
    let text = text.wait_with_output();
    assert_eq!(text.status.code(), Some(0));
    let text = String::from_utf8(text.stdout).unwrap();
    let changes: Vec<&str> = text.lines().filter(|line| line.contains(" 3 done")).collect();
    assert_eq!(changes.len(), 2, "a line for the change, and the status at the end:\n{text}");
    let objects = String::from_utf8(objects.wait_with_output().stdout).unwrap();
    let objects: Vec<Value> = objects.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for object in &objects {
        schema::check("status", object);
    }
    assert_eq!(objects.last().unwrap()["state"], "done");
}

/// At a terminal, the lines of a watched run replace each other.
#[test]
fn running_run_is_watched_in_place_at_a_terminal() {
    let trial = trial();
    let held = Held::start(&trial, 3);
    let watch = format!("CLOUDKNOT_HOME='{}' '{}' knot status --watch", trial.home().display(), cargo_knot().display());
    let Some(terminal) = Terminal::start(&trial.file("tmux"), &trial.file("script"), &watch) else {
        return skipped("a watched run at a terminal", "tmux is not installed");
    };
    terminal.wait_for("running: 0 done, 2 running, 1 waiting");
    held.release();
    let screen = terminal.wait_for("exited with 0");
    assert!(held.program.wait_with_output().status.success());
    let items: Vec<&str> = screen.lines().filter(|line| line.starts_with("items ")).collect();
    assert!(matches!(items[..], [line] if line.contains("done") && line.ends_with(": 3 done")), "{screen}");
}

/// A killed program leaves a run that nothing computes.
#[test]
fn abandoned_run_is_waiting_and_can_be_continued() {
    let trial = trial();
    let Held { program, run, go_on } = Held::start(&trial, 3);
    program.kill();
    trial.wait_until_exited();
    std::fs::write(go_on, "").unwrap();
    let status = found(&trial, &["status"], 0);
    assert_eq!((&status["state"], &status["items"]["running"]), (&json!("waiting"), &json!(0)));
    assert!(status["waiting_because"].as_str().is_some_and(|why| why.contains("no program computes it")), "{status}");
    check(&trial, &["wait", "--timeout", "10ms"], 11, &[]);
    let next = format!("next     cargo knot retry {}     cargo knot cancel", word(&run));
    check(&trial, &["status"], 0, &[&next]);
    // Each stops by itself, and says that the run has not ended.
    let patient = [&["status", "--watch", "--check"][..], &["logs", "--follow"], &["wait"]];
    let patient = patient.map(|arguments| Running::start(verb(&trial, arguments), &trial.home()));
    // Only all of it can go on.
    for arguments in [&["retry", "last", "1"][..], &["retry", "--timeout", "2h"]] {
        check(&trial, arguments, 12, &["it has not ended, although no program computes it", "cargo knot cancel"]);
    }
    for command in patient {
        assert_eq!(command.wait_with_output().status.code(), Some(11));
    }
    assert_eq!(values(&trial.attach(&run)).len(), 3);
    assert_eq!(found(&trial, &["status"], 0)["state"], "done");
}

#[test]
fn cancel_needs_a_confirmation_and_keeps_values() {
    let trial = trial();
    let held = Held::start(&trial, 5);
    check(&trial, &["cancel"], 12, &["this was not confirmed", "the same command with `--yes`"]);
    assert_eq!(found(&trial, &["status"], 0)["state"], "running");
    let cancelled = found(&trial, &["cancel", "--yes", "--reason", "the disk is full"], 0);
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(cancelled["cancelled"], json!({"ended": 2, "not_started": 3, "kept": 0}));
    held.program.wait_with_output();
    let status = found(&trial, &["status", "--check"], 10);
    assert_eq!((&status["state"], &status["items"]["unfinished"]), (&json!("cancelled"), &json!(5)));
    assert_eq!(status["cancelled_because"], "the disk is full");
    let again = String::from_utf8(check(&trial, &["cancel", "--yes"], 0, &[]).stdout).unwrap();
    assert!(again.contains("has ended before: it is cancelled"), "{again}");
}

#[test]
fn cancel_of_an_ended_run_changes_nothing() {
    let trial = trial();
    failing(&trial);
    let before = record(&trial);
    let text = check(&trial, &["cancel"], 0, &[]).stdout;
    assert!(String::from_utf8(text).unwrap().contains("has ended before: it is failed"));
    assert_eq!(record(&trial), before);
}

#[test]
fn run_is_named_in_several_ways() {
    let trial = trial();
    let runs: Vec<String> =
        (0..3).map(|number| run_of(&trial.map(&Spec::of([Behavior::Double(number)]))).unwrap()).collect();
    let named = |name: &str| found(&trial, &["status", name], 0)["run"].as_str().unwrap().to_owned();
    assert_eq!(named("last"), runs[2]);
    assert_eq!(named("last-2"), runs[0]);
    assert_eq!(named(word(&runs[1])), runs[1]);
    assert_eq!(named(&runs[1]), runs[1]);
    check(&trial, &["status", "last-3"], 8, &["error: cannot find the run `last-3`", word(&runs[1])]);
    check(&trial, &["status", "20"], 8, &["`20` names 3 runs", "give more letters", word(&runs[0])]);
    let output = verb(&trial, &["wait", "none", "--json"]).output().unwrap();
    let error: Value = serde_json::from_slice(&output.stderr).expect("one JSON object and nothing else");
    schema::check("error", &error);
    assert_eq!((&error["v"], &error["error"]["code"]), (&json!(1), &json!(8)));
    for field in ["message", "causes", "hint"] {
        assert!(!error["error"][field].is_null(), "{error}");
    }
    let limited = found(&trial, &["runs", "--limit", "2"], 0);
    assert_eq!(limited["runs"].as_array().map(Vec::len), Some(2));
    check(&trial, &["runs", "--limit", "2"], 0, &["2 of 3 runs; the same command with `--all` shows all"]);
    check(&trial, &["runs", "--limit", "1", "--state", "done"], 0, &["1 such run, and there may be more"]);
    check(&trial, &["runs", "--limit", "0"], 2, &["--limit"]);
    assert_eq!(
        found(&trial, &["runs", "--function", "work", "--state", "done"], 0)["runs"].as_array().map(Vec::len),
        Some(3)
    );
    assert_eq!(found(&trial, &["runs", "--state", "running"], 0)["runs"], json!([]));
    check(&trial, &["runs", "--function", "other"], 0, &["there are no such runs"]);
}

/// A program gives its run the same name each time.
#[test]
fn runs_of_the_same_name_are_named_by_their_words() {
    let trial = trial();
    let spec = Spec { name: Some("sweep 3".into()), ..Spec::of([Behavior::Double(1)]) };
    trial.map(&spec);
    check(&trial, &["status", "sweep 3"], 0, &[]);
    let last = run_of(&trial.map(&spec)).unwrap();
    check(&trial, &["status", "sweep 3"], 8, &["`sweep 3` names 2 runs", "by the word at its end", word(&last)]);
}

/// A package whose manifest cannot be read still has a Knot, whose runs may be the last ones.
#[test]
fn damaged_manifest_of_a_package_is_an_error() {
    let trial = trial();
    failing(&trial);
    let package = trial.file("package");
    std::fs::create_dir(&package).unwrap();
    std::fs::rename(trial.home(), package.join(".cloudknot")).unwrap();
    let cancel = |code: i32, expected: &[&str]| {
        let mut command = verb(&trial, &["cancel"]);
        counterparts::check(command.env_remove("CLOUDKNOT_HOME").current_dir(&package), code, expected);
    };
    // A program that is installed has its runs in the folder in which it was started.
    cancel(0, &[]);
    std::fs::write(package.join("Cargo.toml"), "[package\n").unwrap();
    cancel(2, &["cannot read the package with `cargo metadata`"]);
}

#[test]
fn errors_of_options_are_json_as_well() {
    let trial = trial();
    let output = verb(&trial, &["status", "--bogus", "--json"]).output().unwrap();
    let error: Value = serde_json::from_slice(&output.stderr).expect("one JSON object and nothing else");
    schema::check("error", &error);
    assert_eq!((output.status.code(), &error["error"]["code"]), (Some(2), &json!(2)));
    assert!(error["error"]["message"].as_str().is_some_and(|message| message.contains("--bogus")), "{error}");
}

#[test]
fn folder_without_runs_is_an_empty_list() {
    let trial = trial();
    check(&trial, &["runs"], 0, &["there are no runs in `"]);
    assert_eq!(found(&trial, &["runs"], 0)["runs"], json!([]));
    check(&trial, &["status"], 8, &["cannot find the run `last`"]);
    assert!(files(&trial.home()).is_empty(), "nothing was written");
}

#[test]
fn clean_deletes_ended_runs_only_if_told_so() {
    let trial = trial();
    let runs: Vec<String> =
        (0..3).map(|number| run_of(&trial.map(&Spec::of([Behavior::Double(number)]))).unwrap()).collect();
    check(&trial, &["clean"], 2, &["cannot choose what to delete", "--older-than 30d --keep 20"]);
    let before = record(&trial);
    let listed = found(&trial, &["clean", "--keep", "1"], 0);
    let named = |found: &Value| {
        let runs = found["runs"].as_array().unwrap().iter();
        runs.map(|run| run["run"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(named(&listed), [runs[1].clone(), runs[0].clone()]);
    assert!(listed["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{listed}");
    check(&trial, &["clean", "--keep", "1"], 0, &["nothing was deleted: --yes deletes 2 runs"]);
    check(&trial, &["clean", "--older-than", "1d"], 0, &["there are no such runs to delete"]);
    assert_eq!(record(&trial), before);

    check(&trial, &["clean", "--inputs-only", word(&runs[2]), "--yes"], 0, &["deleted the inputs of 1 run"]);
    assert!(!trial.run(&runs[2]).join("inputs").exists());
    assert_eq!(found(&trial, &["status"], 0)["state"], "done");

    check(&trial, &["clean", word(&runs[0]), "--yes"], 0, &["deleted 1 run"]);
    assert!(!trial.run(&runs[0]).exists(), "no folder is left");
    assert_eq!(named(&found(&trial, &["clean", "--keep", "0", "--yes"], 0)), [runs[2].clone(), runs[1].clone()]);
    check(&trial, &["runs"], 0, &["there are no runs"]);
    assert!(run_of(&trial.map(&Spec::of([Behavior::Double(1)]))).is_some(), "maps go on");
}

/// A deletion that was interrupted leaves no run, and the next one goes on.
#[test]
fn interrupted_deletion_is_finished_by_the_next_one() {
    let trial = trial();
    let run = failing(&trial);
    let folder = trial.run(&run);
    // The entries in the index go first.
    std::fs::remove_dir_all(folder.parent().unwrap().parent().unwrap().join("index")).unwrap();
    std::fs::write(folder.join("deleting"), "").unwrap();
    assert_eq!(found(&trial, &["status"], 0)["state"], "failed", "it is a run as long as it has a manifest");
    std::fs::remove_file(folder.join("manifest.json")).unwrap();
    assert_eq!(found(&trial, &["runs"], 0)["runs"], json!([]));
    check(&trial, &["status"], 8, &[]);
    check(&trial, &["clean", "--older-than", "30d"], 0, &["--yes deletes 1 run"]);
    check(&trial, &["clean", "--older-than", "30d", "--yes"], 0, &["deleted 1 run"]);
    assert!(!folder.exists());
}

/// A folder without a manifest may be that of a submission in progress.
#[test]
fn submission_in_progress_is_no_run_and_is_kept() {
    let trial = trial();
    let run = failing(&trial);
    std::fs::remove_file(trial.run(&run).join("manifest.json")).unwrap();
    assert_eq!(found(&trial, &["clean", "--keep", "0", "--yes"], 0)["runs"], json!([]));
    assert!(trial.run(&run).join("inputs").exists());
}

#[test]
fn records_of_other_versions_are_listed_and_deleted() {
    let trial = trial();
    let run = failing(&trial);
    let path = trial.run(&run).join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mut check_version = |version: u32, cloudknot: &str, problem: &str| {
        manifest["version"] = json!(version);
        manifest["provenance"] = json!({"cloudknot": cloudknot});
        std::fs::write(&path, manifest.to_string()).unwrap();
        let listed = found(&trial, &["runs"], 0);
        assert_eq!((&listed["runs"][0]["state"], &listed["runs"][0]["problem"]), (&Value::Null, &json!(problem)));
        check(&trial, &["runs"], 0, &[problem]);
        for arguments in [&["status"][..], &["wait"], &["cancel", "--yes"], &["retry"], &["results"]] {
            check(&trial, arguments, 1, &[problem, "cargo knot clean", word(&run)]);
        }
    };
    // Without the entry in the index, as of an older version.
    let _ = std::fs::remove_dir_all(path.parent().unwrap().parent().unwrap().parent().unwrap().join("index"));
    let reads = "this program reads 2)";
    let older = format!("it was written by an older version of cloudknot (its record has version 1, and {reads}");
    check_version(1, "", &older);
    let newer = "it was written by cloudknot 9.0.1, which is newer than this program (its record has version 9, and";
    check_version(9, "9.0.1", &format!("{newer} {reads}"));
    check(&trial, &["clean", "--keep", "0", "--yes"], 0, &["deleted 1 run"]);
    assert!(!trial.run(&run).exists());
}

/// The index shows runs that have ended without a look at each of them.
#[test]
fn index_is_used_for_ended_runs() {
    let trial = trial();
    let (knot, run) = ("cloudknot-tests", "20261128-101530123-k5vzdk");
    let entries = [
        IndexEntry::Submitted {
            backend: "local".into(),
            items: 96,
            inputs: None,
            function: "lab:lab::align".into(),
            name: Some("sweep 3".into()),
        },
        IndexEntry::Ended { round: 1, state: RunState::Failed, done: 94, failed: 2, at_ms: 1_795_861_180_123 },
        IndexEntry::Round { round: 2, items: 2, at_ms: 1_795_861_200_000 },
        IndexEntry::Ended { round: 2, state: RunState::Done, done: 96, failed: 0, at_ms: 1_795_861_212_000 },
    ];
    let keys = entries.iter().map(|entry| index_key(knot, run, entry).unwrap());
    for key in keys.chain([RunKeys::new(knot, run).manifest()]) {
        let path = trial.home().join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    let listed = found(&trial, &["runs"], 0);
    let summary = &listed["runs"][0];
    assert_eq!(
        (&summary["name"], &summary["state"], &summary["seconds"]),
        (&json!("sweep 3"), &json!("done"), &json!(262.0))
    );
    assert_eq!(summary["rounds"][1], json!({"started": "2026-11-28T10:20:00.000Z", "items": 2, "seconds": 12.0}));
    let text = String::from_utf8(check(&trial, &["runs"], 0, &[]).stdout).unwrap();
    assert!(text.contains("└ round 2") && text.contains("4 min 10 s"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 90), "{text}");
}

/// A program that starts while others look at its run computes it.
#[test]
fn looks_do_not_disturb_programs_that_start() {
    let trial = trial();
    let (home, stop) = (trial.home(), Arc::new(AtomicBool::new(false)));
    let looks = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || look_at_all_locks(&home, &stop))
    };
    for number in 0..10 {
        let facts = trial.map(&Spec { parallel: Some(1), ..Spec::of([Behavior::Double(number)]) });
        assert_eq!(values(&facts), [(0, 2 * number)].into());
    }
    stop.store(true, Ordering::Relaxed);
    looks.join().unwrap();
}

fn look_at_all_locks(home: &Path, stop: &AtomicBool) {
    let store = DirStore::new(home);
    while !stop.load(Ordering::Relaxed) {
        for runs in std::fs::read_dir(home.join("knots/cloudknot-tests/runs")).into_iter().flatten().flatten() {
            let run = runs.file_name().into_string().unwrap();
            store.is_locked(&RunKeys::new("cloudknot-tests", &run).lock()).unwrap();
        }
    }
}
