//! Tests of the policies that `cargo knot policy` prints: each request that a verb makes is allowed by the policies of the verb, and
//! tests/stacks/requests.json lists the permissions that the requests need.
//!
//! moto itself ignores permissions. `tests/moto/allowed.py` evaluates the recorded requests. Requests that CloudFormation makes for
//! the user are not recorded: for those, `tests/stacks/check.py` compares the policies with AWS's own lists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use cloudknot_tests::cloud::{Cloud, JobKind};
use cloudknot_tests::counterparts::{check, run};
use cloudknot_tests::moto::{ACCOUNT, REGION, python};
use cloudknot_tests::now;
use cloudknot_tests::recorder::{RecordedRequest, Recorder, ResponseOverride};
use cloudknot_tests::s3_server::BUCKET;
use cloudknot_tests::trial::{Behavior, Spec, facts, failures, json, wait_for};
use cloudknot_tests::workspaces::cargo_knot;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::PROGRAM;
use crate::account::{Account, SERVICE_ROLE, STAND_IN, USER};
use crate::knot::JOB;
use crate::network::{NO_DEFAULT_VPC, OLDER};
use crate::refusals::{queues, quotas};

/// Permissions that requests need, by the name of the policy that allows them.
type Needed = BTreeMap<String, BTreeSet<String>>;

/// The names for which policies are printed, and the permissions that requests needed so far.
pub(crate) struct Simulation {
    pars: String,
    knot: String,
    /// Tags of the resources of the Pars and the Knot.
    tags: Value,
    needed: Needed,
}

impl Simulation {
    /// Requests about this Pars and Knot, with policies for these names.
    pub(crate) fn of(pars: &str, knot: &str) -> Self {
        let tags = json!({"cloudknot:pars": pars, "cloudknot:knot": knot});
        Self { pars: pars.to_owned(), knot: knot.to_owned(), tags, needed: Needed::new() }
    }

    /// Uses policies for patterns that the names of the Pars and the Knot match.
    pub(crate) fn with_patterns(self, pars: &str, knot: &str) -> Self {
        Self { pars: pars.to_owned(), knot: knot.to_owned(), ..self }
    }

    /// Runs a command, and evaluates its requests as [`Simulation::evaluate`] does.
    #[track_caller]
    fn run(&mut self, account: &Account, command: Command, verbs: &[&str], scope: &[&str]) {
        self.run_with_code(account, command, 0, verbs, scope);
    }

    /// Like [`Simulation::run`], for a command that ends with this exit code.
    #[track_caller]
    fn run_with_code(&mut self, account: &Account, mut command: Command, code: i32, verbs: &[&str], scope: &[&str]) {
        let before = account.recorder.requests().len();
        check(&mut command, code, &[]);
        self.evaluate(&account.recorder.requests()[before..], verbs, scope);
    }

    /// Fails unless each of the requests is allowed by the policies of these verbs for this scope, which consists of options of
    /// `cargo knot policy`.
    #[track_caller]
    pub(crate) fn evaluate(&mut self, requests: &[RecordedRequest], verbs: &[&str], scope: &[&str]) {
        assert!(!requests.is_empty(), "no request was recorded");
        let folder = tempfile::tempdir().unwrap();
        let lines = requests.iter().map(|request| serde_json::to_string(request).unwrap() + "\n");
        std::fs::write(folder.path().join("requests.jsonl"), lines.collect::<String>()).unwrap();
        let policies: BTreeMap<&str, Value> = verbs.iter().map(|verb| (*verb, self.policy(verb, scope))).collect();
        let given = json!({"policies": policies, "tags": self.tags});
        std::fs::write(folder.path().join("policies.json"), given.to_string()).unwrap();
        let mut script = Command::new(python().expect("moto is installed"));
        script.arg("-B").arg(tests().join("moto/allowed.py")).args(["requests.jsonl", "policies.json"]);
        let found: Needed =
            serde_json::from_str(&run(script.current_dir(folder.path()))).expect("the script prints JSON");
        for (verb, actions) in found {
            self.needed.entry(verb).or_default().extend(actions);
        }
    }

    /// Returns the policy that `cargo knot policy` prints.
    fn policy(&self, verb: &str, scope: &[&str]) -> Value {
        let mut policy = Command::new(cargo_knot());
        policy.args(["knot", "policy", verb, "--pars", &self.pars, "--knot", &self.knot]);
        policy.args(["--account", ACCOUNT, "--region", REGION]).args(scope).env("CLOUDKNOT_CONFIG", "/nonexistent");
        serde_json::from_str(&run(&mut policy)).expect("a policy is JSON")
    }

