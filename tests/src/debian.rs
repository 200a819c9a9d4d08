//! The image `debian:12-slim` for an engine of our own, which has no network to pull it by, nor any for its builds: a
//! Debian made of Debian's packages. apt works in it, with a few packages that lie on its own disk.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::counterparts::{Docker, has};
use crate::shared::lock;
use crate::skip::skipped;

/// What Dockerfiles call it.
pub const IMAGE: &str = "debian:12-slim";
/// What mmdebstrap calls it.
const SUITE: &str = "bookworm";

/// Has the engine have the image; whether it has. An engine that is not ours pulls it, and a build there has its network.
/// In ours, `packages` are those that apt can install. The file system is kept in `folder`: making it takes a minute.
///
/// # Panics
/// If it can neither be had nor be skipped.
pub fn provide(docker: &Docker, packages: &[&str], folder: &Path) -> bool {
    // Another test may be making it.
    let _lock = lock("debian");
    if said(docker.command().args(["image", "inspect", IMAGE])).is_ok() {
        return true;
    }
    let provided = if docker.is_our_own() { import(docker, packages, folder) } else { pull(docker) };
    provided.map_err(|why| skipped(&format!("what stands on {IMAGE}"), &why)).is_ok()
}

fn pull(docker: &Docker) -> Result<(), String> {
    said(docker.command().args(["pull", "--quiet", IMAGE]))
}

fn import(docker: &Docker, packages: &[&str], folder: &Path) -> Result<(), String> {
    let tar = folder.join(format!("{SUITE} {}.tar", packages.join(" ")));
    if !tar.exists() {
        make(&tar, packages)?;
    }
    said(docker.command().arg("import").arg(tar).arg(IMAGE))
}

fn make(tar: &Path, packages: &[&str]) -> Result<(), String> {
    if !has("mmdebstrap") {
        return Err("there is no `mmdebstrap` to make it".to_owned());
    }
    let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/debian.sh");
    let unfinished = tar.with_extension("unfinished");
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--format=tar", "--variant=apt"]);
    // What a slim image leaves out.
    for path in ["doc", "info", "locale", "man"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{path}/*"));
    }
    // A shell runs the hook, and gives it the new root as its first argument.
    command.arg(format!("--customize-hook=sh '{}' \"$1\" {} >&2", hook.display(), packages.join(" ")));
    said(command.arg(SUITE).arg(&unfinished))?;
    fs::rename(&unfinished, tar).map_err(|error| error.to_string())
}

/// Runs a command; if it fails, the end of what it has to say of that.
fn said(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let Output { status, stderr, .. } = output;
    let stderr = String::from_utf8_lossy(&stderr);
    let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}: {last}")) }
}
