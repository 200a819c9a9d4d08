//! The target that the worker is compiled for, and its linker. The target is always Linux; the worker is static, unless it has
//! a base image. A static worker uses musl if its standard library is installed, otherwise gnu. On macOS this requires
//! cross-compilation, which is untested.

use std::path::{Path, PathBuf};

use super::toolchain::Toolchain;
use crate::build::compile::Arch;
use crate::build::compile::error::{CompileError, CompileErrorKind};
use crate::build::programs::on_path;

/// Target that the worker is compiled for, and the tools that compile it.
#[derive(Debug)]
pub(crate) struct Platform {
    pub(crate) triple: String,
    pub(crate) linker: Linker,
    /// C compiler, if its name differs from the one that the `cc` crate looks for.
    pub(crate) c_compiler: Option<PathBuf>,
    /// `true` if C can be compiled for the target.
    pub(crate) compiles_c: bool,
}

/// Linker of the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Linker {
    /// The linker that rustc or cargo's configuration selects.
    Default,
    /// Another linker program.
    Program(PathBuf),
    /// `cargo zigbuild`, which also compiles C.
    Zig,
}

impl Arch {
    /// Returns the architecture of a target, if workers support it.
    fn of(triple: &str) -> Option<Self> {
        [Self::X86_64, Self::Arm64].into_iter().find(|arch| triple.split('-').next() == Some(arch.rust_name()))
    }

    pub(super) fn musl(self) -> String {
        format!("{}-unknown-linux-musl", self.rust_name())
    }

    pub(super) fn gnu(self) -> String {
        format!("{}-unknown-linux-gnu", self.rust_name())
    }
}

/// Returns the architecture of a target, or an error if a worker cannot be compiled for the target.
pub(crate) fn arch_of(triple: &str) -> Result<Arch, CompileError> {
    let fits = triple.contains("-linux-") && (triple.ends_with("-musl") || triple.ends_with("-gnu"));
    Arch::of(triple).filter(|_| fits).ok_or_else(|| {
        CompileError::new(CompileErrorKind::Settings, format!("invalid target `{triple}` for a worker"))
            .with_hint("a worker runs on Linux: x86_64 or aarch64, -unknown-linux-musl or -unknown-linux-gnu")
    })
}

/// Returns the platform for a target chosen by the user. cargo reports the error if the target's standard library is missing.
pub(super) fn for_triple(toolchain: &Toolchain, triple: &str, needs_c: bool) -> Result<Platform, CompileError> {
    let arch = arch_of(triple)?;
    link(toolchain, triple, arch, needs_c)?.ok_or_else(|| missing(toolchain, arch, Some(triple), needs_c))
}

/// Returns the first platform that this machine can compile for.
pub(super) fn choose(toolchain: &Toolchain, arch: Arch, needs_c: bool) -> Result<Platform, CompileError> {
    for triple in [arch.musl(), arch.gnu()] {
        if toolchain.has_std(&triple)
            && let Some(platform) = link(toolchain, &triple, arch, needs_c)?
        {
            return Ok(platform);
        }
    }
    Err(missing(toolchain, arch, None, needs_c))
}

/// Returns the platform of a worker that uses its base image's C library, which is gnu's.
pub(super) fn gnu(toolchain: &Toolchain, arch: Arch, needs_c: bool) -> Result<Platform, CompileError> {
    let triple = arch.gnu();
    let linked = link(toolchain, &triple, arch, needs_c)?.filter(|_| toolchain.has_std(&triple));
    linked.ok_or_else(|| missing(toolchain, arch, Some(&triple), needs_c))
}

