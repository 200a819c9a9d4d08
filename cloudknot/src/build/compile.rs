//! Compiles a program to its worker. This is the only module that runs cargo; it does not depend on images, registries or AWS.
//!
//! The worker is the same target, compiled again with `--cfg cloudknot_worker`, which removes the host's half and its
//! dependencies. It is static, stripped and free of the names of this machine's folders, so that the same sources give the
//! same bytes. It is built under `<target folder>/cloudknot`, so that it does not interfere with a `cargo build` that runs at
//! the same time. The user's `Cargo.toml`, `Cargo.lock`, configuration and rustflags apply as they do in cargo.

#[cfg(not(cloudknot_worker))]
pub(crate) mod cargo;
mod error;
mod options;
mod settings;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::host::{host, host_type};

pub use cloudknot_runtime::contract::FunctionDescription;
pub use error::{CompileError, CompileErrorKind};
pub use options::{Arch, AwsFeature, CargoTarget, Machine, Profile, Selection, WorkerTarget};
pub use settings::{Allocator, CompileSettings, Lto, LtoWord, OptLevel, Settings, SizeLevel};

/// Builder that compiles a program to a worker.
///
/// ```no_run
/// # fn main() -> Result<(), cloudknot::compile::CompileError> {
/// use cloudknot::compile::{Compile, Selection};
///
/// let worker = Compile::new(Selection::default()).run()?;
/// println!("{} remote functions, {} bytes", worker.functions.len(), worker.bytes.len());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Compile {
    selection: Selection,
    arch: Arch,
    target: Option<String>,
    profile: Profile,
    cargo_options: Vec<String>,
    folder: Option<PathBuf>,
    dynamic: bool,
    report: Arc<dyn Fn(&str) + Send + Sync>,
}

/// Program with a resolved package, target, settings and platform. See [`Compile::resolve`].
pub struct Program {
    compile: Compile,
    package: String,
    version: String,
    package_folder: PathBuf,
    target: CargoTarget,
    settings: Settings,
    arch: Arch,
    /// `true` if the worker may need shared libraries, which its base image then provides.
    dynamic: bool,
    cargo: host_type!(cargo::BuildContext),
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("package", &self.package())
            .field("target", &self.target())
            .finish_non_exhaustive()
    }
}

/// Executable that serves remote functions. It is static, unless it was compiled for a base image.
#[non_exhaustive]
pub struct Worker {
    /// Path of the executable. The next build replaces the file.
    pub path: PathBuf,
    /// Content of the executable.
    pub bytes: Vec<u8>,
    /// Target triple that it was compiled for.
    pub target: String,
    /// Architecture that it runs on.
    pub arch: Arch,
    /// Cargo target that it was compiled from.
    pub cargo_target: CargoTarget,
    /// Name of its package.
    pub package: String,
    /// Version of its package.
    pub version: String,
    /// Folder of its package.
    pub package_folder: PathBuf,
    /// Remote functions linked into it, at least one.
    pub functions: Vec<FunctionDescription>,
    /// Settings of its package, including paths.
    pub settings: Settings,
    /// `true` if the executable was already up to date, so nothing was compiled.
    pub up_to_date: bool,
}

/// Program that was compiled for this machine. See [`Compile::native`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NativeProgram {
    /// Path of the executable. The next build replaces the file.
    pub path: PathBuf,
    /// Folder of its package.
    pub package_folder: PathBuf,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Omits the bytes: there are millions of them.
        f.debug_struct("Worker").field("path", &self.path).field("target", &self.target).finish_non_exhaustive()
    }
}

impl fmt::Debug for Compile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compile").field("selection", &self.selection).field("arch", &self.arch).finish_non_exhaustive()
    }
}

impl Compile {
    /// Creates the compilation of this target, for x86-64.
    pub fn new(selection: Selection) -> Self {
        Self {
            selection,
            arch: Arch::default(),
            target: None,
            profile: Profile::default(),
            cargo_options: Vec::new(),
            folder: None,
            dynamic: false,
            report: Arc::new(|_| {}),
        }
    }

    /// Sets the architecture of the machines that the worker runs on.
    #[must_use]
    pub fn arch(mut self, arch: Arch) -> Self {
        self.arch = arch;
        self
    }

    /// Sets the rustc target, in place of the one chosen for the architecture.
    #[must_use]
    pub fn target(mut self, triple: impl Into<String>) -> Self {
        self.target = Some(triple.into());
        self
    }

