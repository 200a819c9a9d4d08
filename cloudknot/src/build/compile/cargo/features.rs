//! The feature `aws` of cloudknot in a worker build: detects whether it is enabled, and enables it.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{Dependency, DependencyKind, Package};

use super::command;
use super::origin::Origin;
use super::selection::cloudknot_of;
use crate::build::compile::error::CompileError;
use crate::build::compile::{AwsFeature, Compile, Program};

const FEATURE: &str = "aws";

pub(crate) fn missing_aws(program: &Program) -> Option<AwsFeature> {
    if program.cargo.tree.features_of("cloudknot").contains(FEATURE) {
        return None;
    }
    let package = program.selected().package;
    let cloudknot = cloudknot_of(&program.cargo.metadata, package);
    // The features of cloudknot that enable `aws`, including `aws`.
    let implying_aws =
        cloudknot.map(|cloudknot| implying(&cloudknot.features, &[FEATURE.into()].into())).unwrap_or_default();
    let dependency = dependency_of(package);
    let add =
        Add { package, dependency, cloudknot, is_workspace: program.cargo.metadata.workspace_packages().len() > 1 };
    let key = dependency.map_or("cloudknot", |dependency| dependency.rename.as_deref().unwrap_or(&dependency.name));
    let enabling =
        implying_aws.iter().flat_map(|feature| [format!("{key}/{feature}"), format!("{key}?/{feature}")]).collect();
    let mut package_features = implying(&package.features, &enabling);
    package_features.remove("default");
    let feature =
        if package_features.contains(FEATURE) { Some(FEATURE.to_owned()) } else { package_features.pop_first() };
    Some(match feature {
        Some(feature) => AwsFeature::OfPackage { feature },
        None => AwsFeature::OfDependency { arguments: add.arguments() },
    })
}

/// Returns the compilation with the feature enabled. A feature of the package is selected; for the dependency, `cargo add`
/// edits `Cargo.toml`.
pub(crate) fn enable(program: &Program, feature: &AwsFeature) -> Result<Compile, CompileError> {
    let mut compile = program.compile.clone();
    match feature {
        AwsFeature::OfPackage { feature } => compile.selection.features.push(feature.clone()),
        AwsFeature::OfDependency { arguments } => {
            let manifest = &program.selected().package.manifest_path;
            let mut add = program.cargo.toolchain.cargo.command();
            add.arg("add").args(arguments).arg("--manifest-path").arg(manifest);
            // `cargo add` does not edit what is locked, and works offline if the dependency is already available.
            add.args(compile.cargo_options.iter().filter(|option| *option == "--offline"));
            command::run(add, "add the feature `aws` of cloudknot")?;
        }
    }
    Ok(compile)
}

/// Returns the features that enable one of the targets, directly or indirectly, including targets that are features
/// themselves.
fn implying(features: &BTreeMap<String, Vec<String>>, targets: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = features.keys().filter(|name| targets.contains(*name)).cloned().collect();
    loop {
        let enables = |implied: &String| targets.contains(implied) || found.contains(implied);
        let more = features.iter().filter(|(name, _)| !found.contains(*name));
        let more: Vec<_> =
            more.filter(|(_, implied)| implied.iter().any(enables)).map(|(name, _)| name.clone()).collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

fn dependency_of(package: &Package) -> Option<&Dependency> {
    let all = || package.dependencies.iter().filter(|dependency| dependency.name == "cloudknot");
    all().find(|dependency| dependency.kind == DependencyKind::Normal).or_else(|| all().next())
}

/// A `cargo add` command that enables the feature `aws`.
struct Add<'a> {
    package: &'a Package,
    /// Direct dependency on cloudknot. A package whose library comes from another crate may have none.
    dependency: Option<&'a Dependency>,
    cloudknot: Option<&'a Package>,
    is_workspace: bool,
}

impl Add<'_> {
    fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if self.is_workspace {
            arguments.extend(["-p".to_owned(), self.package.name.to_string()]);
        }
        match self.dependency {
            // `cargo add` keeps the source of an existing dependency.
            Some(dependency) => {
                arguments.push("cloudknot".to_owned());
                if let Some(name) = &dependency.rename {
                    arguments.extend(["--rename".to_owned(), name.clone()]);
                }
                if dependency.kind == DependencyKind::Development {
                    arguments.push("--dev".to_owned());
                }
                if let Some(platform) = &dependency.target {
                    arguments.extend(["--target".to_owned(), platform.to_string()]);
                }
            }
            None => arguments.extend(self.source()),
        }
        arguments.extend(["--features", FEATURE].map(str::to_owned));
        arguments
    }

    /// Returns the arguments that give a new dependency the source that the linked cloudknot has. Another reference to the same
    /// repository would be another source for cargo, and link a second cloudknot.
    fn source(&self) -> Vec<String> {
        let Some(cloudknot) = self.cloudknot else { return vec!["cloudknot".to_owned()] };
        let mut arguments = vec!["cloudknot".to_owned()];
        match Origin::of(cloudknot) {
            Origin::Folder(folder) => arguments.extend(["--path".to_owned(), folder.to_string()]),
            Origin::Git { url, reference, .. } => {
                arguments.extend(["--git".to_owned(), url.to_owned()]);
                arguments.extend(reference.into_iter().flat_map(|(key, value)| [format!("--{key}"), value.to_owned()]));
            }
            Origin::CratesIo | Origin::Registry(_) | Origin::Other(_) => {
                arguments[0] = format!("cloudknot@{}", cloudknot.version);
            }
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_enable_targets_directly_and_indirectly() {
        let features = [
            ("default", vec!["fast"]),
            ("fast", vec![]),
            ("cloud", vec!["ck?/deploy", "dep:serde"]),
            ("everything", vec!["fast", "cloud"]),
            ("aws", vec!["other/aws"]),
        ];
        let features =
            features.map(|(name, implied)| (name.to_owned(), implied.into_iter().map(str::to_owned).collect()));
        let check = |targets: &[&str], expected: &[&str]| {
            let targets = targets.iter().map(ToString::to_string).collect();
            let found = implying(&features.clone().into(), &targets);
            assert_eq!(found.iter().collect::<Vec<_>>(), expected);
        };
        check(&["ck/deploy", "ck?/deploy"], &["cloud", "everything"]);
        check(&["ck/aws"], &[]);
        check(&["fast"], &["default", "everything", "fast"]);
    }
}
