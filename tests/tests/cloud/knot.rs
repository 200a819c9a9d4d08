//! Pars and Knots as a user creates and clobbers them with `cargo knot`, against moto and a real registry: every
//! request is checked on its way, and AWS's own client counts what is left at the end.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use cloudknot_tests::counterparts::{check, run};
use cloudknot_tests::moto::{REGION, environment, python};
use cloudknot_tests::recorder::{Instead, Seen};
use cloudknot_tests::workspaces::{LONE, STANDING_IN, workspace};
use serde_json::Value;

use crate::account::{Account, SERVICE_ROLE, STAND_IN, USER, json, text};

/// Script that creates the job definition that an earlier deploy has left, of a function that the program no longer
/// has.
const OF_BEFORE: &str = "
import boto3
boto3.client('batch').register_job_definition(
    jobDefinitionName='cloudknot-sweep-before-0a1b2c3d', type='container', tags={'cloudknot:knot': 'sweep'},
    retryStrategy={'attempts': 1}, containerProperties={'image': 'cloudknot/sweep@sha256:aa', 'resourceRequirements': [
        {'type': 'VCPU', 'value': '1'}, {'type': 'MEMORY', 'value': '64'}]})
";

/// Script that creates a subnet of the user's own in the default VPC, without public addresses, and prints the IDs of
/// those that AWS has created.
const BESIDE: &str = "
import boto3
ec2 = boto3.client('ec2')
vpc = next(v['VpcId'] for v in ec2.describe_vpcs()['Vpcs'] if v['IsDefault'])
subnets = ec2.describe_subnets(Filters=[{'Name': 'vpc-id', 'Values': [vpc]}])['Subnets']
ec2.create_subnet(VpcId=vpc, CidrBlock='172.31.240.0/24')
print(*sorted(s['SubnetId'] for s in subnets if s['DefaultForAz']))
";

#[test]
fn pars_lifecycle() {
    let Some(account) = Account::new() else { return };
    let create = ["pars", "create", "lab", "--tag", "Owner=Ada", "--json"];
    let planned = check(&mut account.knot(&["pars", "create", "lab", "--dry-run"]), 0, &[]);
    let planned = String::from_utf8(planned.stdout).unwrap();
    assert!(planned.contains("stack cloudknot-pars-lab\n  + Bucket (AWS::S3::Bucket)\n"), "{planned}");
    account.check_empty(&[]);

    let made = json(&check(&mut account.knot(&create), 0, &["creating the stack `cloudknot-pars-lab`"]));
    let elsewhere = tempfile::tempdir().unwrap();
    let found = json(&check(&mut account.knot_of(elsewhere.path(), &["pars", "show", "lab", "--json"]), 0, &[]));
    assert_eq!(found, made, "another machine finds it by its name alone");
    let listed = json(&check(&mut account.knot(&["pars", "list", "--json"]), 0, &[]));
    assert_eq!(listed, Value::from(vec![made.clone()]));

    let (again, calls) = account.calls(&mut account.knot(&create));
    assert_eq!((json(&again), calls), (made.clone(), vec!["cloudformation DescribeStacks".to_owned()]));
    check(
        &mut account.knot(&["pars", "create", "lab", "--tag", "Owner=Grace", "--expire-runs", "7"]),
        8,
        &[
            "error: cannot create the Pars `lab`: it exists with other settings",
            "expire-runs: is 30, requested 7",
            "tags.Owner: is \"Ada\", requested \"Grace\"",
            "hint: ",
        ],
    );
    let bucket = made["bucket"].as_str().unwrap();
    account
        .script(&format!("import boto3; boto3.client('s3').put_object(Bucket='{bucket}', Key='knots/a/b', Body=b'1')"));
    check(&mut account.knot(&["pars", "clobber", "lab"]), 0, &["emptying the bucket", "the Pars `lab` is gone"]);
    account.check_empty(&[]);
    check(&mut account.knot(&["pars", "show", "lab"]), 8, &["cannot find the Pars `lab` in", "cargo knot pars list"]);
    println!("{}", account.recorder.validate());
}

