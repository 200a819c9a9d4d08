//! Networks, keys and file systems of the user that a Pars or a Knot uses, against moto.

use std::process::Output;

use cloudknot_tests::counterparts::check;
use cloudknot_tests::recorder::ResponseOverride;
use serde_json::Value;

use crate::account::{Account, SERVICE_ROLE, json, text};

/// Script that creates a VPC, and prints its ID and those of its subnets: one in each zone of each kind in `kinds`. No subnet assigns
/// public addresses, as AWS creates them.
const VPC: &str = "
import boto3
ec2 = boto3.client('ec2')
vpc = ec2.create_vpc(CidrBlock='10.1.0.0/16')['Vpc']['VpcId']
print(vpc)
gateway = ec2.create_internet_gateway()['InternetGateway']['InternetGatewayId']
ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
for number, (kind, zone) in enumerate(kinds):
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=f'10.1.{number}.0/24', AvailabilityZone=zone)['Subnet']['SubnetId']
    print(subnet)
    if kind != 'isolated':
        table = ec2.create_route_table(VpcId=vpc)['RouteTable']['RouteTableId']
        ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
        target = {'GatewayId': gateway}
        if kind == 'private':
            target = {'NatGatewayId': ec2.create_nat_gateway(SubnetId=subnet, ConnectivityType='private')['NatGateway']['NatGatewayId']}
        ec2.create_route(RouteTableId=table, DestinationCidrBlock='0.0.0.0/0', **target)
";

/// Creates a VPC with these subnets, each a kind and a zone.
fn vpc(account: &Account, kinds: &str) -> (String, Vec<String>) {
    let printed = account.script(&format!("kinds = {kinds}\n{VPC}"));
    let mut ids = printed.split_whitespace().map(str::to_owned);
    (ids.next().expect("the script prints a VPC"), ids.collect())
}

fn subnets(created: &Output) -> Vec<String> {
    serde_json::from_value(json(created)["subnets"].clone()).expect("a Pars has subnets")
}

/// Returns the template of the stack, as CloudFormation has it.
fn template(account: &Account, stack: &str) -> String {
    let script = "import boto3; print(boto3.client('cloudformation').get_template(StackName=stack)['TemplateBody'])";
    account.script(&format!("stack = '{stack}'\n{script}"))
}

#[test]
fn subnets_are_chosen_by_their_routes() {
    let Some(account) = Account::new() else { return };
    let kinds =
        "[('public', 'eu-west-1a'), ('private', 'eu-west-1a'), ('private', 'eu-west-1b'), ('isolated', 'eu-west-1c')]";
    let (id, all) = vpc(&account, kinds);
    let create = ["pars", "create", "lab", "--vpc", &id, "--json"];
    let created = check(&mut account.knot(&create), 0, &[]);
    assert_eq!(subnets(&created), all[1..3], "jobs run where they have a way out without a public address");
    assert!(template(&account, "cloudknot-pars-lab").contains("Value: \"DISABLED\""));

    let chosen = ["pars", "create", "chosen", "--vpc", &id, "--subnet", &all[0], "--subnet", &all[1], "--json"];
    assert_eq!(subnets(&check(&mut account.knot(&chosen), 0, &[])), all[..2]);
    check(&mut account.knot(&chosen), 0, &["is up to date"]);
    let other = ["pars", "create", "other", "--subnet", &all[0]];
    let expected = [
        "error: cannot find the subnet",
        "in the VPC `vpc-",
        "hint: set subnets of one VPC, and this VPC (--vpc); it has",
    ];
    check(&mut account.knot(&other), 8, &expected);

    let (id, all) = vpc(&account, "[('isolated', 'eu-west-1a'), ('isolated', 'eu-west-1b')]");
    let planned = text(check(&mut account.knot(&["pars", "create", "alone", "--vpc", &id, "--dry-run"]), 0, &[]));
    let warning = format!(
        "warning: no route to the internet in {}, {}: jobs there start only if the VPC has interface endpoints of \
         com.amazonaws.eu-west-1.ecr.api, com.amazonaws.eu-west-1.ecr.dkr, com.amazonaws.eu-west-1.logs, \
         com.amazonaws.eu-west-1.ecs, com.amazonaws.eu-west-1.ecs-agent, com.amazonaws.eu-west-1.ecs-telemetry, and a gateway \
         endpoint of com.amazonaws.eu-west-1.s3; for secrets, also of com.amazonaws.eu-west-1.secretsmanager or \
         com.amazonaws.eu-west-1.ssm",
        all[0], all[1]
    );
    assert!(planned.contains(&warning), "{planned}");
    check(&mut account.knot(&["template", "pars", "alone", "--vpc", &id]), 0, &[&warning]);
    println!("{}", account.recorder.validate());
}

