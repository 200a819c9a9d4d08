//! Knots as a user creates and clobbers them with `cargo knot`, against moto and a real registry: every
//! request is validated on its way, and AWS's own client lists the remaining resources at the end.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use cloudknot_tests::counterparts::{check, run};
use cloudknot_tests::moto::{environment, python};
use cloudknot_tests::recorder::ResponseOverride;
use cloudknot_tests::workspaces::{LONE, STANDING_IN, workspace};
use serde_json::Value;

use crate::account::{Account, SERVICE_ROLE, STAND_IN, json};

/// Script that creates the job definition of an earlier deploy, of a function that the program no longer has.
const OLD_DEFINITION: &str = "
import boto3
boto3.client('batch').register_job_definition(
    jobDefinitionName='cloudknot-sweep_before-0a1b2c3d', type='container', tags={'cloudknot:knot': 'sweep'},
    retryStrategy={'attempts': 1}, containerProperties={'image': 'cloudknot/sweep@sha256:aa', 'resourceRequirements': [
        {'type': 'VCPU', 'value': '1'}, {'type': 'MEMORY', 'value': '64'}]})
";

#[test]
fn knot_lifecycle() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    let deployed = check(
        &mut account.deploy(&role, &[]),
        0,
        &["there is no Pars yet: creating `ada-default`", "creating the stack `cloudknot-knot-sweep`", " sent"],
    );
    let deployed = json(&deployed);
    assert_eq!(deployed["pars"], "ada-default");
    assert_eq!(deployed["job_definitions"].as_object().map(serde_json::Map::len), Some(1));

    let other_home = tempfile::tempdir().unwrap();
    let found = json(&check(&mut account.knot_of(other_home.path(), &["show", "sweep", "--json"]), 0, &[]));
    assert_eq!(found, deployed, "another machine finds the Knot by its name alone");

    let uploads = account.registry.requests("POST ").len();
    let (again, calls) = account.calls(&mut account.deploy(&role, &[]));
    assert_eq!(json(&again), deployed);
    assert!(calls.len() <= 3, "{calls:?}");
    assert_eq!(account.registry.requests("POST ").len(), uploads, "an unchanged image is not uploaded");

    let planned = json(&check(&mut account.deploy(&role, &["--max-vcpus", "128", "--dry-run"]), 0, &[]));
    let kinds: Vec<_> = planned["steps"].as_array().expect("a list").iter().map(|step| step["kind"].clone()).collect();
    assert_eq!(kinds, ["AWS::Batch::ComputeEnvironment"], "the address of the registry is not a change");
    let planned = check(&mut account.deploy(&role, &["--memory", "3 GiB", "--dry-run"]), 0, &[]);
    let steps = json(&planned)["steps"].clone();
    assert_eq!(steps.as_array().map(Vec::len), Some(1), "{steps}");
    assert_eq!(
        [&steps[0]["action"], &steps[0]["kind"]],
        ["change", "AWS::Batch::JobDefinition"].map(Value::from).each_ref()
    );
    let changed = check(&mut account.deploy(&role, &["--memory", "3 GiB"]), 0, &["changing the stack"]);
    let changed = json(&changed);
    assert_eq!(changed["settings"]["memory"], "3 GiB");

    let manifest = LONE.replace("\"lone\"", "\"another\"");
    let files =
        STANDING_IN.iter().map(|(path, text)| (*path, if *path == "lone/Cargo.toml" { &manifest } else { *text }));
    let another = workspace("of another", &files.collect::<Vec<_>>());
    check(
        account.knot(&["deploy", "-p", "another", "--offline", "--fast", "--knot", "sweep"]).current_dir(another),
        8,
        &[
            "error: cannot deploy the Knot `sweep`: it exists with another program, Pars or repository",
            "package: is \"lone\", requested \"another\"",
            "hint: choose another name (--knot)",
        ],
    );
    check(&mut account.knot(&["pars", "clobber", "ada-default"]), 8, &["Knots use it: sweep"]);
    check(
        &mut account.knot(&["deploy", "-p", "lone", "--offline", "--fast", "--pars", "nowhere"]),
        8,
        &["pars create nowhere"],
    );

    let note = std::fs::read_to_string(account.note()).unwrap();
    assert!(note.contains("\"knot\": \"sweep\""), "{note}");
    account.check_no_secrets();

    account.script(OLD_DEFINITION);
    let prune = |age: &str| {
        let found = json(&check(&mut account.knot(&["prune", "--json", "--older-than", age]), 0, &[]));
        let names = found.as_array().expect("a list").iter().map(|one| one["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(prune("1h"), [""; 0], "a recent program may still use the old job definition");
    let found = prune("0s");
    assert!(found.iter().any(|arn| arn.ends_with(":job-definition/cloudknot-sweep_before-0a1b2c3d:1")), "{found:?}");
    let definitions = |knot: &Value| -> Vec<String> {
        let definitions = knot["job_definitions"].as_object().expect("a table");
        definitions.values().map(|arn| arn.as_str().unwrap().to_owned()).collect()
    };
    let (first, current) = (definitions(&deployed), definitions(&changed));
    assert_ne!(first, current);
    assert!(first.iter().all(|arn| found.contains(arn)), "{found:?} lacks {first:?}, which the change has replaced");
    assert!(!current.iter().any(|arn| found.contains(arn)), "{found:?} has {current:?}");

    check(&mut account.knot(&["clobber", "sweep", "--pars"]), 0, &["deleted the Knot `sweep`"]);
    assert!(!account.note().exists(), "the note of the Knot still exists");
    account.check_empty(&["theirs"]);
    check(&mut account.knot(&["clobber", "sweep"]), 8, &["cannot find the Knot `sweep`"]);
    println!("{}", account.recorder.validate());
}

#[test]
fn knot_lifecycle_in_code() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    let mut program = Command::new(env!("CARGO_BIN_EXE_from_code"));
    program.args([STAND_IN.join("lone/Cargo.toml").to_str().expect("the path is UTF-8"), &role]);
    check(account.as_user(&mut program, account.home.path()), 0, &[]);
    account.check_empty(&["theirs"]);
    assert!(!account.note().exists() && !account.home.path().join("runs/image.json").exists());
    println!("{}", account.recorder.validate());
}

/// Script that creates an EFS file system with one mount target, and prints its ID.
const FILE_SYSTEM: &str = "
import boto3
efs = boto3.client('efs')
file_system = efs.create_file_system(CreationToken='data')['FileSystemId']
efs.create_mount_target(FileSystemId=file_system, SubnetId=boto3.client('ec2').describe_subnets()['Subnets'][0]['SubnetId'])
print(file_system)
";

#[test]
fn every_knot_setting_is_valid_in_aws() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    account.script("import boto3; boto3.client('ec2').create_key_pair(KeyName='lab')");
    let secret = "API_KEY=arn:aws:secretsmanager:eu-west-1:123456789012:secret:api-AbCdEf:key::";
    let mount = format!("/data={}", account.script(FILE_SYSTEM));
    let more = [
        "--compute",
        "spot",
        "--bid-percentage",
        "60",
        "--instance-types",
        "m5,c5.large",
        "--min-vcpus",
        "1",
        "--max-vcpus",
        "512",
        "--desired-vcpus",
        "2",
        "--volume-size",
        "200 GiB",
        "--key-pair",
        "lab",
        "--shared-memory",
        "1 GiB",
        "--attempts",
        "5",
        "--vcpus",
        "2",
        "--memory",
        "4 GiB",
        "--policy",
        "AmazonDynamoDBReadOnlyAccess",
        "--tag",
        "Owner=Ada",
        "--env",
        "RUST_LOG=info",
        "--secret",
        secret,
        "--mount",
        &mount,
        "--read-only",
        "--queue-name",
        "theirs",
        "--priority",
        "7",
    ];
    let deployed = json(&check(&mut account.deploy(&role, &more), 0, &[]));
    assert!(deployed["queue"].as_str().unwrap().ends_with("/theirs"), "{deployed}");
    let definition = account.script(
        "import boto3, json; print(json.dumps(boto3.client('batch').describe_job_definitions()['jobDefinitions'][0]))",
    );
    let definition: Value = serde_json::from_str(&definition).unwrap();
    let container = &definition["containerProperties"];
    let image = container["image"].as_str().unwrap();
    let digest = deployed["image"].as_str().unwrap().split_once('@').unwrap().1;
    assert_eq!(
        image,
        format!("{}/cloudknot/sweep@{digest}", account.registry.host()),
        "the image is named by its digest"
    );
    let text = definition.to_string();
    for part in
        ["\"RUST_LOG\"", mount.trim_start_matches("/data="), "secret:api-AbCdEf:key::", "\"attempts\":5", "4096"]
    {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
    check(&mut account.knot(&["clobber", "sweep", "--pars"]), 0, &[]);
    account.check_empty(&["theirs"]);
    println!("{}", account.recorder.validate());
}

/// CloudFormation fetches a template that is too large for a request. The certificate of S3 does not match a host that contains the
/// name of a bucket with dots.
#[test]
fn large_template_is_fetched_from_a_bucket_with_dots() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    check(&mut account.knot(&["pars", "create", "ada-default", "--bucket", "ada.data.lab"]), 0, &[]);
    let large = format!("NOTES={}", "n".repeat(52_000));
    check(&mut account.deploy(&role, &["--env", &large]), 0, &[]);
    let requests = account.recorder.requests();
    let bodies = requests.iter().filter_map(|request| request.body.as_deref());
    let urls: Vec<&str> = bodies
        .filter_map(|body| body.split('&').find_map(|parameter| parameter.strip_prefix("TemplateURL=")))
        .collect();
    let prefix = "https%3A%2F%2Fs3.eu-west-1.amazonaws.com%2Fada.data.lab%2Fstacks%2Fsweep%2F";
    assert!(!urls.is_empty() && urls.iter().all(|url| url.starts_with(prefix)), "{urls:?}");
    check(&mut account.knot(&["clobber", "sweep", "--pars"]), 0, &[]);
    println!("{}", account.recorder.validate());
}