#[test]
fn clobber_keeps_preexisting_resources() {
    let Some(account) = Account::new() else { return };
    account.script(&format!(
        "import boto3\n\
         boto3.client('s3').create_bucket(Bucket='of-the-lab', CreateBucketConfiguration={{'LocationConstraint': '{REGION}'}})\n\
         boto3.client('iam').create_role(RoleName='instances', AssumeRolePolicyDocument='{{}}')\n\
         boto3.client('iam').create_role(RoleName='starter', AssumeRolePolicyDocument='{{}}')"
    ));
    let create = [
        "pars",
        "create",
        "lab",
        "--bucket",
        "of-the-lab",
        "--prefix",
        "team",
        "--instance-role",
        "instances",
        "--execution-role",
        "starter",
        "--json",
    ];
    let made = json(&check(&mut account.knot(&create), 0, &[]));
    assert_eq!(
        [&made["bucket"], &made["prefix"], &made["instance_role"]],
        ["of-the-lab", "team/", "instances"].map(Value::from).each_ref()
    );
    check(&mut account.knot(&["pars", "clobber", "lab"]), 0, &[]);
    let left = account.left();
    assert_eq!(left["buckets"], Value::from(vec!["of-the-lab"]));
    assert_eq!(left["roles"], Value::from(vec!["instances", "starter"]));
    let absent = ["pars", "create", "lab", "--instance-role", "nobody"];
    check(&mut account.knot(&absent), 8, &["cannot find the role `nobody`", "hint: give the name of a role"]);
    println!("{}", account.recorder.validate());
}

#[test]
fn invalid_settings_create_nothing() {
    let Some(account) = Account::new() else { return };
    let refused = |arguments: &[&str], says: &[&str]| {
        check(&mut account.knot(arguments), 2, says);
    };
    refused(&["pars", "create", "1st"], &["invalid Pars name `1st`"]);
    refused(&["pars", "create", "lab", "--cidr", "10.0.0.0/8"], &["must be from /16 to /28"]);
    refused(&["pars", "create", "lab", "--log-retention", "8"], &["hint: use 14"]);
    refused(&["pars", "create", "lab", "--tag", "aws:x=1"], &["are reserved"]);
    let deploy = |more: &[&str], says: &[&str]| {
        let deploy = ["deploy", "-p", "lone", "--offline", "--fast"];
        refused(&[&deploy, more].concat(), says);
    };
    deploy(&["--knot", "-x-"], &["unexpected argument"]);
    deploy(&["--knot", "x-"], &["invalid Knot name `x-`"]);
    deploy(&["--memory", "8"], &["`8` has no unit"]);
    deploy(&["--attempts", "11"], &["must be from 1 to 10"]);
    deploy(&["--compute", "fargate", "--ami", "ami-1"], &["Fargate has no instances"]);
    deploy(&["--bid-percentage", "60"], &["it is for `compute = \"spot\"` only"]);
    deploy(&["--secret", "KEY=somewhere"], &["invalid secret `somewhere`"]);
    deploy(&["--ephemeral-storage", "50 GiB"], &["it is for Fargate only"]);
    let trusting = ["deploy", "-p", "lone", "--offline", "--fast", "--ca-bundle", "nowhere.pem"];
    check(&mut account.knot(&trusting), 5, &["nowhere.pem"]);
    assert!(account.recorder.operations().is_empty(), "no request was sent");
    deploy(&["--compute", "fargate", "--gpus", "1"], &["it requests GPUs, which Fargate does not have"]);
    deploy(&["--memory", "9000 GiB", "--instance-types", "m5.large"], &["(m5.large) has 8192 MiB"]);
    deploy(&["--instance-types", "z9.large"], &["z9.large"]);
    let broken = ["deploy", "-p", "odd", "--example", "broken", "--offline", "--fast"];
    check(&mut account.knot(&broken), 101, &["this_does_not_exist", "caused by: cargo ended"]);
    check(&mut account.knot(&["deploy", "-p", "odd", "--offline", "--fast"]), 4, &["cannot find a remote function"]);
    let left = account.left();
    assert_eq!(left["repositories"], Value::from(Vec::<Value>::new()), "nothing of a Knot was made");
}

