#!/usr/bin/env python3
"""Evaluates recorded AWS requests against IAM policies: each request must be allowed by at least one of them.

    allowed.py REQUESTS.jsonl POLICIES.json     prints, for each policy, the actions that it allows and that the requests need, as
                                                JSON; lists the requests that no policy allows on stderr, and then exits with 1
    allowed.py --self-test                      tests the evaluation

POLICIES.json is {"policies": {name: policy}, "tags": {key: value}}. The requests are read as by validate.py. The actions, resources and
condition keys of an operation are those of AWS's Service Authorization Reference, for the operations that cloudknot requests; an
operation that is missing here is an error. Queues and jobs have the tags of POLICIES.json; no other resource has tags.

This follows IAM's evaluation of identity policies without denials: an action is allowed if a statement has the action and the
resource, and all conditions of the statement hold. It does not prove that AWS allows the request.
"""

import json
import re
import sys

import validate

REGION, ACCOUNT = "eu-west-1", "123456789012"
# Services that have no permissions: the identity of the caller, and foreign tokens.
FREE = {"sts"}


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    requests, policies = sys.argv[1:]
    with open(policies, encoding="utf-8") as file:
        given = json.load(file)
    tags = {f"aws:ResourceTag/{key}": value for key, value in given["tags"].items()}
    used, refused = {name: set() for name in given["policies"]}, set()
    with open(requests, encoding="utf-8") as file:
        for line in file:
            for action, resource, context in needs(json.loads(line)):
                region = "us-east-1" if action.startswith("iam:") else REGION
                context = {"aws:RequestedRegion": region, **(tags if is_tagged(resource) else {}), **context}
                allowing = [name for name, policy in given["policies"].items() if is_allowed(policy, action, resource, context)]
                for name in allowing:
                    used[name].add(action)
                if not allowing:
                    refused.add(f"not allowed: {action} on {resource} with {json.dumps(context, sort_keys=True)}")
    print(json.dumps({name: sorted(actions) for name, actions in used.items()}))
    print("\n".join(sorted(refused)), file=sys.stderr)
    sys.exit(1 if refused else 0)


def is_tagged(resource):
    return resource.startswith((arn("batch", "job/"), arn("batch", "job-queue/")))


# --- evaluation ---


def is_allowed(policy, action, resource, context):
    return any(allows(statement, action, resource, context) for statement in policy["Statement"])


def allows(statement, action, resource, context):
    return (
        statement["Effect"] == "Allow"
        and any(fits(pattern.lower(), action.lower()) for pattern in listed(statement["Action"]))
        and any(fits(pattern, resource) for pattern in listed(statement["Resource"]))
        and all(holds(*condition, context) for condition in conditions(statement))
    )


def conditions(statement):
    for operator, keys in statement.get("Condition", {}).items():
        for key, wanted in keys.items():
            yield operator, key, listed(wanted)


def holds(operator, key, wanted, context):
    # An absent key fails a condition.
    value = context.get(key)
    if operator in ("StringEquals", "ArnEquals"):
        return value in wanted
    if operator == "StringLike":
        return value is not None and any(fits(pattern, value) for pattern in wanted)
    raise NotImplementedError(f"condition operator {operator}")


def fits(pattern, text):
    """Returns whether a pattern of IAM, in which only `*` and `?` are special, fits a text."""
    pieces = (".*" if piece == "*" else "." if piece == "?" else re.escape(piece) for piece in re.split(r"([*?])", pattern))
    return re.fullmatch("".join(pieces), text, re.DOTALL) is not None


def listed(value):
    return value if isinstance(value, list) else [value]


# --- the permissions that a request needs ---


def needs(recorded):
    """Yields the action, the resource and the context of each permission that a request needs."""
    request = validate.Request(recorded)
    if request.service in (*FREE, "unsigned"):
        return
    model = validate.model_of(request)
    operation, members = validate.READERS[model.metadata["protocol"]](request, model, [])
    for action, resource, context in OF_SERVICE[request.service](operation.name, members):
        action = action if ":" in action else f"{request.service}:{action}"
        yield action, resource, {key: value for key, value in context.items() if value is not None}


def arn(service, resource):
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"


def request_tags(tags):
    return {f"aws:RequestTag/{key}": value for key, value in tags.items()}


def on_stacks(operation, members):
    name = members.get("StackName")
    if name is None:
        # A list of all stacks requires both (API reference, `StackName` of DescribeStacks). Reported denials name either resource.
        actions = {operation, "ListStacks"}
        return [(action, resource, {}) for action in actions for resource in ("*", arn("cloudformation", "stack/*/*"))]
    stack = name if name.startswith("arn:") else arn("cloudformation", f"stack/{name}/01234567-89ab-cdef-0123-456789abcdef")
    return [(operation, stack, {}), *([("TagResource", stack, {})] if members.get("Tags") else [])]


def on_jobs(operation, members):
    if operation == "SubmitJob":
        job = arn("batch", "job/01234567-89ab-cdef-0123-456789abcdef")
        submitted = [(operation, each, {}) for each in (members["jobDefinition"], members["jobQueue"], job)]
        return [*submitted, ("TagResource", job, request_tags(members["tags"]))] if members.get("tags") else submitted
    if operation == "TerminateJob":
        return [(operation, arn("batch", f"job/{members['jobId']}"), {})]
    if operation == "DeregisterJobDefinition":
        return [(operation, members["jobDefinition"], {})]
    return without_resource(operation)


