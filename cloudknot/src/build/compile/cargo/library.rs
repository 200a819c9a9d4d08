//! The program of a library without a main: a generated package under the target folder, whose main calls the runtime. No file
//! of the user is edited.
//!
//! The package refers to the user's workspace through a symbolic link in its own folder. cargo includes a package's path,
//! relative to the workspace that is built, in its symbols; with the link, the same sources in two places give the same bytes.

use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, Package};
use toml::{Table, Value};

use super::origin::Origin;
use super::selection::{SelectedTarget, cloudknot_of};
use crate::build::compile::Selection;
use crate::build::compile::error::{CompileError, CompileErrorKind, io};

const LINK: &str = "workspace";

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
    link(metadata.workspace_root.as_std_path(), &folder.join(LINK))?;

    let crate_name = selected.target.name.replace('-', "_");
    let package = generated(metadata, selected, selection, manifest, &name, &crate_name)?;
    let toml = toml::to_string(&package).expect("a table of strings, arrays and tables serializes to TOML");
    let main = format!("use {crate_name} as _;\n\nfn main() {{\n    ::cloudknot::__start!();\n}}\n");
    let path = folder.join("Cargo.toml");
    write(&path, toml.as_bytes())?;
    write(&folder.join("main.rs"), main.as_bytes())?;
    copy_lock(metadata, &folder)?;
    Ok((path, name))
}

/// Copies the user's lock file, so that the versions are the same. cargo adds the generated package to this copy and drops the
/// entries that it does not need, so the copy is replaced only if the user's file has changed.
fn copy_lock(metadata: &Metadata, folder: &Path) -> Result<(), CompileError> {
    let user_lock = metadata.workspace_root.join("Cargo.lock");
    let content = fs::read(&user_lock).map_err(io("read", &user_lock))?;
    let (copy, copied) = (folder.join("Cargo.lock"), folder.join("Cargo.lock.copied"));
    if copy.exists() && fs::read(&copied).is_ok_and(|last| last == content) {
        return Ok(());
    }
    write(&copy, &content)?;
    write(&copied, &content)
}

fn generated(
    metadata: &Metadata,
    selected: &SelectedTarget<'_>,
    selection: &Selection,
    manifest: &Table,
    name: &str,
    crate_name: &str,
) -> Result<Table, CompileError> {
    let cloudknot =
        cloudknot_of(metadata, selected.package).expect("only a package that depends on cloudknot is selected");
    let mut library = source_of(metadata, selected.package)?;
    library.insert("package".into(), selected.package.name.to_string().into());
    library.insert("default-features".into(), (!selection.no_default_features).into());
    library.insert("features".into(), features(selected.package, selection)?.into());
    let mut runtime = source_of(metadata, cloudknot)?;
    runtime.insert("default-features".into(), false.into());

    let package = table([
        ("name", name.into()),
        ("version", selected.package.version.to_string().into()),
        ("edition", "2021".into()),
        ("publish", false.into()),
    ]);
    let program = table([("name", name.into()), ("path", "main.rs".into())]);
    let workspace = table([
        ("resolver", resolver(metadata, manifest).into()),
        // A package of the user without a `[workspace]` must not become a member of this one.
        ("exclude", vec![Value::from(LINK)].into()),
    ]);
    let dependencies = table([(crate_name, library.into()), ("cloudknot", runtime.into())]);
    let mut whole = table([
        ("package", package.into()),
        ("bin", vec![Value::from(program)].into()),
        ("workspace", workspace.into()),
        ("dependencies", dependencies.into()),
    ]);
    // Both apply only in the workspace that is built.
    whole.extend(manifest.get("profile").map(|profiles| ("profile".to_string(), profiles.clone())));
    whole.extend(manifest.get("patch").map(|patches| ("patch".to_string(), relocated(metadata, patches.clone()))));
    Ok(whole)
}

/// Returns the dependency entry for a package of the user's lock file, with the source where cargo finds it.
fn source_of(metadata: &Metadata, package: &Package) -> Result<Table, CompileError> {
    let exactly = || format!("={}", package.version).into();
    Ok(match Origin::of(package) {
        Origin::Folder(folder) => table([("path", through_link(metadata, folder.as_std_path()).into())]),
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
            return Err(CompileError::new(CompileErrorKind::Selection, message)
                .with_hint("write a program for the library: a main with #[cloudknot::main] that names the crate"));
        }
    })
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

/// Returns the patches with their paths as seen from the generated package.
fn relocated(metadata: &Metadata, mut patches: Value) -> Value {
    let sources = patches.as_table_mut().into_iter().flat_map(|table| table.iter_mut().map(|(_, source)| source));
    for patch in sources.filter_map(Value::as_table_mut).flat_map(|source| source.iter_mut().map(|(_, patch)| patch)) {
        if let Some(path) = patch.get_mut("path")
            && let Some(text) = path.as_str()
        {
            *path = through_link(metadata, &metadata.workspace_root.as_std_path().join(text)).into();
        }
    }
    patches
}

/// Returns the path of a user's folder: through the symbolic link if the folder is in the workspace, otherwise
/// unchanged.
fn through_link(metadata: &Metadata, folder: &Path) -> String {
    let root = metadata.workspace_root.as_std_path();
    let inside = folder.strip_prefix(root).ok().filter(|path| !path.components().any(|part| part.as_os_str() == ".."));
    let path = inside.map_or_else(|| folder.to_path_buf(), |path| Path::new(LINK).join(path));
    path.to_str().expect("the path comes from cargo's metadata or from TOML, which are Unicode").to_string()
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

/// Writes a file, unless its content is already correct, so that cargo considers it unchanged.
fn write(path: &Path, content: &[u8]) -> Result<(), CompileError> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    fs::write(path, content).map_err(io("write", path))
}

fn table<'k>(entries: impl IntoIterator<Item = (&'k str, Value)>) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}
