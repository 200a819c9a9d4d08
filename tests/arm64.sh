#!/usr/bin/env bash
# Unpacks a Rust compiler with a standard library for aarch64 from Debian's packages into the target folder, for machines
# on which `rustup target add` cannot install one. Needs no root and changes nothing else.
#
#   tests/arm64.sh [FOLDER]     installs the compiler as FOLDER/rustc; FOLDER is target/arm64 if not given
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder="${1:-${CARGO_TARGET_DIR:-$PWD/target}/arm64}"
[[ ! -x "$folder/rustc" ]] || exit 0
# Remove the remains of an interrupted run, which would be mistaken for newly fetched files.
rm -rf "$folder"
mkdir -p "$folder/packages/partial" "$folder/state/lists/partial" "$folder/cache/archives/partial"
folder="$(cd "$folder" && pwd)"

# Uses a separate apt state, because that of the machine may not include another architecture.
apt() {
    apt-get -qq -o Dir::State="$folder/state" -o Dir::Cache="$folder/cache" -o Dir::State::status=/var/lib/dpkg/status \
        -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 -o APT::Sandbox::User="" "$@"
}

apt update
cd "$folder/packages"
apt download rustc-web libstd-rust-web-dev:amd64 libstd-rust-web-dev:arm64
# The compiler's own library and LLVM must have the versions that the package depends on.
depends() { dpkg-deb --field "$1" Depends | tr ',' '\n' | sed -n "s/^ *\($2[^ ]*\).*/\1/p" | head -n 1; }
library="$(depends libstd-rust-web-dev_*_amd64.deb libstd-rust-web-)"
apt download "$library"
apt download "$(depends "$library"_*_amd64.deb libllvm)"
for package in *.deb; do
    dpkg-deb --extract "$package" "$folder/root"
done
rm -r "$folder/packages" "$folder/state" "$folder/cache"
cat > "$folder/rustc" <<END
#!/bin/sh
LD_LIBRARY_PATH="$folder/root/usr/lib/x86_64-linux-gnu\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}" exec "$folder/root/usr/bin/rustc" "\$@"
END
chmod +x "$folder/rustc"
