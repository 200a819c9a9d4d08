//! The command `cargo knot` as a script sees it: exit codes, and what goes to which stream.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use cloudknot_tests::skip::skipped;
use cloudknot_tests::workspaces::{STANDING_IN, workspace};
use serde_json::Value;

static STAND_IN: LazyLock<PathBuf> = LazyLock::new(|| workspace("of the command", STANDING_IN));

/// The program, built together with this test once more, so that all it is made of is there already.
static CARGO_KNOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    // Else ring's build script takes these, which are the test's, for a reason to compile it and all above it again.
    let of_the_test = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_the_test)) {
        build.env_remove(name);
    }
    let output = build
        .args(["build", "-p", "cloudknot", "-p", "cloudknot-tests", "--no-default-features"])
        .args(["--features", "cloudknot-tests/deploy", "--bin", "cargo-knot", "--test", "cargo_knot"])
        .args(["--message-format", "json"])
        .current_dir(repository)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).unwrap();
    let mut executables = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let executable = message["executable"].as_str()?;
        (message["target"]["name"] == "cargo-knot").then(|| PathBuf::from(executable))
    });
    executables.next().expect("cargo names the executable that it built")
});

fn knot(arguments: &[&str]) -> Command {
    let mut command = Command::new(&*CARGO_KNOT);
    command.arg("knot").args(arguments).current_dir(&*STAND_IN);
    command
}

#[track_caller]
fn check(command: &mut Command, code: i32, says: &[&str]) -> Output {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    for part in says {
        assert!(errors.contains(part), "`{part}` is not in:\n{errors}");
    }
    if code != 0 {
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    }
    output
}

#[test]
fn a_build_prints_facts_on_stdout_and_progress_on_stderr() {
    let mut command = knot(&["build", "--offline", "--fast", "-p", "lone", "--json"]);
    let output =
        check(command.env("RUSTFLAGS", "--cfg of_the_user"), 0, &["compiling the worker of `lone` (--bin lone)"]);
    let facts: Value = serde_json::from_slice(&output.stdout).expect("one JSON object and nothing else");
    let size = std::fs::metadata(facts["worker"].as_str().unwrap()).unwrap().len();
    assert_eq!(facts["worker_bytes"], size);
    assert_eq!(facts["package"], "lone");
    let functions = facts["functions"].as_array().unwrap();
    let names: Vec<_> = functions.iter().map(|function| &function["name"]).collect();
    assert_eq!(names, ["in_a_worker", "of_the_user"], "the rustflags of the environment are kept");

    let output = check(&mut knot(&["build", "--offline", "--fast", "-p", "lone"]), 0, &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("program    lone 0.1.0 (--bin lone)"), "{text}");
    assert!(text.contains("functions  fn()  (in some)"), "{text}");
}

#[test]
fn the_exit_code_says_what_kind_of_failure_it_was() {
    let build = |arguments: &[&str]| knot(&[&["build", "--offline", "--fast"], arguments].concat());
    check(&mut build(&["-p", "many"]), 2, &["error: failed to choose", "hint: say which:\n      -p many --bin one"]);
    check(&mut build(&["--bin", "a", "--lib"]), 2, &["cannot be used with"]);
    check(&mut build(&["-p", "lone", "--target", "wasm32-wasip1"]), 2, &["failed to take `wasm32-wasip1`"]);
    check(&mut build(&["-p", "odd"]), 4, &["error: failed to find a remote function in `odd` (--lib)"]);
    check(&mut build(&["-p", "odd", "--example", "broken"]), 101, &["this_does_not_exist", "caused by: cargo ended"]);
}

#[test]
fn a_machine_that_cannot_compile_for_the_platform_is_told_what_to_install() {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).current_dir(&*STAND_IN).output().unwrap();
    let sysroot = PathBuf::from(String::from_utf8(sysroot.stdout).unwrap().trim());
    let std_of = |triple: &str| sysroot.join("lib/rustlib").join(triple).exists();
    if std_of("aarch64-unknown-linux-musl") || std_of("aarch64-unknown-linux-gnu") {
        return skipped("a missing platform", "this machine has a standard library for aarch64");
    }
    let mut command = knot(&["build", "--offline", "-p", "lone", "--arm64"]);
    command.env("RUSTC", sysroot.join("bin/rustc"));
    check(&mut command, 3, &["aarch64 Linux", "rustup target add aarch64-unknown-linux-musl"]);
}

#[test]
fn the_help_names_the_exit_codes() {
    for arguments in [&["--help"][..], &["build", "--help"]] {
        let output = check(&mut knot(arguments), 0, &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("101  the program does not compile"), "{text}");
    }
}