/// Script that submits a job to the queue of the Knot.
pub(crate) const JOB: &str = "
import boto3
batch = boto3.client('batch')
queue = batch.describe_job_queues()['jobQueues'][0]['jobQueueArn']
definition = batch.describe_job_definitions(status='ACTIVE')['jobDefinitions'][0]['jobDefinitionArn']
batch.submit_job(jobName='sweep-1', jobQueue=queue, jobDefinition=definition, tags={'cloudknot:knot': 'sweep'})
";

#[test]
fn jobs_are_not_lost_by_a_change_of_the_queue() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    check(&mut account.deploy(&role, &["--queue-name", "lab"]), 0, &[]);
    let refused = |command: &mut Command, expected: &[&str]| {
        let (before, template) = (account.recorder.operations().len(), "cloudformation UpdateStack".to_owned());
        check(command, 8, expected);
        assert!(!account.recorder.operations()[before..].contains(&template), "the stack was changed");
    };
    let on_fargate = ["deploy", "-p", "lone", "--offline", "--fast", "--knot", "sweep", "--compute", "fargate"];
    let mut same_name = account.knot(&[&on_fargate[..], &["--queue-name", "lab"]].concat());
    refused(
        &mut same_name,
        &["cannot name the queue `lab`: the deployed queue, of another kind of compute, has that name"],
    );
    account.moto.slow_jobs(600);
    account.script(JOB);
    let lost = [
        "cannot change the Knot `sweep`: its queue or compute environment would be replaced, and has 1 jobs",
        "hint: wait for its runs or cancel them; AWS replaces them if the queue's name, the kind of compute, the tags",
    ];
    refused(&mut account.deploy(&role, &["--queue-name", "other"]), &lost);
    refused(&mut account.deploy(&role, &["--queue-name", "lab", "--tag", "Owner=Ada"]), &lost);
    refused(&mut account.knot(&on_fargate), &lost);

    // The job takes a while to end.
    let asked = AtomicUsize::new(0);
    account.recorder.override_responses(move |request| {
        let is_list = request.operation() == "batch POST /v1/listjobs";
        let job = r#"{"jobSummaryList": [{"jobId": "job", "jobName": "job", "status": "RUNNING"}]}"#.to_owned();
        (is_list && (1..3).contains(&asked.fetch_add(1, Ordering::Relaxed)))
            .then_some(ResponseOverride::Respond(200, job))
    });
    let (_, calls) = account.calls(&mut account.knot(&["clobber", "sweep", "--pars"]));
    let lists =
        calls.iter().take_while(|call| *call != "cloudformation DeleteStack").filter(|call| call.ends_with("listjobs"));
    assert_eq!(lists.count(), 4, "the stack is deleted once the job has ended: {calls:?}");
}

