//! The options of a compilation, and descriptions of its results. Plain data: this module does not run cargo.

use std::fmt;
use std::path::PathBuf;

use super::error::{CompileError, CompileErrorKind};

/// Options that select a package and a target. The default selects the only candidate.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Value of `--manifest-path`.
    pub manifest_path: Option<PathBuf>,
    /// Value of `--package`: a name, `name@version`, or a package ID.
    pub package: Option<String>,
    /// Target of `--bin`, `--example` or `--lib`.
    pub target: Option<CargoTarget>,
    /// Values of `--features`.
    pub features: Vec<String>,
    /// Value of `--all-features`.
    pub all_features: bool,
    /// Value of `--no-default-features`.
    pub no_default_features: bool,
}

/// Target of a cargo package.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CargoTarget {
    /// The library alone; its main is generated.
    Lib,
    /// The program of this name.
    Bin(String),
    /// The example of this name.
    Example(String),
}

impl CargoTarget {
    /// Returns the cargo option that selects the target.
    pub fn option(&self) -> String {
        match self {
            Self::Lib => "--lib".into(),
            Self::Bin(name) => format!("--bin {name}"),
            Self::Example(name) => format!("--example {name}"),
        }
    }
}

impl Selection {
    /// Returns the features as cargo options.
    pub(super) fn feature_options(&self) -> Vec<String> {
        let mut options = Vec::new();
        if self.all_features {
            options.push("--all-features".into());
        }
        if self.no_default_features {
            options.push("--no-default-features".into());
        }
        if !self.features.is_empty() {
            options.extend(["--features".into(), self.features.join(",")]);
        }
        options
    }
}

/// Profile of a worker build: how long the compiler may take to optimize.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Profile {
    /// `opt-level = 3`, fat LTO, one codegen unit, stripped; the AWS SDK, which only waits, is compiled for size. A
    /// `[profile.cloudknot]` of the user takes precedence.
    #[default]
    Deploy,
    /// Profile for experiments: as `Deploy` without LTO, and incremental. The worker is larger, and its bytes may differ
    /// between builds.
    Fast,
    /// A profile of the user, unchanged.
    Named(String),
}

impl Profile {
    /// Returns the profile's name in cargo.
    pub fn name(&self) -> &str {
        match self {
            Self::Deploy => "cloudknot",
            Self::Fast => "cloudknot-fast",
            Self::Named(name) => name,
        }
    }
}

/// Architecture of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arch {
    /// x86-64, the default.
    #[default]
    X86_64,
    /// 64-bit ARM, such as Graviton.
    Arm64,
}

impl Arch {
    /// Returns the name of the architecture in Rust's targets.
    pub fn rust_name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }
}

/// Way to enable the feature `aws` of cloudknot. `Display` writes the cargo options, or the command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AwsFeature {
    /// A feature of the program's package enables it.
    #[non_exhaustive]
    OfPackage {
        /// Name of the feature.
        feature: String,
    },
    /// The dependency on cloudknot in `Cargo.toml` has to enable it.
    #[non_exhaustive]
    OfDependency {
        /// Arguments of `cargo add`.
        arguments: Vec<String>,
    },
}

impl fmt::Display for AwsFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfPackage { feature } => write!(f, "--features {feature}"),
            Self::OfDependency { arguments } => write!(f, "cargo add {}", arguments.join(" ")),
        }
    }
}

impl AwsFeature {
    /// Returns the error for a deploy of this package.
    pub(crate) fn refusal(&self, package: &str) -> CompileError {
        let message =
            format!("cannot deploy `{package}` without the feature `aws` of cloudknot: its workers cannot reach S3");
        let hint = match self {
            Self::OfPackage { feature } => format!(
                "deploy with `--features {feature}`, and run the program with it, too: `cargo run -p {package} --features \
                 {feature}`; `--add-feature` selects it for the deploy"
            ),
            Self::OfDependency { .. } => {
                format!("run `{self}`, then deploy again; `--add-feature` does both")
            }
        };
        CompileError::new(CompileErrorKind::Feature, message).with_hint(hint)
    }
}

/// Build tools of this machine, as found from the current folder.
///
/// ```no_run
/// # fn main() -> Result<(), cloudknot::compile::CompileError> {
/// let machine = cloudknot::compile::Machine::here()?;
/// println!("rustc {} on {}", machine.rustc, machine.host);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Machine {
    /// Version of rustc.
    pub rustc: String,
    /// Target of rustc itself.
    pub host: String,
    /// Name of the C compiler for this machine, which also links.
    pub c_compiler: Option<String>,
    /// Compilation target of a worker for each architecture.
    pub workers: Vec<WorkerTarget>,
}

/// Compilation target of a worker of one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerTarget {
    /// Architecture of the worker.
    pub arch: Arch,
    /// Target triple; `None` if this machine cannot compile for the architecture.
    pub triple: Option<String>,
    /// `true` if the worker can contain C code, as a worker that uses S3 does.
    pub compiles_c: bool,
    /// Hint on what to install, if something is missing.
    pub remedy: Option<String>,
}
