//! The command `cargo knot` as a script sees it: exit codes, and what goes to which stream.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use cloudknot_tests::counterparts::{self, Registry};
use cloudknot_tests::workspaces::{LONE, STANDING_IN, cargo_knot, workspace, write};
use serde_json::Value;

static STAND_IN: LazyLock<PathBuf> = LazyLock::new(|| workspace("of the command", STANDING_IN));

fn knot(arguments: &[&str]) -> Command {
    let mut command = Command::new(cargo_knot());
    command.arg("knot").args(arguments).current_dir(&*STAND_IN).env_remove("CLOUDKNOT_HOME");
    command
}

#[track_caller]
fn check(command: &mut Command, code: i32, says: &[&str]) -> Output {
    let output = counterparts::check(command, code, says);
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

    let again: Value =
        serde_json::from_slice(&check(&mut knot(&["image", "-p", "lone", "--json"]), 0, &[]).stdout).unwrap();
    assert!(text.contains(again["digest"].as_str().unwrap()), "{again}\n{text}");
    assert_eq!(again["layers"].as_array().map(Vec::len), Some(1));
    let layer = again["layers"][0]["bytes"].as_u64().unwrap();
    assert!(
        again["compressed_bytes"].as_u64().is_some_and(|bytes| (layer..layer + 10_000).contains(&bytes)),
        "{again}"
    );
    let shown = String::from_utf8(check(&mut knot(&["image", "-p", "lone"]), 0, &[]).stdout).unwrap();
    assert_eq!(shown, text, "what was built last is shown as it was then");
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
fn a_deploy_that_cannot_compile_ends_as_a_build_would_and_asks_nothing_of_aws() {
    let check = |arguments: &[&str], code: i32, says: &[&str]| {
        let mut deploy = knot(&[&["deploy", "--offline", "--fast"], arguments].concat());
        // Whoever asked would get no answer, and end with 7.
        deploy.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1").env("AWS_REGION", "eu-central-1");
        check(deploy.env("AWS_ACCESS_KEY_ID", "nobody").env("AWS_SECRET_ACCESS_KEY", "nothing"), code, says);
    };
    check(&["-p", "odd", "--example", "broken"], 101, &["this_does_not_exist", "caused by: cargo ended"]);
    check(&["-p", "many"], 2, &["error: failed to choose", "hint: say which:\n      -p many --bin one"]);
    check(&["-p", "lone", "--target", "wasm32-wasip1"], 2, &["failed to take `wasm32-wasip1`"]);
    check(&["-p", "odd"], 4, &["error: failed to find a remote function in `odd` (--lib)"]);
    let mut deploy = knot(&["deploy", "--offline", "-p", "lone"]);
    self::check(deploy.env("RUSTC", "/no/such/rustc"), 3, &["failed to run `/no/such/rustc -vV`"]);
}

#[test]
fn a_machine_that_cannot_compile_for_the_platform_is_told_what_to_install() {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).current_dir(&*STAND_IN).output().unwrap();
    let sysroot = PathBuf::from(String::from_utf8(sysroot.stdout).unwrap().trim());
    // The toolchain as it comes, whatever targets were added to it.
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("lib/rustlib");
    std::fs::create_dir_all(&own).unwrap();
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    std::os::unix::fs::symlink(sysroot.join("lib/rustlib").join(&host), own.join(&host)).unwrap();
    let rustc = folder.path().join("rustc");
    let real = sysroot.join("bin/rustc");
    let script = format!("#!/bin/sh\nexec '{}' --sysroot '{}' \"$@\"\n", real.display(), folder.path().display());
    std::fs::write(&rustc, script).unwrap();
    std::fs::set_permissions(&rustc, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = knot(&["build", "--offline", "-p", "lone", "--arm64"]);
    check(command.env("RUSTC", rustc), 3, &["aarch64 Linux", "rustup target add aarch64-unknown-linux-musl"]);
}

#[test]
fn a_compiler_that_lacks_for_a_target_is_named() {
    let folder = workspace("of a target", STANDING_IN);
    let settings = format!("{LONE}\n[package.metadata.cloudknot]\nallocator = \"mimalloc\"\n");
    write(&folder.join("lone/Cargo.toml"), &settings);
    // A search path without any compiler for musl.
    let programs = tempfile::tempdir().unwrap();
    let path = std::env::var_os("PATH").unwrap();
    for name in ["cargo", "rustc", "cc"] {
        let program = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file()).unwrap();
        std::os::unix::fs::symlink(program, programs.path().join(name)).unwrap();
    }
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let mut command = knot(&["build", "--offline", "-p", "lone", "--target", &target]);
    command.current_dir(folder).env("PATH", programs.path()).env_remove("TARGET_CC");
    for name in [&target, &target.replace('-', "_")] {
        command.env_remove(format!("CC_{name}"));
    }
    let has_apt = Path::new("/usr/bin/apt-get").exists();
    let remedy = if has_apt { "sudo apt-get install musl-tools" } else { "cargo install cargo-zigbuild" };
    check(&mut command, 3, &[&format!("compiles a worker for `{target}`"), "a C compiler is needed too", remedy]);
}

#[test]
fn a_push_says_how_far_it_is_and_sends_nothing_twice() {
    let Some(registry) = Registry::start() else { return };
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), format!("{}\n", Registry::PASSWORD)).unwrap();
    let repository = format!("{}/lab/lone", registry.host());
    // The test of a build has the same package: in one folder, each would find the other's worker in the place of its own.
    let folder = workspace("of the push", STANDING_IN);
    let push = || {
        let mut command = knot(&["push", &repository, "--username", Registry::USER, "--password-stdin"]);
        command.args(["--offline", "--fast", "-p", "lone"]).current_dir(&folder);
        command.env("CARGO_TARGET_DIR", folder.join("target"));
        command.stdin(std::fs::File::open(password.path()).unwrap());
        command
    };
    let first = check(&mut push(), 0, &["cloudknot: pushing ", &format!("cloudknot: pushed to {repository}: ")]);
    let reference = String::from_utf8(first.stdout).unwrap();
    assert!(reference.starts_with(&format!("{repository}@sha256:")), "{reference}");
    let second = check(&mut push(), 0, &[&format!("cloudknot: {repository} has its layers already: nothing was sent")]);
    assert_eq!(String::from_utf8(second.stdout).unwrap(), reference);
    assert_eq!(registry.requests("POST ").len(), 2, "a layer and a configuration, once each");

    std::fs::write(password.path(), "wrong").unwrap();
    check(
        &mut push(),
        6,
        &["error: failed to look up", "does not take the login", "hint: check the user and the password"],
    );
}

#[test]
fn the_help_names_the_exit_codes() {
    for arguments in [&["--help"][..], &["build", "--help"]] {
        let output = check(&mut knot(arguments), 0, &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("101  the program does not compile"), "{text}");
    }
}
