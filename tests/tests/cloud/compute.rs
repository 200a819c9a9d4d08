//! Compute that a Knot chooses or finds: machines with GPUs and their quotas, existing queues, and the sizes of machines.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cloudknot_tests::counterparts::{Docker, check, run};
use cloudknot_tests::recorder::ResponseOverride;
use cloudknot_tests::workspaces::{LONE, STANDING_IN, workspace};
use serde_json::{Value, json};

use crate::account::{Account, SERVICE_ROLE, text};

/// Script that creates a compute environment with these instance types, and a queue on it, which has a fair-share policy if
/// `shares` is set. Prints the ARN of the queue.
const QUEUE: &str = "
import boto3, json, sys
name, types, shares, role = json.loads(sys.argv[1])
batch, ec2, iam = boto3.client('batch'), boto3.client('ec2'), boto3.client('iam')
profile = iam.create_instance_profile(InstanceProfileName=name)['InstanceProfile']['Arn']
subnet = ec2.describe_subnets(Filters=[{'Name': 'default-for-az', 'Values': ['true']}])['Subnets'][0]['SubnetId']
group = ec2.describe_security_groups()['SecurityGroups'][0]['GroupId']
batch.create_compute_environment(
    computeEnvironmentName=name, type='MANAGED', state='ENABLED', serviceRole=role,
    computeResources={'type': 'EC2', 'minvCpus': 0, 'maxvCpus': 8, 'instanceTypes': types, 'subnets': [subnet],
                      'instanceRole': profile, 'securityGroupIds': [group]})
policy = batch.create_scheduling_policy(name=name, fairsharePolicy={'shareDecaySeconds': 60})['arn'] if shares else None
print(batch.create_job_queue(
    jobQueueName=name, state='ENABLED', priority=1, computeEnvironmentOrder=[{'order': 1, 'computeEnvironment': name}],
    **({'schedulingPolicyArn': policy} if policy else {}))['jobQueueArn'])
";

fn queue(account: &Account, name: &str, types: &[&str], shares: bool, role: &str) -> String {
    account.script_with(QUEUE, &[&json!([name, types, shares, role]).to_string()])
}

fn deploy(account: &Account, more: &[&str], code: i32, expected: &[&str]) -> Output {
    check(&mut account.knot(&[&["deploy", "--offline", "--fast", "--knot", "sweep"], more].concat()), code, expected)
}

#[test]
fn gpus_without_a_base_image_are_refused() {
    let Some(account) = Account::new() else { return };
    let lines = ["[package.metadata.cloudknot]", "base-image = \"nvidia/cuda:12.6.3-base-ubuntu24.04\""];
    let why = "the image has no base, so the worker is static, and cannot load the libraries of the GPU's driver";
    let setting = format!("error: cannot use GPUs in the Knot `sweep`: `gpus = 1` requests them, but {why}");
    deploy(&account, &["-p", "lone", "--gpus", "1"], 2, &[&setting, lines[0], lines[1]]);
    // The attribute is found in the source, before anything is compiled.
    let attribute = ["-p", "odd", "--example", "gpu"];
    deploy(&account, &attribute, 2, &["a remote function in `", "gpu.rs` requests them, but the image has no base"]);
    assert!(account.recorder.operations().is_empty(), "a request was sent");
    // Code of a macro is known after compiling.
    let by_macro = ["-p", "odd", "--example", "gpu_of_a_macro"];
    deploy(&account, &by_macro, 2, &["cannot use GPUs in the Knot `sweep`: `odd:gpu_of_a_macro::train` requests them"]);
    let remaining = account.remaining();
    assert_eq!((&remaining["stacks"], &remaining["repositories"]), (&json!([]), &json!([])));
}

