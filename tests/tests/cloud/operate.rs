//! Tests of the verbs that look at runs on AWS Batch: their requests only read, and their number is bounded.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use cloudknot_runtime::contract::{
    ENV_ORDER, IndexEntry, Order, OrderEnd, OrderedRetry, OrderedTask, Part, PartEnd, Report, RunKeys, RunState,
    index_key,
};
use cloudknot_tests::cloud::{Cloud, JobKind};
use cloudknot_tests::counterparts::{check, run as run_script};
use cloudknot_tests::moto::{environment, python};
use cloudknot_tests::recorder::{Recorder, ResponseOverride};
use cloudknot_tests::schema;
use cloudknot_tests::trial::{Behavior, Spec, Trial, counted, json, run_of, values, wait_for};
use cloudknot_tests::workspaces::cargo_knot;
use serde_json::{Value, json};

use crate::PROGRAM;
use crate::batch::MENDED;

const FIRST: Part = Part { first: 0, last: 0 };

/// Trial on a Knot, whose requests are recorded.
struct Operated {
    trial: Trial,
    knot: String,
    aws: Recorder,
    s3: Recorder,
    cloud: std::sync::Arc<Cloud>,
}

impl Operated {
    fn new() -> Option<Self> {
        let cloud = Cloud::get()?;
        let (aws, s3) = (Recorder::before(&cloud.moto.url()), Recorder::before(&cloud.s3.url()));
        let (trial, knot) = cloud.trial_at(PROGRAM, JobKind::of_suite(), &aws.url(), &s3.url())?;
        Some(Self { trial, knot, aws, s3, cloud })
    }

    /// Runs a verb, and returns the JSON that it prints.
    #[track_caller]
    fn verb(&self, arguments: &[&str], code: i32) -> Value {
        let mut command = self.trial.command_of(cargo_knot(), &[&["knot"], arguments, &["--json"]].concat());
        let output = check(&mut command, code, &[]);
        let printed = serde_json::from_slice(&output.stdout).expect("one JSON value and nothing else");
        schema::check(arguments[0], &printed);
        printed
    }

    /// Runs a verb, and checks that its requests only read. Returns the JSON, and the number of requests.
    #[track_caller]
    fn look(&self, arguments: &[&str], code: i32) -> (Value, usize) {
        let before = (self.aws.requests().len(), self.s3.requests().len());
        let found = self.verb(arguments, code);
        let (aws, s3) = (self.aws.requests().split_off(before.0), self.s3.requests().split_off(before.1));
        for request in &s3 {
            assert!(matches!(request.method.as_str(), "GET" | "HEAD"), "{} {}", request.method, request.path);
        }
        for request in &aws {
            assert_eq!(request.path, "/v1/describejobs", "a look at a run asks for nothing else");
        }
        (found, aws.len() + s3.len())
    }

    /// Returns the lines of a log, and checks that the requests for them only read.
    #[track_caller]
    fn logs(&self, arguments: &[&str], notes: &[&str]) -> Vec<Value> {
        let before = (self.aws.requests().len(), self.s3.requests().len());
        let arguments = [&["knot", "logs"], arguments, &["--json"]].concat();
        let output = check(&mut self.trial.command_of(cargo_knot(), &arguments), 0, notes);
        for request in &self.s3.requests()[before.1..] {
            assert!(matches!(request.method.as_str(), "GET" | "HEAD"), "{} {}", request.method, request.path);
        }
        for operation in &self.aws.operations()[before.0..] {
            assert!(
                ["batch POST /v1/describejobs", "logs FilterLogEvents"].contains(&operation.as_str()),
                "{operation}"
            );
        }
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }

    /// Writes an object of the Knot into the folder of the S3 server.
    fn write(&self, key: &str, bytes: &[u8]) {
        let root = self.cloud.record(&self.knot);
        let path = root.join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn look_at_a_run_only_reads() {
    let Some(operated) = Operated::new() else { return };
    let spec = Spec::of([Behavior::Double(1), Behavior::Fail(vec!["no star 7".into()]), Behavior::Double(3)]);
    let run = run_of(&operated.trial.map(&spec)).unwrap();
    let (listed, _) = operated.look(&["runs"], 0);
    let summary = &listed["runs"][0];
    assert_eq!(
        (&summary["run"], &summary["backend"], &summary["state"]),
        (&json!(run), &json!("batch"), &json!("failed"))
    );
    assert_eq!(summary["knot"], operated.knot);
    let (status, requests) = operated.look(&["status", "--check"], 10);
    assert_eq!(status["items"]["succeeded"], 2);
    assert_eq!(status["failures"][0]["message"], "no star N");
    assert_eq!(status["measured"], 2, "{status}");
    assert!(requests <= 12, "{requests} requests");
    operated.look(&["wait"], 10);
    let (results, _) = operated.look(&["results"], 10);
    assert_eq!((&results["results"][0]["value"], &results["results"][2]["value"]), (&json!(2), &json!(6)));
    assert_eq!(results["results"][1]["error"]["message"], "no star 7");
    operated.aws.validate();
}

fn printing(line: &str, next: Behavior) -> Behavior {
    Behavior::Print(format!("{line}\n"), String::new(), Box::new(next))
}

/// The logs are found by the outcomes alone, once AWS Batch has forgotten the jobs.
#[test]
fn logs_are_found_once_the_jobs_are_forgotten() {
    let Some(operated) = Operated::new() else { return };
    let fails = printing("reading 1", Behavior::Fail(vec!["no star".into()]));
    let spec = Spec::of([printing("reading 0", Behavior::Double(1)), fails, Behavior::Double(3)]);
    let run = run_of(&operated.trial.map(&spec)).unwrap();
    operated.aws.override_responses(|request| {
        let is_description = request.path == "/v1/describejobs";
        is_description.then(|| ResponseOverride::Respond(200, json!({"jobs": []}).to_string()))
    });
    let texts = |arguments: &[&str], notes: &[&str]| -> Vec<String> {
        let lines = operated.logs(arguments, notes);
        lines
            .iter()
            .filter(|line| !line["item"].is_null())
            .map(|line| line["text"].as_str().unwrap().to_owned())
            .collect()
    };
    // The log of a job is kept once its container has ended, which is later than its outcome.
    wait_for("the logs", || (texts(&[], &[]).len() == 2).then_some(()));
    let mut all = texts(&[], &[]);
    all.sort();
    assert_eq!(all, ["reading 0", "reading 1"]);
    assert_eq!(texts(&["last", "0"], &[]), ["reading 0"]);
    assert_eq!(texts(&["--failed"], &[]), ["reading 1"]);
    assert_eq!(texts(&["last", "0-1", "--grep", "1"], &[]), ["reading 1"]);
    let line = &operated.logs(&[&run, "1"], &[])[0];
    assert_eq!((&line["item"], &line["attempt"], &line["round"]), (&json!(1), &json!(1), &json!(1)));
    assert!(texts(&["last", "2"], &["the log group `/cloudknot/tests` has none of these lines"]).is_empty());
    let bytes =
        fs::read(operated.cloud.record(&operated.knot).join(RunKeys::new(&operated.knot, &run).part(FIRST))).unwrap();
    let machine = PartEnd::parse(FIRST, &bytes).unwrap().machine;
    assert_eq!(machine.log_group.as_deref(), Some("/cloudknot/tests"));
    assert_eq!(machine.zone.as_deref(), Some("eu-west-1b"));
    assert!(machine.log_stream.is_some_and(|stream| stream.contains("/default/")));
    operated.aws.validate();
}

/// A job without an outcome is found by its description.
#[test]
fn logs_of_a_running_job_are_followed() {
    let Some(operated) = Operated::new() else { return };
    let go_on = operated.trial.file("go-on");
    let waits =
        Behavior::After(operated.trial.remote_path(&go_on), Box::new(printing("released", Behavior::Double(1))));
    let program = operated.trial.start(&["map", &json(&Spec::of([printing("begun", waits)]))]);
    let run = program.wait_for_run_id();
    let mut command = operated.trial.command_of(cargo_knot(), &["knot", "logs", &run, "-f"]);
    let follower = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the follower to read the log", || {
        operated.aws.operations().iter().any(|operation| operation == "batch POST /v1/describejobs").then_some(())
    });
    fs::write(&go_on, "").unwrap();
    assert!(program.wait_with_output().status.success());
    let ended = follower.wait_with_output().unwrap();
    let printed = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let lines: Vec<&str> = printed.lines().filter(|line| line.starts_with("[item")).collect();
    assert_eq!(lines, ["[item 0, attempt 1] begun", "[item 0, attempt 1] released"]);
}