#[test]
fn instances_get_the_public_addresses_that_their_subnets_do_not_assign() {
    let Some(account) = Account::new() else { return };
    let (id, all) = vpc(&account, "[('public', 'eu-west-1a'), ('public', 'eu-west-1b')]");
    let created = check(&mut account.knot(&["pars", "create", "lab", "--vpc", &id, "--json"]), 0, &[]);
    assert_eq!(subnets(&created), all);
    let deploy = ["deploy", "-p", "lone", "--offline", "--fast", "--knot", "sweep", "--pars", "lab"];
    check(&mut account.knot(&deploy), 0, &[]);
    let deployed = template(&account, "cloudknot-knot-sweep");
    let interface = "{DeviceIndex: 0, AssociatePublicIpAddress: true, DeleteOnTermination: true, Groups: [\"sg-";
    assert!(deployed.contains(interface), "{deployed}");
    assert!(deployed.contains("  PublicComputeEnvironment:\n"), "AWS replaces the environment: {deployed}");
    assert!(!deployed.contains("SecurityGroupIds:"), "AWS refuses an environment that has both: {deployed}");
    println!("{}", account.recorder.validate());
}

#[test]
fn plan_names_the_costs_of_dedicated_hardware() {
    let Some(account) = Account::new() else { return };
    let plan = ["pars", "create", "lab", "--cidr", "10.0.0.0/16", "--tenancy", "dedicated", "--dry-run"];
    let planned = text(check(&mut account.knot(&plan), 0, &[]));
    assert!(planned.contains("while any dedicated instance runs, the region costs about 2 USD an hour"), "{planned}");
}

#[test]
fn new_vpc_is_only_in_zones_that_have_what_it_needs() {
    let Some(account) = Account::new() else { return };
    let zones = |internet: &str| {
        let command = ["template", "pars", "lab", "--internet", internet];
        let template = text(check(&mut account.knot(&command), 0, &[]));
        let zone =
            |line: &str| line.trim().strip_prefix("AvailabilityZone: \"").map(|zone| zone.trim_matches('"').to_owned());
        template.lines().filter_map(zone).collect::<Vec<_>>()
    };
    assert_eq!(zones("none"), ["eu-west-1a", "eu-west-1b", "eu-west-1c"]);
    let change = |operation: &'static str, from: &'static str, to: &'static str| {
        account.recorder.override_responses(move |request| {
            (request.operation() == operation).then(|| ResponseOverride::Change(from.to_owned(), to.to_owned()))
        });
    };
    change("ec2 DescribeVpcEndpointServices", "<item>eu-west-1a</item>", "");
    assert_eq!(zones("none"), ["eu-west-1b", "eu-west-1c"]);
    assert_eq!(zones("public-ip"), ["eu-west-1a", "eu-west-1b", "eu-west-1c"], "it has no endpoints");
    change("ec2 DescribeVpcEndpointServices", ".ecs-agent<", ".none<");
    check(
        &mut account.knot(&["pars", "create", "lab", "--internet", "none"]),
        2,
        &["cannot create an endpoint of `com.amazonaws.eu-west-1.ecs-agent`: eu-west-1 has no such service", "hint: "],
    );
    change("ec2 DescribeAvailabilityZones", ">euw1-az3<", ">use1-az3<");
    assert_eq!(zones("nat"), ["eu-west-1b", "eu-west-1c", "eu-west-1b"], "the last one is that of the NAT gateway");
    change("ec2 DescribeInstanceTypeOfferings", "<location>eu-west-1a</location>", "<location>eu-west-1z</location>");
    assert_eq!(zones("public-ip"), ["eu-west-1b", "eu-west-1c", "eu-west-1a"]);
    account.recorder.clear_override();
    check(&mut account.knot(&["pars", "create", "lab", "--internet", "public-ip"]), 0, &[]);
    change("ec2 DescribeInstanceTypeOfferings", "<location>eu-west-1a</location>", "<location>eu-west-1z</location>");
    assert_eq!(zones("public-ip"), ["eu-west-1a", "eu-west-1b", "eu-west-1c"], "existing subnets stay where they are");
    println!("{}", account.recorder.validate());
}

