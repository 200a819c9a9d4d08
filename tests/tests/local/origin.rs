//! Tests of what the record tells about a run, besides its outcomes: its origin, its name, its entries in the index, and when its
//! items ran and what they printed.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use cloudknot_runtime::contract::{IndexEntry, LogLine, PartEnd, RunState, index_entry, index_key, part_of};
use cloudknot_runtime::measurements::{Machine, Measurements};
use cloudknot_tests::trial::{
    Behavior, Fact, RetrySpec, Spec, Trial, counted, failures, files, json, kill, run_of, values, wait_for,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::PROGRAM;

fn trial() -> Trial {
    Trial::new(PROGRAM)
}

fn failing() -> Behavior {
    Behavior::Fail(vec!["no".into()])
}

/// Returns an object of the run as JSON.
fn record(trial: &Trial, run: &str, name: &str) -> Value {
    serde_json::from_slice(&fs::read(trial.run(run).join(name)).unwrap()).unwrap()
}

/// Returns the entries of the index, in the order of their keys, with times of 0 after they were checked.
fn entries(trial: &Trial) -> Vec<(String, IndexEntry)> {
    let home = trial.home();
    let index = home.join("knots/cloudknot-tests/index");
    let mut keys: Vec<PathBuf> = files(&index);
    keys.sort();
    let parsed = keys.iter().map(|path| {
        let key = path.strip_prefix(&home).unwrap().to_str().unwrap();
        let (run, entry) = index_entry(key).unwrap_or_else(|| panic!("not an entry: {key}"));
        assert_eq!(index_key("cloudknot-tests", &run, &entry).as_deref(), Some(key));
        (run, without_time(entry))
    });
    parsed.collect()
}

fn without_time(mut entry: IndexEntry) -> IndexEntry {
    if let IndexEntry::Submitted { inputs, .. } = &mut entry {
        assert!(inputs.take().is_some(), "the hash of the inputs is in the index");
    }
    if let IndexEntry::Round { at_ms, .. } | IndexEntry::Ended { at_ms, .. } = &mut entry {
        assert!((1_767_225_600_000..4_102_444_800_000).contains(at_ms), "{at_ms} is not a time of this century");
        *at_ms = 0;
    }
    entry
}

fn submitted(items: u64, name: Option<&str>) -> IndexEntry {
    let function = "cloudknot-tests:trial::work".into();
    IndexEntry::Submitted { backend: "local".into(), items, inputs: None, function, name: name.map(Into::into) }
}

fn ended(round: u32, state: RunState, done: u64, failed: u64) -> IndexEntry {
    IndexEntry::Ended { round, state, done, failed, at_ms: 0 }
}

#[test]
fn manifest_tells_the_program_and_its_submitter() {
    let trial = trial();
    let secret = [("API_TOKEN".to_owned(), "hunter2".to_owned())].into();
    let spec = json(&Spec { env: secret, ..Spec::of([Behavior::Double(1)]) });
    let mut command = trial.command(&["map", &spec]);
    let output = command.env("USER", "ada").output().unwrap();
    let run = run_of(&cloudknot_tests::trial::facts(&output.stdout)).unwrap();
    let manifest = record(&trial, &run, "manifest.json");
    assert_eq!(manifest["version"], 2);
    let provenance = &manifest["provenance"];
    assert_eq!(provenance["cloudknot"], env!("CARGO_PKG_VERSION"));
    let program = &provenance["program"];
    for (name, expected) in
        [("package", "cloudknot-tests"), ("version", env!("CARGO_PKG_VERSION")), ("kind", "bin"), ("target", "trial")]
    {
        assert_eq!(program[name], expected, "{provenance:#}");
    }
    assert!(program["profile"].is_string(), "{provenance:#}");
    assert_eq!(program["manifest"], format!("{}/Cargo.toml", env!("CARGO_MANIFEST_DIR")));
    let features = program["features"].as_array().expect("cargo has compiled the program");
    assert_eq!(features.contains(&"counterparts".into()), cfg!(feature = "counterparts"), "{provenance:#}");
    let submitter = &provenance["submitter"];
    assert_eq!(submitter["user"], "ada");
    assert!(submitter["host"].is_string(), "{provenance:#}");
    assert_eq!((&submitter["command"][0], &submitter["command"][1]), (&PROGRAM.into(), &"map".into()));
    assert!(!provenance.to_string().contains("hunter2"), "{provenance:#}");
}

#[test]
fn name_is_in_the_record_and_the_index() {
    let trial = trial();
    let facts = trial.map(&Spec { name: Some("größe 3".into()), ..Spec::of([Behavior::Double(1)]) });
    let run = run_of(&facts).unwrap();
    assert_eq!(record(&trial, &run, "manifest.json")["name"], "größe 3");
    let expected = [ended(1, RunState::Done, 1, 0), submitted(1, Some("größe 3"))];
    assert_eq!(entries(&trial), expected.map(|entry| (run.clone(), entry)));
}

#[test]
fn name_that_cannot_be_told_from_an_id_is_refused() {
    let trial = trial();
    for (name, must) in
        [("", "1 to 64 bytes"), ("last-2", "`last`"), ("2026", "the ID of a run"), ("a\u{1b}[31m", "control")]
    {
        let spec = Spec { name: Some(name.into()), ..Spec::of([Behavior::Double(1)]) };
        let facts = trial.facts(&["values", &json(&spec)]);
        let [Fact::Error(kind, text)] = &facts[..] else { panic!("not exactly one error: {facts:?}") };
        assert_eq!(kind, "Config", "{text}");
        assert!(text.contains("invalid name of a run") && text.contains(must) && !text.contains('\u{1b}'), "{text}");
    }
    assert_eq!(trial.stored_files(), Vec::<PathBuf>::new(), "a refused map leaves no record");
}

#[test]
fn index_tells_the_end_of_each_round() {
    let trial = trial();
    let attempts = trial.file("attempts");
    let facts = trial.map(&Spec::of([Behavior::Double(1), Behavior::Until(attempts, 1, 2), failing()]));
    let run = run_of(&facts).unwrap();
    trial.facts(&["retry", &run]);
    let round = IndexEntry::Round { round: 2, items: 2, at_ms: 0 };
    let expected = [ended(1, RunState::Failed, 1, 2), ended(2, RunState::Failed, 2, 1), round, submitted(3, None)];
    let mut found = entries(&trial);
    found.dedup();
    assert_eq!(found, expected.map(|entry| (run.clone(), entry)));
    let round = record(&trial, &run, "rounds/0002");
    assert_eq!(round["provenance"]["submitter"]["command"][1], "retry", "{round:#}");
    assert!(round["recorded_ms"].as_u64() > record(&trial, &run, "manifest.json")["submitted_ms"].as_u64());
}

/// Each attach may note the end that it finds, but always the same.
#[test]
fn attaches_to_an_ended_run_add_at_most_one_entry() {
    let trial = trial();
    let run = run_of(&trial.map(&Spec::of([Behavior::Double(1), failing()]))).unwrap();
    trial.attach(&run);
    let keys = || files(&trial.home().join("knots/cloudknot-tests/index"));
    let before = keys();
    assert!(before.len() <= 3, "{before:?}");
    for _ in 0..3 {
        trial.attach(&run);
    }
    assert_eq!(keys(), before);
}

#[test]
fn cancelled_run_has_an_end_and_an_interrupted_one_has_none() {
    let trial = trial();
    let started = trial.file("started");
    let inputs = (0..2).map(|number| Behavior::Count(started.clone(), number, 3_600_000));
    let running = trial.start(&["map", &json(&Spec { parallel: Some(1), ..Spec::of(inputs) })]);
    let run = running.wait_for_run_id();
    wait_for("an item to start", || (!counted(&started).is_empty()).then_some(()));
    kill(running.pid(), Signal::INT);
    running.wait_with_output();
    let submitted = (run.clone(), submitted(2, None));
    assert_eq!(entries(&trial), std::slice::from_ref(&submitted));
    trial.facts(&["cancel", &run]);
    assert_eq!(entries(&trial), [(run, ended(1, RunState::Cancelled, 0, 0)), submitted]);
}

/// The index is a hint.
#[test]
fn run_without_an_index_is_like_any_other() {
    let trial = trial();
    fs::create_dir_all(trial.home().join("knots/cloudknot-tests")).unwrap();
    fs::write(trial.home().join("knots/cloudknot-tests/index"), "not a folder").unwrap();
    let facts = trial.map(&Spec::of([Behavior::Double(1), failing()]));
    assert_eq!(values(&facts), [(0, 2)].into());
    let again = trial.facts(&["retry", &run_of(&facts).unwrap()]);
    assert_eq!((values(&again), failures(&again).len()), ([(0, 2)].into(), 1));
}

#[test]
fn retry_refuses_what_it_cannot_do() {
    let trial = trial();
    let run = run_of(&trial.map(&Spec::of([failing()]))).unwrap();
    let old_code = RetrySpec { old_code: true, ..RetrySpec::default() };
    let no_timeout = RetrySpec { timeout_ms: Some(0), ..RetrySpec::default() };
    let no_memory = RetrySpec { memory: Some("much".into()), ..RetrySpec::default() };
    for (spec, words) in [
        (old_code, &["with its old code", "`local` does not keep the program", "hint: build "][..]),
        (no_timeout, &["invalid .timeout(0): must be at least 1"]),
        (no_memory, &["cannot retry: .memory(..)", "much"]),
    ] {
        let facts = trial.facts(&["retry", &run, &json(&spec)]);
        let [Fact::Error(kind, text)] = &facts[..] else { panic!("not exactly one error: {facts:?}") };
        assert_eq!(kind, "Config", "{text}");
        for word in words {
            assert!(text.contains(word), "`{word}` is not in:\n{text}");
        }
    }
    assert!(!trial.run(&run).join("rounds").exists(), "a refused retry leaves no round");
}

#[test]
fn measurements_are_stored_with_the_outcomes() {
    let trial = trial();
    let inputs = [Behavior::Sleep(60, 7), Behavior::Double(1), failing()];
    let run = run_of(&trial.map(&Spec { parallel: Some(1), chunk: Some(3), ..Spec::of(inputs) })).unwrap();
    let mut rows = Vec::new();
    for path in trial.stored(&run, "results") {
        let part = part_of(&format!("results/{}", path.file_name().unwrap().to_str().unwrap())).unwrap();
        let end = PartEnd::parse(part, &fs::read(&path).unwrap()).unwrap();
        assert!(end.machine.vcpus.is_some_and(|vcpus| vcpus >= 1.0) && end.machine.host.is_some(), "{:?}", end.machine);
        rows.extend((part.first..=part.last).zip(end.rows));
    }
    let [(0, slow), (1, quick)] = rows[..] else { panic!("two items have values: {rows:?}") };
    assert!(slow.duration >= Duration::from_millis(60) && slow.peak_memory.is_some_and(|peak| peak > 1 << 20));
    assert!(quick.start_ms >= slow.start_ms + 60 && slow.start_ms >= 0, "{rows:?}");
    assert_eq!((slow.round, slow.attempt, slow.slot), (1, 1, 0));
    let failure: Value = serde_json::from_slice(&fs::read(&trial.stored(&run, "failures")[0]).unwrap()).unwrap();
    assert_eq!((&failure["measurements"]["attempt"], &failure["measurements"]["slot"]), (&1.into(), &0.into()));
    assert!(failure["machine"]["started_ms"].as_u64().is_some_and(|time| time > 0), "{failure}");
}

/// Returns the measurements of a run's items as its program reads them.
fn measurements(trial: &Trial, run: &str) -> Vec<Option<(Measurements, Machine)>> {
    let parse = |fact: &Fact| match fact {
        Fact::Found(json) => serde_json::from_str(json).unwrap(),
        other => panic!("{other:?}"),
    };
    trial.facts(&["measurements", run]).iter().map(parse).collect()
}

/// Those of the last attempt, in the order of the inputs.
#[test]
fn measurements_of_items_are_read_by_a_program() {
    let trial = trial();
    let inputs =
        [Behavior::Sleep(60, 7), Behavior::Until(trial.file("attempts"), 1, 2), failing(), Behavior::Double(1)];
    let spec = Spec { parallel: Some(1), chunk: Some(3), ..Spec::of(inputs) };
    let run = run_of(&trial.map(&spec)).unwrap();
    let attempts = |measured: &[Option<(Measurements, Machine)>]| -> Vec<_> {
        measured.iter().map(|item| item.as_ref().map(|(row, _)| (row.round, row.attempt))).collect()
    };
    let measured = measurements(&trial, &run);
    assert_eq!(attempts(&measured), [Some((1, 1)); 4]);
    let (slow, machine) = measured[0].as_ref().unwrap();
    assert!(slow.duration >= Duration::from_millis(60), "{slow:?}");
    assert!(machine.host.is_some() && machine.started_ms > 0, "{machine:?}");
    trial.facts(&["retry", &run]);
    assert_eq!(
        attempts(&measurements(&trial, &run)),
        [Some((1, 1)), Some((2, 1)), Some((2, 1)), Some((1, 1))],
        "the retry ran two items"
    );
}

#[test]
fn items_that_did_not_run_have_no_measurements() {
    let trial = trial();
    let waiting = Behavior::Count(trial.file("count"), 1, 3_600_000);
    let spec = Spec { parallel: Some(1), chunk: Some(1), max_failures: Some(1), ..Spec::of([failing(), waiting]) };
    let run = run_of(&trial.map(&spec)).unwrap();
    let measured = measurements(&trial, &run);
    assert_eq!((measured.len(), measured[0].is_some(), measured[1].is_some()), (2, true, false));
}

/// Each line is kept with its item, also if several items were sent to a process at once, and lines without an end.
#[test]
fn output_is_kept_with_its_item() {
    let trial = trial();
    let print = |text: &str| Behavior::Print(text.into(), String::new(), Box::new(Behavior::Double(1)));
    let quick =
        (0..40).map(|item| if item % 3 == 0 { print(&format!("item {item}\nand")) } else { Behavior::Double(1) });
    let run = run_of(&trial.map(&Spec { parallel: Some(2), ..Spec::of(quick) })).unwrap();
    let mut lines: Vec<_> = LogLine::parse_all(&fs::read(&trial.stored(&run, "log")[0]).unwrap())
        .into_iter()
        .map(|line| (line.item.expect("no line is printed before the first item"), line.attempt, line.text))
        .collect();
    lines.sort_by_key(|(item, ..)| *item);
    let of = |item| [(item, Some(1), format!("item {item}")), (item, Some(1), "and".to_owned())];
    assert_eq!(lines, (0..40).step_by(3).flat_map(of).collect::<Vec<_>>());
}

#[test]
fn terminal_names_the_item_of_a_line_if_several_run_at_once() {
    let trial = trial();
    let print = Behavior::Print("reading\n".into(), String::new(), Box::new(Behavior::Double(1)));
    let shown = |parallel| {
        let spec = Spec { parallel: Some(parallel), ..Spec::of([print.clone(), print.clone()]) };
        let output = trial.command(&["map", &json(&spec)]).env("CLOUDKNOT_PROGRESS", "plain").output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let (several, one) = (shown(2), shown(1));
    assert!(several.contains("\n[item 0, attempt 1] reading\n"), "{several}");
    assert!(several.contains("\n[item 1, attempt 1] reading\n"), "{several}");
    assert!(one.contains("\nreading\nreading\n") && !one.contains("[item"), "{one}");
}