/// Credentials expire, and the user logs in again.
#[test]
fn followers_go_on_after_an_outage() {
    let Some(operated) = Operated::new() else { return };
    // Runs a verb that follows a run, fails one of its requests, and lets the run go on.
    let check = |arguments: &[&str], recorder: &Recorder, operation: &str, code: &str, printed: &str| {
        let (began, go_on) =
            (operated.trial.file(&format!("began {code}")), operated.trial.file(&format!("go on {code}")));
        let remote = |path: &Path| operated.trial.remote_path(path);
        let waits = Behavior::Wait(remote(&began), 0, remote(&go_on));
        let program = operated.trial.start(&["map", &json(&Spec::of([printing("begun", waits)]))]);
        program.wait_for_run_id();
        wait_for("the item to begin", || (counted(&began).len() == 1).then_some(()));
        // From now on, all requests are those of the verb.
        program.kill();
        let (first, before) = (operated.aws.requests().len(), recorder.requests().len());
        let mut command = operated.trial.command_of(cargo_knot(), &[&["knot"], arguments].concat());
        let follower = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The first look ends with it.
        wait_for("the first look", || {
            operated.aws.requests()[first..]
                .iter()
                .any(|request| request.operation().ends_with(operation))
                .then_some(())
        });
        recorder.fail_next(1, 400, code);
        wait_for("a request that fails", || {
            recorder.requests()[before..].iter().any(|request| request.fault.is_some()).then_some(())
        });
        fs::write(&go_on, "").unwrap();
        let ended = follower.wait_with_output().unwrap();
        let (stdout, stderr) = (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
        assert_eq!(ended.status.code(), Some(0), "{stderr}");
        assert!(stdout.contains(printed), "{stdout}");
        assert!(stderr.contains(code) && stderr.contains("; trying again every 10 s"), "{stderr}");
    };
    check(&["wait"], &operated.s3, "describejobs", "ExpiredToken", "is done");
    check(&["logs", "--follow", "--tail", "1"], &operated.aws, "FilterLogEvents", "ExpiredTokenException", "begun");
}

/// The last job stores its value and ends between the listing of the run and the description of its jobs.
#[test]
fn value_that_is_stored_during_a_look_is_seen() {
    let Some(operated) = Operated::new() else { return };
    let (began, go_on) = (operated.trial.file("began"), operated.trial.file("go-on"));
    let remote = |path: &Path| operated.trial.remote_path(path);
    let spec = Spec::of([Behavior::Wait(remote(&began), 0, remote(&go_on))]);
    let program = operated.trial.start(&["map", &json(&spec)]);
    let run = program.wait_for_run_id();
    wait_for("the item to begin", || (counted(&began).len() == 1).then_some(()));
    program.kill();
    operated.aws.stop_after(0);
    let mut command = operated.trial.command_of(cargo_knot(), &["knot", "results", &run]);
    let results = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    operated.aws.wait_until_held();
    fs::write(&go_on, "").unwrap();
    wait_for("the value", || (operated.trial.items_with_values(&run).len() == 1).then_some(()));
    let queue = operated.cloud.note(&operated.knot, JobKind::of_suite())["queue"].as_str().unwrap().to_owned();
    operated.cloud.moto.end_jobs(&queue, &format!("{}-", operated.knot));
    operated.aws.go_on();
    let ended = results.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), "0  0\n", "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(ended.status.code(), Some(0));
}

