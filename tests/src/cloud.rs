//! AWS Batch for programs of the tests: moto, whose jobs are containers of a real engine, and S3 from a server that is quick
//! and shows its objects as files. What a deploy would have made and noted is made and noted here by hand; deploys have tests of
//! their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::counterparts::{Docker, run};
use crate::moto::{Moto, REGION, environment, python};
use crate::recorder::Recorder;
use crate::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
use crate::trial::{Elsewhere, End, Trial, wait_for};
use crate::workspaces::trial_image;

/// The queue that all jobs go to.
pub const QUEUE: &str = "tests";

/// Batch and S3.
#[derive(Debug)]
pub struct Cloud {
    /// Batch, and the logs of its jobs.
    pub moto: Moto,
    /// The bucket.
    pub s3: S3Server,
    /// What runs the containers.
    pub docker: Arc<Docker>,
    /// What workers reach S3 through, if it is not S3 itself.
    pub before_workers: Option<Recorder>,
    /// The server's.
    _runtime: Runtime,
    definitions: Value,
    image: String,
}

static CLOUD: Mutex<Weak<Cloud>> = Mutex::new(Weak::new());
static TRIALS: AtomicU32 = AtomicU32::new(0);

/// Makes a queue, and a job definition for each of the functions, as the template of a Knot does; prints their ARNs as JSON.
const PREPARE: &str = "
import boto3, json, sys
image, functions, variables = json.loads(sys.argv[1])
batch, ec2, iam = boto3.client('batch'), boto3.client('ec2'), boto3.client('iam')
role = iam.create_role(RoleName='batch', AssumeRolePolicyDocument='{}')['Role']['Arn']
profile = iam.create_instance_profile(InstanceProfileName='batch')['InstanceProfile']['Arn']
subnets = [s['SubnetId'] for s in ec2.describe_subnets(Filters=[{'Name': 'default-for-az', 'Values': ['true']}])['Subnets']]
group = ec2.describe_security_groups()['SecurityGroups'][0]['GroupId']
batch.create_compute_environment(
    computeEnvironmentName='tests', type='MANAGED', state='ENABLED', serviceRole=role,
    computeResources={'type': 'EC2', 'minvCpus': 0, 'maxvCpus': 8, 'instanceTypes': ['optimal'], 'subnets': subnets,
                      'instanceRole': profile, 'securityGroupIds': [group]})
queue = batch.create_job_queue(jobQueueName='tests', state='ENABLED', priority=1, computeEnvironmentOrder=[
    {'order': 1, 'computeEnvironment': 'tests'}])['jobQueueArn']
rule = lambda action, **when: {**when, 'action': action}
definitions = {}
for number, (function, memory) in enumerate(functions):
    definitions[function] = batch.register_job_definition(
        jobDefinitionName=f'function-{number}', type='container',
        retryStrategy={'attempts': 3, 'evaluateOnExit': [
            rule('RETRY', onExitCode='75'), rule('RETRY', onExitCode='74'), rule('RETRY', onStatusReason='Host EC2*'),
            rule('RETRY', onReason='CannotPullContainerError*'), rule('EXIT', onExitCode='*')]},
        containerProperties={
            'image': image, 'environment': variables,
            'logConfiguration': {'logDriver': 'awslogs', 'options': {'awslogs-group': 'tests'}},
            'resourceRequirements': [{'type': 'VCPU', 'value': '1'}, {'type': 'MEMORY', 'value': str(memory)}]},
    )['jobDefinitionArn']
print(json.dumps([queue, definitions]))
";