    /// Fails unless the requests needed exactly the permissions that requests.json lists for this test.
    #[track_caller]
    fn check_needed(&self, test: &str) {
        let listed = std::fs::read(tests().join("stacks/requests.json")).unwrap();
        let mut listed: BTreeMap<String, Needed> = serde_json::from_slice(&listed).expect("requests.json is JSON");
        let needed = serde_json::to_string(&self.needed).unwrap();
        let advice = format!("if this is intended, change tests/stacks/requests.json to \"{test}\": {needed}");
        assert_eq!(Some(&self.needed), listed.remove(test).as_ref(), "{advice}");
    }
}

/// Returns the folder of the tests.
fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Script that creates a role, and prints the keys of a caller that has assumed it.
const ASSUMED: &str = "
import boto3
role = boto3.client('iam').create_role(RoleName='scientist', AssumeRolePolicyDocument='{}')['Role']['Arn']
keys = boto3.client('sts').assume_role(RoleArn=role, RoleSessionName='ada')['Credentials']
print(keys['AccessKeyId'], keys['SecretAccessKey'], keys['SessionToken'])
";

/// Returns the command with these keys: an ID, a secret and for a role a token.
fn with_keys(mut command: Command, keys: &str) -> Command {
    let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
    command.envs(names.into_iter().zip(keys.split_whitespace()));
    command
}

/// From now on, shows an operation on the stack as in progress once, and until an operation is requested, a status instead of
/// another one. In moto, each operation succeeds at once.
fn show_status(account: &Account, stack: &'static str, status: Option<(&'static str, &'static str)>) {
    let (requested, in_progress) = (AtomicBool::new(false), AtomicBool::new(false));
    account.recorder.override_responses(move |request| {
        if !request.body.as_deref().unwrap_or_default().contains(stack) {
            return None;
        }
        let change = |from: &str, to: &str| Some(ResponseOverride::Change(format!("{from}</"), format!("{to}</")));
        match request.operation().strip_prefix("cloudformation ")? {
            "DescribeStacks" if in_progress.swap(false, Relaxed) => change("_COMPLETE", "_IN_PROGRESS"),
            "DescribeStacks" if !requested.load(Relaxed) => status.and_then(|(from, to)| change(from, to)),
            "CreateStack" | "UpdateStack" | "DeleteStack" | "ContinueUpdateRollback" => {
                requested.store(true, Relaxed);
                in_progress.store(true, Relaxed);
                // moto has no such operation.
                let is_rollback = request.operation().ends_with("ContinueUpdateRollback");
                is_rollback.then(|| ResponseOverride::Respond(200, "<ContinueUpdateRollbackResponse/>".to_owned()))
            }
            _ => None,
        }
    });
}

/// From now on, responds with this quota, of whatever is asked for.
fn set_quota(account: &Account, quota: u32) {
    let response = json!({"Quota": {"Value": quota}}).to_string();
    account.recorder.override_responses(move |request| {
        let is_quota = request.operation() == "servicequotas GetServiceQuota";
        is_quota.then(|| ResponseOverride::Respond(200, response.clone()))
    });
}

/// Script that creates a KMS key that CloudWatch Logs may use, and prints its ARN.
const KEY: &str = "
import boto3, json
allow = lambda principal: {'Effect': 'Allow', 'Principal': principal, 'Action': 'kms:*', 'Resource': '*'}
policy = {'Version': '2012-10-17', 'Statement': [
    allow({'AWS': 'arn:aws:iam::123456789012:root'}), allow({'Service': 'logs.eu-west-1.amazonaws.com'})]}
print(boto3.client('kms').create_key(Policy=json.dumps(policy))['KeyMetadata']['Arn'])
";

/// Script that creates a role for instances, with an instance profile, and one that starts containers.
const ROLES: &str = "
import boto3
iam = boto3.client('iam')
for name in ['machines', 'starters']:
    iam.create_role(RoleName=name, AssumeRolePolicyDocument='{}')
iam.create_instance_profile(InstanceProfileName='machines')
iam.add_role_to_instance_profile(InstanceProfileName='machines', RoleName='machines')
";