/// Script that changes the stack of the Pars `lab` to one that an earlier version has created.
pub(crate) const OLDER: &str = "
import boto3, re
stacks = boto3.client('cloudformation')
stack = 'cloudknot-pars-lab'
body = stacks.get_template(StackName=stack)['TemplateBody']
older = re.sub('GroupDescription: .*', 'GroupDescription: \"cloudknot lab: jobs; nothing comes in\"', body)
older = re.sub(r'(content.{5})[0-9a-f]{32}', r'\\g<1>' + 32 * '0', older)
assert older.count(32 * '0') == 1, older
stacks.update_stack(StackName=stack, TemplateBody=older, Capabilities=['CAPABILITY_IAM'])
";

#[test]
fn security_group_of_an_existing_pars_is_kept() {
    let Some(account) = Account::new() else { return };
    check(&mut account.knot(&["pars", "create", "lab"]), 0, &[]);
    account.script(OLDER);
    let planned = text(check(&mut account.knot(&["pars", "create", "lab", "--dry-run"]), 0, &[]));
    assert!(!planned.contains("SecurityGroup"), "{planned}");
    check(&mut account.knot(&["pars", "create", "lab"]), 0, &["changing the stack `cloudknot-pars-lab`"]);
    assert!(template(&account, "cloudknot-pars-lab").contains("jobs; nothing comes in"));
}

/// Script that deletes the default VPC.
pub(crate) const NO_DEFAULT_VPC: &str = "
import boto3
ec2 = boto3.client('ec2')
vpc = next(v['VpcId'] for v in ec2.describe_vpcs()['Vpcs'] if v['IsDefault'])
for subnet in ec2.describe_subnets(Filters=[{'Name': 'vpc-id', 'Values': [vpc]}])['Subnets']:
    ec2.delete_subnet(SubnetId=subnet['SubnetId'])
for gateway in ec2.describe_internet_gateways(Filters=[{'Name': 'attachment.vpc-id', 'Values': [vpc]}])['InternetGateways']:
    ec2.detach_internet_gateway(InternetGatewayId=gateway['InternetGatewayId'], VpcId=vpc)
ec2.delete_vpc(VpcId=vpc)
";

#[test]
fn default_vpc_that_is_created_is_announced() {
    let Some(account) = Account::new() else { return };
    account.script(NO_DEFAULT_VPC);
    let note = "this region has no default VPC: it is created first, and remains when the Pars is deleted";
    let planned = text(check(&mut account.knot(&["pars", "create", "lab", "--dry-run"]), 0, &[]));
    assert!(planned.contains(note), "{planned}");
    let created =
        check(&mut account.knot(&["pars", "create", "lab", "--json"]), 0, &[note, "creating the default VPC"]);
    assert_eq!(subnets(&created).len(), 3);
    check(&mut account.knot(&["pars", "clobber", "lab"]), 0, &[]);
    let found = "import boto3; print(len(boto3.client('ec2').describe_vpcs()['Vpcs']))";
    assert_eq!(account.script(found), "1");
}

/// Script that creates a KMS key with the policy that AWS gives to a new one, and prints its ARN.
const KEY: &str = "
import boto3, json
policy = {'Version': '2012-10-17', 'Statement': [{
    'Effect': 'Allow', 'Principal': {'AWS': 'arn:aws:iam::123456789012:root'}, 'Action': 'kms:*', 'Resource': '*'}]}
