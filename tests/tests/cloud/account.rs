//! AWS account for the tests of Pars and Knots, and the queries that they make to it.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::LazyLock;

use cloudknot_tests::counterparts::{Registry, check};
use cloudknot_tests::moto::{Moto, environment, python};
use cloudknot_tests::recorder::Recorder;
use cloudknot_tests::workspaces::{STANDING_IN, cargo_knot, workspace};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Workspace that is deployed.
pub(crate) static STAND_IN: LazyLock<PathBuf> = LazyLock::new(|| workspace("of the cloud", STANDING_IN));

/// Script that prints the remaining resources of the kinds that cloudknot creates, by service, as JSON.
const REMAINING: &str = "
import boto3, json
c = boto3.client
of = lambda service, operation, key, name: sorted(
    str(one[name]) for page in c(service).get_paginator(operation).paginate() for one in page[key])
print(json.dumps({
    'buckets': sorted(b['Name'] for b in c('s3').list_buckets()['Buckets']),
    'repositories': of('ecr', 'describe_repositories', 'repositories', 'repositoryName'),
    'roles': of('iam', 'list_roles', 'Roles', 'RoleName'),
    'profiles': of('iam', 'list_instance_profiles', 'InstanceProfiles', 'InstanceProfileName'),
    'logs': of('logs', 'describe_log_groups', 'logGroups', 'logGroupName'),
    'templates': of('ec2', 'describe_launch_templates', 'LaunchTemplates', 'LaunchTemplateName'),
    'groups': [g for g in of('ec2', 'describe_security_groups', 'SecurityGroups', 'GroupName') if g != 'default'],
    'stacks': of('cloudformation', 'describe_stacks', 'Stacks', 'StackName'),
    'definitions': sorted(d['jobDefinitionName'] + ' ' + d['status']
        for page in c('batch').get_paginator('describe_job_definitions').paginate(status='ACTIVE')
        for d in page['jobDefinitions']),
}))
";

/// Script that creates a user whose permissions IAM can simulate, and prints the user's key.
pub(crate) const USER: &str = "
import boto3
iam = boto3.client('iam')
iam.create_user(UserName='ada')
key = iam.create_access_key(UserName='ada')['AccessKey']
print(key['AccessKeyId'], key['SecretAccessKey'])
";

/// Script that creates the role that moto requires for a compute environment. AWS has its own.
pub(crate) const SERVICE_ROLE: &str = "
import boto3
print(boto3.client('iam').create_role(RoleName='theirs', AssumeRolePolicyDocument='{}')['Role']['Arn'])
";

/// Script that creates runs and templates of these Knots in the bucket of the Pars, and job definitions without a
/// stack.
const DATA: &str = "
import boto3
s3, batch, stacks = boto3.client('s3'), boto3.client('batch'), boto3.client('cloudformation')
bucket = next(o['OutputValue'] for s in stacks.describe_stacks()['Stacks'] for o in s['Outputs'] if o['OutputKey'] == 'Bucket')
for knot in knots:
    for key in [f'knots/{knot}/runs/1/manifest.json', f'stacks/{knot}/1.yaml']:
        s3.put_object(Bucket=bucket, Key=key, Body=b'1')
    batch.register_job_definition(
        jobDefinitionName=f'cloudknot-{knot}_before-0a1b2c3d', type='container', tags={'cloudknot:knot': knot},
        retryStrategy={'attempts': 1}, containerProperties={'image': 'cloudknot/sweep@sha256:aa', 'resourceRequirements': [
            {'type': 'VCPU', 'value': '1'}, {'type': 'MEMORY', 'value': '64'}]})
";

/// Script that prints the Knots that have data or job definitions.
const KNOTS_WITH_DATA: &str = "
import boto3
s3, batch = boto3.client('s3'), boto3.client('batch')
keys = [o['Key'] for b in s3.list_buckets()['Buckets'] for o in s3.list_objects_v2(Bucket=b['Name']).get('Contents', [])]
pages = batch.get_paginator('describe_job_definitions').paginate(status='ACTIVE')
print(*sorted({'/'.join(key.split('/')[:2]) for key in keys}), *sorted({
    'definitions/' + d['tags']['cloudknot:knot'] for page in pages for d in page['jobDefinitions']}))
