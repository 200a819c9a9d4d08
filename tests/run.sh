#!/usr/bin/env bash
# Installs what the tests need and is not there, then checks and tests everything. Runs from any folder.
#
#   tests/run.sh              all phases
#   tests/run.sh lint docs    these phases, of: format lint deny docs stacks test
#
# A phase that this machine cannot run is passed over, with a line that begins "skipped:". Nothing is installed, and root
# is not asked for, if nothing is missing. What is large is installed only if asked for, in CLOUDKNOT_TEST_INSTALL: `deny`
# builds cargo-deny, which takes minutes; `arm64` has workers for 64-bit ARM built and run; `stacks` lints the templates.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

phases=(format lint deny docs stacks test)
# The S3 store is tested against a real server, so this compiles the AWS SDK; workers, images and pushes are tested with a
# real engine and a real registry.
features=(--features cloudknot-tests/s3,cloudknot-tests/deploy,cloudknot-tests/moto,cloudknot-tests/bare)
# One folder for all that is compiled here, also by tests that call cargo themselves.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
# What is compiled once and thrown away has no use for what makes the second time fast.
[[ -z "${CI:-}" ]] || export CARGO_INCREMENTAL="${CARGO_INCREMENTAL:-0}"

main() {
    local chosen=("$@") phase
    (($#)) || chosen=("${phases[@]}")
    for phase in "${chosen[@]}"; do
        [[ " ${phases[*]} " == *" $phase "* ]] || die "there is no phase \`$phase\`; there are: ${phases[*]}"
    done
    install_missing
    for phase in "${chosen[@]}"; do
        say "$phase"
        "phase_$phase"
    done
}

# --- what the machine needs ---

install_missing() {
    has cargo || die "there is no cargo: install a Rust toolchain, then run this again"
    # A linker, and a C compiler for what is written in C (ring, and a library of an example).
    has cc || apt_install gcc libc6-dev
    has cc || die "there is no C compiler: install gcc or clang, then run this again"
    component rustfmt cargo-fmt
    component clippy cargo-clippy
    install_counterparts
    if asked arm64; then
        install_arm64
    fi
    install_moto
}

# What the tests speak to: a Docker engine, a registry, and what looks at them. A test whose counterpart cannot be had
# says so and is skipped.
install_counterparts() {
    local missing=()
    # An engine that answers will do; else one is started by the tests, which takes root.
    docker info >/dev/null 2>&1 || has dockerd || missing+=(docker.io iptables)
    has docker-registry || missing+=(docker-registry)
    has htpasswd || missing+=(apache2-utils)
    has skopeo || missing+=(skopeo)
    has openssl || missing+=(openssl)
    has tmux || missing+=(tmux)
    # What an example is linked with, and what makes the base image that its worker stands on.
    links lapack || missing+=(libopenblas-dev)
    has mmdebstrap || missing+=(mmdebstrap)
    ((${#missing[@]} == 0)) || apt_install "${missing[@]}"
}

# A standard library for aarch64, a linker, and an emulator. Without them a test says that it was skipped.
install_arm64() {
    local missing=()
    has aarch64-linux-gnu-gcc || missing+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
    has qemu-aarch64-static || missing+=(qemu-user-static)
    ((${#missing[@]} == 0)) || apt_install "${missing[@]}"
    rustup target add aarch64-unknown-linux-musl >/dev/null 2>&1 || tests/arm64.sh ||
        skipped arm64 "there is no standard library for it"
}

# What stands in for AWS. Without it, tests say that they were skipped.
install_moto() {
    [[ -z "${CLOUDKNOT_MOTO:-}" ]] || return 0
    python3 -c 'import venv, ensurepip' 2>/dev/null || apt_install python3 python3-venv
    tests/moto/install.sh || skipped moto "it cannot be installed"
}

# Whether the linker finds this library.
links() {
    local folder found=1
    folder="$(mktemp -d)"
    echo 'int main(void) { return 0; }' | cc -x c - -o "$folder/program" "-l$1" 2>/dev/null && found=0
    rm -r "$folder"
    return "$found"
}

# component <rustup component> <the command it brings>
component() {
    has "$2" && return
    has rustup || return 0
    say "installing $1"
    rustup component add "$1" || true
}

# Leaves it to the caller to see whether that helped.
apt_install() {
    local as_root=()
    has apt-get || return 0
    if ((EUID != 0)); then
        has sudo || return 0
        as_root=(sudo)
    fi
    say "installing $*"
    "${as_root[@]}" apt-get update -qq || true
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "$@" || true
}

# --- the phases ---

phase_format() {
    has cargo-fmt || { skipped format "there is no rustfmt"; return; }
    cargo fmt --all --check
}

phase_lint() {
    has cargo-clippy || { skipped lint "there is no clippy"; return; }
    cargo clippy --locked --workspace --all-targets "${features[@]}" -- -D warnings
}

phase_deny() {
    if ! has cargo-deny && asked deny; then
        say "installing cargo-deny"
        cargo install --locked --debug cargo-deny
    fi
    has cargo-deny || { skipped deny "there is no cargo-deny; CLOUDKNOT_TEST_INSTALL=deny builds it"; return; }
    cargo deny --locked check licenses bans sources
    # The database of advisories is fetched, and not every machine can.
    cargo deny --locked check advisories || skipped advisories "an advisory applies, or their database cannot be had"
}

phase_docs() {
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps "${features[@]}"
}

# The templates of the cloud's resources, read by the linters that know AWS's own schemas.
phase_stacks() {
    asked stacks || { skipped stacks "CLOUDKNOT_TEST_INSTALL=stacks installs the linters"; return; }
    python3 -c 'import venv, ensurepip' 2>/dev/null || apt_install python3 python3-venv
    tests/stacks/check.sh --install || { skipped stacks "the linters cannot be installed"; return; }
    tests/stacks/check.sh
}

# Last, so that cargo's own summary is what one sees at the end.
phase_test() {
    cargo test --locked --workspace --no-fail-fast "${features[@]}"
}

# --- how this speaks ---

asked() { [[ " ${CLOUDKNOT_TEST_INSTALL:-} " == *" $1 "* ]]; }
has() { command -v "$1" >/dev/null 2>&1; }
say() { printf '\n== %s\n' "$*"; }
skipped() { printf 'skipped: %s: %s\n' "$1" "$2"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

main "$@"
