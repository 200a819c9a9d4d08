//! The program of a library without a main: a generated package under the target folder, whose main calls the runtime. No file
//! of the user is edited.
//!
//! The package refers to the user's workspace through a symbolic link in its own folder. cargo includes a package's path,
//! relative to the workspace that is built, in its symbols; with the link, the same sources in two places give the same bytes.
//! cargo resolves `..` in paths without following links, so a workspace whose packages depend on folders outside of it is
//! referred to by its absolute path, as cargo itself refers to these folders.

use std::fs;
use std::path::{Component, Path, PathBuf};

use cargo_metadata::{Metadata, Package};
use toml::{Table, Value};

use super::command;
use super::origin::Origin;
use super::selection::{SelectedTarget, cloudknot_of};
use crate::build::compile::Selection;
use crate::build::compile::error::{CompileError, CompileErrorKind, io};

/// Name of the link in the generated package.
pub(super) const LINK: &str = "workspace";

/// Writes the package and returns the path of its manifest and its name.
pub(super) fn generate(
    metadata: &Metadata,
    selected: &SelectedTarget<'_>,
    selection: &Selection,
    manifest: &Table,
    target_folder: &Path,
) -> Result<(PathBuf, String), CompileError> {
    let name = format!("{}-worker", selected.package.name);
    let folder = target_folder.join("packages").join(&name);
    fs::create_dir_all(&folder).map_err(io("create the folder", &folder))?;
    let workspace = Workspace::of(metadata, manifest)?;
    if workspace.is_linked {
        link(workspace.root, &folder.join(LINK))?;
    }

    let crate_name = selected.target.name.replace('-', "_");
    let package = generated(metadata, &workspace, selected, selection, &name, &crate_name)?;
    let toml = toml::to_string(&package).expect("a table of strings, arrays and tables serializes to TOML");
    let main = format!("use {crate_name} as _;\n\nfn main() {{\n    ::cloudknot::__start!();\n}}\n");
    let path = folder.join("Cargo.toml");
    command::write(&path, &toml)?;
    command::write(&folder.join("main.rs"), &main)?;
    // The versions are those of the user. cargo adds the generated package to the copy and drops the entries that this build
    // does not need, which another one may need.
    let lock = metadata.workspace_root.join("Cargo.lock");
    fs::copy(&lock, folder.join("Cargo.lock")).map_err(io("copy", &lock))?;
    Ok((path, name))
}

fn generated(
    metadata: &Metadata,
    workspace: &Workspace<'_>,
    selected: &SelectedTarget<'_>,
    selection: &Selection,
    name: &str,
    crate_name: &str,
) -> Result<Table, CompileError> {
    let cloudknot =
        cloudknot_of(metadata, selected.package).expect("only a package that depends on cloudknot is selected");
    let mut library = workspace.source_of(selected.package)?;
    library.insert("package".into(), selected.package.name.to_string().into());
    library.insert("default-features".into(), (!selection.no_default_features).into());
    library.insert("features".into(), features(selected.package, selection)?.into());
    let mut runtime = workspace.source_of(cloudknot)?;
    runtime.insert("default-features".into(), false.into());

    let package = table([
        ("name", name.into()),
        ("version", selected.package.version.to_string().into()),
        ("edition", "2021".into()),
        ("publish", false.into()),
    ]);
    let program = table([("name", name.into()), ("path", "main.rs".into())]);
    let workspace_table = table([
        ("resolver", resolver(metadata, workspace.manifest).into()),
        // A package of the user without a `[workspace]` must not become a member of this one.
        ("exclude", vec![Value::from(LINK)].into()),
    ]);
    let dependencies = table([(crate_name, library.into()), ("cloudknot", runtime.into())]);
    let mut whole = table([
        ("package", package.into()),
        ("bin", vec![Value::from(program)].into()),
        ("workspace", workspace_table.into()),
        ("dependencies", dependencies.into()),
    ]);
    // Both apply only in the workspace that is built.
    for key in ["cargo-features", "profile", "patch", "replace"] {
        whole.extend(workspace.manifest.get(key).map(|value| (key.to_string(), workspace.relocated(value))));
    }
    Ok(whole)
}

