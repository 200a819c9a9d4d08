//! A crate as a new user makes it, outside the workspace, so that nothing of its settings helps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::workspaces;

/// A new crate with a path to cloudknot. It is made anew for each test, at the same place: what is compiled for it names that
/// place, and is compiled once.
#[derive(Debug)]
pub struct Walk {
    folder: PathBuf,
}

impl Walk {
    /// A crate of this name.
    ///
    /// # Panics
    /// Where cargo does not make it.
    pub fn new(name: &'static str) -> Self {
        let parent = workspaces::parent().join("walks");
        fs::create_dir_all(&parent).expect("the folder for temporary files can be written to");
        let walk = Self { folder: parent.join(name) };
        if walk.folder.exists() {
            fs::remove_dir_all(&walk.folder).expect("what a test before has left can be removed");
        }
        succeed(cargo(&parent).args(["new", "--quiet", "--vcs", "none", name]));
        // With the workspace's versions nothing has to be asked of a registry.
        fs::copy(workspace().join("Cargo.lock"), walk.folder().join("Cargo.lock")).expect("the lockfile is copied");
        let path = workspace().join("cloudknot");
        succeed(cargo(&walk.folder()).args(["add", "--quiet", "--offline", "--path"]).arg(path));
        walk
    }

    /// Where it is.
    pub fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    /// Writes a file of it.
    ///
    /// # Panics
    /// Where that cannot be.
    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.folder().join(path), text).expect("the file is written");
    }

    /// What the program prints to stdout.
    ///
    /// # Panics
    /// Where it fails.
    pub fn run(&self) -> String {
        let output = succeed(&mut self.cargo_run());
        String::from_utf8(output.stdout).expect("the program prints text")
    }

    /// The command that runs the program.
    pub fn cargo_run(&self) -> Command {
        let mut run = cargo(&self.folder());
        run.args(["run", "--quiet", "--offline"]);
        run
    }
}

/// The folder for what is compiled on walks, which is kept from one test to the next.
pub fn target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    workspace().join(target)
}

/// cargo in this folder, as a new user has it.
pub fn cargo(folder: &Path) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    // Nobody debugs it, and what the AWS SDKs have to say to a debugger fills gigabytes.
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "0");
    // The user's settings are those of a new user: none.
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", target());
    cargo.env_remove("CLOUDKNOT_HOME").env_remove("CLOUDKNOT_BACKEND").env_remove("CARGO_MANIFEST_DIR");
    cargo
}

/// Runs it to its end.
///
/// # Panics
/// Where it fails, with what it said.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("cargo starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the workspace")
}
