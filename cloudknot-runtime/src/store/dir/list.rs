//! Lists the objects of a folder, while files may appear and disappear.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, Dir, FileType, Stat, statat};
use rustix::io::Errno;

use super::Folder;
use crate::files::{self, is_absent};
use crate::store::{Object, Result, key};

impl Folder {
    pub(super) fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Object>> {
        key::check_prefix(prefix)?;
        let filter = ListFilter { prefix, after: after.unwrap_or("") };
        let mut objects = Vec::new();
        // A prefix may end within a name: only the part before its last slash is a folder.
        let top = key::folder(prefix);
        let walked = ignore_not_found(self.open_folder(top))
            .and_then(|opened| opened.map_or(Ok(()), |opened| walk(&opened, top, &filter, &mut objects)));
        walked.map_err(|error| self.failed("list", prefix, error))?;
        // A walk does not return keys in order: `a-b` comes before `a/b`.
        objects.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(objects)
    }
}

/// Folders of objects.
impl Folder {
    pub(super) fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let top = key::check_folder(prefix)?;
        let found = ignore_not_found(self.open_folder(top)).and_then(|opened| {
            let Some(opened) = opened else { return Ok(Vec::new()) };
            let mut names = Vec::new();
            for name in subfolders(&opened)? {
                if ignore_not_found(files::open_folder(&opened, &name))?.as_ref().is_some_and(has_object) {
                    names.push(name);
                }
            }
            Ok(names)
        });
        let mut names = found.map_err(|error| self.failed("list", prefix, error))?;
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn remove_empty(&self, prefix: &str) -> Result<()> {
        let path = key::check_folder(prefix)?;
        let removed = ignore_not_found(self.open_folder(path)).and_then(|opened| {
            opened.map_or(Ok(()), |opened| remove_empty_subfolders(&opened))?;
            let parent = ignore_not_found(self.open_parent(path))?;
            parent.map_or(Ok(()), |parent| remove_if_empty(&parent, key::name(path)))
        });
        removed.map_err(|error| self.failed("delete", path, error))
    }
}

fn remove_empty_subfolders(opened: &OwnedFd) -> io::Result<()> {
    for name in subfolders(opened)? {
        if let Some(inner) = ignore_not_found(files::open_folder(opened, &name))? {
            remove_empty_subfolders(&inner)?;
        }
        remove_if_empty(opened, &name)?;
    }
    Ok(())
}

fn remove_if_empty(parent: &OwnedFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        // macOS reports the second error for a folder that is not empty, as POSIX allows.
        Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Returns whether an open folder contains an object, at any depth. A folder that cannot be read may contain one.
fn has_object(opened: &OwnedFd) -> bool {
    let has_file = entries(opened).is_ok_and(|entries| entries.iter().any(|(_, kind)| *kind == FileType::RegularFile));
    let has_object_in = |name: &String| match files::open_folder(opened, name) {
        Ok(inner) => has_object(&inner),
        Err(error) => !is_absent(&error),
    };
    has_file || subfolders(opened).map_or(true, |names| names.iter().any(has_object_in))
}

fn subfolders(opened: &OwnedFd) -> io::Result<Vec<String>> {
    let folders = entries(opened)?.into_iter().filter(|(_, kind)| *kind == FileType::Directory);
    Ok(folders.map(|(name, _)| name).collect())
}

/// Returns the files and folders whose names can be segments of a key, in any order.
fn entries(opened: &OwnedFd) -> io::Result<Vec<(String, FileType)>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(opened)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().ok().filter(|name| key::check(name).is_ok()) else { continue };
        // Not every file system reports the kind of an entry.
        let kind = match entry.file_type() {
            FileType::Unknown => statat(opened, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
            kind => kind,
        };
        entries.push((name.to_owned(), kind));
    }
    Ok(entries)
}

/// Adds the objects in an open folder, whose path is `folder`.
fn walk(opened: &OwnedFd, folder: &str, filter: &ListFilter<'_>, objects: &mut Vec<Object>) -> io::Result<()> {
    for entry in Dir::read_from(opened)? {
        let entry = entry?;
        // Names that no key can have are not objects: temporary files, .gitignore, files of other programs.
        let Some(name) = entry.file_name().to_str().ok().filter(|name| key::check(name).is_ok()) else { continue };
        let key = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        if !filter.object(&key) && !filter.folder(&key) {
            continue;
        }
        // A link is neither a file nor a folder.
        let stat = statat(opened, name, AtFlags::SYMLINK_NOFOLLOW).map_err(Into::into);
        let Some(stat) = ignore_not_found(stat)? else { continue };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if filter.folder(&key) => {
                if let Some(inner) = ignore_not_found(files::open_folder(opened, name))? {
                    walk(&inner, &key, filter, objects)?;
                }
            }
            FileType::RegularFile if filter.object(&key) => objects.push(object(key, &stat)),
            _ => {}
        }
    }
    Ok(())
}

/// The prefix of the listed keys, and the key after which the listing starts.
struct ListFilter<'a> {
    prefix: &'a str,
    after: &'a str,
}

impl ListFilter<'_> {
    fn object(&self, key: &str) -> bool {
        key.starts_with(self.prefix) && key > self.after
    }

    /// Returns `true` if an object that passes the filter can be in this folder.
    fn folder(&self, folder: &str) -> bool {
        let folder = format!("{folder}/");
        let below_prefix = folder.starts_with(self.prefix) || self.prefix.starts_with(&folder);
        // All keys in the folder begin with its name: they all come before `after` if `after` is past the folder and not in it.
        below_prefix && (folder.as_str() > self.after || self.after.starts_with(&folder))
    }
}

fn object(key: String, stat: &Stat) -> Object {
    // The types of these fields differ between systems.
    #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
    let [size, seconds, nanoseconds] = [
        u64::try_from(stat.st_size).unwrap_or(0),
        u64::try_from(stat.st_ctime).unwrap_or(0),
        u64::try_from(stat.st_ctime_nsec).unwrap_or(0),
    ];
    let stored = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds);
    Object { key, size, stored }
}

/// Returns `None` for a file that vanished, since a listing shows only existing files.
fn ignore_not_found<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
