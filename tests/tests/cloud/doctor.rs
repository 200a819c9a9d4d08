//! Tests of the commands that inspect an account or leave it to others: doctor, prune and template, against moto.

use std::process::{Command, Output};

use cloudknot_tests::counterparts::check;
use serde_json::Value;

use crate::account::{Account, SERVICE_ROLE, STAND_IN, USER, text};

/// Script that creates resources without an owner: runs, templates and a job definition of a deleted Knot, and a stack
/// whose creation did not finish.
const ORPHANS: &str = "
import boto3
stacks, s3 = boto3.client('cloudformation'), boto3.client('s3')
bucket = next(o['OutputValue'] for o in stacks.describe_stacks(StackName='cloudknot-pars-lab')['Stacks'][0]['Outputs']
              if o['OutputKey'] == 'Bucket')
for key in ['knots/gone/runs/1/manifest.json', 'knots/gone/runs/2/manifest.json', 'knots/begun/runs/1/manifest.json',
            'stacks/gone/1.yaml']:
    s3.put_object(Bucket=bucket, Key=key, Body=b'{}')
boto3.client('batch').register_job_definition(
    jobDefinitionName='cloudknot-gone-f', type='container', tags={'cloudknot:knot': 'gone'},
    retryStrategy={'attempts': 1}, containerProperties={'image': 'gone', 'resourceRequirements': [
        {'type': 'VCPU', 'value': '1'}, {'type': 'MEMORY', 'value': '64'}]})
stacks.create_stack(StackName='cloudknot-knot-begun', TemplateBody='''
Resources:
  Repository:
    Type: AWS::ECR::Repository
    Properties: {RepositoryName: cloudknot/begun}
''')
stacks.create_stack(StackName='theirs', TemplateBody='''
Resources:
  Repository:
    Type: AWS::ECR::Repository
    Properties: {RepositoryName: theirs}
''')
print(bucket)
";

/// Returns the command `cargo knot` in the folder of a package.
fn knot(account: &Account, arguments: &[&str]) -> Command {
    let mut command = account.knot(arguments);
    command.current_dir(STAND_IN.join("lone"));
    command
}

/// Creates a stack, as a user who has only a template.
fn create_stack(account: &Account, name: &str, template: &str) {
    let script = "import boto3, sys; boto3.client('cloudformation').create_stack(StackName=sys.argv[1], \
                  Capabilities=['CAPABILITY_IAM'], TemplateBody=sys.argv[2])";
    account.script_with(script, &[name, template]);
}

fn json(output: &Output) -> Vec<Value> {
    serde_json::from_slice(&output.stdout).expect("one JSON array and nothing else")
}

/// Returns the state, the finding and the remedy of one of the doctor's checks.
#[track_caller]
fn finding<'f>(found: &'f [Value], subject: &str) -> (&'f str, &'f str, &'f str) {
    let one = found.iter().find(|one| one["subject"] == subject);
    let one = one.unwrap_or_else(|| panic!("no finding about `{subject}`: {found:#?}"));
    let text = |field: &str| one[field].as_str().unwrap_or_default();
    (text("state"), text("found"), text("remedy"))
}