#[test]
fn running_run_is_shown_and_cancelled() {
    let Some(operated) = Operated::new() else { return };
    let (began, go_on) = (operated.trial.file("began"), operated.trial.file("go-on"));
    let remote = |path: &Path| operated.trial.remote_path(path);
    let inputs = (0..3).map(|item| Behavior::Wait(remote(&began), item, remote(&go_on)));
    let program = operated.trial.start(&["map", &json(&Spec::of(inputs))]);
    let run = program.wait_for_run_id();
    wait_for("the items to begin", || (counted(&began).len() == 3).then_some(()));
    let (status, _) = operated.look(&["status", "--check"], 11);
    assert_eq!(
        (&status["run"], &status["state"], &status["items"]["running"]),
        (&json!(run), &json!("running"), &json!(3))
    );
    operated.look(&["wait", "--timeout", "10ms"], 11);
    let ended = operated.verb(&["cancel", "last", "1", "--yes"], 0);
    assert_eq!(ended["cancelled"], json!({"ended": 1, "not_started": 0, "kept": 0}));
    let cancelled = operated.verb(&["cancel", "--yes", "--reason", "enough"], 0);
    let reasons: Vec<Value> = operated
        .aws
        .requests()
        .iter()
        .filter(|request| request.path == "/v1/terminatejob")
        .map(|request| {
            serde_json::from_str::<Value>(request.body.as_deref().unwrap()).expect("the request is JSON")["reason"]
                .clone()
        })
        .collect();
    assert_eq!(reasons[0], "its item was cancelled");
    assert!(reasons[1..].contains(&json!("the run was cancelled: enough")), "{reasons:?}");
    assert_eq!((&cancelled["state"], &cancelled["cancelled"]["kept"]), (&json!("cancelled"), &json!(0)));
    program.wait_with_output();
    let deleted = operated.verb(&["clean", &run, "--yes"], 0);
    assert_eq!(deleted["runs"][0]["deleted"], true);
    let (listed, _) = operated.look(&["runs"], 0);
    assert_eq!(listed["runs"], json!([]));
}