#[test]
fn pars_create_and_clobber_are_allowed() {
    let Some(account) = Account::new() else { return };
    let mut simulation = Simulation::of("lab", "sweep");
    let create = |more: &[&str]| account.knot(&[&["pars", "create", "lab"], more].concat());
    let clobber = |more: &[&str]| account.knot(&[&["pars", "clobber", "lab"], more].concat());
    let [creates, deletes] = [["pars-create"], ["pars-clobber"]];
    let (user, role) = (account.script(USER), account.script(ASSUMED));
    account.script(NO_DEFAULT_VPC);
    let stack = "cloudknot-pars-lab";
    show_status(&account, stack, None);
    simulation.run(&account, with_keys(create(&[]), &user), &creates, &[]);
    account.script(OLDER);
    simulation.run(&account, with_keys(create(&[]), &role), &creates, &[]);
    show_status(&account, stack, Some(("UPDATE_COMPLETE", "UPDATE_ROLLBACK_FAILED")));
    simulation.run(&account, create(&[]), &creates, &[]);
    show_status(&account, stack, Some(("UPDATE_COMPLETE", "ROLLBACK_COMPLETE")));
    simulation.run(&account, create(&[]), &creates, &[]);
    show_status(&account, stack, None);
    simulation.run(&account, create(&["--dry-run"]), &creates, &[]);
    simulation.run(&account, account.knot(&["template", "pars", "lab"]), &creates, &[]);
    account.put_data(&["sweep"]);
    simulation.run(&account, clobber(&[]), &deletes, &[]);

    let key = account.script(KEY);
    account.script(ROLES);
    let of_both = ["--bucket", "data", "--prefix", "team/", "--kms-key", &key, "--role-path", "/science/"];
    let of_create = ["--instance-role", "machines", "--execution-role", "starters"];
    let adopted = ["machines", "starters"].map(|name| format!("arn:aws:iam::{ACCOUNT}:role/{name}"));
    let of_policy = ["--adopted-role", &adopted[0], "--adopted-role", &adopted[1]];
    let scope = [&of_both[..], &of_policy].concat();
    simulation.run(&account, create(&[&of_both[..], &of_create].concat()), &creates, &scope);
    show_status(&account, stack, Some(("CREATE_COMPLETE", "UPDATE_ROLLBACK_FAILED")));
    simulation.run(&account, clobber(&["--keep-data"]), &deletes, &scope);

    // moto deletes no VPC that has an endpoint or a gateway.
    let new_vpc = ["pars-create", "pars-network"];
    account.script("import boto3; [boto3.client('ec2').create_vpc(CidrBlock='10.9.0.0/16') for _ in range(5)]");
    set_quota(&account, 20);
    simulation.run(&account, create(&["--internet", "none", "--dry-run"]), &new_vpc, &[]);
    simulation.run(&account, create(&["--internet", "nat", "--endpoints"]), &new_vpc, &[]);
    simulation.check_needed("pars");
}

/// Script that stores an image with each of these tags in a repository.
const IMAGES: &str = "
import boto3, json
config = {'mediaType': 'application/vnd.docker.container.image.v1+json', 'size': 1, 'digest': 'sha256:' + 64 * '0'}
kind = 'application/vnd.docker.distribution.manifest.v2+json'
for tag in tags:
    manifest = {'schemaVersion': 2, 'mediaType': kind, 'config': config, 'layers': [], 'annotations': {'tag': tag}}
    boto3.client('ecr').put_image(repositoryName=repository, imageManifest=json.dumps(manifest), imageTag=tag)
";

/// Script that creates what settings of a Knot name: a key pair, the repository `shared`, an EFS file system that is reachable in each
/// zone, and a machine image. Prints the IDs of the last two.
const NAMED_BY_SETTINGS: &str = "
import boto3
ec2, efs, ecr = (boto3.client(name) for name in ['ec2', 'efs', 'ecr'])
ec2.create_key_pair(KeyName='lab')
ecr.create_repository(repositoryName='shared')
vpc = next(v['VpcId'] for v in ec2.describe_vpcs()['Vpcs'] if v['IsDefault'])
group = ec2.create_security_group(GroupName='files', Description='files', VpcId=vpc)['GroupId']
ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[{
    'IpProtocol': 'tcp', 'FromPort': 2049, 'ToPort': 2049, 'IpRanges': [{'CidrIp': '172.31.0.0/16'}]}])
file_system = efs.create_file_system(CreationToken='files')['FileSystemId']
for subnet in ec2.describe_subnets(Filters=[{'Name': 'vpc-id', 'Values': [vpc]}])['Subnets']:
    efs.create_mount_target(FileSystemId=file_system, SubnetId=subnet['SubnetId'], SecurityGroups=[group])