#[test]
fn knot_lifecycle() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    let made = check(
        &mut account.deploy(&role, &[]),
        0,
        &["there is no Pars yet: creating `ada-default`", "creating the stack `cloudknot-knot-sweep`", " sent"],
    );
    let made = json(&made);
    assert_eq!(made["pars"], "ada-default");
    assert_eq!(made["job_definitions"].as_object().map(serde_json::Map::len), Some(1));

    let elsewhere = tempfile::tempdir().unwrap();
    let found = json(&check(&mut account.knot_of(elsewhere.path(), &["show", "sweep", "--json"]), 0, &[]));
    assert_eq!(found, made, "another machine finds it by its name alone");

    let uploads = account.registry.requests("POST ").len();
    let (again, calls) = account.calls(&mut account.deploy(&role, &[]));
    assert_eq!(json(&again), made);
    assert!(calls.len() <= 3, "{calls:?}");
    assert_eq!(account.registry.requests("POST ").len(), uploads, "nothing is uploaded");

    let planned = json(&check(&mut account.deploy(&role, &["--max-vcpus", "128", "--dry-run"]), 0, &[]));
    let kinds: Vec<_> = planned["steps"].as_array().expect("a list").iter().map(|step| step["kind"].clone()).collect();
    assert_eq!(kinds, ["AWS::Batch::ComputeEnvironment"], "what the registry is does not count");
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
            "error: cannot deploy the Knot `sweep`: one of this name belongs to something else",
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

    account.script(OF_BEFORE);
    let prune = |age: &str| {
        let found = json(&check(&mut account.knot(&["prune", "--json", "--older-than", age]), 0, &[]));
        let names = found.as_array().expect("a list").iter().map(|one| one["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(prune("1h"), [""; 0], "somebody may have deployed before, and still name it");
    let found = prune("0s");
    assert!(found.iter().any(|arn| arn.ends_with(":job-definition/cloudknot-sweep-before-0a1b2c3d:1")), "{found:?}");
    let of = |knot: &Value| -> Vec<String> {
        let definitions = knot["job_definitions"].as_object().expect("a table");
        definitions.values().map(|arn| arn.as_str().unwrap().to_owned()).collect()
    };
    let (first, current) = (of(&made), of(&changed));
    assert_ne!(first, current);
    assert!(first.iter().all(|arn| found.contains(arn)), "{found:?} lacks {first:?}, which the change has replaced");
    assert!(!current.iter().any(|arn| found.contains(arn)), "{found:?} has {current:?}");

    check(&mut account.knot(&["clobber", "sweep", "--pars"]), 0, &["the Knot `sweep` is gone"]);
    assert!(!account.note().exists(), "maps run here again");
    account.check_empty(&["theirs"]);
    check(&mut account.knot(&["clobber", "sweep"]), 8, &["cannot find the Knot `sweep`"]);
    println!("{}", account.recorder.validate());
}

#[test]
fn code_can_do_it_all_with_any_executor() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    let mut program = Command::new(env!("CARGO_BIN_EXE_from_code"));
    program.args([STAND_IN.join("lone/Cargo.toml").to_str().expect("a path is text"), &role]);
    check(account.as_person(&mut program, account.home.path()), 0, &[]);
    account.check_empty(&["theirs"]);
    assert!(!account.note().exists() && !account.home.path().join("runs/image.json").exists());
    println!("{}", account.recorder.validate());
}

#[test]
fn every_setting_of_a_knot_is_one_that_aws_knows() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    account.script("import boto3; boto3.client('ec2').create_key_pair(KeyName='lab')");
    let secret = "API_KEY=arn:aws:secretsmanager:eu-west-1:123456789012:secret:api-AbCdEf:key::";
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
        "/data=fs-0123456789abcdef0",
        "--read-only",
        "--queue-name",
        "theirs",
        "--priority",
        "7",
    ];
    let made = json(&check(&mut account.deploy(&role, &more), 0, &[]));
    assert!(made["queue"].as_str().unwrap().ends_with("/theirs"), "{made}");
    let definition = account.script(
        "import boto3, json; print(json.dumps(boto3.client('batch').describe_job_definitions()['jobDefinitions'][0]))",
    );
    let definition: Value = serde_json::from_str(&definition).unwrap();
    let container = &definition["containerProperties"];
    let image = container["image"].as_str().unwrap();
    let digest = made["image"].as_str().unwrap().split_once('@').unwrap().1;
    assert_eq!(image, format!("{}/cloudknot/sweep@{digest}", account.registry.host()), "by its digest");
    let text = definition.to_string();
    for part in ["\"RUST_LOG\"", "fs-0123456789abcdef0", "secret:api-AbCdEf:key::", "\"attempts\":5", "4096"] {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
    check(&mut account.knot(&["clobber", "sweep", "--pars"]), 0, &[]);
    account.check_empty(&["theirs"]);
    println!("{}", account.recorder.validate());
}

