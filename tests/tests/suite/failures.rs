//! Tests that a failure affects only its item and has a clear reason, whatever the function does to its process.

use cloudknot_tests::trial;
use cloudknot_tests::trial::{Behavior, ItemFailure, Spec, Trial, failures, values};

/// Runs the input between others, all in one process, and returns its failure. Fails unless the others have values.
#[track_caller]
fn fails(trial: &Trial, input: Behavior, spec: Spec) -> ItemFailure {
    let inputs = vec![Behavior::Double(1), input, Behavior::Double(2), Behavior::Double(3)];
    let facts = trial.map(&Spec { inputs, parallel: Some(1), ..spec });
    assert_eq!(values(&facts), [(0, 2), (2, 4), (3, 6)].into());
    let mut failures = failures(&facts);
    assert_eq!(failures.len(), 1);
    trial.wait_until_exited();
    failures.remove(&1).expect("the input fails")
}

#[track_caller]
fn check(trial: &Trial, input: Behavior, kind: &str, message: &str) -> ItemFailure {
    let failed = fails(trial, input, Spec::default());
    assert_eq!(failed.kind, kind, "{failed:?}");
    assert!(failed.message.contains(message), "{failed:?}");
    assert_eq!(failed.attempt, 1);
    failed
}

/// Returns whether a backtrace has names: a worker is stripped, and an optimized program has few frames.
fn has_names(trial: &Trial) -> bool {
    trial.is_local() && cfg!(debug_assertions)
}

fn is_location(location: &str) -> bool {
    let Some((file, rest)) = location.split_once(".rs:") else { return false };
    let numbers: Vec<_> = rest.split(':').collect();
    file.ends_with("trial/main") && numbers.len() == 2 && numbers.iter().all(|number| number.parse::<u32>().is_ok())
}

#[test]
fn panic_has_message_location_and_backtrace() {
    let trial = trial!();
    let failed = check(&trial, Behavior::Panic("such is life".into()), "Panicked", "such is life");
    assert_eq!(failed.message, "such is life");
    assert!(is_location(failed.location.as_ref().unwrap()), "{failed:?}");
    let backtrace = failed.backtrace.unwrap();
    if has_names(&trial) {
        assert!(backtrace.contains("trial::a_function_that_panics"), "{backtrace}");
        assert!(!backtrace.contains("cloudknot_runtime::"), "only the function's own frames:\n{backtrace}");
    }
    assert_eq!((failed.exit_code, failed.signal), (None, None));
}

#[test]
fn panic_in_a_joined_thread_is_logged() {
    let failed = check(&trial!(), Behavior::PanicInThread, "Panicked", "called `Result::unwrap()`");
    assert!(is_location(failed.location.as_ref().unwrap()), "{failed:?}");
    assert!(failed.log.contains("in a thread"), "{failed:?}");
}

#[test]
fn resumed_panic_keeps_its_location() {
    let trial = trial!();
    let failed = check(&trial, Behavior::PanicPassedOn, "Panicked", "passed on");
    assert!(is_location(failed.location.as_ref().unwrap()), "{failed:?}");
    assert!(failed.backtrace.unwrap().contains("trial::perform") || !has_names(&trial));
}

#[test]
fn caught_panic_is_not_confused_with_a_later_one() {
    let inputs = vec![Behavior::Caught(4), Behavior::PanicPassedOn];
    let facts = trial!().map(&Spec { parallel: Some(1), ..Spec::of(inputs) });
    assert_eq!(values(&facts), [(0, 5)].into());
    assert_eq!(failures(&facts)[&1].message, "passed on");
}

#[test]
fn error_keeps_its_chain() {
    let causes = ["the model diverged", "the matrix is singular", "row 3 is zero"].map(String::from).to_vec();
    let failed = check(&trial!(), Behavior::Fail(causes), "Returned", "the model diverged");
    assert_eq!(failed.chain, ["the matrix is singular", "row 3 is zero"]);
    assert_eq!((failed.location, failed.backtrace), (None, None));
}

#[test]
fn abort_is_a_crash() {
    assert_eq!(check(&trial!(), Behavior::Abort, "Crashed", "SIGABRT").signal, Some(6));
}

#[test]
fn segfault_is_a_crash() {
    assert_eq!(check(&trial!(), Behavior::Segfault, "Crashed", "SIGSEGV").signal, Some(11));
}

#[test]
fn stack_overflow_is_a_crash() {
    check(&trial!(), Behavior::Overflow, "Crashed", "stack overflow");
}

#[test]
fn exit_0_is_a_crash() {
    assert_eq!(check(&trial!(), Behavior::Exit(0), "Crashed", "exited with code 0").exit_code, Some(0));
}