machine = ec2.run_instances(ImageId='ami-12c6146b', MinCount=1, MaxCount=1, InstanceType='m5.large')['Instances'][0]['InstanceId']
print(file_system, ec2.create_image(InstanceId=machine, Name='lab')['ImageId'])
";

#[test]
fn deploy_and_clobber_are_allowed() {
    let Some(account) = Account::new() else { return };
    let mut simulation = Simulation::of("lab", "sweep");
    let (user, assumed) = (account.script(USER), account.script(ASSUMED));
    check(&mut account.knot(&["pars", "create", "lab", "--bucket", "data"]), 0, &[]);
    let ids = account.script(NAMED_BY_SETTINGS);
    account.script(&format!("repository, tags = 'shared', ['sweep-0123456789ab', 'other-0123456789ab']\n{IMAGES}"));
    let (file_system, ami) = ids.split_once(' ').expect("the script prints two IDs");
    let service = account.script(SERVICE_ROLE);
    let (deploys, clobbers) = (["deploy"], ["clobber"]);
    let deploy = |more: &[&str]| account.deploy(&service, &[&["--pars", "lab"], more].concat());
    let read_only = "arn:aws:iam::aws:policy/AmazonDynamoDBReadOnlyAccess";
    let scope = ["--adopted-role", &service, "--bucket", "data", "--policy", read_only];
    let stack = "cloudknot-knot-sweep";
    show_status(&account, stack, None);
    simulation.run(&account, with_keys(deploy(&[]), &user), &deploys, &scope);
    simulation.run(&account, deploy(&["--memory", "3 GiB", "--dry-run"]), &deploys, &scope);
    // The template is stored in the bucket, because it is long.
    let long = format!("TEXT={}", "long ".repeat(12_000));
    let mount = format!("/data={file_system}");
    let settings = [
        "--env",
        &long,
        "--mount",
        &mount,
        "--policy",
        "AmazonDynamoDBReadOnlyAccess",
        "--key-pair",
        "lab",
        "--ami",
        ami,
        "--instance-types",
        "m5,c5.large",
    ];
    simulation.run(&account, deploy(&settings), &deploys, &scope);
    show_status(&account, stack, Some(("UPDATE_COMPLETE", "UPDATE_ROLLBACK_FAILED")));
    simulation.run(&account, deploy(&[]), &deploys, &scope);
    simulation.run(&account, account.knot(&["use", "sweep"]), &["run"], &scope);
    account.moto.slow_jobs(600);
    account.script(JOB);
    // It would replace the queue with its jobs.
    simulation.run_with_code(&account, deploy(&["--queue-name", "theirs"]), 8, &deploys, &scope);
    show_status(&account, stack, None);
    simulation.run(&account, account.knot(&["clobber", "sweep"]), &clobbers, &scope);
    account.put_data(&["sweep"]);
    simulation.run(&account, account.knot(&["clobber", "sweep"]), &clobbers, &scope);

    let shared = ["--repository", "shared"];
    let scope = [&scope[..], &shared].concat();
    let deploy = |more: &[&str]| {
        let options = ["deploy", "-p", "lone", "--offline", "--fast", "--knot", "sweep", "--pars", "lab"];
        account.knot(&[&options[..], &shared, more].concat())
    };
    let on_fargate = ["--compute", "fargate"];
    simulation.run(&account, with_keys(deploy(&on_fargate), &assumed), &deploys, &scope);
    show_status(&account, stack, Some(("CREATE_COMPLETE", "ROLLBACK_COMPLETE")));
    simulation.run(&account, deploy(&on_fargate), &deploys, &scope);
    simulation.run(&account, account.knot(&["clobber", "sweep"]), &clobbers, &scope);

    account.recorder.override_responses(|request| match request.operation().as_str() {
        "batch POST /v1/describejobqueues" => Some(ResponseOverride::Respond(200, queues(50))),
        "servicequotas ListServiceQuotas" => Some(ResponseOverride::Respond(200, quotas(50))),
        _ => None,
    });
    simulation.run_with_code(&account, deploy(&on_fargate), 7, &deploys, &scope);
    set_quota(&account, 0);
    simulation.run_with_code(&account, deploy(&["--base-image", "debian:12-slim", "--gpus", "1"]), 7, &deploys, &scope);
    simulation.check_needed("deploy and clobber");
}

