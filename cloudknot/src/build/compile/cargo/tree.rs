//! The packages of a worker build and their features, as `cargo tree` resolves them for one package. `cargo metadata` unites the
//! features of all members of a workspace, which a build does not.

use std::collections::BTreeSet;

use super::command;
use super::flags;
use super::selection::{SelectedTarget, spec_of};
use super::toolchain::Toolchain;
use crate::build::compile::error::CompileError;
use crate::build::compile::{CargoTarget, Compile};

/// Packages of a worker build, one per line: name and version, a tab, and the features.
pub(super) struct Tree(String);

impl Tree {
    /// Asks cargo for the packages of the worker of this target, compiled for `triple`.
    pub(super) fn of(
        compile: &Compile,
        toolchain: &Toolchain,
        selected: &SelectedTarget<'_>,
        triple: &str,
        dynamic: bool,
    ) -> Result<Self, CompileError> {
        let edges = if matches!(selected.kind, CargoTarget::Example(_)) { "normal,build,dev" } else { "normal,build" };
        let mut tree = toolchain.cargo.query("tree");
        tree.args(["--quiet", "--prefix", "none", "--format", "{p}\t{f}", "--edges", edges]);
        tree.arg("--manifest-path").arg(&selected.package.manifest_path);
        tree.args(["--package", &spec_of(selected.package), "--target", triple]);
        tree.args(compile.selection.feature_options());
        let user = toolchain.configuration(triple)?.rustflags;
        tree.env("CARGO_ENCODED_RUSTFLAGS", flags::resolution_flags(dynamic, user)?);
        command::run(tree, "find the dependencies of the worker").map(Self)
    }

    /// Returns whether any package compiles C. All build scripts that do use one of these crates.
    pub(super) fn compiles_c(&self) -> bool {
        self.packages().any(|(name, _)| matches!(name, "cc" | "cmake"))
    }

    /// Returns whether a package has this name.
    pub(super) fn has(&self, package: &str) -> bool {
        self.packages().any(|(name, _)| name == package)
    }

    /// Returns the enabled features of the package of this name; empty if there is none.
    pub(super) fn features_of(&self, package: &str) -> BTreeSet<&str> {
        let features = self.packages().find(|(name, _)| *name == package).map_or("", |(_, features)| features);
        features.split(',').filter(|feature| !feature.is_empty()).collect()
    }

    fn packages(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.lines().filter_map(|line| {
            let (package, features) = line.split_once('\t')?;
            let (name, _) = package.split_once(" v")?;
            // cargo marks repeated packages with `(*)`.
            Some((name, features.trim_end_matches("(*)").trim()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_and_features_are_parsed() {
        let tree = Tree(
            "prog v0.1.0 (/home/me/a v2/prog)\tdefault\ncloudknot v0.1.0 (/home/me/ck)\taws,progress\n\
             ring v0.17.14\talloc\ncc v1.2.0\tparallel\nring v0.17.14\talloc (*)\n"
                .to_owned(),
        );
        assert_eq!(tree.features_of("cloudknot"), ["aws", "progress"].into());
        assert_eq!(tree.features_of("ring"), ["alloc"].into());
        assert_eq!(tree.features_of("absent"), BTreeSet::new());
        assert!(tree.compiles_c() && tree.has("ring") && !tree.has("rin"));
        assert!(!Tree("accord v1.0.0\t\ncloudknot v0.1.0\t\n".to_owned()).compiles_c());
    }
}