#[test]
fn resumed_clobber_deletes_only_its_own_knot() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    let keep = ["clobber", "sweep", "--keep-data"];
    let deploy = || {
        check(&mut account.deploy(&role, &[]), 0, &[]);
        account.put_data(&["sweep", "sweep-big"]);
    };
    deploy();
    let (_, calls) = account.calls(&mut account.knot(&keep));
    let deleted = calls.iter().position(|call| call == "cloudformation DeleteStack").expect("its stack is deleted");
    deploy();
    account.recorder.stop_after(deleted as u64 + 1);
    let mut first = account.knot(&keep).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(account.recorder.is_held_before_exit(&mut first));
    kill(&mut first);
    account.recorder.go_on();

    let knots_with_data = || account.knots_with_data();
    let other = "definitions/sweep-big";
    let all = "knots/sweep knots/sweep-big stacks/sweep stacks/sweep-big";
    assert_eq!(knots_with_data(), format!("{all} definitions/sweep {other}"));
    check(&mut account.knot(&keep), 0, &["the remaining job definitions of the Knot `sweep`"]);
    assert_eq!(knots_with_data(), format!("{all} {other}"), "data is kept");
    check(&mut account.knot(&["clobber", "swee", "--pars"]), 8, &["cannot find the Knot `swee`"]);
    assert_eq!(knots_with_data(), format!("{all} {other}"), "no Knot has this name");
    check(&mut account.knot(&["clobber", "sweep"]), 0, &[]);
    assert_eq!(knots_with_data(), format!("knots/sweep-big stacks/sweep-big {other}"));
    assert_eq!(account.remaining()["stacks"], Value::from(vec!["cloudknot-pars-ada-default"]));

    // A Pars that was created since then is a different one.
    check(&mut account.knot(&["pars", "clobber", "ada-default"]), 0, &[]);
    check(&mut account.knot(&["pars", "create", "ada-default"]), 0, &[]);
    check(&mut account.knot(&["clobber", "sweep", "--pars"]), 8, &["cannot find the Knot `sweep`"]);
    assert_eq!(account.remaining()["stacks"], Value::from(vec!["cloudknot-pars-ada-default"]));
    println!("{}", account.recorder.validate());
}