#[test]
fn a_clobber_that_goes_on_takes_only_what_is_the_knots_own() {
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
    assert!(account.recorder.is_held_before_the_end_of(&mut first));
    kill(&mut first);
    account.recorder.go_on();

    let whose = || account.whose();
    let of_another = "definitions/sweep-big";
    let all = "knots/sweep knots/sweep-big stacks/sweep stacks/sweep-big";
    assert_eq!(whose(), format!("{all} definitions/sweep {of_another}"));
    check(&mut account.knot(&keep), 0, &["the remaining job definitions of the Knot `sweep`"]);
    assert_eq!(whose(), format!("{all} {of_another}"), "data is kept");
    check(&mut account.knot(&["clobber", "swee", "--pars"]), 8, &["cannot find the Knot `swee`"]);
    assert_eq!(whose(), format!("{all} {of_another}"), "nobody is called so");
    check(&mut account.knot(&["clobber", "sweep"]), 0, &[]);
    assert_eq!(whose(), format!("knots/sweep-big stacks/sweep-big {of_another}"));
    assert_eq!(account.left()["stacks"], Value::from(vec!["cloudknot-pars-ada-default"]));

    // A Pars that was created since then is a different one.
    check(&mut account.knot(&["pars", "clobber", "ada-default"]), 0, &[]);
    check(&mut account.knot(&["pars", "create", "ada-default"]), 0, &[]);
    check(&mut account.knot(&["clobber", "sweep", "--pars"]), 8, &["cannot find the Knot `sweep`"]);
    assert_eq!(account.left()["stacks"], Value::from(vec!["cloudknot-pars-ada-default"]));
    println!("{}", account.recorder.validate());
}

#[test]
fn jobs_in_the_default_vpc_run_in_the_subnets_that_aws_has_made() {
    let Some(account) = Account::new() else { return };
    let made_with_it = account.script(BESIDE);
    let made = check(
        &mut account.knot(&["pars", "create", "lab", "--json"]),
        0,
        &["runs in it are deleted after 30 days (--expire-runs)"],
    );
    let mut subnets: Vec<String> = serde_json::from_value(json(&made)["subnets"].clone()).unwrap();
    subnets.sort();
    assert_eq!(subnets.join(" "), made_with_it);
    let again = check(&mut account.knot(&["pars", "create", "lab"]), 0, &["is up to date"]);
    assert!(!String::from_utf8_lossy(&again.stderr).contains("deleted after"), "that is known by now");
    let for_ever = check(&mut account.knot(&["pars", "create", "other", "--expire-runs", "0"]), 0, &[]);
    assert!(!String::from_utf8_lossy(&for_ever.stderr).contains("deleted after"));
}

/// Returns those of these requests that create something.
fn made(calls: &[String]) -> Vec<&String> {
    let makes = |call: &&String| {
        ["Create", "/create", "Put", "Register", "/register", "Update"].iter().any(|word| call.contains(word))
    };
    calls.iter().filter(makes).collect()
}

