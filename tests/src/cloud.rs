//! AWS Batch for programs of the tests: moto, whose jobs are containers of a real engine or child processes, and a fast
//! S3 server whose objects are visible as files. This module creates the resources and notes of a deploy by hand;
//! deploys have their own tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::counterparts::{Docker, run};
use crate::moto::{Moto, REGION, environment, python};
use crate::recorder::Recorder;
use crate::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
use crate::shared::{self, BatchResources, S3, shared, shared_in_process};
use crate::trial::{End, Jobs, RemoteEnv, Trial};
use crate::workspaces::trial_image;

/// Form in which moto runs a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Container of the trial's image, for tests of images, limits, signals and exit codes.
    Container,
    /// Child process of moto, started from the trial's worker: a container without isolation, in a tenth of the time.
    Process,
}

impl JobKind {
    /// Returns the kind of jobs for a test that needs no containers: processes, or containers with
    /// `CLOUDKNOT_TEST=full`.
    pub fn of_suite() -> Self {
        if std::env::var("CLOUDKNOT_TEST").is_ok_and(|speed| speed == "full") { Self::Container } else { Self::Process }
    }
}

/// Simulated Batch and S3.
#[derive(Debug)]
pub struct Cloud {
    /// Batch, and the logs of its jobs.
    pub moto: Moto,
    /// S3 server with the bucket.
    pub s3: S3,
    /// Recorder through which workers reach S3, if they do not reach it directly.
    pub worker_recorder: Option<Recorder>,
    /// Name of the Knot of all trials; `None` if each trial has its own.
    knot: Option<String>,
    /// Engine that runs the containers.
    docker: Option<Arc<Docker>>,
    /// S3 server, if this process has started it.
    _server: Option<(Runtime, S3Server)>,
    resources: BatchResources,
}

static CLOUD: Mutex<Weak<Cloud>> = Mutex::new(Weak::new());
static TRIALS: AtomicU32 = AtomicU32::new(0);

/// Script that creates a queue, and job definitions for each of the functions, as the template of a Knot does, and
/// prints their ARNs as JSON.
const PREPARE: &str = "
import boto3, json, sys
name, images, functions, variables = json.loads(sys.argv[1])
batch, ec2, iam = boto3.client('batch'), boto3.client('ec2'), boto3.client('iam')
role = iam.create_role(RoleName=name, AssumeRolePolicyDocument='{}')['Role']['Arn']
profile = iam.create_instance_profile(InstanceProfileName=name)['InstanceProfile']['Arn']
subnets = [s['SubnetId'] for s in ec2.describe_subnets(Filters=[{'Name': 'default-for-az', 'Values': ['true']}])['Subnets']]
group = ec2.describe_security_groups()['SecurityGroups'][0]['GroupId']
batch.create_compute_environment(
    computeEnvironmentName=name, type='MANAGED', state='ENABLED', serviceRole=role,
    computeResources={'type': 'EC2', 'minvCpus': 0, 'maxvCpus': 8, 'instanceTypes': ['optimal'], 'subnets': subnets,
                      'instanceRole': profile, 'securityGroupIds': [group]})
queue = batch.create_job_queue(jobQueueName=name, state='ENABLED', priority=1, computeEnvironmentOrder=[
    {'order': 1, 'computeEnvironment': name}])['jobQueueArn']
rule = lambda action, **when: {**when, 'action': action}
define = lambda kind, number, image, memory: batch.register_job_definition(
    jobDefinitionName=f'cloudknot-{name}_{kind}-{number}', type='container',
    retryStrategy={'attempts': 3, 'evaluateOnExit': [
        rule('RETRY', onExitCode='75'), rule('RETRY', onExitCode='74'), rule('RETRY', onStatusReason='Host EC2*'),
        rule('EXIT', onStatusReason='Essential container*')]},
    containerProperties={
        'image': image, 'environment': variables,
        'logConfiguration': {'logDriver': 'awslogs', 'options': {
            'awslogs-group': '/cloudknot/tests', 'awslogs-stream-prefix': name}},
        'resourceRequirements': [{'type': 'VCPU', 'value': '1'}, {'type': 'MEMORY', 'value': str(memory)}]},
)['jobDefinitionArn']
print(json.dumps([queue, *(
    {function: define(kind, number, image, memory) for number, (function, memory) in enumerate(functions)}
    for kind, image in images.items())]))
