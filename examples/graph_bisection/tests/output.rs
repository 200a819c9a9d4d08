//! Runs the program as a person would, and reads what it prints.

use std::process::Command;

#[test]
fn the_best_cuts_are_the_smallest_that_there_are() {
    let output = Command::new(env!("CARGO_BIN_EXE_graph_bisection"))
        .env("CLOUDKNOT_HOME", env!("CARGO_TARGET_TMPDIR"))
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    let best: Vec<&str> = said.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    // The heading, five networks, and the sentence that ends it.
    assert_eq!(best, ["worst", "128", "512", "16", "24", "2", "best"]);
}