pub(crate) fn kill(process: &mut Child) {
    // The process may have ended already.
    let _ = process.kill();
    process.wait().unwrap();
}

#[test]
fn partial_stack_can_be_clobbered() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    let (_, calls) = account.calls(&mut account.deploy(&role, &[]));
    check(&mut account.knot(&["clobber", "sweep", "--pars"]), 0, &[]);
    // After the repository is created, and before the other resources are.
    let before = calls.iter().position(|call| call == "ecr GetAuthorizationToken").expect("a deploy logs in");
    account.recorder.stop_after(before as u64);
    let mut deploy = account.deploy(&role, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(account.recorder.is_held_before_exit(&mut deploy));
    kill(&mut deploy);
    account.recorder.go_on();
    assert_eq!(account.remaining()["repositories"], Value::from(vec!["cloudknot/sweep"]));
    check(&mut account.knot(&["show", "sweep"]), 8, &["its last deploy did not finish"]);
    check(&mut account.knot(&["clobber", "sweep", "--pars"]), 0, &["deleted the Knot `sweep`"]);
    account.check_empty(&["theirs"]);
    check(&mut account.knot(&["clobber", "sweep", "--pars"]), 8, &["cannot find the Knot `sweep`"]);
}

#[test]
fn clobber_keeps_data_on_request() {
    let Some(account) = Account::new() else { return };
    let created = json(&check(&mut account.knot(&["pars", "create", "lab", "--json"]), 0, &[]));
    let bucket = created["bucket"].as_str().unwrap();
    let put = format!("import boto3; boto3.client('s3').put_object(Bucket='{bucket}', Key='knots/a b/', Body=b'1')");
    account.script(&put);
    let other = ["pars", "create", "other", "--bucket", bucket];
    check(&mut account.knot(&other), 0, &[]);
    check(&mut account.knot(&["pars", "clobber", "lab"]), 8, &["others have runs in its bucket: other"]);
    check(&mut account.knot(&["pars", "clobber", "other"]), 0, &[]);
    assert_eq!(
        account.remaining()["buckets"],
        Value::from(vec![bucket]),
        "a bucket that is older than a Pars survives it"
    );
    check(&mut account.knot(&["pars", "clobber", "lab", "--keep-data"]), 0, &["changing the stack"]);
    let check_remaining = || {
        let remaining = account.remaining();
        assert_eq!(remaining["buckets"], Value::from(vec![bucket]));
        assert_eq!(remaining["logs"], Value::from(vec!["/cloudknot/lab"]));
        assert_eq!(remaining["stacks"], Value::from(Vec::<Value>::new()));
    };
    check_remaining();
    // A new Pars of the same name uses both, and does not delete what it has not created.
    let again = ["pars", "create", "lab", "--bucket", bucket];
    check(&mut account.knot(&again), 0, &["the log group `/cloudknot/lab` exists already, and is used unchanged"]);
    let shown = check(&mut account.knot(&["pars", "show", "lab"]), 0, &[]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("/cloudknot/lab"), "{shown:?}");
    check(&mut account.knot(&["pars", "clobber", "lab"]), 0, &[]);
    check_remaining();
    let key = account.script(&format!(
        "import boto3; print(boto3.client('s3').list_objects_v2(Bucket='{bucket}')['Contents'][0]['Key'])"
    ));
    assert_eq!(key, "knots/a b/");
}

