//! Tests that run the examples and other whole programs as a user would, and read what they print.

use std::process::Command;

use cloudknot_tests::workspaces::program;

/// Returns what an example prints, and fails unless it exits with 0.
#[track_caller]
fn printed(example: &str) -> String {
    let home = tempfile::tempdir().expect("there is a location for temporary files");
    let output = Command::new(program(example)).env("CLOUDKNOT_HOME", home.path()).output();
    let output = output.expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("it prints text")
}

#[test]
fn hello_greets_everybody() {
    assert_eq!(printed("hello"), "Hello, world!\nHello, Ada!\nHello, Grace!\n");
}

#[test]
fn failures_tells_bad_items_apart_and_good_ones_have_values() {
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
fn graph_bisection_finds_the_smallest_cuts_that_there_are() {
    let printed = printed("graph_bisection");
    let best: Vec<&str> = printed.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    // The heading, five networks, and the final sentence.
    assert_eq!(best, ["worst", "128", "512", "16", "24", "2", "best"]);
}

#[test]
fn randhie_bootstrap_agrees_with_the_figures_of_others() {
    let printed = printed("randhie_bootstrap");
    assert_eq!(printed.lines().count(), 12, "{printed}");
    assert_eq!(printed.lines().last(), Some("All agree within their tolerances."));
}

#[test]
fn each_of_20_products_of_random_mv_prod_is_as_wide_as_theory_says() {
    let printed = printed("random_mv_prod");
    let numbers =
        |line: &str| line.split_whitespace().map(|number| number.parse().expect("a number")).collect::<Vec<f64>>();
    let rows: Vec<Vec<f64>> = printed.lines().skip(1).map(numbers).collect();
    assert_eq!(rows.len(), 20, "{printed}");
    for row in rows {
        let [b, deviation, expected] = row[..] else { panic!("three numbers a row: {printed}") };
        assert!((expected - 32.0 * b * b).abs() <= 0.01 * expected, "{b} {expected}");
        assert!((deviation / expected - 1.0).abs() < 0.125, "{b}: {deviation} {expected}");
    }
}

/// Runs the generated mains, each as in a program.
#[test]
fn every_form_of_main_runs_and_returns_what_it_returned() {
    for program in [env!("CARGO_BIN_EXE_mains"), env!("CARGO_BIN_EXE_lints")] {
        let output = Command::new(program).output().expect("the program starts");
        assert!(output.status.success(), "{program}: {output:?}");
    }
}