/// The user's workspace, as the generated package refers to it.
struct Workspace<'w> {
    root: &'w Path,
    manifest: &'w Table,
    /// `true` if the package refers to the workspace through the symbolic link.
    is_linked: bool,
}

impl<'w> Workspace<'w> {
    fn of(metadata: &'w Metadata, manifest: &'w Table) -> Result<Self, CompileError> {
        let root = metadata.workspace_root.as_std_path();
        let mut is_linked = has_paths_within(root, root, manifest);
        for package in super::packages_in_folders(metadata) {
            let path = &package.manifest_path;
            let text = fs::read_to_string(path).map_err(io("read", path))?;
            let folder = path.parent().expect("a manifest is in a folder").as_std_path();
            // cargo has read the same file.
            is_linked &= text.parse().is_ok_and(|manifest| has_paths_within(root, folder, &manifest));
            is_linked &= !climbs(package);
        }
        Ok(Self { root, manifest, is_linked })
    }

    /// Returns the dependency entry for a package of the user's lock file, with the source where cargo finds it.
    fn source_of(&self, package: &Package) -> Result<Table, CompileError> {
        let exactly = || format!("={}", package.version).into();
        Ok(match Origin::of(package) {
            Origin::Folder(folder) => table([("path", self.path_to(folder.as_std_path()).into())]),
            Origin::CratesIo => table([("version", exactly())]),
            Origin::Registry(index) => table([("version", exactly()), ("registry-index", index.into())]),
            // The copied lock file selects the revision.
            Origin::Git { url, reference, .. } => {
                let reference = reference.map(|(key, value)| (key, value.into()));
                table([("git", url.into())].into_iter().chain(reference))
            }
            Origin::Other(source) => {
                let message =
                    format!("cannot depend on `{}` from a generated package: its source is `{source}`", package.name);
                return Err(CompileError::new(CompileErrorKind::Selection, message).with_hint(
                    "write a program for the library: a main with #[cloudknot::main] that names the crate",
                ));
            }
        })
    }

    /// Returns a value of the manifest with its paths as seen from the generated package.
    fn relocated(&self, value: &Value) -> Value {
        let Value::Table(table) = value else { return value.clone() };
        let relocated = table.iter().map(|(key, value)| match value.as_str() {
            Some(path) if key == "path" => (key.clone(), self.path_to(&lexical(&self.root.join(path))).into()),
            _ => (key.clone(), self.relocated(value)),
        });
        Value::Table(relocated.collect())
    }

    /// Returns the path of a folder of the user as seen from the generated package.
    fn path_to(&self, folder: &Path) -> String {
        let inside = folder.strip_prefix(self.root).ok().filter(|_| self.is_linked);
        let path = inside.map_or_else(|| folder.to_path_buf(), |path| Path::new(LINK).join(path));
        path.to_str().expect("the path comes from cargo's metadata or from TOML, which are Unicode").to_string()
    }
}

/// Returns whether the build script of a package may look for the parent of its folder, which is another one through the link.
fn climbs(package: &Package) -> bool {
    let mut scripts = package.targets.iter().filter(|target| target.is_custom_build());
    scripts.any(|script| {
        let text = fs::read_to_string(&script.src_path).unwrap_or_default();
        ["parent()", "ancestors()", "pop()"].iter().any(|call| text.contains(call))
    })
}

/// Returns whether cargo resolves the paths in the manifest of this folder alike if the workspace is reached through a link:
/// within the workspace, those that stay within it are relative, and the others absolute; outside, none leads into it.
fn has_paths_within(root: &Path, folder: &Path, manifest: &Table) -> bool {
    let is_alike = |path: &str| {
        let target_is_inside = lexical(&folder.join(path)).starts_with(root);
        if folder.starts_with(root) { target_is_inside == Path::new(path).is_relative() } else { !target_is_inside }
    };
    paths_in(manifest).into_iter().all(is_alike)
}

