#!/usr/bin/env python3
"""Checks the output of render.py for errors that cfn-lint and checkov do not detect.

    check.py <folder that render.py wrote>

- No policy, in a stack or printed, allows every action or is longer than AWS accepts.
- parliament's findings in the policies are exactly those that explained.json explains.
- Each action of a policy is needed: by a request of the tests (requests.json), by CloudFormation for a resource of the stack (its
  schemas, which cfn-lint has), or for the reason in granted.json. The policies allow all that CloudFormation may need to create and
  to delete the stacks, except for what declined.json lists.
- User data is a MIME message, whose script gives the agent the log drivers of the functions.
- No value that a user chooses can add anything to a stack or remove anything from it.
"""

import email
import json
import re
import sys
from collections import Counter, defaultdict
from fnmatch import fnmatchcase
from pathlib import Path

import yaml
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER
from parliament import analyze_policy_string

import options
import render

# Maximum length of a managed policy, in characters without whitespace.
MAX_POLICY_LEN = 6144
# A string that adds a resource if it escapes its quotes, in YAML or JSON, and that Jinja or Fn::Sub would expand.
HOSTILE = 'x"}]\n  Evil:\n    Type: "AWS::S3::Bucket" # \' {{ 7 * 7 }} {% if %} ${AWS::AccountId} \\'
# Policies with whose permissions CloudFormation handles the resources of a stack; the handlers that it calls with all of them, and
# others that it may call.
OF_STACKS = [
    ("pars", ["pars-create", "pars-network"], ["create", "read", "update", "delete", "tagging"], []),
    ("pars", ["pars-clobber"], ["delete"], ["read"]),
    ("knot", ["deploy"], ["create", "read", "update", "delete", "tagging"], []),
    ("knot", ["clobber"], ["delete"], ["read"]),
]
# Keys whose values the templates branch on, or that are not from the user.
NOT_FREE = {"kind", "internet", "architecture", "log_drivers"}


def main():
    folder = Path(sys.argv[1])
    errors = [
        *policies(folder),
        *actions(folder),
        *stacks(folder),
        *(error for case in render.all_cases() for error in escapes(*case)),
    ]
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    sys.exit(1 if errors else 0)


def policies(folder):
    explained = json.loads((render.HERE / "explained.json").read_text())
    unseen = list(explained)
    for path in sorted(folder.glob("*/policies*/*.json")):
        text = path.read_text()
        policy = json.loads(text)
        yield from too_wide(path, policy)
        length = len("".join(json.dumps(policy, separators=(",", ":")).split()))
        if length > MAX_POLICY_LEN:
            yield f"{path}: {length} characters, but AWS accepts at most {MAX_POLICY_LEN}"
        for finding in analyze_policy_string(text).findings:
            fitting = [each for each in explained if explains(each, path.stem, finding)]
            if not fitting:
                yield f"{path}: {finding.issue}: {finding.detail} {finding.location}"
            unseen = [each for each in unseen if each not in fitting]
    for each in unseen:
        yield f"explained.json: {each['policy']} no longer has {each['issue']}"


def explains(explanation, policy, finding):
    """Returns whether this is the explanation of a finding: its `detail` is a part of the finding's."""
    same = (explanation["policy"], explanation["issue"]) == (policy, finding.issue)
    return same and explanation["detail"] in str(finding.detail)


def actions(folder):
    requests, granted, declined = (
        json.loads((render.HERE / f"{name}.json").read_text()) for name in ("requests", "granted", "declined")
    )
    allowed = actions_of_policies(folder)
    needed = {name: {action for test in requests.values() for action in test.get(name, [])} for name in allowed}
    missing = set()
    for stack, names, handlers, others in OF_STACKS:
        patterns = set().union(*(allowed[name] for name in names))
        for kind in types_of_stack(folder, stack):
            missing.update((kind, action) for action in permissions(kind, handlers) if not is_in(action, patterns))
            for name in names:
                needed[name].update(permissions(kind, handlers + others))
    reasons = {(each["type"], action) for each in declined for action in each["actions"]}
    yield from (f"CloudFormation may need {action} for {kind}, which a policy lacks" for kind, action in sorted(missing - reasons))
    yield from (f"declined.json: no policy lacks {action} for {kind}" for kind, action in sorted(reasons - missing))
    unneeded = {
        (name, pattern)
        for name, patterns in allowed.items()
        for pattern in patterns
        if not any(is_in(action, {pattern}) for action in needed[name])
    }
    reasons = {(each["policy"], action) for each in granted for action in each["actions"]}
    yield from (f"{name}: nothing needs {pattern}" for name, pattern in sorted(unneeded - reasons))
    yield from (f"granted.json: {name} needs or lacks {action}" for name, action in sorted(reasons - unneeded))


