#!/usr/bin/env python3
"""Renders every template of cloudknot/src/deploy/templates with each of its contexts in this folder.

    render.py <folder>     writes <folder>/<template>/<context>.yaml or .json

The file name of a context begins with the template's name: contexts/knot-spot.json is for knot.yaml.j2. Policies have one
context for all of them, policies.json. A context with `"extends": "<other>"` is merged over that other one, table by table.

The product renders with minijinja, this script with Jinja2. If minijinja's Python package is installed, both must agree.
"""

import json
import sys
from pathlib import Path

import jinja2

try:
    import minijinja
except ImportError:
    minijinja = None

HERE = Path(__file__).resolve().parent
TEMPLATES = HERE.parent.parent / "cloudknot" / "src" / "deploy" / "templates"
CONTEXTS = HERE / "contexts"


def main():
    out = Path(sys.argv[1])
    for name, template, values in all_cases():
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(render(template, values))
        print(target)


def all_cases():
    """Yields the output path, the template and the values of every case."""
    for stack in ["pars", "knot"]:
        for path in sorted(CONTEXTS.glob(f"{stack}-*.json")):
            yield f"{stack}/{path.stem}.yaml", f"{stack}.yaml.j2", context(path.stem)
    for path in sorted(TEMPLATES.glob("policies/*.json.j2")):
        for values in sorted(CONTEXTS.glob("policies*.json")):
            yield f"{values.stem}/{path.name.removesuffix('.j2')}", f"policies/{path.name}", context(values.stem)


def context(name):
    values = json.loads((CONTEXTS / f"{name}.json").read_text())
    base = values.pop("extends", None)
    return merged(context(base), values) if base else values


def merged(below, above):
    """Returns `above` with the entries that only `below` has. A table with "replace" is not merged."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    above = dict(above)
    if above.pop("replace", False):
        return above
    return {key: merged(below.get(key), above[key]) if key in above else below[key] for key in {**below, **above}}


def render(template, values):
    with_jinja2 = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    ).get_template(template).render(values)
    if minijinja:
        with_minijinja = minijinja.Environment(
            loader=lambda name: (TEMPLATES / name).read_text(),
            undefined_behavior="strict",
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            auto_escape_callback=lambda _: False,
        ).render_template(template, **values)
        if parsed(template, with_jinja2) != parsed(template, with_minijinja):
            sys.exit(f"error: Jinja2 and minijinja differ on {template}")
    return with_jinja2


def parsed(template, text):
    if template.endswith(".json.j2"):
        return json.loads(text)
    import yaml

    return yaml.safe_load(text)


if __name__ == "__main__":
    main()
