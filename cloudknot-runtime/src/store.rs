//! Where runs are kept: bytes under keys, created once or replaced, listed in order. Knows nothing of runs.
//!
//! What a store is *not*: it does not rename, lock or append, and it never changes an object in place.

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

/// A future that can be boxed, sent and named.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The result of a store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Bytes under keys.
///
/// A key is one or more segments of `[A-Za-z0-9._-]`, separated by `/`; no segment is empty, begins with a dot or is
/// longer than 255 bytes, and the whole is at most 900. Any other key is refused with [`StoreErrorKind::BadKey`]. No key
/// is the folder of another: `a` and `a/b` are never stored side by side.
///
/// Every store passes the one suite in `tests/`.
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// The store in words, for messages: a folder's path, or `s3://bucket/prefix`.
    fn describe(&self) -> String;

    /// How many reads at once serve it best.
    fn parallel_reads(&self) -> usize;

    /// The whole object, or `None` where there is none.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>>;

    /// Exactly these bytes of an object.
    ///
    /// # Errors
    /// `Missing` where there is no object, `Short` where it ends before the range does.
    fn get_range<'a>(&'a self, key: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>>;

    /// Writes an object, in place of one that is there; readers see the old or the new, never a piece.
    fn put<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>>;

    /// Writes an object unless there is one, and says whether it did. Of several that race, exactly one is told so.
    ///
    /// `false` may also mean that an earlier try of this very call wrote it and the answer was lost on the way.
    fn create<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<bool>>;

    /// All objects whose keys start with `prefix` and come after `after`, in the order of their keys' bytes.
    ///
    /// The prefix is any beginning of a key, so it may end within a segment.
    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> BoxFuture<'a, Result<Vec<Object>>>;

    /// An object that is written piece by piece; it is there once `finish` returns, and not at all if dropped before.
    fn writer<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn Writer>>>;

    /// Removes the objects with these keys; those that are not there are passed over.
    fn delete<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<()>>;
}

/// An object being written piece by piece.
pub trait Writer: Send {
    /// Appends.
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>>;

    /// Makes the object visible, in place of one that is there.
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<()>>;
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The whole key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// When it became visible, by the store's clock. S3 says it to the second, a folder to the tick of the kernel
    /// (some milliseconds): two that were stored almost at once can be equal.
    pub stored: SystemTime,
}