#[test]
fn settings_that_aws_rejects_create_nothing() {
    let Some(account) = Account::new() else { return };
    let refused = |command: &mut Command, code: i32, says: &[&str]| {
        let before = account.recorder.operations().len();
        check(command, code, says);
        let calls = account.recorder.operations().split_off(before);
        assert!(made(&calls).is_empty() && !calls.is_empty(), "{calls:?}");
        calls
    };
    let bucket = |status: u16, says: &[&str]| {
        account.recorder.instead(move |seen| (seen.method == "HEAD").then(|| Instead::Answer(status, String::new())));
        refused(&mut account.knot(&["pars", "create", "lab", "--bucket", "taken"]), 8, says);
    };
    bucket(403, &["error: cannot use the bucket `taken`: it belongs to another account", "hint: choose another name"]);
    bucket(301, &["error: cannot use the bucket `taken`: it is in another region", "hint: choose another name"]);

    let key = account.script(USER);
    let (id, secret) = key.split_once(' ').expect("the script prints both");
    account.recorder.instead(|seen| {
        (seen.operation() == "iam SimulatePrincipalPolicy").then(|| Instead::Answer(200, denied(seen)))
    });
    let as_ada = |mut command: Command| {
        command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
        command
    };
    let calls = refused(
        &mut as_ada(account.knot(&["pars", "create", "lab"])),
        7,
        &[
            "error: permission denied: `arn:aws:iam::123456789012:user/ada` lacks cloudformation:CreateStack, iam:CreateRole",
            "hint: ask an administrator to grant it: `cargo knot policy pars-create` prints the policy; nothing was created",
        ],
    );
    assert_eq!(calls.last().map(String::as_str), Some("iam SimulatePrincipalPolicy"));
    account.check_empty(&[]);

    account.recorder.as_it_is();
    check(&mut account.knot(&["pars", "create"]), 0, &[]);
    let role = account.script(SERVICE_ROLE);
    account.recorder.instead(|seen| {
        (seen.operation() == "iam SimulatePrincipalPolicy").then(|| Instead::Answer(200, denied(seen)))
    });
    refused(
        &mut as_ada(account.deploy(&role, &[])),
        7,
        &[
            "lacks batch:CreateJobQueue, batch:RegisterJobDefinition, cloudformation:CreateStack",
            "`cargo knot policy deploy`",
        ],
    );
    // Who may only read can still see what a deploy would change, and print the template.
    let planned = text(check(&mut as_ada(account.deploy(&role, &["--dry-run"])), 0, &[]));
    assert!(planned.contains("lacks batch:CreateJobQueue"), "{planned}");
    let planned = text(check(&mut as_ada(account.knot(&["pars", "create", "other", "--dry-run"])), 0, &[]));
    assert!(planned.contains("lacks cloudformation:CreateStack"), "{planned}");
    let template =
        ["template", "knot", "-p", "lone", "--offline", "--fast", "--knot", "sweep", "--service-role", &role];
    let template = text(check(&mut as_ada(account.knot(&template)), 0, &[]));
    assert!(template.contains("AWS::Batch::JobQueue"), "{template}");
    account.recorder.instead(|seen| match seen.operation().as_str() {
        "iam SimulatePrincipalPolicy" => Some(Instead::Answer(200, denied(seen))),
        "batch POST /v1/describejobqueues" => Some(Instead::Answer(200, queues(50))),
        "servicequotas ListServiceQuotas" => Some(Instead::Answer(200, quotas(50))),
        _ => None,
    });
    refused(
        &mut as_ada(account.deploy(&role, &["--dry-run"])),
        7,
        &["error: job queue quota exceeded: 50 of 50 in use"],
    );

    let full = |most: u32| {
        account.recorder.instead(move |seen| match seen.operation().as_str() {
            "batch POST /v1/describejobqueues" => Some(Instead::Answer(200, queues(50))),
            "servicequotas ListServiceQuotas" => Some(Instead::Answer(200, quotas(most))),
            _ => None,
        });
    };
    full(50);
    refused(
        &mut account.deploy(&role, &[]),
        7,
        &["error: job queue quota exceeded: 50 of 50 in use", "hint: clobber unused Knots (`cargo knot list`)"],
    );
    assert_eq!(account.left()["stacks"], Value::from(vec!["cloudknot-pars-ada-default"]));
    // A quota can have been raised.
    full(51);
    check(&mut account.deploy(&role, &[]), 0, &["creating the stack `cloudknot-knot-sweep`"]);
    println!("{}", account.recorder.validate());
}

/// Script that creates this many more networks, addresses, and gateways in the first zone.
const NETWORKS: &str = "
import boto3, sys
ec2 = boto3.client('ec2')
zone = min(z['ZoneName'] for z in ec2.describe_availability_zones()['AvailabilityZones'])
subnet = ec2.describe_subnets(Filters=[{'Name': 'availability-zone', 'Values': [zone]}])['Subnets'][0]['SubnetId']
for _ in range(networks):
    ec2.create_vpc(CidrBlock='10.9.0.0/16')