print(boto3.client('kms').create_key(Policy=json.dumps(policy))['KeyMetadata']['Arn'])
";

/// Script that adds a statement to the policy of a key.
const ALLOW: &str = "
import boto3, json
kms = boto3.client('kms')
policy = json.loads(kms.get_key_policy(KeyId=key, PolicyName='default')['Policy'])
policy['Statement'].append(json.loads(statement))
kms.put_key_policy(KeyId=key, PolicyName='default', Policy=json.dumps(policy))
";

#[test]
fn key_that_logs_cannot_use_creates_nothing() {
    let Some(account) = Account::new() else { return };
    let key = account.script(KEY);
    let create = ["pars", "create", "lab", "--kms-key", &key];
    let expected = [
        &*format!("error: cannot encrypt the log group `/cloudknot/lab`: the policy of `{key}` does not allow it"),
        "hint: the policy of the key must have this statement, because CloudWatch Logs uses the key: {",
        "; nothing was created",
    ];
    let refused = check(&mut account.knot(&create), 2, &expected);
    account.check_empty(&[]);
    account.recorder.override_responses(|request| {
        let denied = r#"{"__type": "AccessDeniedException", "message": "no"}"#.to_owned();
        (request.operation() == "kms GetKeyPolicy").then_some(ResponseOverride::Respond(400, denied))
    });
    let planned = text(check(&mut account.knot(&[&create[..], &["--dry-run"]].concat()), 0, &[]));
    assert!(planned.contains("the KMS key was not checked: cannot read the policy of the KMS key"), "{planned}");
    account.recorder.clear_override();
    let absent = "arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef";
    check(
        &mut account.knot(&["pars", "create", "lab", "--kms-key", absent]),
        8,
        &["cannot read the policy of the KMS key"],
    );

    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    let (start, end) = (refused.find('{').expect("a statement"), refused.rfind('}').expect("a statement"));
    let statement: Value =
        serde_json::from_str(&refused[start..=end].replace('\n', " ")).expect("the statement is JSON");
    account.script(&format!("key = '{key}'\nstatement = '{statement}'\n{ALLOW}"));
    check(&mut account.knot(&create), 0, &[]);

    // The key could not be checked, and CloudWatch Logs refuses it.
    account.recorder.override_responses(|request| match request.operation().as_str() {
        "kms GetKeyPolicy" => {
            Some(ResponseOverride::Respond(400, r#"{"__type": "AccessDeniedException", "message": "no"}"#.to_owned()))
        }
        "cloudformation DescribeStacks" => {
            let reason = "The specified KMS key does not exist or is not allowed to be used with the log group";
            let failed = format!("ROLLBACK_COMPLETE</StackStatus><StackStatusReason>{reason}</StackStatusReason>");
            Some(ResponseOverride::Change("CREATE_COMPLETE</StackStatus>".to_owned(), failed))
        }
        _ => None,
    });
    let other = ["pars", "create", "other", "--kms-key", &key];
    check(
        &mut account.knot(&other),
        7,
        &["is not allowed to be used", "hint: the policy of the key must have this statement"],
    );
    println!("{}", account.recorder.validate());
}

/// Script that creates an EFS file system, with a mount target in each of these zones of the default VPC, and prints its ID and the
/// security group of the mount targets.
const FILE_SYSTEM: &str = "
import boto3, uuid
efs, ec2 = boto3.client('efs'), boto3.client('ec2')
vpc = next(v['VpcId'] for v in ec2.describe_vpcs()['Vpcs'] if v['IsDefault'])
group = ec2.create_security_group(GroupName=str(uuid.uuid4()), Description='files', VpcId=vpc)['GroupId']
file_system = efs.create_file_system(CreationToken=str(uuid.uuid4()))['FileSystemId']
for subnet in ec2.describe_subnets(Filters=[{'Name': 'vpc-id', 'Values': [vpc]}])['Subnets']:
    if subnet['AvailabilityZone'] in zones:
        efs.create_mount_target(FileSystemId=file_system, SubnetId=subnet['SubnetId'], SecurityGroups=[group])
print(file_system, group)
";

#[test]
fn file_system_that_jobs_cannot_mount_is_refused() {
    let Some(account) = Account::new() else { return };
    let file_system = |zones: &str| {
        let printed = account.script(&format!("zones = {zones}\n{FILE_SYSTEM}"));
        let (id, group) = printed.split_once(' ').expect("the script prints two IDs");
        (id.to_owned(), group.to_owned())
    };
    let role = account.script(SERVICE_ROLE);
    let mount = |id: &str, code: i32, expected: &[&str]| {
        let mount = format!("/data={id}");
        check(&mut account.deploy(&role, &["--pars", "lab", "--mount", &mount, "--dry-run"]), code, expected);
    };
    let created = json(&check(&mut account.knot(&["pars", "create", "lab", "--json"]), 0, &[]));
    let group = created["security_group"].as_str().unwrap_or_default();
    mount(
        "fs-0123456789abcdef0",
        8,
        &["error: cannot find the file system `fs-0123456789abcdef0`", "hint: set the ID of a file system"],
    );
    mount(&file_system("[]").0, 2, &["it has no mount target", "hint: create a mount target in each zone"]);
    let (one_zone, _) = file_system("['eu-west-1a']");
    account.script(&format!("{OPEN}\nopen_all()"));
    mount(&one_zone, 2, &["in eu-west-1b: it has no mount target there", "hint: create one"]);
    let (id, of_targets) = file_system("['eu-west-1a', 'eu-west-1b', 'eu-west-1c']");
    let closed = [
        &*format!("error: cannot mount the file system `{id}` in eu-west-1a: its mount target does not let jobs in"),
        &*format!("--group-id {of_targets} --protocol tcp --port 2049 --source-group {group}`"),
    ];
    mount(&id, 2, &closed);
    account.script(&format!("{OPEN}\nopen_for('{of_targets}', '{group}')"));
    let warning = format!(
        "warning: jobs run as the user 65532, who can write to `/data` only if the file system `{id}` allows it"
    );
    mount(&id, 0, &[&warning]);
    account.recorder.override_responses(|request| {
        let denied = r#"{"ErrorCode": "AccessDeniedException", "Message": "no"}"#.to_owned();
        request.operation().starts_with("elasticfilesystem ").then_some(ResponseOverride::Respond(403, denied))
    });
    mount(&id, 0, &[&format!("the file system `{id}` was not checked: cannot find the file system `{id}`")]);
    account.recorder.clear_override();
    let mount = format!("/data={id}");
    let warning = "which does not exist yet: create the Pars first (`cargo knot pars create ada-default`)";
    check(&mut account.deploy(&role, &["--mount", &mount, "--dry-run"]), 0, &[warning]);
    let (elsewhere, _) = vpc(&account, "[('public', 'eu-west-1a')]");
    check(&mut account.knot(&["pars", "create", "elsewhere", "--vpc", &elsewhere]), 0, &[]);
    let warning = format!("warning: the mount targets of `{id}` are in vpc-");
    check(&mut account.deploy(&role, &["--pars", "elsewhere", "--mount", &mount, "--dry-run"]), 0, &[&warning]);
    println!("{}", account.recorder.validate());
}

/// Functions that let NFS into security groups.
const OPEN: &str = "
import boto3
ec2 = boto3.client('ec2')
def open_for(group, source):
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[{
        'IpProtocol': 'tcp', 'FromPort': 2049, 'ToPort': 2049, 'UserIdGroupPairs': [{'GroupId': source}]}])
def open_all():
    for group in ec2.describe_security_groups()['SecurityGroups']:
        if group['Description'] == 'files':
            ec2.authorize_security_group_ingress(GroupId=group['GroupId'], IpPermissions=[{
                'IpProtocol': 'tcp', 'FromPort': 2049, 'ToPort': 2049, 'IpRanges': [{'CidrIp': '172.31.0.0/16'}]}])
";
