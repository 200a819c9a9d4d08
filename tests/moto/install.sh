#!/usr/bin/env bash
# Makes the Python environment that requirements.txt lists, once, in target/moto. No root; nothing else is changed.
#
#   tests/moto/install.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

wanted=tests/moto/requirements.txt
moto="${CARGO_TARGET_DIR:-$PWD/target}/moto"
# The list of what was installed is written last: what an attempt before this has left may not be complete.
if cmp --quiet "$wanted" "$moto/installed"; then
    exit 0
fi
echo "installing what $wanted lists into $moto"
rm -rf "$moto"
python3 -m venv "$moto"
"$moto/bin/pip" install --quiet --requirement "$wanted"
cp "$wanted" "$moto/installed"
