//! Stores for runs: bytes under keys, created once or replaced, listed in order. A store does not depend on the contents
//! of runs.
//!
//! A store does *not* rename, lock or append, and never changes an object in place.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::time::SystemTime;

use bytes::Bytes;

mod dir;
mod error;
mod key;
#[cfg(feature = "s3")]
pub mod s3;

pub use dir::DirStore;
pub use error::{StoreError, StoreErrorKind};
#[cfg(feature = "s3")]
pub use s3::S3Store;

/// A boxed future that can be sent to another thread.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Result of a store operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A store of objects: bytes under keys.
///
/// A key is one or more segments of `[A-Za-z0-9._-]`, separated by `/`; no segment is empty, begins with a dot or is
/// longer than 255 bytes, and the whole key is at most 900 bytes long. Any other key is refused with
/// [`StoreErrorKind::BadKey`]. No key is the folder of another: `a` and `a/b` are never stored side by side.
///
/// Every store passes the shared test suite in `tests/`.
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Returns a description of the store for messages: the path of a folder, or `s3://bucket/prefix`.
    fn describe(&self) -> String;

    /// Returns the best number of concurrent reads.
    fn parallel_reads(&self) -> usize;

    /// Returns the maximum size in bytes of an object that `put` and `create` write.
    fn max_object(&self) -> u64 {
        u64::MAX
    }

    /// Returns the whole object, or `None` if it does not exist.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>>;

    /// Returns the size of an object in bytes, or `None` if it does not exist.
    fn size<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>>;

    /// Returns exactly these bytes of an object.
    ///
    /// # Errors
    /// `Missing` if the object does not exist, `Short` if it ends before the range does.
    fn get_range<'a>(&'a self, key: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>>;

    /// Writes an object and replaces any existing one. Readers see the old object or the new one, never a partial one.
    fn put<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>>;

    /// Writes an object unless it exists. Returns whether it was written; of several racing calls, exactly one returns `true`.
    ///
    /// `false` may also mean that an earlier request of this same call wrote the object and its response was lost.
    fn create<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<bool>>;

    /// Returns all objects whose keys start with `prefix` and come after `after`, in the byte order of their keys.
    ///
    /// The prefix is any beginning of a key, so it may end within a segment.
    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> BoxFuture<'a, Result<Vec<Object>>>;

    /// Returns the names of the folders directly in the folder `prefix`, in their byte order. A folder exists while it contains an
    /// object, at any depth. `prefix` ends with a slash, or is empty.
    fn folders<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>>;

    /// Returns a writer for an object that is written piece by piece. The object exists once `finish` returns, and is not
    /// created if the writer is dropped before.
    fn writer<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn Writer>>>;

    /// Removes the objects with these keys. Missing objects are ignored.
    fn delete<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<()>>;
}

/// Writer of an object that is written piece by piece.
pub trait Writer: Send {
    /// Appends bytes to the object.
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>>;

    /// Makes the object visible and replaces any existing one.
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<()>>;
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Whole key.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// Time at which the object became visible, by the store's clock. The resolution is one second on S3, and one tick of
    /// the kernel (some milliseconds) in a folder, so objects stored almost at once can have equal times.
    pub stored: SystemTime,
}