#[test]
fn gpus_without_a_quota_are_refused() {
    let Some(account) = Account::new() else { return };
    let limit = |limit: f64| {
        account.recorder.override_responses(move |request| {
            let quota = json!({"Quota": {"Value": limit}}).to_string();
            (request.operation() == "servicequotas GetServiceQuota").then_some(ResponseOverride::Respond(200, quota))
        });
    };
    limit(0.0);
    let base = ["-p", "lone", "--base-image", "debian:12-slim", "--gpus", "1"];
    let refused = |more: &[&str], instances: &str, code: &str| {
        let message = format!("error: cannot place jobs with GPUs: the vCPU quota for {instances} is 0 in eu-west-1");
        deploy(&account, &[&base, more].concat(), 7, &[&message, &format!("Service Quotas (ec2, {code})")]);
    };
    refused(&[], "On-Demand G and VT instances", "L-DB2E81BA");
    refused(&["--compute", "spot"], "Spot G and VT instances", "L-3819A6DF");
    refused(&["--instance-types", "p3"], "On-Demand P instances", "L-417A185B");
    refused(&["--instance-types", "p3", "--compute", "spot"], "Spot P instances", "L-7212CCBC");
    let remaining = account.remaining();
    assert_eq!((&remaining["stacks"], &remaining["repositories"]), (&json!([]), &json!([])));
    println!("{}", account.recorder.validate());
}

/// Creates a Dockerfile of a base image that has no more than this machine's C library, and returns its path.
fn base_with_glibc(folder: &Path) -> PathBuf {
    for library in ["libc.so.6", "libm.so.6", "libgcc_s.so.1"] {
        let path = run(Command::new("cc").arg(format!("-print-file-name={library}")));
        std::fs::copy(path.trim(), folder.join(library)).unwrap();
    }
    std::fs::copy("/lib64/ld-linux-x86-64.so.2", folder.join("ld-linux-x86-64.so.2")).unwrap();
    let dockerfile = folder.join("Dockerfile");
    std::fs::write(&dockerfile, "FROM scratch\nCOPY *.so.* /lib64/\n").unwrap();
    dockerfile
}

/// The check before the compilation finds the same, as does the one for each function.
#[test]
fn quota_for_gpus_that_cannot_be_read_is_reported_once() {
    let (Some(account), Some(docker)) = (Account::new(), Docker::get()) else { return };
    account.recorder.override_responses(|request| {
        let denied = r#"{"__type": "AccessDeniedException", "message": "no"}"#.to_owned();
        (request.operation() == "servicequotas GetServiceQuota").then_some(ResponseOverride::Respond(400, denied))
    });
    let folder = tempfile::tempdir().unwrap();
    let dockerfile = base_with_glibc(folder.path());
    let plan = ["deploy", "-p", "lone", "--offline", "--fast", "--knot", "sweep", "--gpus", "1", "--dry-run"];
    let mut plan = account.knot(&[&plan[..], &["--dockerfile", dockerfile.to_str().unwrap()]].concat());
    if let Some(host) = docker.host() {
        plan.env("DOCKER_HOST", host);
    }
    let output = check(&mut plan, 0, &["warning: cannot read the quota L-DB2E81BA of ec2; if it is too low"]);
    let printed = String::from_utf8(output.stderr).unwrap();
    assert_eq!(printed.matches("L-DB2E81BA").count(), 1, "{printed}");
}

