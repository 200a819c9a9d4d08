//! Tests of moto, of the recorder in front of it and of the validator of its records, as far as other tests rely on
//! their behavior. The calls are made by AWS's own clients, in Rust and in Python.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Region;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectError;
use cloudknot_runtime::store::s3::{loader, retries};
use cloudknot_tests::counterparts::run;
use cloudknot_tests::moto::{Moto, REGION, environment, python};
use cloudknot_tests::recorder::{RecordedRequest, Recorder};
use serde_json::json;

/// Prelude of each script.
const PRELUDE: &str = "
import boto3, contextlib, glob, json, sys, time
from botocore.config import Config
from botocore.exceptions import ClientError
def client(name, **settings):
    return boto3.client(name, config=Config(retries={'mode': 'standard', **settings}, s3={'addressing_style': 'path'}))
";

/// Script that creates a queue in moto's Batch, with the resources that Batch requires for one.
pub(crate) const QUEUE: &str = "
batch, ec2, iam = client('batch'), client('ec2'), client('iam')
role = iam.create_role(RoleName='batch', AssumeRolePolicyDocument='{}')['Role']['Arn']
profile = iam.create_instance_profile(InstanceProfileName='batch')['InstanceProfile']['Arn']
subnets = [subnet['SubnetId'] for subnet in ec2.describe_subnets(Filters=[
    {'Name': 'default-for-az', 'Values': ['true']}])['Subnets']]
batch.create_compute_environment(
    computeEnvironmentName='tests', type='MANAGED', state='ENABLED', serviceRole=role,
    computeResources={'type': 'EC2', 'minvCpus': 0, 'maxvCpus': 8, 'instanceTypes': ['optimal'], 'subnets': subnets,
                      'instanceRole': profile, 'securityGroupIds': [
                          ec2.describe_security_groups()['SecurityGroups'][0]['GroupId']]})
batch.create_job_queue(jobQueueName='tests', state='ENABLED', priority=1, computeEnvironmentOrder=[
    {'order': 1, 'computeEnvironment': 'tests'}])
def define(image):
    batch.register_job_definition(jobDefinitionName='instructed', type='container', containerProperties={
        'image': image, 'resourceRequirements': [{'type': 'VCPU', 'value': '1'}, {'type': 'MEMORY', 'value': '64'}],
        'environment': [{'name': 'A', 'value': 'definition'}, {'name': 'B', 'value': 'definition'}]})
define('cloudknot-tests-instructed')
def submit(*instructions, environment=(), **more):
    overrides = {'command': list(instructions), 'environment': [{'name': n, 'value': v} for n, v in environment]}
    return batch.submit_job(
        jobName='run', jobQueue='tests', jobDefinition='instructed', containerOverrides=overrides, **more)['jobId']
def look(job):
    return batch.describe_jobs(jobs=[job])['jobs'][0]
def end(job):
    while look(job)['status'] not in ('SUCCEEDED', 'FAILED'):
        time.sleep(0.1)
    return look(job)
def check(found, *wanted):
    assert found in wanted, f'{found} where {wanted} is wanted'
";

#[test]
fn validator_finds_faults() {
    if let Some(_moto) = Moto::get() {
        let validate = Path::new(env!("CARGO_MANIFEST_DIR")).join("moto/validate.py");
        let report = run(Command::new(python().expect("moto is installed")).arg("-B").arg(validate).arg("--self-test"));
        assert!(report.ends_with(": 0 misjudged\n"), "{report}");
        let allowed = Path::new(env!("CARGO_MANIFEST_DIR")).join("moto/allowed.py");
        run(Command::new(python().expect("moto is installed")).arg("-B").arg(allowed).arg("--self-test"));
    }
}

