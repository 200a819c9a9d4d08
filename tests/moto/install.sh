#!/usr/bin/env bash
# Makes the Python environment that requirements.txt lists, once, in target/moto. No root; nothing else is changed.
#
#   tests/moto/install.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

moto="${CARGO_TARGET_DIR:-$PWD/../../target}/moto"
# What an attempt before this has left is not complete: the list of what was installed is written last.
cmp --quiet requirements.txt "$moto/installed" && exit 0
echo "installing what tests/moto/requirements.txt lists into $moto"
rm -rf "$moto"
python3 -m venv "$moto"
"$moto/bin/pip" install --quiet --requirement requirements.txt
cp requirements.txt "$moto/installed"
