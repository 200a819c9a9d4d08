//! Tests of AWS Batch alone, which moto simulates. Memory, signals and exit codes are tested in containers.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use cloudknot_tests::cloud::{Cloud, JobKind};
use cloudknot_tests::counterparts::{CLOSED_PORT, run};
use cloudknot_tests::moto::{environment, python};
use cloudknot_tests::random::seed;
use cloudknot_tests::recorder::{Recorder, ResponseOverride};
use cloudknot_tests::trial::{
    Behavior, Fact, RetrySpec, Running, Spec, Trial, counted, facts, failures, files, json, kill, run_of, values,
    wait_for,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::{PROGRAM, trial};

/// Trial whose requests are all recorded, and can be manipulated by the test.
struct RecordedTrial {
    trial: Trial,
    knot: String,
    aws: Recorder,
    s3: Recorder,
    cloud: std::sync::Arc<Cloud>,
}

impl RecordedTrial {
    fn new() -> Option<Self> {
        let cloud = Cloud::get()?;
        let (aws, s3) = (Recorder::before(&cloud.moto.url()), Recorder::before(&cloud.s3.url()));
        let (trial, knot) = cloud.trial_at(PROGRAM, JobKind::of_suite(), &aws.url(), &s3.url())?;
        Some(Self { trial, knot, aws, s3, cloud })
    }

    /// Returns the jobs that were submitted, as they were requested.
    fn submitted(&self) -> Vec<Value> {
        let requests = self.aws.requests();
        let submitted = requests.iter().filter(|request| request.path == "/v1/submitjob");
        submitted.map(|request| serde_json::from_str(request.body.as_deref().unwrap()).unwrap()).collect()
    }

    /// Returns the IDs of the trial's runs that have a record.
    fn run_ids(&self) -> Vec<String> {
        let manifests =
            files(&self.cloud.record(&self.knot)).into_iter().filter(|path| path.ends_with("manifest.json"));
        manifests.map(|path| path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    fn error(&self, arguments: &[&str]) -> (String, String) {
        match &self.trial.facts(arguments)[..] {
            [Fact::Error(kind, text), ..] => (kind.clone(), text.clone()),
            other => panic!("no error: {other:?}"),
        }
    }

    /// Fails unless the trial reports this error, without retries of a permanent error.
    fn refuses(&self, arguments: &[&str], kind: &str, parts: &[&str]) {
        let requests = || self.aws.requests().len() + self.s3.requests().len();
        let before = requests();
        let (actual, text) = self.error(arguments);
        assert_eq!(actual, kind, "{text}");
        for part in parts {
            assert!(text.contains(part), "`{part}` is not in:\n{text}");
        }
        let sent = requests() - before;
        assert!(sent <= 6, "{sent} requests: {text}");
    }

    /// Changes the note of the Knot.
    fn edit_note(&self, change: impl FnOnce(&mut Value)) {
        let mut note = self.cloud.note(&self.knot, JobKind::of_suite());
        change(&mut note);
        fs::write(self.trial.home().join("knot.json"), note.to_string()).unwrap();
    }
}

fn doubles(items: u64) -> Spec {
    Spec::of((0..items).map(Behavior::Double))
}

fn doubled(items: u64) -> std::collections::BTreeMap<usize, u64> {
    (0..items).map(|item| (usize::try_from(item).unwrap(), 2 * item)).collect()
}

/// The host needs 30 calls, and each child two. Python's cloudknot needs 65 to 67 calls. Queries of the progress of the
/// jobs are not counted.
#[test]
fn calls_for_twenty_inputs_are_bounded() {
    let Some(recorded) = RecordedTrial::new() else { return };
    let began = Instant::now();
    let facts = recorded.trial.map(&doubles(20));
    assert_eq!(values(&facts), doubled(20));
    let mut calls: Vec<String> = recorded.s3.operations();
    calls.extend(recorded.aws.operations());
    calls.retain(|call| !call.ends_with("/v1/describejobs"));
    // While jobs run, the stored results are listed at most every ten seconds.
    let listings = usize::try_from(began.elapsed().as_secs() / 10).unwrap();
    assert!(calls.len() <= 30 + listings, "{} calls: {calls:#?}", calls.len());
    let all = recorded.cloud.s3.requests_of(&format!("/{}/", recorded.knot));
    let host = recorded.s3.requests().len();
    // A listing has the prefix in its query.
    let listed = all.iter().filter(|request| request.contains("list-type")).count();
    assert!(
        all.len() - (host - listed.max(1)) <= 40 + listed,
        "each child reads its input and stores its value: {all:#?}"
    );
    assert_eq!(all.iter().filter(|request| request.starts_with("PUT") && request.contains("/results/")).count(), 20);
    assert_eq!(all.iter().filter(|request| request.starts_with("GET") && request.contains("/inputs")).count(), 20);
    let [job] = &recorded.submitted()[..] else { panic!("{:?}", recorded.submitted()) };
    assert_eq!(job["arrayProperties"]["size"], 20);
    assert_eq!(job["tags"]["cloudknot:knot"], recorded.knot);
    recorded.aws.validate();
}

#[test]
fn single_and_independent_inputs_are_plain_jobs() {
    let Some(recorded) = RecordedTrial::new() else { return };
    recorded.trial.map(&doubles(1));
    assert_eq!(recorded.submitted()[0]["arrayProperties"], Value::Null);
    let facts = recorded.trial.map(&Spec { independent: true, ..doubles(3) });
    assert_eq!(values(&facts), doubled(3));
    assert_eq!(recorded.submitted().len(), 4);
    assert!(recorded.submitted().iter().all(|job| job["arrayProperties"].is_null()));
}

#[test]
fn resources_of_a_run_override_deployed_ones() {
    let Some(recorded) = RecordedTrial::new() else { return };
    let inputs = [
        Behavior::Fail(vec!["no".into()]),
        Behavior::Double(1),
        Behavior::Env("OMP_NUM_THREADS".into()),
        Behavior::Fail(vec!["no".into()]),
    ];
    let spec = Spec {
        vcpus: Some(2.0),
        memory: Some("700 MiB".into()),
        memory_on_retry: Some("900 MiB".into()),
        gpus: Some(1),
        timeout_ms: Some(10_000),
        tags: [("team".to_owned(), "weather".to_owned())].into(),
        ..Spec::of(inputs)
    };
    let facts = recorded.trial.map(&spec);
    assert_eq!(values(&facts), [(1, 2), (2, 2)].into());
    recorded.trial.facts(&["retry", &run_of(&facts).unwrap()]);
    let [first, again] = &recorded.submitted()[..] else { panic!("{:?}", recorded.submitted()) };
    let requirement = |job: &Value, kind: &str| {
        let all = job["containerOverrides"]["resourceRequirements"].as_array().unwrap().clone();
        all.into_iter().find(|one| one["type"] == kind).unwrap()["value"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (requirement(first, "VCPU"), requirement(first, "MEMORY"), requirement(first, "GPU")),
        ("2".into(), "700".into(), "1".into())
    );
    assert_eq!(first["tags"]["team"], "weather");
    assert_eq!(
        first["timeout"]["attemptDurationSeconds"], 80,
        "an attempt has ten seconds for its item, and another minute"
    );
    assert_eq!(requirement(again, "MEMORY"), "900");
    assert_eq!(again["arrayProperties"]["size"], 2, "only the failed items are retried");
    recorded.aws.validate();
}

#[test]
fn fargate_run_gets_the_next_valid_size() {
    let Some(recorded) = RecordedTrial::new() else { return };
    recorded.edit_note(|note| note["jobs"] = serde_json::json!({"fargate": true, "vcpus": 0.5, "memory-mib": null}));
    recorded.trial.map(&Spec { memory: Some("4100 MiB".into()), ..doubles(1) });
    let requirements = recorded.submitted()[0]["containerOverrides"]["resourceRequirements"].clone();
    assert_eq!(
        requirements,
        serde_json::json!([{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "5120"}]),
        "half a vCPU has 4096 MiB at most"
    );
    let run_ids = recorded.run_ids();
    let too_much = json(&Spec { memory_on_retry: Some("300 GiB".into()), ..doubles(1) });
    recorded.refuses(&["values", &too_much], "Config", &["307200 MiB", "Fargate has at most 32 and 249856"]);
    assert_eq!(recorded.run_ids(), run_ids, "a refused map leaves no record");
}

#[test]
fn run_that_no_machine_can_hold_leaves_no_record() {
    let Some(recorded) = RecordedTrial::new() else { return };
    let machine = serde_json::json!({"name": "m5.4xlarge", "vcpus": 16, "memory-mib": 65_536});
    let jobs = serde_json::json!({"fargate": false, "vcpus": null, "memory-mib": null, "machines": [machine]});
    recorded.edit_note(|note| note["jobs"] = jobs);
    let refused = |spec: Spec, part: &str| recorded.refuses(&["values", &json(&spec)], "Config", &[part]);
    let machines = "fits on no machine of the Knot, of which the largest are m5.4xlarge (16 vCPUs, 65536 MiB)";
    let too_many = Spec { vcpus: Some(17.0), ..doubles(1) };
    refused(too_many, &format!("cannot submit: a job of 17 vCPUs and 2048 MiB {machines}"));
    let too_much = Spec { memory_on_retry: Some("64 GiB".into()), ..doubles(1) };
    refused(too_much, &format!("a job of 1 vCPU and 65536 MiB {machines}"));
    refused(Spec { gpus: Some(1), ..doubles(1) }, &format!("a job of 1 vCPU, 2048 MiB and 1 GPU {machines}"));
    let jobs = serde_json::json!({"fargate": false, "vcpus": null, "memory-mib": null, "max-vcpus": 8});
    recorded.edit_note(|note| note["jobs"] = jobs);
    let too_many = Spec { vcpus: Some(9.0), ..doubles(1) };
    refused(too_many, "cannot submit: a job requests 9 vCPUs, but `max-vcpus` of the Knot is 8");
    recorded.edit_note(|note| note["gpu-image"] = false.into());
    refused(Spec { gpus: Some(1), ..doubles(1) }, "the run requests GPUs, and the image of the Knot");
    recorded.edit_note(|note| note["tags"] = 46.into());
    let tagged = Spec { tags: [("team".to_owned(), "weather".to_owned())].into(), ..doubles(1) };
    refused(tagged, "cannot submit: a job has 47 tags, 1 of the run and 46 of its Knot");
    assert_eq!((recorded.run_ids(), recorded.submitted()), (vec![], vec![]));
}

/// Script that creates a queue with a fair-share policy on the environment of this one, and a job definition like this one with a
/// scheduling priority, both of this name, and prints their ARNs.
const SHARES: &str = "
import boto3, json, sys
name, queue, definition = json.loads(sys.argv[1])
batch = boto3.client('batch')
policy = batch.create_scheduling_policy(name=name, fairsharePolicy={'shareDecaySeconds': 60})['arn']
order = batch.describe_job_queues(jobQueues=[queue])['jobQueues'][0]['computeEnvironmentOrder']
fair = batch.create_job_queue(jobQueueName=name, state='ENABLED', priority=1, computeEnvironmentOrder=order,
                              schedulingPolicyArn=policy)['jobQueueArn']
known = batch.describe_job_definitions(jobDefinitions=[definition])['jobDefinitions'][0]
properties = {name: known['containerProperties'][name] for name in ['image', 'environment', 'logConfiguration', 'resourceRequirements']}
print(json.dumps([fair, batch.register_job_definition(
    jobDefinitionName=name, type='container', retryStrategy=known['retryStrategy'], schedulingPriority=0,
    containerProperties=properties)['jobDefinitionArn']]))
";

#[test]
fn jobs_belong_to_the_share_of_the_knot() {
    let Some(recorded) = RecordedTrial::new() else { return };
    let note = recorded.cloud.note(&recorded.knot, JobKind::of_suite());
    let work = "cloudknot-tests:trial::work";
    let mut script = Command::new(python().unwrap());
    let arguments = serde_json::json!([recorded.knot, note["queue"], note["job-definitions"][work]]).to_string();
    let script = script.args(["-c", SHARES, &arguments]).envs(environment(&recorded.cloud.moto.url()));
    let [queue, definition]: [String; 2] = serde_json::from_str(&run(script)).unwrap();
    let on_fair_queue = |note: &mut Value| {
        note["queue"] = queue.clone().into();
        note["job-definitions"][work] = definition.clone().into();
    };
    recorded.edit_note(on_fair_queue);
    recorded.refuses(&["values", &json(&doubles(1))], "Aws", &["shareIdentifier must be specified"]);
    recorded.edit_note(|note| {
        on_fair_queue(note);
        note["share-identifier"] = "physics".into();
    });
    let spec = Spec::of([Behavior::Fail(vec!["no".into()]), Behavior::Double(1)]);
    let facts = recorded.trial.map(&spec);
    assert_eq!(values(&facts), [(1, 2)].into());
    // The share of a run is in its record: another machine may have the note of a later deploy.
    recorded.edit_note(|_| ());
    let old_code = RetrySpec { old_code: true, ..RetrySpec::default() };
    recorded.trial.facts(&["retry", &run_of(&facts).unwrap(), &json(&old_code)]);
    let shares: Vec<Value> = recorded.submitted().into_iter().map(|job| job["shareIdentifier"].clone()).collect();
    assert_eq!(shares, [Value::Null, "physics".into(), "physics".into()]);
    recorded.aws.validate();
}

/// Script that creates a job definition like this one with a variable, which stands for another image, and prints its ARN.
pub(crate) const MENDED: &str = "
import boto3, sys
name, definition = sys.argv[1:]
batch = boto3.client('batch')
known = batch.describe_job_definitions(jobDefinitions=[definition])['jobDefinitions'][0]
properties = {name: known['containerProperties'][name] for name in ['image', 'environment', 'logConfiguration', 'resourceRequirements']}
properties['environment'].append({'name': 'MENDED', 'value': '5'})
print(batch.register_job_definition(jobDefinitionName=name, type='container', retryStrategy=known['retryStrategy'],
                                    containerProperties=properties)['jobDefinitionArn'])
";

#[test]
fn retry_runs_the_code_that_is_deployed_now_or_the_old_one() {
    let Some(recorded) = RecordedTrial::new() else { return };
    let work = "cloudknot-tests:trial::work";
    let note = recorded.cloud.note(&recorded.knot, JobKind::of_suite());
    let old = note["job-definitions"][work].as_str().unwrap();
    let mut script = Command::new(python().unwrap());
    let script = script.args(["-c", MENDED, &format!("{}-mended", recorded.knot), old]);
    let mended = run(script.envs(environment(&recorded.cloud.moto.url()))).trim().to_owned();
    // The first three items succeed with both.
    let inputs = (0..3).map(Behavior::Double).chain((0..12).map(|_| Behavior::Env("MENDED".into())));
    let facts = recorded.trial.map(&Spec { chunk: Some(5), ..Spec::of(inputs) });
    let run_id = run_of(&facts).unwrap();
    assert_eq!((values(&facts).len(), failures(&facts).len()), (3, 12), "{facts:?}");
    recorded.edit_note(|note| {
        note["job-definitions"][work] = mended.clone().into();
        note["image"] = "mended@sha256:1".into();
    });
    let old_code = RetrySpec { old_code: true, memory: Some("900 MiB".into()), ..RetrySpec::default() };
    let facts = recorded.trial.facts(&["retry", &run_id, &json(&old_code)]);
    assert_eq!((values(&facts).len(), failures(&facts).len()), (3, 12), "the old code fails again: {facts:?}");
    let facts = recorded.trial.facts(&["retry", &run_id, &json(&RetrySpec::default())]);
    let fixed = (3..15).map(|item| (item, 5));
    assert_eq!(values(&facts), [(0, 0), (1, 2), (2, 4)].into_iter().chain(fixed).collect(), "{facts:?}");
    // A later round stays with the code that it was recorded with.
    let submitted = recorded.submitted();
    let definitions: Vec<&str> = submitted.iter().map(|job| job["jobDefinition"].as_str().unwrap()).collect();
    assert_eq!(definitions, [old, old, &mended]);
    assert_eq!(submitted[2]["arrayProperties"]["size"], 3, "only the failed items are retried");
    assert!(submitted[1]["containerOverrides"]["resourceRequirements"].to_string().contains("900"), "{}", submitted[1]);
    assert!(!submitted[2]["containerOverrides"].to_string().contains("900"), "{}", submitted[2]);
    let record = recorded.cloud.record(&recorded.knot);
    let round = |number: u32| -> Value {
        let path =
            files(&record).into_iter().find(|path| path.ends_with(format!("{run_id}/rounds/{number:04}"))).unwrap();
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    assert_eq!((&round(2)["batch"]["job_definition"], &round(2)["batch"]["image"]), (&old.into(), &note["image"]));
    assert_eq!(
        (&round(3)["batch"]["job_definition"], &round(3)["batch"]["image"]),
        (&mended.into(), &"mended@sha256:1".into())
    );
    recorded.aws.validate();
}

/// A round would run for nothing if its values could not be decoded.
#[test]
fn retry_with_other_types_is_refused() {
    let Some(recorded) = RecordedTrial::new() else { return };
    let run_id = run_of(&recorded.trial.map(&Spec::of([Behavior::Fail(vec!["no".into()])]))).unwrap();
    recorded.edit_note(|note| {
        for types in note["types"].as_array_mut().unwrap() {
            types["fingerprint"] = 1.into();
        }
    });
    let refused = |spec: &RetrySpec| recorded.error(&["retry", &run_id, &json(spec)]);
    let (kind, text) = refused(&RetrySpec::default());
    assert!(kind == "Types" && text.contains("have changed since the Knot"), "{text}");
    recorded.edit_note(|note| note["job-definitions"] = serde_json::json!({}));
    let (kind, text) = refused(&RetrySpec::default());
    assert!(kind == "NotFound" && text.contains("deployed without `cloudknot-tests:trial::work`"), "{text}");
    assert_eq!(recorded.submitted().len(), 1, "nothing was submitted");
    recorded.trial.facts(&["retry", &run_id, &json(&RetrySpec { old_code: true, ..RetrySpec::default() })]);
    assert_eq!(recorded.submitted().len(), 2);
}

/// Returns the end of a job's log if the response to the n-th request for it has these events, and the token of the page before it;
/// and the tokens that were sent.
fn end_of_log(recorded: &RecordedTrial, pages: &'static [(&str, &str)]) -> (String, Vec<Value>) {
    let tokens = || -> Vec<Value> {
        let requests = recorded.aws.requests().into_iter().filter(|request| request.operation() == "logs GetLogEvents");
        let bodies = requests.map(|request| serde_json::from_str::<Value>(request.body.as_deref().unwrap()).unwrap());
        bodies.map(|body| body["nextToken"].clone()).collect()
    };
    let (before, asked) = (tokens().len(), AtomicUsize::new(0));
    recorded.aws.override_responses(move |request| {
        (request.operation() == "logs GetLogEvents").then(|| {
            let (text, before) = pages[asked.fetch_add(1, Ordering::Relaxed).min(pages.len() - 1)];
            let events: Vec<Value> = text.lines().map(|line| serde_json::json!({"message": line})).collect();
            ResponseOverride::Respond(
                200,
                serde_json::json!({"events": events, "nextBackwardToken": before}).to_string(),
            )
        })
    });
    let running = recorded.trial.start(&["map", &json(&Spec::of([Behavior::Sleep(3_600_000, 1)]))]);
    let run_id = running.wait_for_run_id();
    recorded.trial.signal(&run_id, "", Signal::KILL);
    let failure = failures(&facts(&running.wait_with_output().stdout)).remove(&0).unwrap();
    assert_eq!((failure.kind.as_str(), failure.signal), ("Infrastructure", Some(9)), "{failure:?}");
    (failure.log, tokens().split_off(before))
}

/// Pages of a log may be empty although there are events before them.
#[test]
fn end_of_a_log_is_found_behind_empty_pages() {
    let Some(recorded) = RecordedTrial::new() else { return };
    let check = |pages, log: &str, tokens: &[&str]| {
        let first = std::iter::once(Value::Null);
        let tokens = first.chain(tokens.iter().map(|token| Value::from(*token))).collect();
        assert_eq!(end_of_log(&recorded, pages), (log.to_owned(), tokens));
    };
    check(&[("the last\nwords", "b/1")], "the last\nwords\n", &[]);
    check(&[("", "b/1"), ("", "b/2"), ("the last words", "b/3")], "the last words\n", &["b/1", "b/2"]);
    // The token of the first page is that of the request for it.
    check(&[("", "b/1"), ("", "b/1"), ("unreachable", "b/2")], "", &["b/1"]);
    let endless = &[("", "b/1"), ("", "b/2"), ("", "b/3"), ("", "b/4"), ("unreachable", "b/5")];
    check(endless, "", &["b/1", "b/2", "b/3"]);
    recorded.aws.validate();
}

/// AWS Batch cancels jobs in this way for the queue of a Knot with `stuck-after`.
#[test]
fn cancelled_stuck_job_is_explained() {
    let Some(recorded) = RecordedTrial::new() else { return };
    let running = recorded.trial.start(&["map", &json(&Spec::of([Behavior::Sleep(3_600_000, 1)]))]);
    let run_id = running.wait_for_run_id();
    wait_for("the job", || recorded.trial.items_with_values(&run_id).is_empty().then_some(()));
    let reason = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job requires more than any instance has.";
    let cancel = "
import boto3, sys
batch, (queue, prefix, reason) = boto3.client('batch'), sys.argv[1:]
jobs = []
while not jobs:
    jobs = batch.list_jobs(jobQueue=queue, filters=[{'name': 'JOB_NAME', 'values': [prefix + '*']}])['jobSummaryList']
for job in jobs:
    batch.terminate_job(jobId=job['jobId'], reason=reason)
";
    let note = recorded.cloud.note(&recorded.knot, JobKind::of_suite());
    let mut script = Command::new(python().unwrap());
    script.args(["-c", cancel, note["queue"].as_str().unwrap(), &recorded.knot, reason]);
    run(script.envs(environment(&recorded.cloud.moto.url())));
    let facts = facts(&running.wait_with_output().stdout);
    let failure = &failures(&facts)[&0];
    assert_eq!(failure.kind, "Infrastructure");
    for part in ["fits on no machine of the queue", "`max-vcpus`", "`instance-types`", reason] {
        assert!(failure.message.contains(part), "{failure:?}");
    }
}

#[test]
fn submission_with_lost_response_is_found_and_not_repeated() {
    let Some(recorded) = RecordedTrial::new() else { return };
    recorded.aws.cut_next(1);
    assert_eq!(values(&recorded.trial.map(&doubles(3))), doubled(3));
    assert_eq!(recorded.submitted().len(), 1);
    let calls = recorded.aws.operations();
    assert_eq!(calls.iter().filter(|call| call.ends_with("/v1/listjobs")).count(), 1, "{calls:?}");
}

// M8: the worker's own client would ask the wrong region.
#[test]
fn m8_variables_of_a_run_reach_only_the_function() {
    let Some(recorded) = RecordedTrial::new() else { return };
    let env = [("AWS_REGION".to_owned(), "7".to_owned())].into();
    let facts = recorded.trial.map(&Spec { env, ..Spec::of([Behavior::Env("AWS_REGION".into())]) });
    assert_eq!(values(&facts), [(0, 7)].into());
    let [job] = &recorded.submitted()[..] else { panic!("{:?}", recorded.submitted()) };
    let names: Vec<_> =
        job["containerOverrides"]["environment"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["CLOUDKNOT_TASK"]);
}

/// Script that submits the same job once more, and waits for its end.
const AGAIN: &str = "
import boto3, json, sys, time
batch = boto3.client('batch')
job = batch.submit_job(**json.loads(sys.argv[1]))['jobId']
while batch.describe_jobs(jobs=[job])['jobs'][0]['status'] not in ('SUCCEEDED', 'FAILED'):
    time.sleep(0.2)
";

#[test]
fn duplicate_submission_changes_no_result() {
    let Some(recorded) = RecordedTrial::new() else { return };
    // The remaining time differs from one attempt to the next.
    let inputs = (0..4).map(|_| Behavior::Deadline);
    let facts = recorded.trial.map(&Spec { timeout_ms: Some(3_600_000), ..Spec::of(inputs) });
    let mut again = std::process::Command::new(cloudknot_tests::moto::python().unwrap());
    again.args(["-c", AGAIN, &recorded.submitted()[0].to_string()]);
    run(again.envs(cloudknot_tests::moto::environment(&recorded.cloud.moto.url())));
    let read = recorded.trial.attach(&run_of(&facts).unwrap());
    assert_eq!(values(&read), values(&facts));
}

#[test]
fn throttled_request_is_retried() {
    let Some(recorded) = RecordedTrial::new() else { return };
    recorded.aws.fail_next(2, 429, "TooManyRequestsException");
    assert_eq!(values(&recorded.trial.map(&doubles(2))), doubled(2));
}

/// Returns the trial's report on each dropped call, with the facts that follow it.
fn dropped(facts: &[Fact]) -> Vec<(Value, &[Fact])> {
    let calls = facts.chunk_by(|_, next| !matches!(next, Fact::Found(_)));
    let about = |call: &[Fact]| match &call[0] {
        Fact::Found(text) => serde_json::from_str(text).unwrap(),
        other => panic!("not the report of a call: {other:?}"),
    };
    calls.map(|call| (about(call), call)).collect()
}

/// Fails unless calls were dropped at more than this many requests to S3, and to the other AWS services, up to one that
/// ended.
fn check_points(calls: &[(Value, &[Fact])], more_than: usize) {
    for service in ["S3", "Aws"] {
        let calls: Vec<_> =
            calls.iter().filter(|(about, _)| about["at"].as_str().unwrap().starts_with(service)).collect();
        let ended: Vec<_> = calls.iter().map(|(about, _)| about["ended"].as_bool().unwrap()).collect();
        assert!(ended.len() > more_than + 1, "too few requests: {calls:?}");
        assert_eq!(ended.iter().position(|&ended| ended), Some(ended.len() - 1), "{calls:?}");
    }
}

#[test]
fn map_dropped_at_any_request_is_finished_by_attach() {
    let Some(recorded) = RecordedTrial::new() else { return };
    let record = recorded.cloud.record(&recorded.knot);
    let arguments = [&json(&doubles(3)), record.to_str().unwrap(), &seed().to_string()];
    let facts = recorded.trial.facts(&[&["maps-dropped"], &arguments[..]].concat());
    let calls = dropped(&facts);
    for (about, found) in &calls {
        // The inputs come first, then the manifest: without a record, there is no run.
        let is_recorded = about["s3"].as_u64().unwrap() >= 2;
        assert_eq!(run_of(found).is_some(), is_recorded, "{about}: {found:?}");
        assert_eq!(values(found), doubled(if is_recorded { 3 } else { 0 }), "{about}");
    }
    check_points(&calls, 1);
}

#[test]
fn injected_faults_do_not_corrupt_results() {
    let Some(recorded) = RecordedTrial::new() else { return };
    recorded.aws.inject_faults(7, 20);
    recorded.s3.inject_faults(11, 20);
    let inputs = (0..40)
        .map(|number| if number % 10 == 3 { Behavior::Fail(vec!["no".into()]) } else { Behavior::Double(number) });
    let facts = recorded.trial.map(&Spec::of(inputs));
    assert_eq!(failures(&facts).into_keys().collect::<Vec<_>>(), [3, 13, 23, 33]);
    let expected = doubled(40).into_iter().filter(|(item, _)| item % 10 != 3).collect();
    assert_eq!(values(&facts), expected);
    assert!(recorded.s3.requests().iter().any(|request| request.fault.is_some()), "no fault was injected");
}

#[test]
fn killed_container_fails_only_its_item() {
    let Some(cloud) = Cloud::get() else { return };
    let Some(trial) = cloud.trial(PROGRAM, JobKind::Container) else { return };
    let running = trial
        .start(&["map", &json(&Spec::of([Behavior::Double(1), Behavior::Sleep(3_600_000, 1), Behavior::Double(2)]))]);
    let run_id = running.wait_for_run_id();
    trial.signal(&run_id, "-1-1", Signal::KILL);
    let facts = facts(&running.wait_with_output().stdout);
    assert_eq!(values(&facts), [(0, 2), (2, 4)].into());
    let failed = &failures(&facts)[&1];
    assert_eq!(
        (failed.kind.as_str(), failed.exit_code, failed.signal),
        ("Infrastructure", Some(137), Some(9)),
        "{failed:?}"
    );
    assert!(failed.message.contains("killed from outside"), "{failed:?}");
    // A later program reports the same failure, and can retry the item.
    assert_eq!(failures(&trial.attach(&run_id))[&1], *failed);
    let jobs: Vec<String> = trial.facts(&["jobs", &run_id]).into_iter().filter_map(found).collect();
    assert_eq!(jobs.len(), 3, "{jobs:?}");
    assert!(jobs[1].starts_with("[1..2] FAILED [Some(137)] https://eu-west-1.console.aws.amazon.com/"), "{jobs:?}");
    assert!(jobs[2].starts_with("[2..3] SUCCEEDED [Some(0)]"), "{jobs:?}");
}

fn found(fact: Fact) -> Option<String> {
    if let Fact::Found(what) = fact { Some(what) } else { None }
}

#[test]
fn out_of_memory_container_fails_only_its_item() {
    let Some(cloud) = Cloud::get() else { return };
    let Some(trial) = cloud.trial(PROGRAM, JobKind::Container) else { return };
    let facts = trial.facts(&["hungry"]);
    assert_eq!(values(&facts), [(0, 1), (2, 2)].into());
    assert_eq!(failures(&facts)[&1].kind, "OutOfMemory");
}

#[test]
fn single_item_can_be_cancelled() {
    let Some(trial) = trial() else { return };
    let running = trial.start(&["map", &json(&Spec::of([Behavior::Sleep(3_600_000, 1), Behavior::Double(2)]))]);
    let run = running.wait_for_run_id();
    wait_for("the items to start", || trial.items_with_values(&run).contains(&1).then_some(()));
    assert_eq!(trial.facts(&["cancel-item", &run, "0"]), []);
    let facts = facts(&running.wait_with_output().stdout);
    assert_eq!(values(&facts), [(1, 4)].into());
    assert_eq!(failures(&facts)[&0].kind, "Cancelled");
    assert_eq!(trial.containers(&run), [""; 0]);
}

/// Simulates the loss of a Spot machine.
#[test]
fn terminated_container_keeps_values_and_is_restarted() {
    let Some(cloud) = Cloud::get() else { return };
    let Some(trial) = cloud.trial(PROGRAM, JobKind::Container) else { return };
    let (first, second, go_on) = (trial.file("first"), trial.file("second"), trial.file("go on"));
    let waits = Behavior::Wait(trial.remote_path(&second), 2, trial.remote_path(&go_on));
    let inputs = [Behavior::Count(trial.remote_path(&first), 1, 0), waits, Behavior::Double(3)];
    let running = trial.start(&["map", &json(&Spec { chunk: Some(3), parallel: Some(1), ..Spec::of(inputs) })]);
    let run_id = running.wait_for_run_id();
    wait_for("the second item to start", || (counted(&second).len() == 1).then_some(()));
    trial.signal(&run_id, "", Signal::TERM);
    wait_for("the second item to start again", || (counted(&second).len() == 2).then_some(()));
    fs::write(go_on, "").unwrap();
    let facts = facts(&running.wait_with_output().stdout);
    assert_eq!(values(&facts), [(0, 1), (1, 2), (2, 6)].into(), "{facts:?}");
    assert_eq!((counted(&first), counted(&second)), (vec![1], vec![2, 2]), "a stored item is not run again");
    let jobs: Vec<String> = trial.facts(&["jobs", &run_id]).into_iter().filter_map(found).collect();
    assert!(jobs.len() == 1 && jobs[0].starts_with("[0..3] SUCCEEDED [Some(75), Some(0)]"), "{jobs:?}");
}

#[test]
fn failed_container_is_noticed_while_others_run() {
    let Some(cloud) = Cloud::get() else { return };
    let Some(trial) = cloud.trial(PROGRAM, JobKind::Container) else { return };
    let inputs = [Behavior::Sleep(3_600_000, 1), Behavior::Sleep(3_600_000, 2), Behavior::Double(1)];
    let running = trial.start(&["map", &json(&Spec { max_failures: Some(1), ..Spec::of(inputs) })]);
    let run_id = running.wait_for_run_id();
    trial.signal(&run_id, "-1-1", Signal::KILL);
    // The first item would run for an hour.
    let facts = facts(&running.wait_with_output().stdout);
    assert_eq!(values(&facts), [(2, 2)].into());
    let failed = failures(&facts);
    assert_eq!((failed[&0].kind.as_str(), failed[&1].kind.as_str()), ("Cancelled", "Infrastructure"), "{failed:?}");
    assert_eq!(trial.containers(&run_id), [""; 0]);
}

#[test]
fn cancel_dropped_at_any_request_is_completed_by_the_next() {
    let Some(recorded) = RecordedTrial::new() else { return };
    let (started, go_on) = (recorded.trial.file("started"), recorded.trial.home());
    let spec = json(&Spec::of([Behavior::Count(recorded.trial.remote_path(&started), 1, 3_600_000)]));
    let arguments = [&spec, started.to_str().unwrap(), go_on.to_str().unwrap(), &seed().to_string()];
    let mut running = recorded.trial.start(&[&["cancels-dropped"], &arguments[..]].concat());
    for number in 0.. {
        let next = wait_for("the next cancel", || {
            // Checked before the output is read, so that nothing is missed.
            let is_running = running.is_running();
            let facts = running.facts();
            let next = dropped(&facts).into_iter().nth(number).map(|(about, _)| about);
            (next.is_some() || !is_running).then_some(next)
        });
        let Some(about) = next else { break };
        let run = about["run"].as_str().unwrap();
        assert_eq!(recorded.trial.containers(run), [""; 0], "{about}");
        fs::write(go_on.join(run), "").unwrap();
    }
    let output = running.wait_with_output();
    assert!(output.status.success(), "{output:?}");
    let facts = facts(&output.stdout);
    let calls = dropped(&facts);
    for (about, found) in &calls {
        assert_eq!(failures(found)[&0].kind, "Cancelled", "{about}");
    }
    check_points(&calls, 2);
}

#[test]
fn results_stay_readable_without_the_queue() {
    let Some(recorded) = RecordedTrial::new() else { return };
    let facts = recorded.trial.map(&Spec { chunk: Some(1), ..doubles(2) });
    let run_id = run_of(&facts).unwrap();
    let record = recorded.trial.run(&run_id);
    let manifest = record.join("manifest.json");
    let mut edited: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    edited["batch"]["queue"] = format!("{}-gone", edited["batch"]["queue"].as_str().unwrap()).into();
    fs::write(&manifest, edited.to_string()).unwrap();
    let second = recorded.trial.stored(&run_id, "results").into_iter().next_back().unwrap();
    fs::remove_file(second).unwrap();
    // The job of the second item was not submitted either.
    let lease = record.join("submitting/0001/0001");
    fs::write(lease, r#"{"owner": "another program", "state": "released", "jobs": []}"#).unwrap();
    let read = recorded.trial.attach(&run_id);
    assert_eq!(values(&read), [(0, 0)].into(), "{read:?}");
    let failed = &failures(&read)[&1];
    assert!(
        failed.kind == "Infrastructure" && failed.message.contains("`retry_failed()` run the remaining items"),
        "{failed:?}"
    );
}

#[test]
fn unreadable_value_is_not_reported_as_damaged() {
    let Some(recorded) = RecordedTrial::new() else { return };
    let facts = recorded.trial.map(&doubles(1));
    let run_id = run_of(&facts).unwrap();
    // The sizes of the manifest and the inputs are read, then the manifest, and rounds and results are listed; then the read of
    // the value itself is refused.
    recorded.s3.stop_after(5);
    let attached = recorded.trial.start(&["attach", &run_id]);
    recorded.s3.wait_until_held();
    recorded.s3.fail_next(20, 400, "ExpiredToken");
    recorded.s3.go_on();
    let read = cloudknot_tests::trial::facts(&attached.wait_with_output().stdout);
    let failed = &failures(&read)[&0];
    assert!(
        failed.message.contains("attach to the run again") && !failed.message.contains("delete the object"),
        "{failed:?}"
    );
}

#[test]
fn ctrl_c_detaches_and_prints_how_to_attach() {
    let Some(trial) = trial() else { return };
    let (started, go_on) = (trial.file("started"), trial.file("go on"));
    let waits = Behavior::Wait(trial.remote_path(&started), 1, trial.remote_path(&go_on));
    let mut command = trial.command(&["map", &json(&Spec::of([waits, Behavior::Double(2)]))]);
    command.env("CLOUDKNOT_PROGRESS", "plain");
    let running = Running::start(command, &trial.file(""));
    let run = running.wait_for_run_id();
    kill(running.pid(), Signal::INT);
    let output = running.wait_with_output();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    fs::write(go_on, "").unwrap();
    for part in ["the run continues on AWS Batch without this program", &format!("work.attach(\"{run}\")")] {
        assert!(stderr.contains(part), "`{part}` is not in:\n{stderr}");
    }
    assert_eq!(values(&trial.attach(&run)), [(0, 1), (1, 4)].into());
}

#[test]
fn h7_ctrl_c_during_a_submission_says_what_runs() {
    let Some(recorded) = RecordedTrial::new() else { return };
    recorded.aws.stop_after(8);
    let trial = &recorded.trial;
    let mut command = trial.command(&["map", &json(&Spec { independent: true, ..doubles(20) })]);
    command.env("CLOUDKNOT_PROGRESS", "plain");
    let running = Running::start(command, &trial.file(""));
    recorded.aws.wait_until_held();
    let [run] = &recorded.run_ids()[..] else { panic!("not one run: {:?}", recorded.run_ids()) };
    kill(running.pid(), Signal::INT);
    let output = running.wait_with_output();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in [
        "jobs for 8 of 20 items were submitted and run on without this program",
        &format!(
            "`work.attach(\"{run}\")` submits the rest and follows the run, and `.cancel()` on that run cancels it"
        ),
    ] {
        assert!(stderr.contains(part), "`{part}` is not in:\n{stderr}");
    }
    // Its program was interrupted before it got all responses, so the lease was not released.
    let lease = fs::File::options().write(true).open(trial.run(run).join("submitting/0001/0001")).unwrap();
    lease.set_modified(SystemTime::now() - Duration::from_mins(5)).unwrap();
    recorded.aws.go_on();
    assert_eq!(values(&trial.attach(run)), doubled(20));
    let submitted = recorded.submitted();
    let children = submitted.iter().map(|job| job["jobName"].as_str().unwrap().rsplit("-c").next().unwrap());
    assert_eq!(children.collect::<std::collections::BTreeSet<_>>().len(), 20, "{submitted:?}");
}

#[test]
fn h4_expired_login_is_waited_for() {
    let Some(recorded) = RecordedTrial::new() else { return };
    recorded.aws.stop_after(1);
    let mut command = recorded.trial.command(&["map", &json(&doubles(3))]);
    command.env("CLOUDKNOT_PROGRESS", "plain");
    let running = Running::start(command, &recorded.trial.file(""));
    recorded.aws.wait_until_held();
    recorded.aws.fail_next(3, 403, "ExpiredTokenException");
    recorded.aws.go_on();
    let output = running.wait_with_output();
    assert_eq!(values(&facts(&output.stdout)), doubled(3));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in ["cannot describe the jobs of the run: ", "log in again", "; retrying in "] {
        assert!(stderr.contains(part), "`{part}` is not in:\n{stderr}");
    }
}

#[test]
fn function_can_read_its_deadline() {
    let Some(trial) = trial() else { return };
    let facts = trial.map(&Spec { timeout_ms: Some(60_000), ..Spec::of([Behavior::Deadline]) });
    assert!((30_000..=60_000).contains(&values(&facts)[&0]), "{facts:?}");
    assert_eq!(failures(&trial.map(&Spec::of([Behavior::Deadline])))[&0].message, "no deadline");
}

#[test]
fn unusable_knot_fails_early() {
    let Some(recorded) = RecordedTrial::new() else { return };
    let one = json(&doubles(1));
    let check = |arguments: &[&str], kind: &str, parts: &[&str]| recorded.refuses(arguments, kind, parts);
    check(&["attach", "20260101-000000000-000000"], "NotFound", &["20260101-000000000-000000", "check the ID"]);
    // Knot that was clobbered.
    recorded.edit_note(|note| note["queue"] = format!("{}-gone", note["queue"].as_str().unwrap()).into());
    check(&["values", &one], "NotFound", &["cannot submit the job", "cargo knot deploy"]);
    recorded.edit_note(|note| note["region"] = "us-east-1".into());
    check(&["values", &one], "NotFound", &["cannot submit the job", "cargo knot deploy"]);
    // Deployed without the function, or with other types.
    recorded.edit_note(|note| {
        note["job-definitions"].as_object_mut().unwrap().retain(|id, _| !id.ends_with("::work"));
    });
    check(&["values", &one], "NotFound", &["was deployed without `cloudknot-tests:trial::work`", "cargo knot deploy"]);
    recorded.edit_note(|note| {
        let types = note["types"].as_array_mut().unwrap();
        let fingerprint = types.iter().find(|types| !types["function"].as_str().unwrap().ends_with("::work")).unwrap()
            ["fingerprint"]
            .clone();
        types.iter_mut().find(|types| types["function"].as_str().unwrap().ends_with("::work")).unwrap()["fingerprint"] =
            fingerprint;
    });
    check(&["values", &one], "Types", &["have changed since the Knot", "cargo knot deploy"]);
    recorded.edit_note(|_| ());
    recorded.aws.fail_next(1, 403, "ExpiredTokenException");
    check(&["values", &one], "Credentials", &["log in again"]);
    fs::remove_file(recorded.trial.home().join("knot.json")).unwrap();
    let mut command = recorded.trial.command(&["values", &one]);
    let output = command.env("CLOUDKNOT_BACKEND", "batch").output().unwrap();
    let facts = facts(&output.stdout);
    let is_expected =
        matches!(&facts[..], [Fact::Error(kind, text)] if kind == "NotFound" && text.contains("cargo knot deploy"));
    assert!(is_expected, "{facts:?}");
}

#[test]
fn missing_bucket_and_expired_login_fail_fast() {
    let refusals = [
        (404, "NoSuchBucket", "Aws", "still exists"),
        (400, "ExpiredToken", "Credentials", "log in to AWS again"),
        (403, "AccessDenied", "Denied", "allow s3:PutObject"),
    ];
    for (status, code, kind, hint) in refusals {
        let Some(recorded) = RecordedTrial::new() else { return };
        recorded.s3.fail_next(20, status, code);
        recorded.refuses(&["values", &json(&doubles(1))], kind, &[hint]);
    }
    let Some(recorded) = RecordedTrial::new() else { return };
    let mut without_login = recorded.trial.command(&["values", &json(&doubles(1))]);
    without_login.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let facts = facts(&without_login.output().unwrap().stdout);
    let [Fact::Error(kind, text), ..] = &facts[..] else { panic!("no error: {facts:?}") };
    let lines: Vec<&str> = text.lines().collect();
    let [_, cause, hint] = lines[..] else { panic!("{text}") };
    assert_eq!(kind, "Credentials");
    assert!(cause.starts_with("  caused by: no credentials found in Environment, Profile, "), "{text}");
    assert!(hint.starts_with("  hint: log in to AWS again"), "{text}");
}

/// Returns an address at which every connection is cut, and the number of connections so far.
fn cut_endpoint() -> (String, std::sync::Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&connections);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            drop(connection);
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    (url, connections)
}

#[test]
fn missing_network_is_reported_after_a_few_attempts() {
    let Some(cloud) = Cloud::get() else { return };
    let closed = format!("http://127.0.0.1:{CLOSED_PORT}");
    let (cut, connections) = cut_endpoint();
    for address in [closed, cut] {
        let Some((trial, _)) = cloud.trial_at(PROGRAM, JobKind::of_suite(), &address, &address) else { return };
        let facts = trial.facts(&["values", &json(&doubles(1))]);
        assert!(
            matches!(&facts[..], [Fact::Error(kind, text)] if kind == "Aws" && text.contains("network")),
            "{facts:?}"
        );
    }
    assert!((1..=10).contains(&connections.load(Ordering::Relaxed)), "{connections:?}");
}

#[test]
fn secrets_are_not_recorded_shown_or_logged() {
    let Some(recorded) = RecordedTrial::new() else { return };
    let facts = recorded.trial.map(&Spec::of([Behavior::Double(1), Behavior::Panic("no".into())]));
    let run = run_of(&facts).unwrap();
    let mut texts: Vec<String> = recorded.submitted().iter().map(Value::to_string).collect();
    let record = files(&recorded.trial.run(&run))
        .into_iter()
        .map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned());
    texts.extend(record);
    texts.push(format!("{facts:?}"));
    assert!(texts.len() > 3);
    for text in texts {
        assert!(!text.contains("a-secret") && !text.contains("AKIATEST"), "{text}");
    }
}
