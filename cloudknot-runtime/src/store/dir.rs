//! A folder as a store: each object is a file. Needs only the file system and no async runtime: the futures are ready when
//! they are created.
//!
//! An object is written under a temporary name and then renamed, so that readers see the old or the new one, never a
//! partial one. Nothing is synced to the disk: after a loss of power an object can be truncated or zeroed, which the
//! checksum in each frame detects.

use std::borrow::Cow;
use std::fs::{File, TryLockError};
use std::future::ready;
use std::io::{self, Seek as _, Write as _};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{AtFlags, OFlags};

use super::{BoxFuture, Object, Result, Store, StoreError, StoreErrorKind, Writer, key};
use crate::contract::ENV_HOME;
use crate::files::{self, is_absent};

mod list;
mod write;

use write::{DirWriter, Temp, Temps};

/// A folder as a store. It is created when the first object is written, with a `.gitignore` that keeps it out of git.
///
/// Files and folders are created for this user alone. The path of the store may contain symbolic links; in the folder, none are
/// followed.
///
/// `Object::stored` is the file's change time, which the rename sets: the modification time is when the bytes were written,
/// not when the object became visible. For this reason, copy a folder only while no program is working on it.
#[derive(Debug, Clone)]
pub struct DirStore {
    folder: Arc<Folder>,
}

/// State shared by the store and its writers.
#[derive(Debug)]
struct Folder {
    root: PathBuf,
    temps: Temps,
}

impl DirStore {
    /// Creates a store in this folder, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        // The program may change its working directory while the store is open.
        let root = std::path::absolute(&root).unwrap_or(root);
        Self { folder: Arc::new(Folder { root, temps: Temps::new() }) }
    }

    /// Returns the path of the folder.
    pub fn root(&self) -> &Path {
        &self.folder.root
    }

    /// Opens the file of a key for locking, and creates it if it does not exist. Its contents are unchanged.
    pub fn open_lock(&self, key: &str) -> Result<File> {
        key::check(key)?;
        self.open(key, OFlags::RDWR).map_err(|error| self.folder.failed("lock", key, error))
    }

    /// Opens the file of a key for appending, and creates it if it does not exist. No other store can append.
    pub fn open_append(&self, key: &str) -> Result<File> {
        key::check(key)?;
        self.open(key, OFlags::WRONLY | OFlags::APPEND).map_err(|error| self.failed_to_append(key, error))
    }

    /// Returns the error of a file that could not be appended to.
    pub fn failed_to_append(&self, key: &str, error: io::Error) -> StoreError {
        self.folder.failed("append to", key, error)
    }

    fn open(&self, key: &str, flags: OFlags) -> io::Result<File> {
        let folder = self.folder.create_parent(key)?;
        files::open_file(folder, key::name(key), flags | OFlags::CREATE)
    }

    /// Returns whether a program holds the lock of a key. The file is not created, and a file system without locks holds none.
    ///
    /// A shared lock is taken for a moment, so a program that tries to acquire the lock at the same time has to try again.
    pub fn is_locked(&self, key: &str) -> Result<bool> {
        let Some((file, _)) = self.folder.find(key)? else { return Ok(false) };
        match file.try_lock_shared() {
            // Released when the file is closed.
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) if files::has_no_locks(&error) => Ok(false),
            Err(TryLockError::Error(error)) => Err(self.folder.failed("lock", key, error)),
        }
    }

    /// Removes the empty folders of a folder of objects, and the folder itself if nothing is left in it. No program may write
    /// objects to the folder at the same time.
    pub fn remove_empty_folders(&self, prefix: &str) -> Result<()> {
        self.folder.remove_empty(prefix)
    }
}

impl Store for DirStore {
    fn describe(&self) -> String {
        self.folder.root.display().to_string()
    }

    fn parallel_reads(&self) -> usize {
        1
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        Box::pin(ready(self.folder.get(key)))
    }

    fn size<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(ready(self.folder.size(key)))
    }

    fn get_range<'a>(&'a self, key: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(ready(self.folder.get_range(key, &range)))
    }

    fn put<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(ready(self.folder.put(key, &bytes)))
    }

    fn create<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<bool>> {
        Box::pin(ready(self.folder.create(key, &bytes)))
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> BoxFuture<'a, Result<Vec<Object>>> {
        Box::pin(ready(self.folder.list(prefix, after)))
    }

    fn folders<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(ready(self.folder.folders(prefix)))
    }

    fn writer<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn Writer>>> {
        let writer = DirWriter::open(&self.folder, key);
        Box::pin(ready(writer.map(|writer| Box::new(writer) as Box<dyn Writer>)))
    }

    fn delete<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<()>> {
        Box::pin(ready(keys.iter().try_for_each(|key| self.folder.delete(key))))
    }
}

