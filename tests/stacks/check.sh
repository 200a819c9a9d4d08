#!/usr/bin/env bash
# Renders the stacks and policies with every context, and checks them with cfn-lint, checkov and check.py. Needs no network and
# no account; the tools are installed once, into a separate folder.
#
#   tests/stacks/check.sh             --install: only installs the tools
#
# CLOUDKNOT_STACK_TOOLS is a Python environment with the packages in requirements.txt; without it, one is created under target/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target="${CARGO_TARGET_DIR:-$PWD/target}"
tools="${CLOUDKNOT_STACK_TOOLS:-$target/stack-tools}"
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
export PYTHONDONTWRITEBYTECODE=1

if [[ -z "${CLOUDKNOT_STACK_TOOLS:-}" ]] && ! cmp --quiet tests/stacks/requirements.txt "$tools/installed"; then
    echo "installing the packages listed in tests/stacks/requirements.txt into $tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --requirement tests/stacks/requirements.txt
    cp tests/stacks/requirements.txt "$tools/installed"
fi
[[ "${1:-}" != --install ]] || exit 0

"$tools/bin/python" tests/stacks/render.py "$out" >/dev/null
stacks=("$out"/*/*/*.yaml)

# Warnings are failures. The templates' Metadata lists the suppressed findings, each with its reason.
lint() { "$tools/bin/cfn-lint" --non-zero-exit-code informational --regions "${@:2}" -- "$out/$1"/*/*.yaml; }
lint aws us-east-1 eu-central-1
lint aws-cn cn-north-1 cn-northwest-1
lint aws-us-gov us-gov-west-1 us-gov-east-1
"$tools/bin/checkov" --directory "$out/aws" --framework cloudformation --skip-download --compact --quiet
"$tools/bin/python" tests/stacks/check.py "$out"
echo "${#stacks[@]} stacks and $(find "$out" -name '*.json' | wc -l) policies: no findings"
