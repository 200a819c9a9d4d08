//! Tests of the options of a map, of any number of inputs, and of inputs and results of any size.

use std::collections::BTreeSet;
use std::path::PathBuf;

use cloudknot_tests::skip::{optional, skipped};
use cloudknot_tests::trial;
use cloudknot_tests::trial::{
    Behavior, Fact, RetrySpec, Spec, Trial, counted, failures, json, kill, run_of, values, wait_for,
};
use rustix::process::Signal;

fn doubles(numbers: std::ops::Range<u64>) -> Spec {
    Spec::of(numbers.map(Behavior::Double))
}

fn status(facts: &[Fact]) -> ([u64; 5], bool) {
    let status = facts.iter().rev().find_map(|fact| match fact {
        Fact::Status(counts, finished) => Some((*counts, *finished)),
        _ => None,
    });
    status.expect("the trial prints the status")
}

fn found(facts: &[Fact]) -> Vec<String> {
    facts.iter().filter_map(|fact| if let Fact::Found(found) = fact { Some(found.clone()) } else { None }).collect()
}

fn error(facts: &[Fact]) -> (String, String) {
    match facts {
        [Fact::Error(kind, text), ..] => (kind.clone(), text.clone()),
        other => panic!("no error: {other:?}"),
    }
}

fn manifest(trial: &Trial, run: &str) -> serde_json::Value {
    let text = std::fs::read(trial.run(run).join("manifest.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn attempts_are_counted_and_each_failure_is_stored() {
    let trial = trial!();
    let file = trial.file("attempts");
    let remote_path = trial.remote_path(&file);
    let inputs = [Behavior::Until(remote_path.clone(), 1, 3), Behavior::Until(remote_path, 2, 9), Behavior::Double(1)];
    let facts = trial.map(&Spec { retries: Some(2), ..Spec::of(inputs) });
    assert_eq!(values(&facts), [(0, 1), (2, 2)].into());
    let failed = &failures(&facts)[&1];
    assert_eq!((failed.attempt, failed.message.as_str()), (3, "attempt 3 fails"));
    let stored = trial.stored(&run_of(&facts).unwrap(), "failures");
    let names: Vec<_> = stored.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    let (attempts, causes): (Vec<_>, BTreeSet<_>) = names.iter().map(|name| name.split_at(9)).unzip();
    assert_eq!(attempts, ["0001.0001", "0001.0002", "0001.0001", "0001.0002", "0001.0003"]);
    assert_eq!(causes.len(), 1, "messages that differ in numbers have one cause: {causes:?}");
    assert!(std::fs::read_to_string(&stored[1]).unwrap().contains("attempt 2 fails"));
}

#[test]
fn spawned_task_can_await_and_wait() {
    let facts = trial!().facts(&["spawned", &json(&doubles(1..3))]);
    let once = [Fact::Value(0, 2), Fact::Value(1, 4)];
    assert_eq!(facts, [once.clone(), once].concat());
}

#[test]
fn crash_is_retried_like_an_error() {
    let facts = trial!().map(&Spec { retries: Some(1), ..Spec::of([Behavior::Abort, Behavior::Double(1)]) });
    assert_eq!(failures(&facts)[&0].attempt, 2);
    assert_eq!(values(&facts), [(1, 2)].into());
}

#[test]
fn async_function_is_retried_as_its_attribute_sets() {
    let facts = trial!().facts(&["later"]);
    assert_eq!(values(&facts), [(0, 1), (1, 2)].into());
    assert_eq!(failures(&facts)[&2].attempt, 2);
}

#[test]
fn env_reaches_the_function_and_tags_are_recorded() {
    let trial = trial!();
    let mut spec = Spec::of([Behavior::Env("ANSWER".into()), Behavior::Env("CLOUDKNOT_ITEM_PROCESS".into())]);
    spec.env.insert("ANSWER".into(), "42".into());
    spec.tags.insert("project".into(), "stars + bars".into());
    spec.timeout_ms = Some(7_000);
    let facts = trial.map(&spec);
    assert_eq!(values(&facts), [(0, 42)].into());
    assert!(failures(&facts)[&1].message.contains("not found"), "the marker of item processes is still set");
    let manifest = manifest(&trial, &run_of(&facts).unwrap());
    assert_eq!(manifest["tags"]["project"], "stars + bars");
    assert_eq!(manifest["env"]["ANSWER"], "42");
    assert_eq!(manifest["timeout_ms"], 7_000);
    assert_eq!(manifest["items"], 2);
}

#[test]
fn reserved_variable_cannot_be_set() {
    let mut spec = doubles(0..1);
    spec.env.insert("CLOUDKNOT_HOME".into(), "/".into());
    let (kind, text) = error(&trial!().facts(&["values", &json(&spec)]));
    assert_eq!(kind, "Config");
    assert!(text.contains("CLOUDKNOT_HOME"), "{text}");
}

#[test]
fn options_of_zero_are_refused() {
    let zero = [
        Spec { chunk: Some(0), ..doubles(0..1) },
        Spec { parallel: Some(0), ..doubles(0..1) },
        Spec { max_failures: Some(0), ..doubles(0..1) },
        Spec { timeout_ms: Some(0), ..doubles(0..1) },
    ];
    let trial = trial!();
    for spec in zero {
        let (kind, text) = error(&trial.facts(&["values", &json(&spec)]));
        assert_eq!(kind, "Config");
        assert!(text.contains("(0)") && text.contains("hint"), "{text}");
    }
    assert_eq!(trial.stored_files(), Vec::<PathBuf>::new(), "a refused map stores nothing");
}

#[test]
fn parallel_items_run_at_once() {
    let trial = trial!();
    let file = trial.file("started");
    let remote_path = trial.remote_path(&file);
    let inputs = (0..3).map(|number| Behavior::Count(remote_path.clone(), number, 3_600_000));
    let running = trial.start(&["map", &json(&Spec { parallel: Some(3), chunk: Some(3), ..Spec::of(inputs) })]);
    // No item ends by itself, so three have started only if three run at once.
    wait_for("three items to start", || (counted(&file).len() == 3).then_some(()));
    running.kill();
    trial.wait_until_exited();
}

#[test]
fn parallel_1_runs_items_in_order() {
    let trial = trial!();
    if !trial.is_local() {
        return; // containers run at the same time
    }
    let file = trial.file("order");
    let remote_path = trial.remote_path(&file);
    let inputs = (0..20).map(|number| Behavior::Count(remote_path.clone(), number, 0));
    trial.map(&Spec { parallel: Some(1), ..Spec::of(inputs) });
    assert_eq!(counted(&file), (0..20).collect::<Vec<_>>());
}

#[test]
fn chunk_sets_how_many_items_are_stored_together() {
    let trial = trial!();
    let facts = trial.map(&Spec { chunk: Some(4), ..doubles(0..10) });
    let run = run_of(&facts).unwrap();
    assert_eq!(values(&facts), (0..10).map(|item| (item, 2 * item as u64)).collect());
    assert_eq!(trial.items_with_values(&run), (0..10).collect::<Vec<_>>());
    for part in trial.stored(&run, "results") {
        let name = part.file_name().unwrap().to_str().unwrap().to_owned();
        let (first, last) = name.split_once('-').unwrap();
        let [first, last] = [first, last].map(|number| number.parse::<u64>().unwrap());
        assert_eq!(first / 4, last / 4, "a part is within its chunk: {name}");
    }
}

#[test]
fn failures_keep_other_values_of_their_chunk() {
    let trial = trial!();
    let inputs = (0..12)
        .map(|number| if number % 5 == 2 { Behavior::Fail(vec!["no".into()]) } else { Behavior::Double(number) });
    let facts = trial.map(&Spec { chunk: Some(6), ..Spec::of(inputs) });
    assert_eq!(failures(&facts).into_keys().collect::<Vec<_>>(), [2, 7]);
    assert_eq!(values(&facts).len(), 10);
    let again = trial.attach(&run_of(&facts).unwrap());
    assert_eq!((values(&again), failures(&again)), (values(&facts), failures(&facts)));
}

#[test]
fn after_max_failures_the_rest_is_cancelled() {
    let trial = trial!();
    let file = trial.file("started");
    // The other process proceeds to an item that writes to the file only once the first value has arrived.
    let fails_then = Behavior::After(trial.remote_path(&file), Box::new(Behavior::Fail(vec!["one".into()])));
    let mut inputs = vec![Behavior::Double(1), fails_then, Behavior::Fail(vec!["two".into()])];
    inputs.extend((3..9).map(|number| Behavior::Count(trial.remote_path(&file), number, 3_600_000)));
    let spec = Spec { max_failures: Some(2), parallel: Some(2), chunk: Some(9), ..Spec::of(inputs) };
    let facts = trial.map(&spec);
    assert_eq!(values(&facts), [(0, 2)].into());
    let failures = failures(&facts);
    assert_eq!((failures[&1].kind.as_str(), failures[&2].kind.as_str()), ("Returned", "Returned"));
    assert!((3..9).all(|item| failures[&item].kind == "Cancelled"), "{failures:?}");
    assert!(failures[&5].message.contains("after 2 failed items"), "{failures:?}");
    assert_eq!(status(&facts), ([1, 2, 0, 0, 6], true));
    std::fs::remove_file(&file).unwrap();
    let (kind, text) = error(&trial.facts(&["values", &json(&spec)]));
    assert_eq!(kind, "ItemsFailed");
    assert!(text.contains("2 of 9 items of `work` failed") && text.contains("6 were cancelled"), "{text}");
    trial.wait_until_exited();
}

#[test]
fn cancel_stops_running_items_and_keeps_values() {
    let trial = trial!();
    let file = trial.file("started");
    let mut inputs = vec![Behavior::Double(4)];
    inputs.extend((1..6).map(|number| Behavior::Count(trial.remote_path(&file), number, 3_600_000)));
    let spec = json(&Spec { parallel: Some(2), chunk: Some(6), ..Spec::of(inputs) });
    let facts = trial.facts(&["cancel-own", &spec, file.to_str().unwrap()]);
    assert_eq!(values(&facts), [(0, 8)].into());
    assert!(failures(&facts).values().all(|failed| failed.kind == "Cancelled" && failed.attempt == 0));
    assert_eq!(status(&facts), ([1, 0, 0, 0, 5], true));
    trial.wait_until_exited();
    // The run stays cancelled for later programs; its unfinished items can be scheduled again.
    let again = trial.attach(&run_of(&facts).unwrap());
    assert_eq!((values(&again), failures(&again).len()), ([(0, 8)].into(), 5));
    assert!(failures(&again)[&1].message.contains("retry_failed"), "{again:?}");
}

#[test]
fn another_program_can_cancel() {
    let trial = trial!();
    let file = trial.file("started");
    let remote_path = trial.remote_path(&file);
    let inputs = (0..4).map(|number| Behavior::Count(remote_path.clone(), number, 3_600_000));
    let running = trial.start(&["map", &json(&Spec { parallel: Some(1), ..Spec::of(inputs) })]);
    wait_for("an item to start", || (!counted(&file).is_empty()).then_some(()));
    // The run's ID is printed by another thread than the one that runs items.
    let cancelled = trial.facts(&["cancel", &running.wait_for_run_id()]);
    assert_eq!(status(&cancelled), ([0, 0, 0, 0, 4], true));
    let output = running.wait_with_output();
    let facts = cloudknot_tests::trial::facts(&output.stdout);
    assert!(output.status.success());
    assert_eq!(status(&facts), ([0, 0, 0, 0, 4], true));
    assert!(failures(&facts).values().all(|failed| failed.kind == "Cancelled"));
    trial.wait_until_exited();
}

#[test]
fn retry_failed_runs_only_items_without_value() {
    let trial = trial!();
    let runs = trial.file("runs");
    let (attempts, remote_runs) = (trial.remote_path(&trial.file("attempts")), trial.remote_path(&runs));
    let inputs =
        [Behavior::Count(remote_runs, 7, 0), Behavior::Until(attempts.clone(), 1, 2), Behavior::Until(attempts, 2, 3)];
    let facts = trial.map(&Spec { chunk: Some(3), ..Spec::of(inputs) });
    let run = run_of(&facts).unwrap();
    assert_eq!(failures(&facts).len(), 2);
    let second = trial.facts(&["retry", &run]);
    assert_eq!(run_of(&second).unwrap(), run, "the ID stays the same");
    assert_eq!(values(&second), [(0, 7), (1, 1)].into());
    assert_eq!(failures(&second)[&2].message, "attempt 2 fails");
    let third = trial.facts(&["retry", &run]);
    assert_eq!(values(&third), [(0, 7), (1, 1), (2, 2)].into());
    assert_eq!(counted(&runs), [7], "an item with a value is not run again");
    let again = trial.attach(&run);
    assert_eq!(values(&again), values(&third));
    assert_eq!(trial.stored(&run, "failures").len(), 3, "earlier failures are kept");
}

#[test]
fn retry_with_other_limits() {
    let trial = trial!();
    let attempts = trial.remote_path(&trial.file("attempts"));
    let inputs = [Behavior::Sleep(2_000, 7), Behavior::Until(attempts, 1, 3)];
    let spec = Spec { chunk: Some(1), timeout_ms: Some(200), ..Spec::of(inputs) };
    let facts = trial.map(&spec);
    let failed = failures(&facts);
    assert_eq!((failed[&0].kind.as_str(), failed[&1].attempt), ("TimedOut", 1), "{failed:?}");
    let limits = RetrySpec { timeout_ms: Some(600_000), retries: Some(1), ..RetrySpec::default() };
    let again = trial.facts(&["retry", &run_of(&facts).unwrap(), &json(&limits)]);
    assert_eq!(values(&again), [(0, 7), (1, 1)].into(), "{again:?}");
}

#[test]
fn retry_failed_resumes_a_cancelled_run() {
    let trial = trial!();
    let file = trial.file("started");
    let inputs = [1, 2, 3].map(|number| Behavior::Count(trial.remote_path(&file), number, 500));
    let spec = json(&Spec { parallel: Some(2), chunk: Some(3), ..Spec::of(inputs) });
    let facts = trial.facts(&["cancel-own", &spec, file.to_str().unwrap()]);
    let again = trial.facts(&["retry", &run_of(&facts).unwrap()]);
    assert_eq!(values(&again), [(0, 1), (1, 2), (2, 3)].into());
    assert_eq!(status(&again), ([3, 0, 0, 0, 0], true));
}

#[test]
fn status_adds_up_during_a_run_and_afterwards() {
    let trial = trial!();
    let (started, go_on) = (trial.remote_path(&trial.file("started")), trial.file("go on"));
    let waits = |number| Behavior::Wait(started.clone(), number, trial.remote_path(&go_on));
    let inputs = [Behavior::Double(1), Behavior::Fail(vec!["no".into()]), waits(1), waits(2)];
    let spec = json(&Spec { chunk: Some(1), parallel: Some(1), ..Spec::of(inputs) });
    let facts = trial.facts(&["status", &spec, go_on.to_str().unwrap()]);
    let [Fact::Status(first, false), Fact::Status(last, true), Fact::Found(twice)] = &facts[..] else {
        panic!("{facts:?}")
    };
    assert_eq!(first.iter().sum::<u64>(), 4);
    assert!(first[2] + first[3] > 0 && first[4] == 0, "during a run, an item runs or waits: {first:?}");
    assert_eq!(last, &[3, 1, 0, 0, 0]);
    assert_eq!(twice, "4 twice");
}

#[test]
fn call_runs_one_item() {
    assert_eq!(found(&trial!().facts(&["call", "21"])), ["42"]);
}

#[test]
fn await_error_names_failed_items_and_attach() {
    let inputs = (0..10).map(|number| if number < 4 { Behavior::Double(1) } else { Behavior::Panic("no".into()) });
    let facts = trial!().facts(&["values", &json(&Spec::of(inputs))]);
    let (kind, text) = error(&facts);
    assert_eq!(kind, "ItemsFailed");
    let group = "\n  6  panicked  items 4-9: no, at ";
    for part in
        ["6 of 10 items of `work` failed in run ", group, "\n  for example, item 4 panicked: no, at ", "work.attach(\""]
    {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    assert_eq!(failures(&facts).into_keys().collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9]);
}

/// A program that is killed leaves a run, with which the same map goes on.
#[test]
fn equal_inputs_go_on_with_a_run_that_has_not_ended() {
    let trial = trial!();
    let file = trial.file("go on");
    let go_on = trial.remote_path(&file);
    let inputs = (0..3).map(|number| Behavior::After(go_on.clone(), Box::new(Behavior::Double(number))));
    let spec = Spec { chunk: Some(1), resume: true, ..Spec::of(inputs) };
    let first = trial.start(&["map", &json(&spec)]);
    let run = first.wait_for_run_id();
    first.kill();
    let second = trial.start(&["map", &json(&spec)]);
    assert_eq!(second.wait_for_run_id(), run);
    std::fs::write(&file, "").unwrap();
    let output = second.wait_with_output();
    assert_eq!(values(&cloudknot_tests::trial::facts(&output.stdout)), [(0, 0), (1, 2), (2, 4)].into(), "{output:?}");
    assert_ne!(run_of(&trial.map(&spec)), Some(run), "the run is done");
}

#[test]
fn results_stream_each_item_once() {
    let inputs = (0..30).map(|number| Behavior::Sleep((30 - number) % 7, number));
    let facts = trial!().facts(&["stream", &json(&Spec { parallel: Some(3), ..Spec::of(inputs) })]);
    assert_eq!(values(&facts), (0..30).map(|item| (item, item as u64)).collect());
}

#[test]
fn no_inputs() {
    let trial = trial!();
    let facts = trial.map(&Spec::default());
    assert_eq!(status(&facts), ([0; 5], true));
    assert!(trial.stored(&run_of(&facts).unwrap(), "results").is_empty());
    assert_eq!(trial.facts(&["values", &json(&Spec::default())]), []);
    assert_eq!(status(&trial.attach(&run_of(&facts).unwrap())), ([0; 5], true));
    assert_eq!(found(&trial.facts(&["others", "0"])), ["0"]);
}

#[test]
fn one_input() {
    assert_eq!(values(&trial!().map(&doubles(4..5))), [(0, 8)].into());
}

#[test]
fn ten_thousand_and_one_inputs() {
    let trial = trial!();
    // Otherwise, every two items would need a container.
    let chunk: &[&str] = if trial.is_batch() { &["2000"] } else { &[] };
    assert_eq!(found(&trial.facts(&[&["others", "10001"], chunk].concat())), ["10001"]);
}

#[test]
fn ten_thousand_and_one_inputs_in_separate_parts() {
    let trial = trial!();
    if !trial.is_local() {
        return; // each item would need a container
    }
    let facts = trial.facts(&["others", "10001", "1"]);
    assert_eq!(found(&facts), ["10001"]);
    assert_eq!(trial.stored(&run_of(&facts).unwrap(), "results").len(), 10_001);
}

#[test]
fn inputs_and_results_of_all_sizes() {
    let trial = trial!();
    // A separate test covers three hundred containers.
    let arguments: &[&str] = if trial.is_batch() { &["sizes", "50"] } else { &["sizes"] };
    assert_eq!(found(&trial.facts(arguments)), ["300"]);
}

#[test]
fn big_inputs_and_results_fit_through_pipes() {
    assert_eq!(found(&trial!().facts(&["big", "50000000"])), ["50000001"; 3]);
}

#[test]
fn values_round_trip_bit_for_bit() {
    assert_eq!(found(&trial!().facts(&["carried"])).len(), 3);
}

#[test]
fn panicking_inputs_store_nothing() {
    let trial = trial!();
    assert_eq!(found(&trial.facts(&["panicking-inputs"])).first().map(String::as_str), Some("no more inputs"));
    assert_eq!(trial.stored_files(), Vec::<PathBuf>::new());
}

#[test]
fn unsupported_input_is_refused_before_anything_runs() {
    let trial = trial!();
    let (kind, text) = error(&trial.facts(&["unlucky-input"]));
    assert_eq!(kind, "Input");
    assert!(text.contains("input 13 ") && text.contains("13 is unlucky"), "{text}");
    assert!(!text.contains("OtherString"), "the message of the type, not of the codec: {text}");
    assert_eq!(trial.stored_files(), Vec::<PathBuf>::new());
}

#[test]
fn unsupported_output_fails_only_its_item() {
    let facts = trial!().facts(&["unlucky-output"]);
    assert_eq!(values(&facts), [(0, 1), (2, 2)].into());
    let failed = &failures(&facts)[&1];
    assert_eq!(failed.kind, "Codec");
    assert!(failed.message.contains("13 is unlucky") && !failed.message.contains("OtherString"), "{failed:?}");
}

#[test]
fn panicking_hook_does_not_stop_the_run() {
    assert_eq!(values(&trial!().facts(&["hook"])), [(0, 2), (1, 4)].into());
}

#[test]
fn killed_item_process_fails_only_its_item() {
    let trial = trial!();
    if !trial.is_local() {
        return; // the item processes cannot be reached
    }
    let file = trial.file("started");
    let inputs = [Behavior::Count(trial.remote_path(&file), 1, 3_600_000), Behavior::Double(3)];
    let running = trial.start(&["map", &json(&Spec { parallel: Some(1), ..Spec::of(inputs) })]);
    wait_for("the item to start", || (!counted(&file).is_empty()).then_some(()));
    trial.item_processes().into_iter().for_each(|pid| kill(pid, Signal::KILL));
    let output = running.wait_with_output();
    let facts = cloudknot_tests::trial::facts(&output.stdout);
    assert_eq!(failures(&facts)[&0].signal, Some(9));
    assert_eq!(values(&facts), [(1, 6)].into());
}

/// Returns the memory that is available to programs on this machine, in bytes; 0 if it is unknown.
fn memory_available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Larger than a signed 32-bit number, and than what one system call writes.
#[test]
fn result_of_three_gigabytes() {
    const LENGTH: u64 = 3_000_000_000;
    let trial = trial!();
    if !trial.is_local() {
        return; // the memory of this machine limits the value
    }
    if std::env::var_os("CLOUDKNOT_HUGE").is_none() {
        return optional("a result of 3 GB", "it takes minutes; set CLOUDKNOT_HUGE=1 to run it");
    }
    // The value is twice in the program and twice in the item process, and the file is in memory too until it is on the
    // disk.
    if memory_available() < 5 * LENGTH {
        return skipped("a result of 3 GB", "it needs 15 GB of memory");
    }
    let facts = trial.facts(&["huge", "text", &LENGTH.to_string()]);
    assert_eq!(found(&facts)[0], LENGTH.to_string());
}
