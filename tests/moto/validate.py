#!/usr/bin/env python3
"""Checks recorded AWS requests, member by member, against botocore's models of the services.

    validate.py REQUESTS.jsonl      prints one line per fault; exits with 1 if there is a fault
    validate.py --self-test         tests that faults are found

Each line of the file is a request as `tests/src/recorder.rs` records it. Faults are: operations and members that are not in
a model, wrong types, missing required members, and violations of a model's lengths, ranges and patterns. An unknown value of
an enumeration is a warning, because the services add values. Limits that the models do not contain (the length of a job's
name, for example) are not checked.
"""

import functools
import json
import sys
from collections import Counter
from urllib.parse import parse_qsl, unquote
from xml.etree import ElementTree

import botocore.exceptions
import botocore.session
import regex
from botocore.validate import ParamValidator

import wire

# Names of the models that differ from the service name in the signature.
MODELS = {"servicequotas": "service-quotas", "elasticfilesystem": "efs"}
# Headers that belong to HTTP, to the signature or to the SDKs, and not to an operation.
TRANSPORT = {
    "accept", "accept-encoding", "amz-sdk-invocation-id", "amz-sdk-request", "authorization", "connection",
    "content-encoding", "content-length", "content-md5", "content-type", "expect", "host", "transfer-encoding", "user-agent",
    "x-amz-content-sha256", "x-amz-date", "x-amz-decoded-content-length", "x-amz-security-token", "x-amz-target",
    "x-amz-trailer", "x-amz-user-agent", "x-amzn-query-mode", "x-amzn-trace-id",
}  # fmt: skip
# Prefixes of the checksum headers. There is one for each algorithm, and not all of them are in the models of all operations.
CHECKSUMS = ("x-amz-checksum-", "x-amz-sdk-checksum-algorithm")


class InvalidRequest(Exception):
    """The request matches no operation of a model."""


def main():
    if sys.argv[1:] == ["--self-test"]:
        import self_test

        sys.exit(self_test.main())
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        requests = [json.loads(line) for line in file]
    faults, warnings, operations = Counter(), Counter(), set()
    for request in requests:
        name, new_faults, new_warnings = check(request)
        operations.add(name)
        faults.update(f"{name}: {line(fault)}" for fault in new_faults)
        warnings.update(f"warning: {name}: {line(warning)}" for warning in new_warnings)
    for each, times in [*warnings.items(), *faults.items()]:
        print(each if times == 1 else f"{each} ({times} times)")
    if faults:
        print(f"{len(requests)} requests of {len(operations)} operations: {len(faults)} faults")
        sys.exit(1)
    print(f"{len(requests)} requests of {len(operations)} operations: no faults")


def line(fault):
    path, reason = fault
    return " ".join(f"{wire.describe(path)}: {reason}".split())


def check(request):
    """Returns the operation's name, the faults and the warnings, each of which is a path and a reason."""
    request = Request(request)
    try:
        model = model_of(request)
        read = READERS[model.metadata["protocol"]]
        faults = []
        operation, found = read(request, model, faults)
    except InvalidRequest as error:
        return f"{request.service} {request.method} {request.path}", [("", str(error))], []
    shape = operation.input_shape
    warnings = []
    if shape is None:
        faults.extend((name, "the operation has no members") for name in found)
    else:
        report = ParamValidator().validate(found, shape).generate_report()
        faults.extend(("", each) for each in report.splitlines())
        constraints(found, shape, "", faults, warnings)
    return f"{model.service_name} {operation.name}", faults, warnings


class Request:
    """A recorded request."""

    def __init__(self, recorded):
        self.method, self.path = recorded["method"], recorded["path"]
        self.query = parse_qsl(recorded["query"], keep_blank_values=True)
        self.headers = [(name.lower(), value) for name, value in recorded["headers"]]
        self.body = bytes.fromhex(recorded["body_hex"]) if "body_hex" in recorded else recorded["body"].encode()
        self.service = service(dict(self.headers).get("authorization", ""), self.body)

    def header(self, name):
        return dict(self.headers).get(name, "")


def service(authorization, body):
    """Returns the service that a request is signed for: `Credential=KEY/DAY/REGION/SERVICE/aws4_request`."""
    scope = authorization.partition("Credential=")[2].partition(",")[0].split("/")
    if len(scope) == 5:
        return scope[3]
    # An exchange of a foreign token is not signed.
    return "sts" if b"Action=AssumeRoleWith" in body else "unsigned"


@functools.cache
def load(name):
    return botocore.session.get_session().get_service_model(name)