for _ in range(addresses):
    ec2.allocate_address(Domain='vpc')
for _ in range(gateways):
    ec2.create_nat_gateway(SubnetId=subnet, ConnectivityType='private')
print(zone)
";

#[test]
fn network_over_a_quota_creates_nothing() {
    let Some(account) = Account::new() else { return };
    let more = |networks: u32, addresses: u32, gateways: u32| {
        account.script(&format!("networks, addresses, gateways = {networks}, {addresses}, {gateways}\n{NETWORKS}"))
    };
    let create = ["pars", "create", "lab", "--cidr", "10.0.0.0/16", "--internet", "nat"];
    let refused = |says: &[&str]| {
        let before = account.recorder.operations().len();
        check(&mut account.knot(&create), 7, says);
        check(&mut account.knot(&[&create[..], &["--dry-run"]].concat()), 7, says);
        let calls = account.recorder.operations().split_off(before);
        assert!(made(&calls).is_empty(), "{calls:?}");
    };
    let zone = more(0, 0, 5);
    refused(&[
        &format!("error: NAT gateway quota exceeded: 5 of 5 in use in {zone}"),
        "hint: delete unused ones, request an increase in Service Quotas (vpc, L-FE5A380F), or avoid the NAT gateway",
    ]);
    more(0, 5, 0);
    refused(&["elastic address quota exceeded: 5 of 5 in use in eu-west-1", "(ec2, L-0263D0A3)"]);
    // Five with the default one.
    more(4, 0, 0);
    refused(&["VPC quota exceeded: 5 of 5 in use in eu-west-1", "(vpc, L-F678F1CE), or use an existing VPC: --vpc"]);
    account.check_empty(&[]);
    account.recorder.instead(|seen| {
        let quota = serde_json::json!({"Quota": {"Value": 6.0}}).to_string();
        (seen.operation() == "servicequotas GetServiceQuota").then_some(Instead::Answer(200, quota))
    });
    check(&mut account.knot(&[&create[..], &["--dry-run"]].concat()), 0, &[]);
    println!("{}", account.recorder.validate());
}

/// Returns IAM's answer that none of the requested actions is allowed.
fn denied(seen: &Seen) -> String {
    let form = seen.body.as_deref().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let actions =
        form.filter(|(name, _)| name.starts_with("ActionNames.")).map(|(_, action)| action.replace("%3A", ":"));
    let result = |action: String| {
        format!("<member><EvalActionName>{action}</EvalActionName><EvalDecision>implicitDeny</EvalDecision></member>")
    };
    let results = actions.map(result).collect::<Vec<_>>().concat();
    let results = format!("<EvaluationResults>{results}</EvaluationResults><IsTruncated>false</IsTruncated>");
    let namespace = "https://iam.amazonaws.com/doc/2010-05-08/";
    format!(
        "<SimulatePrincipalPolicyResponse xmlns=\"{namespace}\"><SimulatePrincipalPolicyResult>{results}\
         </SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"
    )
}

fn queues(count: usize) -> String {
    let queue = |number| {
        serde_json::json!({
            "jobQueueName": format!("q{number}"), "jobQueueArn": format!("arn:q{number}"), "state": "ENABLED", "priority": 1,
            "computeEnvironmentOrder": [],
        })
    };
    serde_json::json!({"jobQueues": (0..count).map(queue).collect::<Vec<_>>()}).to_string()
}

fn quotas(most: u32) -> String {
    let quota = |name: &str| serde_json::json!({"QuotaName": name, "Value": f64::from(most)});
    serde_json::json!({"Quotas": [quota("Job queues per environment"), quota("Job queue limit")]}).to_string()
}

/// Returns CloudFormation's event for a resource that failed while its stack was created.
fn failed(resource: &str, kind: &str, reason: &str) -> String {
    format!(
        "<member><EventId>{resource}</EventId><StackId>s</StackId><StackName>n</StackName><Timestamp>2026-01-01T00:00:00Z\
         </Timestamp><LogicalResourceId>{resource}</LogicalResourceId><PhysicalResourceId/><ResourceType>{kind}\
         </ResourceType><ResourceStatus>CREATE_FAILED</ResourceStatus><ResourceStatusReason>{reason}\
         </ResourceStatusReason></member>"
    )
}