#[test]
fn every_protocol_is_recorded_and_valid() {
    let Some((_moto, recorder)) = start() else { return };
    let script = format!(
        "{QUEUE}
client('cloudformation').create_stack(StackName='a', TemplateBody=json.dumps({{'Resources': {{
    'Log': {{'Type': 'AWS::Logs::LogGroup', 'Properties': {{'LogGroupName': 'g'}}}}}}}}))
client('ecr').create_repository(repositoryName='a/b')
client('logs').describe_log_groups(logGroupNamePrefix='g')
client('sts').get_caller_identity()
s3 = client('s3')
s3.create_bucket(Bucket='bucket', CreateBucketConfiguration={{'LocationConstraint': '{REGION}'}})
s3.put_object(Bucket='bucket', Key='k k', Body=b'\\xff', Metadata={{'a': 'b'}})
s3.delete_objects(Bucket='bucket', Delete={{'Objects': [{{'Key': 'k k'}}]}})
"
    );
    let _ = run_script(&recorder, &script);
    assert_eq!(
        recorder.operations(),
        [
            "iam CreateRole",
            "iam CreateInstanceProfile",
            "ec2 DescribeSubnets",
            "ec2 DescribeSecurityGroups",
            "batch POST /v1/createcomputeenvironment",
            "batch POST /v1/createjobqueue",
            "batch POST /v1/registerjobdefinition",
            "cloudformation CreateStack",
            "ecr CreateRepository",
            "logs DescribeLogGroups",
            "sts GetCallerIdentity",
            "s3 PUT /bucket",
            "s3 PUT /bucket/k%20k",
            "s3 POST /bucket",
        ]
    );
    let requests = recorder.requests();
    assert!(requests.iter().all(|request| request.status == Some(200) && request.fault.is_none()), "{requests:?}");
    // The body is recorded byte for byte, because it is not UTF-8.
    let put = &requests[12];
    assert!(put.body.is_none() && put.body_hex.as_deref().is_some_and(|body| body.contains("ff")), "{put:?}");
    assert!(recorder.validate().ends_with("14 requests of 14 operations: no faults\n"));
}

#[tokio::test]
async fn sdk_requests_are_recorded_and_valid() {
    let Some((_moto, recorder)) = start() else { return };
    let s3 = client(&recorder.url()).await;
    bucket(&s3).await;
    let put = s3.put_object().bucket("bucket").key("a/ü").metadata("run", "1").if_none_match("*");
    put.body(vec![0xff; 100].into()).send().await.expect("put");
    s3.list_objects_v2().bucket("bucket").prefix("a/").max_keys(5).send().await.expect("list");
    let got = s3.get_object().bucket("bucket").key("a/ü").range("bytes=0-1").send().await.expect("get");
    assert_eq!(got.body.collect().await.expect("the body").into_bytes(), &[0xff, 0xff][..]);
    s3.head_object().bucket("bucket").key("a/ü").send().await.expect("head");
    let missing = s3.get_object().bucket("bucket").key("missing").send().await.expect_err("no object");
    assert!(missing.as_service_error().is_some_and(GetObjectError::is_no_such_key), "{missing:?}");
    let statuses: Vec<_> = recorder.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [200, 200, 200, 206, 200, 404].map(Some));
    assert!(recorder.validate().contains("6 requests of 5 operations"));
}

/// moto accepts the request; AWS would reject it.
#[test]
fn unknown_request_member_is_refused() {
    let Some((moto, recorder)) = start() else { return };
    moto.config(&json!({ "batch": { "use_docker": false } }));
    let script = format!(
        "{QUEUE}
def spoil(params, **_):
    body = json.loads(params['body'])
    entry = body['containerOverrides']['environment'][0]
    entry['vlaue'] = entry['value']
    body['timeout'] = {{'attemptDurationSeconds': '60'}}
    params['body'] = json.dumps(body)
batch.meta.events.register('before-call.batch.SubmitJob', spoil)
batch.meta.events.register('before-call.batch.TerminateJob', lambda params, **_: params.update(body='{{\"jobId\":7}}'))
batch.terminate_job(jobId=submit(environment=[('A', 'b')]), reason='enough')
"
    );
    let _ = run_script(&recorder, &script);
    let panic = catch_unwind(AssertUnwindSafe(|| recorder.validate())).expect_err("the validation fails");
    let message = panic.downcast_ref::<String>().expect("the panic has a message");
    for fault in [
        "batch SubmitJob: containerOverrides.environment[0].vlaue: unknown member",
        "batch SubmitJob: the request: Invalid type for parameter timeout.attemptDurationSeconds, value: 60, type: <class 'str'>",
        "batch TerminateJob: the request: Missing required parameter in input: \"reason\"",
        "batch TerminateJob: the request: Invalid type for parameter jobId",
    ] {
        assert!(message.contains(fault), "{fault} is not in:\n{message}");
    }
}

