//! The target that the worker is compiled for, and what links it. Always Linux and static: musl where its standard
//! library is installed, else gnu. From macOS only by cross-compiling, which is untested.

use std::path::{Path, PathBuf};

use super::error::{CompileError, CompileErrorKind};
use super::toolchain::{Toolchain, on_path};

/// What the worker is compiled for, and by what.
#[derive(Debug)]
pub(super) struct Platform {
    pub(super) triple: String,
    pub(super) linker: Linker,
    /// The C compiler, if it has another name than the `cc` crate would look for.
    pub(super) c_compiler: Option<PathBuf>,
    /// Whether C can be compiled for it.
    pub(super) compiles_c: bool,
}

/// What links the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Linker {
    /// What rustc or cargo's configuration say.
    Default,
    /// A linker of another name.
    Program(PathBuf),
    /// `cargo zigbuild`, which also compiles C.
    Zig,
}

/// The architecture of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arch {
    /// x86-64, the default.
    #[default]
    X86_64,
    /// 64-bit ARM, such as Graviton.
    Arm64,
}

impl Arch {
    /// As Rust's targets name it.
    pub fn rust_name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// The architecture of a target, if a worker can have it.
    fn of(triple: &str) -> Option<Self> {
        [Self::X86_64, Self::Arm64].into_iter().find(|arch| triple.split('-').next() == Some(arch.rust_name()))
    }

    /// The target whose conditional dependencies are read before the worker's own target is chosen.
    pub(super) fn musl(self) -> String {
        format!("{}-unknown-linux-musl", self.rust_name())
    }

    fn gnu(self) -> String {
        format!("{}-unknown-linux-gnu", self.rust_name())
    }
}

/// Whether a worker can be compiled for this target at all.
pub(super) fn arch_of(triple: &str) -> Result<Arch, CompileError> {
    let fits = triple.contains("-linux-") && (triple.ends_with("-musl") || triple.ends_with("-gnu"));
    Arch::of(triple).filter(|_| fits).ok_or_else(|| {
        CompileError::new(CompileErrorKind::Settings, format!("failed to take `{triple}` as the target of a worker"))
            .advise("a worker runs on Linux: x86_64 or aarch64, -unknown-linux-musl or -unknown-linux-gnu")
    })
}

/// The platform for a target that was asked for. Whether its standard library is there is between the user and cargo.
pub(super) fn asked(toolchain: &Toolchain, triple: &str, needs_c: bool) -> Result<Platform, CompileError> {
    link(toolchain, triple, arch_of(triple)?, needs_c)?.ok_or_else(|| missing(toolchain, arch_of(triple), needs_c))
}

/// The first platform that this machine can compile for.
pub(super) fn choose(toolchain: &Toolchain, arch: Arch, needs_c: bool) -> Result<Platform, CompileError> {
    for triple in [arch.musl(), arch.gnu()] {
        if toolchain.has_std(&triple)
            && let Some(platform) = link(toolchain, &triple, arch, needs_c)?
        {
            return Ok(platform);
        }
    }
    Err(missing(toolchain, Ok(arch), needs_c))
}

/// The platform of a worker that takes its C library, gnu's, from the image it stands on.
pub(super) fn gnu(toolchain: &Toolchain, arch: Arch, needs_c: bool) -> Result<Platform, CompileError> {
    let linked = link(toolchain, &arch.gnu(), arch, needs_c)?;
    linked.filter(|_| toolchain.has_std(&arch.gnu())).ok_or_else(|| missing(toolchain, Ok(arch), true))
}

fn link(toolchain: &Toolchain, triple: &str, arch: Arch, needs_c: bool) -> Result<Option<Platform>, CompileError> {
    let configured = toolchain.config.linker(triple).map_err(|cause| {
        CompileError::new(CompileErrorKind::Toolchain, format!("failed to read the linker configured for `{triple}`"))
            .because(cause)
    })?;
    let native = toolchain.host == triple;
    let named_c = c_compiler_of_the_environment(triple);
    let cross = cross_compiler(triple, arch);
    // Rust brings what musl's programs are linked from; any `cc` of this architecture will do.
    let own_musl = triple.ends_with("-musl") && toolchain.host.starts_with(&format!("{}-", arch.rust_name()));
    let linker = if configured.is_some() || native || (own_musl && toolchain.host.contains("-linux-")) {
        Some(Linker::Default)
    } else {
        cross.clone().map(Linker::Program)
    };
    let compiles_c = native || named_c || cross.is_some();
    let triple = triple.to_string();
    if let Some(linker) = linker
        && (compiles_c || !needs_c)
    {
        let c_compiler = if native || named_c { None } else { cross };
        return Ok(Some(Platform { triple, linker, c_compiler, compiles_c }));
    }
    if on_path("cargo-zigbuild").is_some() {
        return Ok(Some(Platform { triple, linker: Linker::Zig, c_compiler: None, compiles_c: true }));
    }
    // For musl Rust brings everything that linking needs, on every host; but no C compiler.
    let own = toolchain.rust_lld().filter(|_| !needs_c && triple.ends_with("-musl"));
    Ok(own.map(|lld| Platform { triple, linker: Linker::Program(lld), c_compiler: None, compiles_c: false }))
}

/// What the `cc` crate reads; it then goes before everything else.
fn c_compiler_of_the_environment(triple: &str) -> bool {
    let underscored = triple.replace('-', "_");
    [format!("CC_{triple}"), format!("CC_{underscored}"), "TARGET_CC".into()]
        .iter()
        .any(|name| std::env::var_os(name).is_some())
}

/// The compiler that Debian, Fedora, Alpine, Homebrew and the like install for this target.
fn cross_compiler(triple: &str, arch: Arch) -> Option<PathBuf> {
    let libc = if triple.ends_with("-musl") { "musl" } else { "gnu" };
    let name = format!("{}-linux-{libc}-gcc", arch.rust_name());
    // `musl-gcc` wraps the compiler of the machine, whichever that is.
    let wrapper = || on_path("musl-gcc").filter(|_| libc == "musl" && arch.rust_name() == std::env::consts::ARCH);
    on_path(&name).or_else(wrapper)
}

fn missing(toolchain: &Toolchain, arch: Result<Arch, CompileError>, needs_c: bool) -> CompileError {
    let arch = match arch {
        Ok(arch) => arch,
        Err(error) => return error,
    };
    let (musl, gnu, name) = (arch.musl(), arch.gnu(), arch.rust_name());
    let on_linux = toolchain.host.contains("-linux-");
    let command = if !needs_c && !toolchain.has_std(&musl) {
        format!("rustup target add {musl}")
    } else if on_linux && Path::new("/usr/bin/apt-get").exists() {
        let package = name.replace('_', "-");
        let add = if toolchain.has_std(&gnu) { String::new() } else { format!(" && rustup target add {gnu}") };
        format!("sudo apt-get install gcc-{package}-linux-gnu{add}")
    } else {
        let zig = if on_linux { "pip install ziglang" } else { "brew install zig" };
        format!("{zig} && cargo install cargo-zigbuild && rustup target add {musl}")
    };
    let why = if needs_c { "; something that it is linked with compiles C, so a C compiler is needed too" } else { "" };
    CompileError::new(
        CompileErrorKind::Toolchain,
        format!("failed to find what compiles a worker for {name} Linux on this machine ({}){why}", toolchain.host),
    )
    .advise(format!("install it, then run the same command: {command}"))
}