fn link(toolchain: &Toolchain, triple: &str, arch: Arch, needs_c: bool) -> Result<Option<Platform>, CompileError> {
    let configured = toolchain.configuration(triple)?.linker;
    let native = toolchain.host == triple;
    let c_from_environment = has_c_compiler_variable(triple);
    let cross = cross_compiler(triple, arch);
    // Rust ships the libraries that musl programs are linked with; any `cc` of this architecture works.
    let same_arch_musl = triple.ends_with("-musl") && toolchain.host.starts_with(&format!("{}-", arch.rust_name()));
    let linker = if configured.is_some() || native || (same_arch_musl && toolchain.host.contains("-linux-")) {
        Some(Linker::Default)
    } else {
        cross.clone().map(Linker::Program)
    };
    let compiles_c = native || c_from_environment || cross.is_some();
    let triple = triple.to_string();
    if let Some(linker) = linker
        && (compiles_c || !needs_c)
    {
        let c_compiler = if native || c_from_environment { None } else { cross };
        return Ok(Some(Platform { triple, linker, c_compiler, compiles_c }));
    }
    if on_path("cargo-zigbuild").is_some() {
        return Ok(Some(Platform { triple, linker: Linker::Zig, c_compiler: None, compiles_c: true }));
    }
    // For musl, Rust ships everything that linking needs, on every host, but no C compiler.
    let rust_lld = toolchain.rust_lld().filter(|_| !needs_c && triple.ends_with("-musl"));
    Ok(rust_lld.map(|lld| Platform { triple, linker: Linker::Program(lld), c_compiler: None, compiles_c: false }))
}

/// Returns whether the environment sets a variable that the `cc` crate reads; it then takes precedence over everything else.
fn has_c_compiler_variable(triple: &str) -> bool {
    let underscored = triple.replace('-', "_");
    [format!("CC_{triple}"), format!("CC_{underscored}"), "TARGET_CC".into()]
        .iter()
        .any(|name| std::env::var_os(name).is_some())
}

/// Returns the compiler for this target as Debian, Fedora, Alpine, Homebrew and others install it.
fn cross_compiler(triple: &str, arch: Arch) -> Option<PathBuf> {
    let libc = if triple.ends_with("-musl") { "musl" } else { "gnu" };
    let name = format!("{}-linux-{libc}-gcc", arch.rust_name());
    // `musl-gcc` wraps the compiler of the machine, whatever its architecture.
    let wrapper = || on_path("musl-gcc").filter(|_| libc == "musl" && arch.rust_name() == std::env::consts::ARCH);
    on_path(&name).or_else(wrapper)
}

/// Returns the error for a machine without a suitable platform, for the target chosen by the user or for an architecture.
fn missing(toolchain: &Toolchain, arch: Arch, triple: Option<&str>, needs_c: bool) -> CompileError {
    let missing_tools = MissingTools {
        host: &toolchain.host,
        has_std: &|triple| toolchain.has_std(triple),
        has_apt: Path::new("/usr/bin/apt-get").exists(),
        arch,
        triple,
        needs_c,
    };
    let why = if needs_c { "; one of its dependencies compiles C, so a C compiler is needed as well" } else { "" };
    let what = triple.map_or_else(|| format!("{} Linux", arch.rust_name()), |triple| format!("`{triple}`"));
    CompileError::new(
        CompileErrorKind::Toolchain,
        format!("cannot find the tools that compile a worker for {what} on this machine ({}){why}", toolchain.host),
    )
    .with_hint(format!("install them, then run the same command again: {}", missing_tools.remedy()))
}

/// Machine that cannot compile for the requested target or architecture.
struct MissingTools<'l> {
    host: &'l str,
    has_std: &'l dyn Fn(&str) -> bool,
    /// `true` if the machine installs Debian packages.
    has_apt: bool,
    arch: Arch,
    /// Target chosen by the user, if any.
    triple: Option<&'l str>,
    needs_c: bool,
}