#[test]
fn explicit_profile_overrides_environment_keys() {
    let Some(account) = Account::new() else { return };
    let keys = account.home.path().join("keys");
    std::fs::write(&keys, "[other]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = other\n").unwrap();
    let mut list = account.knot(&["list", "--aws-profile", "other"]);
    check(list.env("AWS_SHARED_CREDENTIALS_FILE", &keys), 0, &[]);
    let requests = account.recorder.requests();
    let signed =
        requests.last().expect("a request was sent").headers.iter().find(|(name, _)| name.as_str() == "authorization");
    assert!(signed.is_some_and(|(_, value)| value.contains("Credential=AKIAOTHER/")), "{signed:?}");
}

#[test]
fn concurrent_deploys_converge() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    check(&mut account.knot(&["pars", "create"]), 0, &[]);
    let deploy = || account.deploy(&role, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let both = [deploy(), deploy()].map(|deploy| deploy.wait_with_output().unwrap());
    for output in &both {
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || errors.contains("hint: "), "{errors}");
    }
    assert!(both.iter().any(|output| output.status.success()), "no deploy succeeded");
    let found = json(&check(&mut account.knot(&["show", "sweep", "--json"]), 0, &[]));
    assert_eq!(found["job_definitions"].as_object().map(serde_json::Map::len), Some(1));
    check(&mut account.deploy(&role, &[]), 0, &["the Knot `sweep` exists, and nothing has changed"]);
}

#[test]
fn injected_faults_are_retried_with_a_note() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    account.recorder.inject_faults(7, 20);
    let deployed = check(&mut account.deploy(&role, &[]), 0, &["retrying in"]);
    assert_eq!(json(&deployed)["knot"], "sweep");
    account.recorder.inject_faults(0, 0);
    check(&mut account.knot(&["clobber", "sweep", "--pars"]), 0, &[]);
    account.check_empty(&["theirs"]);
}

