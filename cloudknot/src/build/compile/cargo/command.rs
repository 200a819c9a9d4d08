//! Commands of cargo, its folders, and the files of packages that are generated for it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{CargoOpt, Metadata};

use crate::build::compile::error::{CompileError, CompileErrorKind, io};
use crate::build::compile::{Compile, Selection};

/// Hint for a folder that is in no package.
const OUTSIDE_HINT: &str = "run the command in the folder of a package, or name its manifest with `--manifest-path`";

/// cargo, as run in one folder, on which both rustup and cargo's configuration files depend.
pub(crate) struct Cargo {
    path: PathBuf,
    pub(super) folder: PathBuf,
    /// Options that every command accepts.
    options: Vec<String>,
}

impl Cargo {
    /// Returns the cargo that runs this program, or else the one on the search path, for the folder and with the options of a
    /// compilation.
    pub(super) fn of(compile: &Compile) -> Result<Self, CompileError> {
        let current = std::env::current_dir().map_err(io("find the current folder", "."))?;
        let folder = compile.folder.as_ref().map_or_else(|| current.clone(), |folder| current.join(folder));
        let path = std::env::var_os("CARGO").filter(|path| !path.is_empty()).unwrap_or_else(|| "cargo".into());
        Ok(Self { path: path.into(), folder, options: compile.cargo_options.clone() })
    }

    /// Returns cargo's own folder.
    pub(super) fn home(&self) -> Option<PathBuf> {
        let set = std::env::var_os("CARGO_HOME").filter(|home| !home.is_empty());
        let home = set.map(|home| self.folder.join(home));
        home.or_else(|| Some(std::env::home_dir()?.join(".cargo")))
    }

    /// Returns this command of cargo, which runs in the folder, with the options.
    pub(super) fn query(&self, name: &str) -> Command {
        let mut cargo = self.command();
        cargo.arg(name).args(&self.options);
        cargo
    }

    /// Returns a cargo command that runs in the folder.
    pub(super) fn command(&self) -> Command {
        let mut cargo = Command::new(&self.path);
        cargo.current_dir(&self.folder);
        // `cargo run` sets these variables for the program that it starts. Build scripts (ring's) compile everything again if
        // they change.
        let is_set_by_cargo_run = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_set_by_cargo_run)) {
            cargo.env_remove(name);
        }
        cargo
    }

    /// Reads the packages and their dependencies as a build for this target with these flags will have them.
    pub(super) fn metadata(
        &self,
        selection: &Selection,
        triple: &str,
        rustflags: &str,
    ) -> Result<Metadata, CompileError> {
        let mut command = cargo_metadata::MetadataCommand::new();
        command.cargo_path(&self.path).current_dir(&self.folder).env("CARGO_ENCODED_RUSTFLAGS", rustflags);
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
        command.other_options([&["--filter-platform".into(), triple.into()], self.options.as_slice()].concat());
        command.exec().map_err(|cause| match cause {
            // cargo's own message is the clearest.
            cargo_metadata::Error::CargoMetadata { stderr } => {
                let message = message_in(stderr.as_bytes());
                let has_no_rustc = message.starts_with("could not execute process");
                let kind = if has_no_rustc { CompileErrorKind::Toolchain } else { CompileErrorKind::Selection };
                let is_outside = message.starts_with("could not find `Cargo.toml`");
                let error =
                    CompileError::new(kind, "cannot read the package with `cargo metadata`").with_source(message);
                if is_outside { error.with_hint(OUTSIDE_HINT) } else { error }
            }
            cause => CompileError::new(CompileErrorKind::Toolchain, "cannot run `cargo metadata`").with_source(cause),
        })
    }
}

/// Runs a cargo command that prints its result. `action` completes "cannot".
pub(super) fn run(mut command: Command, action: &str) -> Result<String, CompileError> {
    let failed = || CompileError::new(CompileErrorKind::Settings, format!("cannot {action}"));
    let output = command.output().map_err(|cause| failed().with_source(cause))?;
    if !output.status.success() {
        return Err(failed().with_source(message_in(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the message that cargo has written to its standard error.
pub(super) fn message_in(stderr: &[u8]) -> String {
    String::from_utf8_lossy(stderr).trim().trim_start_matches("error: ").to_owned()
}

/// Writes a file of a generated package, unless its content is already correct, so that cargo considers it unchanged. Another
/// program may write or read it at the same time.
pub(super) fn write(path: &Path, content: &str) -> Result<(), CompileError> {
    if fs::read(path).is_ok_and(|present| present == content.as_bytes()) {
        return Ok(());
    }
    let folder = path.parent().expect("a file is in a folder");
    let create = || {
        fs::create_dir_all(folder)?;
        // As for any other file, the umask decides who may read it.
        let permissions = fs::Permissions::from_mode(0o666);
        let mut file = tempfile::Builder::new().permissions(permissions).tempfile_in(folder)?;
        file.write_all(content.as_bytes())?;
        file.persist(path).map_err(|error| error.error)
    };
    create().map(|_| ()).map_err(io("write", path))
}
