//! Compiles with cargo and rustc. No other module of the library starts them.

mod build;
mod executable;
pub(super) mod features;
mod flags;
mod library;
pub(super) mod machine;
mod origin;
pub(super) mod platform;
mod selection;
mod toolchain;
pub(super) mod versions;
pub(super) mod worker;

use std::path::PathBuf;

use cargo_metadata::{Metadata, Package};

use super::error::{CompileError, CompileErrorKind, io};
use super::settings::{Allocator, Settings};
use super::{Arch, Compile, Program};
use platform::Platform;
use selection::SelectedTarget;
use toolchain::Toolchain;

/// Toolchain, metadata and platform of a program.
pub(super) struct BuildContext {
    pub(super) toolchain: Toolchain,
    pub(super) metadata: Metadata,
    pub(super) platform: Platform,
}

impl Compile {
    pub(super) fn toolchain(&self) -> Result<Toolchain, CompileError> {
        let current = std::env::current_dir().map_err(io("find the current folder", "."))?;
        Toolchain::of(&self.folder.as_ref().map_or_else(|| current.clone(), |folder| current.join(folder)))
    }

    /// Reads the metadata with a worker's flags, since the dependencies of a worker differ from those of the host.
    pub(super) fn metadata(&self, toolchain: &Toolchain) -> Result<Metadata, CompileError> {
        let triple = self.target.clone().unwrap_or_else(|| self.arch.musl());
        let arch = platform::arch_of(&triple)?;
        if arch != self.arch && self.arch != Arch::default() {
            let message = format!("cannot compile for both {} and `{triple}`", self.arch.rust_name());
            return Err(CompileError::new(CompileErrorKind::Settings, message).with_hint("set only one of them"));
        }
        let user = flags::user_flags(toolchain, &triple)?;
        let rustflags = flags::encode(flags::worker_flags(self.dynamic).into_iter().chain(user))?;
        toolchain.metadata(&self.selection, &triple, &rustflags, &self.cargo_options)
    }

    pub(super) fn platform(
        &self,
        toolchain: &Toolchain,
        metadata: &Metadata,
        selected: &SelectedTarget<'_>,
        settings: &Settings,
    ) -> Result<Platform, CompileError> {
        let needs_c = settings.compile.allocator == Some(Allocator::Mimalloc)
            || selection::compiles_c(metadata, selected.package);
        match &self.target {
            Some(triple) => platform::for_triple(toolchain, triple, needs_c),
            // A base image with musl requires an explicit `--target`.
            None if self.dynamic || settings.image.has_base() => platform::gnu(toolchain, self.arch, needs_c),
            None => platform::choose(toolchain, self.arch, needs_c),
        }
    }
}

impl Program {
    fn selected(&self) -> SelectedTarget<'_> {
        self.compile.selection.find(&self.cargo.metadata).expect("`resolve` has found the target in the same metadata")
    }
}

pub(super) fn settings_of(package: &Package) -> Result<Settings, CompileError> {
    let table = package.metadata.get("cloudknot");
    table.map_or_else(
        || Ok(Settings::default()),
        |table| Settings::read(table, &package.name, package.manifest_path.as_std_path()),
    )
}

pub(super) fn folder_of(package: &Package) -> PathBuf {
    package.manifest_path.parent().map(Into::into).unwrap_or_default()
}
