#!/usr/bin/env python3
"""Renders every template of cloudknot/src/deploy/templates with each of its contexts, in each partition of AWS.

    render.py <folder>     writes <folder>/<partition>/<template>/<context>.yaml or .json

The contexts are the files in contexts/, and the combinations of options.py. The file name of a context begins with the template's
name: contexts/knot-spot.json is for knot.yaml.j2. Policies have one context for all of them, policies.json. A context with
`"extends": "<other>"` is merged over that other one, table by table.

The product renders with minijinja, this script with Jinja2. If minijinja's Python package is installed, both must agree.
"""

import json
import sys
from itertools import product
from pathlib import Path

import jinja2

import options

try:
    import minijinja
except ImportError:
    minijinja = None

HERE = Path(__file__).resolve().parent
TEMPLATES = HERE.parent.parent / "cloudknot" / "src" / "deploy" / "templates"
CONTEXTS = HERE / "contexts"
# The partitions, with a region of each. The contexts are written for the first one.
PARTITIONS = {"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}

WHITESPACE = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
JINJA2 = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, **WHITESPACE)
if minijinja:
    MINIJINJA = minijinja.Environment(
        loader=lambda name: (TEMPLATES / name).read_text(),
        undefined_behavior="strict",
        auto_escape_callback=lambda _: False,
        **WHITESPACE,
    )


def main():
    out = Path(sys.argv[1])
    for partition, (name, template, values) in product(PARTITIONS, all_cases()):
        target = out / partition / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(render(template, in_partition(partition, values)))
        print(target)


def all_cases():
    """Yields the output path, the template and the values of every case."""
    for stack in ["pars", "knot"]:
        for path in sorted(CONTEXTS.glob(f"{stack}-*.json")):
            yield f"{stack}/{path.stem}.yaml", f"{stack}.yaml.j2", context(path.stem)
        for number, values in enumerate(combined(*options.STACKS[stack])):
            yield f"{stack}/combination-{number:02}.yaml", f"{stack}.yaml.j2", values
    yield "knot/many-functions.yaml", "knot.yaml.j2", with_many_functions(context("knot-spot-everything"))
    for path in sorted(TEMPLATES.glob("policies/*.json.j2")):
        for values in sorted(CONTEXTS.glob("policies*.json")):
            yield f"{values.stem}/{path.name.removesuffix('.j2')}", f"policies/{path.name}", context(values.stem)


def context(name):
    values = json.loads((CONTEXTS / f"{name}.json").read_text())
    base = values.pop("extends", None)
    return merged(context(base), values) if base else values


def combined(base, all_options, is_possible, together):
    """Yields the context of every combination of options."""
    for chosen in options.combinations(all_options, is_possible, together):
        values = context(base)
        for change in (all_options[name][value] for name, value in chosen.items()):
            change = dict(change)
            of_function = change.pop("function", {})
            values = merged(values, change)
            if "functions" in values:
                values["functions"] = [merged(function, of_function) for function in values["functions"]]
        yield values


def with_many_functions(values):
    """Returns a context with so many functions that the template has to be fetched from the bucket."""
    names = ("key", "name", "job_definition")
    numbered = lambda function, number: function | {name: f"{function[name]}{number}" for name in names}
    return values | {"functions": [numbered(function, number) for number in range(75) for function in values["functions"]]}


def in_partition(partition, values):
    """Returns a context with the ARNs, the region and the endpoints of a partition."""
    text = json.dumps(values).replace("arn:aws:", f"arn:{partition}:").replace(PARTITIONS["aws"], PARTITIONS[partition])
    values = json.loads(text)
    if values.get("partition") == "aws":
        values["partition"] = partition
    if "in_china" in values.get("network", {}):
        values["network"]["in_china"] = partition == "aws-cn"
    return values


def merged(below, above):
    """Returns `above` with the entries that only `below` has. A table with "replace" is not merged."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    above = dict(above)
    if above.pop("replace", False):
        return above
    return {key: merged(below.get(key), above[key]) if key in above else below[key] for key in {**below, **above}}


def render(template, values):
    with_jinja2 = JINJA2.get_template(template).render(values)
    if minijinja:
        with_minijinja = MINIJINJA.render_template(template, **values)
        if parsed(template, with_jinja2) != parsed(template, with_minijinja):
            sys.exit(f"error: Jinja2 and minijinja differ on {template}")
    return with_jinja2


def parsed(template, text):
    if template.endswith(".json.j2"):
        return json.loads(text)
    import yaml

    return yaml.load(text, Loader=yaml.CSafeLoader)


if __name__ == "__main__":
    main()