def permissions(kind, handlers):
    """Returns the permissions that these handlers of a resource type have, as AWS's schema lists them."""
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema
    of_handlers = schema["handlers"] | {"tagging": schema.get("tagging", {})}
    return {action for handler in handlers for action in of_handlers.get(handler, {}).get("permissions", [])}


def is_in(action, patterns):
    return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)


def actions_of_policies(folder):
    found = defaultdict(set)
    for path in folder.glob("*/policies*/*.json"):
        for statement in json.loads(path.read_text())["Statement"]:
            found[path.stem].update(listed(statement["Action"]))
    return found


def types_of_stack(folder, stack):
    resources = (yaml.safe_load(path.read_text())["Resources"] for path in folder.glob(f"aws/{stack}/*.yaml"))
    return {resource["Type"] for each in resources for resource in each.values()}


def stacks(folder):
    for path in sorted(folder.glob("*/*/*.yaml")):
        resources = yaml.safe_load(path.read_text())["Resources"]
        for name, resource in resources.items():
            for each in resource.get("Properties", {}).get("Policies", []):
                yield from too_wide(f"{path}: {name}", each["PolicyDocument"])
            if resource["Type"] == "AWS::EC2::LaunchTemplate":
                user_data = resource["Properties"]["LaunchTemplateData"].get("UserData")
                if user_data:
                    yield from user_data_faults(f"{path}: {name}", user_data["Fn::Base64"])
                elif needs_user_data(resources):
                    yield f"{path}: {name}: there is no user data, which the log driver of a job needs"


def needs_user_data(resources):
    """Returns whether a job has a log driver that the agent of AWS's machine image offers only if it is configured."""
    jobs = [each["Properties"]["ContainerProperties"] for each in resources.values() if each["Type"] == "AWS::Batch::JobDefinition"]
    return any(job["LogConfiguration"]["LogDriver"] in ("gelf", "journald", "splunk") for job in jobs)


def user_data_faults(where, text):
    message = email.message_from_string(text)
    scripts = [part for part in message.walk() if part.get_content_type() == "text/x-shellscript"]
    if message.defects or not message.is_multipart() or len(scripts) != 1:
        yield f"{where}: the user data is not a MIME multipart message with one script"
    for script in scripts:
        first, *commands = script.get_payload().split("\n")
        line = re.fullmatch(r"echo 'ECS_AVAILABLE_LOGGING_DRIVERS=(\[.*\])' >>/etc/ecs/ecs.config", commands[0])
        if first != "#!/bin/bash" or not line or json.loads(line[1]) != options.ALL_LOG_DRIVERS:
            yield f"{where}: the user data is {text!r}"


def too_wide(where, policy):
    for statement in policy["Statement"]:
        actions, resources = listed(statement["Action"]), listed(statement["Resource"])
        if statement["Effect"] == "Allow" and "*" in actions:
            yield f"{where}: every action in {statement['Sid']}"
        if "*" in resources and any(action.endswith(":*") for action in actions):
            yield f"{where}: every action of a service on every resource in {statement['Sid']}"


def listed(value):
    return value if isinstance(value, list) else [value]


def escapes(name, template, values):
    """Renders again with every user-supplied string replaced by a hostile one. Only these strings may differ."""
    plain = render.parsed(template, render.render(template, values))
    try:
        hostile = render.parsed(template, render.render(template, with_hostile_strings(values)))
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        yield f"{name}: a value escapes: {' '.join(str(error).split())}"
        return
    if Counter(shape(plain)) != Counter(shape(hostile)):
        differing = (Counter(shape(hostile)) - Counter(shape(plain))).most_common(3)
        yield f"{name}: a value escapes: {differing}"


def with_hostile_strings(values):
    if isinstance(values, dict):
        return {key: value if is_set_by_cloudknot(values, key) else with_hostile_strings(value) for key, value in values.items()}
    if isinstance(values, list):
        return [with_hostile_strings(value) for value in values]
    return values + HOSTILE if isinstance(values, str) else values


def is_set_by_cloudknot(table, key):
    """Returns whether cloudknot sets the value: the keys that templates branch on, and a function's logical ID."""
    return key in NOT_FREE or table[key] == "Name" or (key == "key" and "job_definition" in table)


def shape(document, path=""):
    """Yields the paths of all values. Keys that users choose (names of tags and options) all count as the same key."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from shape(value, f"{path}/{'<chosen>' if HOSTILE in key or is_chosen(path, key) else key}")
    elif isinstance(document, list):
        for value in document:
            yield from shape(value, f"{path}[]")
    else:
        yield path


def is_chosen(path, key):
    return path.endswith(("/Tags", "/Options")) and not key.startswith(("cloudknot:", "awslogs-"))


if __name__ == "__main__":
    main()