#[test]
fn configure_stores_choices_without_secrets() {
    let Some(account) = Account::new() else { return };
    let profiles = account.home.path().join("aws");
    std::fs::write(&profiles, "[profile lab]\nregion = eu-central-1\n[profile other]\nregion = us-east-1\n").unwrap();
    let configure = |arguments: &[&str]| {
        let mut command = account.knot(&[&["configure", "--json"], arguments].concat());
        command.env("AWS_CONFIG_FILE", &profiles);
        json(&check(&mut command, 0, &[]))
    };
    let shown = configure(&["--profile", "lab", "--region", "eu-north-1", "--pars", "shared"]);
    assert_eq!(shown["profiles"], Value::from(vec!["lab", "other"]));
    let text = std::fs::read_to_string(account.home.path().join("config.toml")).unwrap();
    assert_eq!(text, "profile = \"lab\"\nregion = \"eu-north-1\"\npars = \"shared\"\n");
    assert_eq!(configure(&["--region", ""])["choices"]["region"], Value::Null);
    let mut show = account.knot(&["pars", "show"]);
    show.env("AWS_CONFIG_FILE", &profiles).env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
    check(&mut show, 8, &["cannot find the Pars `shared` in eu-central-1"]);
}

/// Script that stores objects of several owners, assumes a role with the job role's policies, and prints the keys of
/// that role. It is another role, because moto stores a policy from CloudFormation in the notation of Python instead of
/// JSON, and cannot read it itself.
const ASSUME_ROLE: &str = "
import ast, boto3, json, sys
s3, iam = boto3.client('s3'), boto3.client('iam')
like = iam.create_role(RoleName='like-a-job', AssumeRolePolicyDocument='{}')['Role']['Arn']
role = sys.argv[2].rsplit('/')[-1]
for name in iam.list_role_policies(RoleName=role)['PolicyNames']:
    document = ast.literal_eval(iam.get_role_policy(RoleName=role, PolicyName=name)['PolicyDocument'])
    iam.put_role_policy(RoleName='like-a-job', PolicyName=name, PolicyDocument=json.dumps(document))
for key in ['knots/sweep/runs/r/inputs', 'knots/other/runs/r/inputs', 'elsewhere']:
    s3.put_object(Bucket=sys.argv[1], Key=key, Body=b'1')
keys = boto3.client('sts').assume_role(RoleArn=like, RoleSessionName='job')['Credentials']
print(json.dumps([keys['AccessKeyId'], keys['SecretAccessKey'], keys['SessionToken']]))
";

/// Script that prints, as JSON, which requests S3 allows the role of a job.
const ALLOWED_REQUESTS: &str = "
import boto3, json, sys
from botocore.exceptions import ClientError
s3, bucket = boto3.client('s3'), sys.argv[1]
def allowed(what):
    try:
        what()
        return True
    except ClientError as error:
        assert error.response['Error']['Code'] in ('AccessDenied', '403'), error
        return False
get = lambda key: allowed(lambda: s3.get_object(Bucket=bucket, Key=key))
put = lambda key: allowed(lambda: s3.put_object(Bucket=bucket, Key=key, Body=b'2'))
print(json.dumps([
    get('knots/sweep/runs/r/inputs'), put('knots/sweep/runs/r/results/0-1'),
    get('knots/other/runs/r/inputs'), put('knots/other/runs/r/results/0-1'), get('elsewhere'), put('elsewhere'),
    allowed(lambda: s3.delete_object(Bucket=bucket, Key='knots/sweep/runs/r/inputs')),
    allowed(lambda: s3.delete_bucket(Bucket=bucket)), allowed(lambda: s3.list_buckets()),
]))
";

#[test]
fn job_role_can_access_only_its_own_runs() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    let deployed = json(&check(&mut account.deploy(&role, &[]), 0, &[]));
    let pars = json(&check(&mut account.knot(&["pars", "show", "--json"]), 0, &[]));
    let (bucket, role) = (pars["bucket"].as_str().unwrap(), deployed["job_role"].as_str().unwrap());
    let keys = account.script_with(ASSUME_ROLE, &[bucket, role]);
    let [key, secret, token]: [String; 3] = serde_json::from_str(&keys).unwrap();
    account.moto.turn_on_iam();
    let mut job = Command::new(python().expect("moto is installed"));
    job.args(["-c", ALLOWED_REQUESTS, bucket]).envs(environment(&account.moto.url()));
    job.envs([("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret), ("AWS_SESSION_TOKEN", token)]);
    let allowed: Vec<bool> = serde_json::from_str(&run(&mut job)).unwrap();
    assert_eq!(allowed, [true, true, false, false, false, false, false, false, false]);
}
