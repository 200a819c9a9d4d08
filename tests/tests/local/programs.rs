//! Tests that run the examples and other whole programs as a user would, and check their output.

use std::process::Command;

use cloudknot_tests::workspaces::program;

/// Returns the stdout of an example, and fails unless it exits with 0.
#[track_caller]
fn printed(example: &str) -> String {
    let home = tempfile::tempdir().expect("a temporary folder can be created");
    let output = Command::new(program(example)).env("CLOUDKNOT_HOME", home.path()).output();
    let output = output.expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("the program prints UTF-8")
}

#[test]
fn hello_prints_every_greeting() {
    assert_eq!(printed("hello"), "Hello, world!\nHello, Ada!\nHello, Grace!\n");
}

#[test]
fn failures_prints_each_kind_of_failure() {
    let printed = printed("failures");
    let lines: Vec<&str> = printed.lines().collect();
    let [one, four, nine, cause, minus, location, abort, hang, forty_nine, sixty_four] = lines[..] else {
        panic!("{printed}");
    };
    assert_eq!([one, four, forty_nine, sixty_four], ["1      1", "4      2", "49     7", "64     8"]);
    assert_eq!(nine, "nine   Returned: cannot read `nine` as a number");
    assert_eq!(cause.trim(), "caused by: invalid float literal");
    assert_eq!(minus, "-16    Panicked: -16 has no real square root");
    assert!(location.trim().starts_with("at examples/failures/src/main.rs:"), "{location}");
    assert!(abort.starts_with("abort  Crashed: "), "{abort}");
    assert!(hang.starts_with("hang   TimedOut: "), "{hang}");
}

#[test]
fn graph_bisection_finds_the_minimum_cuts() {
    let printed = printed("graph_bisection");
    let (table, conclusion) = printed.trim_end().rsplit_once('\n').expect("there are several lines");
    let best: Vec<&str> = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(best, ["128", "512", "16", "24", "2"]);
    assert_eq!(conclusion, "All best cuts equal the proven minimum.");
}

#[test]
fn randhie_bootstrap_agrees_with_published_figures() {
    let printed = printed("randhie_bootstrap");
    assert_eq!(printed.lines().count(), 12, "{printed}");
    assert_eq!(printed.lines().last(), Some("All agree within their tolerances."));
}

#[test]
fn random_mv_prod_has_the_expected_deviations() {
    let printed = printed("random_mv_prod");
    let numbers = |line: &str| {
        line.split_whitespace().map(|number| number.parse().expect("each column is a number")).collect::<Vec<f64>>()
    };
    let rows: Vec<Vec<f64>> = printed.lines().skip(1).map(numbers).collect();
    assert_eq!(rows.len(), 20, "{printed}");
    for row in rows {
        let [b, deviation, expected] = row[..] else { panic!("a row does not have three numbers: {printed}") };
        assert!((expected - 32.0 * b * b).abs() <= 0.01 * expected, "{b} {expected}");
        assert!((deviation / expected - 1.0).abs() < 0.125, "{b}: {deviation} {expected}");
    }
}

/// Runs the generated mains, each as in a program.
#[test]
fn every_form_of_main_keeps_its_return_value() {
    for program in [env!("CARGO_BIN_EXE_mains"), env!("CARGO_BIN_EXE_lints")] {
        let output = Command::new(program).output().expect("the program starts");
        assert!(output.status.success(), "{program}: {output:?}");
    }
}