#[test]
fn unsuitable_queues_are_refused() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    check(&mut account.knot(&["pars", "create"]), 0, &[]);
    let arm = queue(&account, "arm", &["m6g"], false, &role);
    let plain = queue(&account, "plain", &["m5.large"], false, &role);
    let fair = queue(&account, "fair", &["m5.large"], true, &role);
    let refused = |queue: &str, more: &[&str], expected: &[&str]| {
        deploy(&account, &[&["-p", "lone", "--queue", queue], more].concat(), 2, expected);
    };
    refused(&arm, &[], &["its instances are for arm64, and the worker is for x86_64", "hint: build for ARM"]);
    refused(&fair, &[], &["it has a fair-share policy, and no share is set", "--share-identifier"]);
    let share = ["--share-identifier", "physics"];
    refused(&plain, &share, &["cannot use the share `physics`: the queue `", "has no fair-share policy"]);
    for kind in ["EKS", "SAGEMAKER_TRAINING", "ECS_MANAGED_INSTANCES"] {
        account.recorder.override_responses(move |request| {
            let queue = json!({
                "jobQueueName": "other", "jobQueueArn": "arn:other", "state": "ENABLED", "priority": 1, "jobQueueType": kind,
                "computeEnvironmentOrder": [],
            });
            let response = json!({"jobQueues": [queue]}).to_string();
            (request.operation() == "batch POST /v1/describejobqueues").then_some(ResponseOverride::Respond(200, response))
        });
        refused(
            &plain,
            &[],
            &[&format!("its jobs run on {kind}"), "hint: choose a queue whose jobs run on EC2 or Fargate"],
        );
    }
    account.recorder.override_responses(|request| {
        let is_description = request.operation() == "batch POST /v1/describecomputeenvironments";
        let (from, to) = ("\"type\": \"EC2\"".to_owned(), "\"type\": \"ECS_MANAGED_INSTANCES\"".to_owned());
        is_description.then_some(ResponseOverride::Change(from, to))
    });
    refused(&plain, &[], &["its jobs run on ECS_MANAGED_INSTANCES"]);
    account.recorder.clear_override();

    deploy(
        &account,
        &[&["-p", "lone", "--queue", &fair], &share[..], &["--scheduling-priority", "7"]].concat(),
        0,
        &[],
    );
    let template = "import boto3; print(boto3.client('cloudformation').get_template(StackName='cloudknot-knot-sweep')['TemplateBody'])";
    assert!(account.script(template).contains("SchedulingPriority: 7"));
    let note: Value = serde_json::from_slice(&std::fs::read(account.note()).unwrap()).unwrap();
    assert_eq!(note["share-identifier"], "physics");
    println!("{}", account.recorder.validate());
}

#[test]
fn note_has_what_a_run_must_fit() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    let more = ["--instance-types", "m5.large,m5.4xlarge", "--tag", "Owner=Ada", "--stuck-after", "90m"];
    check(&mut account.deploy(&role, &more), 0, &[]);
    let note: Value = serde_json::from_slice(&std::fs::read(account.note()).unwrap()).unwrap();
    let largest = json!([{"name": "m5.4xlarge", "vcpus": 16, "memory-mib": 65_536, "gpus": 0}]);
    assert_eq!((&note["jobs"]["machines"], &note["tags"], &note["gpu-image"]), (&largest, &json!(1), &json!(false)));
    assert_eq!(note["jobs"]["max-vcpus"], 256);
    // On another machine, the note is that of the stack.
    let other = account.home.path().join("other");
    check(account.knot_of(&other, &["use", "sweep"]).env("CLOUDKNOT_HOME", &other), 0, &[]);
    let used: Value = serde_json::from_slice(&std::fs::read(other.join("knot.json")).unwrap()).unwrap();
    assert_eq!((&used["jobs"], &used["tags"]), (&note["jobs"], &note["tags"]));

    let template = "import boto3; print(boto3.client('cloudformation').get_template(StackName='cloudknot-knot-sweep')['TemplateBody'])";
    let template = account.script(template);

    // AWS Batch may add larger types to those of such a name.
    let warning = "may fit on no machine: it requests 9216000 MiB, but the largest of the chosen instance types";
    let large = ["deploy", "-p", "lone", "--offline", "--fast", "--knot", "large", "--service-role", &role];
    let sizes = ["--memory", "9000 GiB", "--max-vcpus", "8"];
    check(&mut account.knot(&[&large[..], &sizes].concat()), 0, &[warning]);
    let note: Value = serde_json::from_slice(&std::fs::read(account.note()).unwrap()).unwrap();
    assert_eq!((&note["jobs"]["may-have-larger"], &note["jobs"]["max-vcpus"]), (&json!(true), &json!(8)));
    for reason in ["COMPUTE_ENVIRONMENT_MAX_RESOURCE", "JOB_RESOURCE_REQUIREMENT"] {
        let action =
            format!("{{State: RUNNABLE, Reason: \"MISCONFIGURATION:{reason}\", MaxTimeSeconds: 5400, Action: CANCEL}}");
        assert!(template.contains(&action), "{template}");
    }
    let knot = ["template", "knot", "-p", "lone", "--offline", "--fast", "--knot", "new", "--service-role", &role];
    let template = text(check(&mut account.knot(&knot), 0, &[]));
    assert!(template.contains("InstanceTypes: [\"default_x86_64\"]"), "{template}");
    assert!(!template.contains("JobStateTimeLimitActions"), "{template}");
    println!("{}", account.recorder.validate());
}

