//! The user's cargo and rustc: their paths, their configuration and the installed components.

use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_config2::{Config, PathAndArgs, ResolveOptions};
use cargo_metadata::{CargoOpt, Metadata};

use crate::build::compile::Selection;
use crate::build::compile::error::{CompileError, CompileErrorKind};

/// cargo and rustc, as found from one folder.
pub(crate) struct Toolchain {
    pub(super) cargo: PathBuf,
    pub(super) cargo_home: Option<PathBuf>,
    /// Version of rustc.
    pub(super) release: String,
    pub(super) host: String,
    pub(super) sysroot: PathBuf,
    pub(super) commit: Option<String>,
    pub(super) config: Config,
    folder: PathBuf,
}

impl Toolchain {
    /// Queries cargo and rustc in this folder, on which both rustup and cargo's configuration files depend.
    pub(super) fn of(folder: &Path) -> Result<Self, CompileError> {
        let config = Config::load_with_options(folder, ResolveOptions::default())
            .map_err(|cause| failed("read cargo's configuration").with_source(cause))?;
        let rustc = config.rustc();
        let version = output_of(rustc, folder, &["-vV"])?;
        let field = |name: &str| {
            version.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(ToString::to_string)
        };
        let host = field("host").ok_or_else(|| failed("parse the output of `rustc -vV`: it has no field `host`"))?;
        let sysroot = output_of(rustc, folder, &["--print", "sysroot"])?.trim().into();
        Ok(Self {
            cargo: config.cargo().into(),
            cargo_home: cargo_config2::cargo_home_with_cwd(folder),
            release: field("release").unwrap_or_default(),
            host,
            sysroot,
            commit: field("commit-hash").filter(|hash| hash != "unknown"),
            folder: folder.to_path_buf(),
            config,
        })
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

    /// Returns a cargo command that runs in the user's folder.
    pub(super) fn cargo(&self) -> Command {
        let mut cargo = Command::new(&self.cargo);
        cargo.current_dir(&self.folder);
        // `cargo run` sets these variables for the program that it starts. Build scripts (ring's) compile everything again if
        // they change.
        let is_set_by_cargo_run = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_set_by_cargo_run)) {
            cargo.env_remove(name);
        }
        cargo
    }

    /// Reads the packages and their dependencies as the worker will have them.
    pub(super) fn metadata(
        &self,
        selection: &Selection,
        triple: &str,
        rustflags: &str,
        options: &[String],
    ) -> Result<Metadata, CompileError> {
        let mut command = cargo_metadata::MetadataCommand::new();
        command.cargo_path(&self.cargo).current_dir(&self.folder).env("CARGO_ENCODED_RUSTFLAGS", rustflags);
        if let Some(path) = &selection.manifest_path {
            command.manifest_path(path);
        }
        if selection.all_features {
            command.features(CargoOpt::AllFeatures);
        }
        if selection.no_default_features {
            command.features(CargoOpt::NoDefaultFeatures);
        }
        command.features(CargoOpt::SomeFeatures(selection.features.clone()));
        command.other_options([&["--filter-platform".into(), triple.into()], options].concat());
        command.exec().map_err(|cause| match cause {
            // cargo's own message is the clearest, and begins with "error: ".
            cargo_metadata::Error::CargoMetadata { stderr } => {
                CompileError::new(CompileErrorKind::Selection, "cannot read the package with `cargo metadata`")
                    .with_source(stderr.trim().trim_start_matches("error: ").to_string())
            }
            cause => failed("run `cargo metadata`").with_source(cause),
        })
    }
}

/// Returns the path of a program on the search path.
pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn output_of(rustc: &PathAndArgs, folder: &Path, arguments: &[&str]) -> Result<String, CompileError> {
    let action = || failed(&format!("run `{} {}`", rustc.path.display(), arguments.join(" ")));
    let output = Command::new(&rustc.path)
        .args(&rustc.args)
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
