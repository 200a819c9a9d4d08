//! Runs the program as a person would, and reads what it prints.

use std::process::Command;

#[test]
fn everybody_is_greeted() {
    let output = Command::new(env!("CARGO_BIN_EXE_hello"))
        .env("CLOUDKNOT_HOME", env!("CARGO_TARGET_TMPDIR"))
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Hello, world!\nHello, Ada!\nHello, Grace!\n");
}