";

impl Cloud {
    /// Returns the instance that all tests share; `None` if it is not available.
    ///
    /// # Panics
    /// If it is not available and `CLOUDKNOT_TESTS_REQUIRE=1` is set.
    pub fn get() -> Option<Arc<Self>> {
        shared_in_process(&CLOUD, Self::handed_over_or_new)
    }

    /// Like [`Cloud::get`], for trials of one Knot, whose workers reach S3 through a recorder. Returns `None` if it is not
    /// available.
    ///
    /// # Panics
    /// Same as for [`Cloud::get`].
    pub fn with_worker_recorder(knot: &str) -> Option<Arc<Self>> {
        let mut cloud = Self::handed_over_or_new()?;
        let recorder = Recorder::before(&cloud.s3.url());
        cloud.resources = prepare(knot, &cloud.moto, recorder.url());
        cloud.worker_recorder = Some(recorder);
        cloud.knot = Some(knot.to_owned());
        Some(Arc::new(cloud))
    }

    fn handed_over_or_new() -> Option<Self> {
        match shared() {
            Some(shared) => shared.cloud.as_ref().map(Self::at),
            None => Self::start(),
        }
    }

    /// Returns an instance that already runs.
    fn at(cloud: &shared::Cloud) -> Self {
        let docker = shared().and_then(|shared| shared.engine.as_ref()).and_then(|_| Docker::get());
        let moto = Moto::at(cloud.moto, cloud.moto_log.clone());
        let (s3, resources) = (cloud.s3.clone(), cloud.resources.clone());
        Self { moto, s3, worker_recorder: None, knot: None, docker, _server: None, resources }
    }

    /// Starts an instance that ends with this process; `None` if it is not available.
    ///
    /// # Panics
    /// If it is not available and `CLOUDKNOT_TESTS_REQUIRE=1` is set.
    pub fn start() -> Option<Self> {
        let docker = Docker::get();
        let moto = Moto::start_with_folder(docker.as_deref(), &std::env::temp_dir())?;
        let runtime = Runtime::new().expect("a process may start a few threads");
        let server = runtime.block_on(S3Server::start());
        if let Some(docker) = &docker {
            let archive = trial_note()["archive"].as_str().expect("an image has an archive").to_owned();
            run(docker.command().args(["load", "-i", &archive]));
        }
        let s3 = server.endpoint().clone();
        let resources = prepare("tests", &moto, s3.url());
        Some(Self { moto, s3, worker_recorder: None, knot: None, docker, _server: Some((runtime, server)), resources })
    }

    /// Returns the addresses and files with which other processes reach the instance.
    pub fn endpoints(&self) -> shared::Cloud {
        shared::Cloud {
            moto: self.moto.address(),
            moto_log: self.moto.log_file().to_owned(),
            s3: self.s3.clone(),
            resources: self.resources.clone(),
        }
    }

    /// Returns the engine that runs the containers; `None` if no engine is available.
    ///
    /// # Panics
    /// If it is not available and `CLOUDKNOT_TESTS_REQUIRE=1` is set.
    pub fn docker(&self) -> Option<Arc<Docker>> {
        self.docker.clone().or_else(Docker::get)
    }

    /// Creates a trial whose items run in this cloud, with its own Knot. Returns `None` if jobs of this kind are not
    /// available.
    ///
    /// # Panics
    /// If its folder cannot be written.
    pub fn trial(self: &Arc<Self>, program: &str, kind: JobKind) -> Option<Trial> {
        Some(self.trial_at(program, kind, &self.moto.url(), &self.s3.url())?.0)
    }

