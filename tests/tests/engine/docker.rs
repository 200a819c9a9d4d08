//! Tests of containers in the local engine alone.

use std::path::PathBuf;
use std::process::Command;

use cloudknot_tests::counterparts::{Docker, run};
use cloudknot_tests::recorded::types_of;
use cloudknot_tests::trial;
use cloudknot_tests::trial::{Behavior, Spec, Trial, facts, failures, json, run_of, values, wait_for};
use cloudknot_tests::workspaces::{cargo_knot, trial_image};

#[test]
fn every_item_has_its_own_outcome_and_nothing_is_left_behind() {
    let on = trial!();
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
    let facts = on.facts(&["map", &json(&Spec { timeout_ms: Some(5_000), ..Spec::of(inputs) })]);
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
    let run = run_of(&facts).expect("the run has an id");
    assert_eq!(on.containers(&run), [""; 0]);
    // The record is the same one: a program that runs items on this machine can read it too.
    let here = on.command(&["attach", &run]).env_remove("CLOUDKNOT_BACKEND").output().expect("the trial starts");
    assert_eq!(cloudknot_tests::trial::values(&cloudknot_tests::trial::facts(&here.stdout)), values);
}

#[test]
fn a_run_whose_program_was_killed_is_finished_by_another() {
    let on = trial!();
    let counts = on.home().join("counts");
    std::fs::write(&counts, "").expect("the folder of the test can be written");
    // Path of the file in the container.
    let seen = PathBuf::from("/cloudknot/counts");
    let inputs = (0..24).map(|number| Behavior::Count(seen.clone(), number, 100));
    let first = on.start(&["map", &json(&Spec { chunk: Some(2), ..Spec::of(inputs) })]);
    let run = first.run();
    wait_for("a few values", || (on.items_with_values(&run).len() >= 4).then_some(()));
    first.kill();
    let facts = on.facts(&["attach", &run]);
    let expected = (0..24_usize).zip(0..24).collect();
    assert_eq!(values(&facts), expected);
    wait_for("all containers to be gone", || on.containers(&run).is_empty().then_some(()).or_else(|| sweep(&on, &run)));
}

/// Removes the containers of a killed program. The next program that maps would do so, but only some time after they
/// have ended.
fn sweep(on: &Trial, run: &str) -> Option<()> {
    let docker = Docker::get().expect("it is in use");
    let mut remove = docker.command();
    // Containers that still run refuse, and are tried again.
    remove.arg("rm").args(on.containers(run)).output().expect("docker starts");
    None
}

#[test]
fn another_program_cancels_it() {
    let on = trial!();
    let inputs = (0..8).map(|number| Behavior::Sleep(if number == 0 { 1 } else { 600_000 }, number));
    let first = on.start(&["map", &json(&Spec { chunk: Some(1), ..Spec::of(inputs) })]);
    let run = first.run();
    wait_for("the first value", || on.items_with_values(&run).contains(&0).then_some(()));
    on.facts(&["cancel", &run]);
    let facts = facts(&first.end().stdout);
    assert_eq!(values(&facts), [(0, 0)].into());
    assert!(failures(&facts).values().all(|failed| failed.kind == "Cancelled"), "{facts:?}");
    assert_eq!(on.containers(&run), [""; 0]);
}

#[test]
fn the_program_itself_can_choose_it() {
    let on = trial!();
    let mut command = on.command(&["on-docker"]);
    let output = command.env_remove("CLOUDKNOT_BACKEND").env("CLOUDKNOT_PROGRESS", "plain").output();
    let output = output.expect("the trial starts");
    assert_eq!(values(&facts(&output.stdout)), [(0, 5), (1, 6)].into());
    assert!(String::from_utf8_lossy(&output.stderr).contains("other over 2 inputs in Docker, "), "{output:?}");
}

#[test]
fn memory_is_limited_to_what_the_function_asks_for() {
    let on = trial!();
    let facts = on.facts(&["hungry"]);
    assert_eq!(values(&facts), [(0, 1), (2, 2)].into(), "{facts:?}");
    assert_eq!(failures(&facts)[&1].kind, "OutOfMemory", "{facts:?}");
}

#[test]
fn cpus_are_limited_to_what_the_function_asks_for() {
    let on = trial!();
    assert_eq!(values(&on.facts(&["quota"])), [(0, 250)].into());
}

#[test]
fn an_image_with_other_types_is_refused_before_anything_runs() {
    let on = trial!();
    let note = on.home().join("image.json");
    let text = std::fs::read_to_string(&note).expect("the note is there");
    let mut built: serde_json::Value = serde_json::from_str(&text).expect("the note is JSON");
    for types in built["types"].as_array_mut().expect("the worker described its types") {
        types["fingerprint"] = 1.into();
        types["schema"] = "input: { number: u8 }".into();
    }
    std::fs::write(&note, built.to_string()).expect("the folder of the test can be written");
    let output = on.command(&["plain", &json(&Spec::of([Behavior::Double(1)]))]).output().expect("the trial starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    for part in ["have changed since the image", "- input: { number: u8 }", "run `cargo knot build`"] {
        assert!(stderr.contains(part), "`{part}` is not in:\n{stderr}");
    }
    assert_eq!(kept(&on), [""; 0]);
}

/// Returns the folders of Knots with runs in the folder of a test.
fn kept(on: &Trial) -> Vec<String> {
    let Ok(knots) = std::fs::read_dir(on.home().join("knots")) else { return Vec::new() };
    knots.map(|knot| knot.expect("the folder can be read").path().display().to_string()).collect()
}

#[test]
fn without_an_image_the_user_is_told_how_to_get_one() {
    let trial = Trial::new(crate::PROGRAM);
    let mut command = trial.command(&["plain", &json(&Spec::of([Behavior::Double(1)]))]);
    let output = command.env("CLOUDKNOT_BACKEND", "docker").output().expect("the trial starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("cannot find an image of this program"), "{stderr}");
    assert!(stderr.contains("hint: run `cargo knot build`"), "{stderr}");
    assert_eq!(kept(&trial), [""; 0]);
}

// Not with the other builds, because it has the same dependencies as the image of the trial.
#[test]
fn host_program_compiles_as_a_worker() {
    trial_image();
    let home = tempfile::tempdir().expect("a temporary folder can be created");
    let mut build = Command::new(cargo_knot());
    build.args(["knot", "build", "-p", "cloudknot-tests", "--bin", "whole", "--fast", "--features", "whole", "--json"]);
    let stdout = run(build.env("CLOUDKNOT_HOME", home.path()));
    let facts: serde_json::Value = serde_json::from_str(&stdout).expect("one JSON object");
    let worker = facts["worker"].as_str().expect("the worker is named");
    assert_eq!(types_of(&mut Command::new(worker), "double").function, "cloudknot-tests:whole::double");
    let bytes = std::fs::read(worker).expect("the worker is there");
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("this operation is not available in a worker"), "what only a host does says so");
    assert!(!text.contains("docker.sock"), "what speaks to an engine is in the worker");
}
