"""Decodes the request of an AWS client into the structure that the client encoded, by the service's model.

There is one function for each encoding: query (AWS's and EC2's), JSON, XML, and single strings as in headers. A
member that is not in the model is a fault and is omitted. A string that does not have the type in the model stays a
string, so that botocore's validator, which checks the structure next, rejects it. Nothing here is specific
to an operation.
"""

import base64
import binascii
import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# Replaces a time that cannot be parsed, so that it is not reported as missing as well.
NO_TIME = datetime.fromtimestamp(0, UTC)


def describe(path):
    return path or "the request"


def below(path, name):
    return f"{path}.{name}" if path else name


def from_string(value, shape, faults, path, timestamps):
    """Returns the value that a string encodes. `timestamps` is the default format of times."""
    kind = shape.type_name
    if kind in ("integer", "long") and re.fullmatch(r"-?\d+", value, re.ASCII):
        return int(value)
    if kind in ("float", "double"):
        try:
            return float(value)
        except ValueError:
            return value
    if kind == "boolean":
        return {"true": True, "false": False}.get(value, value)
    if kind == "blob":
        return blob(value, faults, path)
    if kind == "timestamp":
        return timestamp(value, shape, faults, path, timestamps)
    if kind in ("structure", "list", "map"):
        faults.append((path, f"a string where the model has a {kind}"))
    return value


def blob(value, faults, path):
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):
        faults.append((path, "not base64"))
        return b""


def timestamp(value, shape, faults, path, default):
    form = shape.serialization.get("timestampFormat", default)
    try:
        if form == "unixTimestamp":
            return datetime.fromtimestamp(float(value), UTC)
        if form == "rfc822":
            return parsedate_to_datetime(value)
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value, re.ASCII):
            raise ValueError(value)
        return datetime.fromisoformat(value.removesuffix("Z") + "+00:00")
    except (TypeError, ValueError):
        faults.append((path, f"`{value}` is not a time in the format {form}"))
        return NO_TIME


# --- query ---


class Node:
    """One step of a name such as `Tags.member.1.Key`."""

    def __init__(self):
        self.value = None
        self.children = {}


def tree(pairs, faults):
    root = Node()
    for name, value in pairs:
        node = root
        for step in name.split("."):
            node = node.children.setdefault(step, Node())
        if node.value is not None:
            faults.append((name, "given twice"))
        node.value = value
    return root


def query(node, shape, faults, path, ec2):
    read = {"structure": query_structure, "list": query_list, "map": query_map}.get(shape.type_name)
    if read:
        return read(node, shape, faults, path, ec2)
    if node.children:
        faults.append((path, f"has members, but is a {shape.type_name} in the model"))
    return from_string(node.value or "", shape, faults, path, "iso8601")


def query_structure(node, shape, faults, path, ec2):
    if node.value is not None:
        faults.append((path, "a string where the model has a structure"))
    names = {query_name(name, member, ec2): name for name, member in shape.members.items()}
    found = {}
    for sent, child in node.children.items():
        if sent in names:
            name = names[sent]
            found[name] = query(child, shape.members[name], faults, below(path, name), ec2)
        else:
            faults.append(unknown(path, sent, names))
    return found


def query_name(name, member, ec2):
    about = member.serialization
    if ec2:
        if "queryName" in about:
            return about["queryName"]
        name = about.get("name", name)
        return name[0].upper() + name[1:]
    if about.get("flattened") and member.type_name == "list":
        return member.member.serialization.get("name", about.get("name", name))
    return about.get("name", name)


def query_list(node, shape, faults, path, ec2):
    # Only an empty list is encoded as a string: an empty one.
    if node.value == "" and not node.children and not ec2:
        return []
    if not ec2 and not shape.serialization.get("flattened"):
        node = wrapped(node, shape.member.serialization.get("name", "member"), faults, path)
    return [
        query(child, shape.member, faults, f"{path}[{at}]", ec2) for at, child in enumerate(numbered(node, faults, path))
    ]


def query_map(node, shape, faults, path, ec2):
    if not shape.serialization.get("flattened"):
        node = wrapped(node, "entry", faults, path)
    key_name, value_name = shape.key.serialization.get("name", "key"), shape.value.serialization.get("name", "value")
    names = {key_name, value_name}
    found = {}
    for entry in numbered(node, faults, path):
        faults.extend(unknown(path, sent, names) for sent in entry.children if sent not in names)
        key, value = entry.children.get(key_name), entry.children.get(value_name)
        if key is None or value is None:
            faults.append((path, f"an entry without its `{value_name if key else key_name}`"))
            continue
        key = query(key, shape.key, faults, path, ec2)
        found[key] = query(value, shape.value, faults, below(path, key), ec2)
    return found


