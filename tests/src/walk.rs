//! A crate as a new user makes it, outside the workspace, so that nothing of its settings helps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A new crate with a path to cloudknot.
#[derive(Debug)]
pub struct Walk {
    parent: TempDir,
    name: &'static str,
}

impl Walk {
    /// A crate of this name.
    ///
    /// # Panics
    /// Where cargo does not make it.
    pub fn new(name: &'static str) -> Self {
        let walk = Self { parent: tempfile::tempdir().expect("a temporary folder"), name };
        succeed(cargo(walk.parent.path()).args(["new", "--quiet", "--vcs", "none", name]));
        // With the workspace's versions nothing has to be asked of a registry.
        fs::copy(workspace().join("Cargo.lock"), walk.folder().join("Cargo.lock")).expect("the lockfile is copied");
        let path = workspace().join("cloudknot");
        succeed(cargo(&walk.folder()).args(["add", "--quiet", "--offline", "--path"]).arg(path));
        walk
    }

    /// Where it is.
    pub fn folder(&self) -> PathBuf {
        self.parent.path().join(self.name)
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
        let output = succeed(cargo(&self.folder()).args(["run", "--quiet", "--offline"]));
        String::from_utf8(output.stdout).expect("the program prints text")
    }
}

/// cargo in this folder, as a new user has it.
pub fn cargo(folder: &Path) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    // What is compiled is kept from one test to the next. The user's settings are those of a new user: none.
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    // Nobody debugs it, and what the AWS SDKs have to say to a debugger fills gigabytes.
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "0");
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", workspace().join(target));
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