    /// Sets the profile.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Adds a cargo option that `cargo metadata`, `tree` and `build` accept, such as `--locked`, `--offline` and `--frozen`.
    #[must_use]
    pub fn cargo_option(mut self, option: impl Into<String>) -> Self {
        self.cargo_options.push(option.into());
        self
    }

    /// Links the worker dynamically, for an image whose base has the libraries that the worker needs, libc included.
    #[must_use]
    pub fn dynamic(mut self) -> Self {
        self.dynamic = true;
        self
    }

    /// Runs cargo as if it were started in this folder, in place of the current one.
    #[must_use]
    pub fn in_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Sets a callback for progress messages, one line each. cargo itself writes to the standard error of this process.
    #[must_use]
    pub fn report(mut self, report: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.report = Arc::new(report);
        self
    }

    /// Resolves the program: its package, target, settings and platform. Compiles nothing.
    ///
    /// # Errors
    /// See [`CompileErrorKind`].
    pub fn resolve(&self) -> Result<Program, CompileError> {
        host!(cargo::resolve(self))
    }

    /// Compiles the worker and reads the result. Blocks until cargo has finished.
    ///
    /// # Errors
    /// See [`CompileErrorKind`].
    pub fn run(&self) -> Result<Worker, CompileError> {
        self.resolve()?.compile()
    }

    /// Compiles the program for this machine, as `cargo build` does, and checks that its `main` is that of `#[cloudknot::main]`.
    /// [`profile`](Self::profile) names the profile; without it, this is `dev`. Blocks until cargo has finished.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), cloudknot::compile::CompileError> {
    /// use cloudknot::compile::{Compile, Selection};
    ///
    /// let program = Compile::new(Selection::default()).native()?;
    /// println!("{}", program.path.display());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`CompileErrorKind`].
    pub fn native(&self) -> Result<NativeProgram, CompileError> {
        host!(cargo::native::compile(self))
    }

    /// Returns the folder of the selected package. Compiles nothing.
    ///
    /// # Errors
    /// Returns an error if there is no such package with remote functions, or more than one.
    pub fn package_folder(&self) -> Result<PathBuf, CompileError> {
        host!({
            let metadata = self.metadata()?;
            Ok(cargo::folder_of(self.selection.package(&metadata)?))
        })
    }

    /// Returns the name of the program's Knot, unless the deploy gives another one. Compiles nothing.
    ///
    /// # Errors
    /// Returns the errors of [`package_folder`](Self::package_folder), or an error if the package's settings cannot be read.
    pub fn knot_name(&self) -> Result<String, CompileError> {
        host!({
            let metadata = self.metadata()?;
            let package = self.selection.package(&metadata)?;
            Ok(cargo::settings_of(package)?.knot.knot.unwrap_or_else(|| package.name.replace('_', "-")))
        })
    }
}

impl Program {
    /// Returns the name of the package.
    pub fn package(&self) -> &str {
        &self.package
    }

    /// Returns the version of the package.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the folder of the package.
    pub fn package_folder(&self) -> &Path {
        &self.package_folder
    }

    /// Returns the cargo target.
    pub fn target(&self) -> &CargoTarget {
        &self.target
    }

    /// Returns the architecture that the worker runs on.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Returns the cargo options that select features of its package.
    pub fn feature_options(&self) -> Vec<String> {
        self.compile.selection.feature_options()
    }

    /// Returns the settings of the package, with absolute paths.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns a way to enable the feature `aws` of cloudknot, without which a worker cannot reach S3; `None` if the worker
    /// will have it.
    ///
    /// # Errors
    /// Returns an error in a worker.
    pub fn missing_aws_feature(&self) -> Result<Option<AwsFeature>, CompileError> {
        host!(Ok(cargo::features::missing_aws(self)))
    }

    /// Enables the feature `aws` of cloudknot: selects a feature of the package, or adds `aws` to the dependency in
    /// `Cargo.toml`.
    ///
    /// # Errors
    /// Returns an error if `cargo add` fails.
    pub fn with_aws_feature(self, feature: &AwsFeature) -> Result<Self, CompileError> {
        host!(cargo::features::enable(&self, feature)?.resolve())
    }

    /// Compiles the worker and reads the result. Blocks until cargo has finished.
    ///
    /// # Errors
    /// See [`CompileErrorKind`].
    pub fn compile(self) -> Result<Worker, CompileError> {
        host!(cargo::worker::compile(&self))
    }
}

impl Machine {
    /// Detects the tools of this machine.
    ///
    /// # Errors
    /// Returns an error if there is no toolchain, or its configuration cannot be read.
    pub fn here() -> Result<Self, CompileError> {
        host!(cargo::machine::here())
    }
}