def model_of(request):
    try:
        return load(MODELS.get(request.service, request.service))
    except botocore.exceptions.UnknownServiceError:
        raise InvalidRequest(f"unknown service `{request.service}`") from None


def operation_named(model, name):
    if name not in model.operation_names:
        raise InvalidRequest(f"unknown operation `{name}`")
    return model.operation_model(name)


# --- the protocols ---


def read_query(request, model, faults):
    if request.path != "/":
        raise InvalidRequest("requests of the query protocol go to `/`")
    pairs = [*request.query, *parse_qsl(request.body.decode(), keep_blank_values=True)]
    fields = dict(pairs)
    operation = operation_named(model, fields.get("Action", ""))
    if fields.get("Version") != model.api_version:
        faults.append(("Version", f"is {fields.get('Version')}, but the model has {model.api_version}"))
    node = wire.tree([pair for pair in pairs if pair[0] not in ("Action", "Version")], faults)
    if operation.input_shape is None:
        return operation, dict(node.children)
    ec2 = model.metadata["protocol"] == "ec2"
    return operation, wire.query(node, operation.input_shape, faults, "", ec2)


def read_json(request, model, faults):
    prefix, _, name = request.header("x-amz-target").rpartition(".")
    if prefix != model.metadata["targetPrefix"]:
        raise InvalidRequest(f"x-amz-target is `{prefix}`, but the model has `{model.metadata['targetPrefix']}`")
    operation = operation_named(model, name)
    wanted = f"application/x-amz-json-{model.metadata['jsonVersion']}"
    if (request.method, request.path, request.header("content-type")) != ("POST", "/", wanted):
        faults.append(("", f"is {request.method} {request.path}, but must be POST / of {wanted}"))
    body = wire.parse_json(request.body or b"{}", faults)
    if operation.input_shape is None:
        return operation, body
    return operation, wire.from_json(body, operation.input_shape, faults, "")


def read_rest(request, model, faults):
    operation, labels, literals = find(request, model)
    shape = operation.input_shape
    members = shape.members if shape else {}
    found = {}
    elsewhere = {"uri": labels, "querystring": {}, "header": {}}
    for name, value in request.query:
        if (name, value) not in literals and name != "x-id":
            elsewhere["querystring"].setdefault(name, []).append(value)
    for name, value in request.headers:
        elsewhere["header"].setdefault(name, []).append(value)
    inside = {}
    for name, member in members.items():
        location, sent = member.serialization.get("location"), member.serialization.get("name", name)
        if location is None:
            inside[name] = member
        elif location == "headers":
            if entries := prefixed(elsewhere["header"], sent.lower()):
                found[name] = entries
        else:
            values = elsewhere[location].pop(sent.lower() if location == "header" else sent, None)
            if values is not None:
                found[name] = read_strings(values, member, location, faults, name)
    for name in elsewhere["querystring"]:
        faults.append((name, "unknown member of the query"))
    for name in elsewhere["header"]:
        if name not in TRANSPORT and not name.startswith(CHECKSUMS):
            faults.append((name, "unknown header"))
    found.update(read_body(request, model, shape, inside, faults))
    return operation, found


def prefixed(headers, prefix):
    names = [name for name in headers if name.startswith(prefix)]
    return {name[len(prefix) :]: headers.pop(name)[0] for name in names}


def read_strings(values, member, location, faults, path):
    """Returns a member from the path, the query or a header."""
    timestamps = "rfc822" if location == "header" else "iso8601"
    if member.type_name == "list":
        if location == "header":
            values = [each.strip() for value in values for each in value.split(",")]
        return [
            wire.from_string(each, member.member, faults, f"{path}[{at}]", timestamps) for at, each in enumerate(values)
        ]
    if len(values) > 1:
        faults.append((path, "given twice"))
    return wire.from_string(values[0], member, faults, path, timestamps)


def read_body(request, model, shape, inside, faults):
    """Returns the members of the body, `inside`, for an operation with this shape."""
    payload = shape.serialization.get("payload") if shape else None
    if payload and inside[payload].type_name in ("blob", "string"):
        return {payload: request.body} if request.body else {}
    if not request.body:
        return {}
    if not inside:
        faults.append(("", "has a body, but the model has no members for it"))
        return {}
    whole = inside[payload] if payload else shape
    members = whole.members if payload else inside
    if model.metadata["protocol"] == "rest-json":
        found = wire.json_structure(wire.parse_json(request.body, faults), members, faults, "")
        return {payload: found} if payload else found
    try:
        root = ElementTree.fromstring(request.body)
    except ElementTree.ParseError as error:
        faults.append(("", f"the body is not XML: {error}"))
        return {}
    name = whole.serialization.get("name", whole.name)
    if wire.local(root) != name:
        faults.append(("", f"the body is a `{wire.local(root)}`, but the model has a `{name}`"))
    found = wire.xml_structure(root, members, faults, "")
    return {payload: found} if payload else found


