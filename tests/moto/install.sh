#!/usr/bin/env bash
# Creates the Python environment of requirements.txt in target/moto, once. Needs no root, and changes nothing else.
#
#   tests/moto/install.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

list=tests/moto/requirements.txt
moto="${CARGO_TARGET_DIR:-$PWD/target}/moto"
# The list is copied last, because an interrupted installation is incomplete.
if cmp --quiet "$list" "$moto/installed"; then
    exit 0
fi
echo "installing the packages listed in $list into $moto"
rm -rf "$moto"
python3 -m venv "$moto"
"$moto/bin/pip" install --quiet --requirement "$list"
cp "$list" "$moto/installed"