#[test]
fn doctor_reports_quotas_of_machines_with_gpus() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    check(&mut account.deploy(&role, &["--instance-types", "g4dn.xlarge"]), 0, &[]);
    account.recorder.override_responses(|request| {
        let is_of_gpus = request.body.as_deref().is_some_and(|body| body.contains("L-DB2E81BA"));
        let quota = json!({"Quota": {"Value": 0.0}}).to_string();
        (request.operation() == "servicequotas GetServiceQuota" && is_of_gpus)
            .then_some(ResponseOverride::Respond(200, quota))
    });
    let output = check(&mut account.knot(&["doctor", "--knot", "sweep", "--json"]), 9, &["found one problem"]);
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let quotas: Vec<&Value> = found
        .iter()
        .filter(|one| one["subject"].as_str().is_some_and(|subject| subject.contains("G and VT")))
        .collect();
    let [quota] = &quotas[..] else { panic!("{found:?}") };
    assert_eq!(
        (&quota["subject"], &quota["state"]),
        (&json!("vCPU quota for On-Demand G and VT instances"), &json!("bad"))
    );
    assert_eq!(quota["remedy"], "request an increase in Service Quotas (ec2, L-DB2E81BA)");
}

/// Script that runs jobs with the retry rules of a Knot's template: one whose container cannot start, and two that end with these
/// exit codes. Prints the number of attempts of each.
const ATTEMPTS: &str = "
import boto3, json, sys, time, yaml
template, queue, *codes = sys.argv[1:]
batch = boto3.client('batch')
resources = yaml.safe_load(template)['Resources'].values()
strategy = next(one for one in resources if one['Type'] == 'AWS::Batch::JobDefinition')['Properties']['RetryStrategy']
rules = [{key[0].lower() + key[1:]: value for key, value in rule.items()} for rule in strategy['EvaluateOnExit']]
def attempts(image, command):
    definition = batch.register_job_definition(
        jobDefinitionName='rules', type='container', retryStrategy={'attempts': 2, 'evaluateOnExit': rules},
        containerProperties={'image': 'process:' + image, 'command': command, 'resourceRequirements': [
            {'type': 'VCPU', 'value': '1'}, {'type': 'MEMORY', 'value': '64'}]})['jobDefinitionArn']
    job = batch.submit_job(jobName='rules', jobQueue=queue, jobDefinition=definition)['jobId']
    while (found := batch.describe_jobs(jobs=[job])['jobs'][0])['status'] not in ('SUCCEEDED', 'FAILED'):
        time.sleep(0.1)
    return len(found['attempts'])
print(attempts('/nonexistent', []), *(attempts('/bin/sh', ['-c', 'exit ' + code]) for code in codes))
";

/// Returns the template of a Knot with these options.
fn template(account: &Account, more: &[&str]) -> String {
    let template = ["template", "knot", "-p", "lone", "--offline", "--fast", "--knot", "sweep"];
    text(check(&mut account.knot(&[&template, more].concat()), 0, &[]))
}

