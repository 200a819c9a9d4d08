//! Cost of `cargo knot build` compared with plain cargo, and the size of its output.
//!
//! `cargo bench --profile dev -p cloudknot-tests --features counterparts --bench build` (takes minutes, because it
//! compiles the AWS SDK for two sizes of worker); `-- times` or `-- sizes` runs one half. All times are of one run on
//! one machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use cloudknot_tests::counterparts::run;
use cloudknot_tests::workspaces::{cargo_knot_released, workspace};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const MAIN: &str = include_str!("../../examples/random_mv_prod/src/main.rs");

fn main() {
    let chosen: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_chosen = |half: &str| chosen.is_empty() || chosen.iter().any(|each| each == half);
    if is_chosen("times") {
        times();
    }
    if is_chosen("sizes") {
        sizes();
    }
}

/// Creates `random_mv_prod` in a separate folder.
fn program(name: &str, features: &str, settings: &str) -> PathBuf {
    let manifest = format!(
        r#"
[package]
name = "random_mv_prod"
version = "0.1.0"
edition = "2024"

[package.metadata.cloudknot]
{settings}

[dependencies]
cloudknot = {{ path = CLOUDKNOT, default-features = false, features = [{features}] }}
rand_distr = {{ version = "0.6", default-features = false, features = ["std_math"] }}
rand_pcg = "0.10"

[workspace]
"#
    );
    workspace(name, &[("Cargo.toml", &manifest), ("src/main.rs", MAIN)])
}

fn times() {
    let folder = program("bench times", "", "");
    let (knot_target, cargo_target) = (folder.join("target of knot"), folder.join("target of cargo"));
    for target in [&knot_target, &cargo_target] {
        if target.exists() {
            std::fs::remove_dir_all(target).expect("the benchmark owns the folder");
        }
    }
    // Everything that has to be fetched or built is prepared first.
    cargo_knot_released();
    run(Command::new(env!("CARGO")).arg("fetch").current_dir(&folder));
    let knot = || knot(&folder, &knot_target);
    let cargo = || cargo(&folder, &cargo_target);
    let cold = (seconds(knot), seconds(cargo));
    change(&folder, "0.0 + b");
    let touched = (seconds(knot), seconds(cargo));
    let nothing = (seconds(knot), seconds(cargo));
    change(&folder, "b");
    println!("random_mv_prod over a folder       cargo knot build   cargo build   ratio");
    let line = |what: &str, (knot, cargo): (f64, f64), limit: &str| {
        println!("{what:<33}{knot:>16.2} s{cargo:>12.2} s{:>8.2}   ({limit})", knot / cargo);
    };
    line("from cold", cold, "expected: at most 1.3");
    line("one line of the function touched", touched, "expected: at most 1.3");
    line("nothing changed", nothing, "expected: at most 2 s");
}

fn knot(folder: &Path, target: &Path) {
    let mut command = Command::new(cargo_knot_released());
    command
        .args(["knot", "build", "--offline", "--target", TARGET])
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", target);
    finish(command);
}

/// Builds the same worker with plain cargo, and with the same profile.
fn cargo(folder: &Path, target: &Path) {
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--release", "--offline", "--target", TARGET]);
    command.current_dir(folder).env("CARGO_TARGET_DIR", target);
    command.env("CARGO_ENCODED_RUSTFLAGS", "--cfg\u{1f}cloudknot_worker\u{1f}-Ctarget-feature=+crt-static");
    command.envs([
        ("CARGO_PROFILE_RELEASE_LTO", "fat"),
        ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
        ("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
    ]);
    finish(command);
}

fn finish(mut command: Command) {
    let output = command.stdin(Stdio::null()).output().expect("the command starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Changes the function to compute the same value in another way.
fn change(folder: &Path, deviation: &str) {
    let changed = MAIN.replace("Normal::new(0.0, b)", &format!("Normal::new(0.0, {deviation})"));
    assert!(deviation == "b" || changed != MAIN, "the program has no such line");
    std::fs::write(folder.join("src/main.rs"), changed).expect("the folder can be written to");
}

fn seconds(act: impl FnOnce()) -> f64 {
    let began = Instant::now();
    act();
    began.elapsed().as_secs_f64()
}

fn sizes() {
    println!("random_mv_prod with the S3 store       worker   compressed image");
    for (level, limit) in [("3", 4.2), ("\"z\"", 3.4)] {
        let folder =
            program(&format!("bench size {}", level.trim_matches('"')), "\"aws\"", &format!("opt-level = {level}"));
        let mut command = Command::new(cargo_knot_released());
        let output =
            command.args(["knot", "build", "--json"]).current_dir(&folder).output().expect("the command starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let facts: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        let megabytes = |name: &str| facts[name].as_f64().expect("the size is a number") / 1e6;
        let (worker, image) = (megabytes("worker_bytes"), megabytes("compressed_bytes"));
        println!("opt-level = {level:<24}{worker:>6.2} MB{image:>16.2} MB   (expected: at most {limit})");
    }
    println!(
        "of this, the S3 client is 2.7 MB (a client without retries and checksums: 1 MB), the CA certificates 0.1 MB"
    );
    println!("an empty static program (measured elsewhere)          0.5 MB");
    println!("Python cloudknot 0.6.1 (measured elsewhere)           116 MB");
}
