//! Build context of a Dockerfile: the folder around it, without the files that `.dockerignore` names.

use std::io;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Path of the Dockerfile in the context, regardless of its own name.
pub(super) const DOCKERFILE: &str = ".cloudknot.Dockerfile";

pub(super) fn tar(dockerfile: &Path) -> io::Result<Vec<u8>> {
    let text = std::fs::read(dockerfile)?;
    let folder = match dockerfile.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let ignored = read_ignored(&folder)?;
    let mut tar = tar::Builder::new(Vec::new());
    // Symbolic links are kept, and timestamps are omitted: the engine would treat them as changes.
    tar.follow_symlinks(false);
    tar.mode(tar::HeaderMode::Deterministic);
    let mut walk = WalkBuilder::new(&folder);
    walk.standard_filters(false).sort_by_file_name(Ord::cmp);
    for entry in walk.build() {
        let entry = entry.map_err(io::Error::other)?;
        let Ok(name) = entry.path().strip_prefix(&folder) else { continue };
        let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
        // All folders are included, even if empty: a later pattern may re-include a file in an ignored folder.
        if name == Path::new("") || (!is_folder && ignored.matched_path_or_any_parents(name, false).is_ignore()) {
            continue;
        }
        if is_folder {
            tar.append_dir(name, entry.path())?;
        } else {
            tar.append_path_with_name(entry.path(), name)?;
        }
    }
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(text.len() as u64);
    tar.append_data(&mut header, DOCKERFILE, text.as_slice())?;
    tar.into_inner()
}

/// Reads the patterns of `.dockerignore`. They are git's, except that each is anchored at the folder itself.
fn read_ignored(folder: &Path) -> io::Result<Gitignore> {
    let text = match std::fs::read_to_string(folder.join(".dockerignore")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let mut patterns = GitignoreBuilder::new("");
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (not, pattern) = line.strip_prefix('!').map_or(("", line), |pattern| ("!", pattern));
        let pattern = pattern.trim().trim_start_matches("./").trim_start_matches('/');
        patterns.add_line(None, &format!("{not}/{pattern}")).map_err(io::Error::other)?;
    }
    patterns.build().map_err(io::Error::other)
}
