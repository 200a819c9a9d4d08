//! Pars as a user creates and clobbers them with `cargo knot`, against moto: every request is validated on its way, and
//! AWS's own client lists the remaining resources at the end.

use std::sync::atomic::{AtomicBool, Ordering};

use cloudknot_tests::counterparts::check;
use cloudknot_tests::moto::REGION;
use cloudknot_tests::recorder::ResponseOverride;
use serde_json::Value;

use crate::account::{Account, json};

/// Script that creates the user's own subnet in the default VPC, without public addresses, and prints the IDs of the
/// subnets that AWS has created.
const OWN_SUBNET: &str = "
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

    let created = json(&check(&mut account.knot(&create), 0, &["creating the stack `cloudknot-pars-lab`"]));
    let other_home = tempfile::tempdir().unwrap();
    let found = json(&check(&mut account.knot_of(other_home.path(), &["pars", "show", "lab", "--json"]), 0, &[]));
    assert_eq!(found, created, "another machine finds the Pars by its name alone");
    let listed = json(&check(&mut account.knot(&["pars", "list", "--json"]), 0, &[]));
    assert_eq!(listed, Value::from(vec![created.clone()]));

    let (again, calls) = account.calls(&mut account.knot(&create));
    assert_eq!((json(&again), calls), (created.clone(), vec!["cloudformation DescribeStacks".to_owned()]));
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
    let bucket = created["bucket"].as_str().unwrap();
    account
        .script(&format!("import boto3; boto3.client('s3').put_object(Bucket='{bucket}', Key='knots/a/b', Body=b'1')"));
    check(&mut account.knot(&["pars", "clobber", "lab"]), 0, &["emptying the bucket", "deleted the Pars `lab`"]);
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
    let created = json(&check(&mut account.knot(&create), 0, &[]));
    assert_eq!(
        [&created["bucket"], &created["prefix"], &created["instance_role"]],
        ["of-the-lab", "team/", "instances"].map(Value::from).each_ref()
    );
    check(&mut account.knot(&["pars", "clobber", "lab"]), 0, &[]);
    let remaining = account.remaining();
    assert_eq!(remaining["buckets"], Value::from(vec!["of-the-lab"]));
    assert_eq!(remaining["roles"], Value::from(vec!["instances", "starter"]));
    let absent = ["pars", "create", "lab", "--instance-role", "nobody"];
    check(&mut account.knot(&absent), 8, &["cannot find the role `nobody`", "hint: set the name of an existing role"]);
    println!("{}", account.recorder.validate());
}

#[test]
fn default_vpc_uses_only_default_subnets() {
    let Some(account) = Account::new() else { return };
    let default_subnets = account.script(OWN_SUBNET);
    let created = check(
        &mut account.knot(&["pars", "create", "lab", "--json"]),
        0,
        &["runs in it are deleted after 30 days (--expire-runs)"],
    );
    let mut subnets: Vec<String> = serde_json::from_value(json(&created)["subnets"].clone()).unwrap();
    subnets.sort();
    assert_eq!(subnets.join(" "), default_subnets);
    let again = check(&mut account.knot(&["pars", "create", "lab"]), 0, &["is up to date"]);
    assert!(!String::from_utf8_lossy(&again.stderr).contains("deleted after"), "the note is printed again");
    let unlimited = check(&mut account.knot(&["pars", "create", "other", "--expire-runs", "0"]), 0, &[]);
    assert!(!String::from_utf8_lossy(&unlimited.stderr).contains("deleted after"));
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
fn failed_stack_reports_first_error_and_is_recreated() {
    let Some(account) = Account::new() else { return };
    // Until it is deleted, the stack looks like one that was rolled back.
    let is_broken = AtomicBool::new(true);
    let newest_first = [
        failed("SecurityGroup", "AWS::EC2::SecurityGroup", "a later failure"),
        failed("InstanceRole", "AWS::IAM::Role", "Resource creation cancelled"),
        failed("Bucket", "AWS::S3::Bucket", "no more buckets can be created"),
    ];
    let events = format!("<StackEvents>{}", newest_first.concat());
    account.recorder.override_responses(move |request| {
        let change = |from: &str, to: &str| Some(ResponseOverride::Change(from.to_owned(), to.to_owned()));
        match request.operation().as_str() {
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
            "caused by: Bucket (AWS::S3::Bucket): no more buckets can be created",
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