#[tokio::test]
async fn sdk_retries_transient_errors() {
    let Some((_moto, recorder)) = start() else { return };
    let s3 = client(&recorder.url()).await;
    bucket(&s3).await;
    recorder.fail_next(1, 503, "SlowDown");
    recorder.cut_next(1);
    recorder.fail_next(1, 500, "InternalError");
    s3.put_object().bucket("bucket").key("k").body("v".as_bytes().to_vec().into()).send().await.expect("put");
    let requests = recorder.requests();
    let summary = |request: &RecordedRequest| (request.number, request.status, request.fault.clone());
    assert_eq!(
        requests.iter().skip(1).map(summary).collect::<Vec<_>>(),
        [
            (2, Some(503), Some("answered 503 SlowDown".to_owned())),
            // The request was executed all the same: only the response is missing.
            (3, Some(200), Some("cut".to_owned())),
            (4, Some(500), Some("answered 500 InternalError".to_owned())),
            (5, Some(200), None),
        ]
    );
    recorder.fail_next(4, 503, "SlowDown");
    let error = s3.get_object().bucket("bucket").key("k").send().await.expect_err("four times 503");
    assert_eq!(error.code(), Some("SlowDown"), "{error:?}");
    assert!(matches!(error, SdkError::ServiceError(_)), "{error:?}");
    recorder.validate();
}

/// Each service has its own format, in which a client recognizes an error.
#[test]
fn injected_errors_have_the_format_of_each_service() {
    let Some((_moto, recorder)) = start() else { return };
    recorder.fail_next(8, 429, "TooManyRequestsException");
    let printed = run_script(
        &recorder,
        "
once = {'total_max_attempts': 1}
for service, call in [
    ('batch', lambda c: c.describe_job_queues()), ('cloudformation', lambda c: c.describe_stacks()),
    ('iam', lambda c: c.list_roles()), ('sts', lambda c: c.get_caller_identity()), ('ec2', lambda c: c.describe_vpcs()),
    ('ecr', lambda c: c.describe_repositories()), ('s3', lambda c: c.list_buckets()),
    ('service-quotas', lambda c: c.list_service_quotas(ServiceCode='batch')),
]:
    try:
        call(client(service, **once))
    except ClientError as error:
        about = error.response
        print(service, about['ResponseMetadata']['HTTPStatusCode'], about['Error']['Code'], about['Error']['Message'])
",
    );
    let services = ["batch", "cloudformation", "iam", "sts", "ec2", "ecr", "s3", "service-quotas"];
    let line = |service| format!("{service} 429 TooManyRequestsException Injected TooManyRequestsException.\n");
    assert_eq!(printed, services.map(line).concat());
    recorder.validate();
}

#[tokio::test]
async fn same_seed_injects_the_same_faults() {
    let Some(moto) = Moto::start() else { return };
    let mut faults = Vec::new();
    for seed in [3, 3, 4] {
        let recorder = Recorder::before(&moto.url());
        let s3 = client_with_attempts(&recorder.url(), 10).await;
        recorder.inject_faults(seed, 30);
        for _ in 0..40 {
            s3.list_buckets().send().await.expect("the retries succeed");
        }
        recorder.inject_faults(seed, 0);
        s3.list_buckets().send().await.expect("no fault is injected");
        faults.push(recorder.requests().into_iter().map(|request| request.fault).collect::<Vec<_>>());
        recorder.validate();
    }
    assert_eq!(faults[0], faults[1]);
    assert_ne!(faults[0], faults[2]);
    for faults in faults {
        let injected = faults.iter().flatten().count();
        assert_eq!(faults.len(), 41 + injected, "each fault causes one more request: {faults:?}");
        let kinds: HashSet<_> = faults.iter().flatten().map(String::as_str).collect();
        assert_eq!(kinds, HashSet::from(["answered 503 SlowDown", "answered 500 InternalError", "cut"]));
    }
}

/// The process is killed between its first and its second call, as by `kill -9`.
#[test]
fn process_can_be_killed_between_two_calls() {
    let Some((moto, recorder)) = start() else { return };
    let script = "
for name in sys.argv[1:]:
    client('logs').create_log_group(logGroupName=name)
";
    recorder.stop_after(1);
    let mut process = spawn(&recorder.url(), script, &["one", "two", "three"]);
    assert!(recorder.is_held_before_exit(&mut process));
    recorder.wait_until_held();
    process.kill().expect("a child can be killed");
    process.wait().expect("a child can be waited for");
    recorder.go_on();
    wait_for(|| recorder.requests().len() == 2);
    let requests = recorder.requests();
    assert_eq!((requests[0].status, requests[0].fault.as_deref()), (Some(200), None));
    assert_eq!((requests[1].status, requests[1].fault.as_deref()), (None, Some("held")));
    let groups = "print([g['logGroupName'] for g in client('logs').describe_log_groups()['logGroups']])";
    assert_eq!(output(spawn(&moto.url(), groups, &[])), "['one']\n");
    // If the limit allows all calls, nothing is held. `go_on` lets a held request continue.
    recorder.stop_after(1);
    let mut process = spawn(&recorder.url(), script, &["two"]);
    assert!(!recorder.is_held_before_exit(&mut process));
    recorder.stop_after(0);
    let process = spawn(&recorder.url(), script, &["three"]);
    recorder.wait_until_held();
    recorder.go_on();
    output(process);
    assert_eq!(output(spawn(&moto.url(), groups, &[])), "['one', 'three', 'two']\n");
}

