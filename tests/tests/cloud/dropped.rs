//! Deploys and clobbers that are interrupted between any two requests to AWS, and completed by the same call.
//!
//! They run in this process, over a recorder that holds a request, and are dropped; see
//! [`cloudknot_tests::recorder::drop_at`]. Two are commands that are killed, with the same effect.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cloudknot::compile::{Compile, Profile, Selection};
use cloudknot::{ErrorKind, Knot, Result};
use cloudknot_tests::counterparts::check;
use cloudknot_tests::random::{Random, seed};
use cloudknot_tests::recorder::{DropAt, Recorder, drop_at};
use serde_json::Value;

use crate::account::{Account, SERVICE_ROLE, STAND_IN, json};
use crate::knot::kill;

/// Number of deploys, and of clobbers, that are dropped at random.
const DROPS: u64 = 6;

/// Command that does the same as [`clobber`].
const CLOBBER: [&str; 3] = ["clobber", "sweep", "--pars"];

/// Does the same as [`Account::deploy`].
async fn deploy(role: &str) -> Result<Knot> {
    let (manifest_path, package) = (Some(STAND_IN.join("Cargo.toml")), Some("lone".to_owned()));
    let selection = Selection { manifest_path, package, ..Selection::default() };
    let compile = Compile::new(selection).profile(Profile::Fast).cargo_option("--offline");
    Knot::builder("sweep").service_role(role).compile(compile).deploy().await
}

async fn clobber() -> Result<()> {
    Knot::builder("sweep").clobber().beside(&*STAND_IN).pars().await
}