def wrapped(node, name, faults, path):
    if node.value is not None:
        faults.append((path, "a string where the model has a list or a map"))
    faults.extend(unknown(path, sent, {name}) for sent in node.children if sent != name)
    return node.children.get(name, Node())


def numbered(node, faults, path):
    if node.value is not None:
        faults.append((path, "a string where the model has a list or a map"))
    wanted = [str(at) for at in range(1, len(node.children) + 1)]
    if set(wanted) != set(node.children):
        faults.append((path, f"the elements are numbered {', '.join(node.children)} instead of 1, 2, …"))
        return list(node.children.values())
    return [node.children[at] for at in wanted]


# --- JSON ---


def parse_json(body, faults):
    def once(pairs):
        names = [name for name, _ in pairs]
        faults.extend((name, "given twice") for name in sorted({name for name in names if names.count(name) > 1}))
        return dict(pairs)

    try:
        return json.loads(body, object_pairs_hook=once)
    except ValueError as error:
        faults.append(("", f"the body is not JSON: {error}"))
        return {}


def from_json(value, shape, faults, path):
    kind = shape.type_name
    if kind == "structure" and shape.is_document_type:
        return value
    if kind == "structure" and isinstance(value, dict):
        return json_structure(value, shape.members, faults, path)
    if kind == "list" and isinstance(value, list):
        return [from_json(each, shape.member, faults, f"{path}[{at}]") for at, each in enumerate(value)]
    if kind == "map" and isinstance(value, dict):
        return {key: from_json(each, shape.value, faults, below(path, key)) for key, each in value.items()}
    if kind == "blob":
        return blob(value, faults, path)
    if kind == "timestamp":
        form = shape.serialization.get("timestampFormat", "unixTimestamp")
        if isinstance(value, bool) or isinstance(value, str) == (form == "unixTimestamp"):
            faults.append((path, f"`{value}` is not a time in the format {form}"))
            return NO_TIME
        return timestamp(value, shape, faults, path, "unixTimestamp")
    # In Python, a bool is an int.
    if isinstance(value, bool) and kind != "boolean":
        return json.dumps(value)
    return value


def json_structure(value, members, faults, path):
    """Decodes the members of the body; some operations have other members elsewhere."""
    names = {member.serialization.get("name", name): name for name, member in members.items()}
    found = {}
    for sent, each in value.items():
        if sent in names:
            name = names[sent]
            found[name] = from_json(each, members[name], faults, below(path, name))
        else:
            faults.append(unknown(path, sent, names))
    return found


# --- XML ---


def from_xml(element, shape, faults, path):
    kind = shape.type_name
    if kind == "structure":
        return xml_structure(element, shape.members, faults, path)
    if kind == "list":
        name = shape.member.serialization.get("name", "member")
        faults.extend(unknown(path, local(child), {name}) for child in element if local(child) != name)
        children = [child for child in element if local(child) == name]
        return [from_xml(child, shape.member, faults, f"{path}[{at}]") for at, child in enumerate(children)]
    if kind == "map":
        # No S3 operation sends a map; a new one needs a decoder.
        faults.append((path, "is a map, and maps in XML are not supported"))
        return {}
    if len(element):
        faults.append((path, f"has members, but is a {kind} in the model"))
    return from_string(element.text or "", shape, faults, path, "iso8601")


def xml_structure(element, members, faults, path):
    names, attributes = {}, {}
    for name, member in members.items():
        sent = member.serialization.get("name", name)
        (attributes if member.serialization.get("xmlAttribute") else names)[sent.split(":")[-1]] = name
    found = {}
    for sent, value in element.attrib.items():
        name = attributes.get(sent.split("}")[-1])
        if name:
            found[name] = from_string(value, members[name], faults, below(path, name), "iso8601")
        else:
            faults.append(unknown(path, sent, attributes))
    for child in element:
        name = names.get(local(child))
        if name is None:
            faults.append(unknown(path, local(child), names))
            continue
        member = members[name]
        if member.type_name == "list" and member.serialization.get("flattened"):
            so_far = found.setdefault(name, [])
            so_far.append(from_xml(child, member.member, faults, f"{below(path, name)}[{len(so_far)}]"))
        elif name in found:
            faults.append((below(path, name), "given twice"))
        else:
            found[name] = from_xml(child, member, faults, below(path, name))
    return found


def local(element):
    return element.tag.split("}")[-1]


def unknown(path, sent, names):
    known = ", ".join(sorted(names))
    return (below(path, sent), f"unknown member of {describe(path)}; the model has: {known or 'none'}")
