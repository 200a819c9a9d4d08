//! From a program to its worker: the one room that runs cargo. Knows nothing of images, registries or AWS.
//!
//! The worker is the same target compiled once more: with `--cfg cloudknot_worker` (the host's half is then absent, its
//! dependencies too), static, stripped, and without the names of this machine's folders, so that the same sources give
//! the same bytes. It is built under `<target folder>/cloudknot`, out of the way of a `cargo build` that runs beside it.
//! The user's `Cargo.toml`, `Cargo.lock`, configuration and rustflags are taken as cargo takes them.

mod build;
mod error;
mod executable;
mod features;
mod flags;
mod library;
mod machine;
mod platform;
mod selection;
mod settings;
mod toolchain;
mod versions;
mod worker;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use cargo_metadata::Metadata;

use error::io;
use platform::Platform;
use selection::Selected;
use toolchain::Toolchain;

pub use cloudknot_runtime::contract::FunctionDescription;
pub use error::{CompileError, CompileErrorKind};
pub use features::AwsFeature;
pub use flags::Profile;
pub use machine::{Machine, WorkerTarget};
pub use platform::Arch;
pub use selection::{CargoTarget, Selection};
pub use settings::{Allocator, Lto, LtoWord, OptLevel, Settings, SizeLevel};

/// A worker to be compiled.
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

/// A program as it would be compiled: package, target, settings and platform are known. See [`Compile::resolve`].
pub struct Program {
    compile: Compile,
    toolchain: Toolchain,
    metadata: Metadata,
    settings: Settings,
    platform: Platform,
    arch: Arch,
    /// The worker may ask for libraries: the image that it stands on has them.
    dynamic: bool,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("package", &self.package())
            .field("target", &self.target())
            .finish_non_exhaustive()
    }
}

/// A static executable that serves remote functions.
#[non_exhaustive]
pub struct Worker {
    /// Where it is. The next build replaces it.
    pub path: PathBuf,
    /// What it is.
    pub bytes: Vec<u8>,
    /// The target it was compiled for.
    pub target: String,
    /// The architecture that it runs on.
    pub arch: Arch,
    /// The cargo target that it is made of.
    pub made_of: CargoTarget,
    /// The name of its package.
    pub package: String,
    /// The version of its package.
    pub version: String,
    /// The folder of its package.
    pub package_folder: PathBuf,
    /// The remote functions linked into it, at least one.
    pub functions: Vec<FunctionDescription>,
    /// What its package says of it, paths included.
    pub settings: Settings,
    /// Nothing had changed, so nothing was compiled.
    pub fresh: bool,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the bytes: there are millions.
        f.debug_struct("Worker").field("path", &self.path).field("target", &self.target).finish_non_exhaustive()
    }
}

impl fmt::Debug for Compile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compile").field("selection", &self.selection).field("arch", &self.arch).finish_non_exhaustive()
    }
}

impl Compile {
    /// The worker of this target, for x86-64.
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

    /// For machines of this architecture.
    #[must_use]
    pub fn arch(mut self, arch: Arch) -> Self {
        self.arch = arch;
        self
    }

    /// For this target of rustc, in place of the one that would be chosen for the architecture.
    #[must_use]
    pub fn target(mut self, triple: impl Into<String>) -> Self {
        self.target = Some(triple.into());
        self
    }

    /// With this profile.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// With further options of cargo that both `cargo metadata` and `cargo build` take, such as `--locked`,
    /// `--offline` and `--frozen`.
    #[must_use]
    pub fn cargo_option(mut self, option: impl Into<String>) -> Self {
        self.cargo_options.push(option.into());
        self
    }

    /// Linked dynamically, for an image whose base has the libraries that it asks for, libc included.
    #[must_use]
    pub fn dynamic(mut self) -> Self {
        self.dynamic = true;
        self
    }

    /// As if cargo were started in this folder, in place of the current one.
    #[must_use]
    pub fn in_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Says what is being done, line by line. cargo speaks for itself, on the standard error of this process.
    #[must_use]
    pub fn report(mut self, report: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.report = Arc::new(report);
        self
    }

    /// Resolves the program: its package and target, its settings and its platform. Nothing is compiled.
    ///
    /// # Errors
    /// See [`CompileErrorKind`].
    pub fn resolve(&self) -> Result<Program, CompileError> {
        let toolchain = self.toolchain()?;
        let metadata = self.metadata(&toolchain)?;
        let selected = self.selection.find(&metadata)?;
        versions::check(&metadata, selected.package)?;
        let settings = Settings::of(selected.package)?;
        if settings.knot.arm64 == Some(true) && self.arch != Arch::Arm64 && self.target.is_none() {
            // The dependencies may be others there, so all is resolved anew.
            return self.clone().arch(Arch::Arm64).resolve();
        }
        let platform = self.platform(&toolchain, &metadata, &selected, &settings)?;
        let arch = platform::arch_of(&platform.triple)?;
        let dynamic = self.dynamic || settings.has_base();
        Ok(Program { compile: self.clone(), toolchain, metadata, settings, platform, arch, dynamic })
    }

