#!/usr/bin/env python3
"""Creates every rendered stack at a moto server, which shows that a template parses, resolves and creates. Needs boto3.

    create.py <folder that render.py wrote> <address of the moto server>

The server's state is wiped before each stack. What moto cannot take stands here: `mended`, NOT_MADE and DELETE_FAILS.
"""

import sys
import urllib.request
from pathlib import Path

import boto3
import yaml
from botocore.exceptions import ClientError

# moto passes over what it does not know.
NOT_MADE = {"AWS::S3::BucketPolicy"}
# moto deletes a VPC before its subnets and route tables, and then refuses. AWS goes by what refers to what.
DELETE_FAILS = {"pars-nat", "pars-no-internet", "pars-public-ip"}
SERVICE_ROLE = "arn:aws:iam::123456789012:role/service-role/AWSBatchServiceRole"


def main():
    folder, address = Path(sys.argv[1]), sys.argv[2]
    complaints = 0
    for path in sorted(folder.glob("*/*.yaml")):
        try:
            resources = create(path, address)
            print(f"{path.stem}: {resources} resources")
        except (ClientError, AssertionError) as error:
            complaints += 1
            print(f"error: {path.stem}: {error}", file=sys.stderr)
    sys.exit(1 if complaints else 0)


def create(path, address):
    urllib.request.urlopen(urllib.request.Request(f"{address}/moto-api/reset", method="POST"))

    def client(service):
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        return boto3.client(service, endpoint_url=address, region_name="us-east-1", **keys)

    stacks, name, text = client("cloudformation"), path.stem, path.read_text()
    stacks.create_stack(
        StackName=name,
        TemplateBody=mended(with_what_is_there(text, client("ec2"), client("iam"))),
        Capabilities=["CAPABILITY_IAM"],
    )
    stack = stacks.describe_stacks(StackName=name)["Stacks"][0]
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack["StackStatus"]
    wanted = yaml.safe_load(text)
    made = {each.get("LogicalResourceId") for each in stacks.describe_stack_resources(StackName=name)["StackResources"]}
    missing = {key for key, each in wanted["Resources"].items() if each["Type"] not in NOT_MADE} - made
    assert not missing, f"not made: {missing}"
    outputs = {each["OutputKey"] for each in stack.get("Outputs", [])}
    assert outputs == set(wanted["Outputs"]), f"no outputs: {set(wanted['Outputs']) - outputs}"
    if name not in DELETE_FAILS:
        stacks.delete_stack(StackName=name)
    return len(made)


def with_what_is_there(text, ec2, iam):
    """The contexts name parts of a network and roles; here they get the ids that moto gave to such parts."""
    vpc = next(vpc for vpc in ec2.describe_vpcs()["Vpcs"] if vpc["IsDefault"])
    subnets = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["Subnets"]
    group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    text = text.replace("vpc-0123456789abcdef0", vpc["VpcId"]).replace("sg-0123456789abcdef0", group)
    for number, subnet in enumerate(subnets[:2]):
        text = text.replace(f"subnet-0123456789abcdef{number}", subnet["SubnetId"])
    for role, folder in [("ecsInstanceRole", "/"), ("AWSBatchServiceRole", "/service-role/")]:
        iam.create_role(RoleName=role, Path=folder, AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName="cloudknot-pars-lab-InstanceProfile-1A2B3C")
    return text


def mended(text):
    """A compute environment without a service role is an error 500 for moto; for AWS it is the way to in-place updates."""
    template = yaml.safe_load(text)
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Batch::ComputeEnvironment":
            resource["Properties"].setdefault("ServiceRole", SERVICE_ROLE)
    return yaml.safe_dump(template)


if __name__ == "__main__":
    main()
