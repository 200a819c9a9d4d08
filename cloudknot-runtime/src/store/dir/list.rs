//! Lists the objects of a folder, while files may appear and disappear.

use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Folder, absent};
use crate::store::{Object, Result, key};

impl Folder {
    pub(super) fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Object>> {
        key::check_prefix(prefix)?;
        let filter = ListFilter { prefix, after: after.unwrap_or("") };
        let mut objects = Vec::new();
        // A prefix may end within a name: only the part before its last slash is a folder.
        let top = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        self.walk(top, &filter, &mut objects).map_err(|error| self.failed("list", prefix, error))?;
        // A walk does not return keys in order: `a-b` comes before `a/b`.
        objects.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(objects)
    }

    fn walk(&self, folder: &str, filter: &ListFilter<'_>, objects: &mut Vec<Object>) -> io::Result<()> {
        let Some(entries) = ignore_not_found(fs::read_dir(self.path(folder)))? else { return Ok(()) };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            // Names that no key can have are not objects: temporary files, .gitignore, files of other programs.
            let Some(name) = name.to_str().filter(|name| key::check(name).is_ok()) else { continue };
            let key = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            let Some(kind) = ignore_not_found(entry.file_type())? else { continue };
            if kind.is_dir() {
                if filter.folder(&key) {
                    self.walk(&key, filter, objects)?;
                }
            } else if filter.object(&key) {
                objects.extend(object(&entry, key)?);
            }
        }
        Ok(())
    }
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

fn object(entry: &DirEntry, key: String) -> io::Result<Option<Object>> {
    let Some(metadata) = ignore_not_found(entry.metadata())? else { return Ok(None) };
    Ok(metadata.is_file().then(|| Object { key, size: metadata.len(), stored: stored(&metadata) }))
}

fn stored(metadata: &Metadata) -> SystemTime {
    let seconds = Duration::from_secs(metadata.ctime().try_into().unwrap_or(0));
    let nanoseconds = Duration::from_nanos(metadata.ctime_nsec().try_into().unwrap_or(0));
    UNIX_EPOCH + seconds + nanoseconds
}

/// Returns `None` for a file that vanished, since a listing shows only existing files.
fn ignore_not_found<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