/// A failure to pull an image has no exit code either.
#[test]
fn job_that_ends_without_an_exit_code_is_retried() {
    let Some(account) = Account::new() else { return };
    check(&mut account.knot(&["pars", "create", "ada-default"]), 0, &[]);
    let role = account.script(SERVICE_ROLE);
    let queue = queue(&account, "lab", &["m5"], false, &role);
    for compute in ["ec2", "fargate"] {
        let template = template(&account, &["--compute", compute]);
        assert_eq!(account.script_with(ATTEMPTS, &[&template, &queue, "1", "75"]), "2 1 2", "{compute}");
    }
}

/// AWS changes only the number of vCPUs and the network of an environment on Fargate.
#[test]
fn fargate_environments_are_replaced_only_for_another_kind() {
    let Some(account) = Account::new() else { return };
    check(&mut account.knot(&["pars", "create", "ada-default"]), 0, &[]);
    let environment = |options: &[&str]| {
        let template = template(&account, options);
        assert!(!template.contains("ReplaceComputeEnvironment: "), "{template}");
        let name =
            template.lines().zip(template.lines().skip(1)).find(|(_, kind)| kind.ends_with("::ComputeEnvironment"));
        name.expect("the template has an environment").0.trim().to_owned()
    };
    let first = environment(&["--compute", "fargate"]);
    assert_eq!(environment(&["--compute", "fargate", "--max-vcpus", "8"]), first);
    assert_ne!(environment(&["--compute", "fargate-spot"]), first);
}

/// Script that creates a queue on Fargate, and prints its ARN.
const FARGATE_QUEUE: &str = "
import boto3
batch, ec2 = boto3.client('batch'), boto3.client('ec2')
subnet = ec2.describe_subnets(Filters=[{'Name': 'default-for-az', 'Values': ['true']}])['Subnets'][0]['SubnetId']
group = ec2.describe_security_groups()['SecurityGroups'][0]['GroupId']
batch.create_compute_environment(
    computeEnvironmentName='serverless', type='MANAGED', state='ENABLED',
    computeResources={'type': 'FARGATE', 'maxvCpus': 8, 'subnets': [subnet], 'securityGroupIds': [group]})
print(batch.create_job_queue(jobQueueName='serverless', state='ENABLED', priority=1, computeEnvironmentOrder=[
    {'order': 1, 'computeEnvironment': 'serverless'}])['jobQueueArn'])
";

#[test]
fn log_drivers_need_instances_that_offer_them() {
    let Some(account) = Account::new() else { return };
    let role = account.script(SERVICE_ROLE);
    check(&mut account.knot(&["pars", "create"]), 0, &[]);
    let manifest = format!("{LONE}\n[package.metadata.cloudknot.log]\ndriver = \"gelf\"\n");
    let files =
        STANDING_IN.iter().map(|(path, text)| (*path, if *path == "lone/Cargo.toml" { &*manifest } else { *text }));
    let folder = workspace("of a log driver", &files.collect::<Vec<_>>());
    let knot = |verb: &[&str], more: &[&str]| {
        let options = ["-p", "lone", "--offline", "--fast", "--knot", "sweep"];
        let mut command = account.knot(&[verb, &options, more].concat());
        command.current_dir(&folder);
        command
    };
    let own = text(check(&mut knot(&["template", "knot"], &["--service-role", &role]), 0, &[]));
    let user_data = own.split_once("UserData:").expect("the launch template has user data").1;
    assert!(user_data.contains("ECS_AVAILABLE_LOGGING_DRIVERS=") && user_data.contains("gelf"), "{user_data}");

    let queue = queue(&account, "theirs", &["m5.large"], false, &role);
    let warning =
        "warning: jobs stay RUNNABLE on instances of the queue whose ECS agent does not offer the log driver `gelf`";
    check(&mut knot(&["deploy"], &["--queue", &queue, "--dry-run"]), 0, &[warning]);
    let on_fargate = account.script(FARGATE_QUEUE);
    let refused = "invalid `log` with the driver `gelf`: Fargate supports only `awslogs` and `splunk`";
    check(&mut knot(&["deploy"], &["--queue", &on_fargate]), 2, &[refused]);
}
