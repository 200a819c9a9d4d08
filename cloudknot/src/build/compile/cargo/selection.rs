//! Selects the package and the target that become the worker. The options have the same meaning as in cargo. If they leave a
//! choice, there must be a single candidate; otherwise the error lists the candidates.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Metadata, Package, PackageId, Target, TargetKind};

use crate::build::compile::error::{CompileError, CompileErrorKind};
use crate::build::compile::{CargoTarget, Selection};

/// Package and target found by a selection.
#[derive(Debug)]
pub(crate) struct SelectedTarget<'m> {
    pub(crate) package: &'m Package,
    pub(crate) target: &'m Target,
    pub(crate) kind: CargoTarget,
}

impl CargoTarget {
    fn of(target: &Target) -> Option<Self> {
        let is = |kind: TargetKind| target.kind.contains(&kind);
        if is(TargetKind::Bin) {
            Some(Self::Bin(target.name.clone()))
        } else if is(TargetKind::Example) && target.crate_types.contains(&cargo_metadata::CrateType::Bin) {
            Some(Self::Example(target.name.clone()))
        } else if is(TargetKind::Lib) || is(TargetKind::RLib) {
            Some(Self::Lib)
        } else {
            None
        }
    }
}

impl Selection {
    pub(crate) fn find<'m>(&self, metadata: &'m Metadata) -> Result<SelectedTarget<'m>, CompileError> {
        let matching = self.matching(metadata)?;
        let mut candidates: Vec<SelectedTarget<'m>> =
            matching.iter().flat_map(|package| self.candidates(metadata, package)).collect();
        match candidates.len() {
            1 => Ok(candidates.swap_remove(0)),
            0 => Err(self.no_candidate(&matching)),
            count => Err(several(count, &matching)),
        }
    }

    /// Returns the selected package, regardless of its targets.
    pub(crate) fn package<'m>(&self, metadata: &'m Metadata) -> Result<&'m Package, CompileError> {
        match *self.matching(metadata)? {
            [package] => Ok(package),
            ref packages => {
                let candidates = packages.iter().flat_map(|package| self.candidates(metadata, package));
                Err(several(candidates.count(), packages))
            }
        }
    }

    /// Returns whether any selected package uses cloudknot.
    pub(super) fn matches(&self, metadata: &Metadata) -> bool {
        self.matching(metadata).is_ok()
    }

    fn matching<'m>(&self, metadata: &'m Metadata) -> Result<Vec<&'m Package>, CompileError> {
        let packages = self.packages(metadata)?;
        let matching: Vec<&Package> =
            packages.iter().copied().filter(|package| uses_cloudknot(metadata, package)).collect();
        if matching.is_empty() { Err(without_cloudknot(metadata, &packages)) } else { Ok(matching) }
    }

    fn packages<'m>(&self, metadata: &'m Metadata) -> Result<Vec<&'m Package>, CompileError> {
        let Some(spec) = &self.package else {
            let root_manifest = metadata.workspace_root.join("Cargo.toml");
            // As in cargo: in a member's folder that member, in the workspace's own folder the default members.
            return Ok(match metadata.root_package() {
                Some(package) if package.manifest_path != root_manifest => vec![package],
                _ => metadata.workspace_default_packages(),
            });
        };
        let members = metadata.workspace_packages();
        let found: Vec<_> = members.iter().copied().filter(|package| matches_spec(package, spec)).collect();
        if found.is_empty() {
            let names: BTreeSet<_> = members.iter().map(|package| format!("`{}`", package.name)).collect();
            return Err(CompileError::new(
                CompileErrorKind::Selection,
                format!("cannot find package `{spec}` in the workspace `{}`", metadata.workspace_root),
            )
            .with_hint(format!("the workspace has: {}", names.into_iter().collect::<Vec<_>>().join(", "))));
        }
        Ok(found)
    }

    /// Returns the targets of one package that match. For a package with programs, these are the programs; its library
    /// matches only if it is requested or there is no program, and an example only if it is requested or nothing else is linked
    /// with cloudknot.
    fn candidates<'m>(&self, metadata: &'m Metadata, package: &'m Package) -> Vec<SelectedTarget<'m>> {
        let all = || targets(package);
        if let Some(target) = &self.target {
            return all().filter(|selected| selected.kind == *target).collect();
        }
        if !linked(metadata, package).iter().any(|package| package.name == "cloudknot") {
            return all().filter(|selected| matches!(selected.kind, CargoTarget::Example(_))).collect();
        }
        let programs: Vec<_> = all().filter(|selected| matches!(selected.kind, CargoTarget::Bin(_))).collect();
        if let Some(name) = &package.default_run {
            return programs.into_iter().filter(|selected| selected.target.name == *name).collect();
        }
        if programs.is_empty() {
            all().filter(|selected| selected.kind == CargoTarget::Lib).collect()
        } else {
            programs
        }
    }

    fn no_candidate(&self, packages: &[&Package]) -> CompileError {
        let problem = match &self.target {
            Some(target) => format!("cannot find the target `{}`", target.option()),
            None => "cannot find a program or a library".into(),
        };
        let names: Vec<_> = packages.iter().map(|package| format!("`{}`", package.name)).collect();
        let error = CompileError::new(CompileErrorKind::Selection, format!("{problem} in {}", names.join(", ")));
        let advice = packages.iter().flat_map(|package| &package.targets).find_map(advice_on_library);
        error.with_hint(advice.unwrap_or_else(|| list("there is", packages.iter().copied().flat_map(targets))))
    }
}

