//! Tests of containers in the local engine alone.

use std::path::PathBuf;
use std::process::Command;

use cloudknot_tests::counterparts::{Docker, run};
use cloudknot_tests::recorded::types_of;
use cloudknot_tests::trial;
use cloudknot_tests::trial::{Behavior, Spec, Trial, facts, failures, json, run_of, values, wait_for};
use cloudknot_tests::workspaces::{cargo_knot, trial_image};

#[test]
fn every_item_has_its_outcome_and_no_container_remains() {
    let trial = trial!();
    let mut inputs: Vec<Behavior> = (0..40).map(Behavior::Double).collect();
    let bad = [
        (3, Behavior::Panic("such is life".into()), "Panicked", "such is life"),
        (8, Behavior::Fail(vec!["outer".into(), "inner".into()]), "Returned", "outer"),
        (13, Behavior::Abort, "Crashed", "SIGABRT"),
        (14, Behavior::Segfault, "Crashed", "SIGSEGV"),
        (22, Behavior::Overflow, "Crashed", "stack overflow"),
        (23, Behavior::Exit(3), "Crashed", "code 3"),
        (31, Behavior::Kill, "Crashed", "SIGKILL"),
        (39, Behavior::Sleep(600_000, 1), "TimedOut", "longer than"),
    ];
    for (index, input, ..) in &bad {
        inputs[*index] = input.clone();
    }
    let facts = trial.facts(&["map", &json(&Spec { timeout_ms: Some(5_000), ..Spec::of(inputs) })]);
    let values = values(&facts);
    let failures = failures(&facts);
    for (index, number) in (0..40).zip(0_u64..) {
        match bad.iter().find(|(at, ..)| *at == index) {
            None => assert_eq!(values.get(&index), Some(&(2 * number)), "item {index}"),
            Some((.., kind, message)) => {
                let failed = &failures[&index];
                assert_eq!(failed.kind, *kind, "{failed:?}");
                assert!(failed.message.contains(message), "{failed:?}");
            }
        }
    }
    let run = run_of(&facts).expect("the run has an ID");
    assert_eq!(trial.containers(&run), [""; 0]);
    // The record has the same format: a program that runs items on this machine can also read it.
    let local = trial.command(&["attach", &run]).env_remove("CLOUDKNOT_BACKEND").output().expect("the trial starts");
    assert_eq!(cloudknot_tests::trial::values(&cloudknot_tests::trial::facts(&local.stdout)), values);
}

#[test]
fn killed_run_is_finished_by_another_program() {
    let trial = trial!();
    let counts = trial.home().join("counts");
    std::fs::write(&counts, "").expect("the folder of the test can be written");
    // Path of the file in the container.
    let remote_path = PathBuf::from("/cloudknot-runs/counts");
    let inputs = (0..24).map(|number| Behavior::Count(remote_path.clone(), number, 100));
    let first = trial.start(&["map", &json(&Spec { chunk: Some(2), ..Spec::of(inputs) })]);
    let run = first.wait_for_run_id();
    wait_for("a few values", || (trial.items_with_values(&run).len() >= 4).then_some(()));
    first.kill();
    let facts = trial.facts(&["attach", &run]);
    let expected = (0..24_usize).zip(0..24).collect();
    assert_eq!(values(&facts), expected);
    wait_for("all containers to be removed", || {
        trial.containers(&run).is_empty().then_some(()).or_else(|| sweep(&trial, &run))
    });
}

/// Removes the containers of a killed program. The next program with a map would also remove them, but only some time
/// after they have ended.
fn sweep(trial: &Trial, run: &str) -> Option<()> {
    let docker = Docker::get().expect("the trial uses an engine");
    let mut remove = docker.command();
    // Containers that still run cannot be removed yet; the caller retries.
    remove.arg("rm").args(trial.containers(run)).output().expect("docker starts");
    None
}

#[test]
fn another_program_can_cancel_the_run() {
    let trial = trial!();
    let inputs = (0..8).map(|number| Behavior::Sleep(if number == 0 { 1 } else { 600_000 }, number));
    let first = trial.start(&["map", &json(&Spec { chunk: Some(1), ..Spec::of(inputs) })]);
    let run = first.wait_for_run_id();
    wait_for("the first value", || trial.items_with_values(&run).contains(&0).then_some(()));
    trial.facts(&["cancel", &run]);
    let facts = facts(&first.wait_with_output().stdout);
    assert_eq!(values(&facts), [(0, 0)].into());
    assert!(failures(&facts).values().all(|failed| failed.kind == "Cancelled"), "{facts:?}");
    assert_eq!(trial.containers(&run), [""; 0]);
}

