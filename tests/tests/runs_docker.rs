//! Maps on the local Docker engine, by the image of the trial: what holds of item processes here holds of them there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use cloudknot_tests::counterparts::Docker;
use cloudknot_tests::trial::{Fact, Running, Spec, Task, Trial, facts, failures, json, run_of, values, wait_for};
use cloudknot_tests::workspaces::cargo_knot;

/// The note of the image, as `cargo knot build` leaves it. Built once, from the command line.
static NOTE: LazyLock<PathBuf> = LazyLock::new(|| {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the repository");
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runs-docker");
    let mut build = Command::new(cargo_knot());
    build.args(["knot", "build", "-p", "cloudknot-tests", "--bin", "trial", "--fast"]);
    build.current_dir(repository).env("CLOUDKNOT_HOME", &home);
    let output = build.output().expect("the command starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    home.join("image.json")
});

struct OnDocker {
    docker: Arc<Docker>,
    trial: Trial,
}

impl OnDocker {
    fn new() -> Option<Self> {
        let docker = Docker::get()?;
        let trial = Trial::new(env!("CARGO_BIN_EXE_trial"));
        std::fs::create_dir_all(trial.home()).expect("the folder of the test can be written");
        std::fs::copy(&*NOTE, trial.home().join("image.json")).expect("the note is there");
        Some(Self { docker, trial })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.trial.command(arguments);
        command.env("CLOUDKNOT_BACKEND", "docker");
        if let Some(host) = self.docker.host() {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    #[track_caller]
    fn facts(&self, arguments: &[&str]) -> Vec<Fact> {
        let output = self.command(arguments).output().expect("the trial starts");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        facts(&output.stdout)
    }

    fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments), &self.trial.home())
    }

    /// The containers of this run that are there, running or not.
    fn containers(&self, run: &str) -> String {
        let mut list = self.docker.command();
        list.args(["ps", "-aq", "--filter", &format!("label=cloudknot.run={run}")]);
        cloudknot_tests::counterparts::run(&mut list)
    }
}

#[test]
fn every_item_has_its_own_outcome_and_nothing_is_left_behind() {
    let Some(on) = OnDocker::new() else { return };
    let mut tasks: Vec<Task> = (0..40).map(Task::Double).collect();
    let bad = [
        (3, Task::Panic("such is life".into()), "Panicked", "such is life"),
        (8, Task::Fail(vec!["outer".into(), "inner".into()]), "Returned", "outer"),
        (13, Task::Abort, "Crashed", "SIGABRT"),
        (14, Task::Segfault, "Crashed", "SIGSEGV"),
        (22, Task::Overflow, "Crashed", "stack overflow"),
        (23, Task::Exit(3), "Crashed", "code 3"),
        (31, Task::Kill, "Crashed", "SIGKILL"),
        (39, Task::Sleep(600_000, 1), "TimedOut", "longer than"),
    ];
    for (index, task, ..) in &bad {
        tasks[*index] = task.clone();
    }
    let facts = on.facts(&["map", &json(&Spec { timeout_ms: Some(2_000), ..Spec::of(tasks) })]);
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
    assert_eq!(on.containers(&run), "");
    // The record is the same one: this machine's own processes read it too.
    assert_eq!(cloudknot_tests::trial::values(&on.trial.attach(&run)), values);
}

#[test]
fn a_run_whose_program_was_killed_is_finished_by_another() {
    let Some(on) = OnDocker::new() else { return };
    let counts = on.trial.home().join("counts");
    std::fs::write(&counts, "").expect("the folder of the test can be written");
    // As the container sees the folder.
    let seen = PathBuf::from("/cloudknot/counts");
    let tasks = (0..24).map(|number| Task::Count(seen.clone(), number, 100));
    let first = on.start(&["map", &json(&Spec { chunk: Some(2), ..Spec::of(tasks) })]);
    let run = first.run();
    wait_for("a few values", || (on.trial.items_with_values(&run).len() >= 4).then_some(()));
    first.kill();
    let facts = on.facts(&["attach", &run]);
    let expected = (0..24_usize).zip(0..24).collect();
    assert_eq!(values(&facts), expected);
    wait_for("all containers to be gone", || on.containers(&run).is_empty().then_some(()).or_else(|| sweep(&on)));
}

/// What a killed program left behind is removed by the next that maps, once it has been over for a while.
fn sweep(on: &OnDocker) -> Option<()> {
    let removed = on.docker.command().args(["container", "prune", "-f"]).output().is_ok();
    assert!(removed, "the engine answers");
    None
}

#[test]
fn another_program_cancels_it() {
    let Some(on) = OnDocker::new() else { return };
    let tasks = (0..8).map(|number| Task::Sleep(if number == 0 { 1 } else { 600_000 }, number));
    let first = on.start(&["map", &json(&Spec { chunk: Some(1), ..Spec::of(tasks) })]);
    let run = first.run();
    wait_for("the first value", || on.trial.items_with_values(&run).contains(&0).then_some(()));
    on.facts(&["cancel", &run]);
    let facts = facts(&first.end().stdout);
    assert_eq!(values(&facts), [(0, 0)].into());
    assert!(failures(&facts).values().all(|failed| failed.kind == "Cancelled"), "{facts:?}");
    assert_eq!(on.containers(&run), "");
}

#[test]
fn an_image_with_other_types_is_refused_before_anything_runs() {
    let Some(on) = OnDocker::new() else { return };
    let note = on.trial.home().join("image.json");
    let text = std::fs::read_to_string(&note).expect("the note is there");
    let mut built: serde_json::Value = serde_json::from_str(&text).expect("the note is JSON");
    for types in built["types"].as_array_mut().expect("the worker was asked for its types") {
        types["fingerprint"] = 1.into();
        types["schema"] = "input: { task: u8 }".into();
    }
    std::fs::write(&note, built.to_string()).expect("the folder of the test can be written");
    let output = on.command(&["plain", &json(&Spec::of([Task::Double(1)]))]).output().expect("the trial starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    for part in ["have changed since the image", "- input: { task: u8 }", "run `cargo knot build`"] {
        assert!(said.contains(part), "`{part}` is not in:\n{said}");
    }
}

#[test]
fn without_an_image_the_user_is_told_how_to_get_one() {
    let trial = Trial::new(env!("CARGO_BIN_EXE_trial"));
    let mut command = trial.command(&["plain", &json(&Spec::of([Task::Double(1)]))]);
    let output = command.env("CLOUDKNOT_BACKEND", "docker").output().expect("the trial starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("failed to find an image of this program"), "{said}");
    assert!(said.contains("hint: run `cargo knot build`"), "{said}");
}
