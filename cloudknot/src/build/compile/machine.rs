//! What this machine can compile workers with, as a build would find it. Compiles nothing.

use super::error::{CompileError, io};
use super::platform::{self, Arch};
use super::toolchain::{Toolchain, on_path};

/// The tools of this machine, as they are found from the current folder.
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
    /// The version of rustc.
    pub rustc: String,
    /// The target of rustc itself.
    pub host: String,
    /// The C compiler for this machine, which also links, by its name.
    pub c_compiler: Option<String>,
    /// What a worker would be compiled for, by architecture.
    pub workers: Vec<WorkerTarget>,
}

/// What a worker of one architecture would be compiled for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerTarget {
    /// The architecture.
    pub arch: Arch,
    /// The target; none where this machine cannot compile for the architecture.
    pub triple: Option<String>,
    /// Whether it can have C in it, as a worker over S3 has.
    pub compiles_c: bool,
    /// What to install, where something lacks.
    pub remedy: Option<String>,
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    /// Where there is no toolchain, or its configuration cannot be read.
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