    /// Compiles, waiting for cargo, and reads the result.
    ///
    /// # Errors
    /// See [`CompileErrorKind`].
    pub fn run(&self) -> Result<Worker, CompileError> {
        self.resolve()?.compile()
    }

    /// The folder of the package that is meant. Nothing is compiled.
    ///
    /// # Errors
    /// Where there is no such package with remote functions, or several.
    pub fn package_folder(&self) -> Result<PathBuf, CompileError> {
        let metadata = self.metadata(&self.toolchain()?)?;
        Ok(folder_of(self.selection.package(&metadata)?))
    }

    /// The name that the program's Knot has, unless another is said when it is deployed. Nothing is compiled.
    ///
    /// # Errors
    /// As [`package_folder`](Self::package_folder), or where the package's settings cannot be read.
    pub fn knot_name(&self) -> Result<String, CompileError> {
        let metadata = self.metadata(&self.toolchain()?)?;
        let package = self.selection.package(&metadata)?;
        Ok(Settings::of(package)?.knot.knot.unwrap_or_else(|| package.name.replace('_', "-")))
    }

    fn toolchain(&self) -> Result<Toolchain, CompileError> {
        let here = std::env::current_dir().map_err(io("find the current folder", "."))?;
        Toolchain::of(&self.folder.as_ref().map_or_else(|| here.clone(), |folder| here.join(folder)))
    }

    /// The dependencies of a worker are not those of the host, so they are read with a worker's flags.
    fn metadata(&self, toolchain: &Toolchain) -> Result<Metadata, CompileError> {
        let triple = self.target.clone().unwrap_or_else(|| self.arch.musl());
        let arch = platform::arch_of(&triple)?;
        if arch != self.arch && self.arch != Arch::default() {
            let refused = format!("failed to compile for both {} and `{triple}`", self.arch.rust_name());
            return Err(CompileError::new(CompileErrorKind::Settings, refused).advise("name one of them"));
        }
        let user = flags::of_the_user(toolchain, &triple)?;
        let rustflags = flags::encode(flags::of_a_worker(self.dynamic).into_iter().chain(user))?;
        toolchain.metadata(&self.selection, &triple, &rustflags, &self.cargo_options)
    }

    fn platform(
        &self,
        toolchain: &Toolchain,
        metadata: &Metadata,
        selected: &Selected<'_>,
        settings: &Settings,
    ) -> Result<Platform, CompileError> {
        let needs_c =
            settings.allocator == Some(Allocator::Mimalloc) || selection::compiles_c(metadata, selected.package);
        match &self.target {
            Some(triple) => platform::asked(toolchain, triple, needs_c),
            // A base image of musl's kind would need `--target` to say so.
            None if self.dynamic || settings.has_base() => platform::gnu(toolchain, self.arch, needs_c),
            None => platform::choose(toolchain, self.arch, needs_c),
        }
    }
}

impl Program {
    /// The name of its package.
    pub fn package(&self) -> &str {
        self.selected().package.name.as_str()
    }

    /// The version of its package.
    pub fn version(&self) -> String {
        self.selected().package.version.to_string()
    }

    /// The folder of its package.
    pub fn package_folder(&self) -> PathBuf {
        folder_of(self.selected().package)
    }

    /// Its cargo target.
    pub fn target(&self) -> CargoTarget {
        self.selected().kind
    }

    /// The architecture that the worker is for.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// The features of its package that were selected.
    pub fn features(&self) -> &[String] {
        &self.compile.selection.features
    }

    /// The settings of its package, with absolute paths.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the way to the feature `aws` of cloudknot, without which a worker cannot reach S3; `None` if the worker will have it.
    ///
    /// # Errors
    /// If cargo cannot be asked.
    pub fn missing_aws_feature(&self) -> Result<Option<AwsFeature>, CompileError> {
        features::missing_aws(self)
    }

    /// Turns the feature `aws` of cloudknot on: selects a feature of the package, or adds it to the dependency in `Cargo.toml`.
    ///
    /// # Errors
    /// If `cargo add` fails.
    pub fn with_aws_feature(self, feature: &AwsFeature) -> Result<Self, CompileError> {
        features::turn_on(&self, feature)?.resolve()
    }

    fn cloudknot_version(&self) -> Option<cargo_metadata::semver::Version> {
        versions::of(&self.metadata, self.selected().package)
    }

    fn selected(&self) -> Selected<'_> {
        self.compile.selection.find(&self.metadata).expect("it was found in the same metadata before")
    }
}

fn folder_of(package: &cargo_metadata::Package) -> PathBuf {
    package.manifest_path.parent().map(Into::into).unwrap_or_default()
}