/// Environment of this process, which cloudknot reads. One test at a time holds it.
struct Environment {
    before: Vec<(&'static str, Option<OsString>)>,
    _guard: MutexGuard<'static, ()>,
}

static LOCK: Mutex<()> = Mutex::new(());

impl Environment {
    fn take() -> Self {
        Self { before: Vec::new(), _guard: LOCK.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Sets the environment of this process to that of this user's machine, with AWS behind this recorder.
    fn set(&mut self, account: &Account, aws: &Recorder, home: &Path) {
        for (name, value) in account.variables(&aws.url(), home) {
            if self.before.iter().all(|(known, _)| *known != name) {
                self.before.push((name, std::env::var_os(name)));
            }
            // SAFETY: only Rust code reads the environment here, and the standard library locks it.
            #[allow(unsafe_code)]
            unsafe {
                std::env::set_var(name, value);
            }
        }
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        for (name, value) in self.before.drain(..) {
            // SAFETY: as above.
            #[allow(unsafe_code)]
            unsafe {
                match value {
                    Some(value) => std::env::set_var(name, value),
                    None => std::env::remove_var(name),
                }
            }
        }
    }
}

/// Moment at which a call is interrupted.
#[derive(Debug, Clone, Copy)]
enum At {
    /// When it sends one request more than this number.
    Requests(u64),
    /// After this number of polls.
    Polls(u64),
}

/// Call that was interrupted, or that ended before that.
struct Interrupted {
    recorder: Recorder,
    at: At,
    has_ended: bool,
    polls: u64,
}

impl Interrupted {
    /// Polls a call over its own recorder, and drops it.
    fn new<T>(at: At, account: &Account, environment: &mut Environment, call: impl Future<Output = Result<T>>) -> Self {
        let recorder = Recorder::before(&account.moto.url());
        environment.set(account, &recorder, account.home.path());
        let when = match at {
            At::Requests(requests) => {
                recorder.stop_after(requests);
                DropAt::Held(&recorder)
            }
            At::Polls(polls) => DropAt::Polls(polls),
        };
        let (output, polls) = pollster::block_on(drop_at(when, &[&recorder], call));
        let has_ended = output.map(|output| output.unwrap_or_else(|error| panic!("at {at:?}: {error:?}"))).is_some();
        Self { recorder, at, has_ended, polls }
    }

    /// Fails if moto has answered a request of the call after the drop.
    fn check_answered(&self) {
        let answered = self.recorder.answered();
        assert_eq!(answered, self.recorder.passed(), "at {:?}", self.at);
        if let At::Requests(requests) = self.at {
            assert!(self.has_ended || answered == requests, "answered {answered} requests, not {requests}");
        }
    }
}

/// Interrupts a deploy, and completes it with another one.
fn deploy_twice(at: At, account: &Account, environment: &mut Environment) -> Interrupted {
    account.moto.reset();
    let role = account.script(SERVICE_ROLE);
    let interrupted = Interrupted::new(at, account, environment, deploy(&role));
    environment.set(account, &account.recorder, account.home.path());
    let knot = pollster::block_on(deploy(&role)).unwrap_or_else(|error| panic!("after {at:?}: {error:?}"));
    check_deployed(account, knot.job_definitions().len(), &format!("after {at:?}"));
    interrupted.check_answered();
    interrupted
}

/// Fails unless the Knot exists, with the one function of its program.
fn check_deployed(account: &Account, definitions: usize, when: &str) {
    assert_eq!(definitions, 1, "{when}");
    let stacks = account.remaining()["stacks"].clone();
    assert_eq!(stacks, Value::from(vec!["cloudknot-knot-sweep", "cloudknot-pars-ada-default"]), "{when}");
}

/// Interrupts the clobber of a Knot with data, and completes it with another one: on the same machine, or on one
/// without a note.
fn clobber_twice(at: At, same_machine: bool, account: &Account, environment: &mut Environment) -> Interrupted {
    account.moto.reset();
    let role = account.script(SERVICE_ROLE);
    environment.set(account, &account.recorder, account.home.path());
    pollster::block_on(deploy(&role)).unwrap_or_else(|error| panic!("before {at:?}: {error:?}"));
    account.put_data(&["sweep"]);
    let interrupted = Interrupted::new(at, account, environment, clobber());
    let other_home = tempfile::tempdir().unwrap();
    let home = if same_machine { account.home.path() } else { other_home.path() };
    let is_deleted = if same_machine { interrupted.has_ended } else { account.is_empty(&["theirs"]) };
    environment.set(account, &account.recorder, home);
    let second = pollster::block_on(clobber());
    let kind = second.as_ref().err().map(cloudknot::Error::kind);
    assert_eq!(kind, is_deleted.then_some(ErrorKind::NotFound), "after {at:?}: {second:?}");
    account.check_empty(&["theirs"]);
    assert!(!same_machine || !account.note().exists(), "after {at:?}: maps run on this machine again");
    interrupted.check_answered();
    interrupted
}

#[test]
fn deploy_dropped_at_any_request_is_completed_by_the_next() {
    let Some(account) = Account::new() else { return };
    let mut environment = Environment::take();
    let mut requests = 0;
    while !deploy_twice(At::Requests(requests), &account, &mut environment).has_ended {
        requests += 1;
    }
    assert!(requests > 10, "a deploy sends only {requests} requests");
}

#[test]
fn deploy_dropped_at_random_is_completed_by_the_next() {
    let Some(account) = Account::new() else { return };
    let (mut environment, mut random) = (Environment::take(), Random::new(seed()));
    let whole = deploy_twice(At::Polls(u64::MAX), &account, &mut environment);
    assert!(whole.has_ended);
    for _ in 0..DROPS {
        deploy_twice(At::Polls(1 + random.below(whole.polls)), &account, &mut environment);
    }
}

#[test]
fn clobber_dropped_at_any_request_is_completed_by_the_next() {
    let Some(account) = Account::new() else { return };
    let mut environment = Environment::take();
    let mut requests = 0;
    while !clobber_twice(At::Requests(requests), requests % 2 == 0, &account, &mut environment).has_ended {
        requests += 1;
    }
    assert!(requests > 10, "a clobber sends only {requests} requests");
}

#[test]
fn clobber_dropped_at_random_is_completed_by_the_next() {
    let Some(account) = Account::new() else { return };
    let (mut environment, mut random) = (Environment::take(), Random::new(seed()));
    let whole = clobber_twice(At::Polls(u64::MAX), true, &account, &mut environment);
    assert!(whole.has_ended);
    for _ in 0..DROPS {
        let (polls, same_machine) = (1 + random.below(whole.polls), random.below(2) == 0);
        clobber_twice(At::Polls(polls), same_machine, &account, &mut environment);
    }
}

/// Kills the command when it sends one request more than this number.
fn kill_at(requests: u64, account: &Account, mut command: Command) {
    let recorder = Recorder::before(&account.moto.url());
    recorder.stop_after(requests);
    command.envs(account.variables(&recorder.url(), account.home.path()));
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(recorder.is_held_before_exit(&mut process), "the command sends only {requests} requests");
    kill(&mut process);
    recorder.cut_off();
    assert_eq!(recorder.passed(), requests);
}

/// Returns the names of the remaining resources by service, the Knots that have data, and whether the note exists.
fn remaining(account: &Account) -> (Value, String, bool) {
    let mut remaining = account.remaining();
    for names in remaining.as_object_mut().expect("a table").values_mut() {
        for name in names.as_array_mut().expect("a list") {
            *name = without_suffix(name.as_str().expect("a name")).into();
        }
    }
    (remaining, account.knots_with_data(), account.note().exists())
}

/// Returns a name without the twelve letters and digits that CloudFormation chooses at random.
fn without_suffix(name: &str) -> &str {
    match name.split_at_checked(name.len().saturating_sub(12)) {
        Some((rest, suffix)) if rest.ends_with(['-', '_']) && suffix.bytes().all(|b| b.is_ascii_alphanumeric()) => rest,
        _ => name,
    }
}

#[test]
fn killed_deploy_leaves_the_same_as_a_dropped_one() {
    let Some(account) = Account::new() else { return };
    let mut environment = Environment::take();
    let role = account.script(SERVICE_ROLE);
    let (_, calls) = account.calls(&mut account.deploy(&role, &[]));
    check(&mut account.knot(&CLOBBER), 0, &[]);
    // The Pars and the repository exist by then.
    let middle = calls.iter().position(|call| call == "ecr GetAuthorizationToken").expect("a deploy logs in") as u64;
    let reset = || {
        account.moto.reset();
        account.script(SERVICE_ROLE)
    };
    let role = reset();
    Interrupted::new(At::Requests(middle), &account, &mut environment, deploy(&role));
    let dropped = remaining(&account);
    assert_eq!(dropped.0["repositories"], Value::from(vec!["cloudknot/sweep"]));
    let role = reset();
    kill_at(middle, &account, account.deploy(&role, &[]));
    assert_eq!(remaining(&account), dropped);
    let deployed = json(&check(&mut account.deploy(&role, &[]), 0, &[]));
    let definitions = deployed["job_definitions"].as_object().map_or(0, serde_json::Map::len);
    check_deployed(&account, definitions, "after a kill");
}

#[test]
fn killed_clobber_leaves_the_same_as_a_dropped_one() {
    let Some(account) = Account::new() else { return };
    let mut environment = Environment::take();
    let deploy = || {
        account.moto.reset();
        let role = account.script(SERVICE_ROLE);
        check(&mut account.deploy(&role, &[]), 0, &[]);
        account.put_data(&["sweep"]);
    };
    deploy();
    let (_, calls) = account.calls(&mut account.knot(&CLOBBER));
    // By then the Knot's stack is deleted, and the Pars and a job definition remain.
    let deleted = calls.iter().position(|call| call == "cloudformation DeleteStack").expect("its stack is deleted");
    let middle = deleted as u64 + 1;
    deploy();
    Interrupted::new(At::Requests(middle), &account, &mut environment, clobber());
    let dropped = remaining(&account);
    assert_eq!(dropped.0["stacks"], Value::from(vec!["cloudknot-pars-ada-default"]));
    deploy();
    kill_at(middle, &account, account.knot(&CLOBBER));
    assert_eq!(remaining(&account), dropped);
    check(&mut account.knot(&CLOBBER), 0, &["deleted the Knot `sweep`"]);
    account.check_empty(&["theirs"]);
    assert!(!account.note().exists(), "the note of the Knot still exists");
}
