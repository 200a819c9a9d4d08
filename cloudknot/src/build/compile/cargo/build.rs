//! Runs `cargo build`, and checks that the result can be a worker. No other file starts `cargo build`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use cargo_metadata::{Message, Metadata};
use cloudknot_runtime::contract::VERSION;

use super::executable::Executable;
use super::platform::Linker;
use super::selection::{SelectedTarget, spec_of, targets_of};
use super::{BuildContext, allocator, flags, library, versions};
use crate::build::compile::error::{CompileError, CompileErrorKind, io};
use crate::build::compile::settings::Allocator;
use crate::build::compile::{CargoTarget, Program};

/// A single `cargo build`.
pub(super) struct Build<'b> {
    pub(super) program: &'b Program,
    pub(super) selected: &'b SelectedTarget<'b>,
    pub(super) target_folder: PathBuf,
    pub(super) allocator: Allocator,
}

impl Build<'_> {
    /// Runs cargo. Returns the executable, and whether it was already up to date.
    pub(super) fn run(&self) -> Result<(PathBuf, bool), CompileError> {
        let hint = || {
            let mut hint =
                "the messages above are about the worker: the build with `--cfg cloudknot_worker`".to_owned();
            if self.selected.kind == CargoTarget::Lib {
                hint = format!("{hint}. Paths in them may begin with `{}`, a link to the workspace", library::LINK);
            }
            if self.allocator == Allocator::Mimalloc {
                hint = format!("{hint}. If it has two allocators, {}", allocator::HINT);
            }
            hint
        };
        run(self.command()?, &format!("compile the worker of `{}`", self.selected.package.name), hint)
    }

    fn command(&self) -> Result<Command, CompileError> {
        let Program { compile, settings, cargo, .. } = self.program;
        let BuildContext { toolchain, metadata, platform, .. } = cargo;
        let selected = self.selected;
        let manifest = workspace_manifest(metadata)?;
        let mut command = toolchain.cargo.command();
        command.arg(if platform.linker == Linker::Zig { "zigbuild" } else { "build" });
        if selected.kind == CargoTarget::Lib {
            let (path, name) =
                library::generate(metadata, selected, &compile.selection, &manifest, &self.target_folder)?;
            command.arg("--manifest-path").arg(path).args(["--bin", &name]);
            // cargo adds the generated package to the copy of the lock file, so the copy cannot be locked. Its other
            // entries do not change.
            let unlocked = compile.cargo_options.iter().filter(|option| *option != "--locked");
            command.args(unlocked.map(|option| if option == "--frozen" { "--offline" } else { option }));
        } else {
            command.arg("--manifest-path").arg(&selected.package.manifest_path);
            command.args(["--package", &spec_of(selected.package)]).args(selected.kind.option().split(' '));
            command.args(compile.selection.feature_options()).args(&compile.cargo_options);
        }
        command.args(["--message-format", "json-render-diagnostics", "--target", &platform.triple]);
        command.arg("--target-dir").arg(&self.target_folder);
        command.args(compile.profile.options(settings, &manifest, metadata));
        command.env("CARGO_ENCODED_RUSTFLAGS", self.rustflags()?);
        if let Linker::Program(linker) = &platform.linker {
            let name = platform.triple.to_uppercase().replace('-', "_");
            command.env(format!("CARGO_TARGET_{name}_LINKER"), linker);
        }
        if let Some(compiler) = &platform.c_compiler {
            command.env(format!("CC_{}", platform.triple.replace('-', "_")), compiler);
        }
        Ok(command)
    }

    fn rustflags(&self) -> Result<String, CompileError> {
        let Program { settings, dynamic, cargo, .. } = self.program;
        let BuildContext { toolchain, metadata, platform, .. } = cargo;
        // The last of two conflicting flags applies: the user's flags follow those of every worker, and those of the
        // settings come last.
        let all = [
            flags::worker_flags(*dynamic),
            flags::remap(toolchain, metadata, &self.target_folder),
            toolchain.configuration(&platform.triple)?.rustflags,
            flags::settings_flags(settings, self.allocator),
        ];
        flags::encode(all.into_iter().flatten())
    }

    /// Checks that the executable can be a worker.
    pub(super) fn check(&self, executable: &Executable) -> Result<(), CompileError> {
        let (name, target) = (&self.selected.package.name, self.selected.kind.option());
        let refused = |message: String| CompileError::new(CompileErrorKind::Worker, message);
        if let Some(contract) = executable.contract.filter(|contract| *contract != VERSION) {
            let message = format!(
                "cannot use the worker of `{name}`: its contract with the host has version {contract}, and cargo-knot has version \
                 {VERSION}"
            );
            return Err(versions::refused(message, &self.program.cargo.metadata, self.selected.package));
        }
        if !executable.needs.is_empty() && !self.program.dynamic {
            let needs = executable.needs.join("`, `");
            return Err(refused(format!("cannot link `{name}` ({target}) statically: it needs `{needs}`"))
                .with_hint(
                    "link the native library statically (most `-sys` crates have a feature `static` or `vendored`), or \
                 give the worker a base image that has it: `base-image` or `dockerfile` in [package.metadata.cloudknot]",
                ));
        }
        if executable.functions.is_empty() {
            return Err(refused(format!("cannot find a remote function in `{name}` ({target})")).with_hint(format!(
                "mark one with #[cloudknot::remote]; those of another crate are linked only if this target refers \
                 to that crate (`use the_crate as _;` is enough). Or choose another target; {}",
                targets_of(self.selected.package)
            )));
        }
        if executable.contract.is_none() {
            return Err(refused(format!(
                "cannot use `{name}` ({target}) as a worker: its `main` lacks #[cloudknot::main]"
            ))
            .with_hint("add #[cloudknot::main] to its `main`, or choose the library alone: `--lib`"));
        }
        Ok(())
    }
}

/// Runs a `cargo build` that prints its messages as JSON. Returns the executable, and whether it was already up to date. `action`
/// completes "cannot", and `hint` is for a program that does not compile.
pub(super) fn run(
    mut command: Command,
    action: &str,
    hint: impl FnOnce() -> String,
) -> Result<(PathBuf, bool), CompileError> {
    let failed = || CompileError::new(CompileErrorKind::Cargo, format!("cannot {action}"));
    let mut cargo = command.stdout(Stdio::piped()).spawn().map_err(|cause| failed().with_source(cause))?;
    let output = cargo.stdout.take().expect("cargo's standard output is a pipe");
    let (mut executable, mut up_to_date) = (None, true);
    for message in Message::parse_stream(std::io::BufReader::new(output)) {
        if let Message::CompilerArtifact(artifact) = message.map_err(|cause| failed().with_source(cause))? {
            up_to_date &= artifact.fresh;
            executable = artifact.executable.or(executable);
        }
    }
    let status = cargo.wait().map_err(|cause| failed().with_source(cause))?;
    if !status.success() {
        return Err(failed().with_source(format!("cargo ended with {status}")).with_hint(hint()));
    }
    let path = executable.ok_or_else(|| failed().with_source("cargo produced no executable"))?;
    Ok((path.into(), up_to_date))
}

fn workspace_manifest(metadata: &Metadata) -> Result<toml::Table, CompileError> {
    let path = metadata.workspace_root.join("Cargo.toml");
    let text = fs::read_to_string(&path).map_err(io("read", &path))?;
    text.parse().map_err(|cause: toml::de::Error| {
        CompileError::new(CompileErrorKind::Settings, format!("cannot read `{path}`")).with_source(cause)
    })
}
