//! Tests of init functions. The trial has two, `first::init` and `second::init`, whose order is that of their names. The second
//! one behaves as the variable `TRIAL_INIT` specifies.

use cloudknot_tests::trial;
use cloudknot_tests::trial::{Behavior, ItemFailure, Spec, Trial, counted, failures, json, values};

fn with_init(init: &Behavior, inputs: impl IntoIterator<Item = Behavior>) -> Spec {
    Spec { parallel: Some(1), env: [("TRIAL_INIT".to_owned(), json(init))].into(), ..Spec::of(inputs) }
}

/// Runs two items whose process initializes itself like this, and returns the failure of the first one.
#[track_caller]
fn fails(trial: &Trial, init: &Behavior, kind: &str, message: &str) -> ItemFailure {
    let mut failures = failures(&trial.map(&with_init(init, [Behavior::Double(1), Behavior::Double(2)])));
    assert_eq!(failures.len(), 2, "{failures:?}");
    for failure in failures.values() {
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(failure.message.starts_with("cannot initialize the item process: "), "{failure:?}");
        assert!(failure.message.contains(message), "{failure:?}");
    }
    failures.remove(&0).expect("the first item fails")
}

#[test]
fn init_functions_run_once_in_each_process() {
    let facts = trial!().map(&Spec { recycle: Some(2), ..Spec::of((0..6).map(|_| Behavior::Initialized)) });
    assert_eq!(values(&facts), (0..6).map(|item| (item, 12)).collect());
}

#[test]
fn init_function_runs_in_no_other_process() {
    let trial = trial!();
    if !trial.is_local() {
        return; // the environment of a container is that of its image
    }
    let file = trial.file("initialized");
    let mut command = trial.command(&["map", &json(&Spec { parallel: Some(1), ..Spec::of([Behavior::Initialized]) })]);
    let output =
        command.env("TRIAL_INIT", json(&Behavior::Count(file.clone(), 7, 0))).output().expect("the trial starts");
    assert_eq!(values(&trial::facts(&output.stdout)), [(0, 12)].into());
    assert_eq!(counted(&file), [7]);
}

#[test]
fn error_of_an_init_function_fails_the_items() {
    let init = Behavior::Fail(vec!["no license".into(), "the server is away".into()]);
    let failure = fails(&trial!(), &init, "Returned", "`trial::second::init` failed: no license");
    assert_eq!(failure.chain, ["the server is away"]);
}

#[test]
fn panic_of_an_init_function_fails_the_items() {
    let trial = trial!();
    let failure =
        fails(&trial, &Behavior::Panic("so soon".into()), "Panicked", "`trial::second::init` panicked: so soon");
    assert!(failure.location.as_ref().is_some_and(|location| location.contains("main.rs:")), "{failure:?}");
    let backtrace = failure.backtrace.expect("a panic has a backtrace");
    assert!(!backtrace.contains("cloudknot_runtime::"), "only the function's own frames:\n{backtrace}");
}

#[test]
fn abort_in_an_init_function_fails_the_items() {
    assert_eq!(fails(&trial!(), &Behavior::Abort, "Crashed", "SIGABRT").signal, Some(6));
}

#[test]
fn retry_initializes_a_new_process() {
    let trial = trial!();
    let file = trial.file("attempts");
    let init = Behavior::Until(trial.remote_path(&file), 7, 2);
    let facts = trial.map(&Spec { retries: Some(1), ..with_init(&init, [Behavior::Double(1)]) });
    assert_eq!((values(&facts), counted(&file)), ([(0, 2)].into(), vec![7, 7]));
}

#[test]
fn output_of_an_init_function_is_in_the_log_of_the_first_item() {
    let init = Behavior::Print("loading\n".into(), "a warning\n".into(), Box::new(Behavior::Double(1)));
    let facts = trial!().map(&with_init(&init, [Behavior::Fail(vec!["no".into()])]));
    let log = &failures(&facts)[&0].log;
    assert!(log.contains("loading\n") && log.contains("a warning\n"), "{log}");
}

#[test]
fn time_of_an_init_function_is_not_that_of_the_first_item() {
    let spec = with_init(&Behavior::Sleep(5_000, 1), [Behavior::Deadline]);
    let facts = trial!().map(&Spec { timeout_ms: Some(4_000), ..spec });
    let remaining = values(&facts).remove(&0).unwrap_or_else(|| panic!("the item fails: {facts:?}"));
    assert!((1..=4_000).contains(&remaining), "{remaining}");
}
