//! Runs the program as a person would, and reads what it prints.

use std::process::Command;

#[test]
fn the_figures_agree_with_those_of_others() {
    let output = Command::new(env!("CARGO_BIN_EXE_randhie_bootstrap"))
        .env("CLOUDKNOT_HOME", env!("CARGO_TARGET_TMPDIR"))
        .output()
        .expect("the program starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stdout.lines().count(), 12, "{stdout}");
    assert_eq!(stdout.lines().last(), Some("All agree within their tolerances."));
}