#[test]
fn doctor_reports_findings_and_remedies() {
    let Some(account) = Account::new() else { return };
    let found = json(&check(&mut knot(&account, &["doctor", "--json"]), 0, &[]));
    let (state, identity, _) = finding(&found, "credentials");
    assert!(state == "good" && identity.contains("account 123456789012, region eu-west-1"), "{identity}");
    assert_eq!(finding(&found, "Rust").0, "good");
    assert_eq!(finding(&found, "Pars `ada-default`").0, "doubtful");
    let (state, _, remedy) = finding(&found, "Knot `lone`");
    assert!(state == "doubtful" && remedy.contains("`cargo knot deploy` creates it"), "{remedy}");
    assert_eq!(finding(&found, "program").0, "doubtful");
    // A check that moto does not support is not reported as a fault.
    assert_eq!(finding(&found, "permissions").0, "unknown");
    assert_eq!(finding(&found, "job queue quota").0, "unknown");
    assert_eq!(finding(&found, "vCPU quota for On-Demand instances").0, "unknown");

    let key = account.script(USER);
    let (id, secret) = key.split_once(' ').expect("the script prints an ID and a secret");
    let mut doctor = knot(&account, &["doctor", "--json"]);
    let found = json(&check(doctor.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret), 0, &[]));
    assert!(finding(&found, "credentials").1.starts_with("arn:aws:iam::123456789012:user/ada,"), "{found:?}");
    let (state, reason, _) = finding(&found, "permissions");
    assert!(state == "unknown" && reason.contains("cannot simulate the permissions of `arn:aws:iam::"), "{reason}");
    assert!(account.recorder.operations().contains(&"iam SimulatePrincipalPolicy".to_owned()));

    let mut doctor = knot(&account, &["doctor", "--pars", "nobodys"]);
    let found = text(check(&mut doctor, 9, &["error: found one problem"]));
    let line = "error    Pars `nobodys`: it does not exist in eu-west-1\n           `cargo knot pars create nobodys` creates it";
    assert!(found.contains(line) && found.contains("ok       Rust: rustc "), "{found}");
    let _ = account.recorder.validate();
}

#[test]
fn failed_check_does_not_stop_the_others() {
    let Some(account) = Account::new() else { return };
    let config = account.home.path().join("config.toml");
    std::fs::write(&config, "profil = \"lab\"\n").unwrap();
    let found = json(&check(&mut knot(&account, &["doctor", "--json"]), 9, &["found 2 problems"]));
    assert_eq!(finding(&found, "config.toml").0, "bad");
    assert_eq!(finding(&found, "credentials").0, "bad");
    assert_eq!(finding(&found, "permissions").0, "unknown");
    assert_eq!(finding(&found, "Rust").0, "good");
    std::fs::remove_file(config).unwrap();

    let mut without_login = knot(&account, &["doctor", "--json"]);
    without_login.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let found = json(&check(&mut without_login, 9, &["found one problem"]));
    let (state, _, remedy) = finding(&found, "credentials");
    assert!(state == "bad" && remedy.starts_with("log in to AWS"), "{remedy}");
    assert_eq!(finding(&found, "config.toml").0, "good");
}

#[test]
fn orphans_are_listed_and_deleted_on_request() {
    let Some(account) = Account::new() else { return };
    check(&mut knot(&account, &["pars", "create", "lab"]), 0, &[]);
    check(&mut knot(&account, &["prune"]), 0, &["found no resources without an owner"]);
    let bucket = account.script(ORPHANS);
    let prune = |more: &[&str]| knot(&account, &[&["prune", "--json"], more].concat());
    let names = |found: &[Value]| -> Vec<String> {
        found.iter().map(|one| format!("{} {}", one["kind"].as_str().unwrap(), one["deleted"])).collect()
    };

    let young = json(&check(&mut prune(&[]), 0, &[]));
    assert_eq!(names(&young), ["job-definition false", "runs false", "templates false"]);
    assert_eq!(young[1]["name"], format!("s3://{bucket}/knots/gone/"));
    assert_eq!(young[1]["deletes"], "2 runs, with inputs and results");
    let all = json(&check(&mut prune(&["--older-than", "0s"]), 0, &[]));
    assert_eq!(names(&all), ["stack false", "job-definition false", "runs false", "templates false"]);
    assert_eq!(all[0]["name"], "cloudknot-knot-begun");

    let deleted = json(&check(&mut prune(&["--older-than", "0s", "--yes"]), 0, &[]));
    assert_eq!(names(&deleted), ["stack true", "job-definition true", "runs false", "templates true"]);
    // The Knot whose creation did not finish has been deleted, so its runs have no owner any more.
    let remaining = json(&check(&mut prune(&["--older-than", "0s"]), 0, &[]));
    assert_eq!(names(&remaining), ["runs false", "runs false"]);
    check(&mut prune(&["--yes", "--runs"]), 0, &[]);
    check(&mut knot(&account, &["prune", "--older-than", "0s"]), 0, &["found no resources without an owner"]);
    let stacks = "import boto3; print(sorted(s['StackName'] for s in boto3.client('cloudformation').describe_stacks()['Stacks']))";
    assert_eq!(account.script(stacks), "['cloudknot-pars-lab', 'theirs']");
    let _ = account.recorder.validate();
}

