#!/usr/bin/env bash
# Renders the stacks and policies with every context, and looks at them with cfn-lint, checkov and check.py. No network, no
# account; the tools are installed once, into a folder of their own.
#
#   tests/stacks/check.sh             --install: the tools, and nothing else
#
# CLOUDKNOT_STACK_TOOLS is a Python environment that has what requirements.txt lists; without it, one is made under target/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target="${CARGO_TARGET_DIR:-$PWD/target}"
tools="${CLOUDKNOT_STACK_TOOLS:-$target/stack-tools}"
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
export PYTHONDONTWRITEBYTECODE=1

if [[ -z "${CLOUDKNOT_STACK_TOOLS:-}" ]] && ! cmp --quiet tests/stacks/requirements.txt "$tools/installed"; then
    echo "installing what tests/stacks/requirements.txt lists into $tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --requirement tests/stacks/requirements.txt
    cp tests/stacks/requirements.txt "$tools/installed"
fi
[[ "${1:-}" != --install ]] || exit 0

"$tools/bin/python" tests/stacks/render.py "$out" >/dev/null
stacks=("$out"/*/*.yaml)

# Warnings count. What is passed over stands in the templates' Metadata, each with its reason.
"$tools/bin/cfn-lint" --non-zero-exit-code informational -- "${stacks[@]}"
"$tools/bin/checkov" --directory "$out" --framework cloudformation --skip-download --compact --quiet
"$tools/bin/python" tests/stacks/check.py "$out"
echo "${#stacks[@]} stacks and $(find "$out" -name '*.json' | wc -l) policies: nothing to complain of"
