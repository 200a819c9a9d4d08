//! Image `debian:12-slim` for an engine that the tests have started, which has no network for pulls or builds. The
//! image is built from Debian's packages, and apt works in it without a network, with a few packages in the image
//! itself.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::counterparts::{Docker, has};
use crate::shared::lock;
use crate::skip::skipped;

/// Name of the image in Dockerfiles.
pub const IMAGE: &str = "debian:12-slim";
/// Name of the release for mmdebstrap.
const SUITE: &str = "bookworm";

/// Provides the image in the engine, and returns whether it is available. An engine that the tests have not started
/// pulls the image, and builds there have a network. For an engine that the tests have started, `packages` are those
/// that apt can install. The file system is cached in `folder`, because building it takes a minute.
///
/// # Panics
/// If the image is not available and `CLOUDKNOT_TESTS_REQUIRE=1` is set.
pub fn provide(docker: &Docker, packages: &[&str], folder: &Path) -> bool {
    // Another test may be building the image.
    let _lock = lock("debian");
    if run(docker.command().args(["image", "inspect", IMAGE])).is_ok() {
        return true;
    }
    let provided = if docker.started_by_tests() { import(docker, packages, folder) } else { pull(docker) };
    provided.map_err(|reason| skipped(&format!("tests that need {IMAGE}"), &reason)).is_ok()
}

fn pull(docker: &Docker) -> Result<(), String> {
    run(docker.command().args(["pull", "--quiet", IMAGE]))
}

fn import(docker: &Docker, packages: &[&str], folder: &Path) -> Result<(), String> {
    let tar = folder.join(format!("{SUITE} {}.tar", packages.join(" ")));
    if !tar.exists() {
        build(&tar, packages)?;
    }
    run(docker.command().arg("import").arg(tar).arg(IMAGE))
}

fn build(tar: &Path, packages: &[&str]) -> Result<(), String> {
    if !has("mmdebstrap") {
        return Err("`mmdebstrap` is not installed".to_owned());
    }
    let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/debian.sh");
    let unfinished = tar.with_extension("unfinished");
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--format=tar", "--variant=apt"]);
    // Parts that a slim image omits.
    for path in ["doc", "info", "locale", "man"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{path}/*"));
    }
    // A shell runs the hook, and gives it the new root as its first argument.
    command.arg(format!("--customize-hook=sh '{}' \"$1\" {} >&2", hook.display(), packages.join(" ")));
    run(command.arg(SUITE).arg(&unfinished))?;
    fs::rename(&unfinished, tar).map_err(|error| error.to_string())
}

/// Runs a command. If it fails, returns the last line of its error output.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let Output { status, stderr, .. } = output;
    let stderr = String::from_utf8_lossy(&stderr);
    let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no error output");
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}: {last}")) }
}