impl MissingTools<'_> {
    /// Returns the command that installs the missing tools.
    fn remedy(&self) -> String {
        let triple = self.triple.map_or_else(|| self.nearest(), str::to_owned);
        let lacks_std = !(self.has_std)(&triple);
        let std = lacks_std.then(|| format!("rustup target add {triple}"));
        // Rust ships the linker for musl.
        let links = !self.needs_c && triple.ends_with("-musl") && lacks_std;
        let tools = (!links).then(|| self.tools(&triple));
        tools.into_iter().chain(std).collect::<Vec<_>>().join(" && ")
    }

    /// Returns the target that needs the fewest installations.
    fn nearest(&self) -> String {
        let musl = self.arch.musl();
        let rust_alone = !self.needs_c && !(self.has_std)(&musl);
        if rust_alone || !self.installs_packages() { musl } else { self.arch.gnu() }
    }

    /// Returns the command that installs a C compiler for the target, which also links.
    fn tools(&self, triple: &str) -> String {
        let arch = self.arch.rust_name();
        let same_arch = self.host.starts_with(&format!("{arch}-"));
        match triple.ends_with("-musl") {
            false if self.installs_packages() => {
                format!("sudo apt-get install gcc-{}-linux-gnu", arch.replace('_', "-"))
            }
            // Debian has a compiler with musl only for the machine's own architecture.
            true if self.installs_packages() && same_arch => "sudo apt-get install musl-tools".to_owned(),
            _ => {
                let zig = if self.host.contains("-linux-") { "pip install ziglang" } else { "brew install zig" };
                format!("{zig} && cargo install cargo-zigbuild")
            }
        }
    }

    fn installs_packages(&self) -> bool {
        self.has_apt && self.host.contains("-linux-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedy_installs_the_missing_tools() {
        const X86: &str = "x86_64-unknown-linux-gnu";
        const ARM: &str = "aarch64-unknown-linux-gnu";
        const MAC: &str = "aarch64-apple-darwin";
        const X86_MUSL: &str = "x86_64-unknown-linux-musl";
        const ARM_MUSL: &str = "aarch64-unknown-linux-musl";
        let check = |host, has_apt, (arch, triple): (Arch, Option<&str>), needs_c, stds: &[&str], command: &str| {
            let missing_tools =
                MissingTools { host, has_std: &|triple| stds.contains(&triple), has_apt, arch, triple, needs_c };
            assert_eq!(missing_tools.remedy(), command, "{host} {has_apt} {arch:?} {triple:?} {needs_c} {stds:?}");
        };
        let for_triple = |triple: &'static str| (arch_of(triple).unwrap(), Some(triple));
        let zig = "pip install ziglang && cargo install cargo-zigbuild";

        let musl_tools = "sudo apt-get install musl-tools";
        check(X86, true, for_triple(X86_MUSL), true, &[X86, X86_MUSL], musl_tools);
        check(X86, true, for_triple(X86_MUSL), true, &[X86], &format!("{musl_tools} && rustup target add {X86_MUSL}"));
        check(ARM, true, for_triple(ARM_MUSL), true, &[ARM, ARM_MUSL], musl_tools);
        check(X86, false, for_triple(X86_MUSL), true, &[X86, X86_MUSL], zig);

        check(X86, true, for_triple(ARM_MUSL), false, &[X86], &format!("rustup target add {ARM_MUSL}"));
        check(X86, true, for_triple(ARM_MUSL), false, &[X86, ARM_MUSL], zig);
        check(X86, true, for_triple(ARM_MUSL), true, &[X86, ARM_MUSL], zig);
        check(X86, true, for_triple(ARM_MUSL), true, &[X86], &format!("{zig} && rustup target add {ARM_MUSL}"));

        let gcc = "sudo apt-get install gcc-aarch64-linux-gnu";
        check(X86, true, for_triple(ARM), false, &[X86, ARM], gcc);
        check(X86, true, for_triple(ARM), true, &[X86], &format!("{gcc} && rustup target add {ARM}"));
        check(X86, false, for_triple(ARM), true, &[X86], &format!("{zig} && rustup target add {ARM}"));
        check(ARM, true, for_triple(X86), true, &[ARM, X86], "sudo apt-get install gcc-x86-64-linux-gnu");

        let brew = "brew install zig && cargo install cargo-zigbuild";
        check(MAC, false, for_triple(X86_MUSL), true, &[], &format!("{brew} && rustup target add {X86_MUSL}"));
        check(MAC, false, for_triple(ARM), true, &[ARM], brew);

        let any = (Arch::Arm64, None);
        check(X86, true, any, false, &[X86], &format!("rustup target add {ARM_MUSL}"));
        check(X86, true, any, true, &[X86], &format!("{gcc} && rustup target add {ARM}"));
        check(X86, true, any, true, &[X86, ARM], gcc);
        check(X86, false, any, true, &[X86], &format!("{zig} && rustup target add {ARM_MUSL}"));
        check(MAC, false, any, true, &[], &format!("{brew} && rustup target add {ARM_MUSL}"));
    }
}
