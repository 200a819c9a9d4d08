//! A generated package with one program, on the cloudknot that the package in the current folder is linked with. It is compiled
//! for this machine here; its worker is compiled as that of any other package.

use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, Package};
use etcetera::BaseStrategy as _;

use super::build;
use super::command::{Cargo, write};
use super::origin::Origin;
use crate::build::compile::error::{CompileError, CompileErrorKind, io};
use crate::build::compile::{Compile, Profile, Selection};

/// Version of this crate.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Package that was generated.
#[derive(Debug, Clone)]
pub(crate) struct GeneratedPackage {
    pub(crate) folder: PathBuf,
}

impl GeneratedPackage {
    /// Writes a package of this name with this program. Its `[dependencies]` are cloudknot, with the feature `aws`, and those in
    /// `dependencies`.
    ///
    /// Within a package, its folder is in that package's target folder, where the same toolchain, configuration and versions of
    /// dependencies apply; elsewhere, it is in the user's cache folder, and cloudknot comes from crates.io. The folder is the
    /// same each time, so that its dependencies are compiled once.
    ///
    /// # Errors
    /// Returns an error if the current package cannot be read, or a file cannot be written.
    pub(crate) fn write(name: &str, dependencies: &str, program: &str) -> Result<Self, CompileError> {
        let compile = Compile::new(Selection::default());
        let current = Cargo::of(&compile)?.folder;
        let is_in_package = current.ancestors().any(|folder| folder.join("Cargo.toml").is_file());
        let metadata = if is_in_package { Some(compile.metadata()?) } else { None };
        let folder = match &metadata {
            Some(metadata) => metadata.target_directory.join(name).into_std_path_buf(),
            None => cache_folder()?.join(name),
        };
        let cloudknot = metadata.as_ref().and_then(cloudknot_in);
        write(&folder.join("Cargo.toml"), &manifest(name, &source(cloudknot), dependencies))?;
        write(&folder.join("src/main.rs"), program)?;
        if let Some(metadata) = &metadata {
            copy_newer(metadata.workspace_root.join("Cargo.lock").as_std_path(), &folder.join("Cargo.lock"))?;
        }
        Ok(Self { folder })
    }

    /// Returns the compilation of the worker: unoptimized, because that takes half the time.
    pub(crate) fn worker(&self) -> Compile {
        Compile::new(Selection::default()).in_folder(&self.folder).profile(Profile::Named("dev".to_owned()))
    }

    /// Compiles the program for this machine, and returns its path. Blocks until cargo has finished.
    ///
    /// # Errors
    /// Returns an error if it does not compile.
    pub(crate) fn build(&self) -> Result<PathBuf, CompileError> {
        let mut command = Cargo::of(&self.worker())?.query("build");
        command.args(["--message-format", "json-render-diagnostics"]);
        let hint = || format!("the program is in `{}`, where `cargo build` repeats this", self.folder.display());
        Ok(build::run(command, "compile the program for this machine", hint)?.0)
    }
}

/// Copies a lock file, unless it does not exist or the copy is newer. cargo removes what the package does not use from the copy, and
/// keeps the other versions.
fn copy_newer(lock: &Path, copy: &Path) -> Result<(), CompileError> {
    let modified = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    if modified(lock) <= modified(copy) {
        return Ok(());
    }
    std::fs::copy(lock, copy).map(drop).map_err(io("write", copy))
}

fn cache_folder() -> Result<PathBuf, CompileError> {
    let strategy = etcetera::choose_base_strategy().map_err(|cause| {
        CompileError::new(CompileErrorKind::Io, "cannot find the cache folder").with_source(cause).with_hint("set HOME")
    })?;
    Ok(strategy.cache_dir())
}

fn cloudknot_in(metadata: &Metadata) -> Option<&Package> {
    metadata.packages.iter().find(|package| package.name == "cloudknot")
}

/// Returns the keys of a dependency that select this cloudknot; without one, those of the version of this crate.
fn source(cloudknot: Option<&Package>) -> toml::Table {
    let version = |version: &str| ("version", format!("={version}"));
    let keys = match cloudknot.map(|cloudknot| (Origin::of(cloudknot), cloudknot)) {
        Some((Origin::Folder(folder), _)) => vec![("path", folder.to_string())],
        // The copied lock file has the revision.
        Some((Origin::Git { url, reference, .. }, _)) => std::iter::once(("git", url.to_owned()))
            .chain(reference.map(|(key, value)| (key, value.to_owned())))
            .collect(),
        Some((Origin::Registry(index), cloudknot)) => {
            vec![version(&cloudknot.version.to_string()), ("registry-index", index.to_owned())]
        }
        Some((Origin::CratesIo | Origin::Other(_), cloudknot)) => vec![version(&cloudknot.version.to_string())],
        None => vec![version(VERSION)],
    };
    keys.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect()
}

/// Returns the manifest of a package that belongs to no workspace. Debug information would take gigabytes.
fn manifest(name: &str, source: &toml::Table, dependencies: &str) -> String {
    format!(
        "[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\npublish = false\n\n[workspace]\n\n\
         [profile.dev]\ndebug = false\n\n[dependencies]\n{dependencies}\n[dependencies.cloudknot]\nfeatures = [\"aws\"]\n{source}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the package `cloudknot` as cargo's metadata describes it, with this source.
    fn package(source: Option<&str>) -> Package {
        let package = serde_json::json!({
            "name": "cloudknot", "version": "0.1.7", "id": "cloudknot", "source": source, "dependencies": [], "targets": [],
            "features": {}, "manifest_path": "/a \"clone\"/cloudknot/Cargo.toml",
        });
        serde_json::from_value(package).expect("the fields of a package")
    }

    #[track_caller]
    fn check(cloudknot: Option<&Package>, expected: &str) {
        let text = manifest("lab", &source(cloudknot), "serde_json = \"1\"\n");
        let manifest: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(manifest["dependencies"]["serde_json"].as_str(), Some("1"));
        let mut expected: toml::Table = expected.parse().unwrap();
        expected.insert("features".to_owned(), vec!["aws"].into());
        assert_eq!(manifest["dependencies"]["cloudknot"].as_table(), Some(&expected));
    }

    #[test]
    fn generated_package_depends_on_the_same_cloudknot() {
        check(Some(&package(None)), r#"path = '/a "clone"/cloudknot'"#);
        let crates_io = "registry+https://github.com/rust-lang/crates.io-index";
        check(Some(&package(Some(crates_io))), r#"version = "=0.1.7""#);
        let lab = "version = '=0.1.7'\nregistry-index = 'https://index.example/lab'";
        check(Some(&package(Some("registry+https://index.example/lab"))), lab);
        let git = "git = 'https://forge.example/lab'\nbranch = 'main'";
        check(Some(&package(Some("git+https://forge.example/lab?branch=main#0a1b"))), git);
        check(None, &format!("version = '={VERSION}'"));
    }
}