#[test]
fn template_creates_what_deploy_expects() {
    let Some(account) = Account::new() else { return };
    let pars_template = text(check(&mut knot(&account, &["template", "pars", "lab", "--tag", "Owner=Ada"]), 0, &[]));
    assert!(pars_template.starts_with("# Rendered by `cargo knot template pars lab`, cloudknot "), "{pars_template}");
    let options = ["--offline", "--fast", "--knot", "sweep", "--pars", "lab"];
    let sweep = |arguments: &[&str]| knot(&account, &[arguments, &options].concat());
    let role = account.script(SERVICE_ROLE);
    let template = ["template", "knot", "--service-role", &role];
    check(&mut sweep(&template), 8, &["cannot find the Pars `lab`"]);
    let creates: Vec<_> =
        account.recorder.operations().into_iter().filter(|operation| operation.contains("Create")).collect();
    assert!(creates.is_empty(), "{creates:?}");

    create_stack(&account, "cloudknot-pars-lab", &pars_template);
    let create = ["pars", "create", "lab", "--tag", "Owner=Ada"];
    check(&mut knot(&account, &create), 0, &["the Pars `lab` exists, and is up to date"]);

    let knot_template = text(check(&mut sweep(&template), 0, &[]));
    assert!(knot_template.contains("Create the stack `cloudknot-knot-sweep` from it"), "{knot_template}");
    create_stack(&account, "cloudknot-knot-sweep", &knot_template);
    assert_eq!(account.registry.requests("POST ").len(), 0, "a template alone has no image");
    let deploy = ["deploy", "--service-role", &role];
    let unchanged = "the Knot `sweep` exists, and nothing has changed";
    check(&mut sweep(&deploy), 0, &[" sent", unchanged]);
    let uploads = account.registry.requests("POST ").len();
    assert!(uploads > 0, "the deploy has not pushed the image");
    check(&mut sweep(&deploy), 0, &[unchanged]);
    assert_eq!(account.registry.requests("POST ").len(), uploads, "a second deploy pushes nothing");
    let found = json(&check(&mut knot(&account, &["doctor", "--json"]), 0, &[]));
    assert_eq!(finding(&found, "program").0, "good", "the program has the note of its Knot");
    assert_eq!(finding(&found, "Knot `sweep`").0, "good");
    assert_eq!(finding(&found, "Pars `lab`").0, "good", "the Pars of the Knot");
}

#[test]
fn rehearsal_that_cannot_ask_is_refused() {
    let Some(account) = Account::new() else { return };
    check(&mut account.knot(&["doctor", "--rehearse"]), 2, &["there is no terminal; `--yes` does not ask"]);
    check(&mut account.knot(&["doctor", "--rehearse", "--yes"]), 2, &["cannot rehearse with CLOUDKNOT_HOME"]);
    check(&mut account.knot(&["doctor", "--yes"]), 2, &["--rehearse"]);
    check(&mut account.knot(&["doctor", "--cidr", "10.0.0.0/16"]), 2, &["settings of a Pars require `--rehearse`"]);
    check(&mut account.knot(&["doctor", "--rehearse", "--compute", "ec3"]), 2, &["fargate-spot"]);
    assert_eq!(account.recorder.operations(), [""; 0]);
}