";

/// Account in moto with a registry, behind the recorder, and the home folder of a user.
pub(crate) struct Account {
    pub(crate) moto: Moto,
    pub(crate) recorder: Recorder,
    pub(crate) registry: Registry,
    pub(crate) home: TempDir,
    python: RefCell<Python>,
}

impl Account {
    pub(crate) fn new() -> Option<Self> {
        Some(Self::of(Moto::start()?, Registry::start()?))
    }

    /// Returns an account in this server, whose images are in this registry.
    pub(crate) fn of(moto: Moto, registry: Registry) -> Self {
        let recorder = Recorder::before(&moto.url());
        let python = RefCell::new(Python::start(&moto.url()));
        Self { recorder, registry, moto, home: tempfile::tempdir().unwrap(), python }
    }

    /// Returns the command `cargo knot` on this user's machine.
    pub(crate) fn knot_of(&self, home: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(cargo_knot());
        command.arg("knot").args(arguments);
        self.as_user(&mut command, home);
        command
    }

    /// Configures a command to run on this user's machine.
    pub(crate) fn as_user<'c>(&self, command: &'c mut Command, home: &Path) -> &'c mut Command {
        command.current_dir(&*STAND_IN).stdin(Stdio::null()).envs(self.variables(&self.recorder.url(), home))
    }

    /// Returns the environment of this user's machine, with AWS at this address.
    pub(crate) fn variables(&self, aws: &str, home: &Path) -> Vec<(&'static str, OsString)> {
        let aws = environment(aws).map(|(name, value)| (name, value.into()));
        let cloudknot = [
            ("USER", "ada".into()),
            ("CLOUDKNOT_CONFIG", home.join("config.toml").into()),
            ("CLOUDKNOT_HOME", home.join("runs").into()),
            ("CLOUDKNOT_REGISTRY", self.registry.host().into()),
        ];
        aws.into_iter().chain(cloudknot).collect()
    }

    pub(crate) fn knot(&self, arguments: &[&str]) -> Command {
        self.knot_of(self.home.path(), arguments)
    }

    pub(crate) fn deploy(&self, role: &str, more: &[&str]) -> Command {
        let deploy =
            ["deploy", "-p", "lone", "--offline", "--fast", "--knot", "sweep", "--service-role", role, "--json"];
        self.knot(&[&deploy, more].concat())
    }

    /// Runs a script with AWS's own client, which bypasses the recorder, and returns its output.
    pub(crate) fn script(&self, text: &str) -> String {
        self.script_with(text, &[])
    }

    /// Like [`Account::script`], with arguments for the script.
    pub(crate) fn script_with(&self, text: &str, arguments: &[&str]) -> String {
        self.python.borrow_mut().run(text, arguments).trim().to_owned()
    }

    /// Puts runs and templates of these Knots into the bucket, and registers a job definition without a stack for each.
    pub(crate) fn put_data(&self, knots: &[&str]) {
        self.script(&format!("knots = {}\n{DATA}", json!(knots)));
    }

    /// Returns the path of the Knot's note on this user's machine.
    pub(crate) fn note(&self) -> PathBuf {
        self.home.path().join("runs/knot.json")
    }

    /// Returns the names of the resources that exist, by service.
    pub(crate) fn remaining(&self) -> Value {
        serde_json::from_str(&self.script(REMAINING)).expect("the script prints JSON")
    }

    /// Returns the Knots that have data or job definitions.
    pub(crate) fn knots_with_data(&self) -> String {
        self.script(KNOTS_WITH_DATA)
    }

    /// Fails if anything exists beyond the initial resources.
    pub(crate) fn check_empty(&self, roles: &[&str]) {
        for (kind, names) in self.remaining().as_object().expect("a table") {
            let expected = if kind == "roles" { roles } else { &[] };
            assert_eq!(names.as_array().expect("a list"), expected, "{kind}");
        }
    }

    /// Returns whether nothing exists beyond the initial resources.
    pub(crate) fn is_empty(&self, roles: &[&str]) -> bool {
        let remaining = self.remaining();
        let mut all = remaining.as_object().expect("a table").iter();
        all.all(|(kind, names)| *names == Value::from(if kind == "roles" { roles.to_vec() } else { Vec::new() }))
    }

    /// Fails if an AWS key or a registry's password is in a file of this user, or in the stacks.
    pub(crate) fn check_no_secrets(&self) {
        let stacks = "import boto3, json; c = boto3.client('cloudformation'); print([c.get_template(StackName=s['StackName']) \
                      for s in c.describe_stacks()['Stacks']])";
        let mut texts = vec![("the stacks".to_owned(), self.script(stacks))];
        let mut open = vec![self.home.path().to_owned()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                if entry.path().is_dir() {
                    open.push(entry.path());
                } else {
                    let bytes = std::fs::read(entry.path()).unwrap();
                    texts.push((entry.path().display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
                }
            }
        }
        let keys = environment("");
        let secret = keys.iter().find(|(name, _)| *name == "AWS_SECRET_ACCESS_KEY").map(|(_, value)| value.as_str());
        for (location, text) in texts {
            assert!(
                !text.contains(secret.unwrap()) && !text.contains(Registry::PASSWORD),
                "{location} contains a secret"
            );
        }
    }

    /// Runs a command, and returns its output and the operations that it requested.
    pub(crate) fn calls(&self, command: &mut Command) -> (Output, Vec<String>) {
        let before = self.recorder.operations().len();
        let output = check(command, 0, &[]);
        (output, self.recorder.operations().split_off(before))
    }
}

