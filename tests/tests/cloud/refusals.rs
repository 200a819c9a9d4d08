//! Requests that `cargo knot` refuses before anything is created: invalid settings, missing permissions, full quotas.

use std::process::Command;

use cloudknot_tests::counterparts::check;
use cloudknot_tests::recorder::{RecordedRequest, ResponseOverride};
use serde_json::Value;

use crate::account::{Account, SERVICE_ROLE, USER, text};

#[test]
fn invalid_settings_create_nothing() {
    let Some(account) = Account::new() else { return };
    let refused = |arguments: &[&str], expected: &[&str]| {
        check(&mut account.knot(arguments), 2, expected);
    };
    refused(&["pars", "create", "1st"], &["invalid Pars name `1st`"]);
    refused(&["pars", "create", "lab", "--cidr", "10.0.0.0/8"], &["must be from /16 to /28"]);
    refused(&["pars", "create", "lab", "--log-retention", "8"], &["hint: use 14"]);
    refused(&["pars", "create", "lab", "--tag", "aws:x=1"], &["are reserved"]);
    let deploy = |more: &[&str], expected: &[&str]| {
        let deploy = ["deploy", "-p", "lone", "--offline", "--fast"];
        refused(&[&deploy, more].concat(), expected);
    };
    deploy(&["--knot", "-x-"], &["unexpected argument"]);
    deploy(&["--knot", "x-"], &["invalid Knot name `x-`"]);
    deploy(&["--memory", "8"], &["invalid amount `8`: must have a unit"]);
    deploy(&["--attempts", "11"], &["must be from 1 to 10"]);
    deploy(&["--compute", "fargate", "--ami", "ami-1"], &["must not be set for Fargate"]);
    deploy(&["--bid-percentage", "60"], &["must be used with `compute = \"spot\"`"]);
    deploy(&["--secret", "KEY=somewhere"], &["invalid secret `somewhere`"]);
    deploy(&["--ephemeral-storage", "50 GiB"], &["requires Fargate"]);
    let trusting = ["deploy", "-p", "lone", "--offline", "--fast", "--ca-bundle", "nowhere.pem"];
    check(&mut account.knot(&trusting), 5, &["nowhere.pem"]);
    assert!(account.recorder.operations().is_empty(), "a request was sent");
    deploy(&["--compute", "fargate", "--gpus", "1"], &["it requests GPUs, which Fargate does not have"]);
    deploy(&["--memory", "9000 GiB", "--instance-types", "m5.large"], &["(m5.large) has 8192 MiB"]);
    deploy(&["--instance-types", "z9.large"], &["z9.large"]);
    deploy(&["--vcpus", "9", "--max-vcpus", "8"], &["it requests 9 vCPUs, but `max-vcpus` is 8"]);
    let fargate = ["--compute", "fargate", "--memory", "60 GiB", "--max-vcpus", "7"];
    deploy(
        &fargate,
        &[
            "on Fargate, its 61440 MiB require 8 vCPUs, but `max-vcpus` is 7",
            "hint: request less (`memory`), or set a larger",
        ],
    );
    let tags: Vec<String> = (0..47).map(|number| format!("tag-{number}=1")).collect();
    let tags: Vec<&str> = tags.iter().flat_map(|tag| ["--tag", tag]).collect();
    deploy(&tags, &["invalid tags: 47 besides those of cloudknot; must be at most 46"]);
    let broken = ["deploy", "-p", "odd", "--example", "broken", "--offline", "--fast"];
    check(&mut account.knot(&broken), 101, &["this_does_not_exist", "caused by: cargo ended"]);
    check(&mut account.knot(&["deploy", "-p", "odd", "--offline", "--fast"]), 4, &["cannot find a remote function"]);
    let remaining = account.remaining();
    assert_eq!(remaining["repositories"], Value::from(Vec::<Value>::new()), "no resource of a Knot was created");
}

/// Returns the requests that create something.
fn creates(calls: &[String]) -> Vec<&String> {
    let is_create = |call: &&String| {
        ["Create", "/create", "Put", "Register", "/register", "Update"].iter().any(|word| call.contains(word))
    };
    calls.iter().filter(is_create).collect()
}