READERS = {
    "query": read_query,
    "ec2": read_query,
    "json": read_json,
    "rest-json": read_rest,
    "rest-xml": read_rest,
}


# --- the operation of a REST request ---


def find(request, model):
    """Returns the operation, the members in its path, and the parts of the query that only identify the operation."""
    query, headers = dict(request.query), dict(request.headers)
    candidates = []
    for name, method, path, labels, literals, required in routes(model):
        matched = path.fullmatch(request.path)
        if not matched or method != request.method:
            continue
        if any(query.get(key) != value for key, value in literals):
            continue
        # S3's SDKs name the operation. Without the name, the required members distinguish similar operations.
        named = query.get("x-id")
        if named not in (None, name):
            continue
        present = [sent in (headers if where == "header" else query) for where, sent in required]
        if named is None and not all(present):
            continue
        values = [[unquote(value)] for value in matched.groups()]
        score = (len(literals) + len(required), len(path.pattern))
        candidates.append((score, name, dict(zip(labels, values, strict=True)), literals))
    if not candidates:
        raise InvalidRequest("unknown operation: none has this method, path and query")
    _, name, labels, literals = max(candidates, key=lambda candidate: candidate[0])
    return model.operation_model(name), labels, literals


@functools.cache
def routes(model):
    found = []
    for name in model.operation_names:
        operation = model.operation_model(name)
        # The replacement of a deprecated operation has the same route.
        if operation.deprecated:
            continue
        path, _, literals = operation.http["requestUri"].partition("?")
        pieces = regex.split(r"\{(.*?)\}", path)
        # Labels are at the odd indices, between literal pieces. A label that ends with a plus matches slashes as well.
        pattern = "".join(
            (r"(.+)" if piece.endswith("+") else r"([^/]+)") if at % 2 else regex.escape(piece)
            for at, piece in enumerate(pieces)
        )
        if not path.endswith(("+}", "/")):
            pattern += "/?"
        labels = [piece.rstrip("+") for piece in pieces[1::2]]
        required = []
        shape = operation.input_shape
        for member in shape.required_members if shape else []:
            about = shape.members[member].serialization
            if about.get("location") in ("header", "querystring"):
                sent = about.get("name", member)
                where = about["location"]
                required.append((where, sent.lower() if where == "header" else sent))
        literals = parse_qsl(literals, keep_blank_values=True)
        found.append((name, operation.http["method"], regex.compile(pattern), labels, literals, required))
    return found


# --- constraints that botocore's validator does not check ---


def constraints(value, shape, path, faults, warnings):
    kind, about = shape.type_name, shape.metadata
    limit = about.get("max")
    if kind == "structure" and isinstance(value, dict) and not shape.is_document_type:
        for name, each in value.items():
            if name in shape.members:
                constraints(each, shape.members[name], wire.below(path, name), faults, warnings)
    elif kind == "list" and isinstance(value, list):
        at_most(len(value), limit, "elements", path, faults)
        for at, each in enumerate(value):
            constraints(each, shape.member, f"{path}[{at}]", faults, warnings)
    elif kind == "map" and isinstance(value, dict):
        at_most(len(value), limit, "entries", path, faults)
        for key, each in value.items():
            constraints(key, shape.key, f"{path} (key {key})", faults, warnings)
            constraints(each, shape.value, wire.below(path, key), faults, warnings)
    elif kind == "string" and isinstance(value, str):
        at_most(len(value), limit, "characters", path, faults)
        if about.get("enum") and value not in about["enum"]:
            warnings.append((path, f"`{value}` is none of {', '.join(about['enum'])}"))
        if "pattern" in about and not regex.fullmatch(about["pattern"], value):
            faults.append((path, f"`{value}` does not match {about['pattern']}"))
    elif kind == "blob" and isinstance(value, bytes):
        at_most(len(value), limit, "bytes", path, faults)
    elif kind in ("integer", "long", "float", "double") and isinstance(value, int | float):
        if limit is not None and value > limit:
            faults.append((path, f"{value} is more than {limit}"))


def at_most(length, limit, unit, path, faults):
    if limit is not None and length > limit:
        faults.append((path, f"{length} {unit}, but at most {limit} are allowed"))


if __name__ == "__main__":
    main()
