//! Writes objects as files: under a temporary name, then moved to the key. Independent of the meaning of keys.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustix::fs::{AtFlags, Dir, OFlags, RenameFlags, linkat, renameat, renameat_with, statat, unlinkat};
use rustix::io::Errno;

use super::Folder;
use crate::files;
use crate::store::{BoxFuture, Result, Writer, key};

/// Folder of the temporary files. It is in the store's folder, so that a rename stays within one file system. No key begins
/// with a dot.
const FOLDER: &str = ".tmp";
/// Age from which leftovers of killed programs are removed: one week. Younger files may still be in use.
const MAX_LEFTOVER_AGE: Duration = Duration::from_hours(7 * 24);
/// Size of a writer's buffer in bytes, so that small items do not each need a system call.
const BUFFER_LEN: usize = 64 * 1024;

/// The temporary files of a store.
#[derive(Debug)]
pub(super) struct Temps {
    /// Prefix that distinguishes the files of this store from those of other stores open on the same folder. Process IDs
    /// alone do not: in containers each can be 1.
    prefix: String,
    next: AtomicU64,
    swept: Once,
}

/// A temporary file, removed when dropped unless it was moved.
#[derive(Debug)]
pub(super) struct Temp {
    folder: OwnedFd,
    name: String,
    moved: bool,
}

impl Temps {
    pub(super) fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let prefix = format!("{}-{:x}", std::process::id(), now.as_nanos());
        Self { prefix, next: AtomicU64::new(0), swept: Once::new() }
    }

    /// Creates a new, empty file, and the store's folder if it does not exist.
    pub(super) fn open(&self, root: &Path) -> io::Result<(Temp, File)> {
        let folder = open_temp_folder(root)?;
        self.swept.call_once(|| sweep(&folder));
        loop {
            let name = format!("{}-{}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed));
            match files::open_file(&folder, &name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL) {
                Ok(file) => return Ok((Temp { folder, name, moved: false }, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Opens the folder of the temporary files. Creates it, and the store's folder, if they do not exist.
fn open_temp_folder(root: &Path) -> io::Result<OwnedFd> {
    let opened = files::open_root(root).and_then(|root| files::open_folder(root, FOLDER));
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create_temp_folder(root),
        opened => opened,
    }
}

fn create_temp_folder(root: &Path) -> io::Result<OwnedFd> {
    files::create_folders(root)?;
    // A folder that already has other content gets no `.gitignore`.
    if std::fs::read_dir(root)?.next().is_none() {
        files::write(&root.join(".gitignore"), b"*\n")?;
    }
    files::create_folder(files::open_root(root)?, FOLDER)
}

/// Removes old leftovers. Errors are ignored, since leftovers do no harm.
fn sweep(folder: &OwnedFd) {
    let Ok(entries) = Dir::read_from(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| is_leftover(stat.st_mtime)) {
            let _ = unlinkat(folder, name, AtFlags::empty());
        }
    }
}

fn is_leftover(modified: impl TryInto<u64>) -> bool {
    let modified = UNIX_EPOCH + Duration::from_secs(modified.try_into().unwrap_or(0));
    modified.elapsed().is_ok_and(|age| age > MAX_LEFTOVER_AGE)
}

impl Temp {
    /// Moves the file to this name in a folder, and replaces any existing one.
    pub(super) fn replace(mut self, target: &OwnedFd, name: &str) -> io::Result<()> {
        renameat(&self.folder, &self.name, target, name)?;
        self.moved = true;
        Ok(())
    }

    /// Moves the file to this name in a folder, unless the name exists. Returns whether the file was moved.
    pub(super) fn create(mut self, target: &OwnedFd, name: &str) -> io::Result<bool> {
        match renameat_with(&self.folder, &self.name, target, name, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.moved = true;
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            // Some file systems (NFS, some FUSE) do not support this. A hard link never replaces a file either; the
            // temporary name is removed when this value is dropped.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => self.link(target, name),
            Err(error) => Err(error.into()),
        }
    }

    fn link(&self, target: &OwnedFd, name: &str) -> io::Result<bool> {
        match linkat(&self.folder, &self.name, target, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.moved {
            let _ = unlinkat(&self.folder, &self.name, AtFlags::empty());
        }
    }
}

/// Writer of an object into its temporary file.
pub(super) struct DirWriter {
    folder: Arc<Folder>,
    key: String,
    temp: Temp,
    file: BufWriter<File>,
}

impl DirWriter {
    pub(super) fn open(folder: &Arc<Folder>, key: &str) -> Result<Self> {
        key::check(key)?;
        let (temp, file) = folder.temps.open(&folder.root).map_err(|error| folder.write_error(key, error))?;
        let file = BufWriter::with_capacity(BUFFER_LEN, file);
        Ok(Self { folder: Arc::clone(folder), key: key.to_owned(), temp, file })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| self.folder.write_error(&self.key, error))
    }

    fn publish(mut self) -> Result<()> {
        self.file.flush().map_err(|error| self.folder.write_error(&self.key, error))?;
        self.folder.publish(&self.key, self.temp, Temp::replace)
    }
}

impl Writer for DirWriter {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(self.append(&bytes)))
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        Box::pin(std::future::ready(self.publish()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Covers file systems without `RENAME_NOREPLACE`.
    #[test]
    fn link_never_replaces() {
        let root = std::env::temp_dir().join(format!("cloudknot-link-{}", std::process::id()));
        let temps = Temps::new();
        for (bytes, created) in [(b"one", true), (b"two", false)] {
            let (temp, mut file) = temps.open(&root).expect("open");
            file.write_all(bytes).expect("write");
            let folder = files::open_root(&root).expect("open the folder");
            assert_eq!(temp.link(&folder, "object").expect("link"), created);
        }
        assert_eq!(std::fs::read(root.join("object")).expect("read"), b"one");
        assert_eq!(std::fs::read_dir(root.join(FOLDER)).expect("list").count(), 0);
        std::fs::remove_dir_all(&root).expect("clean up");
    }
}