def on_ec2(operation, members):
    if operation.startswith("Describe") or operation == "CreateDefaultVpc":
        return [(operation, "*", {})]
    raise NotImplementedError(operation)


def on_repositories(operation, members):
    if operation == "GetAuthorizationToken":
        return [(operation, "*", {})]
    names = members.get("repositoryNames") or [members["repositoryName"]]
    return [(operation, arn("ecr", f"repository/{name}"), {}) for name in names]


def on_roles(operation, members):
    if operation == "SimulatePrincipalPolicy":
        return [(operation, members["PolicySourceArn"], {})]
    if "RoleName" in members:
        return [(operation, f"arn:aws:iam::{ACCOUNT}:role/{members['RoleName']}", {})]
    return without_resource(operation)


def on_logs(operation, members):
    if operation == "DescribeLogGroups":
        return [(operation, arn("logs", "log-group:*"), {})]
    group = f"log-group:{members['logGroupName']}"
    # The resource of FilterLogEvents is the group, whatever streams it names.
    resource = group if operation == "FilterLogEvents" else f"{group}:log-stream:{members['logStreamName']}"
    return [(operation, arn("logs", resource), {})]


def on_file_systems(operation, members):
    # The resource of a mount target's action is its file system.
    file_system = members.get("FileSystemId", "fs-0123456789abcdef0")
    needed = [(operation, arn("elasticfilesystem", f"file-system/{file_system}"), {})]
    if operation == "DescribeMountTargetSecurityGroups":
        # On the network interface of the mount target (API reference of EFS).
        needed.append(("ec2:DescribeNetworkInterfaceAttribute", "*", {}))
    return needed


def on_keys(operation, members):
    return [(operation, members["KeyId"], {})]


def on_objects(operation, members):
    bucket = f"arn:aws:s3:::{members['Bucket']}"
    prefix = {"s3:prefix": members.get("Prefix")}
    if operation == "DeleteObjects":
        named = [(f"{bucket}/{each['Key']}", each.get("VersionId")) for each in members["Delete"]["Objects"]]
        return [("DeleteObjectVersion" if version else "DeleteObject", key, {}) for key, version in named]
    if action := {"HeadBucket": "ListBucket", "ListObjectsV2": "ListBucket", "ListObjectVersions": "ListBucketVersions"}.get(operation):
        return [(action, bucket, prefix)]
    key = members["Key"]
    # Without the permission to list, AWS answers that a key is forbidden and not that it is absent. It then evaluates the key as the
    # prefix.
    if operation in ("GetObject", "HeadObject"):
        return [("GetObject", f"{bucket}/{key}", {}), ("ListBucket", bucket, {"s3:prefix": key})]
    parts = ("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")
    return [("PutObject" if operation in parts else operation, f"{bucket}/{key}", {})]


def without_resource(operation, _=None):
    if operation.startswith(("Describe", "Get", "List")):
        return [(operation, "*", {})]
    raise NotImplementedError(operation)


OF_SERVICE = {
    "batch": on_jobs,
    "cloudformation": on_stacks,
    "ec2": on_ec2,
    "ecr": on_repositories,
    "elasticfilesystem": on_file_systems,
    "iam": on_roles,
    "kms": on_keys,
    "logs": on_logs,
    "s3": on_objects,
    "servicequotas": without_resource,
}


# --- self-test ---


def self_test():
    region, tag = {"aws:RequestedRegion": REGION}, "aws:ResourceTag/cloudknot:knot"
    objects = "arn:aws:s3:::data/knots/sweep/*"
    for statement, action, resource, context, expected in [
        ({}, "batch:ListJobs", "*", region, True),
        ({}, "batch:SubmitJob", "*", region, False),
        ({"Resource": objects}, "batch:ListJobs", "*", region, False),
        ({"Effect": "Deny"}, "batch:ListJobs", "*", region, False),
        ({}, "batch:listjobs", "*", region, True),
        ({"Action": ["s3:Get*"], "Resource": objects}, "s3:GetObject", "arn:aws:s3:::data/knots/sweep/a/b", {}, True),
        ({"Action": ["s3:Get*"], "Resource": objects}, "s3:GetObject", "arn:aws:s3:::data/knots/sweep-big/a", {}, False),
        ({"Condition": {"StringEquals": region}}, "batch:ListJobs", "*", region, True),
        ({"Condition": {"StringEquals": region}}, "batch:ListJobs", "*", {"aws:RequestedRegion": "us-east-1"}, False),
        ({"Condition": {"StringEquals": region}}, "batch:ListJobs", "*", {}, False),
        ({"Condition": {"StringEquals": {tag: "*"}}}, "batch:ListJobs", "*", {tag: "sweep"}, False),
        ({"Condition": {"StringLike": {tag: "sw*p"}}}, "batch:ListJobs", "*", {tag: "sweep"}, True),
        ({"Condition": {"StringLike": {tag: ["other", "sw?p"]}}}, "batch:ListJobs", "*", {tag: "sweep"}, False),
        ({"Condition": {"StringLike": {tag: "*"}}}, "batch:ListJobs", "*", {}, False),
        ({"Condition": {"StringLike": {tag: "*"}, "StringEquals": region}}, "batch:ListJobs", "*", {tag: "sweep"}, False),
    ]:
        statement = {"Effect": "Allow", "Action": "batch:ListJobs", "Resource": "*"} | statement
        assert is_allowed({"Statement": [statement]}, action, resource, context) == expected, (statement, action, context)


if __name__ == "__main__":
    main()