impl Cloud {
    /// The one that the tests of this process share; it ends with the last of them. None if there can be none here.
    ///
    /// # Panics
    /// If it can neither be had nor be skipped.
    pub fn get() -> Option<Arc<Self>> {
        let mut shared = CLOUD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cloud) = shared.upgrade() {
            return Some(cloud);
        }
        let cloud = Arc::new(Self::start(|_| None)?);
        *shared = Arc::downgrade(&cloud);
        Some(cloud)
    }

    /// One of its own, in which so many of a hundred requests of workers fail; see [`Recorder::weather`]. None if there can be
    /// none here.
    ///
    /// # Panics
    /// As [`Cloud::get`].
    pub fn in_bad_weather(seed: u64, percent: u64) -> Option<Arc<Self>> {
        let bad_weather = |s3: &str| {
            let recorder = Recorder::before(s3);
            recorder.weather(seed, percent);
            Some(recorder)
        };
        Some(Arc::new(Self::start(bad_weather)?))
    }

    fn start(before_s3: impl FnOnce(&str) -> Option<Recorder>) -> Option<Self> {
        let docker = Docker::get()?;
        let moto = Moto::start_with_folder(&docker, &std::env::temp_dir())?;
        let runtime = Runtime::new().expect("a process may start a few threads");
        let s3 = runtime.block_on(S3Server::start());
        let note: Value =
            serde_json::from_slice(&std::fs::read(trial_image()).expect("the note is there")).expect("JSON");
        let image = note["name"].as_str().expect("an image has a name").to_owned();
        let archive = note["archive"].as_str().expect("an image has an archive");
        run(docker.command().args(["load", "-i", archive]));
        let functions: Vec<Value> = note["types"]
            .as_array()
            .expect("the worker was asked for its types")
            .iter()
            .map(|types| {
                let function = types["function"].as_str().expect("a function has an id");
                json!([function, if function.ends_with("::hungry") { 128 } else { 1024 }])
            })
            .collect();
        let s3_url = format!("http://{}", s3.address());
        let before_workers = before_s3(&s3_url);
        let s3_of_workers = before_workers.as_ref().map_or(s3_url, Recorder::url);
        let variables: Vec<Value> =
            variables(s3_of_workers).map(|(name, value)| json!({"name": name, "value": value})).into();
        let mut prepare = Command::new(python().expect("moto is installed"));
        prepare.args(["-c", PREPARE, &json!([image, functions, variables]).to_string()]).envs(environment(&moto.url()));
        let said: Value = serde_json::from_str(&run(&mut prepare)).expect("the script prints JSON");
        let definitions = json!({"queue": said[0], "definitions": said[1], "types": note["types"]});
        Some(Self { moto, s3, docker, before_workers, _runtime: runtime, definitions, image })
    }

    /// A trial whose items run here, in a Knot of its own.
    ///
    /// # Panics
    /// Where its folder cannot be written.
    pub fn trial(self: &Arc<Self>, program: &str) -> Trial {
        self.trial_at(program, &self.moto.url(), &self.s3_url()).0
    }

    /// The same, which reaches all of AWS but S3 at the one address and S3 at the other; and the name of its Knot.
    ///
    /// # Panics
    /// Where its folder cannot be written.
    pub fn trial_at(self: &Arc<Self>, program: &str, aws: &str, s3: &str) -> (Trial, String) {
        let knot = format!("trial-{}", TRIALS.fetch_add(1, Ordering::Relaxed));
        let trial = Trial::new(program);
        let note = self.note(&knot);
        std::fs::create_dir_all(trial.home()).expect("the folder of the test can be written");
        std::fs::write(trial.home().join("knot.json"), note.to_string())
            .expect("the folder of the test can be written");
        let mut env: Vec<(String, String)> = environment(aws).map(|(name, value)| (name.to_owned(), value)).into();
        env.push(("AWS_ENDPOINT_URL_S3".into(), s3.to_owned()));
        let (cloud, jobs) = (Arc::clone(self), format!("{knot}-"));
        let elsewhere = Elsewhere {
            env,
            home: trial.home(),
            docker: Arc::clone(&self.docker),
            filter: format!("name={knot}-{{run}}-"),
            record: Some(self.record(&knot)),
            is_batch: true,
            end: Some(End(Arc::new(move || cloud.moto.end_jobs(QUEUE, &jobs)))),
        };
        (trial.on(elsewhere), knot)
    }

    /// Sends a signal to the container of this run whose name ends like this, as soon as it runs.
    ///
    /// # Panics
    /// If there is none for long.
    pub fn signal(&self, run_id: &str, end: &str, signal: &str) {
        let container = wait_for("the container to run", || {
            let mut list = self.docker.command();
            let filter = format!("name={run_id}");
            list.args(["ps", "--filter", &filter, "--filter", "status=running", "--format", "{{.ID}} {{.Names}}"]);
            let list = run(&mut list);
            let mut containers = list.lines().filter_map(|line| line.split_once(' '));
            containers.find(|(_, name)| name.ends_with(end)).map(|(id, _)| id.to_owned())
        });
        run(self.docker.command().args(["kill", "--signal", signal, &container]));
    }

    /// Where S3 is.
    pub fn s3_url(&self) -> String {
        format!("http://{}", self.s3.address())
    }

    /// What a deploy of this Knot would have noted.
    pub fn note(&self, knot: &str) -> Value {
        json!({
            "knot": knot, "profile": null, "region": REGION, "bucket": BUCKET, "prefix": knot, "log-group": "tests",
            "queue": self.definitions["queue"], "job-definitions": self.definitions["definitions"], "image": self.image,
            "types": self.definitions["types"],
        })
    }

    /// The folder in which the objects of this Knot show.
    pub fn record(&self, knot: &str) -> PathBuf {
        Path::new(&self.s3.folder()).join(BUCKET).join(knot)
    }
}

/// What a container is told of S3.
fn variables(s3_url: String) -> [(&'static str, String); 4] {
    [
        ("AWS_ENDPOINT_URL_S3", s3_url),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ]
}