/// The mended function is deployed, as far as the jobs see it: in the job definition that the note names.
#[test]
fn retry_from_the_shell_needs_neither_source_nor_cargo() {
    let Some(operated) = Operated::new() else { return };
    let work = "cloudknot-tests:trial::work";
    let mut note = operated.cloud.note(&operated.knot, JobKind::of_suite());
    let old = note["job-definitions"][work].as_str().unwrap().to_owned();
    let mut script = Command::new(python().unwrap());
    let script = script.args(["-c", MENDED, &format!("{}-mended", operated.knot), &old]);
    let mended = run_script(script.envs(environment(&operated.cloud.moto.url()))).trim().to_owned();
    let inputs = (0..3).map(Behavior::Double).chain((0..12).map(|_| Behavior::Env("MENDED".into())));
    let run = run_of(&operated.trial.map(&Spec { chunk: Some(5), ..Spec::of(inputs) })).unwrap();

    let empty = tempfile::tempdir().unwrap();
    let retry = |arguments: &[&str], code: i32, errors: &[&str]| {
        let arguments = [&["knot", "retry"], arguments, &["--json"]].concat();
        let mut command = operated.trial.command_of(cargo_knot(), &arguments);
        command.current_dir(empty.path()).env("PATH", empty.path()).env_remove("CARGO");
        check(&mut command, code, errors).stdout
    };
    let json = |output: Vec<u8>| -> Value {
        let printed = serde_json::from_slice(&output).unwrap();
        schema::check("retry", &printed);
        printed
    };
    retry(&["last", "0"], 2, &["item 0 has a value"]);
    let again = json(retry(&["--old-code", "--wait"], 10, &[]));
    assert_eq!((&again["retried"], &again["items"]["failed"]), (&json!(12), &json!(12)), "the old code fails again");

    note["job-definitions"][work] = mended.clone().into();
    note["image"] = "mended@sha256:1".into();
    fs::write(operated.trial.home().join("knot.json"), note.to_string()).unwrap();
    let some = json(retry(&["last", "3-4,9", "--wait"], 10, &[]));
    assert_eq!(
        (&some["retried"], &some["items"]["succeeded"], &some["items"]["failed"]),
        (&json!(3), &json!(6), &json!(9))
    );
    let submitted = json(retry(&[], 0, &[]));
    assert_eq!(submitted["retried"], 9);
    let waited = operated.verb(&["wait"], 0);
    assert_eq!(waited["items"]["succeeded"], 15);
    let facts = operated.trial.attach(&run);
    let fixed = (3..15).map(|item| (item, 5));
    assert_eq!(values(&facts), [(0, 0), (1, 2), (2, 4)].into_iter().chain(fixed).collect(), "{facts:?}");

    let requests = operated.aws.requests().len();
    assert_eq!(json(retry(&[], 0, &[]))["retried"], 0);
    assert_eq!(operated.aws.requests().len(), requests, "with nothing to retry, nothing is submitted");
    let (root, keys) = (operated.cloud.record(&operated.knot), RunKeys::new(&operated.knot, &run));
    let rounds: Vec<u32> = (2..8).filter(|round| root.join(keys.round(*round)).exists()).collect();
    assert_eq!(rounds, [2, 3, 4], "no empty round is recorded");
    operated.aws.validate();
}