/// Returns the values of all keys `path`, at any depth.
fn paths_in(table: &Table) -> Vec<&str> {
    let own = table.get("path").and_then(Value::as_str);
    own.into_iter().chain(table.iter().flat_map(|(_, value)| paths_of(value))).collect()
}

fn paths_of(value: &Value) -> Vec<&str> {
    match value {
        Value::Table(table) => paths_in(table),
        Value::Array(values) => values.iter().flat_map(paths_of).collect(),
        _ => Vec::new(),
    }
}

/// Removes `.` and `..` from a path without following links, as cargo does.
fn lexical(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            component => normal.push(component),
        }
    }
    normal
}

fn features(package: &Package, selection: &Selection) -> Result<Vec<Value>, CompileError> {
    if selection.all_features {
        return Ok(package
            .features
            .keys()
            .filter(|name| *name != "default")
            .map(|name| name.as_str().into())
            .collect());
    }
    let names =
        selection.features.iter().flat_map(|features| features.split([',', ' '])).filter(|name| !name.is_empty());
    names
        .map(|name| match name.split_once('/') {
            None => Ok(name.into()),
            Some((owner, name)) if package.name.as_str() == owner => Ok(name.into()),
            Some(_) => Err(CompileError::new(
                CompileErrorKind::Selection,
                format!("cannot enable `{name}` for the library `{}` alone", package.name),
            )
            .with_hint("add a feature to the library that enables it, and select that feature")),
        })
        .collect()
}

/// Returns the version of the resolver that the user's workspace is resolved with.
fn resolver(metadata: &Metadata, manifest: &Table) -> String {
    let resolver_in = |table: &str| manifest.get(table)?.get("resolver")?.as_str().map(ToString::to_string);
    let by_edition = || {
        let manifest = metadata.workspace_root.join("Cargo.toml");
        let root = metadata.packages.iter().find(|package| package.manifest_path == manifest)?;
        Some(match root.edition.as_str() {
            "2015" | "2018" => "1",
            "2021" => "2",
            _ => "3",
        })
    };
    resolver_in("workspace").or(resolver_in("package")).or(by_edition().map(Into::into)).unwrap_or_else(|| "1".into())
}

fn link(to: &Path, from: &Path) -> Result<(), CompileError> {
    if fs::read_link(from).is_ok_and(|present| present == to) {
        return Ok(());
    }
    match fs::remove_file(from) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(io("replace", from)(cause)),
        _ => {}
    }
    std::os::unix::fs::symlink(to, from).map_err(io("create the symbolic link", from))
}

fn table<'k>(entries: impl IntoIterator<Item = (&'k str, Value)>) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_alike_through_a_link_unless_they_cross_its_ends() {
        let check = |folder: &str, path: &str, expected: bool| {
            let manifest =
                format!("[package]\nname = 'p'\n[target.'cfg(unix)'.dependencies]\nq = {{ path = '{path}' }}\n");
            let found = has_paths_within(Path::new("/lab/ws"), Path::new(folder), &manifest.parse().unwrap());
            assert_eq!(found, expected, "{path} in {folder}");
        };
        check("/lab/ws/fit", "../kit", true);
        check("/lab/ws/fit", "../../beside", false);
        check("/lab/ws/fit", "../../ws/kit", true);
        check("/lab/ws/fit", "/lab/ws/kit", false);
        check("/lab/ws/fit", "/opt/kit", true);
        check("/lab/beside", "../other", true);
        check("/lab/beside", "../ws/kit", false);
        check("/lab/beside", "/lab/ws/kit", false);
        check("/lab/ws-2", "../other", true);
    }
}