/// Returns a hint on a library that no Rust program can be linked with statically.
fn advice_on_library(target: &Target) -> Option<String> {
    let is = |kind: TargetKind| target.kind.contains(&kind);
    if is(TargetKind::ProcMacro) {
        return Some("a crate of procedural macros cannot have remote functions: put them into another crate".into());
    }
    let is_other = !is(TargetKind::Lib) && !is(TargetKind::RLib);
    let is_library = is(TargetKind::CDyLib) || is(TargetKind::DyLib) || is(TargetKind::StaticLib);
    (is_library && is_other).then(|| {
        format!("no worker can be linked with the library `{}`: add \"rlib\" to `crate-type` in its [lib]", target.name)
    })
}

/// Returns a readable list of all targets of a package that could be a worker.
pub(super) fn targets_of(package: &Package) -> String {
    list("the package has", targets(package))
}

fn targets(package: &Package) -> impl Iterator<Item = SelectedTarget<'_>> {
    package
        .targets
        .iter()
        .filter_map(move |target| Some(SelectedTarget { package, target, kind: CargoTarget::of(target)? }))
}

fn several(count: usize, packages: &[&Package]) -> CompileError {
    let message = format!("cannot choose the target of the worker: there are {count} candidates");
    CompileError::new(CompileErrorKind::Selection, message)
        .with_hint(list("choose one", packages.iter().copied().flat_map(targets)))
}

fn list<'m>(what: &str, selected: impl Iterator<Item = SelectedTarget<'m>>) -> String {
    let lines: Vec<_> =
        selected.map(|selected| format!("\n  -p {} {}", selected.package.name, selected.kind.option())).collect();
    if lines.is_empty() {
        format!("{what} no target that could be a worker")
    } else {
        format!("{what}:{}", lines.concat())
    }
}

fn without_cloudknot(metadata: &Metadata, packages: &[&Package]) -> CompileError {
    let names: Vec<_> = packages.iter().map(|package| format!("`{}`", package.name)).collect();
    let verb = if names.len() == 1 { "does" } else { "do" };
    let message = format!("cannot find a package with remote functions: {} {verb} not use cloudknot", names.join(", "));
    let others = metadata.workspace_packages().into_iter().filter(|package| uses_cloudknot(metadata, package));
    let others: Vec<_> = others.map(|package| format!("`-p {}`", package.name)).collect();
    let hint = match packages.iter().find_map(|package| enabling_feature(package)) {
        Some(feature) => format!("the dependency on cloudknot is optional: select it with `--features {feature}`"),
        None if !others.is_empty() => {
            format!("choose a package that uses it ({}), or add it with `cargo add cloudknot`", others.join(", "))
        }
        None => "add it with `cargo add cloudknot`, or choose another package with `--package`".to_owned(),
    };
    CompileError::new(CompileErrorKind::Selection, message).with_hint(hint)
}

/// Returns a feature that enables the optional dependency of a package on cloudknot.
fn enabling_feature(package: &Package) -> Option<&str> {
    let dependency =
        package.dependencies.iter().find(|dependency| dependency.name == "cloudknot" && dependency.optional)?;
    let name = dependency.rename.as_deref().unwrap_or(&dependency.name);
    let implied = format!("dep:{name}");
    let mut features = package.features.iter();
    features.find(|(_, enables)| enables.contains(&implied)).map(|(feature, _)| feature.as_str())
}

/// Returns the value of `--package` for this package, which no other package has. cargo does not decode names in package IDs.
pub(super) fn spec_of(package: &Package) -> String {
    if package.name.is_ascii() { package.id.repr.clone() } else { format!("{}@{}", package.name, package.version) }
}

/// Returns whether a package matches `--package`, as in cargo: a name, `name@version`, or the full ID.
fn matches_spec(package: &Package, spec: &str) -> bool {
    let version = package.version.to_string();
    match spec.split_once('@') {
        Some((name, required)) if !spec.contains("://") => {
            package.name.as_str() == name && (version == required || version.starts_with(&format!("{required}.")))
        }
        _ => package.name.as_str() == spec || package.id.repr == spec,
    }
}

fn uses_cloudknot(metadata: &Metadata, package: &Package) -> bool {
    let normal = |kind| kind == DependencyKind::Normal;
    // The dependencies of an example are development dependencies.
    let normal_or_dev = |kind| matches!(kind, DependencyKind::Normal | DependencyKind::Development);
    dependencies(metadata, &package.id, normal_or_dev, normal).iter().any(|package| package.name == "cloudknot")
}

/// Returns the packages that this package is linked with, and those that only the features of other members enable.
pub(super) fn linked<'m>(metadata: &'m Metadata, package: &Package) -> Vec<&'m Package> {
    let normal = |kind| kind == DependencyKind::Normal;
    dependencies(metadata, &package.id, normal, normal)
}

/// Returns the `cloudknot` package that this package is linked with.
pub(super) fn cloudknot_of<'m>(metadata: &'m Metadata, package: &Package) -> Option<&'m Package> {
    let any = |kind| kind != DependencyKind::Build;
    dependencies(metadata, &package.id, any, any).into_iter().find(|package| package.name == "cloudknot")
}

fn dependencies<'m>(
    metadata: &'m Metadata,
    root: &PackageId,
    first: impl Fn(DependencyKind) -> bool,
    further: impl Fn(DependencyKind) -> bool,
) -> Vec<&'m Package> {
    let nodes = metadata.resolve.as_ref().map(|resolve| &*resolve.nodes).unwrap_or_default();
    let mut seen = BTreeSet::from([root]);
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        let Some(node) = nodes.iter().find(|node| node.id == *id) else { continue };
        for dependency in &node.deps {
            let follows = |kind| if id == root { first(kind) } else { further(kind) };
            if dependency.dep_kinds.iter().any(|info| follows(info.kind)) && seen.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    metadata.packages.iter().filter(|package| package.id != *root && seen.contains(&package.id)).collect()
}
