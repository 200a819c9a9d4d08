//! Detects the tools that this machine can compile workers with, as a build would find them. Compiles nothing.

use super::command::Cargo;
use super::platform;
use super::toolchain::Toolchain;
use crate::build::compile::error::{CompileError, io};
use crate::build::compile::{Arch, Compile, Machine, Selection, WorkerTarget};
use crate::build::programs::on_path;

/// Detects the tools of this machine.
pub(crate) fn here() -> Result<Machine, CompileError> {
    // The current folder may belong to no package, and so have no target folder.
    let scratch = tempfile::tempdir().map_err(io("create a folder in", std::env::temp_dir()))?;
    let toolchain =
        Toolchain::of(Cargo::of(&Compile::new(Selection::default()))?, scratch.path(), &Arch::default().musl())?;
    let workers = [Arch::X86_64, Arch::Arm64].map(|arch| WorkerTarget::of(&toolchain, arch)).to_vec();
    let c_compiler = ["cc", "gcc", "clang"].into_iter().find(|name| on_path(name).is_some()).map(str::to_owned);
    Ok(Machine { rustc: toolchain.release, host: toolchain.host, c_compiler, workers })
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
