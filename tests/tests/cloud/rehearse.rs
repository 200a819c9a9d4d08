//! Tests of `cargo knot doctor --rehearse`: the image is pushed to a real registry and its containers run in a real engine; moto
//! simulates the other AWS services.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use cloudknot_tests::counterparts::{Docker, Registry, check};
use cloudknot_tests::moto::Moto;
use cloudknot_tests::recorder::ResponseOverride;
use cloudknot_tests::shared::lock;
use cloudknot_tests::walk::{UserCrate, target};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

use crate::account::{Account, json};
use crate::policies::Simulation;

/// Role that AWS Batch creates for itself, and keeps.
const ROLES: [&str; 1] = ["AWSServiceRoleForBatch"];

/// An account, and a user with a package.
struct Stage {
    account: Account,
    user_crate: UserCrate,
    _docker: Arc<Docker>,
    _logins: TempDir,
    /// The rehearsals of all tests share a package, whose dependencies are compiled once.
    _lock: File,
}

impl Stage {
    fn new() -> Option<Self> {
        let (docker, registry) = (Docker::get()?, Registry::start()?);
        let lock = lock("rehearsal");
        let logins = tempfile::tempdir().unwrap();
        let login = r#"{"auths": {"HOST": {"auth": "QVdTOjEyMzQ1Njc4OTAxMi1hdXRoLXRva2Vu"}}}"#;
        std::fs::write(logins.path().join("config.json"), login.replace("HOST", &registry.host())).unwrap();
        let moto = Moto::start_as_account(&docker, logins.path())?;
        let user_crate = UserCrate::new("rehearsing");
        Some(Self { account: Account::of(moto, registry), user_crate, _docker: docker, _logins: logins, _lock: lock })
    }

    fn rehearse(&self, more: &[&str]) -> Command {
        let mut command = self.account.knot(&[&["doctor", "--rehearse"], more].concat());
        command.current_dir(self.user_crate.folder()).env_remove("CLOUDKNOT_HOME").env("CARGO_NET_OFFLINE", "true");
        command.env("CARGO_TARGET_DIR", target().join("rehearsals"));
        command
    }
}

#[test]
fn rehearsal_runs_items_and_deletes_everything() {
    let Some(stage) = Stage::new() else { return };
    let output = stage.rehearse(&["--yes", "--tag", "Owner=Ada"]).output().unwrap();
    let (steps, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}\n{steps}");
    assert!(errors.contains("costs at most about 0.22 USD"), "{errors}");
    let states: Vec<&str> = steps.lines().map(|line| line.split("  ").next().unwrap_or_default()).collect();
    // The compilation, the Pars and its deletion; of each Knot, its deploy, three checks, and its deletion.
    assert_eq!(states, ["ok"; 3 + 2 * 5], "{steps}");
    for knot in ["ec2", "fargate"] {
        for check in ["compare their results", "whose processes are killed", "in the logs of their jobs"] {
            let is_found = |line: &str| line.contains(check) && line.contains(&format!("-{knot}`"));
            assert!(steps.lines().any(is_found), "no `{check}` on {knot}: {steps}");
        }
    }
    stage.account.check_empty(&ROLES);
    stage.account.recorder.validate();
    // The policies that README.md names.
    let policies = ["pars-create", "deploy", "run", "clobber", "pars-clobber"];
    let simulation = Simulation::of("rehearsal-ab1cd", "rehearsal-ab1cd-ec2");
    let mut simulation = simulation.with_patterns("rehearsal-*", "rehearsal-*");
    simulation.evaluate(&stage.account.recorder.requests(), &policies, &[]);
}

#[test]
fn failed_rehearsal_deletes_everything() {
    let Some(stage) = Stage::new() else { return };
    let refused = "{}";
    stage.account.recorder.override_responses(move |request| {
        let is_submission = request.operation().ends_with("/v1/submitjob");
        is_submission.then(|| ResponseOverride::Respond(403, refused.to_owned()))
    });
    let output =
        check(&mut stage.rehearse(&["--yes", "--compute", "fargate", "--json"]), 9, &["a step ended with an error"]);
    let steps = json(&output);
    let failed = |step: &&Value| !step["error"].is_null();
    let steps = steps.as_array().unwrap();
    assert_eq!(steps.iter().filter(failed).count(), 3, "each check fails: {steps:?}");
    let error = steps.iter().find(failed).unwrap()["error"].to_string();
    assert!(error.contains("cannot submit the job") && error.contains("status 403"), "{error}");
    stage.account.check_empty(&ROLES);
}

/// A rehearsal in the background.
struct Rehearsing {
    process: Child,
    log: NamedTempFile,
}

impl Rehearsing {
    /// Starts a rehearsal, and waits until a request with this operation has ended.
    fn until(stage: &Stage, operation: &str) -> Self {
        let log = NamedTempFile::new().unwrap();
        let mut command = stage.rehearse(&["--yes", "--compute", "ec2"]);
        let process = command.stdout(Stdio::null()).stderr(log.reopen().unwrap()).spawn().unwrap();
        let mut rehearsing = Self { process, log };
        let recorder = &stage.account.recorder;
        while !recorder.operations().iter().any(|requested| requested == operation) {
            assert!(rehearsing.process.try_wait().unwrap().is_none(), "{}", rehearsing.errors());
            sleep(Duration::from_millis(20));
        }
        rehearsing
    }

    fn interrupt(&self) {
        let id = i32::try_from(self.process.id()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), Signal::INT).unwrap();
    }

    /// Waits for the end, and returns what the command has printed on stderr.
    fn wait(mut self) -> String {
        let status = self.process.wait().unwrap();
        let errors = self.errors();
        assert_eq!(status.code(), Some(1), "{errors}");
        for line in ["interrupted: deleting what was created", "error: the rehearsal was interrupted"] {
            assert!(errors.contains(line), "{errors}");
        }
        errors
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }
}

#[test]
fn interrupted_rehearsal_deletes_everything() {
    let Some(stage) = Stage::new() else { return };
    // While the Pars is created, and once items run.
    for (operation, roles) in [("cloudformation CreateStack", &[][..]), ("batch POST /v1/submitjob", &ROLES)] {
        let rehearsing = Rehearsing::until(&stage, operation);
        rehearsing.interrupt();
        let errors = rehearsing.wait();
        assert!(stage.account.is_empty(roles), "{errors}\n{}", stage.account.remaining());
    }
}

#[test]
fn second_interrupt_prints_the_commands() {
    let Some(stage) = Stage::new() else { return };
    let rehearsing = Rehearsing::until(&stage, "batch POST /v1/submitjob");
    let recorder = &stage.account.recorder;
    recorder.stop_after(0);
    rehearsing.interrupt();
    while !rehearsing.errors().contains("interrupted: ") {
        sleep(Duration::from_millis(20));
    }
    rehearsing.interrupt();
    let errors = rehearsing.wait();
    recorder.go_on();
    let commands: Vec<&str> = errors.lines().filter_map(|line| line.strip_prefix("  cargo knot ")).collect();
    assert_eq!(commands.len(), 2, "a Knot and a Pars: {errors}");
    for command in commands {
        check(&mut stage.account.knot(&command.split(' ').collect::<Vec<_>>()), 0, &[]);
    }
    stage.account.check_empty(&ROLES);
}
