//! Compiles with cargo and rustc. No other module of the library starts them.

mod allocator;
mod build;
mod command;
mod configuration;
mod executable;
pub(super) mod features;
mod flags;
pub(crate) mod generated;
mod library;
pub(super) mod machine;
pub(super) mod native;
mod origin;
pub(super) mod platform;
mod selection;
mod sources;
mod toolchain;
mod tree;
pub(super) mod versions;
pub(super) mod worker;

use std::path::PathBuf;

use cargo_metadata::{Metadata, Package};

use super::error::{CompileError, CompileErrorKind};
use super::settings::{Allocator, Settings};
use super::{Arch, Compile, Program};
use command::Cargo;
use platform::Platform;
use selection::SelectedTarget;
use toolchain::Toolchain;
use tree::Tree;

/// Toolchain, metadata and platform of a program.
pub(super) struct BuildContext {
    pub(super) toolchain: Toolchain,
    pub(super) metadata: Metadata,
    pub(super) platform: Platform,
    /// Packages of the worker, for its platform.
    tree: Tree,
}

/// Resolves the package, target, settings and platform of a program.
pub(super) fn resolve(compile: &Compile) -> Result<Program, CompileError> {
    let cargo = Cargo::of(compile)?;
    let (triple, metadata) = compile.first_metadata(&cargo)?;
    let package = compile.selection.find(&metadata)?.package;
    versions::check(&metadata, package)?;
    let settings = settings_of(package)?;
    if settings.knot.arm64 == Some(true) && compile.arch != Arch::Arm64 && compile.target.is_none() {
        // The dependencies may differ on that architecture, so everything is resolved again.
        return compile.clone().arch(Arch::Arm64).resolve();
    }
    let toolchain = Toolchain::of(cargo, metadata.target_directory.as_std_path(), &triple)?;
    let user = toolchain.configuration(&triple)?.rustflags;
    let metadata = if user.is_empty() { metadata } else { compile.metadata_with(&toolchain.cargo, &triple, user)? };
    let selected = compile.selection.find(&metadata)?;
    let dynamic = compile.dynamic || settings.image.has_base();
    let tree_of = |triple: &str| Tree::of(compile, &toolchain, &selected, triple, dynamic);
    let platform_for = |needs_c| {
        let needs_c = needs_c || settings.compile.allocator == Some(Allocator::Mimalloc);
        compile.platform(&toolchain, dynamic, needs_c)
    };
    let (platform, tree) = platform_and_tree(&triple, tree_of, platform_for)?;
    Ok(Program {
        compile: compile.clone(),
        package: selected.package.name.to_string(),
        version: selected.package.version.to_string(),
        package_folder: folder_of(selected.package),
        target: selected.kind,
        arch: platform::arch_of(&platform.triple)?,
        dynamic,
        settings,
        cargo: BuildContext { toolchain, metadata, platform, tree },
    })
}

/// Returns the platform of a worker, and the packages that the worker has there. Each may depend on the other: a package may
/// compile C, and belong to one target only. Begins with the packages for `triple`.
fn platform_and_tree(
    triple: &str,
    tree_of: impl Fn(&str) -> Result<Tree, CompileError>,
    platform_for: impl Fn(bool) -> Result<Platform, CompileError>,
) -> Result<(Platform, Tree), CompileError> {
    let tree = tree_of(triple)?;
    let needs_c = tree.compiles_c();
    let platform = platform_for(needs_c)?;
    if platform.triple == triple {
        return Ok((platform, tree));
    }
    let tree = tree_of(&platform.triple)?;
    Ok((platform_for(needs_c || tree.compiles_c())?, tree))
}

impl Compile {
    /// Reads the metadata as far as it does not depend on cargo's configuration: packages, targets and settings.
    pub(super) fn metadata(&self) -> Result<Metadata, CompileError> {
        self.first_metadata(&Cargo::of(self)?).map(|(_, metadata)| metadata)
    }

    /// Reads the metadata for the first target for which the selected package uses cloudknot, and returns both. The user's flags
    /// are not known yet. They may only change the dependencies.
    fn first_metadata(&self, cargo: &Cargo) -> Result<(String, Metadata), CompileError> {
        let (triple, other) = self.first_triples()?;
        let metadata = self.metadata_with(cargo, &triple, Vec::new())?;
        match other.filter(|_| !self.selection.matches(&metadata)) {
            Some(other) => self.metadata_with(cargo, &other, Vec::new()).map(|metadata| (other, metadata)),
            None => Ok((triple, metadata)),
        }
    }

    /// Reads the metadata with a worker's flags, since the dependencies of a worker differ from those of the host.
    fn metadata_with(&self, cargo: &Cargo, triple: &str, user: Vec<String>) -> Result<Metadata, CompileError> {
        let rustflags = flags::resolution_flags(self.dynamic, user)?;
        cargo.metadata(&self.selection, triple, &rustflags)
    }

    /// Returns the target whose dependencies are read before the worker's own target is chosen, and another one that may be
    /// chosen.
    fn first_triples(&self) -> Result<(String, Option<String>), CompileError> {
        let Some(triple) = &self.target else {
            let gnu = self.arch.gnu();
            return Ok(if self.dynamic { (gnu, None) } else { (self.arch.musl(), Some(gnu)) });
        };
        let arch = platform::arch_of(triple)?;
        if arch != self.arch && self.arch != Arch::default() {
            let message = format!("cannot compile for both {} and `{triple}`", self.arch.rust_name());
            return Err(CompileError::new(CompileErrorKind::Settings, message).with_hint("set only one of them"));
        }
        Ok((triple.clone(), None))
    }

    fn platform(&self, toolchain: &Toolchain, dynamic: bool, needs_c: bool) -> Result<Platform, CompileError> {
        match &self.target {
            Some(triple) => platform::for_triple(toolchain, triple, needs_c),
            // A base image with musl requires an explicit `--target`.
            None if dynamic => platform::gnu(toolchain, self.arch, needs_c),
            None => platform::choose(toolchain, self.arch, needs_c),
        }
    }
}

impl Program {
    /// Returns the target triple that the worker is compiled for.
    pub(crate) fn triple(&self) -> &str {
        &self.cargo.platform.triple
    }

    /// Returns a source file with a remote function whose attribute requests GPUs, as far as that is known before compiling.
    pub(crate) fn gpus_in_sources(&self) -> Option<PathBuf> {
        sources::search(&self.cargo, &self.selected()).gpus()
    }

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

/// Returns the packages whose source is a folder of this machine.
fn packages_in_folders(metadata: &Metadata) -> impl Iterator<Item = &Package> {
    metadata.packages.iter().filter(|package| package.source.is_none())
}

pub(super) fn folder_of(package: &Package) -> PathBuf {
    package.manifest_path.parent().map(Into::into).unwrap_or_default()
}
