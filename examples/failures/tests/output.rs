//! Runs the program as a person would, and reads what it prints.

use std::process::Command;

#[test]
fn bad_items_are_told_apart_and_good_ones_have_values() {
    let output = Command::new(env!("CARGO_BIN_EXE_failures"))
        .env("CLOUDKNOT_HOME", env!("CARGO_TARGET_TMPDIR"))
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{output:?}");

    let stdout = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = stdout.lines().collect();
    let [one, four, nine, cause, minus, place, abort, hang, forty_nine, sixty_four] = lines[..] else {
        panic!("{stdout}");
    };
    assert_eq!([one, four, forty_nine, sixty_four], ["1      1", "4      2", "49     7", "64     8"]);
    assert_eq!(nine, "nine   Returned: failed to read `nine` as a number");
    assert_eq!(cause.trim(), "caused by: invalid float literal");
    assert_eq!(minus, "-16    Panicked: -16 has no real square root");
    assert!(place.trim().starts_with("at examples/failures/src/main.rs:"), "{place}");
    assert!(abort.starts_with("abort  Crashed: "), "{abort}");
    assert!(hang.starts_with("hang   TimedOut: "), "{hang}");
}