/// Python process that runs one script after the other: starting it and loading AWS's client takes longer than most
/// scripts.
struct Python {
    process: Child,
    /// Standard input of the process, which is closed to end it.
    scripts: Option<ChildStdin>,
    responses: BufReader<ChildStdout>,
}

/// Script that runs each line, which is a script with its arguments, in its own namespace.
const SCRIPTS: &str = "
import contextlib, io, json, sys, traceback
for line in sys.stdin:
    text, sys.argv[1:] = json.loads(line)
    printed, error = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(text, '<script>', 'exec'), {'__name__': '__main__'})
    except BaseException:
        error = traceback.format_exc()
    print(json.dumps([printed.getvalue(), error]), flush=True)
";

impl Python {
    fn start(aws: &str) -> Self {
        let mut command = Command::new(python().expect("moto is installed"));
        command.args(["-c", SCRIPTS]).envs(environment(aws)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("Python can be started");
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take().expect("stdout is a pipe"));
        Self { process, scripts: stdin, responses: BufReader::new(stdout) }
    }

    /// Runs a script to completion, and returns its output. Fails the test if the script fails.
    #[track_caller]
    fn run(&mut self, text: &str, arguments: &[&str]) -> String {
        let scripts = self.scripts.as_mut().expect("stdin is open until the drop");
        writeln!(scripts, "{}", json!([text, arguments])).expect("Python reads scripts");
        let mut response = String::new();
        self.responses.read_line(&mut response).expect("Python responds");
        let (printed, error): (String, Option<String>) =
            serde_json::from_str(&response).expect("Python responds in JSON");
        if let Some(error) = error {
            panic!("a script failed:\n{text}\n{error}");
        }
        printed
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        drop(self.scripts.take());
        // The process has ended, or is about to.
        let _ = self.process.wait();
    }
}

/// Returns the JSON that a command has printed.
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("one JSON value and nothing else")
}

/// Returns the output of a command.
pub(crate) fn text(output: Output) -> String {
    String::from_utf8(output.stdout).expect("the command prints UTF-8")
}