#[test]
fn program_can_choose_the_backend() {
    let trial = trial!();
    let mut command = trial.command(&["on-docker"]);
    let output = command.env_remove("CLOUDKNOT_BACKEND").env("CLOUDKNOT_PROGRESS", "plain").output();
    let output = output.expect("the trial starts");
    assert_eq!(values(&facts(&output.stdout)), [(0, 5), (1, 6)].into());
    assert!(String::from_utf8_lossy(&output.stderr).contains("other over 2 inputs in Docker, "), "{output:?}");
}

#[test]
fn memory_is_limited_as_requested() {
    let trial = trial!();
    let facts = trial.facts(&["hungry"]);
    assert_eq!(values(&facts), [(0, 1), (2, 2)].into(), "{facts:?}");
    assert_eq!(failures(&facts)[&1].kind, "OutOfMemory", "{facts:?}");
}

#[test]
fn cpus_are_limited_as_requested() {
    let trial = trial!();
    assert_eq!(values(&trial.facts(&["quota"])), [(0, 250)].into());
}

#[test]
fn image_with_other_types_is_refused() {
    let trial = trial!();
    let note = trial.home().join("image.json");
    let text = std::fs::read_to_string(&note).expect("the note exists");
    let mut built: serde_json::Value = serde_json::from_str(&text).expect("the note is JSON");
    for types in built["types"].as_array_mut().expect("the worker described its types") {
        types["fingerprint"] = 1.into();
        types["schema"] = "input: { number: u8 }".into();
    }
    std::fs::write(&note, built.to_string()).expect("the folder of the test can be written");
    let output = trial.command(&["plain", &json(&Spec::of([Behavior::Double(1)]))]).output().expect("the trial starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    for part in ["have changed since the image", "- input: { number: u8 }", "run `cargo knot build`"] {
        assert!(stderr.contains(part), "`{part}` is not in:\n{stderr}");
    }
    assert_eq!(knot_folders(&trial), [""; 0]);
}

/// Returns the folders of Knots with runs in the folder of a test.
fn knot_folders(trial: &Trial) -> Vec<String> {
    let Ok(knots) = std::fs::read_dir(trial.home().join("knots")) else { return Vec::new() };
    knots.map(|knot| knot.expect("the folder can be read").path().display().to_string()).collect()
}

#[test]
fn missing_image_error_has_a_hint() {
    let trial = Trial::new(crate::PROGRAM);
    let mut command = trial.command(&["plain", &json(&Spec::of([Behavior::Double(1)]))]);
    let output = command.env("CLOUDKNOT_BACKEND", "docker").output().expect("the trial starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("cannot find an image of this program"), "{stderr}");
    assert!(stderr.contains("hint: run `cargo knot build`"), "{stderr}");
    assert_eq!(knot_folders(&trial), [""; 0]);
}

// Not among the other builds, because its dependencies are those of the image of the trial.
#[test]
fn host_program_compiles_as_a_worker() {
    trial_image();
    let home = tempfile::tempdir().expect("a temporary folder can be created");
    let mut build = Command::new(cargo_knot());
    build.args(["knot", "build", "-p", "cloudknot-tests", "--bin", "whole", "--fast", "--features", "whole", "--json"]);
    let stdout = run(build.env("CLOUDKNOT_HOME", home.path()));
    let facts: serde_json::Value = serde_json::from_str(&stdout).expect("one JSON object");
    let worker = facts["worker"].as_str().expect("the output has the path of the worker");
    assert_eq!(types_of(&mut Command::new(worker), "double").function, "cloudknot-tests:whole::double");
    let bytes = std::fs::read(worker).expect("the worker exists");
    let text = String::from_utf8_lossy(&bytes);
    assert!(
        text.contains("this operation is not available in a worker"),
        "the API of a host returns an error in a worker"
    );
    assert!(!text.contains("docker.sock"), "the worker contains the client of an engine");
}
