//! Where runs are kept: bytes under keys, created once or replaced, listed in order. Knows nothing of runs.
//!
//! What a store is *not*: it does not rename, lock or append, and it never changes an object in place.

use std::error::Error as StdError;
use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::time::SystemTime;

use bytes::Bytes;

mod dir;
#[cfg(feature = "s3")]
mod s3;

pub use dir::DirStore;
#[cfg(feature = "s3")]
pub use s3::S3Store;

/// A future that can be boxed, sent and named.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The result of a store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Bytes under keys. Keys are `/`-separated, of `[A-Za-z0-9._-]`, without `.` or `..` segments.
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

    /// Writes an object unless there is one, and says whether it did.
    fn create<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<bool>>;

    /// All objects whose keys start with `prefix` and come after `after`, in the order of their keys.
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
    /// When it was stored, by the store's clock.
    pub stored: SystemTime,
}

/// Something that a store could not do.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    doing: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What kind of thing a store could not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// There is no such object (or bucket, or folder).
    Missing,
    /// The object ends before the range that was asked for.
    Short,
    /// The store does not let us.
    Denied,
    /// The store is full.
    Full,
    /// The store cannot be reached, or answers with errors.
    Unavailable,
    /// Anything else.
    Other,
}

impl StoreError {
    /// An error; `doing` completes "failed to …" and names the object.
    pub fn new(
        kind: StoreErrorKind,
        doing: impl Into<String>,
        source: Option<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, doing: doing.into(), source }
    }

    /// What kind of thing it is.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Why the store could not do it.
    pub fn into_source(self) -> Option<Box<dyn StdError + Send + Sync>> {
        self.source
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self.kind {
            StoreErrorKind::Denied => {
                Some("give this user write access to the store, or set CLOUDKNOT_HOME to another folder")
            }
            StoreErrorKind::Full => {
                Some("make room; what is stored is kept, and attaching to the run goes on from there")
            }
            _ => None,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}", self.doing)
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