/// The program of a run on AWS Batch computes its failed items on this machine, in a new run.
#[test]
fn retry_on_another_backend_copies_the_inputs() {
    let Some(operated) = Operated::new() else { return };
    let inputs = (0..3).map(Behavior::Double).chain((0..3).map(|_| Behavior::Env("MENDED".into())));
    let spec = Spec { retries: Some(1), env: [("KEPT".into(), "1".into())].into(), ..Spec::of(inputs) };
    let run = run_of(&operated.trial.map(&spec)).unwrap();
    let order = |items: Option<Vec<std::ops::Range<u64>>>| {
        let task = OrderedTask::Retry(OrderedRetry {
            run: run.clone(),
            function: "cloudknot-tests:trial::work".into(),
            backend: "batch".into(),
            home: None,
            on: Some("local".into()),
            waits: true,
            items,
            memory: None,
            timeout_ms: None,
            retries: None,
        });
        let order = serde_json::to_string(&Order { reports: None, task }).unwrap();
        let mut program = operated.trial.command(&[]);
        let output = program.env(ENV_ORDER, order).env("MENDED", "5").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let refused = order(Some(vec![0..1, 3..4]));
    assert!(refused.contains("item 0 has a value"), "{refused}");
    let lines = order(Some(vec![3..4, 5..6]));
    let reports: Vec<_> = lines.lines().map(|line| Report::parse(line).unwrap()).collect();
    let [Report::Run(new), Report::Ended(end)] = &reports[..] else { panic!("{lines}") };
    assert_eq!(*end, OrderEnd { ran: 2, succeeded: 2, failed: 0 });
    let keys = RunKeys::new("cloudknot-tests", new);
    let manifest: Value =
        serde_json::from_slice(&fs::read(operated.trial.home().join(keys.manifest())).unwrap()).unwrap();
    let items = json!([{"start": 3, "end": 4}, {"start": 5, "end": 6}]);
    assert_eq!(manifest["parent"], json!({"run": run, "items": items}));
    assert_eq!(
        (&manifest["retries"], &manifest["env"]["KEPT"], &manifest["backend"]),
        (&json!(1), &json!("1"), &json!("local"))
    );
    let (status, _) = operated.look(&["status", &run], 0);
    assert_eq!((&status["items"]["failed"], status["rounds"].as_array().map(Vec::len)), (&json!(3), Some(1)));
}

/// Types that have changed would give values that cannot be decoded.
#[test]
fn retry_from_the_shell_with_other_types_is_refused() {
    let Some(operated) = Operated::new() else { return };
    operated.trial.map(&Spec::of([Behavior::Fail(vec!["no".into()])]));
    let submitted = operated.aws.requests().len();
    let mut note = operated.cloud.note(&operated.knot, JobKind::of_suite());
    for types in note["types"].as_array_mut().unwrap() {
        types["fingerprint"] = 1.into();
    }
    fs::write(operated.trial.home().join("knot.json"), note.to_string()).unwrap();
    let mut command = operated.trial.command_of(cargo_knot(), &["knot", "retry"]);
    check(&mut command, 1, &["have changed since the Knot"]);
    assert_eq!(operated.aws.requests().len(), submitted);
}

/// 1,000 ended runs are listed by three requests: their folders, and two pages of the index.
#[test]
fn thousand_runs_are_listed_by_three_requests() {
    let Some(operated) = Operated::new() else { return };
    for number in 0..1_000 {
        let run = format!("20261128-101530{:03}-a{number:03}", number % 1_000);
        let submitted = IndexEntry::Submitted {
            backend: "batch".into(),
            items: 4,
            inputs: None,
            function: "f:f::f".into(),
            name: None,
        };
        let ended = IndexEntry::Ended { round: 1, state: RunState::Done, done: 4, failed: 0, at_ms: 1_795_860_940_000 };
        for entry in [submitted, ended] {
            operated.write(&index_key(&operated.knot, &run, &entry).unwrap(), b"");
        }
        operated.write(&RunKeys::new(&operated.knot, &run).manifest(), b"");
    }
    let (listed, requests) = operated.look(&["runs", "--all"], 0);
    assert_eq!(listed["runs"].as_array().map(Vec::len), Some(1_000));
    assert_eq!(requests, 3);
}

/// A run of 100,000 items in 10,000 parts is shown by at most 300 requests.
#[test]
fn large_run_is_shown_by_few_requests() {
    let Some(operated) = Operated::new() else { return };
    let run = run_of(&operated.trial.map(&Spec::of([Behavior::Double(1)]))).unwrap();
    let keys = RunKeys::new(&operated.knot, &run);
    let root = operated.cloud.record(&operated.knot);
    let mut manifest: Value = serde_json::from_slice(&fs::read(root.join(keys.manifest())).unwrap()).unwrap();
    manifest["items"] = json!(100_000);
    operated.write(&keys.manifest(), manifest.to_string().as_bytes());
    fs::remove_file(root.join(keys.inputs())).unwrap();
    let bytes = fs::read(root.join(keys.part(Part { first: 0, last: 0 }))).unwrap();
    let row = PartEnd::parse(Part { first: 0, last: 0 }, &bytes).unwrap().rows[0];
    let mut table = Vec::new();
    (0..10).for_each(|_| row.append(&mut table));
    let mut end = Vec::new();
    PartEnd::append(&table, b"{}", &mut end);
    fs::remove_file(root.join(keys.part(Part { first: 0, last: 0 }))).unwrap();
    for first in (0..100_000).step_by(10) {
        operated.write(&keys.part(Part { first, last: first + 9 }), &end);
    }
    let (status, requests) = operated.look(&["status"], 0);
    assert_eq!(
        (&status["state"], &status["items"]["succeeded"], &status["measured"]),
        (&json!("done"), &json!(100_000), &json!(2_000))
    );
    assert!(requests <= 300, "{requests} requests");
}
