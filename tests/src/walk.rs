//! Crate as a new user creates it, outside the workspace, so that none of the workspace's settings apply.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::workspaces;

/// New crate with a path dependency on cloudknot. Each test recreates it in the same folder: compiled artifacts contain
/// the path of that folder, so they are compiled only once.
#[derive(Debug)]
pub struct UserCrate {
    folder: PathBuf,
}

impl UserCrate {
    /// Creates a crate of this name.
    ///
    /// # Panics
    /// If cargo does not create it.
    pub fn new(name: &'static str) -> Self {
        let parent = workspaces::parent().join("walks");
        fs::create_dir_all(&parent).expect("the temporary folder can be written to");
        let user_crate = Self { folder: parent.join(name) };
        if user_crate.folder.exists() {
            fs::remove_dir_all(&user_crate.folder).expect("the crate of an earlier test can be removed");
        }
        succeed(cargo(&parent).args(["new", "--quiet", "--vcs", "none", name]));
        // With the workspace's versions, no registry has to be queried.
        fs::copy(workspace().join("Cargo.lock"), user_crate.folder().join("Cargo.lock"))
            .expect("the lockfile is copied");
        let path = workspace().join("cloudknot");
        succeed(cargo(&user_crate.folder()).args(["add", "--quiet", "--offline", "--path"]).arg(path));
        user_crate
    }

    /// Returns the folder of the crate.
    pub fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    /// Writes a file of the crate.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.folder().join(path), text).expect("the file is written");
    }

    /// Adds a dependency of the workspace to the crate.
    ///
    /// # Panics
    /// If cargo does not add it.
    pub fn add(&self, arguments: &[&str]) {
        succeed(cargo(&self.folder).args(["add", "--quiet", "--offline"]).args(arguments));
    }

    /// Returns `cargo knot` with these arguments, in the folder of the crate.
    pub fn cargo_knot(&self, arguments: &[&str]) -> Command {
        let mut knot = in_crate(Command::new(workspaces::cargo_knot()), &self.folder);
        knot.arg("knot").args(arguments);
        knot
    }

    /// Runs the program, and returns its stdout.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self) -> String {
        let output = succeed(&mut self.cargo_run());
        String::from_utf8(output.stdout).expect("the program prints UTF-8")
    }

    /// Returns the command that runs the program.
    pub fn cargo_run(&self) -> Command {
        let mut run = cargo(&self.folder());
        run.args(["run", "--quiet", "--offline"]);
        run
    }
}

/// Returns the target folder of such crates, which is kept from one test to the next.
pub fn target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    workspace().join(target)
}

/// Returns a cargo command in this folder, with the environment of a new user.
pub fn cargo(folder: &Path) -> Command {
    in_crate(Command::new(env!("CARGO")), folder)
}

/// Returns the command in this folder, with the environment of a new user.
fn in_crate(mut command: Command, folder: &Path) -> Command {
    // The debug information of the AWS SDKs takes gigabytes, and no test needs it.
    command.env("CARGO_PROFILE_DEV_DEBUG", "0");
    command.current_dir(folder).env("CARGO_TARGET_DIR", target());
    // A new user has set none of these variables.
    command.env_remove("CLOUDKNOT_HOME").env_remove("CLOUDKNOT_BACKEND").env_remove("CARGO_MANIFEST_DIR");
    command
}

/// Runs a command to completion.
///
/// # Panics
/// If it fails, with its output.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("cargo starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in the workspace")
}