    /// Like [`Cloud::trial`], with one address for S3 and one for the other AWS services. Also returns the name of the
    /// trial's Knot.
    ///
    /// # Panics
    /// If its folder cannot be written.
    pub fn trial_at(self: &Arc<Self>, program: &str, kind: JobKind, aws: &str, s3: &str) -> Option<(Trial, String)> {
        // Other processes have trials with the same numbers, and share moto with this one.
        let unique = || format!("trial-{:x}-{}", crate::now(), TRIALS.fetch_add(1, Ordering::Relaxed));
        let knot = self.knot.clone().unwrap_or_else(unique);
        let jobs = match kind {
            JobKind::Container => Jobs::Containers(self.docker()?, format!("name={knot}-{{run}}-")),
            JobKind::Process => Jobs::Processes(format!("{knot}-{{run}}-")),
        };
        let trial = Trial::new(program);
        let note = self.note(&knot, kind);
        std::fs::create_dir_all(trial.home()).expect("the folder of the test can be written");
        std::fs::write(trial.home().join("knot.json"), note.to_string())
            .expect("the folder of the test can be written");
        let mut env: Vec<(String, String)> = environment(aws).map(|(name, value)| (name.to_owned(), value)).into();
        env.push(("AWS_ENDPOINT_URL_S3".into(), s3.to_owned()));
        let (cloud, prefix) = (Arc::clone(self), format!("{knot}-"));
        let queue = self.resources.queue.as_str().expect("an ARN").to_owned();
        let remote = RemoteEnv {
            env,
            home: trial.home(),
            jobs,
            record: Some(self.record(&knot)),
            is_batch: true,
            end: Some(End(Arc::new(move || cloud.moto.end_jobs(&queue, &prefix)))),
        };
        Some((trial.on(remote), knot))
    }

    /// Returns the note that a deploy of this Knot would have written.
    pub fn note(&self, knot: &str, kind: JobKind) -> Value {
        let BatchResources { queue, containers, processes, types, image } = &self.resources;
        let definitions = if kind == JobKind::Container { containers } else { processes };
        json!({
            "knot": knot, "profile": null, "region": REGION, "bucket": BUCKET, "prefix": knot, "log-group": "/cloudknot/tests",
            "queue": queue, "job-definitions": definitions, "image": image, "types": types,
        })
    }

    /// Returns the folder in which the objects of this Knot are visible.
    pub fn record(&self, knot: &str) -> PathBuf {
        Path::new(&self.s3.folder).join(BUCKET).join(knot)
    }
}

fn trial_note() -> Value {
    serde_json::from_slice(&std::fs::read(trial_image()).expect("the note of the trial's image exists"))
        .expect("the note is JSON")
}

/// Creates a queue of this name and job definitions, whose workers reach S3 at this address.
fn prepare(name: &str, moto: &Moto, s3_of_workers: String) -> BatchResources {
    let note = trial_note();
    let text = |field: &str| note[field].as_str().expect("the note has the field").to_owned();
    let functions: Vec<Value> = note["types"]
        .as_array()
        .expect("the worker described its types")
        .iter()
        .map(|types| {
            let function = types["function"].as_str().expect("a function has an id");
            json!([function, if function.ends_with("::hungry") { 128 } else { 1024 }])
        })
        .collect();
    let images = json!({"containers": text("name"), "processes": format!("process:{}", text("worker"))});
    let variables: Vec<Value> =
        variables(s3_of_workers).map(|(name, value)| json!({"name": name, "value": value})).into();
    let mut prepare = Command::new(python().expect("moto is installed"));
    prepare.args(["-c", PREPARE, &json!([name, images, functions, variables]).to_string()]);
    let [queue, containers, processes] =
        serde_json::from_str(&run(prepare.envs(environment(&moto.url())))).expect("the script prints JSON");
    BatchResources { queue, containers, processes, types: note["types"].clone(), image: text("name") }
}

/// Returns the variables with which a worker reaches S3.
fn variables(s3_url: String) -> [(&'static str, String); 4] {
    [
        ("AWS_ENDPOINT_URL_S3", s3_url),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ]
}
