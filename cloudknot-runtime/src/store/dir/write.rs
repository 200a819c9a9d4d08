//! Writes objects as files: under a temporary name, then moved to the key. Independent of the meaning of keys.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::Folder;
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
    folder: PathBuf,
    /// Prefix that distinguishes the files of this store from those of other stores open on the same folder. Process IDs
    /// alone do not: in containers each can be 1.
    prefix: String,
    next: AtomicU64,
    swept: Once,
}

/// A temporary file, removed when dropped unless it was moved.
#[derive(Debug)]
pub(super) struct Temp {
    path: PathBuf,
    moved: bool,
}

impl Temps {
    pub(super) fn new(root: &Path) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let prefix = format!("{}-{:x}", std::process::id(), now.as_nanos());
        Self { folder: root.join(FOLDER), prefix, next: AtomicU64::new(0), swept: Once::new() }
    }

    /// Creates a new, empty file, and the store's folder if it does not exist.
    pub(super) fn open(&self, root: &Path) -> io::Result<(Temp, File)> {
        self.swept.call_once(|| self.sweep());
        let mut created = false;
        loop {
            let path = self.folder.join(format!("{}-{}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed)));
            match File::create_new(&path) {
                Ok(file) => return Ok((Temp { path, moved: false }, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound && !created => {
                    self.create_folders(root)?;
                    created = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn create_folders(&self, root: &Path) -> io::Result<()> {
        fs::create_dir_all(root)?;
        // A folder that already has other content gets no `.gitignore`.
        if fs::read_dir(root)?.next().is_none() {
            fs::write(root.join(".gitignore"), "*\n")?;
        }
        match fs::create_dir(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes old leftovers. Errors are ignored, since leftovers do no harm.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            if modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > MAX_LEFTOVER_AGE)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Temp {
    /// Moves the file to `target` and replaces any existing one.
    pub(super) fn replace(&mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.moved = true;
        Ok(())
    }

    /// Moves the file to `target`, unless `target` exists. Returns whether the file was moved.
    pub(super) fn create(&mut self, target: &Path) -> io::Result<bool> {
        match renameat_with(CWD, &self.path, CWD, target, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.moved = true;
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            // Some file systems (NFS, some FUSE) do not support this. A hard link never replaces a file either; the
            // temporary name is removed when this value is dropped.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => self.link(target),
            Err(error) => Err(error.into()),
        }
    }

    fn link(&self, target: &Path) -> io::Result<bool> {
        match fs::hard_link(&self.path, target) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.moved {
            let _ = fs::remove_file(&self.path);
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
        let target = self.folder.path(&self.key);
        self.folder.publish(&self.key, || self.temp.replace(&target))
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
        let temps = Temps::new(&root);
        let target = root.join("object");
        for (bytes, created) in [(b"one", true), (b"two", false)] {
            let (temp, mut file) = temps.open(&root).expect("open");
            file.write_all(bytes).expect("write");
            assert_eq!(temp.link(&target).expect("link"), created);
        }
        assert_eq!(fs::read(&target).expect("read"), b"one");
        assert_eq!(fs::read_dir(root.join(FOLDER)).expect("list").count(), 0);
        fs::remove_dir_all(&root).expect("clean up");
    }
}