#[test]
fn cut_off_requests_never_reach_moto() {
    let Some((moto, recorder)) = start() else { return };
    let script = "
for name in sys.argv[1:]:
    client('logs').create_log_group(logGroupName=name)
";
    recorder.stop_after(1);
    let mut process = spawn(&recorder.url(), script, &["one", "two"]);
    recorder.wait_until_held();
    recorder.cut_off();
    // The client retries.
    wait_for(|| recorder.requests().len() > 2);
    process.kill().expect("a child can be killed");
    process.wait().expect("a child can be waited for");
    let ends: Vec<_> = recorder.requests().into_iter().map(|request| (request.status, request.fault)).collect();
    assert_eq!(ends[0], (Some(200), None));
    assert!(ends[1..].iter().all(|end| *end == (None, Some("cut off".to_owned()))), "{ends:?}");
    assert_eq!(recorder.passed(), 1);
    let groups = "print([g['logGroupName'] for g in client('logs').describe_log_groups()['logGroups']])";
    assert_eq!(output(spawn(&moto.url(), groups, &[])), "['one']\n");
}

#[tokio::test]
async fn requests_can_be_delayed() {
    let Some((_moto, recorder)) = start() else { return };
    let s3 = client(&recorder.url()).await;
    recorder.delay(Duration::from_millis(300));
    let start = Instant::now();
    bucket(&s3).await;
    assert!(start.elapsed() >= Duration::from_millis(300));
    recorder.delay(Duration::ZERO);
}

#[tokio::test]
async fn moto_checks_credentials_until_reset() {
    let Some(moto) = Moto::start() else { return };
    let s3 = client(&moto.url()).await;
    bucket(&s3).await;
    moto.turn_on_iam();
    let error = s3.list_buckets().send().await.expect_err("no user has this key");
    assert_eq!(error.code(), Some("InvalidAccessKeyId"), "{error:?}");
    moto.reset();
    assert_eq!(s3.list_buckets().send().await.expect("the checks are off").buckets().len(), 0);
}

// --- helpers ---

pub(crate) fn start() -> Option<(Moto, Recorder)> {
    let moto = Moto::start()?;
    let recorder = Recorder::before(&moto.url());
    Some((moto, recorder))
}

/// Runs a Python script with AWS's client, and returns its output.
pub(crate) fn run_script(recorder: &Recorder, script: &str) -> String {
    output(spawn(&recorder.url(), script, &[]))
}

pub(crate) fn spawn(url: &str, script: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new(python().expect("moto is installed"));
    command.arg("-c").arg(format!("{PRELUDE}{script}")).args(arguments).envs(environment(url));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("Python can be started")
}

pub(crate) fn output(process: Child) -> String {
    let output = process.wait_with_output().expect("a child can be waited for");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    stdout.into_owned()
}

/// Returns an SDK client with the configuration of production, but with shorter delays.
async fn client(url: &str) -> Client {
    client_with_attempts(url, 4).await
}

async fn client_with_attempts(url: &str, attempts: u32) -> Client {
    let retries = retries().with_max_attempts(attempts).with_initial_backoff(Duration::from_millis(10));
    let config = loader()
        .endpoint_url(url)
        .region(Region::new(REGION))
        .credentials_provider(Credentials::new("AKIATEST", "a-secret", None, None, "test"))
        .retry_config(retries)
        .load()
        .await;
    let settings = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build();
    Client::from_conf(settings)
}

async fn bucket(s3: &Client) {
    use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
    let location = CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::EuWest1).build();
    s3.create_bucket().bucket("bucket").create_bucket_configuration(location).send().await.expect("a bucket");
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_mins(1), "the condition does not hold in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}