#[test]
fn a_stack_that_fails_shows_what_failed_first_and_is_made_anew() {
    let Some(account) = Account::new() else { return };
    // Until it is deleted, the stack looks like one that was rolled back.
    let is_broken = AtomicBool::new(true);
    let newest_first = [
        failed("SecurityGroup", "AWS::EC2::SecurityGroup", "a later one"),
        failed("InstanceRole", "AWS::IAM::Role", "Resource creation cancelled"),
        failed("Bucket", "AWS::S3::Bucket", "no more buckets can be made"),
    ];
    let events = format!("<StackEvents>{}", newest_first.concat());
    account.recorder.instead(move |seen| {
        let change = |from: &str, to: &str| Some(Instead::Change(from.to_owned(), to.to_owned()));
        match seen.operation().as_str() {
            "cloudformation DeleteStack" => {
                is_broken.store(false, Ordering::Relaxed);
                None
            }
            "cloudformation DescribeStacks" if is_broken.load(Ordering::Relaxed) => {
                change(">CREATE_COMPLETE<", ">ROLLBACK_COMPLETE<")
            }
            "cloudformation DescribeStackEvents" if is_broken.load(Ordering::Relaxed) => {
                change("<StackEvents>", &events)
            }
            _ => None,
        }
    });
    let create = ["pars", "create", "lab"];
    check(
        &mut account.knot(&create),
        7,
        &[
            "error: cannot create the stack `cloudknot-pars-lab`",
            "caused by: Bucket (AWS::S3::Bucket): no more buckets can be made",
            "hint: fix that, then run the same command; the stack is ROLLBACK_COMPLETE",
        ],
    );
    check(&mut account.knot(&["pars", "create", "lab", "--dry-run"]), 0, &[]);
    check(
        &mut account.knot(&create),
        0,
        &["deleting the stack `cloudknot-pars-lab`", "creating the stack `cloudknot-pars-lab`"],
    );
    check(&mut account.knot(&["pars", "clobber", "lab"]), 0, &[]);
    account.check_empty(&[]);
    println!("{}", account.recorder.validate());
}

pub(crate) fn kill(process: &mut Child) {
    // It may have ended already.
    let _ = process.kill();
    process.wait().unwrap();
}

#[test]
fn clobber_partial_stack() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    let (_, calls) = account.calls(&mut account.deploy(&role, &[]));
    check(&mut account.knot(&["clobber", "sweep", "--pars"]), 0, &[]);
    // After the repository is created, and before the rest is.
    let before = calls.iter().position(|call| call == "ecr GetAuthorizationToken").expect("a deploy logs in");
    account.recorder.stop_after(before as u64);
    let mut deploy = account.deploy(&role, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(account.recorder.is_held_before_the_end_of(&mut deploy));
    kill(&mut deploy);
    account.recorder.go_on();
    assert_eq!(account.left()["repositories"], Value::from(vec!["cloudknot/sweep"]));
    check(&mut account.knot(&["show", "sweep"]), 8, &["its last deploy did not finish"]);
    check(&mut account.knot(&["clobber", "sweep", "--pars"]), 0, &["the Knot `sweep` is gone"]);
    account.check_empty(&["theirs"]);
    check(&mut account.knot(&["clobber", "sweep", "--pars"]), 8, &["cannot find the Knot `sweep`"]);
}

