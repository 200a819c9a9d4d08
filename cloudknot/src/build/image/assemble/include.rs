//! Layer with the files and folders of the package that `include` names.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use cloudknot_runtime::contract;
use ignore::{DirEntry, WalkBuilder};

use super::layer::LayerWriter;
use crate::build::image::{ImageError, Layer};

/// Files and folders that are left out of an included folder: the history, the runs, and secrets.
const LEFT_OUT: [&str; 3] = [".git", ".cloudknot", ".env"];
/// File that marks a folder as a cache (<https://bford.info/cachedir/>), which is left out too. cargo marks its target folder.
const CACHE_TAG: &str = "CACHEDIR.TAG";

/// File or folder to put into the image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Included {
    Folder,
    File { source: PathBuf, len: u64, mode: u32 },
}

/// Included files and folders by their path in the package, those around them first.
type Files = BTreeMap<String, Included>;
type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Returns the layer; `None` if nothing is included.
pub(super) fn layer(package: &Path, include: &[PathBuf]) -> Result<Option<Layer>, ImageError> {
    let files = files(package, include)?;
    if files.is_empty() {
        return Ok(None);
    }
    let mut layer = LayerWriter::new();
    let folder = contract::DATA.trim_start_matches('/');
    layer.folder(folder, 0o755);
    for (path, included) in files {
        let added = match included {
            Included::Folder => {
                layer.folder(&format!("{folder}/{path}"), 0o755);
                Ok(())
            }
            Included::File { source, len, mode } => {
                File::open(source).and_then(|file| layer.file(&format!("{folder}/{path}"), mode, len, file))
            }
        };
        added.map_err(|error| ImageError::Include { path: path.into(), source: error.into() })?;
    }
    Ok(Some(layer.finish()))
}

/// Returns the files and folders below the package's folder that `include` names. Each file has been opened.
pub(crate) fn files(package: &Path, include: &[PathBuf]) -> Result<Files, ImageError> {
    let mut files = Files::new();
    for path in include {
        let failed = |source| ImageError::Include { path: path.clone(), source };
        // The folder may be empty, for the current one.
        let package = Path::new(".").join(package).canonicalize().map_err(|error| failed(error.into()))?;
        collect(&package, path, &mut files)?;
    }
    Ok(files)
}

fn collect(package: &Path, path: &Path, files: &mut Files) -> Result<(), ImageError> {
    let failed = |path: &Path, source| ImageError::Include { path: path.to_owned(), source };
    if !contract::is_included_path(path) {
        return Err(failed(path, "must be a relative path without `..`".into()));
    }
    let plain: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    let top = if plain == Path::new("") { package.to_owned() } else { package.join(&plain) };
    check_within(package, &top).map_err(|source| failed(path, source))?;
    for folder in plain.ancestors().skip(1).filter(|folder| *folder != Path::new("")) {
        files.insert(name(folder).map_err(|source| failed(folder, source))?, Included::Folder);
    }
    let mut walk = WalkBuilder::new(&top);
    walk.standard_filters(false).follow_links(true).filter_entry(|entry| entry.depth() == 0 || !is_left_out(entry));
    for entry in walk.build() {
        let entry = entry.map_err(|error| failed(path, error.into()))?;
        let relative = entry.path().strip_prefix(package).expect("the walk is below the package's folder");
        if relative != Path::new("") {
            let (name, included) = included(package, relative, &entry).map_err(|source| failed(relative, source))?;
            files.insert(name, included);
        }
    }
    Ok(())
}

fn is_left_out(entry: &DirEntry) -> bool {
    is_secret(entry.file_name()) || entry.path().join(CACHE_TAG).exists()
}

/// Returns whether a file or folder of this name is left out, as `.env.local` is.
fn is_secret(name: &OsStr) -> bool {
    LEFT_OUT.iter().any(|left_out| name == *left_out) || name.as_bytes().starts_with(b".env.")
}

fn included(package: &Path, relative: &Path, entry: &DirEntry) -> Result<(String, Included)> {
    let name = name(relative)?;
    if entry.path_is_symlink() {
        check_within(package, entry.path())?;
    }
    let kind = entry.file_type().ok_or("its kind is not known")?;
    if kind.is_dir() {
        return Ok((name, Included::Folder));
    }
    if !kind.is_file() {
        return Err("it is neither a file nor a folder".into());
    }
    let metadata = File::open(entry.path())?.metadata()?;
    let mode = if metadata.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
    Ok((name, Included::File { source: entry.path().to_owned(), len: metadata.len(), mode }))
}

/// Returns an error if a path leads out of the package's folder, or nowhere.
fn check_within(package: &Path, path: &Path) -> Result<()> {
    let target = path.canonicalize()?;
    match target.strip_prefix(package) {
        Ok(inside) if path.is_symlink() && inside.iter().any(is_secret) => {
            Err(format!("it leads to `{}`, which is left out of images", target.display()).into())
        }
        Ok(_) => Ok(()),
        Err(_) => Err(format!("it leads to `{}`, which is not in the package's folder", target.display()).into()),
    }
}

fn name(path: &Path) -> Result<String> {
    let name = path.to_str().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "its name is not UTF-8"))?;
    Ok(name.to_owned())
}
