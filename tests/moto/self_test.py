"""Tests that validate.py accepts boto3 requests, and rejects them if a name, a type or a value is corrupted.

The requests come from boto3's own clients, complete with their signatures, and are intercepted before they are sent.
"""

import copy
import json
import re
from urllib.parse import parse_qsl, urlencode, urlsplit
from xml.etree import ElementTree

import boto3
from botocore.config import Config

import validate

ARN = "arn:aws:batch:eu-west-1:123456789012:job-definition/f:1"
# Members with keys that the caller chooses.
FREE = {"tags", "parameters", "options"}

CASES = [
    ("batch", "create_compute_environment", {
        "computeEnvironmentName": "sweep", "type": "MANAGED", "state": "ENABLED", "tags": {"owner": "lab"},
        "computeResources": {
            "type": "SPOT", "allocationStrategy": "SPOT_PRICE_CAPACITY_OPTIMIZED", "minvCpus": 0, "maxvCpus": 64,
            "instanceTypes": ["optimal"], "subnets": ["subnet-1"], "bidPercentage": 60, "tags": {"owner": "lab"},
            "ec2Configuration": [{"imageType": "ECS_AL2023"}],
        },
    }),
    ("batch", "create_job_queue", {
        "jobQueueName": "sweep", "priority": 1,
        "computeEnvironmentOrder": [{"order": 1, "computeEnvironment": "sweep"}],
    }),
    ("batch", "register_job_definition", {
        "jobDefinitionName": "f", "type": "container", "parameters": {"run": "1"}, "propagateTags": True,
        "containerProperties": {
            "image": "registry/sweep@sha256:00", "command": ["/worker"],
            "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "2048"}],
            "environment": [{"name": "A", "value": "b"}], "readonlyRootFilesystem": False,
            "linuxParameters": {"sharedMemorySize": 64, "tmpfs": [{"containerPath": "/x", "size": 1}]},
            "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "g"}},
            "volumes": [{"name": "v", "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}],
            "secrets": [{"name": "S", "valueFrom": "arn:aws:ssm:eu-west-1:123456789012:parameter/s"}],
        },
        "retryStrategy": {"attempts": 3, "evaluateOnExit": [{"onStatusReason": "Host EC2*", "action": "RETRY"}]},
        "timeout": {"attemptDurationSeconds": 60},
    }),
    ("batch", "submit_job", {
        "jobName": "run", "jobQueue": "sweep", "jobDefinition": ARN, "arrayProperties": {"size": 20},
        "dependsOn": [{"jobId": "1", "type": "N_TO_N"}], "parameters": {"a": "b"},
        "containerOverrides": {"environment": [{"name": "A", "value": "b"}]},
    }),
    ("batch", "describe_jobs", {"jobs": ["one", "two"]}),
    ("batch", "tag_resource", {"resourceArn": ARN, "tags": {"owner": "lab"}}),
    ("batch", "untag_resource", {"resourceArn": ARN, "tagKeys": ["owner", "lab"]}),
    ("cloudformation", "create_stack", {
        "StackName": "cloudknot-pars-default", "TemplateBody": "Resources: {}", "Capabilities": ["CAPABILITY_IAM"],
        "Parameters": [{"ParameterKey": "Vpc", "ParameterValue": "vpc-1"}, {"ParameterKey": "Cidr", "ParameterValue": ""}],
        "Tags": [{"Key": "owner", "Value": "lab"}], "NotificationARNs": [], "TimeoutInMinutes": 30, "DisableRollback": False,
        "RollbackConfiguration": {"RollbackTriggers": [{"Arn": "a", "Type": "t"}], "MonitoringTimeInMinutes": 1},
    }),
    ("cloudformation", "describe_stack_events", {"StackName": "cloudknot-pars-default"}),
    ("ecr", "get_authorization_token", {}),
    ("ecr", "create_repository", {
        "repositoryName": "sweep", "imageTagMutability": "MUTABLE", "tags": [{"Key": "owner", "Value": "lab"}],
        "imageScanningConfiguration": {"scanOnPush": True}, "encryptionConfiguration": {"encryptionType": "AES256"},
    }),
    ("ecr", "describe_images", {
        "repositoryName": "sweep", "imageIds": [{"imageTag": "t"}], "filter": {"tagStatus": "TAGGED"},
    }),
    ("iam", "simulate_principal_policy", {
        "PolicySourceArn": "arn:aws:iam::123456789012:user/lab", "ActionNames": ["batch:SubmitJob", "s3:PutObject"],
        "ContextEntries": [{"ContextKeyName": "aws:username", "ContextKeyValues": ["v"], "ContextKeyType": "string"}], "MaxItems": 10,
    }),
    ("iam", "get_role", {"RoleName": "lab"}),
    ("sts", "get_caller_identity", {}),
    ("sts", "assume_role", {
        "RoleArn": "arn:aws:iam::123456789012:role/lab", "RoleSessionName": "session", "DurationSeconds": 900,
        "Tags": [{"Key": "owner", "Value": "lab"}],
    }),
    ("ec2", "describe_subnets", {
        "Filters": [{"Name": "vpc-id", "Values": ["vpc-1", "vpc-2"]}, {"Name": "state", "Values": ["available"]}],
        "MaxResults": 100, "DryRun": False,
    }),
    ("ec2", "describe_instance_types", {"InstanceTypes": ["m5.large", "c5.large"]}),
    ("ec2", "describe_instance_type_offerings", {"LocationType": "availability-zone"}),
    ("s3", "create_bucket", {
        "Bucket": "a-bucket", "CreateBucketConfiguration": {"LocationConstraint": "eu-west-1"}, "ACL": "private",
    }),
    ("s3", "put_object", {
        "Bucket": "a-bucket", "Key": "a/b c", "Body": b"\xff\x00", "IfNoneMatch": "*", "Metadata": {"run": "1"},
    }),
    ("s3", "get_object", {"Bucket": "a-bucket", "Key": "a/b", "Range": "bytes=0-1"}),
    ("s3", "list_objects_v2", {"Bucket": "a-bucket", "Prefix": "a/", "MaxKeys": 10, "StartAfter": "a/b"}),
    ("s3", "delete_objects", {"Bucket": "a-bucket", "Delete": {"Objects": [{"Key": "a"}, {"Key": "b"}], "Quiet": True}}),
    ("s3", "upload_part", {"Bucket": "a-bucket", "Key": "a", "PartNumber": 1, "UploadId": "u", "Body": b"x"}),
    ("s3", "complete_multipart_upload", {
        "Bucket": "a-bucket", "Key": "a", "UploadId": "u", "MultipartUpload": {"Parts": [{"ETag": "e", "PartNumber": 1}]},
    }),
    ("s3", "put_bucket_lifecycle_configuration", {
        "Bucket": "a-bucket",
        "LifecycleConfiguration": {"Rules": [{
            "ID": "r", "Status": "Enabled", "Filter": {"And": {"Prefix": "p", "Tags": [{"Key": "k", "Value": "v"}]}},
            "Expiration": {"Days": 30},
        }]},
    }),
    ("logs", "get_log_events", {"logGroupName": "g", "logStreamName": "s", "limit": 100, "startFromHead": False}),
    ("logs", "filter_log_events", {
        "logGroupName": "g", "logStreamNames": ["s", "t"], "startTime": 1, "filterPattern": '"[item 17, attempt"',
    }),
    ("logs", "put_retention_policy", {"logGroupName": "g", "retentionInDays": 30}),
    ("service-quotas", "list_service_quotas", {"ServiceCode": "batch", "MaxResults": 100}),
]  # fmt: skip

# Faults other than a wrong name or type: the operation, the change to the request, and the expected message.
WRONG = [
    ("submit_job", lambda r: edit(r, lambda body: body.pop("jobName")), "Missing required parameter"),
    ("submit_job", lambda r: edit(r, lambda body: body.update(jobName=None)), "Invalid type"),
    ("submit_job", lambda r: edit(r, lambda body: body["arrayProperties"].update(size=True)), "Invalid type"),
    ("submit_job", lambda r: r.update(path="/v1/submitjobs"), "unknown operation"),
    ("submit_job", lambda r: r.update(method="PUT"), "unknown operation"),
    ("submit_job", lambda r: r.update(query="dryRun=1"), "unknown member of the query"),
    ("submit_job", lambda r: r.update(body='{"jobName":"a",' + r["body"][1:]), "given twice"),
    ("submit_job", lambda r: r["headers"].append(["x-amz-client-token", "t"]), "unknown header"),
    ("create_stack", lambda r: sub(r, "Action=CreateStack", "Action=MakeStack"), "unknown operation `MakeStack`"),
    ("create_stack", lambda r: sub(r, "Version=2010", "Version=2011"), "Version"),
    ("create_stack", lambda r: sub(r, "Parameters.member.2.", "Parameters.member.3."), "numbered"),
    ("create_stack", lambda r: sub(r, "TimeoutInMinutes=30", "TimeoutInMinutes=0"), "valid min value: 1"),
    ("get_role", lambda r: sub(r, "RoleName=lab", "RoleName=the%20lab"), "does not match"),
    ("get_role", lambda r: sub(r, "RoleName=", "RoleName=" + 200 * "x"), "at most 64"),
    ("create_repository", lambda r: edit(r, lambda body: body.update(repositoryName="x")), "Invalid length"),
    ("create_repository", lambda r: edit(r, lambda body: body.update(repositoryName="Sweep")), "does not match"),
    ("list_service_quotas", lambda r: edit(r, lambda body: body.update(MaxResults=101)), "more than 100"),
    ("describe_subnets", lambda r: sub(r, "Filter.2.Name", "Filter.4.Name"), "numbered"),
    ("describe_subnets", lambda r: sub(r, "Filter.1.Value.1", "Filter.1.Value.member.1"), "structure|members"),
    ("get_object", lambda r: r.update(query="versionID=1"), "unknown member of the query"),
    ("get_object", lambda r: r.update(query="x-id=PutObject"), "unknown operation"),
    ("upload_part", lambda r: r.update(query="x-id=UploadPart&partNumber=1"), "Missing required parameter"),
    ("get_caller_identity", lambda r: sub(r, "Action", "Account=1&Action"), "unknown member"),
    ("get_role", lambda r: sign(r, "iamm"), "unknown service"),
]


def main():
    clients, errors, corrupted = {}, [], 0
    recorded = {}
    for service, method, arguments in CASES:
        client = clients.setdefault(service, intercepted_client(service))
        request = recorded[method] = record(client, method, arguments)
        name, faults, warnings = validate.check(request)
        if name != f"{client.meta.service_model.service_name} {client.meta.method_to_api_mapping[method]}":
            errors.append(f"{method} was mistaken for {name}")
        errors.extend(f"{method} was rejected: {validate.line(each)}" for each in [*faults, *warnings])
        for what, bad in corrupt(request):
            corrupted += 1
            if not validate.check(bad)[1]:
                errors.append(f"{method} was not rejected with {what}")
    for method, change, expected in WRONG:
        corrupted += 1
        bad = copy.deepcopy(recorded[method])
        change(bad)
        reported = "\n".join(validate.line(each) for each in validate.check(bad)[1])
        if not re.search(expected, reported):
            errors.append(f"{method}, corrupted to report `{expected}`, reported: {reported or 'nothing'}")
    unlisted = edit(copy.deepcopy(recorded["create_compute_environment"]), lambda body: body.update(state="SLEEPING"))
    if validate.check(unlisted)[1:] != ([], [("state", "`SLEEPING` is none of ENABLED, DISABLED")]):
        errors.append("an unknown value of an enumeration is not a warning")
    for each in errors:
        print(f"error: {each}")
    print(f"{len(CASES)} boto3 requests, {corrupted} corrupted requests: {len(errors)} misjudged")
    return 1 if errors else 0


# --- boto3 requests ---


def intercepted_client(service):
    """Returns a client whose requests are not sent."""
    client = boto3.client(
        service, region_name="eu-west-1", aws_access_key_id="AKIATEST", aws_secret_access_key="a-secret",
        endpoint_url="http://127.0.0.1:9", config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )  # fmt: skip
    client.meta.events.register("before-send", catch)
    return client


class RequestCaught(Exception):
    """Ends a call once the request is complete."""


def catch(request, **_):
    raise RequestCaught(request)


def record(client, method, arguments):
    """Returns the request of a call in the format of the recorder."""
    try:
        getattr(client, method)(**arguments)
        raise AssertionError(f"{method} sent nothing")
    except RequestCaught as caught:
        (request,) = caught.args
    url = urlsplit(request.url)
    body = request.body or b""
    body = body.read() if hasattr(body, "read") else body.encode() if isinstance(body, str) else body
    headers = [[name, value.decode() if isinstance(value, bytes) else value] for name, value in request.headers.items()]
    recorded = {"method": request.method, "path": url.path, "query": url.query, "headers": headers}
    try:
        return recorded | {"body": body.decode()}
    except UnicodeDecodeError:
        return recorded | {"body_hex": body.hex()}


# --- corruption ---


def corrupt(request):
    """Yields a copy of the request for each of its names and types, with that one changed, and a description of the change."""
    for at, (name, value) in enumerate(pairs := parse_qsl(request["query"], keep_blank_values=True)):
        if name != "x-id":
            yield f"{name} in the query misspelt", request | {"query": put(pairs, at, (name + "x", value))}
        if value.isdigit() and name != "list-type":
            yield f"{name} of another type in the query", request | {"query": put(pairs, at, (name, "many"))}
    for at, (name, value) in enumerate(request["headers"]):
        if name.lower().startswith(("x-amz-acl", "if-", "range")):
            headers = [*request["headers"][:at], [name + "x", value], *request["headers"][at + 1 :]]
            yield f"the header {name} misspelt", request | {"headers": headers}
    body = request.get("body", "")
    if body.startswith("{"):
        for what, bad in corrupt_json(json.loads(body)):
            yield what, request | {"body": json.dumps(bad)}
    elif body.startswith("<"):
        for what, bad in corrupt_xml(body):
            yield what, request | {"body": bad}
    elif body.startswith("Action="):
        yield from ((what, request | {"body": bad}) for what, bad in corrupt_query(body))


def put(pairs, at, pair):
    return urlencode([*pairs[:at], pair, *pairs[at + 1 :]])


def corrupt_query(body):
    pairs = parse_qsl(body, keep_blank_values=True)
    for at, (name, value) in enumerate(pairs):
        if name in ("Action", "Version"):
            continue
        steps = name.split(".")
        for step, word in enumerate(steps):
            if not word.isdigit():
                changed = ".".join([*steps[:step], word + "x", *steps[step + 1 :]])
                yield f"{changed} for {name}", put(pairs, at, (changed, value))
        if value.isdigit() or value in ("true", "false"):
            yield f"{name} of another type", put(pairs, at, (name, "many"))
        yield f"members in {name}", put(pairs, at, (name + ".x", value))


def corrupt_json(value, free=False):
    """Yields every corruption of this part of a body. `free` means that the caller chooses the names."""
    if isinstance(value, dict):
        for name, each in value.items():
            rest = {other: kept for other, kept in value.items() if other != name}
            if not free:
                yield f"{name}x for {name}", rest | {name + "x": each}
            for what, bad in corrupt_json(each, name in FREE):
                yield f"{name}: {what}", rest | {name: bad}
    elif isinstance(value, list):
        yield "a list as a structure", {"of": value}
        for at, each in enumerate(value):
            for what, bad in corrupt_json(each):
                yield what, [*value[:at], bad, *value[at + 1 :]]
    elif isinstance(value, str):
        yield "a string as a number", 7
        yield "a string as a list", [value]
    elif isinstance(value, bool):
        yield "a boolean as a string", str(value).lower()
    else:
        yield "a number as a string", str(value)


def corrupt_xml(body):
    for at, element in enumerate(ElementTree.fromstring(body).iter()):
        yield f"<{element.tag}> misspelt", changed_xml(body, at, tag=element.tag + "x")
        if element.text and (element.text.isdigit() or element.text in ("true", "false")):
            yield f"<{element.tag}> of another type", changed_xml(body, at, text="many")


def changed_xml(body, at, **changes):
    root = ElementTree.fromstring(body)
    element = list(root.iter())[at]
    for name, value in changes.items():
        setattr(element, name, value)
    return ElementTree.tostring(root, encoding="unicode")


def edit(request, change):
    body = json.loads(request["body"])
    change(body)
    request["body"] = json.dumps(body)
    return request


def sub(request, old, new):
    assert old in request["body"], f"{old} is not in {request['body']}"
    request["body"] = request["body"].replace(old, new)


def sign(request, service):
    for header in request["headers"]:
        if header[0].lower() == "authorization":
            header[1] = re.sub(r"/\w+/aws4_request", f"/{service}/aws4_request", header[1])
