//! A folder as a store: each object is a file. Needs only the file system and no async runtime: the futures are ready when
//! they are created.
//!
//! An object is written under a temporary name and then renamed, so that readers see the old or the new one, never a
//! partial one. Nothing is synced to the disk: after a loss of power an object can be truncated or zeroed, which the
//! checksum in each frame detects.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::future::ready;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use super::{BoxFuture, Object, Result, Store, StoreError, StoreErrorKind, Writer, key};
use crate::contract::ENV_HOME;

mod list;
mod write;

use write::{DirWriter, Temp, Temps};

/// A folder as a store. It is created when the first object is written, with a `.gitignore` that keeps it out of git.
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
    /// Folders that are known to exist, since ensuring that a folder exists costs more than writing a small object.
    existing_folders: RwLock<HashSet<String>>,
}

impl DirStore {
    /// Creates a store in this folder, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        // The program may change its working directory while the store is open.
        let root = std::path::absolute(&root).unwrap_or(root);
        let temps = Temps::new(&root);
        Self { folder: Arc::new(Folder { root, temps, existing_folders: RwLock::default() }) }
    }

    /// Returns the path of the folder.
    pub fn root(&self) -> &Path {
        &self.folder.root
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
        key::check(key)?;
        match std::fs::read(self.path(key)) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if absent(&error) => Ok(None),
            Err(error) => Err(self.failed("read", key, error)),
        }
    }

    fn get_range(&self, key: &str, range: &Range<u64>) -> Result<Bytes> {
        key::check(key)?;
        let failed = |error| self.failed(&format!("read bytes {} to {} of", range.start, range.end), key, error);
        let mut file = File::open(self.path(key)).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        // Checked before allocating: a damaged offset can be arbitrarily large.
        if range.end > size || range.start > range.end {
            return Err(failed(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the object has {size} bytes"))));
        }
        let length = usize::try_from(range.end - range.start)
            .map_err(|error| failed(io::Error::new(io::ErrorKind::OutOfMemory, error)))?;
        file.seek(io::SeekFrom::Start(range.start)).map_err(failed)?;
        // `read_to_end` fills spare capacity, so that the buffer need not be zeroed first.
        let mut bytes = Vec::with_capacity(length);
        let read = file.take(length as u64).read_to_end(&mut bytes).map_err(failed)?;
        if read < length {
            return Err(failed(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the object was truncated while it was read",
            )));
        }
        Ok(bytes.into())
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let mut temp = self.filled(key, bytes)?;
        self.publish(key, || temp.replace(&self.path(key)))
    }

    fn create(&self, key: &str, bytes: &[u8]) -> Result<bool> {
        let mut temp = self.filled(key, bytes)?;
        self.publish(key, || temp.create(&self.path(key)))
    }

    fn delete(&self, key: &str) -> Result<()> {
        key::check(key)?;
        match std::fs::remove_file(self.path(key)) {
            Err(error) if !absent(&error) => Err(self.failed("delete", key, error)),
            _ => Ok(()),
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// Creates a temporary file that holds these bytes.
    fn filled(&self, key: &str, bytes: &[u8]) -> Result<Temp> {
        key::check(key)?;
        let (temp, mut file) = self.temps.open(&self.root).map_err(|error| self.write_error(key, error))?;
        file.write_all(bytes).map_err(|error| self.write_error(key, error))?;
        Ok(temp)
    }

    /// Moves a temporary file to its key, into a folder that may still have to be created.
    fn publish<T>(&self, key: &str, mut move_file: impl FnMut() -> io::Result<T>) -> Result<T> {
        let moved = self.ensure_parent(key).and_then(|()| match move_file() {
            // The folder was removed after it was recorded as existing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.existing_folders.write().unwrap_or_else(PoisonError::into_inner).clear();
                self.ensure_parent(key)?;
                move_file()
            }
            moved => moved,
        });
        moved.map_err(|error| self.write_error(key, error))
    }

    fn ensure_parent(&self, key: &str) -> io::Result<()> {
        let Some((parent, _)) = key.rsplit_once('/') else { return Ok(()) };
        if self.existing_folders.read().unwrap_or_else(PoisonError::into_inner).contains(parent) {
            return Ok(());
        }
        std::fs::create_dir_all(self.path(parent))?;
        self.existing_folders.write().unwrap_or_else(PoisonError::into_inner).insert(parent.to_owned());
        Ok(())
    }

    fn write_error(&self, key: &str, error: io::Error) -> StoreError {
        // The folder of the object is missing, not the object; or another file has the folder's name.
        if absent(&error) || error.kind() == io::ErrorKind::AlreadyExists {
            return self
                .error(StoreErrorKind::Other, "write", key, error)
                .with_hint(format!("set {ENV_HOME} to a folder, or to a path where a folder can be created"));
        }
        self.error(kind(&error), "write", key, error)
    }

    fn failed(&self, verb: &str, key: &str, error: io::Error) -> StoreError {
        self.error(kind(&error), verb, key, error)
    }

    fn error(&self, kind: StoreErrorKind, verb: &str, key: &str, error: io::Error) -> StoreError {
        let action = format!("{verb} `{key}` in `{}`", self.root.display());
        let error = StoreError::new(kind, action, Some(error.into()));
        match hint(kind) {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

/// Returns `true` if the error means that the file does not exist, also if a parent of the file is not a folder.
fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn kind(error: &io::Error) -> StoreErrorKind {
    use io::ErrorKind as Io;
    match error.kind() {
        _ if absent(error) => StoreErrorKind::Missing,
        Io::UnexpectedEof => StoreErrorKind::Short,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => StoreErrorKind::Denied,
        Io::StorageFull | Io::QuotaExceeded => StoreErrorKind::Full,
        _ => StoreErrorKind::Other,
    }
}

fn hint(kind: StoreErrorKind) -> Option<Cow<'static, str>> {
    match kind {
        StoreErrorKind::Denied => {
            Some(format!("give this user write access to the folder, or set {ENV_HOME} to another one").into())
        }
        StoreErrorKind::Full => {
            Some("free space; stored results are kept, and attaching to the run continues it".into())
        }
        _ => None,
    }
}
