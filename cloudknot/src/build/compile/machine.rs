//! Detects the tools that this machine can compile workers with, as a build would find them. Compiles nothing.

use super::error::{CompileError, io};
use super::platform::{self, Arch};
use super::toolchain::{Toolchain, on_path};

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

impl Machine {
    /// Detects the tools of this machine.
    ///
    /// # Errors
    /// Returns an error if there is no toolchain, or its configuration cannot be read.
    pub fn here() -> Result<Self, CompileError> {
        let toolchain = Toolchain::of(&std::env::current_dir().map_err(io("find the current folder", "."))?)?;
        let workers = [Arch::X86_64, Arch::Arm64].map(|arch| WorkerTarget::of(&toolchain, arch)).to_vec();
        let c_compiler = ["cc", "gcc", "clang"].into_iter().find(|name| on_path(name).is_some()).map(str::to_owned);
        Ok(Self { rustc: toolchain.release, host: toolchain.host, c_compiler, workers })
    }
}

impl WorkerTarget {
    fn of(toolchain: &Toolchain, arch: Arch) -> Self {
        let remedy = |error: CompileError| error.hint().map(str::to_owned);
        match platform::choose(toolchain, arch, true) {
            Ok(platform) => Self { arch, triple: Some(platform.triple), compiles_c: true, remedy: None },
            Err(error) => {
                let without_c = platform::choose(toolchain, arch, false).ok().map(|platform| platform.triple);
                Self { arch, triple: without_c, compiles_c: false, remedy: remedy(error) }
            }
        }
    }
}