#[test]
fn data_is_kept_where_that_is_asked_for() {
    let Some(account) = Account::new() else { return };
    let made = json(&check(&mut account.knot(&["pars", "create", "lab", "--json"]), 0, &[]));
    let bucket = made["bucket"].as_str().unwrap();
    let put = format!("import boto3; boto3.client('s3').put_object(Bucket='{bucket}', Key='knots/a b/', Body=b'1')");
    account.script(&put);
    let other = ["pars", "create", "other", "--bucket", bucket];
    check(&mut account.knot(&other), 0, &[]);
    check(&mut account.knot(&["pars", "clobber", "lab"]), 8, &["others have runs in its bucket: other"]);
    check(&mut account.knot(&["pars", "clobber", "other"]), 0, &[]);
    assert_eq!(account.left()["buckets"], Value::from(vec![bucket]), "one that was there before a Pars survives it");
    check(&mut account.knot(&["pars", "clobber", "lab", "--keep-data"]), 0, &["changing the stack"]);
    let check_left = || {
        let left = account.left();
        assert_eq!(left["buckets"], Value::from(vec![bucket]));
        assert_eq!(left["logs"], Value::from(vec!["/cloudknot/lab"]));
        assert_eq!(left["stacks"], Value::from(Vec::<Value>::new()));
    };
    check_left();
    // A new Pars of the same name adopts both, and leaves what it has not created.
    let again = ["pars", "create", "lab", "--bucket", bucket];
    check(&mut account.knot(&again), 0, &["the log group `/cloudknot/lab` exists already, and is used unchanged"]);
    let shown = check(&mut account.knot(&["pars", "show", "lab"]), 0, &[]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("/cloudknot/lab"), "{shown:?}");
    check(&mut account.knot(&["pars", "clobber", "lab"]), 0, &[]);
    check_left();
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
    let seen = account.recorder.requests();
    let signed =
        seen.last().expect("a request was sent").headers.iter().find(|(name, _)| name.as_str() == "authorization");
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
    assert!(both.iter().any(|output| output.status.success()), "one of them at least makes it");
    let found = json(&check(&mut account.knot(&["show", "sweep", "--json"]), 0, &[]));
    assert_eq!(found["job_definitions"].as_object().map(serde_json::Map::len), Some(1));
    check(&mut account.deploy(&role, &[]), 0, &["the Knot `sweep` exists, and nothing has changed"]);
}

#[test]
fn injected_faults_are_retried_with_a_note() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    account.recorder.inject_faults(7, 20);
    let made = check(&mut account.deploy(&role, &[]), 0, &["retrying in"]);
    assert_eq!(json(&made)["knot"], "sweep");
    account.recorder.inject_faults(0, 0);
    check(&mut account.knot(&["clobber", "sweep", "--pars"]), 0, &[]);
    account.check_empty(&["theirs"]);
}

#[test]
fn a_refusal_names_what_is_missing_and_what_to_do() {
    let Some(account) = Account::new() else { return };
    account.recorder.fail_next(1, 403, "AccessDenied");
    check(
        &mut account.knot(&["pars", "list"]),
        7,
        &["error: cannot list the stacks", "(AccessDenied)", "cargo knot policy"],
    );
    account.recorder.fail_next(1, 400, "ExpiredToken");
    check(
        &mut account.knot(&["list"]),
        7,
        &["(ExpiredToken)", "hint: the credentials of your user are not accepted: log in again"],
    );
    let mut nobody = account.knot(&["list"]);
    nobody.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    check(&mut nobody, 7, &["hint: log in to AWS"]);
    let mut nowhere = account.knot(&["list"]);
    nowhere.env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
    check(&mut nowhere, 2, &["error: cannot find the region of AWS", "cargo knot configure --region"]);
}

#[test]
fn choices_are_kept_in_a_file_without_secrets() {
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
const TAKE_THE_ROLE: &str = "
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

const AS_A_JOB: &str = "
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
fn a_job_reaches_its_own_runs_and_nothing_else() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    let made = json(&check(&mut account.deploy(&role, &[]), 0, &[]));
    let pars = json(&check(&mut account.knot(&["pars", "show", "--json"]), 0, &[]));
    let (bucket, role) = (pars["bucket"].as_str().unwrap(), made["job_role"].as_str().unwrap());
    let keys = account.script_with(TAKE_THE_ROLE, &[bucket, role]);
    let [key, secret, token]: [String; 3] = serde_json::from_str(&keys).unwrap();
    account.moto.turn_on_iam();
    let mut job = Command::new(python().expect("moto is installed"));
    job.args(["-c", AS_A_JOB, bucket]).envs(environment(&account.moto.url()));
    job.envs([("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret), ("AWS_SESSION_TOKEN", token)]);
    let allowed: Vec<bool> = serde_json::from_str(&run(&mut job)).unwrap();
    assert_eq!(allowed, [true, true, false, false, false, false, false, false, false]);
}