#[test]
fn exit_3_is_a_crash() {
    assert_eq!(check(&trial!(), Behavior::Exit(3), "Crashed", "exited with code 3").exit_code, Some(3));
}

#[test]
fn sigkill_is_a_crash() {
    assert_eq!(check(&trial!(), Behavior::Kill, "Crashed", "SIGKILL").signal, Some(9));
}

#[test]
fn failed_allocation_is_out_of_memory() {
    check(&trial!(), Behavior::Allocate, "OutOfMemory", "memory allocation of 1152921504606846976 bytes failed");
}

#[test]
fn timeout_fails_the_item() {
    let failed = fails(&trial!(), Behavior::Sleep(3_600_000, 1), Spec { timeout_ms: Some(3_000), ..Spec::default() });
    assert_eq!(failed.kind, "TimedOut");
    assert!(failed.message.contains("3s"), "{failed:?}");
}

#[test]
fn timeout_ends_child_processes() {
    let trial = trial!();
    if !trial.is_local() {
        return; // a worker's image contains no other program
    }
    let failed = fails(&trial, Behavior::Child, Spec { timeout_ms: Some(3_000), ..Spec::default() });
    assert_eq!(failed.kind, "TimedOut");
}

#[test]
fn fork_that_keeps_the_pipes_does_not_block() {
    check(&trial!(), Behavior::Fork, "Crashed", "SIGKILL");
}

#[test]
fn log_contains_only_the_failed_item() {
    let print = |text: &str, next| Behavior::Print(format!("{text} out"), format!("{text} err\n"), Box::new(next));
    let inputs = vec![
        print("first", Behavior::Sleep(20, 1)),
        print("second", Behavior::Fail(vec!["no".into()])),
        print("third", Behavior::Abort),
        print("fourth", Behavior::Sleep(20, 4)),
        print("fifth", Behavior::Panic("no".into())),
    ];
    let facts = trial!().map(&Spec { parallel: Some(1), ..Spec::of(inputs) });
    assert_eq!(values(&facts), [(0, 1), (3, 4)].into());
    let failures = failures(&facts);
    for (item, word) in [(1, "second"), (2, "third"), (4, "fifth")] {
        let log = &failures[&item].log;
        assert!(log.contains(&format!("{word} err")), "{log:?}");
        // An abort discards what stdout had buffered.
        assert!(item == 2 || log.contains(&format!("{word} out")), "{log:?}");
        for other in ["first", "second", "third", "fourth", "fifth"].into_iter().filter(|other| *other != word) {
            assert!(!log.contains(other), "item {item}: {log:?}");
        }
    }
}

#[test]
fn end_of_a_long_log_is_kept() {
    let text = "x".repeat(100_000) + "the last words\n";
    let failed =
        check(&trial!(), Behavior::Print(String::new(), text, Box::new(Behavior::Exit(1))), "Crashed", "code 1");
    assert!(failed.log.ends_with("the last words\n"));
    assert_eq!(failed.log.len(), 16 * 1024);
}

/// A thread that an item leaves behind aborts the process while it is idle. Another process still runs an item.
#[test]
fn death_of_an_idle_process_fails_no_item() {
    let inputs = [Behavior::Sleep(3_000, 1), Behavior::DieLater, Behavior::Fail(vec!["no".into()])];
    let facts = trial!().map(&Spec { parallel: Some(2), ..Spec::of(inputs) });
    assert_eq!(values(&facts), [(0, 1), (1, 1)].into());
    assert_eq!(failures(&facts)[&2].kind, "Returned");
}

#[test]
fn nested_map_is_refused() {
    assert_eq!(values(&trial!().map(&Spec::of([Behavior::Nested]))), [(0, 1)].into());
}

#[test]
fn all_failure_kinds_at_once() {
    let mut inputs = Vec::new();
    for number in 0..40 {
        inputs.push(Behavior::Double(number));
        inputs.push(match number % 8 {
            0 => Behavior::Abort,
            1 => Behavior::Panic("no".into()),
            2 => Behavior::Exit(0),
            3 => Behavior::Kill,
            4 => Behavior::Fail(vec!["no".into()]),
            5 => Behavior::Segfault,
            6 => Behavior::Allocate,
            _ => Behavior::Caught(number),
        });
    }
    let facts = trial!().map(&Spec { parallel: Some(3), ..Spec::of(inputs) });
    let (values, failures) = (values(&facts), failures(&facts));
    for item in 0..80 {
        let number = item as u64 / 2;
        let expected = match (item % 2, number % 8) {
            (0, _) => Some(2 * number),
            (_, 7) => Some(number + 1),
            _ => None,
        };
        assert_eq!(values.get(&item).copied(), expected, "item {item}");
        assert_eq!(failures.contains_key(&item), expected.is_none(), "item {item}");
    }
}
