//! Tests that a run outlives its program: another one attaches to it by its ID, whatever happened to the program or to
//! the store.

use std::path::PathBuf;
use std::process::Command;

use cloudknot_tests::trial::{
    Behavior, Fact, RetrySpec, Spec, Trial, counted, facts, failures, json, kill, run_of, values, wait_for,
};
use rustix::process::Signal;

fn trial() -> Trial {
    Trial::new(crate::PROGRAM)
}

#[track_caller]
fn check_error(facts: &[Fact], kind: &str, words: &[&str]) {
    let [Fact::Error(found, text)] = facts else { panic!("not exactly one error: {facts:?}") };
    assert_eq!(found, kind, "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }
}

/// Finished run of twelve items in parts of four, which has written the executed items to a file.
struct StoredRun {
    trial: Trial,
    ran: PathBuf,
    run: String,
}

impl StoredRun {
    fn new() -> Self {
        // A part is stored early if its values wait too long, on a machine that is busy with other things.
        std::iter::repeat_with(Self::attempt)
            .find(|stored| stored.trial.stored(&stored.run, "results").len() == 3)
            .unwrap()
    }

    fn attempt() -> Self {
        let trial = trial();
        let ran = trial.file("ran");
        let inputs = (0..12).map(|number| Behavior::Count(ran.clone(), number, 0));
        let facts = trial.map(&Spec { chunk: Some(4), parallel: Some(1), ..Spec::of(inputs) });
        assert_eq!(values(&facts), numbers(0..12));
        Self { run: run_of(&facts).unwrap(), trial, ran }
    }

    fn attach(&self) -> Vec<Fact> {
        self.trial.attach(&self.run)
    }

    /// Returns the path of the part with the items 4 to 7.
    fn part(&self) -> PathBuf {
        self.trial.run(&self.run).join("results/000000000004-000000000007")
    }

    fn edit(&self, file: &str, edit: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
        let path = self.trial.run(&self.run).join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        edit(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn edit_part(&self, edit: impl FnOnce(&mut Vec<u8>)) {
        self.edit("results/000000000004-000000000007", edit);
    }

    fn edit_manifest(&self, name: &str, value: serde_json::Value) {
        self.edit("manifest.json", |bytes| {
            let mut manifest: serde_json::Value = serde_json::from_slice(bytes).unwrap();
            manifest[name] = value;
            *bytes = serde_json::to_vec(&manifest).unwrap();
        });
    }

    /// Checks that only these items cannot be read, and that no item was executed again. After the damaged file is
    /// removed, its items are recomputed.
    #[track_caller]
    fn check_damage(&self, damaged: &[usize], reason: &str) {
        let facts = self.attach();
        let failures = failures(&facts);
        assert_eq!(failures.keys().copied().collect::<Vec<_>>(), damaged);
        for failed in failures.values() {
            assert_eq!(failed.kind, "Infrastructure");
            for word in [reason, "results/000000000004-000000000007", "delete the object"] {
                assert!(failed.message.contains(word), "`{word}` is not in: {}", failed.message);
            }
        }
        let others = (0..12).filter(|item| !damaged.contains(item)).map(|item| (item, item as u64));
        assert_eq!(values(&facts), others.collect());
        assert_eq!(counted(&self.ran).len(), 12);
        std::fs::remove_file(self.part()).unwrap();
        assert_eq!(values(&self.attach()), numbers(0..12));
        assert_eq!(counted(&self.ran)[12..], [4, 5, 6, 7]);
    }
}

fn numbers(items: std::ops::Range<usize>) -> std::collections::BTreeMap<usize, u64> {
    items.map(|item| (item, item as u64)).collect()
}

#[test]
fn finished_run_is_read_without_running() {
    let stored = StoredRun::new();
    assert_eq!(values(&stored.attach()), numbers(0..12));
    assert_eq!(counted(&stored.ran).len(), 12);
}

#[test]
fn unknown_run_is_not_found() {
    let trial = trial();
    for run in ["20260101-000000000-000000", "", "..", "a/b", "manifest.json"] {
        check_error(&trial.attach(run), "NotFound", &["cannot attach to run", run, "CLOUDKNOT_HOME", "hint"]);
    }
}

#[test]
fn run_of_another_function_is_refused() {
    let stored = StoredRun::new();
    let facts = stored.trial.facts(&["attach-other", &stored.run]);
    check_error(&facts, "Types", &["the run belongs to `cloudknot-tests:trial::work`", "trial::other", "hint"]);
}

#[test]
fn changed_types_are_shown() {
    let stored = StoredRun::new();
    stored.edit_manifest("fingerprint", 1.into());
    stored.edit("manifest.json", |bytes| {
        let text = String::from_utf8(std::mem::take(bytes)).unwrap();
        assert!(text.contains("Double(u64)"), "{text}");
        *bytes = text.replace("Double(u64)", "Double(f32)").into_bytes();
    });
    let facts = stored.attach();
    check_error(&facts, "Types", &["have changed since", "- ", "Double(f32)", "+ ", "Double(u64)", "hint"]);
}

#[test]
fn manifest_of_another_version_is_refused() {
    let stored = StoredRun::new();
    // Another version may lack the fields of this version.
    stored.edit("manifest.json", |bytes| *bytes = br#"{"version": 7, "items": "many"}"#.to_vec());
    let newer =
        ["of an unknown version, which is newer than this program", "version 7", "reads 2", "hint: update cloudknot"];
    check_error(&stored.attach(), "Store", &newer);
    let later = br#"{"version": 3, "provenance": {"cloudknot": "9.8.7", "program": 1}}"#;
    stored.edit("manifest.json", |bytes| *bytes = later.to_vec());
    check_error(&stored.attach(), "Store", &["written by cloudknot 9.8.7", "hint: update cloudknot"]);
    stored.edit("manifest.json", |bytes| *bytes = br#"{"version": 1, "created": "2026-01-01T00:00:00Z"}"#.to_vec());
    let older =
        ["written by an older version of cloudknot", "version 1", "reads 2", "hint: read the run with the version"];
    check_error(&stored.attach(), "Store", &older);
}

#[test]
fn damaged_manifests_are_refused() {
    let stored = StoredRun::new();
    for (name, value) in [("chunk", 0), ("parallel", 0), ("version", 0)] {
        let stored = StoredRun::new();
        stored.edit_manifest(name, value.into());
        check_error(&stored.attach(), "Store", &["cannot read", "manifest.json", "hint"]);
    }
    stored.edit_manifest("run", "20260101-000000000-000000".into());
    check_error(&stored.attach(), "Store", &["cannot read", "manifest.json"]);
    stored.edit("manifest.json", |bytes| bytes.truncate(bytes.len() / 2));
    check_error(&stored.attach(), "Store", &["cannot read", "manifest.json", "damaged"]);
    stored.edit("manifest.json", Vec::clear);
    check_error(&stored.attach(), "Store", &["cannot read", "manifest.json", "damaged"]);
    std::fs::remove_file(stored.trial.run(&stored.run).join("manifest.json")).unwrap();
    check_error(&stored.attach(), "NotFound", &[&stored.run]);
}

#[test]
fn damaged_value_fails_only_its_item() {
    let stored = StoredRun::new();
    // Four frames, each with 32 bytes and a number of one byte: this is the number of item 5.
    stored.edit_part(|bytes| bytes[33 + 32] ^= 1);
    stored.check_damage(&[5], "checksum");
}

#[test]
fn truncated_part_fails_missing_items() {
    let stored = StoredRun::new();
    stored.edit_part(|bytes| bytes.truncate(2 * 33 + 10));
    stored.check_damage(&[6, 7], "10 bytes remain");
}

#[test]
fn part_truncated_within_a_value_fails_that_item() {
    let stored = StoredRun::new();
    stored.edit_part(|bytes| bytes.truncate(4 * 33 - 1));
    stored.check_damage(&[7], "truncated");
}

#[test]
fn empty_part_fails_its_items() {
    let stored = StoredRun::new();
    stored.edit_part(Vec::clear);
    stored.check_damage(&[4, 5, 6, 7], "0 bytes remain");
}

#[test]
fn zeroed_part_fails_its_items() {
    let stored = StoredRun::new();
    // A loss of power may leave this behind.
    stored.edit_part(|bytes| bytes.fill(0));
    stored.check_damage(&[4, 5, 6, 7], "not written by cloudknot");
}

#[test]
fn removed_part_is_recomputed() {
    let stored = StoredRun::new();
    std::fs::remove_file(stored.part()).unwrap();
    assert_eq!(values(&stored.attach()), numbers(0..12));
    assert_eq!(counted(&stored.ran)[12..], [4, 5, 6, 7]);
}

#[test]
fn unknown_files_are_ignored() {
    let stored = StoredRun::new();
    let results = stored.trial.run(&stored.run).join("results");
    for name in ["notes.txt", "000000000000-000000000099", "7-5", "000000000003"] {
        std::fs::write(results.join(name), "not a part").unwrap();
    }
    assert_eq!(values(&stored.attach()), numbers(0..12));
}

#[test]
fn missing_inputs_fail_only_items_without_value() {
    let stored = StoredRun::new();
    std::fs::remove_file(stored.trial.run(&stored.run).join("inputs")).unwrap();
    assert_eq!(values(&stored.attach()), numbers(0..12));
    std::fs::remove_file(stored.part()).unwrap();
    let facts = stored.attach();
    assert_eq!(values(&facts).len(), 8);
    let failures = failures(&facts);
    assert_eq!(failures.keys().copied().collect::<Vec<_>>(), [4, 5, 6, 7]);
    for failed in failures.values() {
        assert_eq!(failed.kind, "Infrastructure");
        assert!(failed.message.contains("/inputs`"), "{}", failed.message);
    }
}

#[test]
fn damaged_input_fails_only_its_item() {
    let stored = StoredRun::new();
    stored.edit("inputs", |bytes| {
        // All inputs of this run are equally long.
        let input = bytes.len() / 12;
        bytes[6 * input - 1] ^= 1;
    });
    std::fs::remove_file(stored.part()).unwrap();
    let facts = stored.attach();
    assert_eq!(values(&facts).len(), 11);
    let failed = &failures(&facts)[&5];
    assert_eq!(failed.kind, "Codec");
    assert!(failed.message.contains("input: ") && failed.message.contains("checksum"), "{failed:?}");
}

#[test]
fn damaged_failure_is_reported_until_removed() {
    let trial = trial();
    let file = trial.file("attempts");
    let facts = trial.map(&Spec::of([Behavior::Until(file.clone(), 1, 2), Behavior::Fail(vec!["no".into()])]));
    let run = run_of(&facts).unwrap();
    let stored = trial.stored(&run, "failures");
    std::fs::write(&stored[0], "{").unwrap();
    let damaged = failures(&trial.attach(&run));
    assert_eq!(damaged[&0].kind, "Infrastructure");
    assert!(damaged[&0].message.contains("failures/000000000000/0001.0001"), "{damaged:?}");
    assert_eq!(damaged[&1].message, "no");
    std::fs::remove_file(&stored[0]).unwrap();
    let again = trial.attach(&run);
    assert_eq!(values(&again), [(0, 1)].into());
    assert_eq!(failures(&again)[&1].message, "no");
}

#[test]
fn removed_part_of_a_retried_run_is_recomputed() {
    let trial = trial();
    let file = trial.file("attempts");
    let inputs = [Behavior::Double(1), Behavior::Until(file.clone(), 7, 2)];
    let run = run_of(&trial.map(&Spec { chunk: Some(1), ..Spec::of(inputs) })).unwrap();
    assert_eq!(values(&trial.facts(&["retry", &run])), [(0, 2), (1, 7)].into());
    std::fs::remove_file(&trial.stored(&run, "results")[0]).unwrap();
    assert_eq!(values(&trial.attach(&run)), [(0, 2), (1, 7)].into());
}

#[test]
fn cancelling_a_finished_run_changes_nothing() {
    let stored = StoredRun::new();
    stored.trial.facts(&["cancel", &stored.run]);
    std::fs::remove_file(stored.part()).unwrap();
    assert_eq!(values(&stored.attach()), numbers(0..12));
}

/// Starts a run and waits until some of it is stored, so that it is in progress. Its second half waits for the file
/// that is returned.
fn start_long(trial: &Trial, ran: &std::path::Path) -> (cloudknot_tests::trial::Running, String, PathBuf) {
    let go_on = trial.file("go on");
    let inputs = (0..ITEMS).map(|number| match number {
        0..HALF => Behavior::Count(ran.to_owned(), number, 60),
        _ => Behavior::Wait(ran.to_owned(), number, go_on.clone()),
    });
    let spec = json(&Spec { chunk: Some(2), parallel: Some(2), ..Spec::of(inputs) });
    let running = trial.start(&["map", &spec]);
    let run = running.wait_for_run_id();
    wait_for("some values", || (trial.items_with_values(&run).len() >= 8).then_some(()));
    (running, run, go_on)
}

const ITEMS: u64 = 60;
const HALF: u64 = 30;

/// Fails unless stored items were executed once, and others at most twice, and only if they were running.
#[track_caller]
fn check_runs(ran: &std::path::Path, stored: &[u64], running: usize) {
    let ran = counted(ran);
    let times = |item: u64| ran.iter().filter(|&&other| other == item).count();
    for item in 0..ITEMS {
        assert!((1..=2).contains(&times(item)), "item {item} ran {} times", times(item));
        assert!(!stored.contains(&item) || times(item) == 1, "item {item} was stored and ran again");
    }
    // Besides the running items, values wait to be stored with the rest of their part.
    assert!(ran.len() <= 60 + running, "{} runs of {ITEMS} items", ran.len());
}

#[test]
fn killed_run_is_continued_without_repeating_stored_items() {
    let trial = trial();
    let ran = trial.file("ran");
    let (running, run, go_on) = start_long(&trial, &ran);
    running.kill();
    trial.wait_until_exited();
    let stored = trial.items_with_values(&run);
    assert!(stored.len() < 60, "the run ended before the program was killed");
    std::fs::write(go_on, "").unwrap();
    let facts = trial.attach(&run);
    assert_eq!(values(&facts), numbers(0..60));
    check_runs(&ran, &stored, 4);
}

#[test]
fn two_programs_on_one_run_compute_every_item_once() {
    let trial = trial();
    let ran = trial.file("ran");
    let (running, run, go_on) = start_long(&trial, &ran);
    let follower = trial.start(&["attach", &run]);
    follower.wait_for_run_id();
    std::fs::write(go_on, "").unwrap();
    let output = follower.wait_with_output();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(values(&facts(&output.stdout)), numbers(0..60));
    assert_eq!(values(&facts(&running.wait_with_output().stdout)), numbers(0..60));
    let mut ran = counted(&ran);
    ran.sort_unstable();
    assert_eq!(ran, (0..ITEMS).collect::<Vec<_>>());
}

#[test]
fn follower_takes_over_a_killed_run() {
    let trial = trial();
    let ran = trial.file("ran");
    let (running, run, go_on) = start_long(&trial, &ran);
    let follower = trial.start(&["attach", &run]);
    follower.wait_for_run_id();
    // The follower is stopped, so that it takes over only after the stored items have been read.
    kill(follower.pid(), Signal::STOP);
    running.kill();
    let stored = trial.items_with_values(&run);
    std::fs::write(go_on, "").unwrap();
    kill(follower.pid(), Signal::CONT);
    let output = follower.wait_with_output();
    assert_eq!(values(&facts(&output.stdout)), numbers(0..60));
    check_runs(&ran, &stored, 4);
    trial.wait_until_exited();
}

#[test]
fn replaced_executable_does_not_affect_a_run() {
    let trial = trial();
    let program = trial.file("program");
    // Copied by another process: a program that this one has open for writing, even in a fork of another test, cannot
    // be started.
    cloudknot_tests::counterparts::run(Command::new("cp").arg(crate::PROGRAM).arg(&program));
    let ran = trial.file("ran");
    // After each kill a new process has to be started.
    let mut inputs = vec![Behavior::Count(ran.clone(), 0, 1_000), Behavior::Kill];
    inputs.extend((0..4).map(Behavior::Double));
    inputs.extend([Behavior::Kill, Behavior::Double(21)]);
    let spec = json(&Spec { parallel: Some(1), ..Spec::of(inputs) });
    let folder = trial.file("");
    let running = cloudknot_tests::trial::Running::start(trial.command_of(&program, &["map", &spec]), folder.as_path());
    wait_for("the first item to start", || (!counted(&ran).is_empty()).then_some(()));
    let other = trial.file("other");
    std::fs::write(&other, "#!/bin/sh\nexit 7\n").unwrap();
    std::fs::rename(&other, &program).unwrap();
    let output = running.wait_with_output();
    let facts = facts(&output.stdout);
    assert_eq!(values(&facts), [(0, 0), (2, 0), (3, 2), (4, 4), (5, 6), (7, 42)].into(), "{output:?}");
}

/// A program that is terminated during its run also ends its item processes.
#[test]
fn killed_program_leaves_no_item_process() {
    let trial = trial();
    let file = trial.file("started");
    let inputs = (0..4).map(|number| Behavior::Count(file.clone(), number, 3_600_000));
    let running = trial.start(&["map", &json(&Spec { parallel: Some(4), ..Spec::of(inputs) })]);
    wait_for("the items to start", || (counted(&file).len() == 4).then_some(()));
    assert!(trial.processes().len() >= 5);
    kill(running.pid(), Signal::TERM);
    assert!(!running.wait_with_output().status.success());
    trial.wait_until_exited();
}

/// Failures of items that a retry leaves out are not failures of its round: an interrupt does not cancel it.
#[test]
fn interrupted_retry_of_some_items_goes_on() {
    let trial = trial();
    let (began, go_on) = (trial.file("began"), trial.file("go-on"));
    let waiting = (1..3).map(|item| Behavior::Wait(began.clone(), item, go_on.clone()));
    let inputs = std::iter::once(Behavior::Fail(vec!["no".into()])).chain(waiting);
    let spec = Spec { max_failures: Some(1), parallel: Some(1), chunk: Some(1), ..Spec::of(inputs) };
    let run = run_of(&trial.map(&spec)).unwrap();
    assert!(trial.run(&run).join("cancelled/0001").exists());
    let items = RetrySpec { items: Some(vec![1, 2]), ..RetrySpec::default() };
    let retry = trial.start(&["retry", &run, &json(&items)]);
    wait_for("an item to begin", || (!counted(&began).is_empty()).then_some(()));
    kill(retry.pid(), Signal::INT);
    retry.wait_with_output();
    trial.wait_until_exited();
    assert!(!trial.run(&run).join("cancelled/0002").exists(), "an interrupted round can go on");
    std::fs::write(go_on, "").unwrap();
    let facts = trial.attach(&run);
    assert_eq!(values(&facts).into_keys().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(failures(&facts).into_keys().collect::<Vec<_>>(), [0]);
}

/// The program is killed after it has stored the failure that reaches the limit, and before it has stored that the run
/// stops.
#[test]
fn run_killed_past_max_failures_stays_stopped() {
    let trial = trial();
    let started = trial.file("started");
    let inputs = [
        Behavior::Fail(vec!["no".into()]),
        Behavior::Count(started.clone(), 1, 3_600_000),
        Behavior::Count(started.clone(), 2, 3_600_000),
    ];
    let spec = Spec { max_failures: Some(2), parallel: Some(2), chunk: Some(1), ..Spec::of(inputs) };
    let running = trial.start(&["map", &json(&spec)]);
    let run = running.wait_for_run_id();
    wait_for("one failure", || (trial.stored(&run, "failures").len() == 1).then_some(()));
    wait_for("the other items to start", || (counted(&started).len() == 2).then_some(()));
    running.kill();
    trial.wait_until_exited();
    // The second failure, as the program would have stored it.
    let first = trial.stored(&run, "failures").remove(0);
    let second = trial.run(&run).join("failures/000000000001").join(first.file_name().unwrap());
    std::fs::create_dir_all(second.parent().unwrap()).unwrap();
    std::fs::copy(first, second).unwrap();
    let facts = trial.attach(&run);
    let failures = failures(&facts);
    assert_eq!((failures[&1].kind.as_str(), failures[&2].kind.as_str()), ("Returned", "Cancelled"), "{facts:?}");
    assert!(failures[&2].message.contains("after 2 failed items"), "{facts:?}");
    assert_eq!(counted(&started).len(), 2, "no item ran again");
    assert!(trial.run(&run).join("cancelled/0001").exists(), "the cancellation is not stored for later programs");
}
