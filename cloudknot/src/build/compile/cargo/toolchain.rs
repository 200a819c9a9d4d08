//! The user's cargo and rustc: their paths, their configuration and the installed components.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use super::command::Cargo;
use super::configuration::Configuration;
use crate::build::compile::error::{CompileError, CompileErrorKind};

/// cargo and rustc, as found from one folder.
pub(crate) struct Toolchain {
    pub(super) cargo: Cargo,
    /// Version of rustc.
    pub(super) release: String,
    pub(super) host: String,
    pub(super) sysroot: PathBuf,
    pub(super) commit: Option<String>,
    /// Folder of the package that reads cargo's configuration.
    folder: PathBuf,
    /// Configuration for each target, as far as it was read.
    configurations: Mutex<BTreeMap<String, Configuration>>,
}

impl Toolchain {
    /// Queries cargo and rustc. `target_folder` is that of the workspace; `triple` is a target whose configuration will be
    /// needed.
    pub(super) fn of(cargo: Cargo, target_folder: &Path, triple: &str) -> Result<Self, CompileError> {
        let folder = target_folder.join("cloudknot/configuration");
        let configuration = Configuration::of(&cargo, &folder, triple)?;
        let rustc = configuration.rustc.as_path();
        let version = output_of(rustc, &cargo.folder, &["-vV"])?;
        let field = |name: &str| {
            version.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(ToString::to_string)
        };
        let host = field("host").ok_or_else(|| failed("parse the output of `rustc -vV`: it has no field `host`"))?;
        let sysroot = output_of(rustc, &cargo.folder, &["--print", "sysroot"])?.trim().into();
        Ok(Self {
            release: field("release").unwrap_or_default(),
            host,
            sysroot,
            commit: field("commit-hash").filter(|hash| hash != "unknown"),
            configurations: Mutex::new([(triple.to_owned(), configuration)].into()),
            cargo,
            folder,
        })
    }

    /// Returns cargo's configuration for this target.
    pub(super) fn configuration(&self, triple: &str) -> Result<Configuration, CompileError> {
        let mut configurations = self.configurations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(configuration) = configurations.get(triple) {
            return Ok(configuration.clone());
        }
        let configuration = Configuration::of(&self.cargo, &self.folder, triple)?;
        configurations.insert(triple.to_owned(), configuration.clone());
        Ok(configuration)
    }

    /// Returns whether the standard library for this target is installed.
    pub(super) fn has_std(&self, triple: &str) -> bool {
        let folder = self.sysroot.join("lib/rustlib").join(triple).join("lib");
        let Ok(files) = folder.read_dir() else { return false };
        files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
    }

    /// Returns the linker that comes with Rust.
    pub(super) fn rust_lld(&self) -> Option<PathBuf> {
        let path = self.sysroot.join("lib/rustlib").join(&self.host).join("bin/rust-lld");
        path.is_file().then_some(path)
    }
}

fn output_of(rustc: &Path, folder: &Path, arguments: &[&str]) -> Result<String, CompileError> {
    let action = || failed(&format!("run `{} {}`", rustc.display(), arguments.join(" ")));
    let output = Command::new(rustc)
        .args(arguments)
        .current_dir(folder)
        .output()
        .map_err(|cause| action().with_source(cause))?;
    if !output.status.success() {
        return Err(action().with_source(String::from_utf8_lossy(&output.stderr).trim().to_string()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn failed(action: &str) -> CompileError {
    CompileError::new(CompileErrorKind::Toolchain, format!("cannot {action}"))
}