#[test]
fn settings_rejected_by_aws_create_nothing() {
    let Some(account) = Account::new() else { return };
    let refused = |command: &mut Command, code: i32, expected: &[&str]| {
        let before = account.recorder.operations().len();
        check(command, code, expected);
        let calls = account.recorder.operations().split_off(before);
        assert!(creates(&calls).is_empty() && !calls.is_empty(), "{calls:?}");
        calls
    };
    let bucket = |status: u16, expected: &[&str]| {
        account.recorder.override_responses(move |request| {
            (request.method == "HEAD").then(|| ResponseOverride::Respond(status, String::new()))
        });
        refused(&mut account.knot(&["pars", "create", "lab", "--bucket", "taken"]), 8, expected);
    };
    bucket(403, &["error: cannot use the bucket `taken`: it belongs to another account", "hint: choose another name"]);
    bucket(301, &["error: cannot use the bucket `taken`: it is in another region", "hint: choose another name"]);

    let key = account.script(USER);
    let (id, secret) = key.split_once(' ').expect("the script prints an ID and a secret");
    account.recorder.override_responses(|request| {
        (request.operation() == "iam SimulatePrincipalPolicy").then(|| ResponseOverride::Respond(200, denied(request)))
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

    account.recorder.clear_override();
    check(&mut account.knot(&["pars", "create"]), 0, &[]);
    let role = account.script(SERVICE_ROLE);
    account.recorder.override_responses(|request| {
        (request.operation() == "iam SimulatePrincipalPolicy").then(|| ResponseOverride::Respond(200, denied(request)))
    });
    refused(
        &mut as_ada(account.deploy(&role, &[])),
        7,
        &[
            "lacks batch:CreateJobQueue, batch:RegisterJobDefinition, cloudformation:CreateStack",
            "`cargo knot policy deploy`",
        ],
    );
    // With read access only, a plan and a template can still be printed.
    let planned = text(check(&mut as_ada(account.deploy(&role, &["--dry-run"])), 0, &[]));
    assert!(planned.contains("lacks batch:CreateJobQueue"), "{planned}");
    let planned = text(check(&mut as_ada(account.knot(&["pars", "create", "other", "--dry-run"])), 0, &[]));
    assert!(planned.contains("lacks cloudformation:CreateStack"), "{planned}");
    let template =
        ["template", "knot", "-p", "lone", "--offline", "--fast", "--knot", "sweep", "--service-role", &role];
    let template = text(check(&mut as_ada(account.knot(&template)), 0, &[]));
    assert!(template.contains("AWS::Batch::JobQueue"), "{template}");
    account.recorder.override_responses(|request| match request.operation().as_str() {
        "iam SimulatePrincipalPolicy" => Some(ResponseOverride::Respond(200, denied(request))),
        "batch POST /v1/describejobqueues" => Some(ResponseOverride::Respond(200, queues(50))),
        "servicequotas ListServiceQuotas" => Some(ResponseOverride::Respond(200, quotas(50))),
        _ => None,
    });
    refused(
        &mut as_ada(account.deploy(&role, &["--dry-run"])),
        7,
        &["error: job queue quota exceeded: 50 of 50 in use"],
    );

    let limit_queues = |limit: u32| {
        account.recorder.override_responses(move |request| match request.operation().as_str() {
            "batch POST /v1/describejobqueues" => Some(ResponseOverride::Respond(200, queues(50))),
            "servicequotas ListServiceQuotas" => Some(ResponseOverride::Respond(200, quotas(limit))),
            _ => None,
        });
    };
    limit_queues(50);
    refused(
        &mut account.deploy(&role, &[]),
        7,
        &["error: job queue quota exceeded: 50 of 50 in use", "hint: clobber unused Knots (`cargo knot list`)"],
    );
    assert_eq!(account.remaining()["stacks"], Value::from(vec!["cloudknot-pars-ada-default"]));
    // The quota was increased.
    limit_queues(51);
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
fn network_over_quota_creates_nothing() {
    let Some(account) = Account::new() else { return };
    let more = |networks: u32, addresses: u32, gateways: u32| {
        account.script(&format!("networks, addresses, gateways = {networks}, {addresses}, {gateways}\n{NETWORKS}"))
    };
    let create = ["pars", "create", "lab", "--cidr", "10.0.0.0/16", "--internet", "nat"];
    let refused = |expected: &[&str]| {
        let before = account.recorder.operations().len();
        check(&mut account.knot(&create), 7, expected);
        check(&mut account.knot(&[&create[..], &["--dry-run"]].concat()), 7, expected);
        let calls = account.recorder.operations().split_off(before);
        assert!(creates(&calls).is_empty(), "{calls:?}");
    };
    let zone = more(0, 0, 5);
    refused(&[
        &format!("error: NAT gateway quota exceeded: 5 of 5 in use in {zone}"),
        "hint: delete unused ones, request an increase in Service Quotas (vpc, L-FE5A380F), or avoid the NAT gateway",
    ]);
    more(0, 5, 0);
    refused(&["elastic address quota exceeded: 5 of 5 in use in eu-west-1", "(ec2, L-0263D0A3)"]);
    // Five, including the default VPC.
    more(4, 0, 0);
    refused(&["VPC quota exceeded: 5 of 5 in use in eu-west-1", "(vpc, L-F678F1CE), or use an existing VPC: --vpc"]);
    account.check_empty(&[]);
    account.recorder.override_responses(|request| {
        let quota = serde_json::json!({"Quota": {"Value": 6.0}}).to_string();
        (request.operation() == "servicequotas GetServiceQuota").then_some(ResponseOverride::Respond(200, quota))
    });
    check(&mut account.knot(&[&create[..], &["--dry-run"]].concat()), 0, &[]);
    println!("{}", account.recorder.validate());
}

/// Returns a response from IAM that allows none of the requested actions.
fn denied(request: &RecordedRequest) -> String {
    let form = request.body.as_deref().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
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

pub(crate) fn queues(count: usize) -> String {
    let queue = |number| {
        serde_json::json!({
            "jobQueueName": format!("q{number}"), "jobQueueArn": format!("arn:q{number}"), "state": "ENABLED", "priority": 1,
            "computeEnvironmentOrder": [],
        })
    };
    serde_json::json!({"jobQueues": (0..count).map(queue).collect::<Vec<_>>()}).to_string()
}

pub(crate) fn quotas(limit: u32) -> String {
    let quota = |name: &str| serde_json::json!({"QuotaName": name, "Value": f64::from(limit)});
    serde_json::json!({"Quotas": [quota("Job queues per environment"), quota("Job queue limit")]}).to_string()
}

#[test]
fn refusal_has_cause_and_hint() {
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
    let mut without_login = account.knot(&["list"]);
    without_login.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let no_credentials = "error: cannot list the stacks: there are no AWS credentials";
    let output = check(&mut without_login, 7, &[no_credentials, "hint: log in to AWS"]);
    let lines = String::from_utf8(output.stderr).unwrap();
    let cause = lines.lines().nth(1).unwrap_or_default();
    assert!(cause.starts_with("  caused by: no credentials found in Environment, Profile, "), "{lines}");
    assert_eq!(lines.lines().count(), 3, "{lines}");
    let mut without_region = account.knot(&["list"]);
    without_region.env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
    check(&mut without_region, 2, &["error: no AWS region is set", "cargo knot configure --region"]);
}

#[test]
fn absent_profile_is_named() {
    let Some(account) = Account::new() else { return };
    let profiles = account.home.path().join("aws");
    std::fs::write(&profiles, "[profile lab]\nregion = eu-central-1\n[profile other]\nregion = us-east-1\n").unwrap();
    let of_profiles = |arguments: &[&str]| {
        let mut command = account.knot(arguments);
        command.env("AWS_CONFIG_FILE", &profiles);
        command
    };
    let absent = "error: cannot find the AWS profile `nobody`";
    check(
        &mut of_profiles(&["list", "--aws-profile", "nobody"]),
        7,
        &[absent, "hint: ", "existing profiles: lab, other"],
    );
    let mut chosen = of_profiles(&["list"]);
    chosen.env("AWS_PROFILE", "nobody").env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let why = "error: cannot list the stacks: there is no AWS profile `nobody`";
    check(&mut chosen, 7, &[why, "hint: ", "existing profiles: lab, other"]);
    let mut without_region = of_profiles(&["list"]);
    without_region.env("AWS_PROFILE", "nobody").env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
    check(&mut without_region, 7, &[absent]);
    let refused = of_profiles(&["configure", "--profile", "nobody", "--region", "eu-north-1"]);
    check(&mut { refused }, 2, &[absent, "nothing was written", "hint: existing profiles: lab, other"]);
    assert!(!account.home.path().join("config.toml").exists());
    assert!(account.recorder.operations().is_empty(), "a request was sent");
}