impl Folder {
    fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let Some((file, size)) = self.find(key)? else { return Ok(None) };
        let bytes = files::read_from(file, size).map_err(|error| self.failed("read", key, error))?;
        Ok(Some(bytes.into()))
    }

    fn size(&self, key: &str) -> Result<Option<u64>> {
        Ok(self.find(key)?.map(|(_, size)| size))
    }

    /// Opens the file of an object. Returns it with its size, or `None` if the object does not exist.
    fn find(&self, key: &str) -> Result<Option<(File, u64)>> {
        key::check(key)?;
        match self.open(key) {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.failed("read", key, error)),
        }
    }

    fn get_range(&self, key: &str, range: &Range<u64>) -> Result<Bytes> {
        key::check(key)?;
        let failed = |error| self.failed(&format!("read bytes {} to {} of", range.start, range.end), key, error);
        let (mut file, size) = self.open(key).map_err(failed)?;
        // Checked before allocating: a damaged offset can be arbitrarily large.
        if range.end > size || range.start > range.end {
            return Err(failed(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the object has {size} bytes"))));
        }
        let length = range.end - range.start;
        file.seek(io::SeekFrom::Start(range.start)).map_err(failed)?;
        let bytes = files::read_from(file, length).map_err(failed)?;
        if (bytes.len() as u64) < length {
            return Err(failed(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the object was truncated while it was read",
            )));
        }
        Ok(bytes.into())
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let temp = self.filled(key, bytes)?;
        self.publish(key, temp, Temp::replace)
    }

    fn create(&self, key: &str, bytes: &[u8]) -> Result<bool> {
        let temp = self.filled(key, bytes)?;
        self.publish(key, temp, Temp::create)
    }

    fn delete(&self, key: &str) -> Result<()> {
        key::check(key)?;
        let unlink = |folder: OwnedFd| Ok(rustix::fs::unlinkat(folder, key::name(key), AtFlags::empty())?);
        match self.open_parent(key).and_then(unlink) {
            Err(error) if !is_absent(&error) => Err(self.failed("delete", key, error)),
            _ => Ok(()),
        }
    }

    /// Opens the file of an object, and returns it with its size.
    fn open(&self, key: &str) -> io::Result<(File, u64)> {
        let file = files::open_file(self.open_parent(key)?, key::name(key), OFlags::RDONLY)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    }

    /// Opens the folder of an object.
    fn open_parent(&self, key: &str) -> io::Result<OwnedFd> {
        self.open_folder(key::folder(key))
    }

    /// Opens a folder of objects; the store's own folder for an empty path.
    fn open_folder(&self, path: &str) -> io::Result<OwnedFd> {
        let mut names = path.split('/').filter(|name| !name.is_empty());
        names.try_fold(files::open_root(&self.root)?, files::open_folder)
    }

    /// Opens the folder of an object, and creates it if it does not exist.
    fn create_parent(&self, key: &str) -> io::Result<OwnedFd> {
        let mut names = key::folder(key).split('/').filter(|name| !name.is_empty());
        names.try_fold(files::open_root(&self.root)?, files::create_folder)
    }

    /// Creates a temporary file that holds these bytes.
    fn filled(&self, key: &str, bytes: &[u8]) -> Result<Temp> {
        key::check(key)?;
        let (temp, mut file) = self.temps.open(&self.root).map_err(|error| self.write_error(key, error))?;
        file.write_all(bytes).map_err(|error| self.write_error(key, error))?;
        Ok(temp)
    }

    /// Moves a temporary file to its key, into a folder that may still have to be created.
    fn publish<T>(&self, key: &str, temp: Temp, move_file: fn(Temp, &OwnedFd, &str) -> io::Result<T>) -> Result<T> {
        let moved = self.create_parent(key).and_then(|folder| move_file(temp, &folder, key::name(key)));
        moved.map_err(|error| self.write_error(key, error))
    }

    fn write_error(&self, key: &str, error: io::Error) -> StoreError {
        // The folder of the object is missing, not the object; or another file has the folder's name.
        if is_absent(&error) || error.kind() == io::ErrorKind::AlreadyExists {
            return self
                .error(StoreErrorKind::Other, "write", key, error)
                .with_hint(format!("set {ENV_HOME} to a folder, or to a path where a folder can be created"));
        }
        self.failed("write", key, error)
    }

    fn failed(&self, verb: &str, key: &str, error: io::Error) -> StoreError {
        let is_wrong_kind = files::is_wrong_kind(&error);
        let failed = self.error(kind(&error), verb, key, error);
        if is_wrong_kind { failed.with_hint(format!("remove it, or set {ENV_HOME} to another folder")) } else { failed }
    }

    fn error(&self, kind: StoreErrorKind, verb: &str, key: &str, error: io::Error) -> StoreError {
        let action = format!("{verb} `{key}` in `{}`", self.root.display());
        let error = StoreError::new(kind, action, Some(error.into()));
        match hint(kind, verb) {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

fn kind(error: &io::Error) -> StoreErrorKind {
    use io::ErrorKind as Io;
    match error.kind() {
        _ if is_absent(error) => StoreErrorKind::Missing,
        Io::UnexpectedEof => StoreErrorKind::Short,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => StoreErrorKind::NoAccess,
        Io::StorageFull | Io::QuotaExceeded => StoreErrorKind::Full,
        _ => StoreErrorKind::Other,
    }
}

fn hint(kind: StoreErrorKind, verb: &str) -> Option<Cow<'static, str>> {
    match kind {
        StoreErrorKind::NoAccess => {
            let access = if matches!(verb, "read" | "list") { "read" } else { "write" };
            Some(format!("give this user {access} access to the folder, or set {ENV_HOME} to another one").into())
        }
        StoreErrorKind::Full => {
            Some("free space; stored results are kept, and attaching to the run continues it".into())
        }
        _ => None,
    }
}
