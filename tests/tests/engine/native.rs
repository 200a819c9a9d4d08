//! Programs with a native library, from the command line to their results in containers: linked with the library of a
//! base image, and linked statically.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use cloudknot_tests::counterparts::Docker;
use cloudknot_tests::debian;
use cloudknot_tests::skip::skipped;
use cloudknot_tests::workspaces::{cargo_knot, program};
use serde_json::Value;
use tempfile::TempDir;

/// Packages that the Dockerfile of `oscillator_levels` installs. Tests that share an engine share its image.
pub(crate) const PACKAGES: &[&str] = &["libopenblas0-pthread"];

/// Engine, and a run folder.
struct OnDocker {
    docker: Arc<Docker>,
    home: TempDir,
}

impl OnDocker {
    fn new() -> Option<Self> {
        let docker = Docker::get()?;
        let home = tempfile::tempdir().expect("a temporary folder can be created");
        Some(Self { docker, home })
    }

    /// Like [`OnDocker::new`], with the library and the base image of the worker of `oscillator_levels`.
    fn with_lapack() -> Option<Self> {
        let on = Self::new()?;
        if !links("lapack") {
            skipped("tests that link LAPACK", "liblapack.so is not installed; Debian's libopenblas-dev has it");
            return None;
        }
        if newer_than_the_base() {
            skipped("tests that need Debian 12", "this machine's C library, which workers are linked with, is newer");
            return None;
        }
        debian::provide(&on.docker, PACKAGES, Path::new(env!("CARGO_TARGET_TMPDIR"))).then_some(on)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("CLOUDKNOT_HOME", self.home.path()).env("CLOUDKNOT_BACKEND", "docker");
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the repository"));
        if let Some(host) = self.docker.host() {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    fn build(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(cargo_knot());
        command.args(["knot", "build", "--fast", "--json"]).args(arguments);
        command
    }

    /// Builds the image of an example, and returns the output of `cargo knot`.
    fn built(&self, arguments: &[&str]) -> Value {
        let output = self.build(arguments).output().expect("the command starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("the command prints JSON")
    }

    /// Runs an example in containers of that image, and returns its output.
    fn printed(&self, example: &str) -> String {
        let Output { status, stdout, stderr } = self.command(&program(example)).output().expect("the program starts");
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success() && stderr.contains(" in Docker, "), "{stdout}\n{stderr}");
        stdout.into_owned()
    }
}

/// Returns whether this machine's C library is newer than that of the base image.
fn newer_than_the_base() -> bool {
    let version = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let minor = version.trim().rsplit('.').next().and_then(|minor| minor.parse::<u32>().ok());
    minor.is_some_and(|minor| minor > 36)
}

/// Returns whether the linker finds this library.
fn links(library: &str) -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder can be created");
    let source = folder.path().join("main.c");
    fs::write(&source, "int main(void) { return 0; }\n").expect("a new folder can be written to");
    let mut link = Command::new("cc");
    link.arg(&source).arg("-o").arg(folder.path().join("main")).arg(format!("-l{library}"));
    link.output().is_ok_and(|output| output.status.success())
}

#[test]
fn worker_uses_the_library_of_its_base_image() {
    let Some(on) = OnDocker::with_lapack() else { return };
    let built = on.built(&["-p", "oscillator_levels"]);
    // The layers are Debian, the packages of the Dockerfile, and the worker.
    assert_eq!(built["layers"].as_array().map(Vec::len), Some(3), "{built}");
    let printed = on.printed("oscillator_levels");
    let lowest: Vec<&str> = printed.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert!(printed.ends_with("All agree with the reference.\n"), "{printed}");
    // Values from the literature for H = p²/2 + x²/2 + λx⁴ and λ = 0.1, 0.5, 1 and 2.
    assert_eq!(lowest[1..5], ["0.559146327", "0.696175821", "0.803770651", "0.951568473"], "{printed}");
}

#[test]
fn static_library_needs_no_base_image() {
    let Some(on) = OnDocker::new() else { return };
    let built = on.built(&["-p", "graph_bisection"]);
    assert_eq!(built["layers"].as_array().map(Vec::len), Some(1), "{built}");
    let printed = on.printed("graph_bisection");
    let best: Vec<&str> = printed.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(best[1..6], ["128", "512", "16", "24", "2"], "{printed}");
}

#[test]
fn base_image_without_the_library_is_refused() {
    let Some(on) = OnDocker::with_lapack() else { return };
    let output = on.build(&["-p", "oscillator_levels", "--base-image", debian::IMAGE]).output();
    let output = output.expect("the command starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    for part in ["cannot find `liblapack.so.3` in the base", "install the package that provides it"] {
        assert!(stderr.contains(part), "`{part}` is not in:\n{stderr}");
    }
}