#[test]
fn other_verbs_are_allowed() {
    let Some(account) = Account::new() else { return };
    let mut simulation = Simulation::of("lab", "sweep");
    check(&mut account.knot(&["pars", "create", "lab", "--bucket", "data"]), 0, &[]);
    check(&mut account.deploy(&account.script(SERVICE_ROLE), &["--pars", "lab"]), 0, &[]);
    let scope = ["--bucket", "data"];
    for verb in [&["list"][..], &["show", "sweep"], &["pars", "list"], &["pars", "show", "lab"]] {
        simulation.run(&account, account.knot(verb), &["show"], &scope);
    }
    let doctor = || {
        let mut command = account.knot(&["doctor", "--pars", "lab"]);
        command.current_dir(STAND_IN.join("lone"));
        command
    };
    simulation.run(&account, with_keys(doctor(), &account.script(USER)), &["doctor"], &scope);
    simulation.run(&account, with_keys(doctor(), &account.script(ASSUMED)), &["doctor"], &scope);
    account.put_data(&["gone"]);
    account.script(&format!("repository, tags = 'cloudknot/sweep', ['0123456789ab']\n{IMAGES}"));
    account.moto.slow_jobs(600);
    account.script(JOB);
    simulation.run(&account, account.knot(&["prune", "--older-than", "0s"]), &["prune"], &scope);
    simulation.run(&account, account.knot(&["prune", "--older-than", "0s", "--yes", "--runs"]), &["prune"], &scope);
    simulation.check_needed("list, show, doctor and prune");
}

#[test]
fn runs_and_jobs_are_allowed() {
    let knot = format!("policies-{:x}", now());
    let Some(cloud) = Cloud::with_worker_recorder(&knot) else { return };
    let (aws, s3) = (Recorder::before(&cloud.moto.url()), Recorder::before(&cloud.s3.url()));
    let Some((trial, _)) = cloud.trial_at(PROGRAM, JobKind::of_suite(), &aws.url(), &s3.url()) else { return };
    let hour = Behavior::Sleep(3_600_000, 1);

    // The log of a job that was killed is in CloudWatch Logs.
    let running = trial.start(&["map", &json(&Spec::of([Behavior::Double(1), hour]))]);
    let run = running.wait_for_run_id();
    trial.signal(&run, "-1-1", Signal::KILL);
    let facts = facts(&running.wait_with_output().stdout);
    assert_eq!(failures(&facts)[&1].kind, "Infrastructure");
    let retried = trial.start(&["retry", &run]);
    let again = retried.wait_for_run_id();
    wait_for("the job of the retry", || {
        let calls = aws.operations();
        (calls.iter().filter(|call| call.ends_with("/v1/submitjob")).count() == 2).then_some(())
    });
    trial.facts(&["cancel", &again]);
    retried.wait_with_output();
    trial.attach(&again);
    let verb =
        |verb: &[&str], code: i32| check(&mut trial.command_of(cargo_knot(), &[&["knot"], verb].concat()), code, &[]);
    verb(&["runs"], 0);
    verb(&["status"], 0);
    verb(&["wait"], 10);
    verb(&["logs"], 0);
    verb(&["cancel", "--yes"], 0);

    let mut simulation = Simulation::of("tests", &knot);
    let prefix = format!("{knot}/");
    let scope = ["--bucket", BUCKET, "--prefix", &prefix];
    let requests = [aws.requests(), s3.requests()].concat();
    simulation.evaluate(&requests, &["run"], &scope);
    let before = s3.requests().len();
    verb(&["clean", "--keep", "0", "--yes"], 0);
    simulation.evaluate(&s3.requests()[before..], &["run", "clean"], &scope);
    // For Knots of all names, which is the default of `cargo knot policy`.
    let mut simulation = simulation.with_patterns("tests", "*");
    simulation.evaluate(&requests, &["run"], &scope);
    simulation.evaluate(&cloud.worker_recorder.as_ref().unwrap().requests(), &["job-role"], &scope);
    simulation.check_needed("runs and jobs");
}

#[test]
fn policy_that_is_too_long_for_iam_is_reported() {
    let further: Vec<String> =
        (0..100).map(|number| format!("--policy=arn:aws:iam::{ACCOUNT}:policy/{number}")).collect();
    let mut policy = Command::new(cargo_knot());
    policy.args(["knot", "policy", "deploy", "--pars", "lab", "--account", ACCOUNT, "--region", REGION]).args(further);
    let expected = "characters, but IAM accepts at most 6144: attach its statements as two policies";
    check(policy.env("CLOUDKNOT_CONFIG", "/nonexistent"), 0, &["warning: the policy has ", expected]);
}
